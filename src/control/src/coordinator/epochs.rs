//! Barriers, cuts, decisions, and how far each job is.
//!
//! A job has completed an epoch when it has passed its barrier on all workers and the epoch is
//! decided; what that lets people see is told by [`crate::Readers`]. An epoch stays on its way
//! until all jobs have completed it: only then can a checkpoint of it be whole.

use super::unread::takeable;
use super::{Coordinator, EPOCH_MS_MIN, EPOCHS_IN_FLIGHT_MAX, PendingWrite, SHARED_MS_MIN, jobs};
use crate::entry::CUT_BYTES_MAX;
use crate::inputs::RequestId;
use crate::protocol::{BarrierCommand, Command, Floors, Positions};
use crate::{Cut, Entry, TableWrites, Written};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::SinkMarker;
use tidemark_common::{Epoch, RelationId, Result, Watermarks, WorkerId, machine};
use tidemark_plan::{Catalog, JobPlan, Relation};
use tidemark_state::errors::KeptError;

/// When a job is so many epochs behind, further ones are at least [`EPOCH_BEYOND`] long.
const EPOCHS_BEHIND_MAX: usize = 1 << 17;

/// See [`EPOCHS_BEHIND_MAX`].
const EPOCH_BEYOND: Duration = Duration::from_secs(1);

/// So many epochs that a job is behind make each one as much longer as it is without them.
const EPOCHS_BEHIND_STRETCH: usize = 1 << 12;

/// Jobs that follow the clock get barriers no further apart than this.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Writes of more bytes are a batch by themselves.
const SMALL_BYTES: usize = 64 << 10;

/// How far a running job is.
pub(super) struct Progress {
    /// The first epoch that waits for it.
    from: Epoch,
    /// By worker, the last epoch whose barrier it has passed.
    passed: Vec<Epoch>,
    /// Time alone changes what it computes.
    follows_clock: bool,
}

impl Progress {
    /// It counts after `epoch`.
    pub(super) fn after(
        epoch: Epoch,
        workers: usize,
        relation: Option<&Arc<Relation>>,
    ) -> Progress {
        let job = relation.and_then(|r| r.job.as_ref());
        Progress {
            from: epoch.next(),
            passed: vec![epoch; workers],
            follows_clock: job.is_some_and(JobPlan::follows_clock),
        }
    }

    fn pass(&mut self, worker: WorkerId, epoch: Epoch) {
        if epoch >= self.from {
            self.passed[worker] = self.passed[worker].max(epoch);
        }
    }

    /// The last epoch whose barrier it has passed on all workers.
    pub(super) fn everywhere(&self) -> Epoch {
        self.passed.iter().min().copied().unwrap_or_default()
    }
}

/// An epoch whose barrier was sent and that some job has not completed yet.
pub(super) struct EpochInFlight {
    pub epoch: Epoch,
    pub clock: i64,
    pub sent: Instant,
    pub checkpoint: bool,
    pub cuts: Vec<bool>,
    pub positions: Positions,
    pub writes: Vec<TableWrites>,
    /// Whether it changes anything, once decided.
    pub changes: bool,
    pub errors: Vec<KeptError>,
    /// Who asked for what it writes.
    pub requests: Vec<RequestId>,
    /// What its barrier promises.
    pub watermarks: Watermarks,
    /// Floors that readers put under splits, and those that make no difference any more.
    pub floors: Floors,
    /// What sinks into tables deliver with what it writes.
    pub markers: BTreeMap<RelationId, SinkMarker>,
    /// The tables of those who get an answer.
    pub acknowledges: Vec<RelationId>,
    pub done: Vec<bool>,
    pub decided: bool,
    /// What a checkpoint of this epoch contains, taken when the epoch is decided.
    pub snapshot: Option<Snapshot>,
    /// In replay: where all sources stand at its end.
    pub stands: Arc<Positions>,
}

/// The decided state that goes into a manifest.
pub(super) struct Snapshot {
    pub log_index: u64,
    pub catalog: Catalog,
    pub positions: Positions,
    pub starts: Positions,
    pub floors: Arc<Floors>,
    pub markers: BTreeMap<RelationId, SinkMarker>,
}

/// How many of the pending writes go into one epoch: one, and then as many as stay below the limit.
fn fitting(pending: &[PendingWrite], most: usize) -> usize {
    let mut bytes = 0;
    let fits = |write: &&PendingWrite| {
        let first = bytes == 0;
        bytes += write.writes.iter().map(TableWrites::bytes).sum::<usize>();
        first || bytes <= most
    };
    pending.iter().take_while(fits).count()
}

