//! The life of a job that does not run, and how it runs again.
//!
//! ```text
//!            created                it failed, or what it reads
//! creating ----------> running ------------------------------------> stopped (logged)
//!                       ^   ^                                           |
//!        its state is   |   | promoted, and in a committed checkpoint   | ALTER ... RESUME
//!        whole, replay  |   |                                           v
//! start ----------------+   +--------------------------------------- resuming
//!   |                                                                   ^
//!   | its state cannot be read, or it ended the process several times   | ALTER ... RESUME,
//!   +----------------------> held back (in this incarnation only) ------+ the next start, a while
//! ```
//!
//! **Law.** Nothing that was decided for a job is lost while it does not run, whatever the others
//! do, and what it answers when it runs again is its query over all of its input.
//!
//! A job and all that read from it stop together, and are *halted*: a [`Halt`] has what each needs
//! to go on. Its state stays as of the last committed checkpoint that contained it, and so that
//! people read what it answered last, that is stored beside it ([`super::answers`]). The
//! manifests name also where its sources stood then ([`Halted::positions`]), and the rows that were
//! written to it since ([`Halted::kept`]): those that the log still has when it stops are read
//! back, those of epochs that are on their way then are added when they are decided, and later ones
//! are refused. So what is kept is bounded by what one checkpoint interval writes, and the log is
//! shortened as ever.
//!
//! To resume is to create the job once more, under its own id and with a past:
//!
//! * A job with an input of its own (a table, a connector's table) is restored. The kept rows are
//!   its first input; a connector is read on from where it stood. It is seen when it has reached at
//!   least what it had reached when it stopped.
//! * A job that reads only sources without rows is restored, and reads each of them from where that
//!   stood, by readers of its own, until it can join the shared ones.
//! * A job that reads relations with rows is built anew from the rows that they have when it joins:
//!   what they were at its own epoch is gone. Its old files are named until a checkpoint contains
//!   the new ones.
//! * A sink has told its receiver what it gave up to where it stopped. It gives the difference
//!   between its query then and now: from where its sources stood then, and from what the relations
//!   with rows held then ([`Halted::inputs`]). If its query is linear, that is the query over the
//!   difference of the inputs; else it is built from the inputs of then, and of what that gives
//!   nothing is sent.
//!
//! Until a committed checkpoint contains it the job is halted for everybody else: reads get its
//! last complete answer, a crash finds it halted as before, and a failure leaves it so.
//!
//! Nothing is logged of what is *held back*. A manifest names it among the halted, but its catalog
//! does not among the stopped, and so the next start tries it again, after it has opened; a job
//! that is suspected of ending the process is tried once more without a restart, after a while that
//! grows with the number of deaths.

use super::jobs::{Creating, Phase, Reading, Resumes, runs_on_demand, stopped_error};
use super::{Coordinator, PendingWrite};
use crate::entry::encode_kept;
use crate::inputs::RequestId;
use crate::protocol::{Fate, Positions, StartJob, StartMode};
use crate::{Cut, Entry, TableWrites};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, WorkerId, machine};
use tidemark_plan::{Op, Relation, RelationKind, Stopped};
use tidemark_state::halted::{Answer, Formerly, Halted, KeptFile};
use tidemark_state::manifest::Manifest;

/// What is asked for is in use.
pub(super) const IN_USE: SqlState = SqlState("55006");

/// The pause before a job that waits for others is tried again without being asked.
const RETRY_IN_USE: Duration = Duration::from_secs(1);

/// A job that does not run.
pub(super) struct Halt {
    /// What a manifest has of it, or will have.
    pub saved: Halted,
    /// Written rows that are in no file yet that a committed manifest names, in order.
    pub rows: Vec<(Epoch, TableWrites)>,
    /// Why, and what it is read as of.
    pub stopped: Stopped,
    /// When it is tried again without being asked.
    pub retry: Option<Instant>,
}

