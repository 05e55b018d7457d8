//! `format('%s %2$-10s %I %L %%', ..)`: PostgreSQL's, with positions, widths and its errors. A text
//! longer than a value may be is refused before it is written.

use super::{BYTES_MAX, quote_ident, quote_literal, too_large};
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

/// What a format is filled with.
pub trait Arguments {
    /// How many there are.
    fn count(&self) -> usize;
    /// The text of one, from 0; `None` for NULL.
    fn text(&self, i: usize) -> Option<&str>;
    /// An error if there may not be a text of so many bytes.
    fn check(&self, bytes: usize) -> Result<()>;
}

/// Appends the text of a format with its arguments.
///
/// Errors: `22023` for what is no format, `22004` for NULL as an identifier, `22P02` for a width
/// that is no number, `54000` for a text that is too large.
pub fn format(format: &str, arguments: &impl Arguments, out: &mut String) -> Result<()> {
    let before = out.len();
    let mut characters = format.chars().peekable();
    let mut arguments = Next { arguments, next: 0 };
    let mut text = String::new();
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
        text.clear();
        match (specifier.kind, value) {
            ('s', value) => text.push_str(value.unwrap_or_default()),
            ('I', Some(value)) => quote_ident(value, &mut text),
            ('I', None) => {
                return Err(Error::user(
                    SqlState("22004"),
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            ('L', Some(value)) => quote_literal(value, &mut text),
            ('L', None) => text.push_str("NULL"),
            (other, _) => {
                let message = format!("unrecognized format() type specifier \"{other}\"");
                return Err(invalid(message).with_hint("For a single \"%\" use \"%%\"."));
            }
        }
        let blanks = (width.unsigned_abs() as usize).saturating_sub(text.chars().count());
        let bytes = out.len() - before + text.len() + blanks;
        if bytes > BYTES_MAX {
            return Err(too_large());
        }
        arguments.arguments.check(bytes)?;
        let behind = specifier.left || width < 0;
        if behind {
            out.push_str(&text);
        }
        out.extend(std::iter::repeat_n(' ', blanks));
        if !behind {
            out.push_str(&text);
        }
    }
    Ok(())
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
struct Next<'a, A> {
    arguments: &'a A,
    next: usize,
}

impl<'a, A: Arguments> Next<'a, A> {
    /// The argument at a position, or the next one; the next one is then the one behind it.
    fn take(&mut self, position: Option<usize>) -> Result<Option<&'a str>> {
        let at = position.map_or(self.next, |p| p - 1);
        self.next = at + 1;
        if at >= self.arguments.count() {
            return Err(invalid("too few arguments for format()"));
        }
        Ok(self.arguments.text(at))
    }

    fn width(&mut self, position: Option<usize>) -> Result<i64> {
        let Some(text) = self.take(position)? else {
            return Ok(0);
        };
        let width: Option<i32> = text.parse().ok();
        if width == Some(i32::MIN) {
            return Err(Error::user(
                SqlState::NUMERIC_OUT_OF_RANGE,
                "number is out of range",
            ));
        }
        width.map(i64::from).ok_or_else(|| {
            let message = format!("invalid input syntax for type integer: \"{text}\"");
            Error::user(SqlState::INVALID_TEXT, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Arguments for Vec<Option<String>> {
        fn count(&self) -> usize {
            self.len()
        }
        fn text(&self, i: usize) -> Option<&str> {
            self[i].as_deref()
        }
        fn check(&self, _bytes: usize) -> Result<()> {
            Ok(())
        }
    }

    fn format_text(text: &str, arguments: &[Option<String>]) -> Result<String> {
        let mut out = String::new();
        format(text, &arguments.to_vec(), &mut out).map(|()| out)
    }

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
