//! Rows that wait for a moment, the value of one of their columns. All rows of a partition have the
//! same one, so that they go together; which partition is next is a cache.

use super::difference::SENT_ROWS;
use super::partitions::{Partitions, Pending, record_batch};
use crate::Out;
use crate::closing::moments;
use arrow::datatypes::SchemaRef;
use std::collections::BTreeSet;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;

/// Rows by their moments.
pub(super) struct Waiting {
    pub partitions: Partitions,
    /// The column of the input that has the moments; the input is partitioned by it, too.
    column: usize,
    /// Partitions by their moments. Some are gone since.
    next: BTreeSet<(i64, u32)>,
    schema: SchemaRef,
}

/// Changes of rows that are kept, to be sent.
#[derive(Default)]
pub(super) struct Sent {
    pub rows: Vec<u32>,
    pub weights: Vec<i64>,
}

impl Sent {
    pub fn push(&mut self, row: u32, weight: i64) {
        if weight != 0 {
            self.rows.push(row);
            self.weights.push(weight);
        }
    }

    pub fn is_large(&self) -> bool {
        self.rows.len() >= SENT_ROWS
    }
}

impl Waiting {
    /// No rows, of an input with these columns that is partitioned by `keys`; `column` is one of
    /// them. The state table is number `table`.
    pub fn new(input: &SchemaRef, keys: &[usize], column: usize, table: u32) -> Waiting {
        Waiting {
            partitions: Partitions::new(input, keys, &[], None, table),
            column,
            next: BTreeSet::new(),
            schema: input.clone(),
        }
    }

    /// What has changed since the last barrier, by partition.
    pub fn take_pending(&mut self) -> Result<Vec<Pending>> {
        if self.partitions.take_restored() {
            self.note(&self.partitions.all())?;
        }
        let pending = self.partitions.take_pending();
        let touched = pending.chunk_by(|a, b| a.partition == b.partition);
        let touched: Vec<u32> = touched.map(|changes| changes[0].partition).collect();
        self.note(&touched)?;
        Ok(pending)
    }

    /// These partitions wait for their moment; one without waits for ever.
    fn note(&mut self, partitions: &[u32]) -> Result<()> {
        for partitions in partitions.chunks(SENT_ROWS) {
            let values = self.partitions.partition_values(self.column, partitions)?;
            let waiting = partitions.iter().zip(moments(&values));
            let waiting = waiting.filter_map(|(partition, moment)| Some((moment?, *partition)));
            self.next.extend(waiting);
        }
        Ok(())
    }

    /// The partitions whose moment is before this one, earliest first. They wait no more.
    pub fn take_before(&mut self, moment: i64) -> Result<Vec<u32>> {
        let later = self.next.split_off(&(moment, 0));
        let due = std::mem::replace(&mut self.next, later);
        let ids: Vec<u32> = due.iter().map(|(_, partition)| *partition).collect();
        let values = self.partitions.partition_values(self.column, &ids)?;
        // One that has gone may have left its number to another.
        let is_meant = |(due, now): (&(i64, u32), Option<i64>)| now == Some(due.0);
        let meant = due.iter().zip(moments(&values)).map(is_meant);
        let ids = ids.into_iter().zip(meant).filter(|(_, meant)| *meant);
        Ok(ids.map(|(id, _)| id).collect())
    }

    /// Sends rows that are still kept.
    pub fn send(&self, sent: &mut Sent, out: &mut dyn Out) -> Result<()> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let Sent { rows, weights } = std::mem::take(sent);
        for (rows, weights) in rows.chunks(SENT_ROWS).zip(weights.chunks(SENT_ROWS)) {
            let columns = self.partitions.gather(&all, rows);
            let batch = record_batch(&self.schema, columns, rows.len());
            out.send(ChangeBatch::new(batch, weights.to_vec()))?;
        }
        Ok(())
    }
}
