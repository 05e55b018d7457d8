//! A worker: one thread that runs all actors of its share of the vnodes, so that nothing inside
//! needs a lock. Round by round it takes commands, messages of its peers, turns of its jobs and
//! rows of its sources.
//!
//! **Turns.** A job that has something to do takes its place behind the others, and in its turn one
//! of its actors works for a slice (`actor`): jobs share the worker round robin, in slices of equal
//! work, and a command or a barrier waits for some slices at most, whatever a job is about.
//!
//! **Sources** are read only when no job that they feed, directly or not, has anything left to do
//! on this worker; one that has no room for its output, here or on another worker (`edge`), has.
//! That, with a log that takes entries and sinks that are not full, is the whole of back-pressure
//! (a Kafka consumer that is not polled stops fetching). In a replay a barrier waits until its
//! source has been read up to a limit, and so does what a leaf catches up with: those are read
//! while they have room themselves.
//!
//! A job that fails (an error or a broken invariant) is taken out alone; the coordinator stops it
//! everywhere.

mod barriers;
mod creating;
mod output;
mod starting;
mod widening;

use crate::actor::{Actor, Done, SLICE_BYTES, Stacks, Work};
use crate::blame::Recovery;
use crate::catch::catch;
use crate::edge::Load;
use crate::errors::KeptErrors;
use crate::exchange::{Delivery, Inbound, Message, Peer, Router};
use crate::figures::Figures;
use crate::job::{Input, InputKind, Job, TapState};
use crate::pressure::Pressure;
use crate::published::Shows;
use crate::sealing::Sealing;
use crate::sinks::Sinks;
use crate::source::{Reading, Source};
use crate::storing::Storing;
use output::ActorOutput;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{SplitPosition, Waker};
use tidemark_common::mailbox::{Receiver, Sender};
use tidemark_common::{Epoch, RelationId, Result, WorkerId, failpoint, machine};
use tidemark_connector::Outside;
use tidemark_control::protocol::{BarrierCommand, Command, Event, Floors, Positions};
use tidemark_control::{Events, Placement, Readers, Stamped, TableWrites};
use tidemark_operator::Barrier;
use tidemark_plan::RelationKind;
use tidemark_state::Neighbours;
use tidemark_state::errors::KeptError;

/// Messages taken from the inbox before commands are looked at again.
const INBOX_BURST: usize = 64;
/// How long an idle worker sleeps at most: it is woken for everything that is told to it, and a
/// reader that watches its connector by the clock has patience of seconds.
const IDLE_SLEEP: Duration = Duration::from_secs(1);
/// How long a worker sleeps at most that holds up its readers: nobody tells it that there is room.
const HELD_UP_SLEEP: Duration = Duration::from_millis(250);
/// Work of a round's turns after which commands are looked at again, in slices.
const ROUND_SLICES: usize = 2;

/// Work of a job after which it is told how much state it has, in bytes.
const WEIGHED_BYTES: usize = 4 * SLICE_BYTES;

/// What a message counts in a round at least.
const MESSAGE_BYTES_MIN: usize = 1 << 14;

/// What a worker has of its node.
#[derive(Clone)]
pub struct Surroundings {
    /// Who does what.
    pub placement: Arc<Placement>,
    /// Rows of a batch at most.
    pub batch_rows_max: usize,
    /// To the coordinator.
    pub events: Events,
    /// Pins and epochs.
    pub readers: Arc<Readers>,
    /// Where rows that people read are shown.
    pub published: Arc<dyn Shows>,
    /// Where rows are counted.
    pub figures: Arc<Figures>,
    /// Where what fails is kept.
    pub errors: KeptErrors,
    /// What runs while the node restores and replays.
    pub recovery: Arc<Recovery>,
    /// Where checkpoints go.
    pub storing: Storing,
    /// Where the output of sinks goes.
    pub sinks: Arc<dyn Sinks>,
    /// Bytes on their way between actors.
    pub load: Arc<Load>,
    /// Bytes on one edge at most.
    pub edge_bytes_max: usize,
    /// Whether memory runs short.
    pub pressure: Arc<Pressure>,
    /// Connectors.
    pub outside: Outside,
    /// The worker ends at once, whatever it has to do.
    pub over: Arc<AtomicBool>,
}

impl Surroundings {
    /// What readers of sources need of it.
    fn reading(&self) -> Reading {
        Reading {
            placement: self.placement.clone(),
            batch_rows_max: self.batch_rows_max,
            figures: self.figures.clone(),
            errors: self.errors.clone(),
            outside: self.outside.clone(),
        }
    }
}

