//! Rows as JSON objects, and nothing that our own decoder would read back differently.
//!
//! Written: integers and numerics as numbers (numerics exactly, with all digits of their scale);
//! reals and doubles as the shortest number that reads back the same, `NaN` and infinities as
//! strings; text with the escapes that JSON demands and no others; bytea as `"\\x.."`; dates, times
//! and timestamps as PostgreSQL prints them, timestamptz with `+00:00`; intervals as PostgreSQL
//! prints them; jsonb as the JSON that it is; arrays as arrays and composite values as objects of
//! the same forms; NULL as `null`.
//!
//! Names are escaped and joined with their punctuation once, arrays are downcast once a batch,
//! bytes go into one buffer that the caller keeps.

use super::connect_encode;
use super::datetime;
use super::form::Unit;
use super::scan::special_mask;
use arrow::array::{
    Array, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, ListArray, MapArray, PrimitiveArray,
    RecordBatch, StringArray, StringViewArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use std::ops::Range;
use tidemark_common::{Error, Result};
use tidemark_plan::Column;
use tidemark_values::numeric::Numeric;
use tidemark_values::{jsonb, uuid};

/// One member of the object.
#[derive(Debug)]
struct Member {
    /// `{"name":` of the first, `,"name":` of the others.
    prefix: Vec<u8>,
    /// Position of the column in the batch.
    position: usize,
}

/// Writes rows as JSON objects of chosen columns.
#[derive(Debug)]
pub struct JsonEncoder {
    members: Vec<Member>,
    style: Style,
}

/// How values are written that JSON has no type for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As texts that say it themselves.
    Plain,
    /// As the schema around them says; times are counted in this unit.
    Connect(Unit),
    /// As [`Style::Plain`], but texts and nulls in JSONB are written as the text of their JSON, as
    /// change events hold JSON: it is what a string in such a column is read as.
    Event,
}

/// A batch whose rows can be written.
pub struct BoundRows<'a> {
    members: Vec<(&'a [u8], Writer<'a>)>,
}

/// A column's values, and how they are written.
struct Writer<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

