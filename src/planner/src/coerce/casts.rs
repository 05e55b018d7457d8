//! Casts: those that Arrow has none of, or that it does otherwise than PostgreSQL, are calls of
//! `cast_as`.

use super::calls::Calls;
use super::text_calls::casts_bytes;
use crate::types::{BPCHAR, JSONB, UUID, is_numeric_bytes};
use arrow_schema::{DataType, FieldRef, IntervalUnit, TimeUnit};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{Expr, cast, lit};
use tidemark_plan::maps::map_parts;

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
    reads_text(from, to)
        || casts_numerics(from, to)
        || casts_moments(from, to)
        || casts_texts(from, to)
        || casts_bytes(from, to)
        || casts_rows(from, to)
}

/// Rows and maps, from and to texts and each other.
fn casts_rows(from: &DataType, to: &DataType) -> bool {
    use DataType::{Map, Struct, Utf8};
    match (from, to) {
        (Struct(_) | Map(..), Utf8) | (Utf8, Struct(_) | Map(..)) => true,
        (Struct(_), Struct(_)) | (Map(..), Map(..)) => from != to,
        _ => false,
    }
}

/// Texts whose value Arrow reads otherwise: `1e400`, ` 7 `, `yes`.
fn reads_text(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Float32, Float64, Int16, Int32, Int64, Utf8};
    *from == Utf8 && matches!(to, Boolean | Int16 | Int32 | Int64 | Float32 | Float64)
}

/// Whether there is a cast at all, in PostgreSQL's table of casts.
pub(super) fn exists(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, Boolean, Date32, Int32, Interval, List, Null, Struct, Time64};
    use DataType::{Timestamp, Utf8};
    let text = |t: &DataType| *t == Utf8 || *t == BPCHAR;
    let number = |t: &DataType| t.is_numeric() || is_numeric_bytes(t);
    let kind = |t: &DataType| match t {
        t if number(t) => Some(Kind::Number),
        Date32 => Some(Kind::Date),
        Time64(_) => Some(Kind::Time),
        Timestamp(..) => Some(Kind::Timestamp),
        Interval(_) => Some(Kind::Interval),
        Boolean => Some(Kind::Boolean),
        Binary => Some(Kind::Bytes),
        t if *t == JSONB => Some(Kind::Json),
        t if *t == UUID => Some(Kind::Uuid),
        _ => None,
    };
    match (from, to) {
        (from, to) if from == to || *from == Null => true,
        (from, to) if text(from) || text(to) => true,
        (List(from), List(to)) => exists(from.data_type(), to.data_type()),
        (List(_), _) | (_, List(_)) => false,
        (Struct(from), Struct(to)) => {
            let mut fields = from.iter().zip(to);
            let cast = |(a, b): (&FieldRef, &FieldRef)| exists(a.data_type(), b.data_type());
            from.len() == to.len() && fields.all(cast)
        }
        (Struct(_), _) | (_, Struct(_)) => false,
        (DataType::Map(..), DataType::Map(..)) => match (map_parts(from), map_parts(to)) {
            (Some((a, b)), Some((c, d))) => {
                exists(a.data_type(), c.data_type()) && exists(b.data_type(), d.data_type())
            }
            _ => false,
        },
        (DataType::Map(..), _) | (_, DataType::Map(..)) => false,
        (Boolean, to) if number(to) => *to == Int32,
        (from, Boolean) if number(from) => *from == Int32,
        (from, to) => match (kind(from), kind(to)) {
            (Some(from), Some(to)) => {
                from == to
                    || matches!(
                        (from, to),
                        (Kind::Date, Kind::Timestamp)
                            | (Kind::Timestamp, Kind::Date | Kind::Time)
                            | (Kind::Time, Kind::Interval)
                            | (Kind::Interval, Kind::Time)
                            | (Kind::Json, Kind::Number | Kind::Boolean)
                    )
            }
            // Types of the catalog's tables.
            _ => true,
        },
    }
}

/// What casts tell apart.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Date,
    Time,
    Timestamp,
    Interval,
    Boolean,
    Bytes,
    Json,
    Uuid,
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
        (Timestamp(TimeUnit::Microsecond, a), Timestamp(TimeUnit::Microsecond, b)) => {
            a.is_some() != b.is_some()
        }
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
        (DataType::Float64, DataType::Float32) => true,
        (f, DataType::Decimal128(_, _)) => f.is_floating() || text(f),
        _ => false,
    }
}
