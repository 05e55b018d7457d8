//! Equality and order of elements and of arrays, as PostgreSQL has them.
//!
//! Elements compare by what their type compares by: numerics, JSONB and intervals by their keys,
//! floats with one NaN above all and without a sign of zero, `char`s without the blanks at their
//! end. NULL equals NULL and is above everything; who wants it otherwise asks for NULLs first.
//!
//! Arrays compare element by element, then by length. Their key holds `01` and the element's key
//! for every element, or `02` for NULL, and `00` at the end. An element's key has a fixed length,
//! or ends with `00 00`, its own zeros being `00 FF`: no key is the beginning of another one.
//!
//! Arrays, rows and maps in byte form, for extremes and for the shown value of a group: the key,
//! the text, and the length of the text in four bytes.

use super::super::definition::external;
use super::super::maps::maps_as_text;
use super::super::{chars, json, keyed, numeric};
use super::texts::{lists_as_text, records_as_text};
use arrow::array::*;
use arrow::compute::SortOptions;
use arrow::datatypes::*;
use datafusion_common::{Result, exec_err};
use std::sync::Arc;
use tidemark_changelog::maps::entries_of;
use tidemark_common::Error;
use tidemark_values::moment::Zone;

/// The values, or keys that compare in their place.
fn comparable(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::LargeBinary => numeric::keys(values.as_binary::<i64>()),
        DataType::LargeUtf8 => chars::keys(values.as_string::<i64>()),
        DataType::BinaryView => json::sort_keys(values.as_binary_view()),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            keyed::interval_keys(values.as_primitive())
        }
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN.abs() } else { v + 0.0 }),
        ),
        DataType::Float32 => Arc::new(
            values
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN.abs() } else { v + 0.0 }),
        ),
        _ => values.clone(),
    }
}

/// Compares an element of one column with one of another of the same type, by position.
pub(super) fn comparator(left: &ArrayRef, right: &ArrayRef) -> Result<DynComparator> {
    let options = SortOptions {
        descending: false,
        nulls_first: false,
    };
    let (left, right) = (comparable(left), comparable(right));
    Ok(make_comparator(left.as_ref(), right.as_ref(), options)?)
}

/// The keys of arrays.
pub(in super::super) fn sort_keys(lists: &ListArray) -> Result<BinaryArray> {
    let elements = element_keys(lists.values())?;
    let offsets = lists.value_offsets();
    let bytes = elements.values().len() + elements.len() + lists.len();
    let mut keys = BinaryBuilder::with_capacity(lists.len(), bytes);
    let mut key = Vec::new();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            keys.append_null();
            continue;
        }
        key.clear();
        for i in offsets[row] as usize..offsets[row + 1] as usize {
            if elements.is_null(i) {
                key.push(2);
            } else {
                key.push(1);
                key.extend_from_slice(elements.value(i));
            }
        }
        key.push(0);
        keys.append_value(&key);
    }
    Ok(keys.finish())
}

/// The keys of rows: those of their columns one after the other, each after a byte that tells
/// whether it is there.
pub(in super::super) fn row_keys(rows: &StructArray) -> Result<BinaryArray> {
    let columns = rows.columns().iter().map(element_keys);
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut keys = BinaryBuilder::with_capacity(rows.len(), rows.len() * 16);
    let mut key = Vec::new();
    for row in 0..rows.len() {
        if rows.is_null(row) {
            keys.append_null();
            continue;
        }
        key.clear();
        for column in &columns {
            if column.is_null(row) {
                key.push(2);
            } else {
                key.push(1);
                key.extend_from_slice(column.value(row));
            }
        }
        keys.append_value(&key);
    }
    Ok(keys.finish())
}

/// Whether values of a type have keys.
pub(in super::super) fn has_key(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().all(|field| has_key(field.data_type())),
        DataType::List(element) | DataType::Map(element, _) => has_key(element.data_type()),
        DataType::Interval(unit) => *unit == IntervalUnit::MonthDayNano,
        DataType::Timestamp(unit, _) | DataType::Time64(unit) => *unit == TimeUnit::Microsecond,
        DataType::Null | DataType::Boolean => true,
        DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Date32 => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::FixedSizeBinary(_) => true,
        _ => false,
    }
}

