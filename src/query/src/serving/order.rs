//! What DataFusion forgets or believes of the order of rows, and leaves out a sort for:
//!
//! * A column of the side of an outer join that may be missing is NULL there, so what is constant
//!   or equal on that side is not above the join; and what is constant in each input of a union has
//!   several values above it. A column that a filter finds equal to something computed, as in
//!   `x + 5 = x`, is taken for it in orders and partitions, and not found again. A node above such
//!   joins, unions and filters says that nothing is known.
//! * OFFSET without LIMIT looks at the order of rows as LIMIT does. It goes right above the sort,
//!   with a node between them that asks for the order.

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr,
};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    replace_children_if_necessary,
};
use std::fmt;
use std::sync::Arc;

/// Puts the nodes in; comes before all rules that ask for orders.
#[derive(Debug)]
pub struct KnownOrders;

impl PhysicalOptimizerRule for KnownOrders {
    fn name(&self) -> &str {
        "known_orders"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let done = plan.transform_up(|plan| {
            if is_believed_wrongly(plan.as_ref()) {
                let node = Between::new(plan, None);
                return Ok(Transformed::yes(Arc::new(node) as _));
            }
            let skipped = plan
                .downcast_ref::<GlobalLimitExec>()
                .filter(|limit| limit.skip() > 0 && limit.fetch().is_none())
                .map(|limit| skip_above_sort(limit.input(), limit.skip()));
            Ok(match skipped.transpose()?.flatten() {
                Some(skipped) => Transformed::yes(skipped),
                None => Transformed::no(plan),
            })
        })?;
        Ok(done.data)
    }
}

/// Whether DataFusion takes for constant or equal above a node what is not.
fn is_believed_wrongly(plan: &dyn ExecutionPlan) -> bool {
    let outer = matches!(
        join_type(plan),
        Some(JoinType::Left | JoinType::Right | JoinType::Full)
    );
    let computed = plan.downcast_ref::<FilterExec>().is_some_and(|filter| {
        let conditions = split_conjunction(filter.predicate());
        conditions.into_iter().any(equates_computed)
    });
    outer || computed || plan.is::<UnionExec>() || plan.is::<InterleaveExec>()
}

/// Whether a condition is `a = b`, of which neither is a constant and not both are columns.
fn equates_computed(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let Some(equal) = condition.downcast_ref::<BinaryExpr>() else {
        return false;
    };
    let sides = [equal.left(), equal.right()];
    *equal.op() == Operator::Eq
        && !sides.iter().any(|side| side.is::<Literal>())
        && !sides.iter().all(|side| side.is::<Column>())
}

/// The plan with its first rows skipped, if it is a sort, or projections of one.
fn skip_above_sort(
    plan: &Arc<dyn ExecutionPlan>,
    skip: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let in_order = Between::new(plan.clone(), Some(sort.expr().clone()));
        let skipped = GlobalLimitExec::new(Arc::new(in_order), skip, None);
        return Ok(Some(Arc::new(skipped)));
    }
    let Some(projection) = plan.downcast_ref::<ProjectionExec>() else {
        return Ok(None);
    };
    match skip_above_sort(projection.input(), skip)? {
        Some(skipped) => replace_children_if_necessary(plan.clone(), vec![skipped]).map(Some),
        None => Ok(None),
    }
}

fn join_type(plan: &dyn ExecutionPlan) -> Option<JoinType> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return Some(join.join_type);
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return Some(*join.join_type());
    }
    plan.downcast_ref::<SortMergeJoinExec>()
        .map(|join| join.join_type())
}

/// Passes its input on: in an order that it asks for, or without anything that is known of it.
#[derive(Debug)]
struct Between {
    input: Arc<dyn ExecutionPlan>,
    asks_for: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
}

impl Between {
    fn new(input: Arc<dyn ExecutionPlan>, asks_for: Option<LexOrdering>) -> Between {
        let known = match &asks_for {
            Some(_) => input.equivalence_properties().clone(),
            None => EquivalenceProperties::new(input.schema()),
        };
        let properties = PlanProperties::new(
            known,
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Between {
            input,
            asks_for,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for Between {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for Between {
    fn name(&self) -> &str {
        match self.asks_for {
            Some(_) => "InOrder",
            None => "NothingKnown",
        }
    }

    fn schema(&self) -> Arc<Schema> {
        self.input.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![match self.asks_for {
            Some(_) => Distribution::SinglePartition,
            None => Distribution::UnspecifiedDistribution,
        }]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.asks_for.clone().map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.asks_for.is_some()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let asks_for = self.asks_for.clone();
        Ok(Arc::new(Between::new(children.swap_remove(0), asks_for)))
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let asks_for = self.asks_for.clone();
        Ok(Arc::new(Between::new(children.swap_remove(0), asks_for)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(inputs[0].clone())
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
