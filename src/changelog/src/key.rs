//! The ordered key encoding, a frozen format: bytes that compare (as unsigned bytes) like the
//! values do in SQL, ascending, NULLs last.
//!
//! Per column: 0x01 then the value, or 0x02 for NULL. Values: booleans one byte; integers, dates,
//! times, timestamps big-endian with the sign bit flipped; floats as big-endian bits, negatives
//! inverted, positives with the sign bit flipped, -0 as 0, NaN above everything; numerics the
//! unscaled 128-bit integer; strings and bytes with 0x00 written as 0x00 0xFF and 0x00 0x00 at the
//! end (byte order of UTF-8, which is the C collation).

use arrow::array::*;
use arrow::datatypes::*;

/// Appends to `rows[i]` the encoding of row `i` of each column in turn. All columns have
/// `rows.len()` values.
pub fn encode_columns(columns: &[ArrayRef], rows: &mut [Vec<u8>]) {
    for column in columns {
        encode(column.as_ref(), rows);
    }
}

/// Appends to `rows[i]` what tells values apart that [`encode_columns`] takes for one: blanks at
/// the end of texts of `char(n)`, and what lists and rows of columns are made of. Nothing for other
/// types.
pub fn encode_differences(columns: &[ArrayRef], rows: &mut [Vec<u8>]) {
    for column in columns {
        match column.data_type() {
            DataType::LargeUtf8 | DataType::List(_) | DataType::Struct(_) | DataType::Map(..) => {
                exact(column, rows)
            }
            _ => {}
        }
    }
}

/// Appends bytes that are equal only for equal values; each ends where it says itself.
fn exact(column: &ArrayRef, rows: &mut [Vec<u8>]) {
    match column.data_type() {
        DataType::LargeUtf8 => {
            for (row, value) in rows.iter_mut().zip(column.as_string::<i64>()) {
                // One more than the length, and 0 for NULL.
                let length = value.map_or(0, |v| v.len() as u64 + 1);
                row.extend_from_slice(&length.to_be_bytes());
                row.extend_from_slice(value.unwrap_or_default().as_bytes());
            }
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let mut elements = vec![Vec::new(); lists.values().len()];
            exact(lists.values(), &mut elements);
            for (i, row) in rows.iter_mut().enumerate() {
                let (start, end) = (lists.value_offsets()[i], lists.value_offsets()[i + 1]);
                let length = if lists.is_valid(i) {
                    (end - start) as u64 + 1
                } else {
                    0
                };
                row.extend_from_slice(&length.to_be_bytes());
                if lists.is_valid(i) {
                    let elements = &elements[start as usize..end as usize];
                    elements.iter().for_each(|e| row.extend_from_slice(e));
                }
            }
        }
        DataType::Struct(_) => {
            let fields = column.as_struct();
            let lengths = rows.iter_mut().enumerate().map(|(i, row)| {
                row.push(u8::from(fields.is_valid(i)));
                row.len()
            });
            let lengths: Vec<usize> = lengths.collect();
            fields.columns().iter().for_each(|field| exact(field, rows));
            // What a row that is NULL has in its place says nothing.
            for (i, row) in rows
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| fields.is_null(*i))
            {
                row.truncate(lengths[i]);
            }
        }
        DataType::Map(..) => {
            let entries: ArrayRef = std::sync::Arc::new(crate::maps::entries_of(column.as_map()));
            exact(&entries, rows);
        }
        _ => encode(column.as_ref(), rows),
    }
}

/// Whether values are rows of columns, maps, or lists of such.
pub(crate) fn has_rows(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) | DataType::Map(..) => true,
        DataType::List(element) => has_rows(element.data_type()),
        _ => false,
    }
}

/// Bytes that are equal only for equal values, `None` for NULL.
pub(crate) fn forms(column: &dyn Array) -> Vec<Option<Vec<u8>>> {
    let mut forms = vec![Vec::new(); column.len()];
    exact(&column.slice(0, column.len()), &mut forms);
    let valid = |(i, form)| column.is_valid(i).then_some(form);
    forms.into_iter().enumerate().map(valid).collect()
}

