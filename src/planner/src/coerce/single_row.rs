//! Scalar subqueries that refer to the outside and are no aggregates: what they find is collected
//! into an array, which is made a value above the join that DataFusion makes of them.
//!
//! ```text
//! (SELECT s.x FROM s WHERE s.a = t.a)
//!     only_element((SELECT array_agg(s.x) FROM s WHERE s.a = t.a))
//! (SELECT s.x FROM s WHERE s.a = t.a ORDER BY s.y LIMIT 1 OFFSET 2)
//!     (SELECT array_agg(s.x ORDER BY s.y) FROM s WHERE s.a = t.a)[3]
//! ```
//!
//! `only_element` fails for two rows, as PostgreSQL does, and only for a row of `t` that finds two.

use super::calls::Calls;
use super::looked_up::{KeyOf, finds_one, keeps_first};
use crate::aggregates::array_agg;
use crate::error::external;
use crate::types::JSONB;
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, Result};
use datafusion_expr::expr::{AggregateFunction, Sort};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Distinct, FetchType, Limit, SkipType, Subquery};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion_functions_aggregate::min_max::max;
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_common::Error;

/// The rule; it comes before subqueries are looked at otherwise. Whether the query is read once: in
/// a maintained one, what knows nothing of the outside finds one row for certain, or is refused.
#[derive(Debug)]
pub(super) struct SingleRows(pub Calls, pub bool, pub KeyOf);

impl AnalyzerRule for SingleRows {
    fn name(&self) -> &str {
        "single_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|node| {
            if !matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Filter(_)) {
                return Ok(Transformed::no(node));
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let done = expr.transform_up(|e| match e {
                    Expr::ScalarSubquery(subquery) => self.value(subquery),
                    other => Ok(Transformed::no(other)),
                })?;
                Ok(done.update_data(|e| name.restore(e)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(done.data)
    }
}

impl SingleRows {
    fn value(&self, subquery: Subquery) -> Result<Transformed<Expr>> {
        if let LogicalPlan::Limit(limit) = subquery.subquery.as_ref()
            && keeps_first(limit)?
            && is_one(&limit.input)
        {
            return Ok(Transformed::yes(Expr::ScalarSubquery(Subquery {
                subquery: limit.input.clone(),
                ..subquery
            })));
        }
        if !self.1 && subquery.outer_ref_columns.is_empty() && !is_one(&subquery.subquery) {
            return one_by_key(subquery, self.2);
        }
        let Some(found) = Found::of(&subquery)? else {
            return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
        };
        let place = found.place;
        let list = Expr::ScalarSubquery(Subquery {
            subquery: Arc::new(found.collected()?),
            ..subquery
        });
        Ok(Transformed::yes(match place {
            Some(place) => self.0.call("array_subscript", vec![list, lit(place)])?,
            None => self.0.call("only_element", vec![list])?,
        }))
    }
}

/// What a subquery finds: a value for each row.
struct Found<'a> {
    rows: &'a LogicalPlan,
    value: Expr,
    order: Vec<Sort>,
    /// Whether values that are equal are one.
    distinct: bool,
    /// Which of the values is meant, from 1; none: the only one.
    place: Option<i64>,
}

impl<'a> Found<'a> {
    /// Of a subquery that this is about.
    fn of(subquery: &'a Subquery) -> Result<Option<Found<'a>>> {
        let plan = subquery.subquery.as_ref();
        let reads = plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(_))))?;
        // Arrays would be collected into one of several dimensions.
        let nested = plan
            .schema()
            .fields()
            .iter()
            .any(|f| f.data_type().is_nested());
        let one = plan.schema().fields().len() == 1;
        if subquery.outer_ref_columns.is_empty() || !one || nested || !reads {
            return Ok(None);
        }
        let (rows, distinct, place) = match plan {
            LogicalPlan::Limit(limit) => match place(limit)? {
                Some(place) => (limit.input.as_ref(), false, place),
                None => return Ok(None),
            },
            LogicalPlan::Distinct(Distinct::All(rows)) => (rows.as_ref(), true, None),
            rows => (rows, false, None),
        };
        let (sorted, value) = match rows {
            // Beside the value stood what is ordered by.
            LogicalPlan::Projection(outer)
                if matches!(outer.input.as_ref(), LogicalPlan::Sort(_)) =>
            {
                (outer.input.as_ref(), outer.expr[0].clone().unalias())
            }
            rows => (rows, first(rows)),
        };
        let (rows, order) = match sorted {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                (sort.input.as_ref(), sort.expr.clone())
            }
            rows => (rows, Vec::new()),
        };
        if !is_plain(rows) {
            return Ok(None);
        }
        if value.contains_outer() || projects_outside(rows) {
            let error = Error::unsupported(
                "a subquery whose value is computed of columns outside of it is not supported",
            );
            return Err(external(
                error.with_hint("Compute it outside of the subquery."),
            ));
        }
        Ok(Some(Found {
            rows,
            value,
            order: if place.is_some() { order } else { Vec::new() },
            distinct,
            place,
        }))
    }

    fn collected(self) -> Result<LogicalPlan> {
        let list = AggregateFunction::new_udf(
            array_agg(),
            vec![self.value],
            self.distinct,
            None,
            self.order,
            None,
        );
        LogicalPlanBuilder::from(self.rows.clone())
            .aggregate(Vec::<Expr>::new(), [Expr::AggregateFunction(list)])?
            .build()
    }
}

