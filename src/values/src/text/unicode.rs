//! `unistr`: escapes of code points.

use std::iter::Peekable;
use std::str::Chars;
use tidemark_common::{Error, Result, SqlState};

fn invalid_escape() -> Error {
    Error::user(SqlState::SYNTAX_ERROR, "invalid Unicode escape")
        .with_hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
}

fn invalid_pair() -> Error {
    Error::user(SqlState::SYNTAX_ERROR, "invalid Unicode surrogate pair")
}

/// Appends a text with its escapes read.
///
/// Errors: `42601` for what is no escape, `22023` for what is no code point.
pub fn unistr(text: &str, out: &mut String) -> Result<()> {
    let mut characters = text.chars().peekable();
    let mut first_half: Option<u32> = None;
    while let Some(c) = characters.next() {
        let plain = if c != '\\' {
            Some(c)
        } else {
            characters.next_if_eq(&'\\')
        };
        if let Some(c) = plain {
            if first_half.is_some() {
                return Err(invalid_pair());
            }
            out.push(c);
            continue;
        }
        let code = escape(&mut characters)?;
        if code == 0 || code > 0x10_ffff {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("invalid Unicode code point: {code:04X}"),
            ));
        }
        match (first_half, code) {
            (Some(high), 0xdc00..=0xdfff) => {
                let code = ((high & 0x3ff) << 10) + 0x10000 + (code & 0x3ff);
                out.extend(char::from_u32(code));
                first_half = None;
            }
            (Some(_), _) | (None, 0xdc00..=0xdfff) => return Err(invalid_pair()),
            (None, 0xd800..=0xdbff) => first_half = Some(code),
            (None, code) => out.extend(char::from_u32(code)),
        }
    }
    if first_half.is_some() {
        return Err(invalid_pair());
    }
    Ok(())
}

/// The number behind a backslash.
fn escape(characters: &mut Peekable<Chars<'_>>) -> Result<u32> {
    let digits = match characters.peek() {
        Some('u') => 4,
        Some('U') => 8,
        Some('+') => 6,
        _ => 0,
    };
    let digits = if digits > 0 {
        characters.next();
        digits
    } else {
        4
    };
    let mut code = 0u32;
    for _ in 0..digits {
        let digit = characters.next().and_then(|c| c.to_digit(16));
        code = code << 4 | digit.ok_or_else(invalid_escape)?;
    }
    Ok(code)
}
