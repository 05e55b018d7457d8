//! Exact functions: square root, greatest common divisor, factorial, width_bucket.

use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use tidemark_common::{Error, Result, SqlState};

use super::arithmetic::{divide, division_scale};
use super::int::{Int, first_digit, pow10_big};
use super::{
    INEXACT_SCALE_MAX, INVALID_ARGUMENT_FOR_POWER, INVALID_ARGUMENT_FOR_WIDTH_BUCKET, Numeric,
    SIGNIFICANT_DIGITS_MIN, overflow,
};

/// The largest argument of `factorial` whose result PostgreSQL can hold.
const FACTORIAL_MAX: i64 = 32177;

/// The square root of `v` (at scale `s`, not negative) at `scale`, rounded half away from zero.
///
/// With s the truncated root of n, the root is at least s + 1/2 exactly if n - s^2 > s.
pub(super) fn square_root(v: &Int, s: i32, scale: i32) -> Int {
    let shift = 2 * scale - s;
    let mut n = v.magnitude();
    if shift >= 0 {
        n *= pow10_big(shift.unsigned_abs()).magnitude();
    } else {
        n /= pow10_big(shift.unsigned_abs()).magnitude();
    }
    let root = n.sqrt();
    let rest = n - &root * &root;
    let rounded = if rest > root { root + 1u32 } else { root };
    Int::from(BigInt::from(rounded))
}

impl Numeric {
    /// The square root, with at least 16 significant digits.
    ///
    /// # Errors
    /// `2201F` of a negative number.
    pub fn sqrt(&self) -> Result<Numeric> {
        if self.signum() < 0 {
            let message = "cannot take square root of a negative number";
            return Err(Error::user(INVALID_ARGUMENT_FOR_POWER, message));
        }
        let Some((v, s)) = self.parts() else {
            return Ok(self.clone());
        };
        let s = i32::from(s);
        let (weight, _) = first_digit(&v, s);
        // Decimal digits of the result before the point, from the weight in base 10000.
        let digits = if weight >= 0 {
            weight * 2 + 1
        } else {
            1 - (-weight) * 2
        };
        let scale = (SIGNIFICANT_DIGITS_MIN - digits)
            .max(s)
            .clamp(0, INEXACT_SCALE_MAX);
        Numeric::checked(square_root(&v, s, scale), scale as u16)
    }

    /// SQL's `gcd`, at the larger scale; not negative.
    pub fn gcd(&self, other: &Numeric) -> Numeric {
        let Some((a, b, scale)) = aligned(self, other) else {
            return Numeric::NAN;
        };
        let divisor = a.magnitude().gcd(&b.magnitude());
        Numeric::finite(Int::from(BigInt::from(divisor)), scale)
    }

    /// SQL's `lcm`, at the larger scale; not negative.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn lcm(&self, other: &Numeric) -> Result<Numeric> {
        let Some((a, b, scale)) = aligned(self, other) else {
            return Ok(Numeric::NAN);
        };
        if a.is_zero() || b.is_zero() {
            return Ok(Numeric::finite(Int::Small(0), scale));
        }
        let multiple = a.magnitude().lcm(&b.magnitude());
        Numeric::checked(Int::from(BigInt::from(multiple)), scale)
    }

    /// SQL's `factorial`.
    ///
    /// # Errors
    /// `22003` of a negative number and of more than 32177.
    pub fn factorial(n: i64) -> Result<Numeric> {
        if n < 0 {
            let message = "factorial of a negative number is undefined";
            return Err(Error::user(SqlState::NUMERIC_OUT_OF_RANGE, message));
        }
        if n > FACTORIAL_MAX {
            return Err(overflow());
        }
        let product = product(1, n.max(1) as u64);
        Numeric::checked(Int::from(BigInt::from(product)), 0)
    }

    /// SQL's `width_bucket`: in which of `count` equal buckets between the bounds it falls; 0
    /// below them, `count + 1` above. Bounds in falling order count downwards.
    ///
    /// # Errors
    /// `2201G` when count or bounds are unsuitable, `22003` when `count + 1` is no `integer`.
    pub fn width_bucket(&self, low: &Numeric, high: &Numeric, count: i32) -> Result<i32> {
        let wrong = |message: &str| Err(Error::user(INVALID_ARGUMENT_FOR_WIDTH_BUCKET, message));
        if count <= 0 {
            return wrong("count must be greater than zero");
        }
        if self.is_nan() || low.is_nan() || high.is_nan() {
            return wrong("operand, lower bound, and upper bound cannot be NaN");
        }
        if low.is_infinite() || high.is_infinite() {
            return wrong("lower and upper bounds must be finite");
        }
        if low == high {
            return wrong("lower bound cannot equal upper bound");
        }
        let rising = low < high;
        if (rising && self < low) || (!rising && self > low) {
            return Ok(0);
        }
        if (rising && self >= high) || (!rising && self <= high) {
            return count.checked_add(1).ok_or_else(integer_out_of_range);
        }
        let along = self.sub(low)?.abs();
        let width = high.sub(low)?.abs();
        bucket(&along, &width, count)
    }
}

/// `floor(along * count / width) + 1`. PostgreSQL 15 rounds the quotient first, by which what lies
/// just below the upper bound can get into bucket `count + 1`.
fn bucket(along: &Numeric, width: &Numeric, count: i32) -> Result<i32> {
    let (Some((a, s)), Some((w, t))) = (along.parts(), width.parts()) else {
        return Ok(0);
    };
    let (s, t) = (i32::from(s), i32::from(t));
    let a = a.mul(&Int::Small(i128::from(count)));
    let scale = division_scale(&a, s, &w, t);
    let quotient = divide(&a, s, &w, t, scale);
    match quotient.div_rem_pow10(scale.unsigned_abs()).0 {
        Int::Small(whole) if whole < i128::from(i32::MAX) => Ok(whole as i32 + 1),
        _ => Err(integer_out_of_range()),
    }
}

fn integer_out_of_range() -> Error {
    Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "integer out of range")
}

fn aligned(a: &Numeric, b: &Numeric) -> Option<(Int, Int, u16)> {
    let ((a, s), (b, t)) = (a.parts()?, b.parts()?);
    let scale = s.max(t);
    Some((
        a.times_pow10(u32::from(scale - s)),
        b.times_pow10(u32::from(scale - t)),
        scale,
    ))
}

/// The product of `first..=last`, halved again and again so that factors stay of like size.
fn product(first: u64, last: u64) -> BigUint {
    if last - first < 8 {
        return (first..=last).map(BigUint::from).product();
    }
    let middle = first + (last - first) / 2;
    product(first, middle) * product(middle + 1, last)
}