/// How a worker's round went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// There may be more to do.
    Busy,
    /// There is nothing to do before something is told to the worker, or so much time has passed.
    Idle(Duration),
    /// The worker has ended.
    Over,
}

/// One worker's thread state.
pub struct Worker {
    id: WorkerId,
    around: Surroundings,
    reading: Reading,
    commands: Receiver<Stamped<Command>>,
    inbox: Receiver<Inbound>,
    waker: Waker,
    wake_pending: Arc<AtomicBool>,
    router: Router,
    jobs: BTreeMap<RelationId, Job>,
    /// What these keep, for each other.
    neighbours: Arc<Neighbours>,
    /// Jobs that have something to do, in the order of their turns, each once.
    turns: VecDeque<RelationId>,
    stacks: Stacks,
    /// Jobs that ended: late messages to them are dropped.
    ended: HashSet<RelationId>,
    /// Of those, how many workers have nothing more for them: when all have, a job may be started
    /// again.
    fences: HashMap<RelationId, usize>,
    /// Messages to jobs whose start command has not arrived yet.
    early: HashMap<RelationId, Vec<Delivery>>,
    /// Jobs that still have to pass the barrier of an epoch.
    outstanding: BTreeMap<Epoch, BTreeSet<RelationId>>,
    /// Jobs that have passed a barrier, which is not told yet.
    has_passed: BTreeMap<RelationId, Epoch>,
    /// Epochs whose cut is not told yet (replay), with the sources that still read.
    cutting: BTreeMap<Epoch, BTreeSet<RelationId>>,
    /// Where an append-only source stood at the barrier of an epoch at which a job joined.
    join_positions: HashMap<(RelationId, Epoch), Vec<SplitPosition>>,
    /// Rows of the closing epoch that the log has to keep.
    reads: Vec<TableWrites>,
    /// What readers have told of floors since the last barrier.
    floors: Floors,
    /// Errors of such rows' records.
    read_errors: Vec<KeptError>,
    /// Leaves of tables that still get rows which have to be read.
    feeding: BTreeSet<(RelationId, usize)>,
    /// Views of which there is more to be merged, with the epochs that are needed.
    unsettled: BTreeMap<RelationId, Arc<[Epoch]>>,
    sealing: Sealing,
    epoch: Epoch,
    announced: bool,
    /// Until replay is over.
    recovering: bool,
    /// Whether it did not ask a reader in the last round for want of room.
    holds_up: bool,
}

impl Worker {
    /// A worker without jobs. `own`: where its inbox is reached; `peers`: all workers, this one
    /// too.
    pub fn new(
        id: WorkerId,
        around: Surroundings,
        commands: Receiver<Stamped<Command>>,
        inbox: Receiver<Inbound>,
        own: Sender<Inbound>,
        peers: Vec<Peer>,
    ) -> Worker {
        let wake_pending = Arc::new(AtomicBool::new(false));
        let (woken, pending) = (own.clone(), wake_pending.clone());
        let waker: Waker = Arc::new(move || {
            if !pending.swap(true, Ordering::AcqRel) {
                let _ = woken.send(Inbound::Wake);
            }
        });
        Worker {
            id,
            sealing: Sealing::new(id, own, around.events.clone(), around.storing.clone()),
            router: Router::new(id, peers, around.placement.clone()),
            reading: around.reading(),
            around,
            commands,
            inbox,
            waker,
            wake_pending,
            jobs: BTreeMap::new(),
            neighbours: Arc::default(),
            turns: VecDeque::new(),
            stacks: Stacks::default(),
            ended: HashSet::new(),
            fences: HashMap::new(),
            early: HashMap::new(),
            outstanding: BTreeMap::new(),
            has_passed: BTreeMap::new(),
            cutting: BTreeMap::new(),
            join_positions: HashMap::new(),
            reads: Vec::new(),
            floors: Floors::new(),
            read_errors: Vec::new(),
            feeding: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            epoch: Epoch(0),
            announced: false,
            recovering: true,
            holds_up: false,
        }
    }

    /// Runs until the shutdown command.
    pub fn run(mut self) {
        loop {
            match self.step() {
                Round::Busy => machine::breathe(),
                Round::Idle(time) => self.wait(time),
                Round::Over => return,
            }
        }
    }

