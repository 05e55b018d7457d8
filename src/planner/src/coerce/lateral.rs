//! `FROM t, unnest(t.a) AS u(x)`: a function of rows over what stands before it. DataFusion plans a
//! join with a subquery that refers outwards, which nothing can run; it is the unnesting of lists
//! beside the columns of `t`:
//!
//! ```text
//! Join(t, u := Project(Unnest(Project(list over outer t))))
//!   = Project(t.*, u.x, Unnest(Project(t.*, list over t)))
//! ```
//!
//! A subquery without FROM is a projection, `FROM t, LATERAL (SELECT t.a + 1 AS x) u`. An aggregate
//! that compares with `t` by anything but `=` becomes a scalar subquery for each of its columns.
//! Columns that are computed of both sides, `LATERAL (SELECT t.a * r.rate FROM r ..)`, are computed
//! above the join, which has those of the subquery that they read.
//!
//! That is sound for an inner join, and for a left one whose condition is true: there a row without
//! elements stays, with NULL. Everything else is left as it is, and refused later. The rule comes
//! first, while the subquery has the shape that binding has given it.

use super::sideways;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, NullHandling, Result, ScalarValue, TableReference};
use datafusion_expr::logical_plan::builder::unnest_with_options;
use datafusion_expr::logical_plan::{Join, Projection, Subquery, SubqueryAlias, Unnest};
use datafusion_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion_optimizer::AnalyzerRule;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rule.
#[derive(Debug)]
pub(super) struct Laterals;

impl AnalyzerRule for Laterals {
    fn name(&self) -> &str {
        "laterals"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Join(join) => Ok(match beside(join)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(node),
            }),
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(done.data)
    }
}

/// The projections above an unnesting of lists of one row, the unnesting, and the lists.
fn lists(plan: &LogicalPlan) -> Option<(Vec<&Projection>, &Unnest, &Projection)> {
    let (mut above, mut plan) = (Vec::new(), plan);
    loop {
        match plan {
            LogicalPlan::Projection(projection) => {
                above.push(projection);
                plan = &projection.input;
            }
            LogicalPlan::Unnest(unnest) => {
                let LogicalPlan::Projection(lists) = unnest.input.as_ref() else {
                    return None;
                };
                let one = matches!(lists.input.as_ref(), LogicalPlan::EmptyRelation(_));
                return one.then_some((above, unnest, lists));
            }
            _ => return None,
        }
    }
}

fn is_true(filter: Option<&Expr>) -> bool {
    matches!(
        filter,
        None | Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _))
    )
}

fn beside(join: &Join) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::SubqueryAlias(SubqueryAlias {
        input,
        alias,
        schema,
        ..
    }) = join.right.as_ref()
    else {
        return Ok(None);
    };
    let LogicalPlan::Subquery(subquery) = input.as_ref() else {
        return Ok(None);
    };
    let Some((above, unnest, lists)) = lists(&subquery.subquery) else {
        let renamed = renamed(&subquery.subquery)?;
        let plan = renamed.as_ref().unwrap_or(&subquery.subquery);
        return match columns_of(plan, join.left.schema())? {
            Some(columns) => with_columns(join, alias, columns),
            None => computed_above(join, alias, plan),
        };
    };
    let mut options = unnest.options.clone();
    match join.join_type {
        JoinType::Inner => {}
        JoinType::Left if is_true(join.filter.as_ref()) => {
            options = options.with_null_handling(NullHandling::PreserveAndExpandEmpty);
        }
        _ => return Ok(None),
    }
    let outer = join.left.schema();
    if !join.on.is_empty() || !subquery.outer_ref_columns.iter().all(|e| is_of(e, outer)) {
        return Ok(None);
    }
    let kept =
        || (0..outer.fields().len()).map(|i| Expr::Column(Column::from(outer.qualified_field(i))));
    let with = |exprs: &[Expr]| -> Result<Vec<Expr>> {
        kept().map(Ok).chain(exprs.iter().map(inward)).collect()
    };
    let below = LogicalPlanBuilder::from(join.left.as_ref().clone())
        .project(with(&lists.expr)?)?
        .build()?;
    let mut plan = unnest_with_options(below, unnest.exec_columns.clone(), options)?;
    for projection in above.iter().rev() {
        plan = LogicalPlanBuilder::from(plan)
            .project(with(&projection.expr)?)?
            .build()?;
    }
    let named = schema.fields().iter().map(|field| {
        Expr::Column(Column::new_unqualified(field.name()))
            .alias_qualified(Some(alias.clone()), field.name())
    });
    let mut builder = LogicalPlanBuilder::from(plan).project(kept().chain(named))?;
    if let Some(filter) = join.filter.as_ref().filter(|f| !is_true(Some(f))) {
        builder = builder.filter(filter.clone())?;
    }
    builder.build().map(Some)
}

