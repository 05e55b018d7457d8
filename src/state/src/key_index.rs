//! Key columns to dense ids, a batch at a time.
//!
//! A table leads from 32 bits of a key's hash (its tag) to its id, see [`table`]. A batch is looked
//! up in three passes, each one tight loop:
//!
//! 1. *Probe.* The first slot with the row's tag is the row's candidate; a row without one is a new
//!    key and takes a slot and an id at once.
//! 2. *Write.* The new keys are appended, column by column.
//! 3. *Verify.* Candidates are compared with their keys, column by column.
//!
//! Rows that fail the third pass (two keys with one tag: one in 2^24 per pair of one vnode) are
//! looked up again one by one. So no pass depends on the key's types except for one loop per
//! column, and any number of columns of any types takes the same path without an encoding of its
//! own.
//!
//! Equality: NULL equals NULL, every NaN equals every other, and -0 equals 0; a key is kept in
//! canonical form. An index of whole rows ([`KeyIndex::of_rows`]) tells -0 from 0 and keeps what it
//! is given: two rows are one only where nobody could tell them apart, and `-0` is another text
//! than `0`. Cost per key: the values' width, 8 bytes of hash, one bit, and about 12 bytes in
//! the table.

mod table;

use crate::ABSENT;
use crate::chunked::{Chunked, Slots};
use crate::column::{SlotColumns, canonical};
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use std::borrow::Cow;
use table::{Table, tag_of};

/// Rows that the probe's prefetch runs ahead.
const AHEAD: usize = 12;

/// A hash index over key columns. Ids are dense and reused after removal; all are below
/// [`KeyIndex::capacity`].
#[derive(Debug)]
pub struct KeyIndex {
    keys: SlotColumns,
    /// Whether there are floats to be put into canonical form.
    floats: bool,
    hashes: Chunked<u64>,
    slots: Slots,
    table: Table,
}

impl KeyIndex {
    /// An index over key columns of these types; without columns there is one key.
    pub fn new(types: &[DataType]) -> KeyIndex {
        let floats = types
            .iter()
            .any(|t| matches!(t, DataType::Float32 | DataType::Float64));
        KeyIndex {
            keys: SlotColumns::new(types),
            floats,
            hashes: Chunked::new(),
            slots: Slots::default(),
            table: Table::new(),
        }
    }

