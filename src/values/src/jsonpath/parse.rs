//! The grammar, by recursive descent. An error is at the first token with which no path goes on, as
//! PostgreSQL's parser has it.
//!
//! ```text
//! path      := [strict | lax] or
//! or        := and (|| and)*
//! and       := condition (&& condition)*
//! condition := ! delimited | exists(sum) | sum [compared | starts with .. | like_regex ..]
//!            | (or) [is unknown]
//! sum       := product ((+ | -) product)*
//! product   := signed ((* | / | %) signed)*
//! signed    := (+ | -) signed | primary accessor* | (sum) accessor* | (or) accessor+
//! ```
//!
//! Whether parentheses hold a value or a condition is known once they are closed.

use super::lexer::{Lexer, Token};
use super::{Arithmetic, Chain, Comparison, DEPTH_MAX, Method, Op, Path, Pattern, PatternFlags};
use super::{Sign, print};
use crate::numeric::Numeric;
use crate::plain::read_integer;
use crate::regex::{Flags, Regex};
use std::rc::Rc;
use tidemark_common::{Error, Result, SqlState};

pub(super) fn parse(text: &str) -> Result<Path> {
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    if token == Token::End {
        return Err(Error::user(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type jsonpath: \"{text}\""),
        ));
    }
    let mut parser = Parser {
        lexer,
        token,
        depth: 0,
    };
    let lax = match &parser.token {
        token if token.is_word("strict") => false,
        token if token.is_word("lax") => true,
        _ => {
            return parser.whole(true);
        }
    };
    parser.advance()?;
    parser.whole(lax)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token to be read.
    token: Token,
    /// How deep the place is.
    depth: usize,
}

/// What was read, and how deep it nests.
struct Part {
    chain: Chain,
    depth: usize,
    is_condition: bool,
}

impl Part {
    fn value(op: Op) -> Part {
        Part {
            chain: vec![op],
            depth: 1,
            is_condition: false,
        }
    }
}