/// A projection under the names that an alias gives to its columns, where another one above it does
/// that.
fn renamed(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Projection(names) = plan else {
        return Ok(None);
    };
    let LogicalPlan::Projection(inner) = names.input.as_ref() else {
        return Ok(None);
    };
    let is_column = |e: &Expr| matches!(e.clone().unalias(), Expr::Column(_));
    if names.expr.len() != inner.expr.len() || !names.expr.iter().all(is_column) {
        return Ok(None);
    }
    let named = inner.expr.iter().zip(names.schema.fields());
    let named = named.map(|(e, f)| e.clone().unalias().alias(f.name()));
    LogicalPlanBuilder::from(inner.input.as_ref().clone())
        .project(named.collect::<Vec<_>>())?
        .build()
        .map(Some)
}

/// The columns of a subquery that has one row, as expressions beside the tables before it.
fn columns_of(subquery: &LogicalPlan, outside: &DFSchema) -> Result<Option<Vec<Expr>>> {
    let LogicalPlan::Projection(projection) = subquery else {
        return Ok(None);
    };
    match projection.input.as_ref() {
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
            for expr in &projection.expr {
                if !sideways::knows(expr, outside)? {
                    return Ok(None);
                }
            }
            projection
                .expr
                .iter()
                .map(inward)
                .collect::<Result<_>>()
                .map(Some)
        }
        LogicalPlan::Aggregate(aggregate)
            if aggregate.group_expr.is_empty() && sideways::has_inequality(subquery)? =>
        {
            let column = |expr: &Expr| {
                let plan = LogicalPlanBuilder::from(projection.input.as_ref().clone())
                    .project([expr.clone()])?
                    .build()?;
                let outer_ref_columns = plan.all_out_ref_exprs();
                Ok(Expr::ScalarSubquery(Subquery {
                    subquery: Arc::new(plan),
                    outer_ref_columns,
                    spans: Default::default(),
                }))
            };
            projection
                .expr
                .iter()
                .map(column)
                .collect::<Result<_>>()
                .map(Some)
        }
        _ => Ok(None),
    }
}

/// A join with one row, which is computed of each on its left side.
fn with_columns(
    join: &Join,
    alias: &TableReference,
    columns: Vec<Expr>,
) -> Result<Option<LogicalPlan>> {
    let always = is_true(join.filter.as_ref());
    let inner = join.join_type == JoinType::Inner;
    if !join.on.is_empty() || !inner && !(join.join_type == JoinType::Left && always) {
        return Ok(None);
    }
    let (left, right) = (join.left.schema(), join.right.schema());
    let kept = left.columns().into_iter().map(Expr::Column);
    let named = columns.into_iter().zip(right.fields());
    let named = named.map(|(e, f)| e.unalias().alias_qualified(Some(alias.clone()), f.name()));
    let mut builder = LogicalPlanBuilder::from(join.left.as_ref().clone())
        .project(kept.chain(named).collect::<Vec<_>>())?;
    if let Some(filter) = join.filter.as_ref().filter(|_| !always) {
        builder = builder.filter(filter.clone())?;
    }
    builder.build().map(Some)
}

