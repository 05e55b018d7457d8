//! Sums, averages and variances of integers and numerics for ad-hoc queries, exact as in the stream
//! operators: what was added can be taken back, so that they move with a window's frame.
//!
//! State: [`Sum`] in its bytes; with DISTINCT, the values seen.

use crate::error::external;
use crate::types::is_numeric_bytes;
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit};
use datafusion_common::arrow::array::{Array, ArrayRef, AsArray};
use datafusion_common::arrow::datatypes::{
    ArrowPrimitiveType, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion_expr::Accumulator;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_values::moment::{Interval, IntervalSum, interval_key};
use tidemark_values::numeric::{Numeric, Sum, key_of};

/// What is told of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Statistic {
    Sum,
    Average,
    PopulationVariance,
    SampleVariance,
    PopulationDeviation,
    SampleDeviation,
}

impl Statistic {
    /// What is kept of no values.
    fn empty(self) -> Sum {
        match self {
            Statistic::Sum | Statistic::Average => Sum::new(),
            _ => Sum::with_squares(),
        }
    }
}

/// A statistic of integers, `Decimal128`s or numerics as `output`.
#[derive(Debug)]
pub(super) struct Sums {
    statistic: Statistic,
    sum: Sum,
    /// The values seen, by key, with DISTINCT: of equal ones that of the smallest scale.
    distinct: Option<BTreeMap<Vec<u8>, Numeric>>,
    output: DataType,
}

/// The fields of the state that [`Sums`] hands on.
pub(super) fn state_fields(name: &str, distinct: bool) -> Vec<FieldRef> {
    let field = if distinct {
        Field::new_list(
            format!("{name}[distinct]"),
            Field::new_list_field(DataType::LargeBinary, true),
            true,
        )
    } else {
        Field::new(format!("{name}[sum]"), DataType::Binary, true)
    };
    vec![Arc::new(field)]
}

impl Sums {
    pub(super) fn new(statistic: Statistic, output: DataType, distinct: bool) -> Sums {
        Sums {
            sum: statistic.empty(),
            statistic,
            distinct: distinct.then(BTreeMap::new),
            output,
        }
    }

    fn add(&mut self, value: Numeric) {
        match &mut self.distinct {
            None => self.sum.add(&value),
            Some(values) => {
                let mut form = Vec::new();
                value.encode(&mut form);
                let key = key_of(&form).to_vec();
                let known = values.entry(key).or_insert_with(|| value.clone());
                if value.scale() < known.scale() {
                    *known = value;
                }
            }
        }
    }

    fn result(&self) -> Result<Option<Numeric>> {
        let distinct = self.distinct.as_ref().map(|values| {
            let mut sum = self.statistic.empty();
            values.values().for_each(|v| sum.add(v));
            sum
        });
        let sum = distinct.as_ref().unwrap_or(&self.sum);
        let result = match self.statistic {
            Statistic::Sum => sum.sum(),
            Statistic::Average => sum.avg(),
            Statistic::PopulationVariance => sum.var_pop(),
            Statistic::SampleVariance => sum.var_samp(),
            Statistic::PopulationDeviation => sum.stddev_pop(),
            Statistic::SampleDeviation => sum.stddev_samp(),
        };
        result.map_err(external)
    }
}

/// Calls `f` with each value that is not NULL.
fn each(values: &ArrayRef, mut f: impl FnMut(Numeric)) -> Result<()> {
    fn integers<T: ArrowPrimitiveType>(
        values: &ArrayRef,
        f: &mut impl FnMut(Numeric),
        numeric: impl Fn(T::Native) -> Numeric,
    ) -> Result<()> {
        let values = values.as_primitive::<T>();
        values.iter().flatten().for_each(|v| f(numeric(v)));
        Ok(())
    }
    let whole = |v: i128| Numeric::from_unscaled(v, 0);
    match values.data_type() {
        DataType::Null => Ok(()),
        DataType::Int8 => integers::<Int8Type>(values, &mut f, |v| whole(v.into())),
        DataType::Int16 => integers::<Int16Type>(values, &mut f, |v| whole(v.into())),
        DataType::Int32 => integers::<Int32Type>(values, &mut f, |v| whole(v.into())),
        DataType::Int64 => integers::<Int64Type>(values, &mut f, |v| whole(v.into())),
        DataType::UInt8 => integers::<UInt8Type>(values, &mut f, |v| whole(v.into())),
        DataType::UInt16 => integers::<UInt16Type>(values, &mut f, |v| whole(v.into())),
        DataType::UInt32 => integers::<UInt32Type>(values, &mut f, |v| whole(v.into())),
        DataType::UInt64 => integers::<UInt64Type>(values, &mut f, |v| whole(v.into())),
        DataType::Decimal128(_, scale) => {
            let scale = u16::from(scale.unsigned_abs());
            integers::<Decimal128Type>(values, &mut f, |v| Numeric::from_unscaled(v, scale))
        }
        t if is_numeric_bytes(t) => {
            for form in values.as_binary::<i64>().iter().flatten() {
                f(Numeric::decode(form).map_err(external)?);
            }
            Ok(())
        }
        other => exec_err!("a sum of {other}"),
    }
}

