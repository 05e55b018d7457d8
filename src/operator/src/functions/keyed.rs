//! Keys of values that are equal and still differ. `sort_key` gives bytes that are equal where the
//! values are, and sort as they do, `sort_text` the same as text; `interval_bytes` and
//! `interval_of_bytes` are intervals as bytes that begin with their key, `array_bytes` and
//! `array_of_bytes` the same for arrays and rows ([`super::array`]).
//!
//! An interval's key is its length in microseconds, with months of 30 days and days of 24 hours, as
//! 16 bytes in order, the sign flipped. Its bytes go on with months, days and nanoseconds.

use super::definition::*;
use super::{array, chars, json, numeric};
use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_changelog::maps::entries_of;

const DAY_MICROS: i128 = 86_400_000_000;
const KEY_BYTES: usize = 16;
const INTERVAL_BYTES: usize = 32;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "sort_key",
            aliases: &[],
            takes: |types| match types {
                [
                    DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::LargeUtf8
                    | DataType::Null,
                ] => Some(types.to_vec()),
                [DataType::Interval(_)] => Some(vec![months_days_nanos()]),
                [DataType::List(_)] => Some(types.to_vec()),
                [whole @ (DataType::Struct(_) | DataType::Map(..))] if array::has_key(whole) => {
                    Some(types.to_vec())
                }
                _ => None,
            },
            returns: |_| DataType::Binary,
            evaluate: sort_key,
        },
        Definition {
            name: "sort_text",
            aliases: &[],
            takes: |types| match types {
                [DataType::Binary | DataType::Null] => Some(vec![DataType::Binary]),
                _ => None,
            },
            returns: |_| DataType::Utf8,
            evaluate: sort_text,
        },
        Definition {
            name: "interval_bytes",
            aliases: &[],
            takes: |types| match types {
                [DataType::Interval(_) | DataType::Null] => Some(vec![months_days_nanos()]),
                _ => None,
            },
            returns: |_| DataType::Binary,
            evaluate: interval_bytes,
        },
        Definition {
            name: "interval_of_bytes",
            aliases: &[],
            takes: |types| match types {
                [DataType::Binary | DataType::Null] => Some(vec![DataType::Binary]),
                _ => None,
            },
            returns: |_| months_days_nanos(),
            evaluate: interval_of_bytes,
        },
        Definition {
            name: "array_bytes",
            aliases: &[],
            takes: |types| match types {
                [DataType::List(_) | DataType::Struct(_) | DataType::Map(..)] => {
                    Some(types.to_vec())
                }
                _ => None,
            },
            returns: |_| DataType::Binary,
            evaluate: |a| result(a, array::bytes_of(&column(a, 0)?)?),
        },
        Definition {
            name: "array_of_bytes",
            aliases: &[],
            takes: |types| match types {
                [
                    DataType::Binary | DataType::Null,
                    whole @ (DataType::List(_) | DataType::Struct(_) | DataType::Map(..)),
                ] => Some(vec![DataType::Binary, whole.clone()]),
                _ => None,
            },
            returns: |types| types[1].clone(),
            evaluate: |a| {
                let bytes = a.args[0].to_array(rows(a))?;
                result(
                    a,
                    array::of_bytes(bytes.as_binary(), a.return_field.data_type())?,
                )
            },
        },
    ]
}

fn months_days_nanos() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

fn sort_key(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let keys: ArrayRef = match values.data_type() {
        DataType::Null => new_null_array(&DataType::Binary, values.len()),
        DataType::LargeBinary => numeric::keys(values.as_binary::<i64>()),
        DataType::LargeUtf8 => chars::keys(values.as_string::<i64>()),
        DataType::BinaryView => json::sort_keys(values.as_binary_view()),
        DataType::Interval(IntervalUnit::MonthDayNano) => interval_keys(values.as_primitive()),
        DataType::List(_) => Arc::new(array::sort_keys(values.as_list())?),
        DataType::Struct(_) => Arc::new(array::row_keys(values.as_struct())?),
        DataType::Map(..) => Arc::new(array::sort_keys(&entries_of(values.as_map()))?),
        other => return exec_err!("{other} has no key"),
    };
    result(args, keys)
}

/// The keys of a column of intervals.
pub(super) fn interval_keys(values: &IntervalMonthDayNanoArray) -> ArrayRef {
    let mut keys = BinaryBuilder::with_capacity(values.len(), values.len() * KEY_BYTES);
    for value in values {
        keys.append_option(value.map(interval_key));
    }
    Arc::new(keys.finish())
}

/// A key in hexadecimal digits, which sorts alike: frames of windows are moved over texts, and not
/// over bytes.
fn sort_text(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let keys = column(args, 0)?;
    let keys = keys.as_binary::<i32>();
    let digits = |key: &[u8]| -> String {
        key.iter()
            .flat_map(|b| [b >> 4, b & 15])
            .map(|d| char::from(DIGITS[usize::from(d)]))
            .collect()
    };
    let texts: StringArray = keys.iter().map(|key| key.map(digits)).collect();
    result(args, Arc::new(texts))
}

fn interval_key(v: IntervalMonthDayNano) -> [u8; KEY_BYTES] {
    let days = i128::from(v.months) * 30 + i128::from(v.days);
    let micros = days * DAY_MICROS + i128::from(v.nanoseconds / 1000);
    (micros ^ i128::MIN).to_be_bytes()
}

fn interval_bytes(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let values = values.as_primitive::<IntervalMonthDayNanoType>();
    let mut builder = BinaryBuilder::with_capacity(values.len(), values.len() * INTERVAL_BYTES);
    for value in values {
        let Some(v) = value else {
            builder.append_null();
            continue;
        };
        let mut bytes = [0; INTERVAL_BYTES];
        bytes[..KEY_BYTES].copy_from_slice(&interval_key(v));
        bytes[16..20].copy_from_slice(&v.months.to_be_bytes());
        bytes[20..24].copy_from_slice(&v.days.to_be_bytes());
        bytes[24..].copy_from_slice(&v.nanoseconds.to_be_bytes());
        builder.append_value(bytes);
    }
    result(args, Arc::new(builder.finish()))
}

fn interval_of_bytes(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let values = values.as_binary::<i32>();
    let mut builder = IntervalMonthDayNanoBuilder::with_capacity(values.len());
    for value in values.iter() {
        builder.append_option(value.and_then(interval_of));
    }
    result(args, Arc::new(builder.finish()))
}

fn interval_of(bytes: &[u8]) -> Option<IntervalMonthDayNano> {
    let (_, fields) = bytes.split_at_checked(KEY_BYTES)?;
    let (months, rest) = fields.split_first_chunk()?;
    let (days, rest) = rest.split_first_chunk()?;
    let (nanos, _) = rest.split_first_chunk()?;
    Some(IntervalMonthDayNano::new(
        i32::from_be_bytes(*months),
        i32::from_be_bytes(*days),
        i64::from_be_bytes(*nanos),
    ))
}
