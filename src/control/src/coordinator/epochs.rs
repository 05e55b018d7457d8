//! Barriers, cuts, decisions and publication.

use super::{
    Coordinator, EPOCH_MS_MIN, EPOCHS_IN_FLIGHT_MAX, INCOMPLETE_BYTES_MAX, PendingWrite,
    SHARED_MS_MIN,
};
use crate::entry::CUT_BYTES_MAX;
use crate::inputs::RequestId;
use crate::protocol::{BarrierCommand, Command, Positions};
use crate::{Cut, Entry, TableWrites};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::{Epoch, RelationId, Result, WorkerId, clock};
use tidemark_plan::Catalog;
use tidemark_state::errors::KeptError;

/// Epochs that may be on their way at most, with those that only writers asked for.
const WRITTEN_EPOCHS_MAX: usize = 8192;

/// An epoch whose barrier was sent and that is not published yet.
pub(super) struct EpochInFlight {
    pub epoch: Epoch,
    pub clock: i64,
    pub sent: Instant,
    pub checkpoint: bool,
    pub cuts: Vec<bool>,
    pub positions: Positions,
    pub writes: Vec<TableWrites>,
    /// What it writes to tables, in bytes.
    pub bytes: usize,
    pub errors: Vec<KeptError>,
    /// Who asked for what it writes.
    pub requests: Vec<RequestId>,
    pub done: Vec<bool>,
    pub decided: bool,
    /// What a checkpoint of this epoch contains, taken when the epoch is decided.
    pub snapshot: Option<Snapshot>,
    /// Where all sources stand at its end, once decided.
    pub stands: Arc<Positions>,
}

/// The decided state that goes into a manifest.
pub(super) struct Snapshot {
    pub log_index: u64,
    pub catalog: Catalog,
    pub positions: Positions,
    pub starts: Positions,
}

/// How many of the pending writes go into one epoch: one, and then as many as stay below the limit.
fn fitting(pending: &[PendingWrite]) -> usize {
    let mut bytes = 0;
    let fits = |write: &&PendingWrite| {
        let first = bytes == 0;
        bytes += write.writes.iter().map(TableWrites::bytes).sum::<usize>();
        first || bytes <= CUT_BYTES_MAX
    };
    pending.iter().take_while(fits).count()
}

