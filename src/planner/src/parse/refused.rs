//! Statements that PostgreSQL has and Tidemark does not: they are known by their first words and
//! refused as a whole (`0A000`), whatever follows. A statement that sqlparser cannot read is
//! looked through for what PostgreSQL's grammar has beyond sqlparser's: then that is what is
//! refused, all of it at once, and it is no syntax error.

use super::{Front, is_blank, is_word};
use datafusion_sql::sqlparser::tokenizer::TokenWithSpan;
use tidemark_common::{Error, SqlState};

/// What CREATE, ALTER and DROP can be about and is not supported, with what helps instead.
const OBJECTS: &[(&str, &str)] = &[
    ("access method", ""),
    ("aggregate", ""),
    ("cast", ""),
    ("collation", ""),
    ("connection", "Give the options to each source or sink."),
    ("constraint trigger", ""),
    ("conversion", ""),
    ("database", "The database is \"dev\"; schemas part it."),
    (
        "domain",
        "Use the type below the domain, and conditions in views.",
    ),
    ("event trigger", ""),
    ("extension", ""),
    (
        "foreign data wrapper",
        "CREATE SOURCE reads data from elsewhere.",
    ),
    ("foreign table", "CREATE SOURCE reads data from elsewhere."),
    ("group", "CREATE ROLE makes a role."),
    ("language", ""),
    ("large object", ""),
    ("operator", ""),
    ("policy", "A view shows the rows that it selects."),
    ("procedural language", ""),
    ("procedure", ""),
    ("publication", "CREATE SINK sends a relation's changes."),
    ("recursive view", ""),
    ("routine", ""),
    ("rule", ""),
    (
        "sequence",
        "A generated key can come from the client, or be a uuid.",
    ),
    ("server", "CREATE SOURCE reads data from elsewhere."),
    ("statistics", ""),
    ("unlogged table", ""),
    ("system", ""),
    ("tablespace", ""),
    ("text search", ""),
    ("transform", ""),
    (
        "trigger",
        "A materialized view follows the changes of what it reads.",
    ),
    ("type", ""),
    ("user mapping", ""),
];

/// Other statements, by their first words.
const STATEMENTS: &[(&str, &str)] = &[
    ("call", ""),
    ("checkpoint", "SHOW CHECKPOINTS lists those that were made."),
    ("cluster", ""),
    ("commit prepared", ""),
    ("do", ""),
    ("drop owned", ""),
    ("import foreign schema", ""),
    ("load", ""),
    (
        "lock",
        "SELECT .. FOR UPDATE locks tables in a transaction.",
    ),
    ("merge", "Use INSERT .. ON CONFLICT."),
    ("prepare transaction", ""),
    ("reassign owned", ""),
    ("reindex", ""),
    ("rollback prepared", ""),
    ("security label", ""),
    ("set constraints", ""),
    ("vacuum full", ""),
];

/// Words that may stand between CREATE and what is created.
const MODIFIERS: &[&str] = &["or", "replace", "trusted", "default"];

/// Clauses that sqlparser does not read, by their words; `(` and its like are themselves, `_` is
/// anything. What is refused is the clause's name.
const CLAUSES: &[(&[&str], &str)] = &[
    (&["rows", "from", "("], "ROWS FROM"),
    (&["with", "ordinality"], "WITH ORDINALITY"),
    (&["overlaps"], "OVERLAPS"),
    (&["tablesample"], "TABLESAMPLE"),
    (&["current", "of"], "WHERE CURRENT OF"),
    (&["for", "update", "limit"], "LIMIT behind FOR UPDATE"),
    (&["for", "share", "limit"], "LIMIT behind FOR SHARE"),
    (&["for", "no", "key", "update"], "FOR NO KEY UPDATE"),
    (&["for", "key", "share"], "FOR KEY SHARE"),
    (&["search", "breadth", "first"], "SEARCH BREADTH FIRST"),
    (&["search", "depth", "first"], "SEARCH DEPTH FIRST"),
    (&["group", "by", "distinct"], "GROUP BY DISTINCT"),
    (&["is", "document"], "IS DOCUMENT"),
    (&["is", "not", "document"], "IS DOCUMENT"),
    (&["is", "json"], "IS JSON"),
    (&["operator", "("], "OPERATOR()"),
    (&["xmlelement", "("], "XMLELEMENT"),
    (&["xmlforest", "("], "XMLFOREST"),
    (&["xmlpi", "("], "XMLPI"),
    (&["xmlparse", "("], "XMLPARSE"),
    (&["xmlserialize", "("], "XMLSERIALIZE"),
    (&["xmltable", "("], "XMLTABLE"),
    (&["xmlexists", "("], "XMLEXISTS"),
    (&["treat", "("], "TREAT"),
    (&["collation", "for", "("], "COLLATION FOR"),
    (&["inherits", "("], "INHERITS"),
    (&["partition", "of"], "PARTITION OF"),
    (&["exclude", "using"], "EXCLUDE constraints"),
    (&["on", "commit"], "ON COMMIT"),
    (&["using", "index", "tablespace"], "USING INDEX TABLESPACE"),
    (&["with", "no", "data"], "WITH NO DATA"),
    (&["with", "check", "option"], "WITH CHECK OPTION"),
    (
        &["with", "cascaded", "check", "option"],
        "WITH CHECK OPTION",
    ),
    (&["with", "local", "check", "option"], "WITH CHECK OPTION"),
    (&["not", "valid"], "NOT VALID"),
    (&["and", "chain"], "AND CHAIN"),
    (&["authorization"], "AUTHORIZATION"),
    (
        &["create", "schema", "_", "create"],
        "CREATE SCHEMA with its elements",
    ),
    (&["cycle", "_", "set"], "CYCLE"),
    (&[")", "partition", "by"], "PARTITION BY"),
    (
        &["set", "_", "["],
        "an assignment to an element of an array",
    ),
    (
        &["similar", "_", "escape"],
        "SUBSTRING .. SIMILAR .. ESCAPE",
    ),
    (&["using", "<"], "ORDER BY .. USING"),
    (&["using", ">"], "ORDER BY .. USING"),
    (&["variadic"], "VARIADIC"),
    (
        &["overriding", "system", "value"],
        "OVERRIDING SYSTEM VALUE",
    ),
    (&["overriding", "user", "value"], "OVERRIDING USER VALUE"),
];

