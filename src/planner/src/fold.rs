//! Simplification of expressions, with no evaluator of its own.
//!
//! DataFusion's rule evaluates constants with DataFusion's arithmetic, which wraps, truncates casts
//! and divides by zero differently from ours: a constant would have another value in a plan than at
//! run time. So here only what has one meaning everywhere is folded: boolean algebra with
//! constants, casts of constants that lose nothing, comparisons with a widened integer column, and
//! the rewriting that a function offers for itself.

use crate::bind::Registry;
use crate::error::external;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

use arrow_schema::DataType;

/// Simplifies every expression of an analyzed plan; names and types of columns stay.
pub(crate) fn fold_plan(plan: LogicalPlan, registry: &Registry) -> Result<LogicalPlan> {
    let options = Arc::new(registry.options().clone());
    let folded = plan.transform_up_with_subqueries(|plan| {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&DFSchema::try_from_qualified_schema(
                scan.table_name.clone(),
                &scan.source.schema(),
            )?);
        }
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema))
            .with_config_options(options.clone())
            .build();
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr
                .transform_up(|e| fold(e, &context))?
                .update_data(|e| name.restore(e)))
        })
    })?;
    Ok(folded.data)
}

fn fold(expr: Expr, context: &SimplifyContext) -> Result<Transformed<Expr>> {
    tidemark_common::check_interrupt().map_err(external)?;
    match expr {
        Expr::Cast(Cast { expr: inner, field }) => match constant(&inner)
            .map(|v| fold_cast(v, field.data_type()))
            .transpose()?
            .flatten()
        {
            Some(value) => Ok(Transformed::yes(lit(value))),
            None => Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field }))),
        },
        Expr::Not(inner) => match (truth(&inner), *inner) {
            (Some(value), _) => Ok(Transformed::yes(lit(!value))),
            (None, Expr::Not(twice)) => Ok(Transformed::yes(*twice)),
            (None, inner) => Ok(Transformed::no(Expr::Not(Box::new(inner)))),
        },
        Expr::BinaryExpr(b) => Ok(fold_binary(b, context)),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            Ok(match func.simplify(args, context)? {
                ExprSimplifyResult::Simplified(simpler) => Transformed::yes(simpler),
                ExprSimplifyResult::Original(args) => {
                    Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))
                }
            })
        }
        other => Ok(Transformed::no(other)),
    }
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        Some(value)
    } else {
        None
    }
}

/// True or false, if the expression is that constant.
fn truth(expr: &Expr) -> Option<bool> {
    if let Some(ScalarValue::Boolean(Some(value))) = constant(expr) {
        Some(*value)
    } else {
        None
    }
}

fn fold_binary(b: BinaryExpr, context: &SimplifyContext) -> Transformed<Expr> {
    let (left, right) = (truth(&b.left), truth(&b.right));
    match (b.op, left, right) {
        (Operator::And, Some(false), _) | (Operator::And, _, Some(false)) => {
            Transformed::yes(lit(false))
        }
        (Operator::Or, Some(true), _) | (Operator::Or, _, Some(true)) => {
            Transformed::yes(lit(true))
        }
        (Operator::And, Some(true), _) | (Operator::Or, Some(false), _) => {
            Transformed::yes(*b.right)
        }
        (Operator::And, _, Some(true)) | (Operator::Or, _, Some(false)) => {
            Transformed::yes(*b.left)
        }
        _ => match narrowed(&b.left, &b.right, context) {
            Some((left, right)) if is_comparison(b.op) => Transformed::yes(Expr::BinaryExpr(
                BinaryExpr::new(Box::new(left), b.op, Box::new(right)),
            )),
            _ => Transformed::no(Expr::BinaryExpr(b)),
        },
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
    )
}

/// `CAST(c AS wider integer) op constant` is `c op constant` when the constant fits c's type:
/// widening keeps order and equality.
fn narrowed(left: &Expr, right: &Expr, context: &SimplifyContext) -> Option<(Expr, Expr)> {
    let Expr::Cast(Cast { expr, field }) = left else {
        return None;
    };
    let from = expr.get_type(context.schema().as_ref()).ok()?;
    if !from.is_signed_integer()
        || !field.data_type().is_signed_integer()
        || from.primitive_width()? > field.data_type().primitive_width()?
    {
        return None;
    }
    let value = fold_cast(constant(right)?, &from).ok()??;
    Some((expr.as_ref().clone(), lit(value)))
}

