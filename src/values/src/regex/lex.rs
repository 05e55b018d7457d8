//! Patterns to tokens. What a character means depends on where it stands (in the pattern, within
//! `{}`, within `[]`) and on the flavour; the lexer keeps the place.

use super::{Fault, Flags};
use crate::letters::Class;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token {
    /// Nothing read yet.
    Start,
    End,
    Plain(u32),
    Digit(u32),
    /// The quantifiers; `true` if they prefer more.
    Star(bool),
    Plus(bool),
    Optional(bool),
    BoundOpen,
    BoundClose(bool),
    Comma,
    Or,
    /// `(`; `true` if it captures.
    Open(bool),
    Close,
    /// `[` or `[^`.
    Bracket(bool),
    BracketEnd,
    Range,
    Collating,
    Equivalence,
    NamedClass,
    ElementEnd,
    Any,
    LineStart,
    LineEnd,
    WordStart,
    WordEnd,
    WordEdge,
    NoWordEdge,
    TextStart,
    TextEnd,
    Look {
        ahead: bool,
        positive: bool,
    },
    Back(u32),
    Class(Class),
    NotClass(Class),
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Main,
    Literal,
    Bound,
    Bracket,
    /// Within `[. .]`, `[= =]` or `[: :]`.
    Element(char),
}

pub(super) struct Lexer {
    text: Vec<char>,
    at: usize,
    place: Place,
    last: Token,
    /// The token that stands here.
    pub token: Token,
    pub flags: Flags,
    /// Capturing parentheses so far: an escape of more digits is a reference if it names one.
    pub groups: u32,
}

impl Lexer {
    pub fn new(pattern: &str, flags: Flags) -> Result<Lexer, Fault> {
        let mut lexer = Lexer {
            text: pattern.chars().collect(),
            at: 0,
            place: Place::Main,
            last: Token::Start,
            token: Token::Start,
            flags,
            groups: 0,
        };
        lexer.prefixes()?;
        if lexer.flags.quote {
            lexer.place = Place::Literal;
        }
        lexer.next()?;
        Ok(lexer)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek(0) == Some(c);
        self.at += usize::from(found);
        found
    }

    /// Directors (`***=`) and embedded options (`(?i)`).
    fn prefixes(&mut self) -> Result<(), Fault> {
        if self.flags.quote {
            return Ok(());
        }
        if self.text.starts_with(&['*', '*', '*']) && self.text.len() > 3 {
            match self.text[3] {
                '?' => return Err(Fault::Version),
                '=' => {
                    self.flags = Flags {
                        quote: true,
                        extended: false,
                        advanced: false,
                        expanded: false,
                        newline_stops: false,
                        newline_anchors: false,
                        ..self.flags
                    };
                    self.at = 4;
                    return Ok(());
                }
                ':' => {
                    (self.flags.extended, self.flags.advanced) = (true, true);
                    self.at = 4;
                }
                _ => return Err(Fault::Quantifier),
            }
        }
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
        if !self.flags.advanced
            || self.peek(0) != Some('(')
            || self.peek(1) != Some('?')
            || !letter(self.peek(2))
        {
            return Ok(());
        }
        self.at += 2;
        while let Some(c) = self.peek(0).filter(|c| c.is_ascii_alphabetic()) {
            if !self.flags.set(c) {
                return Err(Fault::Option);
            }
            self.at += 1;
        }
        if !self.eat(')') {
            return Err(Fault::Option);
        }
        if self.flags.quote {
            self.flags.expanded = false;
            (self.flags.newline_stops, self.flags.newline_anchors) = (false, false);
        }
        Ok(())
    }

    /// White space and comments of the expanded syntax.
    fn skip(&mut self) {
        loop {
            while self
                .peek(0)
                .is_some_and(|c| c.is_ascii_whitespace() || c == '\x0b')
            {
                self.at += 1;
            }
            if self.peek(0) != Some('#') {
                return;
            }
            while self.peek(0).is_some_and(|c| c != '\n') {
                self.at += 1;
            }
        }
    }

    /// Goes to the next token.
    pub fn next(&mut self) -> Result<(), Fault> {
        self.last = self.token;
        self.token = self.read()?;
        Ok(())
    }

