//! Moments and windows: `tumble_start`, `add_micros`, and the conversions to timestamps that
//! PostgreSQL has or DataFusion does in nanoseconds.

use super::calendar::{DAY_MICROS, days_from_civil};
use super::definition::*;
use super::pattern::Pattern;
use arrow::array::*;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

const DATETIME_OVERFLOW: SqlState = SqlState("22008");
const SECOND: i64 = 1_000_000;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let with_micros = |types: &[DataType]| match types {
        [at, by] if is_int(by) => Some(vec![moment(at)?, DataType::Int64]),
        _ => None,
    };
    vec![
        Definition {
            name: "tumble_start",
            aliases: &[],
            takes: with_micros,
            returns: |t| t[0].clone(),
            evaluate: tumble_start,
        },
        Definition {
            name: "add_micros",
            aliases: &[],
            takes: with_micros,
            returns: |t| t[0].clone(),
            evaluate: add_micros,
        },
        Definition {
            name: "to_timestamp",
            aliases: &[],
            takes: |types| match types {
                [t] if is_text(t) => Some(vec![timestamptz()]),
                [DataType::Timestamp(_, _) | DataType::Date32] => Some(vec![timestamptz()]),
                [t] if t.is_numeric() => Some(vec![DataType::Float64]),
                [t, p] if is_text(t) && is_text(p) => Some(vec![DataType::Utf8; 2]),
                _ => None,
            },
            returns: |_| timestamptz(),
            evaluate: to_timestamp,
        },
        Definition {
            name: "to_date",
            aliases: &[],
            takes: |types| match types {
                [t] if is_text(t) || moment(t).is_some() => Some(vec![DataType::Date32]),
                [t, p] if is_text(t) && is_text(p) => Some(vec![DataType::Utf8; 2]),
                _ => None,
            },
            returns: |_| DataType::Date32,
            evaluate: to_date,
        },
        Definition {
            name: "to_timestamp_seconds",
            aliases: &["from_unixtime"],
            takes: one_int,
            returns: |_| timestamp(),
            evaluate: |a| scaled(a, SECOND),
        },
        Definition {
            name: "to_timestamp_millis",
            aliases: &[],
            takes: one_int,
            returns: |_| timestamp(),
            evaluate: |a| scaled(a, 1000),
        },
        Definition {
            name: "to_timestamp_micros",
            aliases: &[],
            takes: one_int,
            returns: |_| timestamp(),
            evaluate: |a| scaled(a, 1),
        },
        Definition {
            name: "make_timestamp",
            aliases: &[],
            takes: |types| {
                (types.len() == 6)
                    .then(|| [vec![DataType::Int64; 5], vec![DataType::Float64]].concat())
            },
            returns: |_| timestamp(),
            evaluate: make_timestamp,
        },
    ]
}

fn one_int(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [t] if is_int(t) => Some(vec![DataType::Int64]),
        _ => None,
    }
}

fn beyond() -> ArrowError {
    ArrowError::ExternalError(Box::new(Error::user(
        DATETIME_OVERFLOW,
        "timestamp out of range",
    )))
}

fn typed(values: TimestampMicrosecondArray, data_type: &DataType) -> ArrayRef {
    Arc::new(values.with_data_type(data_type.clone()))
}

/// The greatest multiple of `size` since 1970 that is not after `at`. Moments mostly follow each
/// other within one window, which is remembered.
fn tumble_start(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let at = array(args, 0)?;
    let at = at.as_primitive::<TimestampMicrosecondType>();
    let refuse = || {
        Error::user(
            SqlState::INVALID_PARAMETER,
            "a window's size must be positive",
        )
    };
    let starts: TimestampMicrosecondArray = match constant_int(args, 1) {
        Some(None) => return null(args.return_field.data_type()),
        Some(Some(size)) if size > 0 => {
            let (mut start, mut end) = (0i64, 0i64);
            let starts = at.values().iter().map(|t| {
                if *t < start || *t >= end {
                    start = t.wrapping_sub(t.rem_euclid(size));
                    end = start.saturating_add(size);
                }
                start
            });
            TimestampMicrosecondArray::new(starts.collect::<Vec<i64>>().into(), at.nulls().cloned())
        }
        Some(Some(_)) => return Err(ArrowError::ExternalError(Box::new(refuse())).into()),
        None => {
            let sizes = array(args, 1)?;
            arrow::compute::try_binary(at, sizes.as_primitive::<Int64Type>(), |t, size| {
                if size > 0 {
                    Ok(t.wrapping_sub(t.rem_euclid(size)))
                } else {
                    Err(ArrowError::ExternalError(Box::new(refuse())))
                }
            })?
        }
    };
    result(args, typed(starts, args.return_field.data_type()))
}

