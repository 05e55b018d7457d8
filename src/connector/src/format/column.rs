//! Column builders: typed vectors that a record's fields are appended to, and that can be cut back
//! to a row count.
//!
//! Law: between two records every column holds exactly as many values as there are rows; within a
//! record a column holds that many or one more (`written` tells which), so a failed record is
//! undone by cutting back and a repeated field by cutting one value. NULLs are a list of row
//! numbers beside the values: rows without NULLs pay nothing for them.

use super::NOT_IN_ENCODING;
use super::datetime::{self, DayCache};
use super::form::fraction_digits;
use super::nested;
use super::number;
use super::scan::{Fault, Scanner, unescape};
use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray,
    LargeBinaryArray, LargeStringArray, ListArray, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Column;
use tidemark_values::{jsonb, moment, uuid};

/// What a text column checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextForm {
    /// VARCHAR with its limit in characters; `u32::MAX` for none.
    Varchar(u32),
    /// CHAR with its length; `u32::MAX` for none.
    Char(u32),
}

/// The values of one column.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(Vec<bool>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Text {
        data: String,
        ends: Vec<i32>,
        form: TextForm,
    },
    Uuid(Vec<[u8; uuid::BYTES]>),
    Bytes {
        data: Vec<u8>,
        ends: Vec<i32>,
    },
    /// Numerics with scales of their own, as bytes.
    Numeric {
        data: Vec<u8>,
        ends: Vec<i32>,
    },
    /// JSONB as bytes.
    Jsonb {
        data: Vec<u8>,
        ends: Vec<i32>,
    },
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp {
        values: Vec<i64>,
        zone: Option<Arc<str>>,
    },
    Interval(Vec<IntervalMonthDayNano>),
    /// Arrays: all their elements, and how many there are after each array.
    List {
        items: Box<ColumnBuilder>,
        ends: Vec<i32>,
        field: FieldRef,
    },
    /// Composite values: a builder for each field.
    Struct {
        children: Vec<ColumnBuilder>,
        fields: Fields,
    },
}

/// One wanted column under construction.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    /// Name in the relation.
    pub name: String,
    /// Whether a row may leave it NULL.
    pub nullable: bool,
    /// Rows including the current one, if this column has its value; smaller otherwise.
    pub written: usize,
    pub(super) values: Values,
    nulls: Vec<u32>,
    /// Digits of the second that times are rounded to.
    digits: u8,
}

/// What typed reading needs besides the cursor: scratch space and what the last record left.
#[derive(Default, Debug)]
pub(super) struct Context {
    pub scratch: String,
    pub bytes: Vec<u8>,
    pub json: jsonb::Builder,
    pub days: DayCache,
}

macro_rules! each_vector {
    ($values:expr, $v:ident => $body:expr, ($data:ident, $ends:ident) => $text:expr,
     ($items:ident, $counts:ident) => $list:expr, $children:ident => $struct:expr) => {
        match $values {
            Values::Interval($v) => $body,
            Values::Uuid($v) => $body,
            Values::List {
                items: $items,
                ends: $counts,
                ..
            } => $list,
            Values::Struct {
                children: $children,
                ..
            } => $struct,
            Values::Boolean($v) => $body,
            Values::Int16($v) => $body,
            Values::Int32($v) => $body,
            Values::Int64($v) => $body,
            Values::Float32($v) => $body,
            Values::Float64($v) => $body,
            Values::Decimal { values: $v, .. } => $body,
            Values::Date($v) => $body,
            Values::Time($v) => $body,
            Values::Timestamp { values: $v, .. } => $body,
            Values::Text {
                data: $data,
                ends: $ends,
                ..
            } => $text,
            Values::Bytes {
                data: $data,
                ends: $ends,
            } => $text,
            Values::Numeric {
                data: $data,
                ends: $ends,
            } => $text,
            Values::Jsonb {
                data: $data,
                ends: $ends,
            } => $text,
        }
    };
}

