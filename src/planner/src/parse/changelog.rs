//! `WITH c [(columns)] AS CHANGELOG FROM r`, which sqlparser does not read, as a subquery with
//! marks ([`crate::changelog`]):
//!
//! ```text
//! c AS CHANGELOG FROM r
//!     c AS (SELECT *, "changelog op"() AS changelog_op,
//!                  "changelog number"() AS _changelog_row_id FROM r)
//! ```

use super::tokens::{keyword, quoted};
use super::{is_blank, is_word};
use crate::changelog::{NUMBER, OP};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Rewrites the changelogs of a statement.
pub(super) fn queries(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|t| is_word(&t.token, "changelog")) {
        return tokens;
    }
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !is_blank(&tokens[*i].token))
        .collect();
    let list = List {
        tokens: &tokens,
        solid: &solid,
    };
    let found: Vec<(usize, usize)> = (0..solid.len()).flat_map(|at| list.at(at)).collect();
    let mut rewritten = Vec::with_capacity(tokens.len() + 20 * found.len());
    for (i, token) in tokens.iter().enumerate() {
        let with_span = |t: Token| TokenWithSpan {
            token: t,
            span: token.span,
        };
        match found.iter().find(|(first, _)| solid[*first] == i) {
            Some(_) => rewritten.extend(select().into_iter().map(with_span)),
            None => rewritten.push(token.clone()),
        }
        if found.iter().any(|(_, last)| solid[*last] == i) {
            rewritten.push(with_span(Token::RParen));
        }
    }
    rewritten
}

/// What stands in place of CHANGELOG.
fn select() -> Vec<Token> {
    let mut select = vec![Token::LParen, keyword("SELECT"), Token::Mul];
    for (mark, name) in [(OP, "changelog_op"), (NUMBER, "_changelog_row_id")] {
        let call = [quoted(mark), Token::LParen, Token::RParen];
        select.push(Token::Comma);
        select.extend(call);
        select.extend([keyword("AS"), quoted(name)]);
    }
    select
}

struct List<'a> {
    tokens: &'a [TokenWithSpan],
    /// Those that are not blank.
    solid: &'a [usize],
}

impl List<'_> {
    fn token(&self, at: usize) -> &Token {
        let token = self.solid.get(at).map(|i| &self.tokens[*i].token);
        token.unwrap_or(&Token::EOF)
    }

    fn is(&self, at: usize, word: &str) -> bool {
        is_word(self.token(at), word)
    }

    fn is_name(&self, at: usize) -> bool {
        matches!(self.token(at), Token::Word(_))
    }

    /// The changelogs of the WITH at a place, if there is one: where CHANGELOG is, and where the
    /// name of the relation ends.
    fn at(&self, with: usize) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        if !self.is(with, "with") {
            return found;
        }
        let mut at = with + 1 + usize::from(self.is(with + 1, "recursive"));
        loop {
            let mut next = at + 1;
            if *self.token(next) == Token::LParen {
                next = self.behind_parentheses(next);
            }
            if !self.is_name(at) || !self.is(next, "as") {
                return found;
            }
            next += 1;
            let is_changelog = self.is(next, "changelog") && self.is(next + 1, "from");
            if is_changelog && self.is_name(next + 2) {
                let mut last = next + 2;
                while *self.token(last + 1) == Token::Period && self.is_name(last + 2) {
                    last += 2;
                }
                found.push((next, last));
                next = last + 1;
            } else {
                while self.is(next, "not") || self.is(next, "materialized") {
                    next += 1;
                }
                if *self.token(next) != Token::LParen {
                    return found;
                }
                next = self.behind_parentheses(next);
            }
            if *self.token(next) != Token::Comma {
                return found;
            }
            at = next + 1;
        }
    }

    /// Where what stands in parentheses from here on has ended.
    fn behind_parentheses(&self, from: usize) -> usize {
        let mut depth = 0;
        for at in from..self.solid.len() {
            match self.token(at) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.solid.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;
    use crate::statement::StatementKind;

    fn read(sql: &str) -> String {
        match &parse(sql).expect("it is read")[0].kind {
            StatementKind::Sql(sql) => sql.to_string(),
            _ => "another statement".into(),
        }
    }

    #[test]
    fn changelogs_are_subqueries_with_marks() {
        let marked = "(SELECT *, \"changelog op\"() AS \"changelog_op\", \
                      \"changelog number\"() AS \"_changelog_row_id\" FROM";
        assert_eq!(
            read("WITH c AS CHANGELOG FROM s.t SELECT * FROM c"),
            format!("WITH c AS {marked} s.t) SELECT * FROM c")
        );
        assert_eq!(
            read(
                "with a as (select 1), c (x) as changelog from t, d as changelog from u \
                 select x as changelog from c, d"
            ),
            format!(
                "WITH a AS (SELECT 1), c (x) AS {marked} t), d AS {marked} u) \
                 SELECT x AS changelog FROM c, d"
            )
        );
    }

    #[test]
    fn a_column_may_have_that_name() {
        for sql in [
            "SELECT f(a), b AS changelog FROM t",
            "WITH w AS (SELECT 1 AS x) SELECT f(a), x AS changelog FROM w",
        ] {
            assert_eq!(read(sql), sql);
        }
    }
}
