//! Window functions: the input's columns, and for each row what functions make of the rows around
//! it in its partition.
//!
//! **Cost.** How far a change reaches follows from the frames: `lag(x)` of the row behind, a sum
//! over three rows before of the next three, a running sum of all that come after, `percent_rank`
//! of the whole partition. What is reached is computed anew, as it was and as it is, from the rows
//! that it reads; only rows whose results differ are sent.

use super::calls::{Calls, Reach};
use super::partitions::{Partitions, Pending, record_batch};
use crate::{Barrier, Operator, Out};
use arrow::array::{Array, make_comparator};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::SchemaRef;
use std::ops::Range;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{SortKey, WindowCall};
use tidemark_state::StateTable;

/// Rows that are sent at a time, about.
const SENT_ROWS: usize = 4096;

/// `Op::Window`.
pub struct Window {
    partitions: Partitions,
    calls: Calls,
    reach: Reach,
    width: usize,
    output: SchemaRef,
}

impl Window {
    /// Without rows. `output` has the columns of `input`, then one per call; the state table is
    /// number `table`.
    pub fn new(
        input: &SchemaRef,
        output: &SchemaRef,
        partition: &[usize],
        order: &[SortKey],
        calls: &[WindowCall],
        table: u32,
    ) -> Window {
        Window {
            partitions: Partitions::new(input, partition, order, None, table),
            calls: Calls::new(calls),
            reach: Reach::of(calls),
            width: input.fields().len(),
            output: output.clone(),
        }
    }

    /// The rows of a partition that changes reach, as they were and as they are.
    fn reached(&self, changes: &[Pending]) -> Reached {
        let (first, last) = (changes[0], changes[changes.len() - 1]);
        let list = self.partitions.list(first.partition);
        let place = |change: Pending| self.partitions.place(change.partition, change.row);
        let is_peer = |row: &u32, of: Pending| {
            self.reach.peers && self.partitions.compare_keys(*row, of.row).is_eq()
        };
        let mut reached = Reached::default();
        let before = || list.iter_before(place(first));
        let peers = before().take_while(|row| is_peer(row, first)).count();
        let changed = self.reach.changed_before.max(peers);
        let read = changed.saturating_add(self.reach.read_before);
        let rows: Vec<u32> = before().take(read).collect();
        for (i, row) in rows.iter().enumerate().rev() {
            reached.push(&self.partitions, *row, 0, i < changed);
        }
        let mut changes = changes.iter().peekable();
        for row in list.iter_from(place(first)) {
            let change = changes.next_if(|c| c.row == row);
            reached.push(&self.partitions, row, change.map_or(0, |c| c.weight), true);
            if changes.peek().is_none() {
                break;
            }
        }
        let after = || list.iter_from(place(last)).skip(1);
        let peers = after().take_while(|row| is_peer(row, last)).count();
        let changed = self.reach.changed_after.max(peers);
        let read = changed.saturating_add(self.reach.read_after);
        for (i, row) in after().take(read).enumerate() {
            reached.push(&self.partitions, row, 0, i < changed);
        }
        reached
    }

    /// Sends what differs.
    fn send(&self, reached: Reached, out: &mut dyn Out) -> Result<()> {
        let old = self.calls.evaluate(&self.partitions, &reached.old)?;
        let new = self.calls.evaluate(&self.partitions, &reached.new)?;
        let compare = old
            .iter()
            .zip(&new)
            .map(|(old, new)| make_comparator(old, new, SortOptions::default()))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| Error::internal(e.to_string()))?;
        let (mut rows, mut places, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for entry in &reached.entries {
            let pairs = entry.old.clone().zip(entry.new.clone());
            let same = |(o, n)| compare.iter().all(|c| c(o, n).is_eq());
            let same: Vec<bool> = pairs.map(same).collect();
            let differs = |i: &usize| !same.get(*i).is_some_and(|same| *same);
            for i in (0..entry.old.len()).filter(differs) {
                rows.push(reached.old[entry.old.start + i]);
                places.push((0, entry.old.start + i));
                weights.push(-1);
            }
            for i in (0..entry.new.len()).filter(differs) {
                rows.push(reached.new[entry.new.start + i]);
                places.push((1, entry.new.start + i));
                weights.push(1);
            }
        }
        let all: Vec<usize> = (0..self.width).collect();
        for start in (0..rows.len()).step_by(SENT_ROWS) {
            let range = start..rows.len().min(start + SENT_ROWS);
            let mut columns = self.partitions.gather(&all, &rows[range.clone()]);
            for (old, new) in old.iter().zip(&new) {
                let both: [&dyn Array; 2] = [old, new];
                let column = interleave(&both, &places[range.clone()]);
                columns.push(column.map_err(|e| Error::internal(e.to_string()))?);
            }
            let batch = record_batch(&self.output, columns, range.len());
            out.send(ChangeBatch::new(batch, weights[range].to_vec()))?;
        }
        Ok(())
    }
}

/// Rows of a partition that changes reach, one after the other.
#[derive(Default)]
struct Reached {
    /// As they were.
    old: Vec<u32>,
    /// As they are.
    new: Vec<u32>,
    /// Those whose results may differ.
    entries: Vec<Entry>,
}

/// The copies of one row.
struct Entry {
    /// Among the old rows.
    old: Range<usize>,
    /// Among the new ones.
    new: Range<usize>,
}

impl Reached {
    fn push(&mut self, partitions: &Partitions, row: u32, change: i64, changed: bool) {
        let was = partitions.weight(row);
        let add = |rows: &mut Vec<u32>, copies: i64| {
            let start = rows.len();
            rows.extend((0..copies).map(|_| row));
            start..rows.len()
        };
        let entry = Entry {
            old: add(&mut self.old, was),
            new: add(&mut self.new, was + change),
        };
        if changed {
            self.entries.push(entry);
        }
    }
}

impl Operator for Window {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, _barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.partitions.take_pending();
        let mut left = Vec::new();
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            if changes.iter().any(|c| c.weight != 0) {
                let reached = self.reached(changes);
                self.send(reached, out)?;
            }
            self.partitions.apply(changes, &mut left);
            self.partitions.free(&mut left);
        }
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.partitions]
    }
}

#[cfg(test)]
mod tests;
