//! SQL/JSON paths: PostgreSQL's type `jsonpath`, and what a path finds in a value of `jsonb`.
//!
//! A [`Path`] is read once ([`lexer`], [`parse`]) and then asked of many values ([`eval`]). What it
//! finds, in which order, and which errors it ends with is what PostgreSQL 15 answers,
//! `.datetime()` apart, which is refused (`0A000`). Numbers are `numeric`s throughout: nothing
//! loses a digit.
//!
//! | file | what |
//! | --- | --- |
//! | `lexer` | the tokens, with PostgreSQL's words for what is none |
//! | `parse` | the grammar, by recursive descent |
//! | `print` | a path's normal form, which its type prints |
//! | `item` | values that a path meets: of the document, of the path, or computed |
//! | `eval` | accessors, methods, arithmetic |
//! | `predicate` | conditions, in three-valued logic |
//! | `offset` | where PostgreSQL stores an object, which `.keyvalue()` names it by |
//!
//! # Limits
//!
//! A path that nests deeper, or has more accessors in a row, than [`DEPTH_MAX`] is refused (54001):
//! reading, evaluating and dropping a path take stack in proportion to that only, whatever the
//! document is.

mod eval;
mod item;
mod lexer;
mod offset;
mod parse;
mod predicate;
mod print;
#[cfg(test)]
mod tests;

use crate::jsonb::{Builder, Kind, Value};
use crate::numeric::Numeric;
use crate::regex::Regex;
use eval::{Found, Outcome, Run};
use item::Arena;
use std::rc::Rc;
use tidemark_common::{Error, Result, SqlState};

/// How deep parentheses, filters, subscripts and operands may nest, and how many accessors may
/// stand in a row, both counted together.
pub const DEPTH_MAX: usize = 400;

/// A path. It holds compiled regular expressions, so it stays with a thread.
pub struct Path {
    lax: bool,
    chain: Chain,
}

/// A value and the accessors behind it. Not empty.
type Chain = Vec<Op>;

/// A step of a path.
enum Op {
    Null,
    Bool(bool),
    Number(Numeric),
    Text(String),
    Variable(String),
    Root,
    Current,
    Last,
    Key(String),
    AnyKey,
    AnyElement,
    /// `[a, b to c]`.
    Subscripts(Vec<(Chain, Option<Chain>)>),
    /// `.**{first to last}`; `last` is `u32::MAX`.
    AnyLevel(u32, u32),
    Filter(Chain),
    Method(Method),
    /// `.datetime(template)`.
    Datetime(Option<String>),
    Unary(Sign, Chain),
    Binary(Arithmetic, Chain, Chain),
    Compare(Comparison, Chain, Chain),
    And(Chain, Chain),
    Or(Chain, Chain),
    Not(Chain),
    IsUnknown(Chain),
    Exists(Chain),
    StartsWith(Chain, Chain),
    LikeRegex(Chain, Pattern),
}

struct Pattern {
    text: String,
    flags: PatternFlags,
    regex: Rc<Regex>,
}

