//! A job on one worker: its actors built from the plan, its leaves, and the taps of other jobs on
//! its output.

use crate::actor::Actor;
use crate::columns::{nullable, pick};
use crate::edge::Edge;
use crate::exchange::{Delivery, Message, Route};
use crate::figures::JobFigures;
use crate::fragment::{Channel, Fragment, Leaf, Slot};
use crate::source::Source;
use crate::table_feed::TableFeed;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result, WorkerId};
use tidemark_control::{Pin, Placement};
use tidemark_operator::Barrier;
use tidemark_operator::build::{BuildContext, SinkOutput, build_operator};
use tidemark_plan::{Expr, JobPlan, Node, Op, Output, Relation};
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::halted::Formerly;
use tidemark_state::{Neighbours, Reading, ViewPartition};

/// One job on one worker.
pub struct Job {
    /// Its relation.
    pub relation: Arc<Relation>,
    /// By fragment.
    pub actors: Vec<Actor>,
    /// Where each actor's output goes.
    pub routes: Vec<Vec<Route>>,
    /// The edges to all workers of each route of each actor whose output is not that of the job.
    pub edges: Vec<Vec<Vec<Arc<Edge>>>>,
    /// Whether it is nothing but a connector's reader.
    pub is_bare: bool,
    /// Leaves, by actor, whose live messages wait until they have caught up.
    pub held: BTreeSet<(usize, usize)>,
    /// Whether it waits for its turn.
    pub has_turn: bool,
    /// Work since it was last told how much state it has, in bytes.
    pub unweighed: usize,
    /// Its taps read other columns by now than its reader produces.
    pub is_stale: bool,
    /// Leaves that the worker feeds.
    pub inputs: Vec<Input>,
    /// Leaves of other jobs that read this one's output.
    pub taps: Vec<TapTarget>,
    /// What people read.
    pub view: Option<Arc<ViewPartition>>,
    /// Relations whose rows its actors look up: which actor, which relation.
    pub shared: Vec<(u32, RelationId)>,
    /// From this epoch on, epochs wait for it and checkpoints contain it. Barriers of earlier
    /// epochs may still be on their way through it.
    pub counts_from: Option<Epoch>,
    /// Its leaves take part in barriers; a job that is being created does from the epoch of its
    /// join on.
    pub joined: Option<Epoch>,
    /// The last barrier that its last actor has closed.
    pub last_passed: Epoch,
    /// It has told the coordinator that it may join.
    pub told_ready: bool,
    /// Of a resumed sink: what the relations with rows that it reads held when it stopped.
    pub told: BTreeMap<RelationId, Vec<FileMeta>>,
    /// Whose rows those are, where others have taken their places.
    pub formerly: BTreeMap<RelationId, Formerly>,
    /// Figures.
    pub figures: Arc<JobFigures>,
}

/// A leaf that does not receive from a fragment of the same job.
pub struct Input {
    /// The fragment.
    pub fragment: usize,
    /// The leaf within it.
    pub leaf: usize,
    /// What feeds it.
    pub kind: InputKind,
}

/// What feeds a leaf.
pub enum InputKind {
    /// The job's own connector.
    Source(Box<Source>),
    /// Written rows.
    Table(TableFeed),
    /// Constant rows, sent once.
    Values(Option<ChangeBatch>),
    /// Another relation.
    Tap {
        /// Which.
        upstream: RelationId,
        /// Its columns.
        columns: Vec<usize>,
        /// The leaf's own schema.
        schema: SchemaRef,
        /// Catching up.
        state: TapState,
    },
}

/// How far a tap is.
pub enum TapState {
    /// Receives live messages, or will from the job's join on.
    Live,
    /// Reads the source's past with a reader of its own.
    CatchUp(Box<CatchUp>),
    /// Sends rows that the relation held at the join.
    Snapshot {
        /// What is left of them.
        rows: SnapshotRows,
        /// Sent after them.
        barrier: Barrier,
        /// Sent after the barrier, in reverse order.
        later: Vec<ChangeBatch>,
    },
}

