//! Where in the statement an error is: planning errors name a relation or column, and its first
//! place in the text is the position to show.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemark_common::{Error, SqlState};
use tidemark_planner::statement::Statement;

/// Adds the position of the name that the error is about, where it has none.
pub fn locate(error: Error, statement: &Statement) -> Error {
    if error.position().is_some()
        || !matches!(
            error.state(),
            SqlState::UNDEFINED_TABLE
                | SqlState::UNDEFINED_COLUMN
                | SqlState::UNDEFINED_FUNCTION
                | SqlState::AMBIGUOUS_COLUMN
        )
    {
        return error;
    }
    let Some(name) = subject(error.message()) else {
        return error;
    };
    let Ok(tokens) =
        Tokenizer::new(&PostgreSqlDialect {}, &statement.text).tokenize_with_location()
    else {
        return error;
    };
    let found = tokens.iter().find(|t| match &t.token {
        Token::Word(word) => {
            if word.quote_style.is_some() {
                word.value == name
            } else {
                word.value.eq_ignore_ascii_case(&name)
            }
        }
        _ => false,
    });
    let Some(token) = found else { return error };
    let start = token.span.start;
    let before: usize = statement
        .text
        .lines()
        .take(start.line as usize - 1)
        .map(|l| l.chars().count() + 1)
        .sum();
    error.at(statement.start + before + start.column as usize)
}

/// The name in `relation "x" does not exist`, `column t.x does not exist`, `function x does not
/// exist`.
fn subject(message: &str) -> Option<String> {
    let rest = [
        "missing FROM-clause entry for table ",
        "relation ",
        "column reference ",
        "column ",
        "function ",
    ]
    .iter()
    .find_map(|p| message.strip_prefix(p))?;
    let name = rest
        .split(" of relation ")
        .next()?
        .split(" does not exist")
        .next()?
        .split(" is ambiguous")
        .next()?
        .split('(')
        .next()?;
    let name = name.trim_matches('"').rsplit('.').next()?.trim_matches('"');
    (!name.is_empty()).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_in_the_whole_text() {
        let statements = tidemark_planner::parse("SELECT 1;\n  SELECT nope\nFROM t").unwrap();
        let at = |text: &str| {
            locate(
                Error::user(SqlState::UNDEFINED_COLUMN, text),
                &statements[1],
            )
            .position()
        };
        assert_eq!(at("column \"nope\" does not exist"), Some(20));
        assert_eq!(
            at("column \"t\" of relation \"x\" does not exist"),
            Some(30)
        );
        assert_eq!(at("column \"other\" does not exist"), None);
    }
}
