//! Rows for readers that want Kafka Connect's schemas (`schemas.enable`): the schema of a row, and
//! its values in the forms that the schema names.
//!
//! | type | schema | value |
//! | --- | --- | --- |
//! | smallint, int, bigint | `int16`, `int32`, `int64` | a number |
//! | real, double precision | `float`, `double` | a number |
//! | numeric(p, s) | `bytes`, Connect's `Decimal` of scale s | base64 of the unscaled number |
//! | numeric | `string` | its digits |
//! | varchar, interval | `string` | text |
//! | uuid | `string`, Debezium's `Uuid` | text |
//! | jsonb | `string`, Debezium's `Json` | the JSON's text |
//! | bytea | `bytes` | base64 |
//! | date | `int32`, Connect's `Date` | days |
//! | time | `int64`, Debezium's `MicroTime` | microseconds |
//! | timestamp | `int64`, Debezium's `MicroTimestamp` | microseconds |
//! | timestamptz | `string`, Debezium's `ZonedTimestamp` | text with `Z` |
//! | arrays | `array` | an array |
//! | composite types | `struct` | an object |
//!
//! With `time.precision.mode = 'connect'` the last three of time are Connect's `Time` and
//! `Timestamp` in milliseconds, which is all that other JDBC sinks than Debezium's know.
//!
//! Law: our own source reads back every value that was written, but for what milliseconds cut off.

use super::base64;
use super::datetime;
use super::form::Unit;
use super::json_encode::{quoted, write_integer, write_string};
use arrow::array::{
    Array, AsArray, BinaryArray, BinaryViewArray, Decimal128Array, LargeBinaryArray, PrimitiveArray,
};
use arrow::datatypes::*;
use serde_json::{Map, Value, json};
use tidemark_plan::Column;
use tidemark_plan::maps::map_parts;
use tidemark_values::jsonb;
use tidemark_values::moment;
use tidemark_values::numeric::Numeric;

/// What Debezium writes for PostgreSQL's infinite timestamps, in microseconds.
pub(super) const DEBEZIUM_INFINITY: i64 = 9_223_372_036_825_200_000;
/// And for the other one.
pub(super) const DEBEZIUM_MINUS_INFINITY: i64 = -9_223_372_036_832_400_000;

/// The values whose form differs from plain JSON's.
pub(super) enum Values<'a> {
    Decimal(&'a Decimal128Array),
    Numeric(&'a LargeBinaryArray),
    Bytes(&'a BinaryArray),
    Json(&'a BinaryViewArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>, Unit),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>, Unit),
    Zoned(&'a PrimitiveArray<TimestampMicrosecondType>),
}

impl<'a> Values<'a> {
    /// Those of `array`; `None` where plain JSON is the form.
    pub fn new(array: &'a dyn Array, unit: Unit) -> Option<Values<'a>> {
        use DataType as D;
        Some(match array.data_type() {
            D::Decimal128(..) => Values::Decimal(array.as_primitive()),
            D::LargeBinary => Values::Numeric(array.as_binary()),
            D::Binary => Values::Bytes(array.as_binary()),
            D::BinaryView => Values::Json(array.as_binary_view()),
            D::Date32 => Values::Date(array.as_primitive()),
            D::Time64(TimeUnit::Microsecond) => Values::Time(array.as_primitive(), unit),
            D::Timestamp(TimeUnit::Microsecond, Some(_)) if unit == Unit::Micros => {
                Values::Zoned(array.as_primitive())
            }
            D::Timestamp(TimeUnit::Microsecond, _) => Values::Timestamp(array.as_primitive(), unit),
            _ => return None,
        })
    }

    /// Appends the value of row `row`, which is not NULL.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Values::Decimal(array) => quoted(out, |out| {
                let bytes = array.value(row).to_be_bytes();
                base64::encode(shortest(&bytes), out);
            }),
            Values::Numeric(array) => quoted(out, |out| {
                let value = Numeric::decode(array.value(row)).expect("a value in its stored form");
                out.extend_from_slice(value.to_string().as_bytes());
            }),
            Values::Bytes(array) => quoted(out, |out| base64::encode(array.value(row), out)),
            Values::Json(array) => {
                let mut text = String::new();
                let printed = jsonb::Value::new(array.value(row)).print(&mut text);
                printed.expect("a value in its stored form");
                write_string(text.as_bytes(), out);
            }
            Values::Date(array) => write_integer(array.value(row), out),
            Values::Time(array, unit) => write_integer(count(array.value(row), *unit), out),
            Values::Timestamp(array, unit) => {
                let micros = match array.value(row) {
                    moment::TIMESTAMP_INFINITY => DEBEZIUM_INFINITY,
                    moment::TIMESTAMP_MINUS_INFINITY => DEBEZIUM_MINUS_INFINITY,
                    micros => micros,
                };
                write_integer(count(micros, *unit), out);
            }
            Values::Zoned(array) => quoted(out, |out| write_zoned(array.value(row), out)),
        }
    }
}

fn count(micros: i64, unit: Unit) -> i64 {
    match unit {
        Unit::Millis => micros.div_euclid(1_000),
        _ => micros,
    }
}

/// ISO 8601 with `T` and `Z`; infinities and years BC as PostgreSQL prints them.
fn write_zoned(micros: i64, out: &mut Vec<u8>) {
    let start = out.len();
    datetime::write_timestamp(micros, false, out);
    if !moment::timestamp_is_finite(micros) || out.ends_with(b"BC") {
        return;
    }
    if let Some(blank) = out[start..].iter().position(|byte| *byte == b' ') {
        out[start + blank] = b'T';
    }
    out.push(b'Z');
}

/// An integer in two's complement without the bytes that only repeat its sign.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let sign = if bytes[0] >= 0x80 { 0xFF } else { 0 };
    let repeats = |pair: &[u8]| pair[0] == sign && (pair[0] ^ pair[1]) < 0x80;
    let skipped = bytes.windows(2).take_while(|pair| repeats(pair)).count();
    &bytes[skipped..]
}

