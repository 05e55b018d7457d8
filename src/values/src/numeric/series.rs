//! ln and e^x to any number of decimal digits, correctly rounded.
//!
//! Both are computed in binary fixed point (a `BigInt` of units of 2^-bits) together with a bound
//! of the error. Where the whole interval rounds to one decimal result, that is the result;
//! otherwise the work is done again with twice the guard bits (Ziv's strategy). Neither function
//! takes a value exactly between two decimals, except where the argument is treated apart
//! (ln 1 = 0, e^0 = 1), so this ends; it is limited nevertheless.
//!
//! ln x = k ln 2 + 2^(r+1) atanh((m-1)/(m+1)), where x = m^(2^r) 2^k, by r square roots.
//! e^x = 2^k (e^(t/2^j))^(2^j), where x = t + k ln 2, by Taylor's series and j squarings.
//! ln 2 = 18 atanh(1/26) - 2 atanh(1/4801) + 8 atanh(1/8749).

use std::cell::RefCell;

use num_bigint::BigInt;
use num_traits::{One, Signed, Zero};

use super::int::{Int, pow10_big};

const LOG2_10: f64 = std::f64::consts::LOG2_10;
const GUARD_BITS_MIN: u64 = 64;
const GUARD_BITS_MAX: u64 = 8192;

/// A value in units of 2^-bits, within `error` units of the truth.
struct Fixed {
    units: BigInt,
    bits: u64,
    error: BigInt,
}

impl Fixed {
    /// The value as an unscaled integer at `scale`, if the error leaves no doubt about it.
    fn round(&self, scale: u32) -> Option<BigInt> {
        let power = pow10_big(scale);
        let low = round_shift((&self.units - &self.error) * &power, self.bits);
        let high = round_shift((&self.units + &self.error) * &power, self.bits);
        (low == high).then_some(low)
    }
}

/// `v / 2^bits`, rounded half away from zero.
fn round_shift(v: BigInt, bits: u64) -> BigInt {
    if bits == 0 {
        return v;
    }
    let magnitude = (v.abs() + (BigInt::one() << (bits - 1))) >> bits;
    if v.is_negative() {
        -magnitude
    } else {
        magnitude
    }
}

/// Computes with more and more guard bits until the rounding at `scale` is beyond doubt.
fn rounded(scale: u32, compute: impl Fn(u64) -> Fixed) -> Int {
    let mut guard = GUARD_BITS_MIN;
    loop {
        let value = compute(guard);
        if let Some(result) = value.round(scale) {
            return Int::from(result);
        }
        guard *= 2;
        if guard > GUARD_BITS_MAX {
            return Int::from(round_shift(value.units * pow10_big(scale), value.bits));
        }
    }
}

/// Binary digits that hold this many decimal digits.
fn bits_for(decimal_digits: f64) -> u64 {
    (decimal_digits * LOG2_10).ceil().max(0.0) as u64
}

/// The natural logarithm of `v / 10^s`, which is positive, as an unscaled integer at `scale`.
pub(super) fn ln(v: &Int, s: u32, scale: u32) -> Int {
    let one = Int::Small(1).times_pow10(s);
    if *v == one {
        return Int::Small(0);
    }
    let (v, one) = (v.to_big(), one.into_big());
    rounded(scale, |guard| {
        ln_fixed(&v, &one, bits_for(f64::from(scale)) + guard)
    })
}

/// ln(v / d) in units of 2^-bits.
fn ln_fixed(v: &BigInt, d: &BigInt, bits: u64) -> Fixed {
    let one = BigInt::one() << bits;
    // m = v / d / 2^k, in units, with an error of at most 4 of them.
    let mut k = v.bits() as i64 - d.bits() as i64;
    let shift = bits as i64 - k;
    let mut m = if shift >= 0 {
        (v << shift as u64) / d
    } else {
        (v >> (-shift) as u64) / d
    };
    let (low, high) = ((&one * 3) >> 2u32, (&one * 3) >> 1u32);
    while m >= high {
        m >>= 1u32;
        k += 1;
    }
    while m < low {
        m <<= 1u32;
        k -= 1;
    }
    // Square roots until m is as near to 1 as pays.
    let nearness = bits.saturating_sub((&m - &one).bits());
    let target = (bits as f64).sqrt() as u64 / 3;
    let roots = target.saturating_sub(nearness);
    for _ in 0..roots {
        m = BigInt::from((m << bits).magnitude().sqrt());
    }
    let z = ((&m - &one) << bits) / (&m + &one);
    let square = (&z * &z) >> bits;
    let mut sum = z.clone();
    let mut power = z;
    let mut terms = 0u32;
    loop {
        terms += 1;
        power = (power * &square) >> bits;
        let term = &power / (2 * terms + 1);
        // A negative number's shift rounds down, so the powers end at 0 or at -1.
        if term.is_zero() {
            break;
        }
        sum += term;
    }
    let mut units: BigInt = sum << (roots + 1);
    let mut error = BigInt::from(64 + 8 * u64::from(terms)) << (roots + 1);
    if k != 0 {
        units += (ln_two(bits + 32) * k) >> 32u32;
        error += 2;
    }
    Fixed { units, bits, error }
}

