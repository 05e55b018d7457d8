//! The coordinator: one thread that cuts time into epochs and writes down what was decided. It
//! never touches rows of a dataflow and never waits for one.
//!
//! ```text
//! barrier e to all workers
//!   -> each answers with its cut -> cut logged and synced: e is DECIDED (writes are acknowledged)
//!   -> each tells who passed it  -> decided and passed: e is COMPLETE in a job (it is read, sent)
//! ```
//! Several epochs may be on their way ([`EPOCHS_IN_FLIGHT_MAX`]); decisions happen in order, and
//! each job completes them in order. A barrier is sent when something asks for one: rows that a
//! source read, a write, a statement, a checkpoint that is due. An idle database sends none and
//! writes nothing.
//!
//! **Group commit.** A write waits for no interval: its barrier is sent at once, unless an epoch is
//! on its way to its decision. Then it waits for that one, and the next epoch takes all who came
//! meanwhile: the slower the disk, the more of them share a sync. At most one epoch is undecided
//! for writers, since a second one would halve the groups and double what they cost; those that are
//! decided and not done yet hold nobody up. Where several writers share epochs, these follow each
//! other no closer than [`SHARED_MS_MIN`], for the same reason: a quick disk would have them by
//! twos. While sources read, writers take epochs as statements do, [`EPOCH_MS_MIN`] apart: a busy
//! source gets no more epochs through them.
//!
//! Measured on two cores with pgbench beside, syncs of 0.15 ms, single rows from 16 connections: at
//! once 7,700 INSERTs and 6,900 UPDATEs by key a second (1,700 epochs), in groups 9,900 and 7,500
//! (900 epochs), 99 % within 5 ms; with epochs of 5 ms it had been at most 16 in each. With the
//! small writes of an epoch as one batch 10,900 and 10,300, 99 % within 3 ms (PostgreSQL 15 in the
//! same run: 19,700 and 19,000). One connection writes 1,500 times a second.
//!
//! **A job that is behind** holds up checkpoints, and with them CREATE and FLUSH, and nothing else:
//! epochs go on, and are read and sent as far as each job is ([`crate::Readers`]). Only where all
//! jobs are behind do sources wait after [`EPOCHS_IN_FLIGHT_MAX`] epochs; writers do not even then,
//! for what they write is decided without any job. What is written to a table and not read by all
//! jobs that it feeds is bounded in bytes ([`unread`]). The further a job is behind, the longer
//! epochs get, so that not too many of them wait for it.
//!
//! The parts: [`epochs`] (barriers, cuts, how far each job is), [`rhythm`] (how long an epoch is),
//! [`unread`] (writes that wait), [`watermarks`] (what sources promise), [`jobs`] (creating,
//! dropping, stopping), [`ddl`] (what may be logged of the catalog), [`altering`] (tables that get
//! columns), [`succession`] (OR REPLACE with what depends on it), [`halted`] (jobs that do not run,
//! and resuming them), [`answers`] (what is read of those), [`checkpoints`], [`recovery`] and
//! [`replay`].

mod altering;
mod answers;
mod checkpoints;
mod ddl;
mod epochs;
mod halted;
mod jobs;
pub mod recovery;
mod replay;
mod rhythm;
mod succession;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unread;
mod watermarks;

use crate::inputs::{Answer, Input, Inputs, RequestId};
use crate::protocol::{Command, Event, Fate, Request};
use crate::workers::Workers;
use crate::{CatalogChange, DecisionLog, Decisions, Entry, Readers};
use altering::Altering;
use checkpoints::{CheckpointInProgress, Retained};
use epochs::{EpochInFlight, Progress};
use halted::Halt;
pub use jobs::stopped_error;
use jobs::{Creating, Creation, Reading};
use rhythm::Rhythm;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use succession::Succession;
use tidemark_changelog::connector::SinkMarker;
use tidemark_common::mailbox::Empty;
use tidemark_common::{Backoff, Epoch, Error, RelationId, Result, SqlState, Watermarks, machine};
use tidemark_plan::Catalog;

