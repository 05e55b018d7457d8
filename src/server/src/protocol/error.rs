//! Errors on their way to the client: [`Error`] to the fields of an ErrorResponse, and DataFusion's
//! and Arrow's errors to an [`Error`] with PostgreSQL's SQLSTATE and wording. Our own errors travel
//! through DataFusion as `External` and come out unchanged.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use pgwire::error::ErrorInfo;
use tidemark_common::{Error, SqlState};

/// A message that is not an error: severity `NOTICE`, `WARNING` or `INFO`.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Severity in upper case.
    pub severity: &'static str,
    /// SQLSTATE, `00000` for plain information.
    pub state: SqlState,
    /// The text.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Notice {
    /// A plain NOTICE.
    pub fn new(message: impl Into<String>) -> Notice {
        Notice {
            severity: "NOTICE",
            state: SqlState("00000"),
            message: message.into(),
            hint: None,
        }
    }

    /// A NOTICE with a code.
    pub fn with_state(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            state,
            ..Notice::new(message)
        }
    }

    /// A WARNING.
    pub fn warning(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            severity: "WARNING",
            state,
            ..Notice::new(message)
        }
    }

    /// The fields of the NoticeResponse.
    pub fn info(self) -> ErrorInfo {
        let mut info = ErrorInfo::new(self.severity.into(), self.state.0.into(), self.message);
        info.severity_nonlocalized = Some(self.severity.into());
        info.hint = self.hint;
        info
    }
}

/// The fields of the ErrorResponse; `severity` is `ERROR` or `FATAL`.
pub fn info(error: &Error, severity: &str) -> ErrorInfo {
    let mut info = ErrorInfo::new(
        severity.into(),
        error.state().0.into(),
        error.message().into(),
    );
    info.severity_nonlocalized = Some(severity.into());
    info.detail = error.detail().map(Into::into);
    info.hint = error.hint().map(Into::into);
    info.position = error.position().map(|p| p.to_string());
    info
}

/// DataFusion's error as ours.
pub fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(e, _) => from_arrow(*e),
        DataFusionError::SQL(e, _) => Error::user(SqlState::SYNTAX_ERROR, strip(&e.to_string())),
        DataFusionError::NotImplemented(m) => Error::unsupported(lower(&m)),
        DataFusionError::Plan(m) => from_plan(&m),
        DataFusionError::SchemaError(e, _) => from_schema(&e),
        DataFusionError::Execution(m) => from_execution(&m),
        DataFusionError::ResourcesExhausted(m) => {
            Error::unavailable(SqlState::OUT_OF_MEMORY, lower(&m))
        }
        DataFusionError::IoError(e) => e.into(),
        DataFusionError::External(e) => match e.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(e) => match e.downcast::<DataFusionError>() {
                Ok(inner) => from_datafusion(*inner),
                Err(e) => match e.downcast::<ArrowError>() {
                    Ok(inner) => from_arrow(*inner),
                    Err(e) => Error::internal(e.to_string()),
                },
            },
        },
        DataFusionError::Context(what, inner) => match from_datafusion(*inner) {
            e if e.state() == SqlState::INTERNAL => e.context(what),
            e => e,
        },
        DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner),
        DataFusionError::Collection(mut all) if !all.is_empty() => {
            from_datafusion(all.swap_remove(0))
        }
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => from_datafusion(inner),
            Err(shared) => from_shared(&shared),
        },
        DataFusionError::Internal(m) => {
            Error::internal(m.lines().next().unwrap_or_default().to_string())
        }
        DataFusionError::ExecutionJoin(e) => Error::internal(e.to_string()),
        other => Error::internal(other.strip_backtrace()),
    }
}

/// An error that several readers hold: the parts that matter are looked up by reference.
fn from_shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(e) => match e.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::internal(e.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            from_shared(inner)
        }
        DataFusionError::Shared(inner) => from_shared(inner),
        DataFusionError::Execution(m) => from_execution(m),
        DataFusionError::ArrowError(e, _) => from_arrow_text(e),
        DataFusionError::Plan(m) => from_plan(m),
        other => Error::internal(other.strip_backtrace()),
    }
}

