//! Numbers: `mod`, `div`, `sign`, and `round` as PostgreSQL rounds.

use super::definition::*;
use arrow::array::*;
use arrow::compute::kernels::numeric;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "mod",
            aliases: &[],
            takes: two_alike,
            returns: |t| t[0].clone(),
            evaluate: modulo,
        },
        Definition {
            name: "div",
            aliases: &[],
            takes: two_alike,
            returns: |t| t[0].clone(),
            evaluate: divide,
        },
        Definition {
            name: "sign",
            aliases: &[],
            takes: takes_sign,
            returns: |t| t[0].clone(),
            evaluate: sign,
        },
        Definition {
            name: "round",
            aliases: &[],
            takes: takes_round,
            returns: |t| t[0].clone(),
            evaluate: round,
        },
    ]
}

/// Two integers become the wider of their types, a numeric and an integer numerics of one type,
/// anything else doubles.
fn two_alike(types: &[DataType]) -> Option<Vec<DataType>> {
    let [left, right] = types else { return None };
    let number = |t: &DataType| t.is_numeric() || *t == DataType::Null;
    if !number(left) || !number(right) {
        return None;
    }
    let digits = |t: &DataType| match t {
        DataType::Decimal128(precision, scale) => {
            Some((i16::from(*precision) - i16::from(*scale), *scale))
        }
        DataType::Null => Some((1, 0)),
        t if t.is_integer() => Some((20, 0)),
        _ => None,
    };
    let common = match (left, right) {
        (DataType::Int16, DataType::Int16) => DataType::Int16,
        (
            DataType::Int8 | DataType::Int16 | DataType::Int32,
            DataType::Int8 | DataType::Int16 | DataType::Int32,
        ) => DataType::Int32,
        (l, r) if is_int(l) && is_int(r) => DataType::Int64,
        (l, r) => match (digits(l), digits(r)) {
            (Some((whole_left, scale_left)), Some((whole_right, scale_right))) => {
                let scale = scale_left.max(scale_right);
                DataType::Decimal128(
                    (whole_left.max(whole_right) + i16::from(scale)).clamp(1, 38) as u8,
                    scale,
                )
            }
            _ => DataType::Float64,
        },
    };
    Some(vec![common.clone(), common])
}

/// A numeric of any scale, or a double.
fn takes_sign(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        // One digit before the point must have room for the 1.
        [DataType::Decimal128(precision, scale)] => Some(vec![DataType::Decimal128(
            (*precision).max((*scale).unsigned_abs() + 1).min(38),
            *scale,
        )]),
        [t] if t.is_numeric() || *t == DataType::Null => Some(vec![DataType::Float64]),
        _ => None,
    }
}

/// -1, 0 or 1.
fn sign(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let value = array(args, 0)?;
    let signs: ArrayRef = match args.return_field.data_type() {
        DataType::Decimal128(precision, scale) => {
            let one = 10i128.pow(u32::from(scale.unsigned_abs()));
            let signs: Decimal128Array = value
                .as_primitive::<Decimal128Type>()
                .unary(|v| v.signum() * one);
            Arc::new(signs.with_precision_and_scale(*precision, *scale)?)
        }
        _ => Arc::new(
            value
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(tidemark_values::float::sign),
        ),
    };
    result(args, signs)
}

/// Division by zero of floats is an error too.
fn refuse_zero(divisor: &ArrayRef) -> Result<()> {
    if *divisor.data_type() == DataType::Float64
        && divisor
            .as_primitive::<Float64Type>()
            .iter()
            .any(|v| v == Some(0.0))
    {
        return Err(ArrowError::DivideByZero.into());
    }
    Ok(())
}

/// The remainder, with the sign of the dividend.
fn modulo(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (array(args, 0)?, array(args, 1)?);
    refuse_zero(&right)?;
    let rest = numeric::rem(&left, &right)?;
    result(
        args,
        arrow::compute::cast(&rest, args.return_field.data_type())?,
    )
}