impl ColumnBuilder {
    /// An empty builder for `column`; `0A000` for a type that records cannot be read into.
    pub fn new(column: &Column, nullable: bool) -> Result<ColumnBuilder> {
        let text = |form| Values::Text {
            data: String::new(),
            ends: Vec::new(),
            form,
        };
        let values = match &column.data_type {
            DataType::Boolean => Values::Boolean(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal {
                values: Vec::new(),
                precision: *precision,
                scale: *scale,
            },
            DataType::LargeBinary => Values::Numeric {
                data: Vec::new(),
                ends: Vec::new(),
            },
            DataType::BinaryView => Values::Jsonb {
                data: Vec::new(),
                ends: Vec::new(),
            },
            DataType::Utf8 => text(TextForm::Varchar(length_limit(&column.sql_type))),
            DataType::LargeUtf8 => text(TextForm::Char(length_limit(&column.sql_type))),
            DataType::FixedSizeBinary(16) => Values::Uuid(Vec::new()),
            DataType::Binary => Values::Bytes {
                data: Vec::new(),
                ends: Vec::new(),
            },
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Values::Timestamp {
                values: Vec::new(),
                zone: zone.clone(),
            },
            DataType::Interval(IntervalUnit::MonthDayNano) => Values::Interval(Vec::new()),
            DataType::List(field) => nested::list(column, field)?,
            DataType::Map(entries, _) => nested::map(column, entries)?,
            DataType::Struct(fields) => nested::composite(column, fields)?,
            other => {
                let shown = if column.sql_type.is_empty() {
                    other.to_string()
                } else {
                    column.sql_type.clone()
                };
                return Err(Error::unsupported(format!(
                    "column \"{}\" of type {shown} cannot be read from records",
                    column.name
                ))
                .with_hint("Declare the column as JSONB and take it apart in a view."));
            }
        };
        Ok(ColumnBuilder {
            name: column.name.clone(),
            nullable,
            written: 0,
            values,
            nulls: Vec::new(),
            digits: fraction_digits(&column.sql_type).map_or(6, |digits| digits.min(6) as u8),
        })
    }

    /// Cuts back to `rows` values.
    pub fn truncate(&mut self, rows: usize) {
        each_vector!(
            &mut self.values,
            v => v.truncate(rows),
            (data, ends) => {
                ends.truncate(rows);
                data.truncate(ends.last().map_or(0, |end| *end as usize));
            },
            (items, ends) => {
                ends.truncate(rows);
                items.truncate(ends.last().map_or(0, |end| *end as usize));
            },
            children => children.iter_mut().for_each(|child| child.truncate(rows))
        );
        while self.nulls.last().is_some_and(|row| *row as usize >= rows) {
            self.nulls.pop();
        }
        self.written = self.written.min(rows);
    }

    /// Appends NULL to row `row`.
    pub fn push_null(&mut self, row: usize) {
        each_vector!(
            &mut self.values,
            v => v.push(Default::default()),
            (data, ends) => ends.push(data.len() as i32),
            (items, ends) => ends.push(items.written as i32),
            children => children.iter_mut().for_each(|child| child.push_null(row))
        );
        self.nulls.push(row as u32);
        self.written = row + 1;
    }

    /// Appends NULL where the schema allows it.
    #[cold]
    pub fn push_given_null(&mut self, row: usize) -> Result<(), Fault> {
        if !self.nullable {
            return Err(Fault::value(format!(
                "null value in column \"{}\", which is NOT NULL",
                self.name
            ))
            .with_state(SqlState::NOT_NULL_VIOLATION));
        }
        self.push_null(row);
        Ok(())
    }

    /// Appends an integer that the connector itself provides.
    pub fn push_integer(&mut self, row: usize, value: i64) {
        match &mut self.values {
            Values::Int32(values) => values.push(value as i32),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp { values, .. } => {
                values.push(value)
            }
            _ => return self.push_null(row),
        }
        self.written = row + 1;
    }

    /// Appends bytes as they are; into text, bytes that are not UTF-8 go in PostgreSQL's hex form.
    pub fn push_bytes(&mut self, row: usize, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.values {
            Values::Bytes { data, ends } => {
                data.extend_from_slice(bytes);
                ends.push(data.len() as i32);
                self.written = row + 1;
                Ok(())
            }
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => self.push_text(row, text, &mut DayCache::default()),
                Err(_) => self.push_text(row, &hex_text(bytes), &mut DayCache::default()),
            },
        }
    }

