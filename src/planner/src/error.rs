//! DataFusion's errors in PostgreSQL's words and codes: the only translation there is, for views
//! and for ad-hoc queries, for planning and for running. Where DataFusion has structure (schema
//! errors, diagnostics with spans, our own errors carried through) it is used; where it has text
//! only, the text is recognised ([`text`]). What is left over is said in SQL's words as far as it
//! has any ([`messages`](tidemark_plan::messages)).
//!
//! A statement that cannot be planned is the statement's error: `0A000` where nothing better is
//! known. An error that nobody expected of one that runs is `XX000`.

mod syntax;
mod text;

use crate::names::similar;
use crate::statement::Positions;
use datafusion_common::{DataFusionError, SchemaError};
use datafusion_sql::sqlparser::tokenizer::Location;
use tidemark_common::{Error, SqlState};
use tidemark_plan::messages::{arrow_error, plain};

pub(crate) use syntax::parser_error;

/// Wraps our own error so that it comes out of DataFusion unchanged.
pub(crate) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Translates an error of planning.
pub(crate) fn to_error(error: DataFusionError, positions: &Positions) -> Error {
    Translation {
        positions,
        planning: true,
    }
    .error(&error)
}

/// Translates an error of planning that has no positions.
pub fn from_planning(error: DataFusionError) -> Error {
    to_error(error, &Positions::default())
}

/// Translates an error of a statement that runs.
pub fn from_datafusion(error: DataFusionError) -> Error {
    Translation {
        positions: &Positions::default(),
        planning: false,
    }
    .error(&error)
}

struct Translation<'a> {
    positions: &'a Positions,
    planning: bool,
}

impl Translation<'_> {
    fn error(&self, error: &DataFusionError) -> Error {
        match error {
            DataFusionError::Context(_, inner) => self.error(inner),
            DataFusionError::Shared(inner) => self.error(inner),
            DataFusionError::Collection(all) => match all.first() {
                Some(first) => self.error(first),
                None => Error::internal("planning failed"),
            },
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let position = diagnostic.span.and_then(|s| {
                    self.positions.of(Location {
                        line: s.start.line,
                        column: s.start.column,
                    })
                });
                let error = self.error(inner);
                match position {
                    Some(position) if error.position().is_none() => error.at(position),
                    _ => error,
                }
            }
            DataFusionError::External(inner) => self.foreign(inner.as_ref()),
            DataFusionError::SchemaError(schema, _) => schema_error(schema),
            DataFusionError::NotImplemented(text) => text::not_implemented(text),
            DataFusionError::SQL(parser, _) => parser_error((**parser).clone(), self.positions),
            DataFusionError::Plan(text) | DataFusionError::Configuration(text) => {
                text::recognised(text).unwrap_or_else(|| unsupported(text))
            }
            DataFusionError::Execution(text) => text::recognised(text)
                .unwrap_or_else(|| Error::user(SqlState::INVALID_PARAMETER, plain(text))),
            DataFusionError::ArrowError(arrow, _) => {
                text::recognised_arrow(arrow).unwrap_or_else(|| arrow_error(arrow))
            }
            DataFusionError::ResourcesExhausted(text) => out_of_memory(text),
            DataFusionError::IoError(e) => std::io::Error::new(e.kind(), e.to_string()).into(),
            DataFusionError::ExecutionJoin(e) => {
                Error::internal(format!("a thread of the query ended: {e}"))
            }
            other => self.unexpected(&other.strip_backtrace()),
        }
    }

    /// An error of somebody else's that DataFusion carries.
    fn foreign(&self, inner: &(dyn std::error::Error + 'static)) -> Error {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        if let Some(error) = inner.downcast_ref::<DataFusionError>() {
            return self.error(error);
        }
        if let Some(arrow) = inner.downcast_ref() {
            return arrow_error(arrow);
        }
        let said = inner.to_string();
        text::recognised(&said).unwrap_or_else(|| Error::internal(plain(&said)))
    }

    fn unexpected(&self, text: &str) -> Error {
        if let Some(known) = text::recognised(text) {
            known
        } else if self.planning {
            unsupported(text)
        } else {
            Error::internal(plain(text))
        }
    }
}

/// `53200`, with what the memory of queries says of it; around that DataFusion names its operators.
fn out_of_memory(text: &str) -> Error {
    let error = Error::unavailable(SqlState::OUT_OF_MEMORY, "out of memory");
    let said = text.find("The query asked for").map(|at| &text[at..]);
    let said = said.map(|said| said.split_inclusive(". ").next().unwrap_or(said).trim_end());
    let error = match said.and_then(|said| said.lines().next()) {
        Some(said) => error.with_detail(said),
        None => error,
    };
    error.with_hint(
        "Ask for fewer rows or columns at once, or give the query more: SET query_memory_max, \
         within the node's query_memory.",
    )
}

/// What cannot be planned, and why as far as that can be said.
fn unsupported(text: &str) -> Error {
    let why = plain(text);
    Error::unsupported(if text::says_nothing(&why) {
        "this statement is not supported".to_string()
    } else {
        why
    })
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            // A column that decorrelation did not take to where it is asked for.
            if field.name.starts_with("__derived_") {
                return Error::unsupported("this kind of subquery is not supported");
            }
            let message = match &field.relation {
                Some(relation) => {
                    format!("column {}.{} does not exist", relation.table(), field.name)
                }
                None => format!("column \"{}\" does not exist", field.name),
            };
            let error = Error::user(SqlState::UNDEFINED_COLUMN, message);
            if let Some(relation) = &field.relation
                && !valid_fields.is_empty()
                && !valid_fields.iter().any(|f| {
                    f.relation
                        .as_ref()
                        .is_some_and(|r| r.table() == relation.table())
                })
            {
                return Error::user(
                    SqlState::UNDEFINED_TABLE,
                    format!(
                        "missing FROM-clause entry for table \"{}\"",
                        relation.table()
                    ),
                );
            }
            match similar(&field.name, valid_fields.iter().map(|f| f.name.as_str())) {
                Some(close) => error.with_hint(format!(
                    "Perhaps you meant to reference the column \"{close}\"."
                )),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => Error::user(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => Error::user(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{name}\" specified more than once"),
        )
        .with_hint("Give the columns different names with AS."),
    }
}
