//! The order of values under ids: NULL above all others, NaN above all numbers and equal to itself,
//! -0 equal to 0, strings by their bytes. Intervals, lists and structs are ordered somehow, but the
//! same way every time: what SQL orders by them comes as bytes that sort as they do.

use super::{Column, Nested, SlotColumns, Store};
use arrow::array::{Array, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use std::cmp::Ordering;

/// A column that rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortBy {
    /// Which column.
    pub column: usize,
    /// The greatest value comes first.
    pub descending: bool,
    /// NULL comes before all values; otherwise behind them.
    pub nulls_first: bool,
}

impl SlotColumns {
    /// How the row under `a` compares with the one under `b`, by these columns.
    #[inline]
    pub fn order(&self, by: &[SortBy], a: u32, b: u32) -> Ordering {
        let mut ordering = Ordering::Equal;
        for by in by {
            ordering = self.columns[by.column].order(a, b, *by);
            if ordering != Ordering::Equal {
                break;
            }
        }
        ordering
    }

    /// The same, and of rows that are equal by them those with -0 apart from those with 0: two rows
    /// are one only where nobody could tell them apart.
    #[inline]
    pub fn order_apart(&self, by: &[SortBy], a: u32, b: u32) -> Ordering {
        let zeros = || {
            let mut columns = by
                .iter()
                .map(|by| self.columns[by.column].order_zeros(a, b));
            columns.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        };
        self.order(by, a, b).then_with(zeros)
    }

    /// How a value under `a` compares with one of another store under `b`, which has the same type;
    /// neither is NULL.
    #[inline]
    pub fn order_across(
        &self,
        column: usize,
        a: u32,
        other: &SlotColumns,
        other_column: usize,
        b: u32,
    ) -> Ordering {
        self.columns[column].order_values(a, &other.columns[other_column], b)
    }
}

impl Column {
    fn order(&self, a: u32, b: u32, by: SortBy) -> Ordering {
        let nulls = match (self.is_null(a), self.is_null(b)) {
            (false, false) => None,
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
        };
        match nulls {
            Some(nulls) if by.nulls_first => nulls.reverse(),
            Some(nulls) => nulls,
            None if by.descending => self.order_values(a, self, b).reverse(),
            None => self.order_values(a, self, b),
        }
    }

    /// Of two floats that are equal: -0 comes before 0. What stands where a NULL is says nothing.
    fn order_zeros(&self, a: u32, b: u32) -> Ordering {
        if self.is_null(a) || self.is_null(b) {
            return Ordering::Equal;
        }
        let signed = |id: u32| match (&self.store, &self.data_type) {
            (Store::W4(f), DataType::Float32) => f.values.get(id) == (-0.0f32).to_bits(),
            (Store::W8(f), DataType::Float64) => f.values.get(id) == (-0.0f64).to_bits(),
            _ => false,
        };
        signed(b).cmp(&signed(a))
    }

    fn is_null(&self, id: u32) -> bool {
        match &self.store {
            Store::Bool(f) => f.is_null(id),
            Store::W1(f) => f.is_null(id),
            Store::W2(f) => f.is_null(id),
            Store::W4(f) => f.is_null(id),
            Store::W8(f) => f.is_null(id),
            Store::W16(f) => f.is_null(id),
            Store::Bytes(b) => b.is_null(id),
            Store::Nested(n) => n.is_null(id),
        }
    }

