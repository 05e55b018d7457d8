//! The merged rows of a relation: a kind per way of locating them.
//!
//! | kind | located by | a row's weight |
//! | --- | --- | --- |
//! | keyed | the key's id in an index; other columns lie under the same id | 1 |
//! | multiset | the whole row's id in an index | any positive number |
//! | append-only | nothing; rows stay in the order they came | 1 |
//!
//! [`Base::apply`] adds the changes of an epoch: retractions first, then insertions. Of a multiset
//! they are consolidated; of a keyed relation each key goes and comes at most once (if it is one
//! row that came and went, that is found out here). A key that goes stays in the index without a
//! row until the next seal has told of it (its id is *dirty*): so a seal finds everything that
//! changed, and a key that comes back keeps its id. Sealed keys without a row leave the index with
//! the next batch that is applied.

use super::secondary::Secondary;
use crate::chunked::{Bitmap, Chunked};
use crate::{ABSENT, KeyIndex, RowStore, SlotColumns, consolidate};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::HashSet;
use tidemark_changelog::{ChangeBatch, hash_columns};

/// What changed since the last seal, by id of the base's index.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    bits: Bitmap,
    pub(super) ids: Vec<u32>,
    /// Sealed since, perhaps without a row.
    sealed: Vec<u32>,
}

impl Dirty {
    pub(super) fn mark(&mut self, id: u32) {
        self.bits.grow(id as usize + 1);
        if !self.bits.get(id) {
            self.bits.set(id, true);
            self.ids.push(id);
        }
    }

    /// Everything marked has been told.
    pub(super) fn clear(&mut self) {
        for id in &self.ids {
            self.bits.set(*id, false);
        }
        self.sealed.append(&mut self.ids);
    }
}

/// Rows under the ids of an index over some of their columns, each with a weight.
#[derive(Debug)]
pub(super) struct Indexed {
    /// Columns of the index, by position in the relation.
    pub(super) key: Vec<usize>,
    /// The other columns.
    pub(super) others: Vec<usize>,
    pub(super) index: KeyIndex,
    values: SlotColumns,
    weights: Weights,
}

/// Weights per id; zero where there is no row.
#[derive(Debug)]
enum Weights {
    /// At most 1 each.
    Keyed(Bitmap, u64),
    /// Any, and their sum.
    Multiset(Chunked<i64>, u64),
}

impl Weights {
    fn grow(&mut self, capacity: usize) {
        match self {
            Weights::Keyed(present, _) => present.grow(capacity),
            Weights::Multiset(weights, _) => weights.grow(capacity),
        }
    }

    fn get(&self, id: u32) -> i64 {
        match self {
            Weights::Keyed(present, _) => i64::from(present.get(id)),
            Weights::Multiset(weights, _) => weights.get(id),
        }
    }

    fn set(&mut self, id: u32, weight: i64) {
        let before = self.get(id);
        let total = match self {
            Weights::Keyed(present, total) => {
                present.set(id, weight == 1);
                total
            }
            Weights::Multiset(weights, total) => {
                weights.set(id, weight);
                total
            }
        };
        *total = total
            .checked_add_signed(weight - before)
            .expect("the number of rows is not negative");
    }

