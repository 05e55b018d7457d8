//! exp, ln, log and power, with PostgreSQL's choice of result scale.
//!
//! PostgreSQL estimates the decimal weight of a result in floating point, chooses a scale that
//! gives at least 16 significant digits (and at least the operands' scales, at most 1000), and
//! computes with some guard digits. The steps here are the same in the same order, each rounded at
//! the scale at which PostgreSQL rounds it and correctly so: a logarithm to a base is the quotient
//! of two rounded logarithms, a power is e to the rounded product. Where PostgreSQL's own guard
//! digits do not suffice, the last digit can differ; that is a matter of one in millions.

use tidemark_common::{Error, Result};

use super::arithmetic::divide;
use super::int::{self, Int, Leading, leading};
use super::{
    INEXACT_SCALE_MAX, INVALID_ARGUMENT_FOR_LOG, INVALID_ARGUMENT_FOR_POWER, Numeric,
    SIGNIFICANT_DIGITS_MIN, division_by_zero, overflow, series,
};

/// PostgreSQL's `NUMERIC_MAX_RESULT_SCALE`.
const RESULT_SCALE_MAX: f64 = 2000.0;
/// The largest weight in base 10000.
const WEIGHT_MAX: i32 = 32767;
/// Decimal weights from which on PostgreSQL calculates no integer power.
const POWER_WEIGHT_MAX: f64 = (3 * WEIGHT_MAX * 4) as f64;
/// log10(e), with PostgreSQL's digits.
#[allow(clippy::approx_constant)]
const LOG10_E: f64 = 0.434294481903252;
/// ln(10), with PostgreSQL's digits.
#[allow(clippy::approx_constant)]
const LN_10: f64 = 2.302585092994046;

/// An unscaled integer and its scale, which may be beyond a numeric's.
#[derive(Clone)]
struct Decimal {
    v: Int,
    scale: i32,
}

impl Decimal {
    /// The product rounded at `scale`.
    fn mul(&self, other: &Decimal, scale: i32) -> Decimal {
        let v = self
            .v
            .mul(&other.v)
            .rescale(self.scale + other.scale, scale);
        Decimal { v, scale }
    }

    fn leading(&self) -> Leading {
        leading(&self.v, self.scale)
    }

    fn weight(&self) -> i32 {
        int::first_digit(&self.v, self.scale).0
    }

    /// Compares with `n / 10`.
    fn cmp_tenths(&self, n: i128) -> std::cmp::Ordering {
        let at = self.scale.max(1);
        self.v
            .rescale(self.scale, at)
            .cmp(&Int::Small(n).rescale(1, at))
    }

    fn is_one(&self) -> bool {
        self.cmp_tenths(10).is_eq()
    }

    fn ln(&self, scale: i32) -> Decimal {
        Decimal {
            v: series::ln(&self.v, self.scale.unsigned_abs(), scale.unsigned_abs()),
            scale,
        }
    }

    fn checked(self) -> Result<Numeric> {
        Numeric::checked(self.v, self.scale as u16)
    }

    /// Whether it is a whole number; if so, that number.
    fn whole(&self) -> Option<Int> {
        int::whole(&self.v, self.scale as u16)
    }
}

/// The nearest float, infinite beyond floats' range.
pub(super) fn to_f64_saturating(v: &Int, scale: i32) -> f64 {
    let text = match v {
        Int::Small(v) => format!("{v}e-{scale}"),
        Int::Big(v) => format!("{v}e-{scale}"),
    };
    text.parse().unwrap_or(f64::NAN)
}

/// The result scale for a result of decimal weight `weight`, at least the scales given.
fn inexact_scale(weight: i32, scales: &[i32]) -> i32 {
    let least = scales.iter().copied().max().unwrap_or(0);
    (SIGNIFICANT_DIGITS_MIN - weight)
        .max(least)
        .clamp(0, INEXACT_SCALE_MAX)
}

fn log_error(message: &str) -> Error {
    Error::user(INVALID_ARGUMENT_FOR_LOG, message)
}

fn log_of_zero() -> Error {
    log_error("cannot take logarithm of zero")
}

fn log_of_negative() -> Error {
    log_error("cannot take logarithm of a negative number")
}

fn power_error(message: &str) -> Error {
    Error::user(INVALID_ARGUMENT_FOR_POWER, message)
}

fn check_log_argument(sign: i32) -> Result<()> {
    match sign {
        0 => Err(log_of_zero()),
        1 => Ok(()),
        _ => Err(log_of_negative()),
    }
}

