//! Numbers in text form: exact decimals, integers written as decimals, booleans.
//!
//! Law: a number text means `mantissa * 10^exponent` exactly; it becomes a DECIMAL of scale s by
//! rounding half away from zero, as PostgreSQL's numeric does, and an integer only where nothing
//! has to be rounded. Nothing passes through binary floating point.

use super::scan::Fault;
use tidemark_common::{Error, SqlState};
use tidemark_values::jsonb;
use tidemark_values::numeric::Numeric;

/// Digits of the mantissa that are kept; more cannot matter to 38 digits but for the rounding of
/// the next one.
const DIGITS_MAX: u32 = 38;

/// A number text taken apart.
struct Parts {
    negative: bool,
    mantissa: u128,
    exponent: i64,
    /// First digit that was dropped after [`DIGITS_MAX`] significant ones.
    dropped: u8,
    /// Whether any dropped digit is not zero.
    inexact: bool,
}

/// Reads `[+-]digits[.digits][e[+-]digits]`, also without digits on one side of the point; `None`
/// for anything else.
fn parts(text: &str) -> Option<Parts> {
    let bytes = text.as_bytes();
    let mut at = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let mut parts = Parts {
        negative: bytes.first() == Some(&b'-'),
        mantissa: 0,
        exponent: 0,
        dropped: 0,
        inexact: false,
    };
    let (mut kept, mut seen, mut dropping, mut point) = (0, false, false, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' => {
                seen = true;
                let digit = byte - b'0';
                if kept < DIGITS_MAX {
                    parts.mantissa = parts.mantissa * 10 + u128::from(digit);
                    kept += u32::from(parts.mantissa != 0);
                    parts.exponent -= i64::from(point);
                } else {
                    if !dropping {
                        parts.dropped = digit;
                        dropping = true;
                    }
                    parts.inexact |= digit != 0;
                    parts.exponent += i64::from(!point);
                }
            }
            b'.' if !point => point = true,
            _ => break,
        }
        at += 1;
    }
    if !seen {
        return None;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        parts.exponent = parts.exponent.saturating_add(exponent(&bytes[at + 1..])?);
    } else if at != bytes.len() {
        return None;
    }
    Some(parts)
}

/// `[+-]digits`, limited to a million either way.
fn exponent(text: &[u8]) -> Option<i64> {
    let negative = text.first() == Some(&b'-');
    let digits = &text[usize::from(matches!(text.first(), Some(b'+' | b'-')))..];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, digit| {
        (value * 10 + i64::from(digit - b'0')).min(1_000_000)
    });
    Some(if negative { -value } else { value })
}

/// `mantissa * 10^shift`, rounded half away from zero.
fn shifted(parts: &Parts, shift: i64) -> Option<u128> {
    if parts.mantissa == 0 {
        return Some(0);
    }
    if shift > 0 {
        return if shift > 38 {
            None
        } else {
            parts.mantissa.checked_mul(10u128.pow(shift as u32))
        };
    }
    if shift == 0 {
        return parts.mantissa.checked_add(u128::from(parts.dropped >= 5));
    }
    if shift < -38 {
        return Some(0);
    }
    let unit = 10u128.pow(shift.unsigned_abs() as u32);
    let (quotient, rest) = (parts.mantissa / unit, parts.mantissa % unit);
    Some(quotient + u128::from(rest >= unit - rest))
}

/// The value of `text` in units of `10^-scale`, at most `precision` digits of them.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Fault> {
    let parts = parts(text).ok_or_else(|| invalid("numeric", text))?;
    let units = shifted(&parts, parts.exponent.saturating_add(i64::from(scale)))
        .filter(|units| *units < 10u128.pow(u32::from(precision.min(38))));
    match units {
        Some(units) if parts.negative => Ok(-(units as i128)),
        Some(units) => Ok(units as i128),
        None => Err(out_of_range(
            &format!("numeric({precision}, {scale})"),
            text,
        )),
    }
}

/// Whether `text` writes a number.
pub(super) fn is_decimal(text: &str) -> bool {
    parts(text).is_some()
}

/// Appends the text of `bytes / 10^scale`, of an integer in two's complement, the highest byte
/// first; `None` where there are no bytes, or the scale is beyond what a numeric has.
pub(super) fn unscaled_text(bytes: &[u8], scale: i32, out: &mut String) -> Option<()> {
    if bytes.is_empty() || !(-(1 << 17)..1 << 14).contains(&scale) {
        return None;
    }
    let negative = bytes[0] >= 0x80;
    let digits = match small(bytes) {
        Some(value) => value.unsigned_abs().to_string(),
        None => large_digits(bytes, negative),
    };
    if negative {
        out.push('-');
    }
    let Ok(scale) = usize::try_from(scale) else {
        out.push_str(&digits);
        out.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
        return Some(());
    };
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        out.push('.');
        out.extend(std::iter::repeat_n('0', scale - fraction.len()));
        out.push_str(fraction);
    }
    Some(())
}

