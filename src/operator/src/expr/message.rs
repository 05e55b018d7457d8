//! The evaluator's errors in PostgreSQL's words and codes.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use tidemark_common::{Error, Result, SqlState};

const INVALID_DATETIME: SqlState = SqlState("22007");

/// SQLSTATE and message of an error that is the row's own; an error of ours when no row could ever
/// be evaluated.
pub(super) fn row_message(error: &DataFusionError) -> Result<(&'static str, String)> {
    match error.find_root() {
        DataFusionError::ArrowError(arrow, _) => Ok(arrow_message(arrow)),
        DataFusionError::External(inner) => Ok(external(inner.as_ref())),
        DataFusionError::Execution(message) => {
            Ok((SqlState::INVALID_PARAMETER.0, first_line(message)))
        }
        other => Err(Error::internal(format!(
            "an expression cannot be evaluated: {}",
            other.strip_backtrace()
        ))),
    }
}

fn external(inner: &(dyn std::error::Error + 'static)) -> (&'static str, String) {
    match inner.downcast_ref::<Error>() {
        Some(own) => (own.state().0, own.message().to_string()),
        None => (
            SqlState::INVALID_PARAMETER.0,
            first_line(&inner.to_string()),
        ),
    }
}

fn arrow_message(error: &ArrowError) -> (&'static str, String) {
    match error {
        ArrowError::DivideByZero => (SqlState::DIVISION_BY_ZERO.0, "division by zero".into()),
        ArrowError::ArithmeticOverflow(_) => (
            SqlState::NUMERIC_OUT_OF_RANGE.0,
            "value out of range".into(),
        ),
        ArrowError::CastError(message) | ArrowError::ParseError(message) => cast_message(message),
        ArrowError::InvalidArgumentError(message)
            if message.contains("too large to store") || message.contains("too small to store") =>
        {
            (
                SqlState::NUMERIC_OUT_OF_RANGE.0,
                "numeric field overflow".into(),
            )
        }
        ArrowError::ExternalError(inner) => external(inner.as_ref()),
        other => (
            SqlState::INVALID_PARAMETER.0,
            first_line(&other.to_string()),
        ),
    }
}

/// Arrow names the value in quotes and its own type: `Cannot cast string 'x' to value of Int32
/// type`.
fn cast_message(message: &str) -> (&'static str, String) {
    let quoted = message
        .split_once('\'')
        .and_then(|(_, rest)| rest.rsplit_once('\''))
        .map(|(value, _)| value);
    let type_name = message
        .rsplit_once("value of ")
        .or_else(|| message.rsplit_once("to type "))
        .map_or("", |(_, rest)| rest.trim_end_matches(" type"));
    if message.starts_with("Error parsing timestamp") {
        return (
            INVALID_DATETIME.0,
            format!(
                "invalid input syntax for type timestamp: \"{}\"",
                quoted.unwrap_or_default()
            ),
        );
    }
    let name = sql_name(type_name);
    match quoted {
        Some(value) if is_number(name) && value.trim().parse::<i128>().is_ok() => (
            SqlState::NUMERIC_OUT_OF_RANGE.0,
            format!("value \"{value}\" is out of range for type {name}"),
        ),
        Some(value) => {
            let state = if matches!(name, "date" | "time" | "timestamp") {
                INVALID_DATETIME
            } else {
                SqlState::INVALID_TEXT
            };
            (
                state.0,
                format!("invalid input syntax for type {name}: \"{value}\""),
            )
        }
        None if message.contains("Decimal") || message.contains("verflow") => (
            SqlState::NUMERIC_OUT_OF_RANGE.0,
            "numeric field overflow".into(),
        ),
        None if message.starts_with("Can't cast value") || message.contains("is out of range") => (
            SqlState::NUMERIC_OUT_OF_RANGE.0,
            format!("{name} out of range"),
        ),
        None => (SqlState::INVALID_TEXT.0, first_line(message)),
    }
}

fn is_number(name: &str) -> bool {
    matches!(name, "smallint" | "integer" | "bigint" | "numeric")
}

fn sql_name(arrow: &str) -> &'static str {
    match arrow.split('(').next().unwrap_or(arrow).trim() {
        "Int8" | "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" => "boolean",
        "Date32" | "Date64" => "date",
        "Time32" | "Time64" => "time",
        "Timestamp" => "timestamp",
        "Interval" => "interval",
        name if name.starts_with("Decimal") => "numeric",
        _ => "value",
    }
}

/// The first line, beginning in lower case.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or("").trim_end_matches('.');
    let mut chars = line.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}
