//! Tables of records and the rows that they must become, and random ones against `serde_json` and
//! `chrono`.

mod connect;
mod declared;
mod depth;
mod encoding;
mod keyed;
mod nested;
mod random;
mod schemas;
mod types;

use super::{RawRecord, RecordDecoder};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::*;
use arrow::util::display::array_value_to_string;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::RecordError;
use tidemark_plan::{Column, ConnectorSpec, Encode, Format};
use tidemark_values::numeric::Numeric;
use tidemark_values::{jsonb, uuid};

/// A column by SQL name of its type.
fn column(name: &str, sql: &str) -> Column {
    let data_type = match sql.trim_end_matches(" not null") {
        array if array.ends_with("[]") => {
            let item = column(name, &array[..array.len() - 2]).data_type;
            DataType::List(Arc::new(Field::new_list_field(item, true)))
        }
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double" => DataType::Float64,
        "numeric(10,2)" => DataType::Decimal128(10, 2),
        "numeric(38,10)" => DataType::Decimal128(38, 10),
        "numeric" => DataType::LargeBinary,
        "jsonb" => DataType::BinaryView,
        "bytea" => DataType::Binary,
        "uuid" => DataType::FixedSizeBinary(16),
        "char(3)" => DataType::LargeUtf8,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "time(3)" => DataType::Time64(TimeUnit::Microsecond),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "timestamp" | "timestamp(3)" | "timestamp(6)" => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => DataType::Utf8,
    };
    Column {
        name: name.into(),
        data_type,
        nullable: !sql.ends_with(" not null"),
        default: None,
        sql_type: sql.trim_end_matches(" not null").into(),
    }
}

fn columns(list: &[(&str, &str)]) -> Vec<Column> {
    list.iter().map(|(name, sql)| column(name, sql)).collect()
}

fn spec(format: Format, encode: Encode, key: &[usize]) -> ConnectorSpec {
    ConnectorSpec {
        connector: "kafka".into(),
        options: BTreeMap::new(),
        format,
        encode,
        encode_options: BTreeMap::new(),
        includes: Vec::new(),
        hidden: Default::default(),
        key: key.to_vec(),
    }
}

fn all(columns: &[Column]) -> Vec<usize> {
    (0..columns.len()).collect()
}

fn plain(columns: &[Column]) -> RecordDecoder {
    RecordDecoder::new(
        &spec(Format::Plain, Encode::Json, &[]),
        columns,
        &all(columns),
    )
    .unwrap()
}

fn push(decoder: &mut RecordDecoder, key: Option<&str>, value: Option<&str>) {
    let offset = decoder.len() as i64;
    decoder.push(&RawRecord {
        key: key.map(str::as_bytes),
        value: value.map(str::as_bytes),
        partition: 3,
        offset,
        timestamp_ms: Some(1_700_000_000_123),
    });
}

/// One line a row: the weight's sign and the values, NULL as `-`.
fn table(changes: &ChangeBatch) -> Vec<String> {
    (0..changes.num_rows())
        .map(|row| {
            format!(
                "{} {}",
                if changes.weight(row) > 0 { "+" } else { "-" },
                line(changes.rows(), row)
            )
        })
        .collect()
}

fn line(batch: &RecordBatch, row: usize) -> String {
    let value = |column: &dyn Array| value(column, row);
    batch
        .columns()
        .iter()
        .map(|column| value(column.as_ref()))
        .collect::<Vec<_>>()
        .join(" | ")
}

/// A value; arrays and composite values as PostgreSQL prints them, without quotes.
fn value(column: &dyn Array, row: usize) -> String {
    match column.data_type() {
        _ if column.is_null(row) => "-".to_owned(),
        DataType::Binary => column
            .as_binary::<i32>()
            .value(row)
            .escape_ascii()
            .to_string(),
        DataType::BinaryView => {
            let mut text = String::new();
            jsonb::Value::new(column.as_binary_view().value(row))
                .print(&mut text)
                .unwrap();
            text
        }
        DataType::FixedSizeBinary(_) => {
            let text = uuid::text(column.as_fixed_size_binary().value(row));
            String::from_utf8(text.to_vec()).unwrap()
        }
        DataType::LargeBinary => Numeric::decode(column.as_binary::<i64>().value(row))
            .unwrap()
            .to_string(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|i| value(&items, i)).collect();
            format!("{{{}}}", items.join(","))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let part = |at: usize, i: usize| value(entries.column(at), i);
            let entries = (0..entries.len()).map(|i| format!("{}:{}", part(0, i), part(1, i)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        DataType::Struct(_) => {
            let fields = column.as_struct().columns().iter();
            let fields: Vec<String> = fields.map(|field| value(field, row)).collect();
            format!("({})", fields.join(","))
        }
        _ => array_value_to_string(column, row).unwrap(),
    }
}

fn problems(errors: &[RecordError]) -> Vec<String> {
    errors
        .iter()
        .map(|error| format!("{}: {}", error.column, error.message))
        .collect()
}

/// The only value or the only error of one record with one column `v`.
fn one(sql: &str, json: &str) -> String {
    let columns = columns(&[("v", sql)]);
    let mut decoder = plain(&columns);
    push(&mut decoder, None, Some(&format!("{{\"v\":{json}}}")));
    let (changes, errors) = decoder.finish();
    match (&errors[..], changes.num_rows()) {
        ([], 1) => line(changes.rows(), 0),
        ([error], 0) => format!("! {}", error.message),
        _ => panic!("one record gives one row or one error"),
    }
}
