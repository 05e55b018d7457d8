//! The integer underneath a numeric: an `i128` that goes on as a `BigInt` where it overflows.
//!
//! Law: [`Int::Big`] never holds a value that fits an `i128`, so two equal integers have the same
//! form. Every function here keeps that, and is exact; rounding is half away from zero.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive};

/// The powers of ten that fit a `u128`: 10^0 to 10^38.
pub(super) const POW10: [u128; 39] = {
    let mut table = [1u128; 39];
    let mut i = 1;
    while i < 39 {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

/// An integer of any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Int {
    Small(i128),
    Big(BigInt),
}

/// 10^n.
pub(super) fn pow10_big(n: u32) -> BigInt {
    match POW10.get(n as usize) {
        Some(p) => BigInt::from(*p),
        None => BigInt::from(BigUint::from(5u32).pow(n) << n),
    }
}

/// 10^n as an `i128`, where it fits.
pub(super) fn pow10_i128(n: u32) -> Option<i128> {
    POW10.get(n as usize).and_then(|p| i128::try_from(*p).ok())
}

/// -1, 0 or 1.
pub(super) fn sign_of(v: &BigInt) -> i32 {
    match v.sign() {
        Sign::Minus => -1,
        Sign::NoSign => 0,
        Sign::Plus => 1,
    }
}

/// Two unscaled numbers brought to the larger of their scales, where both then fit an `i128`.
#[inline]
pub(super) fn align(a: i128, s: u16, b: i128, t: u16) -> Option<(i128, i128)> {
    match s.cmp(&t) {
        Ordering::Equal => Some((a, b)),
        Ordering::Less => Some((a.checked_mul(pow10_i128(u32::from(t - s))?)?, b)),
        Ordering::Greater => Some((a, b.checked_mul(pow10_i128(u32::from(s - t))?)?)),
    }
}

/// The number of decimal digits; 0 for zero.
#[inline]
pub(super) fn digits_u128(v: u128) -> u32 {
    if v == 0 {
        return 0;
    }
    // 1233/4096 is a little more than log10(2): the estimate is right or one too small.
    let estimate = ((128 - v.leading_zeros()) * 1233) >> 12;
    match POW10.get(estimate as usize) {
        Some(p) if v >= *p => estimate + 1,
        _ => estimate,
    }
}

/// The number of decimal digits; 0 for zero.
pub(super) fn digits_big(v: &BigUint) -> u32 {
    if let Some(small) = v.to_u128() {
        return digits_u128(small);
    }
    let shift = v.bits() - 64;
    let top = (v >> shift).to_u64().unwrap_or(u64::MAX) as f64;
    let log = top.log10() + shift as f64 * std::f64::consts::LOG10_2;
    let nearest = log.round();
    if (log - nearest).abs() > 1e-6 {
        return log.floor() as u32 + 1;
    }
    // Too near a power of ten to tell by floating point.
    let power = nearest as u32;
    if *v >= *pow10_big(power).magnitude() {
        power + 1
    } else {
        power
    }
}

/// `n / d` rounded half away from zero; `d` is not zero.
#[inline]
pub(super) fn div_round_i128(n: i128, d: i128) -> i128 {
    // 64-bit division is several times faster than 128-bit division.
    let (q, r) = match (i64::try_from(n), i64::try_from(d)) {
        (Ok(n), Ok(d)) if d != -1 => (i128::from(n / d), i128::from(n % d)),
        _ => (n / d, n % d),
    };
    let (rest, divisor) = (r.unsigned_abs(), d.unsigned_abs());
    if rest >= divisor - rest {
        q + if (n < 0) == (d < 0) { 1 } else { -1 }
    } else {
        q
    }
}

/// `n / d` rounded half away from zero; `d` is not zero.
pub(super) fn div_round_big(n: &BigInt, d: &BigInt) -> BigInt {
    let (q, r) = n.div_rem(d);
    if (r.magnitude() << 1u32) >= *d.magnitude() {
        if n.is_negative() == d.is_negative() {
            q + 1
        } else {
            q - 1
        }
    } else {
        q
    }
}

impl From<i128> for Int {
    fn from(v: i128) -> Int {
        Int::Small(v)
    }
}

impl From<BigInt> for Int {
    fn from(v: BigInt) -> Int {
        if v.bits() <= 128
            && let Some(small) = v.to_i128()
        {
            return Int::Small(small);
        }
        Int::Big(v)
    }
}

impl Int {
    pub(super) fn to_big(&self) -> BigInt {
        match self {
            Int::Small(v) => BigInt::from(*v),
            Int::Big(v) => v.clone(),
        }
    }

    pub(super) fn into_big(self) -> BigInt {
        match self {
            Int::Small(v) => BigInt::from(v),
            Int::Big(v) => v,
        }
    }

    /// The absolute value.
    pub(super) fn magnitude(&self) -> BigUint {
        match self {
            Int::Small(v) => BigUint::from(v.unsigned_abs()),
            Int::Big(v) => v.magnitude().clone(),
        }
    }

    /// -1, 0 or 1.
    pub(super) fn sign(&self) -> i32 {
        match self {
            Int::Small(v) => v.signum() as i32,
            Int::Big(v) => sign_of(v),
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        matches!(self, Int::Small(0))
    }

    pub(super) fn is_odd(&self) -> bool {
        match self {
            Int::Small(v) => v & 1 == 1,
            Int::Big(v) => v.bit(0),
        }
    }

    /// The number of decimal digits; 0 for zero.
    pub(super) fn digits(&self) -> u32 {
        match self {
            Int::Small(v) => digits_u128(v.unsigned_abs()),
            Int::Big(v) => digits_big(v.magnitude()),
        }
    }

    pub(super) fn neg(&self) -> Int {
        match self {
            Int::Small(v) => match v.checked_neg() {
                Some(v) => Int::Small(v),
                None => Int::from(-BigInt::from(*v)),
            },
            Int::Big(v) => Int::from(-v),
        }
    }

    pub(super) fn abs(&self) -> Int {
        if self.sign() < 0 {
            self.neg()
        } else {
            self.clone()
        }
    }

    pub(super) fn add(&self, other: &Int) -> Int {
        if let (Int::Small(a), Int::Small(b)) = (self, other)
            && let Some(sum) = a.checked_add(*b)
        {
            return Int::Small(sum);
        }
        Int::from(self.to_big() + other.to_big())
    }

    pub(super) fn sub(&self, other: &Int) -> Int {
        if let (Int::Small(a), Int::Small(b)) = (self, other)
            && let Some(difference) = a.checked_sub(*b)
        {
            return Int::Small(difference);
        }
        Int::from(self.to_big() - other.to_big())
    }

    pub(super) fn mul(&self, other: &Int) -> Int {
        match (self, other) {
            (Int::Small(a), Int::Small(b)) => match a.checked_mul(*b) {
                Some(product) => Int::Small(product),
                None => Int::from(BigInt::from(*a) * BigInt::from(*b)),
            },
            (Int::Big(a), Int::Big(b)) => Int::from(a * b),
            (Int::Big(a), Int::Small(b)) | (Int::Small(b), Int::Big(a)) => Int::from(a * *b),
        }
    }

    /// `self * 10^n`.
    pub(super) fn times_pow10(&self, n: u32) -> Int {
        if n == 0 || self.is_zero() {
            return self.clone();
        }
        if let Int::Small(v) = self
            && let Some(product) = pow10_i128(n).and_then(|p| v.checked_mul(p))
        {
            return Int::Small(product);
        }
        Int::from(self.to_big() * pow10_big(n))
    }

    /// The quotient, truncated, and the remainder; `d` is not zero.
    pub(super) fn div_rem(&self, d: &Int) -> (Int, Int) {
        if let (Int::Small(n), Int::Small(d)) = (self, d)
            && let (Some(q), Some(r)) = (n.checked_div(*d), n.checked_rem(*d))
        {
            return (Int::Small(q), Int::Small(r));
        }
        let (q, r) = self.to_big().div_rem(&d.to_big());
        (Int::from(q), Int::from(r))
    }

    /// The quotient, rounded half away from zero; `d` is not zero.
    pub(super) fn div_round(&self, d: &Int) -> Int {
        match (self, d) {
            (Int::Small(n), Int::Small(d)) if *n != i128::MIN => Int::Small(div_round_i128(*n, *d)),
            _ => Int::from(div_round_big(&self.to_big(), &d.to_big())),
        }
    }

    /// `self / 10^n`, truncated, and the remainder.
    pub(super) fn div_rem_pow10(&self, n: u32) -> (Int, Int) {
        if n == 0 {
            return (self.clone(), Int::Small(0));
        }
        if n > self.digits() {
            return (Int::Small(0), self.clone());
        }
        match (self, pow10_i128(n)) {
            (Int::Small(v), Some(p)) => (Int::Small(v / p), Int::Small(v % p)),
            _ => {
                let (q, r) = self.to_big().div_rem(&pow10_big(n));
                (Int::from(q), Int::from(r))
            }
        }
    }

    /// `self / 10^n`, rounded half away from zero.
    pub(super) fn div_round_pow10(&self, n: u32) -> Int {
        if n == 0 {
            return self.clone();
        }
        if n > self.digits() {
            return Int::Small(0);
        }
        match (self, pow10_i128(n)) {
            (Int::Small(v), Some(p)) => Int::Small(div_round_i128(*v, p)),
            _ => Int::from(div_round_big(&self.to_big(), &pow10_big(n))),
        }
    }

    /// The unscaled integer at scale `from`, brought to scale `to`.
    pub(super) fn rescale(&self, from: i32, to: i32) -> Int {
        if to >= from {
            self.times_pow10(to.abs_diff(from))
        } else {
            self.div_round_pow10(from.abs_diff(to))
        }
    }
}

impl Ord for Int {
    fn cmp(&self, other: &Int) -> Ordering {
        match (self, other) {
            (Int::Small(a), Int::Small(b)) => a.cmp(b),
            (Int::Big(a), Int::Big(b)) => a.cmp(b),
            // What is big lies beyond all that is small.
            (Int::Small(_), Int::Big(b)) => 0.cmp(&sign_of(b)),
            (Int::Big(a), Int::Small(_)) => sign_of(a).cmp(&0),
        }
    }
}

impl PartialOrd for Int {
    fn partial_cmp(&self, other: &Int) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The leading digits of a number in base 10000, as PostgreSQL holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leading {
    /// The power of 10000 of the first digit; 0 for zero.
    pub(super) weight: i32,
    /// The first four digits.
    pub(super) digits: [u16; 4],
    /// How many digits there are when trailing zeros are left out, but at most 4; 0 for zero.
    pub(super) count: usize,
}

/// The leading base-10000 digits of `|unscaled| / 10^scale`.
pub(super) fn leading(unscaled: &Int, scale: i32) -> Leading {
    let decimal_digits = unscaled.digits() as i32;
    if decimal_digits == 0 {
        return Leading {
            weight: 0,
            digits: [0; 4],
            count: 0,
        };
    }
    let weight = (decimal_digits - 1 - scale).div_euclid(4);
    // The number as an integer of units of 10000^(weight - 3): sixteen digits.
    let drop = scale + 4 * weight - 12;
    let (top, rest) = if drop <= 0 {
        (unscaled.times_pow10(drop.unsigned_abs()), Int::Small(0))
    } else {
        unscaled.div_rem_pow10(drop.unsigned_abs())
    };
    let mut top = match top {
        Int::Small(v) => v.unsigned_abs() as u64,
        Int::Big(_) => unreachable!("sixteen digits fit 128 bits"),
    };
    let mut digits = [0; 4];
    for digit in digits.iter_mut().rev() {
        *digit = (top % 10_000) as u16;
        top /= 10_000;
    }
    let mut count = 4;
    if rest.is_zero() {
        while count > 0 && digits[count - 1] == 0 {
            count -= 1;
        }
    }
    Leading {
        weight,
        digits,
        count,
    }
}

/// The weight (see [`Leading`]) and the first base-10000 digit, for choosing a division's scale.
#[inline]
pub(super) fn first_digit(unscaled: &Int, scale: i32) -> (i32, u16) {
    if let Int::Small(v) = unscaled {
        let v = v.unsigned_abs();
        let decimal_digits = digits_u128(v) as i32;
        if decimal_digits == 0 {
            return (0, 0);
        }
        let weight = (decimal_digits - 1 - scale).div_euclid(4);
        let drop = scale + 4 * weight;
        let first = if drop <= 0 {
            v * POW10[drop.unsigned_abs() as usize]
        } else {
            let p = POW10[drop as usize];
            match (u64::try_from(v), u64::try_from(p)) {
                (Ok(v), Ok(p)) => u128::from(v / p),
                _ => v / p,
            }
        };
        return (weight, first as u16);
    }
    let lead = leading(unscaled, scale);
    (lead.weight, lead.digits[0])
}

/// Whether the unscaled integer at this scale is a whole number; if so, that number.
pub(super) fn whole(unscaled: &Int, scale: u16) -> Option<Int> {
    let (q, r) = unscaled.div_rem_pow10(u32::from(scale));
    r.is_zero().then_some(q)
}
