//! Numbers at the beginning of a text, as C's `strtol` and `strtod` read them, which PostgreSQL's
//! rules for dates build on.

use super::SECOND;
use super::failure::Failure;

/// A number with optional blanks and sign, and what follows; 0 if there are no digits, `None` if it
/// does not fit.
pub(super) fn leading_i64(text: &[u8]) -> Option<(i64, &[u8])> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return Some((0, text));
    }
    let mut value = 0i64;
    for digit in &digits[..count] {
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(digit)?
        } else {
            value.checked_add(digit)?
        };
    }
    Some((value, &digits[count..]))
}

/// As [`leading_i64`], for 32 bits.
pub(super) fn leading_i32(text: &[u8]) -> Option<(i32, &[u8])> {
    let (value, rest) = leading_i64(text)?;
    Some((i32::try_from(value).ok()?, rest))
}

/// The value of decimal digits alone, as large as fits.
pub(super) fn digits(text: &[u8]) -> i32 {
    text.iter().fold(0i32, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(i32::from(digit.wrapping_sub(b'0').min(9)))
    })
}

/// A fraction `.123`, the whole text; `.` alone is 0.
pub(super) fn fraction(text: &[u8]) -> Result<f64, Failure> {
    if text == b"." {
        return Ok(0.0);
    }
    if text.first() != Some(&b'.') || !text[1..].iter().all(u8::is_ascii_digit) {
        return Err(Failure::Format);
    }
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Failure::Format)
}

/// A fraction of a second in microseconds, rounded; up to a whole second.
pub(super) fn fraction_micros(text: &[u8]) -> Result<i32, Failure> {
    Ok((fraction(text)? * SECOND as f64).round_ties_even() as i32)
}