/// A plan's first column.
fn first(plan: &LogicalPlan) -> Expr {
    Expr::Column(Column::from(plan.schema().qualified_field(0)))
}

/// The one row, from 1, that a limit leaves (`Some(None)`: it leaves all); `None` of other limits.
fn place(limit: &Limit) -> Result<Option<Option<i64>>> {
    let SkipType::Literal(skip) = limit.get_skip_type()? else {
        return Ok(None);
    };
    Ok(match limit.get_fetch_type()? {
        FetchType::Literal(None) if skip == 0 => Some(None),
        FetchType::Literal(Some(1)) => {
            let place = i64::try_from(skip).ok().and_then(|n| n.checked_add(1));
            place.map(Some)
        }
        _ => None,
    })
}

/// Whether a plan has one row at most: an aggregate of all that there is, constants, or the first
/// of others.
pub(super) fn is_one(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Filter(_) => is_one(plan.inputs()[0]),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1))))
        }
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    }
}

/// A subquery of a maintained query that knows nothing of the outside: it finds its row by a key
/// that is constant, and so is an aggregate of it.
///
/// Errors: `0A000` where it may find several.
fn one_by_key(subquery: Subquery, key_of: KeyOf) -> Result<Transformed<Expr>> {
    let plan = subquery.subquery.as_ref();
    let fixed = match plan {
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => finds_one(filter, key_of),
            _ => false,
        },
        _ => false,
    };
    let value = first(plan);
    let ordered = !matches!(plan.schema().field(0).data_type(), DataType::Boolean)
        && *plan.schema().field(0).data_type() != JSONB
        && !plan.schema().field(0).data_type().is_nested();
    if !fixed || !ordered {
        let error = Error::unsupported(
            "a scalar subquery that may find several rows is not supported in a maintained query",
        );
        return Err(external(error.with_hint(
            "Use an aggregate, such as max, or find the row by its primary key.",
        )));
    }
    let plan = LogicalPlanBuilder::from(plan.clone())
        .aggregate(Vec::<Expr>::new(), [max(value)])?
        .build()?;
    Ok(Transformed::yes(Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        ..subquery
    })))
}

/// Whether columns of a plan are computed of what is outside of it.
fn projects_outside(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().any(Expr::contains_outer) || projects_outside(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => projects_outside(&alias.input),
        LogicalPlan::Filter(filter) => projects_outside(&filter.input),
        _ => false,
    }
}

/// Whether a plan's rows are those of a FROM, filtered: nothing that a join could not be made of.
fn is_plain(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => {
            is_plain(plan.inputs()[0])
        }
        LogicalPlan::TableScan(_) | LogicalPlan::Join(_) => true,
        _ => false,
    }
}
