//! Rows on the wire: Arrow columns to DataRow messages in PostgreSQL's text and binary formats.
//!
//! ```text
//! boolean      t f                               numeric  exact, all digits of its scale
//! timestamp    2024-01-31 10:00:00.5             float    shortest that reads back, 1e+15, NaN
//! timestamptz  2024-01-31 10:00:00.5+00          bytea    \x0aff
//! interval     1 mon 2 days 03:04:05.000006      array    {1,NULL,"a b"}       record  (1,,"a b")
//! ```
//! A batch's columns are downcast once; then each row is written value by value into one buffer.

use super::answer::Message;
use crate::formats::Formats;
use arrow::array::*;
use arrow::datatypes::*;
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;
use std::fmt::Write;
use tidemark_common::{Error, Result};
use tidemark_plan::maps::map_parts;
use tidemark_query::types;
use tidemark_values::array;
use tidemark_values::float_text;
use tidemark_values::jsonb;
use tidemark_values::moment::{self, Zone};
use tidemark_values::numeric::Numeric;
use tidemark_values::uuid;

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's day zero.
const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from 1970 to 2000.
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// The columns of a batch, ready to be sent row by row.
pub struct Columns<'a>(Vec<(Cell<'a>, bool)>);

impl<'a> Columns<'a> {
    /// `schema` names the columns' SQL types, texts of moments are those of `zone`.
    pub fn new(
        batch: &'a RecordBatch,
        schema: &Schema,
        formats: &Formats,
        zone: &Zone,
    ) -> Result<Columns<'a>> {
        let columns = batch.columns().iter().zip(schema.fields()).enumerate();
        let cells = columns.map(|(i, (column, field))| {
            let cell = Cell::new(column.as_ref(), field, zone)?;
            Ok((cell, formats.is_binary(i)))
        });
        Ok(Columns(cells.collect::<Result<_>>()?))
    }

    /// Appends the DataRow of a row.
    pub fn put(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        let mut message = Message::begin(b'D', out);
        message.body().put_i16(self.0.len() as i16);
        for (cell, binary) in &self.0 {
            cell.put(row, *binary, message.body());
        }
        message.end()
    }
}

/// The text of one value as PostgreSQL prints it in UTC; `None` for NULL.
pub fn text(array: &dyn Array, field: &FieldRef, row: usize) -> Result<Option<String>> {
    let cell = Cell::new(array, field, &Zone::UTC)?;
    if cell.is_null(row) {
        return Ok(None);
    }
    let mut out = BytesMut::new();
    cell.text(row, &mut out);
    Ok(Some(String::from_utf8_lossy(&out).into_owned()))
}

/// The columns of a batch, ready to be written as text (COPY).
pub fn cells<'a>(batch: &'a RecordBatch, zone: &'a Zone) -> Result<Vec<Cell<'a>>> {
    batch
        .columns()
        .iter()
        .zip(batch.schema().fields())
        .map(|(column, field)| Cell::new(column.as_ref(), field, zone))
        .collect()
}

