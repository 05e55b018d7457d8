//! Aggregates over pairs of doubles, for ad-hoc queries: `corr`, `covar_pop`, `covar_samp` and
//! `regr_..(y, x)`. Sums and sums of squares are PostgreSQL's, by the algorithm of Youngs and
//! Cramer in the order of the rows, so that results agree to the last digit, and overflow is its
//! error and not infinity.
//!
//! In a window whose frame moves, the pairs of the frame are kept and summed up anew.

use super::ordered_sets::doubles;
use crate::error::external;
use crate::types::is_numeric_bytes;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::arrow::array::{Array, ArrayRef, AsArray};
use datafusion_common::arrow::datatypes::Float64Type;
use datafusion_common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is told of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Statistic {
    Count,
    SquaresOfX,
    SquaresOfY,
    Products,
    AverageX,
    AverageY,
    PopulationCovariance,
    SampleCovariance,
    Correlation,
    Determination,
    Slope,
    Intercept,
}

/// The functions.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let function = |(name, statistic)| {
        Arc::new(AggregateUDF::from(Regression {
            name,
            statistic,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    [
        ("regr_count", Statistic::Count),
        ("regr_sxx", Statistic::SquaresOfX),
        ("regr_syy", Statistic::SquaresOfY),
        ("regr_sxy", Statistic::Products),
        ("regr_avgx", Statistic::AverageX),
        ("regr_avgy", Statistic::AverageY),
        ("covar_pop", Statistic::PopulationCovariance),
        ("covar_samp", Statistic::SampleCovariance),
        ("corr", Statistic::Correlation),
        ("regr_r2", Statistic::Determination),
        ("regr_slope", Statistic::Slope),
        ("regr_intercept", Statistic::Intercept),
    ]
    .map(function)
    .into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Regression {
    name: &'static str,
    statistic: Statistic,
    signature: Signature,
}

impl Regression {
    fn pairs(&self, args: &AccumulatorArgs, moving: bool) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!("{}(DISTINCT ..) is not supported", self.name);
        }
        Ok(Box::new(Pairs {
            statistic: self.statistic,
            sums: Sums::default(),
            frame: moving.then(VecDeque::new),
        }))
    }
}

impl AggregateUDFImpl for Regression {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let double = |t: &DataType| match t {
            t if is_numeric_bytes(t) => Some(t.clone()),
            DataType::Null => Some(DataType::Float64),
            t => t.is_numeric().then_some(DataType::Float64),
        };
        let doubles: Option<Vec<DataType>> = types.iter().map(double).collect();
        match doubles {
            Some(doubles) if doubles.len() == 2 => Ok(doubles),
            _ => plan_err!("function {} does not exist", self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.statistic {
            Statistic::Count => DataType::Int64,
            _ => DataType::Float64,
        })
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        match self.statistic {
            Statistic::Count => Ok(ScalarValue::Int64(Some(0))),
            _ => ScalarValue::try_from(data_type),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.pairs(&args, false)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.pairs(&args, true)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str| {
            let name = format!("{}[{part}]", args.name);
            Arc::new(Field::new(name, DataType::Float64, true)) as FieldRef
        };
        Ok(["n", "x", "xx", "y", "yy", "xy"].map(field).into())
    }
}

/// Of n pairs: the sums of x and y, and of the squares and products of what they are off their
/// averages by. Such a sum is NaN if a value in it is no finite number, whichever comes first, else
/// infinity if it ran over.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    x: f64,
    xx: f64,
    y: f64,
    yy: f64,
    xy: f64,
}

/// A sum; infinity where it ran over.
fn in_range(sum: f64) -> f64 {
    if sum.is_finite() { sum } else { f64::INFINITY }
}

impl Sums {
    /// PostgreSQL's float8_regr_accum, but that what runs over is no error before the end.
    fn add(&mut self, y: f64, x: f64) {
        let before = *self;
        self.n += 1.0;
        self.x += x;
        self.y += y;
        let (known_x, known_y) = (x.is_finite(), y.is_finite());
        for (sum, known) in [
            (&mut self.xx, known_x),
            (&mut self.yy, known_y),
            (&mut self.xy, known_x && known_y),
        ] {
            if !known {
                *sum = f64::NAN;
            }
        }
        if before.n == 0.0 {
            return;
        }
        let (off_x, off_y) = (x * self.n - self.x, y * self.n - self.y);
        let scale = 1.0 / (self.n * before.n);
        let more = [off_x * off_x, off_y * off_y, off_x * off_y];
        for (sum, more) in self.squares().into_iter().zip(more) {
            if sum.is_finite() {
                *sum = in_range(*sum + more * scale);
            }
        }
    }

    /// The sums of squares and products.
    fn squares(&mut self) -> [&mut f64; 3] {
        [&mut self.xx, &mut self.yy, &mut self.xy]
    }

    /// PostgreSQL's float8_regr_combine.
    fn merge(&mut self, other: Sums) {
        if self.n == 0.0 || other.n == 0.0 {
            if self.n == 0.0 {
                *self = other;
            }
            return;
        }
        let (a, b) = (*self, other);
        let n = a.n + b.n;
        let (dx, dy) = (a.x / a.n - b.x / b.n, a.y / a.n - b.y / b.n);
        let weight = a.n * b.n;
        *self = Sums {
            n,
            x: a.x + b.x,
            xx: a.xx + b.xx + weight * dx * dx / n,
            y: a.y + b.y,
            yy: a.yy + b.yy + weight * dy * dy / n,
            xy: a.xy + b.xy + weight * dx * dy / n,
        };
        let parts = [[a.xx, b.xx], [a.yy, b.yy], [a.xy, b.xy]];
        for (sum, [a, b]) in self.squares().into_iter().zip(parts) {
            *sum = match a.is_nan() || b.is_nan() {
                true => f64::NAN,
                false => in_range(*sum),
            };
        }
    }

    fn result(&self, statistic: Statistic) -> Result<Option<f64>> {
        let Sums {
            n,
            x,
            xx,
            y,
            yy,
            xy,
        } = *self;
        if [xx, yy, xy].iter().any(|sum| sum.is_infinite()) {
            return Err(external(tidemark_values::float::overflow()));
        }
        if n < 1.0 {
            return Ok(None);
        }
        Ok(match statistic {
            Statistic::Count => Some(n),
            Statistic::SquaresOfX => Some(xx),
            Statistic::SquaresOfY => Some(yy),
            Statistic::Products => Some(xy),
            Statistic::AverageX => Some(x / n),
            Statistic::AverageY => Some(y / n),
            Statistic::PopulationCovariance => Some(xy / n),
            Statistic::SampleCovariance => (n >= 2.0).then(|| xy / (n - 1.0)),
            Statistic::Correlation => (xx != 0.0 && yy != 0.0).then(|| xy / (xx * yy).sqrt()),
            Statistic::Determination if xx == 0.0 => None,
            Statistic::Determination if yy == 0.0 => Some(1.0),
            Statistic::Determination => Some((xy * xy) / (xx * yy)),
            Statistic::Slope => (xx != 0.0).then(|| xy / xx),
            Statistic::Intercept => (xx != 0.0).then(|| (y - x * xy / xx) / n),
        })
    }
}

/// The pairs so far.
#[derive(Debug)]
struct Pairs {
    statistic: Statistic,
    sums: Sums,
    /// The pairs of a frame that moves.
    frame: Option<VecDeque<(f64, f64)>>,
}

/// Calls `f` with each pair without NULL.
fn each(values: &[ArrayRef], mut f: impl FnMut(f64, f64)) -> Result<()> {
    let (y, x) = (doubles(&values[0])?, doubles(&values[1])?);
    let (y, x) = (
        y.as_primitive::<Float64Type>(),
        x.as_primitive::<Float64Type>(),
    );
    for (y, x) in y.iter().zip(x) {
        if let (Some(y), Some(x)) = (y, x) {
            f(y, x);
        }
    }
    Ok(())
}

impl Accumulator for Pairs {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let counts = self.statistic == Statistic::Count;
        let (sums, frame) = (&mut self.sums, &mut self.frame);
        each(values, |y, x| match frame {
            Some(frame) => frame.push_back((y, x)),
            // A count runs over nothing.
            None if counts => sums.n += 1.0,
            None => sums.add(y, x),
        })
    }

    fn supports_retract_batch(&self) -> bool {
        self.frame.is_some()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let frame = &mut self.frame;
        each(values, |_, _| {
            if let Some(frame) = frame {
                frame.pop_front();
            }
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let part = |i: usize, row: usize| {
            let values = states[i].as_primitive::<Float64Type>();
            values.value(row)
        };
        for row in 0..states[0].len() {
            self.sums.merge(Sums {
                n: part(0, row),
                x: part(1, row),
                xx: part(2, row),
                y: part(3, row),
                yy: part(4, row),
                xy: part(5, row),
            });
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let Sums {
            n,
            x,
            xx,
            y,
            yy,
            xy,
        } = self.sums;
        let part = |v| ScalarValue::Float64(Some(v));
        Ok([n, x, xx, y, yy, xy].map(part).into())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.statistic == Statistic::Count {
            let kept = self.frame.as_ref().map_or(0, VecDeque::len);
            return Ok(ScalarValue::Int64(Some(self.sums.n as i64 + kept as i64)));
        }
        let mut sums = self.sums;
        for (y, x) in self.frame.iter().flatten() {
            sums.add(*y, *x);
        }
        Ok(ScalarValue::Float64(sums.result(self.statistic)?))
    }

    fn size(&self) -> usize {
        const PAIR_BYTES: usize = 16;
        let pairs = self.frame.as_ref().map_or(0, VecDeque::capacity);
        size_of_val(self) + pairs * PAIR_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_parts_are_those_of_the_whole() {
        let pairs = [(1.0, 2.0), (2.0, 3.0), (4.0, 7.0), (-1.0, 0.5)];
        let sums = |pairs: &[(f64, f64)]| {
            let mut sums = Sums::default();
            pairs.iter().for_each(|(y, x)| sums.add(*y, *x));
            sums
        };
        let whole = sums(&pairs);
        let mut parts = sums(&pairs[..1]);
        parts.merge(sums(&pairs[1..]));
        parts.merge(Sums::default());
        for statistic in [Statistic::Slope, Statistic::Correlation, Statistic::Count] {
            let [a, b] = [&whole, &parts].map(|sums| sums.result(statistic).unwrap());
            assert!((a.unwrap() - b.unwrap()).abs() < 1e-12);
        }
        assert_eq!(Sums::default().result(Statistic::Slope).unwrap(), None);
    }

    #[test]
    fn overflow_is_an_error() {
        let mut sums = Sums::default();
        sums.add(1.0, 1e200);
        sums.add(2.0, -1e200);
        let error = sums.result(Statistic::Slope).unwrap_err();
        assert!(error.to_string().contains("value out of range: overflow"));
        // An infinity makes it unknown, before or after.
        sums.add(2.0, f64::INFINITY);
        let squares = sums.result(Statistic::SquaresOfX).unwrap();
        assert!(squares.is_some_and(f64::is_nan));
    }
}