/// Epochs that may be on their way through the workers, complete in no job, before the next barrier
/// waits; writers alone go on.
pub const EPOCHS_IN_FLIGHT_MAX: usize = 4;

/// An epoch that somebody waits for (a statement, or a write while sources read) is at least this
/// long, in milliseconds.
pub const EPOCH_MS_MIN: u64 = 5;

/// Epochs that several writers share are at least this long, in milliseconds.
const SHARED_MS_MIN: u64 = 1;

/// The pause between two tries to append to a log on a full disk, at most.
const FULL_DISK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How often it is said that the disk is still full.
const FULL_DISK_TOLD: Duration = Duration::from_secs(60);

/// Intervals of barriers and checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between barriers at most, while sources read.
    pub epoch: Duration,
    /// Between checkpoints.
    pub checkpoint: Duration,
    /// How long an epoch is kept for a reader; `None`: as long as it wants.
    pub snapshot_age_max: Option<Duration>,
}

/// The state of the coordinator's thread.
pub struct Coordinator {
    log: Box<dyn DecisionLog>,
    decisions: Decisions,
    readers: Arc<Readers>,
    workers: Box<dyn Workers>,
    pace: Pace,
    /// The epoch that the next barrier closes.
    next_epoch: Epoch,
    last_barrier: Instant,
    rhythm: Rhythm,
    /// The last epoch whose barrier's time it knows.
    timed: Epoch,
    in_flight: VecDeque<EpochInFlight>,
    /// Something happened that the next epoch should contain.
    active: bool,
    /// A statement waits for the next barrier: take the short interval.
    urgent: bool,
    /// Sources have read since the last barrier: take no shorter interval.
    reading: bool,
    /// Several writers shared the last epoch.
    shared: bool,
    pending_writes: Vec<PendingWrite>,
    creating: BTreeMap<RelationId, Creating>,
    running: Vec<RelationId>,
    /// How far those are.
    progress: BTreeMap<RelationId, Progress>,
    /// That is to be told.
    moved: bool,
    /// What was written and is not read everywhere.
    unread: unread::Unread,
    /// What sources have promised.
    promised: Watermarks,
    /// Splits that bring nothing, as told since the last barrier.
    idle: BTreeMap<RelationId, watermarks::Idle>,
    /// The jobs that do not run.
    halted: BTreeMap<RelationId, Halt>,
    /// Stopped jobs of which workers may still get messages: those that have got the last.
    ending: BTreeMap<RelationId, Vec<bool>>,
    /// Tables that get columns.
    altering: BTreeMap<RelationId, Altering>,
    /// Relations that are being replaced with all that rests on them, by the number of the first
    /// new one.
    successions: BTreeMap<RelationId, Succession>,
    /// Replacements that are done but for these sinks, which are about to go on.
    going_on: Vec<(RequestId, BTreeSet<RelationId>)>,
    /// Last complete answers that are being stored.
    answers: BTreeSet<(RelationId, Epoch)>,
    /// Resumes that wait for the end of the job.
    waiting: Vec<(RelationId, Option<RequestId>)>,
    checkpoint: Option<CheckpointInProgress>,
    retained: Retained,
    flushes: Vec<Flush>,
    shutdown: Option<RequestId>,
    shutdown_epoch: Option<Epoch>,
    /// What was decided is still being replayed.
    opening: Option<replay::Replay>,
}

#[derive(Default)]
struct PendingWrite {
    writes: Vec<crate::TableWrites>,
    /// What they were resolved against and was not decided then.
    after: Vec<Fate>,
    fate: Fate,
    /// What a sink has delivered with it.
    marker: Option<(RelationId, SinkMarker)>,
    request: Option<RequestId>,
}

struct Flush {
    /// The epoch that a committed checkpoint must reach; set when its barrier is sent.
    epoch: Option<Epoch>,
    request: RequestId,
}

