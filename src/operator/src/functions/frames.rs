//! What a window's RANGE frame measures its distance on: numbers that lie as far apart as the
//! values do, sort as they do, and run over nothing when an offset is added.
//!
//! `range_key(x)` is, of
//!
//! * integers, the same as `Decimal128`;
//! * floats, the same as `double precision`, with one zero and one NaN;
//! * numerics, the same with [`SCALE`] digits behind the point; infinities and NaN lie beyond what
//!   an offset of a number reaches. Numbers that have more digits are refused (`0A000`);
//! * intervals, their length in microseconds, with months of 30 days;
//! * moments and times of day, microseconds; infinite ones lie beyond all others.
//!
//! `range_moment(x)` is the moment itself, to which months may be added; infinite ones are those of
//! a year that is far off, and finite ones near it are refused.
//!
//! `range_moved(m, i)` is such a moment with an interval added; infinite ones stay where they are.
//!
//! `range_bytes(k)` is the key of a numeric as bytes that sort as it does, which state can hold;
//! `range_bytes_moved(b, '-12')` are the bytes of a key that lies so far from it.
//!
//! `count_of(n, 'ntile')` is a number from 1 on, for a function of this name.
//!
//! `range_key_finite` and `range_moment_finite` refuse infinite values and NaN: for frames that do
//! not hold the row itself, to which those are near however far the frame is.

use super::definition::*;
use arrow::array::*;
use arrow::compute::kernels::numeric::add;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::*;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::moment::{
    DATE_INFINITY, DATE_MINUS_INFINITY, Interval, TIMESTAMP_INFINITY, TIMESTAMP_MINUS_INFINITY,
    interval_key,
};
use tidemark_values::numeric::Numeric;

/// The digits of a numeric that count, before its point and behind it.
const WHOLE_DIGITS: usize = 37;
/// See [`WHOLE_DIGITS`].
const SCALE: u8 = 37;

/// The type of a numeric's key.
const NUMERIC_KEY: DataType = DataType::Decimal256(76, SCALE as i8);

/// The type of the keys that are whole numbers.
const WHOLE_KEY: DataType = DataType::Decimal128(38, 0);

/// What an infinite moment is in microseconds.
const INFINITE_MICROS: i128 = 10i128.pow(30);
const DAY_MICROS: i64 = 86_400_000_000;
/// Moments that months are added to end here: within the years that Arrow counts, with room for
/// an offset of some thousand years.
const FAR_MICROS: i64 = 250_000 * 365 * DAY_MICROS;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "range_key",
            aliases: &[],
            takes: |types| match types {
                [t] => key_type(t).map(|_| types.to_vec()),
                _ => None,
            },
            returns: |types| key_type(&types[0]).unwrap_or(DataType::Null),
            evaluate: range_key,
        },
        Definition {
            name: "range_key_finite",
            aliases: &[],
            takes: |types| match types {
                [t] => key_type(t).map(|_| types.to_vec()),
                _ => None,
            },
            returns: |types| key_type(&types[0]).unwrap_or(DataType::Null),
            evaluate: |args| finite(args).and_then(|()| range_key(args)),
        },
        Definition {
            name: "range_moment",
            aliases: &[],
            takes: moments,
            returns: |types| moment_type(&types[0]),
            evaluate: range_moment,
        },
        Definition {
            name: "range_moved",
            aliases: &[],
            takes: |types| match types {
                [
                    DataType::Timestamp(TimeUnit::Microsecond, _),
                    DataType::Interval(_),
                ] => Some(types.to_vec()),
                _ => None,
            },
            returns: |types| types[0].clone(),
            evaluate: range_moved,
        },
        Definition {
            name: "range_bytes",
            aliases: &[],
            takes: |types| (*types == [NUMERIC_KEY]).then(|| types.to_vec()),
            returns: |_| DataType::Binary,
            evaluate: |args| {
                let keys = column(args, 0)?;
                let keys = keys.as_primitive::<Decimal256Type>().iter();
                let bytes: BinaryArray = keys.map(|key| key.map(sorted_bytes)).collect();
                result(args, Arc::new(bytes))
            },
        },
        Definition {
            name: "range_bytes_moved",
            aliases: &[],
            takes: |types| (*types == [DataType::Binary, DataType::Utf8]).then(|| types.to_vec()),
            returns: |_| DataType::Binary,
            evaluate: range_bytes_moved,
        },
        Definition {
            name: "count_of",
            aliases: &[],
            takes: |types| match types {
                [number, DataType::Utf8] if is_int(number) => {
                    Some(vec![DataType::Int64, DataType::Utf8])
                }
                // Of which the window function is told not to be.
                [_, DataType::Utf8] => Some(types.to_vec()),
                _ => None,
            },
            returns: |types| types[0].clone(),
            evaluate: count_of,
        },
        Definition {
            name: "range_moment_finite",
            aliases: &[],
            takes: moments,
            returns: |types| moment_type(&types[0]),
            evaluate: |args| finite(args).and_then(|()| range_moment(args)),
        },
    ]
}