/// PostgreSQL's estimate of the decimal weight of ln(x); 0 where there is no logarithm.
fn ln_weight(x: &Decimal) -> i32 {
    if x.v.sign() <= 0 {
        return 0;
    }
    if x.cmp_tenths(9).is_ge() && x.cmp_tenths(11).is_le() {
        // ln(1 + d) is nearly d.
        let one = Int::Small(1).rescale(0, x.scale);
        let difference = x.v.sub(&one);
        return if difference.is_zero() {
            0
        } else {
            difference.digits() as i32 - 1 - x.scale
        };
    }
    let lead = x.leading();
    let mut digits = f64::from(lead.digits[0]);
    let mut weight = lead.weight * 4;
    if lead.count > 1 {
        digits = digits * 10_000.0 + f64::from(lead.digits[1]);
        weight -= 4;
    }
    let ln = digits.ln() + f64::from(weight) * LN_10;
    ln.abs().log10() as i32
}

/// e^x at `scale`.
fn exp_at(x: &Decimal, scale: i32) -> Result<Decimal> {
    let value = to_f64_saturating(&x.v, x.scale);
    if value.abs() >= RESULT_SCALE_MAX * 3.0 {
        if value > 0.0 {
            return Err(overflow());
        }
        return Ok(Decimal {
            v: Int::Small(0),
            scale,
        });
    }
    if value.abs() <= 0.01 {
        return Ok(exp_near_zero(x, scale));
    }
    Ok(Decimal {
        v: series::exp(&x.v, x.scale.unsigned_abs(), scale.unsigned_abs()),
        scale,
    })
}

/// e^x of a small x, by Taylor's series with PostgreSQL's eight guard digits.
///
/// `1 + x` alone can lie next to the middle between two results (a base next to 1 to the power of
/// 1.5), where it is the guard digits that decide. So here they are PostgreSQL's.
fn exp_near_zero(x: &Decimal, scale: i32) -> Decimal {
    let fine = scale + 8;
    let own = x.scale.max(fine);
    let mut sum = Int::Small(1)
        .rescale(0, own)
        .add(&x.v.rescale(x.scale, own));
    let mut term = Decimal {
        v: Int::Small(1),
        scale: 0,
    };
    let mut n = 1;
    loop {
        term = if n == 1 { x.clone() } else { term.mul(x, fine) };
        term.v = term.v.div_round(&Int::Small(n));
        if term.v.is_zero() {
            break;
        }
        if n > 1 {
            sum = sum.add(&term.v.rescale(fine, own));
        }
        n += 1;
    }
    Decimal {
        v: sum.rescale(own, scale),
        scale,
    }
}

impl Numeric {
    fn decimal(&self) -> Option<Decimal> {
        self.parts().map(|(v, scale)| Decimal {
            v,
            scale: i32::from(scale),
        })
    }

