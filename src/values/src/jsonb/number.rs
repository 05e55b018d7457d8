//! Numbers inside a value: exact decimals of PostgreSQL's `numeric`, as bytes that sort by value.
//!
//! A number is `0.d1 d2 d3.. * 10^e` with `d1` and the last digit not zero; the encoding is in the
//! documentation of the module above, in the manner of SQLite4's keys. How many zeros a number
//! shows beyond its last digit is kept elsewhere, because `1.0` and `1` are equal.
//!
//! The limits are those of `numeric`: 131072 digits before the point, 16383 after it.

use std::fmt::LowerExp;
use std::str::FromStr;

use tidemark_common::error::{Error, Result, SqlState};

use super::format::damaged;

/// The most digits after the point.
pub(super) const SCALE_MAX: usize = 16_383;
/// The most digits before the point.
const WEIGHT_MAX: i64 = 131_072;
/// Exponents written in text at or beyond this are refused whatever the digits are.
const EXPONENT_MAX: i64 = (i32::MAX / 2) as i64;

const ZERO: u8 = 0x80;
const EXPONENT_ZERO: i32 = 0xC0;
const EXPONENT_SMALL: std::ops::RangeInclusive<i32> = -32..=30;
const EXPONENT_ABOVE: u8 = 0xE0;
const EXPONENT_BELOW: u8 = 0x90;
const EXPONENT_BIAS: i32 = 1 << 23;

fn overflow() -> Error {
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        "value overflows numeric format",
    )
}

/// The parts of a decimal literal such as `-12.50e3`.
pub(super) struct Literal<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Literal<'a> {
    /// The parts of `text`; `None` where it is not `[+-] digits [. digits] [e [+-] digits]`.
    pub(super) fn read(text: &'a str) -> Option<Literal<'a>> {
        let bytes = text.as_bytes();
        let (negative, bytes) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, bytes),
        };
        let (integer, bytes) = digits(bytes);
        let (fraction, bytes) = match bytes {
            [b'.', rest @ ..] => digits(rest),
            _ => (&[][..], bytes),
        };
        if integer.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match bytes {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Literal {
            negative,
            integer,
            fraction,
            exponent,
        })
    }

    /// Appends the number's bytes; returns the zeros it shows beyond its last digit. Error 22003
    /// beyond the limits of `numeric`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<u32> {
        if self.exponent.abs() >= EXPONENT_MAX {
            return Err(overflow());
        }
        let scale = (self.fraction.len() as i64 - self.exponent).max(0);
        let (mut integer, mut fraction) = (self.integer, self.fraction);
        let mut e = integer.len() as i64 + self.exponent;
        let before = integer.len() + fraction.len();
        integer = trim_start(integer);
        if integer.is_empty() {
            fraction = trim_start(fraction);
        }
        e -= (before - integer.len() - fraction.len()) as i64;
        fraction = trim_end(fraction);
        if fraction.is_empty() {
            integer = trim_end(integer);
        }
        let length = (integer.len() + fraction.len()) as i64;
        if length == 0 {
            e = 0;
        }
        if e > WEIGHT_MAX || scale > SCALE_MAX as i64 {
            return Err(overflow());
        }
        encode_digits(out, self.negative, integer, fraction, e as i32);
        Ok((scale - (length - e).max(0)) as u32)
    }
}

fn exponent(bytes: &[u8]) -> Option<i64> {
    let (negative, bytes) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, bytes),
    };
    let (digits, rest) = digits(bytes);
    if digits.is_empty() || !rest.is_empty() {
        return None;
    }
    let add = |n: i64, d: &u8| (n * 10 + i64::from(d - b'0')).min(EXPONENT_MAX);
    let n = digits.iter().fold(0, add);
    Some(if negative { -n } else { n })
}

fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let n = bytes
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(bytes.len());
    bytes.split_at(n)
}

fn trim_start(digits: &[u8]) -> &[u8] {
    let n = digits
        .iter()
        .position(|&b| b != b'0')
        .unwrap_or(digits.len());
    &digits[n..]
}

fn trim_end(digits: &[u8]) -> &[u8] {
    let n = digits.iter().rposition(|&b| b != b'0').map_or(0, |i| i + 1);
    &digits[..n]
}

/// Appends `0.<head><tail> * 10^e`; the digits are ASCII, without zeros at either end.
fn encode_digits(out: &mut Vec<u8>, negative: bool, head: &[u8], tail: &[u8], e: i32) {
    if head.is_empty() && tail.is_empty() {
        out.push(ZERO);
        return;
    }
    let start = out.len();
    if EXPONENT_SMALL.contains(&e) {
        out.push((EXPONENT_ZERO + e) as u8);
    } else {
        out.push(if e > 0 {
            EXPONENT_ABOVE
        } else {
            EXPONENT_BELOW
        });
        out.extend_from_slice(&(e + EXPONENT_BIAS).to_be_bytes()[1..]);
    }
    let mut half = None;
    for digit in head.iter().chain(tail).map(|b| b - b'0') {
        half = match half {
            None => Some(digit * 10),
            Some(tens) => {
                out.push(2 * (tens + digit) + 1);
                None
            }
        };
    }
    match half {
        Some(tens) => out.push(2 * tens),
        None => {
            if let Some(last) = out.last_mut() {
                *last -= 1;
            }
        }
    }
    if negative {
        out[start..].iter_mut().for_each(|b| *b = !*b);
    }
}