/// Rows that a relation held at a join.
pub enum SnapshotRows {
    /// Read piece by piece as they are wanted; the pin keeps them readable.
    Read {
        /// The reading.
        reading: Box<Reading>,
        /// Held until the last piece.
        _pin: Pin,
    },
    /// What makes the difference to what a receiver was told, in reverse order.
    Told(Vec<ChangeBatch>),
}

impl SnapshotRows {
    /// The next of them; `None` after the last.
    pub fn next(&mut self) -> Result<Option<ChangeBatch>> {
        match self {
            SnapshotRows::Read { reading, .. } => {
                Ok(reading.next_piece()?.map(ChangeBatch::insert))
            }
            SnapshotRows::Told(batches) => Ok(batches.pop()),
        }
    }
}

/// A reader and actor of its own for the past of an append-only source.
pub struct CatchUp {
    /// The reader.
    pub source: Source,
    /// The source's own operators.
    pub fragment: Fragment,
    /// Where it is ready to join.
    pub ready_at: Vec<SplitPosition>,
    /// Once joined: where to stop, and the barrier to send then.
    pub end: Option<(Vec<SplitPosition>, Barrier)>,
}

/// A leaf of another job that reads this job's output.
pub struct TapTarget {
    /// The job.
    pub job: RelationId,
    /// Its fragment.
    pub fragment: usize,
    /// Its leaf.
    pub leaf: usize,
    /// Its index in the job's inputs.
    pub input: usize,
    /// Columns of this relation.
    pub columns: Vec<usize>,
    /// The leaf's schema.
    pub schema: SchemaRef,
    /// Receives messages after the barrier of this epoch.
    pub after: Epoch,
    /// The way there.
    pub edge: Arc<Edge>,
}

impl TapTarget {
    /// A message to it.
    pub fn delivery(&self, message: Message) -> Delivery {
        Delivery {
            job: self.job,
            fragment: self.fragment,
            leaf: self.leaf,
            channel: 0,
            message,
        }
    }

    /// Picks the tap's columns from a batch that holds the columns `produced` of the relation.
    pub fn pick(&self, batch: &ChangeBatch, produced: &[usize]) -> Result<ChangeBatch> {
        pick(batch, produced, &self.columns, &self.schema)
    }
}

/// A leaf as the plan describes it.
pub struct LeafSpec {
    /// The fragment.
    pub fragment: usize,
    /// The leaf.
    pub leaf: usize,
    /// What it reads.
    pub op: Op,
    /// Its columns.
    pub schema: SchemaRef,
}

/// A job's actors, before its leaves are connected.
pub struct Actors {
    /// By fragment.
    pub fragments: Vec<Fragment>,
    /// By fragment.
    pub routes: Vec<Vec<Route>>,
    /// Leaves that are not fed by fragments of the job.
    pub leaves: Vec<LeafSpec>,
    /// What people read.
    pub view: Option<Arc<ViewPartition>>,
}

struct Builder<'a> {
    context: BuildContext,
    workers: usize,
    fragment: usize,
    slots: Vec<Slot>,
    leaves: Vec<Leaf>,
    specs: &'a mut Vec<LeafSpec>,
    receives: &'a mut Vec<(usize, usize, usize)>,
    view: &'a mut Option<Arc<ViewPartition>>,
}

enum Built {
    Slot(usize),
    Leaf(usize),
}

