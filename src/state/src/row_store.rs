//! Rows, column by column, under dense ids.
//!
//! A row gets an id when it comes in and gives it back when it goes; ids below
//! [`RowStore::capacity`] can index an operator's own vectors. Strings are copied out of the batch
//! they came in. A join emits by [`RowStore::gather`], which builds each Arrow array in one pass of
//! exact size. Cost: the width of the row's values, 16 bytes and what exceeds 12 per string, one
//! bit.

use crate::chunked::Slots;
use crate::column::SlotColumns;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

/// Rows under dense ids that are reused after removal.
#[derive(Debug)]
pub struct RowStore {
    schema: SchemaRef,
    slots: Slots,
    columns: SlotColumns,
}

impl RowStore {
    /// Without rows.
    pub fn new(schema: SchemaRef) -> RowStore {
        let types: Vec<DataType> = schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        RowStore {
            schema,
            slots: Slots::default(),
            columns: SlotColumns::new(&types),
        }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All ids are below this.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Adds all rows of a batch with this store's types. `ids` is cleared and then holds one id per
    /// row.
    pub fn insert(&mut self, rows: &RecordBatch, ids: &mut Vec<u32>) {
        ids.clear();
        self.slots.take(rows.num_rows(), ids);
        self.columns.grow(self.slots.capacity());
        self.columns.write(rows.columns(), ids);
    }

    /// Adds the rows at `selection`. `ids` is cleared and then holds one id per selected row.
    pub fn insert_selected(&mut self, rows: &RecordBatch, selection: &[u32], ids: &mut Vec<u32>) {
        ids.clear();
        self.slots.take(selection.len(), ids);
        self.columns.grow(self.slots.capacity());
        self.columns.write_selected(rows.columns(), selection, ids);
    }

    /// Takes a row out. Its id, which must be in use, may be given to another row.
    pub fn remove(&mut self, id: u32) {
        self.slots.give_back(id);
        self.columns.clear(id);
    }

    /// These columns of these rows, one array per column; [`crate::ABSENT`] gives NULL.
    pub fn gather(&self, columns: &[usize], ids: &[u32]) -> Vec<ArrayRef> {
        self.columns.gather(columns, ids)
    }

    /// Whether row `id` equals row `row` of a batch: NULL equals NULL, NaN equals NaN, -0 is not 0.
    pub fn rows_equal(&self, id: u32, rows: &RecordBatch, row: usize) -> bool {
        self.columns.equals(id, rows.columns(), row)
    }

    /// Whether `id` is in use.
    pub fn is_live(&self, id: u32) -> bool {
        self.slots.is_live(id)
    }

    /// The ids in use, ascending.
    pub fn live_ids(&self) -> impl Iterator<Item = u32> {
        self.slots.live_ids()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.slots.memory_bytes() + self.columns.memory_bytes()
    }
}

#[cfg(test)]
mod tests;