    /// e to the power of `self`.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn exp(&self) -> Result<Numeric> {
        let Some(x) = self.decimal() else {
            return Ok(if self.signum() < 0 {
                Numeric::ZERO
            } else {
                self.clone()
            });
        };
        let weight = to_f64_saturating(&x.v, x.scale) * LOG10_E;
        let weight = weight.clamp(-RESULT_SCALE_MAX, RESULT_SCALE_MAX) as i32;
        exp_at(&x, inexact_scale(weight, &[x.scale]))?.checked()
    }

    /// The natural logarithm.
    ///
    /// # Errors
    /// `2201E` of zero and of negative numbers.
    pub fn ln(&self) -> Result<Numeric> {
        if self.is_nan() {
            return Ok(Numeric::NAN);
        }
        check_log_argument(self.signum())?;
        let Some(x) = self.decimal() else {
            return Ok(Numeric::INFINITY);
        };
        x.ln(inexact_scale(ln_weight(&x), &[x.scale])).checked()
    }

    /// SQL's `log(self)`: the logarithm to base 10.
    ///
    /// # Errors
    /// As [`Numeric::ln`].
    pub fn log10(&self) -> Result<Numeric> {
        self.log(&Numeric(super::Repr::Small(10, 0)))
    }

    /// SQL's `log(base, self)`.
    ///
    /// # Errors
    /// `2201E` when either is zero or negative, `22012` when the base is 1.
    pub fn log(&self, base: &Numeric) -> Result<Numeric> {
        let (Some(x), Some(b)) = (self.decimal(), base.decimal()) else {
            return self.log_special(base);
        };
        let (weight_b, weight_x) = (ln_weight(&b), ln_weight(&x));
        let weight = weight_x - weight_b;
        let scale = inexact_scale(weight, &[b.scale, x.scale]);
        check_log_argument(b.v.sign())?;
        check_log_argument(x.v.sign())?;
        let ln_b = b.ln((scale + weight - weight_b + 8).max(0));
        let ln_x = x.ln((scale + weight - weight_x + 8).max(0));
        if ln_b.v.is_zero() {
            return Err(division_by_zero());
        }
        let v = divide(&ln_x.v, ln_x.scale, &ln_b.v, ln_b.scale, scale);
        Decimal { v, scale }.checked()
    }

    /// The logarithm when one of the two is not finite.
    fn log_special(&self, base: &Numeric) -> Result<Numeric> {
        if self.is_nan() || base.is_nan() {
            return Ok(Numeric::NAN);
        }
        match (base.signum(), self.signum()) {
            (-1, _) | (_, -1) => Err(log_of_negative()),
            (0, _) | (_, 0) => Err(log_of_zero()),
            _ => match (base.is_infinite(), self.is_infinite()) {
                (true, true) => Ok(Numeric::NAN),
                (true, false) => Ok(Numeric::ZERO),
                _ => Ok(Numeric::INFINITY),
            },
        }
    }

    /// `self ^ exponent`.
    ///
    /// # Errors
    /// `2201F` when zero is raised to a negative power or a negative number to one that is not
    /// whole; `22003` beyond the limits.
    pub fn power(&self, exponent: &Numeric) -> Result<Numeric> {
        if (self.is_nan() && !exponent.is_zero()) || (exponent.is_nan() && *self != Numeric::ONE) {
            return Ok(Numeric::NAN);
        }
        if self.is_nan() || exponent.is_nan() {
            return Ok(Numeric::ONE);
        }
        if self.is_zero() && exponent.signum() < 0 {
            return Err(power_error("zero raised to a negative power is undefined"));
        }
        match (self.decimal(), exponent.decimal()) {
            (Some(base), Some(exponent)) => power_finite(base, &exponent)?.checked(),
            (base, exponent_finite) => {
                let whole = exponent_finite.as_ref().map(Decimal::whole);
                self.power_special(base, exponent, whole)
            }
        }
    }

    /// The power when one of the two is infinite, as POSIX has it. `whole` is the exponent as a
    /// whole number: `None` if it is infinite, `Some(None)` if it has a fraction.
    fn power_special(
        &self,
        base: Option<Decimal>,
        exponent: &Numeric,
        whole: Option<Option<Int>>,
    ) -> Result<Numeric> {
        if self.signum() < 0 && matches!(whole, Some(None)) {
            return Err(complex_power());
        }
        if base.as_ref().is_some_and(Decimal::is_one) || exponent.is_zero() {
            return Ok(Numeric::ONE);
        }
        if self.is_zero() {
            return Ok(Numeric::ZERO);
        }
        let rising = exponent.signum() > 0;
        if exponent.is_infinite() {
            let size = self.abs();
            if size == Numeric::ONE {
                return Ok(Numeric::ONE);
            }
            let grows = (size > Numeric::ONE) == rising;
            return Ok(if grows {
                Numeric::INFINITY
            } else {
                Numeric::ZERO
            });
        }
        let odd = whole.flatten().is_some_and(|v| v.is_odd());
        Ok(match rising {
            false => Numeric::ZERO,
            true => Numeric::infinity(if odd { self.signum() } else { 1 }),
        })
    }
}

fn complex_power() -> Error {
    power_error("a negative number raised to a non-integer power yields a complex result")
}

fn power_finite(base: Decimal, exponent: &Decimal) -> Result<Decimal> {
    let whole = exponent.whole();
    if let Some(Int::Small(n)) = &whole
        && let Ok(n) = i32::try_from(*n)
    {
        return power_integer(&base, n);
    }
    if base.v.is_zero() {
        return Ok(Decimal {
            v: Int::Small(0),
            scale: SIGNIFICANT_DIGITS_MIN,
        });
    }
    if base.v.sign() > 0 {
        return power_real(&base, exponent);
    }
    let Some(whole) = whole else {
        return Err(complex_power());
    };
    let size = power_real(
        &Decimal {
            v: base.v.abs(),
            scale: base.scale,
        },
        exponent,
    )?;
    let v = if whole.is_odd() { size.v.neg() } else { size.v };
    Ok(Decimal {
        v,
        scale: size.scale,
    })
}

