//! Sums and averages of numerics with scales of their own; variances of these and of integers. What
//! is kept of a group ([`Sum`]) is linear: a row that leaves takes back exactly what it had added,
//! its scale included.

use super::accumulator::Accumulator;
use super::lane::Input;
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::AggregateFunction;
use tidemark_state::chunked::Chunked;
use tidemark_values::numeric::{Numeric, Sum};

/// `sum` or `avg` of a column of numerics, or of long `Decimal128`s; variances and deviations of
/// integers too.
pub(super) struct NumericSum {
    function: AggregateFunction,
    /// By group.
    sums: Vec<Sum>,
}

impl NumericSum {
    pub(super) fn new(function: AggregateFunction) -> NumericSum {
        NumericSum {
            function,
            sums: Vec::new(),
        }
    }

    /// What is kept of no values.
    fn empty(&self) -> Sum {
        match self.function {
            AggregateFunction::Sum | AggregateFunction::Avg => Sum::new(),
            _ => Sum::with_squares(),
        }
    }

    fn add<T: ArrowPrimitiveType<Native: Into<i128>>>(
        &mut self,
        input: &Input,
        values: &ArrayRef,
        scale: u16,
    ) {
        let values = values.as_primitive::<T>().values();
        input.each(|row, id, weight| {
            let value = Numeric::from_unscaled(values[row].into(), scale);
            self.sums[id as usize].change(&value, weight);
        });
    }
}

impl Accumulator for NumericSum {
    fn grow(&mut self, capacity: usize) {
        if self.sums.len() < capacity {
            let empty = self.empty();
            self.sums.resize(capacity, empty);
        }
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        match values.data_type() {
            DataType::Decimal128(_, scale) => {
                self.add::<Decimal128Type>(input, values, u16::from(scale.unsigned_abs()));
                return Ok(());
            }
            DataType::Int16 => {
                self.add::<Int16Type>(input, values, 0);
                return Ok(());
            }
            DataType::Int32 => {
                self.add::<Int32Type>(input, values, 0);
                return Ok(());
            }
            DataType::Int64 => {
                self.add::<Int64Type>(input, values, 0);
                return Ok(());
            }
            _ => {}
        }
        let values = values.as_binary::<i64>();
        let mut outcome = Ok(());
        input.each(|row, id, weight| match Numeric::decode(values.value(row)) {
            Ok(value) => self.sums[id as usize].change(&value, weight),
            Err(error) => outcome = Err(error),
        });
        outcome
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        numerics(ids.iter().map(|id| {
            if counts.get(*id) == 0 {
                return Ok(None);
            }
            let sum = &self.sums[*id as usize];
            match self.function {
                AggregateFunction::Avg => sum.avg(),
                AggregateFunction::VarPop => sum.var_pop(),
                AggregateFunction::VarSamp => sum.var_samp(),
                AggregateFunction::StddevPop => sum.stddev_pop(),
                AggregateFunction::StddevSamp => sum.stddev_samp(),
                _ => sum.sum(),
            }
        }))
    }

    fn reset(&mut self, id: u32) {
        self.sums[id as usize] = self.empty();
    }

    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Binary)
    }

    fn save(&self, ids: &[u32]) -> ArrayRef {
        let mut builder = BinaryBuilder::with_capacity(ids.len(), ids.len() * 32);
        let mut bytes = Vec::new();
        for id in ids {
            bytes.clear();
            self.sums[*id as usize].encode(&mut bytes);
            builder.append_value(&bytes);
        }
        Arc::new(builder.finish())
    }

    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let stored = stored.as_binary::<i32>();
        for (row, id) in ids.iter().enumerate() {
            self.sums[*id as usize] =
                Sum::decode(stored.value(row)).expect("a sum in its stored form");
        }
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<Sum>()
    }
}

/// A column of numerics.
pub(super) fn numerics(
    values: impl Iterator<Item = Result<Option<Numeric>, Error>>,
) -> Result<ArrayRef> {
    let mut builder = LargeBinaryBuilder::new();
    let mut bytes = Vec::new();
    for value in values {
        match value? {
            Some(value) => {
                bytes.clear();
                value.encode(&mut bytes);
                builder.append_value(&bytes);
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}
