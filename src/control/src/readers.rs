//! Who may see what: how far each job is complete, the epochs at which relations can be read
//! together, and the pins of readers.
//!
//! **Marks.** A job completes epochs at its own pace, and one that takes hours for one holds up
//! nobody else. What is read together is read at one epoch that is complete in all of it; so a
//! fast relation must still have the rows of where a slow one is. It cannot keep every epoch in
//! between: some are *marks*, and every relation keeps those apart. The oldest mark is complete in
//! all jobs, the newest is the newest decided epoch. Whoever pins gets the newest mark that is
//! complete in the relations that it names.
//!
//! **Law.** A reader of a relation never sees it go back: the newest mark that a job has completed
//! stays, and so does the one that it comes to next, so that a job which is behind for ever still
//! moves on. Of the others every second one is dropped whenever there are more than [`MARKS_MAX`].
//! So there are no more marks than that and two for each job, and where all jobs keep up, every
//! epoch is one until the next is complete.
//!
//! **What was acknowledged is seen.** A write returns when its epoch is decided, which can be
//! before its table's job has completed it. Who asks that table afterwards, in whatever session,
//! waits for that: the newest epoch that was acknowledged for a table is known here until all can
//! read it. A statement that reads other relations beside the table waits for them too, but not for
//! one that is far behind ([`PATIENCE`] after the decision): it then sees all as of where that one
//! is, as without a write. A table whose job does not run is waited for by nobody.
//!
//! Marks, completions and pins are read and written under one lock, so that a reader never pins an
//! epoch that a writer has already merged past. A pin that is held for too long is given up: what
//! it would read is not kept any more, and a reader that comes back to it is told so.

use crate::protocol::{Floors, Positions};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{SinkMarker, SplitPosition};
use tidemark_common::{Epoch, Error, RelationId, Result, machine};
use tokio::sync::watch;

/// Marks that are kept beside those that jobs need to move on.
const MARKS_MAX: usize = 16;

/// So long after a write was decided those who read its table wait for what they read beside it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shared by the coordinator, sessions, sinks and creating jobs.
pub struct Readers {
    state: Mutex<State>,
    /// The newest decided epoch.
    decided: watch::Sender<Epoch>,
    /// Some job has completed an epoch, or ended.
    moved: watch::Sender<()>,
    log_error: Mutex<Option<Error>>,
    stalled: AtomicBool,
    /// What sinks into tables have delivered, as the log has it.
    markers: Mutex<BTreeMap<RelationId, SinkMarker>>,
    /// What is decided of splits that brought nothing.
    floors: Mutex<Arc<Floors>>,
}

struct State {
    /// Never empty.
    marks: BTreeMap<Epoch, Mark>,
    /// The newest decided epoch that each running job has completed.
    complete: BTreeMap<RelationId, Epoch>,
    /// The newest epoch that was acknowledged to those who wrote to a table, unless all can read
    /// it, and since when it is decided.
    acknowledged: BTreeMap<RelationId, (Epoch, Instant)>,
    /// The pinned epochs, by the pin's number, and since when they are pinned without being a mark
    /// (or were pinned, while they are one); `None`: as long as it takes.
    pins: BTreeMap<(Epoch, u64), Option<Instant>>,
    next_pin: u64,
    /// Marks have gone that nobody was told of.
    has_dropped: bool,
}

/// An epoch, and up to which one a reader may merge pending changes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readable {
    /// The epoch that is read.
    pub epoch: Epoch,
    /// See [`Readers::mergeable`].
    pub mergeable: Epoch,
}

/// Acknowledged writes that a statement waits for.
struct Unseen {
    /// The newest of their epochs.
    epoch: Epoch,
    /// How long that is waited for in what is read beside the tables.
    patience: Instant,
    /// Each table with its own.
    tables: Vec<(RelationId, Epoch)>,
}

struct Mark {
    /// Where all sources stand at its end.
    positions: Arc<Positions>,
    /// It stays until all jobs have completed it.
    stays: bool,
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

impl State {
    fn beginning_at(epoch: Epoch, positions: Arc<Positions>) -> BTreeMap<Epoch, Mark> {
        let stays = false;
        BTreeMap::from([(epoch, Mark { positions, stays })])
    }