/// What stands before a payload: `{"schema":...,"payload":`, of rows of the columns at `fields`.
pub(crate) fn opening(columns: &[Column], fields: &[usize], unit: Unit, name: &str) -> Vec<u8> {
    opened(row_schema(columns, fields, unit, name, false))
}

/// The same of change events, as [`super::debezium_envelope`] writes them.
pub(crate) fn event_opening(columns: &[Column], unit: Unit, topic: &str) -> Vec<u8> {
    let all: Vec<usize> = (0..columns.len()).collect();
    let image = |field: &str| {
        let row = row_schema(columns, &all, unit, &format!("{topic}.Value"), true);
        named(row, field)
    };
    let source = json!({
        "type": "struct",
        "optional": false,
        "fields": [
            {"type": "string", "optional": false, "field": "connector"},
            {"type": "int64", "optional": false, "field": "ts_ms"},
        ],
    });
    opened(json!({
        "type": "struct",
        "optional": false,
        "name": format!("{topic}.Envelope"),
        "fields": [
            image("before"),
            image("after"),
            named(source, "source"),
            {"type": "string", "optional": false, "field": "op"},
            {"type": "int64", "optional": true, "field": "ts_ms"},
        ],
    }))
}

fn opened(schema: Value) -> Vec<u8> {
    format!("{{\"schema\":{schema},\"payload\":").into_bytes()
}

fn named(mut schema: Value, field: &str) -> Value {
    schema["field"] = field.into();
    schema
}

fn row_schema(
    columns: &[Column],
    fields: &[usize],
    unit: Unit,
    name: &str,
    optional: bool,
) -> Value {
    let field = |position: &usize| {
        let column = &columns[*position];
        let schema = type_schema(&column.data_type, &column.sql_type, column.nullable, unit);
        named(schema, &column.name)
    };
    let fields: Vec<Value> = fields.iter().map(field).collect();
    json!({"type": "struct", "fields": fields, "optional": optional, "name": name})
}

fn type_schema(data_type: &DataType, sql_type: &str, optional: bool, unit: Unit) -> Value {
    use DataType as D;
    let millis = unit == Unit::Millis;
    let (name, logical) = match data_type {
        D::Boolean => ("boolean", ""),
        D::Int16 => ("int16", ""),
        D::Int32 => ("int32", ""),
        D::Int64 => ("int64", ""),
        D::Float32 => ("float", ""),
        D::Float64 => ("double", ""),
        D::Decimal128(..) => ("bytes", "org.apache.kafka.connect.data.Decimal"),
        D::Binary => ("bytes", ""),
        D::BinaryView => ("string", "io.debezium.data.Json"),
        D::Date32 => ("int32", "org.apache.kafka.connect.data.Date"),
        D::Time64(_) if millis => ("int32", "org.apache.kafka.connect.data.Time"),
        D::Time64(_) => ("int64", "io.debezium.time.MicroTime"),
        D::Timestamp(..) if millis => ("int64", "org.apache.kafka.connect.data.Timestamp"),
        D::Timestamp(_, None) => ("int64", "io.debezium.time.MicroTimestamp"),
        D::Timestamp(_, Some(_)) => ("string", "io.debezium.time.ZonedTimestamp"),
        D::List(_) => ("array", ""),
        D::Struct(_) => ("struct", ""),
        D::Map(..) => ("map", ""),
        D::FixedSizeBinary(_) => ("string", "io.debezium.data.Uuid"),
        _ => ("string", ""),
    };
    let mut schema = Map::new();
    schema.insert("type".into(), name.into());
    schema.insert("optional".into(), optional.into());
    if !logical.is_empty() {
        schema.insert("name".into(), logical.into());
        schema.insert("version".into(), 1.into());
    }
    match data_type {
        D::Decimal128(precision, scale) => {
            let parameters = json!({
                "scale": scale.to_string(),
                "connect.decimal.precision": precision.to_string(),
            });
            schema.insert("parameters".into(), parameters);
        }
        D::List(item) => {
            let item_type = sql_type.trim_end_matches("[]");
            let items = type_schema(item.data_type(), item_type, true, unit);
            schema.insert("items".into(), items);
        }
        D::Map(..) if let Some((_, value)) = map_parts(data_type) => {
            let values = type_schema(value.data_type(), "", true, unit);
            schema.insert("keys".into(), json!({"type": "string", "optional": false}));
            schema.insert("values".into(), values);
        }
        D::Struct(fields) => {
            let field = |f: &FieldRef| named(type_schema(f.data_type(), "", true, unit), f.name());
            schema.insert("fields".into(), fields.iter().map(field).collect());
        }
        _ => {}
    }
    Value::Object(schema)
}