    fn read(&mut self) -> Result<Token, Fault> {
        loop {
            if self.flags.expanded && matches!(self.place, Place::Main | Place::Bound) {
                self.skip();
            }
            let Some(c) = self.peek(0) else {
                return match self.place {
                    Place::Main | Place::Literal => Ok(Token::End),
                    Place::Bound => Err(Fault::Braces),
                    Place::Bracket | Place::Element(_) => Err(Fault::Brackets),
                };
            };
            self.at += 1;
            let place = self.place;
            return match place {
                Place::Literal => Ok(Token::Plain(u32::from(c))),
                Place::Bound => self.bound(c),
                Place::Bracket => self.bracket(c),
                Place::Element(end) if c == end && self.eat(']') => {
                    self.place = Place::Bracket;
                    Ok(Token::ElementEnd)
                }
                Place::Element(_) => Ok(Token::Plain(u32::from(c))),
                Place::Main if !self.flags.extended => self.basic(c),
                Place::Main => match self.extended(c)? {
                    Some(token) => Ok(token),
                    // A comment.
                    None => continue,
                },
            };
        }
    }

    /// Within `{}`.
    fn bound(&mut self, c: char) -> Result<Token, Fault> {
        match c {
            '0'..='9' => Ok(Token::Digit(u32::from(c) - u32::from('0'))),
            ',' => Ok(Token::Comma),
            '}' if self.flags.extended => {
                self.place = Place::Main;
                let less = self.flags.advanced && self.eat('?');
                Ok(Token::BoundClose(!less))
            }
            '\\' if !self.flags.extended && self.eat('}') => {
                self.place = Place::Main;
                Ok(Token::BoundClose(true))
            }
            _ => Err(Fault::Repetition),
        }
    }

    /// Within `[]`.
    fn bracket(&mut self, c: char) -> Result<Token, Fault> {
        let first = matches!(self.last_read(), Token::Bracket(_));
        let plain = Ok(Token::Plain(u32::from(c)));
        match c {
            ']' if !first => {
                self.place = Place::Main;
                Ok(Token::BracketEnd)
            }
            '\\' if self.flags.advanced => match self.escape()? {
                token @ (Token::Plain(_) | Token::Class(_) | Token::NotClass(_)) => Ok(token),
                _ => Err(Fault::Escape),
            },
            '-' if !first && self.peek(0) != Some(']') => Ok(Token::Range),
            '[' => {
                let (end, token) = match self.peek(0) {
                    None => return Err(Fault::Brackets),
                    Some('.') => ('.', Token::Collating),
                    Some('=') => ('=', Token::Equivalence),
                    Some(':') => (':', Token::NamedClass),
                    Some(_) => return plain,
                };
                self.at += 1;
                self.place = Place::Element(end);
                Ok(token)
            }
            _ => plain,
        }
    }

    /// The token before the one that is being read.
    fn last_read(&self) -> Token {
        self.last
    }

    /// The start of a bracket, or `[[:<:]]` and `[[:>:]]`.
    fn bracket_start(&mut self) -> Token {
        let rest: String = self.text[self.at..].iter().take(6).collect();
        match rest.as_str() {
            "[:<:]]" => {
                self.at += 6;
                Token::WordStart
            }
            "[:>:]]" => {
                self.at += 6;
                Token::WordEnd
            }
            _ => {
                self.place = Place::Bracket;
                Token::Bracket(!self.eat('^'))
            }
        }
    }

    fn more(&mut self) -> bool {
        !(self.flags.advanced && self.eat('?'))
    }

