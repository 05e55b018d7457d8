//! Integer constants are `integer` when they fit, as in PostgreSQL; DataFusion makes every one a
//! `bigint`. So `a + 1` over an integer column stays an integer (and is checked as one), and
//! `SELECT 1` is an `int4` for clients.
//!
//! The rule runs between binding and type coercion. Column names that DataFusion derives from
//! expressions are kept; types of everything above are computed anew, unions and references from
//! subqueries to outer columns included. `count(1)` keeps its constant, by which DataFusion knows
//! `count(*)`.

use super::numerics::common_type;
use super::unions;
use crate::types::NUMERIC;
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Exists, InSubquery};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::logical_plan::builder::unnest_with_options;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, WindowFunctionDefinition, cast,
};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;

/// The rule; it comes before type coercion.
#[derive(Debug)]
pub(super) struct Literals;

impl AnalyzerRule for Literals {
    fn name(&self) -> &str {
        "literals"
    }
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        narrow(plan, &mut Vec::new())
    }
}

/// Rewrites a plan whose subqueries may refer to rows of `outer`, innermost last.
fn narrow(plan: LogicalPlan, outer: &mut Vec<DFSchema>) -> Result<LogicalPlan> {
    let bound = plan.schema().clone();
    let plan = plan
        .map_children(|child| narrow(child, outer).map(Transformed::yes))?
        .data;
    match plan {
        // The types of the working table were fixed at binding: both terms keep them.
        LogicalPlan::RecursiveQuery(query) => {
            let types: Vec<_> = bound
                .fields()
                .iter()
                .map(|f| Some(f.data_type().clone()))
                .collect();
            Ok(LogicalPlan::RecursiveQuery(RecursiveQuery {
                static_term: Arc::new(with_types(query.static_term.as_ref(), &types)?),
                recursive_term: Arc::new(with_types(query.recursive_term.as_ref(), &types)?),
                ..query
            }))
        }
        LogicalPlan::Union(union) => unions::typed(union),
        LogicalPlan::Values(values) => {
            let columns = 0..values.schema.fields().len();
            let wide: Vec<bool> = columns
                .clone()
                .map(|c| {
                    let mut rows = values.values.iter().map(|row| &row[c]);
                    let null = |e: &Expr| matches!(e, Expr::Literal(v, _) if v.is_null());
                    let settled = |e: &Expr| settled_integer(e).is_some();
                    rows.clone().any(fits) && rows.all(|e| fits(e) || null(e) || settled(e))
                })
                .collect();
            let mixed: Vec<bool> = columns.map(|c| scales_differ(&values.values, c)).collect();
            if !wide.contains(&true) && !mixed.contains(&true) {
                return Ok(LogicalPlan::Values(values));
            }
            let value = |(c, e): (usize, Expr)| {
                if wide[c] {
                    match settled_integer(&e) {
                        Some(integer) => integer.clone(),
                        None => narrowed(e),
                    }
                } else if mixed[c] {
                    cast(as_written(e), NUMERIC)
                } else {
                    e
                }
            };
            let rows = values
                .values
                .into_iter()
                .map(|row| row.into_iter().enumerate().map(value).collect())
                .collect();
            LogicalPlanBuilder::values(rows)?.build()
        }
        // The numbers there count rows, or are positions.
        LogicalPlan::Limit(_) => Ok(plan),
        // Its columns have the types of the lists' elements.
        LogicalPlan::Unnest(unnest) => unnest_with_options(
            unnest.input.as_ref().clone(),
            unnest.exec_columns,
            unnest.options,
        ),
        plan => {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expression(expr, &schema, outer)?.update_data(|e| name.restore(e)))
            })?;
            rewritten.data.recompute_schema()
        }
    }
}

/// The values that a window function looks at; its other arguments count rows.
fn values_of(function: &WindowFunctionDefinition) -> usize {
    match function {
        WindowFunctionDefinition::AggregateUDF(_) => usize::MAX,
        WindowFunctionDefinition::WindowUDF(f) if f.name() == "ntile" => 0,
        WindowFunctionDefinition::WindowUDF(_) => 1,
    }
}

/// The plan with its columns cast, by position, to these types; `None` leaves one as it is.
pub(super) fn with_types(plan: &LogicalPlan, types: &[Option<DataType>]) -> Result<LogicalPlan> {
    let columns =
        plan.schema()
            .iter()
            .zip(types)
            .map(|((qualifier, field), wanted)| {
                let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
                match wanted {
                    Some(wanted) if wanted != field.data_type() => cast(column, wanted.clone())
                        .alias_qualified(qualifier.cloned(), field.name()),
                    _ => column,
                }
            });
    LogicalPlanBuilder::from(plan.clone())
        .project(columns.collect::<Vec<_>>())?
        .build()
}

