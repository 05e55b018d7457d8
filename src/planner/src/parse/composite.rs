//! Types that are made of others, and all fields of a row, in words that sqlparser reads:
//!
//! ```text
//! MAP(varchar, int)    MAP<varchar, int>      where a type may stand
//! (row).*              (row)."*"              a field of this name, which binding looks for
//! ```
//!
//! `STRUCT<a int, b varchar>` is what sqlparser reads by itself.

use super::{is_blank, is_word};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// The field that stands for all fields of a row.
pub(crate) const ALL_FIELDS: &str = "*";

/// Words before a relation that may be called `map`.
const BEFORE_NAMES: [&str; 9] = [
    "into",
    "table",
    "on",
    "from",
    "join",
    "update",
    "exists",
    "view",
    "references",
];

/// The types of keys begin with one of these.
const KEYS: [&str; 14] = [
    "varchar",
    "text",
    "string",
    "character",
    "int",
    "integer",
    "smallint",
    "bigint",
    "int2",
    "int4",
    "int8",
    "boolean",
    "date",
    "uuid",
];

/// Rewrites the tokens of a statement.
pub(super) fn rewrite(tokens: &mut [TokenWithSpan]) {
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    for at in 0..solid.len() {
        map_type(tokens, &solid, at);
        all_fields(tokens, &solid, at);
    }
}

/// `map (key, value)` at a place among the solid tokens.
fn map_type(tokens: &mut [TokenWithSpan], solid: &[usize], at: usize) {
    let token = |n: usize| solid.get(n).map_or(&Token::EOF, |i| &tokens[*i].token);
    if !is_word(token(at), "map") || *token(at + 1) != Token::LParen {
        return;
    }
    let named = at.checked_sub(1).is_some_and(|before| {
        *token(before) == Token::Period || BEFORE_NAMES.iter().any(|w| is_word(token(before), w))
    });
    if named || !KEYS.iter().any(|key| is_word(token(at + 2), key)) {
        return;
    }
    let (mut depth, mut commas) = (0usize, 0);
    let mut end = at + 1;
    loop {
        match token(end) {
            Token::LParen | Token::Lt => depth += 1,
            Token::RParen | Token::Gt => depth = depth.saturating_sub(1),
            Token::ShiftRight => depth = depth.saturating_sub(2),
            Token::Comma if depth == 1 => commas += 1,
            Token::EOF => return,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        end += 1;
    }
    if commas == 1 && *token(end) == Token::RParen {
        tokens[solid[at + 1]].token = Token::Lt;
        tokens[solid[end]].token = Token::Gt;
    }
}

/// `. *` behind parentheses, a subscript or a field of these.
fn all_fields(tokens: &mut [TokenWithSpan], solid: &[usize], at: usize) {
    let token = |n: usize| solid.get(n).map_or(&Token::EOF, |i| &tokens[*i].token);
    if *token(at) != Token::Mul {
        return;
    }
    let mut before = at;
    loop {
        let Some(root) = before.checked_sub(2) else {
            return;
        };
        if *token(before - 1) != Token::Period {
            return;
        }
        match token(root) {
            Token::RParen | Token::RBracket => break,
            Token::Word(_) => before = root,
            _ => return,
        }
    }
    tokens[solid[at]].token = Token::Word(Word {
        value: ALL_FIELDS.into(),
        quote_style: Some('"'),
        keyword: Keyword::NoKeyword,
    });
}