    /// One round.
    pub fn step(&mut self) -> Round {
        let mut busy = false;
        for _ in 0..INBOX_BURST {
            // A message may tell of what a command has told before.
            if !self.take_commands() {
                return Round::Over;
            }
            let Ok(inbound) = self.inbox.try_recv() else {
                break;
            };
            busy = true;
            self.inbound(inbound);
        }
        busy |= self.take_turns();
        busy |= self.feed_tables();
        busy |= self.go_on_settling();
        self.tell_passed();
        self.holds_up = self.around.readers.is_stalled();
        if !self.holds_up {
            busy |= self.poll_inputs();
        }
        match (busy, self.holds_up) {
            (true, _) => Round::Busy,
            (false, true) => Round::Idle(HELD_UP_SLEEP),
            (false, false) => Round::Idle(IDLE_SLEEP),
        }
    }

    /// Takes the commands that are there, except those of another incarnation. False for the end.
    fn take_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            if self.around.over.load(Ordering::Acquire) {
                return false;
            }
            match command.heard_in(self.around.storing.generation) {
                Some(Command::Shutdown) => return false,
                Some(command) => self.command(command),
                None => {}
            }
        }
        true
    }

    fn wait(&mut self, timeout: Duration) {
        if let Ok(inbound) = self.inbox.recv_until(Some(machine::now() + timeout)) {
            self.inbound(inbound);
        }
    }

    fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            // Whoever sets it from now on wakes again, and what was done before is seen.
            Inbound::Wake => drop(self.wake_pending.swap(false, Ordering::AcqRel)),
            Inbound::Fence(job) => {
                let fences = self.fences.entry(job).or_default();
                *fences += 1;
                if *fences == self.router.workers() {
                    self.fences.remove(&job);
                    self.ended.remove(&job);
                    self.tell(Event::Ended {
                        worker: self.id,
                        relation: job,
                    });
                }
            }
            Inbound::Read(read) => {
                let relation = read.table.relation;
                let actors = self.jobs.get_mut(&relation).map(|job| &mut job.actors);
                let mut actors = actors.into_iter().flatten();
                if let Some(actor) = actors.find(|a| a.has_table(read.table.table)) {
                    actor.read(read);
                }
            }
            Inbound::Delivery(delivery) => {
                self.router.local.push_back(delivery);
                self.hand_out();
            }
        }
    }

    fn tell(&self, event: Event) {
        self.around.events.tell(event);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Start(start) => {
                self.start(&start);
            }
            Command::Join { relation, epoch } => self.join(relation, epoch),
            Command::CatchUp { relation, backfill } => {
                if let Err(error) = catch(|| self.begin_catch_up(relation, &backfill)) {
                    self.fail(relation, error);
                }
            }
            Command::Promote { relation, epoch } => {
                if let Some(job) = self.jobs.get_mut(&relation) {
                    job.counts_from = Some(epoch);
                    let shared: Vec<RelationId> = job.shared.iter().map(|(_, of)| *of).collect();
                    shared.into_iter().for_each(|of| self.keep_apart(of));
                }
                self.sink_counts_from(relation, epoch);
            }
            Command::AddSplits { relation, start } => {
                let added = self.jobs.get_mut(&relation).map_or(Ok(()), |job| {
                    sources(job).try_for_each(|s| s.add_splits(&start))
                });
                if let Err(error) = added {
                    self.fail(relation, error);
                }
            }
            Command::LogRows { relation } => {
                if let Some(job) = self.jobs.get_mut(&relation) {
                    sources(job).for_each(Source::log_rows);
                }
            }
            Command::Stop {
                relations,
                keep_sinks,
            } => {
                for id in relations {
                    self.remove(id);
                    self.router.fence(id);
                    self.forget(id);
                    if !keep_sinks {
                        self.around.sinks.end(id);
                    }
                }
            }
            Command::Widen(relation) => self.widen(&relation),
            Command::Barrier(barrier) => self.barrier(&barrier),
            Command::Publish { needed } => self.settle_views(&needed),
            Command::Settle => self.tell(Event::Settled { worker: self.id }),
            Command::Resume => {
                self.recovering = false;
                for source in self.jobs.values_mut().flat_map(sources) {
                    source.unlimit();
                }
            }
            Command::Shutdown => {}
        }
        self.hand_out();
    }

    /// Nothing is kept of a job that ended. Of one that stopped, what people read of it, its
    /// figures and its errors stay.
    fn forget(&self, id: RelationId) {
        self.neighbours.set(id, None);
        self.around.published.forget(id);
        self.around.storing.forget(id);
        if !self.around.published.is_stopped(id) {
            self.around.figures.forget(id);
            self.around.errors.lock().forget(id);
        }
    }

    /// Merges what nobody can read apart any more.
    fn settle_views(&mut self, needed: &Arc<[Epoch]>) {
        let views = self.jobs.iter().filter(|(_, j)| j.view.is_some());
        for id in views.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.settle_view(id, needed.clone());
        }
    }

    /// Merges some more of a view of which there is more to be merged; others have their turns
    /// meanwhile.
    fn go_on_settling(&mut self) -> bool {
        let next = self.unsettled.pop_first();
        if let Some((id, needed)) = next {
            self.settle_view(id, needed);
            return true;
        }
        false
    }

    /// Tells the rows of a relation from which epoch on joins of this worker look them up: from the
    /// one that the last of their actors has closed.
    fn keep_apart(&self, id: RelationId) {
        let Some(view) = self.jobs.get(&id).and_then(|job| job.view.as_ref()) else {
            return;
        };
        let counting = self.jobs.values().filter(|job| job.counts_from.is_some());
        let closed = counting.flat_map(|job| {
            let actors = job.shared.iter().filter(|(_, relation)| *relation == id);
            actors.map(|(actor, _)| job.actors[*actor as usize].closed.unwrap_or_default())
        });
        view.keep_apart(closed.min());
    }

    fn settle_view(&mut self, id: RelationId, needed: Arc<[Epoch]>) {
        self.unsettled.remove(&id);
        self.keep_apart(id);
        let Some(view) = self.jobs.get(&id).and_then(|job| job.view.clone()) else {
            return;
        };
        // Changes that do not fit the rows are found out here: what is left is nobody's answer.
        match catch(|| Ok(view.settle(&needed))) {
            Ok(left) if left.merges => drop(self.unsettled.insert(id, needed)),
            Ok(left) if left.sums => {
                let (events, published) =
                    (self.around.events.clone(), self.around.published.clone());
                let sum = move || {
                    let summed = catch(|| {
                        view.sum_pending(&needed);
                        Ok(())
                    });
                    if let Err(error) = summed {
                        events.tell(Event::Failed {
                            relation: id,
                            error,
                        });
                        published.withdraw(id);
                    }
                };
                machine::spawn_blocking(sum);
            }
            Ok(_) => {}
            Err(error) => {
                self.fail(id, error);
                self.around.published.withdraw(id);
            }
        }
    }

    /// What runs now, in case that it ends the process.
    fn enter(&self, id: RelationId, closed: Epoch) {
        if self.recovering {
            self.around.recovery.enter(self.id, id, closed);
            failpoint::hit("recovery.run");
        }
    }

    /// Reads a batch from every source and every leaf that catches up. Returns whether there was
    /// anything.
    fn poll_inputs(&mut self) -> bool {
        let mut any = false;
        let waiting = self.upstream_of_work();
        let takes_nothing = self.around.pressure.is_high() && !self.recovering;
        self.holds_up = takes_nothing;
        // What a leaf has to catch up with, and in a replay a source, goes on while its own actor
        // has nothing to do, whatever else has: that may wait, with all its edges full, for the
        // barrier which comes when this one has been read far enough.
        let may_read = |id: &RelationId, job: &Job, input: &Input| match input.kind {
            InputKind::Tap { .. } => !job.actors[input.fragment].has_work(),
            _ if self.recovering => !job.has_work(),
            _ => !waiting.contains(id),
        };
        let mut polled: Vec<(RelationId, usize)> = Vec::new();
        for (id, job) in &self.jobs {
            let inputs = job.inputs.iter().enumerate();
            let may_read = inputs.filter(|(_, input)| may_read(id, job, input));
            polled.extend(may_read.map(|(at, _)| (*id, at)));
        }
        for (id, index) in polled {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            let result = match &mut job.inputs[index].kind {
                InputKind::Source(source) => {
                    let full = || Some(behind(&self.around.sinks.full_one_behind(id)?));
                    let short = takes_nothing.then(|| SHORT_OF_MEMORY.to_string());
                    // A start has to come to where it was, whatever there is no room for.
                    match short.or_else(full).filter(|_| !self.recovering) {
                        Some(reason) => {
                            self.holds_up = true;
                            source.be_held_up(reason);
                            Ok(false)
                        }
                        None => catch(|| self.poll_source(id, index)),
                    }
                }
                InputKind::Tap { .. } if takes_nothing => Ok(false),
                InputKind::Tap {
                    state: TapState::CatchUp(_),
                    ..
                } => catch(|| self.poll_catch_up(id, index)),
                InputKind::Tap {
                    state: TapState::Snapshot { .. },
                    ..
                } => catch(|| self.poll_snapshot(id, index)),
                _ => Ok(false),
            };
            match result {
                Ok(read) => any |= read,
                Err(error) => {
                    any = true;
                    self.fail(id, error);
                }
            }
            self.hand_out();
            self.tell_ready(id);
        }
        any
    }

    fn poll_source(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let newest = self.epoch;
        let Some(job) = self.jobs.get_mut(&id) else {
            return Ok(false);
        };
        if job.is_stale {
            job.prune_source();
        }
        let Input {
            fragment,
            leaf,
            kind: InputKind::Source(source),
        } = &mut job.inputs[index]
        else {
            return Ok(false);
        };
        // In replay the worker knows of barriers that the source has not come to yet.
        let epoch = source
            .barriers
            .front()
            .map_or(newest, |barrier| barrier.epoch);
        let Some(batch) = source.poll(epoch)? else {
            let waiting = source.barriers.len();
            if waiting > 0 {
                self.emit_source_barriers(id, index);
            }
            let sources = self.jobs.get_mut(&id).into_iter().flat_map(sources);
            return Ok(sources.map(|s| s.barriers.len()).sum::<usize>() < waiting);
        };
        let (fragment, leaf) = (*fragment, *leaf);
        if !batch.is_empty() {
            self.deliver(id, fragment, leaf, Message::Changes(batch, None));
        }
        if !self.announced {
            self.announced = true;
            self.tell(Event::Active);
        }
        self.hand_out();
        self.emit_source_barriers(id, index);
        Ok(true)
    }

    /// The jobs that have something to do, and all that feed them; nobody waits for one that is
    /// still catching up.
    fn upstream_of_work(&self) -> HashSet<RelationId> {
        let mut all = HashSet::new();
        let mut next: Vec<RelationId> = self.turns.iter().copied().collect();
        while let Some(id) = next.pop() {
            let is_live = |job: &Job| job.joined.is_some() && job.held.is_empty();
            if all.insert(id) && self.jobs.get(&id).is_some_and(is_live) {
                next.extend(self.upstreams(id));
            }
        }
        all
    }

    /// A message that the worker itself has for a leaf; it waits behind those of its peers.
    fn deliver(&mut self, job: RelationId, fragment: usize, leaf: usize, message: Message) {
        self.router.local.push_back(Delivery {
            job,
            fragment,
            leaf,
            channel: 0,
            message,
        });
    }

    /// Hands messages to the actors of this worker.
    fn hand_out(&mut self) {
        while let Some(delivery) = self.router.local.pop_front() {
            if !self.jobs.contains_key(&delivery.job) {
                if !self.ended.contains(&delivery.job) {
                    let early = self.early.entry(delivery.job).or_default();
                    early.push(delivery);
                }
                continue;
            }
            let Delivery {
                job,
                fragment,
                leaf,
                channel,
                message,
            } = delivery;
            self.count(job, fragment, leaf, &message);
            let work = Work::Message {
                leaf,
                channel,
                message,
            };
            self.push(job, fragment, work);
        }
    }

    /// Gives an actor something to do, and its job a turn.
    fn push(&mut self, id: RelationId, fragment: usize, work: Work) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.actors[fragment].push(work);
        self.line_up(id);
    }

    /// A job that has something to do takes its place behind the others, once.
    fn line_up(&mut self, id: RelationId) {
        let waits = |job: &&mut Job| job.has_work() && !job.has_turn;
        if let Some(job) = self.jobs.get_mut(&id).filter(waits) {
            job.has_turn = true;
            self.turns.push_back(id);
        }
    }

    /// Gives the jobs their turns, until a round's work is done or nobody can go on. Returns
    /// whether anything was done.
    fn take_turns(&mut self) -> bool {
        let (mut spent, mut held_up) = (0, 0);
        while spent < ROUND_SLICES * SLICE_BYTES && held_up < self.turns.len() {
            let Some(id) = self.turns.pop_front() else {
                break;
            };
            // One that was taken out meanwhile has no turn.
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            job.has_turn = false;
            match job.next_actor() {
                Some(actor) => {
                    held_up = 0;
                    spent += self.turn(id, actor);
                }
                None => held_up += 1,
            }
            self.line_up(id);
            if !self.commands.is_empty() {
                return true;
            }
        }
        spent > 0
    }

    /// Counts rows that enter a job by one of its leaves. A connector's reader and a sink count
    /// their own.
    fn count(&self, id: RelationId, fragment: usize, leaf: usize, message: &Message) {
        let Message::Changes(batch, _) = message else {
            return;
        };
        let Some(job) = self
            .jobs
            .get(&id)
            .filter(|j| j.relation.kind != RelationKind::Sink)
        else {
            return;
        };
        if job.inputs.iter().any(|i| {
            i.fragment == fragment && i.leaf == leaf && !matches!(i.kind, InputKind::Source(_))
        }) {
            job.figures
                .rows
                .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        }
    }

    /// Lets an actor work for a slice, and handles what it has done. Returns a measure of that in
    /// bytes, never 0.
    fn turn(&mut self, id: RelationId, actor: usize) -> usize {
        let Some(closed) = self.jobs.get(&id).map(|j| j.last_passed) else {
            return 1;
        };
        self.enter(id, closed);
        let Some(job) = self.jobs.get_mut(&id) else {
            return 1;
        };
        let is_last = job.ends_with(actor);
        let produced = if is_last { job.produced() } else { Vec::new() };
        let working = &mut job.actors[actor];
        let epoch = working.closed.map(Epoch::next).or(job.joined);
        // A barrier from which on the job counts comes as work of its own behind the command that
        // says so, never in the middle of a slice.
        let (done, worked) = working.slice(job.counts_from, &mut self.stacks);
        let spent = work_of(&done, working.is_suspended());
        job.unweighed += spent;
        if job.unweighed >= WEIGHED_BYTES {
            // One that is in the middle of something is weighed when it is through.
            if !working.is_suspended() {
                job.unweighed = 0;
            }
            job.actors.iter_mut().for_each(Actor::weigh);
            job.tell_memory(self.id);
        }
        let mut output = ActorOutput {
            id,
            relation: &job.relation,
            routes: &job.routes[actor],
            edges: &job.edges[actor],
            taps: &job.taps,
            produced,
            router: &mut self.router,
            errors: &self.around.errors,
            epoch: epoch.unwrap_or(self.epoch),
            last_passed: job.last_passed,
            closed: Vec::new(),
        };
        let result = catch(|| output.take(done)).and(worked);
        let (closed, last_passed) = (output.closed, output.last_passed);
        if is_last {
            job.last_passed = last_passed;
        }
        let working = &mut job.actors[actor];
        let widened = working.widened.take();
        for closed in &closed {
            working.closed = Some(closed.barrier.epoch);
            working.memory_bytes = closed.memory_bytes.unwrap_or(working.memory_bytes);
        }
        if self.recovering {
            self.around.recovery.leave(self.id);
        }
        for closed in closed {
            self.sealing.add(id, closed.barrier.epoch, closed.sealed);
            if is_last {
                self.job_passed(id, closed.barrier);
            }
        }
        if let Some(widened) = widened {
            self.is_widened(id, widened);
        }
        if let Err(error) = result {
            self.fail(id, error);
        }
        self.hand_out();
        spent
    }
}

/// A measure of what was done in a slice, in bytes, never 0: a whole one took its time, whatever it
/// has sent.
fn work_of(done: &[Done], is_whole: bool) -> usize {
    if is_whole {
        return SLICE_BYTES;
    }
    let bytes = |done: &Done| match done {
        Done::Changes(_, bytes) => *bytes,
        Done::RowError(_) | Done::Closed(_) => 1,
    };
    done.iter().map(bytes).sum::<usize>().max(MESSAGE_BYTES_MIN)
}

/// Why a source is not read.
const SHORT_OF_MEMORY: &str = "not read, for memory runs short";

fn behind(sink: &str) -> String {
    format!("not read, for sink \"{sink}\" has too many changes that wait for delivery")
}

fn sources(job: &mut Job) -> impl Iterator<Item = &mut Source> {
    job.inputs.iter_mut().filter_map(|i| {
        if let InputKind::Source(source) = &mut i.kind {
            Some(source.as_mut())
        } else {
            None
        }
    })
}