    /// Appends the JSON value at the cursor, of row `row`; `depth` containers are open around it.
    /// After a fault the values are undefined until `truncate`.
    #[inline]
    pub fn read(
        &mut self,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let first = scanner.peek();
        if first == b'n' {
            scanner.literal("null")?;
            return self.push_given_null(row);
        }
        let is_number = first == b'-' || first.is_ascii_digit();
        match &mut self.values {
            Values::Int64(values) if is_number => values.push(read_integer(scanner, "bigint")?),
            Values::Int32(values) if is_number => {
                values.push(narrow(read_integer(scanner, "integer")?, "integer")?)
            }
            Values::Int16(values) if is_number => {
                values.push(narrow(read_integer(scanner, "smallint")?, "smallint")?)
            }
            Values::Float64(values) if is_number => values.push(number::double(scanner.number()?)?),
            Values::Float32(values) if is_number => values.push(number::real(scanner.number()?)?),
            Values::Decimal {
                values,
                precision,
                scale,
            } if is_number => values.push(number::decimal(scanner.number()?, *precision, *scale)?),
            Values::Numeric { data, ends } if is_number => {
                number::numeric(scanner.number()?, data)?;
                ends.push(data.len() as i32);
            }
            Values::Timestamp { values, .. } if is_number => {
                values.push(read_timestamp_number(scanner)?)
            }
            Values::Timestamp { values, zone } if first == b'"' => {
                let text = scanner.string()?.resolve(&mut context.scratch);
                values.push(
                    datetime::timestamp(text, zone.is_some(), &mut context.days)
                        .ok_or_else(|| invalid_timestamp(zone.is_some(), text))?,
                );
            }
            Values::Text {
                data,
                ends,
                form: TextForm::Varchar(limit),
            } => {
                read_varchar(scanner, data, *limit, depth)?;
                ends.push(data.len() as i32);
            }
            _ => return self.read_rare(scanner, row, depth, context),
        }
        self.written = row + 1;
        Ok(())
    }

    /// The pairs of JSON kind and column type that are not worth a place in the hot loop.
    #[inline(never)]
    fn read_rare(
        &mut self,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        if let Values::Jsonb { data, ends } = &mut self.values {
            number::json(scanner.raw(depth)?, &mut context.json, data)?;
            ends.push(data.len() as i32);
            self.written = row + 1;
            return Ok(());
        }
        if scanner.peek() == b'"' {
            let Context { scratch, days, .. } = context;
            return self.push_text(row, scanner.string()?.resolve(scratch), days);
        }
        let start = scanner.pos();
        let raw = scanner.raw(depth)?;
        match &mut self.values {
            Values::Boolean(values) => values.push(match raw {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(number::invalid("boolean", raw)),
            }),
            Values::Date(values) => values.push(
                datetime::day_of_number(number::integral(raw, "date")?)
                    .ok_or_else(|| number::out_of_range("date", raw))?,
            ),
            Values::Time(values) => {
                let micros = number::integral(raw, "time")?;
                if !(0..=datetime::DAY_US).contains(&micros) {
                    return Err(number::out_of_range("time", raw));
                }
                values.push(micros);
            }
            Values::Bytes { data, ends } if !raw.starts_with(['{', '[']) => {
                data.extend_from_slice(raw.as_bytes());
                ends.push(data.len() as i32);
            }
            Values::Interval(values) => {
                let micros = number::integral(raw, "interval")?;
                values.push(datetime::interval_of_micros(micros, raw)?);
            }
            _ => {
                debug_assert!(scanner.pos() > start);
                return Err(number::invalid(self.type_name(), raw));
            }
        }
        self.written = row + 1;
        Ok(())
    }