fn moments(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)] => Some(types.to_vec()),
        _ => None,
    }
}

fn moment_type(of: &DataType) -> DataType {
    match of {
        DataType::Date32 => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => other.clone(),
    }
}

/// `0A000` if a value is infinite, or NaN, where its key is a number all the same.
fn finite(args: &ScalarFunctionArgs) -> Result<()> {
    let values = column(args, 0)?;
    let infinite = match values.data_type() {
        DataType::LargeBinary => {
            let mut infinite = false;
            for form in values.as_binary::<i64>().iter().flatten() {
                let value = Numeric::decode(form).map_err(external)?;
                infinite |= value.to_bigint().is_none();
            }
            infinite
        }
        DataType::Date32 => {
            let mut dates = values.as_primitive::<Date32Type>().iter().flatten();
            dates.any(|d| d == DATE_INFINITY || d == DATE_MINUS_INFINITY)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let moments = values.as_primitive::<TimestampMicrosecondType>();
            let mut moments = moments.iter().flatten();
            moments.any(|m| m == TIMESTAMP_INFINITY || m == TIMESTAMP_MINUS_INFINITY)
        }
        _ => false,
    };
    if infinite {
        return Err(external(Error::unsupported(
            "RANGE frames that do not hold their row are not supported over infinite values",
        )));
    }
    Ok(())
}

fn key_type(of: &DataType) -> Option<DataType> {
    Some(match of {
        DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Interval(IntervalUnit::MonthDayNano)
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Microsecond, _)
        | DataType::Time64(TimeUnit::Microsecond) => WHOLE_KEY,
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal128(_, _) | DataType::LargeBinary => NUMERIC_KEY,
        _ => return None,
    })
}

/// Whole numbers of each value that is not NULL.
fn whole<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    number: impl Fn(T::Native) -> i128,
) -> Result<ArrayRef> {
    let keys: Decimal128Array = values.as_primitive::<T>().unary(number);
    Ok(Arc::new(keys.with_precision_and_scale(38, 0)?))
}

fn range_key(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = &column(args, 0)?;
    let keys: ArrayRef = match values.data_type() {
        DataType::Int16 => whole::<Int16Type>(values, i128::from)?,
        DataType::Int32 => whole::<Int32Type>(values, i128::from)?,
        DataType::Int64 => whole::<Int64Type>(values, i128::from)?,
        DataType::Float32 => {
            let floats: Float64Array = values
                .as_primitive::<Float32Type>()
                .unary(|v| one_form(f64::from(v)));
            Arc::new(floats)
        }
        DataType::Float64 => {
            let floats: Float64Array = values.as_primitive::<Float64Type>().unary(one_form);
            Arc::new(floats)
        }
        DataType::Decimal128(_, scale) => {
            let raised = i32::from(SCALE) - i32::from(*scale);
            let keys: Decimal256Array =
                values
                    .as_primitive::<Decimal128Type>()
                    .try_unary(|v| match raised.try_into() {
                        Ok(raised) if fits(v, *scale) => {
                            Ok(i256::from_i128(v).wrapping_mul(power_of_ten(raised)))
                        }
                        _ => Err(too_precise()),
                    })?;
            Arc::new(keys.with_data_type(NUMERIC_KEY))
        }
        DataType::LargeBinary => {
            let forms = values.as_binary::<i64>();
            let mut keys =
                Decimal256Builder::with_capacity(forms.len()).with_data_type(NUMERIC_KEY);
            for form in forms {
                let key = form.map(|form| {
                    let value = Numeric::decode(form).map_err(external)?;
                    numeric_key(&value).ok_or_else(too_precise)
                });
                keys.append_option(key.transpose()?);
            }
            Arc::new(keys.finish())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            whole::<IntervalMonthDayNanoType>(values, |v| {
                interval_key(Interval::new(v.months, v.days, v.nanoseconds / 1000))
            })?
        }
        DataType::Date32 => whole::<Date32Type>(values, |days| match days {
            DATE_INFINITY => INFINITE_MICROS,
            DATE_MINUS_INFINITY => -INFINITE_MICROS,
            days => i128::from(days) * i128::from(DAY_MICROS),
        })?,
        DataType::Timestamp(_, _) => {
            whole::<TimestampMicrosecondType>(values, |micros| match micros {
                TIMESTAMP_INFINITY => INFINITE_MICROS,
                TIMESTAMP_MINUS_INFINITY => -INFINITE_MICROS,
                micros => micros.into(),
            })?
        }
        DataType::Time64(_) => whole::<Time64MicrosecondType>(values, i128::from)?,
        other => return exec_err!("{other} has no distances"),
    };
    result(args, keys)
}