fn expression(
    expr: Expr,
    schema: &DFSchema,
    outer: &mut Vec<DFSchema>,
) -> Result<Transformed<Expr>> {
    expr.transform_down(|e| {
        Ok(match e {
            Expr::Literal(ScalarValue::Int64(Some(_)), _) if fits(&e) => {
                Transformed::yes(narrowed(e))
            }
            Expr::AggregateFunction(AggregateFunction { func, params })
                if func.name() == "count"
                    && params.args.iter().all(|a| matches!(a, Expr::Literal(_, _))) =>
            {
                let mut params = params;
                params.filter = params
                    .filter
                    .map(|f| expression(*f, schema, outer).map(|f| Box::new(f.data)))
                    .transpose()?;
                Transformed::new(
                    Expr::AggregateFunction(AggregateFunction { func, params }),
                    true,
                    TreeNodeRecursion::Jump,
                )
            }
            Expr::WindowFunction(mut call) => {
                let values = values_of(&call.fun);
                let mut narrowed = |e: &mut Expr| -> Result<()> {
                    *e = expression(std::mem::take(e), schema, outer)?.data;
                    Ok(())
                };
                let params = &mut call.params;
                params
                    .args
                    .iter_mut()
                    .take(values)
                    .try_for_each(&mut narrowed)?;
                params.partition_by.iter_mut().try_for_each(&mut narrowed)?;
                let order = params.order_by.iter_mut().map(|sort| &mut sort.expr);
                order
                    .chain(params.filter.as_deref_mut())
                    .try_for_each(&mut narrowed)?;
                Transformed::new(Expr::WindowFunction(call), true, TreeNodeRecursion::Jump)
            }
            Expr::ScalarSubquery(subquery) => {
                Transformed::yes(Expr::ScalarSubquery(inner(subquery, schema, outer)?))
            }
            Expr::Exists(exists) => Transformed::yes(Expr::Exists(Exists {
                subquery: inner(exists.subquery, schema, outer)?,
                ..exists
            })),
            Expr::InSubquery(i) => Transformed::yes(Expr::InSubquery(InSubquery {
                subquery: inner(i.subquery, schema, outer)?,
                ..i
            })),
            Expr::OuterReferenceColumn(field, column) => {
                let found = outer
                    .iter()
                    .rev()
                    .find_map(|s| s.field_from_column(&column).ok().cloned());
                Transformed::yes(Expr::OuterReferenceColumn(found.unwrap_or(field), column))
            }
            other => Transformed::no(other),
        })
    })
}

fn inner(subquery: Subquery, schema: &DFSchema, outer: &mut Vec<DFSchema>) -> Result<Subquery> {
    outer.push(schema.clone());
    let plan = narrow(subquery.subquery.as_ref().clone(), outer);
    outer.pop();
    let outer_ref_columns = subquery
        .outer_ref_columns
        .iter()
        .map(|e| expression(e.clone(), schema, &mut vec![schema.clone()]).map(|e| e.data))
        .collect::<Result<_>>()?;
    Ok(Subquery {
        subquery: Arc::new(plan?),
        outer_ref_columns,
        ..subquery
    })
}

/// A quoted constant that is cast to `integer`, without the cast to `bigint` that binding has
/// added.
fn settled_integer(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Cast(cast) if *cast.field.data_type() == DataType::Int32 => {
            matches!(cast.expr.as_ref(), Expr::Literal(_, _)).then_some(expr)
        }
        Expr::Cast(cast) if *cast.field.data_type() == DataType::Int64 => {
            settled_integer(&cast.expr)
        }
        _ => None,
    }
}

/// A constant without the cast to the common type of its column that binding has added.
fn as_written(expr: Expr) -> Expr {
    match expr {
        Expr::Cast(cast)
            if matches!(cast.field.data_type(), DataType::Decimal128(_, _))
                && matches!(cast.expr.as_ref(), Expr::Literal(_, _)) =>
        {
            *cast.expr
        }
        other => other,
    }
}

/// Whether constants of a column of VALUES were written with different scales: each keeps its own.
fn scales_differ(rows: &[Vec<Expr>], column: usize) -> bool {
    let types: Vec<DataType> = rows
        .iter()
        .map(|row| as_written(row[column].clone()))
        .filter_map(|e| match e {
            Expr::Literal(value, _) => Some(value.data_type()),
            _ => None,
        })
        .collect();
    types.len() == rows.len() && common_type(&types.iter().collect::<Vec<_>>()) == Some(NUMERIC)
}

fn fits(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Int64(Some(v)), _) if i32::try_from(*v).is_ok())
}

/// An integer constant as `integer`, if it fits.
pub(super) fn narrowed(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(None), metadata) => {
            Expr::Literal(ScalarValue::Int32(None), metadata)
        }
        Expr::Literal(ScalarValue::Int64(Some(v)), metadata) => match i32::try_from(v) {
            Ok(small) => Expr::Literal(ScalarValue::Int32(Some(small)), metadata),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(v)), metadata),
        },
        other => other,
    }
}