/// Whether rows of the job's input are in the log.
fn takes_rows(relation: &Relation) -> bool {
    let reads = |op: &Op| matches!(op, Op::TableRead);
    let plan = relation.job.iter().flat_map(|j| &j.fragments);
    relation.logs_rows.is_some()
        || plan
            .flat_map(tidemark_plan::Fragment::nodes)
            .any(|n| reads(&n.op))
}

/// Positions, with the start of each split that they do not have.
fn with_new_splits(
    mut positions: Vec<SplitPosition>,
    start: &[SplitPosition],
) -> Vec<SplitPosition> {
    for split in start {
        if !positions.iter().any(|p| p.split == split.split) {
            positions.push(split.clone());
        }
    }
    positions
}

impl Coordinator {
    /// `relation` and all that read from it, in order of dataflow.
    pub(super) fn with_readers(&self, relation: RelationId) -> Vec<RelationId> {
        let mut all = vec![relation];
        let mut i = 0;
        while i < all.len() {
            let relations = self.decisions.catalog.relations.values();
            let readers: BTreeSet<RelationId> = relations
                .map(AsRef::as_ref)
                .chain(self.creating.values().map(|c| &c.relation))
                .filter(|r| r.depends_on.contains(&all[i]) && r.job.is_some())
                .map(|r| r.id)
                .filter(|id| !all.contains(id))
                .collect();
            all.extend(readers);
            i += 1;
        }
        all
    }

    /// Takes down what these jobs need to go on, before anything forgets it. `positions`: where all
    /// sources stood.
    pub(super) fn halt(
        &mut self,
        jobs: Vec<(RelationId, Stopped)>,
        positions: &Positions,
        retry: Option<Instant>,
    ) -> Result<()> {
        let mut log: Option<Vec<(u64, Entry)>> = None;
        for (id, stopped) in jobs {
            if let Some(halt) = self.halted.get_mut(&id) {
                halt.stopped = stopped;
                halt.retry = retry;
                continue;
            }
            let Some(relation) = self.decisions.catalog.relations.get(&id).cloned() else {
                continue;
            };
            let mut rows = Vec::new();
            if takes_rows(&relation) {
                if log.is_none() {
                    let contained = self.retained.manifest.as_ref().map_or(0, |m| m.log_index);
                    log = Some(self.log.read_after(contained)?);
                }
                let cuts = log.iter().flatten().filter_map(|(_, entry)| match entry {
                    Entry::Cut(cut) => Some(cut),
                    _ => None,
                });
                rows = cuts.flat_map(|cut| rows_of(cut, id)).collect();
            }
            let halt = Halt {
                saved: Halted::default(),
                rows,
                stopped,
                retry,
            };
            let epoch = halt.stopped.epoch;
            self.halted.insert(id, halt);
            self.stands_at_checkpoint(id, positions);
            let was_sent =
                relation.kind == RelationKind::Sink && self.readers.readable(id) == epoch;
            if let Some(pin) = self.readers.pin_at(epoch).filter(|_| was_sent) {
                // What it has read of epochs after that was not sent.
                self.stood_at(id, pin.positions());
            }
            self.keep_answers(id, epoch);
        }
        self.refuse_pending_writes();
        Ok(())
    }

    /// The sources whose positions the job's state stands on.
    fn sources_of(&self, relation: &Relation) -> BTreeSet<RelationId> {
        if relation.unreadable.is_some() {
            // Whatever it reads, somebody may be able to read that later.
            let reads = relation.depends_on.iter().copied();
            return reads.chain([relation.id]).collect();
        }
        let mut sources = self.sources_on_demand(relation);
        if super::jobs::needs_positions(relation) && relation.is_materialized() {
            sources.insert(relation.id);
        }
        sources
    }