    /// Appends what `text` means in this column's type.
    pub fn push_text(&mut self, row: usize, text: &str, days: &mut DayCache) -> Result<(), Fault> {
        match &mut self.values {
            Values::Boolean(values) => values.push(number::boolean(text)?),
            Values::Int16(values) => values.push(narrow(
                number::integral(text.trim_ascii(), "smallint")?,
                "smallint",
            )?),
            Values::Int32(values) => values.push(narrow(
                number::integral(text.trim_ascii(), "integer")?,
                "integer",
            )?),
            Values::Int64(values) => values.push(number::integral(text.trim_ascii(), "bigint")?),
            Values::Float32(values) => values.push(number::real(text.trim_ascii())?),
            Values::Float64(values) => values.push(number::double(text.trim_ascii())?),
            Values::Decimal {
                values,
                precision,
                scale,
            } => values.push(number::decimal(text.trim_ascii(), *precision, *scale)?),
            Values::Numeric { data, ends } => {
                number::numeric(text, data)?;
                ends.push(data.len() as i32);
            }
            Values::Jsonb { data, ends } => {
                number::json(text, &mut jsonb::Builder::new(), data)?;
                ends.push(data.len() as i32);
            }
            Values::Interval(values) => values.push(datetime::interval(text)?),
            Values::List { .. } | Values::Struct { .. } => {
                return Err(number::invalid(self.type_name(), text));
            }
            Values::Date(values) => {
                values.push(datetime::day(text, days).ok_or_else(|| number::invalid("date", text))?)
            }
            Values::Time(values) => values
                .push(datetime::time_of_day(text).ok_or_else(|| number::invalid("time", text))?),
            Values::Timestamp { values, zone } => {
                values.push(
                    datetime::timestamp(text, zone.is_some(), days)
                        .ok_or_else(|| invalid_timestamp(zone.is_some(), text))?,
                );
            }
            Values::Bytes { data, ends } => {
                push_bytea(text, data)?;
                ends.push(data.len() as i32);
            }
            Values::Text { data, ends, form } => {
                match form {
                    TextForm::Varchar(limit) => data.push_str(within_varchar(text, *limit)?),
                    TextForm::Char(length) => push_padded(text, *length, data)?,
                }
                ends.push(data.len() as i32);
            }
            Values::Uuid(values) => {
                values.push(uuid::read(text).map_err(|_| number::invalid("uuid", text))?)
            }
        }
        self.written = row + 1;
        Ok(())
    }

    /// Appends a record key that is no JSON: its bytes as they are, or what its text means.
    pub fn push_key_text(
        &mut self,
        row: usize,
        key: &[u8],
        context: &mut Context,
    ) -> Result<(), Fault> {
        if matches!(self.values, Values::Bytes { .. }) {
            return self.push_bytes(row, key);
        }
        let text = std::str::from_utf8(key).map_err(|_| {
            Fault::value("the record key is not valid UTF-8").with_state(NOT_IN_ENCODING)
        })?;
        self.push_text(row, text, &mut context.days)
    }

    /// Whether the last value is this text or its bytes, as elements of an array or the name of a
    /// member too.
    #[inline]
    pub fn ends_with(&self, text: &str) -> bool {
        let last = |data: &[u8], ends: &[i32]| match ends {
            [.., start, end] => data[*start as usize..*end as usize] == *text.as_bytes(),
            [end] => data[..*end as usize] == *text.as_bytes(),
            [] => false,
        };
        match &self.values {
            Values::Text { data, ends, .. } => last(data.as_bytes(), ends),
            Values::Bytes { data, ends } => last(data, ends),
            Values::Jsonb { data, ends } => {
                let start = ends.len().checked_sub(2).map_or(0, |at| ends[at] as usize);
                let member = jsonb::Value::new(&data[start..]).get(text);
                matches!(member, Ok(Some(_)))
            }
            Values::List { items, ends, .. } => {
                let start = ends.len().checked_sub(2).map_or(0, |at| ends[at] as usize);
                items.are_from(start, text)
            }
            _ => false,
        }
    }

