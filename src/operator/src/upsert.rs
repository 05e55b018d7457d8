//! Writes by key to a changelog.
//!
//! Input: rows with a version in the last column; a positive weight writes the row of its key, a
//! negative one deletes it (its other columns mean nothing). Output: the changes that these writes
//! make to the relation of the row with the greatest version per key: -old, +new. Within a batch
//! the writes of one key count as one: what was before the batch against what is after it; an
//! identical overwrite changes nothing. With `ON CONFLICT IGNORE`, which takes no deletions, the
//! row with the least version stays. With `ON CONFLICT DO UPDATE IF NOT NULL`, which takes
//! none either, every column goes by versions of its own ([`merge`]).
//!
//! **Order.** A version is (largest time of a record of the split so far, split); a write replaces
//! what is there unless its version is lower. Versions of one split never go down and its rows
//! arrive in their order, so within a split the later one wins, as Kafka has it; between splits the
//! versions decide. The answer is therefore a function of the records alone: neither the order in
//! which partitions are read nor a replay matters. Rows without a time of their own (-1) are
//! ordered by their split.
//!
//! **Deletions** have versions as well, or an older write that arrives later from another split
//! would bring the row back. So a deleted key stays, as a row without values, even if it was never
//! written or only one split was ever seen to have it: what the others will bring is not known. It
//! goes when the barrier's horizon, the least time that all splits have reached, has passed its
//! time: from then on every write has a greater version, and what is forgotten can make no
//! difference (a split that appears later begins at the horizon, too). That is soon where all
//! partitions are written to, or where there is only one; a partition that stays empty keeps the
//! deletions of all others, at the price of their keys and 28 bytes each.
//!
//! State: the relation itself, keyed, with versions (12 bytes a row in memory, 16 in a checkpoint)
//! and deletions. A key that is gone stays in the index until the next seal has told of it. Cost
//! per batch: one look-up of its keys, one comparison of versions a row, one comparison and one
//! gather of the rows that were there.

mod merge;

use crate::{Barrier, Operator, Out};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Decimal128Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Decimal128Type, Field, Schema, SchemaRef};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::Result;
use tidemark_plan::{Conflict, VERSION_TYPE, time_and_split, version};
use tidemark_state::table::PIECE_ROWS;
use tidemark_state::{ABSENT, KeyIndex, SlotColumns, StateTable, TableDelta, TableForm, TableSpec};

/// Nothing is known under the id.
const NOTHING: u32 = 0;
/// A row is stored under the id.
const STORED: u32 = 1;
/// The key was deleted, and that is kept.
const GONE: u32 = 2;
/// Within a batch: the key was deleted.
const DELETED: u32 = 3;
/// Within a batch: `ROW + i` says that row i of the batch counts.
const ROW: u32 = 4;
/// So many deletions that are no longer true may be among those to be forgotten before they are
/// taken out.
const GONE_STALE_MAX: usize = 4096;

/// `Op::Upsert`.
#[derive(Debug)]
pub struct Upsert {
    table: UpsertTable,
    conflict: Conflict,
}

/// The versions of rows and deletions, by id.
#[derive(Debug, Default)]
struct Versions {
    times: Vec<i64>,
    splits: Vec<u32>,
}

impl Versions {
    fn grow(&mut self, capacity: usize) {
        self.times.resize(capacity, 0);
        self.splits.resize(capacity, 0);
    }

    fn get(&self, id: u32) -> i128 {
        version(self.times[id as usize], self.splits[id as usize])
    }

    fn set(&mut self, id: u32, version: i128) {
        (self.times[id as usize], self.splits[id as usize]) = time_and_split(version);
    }

    fn memory_bytes(&self) -> usize {
        self.times.capacity() * 8 + self.splits.capacity() * 4
    }
}

