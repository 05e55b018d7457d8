//! SQL types and their Arrow representation. Each type of SQL has an Arrow type of its own; what
//! that does not say (`varchar(10)`) is kept as text beside it.

use crate::error::external;
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion_common::Result as DataFusionResult;
use datafusion_expr::planner::TypePlanner;
use datafusion_sql::sqlparser::ast::{self, ArrayElemTypeDef, ExactNumberInfo, TimezoneInfo};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::SQL_TYPE;
use tidemark_plan::maps::{is_map_key, map_parts, map_type};
use tidemark_plan::messages::is_anonymous;

pub use tidemark_plan::messages::sql_type_name;

/// `numeric` without precision: each value has a scale of its own, and is bytes
/// (`tidemark_values::numeric`). No other type is a `LargeBinary`.
pub const NUMERIC: DataType = DataType::LargeBinary;

/// `jsonb`, as bytes (`tidemark_values::jsonb`). No other type is a `BinaryView`.
pub const JSONB: DataType = DataType::BinaryView;

/// `uuid`, as 16 bytes. No other type is a `FixedSizeBinary`.
pub const UUID: DataType = DataType::FixedSizeBinary(16);

/// `char(n)` with its blanks. No other type is a `LargeUtf8`.
pub const BPCHAR: DataType = DataType::LargeUtf8;

/// Whether values of this type are numerics with scales of their own.
pub fn is_numeric_bytes(data_type: &DataType) -> bool {
    *data_type == NUMERIC
}

/// The Arrow type of an SQL type, and its text where Arrow's type does not say it all (empty
/// otherwise).
///
/// Errors: `0A000` for types that are not supported, `42704` for unknown ones, `22023` for a bad
/// precision.
pub fn sql_type_to_arrow(sql: &ast::DataType) -> Result<(DataType, String)> {
    use ast::DataType as Sql;
    Ok(match sql {
        Sql::Boolean | Sql::Bool => plain(DataType::Boolean),
        Sql::SmallInt(_) | Sql::Int2(_) => plain(DataType::Int16),
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => plain(DataType::Int32),
        Sql::BigInt(_) | Sql::Int8(_) => plain(DataType::Int64),
        Sql::Real | Sql::Float4 => plain(DataType::Float32),
        Sql::Float(ExactNumberInfo::Precision(p)) if *p <= 24 => plain(DataType::Float32),
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 | Sql::Float(_) => {
            plain(DataType::Float64)
        }
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => plain(numeric(info)?),
        Sql::Varchar(length) | Sql::CharacterVarying(length) | Sql::CharVarying(length) => {
            (DataType::Utf8, text_of_length(length, "varchar")?)
        }
        Sql::Char(None) | Sql::Character(None) => (BPCHAR, "char(1)".into()),
        Sql::Char(length) | Sql::Character(length) => (BPCHAR, text_of_length(length, "char")?),
        Sql::Text | Sql::String(_) => plain(DataType::Utf8),
        Sql::Bytea => plain(DataType::Binary),
        Sql::Date => plain(DataType::Date32),
        Sql::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            plain(DataType::Time64(TimeUnit::Microsecond))
        }
        Sql::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => plain(
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
        Sql::TimestampNtz(_) | Sql::Timestamp(_, _) => {
            plain(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        Sql::Interval { .. } => plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        Sql::JSONB | Sql::JSON => plain(JSONB),
        Sql::Uuid => plain(UUID),
        Sql::Array(
            ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => {
            let (inner, text) = sql_type_to_arrow(inner)?;
            // How many dimensions are declared does not count.
            if inner.is_list() {
                return Ok((inner, text));
            }
            if matches!(inner, DataType::Interval(_)) {
                return Err(Error::unsupported("arrays of intervals are not supported"));
            }
            let text = if text.is_empty() {
                text
            } else {
                format!("{text}[]")
            };
            (
                DataType::List(Arc::new(Field::new_list_field(inner, true))),
                text,
            )
        }
        Sql::Struct(fields, _) => plain(structure(fields)?),
        Sql::Map(key, value) => plain(map(key, value)?),
        Sql::Custom(name, _) => return custom(name),
        other => return Err(Error::unsupported(format!("type {other} is not supported"))),
    })
}

/// The type of a part of a struct or of a map.
///
/// Errors: `0A000` for one whose length or digits nobody would keep there.
fn within(sql: &ast::DataType, what: &str) -> Result<DataType> {
    let (data_type, text) = sql_type_to_arrow(sql)?;
    if text.contains('(') || !declared_digits(sql).is_empty() {
        let message = format!("type {sql} of {what} is not supported");
        return Err(Error::unsupported(message)
            .with_hint("Use the type without a length or number of digits."));
    }
    Ok(data_type)
}

/// The type of maps.
///
/// Errors: `0A000` for keys that are neither texts nor integers, for intervals, and as [`within`].
fn map(key: &ast::DataType, value: &ast::DataType) -> Result<DataType> {
    let key_type = within(key, "the keys of a map")?;
    let value_type = within(value, "the values of a map")?;
    if !is_map_key(&key_type) {
        let message = format!("type {key} of the keys of a map is not supported");
        return Err(Error::unsupported(message).with_hint("Keys are texts or integers."));
    }
    if matches!(value_type, DataType::Interval(_)) {
        return Err(Error::unsupported("intervals in a map are not supported"));
    }
    Ok(map_type(key_type, value_type))
}

/// The type of rows with these fields.
///
/// Errors: `42601` without fields, `42701` for a name that two have, `0A000` for types whose
/// lengths or digits nobody would keep within a row.
fn structure(fields: &[ast::StructField]) -> Result<DataType> {
    let mut all: Vec<Field> = Vec::with_capacity(fields.len());
    for (i, field) in fields.iter().enumerate() {
        let name = field.field_name.clone();
        let name = name.map_or(format!("f{}", i + 1), crate::names::fold);
        let data_type = within(&field.field_type, "a field of a struct")?;
        if all.iter().any(|other| *other.name() == name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("attribute name \"{name}\" specified more than once"),
            ));
        }
        all.push(Field::new(name, data_type, true));
    }
    match all.is_empty() {
        true => Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "a struct has at least one field",
        )),
        false => Ok(DataType::Struct(all.into())),
    }
}

