//! References from a subquery to what is outside of it. A subquery may stand in another one; what
//! it refers to belongs to the innermost query around it that has a column of that name. So a walk
//! through a plan remembers the columns of the queries that it has come through.

use crate::coerce::apart::subquery_of;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Subquery, SubqueryAlias};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, LogicalPlan};
use std::sync::Arc;

/// What a reference becomes, given whether it stands in a subquery further in; `None`: it stays.
type Replace<'a> = dyn FnMut(&Expr, bool) -> Option<Expr> + 'a;

/// The columns that a subquery's plan refers to outside of itself, each once.
pub(in crate::coerce) fn of_plan(plan: &LogicalPlan) -> Result<Vec<Expr>> {
    let mut found: Vec<Expr> = Vec::new();
    in_plan(plan.clone(), &mut Vec::new(), &mut |reference, _| {
        if !found.contains(reference) {
            found.push(reference.clone());
        }
        None
    })?;
    Ok(found)
}

/// An expression of a node that reads `input`, with other references.
pub(super) fn in_expr(
    expr: Expr,
    input: &DFSchema,
    replace: &mut Replace<'_>,
) -> Result<Transformed<Expr>> {
    through(expr, &Arc::new(input.clone()), &mut Vec::new(), replace)
}

/// The query that a table of FROM is, if it refers to the tables before it.
pub(in crate::coerce) fn lateral(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => match input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some(subquery),
            _ => None,
        },
        _ => None,
    }
}

/// `inside`: the columns of the queries between the plan and what is outside.
fn in_plan(
    plan: LogicalPlan,
    inside: &mut Vec<DFSchemaRef>,
    replace: &mut Replace<'_>,
) -> Result<LogicalPlan> {
    let plan = match plan {
        LogicalPlan::Subquery(subquery) => {
            return in_subquery(subquery, inside, replace).map(LogicalPlan::Subquery);
        }
        plan => plan,
    };
    let input = Arc::new(merge_schema(&plan.inputs()));
    let before = match &plan {
        LogicalPlan::Join(join) => Some(join.left.schema().clone()),
        _ => None,
    };
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = through(expr, &input, inside, replace)?;
        Ok(match done.transformed {
            true => done.update_data(|e| name.restore(e)),
            false => done,
        })
    })?;
    let plan = plan.data.map_children(|child| {
        let beside = before.as_ref().filter(|_| lateral(&child).is_some());
        let depth = inside.len();
        inside.extend(beside.cloned());
        let child = in_plan(child, inside, replace);
        inside.truncate(depth);
        child.map(Transformed::yes)
    })?;
    Ok(plan.data)
}

fn in_subquery(
    subquery: Subquery,
    inside: &mut Vec<DFSchemaRef>,
    replace: &mut Replace<'_>,
) -> Result<Subquery> {
    let plan = in_plan(Arc::unwrap_or_clone(subquery.subquery), inside, replace)?;
    Ok(Subquery {
        outer_ref_columns: of_plan(&plan)?,
        subquery: Arc::new(plan),
        spans: subquery.spans,
    })
}

/// An expression of a node that reads `input`.
fn through(
    expr: Expr,
    input: &DFSchemaRef,
    inside: &mut Vec<DFSchemaRef>,
    replace: &mut Replace<'_>,
) -> Result<Transformed<Expr>> {
    expr.transform_up(|e| {
        if let Expr::OuterReferenceColumn(_, column) = &e {
            let is_inside = inside.iter().any(|schema| schema.has_column(column));
            let other = match is_inside {
                true => None,
                false => replace(&e, !inside.is_empty()),
            };
            return Ok(match other {
                Some(other) => Transformed::yes(other),
                None => Transformed::no(e),
            });
        }
        if subquery_of(&e).is_none() {
            return Ok(Transformed::no(e));
        }
        inside.push(input.clone());
        let done = with_subquery(e, |subquery| in_subquery(subquery, inside, replace));
        inside.pop();
        done.map(Transformed::yes)
    })
}

/// An expression that is a subquery, with another one.
pub(super) fn with_subquery(
    expr: Expr,
    change: impl FnOnce(Subquery) -> Result<Subquery>,
) -> Result<Expr> {
    Ok(match expr {
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(change(subquery)?),
        Expr::Exists(exists) => Expr::Exists(Exists {
            subquery: change(exists.subquery)?,
            negated: exists.negated,
        }),
        Expr::InSubquery(i) => Expr::InSubquery(InSubquery {
            subquery: change(i.subquery)?,
            ..i
        }),
        Expr::SetComparison(set) => Expr::SetComparison(SetComparison {
            subquery: change(set.subquery)?,
            ..set
        }),
        other => other,
    })
}

/// The column that a reference is to.
pub(in crate::coerce) fn column(reference: &Expr) -> Option<&Column> {
    match reference {
        Expr::OuterReferenceColumn(_, column) => Some(column),
        _ => None,
    }
}
