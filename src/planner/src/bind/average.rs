//! The average of numerics for ad-hoc queries, rounded half away from zero as in views and in
//! PostgreSQL; DataFusion's truncates.
//!
//! State: count and exact sum (or, with DISTINCT, the set of values). `sum / count` is taken with
//! the digits of the result's scale and rounded once.

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::arrow::array::{ArrayRef, AsArray};
use datafusion_common::arrow::datatypes::{Decimal128Type, Int64Type};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::Accumulator;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An average of `Decimal128(_, scale)` as `output`.
#[derive(Debug)]
pub(super) struct Average {
    count: i64,
    sum: i128,
    /// The values seen, with DISTINCT.
    distinct: Option<BTreeSet<i128>>,
    input: DataType,
    output: DataType,
}

/// The fields of the state that [`Average`] hands on.
pub(super) fn state_fields(name: &str, input: &DataType, distinct: bool) -> Vec<FieldRef> {
    if distinct {
        return vec![Arc::new(Field::new_list(
            format!("{name}[distinct]"),
            Field::new_list_field(input.clone(), true),
            true,
        ))];
    }
    let sum = if let DataType::Decimal128(_, scale) = input {
        DataType::Decimal128(38, *scale)
    } else {
        input.clone()
    };
    vec![
        Arc::new(Field::new(format!("{name}[count]"), DataType::Int64, true)),
        Arc::new(Field::new(format!("{name}[sum]"), sum, true)),
    ]
}

impl Average {
    pub(super) fn new(input: DataType, output: DataType, distinct: bool) -> Average {
        Average {
            count: 0,
            sum: 0,
            distinct: distinct.then(BTreeSet::new),
            input,
            output,
        }
    }

    fn scale(&self) -> i8 {
        if let DataType::Decimal128(_, scale) = self.input {
            scale
        } else {
            0
        }
    }

    fn add(&mut self, value: i128) -> Result<()> {
        if let Some(values) = &mut self.distinct {
            values.insert(value);
            return Ok(());
        }
        self.count += 1;
        match self.sum.checked_add(value) {
            Some(sum) => self.sum = sum,
            None => return exec_err!("numeric field overflow"),
        }
        Ok(())
    }
}

/// `sum / count` with `digits` more digits than the sum has, half away from zero.
fn quotient(sum: i128, count: i64, digits: u32) -> Option<i128> {
    let count = i128::from(count);
    let factor = 10i128.checked_pow(digits)?;
    let rest = (sum % count).checked_mul(factor)?;
    let (down, left) = (rest / count, rest % count);
    let up = if left.unsigned_abs() * 2 >= count.unsigned_abs() {
        rest.signum()
    } else {
        0
    };
    (sum / count).checked_mul(factor)?.checked_add(down + up)
}

impl Accumulator for Average {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<Decimal128Type>();
        values.iter().flatten().try_for_each(|v| self.add(v))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            let lists = states[0].as_list::<i32>();
            return lists.iter().flatten().try_for_each(|list| {
                list.as_primitive::<Decimal128Type>()
                    .iter()
                    .flatten()
                    .try_for_each(|v| self.add(v))
            });
        }
        let (counts, sums) = (
            states[0].as_primitive::<Int64Type>(),
            states[1].as_primitive::<Decimal128Type>(),
        );
        for (count, sum) in counts.iter().flatten().zip(sums.iter().flatten()) {
            self.add(sum)?;
            self.count += count - 1;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        if let Some(values) = &self.distinct {
            let (DataType::Decimal128(precision, scale), values) = (&self.input, values) else {
                return exec_err!("an average of {}", self.input);
            };
            let values: Vec<ScalarValue> = values
                .iter()
                .map(|v| ScalarValue::Decimal128(Some(*v), *precision, *scale))
                .collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
                &values,
                &self.input,
            ))]);
        }
        Ok(vec![
            ScalarValue::Int64(Some(self.count)),
            ScalarValue::Decimal128(Some(self.sum), 38, self.scale()),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let DataType::Decimal128(precision, scale) = self.output else {
            return exec_err!("an average as {}", self.output);
        };
        let (sum, count) = match &self.distinct {
            Some(values) => (
                values.iter().try_fold(0i128, |sum, v| sum.checked_add(*v)),
                values.len() as i64,
            ),
            None => (Some(self.sum), self.count),
        };
        if count == 0 {
            return Ok(ScalarValue::Decimal128(None, precision, scale));
        }
        let digits = u32::try_from(scale - self.scale()).unwrap_or(0);
        match sum.and_then(|sum| quotient(sum, count, digits)) {
            Some(average) => Ok(ScalarValue::Decimal128(Some(average), precision, scale)),
            None => exec_err!("numeric field overflow"),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self
                .distinct
                .as_ref()
                .map_or(0, |v| v.len() * 2 * size_of::<i128>())
    }
}

#[cfg(test)]
mod tests {
    use super::quotient;

    #[test]
    fn averages_round_half_away_from_zero() {
        let cases = [
            (10, 3, 2, 333),
            (20, 3, 2, 667),
            (-20, 3, 2, -667),
            (5, 2, 0, 3),
            (-5, 2, 0, -3),
            (4, 3, 0, 1),
            (7, 1, 3, 7000),
            (i128::MAX, 1, 0, i128::MAX),
        ];
        for (sum, count, digits, average) in cases {
            assert_eq!(
                quotient(sum, count, digits),
                Some(average),
                "{sum} / {count}"
            );
        }
        assert_eq!(quotient(i128::MAX, 1, 1), None);
    }
}