/// The relation of the row with the greatest version per key.
#[derive(Debug)]
struct UpsertTable {
    schema: SchemaRef,
    key: Vec<usize>,
    others: Vec<usize>,
    /// Whether each of the others has a version of its own, behind them all among the values.
    stamped: bool,
    spec: TableSpec,
    index: KeyIndex,
    values: SlotColumns,
    /// Per id: `NOTHING`, `STORED` or `GONE` between batches.
    state: Vec<u32>,
    versions: Versions,
    /// Ids that are `GONE`.
    gone_count: usize,
    /// Times and ids of deletions, the earliest first; some are no longer true, but not many more
    /// than are.
    gone: BinaryHeap<Reverse<(i64, u32)>>,
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
    /// `schema`: that of the relation, behind whose columns the input has the version; `key`: the
    /// key's columns, by position.
    pub fn new(schema: SchemaRef, key: Vec<usize>, conflict: Conflict, table: u32) -> Upsert {
        Upsert {
            table: UpsertTable::new(schema, key, conflict, table),
            conflict,
        }
    }
}

impl Operator for Upsert {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        match self.table.write(&batch, self.conflict) {
            Some(changes) => out.send(changes),
            None => Ok(()),
        }
    }

    fn on_barrier(&mut self, barrier: &Barrier, _out: &mut dyn Out) -> Result<()> {
        self.table.forget_below(barrier.horizon_ms);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.table]
    }
}

impl UpsertTable {
    fn new(schema: SchemaRef, key: Vec<usize>, conflict: Conflict, table: u32) -> UpsertTable {
        let others: Vec<usize> = (0..schema.fields().len())
            .filter(|c| !key.contains(c))
            .collect();
        let types = |columns: &[usize]| {
            columns
                .iter()
                .map(|c| schema.field(*c).data_type().clone())
                .collect::<Vec<DataType>>()
        };
        let stamps = match conflict {
            Conflict::Merge => merge::stamps(&schema, &others),
            _ => Vec::new(),
        };
        let stored = key.iter().chain(&others).map(|c| schema.field(*c).clone());
        let stored = stored.chain(stamps.iter().cloned()).chain([
            Field::new("_version", VERSION_TYPE, false),
            Field::new("_gone", DataType::Boolean, false),
        ]);
        let spec = TableSpec {
            table,
            form: TableForm::Keyed,
            schema: Arc::new(Schema::new(
                stored.map(|f| f.with_nullable(true)).collect::<Vec<_>>(),
            )),
            key_columns: key.len(),
        };
        let mut kept = types(&others);
        kept.extend(stamps.iter().map(|stamp| stamp.data_type().clone()));
        let (index, values) = (KeyIndex::new(&types(&key)), SlotColumns::new(&kept));
        let (versions, gone) = (Versions::default(), BinaryHeap::new());
        UpsertTable {
            schema,
            key,
            others,
            stamped: !stamps.is_empty(),
            spec,
            index,
            values,
            state: Vec::new(),
            versions,
            gone_count: 0,
            gone,
            dirty: Vec::new(),
            is_dirty: Vec::new(),
        }
    }

    /// Ids of the keys of `rows`, known or new.
    fn intern(&mut self, rows: &RecordBatch) -> Vec<u32> {
        let keys = pick(rows.columns(), &self.key);
        let mut ids = Vec::new();
        self.index
            .intern(&keys, &hash_columns(&keys, rows.num_rows()), &mut ids);
        let capacity = self.index.capacity();
        self.values.grow(capacity);
        self.state.resize(capacity, NOTHING);
        self.versions.grow(capacity);
        self.is_dirty.resize(capacity, false);
        ids
    }

    /// Plays the writes of a batch, and returns the changes that they make.
    fn write(&mut self, batch: &ChangeBatch, conflict: Conflict) -> Option<ChangeBatch> {
        if conflict == Conflict::Merge {
            return self.merge(batch);
        }
        let columns = self.schema.fields().len();
        let versions = batch
            .column(columns)
            .as_primitive::<Decimal128Type>()
            .values();
        let ids = self.intern(batch.rows());
        let mut touched: Vec<(u32, u32)> = Vec::new();
        for (row, (id, version)) in ids.iter().zip(versions).enumerate() {
            let state = &mut self.state[*id as usize];
            let write = batch.weight(row) > 0;
            assert!(
                write || conflict == Conflict::Overwrite,
                "a deletion has no place where the first row of a key stays"
            );
            let known = if *state == NOTHING {
                None
            } else {
                Some(self.versions.get(*id))
            };
            if known.is_some_and(|known| {
                if conflict == Conflict::Ignore {
                    *version >= known
                } else {
                    *version < known
                }
            }) {
                continue;
            }
            if *state < DELETED {
                touched.push((*id, *state));
            }
            *state = if write { ROW + row as u32 } else { DELETED };
            self.versions.set(*id, *version);
        }
        let rows = batch
            .rows()
            .project(&(0..columns).collect::<Vec<_>>())
            .expect("the version is behind the relation's columns");
        let effect = self.effect(&rows, &touched);
        self.apply(&rows, effect)
    }

