//! The first rows of each partition: `ORDER BY .. LIMIT`, `DISTINCT ON`, and numbers of rows that
//! are compared with a constant (`ROW_NUMBER() .. <= 10`).
//!
//! **State.** All rows of a partition, since any may come to the front when others go. Of an input
//! that only grows, those in front: what is behind them never matters again, and most of what comes
//! is found to be so by one comparison of its sort keys.
//!
//! **Cost.** A row is put into its partition's order (a binary search), and at the barrier the
//! front of each partition is walked in which something has changed before its end.

use super::difference::SENT_ROWS;
use super::partitions::{Partitions, Pending, record_batch};
use crate::closing::Closing;
use crate::{Barrier, Operator, Out};
use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::{Ranking, SortKey};
use tidemark_state::{Place, StateTable};

/// What of each partition is wanted.
pub struct TopNConfig<'a> {
    /// The input's columns.
    pub input: SchemaRef,
    /// The same and, with `numbered`, one for the numbers.
    pub output: SchemaRef,
    /// Columns of the partition.
    pub partition: &'a [usize],
    /// What the rows of each are ordered by.
    pub order: &'a [SortKey],
    /// How those are numbered that are equal by it.
    pub ranking: Ranking,
    /// Numbers from 1 to this are left out.
    pub skip: u64,
    /// How many numbers are wanted; all, if it is none.
    pub take: Option<u64>,
    /// The numbers are a column of the output.
    pub numbered: bool,
    /// The input never retracts.
    pub append_only: bool,
    /// Number of the state table.
    pub table: u32,
    /// Partitions below this watermark never change again.
    pub closes: Option<Closing>,
}

/// `Op::TopN`.
pub struct TopN {
    partitions: Partitions,
    wanted: Wanted,
    /// Of an input that only grows, all rows that matter: those in front.
    bound: Option<usize>,
    numbered: bool,
    output: SchemaRef,
}

/// Which numbers are wanted.
#[derive(Clone, Copy)]
struct Wanted {
    ranking: Ranking,
    skip: u64,
    end: u64,
}

impl TopN {
    /// Without rows.
    pub fn new(config: TopNConfig) -> TopN {
        let end = config
            .take
            .map_or(u64::MAX, |n| config.skip.saturating_add(n));
        // How many rows have the first so many dense ranks is not known.
        let bounded = config.append_only && config.ranking != Ranking::DenseRank;
        let bound = usize::try_from(end)
            .ok()
            .filter(|_| bounded && end < u64::MAX);
        TopN {
            partitions: Partitions::new(
                &config.input,
                config.partition,
                config.order,
                bound,
                config.table,
            )
            .closes(config.closes),
            wanted: Wanted {
                ranking: config.ranking,
                skip: config.skip,
                end,
            },
            bound,
            numbered: config.numbered,
            output: config.output,
        }
    }

    /// Takes out what is behind all that matters.
    fn trim(&mut self, partition: u32, bound: usize, left: &mut Vec<u32>) {
        let list = self.partitions.list(partition);
        if !list.is_longer_than(bound) {
            return;
        }
        let last = bound.checked_sub(1).and_then(|at| list.get(at));
        loop {
            let list = self.partitions.list(partition);
            let behind = match (self.wanted.ranking, last, list.last()) {
                (_, _, None) => false,
                (Ranking::Rank, Some(last), Some(row)) => {
                    self.partitions.compare_keys(row, last).is_gt()
                }
                _ => list.is_longer_than(bound),
            };
            if !behind {
                return;
            }
            self.partitions.pop(partition, left);
        }
    }
}

impl Operator for TopN {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.partitions.take_pending();
        let (mut left, mut found) = (Vec::new(), Found::default());
        let mut seen = 0;
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            seen += changes.len();
            if seen >= SENT_ROWS {
                seen = 0;
                out.look_up();
            }
            self.wanted
                .walk(&self.partitions, changes, &mut |row, number, weight| {
                    found.push(row, number, weight, self.numbered)
                });
            self.partitions.apply(changes, &mut left);
            if let Some(bound) = self.bound {
                self.trim(changes[0].partition, bound, &mut left);
            }
            if found.rows.len() >= SENT_ROWS {
                found.send(&self.partitions, &self.output, self.numbered, out)?;
            }
        }
        found.send(&self.partitions, &self.output, self.numbered, out)?;
        self.partitions.free(&mut left);
        self.partitions.forget_closed(barrier)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.partitions]
    }
}

/// `Op::PartialTopN`.
pub struct PartialTopN {
    top: TopN,
}

impl PartialTopN {
    /// Without rows; `take` of each partition may matter.
    pub fn new(input: &SchemaRef, partition: &[usize], order: &[SortKey], take: u64) -> Self {
        let config = TopNConfig {
            input: input.clone(),
            output: input.clone(),
            partition,
            order,
            ranking: Ranking::RowNumber,
            skip: 0,
            take: Some(take),
            numbered: false,
            append_only: true,
            table: 0,
            closes: None,
        };
        PartialTopN {
            top: TopN::new(config),
        }
    }
}

/// Passes on what is new among the first rows that it remembers, and takes nothing back: what is
/// not among them any more is so downstream, too.
struct OnlyNew<'a>(&'a mut dyn Out);

