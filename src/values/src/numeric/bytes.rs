//! Numerics as bytes that sort as the numbers do: a *key*, then the display scale.
//!
//! ```text
//! form  = key scale                       of a finite number
//!       = key                             of NaN, Infinity, -Infinity
//! key   = 0x01                            -Infinity
//!       = the complement of key(-x)       a negative number x: every byte b is 255 - b
//!       = 0x80                            zero
//!       = 0x81 (E + 16384 in 2 bytes, big-endian) digits      E < -16
//!       = 0x92 + E, which is 0x82..=0xFC, digits              -16 <= E <= 106
//!       = 0xFD (E in 3 bytes, big-endian) digits              E > 106
//!       = 0xFE                            Infinity
//!       = 0xFF                            NaN
//! scale = s                               s < 128
//!       = (s % 256) (0x80 + s / 256)      otherwise
//! ```
//!
//! A positive number is written 0.d1 d2 .. dn * 100^E with digits 0..=99, the first and the last of
//! them not zero, which is possible in one way only. A digit d is the byte 2d + 1, the last one 2d.
//!
//! Why keys sort as numbers: the header byte orders signs, then exponents. Under one exponent the
//! first differing digit decides, because 2d + 1 < 2d' for d < d'. Where one number's digits begin
//! another's, the shorter number is the smaller, and its last byte 2d is below the other's 2d + 1.
//! Why no key begins another: header and exponent say where the digits start, and the digits end
//! at the first even byte (the first odd one in a negative number's complement). So whole forms,
//! too, sort by number first and by scale only among equals. The scale's last byte says by its
//! top bit how long the scale is, so the key is found from the end, in O(1).
//!
//! 12345.67 = 0.01 23 45 67 * 100^3 takes six bytes: the header 0x95, four digits, the scale.

use std::cmp::Ordering;

use num_bigint::{BigInt, BigUint, Sign};
use tidemark_common::{Error, Result};

use super::int::{Int, POW10, pow10_big, pow10_i128};
use super::{DIGITS_MAX, Numeric, Repr, SCALE_MAX};

const NEG_INFINITY: u8 = 0x01;
const ZERO: u8 = 0x80;
const EXPONENT_LOW: u8 = 0x81;
const EXPONENT_BASE: i32 = 0x92;
const EXPONENT_MIN: i32 = -16;
const EXPONENT_MAX: i32 = 106;
const EXPONENT_HIGH: u8 = 0xFD;
const INFINITY: u8 = 0xFE;
const NAN: u8 = 0xFF;
const LOW_BIAS: i32 = 16384;

/// The key of an encoded numeric: equal keys are equal numbers and keys sort as numbers. O(1).
///
/// Of bytes that are no encoded numeric it gives some part of them, without panic.
#[inline]
pub fn key_of(form: &[u8]) -> &[u8] {
    let scale_bytes = match form {
        [] | [NEG_INFINITY | INFINITY | NAN] => 0,
        [.., last] if *last < 0x80 => 1,
        _ => 2,
    };
    &form[..form.len().saturating_sub(scale_bytes)]
}

/// Compares two encoded numerics as numbers, without decoding them.
#[inline]
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    key_of(a).cmp(key_of(b))
}

impl Numeric {
    /// Appends the order-preserving form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Small(0, scale) => {
                out.push(ZERO);
                encode_scale(*scale, out);
            }
            Repr::Small(v, scale) => {
                encode_small(*v, *scale, out);
                encode_scale(*scale, out);
            }
            Repr::Big(v, scale) => {
                encode_big(v, *scale, out);
                encode_scale(*scale, out);
            }
            Repr::NegInfinity => out.push(NEG_INFINITY),
            Repr::Infinity => out.push(INFINITY),
            Repr::NaN => out.push(NAN),
        }
    }

    /// Reads what [`Numeric::encode`] wrote.
    ///
    /// # Errors
    /// `XX001` when the bytes are not an encoded numeric.
    pub fn decode(form: &[u8]) -> Result<Numeric> {
        decode(form).ok_or_else(|| Error::corrupt("damaged numeric value"))
    }
}