/// What one epoch writes, the small writes to a table as one batch: logging, hashing and keeping it
/// cost by the batch. What is written to one table stays in order.
fn gathered(writes: Vec<TableWrites>) -> Vec<TableWrites> {
    let mut gathered = Vec::with_capacity(writes.len());
    let mut small: BTreeMap<RelationId, Vec<ChangeBatch>> = BTreeMap::new();
    let together = |(table, batches): (RelationId, Vec<ChangeBatch>)| {
        let schema = batches.first()?.schema();
        Some(TableWrites::held(
            table,
            ChangeBatch::concat(&schema, &batches),
        ))
    };
    for write in writes {
        let is_small = write.bytes() <= SMALL_BYTES;
        let before = small.get(&write.table).and_then(|batches| batches.first());
        let fits = |changes: &ChangeBatch| {
            let alike = before.is_none_or(|b| b.schema() == changes.schema());
            is_small && alike && changes.faulty().is_none()
        };
        match write.changes {
            Written::Held(changes) if fits(&changes) => {
                small.entry(write.table).or_default().push(changes);
            }
            _ => {
                gathered.extend(small.remove_entry(&write.table).and_then(together));
                gathered.push(write);
            }
        }
    }
    gathered.extend(small.into_iter().filter_map(together));
    gathered
}