fn too_deep() -> Error {
    Error::user(
        SqlState::STATEMENT_TOO_COMPLEX,
        "stack depth limit exceeded",
    )
    .with_hint(format!("Nest a path at most {DEPTH_MAX} levels."))
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn unexpected<T>(&self) -> Result<T> {
        Err(self.lexer.error("syntax error"))
    }

    fn is(&self, sign: char) -> bool {
        self.token == Token::Sign(sign)
    }

    fn expect(&mut self, sign: char) -> Result<()> {
        if !self.is(sign) {
            return self.unexpected();
        }
        self.advance()?;
        Ok(())
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if !self.token.is_word(word) {
            return self.unexpected();
        }
        self.advance()?;
        Ok(())
    }

    fn whole(&mut self, lax: bool) -> Result<Path> {
        let part = self.or()?;
        if self.token != Token::End {
            return self.unexpected();
        }
        check(&part.chain, Place::default())?;
        Ok(Path {
            lax,
            chain: part.chain,
        })
    }

    /// Reads what is a level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH_MAX {
            return Err(too_deep());
        }
        self.depth += 1;
        let part = read(self);
        self.depth -= 1;
        part
    }

    /// An operation over parts.
    fn over(&self, op: Op, depths: &[usize], is_condition: bool) -> Result<Part> {
        let depth = depths.iter().max().map_or(1, |d| d + 1);
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        Ok(Part {
            chain: vec![op],
            depth,
            is_condition,
        })
    }

    fn or(&mut self) -> Result<Part> {
        let mut left = self.and()?;
        while left.is_condition && self.token == Token::Or {
            self.advance()?;
            let right = self.condition_of(Self::and)?;
            let depths = [left.depth, right.depth];
            left = self.over(Op::Or(left.chain, right.chain), &depths, true)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Part> {
        let mut left = self.condition()?;
        while left.is_condition && self.token == Token::And {
            self.advance()?;
            let right = self.condition_of(Self::condition)?;
            let depths = [left.depth, right.depth];
            left = self.over(Op::And(left.chain, right.chain), &depths, true)?;
        }
        Ok(left)
    }

    /// What must be a condition.
    fn condition_of(&mut self, read: impl FnOnce(&mut Self) -> Result<Part>) -> Result<Part> {
        let part = read(self)?;
        if !part.is_condition {
            return self.unexpected();
        }
        Ok(part)
    }

    fn condition(&mut self) -> Result<Part> {
        if self.token == Token::Not {
            self.advance()?;
            let part = if self.token.is_word("exists") {
                self.exists()?
            } else {
                self.parenthesized_condition()?
            };
            return self.over(Op::Not(part.chain), &[part.depth], true);
        }
        if self.token.is_word("exists") {
            return self.exists();
        }
        let left = self.sum(true)?;
        if left.is_condition {
            if self.token.is_word("is") {
                self.advance()?;
                self.expect_word("unknown")?;
                return self.over(Op::IsUnknown(left.chain), &[left.depth], true);
            }
            return Ok(left);
        }
        let comparison = match self.token {
            Token::Equal => Comparison::Equal,
            Token::NotEqual => Comparison::NotEqual,
            Token::Less => Comparison::Less,
            Token::Greater => Comparison::Greater,
            Token::LessOrEqual => Comparison::LessOrEqual,
            Token::GreaterOrEqual => Comparison::GreaterOrEqual,
            _ if self.token.is_word("starts") => return self.starts_with(left),
            _ if self.token.is_word("like_regex") => return self.like_regex(left),
            _ => return Ok(left),
        };
        self.advance()?;
        let right = self.sum(false)?;
        let depths = [left.depth, right.depth];
        let op = Op::Compare(comparison, left.chain, right.chain);
        self.over(op, &depths, true)
    }

    fn exists(&mut self) -> Result<Part> {
        self.advance()?;
        self.expect('(')?;
        let part = self.nested(|p| p.sum(false))?;
        self.expect(')')?;
        self.over(Op::Exists(part.chain), &[part.depth], true)
    }

    /// `(or)`, a condition.
    fn parenthesized_condition(&mut self) -> Result<Part> {
        self.expect('(')?;
        let part = self.nested(|p| p.condition_of(Self::or))?;
        self.expect(')')?;
        Ok(part)
    }

    fn starts_with(&mut self, left: Part) -> Result<Part> {
        self.advance()?;
        self.expect_word("with")?;
        let initial = match self.token.taken() {
            Token::Text(text) => Op::Text(text),
            Token::Variable(name) => Op::Variable(name),
            _ => return self.unexpected(),
        };
        self.advance()?;
        let op = Op::StartsWith(left.chain, vec![initial]);
        self.over(op, &[left.depth], true)
    }

    fn text(&mut self) -> Result<String> {
        match self.token {
            Token::Text(_) => Ok(self.advance()?.into_text()),
            _ => self.unexpected(),
        }
    }

    fn like_regex(&mut self, left: Part) -> Result<Part> {
        self.advance()?;
        let text = self.text()?;
        let letters = if self.token.is_word("flag") {
            self.advance()?;
            self.text()?
        } else {
            String::new()
        };
        let flags = pattern_flags(&letters)?;
        let regex = Rc::new(Regex::new(&text, flags.of_regex()?)?);
        let pattern = Pattern { text, flags, regex };
        self.over(Op::LikeRegex(left.chain, pattern), &[left.depth], true)
    }

    /// A sum; or, where it `may` be, a condition in parentheses.
    fn sum(&mut self, may: bool) -> Result<Part> {
        let mut left = self.product(may)?;
        while !left.is_condition && (self.is('+') || self.is('-')) {
            let op = match self.advance()? {
                Token::Sign('+') => Arithmetic::Add,
                _ => Arithmetic::Subtract,
            };
            let right = self.product(false)?;
            let depths = [left.depth, right.depth];
            left = self.over(Op::Binary(op, left.chain, right.chain), &depths, false)?;
        }
        Ok(left)
    }

    fn product(&mut self, may: bool) -> Result<Part> {
        let mut left = self.signed(may)?;
        while !left.is_condition {
            let op = match self.token {
                Token::Sign('*') => Arithmetic::Multiply,
                Token::Sign('/') => Arithmetic::Divide,
                Token::Sign('%') => Arithmetic::Modulo,
                _ => break,
            };
            self.advance()?;
            let right = self.signed(false)?;
            let depths = [left.depth, right.depth];
            left = self.over(Op::Binary(op, left.chain, right.chain), &depths, false)?;
        }
        Ok(left)
    }

    fn signed(&mut self, may: bool) -> Result<Part> {
        let sign = match self.token {
            Token::Sign('+') => Sign::Plus,
            Token::Sign('-') => Sign::Minus,
            _ => return self.accessed(may),
        };
        self.advance()?;
        let part = self.nested(|p| p.signed(false))?;
        // The sign of a constant is its own.
        if let [Op::Number(number)] = part.chain.as_slice() {
            return Ok(Part::value(Op::Number(match sign {
                Sign::Plus => number.clone(),
                Sign::Minus => number.negated(),
            })));
        }
        self.over(Op::Unary(sign, part.chain), &[part.depth], false)
    }

    /// A value and its accessors.
    fn accessed(&mut self, may: bool) -> Result<Part> {
        let mut part = if self.is('(') {
            self.advance()?;
            let part = self.nested(Self::or)?;
            self.expect(')')?;
            part
        } else {
            Part::value(self.primary()?)
        };
        while let Some((op, depth)) = self.accessor()? {
            part.chain.push(op);
            // What is behind it is evaluated within it.
            part.depth = (part.depth + 1).max(part.chain.len() + depth);
            part.is_condition = false;
            if part.depth > DEPTH_MAX {
                return Err(too_deep());
            }
        }
        if part.is_condition && !may {
            return self.unexpected();
        }
        Ok(part)
    }

    fn primary(&mut self) -> Result<Op> {
        let op = match &self.token {
            Token::Text(text) => Op::Text(text.clone()),
            Token::Variable(name) => Op::Variable(name.clone()),
            Token::Integer(text) | Token::Decimal(text) => Op::Number(Numeric::parse(text)?),
            Token::Sign('$') => Op::Root,
            Token::Sign('@') => Op::Current,
            token if token.is_word("null") => Op::Null,
            token if token.is_word("true") => Op::Bool(true),
            token if token.is_word("false") => Op::Bool(false),
            token if token.is_word("last") => Op::Last,
            _ => return self.unexpected(),
        };
        self.advance()?;
        Ok(op)
    }

    /// An accessor, if one follows, and how deep it nests.
    fn accessor(&mut self) -> Result<Option<(Op, usize)>> {
        match self.token {
            Token::Sign('.') => {
                self.advance()?;
                Ok(Some((self.member()?, 0)))
            }
            Token::Sign('[') => {
                self.advance()?;
                self.subscripts().map(Some)
            }
            Token::Sign('?') => {
                self.advance()?;
                let part = self.parenthesized_condition()?;
                Ok(Some((Op::Filter(part.chain), part.depth)))
            }
            _ => Ok(None),
        }
    }

    /// What follows a point.
    fn member(&mut self) -> Result<Op> {
        match &self.token {
            Token::Text(_) => Ok(Op::Key(self.advance()?.into_text())),
            Token::Sign('*') => {
                self.advance()?;
                Ok(Op::AnyKey)
            }
            Token::Any => {
                self.advance()?;
                self.levels()
            }
            Token::Word(_) => {
                let word = self.advance()?.into_text();
                if !self.is('(') {
                    return Ok(Op::Key(word));
                }
                self.method(word)
            }
            _ => self.unexpected(),
        }
    }

    fn method(&mut self, word: String) -> Result<Op> {
        const METHODS: [Method; 7] = [
            Method::Type,
            Method::Size,
            Method::Double,
            Method::Ceiling,
            Method::Floor,
            Method::Abs,
            Method::KeyValue,
        ];
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        let op = if is("datetime") {
            self.advance()?;
            let template = match self.token {
                Token::Text(_) => Some(self.text()?),
                _ => None,
            };
            Op::Datetime(template)
        } else {
            let Some(method) = METHODS.into_iter().find(|m| is(m.name())) else {
                return self.unexpected();
            };
            self.advance()?;
            Op::Method(method)
        };
        self.expect(')')?;
        Ok(op)
    }

    /// `{first to last}` behind `.**`.
    fn levels(&mut self) -> Result<Op> {
        if !self.is('{') {
            return Ok(Op::AnyLevel(0, u32::MAX));
        }
        self.advance()?;
        let first = self.level()?;
        let last = if self.token.is_word("to") {
            self.advance()?;
            self.level()?
        } else {
            first
        };
        self.expect('}')?;
        Ok(Op::AnyLevel(first, last))
    }

    fn level(&mut self) -> Result<u32> {
        let level = match &self.token {
            Token::Integer(text) => read_integer::<i32>(text, "integer")?.unsigned_abs(),
            token if token.is_word("last") => u32::MAX,
            _ => return self.unexpected(),
        };
        self.advance()?;
        Ok(level)
    }

    fn subscripts(&mut self) -> Result<(Op, usize)> {
        if self.is('*') {
            self.advance()?;
            self.expect(']')?;
            return Ok((Op::AnyElement, 0));
        }
        let (mut subscripts, mut depth) = (Vec::new(), 0);
        loop {
            let from = self.nested(|p| p.sum(false))?;
            depth = depth.max(from.depth);
            let to = if self.token.is_word("to") {
                self.advance()?;
                let to = self.nested(|p| p.sum(false))?;
                depth = depth.max(to.depth);
                Some(to.chain)
            } else {
                None
            };
            subscripts.push((from.chain, to));
            if !self.is(',') {
                break;
            }
            self.advance()?;
        }
        self.expect(']')?;
        Ok((Op::Subscripts(subscripts), depth))
    }
}

fn pattern_flags(letters: &str) -> Result<PatternFlags> {
    let mut flags = PatternFlags::default();
    for letter in letters.chars() {
        *match letter {
            'i' => &mut flags.ignore_case,
            's' => &mut flags.dot_all,
            'm' => &mut flags.lines,
            'x' => &mut flags.expanded,
            'q' => &mut flags.quote,
            _ => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "invalid input syntax for type jsonpath",
                )
                .with_detail(format!(
                    "Unrecognized flag character \"{letter}\" in LIKE_REGEX predicate."
                )));
            }
        } = true;
    }
    Ok(flags)
}

