//! What is kept: the in-memory kernels that operators build their state from, and the durable side
//! (Parquet checkpoints, manifests, restore, compaction, garbage collection, backups).
//!
//! In memory, state is columnar. [`KeyIndex`] maps key columns to dense ids, a batch at a time;
//! [`RowStore`] keeps rows column by column under dense ids; an operator keeps its own typed
//! vectors beside them, indexed by those ids. [`ViewPartition`] is one worker's share of a relation
//! that people read.
//!
//! On disk, a state table is a sequence of Parquet files sorted by (vnode, key): upserts and
//! deletes of one checkpoint interval each. Reading them newest-first gives the table.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod added;
pub mod apart;
pub mod backup;
pub mod bytes;
pub mod checkpoint;
pub mod chunked;
pub mod column;
pub mod comparable;
pub mod consolidate;
pub mod errors;
pub mod garbage;
pub mod halted;
pub mod key_index;
pub mod manifest;
pub mod ordered;
pub mod row_store;
pub mod table;
#[cfg(test)]
mod testing;
pub mod view;

pub use apart::{Apart, Parts};
pub use column::{SlotColumns, SortBy};
pub use consolidate::{consolidate, consolidate_fully};
pub use key_index::KeyIndex;
/// What an object store has to do, for those who bring one to a checkpoint store.
pub use object_store;
pub use ordered::{OrderedList, Place};
pub use row_store::RowStore;
pub use table::{Appended, StateTable, TableDelta, TableForm, TableSpec};
pub use view::{Neighbours, Reading, Unsettled, ViewOptions, ViewPartition, ViewTable};

/// The id that stands for "no row" or "no key".
pub const ABSENT: u32 = u32::MAX;