/// A join with rows, of which columns are computed of both sides.
fn computed_above(
    join: &Join,
    alias: &TableReference,
    subquery: &LogicalPlan,
) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Projection(projection) = subquery else {
        return Ok(None);
    };
    let outer = join.left.schema();
    let is_subquery = |e: &Expr| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)
        ))
    };
    let (mut reaches_out, mut subqueries) = (false, false);
    for expr in &projection.expr {
        reaches_out |= expr.exists(|e| Ok(is_of(e, outer)))?;
        subqueries |= expr.exists(is_subquery)?;
    }
    let kind = join.join_type;
    let joined = matches!(kind, JoinType::Inner | JoinType::Left) && join.on.is_empty();
    if !reaches_out || subqueries || !joined || !is_true(join.filter.as_ref()) {
        return Ok(None);
    }
    // What is read of the subquery's rows, and whether there is one.
    let read = projection.expr.iter().flat_map(Expr::column_refs);
    let read: BTreeSet<Column> = read.cloned().collect();
    let hidden = |i: usize| format!("__lateral_{i}");
    let columns = read.iter().enumerate();
    let columns = columns.map(|(i, c)| Expr::Column(c.clone()).alias(hidden(i)));
    let found = lit(true).alias(hidden(read.len()));
    let rows = LogicalPlanBuilder::from(projection.input.as_ref().clone())
        .project(columns.chain([found]))?
        .build()?;
    let outer_ref_columns = rows.all_out_ref_exprs();
    let rows = match outer_ref_columns.is_empty() {
        true => rows,
        false => LogicalPlan::Subquery(Subquery {
            subquery: Arc::new(rows),
            outer_ref_columns,
            spans: Default::default(),
        }),
    };
    let rows = SubqueryAlias::try_new(Arc::new(rows), alias.clone())?;
    let inner = |i: usize| Expr::Column(Column::new(Some(alias.clone()), hidden(i)));
    let value = |expr: &Expr| -> Result<Expr> {
        let expr = expr.clone().unalias().transform_up(|e| {
            Ok(match &e {
                Expr::OuterReferenceColumn(_, column) => {
                    Transformed::yes(Expr::Column(column.clone()))
                }
                Expr::Column(column) => match read.iter().position(|c| c == column) {
                    Some(i) => Transformed::yes(inner(i)),
                    None => Transformed::no(e),
                },
                _ => Transformed::no(e),
            })
        })?;
        match kind {
            JoinType::Inner => Ok(expr.data),
            // Beside no row there is none.
            _ => when(inner(read.len()), expr.data).end(),
        }
    };
    let names = join.right.schema();
    let computed = projection.expr.iter().zip(names.fields());
    let computed = computed
        .map(|(e, f)| Ok(value(e)?.alias_qualified(Some(alias.clone()), f.name())))
        .collect::<Result<Vec<_>>>()?;
    let kept = outer.columns().into_iter().map(Expr::Column);
    LogicalPlanBuilder::from(join.left.as_ref().clone())
        .join_on(LogicalPlan::SubqueryAlias(rows), kind, join.filter.clone())?
        .project(kept.chain(computed).collect::<Vec<_>>())?
        .build()
        .map(Some)
}

/// Whether an outer reference is one to these columns.
pub(super) fn is_of(reference: &Expr, schema: &DFSchema) -> bool {
    match reference {
        Expr::OuterReferenceColumn(_, column) => schema.has_column(column),
        _ => false,
    }
}

/// The expression over the columns themselves, under the name that it had.
pub(super) fn inward(expr: &Expr) -> Result<Expr> {
    let name = expr.schema_name().to_string();
    let inner = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    })?;
    Ok(
        if inner.transformed && !matches!(inner.data, Expr::Alias(_)) {
            inner.data.alias(name)
        } else {
            inner.data
        },
    )
}
