//! Starting and ending jobs on a worker: building actors and restoring their state, connecting
//! leaves to what they tap, catching up, joining, and taking a job out.

use super::fragment;
use super::{
    CatchUp, Input, InputKind, Job, Source, TapState, TapTarget, Worker, build_actors,
    constant_rows,
};
use crate::sinks::SinkQueue;
use std::collections::BTreeSet;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, ErrorKind, RelationId, Result, TableId, vnodes_of};
use tidemark_control::protocol::{Event, Positions, StartJob, StartMode};
use tidemark_plan::{Op, RelationKind};

impl Worker {
    pub(super) fn build(&mut self, start: &StartJob) -> Result<()> {
        let relation = &start.relation;
        let id = relation.id;
        let plan = relation
            .job
            .as_ref()
            .ok_or_else(|| Error::internal(format!("\"{}\" has no job", relation.name)))?;
        let figures = self.shared.figures(id);
        *figures.name.lock() = (
            format!("{}.{}", relation.schema_name, relation.name),
            relation.kind.name(),
        );
        let sink = if relation.kind == RelationKind::Sink {
            Some(SinkQueue::of(&self.shared, relation, start.sink.as_ref())?.output(self.id))
        } else {
            None
        };
        let mut actors = build_actors(relation, plan, &self.shared, self.id, sink)?;
        self.restore(start, &mut actors.fragments)?;
        let fresh = !matches!(start.mode, StartMode::Restored(_));
        let mut inputs = Vec::new();
        for leaf in actors.leaves {
            let kind = match leaf.op {
                Op::SourceRead { .. } => {
                    let mut source = Source::open(
                        &self.shared,
                        self.id,
                        relation,
                        &start.positions,
                        self.waker.clone(),
                    )?;
                    source.set_starts(&start.starts);
                    source.set_logged(start.logged.clone());
                    if !fresh {
                        // Nothing is read before the first barrier of the replay says how far, or
                        // `Resume` that there is none.
                        source.limit(&start.positions)?;
                    }
                    InputKind::Source(Box::new(source))
                }
                Op::TableRead => InputKind::Table,
                Op::Values { rows } => InputKind::Values(
                    if fresh && vnodes_of(self.id, self.shared.inbox_rows.len()).start == 0 {
                        constant_rows(&rows, &leaf.schema)?
                    } else {
                        None
                    },
                ),
                Op::Tap {
                    relation: upstream,
                    columns,
                } => {
                    let state = match start.backfill.get(&upstream) {
                        Some(positions) => TapState::CatchUp(Box::new(
                            self.catch_up(upstream, positions, &columns)?,
                        )),
                        None => TapState::Live,
                    };
                    InputKind::Tap {
                        upstream,
                        columns,
                        schema: leaf.schema,
                        state,
                    }
                }
                other => return Err(Error::internal(format!("{other:?} is no leaf"))),
            };
            inputs.push(Input {
                fragment: leaf.fragment,
                leaf: leaf.leaf,
                kind,
            });
        }
        if let Some(view) = &actors.view {
            let mut views = self.shared.views.write();
            let partitions = views
                .entry(id)
                .or_insert_with(|| vec![None; self.shared.inbox_rows.len()]);
            partitions[self.id] = Some(view.clone());
        }
        let joined = match start.mode {
            StartMode::Restored(epoch) | StartMode::After(epoch) => Some(epoch),
            StartMode::Creating => None,
        };
        let mut fragments = actors.fragments;
        fragments.iter_mut().for_each(|f| f.closed = joined);
        let job = Job {
            relation: relation.clone(),
            fragments,
            routes: actors.routes,
            inputs,
            taps: Vec::new(),
            view: actors.view,
            counts_from: joined,
            joined,
            last_passed: joined.unwrap_or_default(),
            told_ready: false,
            figures,
        };
        self.jobs.insert(id, job);
        if let Some(epoch) = joined {
            self.sink_counts_from(id, epoch);
        }
        Ok(())
    }

