//! From a big integer to the nearest float, once.

/// A floating-point format: bits of its mantissa, and the exponent of its smallest value.
#[derive(Clone, Copy)]
pub struct Format {
    bits: i32,
    lowest: i32,
}

/// Doubles.
pub const DOUBLE: Format = Format {
    bits: 53,
    lowest: -1074,
};
/// Singles.
pub const SINGLE: Format = Format {
    bits: 24,
    lowest: -149,
};

/// Words that are divided without asking for memory.
const FEW: usize = 40;

/// `magnitude * 2^exponent`, divided by all of `divisors`, rounded to the nearest value of
/// `format`, ties to even; infinity beyond its range. Words come lowest first.
pub fn quotient(magnitude: &[u64], exponent: i32, divisors: &[u64], format: Format) -> f64 {
    let Some(high) = magnitude.iter().rposition(|w| *w != 0) else {
        return 0.0;
    };
    // Two words below the point for each leave at least 65 bits of quotient whatever the divisors.
    let extra = 2 * divisors.iter().filter(|d| **d != 1).count();
    let used = high + 1 + extra;
    let (mut few, mut many) = ([0u64; FEW], Vec::new());
    let digits = match few.get_mut(..used) {
        Some(digits) => digits,
        None => {
            many.resize(used, 0);
            many.as_mut_slice()
        }
    };
    digits[extra..].copy_from_slice(&magnitude[..=high]);
    let exponent = exponent - 64 * extra as i32;
    let mut sticky = false;
    for divisor in divisors.iter().filter(|d| **d != 1) {
        let mut remainder = 0u128;
        for digit in digits.iter_mut().rev() {
            let value = remainder << 64 | u128::from(*digit);
            *digit = (value / u128::from(*divisor)) as u64;
            remainder = value % u128::from(*divisor);
        }
        sticky |= remainder != 0;
    }
    let Some(high) = digits.iter().rposition(|w| *w != 0) else {
        return 0.0;
    };
    let top = high as i32 * 64 + 63 - digits[high].leading_zeros() as i32;
    round(&digits[..=high], top, exponent, sticky, format)
}

/// `digits * 2^exponent`, whose highest bit is `top`, plus a little if `sticky`.
fn round(digits: &[u64], top: i32, exponent: i32, sticky: bool, format: Format) -> f64 {
    let unit = (top + exponent - (format.bits - 1)).max(format.lowest);
    let dropped = unit - exponent;
    let bit = |i: i32| {
        i >= 0
            && digits
                .get(i as usize / 64)
                .is_some_and(|w| w >> (i % 64) & 1 == 1)
    };
    let mut kept = bits_from(digits, dropped.max(0) as usize);
    if dropped < 0 {
        kept <<= -dropped;
    }
    let half = dropped > 0 && bit(dropped - 1);
    let below = sticky
        || dropped > 1
            && (0..digits.len()).any(|w| {
                let from = w as i32 * 64;
                let kept_bits = (dropped - 1 - from).clamp(0, 64);
                let mask = if kept_bits == 64 {
                    u64::MAX
                } else {
                    (1 << kept_bits) - 1
                };
                digits[w] & mask != 0
            });
    if half && (below || kept & 1 == 1) {
        kept += 1;
    }
    let too_large =
        format.bits == SINGLE.bits && (kept as f64) * power(unit.min(200)) > f64::from(f32::MAX);
    if unit > 971 || too_large {
        f64::INFINITY
    } else {
        kept as f64 * power(unit)
    }
}

/// The 64 bits that begin at bit `from`.
fn bits_from(digits: &[u64], from: usize) -> u64 {
    let word = |i: usize| u128::from(digits.get(i).copied().unwrap_or(0));
    ((word(from / 64) | word(from / 64 + 1) << 64) >> (from % 64)) as u64
}

/// 2^n for -1074 <= n <= 1023.
fn power(n: i32) -> f64 {
    f64::from_bits(if n >= -1022 {
        ((n + 1023) as u64) << 52
    } else {
        1 << (n + 1074)
    })
}