/// Arrow's error as ours.
pub fn from_arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(e) => match e.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(e) => match e.downcast::<DataFusionError>() {
                Ok(inner) => from_datafusion(*inner),
                Err(e) => Error::internal(e.to_string()),
            },
        },
        other => from_arrow_text(&other),
    }
}

fn from_arrow_text(error: &ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(m) => {
            Error::user(SqlState::NUMERIC_OUT_OF_RANGE, out_of_range(m))
        }
        ArrowError::CastError(m) | ArrowError::ParseError(m) => from_cast(m),
        ArrowError::InvalidArgumentError(m)
            if m.contains("too large to store") || m.contains("too small to store") =>
        {
            Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow")
                .with_detail(sentence(m))
        }
        ArrowError::NotYetImplemented(m) => Error::unsupported(lower(m)),
        ArrowError::ExternalError(e) => match e.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::internal(e.to_string()),
        },
        other => from_execution(&other.to_string()),
    }
}

/// `Cannot cast string 'abc' to value of Int32 type` and its relatives.
fn from_cast(message: &str) -> Error {
    if let Some(rest) = message.strip_prefix("Cannot cast string '")
        && let Some((value, to)) = rest.rsplit_once("' to value of ")
    {
        let to = type_name(to.trim_end_matches(" type"));
        let state = if matches!(to, "date" | "time" | "timestamp" | "interval") {
            SqlState("22007")
        } else {
            SqlState::INVALID_TEXT
        };
        return Error::user(
            state,
            format!("invalid input syntax for type {to}: \"{value}\""),
        );
    }
    if let Some((value, _)) = message
        .strip_prefix("Cannot cast value '")
        .and_then(|m| m.split_once("' to value of Boolean"))
    {
        return Error::user(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type boolean: \"{value}\""),
        );
    }
    if let Some(value) = between(message, "Error parsing timestamp from '", "'") {
        return Error::user(
            SqlState("22007"),
            format!("invalid input syntax for type timestamp: \"{value}\""),
        );
    }
    if message.contains("Error parsing timestamp")
        || message.contains("error parsing date")
        || message.contains("error parsing time")
    {
        return Error::user(SqlState("22007"), lower(message));
    }
    if message.contains("Can't cast value") {
        return Error::user(SqlState::NUMERIC_OUT_OF_RANGE, out_of_range(message));
    }
    if message.contains("overflow")
        || message.contains("too large")
        || message.contains("out of range")
    {
        return Error::user(SqlState::NUMERIC_OUT_OF_RANGE, out_of_range(message));
    }
    if message.starts_with("Casting from") && message.contains("not supported") {
        return Error::user(SqlState("42846"), lower(message));
    }
    Error::user(SqlState::INVALID_TEXT, lower(message))
}

fn out_of_range(message: &str) -> String {
    for (arrow, name) in [
        ("Int16", "smallint"),
        ("Int32", "integer"),
        ("Int64", "bigint"),
    ] {
        if message.contains(arrow) {
            return format!("{name} out of range");
        }
    }
    if let Some(operands) = message.strip_prefix("Overflow happened on") {
        let wide = operands
            .split(|c: char| !c.is_ascii_digit())
            .any(|n| n.len() > 10 || n.parse().is_ok_and(|n: i64| n > 1 << 31));
        return format!("{} out of range", if wide { "bigint" } else { "integer" });
    }
    format!("value out of range: {}", lower(message))
}

/// PostgreSQL's name of an Arrow type as Arrow's messages print it.
fn type_name(arrow: &str) -> &str {
    match arrow {
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" => "bytea",
        "Boolean" => "boolean",
        "Date32" => "date",
        t if t.starts_with("Decimal") => "numeric",
        t if t.starts_with("Timestamp") => "timestamp",
        t if t.starts_with("Interval") => "interval",
        t if t.starts_with("Time") => "time",
        other => other,
    }
}

