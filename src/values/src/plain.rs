//! The text forms of integers, floats and booleans: PostgreSQL's input functions.

use std::num::IntErrorKind::{NegOverflow, PosOverflow};
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use tidemark_common::{Error, Result, SqlState};

fn invalid(name: &str, text: &str) -> Error {
    Error::user(
        SqlState::INVALID_TEXT,
        format!("invalid input syntax for type {name}: \"{text}\""),
    )
}

/// White space as C has it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| matches!(c, ' ' | '\t'..='\r'))
}

/// An integer of the type that PostgreSQL calls `name`.
///
/// Errors: `22P02` for a text that is none, `22003` for one that does not fit.
pub fn read_integer<T: FromStr<Err = ParseIntError>>(text: &str, name: &str) -> Result<T> {
    trimmed(text).parse().map_err(|e: ParseIntError| {
        let kind: &IntErrorKind = e.kind();
        if matches!(kind, PosOverflow | NegOverflow) {
            Error::user(
                SqlState::NUMERIC_OUT_OF_RANGE,
                format!("value \"{text}\" is out of range for type {name}"),
            )
        } else {
            invalid(name, text)
        }
    })
}

/// A float of the type that PostgreSQL calls `name`. `edge` tells of a value whether it is zero or
/// infinite: what its digits say then must be the same.
///
/// Errors: `22P02` for a text that is none, `22003` for digits that the type has no value for.
pub fn read_float<T: FromStr + Copy>(
    text: &str,
    edge: impl Fn(T) -> bool,
    name: &str,
) -> Result<T> {
    let digits = trimmed(text);
    let value: T = digits.parse().map_err(|_| invalid(name, text))?;
    if !edge(value) {
        return Ok(value);
    }
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let is_word = !digits.bytes().any(|b| b.is_ascii_digit());
    let is_zero = !mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'));
    if is_word || is_zero {
        return Ok(value);
    }
    Err(Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("\"{digits}\" is out of range for type {name}"),
    ))
}

/// A boolean: a word of PostgreSQL's for one, or as much of its beginning as no other word has.
///
/// Errors: `22P02` for a text that is none.
pub fn read_boolean(text: &str) -> Result<bool> {
    let word = trimmed(text).to_ascii_lowercase();
    let begins = |whole: &str| !word.is_empty() && whole.starts_with(&word);
    match word.as_str() {
        "on" | "1" => Ok(true),
        "of" | "off" | "0" => Ok(false),
        _ if begins("true") || begins("yes") => Ok(true),
        _ if begins("false") || begins("no") => Ok(false),
        _ => Err(invalid("boolean", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_in_postgresql() {
        assert_eq!(read_integer::<i32>(" 5\n", "integer").unwrap(), 5);
        let state = |text: &str| read_integer::<i32>(text, "integer").unwrap_err().state().0;
        assert_eq!(["", "1.5", "x", "1 2"].map(state), ["22P02"; 4]);
        assert_eq!(["99999999999", "-2147483649"].map(state), ["22003"; 2]);

        let double = |text: &str| {
            let edge = |v: f64| v == 0.0 || v.is_infinite();
            read_float(text, edge, "double precision").map_err(|e| e.state().0)
        };
        assert_eq!(double(" .5 "), Ok(0.5));
        assert_eq!(double("Inf"), Ok(f64::INFINITY));
        assert_eq!(double("-infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(double("-0e9"), Ok(-0.0));
        assert!(double("nan").unwrap().is_nan());
        for text in ["1e400", "-1e400", "1e-400"] {
            assert_eq!(double(text), Err("22003"), "{text}");
        }
        for text in ["", "1e", "infinit", "1 2"] {
            assert_eq!(double(text), Err("22P02"), "{text}");
        }

        for text in [" t ", "TRU", "y", "yes", "on", "1"] {
            assert!(read_boolean(text).unwrap(), "{text}");
        }
        for text in ["f", "no", "n", "of", "OFF", "0"] {
            assert!(!read_boolean(text).unwrap(), "{text}");
        }
        for text in ["", "o", "2", "truee"] {
            assert!(read_boolean(text).is_err(), "{text}");
        }
    }
}
