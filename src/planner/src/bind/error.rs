//! DataFusion's errors in PostgreSQL's words and codes. Where DataFusion has structure (schema
//! errors, diagnostics with spans, our own errors carried through) it is used; where it has text
//! only, the text is recognised.

use crate::statement::Positions;
use datafusion_common::{DataFusionError, SchemaError};
use tidemark_common::{Error, SqlState};

/// Wraps our own error so that it comes out of DataFusion unchanged.
pub(crate) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Translates an error of planning.
pub(crate) fn to_error(error: DataFusionError, positions: &Positions) -> Error {
    match error {
        DataFusionError::Context(_, inner) => to_error(*inner, positions),
        DataFusionError::Shared(inner) => shared(&inner, positions),
        DataFusionError::Collection(all) => all.into_iter().next().map_or_else(
            || Error::internal("planning failed"),
            |e| to_error(e, positions),
        ),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let position = diagnostic.span.and_then(|s| {
                positions.of(datafusion_sql::sqlparser::tokenizer::Location {
                    line: s.start.line,
                    column: s.start.column,
                })
            });
            let error = to_error(*inner, positions);
            match position {
                Some(position) if error.position().is_none() => error.at(position),
                _ => error,
            }
        }
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => Error::internal(other.to_string()),
        },
        DataFusionError::SchemaError(schema, _) => schema_error(*schema),
        DataFusionError::NotImplemented(text) if text.contains("Recursive CTE") => {
            Error::unsupported("WITH RECURSIVE is not supported")
        }
        DataFusionError::NotImplemented(text) if text.contains("array literal") => {
            Error::unsupported("ARRAY[...] is not supported")
        }
        DataFusionError::NotImplemented(text) => {
            Error::unsupported(lower_first(&first_line(&text)))
        }
        DataFusionError::SQL(parser, _) => crate::parse::parser_error(*parser, positions),
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Configuration(text) => by_text(&text),
        DataFusionError::ArrowError(arrow, _) => by_text(&arrow.to_string()),
        DataFusionError::Internal(text) if text.contains("No functions registered") => {
            by_text(&text)
        }
        other => Error::internal(first_line(&other.to_string())),
    }
}

/// An error behind an `Arc` cannot be moved out of.
fn shared(error: &DataFusionError, positions: &Positions) -> Error {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            shared(inner, positions)
        }
        DataFusionError::External(inner) => inner
            .downcast_ref::<Error>()
            .cloned()
            .unwrap_or_else(|| Error::internal(inner.to_string())),
        other => by_text(&other.to_string()),
    }
}

fn schema_error(error: SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
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
            match super::similar(&field.name, valid_fields.iter().map(|f| f.name.as_str())) {
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
        ),
    }
}