/// An integer in two's complement, the highest byte first, if it has at most 16 bytes.
#[inline]
pub(super) fn small(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut all = [if first >= 0x80 { 0xFF } else { 0 }; 16];
    all.get_mut(16usize.checked_sub(bytes.len())?..)?
        .copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

/// The digits of the magnitude of an integer of any size: nine at a time, by long division.
fn large_digits(bytes: &[u8], negative: bool) -> String {
    let mut magnitude: Vec<u8> = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let mut groups = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0u64;
        for byte in &mut magnitude {
            let value = rest << 8 | u64::from(*byte);
            (*byte, rest) = ((value / 1_000_000_000) as u8, value % 1_000_000_000);
        }
        groups.push(rest);
    }
    let mut groups = groups.into_iter().rev();
    let mut digits = groups.next().unwrap_or(0).to_string();
    digits.extend(groups.map(|group| format!("{group:09}")));
    digits
}

/// Appends the bytes of the numeric that `text` writes.
pub(super) fn numeric(text: &str, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    let value = Numeric::parse(text).map_err(|error| match error.state() {
        SqlState::INVALID_TEXT => invalid("numeric", text),
        _ => out_of_range("numeric", text),
    })?;
    value.encode(bytes);
    Ok(())
}

/// Appends the bytes of the JSONB that `text` writes, made by `builder`.
pub(super) fn json(
    text: &str,
    builder: &mut jsonb::Builder,
    bytes: &mut Vec<u8>,
) -> Result<(), Fault> {
    jsonb::parse_to(builder, text, bytes).map_err(|error| json_fault(error, text))
}

/// Why `text` is no JSONB.
#[cold]
pub(super) fn json_fault(error: Error, text: &str) -> Fault {
    match error.state() {
        SqlState::INVALID_TEXT => invalid("jsonb", text),
        state => Fault::value(error.message().to_string()).with_state(state),
    }
}

/// The integer that `text` writes, be it `7`, `7.0` or `7e0`.
pub(super) fn integral(text: &str, type_name: &str) -> Result<i64, Fault> {
    let parts = parts(text).ok_or_else(|| invalid(type_name, text))?;
    let whole = shifted(&parts, parts.exponent);
    let value = whole.and_then(|whole| {
        if parts.negative {
            0i64.checked_sub_unsigned(u64::try_from(whole).ok()?)
        } else {
            i64::try_from(whole).ok()
        }
    });
    let value = value.ok_or_else(|| out_of_range(type_name, text))?;
    let exact = !parts.inexact
        && match parts.exponent {
            0.. => true,
            -38..0 => parts.mantissa % 10u128.pow(parts.exponent.unsigned_abs() as u32) == 0,
            _ => parts.mantissa == 0,
        };
    if exact {
        Ok(value)
    } else {
        Err(invalid(type_name, text))
    }
}

/// A double from PostgreSQL's or JSON's text; a finite text must stay finite.
pub(super) fn double(text: &str) -> Result<f64, Fault> {
    let value: f64 = text
        .parse()
        .map_err(|_| invalid("double precision", text))?;
    if value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(out_of_range("double precision", text));
    }
    if value == 0.0 && !is_zero(text) {
        return Err(out_of_range("double precision", text));
    }
    Ok(value)
}

/// A real from PostgreSQL's or JSON's text; a finite text must stay finite.
pub(super) fn real(text: &str) -> Result<f32, Fault> {
    let value: f32 = text.parse().map_err(|_| invalid("real", text))?;
    if value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(out_of_range("real", text));
    }
    if value == 0.0 && !is_zero(text) {
        return Err(out_of_range("real", text));
    }
    Ok(value)
}

/// Whether a number that reads as zero is written as zero.
fn is_zero(text: &str) -> bool {
    let digits = text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E'));
    !digits.into_iter().any(|byte| matches!(byte, b'1'..=b'9'))
}

/// PostgreSQL's words for truth.
pub(super) fn boolean(text: &str) -> Result<bool, Fault> {
    let word = text.trim();
    let is = |words: &[&str]| words.iter().any(|w| word.eq_ignore_ascii_case(w));
    if is(&["true", "t", "yes", "y", "on", "1"]) {
        Ok(true)
    } else if is(&["false", "f", "no", "n", "off", "0"]) {
        Ok(false)
    } else {
        Err(invalid("boolean", text))
    }
}

/// The fault "invalid input syntax".
#[cold]
pub(super) fn invalid(type_name: &str, text: &str) -> Fault {
    Fault::value(format!(
        "invalid input syntax for type {type_name}: {}",
        shown(text)
    ))
}

/// A text that may be a number or the base64 of one.
#[cold]
pub(super) fn ambiguous(text: &str) -> Fault {
    Fault::value(format!(
        "{} may be a number or the base64 of one: the source must say decimal.handling.mode",
        shown(text)
    ))
}

/// The fault "out of range".
#[cold]
pub(super) fn out_of_range(type_name: &str, text: &str) -> Fault {
    let is_moment = ["date", "time", "timestamp", "interval"].contains(&type_name);
    let state = if is_moment {
        SqlState("22008")
    } else {
        SqlState::NUMERIC_OUT_OF_RANGE
    };
    Fault::value(format!(
        "value {} is out of range for type {type_name}",
        shown(text)
    ))
    .with_state(state)
}

/// `text` in quotes, cut for a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("\"{}...\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}
