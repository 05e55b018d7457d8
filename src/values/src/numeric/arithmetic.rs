//! Arithmetic with PostgreSQL's result scales and rounding.
//!
//! | operation | scale of the result |
//! | --- | --- |
//! | `+`, `-`, `%` | the larger of the two |
//! | `*` | their sum, but at most 16383, to which the product is rounded |
//! | `/` | at least 16 significant digits, at least either scale, at most 1000 |
//! | `div`, ceil, floor | 0 |
//! | round, trunc | as asked, between 0 and 16383 |
//!
//! Rounding is half away from zero. `NaN` in any operand gives `NaN`; infinities follow IEEE 754,
//! except that division by zero is an error for every dividend but `NaN`.

use tidemark_common::Result;

use super::int::{Int, align, first_digit};
use super::{
    DIGITS_MAX, INEXACT_SCALE_MAX, Numeric, Repr, SCALE_MAX, SIGNIFICANT_DIGITS_MIN,
    division_by_zero,
};

/// Both operands finite.
struct Pair {
    a: Int,
    b: Int,
    s: u16,
    t: u16,
}

fn finite_pair(a: &Numeric, b: &Numeric) -> Option<Pair> {
    let ((a, s), (b, t)) = (a.parts()?, b.parts()?);
    Some(Pair { a, b, s, t })
}

impl Pair {
    /// Both at the larger scale.
    fn aligned(self) -> (Int, Int, u16) {
        let scale = self.s.max(self.t);
        let a = self.a.times_pow10(u32::from(scale - self.s));
        let b = self.b.times_pow10(u32::from(scale - self.t));
        (a, b, scale)
    }
}

/// The scale PostgreSQL gives a quotient, from the operands' magnitudes in base 10000.
pub(super) fn division_scale(a: &Int, s: i32, b: &Int, t: i32) -> i32 {
    let (weight_a, first_a) = first_digit(a, s);
    let (weight_b, first_b) = first_digit(b, t);
    let weight = weight_a - weight_b - i32::from(first_a <= first_b);
    (SIGNIFICANT_DIGITS_MIN - weight * 4)
        .max(s)
        .max(t)
        .clamp(0, INEXACT_SCALE_MAX)
}

/// `a / b` at `scale`, rounded half away from zero; `b` is not zero.
pub(super) fn divide(a: &Int, s: i32, b: &Int, t: i32, scale: i32) -> Int {
    let shift = scale - s + t;
    if shift >= 0 {
        a.times_pow10(shift.unsigned_abs()).div_round(b)
    } else {
        a.div_round(&b.times_pow10(shift.unsigned_abs()))
    }
}

