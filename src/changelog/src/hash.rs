//! The vnode hash, a frozen format: files, placement and exchange depend on it. Golden vectors
//! below hold it.
//!
//! ```text
//! h := 0x9E3779B97F4A7C15
//! for each key column:  h := fold(h ^ v, 0xD6E8FEB86659FD93)
//! where fold(a, b) = low 64 bits of a*b  xor  high 64 bits of a*b
//! vnode := (h >> 32) mod 256
//! a key without columns has the hash 0, and so vnode 0
//! ```
//! where v is: NULL 0xA0761D6478BD642F; booleans 0 or 1; integers, dates, times and timestamps
//! sign-extended to 64 bits; floats the bits of the double, with -0 as 0 and every NaN as
//! 0x7FF8000000000000; numerics low word xor rotate(high word, 32) of the unscaled 128-bit value;
//! strings, bytes and all other types XXH3-64 of their bytes (intervals: months, days, nanoseconds,
//! little-endian; rows: the bytes by which [`key`](crate::key) tells them apart). Both sides of a
//! join have one type, so scale needs no rule.

use crate::key::{forms, has_rows};
use arrow::array::*;
use arrow::datatypes::*;
use tidemark_common::VNODES;
use xxhash_rust::xxh3::xxh3_64;

const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const MULTIPLIER: u64 = 0xD6E8_FEB8_6659_FD93;
const NULL: u64 = 0xA076_1D64_78BD_642F;

