//! Functions of texts.

mod format;
pub mod normal;
mod quote;
mod unicode;

pub use format::{Arguments, format};
pub use quote::{quote_ident, quote_literal};
use tidemark_common::{Error, Result, SqlState, check_interrupt};
pub use unicode::unistr;

use crate::letters;

fn negative_length() -> Error {
    Error::user(SqlState("22011"), "negative substring length not allowed")
}

/// What `substring` takes: so many characters or bytes are skipped, and so many taken; all of them
/// if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Left out at the start.
    pub skip: usize,
    /// Taken after that.
    pub take: Option<usize>,
}

/// The part that begins at `start`, from 1, of that length. A start before the text takes from the
/// length. Errors: `22011` for a negative length.
pub fn part(start: i32, length: Option<i32>) -> Result<Part> {
    let skip = (start.max(1) - 1) as usize;
    let take = match length {
        None => None,
        Some(length) if length < 0 => return Err(negative_length()),
        Some(length) => match start.checked_add(length) {
            // Beyond every text.
            None => None,
            Some(end) => {
                let count = i64::from(end) - i64::from(start.max(1));
                Some(usize::try_from(count).unwrap_or(0))
            }
        },
    };
    Ok(Part { skip, take })
}

/// The first byte of character `n`, from 0, or the text's length.
fn offset(text: &str, n: usize) -> usize {
    // Characters are at least a byte.
    if n >= text.len() {
        return text.len();
    }
    if text.is_ascii() {
        return n;
    }
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// `substring`. Errors: `22011` for a negative length.
pub fn substring(text: &str, start: i32, length: Option<i32>) -> Result<&str> {
    let Part { skip, take } = part(start, length)?;
    let rest = &text[offset(text, skip)..];
    Ok(match take {
        None => rest,
        Some(n) => &rest[..offset(rest, n)],
    })
}

/// Where the text goes on behind what `overlay` replaces. Errors: `22011`, `22003`.
pub fn overlay_end(start: i32, length: i32) -> Result<i32> {
    if start <= 0 {
        return Err(negative_length());
    }
    start
        .checked_add(length)
        .ok_or_else(|| Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "integer out of range"))
}

/// `overlay`, into `out`. Errors: `22011` for a start before the first character, `22003`.
pub fn overlay(
    text: &str,
    new: &str,
    start: i32,
    length: Option<i32>,
    out: &mut String,
) -> Result<()> {
    let length = length.unwrap_or_else(|| new.chars().count() as i32);
    let end = overlay_end(start, length)?;
    out.push_str(substring(text, 1, Some(start - 1))?);
    out.push_str(new);
    out.push_str(substring(text, end, None)?);
    Ok(())
}

/// `left`: so many characters, or all but so many.
pub fn left(text: &str, n: i32) -> &str {
    let keep = if n < 0 {
        text.chars()
            .count()
            .saturating_sub(n.unsigned_abs() as usize)
    } else {
        n as usize
    };
    &text[..offset(text, keep)]
}

/// `right`: so many characters, or all but so many.
pub fn right(text: &str, n: i32) -> &str {
    let skip = if n == i32::MIN {
        // Whose negative is itself to PostgreSQL.
        0
    } else if n < 0 {
        n.unsigned_abs() as usize
    } else {
        text.chars().count().saturating_sub(n as usize)
    };
    &text[offset(text, skip)..]
}

/// `lpad` and `rpad` to `length` characters, into `out`.
///
/// Errors: `54000` for a length that no text may have.
pub fn pad(
    text: &str,
    length: i32,
    fill: &str,
    before: bool,
    check: impl Fn(usize) -> Result<()>,
    out: &mut String,
) -> Result<()> {
    let wanted = length.max(0) as usize;
    let has = text.chars().count();
    if has >= wanted || fill.is_empty() {
        out.push_str(&text[..offset(text, wanted)]);
        return Ok(());
    }
    if wanted > BYTES_MAX / 4 {
        return Err(too_large());
    }
    let characters = fill.chars().count();
    let (times, more) = ((wanted - has) / characters, (wanted - has) % characters);
    let rest = &fill[..offset(fill, more)];
    check(text.len() + times * fill.len() + rest.len())?;
    if !before {
        out.push_str(text);
    }
    for time in 0..times {
        if time % FILLS_UNCHECKED == 0 {
            check_interrupt()?;
        }
        out.push_str(fill);
    }
    out.push_str(rest);
    if before {
        out.push_str(text);
    }
    Ok(())
}

