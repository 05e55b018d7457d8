//! The tokens of JSON text, and PostgreSQL's errors about them.
//!
//! The lexer follows PostgreSQL's in what it calls one token where something is wrong, because the
//! error quotes it: a run of letters, digits, `_` and non-ASCII characters is one token, and so is
//! a number with whatever letters stick to it.

use tidemark_common::error::{Error, Result, SqlState};

/// What stands at the lexer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Comma,
    Colon,
    String,
    Number,
    True,
    False,
    Null,
    End,
}

/// Reads tokens one after the other.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Where the token begins and ends.
    start: usize,
    end: usize,
    token: Token,
    /// Whether escapes are decoded, and therefore checked for what they mean.
    decode: bool,
    /// The string, where the token is one with escapes.
    decoded: String,
    has_escapes: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer at the first token of `text`; `decode` where the strings will be used.
    pub(super) fn new(text: &'a str, decode: bool) -> Result<Lexer<'a>> {
        let mut lexer = Lexer {
            text,
            start: 0,
            end: 0,
            token: Token::End,
            decode,
            decoded: String::new(),
            has_escapes: false,
        };
        lexer.advance()?;
        Ok(lexer)
    }

    /// The token.
    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// The token as it is written.
    pub(super) fn lexeme(&self) -> &'a str {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    /// The string, where the token is one (without escapes decoded, where that is not asked for).
    pub(super) fn string(&self) -> &str {
        if self.has_escapes {
            return &self.decoded;
        }
        self.text
            .get(self.start + 1..self.end - 1)
            .unwrap_or_default()
    }

    /// Goes to the next token.
    pub(super) fn advance(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        let rest = &bytes[self.end..];
        let space = rest
            .iter()
            .position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
        let Some(space) = space else {
            (self.start, self.end) = (bytes.len(), bytes.len());
            self.token = Token::End;
            return Ok(());
        };
        self.start += space + (self.end - self.start);
        self.end = self.start + 1;
        self.token = match bytes[self.start] {
            b'{' => Token::ObjectStart,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayStart,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => return self.read_string(),
            b'-' => return self.read_number(self.start + 1),
            b'0'..=b'9' => return self.read_number(self.start),
            _ => {
                let word = word_length(&bytes[self.start..]);
                self.end = self.start + word.max(1);
                match self.lexeme() {
                    "true" => Token::True,
                    "false" => Token::False,
                    "null" => Token::Null,
                    _ => return Err(self.invalid_token()),
                }
            }
        };
        Ok(())
    }

    fn read_number(&mut self, first: usize) -> Result<()> {
        let bytes = self.text.as_bytes();
        let digits = |at: usize| {
            let rest = &bytes[at..];
            rest.iter()
                .position(|b| !b.is_ascii_digit())
                .unwrap_or(rest.len())
        };
        let mut at = first;
        let integer = digits(at);
        let mut valid = integer > 0;
        // A number does not go on after a leading zero: what follows is garbage of the same token.
        at += if bytes.get(at) == Some(&b'0') {
            1
        } else {
            integer
        };
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            valid &= fraction > 0;
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            let exponent = digits(at);
            valid &= exponent > 0;
            at += exponent;
        }
        let garbage = word_length(&bytes[at..]);
        self.end = at + garbage;
        self.token = Token::Number;
        if !valid || garbage > 0 {
            return Err(self.invalid_token());
        }
        Ok(())
    }

    fn read_string(&mut self) -> Result<()> {
        self.token = Token::String;
        self.has_escapes = false;
        let mut high_surrogate = None;
        let mut at = self.start + 1;
        loop {
            let rest = &self.text.as_bytes()[at..];
            let plain = rest
                .iter()
                .position(|&b| b < b' ' || b == b'"' || b == b'\\');
            let plain = plain.unwrap_or(rest.len());
            let stop = rest.get(plain).copied();
            if high_surrogate.is_some() && (plain > 0 || stop == Some(b'"')) {
                return Err(lone_low_surrogate());
            }
            if self.has_escapes && self.decode {
                self.decoded.push_str(&self.text[at..at + plain]);
            }
            at += plain;
            match stop {
                Some(b'"') => {
                    self.end = at + 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    if !self.has_escapes && self.decode {
                        self.has_escapes = true;
                        self.decoded.clear();
                        self.decoded.push_str(&self.text[self.start + 1..at]);
                    }
                    at = self.read_escape(at + 1, &mut high_surrogate)?;
                }
                Some(byte) => {
                    return Err(syntax(format!(
                        "Character with value 0x{byte:02x} must be escaped."
                    )));
                }
                None => {
                    self.end = at;
                    return Err(self.invalid_token());
                }
            }
        }
    }

    /// Reads an escape, `at` behind its backslash; returns where it ends.
    fn read_escape(&mut self, at: usize, high_surrogate: &mut Option<u32>) -> Result<usize> {
        let Some(escaped) = self.text.get(at..).and_then(|rest| rest.chars().next()) else {
            self.end = at;
            return Err(self.invalid_token());
        };
        if escaped == 'u' {
            let code = self.read_hex(at + 1)?;
            if self.decode {
                self.push_code(code, high_surrogate)?;
            }
            return Ok(at + 5);
        }
        if high_surrogate.is_some() {
            return Err(lone_low_surrogate());
        }
        let decoded = match escaped {
            '"' | '\\' | '/' => escaped,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            _ => {
                return Err(syntax(format!(
                    "Escape sequence \"\\{escaped}\" is invalid."
                )));
            }
        };
        if self.decode {
            self.decoded.push(decoded);
        }
        Ok(at + 1)
    }

    fn read_hex(&mut self, at: usize) -> Result<u32> {
        let mut code = 0;
        for at in at..at + 4 {
            let Some(&byte) = self.text.as_bytes().get(at) else {
                self.end = at;
                return Err(self.invalid_token());
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                let detail = "\"\\u\" must be followed by four hexadecimal digits.";
                return Err(syntax(detail));
            };
            code = code << 4 | digit;
        }
        Ok(code)
    }

    fn push_code(&mut self, code: u32, high_surrogate: &mut Option<u32>) -> Result<()> {
        let code = match (code, *high_surrogate) {
            (0xD800..=0xDBFF, Some(_)) => {
                let detail = "Unicode high surrogate must not follow a high surrogate.";
                return Err(syntax(detail));
            }
            (0xD800..=0xDBFF, None) => {
                *high_surrogate = Some(code);
                return Ok(());
            }
            (0xDC00..=0xDFFF, Some(high)) => {
                *high_surrogate = None;
                0x10000 + ((high & 0x3FF) << 10) + (code & 0x3FF)
            }
            (0xDC00..=0xDFFF, None) | (_, Some(_)) => return Err(lone_low_surrogate()),
            (0, None) => {
                let message = "unsupported Unicode escape sequence";
                return Err(Error::user(SqlState("22P05"), message)
                    .with_detail("\\u0000 cannot be converted to text."));
            }
            (_, None) => code,
        };
        self.decoded
            .push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    fn invalid_token(&self) -> Error {
        syntax(format!("Token \"{}\" is invalid.", self.lexeme()))
    }

    /// The error that `wanted` should stand here instead of the token.
    pub(super) fn expected(&self, wanted: &str) -> Error {
        if self.token == Token::End {
            return syntax("The input string ended unexpectedly.");
        }
        syntax(format!(
            "Expected {wanted}, but found \"{}\".",
            self.lexeme()
        ))
    }
}

fn syntax(detail: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_TEXT, "invalid input syntax for type json").with_detail(detail)
}

fn lone_low_surrogate() -> Error {
    syntax("Unicode low surrogate must follow a high surrogate.")
}

fn word_length(bytes: &[u8]) -> usize {
    let in_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
    bytes
        .iter()
        .position(|b| !in_word(b))
        .unwrap_or(bytes.len())
}