#[inline(always)]
fn fold(a: u64) -> u64 {
    let wide = u128::from(a) * u128::from(MULTIPLIER);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The hash of a key of one 64-bit integer, for callers that keep such keys unboxed.
#[inline(always)]
pub fn hash_i64(value: i64) -> u64 {
    fold(SEED ^ value as u64)
}

/// The vnode of a hash.
#[inline(always)]
pub fn vnode_of_hash(hash: u64) -> usize {
    (hash >> 32) as usize % VNODES
}

/// One hash per row over `columns`, each of `rows` values; without columns every row has the same
/// hash.
pub fn hash_columns(columns: &[ArrayRef], rows: usize) -> Vec<u64> {
    if columns.is_empty() {
        return vec![0; rows];
    }
    let mut hashes = vec![SEED; rows];
    for column in columns {
        mix(column.as_ref(), &mut hashes);
    }
    hashes
}

fn mix(column: &dyn Array, hashes: &mut [u64]) {
    assert_eq!(column.len(), hashes.len(), "one value per row");
    fn ints<T: ArrowPrimitiveType>(
        column: &dyn Array,
        hashes: &mut [u64],
        word: impl Fn(T::Native) -> u64,
    ) {
        let values = column.as_primitive::<T>();
        if values.null_count() == 0 {
            for (h, v) in hashes.iter_mut().zip(values.values()) {
                *h = fold(*h ^ word(*v));
            }
        } else {
            for (i, h) in hashes.iter_mut().enumerate() {
                *h = fold(
                    *h ^ if values.is_null(i) {
                        NULL
                    } else {
                        word(values.value(i))
                    },
                );
            }
        }
    }
    fn bytes<'a>(hashes: &mut [u64], values: impl Iterator<Item = Option<&'a [u8]>>) {
        for (h, v) in hashes.iter_mut().zip(values) {
            *h = fold(*h ^ v.map_or(NULL, xxh3_64));
        }
    }
    fn double(v: f64) -> u64 {
        if v.is_nan() {
            0x7FF8_0000_0000_0000
        } else if v == 0.0 {
            0
        } else {
            v.to_bits()
        }
    }
    use DataType as D;
    match column.data_type() {
        D::Boolean => {
            for (h, v) in hashes.iter_mut().zip(column.as_boolean()) {
                *h = fold(*h ^ v.map_or(NULL, u64::from));
            }
        }
        D::Int8 => ints::<Int8Type>(column, hashes, |v| i64::from(v) as u64),
        D::Int16 => ints::<Int16Type>(column, hashes, |v| i64::from(v) as u64),
        D::Int32 => ints::<Int32Type>(column, hashes, |v| i64::from(v) as u64),
        D::Int64 => ints::<Int64Type>(column, hashes, |v| v as u64),
        D::UInt8 => ints::<UInt8Type>(column, hashes, u64::from),
        D::UInt16 => ints::<UInt16Type>(column, hashes, u64::from),
        D::UInt32 => ints::<UInt32Type>(column, hashes, u64::from),
        D::UInt64 => ints::<UInt64Type>(column, hashes, |v| v),
        D::Date32 => ints::<Date32Type>(column, hashes, |v| i64::from(v) as u64),
        D::Time64(TimeUnit::Microsecond) => {
            ints::<Time64MicrosecondType>(column, hashes, |v| v as u64)
        }
        D::Timestamp(TimeUnit::Microsecond, _) => {
            ints::<TimestampMicrosecondType>(column, hashes, |v| v as u64)
        }
        D::Float32 => ints::<Float32Type>(column, hashes, |v| double(f64::from(v))),
        D::Float64 => ints::<Float64Type>(column, hashes, double),
        D::Decimal128(_, _) => ints::<Decimal128Type>(column, hashes, |v| {
            (v as u64) ^ ((v >> 64) as u64).rotate_left(32)
        }),
        D::Interval(IntervalUnit::MonthDayNano) => {
            ints::<IntervalMonthDayNanoType>(column, hashes, |v| {
                let mut b = [0; 16];
                b[..4].copy_from_slice(&v.months.to_le_bytes());
                b[4..8].copy_from_slice(&v.days.to_le_bytes());
                b[8..].copy_from_slice(&v.nanoseconds.to_le_bytes());
                xxh3_64(&b)
            })
        }
        D::Utf8 => bytes(
            hashes,
            column
                .as_string::<i32>()
                .iter()
                .map(|v| v.map(str::as_bytes)),
        ),
        D::LargeUtf8 => bytes(
            hashes,
            column
                .as_string::<i64>()
                .iter()
                .map(|v| v.map(str::as_bytes)),
        ),
        D::Utf8View => bytes(
            hashes,
            column.as_string_view().iter().map(|v| v.map(str::as_bytes)),
        ),
        D::Binary => bytes(hashes, column.as_binary::<i32>().iter()),
        D::LargeBinary => bytes(hashes, column.as_binary::<i64>().iter()),
        D::BinaryView => bytes(hashes, column.as_binary_view().iter()),
        D::FixedSizeBinary(_) => bytes(hashes, column.as_fixed_size_binary().iter()),
        other if has_rows(other) => {
            let forms = forms(column);
            bytes(hashes, forms.iter().map(Option::as_deref));
        }
        D::Null => hashes.iter_mut().for_each(|h| *h = fold(*h ^ NULL)),
        other => {
            // Nested values: the text form identifies them (equal values print alike).
            let text = arrow::compute::cast(column, &D::Utf8)
                .unwrap_or_else(|e| panic!("a key of type {other} cannot be hashed: {e}"));
            bytes(
                hashes,
                text.as_string::<i32>().iter().map(|v| v.map(str::as_bytes)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn golden_vectors() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None])),
            Arc::new(StringArray::from(vec!["", "a", "tidemark", "a"])),
        ];
        let hashes = hash_columns(&columns, 4);
        let one = hash_columns(&columns[..1], 4);
        assert_eq!(one[1], hash_i64(1));
        let golden: Vec<String> = one
            .iter()
            .chain(&hashes)
            .map(|h| format!("{h:016x}"))
            .collect();
        assert_eq!(golden, GOLDEN);
    }

    #[test]
    fn a_key_without_columns_belongs_to_vnode_zero() {
        assert_eq!(
            hash_columns(&[], 2)
                .into_iter()
                .map(vnode_of_hash)
                .collect::<Vec<_>>(),
            [0, 0]
        );
    }

    #[test]
    fn equal_floats_hash_alike() {
        let c: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let h = hash_columns(&[c], 4);
        assert_eq!(h[0], h[1]);
        assert_eq!(h[2], h[3]);
    }

    const GOLDEN: [&str; 8] = [
        "c9d874ca57d9e055",
        "f2f37271ad33e225",
        "8e1a4acd601c1d69",
        "e231d98cab11b8c7",
        "587e59159fcf4040",
        "73d6b49bd6496575",
        "58b95163f5e992c2",
        "a9dddfbdad9832bd",
    ];
}
