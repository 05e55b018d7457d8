//! Moments and windows: `tumble_start`, `add_micros`, and the conversions to timestamps that
//! PostgreSQL has or DataFusion does in nanoseconds.

use super::definition::*;
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
