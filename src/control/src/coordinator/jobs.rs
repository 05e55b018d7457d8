//! Creating, dropping and stopping jobs.
//!
//! A creation walks through phases while everything else goes on: its actors are built (*catching
//! up*: each leaf reads what its input already holds), its leaves *join* the live input at one
//! barrier, it works off what it missed, and when it has reached what its inputs held at the
//! statement's beginning it is *promoted*: logged, and from the next barrier on epochs wait for it
//! and checkpoints contain it. The first committed checkpoint with it makes it visible and ends the
//! statement.

use super::epochs::Progress;
use super::halted::reason_of;
use super::{Coordinator, PendingWrite};
use crate::inputs::RequestId;
use crate::protocol::{Command, Positions, StartJob, StartMode};
use crate::{CatalogChange, Entry, TableWrites};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, WorkerId, failpoint, machine};
use tidemark_plan::{Op, Relation, RelationKind, Stopped};

/// A job that is being created.
pub(super) struct Creating {
    pub relation: Relation,
    pub start: Vec<SplitPosition>,
    pub reading: Reading,
    /// The relation whose place it takes.
    pub replaces: Option<RelationId>,
    /// It does so with others, when all are there.
    pub beside: bool,
    /// Rows that are written to it by the barrier from which on it counts.
    pub rows: Vec<TableWrites>,
    /// Who asked for it.
    pub request: Option<RequestId>,
    /// The sources on demand whose past it reads by readers of its own.
    pub backfill: BTreeSet<RelationId>,
    pub phase: Phase,
    /// It has run before, and is resumed.
    pub resumes: Option<Resumes>,
}

impl Creating {
    /// Whether it has joined at the barrier of this epoch.
    pub(super) fn joined_at(&self, epoch: Epoch) -> bool {
        matches!(&self.phase, Phase::Joined { epoch: joined, .. } if *joined == epoch)
    }
}

/// What a job that is being created reads of its sources.
pub(super) struct Reading {
    /// What they held when its statement began.
    pub targets: Positions,
    /// Where it begins in those that have lost records from their start on.
    pub begins: Positions,
}

impl From<Positions> for Reading {
    /// From there on, without an end to wait for.
    fn from(begins: Positions) -> Reading {
        Reading {
            targets: Positions::new(),
            begins,
        }
    }
}

/// How a job that has run before begins again.
pub(super) struct Resumes {
    /// It begins without its old state, whose files are not named any more once a checkpoint has
    /// the new one. Otherwise it goes on in its sources where [`Reading::begins`] says.
    pub rebuilt: bool,
}

/// What a creation is given beside its relation.
pub(super) struct Creation {
    /// Where its own connector begins.
    pub start: Vec<SplitPosition>,
    /// What it reads.
    pub reading: Reading,
    /// See [`Creating`].
    pub replaces: Option<RelationId>,
    /// See [`Creating`].
    pub rows: Vec<TableWrites>,
}

pub(super) enum Phase {
    /// Each worker tells when its leaves may join.
    CatchingUp { ready: Vec<bool> },
    /// Joined at the barrier of `epoch`, which stays a mark until all jobs have completed it. Each
    /// worker pins it when its input passes that barrier, so before the input can have completed
    /// the epoch, and nothing merges past what all jobs have completed.
    Joined {
        epoch: Epoch,
        done: Vec<Epoch>,
        reached: Option<Epoch>,
    },
    /// Reached its targets: promoted at the next barrier.
    CaughtUp,
    /// Counts from `epoch` on; visible when a checkpoint has it.
    Promoted { epoch: Epoch },
}

/// Whether the relation is an append-only source: it runs while somebody reads it, and begins anew
/// with its next first reader.
pub(super) fn runs_on_demand(relation: &Relation) -> bool {
    relation.kind == tidemark_plan::RelationKind::Source && !relation.is_materialized()
}

