//! Every node of a running plan, watched: [`watched`] puts each into a [`Watched`], which stands
//! for it in all respects (name, children, metrics) and looks after the batches that it gives.
//!
//! *A query ends when it is told.* The flag of who waits is looked at before each batch and,
//! through [`tidemark_common::check_interrupt`], by our functions and by the conditions of filters
//! and joins while they compute: a join whose condition rejects everything gives no batch for
//! minutes. And after some batches the thread goes on with another query.
//!
//! *What is computed at once stays small,* whatever the values are, so that one step takes neither
//! much memory nor long. A projection takes as many rows at a time as its values fit a step
//! together ([`STEP_BYTES`], less where many queries run and at the beginning), a row at least;
//! filters and arguments of aggregates ([`piecewise`]) likewise. Larger batches are cut before
//! they go on. Of the side of a join that is read last, as many rows come at a time as may stand
//! beside the widest row of the other.
//!
//! *What is held is counted,* where DataFusion does not: what a projection has computed, until it
//! computes the next; and the input of window functions that need it whole.

mod piecewise;
mod stream;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties,
};
use piecewise::{Piecewise, is_plain};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// Bytes of values that are computed in one step at most, if they are of more than one row.
pub(super) const STEP_BYTES: usize = 2 << 20;

/// Bytes of the first steps of what goes to a client. Steps grow with what has been passed on, by a
/// byte for each [`PASSED_FOR_ONE`]: of an answer that is not read only little is on its way.
pub(super) const FIRST_STEP_BYTES: usize = 32 << 10;
const PASSED_FOR_ONE: usize = 64;

/// Rows that a filter puts together of texts and lists, which may be long, for a client.
const WIDE_ROWS: usize = 256;

/// Bytes of a batch that goes on as it is.
const BATCH_BYTES: usize = 16 << 20;

/// What a plan is held to.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// It ends when this is set.
    pub stop: Arc<AtomicBool>,
    /// Bytes of the first steps.
    pub first_step: usize,
    /// Bytes of a step, and of what goes to the client at once.
    pub step: usize,
}

/// The plan with every node watched.
pub(super) fn watched(
    plan: Arc<dyn ExecutionPlan>,
    bounds: &Bounds,
) -> Result<Arc<dyn ExecutionPlan>> {
    let done = plan.transform_up(|plan| {
        // What is known of a node's rows stays as it was: made anew for each, it would be made anew
        // for all above, which takes minutes for hundreds of joins.
        let known = plan.properties().clone();
        let plan = with_small_steps(plan, bounds)?;
        let plan = with_watched_sides(plan, bounds)?;
        let computes = plan
            .downcast_ref::<ProjectionExec>()
            .is_some_and(|p| !p.expr().iter().all(|e| is_plain(&e.expr)));
        let role = if computes {
            Role::Computes
        } else {
            Role::Passes
        };
        Ok(Transformed::yes(Watched::of(plan, known, role, bounds)))
    })?;
    let known = done.data.properties().clone();
    Ok(Watched::of(done.data, known, Role::Leaves, bounds))
}

/// The node with conditions and arguments that are evaluated in small steps.
fn with_small_steps(
    plan: Arc<dyn ExecutionPlan>,
    bounds: &Bounds,
) -> Result<Arc<dyn ExecutionPlan>> {
    let step = bounds.step;
    let of_join = |filter: &JoinFilter| {
        let condition = Piecewise::of(filter.expression().clone(), step);
        JoinFilter::new(
            condition,
            filter.column_indices().to_vec(),
            filter.schema().clone(),
        )
    };
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let condition = Piecewise::of(filter.predicate().clone(), step);
        let fields = filter.schema().fields().clone();
        let is_wide = fields
            .iter()
            .any(|f| f.data_type().primitive_width().is_none());
        let rows = match is_wide && bounds.first_step < bounds.step {
            true => filter.batch_size().min(WIDE_ROWS),
            false => filter.batch_size(),
        };
        let filter = FilterExecBuilder::from(filter).with_predicate(condition);
        return Ok(Arc::new(filter.with_batch_size(rows).build()?));
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        let condition = join.filter().map(of_join);
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(condition);
        return Ok(Arc::new(join.build()?));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(condition) = join.filter().map(of_join)
    {
        let join = HashJoinExecBuilder::from(join).with_filter(Some(condition));
        return Ok(Arc::new(join.build()?));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
        && let Some(small) = piecewise::aggregates(aggregate, step)
    {
        return Ok(Arc::new(aggregate.with_new_aggr_exprs(small)));
    }
    Ok(plan)
}

/// The node with inputs that know of each other, or that are counted.
fn with_watched_sides(
    plan: Arc<dyn ExecutionPlan>,
    bounds: &Bounds,
) -> Result<Arc<dyn ExecutionPlan>> {
    let joins =
        plan.is::<CrossJoinExec>() || plan.is::<NestedLoopJoinExec>() || plan.is::<HashJoinExec>();
    let roles = if joins {
        let widest = Arc::new(AtomicUsize::new(0));
        let pairs = match plan.is::<CrossJoinExec>() {
            true => Pairs::All,
            false => Pairs::Some,
        };
        vec![Role::Widest(widest.clone()), Role::Beside(widest, pairs)]
    } else if plan.is::<WindowAggExec>() {
        vec![Role::Kept]
    } else {
        return Ok(plan);
    };
    let inputs: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
    let inputs = inputs.into_iter().zip(roles);
    let inputs = inputs.map(|(input, role)| {
        let known = input.properties().clone();
        Watched::of(input, known, role, bounds)
    });
    let inputs = inputs.collect();
    datafusion::physical_plan::replace_children_if_necessary(plan, inputs)
}

/// What is to be done with the batches of a node.
#[derive(Clone, Debug)]
enum Role {
    /// They go on, in pieces if they are large.
    Passes,
    /// They are computed here: the node is a projection.
    Computes,
    /// They go to the client, who takes them when it likes.
    Leaves,
    /// They are held by who reads them.
    Kept,
    /// The widest of their rows is told to the other side of a join.
    Widest(Arc<AtomicUsize>),
    /// Each of their rows comes to stand beside rows of the other side.
    Beside(Arc<AtomicUsize>, Pairs),
}

/// Which rows of a join's sides come to stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairs {
    All,
    Some,
}

