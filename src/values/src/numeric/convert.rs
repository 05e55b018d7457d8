//! Numerics from and to integers, floats and Arrow's decimals, and the cast to `numeric(p, s)`.

use num_bigint::BigInt;
use tidemark_common::{Error, Result, SqlState};

use super::int::{Int, pow10_i128};
use super::power::to_f64_saturating;
use super::{Numeric, Repr, SCALE_MAX, overflow};

/// PostgreSQL's largest declared precision, and largest declared scale on either side.
const PRECISION_MAX: i32 = 1000;

fn out_of_range(what: &str) -> Error {
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("{what} out of range"),
    )
}

impl From<i64> for Numeric {
    fn from(v: i64) -> Numeric {
        Numeric(Repr::Small(i128::from(v), 0))
    }
}

impl From<i32> for Numeric {
    fn from(v: i32) -> Numeric {
        Numeric(Repr::Small(i128::from(v), 0))
    }
}

impl From<i128> for Numeric {
    fn from(v: i128) -> Numeric {
        Numeric(Repr::Small(v, 0))
    }
}

impl From<f64> for Numeric {
    /// PostgreSQL's cast from `double precision`: 15 significant digits.
    fn from(v: f64) -> Numeric {
        from_float(v, 15)
    }
}

impl From<f32> for Numeric {
    /// PostgreSQL's cast from `real`: 6 significant digits.
    fn from(v: f32) -> Numeric {
        from_float(f64::from(v), 6)
    }
}

/// C's `%.{digits}g`, read as a numeric.
fn from_float(v: f64, digits: usize) -> Numeric {
    if v.is_nan() {
        return Numeric::NAN;
    }
    if v.is_infinite() {
        return Numeric::infinity(if v < 0.0 { -1 } else { 1 });
    }
    // d.ddde±x: the digits, correctly rounded, and the exponent of the first.
    let text = format!("{:.*e}", digits - 1, v);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mut unscaled: i128 = 0;
    let mut scale = 1 - digits as i32;
    scale += exponent.parse::<i32>().unwrap_or(0);
    for byte in mantissa.bytes().filter(u8::is_ascii_digit) {
        unscaled = unscaled * 10 + i128::from(byte - b'0');
    }
    if unscaled == 0 {
        return Numeric::ZERO;
    }
    // `scale` is the exponent of the last digit; trailing zeros are not printed.
    while unscaled % 10 == 0 && scale < 0 {
        unscaled /= 10;
        scale += 1;
    }
    let unscaled = Int::Small(if v < 0.0 { -unscaled } else { unscaled });
    let places = (-scale).max(0);
    Numeric::finite(
        unscaled.times_pow10(scale.max(0).unsigned_abs()),
        places as u16,
    )
}

impl Numeric {
    /// The integer nearest to it, half away from zero, if it is in `low..=high`.
    fn to_integer_type(&self, name: &str, low: i64, high: i64) -> Result<i64> {
        let unsupported = |what| {
            Err(Error::unsupported(format!(
                "cannot convert {what} to {name}"
            )))
        };
        match self.parts() {
            Some((v, scale)) => match v.div_round_pow10(u32::from(scale)) {
                Int::Small(v) if (i128::from(low)..=i128::from(high)).contains(&v) => Ok(v as i64),
                _ => Err(out_of_range(name)),
            },
            None if self.is_nan() => unsupported("NaN"),
            None => unsupported("infinity"),
        }
    }

    /// The cast to `bigint`, rounded half away from zero.
    ///
    /// # Errors
    /// `22003` out of range, `0A000` of `NaN` and the infinities.
    pub fn to_i64(&self) -> Result<i64> {
        self.to_integer_type("bigint", i64::MIN, i64::MAX)
    }

    /// The cast to `integer`; otherwise as [`Numeric::to_i64`].
    ///
    /// # Errors
    /// As [`Numeric::to_i64`].
    pub fn to_i32(&self) -> Result<i32> {
        self.to_integer_type("integer", i32::MIN.into(), i32::MAX.into())
            .map(|v| v as i32)
    }

    /// The cast to `smallint`; otherwise as [`Numeric::to_i64`].
    ///
    /// # Errors
    /// As [`Numeric::to_i64`].
    pub fn to_i16(&self) -> Result<i16> {
        self.to_integer_type("smallint", i16::MIN.into(), i16::MAX.into())
            .map(|v| v as i16)
    }

    /// The cast to `double precision`: the nearest.
    ///
    /// # Errors
    /// `22003` when that is infinite, or zero though the number is not.
    pub fn to_f64(&self) -> Result<f64> {
        let Some((v, scale)) = self.parts() else {
            return Ok(self.special_float());
        };
        // Both exact in a double, so that one division rounds once.
        if let Int::Small(v) = v
            && v.unsigned_abs() < 1 << 53
            && scale <= 22
            && let Some(power) = pow10_i128(u32::from(scale))
        {
            return Ok(v as f64 / power as f64);
        }
        let value = to_f64_saturating(&v, i32::from(scale));
        if value.is_infinite() || (value == 0.0 && !v.is_zero()) {
            return Err(self.float_out_of_range("double precision"));
        }
        Ok(value)
    }

