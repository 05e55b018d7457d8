//! Tables inside of a subquery that have the name of one outside, which the subquery refers to:
//!
//! ```text
//! SELECT b FROM l WHERE b NOT IN (SELECT x.a FROM l AS x WHERE x.b = l.a)
//! ```
//!
//! Below `x` the table is `l` still, and where DataFusion makes a join of the subquery, `l.a` of
//! the outside is taken for a column inside. The table inside gets a name of its own.

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, TableReference};
use datafusion_expr::logical_plan::{Subquery, TableScan, TableScanBuilder};
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_optimizer::AnalyzerRule;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rule; it comes before anything else looks at subqueries.
#[derive(Debug)]
pub(super) struct Apart;

impl AnalyzerRule for Apart {
    fn name(&self) -> &str {
        "apart"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Names are told apart by their number in the whole statement.
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_up(|mut e| {
                    let subquery = match &mut e {
                        Expr::ScalarSubquery(subquery) => subquery,
                        Expr::Exists(exists) => &mut exists.subquery,
                        Expr::InSubquery(i) => &mut i.subquery,
                        Expr::SetComparison(set) => &mut set.subquery,
                        _ => return Ok(Transformed::no(e)),
                    };
                    let changed = told_apart(subquery, &mut named)?;
                    Ok(Transformed::new_transformed(e, changed))
                })
            })
        })?;
        Ok(done.data)
    }
}

/// Renames the tables of a subquery that are called like one outside. Returns whether there are
/// some.
fn told_apart(subquery: &mut Subquery, named: &mut usize) -> Result<bool> {
    let outside: BTreeSet<TableReference> = subquery
        .outer_ref_columns
        .iter()
        .filter_map(|e| match e {
            Expr::OuterReferenceColumn(_, column) => column.relation.clone(),
            _ => None,
        })
        .collect();
    let mut inside = BTreeSet::new();
    let mut nested = false;
    subquery.subquery.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && outside.contains(&scan.table_name)
        {
            inside.insert(scan.table_name.clone());
        }
        // What is inside of a query further in refers to both.
        node.apply_expressions(|e| {
            nested |= has_subquery(e)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        nested |= matches!(node, LogicalPlan::Subquery(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if nested || inside.is_empty() {
        return Ok(false);
    }
    for table in inside {
        let other = TableReference::bare(format!("__inside_{named}"));
        *named += 1;
        let plan = subquery.subquery.as_ref().clone();
        subquery.subquery = Arc::new(renamed(plan, &table, &other)?);
    }
    Ok(true)
}

fn renamed(
    plan: LogicalPlan,
    table: &TableReference,
    other: &TableReference,
) -> Result<LogicalPlan> {
    let done = plan.transform_up(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            if scan.table_name != *table {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            }
            let TableScan {
                source,
                projection,
                filters,
                fetch,
                ..
            } = scan;
            let scan = TableScanBuilder::new(other.clone(), source)
                .with_projection(projection)
                .with_filters(filters)
                .with_fetch(fetch)
                .build()?;
            return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
        }
        let gives_columns = matches!(
            node,
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)
        );
        let node = node.map_expressions(|expr| {
            // What is above knows `max(l.a)` by this name.
            let is_named = matches!(expr, Expr::Column(_) | Expr::Alias(_));
            let name = (gives_columns && !is_named).then(|| expr.schema_name().to_string());
            let done = expr.transform_up(|e| {
                Ok(match e {
                    Expr::Column(mut column) if column.relation.as_ref() == Some(table) => {
                        column.relation = Some(other.clone());
                        Transformed::yes(Expr::Column(column))
                    }
                    e => Transformed::no(e),
                })
            })?;
            Ok(match name.filter(|_| done.transformed) {
                Some(name) => done.update_data(|e| e.alias(name)),
                None => done,
            })
        })?;
        Ok(Transformed::yes(node.data.recompute_schema()?))
    })?;
    Ok(done.data)
}

/// The subquery that an expression is, or compares with.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(i) => Some(&i.subquery),
        Expr::SetComparison(set) => Some(&set.subquery),
        _ => None,
    }
}

/// Whether there is a subquery in an expression.
pub(super) fn has_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(subquery_of(e).is_some()))
}
