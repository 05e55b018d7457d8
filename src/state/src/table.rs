//! The seam between an operator's state and checkpoints.
//!
//! Contract: (1) after `restore` of everything that was ever sealed (merged newest-first, for the
//! vnodes of this worker), the state is what it was at the last seal; (2) `seal` returns each key
//! that changed since the last seal once, with its value now or as a delete; (3) `seal` is cheap in
//! proportion to what changed, and returns `None` when nothing did; (4) rows that `seal_appended`
//! took out never change and stay readable.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

/// What a state table's rows are to each other. It decides how files are read, so it is told by
/// whoever owns the table and stands in each file; no name of a column says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableForm {
    /// One row per key; a later one takes the place of an earlier one.
    Keyed,
    /// Rows that are added and never change: their key is a number that is given once. No file
    /// contradicts another, so a restore need not remember keys.
    Appended,
    /// The key is the whole row, and the value is how often it is there.
    Multiset,
}

impl TableForm {
    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            TableForm::Keyed => "keyed",
            TableForm::Appended => "appended",
            TableForm::Multiset => "multiset",
        }
    }
}

/// The durable shape of a state table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// Number within the job's plan.
    pub table: u32,
    /// What its rows are to each other.
    pub form: TableForm,
    /// Key columns, then value columns.
    pub schema: SchemaRef,
    /// The first `key_columns` columns identify a row together with its vnode.
    pub key_columns: usize,
}

/// What changed in a table since its last seal. Not sorted; a key is in `upserts` or in `deletes`,
/// once.
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

impl TableDelta {
    /// Pieces of one seal together; `None` if there are none.
    pub fn concat(mut pieces: Vec<TableDelta>) -> Option<TableDelta> {
        if pieces.len() <= 1 {
            return pieces.pop();
        }
        let rows = |rows: fn(&TableDelta) -> &RecordBatch| {
            let schema = rows(&pieces[0]).schema();
            arrow::compute::concat_batches(&schema, pieces.iter().map(rows))
                .expect("pieces of one table share a schema")
        };
        Some(TableDelta {
            upserts: rows(|p| &p.upserts),
            upsert_vnodes: pieces
                .iter()
                .flat_map(|p| &p.upsert_vnodes)
                .copied()
                .collect(),
            deletes: rows(|p| &p.deletes),
            delete_vnodes: pieces
                .iter()
                .flat_map(|p| &p.delete_vnodes)
                .copied()
                .collect(),
        })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let rows = [&self.upserts, &self.deletes].map(RecordBatch::get_array_memory_size);
        let vnodes = [&self.upsert_vnodes, &self.delete_vnodes].map(|v| 2 * v.capacity());
        rows.into_iter().chain(vnodes).sum()
    }
}

/// Rows of a piece of a seal, about; few in this crate's own tests.
pub const PIECE_ROWS: usize = if cfg!(test) { 4 } else { 4096 };

/// Rows that were appended to a table since its last seal and will never change: only who they are.
/// What they hold is read piece by piece while a checkpoint file is written, so that a seal copies
/// nothing and takes no time, however much came in.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The table's number of the first.
    pub first: u32,
    /// Key of the first; each next one's is one more.
    pub first_seq: i64,
    /// vnode of each.
    pub vnodes: Vec<u16>,
}

/// A keyed relation private to one operator, partitioned by vnode.
pub trait StateTable: Send {
    /// Its durable shape; constant.
    fn spec(&self) -> TableSpec;
    /// Takes out what changed since the last seal, in pieces of some thousand rows; each key is in
    /// one of them. `None` stands for as much work without a piece. The table may be left alone in
    /// each call, for a while or for good: it holds no lock meanwhile that others take.
    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>));
    /// All pieces together.
    fn seal(&mut self) -> Option<TableDelta> {
        let mut pieces = Vec::new();
        self.seal_pieces(&mut |piece| pieces.extend(piece));
        TableDelta::concat(pieces)
    }
    /// Takes out many appended rows in place of sealing them; `None` if the table has none or not
    /// enough of them to be worth it. Calls `rest` every few thousand rows.
    fn seal_appended(&mut self, rest: &mut dyn FnMut()) -> Option<Appended> {
        let _ = rest;
        None
    }
    /// All columns of these rows among `appended`, by their numbers within it.
    fn read_appended(&self, appended: &Appended, rows: &[u32]) -> Vec<ArrayRef> {
        unreachable!(
            "a table that seals whole has no appended rows: {} of {}",
            rows.len(),
            appended.vnodes.len()
        )
    }
    /// Adds rows of a checkpoint, with the table's schema; called before anything else, any number
    /// of times. They do not count as changes. The rows of one call have different keys.
    fn restore(&mut self, rows: &RecordBatch);
    /// Whether `restore` leaves a row alone whose key is there already, so that rows may come as
    /// files have them, newest first, and nobody else need remember their keys.
    fn keeps_newest(&self) -> bool {
        false
    }
    /// Bytes of memory held.
    fn memory_bytes(&self) -> usize;
}