impl Coordinator {
    /// When the next barrier is due; `None` when nobody asks for one or too many are on their way.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.shutdown_epoch.is_some() {
            return None;
        }
        if self.in_flight.len() >= EPOCHS_IN_FLIGHT_MAX {
            return self.next_of_writers();
        }
        let after = |interval| Some(self.last_barrier + interval);
        let writers = !self.pending_writes.is_empty();
        let barrier = if writers && !self.reading {
            let is_decided = self.in_flight.back().is_none_or(|e| e.decided);
            let gather = Duration::from_millis(if self.shared { SHARED_MS_MIN } else { 0 });
            is_decided.then(|| self.last_barrier + gather)
        } else if writers || self.urgent {
            after(Duration::from_millis(EPOCH_MS_MIN))
        } else if self.active {
            let oldest = self.in_flight.front().map(|e| e.sent);
            let oldest = oldest.map(|sent| self.last_barrier.duration_since(sent));
            after(self.rhythm.interval(self.pace.epoch, oldest))
        } else {
            None
        };
        [barrier, self.checkpoint_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When writers get the next barrier while a job is behind: what they write is decided all the
    /// same, as long as what is not complete stays within its bounds.
    fn next_of_writers(&self) -> Option<Instant> {
        let is_decided = self.in_flight.back().is_none_or(|e| e.decided);
        let bytes: usize = self.in_flight.iter().map(|e| e.bytes).sum();
        let has_room = self.in_flight.len() < WRITTEN_EPOCHS_MAX && bytes < INCOMPLETE_BYTES_MAX;
        let may_go_on = !self.pending_writes.is_empty() && is_decided && has_room;
        may_go_on.then(|| self.last_barrier + Duration::from_millis(EPOCH_MS_MIN))
    }

    pub(super) fn send_barrier(&mut self) -> Result<()> {
        self.join_and_promote()?;
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        let (mut writes, mut requests) = (Vec::new(), Vec::new());
        for pending in self.pending_writes.drain(..fitting(&self.pending_writes)) {
            writes.extend(pending.writes);
            requests.extend(pending.request);
        }
        self.shared = requests.len() > 1;
        let takes_all = self.pending_writes.is_empty();
        let now = Instant::now();
        let checkpoint = self.takes_checkpoint(now);
        // A flush waits for the writes that were there before it.
        for flush in self.flushes.iter_mut().filter(|f| f.epoch.is_none()) {
            flush.epoch = takes_all.then_some(epoch);
        }
        let last_clock = self
            .in_flight
            .back()
            .map_or(self.decisions.clock, |e| e.clock);
        let clock = clock::now_micros().max(last_clock);
        self.last_barrier = now;
        self.active = !takes_all;
        self.urgent = false;
        self.reading = false;
        if self.shutdown.is_some() && checkpoint && takes_all {
            self.shutdown_epoch = Some(epoch);
        } else if self.shutdown.is_some() {
            self.active = true;
        }
        self.push_in_flight(epoch, clock, checkpoint, writes.clone(), requests);
        self.workers
            .broadcast(Command::Barrier(Arc::new(BarrierCommand {
                epoch,
                clock,
                checkpoint,
                writes,
                errors: Vec::new(),
                limits: None,
                horizons: self.horizons(),
            })));
        self.after_barrier(epoch);
        Ok(())
    }

    fn horizons(&self) -> BTreeMap<RelationId, i64> {
        self.decisions
            .starts
            .keys()
            .map(|source| (*source, self.decisions.horizon(*source)))
            .filter(|(_, time)| *time >= 0)
            .collect()
    }

    pub(super) fn push_in_flight(
        &mut self,
        epoch: Epoch,
        clock: i64,
        checkpoint: bool,
        writes: Vec<TableWrites>,
        requests: Vec<RequestId>,
    ) {
        let workers = self.workers.count();
        self.in_flight.push_back(EpochInFlight {
            epoch,
            clock,
            sent: Instant::now(),
            checkpoint,
            cuts: vec![false; workers],
            positions: Positions::new(),
            bytes: writes.iter().map(TableWrites::bytes).sum(),
            writes,
            errors: Vec::new(),
            requests,
            done: vec![false; workers],
            decided: false,
            snapshot: None,
            stands: Arc::default(),
        });
    }

    pub(super) fn on_cut(
        &mut self,
        worker: WorkerId,
        epoch: Epoch,
        positions: Positions,
        reads: Vec<TableWrites>,
        errors: Vec<KeptError>,
    ) {
        if let Some(flight) = self.in_flight.iter_mut().find(|e| e.epoch == epoch) {
            flight.cuts[worker] = true;
            if !flight.decided {
                flight.writes.extend(reads);
                flight.errors.extend(errors);
            }
            for (source, splits) in positions {
                flight.positions.entry(source).or_default().extend(splits);
            }
        }
    }

    pub(super) fn on_done(&mut self, worker: WorkerId, epoch: Epoch) {
        if let Some(flight) = self.in_flight.iter_mut().find(|e| e.epoch == epoch) {
            flight.done[worker] = true;
        }
    }

    /// Decides and publishes every epoch that is ready, in order.
    pub(super) fn advance(&mut self) -> Result<()> {
        self.decide_ready()?;
        let mut published = None;
        while self
            .in_flight
            .front()
            .is_some_and(|e| e.decided && e.done.iter().all(|d| *d))
        {
            let Some(flight) = self.in_flight.pop_front() else {
                break;
            };
            self.rhythm.passed(flight.sent.elapsed());
            published = Some((flight.epoch, flight.stands.clone()));
            self.retained.changed |= flight.epoch > self.retained.epoch()
                && (!flight.positions.is_empty() || !flight.writes.is_empty());
            if flight.checkpoint {
                self.checkpoint_barrier_passed(flight);
            }
        }
        if let Some((epoch, stands)) = published {
            self.readers.publish(epoch, stands);
            self.give_up_old_pins();
            self.workers.broadcast(Command::Publish {
                needed: self.readers.needed().into(),
            });
        }
        self.try_held()?;
        self.advance_creating();
        self.advance_checkpoint()
    }

    /// A reader that stays for too long must not hold back everybody's views.
    fn give_up_old_pins(&self) {
        let Some(age_max) = self.pace.snapshot_age_max else {
            return;
        };
        for epoch in self.readers.expire(age_max) {
            tracing::warn!(
                %epoch,
                seconds = age_max.as_secs(),
                "an epoch was read for too long: its reader gets an error if it reads on"
            );
        }
    }

    fn decide_ready(&mut self) -> Result<()> {
        // Several epochs that are ready together share one sync.
        let ready: Vec<usize> = (0..self.in_flight.len())
            .skip_while(|i| self.in_flight[*i].decided)
            .take_while(|i| self.in_flight[*i].cuts.iter().all(|c| *c))
            .collect();
        if ready.is_empty() {
            return Ok(());
        }
        let mut known = self.decisions.positions.clone();
        let mut entries = Vec::with_capacity(ready.len());
        for i in &ready {
            let flight = &mut self.in_flight[*i];
            // A source that ended after it told where it stands is not a part of the epoch any
            // more.
            let ended = |source: &RelationId| {
                !self.running.contains(source) && !self.creating.contains_key(source)
            };
            flight.positions.retain(|source, _| !ended(source));
            flight
                .positions
                .values_mut()
                .for_each(|splits| splits.sort_by_key(|p| p.split));
            flight.positions.retain(|source, splits| {
                known.insert(*source, splits.clone()).as_ref() != Some(splits)
            });
            let mut cut = Cut::new(
                flight.epoch,
                flight.clock,
                flight.positions.clone(),
                flight.writes.clone(),
            );
            cut.errors = std::mem::take(&mut flight.errors);
            entries.push(Entry::Cut(cut));
        }
        let last_index = self.append(&entries)?;
        for ((i, entry), index) in ready
            .iter()
            .zip(&entries)
            .zip(last_index + 1 - entries.len() as u64..)
        {
            self.decisions.apply(index, entry);
            if let Entry::Cut(cut) = entry {
                self.keep_rows(cut);
            }
            let epoch = self.in_flight[*i].epoch;
            let snapshot = self.in_flight[*i].checkpoint.then(|| self.snapshot(epoch));
            let flight = &mut self.in_flight[*i];
            flight.decided = true;
            flight.stands = Arc::new(self.decisions.positions.clone());
            flight.snapshot = snapshot;
            self.readers.decide(epoch);
            for request in std::mem::take(&mut flight.requests) {
                self.workers.answer(request, Ok(epoch));
            }
        }
        Ok(())
    }

    fn snapshot(&self, epoch: Epoch) -> Snapshot {
        Snapshot {
            log_index: self.decisions.index,
            catalog: self.decisions.catalog_at(epoch),
            positions: self.decisions.positions.clone(),
            starts: self.decisions.starts.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use tidemark_changelog::ChangeBatch;

    /// Writes that are together more than one entry of the log takes are cut apart, in order.
    #[test]
    fn pending_writes_are_split_over_epochs() {
        let write = |rows: usize| {
            let values: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![7; rows]));
            let rows = RecordBatch::try_from_iter([("id", values)]).unwrap();
            PendingWrite {
                writes: vec![TableWrites::held(RelationId(1), ChangeBatch::insert(rows))],
                ..PendingWrite::default()
            }
        };
        // 16 bytes a row: value and weight.
        let third = CUT_BYTES_MAX / 16 / 3;
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[write(10), write(10)]), 2);
        let large = [write(third), write(third), write(third), write(10)];
        assert_eq!(fitting(&large), 3);
        assert_eq!(fitting(&[write(4 * third), write(1)]), 1);
    }
}
