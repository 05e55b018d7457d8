//! Keeps a relation's rows for reads and later jobs, and passes its input on.
//!
//! Algebra: the identity. State: the rows themselves, in a [`ViewPartition`] that readers share. A
//! batch is passed on at once; at the barrier the epoch's batches are consolidated into the view,
//! part by part where they are many.
//! Merging them into the view's base is the engine's business, because it knows which epochs are
//! being read.
//!
//! Input that can retract must be partitioned by the hash of the view's key, in the order of the
//! key's columns, or of all columns without key: a restored row must meet its retraction.
//! Append-only input without key stays on the worker that made it.
//!
//! Rows of a table that are older than some of its columns get them here
//! ([`tidemark_state::added`]).

use crate::values::nullable;
use crate::{Barrier, Operator, Out};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_state::added::widened;
use tidemark_state::{StateTable, ViewOptions, ViewPartition, ViewTable};

/// `Op::Materialize`.
#[derive(Debug)]
pub struct Materialize {
    table: ViewTable,
    epoch: Vec<ChangeBatch>,
}

impl Materialize {
    /// `name` is the relation's, for messages; `vnode_of_worker` the first vnode of this worker's
    /// range.
    pub fn new(
        name: impl Into<String>,
        schema: SchemaRef,
        key: Option<Vec<usize>>,
        append_only: bool,
        table: u32,
        vnode_of_worker: u16,
    ) -> Materialize {
        let partitioned_by_key = key.is_some() || !append_only;
        let options = ViewOptions {
            name: name.into(),
            schema,
            key,
            append_only,
            table,
            vnode_of_worker,
            partitioned_by_key,
        };
        Materialize {
            table: ViewTable::new(Arc::new(ViewPartition::new(options))),
            epoch: Vec::new(),
        }
    }

    /// The rows, for readers.
    pub fn view(&self) -> Arc<ViewPartition> {
        self.table.view().clone()
    }
}

impl Operator for Materialize {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let batch = widened(batch, self.table.view().schema());
        self.epoch.push(batch.clone());
        out.send(batch)
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let changes = std::mem::take(&mut self.epoch);
        let (view, rest) = (self.table.view(), &mut || out.look_up());
        view.append_in_parts(barrier.epoch, changes, rest);
        Ok(())
    }

    fn widen(&mut self, schema: &SchemaRef) -> Option<Arc<ViewPartition>> {
        let schema = nullable(schema);
        for batch in &mut self.epoch {
            *batch = widened(batch.clone(), &schema);
        }
        let view = Arc::new(self.table.view().widened(&schema));
        self.table = ViewTable::new(view.clone());
        Some(view)
    }

    fn memory_bytes(&self) -> usize {
        self.epoch.iter().map(ChangeBatch::bytes).sum()
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.table]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowError;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use tidemark_common::Epoch;

    #[derive(Default)]
    struct Collected(Vec<ChangeBatch>);

    impl Out for Collected {
        fn send(&mut self, batch: ChangeBatch) -> Result<()> {
            self.0.push(batch);
            Ok(())
        }
        fn row_error(&mut self, error: RowError) -> Result<()> {
            panic!("{error:?}");
        }
    }

    #[test]
    fn rows_pass_at_once_and_can_be_read_after_the_barrier() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let batch = |keys: Vec<i64>, weights| {
            ChangeBatch::new(
                RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(keys))])
                    .unwrap(),
                weights,
            )
        };
        let mut operator = Materialize::new("r", schema.clone(), Some(vec![0]), false, 0, 0);
        let mut out = Collected::default();
        operator
            .on_changes(0, batch(vec![1, 2, 2, 3], vec![1, 1, -1, 1]), &mut out)
            .unwrap();
        assert_eq!(out.0.iter().map(ChangeBatch::num_rows).sum::<usize>(), 4);
        let view = operator.view();
        assert_eq!(view.row_count(Epoch(1), Epoch(0)).unwrap(), 0);
        operator
            .on_barrier(
                &Barrier {
                    epoch: Epoch(1),
                    clock: 0,
                    checkpoint: true,
                    horizon_ms: -1,
                    watermarks: Default::default(),
                },
                &mut out,
            )
            .unwrap();
        assert_eq!(
            (
                view.row_count(Epoch(1), Epoch(0)).unwrap(),
                view.row_count(Epoch(1), Epoch(1)).unwrap()
            ),
            (2, 2)
        );
        let delta = operator.tables()[0].seal().unwrap();
        let mut restored = Materialize::new("r", schema.clone(), Some(vec![0]), false, 0, 0);
        restored.tables()[0].restore(&delta.upserts);
        assert_eq!(restored.view().row_count(Epoch(1), Epoch(1)).unwrap(), 2);
        assert!(restored.tables()[0].seal().is_none());
    }
}