    pub(super) fn sink_counts_from(&self, id: RelationId, epoch: Epoch) {
        if let Some(queue) = self.shared.sinks.lock().get(&id) {
            queue.count_from(epoch);
        }
    }

    /// Connects a job that was built with the others on this worker.
    pub(super) fn started(&mut self, id: RelationId, mode: StartMode) {
        if let StartMode::Restored(epoch) = mode {
            for upstream in self.upstreams(id) {
                self.connect(id, upstream, epoch);
            }
        }
        // Jobs that joined before this source began.
        let waiting: Vec<RelationId> = self
            .jobs
            .iter()
            .filter(|(other, j)| **other != id && j.joined.is_some())
            .map(|(other, _)| *other)
            .collect();
        for other in waiting {
            if self.upstreams(other).contains(&id)
                && !self.jobs[&id].taps.iter().any(|t| t.job == other)
                && let Some(after) = self.jobs[&id].joined
            {
                self.connect(other, id, after);
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.prune_source();
        }
        for delivery in self.early.remove(&id).unwrap_or_default() {
            self.router.local.push_back(delivery);
        }
    }

    pub(super) fn upstreams(&self, id: RelationId) -> Vec<RelationId> {
        let inputs = self
            .jobs
            .get(&id)
            .map(|j| j.inputs.as_slice())
            .unwrap_or_default();
        let found: BTreeSet<RelationId> = inputs
            .iter()
            .filter_map(|i| {
                if let InputKind::Tap { upstream, .. } = &i.kind {
                    Some(*upstream)
                } else {
                    None
                }
            })
            .collect();
        found.into_iter().collect()
    }

    /// Makes every tap of `id` on `upstream` receive what comes after the barrier of `after`.
    pub(super) fn connect(&mut self, id: RelationId, upstream: RelationId, after: Epoch) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let mut targets = Vec::new();
        for (input, i) in job.inputs.iter().enumerate() {
            if let InputKind::Tap {
                upstream: u,
                columns,
                schema,
                ..
            } = &i.kind
                && *u == upstream
            {
                targets.push(TapTarget {
                    job: id,
                    fragment: i.fragment,
                    leaf: i.leaf,
                    input,
                    columns: columns.clone(),
                    schema: schema.clone(),
                    after,
                });
            }
        }
        if let Some(up) = self.jobs.get_mut(&upstream) {
            up.taps.extend(targets);
            up.prune_source();
        }
    }