impl Numeric {
    /// `self + other`.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn add(&self, other: &Numeric) -> Result<Numeric> {
        if let (Repr::Small(a, s), Repr::Small(b, t)) = (&self.0, &other.0)
            && let Some((a, b)) = align(*a, *s, *b, *t)
            && let Some(sum) = a.checked_add(b)
        {
            return Ok(Numeric(Repr::Small(sum, *s.max(t))));
        }
        match finite_pair(self, other) {
            Some(pair) => {
                let (a, b, scale) = pair.aligned();
                Numeric::checked(a.add(&b), scale)
            }
            None if self.is_nan() || other.is_nan() => Ok(Numeric::NAN),
            None if self.is_finite() => Ok(other.clone()),
            None if other.is_finite() || self == other => Ok(self.clone()),
            None => Ok(Numeric::NAN),
        }
    }

    /// `self - other`.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn sub(&self, other: &Numeric) -> Result<Numeric> {
        if let (Repr::Small(a, s), Repr::Small(b, t)) = (&self.0, &other.0)
            && let Some((a, b)) = align(*a, *s, *b, *t)
            && let Some(difference) = a.checked_sub(b)
        {
            return Ok(Numeric(Repr::Small(difference, *s.max(t))));
        }
        self.add(&other.negated())
    }

    /// `self * other`.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn mul(&self, other: &Numeric) -> Result<Numeric> {
        if let (Repr::Small(a, s), Repr::Small(b, t)) = (&self.0, &other.0)
            && s + t <= SCALE_MAX
            && let Some(product) = a.checked_mul(*b)
        {
            return Ok(Numeric(Repr::Small(product, s + t)));
        }
        match finite_pair(self, other) {
            Some(Pair { a, b, s, t }) => {
                let scale = (s + t).min(SCALE_MAX);
                let product = a.mul(&b).rescale(i32::from(s + t), i32::from(scale));
                Numeric::checked(product, scale)
            }
            None => match self.signum() * other.signum() {
                0 => Ok(Numeric::NAN),
                sign => Ok(Numeric::infinity(sign)),
            },
        }
    }

    /// The quotient when an operand is not finite, or an error when the divisor is zero.
    fn div_special(&self, other: &Numeric) -> Result<Numeric> {
        if self.is_nan() || other.is_nan() {
            return Ok(Numeric::NAN);
        }
        if other.is_zero() {
            return Err(division_by_zero());
        }
        match (self.is_infinite(), other.is_infinite()) {
            (true, true) => Ok(Numeric::NAN),
            (true, false) => Ok(Numeric::infinity(self.signum() * other.signum())),
            (false, _) => Ok(Numeric::ZERO),
        }
    }

    /// `self / other`.
    ///
    /// # Errors
    /// `22012` when `other` is zero and `self` not `NaN`; `22003` beyond the limits.
    pub fn div(&self, other: &Numeric) -> Result<Numeric> {
        match finite_pair(self, other) {
            Some(Pair { a, b, s, t }) if !b.is_zero() => {
                let (s, t) = (i32::from(s), i32::from(t));
                let scale = division_scale(&a, s, &b, t);
                Numeric::checked(divide(&a, s, &b, t, scale), scale as u16)
            }
            _ => self.div_special(other),
        }
    }

    /// SQL's `div`: the quotient truncated to an integer.
    ///
    /// # Errors
    /// As [`Numeric::div`].
    pub fn div_trunc(&self, other: &Numeric) -> Result<Numeric> {
        match finite_pair(self, other) {
            Some(pair) if !pair.b.is_zero() => {
                let (a, b, _) = pair.aligned();
                Numeric::checked(a.div_rem(&b).0, 0)
            }
            _ => self.div_special(other),
        }
    }

    /// `self % other`, with the sign of `self`.
    ///
    /// # Errors
    /// `22012` when `other` is zero and `self` not `NaN`.
    pub fn modulo(&self, other: &Numeric) -> Result<Numeric> {
        match finite_pair(self, other) {
            Some(pair) if !pair.b.is_zero() => {
                let (a, b, scale) = pair.aligned();
                Numeric::checked(a.div_rem(&b).1, scale)
            }
            _ if self.is_nan() || other.is_nan() => Ok(Numeric::NAN),
            _ if other.is_zero() => Err(division_by_zero()),
            _ if self.is_infinite() => Ok(Numeric::NAN),
            _ => Ok(self.clone()),
        }
    }

    /// `-self`; zero has no sign.
    pub fn negated(&self) -> Numeric {
        match (&self.0, self.parts()) {
            (_, Some((v, scale))) => Numeric::finite(v.neg(), scale),
            (Repr::Infinity, _) => Numeric::NEG_INFINITY,
            (Repr::NegInfinity, _) => Numeric::INFINITY,
            _ => Numeric::NAN,
        }
    }

    /// The absolute value.
    pub fn abs(&self) -> Numeric {
        if self.signum() < 0 {
            self.negated()
        } else {
            self.clone()
        }
    }

    /// SQL's `sign`: -1, 0 or 1, also of infinities; `NaN` of `NaN`.
    pub fn sign(&self) -> Numeric {
        if self.is_nan() {
            return Numeric::NAN;
        }
        Numeric(Repr::Small(i128::from(self.signum()), 0))
    }

    /// SQL's `round(self, places)`; negative places round before the point. Places are limited to
    /// the scales and digits that a numeric can have.
    ///
    /// # Errors
    /// `22003` when rounding up goes beyond the limits.
    pub fn round(&self, places: i32) -> Result<Numeric> {
        self.to_places(places, Int::rescale)
    }

    /// SQL's `trunc(self, places)`; otherwise as [`Numeric::round`].
    ///
    /// # Errors
    /// None that is known; the form is [`Numeric::round`]'s.
    pub fn trunc(&self, places: i32) -> Result<Numeric> {
        self.to_places(places, |v, from, to| {
            if to >= from {
                v.rescale(from, to)
            } else {
                v.div_rem_pow10(from.abs_diff(to)).0
            }
        })
    }

    fn to_places(&self, places: i32, rescale: fn(&Int, i32, i32) -> Int) -> Result<Numeric> {
        let Some((v, scale)) = self.parts() else {
            return Ok(self.clone());
        };
        let places = places.clamp(-(DIGITS_MAX as i32) - 1, i32::from(SCALE_MAX));
        let rounded = rescale(&v, i32::from(scale), places);
        if places >= 0 {
            return Numeric::checked(rounded, places as u16);
        }
        Numeric::checked(rounded.times_pow10(places.unsigned_abs()), 0)
    }

    /// The smallest integer not below it, at scale 0.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn ceil(&self) -> Result<Numeric> {
        self.to_integer(1)
    }

    /// The largest integer not above it, at scale 0.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn floor(&self) -> Result<Numeric> {
        self.to_integer(-1)
    }

    /// Rounds a fraction towards the infinity of this sign.
    fn to_integer(&self, towards: i32) -> Result<Numeric> {
        let Some((v, scale)) = self.parts() else {
            return Ok(self.clone());
        };
        let (whole, rest) = v.div_rem_pow10(u32::from(scale));
        let step = if rest.sign() == towards { towards } else { 0 };
        Numeric::checked(whole.add(&Int::Small(i128::from(step))), 0)
    }

    /// SQL's `min_scale`: the least scale that holds the value; `None` if it is not finite.
    pub fn min_scale(&self) -> Option<u16> {
        self.trim_scale().scale()
    }

    /// SQL's `trim_scale`: the same number without trailing zeros after the point.
    pub fn trim_scale(&self) -> Numeric {
        if let Repr::Small(v, scale) = &self.0 {
            let (mut v, mut scale) = (*v, *scale);
            if v == 0 {
                return Numeric::ZERO;
            }
            if let Ok(mut short) = i64::try_from(v) {
                while scale > 0 && short % 10 == 0 {
                    short /= 10;
                    scale -= 1;
                }
                return Numeric(Repr::Small(i128::from(short), scale));
            }
            while scale > 0 && v % 10 == 0 {
                v /= 10;
                scale -= 1;
            }
            return Numeric(Repr::Small(v, scale));
        }
        let Some((mut v, mut scale)) = self.parts() else {
            return self.clone();
        };
        // Ever smaller steps, so that long tails of zeros cost few divisions.
        let mut step = 4096;
        while step > 0 {
            let (q, r) = v.div_rem_pow10(u32::from(step));
            if step <= scale && r.is_zero() {
                v = q;
                scale -= step;
            } else {
                step /= 2;
            }
        }
        Numeric::finite(v, scale)
    }
}