    /// Whether the values from `start` on are this text, or its bytes as numbers.
    fn are_from(&self, start: usize, text: &str) -> bool {
        let bytes = || text.bytes().map(i64::from);
        match &self.values {
            Values::Int16(values) => values[start..].iter().map(|v| i64::from(*v)).eq(bytes()),
            Values::Int32(values) => values[start..].iter().map(|v| i64::from(*v)).eq(bytes()),
            Values::Int64(values) => values[start..].iter().copied().eq(bytes()),
            _ => self.written == start + 1 && self.ends_with(text),
        }
    }

    /// Name of the type for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.values {
            Values::Boolean(_) => "boolean",
            Values::Int16(_) => "smallint",
            Values::Int32(_) => "integer",
            Values::Int64(_) => "bigint",
            Values::Float32(_) => "real",
            Values::Float64(_) => "double precision",
            Values::Decimal { .. } | Values::Numeric { .. } => "numeric",
            Values::Uuid(_) => "uuid",
            Values::Text {
                form: TextForm::Char(_),
                ..
            } => "character",
            Values::Jsonb { .. } => "jsonb",
            Values::Text { .. } => "character varying",
            Values::Bytes { .. } => "bytea",
            Values::Date(_) => "date",
            Values::Time(_) => "time",
            Values::Timestamp { zone: None, .. } => "timestamp",
            Values::Timestamp { .. } => "timestamp with time zone",
            Values::Interval(_) => "interval",
            Values::List { field, .. } if nested::is_entries(field) => "map",
            Values::List { items, .. } => match items.values {
                Values::Struct { .. } => "record[]",
                _ => nested::array_name(items.type_name()),
            },
            Values::Struct { .. } => "record",
        }
    }

    /// Takes the `rows` values as an Arrow array; the builder is empty afterwards, with room for as
    /// many.
    pub fn finish(&mut self, rows: usize) -> ArrayRef {
        let nulls = null_buffer(&mut self.nulls, rows);
        self.written = 0;
        match &mut self.values {
            Values::Boolean(values) => {
                let bits = BooleanBuffer::collect_bool(rows, |i| values[i]);
                values.clear();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Values::Int16(values) => primitive::<Int16Type>(values, nulls),
            Values::Int32(values) => primitive::<Int32Type>(values, nulls),
            Values::Int64(values) => primitive::<Int64Type>(values, nulls),
            Values::Float32(values) => primitive::<Float32Type>(values, nulls),
            Values::Float64(values) => primitive::<Float64Type>(values, nulls),
            Values::Date(values) => primitive::<Date32Type>(values, nulls),
            Values::Time(values) => {
                let round = |time| moment::round_micros(time, self.digits);
                if self.digits < 6 {
                    values.iter_mut().for_each(|time| *time = round(*time));
                }
                primitive::<Time64MicrosecondType>(values, nulls)
            }
            Values::Timestamp { values, zone } => {
                let round = |moment| moment::round_timestamp(moment, self.digits);
                if self.digits < 6 {
                    values
                        .iter_mut()
                        .for_each(|moment| *moment = round(*moment));
                }
                Arc::new(
                    PrimitiveArray::<TimestampMicrosecondType>::new(taken(values).into(), nulls)
                        .with_timezone_opt(zone.clone()),
                )
            }
            Values::Decimal {
                values,
                precision,
                scale,
            } => {
                let array = Decimal128Array::new(taken(values).into(), nulls)
                    .with_precision_and_scale(*precision, *scale);
                Arc::new(array.expect("precision and scale come from a valid column type"))
            }
            Values::Uuid(values) => {
                let bytes = Buffer::from_vec(taken(values).into_flattened());
                Arc::new(FixedSizeBinaryArray::new(uuid::BYTES as i32, bytes, nulls))
            }
            Values::Text {
                data,
                ends,
                form: TextForm::Char(_),
            } => {
                let texts = StringArray::new(
                    offsets(ends),
                    Buffer::from_vec(std::mem::take(data).into_bytes()),
                    nulls,
                );
                Arc::new(texts.iter().collect::<LargeStringArray>())
            }
            Values::Text { data, ends, .. } => {
                let capacity = data.len();
                let bytes = std::mem::replace(data, String::with_capacity(capacity)).into_bytes();
                // SAFETY: the bytes are those of a `String`, and every end is the length that it
                // had after whole `&str`s were appended: offsets ascend, lie within the bytes and
                // fall on character boundaries.
                Arc::new(unsafe {
                    StringArray::new_unchecked(offsets(ends), Buffer::from_vec(bytes), nulls)
                })
            }
            Values::Bytes { data, ends } => Arc::new(BinaryArray::new(
                offsets(ends),
                Buffer::from_vec(taken(data)),
                nulls,
            )),
            Values::Jsonb { data, ends } => {
                let mut start = 0;
                let forms = ends.drain(..).enumerate().map(|(row, end)| {
                    let form = &data[start..end as usize];
                    start = end as usize;
                    let null = nulls.as_ref().is_some_and(|n| n.is_null(row));
                    (!null).then_some(form)
                });
                let array: BinaryViewArray = forms.collect();
                data.clear();
                Arc::new(array)
            }
            Values::Interval(values) => {
                let round = |nanos| moment::round_micros(nanos / 1_000, self.digits) * 1_000;
                if self.digits < 6 {
                    values
                        .iter_mut()
                        .for_each(|span| span.nanoseconds = round(span.nanoseconds));
                }
                primitive::<IntervalMonthDayNanoType>(values, nulls)
            }
            Values::List { items, ends, field } => {
                let count = ends.last().map_or(0, |end| *end as usize);
                let values = items.finish(count);
                if nested::is_entries(field) {
                    return nested::maps(field, &values, ends, nulls);
                }
                Arc::new(ListArray::new(field.clone(), offsets(ends), values, nulls))
            }
            Values::Struct { children, fields } => {
                let values = children
                    .iter_mut()
                    .map(|child| child.finish(rows))
                    .collect();
                Arc::new(
                    StructArray::try_new_with_length(fields.clone(), values, nulls, rows)
                        .expect("builders follow the fields and hold one value per row"),
                )
            }
            Values::Numeric { data, ends } => {
                let wide: Vec<i64> = std::iter::once(0)
                    .chain(ends.drain(..).map(i64::from))
                    .collect();
                Arc::new(LargeBinaryArray::new(
                    OffsetBuffer::new(wide.into()),
                    Buffer::from_vec(taken(data)),
                    nulls,
                ))
            }
        }
    }
}