/// `varchar(10)`; the plain name without a length.
fn text_of_length(length: &Option<ast::CharacterLength>, name: &str) -> Result<String> {
    /// PostgreSQL's.
    const LENGTH_MAX: u64 = 10_485_760;
    let Some(ast::CharacterLength::IntegerLength { length, .. }) = length else {
        return Ok(name.into());
    };
    let invalid = |message: String| Err(Error::user(SqlState::INVALID_PARAMETER, message));
    match length {
        0 => invalid(format!("length for type {name} must be at least 1")),
        1..=LENGTH_MAX => Ok(format!("{name}({length})")),
        _ => invalid(format!("length for type {name} cannot exceed {LENGTH_MAX}")),
    }
}

/// The text of a type whose digits of the second or whose fields are declared, which its column's
/// values are rounded or cut to; empty for others.
pub fn declared_digits(sql: &ast::DataType) -> String {
    use ast::DataType as Sql;
    match sql {
        Sql::Timestamp(Some(digits), TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
            format!("timestamptz({digits})")
        }
        Sql::Timestamp(Some(digits), _) | Sql::TimestampNtz(Some(digits)) => {
            format!("timestamp({digits})")
        }
        Sql::Time(Some(digits), _) => format!("time({digits})"),
        Sql::Interval { fields, precision } if fields.is_some() || precision.is_some() => {
            sql.to_string().to_lowercase()
        }
        Sql::Array(ArrayElemTypeDef::SquareBracket(inner, _)) => {
            let inner = declared_digits(inner);
            if inner.is_empty() {
                inner
            } else {
                format!("{}[]", inner.trim_end_matches("[]"))
            }
        }
        _ => String::new(),
    }
}

fn plain(data_type: DataType) -> (DataType, String) {
    (data_type, String::new())
}

/// Types that PostgreSQL has and we have not, where sqlparser knows no more than their names.
const POSTGRESQLS: [&str; 34] = [
    "bigserial",
    "bit",
    "box",
    "cidr",
    "circle",
    "daterange",
    "hstore",
    "inet",
    "int4range",
    "int8range",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "numrange",
    "path",
    "pg_lsn",
    "point",
    "polygon",
    "refcursor",
    "serial",
    "serial2",
    "serial4",
    "serial8",
    "smallserial",
    "timetz",
    "tsquery",
    "tsrange",
    "tstzrange",
    "tsvector",
    "varbit",
    "xml",
];