    /// The same over whole rows, which are one only if they are alike.
    pub fn of_rows(types: &[DataType]) -> KeyIndex {
        KeyIndex {
            floats: false,
            ..KeyIndex::new(types)
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All ids are below this.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Finds or adds the key of every row. `hashes` are those of `tidemark_changelog::hash_columns`
    /// over `keys`, one per row. `ids` is cleared and then holds one id per row; equal keys of one
    /// batch get one id.
    pub fn intern(&mut self, keys: &[ArrayRef], hashes: &[u64], ids: &mut Vec<u32>) {
        let keys = &self.canonical(keys);
        ids.clear();
        ids.reserve(hashes.len());
        let (mut known_rows, mut known_ids, mut new_rows, mut new_ids) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut last: Option<(u64, u32)> = None;
        for (row, hash) in hashes.iter().enumerate() {
            if let Some(ahead) = hashes.get(row + AHEAD) {
                self.table.prefetch(tag_of(*ahead));
            }
            let id = match last {
                Some((h, id)) if h == *hash => Ok(id),
                _ => self.table.probe(tag_of(*hash)),
            };
            let id = match id {
                Ok(id) => {
                    known_rows.push(row as u32);
                    known_ids.push(id);
                    id
                }
                Err(at) => {
                    let id = self.slots.take_one();
                    self.table.insert_at(at, tag_of(*hash), id);
                    new_rows.push(row as u32);
                    new_ids.push(id);
                    id
                }
            };
            last = Some((*hash, id));
            ids.push(id);
        }
        self.write(keys, hashes, &new_rows, &new_ids);
        self.verify(keys, &known_rows, &known_ids, |index, row| {
            let id = index.find_one(keys, hashes[row as usize], row);
            ids[row as usize] = if id == ABSENT {
                index.add_one(keys, hashes, row)
            } else {
                id
            };
        });
    }

    /// Finds the key of every row. `ids` is cleared and then holds one id per row, [`ABSENT`] where
    /// the key is unknown.
    pub fn find(&self, keys: &[ArrayRef], hashes: &[u64], ids: &mut Vec<u32>) {
        ids.clear();
        let keys = &self.canonical(keys);
        if let [hash] = hashes {
            return ids.push(self.find_one(keys, *hash, 0));
        }
        ids.reserve(hashes.len());
        let (mut known_rows, mut known_ids) = (Vec::new(), Vec::new());
        for (row, hash) in hashes.iter().enumerate() {
            if let Some(ahead) = hashes.get(row + AHEAD) {
                self.table.prefetch(tag_of(*ahead));
            }
            match self.table.probe(tag_of(*hash)) {
                Ok(id) => {
                    known_rows.push(row as u32);
                    known_ids.push(id);
                    ids.push(id);
                }
                Err(_) => ids.push(ABSENT),
            }
        }
        let mut unequal = vec![false; known_rows.len()];
        self.keys
            .mark_unequal(keys, &known_rows, &known_ids, &mut unequal);
        for (i, _) in unequal.iter().enumerate().filter(|(_, u)| **u) {
            let row = known_rows[i];
            ids[row as usize] = self.find_one(keys, hashes[row as usize], row);
        }
    }

    /// Calls `again` for every row whose candidate is another key.
    fn verify(
        &mut self,
        keys: &[ArrayRef],
        rows: &[u32],
        ids: &[u32],
        mut again: impl FnMut(&mut KeyIndex, u32),
    ) {
        let mut unequal = vec![false; rows.len()];
        self.keys.mark_unequal(keys, rows, ids, &mut unequal);
        for (i, _) in unequal.iter().enumerate().filter(|(_, u)| **u) {
            again(self, rows[i]);
        }
    }

    fn canonical<'a>(&self, keys: &'a [ArrayRef]) -> Cow<'a, [ArrayRef]> {
        match self.floats {
            true => keys.iter().map(canonical).collect(),
            false => Cow::Borrowed(keys),
        }
    }

    fn write(&mut self, keys: &[ArrayRef], hashes: &[u64], rows: &[u32], ids: &[u32]) {
        self.hashes.grow(self.slots.capacity());
        self.keys.grow(self.slots.capacity());
        for (row, id) in rows.iter().zip(ids) {
            self.hashes.set(*id, hashes[*row as usize]);
        }
        self.keys.write_selected(keys, rows, ids);
    }

    fn find_one(&self, keys: &[ArrayRef], hash: u64, row: u32) -> u32 {
        self.table
            .candidates(tag_of(hash))
            .find(|id| self.keys.equals(*id, keys, row as usize))
            .unwrap_or(ABSENT)
    }

    fn add_one(&mut self, keys: &[ArrayRef], hashes: &[u64], row: u32) -> u32 {
        let (id, tag) = (self.slots.take_one(), tag_of(hashes[row as usize]));
        self.table.insert(tag, id);
        self.write(keys, hashes, &[row], &[id]);
        id
    }

    /// Takes a key out. Its id, which must be in use, may be given to another key.
    pub fn remove(&mut self, id: u32) {
        self.slots.give_back(id);
        self.table.remove(tag_of(self.hashes.get(id)), id);
        self.keys.clear(id);
    }

    /// The key columns of these ids, one array per column; [`ABSENT`] gives NULL.
    pub fn gather(&self, ids: &[u32]) -> Vec<ArrayRef> {
        self.keys.gather_all(ids)
    }

    /// A key column of these ids; [`ABSENT`] gives NULL.
    pub fn gather_one(&self, column: usize, ids: &[u32]) -> ArrayRef {
        self.keys.gather_one(column, ids)
    }

    /// These key columns of these ids; [`ABSENT`] gives NULL.
    pub fn gather_columns(&self, columns: &[usize], ids: &[u32]) -> Vec<ArrayRef> {
        self.keys.gather(columns, ids)
    }

    /// The hash given when the key was added.
    #[inline]
    pub fn hash(&self, id: u32) -> u64 {
        self.hashes.get(id)
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
        self.keys.memory_bytes()
            + self.hashes.memory_bytes()
            + self.slots.memory_bytes()
            + self.table.memory_bytes()
    }
}

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;
