//! The algebra: one operator per file, and the evaluation of scalar expressions. Operators are
//! single-threaded, synchronous and know nothing of workers, queues or alignment: the actor in
//! `worker` drives them.
//!
//! Contract of an [`Operator`]: (1) integral: after the barrier of epoch e the sum of all its
//! output equals its query over the sum of all its input;
//! (2) the barrier is a cut: what belongs to e is sent before `on_barrier` returns; (3) whatever
//!     matters is in its state tables, every other field is a cache;
//! (4) determined: the same input batches (in any interleaving of ports) give the same sum of
//!     output.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod materialize;
pub mod upsert;

pub mod aggregate;
pub mod build;
pub mod changelog;
pub mod closing;
pub mod expand;
pub mod expr;
pub mod filter;
pub mod functions;
pub mod join;
#[cfg(test)]
mod measure;
pub mod ordered;
pub mod pieces;
pub mod project;
pub mod recursive;
pub mod report;
pub mod sink;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod two_sided;
pub mod union;
pub mod unnest;
pub mod values;

use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Result, Watermarks};
use tidemark_state::{StateTable, ViewPartition};

/// The barrier that closes an epoch.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// The epoch that it closes.
    pub epoch: Epoch,
    /// The clock of the closing epoch, in microseconds since 1970: the only source of processing
    /// time.
    pub clock: i64,
    /// Whether state is sealed at this barrier.
    pub checkpoint: bool,
    /// In the job of a source: no record that is read after this barrier makes the time of its
    /// split (milliseconds since 1970) lower than this; -1 where that is not known.
    pub horizon_ms: i64,
    /// The promises of the sources that have made one.
    pub watermarks: Watermarks,
}

/// A row that an expression could not be evaluated for.
#[derive(Clone, Debug)]
pub struct RowError {
    /// The message, in lower case.
    pub message: String,
    /// SQLSTATE of the failure, such as `22012`.
    pub state: &'static str,
    /// The row's values, as text, cut at 1 KiB.
    pub row: String,
    /// The row's weight: a negative one takes the error back.
    pub weight: i64,
}

/// Where an operator's output goes. In each of its calls the operator may be left alone for a
/// while, in the middle of its work, or for good: it holds no lock meanwhile that others take.
pub trait Out {
    /// Hands a batch on. Never empty; at most a few thousand rows (operators cut large results and
    /// hand them on piece by piece).
    fn send(&mut self, batch: ChangeBatch) -> Result<()>;
    /// Reports a failing row. An error return stops the job (`on_error = 'fail'`).
    fn row_error(&mut self, error: RowError) -> Result<()>;
    /// The operator looks up from work that sends nothing, every few thousand rows: whoever drives
    /// it may give others their turns first.
    fn look_up(&mut self) {}
}

/// One step of a dataflow.
pub trait Operator: Send {
    /// A batch arrived at input `port`.
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()>;
    /// All input of the closing epoch has arrived at all ports.
    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let _ = (barrier, out);
        Ok(())
    }
    /// The barrier of this epoch has passed, and what the relations that it reads hold as of it can
    /// be looked up until the next one has: told of all epochs that wait for the job, and of the
    /// one that it was restored as of.
    fn passed(&mut self, epoch: Epoch) {
        let _ = epoch;
    }
    /// Its state tables, to be sealed and restored.
    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        Vec::new()
    }
    /// The table whose rows it keeps has more columns: all of this schema. What readers see of it
    /// from now on; none of an operator that keeps no table's rows.
    fn widen(&mut self, schema: &SchemaRef) -> Option<Arc<ViewPartition>> {
        let _ = schema;
        None
    }
    /// Bytes that it holds beside them, if they grow with its input.
    fn memory_bytes(&self) -> usize {
        0
    }
}
