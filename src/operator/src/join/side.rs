//! What a join keeps of one side: its rows in chains per key, and their state table.
//!
//! Both sides share one [`Keys`]: a batch's keys are looked up once, and the id that comes out
//! leads to the chains of both. A side keeps its rows in one of three ways:
//!
//! * *appended*: all weights are +1 and stay so; rows are appended and never looked up. Table:
//!   `_seq` -> row.
//! * *multiset*: rows come and go; an index over the whole row finds the one to change, equal rows
//!   are one with a weight. Table: row -> `_weight`.
//! * *keyed*: of the row only its key is needed (the right side of most semi and anti joins); the
//!   key's own id and total are the row. Table: key -> `_weight`.
//!
//! A *shared* side (see `shared`) is one of the last two, without a table; one that forgets by a
//! watermark is a multiset. Links are stored as id + 1: 0, as in new slots, ends a chain.

mod closing;
mod shared;

use shared::Loaded;
pub(super) use shared::Lookup;

use arrow::array::*;
use arrow::datatypes::*;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_state::chunked::Chunked;
use tidemark_state::table::PIECE_ROWS;
use tidemark_state::{Appended, KeyIndex, RowStore, StateTable, TableDelta, TableForm, TableSpec};

/// Appended rows from which on a seal leaves them to be read later.
const APPENDED_ROWS: usize = 32 * 1024;

const PERSISTED: u8 = 1;
const DIRTY: u8 = 2;

/// The keys of both sides.
#[derive(Debug)]
pub(super) struct Keys {
    pub index: KeyIndex,
    pub sides: [KeySide; 2],
    /// Keys whose rows of shared sides are there; they stay, with or without rows.
    loaded: Loaded,
}

/// What is known of each key on one side, by key id.
#[derive(Debug, Default)]
pub(super) struct KeySide {
    /// First row of the key's chain, plus 1.
    pub heads: Chunked<u32>,
    /// Sum of the weights of the key's rows; kept only where somebody reads it.
    pub totals: Chunked<i64>,
    pub has_totals: bool,
    /// Of a keyed side: the key is in the checkpoint, or has changed.
    flags: Chunked<u8>,
    is_keyed: bool,
}

/// The keys, shared by the two state tables. Locked once per batch, never contended.
#[derive(Clone, Debug)]
pub(super) struct SharedKeys(Arc<Mutex<Keys>>);

