//! Arrow types and PostgreSQL's: which type a result column is announced as, and its names in SQL.
//!
//! Where Arrow's type does not say it all, a field's metadata does under the key [`SQL_TYPE`]:
//! `jsonb`, `uuid`, `varchar(10)`, `timestamp(3)`, `oid`, `name`, `"char"`.

use arrow::datatypes::{DataType, Field, IntervalUnit};
use postgres_types::Type;
use tidemark_plan::Column;
use tidemark_values::moment::IntervalFields;

/// Key of a field's metadata that holds the SQL type's text.
pub use tidemark_plan::SQL_TYPE;

/// The PostgreSQL type of a field.
pub fn pg_type(field: &Field) -> Type {
    by_name(declared(field)).unwrap_or_else(|| of_arrow(field.data_type()))
}

/// The text of a field's SQL type; empty where Arrow's type says it all.
pub fn declared(field: &Field) -> &str {
    let name = field.metadata().get(SQL_TYPE).map(String::as_str);
    name.filter(|name| by_name(name).is_some_and(|t| keeps(field.data_type(), &t)))
        .unwrap_or_default()
}

/// Whether the text of a type is about values that Arrow has as `data_type`: a cast has the
/// metadata of what it casts.
fn keeps(data_type: &DataType, t: &Type) -> bool {
    match data_type {
        // Texts and numbers of the catalogs have types of their own.
        DataType::Utf8 => {
            let moments = [
                Type::TIMESTAMP_ARRAY,
                Type::TIMESTAMPTZ_ARRAY,
                Type::TIME_ARRAY,
                Type::INTERVAL_ARRAY,
                Type::VARCHAR_ARRAY,
            ];
            let other = is_plain(t) && !matches!(*t, Type::TEXT | Type::VARCHAR | Type::JSON);
            !other && !moments.contains(t)
        }
        DataType::LargeUtf8 => *t == Type::BPCHAR,
        DataType::Int32 => !is_plain(t) && element_of(t).is_none() || *t == Type::INT4,
        DataType::List(element) => element_of(t).is_some_and(|t| keeps(element.data_type(), &t)),
        other => of_arrow(other) == *t,
    }
}

/// The types that columns of tables have.
fn is_plain(t: &Type) -> bool {
    matches!(
        *t,
        Type::BOOL
            | Type::INT2
            | Type::INT4
            | Type::INT8
            | Type::FLOAT4
            | Type::FLOAT8
            | Type::NUMERIC
            | Type::VARCHAR
            | Type::TEXT
            | Type::BPCHAR
            | Type::BYTEA
            | Type::DATE
            | Type::TIME
            | Type::TIMESTAMP
            | Type::TIMESTAMPTZ
            | Type::INTERVAL
            | Type::UUID
            | Type::JSON
            | Type::JSONB
    )
}

/// The PostgreSQL type of an Arrow type.
pub fn of_arrow(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Type::INT8,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::LargeBinary => Type::NUMERIC,
        DataType::Utf8 | DataType::Utf8View | DataType::Null => Type::TEXT,
        DataType::LargeUtf8 => Type::BPCHAR,
        DataType::FixedSizeBinary(_) => Type::UUID,
        DataType::Binary => Type::BYTEA,
        DataType::BinaryView => Type::JSONB,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(
            IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano,
        )
        | DataType::Duration(_) => Type::INTERVAL,
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::FixedSizeList(f, _)
        | DataType::ListView(f) => array_of(&pg_type(f)),
        DataType::Dictionary(_, values) => of_arrow(values),
        DataType::Struct(_) => Type::RECORD,
        _ => Type::TEXT,
    }
}