/// Zeros are equal, and so are NaNs.
fn one_form(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    }
}

fn too_precise() -> datafusion_common::DataFusionError {
    external(Error::unsupported(format!(
        "RANGE with offset PRECEDING/FOLLOWING over numerics of more than {WHOLE_DIGITS} digits \
         before or behind the decimal point is not supported"
    )))
}

fn power_of_ten(exponent: u8) -> i256 {
    (0..exponent).fold(i256::ONE, |power, _| {
        power.wrapping_mul(i256::from_i128(10))
    })
}

/// Whether a decimal of this scale has few enough digits before its point.
fn fits(unscaled: i128, scale: i8) -> bool {
    scale > 1 || unscaled.unsigned_abs() < 10u128.pow(WHOLE_DIGITS as u32)
}

/// The key of a numeric; none if it has too many digits.
fn numeric_key(value: &Numeric) -> Option<i256> {
    let Some((unscaled, scale)) = value.trim_scale().to_bigint() else {
        let beyond = power_of_ten(75);
        return Some(match value.to_f64() {
            Ok(v) if v == f64::INFINITY => beyond,
            Ok(v) if v == f64::NEG_INFINITY => beyond.wrapping_neg(),
            _ => beyond.wrapping_add(beyond),
        });
    };
    let raised = u8::try_from(i32::from(SCALE) - i32::from(scale)).ok()?;
    if unscaled.to_string().trim_start_matches('-').len() > WHOLE_DIGITS + usize::from(scale) {
        return None;
    }
    let unscaled = i256::from_string(&unscaled.to_string())?;
    Some(unscaled.wrapping_mul(power_of_ten(raised)))
}

/// The bytes of a number that sort as it does: the first has the sign turned round.
fn sorted_bytes(key: i256) -> [u8; 32] {
    let mut bytes = key.to_be_bytes();
    bytes[0] ^= 0x80;
    bytes
}

fn range_bytes_moved(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let keys = column(args, 0)?;
    let offset = constant_text(args, 1).flatten().and_then(i256::from_string);
    let Some(offset) = offset else {
        return exec_err!("an offset that is no number");
    };
    let moved = |bytes: &[u8]| {
        let mut bytes: [u8; 32] = bytes.try_into().ok()?;
        bytes[0] ^= 0x80;
        Some(sorted_bytes(
            i256::from_be_bytes(bytes).wrapping_add(offset),
        ))
    };
    let keys = keys.as_binary::<i32>().iter();
    let bytes: BinaryArray = keys.map(|bytes| bytes.and_then(moved)).collect();
    result(args, Arc::new(bytes))
}

