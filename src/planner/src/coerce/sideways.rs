//! Subqueries that compare with columns outside of them by anything but `=`, and such that read no
//! table.
//!
//! DataFusion makes a join of a correlated aggregate if all that it compares with the outside are
//! equalities. So the values of the outside are brought in: in
//!
//! ```text
//! SELECT (SELECT count(*) FROM s WHERE s.a < t.b) FROM t
//! ```
//!
//! the subquery becomes one over `s` and the different values of `t.b`,
//!
//! ```text
//! SELECT count(*) FROM s, (SELECT DISTINCT b AS c0 FROM t) d WHERE s.a < d.c0 AND d.c0 = t.b
//! ```
//!
//! which is correlated by an equality. A row with a NULL finds no value then, and no row of `s`
//! would have met the condition either: only conditions that are not true of NULL are taken
//! ([`is_strict`]). The query around is read twice, so it must give the same rows both times: it
//! may not limit them, nor call what is volatile. Everything else is left as it is, and refused.
//!
//! `(SELECT t.b + 1)`, without FROM, is the expression itself, `(SELECT x WHERE p)` is
//! `CASE WHEN p THEN x END`.

use super::lateral::{inward, is_of};
use super::nulls;
use super::separable::is_equality;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion_expr::logical_plan::{Filter, Subquery};
use datafusion_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion_expr::{BinaryExpr, Case, Expr, LogicalPlan, LogicalPlanBuilder, Operator};
use std::sync::Arc;

/// The subqueries of a filter or a projection; `named` tells names apart in the whole statement.
pub(super) fn rewritten(plan: LogicalPlan, named: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let all = match &plan {
        LogicalPlan::Projection(_) => true,
        // Joins find what EXISTS and IN mean in a condition.
        LogicalPlan::Filter(_) => false,
        _ => return Ok(Transformed::no(plan)),
    };
    let outside = plan.inputs()[0].clone();
    let names = datafusion_expr::expr_rewriter::NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_down(|expr| match expr {
            Expr::ScalarSubquery(subquery) => {
                // What knows nothing of the outside has one value for all rows.
                if !subquery.outer_ref_columns.is_empty()
                    && let Some(value) = value_of(&subquery.subquery, outside.schema())?
                {
                    return Ok(Transformed::yes(value));
                }
                brought_in(subquery, &outside, named)?.map_data(|s| Ok(Expr::ScalarSubquery(s)))
            }
            Expr::Exists(exists) if all => {
                let Exists { subquery, negated } = exists;
                brought_in(subquery, &outside, named)?
                    .map_data(|subquery| Ok(Expr::Exists(Exists { subquery, negated })))
            }
            Expr::InSubquery(i) if all => {
                let InSubquery {
                    expr,
                    subquery,
                    negated,
                } = i;
                brought_in(subquery, &outside, named)?
                    .map_data(|s| Ok(Expr::InSubquery(InSubquery::new(expr, s, negated))))
            }
            Expr::SetComparison(set) if all => {
                let SetComparison {
                    expr,
                    subquery,
                    op,
                    quantifier,
                } = set;
                brought_in(subquery, &outside, named)?.map_data(|s| {
                    Ok(Expr::SetComparison(SetComparison::new(
                        expr, s, op, quantifier,
                    )))
                })
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(if done.transformed {
            done.update_data(|e| name.restore(e))
        } else {
            done
        })
    })
}

/// What a subquery without FROM computes.
fn value_of(plan: &LogicalPlan, outside: &DFSchema) -> Result<Option<Expr>> {
    let LogicalPlan::Projection(projection) = plan else {
        return Ok(None);
    };
    let (condition, below) = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(&filter.predicate), filter.input.as_ref()),
        below => (None, below),
    };
    let one = matches!(below, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row);
    let [value] = projection.expr.as_slice() else {
        return Ok(None);
    };
    let known = |e: &Expr| knows(e, outside);
    if !one || !known(value)? || !condition.map_or(Ok(true), known)? {
        return Ok(None);
    }
    let value = inward(value)?.unalias();
    Ok(Some(match condition {
        None => value,
        Some(condition) => Expr::Case(Case {
            expr: None,
            when_then_expr: vec![(Box::new(inward(condition)?), Box::new(value))],
            else_expr: None,
        }),
    }))
}

/// Whether all that an expression refers to outside of it are these columns, without subqueries.
pub(super) fn knows(expr: &Expr, outside: &DFSchema) -> Result<bool> {
    let mut known = true;
    expr.apply(|e| {
        known &= match e {
            Expr::OuterReferenceColumn(_, _) => is_of(e, outside),
            Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_) => false,
            _ => true,
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(known)
}

/// Whether a subquery has a condition that this is about.
pub(super) fn has_inequality(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(matches!(node, LogicalPlan::Filter(filter)
            if split_conjunction(&filter.predicate)
                .iter()
                .any(|c| c.contains_outer() && !is_equality(c))))
    })
}

