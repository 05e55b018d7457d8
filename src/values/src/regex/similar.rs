//! `SIMILAR TO`: SQL's own patterns, as regular expressions.

use tidemark_common::{Error, Result, SqlState};

/// The advanced expression of a pattern. `%` and `_` are as in LIKE; the text must match from its
/// start to its end. Between two `#"` (with the escape character `#`) stands what `substring`
/// gives.
///
/// Errors: `22025` for an escape of more than one character, `2200C` for a third `#"`.
pub fn from_similar(pattern: &str, escape: &str) -> Result<String> {
    let mut characters = escape.chars();
    let escape = characters.next();
    if characters.next().is_some() {
        return Err(Error::user(SqlState("22025"), "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    let mut regex = String::with_capacity(pattern.len() + 8);
    regex.push_str("^(?:");
    let (mut in_bracket, mut quotes, mut escaped) = (false, 0, false);
    for c in pattern.chars() {
        if escaped {
            if c == '"' && !in_bracket {
                regex.push_str(match quotes {
                    0 => "){1,1}?(",
                    1 => "){1,1}(?:",
                    _ => return Err(too_many_quotes()),
                });
                quotes += 1;
            } else {
                regex.push('\\');
                regex.push(c);
            }
            escaped = false;
        } else if Some(c) == escape {
            escaped = true;
        } else if in_bracket {
            if c == '\\' {
                regex.push('\\');
            }
            regex.push(c);
            in_bracket = c != ']';
        } else {
            in_bracket = c == '[';
            match c {
                '%' => regex.push_str(".*"),
                '_' => regex.push('.'),
                '(' => regex.push_str("(?:"),
                '\\' | '.' | '^' | '$' => {
                    regex.push('\\');
                    regex.push(c);
                }
                c => regex.push(c),
            }
        }
    }
    regex.push_str(")$");
    Ok(regex)
}

fn too_many_quotes() -> Error {
    Error::user(
        SqlState("2200C"),
        "SQL regular expression may not contain more than two escape-double-quote separators",
    )
}
