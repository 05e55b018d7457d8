//! Values in a form whose bytes are equal where the values are. Some look different and are equal:
//! `1.0` and `1.00`, one day and 24 hours, a `char` with and without blanks at its end, the same
//! numbers within JSONB. Floats need none: an index knows that -0 is 0 and that NaN is NaN.
//!
//! Keys of state tables keep their values as they look; this is for what is unique or looked up
//! beside them.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Decimal128Array};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};
use std::sync::Arc;
use tidemark_values::moment::{Interval, interval_key};
use tidemark_values::{jsonb, numeric};

/// The type of the comparable form of values of a type.
pub fn comparable_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeBinary | DataType::BinaryView | DataType::LargeUtf8 => DataType::Binary,
        DataType::Interval(IntervalUnit::MonthDayNano) => DataType::Decimal128(38, 0),
        other => other.clone(),
    }
}

/// A column in its comparable form: one value for each, NULL for NULL.
pub fn comparable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        // Numerics.
        DataType::LargeBinary => {
            let values = column.as_binary::<i64>().iter();
            let keys: BinaryArray = values.map(|v| v.map(numeric::key_of)).collect();
            Arc::new(keys)
        }
        // JSONB.
        DataType::BinaryView => {
            let values = column.as_binary_view().iter();
            let keys: BinaryArray = values.map(|v| v.map(jsonb::key_of)).collect();
            Arc::new(keys)
        }
        // `char`.
        DataType::LargeUtf8 => {
            let values = column.as_string::<i64>().iter();
            let texts = values.map(|v| v.map(|text| text.trim_end_matches(' ').as_bytes()));
            Arc::new(texts.collect::<BinaryArray>())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let values = column.as_primitive::<IntervalMonthDayNanoType>().iter();
            let lengths = values.map(|v| {
                v.map(|v| interval_key(Interval::new(v.months, v.days, v.nanoseconds / 1000)))
            });
            let lengths: Decimal128Array = lengths.collect();
            Arc::new(lengths.with_data_type(DataType::Decimal128(38, 0)))
        }
        _ => column.clone(),
    }
}

/// Columns in their comparable form.
pub fn comparables(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    columns.iter().map(comparable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{IntervalMonthDayNanoArray, LargeBinaryArray, LargeStringArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use tidemark_values::numeric::Numeric;

    #[test]
    fn what_is_equal_has_one_form() {
        let number = |text: &str| {
            let mut bytes = Vec::new();
            Numeric::parse(text).unwrap().encode(&mut bytes);
            bytes
        };
        let numbers = ["1.0", "1.00", "-1", "NaN"].map(number);
        let numbers: LargeBinaryArray = numbers.iter().map(|n| Some(n.as_slice())).collect();
        let span = IntervalMonthDayNano::new;
        let spans = [
            span(0, 1, 0),
            span(0, 0, 86_400_000_000_000),
            span(1, 0, 0),
            span(0, 0, 1000),
        ];
        let spans: IntervalMonthDayNanoArray = spans.into_iter().map(Some).collect();
        let texts: LargeStringArray = ["a", "a  ", " a", ""].into_iter().map(Some).collect();
        let columns: [ArrayRef; 3] = [Arc::new(numbers), Arc::new(spans), Arc::new(texts)];
        for column in columns {
            let form = comparable(&column);
            assert_eq!(*form.data_type(), comparable_type(column.data_type()));
            let same =
                |a: usize, b: usize| form.slice(a, 1).to_data() == form.slice(b, 1).to_data();
            assert!(same(0, 1), "{:?}", column.data_type());
            for (a, b) in [(0, 2), (0, 3), (2, 3)] {
                assert!(!same(a, b), "{:?}", column.data_type());
            }
        }
    }
}