/// Takes a vector, leaving one with the same room.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(
        ScalarBuffer::from(taken(values)),
        nulls,
    ))
}

/// Offsets from the ends of the values.
fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().copied()).collect();
    ends.clear();
    OffsetBuffer::new(offsets.into())
}

fn null_buffer(rows_of_null: &mut Vec<u32>, rows: usize) -> Option<NullBuffer> {
    if rows_of_null.is_empty() {
        return None;
    }
    let mut bits = vec![0xFFu8; rows.div_ceil(8)];
    for row in rows_of_null.drain(..) {
        bits[row as usize / 8] &= !(1 << (row % 8));
    }
    Some(NullBuffer::new(BooleanBuffer::new(
        Buffer::from_vec(bits),
        0,
        rows,
    )))
}

/// The `n` of `varchar(n)` and `char(n)`.
fn length_limit(sql_type: &str) -> u32 {
    let lower = sql_type.to_ascii_lowercase();
    let inner = lower
        .split_once('(')
        .filter(|(name, _)| name.contains("char"))
        .and_then(|(_, rest)| rest.split_once(')'));
    inner
        .and_then(|(digits, _)| digits.trim().parse().ok())
        .unwrap_or(u32::MAX)
}

#[inline]
pub(super) fn read_integer(
    scanner: &mut Scanner<'_>,
    type_name: &'static str,
) -> Result<i64, Fault> {
    match scanner.integer() {
        Some(value) => Ok(value),
        None => integer_of_number(scanner, type_name),
    }
}

