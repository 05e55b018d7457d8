//! sqlparser's errors in PostgreSQL's words. sqlparser writes `Expected: x, found: y at Line: l,
//! Column: c`; PostgreSQL says `syntax error at or near "y"` and has a position, so the text is
//! taken apart again.

use crate::statement::Positions;
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer::Location;
use tidemark_common::{Error, SqlState};

/// Translates an error of sqlparser: `42601`, `54001` for nesting that is too deep.
pub(crate) fn parser_error(error: ParserError, positions: &Positions) -> Error {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return Error::user(SqlState("54001"), "statement is nested too deeply")
                .with_hint("Split the statement, or use views for its parts.");
        }
    };
    let (text, location) = split_location(&text);
    let parts = text
        .strip_prefix("Expected: ")
        .or(text.strip_prefix("Expected "))
        .and_then(|t| t.split_once(", found: "));
    let at_end = parts.is_some_and(|(_, found)| found == "EOF");
    let position = if at_end {
        positions.end()
    } else {
        location.and_then(|l| positions.of(l))
    };
    // `E'\xc3'`, one byte of a character: the tokenizer makes characters of each.
    if text.contains("encoded string literal") {
        let error = Error::unsupported("bytes beyond ASCII in an E'..' text are not supported")
            .with_hint("Write the character itself, or its number: \\u00e4.");
        return match position {
            Some(position) => error.at(position),
            None => error,
        };
    }
    let error = match parts {
        Some((expected, "EOF")) => syntax("syntax error at end of input".into(), expected),
        Some((expected, found)) => syntax(format!("syntax error at or near \"{found}\""), expected),
        None => Error::user(
            SqlState::SYNTAX_ERROR,
            lower_first(text.trim_start_matches("sql parser error: ")),
        ),
    };
    match position {
        Some(position) => error.at(position),
        None => error,
    }
}

fn syntax(message: String, expected: &str) -> Error {
    Error::user(SqlState::SYNTAX_ERROR, message)
        .with_detail(format!("Expected {}.", expected.trim_end_matches('.')))
}

/// Cuts ` at Line: l, Column: c` off the end.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let Some((before, after)) = text.rsplit_once(" at Line: ") else {
        return (text, None);
    };
    let location = after.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location {
            line: line.trim().parse().ok()?,
            column: column.trim().parse().ok()?,
        })
    });
    if location.is_some() {
        (before, location)
    } else {
        (text, None)
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}