/// Tokens behind a clause that a parser may have read before it gives up.
const STUMBLES: usize = 3;

fn words(phrase: &str) -> impl Iterator<Item = &str> {
    phrase.split(' ')
}

impl Front<'_> {
    /// `0A000` for a statement that is known by its first words and not supported.
    pub(super) fn refused(&self) -> Option<Error> {
        let starts = |from: usize, phrase: &str| {
            words(phrase)
                .enumerate()
                .all(|(n, w)| is_word(&self.parser.peek_nth_token_ref(from + n).token, w))
        };
        let refused = |what: String, hint: &str| {
            let error = Error::unsupported(format!("{} is not supported", what.to_uppercase()))
                .at(self.position().max(1));
            Some(if hint.is_empty() {
                error
            } else {
                error.with_hint(hint)
            })
        };
        if let Some((phrase, hint)) = STATEMENTS.iter().find(|(p, _)| starts(0, p)) {
            return refused((*phrase).into(), hint);
        }
        let verb = ["create", "alter", "drop"]
            .into_iter()
            .find(|verb| self.at_word(verb))?;
        let mut from = 1;
        while MODIFIERS
            .iter()
            .any(|w| is_word(&self.parser.peek_nth_token_ref(from).token, w))
        {
            from += 1;
        }
        let (object, hint) = OBJECTS.iter().find(|(object, _)| starts(from, object))?;
        refused(format!("{verb} {object}"), hint)
    }

    /// A statement that could not be read: what is refused in it if PostgreSQL could, else the
    /// error of the parser.
    pub(super) fn unread(&self, error: Error) -> Error {
        if error.state() != SqlState::SYNTAX_ERROR {
            return error;
        }
        let solid: Vec<&TokenWithSpan> =
            self.tokens.iter().filter(|t| !is_blank(&t.token)).collect();
        let is = |at: usize, word: &str| {
            solid.get(at).is_some_and(|t| match word {
                "_" => true,
                "(" | ")" | "[" | "<" | ">" => t.token.to_string() == word,
                word => is_word(&t.token, word),
            })
        };
        let position = |at: usize| self.positions.of(solid[at].span.start).unwrap_or(0);
        // The token that the parser stumbled over.
        let known = error.position().unwrap_or(usize::MAX);
        let stumbled = (0..solid.len())
            .position(|at| position(at) >= known)
            .unwrap_or(solid.len());
        let (mut first, mut others) = (None, Vec::new());
        for at in 0..solid.len() {
            let clause = CLAUSES
                .iter()
                .find(|(words, _)| words.iter().enumerate().all(|(n, word)| is(at + n, word)));
            let Some((words, name)) = clause else {
                continue;
            };
            let near = at <= stumbled && stumbled <= at + words.len() + STUMBLES;
            if near && first.is_none() {
                first = Some((position(at), *name));
            } else {
                others.push((position(at), *name));
            }
        }
        match first {
            Some(first) => refused_clauses(first, &others),
            None => error,
        }
    }
}

/// All of them in one error: the first in the message, the others in the detail.
fn refused_clauses((position, name): (usize, &str), others: &[(usize, &str)]) -> Error {
    let error = Error::unsupported(format!("{name} is not supported")).at(position.max(1));
    if others.is_empty() {
        return error;
    }
    let others: Vec<String> = others
        .iter()
        .map(|(position, name)| format!("{name} at character {position}"))
        .collect();
    error.with_detail(format!("Not supported are also: {}.", others.join(", ")))
}
