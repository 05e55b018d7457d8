//! What a subquery compares with columns outside of it, as columns of its own: in
//!
//! ```text
//! SELECT (SELECT count(*) FROM s WHERE cast(s.a) = t.b) FROM t
//! ```
//!
//! `cast(s.a)` becomes a column below the filter. DataFusion makes joins of such subqueries, and
//! groups by the inner sides of these comparisons, if they are columns.
//!
//! So does a column of whose name there are several, `s.a` beside `r.a`: in the condition of such a
//! join, which reads the subquery by one name, they would be one.

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result};
use datafusion_expr::logical_plan::Filter;
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator};
use datafusion_optimizer::AnalyzerRule;

/// The rule; it comes when types are final.
#[derive(Debug)]
pub(super) struct Correlated;

impl AnalyzerRule for Correlated {
    fn name(&self) -> &str {
        "correlated"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Names are told apart by their number in the whole statement.
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) => compared_columns(filter, &mut named),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(done.data)
    }
}

fn compared_columns(filter: Filter, named: &mut usize) -> Result<Transformed<LogicalPlan>> {
    if !filter.predicate.contains_outer() {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let mut computed = Vec::new();
    let predicates = split_conjunction_owned(filter.predicate.clone())
        .into_iter()
        .map(|mut predicate| {
            if let Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Eq,
                right,
            }) = &mut predicate
            {
                if is_computed(left)? && is_outside(right)? {
                    name(left, named, &mut computed);
                } else if is_computed(right)? && is_outside(left)? {
                    name(right, named, &mut computed);
                }
            }
            told_apart(predicate, &filter, named, &mut computed)
        })
        .collect::<Result<Vec<_>>>()?;
    let Some(predicate) = conjunction(predicates).filter(|_| !computed.is_empty()) else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let schema = filter.input.schema();
    let columns = (0..schema.fields().len())
        .map(|i| Expr::Column(Column::from(schema.qualified_field(i))))
        .collect::<Vec<_>>();
    let below = LogicalPlanBuilder::from(filter.input.as_ref().clone())
        .project(columns.iter().cloned().chain(computed))?
        .filter(predicate)?
        .project(columns)?;
    Ok(Transformed::yes(below.build()?))
}

/// A condition on the outside, with columns of names that are not unique replaced.
fn told_apart(
    predicate: Expr,
    filter: &Filter,
    named: &mut usize,
    computed: &mut Vec<Expr>,
) -> Result<Expr> {
    if !predicate.contains_outer() {
        return Ok(predicate);
    }
    let fields = filter.input.schema().fields();
    let told = predicate.transform_up(|mut expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        if fields.iter().filter(|f| *f.name() == column.name).count() < 2 {
            return Ok(Transformed::no(expr));
        }
        name(&mut expr, named, computed);
        Ok(Transformed::yes(expr))
    })?;
    Ok(told.data)
}

/// Puts a column in place of what is computed.
fn name(expr: &mut Expr, named: &mut usize, computed: &mut Vec<Expr>) {
    let name = format!("__compared_{named}");
    *named += 1;
    let column = Expr::Column(Column::from_name(name.clone()));
    computed.push(std::mem::replace(expr, column).alias(name));
}

/// Whether it is computed of columns inside of the subquery only.
fn is_computed(expr: &Expr) -> Result<bool> {
    Ok(!matches!(expr, Expr::Column(_)) && of(expr, true)?)
}

/// Whether it is computed of columns outside of the subquery only.
fn is_outside(expr: &Expr) -> Result<bool> {
    of(expr, false)
}

/// Whether there are columns in it, all of them on one side, and no subquery.
fn of(expr: &Expr, inside: bool) -> Result<bool> {
    let (mut wanted, mut others) = (false, false);
    expr.apply(|e| {
        match e {
            Expr::Column(_) if inside => wanted = true,
            Expr::OuterReferenceColumn(_, _) if !inside => wanted = true,
            Expr::Column(_)
            | Expr::OuterReferenceColumn(_, _)
            | Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_) => others = true,
            _ => {}
        }
        Ok(if others {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(wanted && !others)
}