    /// The job's state is that of the last checkpoint; `reached`: where all sources stood when it
    /// stopped.
    pub(super) fn stands_at_checkpoint(&mut self, id: RelationId, reached: &Positions) {
        let Some(relation) = self.decisions.catalog.relations.get(&id).cloned() else {
            return;
        };
        let positions = self.sources_at_checkpoint(&relation);
        if relation.kind == RelationKind::Sink {
            self.stood_at(id, &positions);
        } else {
            self.stood_at(id, reached);
        }
        if let Some(halt) = self.halted.get_mut(&id) {
            halt.saved.positions = positions;
        }
    }

    /// Where all sources stood when the job stopped.
    fn stood_at(&mut self, id: RelationId, all: &Positions) {
        let Some(relation) = self.decisions.catalog.relations.get(&id) else {
            return;
        };
        let sources = self.sources_of(relation).into_iter();
        let reached = sources.filter_map(|s| Some((s, all.get(&s)?.clone())));
        let reached = reached.collect();
        if let Some(halt) = self.halted.get_mut(&id) {
            halt.saved.reached = reached;
        }
    }

    fn sources_at_checkpoint(&self, relation: &Relation) -> Positions {
        let at = |source: RelationId| {
            let manifest = self.retained.manifest.as_ref();
            let known = manifest.and_then(|m| m.sources.get(&source));
            let start = self.decisions.starts.get(&source);
            Some((source, known.or(start)?.clone()))
        };
        self.sources_of(relation)
            .into_iter()
            .filter_map(at)
            .collect()
    }

    /// Writes that wait for a barrier and would go to a halted table, and those that were resolved
    /// against them.
    fn refuse_pending_writes(&mut self) {
        for pending in std::mem::take(&mut self.pending_writes) {
            match self.refusal(&pending) {
                None => self.pending_writes.push(pending),
                Some(error) => self.refuse(pending, error),
            }
        }
    }

    /// The write is not taken, nor any that was resolved against it.
    pub(super) fn refuse(&self, write: PendingWrite, error: Error) {
        write.fate.refuse();
        self.answer(write.request, Err(error));
    }

    /// Why this write cannot be taken.
    pub(super) fn refusal(&self, write: &PendingWrite) -> Option<Error> {
        let halted = write.writes.iter().find_map(|write| {
            let halt = self.halted.get(&write.table)?;
            let relation = self.decisions.catalog.relations.get(&write.table)?;
            Some(stopped_error(relation, &halt.stopped))
        });
        let is_void = write.after.iter().any(Fate::is_refused);
        let gone = write.marker.as_ref().is_some_and(|(sink, _)| {
            let relations = &self.decisions.catalog.relations;
            !relations.contains_key(sink) && !self.creating.contains_key(sink)
        });
        halted
            .or_else(|| {
                let dropped = || {
                    let message = "the sink that writes was dropped";
                    Error::user(SqlState::UNDEFINED_OBJECT, message)
                };
                gone.then(dropped)
            })
            .or_else(|| is_void.then(void))
            .or_else(|| self.too_large(write))
    }

    /// Why the log cannot take so many rows.
    fn too_large(&self, write: &PendingWrite) -> Option<Error> {
        let (most, takes_files) = (self.log.rows_bytes_max(), self.log.takes_files());
        let bytes: usize = write.writes.iter().map(TableWrites::bytes).sum();
        let in_files = |w: &TableWrites| matches!(w.changes, crate::Written::Stored(_));
        if bytes <= most && (takes_files || !write.writes.iter().any(in_files)) {
            return None;
        }
        Some(
            Error::user(
                SqlState("54000"),
                "a transaction writes too many rows for a cluster of several nodes",
            )
            .with_detail(format!("The limit is {most} bytes."))
            .with_hint("Write them in several transactions."),
        )
    }

    /// A cut is decided: rows that it has for halted jobs are kept.
    pub(super) fn keep_rows(&mut self, cut: &Cut) {
        for (id, halt) in &mut self.halted {
            halt.rows.extend(rows_of(cut, *id));
        }
    }