thread_local! {
    /// The logarithm of two at the largest precision asked for so far: bits, units.
    static LN_TWO: RefCell<(u64, BigInt)> = RefCell::new((0, BigInt::zero()));
}

/// ln 2 in units of 2^-bits, within one unit.
fn ln_two(bits: u64) -> BigInt {
    LN_TWO.with_borrow_mut(|(known, units)| {
        if *known < bits {
            let precise = bits + bits / 2 + 64;
            let work = precise + 32;
            let sum: BigInt = atanh_inverse(26, work) * 18 - atanh_inverse(4801, work) * 2
                + atanh_inverse(8749, work) * 8;
            *units = sum >> 32u32;
            *known = precise;
        }
        &*units >> (*known - bits)
    })
}

/// atanh(1/n) in units of 2^-bits.
fn atanh_inverse(n: u32, bits: u64) -> BigInt {
    let mut power = (BigInt::one() << bits) / n;
    let mut sum = power.clone();
    let mut odd = 1u32;
    while !power.is_zero() {
        power /= n * n;
        odd += 2;
        sum += &power / odd;
    }
    sum
}

/// e^(v / 10^s) as an unscaled integer at `scale`, where |v / 10^s| < 10000.
pub(super) fn exp(v: &Int, s: u32, scale: u32) -> Int {
    if v.is_zero() {
        return Int::Small(1).times_pow10(scale);
    }
    let estimate = super::power::to_f64_saturating(v, s as i32);
    // Decimal digits of the result down to the scale; none when it is too small to be seen.
    let digits = f64::from(scale) + estimate * std::f64::consts::LOG10_E;
    if digits < -3.0 {
        return Int::Small(0);
    }
    let (v, d) = (v.to_big(), pow10_big(s));
    rounded(scale, |guard| {
        exp_fixed(&v, &d, bits_for(digits.max(0.0)) + guard)
    })
}

/// e^(v / d), with `bits` of it to be trusted.
fn exp_fixed(v: &BigInt, d: &BigInt, bits: u64) -> Fixed {
    let work = bits + 32;
    let x = (v << work) / d;
    let ln2 = ln_two(work);
    let k = round_div(&x, &ln2);
    let halvings = (work as f64).sqrt() as u64 / 2;
    // Units of 2^-fine from here on.
    let fine = work + halvings + 8;
    let t = ((x - &ln2 * k) << (fine - work)) >> halvings;
    let one = BigInt::one() << fine;
    let mut sum = &one + &t;
    let mut term = t.clone();
    let mut n = 1u32;
    loop {
        n += 1;
        term = ((term * &t) >> fine) / n;
        if term.is_zero() {
            break;
        }
        sum += &term;
    }
    for _ in 0..halvings {
        sum = (&sum * &sum) >> fine;
    }
    let units = sum >> (fine - work);
    // k has 14 bits, and so many units of ln 2's error enter; the series' own error is smaller.
    let error = BigInt::from(u64::from(n) << 18);
    if k >= 0 && k as u64 >= work {
        return Fixed {
            units: units << (k as u64 - work),
            bits: 0,
            error,
        };
    }
    Fixed {
        units,
        bits: (work as i64 - k) as u64,
        error,
    }
}

/// `n / d` rounded to a near integer, where that is small.
fn round_div(n: &BigInt, d: &BigInt) -> i64 {
    let quotient = ((n << 1u32) + d) / (d << 1u32);
    i64::try_from(quotient).unwrap_or(0)
}
