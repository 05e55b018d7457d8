//! The seam under all decisions: one ordered, durable log. On one node it is the synced
//! [`crate::WriteAheadLog`]; in a cluster raft-rs replicates the same entries.

use crate::Entry;
use tidemark_common::Result;

/// An ordered log of decisions.
///
/// Contract: (1) when `append` returns, the entries survive any crash; (2) after a crash a reader
/// gets exactly a prefix of what was appended that contains everything that `append` returned for;
/// (3) indexes are consecutive, and never used twice.
pub trait DecisionLog: Send {
    /// Appends entries together; returns the index of the last one when they are durable.
    fn append(&mut self, entries: &[Entry]) -> Result<u64>;
    /// A log without entries, which was lost, goes on with this index: those before were used.
    fn begin_at(&mut self, index: u64) -> Result<()>;
    /// Entries up to and including `index` are not needed any more.
    fn truncate(&mut self, index: u64) -> Result<()>;
}
