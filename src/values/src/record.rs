//! The text form of rows, `(1,,"a b")`: PostgreSQL's `record_in`. What writes it is in
//! [`array`](crate::array).

use tidemark_common::{Error, Result, SqlState};

/// Reads the text form of a row of so many columns: hands on their texts in order, `None` for NULL.
///
/// Errors: `22P02` for a text that is no such row.
pub fn read(text: &str, columns: usize, mut put: impl FnMut(usize, Option<&str>)) -> Result<()> {
    let bad = |detail: &str| {
        let message = format!("malformed record literal: \"{text}\"");
        Error::user(SqlState::INVALID_TEXT, message).with_detail(detail)
    };
    let mut rest = text.trim_start_matches(is_space);
    rest = rest
        .strip_prefix('(')
        .ok_or_else(|| bad("Missing left parenthesis."))?;
    for column in 0..columns {
        if column > 0 {
            rest = rest
                .strip_prefix(',')
                .ok_or_else(|| bad("Too few columns."))?;
        }
        if rest.starts_with([',', ')']) {
            put(column, None);
            continue;
        }
        let (part, after) = part(rest).ok_or_else(|| bad("Unexpected end of input."))?;
        put(column, Some(&part));
        rest = after;
    }
    rest = rest
        .strip_prefix(')')
        .ok_or_else(|| bad("Too many columns."))?;
    match rest.chars().all(is_space) {
        true => Ok(()),
        false => Err(bad("Junk after right parenthesis.")),
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// The column that a text begins with, and what follows it; nothing if it has no end.
fn part(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | ')' if !quoted => return Some((part, &text[at..])),
            '\\' => part.push(chars.next()?.1),
            '"' if quoted && text[at + 1..].starts_with('"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            c => part.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::write_part;

    fn parts(text: &str, columns: usize) -> Result<Vec<Option<String>>> {
        let mut all = Vec::new();
        read(text, columns, |_, part| all.push(part.map(str::to_string)))?;
        Ok(all)
    }

    #[test]
    fn rows_are_read_as_in_postgresql() {
        let cases: [(&str, &[Option<&str>]); 8] = [
            ("(1,a)", &[Some("1"), Some("a")]),
            (" (,) ", &[None, None]),
            (r#"("",null)"#, &[Some(""), Some("null")]),
            ("( a , b )", &[Some(" a "), Some(" b ")]),
            (r#"("a""b\"c",\,)"#, &[Some("a\"b\"c"), Some(",")]),
            (r#"(a"b,c"d,e)"#, &[Some("ab,cd"), Some("e")]),
            (r#"("(1,2)","{3,4}")"#, &[Some("(1,2)"), Some("{3,4}")]),
            ("(ä,)", &[Some("ä"), None]),
        ];
        for (text, wanted) in cases {
            let read = parts(text, 2).unwrap();
            let read: Vec<Option<&str>> = read.iter().map(Option::as_deref).collect();
            assert_eq!(read, wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for text in [
            "", "1,2", "(1)", "(1,2,3)", "(1,2", "(1,\"2)", "(1,2)x", "(1,2\\",
        ] {
            let state = parts(text, 2).unwrap_err().state();
            assert_eq!(state, SqlState::INVALID_TEXT, "{text}");
        }
    }

    #[test]
    fn parts_are_written_so_that_they_are_read_back() {
        for part in ["", "a", "a b", "(", ")", ",", "\"", "\\", "ä", "{1,2}"] {
            let mut text = String::from("(");
            write_part(part, &mut text);
            text.push(')');
            assert_eq!(parts(&text, 1).unwrap(), [Some(part.to_string())]);
        }
    }
}