    fn total(&self) -> u64 {
        match self {
            Weights::Keyed(_, total) | Weights::Multiset(_, total) => *total,
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Weights::Keyed(present, _) => present.memory_bytes(),
            Weights::Multiset(weights, _) => weights.memory_bytes(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Base {
    Indexed(Indexed),
    AppendOnly(RowStore),
}

/// The columns at `columns`, in that order.
pub(super) fn pick(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|c| rows.column(*c).clone()).collect()
}

/// The rows at `rows` of a batch.
pub(super) fn take_rows(batch: &RecordBatch, rows: Vec<u32>) -> RecordBatch {
    if rows.len() == batch.num_rows() && rows.iter().enumerate().all(|(i, r)| i as u32 == *r) {
        return batch.clone();
    }
    let (len, rows) = (rows.len(), UInt32Array::from(rows));
    let columns = batch
        .columns()
        .iter()
        .map(|c| arrow::compute::take(c, &rows, None).expect("rows are within the batch"))
        .collect();
    super::batch_of(&batch.schema(), columns, len)
}

impl Base {
    pub(super) fn new(schema: &SchemaRef, key: Option<&[usize]>, append_only: bool) -> Base {
        let width = schema.fields().len();
        let (key, weights) = match key {
            Some(key) => (key.to_vec(), Weights::Keyed(Bitmap::default(), 0)),
            None if append_only => return Base::AppendOnly(RowStore::new(schema.clone())),
            None => ((0..width).collect(), Weights::Multiset(Chunked::new(), 0)),
        };
        let others: Vec<usize> = (0..width).filter(|c| !key.contains(c)).collect();
        let types = |columns: &[usize]| {
            columns
                .iter()
                .map(|c| schema.field(*c).data_type().clone())
                .collect::<Vec<DataType>>()
        };
        Base::Indexed(Indexed {
            index: match weights {
                Weights::Multiset(..) => KeyIndex::of_rows(&types(&key)),
                Weights::Keyed(..) => KeyIndex::new(&types(&key)),
            },
            values: SlotColumns::new(&types(&others)),
            weights,
            key,
            others,
        })
    }

    /// Adds changes of one epoch, consolidated. `dirty` is where changed ids are marked; `None`
    /// when they are in a checkpoint already.
    pub(super) fn apply(
        &mut self,
        relation: &str,
        changes: &ChangeBatch,
        dirty: &mut Dirty,
        mark: bool,
        secondaries: &mut [Secondary],
    ) {
        match self {
            Base::Indexed(indexed) => indexed.apply(relation, changes, dirty, mark, secondaries),
            Base::AppendOnly(store) => {
                let mut ids = Vec::new();
                store.insert(&repeated(relation, changes), &mut ids);
                for secondary in secondaries {
                    secondary.add(&ids, &store.gather(&secondary.columns, &ids));
                }
            }
        }
    }

    /// Adds rows of a checkpoint that are not there yet, each with its weight, or with 1.
    pub(super) fn load(
        &mut self,
        rows: &RecordBatch,
        weights: Option<&[i64]>,
        secondaries: &mut [Secondary],
    ) {
        let ids = match self {
            Base::Indexed(indexed) => indexed.load(rows, weights),
            Base::AppendOnly(store) => {
                let mut ids = Vec::new();
                store.insert(rows, &mut ids);
                ids
            }
        };
        for secondary in secondaries {
            secondary.add(&ids, &self.gather(&secondary.columns, &ids));
        }
    }

    /// Ids of all rows, each once.
    pub(super) fn ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = match self {
            Base::Indexed(indexed) => indexed.live().collect(),
            Base::AppendOnly(store) => store.live_ids().collect(),
        };
        ids.dedup();
        ids
    }

    /// Which of these rows are left by `delta` (consolidated) as they are, each as often as its
    /// weight says.
    pub(super) fn untouched(&self, ids: Vec<u32>, delta: &ChangeBatch) -> Vec<u32> {
        let Base::Indexed(indexed) = self else {
            return ids;
        };
        let touched: HashSet<u32> = indexed.find(delta.rows()).into_iter().collect();
        self.each(ids.into_iter().filter(|id| !touched.contains(id)).collect())
    }

    /// Each of these rows as often as its weight says.
    pub(super) fn each(&self, ids: Vec<u32>) -> Vec<u32> {
        let Base::Indexed(indexed) = self else {
            return ids;
        };
        let times = |id| std::iter::repeat_n(id, indexed.weight(id) as usize);
        ids.into_iter().flat_map(times).collect()
    }

    /// Number of rows, each as often as its weight says.
    pub(super) fn rows(&self) -> u64 {
        match self {
            Base::Indexed(indexed) => indexed.weights.total(),
            Base::AppendOnly(store) => store.len() as u64,
        }
    }

    /// These columns of these rows.
    pub(super) fn gather(&self, columns: &[usize], ids: &[u32]) -> Vec<ArrayRef> {
        match self {
            Base::Indexed(indexed) => indexed.gather(columns, ids),
            Base::AppendOnly(store) => store.gather(columns, ids),
        }
    }

    /// The rows of base plus `delta` (consolidated): ids of the base, and rows of `delta`, each as
    /// often as its weight says.
    pub(super) fn rows_with(&self, relation: &str, delta: &ChangeBatch) -> (Vec<u32>, Vec<u32>) {
        match self {
            Base::AppendOnly(store) => (store.live_ids().collect(), self.left_by(relation, delta)),
            Base::Indexed(indexed) if delta.is_empty() => (indexed.live().collect(), Vec::new()),
            Base::Indexed(indexed) => {
                let touched = indexed.touched(delta);
                let untouched = indexed.live().filter(|id| !touched.contains(*id));
                (untouched.collect(), self.left_by(relation, delta))
            }
        }
    }

    /// Ids of rows that `delta` is about.
    pub(super) fn touched(&self, delta: &ChangeBatch) -> Bitmap {
        match self {
            Base::Indexed(indexed) if !delta.is_empty() => indexed.touched(delta),
            _ => Bitmap::default(),
        }
    }

    /// Rows of `delta` (consolidated) that are there when it is added, each as often as it is then.
    pub(super) fn left_by(&self, relation: &str, delta: &ChangeBatch) -> Vec<u32> {
        let left: Box<dyn Fn(usize) -> i64> = match self {
            Base::AppendOnly(_) => Box::new(|row| delta.weight(row)),
            Base::Indexed(indexed) => {
                let ids = indexed.find(delta.rows());
                Box::new(move |row| indexed.left_by(relation, ids[row], delta.weight(row)))
            }
        };
        (0..delta.num_rows())
            .flat_map(|row| {
                let times = usize::try_from(left(row)).unwrap_or(0);
                std::iter::repeat_n(row as u32, times)
            })
            .collect()
    }

    /// All ids are below.
    pub(super) fn end(&self) -> u32 {
        match self {
            Base::Indexed(indexed) => indexed.index.capacity() as u32,
            Base::AppendOnly(store) => store.len() as u32,
        }
    }

    /// The first row at `id` or behind it: its id and its weight.
    pub(super) fn live_from(&self, id: u32) -> Option<(u32, u64)> {
        match self {
            Base::Indexed(indexed) => indexed.live_from(id),
            // No row ever leaves, so that ids have no gaps.
            Base::AppendOnly(store) => (id < store.len() as u32).then_some((id, 1)),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Base::Indexed(indexed) => {
                indexed.index.memory_bytes()
                    + indexed.values.memory_bytes()
                    + indexed.weights.memory_bytes()
            }
            Base::AppendOnly(store) => store.memory_bytes(),
        }
    }
}

/// The rows of insertions, each as often as its weight says.
pub(super) fn repeated(relation: &str, changes: &ChangeBatch) -> RecordBatch {
    let Some(weights) = changes.weights() else {
        return changes.rows().clone();
    };
    let repeat = |(row, weight): (usize, &i64)| {
        assert!(
            *weight > 0,
            "{relation}: a row was retracted from an append-only relation"
        );
        std::iter::repeat_n(row as u32, *weight as usize)
    };
    take_rows(
        changes.rows(),
        weights.iter().enumerate().flat_map(repeat).collect(),
    )
}

fn each_once(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Rows of a batch by the sign of their weight.
pub(super) fn by_sign(changes: &ChangeBatch) -> (Vec<u32>, Vec<u32>) {
    (0..changes.num_rows() as u32).partition(|row| changes.weight(*row as usize) < 0)
}

impl Indexed {
    /// An index of no keys yet, of the kind that its own is.
    pub(super) fn no_keys(&self, schema: &SchemaRef) -> KeyIndex {
        let types = self.key.iter();
        let types = types.map(|c| schema.field(*c).data_type().clone());
        let types: Vec<DataType> = types.collect();
        match self.is_multiset() {
            true => KeyIndex::of_rows(&types),
            false => KeyIndex::new(&types),
        }
    }

    pub(super) fn is_multiset(&self) -> bool {
        matches!(self.weights, Weights::Multiset(..))
    }

    pub(super) fn weight(&self, id: u32) -> i64 {
        if id == ABSENT {
            0
        } else {
            self.weights.get(id)
        }
    }

    /// The ids of the keys of `rows`; `ABSENT` where the key is not in the index.
    pub(super) fn find(&self, rows: &RecordBatch) -> Vec<u32> {
        self.find_keys(&pick(rows, &self.key), rows.num_rows())
    }

    pub(super) fn find_keys(&self, keys: &[ArrayRef], rows: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.index.find(keys, &hash_columns(keys, rows), &mut ids);
        ids
    }

    fn apply(
        &mut self,
        relation: &str,
        changes: &ChangeBatch,
        dirty: &mut Dirty,
        mark: bool,
        secondaries: &mut [Secondary],
    ) {
        for id in dirty.sealed.drain(..) {
            if self.weights.get(id) == 0 && !dirty.bits.contains(id) && self.index.is_live(id) {
                self.index.remove(id);
            }
        }
        let ids = self.intern(changes.rows());
        let changed = match secondaries {
            [] => Vec::new(),
            _ => each_once(&ids),
        };
        let there = self.among(&changed);
        secondaries.iter_mut().for_each(|s| s.remove(&there));
        if self.is_multiset() {
            self.apply_multiset(relation, changes, &ids);
        } else if self.goes_from_here(changes, &ids) {
            self.apply_keyed(relation, changes, &ids);
        } else {
            // A row that came and went within the epoch.
            let net = consolidate(&changes.schema(), std::slice::from_ref(changes));
            let net_ids = self.find(net.rows());
            assert!(
                self.goes_from_here(&net, &net_ids),
                "{relation}: a row was retracted that is not there"
            );
            self.apply_keyed(relation, &net, &net_ids);
        }
        let there = self.among(&changed);
        for secondary in secondaries {
            secondary.add(&there, &self.gather(&secondary.columns, &there));
        }
        for id in ids {
            if mark {
                dirty.mark(id);
            } else if self.weights.get(id) == 0
                && !dirty.bits.contains(id)
                && self.index.is_live(id)
            {
                self.index.remove(id);
            }
        }
    }

    /// Finds or adds the keys of some rows, and makes room for what lies under them.
    fn intern(&mut self, rows: &RecordBatch) -> Vec<u32> {
        self.intern_keys(&pick(rows, &self.key), rows.num_rows())
    }

    /// The same of keys alone.
    pub(super) fn intern_keys(&mut self, keys: &[ArrayRef], rows: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.index.intern(keys, &hash_columns(keys, rows), &mut ids);
        self.weights.grow(self.index.capacity());
        self.values.grow(self.index.capacity());
        ids
    }

    /// See [`Base::load`]; the ids of what is new.
    fn load(&mut self, rows: &RecordBatch, weights: Option<&[i64]>) -> Vec<u32> {
        let mut ids = self.intern(rows);
        let mut new_rows: Vec<u32> = (0..ids.len() as u32).collect();
        new_rows.retain(|row| self.weights.get(ids[*row as usize]) == 0);
        if new_rows.len() < ids.len() {
            ids = new_rows.iter().map(|row| ids[*row as usize]).collect();
        }
        for (row, id) in new_rows.iter().zip(&ids) {
            self.weights
                .set(*id, weights.map_or(1, |w| w[*row as usize]));
        }
        let others = pick(rows, &self.others);
        self.values.write_selected(&others, &new_rows, &ids);
        ids
    }

    /// Those of which there is a row.
    fn among(&self, ids: &[u32]) -> Vec<u32> {
        let there = |id: &u32| self.weights.get(*id) > 0;
        ids.iter().copied().filter(there).collect()
    }

    /// Each row that is retracted is in the batch once.
    fn apply_multiset(&mut self, relation: &str, changes: &ChangeBatch, ids: &[u32]) {
        for (row, id) in ids.iter().enumerate() {
            let weight = self.weights.get(*id) + changes.weight(row);
            assert!(
                weight >= 0,
                "{relation}: a row was retracted that is not there"
            );
            self.weights.set(*id, weight);
        }
    }

    /// Whether every retracted row is there.
    fn goes_from_here(&self, changes: &ChangeBatch, ids: &[u32]) -> bool {
        if changes.weights().is_none() {
            return true;
        }
        let gone = by_sign(changes).0;
        let gone_ids: Vec<u32> = gone.iter().map(|r| ids[*r as usize]).collect();
        if gone_ids.iter().any(|id| self.weights.get(*id) == 0) {
            return false;
        }
        let mut unequal = vec![false; gone.len()];
        self.values.mark_unequal(
            &pick(changes.rows(), &self.others),
            &gone,
            &gone_ids,
            &mut unequal,
        );
        !unequal.contains(&true)
    }

    fn apply_keyed(&mut self, relation: &str, changes: &ChangeBatch, ids: &[u32]) {
        let (gone, come) = by_sign(changes);
        let values = pick(changes.rows(), &self.others);
        let ids_of = |rows: &[u32]| rows.iter().map(|r| ids[*r as usize]).collect::<Vec<u32>>();
        for id in ids_of(&gone) {
            self.weights.set(id, 0);
            self.values.clear(id);
        }
        let come_ids = ids_of(&come);
        for (row, id) in come.iter().zip(&come_ids) {
            assert!(
                self.weights.get(*id) == 0 && changes.weight(*row as usize) == 1,
                "{relation}: two rows have one key"
            );
            self.weights.set(*id, 1);
        }
        self.values.write_selected(&values, &come, &come_ids);
    }

    fn gather(&self, columns: &[usize], ids: &[u32]) -> Vec<ArrayRef> {
        let one = |column: &usize| {
            let place = |among: &[usize]| among.iter().position(|c| c == column);
            match place(&self.key) {
                Some(i) => self.index.gather_one(i, ids),
                None => {
                    let place = place(&self.others).expect("the column exists");
                    self.values.gather_one(place, ids)
                }
            }
        };
        columns.iter().map(one).collect()
    }

    fn live(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match &self.weights {
            Weights::Keyed(present, _) => Box::new(present.ids()),
            Weights::Multiset(weights, _) => Box::new(
                (0..weights.len() as u32)
                    .flat_map(|id| std::iter::repeat_n(id, weights.get(id) as usize)),
            ),
        }
    }

    fn live_from(&self, from: u32) -> Option<(u32, u64)> {
        match &self.weights {
            Weights::Keyed(present, _) => present.first_from(from).map(|id| (id, 1)),
            Weights::Multiset(weights, _) => (from..weights.len() as u32)
                .map(|id| (id, weights.get(id) as u64))
                .find(|(_, weight)| *weight > 0),
        }
    }

    /// Ids of the keys of `delta`; what is not in the index has none.
    fn touched(&self, delta: &ChangeBatch) -> Bitmap {
        let mut touched = Bitmap::default();
        touched.grow(self.index.capacity());
        for id in self.find(delta.rows()) {
            if id != ABSENT {
                touched.set(id, true);
            }
        }
        touched
    }

    /// How often a row is there after a change of it.
    fn left_by(&self, relation: &str, id: u32, change: i64) -> i64 {
        let weight = self.weight(id);
        let (left, is_there) = if self.is_multiset() {
            (weight + change, weight + change >= 0)
        } else {
            (change, change > 0 || weight == 1)
        };
        assert!(
            is_there,
            "{relation}: a row was retracted that is not there"
        );
        left
    }
}
