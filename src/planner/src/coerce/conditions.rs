//! Conditions of joins that know more than the two sides: those with subqueries that refer to the
//! sides, and in a subquery those that refer to the outside. DataFusion decorrelates what stands in
//! filters, so of an inner join they become a filter above it, which is the same. Of an outer join
//! it is another query, and refused (`0A000`).
//!
//! Subqueries in aggregates and in what is grouped by are computed below the aggregate.

use super::apart::subquery_of;
use crate::error::external;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::Join;
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Operator};
use datafusion_optimizer::AnalyzerRule;
use tidemark_common::Error;

/// The rule; it comes before anything else looks at subqueries.
#[derive(Debug)]
pub(super) struct Conditions;

impl AnalyzerRule for Conditions {
    fn name(&self) -> &str {
        "conditions"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Names are told apart by their number in the whole statement.
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) => filtered(join),
            LogicalPlan::Aggregate(_) => computed_below(node, &mut named),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(done.data)
    }
}

/// A join whose condition knows nothing but its sides.
pub(super) fn filtered(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let Some(condition) = &join.filter else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    if !knows_more(condition)? {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    if join.join_type != JoinType::Inner {
        let message = "a correlated subquery in or around the ON of an outer join is not supported";
        let error = Error::unsupported(message);
        return Err(external(
            error.with_hint("Put the condition into WHERE, or into a view."),
        ));
    }
    let (mut inside, mut above) = (Vec::new(), Vec::new());
    for condition in split_conjunction_owned(condition.clone()) {
        match knows_more(&condition)? {
            true => above.push(condition),
            false => inside.push(condition),
        }
    }
    join.filter = conjunction(inside);
    let mut plan = LogicalPlanBuilder::from(LogicalPlan::Join(join));
    if let Some(condition) = conjunction(above) {
        plan = plan.filter(condition)?;
    }
    Ok(Transformed::yes(plan.build()?))
}

/// Whether a condition, or a subquery in it, refers to what is outside.
fn knows_more(condition: &Expr) -> Result<bool> {
    let mut more = condition.contains_outer();
    condition.apply(|e| {
        more |= subquery_of(e).is_some_and(|s| !s.outer_ref_columns.is_empty());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(more)
}

/// Whether a value that may fail is asked for in some rows only: below it would be in all.
fn is_guarded(expr: &Expr) -> Result<bool> {
    let (mut guards, mut values) = (false, false);
    expr.apply(|e| {
        guards |= match e {
            Expr::Case(_) => true,
            Expr::AggregateFunction(call) => call.params.filter.is_some(),
            Expr::ScalarFunction(call) => matches!(call.func.name(), "coalesce" | "nullif"),
            Expr::BinaryExpr(b) => matches!(b.op, Operator::And | Operator::Or),
            _ => false,
        };
        values |= matches!(e, Expr::ScalarSubquery(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(guards && values)
}

/// An aggregate of columns, in place of one of subqueries.
pub(super) fn computed_below(
    node: LogicalPlan,
    named: &mut usize,
) -> Result<Transformed<LogicalPlan>> {
    let input = node.inputs()[0].clone();
    let names = NamePreserver::new(&node);
    let mut computed = Vec::new();
    let rewritten = node.map_expressions(|expr| {
        let name = names.save(&expr);
        if is_guarded(&expr)? {
            return Ok(Transformed::no(expr));
        }
        let done = expr.transform_down(|e| {
            if subquery_of(&e).is_none() {
                return Ok(Transformed::no(e));
            }
            let column = format!("__computed_{named}");
            *named += 1;
            computed.push(e.alias(&column));
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
                column,
            ))))
        })?;
        Ok(done.update_data(|e| name.restore(e)))
    })?;
    if computed.is_empty() {
        return Ok(rewritten);
    }
    let kept: Vec<Expr> = input
        .schema()
        .iter()
        .map(|f| Expr::Column(Column::from(f)))
        .collect();
    let below = LogicalPlanBuilder::from(input)
        .project(kept.into_iter().chain(computed))?
        .build()?;
    rewritten.map_data(|node| {
        let exprs = node.expressions();
        node.with_new_exprs(exprs, vec![below.clone()])
    })
}
