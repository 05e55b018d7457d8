//! Joins that go by time, which sqlparser does not read, as joins with a mark in their condition:
//!
//! ```text
//! a ASOF [LEFT] JOIN b ON c
//!     a [LEFT] JOIN b ON "asof join"() AND c
//! a ASOF [LEFT] JOIN b MATCH_CONDITION (m) ON c
//!     a [LEFT] JOIN b ON "asof join"() AND (m) AND c
//! a ASOF [LEFT] JOIN b USING (k, t)
//!     a [LEFT] JOIN b USING ("asof join", k, t)
//! a [LEFT] JOIN b FOR SYSTEM_TIME AS OF PROCTIME() ON c
//!     a [LEFT] JOIN b ON "temporal join"() AND c
//! ```
//!
//! What they mean is in [`crate::timed`], which takes the marks out of the plan again. Where words
//! stand otherwise than here, the statement is refused: nothing of them is ever left out.

use super::is_word;
use super::tokens::{keyword, quoted};
use crate::statement::Positions;
use crate::timed::{ASOF, TEMPORAL};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use std::collections::BTreeMap;
use tidemark_common::{Error, Result, SqlState};

/// Rewrites the joins of a statement.
///
/// Errors: `42601` without a condition, `0A000` for kinds of joins and times that are not known.
pub(super) fn joins(
    tokens: Vec<TokenWithSpan>,
    positions: &Positions,
) -> Result<Vec<TokenWithSpan>> {
    let some = |word: &str| tokens.iter().any(|t| is_word(&t.token, word));
    if !some("asof") && !some("system_time") {
        return Ok(tokens);
    }
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| !super::is_blank(&tokens[*i].token))
        .collect();
    let mut joins = Joins {
        tokens: &tokens,
        solid,
        positions,
        edits: BTreeMap::new(),
    };
    for at in 0..joins.solid.len() {
        joins.asof(at)?;
        joins.temporal(at)?;
    }
    let edits = joins.edits;
    let mut rewritten = Vec::with_capacity(tokens.len() + 8);
    for (i, token) in tokens.into_iter().enumerate() {
        match edits.get(&i) {
            None => rewritten.push(token),
            Some(instead) => rewritten.extend(instead.iter().map(|t| TokenWithSpan {
                token: t.clone(),
                span: token.span,
            })),
        }
    }
    Ok(rewritten)
}

struct Joins<'a> {
    tokens: &'a [TokenWithSpan],
    /// The tokens that are not blank.
    solid: Vec<usize>,
    positions: &'a Positions,
    /// What stands in place of tokens.
    edits: BTreeMap<usize, Vec<Token>>,
}

/// Words before which or behind which `asof` is a name.
const BEFORE_NAMES: [&str; 8] = [
    "as", "from", "join", "only", "lateral", "select", "update", "into",
];

/// Words that may stand before JOIN.
const KINDS: [&str; 11] = [
    "inner", "left", "right", "full", "outer", "cross", "natural", "semi", "anti", "any", "global",
];

/// Words at which the tables of FROM end.
const ENDS: [&str; 13] = [
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "join",
    "returning",
];

