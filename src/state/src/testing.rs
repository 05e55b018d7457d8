//! Random rows for tests, from one seed, and rows as text, so that a plain map can be the model.

use crate::column::canonical;
use arrow::array::*;
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;
pub(crate) use tidemark_common::random::Random;

/// Types of every storage class.
pub(crate) fn types() -> Vec<DataType> {
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    vec![
        DataType::Int64,
        DataType::Utf8,
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(20, 2),
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Binary,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::FixedSizeBinary(5),
        DataType::List(item),
    ]
}

/// A column of `rows` values out of about `domain` different ones; NULLs if `nulls`.
pub(crate) fn column(
    rng: &mut Random,
    data_type: &DataType,
    rows: usize,
    domain: usize,
    nulls: bool,
) -> ArrayRef {
    let values: Vec<Option<i64>> = (0..rows)
        .map(|_| {
            if nulls && rng.below(6) == 0 {
                None
            } else {
                Some(rng.below(domain) as i64)
            }
        })
        .collect();
    let ints: ArrayRef = Arc::new(Int64Array::from(values.clone()));
    // Lengths around the limit of what a view holds inline.
    let text = |v: i64| "tidemark".repeat(v as usize % 4) + &v.to_string();
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from(
            values
                .iter()
                .map(|v| v.map(|v| v % 2 == 1))
                .collect::<Vec<_>>(),
        )),
        DataType::Utf8 => Arc::new(StringArray::from(
            values.iter().map(|v| v.map(text)).collect::<Vec<_>>(),
        )),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary => {
            let texts: ArrayRef = Arc::new(StringArray::from(
                values.iter().map(|v| v.map(text)).collect::<Vec<_>>(),
            ));
            arrow::compute::cast(&texts, data_type).unwrap()
        }
        DataType::FixedSizeBinary(width) => {
            let each = values
                .iter()
                .map(|v| v.map(|v| vec![v as u8; *width as usize]));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(each, *width).unwrap())
        }
        DataType::Float64 => Arc::new(Float64Array::from_iter(values.iter().map(|v| {
            v.map(|v| {
                [0.0, -0.0, f64::NAN, -f64::NAN]
                    .get(v as usize)
                    .copied()
                    .unwrap_or(v as f64 / 3.0)
            })
        }))),
        DataType::Interval(_) => Arc::new(IntervalMonthDayNanoArray::from_iter(
            values
                .iter()
                .map(|v| v.map(|v| IntervalMonthDayNano::new(1, v as i32, -v))),
        )),
        DataType::Int8 => Arc::new(Int8Array::from_iter(
            values.iter().map(|v| v.map(|v| v as i8)),
        )),
        DataType::List(_) => {
            let lists = values.iter().map(|v| {
                v.map(|v| {
                    (0..v % 3)
                        .map(|i| (i != 1).then_some(v))
                        .collect::<Vec<_>>()
                })
            });
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
        }
        other => arrow::compute::cast(&ints, other)
            .or_else(|_| {
                arrow::compute::cast(
                    &arrow::compute::cast(&ints, &DataType::Int32).unwrap(),
                    other,
                )
            })
            .unwrap(),
    }
}

/// Each row as text; equal rows have equal texts and NULL is not a text.
pub(crate) fn texts(columns: &[ArrayRef], rows: usize) -> Vec<String> {
    let columns: Vec<ArrayRef> = columns.iter().map(canonical).collect();
    row_texts(&columns, rows)
}

/// The same of whole rows, of which one with -0 is another than one with 0.
pub(crate) fn row_texts(columns: &[ArrayRef], rows: usize) -> Vec<String> {
    let options = FormatOptions::default();
    let formatters: Vec<ArrayFormatter> = columns
        .iter()
        .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
        .collect();
    let value = |row: usize, i: usize| {
        if columns[i].is_null(row) {
            "-".to_string()
        } else {
            format!("'{}'", formatters[i].value(row))
        }
    };
    (0..rows)
        .map(|row| {
            (0..columns.len())
                .map(|i| value(row, i))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}
