//! Functions of `double precision`, with PostgreSQL's errors where a result is too large, too small
//! or not defined.
//!
//! Rust's own hyperbolic inverses give other last digits than the C library that PostgreSQL calls;
//! those here follow the C library's formulas. Angles in degrees are exact where the answer is
//! (`sind(30)` is 0.5): PostgreSQL divides by the same inexact constant that it multiplied with.

use std::f64::consts::LN_2;
use std::sync::OnceLock;
use tidemark_common::{Error, Result, SqlState};

/// `22003`: larger than any float.
pub fn overflow() -> Error {
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        "value out of range: overflow",
    )
}

/// `22003`: smaller than any float but zero.
pub fn underflow() -> Error {
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        "value out of range: underflow",
    )
}

/// `22012`.
pub fn division_by_zero() -> Error {
    Error::user(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn out_of_range() -> Error {
    Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "input is out of range")
}

fn bad_logarithm(what: &str) -> Error {
    Error::user(
        SqlState("2201E"),
        format!("cannot take logarithm of {what}"),
    )
}

fn bad_power(what: &str) -> Error {
    Error::user(SqlState("2201F"), what)
}

/// A result that must be finite if `finite`, and no zero if `not_zero`.
fn checked(result: f64, finite: bool, not_zero: bool) -> Result<f64> {
    if finite && result.is_infinite() {
        return Err(overflow());
    }
    if not_zero && result == 0.0 {
        return Err(underflow());
    }
    Ok(result)
}

/// What lies this part of the way from `low` to `high`, as `percentile_cont` has it.
pub fn towards(low: f64, high: f64, part: f64) -> f64 {
    if part == 0.0 {
        low
    } else {
        low + part * (high - low)
    }
}

/// `left + right`.
pub fn add(left: f64, right: f64) -> Result<f64> {
    checked(left + right, left.is_finite() && right.is_finite(), false)
}

/// `left * right`.
pub fn multiply(left: f64, right: f64) -> Result<f64> {
    let finite = !left.is_infinite() && !right.is_infinite();
    checked(left * right, finite, left != 0.0 && right != 0.0)
}

/// `left / right`.
pub fn divide(left: f64, right: f64) -> Result<f64> {
    if right == 0.0 && !left.is_nan() {
        return Err(division_by_zero());
    }
    let not_zero = left != 0.0 && !right.is_infinite();
    checked(left / right, !left.is_infinite(), not_zero)
}

/// The cube root.
pub fn cbrt(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    // The C library's: an approximation of 0.5 to 1, one step of Halley, and the exponent's third.
    let (m, exponent) = parts(x.abs());
    let u = 0.354_895_765_043_919_86
        + (1.508_191_937_815_849
            - (2.114_994_941_673_713
                - (2.446_931_225_635_344_4
                    - (1.834_692_774_836_130_8
                        - (0.784_932_344_976_639_2 - 0.145_263_899_385_486_37 * m) * m)
                        * m)
                    * m)
                * m)
            * m;
    let cube = u * u * u;
    const ROOT: f64 = 1.259_921_049_894_873_2;
    const SQUARE: f64 = 1.587_401_051_968_199_6;
    let factor = [1.0 / SQUARE, 1.0 / ROOT, 1.0, ROOT, SQUARE][(2 + exponent % 3) as usize];
    let root = u * (cube + 2.0 * m) / (2.0 * cube + m) * factor;
    (root * 2f64.powi(exponent / 3)).copysign(x)
}

/// A positive number as one of 0.5 to 1 times a power of two.
fn parts(x: f64) -> (f64, i32) {
    let (normal, shift) = if x.is_subnormal() {
        (x * 2f64.powi(54), 54)
    } else {
        (x, 0)
    };
    let exponent = (normal.to_bits() >> 52) as i32 - 1022;
    let m = f64::from_bits(normal.to_bits() & !(0x7ff << 52) | (1022 << 52));
    (m, exponent - shift)
}

/// The square root.
pub fn sqrt(x: f64) -> Result<f64> {
    if x < 0.0 {
        return Err(bad_power("cannot take square root of a negative number"));
    }
    Ok(x.sqrt())
}

/// e to the power of `x`.
pub fn exp(x: f64) -> Result<f64> {
    checked(x.exp(), x.is_finite(), x.is_finite())
}

/// The natural logarithm.
pub fn ln(x: f64) -> Result<f64> {
    logarithm(x, f64::ln)
}

/// The logarithm to the base of 10.
pub fn log10(x: f64) -> Result<f64> {
    logarithm(x, f64::log10)
}

fn logarithm(x: f64, f: fn(f64) -> f64) -> Result<f64> {
    if x == 0.0 {
        return Err(bad_logarithm("zero"));
    }
    if x < 0.0 {
        return Err(bad_logarithm("a negative number"));
    }
    Ok(f(x))
}

/// `x` to the power of `y`.
pub fn power(x: f64, y: f64) -> Result<f64> {
    if x.is_nan() {
        return Ok(if y == 0.0 { 1.0 } else { x });
    }
    if y.is_nan() {
        return Ok(if x == 1.0 { 1.0 } else { y });
    }
    if x == 0.0 && y < 0.0 {
        return Err(bad_power("zero raised to a negative power is undefined"));
    }
    if x < 0.0 && y.floor() != y {
        return Err(bad_power(
            "a negative number raised to a non-integer power yields a complex result",
        ));
    }
    // The C library agrees with the rules for infinities.
    let result = x.powf(y);
    if x.is_infinite() || y.is_infinite() {
        return Ok(result);
    }
    checked(result, true, x != 0.0)
}

/// `x` in degrees.
pub fn degrees(x: f64) -> Result<f64> {
    divide(x, RADIANS_PER_DEGREE)
}

/// `x` in radians.
pub fn radians(x: f64) -> Result<f64> {
    multiply(x, RADIANS_PER_DEGREE)
}

/// -1, 0 or 1.
pub fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn finite(x: f64) -> Result<f64> {
    if x.is_infinite() {
        return Err(out_of_range());
    }
    Ok(x)
}

fn of_unit(x: f64) -> Result<f64> {
    if !(-1.0..=1.0).contains(&x) && !x.is_nan() {
        return Err(out_of_range());
    }
    Ok(x)
}

/// The sine.
pub fn sin(x: f64) -> Result<f64> {
    Ok(finite(x)?.sin())
}

/// The cosine.
pub fn cos(x: f64) -> Result<f64> {
    Ok(finite(x)?.cos())
}

/// The tangent.
pub fn tan(x: f64) -> Result<f64> {
    Ok(finite(x)?.tan())
}

/// The cotangent.
pub fn cot(x: f64) -> Result<f64> {
    Ok(1.0 / finite(x)?.tan())
}

/// The inverse sine.
pub fn asin(x: f64) -> Result<f64> {
    Ok(of_unit(x)?.asin())
}

/// The inverse cosine.
pub fn acos(x: f64) -> Result<f64> {
    Ok(of_unit(x)?.acos())
}

/// The inverse hyperbolic sine.
pub fn asinh(x: f64) -> f64 {
    let t = x.abs();
    let w = if t < 2f64.powi(-28) || !x.is_finite() {
        return x;
    } else if t > 2f64.powi(28) {
        t.ln() + LN_2
    } else if t > 2.0 {
        (2.0 * t + 1.0 / ((x * x + 1.0).sqrt() + t)).ln()
    } else {
        let square = x * x;
        (t + square / (1.0 + (1.0 + square).sqrt())).ln_1p()
    };
    w.copysign(x)
}

/// The inverse hyperbolic cosine.
pub fn acosh(x: f64) -> Result<f64> {
    if x < 1.0 {
        return Err(out_of_range());
    }
    Ok(if x > 2f64.powi(28) {
        if x.is_infinite() { x } else { x.ln() + LN_2 }
    } else if x > 2.0 {
        (2.0 * x - 1.0 / (x + (x * x - 1.0).sqrt())).ln()
    } else {
        let t = x - 1.0;
        (t + (2.0 * t + t * t).sqrt()).ln_1p()
    })
}

/// The inverse hyperbolic tangent.
pub fn atanh(x: f64) -> Result<f64> {
    let t = of_unit(x)?.abs();
    if t == 1.0 {
        return Ok(f64::INFINITY.copysign(x));
    }
    let result = if t < 2f64.powi(-28) {
        return Ok(x);
    } else if t < 0.5 {
        let double = t + t;
        0.5 * (double + double * t / (1.0 - t)).ln_1p()
    } else {
        0.5 * ((t + t) / (1.0 - t)).ln_1p()
    };
    Ok(result.copysign(x))
}

const RADIANS_PER_DEGREE: f64 = 0.017_453_292_519_943_295;

/// What the functions give for angles whose exact answer is known.
struct Exact {
    sin_30: f64,
    one_minus_cos_60: f64,
    asin_half: f64,
    acos_half: f64,
    atan_one: f64,
}

fn exact() -> &'static Exact {
    static EXACT: OnceLock<Exact> = OnceLock::new();
    let one = std::hint::black_box;
    EXACT.get_or_init(|| Exact {
        sin_30: (one(30.0) * RADIANS_PER_DEGREE).sin(),
        one_minus_cos_60: 1.0 - (one(60.0) * RADIANS_PER_DEGREE).cos(),
        asin_half: one(0.5f64).asin(),
        acos_half: one(0.5f64).acos(),
        atan_one: one(1.0f64).atan(),
    })
}

