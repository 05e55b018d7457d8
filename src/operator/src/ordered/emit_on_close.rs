//! `EMIT ON WINDOW CLOSE`: rows wait until a watermark has passed them.
//!
//! **Algebra.** Of the input's rows those below the watermark: since no change of one comes any
//! more, each is sent once, as it is then, and the output only grows.
//!
//! **State.** The rows above the watermark.
//!
//! **Cost.** Per touched partition and barrier one search among those that wait.

use super::waiting::{Sent, Waiting};
use crate::closing::Closing;
use crate::{Barrier, Operator, Out};
use arrow::datatypes::SchemaRef;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_state::StateTable;

/// `Op::EmitOnClose`.
pub struct EmitOnClose {
    waiting: Waiting,
    closing: Closing,
}

impl EmitOnClose {
    /// Without rows. `keys`: the columns by whose hash rows are here; that of `closing` is one of
    /// them. The state table is number `table`.
    pub fn new(input: &SchemaRef, keys: &[usize], closing: Closing, table: u32) -> EmitOnClose {
        EmitOnClose {
            waiting: Waiting::new(input, keys, closing.column(), table),
            closing,
        }
    }
}

impl Operator for EmitOnClose {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.waiting.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let mut left = Vec::new();
        let pending = self.waiting.take_pending()?;
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            self.waiting.partitions.apply(changes, &mut left);
        }
        self.waiting.partitions.free(&mut left);
        let Some(watermark) = self.closing.watermark(barrier)? else {
            return Ok(());
        };
        let mut closed = Sent::default();
        for partition in self.waiting.take_before(watermark)? {
            let partitions = &mut self.waiting.partitions;
            for row in partitions.list(partition).iter() {
                for _ in 0..partitions.weight(row) {
                    closed.push(row, 1);
                }
            }
            partitions.empty(partition, &mut left);
            if closed.is_large() {
                self.waiting.send(&mut closed, out)?;
                self.waiting.partitions.free(&mut left);
            }
        }
        self.waiting.send(&mut closed, out)?;
        self.waiting.partitions.free(&mut left);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.waiting.partitions]
    }
}
