//! Dates, timestamps and intervals as in PostgreSQL:
//!
//! * a date plus or minus an interval is a timestamp; DataFusion keeps a date and loses the hours;
//! * a date beside a timestamp becomes a timestamp of microseconds; DataFusion makes both
//!   nanoseconds, which end in 2262;
//! * differences, and intervals by numbers, are functions of ours ([`operator`]).

use super::operands::is_compared;
use super::typing::Typed;
use crate::types::is_numeric_bytes;
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::{Between, InList};
use datafusion_expr::planner::RawBinaryExpr;
use datafusion_expr::{BinaryExpr, Expr, Operator, cast};

/// An expression, given that those below are done.
pub(super) fn moment(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let mut operands = vec![*left, *right];
            let changed = match is_compared(op) {
                true => alike(&mut operands, schema),
                false => shifted(&mut operands, op, schema),
            };
            let right = operands.remove(1);
            Transformed::new_transformed(
                Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(operands.remove(0)),
                    op,
                    Box::new(right),
                )),
                changed,
            )
        }
        Expr::Between(Between {
            expr,
            negated,
            low,
            high,
        }) => {
            let mut operands = vec![*expr, *low, *high];
            let changed = alike(&mut operands, schema);
            let (high, low) = (operands.remove(2), operands.remove(1));
            Transformed::new_transformed(
                Expr::Between(Between::new(
                    Box::new(operands.remove(0)),
                    negated,
                    Box::new(low),
                    Box::new(high),
                )),
                changed,
            )
        }
        Expr::InList(InList {
            expr,
            list,
            negated,
        }) => {
            let mut operands: Vec<Expr> = std::iter::once(*expr).chain(list).collect();
            let changed = alike(&mut operands, schema);
            let expr = Box::new(operands.remove(0));
            Transformed::new_transformed(
                Expr::InList(InList::new(expr, operands, negated)),
                changed,
            )
        }
        other => Transformed::no(other),
    })
}

/// The same while names are bound, for what is sure to be a date: the columns of VALUES get their
/// types there.
pub(super) fn shifted_constant(
    mut raw: RawBinaryExpr,
    op: Operator,
    schema: &DFSchema,
) -> RawBinaryExpr {
    let certain = |e: &Expr| match e {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Literal(..)),
        Expr::ScalarFunction(call) => call.args.is_empty(),
        _ => false,
    };
    let mut operands = [raw.left, raw.right];
    if operands.iter().all(certain) {
        shifted(&mut operands, op, schema);
    }
    [raw.left, raw.right] = operands;
    raw
}

/// A date that an interval is added to or taken from becomes a timestamp.
fn shifted(operands: &mut [Expr], op: Operator, schema: &DFSchema) -> bool {
    if !matches!(op, Operator::Plus | Operator::Minus) {
        return false;
    }
    let types: Vec<_> = operands.iter().map(|e| e.get_type(schema).ok()).collect();
    let at = match types.as_slice() {
        [Some(DataType::Date32), Some(DataType::Interval(_))] => 0,
        [Some(DataType::Interval(_)), Some(DataType::Date32)] if op == Operator::Plus => 1,
        _ => return false,
    };
    operands[at] = cast(
        operands[at].clone(),
        DataType::Timestamp(TimeUnit::Microsecond, None),
    );
    true
}

/// Dates among timestamps become timestamps of the same kind.
fn alike(operands: &mut [Expr], schema: &DFSchema) -> bool {
    let types: Vec<_> = operands.iter().map(|e| e.get_type(schema).ok()).collect();
    let Some(zone) = types.iter().find_map(|t| {
        if let Some(DataType::Timestamp(_, zone)) = t {
            Some(zone.clone())
        } else {
            None
        }
    }) else {
        return false;
    };
    let mut changed = false;
    for (operand, data_type) in operands.iter_mut().zip(&types) {
        if *data_type == Some(DataType::Date32) {
            *operand = cast(
                operand.clone(),
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            );
            changed = true;
        }
    }
    changed
}

/// A time of day, which is an interval to what multiplies and divides these.
pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time64(_))
}

/// Whether the function of an operator takes a `double precision`, by which an interval grows.
pub(super) fn scales(function: &str) -> bool {
    matches!(function, "interval_times" | "interval_divide")
}

/// Days that a date is moved by: an `integer` or what becomes one.
fn is_days(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32)
}

/// The function that an operator of moments is.
pub(super) fn operator(op: Operator, left: &DataType, right: &DataType) -> Option<&'static str> {
    use DataType::{Date32, Interval, Time64, Timestamp};
    let number = |t: &DataType| t.is_numeric() || is_numeric_bytes(t);
    Some(match (op, left, right) {
        (Operator::Minus, Timestamp(_, _), Timestamp(_, _) | Date32)
        | (Operator::Minus, Date32, Timestamp(_, _)) => "timestamp_minus",
        (Operator::Minus, Date32, Date32) => "date_minus",
        (Operator::Minus, Time64(_), Time64(_)) => "time_minus",
        (Operator::Plus, Time64(_), Interval(_)) => "time_plus_interval",
        (Operator::Minus, Time64(_), Interval(_)) => "time_minus_interval",
        (Operator::Plus, Date32, Time64(_)) | (Operator::Plus, Time64(_), Date32) => {
            "date_plus_time"
        }
        (Operator::Plus, Date32, days) | (Operator::Plus, days, Date32) if is_days(days) => {
            "date_plus_days"
        }
        (Operator::Minus, Date32, days) if is_days(days) => "date_minus_days",
        (Operator::Multiply, Interval(_), n) | (Operator::Multiply, n, Interval(_))
            if number(n) =>
        {
            "interval_times"
        }
        (Operator::Divide, Interval(_), n) if number(n) => "interval_divide",
        _ => return None,
    })
}
