//! Sink: the end of a sink's dataflow. Hands on each epoch's sum of changes, so that nobody outside ever sees a change that is taken back within the epoch.
//!
//! Changes of one key are adjacent, the retraction right before the insertion: a writer sees an update as a pair. Append-only input is handed on as it came.
//! The hash is order-free (a wrapping sum over rows of a mix of the row's hash and its weight), so that it tells whether replay gave the same changes, in whatever
//! order. The operator keeps nothing between epochs.

use crate::{Barrier, Operator, Out};
use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use tidemark_changelog::hash::hash_i64;
use tidemark_changelog::key::encode_columns;
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::{Epoch, Result};
use tidemark_state::consolidate::consolidate;

/// Takes an epoch's changes and their hash, at its barrier; not called for an epoch without changes.
pub type SinkOutput = Box<dyn FnMut(Epoch, Vec<ChangeBatch>, u64) + Send>;

/// The operator.
pub struct Sink {
    schema: SchemaRef,
    key: Vec<usize>,
    append_only: bool,
    epoch: Vec<ChangeBatch>,
    output: SinkOutput,
}

impl Sink {
    /// `key`: the columns that make two changes of one thing; all columns if none.
    pub fn new(schema: SchemaRef, key: Vec<usize>, append_only: bool, output: SinkOutput) -> Sink {
        Sink { schema, key, append_only, epoch: Vec::new(), output }
    }

    fn ordered(&self, changes: ChangeBatch) -> ChangeBatch {
        if changes.weights().is_none() {
            return changes;
        }
        let key: Vec<usize> = if self.key.is_empty() { (0..self.schema.fields().len()).collect() } else { self.key.clone() };
        let columns: Vec<_> = key.iter().map(|k| changes.column(*k).clone()).collect();
        let mut keys = vec![Vec::new(); changes.num_rows()];
        encode_columns(&columns, &mut keys);
        let mut order: Vec<u32> = (0..changes.num_rows() as u32).collect();
        order.sort_by(|a, b| (&keys[*a as usize], changes.weight(*a as usize)).cmp(&(&keys[*b as usize], changes.weight(*b as usize))));
        changes.take(&UInt32Array::from(order))
    }
}

fn hash_of(changes: &ChangeBatch) -> u64 {
    let hashes = hash_columns(changes.rows().columns(), changes.num_rows());
    hashes.iter().enumerate().fold(0u64, |sum, (i, h)| sum.wrapping_add(hash_i64(*h as i64).wrapping_mul(changes.weight(i) as u64)))
}

impl Operator for Sink {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.epoch.push(batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, _out: &mut dyn Out) -> Result<()> {
        if self.epoch.is_empty() {
            return Ok(());
        }
        let taken = std::mem::take(&mut self.epoch);
        let changes = if self.append_only { taken } else { vec![self.ordered(consolidate(&self.schema, &taken))] };
        let changes: Vec<ChangeBatch> = changes.into_iter().filter(|c| !c.is_empty()).collect();
        if !changes.is_empty() {
            let hash = changes.iter().fold(0u64, |sum, c| sum.wrapping_add(hash_of(c)));
            (self.output)(barrier.epoch, changes, hash);
        }
        Ok(())
    }
}
