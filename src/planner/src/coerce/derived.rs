//! Queries in the FROM of a subquery that refer to the outside of it:
//!
//! ```text
//! SELECT (SELECT sum(x.v) FROM (SELECT o.v FROM o WHERE o.c = t.id) AS x) FROM t
//! ```
//!
//! DataFusion decorrelates by taking `o.c` up to where the subquery is joined, through anything but
//! the name `x`. A projection that gives its columns to `x` takes the place of that name, and what
//! is compared with the outside gets names that nothing else has.

use super::conditions::filtered;
use crate::error::external;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result};
use datafusion_expr::logical_plan::{Filter, Join, Projection, SubqueryAlias};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_common::Error;

/// The rule; it comes before what looks at the shape of subqueries.
#[derive(Debug)]
pub(super) struct Derived;

impl AnalyzerRule for Derived {
    fn name(&self) -> &str {
        "derived"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Names are told apart by their number in the whole statement.
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::SubqueryAlias(alias) if refers_outside(&alias.input)? => {
                unnamed(alias, &mut named).map(Transformed::yes)
            }
            LogicalPlan::Join(join) if may_be_asked_above(&join)? => joined(join),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(done.data)
    }
}

/// Whether a plan refers to the outside of the subquery that it stands in.
fn refers_outside(plan: &LogicalPlan) -> Result<bool> {
    let mut refers = false;
    plan.apply(|node| {
        // What is in there refers to what stands beside it.
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        node.apply_expressions(|e| {
            refers |= e.contains_outer();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(match refers {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(refers)
}

/// A join above which stands what its sides compare with the outside: DataFusion takes nothing
/// through joins.
///
/// Errors: `0A000` for a side that compares in the midst of something else.
fn joined(join: Join) -> Result<Transformed<LogicalPlan>> {
    let schema = join.schema.clone();
    let join = LogicalPlan::Join(join);
    if !refers_outside(&join)? {
        return Ok(Transformed::no(join));
    }
    let mut predicates = Vec::new();
    let join = lifted(join, &mut predicates)?;
    let Some(predicate) = conjunction(predicates) else {
        return Ok(Transformed::yes(join));
    };
    let columns = schema.iter().map(Column::from).map(Expr::Column);
    let above = LogicalPlanBuilder::from(join).filter(predicate)?;
    above.project(columns)?.build().map(Transformed::yes)
}

/// Whether a condition on a side's rows may as well be asked of the join's: it adds none without
/// them.
fn may_be_asked_above(join: &Join) -> Result<bool> {
    Ok(match join.join_type {
        JoinType::Inner => true,
        JoinType::Left => !refers_outside(&join.right)?,
        JoinType::Right => !refers_outside(&join.left)?,
        _ => false,
    })
}

/// A plan without the filters on the outside, which are handed out; their columns are handed up.
fn lifted(plan: LogicalPlan, predicates: &mut Vec<Expr>) -> Result<LogicalPlan> {
    if !refers_outside(&plan)? {
        return Ok(plan);
    }
    let known = predicates.len();
    match plan {
        LogicalPlan::Filter(filter) => {
            let input = lifted(Arc::unwrap_or_clone(filter.input), predicates)?;
            if filter.predicate.contains_outer() {
                predicates.push(filter.predicate);
                return Ok(input);
            }
            Filter::try_new(filter.predicate, Arc::new(input)).map(LogicalPlan::Filter)
        }
        LogicalPlan::Projection(projection)
            if !projection.expr.iter().any(Expr::contains_outer) =>
        {
            let input = lifted(Arc::unwrap_or_clone(projection.input), predicates)?;
            let read = predicates[known..].iter().flat_map(Expr::column_refs);
            let read = read.map(|column| Expr::Column(column.clone()));
            let columns = projection.expr.iter().cloned().chain(read).collect();
            Projection::try_new(columns, Arc::new(input)).map(LogicalPlan::Projection)
        }
        LogicalPlan::Join(join) if may_be_asked_above(&join)? => {
            let sides = [&join.left, &join.right].map(|side| side.as_ref().clone());
            let [left, right] = sides.map(|side| lifted(side, predicates));
            let join = LogicalPlan::Join(join);
            join.with_new_exprs(join.expressions(), vec![left?, right?])
        }
        _ => {
            let message = "a correlated subquery that joins a query with more than conditions on \
                           the outside is not supported";
            Err(external(Error::unsupported(message)))
        }
    }
}

/// The projection that a name is.
fn unnamed(alias: SubqueryAlias, named: &mut usize) -> Result<LogicalPlan> {
    let input = Arc::unwrap_or_clone(alias.input);
    let input = input.transform_up(|node| match node {
        LogicalPlan::Join(join) => filtered(join),
        LogicalPlan::Filter(filter) if filter.predicate.contains_outer() => {
            compared(filter, named).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    let input = input.data;
    let fields = alias.schema.iter().zip(input.schema().iter());
    let columns = fields.map(|((table, field), inner)| {
        Expr::Column(Column::from(inner)).alias_qualified(table.cloned(), field.name())
    });
    let columns = columns.collect();
    Projection::try_new(columns, Arc::new(input)).map(LogicalPlan::Projection)
}

/// A filter in which columns that stand beside the outside are columns of their own.
fn compared(filter: Filter, named: &mut usize) -> Result<LogicalPlan> {
    let mut computed = Vec::new();
    let predicate = filter.predicate.transform_up(|e| match e {
        Expr::Column(_) => {
            let name = format!("__derived_{named}");
            *named += 1;
            computed.push(e.alias(&name));
            Ok(Transformed::yes(Expr::Column(Column::from_name(name))))
        }
        e => Ok(Transformed::no(e)),
    })?;
    let columns: Vec<Expr> = filter
        .input
        .schema()
        .iter()
        .map(Column::from)
        .map(Expr::Column)
        .collect();
    LogicalPlanBuilder::from(Arc::unwrap_or_clone(filter.input))
        .project(columns.iter().cloned().chain(computed))?
        .filter(predicate.data)?
        .project(columns)?
        .build()
}