    fn oldest(&self) -> Epoch {
        *self.marks.keys().next().expect("there is a mark")
    }

    /// The newest mark up to `epoch`; the oldest if there is none.
    fn mark_at(&self, epoch: Epoch) -> Epoch {
        let known = self.marks.range(..=epoch).next_back();
        known.map_or_else(|| self.oldest(), |(mark, _)| *mark)
    }

    /// The newest mark that is complete in these relations, as far as their jobs run.
    fn readable(&self, relations: &[RelationId]) -> Epoch {
        let complete = relations.iter().filter_map(|id| self.complete.get(id));
        self.mark_at(complete.min().copied().unwrap_or(Epoch(u64::MAX)))
    }

    /// The oldest mark moves on to the newest one that all jobs have completed.
    fn move_on(&mut self) {
        let newest = self.marks.keys().next_back().copied();
        let all = self.complete.values().min().copied().or(newest);
        let oldest = self.mark_at(all.unwrap_or_default());
        self.acknowledged.retain(|_, (epoch, _)| *epoch > oldest);
        let marks = self.marks.split_off(&oldest);
        let dropped = std::mem::replace(&mut self.marks, marks);
        self.has_dropped |= !dropped.is_empty();
        self.let_age(dropped.into_keys());
    }

    /// These epochs are no marks any more: from now on their pins cost something.
    fn let_age(&mut self, epochs: impl Iterator<Item = Epoch>) {
        for epoch in epochs {
            let pins = self.pins.range_mut((epoch, 0)..=(epoch, u64::MAX));
            for since in pins.filter_map(|(_, since)| since.as_mut()) {
                *since = machine::now();
            }
        }
    }

    /// What was acknowledged for these relations and cannot be read of each of them and of all of
    /// them together.
    fn unseen(&self, relations: &[RelationId], readable: Epoch) -> Option<Unseen> {
        if self.acknowledged.is_empty() {
            return None;
        }
        let acknowledged = relations.iter().filter_map(|id| {
            let (epoch, since) = self.acknowledged.get(id)?;
            (*epoch > readable).then_some((*id, *epoch, *since))
        });
        let tables: Vec<_> = acknowledged.collect();
        let (_, epoch, since) = *tables.iter().max_by_key(|(_, epoch, _)| *epoch)?;
        Some(Unseen {
            epoch,
            patience: since + PATIENCE,
            tables: tables.into_iter().map(|(id, e, _)| (id, e)).collect(),
        })
    }

    /// Whether a statement that began when this was unseen sees it as of `readable`, or, `patient`
    /// no more, waits for what else it reads.
    fn shows(&self, unseen: &Unseen, readable: Epoch, patient: bool) -> bool {
        let is_complete = |(table, epoch): &(RelationId, Epoch)| self.readable(&[*table]) >= *epoch;
        readable >= unseen.epoch || !patient && unseen.tables.iter().all(is_complete)
    }

    /// Drops every second mark that no job needs, if there are too many.
    fn thin(&mut self) {
        if self.marks.len() <= MARKS_MAX {
            return;
        }
        let complete: BTreeSet<Epoch> = self.complete.values().copied().collect();
        let reached: BTreeSet<Epoch> = complete.into_iter().map(|e| self.mark_at(e)).collect();
        let newest = self.marks.keys().next_back().copied();
        let (mut before, mut drops) = (self.oldest(), false);
        let (oldest, mut dropped) = (before, Vec::new());
        self.marks.retain(|epoch, mark| {
            let is_needed = mark.stays || reached.contains(epoch) || reached.contains(&before);
            before = *epoch;
            if *epoch == oldest || Some(*epoch) == newest || is_needed {
                return true;
            }
            drops = !drops;
            dropped.extend(drops.then_some(*epoch));
            !drops
        });
        self.let_age(dropped.into_iter());
        self.has_dropped = true;
    }

    fn mergeable(&self) -> Epoch {
        let pinned = self.pins.keys().next().map(|(epoch, _)| *epoch);
        pinned.map_or(self.oldest(), |pin| pin.min(self.oldest()))
    }

    fn needed(&self) -> Vec<Epoch> {
        let pinned = self.pins.keys().map(|(epoch, _)| *epoch);
        let needed: BTreeSet<Epoch> = pinned.chain(self.marks.keys().copied()).collect();
        needed.into_iter().collect()
    }

