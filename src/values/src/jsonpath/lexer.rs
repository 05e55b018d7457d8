//! The tokens of a path. What PostgreSQL's scanner refuses is refused in its words; it says near
//! which piece of the text it was, which of a name is what ended it.

use std::mem;
use tidemark_common::{Error, Result, SqlState};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A character that stands for itself.
    Sign(char),
    And,
    Or,
    Not,
    /// `**`
    Any,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
    Variable(String),
    Text(String),
    Integer(String),
    Decimal(String),
    /// A name or a keyword, as it is written.
    Word(String),
    End,
}

impl Token {
    /// Whether it is a keyword, given in lower case. Constants must be in lower case themselves.
    pub fn is_word(&self, keyword: &str) -> bool {
        let Token::Word(word) = self else {
            return false;
        };
        match keyword {
            "null" | "true" | "false" => word == keyword,
            _ => word.eq_ignore_ascii_case(keyword),
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// What the scanner saw last.
    near: &'a str,
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

fn is_special(c: char) -> bool {
    "?%$.[]{}()|&!=<>@#,*:-+/".contains(c)
}

/// What names are made of.
fn is_other(c: char) -> bool {
    !is_blank(c) && !is_special(c) && !matches!(c, '\\' | '"')
}

fn length(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

fn digits(text: &str) -> usize {
    length(text, |c| c.is_ascii_digit())
}

/// A number at the beginning of a text: how long it is, and whether it is an integer.
fn number(text: &str) -> Option<(usize, bool)> {
    let whole = match digits(text) {
        // No further digits follow a zero.
        n if n > 1 && text.starts_with('0') => 1,
        n => n,
    };
    let rest = &text[whole..];
    let fraction = match rest.strip_prefix('.') {
        Some(rest) => 1 + digits(rest),
        None => 0,
    };
    (whole > 0 || fraction > 1).then_some((whole + fraction, fraction == 0))
}

/// What the rules for numbers make of the beginning of a text, and its length.
enum Numeral {
    Integer,
    Decimal,
    /// `1e+`
    Unfinished,
    /// `1a`
    Junk,
}

fn numeral(text: &str) -> Option<(usize, Numeral)> {
    let (mut end, is_integer) = number(text)?;
    let mut is_real = false;
    let rest = &text[end..];
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        match digits(&exponent[sign..]) {
            0 if sign == 1 => return Some((end + 2, Numeral::Unfinished)),
            0 => {}
            n => (end, is_real) = (end + 1 + sign + n, true),
        }
    }
    match text[end..].chars().next() {
        Some(c) if is_other(c) => Some((end + c.len_utf8(), Numeral::Junk)),
        _ if is_integer && !is_real => Some((end, Numeral::Integer)),
        _ => Some((end, Numeral::Decimal)),
    }
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer {
            text,
            at: 0,
            near: "",
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Goes on by so many bytes; they are what was seen last.
    fn take(&mut self, length: usize) -> &'a str {
        self.near = &self.rest()[..length];
        self.at += length;
        self.near
    }

    /// An error at what was seen last.
    pub fn error(&self, what: &str) -> Error {
        let message = match self.near {
            "" => format!("{what} at end of jsonpath input"),
            near => format!("{what} at or near \"{near}\" of jsonpath input"),
        };
        Error::user(SqlState::SYNTAX_ERROR, message)
    }

    /// The next token.
    pub fn next(&mut self) -> Result<Token> {
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                self.near = "";
                return Ok(Token::End);
            };
            if is_blank(first) {
                self.take(length(rest, is_blank));
                continue;
            }
            if rest.starts_with("/*") {
                self.comment()?;
                continue;
            }
            if let Some(token) = self.number(rest)? {
                return Ok(token);
            }
            if first == '"' {
                self.take(1);
                return Ok(Token::Text(self.quoted()?));
            }
            if rest.starts_with("$\"") {
                self.take(2);
                return Ok(Token::Variable(self.quoted()?));
            }
            if first == '$' {
                let name = length(&rest[1..], is_other);
                if name > 0 {
                    return Ok(Token::Variable(self.take(1 + name)[1..].to_string()));
                }
            }
            if !is_special(first) {
                // A comment swallows the name that it ends.
                match self.word()? {
                    Some(word) => return Ok(Token::Word(word)),
                    None => continue,
                }
            }
            return Ok(self.sign(rest, first));
        }
    }

    fn comment(&mut self) -> Result<()> {
        self.take(2);
        match self.rest().find("*/") {
            Some(end) => {
                self.take(end + 2);
                Ok(())
            }
            None => {
                self.near = "";
                Err(self.error("unexpected end of comment"))
            }
        }
    }

    /// A number, if nothing longer is a name.
    fn number(&mut self, rest: &'a str) -> Result<Option<Token>> {
        let Some((end, numeral)) = numeral(rest) else {
            return Ok(None);
        };
        if length(rest, is_other) > end {
            return Ok(None);
        }
        let text = self.take(end).to_string();
        match numeral {
            Numeral::Integer => Ok(Some(Token::Integer(text))),
            Numeral::Decimal => Ok(Some(Token::Decimal(text))),
            Numeral::Unfinished => Err(self.error("invalid numeric literal")),
            Numeral::Junk => Err(self.error("trailing junk after numeric literal")),
        }
    }

    fn sign(&mut self, rest: &str, first: char) -> Token {
        const LONG: [(&str, Token); 8] = [
            ("&&", Token::And),
            ("||", Token::Or),
            ("**", Token::Any),
            ("<=", Token::LessOrEqual),
            ("==", Token::Equal),
            ("<>", Token::NotEqual),
            ("!=", Token::NotEqual),
            (">=", Token::GreaterOrEqual),
        ];
        for (sign, token) in LONG {
            if rest.starts_with(sign) {
                self.take(2);
                return token;
            }
        }
        self.take(1);
        match first {
            '!' => Token::Not,
            '<' => Token::Less,
            '>' => Token::Greater,
            sign => Token::Sign(sign),
        }
    }

    /// What stands up to the closing quote.
    fn quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let rest = self.rest();
            match rest.chars().next() {
                None => {
                    self.near = "";
                    return Err(self.error("unexpected end of quoted string"));
                }
                Some('"') => {
                    self.take(1);
                    return Ok(text);
                }
                Some('\\') => self.escape(&mut text)?,
                Some(_) => text.push_str(self.take(length(rest, |c| !matches!(c, '\\' | '"')))),
            }
        }
    }

    /// A name; `None` where a comment follows it at once.
    fn word(&mut self) -> Result<Option<String>> {
        let mut word = String::new();
        loop {
            let rest = self.rest();
            match rest.chars().next() {
                Some('\\') => self.escape(&mut word)?,
                Some(c) if is_blank(c) => {
                    self.take(length(rest, is_blank));
                    return Ok(Some(word));
                }
                Some('/') if rest.starts_with("/*") => {
                    self.comment()?;
                    return Ok(None);
                }
                Some(c) if is_other(c) => word.push_str(self.take(length(rest, is_other))),
                _ => {
                    self.near = "";
                    return Ok(Some(word));
                }
            }
        }
    }

    /// What a backslash stands for.
    fn escape(&mut self, out: &mut String) -> Result<()> {
        let rest = self.rest();
        match rest[1..].chars().next() {
            Some('u') => return self.unicode(out),
            Some('x') => {
                let hex = length(&rest[2..], |c| c.is_ascii_hexdigit()).min(2);
                let digits = &self.take(2 + hex)[2..];
                if hex < 2 {
                    return Err(self.error("invalid hex character sequence"));
                }
                return push(out, u32::from_str_radix(digits, 16).unwrap_or(0));
            }
            None | Some('\n') => {
                self.take(1);
                return Err(self.error("unexpected end after backslash"));
            }
            Some(c) => out.push(match c {
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                c => c,
            }),
        }
        let length = rest[1..].chars().next().map_or(0, char::len_utf8);
        self.take(1 + length);
        Ok(())
    }

    /// `\u0041` and `\u{41}`, several of them in a row: halves of a pair are next to each other.
    fn unicode(&mut self, out: &mut String) -> Result<()> {
        let start = self.at;
        let mut codes = Vec::new();
        while let Some(rest) = self.rest().strip_prefix("\\u") {
            let is_hex = |c: char| c.is_ascii_hexdigit();
            let (digits, used) = match rest.strip_prefix('{') {
                Some(braced) => {
                    let n = length(braced, is_hex).min(6);
                    let closed = n > 0 && braced[n..].starts_with('}');
                    (closed.then_some(&braced[..n]), 1 + n + usize::from(closed))
                }
                None => {
                    let n = length(rest, is_hex).min(4);
                    ((n == 4).then_some(&rest[..n]), n)
                }
            };
            self.take(2 + used);
            let Some(digits) = digits else {
                self.near = &self.text[start..self.at];
                return Err(self.error("invalid unicode sequence"));
            };
            codes.push(u32::from_str_radix(digits, 16).unwrap_or(0));
        }
        let mut high = None;
        for code in codes {
            match (code, high.take()) {
                (0xD800..=0xDBFF, None) => high = Some(code),
                (0xD800..=0xDBFF, Some(_)) => return Err(surrogate("high", "not ")),
                (0xDC00..=0xDFFF, Some(first)) => {
                    push(out, 0x10000 + ((first & 0x3FF) << 10) + (code & 0x3FF))?;
                }
                (0xDC00..=0xDFFF, None) | (_, Some(_)) => return Err(surrogate("low", "")),
                (code, None) => push(out, code)?,
            }
        }
        match high {
            Some(_) => Err(surrogate("low", "")),
            None => Ok(()),
        }
    }
}

fn surrogate(which: &str, not: &str) -> Error {
    Error::user(
        SqlState::INVALID_TEXT,
        "invalid input syntax for type jsonpath",
    )
    .with_detail(format!(
        "Unicode {which} surrogate must {not}follow a high surrogate."
    ))
}

fn push(out: &mut String, code: u32) -> Result<()> {
    if code == 0 {
        return Err(
            Error::user(SqlState("22P05"), "unsupported Unicode escape sequence")
                .with_detail("\\u0000 cannot be converted to text."),
        );
    }
    let Some(c) = char::from_u32(code) else {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "invalid Unicode code point",
        ));
    };
    out.push(c);
    Ok(())
}

impl Token {
    /// Takes the text out of it.
    pub fn into_text(self) -> String {
        match self {
            Token::Variable(text)
            | Token::Text(text)
            | Token::Integer(text)
            | Token::Decimal(text)
            | Token::Word(text) => text,
            _ => String::new(),
        }
    }

    /// Leaves the end behind.
    pub fn taken(&mut self) -> Token {
        mem::replace(self, Token::End)
    }
}