/// `at` plus a number of microseconds.
fn add_micros(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let at = array(args, 0)?;
    let at = at.as_primitive::<TimestampMicrosecondType>();
    let add = |t: i64, by: i64| t.checked_add(by).ok_or_else(beyond);
    let sums: TimestampMicrosecondArray = match constant_int(args, 1) {
        Some(None) => return null(args.return_field.data_type()),
        Some(Some(by)) => at.try_unary(|t| add(t, by))?,
        None => arrow::compute::try_binary(at, array(args, 1)?.as_primitive::<Int64Type>(), add)?,
    };
    result(args, typed(sums, args.return_field.data_type()))
}

/// An integer times `unit` microseconds since 1970.
fn scaled(args: &ScalarFunctionArgs, unit: i64) -> Result<ColumnarValue> {
    let values = array(args, 0)?;
    let moments: TimestampMicrosecondArray = values
        .as_primitive::<Int64Type>()
        .try_unary(|v: i64| v.checked_mul(unit).ok_or_else(beyond))?;
    result(args, typed(moments, &timestamp()))
}

fn to_timestamp(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args.len() == 2 {
        let moments = parsed(args)?;
        return result(args, typed(moments, &timestamptz()));
    }
    let values = array(args, 0)?;
    if *values.data_type() != DataType::Float64 {
        return result(args, values);
    }
    let moments: TimestampMicrosecondArray =
        values
            .as_primitive::<Float64Type>()
            .try_unary(|seconds: f64| {
                let micros = (seconds * SECOND as f64).round_ties_even();
                if micros.abs() < 9.2e18 {
                    Ok(micros as i64)
                } else {
                    Err(beyond())
                }
            })?;
    result(args, typed(moments, &timestamptz()))
}

fn to_date(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args.len() == 1 {
        let dates = array(args, 0)?;
        return result(args, dates);
    }
    let days: Date32Array = parsed(args)?.unary(|micros| micros.div_euclid(DAY_MICROS) as i32);
    result(args, Arc::new(days))
}

/// Text and pattern to moments.
fn parsed(args: &ScalarFunctionArgs) -> Result<TimestampMicrosecondArray> {
    let (texts, patterns) = (array(args, 0)?, array(args, 1)?);
    let (texts, patterns) = (texts.as_string::<i32>(), patterns.as_string::<i32>());
    let mut compiled: Option<(&str, Pattern)> = None;
    let mut moments = TimestampMicrosecondBuilder::with_capacity(texts.len());
    for (text, pattern) in texts.iter().zip(patterns) {
        let (Some(text), Some(pattern)) = (text, pattern) else {
            moments.append_null();
            continue;
        };
        let known = compiled.take().filter(|(p, _)| *p == pattern);
        let (_, pattern) =
            compiled.insert(known.unwrap_or_else(|| (pattern, Pattern::new(pattern))));
        moments.append_value(
            pattern
                .parse(text)
                .map_err(|message| failure(SqlState("22007"), message))?,
        );
    }
    Ok(moments.finish())
}

fn make_timestamp(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let columns = (0..5).map(|i| array(args, i)).collect::<Result<Vec<_>>>()?;
    let seconds = array(args, 5)?;
    let field = |i: usize, row: usize| columns[i].as_primitive::<Int64Type>().value(row);
    let mut moments = TimestampMicrosecondBuilder::with_capacity(seconds.len());
    for row in 0..seconds.len() {
        if seconds.is_null(row) || columns.iter().any(|c| c.is_null(row)) {
            moments.append_null();
            continue;
        }
        let second = seconds.as_primitive::<Float64Type>().value(row);
        let (year, month, day, hour, minute) = (
            field(0, row),
            field(1, row),
            field(2, row),
            field(3, row),
            field(4, row),
        );
        let micros = moment_of(year, month, day, hour, minute, second);
        moments.append_value(
            micros
                .ok_or_else(|| failure(DATETIME_OVERFLOW, "date/time field value out of range"))?,
        );
    }
    result(args, Arc::new(moments.finish()))
}

/// Microseconds since 1970 of a date and time; `None` if a field is out of its range.
pub(super) fn moment_of(
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: f64,
) -> Option<i64> {
    let fits = (1..=12).contains(&month)
        && (0..=24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..=60.0).contains(&second)
        && (-290_000..=290_000).contains(&year);
    if !fits {
        return None;
    }
    let (month, first) = (month as u32, days_from_civil(year, month as u32, 1));
    let next = if month == 12 {
        days_from_civil(year + 1, 1, 1)
    } else {
        days_from_civil(year, month + 1, 1)
    };
    if day < 1 || day > next - first {
        return None;
    }
    let of_day = (hour * 3600 + minute * 60) * SECOND + (second * SECOND as f64).round() as i64;
    (of_day <= DAY_MICROS).then(|| (first + day - 1) * DAY_MICROS + of_day)
}