    /// `epoch` is a mark.
    fn pin(&mut self, readers: &Arc<Readers>, epoch: Epoch) -> Pin {
        let positions = self.marks[&epoch].positions.clone();
        self.pin_since(readers, epoch, positions, Some(machine::now()))
    }

    fn pin_since(
        &mut self,
        readers: &Arc<Readers>,
        epoch: Epoch,
        positions: Arc<Positions>,
        since: Option<Instant>,
    ) -> Pin {
        let number = self.next_pin;
        self.next_pin += 1;
        self.pins.insert((epoch, number), since);
        Pin {
            readers: readers.clone(),
            epoch,
            number,
            positions,
            ends: Mutex::default(),
            starts: Mutex::default(),
        }
    }
}

impl Readers {
    /// Nothing is decided or complete yet.
    pub fn new() -> Arc<Readers> {
        let state = State {
            marks: State::beginning_at(Epoch(0), Arc::default()),
            complete: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            pins: BTreeMap::new(),
            next_pin: 0,
            has_dropped: false,
        };
        Arc::new(Readers {
            state: Mutex::new(state),
            decided: watch::Sender::new(Epoch(0)),
            moved: watch::Sender::new(()),
            log_error: Mutex::default(),
            stalled: AtomicBool::new(false),
            markers: Mutex::default(),
            floors: Mutex::default(),
        })
    }

    /// Pins the newest epoch at which all relations can be read.
    pub fn pin(self: &Arc<Readers>) -> Pin {
        let mut state = self.state.lock();
        let epoch = state.oldest();
        state.pin(self, epoch)
    }

    /// Pins the newest epoch at which these relations can be read together.
    pub fn pin_of(self: &Arc<Readers>, relations: &[RelationId]) -> Pin {
        let mut state = self.state.lock();
        let epoch = state.readable(relations);
        state.pin(self, epoch)
    }

    /// Pins this epoch, if it is a mark.
    pub fn pin_at(self: &Arc<Readers>, epoch: Epoch) -> Option<Pin> {
        let mut state = self.state.lock();
        let is_mark = state.marks.contains_key(&epoch);
        is_mark.then(|| state.pin(self, epoch))
    }

    /// Pins an epoch that is no mark, for a job that begins with what relations hold at its end.
    /// Its input has not told that it has passed it, so nobody has merged past it. It is never
    /// given up: the job takes as long as it takes.
    pub fn pin_ahead(self: &Arc<Readers>, epoch: Epoch) -> Pin {
        self.state
            .lock()
            .pin_since(self, epoch, Arc::default(), None)
    }

    /// The newest epoch at which this relation can be read, if that is `at_least` or later and
    /// shows what was acknowledged for it. It is not pinned: whoever reads it at once gets its
    /// rows, or is told that it is not kept any more.
    pub fn readable_now(&self, relation: RelationId, at_least: Epoch) -> Option<Readable> {
        let state = self.state.lock();
        let epoch = state.readable(&[relation]);
        let shows = epoch >= at_least && state.unseen(&[relation], epoch).is_none();
        let mergeable = state.mergeable();
        shows.then_some(Readable { epoch, mergeable })
    }

    /// Waits until these relations can be read together as of `at_least` or later and show what
    /// was acknowledged by now for the tables among them, and pins the newest such epoch.
    pub async fn pin_when(
        self: &Arc<Readers>,
        relations: &[RelationId],
        at_least: Epoch,
    ) -> Result<Pin> {
        let unseen = {
            let mut state = self.state.lock();
            let epoch = state.readable(relations);
            let unseen = state.unseen(relations, epoch);
            if epoch >= at_least && unseen.is_none() {
                return Ok(state.pin(self, epoch));
            }
            unseen
        };
        let mut moved = self.moved.subscribe();
        let (mut patient, patience) = (unseen.is_some(), unseen.as_ref().map(|u| u.patience));
        let patience = machine::sleep_until(patience.unwrap_or_else(machine::now));
        tokio::pin!(patience);
        loop {
            {
                let mut state = self.state.lock();
                let epoch = state.readable(relations);
                let shows = |unseen| state.shows(unseen, epoch, patient);
                if epoch >= at_least && unseen.as_ref().is_none_or(shows) {
                    return Ok(state.pin(self, epoch));
                }
            }
            tokio::select! {
                biased;
                () = &mut patience, if patient => patient = false,
                changed = moved.changed() => changed.map_err(|_| Error::shutting_down())?,
            }
        }
    }

