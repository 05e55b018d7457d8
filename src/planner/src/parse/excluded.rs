//! The EXCLUDE clause of window frames, which sqlparser does not know: it becomes a mark before
//! what the window is partitioned by ([`crate::excluded`]). `EXCLUDE NO OTHERS` says nothing.

use super::tokens::{keyword, quoted};
use super::{is_blank, is_word};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use std::collections::{BTreeMap, BTreeSet};

/// The clauses, and their marks.
const CLAUSES: [(&[&str], Option<&str>); 4] = [
    (&["exclude", "no", "others"], None),
    (&["exclude", "current", "row"], Some("exclude current row")),
    (&["exclude", "group"], Some("exclude group")),
    (&["exclude", "ties"], Some("exclude ties")),
];

/// Words that a frame begins with.
const UNITS: [&str; 3] = ["rows", "range", "groups"];

struct Windows<'a> {
    tokens: &'a [TokenWithSpan],
    /// The tokens that are not blank.
    solid: Vec<usize>,
    dropped: BTreeSet<usize>,
    /// What stands behind tokens.
    added: BTreeMap<usize, Vec<Token>>,
}

/// Tokens with the marks instead of the clauses.
pub(super) fn frames(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|t| is_word(&t.token, "exclude")) {
        return tokens;
    }
    let solid = (0..tokens.len()).filter(|i| !is_blank(&tokens[*i].token));
    let mut windows = Windows {
        tokens: &tokens,
        solid: solid.collect(),
        dropped: BTreeSet::new(),
        added: BTreeMap::new(),
    };
    for at in 1..windows.solid.len() {
        windows.clause(at);
    }
    let Windows { dropped, added, .. } = windows;
    let mut rewritten = Vec::with_capacity(tokens.len() + 4 * added.len());
    for (i, token) in tokens.iter().enumerate() {
        if !dropped.contains(&i) {
            rewritten.push(token.clone());
        }
        for new in added.get(&i).into_iter().flatten() {
            rewritten.push(TokenWithSpan::new(new.clone(), token.span));
        }
    }
    rewritten
}

impl Windows<'_> {
    fn at(&self, at: usize) -> &Token {
        let token = self.solid.get(at).map(|i| &self.tokens[*i].token);
        token.unwrap_or(&Token::EOF)
    }

    fn is(&self, at: usize, words: &[&str]) -> bool {
        let mut words = words.iter().enumerate();
        words.all(|(n, word)| is_word(self.at(at + n), word))
    }

    /// A clause at a place, if it is there: behind a frame, at the end of a window.
    fn clause(&mut self, at: usize) {
        let is_clause = |(words, _): &(&[&str], _)| {
            self.is(at, words) && *self.at(at + words.len()) == Token::RParen
        };
        let Some((words, mark)) = CLAUSES.into_iter().find(is_clause) else {
            return;
        };
        let ends = ["row", "preceding", "following"];
        if !ends.iter().any(|word| self.is(at - 1, &[word])) {
            return;
        }
        let places = self.solid[at]..=self.solid[at + words.len() - 1];
        self.dropped.extend(places);
        if let (Some(mark), Some(open)) = (mark, self.opened(at)) {
            self.mark(open, mark);
        }
    }

    /// Where the parenthesis is that is open at a place.
    fn opened(&self, at: usize) -> Option<usize> {
        let mut depth = 0;
        (0..at).rev().find(|i| {
            match self.at(*i) {
                Token::RParen => depth += 1,
                Token::LParen => depth -= 1,
                _ => {}
            }
            depth < 0
        })
    }

    /// Adds a mark to the window in this parenthesis.
    fn mark(&mut self, open: usize, mark: &str) {
        let has_name = |at: usize| {
            !self.is(at, &["order", "by"])
                && !self.is(at, &["partition", "by"])
                && !UNITS.iter().any(|units| self.is(at, &[units]))
        };
        let last = if has_name(open + 1) { open + 1 } else { open };
        let call = [quoted(mark), Token::LParen, Token::RParen];
        let (behind, added) = match self.is(last + 1, &["partition", "by"]) {
            true => (last + 2, call.into_iter().chain([Token::Comma]).collect()),
            false => {
                let by = [keyword("PARTITION"), keyword("BY")];
                (last, by.into_iter().chain(call).collect())
            }
        };
        self.added.insert(self.solid[behind], added);
    }
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;
    use crate::statement::StatementKind;

    #[test]
    fn what_a_frame_excludes_goes_before_what_the_window_is_partitioned_by() {
        let read = |sql: &str| match &parse(sql).unwrap()[0].kind {
            StatementKind::Sql(sql) => sql.to_string(),
            _ => "another statement".into(),
        };
        let frame = "ROWS BETWEEN (1) PRECEDING AND CURRENT ROW";
        for (written, expected) in [
            ("ORDER BY b", "PARTITION BY \"exclude ties\"() ORDER BY b "),
            (
                "PARTITION BY a ORDER BY b",
                "PARTITION BY \"exclude ties\"(), a ORDER BY b ",
            ),
            ("", "PARTITION BY \"exclude ties\"() "),
            ("w", "w PARTITION BY \"exclude ties\"() "),
        ] {
            let sql = format!("SELECT sum(a) OVER ({written} {frame} EXCLUDE TIES) FROM t");
            let expected = format!("SELECT sum(a) OVER ({expected}{frame}) FROM t");
            assert_eq!(read(&sql), expected);
        }
        let sql = format!("SELECT sum(a) OVER ({frame} EXCLUDE NO OTHERS) AS exclude FROM t");
        let expected = format!("SELECT sum(a) OVER ({frame}) AS exclude FROM t");
        assert_eq!(read(&sql), expected);
    }
}
