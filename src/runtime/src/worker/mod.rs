//! A worker: one thread that runs all actors of its share of the vnodes. It takes commands, messages of its peers and rows of its sources, in this order of
//! preference, and processes each to the end before it takes the next, so that nothing inside needs a lock.
//!
//! Sources are read only when nothing else waits and no peer is congested: that is the whole of back-pressure (a Kafka consumer that is not polled stops fetching).
//! A job that fails (an error or a broken invariant) is taken out alone; the coordinator stops it everywhere.

mod fragment;
mod job;
mod sealing;
mod source;

use crate::engine::ErrorRow;
use crate::exchange::{Delivery, Inbound, Message, Route, Router};
use crate::shared::Shared;
use crate::sinks::SinkQueue;
use crossbeam_channel::{Receiver, Sender};
use fragment::Sink as FragmentSink;
pub use job::{Actors, build_actors, nullable, pick};
use job::{CatchUp, Input, InputKind, Job, TapState, TapTarget, constant_rows, reversed};
use sealing::Sealing;
pub use sealing::store;
pub use source::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{RecordError, SplitPosition, Waker};
use tidemark_common::{Epoch, Error, RelationId, Result, TableId, WorkerId, vnodes_of};
use tidemark_control::TableWrites;
use tidemark_control::protocol::{BarrierCommand, Command, Event, Positions, StartJob, StartMode, Watermarks};
use tidemark_operator::{Barrier, RowError};
use tidemark_plan::{OnError, Op, Relation, RelationKind};
use tidemark_state::{TableDelta, TableSpec};

/// Messages taken from the inbox before commands are looked at again.
const INBOX_BURST: usize = 64;
/// How long an idle worker sleeps at most; it is woken for everything it knows of.
const IDLE_SLEEP: Duration = Duration::from_millis(250);
/// How long a worker waits for congested peers.
const CONGESTED_SLEEP: Duration = Duration::from_micros(200);

/// One worker's thread state.
pub struct Worker {
    id: WorkerId,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    inbox: Receiver<Inbound>,
    waker: Waker,
    wake_pending: Arc<AtomicBool>,
    router: Router,
    jobs: BTreeMap<RelationId, Job>,
    /// Jobs that ended: late messages to them are dropped. Ids are never used again.
    ended: HashSet<RelationId>,
    /// Messages to jobs whose start command has not arrived yet.
    early: HashMap<RelationId, Vec<Delivery>>,
    /// Jobs that still have to pass the barrier of an epoch.
    outstanding: BTreeMap<Epoch, BTreeSet<RelationId>>,
    /// Epochs whose cut is not told yet (replay), with the sources that still read.
    cutting: BTreeMap<Epoch, BTreeSet<RelationId>>,
    /// Where an append-only source stood at the barrier of an epoch at which a job joined.
    join_positions: HashMap<(RelationId, Epoch), Vec<SplitPosition>>,
    /// Rows of the closing epoch that the log has to keep.
    reads: Vec<TableWrites>,
    sealing: Sealing,
    epoch: Epoch,
    announced: bool,
}

impl Worker {
    /// A worker without jobs.
    pub fn new(id: WorkerId, shared: Arc<Shared>, commands: Receiver<Command>, inbox: Receiver<Inbound>, peers: Vec<Sender<Inbound>>) -> Worker {
        let wake_pending = Arc::new(AtomicBool::new(false));
        let (own, pending) = (peers[id].clone(), wake_pending.clone());
        let waker: Waker = Arc::new(move || {
            if !pending.swap(true, Ordering::AcqRel) {
                let _ = own.send(Inbound::Wake);
            }
        });
        let router = Router::new(id, peers, shared.clone());
        Worker {
            id,
            sealing: Sealing::new(id, shared.clone()),
            shared,
            commands,
            inbox,
            waker,
            wake_pending,
            router,
            jobs: BTreeMap::new(),
            ended: HashSet::new(),
            early: HashMap::new(),
            outstanding: BTreeMap::new(),
            cutting: BTreeMap::new(),
            join_positions: HashMap::new(),
            reads: Vec::new(),
            epoch: Epoch(0),
            announced: false,
        }
    }

