//! Sink: an epoch's changes, consolidated and in delivery order, handed to the sink's queue.
//!
//! Algebra: the sum of what is handed over is the sum of the input; no row is both retracted and
//! inserted within an epoch. Of one key the retraction comes right before the insertion. State:
//! none across barriers (what is undelivered is kept by the queue).
//!
//! The hash over all changes is free of order and of batch boundaries: `sum over rows of weight *
//! mix(hash(row))` in 64-bit wrapping arithmetic, so rows that cancel do not count. Replaying a cut
//! must give the same hash.

use crate::{Barrier, Operator, Out};
use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::{Epoch, Result};
use tidemark_state::{Apart, KeyIndex, Parts, consolidate};

/// Receives, at a barrier, the epoch, its changes in delivery order and the hash over them; not
/// called for an epoch without changes.
pub type SinkOutput = Box<dyn FnMut(Epoch, Vec<ChangeBatch>, u64) + Send>;

/// Rows of one batch handed over; a batch goes on until its last key ends.
const BATCH_ROWS: usize = 4096;

/// `Op::Sink`.
pub struct Sink {
    schema: SchemaRef,
    key: Vec<usize>,
    append_only: bool,
    output: SinkOutput,
    epoch: Vec<ChangeBatch>,
}

impl Sink {
    /// `key`: the columns that identify a row to the receiver, by position; none if changes need no
    /// order among each other.
    pub fn new(schema: SchemaRef, key: Vec<usize>, append_only: bool, output: SinkOutput) -> Sink {
        Sink {
            schema,
            key,
            append_only,
            output,
            epoch: Vec::new(),
        }
    }
}

impl Operator for Sink {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.epoch.push(batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let batches = std::mem::take(&mut self.epoch);
        // A resumed sink is told the difference to what it had been told: retractions in that
        // cancel, if nothing ever leaves.
        let inserts = batches.iter().all(|batch| batch.weights().is_none());
        let changes = if batches.is_empty() || self.append_only && inserts {
            batches
        } else {
            self.consolidated(batches, &mut || out.look_up())
        };
        if changes.is_empty() {
            return Ok(());
        }
        let mut hash = 0u64;
        for batch in &changes {
            hash = hash.wrapping_add(hash_of(batch));
            out.look_up();
        }
        (self.output)(barrier.epoch, changes, hash);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.epoch.iter().map(ChangeBatch::bytes).sum()
    }
}

impl Sink {
    /// The changes of an epoch in delivery order; where they are many, that of parts which have no
    /// key in common, one after the other.
    fn consolidated(&self, batches: Vec<ChangeBatch>, rest: &mut dyn FnMut()) -> Vec<ChangeBatch> {
        let parts = Parts::of(batches.iter().map(ChangeBatch::num_rows).sum());
        let apart = Apart::new(batches, &self.key, parts, rest);
        let mut changes = Vec::new();
        for part in 0..apart.count() {
            let part = consolidate(&self.schema, &apart.part(part));
            changes.extend(in_order(part, &self.key));
            rest();
        }
        changes
    }
}

/// The order-free hash over the rows of a batch.
fn hash_of(batch: &ChangeBatch) -> u64 {
    let hashes = hash_columns(batch.rows().columns(), batch.num_rows());
    hashes.iter().enumerate().fold(0, |sum, (row, h)| {
        sum.wrapping_add(mix(*h).wrapping_mul(batch.weight(row) as u64))
    })
}

/// The finaliser of splitmix64: sums of hashes must not cancel for rows that are alike.
fn mix(mut h: u64) -> u64 {
    h = (h ^ h >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ h >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^ h >> 31
}

/// Consolidated changes by order of their key's first appearance, retractions first within a key,
/// cut into batches between keys.
fn in_order(changes: ChangeBatch, key: &[usize]) -> Vec<ChangeBatch> {
    let rows = changes.num_rows();
    if rows == 0 {
        return Vec::new();
    }
    let mut order: Vec<u32> = (0..rows as u32).collect();
    let mut ids: Vec<u32> = order.clone();
    if !key.is_empty() && changes.weights().is_some() {
        let keys: Vec<ArrayRef> = key.iter().map(|k| changes.column(*k).clone()).collect();
        let types: Vec<DataType> = keys.iter().map(|k| k.data_type().clone()).collect();
        KeyIndex::new(&types).intern(&keys, &hash_columns(&keys, rows), &mut ids);
        order.sort_unstable_by_key(|row| {
            (ids[*row as usize], changes.weight(*row as usize) > 0, *row)
        });
    }
    let mut batches = Vec::with_capacity(rows / BATCH_ROWS + 1);
    let mut start = 0;
    while start < rows {
        let mut end = (start + BATCH_ROWS).min(rows);
        while end < rows && ids[order[end] as usize] == ids[order[end - 1] as usize] {
            end += 1;
        }
        batches.push(changes.take(&UInt32Array::from(order[start..end].to_vec())));
        start = end;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Recorder, barrier, changes, table};
    use std::sync::{Arc, Mutex};

    type Seen = Arc<Mutex<Vec<(Vec<ChangeBatch>, u64)>>>;

    fn sink(key: Vec<usize>, append_only: bool) -> (Sink, Seen) {
        let seen: Seen = Arc::default();
        let to = seen.clone();
        (
            Sink::new(
                changes("k i64, v i64", "").schema(),
                key,
                append_only,
                Box::new(move |_, batches, hash| to.lock().unwrap().push((batches, hash))),
            ),
            seen,
        )
    }

    #[test]
    fn an_update_is_a_retraction_followed_by_its_insertion() {
        let (mut sink, seen) = sink(vec![0], false);
        let mut out = Recorder::default();
        for batch in [
            "+1 1 10\n+1 2 20",
            "-1 1 10\n+1 1 11",
            "+1 3 30\n-1 3 30\n+1 1 5\n-1 2 19",
        ] {
            sink.on_changes(0, changes("k i64, v i64", batch), &mut out)
                .unwrap();
        }
        sink.on_barrier(&barrier(1), &mut out).unwrap();
        sink.on_barrier(&barrier(2), &mut out).unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 1, "nothing is handed over for nothing");
        assert_eq!(
            seen[0].0.iter().flat_map(table).collect::<Vec<_>>(),
            ["-1 2 19", "+1 2 20", "+1 1 11", "+1 1 5"]
        );
    }

    #[test]
    fn the_hash_knows_neither_order_nor_what_cancels() {
        let hash = |append_only: bool, batches: &[&str]| {
            let (mut sink, seen) = sink(vec![0], append_only);
            let mut out = Recorder::default();
            batches.iter().for_each(|b| {
                sink.on_changes(0, changes("k i64, v i64", b), &mut out)
                    .unwrap()
            });
            sink.on_barrier(&barrier(1), &mut out).unwrap();
            let hash = seen.lock().unwrap()[0].1;
            hash
        };
        let one = hash(true, &["+1 1 10\n+1 2 20"]);
        assert_eq!(one, hash(true, &["+1 2 20", "+1 1 10"]));
        assert_eq!(one, hash(false, &["+1 2 20\n+1 3 1", "+1 1 10\n-1 3 1"]));
        assert_ne!(one, hash(true, &["+1 1 20\n+1 2 10"]));
    }
}