impl Builder<'_> {
    fn build(&mut self, node: &Node) -> Result<Built> {
        match &node.op {
            op @ (Op::SourceRead { .. }
            | Op::TableRead
            | Op::Tap { .. }
            | Op::Values { .. }
            | Op::Receive { .. }) => {
                let leaf = self.leaves.len();
                let channels = if let Op::Receive { from } = op {
                    self.receives.push((*from as usize, self.fragment, leaf));
                    self.workers
                } else {
                    self.specs.push(LeafSpec {
                        fragment: self.fragment,
                        leaf,
                        op: op.clone(),
                        schema: nullable(&node.schema),
                    });
                    1
                };
                self.leaves.push(Leaf {
                    parent: None,
                    channels: (0..channels).map(|_| Channel::default()).collect(),
                });
                Ok(Built::Leaf(leaf))
            }
            _ => {
                let inputs = node.read().into_iter().map(|input| self.build(input));
                let inputs = inputs.collect::<Result<Vec<_>>>()?;
                let built = build_operator(node, &mut self.context)?;
                if built.view.is_some() {
                    *self.view = built.view;
                }
                let slot = self.slots.len();
                self.slots.push(Slot {
                    operator: built.operator,
                    parent: None,
                });
                for (port, input) in inputs.into_iter().enumerate() {
                    match input {
                        Built::Slot(i) => self.slots[i].parent = Some((slot, port)),
                        Built::Leaf(i) => self.leaves[i].parent = Some((slot, port)),
                    }
                }
                Ok(Built::Slot(slot))
            }
        }
    }
}

/// Builds the actors of a job for one worker.
pub fn build_actors(
    relation: &Relation,
    plan: &JobPlan,
    placement: &Placement,
    worker: WorkerId,
    neighbours: &Arc<Neighbours>,
    mut sink: Option<SinkOutput>,
) -> Result<Actors> {
    let workers = placement.workers();
    let vnodes = placement.spread(relation).vnodes(worker);
    let (mut fragments, mut specs, mut receives, mut view) =
        (Vec::new(), Vec::new(), Vec::new(), None);
    for fragment in &plan.fragments {
        let is_last = matches!(fragment.output, Output::Relation);
        let context = BuildContext {
            relation: relation.name.clone(),
            vnode_of_worker: vnodes.start as u16,
            owns_vnode_zero: vnodes.start == 0,
            on_error: relation.on_error,
            sink_output: if is_last { sink.take() } else { None },
            neighbours: neighbours.clone(),
        };
        let mut builder = Builder {
            context,
            workers,
            fragment: fragment.id as usize,
            slots: Vec::new(),
            leaves: Vec::new(),
            specs: &mut specs,
            receives: &mut receives,
            view: &mut view,
        };
        builder.build(&fragment.root)?;
        fragments.push(Fragment::new(builder.slots, builder.leaves));
    }
    let routes = plan
        .fragments
        .iter()
        .map(|f| routes(f.id as usize, &f.output, &receives))
        .collect::<Result<Vec<_>>>()?;
    Ok(Actors {
        fragments,
        routes,
        leaves: specs,
        view,
    })
}

/// The routes of a fragment. Those to several leaves of one fragment are in the order of these.
fn routes(from: usize, output: &Output, receives: &[(usize, usize, usize)]) -> Result<Vec<Route>> {
    let mut left: Vec<_> = receives.iter().filter(|(f, ..)| *f == from).collect();
    let mut leaf_in = |to: u32| {
        let found = left
            .iter()
            .position(|(_, fragment, _)| *fragment == to as usize);
        found.map(|at| left.remove(at).2).ok_or_else(|| {
            Error::internal(format!(
                "fragment {to} does not receive from fragment {from}"
            ))
        })
    };
    let route = |output: &Output| {
        Ok(match output {
            Output::Exchange { to, keys } => Route::Hash {
                fragment: *to as usize,
                leaf: leaf_in(*to)?,
                keys: keys.clone(),
            },
            Output::Broadcast { to } => Route::Broadcast {
                fragment: *to as usize,
                leaf: leaf_in(*to)?,
            },
            Output::Relation => Route::Taps,
            Output::Several(_) => return Err(Error::internal("outputs within outputs")),
        })
    };
    output.each().iter().map(route).collect()
}