/// The keys of elements, NULL for NULL.
fn element_keys(values: &ArrayRef) -> Result<BinaryArray> {
    fn fixed<T: ArrowPrimitiveType, const N: usize>(
        values: &dyn Array,
        key: impl Fn(T::Native) -> [u8; N],
    ) -> BinaryArray {
        let values = values.as_primitive::<T>();
        let mut keys = BinaryBuilder::with_capacity(values.len(), values.len() * N);
        for value in values {
            match value {
                Some(value) => keys.append_value(key(value)),
                None => keys.append_null(),
            }
        }
        keys.finish()
    }
    fn open<'a>(values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> BinaryArray {
        let mut keys = BinaryBuilder::with_capacity(values.len(), values.len() * 16);
        let mut key = Vec::new();
        for value in values {
            let Some(value) = value else {
                keys.append_null();
                continue;
            };
            key.clear();
            for byte in value {
                key.push(*byte);
                if *byte == 0 {
                    key.push(0xFF);
                }
            }
            key.extend_from_slice(&[0, 0]);
            keys.append_value(&key);
        }
        keys.finish()
    }
    let values = comparable(values);
    Ok(match values.data_type() {
        DataType::Null => BinaryArray::new_null(values.len()),
        DataType::Boolean => {
            let truths = values.as_boolean().iter();
            truths.map(|v| v.map(|v| [u8::from(v)])).collect()
        }
        DataType::Int16 => fixed::<Int16Type, 2>(&values, |v| (v ^ i16::MIN).to_be_bytes()),
        DataType::Int32 => fixed::<Int32Type, 4>(&values, |v| (v ^ i32::MIN).to_be_bytes()),
        DataType::Date32 => fixed::<Date32Type, 4>(&values, |v| (v ^ i32::MIN).to_be_bytes()),
        DataType::Int64 => fixed::<Int64Type, 8>(&values, |v| (v ^ i64::MIN).to_be_bytes()),
        DataType::Time64(TimeUnit::Microsecond) => {
            fixed::<Time64MicrosecondType, 8>(&values, |v| (v ^ i64::MIN).to_be_bytes())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            fixed::<TimestampMicrosecondType, 8>(&values, |v| (v ^ i64::MIN).to_be_bytes())
        }
        DataType::Decimal128(..) => {
            fixed::<Decimal128Type, 16>(&values, |v| (v ^ i128::MIN).to_be_bytes())
        }
        DataType::Float32 => fixed::<Float32Type, 4>(&values, |v| {
            let bits = v.to_bits();
            let flip = ((bits as i32 >> 31) as u32) | 0x8000_0000;
            (bits ^ flip).to_be_bytes()
        }),
        DataType::Float64 => fixed::<Float64Type, 8>(&values, |v| {
            let bits = v.to_bits();
            let flip = ((bits as i64 >> 63) as u64) | 0x8000_0000_0000_0000;
            (bits ^ flip).to_be_bytes()
        }),
        DataType::Utf8 => open(
            values
                .as_string::<i32>()
                .iter()
                .map(|v| v.map(str::as_bytes)),
        ),
        DataType::FixedSizeBinary(_) => {
            let uuids = values.as_fixed_size_binary();
            uuids.iter().collect()
        }
        DataType::Binary => open(values.as_binary::<i32>().iter()),
        DataType::List(_) => sort_keys(values.as_list())?,
        DataType::Struct(_) => row_keys(values.as_struct())?,
        DataType::Map(..) => sort_keys(&entries_of(values.as_map()))?,
        other => return exec_err!("arrays of {other} have no key"),
    })
}

/// Arrays, rows or maps in byte form, which sorts as they do.
pub(in super::super) fn bytes_of(values: &ArrayRef) -> Result<ArrayRef> {
    let (keys, texts) = match values.data_type() {
        DataType::Map(..) => {
            let texts = maps_as_text(values.as_map(), &Zone::UTC)?;
            (element_keys(values)?, texts.as_string::<i32>().clone())
        }
        DataType::Struct(_) => {
            let records = values.as_struct();
            let texts = records_as_text(records, &Zone::UTC)?;
            (row_keys(records)?, texts.as_string::<i32>().clone())
        }
        _ => {
            let lists = values.as_list();
            (sort_keys(lists)?, lists_as_text(lists, &Zone::UTC)?)
        }
    };
    let bytes = keys.values().len() + texts.values().len() + 4 * keys.len();
    let mut all = BinaryBuilder::with_capacity(keys.len(), bytes);
    let mut one = Vec::new();
    for (key, text) in keys.iter().zip(&texts) {
        let (Some(key), Some(text)) = (key, text) else {
            all.append_null();
            continue;
        };
        one.clear();
        one.extend_from_slice(key);
        one.extend_from_slice(text.as_bytes());
        one.extend_from_slice(&(text.len() as u32).to_be_bytes());
        all.append_value(&one);
    }
    Ok(Arc::new(all.finish()))
}

/// The arrays or rows of their byte form.
pub(in super::super) fn of_bytes(bytes: &BinaryArray, to: &DataType) -> Result<ArrayRef> {
    let text = |form: &[u8]| {
        let (rest, length) = form.split_last_chunk()?;
        let from = rest
            .len()
            .checked_sub(u32::from_be_bytes(*length) as usize)?;
        std::str::from_utf8(&rest[from..]).ok().map(str::to_string)
    };
    let damaged = || external(Error::corrupt("an array in byte form is damaged"));
    let texts = bytes
        .iter()
        .map(|form| form.map(|f| text(f).ok_or_else(damaged)).transpose())
        .collect::<Result<StringArray>>()?;
    super::super::cast_array(&(Arc::new(texts) as ArrayRef), to)
}
