//! `sum` and `avg` of intervals: three exact sums for each group.

use super::accumulator::Accumulator;
use super::lane::Input;
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_state::chunked::Chunked;
use tidemark_values::moment::{Interval, IntervalSum};

/// Nanoseconds of a microsecond: Arrow counts those, PostgreSQL these.
const MICRO: i64 = 1000;

/// One of the two.
#[derive(Default)]
pub(super) struct Intervals {
    mean: bool,
    sums: Vec<IntervalSum>,
}

impl Intervals {
    pub(super) fn new(mean: bool) -> Intervals {
        Intervals {
            mean,
            sums: Vec::new(),
        }
    }
}

/// An interval as PostgreSQL has it.
pub(crate) fn interval(value: IntervalMonthDayNano) -> Interval {
    Interval::new(value.months, value.days, value.nanoseconds / MICRO)
}

/// The same as Arrow has it.
///
/// Errors: `22008` if it cannot have it.
pub(crate) fn arrow_interval(value: Interval) -> Result<IntervalMonthDayNano> {
    let nanoseconds = value.nanoseconds()?;
    Ok(IntervalMonthDayNano::new(
        value.months,
        value.days,
        nanoseconds,
    ))
}

impl Accumulator for Intervals {
    fn grow(&mut self, capacity: usize) {
        if self.sums.len() < capacity {
            self.sums.resize(capacity, IntervalSum::default());
        }
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        let values = values.as_primitive::<IntervalMonthDayNanoType>().values();
        input.each(|row, id, weight| self.sums[id as usize].add(interval(values[row]), weight));
        Ok(())
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        let value = |id: &u32| {
            let (sum, rows) = (&self.sums[*id as usize], counts.get(*id));
            if rows == 0 {
                return Ok(None);
            }
            let value = match self.mean {
                true => sum.average(rows)?,
                false => sum.sum()?,
            };
            arrow_interval(value).map(Some)
        };
        let values = ids.iter().map(value);
        Ok(Arc::new(
            values.collect::<Result<IntervalMonthDayNanoArray>>()?,
        ))
    }

    fn reset(&mut self, id: u32) {
        self.sums[id as usize] = IntervalSum::default();
    }

    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Binary)
    }

    fn save(&self, ids: &[u32]) -> ArrayRef {
        let sums = ids.iter().map(|id| self.sums[*id as usize].encode());
        Arc::new(BinaryArray::from_iter_values(sums))
    }

    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let stored = stored.as_binary::<i32>();
        for (row, id) in ids.iter().enumerate() {
            let sum = IntervalSum::decode(stored.value(row));
            self.sums[*id as usize] = sum.expect("a sum in its stored form");
        }
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<IntervalSum>()
    }
}