/// Constant rows of a `Values` leaf.
pub fn constant_rows(rows: &[Vec<Expr>], schema: &SchemaRef) -> Result<Option<ChangeBatch>> {
    tidemark_operator::values::values(rows, schema)
}

impl Job {
    /// Whether this epoch waits for it.
    pub fn counts(&self, epoch: Epoch) -> bool {
        self.counts_from.is_some_and(|from| epoch >= from)
    }

    /// Tells how much state it has on this worker, beside what people read.
    pub fn tell_memory(&self, worker: WorkerId) {
        let known: usize = self.actors.iter().map(|a| a.memory_bytes).sum();
        self.figures.memory[worker].store(known as u64, Ordering::Relaxed);
    }

    /// Whether its rows come from statements.
    pub fn is_table(&self) -> bool {
        let mut kinds = self.inputs.iter().map(|i| &i.kind);
        kinds.any(|kind| matches!(kind, InputKind::Table(_)))
    }

    /// Whether an actor of its has something to do.
    pub fn has_work(&self) -> bool {
        self.actors.iter().any(Actor::has_work)
    }

    /// The actor that takes the next slice: of those that have something to do and room for what
    /// they send the last one, so that what is on its way comes to its end.
    pub fn next_actor(&self) -> Option<usize> {
        let may_go_on = |i: &usize| self.actors[*i].has_work() && self.has_room(*i);
        (0..self.actors.len()).rev().find(may_go_on)
    }

    /// Whether an actor's output is that of the job.
    pub fn ends_with(&self, actor: usize) -> bool {
        matches!(self.routes[actor][..], [Route::Taps])
    }

    fn has_room(&self, actor: usize) -> bool {
        match self.ends_with(actor) {
            true => self.taps.iter().all(|tap| tap.edge.has_room()),
            false => self.edges[actor].iter().flatten().all(|e| e.has_room()),
        }
    }

    /// The columns of the relation that its output batches hold. Sources whose only operator is the
    /// reader produce what is asked for.
    pub fn produced(&self) -> Vec<usize> {
        match self.pruned_source() {
            Some(source) => source.produced.clone(),
            None => (0..self.relation.columns.len()).collect(),
        }
    }

    /// Its own connector's reader.
    pub fn reader(&self) -> Option<&Source> {
        self.inputs.iter().find_map(|i| match &i.kind {
            InputKind::Source(source) => Some(source.as_ref()),
            _ => None,
        })
    }

    fn pruned_source(&self) -> Option<&Source> {
        self.inputs.iter().find_map(|i| {
            if let (true, InputKind::Source(s)) = (self.is_bare, &i.kind) {
                Some(s.as_ref())
            } else {
                None
            }
        })
    }

    /// Makes the reader produce what the taps read: as soon as nothing is on its way any more that
    /// has other columns. Rows that a new tap is to get are read later than those.
    pub fn prune_source(&mut self) {
        self.is_stale = self.has_work();
        if self.is_stale || self.pruned_source().is_none() {
            return;
        }
        let wanted: Vec<usize> = self
            .taps
            .iter()
            .flat_map(|t| t.columns.iter().copied())
            .collect();
        if let Some(InputKind::Source(source)) = self.inputs.first_mut().map(|i| &mut i.kind) {
            source.produce(wanted);
        }
    }

    /// Whether all its taps that read the past have come far enough to join.
    pub fn may_join(&self) -> bool {
        self.inputs.iter().all(|i| match &i.kind {
            InputKind::Tap {
                state: TapState::CatchUp(c),
                ..
            } => c.source.has_reached(&c.ready_at),
            _ => true,
        })
    }
}

/// Rows that come or go, in the order in which `pop` returns them.
pub fn reversed(batches: Vec<RecordBatch>, weight: i64) -> Vec<ChangeBatch> {
    let changes = |rows: RecordBatch| {
        let weights = vec![weight; rows.num_rows()];
        ChangeBatch::new(rows, weights)
    };
    batches.into_iter().rev().map(changes).collect()
}