/// e^(exponent * ln(base)) of a positive base.
fn power_real(base: &Decimal, exponent: &Decimal) -> Result<Decimal> {
    let weight_ln = ln_weight(base);
    // A first product of few digits tells the result's weight.
    let coarse = (8 - weight_ln).max(0);
    let product = base.ln(coarse).mul(exponent, coarse);
    let estimate = to_f64_saturating(&product.v, product.scale);
    if estimate.abs() > RESULT_SCALE_MAX * 3.01 {
        if estimate > 0.0 {
            return Err(overflow());
        }
        return Ok(Decimal {
            v: Int::Small(0),
            scale: INEXACT_SCALE_MAX,
        });
    }
    let weight = (estimate * LOG10_E) as i32;
    let scale = inexact_scale(weight, &[base.scale, exponent.scale]);
    let significant = (scale + weight).max(0);
    let fine = (significant - weight_ln + 8).max(0);
    exp_at(&base.ln(fine).mul(exponent, fine), scale)
}

/// PostgreSQL's estimate of log10(|base|^n).
fn power_weight(base: &Decimal, n: i32) -> f64 {
    let lead = base.leading();
    if lead.count == 0 {
        return 0.0;
    }
    let mut digits = f64::from(lead.digits[0]);
    let mut weight = lead.weight * 4;
    for digit in &lead.digits[1..lead.count] {
        digits = digits * 10_000.0 + f64::from(*digit);
        weight -= 4;
    }
    f64::from(n) * (digits.log10() + f64::from(weight))
}

/// `base ^ n` by repeated squaring. The scale is 16 or the base's, whatever the result's size.
fn power_integer(base: &Decimal, n: i32) -> Result<Decimal> {
    let scale = inexact_scale(0, &[base.scale]);
    let rounded = |x: Decimal| Decimal {
        v: x.v.rescale(x.scale, scale),
        scale,
    };
    let inverse = |x: &Decimal| {
        if x.v.is_zero() {
            return Err(division_by_zero());
        }
        Ok(Decimal {
            v: divide(&Int::Small(1), 0, &x.v, x.scale, scale),
            scale,
        })
    };
    match n {
        0 => {
            return Ok(rounded(Decimal {
                v: Int::Small(1),
                scale: 0,
            }));
        }
        1 => return Ok(rounded(base.clone())),
        -1 => return inverse(base),
        2 => return Ok(base.mul(base, scale)),
        _ if base.v.is_zero() => {
            return Ok(Decimal {
                v: Int::Small(0),
                scale,
            });
        }
        _ => {}
    }
    let weight = power_weight(base, n);
    if weight > POWER_WEIGHT_MAX {
        return Err(overflow());
    }
    if weight + 1.0 < -f64::from(scale) {
        return Ok(Decimal {
            v: Int::Small(0),
            scale,
        });
    }
    let significant = 1 + scale + weight as i32 + f64::from(n).abs().ln() as i32 + 8;
    let Some(power) = square_and_multiply(base, n.unsigned_abs(), significant) else {
        if n > 0 {
            return Err(overflow());
        }
        return Ok(Decimal {
            v: Int::Small(0),
            scale,
        });
    };
    if n < 0 {
        inverse(&power)
    } else {
        Ok(rounded(power))
    }
}

/// `base ^ n` to about `significant` digits; `None` when it grows beyond the limits.
fn square_and_multiply(base: &Decimal, n: u32, significant: i32) -> Option<Decimal> {
    let mut mask = n;
    let mut square = base.clone();
    let mut result = if mask & 1 == 1 {
        base.clone()
    } else {
        Decimal {
            v: Int::Small(1),
            scale: 0,
        }
    };
    mask >>= 1;
    while mask > 0 {
        let scale = (significant - 2 * square.weight() * 4)
            .min(2 * square.scale)
            .max(0);
        square = square.mul(&square, scale);
        if mask & 1 == 1 {
            let weight = square.weight() + result.weight();
            let scale = (significant - weight * 4)
                .min(square.scale + result.scale)
                .max(0);
            result = square.mul(&result, scale);
        }
        if square.weight() > WEIGHT_MAX || result.weight() > WEIGHT_MAX {
            return None;
        }
        mask >>= 1;
    }
    Some(result)
}
