//! The law of materialized views, checked: for every view V over inputs I and every epoch e, V(e) =
//! Q(I(e)).
//!
//! The views that a script creates are remembered with their queries' text. A check reads the view
//! and runs the query ad hoc in one transaction, that is in one epoch, and compares the two results
//! as multisets of the texts that a client sees. So the streaming operators (with their deltas,
//! retractions and restored state) are held to the batch engine, which has none of them.

use crate::client::{ClientError, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Rows of a difference that are shown.
const SHOWN_MAX: usize = 10;

/// The views of one script.
#[derive(Default)]
pub struct Views {
    queries: BTreeMap<String, String>,
    excluded: BTreeSet<String>,
    in_transaction: bool,
}

impl Views {
    /// Learns from a statement that succeeded: views that it created, a transaction that it opened
    /// or ended. Returns whether the views should be checked now.
    pub fn observe(&mut self, sql: &str) -> bool {
        let sql = without_comments(sql);
        let first = sql
            .split_whitespace()
            .next()
            .unwrap_or("")
            .trim_end_matches(';')
            .to_lowercase();
        match first.as_str() {
            "begin" | "start" => self.in_transaction = true,
            "commit" | "end" | "rollback" | "abort" => self.in_transaction = false,
            "create" => {
                if let Some((name, query)) =
                    definition(&sql).filter(|(name, _)| !self.excluded.contains(name))
                {
                    self.queries.insert(name, query);
                }
            }
            _ => {}
        }
        !self.in_transaction
            && [
                "create", "insert", "update", "delete", "commit", "end", "copy", "flush",
            ]
            .contains(&first.as_str())
    }

    /// Leaves a view out of the checks, whether it exists already or not.
    pub fn exclude(&mut self, name: &str) {
        self.excluded.insert(name.into());
        self.queries.remove(name);
    }

    /// A connection was lost, and its transaction with it.
    pub fn disconnected(&mut self) {
        self.in_transaction = false;
    }

    /// Compares every view with its query, unless a transaction is open, and answers what differs.
    /// Views that no longer exist are forgotten, and so are views that differ: one report of each
    /// is enough.
    pub async fn check(&mut self, session: &Session) -> Vec<String> {
        let mut differences = Vec::new();
        if self.in_transaction {
            return differences;
        }
        let names: Vec<String> = self.queries.keys().cloned().collect();
        for name in names {
            let query = self.queries[&name].clone();
            let compared = compare(session, &name, &query).await;
            let ended = session.run("COMMIT").await;
            let different = match compared {
                Ok(None) => ended
                    .err()
                    .map(|e| format!("COMMIT after reading view {name}: {e}")),
                Ok(Some(difference)) => Some(difference),
                Err((Read::View, e)) if e.state == "42P01" => {
                    self.queries.remove(&name);
                    None
                }
                Err((Read::View, e)) => Some(format!("view {name} cannot be read: {e}")),
                Err((Read::Query, e)) => Some(format!(
                    "the query of view {name} fails when run ad hoc: {e}\n[SQL] {query}"
                )),
            };
            if let Some(different) = different {
                self.queries.remove(&name);
                differences.push(different);
            }
        }
        differences
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    View,
    Query,
}

/// The difference between a view and its query, if there is one.
async fn compare(
    session: &Session,
    name: &str,
    query: &str,
) -> Result<Option<String>, (Read, ClientError)> {
    session.run("BEGIN").await.map_err(|e| (Read::View, e))?;
    let view = session
        .rows(&format!("SELECT * FROM {name}"))
        .await
        .map_err(|e| (Read::View, e))?;
    let plain = session.rows(query).await.map_err(|e| (Read::Query, e))?;
    Ok(difference(name, view, plain))
}

/// What a view has too much and too little, as text; none if it agrees with its query.
fn difference(name: &str, view: Vec<Vec<String>>, plain: Vec<Vec<String>>) -> Option<String> {
    let mut counts: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    let sizes = (view.len(), plain.len());
    for row in view {
        *counts.entry(row).or_default() += 1;
    }
    for row in plain {
        *counts.entry(row).or_default() -= 1;
    }
    counts.retain(|_, n| *n != 0);
    if counts.is_empty() {
        return None;
    }
    let mut text = format!(
        "view {name} has {} rows, its query {}; (-query|+view)",
        sizes.0, sizes.1
    );
    for (row, n) in counts.iter().take(SHOWN_MAX) {
        let _ = write!(
            text,
            "\n{} {}{}",
            if *n > 0 { '+' } else { '-' },
            row.join(" | "),
            if n.abs() > 1 {
                format!("   ({} times)", n.abs())
            } else {
                String::new()
            }
        );
    }
    if counts.len() > SHOWN_MAX {
        let _ = write!(text, "\n... and {} more rows", counts.len() - SHOWN_MAX);
    }
    Some(text)
}

/// The text without its `--` comments at line starts, and without a final semicolon.
fn without_comments(sql: &str) -> String {
    let lines: Vec<&str> = sql
        .lines()
        .filter(|l| !l.trim_start().starts_with("--"))
        .collect();
    lines.join("\n").trim().trim_end_matches(';').to_string()
}

/// Name and query of `CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] v [(...)] [WITH (...)]
/// AS query`.
fn definition(sql: &str) -> Option<(String, String)> {
    let mut rest = sql;
    let mut word = |wanted: &str| {
        let trimmed = rest.trim_start();
        let found = trimmed
            .get(..wanted.len())
            .is_some_and(|w| w.eq_ignore_ascii_case(wanted))
            && trimmed[wanted.len()..].starts_with(char::is_whitespace);
        if found {
            rest = &trimmed[wanted.len()..];
        }
        found
    };
    if !word("create") {
        return None;
    }
    if word("or") {
        word("replace");
    }
    if !(word("materialized") && word("view")) {
        return None;
    }
    if word("if") {
        let _ = word("not") && word("exists");
    }
    let rest = rest.trim_start();
    let end = rest.find(|c: char| c.is_whitespace() || c == '(')?;
    Some((
        rest[..end].to_string(),
        after_as(&rest[end..])?.trim().to_string(),
    ))
}

/// What follows the first AS outside of parentheses and quotes.
fn after_as(text: &str) -> Option<&str> {
    let (mut depth, mut quote, mut boundary) = (0, None, true);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), _) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, 'a' | 'A') if depth == 0 && boundary => {
                let word: String = text[i..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if word.eq_ignore_ascii_case("as") {
                    return Some(&text[i + 2..]);
                }
            }
            _ => {}
        }
        boundary = !(c.is_alphanumeric() || c == '_');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_found() {
        let cases = [
            (
                "create materialized view v as select 1",
                Some(("v", "select 1")),
            ),
            (
                "CREATE OR REPLACE MATERIALIZED VIEW IF NOT EXISTS s.v (a, basic) WITH (on_error = \
                 'as') AS\n SELECT x AS y FROM t",
                Some(("s.v", "SELECT x AS y FROM t")),
            ),
            ("create view v as select 1", None),
            ("create table t (a int)", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(
                definition(sql),
                expected.map(|(n, q)| (n.to_string(), q.to_string())),
                "{sql}"
            );
        }
    }

    #[test]
    fn differences_count_multiplicity() {
        let rows = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| vec![t.to_string()])
                .collect::<Vec<_>>()
        };
        assert_eq!(
            difference("v", rows(&["a", "b", "a"]), rows(&["a", "a", "b"])),
            None
        );
        assert_eq!(
            difference("v", rows(&["a", "a", "c"]), rows(&["a", "b"])).unwrap(),
            "view v has 3 rows, its query 2; (-query|+view)\n+ a\n- b\n+ c"
        );
    }

    #[test]
    fn transactions_hold_checks_back() {
        let mut views = Views::default();
        assert!(views.observe("insert into t values (1)"));
        assert!(!views.observe("BEGIN;"));
        assert!(!views.observe("insert into t values (1)"));
        assert!(views.observe("-- a comment\ncommit"));
        assert!(!views.observe("select 1"));
    }
}