/// Whether the job reads a connector of its own.
fn reads_connector(relation: &Relation) -> bool {
    relation
        .job
        .iter()
        .flat_map(|j| &j.fragments)
        .flat_map(tidemark_plan::Fragment::nodes)
        .any(|n| matches!(n.op, Op::SourceRead { .. }))
}

impl Creating {
    /// It counts from the barrier of `epoch` on: what the log has of that.
    fn promoted_at(&mut self, epoch: Epoch) -> Entry {
        self.relation.created_at = Some(epoch);
        self.phase = Phase::Promoted { epoch };
        let (relation, start) = (Box::new(self.relation.clone()), self.start.clone());
        let (begins, new) = (self.reading.begins.clone(), relation.id);
        let create = CatalogChange::Create {
            relation,
            start,
            begins,
        };
        let replace = self.replaces.map(|old| match self.beside {
            true => CatalogChange::Beside { old, new },
            false => CatalogChange::Replace { old, new },
        });
        Entry::Changes([create].into_iter().chain(replace).collect())
    }
}

impl Coordinator {
    pub(super) fn create(
        &mut self,
        mut relation: Relation,
        creation: Creation,
        request: RequestId,
    ) -> Result<()> {
        let Creation {
            start,
            reading,
            replaces,
            rows,
        } = creation;
        relation.created_at = None;
        if relation.job.is_none() || runs_on_demand(&relation) {
            let new = relation.id;
            let relation = Box::new(relation);
            let replace = replaces.map(|old| CatalogChange::Replace { old, new });
            let create = CatalogChange::Create {
                relation,
                start,
                begins: Positions::new(),
            };
            let changes = [create].into_iter().chain(replace).collect();
            return self.on_changes(changes, false, request);
        }
        if let Err(error) = self.check_create(&relation, replaces, &BTreeSet::new()) {
            self.answer(Some(request), Err(error));
            return Ok(());
        }
        let creation = Creation {
            start,
            reading,
            replaces,
            rows,
        };
        self.begin_creating(relation, creation, Some(request));
        Ok(())
    }

    /// Has the relation made. If nobody asked for it alone, it is made beside the one whose place
    /// it takes.
    pub(super) fn begin_creating(
        &mut self,
        relation: Relation,
        creation: Creation,
        request: Option<RequestId>,
    ) {
        let Creation {
            start,
            reading,
            replaces,
            rows,
        } = creation;
        let backfill = self.backfill(&relation, &reading.begins, &BTreeSet::new());
        let catches_up = backfill.keys().copied().collect();
        let job = StartJob {
            positions: start.clone(),
            backfill,
            ..StartJob::of(Arc::new(relation.clone()))
        };
        self.start(job, "creating");
        let phase = Phase::CatchingUp {
            ready: vec![false; self.workers.count()],
        };
        self.creating.insert(
            relation.id,
            Creating {
                relation,
                start,
                reading,
                replaces,
                beside: request.is_none(),
                rows,
                request,
                backfill: catches_up,
                phase,
                resumes: None,
            },
        );
    }

    /// Has the job's actors built.
    pub(super) fn start(&self, job: StartJob, state: &'static str) {
        self.workers
            .job_progress(job.relation.id, state, 0.0, Epoch(0));
        self.workers.broadcast(Command::Start(Arc::new(job)));
    }

    /// Whether nobody has seen the relation yet.
    pub(super) fn is_new(&self, id: RelationId) -> bool {
        let is_created = || self.creating.get(&id).is_some_and(|c| c.resumes.is_none());
        self.decisions.catalog.beside.contains_key(&id) || is_created()
    }

    /// Where reading the past begins of the sources on demand that `relation` taps, that others
    /// read already, and that are not among `known`.
    pub(super) fn backfill(
        &self,
        relation: &Relation,
        begins: &Positions,
        known: &BTreeSet<RelationId>,
    ) -> Positions {
        let behind = self
            .sources_on_demand(relation)
            .into_iter()
            .filter(|id| self.running.contains(id) && !known.contains(id));
        behind
            .map(|id| (id, self.begin_of(id, std::iter::once(begins))))
            .collect()
    }