/// A column, downcast.
pub enum Cell<'a> {
    Null,
    Bool(&'a BooleanArray),
    I8(&'a Int8Array),
    I16(&'a Int16Array),
    I32(&'a Int32Array),
    I64(&'a Int64Array),
    U8(&'a UInt8Array),
    U16(&'a UInt16Array),
    U32(&'a UInt32Array),
    U64(&'a UInt64Array),
    F32(&'a Float32Array),
    F64(&'a Float64Array),
    Decimal(&'a Decimal128Array, usize),
    /// Numerics with scales of their own.
    Numeric(&'a LargeBinaryArray),
    Text(&'a StringArray),
    Padded(&'a LargeStringArray),
    Uuid(&'a FixedSizeBinaryArray),
    Json(&'a BinaryViewArray),
    Bytes(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    /// With the zone whose clocks a moment is shown by.
    Timestamp(&'a TimestampMicrosecondArray, Option<Zone>),
    Interval(&'a IntervalMonthDayNanoArray),
    List(&'a ListArray, Box<Owned>, Type),
    /// int2vector, oidvector: a list whose text is its elements with spaces.
    Vector(&'a ListArray, Box<Owned>, Type),
    Struct(&'a StructArray, Vec<(Cell<'a>, Type)>),
    /// A map with the cells of its keys and of its values; its binary form is its text.
    Map(&'a MapArray, Box<[Cell<'a>; 2]>),
    /// A column of a type that is first cast to one of the above.
    Cast(Box<Owned>),
}

/// An array with the means to make its cell again.
pub struct Owned {
    array: ArrayRef,
    field: FieldRef,
    zone: Zone,
}

impl Owned {
    fn cell(&self) -> Cell<'_> {
        Cell::new(self.array.as_ref(), &self.field, &self.zone).unwrap_or(Cell::Null)
    }
}

impl<'a> Cell<'a> {
    /// The cell of an array that is announced as `field`, with texts of moments in `zone`.
    pub fn new(array: &'a dyn Array, field: &FieldRef, zone: &Zone) -> Result<Cell<'a>> {
        let cast = |to: &DataType| -> Result<Cell<'a>> {
            let array = arrow::compute::cast(array, to).map_err(|e| {
                Error::internal(format!(
                    "a result of type {} cannot be sent: {e}",
                    array.data_type()
                ))
            })?;
            Ok(Cell::Cast(Box::new(Owned {
                array,
                field: field.clone(),
                zone: zone.clone(),
            })))
        };
        Ok(match array.data_type() {
            DataType::Null => Cell::Null,
            DataType::Boolean => Cell::Bool(array.as_boolean()),
            DataType::Int8 => Cell::I8(array.as_primitive()),
            DataType::Int16 => Cell::I16(array.as_primitive()),
            DataType::Int32 => Cell::I32(array.as_primitive()),
            DataType::Int64 => Cell::I64(array.as_primitive()),
            DataType::UInt8 => Cell::U8(array.as_primitive()),
            DataType::UInt16 => Cell::U16(array.as_primitive()),
            DataType::UInt32 => Cell::U32(array.as_primitive()),
            DataType::UInt64 => Cell::U64(array.as_primitive()),
            DataType::Float32 => Cell::F32(array.as_primitive()),
            DataType::Float64 => Cell::F64(array.as_primitive()),
            DataType::Decimal128(_, s) if *s >= 0 => {
                Cell::Decimal(array.as_primitive(), *s as usize)
            }
            DataType::LargeBinary => Cell::Numeric(array.as_binary()),
            DataType::BinaryView => Cell::Json(array.as_binary_view()),
            DataType::LargeUtf8 => Cell::Padded(array.as_string()),
            DataType::FixedSizeBinary(16) => Cell::Uuid(array.as_fixed_size_binary()),
            DataType::Utf8 => Cell::Text(array.as_string()),
            DataType::Binary => Cell::Bytes(array.as_binary()),
            DataType::Date32 => Cell::Date(array.as_primitive()),
            DataType::Time64(TimeUnit::Microsecond) => Cell::Time(array.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, zoned) => {
                let zone = zoned.is_some().then(|| zone.clone());
                Cell::Timestamp(array.as_primitive(), zone)
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => Cell::Interval(array.as_primitive()),
            DataType::List(f) => {
                let element = types::pg_type(f);
                let values = Box::new(Owned {
                    array: array.as_list::<i32>().values().clone(),
                    field: f.clone(),
                    zone: zone.clone(),
                });
                let t = types::pg_type(field);
                if matches!(t, Type::INT2_VECTOR | Type::OID_VECTOR) {
                    Cell::Vector(array.as_list(), values, element)
                } else {
                    Cell::List(array.as_list(), values, element)
                }
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct();
                let cells = columns
                    .columns()
                    .iter()
                    .zip(fields)
                    .map(|(c, f)| Ok((Cell::new(c.as_ref(), f, zone)?, types::pg_type(f))));
                Cell::Struct(columns, cells.collect::<Result<_>>()?)
            }
            DataType::Map(..) if let Some((key, value)) = map_parts(array.data_type()) => {
                let maps = array.as_map();
                let keys = Cell::new(maps.keys().as_ref(), key, zone)?;
                let values = Cell::new(maps.values().as_ref(), value, zone)?;
                Cell::Map(maps, Box::new([keys, values]))
            }
            DataType::Utf8View => cast(&DataType::Utf8)?,
            DataType::FixedSizeBinary(_) => cast(&DataType::Binary)?,
            DataType::Date64 => cast(&DataType::Date32)?,
            DataType::Time32(_) | DataType::Time64(_) => {
                cast(&DataType::Time64(TimeUnit::Microsecond))?
            }
            DataType::Timestamp(_, zoned) => {
                cast(&DataType::Timestamp(TimeUnit::Microsecond, zoned.clone()))?
            }
            DataType::Interval(_) | DataType::Duration(_) => {
                cast(&DataType::Interval(IntervalUnit::MonthDayNano))?
            }
            DataType::Dictionary(_, values) => cast(values)?,
            DataType::LargeList(f)
            | DataType::FixedSizeList(f, _)
            | DataType::ListView(f)
            | DataType::LargeListView(f) => cast(&DataType::List(f.clone()))?,
            DataType::Float16 => cast(&DataType::Float32)?,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => {
                cast(&DataType::Decimal128(*p, *s))?
            }
            _ => cast(&DataType::Utf8)?,
        })
    }

    fn array(&self) -> Option<&dyn Array> {
        Some(match self {
            Cell::Null => return None,
            Cell::Bool(a) => *a,
            Cell::I8(a) => *a,
            Cell::I16(a) => *a,
            Cell::I32(a) => *a,
            Cell::I64(a) => *a,
            Cell::U8(a) => *a,
            Cell::U16(a) => *a,
            Cell::U32(a) => *a,
            Cell::U64(a) => *a,
            Cell::F32(a) => *a,
            Cell::F64(a) => *a,
            Cell::Decimal(a, _) => *a,
            Cell::Numeric(a) => *a,
            Cell::Json(a) => *a,
            Cell::Text(a) => *a,
            Cell::Padded(a) => *a,
            Cell::Uuid(a) => *a,
            Cell::Bytes(a) => *a,
            Cell::Date(a) => *a,
            Cell::Time(a) => *a,
            Cell::Timestamp(a, _) => *a,
            Cell::Interval(a) => *a,
            Cell::List(a, _, _) | Cell::Vector(a, _, _) => *a,
            Cell::Struct(a, _) => *a,
            Cell::Map(a, _) => *a,
            Cell::Cast(owned) => owned.array.as_ref(),
        })
    }

    /// Whether the value of `row` is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        self.array().is_none_or(|a| a.is_null(row))
    }

    /// Appends length and value.
    fn put(&self, row: usize, binary: bool, out: &mut BytesMut) {
        if self.is_null(row) {
            out.put_i32(-1);
            return;
        }
        let start = out.len();
        out.put_i32(0);
        if binary {
            self.binary(row, out);
        } else {
            self.text(row, out);
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends the text form of a value that is not NULL.
    pub fn text(&self, row: usize, out: &mut BytesMut) {
        // Writing to a BytesMut cannot fail.
        let _ = match self {
            Cell::Null => Ok(()),
            Cell::Bool(a) => {
                out.put_u8(if a.value(row) { b't' } else { b'f' });
                Ok(())
            }
            Cell::I8(a) => write!(out, "{}", a.value(row)),
            Cell::I16(a) => write!(out, "{}", a.value(row)),
            Cell::I32(a) => write!(out, "{}", a.value(row)),
            Cell::I64(a) => write!(out, "{}", a.value(row)),
            Cell::U8(a) => write!(out, "{}", a.value(row)),
            Cell::U16(a) => write!(out, "{}", a.value(row)),
            Cell::U32(a) => write!(out, "{}", a.value(row)),
            Cell::U64(a) => write!(out, "{}", a.value(row)),
            Cell::F32(a) => float_text::write_real(a.value(row), out),
            Cell::F64(a) => float_text::write_double(a.value(row), out),
            Cell::Decimal(a, scale) => put_decimal(a.value(row), *scale, out),
            Cell::Numeric(a) => numeric(a, row).write_to(out),
            Cell::Json(a) => {
                out.put_slice(json_text(a, row).as_bytes());
                Ok(())
            }
            Cell::Uuid(a) => {
                out.put_slice(&uuid::text(a.value(row)));
                Ok(())
            }
            Cell::Padded(a) => {
                out.put_slice(a.value(row).as_bytes());
                Ok(())
            }
            Cell::Text(a) => {
                out.put_slice(a.value(row).as_bytes());
                Ok(())
            }
            Cell::Bytes(a) => put_hex(a.value(row), out),
            Cell::Date(a) => put_moment(out, |t| moment::push_date(t, a.value(row))),
            Cell::Time(a) => put_moment(out, |t| moment::push_time(t, a.value(row))),
            Cell::Timestamp(a, None) => {
                put_moment(out, |t| moment::push_timestamp(t, a.value(row)))
            }
            Cell::Timestamp(a, Some(zone)) => {
                put_moment(out, |t| moment::push_timestamptz(t, a.value(row), zone))
            }
            Cell::Interval(a) => {
                let v = a.value(row);
                let span = moment::Interval::new(v.months, v.days, v.nanoseconds / 1000);
                put_moment(out, |t| moment::push_interval(t, span))
            }
            Cell::List(a, values, _) => {
                put_list_text(a, values, row, out);
                Ok(())
            }
            Cell::Vector(a, values, _) => {
                let (offsets, cell) = (a.value_offsets(), values.cell());
                for i in offsets[row]..offsets[row + 1] {
                    if i > offsets[row] {
                        out.put_u8(b' ');
                    }
                    cell.text(i as usize, out);
                }
                Ok(())
            }
            Cell::Struct(_, cells) => {
                put_record_text(cells, row, out);
                Ok(())
            }
            Cell::Map(a, cells) => {
                put_map_text(a, cells, row, out);
                Ok(())
            }
            Cell::Cast(owned) => {
                owned.cell().text(row, out);
                Ok(())
            }
        };
    }

    /// Appends the binary form of a value that is not NULL.
    fn binary(&self, row: usize, out: &mut BytesMut) {
        match self {
            Cell::Null => {}
            Cell::Bool(a) => out.put_u8(u8::from(a.value(row))),
            Cell::I8(a) => out.put_i16(a.value(row).into()),
            Cell::I16(a) => out.put_i16(a.value(row)),
            Cell::I32(a) => out.put_i32(a.value(row)),
            Cell::I64(a) => out.put_i64(a.value(row)),
            Cell::U8(a) => out.put_i16(a.value(row).into()),
            Cell::U16(a) => out.put_i32(a.value(row).into()),
            Cell::U32(a) => out.put_i64(a.value(row).into()),
            Cell::U64(a) => out.put_i64(a.value(row) as i64),
            Cell::F32(a) => out.put_f32(a.value(row)),
            Cell::F64(a) => out.put_f64(a.value(row)),
            Cell::Decimal(a, scale) => put_decimal_binary(a.value(row), *scale, out),
            Cell::Numeric(a) => {
                let mut wire = Vec::new();
                numeric(a, row).write_wire(&mut wire);
                out.put_slice(&wire);
            }
            Cell::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Cell::Padded(a) => out.put_slice(a.value(row).as_bytes()),
            Cell::Uuid(a) => out.put_slice(a.value(row)),
            Cell::Json(a) => {
                out.put_u8(1);
                out.put_slice(json_text(a, row).as_bytes());
            }
            Cell::Bytes(a) => out.put_slice(a.value(row)),
            Cell::Date(a) if moment::date_is_finite(a.value(row)) => {
                out.put_i32(a.value(row).saturating_sub(EPOCH_DAYS))
            }
            Cell::Date(a) => out.put_i32(a.value(row)),
            Cell::Time(a) => out.put_i64(a.value(row)),
            Cell::Timestamp(a, _) => out.put_i64(since_2000(a.value(row))),
            Cell::Interval(a) => {
                let v = a.value(row);
                out.put_i64(v.nanoseconds / 1000);
                out.put_i32(v.days);
                out.put_i32(v.months);
            }
            Cell::List(a, values, element) | Cell::Vector(a, values, element) => {
                put_list_binary(a, values, element, row, out)
            }
            Cell::Struct(_, cells) => {
                out.put_i32(cells.len() as i32);
                for (cell, t) in cells {
                    out.put_u32(t.oid());
                    cell.put(row, true, out);
                }
            }
            Cell::Map(a, cells) => put_map_text(a, cells, row, out),
            Cell::Cast(owned) => owned.cell().binary(row, out),
        }
    }
}

fn json_text(array: &BinaryViewArray, row: usize) -> String {
    let mut text = String::new();
    match jsonb::Value::new(array.value(row)).print(&mut text) {
        Ok(()) => text,
        Err(error) => panic!("a value in its stored form: {error}"),
    }
}

/// A value of a column of numerics; such columns are written by nobody but us.
fn numeric(array: &LargeBinaryArray, row: usize) -> Numeric {
    match Numeric::decode(array.value(row)) {
        Ok(value) => value,
        Err(error) => panic!("a value in its stored form: {error}"),
    }
}

fn put_decimal(value: i128, scale: usize, out: &mut BytesMut) -> std::fmt::Result {
    if scale == 0 {
        return write!(out, "{value}");
    }
    let sign = if value < 0 { "-" } else { "" };
    let power = 10u128.pow(scale as u32);
    let magnitude = value.unsigned_abs();
    write!(
        out,
        "{sign}{}.{:0scale$}",
        magnitude / power,
        magnitude % power
    )
}

/// Base-10000 digits: count, weight of the first, sign, display scale, digits.
fn put_decimal_binary(value: i128, scale: usize, out: &mut BytesMut) {
    let mut magnitude = value.unsigned_abs();
    // Align the fraction to whole base-10000 digits.
    let padding = (4 - scale % 4) % 4;
    let mut groups = Vec::with_capacity(12);
    let factor = 10u128.pow(padding as u32);
    let mut first = true;
    while magnitude > 0 {
        let group = if first && padding > 0 {
            let taken = 10u128.pow(4 - padding as u32);
            let group = (magnitude % taken) * factor;
            magnitude /= taken;
            group
        } else {
            let group = magnitude % 10_000;
            magnitude /= 10_000;
            group
        };
        first = false;
        groups.push(group as i16);
    }
    let fraction_groups = scale.div_ceil(4);
    let weight = groups.len() as i32 - fraction_groups as i32 - 1;
    groups.reverse();
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let weight = if groups.is_empty() { 0 } else { weight };
    out.put_i16(groups.len() as i16);
    out.put_i16(weight as i16);
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(scale as i16);
    for group in groups {
        out.put_i16(group);
    }
}

fn put_hex(bytes: &[u8], out: &mut BytesMut) -> std::fmt::Result {
    out.put_slice(b"\\x");
    for b in bytes {
        write!(out, "{b:02x}")?;
    }
    Ok(())
}

/// A moment in PostgreSQL's text, as `push` writes it.
fn put_moment(out: &mut BytesMut, push: impl FnOnce(&mut Vec<u8>)) -> std::fmt::Result {
    let mut text = Vec::with_capacity(32);
    push(&mut text);
    out.put_slice(&text);
    Ok(())
}

/// The binary form of a moment, counted from 2000; infinities stay what they are.
fn since_2000(micros: i64) -> i64 {
    if moment::timestamp_is_finite(micros) {
        micros.saturating_sub(EPOCH_MICROS)
    } else {
        micros
    }
}

fn put_list_text(list: &ListArray, values: &Owned, row: usize, out: &mut BytesMut) {
    let offsets = list.value_offsets();
    let cell = values.cell();
    out.put_u8(b'{');
    for (n, i) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        if cell.is_null(i) {
            out.put_slice(b"NULL");
            continue;
        }
        let mut element = BytesMut::new();
        cell.text(i, &mut element);
        if !matches!(cell, Cell::List(..)) && array::is_quoted(&element) {
            put_quoted(&element, b"\\", out);
        } else {
            out.put_slice(&element);
        }
    }
    out.put_u8(b'}');
}

fn put_record_text(cells: &[(Cell<'_>, Type)], row: usize, out: &mut BytesMut) {
    out.put_u8(b'(');
    for (n, (cell, _)) in cells.iter().enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        if cell.is_null(row) {
            continue;
        }
        let mut field = BytesMut::new();
        cell.text(row, &mut field);
        if field.is_empty()
            || field
                .iter()
                .any(|b| matches!(b, b'(' | b')' | b',' | b'"' | b'\\') || b.is_ascii_whitespace())
        {
            put_quoted(&field, b"\"", out);
        } else {
            out.put_slice(&field);
        }
    }
    out.put_u8(b')');
}

fn put_map_text(maps: &MapArray, [keys, values]: &[Cell<'_>; 2], row: usize, out: &mut BytesMut) {
    let part = |cell: &Cell<'_>, at: usize, out: &mut BytesMut| {
        if cell.is_null(at) {
            return out.put_slice(b"NULL");
        }
        let mut text = BytesMut::new();
        cell.text(at, &mut text);
        if array::is_quoted(&text) || text.contains(&b':') {
            put_quoted(&text, b"\\", out);
        } else {
            out.put_slice(&text);
        }
    };
    let (from, to) = (maps.value_offsets()[row], maps.value_offsets()[row + 1]);
    out.put_u8(b'{');
    for at in from as usize..to as usize {
        if at > from as usize {
            out.put_u8(b',');
        }
        part(keys, at, out);
        out.put_u8(b':');
        part(values, at, out);
    }
    out.put_u8(b'}');
}

/// In double quotes; quotes are escaped with `escape`, backslashes with a backslash.
fn put_quoted(value: &[u8], escape: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    for b in value {
        match b {
            b'"' => out.put_slice(escape),
            b'\\' => out.put_u8(b'\\'),
            _ => {}
        }
        out.put_u8(*b);
    }
    out.put_u8(b'"');
}

fn put_list_binary(
    list: &ListArray,
    values: &Owned,
    element: &Type,
    row: usize,
    out: &mut BytesMut,
) {
    let offsets = list.value_offsets();
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    let cell = values.cell();
    if range.is_empty() {
        out.put_i32(0);
        out.put_i32(0);
        out.put_u32(element.oid());
        return;
    }
    out.put_i32(1);
    out.put_i32(i32::from(range.clone().any(|i| cell.is_null(i))));
    out.put_u32(element.oid());
    out.put_i32(range.len() as i32);
    out.put_i32(1);
    for i in range {
        cell.put(i, true, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn texts(array: ArrayRef) -> Vec<Option<String>> {
        let field = Arc::new(Field::new("c", array.data_type().clone(), true));
        (0..array.len())
            .map(|i| text(array.as_ref(), &field, i).unwrap())
            .collect()
    }

    fn all(array: ArrayRef) -> Vec<String> {
        texts(array)
            .into_iter()
            .map(|t| t.unwrap_or("NULL".into()))
            .collect()
    }

    #[test]
    fn a_row_is_a_message_with_its_values() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![1, -20])),
            Arc::new(StringArray::from(vec![Some("a"), None])),
            Arc::new(Int64Array::from(vec![3, 4])),
        ];
        let fields = columns.iter().enumerate();
        let fields = fields.map(|(i, c)| Field::new(i.to_string(), c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let formats = Formats::new(vec![0, 0, 1]);
        let rows = Columns::new(&batch, &schema, &formats, &Zone::UTC).unwrap();
        let mut out = BytesMut::new();
        rows.put(1, &mut out).unwrap();
        let expected =
            b"D\0\0\0\x1d\0\x03\0\0\0\x03-20\xff\xff\xff\xff\0\0\0\x08\0\0\0\0\0\0\0\x04";
        assert_eq!(out.as_ref(), expected);
    }

    #[test]
    fn floats_print_as_postgresql_does() {
        let values = [
            1.0,
            0.1,
            1e15,
            1e14,
            123456789012345678.0,
            1e-4,
            1e-5,
            -2.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            -0.0,
        ];
        let expected = [
            "1",
            "0.1",
            "1e+15",
            "100000000000000",
            "1.2345678901234568e+17",
            "0.0001",
            "1e-05",
            "-2.5",
            "Infinity",
            "-Infinity",
            "NaN",
            "-0",
        ];
        assert_eq!(all(Arc::new(Float64Array::from(values.to_vec()))), expected);
        assert_eq!(
            all(Arc::new(Float32Array::from(vec![
                0.1, 1e6, 100_000.0, 1e-7
            ]))),
            ["0.1", "1e+06", "100000", "1e-07"]
        );
    }

    #[test]
    fn decimals_keep_their_scale() {
        let array = Decimal128Array::from(vec![150, -5, 0, -12345])
            .with_precision_and_scale(38, 2)
            .unwrap();
        assert_eq!(all(Arc::new(array)), ["1.50", "-0.05", "0.00", "-123.45"]);
    }

    #[test]
    fn times_and_intervals() {
        let day = 86_400_000_000;
        assert_eq!(
            all(Arc::new(TimestampMicrosecondArray::from(vec![
                0,
                1_706_695_200_500_000,
                -1
            ]))),
            [
                "1970-01-01 00:00:00",
                "2024-01-31 10:00:00.5",
                "1969-12-31 23:59:59.999999"
            ]
        );
        assert_eq!(
            all(Arc::new(
                TimestampMicrosecondArray::from(vec![day]).with_timezone("UTC")
            )),
            ["1970-01-02 00:00:00+00"]
        );
        assert_eq!(
            all(Arc::new(Date32Array::from(vec![19_782, -719_529]))),
            ["2024-02-29", "0002-12-31 BC"]
        );
        let v = |m, d, n| IntervalMonthDayNano::new(m, d, n);
        let intervals = vec![
            v(0, 0, 0),
            v(14, -3, 3_600_000_000_000),
            v(0, 1, 0),
            v(0, 0, -1_500_000_000),
            v(-1, 2, 0),
        ];
        assert_eq!(
            all(Arc::new(IntervalMonthDayNanoArray::from(intervals))),
            [
                "00:00:00",
                "1 year 2 mons -3 days +01:00:00",
                "1 day",
                "-00:00:01.5",
                "-1 mons +2 days"
            ]
        );
    }

    #[test]
    fn arrays_quote_what_they_must() {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for v in [
            Some("a"),
            Some("b c"),
            None,
            Some(""),
            Some("null"),
            Some("q\"\\"),
        ] {
            builder.values().append_option(v);
        }
        builder.append(true);
        builder.append(true);
        assert_eq!(
            all(Arc::new(builder.finish())),
            [r#"{a,"b c",NULL,"","null","q\"\\"}"#, "{}"]
        );
    }

    #[test]
    fn numeric_binary_has_base_10000_digits() {
        let encode = |v, s| {
            let mut out = BytesMut::new();
            put_decimal_binary(v, s, &mut out);
            out.chunks(2)
                .map(|c| i16::from_be_bytes([c[0], c[1]]))
                .collect::<Vec<_>>()
        };
        assert_eq!(encode(12_345_678, 2), [3, 1, 0, 2, 12, 3456, 7800]);
        assert_eq!(encode(-5, 2), [1, -1, 0x4000, 2, 500]);
        assert_eq!(encode(0, 0), [0, 0, 0, 0]);
        assert_eq!(encode(10_000, 0), [1, 1, 0, 0, 1]);
        assert_eq!(encode(1, 10), [1, -3, 0, 10, 100]);
    }
}
