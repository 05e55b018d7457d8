//! Starting and ending jobs on a worker: building actors and restoring their state, connecting
//! leaves to what they tap, catching up, joining, and taking a job out.

use super::Worker;
use crate::actor::Actor;
use crate::catch::catch;
use crate::edge::Edge;
use crate::exchange::{Message, Route};
use crate::fragment::Fragment;
use crate::job::{Input, InputKind, Job, TapState, TapTarget, build_actors, constant_rows};
use crate::source::Source;
use crate::table_feed::TableFeed;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_common::{
    Epoch, Error, ErrorKind, RelationId, Result, TableId, WorkerId, failpoint, machine,
};
use tidemark_control::entry::decode_kept;
use tidemark_control::protocol::{Event, StartJob, StartMode};
use tidemark_plan::{Op, RelationKind};
use tidemark_state::checkpoint::CheckpointStore;

impl Worker {
    /// Builds a job, or only what people read of it.
    pub(super) fn start(&mut self, start: &StartJob) {
        let id = start.relation.id;
        // A restore is noted whenever it is: it can take all memory there is.
        self.around.recovery.enter(self.id, id, Epoch(0));
        failpoint::hit("recovery.run");
        if let StartMode::Shown(_) = start.mode {
            // That its rows cannot be read now is nothing new: it does not run.
            if let Err(error) = catch(|| self.show(start)) {
                tracing::warn!(relation = %start.relation.name, %error, "the last complete answer \
                    cannot be read");
            }
            return self.around.recovery.leave(self.id);
        }
        let built = catch(|| self.build(start));
        self.around.recovery.leave(self.id);
        match built {
            Ok(()) => {
                self.started(id, start.mode);
                if let Err(error) = catch(|| self.feed_kept(start)) {
                    self.unreadable(id, error);
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => self.unreadable(id, error),
            Err(error) if error.kind() == ErrorKind::Unavailable && !self.recovering => {
                self.unreadable(id, error)
            }
            Err(error) => self.fail(id, error),
        }
    }

    fn unreadable(&mut self, id: RelationId, error: Error) {
        self.tell(Event::Unreadable {
            relation: id,
            error,
        });
        self.remove(id);
    }

    /// Where a job's state is read from. At a start, a store that is away is waited for: no job
    /// stops for it, and no start fails. Later, all other jobs of the worker would wait with it:
    /// the job stays as it is, and is resumed another time.
    fn store(&self) -> CheckpointStore {
        if self.recovering {
            self.around.storing.store.patient()
        } else {
            self.around.storing.store.clone()
        }
    }

    /// Restores the rows of a job that does not run.
    fn show(&mut self, start: &StartJob) -> Result<()> {
        let relation = &start.relation;
        let plan = relation.job.as_ref();
        let plan = plan.ok_or_else(|| Error::internal("a relation without a job has no rows"))?;
        let mut actors = build_actors(
            relation,
            plan,
            &self.around.placement,
            self.id,
            &self.neighbours,
            None,
        )?;
        if let Some(view) = &actors.view {
            self.around.figures.of(relation.id).count(view);
        }
        let kept = plan.fragments.iter().flat_map(|f| f.nodes());
        let kept: Vec<u32> = kept
            .filter_map(|n| match n.op {
                Op::Materialize { table, .. } => Some(table),
                _ => None,
            })
            .collect();
        let kept = start.tables.iter().filter(|(t, _)| kept.contains(t));
        let only = StartJob {
            tables: kept.map(|(t, files)| (*t, files.clone())).collect(),
            ..StartJob::of(relation.clone())
        };
        self.restore(&only, &mut actors.fragments)?;
        if let Some(view) = actors.view {
            self.around.published.show(relation.id, self.id, view);
        }
        Ok(())
    }

    /// The rows that were written to the job before it stopped are its first input, on the worker
    /// that gets all its written rows.
    fn feed_kept(&mut self, start: &StartJob) -> Result<()> {
        let id = start.relation.id;
        if self.around.placement.writer(id) != self.id {
            return Ok(());
        }
        let mut rows = Vec::new();
        for file in &start.kept {
            let store = self.store();
            let bytes = machine::block_on(store.read_kept(file))?;
            rows.extend(decode_kept(&bytes).map_err(|e| e.context(&file.path))?);
        }
        for write in &start.rows {
            for piece in 0..write.changes.pieces() {
                rows.push(write.changes.piece(piece)?);
            }
        }
        let leaf = self.jobs.get(&id).and_then(|job| {
            let own = |i: &&Input| matches!(i.kind, InputKind::Table(_) | InputKind::Source(_));
            let input = job.inputs.iter().find(own)?;
            Some((input.fragment, input.leaf))
        });
        let Some((fragment, leaf)) = leaf.filter(|_| !rows.is_empty()) else {
            return Ok(());
        };
        for changes in rows {
            self.deliver(id, fragment, leaf, Message::Changes(changes, None));
        }
        Ok(())
    }

    pub(super) fn build(&mut self, start: &StartJob) -> Result<()> {
        let relation = &start.relation;
        let id = relation.id;
        let plan = relation
            .job
            .as_ref()
            .ok_or_else(|| Error::internal(format!("\"{}\" has no job", relation.name)))?;
        let figures = self.around.figures.of(id);
        figures.set_name(relation);
        let sink = if relation.kind == RelationKind::Sink {
            let progress = start.sink.as_ref().map(|progress| match start.mode {
                StartMode::Restored(epoch) => (progress, epoch),
                _ => (progress, progress.through.unwrap_or_default()),
            });
            Some(self.around.sinks.open(relation, progress)?)
        } else {
            None
        };
        let mut actors = build_actors(
            relation,
            plan,
            &self.around.placement,
            self.id,
            &self.neighbours,
            sink,
        )?;
        if let Some(view) = &actors.view {
            figures.count(view);
        }
        self.restore(start, &mut actors.fragments)?;
        let restored = matches!(start.mode, StartMode::Restored(_));
        let fresh = !restored && start.mode != StartMode::Resuming;
        let mut inputs = Vec::new();
        for leaf in actors.leaves {
            let kind = match leaf.op {
                Op::SourceRead { .. } => {
                    let mut source = Source::open(
                        &self.reading,
                        self.id,
                        relation,
                        &start.positions,
                        &start.floors,
                        self.waker.clone(),
                    )?;
                    source.set_starts(&start.starts);
                    source.set_logged(start.logged.clone());
                    if restored {
                        // Nothing is read before the first barrier of the replay says how far, or
                        // `Resume` that there is none.
                        source.limit(&start.positions)?;
                    }
                    InputKind::Source(Box::new(source))
                }
                Op::TableRead => InputKind::Table(TableFeed::default()),
                Op::Values { rows } => InputKind::Values(if fresh && self.id == 0 {
                    constant_rows(&rows, &leaf.schema)?
                } else {
                    None
                }),
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
            if let StartMode::Restored(epoch) = start.mode {
                view.begins_at(epoch);
            }
            self.around.published.show(id, self.id, view.clone());
        }
        let joined = match start.mode {
            StartMode::Restored(epoch) | StartMode::After(epoch) => Some(epoch),
            StartMode::Creating | StartMode::Resuming | StartMode::Shown(_) => None,
        };
        let is_bare = matches!(&actors.fragments[..], [only] if only.slots.is_empty());
        let edges = |routes: &Vec<Route>| routes.iter().map(|r| self.edges(r)).collect();
        let edges = actors.routes.iter().map(edges);
        let fragments = actors.fragments.into_iter();
        let job = Job {
            relation: relation.clone(),
            edges: edges.collect(),
            actors: fragments.map(|f| Actor::new(f, joined)).collect(),
            is_bare,
            has_turn: false,
            held: BTreeSet::new(),
            unweighed: 0,
            is_stale: false,
            routes: actors.routes,
            inputs,
            taps: Vec::new(),
            view: actors.view,
            shared: plan.shared_rows(),
            counts_from: joined,
            joined,
            last_passed: joined.unwrap_or_default(),
            told_ready: false,
            told: start.told.clone(),
            formerly: start.formerly.clone(),
            figures,
        };
        self.neighbours.set(id, job.view.clone());
        let shares: Vec<RelationId> = job.shared.iter().map(|(_, relation)| *relation).collect();
        self.jobs.insert(id, job);
        shares.into_iter().for_each(|of| self.keep_apart(of));
        if let Some(epoch) = joined {
            self.sink_counts_from(id, epoch);
        }
        Ok(())
    }

    pub(super) fn sink_counts_from(&self, id: RelationId, epoch: Epoch) {
        self.around.sinks.count_from(id, epoch);
    }

    /// Connects a job that was built with the others on this worker.
    pub(super) fn started(&mut self, id: RelationId, mode: StartMode) {
        if let StartMode::Restored(epoch) = mode {
            for upstream in self.upstreams(id) {
                self.connect(id, upstream, epoch, false);
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
                self.connect(other, id, after, false);
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.prune_source();
        }
        let early = self.early.remove(&id).unwrap_or_default();
        self.router.local.extend(early);
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

    /// The edges of a route to the actors of its job on all workers.
    fn edges(&self, route: &Route) -> Vec<Arc<Edge>> {
        let workers = match route {
            Route::Taps => 0,
            Route::Hash { .. } | Route::Broadcast { .. } => self.router.workers(),
        };
        (0..workers).map(|worker| self.edge_to(worker)).collect()
    }

    fn edge_to(&self, worker: WorkerId) -> Arc<Edge> {
        let (bytes_max, load) = (self.around.edge_bytes_max, self.around.load.clone());
        Arc::new(Edge::new(worker, bytes_max, load, self.waker.clone()))
    }

    /// Makes every tap of `id` on `upstream` receive what comes after the barrier of `after`;
    /// nobody waits for those that catch up.
    pub(super) fn connect(
        &mut self,
        id: RelationId,
        upstream: RelationId,
        after: Epoch,
        catches_up: bool,
    ) {
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
                    edge: self.edge_to(self.id),
                });
            }
        }
        if let Some(up) = self.jobs.get_mut(&upstream) {
            let is_open = catches_up || up.is_table();
            targets.iter().for_each(|t| t.edge.set_open(is_open));
            up.taps.extend(targets);
            up.prune_source();
        }
    }

    pub(super) fn restore(&self, start: &StartJob, fragments: &mut [Fragment]) -> Result<()> {
        let spread = self.around.placement.spread(&start.relation);
        let vnodes = spread.vnodes(self.id);
        let mut restored = 0;
        for table in fragments
            .iter_mut()
            .flat_map(|f| &mut f.slots)
            .flat_map(|s| s.operator.tables())
        {
            let spec = table.spec();
            let table_id = TableId {
                relation: start.relation.id,
                table: spec.table,
            };
            // Also where this worker will have no row of it: others may, on other nodes, and their
            // files are merged here.
            self.around.storing.know(table_id, spec.clone());
            let Some(files) = start.tables.get(&spec.table) else {
                continue;
            };
            let store = self.store();
            let read = store.restore_table(files, table, vnodes.clone(), |rows| {
                if self.around.over.load(Ordering::Acquire) {
                    return Err(Error::shutting_down());
                }
                restored += rows as u64;
                self.around.recovery.progress(self.id, restored);
                Ok(())
            });
            if let Err(error) = machine::block_on(read) {
                if error.kind() == ErrorKind::Unavailable && self.recovering {
                    self.tell(Event::NotRestored {
                        error: error.clone(),
                    });
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: RelationId) {
        self.ended.insert(id);
        self.has_passed.remove(&id);
        self.turns.retain(|turn| *turn != id);
        if let Some(job) = self.jobs.remove(&id) {
            job.figures.memory[self.id].store(0, Ordering::Relaxed);
        }
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