impl SharedKeys {
    pub fn new(types: &[DataType]) -> SharedKeys {
        SharedKeys(Arc::new(Mutex::new(Keys {
            index: KeyIndex::new(types),
            sides: Default::default(),
            loaded: Loaded::default(),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Finds or adds the keys of some rows.
    pub fn intern(&mut self, columns: &[ArrayRef], hashes: &[u64]) -> Vec<u32> {
        let mut ids = Vec::new();
        self.index.intern(columns, hashes, &mut ids);
        let capacity = self.index.capacity();
        for side in &mut self.sides {
            side.heads.grow(capacity);
            if side.has_totals {
                side.totals.grow(capacity);
            }
            if side.is_keyed {
                side.flags.grow(capacity);
            }
        }
        ids
    }

    /// Forgets those of `ids` that no row uses any more and no seal has yet to report.
    pub fn remove_unused(&mut self, ids: &[u32]) {
        for id in ids {
            let used = self
                .sides
                .iter()
                .any(|s| s.heads.get(*id) != 0 || s.is_keyed && s.flags.get(*id) != 0);
            if !used && self.index.is_live(*id) && !self.loaded.contains(*id) {
                self.index.remove(*id);
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self
                .sides
                .iter()
                .map(|s| s.heads.memory_bytes() + s.totals.memory_bytes() + s.flags.memory_bytes())
                .sum::<usize>()
    }
}

/// What of one side has to be kept.
pub(super) struct SideConfig {
    /// 0 for left, 1 for right.
    pub port: usize,
    pub schema: SchemaRef,
    pub keys: Vec<usize>,
    /// Columns that are read again: output and residual.
    pub needed: Vec<usize>,
    /// Rows only come and all of them stay.
    pub append_only: bool,
    /// The totals of its keys are read by the other side.
    pub totals: bool,
    /// Of its keys only the presence matters, and none ever goes.
    pub presence_only: bool,
    /// Each row counts its partners.
    pub counts: bool,
    /// All rows are on one worker, whatever their keys.
    pub gathered: bool,
    pub table: u32,
}

/// One side of a join.
pub(super) struct Side {
    port: usize,
    /// Columns of the input that are kept.
    pub stored: Vec<usize>,
    /// Positions of the key columns among the stored ones.
    key_at: Vec<usize>,
    rows: Rows,
    next: Chunked<u32>,
    /// By row: weighted number of partners that pass the residual. A cache.
    pub counts: Option<Chunked<i64>>,
    presence_only: bool,
    gathered: bool,
    spec: TableSpec,
    keys: SharedKeys,
    /// Rows were restored and `counts` does not know.
    pub restored: bool,
}

enum Rows {
    Appended {
        store: RowStore,
        sealed: usize,
        next_seq: i64,
    },
    Multiset(Box<Multiset>),
    Keyed {
        key_columns: Vec<usize>,
        dirty: Vec<u32>,
        kept: usize,
    },
}

struct Multiset {
    index: KeyIndex,
    weights: Chunked<i64>,
    key_of: Chunked<u32>,
    previous: Chunked<u32>,
    flags: Chunked<u8>,
    dirty: Vec<u32>,
    /// Rows in chains.
    linked: usize,
}

impl Side {
    pub fn new(config: SideConfig, keys: SharedKeys) -> Side {
        let mut stored: Vec<usize> = Vec::new();
        for column in config.keys.iter().chain(&config.needed) {
            if !stored.contains(column) {
                stored.push(*column);
            }
        }
        let key_at: Vec<usize> = config
            .keys
            .iter()
            .map(|k| stored.iter().position(|s| s == k).expect("keys are stored"))
            .collect();
        let fields: Vec<Field> = stored
            .iter()
            .map(|c| config.schema.field(*c).clone().with_nullable(true))
            .collect();
        let types: Vec<DataType> = fields.iter().map(|f| f.data_type().clone()).collect();
        let only_keys = stored.len() == distinct(&config.keys) && !config.counts;
        let rows = if only_keys {
            let key_columns = (0..stored.len())
                .map(|c| {
                    key_at
                        .iter()
                        .position(|k| *k == c)
                        .expect("every stored column is a key")
                })
                .collect();
            Rows::Keyed {
                key_columns,
                dirty: Vec::new(),
                kept: 0,
            }
        } else if config.append_only {
            Rows::Appended {
                store: RowStore::new(Arc::new(Schema::new(fields.clone()))),
                sealed: 0,
                next_seq: 0,
            }
        } else {
            Rows::Multiset(Box::new(Multiset::new(&types)))
        };
        {
            let side = &mut keys.lock().sides[config.port];
            side.is_keyed = only_keys;
            side.has_totals = config.totals || only_keys;
        }
        let form = if matches!(rows, Rows::Appended { .. }) {
            TableForm::Appended
        } else {
            TableForm::Multiset
        };
        let spec = spec_of(config.table, fields, form);
        let counts = config.counts.then(Chunked::new);
        Side {
            port: config.port,
            stored,
            key_at,
            rows,
            next: Chunked::new(),
            counts,
            presence_only: config.presence_only,
            gathered: config.gathered,
            spec,
            keys,
            restored: false,
        }
    }

    /// Position among the stored columns of a column of the input, which is stored.
    pub fn stored_at(&self, column: usize) -> usize {
        self.stored
            .iter()
            .position(|s| *s == column)
            .expect("a column that is read again is stored")
    }

    /// The link after row `row`: the next row plus 1.
    #[inline(always)]
    pub fn next(&self, row: u32) -> u32 {
        if self.next.is_empty() {
            0
        } else {
            self.next.get(row)
        }
    }

    /// Whether every row's weight is +1.
    pub fn unweighted(&self) -> bool {
        matches!(self.rows, Rows::Appended { .. })
    }

    /// The weights of these rows.
    pub fn weights<'a>(&'a self, keys: &'a Keys) -> impl Fn(u32) -> i64 + 'a {
        let weights = match &self.rows {
            Rows::Appended { .. } => None,
            Rows::Multiset(m) => Some(&m.weights),
            Rows::Keyed { .. } => Some(&keys.sides[self.port].totals),
        };
        move |row| weights.map_or(1, |w| w.get(row))
    }

    /// These stored columns of these rows.
    pub fn gather(&self, keys: &Keys, columns: &[usize], rows: &[u32]) -> Vec<ArrayRef> {
        match &self.rows {
            Rows::Appended { store, .. } => store.gather(columns, rows),
            Rows::Multiset(m) => m.index.gather_columns(columns, rows),
            Rows::Keyed { key_columns, .. } => keys.index.gather_columns(
                &columns.iter().map(|c| key_columns[*c]).collect::<Vec<_>>(),
                rows,
            ),
        }
    }

    /// Adds the weights to the totals of the keys, where they are kept; calls `crossed` with a key
    /// each time its total becomes positive or ceases to be.
    pub fn add_totals(
        &self,
        keys: &mut Keys,
        key_ids: &[u32],
        batch: &ChangeBatch,
        mut crossed: impl FnMut(u32),
    ) {
        let side = &mut keys.sides[self.port];
        if !side.has_totals {
            return;
        }
        for (i, key) in key_ids.iter().enumerate() {
            let total = side.totals.get_mut(*key);
            let before = *total;
            if self.presence_only && before > 0 {
                continue;
            }
            *total += batch.weight(i);
            if (before > 0) != (*total > 0) {
                crossed(*key);
            }
        }
    }

    /// Adds rows to their chains; `counts` are their partners. Keys whose last row went are
    /// appended to `emptied`.
    pub fn store(
        &mut self,
        keys: &mut Keys,
        batch: &ChangeBatch,
        key_ids: &[u32],
        counts: Option<&[i64]>,
        emptied: &mut Vec<u32>,
    ) {
        let side = &mut keys.sides[self.port];
        match &mut self.rows {
            Rows::Appended { store, .. } => {
                let kept = batch.project(&self.stored);
                let (kept, key_ids, counts) = each_copy(kept, key_ids, counts);
                let mut ids = Vec::new();
                store.insert(kept.rows(), &mut ids);
                self.next.grow(store.capacity());
                link_all(side, &mut self.next, &key_ids, &ids);
                set_counts(&mut self.counts, store.capacity(), &ids, counts.as_deref());
            }
            Rows::Multiset(m) => {
                let columns: Vec<ArrayRef> = self
                    .stored
                    .iter()
                    .map(|c| batch.column(*c).clone())
                    .collect();
                let ids = m.intern(&columns, batch.num_rows());
                self.next.grow(m.index.capacity());
                set_counts(&mut self.counts, m.index.capacity(), &ids, counts);
                for (i, id) in ids.iter().enumerate() {
                    m.add(
                        side,
                        &mut self.next,
                        key_ids[i],
                        *id,
                        batch.weight(i),
                        emptied,
                    );
                }
            }
            Rows::Keyed { dirty, kept, .. } => {
                // The totals have been added.
                for key in key_ids {
                    let present = side.totals.get(*key) != 0;
                    if self.presence_only && present && side.heads.get(*key) != 0 {
                        continue;
                    }
                    let head = side.heads.get_mut(*key);
                    *kept = *kept + usize::from(present) - usize::from(*head != 0);
                    *head = if present { key + 1 } else { 0 };
                    mark_dirty(side.flags.get_mut(*key), *key, dirty);
                }
            }
        }
    }

    /// Takes rows out whatever their weight; of a multiset or keyed side.
    pub fn forget(
        &mut self,
        keys: &mut Keys,
        rows: impl Iterator<Item = u32>,
        emptied: &mut Vec<u32>,
    ) {
        let side = &mut keys.sides[self.port];
        match &mut self.rows {
            Rows::Appended { .. } => unreachable!("an appended side keeps its rows"),
            Rows::Multiset(m) => {
                for row in rows {
                    let weight = m.weights.get(row);
                    m.add(
                        side,
                        &mut self.next,
                        m.key_of.get(row),
                        row,
                        -weight,
                        emptied,
                    );
                }
            }
            Rows::Keyed { dirty, kept, .. } => {
                for key in rows {
                    *kept -= usize::from(side.heads.get(key) != 0);
                    side.totals.set(key, 0);
                    side.heads.set(key, 0);
                    mark_dirty(side.flags.get_mut(key), key, dirty);
                }
            }
        }
    }

    /// Calls `each` with up to 4,096 rows in use at a time, and their keys.
    pub fn for_each_row(
        &self,
        keys: &Keys,
        mut each: impl FnMut(&[u32], &[u32]) -> tidemark_common::Result<()>,
    ) -> tidemark_common::Result<()> {
        let live: Vec<u32> = match &self.rows {
            Rows::Appended { store, .. } => store.live_ids().collect(),
            Rows::Multiset(m) => m
                .index
                .live_ids()
                .filter(|id| m.weights.get(*id) != 0)
                .collect(),
            Rows::Keyed { .. } => Vec::new(),
        };
        for rows in live.chunks(4096) {
            let columns = self.gather(keys, &self.key_at, rows);
            let mut ids = Vec::new();
            keys.index
                .find(&columns, &hash_columns(&columns, rows.len()), &mut ids);
            each(rows, &ids)?;
        }
        Ok(())
    }

    /// Number of row ids ever in use.
    pub fn capacity(&self) -> usize {
        match &self.rows {
            Rows::Appended { store, .. } => store.capacity(),
            Rows::Multiset(m) => m.index.capacity(),
            Rows::Keyed { .. } => 0,
        }
    }

    /// The vnodes of rows with these stored columns.
    fn vnodes(&self, columns: &[ArrayRef], rows: usize) -> Vec<u16> {
        if self.gathered {
            return vec![0; rows];
        }
        let keys: Vec<ArrayRef> = self.key_at.iter().map(|k| columns[*k].clone()).collect();
        hash_columns(&keys, rows)
            .into_iter()
            .map(|h| vnode_of_hash(h) as u16)
            .collect()
    }

    /// A delta of the rows `present`, with these weights, and `gone`.
    fn delta(
        &self,
        present: Vec<ArrayRef>,
        weights: Vec<i64>,
        gone: Vec<ArrayRef>,
        gone_rows: usize,
    ) -> Option<TableDelta> {
        if weights.is_empty() && gone_rows == 0 {
            return None;
        }
        let (upsert_vnodes, delete_vnodes) = (
            self.vnodes(&present, weights.len()),
            self.vnodes(&gone, gone_rows),
        );
        let mut columns = present;
        let rows = weights.len();
        columns.push(Arc::new(Int64Array::from(weights)));
        let key_fields: Vec<Field> = self.spec.schema.fields()[..self.spec.key_columns]
            .iter()
            .map(|f| f.as_ref().clone())
            .collect();
        Some(TableDelta {
            upserts: record_batch(self.spec.schema.clone(), columns, rows),
            upsert_vnodes,
            deletes: record_batch(Arc::new(Schema::new(key_fields)), gone, gone_rows),
            delete_vnodes,
        })
    }

    fn seal_few_appended(&mut self) -> Option<TableDelta> {
        let Rows::Appended {
            store,
            sealed,
            next_seq,
        } = &mut self.rows
        else {
            return None;
        };
        let ids: Vec<u32> = (*sealed as u32..store.capacity() as u32).collect();
        if ids.is_empty() {
            return None;
        }
        let first_seq = *next_seq;
        *sealed = store.capacity();
        *next_seq += ids.len() as i64;
        let rows = store.gather(&(0..self.stored.len()).collect::<Vec<_>>(), &ids);
        let upsert_vnodes = self.vnodes(&rows, ids.len());
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(
            first_seq..first_seq + ids.len() as i64,
        ))];
        columns.extend(rows);
        let key = Arc::new(Schema::new(vec![self.spec.schema.field(0).clone()]));
        Some(TableDelta {
            upserts: record_batch(self.spec.schema.clone(), columns, ids.len()),
            upsert_vnodes,
            deletes: RecordBatch::new_empty(key),
            delete_vnodes: Vec::new(),
        })
    }

    /// What changed, of some rows, if they are kept so.
    fn seal_multiset(&mut self, dirty: &[u32]) -> Option<TableDelta> {
        let Rows::Multiset(m) = &mut self.rows else {
            return None;
        };
        let Sealed {
            present,
            gone,
            dead,
        } = Sealed::of(dirty, &mut m.flags, &m.weights);
        let weights = present.iter().map(|id| m.weights.get(*id)).collect();
        let (present, gone_columns) = (m.index.gather(&present), m.index.gather(&gone));
        dead.into_iter().for_each(|id| m.index.remove(id));
        self.delta(present, weights, gone_columns, gone.len())
    }

    fn seal_keyed(&mut self, dirty: &[u32]) -> Option<TableDelta> {
        let Rows::Keyed { key_columns, .. } = &self.rows else {
            return None;
        };
        let key_columns = key_columns.clone();
        let shared = self.keys.clone();
        let keys = &mut *shared.lock();
        let side = &mut keys.sides[self.port];
        let Sealed {
            present,
            gone,
            dead,
        } = Sealed::of(dirty, &mut side.flags, &side.totals);
        let weights = present.iter().map(|id| side.totals.get(*id)).collect();
        let (present, gone_columns) = (
            keys.index.gather_columns(&key_columns, &present),
            keys.index.gather_columns(&key_columns, &gone),
        );
        keys.remove_unused(&dead);
        self.delta(present, weights, gone_columns, gone.len())
    }
}

/// Rows that only come, once for each copy: who adds up equal rows sends one with their number.
fn each_copy<'a>(
    batch: ChangeBatch,
    key_ids: &'a [u32],
    counts: Option<&'a [i64]>,
) -> (ChangeBatch, Cow<'a, [u32]>, Option<Cow<'a, [i64]>>) {
    let Some(weights) = batch.weights() else {
        return (batch, key_ids.into(), counts.map(Cow::Borrowed));
    };
    let copies = |(row, weight): (usize, &i64)| {
        assert!(*weight >= 0, "a row that only comes has gone");
        std::iter::repeat_n(row as u32, *weight as usize)
    };
    let rows: Vec<u32> = weights.iter().enumerate().flat_map(copies).collect();
    let each = || rows.iter().map(|row| *row as usize);
    let key_ids = each().map(|row| key_ids[row]).collect();
    let counts = counts.map(|counts| each().map(|row| counts[row]).collect());
    (batch.take(&UInt32Array::from(rows)), key_ids, counts)
}

impl StateTable for Side {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        let dirty = match &mut self.rows {
            Rows::Appended { .. } => return each(self.seal_few_appended()),
            Rows::Multiset(m) => std::mem::take(&mut m.dirty),
            Rows::Keyed { dirty, .. } => std::mem::take(dirty),
        };
        for some in dirty.chunks(PIECE_ROWS) {
            each(self.seal_multiset(some).or_else(|| self.seal_keyed(some)));
        }
    }

    fn seal_appended(&mut self, rest: &mut dyn FnMut()) -> Option<Appended> {
        let Rows::Appended {
            store,
            sealed,
            next_seq,
        } = &mut self.rows
        else {
            return None;
        };
        let (first, rows) = (*sealed as u32, store.capacity() - *sealed);
        if rows < APPENDED_ROWS {
            return None;
        }
        let first_seq = *next_seq;
        *sealed += rows;
        *next_seq += rows as i64;
        let mut vnodes = Vec::with_capacity(rows);
        let Rows::Appended { store, .. } = &self.rows else {
            unreachable!("it was appended above")
        };
        for start in (first..first + rows as u32).step_by(4096) {
            let ids: Vec<u32> = (start..(first + rows as u32).min(start + 4096)).collect();
            match self.gathered {
                true => vnodes.resize(vnodes.len() + ids.len(), 0),
                false => {
                    let keys = store.gather(&self.key_at, &ids);
                    let hashes = hash_columns(&keys, ids.len()).into_iter();
                    vnodes.extend(hashes.map(|h| vnode_of_hash(h) as u16));
                }
            }
            rest();
        }
        Some(Appended {
            first,
            first_seq,
            vnodes,
        })
    }

    fn read_appended(&self, appended: &Appended, rows: &[u32]) -> Vec<ArrayRef> {
        let Rows::Appended { store, .. } = &self.rows else {
            unreachable!("only appended rows are sealed so")
        };
        let ids: Vec<u32> = rows.iter().map(|row| appended.first + row).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|row| appended.first_seq + i64::from(*row)),
        ))];
        columns.extend(store.gather(&(0..self.stored.len()).collect::<Vec<_>>(), &ids));
        columns
    }

    fn restore(&mut self, rows: &RecordBatch) {
        self.restored = true;
        let first = usize::from(self.unweighted());
        let stored = rows.columns()[first..first + self.stored.len()].to_vec();
        let key_columns: Vec<ArrayRef> = self.key_at.iter().map(|k| stored[*k].clone()).collect();
        let shared = self.keys.clone();
        let keys = &mut *shared.lock();
        let key_ids = keys.intern(&key_columns, &hash_columns(&key_columns, rows.num_rows()));
        let weights = (!self.unweighted()).then(|| {
            rows.column(self.stored.len())
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        });
        let side = &mut keys.sides[self.port];
        if side.has_totals {
            key_ids.iter().enumerate().for_each(|(i, key)| {
                *side.totals.get_mut(*key) += weights.as_ref().map_or(1, |w| w[i])
            });
        }
        match &mut self.rows {
            Rows::Appended {
                store,
                sealed,
                next_seq,
            } => {
                let mut ids = Vec::new();
                store.insert(
                    &record_batch(store.schema().clone(), stored, rows.num_rows()),
                    &mut ids,
                );
                self.next.grow(store.capacity());
                link_all(side, &mut self.next, &key_ids, &ids);
                *sealed = store.capacity();
                let newest = rows
                    .column(0)
                    .as_primitive::<Int64Type>()
                    .values()
                    .iter()
                    .max();
                *next_seq = (*next_seq).max(newest.map_or(0, |seq| seq + 1));
            }
            Rows::Multiset(m) => {
                let ids = m.intern(&stored, rows.num_rows());
                self.next.grow(m.index.capacity());
                for (i, id) in ids.iter().enumerate() {
                    m.add(
                        side,
                        &mut self.next,
                        key_ids[i],
                        *id,
                        weights.as_ref().map_or(1, |w| w[i]),
                        &mut Vec::new(),
                    );
                    m.flags.set(*id, PERSISTED);
                }
                m.dirty.clear();
            }
            Rows::Keyed { kept, .. } => {
                *kept += key_ids.len();
                for key in &key_ids {
                    side.heads.set(*key, key + 1);
                    side.flags.set(*key, PERSISTED);
                }
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        let own = match &self.rows {
            Rows::Appended { store, .. } => store.memory_bytes(),
            Rows::Multiset(m) => {
                let vectors = m.weights.memory_bytes()
                    + m.key_of.memory_bytes()
                    + m.previous.memory_bytes()
                    + m.flags.memory_bytes();
                m.index.memory_bytes() + vectors + m.dirty.capacity() * 4
            }
            Rows::Keyed { dirty, .. } => dirty.capacity() * 4,
        };
        // The shared keys are counted once, with the left side.
        let keys = if self.port == 0 {
            self.keys.lock().memory_bytes()
        } else {
            0
        };
        own + keys
            + self.next.memory_bytes()
            + self.counts.as_ref().map_or(0, Chunked::memory_bytes)
    }
}

impl Multiset {
    fn new(types: &[DataType]) -> Multiset {
        Multiset {
            index: KeyIndex::of_rows(types),
            weights: Chunked::new(),
            key_of: Chunked::new(),
            previous: Chunked::new(),
            flags: Chunked::new(),
            dirty: Vec::new(),
            linked: 0,
        }
    }

    /// Finds or adds whole rows.
    fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.index
            .intern(columns, &hash_columns(columns, rows), &mut ids);
        let capacity = self.index.capacity();
        self.weights.grow(capacity);
        self.key_of.grow(capacity);
        self.previous.grow(capacity);
        self.flags.grow(capacity);
        ids
    }

    /// Adds to a row's weight: a row with weight zero is in no chain, and leaves the index with the
    /// next seal.
    fn add(
        &mut self,
        side: &mut KeySide,
        next: &mut Chunked<u32>,
        key: u32,
        id: u32,
        weight: i64,
        emptied: &mut Vec<u32>,
    ) {
        let before = self.weights.get(id);
        let after = before + weight;
        self.weights.set(id, after);
        mark_dirty(self.flags.get_mut(id), id, &mut self.dirty);
        if before == 0 && after != 0 {
            self.linked += 1;
            let head = side.heads.get(key);
            self.key_of.set(id, key);
            self.previous.set(id, 0);
            next.set(id, head);
            if head != 0 {
                self.previous.set(head - 1, id + 1);
            }
            side.heads.set(key, id + 1);
        } else if before != 0 && after == 0 {
            self.linked -= 1;
            let (previous, following) = (self.previous.get(id), next.get(id));
            if following != 0 {
                self.previous.set(following - 1, previous);
            }
            if previous != 0 {
                next.set(previous - 1, following);
            } else {
                side.heads.set(key, following);
                if following == 0 {
                    emptied.push(key);
                }
            }
        }
    }
}