fn by_text(text: &str) -> Error {
    let has = |part: &str| text.contains(part);
    if let Some(rest) = text.split_once("Invalid function '").map(|(_, rest)| rest) {
        let (name, rest) = rest.split_once('\'').unwrap_or((rest, ""));
        let error = Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        );
        return match rest
            .split_once("Did you mean '")
            .and_then(|(_, close)| close.split('\'').next())
        {
            Some(close) if super::similar(name, [close]).is_some() => {
                error.with_hint(format!("Perhaps you meant \"{close}\"."))
            }
            _ => error.with_hint("No function matches the given name."),
        };
    }
    if has("No function matches the given name and argument types")
        || has("does not accept")
        || has("Failed to coerce arguments")
        || has("Expect") && has("argument")
    {
        return Error::user(SqlState::UNDEFINED_FUNCTION, function_message(text))
            .with_hint("You might need to add explicit type casts.");
    }
    if has("Cannot infer common argument type for comparison")
        || has("Cannot coerce arithmetic expression")
        || has("There isn't result type")
        || has("Cannot get result type")
    {
        return Error::user(SqlState::UNDEFINED_FUNCTION, operator_message(text))
            .with_hint("You might need to add explicit type casts.");
    }
    if let Some(column) = text
        .split_once("Column in SELECT must be in GROUP BY")
        .and_then(|(_, rest)| rest.split('"').nth(1))
    {
        return Error::user(
            SqlState::GROUPING_ERROR,
            format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate \
                 function"
            ),
        );
    }
    if let Some(expression) = text
        .split_once("unique expression names but the expression \"")
        .and_then(|(_, rest)| rest.split("\" at position").next())
    {
        let name = expression.rsplit(" AS ").next().unwrap_or(expression);
        let error = Error::user(
            SqlState::DUPLICATE_COLUMN,
            format!(
                "column \"{}\" specified more than once",
                name.rsplit('.').next().unwrap_or(name)
            ),
        );
        return error.with_hint("Give it another name with AS.");
    }
    if let Some(found) = text
        .split_once("Cannot create filter with non-boolean predicate")
        .and_then(|(_, rest)| rest.rsplit(" returning ").next())
    {
        return Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "argument of WHERE must be type boolean, not type {}",
                sql_types(found.trim())
            ),
        );
    }
    if has("logical boolean operation") || has("requires a boolean expression") {
        return Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "arguments of AND, OR and NOT must be boolean: {}",
                sql_types(
                    first_line(text)
                        .rsplit("operation ")
                        .next()
                        .unwrap_or("")
                        .trim_start_matches("Unary operator 'NOT' requires a boolean expression, ")
                )
            ),
        );
    }
    let state = match () {
        () if has("must be in GROUP BY")
            || has("must appear in the GROUP BY")
            || has("could not be resolved from available columns")
            || has("aggregate function calls cannot be nested") =>
        {
            SqlState::GROUPING_ERROR
        }
        () if has("table") && has("not found") => SqlState::UNDEFINED_TABLE,
        () if has("Cannot cast string") || has("Error parsing") || has("Parser error") => {
            SqlState::INVALID_TEXT
        }
        () if has("must have the same number of columns")
            || has("different number of columns")
            || has("number of columns") =>
        {
            SqlState::SYNTAX_ERROR
        }
        () if has("coerc") || has("incompatible") || has("Cannot cast") || has("type") => {
            SqlState::DATATYPE_MISMATCH
        }
        () if has("Overflow") || has("overflow") => SqlState::NUMERIC_OUT_OF_RANGE,
        () if has("DISTINCT") || has("not supported") || has("Unsupported") => {
            SqlState::FEATURE_NOT_SUPPORTED
        }
        () => SqlState::SYNTAX_ERROR,
    };
    Error::user(state, lower_first(&first_line(text)))
}

/// `function f(types) does not exist`.
fn function_message(text: &str) -> String {
    match text
        .split_once("argument types '")
        .and_then(|(_, rest)| rest.split_once('\''))
    {
        Some((call, _)) => format!("function {} does not exist", sql_types(call)),
        None => lower_first(&first_line(text)),
    }
}

/// `operator does not exist: a = b`.
fn operator_message(text: &str) -> String {
    let operands = ["comparison operation ", "arithmetic expression ", "for: "]
        .iter()
        .find_map(|before| text.split_once(before).map(|(_, rest)| rest));
    match operands {
        Some(rest) => format!(
            "operator does not exist: {}",
            sql_types(first_line(rest).trim_end_matches(" to valid types"))
        ),
        None => lower_first(&first_line(text)),
    }
}

/// Arrow's type names replaced by SQL's.
fn sql_types(text: &str) -> String {
    let names = [
        ("Utf8", "character varying"),
        ("Int16", "smallint"),
        ("Int32", "integer"),
        ("Int64", "bigint"),
        ("Float32", "real"),
        ("Float64", "double precision"),
        ("Boolean", "boolean"),
        ("Date32", "date"),
    ];
    names.iter().fold(text.to_string(), |text, (arrow, sql)| {
        text.replace(arrow, sql)
    })
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("").trim();
    line.trim_start_matches("Error during planning: ")
        .trim_start_matches("type_coercion caused by ")
        .trim_end_matches('.')
        .to_string()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim().trim_end_matches('.').chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.trim().trim_end_matches('.').to_string(),
    }
}