    /// Waits until the newest epoch at which these relations can be read together is `epoch` or
    /// later.
    pub async fn wait_readable(&self, relations: &[RelationId], epoch: Epoch) -> Result<()> {
        let mut moved = self.moved.subscribe();
        while self.state.lock().readable(relations) < epoch {
            moved.changed().await.map_err(|_| Error::shutting_down())?;
        }
        Ok(())
    }

    /// Waits until the jobs of these relations, as far as they run, have completed `epoch`.
    pub async fn wait_complete(&self, relations: &[RelationId], epoch: Epoch) -> Result<()> {
        let mut moved = self.moved.subscribe();
        while !self.is_complete(relations, epoch) {
            moved.changed().await.map_err(|_| Error::shutting_down())?;
        }
        Ok(())
    }

    /// Whether the jobs of these relations, as far as they run, have completed `epoch`.
    pub fn is_complete(&self, relations: &[RelationId], epoch: Epoch) -> bool {
        let state = self.state.lock();
        let mut complete = relations.iter().filter_map(|id| state.complete.get(id));
        complete.all(|complete| *complete >= epoch)
    }

    /// Epochs up to this one may be merged into the base of a view: complete in all jobs, and not
    /// past any pin.
    pub fn mergeable(&self) -> Epoch {
        self.state.lock().mergeable()
    }

    /// The epochs that can still be read, in order: the marks, and those that are pinned. Those
    /// between two of them nobody can read.
    pub fn needed(&self) -> Vec<Epoch> {
        self.state.lock().needed()
    }

    /// The epochs that are pinned, in order.
    pub fn pinned(&self) -> Vec<Epoch> {
        let state = self.state.lock();
        let mut pinned: Vec<Epoch> = state.pins.keys().map(|(epoch, _)| *epoch).collect();
        pinned.dedup();
        pinned
    }

    /// [`Readers::needed`], if a mark has gone since this was asked last.
    pub fn newly_needed(&self) -> Option<Vec<Epoch>> {
        let mut state = self.state.lock();
        std::mem::take(&mut state.has_dropped).then(|| state.needed())
    }

    /// Gives up the pins of epochs that are no marks any more and are held for longer than
    /// `age_max`. Returns their epochs.
    pub fn expire(&self, age_max: Duration) -> Vec<Epoch> {
        let state = &mut *self.state.lock();
        let (marks, mut given_up) = (&state.marks, Vec::new());
        state.pins.retain(|(epoch, _), since| {
            let is_old = since.is_some_and(|since| machine::elapsed(since) > age_max);
            let keep = marks.contains_key(epoch) || !is_old;
            if !keep {
                given_up.push(*epoch);
            }
            keep
        });
        given_up
    }

    /// Epoch `epoch` is decided; `positions`: where all sources stand at its end. With `stays` it
    /// is a mark until all jobs have completed it.
    pub fn decide(&self, epoch: Epoch, positions: Arc<Positions>, stays: bool) {
        {
            let mut state = self.state.lock();
            state.marks.insert(epoch, Mark { positions, stays });
            state.thin();
            if state.complete.is_empty() {
                state.move_on();
            }
        }
        self.decided.send_replace(epoch);
    }

    /// Who wrote to these tables is told that `epoch`, which is decided, has it. From now on all
    /// who ask them see it.
    pub fn acknowledge(&self, epoch: Epoch, tables: &[RelationId]) {
        let acknowledged = tables.iter().map(|table| (*table, (epoch, machine::now())));
        self.state.lock().acknowledged.extend(acknowledged);
    }

    /// These jobs run, and have completed these epochs, which are decided.
    pub fn complete(&self, jobs: impl IntoIterator<Item = (RelationId, Epoch)>) {
        let mut changed = false;
        {
            let mut state = self.state.lock();
            for (job, epoch) in jobs {
                let before = state.complete.insert(job, epoch);
                changed |= before != Some(epoch);
            }
            if changed {
                state.move_on();
            }
        }
        if changed {
            self.moved.send_replace(());
        }
    }