    /// What became of the touched keys, given their state before. Puts their state back to `STORED`
    /// or `GONE`.
    fn effect(&mut self, rows: &RecordBatch, touched: &[(u32, u32)]) -> Effect {
        let (mut effect, mut replaced, mut replaced_rows) =
            (Effect::default(), Vec::new(), Vec::new());
        for (id, before) in touched {
            // Also where the row is the same, its version is not.
            self.mark(*id);
            let state = std::mem::replace(&mut self.state[*id as usize], STORED);
            self.gone_count -= usize::from(*before == GONE);
            match (*before, state) {
                (before, DELETED) => {
                    self.keep_deletion(*id);
                    if before == STORED {
                        effect.gone.push(*id);
                    }
                }
                (STORED, _) => {
                    replaced.push(*id);
                    replaced_rows.push(state - ROW);
                }
                _ => {
                    effect.come.push(*id);
                    effect.come_rows.push(state - ROW);
                }
            }
        }
        let mut unequal = vec![false; replaced.len()];
        self.values.mark_unequal(
            &pick(rows.columns(), &self.others),
            &replaced_rows,
            &replaced,
            &mut unequal,
        );
        for (i, _) in unequal.iter().enumerate().filter(|(_, u)| **u) {
            effect.gone.push(replaced[i]);
            effect.come.push(replaced[i]);
            effect.come_rows.push(replaced_rows[i]);
        }
        effect
    }

    /// Stores the effect and returns it as changes; `None` when there is none.
    fn apply(&mut self, rows: &RecordBatch, effect: Effect) -> Option<ChangeBatch> {
        let Effect {
            gone,
            come,
            come_rows,
        } = effect;
        if gone.is_empty() && come.is_empty() {
            return None;
        }
        let old = (!gone.is_empty()).then(|| self.rows_of(&gone));
        for id in &gone {
            self.values.clear(*id);
        }
        self.values
            .write_selected(&pick(rows.columns(), &self.others), &come_rows, &come);
        let all = come_rows.len() == rows.num_rows()
            && come_rows.iter().enumerate().all(|(i, r)| i as u32 == *r);
        let come_count = come_rows.len();
        let new = if all {
            rows.clone()
        } else {
            compute::take_record_batch(rows, &UInt32Array::from(come_rows))
                .expect("rows are within the batch")
        };
        let Some(old) = old else {
            return Some(ChangeBatch::insert(new));
        };
        let both = compute::concat_batches(&self.schema, [&old, &new])
            .expect("old and new rows share a schema");
        let weights = std::iter::repeat_n(-1, gone.len())
            .chain(std::iter::repeat_n(1, come_count))
            .collect();
        Some(ChangeBatch::new(both, weights))
    }

    fn keep_deletion(&mut self, id: u32) {
        self.state[id as usize] = GONE;
        self.gone_count += 1;
        self.gone
            .push(Reverse((self.versions.times[id as usize], id)));
    }

    fn is_deletion(&self, time: i64, id: u32) -> bool {
        self.state[id as usize] == GONE && self.versions.times[id as usize] == time
    }

    /// Forgets deletions that no write can meet any more, because all that come are later.
    fn forget_below(&mut self, horizon_ms: i64) {
        while let Some(Reverse((time, id))) = self.gone.peek().copied()
            && time < horizon_ms
        {
            self.gone.pop();
            if self.is_deletion(time, id) {
                self.state[id as usize] = NOTHING;
                self.gone_count -= 1;
                self.mark(id);
            }
        }
        if self.gone.len() > 2 * self.gone_count + GONE_STALE_MAX {
            let mut gone = std::mem::take(&mut self.gone).into_vec();
            gone.retain(|Reverse((time, id))| self.is_deletion(*time, *id));
            gone.sort_unstable();
            gone.dedup();
            self.gone = gone.into();
        }
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
        for (column, array) in self
            .key
            .iter()
            .zip(keys)
            .chain(self.others.iter().zip(others))
        {
            columns[*column] = Some(array);
        }
        let columns = columns
            .into_iter()
            .map(|c| c.expect("every column is stored"))
            .collect();
        RecordBatch::try_new(self.schema.clone(), columns)
            .expect("stored rows have the relation's types")
    }

