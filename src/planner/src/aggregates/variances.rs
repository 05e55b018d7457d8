//! `variance`, `stddev` and their like of doubles, for ad-hoc queries: sums of squares are
//! PostgreSQL's, by the algorithm of Youngs and Cramer, whose last digits depend on the order of
//! the rows there as here; what runs over is its error and not infinity.
//!
//! In a window whose frame moves, the values of the frame are kept and taken anew; with DISTINCT,
//! the values seen, which come in their order.

use super::sums::Statistic;
use crate::error::external;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::arrow::array::{Array, ArrayRef, AsArray};
use datafusion_common::arrow::datatypes::Float64Type;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

/// The function of doubles that tells this.
pub(super) fn function(statistic: Statistic) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Variance {
        statistic,
        signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Variance {
    statistic: Statistic,
    signature: Signature,
}

impl Variance {
    fn values(&self, args: &AccumulatorArgs, moving: bool) -> Box<dyn Accumulator> {
        Box::new(Values {
            statistic: self.statistic,
            sums: Sums::default(),
            frame: (moving && !args.is_distinct).then(VecDeque::new),
            distinct: args.is_distinct.then(BTreeSet::new),
        })
    }
}

impl AggregateUDFImpl for Variance {
    fn name(&self) -> &str {
        match self.statistic {
            Statistic::PopulationVariance => "var_pop",
            Statistic::SampleVariance => "var_samp",
            Statistic::PopulationDeviation => "stddev_pop",
            Statistic::SampleDeviation => "stddev_samp",
            Statistic::Sum | Statistic::Average => "none",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(self.values(&args, false))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(self.values(&args, true))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            return Ok(vec![Arc::new(Field::new_list(
                format!("{}[distinct]", args.name),
                Field::new_list_field(DataType::Float64, true),
                true,
            ))]);
        }
        let field = |part: &str| {
            let name = format!("{}[{part}]", args.name);
            Arc::new(Field::new(name, DataType::Float64, true)) as FieldRef
        };
        Ok(["n", "x", "xx"].map(field).into())
    }
}

/// Of n values: their sum, and that of the squares of what they are off their average by, which is
/// NaN if one of them is no finite number, else infinity if something ran over.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    x: f64,
    xx: f64,
}

pub(super) fn overflow<T>() -> Result<T> {
    Err(external(Error::user(
        SqlState("22003"),
        "value out of range: overflow",
    )))
}

impl Sums {
    /// PostgreSQL's float8_accum, but that what runs over is no error before the end: the result is
    /// NaN if any value is no finite number, whichever comes first.
    fn add(&mut self, x: f64) {
        let before = *self;
        self.n += 1.0;
        self.x += x;
        if !x.is_finite() {
            self.xx = f64::NAN;
        }
        if before.n == 0.0 || !self.xx.is_finite() {
            return;
        }
        let off = x * self.n - self.x;
        self.xx += off * off / (self.n * before.n);
        if !self.x.is_finite() || !self.xx.is_finite() {
            self.xx = f64::INFINITY;
        }
    }

    /// PostgreSQL's float8_combine.
    fn merge(&mut self, other: Sums) {
        if self.n == 0.0 || other.n == 0.0 {
            if self.n == 0.0 {
                *self = other;
            }
            return;
        }
        let (a, b) = (*self, other);
        self.n = a.n + b.n;
        let off = a.x / a.n - b.x / b.n;
        self.x = a.x + b.x;
        self.xx = a.xx + b.xx + a.n * b.n * off * off / self.n;
        if a.xx.is_nan() || b.xx.is_nan() {
            self.xx = f64::NAN;
        } else if !self.x.is_finite() || !self.xx.is_finite() {
            self.xx = f64::INFINITY;
        }
    }

    fn result(&self, statistic: Statistic) -> Result<Option<f64>> {
        let Sums { n, xx, .. } = *self;
        if xx.is_infinite() {
            return overflow();
        }
        let population = (n >= 1.0).then(|| xx / n);
        let sample = (n >= 2.0).then(|| xx / (n - 1.0));
        Ok(match statistic {
            Statistic::Sum | Statistic::Average => None,
            Statistic::PopulationVariance => population,
            Statistic::SampleVariance => sample,
            Statistic::PopulationDeviation => population.map(f64::sqrt),
            Statistic::SampleDeviation => sample.map(f64::sqrt),
        })
    }
}

