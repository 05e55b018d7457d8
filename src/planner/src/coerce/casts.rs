//! Casts: those that Arrow has none of, or that it does otherwise than PostgreSQL, are calls of
//! `cast_as`.

use super::calls::Calls;
use super::text_calls::casts_bytes;
use crate::types::{BPCHAR, JSONB, UUID, is_numeric_bytes};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{Expr, cast, lit};

impl Calls {
    /// A value of type `from` as one of type `to`.
    pub(super) fn convert(&self, value: Expr, from: &DataType, to: &DataType) -> Result<Expr> {
        if from == to {
            Ok(value)
        } else if *from == DataType::Null && matches!(value, Expr::Literal(_, _)) {
            Ok(lit(ScalarValue::try_from(to)?))
        } else if is_ours(from, to) {
            self.cast(value, to)
        } else {
            Ok(cast(value, to.clone()))
        }
    }
}

/// Whether a cast is one of ours, and not Arrow's.
pub(super) fn is_ours(from: &DataType, to: &DataType) -> bool {
    casts_numerics(from, to)
        || casts_moments(from, to)
        || casts_texts(from, to)
        || casts_bytes(from, to)
}

/// Casts from and to `char(n)`, and between text and `uuid`.
fn casts_texts(from: &DataType, to: &DataType) -> bool {
    let texts = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8);
    if from == to || *from == DataType::Null {
        return false;
    }
    *from == BPCHAR || *to == BPCHAR || *from == UUID && texts(to) || *to == UUID && texts(from)
}

/// Casts between texts and moments, and among moments, that Arrow does otherwise.
fn casts_moments(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Interval, LargeUtf8, Time64, Timestamp, Utf8, Utf8View};
    let moment = |t: &DataType| {
        matches!(
            t,
            Date32
                | Time64(TimeUnit::Microsecond)
                | Timestamp(TimeUnit::Microsecond, _)
                | Interval(IntervalUnit::MonthDayNano)
        )
    };
    match (from, to) {
        (Utf8 | LargeUtf8 | Utf8View, to) => moment(to),
        (from, Utf8) => moment(from),
        (Date32, Timestamp(TimeUnit::Microsecond, _))
        | (Timestamp(TimeUnit::Microsecond, _), Date32 | Time64(TimeUnit::Microsecond))
        | (Interval(IntervalUnit::MonthDayNano), Time64(TimeUnit::Microsecond))
        | (Time64(TimeUnit::Microsecond), Interval(IntervalUnit::MonthDayNano)) => true,
        _ => false,
    }
}

/// Casts that Arrow has none of, or that it does otherwise than PostgreSQL.
fn casts_numerics(from: &DataType, to: &DataType) -> bool {
    if from == to || *from == DataType::Null {
        return false;
    }
    let text =
        |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let plain = |t: &DataType| t.is_numeric() || text(t);
    match (from, to) {
        (DataType::List(_), DataType::List(_)) => true,
        (DataType::List(_), t) => text(t),
        (f, DataType::List(_)) => text(f),
        (f, t) if *t == JSONB => text(f),
        (f, t) if *f == JSONB => plain(t) || is_numeric_bytes(t) || *t == DataType::Boolean,
        (f, t) if is_numeric_bytes(f) => plain(t),
        (f, t) if is_numeric_bytes(t) => plain(f),
        (DataType::Decimal256(_, _), t) => plain(t),
        (f, DataType::Decimal128(_, _)) => f.is_floating() || text(f),
        _ => false,
    }
}