fn from_execution(message: &str) -> Error {
    let text = lower(strip(message).as_str());
    let state = if text.contains("division by zero") || text.contains("divide by zero") {
        return Error::user(SqlState::DIVISION_BY_ZERO, "division by zero");
    } else if let Some(n) = between(&text, "laceholder '", "' was not provided") {
        return Error::user(SqlState("42P02"), format!("there is no parameter {n}"));
    } else if text.contains("is not Struct, Map, or Null") {
        return Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            "a column that is not a struct has no fields",
        )
        .with_hint("Is the name before the dot the alias of a table in FROM?");
    } else if text.contains("overflow") || text.contains("out of range") {
        return Error::user(SqlState::NUMERIC_OUT_OF_RANGE, out_of_range(&text));
    } else if text.contains("scalar subquery") || text.contains("more than one row") {
        return Error::user(
            SqlState("21000"),
            "more than one row returned by a subquery used as an expression",
        );
    } else if text.contains("regex") || text.contains("regular expression") {
        SqlState("2201B")
    } else if text.contains("error parsing timestamp")
        || text.contains("parsing") && text.contains("date")
    {
        SqlState("22007")
    } else if text.contains("parse") || text.contains("invalid") || text.contains("cannot cast") {
        SqlState::INVALID_TEXT
    } else {
        SqlState::INTERNAL
    };
    Error::user(state, text)
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::AmbiguousReference { field } => Error::user(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => Error::user(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{name}\" appears more than once"),
        )
        .with_hint("Give the columns different aliases."),
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            if let Some(table) = &field.relation
                && !valid_fields.is_empty()
                && !valid_fields.iter().any(|f| {
                    f.relation
                        .as_ref()
                        .is_some_and(|r| r.table() == table.table())
                })
            {
                return Error::user(
                    SqlState::UNDEFINED_TABLE,
                    format!("missing FROM-clause entry for table \"{}\"", table.table()),
                );
            }
            let e = Error::user(
                SqlState::UNDEFINED_COLUMN,
                match &field.relation {
                    Some(relation) => {
                        format!("column {}.{} does not exist", relation.table(), field.name)
                    }
                    None => format!("column \"{}\" does not exist", field.name),
                },
            );
            let close = valid_fields
                .iter()
                .filter(|c| distance(&c.name, &field.name) <= 2)
                .map(|c| c.flat_name())
                .next();
            match close {
                Some(name) => e.with_hint(format!(
                    "Perhaps you meant to reference the column \"{name}\"."
                )),
                None => e,
            }
        }
    }
}

