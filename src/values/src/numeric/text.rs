//! Numerics as text: PostgreSQL's `numeric_in` and `numeric_out`.
//!
//! Input: spaces, a sign, digits with at most one point, an exponent (after whose `e` spaces are
//! taken too, as PostgreSQL 15 does), spaces; or `NaN`, `inf`, `infinity` in any case, the last two
//! with a sign. The scale is the number of digits after the point less the exponent, at least 0.
//! Text of up to 38 digits is read and written without allocation.

use std::fmt;
use std::str::FromStr;

use num_bigint::{BigInt, BigUint};
use tidemark_common::{Error, Result, SqlState};

use super::int::{Int, POW10, digits_u128};
use super::{DIGITS_MAX, Numeric, Repr, SCALE_MAX, overflow};

/// Exponents of this size PostgreSQL takes for an overflow at once.
const EXPONENT_MAX: i64 = (i32::MAX / 2) as i64;

/// What C's `isspace` takes for a space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn invalid(text: &str) -> Error {
    Error::user(
        SqlState::INVALID_TEXT,
        format!("invalid input syntax for type numeric: \"{text}\""),
    )
}

impl Numeric {
    /// Reads text as PostgreSQL 15's `numeric_in`.
    ///
    /// # Errors
    /// `22P02` when the text is no number, `22003` when it is beyond the limits.
    pub fn parse(text: &str) -> Result<Numeric> {
        let bytes = text.as_bytes();
        let start = bytes
            .iter()
            .position(|b| !is_space(*b))
            .unwrap_or(bytes.len());
        let end = bytes
            .iter()
            .rposition(|b| !is_space(*b))
            .map_or(start, |last| last + 1);
        let body = &bytes[start..end];
        if let Some(special) = parse_special(body) {
            return Ok(special);
        }
        let number = Literal::scan(body).ok_or_else(|| invalid(text))?;
        // PostgreSQL refuses such exponents whatever they belong to and whatever follows.
        if number.exponent.abs() >= EXPONENT_MAX {
            return Err(overflow());
        }
        if number.trailing {
            return Err(invalid(text));
        }
        number.value()
    }

    /// Writes it as PostgreSQL's `numeric_out`.
    pub fn write_to(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match &self.0 {
            Repr::Small(v, scale) => write_small(*v, usize::from(*scale), out),
            Repr::Big(v, scale) => {
                if v.sign() == num_bigint::Sign::Minus {
                    out.write_char('-')?;
                }
                write_digits(&v.magnitude().to_string(), usize::from(*scale), out)
            }
            Repr::NegInfinity => out.write_str("-Infinity"),
            Repr::Infinity => out.write_str("Infinity"),
            Repr::NaN => out.write_str("NaN"),
        }
    }
}

fn parse_special(body: &[u8]) -> Option<Numeric> {
    let (sign, word) = match body.first()? {
        b'-' => (Some(-1), &body[1..]),
        b'+' => (Some(1), &body[1..]),
        _ => (None, body),
    };
    if word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity") {
        return Some(Numeric::infinity(sign.unwrap_or(1)));
    }
    (sign.is_none() && word.eq_ignore_ascii_case(b"nan")).then_some(Numeric::NAN)
}

/// A number's text taken apart.
struct Literal<'a> {
    negative: bool,
    /// Digits and at most one point.
    digits: &'a [u8],
    /// Digits after the point.
    fraction: i64,
    /// Saturated far beyond the limits.
    exponent: i64,
    /// Something follows the exponent.
    trailing: bool,
}

impl Literal<'_> {
    /// Takes text without outer spaces apart; `None` when it is not a number.
    fn scan(body: &[u8]) -> Option<Literal<'_>> {
        let (negative, rest) = match body.first()? {
            b'-' => (true, &body[1..]),
            b'+' => (false, &body[1..]),
            _ => (false, body),
        };
        let mut point = None;
        let mut length = 0;
        while let Some(byte) = rest.get(length) {
            match byte {
                b'0'..=b'9' => {}
                b'.' if point.is_none() => point = Some(length),
                _ => break,
            }
            length += 1;
        }
        if length == usize::from(point.is_some()) {
            return None;
        }
        let (exponent, trailing) = match rest.get(length) {
            None => (0, false),
            Some(b'e' | b'E') => scan_exponent(&rest[length + 1..])?,
            Some(_) => return None,
        };
        let fraction = point.map_or(0, |at| length - at - 1) as i64;
        Some(Literal {
            negative,
            digits: &rest[..length],
            fraction,
            exponent,
            trailing,
        })
    }

    fn value(&self) -> Result<Numeric> {
        let shift = self.exponent - self.fraction;
        let scale = (-shift).max(0);
        let zeros = shift.max(0);
        let unscaled = self.unscaled();
        let before_point = i64::from(unscaled.digits()) + shift;
        if scale > i64::from(SCALE_MAX)
            || (!unscaled.is_zero() && before_point > i64::from(DIGITS_MAX))
        {
            return Err(overflow());
        }
        let unscaled = unscaled.times_pow10(if unscaled.is_zero() { 0 } else { zeros as u32 });
        Ok(Numeric::finite(unscaled, scale as u16))
    }

    /// The digits as an integer, with the sign.
    fn unscaled(&self) -> Int {
        let mut value = 0u64;
        let mut high = 0u128;
        let mut count = 0;
        for byte in self.digits.iter().filter(|b| **b != b'.') {
            if count == 0 && *byte == b'0' {
                continue;
            }
            value = value * 10 + u64::from(byte - b'0');
            count += 1;
            if count == 19 {
                high = u128::from(value);
                value = 0;
            }
            if count == 38 {
                break;
            }
        }
        let total = match count {
            0..19 => u128::from(value),
            _ => high * POW10[count - 19] + u128::from(value),
        };
        // 38 digits fit an `i128`; a longer number is read again as a whole.
        if count == 38 && self.digits.len() > 38 {
            let digits: Vec<u8> = self
                .digits
                .iter()
                .filter(|b| **b != b'.')
                .copied()
                .collect();
            let magnitude = BigUint::parse_bytes(&digits, 10).unwrap_or_default();
            let value = BigInt::from(magnitude);
            return Int::from(if self.negative { -value } else { value });
        }
        let value = total as i128;
        Int::Small(if self.negative { -value } else { value })
    }
}