    fn vnodes(&self, ids: &[u32]) -> Vec<u16> {
        ids.iter()
            .map(|id| vnode_of_hash(self.index.hash(*id)) as u16)
            .collect()
    }
}

impl UpsertTable {
    /// Where some keys stand.
    fn seal_piece(&mut self, dirty: &[u32]) -> TableDelta {
        let (known, deleted): (Vec<u32>, Vec<u32>) = dirty
            .iter()
            .partition(|id| self.state[**id as usize] != NOTHING);
        let valued: Vec<u32> = known
            .iter()
            .map(|id| {
                if self.state[*id as usize] == STORED {
                    *id
                } else {
                    ABSENT
                }
            })
            .collect();
        let versions =
            Decimal128Array::from_iter_values(known.iter().map(|id| self.versions.get(*id)))
                .with_data_type(VERSION_TYPE);
        let gone: BooleanArray = valued.iter().map(|id| Some(*id == ABSENT)).collect();
        let own: [ArrayRef; 2] = [Arc::new(versions), Arc::new(gone)];
        let columns = self
            .index
            .gather(&known)
            .into_iter()
            .chain(self.values.gather_all(&valued))
            .chain(own)
            .collect();
        let key_schema: Schema = self
            .spec
            .schema
            .project(&(0..self.key.len()).collect::<Vec<_>>())
            .expect("key columns come first");
        let delta = TableDelta {
            upserts: RecordBatch::try_new(self.spec.schema.clone(), columns)
                .expect("stored rows have the table's types"),
            upsert_vnodes: self.vnodes(&known),
            deletes: RecordBatch::try_new(Arc::new(key_schema), self.index.gather(&deleted))
                .expect("stored keys have the table's types"),
            delete_vnodes: self.vnodes(&deleted),
        };
        for id in dirty {
            self.is_dirty[*id as usize] = false;
        }
        for id in deleted {
            self.index.remove(id);
        }
        delta
    }
}

impl StateTable for UpsertTable {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        let dirty = std::mem::take(&mut self.dirty);
        for some in dirty.chunks(PIECE_ROWS) {
            each(Some(self.seal_piece(some)));
        }
    }

    fn restore(&mut self, rows: &RecordBatch) {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (i, column) in self.key.iter().chain(&self.others).enumerate() {
            columns[*column] = Some(rows.column(i).clone());
        }
        let stamps = match self.stamped {
            true => self.others.len(),
            false => 0,
        };
        let stamps: Vec<ArrayRef> = (0..stamps)
            .map(|i| rows.column(columns.len() + i).clone())
            .collect();
        let width = columns.len() + stamps.len();
        let (versions, gone) = (
            rows.column(width).as_primitive::<Decimal128Type>(),
            rows.column(width + 1).as_boolean(),
        );
        let columns = columns
            .into_iter()
            .map(|c| c.expect("every column is in the table"))
            .collect();
        let rows = RecordBatch::try_new(self.schema.clone(), columns)
            .expect("a checkpoint's rows have the table's types");
        let ids = self.intern(&rows);
        let (mut stored, mut stored_rows) =
            (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for (row, id) in ids.into_iter().enumerate() {
            let state = &mut self.state[id as usize];
            if *state != NOTHING {
                // A newer one was restored before.
                continue;
            }
            *state = STORED;
            self.versions.set(id, versions.value(row));
            if gone.value(row) {
                self.keep_deletion(id);
            } else {
                stored.push(id);
                stored_rows.push(row as u32);
            }
        }
        let mut values = pick(rows.columns(), &self.others);
        values.extend(stamps);
        self.values.write_selected(&values, &stored_rows, &stored);
    }

    fn keeps_newest(&self) -> bool {
        true
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.values.memory_bytes()
            + self.versions.memory_bytes()
            + self.gone.capacity() * 16
            + self.state.capacity() * 4
            + self.is_dirty.capacity()
    }
}

#[cfg(test)]
mod tests;