/// A column's values, downcast.
enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a Decimal128Array, i8),
    Numeric(&'a LargeBinaryArray),
    Text(&'a StringArray),
    TextView(&'a StringViewArray),
    Padded(&'a LargeStringArray),
    Uuid(&'a FixedSizeBinaryArray),
    /// Whether texts and nulls are written as the text of their JSON.
    Json(&'a BinaryViewArray, bool),
    Bytes(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>, bool),
    Interval(&'a PrimitiveArray<IntervalMonthDayNanoType>),
    /// Arrays and their elements.
    List(&'a ListArray, Box<Writer<'a>>),
    /// Composite values: what stands before each field's value, and its writer.
    Struct(Vec<(Vec<u8>, Writer<'a>)>),
    /// With the texts of the keys, in quotes and with a colon, and the values.
    Map(&'a MapArray, Vec<Vec<u8>>, Box<Writer<'a>>),
    /// The forms that a schema describes.
    Connect(connect_encode::Values<'a>),
}

impl JsonEncoder {
    /// For the columns at `fields` of batches with `columns`. `0A000` for a type that has no JSON
    /// form here.
    pub fn new(columns: &[Column], fields: &[usize]) -> Result<JsonEncoder> {
        JsonEncoder::with_style(columns, fields, Style::Plain)
    }

    /// The same, in a style.
    pub(crate) fn with_style(
        columns: &[Column],
        fields: &[usize],
        style: Style,
    ) -> Result<JsonEncoder> {
        let member = |(i, position): (usize, &usize)| {
            let column = columns
                .get(*position)
                .ok_or_else(|| Error::internal(format!("no column {position} to encode")))?;
            if !encodes(&column.data_type) {
                return Err(Error::unsupported(format!(
                    "column \"{}\" of type {} cannot be written as JSON",
                    column.name, column.data_type
                ))
                .with_hint("Cast it to VARCHAR or JSONB in the sink's query."));
            }
            Ok(Member {
                prefix: prefix(i, &column.name),
                position: *position,
            })
        };
        Ok(JsonEncoder {
            members: fields
                .iter()
                .enumerate()
                .map(member)
                .collect::<Result<_>>()?,
            style,
        })
    }

    /// Prepares a batch whose columns are the ones that the encoder was made for.
    pub fn bind<'a>(&'a self, rows: &'a RecordBatch) -> Result<BoundRows<'a>> {
        let bind = |member: &'a Member| {
            let column = rows.columns().get(member.position).ok_or_else(|| {
                Error::internal(format!("the batch has no column {}", member.position))
            })?;
            Ok((
                member.prefix.as_slice(),
                Writer::new(column.as_ref(), self.style)?,
            ))
        };
        Ok(BoundRows {
            members: self.members.iter().map(bind).collect::<Result<_>>()?,
        })
    }

    /// Appends the rows in `range` to `out`, and to `ends` the length of `out` after each.
    pub fn encode_rows(
        &self,
        rows: &RecordBatch,
        range: Range<usize>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Result<()> {
        let bound = self.bind(rows)?;
        for row in range {
            bound.write(row, out);
            ends.push(out.len());
        }
        Ok(())
    }
}

impl BoundRows<'_> {
    /// Appends row `row` to `out`.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.members.is_empty() {
            out.push(b'{');
        }
        for (prefix, writer) in &self.members {
            out.extend_from_slice(prefix);
            writer.write(row, out);
        }
        out.push(b'}');
    }

    /// Appends the first column's value of row `row` without name, and text without quotes; nothing
    /// for NULL.
    pub(super) fn write_bare(&self, row: usize, out: &mut Vec<u8>) {
        let Some((_, writer)) = self.members.first() else {
            return;
        };
        match &writer.values {
            Values::Text(array) if array.is_valid(row) => {
                out.extend_from_slice(array.value(row).as_bytes())
            }
            Values::TextView(array) if array.is_valid(row) => {
                out.extend_from_slice(array.value(row).as_bytes())
            }
            Values::Bytes(array) if array.is_valid(row) => out.extend_from_slice(array.value(row)),
            _ => {
                let start = out.len();
                writer.write(row, out);
                if out[start..] == *b"null" {
                    out.truncate(start);
                } else if out.get(start) == Some(&b'"')
                    && !matches!(writer.values, Values::Json(..))
                {
                    out.remove(start);
                    out.pop();
                }
            }
        }
    }
}

/// What stands before the `i`th value of an object.
fn prefix(i: usize, name: &str) -> Vec<u8> {
    let mut prefix = vec![if i == 0 { b'{' } else { b',' }];
    write_string(name.as_bytes(), &mut prefix);
    prefix.push(b':');
    prefix
}

fn encodes(data_type: &DataType) -> bool {
    use DataType as D;
    match data_type {
        D::List(item) => return encodes(item.data_type()),
        D::Struct(fields) => return fields.iter().all(|field| encodes(field.data_type())),
        D::Map(entries, _) => return encodes(entries.data_type()),
        _ => {}
    }
    matches!(
        data_type,
        D::Boolean
            | D::Int16
            | D::Int32
            | D::Int64
            | D::Float32
            | D::Float64
            | D::Decimal128(..)
            | D::LargeBinary
            | D::BinaryView
            | D::Utf8
            | D::Utf8View
            | D::LargeUtf8
            | D::FixedSizeBinary(16)
            | D::Binary
            | D::Date32
    ) || matches!(
        data_type,
        D::Time64(TimeUnit::Microsecond)
            | D::Timestamp(TimeUnit::Microsecond, _)
            | D::Interval(IntervalUnit::MonthDayNano)
    )
}

impl<'a> Writer<'a> {
    fn new(array: &'a dyn Array, style: Style) -> Result<Writer<'a>> {
        let nulls = array.nulls();
        let described = match style {
            Style::Plain | Style::Event => None,
            Style::Connect(unit) => connect_encode::Values::new(array, unit),
        };
        let values = match described {
            Some(values) => Values::Connect(values),
            None => Values::new(array, style)?,
        };
        Ok(Writer { nulls, values })
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return out.extend_from_slice(b"null");
        }
        match &self.values {
            Values::Boolean(array) => {
                out.extend_from_slice(if array.value(row) { b"true" } else { b"false" })
            }
            Values::Int16(array) => write_integer(array.value(row), out),
            Values::Int32(array) => write_integer(array.value(row), out),
            Values::Int64(array) => write_integer(array.value(row), out),
            Values::Float32(array) => write_float(
                array.value(row),
                array.value(row).is_finite(),
                f64::from(array.value(row)),
                out,
            ),
            Values::Float64(array) => write_float(
                array.value(row),
                array.value(row).is_finite(),
                array.value(row),
                out,
            ),
            Values::Decimal(array, scale) => write_decimal(array.value(row), *scale, out),
            Values::Numeric(array) => write_numeric(array.value(row), out),
            Values::Text(array) => write_string(array.value(row).as_bytes(), out),
            Values::TextView(array) => write_string(array.value(row).as_bytes(), out),
            Values::Padded(array) => write_string(array.value(row).as_bytes(), out),
            Values::Uuid(array) => {
                out.push(b'"');
                out.extend_from_slice(&uuid::text(array.value(row)));
                out.push(b'"');
            }
            Values::Json(array, embeds) => {
                let mut text = String::new();
                let printed = jsonb::Value::new(array.value(row)).print(&mut text);
                printed.expect("a value in its stored form");
                if *embeds && text.starts_with(['"', 'n']) {
                    write_string(text.as_bytes(), out);
                } else {
                    out.extend_from_slice(text.as_bytes());
                }
            }
            Values::Bytes(array) => write_bytes(array.value(row), out),
            Values::Date(array) => quoted(out, |out| datetime::write_date(array.value(row), out)),
            Values::Time(array) => quoted(out, |out| datetime::write_time(array.value(row), out)),
            Values::Timestamp(array, zoned) => quoted(out, |out| {
                datetime::write_timestamp(array.value(row), *zoned, out)
            }),
            Values::Interval(array) => {
                quoted(out, |out| datetime::write_interval(array.value(row), out))
            }
            Values::List(array, items) => {
                let offsets = array.value_offsets();
                out.push(b'[');
                for at in offsets[row]..offsets[row + 1] {
                    if at > offsets[row] {
                        out.push(b',');
                    }
                    items.write(at as usize, out);
                }
                out.push(b']');
            }
            Values::Map(array, keys, values) => {
                let offsets = array.value_offsets();
                out.push(b'{');
                for at in offsets[row]..offsets[row + 1] {
                    if at > offsets[row] {
                        out.push(b',');
                    }
                    out.extend_from_slice(&keys[at as usize]);
                    values.write(at as usize, out);
                }
                out.push(b'}');
            }
            Values::Connect(values) => values.write(row, out),
            Values::Struct(fields) => {
                if fields.is_empty() {
                    out.push(b'{');
                }
                for (prefix, values) in fields {
                    out.extend_from_slice(prefix);
                    values.write(row, out);
                }
                out.push(b'}');
            }
        }
    }
}

impl<'a> Values<'a> {
    fn new(array: &'a dyn Array, style: Style) -> Result<Values<'a>> {
        use DataType as D;
        Ok(match array.data_type() {
            D::Boolean => Values::Boolean(array.as_boolean()),
            D::Int16 => Values::Int16(array.as_primitive()),
            D::Int32 => Values::Int32(array.as_primitive()),
            D::Int64 => Values::Int64(array.as_primitive()),
            D::Float32 => Values::Float32(array.as_primitive()),
            D::Float64 => Values::Float64(array.as_primitive()),
            D::Decimal128(_, scale) => Values::Decimal(array.as_primitive(), *scale),
            D::LargeBinary => Values::Numeric(array.as_binary()),
            D::BinaryView => Values::Json(array.as_binary_view(), style == Style::Event),
            D::Utf8 => Values::Text(array.as_string()),
            D::Utf8View => Values::TextView(array.as_string_view()),
            D::LargeUtf8 => Values::Padded(array.as_string()),
            D::FixedSizeBinary(16) => Values::Uuid(array.as_fixed_size_binary()),
            D::Binary => Values::Bytes(array.as_binary()),
            D::Date32 => Values::Date(array.as_primitive()),
            D::Time64(TimeUnit::Microsecond) => Values::Time(array.as_primitive()),
            D::Timestamp(TimeUnit::Microsecond, zone) => {
                Values::Timestamp(array.as_primitive(), zone.is_some())
            }
            D::Interval(IntervalUnit::MonthDayNano) => Values::Interval(array.as_primitive()),
            D::List(_) => {
                let list = array.as_list();
                Values::List(list, Box::new(Writer::new(list.values().as_ref(), style)?))
            }
            D::Map(..) => {
                let maps = array.as_map();
                let keys = arrow::compute::cast(maps.keys(), &D::Utf8);
                let keys = keys.map_err(|e| Error::internal(e.to_string()))?;
                let key = |text: Option<&str>| {
                    let mut key = Vec::new();
                    write_string(text.unwrap_or_default().as_bytes(), &mut key);
                    key.push(b':');
                    key
                };
                let keys = keys.as_string::<i32>().iter().map(key).collect();
                let values = Writer::new(maps.values().as_ref(), style)?;
                Values::Map(maps, keys, Box::new(values))
            }
            D::Struct(fields) => {
                let composite = array.as_struct();
                let field = |(i, field): (usize, &FieldRef)| {
                    let values = Writer::new(composite.column(i).as_ref(), style)?;
                    Ok((prefix(i, field.name()), values))
                };
                let fields = fields.iter().enumerate().map(field);
                Values::Struct(fields.collect::<Result<_>>()?)
            }
            other => {
                return Err(Error::internal(format!(
                    "a batch has type {other} where JSON is written"
                )));
            }
        })
    }
}

#[inline]
pub(super) fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

#[inline]
pub(super) fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_float(value: impl ryu::Float, finite: bool, wide: f64, out: &mut Vec<u8>) {
    if finite {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if wide > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        });
    }
}

fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    if value < 0 {
        out.push(b'-');
    }
    if scale <= 0 {
        out.extend_from_slice(digits);
        if value != 0 {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    out.push(b'.');
    out.resize(out.len() + scale - fraction.len(), b'0');
    out.extend_from_slice(fraction);
}

/// A numeric as it prints; `NaN` and infinities as strings.
fn write_numeric(form: &[u8], out: &mut Vec<u8>) {
    let value = Numeric::decode(form).expect("a value in its stored form");
    if value.is_finite() {
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        quoted(out, |out| {
            out.extend_from_slice(value.to_string().as_bytes())
        });
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\"\\\\x");
    out.extend(bytes.iter().flat_map(|byte| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    }));
    out.push(b'"');
}

/// Appends UTF-8 `text` as a JSON string.
#[inline]
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut done = 0;
    let mut at = 0;
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let mask = special_mask(chunk);
        if mask == 0 {
            at += 16;
            continue;
        }
        at += mask.trailing_zeros() as usize;
        out.extend_from_slice(&text[done..at]);
        write_escape(text[at], out);
        at += 1;
        done = at;
    }
    for at in at..text.len() {
        if matches!(text[at], b'"' | b'\\' | 0..0x20) {
            out.extend_from_slice(&text[done..at]);
            write_escape(text[at], out);
            done = at + 1;
        }
    }
    out.extend_from_slice(&text[done..]);
    out.push(b'"');
}

#[inline(never)]
fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
