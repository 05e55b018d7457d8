//! What users read: SQL's names of types, and Arrow's errors in PostgreSQL's words and codes. No
//! message that leaves the node speaks of Arrow or of the query planner below: what cannot be said
//! in SQL's words is cut off ([`sql_words`]).

use arrow_schema::{ArrowError, DataType, FieldRef, Fields};
use tidemark_common::{Error, SqlState};

const INVALID_DATETIME: SqlState = SqlState("22007");

/// The SQL name of an Arrow type.
pub fn sql_type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 => "bigint".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::LargeBinary => "numeric".into(),
        DataType::Utf8 | DataType::Utf8View => "text".into(),
        DataType::LargeUtf8 => "character".into(),
        DataType::Binary => "bytea".into(),
        DataType::FixedSizeBinary(_) => "uuid".into(),
        DataType::BinaryView => "jsonb".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".into(),
        DataType::Timestamp(_, None) => "timestamp without time zone".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _) => format!("{}[]", sql_type_name(f.data_type())),
        DataType::Dictionary(_, values) => sql_type_name(values),
        DataType::Null => "unknown".into(),
        DataType::Map(..) => {
            let parts = crate::maps::map_parts(data_type);
            let name = |f: &FieldRef| sql_type_name(f.data_type());
            parts.map_or("map".into(), |(k, v)| {
                format!("map({}, {})", name(k), name(v))
            })
        }
        DataType::Struct(fields) if !is_anonymous(fields) => {
            let field = |f: &FieldRef| format!("{} {}", f.name(), sql_type_name(f.data_type()));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("struct<{}>", fields.join(", "))
        }
        _ => "record".into(),
    }
}

/// Whether the fields of a row have the names that `ROW(..)` gives them.
pub fn is_anonymous(fields: &Fields) -> bool {
    let mut names = fields.iter().enumerate();
    names.all(|(i, field)| *field.name() == format!("f{}", i + 1))
}

/// Arrow's names of types, and what they are in SQL. Names with parameters come with them in
/// parentheses.
const NAMES: &[(&str, &str)] = &[
    ("Boolean", "boolean"),
    ("Int8", "smallint"),
    ("Int16", "smallint"),
    ("UInt8", "smallint"),
    ("Int32", "integer"),
    ("UInt16", "integer"),
    ("Int64", "bigint"),
    ("UInt32", "bigint"),
    ("UInt64", "numeric"),
    ("Float16", "real"),
    ("Float32", "real"),
    ("Float64", "double precision"),
    ("Utf8", "text"),
    ("Utf8View", "text"),
    ("LargeUtf8", "character"),
    ("String", "text"),
    ("Binary", "bytea"),
    ("FixedSizeBinary", "uuid"),
    ("LargeBinary", "numeric"),
    ("BinaryView", "jsonb"),
    ("Date32", "date"),
    ("Date64", "date"),
    ("Time32", "time without time zone"),
    ("Time64", "time without time zone"),
    ("Duration", "interval"),
    ("Interval", "interval"),
    ("Null", "unknown"),
];

/// What only those below say. A message ends before it.
const FOREIGN: &[&str] = &[
    "DataFusion",
    "datafusion",
    "Arrow",
    "arrow",
    "ScalarValue",
    "Column {",
    "Column(",
    "Literal(",
    "Cast(",
    "Cast {",
    "Field {",
    "Expr",
    "Some(",
    "None",
    "physical plan",
    "Physical plan",
    "PhysicalPlan",
    "LogicalPlan",
    "logical plan",
    "Schema error",
    "Internal error",
    "internal error",
    "This issue was likely caused",
    "Candidate functions",
    "TypeSignature",
    "Signature",
    "UserDefined",
    "OuterReferenceColumn",
    "outer_ref(",
    "InSubquery",
    "ScalarSubquery",
    "Subquery:",
    "Projection:",
    "Filter:",
    "TableScan",
];

/// A message with Arrow's types by their SQL names, up to where it says what nobody but us
/// understands. What is in quotes is somebody's own and stays.
pub fn sql_words(message: &str) -> String {
    let named = sql_types(message);
    let end = FOREIGN
        .iter()
        .filter_map(|word| outside_quotes(&named, word))
        .min()
        .unwrap_or(named.len());
    named[..end]
        .trim_end_matches(|c: char| c.is_whitespace() || "([{:,;.'\"".contains(c))
        .to_string()
}

/// Where a word is in a text, outside of double quotes.
fn outside_quotes(text: &str, word: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find(word).map(|at| from + at) {
        if text[..at].matches('"').count() % 2 == 0 {
            return Some(at);
        }
        from = at + word.len();
    }
    None
}

