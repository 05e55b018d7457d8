//! DataFusion's scalar expressions to ours: columns by position, coercions explicit, the few forms
//! that are shorthand written out (`BETWEEN` as two comparisons, `IS NOT TRUE` as `NOT (.. IS
//! TRUE)`).

use crate::coerce::MARK;
use crate::lower::temporal::{is_now, misplaced};
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::{Expr as Df, Operator, expr as df};
use tidemark_common::{Error, Result};
use tidemark_plan::{BinaryOp, Expr, Literal};

/// Lowers an expression over rows of `schema`. Errors: `0A000` naming the construct that cannot be
/// maintained.
pub fn to_expr(expr: &Df, schema: &DFSchema) -> Result<Expr> {
    let lower = |e: &Df| to_expr(e, schema);
    let boxed = |e: &Df| to_expr(e, schema).map(Box::new);
    Ok(match expr {
        Df::Alias(alias) => lower(&alias.expr)?,
        Df::Column(column) => Expr::Column(
            schema
                .index_of_column(column)
                .map_err(|e| Error::internal(format!("column {column} is lost: {e}")))?,
        ),
        Df::Literal(value, _) => literal(value)?,
        Df::BinaryExpr(b) => Expr::Binary {
            op: binary_op(b.op)?,
            left: boxed(&b.left)?,
            right: boxed(&b.right)?,
        },
        Df::Like(like) => {
            if like.escape_char.is_some_and(|c| c != '\\') {
                return Err(Error::unsupported("LIKE with ESCAPE is not supported"));
            }
            Expr::Like {
                negated: like.negated,
                case_insensitive: like.case_insensitive,
                expr: boxed(&like.expr)?,
                pattern: boxed(&like.pattern)?,
            }
        }
        Df::SimilarTo(_) => {
            return Err(Error::unsupported("SIMILAR TO is not supported")
                .with_hint("Use the operator ~ with a regular expression."));
        }
        Df::Not(e) => Expr::Not(boxed(e)?),
        Df::Negative(e) => Expr::Negative(boxed(e)?),
        Df::IsNull(e) | Df::IsUnknown(e) => Expr::IsNull(boxed(e)?),
        Df::IsNotNull(e) | Df::IsNotUnknown(e) => Expr::IsNotNull(boxed(e)?),
        Df::IsTrue(e) => Expr::IsTrue(boxed(e)?),
        Df::IsFalse(e) => Expr::IsFalse(boxed(e)?),
        Df::IsNotTrue(e) => Expr::Not(Box::new(Expr::IsTrue(boxed(e)?))),
        Df::IsNotFalse(e) => Expr::Not(Box::new(Expr::IsFalse(boxed(e)?))),
        Df::Between(b) => {
            let at_least = Expr::Binary {
                op: BinaryOp::GtEq,
                left: boxed(&b.expr)?,
                right: boxed(&b.low)?,
            };
            let at_most = Expr::Binary {
                op: BinaryOp::LtEq,
                left: boxed(&b.expr)?,
                right: boxed(&b.high)?,
            };
            let both = Expr::Binary {
                op: BinaryOp::And,
                left: Box::new(at_least),
                right: Box::new(at_most),
            };
            if b.negated {
                Expr::Not(Box::new(both))
            } else {
                both
            }
        }
        Df::Case(case) => Expr::Case {
            operand: case.expr.as_deref().map(boxed).transpose()?,
            when_then: case
                .when_then_expr
                .iter()
                .map(|(when, then)| Ok((lower(when)?, lower(then)?)))
                .collect::<Result<_>>()?,
            otherwise: case.else_expr.as_deref().map(boxed).transpose()?,
        },
        Df::Cast(cast) => cast_to(lower(&cast.expr)?, cast.field.data_type(), false),
        Df::TryCast(cast) => cast_to(lower(&cast.expr)?, cast.field.data_type(), true),
        Df::ScalarFunction(_) if is_now(expr) => return Err(misplaced()),
        Df::ScalarFunction(call) if is_mark(call) => lower(&call.args[0])?,
        Df::ScalarFunction(call) => Expr::Call {
            function: call.func.name().to_string(),
            args: call.args.iter().map(lower).collect::<Result<_>>()?,
        },
        Df::InList(list) => Expr::InList {
            negated: list.negated,
            expr: boxed(&list.expr)?,
            list: list.list.iter().map(lower).collect::<Result<_>>()?,
        },
        other => return Err(unsupported(other)),
    })
}