impl PatternFlags {
    fn of_regex(self) -> Result<Flags> {
        let mut flags = Flags {
            ignore_case: self.ignore_case,
            ..Flags::default()
        };
        if self.quote {
            (flags.extended, flags.advanced, flags.quote) = (false, false, true);
            return Ok(flags);
        }
        if self.expanded {
            return Err(Error::unsupported(
                "XQuery \"x\" flag (expanded regular expressions) is not implemented",
            ));
        }
        flags.newline_stops = !self.dot_all;
        flags.newline_anchors = self.lines;
        Ok(flags)
    }
}

/// Where a part stands.
#[derive(Clone, Copy, Default)]
struct Place {
    in_filter: bool,
    in_subscript: bool,
}

/// Refuses `@` and `last` where they mean nothing.
fn check(chain: &[Op], place: Place) -> Result<()> {
    let inner = Place {
        in_filter: true,
        ..place
    };
    for op in chain {
        match op {
            Op::Current if !place.in_filter => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "@ is not allowed in root expressions",
                ));
            }
            Op::Last if !place.in_subscript => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "LAST is allowed only in array subscripts",
                ));
            }
            Op::Subscripts(subscripts) => {
                let place = Place {
                    in_subscript: true,
                    ..place
                };
                for (from, to) in subscripts {
                    check(from, place)?;
                    check(to.as_deref().unwrap_or_default(), place)?;
                }
            }
            Op::Filter(condition) => check(condition, inner)?,
            op => print::operands(op)
                .into_iter()
                .try_for_each(|operand| check(operand, place))?,
        }
    }
    Ok(())
}
