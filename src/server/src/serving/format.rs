//! `format('%s %2$-10s %I %L %%', ..)`: PostgreSQL's, with positions, widths and its errors. A text
//! longer than a value may be is refused before it is written.

use super::functions::quote_ident;
use std::iter::Peekable;
use std::str::Chars;
use tidemark_common::{Error, Result, SqlState};

/// What one `%` asks for.
#[derive(Default)]
struct Specifier {
    /// Which argument, from 1 on; the next one by default.
    position: Option<usize>,
    /// Blanks behind the text rather than before it.
    left: bool,
    width: Width,
    kind: char,
}

#[derive(Default)]
enum Width {
    #[default]
    None,
    Fixed(usize),
    /// An argument's value: this one, or the next one.
    Argument(Option<usize>),
}

fn invalid(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, message)
}

fn unterminated() -> Error {
    invalid("unterminated format() type specifier").with_hint("For a single \"%\" use \"%%\".")
}

/// The text of a format with its arguments.
pub fn format_text(format: &str, arguments: &[Option<String>]) -> Result<String> {
    let mut out = String::new();
    let mut characters = format.chars().peekable();
    let mut arguments = Arguments { arguments, next: 0 };
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if characters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let specifier = specifier(&mut characters)?;
        let width = match specifier.width {
            Width::None => 0,
            Width::Fixed(n) => n as i64,
            Width::Argument(at) => arguments.width(at)?,
        };
        let value = arguments.take(specifier.position)?;
        let text = match (specifier.kind, value) {
            ('s', value) => value.unwrap_or_default().to_string(),
            ('I', Some(value)) => quote_ident(value),
            ('I', None) => {
                return Err(Error::user(
                    SqlState("22004"),
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            ('L', Some(value)) => format!("'{}'", value.replace('\'', "''")),
            ('L', None) => "NULL".into(),
            (other, _) => {
                let message = format!("unrecognized format() type specifier \"{other}\"");
                return Err(invalid(message).with_hint("For a single \"%\" use \"%%\"."));
            }
        };
        let blanks = (width.unsigned_abs() as usize).saturating_sub(text.chars().count());
        let bytes = out.len() + text.len() + blanks;
        if bytes as u64 > tidemark_operator::functions::BYTES_MAX {
            return Err(Error::user(SqlState("54000"), "requested length too large"));
        }
        let behind = specifier.left || width < 0;
        if behind {
            out.push_str(&text);
        }
        out.push_str(&" ".repeat(blanks));
        if !behind {
            out.push_str(&text);
        }
    }
    Ok(out)
}

/// Reads what stands behind a `%`.
fn specifier(characters: &mut Peekable<Chars<'_>>) -> Result<Specifier> {
    let mut found = Specifier::default();
    // A number is a position when a dollar follows, else the width.
    if let Some(n) = number(characters)? {
        if characters.next_if_eq(&'$').is_some() {
            found.position = Some(position(n)?);
        } else {
            found.width = Width::Fixed(n);
        }
    }
    if matches!(found.width, Width::None) {
        while characters.next_if_eq(&'-').is_some() {
            found.left = true;
        }
        if characters.next_if_eq(&'*').is_some() {
            let at = number(characters)?;
            if at.is_some() && characters.next_if_eq(&'$').is_none() {
                return Err(invalid("width argument position must be ended by \"$\""));
            }
            found.width = Width::Argument(at.map(position).transpose()?);
        } else if let Some(n) = number(characters)? {
            found.width = Width::Fixed(n);
        }
    }
    found.kind = characters.next().ok_or_else(unterminated)?;
    Ok(found)
}

fn position(n: usize) -> Result<usize> {
    if n == 0 {
        return Err(invalid(
            "format specifies argument 0, but arguments are numbered from 1",
        ));
    }
    Ok(n)
}

/// Digits as a number, if there are any.
fn number(characters: &mut Peekable<Chars<'_>>) -> Result<Option<usize>> {
    let mut value = None;
    while let Some(c) = characters.next_if(char::is_ascii_digit) {
        let digit = c as usize - '0' as usize;
        let n = value.unwrap_or(0) * 10 + digit;
        if n > i32::MAX as usize {
            return Err(Error::user(
                SqlState::NUMERIC_OUT_OF_RANGE,
                "number is out of range",
            ));
        }
        value = Some(n);
    }
    Ok(value)
}

/// The arguments behind the format, and which one is next.
struct Arguments<'a> {
    arguments: &'a [Option<String>],
    next: usize,
}

impl<'a> Arguments<'a> {
    /// The argument at a position, or the next one; the next one is then the one behind it.
    fn take(&mut self, position: Option<usize>) -> Result<Option<&'a str>> {
        let at = position.map_or(self.next, |p| p - 1);
        self.next = at + 1;
        let argument = self.arguments.get(at);
        let argument = argument.ok_or_else(|| invalid("too few arguments for format()"))?;
        Ok(argument.as_deref())
    }

    fn width(&mut self, position: Option<usize>) -> Result<i64> {
        let Some(text) = self.take(position)? else {
            return Ok(0);
        };
        let width: Option<i32> = text.parse().ok();
        width.map(i64::from).ok_or_else(|| {
            let message = format!("invalid input syntax for type integer: \"{text}\"");
            Error::user(SqlState::INVALID_TEXT, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_postgresqls_manual() {
        let arguments = |texts: &[&str]| -> Vec<Option<String>> {
            texts.iter().map(|t| Some(t.to_string())).collect()
        };
        for (format, given, expected) in [
            ("Hello %s", &["World"][..], "Hello World"),
            ("Testing %s, %s, %%", &["one", "two"], "Testing one, two, %"),
            (
                "INSERT INTO %I VALUES(%L)",
                &["Foo bar", "O'Reilly"],
                "INSERT INTO \"Foo bar\" VALUES('O''Reilly')",
            ),
            ("|%10s|", &["foo"], "|       foo|"),
            ("|%-10s|", &["foo"], "|foo       |"),
            ("|%*s|", &["10", "foo"], "|       foo|"),
            ("|%*s|", &["-10", "foo"], "|foo       |"),
            ("|%-*s|", &["10", "foo"], "|foo       |"),
            (
                "Testing %3$s, %2$s, %1$s",
                &["one", "two", "three"],
                "Testing three, two, one",
            ),
            ("|%*2$s|", &["foo", "10", "bar"], "|       bar|"),
            ("|%1$*2$s|", &["foo", "10", "bar"], "|       foo|"),
            (
                "Testing %3$s, %2$s, %s",
                &["one", "two", "three"],
                "Testing three, two, three",
            ),
        ] {
            assert_eq!(format_text(format, &arguments(given)).unwrap(), expected);
        }
        assert_eq!(format_text("%s %L", &[None, None]).unwrap(), " NULL");
    }

    #[test]
    fn what_cannot_be_formatted_is_an_error() {
        let some = Some("x".to_string());
        for (format, state) in [
            ("%s%2000000000s", "54000"),
            ("%99999999999s", "22003"),
            ("%s%s%s", "22023"),
            ("%3$s", "22023"),
            ("%0$s", "22023"),
            ("%d", "22023"),
            ("%", "22023"),
            ("%1$", "22023"),
        ] {
            let e = format_text(format, &[some.clone(), some.clone()]).unwrap_err();
            assert_eq!(e.state(), SqlState(state), "{format}: {e}");
        }
        assert_eq!(
            format_text("%I", &[None]).unwrap_err().state(),
            SqlState("22004")
        );
    }
}