/// The sine of 0 to 30 degrees.
fn sine_to_30(x: f64) -> f64 {
    (x * RADIANS_PER_DEGREE).sin() / exact().sin_30 / 2.0
}

/// The cosine of 0 to 60 degrees.
fn cosine_to_60(x: f64) -> f64 {
    1.0 - (1.0 - (x * RADIANS_PER_DEGREE).cos()) / exact().one_minus_cos_60 / 2.0
}

/// The sine of 0 to 90 degrees.
fn sine(x: f64) -> f64 {
    if x <= 30.0 {
        sine_to_30(x)
    } else {
        cosine_to_60(90.0 - x)
    }
}

/// The cosine of 0 to 90 degrees.
fn cosine(x: f64) -> f64 {
    if x <= 60.0 {
        cosine_to_60(x)
    } else {
        sine_to_30(90.0 - x)
    }
}

/// The inverse sine of 0 to 1.
fn inverse_sine(x: f64) -> f64 {
    if x <= 0.5 {
        x.asin() / exact().asin_half * 30.0
    } else {
        90.0 - x.acos() / exact().acos_half * 60.0
    }
}

/// The inverse cosine of 0 to 1.
fn inverse_cosine(x: f64) -> f64 {
    if x <= 0.5 {
        90.0 - x.asin() / exact().asin_half * 30.0
    } else {
        x.acos() / exact().acos_half * 60.0
    }
}