fn custom(name: &ast::ObjectName) -> Result<(DataType, String)> {
    let folded = name.to_string().to_lowercase();
    Ok(match folded.trim_start_matches("pg_catalog.") {
        "string" | "text" => plain(DataType::Utf8),
        "varchar" => (DataType::Utf8, "varchar".into()),
        "bool" => plain(DataType::Boolean),
        "int2" => plain(DataType::Int16),
        "int4" => plain(DataType::Int32),
        "int8" => plain(DataType::Int64),
        "float4" => plain(DataType::Float32),
        "float8" => plain(DataType::Float64),
        "timestamptz" => plain(DataType::Timestamp(
            TimeUnit::Microsecond,
            Some("UTC".into()),
        )),
        "bpchar" => plain(BPCHAR),
        "name" => plain(DataType::Utf8),
        "rw_int256" | "int256" => {
            return Err(
                Error::unsupported(format!("type {folded} is not supported"))
                    .with_hint("Use numeric."),
            );
        }
        known if POSTGRESQLS.contains(&known) => {
            return Err(Error::unsupported(format!("type {known} is not supported")));
        }
        _ => {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("type \"{folded}\" does not exist"),
            ));
        }
    })
}

fn numeric(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(NUMERIC),
        ExactNumberInfo::Precision(p) => (*p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (*p, *s),
    };
    let invalid = |message: String| Err(Error::user(SqlState::INVALID_PARAMETER, message));
    if !(1..=1000).contains(&precision) {
        return invalid(format!(
            "NUMERIC precision {precision} must be between 1 and 1000"
        ));
    }
    if !(-1000..=1000).contains(&scale) {
        return invalid(format!(
            "NUMERIC scale {scale} must be between -1000 and 1000"
        ));
    }
    if precision > 38 || scale < 0 || scale as u64 > precision {
        return Err(Error::unsupported(format!(
            "NUMERIC({precision}, {scale}) is not supported: the precision is at most 38, the \
             scale at most the precision"
        ))
        .with_hint("NUMERIC without precision holds numbers of any length."));
    }
    Ok(DataType::Decimal128(precision as u8, scale as i8))
}

/// The type of two values that become one, rows field by field; `None` if there is none.
pub(crate) fn united(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Float32, Float64, Int16, Int32, Int64, LargeUtf8, List, Null, Struct, Utf8};
    let number = |t: &DataType| t.is_integer() || t.is_decimal() || *t == NUMERIC;
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Int16, Int32) | (Int32, Int16) => Int32,
        (Int16 | Int32, Int64) | (Int64, Int16 | Int32) => Int64,
        (a, b) if number(a) && number(b) => NUMERIC,
        (Float32 | Float64, Float32 | Float64) => Float64,
        (Utf8 | LargeUtf8, Utf8 | LargeUtf8) => Utf8,
        (List(a), List(b)) => {
            let element = united(a.data_type(), b.data_type())?;
            List(Arc::new(Field::new(a.name(), element, true)))
        }
        (DataType::Map(..), DataType::Map(..)) => {
            let ((a_key, a), (b_key, b)) = (map_parts(a)?, map_parts(b)?);
            let key = united(a_key.data_type(), b_key.data_type())?;
            map_type(key, united(a.data_type(), b.data_type())?)
        }
        (Struct(a), Struct(b)) if a.len() == b.len() => {
            let names = if is_anonymous(a) { b } else { a };
            let fields = a.iter().zip(b).zip(names).map(|((a, b), name)| {
                let data_type = united(a.data_type(), b.data_type())?;
                Some(Field::new(name.name(), data_type, true))
            });
            Struct(fields.collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

/// Gives DataFusion our types for CAST and typed literals.
#[derive(Debug)]
pub(crate) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> DataFusionResult<Option<FieldRef>> {
        let (data_type, text) = sql_type_to_arrow(sql_type).map_err(external)?;
        let field = Field::new("", data_type, true);
        let field = if text.is_empty() {
            field
        } else {
            field.with_metadata([(SQL_TYPE.to_string(), text)].into())
        };
        Ok(Some(Arc::new(field)))
    }
}