    /// Runs until the shutdown command.
    pub fn run(mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Shutdown) {
                    return;
                }
                self.command(command);
            }
            let mut busy = false;
            for _ in 0..INBOX_BURST {
                let Ok(inbound) = self.inbox.try_recv() else { break };
                busy = true;
                self.inbound(inbound);
            }
            if busy {
                continue;
            }
            if self.router.is_congested() {
                self.wait(CONGESTED_SLEEP);
                continue;
            }
            if !self.poll_inputs() {
                self.wait(IDLE_SLEEP);
            }
        }
    }

    fn wait(&mut self, timeout: Duration) {
        if let Ok(inbound) = self.inbox.recv_timeout(timeout) {
            self.inbound(inbound);
        }
    }

    fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Wake => self.wake_pending.store(false, Ordering::Release),
            Inbound::Delivery(delivery) => {
                if let Message::Changes(batch) = &delivery.message {
                    self.shared.inbox_rows[self.id].fetch_sub(batch.num_rows(), Ordering::Relaxed);
                }
                self.router.local.push_back(delivery);
                self.process_local();
            }
        }
    }

    fn tell(&self, event: Event) {
        // A coordinator that is gone means shutdown.
        let _ = self.shared.events.send(event);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Start(start) => {
                let id = start.relation.id;
                match catch(|| self.build(&start)) {
                    Ok(()) => self.started(id, start.mode),
                    Err(error) => self.fail(id, error),
                }
            }
            Command::Join { relation, epoch } => self.join(relation, epoch),
            Command::Promote { relation } => {
                if let Some(job) = self.jobs.get_mut(&relation) {
                    job.counts = true;
                }
            }
            Command::AddSplits { relation, start } => {
                let worker = self.id;
                let added = self.jobs.get_mut(&relation).map_or(Ok(()), |job| sources(job).try_for_each(|s| s.add_splits(worker, &start)));
                if let Err(error) = added {
                    self.fail(relation, error);
                }
            }
            Command::Stop { relations } => {
                for id in relations {
                    self.remove(id);
                    self.shared.forget(id, self.shared.catalog.read().stopped.contains_key(&id));
                }
            }
            Command::Barrier(barrier) => self.barrier(&barrier),
            Command::Publish { mergeable } => {
                let views: Vec<_> = self.jobs.iter().filter_map(|(id, j)| Some((*id, j.view.clone()?))).collect();
                for (id, view) in views {
                    // Changes that do not fit the rows are found out here.
                    if let Err(error) = catch(|| Ok(view.merge(mergeable))) {
                        self.fail(id, error);
                    }
                }
            }
            Command::Settle => self.tell(Event::Settled { worker: self.id }),
            Command::Resume => {
                for source in self.jobs.values_mut().flat_map(sources) {
                    source.unlimit();
                }
            }
            Command::Shutdown => {}
        }
        self.process_local();
    }

    // ---- starting and ending jobs

    fn build(&mut self, start: &StartJob) -> Result<()> {
        let relation = &start.relation;
        let id = relation.id;
        let plan = relation.job.as_ref().ok_or_else(|| Error::internal(format!("\"{}\" has no job", relation.name)))?;
        let figures = self.shared.figures(id);
        *figures.name.lock() = (format!("{}.{}", relation.schema_name, relation.name), relation.kind.name());
        let sink = if relation.kind == RelationKind::Sink { Some(SinkQueue::of(&self.shared, relation, start.sink.as_ref())?.output(self.id)) } else { None };
        let mut actors = build_actors(relation, plan, &self.shared, self.id, sink)?;
        self.restore(start, &mut actors.fragments)?;
        let fresh = !matches!(start.mode, StartMode::Restored(_));
        let mut inputs = Vec::new();
        for leaf in actors.leaves {
            let kind = match leaf.op {
                Op::SourceRead { .. } => {
                    let mut source = Source::open(&self.shared, self.id, relation, &start.positions, &start.watermarks, self.waker.clone())?;
                    if !fresh {
                        // Nothing is read before the first barrier of the replay says how far, or `Resume` that there is none.
                        source.limit(self.id, &start.positions)?;
                    }
                    InputKind::Source(Box::new(source))
                }
                Op::TableRead => InputKind::Table,
                Op::Values { rows } => {
                    InputKind::Values(if fresh && vnodes_of(self.id, self.shared.inbox_rows.len()).start == 0 { constant_rows(&rows, &leaf.schema)? } else { None })
                }
                Op::Tap { relation: upstream, columns } => {
                    let state = match start.backfill.get(&upstream) {
                        Some(positions) => TapState::CatchUp(Box::new(self.catch_up(upstream, positions)?)),
                        None => TapState::Live,
                    };
                    InputKind::Tap { upstream, columns, schema: leaf.schema, state }
                }
                other => return Err(Error::internal(format!("{other:?} is no leaf"))),
            };
            inputs.push(Input { fragment: leaf.fragment, leaf: leaf.leaf, kind });
        }
        if let Some(view) = &actors.view {
            let mut views = self.shared.views.write();
            let partitions = views.entry(id).or_insert_with(|| vec![None; self.shared.inbox_rows.len()]);
            partitions[self.id] = Some(view.clone());
        }
        let joined = match start.mode {
            StartMode::Restored(epoch) | StartMode::After(epoch) => Some(epoch),
            StartMode::Creating => None,
        };
        let job = Job {
            relation: relation.clone(),
            fragments: actors.fragments,
            routes: actors.routes,
            inputs,
            taps: Vec::new(),
            view: actors.view,
            counts: joined.is_some(),
            joined,
            last_passed: joined.unwrap_or_default(),
            told_ready: false,
            figures,
        };
        self.jobs.insert(id, job);
        Ok(())
    }

    /// Connects a job that was built with the others on this worker.
    fn started(&mut self, id: RelationId, mode: StartMode) {
        if let StartMode::Restored(epoch) = mode {
            for upstream in self.upstreams(id) {
                self.connect(id, upstream, epoch);
            }
        }
        // Jobs that joined before this source began.
        let waiting: Vec<RelationId> = self.jobs.iter().filter(|(other, j)| **other != id && j.joined.is_some()).map(|(other, _)| *other).collect();
        for other in waiting {
            if self.upstreams(other).contains(&id) && !self.jobs[&id].taps.iter().any(|t| t.job == other) {
                let after = self.jobs[&id].joined.unwrap_or(Epoch(0));
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

    fn upstreams(&self, id: RelationId) -> Vec<RelationId> {
        let inputs = self.jobs.get(&id).map(|j| j.inputs.as_slice()).unwrap_or_default();
        let found: BTreeSet<RelationId> = inputs.iter().filter_map(|i| if let InputKind::Tap { upstream, .. } = &i.kind { Some(*upstream) } else { None }).collect();
        found.into_iter().collect()
    }

    /// Makes every tap of `id` on `upstream` receive what comes after the barrier of `after`.
    fn connect(&mut self, id: RelationId, upstream: RelationId, after: Epoch) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut targets = Vec::new();
        for (input, i) in job.inputs.iter().enumerate() {
            if let InputKind::Tap { upstream: u, columns, schema, .. } = &i.kind
                && *u == upstream
            {
                targets.push(TapTarget { job: id, fragment: i.fragment, leaf: i.leaf, input, columns: columns.clone(), schema: schema.clone(), after });
            }
        }
        if let Some(up) = self.jobs.get_mut(&upstream) {
            up.taps.extend(targets);
            up.prune_source();
        }
    }

    fn restore(&self, start: &StartJob, fragments: &mut [fragment::Fragment]) -> Result<()> {
        let vnodes = vnodes_of(self.id, self.shared.inbox_rows.len());
        for table in fragments.iter_mut().flat_map(|f| &mut f.slots).flat_map(|s| s.operator.tables()) {
            let spec = table.spec();
            let Some(files) = start.tables.get(&spec.table) else { continue };
            self.shared.specs.lock().insert(TableId { relation: start.relation.id, table: spec.table }, spec.clone());
            self.shared.tokio.block_on(self.shared.store.read_table(files, &spec, vnodes.clone(), |rows| {
                table.restore(&rows);
                Ok(())
            }))?;
        }
        Ok(())
    }

    /// A reader of its own for the past of an append-only source that others read already.
    fn catch_up(&self, upstream: RelationId, positions: &[SplitPosition]) -> Result<CatchUp> {
        let shared = self.jobs.get(&upstream).ok_or_else(|| Error::internal("a source that is read has no job"))?;
        let plan = shared.relation.job.as_ref().ok_or_else(|| Error::internal("a source without a job"))?;
        let actors = build_actors(&shared.relation, plan, &self.shared, self.id, None)?;
        let fragment = actors.fragments.into_iter().next().ok_or_else(|| Error::internal("a source without an actor"))?;
        let ready_at = shared.inputs.iter().find_map(|i| if let InputKind::Source(s) = &i.kind { Some(s.positions()) } else { None }).unwrap_or_default();
        let mut source = Source::open(&self.shared, self.id, &shared.relation, positions, &[], self.waker.clone())?;
        source.set_uncounted();
        // It must not overtake the shared reader, from whose position at the join the live rows go on.
        source.limit(self.id, &ready_at)?;
        Ok(CatchUp { source, fragment, ready_at, end: None })
    }

    fn join(&mut self, id: RelationId, epoch: Epoch) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
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

    fn remove(&mut self, id: RelationId) {
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

    fn fail(&mut self, id: RelationId, error: Error) {
        self.tell(Event::Failed { relation: id, error });
        self.remove(id);
    }

    // ---- barriers

    fn barrier(&mut self, command: &Arc<BarrierCommand>) {
        self.epoch = command.epoch.next();
        self.announced = false;
        let counting: BTreeSet<RelationId> = self.jobs.iter().filter(|(_, j)| j.counts && j.joined.is_some_and(|e| e < command.epoch)).map(|(id, _)| *id).collect();
        self.sealing.begin(command.epoch, command.checkpoint);
        self.outstanding.insert(command.epoch, counting);
        let taking_part: Vec<RelationId> =
            self.jobs.iter().filter(|(_, j)| j.joined.is_some_and(|e| e < command.epoch || (e == command.epoch && !j.counts))).map(|(id, _)| *id).collect();
        let reading: BTreeSet<RelationId> = taking_part.iter().copied().filter(|id| self.jobs.get_mut(id).is_some_and(|j| sources(j).next().is_some())).collect();
        self.cutting.insert(command.epoch, reading);
        for id in &taking_part {
            self.barrier_at_inputs(*id, command);
        }
        self.source_cut(RelationId(u32::MAX), command.epoch);
        self.passed(RelationId(u32::MAX), command.epoch);
    }

    /// The barrier reaches the leaves of a job that the worker feeds.
    fn barrier_at_inputs(&mut self, id: RelationId, command: &Arc<BarrierCommand>) {
        let barrier = Barrier { epoch: command.epoch, clock: command.clock, checkpoint: command.checkpoint };
        let count = self.jobs.get(&id).map_or(0, |j| j.inputs.len());
        for index in 0..count {
            let Some(job) = self.jobs.get_mut(&id) else { return };
            let joins = job.joined == Some(command.epoch);
            let Input { fragment, leaf, kind } = &mut job.inputs[index];
            let (fragment, leaf) = (*fragment, *leaf);
            match kind {
                InputKind::Source(source) => {
                    source.barriers.push_back(command.clone());
                    self.emit_source_barriers(id, index);
                }
                InputKind::Table => {
                    if id.0 as usize % self.shared.inbox_rows.len() == self.id {
                        for write in command.writes.iter().filter(|w| w.table == id) {
                            self.router.local.push_back(Delivery { job: id, fragment, leaf, channel: 0, message: Message::Changes(write.changes.clone()) });
                        }
                    }
                    self.router.local.push_back(Delivery { job: id, fragment, leaf, channel: 0, message: Message::Barrier(barrier) });
                }
                InputKind::Values(rows) => {
                    let rows = rows.take();
                    self.router.local.extend(rows.map(|rows| Delivery { job: id, fragment, leaf, channel: 0, message: Message::Changes(rows) }));
                    self.router.local.push_back(Delivery { job: id, fragment, leaf, channel: 0, message: Message::Barrier(barrier) });
                }
                InputKind::Tap { upstream, .. } if joins => {
                    // The source begins after this barrier: the leaf has nothing to catch up with.
                    let upstream = *upstream;
                    if !self.jobs.contains_key(&upstream) {
                        self.feed(id, fragment, leaf, Message::Barrier(barrier));
                        self.release(id, fragment, leaf);
                    }
                }
                InputKind::Tap { .. } => {}
            }
            self.process_local();
        }
    }

    /// Sends the barriers of a source whose limits are reached.
    fn emit_source_barriers(&mut self, id: RelationId, index: usize) {
        loop {
            let Some(job) = self.jobs.get_mut(&id) else { return };
            let Input { fragment, leaf, kind: InputKind::Source(source) } = &mut job.inputs[index] else { return };
            let Some(command) = source.barriers.front().cloned() else { return };
            if let Some(limits) = &command.limits {
                let limits = limits.get(&id).map(Vec::as_slice).unwrap_or_default();
                if let Err(error) = source.limit(self.id, limits) {
                    return self.fail(id, error);
                }
                if !source.has_reached(limits) {
                    return;
                }
            }
            source.barriers.pop_front();
            let positions = source.positions();
            let (fragment, leaf) = (*fragment, *leaf);
            let unlogged = source.take_unlogged();
            if command.limits.is_none() {
                self.reads.extend(unlogged.into_iter().map(|changes| TableWrites { table: id, changes }));
            } else if id.0 as usize % self.shared.inbox_rows.len() == self.id {
                for logged in command.writes.iter().filter(|w| w.table == id) {
                    self.router.local.push_back(Delivery { job: id, fragment, leaf, channel: 0, message: Message::Changes(logged.changes.clone()) });
                }
            }
            let barrier = Barrier { epoch: command.epoch, clock: command.clock, checkpoint: command.checkpoint };
            if self.jobs.values().any(|j| j.joined == Some(command.epoch) && !j.counts) {
                self.join_positions.insert((id, command.epoch), positions);
            }
            self.router.local.push_back(Delivery { job: id, fragment, leaf, channel: 0, message: Message::Barrier(barrier) });
            self.source_cut(id, command.epoch);
            self.process_local();
        }
    }

    /// A source has passed the barrier; when all have, the worker's cut is told.
    fn source_cut(&mut self, id: RelationId, epoch: Epoch) {
        let Some(reading) = self.cutting.get_mut(&epoch) else { return };
        reading.remove(&id);
        if !reading.is_empty() {
            return;
        }
        self.cutting.remove(&epoch);
        let (mut positions, mut watermarks) = (Positions::new(), Watermarks::new());
        for (id, job) in &mut self.jobs {
            if job.joined.is_none_or(|e| e > epoch) {
                continue;
            }
            for source in sources(job) {
                positions.insert(*id, source.positions());
                watermarks.insert(*id, source.watermarks());
            }
        }
        let reads = std::mem::take(&mut self.reads);
        self.tell(Event::Cut { worker: self.id, epoch, positions, watermarks, reads });
    }

    /// A job has passed the barrier of an epoch on this worker; when all that count have, the epoch is done here.
    fn passed(&mut self, id: RelationId, epoch: Epoch) {
        let Some(outstanding) = self.outstanding.get_mut(&epoch) else { return };
        outstanding.remove(&id);
        if outstanding.is_empty() {
            self.outstanding.remove(&epoch);
            self.tell(Event::Done { worker: self.id, epoch });
            self.sealing.finish(epoch);
        }
    }

    // ---- moving rows

    /// Reads a batch from every source and every leaf that catches up. Returns whether there was anything.
    fn poll_inputs(&mut self) -> bool {
        let mut any = false;
        let polled: Vec<(RelationId, usize)> = self.jobs.iter().flat_map(|(id, j)| (0..j.inputs.len()).map(|i| (*id, i))).collect();
        for (id, index) in polled {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let result = match &mut job.inputs[index].kind {
                InputKind::Source(_) => catch(|| self.poll_source(id, index)),
                InputKind::Tap { state: TapState::CatchUp(_), .. } => catch(|| self.poll_catch_up(id, index)),
                InputKind::Tap { state: TapState::Snapshot { .. }, .. } => self.poll_snapshot(id, index),
                _ => Ok(false),
            };
            match result {
                Ok(read) => any |= read,
                Err(error) => self.fail(id, error),
            }
            self.process_local();
            self.tell_ready(id);
        }
        any
    }

    fn tell_ready(&mut self, id: RelationId) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|j| j.joined.is_none() && !j.told_ready)
            && job.may_join()
        {
            job.told_ready = true;
            self.tell(Event::Ready { worker: self.id, relation: id });
        }
    }

    fn poll_source(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let epoch = self.epoch;
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(false) };
        let Input { fragment, leaf, kind: InputKind::Source(source) } = &mut job.inputs[index] else { return Ok(false) };
        let Some(batch) = source.poll(epoch)? else {
            if !source.barriers.is_empty() {
                self.emit_source_barriers(id, index);
            }
            return Ok(false);
        };
        let (fragment, leaf) = (*fragment, *leaf);
        if !batch.is_empty() {
            self.router.local.push_back(Delivery { job: id, fragment, leaf, channel: 0, message: Message::Changes(batch) });
        }
        if !self.announced {
            self.announced = true;
            self.tell(Event::Active);
        }
        self.process_local();
        self.emit_source_barriers(id, index);
        Ok(true)
    }

    fn poll_catch_up(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let epoch = self.epoch;
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(false) };
        let Input { fragment, leaf, kind: InputKind::Tap { columns, schema, state, .. } } = &mut job.inputs[index] else { return Ok(false) };
        let TapState::CatchUp(catch_up) = state else { return Ok(false) };
        let (fragment, leaf) = (*fragment, *leaf);
        if let Some((end, barrier)) = &catch_up.end
            && catch_up.source.has_reached(end)
        {
            let barrier = *barrier;
            *state = TapState::Live;
            self.feed(id, fragment, leaf, Message::Barrier(barrier));
            self.release(id, fragment, leaf);
            return Ok(true);
        }
        let Some(batch) = catch_up.source.poll(epoch)? else { return Ok(false) };
        if batch.is_empty() {
            return Ok(true);
        }
        let bare = catch_up.fragment.slots.is_empty();
        let output = catch_up.fragment.run(batch)?;
        let produced = if bare { catch_up.source.produced.clone() } else { (0..output.first().map_or(0, |b| b.rows().num_columns())).collect() };
        let batches = output.iter().map(|b| pick(b, &produced, columns, schema)).collect::<Result<Vec<_>>>()?;
        for batch in batches {
            self.feed(id, fragment, leaf, Message::Changes(batch));
        }
        Ok(true)
    }

    fn poll_snapshot(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(false) };
        let Input { fragment, leaf, kind: InputKind::Tap { state, schema, .. } } = &mut job.inputs[index] else { return Ok(false) };
        let TapState::Snapshot { batches, barrier } = state else { return Ok(false) };
        let (fragment, leaf, barrier) = (*fragment, *leaf, *barrier);
        match batches.pop() {
            Some(rows) => {
                let columns: Vec<usize> = (0..rows.num_columns()).collect();
                let batch = pick(&ChangeBatch::insert(rows), &columns, &columns, schema)?;
                self.feed(id, fragment, leaf, Message::Changes(batch));
            }
            None => {
                *state = TapState::Live;
                self.feed(id, fragment, leaf, Message::Barrier(barrier));
                self.release(id, fragment, leaf);
            }
        }
        Ok(true)
    }

    /// Hands a message of a leaf's own catching up to its actor.
    fn feed(&mut self, id: RelationId, fragment: usize, leaf: usize, message: Message) {
        self.with_actor(id, fragment, |actor, sink| actor.receive_backfill(leaf, message, sink));
    }

    fn release(&mut self, id: RelationId, fragment: usize, leaf: usize) {
        self.with_actor(id, fragment, |actor, sink| actor.release(leaf, sink));
    }

    /// Processes messages to actors of this worker until none is left.
    fn process_local(&mut self) {
        while let Some(delivery) = self.router.local.pop_front() {
            let Delivery { job, fragment, leaf, channel, message } = delivery;
            if !self.jobs.contains_key(&job) {
                if !self.ended.contains(&job) {
                    self.early.entry(job).or_default().push(Delivery { job, fragment, leaf, channel, message });
                }
                continue;
            }
            self.with_actor(job, fragment, |actor, sink| actor.receive(leaf, channel, message, sink));
        }
    }

    /// Runs one actor and handles what it passed.
    fn with_actor(&mut self, id: RelationId, fragment: usize, run: impl FnOnce(&mut fragment::Fragment, &mut dyn FragmentSink) -> Result<()>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let produced = if matches!(job.routes[fragment], Route::Taps) { job.produced() } else { Vec::new() };
        let mut output = ActorOutput {
            id,
            relation: &job.relation,
            route: &job.routes[fragment],
            taps: &job.taps,
            produced,
            counts: job.counts,
            router: &mut self.router,
            shared: &self.shared,
            epoch: self.epoch,
            last_passed: job.last_passed,
            passed: Vec::new(),
        };
        let actor = &mut job.fragments[fragment];
        let result = catch(|| run(actor, &mut output));
        let (passed, last_passed) = (output.passed, output.last_passed);
        let is_last = matches!(job.routes[fragment], Route::Taps);
        if is_last {
            job.last_passed = last_passed;
        }
        for (barrier, sealed) in passed {
            self.sealing.add(id, barrier.epoch, sealed);
            if is_last {
                self.job_passed(id, barrier);
            }
        }
        if let Err(error) = result {
            self.fail(id, error);
        }
    }

    /// The last actor of a job has closed an epoch.
    fn job_passed(&mut self, id: RelationId, barrier: Barrier) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if barrier.checkpoint {
            let bytes: usize = job.fragments.iter_mut().map(fragment::Fragment::memory_bytes).sum();
            job.figures.memory[self.id].store(bytes as u64, Ordering::Relaxed);
        }
        let counts = job.counts;
        let joining: Vec<(RelationId, usize)> = job.taps.iter().filter(|t| t.after == barrier.epoch).map(|t| (t.job, t.input)).collect();
        if !counts {
            self.tell(Event::JobDone { worker: self.id, relation: id, epoch: barrier.epoch });
        }
        for (tapping, input) in joining {
            self.begin_at_join(id, tapping, input, barrier);
        }
        self.join_positions.retain(|(source, epoch), _| *source != id || *epoch > barrier.epoch);
        self.passed(id, barrier.epoch);
    }

    /// The barrier of a join has passed the relation that a leaf taps: now it is known what the leaf has to catch up with.
    fn begin_at_join(&mut self, upstream: RelationId, tapping: RelationId, input: usize, barrier: Barrier) {
        let barrier = Barrier { checkpoint: false, ..barrier };
        let view = self.jobs.get(&upstream).and_then(|j| j.view.clone());
        let end = self.join_positions.get(&(upstream, barrier.epoch)).cloned();
        let mergeable = self.shared.readers.mergeable();
        let batch_rows = self.shared.config.batch_rows_max;
        let Some(job) =
            self.jobs.get_mut(&tapping).filter(|j| j.joined == Some(barrier.epoch) && !matches!(j.inputs[input].kind, InputKind::Tap { state: TapState::Snapshot { .. }, .. }))
        else {
            return;
        };
        let Input { kind: InputKind::Tap { columns, state, .. }, .. } = &mut job.inputs[input] else { return };
        if let Some(view) = view {
            let batches = reversed(view.read_at(barrier.epoch, mergeable, columns, batch_rows));
            *state = TapState::Snapshot { batches, barrier };
        } else if let TapState::CatchUp(catch_up) = state {
            let end = end.unwrap_or_default();
            match catch_up.source.limit(self.id, &end) {
                Ok(()) => catch_up.end = Some((end, barrier)),
                Err(error) => self.fail(tapping, error),
            }
        }
    }
}

