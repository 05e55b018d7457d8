//! Operands of comparisons and arithmetic.
//!
//! In PostgreSQL a quoted constant has no type of its own: `i < '10'` compares integers, `ok =
//! 'true'` booleans. A text *column* has one, and `s < i` is an error there; DataFusion would cast
//! every text to a number and fail, or not, row by row.

use crate::bind::external;
use crate::types::{NUMERIC, is_numeric_bytes, sql_type_name};
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Between, InList};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion_optimizer::AnalyzerRule;
use tidemark_common::{Error, SqlState};

/// The rule.
#[derive(Debug)]
pub(super) struct Operands;

impl AnalyzerRule for Operands {
    fn name(&self) -> &str {
        "operands"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|plan| {
            if let LogicalPlan::Union(union) = &plan {
                for input in &union.inputs[1..] {
                    for (a, b) in union.inputs[0]
                        .schema()
                        .fields()
                        .iter()
                        .zip(input.schema().fields())
                    {
                        same_kind(a.data_type(), b.data_type())?;
                    }
                }
                return Ok(Transformed::no(plan));
            }
            super::rewrite_node(plan, operands)
        })?;
        Ok(done.data)
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// Types that have nothing in common with text.
fn is_typed(data_type: &DataType) -> bool {
    data_type.is_numeric()
        || is_numeric_bytes(data_type)
        || data_type.is_temporal()
        || *data_type == DataType::Boolean
}

fn same_kind(a: &DataType, b: &DataType) -> Result<()> {
    if is_text(a) && is_typed(b) || is_typed(a) && is_text(b) {
        let message = format!(
            "UNION types {} and {} cannot be matched",
            sql_type_name(a),
            sql_type_name(b)
        );
        return Err(external(Error::user(SqlState::DATATYPE_MISMATCH, message)));
    }
    Ok(())
}

fn operands(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_compared(op) || is_arithmetic(op) =>
        {
            let (left, right, changed) = pair(*left, *right, op, schema)?;
            let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
            Ok(if changed {
                Transformed::yes(expr)
            } else {
                Transformed::no(expr)
            })
        }
        Expr::InList(InList {
            expr,
            list,
            negated,
        }) => {
            let mut changed = false;
            let mut items = Vec::with_capacity(list.len());
            for item in list {
                let (_, item, c) = pair(expr.as_ref().clone(), item, Operator::Eq, schema)?;
                changed |= c;
                items.push(item);
            }
            let expr = Expr::InList(InList {
                expr,
                list: items,
                negated,
            });
            Ok(if changed {
                Transformed::yes(expr)
            } else {
                Transformed::no(expr)
            })
        }
        Expr::Between(Between {
            expr,
            negated,
            low,
            high,
        }) => {
            let (_, low, a) = pair(expr.as_ref().clone(), *low, Operator::GtEq, schema)?;
            let (_, high, b) = pair(expr.as_ref().clone(), *high, Operator::LtEq, schema)?;
            let expr = Expr::Between(Between {
                expr,
                negated,
                low: Box::new(low),
                high: Box::new(high),
            });
            Ok(if a || b {
                Transformed::yes(expr)
            } else {
                Transformed::no(expr)
            })
        }
        other => Ok(Transformed::no(other)),
    }
}

pub(super) fn is_compared(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(
        op,
        Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo
    )
}

/// Brings two operands together; answers whether anything changed.
fn pair(left: Expr, right: Expr, op: Operator, schema: &DFSchema) -> Result<(Expr, Expr, bool)> {
    let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else {
        return Ok((left, right, false));
    };
    if is_text(&r) && is_typed(&l) && quoted(&right) && adapts(op, &l) {
        return Ok((left, cast(right, literal_type(&l)), true));
    }
    if is_text(&l) && is_typed(&r) && quoted(&left) && adapts(op, &r) {
        return Ok((cast(left, literal_type(&r)), right, true));
    }
    if is_compared(op) && (is_text(&l) && is_typed(&r) || is_typed(&l) && is_text(&r)) {
        let message = format!(
            "operator does not exist: {} {op} {}",
            sql_type_name(&l),
            sql_type_name(&r)
        );
        return Err(external(
            Error::user(SqlState::UNDEFINED_FUNCTION, message)
                .with_hint("You might need to add explicit type casts."),
        ));
    }
    Ok((left, right, false))
}

/// A quoted constant.
fn quoted(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// Beside a moment, arithmetic with a quoted constant may mean an interval or a moment: that is
/// left alone.
fn adapts(op: Operator, other: &DataType) -> bool {
    is_compared(op) || other.is_numeric() || is_numeric_bytes(other)
}

/// The type that a quoted constant takes beside `other`: beside a numeric it has the scale that is
/// written.
fn literal_type(other: &DataType) -> DataType {
    match other {
        DataType::Decimal128(_, _) => NUMERIC,
        other => other.clone(),
    }
}