impl Joins<'_> {
    fn at(&self, at: usize) -> &Token {
        let token = self.solid.get(at).map(|i| &self.tokens[*i].token);
        token.unwrap_or(&Token::EOF)
    }

    fn is(&self, at: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(n, w)| is_word(self.at(at + n), w))
    }

    fn is_any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| is_word(self.at(at), word))
    }

    fn error(&self, at: usize, error: Error) -> Error {
        let token = self.solid.get(at).or(self.solid.last());
        let position = token.and_then(|i| self.positions.of(self.tokens[*i].span.start));
        match position {
            Some(position) => error.at(position),
            None => error,
        }
    }

    fn instead(&mut self, at: usize, tokens: Vec<Token>) {
        if let Some(i) = self.solid.get(at) {
            self.edits.insert(*i, tokens);
        }
    }

    /// `ASOF ..JOIN` at a place, if it is there.
    fn asof(&mut self, at: usize) -> Result<()> {
        let before = at.checked_sub(1).map(|before| self.at(before));
        let follows_table = match before {
            Some(Token::Word(word)) => {
                word.quote_style.is_some()
                    || !BEFORE_NAMES
                        .iter()
                        .any(|n| word.value.eq_ignore_ascii_case(n))
            }
            Some(token) => *token == Token::RParen,
            None => false,
        };
        if !follows_table || !is_word(self.at(at), "asof") {
            return Ok(());
        }
        let Some((kind, join)) = self.kind(at + 1) else {
            return Ok(());
        };
        if !matches!(kind, "inner" | "left") {
            let e = Error::unsupported(format!(
                "ASOF {} JOIN is not supported",
                kind.to_uppercase()
            ));
            let e = e.with_hint(
                "ASOF JOIN and ASOF LEFT JOIN are: let the row on the left look \
                                 for the one on the right.",
            );
            return Err(self.error(at, e));
        }
        self.instead(at, Vec::new());
        let constraint = self.constraint(join + 1, at, "ASOF JOIN")?;
        if self.is(constraint, &["match_condition"]) {
            return self.match_condition(constraint);
        }
        self.mark(constraint, ASOF);
        Ok(())
    }

    /// The kind of a join whose words begin here, and where its JOIN is.
    fn kind(&self, at: usize) -> Option<(&'static str, usize)> {
        let mut words = Vec::new();
        while let Some(word) = KINDS.into_iter().find(|w| self.is(at + words.len(), &[*w])) {
            words.push(word);
        }
        let join = at + words.len();
        let kind = match words.as_slice() {
            [] | ["inner"] => "inner",
            ["left"] | ["left", "outer"] => "left",
            words => words.iter().find(|w| !["left", "inner"].contains(w))?,
        };
        self.is(join, &["join"]).then_some((kind, join))
    }

    /// Where the condition begins of a join whose right side begins here.
    fn constraint(&self, right: usize, join: usize, what: &str) -> Result<usize> {
        let mut depth = 0;
        for at in right..self.solid.len() {
            match self.at(at) {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket if depth == 0 => break,
                Token::RParen | Token::RBracket => depth -= 1,
                Token::Comma if depth == 0 => break,
                _ if depth > 0 => {}
                _ if self.is_any(at, &["on", "using", "match_condition"]) => return Ok(at),
                _ if self.is_any(at, &ENDS) => break,
                _ => {}
            }
        }
        let e = Error::user(
            SqlState::SYNTAX_ERROR,
            format!("{what} needs a condition, right behind the table that is joined"),
        );
        Err(self.error(join, e))
    }

    /// Puts a mark into a condition.
    fn mark(&mut self, constraint: usize, mark: &str) {
        let word = |mark: &str| quoted(mark);
        if self.is(constraint, &["on"]) {
            let mut tokens = vec![self.at(constraint).clone()];
            tokens.extend(call(mark));
            self.instead(constraint, tokens);
        } else {
            self.instead(
                constraint + 1,
                vec![Token::LParen, word(mark), Token::Comma],
            );
        }
    }

    /// `MATCH_CONDITION (m) [ON c]`.
    fn match_condition(&mut self, at: usize) -> Result<()> {
        let mut depth = 0;
        let end = (at + 1..self.solid.len()).find(|i| {
            match self.at(*i) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(end) = end.filter(|end| *end > at + 1) else {
            let e = "MATCH_CONDITION needs a condition in parentheses";
            return Err(self.error(at, Error::user(SqlState::SYNTAX_ERROR, e)));
        };
        if self.is(end + 1, &["using"]) {
            let e = Error::unsupported("MATCH_CONDITION with USING is not supported");
            return Err(self.error(end + 1, e.with_hint("Write the equalities with ON.")));
        }
        if self.is(end + 1, &["on"]) {
            self.instead(end + 1, vec![keyword("AND")]);
        }
        let mut tokens = vec![keyword("ON")];
        tokens.extend(call(ASOF));
        self.instead(at, tokens);
        Ok(())
    }

    /// `FOR SYSTEM_TIME AS OF PROCTIME()` at a place, if it is there.
    fn temporal(&mut self, at: usize) -> Result<()> {
        if !self.is(at, &["for", "system_time", "as", "of"]) {
            return Ok(());
        }
        let time = at + 4;
        let called = self.is_any(time, &["proctime", "now"])
            && [self.at(time + 1), self.at(time + 2)] == [&Token::LParen, &Token::RParen];
        let end = match called {
            true => time + 3,
            false if self.is(time, &["current_timestamp"]) => time + 1,
            false => {
                let e = Error::unsupported(
                    "FOR SYSTEM_TIME AS OF is not supported with another time than PROCTIME()",
                );
                let e = e.with_hint(
                    "A row is joined with what the table holds when the row comes; its earlier \
                     content is not kept.",
                );
                return Err(self.error(time, e));
            }
        };
        let misplaced = Error::unsupported(
            "FOR SYSTEM_TIME AS OF is only supported right behind the name of a table that is \
             joined",
        );
        let misplaced = misplaced.with_hint(
            "Write FROM s [LEFT] JOIN t FOR SYSTEM_TIME AS OF PROCTIME() [AS alias] ON condition.",
        );
        // The name, with its schema.
        let is_name = |at: usize| matches!(self.at(at), Token::Word(_));
        let mut name = at.checked_sub(1).filter(|name| is_name(*name));
        while let Some(first) = name
            && first >= 2
            && *self.at(first - 1) == Token::Period
        {
            name = Some(first - 2);
        }
        let join = name.and_then(|name| name.checked_sub(1));
        let Some(join) = join.filter(|join| self.is(*join, &["join"])) else {
            return Err(self.error(at, misplaced));
        };
        let word = |back: usize, words: &[&str]| {
            join.checked_sub(back)
                .is_some_and(|at| self.is_any(at, words))
        };
        let kind = 1 + usize::from(word(1, &["outer"]));
        let asof = word(kind, &["asof"]) || word(kind + 1, &["asof"]);
        if word(kind, &["right", "full", "cross", "natural"]) || asof {
            let e = Error::unsupported("a temporal join is an inner or a left join");
            return Err(self.error(at, e));
        }
        (at..end).for_each(|i| self.instead(i, Vec::new()));
        let constraint = self.constraint(end, at, "a temporal join")?;
        if self.is(constraint, &["match_condition"]) {
            return Err(self.error(constraint, misplaced));
        }
        self.mark(constraint, TEMPORAL);
        Ok(())
    }
}

/// `"mark"() AND`.
fn call(mark: &str) -> [Token; 4] {
    [quoted(mark), Token::LParen, Token::RParen, keyword("AND")]
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;
    use crate::statement::StatementKind;

    fn read(sql: &str) -> String {
        match parse(sql) {
            Ok(statements) => match &statements[0].kind {
                StatementKind::Sql(sql) => sql.to_string(),
                _ => "another statement".into(),
            },
            Err(e) => format!("{} {}", e.state().0, e.message()),
        }
    }

    #[test]
    fn joins_get_marks() {
        for (sql, expected) in [
            (
                "select * from a asof join b on a.k = b.k and a.t >= b.t",
                "SELECT * FROM a JOIN b ON A() AND a.k = b.k AND a.t >= b.t",
            ),
            (
                "select * from (select 1) a asof left outer join s.b x on a.t > x.t, c",
                "SELECT * FROM (SELECT 1) a LEFT OUTER JOIN s.b x ON A() AND a.t > x.t, c",
            ),
            (
                "select * from a ASOF JOIN (select 1 from u join v on u.a = v.a) b using (k, t)",
                "SELECT * FROM a JOIN (SELECT 1 FROM u JOIN v ON u.a = v.a) b USING(A, k, t)",
            ),
            (
                "select * from a asof join b match_condition (a.t >= b.t) on a.k = b.k where true",
                "SELECT * FROM a JOIN b ON A() AND (a.t >= b.t) AND a.k = b.k WHERE true",
            ),
            (
                "select * from a asof join b match_condition (a.t >= b.t)",
                "SELECT * FROM a JOIN b ON A() AND (a.t >= b.t)",
            ),
            (
                "select * from s join t for system_time as of proctime() x on s.k = x.k",
                "SELECT * FROM s JOIN t x ON T() AND s.k = x.k",
            ),
            (
                "select * from s left join p.t for system_time as of now() using (k)",
                "SELECT * FROM s LEFT JOIN p.t USING(T, k)",
            ),
            // Names.
            (
                "select asof from t as asof join u on true",
                "SELECT asof FROM t AS asof JOIN u ON true",
            ),
            (
                "select * from asof join b on true",
                "SELECT * FROM asof JOIN b ON true",
            ),
        ] {
            let said = read(sql).replace("\"asof join\"", "A");
            let said = said.replace("\"temporal join\"", "T");
            let said = said.replace(" AS a ", " a ").replace(" AS x ", " x ");
            assert_eq!(said, expected);
        }
        for (sql, state) in [
            ("select * from a asof right join b on a.t >= b.t", "0A000"),
            ("select * from a asof join b", "42601"),
            (
                "select * from a asof join b join c on true on a.t >= b.t",
                "42601",
            ),
            ("select * from s for system_time as of proctime()", "0A000"),
            (
                "select * from a join t for system_time as of '2020-01-01' on true",
                "0A000",
            ),
            (
                "select * from a, t for system_time as of proctime()",
                "0A000",
            ),
            (
                "select * from a full join t for system_time as of proctime() on true",
                "0A000",
            ),
            (
                "select * from a join t for system_time as of proctime()",
                "42601",
            ),
            (
                "select * from a asof join t for system_time as of proctime() on true",
                "0A000",
            ),
        ] {
            let said = read(sql);
            assert!(said.starts_with(state), "{sql}: {said}");
        }
    }
}