    /// The cast to `real`: the nearest.
    ///
    /// # Errors
    /// As [`Numeric::to_f64`].
    pub fn to_f32(&self) -> Result<f32> {
        let Some((v, scale)) = self.parts() else {
            return Ok(self.special_float() as f32);
        };
        let text = format!("{}e-{scale}", v.to_big());
        let value: f32 = text.parse().unwrap_or(f32::NAN);
        if value.is_infinite() || (value == 0.0 && !v.is_zero()) {
            return Err(self.float_out_of_range("real"));
        }
        Ok(value)
    }

    fn special_float(&self) -> f64 {
        match self.signum() {
            0 => f64::NAN,
            1 => f64::INFINITY,
            _ => f64::NEG_INFINITY,
        }
    }

    fn float_out_of_range(&self, name: &str) -> Error {
        let message = format!("\"{self}\" is out of range for type {name}");
        Error::user(SqlState::NUMERIC_OUT_OF_RANGE, message)
    }

    /// `unscaled / 10^scale`, as Arrow's decimals are; a negative scale becomes scale 0.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn from_i128(unscaled: i128, scale: i32) -> Result<Numeric> {
        Numeric::from_int(Int::Small(unscaled), scale)
    }

    /// `unscaled / 10^scale`, of any size; a negative scale becomes scale 0.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn from_bigint(unscaled: BigInt, scale: i32) -> Result<Numeric> {
        Numeric::from_int(Int::from(unscaled), scale)
    }

    fn from_int(unscaled: Int, scale: i32) -> Result<Numeric> {
        if scale > i32::from(SCALE_MAX) || scale < -(super::DIGITS_MAX as i32) {
            return Err(overflow());
        }
        let zeros = if scale < 0 { scale.unsigned_abs() } else { 0 };
        Numeric::checked(unscaled.times_pow10(zeros), scale.max(0) as u16)
    }

    /// The number at `scale` (rounded half away from zero) as an unscaled integer, for Arrow's
    /// `Decimal128`; `None` when it does not fit or is not finite.
    pub fn to_i128(&self, scale: i32) -> Option<i128> {
        if let Repr::Small(v, own) = self.0
            && i32::from(own) == scale
        {
            return Some(v);
        }
        let (v, own) = self.parts()?;
        // What has more than 39 digits at the scale cannot fit.
        if i64::from(v.digits()) + i64::from(scale) - i64::from(own) > 40 && !v.is_zero() {
            return None;
        }
        match v.rescale(i32::from(own), scale) {
            Int::Small(v) => Some(v),
            Int::Big(_) => None,
        }
    }

    /// The unscaled integer and the scale; `None` if it is not finite.
    pub fn to_bigint(&self) -> Option<(BigInt, u16)> {
        self.parts().map(|(v, scale)| (v.into_big(), scale))
    }

    /// The cast to `numeric(precision, scale)`, of which a scale may be negative (rounding before
    /// the point) or larger than the precision, as PostgreSQL 15 has it. `NaN` passes.
    ///
    /// # Errors
    /// `22003`, `numeric field overflow`, when the rounded number has too many digits or is
    /// infinite; `22023` when precision or scale are outside what a type may declare.
    pub fn fit(&self, precision: i32, scale: i32) -> Result<Numeric> {
        check_declared(precision, scale)?;
        let Some((v, own)) = self.parts() else {
            if self.is_nan() {
                return Ok(Numeric::NAN);
            }
            return Err(field_overflow(format!(
                "A field with precision {precision}, scale {scale} cannot hold an infinite value."
            )));
        };
        let rounded = v.rescale(i32::from(own), scale);
        if rounded.digits() > precision.unsigned_abs() {
            let digits = precision - scale;
            let limit = if digits == 0 {
                "1".to_owned()
            } else {
                format!("10^{digits}")
            };
            return Err(field_overflow(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute \
                 value less than {limit}."
            )));
        }
        let zeros = if scale < 0 { scale.unsigned_abs() } else { 0 };
        Ok(Numeric::finite(
            rounded.times_pow10(zeros),
            scale.max(0) as u16,
        ))
    }
}

fn field_overflow(detail: String) -> Error {
    Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow").with_detail(detail)
}

fn check_declared(precision: i32, scale: i32) -> Result<()> {
    let wrong = |message| Err(Error::user(SqlState::INVALID_PARAMETER, message));
    if !(1..=PRECISION_MAX).contains(&precision) {
        return wrong(format!(
            "NUMERIC precision {precision} must be between 1 and {PRECISION_MAX}"
        ));
    }
    if !(-PRECISION_MAX..=PRECISION_MAX).contains(&scale) {
        return wrong(format!(
            "NUMERIC scale {scale} must be between -{PRECISION_MAX} and {PRECISION_MAX}"
        ));
    }
    Ok(())
}