impl Out for OnlyNew<'_> {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        let new = (0..batch.num_rows()).map(|row| Some(batch.weight(row) > 0));
        let new = batch.filter(&new.collect());
        if new.is_empty() {
            return Ok(());
        }
        self.0.send(new)
    }
    fn row_error(&mut self, error: crate::RowError) -> Result<()> {
        self.0.row_error(error)
    }
    fn look_up(&mut self) {
        self.0.look_up()
    }
}

impl Operator for PartialTopN {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        self.top.on_changes(port, batch, out)
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        self.top.on_barrier(barrier, &mut OnlyNew(out))?;
        self.top.partitions.forget_changes();
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.top.partitions.memory_bytes()
    }
}

/// Rows that are to be sent.
#[derive(Default)]
struct Found {
    rows: Vec<u32>,
    numbers: Vec<i64>,
    weights: Vec<i64>,
}

impl Found {
    fn push(&mut self, row: u32, number: u64, weight: i64, numbered: bool) {
        // Without numbers, copies of one row are one.
        let number = if numbered { number as i64 } else { 0 };
        let last = self.rows.last().zip(self.numbers.last());
        if last == Some((&row, &number))
            && let Some(sum) = self.weights.last_mut()
        {
            *sum += weight;
            if *sum == 0 {
                self.rows.pop();
                self.weights.pop();
                self.numbers.pop();
            }
            return;
        }
        self.rows.push(row);
        self.numbers.push(number);
        self.weights.push(weight);
    }

    fn send(
        &mut self,
        partitions: &Partitions,
        output: &SchemaRef,
        numbered: bool,
        out: &mut dyn Out,
    ) -> Result<()> {
        let Found {
            rows,
            numbers,
            weights,
        } = std::mem::take(self);
        let width = output.fields().len() - usize::from(numbered);
        let all: Vec<usize> = (0..width).collect();
        for start in (0..rows.len()).step_by(SENT_ROWS) {
            let range = start..rows.len().min(start + SENT_ROWS);
            let mut columns = partitions.gather(&all, &rows[range.clone()]);
            if numbered {
                let numbers = numbers[range.clone()].to_vec();
                columns.push(Arc::new(Int64Array::from(numbers)));
            }
            let batch = record_batch(output, columns, range.len());
            out.send(ChangeBatch::new(batch, weights[range].to_vec()))?;
        }
        Ok(())
    }
}

/// The numbers of rows that are walked one after the other.
#[derive(Clone, Copy, Default, PartialEq)]
struct Numbers {
    /// Rows before.
    rows: u64,
    /// Rows before the peers of this one.
    before_peers: u64,
    /// Groups of peers before.
    groups: u64,
}

impl Numbers {
    /// The next row has other peers than the last one.
    fn next_peers(&mut self) {
        self.groups += u64::from(self.rows > self.before_peers);
        self.before_peers = self.rows;
    }

    /// The number of the next row.
    fn next(&self, ranking: Ranking) -> u64 {
        1 + match ranking {
            Ranking::RowNumber => self.rows,
            Ranking::Rank => self.before_peers,
            Ranking::DenseRank => self.groups,
        }
    }
}

impl Wanted {
    /// Tells of the rows that are, with these changes, wanted under other numbers than before: with
    /// +1 for each copy that is, and -1 for each that was.
    fn walk(
        &self,
        partitions: &Partitions,
        changes: &[Pending],
        tell: &mut dyn FnMut(u32, u64, i64),
    ) {
        let partition = changes[0].partition;
        let list = partitions.list(partition);
        let first = partitions.place(partition, changes[0].row);
        if self.ranking == Ranking::RowNumber && list.position(first) as u64 >= self.end {
            return;
        }
        let (mut old, mut new) = (Numbers::default(), Numbers::default());
        let (mut changes, mut last) = (changes.iter().peekable(), None);
        for row in list.iter_from(Place::FIRST) {
            let peers = self.ranking != Ranking::RowNumber
                && last.is_some_and(|last| partitions.compare_keys(last, row).is_eq());
            last = Some(row);
            if !peers {
                old.next_peers();
                new.next_peers();
            }
            let beyond = |n: &Numbers| n.next(self.ranking) > self.end;
            if beyond(&old) && beyond(&new) || old == new && changes.peek().is_none() {
                return;
            }
            let was = partitions.weight(row);
            let change = changes.next_if(|c| c.row == row).map_or(0, |c| c.weight);
            self.tell(row, &mut old, was, -1, tell);
            self.tell(row, &mut new, was + change, 1, tell);
        }
    }

    /// Tells of the copies of a row that are wanted, and counts them all.
    fn tell(
        &self,
        row: u32,
        numbers: &mut Numbers,
        copies: i64,
        weight: i64,
        tell: &mut dyn FnMut(u32, u64, i64),
    ) {
        let copies = u64::try_from(copies).unwrap_or(0);
        let is_wanted = |number: u64| number > self.skip && number <= self.end;
        match self.ranking {
            Ranking::RowNumber => {
                let all = numbers.rows + 1..numbers.rows + 1 + copies;
                let wanted = all.start.max(self.skip + 1)..all.end.min(self.end.saturating_add(1));
                wanted.for_each(|number| tell(row, number, weight));
            }
            ranking if copies > 0 && is_wanted(numbers.next(ranking)) => {
                tell(row, numbers.next(ranking), weight * copies as i64)
            }
            _ => {}
        }
        numbers.rows += copies;
    }
}

#[cfg(test)]
mod tests;