fn from_plan(message: &str) -> Error {
    let first = strip(message);
    let text = first.as_str();
    if let Some(name) = between(text, "table '", "' not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        return Error::user(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{name}\" does not exist"),
        );
    }
    if let Some(name) = between(text, "Invalid function '", "'") {
        return Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        );
    }
    if let Some(name) = between(text, "table function '", "' not found") {
        return Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        );
    }
    if let Some(e) = wrong_arguments(text) {
        return e;
    }
    if text.contains("No function matches")
        || text.contains("Failed to coerce arguments")
        || text.contains("does not support") && text.contains("function")
    {
        return Error::user(SqlState::UNDEFINED_FUNCTION, lower(text)).with_hint(
            "No function matches the given name and argument types. You might need to \
                        add explicit type casts.",
        );
    }
    if text.contains("must appear in the GROUP BY clause")
        || text.contains("could not be resolved from available columns")
        || text.contains("references non-aggregate values")
    {
        if text.contains("HAVING clause references") {
            return Error::user(
                SqlState::GROUPING_ERROR,
                "columns in HAVING must appear in the GROUP BY clause or be used in an aggregate \
                 function",
            );
        }
        let column = between(text, "column \"", "\" must appear")
            .or_else(|| between(text, "non-aggregate values: Expression ", " could not"))
            .unwrap_or(text);
        return Error::user(
            SqlState::GROUPING_ERROR,
            format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate \
                 function"
            ),
        );
    }
    if text.contains("Projections require unique expression names") {
        return Error::user(SqlState::DUPLICATE_COLUMN, lower(text))
            .with_hint("Give the columns different aliases.");
    }
    let grouping = [
        (
            "Aggregate functions are not allowed in the WHERE clause",
            "aggregate functions are not allowed in WHERE",
        ),
        (
            "calls cannot be nested",
            "aggregate function calls cannot be nested",
        ),
    ];
    if let Some((_, said)) = grouping.iter().find(|(part, _)| text.contains(part)) {
        return Error::user(SqlState::GROUPING_ERROR, *said);
    }
    if text.contains("LIMIT must be >= 0") {
        return Error::user(SqlState("2201W"), "LIMIT must not be negative");
    }
    if text.contains("OFFSET must be >=0") {
        return Error::user(SqlState("2201X"), "OFFSET must not be negative");
    }
    if let Some(t) = text
        .strip_prefix("Cannot create filter with non-boolean predicate")
        .and_then(|t| t.rsplit_once(" returning "))
    {
        return Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "argument of WHERE must be type boolean, not type {}",
                type_name(t.1)
            ),
        );
    }
    if let Some((_, t)) = text.split_once("requires a boolean expression, got ") {
        return Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "argument of NOT must be type boolean, not type {}",
                type_name(t)
            ),
        );
    }
    if let Some(expression) = between(
        text,
        "Cannot coerce arithmetic expression ",
        " to valid types",
    ) {
        let operator = ["+", "-", "*", "/", "%"]
            .into_iter()
            .find_map(|op| Some((expression.split_once(&format!(" {op} "))?, op)));
        let said = operator.map_or_else(
            || expression.to_string(),
            |((l, r), op)| format!("{} {op} {}", type_name(l), type_name(r)),
        );
        return Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("operator does not exist: {said}"),
        )
        .with_hint(
            "No operator matches the given name and argument types. You might need to \
                        add explicit type casts.",
        );
    }
    if text.contains("Cannot get result type for temporal operation") {
        return Error::unsupported(lower(text.split(": ").next().unwrap_or(text)));
    }
    if let Some(n) = between(text, "rder by column out of bounds, specified: ", ",") {
        return Error::user(
            SqlState("42P10"),
            format!("ORDER BY position {n} is not in select list"),
        );
    }
    if text.contains("Cannot infer common argument type")
        || text.contains("Cannot coerce")
        || text.contains("type_coercion")
    {
        return Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("operator does not exist: {}", lower(text)),
        )
        .with_hint(
            "No operator matches the given name and argument types. You might need to \
                        add explicit type casts.",
        );
    }
    if text.contains("must return only one column") || text.contains("Too many columns!") {
        return Error::user(
            SqlState::SYNTAX_ERROR,
            "subquery must return only one column",
        );
    }
    if text.contains("UNION") && text.contains("same number of columns")
        || text.contains("queries have different number of columns")
    {
        return Error::user(
            SqlState::SYNTAX_ERROR,
            "each UNION query must have the same number of columns",
        );
    }
    if text.contains("not supported")
        || text.contains("not implemented")
        || text.contains("Unsupported")
    {
        return Error::unsupported(lower(text));
    }
    Error::user(SqlState::SYNTAX_ERROR, lower(text))
}

/// A function that does not take arguments of these types, in the several wordings that DataFusion
/// has for it.
fn wrong_arguments(text: &str) -> Option<Error> {
    let hint = "No function matches the given name and argument types. You might need to add \
                explicit type casts.";
    if let Some((name, types)) = between(text, "name and argument types '", "'")
        .and_then(|call| call.strip_suffix(')')?.split_once('('))
    {
        // Commas within a type's parentheses do not part arguments.
        let depth = std::cell::Cell::new(0);
        let parts = types.split(|c| {
            depth.set(depth.get() + i32::from(c == '(') - i32::from(c == ')'));
            c == ',' && depth.get() == 0
        });
        let types: Vec<&str> = parts.map(|t| type_name(t.trim())).collect();
        return Some(
            Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name}({}) does not exist", types.join(", ")),
            )
            .with_hint(hint),
        );
    }
    let name = between(text, "Function '", "' failed to match any signature")?;
    Some(
        Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist for arguments of these types"),
        )
        .with_hint(hint),
    )
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = text[start..].find(after)? + start;
    Some(&text[start..end])
}

/// The first line without DataFusion's category prefixes.
fn strip(message: &str) -> String {
    let mut text = message.lines().next().unwrap_or_default();
    for prefix in [
        "External error: ",
        "Execution error: ",
        "Arrow error: ",
        "Error during planning: ",
        "sql parser error: ",
        "SQL error: ",
        "Optimizer rule 'simplify_expressions' failed",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.trim_end_matches('.').to_string()
}

fn lower(message: &str) -> String {
    let text = strip(message);
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(a), Some(b)) if a.is_uppercase() && b.is_lowercase() => {
            a.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text,
    }
}

fn sentence(message: &str) -> String {
    format!("{}.", message.trim_end_matches('.'))
}

/// Edit distance, for "perhaps you meant".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