/// A number that sorts as the double does; zeros are one, and so are NaNs, above all others.
fn rank(value: f64) -> u64 {
    let bits = match value {
        v if v.is_nan() => f64::NAN.to_bits(),
        0.0 => 0,
        v => v.to_bits(),
    };
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

fn of_rank(rank: u64) -> f64 {
    f64::from_bits(if rank >> 63 == 1 {
        rank & !(1 << 63)
    } else {
        !rank
    })
}

/// The values so far.
#[derive(Debug)]
struct Values {
    statistic: Statistic,
    sums: Sums,
    /// The values of a frame that moves.
    frame: Option<VecDeque<f64>>,
    /// The ranks of the values seen, with DISTINCT.
    distinct: Option<BTreeSet<u64>>,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<Float64Type>().iter().flatten();
        match (&mut self.frame, &mut self.distinct) {
            (Some(frame), _) => frame.extend(values),
            (_, Some(seen)) => seen.extend(values.map(rank)),
            _ => {
                for value in values {
                    self.sums.add(value);
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.frame.is_some()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(frame) = &mut self.frame {
            let gone = values[0].len() - values[0].null_count();
            frame.drain(..gone.min(frame.len()));
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            let lists = states[0].as_list::<i32>();
            return lists
                .iter()
                .flatten()
                .try_for_each(|list| self.update_batch(&[list]));
        }
        let part = |i: usize, row: usize| states[i].as_primitive::<Float64Type>().value(row);
        for row in 0..states[0].len() {
            let [n, x, xx] = [0, 1, 2].map(|i| part(i, row));
            self.sums.merge(Sums { n, x, xx });
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let double = |v| ScalarValue::Float64(Some(v));
        if let Some(seen) = &self.distinct {
            let values: Vec<_> = seen.iter().map(|r| double(of_rank(*r))).collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
                &values,
                &DataType::Float64,
            ))]);
        }
        let Sums { n, x, xx } = self.sums;
        Ok([n, x, xx].map(double).into())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sums = self.sums;
        for value in self.frame.iter().flatten() {
            sums.add(*value);
        }
        for rank in self.distinct.iter().flatten() {
            sums.add(of_rank(*rank));
        }
        sums.result(self.statistic).map(ScalarValue::Float64)
    }

    fn size(&self) -> usize {
        const ENTRY_BYTES: usize = 16;
        let kept = self.frame.as_ref().map_or(0, VecDeque::capacity)
            + self.distinct.as_ref().map_or(0, BTreeSet::len);
        size_of_val(self) + kept * ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(values: &[f64]) -> Sums {
        let mut sums = Sums::default();
        values.iter().for_each(|v| sums.add(*v));
        sums
    }

    #[test]
    fn sums_of_parts_are_those_of_the_whole() {
        let statistic = Statistic::SampleVariance;
        let values = [1.0, 2.0, 4.0, -7.5];
        let whole = sums(&values);
        let mut parts = sums(&values[..1]);
        parts.merge(sums(&values[1..]));
        parts.merge(Sums::default());
        let [a, b] = [whole, parts].map(|sums| sums.result(statistic).unwrap().unwrap());
        assert!((a - b).abs() < 1e-12);
        assert_eq!(Sums::default().result(statistic).unwrap(), None);
    }

    #[test]
    fn what_runs_over_is_an_error_and_what_is_infinite_is_not() {
        let result = |values: &[f64]| sums(values).result(Statistic::SampleVariance);
        let error = result(&[1e200, -1e200]).unwrap_err();
        assert!(error.to_string().contains("value out of range: overflow"));
        for values in [[1e200, -1e200, f64::NAN], [f64::INFINITY, 1e200, -1e200]] {
            assert!(result(&values).unwrap().unwrap().is_nan());
        }
    }

    #[test]
    fn ranks_sort_as_the_values_do() {
        let values = [f64::NEG_INFINITY, -1.5, 0.0, 1e-300, 2.0, f64::INFINITY];
        let ranks = values.map(rank);
        assert!(ranks.is_sorted());
        assert_eq!(ranks.map(of_rank), values);
        assert_eq!(rank(-0.0), rank(0.0));
        assert!(rank(-f64::NAN) > rank(f64::INFINITY));
    }
}
