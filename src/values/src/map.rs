//! The text form of maps, `{key:value,"a b":NULL}`: entries in the order of their keys; keys and
//! values are in quotes where an array's elements would be, and where they have a colon in them.

use crate::array;
use tidemark_common::{Error, Result, SqlState};

/// Reads the text form of a map: hands on keys and values in order, `None` for NULL.
///
/// Errors: `22P02` for a text that is no map.
pub fn read(text: &str, mut put: impl FnMut(Option<&str>, Option<&str>)) -> Result<()> {
    let bad = |detail: &str| {
        let message = format!("malformed map literal: \"{text}\"");
        Error::user(SqlState::INVALID_TEXT, message).with_detail(detail)
    };
    let trimmed = text.trim_matches(is_space);
    let mut rest = trimmed
        .strip_prefix('{')
        .ok_or_else(|| bad("Missing left brace."))?
        .trim_start_matches(is_space);
    if let Some(after) = rest.strip_prefix('}') {
        return match after.is_empty() {
            true => Ok(()),
            false => Err(bad("Junk after right brace.")),
        };
    }
    loop {
        let (key, after) = part(rest, &[':']).ok_or_else(|| bad("Missing \":\" after a key."))?;
        let (value, after) =
            part(&after[1..], &[',', '}']).ok_or_else(|| bad("Unexpected end of input."))?;
        put(key.as_deref(), value.as_deref());
        rest = &after[1..];
        if after.starts_with('}') {
            break;
        }
    }
    match rest.is_empty() {
        true => Ok(()),
        false => Err(bad("Junk after right brace.")),
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// The key or value that a text begins with, up to one of these characters, which begins what
/// follows; nothing if there is none, or the value is empty and not in quotes.
fn part<'a>(text: &'a str, ends: &[char]) -> Option<(Option<String>, &'a str)> {
    let text = text.trim_start_matches(is_space);
    let mut part = String::new();
    if let Some(quoted) = text.strip_prefix('"') {
        let mut chars = quoted.char_indices();
        loop {
            match chars.next()? {
                (at, '"') => {
                    let after = quoted[at + 1..].trim_start_matches(is_space);
                    return after.starts_with(ends).then_some((Some(part), after));
                }
                (_, '\\') => part.push(chars.next()?.1),
                (_, c) => part.push(c),
            }
        }
    }
    let at = text.find(['"', '{', '}', ',', ':', '\\'])?;
    let (bare, after) = text.split_at(at);
    let bare = bare.trim_end_matches(is_space);
    if bare.is_empty() || !after.starts_with(ends) {
        return None;
    }
    let null = bare.eq_ignore_ascii_case("null");
    Some(((!null).then(|| bare.to_string()), after))
}

/// Writes a key or a value, in quotes where it needs them.
pub fn write_part(part: &str, text: &mut String) {
    if !part.contains(':') || array::is_quoted(part.as_bytes()) {
        return array::write_element(part, text);
    }
    text.push('"');
    text.push_str(part);
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry = (Option<String>, Option<String>);

    fn entries(text: &str) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let own = |part: Option<&str>| part.map(str::to_string);
        read(text, |key, value| all.push((own(key), own(value))))?;
        Ok(all)
    }

    #[test]
    fn maps_are_read() {
        let own = |text: &str| Some(text.to_string());
        assert_eq!(entries(" { } ").unwrap(), []);
        assert_eq!(
            entries(r#"{a:1, "b c" : NULL,"d\"":"{1,2}"}"#).unwrap(),
            [
                (own("a"), own("1")),
                (own("b c"), None),
                (own("d\""), own("{1,2}")),
            ]
        );
        for text in [
            "", "a", "{a}", "{a:}", "{a:1", "{a:1}}", "{:1}", "{a:1,}", "{a:b:c}",
        ] {
            let state = entries(text).unwrap_err().state();
            assert_eq!(state, SqlState::INVALID_TEXT, "{text}");
        }
    }

    #[test]
    fn parts_are_written_so_that_they_are_read_back() {
        for part in ["", "a", "a b", ":", "a:b\"", "null", "{1,2}", "\\", "ä"] {
            let mut text = String::from("{");
            write_part(part, &mut text);
            text.push(':');
            write_part(part, &mut text);
            text.push('}');
            let own = || Some(part.to_string());
            assert_eq!(entries(&text).unwrap(), [(own(), own())], "{text}");
        }
    }
}