#[inline]
fn encode_scale(scale: u16, out: &mut Vec<u8>) {
    if scale < 0x80 {
        out.push(scale as u8);
    } else {
        out.extend_from_slice(&[scale as u8, 0x80 | (scale >> 8) as u8]);
    }
}

/// Puts header and exponent in front of the digits (already as key bytes) and complements all.
#[inline]
fn encode_key(negative: bool, exponent: i32, digits: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if (EXPONENT_MIN..=EXPONENT_MAX).contains(&exponent) {
        out.push((EXPONENT_BASE + exponent) as u8);
    } else if exponent < EXPONENT_MIN {
        out.push(EXPONENT_LOW);
        out.extend_from_slice(&((exponent + LOW_BIAS) as u16).to_be_bytes());
    } else {
        out.push(EXPONENT_HIGH);
        out.extend_from_slice(&exponent.to_be_bytes()[1..]);
    }
    out.extend_from_slice(digits);
    if negative {
        for byte in &mut out[start..] {
            *byte = !*byte;
        }
    }
}

fn encode_small(v: i128, scale: u16, out: &mut Vec<u8>) {
    // Written from the back; `pairs` counts every base-100 digit, also the zeros left out.
    let mut buffer = [0u8; 24];
    let mut at = buffer.len();
    let mut pairs = 0;
    let mut put = |pair: u8| {
        pairs += 1;
        if at == 24 {
            if pair == 0 {
                return;
            }
            at -= 1;
            buffer[at] = pair << 1;
        } else {
            at -= 1;
            buffer[at] = pair << 1 | 1;
        }
    };
    let mut rest = v.unsigned_abs();
    if scale % 2 == 1 {
        let (high, low) = match u64::try_from(rest) {
            Ok(small) => (u128::from(small / 10), (small % 10) as u8),
            Err(_) => (rest / 10, (rest % 10) as u8),
        };
        put(low * 10);
        rest = high;
    }
    while rest > u128::from(u64::MAX) {
        let mut low = (rest % POW10[18]) as u64;
        rest /= POW10[18];
        for _ in 0..9 {
            put((low % 100) as u8);
            low /= 100;
        }
    }
    let mut rest = rest as u64;
    while rest > 0 {
        put((rest % 100) as u8);
        rest /= 100;
    }
    let exponent = pairs - i32::from(scale.div_ceil(2));
    encode_key(v < 0, exponent, &buffer[at..], out);
}

fn encode_big(v: &BigInt, scale: u16, out: &mut Vec<u8>) {
    let even = if scale % 2 == 1 { v * 10 } else { v.clone() };
    let mut digits = even.magnitude().to_radix_be(100);
    let exponent = digits.len() as i32 - i32::from(scale.div_ceil(2));
    while digits.last() == Some(&0) {
        digits.pop();
    }
    for digit in &mut digits {
        *digit = *digit << 1 | 1;
    }
    if let Some(last) = digits.last_mut() {
        *last &= !1;
    }
    encode_key(v.sign() == Sign::Minus, exponent, &digits, out);
}

