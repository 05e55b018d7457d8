//! `IN (subquery)` as EXISTS, where DataFusion's joins would answer differently.
//!
//! In a condition of WHERE (under nothing but AND and OR) NULL counts as false, so that
//!
//! ```text
//! x IN (SELECT y ...)      =  EXISTS     (SELECT ... WHERE y = x)
//! x NOT IN (SELECT y ...)  =  NOT EXISTS (SELECT ... WHERE (y = x) IS NOT FALSE)
//! ```
//!
//! The second is used where the subquery is correlated, since a null-aware anti join knows one key
//! only, and under OR, where the join tells matches from the rest by two values. The first is used
//! where a correlated subquery's type differs from x's: a cast of its column would hide the column
//! that the correlation needs. A correlated subquery that groups, limits or unites rows stays as it
//! is under IN, and is refused under NOT IN.

use crate::error::external;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, ExprSchema, Result};
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::logical_plan::{Filter, Subquery, SubqueryAlias};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_common::Error;

/// A subquery's name where it needs one.
const NAME: &str = "__in_subquery";

/// The rule; it comes first.
#[derive(Debug)]
pub(super) struct InSubqueries;

impl AnalyzerRule for InSubqueries {
    fn name(&self) -> &str {
        "in_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Filter(filter) = plan else {
                return Ok(Transformed::no(plan));
            };
            let schema = merge_schema(&[filter.input.as_ref()]);
            let predicate = condition(filter.predicate, &schema, false)?;
            Ok(Transformed::new_transformed(
                LogicalPlan::Filter(Filter::try_new(predicate.data, filter.input)?),
                predicate.transformed,
            ))
        })?;
        Ok(done.data)
    }
}

/// Rewrites below AND and OR.
fn condition(expr: Expr, schema: &DFSchema, in_or: bool) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op == Operator::And || op == Operator::Or =>
        {
            let in_or = in_or || op == Operator::Or;
            let (left, right) = (
                condition(*left, schema, in_or)?,
                condition(*right, schema, in_or)?,
            );
            let changed = left.transformed || right.transformed;
            Ok(Transformed::new_transformed(
                Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(left.data),
                    op,
                    Box::new(right.data),
                )),
                changed,
            ))
        }
        Expr::InSubquery(i) => match exists(&i, schema, in_or)? {
            Some(exists) => Ok(Transformed::yes(exists)),
            None => Ok(Transformed::no(Expr::InSubquery(i))),
        },
        other => Ok(Transformed::no(other)),
    }
}

fn exists(i: &InSubquery, schema: &DFSchema, in_or: bool) -> Result<Option<Expr>> {
    let plan = &i.subquery.subquery;
    let correlated = !i.subquery.outer_ref_columns.is_empty();
    let same_type = i.expr.get_type(schema)? == *plan.schema().field(0).data_type();
    let wanted = if i.negated {
        correlated || in_or
    } else {
        correlated && !same_type
    };
    if !wanted {
        return Ok(None);
    }
    let rewritten = if is_plain(plan)? {
        from_inside(&i.expr, schema)?
    } else {
        None
    };
    let Some((x, columns)) = rewritten else {
        if i.negated {
            let error = Error::unsupported(
                "NOT IN with a correlated subquery that groups, unites or limits rows is not \
                 supported",
            );
            return Err(external(error.with_hint(
                "Use NOT EXISTS, or take the grouping into a subquery in FROM.",
            )));
        }
        return Ok(None);
    };
    let plan = apart(plan, &columns)?;
    let y = Expr::Column(Column::from(plan.schema().qualified_field(0)));
    let equal = Expr::BinaryExpr(BinaryExpr::new(Box::new(y), Operator::Eq, Box::new(x)));
    let matches = if i.negated {
        Expr::IsNotFalse(Box::new(equal))
    } else {
        equal
    };
    let filtered = LogicalPlan::Filter(Filter::try_new(matches, plan)?);
    let mut outer_ref_columns = i.subquery.outer_ref_columns.clone();
    outer_ref_columns.extend(
        columns
            .into_iter()
            .filter(|c| !i.subquery.outer_ref_columns.contains(c)),
    );
    let subquery = Subquery {
        subquery: Arc::new(filtered),
        outer_ref_columns,
        spans: i.subquery.spans.clone(),
    };
    Ok(Some(Expr::Exists(Exists {
        subquery,
        negated: i.negated,
    })))
}

/// The plan under a name of its own, if it knows one of these columns of the query around it
/// itself: once the two are joined, the names have to tell them apart.
fn apart(plan: &Arc<LogicalPlan>, outer: &[Expr]) -> Result<Arc<LogicalPlan>> {
    let known = |node: &LogicalPlan| {
        outer.iter().any(|e| {
            matches!(e, Expr::OuterReferenceColumn(_, column)
            if node.schema().has_column(column))
        })
    };
    if !plan.exists(|node| Ok(known(node)))? {
        return Ok(plan.clone());
    }
    Ok(Arc::new(LogicalPlan::SubqueryAlias(
        SubqueryAlias::try_new(plan.clone(), NAME)?,
    )))
}

/// Whether each row of the result comes from one row below: a condition on it may be part of a
/// join's. Without correlation that does not matter.
pub(super) fn is_plain(plan: &LogicalPlan) -> Result<bool> {
    if plan.all_out_ref_exprs().is_empty() {
        return Ok(true);
    }
    let mut plain = true;
    plan.apply(|node| {
        plain &= matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::TableScan(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::Sort(_)
        );
        // A subquery in FROM may do as it likes, as long as nothing in it is correlated.
        let alone =
            matches!(node, LogicalPlan::SubqueryAlias(_)) && node.all_out_ref_exprs().is_empty();
        Ok(if !plain {
            TreeNodeRecursion::Stop
        } else if alone {
            TreeNodeRecursion::Jump
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(plain)
}

/// An expression of the query around as its subquery sees it, and the columns that it refers to;
/// `None` where it refers further out or has subqueries of its own.
pub(super) fn from_inside(expr: &Expr, schema: &DFSchema) -> Result<Option<(Expr, Vec<Expr>)>> {
    let mut columns = Vec::new();
    let mut simple = true;
    let outer = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::Column(column) => {
                let reference =
                    Expr::OuterReferenceColumn(schema.field_from_column(&column)?.clone(), column);
                columns.push(reference.clone());
                Transformed::yes(reference)
            }
            Expr::OuterReferenceColumn(_, _)
            | Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_) => {
                simple = false;
                Transformed::no(e)
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(simple.then_some((outer.data, columns)))
}
