//! What DataFusion forgets or believes of the order of rows, and leaves out a sort for:
//!
//! * A column of the side of an outer join that may be missing is NULL there, so what is constant
//!   or equal on that side is not above the join; and what is constant in each input of a union has
//!   several values above it. A column that a filter finds equal to something computed, as in
//!   `x + 5 = x`, is taken for it in orders and partitions, and not found again. A node above such
//!   joins, unions and filters says that nothing is known.
//! * OFFSET without LIMIT looks at the order of rows as LIMIT does. It goes right above the sort,
//!   with a node between them that asks for the order.

use super::passing::Passing;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};
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
                return Ok(Transformed::yes(Arc::new(Passing::nothing_known(plan)) as _));
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
        let in_order = Passing::in_order(plan.clone(), sort.expr().clone());
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