/// The array type of an element type.
pub fn array_of(element: &Type) -> Type {
    match *element {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::VARCHAR => Type::VARCHAR_ARRAY,
        Type::BPCHAR => Type::BPCHAR_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::NAME => Type::NAME_ARRAY,
        Type::CHAR => Type::CHAR_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

/// The element type of an array type.
pub fn element_of(array: &Type) -> Option<Type> {
    Some(match *array {
        Type::BOOL_ARRAY => Type::BOOL,
        Type::INT2_ARRAY => Type::INT2,
        Type::INT4_ARRAY => Type::INT4,
        Type::INT8_ARRAY => Type::INT8,
        Type::FLOAT4_ARRAY => Type::FLOAT4,
        Type::FLOAT8_ARRAY => Type::FLOAT8,
        Type::NUMERIC_ARRAY => Type::NUMERIC,
        Type::VARCHAR_ARRAY => Type::VARCHAR,
        Type::BPCHAR_ARRAY => Type::BPCHAR,
        Type::TEXT_ARRAY => Type::TEXT,
        Type::BYTEA_ARRAY => Type::BYTEA,
        Type::DATE_ARRAY => Type::DATE,
        Type::TIME_ARRAY => Type::TIME,
        Type::TIMESTAMP_ARRAY => Type::TIMESTAMP,
        Type::TIMESTAMPTZ_ARRAY => Type::TIMESTAMPTZ,
        Type::INTERVAL_ARRAY => Type::INTERVAL,
        Type::UUID_ARRAY => Type::UUID,
        Type::RECORD_ARRAY => Type::RECORD,
        Type::JSONB_ARRAY => Type::JSONB,
        Type::OID_ARRAY => Type::OID,
        Type::NAME_ARRAY => Type::NAME,
        Type::CHAR_ARRAY => Type::CHAR,
        _ => return None,
    })
}

/// Whether a value of one type is converted where one of the other is assigned; a cast may do more.
pub fn is_assignable(from: &Type, to: &Type) -> bool {
    let is_text = |t: &Type| matches!(*t, Type::TEXT | Type::VARCHAR | Type::BPCHAR);
    let is_number = |t: &Type| {
        matches!(
            *t,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC
        )
    };
    let is_moment = |t: &Type| matches!(*t, Type::DATE | Type::TIMESTAMP | Type::TIMESTAMPTZ);
    match (element_of(from), element_of(to)) {
        (Some(from), Some(to)) => return is_assignable(&from, &to),
        (None, Some(_)) => return *from == Type::UNKNOWN,
        _ => {}
    }
    from == to
        || *from == Type::UNKNOWN
        || is_text(to)
        || is_number(from) && is_number(to)
        || is_moment(from) && is_moment(to)
        || *from != Type::DATE && is_moment(from) && *to == Type::TIME
        || matches!(
            (from, to),
            (&Type::TIME, &Type::INTERVAL) | (&Type::INTERVAL, &Type::TIME)
        )
        || matches!(
            (from, to),
            (&Type::JSON, &Type::JSONB) | (&Type::JSONB, &Type::JSON)
        )
        || matches!(
            (from, to),
            (&Type::INT4 | &Type::INT8, &Type::OID) | (&Type::OID, &Type::INT8)
        )
}

/// The type of an SQL name, as `sql_type` holds it; `None` where the Arrow type says it better
/// (arrays, structs).
pub fn by_name(name: &str) -> Option<Type> {
    let base = name.split('(').next().unwrap_or(name).trim();
    if name.ends_with("[]") {
        return by_name(&name[..name.len() - 2]).map(|element| array_of(&element));
    }
    let base = base.to_ascii_lowercase();
    if base.starts_with("interval ") {
        return Some(Type::INTERVAL);
    }
    Some(match base.as_str() {
        "bool" | "boolean" => Type::BOOL,
        "smallint" | "int2" => Type::INT2,
        "int" | "integer" | "int4" => Type::INT4,
        "bigint" | "int8" => Type::INT8,
        "real" | "float4" => Type::FLOAT4,
        "double precision" | "float8" | "double" | "float" => Type::FLOAT8,
        "numeric" | "decimal" => Type::NUMERIC,
        "varchar" | "character varying" => Type::VARCHAR,
        "text" => Type::TEXT,
        "char" | "character" | "bpchar" => Type::BPCHAR,
        "\"char\"" => Type::CHAR,
        "bytea" => Type::BYTEA,
        "date" => Type::DATE,
        "time" | "time without time zone" => Type::TIME,
        "timestamp" | "timestamp without time zone" => Type::TIMESTAMP,
        "timestamptz" | "timestamp with time zone" => Type::TIMESTAMPTZ,
        "interval" => Type::INTERVAL,
        "uuid" => Type::UUID,
        "json" => Type::JSON,
        "jsonb" => Type::JSONB,
        "oid" => Type::OID,
        "name" => Type::NAME,
        "regproc" => Type::REGPROC,
        "regtype" => Type::REGTYPE,
        "regclass" => Type::REGCLASS,
        "int2vector" => Type::INT2_VECTOR,
        "oidvector" => Type::OID_VECTOR,
        "xid" => Type::XID,
        "pg_node_tree" => Type::PG_NODE_TREE,
        "aclitem[]" => Type::ACLITEM_ARRAY,
        "anyarray" => Type::ANYARRAY,
        _ => return None,
    })
}

/// The name that `format_type`, `\d` and error messages show, without modifiers.
pub fn display_name(t: &Type) -> &'static str {
    match *t {
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::NUMERIC => "numeric",
        Type::VARCHAR => "character varying",
        Type::TEXT => "text",
        Type::BPCHAR => "character",
        Type::CHAR => "\"char\"",
        Type::BYTEA => "bytea",
        Type::DATE => "date",
        Type::TIME => "time without time zone",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        Type::INTERVAL => "interval",
        Type::UUID => "uuid",
        Type::JSON => "json",
        Type::JSONB => "jsonb",
        Type::OID => "oid",
        Type::NAME => "name",
        Type::RECORD => "record",
        Type::BOOL_ARRAY => "boolean[]",
        Type::INT2_ARRAY => "smallint[]",
        Type::INT4_ARRAY => "integer[]",
        Type::INT8_ARRAY => "bigint[]",
        Type::FLOAT4_ARRAY => "real[]",
        Type::FLOAT8_ARRAY => "double precision[]",
        Type::NUMERIC_ARRAY => "numeric[]",
        Type::VARCHAR_ARRAY => "character varying[]",
        Type::TEXT_ARRAY => "text[]",
        Type::BPCHAR_ARRAY => "character[]",
        Type::BYTEA_ARRAY => "bytea[]",
        Type::DATE_ARRAY => "date[]",
        Type::TIME_ARRAY => "time without time zone[]",
        Type::TIMESTAMP_ARRAY => "timestamp without time zone[]",
        Type::TIMESTAMPTZ_ARRAY => "timestamp with time zone[]",
        Type::INTERVAL_ARRAY => "interval[]",
        Type::UUID_ARRAY => "uuid[]",
        Type::JSONB_ARRAY => "jsonb[]",
        Type::RECORD_ARRAY => "record[]",
        _ => "text",
    }
}

/// `pg_type.typlen`: width in bytes, -1 for variable width.
pub fn width(t: &Type) -> i16 {
    match *t {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4
        | Type::FLOAT4
        | Type::DATE
        | Type::OID
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGPROC
        | Type::XID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL | Type::UUID => 16,
        Type::NAME => 64,
        _ => -1,
    }
}

/// The fields that an interval may be restricted to, with their bits in its modifier.
const INTERVAL_FIELDS: [(&str, i32, IntervalFields); 13] = [
    ("year", 1 << 2, IntervalFields::Year),
    ("month", 1 << 1, IntervalFields::Month),
    ("day", 1 << 3, IntervalFields::Day),
    ("hour", 1 << 10, IntervalFields::Hour),
    ("minute", 1 << 11, IntervalFields::Minute),
    ("second", 1 << 12, IntervalFields::Second),
    ("year to month", 0b110, IntervalFields::YearToMonth),
    ("day to hour", 1 << 3 | 1 << 10, IntervalFields::DayToHour),
    (
        "day to minute",
        1 << 3 | 0b11 << 10,
        IntervalFields::DayToMinute,
    ),
    (
        "day to second",
        1 << 3 | 0b111 << 10,
        IntervalFields::DayToSecond,
    ),
    ("hour to minute", 0b11 << 10, IntervalFields::HourToMinute),
    ("hour to second", 0b111 << 10, IntervalFields::HourToSecond),
    (
        "minute to second",
        0b110 << 10,
        IntervalFields::MinuteToSecond,
    ),
];
/// All fields, and all digits, in an interval's modifier.
const ALL_FIELDS: i32 = 0x7fff;
const ALL_DIGITS: i32 = 0xffff;

/// Digits of the second are at most these.
const DIGITS_MAX: i32 = 6;

/// `pg_attribute.atttypmod`: of `numeric(p, s)`, `varchar(n)`, `char(n)`, `timestamp(p)`,
/// `time(p)`, intervals, and of arrays of those; -1 where there is none.
pub fn modifier(sql_type: &str) -> i32 {
    let name = sql_type.trim_end_matches("[]").to_ascii_lowercase();
    if let Some(of) = name.strip_prefix("interval") {
        return interval_modifier(of);
    }
    let Some((base, arguments)) = name.trim_end_matches(')').split_once('(') else {
        return -1;
    };
    let numbers: Vec<i32> = arguments
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    match (base.trim(), numbers.as_slice()) {
        ("numeric" | "decimal", [p]) => (p << 16) + 4,
        ("numeric" | "decimal", [p, s]) => ((p << 16) | (s & 0x7ff)) + 4,
        ("varchar" | "character varying" | "char" | "character" | "bpchar", [n]) => n + 4,
        ("timestamp" | "timestamptz" | "time", [digits]) => (*digits).min(DIGITS_MAX),
        _ => -1,
    }
}

/// The modifier of ` day to second(3)`, `(3)` or nothing.
fn interval_modifier(of: &str) -> i32 {
    let (fields, digits) = of.split_once('(').unwrap_or((of, ""));
    let digits: Option<i32> = digits.trim_end_matches(')').trim().parse().ok();
    let fields = INTERVAL_FIELDS.iter().find(|f| f.0 == fields.trim());
    if fields.is_none() && digits.is_none() {
        return -1;
    }
    let digits = digits.map_or(ALL_DIGITS, |d| d.min(DIGITS_MAX));
    fields.map_or(ALL_FIELDS, |f| f.1) << 16 | digits
}

/// The fields and the digits of the second that an interval's modifier leaves.
pub fn interval_parts(modifier: i32) -> (IntervalFields, i32) {
    let fields = INTERVAL_FIELDS.iter().find(|f| f.1 == modifier >> 16);
    (
        fields.map_or(IntervalFields::All, |f| f.2),
        (modifier & ALL_DIGITS).min(DIGITS_MAX),
    )
}

/// The type's text with its modifiers, as `\d` shows it.
pub fn format_type(t: &Type, modifier: i32) -> String {
    if let Some(element) = element_of(t) {
        return format!("{}[]", format_type(&element, modifier));
    }
    let name = display_name(t);
    if modifier < 0 {
        return name.into();
    }
    match *t {
        Type::NUMERIC => format!(
            "numeric({},{})",
            (modifier - 4) >> 16,
            (modifier - 4) & 0x7ff
        ),
        Type::VARCHAR | Type::BPCHAR => format!("{name}({})", modifier - 4),
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => match name.split_once(' ') {
            Some((base, zone)) => format!("{base}({modifier}) {zone}"),
            None => name.into(),
        },
        Type::INTERVAL => {
            let fields = INTERVAL_FIELDS.iter().find(|f| f.1 == modifier >> 16);
            let fields = fields.map_or(String::new(), |f| format!(" {}", f.0));
            match modifier & ALL_DIGITS {
                ALL_DIGITS => format!("{name}{fields}"),
                digits => format!("{name}{fields}({digits})"),
            }
        }
        _ => name.into(),
    }
}

/// The type of a column as SQL shows it: `character varying(10)`.
pub fn column_type_name(column: &Column) -> String {
    let t = by_name(&column.sql_type).unwrap_or_else(|| of_arrow(&column.data_type));
    let modifier = match &column.data_type {
        DataType::Decimal128(p, s) => modifier(&format!("numeric({p},{s})")),
        _ => modifier(&column.sql_type),
    };
    match &column.data_type {
        DataType::Struct(_) | DataType::Map(..) => {
            tidemark_plan::messages::sql_type_name(&column.data_type)
        }
        _ => format_type(&t, modifier),
    }
}