    /// Of the values of two columns of one type, which are not NULL.
    fn order_values(&self, a: u32, other: &Column, b: u32) -> Ordering {
        use DataType as D;
        match (&self.store, &other.store, &self.data_type) {
            (Store::W1(f), Store::W1(g), D::UInt8) | (Store::Bool(f), Store::Bool(g), _) => {
                f.values.get(a).cmp(&g.values.get(b))
            }
            (Store::W1(f), Store::W1(g), _) => {
                let value = |v: u8| v.cast_signed();
                value(f.values.get(a)).cmp(&value(g.values.get(b)))
            }
            (Store::W2(f), Store::W2(g), D::UInt16) => f.values.get(a).cmp(&g.values.get(b)),
            (Store::W2(f), Store::W2(g), _) => {
                let value = |v: u16| v.cast_signed();
                value(f.values.get(a)).cmp(&value(g.values.get(b)))
            }
            (Store::W4(f), Store::W4(g), D::UInt32) => f.values.get(a).cmp(&g.values.get(b)),
            (Store::W4(f), Store::W4(g), D::Float32) => {
                let value = |v: u32| f64::from(f32::from_bits(v));
                floats(value(f.values.get(a)), value(g.values.get(b)))
            }
            (Store::W4(f), Store::W4(g), _) => {
                let value = |v: u32| v.cast_signed();
                value(f.values.get(a)).cmp(&value(g.values.get(b)))
            }
            (Store::W8(f), Store::W8(g), D::UInt64) => f.values.get(a).cmp(&g.values.get(b)),
            (Store::W8(f), Store::W8(g), D::Float64) => floats(
                f64::from_bits(f.values.get(a)),
                f64::from_bits(g.values.get(b)),
            ),
            (Store::W8(f), Store::W8(g), _) => {
                let value = |v: u64| v.cast_signed();
                value(f.values.get(a)).cmp(&value(g.values.get(b)))
            }
            (Store::W16(f), Store::W16(g), _) => wide(f.values.get(a)).cmp(&wide(g.values.get(b))),
            (Store::Bytes(f), Store::Bytes(g), _) => f.order(a, g, b),
            (Store::Nested(f), Store::Nested(g), _) => f.order(a, g, b),
            _ => unreachable!("columns of one type are stored in one way"),
        }
    }
}

/// Two words as Arrow has them in memory, as one number.
fn wide(words: [u64; 2]) -> i128 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    i128::from_ne_bytes(bytes)
}

fn floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

impl Nested {
    fn is_null(&self, id: u32) -> bool {
        let [at, row] = self.places.get(id);
        let array = (at as usize).checked_sub(1);
        let array = array.and_then(|at| self.arrays[at].as_ref());
        array.is_none_or(|a| a.is_null(row as usize))
    }