/// A node, watched.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn ExecutionPlan>,
    known: Arc<PlanProperties>,
    role: Role,
    bounds: Bounds,
    metrics: ExecutionPlanMetricsSet,
}

impl Watched {
    fn of(
        inner: Arc<dyn ExecutionPlan>,
        known: Arc<PlanProperties>,
        role: Role,
        bounds: &Bounds,
    ) -> Arc<dyn ExecutionPlan> {
        Arc::new(Watched {
            inner,
            known,
            role,
            bounds: bounds.clone(),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Another node in the same role, and what is known of its rows.
    fn instead(
        &self,
        inner: Arc<dyn ExecutionPlan>,
        known: Arc<PlanProperties>,
    ) -> Arc<dyn ExecutionPlan> {
        Watched::of(inner, known, self.role.clone(), &self.bounds)
    }

    /// Another node in the same role, of which is known what it says itself.
    fn anew(&self, inner: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        let known = inner.properties().clone();
        self.instead(inner, known)
    }

    /// Its own node, if its batches are computed here.
    fn projection(&self) -> Option<&ProjectionExec> {
        match self.role {
            Role::Computes => self.inner.downcast_ref(),
            _ => None,
        }
    }
}

impl DisplayAs for Watched {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_as(t, f)
    }
}

impl ExecutionPlan for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.inner.as_ref())
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.known
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.inner.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inner.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.clone().replace_children(children, options)?;
        match options.children_properties {
            ChildrenPropertiesMode::Keep => Ok(self.instead(inner, self.known.clone())),
            ChildrenPropertiesMode::Recompute => Ok(self.anew(inner)),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner =
            datafusion::physical_plan::replace_children_if_necessary(self.inner.clone(), children)?;
        Ok(self.anew(inner))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.clone().reset_state()?;
        Ok(self.instead(inner, self.known.clone()))
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn ExecutionPlan>> {
        let inner = self.inner.with_new_state(state)?;
        Some(self.instead(inner, self.known.clone()))
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = match self.projection() {
            Some(projection) => projection.input().execute(partition, task.clone())?,
            None => self.inner.execute(partition, task.clone())?,
        };
        let work = match (self.projection(), &self.role) {
            (Some(projection), _) => stream::Work::Compute {
                values: projection.expr().iter().map(|e| e.expr.clone()).collect(),
                metrics: BaselineMetrics::new(&self.metrics, partition),
            },
            (None, Role::Kept) => stream::Work::Keep,
            (None, Role::Widest(widest)) => stream::Work::Measure(widest.clone()),
            (None, Role::Beside(widest, pairs)) => stream::Work::Beside(widest.clone(), *pairs),
            (None, Role::Leaves) => stream::Work::Leave,
            (None, Role::Passes | Role::Computes) => stream::Work::Pass,
        };
        let schema = self.inner.schema();
        let pieces = stream::Pieces::new(input, schema, work, self.bounds.clone(), &task);
        Ok(Box::pin(pieces))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        match self.projection() {
            Some(_) => Some(self.metrics.clone_inner()),
            None => self.inner.metrics(),
        }
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.inner.child_stats_requests(partition)
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.inner.statistics_from_inputs(inputs, args)
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.inner.cardinality_effect()
    }
}
