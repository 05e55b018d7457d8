//! Integer constants are `integer` when they fit, as in PostgreSQL; DataFusion makes every one a
//! `bigint`. So `a + 1` over an integer column stays an integer (and is checked as one), and
//! `SELECT 1` is an `int4` for clients.
//!
//! The rule runs between binding and type coercion. Column names that DataFusion derives from
//! expressions are kept; types of everything above are computed anew, unions and references from
//! subqueries to outer columns included; so is the type of what had none and was bound beside them,
//! `'5'` and `$1` in `'5' + a * 2` and `$1 + 1`. `count(1)` keeps its constant, by which DataFusion
//! knows `count(*)`.

use super::calls::Calls;
use super::late;
use super::numerics::common_type;
use super::recursive;
use super::typing::Typed;
use super::unions;
use crate::signatures;
use crate::types::NUMERIC;
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Exists, InSubquery, Placeholder, ScalarFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::logical_plan::builder::unnest_with_options;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{
    BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, WindowFunctionDefinition,
    cast, lit,
};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;

/// The rule; it comes before type coercion, and twice.
#[derive(Debug)]
pub(super) struct Literals {
    pub calls: Calls,
    /// Whether `bigint`s are those of binding, and none has been asked for by a cast yet.
    pub first: bool,
}

impl AnalyzerRule for Literals {
    fn name(&self) -> &str {
        "literals"
    }
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = narrow(plan, &mut Vec::new(), &self.calls)?.data;
        if self.first {
            return super::rewrite_expressions(plan, |e, schema| self.following(e, schema));
        }
        Ok(plan)
    }
}

impl Literals {
    /// An operator of an integer and of what had no type of its own, which binding has taken for a
    /// `bigint` because the integer was one: it is what the integer is by now.
    fn following(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let integer = |e: &Expr| {
            let is = e.get_type(schema).ok();
            is.filter(|t| matches!(t, DataType::Int16 | DataType::Int32))
        };
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (l, r) = (integer(&left), integer(&right));
                let (left, right) = (self.followed(left, r)?, self.followed(right, l)?);
                Transformed::new_transformed(
                    Expr::BinaryExpr(BinaryExpr::new(left.data, op, right.data)),
                    left.transformed || right.transformed,
                )
            }
            Expr::Between(mut between) => {
                let is = integer(&between.expr);
                let low = self.followed(between.low, is.clone())?;
                let high = self.followed(between.high, is)?;
                (between.low, between.high) = (low.data, high.data);
                Transformed::new_transformed(
                    Expr::Between(between),
                    low.transformed || high.transformed,
                )
            }
            other => Transformed::no(other),
        })
    }

    fn followed(
        &self,
        expr: Box<Expr>,
        integer: Option<DataType>,
    ) -> Result<Transformed<Box<Expr>>> {
        let Some(integer) = integer else {
            return Ok(Transformed::no(expr));
        };
        Ok(match *expr {
            Expr::Literal(ScalarValue::Int64(None), _) => {
                Transformed::yes(Box::new(lit(ScalarValue::try_from(&integer)?)))
            }
            Expr::Placeholder(Placeholder {
                id,
                field: Some(field),
            }) if *field.data_type() == DataType::Int64 => {
                let field = Some(Arc::new(field.as_ref().clone().with_data_type(integer)));
                Transformed::yes(Box::new(Expr::Placeholder(Placeholder { id, field })))
            }
            Expr::ScalarFunction(mut call) if is_bound_bigint(&call) => {
                let quoted = std::mem::take(&mut call.args[0]);
                Transformed::yes(Box::new(self.calls.cast(quoted, &integer)?))
            }
            _ => Transformed::no(expr),
        })
    }
}

/// Whether it is the cast of a quoted constant to `bigint` that binding writes.
fn is_bound_bigint(call: &ScalarFunction) -> bool {
    call.func.name() == "cast_as"
        && matches!(
            call.args.as_slice(),
            [
                Expr::Literal(ScalarValue::Utf8(_), _),
                Expr::Literal(ScalarValue::Int64(None), _),
            ]
        )
}