/// How often a text is filled up before it is looked again whether anybody waits.
const FILLS_UNCHECKED: usize = 1 << 16;

/// Bytes that a value may have.
const BYTES_MAX: usize = 1 << 30;

fn too_large() -> Error {
    Error::user(SqlState("54000"), "requested length too large")
}

/// `initcap`: capitals where a word of letters and digits begins, small letters within.
pub fn initcap(text: &str, out: &mut String) {
    let mut in_word = false;
    for c in text.chars() {
        out.push(if in_word {
            letters::lower(c)
        } else {
            letters::upper(c)
        });
        in_word = letters::is_alnum(c);
    }
}

/// `chr`. Errors: `54000` and `22023` for a number that is no character.
pub fn chr(code: i32) -> Result<char> {
    let limit = |message: String| Error::user(SqlState("54000"), message);
    match u32::try_from(code) {
        Err(_) => Err(Error::user(
            SqlState::INVALID_PARAMETER,
            "character number must be positive",
        )),
        Ok(0) => Err(limit("null character not permitted".into())),
        Ok(code) if code > 0x10_ffff => Err(limit(format!(
            "requested character too large for encoding: {code}"
        ))),
        Ok(code) => char::from_u32(code).ok_or_else(|| {
            limit(format!(
                "requested character not valid for encoding: {code}"
            ))
        }),
    }
}

/// `split_part`: field `n` from the left, from 1, or from the right, from -1.
///
/// Errors: `22023` for field 0.
pub fn split_part<'a>(text: &'a str, separator: &str, n: i32) -> Result<&'a str> {
    if n == 0 {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            "field position must not be zero",
        ));
    }
    if text.is_empty() {
        return Ok("");
    }
    if separator.is_empty() {
        return Ok(if n == 1 || n == -1 { text } else { "" });
    }
    // Fields are short: bytes are looked at one by one, a longer separator is prepared for.
    match separator.as_bytes() {
        [one] if n > 0 => Ok(byte_field(text, *one, n.unsigned_abs() as usize)),
        _ => Ok(field(n, || text.split(separator))),
    }
}

/// The field from the left, from 1, between characters of one byte.
fn byte_field(text: &str, separator: u8, mut n: usize) -> &str {
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte == separator {
            n -= 1;
            if n == 0 {
                return &text[start..at];
            }
            start = at + 1;
        }
    }
    if n == 1 { &text[start..] } else { "" }
}

/// The fields are told from the left, whichever end they are counted from.
fn field<'a, F: Iterator<Item = &'a str>>(n: i32, fields: impl Fn() -> F) -> &'a str {
    let nth = n.unsigned_abs() as usize - 1;
    let nth = if n > 0 {
        Some(nth)
    } else {
        fields().count().checked_sub(nth + 1)
    };
    nth.and_then(|n| fields().nth(n)).unwrap_or("")
}

/// `translate`, into `out`: characters of `from` become those of `to`, or nothing.
pub fn translate(text: &str, from: &str, to: &str, out: &mut String) {
    for c in text.chars() {
        match from.chars().position(|f| f == c) {
            None => out.push(c),
            Some(at) => out.extend(to.chars().nth(at)),
        }
    }
}

/// A LIKE pattern with another escape character, or none, as one with the backslash, into `out`.
///
/// Errors: `22025` for an escape of more than one character.
pub fn like_escape(pattern: &str, escape: &str, out: &mut String) -> Result<()> {
    let mut characters = escape.chars();
    let escape = characters.next();
    if characters.next().is_some() {
        return Err(Error::user(SqlState("22025"), "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    if escape == Some('\\') {
        out.push_str(pattern);
        return Ok(());
    }
    let mut escaped = false;
    for c in pattern.chars() {
        if Some(c) == escape && !escaped {
            out.push('\\');
            escaped = true;
            continue;
        }
        if c == '\\' && !escaped {
            out.push('\\');
        }
        out.push(c);
        escaped = false;
    }
    Ok(())
}