/// What C's `strtol` reads, and whether something follows it.
fn scan_exponent(text: &[u8]) -> Option<(i64, bool)> {
    let start = text.iter().position(|b| !is_space(*b))?;
    let (negative, digits) = match text[start] {
        b'-' => (true, &text[start + 1..]),
        b'+' => (false, &text[start + 1..]),
        _ => (false, &text[start..]),
    };
    let length = digits
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(digits.len());
    if length == 0 {
        return None;
    }
    let step = |value: i64, byte: &u8| {
        value
            .saturating_mul(10)
            .saturating_add(i64::from(byte - b'0'))
    };
    let value = digits[..length].iter().fold(0, step);
    Some((if negative { -value } else { value }, length < digits.len()))
}

/// The decimal digits of `v` at the end of the buffer; their start.
fn digits_into(mut v: u128, buffer: &mut [u8; 40]) -> usize {
    let mut at = buffer.len();
    while v > u128::from(u64::MAX) {
        let mut low = (v % POW10[18]) as u64;
        v /= POW10[18];
        for _ in 0..9 {
            let pair = (low % 100) as u8;
            low /= 100;
            at -= 2;
            buffer[at] = b'0' + pair / 10;
            buffer[at + 1] = b'0' + pair % 10;
        }
    }
    let mut v = v as u64;
    while v >= 100 {
        let pair = (v % 100) as u8;
        v /= 100;
        at -= 2;
        buffer[at] = b'0' + pair / 10;
        buffer[at + 1] = b'0' + pair % 10;
    }
    if v >= 10 {
        at -= 1;
        buffer[at] = b'0' + (v % 10) as u8;
        v /= 10;
    }
    at -= 1;
    buffer[at] = b'0' + v as u8;
    at
}

fn write_small(v: i128, scale: usize, out: &mut impl fmt::Write) -> fmt::Result {
    let magnitude = v.unsigned_abs();
    let mut digits = [b'0'; 40];
    let start = digits_into(magnitude, &mut digits);
    // One write for the usual number: sign, digits with a point between them.
    if scale < 40 && digits_u128(magnitude) < 40 {
        let mut buffer = [0u8; 48];
        let mut length = 0;
        if v < 0 {
            buffer[0] = b'-';
            length = 1;
        }
        let start = start.min(39usize.saturating_sub(scale));
        let whole = &digits[start..40 - scale];
        buffer[length..length + whole.len()].copy_from_slice(whole);
        length += whole.len();
        if scale > 0 {
            buffer[length] = b'.';
            length += 1;
            buffer[length..length + scale].copy_from_slice(&digits[40 - scale..]);
            length += scale;
        }
        return out.write_str(ascii(&buffer[..length]));
    }
    if v < 0 {
        out.write_char('-')?;
    }
    write_digits(ascii(&digits[start..]), scale, out)
}

/// Bytes that are ASCII as a string.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Writes the digits of an unscaled integer with the point `scale` digits from the end.
fn write_digits(digits: &str, scale: usize, out: &mut impl fmt::Write) -> fmt::Result {
    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    if scale == 0 {
        return out.write_str(digits);
    }
    if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.write_str(whole)?;
        out.write_char('.')?;
        return out.write_str(fraction);
    }
    out.write_str("0.")?;
    let mut zeros = scale - digits.len();
    while zeros > 0 {
        let step = zeros.min(ZEROS.len());
        out.write_str(&ZEROS[..step])?;
        zeros -= step;
    }
    out.write_str(digits)
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl FromStr for Numeric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Numeric> {
        Numeric::parse(text)
    }
}