    /// The job cannot be started now, and nothing is logged of it: it is tried again at the next
    /// start, and before at `retry`. All that read from it wait with it.
    pub(super) fn hold_back(
        &mut self,
        relation: RelationId,
        error: &Error,
        retry: Option<Instant>,
    ) -> Result<()> {
        self.abandon_over(relation, error);
        if self.creating.contains_key(&relation) {
            self.cancel(relation, error);
            return Ok(());
        }
        let Some(name) = self.name_of(relation) else {
            return Ok(());
        };
        if !self.running.contains(&relation) {
            return Ok(());
        }
        tracing::error!(job = %name, %error, "job held back: it is tried again at the next start, \
                                              or by ALTER ... RESUME");
        let (creating, held): (Vec<RelationId>, Vec<RelationId>) = self
            .with_readers(relation)
            .into_iter()
            .filter(|id| self.creating.contains_key(id) || self.running.contains(id))
            .partition(|id| self.creating.contains_key(id));
        let stopped = |id: &RelationId| Stopped {
            epoch: self.stops_at(*id),
            reason: reason_of(*id == relation, &name, "is held back", error),
            since: machine::micros(),
            held: true,
        };
        let jobs: Vec<_> = held.iter().map(|id| (*id, stopped(id))).collect();
        self.hold(jobs, retry, |coordinator| {
            for id in creating {
                coordinator.cancel(id, error);
            }
        })
    }

    /// These jobs do not run for now, and nothing is logged of that. When it is shown, others are
    /// told.
    pub(super) fn hold(
        &mut self,
        jobs: Vec<(RelationId, Stopped)>,
        retry: Option<Instant>,
        tell_others: impl FnOnce(&mut Coordinator),
    ) -> Result<()> {
        let ends: Vec<(RelationId, Epoch)> = jobs
            .iter()
            .map(|(id, stopped)| (*id, stopped.epoch))
            .collect();
        let held: Vec<RelationId> = ends.iter().map(|(id, _)| *id).collect();
        let positions = self.decisions.positions.clone();
        self.halt(jobs, &positions, retry)?;
        self.show_catalog();
        // Whoever sees that it is held back sees why.
        for (id, epoch) in &ends {
            self.workers.job_progress(*id, "held back", 100.0, *epoch);
        }
        tell_others(self);
        let sinks = ends.into_iter().filter(|(id, _)| self.is_sink(*id));
        let sinks: Vec<_> = sinks.collect();
        self.workers.end_sinks(&sinks);
        self.stop_jobs(&held, true);
        self.active = true;
        Ok(())
    }

    pub(super) fn name_of(&self, relation: RelationId) -> Option<String> {
        let relation = self.decisions.catalog.relations.get(&relation)?;
        Some(relation.name.clone())
    }