#[derive(Clone, Copy, Default)]
struct PatternFlags {
    ignore_case: bool,
    dot_all: bool,
    lines: bool,
    expanded: bool,
    quote: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Type,
    Size,
    Double,
    Ceiling,
    Floor,
    Abs,
    KeyValue,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Type => "type",
            Method::Size => "size",
            Method::Double => "double",
            Method::Ceiling => "ceiling",
            Method::Floor => "floor",
            Method::Abs => "abs",
            Method::KeyValue => "keyvalue",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Arithmetic {
    fn symbol(self) -> &'static str {
        match self {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Modulo => "%",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

/// What a path is asked with.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The document.
    pub document: Value<'a>,
    /// The object of the variables. Without one, as the operators have none, a variable is null.
    pub variables: Option<Value<'a>>,
    /// Whether errors that depend on the document end the search instead of being reported.
    pub silent: bool,
}

impl Path {
    /// Reads a path.
    ///
    /// Errors: `42601` for a text that is none, `22P02` for an empty one, `2201B` for a regular
    /// expression that is none, `54001` beyond [`DEPTH_MAX`].
    pub fn parse(text: &str) -> Result<Path> {
        parse::parse(text)
    }

    /// `jsonb_path_exists`, `@?`: whether it finds anything; `None` where an error is kept silent.
    ///
    /// Errors: `2203x` where the document is not as the path says, `22012`, `22003`, `22036` of
    /// numbers, `42704` for an unknown variable, `22023` for variables that are no object.
    pub fn exists(&self, asked: Asked<'_>) -> Result<Option<bool>> {
        let arena = Arena::default();
        // In strict mode everything is looked at: whether there are errors.
        let mut found = if self.lax { None } else { Some(Vec::new()) };
        let outcome = self.run(asked, &arena, &mut found)?;
        Ok(match outcome {
            Outcome::Failed => None,
            outcome => Some(match found {
                Some(found) => !found.is_empty(),
                None => outcome == Outcome::Found,
            }),
        })
    }

    /// `jsonb_path_match`, `@@`: the truth that it is; `None` of null.
    ///
    /// Errors: those of [`Path::exists`], and `22038` where it is no single truth and errors are
    /// not kept silent.
    pub fn matches(&self, asked: Asked<'_>) -> Result<Option<bool>> {
        let arena = Arena::default();
        let mut found = Some(Vec::new());
        self.run(asked, &arena, &mut found)?;
        if let Some([item]) = found.as_deref() {
            match item.kind()? {
                Kind::Boolean => return item.truth(),
                Kind::Null => return Ok(None),
                _ => {}
            }
        }
        if asked.silent {
            return Ok(None);
        }
        let message = "single boolean result is expected";
        Err(Error::user(SqlState("22038"), message))
    }

    /// `jsonb_path_query`: calls `each` with the encoding of everything that it finds.
    ///
    /// Errors: those of [`Path::exists`], and those of `each`.
    pub fn query(&self, asked: Asked<'_>, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let arena = Arena::default();
        let mut found = Some(Vec::new());
        self.run(asked, &arena, &mut found)?;
        let (mut builder, mut bytes) = (Builder::new(), Vec::new());
        for item in found.iter().flatten() {
            item.build(&mut builder)?;
            bytes.clear();
            builder.finish_to(&mut bytes);
            each(&bytes)?;
        }
        Ok(())
    }

    /// `jsonb_path_query_array`: an array of everything that it finds, encoded.
    ///
    /// Errors: those of [`Path::exists`].
    pub fn query_array(&self, asked: Asked<'_>) -> Result<Vec<u8>> {
        let arena = Arena::default();
        let mut found = Some(Vec::new());
        self.run(asked, &arena, &mut found)?;
        let mut builder = Builder::new();
        builder.begin_array();
        for item in found.iter().flatten() {
            item.build(&mut builder)?;
        }
        builder.end_array()?;
        Ok(builder.finish())
    }

    /// `jsonb_path_query_first`: the first that it finds, encoded.
    ///
    /// Errors: those of [`Path::exists`].
    pub fn query_first(&self, asked: Asked<'_>) -> Result<Option<Vec<u8>>> {
        let arena = Arena::default();
        let mut found = Some(Vec::new());
        self.run(asked, &arena, &mut found)?;
        let Some(first) = found.iter().flatten().next() else {
            return Ok(None);
        };
        let mut builder = Builder::new();
        first.build(&mut builder)?;
        Ok(Some(builder.finish()))
    }

    fn run<'a>(
        &'a self,
        asked: Asked<'a>,
        arena: &'a Arena,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        if let Some(variables) = asked.variables
            && variables.kind()? != Kind::Object
        {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                "\"vars\" argument is not an object",
            )
            .with_detail(
                "Jsonpath parameters should be encoded as key-value pairs of \"vars\" object.",
            ));
        }
        Run::new(self.lax, asked, arena).chain(&self.chain, found)
    }
}
