//! Writes by key to a changelog.
//!
//! Input: rows in order; a positive weight writes the row of its key, a negative one deletes it (its other columns mean nothing). Output: the changes that these writes make to
//! the relation of the last row per key: -old, +new. Within a batch the writes of one key count as one: what was before the batch against what is after it; an identical
//! overwrite changes nothing. Deletes of unknown keys are ignored. With `ON CONFLICT DO NOTHING` a row is written only where its key has none.
//!
//! State: the relation itself, keyed. A deleted key stays in the index until the next seal has told of it. Cost per batch: one look-up of its keys, one
//! comparison and one gather of the rows that were there.
//!
//! One key written in two partitions: the later batch wins here. The order by (timestamp, partition, offset), which does not depend on chance, is not kept yet.

use crate::{Barrier, Operator, Out};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::Result;
use tidemark_plan::Conflict;
use tidemark_state::{KeyIndex, SlotColumns, StateTable, TableDelta, TableSpec};

/// No row is stored under the id.
const NOTHING: u32 = 0;
/// A row is stored under the id.
const STORED: u32 = 1;
/// Within a batch: the key was deleted.
const DELETED: u32 = 2;
/// Within a batch: `ROW + i` says that row i of the batch was written last.
const ROW: u32 = 3;

/// `Op::Upsert`.
#[derive(Debug)]
pub struct Upsert {
    table: UpsertTable,
    conflict: Conflict,
}

/// The relation of the last row per key.
#[derive(Debug)]
struct UpsertTable {
    schema: SchemaRef,
    key: Vec<usize>,
    others: Vec<usize>,
    spec: TableSpec,
    index: KeyIndex,
    values: SlotColumns,
    /// Per id: `NOTHING` or `STORED` between batches.
    state: Vec<u32>,
    /// Ids that changed since the last seal, and whether an id is among them.
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
}

/// What a batch does to its keys: ids, and rows of the batch.
#[derive(Default)]
struct Effect {
    gone: Vec<u32>,
    come: Vec<u32>,
    come_rows: Vec<u32>,
}

fn pick(columns: &[ArrayRef], which: &[usize]) -> Vec<ArrayRef> {
    which.iter().map(|c| columns[*c].clone()).collect()
}

impl Upsert {
    /// `key`: the key's columns, by position in `schema`.
    pub fn new(schema: SchemaRef, key: Vec<usize>, conflict: Conflict, table: u32) -> Upsert {
        Upsert { table: UpsertTable::new(schema, key, table), conflict }
    }
}

impl Operator for Upsert {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        match self.table.write(&batch, self.conflict) {
            Some(changes) => out.send(changes),
            None => Ok(()),
        }
    }

    fn on_barrier(&mut self, _barrier: &Barrier, _out: &mut dyn Out) -> Result<()> {
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.table]
    }
}

impl UpsertTable {
    fn new(schema: SchemaRef, key: Vec<usize>, table: u32) -> UpsertTable {
        let others: Vec<usize> = (0..schema.fields().len()).filter(|c| !key.contains(c)).collect();
        let types = |columns: &[usize]| columns.iter().map(|c| schema.field(*c).data_type().clone()).collect::<Vec<DataType>>();
        let order: Vec<usize> = key.iter().chain(&others).copied().collect();
        let spec = TableSpec { table, schema: Arc::new(schema.project(&order).expect("the key's columns exist")), key_columns: key.len() };
        let (index, values) = (KeyIndex::new(&types(&key)), SlotColumns::new(&types(&others)));
        UpsertTable { schema, key, others, spec, index, values, state: Vec::new(), dirty: Vec::new(), is_dirty: Vec::new() }
    }

    /// Ids of the keys of `rows`, known or new.
    fn intern(&mut self, rows: &RecordBatch) -> Vec<u32> {
        let keys = pick(rows.columns(), &self.key);
        let mut ids = Vec::new();
        self.index.intern(&keys, &hash_columns(&keys, rows.num_rows()), &mut ids);
        let capacity = self.index.capacity();
        self.values.grow(capacity);
        self.state.resize(capacity, NOTHING);
        self.is_dirty.resize(capacity, false);
        ids
    }

    /// Plays the writes of a batch in order, and returns the changes that they make.
    fn write(&mut self, batch: &ChangeBatch, conflict: Conflict) -> Option<ChangeBatch> {
        let ids = self.intern(batch.rows());
        let mut touched: Vec<(u32, bool)> = Vec::new();
        for (row, id) in ids.iter().enumerate() {
            let state = &mut self.state[*id as usize];
            let write = batch.weight(row) > 0;
            if write && conflict == Conflict::Ignore && *state != NOTHING && *state != DELETED {
                continue;
            }
            if *state < DELETED {
                touched.push((*id, *state == STORED));
            }
            *state = if write { ROW + row as u32 } else { DELETED };
        }
        let effect = self.effect(batch.rows(), &touched);
        self.apply(batch.rows(), effect)
    }