    /// A worker has got the last message of a stopped job.
    pub(super) fn on_ended(&mut self, worker: WorkerId, relation: RelationId) -> Result<()> {
        if let Some(ended) = self.ending.get_mut(&relation) {
            ended[worker] = true;
            if ended.iter().all(|e| *e) {
                self.ending.remove(&relation);
            }
        }
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(id, _)| !self.ending.contains_key(id));
        self.waiting = waiting;
        let ready: Vec<(RelationId, Option<RequestId>)> = ready;
        for (id, request) in ready {
            self.resume(id, request)?;
        }
        Ok(())
    }

    /// Lets a job run again; the request is answered when it does and is visible.
    pub(super) fn resume(&mut self, id: RelationId, request: Option<RequestId>) -> Result<()> {
        let error = match self.begin_resume(id) {
            Ok(Begun::Waits) => {
                self.waiting.push((id, request));
                return Ok(());
            }
            Ok(Begun::Resuming) => {
                if let Some(creating) = self.creating.get_mut(&id) {
                    creating.request = request;
                }
                return Ok(());
            }
            Ok(Begun::Done(entries)) => {
                // Of a sink whose delivery had stopped by an error: deliver.
                self.workers.release_sinks(&[id]);
                if !entries.is_empty() {
                    self.record(&entries)?;
                    self.halted.remove(&id);
                    self.show_catalog();
                    // Only a checkpoint has it that somebody said so.
                    self.retained.changed = true;
                    self.active = true;
                }
                self.done(request);
                return Ok(());
            }
            Err(error) => error,
        };
        if request.is_none() {
            tracing::warn!(relation = %id, %error, "a job that is held back could not be resumed");
            if let Some(halt) = self.halted.get_mut(&id).filter(|_| error.state() == IN_USE) {
                halt.retry = Some(machine::now() + RETRY_IN_USE);
            }
        }
        self.answer(request, Err(error));
        Ok(())
    }

    fn begin_resume(&mut self, id: RelationId) -> Result<Begun> {
        let relation = self.decisions.catalog.relations.get(&id).cloned();
        let relation = relation.ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_TABLE,
                "the relation does not exist any more",
            )
        })?;
        let Some(halt) = self.halted.get_mut(&id) else {
            return Ok(Begun::Done(Vec::new()));
        };
        halt.retry = None;
        if let Some(reason) = self.decisions.catalog.unreadable().remove(&id) {
            return Err(Error::corrupt(reason));
        }
        self.check_not_succeeding(&relation)?;
        if self.creating.contains_key(&id) || self.waiting.iter().any(|(w, _)| *w == id) {
            return Err(Error::user(
                IN_USE,
                format!("\"{}\" is being resumed already", relation.name),
            ));
        }
        for upstream in &relation.depends_on {
            if let (Some(halt), Some(upstream)) = (
                self.halted.get(upstream),
                self.decisions.catalog.relations.get(upstream),
            ) {
                return Err(stopped_error(upstream, &halt.stopped));
            }
        }
        if runs_on_demand(&relation) {
            return Ok(Begun::Done(vec![Entry::Resume { relation: id }]));
        }
        if self.ending.contains_key(&id) {
            return Ok(Begun::Waits);
        }
        if relation.kind == RelationKind::Sink {
            self.start_resuming_sink(&relation)?;
        } else {
            self.start_resuming(&relation)?;
        }
        Ok(Begun::Resuming)
    }

    /// A sink goes on with the difference to what it has told.
    fn start_resuming_sink(&mut self, relation: &Arc<Relation>) -> Result<()> {
        let id = relation.id;
        let saved = self.halted[&id].saved.clone();
        refuse_anew(relation)?;
        let on_demand = self.sources_on_demand(relation);
        let linear = relation.job.as_ref().is_some_and(|job| job.is_linear());
        let taps = relation.job.as_ref().map(|j| j.taps()).unwrap_or_default();
        let mut inputs = taps.iter().map(|(tap, _)| tap);
        if !inputs.all(|tap| on_demand.contains(tap) || saved.inputs.contains_key(tap))
            || (!linear && !on_demand.is_empty())
        {
            let query = "its query groups or joins a source whose rows are not kept";
            let unknown = "what it reads could not be stored when it stopped";
            return Err(Error::user(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("sink \"{}\" cannot be resumed", relation.name),
            )
            .with_detail(format!(
                "What it has told cannot be told from what came since: {}.",
                if linear { unknown } else { query }
            ))
            .with_hint("Drop it, make a materialized view of its query, and a sink of that one."));
        }
        let mut from = saved.reached.clone();
        from.retain(|source, _| on_demand.contains(source));
        for (source, positions) in &mut from {
            let start = self.decisions.starts.get(source);
            let start = start.map_or(&[][..], Vec::as_slice);
            *positions = with_new_splits(std::mem::take(positions), start);
        }
        self.check_not_behind(&from)?;
        let manifest = self.retained.manifest.as_ref();
        let mut told = saved.inputs;
        told.retain(|input, _| taps.iter().any(|(tap, _)| tap == input));
        let job = StartJob {
            // Constant rows were told, too.
            mode: if linear {
                StartMode::Resuming
            } else {
                StartMode::Creating
            },
            backfill: self.backfill(relation, &from, &BTreeSet::new()),
            sink: manifest.and_then(|m| m.sinks.get(&id).cloned()),
            formerly: former(&told),
            told: told
                .into_iter()
                .map(|(input, answer)| (input, answer.files))
                .collect(),
            ..StartJob::of(relation.clone())
        };
        // One that is built from what was told has nothing to do with its state of then.
        self.resuming(job, Reading::from(from), !linear);
        Ok(())
    }

    /// Has the job's actors built, and waits for them.
    fn resuming(&mut self, job: StartJob, reading: Reading, rebuilt: bool) {
        let creating = Creating {
            relation: job.relation.as_ref().clone(),
            start: Vec::new(),
            reading,
            replaces: None,
            beside: false,
            rows: Vec::new(),
            request: None,
            backfill: job.backfill.keys().copied().collect(),
            phase: Phase::CatchingUp {
                ready: vec![false; self.workers.count()],
            },
            resumes: Some(Resumes { rebuilt }),
        };
        tracing::info!(job = %job.relation.name, rebuilt, "resuming");
        self.creating.insert(job.relation.id, creating);
        self.start(job, "resuming");
    }

    fn start_resuming(&mut self, relation: &Arc<Relation>) -> Result<()> {
        let id = relation.id;
        let halt = &self.halted[&id];
        let taps = relation.job.as_ref().map(|j| j.taps()).unwrap_or_default();
        let on_demand = self.sources_on_demand(relation);
        let rebuilt = taps.iter().any(|(id, _)| !on_demand.contains(id));
        if rebuilt {
            refuse_anew(relation)?;
        }
        let starts = |source: &RelationId| self.decisions.starts.get(source).cloned();
        let mut from: Positions = halt.saved.positions.clone();
        for (source, positions) in &mut from {
            let start = starts(source).unwrap_or_default();
            *positions = with_new_splits(std::mem::take(positions), &start);
        }
        // Of rows that the log has kept only from some epoch on, all are read again.
        let epoch = self.retained.manifest.as_ref();
        let epoch = epoch.and_then(|m| m.job_epochs.get(&id).copied());
        let whole = relation
            .logs_rows
            .is_none_or(|after| epoch.is_some_and(|epoch| after <= epoch));
        let own = if relation.logs_rows.is_some() && whole {
            halt.saved.reached.get(&id).or(from.get(&id)).cloned()
        } else {
            from.get(&id).cloned()
        };
        let (mut kept, mut rows) = (Vec::new(), Vec::new());
        if whole {
            kept.clone_from(&halt.saved.kept);
            rows.extend(halt.rows.iter().map(|(_, rows)| rows.clone()));
        }
        from.retain(|source, _| !rebuilt && on_demand.contains(source));
        self.check_not_behind(&from)?;
        let targets = if rebuilt {
            Positions::new()
        } else {
            halt.saved.reached.clone()
        };
        let tables = self.retained.tables.iter();
        let tables = tables
            .filter(|(t, _)| t.relation == id && !rebuilt)
            .map(|(t, files)| (t.table, files.clone()));
        let job = StartJob {
            mode: if rebuilt {
                StartMode::Creating
            } else {
                StartMode::Resuming
            },
            positions: own.unwrap_or_default(),
            starts: starts(&id).unwrap_or_default(),
            floors: self.decisions.floors_of(id),
            backfill: self.backfill(relation, &from, &BTreeSet::new()),
            tables: tables.collect(),
            kept,
            rows,
            ..StartJob::of(relation.clone())
        };
        let begins = from;
        self.resuming(job, Reading { targets, begins }, rebuilt);
        Ok(())
    }

    /// Reading on from `from` needs the shared readers to be there already: a source that is being
    /// read from its beginning for somebody else is not.
    pub(super) fn check_not_behind(&self, from: &Positions) -> Result<()> {
        for (source, wanted) in from.iter().filter(|(s, _)| self.running.contains(s)) {
            let stands = self.decisions.positions.get(source);
            let behind = |w: &&SplitPosition| {
                let at = stands.and_then(|p| p.iter().find(|p| p.split == w.split));
                at.is_none_or(|p| p.next_offset < w.next_offset)
            };
            if wanted.iter().any(|w| behind(&w)) {
                let name = self.name_of(*source).unwrap_or_default();
                return Err(Error::unavailable(
                    IN_USE,
                    format!("source \"{name}\" is being read from its beginning"),
                )
                .with_hint("Resume it when the creations that read it are finished."));
            }
        }
        Ok(())
    }

    /// A resume did not succeed: the job is halted as before.
    pub(super) fn resume_failed(&mut self, creating: Creating, error: &Error) {
        let id = creating.relation.id;
        let was_promoted = matches!(creating.phase, Phase::Promoted { .. });
        let asked = error.state() == SqlState::QUERY_CANCELED;
        let mut stopped = None;
        if let Some(halt) = self.halted.get_mut(&id) {
            if !asked {
                halt.stopped.reason = reason_of(true, "", "", error);
            }
            stopped = Some(halt.stopped.clone());
        }
        let state = match &stopped {
            Some(s) if !s.held => "stopped",
            _ => "held back",
        };
        self.workers.job_progress(
            id,
            state,
            100.0,
            stopped.as_ref().map_or(Epoch(0), |s| s.epoch),
        );
        let stopped_at = stopped.as_ref().map(|s| s.epoch);
        if let Some(stopped) = stopped.filter(|s| !s.held && (was_promoted || !asked))
            && let Err(log) = self.record(&[Entry::Stop {
                relation: id,
                stopped,
            }])
        {
            tracing::error!(relation = %id, error = %log, "that a job stopped could not be logged");
        }
        tracing::error!(job = %creating.relation.name, %error, "job not resumed");
        if let Some(stopped) = stopped_at.filter(|_| creating.relation.kind == RelationKind::Sink) {
            self.workers.end_sinks(&[(id, stopped)]);
        }
        self.stop_jobs(&[id], true);
        self.answer(creating.request, Err(error.clone()));
        self.show_catalog();
    }

    /// Tries what was held back and may be tried, those first that others read.
    pub(super) fn try_held(&mut self) -> Result<()> {
        let now = machine::now();
        let due: Vec<RelationId> = self
            .halted
            .iter()
            .filter(|(_, h)| h.retry.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(relation) = self.decisions.catalog.relations.get(&id) else {
                continue;
            };
            if !self.waits_for_others(relation) {
                self.resume(id, None)?;
            }
        }
        Ok(())
    }

    /// Whether what the relation reads is tried first, or about to run.
    fn waits_for_others(&self, relation: &Relation) -> bool {
        relation.depends_on.iter().any(|d| {
            self.halted.get(d).is_some_and(|h| h.retry.is_some()) || self.creating.contains_key(d)
        })
    }

    /// When a job that is held back is tried again. One that waits for others is when they are
    /// done.
    pub(super) fn retry_deadline(&self) -> Option<Instant> {
        let relations = &self.decisions.catalog.relations;
        let waits = |id| {
            let relation: Option<&Arc<Relation>> = relations.get(id);
            relation.is_some_and(|r| self.waits_for_others(r))
        };
        let halted = self.halted.iter().filter(|(id, _)| !waits(*id));
        halted.filter_map(|(_, h)| h.retry).min()
    }

    /// Whether the job is not a part of a checkpoint of `epoch`.
    pub(super) fn is_out(&self, id: RelationId, epoch: Epoch) -> bool {
        self.halted.contains_key(&id)
            && !self
                .creating
                .get(&id)
                .is_some_and(|c| matches!(c.phase, Phase::Promoted { epoch: e } if e <= epoch))
    }

    /// What a manifest of `epoch` says of the jobs that are not in it, and the new files that it
    /// names for that.
    pub(super) fn halted_at(
        &self,
        epoch: Epoch,
    ) -> Result<(BTreeMap<RelationId, Halted>, Vec<(KeptFile, Bytes)>)> {
        let (mut halted, mut files) = (BTreeMap::new(), Vec::new());
        for (id, halt) in self
            .halted
            .iter()
            .filter(|(id, _)| self.is_out(**id, epoch))
        {
            let mut saved = halt.saved.clone();
            let rows = halt.rows.iter().filter(|(e, _)| *e <= epoch);
            let rows: Vec<&TableWrites> = rows.map(|(_, rows)| rows).collect();
            if !rows.is_empty() {
                let bytes = Bytes::from(encode_kept(&rows)?);
                let file = KeptFile::new(*id, epoch, self.decisions.generation, &bytes);
                saved.kept.push(file.clone());
                files.push((file, bytes));
            }
            halted.insert(*id, saved);
        }
        Ok((halted, files))
    }

    /// A manifest is committed. A job that it has as running was halted while it was being stored:
    /// its state is that of this checkpoint, and what it needs beside that begins there.
    pub(super) fn halted_saved(&mut self, manifest: &Manifest) {
        let contained = |id: &RelationId| manifest.catalog.relations.contains_key(id);
        let ids: Vec<RelationId> = self.halted.keys().copied().filter(contained).collect();
        for id in ids {
            let positions = match self.decisions.catalog.relations.get(&id).cloned() {
                Some(relation) => self.sources_at_checkpoint(&relation),
                None => Positions::new(),
            };
            let Some(halt) = self.halted.get_mut(&id) else {
                continue;
            };
            halt.rows.retain(|(e, _)| *e > manifest.epoch);
            if let Some(saved) = manifest.halted.get(&id) {
                halt.saved.kept.clone_from(&saved.kept);
            } else if manifest.job_epochs.get(&id) == Some(&manifest.epoch) {
                halt.saved.kept.clear();
                halt.saved.positions = positions;
            }
        }
    }
}