/// A message with Arrow's types by their SQL names.
pub fn sql_types(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    let mut before = ' ';
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            quoted = !quoted;
        }
        let starts = c.is_ascii_uppercase() && !before.is_alphanumeric() && before != '_';
        if starts
            && !quoted
            && let Some((name, length)) = arrow_type(rest)
        {
            out.push_str(&name);
            before = ' ';
            rest = &rest[length..];
            continue;
        }
        out.push(c);
        before = c;
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// The Arrow type that a text begins with: its SQL name, and its length in bytes.
fn arrow_type(text: &str) -> Option<(String, usize)> {
    let word = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(word);
    if rest.starts_with('_') {
        return None;
    }
    let parameters = parenthesised(rest);
    let length = word + parameters.map_or(0, |p| p.len() + 2);
    let sql = match (name, parameters) {
        ("Timestamp", Some(p)) if p.contains("Some(") || p.contains('"') => {
            "timestamp with time zone".to_string()
        }
        ("Timestamp", Some(_)) => "timestamp without time zone".to_string(),
        ("List" | "LargeList" | "FixedSizeList" | "ListView", Some(p)) => {
            let element = p.split_once("data_type: ").map_or(p, |(_, t)| t);
            let element = element.trim_start_matches("non-null ");
            let element = element.trim_start_matches("nullable ");
            let element = element.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
            let element = element.trim_start_matches("x ");
            format!("{}[]", arrow_type(element)?.0)
        }
        ("Struct" | "Map" | "Union", Some(_)) => "record".to_string(),
        ("Dictionary", Some(p)) => {
            let values = p.split_once(", ").map_or("", |(_, values)| values);
            arrow_type(values)?.0
        }
        ("Decimal32" | "Decimal64" | "Decimal128" | "Decimal256", _) => "numeric".to_string(),
        _ => {
            let (_, sql) = NAMES.iter().find(|(arrow, _)| *arrow == name)?;
            // `String "x"` is DataFusion's word for a type of its own.
            let takes = matches!(
                name,
                "Time32" | "Time64" | "Duration" | "Interval" | "FixedSizeBinary"
            );
            if takes != parameters.is_some() {
                return (!takes).then(|| (sql.to_string(), word));
            }
            sql.to_string()
        }
    };
    Some((sql, length))
}

/// What is between the parenthesis that a text begins with and its partner.
fn parenthesised(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?;
    let mut depth = 1;
    for (at, c) in inner.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inner[..at]);
        }
    }
    None
}

/// The first line, in SQL's words, beginning in lower case.
pub fn plain(message: &str) -> String {
    let mut line = message.lines().next().unwrap_or_default().trim();
    let prefixes = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "External error: ",
        "Arrow error: ",
        "Internal error: ",
        "SQL error: ",
        "sql parser error: ",
        "type_coercion",
        "caused by",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Optimizer rule 'simplify_expressions' failed",
    ];
    while let Some(rest) = prefixes.iter().find_map(|p| line.strip_prefix(p)) {
        line = rest.trim_start();
    }
    let text = sql_words(line.trim_end_matches('.'));
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text,
    }
}

/// Arrow's error as ours; one of ours that it carries comes out unchanged.
pub fn arrow_error(error: &ArrowError) -> Error {
    let out_of_range = |message: String| Error::user(SqlState::NUMERIC_OUT_OF_RANGE, message);
    match error {
        ArrowError::DivideByZero => Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(m) => out_of_range(overflow(m)),
        ArrowError::CastError(m) | ArrowError::ParseError(m) => cast_error(m),
        ArrowError::InvalidArgumentError(m)
            if m.contains("too large to store") || m.contains("too small to store") =>
        {
            out_of_range("numeric field overflow".into())
        }
        ArrowError::InvalidArgumentError(m) | ArrowError::ComputeError(m)
            if m.contains("verflow") =>
        {
            out_of_range(overflow(m))
        }
        ArrowError::NotYetImplemented(m) => Error::unsupported(some(plain(m))),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<ArrowError>() {
                Some(arrow) => arrow_error(arrow),
                None => Error::user(SqlState::INVALID_PARAMETER, some(plain(&inner.to_string()))),
            },
        },
        ArrowError::OffsetOverflowError(_) => Error::user(
            SqlState("54000"),
            "values that are computed together are larger than 2 GiB",
        ),
        ArrowError::InvalidArgumentError(m) | ArrowError::ComputeError(m) => {
            Error::user(SqlState::INVALID_PARAMETER, some(plain(m)))
        }
        other => Error::internal(some(plain(&other.to_string()))),
    }
}

/// A message, or what is said where there is none.
fn some(message: String) -> String {
    if message.is_empty() {
        "this expression cannot be evaluated".into()
    } else {
        message
    }
}

/// `integer out of range`.
fn overflow(message: &str) -> String {
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
    "value out of range".into()
}

