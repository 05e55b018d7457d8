//! JSON text to a value, or checked only (for the type `json`).
//!
//! One pass: what the grammar meets goes straight into a [`Builder`]. The grammar is PostgreSQL's
//! recursive descent with the recursion turned into the loop of [`read`], so that the first error
//! it finds is the one that PostgreSQL finds.

use tidemark_common::error::{Error, Result, SqlState};

use super::builder::Builder;
use super::lexer::{Lexer, Token};

/// How many levels of arrays and objects text may nest. PostgreSQL's limit follows from its stack:
/// with the default `max_stack_depth` it lies a little higher.
pub const DEPTH_MAX: usize = 12_000;

/// Parses JSON text. Errors 22P02 and 22P05 as PostgreSQL's; 22003 of a number beyond `numeric`;
/// 54001 beyond [`DEPTH_MAX`].
pub fn parse(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + 2);
    parse_to(&mut Builder::new(), text, &mut out)?;
    Ok(out)
}

/// [`parse`] with a builder to reuse, appended to `out`. What the builder held is dropped.
pub fn parse_to(builder: &mut Builder, text: &str, out: &mut Vec<u8>) -> Result<()> {
    builder.clear();
    read(Lexer::new(text, true)?, builder)?;
    builder.finish_to(out);
    Ok(())
}

/// Checks text as the input of the type `json`: [`parse`]'s errors, but for what only decoding
/// finds (`\u0000`, surrogates out of place, numbers beyond `numeric`).
pub fn validate(text: &str) -> Result<()> {
    read(Lexer::new(text, false)?, &mut Nothing)
}

/// What the grammar tells as it goes.
trait Events {
    fn begin(&mut self, object: bool);
    fn end(&mut self, object: bool) -> Result<()>;
    fn key(&mut self, key: &str) -> Result<()>;
    fn string(&mut self, text: &str) -> Result<()>;
    fn number(&mut self, text: &str) -> Result<()>;
    fn null(&mut self);
    fn bool(&mut self, value: bool);
}

impl Events for Builder {
    fn begin(&mut self, object: bool) {
        if object {
            self.begin_object()
        } else {
            self.begin_array()
        }
    }
    fn end(&mut self, object: bool) -> Result<()> {
        if object {
            self.end_object()
        } else {
            self.end_array()
        }
    }
    fn key(&mut self, key: &str) -> Result<()> {
        Builder::key(self, key)
    }
    fn string(&mut self, text: &str) -> Result<()> {
        Builder::string(self, text)
    }
    fn number(&mut self, text: &str) -> Result<()> {
        self.number_text(text)
    }
    fn null(&mut self) {
        Builder::null(self);
    }
    fn bool(&mut self, value: bool) {
        Builder::bool(self, value);
    }
}

/// Listens to nothing.
struct Nothing;

impl Events for Nothing {
    fn begin(&mut self, _: bool) {}
    fn end(&mut self, _: bool) -> Result<()> {
        Ok(())
    }
    fn key(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
    fn string(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
    fn number(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
    fn null(&mut self) {}
    fn bool(&mut self, _: bool) {}
}

/// Reads one value and the end of the text.
fn read(mut lexer: Lexer<'_>, events: &mut impl Events) -> Result<()> {
    // Whether each open container is an object.
    let mut open: Vec<bool> = Vec::new();
    loop {
        let began = match lexer.token() {
            Token::ObjectStart => Some(true),
            Token::ArrayStart => Some(false),
            _ => None,
        };
        if let Some(object) = began {
            if open.len() == DEPTH_MAX {
                return Err(too_deep());
            }
            events.begin(object);
            open.push(object);
            lexer.advance()?;
            if begin_contents(&mut lexer, events, object)? {
                continue;
            }
        } else {
            read_scalar(&mut lexer, events)?;
        }
        if !after_value(&mut lexer, events, &mut open)? {
            break;
        }
    }
    match lexer.token() {
        Token::End => Ok(()),
        _ => Err(lexer.expected("end of input")),
    }
}

/// After an opening bracket: goes to the first value; false where there is none.
fn begin_contents(lexer: &mut Lexer<'_>, events: &mut impl Events, object: bool) -> Result<bool> {
    match (object, lexer.token()) {
        (true, Token::String) => read_key(lexer, events)?,
        (true, Token::ObjectEnd) => return Ok(false),
        (true, _) => return Err(lexer.expected("string or \"}\"")),
        (false, Token::ArrayEnd) => return Ok(false),
        (false, _) => {}
    }
    Ok(true)
}

/// After a value, or the opening bracket of an empty container: closes what closes, and goes to
/// the next value; false where everything is closed.
fn after_value(
    lexer: &mut Lexer<'_>,
    events: &mut impl Events,
    open: &mut Vec<bool>,
) -> Result<bool> {
    while let Some(&object) = open.last() {
        match (object, lexer.token()) {
            (true, Token::ObjectEnd) | (false, Token::ArrayEnd) => {
                open.pop();
                lexer.advance()?;
                events.end(object)?;
            }
            (_, Token::Comma) => {
                lexer.advance()?;
                if object {
                    if lexer.token() != Token::String {
                        return Err(lexer.expected("string"));
                    }
                    read_key(lexer, events)?;
                }
                return Ok(true);
            }
            (true, _) => return Err(lexer.expected("\",\" or \"}\"")),
            (false, _) => return Err(lexer.expected("\",\" or \"]\"")),
        }
    }
    Ok(false)
}

/// Reads a key, which the token is, and its colon.
fn read_key(lexer: &mut Lexer<'_>, events: &mut impl Events) -> Result<()> {
    events.key(lexer.string())?;
    lexer.advance()?;
    if lexer.token() != Token::Colon {
        return Err(lexer.expected("\":\""));
    }
    lexer.advance()
}

fn read_scalar(lexer: &mut Lexer<'_>, events: &mut impl Events) -> Result<()> {
    match lexer.token() {
        Token::String => events.string(lexer.string())?,
        Token::True => events.bool(true),
        Token::False => events.bool(false),
        Token::Null => events.null(),
        Token::Number => {
            // Of two errors PostgreSQL reports the one in the next token.
            let text = lexer.lexeme();
            lexer.advance()?;
            return events.number(text);
        }
        _ => return Err(lexer.expected("JSON value")),
    }
    lexer.advance()
}

#[cold]
fn too_deep() -> Error {
    Error::user(
        SqlState::STATEMENT_TOO_COMPLEX,
        "stack depth limit exceeded",
    )
    .with_hint(format!(
        "Nest at most {DEPTH_MAX} levels of arrays and objects."
    ))
}
