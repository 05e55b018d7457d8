//! What is refused while a statement is a row of tokens.
//!
//! The parser follows operators, set operations and array brackets by loops that nest what they
//! have read, and a few forms by a recursion that it does not count. Such a tree is walked, or at
//! least dropped, by recursion, also when a syntax error behind it ends the parsing. So chains have
//! a length here that every stack bears ([`STACK_BYTES`](tidemark_common::STACK_BYTES)), far above
//! the limits that [`settle`](super::settle) holds them to.
//!
//! A chain ends at a comma or where the parenthesis around it closes: lists, however long, are no
//! chains.

use super::{CHAIN_MAX, EXPRESSION_DEPTH_MAX, PARSER_DEPTH_MAX, too_deep, too_long};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidemark_common::{Error, Result, SqlState};

/// Parameters of a statement, as in PostgreSQL.
const PARAMETERS_MAX: usize = 65_535;
/// Tokens in a row without a comma, what stands in parentheses not counted.
const CHAIN_TOKENS_MAX: usize = 500_000;
/// Dimensions of an array's type, as in PostgreSQL.
const DIMENSIONS_MAX: usize = 6;

/// A parenthesis, bracket or brace that is open.
#[derive(Default)]
struct Level {
    /// Tokens since the last comma.
    chain: usize,
    /// UNION, INTERSECT and EXCEPT; a comma does not end their chain.
    operations: usize,
}

/// `[]`, `[3]` and `ARRAY<` in a row.
#[derive(Default)]
struct Dimensions {
    /// Whether a bracket is open, and whether something stands in it.
    open: Option<bool>,
    all: usize,
    /// Those that can only be a type's.
    of_type: usize,
    /// `ARRAY` came last.
    array: bool,
}

impl Dimensions {
    fn token(&mut self, token: &Token) -> Result<()> {
        match (token, self.open) {
            (Token::LBracket, _) => self.open = Some(false),
            (Token::Number(..), Some(false)) => self.open = Some(true),
            (Token::RBracket, Some(number)) => {
                self.open = None;
                self.all += 1;
                self.of_type += usize::from(!number);
            }
            (Token::Word(w), _) if w.keyword == Keyword::ARRAY => {
                self.open = None;
                self.array = true;
                return Ok(());
            }
            (Token::Lt, _) if self.array => {
                self.all += 1;
                self.of_type += 1;
            }
            _ => *self = Dimensions::default(),
        }
        self.array = false;
        if self.of_type > DIMENSIONS_MAX {
            return Err(Error::user(
                SqlState("54000"),
                format!(
                    "number of array dimensions exceeds the maximum allowed ({DIMENSIONS_MAX})"
                ),
            ));
        }
        if self.all > EXPRESSION_DEPTH_MAX {
            return Err(too_deep("arrays", EXPRESSION_DEPTH_MAX));
        }
        Ok(())
    }
}

/// Holds the tokens of a statement against the limits. Errors: `54001`; `54000` for the dimensions
/// of an array; `42P02` for a parameter that no client can send.
pub(crate) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut around: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let mut dimensions = Dimensions::default();
    for token in tokens {
        let token = &token.token;
        if matches!(token, Token::Whitespace(_) | Token::EOF) {
            continue;
        }
        dimensions.token(token)?;
        level.chain += 1;
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if around.len() >= PARSER_DEPTH_MAX {
                    return Err(too_deep("parentheses", PARSER_DEPTH_MAX));
                }
                around.push(std::mem::take(&mut level));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                level = around.pop().unwrap_or_default();
            }
            Token::Comma => level.chain = 0,
            Token::Word(w)
                if matches!(
                    w.keyword,
                    Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT
                ) =>
            {
                level.operations += 1;
                if level.operations > CHAIN_MAX {
                    return Err(too_long("set operations in one query", CHAIN_MAX));
                }
            }
            Token::Placeholder(name) => check_parameter(name)?,
            _ => {}
        }
        if level.chain > CHAIN_TOKENS_MAX {
            return Err(too_long("words and signs in one chain", CHAIN_TOKENS_MAX));
        }
    }
    Ok(())
}

fn check_parameter(name: &str) -> Result<()> {
    let Some(number) = name.strip_prefix('$') else {
        return Ok(());
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if digits && !matches!(number.parse::<usize>(), Ok(1..=PARAMETERS_MAX)) {
        return Err(Error::user(
            SqlState("42P02"),
            format!("there is no parameter ${number}"),
        )
        .with_hint(format!(
            "Parameters are numbered from $1 to ${PARAMETERS_MAX}."
        )));
    }
    Ok(())
}