impl Coordinator {
    /// Runs until it is open, or until shutdown. An error here (the log cannot be written) ends the
    /// process's usefulness: the caller reports it and exits.
    pub fn run(&mut self, inputs: &Inputs) -> Result<()> {
        let was_open = self.is_open();
        while self.is_open() == was_open {
            let input = match inputs.recv_until(self.next_wake()) {
                Ok(input) => Some(input),
                Err(Empty::Yet) => None,
                Err(Empty::ForEver) if was_open => return Ok(()),
                Err(Empty::ForEver) => return Err(Error::shutting_down()),
            };
            let more = std::iter::from_fn(|| inputs.try_recv().ok());
            if self.step(input.into_iter().chain(more))? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes in what it is told, and does what is due by now. True when it has ended.
    pub fn step(&mut self, inputs: impl Iterator<Item = Input>) -> Result<bool> {
        for input in inputs {
            self.take(input)?;
        }
        if !self.is_open() {
            self.go_on_opening()?;
            return Ok(false);
        }
        self.advance()?;
        if self.next_deadline().is_some_and(|d| d <= machine::now()) {
            self.send_barrier()?;
        }
        let ends = self.shutdown_is_complete();
        if ends {
            self.workers.broadcast(Command::Shutdown);
            self.done(self.shutdown);
        }
        Ok(ends)
    }

    fn take(&mut self, input: Input) -> Result<()> {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Request(number, request) => self.on_request(number, request),
        }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Cut {
                worker,
                epoch,
                positions,
                floors,
                reads,
                errors,
            } => {
                self.put_floors(epoch, floors);
                self.on_cut(worker, epoch, positions, reads, errors);
            }
            Event::Passed { worker, jobs } => self.on_passed(worker, jobs),
            Event::Done { worker, epoch } => self.on_done(worker, epoch),
            Event::Settled { .. } => {
                if let Some(replay) = &mut self.opening {
                    replay.settled();
                }
            }
            Event::Active => {
                self.active = true;
                self.reading = true;
            }
            Event::Ready { worker, relation } => self.on_ready(worker, relation),
            Event::JobDone {
                worker,
                relation,
                epoch,
            } => self.on_job_done(worker, relation, epoch),
            Event::Ended { worker, relation } => self.on_ended(worker, relation)?,
            Event::Unreadable { relation, error } => self.hold_back(relation, &error, None)?,
            Event::Failed { relation, error } => self.on_failed(relation, &error)?,
            Event::NotRestored { error } => return Err(error),
            Event::Part {
                worker,
                epoch,
                files,
            } => self.on_part(worker, epoch, files),
            Event::SinkPart { epoch, sinks } => self.on_sink_part(epoch, sinks),
            Event::ErrorsPart { epoch, errors } => self.on_errors_part(epoch, errors),
            Event::ManifestStored { epoch, manifest } => {
                self.on_manifest_stored(epoch, manifest)?
            }
            Event::AnswerStored {
                relation,
                epoch,
                files,
            } => self.on_answer_stored(relation, epoch, files),
            Event::Compacted { replaced, by } => self.on_compacted(&replaced, by),
            Event::Widened { worker, relation } => self.on_widened(worker, relation),
        }
        Ok(())
    }

    /// What came of a request; nobody asked for what the coordinator does by itself.
    fn answer(&self, request: Option<RequestId>, answer: Answer) {
        if let Some(request) = request {
            self.workers.answer(request, answer);
        }
    }

    /// A request has come true.
    fn done(&self, request: Option<RequestId>) {
        self.answer(request, Ok(self.decisions.decided));
    }