/// Whose rows these are, where others have taken their places.
fn former(told: &BTreeMap<RelationId, Answer>) -> BTreeMap<RelationId, Formerly> {
    let former = |(input, answer): (&RelationId, &Answer)| Some((*input, answer.formerly.clone()?));
    told.iter().filter_map(former).collect()
}

/// How a resume began.
enum Begun {
    /// The workers have not seen the end of it yet.
    Waits,
    /// It is built.
    Resuming,
    /// There is no job to build; what is to be logged.
    Done(Vec<Entry>),
}

/// The rows that a cut has for a table, with its epoch.
pub(super) fn rows_of(
    cut: &Cut,
    table: RelationId,
) -> impl Iterator<Item = (Epoch, TableWrites)> + '_ {
    let rows = cut.writes.iter().filter(move |w| w.table == table);
    rows.map(|w| (cut.epoch, w.clone()))
}

/// The reason as people read it: the job's own, or that of what it reads.
pub(super) fn reason_of(own: bool, name: &str, what: &str, error: &Error) -> String {
    let mut reason = if own {
        error.message().to_string()
    } else {
        format!("\"{name}\", which it reads, {what}: {}", error.message())
    };
    if let Some(hint) = error.hint() {
        reason = format!("{reason} ({hint})");
    }
    reason
}

/// The error of a write that was resolved against one that was refused.
fn void() -> Error {
    Error::user(
        SqlState("40001"),
        "could not serialize access: an earlier write, whose rows this one saw, was refused",
    )
    .with_hint("Run the transaction again.")
}
/// `0A000` for what cannot be computed again, because it depends on when its rows came.
fn refuse_anew(relation: &Relation) -> Result<()> {
    if !relation
        .job
        .as_ref()
        .is_some_and(|job| job.depends_on_arrival())
    {
        return Ok(());
    }
    let (kind, name) = (relation.kind.name(), &relation.name);
    let error = Error::user(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("{kind} \"{name}\" cannot be resumed"),
    );
    Err(error
        .with_detail(
            "A temporal join and a changelog are made when their rows come, and cannot be made \
             again.",
        )
        .with_hint("Drop it and create it again: it begins with what is there then."))
}