    /// Of two values that are there.
    fn order(&self, a: u32, other: &Nested, b: u32) -> Ordering {
        let [a, b] = [(self, a), (other, b)].map(|(store, id)| {
            let [at, row] = store.places.get(id);
            let array = store.arrays[at as usize - 1].as_ref();
            (
                array.expect("a living slot refers to a kept array"),
                row as usize,
            )
        });
        // Of equal form: whatever order it is, equal values are equal.
        match make_comparator(a.0, b.0, SortOptions::default()) {
            Ok(compare) => compare(a.1, b.1),
            Err(_) => {
                let [a, b] = [a, b].map(|(array, row)| format!("{:?}", array.slice(row, 1)));
                a.cmp(&b)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::buffer::NullBuffer;
    use std::sync::Arc;

    const ASCENDING: SortBy = SortBy {
        column: 0,
        descending: false,
        nulls_first: false,
    };

    /// The values in the order of [`ASCENDING`], each strictly above the one before.
    fn assert_ascending(array: ArrayRef) {
        let mut columns = SlotColumns::new(&[array.data_type().clone()]);
        let ids: Vec<u32> = (0..array.len() as u32).rev().collect();
        columns.grow(ids.len());
        columns.write(&[array.clone()], &ids);
        let mut other = SlotColumns::new(&[array.data_type().clone()]);
        other.grow(ids.len());
        other.write(
            &[array.clone()],
            &(0..array.len() as u32).collect::<Vec<_>>(),
        );
        for (i, a) in ids.iter().enumerate() {
            for (j, b) in ids.iter().enumerate() {
                let natural = columns.order(&[ASCENDING], *a, *b);
                assert_eq!(natural, i.cmp(&j), "{i} and {j} of {array:?}");
                let descending = SortBy {
                    descending: true,
                    nulls_first: true,
                    ..ASCENDING
                };
                assert_eq!(columns.order(&[descending], *a, *b), natural.reverse());
                if array.is_valid(i) && array.is_valid(j) {
                    let across = columns.order_across(0, *a, &other, 0, j as u32);
                    assert_eq!(across, natural, "{i} and {j} of {array:?}");
                }
            }
        }
    }

    #[test]
    fn values_of_every_storage_are_ordered_as_sql_does() {
        assert_ascending(Arc::new(Int8Array::from(vec![Some(-1), Some(0), None])));
        assert_ascending(Arc::new(UInt8Array::from(vec![0, 1, 255])));
        assert_ascending(Arc::new(Int16Array::from(vec![i16::MIN, -1, 0, i16::MAX])));
        assert_ascending(Arc::new(Date32Array::from(vec![-5, 0, 5])));
        assert_ascending(Arc::new(UInt32Array::from(vec![0, u32::MAX])));
        assert_ascending(Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, i64::MAX])));
        assert_ascending(Arc::new(UInt64Array::from(vec![0, u64::MAX])));
        assert_ascending(Arc::new(Decimal128Array::from(vec![
            Some(i128::MIN),
            Some(-1 << 70),
            Some(-1),
            Some(0),
            Some(1 << 70),
            None,
        ])));
        assert_ascending(Arc::new(Float32Array::from(vec![
            f32::NEG_INFINITY,
            -1.5,
            0.0,
            1.5,
            f32::INFINITY,
            f32::NAN,
        ])));
        assert_ascending(Arc::new(Float64Array::from(vec![
            Some(f64::NEG_INFINITY),
            Some(-0.0),
            Some(f64::INFINITY),
            Some(f64::NAN),
            None,
        ])));
        assert_ascending(Arc::new(BooleanArray::from(vec![
            Some(false),
            Some(true),
            None,
        ])));
        assert_ascending(Arc::new(StringArray::from(vec![
            Some(""),
            Some("a"),
            Some("a much longer text than fits"),
            Some("a much longer text than fits!"),
            Some("b"),
            Some("é"),
            None,
        ])));
        let mut lists = ListBuilder::new(Int64Builder::new());
        lists.append_value([Some(1)]);
        lists.append_value([Some(1), Some(2)]);
        lists.append_value([Some(2)]);
        lists.append_null();
        assert_ascending(Arc::new(lists.finish()));
    }

    #[test]
    fn zeros_are_equal_and_so_is_every_nan() {
        let array: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let mut columns = SlotColumns::new(&[DataType::Float64]);
        columns.grow(4);
        columns.write(&[array], &[0, 1, 2, 3]);
        assert_eq!(columns.order(&[ASCENDING], 0, 1), Ordering::Equal);
        assert_eq!(columns.order(&[ASCENDING], 2, 3), Ordering::Equal);
    }

    #[test]
    fn rows_are_apart_by_zeros_but_not_by_what_stands_behind_a_null() {
        let mut columns = SlotColumns::new(&[DataType::Float64]);
        columns.grow(6);
        let nulls = NullBuffer::from(vec![true, true, false, false, true, true]);
        let values = vec![0.0, -0.0, 0.0, -0.0, f64::NAN, -f64::NAN];
        let values: ArrayRef = Arc::new(Float64Array::new(values.into(), Some(nulls)));
        columns.write(&[values], &[0, 1, 2, 3, 4, 5]);
        let order = |a, b| columns.order_apart(&[ASCENDING], a, b);
        assert_eq!(columns.order(&[ASCENDING], 0, 1), Ordering::Equal);
        assert_eq!(
            (order(1, 0), order(0, 1)),
            (Ordering::Less, Ordering::Greater)
        );
        assert_eq!(order(2, 3), Ordering::Equal);
        assert_eq!(order(4, 5), Ordering::Equal);
    }
}
