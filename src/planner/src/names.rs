//! Names as PostgreSQL reads them: folded unless they are quoted, qualified or not; and what was
//! meant by one that does not exist.

use crate::statement::Name;
use datafusion_sql::sqlparser::ast::{Ident, ObjectName};
use datafusion_sql::sqlparser::keywords::{RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};
use tidemark_common::{Error, Result, SqlState};

/// What the name of a field of a row begins with, where it stands as a quoted constant between the
/// rewriting of a query and its planning: a subscript of JSONB stands there as well.
pub(crate) const FIELD: &str = "\u{1}";

/// PostgreSQL's folding: lower case unless quoted.
pub(crate) fn fold(ident: Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value
    } else {
        ident.value.to_lowercase()
    }
}

/// What stands among the columns of CREATE TABLE and is none, and what begins an expression.
const OF_COLUMNS: [&str; 14] = [
    "all",
    "as",
    "case",
    "check",
    "constraint",
    "default",
    "foreign",
    "in",
    "like",
    "not",
    "null",
    "primary",
    "unique",
    "watermark",
];

/// A name as a statement writes it: quoted where it would be folded, or is no word.
pub(crate) fn quote(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_word = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let upper = name.to_uppercase();
    let is_reserved = || {
        let reserved = [RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS];
        let mut keywords = reserved.into_iter().flatten().map(|k| format!("{k:?}"));
        OF_COLUMNS.contains(&name) || keywords.any(|k| k == upper)
    };
    match is_word && name.chars().all(plain) && !is_reserved() {
        true => name.to_string(),
        false => Ident::with_quote('"', name).to_string(),
    }
}

/// The last one or two parts of a name; a database in front is accepted and dropped.
pub(crate) fn name_of(object: &ObjectName, position: usize) -> Result<Name> {
    let parts: Option<Vec<String>> = object
        .0
        .iter()
        .map(|p| p.as_ident().cloned().map(fold))
        .collect();
    let mut parts = parts.ok_or_else(|| {
        Error::user(
            SqlState::SYNTAX_ERROR,
            format!("\"{object}\" is not a name"),
        )
        .at(position)
    })?;
    let name = parts
        .pop()
        .ok_or_else(|| Error::user(SqlState::SYNTAX_ERROR, "a name is missing").at(position))?;
    if parts.len() > 2 {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("improper qualified name (too many dotted names): {object}"),
        )
        .at(position));
    }
    Ok(Name {
        schema: parts.pop(),
        name,
        position,
    })
}

/// The candidate closest to a misspelled name, if any is close (a third of its letters may differ).
pub(crate) fn similar<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    let scored = candidates
        .into_iter()
        .map(|c| (distance(name, c), c))
        .filter(|(d, c)| *d <= limit && *c != name || c.eq_ignore_ascii_case(name));
    scored
        .min_by_key(|(d, c)| (*d, c.to_string()))
        .map(|(_, c)| c)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