#[cold]
fn integer_of_number(scanner: &mut Scanner<'_>, type_name: &'static str) -> Result<i64, Fault> {
    number::integral(scanner.number()?, type_name)
}

#[inline]
fn narrow<T: TryFrom<i64>>(value: i64, type_name: &'static str) -> Result<T, Fault> {
    T::try_from(value).map_err(|_| number::out_of_range(type_name, &value.to_string()))
}

fn read_timestamp_number(scanner: &mut Scanner<'_>) -> Result<i64, Fault> {
    let value = read_integer(scanner, "timestamp")?;
    datetime::timestamp_of_number(value)
        .ok_or_else(|| number::out_of_range("timestamp", &value.to_string()))
}

#[cold]
fn invalid_timestamp(zoned: bool, text: &str) -> Fault {
    number::invalid(
        if zoned {
            "timestamp with time zone"
        } else {
            "timestamp"
        },
        text,
    )
}

/// Appends a string's characters, or the text of any other value.
#[inline]
fn read_varchar(
    scanner: &mut Scanner<'_>,
    data: &mut String,
    limit: u32,
    depth: u32,
) -> Result<(), Fault> {
    let start = data.len();
    if scanner.peek() == b'"' {
        let text = scanner.string()?;
        if !text.escaped {
            data.push_str(text.raw);
        } else {
            unescape(text.raw, data);
            no_nul(&data[start..])?;
        }
    } else {
        data.push_str(scanner.raw(depth)?);
    }
    if limit != u32::MAX {
        let kept = within_varchar(&data[start..], limit)?.len();
        data.truncate(start + kept);
    }
    Ok(())
}

fn no_nul(text: &str) -> Result<(), Fault> {
    if text.as_bytes().contains(&0) {
        return Err(Fault::value("\\u0000 cannot be part of a text").with_state(SqlState("22P05")));
    }
    Ok(())
}

/// A text as VARCHAR(n) keeps it: blanks that are too many are cut off.
fn within_varchar(text: &str, limit: u32) -> Result<&str, Fault> {
    no_nul(text)?;
    if limit == u32::MAX || text.len() <= limit as usize {
        return Ok(text);
    }
    let end = text.char_indices().nth(limit as usize).map(|(end, _)| end);
    let (kept, rest) = text.split_at(end.unwrap_or(text.len()));
    if rest.bytes().any(|byte| byte != b' ') {
        return Err(Fault::value(format!(
            "value too long for type character varying({limit})"
        ))
        .with_state(SqlState("22001")));
    }
    Ok(kept)
}

/// PostgreSQL's hex form, else the text's own bytes.
pub(super) fn push_bytea(text: &str, data: &mut Vec<u8>) -> Result<(), Fault> {
    let Some(digits) = text.strip_prefix("\\x") else {
        data.extend_from_slice(text.as_bytes());
        return Ok(());
    };
    let nibble = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(number::invalid("bytea", text));
    }
    data.extend(
        digits
            .as_bytes()
            .chunks_exact(2)
            .filter_map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)),
    );
    Ok(())
}

/// A `char(length)`: blanks up to its length.
fn push_padded(text: &str, length: u32, data: &mut String) -> Result<(), Fault> {
    let text = text.trim_end_matches(' ');
    if length == u32::MAX {
        data.push_str(text);
        return Ok(());
    }
    let text = within_varchar(text, length)?;
    data.push_str(text);
    let blanks = (length as usize).saturating_sub(text.chars().count());
    data.extend(std::iter::repeat_n(' ', blanks));
    Ok(())
}

/// `\x` and two digits a byte.
pub(super) fn hex_text(bytes: &[u8]) -> String {
    let mut text = String::from("\\x");
    for byte in bytes {
        text.extend(
            [byte >> 4, byte & 15]
                .map(|nibble| char::from_digit(u32::from(nibble), 16).unwrap_or('0')),
        );
    }
    text
}