/// Appends an integer's bytes; an integer never shows zeros beyond its last digit.
pub(super) fn encode_integer(out: &mut Vec<u8>, n: i64) {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    let mut rest = n.unsigned_abs();
    while rest > 0 {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let digits = &buffer[at..];
    encode_digits(out, n < 0, trim_end(digits), &[], digits.len() as i32);
}

/// A finite float in the digits of `float8out`: as few as round to it, those nearest to it, the
/// even ones of two as near. What lies halfway between two floats does not count as rounding to
/// either, because readers differ in how they round it; Rust's shortest digits may be such a point.
pub(super) fn shortest<F: LowerExp + FromStr + PartialEq>(value: F) -> String {
    let text = format!("{value:e}");
    let digits = text
        .bytes()
        .take_while(|b| *b != b'e')
        .filter(u8::is_ascii_digit)
        .count();
    let is_value = |text: &str| text.parse().is_ok_and(|parsed: F| parsed == value);
    // Rust rounds a tie up where it seeks the shortest digits, to even where their number is given.
    let nearest = format!("{value:.*e}", digits.saturating_sub(1));
    let text = if is_value(&nearest) { nearest } else { text };
    if !is_halfway(&text, is_value) {
        return text;
    }
    let mut longer = (digits..17).map(|places| format!("{value:.places$e}"));
    let adds_a_digit = |text: &str| !text.contains("0e");
    longer
        .find(|text| adds_a_digit(text) && is_value(text))
        .unwrap_or(text)
}

/// Whether a decimal that rounds to a float lies halfway to the next one: whether a little more or
/// a little less does not round to it.
///
/// Only integers do. A halfway point that is not one has more digits than any float is printed
/// with.
fn is_halfway(text: &str, is_value: impl Fn(&str) -> bool) -> bool {
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return false;
    };
    let is_small = exponent.starts_with('-') || (exponent.len() == 1 && exponent < "7");
    let Some((last, rest)) = mantissa.as_bytes().split_last().filter(|_| !is_small) else {
        return false;
    };
    let point = if mantissa.contains('.') { "" } else { "." };
    let more = format!("{mantissa}{point}{:0>40}e{exponent}", 1);
    // The last digit is not zero, so that one less is a matter of one byte.
    let rest = String::from_utf8_lossy(rest);
    let last = char::from(last.saturating_sub(1));
    let less = format!("{rest}{last}{point}{}e{exponent}", "9".repeat(40));
    !(is_value(&more) && is_value(&less))
}

/// Where the number ends whose first byte, after the tag, is at `at`.
pub(super) fn skip(key: &[u8], at: usize) -> Result<usize> {
    Ok(parts(key, at)?.end)
}

struct Parts<'a> {
    negative: bool,
    e: i32,
    pairs: &'a [u8],
    end: usize,
}

fn parts(key: &[u8], at: usize) -> Result<Parts<'_>> {
    let first = *key.get(at).ok_or_else(damaged)?;
    if first == ZERO {
        return Ok(Parts {
            negative: false,
            e: 0,
            pairs: &[],
            end: at + 1,
        });
    }
    let negative = first < ZERO;
    let mask = if negative { 0xFF } else { 0 };
    let first = first ^ mask;
    let (e, start) = if first == EXPONENT_ABOVE || first == EXPONENT_BELOW {
        let bytes = key.get(at + 1..at + 4).ok_or_else(damaged)?;
        let biased = bytes.iter().fold(0, |n, &b| n << 8 | i32::from(b ^ mask));
        (biased - EXPONENT_BIAS, at + 4)
    } else {
        (i32::from(first) - EXPONENT_ZERO, at + 1)
    };
    let rest = key.get(start..).unwrap_or_default();
    let last = rest
        .iter()
        .position(|&b| (b ^ mask) & 1 == 0)
        .ok_or_else(damaged)?;
    let limit = -(SCALE_MAX as i64)..=WEIGHT_MAX;
    if !limit.contains(&i64::from(e)) {
        return Err(damaged());
    }
    Ok(Parts {
        negative,
        e,
        pairs: &rest[..=last],
        end: start + last + 1,
    })
}

/// Appends the number at `at` as `numeric_out` prints it, with `extra` zeros beyond its last digit.
/// Returns where it ends.
pub(super) fn print(out: &mut String, key: &[u8], at: usize, extra: u32) -> Result<usize> {
    let Parts {
        negative,
        e,
        pairs,
        end,
    } = parts(key, at)?;
    let extra = extra as usize;
    let mask = if negative { 0xFF } else { 0 };
    if negative {
        out.push('-');
    }
    if e <= 0 {
        out.push('0');
        if !pairs.is_empty() || extra > 0 {
            out.push('.');
        }
        zeros(out, e.unsigned_abs() as usize);
    }
    let last_is_half = pairs.last().is_some_and(|b| (b ^ mask) / 2 % 10 == 0);
    let length = 2 * pairs.len() - usize::from(last_is_half);
    let point = if e > 0 { e as usize } else { usize::MAX };
    let mut place = 0;
    for pair in pairs.iter().map(|b| (b ^ mask) / 2) {
        for digit in [pair / 10, pair % 10] {
            if place == length {
                break;
            }
            if place == point {
                out.push('.');
            }
            out.push(char::from(b'0' + digit % 10));
            place += 1;
        }
    }
    if e > 0 && length <= point {
        zeros(out, point - length);
        if extra > 0 {
            out.push('.');
        }
    }
    zeros(out, extra);
    Ok(end)
}

fn zeros(out: &mut String, n: usize) {
    out.extend(std::iter::repeat_n('0', n));
}