/// Whether a call only marks what a recursive term computes, which has been looked at by now.
fn is_mark(call: &df::ScalarFunction) -> bool {
    let is_null = |e: &Df| matches!(e, Df::Literal(value, _) if value.is_null());
    call.func.name() == MARK && matches!(call.args.as_slice(), [_, type_name] if is_null(type_name))
}

fn cast_to(expr: Expr, to: &DataType, safe: bool) -> Expr {
    match expr {
        Expr::Literal(Literal::Null(_)) => Expr::Literal(Literal::Null(to.clone())),
        expr => Expr::Cast {
            expr: Box::new(expr),
            to: to.clone(),
            safe,
        },
    }
}

fn unsupported(expr: &Df) -> Error {
    match expr {
        Df::ScalarSubquery(_) => Error::unsupported(
            "a scalar subquery in this place is not supported",
        )
        .with_hint(
            "It must be an aggregate without GROUP BY, so that it has one row, and stand in SELECT \
             or WHERE.",
        ),
        Df::InSubquery(_) | Df::SetComparison(_) => {
            Error::unsupported("IN (subquery) outside of WHERE is not supported")
        }
        Df::Exists(_) => Error::unsupported("EXISTS outside of WHERE is not supported"),
        Df::WindowFunction(f) => Error::unsupported(format!(
            "window function {} is not supported",
            window_name(f)
        )),
        Df::AggregateFunction(f) => Error::unsupported(format!(
            "aggregate function {}() is not supported here",
            f.func.name()
        )),
        Df::GroupingSet(_) => {
            Error::unsupported("GROUPING SETS, ROLLUP and CUBE are not supported")
        }
        Df::Unnest(_) => Error::unsupported(
            "UNNEST, and functions of several rows, are not supported in a streaming query",
        ),
        Df::Placeholder(p) => Error::user(
            tidemark_common::SqlState("42P02"),
            format!("there is no parameter {}", p.id),
        ),
        Df::OuterReferenceColumn(_, column) => {
            Error::unsupported(format!("correlated subquery on {column} is not supported"))
        }
        other => Error::unsupported(format!("expression {other} is not supported")),
    }
}

fn window_name(f: &df::WindowFunction) -> String {
    format!("{}() OVER", f.fun.name())
}

fn binary_op(op: Operator) -> Result<BinaryOp> {
    Ok(match op {
        Operator::Eq => BinaryOp::Eq,
        Operator::NotEq => BinaryOp::NotEq,
        Operator::Lt => BinaryOp::Lt,
        Operator::LtEq => BinaryOp::LtEq,
        Operator::Gt => BinaryOp::Gt,
        Operator::GtEq => BinaryOp::GtEq,
        Operator::Plus => BinaryOp::Plus,
        Operator::Minus => BinaryOp::Minus,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::RegexMatch => BinaryOp::RegexMatch,
        Operator::RegexIMatch => BinaryOp::RegexIMatch,
        Operator::RegexNotMatch => BinaryOp::RegexNotMatch,
        Operator::RegexNotIMatch => BinaryOp::RegexNotIMatch,
        Operator::BitwiseAnd => BinaryOp::BitwiseAnd,
        Operator::BitwiseOr => BinaryOp::BitwiseOr,
        Operator::BitwiseXor => BinaryOp::BitwiseXor,
        Operator::BitwiseShiftLeft => BinaryOp::ShiftLeft,
        Operator::BitwiseShiftRight => BinaryOp::ShiftRight,
        Operator::StringConcat => BinaryOp::StringConcat,
        other => {
            return Err(Error::unsupported(format!(
                "operator {other} is not supported"
            )));
        }
    })
}