fn count_of(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let numbers = column(args, 0)?;
    if *numbers.data_type() != DataType::Int64 {
        return exec_err!("a count that is no integer");
    }
    if numbers
        .as_primitive::<Int64Type>()
        .iter()
        .flatten()
        .any(|n| n < 1)
    {
        let function = constant_text(args, 1).flatten().unwrap_or("nth_value");
        let state = SqlState(if function == "ntile" {
            "22014"
        } else {
            "22016"
        });
        let message = format!("argument of {function} must be greater than zero");
        return Err(failure(state, message));
    }
    result(args, numbers)
}

fn range_moment(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let near = |micros: Option<i64>| {
        micros.filter(|m| m.abs() < FAR_MICROS / 2).ok_or_else(|| {
            external(Error::unsupported(
                "RANGE with months over moments of so far a year is not supported",
            ))
        })
    };
    let (micros, zone): (TimestampMicrosecondArray, _) = match values.data_type() {
        DataType::Timestamp(_, zone) => {
            let moments = values.as_primitive::<TimestampMicrosecondType>();
            let micros = moments.try_unary(|micros| match micros {
                TIMESTAMP_INFINITY => Ok(FAR_MICROS),
                TIMESTAMP_MINUS_INFINITY => Ok(-FAR_MICROS),
                micros => near(Some(micros)),
            })?;
            (micros, zone.clone())
        }
        _ => {
            let dates = values.as_primitive::<Date32Type>();
            let micros = dates.try_unary(|days| match days {
                DATE_INFINITY => Ok(FAR_MICROS),
                DATE_MINUS_INFINITY => Ok(-FAR_MICROS),
                days => near(i64::from(days).checked_mul(DAY_MICROS)),
            })?;
            (micros, None)
        }
    };
    result(args, Arc::new(micros.with_timezone_opt(zone)))
}

fn range_moved(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (moments, offsets) = (column(args, 0)?, column(args, 1)?);
    let moved = add(&moments, &offsets)?;
    let far = moments.as_primitive::<TimestampMicrosecondType>().iter();
    let far: BooleanArray = far
        .map(|m| Some(m.is_some_and(|m| m.abs() == FAR_MICROS)))
        .collect();
    result(args, zip(&far, &moments, &moved)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_moments_are_not_moved() {
        use datafusion_common::ScalarValue;
        let month = ScalarValue::new_interval_mdn(1, 0, 0);
        let moment = |micros| ScalarValue::TimestampMicrosecond(Some(micros), None);
        let moved = |micros| {
            let function = crate::functions::lookup("range_moved");
            let args = [moment(micros), month.clone()].map(ColumnarValue::Scalar);
            let args = ScalarFunctionArgs {
                args: args.to_vec(),
                arg_fields: Vec::new(),
                number_rows: 1,
                return_field: Arc::new(Field::new("moved", moment(0).data_type(), true)),
                config_options: Default::default(),
            };
            function
                .unwrap()
                .invoke_with_args(args)
                .unwrap()
                .to_array(1)
                .unwrap()
        };
        let micros = |array: ArrayRef| array.as_primitive::<TimestampMicrosecondType>().value(0);
        assert_eq!(micros(moved(0)), 31 * DAY_MICROS);
        assert_eq!(micros(moved(-FAR_MICROS)), -FAR_MICROS);
        assert_eq!(micros(moved(FAR_MICROS)), FAR_MICROS);
    }

    #[test]
    fn keys_of_numerics_sort_as_they_do_and_lie_as_far_apart() {
        let key = |text: &str| numeric_key(&Numeric::parse(text).unwrap());
        let sorted = [
            "-Infinity",
            "-2.5",
            "-0.001",
            "0.00",
            "1.0",
            "1e36",
            "Infinity",
            "NaN",
        ];
        let keys: Vec<_> = sorted.iter().map(|t| key(t).unwrap()).collect();
        assert!(keys.is_sorted());
        assert_eq!(key("1.0"), key("1.000"));
        assert_eq!(key("-2.5").unwrap() + key("2.5").unwrap(), i256::ZERO);
        assert_eq!(key("1e37"), None);
        assert_eq!(key("1e-38"), None);
        let bytes: Vec<_> = keys.iter().map(|key| sorted_bytes(*key)).collect();
        assert!(bytes.is_sorted());
        // An offset that is a number does not reach what is none.
        let largest = key("9999999999999999999999999999999999999").unwrap();
        assert!(largest + largest < key("Infinity").unwrap());
    }
}