    /// Where a reading of a source begins for jobs with these beginnings: at its start, or later in
    /// splits whose first records are gone.
    fn begin_of<'a>(
        &self,
        source: RelationId,
        begins: impl Iterator<Item = &'a Positions> + Clone,
    ) -> Vec<SplitPosition> {
        let starts = self.decisions.starts.get(&source).into_iter().flatten();
        let later = |start: &SplitPosition| {
            let moved = begins.clone().filter_map(|b| b.get(&source)).flatten();
            moved
                .filter(|b| b.split == start.split)
                .chain([start])
                .max_by_key(|b| b.next_offset)
                .cloned()
        };
        starts.filter_map(later).collect()
    }

    fn is_on_demand(&self, id: RelationId) -> bool {
        let relation = self.decisions.catalog.relations.get(&id);
        relation.is_some_and(|relation| runs_on_demand(relation))
    }

    pub(super) fn sources_on_demand(&self, relation: &Relation) -> BTreeSet<RelationId> {
        let taps = relation.job.as_ref().map(|j| j.taps()).unwrap_or_default();
        taps.into_iter()
            .map(|(id, _)| id)
            .filter(|id| self.is_on_demand(*id))
            .collect()
    }

    pub(super) fn on_ready(&mut self, worker: WorkerId, relation: RelationId) {
        if let Some(Creating {
            phase: Phase::CatchingUp { ready },
            ..
        }) = self.creating.get_mut(&relation)
        {
            ready[worker] = true;
            if ready.iter().all(|r| *r) {
                self.active = true;
                self.urgent = true;
            }
        }
    }

    pub(super) fn on_job_done(&mut self, worker: WorkerId, relation: RelationId, epoch: Epoch) {
        if let Some(Creating {
            phase: Phase::Joined { done, .. },
            ..
        }) = self.creating.get_mut(&relation)
        {
            done[worker] = epoch;
        }
    }

    /// Called before a barrier is sent: jobs that are ready join at it, jobs that have caught up
    /// count from it on.
    pub(super) fn join_and_promote(&mut self) -> Result<()> {
        self.catch_up_with_started_sources();
        let next = self.next_epoch;
        let joining = self.joining();
        let mut entries = Vec::new();
        let (mut promoted, mut failed, mut first_rows) = (Vec::new(), Vec::new(), Vec::new());
        for (id, creating) in &mut self.creating {
            match &creating.phase {
                Phase::CatchingUp { ready } if joining.contains(id) => {
                    self.workers.broadcast(Command::Join {
                        relation: *id,
                        epoch: next,
                    });
                    creating.phase = Phase::Joined {
                        epoch: next,
                        done: vec![Epoch(0); ready.len()],
                        reached: None,
                    };
                }
                Phase::CaughtUp if creating.resumes.is_some() => {
                    entries.push(Entry::Resume { relation: *id });
                    promoted.push(*id);
                    creating.phase = Phase::Promoted { epoch: next };
                }
                Phase::CaughtUp => match failpoint::check("ddl.promote") {
                    Ok(()) => {
                        entries.push(creating.promoted_at(next));
                        promoted.push(*id);
                        first_rows.append(&mut creating.rows);
                    }
                    Err(error) => failed.push((*id, error)),
                },
                _ => {}
            }
        }
        for (id, error) in failed {
            self.cancel(id, &error);
        }
        if !first_rows.is_empty() {
            // By this very barrier: whoever sees the table sees them.
            let first = PendingWrite {
                writes: first_rows,
                ..PendingWrite::default()
            };
            self.pending_writes.insert(0, first);
        }
        if !entries.is_empty() {
            self.record(&entries)?;
            self.retained.wanted = true;
            for id in promoted {
                self.begins_after(id, Epoch(next.0 - 1));
                self.workers.broadcast(Command::Promote {
                    relation: id,
                    epoch: next,
                });
            }
        }
        Ok(())
    }

    /// The job runs, and counts after `epoch`.
    fn begins_after(&mut self, id: RelationId, epoch: Epoch) {
        let relation = self.decisions.catalog.relations.get(&id);
        let progress = Progress::after(epoch, self.workers.count(), relation);
        self.running.push(id);
        self.progress.insert(id, progress);
        self.moved = true;
    }

    /// The jobs that join at the next barrier. The first reader of a source decides where it
    /// begins: one that goes on with it from elsewhere than its start is its only first reader.
    fn joining(&self) -> BTreeSet<RelationId> {
        let mut joining = BTreeSet::new();
        let (mut begun, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
        for (id, creating) in &self.creating {
            if !matches!(&creating.phase, Phase::CatchingUp { ready } if ready.iter().all(|r| *r)) {
                continue;
            }
            let mut first = self.sources_on_demand(&creating.relation);
            first.retain(|source| !self.running.contains(source));
            let goes_on = creating.resumes.as_ref().is_some_and(|r| !r.rebuilt);
            let taken = if goes_on { &begun } else { &elsewhere };
            if !first.is_disjoint(taken) {
                continue;
            }
            if goes_on {
                elsewhere.extend(first.iter().copied());
            }
            begun.extend(first);
            joining.insert(*id);
        }
        joining
    }

    /// A source that nobody read when a job's actors were built may run by now, started by another
    /// creation: before the job joins, it reads that source's past as if it had come later.
    fn catch_up_with_started_sources(&mut self) {
        let is_ready = |c: &Creating| {
            matches!(&c.phase, Phase::CatchingUp { ready }
                if ready.iter().all(|r| *r))
        };
        let behind: Vec<(RelationId, Positions)> = self
            .creating
            .iter()
            .filter(|(_, c)| is_ready(c))
            .map(|(id, c)| {
                let backfill = self.backfill(&c.relation, &c.reading.begins, &c.backfill);
                (*id, backfill)
            })
            .filter(|(_, b)| !b.is_empty())
            .collect();
        for (id, backfill) in behind {
            let resumed = self.creating.get(&id).filter(|c| c.resumes.is_some());
            let known = resumed.map_or_else(Positions::new, |c| c.reading.begins.clone());
            if let Err(error) = self.check_not_behind(&known) {
                self.cancel(id, &error);
                continue;
            }
            if let Some(creating) = self.creating.get_mut(&id) {
                creating.backfill.extend(backfill.keys().copied());
                creating.phase = Phase::CatchingUp {
                    ready: vec![false; self.workers.count()],
                };
            }
            self.workers.broadcast(Command::CatchUp {
                relation: id,
                backfill: Arc::new(backfill),
            });
        }
    }

    /// Called after the barrier of `epoch` was sent: sources that got their first reader at it
    /// begin now.
    pub(super) fn after_barrier(&mut self, epoch: Epoch) {
        let joined: Vec<(Relation, Positions)> = self
            .creating
            .values()
            .filter(|c| c.joined_at(epoch))
            .map(|c| (c.relation.clone(), c.reading.begins.clone()))
            .collect();
        for (relation, _) in &joined {
            for id in self.sources_on_demand(relation) {
                if !self.running.contains(&id) {
                    self.begins_after(id, epoch);
                    // Its rows go nowhere but to its taps: nothing of an earlier run is on its way.
                    self.ending.remove(&id);
                    let source = self.decisions.catalog.relations[&id].clone();
                    let positions = self.begin_of(id, joined.iter().map(|(_, begins)| begins));
                    let job = StartJob {
                        mode: StartMode::After(epoch),
                        positions,
                        starts: self.decisions.starts.get(&id).cloned().unwrap_or_default(),
                        floors: self.decisions.floors_of(id),
                        ..StartJob::of(source)
                    };
                    self.workers.broadcast(Command::Start(Arc::new(job)));
                }
            }
            // The next barrier tells whether the targets are reached.
            self.active = true;
        }
    }

    /// Looks which jobs have reached what their inputs held when their statement began.
    pub(super) fn advance_creating(&mut self) {
        let decided = self.decisions.decided;
        for (id, creating) in &mut self.creating {
            let Phase::Joined {
                epoch,
                done,
                reached,
                ..
            } = &mut creating.phase
            else {
                continue;
            };
            let epoch = *epoch;
            if decided < epoch {
                continue;
            }
            let (mut read, mut wanted) = (0, 0);
            for (source, targets) in &creating.reading.targets {
                let positions = self.decisions.positions.get(source);
                for target in targets {
                    let position = positions
                        .and_then(|p| p.iter().find(|p| p.split == target.split))
                        .map_or(0, |p| p.next_offset);
                    read += position.clamp(0, target.next_offset.max(0));
                    wanted += target.next_offset.max(0);
                }
            }
            if reached.is_none() && read >= wanted {
                *reached = Some(decided);
            }
            let percent = if wanted == 0 {
                100.0
            } else {
                100.0 * read as f64 / wanted as f64
            };
            let slowest = done.iter().min().copied().unwrap_or_default();
            let state = if creating.resumes.is_some() {
                "resuming"
            } else {
                "creating"
            };
            self.workers
                .job_progress(*id, state, percent.min(99.9), slowest);
            if reached.is_some_and(|r| slowest >= r.max(epoch)) {
                creating.phase = Phase::CaughtUp;
                self.urgent = true;
            }
            // Barriers go on until it has caught up.
            self.active = true;
        }
    }

    /// A checkpoint of `epoch` is committed: what it contains is visible now.
    pub(super) fn finish_created(&mut self, epoch: Epoch) {
        let finished: Vec<RelationId> = self
            .creating
            .iter()
            .filter(|(_, c)| matches!(&c.phase, Phase::Promoted { epoch: e } if *e <= epoch))
            .map(|(id, _)| *id)
            .collect();
        let mut requests = Vec::new();
        for id in &finished {
            if let Some(creating) = self.creating.remove(id) {
                self.halted.remove(id);
                let state = if creating.beside {
                    "creating"
                } else {
                    "running"
                };
                self.workers.job_progress(*id, state, 100.0, epoch);
                requests.extend(creating.request);
            }
        }
        if !finished.is_empty() {
            self.workers.release_sinks(&finished);
            self.show_catalog();
            failpoint::hit("ddl.visible");
        }
        requests.into_iter().for_each(|r| self.done(Some(r)));
    }

    /// Splits that appeared since the source was made are logged and read from the next epoch on.
    pub(super) fn add_splits(
        &mut self,
        relation: RelationId,
        start: Vec<SplitPosition>,
    ) -> Result<()> {
        let Some(known) = self
            .decisions
            .starts
            .get(&relation)
            .filter(|_| !self.creating.contains_key(&relation))
        else {
            return Ok(());
        };
        let (time_ms, event_time_micros) = (
            self.decisions.horizon(relation),
            self.decisions.event_time(relation),
        );
        let new: Vec<SplitPosition> = start
            .into_iter()
            .filter(|s| !known.iter().any(|k| k.split == s.split))
            .map(|s| SplitPosition {
                time_ms,
                event_time_micros,
                ..s
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let splits: Vec<_> = new.iter().map(|s| s.split).collect();
        tracing::info!(source = %relation, ?splits, "new splits");
        self.record(&[Entry::AddSplits {
            relation,
            start: new.clone(),
        }])?;
        self.show_catalog();
        if self.running.contains(&relation) {
            self.workers.broadcast(Command::AddSplits {
                relation,
                start: Arc::new(new),
            });
            self.active = true;
        }
        Ok(())
    }

    /// Records of a source may be taken away from now on. The epoch that is open has rows that
    /// nothing keeps: the log keeps those of the epochs after it, and a checkpoint that contains it
    /// is asked for.
    pub(super) fn log_rows(&mut self, relation: RelationId) -> Result<()> {
        let Some(source) = self.decisions.catalog.relations.get(&relation) else {
            return Ok(());
        };
        if source.logs_rows.is_some() || self.creating.contains_key(&relation) {
            return Ok(());
        }
        tracing::warn!(source = %source.name, "its topic is compacted now: the log keeps its rows");
        self.record(&[Entry::LogRows {
            relation,
            after: self.next_epoch,
        }])?;
        self.workers.broadcast(Command::LogRows { relation });
        self.show_catalog();
        self.retained.wanted = true;
        self.active = true;
        self.urgent = true;
        Ok(())
    }

    pub(super) fn cancel(&mut self, relation: RelationId, error: &Error) {
        if let Some(first) = self.succession_of(relation) {
            return self.abandon(first, error);
        }
        let Some(creating) = self.creating.remove(&relation) else {
            return;
        };
        if creating.resumes.is_some() {
            return self.resume_failed(creating, error);
        }
        if matches!(creating.phase, Phase::Promoted { .. })
            && let Err(log) = self.record(&[Entry::Drop {
                relations: vec![relation],
            }])
        {
            tracing::error!(%relation, error = %log, "an undone creation could not be logged");
        }
        self.stop_jobs(&[relation], false);
        self.retained.forget(relation);
        self.answer(creating.request, Err(error.clone()));
        self.show_catalog();
    }

    /// These are dropped, as logged.
    pub(super) fn drop_relations(&mut self, relations: &[RelationId]) -> Result<()> {
        let waiting: Vec<RelationId> = self
            .creating
            .iter()
            .filter(|(_, c)| c.relation.depends_on.iter().any(|d| relations.contains(d)))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.cancel(
                id,
                &Error::user(
                    SqlState::UNDEFINED_TABLE,
                    "a relation that the query reads was dropped meanwhile",
                ),
            );
        }
        for id in relations {
            self.halted.remove(id);
            if let Some(creating) = self.creating.remove(id) {
                let message = "the relation was dropped meanwhile";
                let error = Error::user(SqlState::UNDEFINED_TABLE, message);
                self.answer(creating.request, Err(error));
            }
        }
        self.stop_jobs(relations, false);
        relations.iter().for_each(|id| self.retained.forget(*id));
        self.show_catalog();
        Ok(())
    }

    /// Ends these jobs on all workers, and the sources on demand that nobody reads any more. With
    /// `keep_sinks`, sinks deliver what was complete, and stay.
    pub(super) fn stop_jobs(&mut self, relations: &[RelationId], keep_sinks: bool) {
        self.end_altering(relations);
        let mut gone: Vec<RelationId> = relations.to_vec();
        self.running.retain(|id| !relations.contains(id));
        let read: BTreeSet<RelationId> = self.readers_of_sources();
        let idle: Vec<RelationId> = self
            .running
            .iter()
            .copied()
            .filter(|id| self.is_on_demand(*id) && !read.contains(id))
            .collect();
        self.running.retain(|id| !idle.contains(id));
        gone.extend(idle);
        for id in &gone {
            self.decisions.positions.remove(id);
            self.progress.remove(id);
        }
        self.readers.forget(&gone);
        self.moved = true;
        if !keep_sinks {
            self.workers.close_sinks(&gone);
        }
        // Those that have been told already will answer for that.
        gone.retain(|id| !self.ending.contains_key(id));
        for id in &gone {
            let workers = vec![false; self.workers.count()];
            self.ending.insert(*id, workers);
        }
        self.workers.broadcast(Command::Stop {
            relations: gone,
            keep_sinks,
        });
        self.retained.changed = true;
    }

    /// The sources that running or creating jobs tap.
    fn readers_of_sources(&self) -> BTreeSet<RelationId> {
        let running = self
            .running
            .iter()
            .filter_map(|id| self.decisions.catalog.relations.get(id))
            .map(AsRef::as_ref);
        running
            .chain(self.creating.values().map(|c| &c.relation))
            .flat_map(|r| self.sources_on_demand(r))
            .collect()
    }

    /// Where a job that runs stops: at what was read and sent of it last. One that cannot be
    /// restored is as the checkpoint has it.
    pub(super) fn stops_at(&self, id: RelationId) -> Epoch {
        self.readers.readable(id).max(self.retained.epoch())
    }

    pub(super) fn is_sink(&self, id: RelationId) -> bool {
        let relation = self.decisions.catalog.relations.get(&id);
        relation.is_some_and(|r| r.kind == RelationKind::Sink)
    }

    /// A job failed on a worker: it stops alone, with those that read from it.
    pub(super) fn on_failed(&mut self, relation: RelationId, error: &Error) -> Result<()> {
        self.abandon_over(relation, error);
        if self.creating.contains_key(&relation) {
            self.cancel(relation, error);
            return Ok(());
        }
        if !self.running.contains(&relation) {
            return Ok(());
        }
        let name = self
            .decisions
            .catalog
            .relations
            .get(&relation)
            .map(|r| r.name.clone())
            .unwrap_or_default();
        tracing::error!(job = %name, error = %error, "job stopped");
        // Those that are being created wait for rows of the one that stopped, and would wait for
        // ever.
        let stopped = self.with_readers(relation);
        let (creating, stopping): (Vec<RelationId>, Vec<RelationId>) = stopped
            .iter()
            .partition(|id| self.creating.contains_key(id));
        let jobs: Vec<(RelationId, Stopped)> = stopping
            .into_iter()
            .filter(|id| self.running.contains(id))
            .map(|id| {
                let stopped = Stopped {
                    epoch: self.stops_at(id),
                    reason: reason_of(id == relation, &name, "stopped", error),
                    since: machine::micros(),
                    held: false,
                };
                (id, stopped)
            })
            .collect();
        let entries: Vec<Entry> = jobs
            .iter()
            .map(|(relation, stopped)| Entry::Stop {
                relation: *relation,
                stopped: stopped.clone(),
            })
            .collect();
        let ended: Vec<(RelationId, Epoch)> = jobs.iter().map(|(id, s)| (*id, s.epoch)).collect();
        let sinks = ended.iter().filter(|(id, _)| self.is_sink(*id));
        let sinks: Vec<_> = sinks.copied().collect();
        let positions = self.decisions.positions.clone();
        self.halt(jobs, &positions, None)?;
        self.record(&entries)?;
        self.show_catalog();
        // Whoever sees that it stopped sees why.
        for (id, epoch) in ended {
            self.workers.job_progress(id, "stopped", 100.0, epoch);
        }
        // Only now: whoever is told of the failure finds it in SHOW JOBS, and a source that nobody
        // reads any more is not forgotten as one that merely idles.
        for id in creating {
            self.cancel(
                id,
                &error
                    .clone()
                    .context(format!("\"{name}\", which it reads, stopped")),
            );
        }
        self.workers.end_sinks(&sinks);
        // What the sinks have not delivered is in a checkpoint soon.
        self.retained.wanted |= !sinks.is_empty();
        self.stop_jobs(&stopped, true);
        self.active = true;
        Ok(())
    }
}

/// The answer to who asks for more than the last complete answer of a job that does not run.
pub fn stopped_error(relation: &Relation, stopped: &Stopped) -> Error {
    let (name, kind) = (&relation.name, relation.kind.name().to_uppercase());
    let message = if stopped.held {
        format!("\"{name}\" is held back: {}", stopped.reason)
    } else {
        format!(
            "\"{name}\" stopped at epoch {}: {}",
            stopped.epoch, stopped.reason
        )
    };
    Error::user(SqlState::OBJECT_NOT_READY, message).with_hint(format!(
        "When the cause is gone, ALTER {kind} {name} RESUME lets it go on where it was."
    ))
}

/// Whether recovery must open the job's connector.
pub(super) fn needs_positions(relation: &Relation) -> bool {
    reads_connector(relation)
}