/// A constant. What our literals cannot say in its own unit is a literal of a wider one inside a
/// cast.
fn literal(value: &ScalarValue) -> Result<Expr> {
    let cast = |literal: Literal| {
        Ok(Expr::Cast {
            expr: Box::new(Expr::Literal(literal)),
            to: value.data_type(),
            safe: false,
        })
    };
    let micros = |v: i64, tz: &Option<std::sync::Arc<str>>| {
        Literal::TimestampMicros(v, tz.as_ref().map(|t| t.to_string()))
    };
    let too_large = || {
        Error::user(
            tidemark_common::SqlState::NUMERIC_OUT_OF_RANGE,
            format!("constant {value} is out of range"),
        )
    };
    Ok(Expr::Literal(match value {
        v if v.is_null() => Literal::Null(v.data_type()),
        ScalarValue::Boolean(Some(v)) => Literal::Boolean(*v),
        ScalarValue::Int8(Some(v)) => Literal::Int8(*v),
        ScalarValue::Int16(Some(v)) => Literal::Int16(*v),
        ScalarValue::Int32(Some(v)) => Literal::Int32(*v),
        ScalarValue::Int64(Some(v)) => Literal::Int64(*v),
        ScalarValue::UInt8(Some(v)) => Literal::UInt8(*v),
        ScalarValue::UInt16(Some(v)) => Literal::UInt16(*v),
        ScalarValue::UInt32(Some(v)) => Literal::UInt32(*v),
        ScalarValue::UInt64(Some(v)) => Literal::UInt64(*v),
        ScalarValue::Float32(Some(v)) => Literal::Float32(*v),
        ScalarValue::Float64(Some(v)) => Literal::Float64(*v),
        ScalarValue::Decimal32(Some(v), p, s) => Literal::Decimal128(v.to_string(), *p, *s),
        ScalarValue::Decimal64(Some(v), p, s) => Literal::Decimal128(v.to_string(), *p, *s),
        ScalarValue::Decimal128(Some(v), p, s) => Literal::Decimal128(v.to_string(), *p, *s),
        ScalarValue::Utf8(Some(v)) => Literal::Utf8(v.clone()),
        ScalarValue::Utf8View(Some(v)) | ScalarValue::LargeUtf8(Some(v)) => {
            return cast(Literal::Utf8(v.clone()));
        }
        ScalarValue::FixedSizeBinary(_, Some(v)) => return cast(Literal::Binary(v.clone())),
        ScalarValue::Binary(Some(v)) => Literal::Binary(v.clone()),
        ScalarValue::BinaryView(Some(v)) | ScalarValue::LargeBinary(Some(v)) => {
            return cast(Literal::Binary(v.clone()));
        }
        ScalarValue::Date32(Some(v)) => Literal::Date32(*v),
        ScalarValue::Time64Microsecond(Some(v)) => Literal::Time64Micros(*v),
        ScalarValue::Time64Nanosecond(Some(v)) => return cast(Literal::Time64Micros(v / 1000)),
        ScalarValue::TimestampSecond(Some(v), tz) => {
            return cast(micros(v.checked_mul(1_000_000).ok_or_else(too_large)?, tz));
        }
        ScalarValue::TimestampMillisecond(Some(v), tz) => {
            return cast(micros(v.checked_mul(1000).ok_or_else(too_large)?, tz));
        }
        ScalarValue::TimestampMicrosecond(Some(v), tz) => micros(*v, tz),
        ScalarValue::TimestampNanosecond(Some(v), tz) if v % 1000 == 0 => {
            return cast(micros(v / 1000, tz));
        }
        ScalarValue::IntervalMonthDayNano(Some(v)) => {
            Literal::IntervalMonthDayNano(v.months, v.days, v.nanoseconds)
        }
        ScalarValue::IntervalYearMonth(Some(v)) => {
            return cast(Literal::IntervalMonthDayNano(*v, 0, 0));
        }
        ScalarValue::IntervalDayTime(Some(v)) => {
            return cast(Literal::IntervalMonthDayNano(
                0,
                v.days,
                i64::from(v.milliseconds) * 1_000_000,
            ));
        }
        ScalarValue::Dictionary(_, inner) => return literal(inner),
        other => {
            return Err(Error::unsupported(format!(
                "a constant of type {} is not supported",
                crate::types::sql_type_name(&other.data_type())
            )));
        }
    }))
}

/// Types that relations do not keep, as the type that they are kept in.
pub(crate) fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal256(_, _) => crate::types::NUMERIC,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Duration(_) | DataType::Interval(_) => {
            DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano)
        }
        DataType::Dictionary(_, value) => stored_type(value),
        other => other.clone(),
    }
}