fn link_all(side: &mut KeySide, next: &mut Chunked<u32>, key_ids: &[u32], ids: &[u32]) {
    for (key, id) in key_ids.iter().zip(ids) {
        let head = side.heads.get_mut(*key);
        next.set(*id, *head);
        *head = id + 1;
    }
}

fn set_counts(to: &mut Option<Chunked<i64>>, capacity: usize, ids: &[u32], counts: Option<&[i64]>) {
    if let Some(to) = to {
        to.grow(capacity);
        let counts = counts.expect("rows that count their partners come with counts");
        ids.iter()
            .zip(counts)
            .for_each(|(id, count)| to.set(*id, *count));
    }
}

/// Changed rows, by what a seal tells of them.
#[derive(Default)]
struct Sealed {
    /// They are there.
    present: Vec<u32>,
    /// They were told, and are not there any more.
    gone: Vec<u32>,
    /// All that are not there.
    dead: Vec<u32>,
}

impl Sealed {
    /// Of changed rows, whose flags are those of sealed ones then.
    fn of(dirty: &[u32], flags: &mut Chunked<u8>, weights: &Chunked<i64>) -> Sealed {
        let mut sealed = Sealed::default();
        for id in dirty.iter().copied() {
            let flags = flags.get_mut(id);
            if weights.get(id) != 0 {
                *flags = PERSISTED;
                sealed.present.push(id);
                continue;
            }
            if *flags & PERSISTED != 0 {
                sealed.gone.push(id);
            }
            *flags = 0;
            sealed.dead.push(id);
        }
        sealed
    }
}

fn mark_dirty(flags: &mut u8, id: u32, dirty: &mut Vec<u32>) {
    if *flags & DIRTY == 0 {
        *flags |= DIRTY;
        dirty.push(id);
    }
}

fn distinct(columns: &[usize]) -> usize {
    columns
        .iter()
        .enumerate()
        .filter(|(i, c)| !columns[..*i].contains(c))
        .count()
}

fn spec_of(table: u32, fields: Vec<Field>, form: TableForm) -> TableSpec {
    let appended = form == TableForm::Appended;
    let key_columns = if appended { 1 } else { fields.len() };
    let fields: Vec<Field> = if appended {
        [Field::new("_seq", DataType::Int64, false)]
            .into_iter()
            .chain(fields)
            .collect()
    } else {
        fields
            .into_iter()
            .chain([Field::new("_weight", DataType::Int64, false)])
            .collect()
    };
    TableSpec {
        table,
        form,
        schema: Arc::new(Schema::new(fields)),
        key_columns,
    }
}

/// A batch that may have no columns.
fn record_batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("columns have the types of the state")
}
