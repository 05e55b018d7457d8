//! Marks: functions that the parser writes into a query and that are never called. What they stand
//! for takes their place when the query is bound (`timed`, `changelog`); one that is left is an
//! error.

use datafusion_common::Result;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{Expr, LogicalPlan};

/// Whether a plan, its subqueries included, has an expression that is a mark.
pub(crate) fn has_marks(plan: &LogicalPlan, is_mark: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(is_mark(e)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}
