//! Texts as SQL identifiers and constants.

/// PostgreSQL's keywords that are not names everywhere.
const KEYWORDS: &str = include_str!("keywords.txt");

fn is_keyword(name: &str) -> bool {
    use std::collections::HashSet;
    use std::sync::OnceLock;
    static WORDS: OnceLock<HashSet<&'static str>> = OnceLock::new();
    WORDS
        .get_or_init(|| KEYWORDS.split_ascii_whitespace().collect())
        .contains(name)
}

/// Appends a name, in double quotes where it would be read as something else.
pub fn quote_ident(name: &str, out: &mut String) {
    let plain = name
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if plain && !is_keyword(name) {
        return out.push_str(name);
    }
    out.push('"');
    for c in name.chars() {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
}

/// Appends a text as a constant; with an `E` before it where backslashes are in it.
pub fn quote_literal(text: &str, out: &mut String) {
    if text.contains('\\') {
        out.push('E');
    }
    out.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
}
