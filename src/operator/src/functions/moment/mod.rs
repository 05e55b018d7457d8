//! Dates, times, timestamps and intervals: PostgreSQL's arithmetic, fields and texts
//! (`tidemark_values::moment`) over columns.
//!
//! What depends on a session's time zone has the zone's name as its last argument, a constant that
//! the planner writes; without it the zone is UTC.

mod arithmetic;
mod fields;
mod texts;

use super::definition::*;
use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::moment::{Interval, Zone};

pub use texts::rounded_to;
pub(super) use texts::{cast_array, is_moment, read_at};

/// The functions of this folder.
pub(super) fn definitions() -> Vec<Definition> {
    [
        arithmetic::definitions(),
        fields::definitions(),
        texts::definitions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn time() -> DataType {
    DataType::Time64(TimeUnit::Microsecond)
}

fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The session's time zone, whose name is argument `i`; UTC if there is no such argument.
pub(super) fn zone_of(args: &ScalarFunctionArgs, i: usize) -> Result<Zone> {
    if args.args.len() <= i {
        return Ok(Zone::UTC);
    }
    let names = column(args, i)?;
    let name = names.as_string_opt::<i32>().and_then(|n| n.iter().next());
    match name.flatten() {
        Some(name) => Zone::of_session(name).map_err(external),
        None => Ok(Zone::UTC),
    }
}

/// The types that arguments are cast to, without and with the session's zone after them.
fn with_zone(
    types: &[DataType],
    count: usize,
    takes: impl Fn(&[DataType]) -> Option<Vec<DataType>>,
) -> Option<Vec<DataType>> {
    let (plain, zone) = types.split_at_checked(count)?;
    let mut taken = takes(plain)?;
    match zone {
        [] => {}
        [zone] if is_text(zone) => taken.push(DataType::Utf8),
        _ => return None,
    }
    Some(taken)
}

/// Arrow's interval as PostgreSQL's, in microseconds.
fn span(v: IntervalMonthDayNano) -> Interval {
    Interval::new(v.months, v.days, v.nanoseconds / 1000)
}

/// The other way; Arrow's nanoseconds end after 292 years.
fn stored(v: Interval) -> Result<IntervalMonthDayNano> {
    let nanoseconds = v
        .micros
        .checked_mul(1000)
        .ok_or_else(|| failure(SqlState("22008"), "interval out of range"))?;
    Ok(IntervalMonthDayNano::new(v.months, v.days, nanoseconds))
}

/// The rows of two columns that have both values, through `f`.
fn both<A: ArrowPrimitiveType, B: ArrowPrimitiveType, T>(
    args: &ScalarFunctionArgs,
    f: impl Fn(A::Native, B::Native) -> tidemark_common::Result<T>,
) -> Result<Vec<Option<T>>> {
    let (left, right) = (column(args, 0)?, column(args, 1)?);
    let (left, right) = (left.as_primitive::<A>(), right.as_primitive::<B>());
    left.iter()
        .zip(right)
        .map(|pair| match pair {
            (Some(l), Some(r)) => f(l, r).map(Some).map_err(external),
            _ => Ok(None),
        })
        .collect()
}

/// A column of intervals.
fn intervals(
    args: &ScalarFunctionArgs,
    values: impl IntoIterator<Item = Option<Interval>>,
) -> Result<ColumnarValue> {
    let values = values
        .into_iter()
        .map(|v| v.map(stored).transpose())
        .collect::<Result<IntervalMonthDayNanoArray>>()?;
    result(args, Arc::new(values))
}

/// A column of timestamps of the result's type.
fn moments(
    args: &ScalarFunctionArgs,
    values: impl IntoIterator<Item = Option<i64>>,
) -> Result<ColumnarValue> {
    let values: TimestampMicrosecondArray = values.into_iter().collect();
    result(
        args,
        Arc::new(values.with_data_type(args.return_field.data_type().clone())),
    )
}