    pub(super) fn restore(
        &self,
        start: &StartJob,
        fragments: &mut [fragment::Fragment],
    ) -> Result<()> {
        let vnodes = vnodes_of(self.id, self.shared.inbox_rows.len());
        for table in fragments
            .iter_mut()
            .flat_map(|f| &mut f.slots)
            .flat_map(|s| s.operator.tables())
        {
            let spec = table.spec();
            let Some(files) = start.tables.get(&spec.table) else {
                continue;
            };
            self.shared.specs.lock().insert(
                TableId {
                    relation: start.relation.id,
                    table: spec.table,
                },
                spec.clone(),
            );
            // A store that is away is waited for: no job stops for it, and no start fails.
            let store = self.shared.store.patient();
            let read = store.read_table(files, &spec, vnodes.clone(), |rows| {
                table.restore(&rows);
                Ok(())
            });
            if let Err(error) = self.shared.tokio.block_on(read) {
                if error.kind() == ErrorKind::Unavailable {
                    self.tell(Event::NotRestored {
                        error: error.clone(),
                    });
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// A reader of its own for the past of an append-only source that others read already. It reads
    /// the leaf's columns only: no other one can fail the job.
    pub(super) fn catch_up(
        &self,
        upstream: RelationId,
        positions: &[SplitPosition],
        columns: &[usize],
    ) -> Result<CatchUp> {
        let shared = self
            .jobs
            .get(&upstream)
            .ok_or_else(|| Error::internal("a source that is read has no job"))?;
        let plan = shared
            .relation
            .job
            .as_ref()
            .ok_or_else(|| Error::internal("a source without a job"))?;
        let actors = build_actors(&shared.relation, plan, &self.shared, self.id, None)?;
        let fragment = actors
            .fragments
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("a source without an actor"))?;
        let ready_at = shared
            .inputs
            .iter()
            .find_map(|i| {
                if let InputKind::Source(s) = &i.kind {
                    Some(s.positions())
                } else {
                    None
                }
            })
            .unwrap_or_default();
        let mut source = Source::open(
            &self.shared,
            self.id,
            &shared.relation,
            positions,
            self.waker.clone(),
        )?;
        source.set_uncounted();
        source.prune(columns);
        // It must not overtake the shared reader, from whose position at the join the live rows go
        // on.
        source.limit(&ready_at)?;
        Ok(CatchUp {
            source,
            fragment,
            ready_at,
            end: None,
        })
    }

    /// Leaves that would have been live from the job's join on read the past of sources that others
    /// began to read meanwhile.
    pub(super) fn begin_catch_up(&mut self, id: RelationId, backfill: &Positions) -> Result<()> {
        for (upstream, positions) in backfill {
            let taps = self
                .jobs
                .get(&id)
                .map(|j| j.inputs.as_slice())
                .unwrap_or_default()
                .iter()
                .enumerate();
            let behind: Vec<(usize, Vec<usize>)> = taps
                .filter_map(|(index, i)| match &i.kind {
                    InputKind::Tap {
                        upstream: u,
                        columns,
                        state: TapState::Live,
                        ..
                    } if u == upstream => Some((index, columns.clone())),
                    _ => None,
                })
                .collect();
            for (index, columns) in behind {
                let catch_up = Box::new(self.catch_up(*upstream, positions, &columns)?);
                let Some(job) = self.jobs.get_mut(&id) else {
                    return Ok(());
                };
                job.told_ready = false;
                if let InputKind::Tap { state, .. } = &mut job.inputs[index].kind {
                    *state = TapState::CatchUp(catch_up);
                }
            }
        }
        // A worker without such a leaf is asked, too.
        if let Some(job) = self.jobs.get_mut(&id) {
            job.told_ready = false;
        }
        Ok(())
    }

    pub(super) fn join(&mut self, id: RelationId, epoch: Epoch) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.joined = Some(epoch);
        for input in &job.inputs {
            // Live messages wait until the leaf has caught up to the barrier of the join.
            if matches!(input.kind, InputKind::Tap { .. }) {
                job.fragments[input.fragment].leaves[input.leaf].channels[0].held = true;
            }
        }
        for upstream in self.upstreams(id) {
            self.connect(id, upstream, epoch);
        }
    }

    pub(super) fn remove(&mut self, id: RelationId) {
        self.ended.insert(id);
        self.jobs.remove(&id);
        self.early.remove(&id);
        self.sealing.forget(id);
        let mut pruned = Vec::new();
        for (upstream, job) in &mut self.jobs {
            let before = job.taps.len();
            job.taps.retain(|t| t.job != id);
            if job.taps.len() != before {
                pruned.push(*upstream);
            }
        }
        for upstream in pruned {
            if let Some(job) = self.jobs.get_mut(&upstream) {
                job.prune_source();
            }
        }
        let epochs: Vec<Epoch> = self.outstanding.keys().copied().collect();
        for epoch in epochs {
            self.passed(id, epoch);
        }
        let cutting: Vec<Epoch> = self.cutting.keys().copied().collect();
        for epoch in cutting {
            self.source_cut(id, epoch);
        }
    }

    pub(super) fn fail(&mut self, id: RelationId, error: Error) {
        self.tell(Event::Failed {
            relation: id,
            error,
        });
        self.remove(id);
    }
}