/// The sine of degrees.
pub fn sind(x: f64) -> Result<f64> {
    let (mut x, mut sign) = (finite(x)? % 360.0, 1.0);
    if x < 0.0 {
        (x, sign) = (-x, -sign);
    }
    if x > 180.0 {
        (x, sign) = (360.0 - x, -sign);
    }
    if x > 90.0 {
        x = 180.0 - x;
    }
    Ok(sign * sine(x))
}

/// The cosine of degrees.
pub fn cosd(x: f64) -> Result<f64> {
    let (mut x, mut sign) = ((finite(x)? % 360.0).abs(), 1.0);
    if x > 180.0 {
        x = 360.0 - x;
    }
    if x > 90.0 {
        (x, sign) = (180.0 - x, -sign);
    }
    Ok(sign * cosine(x))
}

/// An angle of degrees from 0 to 90 with the same tangent, but for the sign, which is the second.
fn tangent_angle(x: f64) -> Result<(f64, f64)> {
    let (mut x, mut sign) = (finite(x)? % 360.0, 1.0);
    if x < 0.0 {
        (x, sign) = (-x, -sign);
    }
    if x > 180.0 {
        (x, sign) = (360.0 - x, -sign);
    }
    if x > 90.0 {
        (x, sign) = (180.0 - x, -sign);
    }
    Ok((x, sign))
}

/// Zero without a sign.
fn unsigned_zero(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x }
}

/// The tangent of degrees.
pub fn tand(x: f64) -> Result<f64> {
    let (x, sign) = tangent_angle(x)?;
    let of_45 = sine(45.0) / cosine(45.0);
    Ok(unsigned_zero(sign * (sine(x) / cosine(x) / of_45)))
}

/// The cotangent of degrees.
pub fn cotd(x: f64) -> Result<f64> {
    let (x, sign) = tangent_angle(x)?;
    let of_45 = cosine(45.0) / sine(45.0);
    Ok(unsigned_zero(sign * (cosine(x) / sine(x) / of_45)))
}

/// The inverse sine, in degrees.
pub fn asind(x: f64) -> Result<f64> {
    let x = of_unit(x)?;
    Ok(if x >= 0.0 {
        inverse_sine(x)
    } else {
        -inverse_sine(-x)
    })
}

/// The inverse cosine, in degrees.
pub fn acosd(x: f64) -> Result<f64> {
    let x = of_unit(x)?;
    Ok(if x >= 0.0 {
        inverse_cosine(x)
    } else {
        90.0 + inverse_sine(-x)
    })
}

/// The inverse tangent, in degrees.
pub fn atand(x: f64) -> f64 {
    x.atan() / exact().atan_one * 45.0
}

/// The angle of a point, in degrees.
pub fn atan2d(y: f64, x: f64) -> f64 {
    y.atan2(x) / exact().atan_one * 45.0
}

/// The bucket of `count` between `low` and `high` that a value falls into; 0 and `count + 1` are
/// before and after.
///
/// Errors: `2201G` for bounds or a count that make no buckets.
pub fn width_bucket(operand: f64, low: f64, high: f64, count: i32) -> Result<i32> {
    let bad = |what: &str| Error::user(SqlState("2201G"), what);
    if count <= 0 {
        return Err(bad("count must be greater than zero"));
    }
    if operand.is_nan() || low.is_nan() || high.is_nan() {
        return Err(bad("operand, lower bound, and upper bound cannot be NaN"));
    }
    if low.is_infinite() || high.is_infinite() {
        return Err(bad("lower and upper bounds must be finite"));
    }
    let after = || {
        count
            .checked_add(1)
            .ok_or_else(|| Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "integer out of range"))
    };
    if low == high {
        return Err(bad("lower bound cannot equal upper bound"));
    }
    // From the side where the buckets begin.
    let (distance, width, before, beyond) = if low < high {
        (operand - low, high - low, operand < low, operand >= high)
    } else {
        (low - operand, low - high, operand > low, operand <= high)
    };
    if before {
        return Ok(0);
    }
    if beyond {
        return after();
    }
    let bucket = f64::from(count) * distance / width + 1.0;
    // What C makes of a float that is no integer of this size: bounds far apart do that.
    let fits = bucket < 2_147_483_648.0;
    Ok(if fits { bucket as i32 } else { i32::MIN })
}