fn encode(column: &dyn Array, rows: &mut [Vec<u8>]) {
    fn each<'a, T>(
        rows: &mut [Vec<u8>],
        values: impl Iterator<Item = Option<T>>,
        put: impl Fn(&mut Vec<u8>, T),
    ) {
        for (row, value) in rows.iter_mut().zip(values) {
            match value {
                Some(v) => {
                    row.push(1);
                    put(row, v);
                }
                None => row.push(2),
            }
        }
    }
    fn int(row: &mut Vec<u8>, v: i64) {
        row.extend_from_slice(&((v as u64) ^ (1 << 63)).to_be_bytes());
    }
    fn float(row: &mut Vec<u8>, v: f64) {
        let v = if v == 0.0 {
            0.0
        } else if v.is_nan() {
            f64::NAN.abs()
        } else {
            v
        };
        let bits = v.to_bits();
        row.extend_from_slice(
            &(if bits >> 63 == 1 {
                !bits
            } else {
                bits ^ (1 << 63)
            })
            .to_be_bytes(),
        );
    }
    fn escaped(row: &mut Vec<u8>, v: &[u8]) {
        for b in v {
            row.push(*b);
            if *b == 0 {
                row.push(0xFF);
            }
        }
        row.extend_from_slice(&[0, 0]);
    }
    use DataType as D;
    match column.data_type() {
        D::Boolean => each(rows, column.as_boolean().iter(), |r, v| r.push(u8::from(v))),
        D::Int16 => each(rows, column.as_primitive::<Int16Type>().iter(), |r, v| {
            int(r, v.into())
        }),
        D::Int32 => each(rows, column.as_primitive::<Int32Type>().iter(), |r, v| {
            int(r, v.into())
        }),
        D::Int64 => each(rows, column.as_primitive::<Int64Type>().iter(), int),
        D::Date32 => each(rows, column.as_primitive::<Date32Type>().iter(), |r, v| {
            int(r, v.into())
        }),
        D::Time64(TimeUnit::Microsecond) => each(
            rows,
            column.as_primitive::<Time64MicrosecondType>().iter(),
            int,
        ),
        D::Timestamp(TimeUnit::Microsecond, _) => each(
            rows,
            column.as_primitive::<TimestampMicrosecondType>().iter(),
            int,
        ),
        D::Float32 => each(rows, column.as_primitive::<Float32Type>().iter(), |r, v| {
            float(r, v.into())
        }),
        D::Float64 => each(rows, column.as_primitive::<Float64Type>().iter(), float),
        D::Decimal128(_, _) => each(
            rows,
            column.as_primitive::<Decimal128Type>().iter(),
            |r, v| r.extend_from_slice(&((v as u128) ^ (1 << 127)).to_be_bytes()),
        ),
        D::Utf8 => each(rows, column.as_string::<i32>().iter(), |r, v| {
            escaped(r, v.as_bytes())
        }),
        // Blanks at the end of a `char(n)` do not count.
        D::LargeUtf8 => each(rows, column.as_string::<i64>().iter(), |r, v| {
            escaped(r, v.trim_end_matches(' ').as_bytes())
        }),
        D::Binary => each(rows, column.as_binary::<i32>().iter(), escaped),
        D::FixedSizeBinary(_) => each(rows, column.as_fixed_size_binary().iter(), |r, v| {
            r.extend_from_slice(v)
        }),
        // The bytes of numerics and of JSONB sort as the values do.
        D::BinaryView => each(rows, column.as_binary_view().iter(), escaped),
        D::LargeBinary => each(rows, column.as_binary::<i64>().iter(), escaped),
        // Rows sort by keys of their own; here they only are told apart.
        other if has_rows(other) => each(rows, forms(column).into_iter(), |r, v| escaped(r, &v)),
        other => {
            let text = arrow::compute::cast(column, &D::Utf8)
                .unwrap_or_else(|e| panic!("a key of type {other} cannot be ordered: {e}"));
            each(rows, text.as_string::<i32>().iter(), |r, v| {
                escaped(r, v.as_bytes())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn encoded(column: ArrayRef) -> Vec<Vec<u8>> {
        let mut rows = vec![Vec::new(); column.len()];
        encode_columns(&[column], &mut rows);
        rows
    }

    #[test]
    fn bytes_order_like_values() {
        let sorted: [ArrayRef; 4] = [
            Arc::new(Int64Array::from(vec![
                Some(i64::MIN),
                Some(-1),
                Some(0),
                Some(7),
                Some(i64::MAX),
                None,
            ])),
            Arc::new(Float64Array::from(vec![
                Some(f64::NEG_INFINITY),
                Some(-1.5),
                Some(0.0),
                Some(1e-9),
                Some(f64::INFINITY),
                Some(f64::NAN),
                None,
            ])),
            Arc::new(StringArray::from(vec![
                Some(""),
                Some("\0"),
                Some("\0a"),
                Some("a"),
                Some("ab"),
                Some("b"),
                None,
            ])),
            Arc::new(Decimal128Array::from(vec![
                Some(-5),
                Some(0),
                Some(3),
                None,
            ])),
        ];
        for column in sorted {
            let rows = encoded(column);
            assert!(rows.windows(2).all(|w| w[0] < w[1]), "{rows:?}");
        }
    }

    #[test]
    fn differences_tell_apart_what_one_key_stands_for() {
        let lists = |rows: &[&[Option<&str>]]| -> ArrayRef {
            let mut lists = ListBuilder::new(StringBuilder::new());
            rows.iter()
                .for_each(|row| lists.append_value(row.iter().copied()));
            lists.append_null();
            Arc::new(lists.finish())
        };
        let columns: [ArrayRef; 2] = [
            lists(&[
                &[],
                &[None],
                &[Some("a, b")],
                &[Some("a"), Some("b")],
                &[Some("")],
            ]),
            Arc::new(LargeStringArray::from(vec![
                Some("x"),
                Some("x  "),
                Some(""),
                None,
            ])),
        ];
        for column in columns {
            let mut rows = encoded(column.clone());
            encode_differences(&[column], &mut rows);
            for (i, row) in rows.iter().enumerate() {
                assert!(!rows[..i].contains(row), "{i}: {rows:?}");
            }
        }
        let mut rows = vec![vec![7]];
        encode_differences(&[Arc::new(Int64Array::from(vec![1]))], &mut rows);
        assert_eq!(rows, [[7]]);
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(
            encoded(Arc::new(Int64Array::from(vec![1])))[0],
            [1, 0x80, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(
            encoded(Arc::new(StringArray::from(vec!["a\0b"])))[0],
            [1, b'a', 0, 0xFF, b'b', 0, 0]
        );
    }
}