/// Arrow names the value in quotes and its own type: `Cannot cast string 'x' to value of Int32
/// type`.
fn cast_error(message: &str) -> Error {
    let quoted = message
        .split_once('\'')
        .and_then(|(_, rest)| rest.rsplit_once('\''))
        .map(|(value, _)| value);
    if message.contains("arsing timestamp") {
        return invalid("timestamp", quoted.unwrap_or_default());
    }
    if let Some((from, to)) = message
        .strip_prefix("Casting from ")
        .and_then(|m| m.strip_suffix(" not supported"))
        .and_then(|m| m.split_once(" to "))
    {
        return cannot_cast(from, to);
    }
    let arrow = message
        .rsplit_once("value of ")
        .or_else(|| message.rsplit_once("to type "))
        .map_or("", |(_, rest)| rest.trim_end_matches(" type"));
    let name = arrow_type(arrow).map_or("value".to_string(), |(name, _)| name);
    let number = matches!(name.as_str(), "smallint" | "integer" | "bigint" | "numeric");
    match quoted {
        Some(value) if number && value.trim().parse::<i128>().is_ok() => Error::user(
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!("value \"{value}\" is out of range for type {name}"),
        ),
        Some(value) => invalid(short(&name), value),
        None if message.starts_with("Can't cast value") || message.contains("out of range") => {
            Error::user(
                SqlState::NUMERIC_OUT_OF_RANGE,
                format!("{name} out of range"),
            )
        }
        None if message.contains("Decimal")
            || message.contains("verflow")
            || message.contains("too large") =>
        {
            Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "numeric field overflow")
        }
        None => Error::user(SqlState::INVALID_TEXT, some(plain(message))),
    }
}

/// `42846`, for types by their Arrow names.
pub fn cannot_cast(from: &str, to: &str) -> Error {
    Error::user(
        SqlState("42846"),
        format!("cannot cast type {} to {}", sql_types(from), sql_types(to)),
    )
}

/// The name of a type of moments without its time zone, as messages about texts have it.
fn short(name: &str) -> &str {
    name.strip_suffix(" without time zone").unwrap_or(name)
}

fn invalid(name: &str, value: &str) -> Error {
    let moment = ["date", "time", "timestamp", "interval"];
    let state = if moment.iter().any(|m| name.starts_with(m)) {
        INVALID_DATETIME
    } else {
        SqlState::INVALID_TEXT
    };
    Error::user(
        state,
        format!("invalid input syntax for type {name}: \"{value}\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{Field, IntervalUnit, TimeUnit};
    use std::sync::Arc;

    #[test]
    fn types_have_sqls_names_wherever_they_stand() {
        let types = [
            DataType::Utf8,
            DataType::LargeBinary,
            DataType::Decimal128(38, 10),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Null,
            DataType::List(Arc::new(Field::new("item", DataType::Int64, true))),
            DataType::List(Arc::new(Field::new(
                "item",
                DataType::Timestamp(TimeUnit::Microsecond, None),
                false,
            ))),
            DataType::Struct(vec![Field::new("f1", DataType::Int64, true)].into()),
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
        ];
        for data_type in types {
            for text in [format!("{data_type}"), format!("{data_type:?}")] {
                let name = sql_type_name(&data_type);
                assert_eq!(sql_types(&format!("({text}),")), format!("({name}),"));
            }
        }
        for (message, said) in [
            ("Int64 + Utf8", "bigint + text"),
            (
                "the Int64s of \"Int64\" MyInt64",
                "the Int64s of \"Int64\" MyInt64",
            ),
            ("Interval of Null_", "Interval of Null_"),
        ] {
            assert_eq!(sql_types(message), said);
        }
    }

    #[test]
    fn what_nobody_understands_is_cut_off() {
        for (message, said) in [
            (
                "Error during planning: Unsupported subquery: InSubquery(Some(1))",
                "unsupported subquery",
            ),
            ("This cannot be: Column { name: \"a\" }", "this cannot be"),
            ("column \"None\" is fine", "column \"None\" is fine"),
            ("Internal error: Some(1)", ""),
        ] {
            assert_eq!(plain(message), said);
        }
    }

    #[test]
    fn arrows_errors_are_postgresqls() {
        let cast = |m: &str| arrow_error(&ArrowError::CastError(m.into()));
        for (error, state, message) in [
            (
                cast("Cannot cast string 'x' to value of Int32 type"),
                "22P02",
                "invalid input syntax for type integer: \"x\"",
            ),
            (
                cast("Cannot cast string '99999999999' to value of Int32 type"),
                "22003",
                "value \"99999999999\" is out of range for type integer",
            ),
            (
                cast("Cannot cast string 'x' to value of Date32 type"),
                "22007",
                "invalid input syntax for type date: \"x\"",
            ),
            (
                cast("Casting from Boolean to Date32 not supported"),
                "42846",
                "cannot cast type boolean to date",
            ),
            (
                cast("Can't cast value 3000000000 to type Int32"),
                "22003",
                "integer out of range",
            ),
            (
                arrow_error(&ArrowError::ArithmeticOverflow(
                    "Overflow happened on: 1 + 2".into(),
                )),
                "22003",
                "integer out of range",
            ),
        ] {
            assert_eq!((error.state().0, error.message()), (state, message));
        }
    }
}