    /// These jobs do not run any more: nobody waits for them.
    pub fn forget(&self, jobs: &[RelationId]) {
        {
            let mut state = self.state.lock();
            state.complete.retain(|job, _| !jobs.contains(job));
            state.acknowledged.retain(|job, _| !jobs.contains(job));
            state.move_on();
        }
        self.moved.send_replace(());
    }

    /// All there is is as of this epoch, which is decided and complete in all jobs.
    pub fn begin_at(&self, epoch: Epoch, positions: Arc<Positions>, jobs: &[RelationId]) {
        {
            let mut state = self.state.lock();
            state.marks = State::beginning_at(epoch, positions);
            state.complete = jobs.iter().map(|job| (*job, epoch)).collect();
            state.acknowledged.clear();
            state.has_dropped = true;
        }
        self.decided.send_replace(epoch);
        self.moved.send_replace(());
    }

    /// Why nothing can be decided at the moment, if so.
    pub fn log_error(&self) -> Option<Error> {
        self.log_error.lock().clone()
    }

    /// Told by the coordinator: this is in the log, of sinks into tables.
    pub fn note_markers(&self, markers: &BTreeMap<RelationId, SinkMarker>) {
        let markers = markers.iter().map(|(sink, m)| (*sink, m.clone()));
        self.markers.lock().extend(markers);
    }

    /// What a sink into a table has delivered.
    pub fn marker(&self, sink: RelationId) -> Option<SinkMarker> {
        self.markers.lock().get(&sink).cloned()
    }

    /// Told by the coordinator before the epoch that they were decided with can be read.
    pub fn set_floors(&self, floors: Arc<Floors>) {
        *self.floors.lock() = floors;
    }