/// The output of an actor while it runs.
struct ActorOutput<'a> {
    id: RelationId,
    relation: &'a Arc<Relation>,
    route: &'a Route,
    taps: &'a [TapTarget],
    produced: Vec<usize>,
    counts: bool,
    router: &'a mut Router,
    shared: &'a Arc<Shared>,
    epoch: Epoch,
    /// The last barrier that the actor has closed.
    last_passed: Epoch,
    passed: Vec<(Barrier, Vec<(TableSpec, TableDelta)>)>,
}

impl FragmentSink for ActorOutput<'_> {
    fn changes(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if !matches!(self.route, Route::Taps) {
            self.router.send(self.id, self.route, batch);
            return Ok(());
        }
        for tap in self.taps {
            // Rows before the barrier of a join are part of what the tap catches up with.
            if self.last_passed < tap.after {
                continue;
            }
            let message = Message::Changes(tap.pick(&batch, &self.produced)?);
            self.router.local.push_back(Delivery { job: tap.job, fragment: tap.fragment, leaf: tap.leaf, channel: 0, message });
        }
        Ok(())
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        if self.relation.on_error == OnError::Fail {
            return Err(Error::user(tidemark_common::SqlState(error.state), error.message).with_detail(format!("The row is {}.", error.row)));
        }
        let record = RecordError { split: 0, offset: -1, column: String::new(), message: error.message, raw: error.row.into_bytes() };
        let row = ErrorRow { relation: self.relation.name.clone(), epoch: self.epoch, topic: String::new(), record, state: error.state.into() };
        self.shared.record_error(self.relation.id, row, error.weight);
        Ok(())
    }

    fn barrier(&mut self, barrier: Barrier, sealed: Vec<(TableSpec, TableDelta)>) -> Result<()> {
        if matches!(self.route, Route::Taps) {
            for tap in self.taps.iter().filter(|t| barrier.epoch > t.after) {
                self.router.local.push_back(Delivery { job: tap.job, fragment: tap.fragment, leaf: tap.leaf, channel: 0, message: Message::Barrier(barrier) });
            }
        } else {
            self.router.send_barrier(self.id, self.route, barrier);
        }
        self.last_passed = barrier.epoch;
        self.passed.push((barrier, sealed));
        Ok(())
    }

    fn seals(&self, barrier: &Barrier) -> bool {
        barrier.checkpoint && self.counts
    }
}

fn sources(job: &mut Job) -> impl Iterator<Item = &mut Source> {
    job.inputs.iter_mut().filter_map(|i| if let InputKind::Source(source) = &mut i.kind { Some(source.as_mut()) } else { None })
}

/// A broken invariant in an operator is that job's failure, not the worker's.
fn catch<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Err(Error::internal(format!("internal error: {text}")))
    })
}
