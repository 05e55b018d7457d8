//! Who may see what: the newest decided epoch, the newest readable (published) one, and the pins of
//! readers.
//!
//! A pin and the published epoch are read and written under one lock, so that a reader never pins
//! an epoch that a writer has already merged past. A pin that is held for too long is given up:
//! what it would read is not kept any more, and a reader that comes back to it is told so.

use crate::protocol::Positions;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tokio::sync::watch;

/// Shared by the coordinator, sessions, sinks and creating jobs.
pub struct Readers {
    state: Mutex<State>,
    decided: watch::Sender<Epoch>,
    published: watch::Sender<Epoch>,
    log_error: Mutex<Option<Error>>,
    stalled: AtomicBool,
}

#[derive(Default)]
struct State {
    published: Epoch,
    positions: Arc<Positions>,
    /// Since when which epoch is pinned, by the pin's number; `None`: as long as it takes.
    pins: BTreeMap<(Epoch, u64), Option<Instant>>,
    next_pin: u64,
}

/// Rows as of this epoch stay readable until the pin is dropped.
pub struct Pin {
    readers: Arc<Readers>,
    epoch: Epoch,
    number: u64,
    positions: Arc<Positions>,
    /// Ends of sources that no job reads, as first asked for under this pin.
    ends: Mutex<Positions>,
    /// Where reading a source begins, as first asked for under this pin.
    starts: Mutex<Positions>,
}

impl Readers {
    /// Nothing is decided or published yet.
    pub fn new() -> Arc<Readers> {
        Arc::new(Readers {
            state: Mutex::default(),
            decided: watch::Sender::new(Epoch(0)),
            published: watch::Sender::new(Epoch(0)),
            log_error: Mutex::default(),
            stalled: AtomicBool::new(false),
        })
    }

    /// Pins the newest readable epoch.
    pub fn pin(self: &Arc<Readers>) -> Pin {
        let mut state = self.state.lock();
        let epoch = state.published;
        self.pin_in(&mut state, epoch, Some(Instant::now()))
    }

    /// Pins an epoch that is not published yet, for a job that begins with what relations hold at
    /// its end. It is never given up: the job takes as long as it takes.
    pub fn pin_ahead(self: &Arc<Readers>, epoch: Epoch) -> Pin {
        self.pin_in(&mut self.state.lock(), epoch, None)
    }

    fn pin_in(self: &Arc<Readers>, state: &mut State, epoch: Epoch, since: Option<Instant>) -> Pin {
        let number = state.next_pin;
        state.next_pin += 1;
        state.pins.insert((epoch, number), since);
        Pin {
            readers: self.clone(),
            epoch,
            number,
            positions: state.positions.clone(),
            ends: Mutex::default(),
            starts: Mutex::default(),
        }
    }

    /// Epochs up to this one may be merged into the base of a view: published, and not past any
    /// pin.
    pub fn mergeable(&self) -> Epoch {
        let state = self.state.lock();
        state
            .pins
            .keys()
            .next()
            .map_or(state.published, |(pin, _)| state.published.min(*pin))
    }

    /// The epochs that can still be read, in order: those that are pinned, and the newest published
    /// one. Those between two of them nobody can read.
    pub fn needed(&self) -> Vec<Epoch> {
        let state = self.state.lock();
        let mut needed: Vec<Epoch> = state.pins.keys().map(|(epoch, _)| *epoch).collect();
        needed.push(state.published);
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    /// Gives up the pins of older epochs that are held for longer than `age_max`. Returns their
    /// epochs.
    pub fn expire(&self, age_max: Duration) -> Vec<Epoch> {
        let mut state = self.state.lock();
        let published = state.published;
        let mut given_up = Vec::new();
        state.pins.retain(|(epoch, _), since| {
            let is_old = since.is_some_and(|since| since.elapsed() > age_max);
            let keep = *epoch == published || !is_old;
            if !keep {
                given_up.push(*epoch);
            }
            keep
        });
        given_up
    }

    /// Epoch `epoch` is decided.
    pub fn decide(&self, epoch: Epoch) {
        self.decided.send_replace(epoch);
    }

    /// Epoch `epoch` is decided and complete; `positions`: where all sources stand at its end.
    pub fn publish(&self, epoch: Epoch, positions: Arc<Positions>) {
        {
            let mut state = self.state.lock();
            state.published = epoch;
            state.positions = positions;
        }
        self.published.send_replace(epoch);
    }

    /// Why nothing can be decided at the moment, if so.
    pub fn log_error(&self) -> Option<Error> {
        self.log_error.lock().clone()
    }

    /// Set by the coordinator while the log takes no entries.
    pub fn set_log_error(&self, error: Option<Error>) {
        self.stalled.store(error.is_some(), Ordering::Relaxed);
        *self.log_error.lock() = error;
    }

    /// Nothing can be decided at the moment: what is read now would pile up in an epoch that does
    /// not end.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// The newest decided epoch.
    pub fn decided(&self) -> Epoch {
        *self.decided.borrow()
    }

    /// The newest readable epoch.
    pub fn published(&self) -> Epoch {
        *self.published.borrow()
    }

    /// Follows the newest readable epoch.
    pub fn watch_published(&self) -> watch::Receiver<Epoch> {
        self.published.subscribe()
    }

    /// Waits until `epoch` is readable.
    pub async fn wait_published(&self, epoch: Epoch) -> Result<()> {
        let mut published = self.published.subscribe();
        published
            .wait_for(|p| *p >= epoch)
            .await
            .map(|_| ())
            .map_err(|_| Error::unavailable(SqlState("57P01"), "the server is shutting down"))
    }
}

impl Pin {
    /// The pinned epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the running sources stand at the end of the pinned epoch.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Where reading `source` ends under this pin: at the epoch's cut if it runs, else at what
    /// `ask` says the first time, so that a query that reads it twice reads the same.
    pub fn end_of(
        &self,
        source: RelationId,
        ask: impl FnOnce() -> Result<Vec<SplitPosition>>,
    ) -> Result<Vec<SplitPosition>> {
        if let Some(positions) = self.positions.get(&source) {
            return Ok(positions.clone());
        }
        first_answer(&self.ends, source, ask)
    }

