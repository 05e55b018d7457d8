//! The seam under all decisions: one ordered, durable log, which the members of a group keep
//! together ([`crate::raft`]).

use crate::Entry;
use tidemark_common::Result;

/// An ordered log of decisions.
///
/// Contract: (1) when `append` returns, the entries survive any crash; (2) after a crash a reader
/// gets exactly a prefix of what was appended that contains everything that `append` returned for;
/// (3) indexes grow, and of what was returned for none is used twice; (4) entries that are appended
/// together have one index, and are there all or none; (5) an entry that is refused (`54000`,
/// `54001`) was not logged, nor those that were appended with it, and the log goes on: see
/// [`Entry::check`].
pub trait DecisionLog: Send {
    /// Rows that the writes of one entry may have together, in bytes; more can be written by
    /// several transactions.
    fn rows_bytes_max(&self) -> usize {
        crate::entry::WRITE_BYTES_MAX
    }
    /// Whether an entry may name files of rows, which only this node has.
    fn takes_files(&self) -> bool {
        true
    }
    /// Appends entries that count each by itself, in one go: their indexes are consecutive. Returns
    /// the last one when all are durable.
    fn append_each(&mut self, entries: &[Entry]) -> Result<u64>;
    /// Appends entries together; returns their index when they are durable.
    fn append(&mut self, entries: &[Entry]) -> Result<u64>;
    /// All that a lost log had, and all up to `index`, is in a checkpoint or gone: the log begins
    /// anew behind it, with an index that was never used.
    fn begin_behind(&mut self, index: u64) -> Result<()>;
    /// The log has an entry of an opening that went on behind an accepted loss: that need not be
    /// known any more.
    fn loss_is_told(&mut self) -> Result<()>;
    /// The entries after `index` that it still has. Not cheap: they are read back.
    fn read_after(&self, index: u64) -> Result<Vec<(u64, Entry)>>;
    /// Entries up to and including `index` are not needed any more.
    fn truncate(&mut self, index: u64) -> Result<()>;
}