/// A constant of another type, if that is exact; `None` leaves the cast to run time. Errors:
/// `22P02` for text that is no number.
fn fold_cast(value: &ScalarValue, to: &DataType) -> Result<Option<ScalarValue>> {
    if value.is_null() {
        return Ok(ScalarValue::try_from(to).ok());
    }
    if value.data_type() == *to {
        return Ok(Some(value.clone()));
    }
    if let ScalarValue::Utf8(Some(text)) = value {
        return fold_text(text, to);
    }
    if let Some(integer) = integer(value) {
        return Ok(from_integer(integer, to));
    }
    match (value, to) {
        (ScalarValue::Decimal128(Some(v), _, scale), DataType::Decimal128(precision, to_scale))
            if to_scale >= scale =>
        {
            let scaled = 10i128
                .checked_pow((to_scale - scale) as u32)
                .and_then(|f| v.checked_mul(f));
            Ok(scaled
                .filter(|v| fits(*v, *precision))
                .map(|v| ScalarValue::Decimal128(Some(v), *precision, *to_scale)))
        }
        (ScalarValue::Decimal128(Some(v), _, scale), DataType::Float64) => {
            Ok(format!("{v}e{}", -i32::from(*scale))
                .parse()
                .ok()
                .map(|v| ScalarValue::Float64(Some(v))))
        }
        _ => Ok(None),
    }
}

fn fits(value: i128, precision: u8) -> bool {
    10i128
        .checked_pow(u32::from(precision))
        .is_none_or(|limit| value.unsigned_abs() < limit.unsigned_abs())
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int8(v) => v.map(i64::from),
        ScalarValue::Int16(v) => v.map(i64::from),
        ScalarValue::Int32(v) => v.map(i64::from),
        ScalarValue::Int64(v) => *v,
        _ => None,
    }
}

fn from_integer(v: i64, to: &DataType) -> Option<ScalarValue> {
    Some(match to {
        DataType::Int8 => ScalarValue::Int8(Some(v.try_into().ok()?)),
        DataType::Int16 => ScalarValue::Int16(Some(v.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(v.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(v)),
        DataType::Float64 if v.unsigned_abs() <= 1 << 53 => ScalarValue::Float64(Some(v as f64)),
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            let scaled = i128::from(v).checked_mul(10i128.checked_pow(*scale as u32)?)?;
            if !fits(scaled, *precision) {
                return None;
            }
            ScalarValue::Decimal128(Some(scaled), *precision, *scale)
        }
        _ => return None,
    })
}

/// Text constants: what is written the plain way. Anything else is left to run time, which knows
/// all of PostgreSQL's input formats.
fn fold_text(text: &str, to: &DataType) -> Result<Option<ScalarValue>> {
    let trimmed = text.trim();
    match to {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => match trimmed.parse::<i64>() {
            Ok(v) => Ok(from_integer(v, to)),
            Err(_)
                if trimmed.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
                    && trimmed.len() > 1 =>
            {
                Ok(None)
            }
            Err(_) => Err(external(Error::user(
                SqlState::INVALID_TEXT,
                format!(
                    "invalid input syntax for type {}: \"{text}\"",
                    crate::types::sql_type_name(to)
                ),
            ))),
        },
        DataType::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Ok(Some(ScalarValue::Boolean(Some(true)))),
            "f" | "false" | "n" | "no" | "off" | "0" => Ok(Some(ScalarValue::Boolean(Some(false)))),
            _ => Err(external(Error::user(
                SqlState::INVALID_TEXT,
                format!("invalid input syntax for type boolean: \"{text}\""),
            ))),
        },
        DataType::Timestamp(_, None) | DataType::Date32
            if trimmed.len() >= 10
                && trimmed
                    .chars()
                    .all(|c| c.is_ascii_digit() || "-: .T".contains(c)) =>
        {
            Ok(ScalarValue::Utf8(Some(trimmed.into())).cast_to(to).ok())
        }
        _ => Ok(None),
    }
}
