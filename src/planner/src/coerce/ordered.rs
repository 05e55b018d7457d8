//! `ORDER BY (SELECT .. WHERE s.x = t.y)`: what subqueries that refer to the outside are sorted by
//! becomes a column of the result below, where DataFusion decorrelates, and is left out above.

use super::apart::subquery_of;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, Result};
use datafusion_expr::logical_plan::{Projection, Sort};
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;

/// The rule; it comes before what looks at the shape of subqueries.
#[derive(Debug)]
pub(super) struct Ordered;

impl AnalyzerRule for Ordered {
    fn name(&self) -> &str {
        "ordered"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Names are told apart by their number in the whole statement.
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Sort(sort) => sorted(sort, &mut named),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(done.data)
    }
}

fn sorted(mut sort: Sort, named: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Projection(below) = sort.input.as_ref() else {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    };
    let mut computed = Vec::new();
    for key in &mut sort.expr {
        if !correlated(&key.expr)? {
            continue;
        }
        let name = format!("__ordered_{named}");
        *named += 1;
        let column = Expr::Column(Column::from_name(&name));
        computed.push(std::mem::replace(&mut key.expr, column).alias(name));
    }
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let columns = below.schema.iter().map(Column::from).map(Expr::Column);
    let columns = columns.collect();
    let exprs = below.expr.iter().cloned().chain(computed).collect();
    sort.input = Arc::new(LogicalPlan::Projection(Projection::try_new(
        exprs,
        below.input.clone(),
    )?));
    let above = Projection::try_new(columns, Arc::new(LogicalPlan::Sort(sort)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(above)))
}

/// Whether there is a subquery in an expression that refers to the outside.
fn correlated(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(subquery_of(e).is_some_and(|s| !s.outer_ref_columns.is_empty())))
}