/// The quotient without its fraction.
fn divide(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (array(args, 0)?, array(args, 1)?);
    refuse_zero(&right)?;
    let output = args.return_field.data_type();
    let whole: ArrayRef = match output {
        DataType::Float64 => Arc::new(
            numeric::div(&left, &right)?
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(f64::trunc),
        ),
        DataType::Decimal128(precision, scale) => {
            let unit = 10i128.pow((*scale).max(0) as u32);
            let quotients: Decimal128Array = arrow::compute::try_binary(
                left.as_primitive::<Decimal128Type>(),
                right.as_primitive::<Decimal128Type>(),
                |l: i128, r: i128| {
                    if r == 0 {
                        Err(ArrowError::DivideByZero)
                    } else {
                        (l / r)
                            .checked_mul(unit)
                            .ok_or_else(|| ArrowError::ArithmeticOverflow("numeric".into()))
                    }
                },
            )?;
            Arc::new(quotients.with_precision_and_scale(*precision, *scale)?)
        }
        _ => numeric::div(&left, &right)?,
    };
    result(args, whole)
}

fn takes_round(types: &[DataType]) -> Option<Vec<DataType>> {
    let value = match types.first()? {
        DataType::Decimal128(precision, scale) => {
            DataType::Decimal128((*precision + 1).min(38), *scale)
        }
        t if t.is_integer() => t.clone(),
        t if t.is_numeric() || *t == DataType::Null || is_text(t) => DataType::Float64,
        _ => return None,
    };
    match types {
        [_] => Some(vec![value]),
        [_, digits] if is_int(digits) => Some(vec![value, DataType::Int64]),
        _ => None,
    }
}

/// To a number of digits after the point (0 by default): numerics half away from zero, floats half
/// to even. The scale of a numeric's type stays.
fn round(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = array(args, 0)?;
    let digits = match args.args.get(1) {
        None => 0,
        Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(digits)))) => *digits,
        Some(ColumnarValue::Scalar(_)) => return null(args.return_field.data_type()),
        Some(ColumnarValue::Array(_)) => {
            return Err(failure(
                SqlState::FEATURE_NOT_SUPPORTED,
                "the digits that round() keeps must be a constant",
            ));
        }
    };
    let digits = digits.clamp(-400, 400) as i32;
    let rounded: ArrayRef = match values.data_type() {
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| round_float(v, digits)),
        ),
        DataType::Decimal128(_, scale) => {
            let drop = i32::from(*scale) - digits;
            let column = values.as_primitive::<Decimal128Type>();
            let rounded = column.try_unary::<_, Decimal128Type, ArrowError>(|v| {
                round_unscaled(v, drop)
                    .ok_or_else(|| ArrowError::ArithmeticOverflow("numeric".into()))
            })?;
            Arc::new(rounded.with_data_type(values.data_type().clone()))
        }
        integer if digits >= 0 => return result(args, arrow::compute::cast(&values, integer)?),
        integer => {
            let wide = arrow::compute::cast(&values, &DataType::Int64)?;
            let rounded = wide
                .as_primitive::<Int64Type>()
                .try_unary::<_, Int64Type, ArrowError>(|v| {
                    round_unscaled(i128::from(v), -digits)
                        .and_then(|v| i64::try_from(v).ok())
                        .ok_or_else(|| ArrowError::ArithmeticOverflow("bigint".into()))
                })?;
            let options = arrow::compute::CastOptions {
                safe: false,
                ..Default::default()
            };
            arrow::compute::cast_with_options(&rounded, integer, &options)?
        }
    };
    result(args, rounded)
}

/// The last `drop` digits become zero, half away from zero.
fn round_unscaled(value: i128, drop: i32) -> Option<i128> {
    match drop {
        ..=0 => Some(value),
        39.. => Some(0),
        _ => {
            let unit = 10i128.checked_pow(drop as u32)?;
            let (whole, rest) = (value / unit, value % unit);
            let away = if rest.abs() >= unit - rest.abs() {
                value.signum()
            } else {
                0
            };
            (whole + away).checked_mul(unit)
        }
    }
}

fn round_float(value: f64, digits: i32) -> f64 {
    if digits == 0 || !value.is_finite() {
        return value.round_ties_even();
    }
    // The decimal text of a double rounds exactly; powers of ten would not.
    if digits > 0 {
        format!("{value:.*}", digits.min(400) as usize)
            .parse()
            .unwrap_or(value)
    } else {
        (value / 10f64.powi(-digits)).round_ties_even() * 10f64.powi(-digits)
    }
}
