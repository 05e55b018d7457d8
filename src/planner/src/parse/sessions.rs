//! `SESSION(rel PARTITION BY k, t, gap)`, Flink's spelling, becomes `SESSION(rel, t, gap, k)`.
//! Where there are several columns they stand in parentheses, or the time is a `DESCRIPTOR(t)`.

use super::{is_blank, is_word};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Rewrites the session windows of a statement.
pub(super) fn partitions(tokens: &mut Vec<TokenWithSpan>) {
    if !tokens.iter().any(|t| is_word(&t.token, "session")) {
        return;
    }
    let mut from = 0;
    while let Some(moved) = next(tokens, from) {
        let mut keys: Vec<TokenWithSpan> = tokens.drain(moved.keys.clone()).collect();
        let by = keys.iter().position(|t| is_word(&t.token, "by"));
        keys.drain(..=by.unwrap_or(0));
        keys.retain(|t| !matches!(t.token, Token::LParen | Token::RParen));
        let comma = TokenWithSpan {
            token: Token::Comma,
            span: keys.first().map_or(tokens[moved.session].span, |t| t.span),
        };
        let end = moved.end - moved.keys.len();
        tokens.splice(end..end, std::iter::once(comma).chain(keys));
        from = moved.session + 1;
    }
}

/// What is to be moved.
struct Moved {
    /// Where SESSION is.
    session: usize,
    /// PARTITION BY and its columns.
    keys: std::ops::Range<usize>,
    /// The parenthesis that ends the call.
    end: usize,
}

/// The next call with PARTITION BY.
fn next(tokens: &[TokenWithSpan], from: usize) -> Option<Moved> {
    let solid: Vec<usize> = (from..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    let token = |at: usize| solid.get(at).map_or(&Token::EOF, |i| &tokens[*i].token);
    for at in 0..solid.len() {
        if !is_word(token(at), "session") || *token(at + 1) != Token::LParen {
            continue;
        }
        let (mut depth, mut keys, mut commas, mut descriptor) = (0, None, Vec::new(), None);
        for here in at + 1..solid.len() {
            match token(here) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::Comma if depth == 1 => commas.push(here),
                t if depth == 1 && is_word(t, "partition") && is_word(token(here + 1), "by") => {
                    keys.get_or_insert(here);
                }
                t if depth == 1 && is_word(t, "descriptor") => {
                    descriptor.get_or_insert(here);
                }
                _ => {}
            }
            if depth > 0 {
                continue;
            }
            if let Some(first) = keys {
                let behind = commas.iter().filter(|c| **c > first);
                let last = match descriptor {
                    Some(time) => behind.filter(|c| **c < time).next_back(),
                    None => behind.clone().next(),
                };
                let last = *last?;
                return Some(Moved {
                    session: solid[at],
                    keys: solid[first]..solid[last],
                    end: solid[here],
                });
            }
            break;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;
    use crate::statement::StatementKind;

    #[test]
    fn columns_of_sessions_come_last() {
        let same = "SELECT * FROM SESSION(bid, t, INTERVAL '10' SECOND, a)";
        let several = "SELECT * FROM SESSION(bid, t, INTERVAL '10' SECOND, a, b)";
        for (sql, expected) in [
            (
                "SELECT * FROM SESSION(bid PARTITION BY a, t, INTERVAL '10' SECOND)",
                same,
            ),
            (
                "SELECT * FROM TABLE(SESSION(TABLE bid PARTITION BY a, DESCRIPTOR(t), \
                 INTERVAL '10' SECOND))",
                same,
            ),
            (
                "SELECT * FROM TABLE(SESSION(TABLE bid PARTITION BY a, b, DESCRIPTOR(t), \
                 INTERVAL '10' SECOND))",
                several,
            ),
            (
                "SELECT * FROM SESSION(bid PARTITION BY (a, b), t, INTERVAL '10' SECOND)",
                several,
            ),
            ("SELECT session FROM t", "SELECT session FROM t"),
        ] {
            let read = match &parse(sql).expect("it is read")[0].kind {
                StatementKind::Sql(sql) => sql.to_string(),
                _ => "another statement".into(),
            };
            assert_eq!(read, expected);
        }
    }
}
