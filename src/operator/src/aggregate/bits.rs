//! `bit_and`, `bit_or` and `bit_xor` of integers: how many of a group's values have each bit set. A
//! row that leaves is taken off the counts, which say it all: a bit is set in every value, in some,
//! or in an odd number of them.

use super::accumulator::Accumulator;
use super::lane::Input;
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::AggregateFunction;
use tidemark_state::chunked::Chunked;

/// One of the three.
pub(super) struct Bits {
    function: AggregateFunction,
    /// The argument's and the result's type.
    integer: DataType,
    /// By group, and by bit from the lowest; nothing for a group without values so far.
    counts: Vec<Box<[i64]>>,
    /// Groups that have counts.
    used: usize,
}

impl Bits {
    /// `None` for arguments that are no integers.
    pub(super) fn new(function: AggregateFunction, integer: &DataType) -> Option<Bits> {
        matches!(integer, DataType::Int16 | DataType::Int32 | DataType::Int64).then(|| Bits {
            function,
            integer: integer.clone(),
            counts: Vec::new(),
            used: 0,
        })
    }

    fn width(&self) -> usize {
        self.integer.primitive_width().unwrap_or(0) * 8
    }

    fn add<T: ArrowPrimitiveType<Native: Into<i64>>>(&mut self, input: &Input, values: &ArrayRef) {
        let width = self.width();
        let values = values.as_primitive::<T>().values();
        let used = &mut self.used;
        input.each(|row, id, weight| {
            let counts = &mut self.counts[id as usize];
            if counts.is_empty() {
                *counts = vec![0; width].into();
                *used += 1;
            }
            let value: i64 = values[row].into();
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += weight * (value >> bit & 1);
            }
        });
    }

    /// The result in the lowest bits.
    fn value(&self, id: u32, rows: i64) -> i64 {
        let set = |count: i64| match self.function {
            AggregateFunction::BitAnd => count == rows,
            AggregateFunction::BitOr => count != 0,
            _ => count & 1 == 1,
        };
        let counts = self.counts[id as usize].iter().enumerate();
        counts.fold(0, |value, (bit, count)| {
            value | i64::from(set(*count)) << bit
        })
    }
}

impl Accumulator for Bits {
    fn grow(&mut self, capacity: usize) {
        if self.counts.len() < capacity {
            self.counts.resize_with(capacity, Box::default);
        }
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        match self.integer {
            DataType::Int16 => self.add::<Int16Type>(input, values),
            DataType::Int32 => self.add::<Int32Type>(input, values),
            _ => self.add::<Int64Type>(input, values),
        }
        Ok(())
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        let values = ids.iter().map(|id| {
            let rows = counts.get(*id);
            (rows != 0).then(|| self.value(*id, rows))
        });
        Ok(match self.integer {
            DataType::Int16 => Arc::new(Int16Array::from_iter(values.map(|v| v.map(|v| v as i16)))),
            DataType::Int32 => Arc::new(Int32Array::from_iter(values.map(|v| v.map(|v| v as i32)))),
            _ => Arc::new(Int64Array::from_iter(values)),
        })
    }

    fn reset(&mut self, id: u32) {
        let counts = std::mem::take(&mut self.counts[id as usize]);
        self.used -= usize::from(!counts.is_empty());
    }

    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Binary)
    }

    fn save(&self, ids: &[u32]) -> ArrayRef {
        let mut builder = BinaryBuilder::with_capacity(ids.len(), ids.len() * self.width() * 8);
        let mut bytes = Vec::new();
        for id in ids {
            bytes.clear();
            let counts = self.counts[*id as usize].iter();
            counts.for_each(|count| bytes.extend_from_slice(&count.to_le_bytes()));
            builder.append_value(&bytes);
        }
        Arc::new(builder.finish())
    }

    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let stored = stored.as_binary::<i32>();
        for (row, id) in ids.iter().enumerate() {
            let (counts, _) = stored.value(row).as_chunks();
            let counts: Box<[i64]> = counts.iter().map(|c| i64::from_le_bytes(*c)).collect();
            let is_used = !counts.is_empty();
            let before = std::mem::replace(&mut self.counts[*id as usize], counts);
            self.used = self.used + usize::from(is_used) - usize::from(!before.is_empty());
        }
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<Box<[i64]>>() + self.used * self.width() * 8
    }
}