impl Coordinator {
    /// When the next barrier is due; `None` when nobody asks for one or too many are on their way.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.shutdown_epoch.is_some() {
            return None;
        }
        if self.epochs_ahead() >= EPOCHS_IN_FLIGHT_MAX {
            return self.next_of_writers();
        }
        let after = |interval| Some(self.last_barrier + self.stretched(interval));
        let writers = self.some_write_is_takeable();
        let barrier = if writers && !self.reading {
            let is_decided = self.in_flight.back().is_none_or(|e| e.decided);
            let gathers = self.shared || self.in_flight.len() > EPOCHS_BEHIND_STRETCH;
            let gather = Duration::from_millis(if gathers { SHARED_MS_MIN } else { 0 });
            after(gather).filter(|_| is_decided)
        } else if writers || self.urgent {
            after(Duration::from_millis(EPOCH_MS_MIN))
        } else if self.active {
            let oldest = self.in_flight.get(self.flights_up_to(self.timed));
            let oldest = oldest.map(|e| self.last_barrier.duration_since(e.sent));
            after(self.rhythm.interval(self.pace.epoch, oldest))
        } else {
            None
        };
        [barrier, self.checkpoint_deadline(), self.clock_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the next barrier is due for jobs that follow the clock.
    fn clock_deadline(&self) -> Option<Instant> {
        let mut jobs = self.progress.values();
        let follows = jobs.any(|job| job.follows_clock);
        follows.then(|| self.last_barrier + CLOCK_INTERVAL)
    }

    /// When writers get the next barrier while all jobs are behind: what they write is decided all
    /// the same.
    fn next_of_writers(&self) -> Option<Instant> {
        let is_decided = self.in_flight.back().is_none_or(|e| e.decided);
        let may_go_on = is_decided && self.some_write_is_takeable();
        let interval = self.stretched(Duration::from_millis(EPOCH_MS_MIN));
        may_go_on.then(|| self.last_barrier + interval)
    }

    /// The further a job is behind, the longer epochs get.
    fn stretched(&self, interval: Duration) -> Duration {
        let behind = self.in_flight.len();
        let stretched = interval + interval * behind as u32 / EPOCHS_BEHIND_STRETCH as u32;
        match behind < EPOCHS_BEHIND_MAX {
            true => stretched,
            false => stretched.max(EPOCH_BEYOND),
        }
    }

    /// How many epochs are on their way that no job has completed.
    fn epochs_ahead(&self) -> usize {
        if self.in_flight.len() < EPOCHS_IN_FLIGHT_MAX {
            return self.in_flight.len();
        }
        self.in_flight.len() - self.flights_up_to(self.quickest())
    }

    /// The last epoch whose barrier some job has passed. Sources that run on demand only read: who
    /// reads them counts.
    fn quickest(&self) -> Epoch {
        let relations = &self.decisions.catalog.relations;
        let counts = |id| relations.get(id).is_none_or(|r| !jobs::runs_on_demand(r));
        let counting = self.progress.iter().filter(|(id, _)| counts(*id));
        let first = counting.map(|(_, p)| p.everywhere()).max();
        first.unwrap_or_default()
    }

    /// How many of those in flight are not later than this epoch.
    fn flights_up_to(&self, epoch: Epoch) -> usize {
        self.in_flight.partition_point(|e| e.epoch <= epoch)
    }

    fn flight(&mut self, epoch: Epoch) -> Option<&mut EpochInFlight> {
        let at = self.in_flight.binary_search_by_key(&epoch, |e| e.epoch);
        self.in_flight.get_mut(at.ok()?)
    }

    /// Tells the rhythm how long barriers took up to this epoch.
    fn time(&mut self, passed: Epoch) {
        let untimed = self.in_flight.iter().skip(self.flights_up_to(self.timed));
        for flight in untimed.take_while(|flight| flight.epoch <= passed) {
            self.rhythm.passed(machine::elapsed(flight.sent));
            self.timed = flight.epoch;
        }
    }

    pub(super) fn send_barrier(&mut self) -> Result<()> {
        self.join_and_promote()?;
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        let (mut writes, mut requests) = (Vec::<TableWrites>::new(), Vec::new());
        let (mut taken, held) = takeable(self);
        let most = CUT_BYTES_MAX.min(self.log.rows_bytes_max());
        self.pending_writes = taken.split_off(fitting(&taken, most));
        self.pending_writes.extend(held);
        let mut markers = BTreeMap::new();
        for pending in taken {
            markers.extend(pending.marker);
            writes.extend(pending.writes);
            requests.extend(pending.request);
        }
        let writes = gathered(writes);
        self.unread.note(epoch, &writes);
        self.shared = requests.len() > 1;
        let takes_all = self.pending_writes.is_empty();
        let now = machine::now();
        let checkpoint = self.takes_checkpoint(now);
        // A flush waits for the writes that were there before it.
        for flush in self.flushes.iter_mut().filter(|f| f.epoch.is_none()) {
            flush.epoch = takes_all.then_some(epoch);
        }
        let last_clock = self
            .in_flight
            .back()
            .map_or(self.decisions.clock, |e| e.clock);
        let clock = machine::micros().max(last_clock);
        self.last_barrier = now;
        self.active = self.some_write_is_takeable();
        self.urgent = false;
        self.reading = false;
        if self.shutdown.is_some() && checkpoint && takes_all {
            self.shutdown_epoch = Some(epoch);
        } else if self.shutdown.is_some() {
            self.active = true;
        }
        let watermarks = self.promise();
        let (floors, forgotten) = self.floors_of_idle();
        self.push_in_flight(epoch, clock, checkpoint, writes.clone(), requests);
        if let Some(flight) = self.in_flight.back_mut() {
            flight.watermarks = watermarks.clone();
            flight.markers = markers;
            flight.floors = forgotten;
        }
        self.workers
            .broadcast(Command::Barrier(Arc::new(BarrierCommand {
                epoch,
                clock,
                checkpoint,
                writes,
                errors: Vec::new(),
                limits: None,
                horizons: self.horizons(),
                watermarks,
                floors,
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
        // Who writes rows in a file waits until all can read them, and nobody else does before.
        let is_told = |w: &&TableWrites| !requests.is_empty() && !w.is_stored();
        let acknowledges = writes.iter().filter(is_told).map(|w| w.table).collect();
        self.in_flight.push_back(EpochInFlight {
            epoch,
            clock,
            sent: machine::now(),
            checkpoint,
            cuts: vec![false; workers],
            positions: Positions::new(),
            changes: false,
            writes,
            errors: Vec::new(),
            requests,
            watermarks: Watermarks::default(),
            floors: Floors::new(),
            markers: BTreeMap::new(),
            acknowledges,
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
        if let Some(flight) = self.flight(epoch) {
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
        if let Some(flight) = self.flight(epoch) {
            flight.done[worker] = true;
        }
        for progress in self.progress.values_mut() {
            progress.pass(worker, epoch);
        }
        self.moved = true;
    }

    pub(super) fn on_passed(&mut self, worker: WorkerId, jobs: Vec<(RelationId, Epoch)>) {
        for (job, epoch) in jobs {
            if let Some(progress) = self.progress.get_mut(&job) {
                progress.pass(worker, epoch);
            }
        }
        self.moved = true;
    }

    /// Tells how far each job has completed what is decided.
    fn tell_complete(&mut self) {
        if std::mem::take(&mut self.moved) {
            self.time(self.quickest());
            let decided = self.readers.decided();
            let jobs = self.progress.iter();
            let complete = jobs.map(|(id, progress)| (*id, progress.everywhere().min(decided)));
            self.readers.complete(complete);
            self.look_at_unread();
        }
    }

    /// Decides every epoch that is ready, in order, and tells what is complete.
    pub(super) fn advance(&mut self) -> Result<()> {
        self.decide_ready()?;
        self.tell_complete();
        while self
            .in_flight
            .front()
            .is_some_and(|e| e.decided && e.done.iter().all(|d| *d))
        {
            self.time(self.in_flight[0].epoch);
            let Some(flight) = self.in_flight.pop_front() else {
                break;
            };
            self.retained.changed |= flight.epoch > self.retained.epoch() && flight.changes;
            if flight.checkpoint {
                self.checkpoint_barrier_passed(flight);
            }
        }
        if let Some(needed) = self.readers.newly_needed() {
            self.give_up_old_pins();
            self.workers.broadcast(Command::Publish {
                needed: needed.into(),
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
        let decided = self.in_flight.partition_point(|e| e.decided);
        let ready: Vec<usize> = (decided..self.in_flight.len())
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
            flight.floors.retain(|source, _| !ended(source));
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
            cut.watermarks = flight.watermarks.clone();
            cut.markers = std::mem::take(&mut flight.markers);
            cut.floors = std::mem::take(&mut flight.floors);
            entries.push(Entry::Cut(cut));
        }
        let last_index = self.append_each(&entries)?;
        for ((i, entry), index) in ready
            .iter()
            .zip(&entries)
            .zip(last_index + 1 - entries.len() as u64..)
        {
            self.decisions.apply(index, entry);
            if let Entry::Cut(cut) = entry {
                self.keep_rows(cut);
                self.readers.note_markers(&cut.markers);
                self.readers.set_floors(self.decisions.floors.clone());
            }
            let epoch = self.in_flight[*i].epoch;
            let snapshot = self.in_flight[*i].checkpoint.then(|| self.snapshot(epoch));
            let before = self.readers.positions();
            let stands = match *before == self.decisions.positions {
                true => before,
                false => Arc::new(self.decisions.positions.clone()),
            };
            let flight = &mut self.in_flight[*i];
            flight.decided = true;
            flight.snapshot = snapshot;
            flight.changes = !flight.positions.is_empty() || !flight.writes.is_empty();
            flight.writes = Vec::new();
            let requests = std::mem::take(&mut flight.requests);
            // What a checkpoint makes visible exists at the oldest mark; and a job that begins with
            // what relations hold at the end of an epoch finds that kept.
            let stays = flight.checkpoint || self.creating.values().any(|c| c.joined_at(epoch));
            self.readers.decide(epoch, stands, stays);
            self.moved = true;
            self.readers.acknowledge(epoch, &flight.acknowledges);
            for request in requests {
                self.workers.answer(request, Ok(epoch));
            }
        }
        // What can be promised now goes with one more barrier, even if nothing else comes.
        self.active |= self.may_promise_more();
        Ok(())
    }

    fn snapshot(&self, epoch: Epoch) -> Snapshot {
        Snapshot {
            log_index: self.decisions.index,
            catalog: self.decisions.catalog_at(epoch),
            positions: self.decisions.positions.clone(),
            starts: self.decisions.starts.clone(),
            floors: self.decisions.floors.clone(),
            markers: self.decisions.markers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};

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
        let fitting = |pending: &[PendingWrite]| fitting(pending, CUT_BYTES_MAX);
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[write(10), write(10)]), 2);
        let large = [write(third), write(third), write(third), write(10)];
        assert_eq!(fitting(&large), 3);
        assert_eq!(fitting(&[write(4 * third), write(1)]), 1);
    }

    /// What is small comes together, table by table; nothing passes what is written to the same
    /// table before it.
    #[test]
    fn small_writes_to_a_table_are_one_batch() {
        let write = |table: u32, values: std::ops::Range<i64>, weight: i64| {
            let weights = vec![weight; values.clone().count()];
            let values: arrow::array::ArrayRef = Arc::new(Int64Array::from_iter_values(values));
            let rows = RecordBatch::try_from_iter([("id", values)]).unwrap();
            TableWrites::held(RelationId(table), ChangeBatch::new(rows, weights))
        };
        let other = {
            let name: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![5]));
            let rows = RecordBatch::try_from_iter([("name", name)]).unwrap();
            TableWrites::held(RelationId(2), ChangeBatch::insert(rows))
        };
        let large = write(1, 0..(SMALL_BYTES / 8) as i64, 1);
        let mut faulty = write(1, 8..9, 1);
        if let Written::Held(changes) = &mut faulty.changes {
            *changes = changes.clone().with_faulty(vec![(0, 0)]);
        }
        let writes = vec![
            write(1, 0..2, 1),
            write(2, 0..1, 1),
            write(1, 1..2, -1),
            large.clone(),
            write(1, 5..6, 1),
            other.clone(),
            faulty.clone(),
            write(1, 6..7, 1),
            write(1, 7..8, -1),
        ];
        let both = |first: TableWrites, second: TableWrites| {
            let (Written::Held(a), Written::Held(b)) = (first.changes, second.changes) else {
                panic!("both are in memory");
            };
            let changes = ChangeBatch::concat(&a.schema(), &[a, b]);
            TableWrites::held(first.table, changes)
        };
        let expected = vec![
            both(write(1, 0..2, 1), write(1, 1..2, -1)),
            large,
            write(2, 0..1, 1),
            other,
            write(1, 5..6, 1),
            faulty,
            both(write(1, 6..7, 1), write(1, 7..8, -1)),
        ];
        assert_eq!(gathered(writes), expected);
        assert_eq!(gathered(Vec::new()), Vec::new());
    }
}
