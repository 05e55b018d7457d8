//! `FROM t, unnest(t.a) AS u(x)`: a function of rows over what stands before it. DataFusion plans a
//! join with a subquery that refers outwards, which nothing can run; it is the unnesting of lists
//! beside the columns of `t`:
//!
//! ```text
//! Join(t, u := Project(Unnest(Project(list over outer t))))
//!   = Project(t.*, u.x, Unnest(Project(t.*, list over t)))
//! ```
//!
//! That is sound for an inner join, and for a left one whose condition is true: there a row without
//! elements stays, with NULL. Everything else is left as it is, and refused later. The rule comes
//! first, while the subquery has the shape that binding has given it.

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, NullHandling, Result, ScalarValue};
use datafusion_expr::logical_plan::builder::unnest_with_options;
use datafusion_expr::logical_plan::{Join, Projection, SubqueryAlias, Unnest};
use datafusion_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion_optimizer::AnalyzerRule;

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
        return Ok(None);
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

/// Whether an outer reference is one to these columns.
fn is_of(reference: &Expr, schema: &DFSchema) -> bool {
    match reference {
        Expr::OuterReferenceColumn(_, column) => schema.has_column(column),
        _ => false,
    }
}

/// The expression over the columns themselves, under the name that it had.
fn inward(expr: &Expr) -> Result<Expr> {
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