fn brought_in(
    subquery: Subquery,
    outside: &LogicalPlan,
    named: &mut usize,
) -> Result<Transformed<Subquery>> {
    if subquery.outer_ref_columns.is_empty()
        || !has_inequality(&subquery.subquery)?
        || !is_repeatable(outside)?
    {
        return Ok(Transformed::no(subquery));
    }
    let plan = subquery.subquery.as_ref().clone();
    let plan = plan.transform_up(|node| match node {
        LogicalPlan::Filter(filter) => joined(filter, outside, named),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(Transformed::new_transformed(
        Subquery {
            subquery: Arc::new(plan.data),
            ..subquery
        },
        plan.transformed,
    ))
}

/// Whether a query gives the same rows when it is read once more.
fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    if !plan.all_out_ref_exprs().is_empty() {
        return Ok(false);
    }
    let varies = plan.exists(|node| {
        let limited = matches!(
            node,
            LogicalPlan::Limit(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_)
        );
        Ok(limited || node.expressions().iter().any(Expr::is_volatile))
    })?;
    Ok(!varies)
}

/// A filter whose correlated conditions are met with the values of the outside.
fn joined(
    filter: Filter,
    outside: &LogicalPlan,
    named: &mut usize,
) -> Result<Transformed<LogicalPlan>> {
    let conditions = split_conjunction_owned(filter.predicate.clone());
    if !conditions
        .iter()
        .any(|c| c.contains_outer() && !is_equality(c))
    {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let mut columns: Vec<Expr> = Vec::new();
    for condition in conditions.iter().filter(|c| c.contains_outer()) {
        if !is_strict(condition) || !knows(condition, outside.schema())? {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        condition.apply(|e| {
            if matches!(e, Expr::OuterReferenceColumn(_, _)) && !columns.contains(e) {
                columns.push(e.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let table = format!("__outside_{named}");
    *named += 1;
    // A name of its own, too: a join's condition may lose the table's.
    let name = |n: usize| format!("{table}_{n}");
    let value = |n: usize| Column::new(Some(table.clone()), name(n));
    let values = columns.iter().enumerate().filter_map(|(n, e)| match e {
        Expr::OuterReferenceColumn(_, column) => Some(Expr::Column(column.clone()).alias(name(n))),
        _ => None,
    });
    let values = LogicalPlanBuilder::from(outside.clone())
        .project(values.collect::<Vec<_>>())?
        .distinct()?
        .alias(table.clone())?
        .build()?;
    let mut met = Vec::with_capacity(conditions.len() + columns.len());
    for condition in conditions {
        let inside = condition.transform_up(|e| {
            Ok(match columns.iter().position(|c| *c == e) {
                Some(n) => Transformed::yes(Expr::Column(value(n))),
                None => Transformed::no(e),
            })
        })?;
        met.push(inside.data);
    }
    for (n, column) in columns.into_iter().enumerate() {
        let value = Box::new(Expr::Column(value(n)));
        met.push(Expr::BinaryExpr(BinaryExpr::new(
            value,
            Operator::Eq,
            Box::new(column),
        )));
    }
    let schema = filter.input.schema();
    let kept = (0..schema.fields().len())
        .map(|i| Expr::Column(Column::from(schema.qualified_field(i))))
        .collect::<Vec<_>>();
    let mut plan = LogicalPlanBuilder::from(filter.input.as_ref().clone()).cross_join(values)?;
    if let Some(condition) = conjunction(met) {
        plan = plan.filter(condition)?;
    }
    Ok(Transformed::yes(plan.project(kept)?.build()?))
}

/// Whether a condition is never true where something in it is NULL.
fn is_strict(condition: &Expr) -> bool {
    match condition {
        Expr::Between(b) => {
            !b.negated
                && [&b.expr, &b.low, &b.high]
                    .into_iter()
                    .all(|e| gives_null(e))
        }
        other => gives_null(other),
    }
}

/// Whether an expression is NULL where something in it is.
fn gives_null(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(b) => {
            nulls::gives_null(b.op) && gives_null(&b.left) && gives_null(&b.right)
        }
        Expr::ScalarFunction(call) => {
            nulls::is_strict(call.func.name()) && call.args.iter().all(gives_null)
        }
        Expr::Like(like) => gives_null(&like.expr) && gives_null(&like.pattern),
        Expr::Cast(cast) => gives_null(&cast.expr),
        Expr::Negative(inner) | Expr::Not(inner) => gives_null(inner),
        Expr::Column(_) | Expr::OuterReferenceColumn(_, _) | Expr::Literal(_, _) => true,
        _ => false,
    }
}
