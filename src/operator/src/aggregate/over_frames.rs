//! Aggregates of ranges of rows, for window functions: the accumulators of groups, with a group for
//! each frame or with one whose rows come and go.

use super::accumulator::{Accumulator, accumulator};
use super::lane::{Input, Selected};
use crate::pieces::{difference, rows as rows_of};
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use std::ops::Range;
use tidemark_common::{Error, Result};
use tidemark_plan::AggregateCall;
use tidemark_state::chunked::Chunked;

/// Rows of all frames, per row that there is, up to which each frame is summed by itself.
const REPEATED_MAX: usize = 8;

/// The call's result for each of some frames, which are ranges of rows that do not overlap.
/// `values` is its argument, one value per row, and `filter` says which rows count; of NULLs none
/// does.
pub(crate) fn over_frames<F: AsRef<[Range<usize>]>>(
    call: &AggregateCall,
    values: Option<&ArrayRef>,
    filter: Option<BooleanBuffer>,
    rows: usize,
    frames: &[F],
) -> Result<ArrayRef> {
    let valid = values
        .and_then(|v| v.logical_nulls())
        .map(|n| n.inner().clone());
    let counted = match (filter, valid) {
        (Some(a), Some(b)) => Some(&a & &b),
        (a, b) => a.or(b),
    };
    let ranges = frames.iter().flat_map(|frame| frame.as_ref());
    let total: usize = ranges.map(Range::len).sum();
    let over = Over {
        call,
        values,
        counted,
    };
    if total <= REPEATED_MAX * rows.max(frames.len()) {
        over.each(frames, total)
    } else {
        over.moving(frames)
    }
}

struct Over<'a> {
    call: &'a AggregateCall,
    values: Option<&'a ArrayRef>,
    counted: Option<BooleanBuffer>,
}

impl Over<'_> {
    fn accumulator(&self, append_only: bool) -> Result<Box<dyn Accumulator>> {
        let argument = self.values.map(|v| v.data_type());
        accumulator(self.call, argument, append_only)
    }

    /// A group for each frame, its rows side by side.
    fn each<F: AsRef<[Range<usize>]>>(&self, frames: &[F], total: usize) -> Result<ArrayRef> {
        let mut groups = Vec::with_capacity(total);
        let mut rows = Vec::with_capacity(total);
        let mut counts = Chunked::new();
        counts.grow(frames.len());
        for (group, frame) in frames.iter().enumerate() {
            for row in rows_of(frame.as_ref()) {
                if self.counted.as_ref().is_none_or(|c| c.value(row)) {
                    groups.push(group as u32);
                    rows.push(row as u32);
                }
            }
        }
        groups.iter().for_each(|g| *counts.get_mut(*g) += 1);
        let mut accumulator = self.accumulator(true)?;
        accumulator.grow(frames.len());
        if let Some(values) = self.values {
            let values = take(values, &UInt32Array::from(rows), None)
                .map_err(|e| Error::internal(e.to_string()))?;
            let input = Input {
                ids: &groups,
                weights: None,
                rows: Selected::All,
            };
            accumulator.update(&input, &values)?;
        }
        let all: Vec<u32> = (0..frames.len() as u32).collect();
        accumulator.output(&all, &counts)
    }

    /// One group, from which rows go and to which others come from one frame to the next.
    fn moving<F: AsRef<[Range<usize>]>>(&self, frames: &[F]) -> Result<ArrayRef> {
        let only_grow = frames.windows(2).all(|two| {
            let mut changed = difference(two[0].as_ref(), two[1].as_ref());
            changed.all(|(_, weight)| weight > 0)
        });
        let mut accumulator = self.accumulator(only_grow)?;
        let mut counts = Chunked::new();
        accumulator.grow(1);
        counts.grow(1);
        let mut outputs: Vec<ArrayRef> = Vec::with_capacity(frames.len());
        let mut at: &[Range<usize>] = &[];
        for frame in frames {
            for (rows, weight) in difference(at, frame.as_ref()) {
                self.add(accumulator.as_mut(), rows, weight, counts.get_mut(0))?;
            }
            outputs.push(accumulator.output(&[0], &counts)?);
            at = frame.as_ref();
        }
        let outputs: Vec<&dyn Array> = outputs.iter().map(|o| o.as_ref()).collect();
        concat(&outputs).map_err(|e| Error::internal(e.to_string()))
    }

    /// Adds rows to the one group, with this weight.
    fn add(
        &self,
        accumulator: &mut dyn Accumulator,
        rows: Range<usize>,
        weight: i64,
        count: &mut i64,
    ) -> Result<()> {
        let counts = |row: &usize| self.counted.as_ref().is_none_or(|c| c.value(*row));
        let picked = rows.clone().filter(counts);
        let picked: Vec<u32> = picked.map(|row| (row - rows.start) as u32).collect();
        *count += weight * picked.len() as i64;
        let (Some(values), false) = (self.values, picked.is_empty()) else {
            return Ok(());
        };
        let input = Input {
            ids: &vec![0; rows.len()],
            weights: None,
            rows: Selected::Picked {
                rows: &picked,
                weights: &vec![weight; picked.len()],
            },
        };
        accumulator.update(&input, &values.slice(rows.start, rows.len()))
    }
}