    /// What became of the touched keys, given whether each had a row before. Puts their state back to `NOTHING` or `STORED`.
    fn effect(&mut self, rows: &RecordBatch, touched: &[(u32, bool)]) -> Effect {
        let (mut effect, mut replaced, mut replaced_rows) = (Effect::default(), Vec::new(), Vec::new());
        for (id, was_stored) in touched {
            let state = std::mem::replace(&mut self.state[*id as usize], NOTHING);
            match (was_stored, state) {
                (true, DELETED) => effect.gone.push(*id),
                (false, DELETED) if self.is_dirty[*id as usize] => {}
                (false, DELETED) => self.index.remove(*id),
                (false, _) => {
                    self.state[*id as usize] = STORED;
                    effect.come.push(*id);
                    effect.come_rows.push(state - ROW);
                }
                (true, _) => {
                    self.state[*id as usize] = STORED;
                    replaced.push(*id);
                    replaced_rows.push(state - ROW);
                }
            }
        }
        let mut unequal = vec![false; replaced.len()];
        self.values.mark_unequal(&pick(rows.columns(), &self.others), &replaced_rows, &replaced, &mut unequal);
        for (i, _) in unequal.iter().enumerate().filter(|(_, u)| **u) {
            effect.gone.push(replaced[i]);
            effect.come.push(replaced[i]);
            effect.come_rows.push(replaced_rows[i]);
        }
        effect
    }

    /// Stores the effect and returns it as changes; `None` when there is none.
    fn apply(&mut self, rows: &RecordBatch, effect: Effect) -> Option<ChangeBatch> {
        let Effect { gone, come, come_rows } = effect;
        if gone.is_empty() && come.is_empty() {
            return None;
        }
        let old = (!gone.is_empty()).then(|| self.rows_of(&gone));
        for id in &gone {
            self.values.clear(*id);
        }
        self.values.write_selected(&pick(rows.columns(), &self.others), &come_rows, &come);
        gone.iter().chain(&come).for_each(|id| self.mark(*id));
        let all = come_rows.len() == rows.num_rows() && come_rows.iter().enumerate().all(|(i, r)| i as u32 == *r);
        let come_count = come_rows.len();
        let new = if all { rows.clone() } else { compute::take_record_batch(rows, &UInt32Array::from(come_rows)).expect("rows are within the batch") };
        let Some(old) = old else { return Some(ChangeBatch::insert(new)) };
        let both = compute::concat_batches(&self.schema, [&old, &new]).expect("old and new rows share a schema");
        let weights = std::iter::repeat_n(-1, gone.len()).chain(std::iter::repeat_n(1, come_count)).collect();
        Some(ChangeBatch::new(both, weights))
    }

    fn mark(&mut self, id: u32) {
        if !std::mem::replace(&mut self.is_dirty[id as usize], true) {
            self.dirty.push(id);
        }
    }

    /// The stored rows of these ids, with the relation's schema.
    fn rows_of(&self, ids: &[u32]) -> RecordBatch {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        let (keys, others) = (self.index.gather(ids), self.values.gather_all(ids));
        for (column, array) in self.key.iter().zip(keys).chain(self.others.iter().zip(others)) {
            columns[*column] = Some(array);
        }
        let columns = columns.into_iter().map(|c| c.expect("every column is stored")).collect();
        RecordBatch::try_new(self.schema.clone(), columns).expect("stored rows have the relation's types")
    }

    fn vnodes(&self, ids: &[u32]) -> Vec<u16> {
        ids.iter().map(|id| vnode_of_hash(self.index.hash(*id)) as u16).collect()
    }
}

impl StateTable for UpsertTable {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal(&mut self) -> Option<TableDelta> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return None;
        }
        let (stored, deleted): (Vec<u32>, Vec<u32>) = dirty.iter().partition(|id| self.state[**id as usize] == STORED);
        let columns = self.index.gather(&stored).into_iter().chain(self.values.gather_all(&stored)).collect();
        let key_schema: Schema = self.spec.schema.project(&(0..self.key.len()).collect::<Vec<_>>()).expect("key columns come first");
        let delta = TableDelta {
            upserts: RecordBatch::try_new(self.spec.schema.clone(), columns).expect("stored rows have the table's types"),
            upsert_vnodes: self.vnodes(&stored),
            deletes: RecordBatch::try_new(Arc::new(key_schema), self.index.gather(&deleted)).expect("stored keys have the table's types"),
            delete_vnodes: self.vnodes(&deleted),
        };
        for id in dirty {
            self.is_dirty[id as usize] = false;
        }
        for id in deleted {
            self.index.remove(id);
        }
        Some(delta)
    }

    fn restore(&mut self, rows: &RecordBatch) {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (i, column) in self.key.iter().chain(&self.others).enumerate() {
            columns[*column] = Some(rows.column(i).clone());
        }
        let columns = columns.into_iter().map(|c| c.expect("every column is in the table")).collect();
        let rows = RecordBatch::try_new(self.schema.clone(), columns).expect("a checkpoint's rows have the table's types");
        let ids = self.intern(&rows);
        self.values.write(&pick(rows.columns(), &self.others), &ids);
        for id in ids {
            let before = std::mem::replace(&mut self.state[id as usize], STORED);
            assert!(before == NOTHING, "a checkpoint has each key once");
        }
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.values.memory_bytes() + self.state.capacity() * 4 + self.is_dirty.capacity()
    }
}

#[cfg(test)]
mod tests;