impl Accumulator for Sums {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |v| self.add(v))
    }

    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each(&values[0], |v| self.sum.remove(&v))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            let lists = states[0].as_list::<i32>();
            return lists
                .iter()
                .flatten()
                .try_for_each(|list| each(&list, |v| self.add(v)));
        }
        for state in states[0].as_binary::<i32>().iter().flatten() {
            let part = Sum::decode(state).map_err(external)?;
            self.sum.merge(&part);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let Some(values) = &self.distinct else {
            let mut state = Vec::new();
            self.sum.encode(&mut state);
            return Ok(vec![ScalarValue::Binary(Some(state))]);
        };
        let values: Vec<ScalarValue> = values
            .values()
            .map(|value| {
                let mut form = Vec::new();
                value.encode(&mut form);
                ScalarValue::LargeBinary(Some(form))
            })
            .collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
            &values,
            &DataType::LargeBinary,
        ))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Some(value) = self.result()? else {
            return ScalarValue::try_from(&self.output);
        };
        Ok(match &self.output {
            DataType::Int64 => ScalarValue::Int64(Some(value.to_i64().map_err(external)?)),
            DataType::Decimal128(precision, scale) => {
                let fitted = value
                    .fit(i32::from(*precision), i32::from(*scale))
                    .map_err(external)?;
                let unscaled = fitted.to_i128((*scale).into());
                ScalarValue::Decimal128(unscaled, *precision, *scale)
            }
            _ => {
                let mut form = Vec::new();
                value.encode(&mut form);
                ScalarValue::LargeBinary(Some(form))
            }
        })
    }

    fn size(&self) -> usize {
        const VALUE_BYTES: usize = 96;
        let distinct = self.distinct.as_ref().map_or(0, BTreeMap::len);
        size_of_val(self) + distinct * VALUE_BYTES
    }
}

/// `sum` or `avg` of intervals.
#[derive(Debug)]
pub(super) struct IntervalSums {
    mean: bool,
    rows: i64,
    sum: IntervalSum,
    /// The values seen, by key, with DISTINCT: of equal ones the least by its looks.
    distinct: Option<BTreeMap<i128, IntervalMonthDayNano>>,
}

/// The fields of the state that [`IntervalSums`] hands on.
pub(super) fn interval_state_fields(name: &str, distinct: bool) -> Vec<FieldRef> {
    if distinct {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        return vec![Arc::new(Field::new_list(
            format!("{name}[distinct]"),
            Field::new_list_field(interval, true),
            true,
        ))];
    }
    let field = |part: &str, data_type| {
        Arc::new(Field::new(format!("{name}[{part}]"), data_type, true)) as FieldRef
    };
    vec![
        field("rows", DataType::Int64),
        field("sum", DataType::Binary),
    ]
}

/// An interval of Arrow's as it is summed up.
pub(super) fn interval(value: IntervalMonthDayNano) -> Interval {
    Interval::new(value.months, value.days, value.nanoseconds / 1000)
}

/// What tells equal intervals apart, in the order of its bytes.
pub(super) fn looks(value: IntervalMonthDayNano) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&value.months.to_be_bytes());
    bytes[4..8].copy_from_slice(&value.days.to_be_bytes());
    bytes[8..].copy_from_slice(&value.nanoseconds.to_be_bytes());
    bytes
}

/// An interval as Arrow has it.
pub(super) fn arrow_interval(value: Interval) -> Result<IntervalMonthDayNano> {
    let nanoseconds = value.nanoseconds().map_err(external)?;
    Ok(IntervalMonthDayNano::new(
        value.months,
        value.days,
        nanoseconds,
    ))
}

impl IntervalSums {
    pub(super) fn new(mean: bool, distinct: bool) -> IntervalSums {
        IntervalSums {
            mean,
            rows: 0,
            sum: IntervalSum::default(),
            distinct: distinct.then(BTreeMap::new),
        }
    }

    fn add_all(&mut self, values: &ArrayRef, weight: i64) {
        let values = values.as_primitive::<IntervalMonthDayNanoType>();
        for value in values.iter().flatten() {
            if let Some(seen) = &mut self.distinct {
                let known = seen.entry(interval_key(interval(value))).or_insert(value);
                if looks(value) < looks(*known) {
                    *known = value;
                }
            } else {
                self.rows += weight;
                self.sum.add(interval(value), weight);
            }
        }
    }

    fn result(&self) -> Result<Option<IntervalMonthDayNano>> {
        let (mut rows, mut sum) = (self.rows, self.sum);
        for value in self.distinct.iter().flat_map(BTreeMap::values) {
            rows += 1;
            sum.add(interval(*value), 1);
        }
        if rows == 0 {
            return Ok(None);
        }
        let result = match self.mean {
            true => sum.average(rows),
            false => sum.sum(),
        };
        arrow_interval(result.map_err(external)?).map(Some)
    }
}

impl Accumulator for IntervalSums {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], 1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], -1);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            let lists = states[0].as_list::<i32>();
            lists.iter().flatten().for_each(|l| self.add_all(&l, 1));
            return Ok(());
        }
        let rows = states[0].as_primitive::<Int64Type>();
        self.rows += rows.iter().flatten().sum::<i64>();
        for state in states[1].as_binary::<i32>().iter().flatten() {
            let part = IntervalSum::decode(state);
            let part = part.ok_or_else(|| exec_datafusion_err!("a partial sum is damaged"))?;
            self.sum.merge(&part);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        if let Some(seen) = &self.distinct {
            let value = |v: &IntervalMonthDayNano| ScalarValue::IntervalMonthDayNano(Some(*v));
            let values: Vec<_> = seen.values().map(value).collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
                &values,
                &DataType::Interval(IntervalUnit::MonthDayNano),
            ))]);
        }
        Ok(vec![
            ScalarValue::Int64(Some(self.rows)),
            ScalarValue::Binary(Some(self.sum.encode().to_vec())),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::IntervalMonthDayNano(self.result()?))
    }

    fn size(&self) -> usize {
        const VALUE_BYTES: usize = 48;
        let distinct = self.distinct.as_ref().map_or(0, BTreeMap::len);
        size_of_val(self) + distinct * VALUE_BYTES
    }
}
