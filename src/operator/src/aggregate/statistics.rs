//! Variances and deviations of floats; covariances, correlations and regressions of pairs of them,
//! which come as structs of y and x. What is kept of a group is exact ([`tidemark_values::exact`]),
//! so that a row that leaves takes off again just what it had added.

use super::accumulator::Accumulator;
use super::lane::Input;
use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::AggregateFunction;
use tidemark_state::chunked::Chunked;
use tidemark_values::exact::{Moments, Pairs, Regression, Spread};

/// What is kept of one group.
trait Kept: Clone + Default + Send {
    /// Which statistic it is kept for.
    type Statistic: Copy + Send;
    /// A batch's values.
    type Values;

    fn values(values: &ArrayRef) -> Result<Self::Values>;
    fn add(&mut self, of: Self::Statistic, values: &Self::Values, row: usize, weight: i64);
    fn output(
        of: Self::Statistic,
        groups: &mut dyn Iterator<Item = Option<&Self>>,
    ) -> Result<ArrayRef>;
    fn heap_bytes(&self) -> usize;
    fn encode(&self, to: &mut Vec<u8>);
    fn decode(from: &[u8]) -> Option<Self>;
}

/// Numbers as doubles.
fn doubles(values: &ArrayRef) -> Result<Float64Array> {
    let values = cast(values, &DataType::Float64).map_err(|e| Error::internal(e.to_string()))?;
    Ok(values.as_primitive::<Float64Type>().clone())
}

impl Kept for Moments {
    type Statistic = Spread;
    type Values = Float64Array;

    fn values(values: &ArrayRef) -> Result<Float64Array> {
        doubles(values)
    }
    fn add(&mut self, _: Spread, values: &Float64Array, row: usize, weight: i64) {
        self.add(values.value(row), weight);
    }
    fn output(of: Spread, groups: &mut dyn Iterator<Item = Option<&Moments>>) -> Result<ArrayRef> {
        let result = |kept: Option<&Moments>| kept.map_or(Ok(None), |kept| kept.result(of));
        let results = groups.map(result).collect::<Result<Float64Array>>();
        Ok(Arc::new(results?))
    }
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
    fn encode(&self, to: &mut Vec<u8>) {
        self.encode(to);
    }
    fn decode(from: &[u8]) -> Option<Moments> {
        Moments::decode(from)
    }
}

impl Kept for Pairs {
    type Statistic = Regression;
    type Values = [Float64Array; 2];

    fn values(values: &ArrayRef) -> Result<[Float64Array; 2]> {
        let pair = values.as_struct();
        Ok([doubles(pair.column(0))?, doubles(pair.column(1))?])
    }
    fn add(&mut self, of: Regression, [y, x]: &[Float64Array; 2], row: usize, weight: i64) {
        self.add(of, y.value(row), x.value(row), weight);
    }
    fn output(
        of: Regression,
        groups: &mut dyn Iterator<Item = Option<&Pairs>>,
    ) -> Result<ArrayRef> {
        if of == Regression::Count {
            let counts = groups.map(|kept| kept.map_or(0, Pairs::rows));
            return Ok(Arc::new(Int64Array::from_iter_values(counts)));
        }
        let result = |kept: Option<&Pairs>| kept.map_or(Ok(None), |kept| kept.result(of));
        let results = groups.map(result).collect::<Result<Float64Array>>();
        Ok(Arc::new(results?))
    }
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
    fn encode(&self, to: &mut Vec<u8>) {
        self.encode(to);
    }
    fn decode(from: &[u8]) -> Option<Pairs> {
        Pairs::decode(from)
    }
}

/// A statistic by groups.
struct Statistics<K: Kept> {
    statistic: K::Statistic,
    groups: Vec<K>,
    heap: usize,
}

/// The accumulator of a variance or deviation of floats; `None` for other functions.
pub(super) fn of_floats(function: AggregateFunction) -> Option<Box<dyn Accumulator>> {
    Some(new::<Moments>(match function {
        AggregateFunction::VarPop => Spread::VarPop,
        AggregateFunction::VarSamp => Spread::VarSamp,
        AggregateFunction::StddevPop => Spread::StddevPop,
        AggregateFunction::StddevSamp => Spread::StddevSamp,
        _ => return None,
    }))
}

/// The accumulator of a function of pairs; `None` for other functions.
pub(super) fn of_pairs(function: AggregateFunction) -> Option<Box<dyn Accumulator>> {
    Some(new::<Pairs>(match function {
        AggregateFunction::Corr => Regression::Correlation,
        AggregateFunction::CovarPop => Regression::CovarPop,
        AggregateFunction::CovarSamp => Regression::CovarSamp,
        AggregateFunction::RegrCount => Regression::Count,
        AggregateFunction::RegrSxx => Regression::SquaresOfX,
        AggregateFunction::RegrSyy => Regression::SquaresOfY,
        AggregateFunction::RegrSxy => Regression::Products,
        AggregateFunction::RegrAvgX => Regression::AverageX,
        AggregateFunction::RegrAvgY => Regression::AverageY,
        AggregateFunction::RegrR2 => Regression::Determination,
        AggregateFunction::RegrSlope => Regression::Slope,
        AggregateFunction::RegrIntercept => Regression::Intercept,
        _ => return None,
    }))
}

fn new<K: Kept + 'static>(statistic: K::Statistic) -> Box<dyn Accumulator> {
    Box::new(Statistics::<K> {
        statistic,
        groups: Vec::new(),
        heap: 0,
    })
}

impl<K: Kept> Statistics<K> {
    /// Puts something else in the place of what is kept of a group.
    fn put(&mut self, id: u32, kept: K) {
        self.heap += kept.heap_bytes();
        let before = std::mem::replace(&mut self.groups[id as usize], kept);
        self.heap -= before.heap_bytes();
    }
}

impl<K: Kept> Accumulator for Statistics<K> {
    fn grow(&mut self, capacity: usize) {
        if self.groups.len() < capacity {
            self.groups.resize(capacity, K::default());
        }
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        let values = K::values(values)?;
        let statistic = self.statistic;
        input.each(|row, id, weight| {
            let kept = &mut self.groups[id as usize];
            let before = kept.heap_bytes();
            kept.add(statistic, &values, row, weight);
            self.heap = self.heap + kept.heap_bytes() - before;
        });
        Ok(())
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        let kept = |id: &u32| (counts.get(*id) > 0).then(|| &self.groups[*id as usize]);
        K::output(self.statistic, &mut ids.iter().map(kept))
    }

    fn reset(&mut self, id: u32) {
        self.put(id, K::default());
    }

    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Binary)
    }

    fn save(&self, ids: &[u32]) -> ArrayRef {
        let mut builder = BinaryBuilder::with_capacity(ids.len(), ids.len() * 64);
        let mut bytes = Vec::new();
        for id in ids {
            bytes.clear();
            self.groups[*id as usize].encode(&mut bytes);
            builder.append_value(&bytes);
        }
        Arc::new(builder.finish())
    }

    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let stored = stored.as_binary::<i32>();
        for (row, id) in ids.iter().enumerate() {
            let kept = K::decode(stored.value(row));
            self.put(*id, kept.expect("sums in their stored form"));
        }
    }

    fn memory_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<K>() + self.heap
    }
}