/// Rewrites a plan whose subqueries may refer to rows of `outer`, innermost last.
fn narrow(
    plan: LogicalPlan,
    outer: &mut Vec<DFSchema>,
    calls: &Calls,
) -> Result<Transformed<LogicalPlan>> {
    let bound = plan.schema().clone();
    let Transformed {
        data: plan,
        transformed: below,
        ..
    } = plan.map_children(|child| narrow(child, outer, calls))?;
    let narrowed = match plan {
        // The types of the working table were fixed at binding: both terms keep them.
        LogicalPlan::RecursiveQuery(query) => {
            let types: Vec<_> = bound
                .fields()
                .iter()
                .map(|f| Some(f.data_type().clone()))
                .collect();
            recursive::check(&query)?;
            LogicalPlan::RecursiveQuery(RecursiveQuery {
                static_term: Arc::new(with_types(query.static_term.as_ref(), &types)?),
                recursive_term: Arc::new(with_types(query.recursive_term.as_ref(), &types)?),
                ..query
            })
        }
        LogicalPlan::Union(union) => unions::typed(union)?,
        LogicalPlan::Values(mut values) => {
            let none = DFSchema::empty();
            for value in values.values.iter_mut().flatten() {
                let written = truth_of_number(std::mem::take(value))?;
                *value = late::resolve(written, &none, calls)?.data;
            }
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
            let common = columns.map(|c| common_of(&values.values, c));
            let common: Vec<Option<DataType>> = common.collect();
            if !wide.contains(&true) && common.iter().all(Option::is_none) {
                return Ok(Transformed::yes(LogicalPlan::Values(values)));
            }
            let value = |(c, e): (usize, Expr)| match (&common[c], settled_integer(&e)) {
                (_, Some(integer)) if wide[c] => integer.clone(),
                (_, None) if wide[c] => narrowed(e),
                (Some(common), _) => cast(as_written(e), common.clone()),
                (None, _) => e,
            };
            let rows = values
                .values
                .into_iter()
                .map(|row| row.into_iter().enumerate().map(value).collect())
                .collect();
            LogicalPlanBuilder::values(rows)?.build()?
        }
        // The numbers there count rows, or are positions.
        LogicalPlan::Limit(_) => {
            let none = DFSchema::empty();
            plan.map_expressions(|e| late::resolve(e, &none, calls))?
                .data
        }
        // Its columns have the types of the lists' elements.
        LogicalPlan::Unnest(unnest) => unnest_with_options(
            unnest.input.as_ref().clone(),
            unnest.exec_columns,
            unnest.options,
        )?,
        plan => {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let narrowed = expression(expr, &schema, outer, calls)?;
                let resolved = narrowed.transform_data(|e| late::resolve(e, &schema, calls))?;
                Ok(match resolved.transformed {
                    true => resolved.update_data(|e| name.restore(e)),
                    false => resolved,
                })
            })?;
            if !below && !rewritten.transformed {
                return Ok(rewritten);
            }
            rewritten.data.recompute_schema()?
        }
    };
    Ok(Transformed::yes(narrowed))
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
    calls: &Calls,
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
                    .map(|f| expression(*f, schema, outer, calls).map(|f| Box::new(f.data)))
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
                    *e = expression(std::mem::take(e), schema, outer, calls)?.data;
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
                Transformed::yes(Expr::ScalarSubquery(inner(subquery, schema, outer, calls)?))
            }
            Expr::Exists(exists) => Transformed::yes(Expr::Exists(Exists {
                subquery: inner(exists.subquery, schema, outer, calls)?,
                ..exists
            })),
            Expr::InSubquery(i) => Transformed::yes(Expr::InSubquery(InSubquery {
                subquery: inner(i.subquery, schema, outer, calls)?,
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

fn inner(
    subquery: Subquery,
    schema: &DFSchema,
    outer: &mut Vec<DFSchema>,
    calls: &Calls,
) -> Result<Subquery> {
    outer.push(schema.clone());
    let plan = narrow(subquery.subquery.as_ref().clone(), outer, calls);
    outer.pop();
    let outer_ref_columns = subquery
        .outer_ref_columns
        .iter()
        .map(|e| expression(e.clone(), schema, &mut vec![schema.clone()], calls).map(|e| e.data))
        .collect::<Result<_>>()?;
    Ok(Subquery {
        subquery: Arc::new(plan?.data),
        outer_ref_columns,
        ..subquery
    })
}

/// A value of VALUES, with integer constants in what is cast to `boolean`, of which there is a cast
/// from `integer` alone.
fn truth_of_number(expr: Expr) -> Result<Expr> {
    let done = expr.transform_down(|e| match e {
        Expr::Cast(mut c) if *c.field.data_type() == DataType::Boolean => {
            let constants = c.expr.transform_up(|e| Ok(Transformed::yes(narrowed(e))))?;
            c.expr = Box::new(constants.data);
            Ok(Transformed::yes(Expr::Cast(c)))
        }
        e => Ok(Transformed::no(e)),
    })?;
    Ok(done.data)
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

/// A value without the cast to the common type of its column that binding has added: of constants
/// to a numeric of one scale, of moments to nanoseconds.
fn as_written(expr: Expr) -> Expr {
    match expr {
        Expr::Cast(cast)
            if matches!(cast.field.data_type(), DataType::Decimal128(_, _))
                && matches!(cast.expr.as_ref(), Expr::Literal(_, _)) =>
        {
            *cast.expr
        }
        Expr::Cast(cast) if is_of_nanoseconds(cast.field.data_type()) => *cast.expr,
        other => other,
    }
}

fn is_of_nanoseconds(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond)
    )
}

/// The type of a column of VALUES, where it is not the one of binding: constants that were written
/// with different scales keep each its own, dates and timestamps are timestamps of microseconds.
fn common_of(rows: &[Vec<Expr>], column: usize) -> Option<DataType> {
    let none = DFSchema::empty();
    let moments = rows
        .iter()
        .any(|row| matches!(&row[column], Expr::Cast(c) if is_of_nanoseconds(c.field.data_type())));
    let types = rows
        .iter()
        .map(|row| match as_written(row[column].clone()) {
            Expr::Literal(value, _) => Some(value.data_type()),
            value if moments => value.get_type(&none).ok(),
            _ => None,
        });
    let types = types.collect::<Option<Vec<DataType>>>()?;
    if moments {
        let known = types.into_iter().filter(|t| *t != DataType::Null);
        return signatures::common_type(&known.collect::<Vec<_>>());
    }
    common_type(&types.iter().collect::<Vec<_>>()).filter(|t| *t == NUMERIC)
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