    /// What is decided of splits that brought nothing. For a reading that ends at an epoch, those
    /// that were decided later make no difference: they lie at its end or behind it.
    pub fn floors(&self) -> Arc<Floors> {
        self.floors.lock().clone()
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

    /// The newest epoch at which all relations can be read.
    pub fn published(&self) -> Epoch {
        self.state.lock().oldest()
    }

    /// The newest epoch at which this relation can be read. Of one whose job does not run, the
    /// newest decided one.
    pub fn readable(&self, relation: RelationId) -> Epoch {
        self.state.lock().readable(&[relation])
    }

    /// The newest epoch that the job has completed. Of one that does not run, the newest decided
    /// one.
    pub fn completed(&self, job: RelationId) -> Epoch {
        let complete = self.state.lock().complete.get(&job).copied();
        complete.unwrap_or_else(|| self.decided())
    }

    /// Where all sources stand at the end of the newest decided epoch.
    pub fn positions(&self) -> Arc<Positions> {
        let state = self.state.lock();
        let newest = state.marks.values().next_back();
        newest.expect("there is a mark").positions.clone()
    }

    /// Changes when a job has completed an epoch, or ended.
    pub fn watch_moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
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

    /// What is decided of splits that brought nothing ([`Readers::floors`]).
    pub fn floors(&self) -> Arc<Floors> {
        self.readers.floors()
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
    use tidemark_common::random::Random;

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
        let positions = Positions::from([(RelationId(1), vec![position(5)])]);
        readers.decide(Epoch(1), Arc::new(positions), false);
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

    /// Decides an epoch that these jobs have completed up to there.
    fn pass(readers: &Readers, epoch: u64, complete: &[(u32, u64)]) {
        readers.decide(Epoch(epoch), Arc::default(), false);
        let complete = complete.iter();
        readers.complete(complete.map(|(job, epoch)| (RelationId(*job), Epoch(*epoch))));
    }

    #[test]
    fn a_pin_holds_back_merging_until_it_is_dropped() {
        let readers = Readers::new();
        pass(&readers, 3, &[(1, 3)]);
        let pin = readers.pin();
        pass(&readers, 5, &[(1, 5)]);
        assert_eq!((pin.epoch(), readers.mergeable()), (Epoch(3), Epoch(3)));
        drop(pin);
        assert_eq!(readers.mergeable(), Epoch(5));
    }

    #[test]
    fn what_can_be_read_is_what_is_pinned_and_the_newest() {
        let readers = Readers::new();
        let mut pins = Vec::new();
        for epoch in [3, 3, 7, 9] {
            pass(&readers, epoch, &[(1, epoch)]);
            pins.push(readers.pin());
        }
        pass(&readers, 12, &[(1, 12)]);
        assert_eq!(readers.needed(), [3, 7, 9, 12].map(Epoch));
        pins.remove(2);
        pins.remove(0);
        assert_eq!(readers.needed(), [3, 9, 12].map(Epoch));
    }

    #[test]
    fn what_a_job_begins_with_is_kept_as_long_as_it_takes() {
        let readers = Readers::new();
        pass(&readers, 3, &[(1, 3)]);
        let ahead = readers.pin_ahead(Epoch(5));
        assert_eq!(readers.needed(), [3, 5].map(Epoch));
        assert_eq!(readers.mergeable(), Epoch(3));
        pass(&readers, 7, &[(1, 7)]);
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
        pass(&readers, 3, &[(1, 3)]);
        let old = readers.pin();
        assert!(
            readers.expire(Duration::ZERO).is_empty(),
            "the newest stays"
        );
        pass(&readers, 5, &[(1, 5)]);
        let new = readers.pin();
        assert!(readers.expire(Duration::from_secs(3600)).is_empty());
        assert_eq!(readers.expire(Duration::ZERO), [Epoch(3)]);
        assert_eq!(readers.needed(), [Epoch(5)]);
        drop(old);
        assert_eq!(readers.mergeable(), Epoch(5));
        drop(new);
    }

    #[test]
    fn each_is_read_as_far_as_it_is_and_all_together_where_the_slowest_is() {
        let readers = Readers::new();
        let [fast, slow] = [RelationId(1), RelationId(2)];
        pass(&readers, 5, &[(1, 5), (2, 5)]);
        for epoch in 6..1000 {
            pass(&readers, epoch, &[(1, epoch)]);
            assert_eq!(readers.pin_of(&[fast]).epoch(), Epoch(epoch));
            assert_eq!(readers.pin_of(&[slow, fast]).epoch(), Epoch(5));
            assert_eq!(readers.mergeable(), Epoch(5));
            assert!(readers.needed().len() <= MARKS_MAX + 4);
        }
        // One that stopped holds up nobody.
        readers.forget(&[slow]);
        assert_eq!(readers.needed(), [Epoch(999)]);
    }

    /// Jobs at random paces: what is read of one never goes back, what was promised to be there is,
    /// and one that is behind for ever moves on.
    #[test]
    fn marks_stay_few_and_every_reader_moves_on() {
        let readers = Readers::new();
        let mut random = Random(7);
        // How far each may be behind.
        let lags = [0, 3, 40, 700, 5000];
        let jobs: Vec<RelationId> = (0..lags.len() as u32).map(RelationId).collect();
        readers.begin_at(Epoch(0), Arc::default(), &jobs);
        let mut complete = vec![0; lags.len()];
        let mut read = vec![Epoch(0); lags.len()];
        let mut needed = readers.needed();
        for decided in 1..20_000 {
            let stays = random.one_in(500);
            readers.decide(Epoch(decided), Arc::default(), stays);
            for (job, lag) in lags.iter().enumerate() {
                let least = decided.saturating_sub(*lag);
                complete[job] = complete[job].max(least + random.below_u64(decided - least + 1));
            }
            let told = jobs.iter().zip(&complete).map(|(job, e)| (*job, Epoch(*e)));
            readers.complete(told);
            for (i, job) in jobs.iter().enumerate() {
                let epoch = readers.readable(*job);
                assert!(epoch >= read[i], "it goes back");
                assert!(epoch.0 <= complete[i]);
                read[i] = epoch;
                let gone = |e: Epoch| e <= *needed.last().unwrap() && !needed.contains(&e);
                assert!(!gone(epoch), "nothing was kept of it");
            }
            assert!(readers.needed().len() <= MARKS_MAX + 2 * lags.len() + 100);
            needed = readers.newly_needed().unwrap_or(needed);
        }
        for (epoch, lag) in read.iter().zip(lags) {
            assert!(
                20_000 - epoch.0 <= 3 * lag + 20,
                "{epoch} is too far behind {lag}"
            );
        }
    }

    /// What it comes to without waiting.
    fn at_once<T>(future: std::pin::Pin<&mut impl Future<Output = Result<T>>>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(answer) => Some(answer.expect("nobody shuts down")),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn who_wrote_waits_for_what_it_reads_and_for_nothing_else() {
        let readers = Readers::new();
        let [table, slow] = [RelationId(1), RelationId(2)];
        pass(&readers, 5, &[(1, 5), (2, 5)]);
        readers.decide(Epoch(6), Arc::default(), false);
        let both = [table, slow];
        let mut waits = std::pin::pin!(readers.pin_when(&both, Epoch(6)));
        assert!(at_once(waits.as_mut()).is_none());
        assert_eq!(readers.readable_now(table, Epoch(6)), None);
        readers.complete([(table, Epoch(6))]);
        let (epoch, mergeable) = (Epoch(6), Epoch(5));
        let now = readers.readable_now(table, Epoch(6));
        assert_eq!(now, Some(Readable { epoch, mergeable }));
        let alone = std::pin::pin!(readers.pin_when(&both[..1], Epoch(6)));
        let pin = at_once(alone).expect("it is complete");
        assert_eq!(pin.epoch(), Epoch(6));
        assert!(!readers.is_complete(&both, pin.epoch()));
        assert!(at_once(waits.as_mut()).is_none());
        readers.complete([(slow, Epoch(6))]);
        assert!(at_once(waits.as_mut()).is_some());
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_seen_by_all_who_ask_that_table() {
        let readers = Readers::new();
        let ([table, other], views) = ([RelationId(1), RelationId(2)], [RelationId(3)]);
        pass(&readers, 5, &[(1, 5), (2, 5), (3, 5)]);
        readers.decide(Epoch(6), Arc::default(), false);
        readers.acknowledge(Epoch(6), &[table]);
        let together = [table, other];
        let asks = |relations| Box::pin(readers.pin_when(relations, Epoch(0)));
        let at = |pin: Option<Pin>| pin.map(|pin| pin.epoch().0);
        // Nobody else waits.
        assert_eq!(at(at_once(asks(&together[1..]).as_mut())), Some(5));
        assert_eq!(at(at_once(asks(&views).as_mut())), Some(5));
        let (mut alone, mut both) = (asks(&together[..1]), asks(&together));
        assert!(at_once(alone.as_mut()).is_none());
        let now = |id| readers.readable_now(id, Epoch(0)).map(|now| now.epoch.0);
        assert_eq!([table, other, views[0]].map(now), [None, Some(5), Some(5)]);
        // What comes later is not waited for.
        readers.decide(Epoch(7), Arc::default(), false);
        readers.acknowledge(Epoch(7), &[table]);
        readers.complete([(table, Epoch(6))]);
        assert_eq!(at(at_once(alone.as_mut())), Some(6));
        assert!(at_once(both.as_mut()).is_none());
        readers.complete([(table, Epoch(7)), (other, Epoch(7))]);
        assert_eq!(at(at_once(both.as_mut())), Some(7));
        // A table that does not run is read as it is.
        readers.decide(Epoch(8), Arc::default(), false);
        readers.acknowledge(Epoch(8), &[table]);
        let mut stopped = asks(&together[..1]);
        assert!(at_once(stopped.as_mut()).is_none());
        readers.forget(&[table]);
        assert_eq!(at(at_once(stopped.as_mut())), Some(8));
    }

    #[tokio::test]
    async fn a_view_that_is_far_behind_is_not_waited_for() {
        let readers = Readers::new();
        let [table, slow] = [RelationId(1), RelationId(2)];
        pass(&readers, 5, &[(1, 5), (2, 5)]);
        readers.decide(Epoch(6), Arc::default(), false);
        readers.acknowledge(Epoch(6), &[table]);
        readers.complete([(table, Epoch(6))]);
        let pin = readers.pin_when(&[slow, table], Epoch(0)).await.unwrap();
        assert_eq!(pin.epoch(), Epoch(5));
        let pin = readers.pin_when(&[table], Epoch(0)).await.unwrap();
        assert_eq!(pin.epoch(), Epoch(6));
    }
}