    /// Extended and advanced expressions; `None` for a comment.
    fn extended(&mut self, c: char) -> Result<Option<Token>, Fault> {
        Ok(Some(match c {
            '|' => Token::Or,
            '*' => Token::Star(self.more()),
            '+' => Token::Plus(self.more()),
            '?' => Token::Optional(self.more()),
            '{' => {
                if self.flags.expanded {
                    self.skip();
                }
                if !self.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                    Token::Plain(u32::from(c))
                } else {
                    self.place = Place::Bound;
                    Token::BoundOpen
                }
            }
            '(' if self.flags.advanced && self.eat('?') => return self.special_parenthesis(),
            '(' => Token::Open(true),
            ')' => Token::Close,
            '[' => self.bracket_start(),
            '.' => Token::Any,
            '^' => Token::LineStart,
            '$' => Token::LineEnd,
            '\\' => match self.peek(0) {
                None => return Err(Fault::Escape),
                Some(_) if self.flags.advanced => self.escape()?,
                Some(c) => {
                    self.at += 1;
                    Token::Plain(u32::from(c))
                }
            },
            c => Token::Plain(u32::from(c)),
        }))
    }

    /// After `(?`.
    fn special_parenthesis(&mut self) -> Result<Option<Token>, Fault> {
        let c = self.peek(0).ok_or(Fault::Quantifier)?;
        self.at += 1;
        let look = |ahead, positive| Ok(Some(Token::Look { ahead, positive }));
        match c {
            ':' => Ok(Some(Token::Open(false))),
            '#' => {
                while self.peek(0).is_some_and(|c| c != ')') {
                    self.at += 1;
                }
                self.eat(')');
                Ok(None)
            }
            '=' => look(true, true),
            '!' => look(true, false),
            '<' if self.eat('=') => look(false, true),
            '<' if self.eat('!') => look(false, false),
            _ => Err(Fault::Quantifier),
        }
    }

    /// Basic expressions.
    fn basic(&mut self, c: char) -> Result<Token, Fault> {
        let last = self.last_read();
        let plain = Token::Plain(u32::from(c));
        Ok(match c {
            '*' if matches!(last, Token::Start | Token::Open(_) | Token::LineStart) => plain,
            '*' => Token::Star(true),
            '[' => self.bracket_start(),
            '.' => Token::Any,
            '^' if matches!(last, Token::Start | Token::Open(_)) => Token::LineStart,
            '$' => {
                if self.flags.expanded {
                    self.skip();
                }
                match (self.peek(0), self.peek(1)) {
                    (None, _) | (Some('\\'), Some(')')) => Token::LineEnd,
                    _ => plain,
                }
            }
            '\\' => {
                let c = self.peek(0).ok_or(Fault::Escape)?;
                self.at += 1;
                match c {
                    '{' => {
                        self.place = Place::Bound;
                        Token::BoundOpen
                    }
                    '(' => Token::Open(true),
                    ')' => Token::Close,
                    '<' => Token::WordStart,
                    '>' => Token::WordEnd,
                    '1'..='9' => Token::Back(u32::from(c) - u32::from('0')),
                    c => Token::Plain(u32::from(c)),
                }
            }
            _ => plain,
        })
    }

    /// After a backslash of an advanced expression.
    fn escape(&mut self) -> Result<Token, Fault> {
        let c = self.peek(0).ok_or(Fault::Escape)?;
        self.at += 1;
        let in_range = |c: u32| {
            if c <= 0x7fff_fffe {
                Ok(c)
            } else {
                Err(Fault::Escape)
            }
        };
        Ok(match c {
            c if !c.is_ascii_alphanumeric() => Token::Plain(u32::from(c)),
            'a' => Token::Plain(7),
            'A' => Token::TextStart,
            'b' => Token::Plain(8),
            'B' => Token::Plain(u32::from('\\')),
            'c' => {
                let c = self.peek(0).ok_or(Fault::Escape)?;
                self.at += 1;
                Token::Plain(u32::from(c) & 0o37)
            }
            'd' => Token::Class(Class::Digit),
            'D' => Token::NotClass(Class::Digit),
            'e' => Token::Plain(0o33),
            'f' => Token::Plain(0x0c),
            'm' => Token::WordStart,
            'M' => Token::WordEnd,
            'n' => Token::Plain(0x0a),
            'r' => Token::Plain(0x0d),
            's' => Token::Class(Class::Space),
            'S' => Token::NotClass(Class::Space),
            't' => Token::Plain(0x09),
            'u' => Token::Plain(in_range(self.digits(16, 4, 4)?)?),
            'U' => Token::Plain(in_range(self.digits(16, 8, 8)?)?),
            'v' => Token::Plain(0x0b),
            'w' => Token::Class(Class::Word),
            'W' => Token::NotClass(Class::Word),
            'x' => Token::Plain(in_range(self.digits(16, 1, 255)?)?),
            'y' => Token::WordEdge,
            'Y' => Token::NoWordEdge,
            'Z' => Token::TextEnd,
            '0'..='9' => self.digit_escape(c)?,
            _ => return Err(Fault::Escape),
        })
    }

    /// `\1`: a reference if it is one digit or names a group, else a character in octal.
    fn digit_escape(&mut self, c: char) -> Result<Token, Fault> {
        let after_first = self.at;
        if c != '0' {
            self.at -= 1;
            let number = self.digits(10, 1, 255)?;
            if self.at == after_first || (1..=self.groups).contains(&number) {
                return Ok(Token::Back(number));
            }
            self.at = after_first;
        }
        self.at -= 1;
        let mut code = self.digits(8, 1, 3)?;
        if code > 0xff {
            self.at -= 1;
            code >>= 3;
        }
        Ok(Token::Plain(code))
    }

    fn digits(&mut self, base: u32, least: usize, most: usize) -> Result<u32, Fault> {
        let (mut number, mut count) = (0u32, 0);
        while count < most {
            let Some(digit) = self.peek(0).and_then(|c| c.to_digit(base)) else {
                break;
            };
            number = number.wrapping_mul(base).wrapping_add(digit);
            self.at += 1;
            count += 1;
        }
        if count < least {
            return Err(Fault::Escape);
        }
        Ok(number)
    }
}
