//! Window functions: the input's columns, and for each row what functions make of the rows around
//! it in its partition.
//!
//! **Cost.** How far a change reaches follows from the frames: `lag(x)` of the row behind, a sum
//! over three rows before of the next three, a running sum of all that come after, `percent_rank`
//! of the whole partition. What is reached is computed anew, as it was and as it is, from the rows
//! that it reads; only rows whose results differ are sent.

use super::calls::{Calls, Reach};
use super::difference::Difference;
use super::partitions::{Partitions, Pending};
use crate::closing::Closing;
use crate::{Barrier, Operator, Out};
use arrow::datatypes::SchemaRef;
use std::ops::Range;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::{SortKey, WindowCall};
use tidemark_state::StateTable;

/// Rows of partitions that are computed together, about.
const ROWS: usize = 64 * 1024;

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

    /// Partitions below this watermark of a column of theirs never change again.
    pub fn closes(mut self, closing: Option<Closing>) -> Window {
        self.partitions = self.partitions.closes(closing);
        self
    }

    /// Adds the rows of a partition that changes reach, as they were and as they are.
    fn reach(&self, changes: &[Pending], reached: &mut Reached) {
        let (first, last) = (changes[0], changes[changes.len() - 1]);
        let list = self.partitions.list(first.partition);
        let place = |change: Pending| self.partitions.place(change.partition, change.row);
        let is_peer = |row: &u32, of: Pending| {
            self.reach.peers && self.partitions.compare_keys(*row, of.row).is_eq()
        };
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
        reached.old_ends.push(reached.old.len());
        reached.new_ends.push(reached.new.len());
    }

    /// Sends what differs.
    fn send(&self, reached: &Reached, out: &mut dyn Out) -> Result<()> {
        let evaluate =
            |rows: &[u32], ends: &[usize]| self.calls.evaluate(&self.partitions, rows, ends);
        let olds = evaluate(&reached.old, &reached.old_ends)?;
        let news = evaluate(&reached.new, &reached.new_ends)?;
        let mut difference = Difference::new(olds, news);
        for entry in &reached.entries {
            let (old, new) = (entry.old.clone(), entry.new.clone());
            let pairs = old.clone().zip(new.clone());
            let same: Vec<bool> = pairs.map(|(o, n)| difference.is_same(o, n)).collect();
            let differs = |i: usize| !same.get(i).is_some_and(|same| *same);
            for (_, at) in old.enumerate().filter(|(i, _)| differs(*i)) {
                difference.was(entry.row, at);
            }
            for (_, at) in new.enumerate().filter(|(i, _)| differs(*i)) {
                difference.is(entry.row, at);
            }
        }
        let all: Vec<usize> = (0..self.width).collect();
        difference.send(&self.partitions, &all, &self.output, out)
    }
}

/// Rows that changes reach, partition by partition, in their order.
#[derive(Default)]
struct Reached {
    /// As they were.
    old: Vec<u32>,
    /// Where those of each partition end.
    old_ends: Vec<usize>,
    /// As they are.
    new: Vec<u32>,
    /// Where those of each partition end.
    new_ends: Vec<usize>,
    /// Those whose results may differ.
    entries: Vec<Entry>,
}

/// The copies of one row.
struct Entry {
    row: u32,
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
            row,
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

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.partitions.take_pending();
        let (mut reached, mut left) = (Reached::default(), Vec::new());
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            if changes.iter().any(|c| c.weight != 0) {
                self.reach(changes, &mut reached);
            }
            self.partitions.apply(changes, &mut left);
            if reached.old.len() + reached.new.len() >= ROWS {
                self.send(&std::mem::take(&mut reached), out)?;
                self.partitions.free(&mut left);
            }
        }
        self.send(&reached, out)?;
        self.partitions.free(&mut left);
        self.partitions.forget_closed(barrier)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.partitions]
    }
}

#[cfg(test)]
mod tests;