    fn on_request(&mut self, number: RequestId, request: Request) -> Result<()> {
        if self.shutdown.is_some() {
            self.answer(Some(number), Err(Error::shutting_down()));
            return Ok(());
        }
        match request {
            Request::Create {
                relation,
                start,
                targets,
                begins,
                replaces,
                dependants,
                rows,
            } => {
                let creation = Creation {
                    start,
                    reading: Reading { targets, begins },
                    replaces,
                    rows,
                };
                match dependants.is_empty() {
                    true => self.create(*relation, creation, number)?,
                    false => self.begin_succession(*relation, creation, dependants, number),
                }
            }
            Request::Cancel { relation, error } => self.cancel(relation, &error),
            Request::Drop { relations } => {
                self.on_changes(vec![CatalogChange::Drop { relations }], false, number)?
            }
            Request::Resume { relation } => self.resume(relation, Some(number))?,
            Request::Splits { relation, start } => self.add_splits(relation, start)?,
            Request::Idle {
                relation,
                splits,
                earliest,
            } => self.note_idle(relation, splits, earliest),
            Request::LogRows { relation } => self.log_rows(relation)?,
            Request::Changes { changes, cascade } => self.on_changes(changes, cascade, number)?,
            Request::Write {
                writes,
                after,
                fate,
                marker,
            } => {
                let write = PendingWrite {
                    writes,
                    after,
                    fate,
                    marker,
                    request: Some(number),
                };
                if let Some(error) = self.refusal(&write) {
                    self.refuse(write, error);
                    return Ok(());
                }
                self.pending_writes.push(write);
                self.active = true;
            }
            Request::Flush => {
                self.flushes.push(Flush {
                    epoch: None,
                    request: number,
                });
                self.active = true;
                self.urgent = true;
            }
            Request::Shutdown => {
                self.shutdown = Some(number);
                self.active = true;
                self.urgent = true;
            }
        }
        Ok(())
    }

    /// Appends to the log and applies.
    fn record(&mut self, entries: &[Entry]) -> Result<()> {
        let index = self.append(entries)?;
        for entry in entries {
            self.decisions.apply(index, entry);
        }
        Ok(())
    }

    /// Appends, and tries again while the disk is full: what waits for a decision waits, new writes
    /// are refused meanwhile, reads go on.
    fn append(&mut self, entries: &[Entry]) -> Result<u64> {
        self.append_by(|log| log.append(entries))
    }

    /// The same, of entries that count each by itself: they have indexes of their own.
    fn append_each(&mut self, entries: &[Entry]) -> Result<u64> {
        self.append_by(|log| log.append_each(entries))
    }

    fn append_by(&mut self, append: impl Fn(&mut dyn DecisionLog) -> Result<u64>) -> Result<u64> {
        let mut backoff = Backoff::default();
        let mut told: Option<Instant> = None;
        loop {
            match append(self.log.as_mut()) {
                Ok(last) => {
                    if told.is_some() {
                        tracing::info!("the log grows again");
                    }
                    self.readers.set_log_error(None);
                    return Ok(last);
                }
                Err(error) if error.state() == SqlState::DISK_FULL => {
                    if told.is_none_or(|at| machine::elapsed(at) > FULL_DISK_TOLD) {
                        tracing::error!(%error, "the log cannot grow; waiting for space");
                        told = Some(machine::now());
                    }
                    self.readers.set_log_error(Some(error));
                    machine::pause(backoff.pause().min(FULL_DISK_PAUSE_MAX));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// When it has something to do without an event.
    pub fn next_wake(&self) -> Option<Instant> {
        if !self.is_open() {
            return None;
        }
        [self.next_deadline(), self.retry_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells sessions which relations there are, and which do not run: all but those that are being
    /// created for the first time.
    fn show_catalog(&self) {
        let mut catalog: Catalog = self.decisions.catalog.clone();
        catalog.relations.retain(|id, _| !self.is_new(*id));
        for (id, altering) in &self.altering {
            altering.hide(*id, &mut catalog);
        }
        for (id, halt) in &self.halted {
            catalog.stopped.insert(*id, halt.stopped.clone());
        }
        self.workers
            .catalog_changed(Arc::new(catalog), self.decisions.starts.clone());
    }

    fn shutdown_is_complete(&self) -> bool {
        self.shutdown_epoch.is_some_and(|epoch| {
            self.checkpoint.is_none() && self.in_flight.is_empty() && self.retained.epoch() >= epoch
        })
    }
}
