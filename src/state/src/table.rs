//! The seam between an operator's state and checkpoints.
//!
//! Contract: (1) after `restore` of everything that was ever sealed (merged newest-first, for the vnodes of this worker), the state is what it was at
//! the last seal; (2) `seal` returns each key that changed since the last seal once, with its value now or as a delete; (3) `seal` is cheap in proportion to what
//! changed, and returns `None` when nothing did.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

/// The durable shape of a state table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// Number within the job's plan.
    pub table: u32,
    /// Key columns, then value columns.
    pub schema: SchemaRef,
    /// The first `key_columns` columns identify a row together with its vnode.
    pub key_columns: usize,
}

/// What changed in a table since its last seal. Not sorted; a key is in `upserts` or in `deletes`, once.
#[derive(Clone, Debug)]
pub struct TableDelta {
    /// Rows now present, with the table's schema.
    pub upserts: RecordBatch,
    /// vnode of each upserted row.
    pub upsert_vnodes: Vec<u16>,
    /// Keys now absent: the table's key columns only.
    pub deletes: RecordBatch,
    /// vnode of each deleted key.
    pub delete_vnodes: Vec<u16>,
}

/// A keyed relation private to one operator, partitioned by vnode.
pub trait StateTable: Send {
    /// Its durable shape; constant.
    fn spec(&self) -> TableSpec;
    /// Takes out what changed since the last seal.
    fn seal(&mut self) -> Option<TableDelta>;
    /// Adds rows of a checkpoint, with the table's schema; called before anything else, any number of times. They do not count as changes.
    fn restore(&mut self, rows: &RecordBatch);
    /// Bytes of memory held.
    fn memory_bytes(&self) -> usize;
}