fn decode(form: &[u8]) -> Option<Numeric> {
    let header = *form.first()?;
    if form.len() == 1 {
        return match header {
            NEG_INFINITY => Some(Numeric::NEG_INFINITY),
            INFINITY => Some(Numeric::INFINITY),
            NAN => Some(Numeric::NAN),
            _ => None,
        };
    }
    let key = key_of(form);
    let scale = match form[key.len()..] {
        [scale] => u16::from(scale),
        [low, high] => u16::from(high & 0x7F) << 8 | u16::from(low),
        _ => return None,
    };
    if scale > SCALE_MAX {
        return None;
    }
    if key == [ZERO] {
        return Some(Numeric(Repr::Small(0, scale)));
    }
    // A negative number is read through its complement.
    let flip = if header < ZERO { 0xFF } else { 0 };
    let byte = |at: usize| key.get(at).map(|b| i32::from(b ^ flip));
    let (exponent, start) = match *key.first()? ^ flip {
        EXPONENT_LOW => ((byte(1)? << 8 | byte(2)?) - LOW_BIAS, 3),
        EXPONENT_HIGH => (byte(1)? << 16 | byte(2)? << 8 | byte(3)?, 4),
        plain @ 0x82..=0xFC => (i32::from(plain) - EXPONENT_BASE, 1),
        _ => return None,
    };
    let digits = key.get(start..)?;
    if digits.is_empty() || exponent > DIGITS_MAX as i32 / 2 {
        return None;
    }
    // unscaled = digits * 100^(exponent - n) * 10^scale
    let shift = 2 * (exponent - digits.len() as i32) + i32::from(scale);
    if shift < -1 {
        return None;
    }
    let unscaled = if digits.len() <= 19 {
        unscaled_small(digits, flip, shift)?
    } else {
        unscaled_big(digits, flip, shift)?
    };
    Some(Numeric::finite(unscaled, scale))
}

/// The base-100 digit of a key byte; `None` unless it ends the digits exactly if `last`.
#[inline]
fn pair(byte: u8, flip: u8, last: bool) -> Option<u8> {
    let byte = byte ^ flip;
    let digit = byte >> 1;
    (digit < 100 && (byte & 1 == 0) == last).then_some(digit)
}

/// Up to 19 digits, less than 10^38.
#[inline]
fn unscaled_small(digits: &[u8], flip: u8, shift: i32) -> Option<Int> {
    let mut total = 0u64;
    let last = digits.len() - 1;
    let (first, second) = digits.split_at(digits.len().min(9));
    for (at, byte) in first.iter().enumerate() {
        total = total * 100 + u64::from(pair(*byte, flip, at == last)?);
    }
    let mut total = u128::from(total);
    if !second.is_empty() {
        for part in second.chunks(9).enumerate() {
            let (index, part) = part;
            let mut low = 0u64;
            for (at, byte) in part.iter().enumerate() {
                low = low * 100 + u64::from(pair(*byte, flip, 9 + index * 9 + at == last)?);
            }
            total = total * POW10[2 * part.len()] + u128::from(low);
        }
    }
    if shift < 0 {
        let (q, r) = match u64::try_from(total) {
            Ok(small) => (u128::from(small / 10), small % 10),
            Err(_) => (total / 10, (total % 10) as u64),
        };
        if r != 0 {
            return None;
        }
        total = q;
    }
    let value = if flip == 0 {
        total as i128
    } else {
        -(total as i128)
    };
    if shift <= 0 {
        return Some(Int::Small(value));
    }
    match pow10_i128(shift as u32).and_then(|p| value.checked_mul(p)) {
        Some(value) => Some(Int::Small(value)),
        None => Some(Int::from(BigInt::from(value) * pow10_big(shift as u32))),
    }
}

fn unscaled_big(digits: &[u8], flip: u8, shift: i32) -> Option<Int> {
    let last = digits.len() - 1;
    let mut pairs = Vec::with_capacity(digits.len());
    for (at, byte) in digits.iter().enumerate() {
        pairs.push(pair(*byte, flip, at == last)?);
    }
    let mut magnitude = BigUint::from_radix_be(&pairs, 100)?;
    if shift < 0 {
        // The last digit ends in zero: the pairs hold one decimal digit more than the scale.
        if !pairs[last].is_multiple_of(10) {
            return None;
        }
        magnitude /= 10u32;
    } else if shift > 0 {
        magnitude *= pow10_big(shift as u32).magnitude();
    }
    let sign = if flip == 0 { Sign::Plus } else { Sign::Minus };
    Some(Int::from(BigInt::from_biguint(sign, magnitude)))
}