    /// Where reading `source` begins under this pin: at what `ask` says the first time.
    pub fn start_of(
        &self,
        source: RelationId,
        ask: impl FnOnce() -> Result<Vec<SplitPosition>>,
    ) -> Result<Vec<SplitPosition>> {
        first_answer(&self.starts, source, ask)
    }

    /// Up to which epoch a reader may merge pending changes itself.
    pub fn mergeable(&self) -> Epoch {
        self.readers.mergeable()
    }
}

fn first_answer(
    answers: &Mutex<Positions>,
    source: RelationId,
    ask: impl FnOnce() -> Result<Vec<SplitPosition>>,
) -> Result<Vec<SplitPosition>> {
    let mut answers = answers.lock();
    if let Some(answer) = answers.get(&source) {
        return Ok(answer.clone());
    }
    let answer = ask()?;
    answers.insert(source, answer.clone());
    Ok(answer)
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.readers.state.lock();
        state.pins.remove(&(self.epoch, self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_nobody_reads_ends_at_one_place_under_a_pin() {
        let position = |next_offset| SplitPosition {
            split: 0,
            topic_id: String::new(),
            leader_epoch: -1,
            newest_epoch: -1,
            next_offset,
            records: 0,
            time_ms: -1,
            event_time_micros: None,
        };
        let readers = Readers::new();
        readers.publish(
            Epoch(1),
            Arc::new(Positions::from([(RelationId(1), vec![position(5)])])),
        );
        let pin = readers.pin();
        assert_eq!(
            pin.end_of(RelationId(1), || panic!("its cut is known"))
                .unwrap(),
            [position(5)]
        );
        assert!(
            pin.end_of(RelationId(2), || Err(Error::internal("the broker is away")))
                .is_err()
        );
        assert_eq!(
            pin.end_of(RelationId(2), || Ok(vec![position(7)])).unwrap(),
            [position(7)]
        );
        assert_eq!(
            pin.end_of(RelationId(2), || Ok(vec![position(9)])).unwrap(),
            [position(7)]
        );
    }

    #[test]
    fn a_pin_holds_back_merging_until_it_is_dropped() {
        let readers = Readers::new();
        readers.publish(Epoch(3), Arc::default());
        let pin = readers.pin();
        readers.publish(Epoch(5), Arc::default());
        assert_eq!((pin.epoch(), readers.mergeable()), (Epoch(3), Epoch(3)));
        drop(pin);
        assert_eq!(readers.mergeable(), Epoch(5));
    }

    #[test]
    fn what_can_be_read_is_what_is_pinned_and_the_newest() {
        let readers = Readers::new();
        let mut pins = Vec::new();
        for epoch in [3, 3, 7, 9] {
            readers.publish(Epoch(epoch), Arc::default());
            pins.push(readers.pin());
        }
        readers.publish(Epoch(12), Arc::default());
        assert_eq!(readers.needed(), [3, 7, 9, 12].map(Epoch));
        pins.remove(2);
        pins.remove(0);
        assert_eq!(readers.needed(), [3, 9, 12].map(Epoch));
    }

    #[test]
    fn what_a_job_begins_with_is_kept_as_long_as_it_takes() {
        let readers = Readers::new();
        readers.publish(Epoch(3), Arc::default());
        let ahead = readers.pin_ahead(Epoch(5));
        assert_eq!(readers.needed(), [3, 5].map(Epoch));
        assert_eq!(readers.mergeable(), Epoch(3));
        readers.publish(Epoch(7), Arc::default());
        assert!(readers.expire(Duration::ZERO).is_empty());
        assert_eq!(
            (readers.mergeable(), readers.needed()),
            (Epoch(5), vec![Epoch(5), Epoch(7)])
        );
        drop(ahead);
        assert_eq!(readers.needed(), [Epoch(7)]);
    }

    #[test]
    fn a_pin_that_is_too_old_holds_nothing_back() {
        let readers = Readers::new();
        readers.publish(Epoch(3), Arc::default());
        let old = readers.pin();
        assert!(
            readers.expire(Duration::ZERO).is_empty(),
            "the newest stays"
        );
        readers.publish(Epoch(5), Arc::default());
        let new = readers.pin();
        assert!(readers.expire(Duration::from_secs(3600)).is_empty());
        assert_eq!(readers.expire(Duration::ZERO), [Epoch(3)]);
        assert_eq!(readers.needed(), [Epoch(5)]);
        drop(old);
        assert_eq!(readers.mergeable(), Epoch(5));
        drop(new);
    }
}
