//! What a guard itself has written to one table, with an index by the table's key.
//!
//! A statement looks its keys up piece by piece, and each time among all that its transaction has
//! written before. So each row is hashed once, when somebody first looks: the index has the place
//! of the newest row of a hash, and each place that of the one before. Rows of another key with the
//! same hash are told apart by their keys.

use super::encoded_keys;
use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use tidemark_changelog::{ChangeBatch, hash_columns};

/// The changes in the order in which they were written.
#[derive(Default)]
pub(super) struct OwnWrites {
    changes: Vec<ChangeBatch>,
    index: Mutex<KeyIndex>,
}

/// Where the rows of a key are.
#[derive(Default)]
struct KeyIndex {
    /// How many of the changes are in it.
    batches: usize,
    /// The newest place of each hash.
    newest: HashMap<u64, usize>,
    places: Vec<Place>,
}

struct Place {
    batch: usize,
    row: u32,
    before: Option<usize>,
}

impl KeyIndex {
    /// Takes in what was written since the last time.
    fn extend(&mut self, changes: &[ChangeBatch], key: &[usize]) {
        for (batch, changes) in changes.iter().enumerate().skip(self.batches) {
            let columns = columns_of(changes, key);
            for (row, hash) in (0..).zip(hash_columns(&columns, changes.num_rows())) {
                let before = self.newest.insert(hash, self.places.len());
                self.places.push(Place { batch, row, before });
            }
        }
        self.batches = changes.len();
    }

    /// The places of a hash.
    fn find(&self, hash: u64) -> impl Iterator<Item = &Place> {
        let newest = self.newest.get(&hash).map(|at| &self.places[*at]);
        std::iter::successors(newest, |place| place.before.map(|at| &self.places[at]))
    }
}

fn columns_of(changes: &ChangeBatch, key: &[usize]) -> Vec<ArrayRef> {
    let columns = key.iter().map(|k| changes.rows().column(*k).clone());
    columns.collect()
}

impl OwnWrites {
    /// More was written.
    pub(super) fn push(&mut self, changes: ChangeBatch) {
        self.changes.push(changes);
    }

    /// Takes back what was written behind the first `length` changes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.changes.truncate(length);
        let index = self.index.get_mut();
        if index.batches > length {
            *index = KeyIndex::default();
        }
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(self).changes
    }

    /// The changes, to leave out rows of them.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, ChangeBatch> {
        *self.index.get_mut() = KeyIndex::default();
        self.changes.iter_mut()
    }

    /// The changes of rows with these keys, which are also encoded; `key` are the columns that a
    /// row has them in.
    pub(super) fn of_keys(
        &self,
        key: &[usize],
        keys: &[ArrayRef],
        encoded: &[Vec<u8>],
    ) -> Vec<ChangeBatch> {
        if self.changes.is_empty() {
            return Vec::new();
        }
        let mut rows: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let hashes: HashSet<u64> = hash_columns(keys, encoded.len()).into_iter().collect();
        let mut index = self.index.lock();
        index.extend(&self.changes, key);
        for place in hashes.into_iter().flat_map(|hash| index.find(hash)) {
            rows.entry(place.batch).or_default().push(place.row);
        }
        drop(index);
        let wanted: HashSet<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        let found = rows.into_iter().map(|(batch, mut rows)| {
            rows.sort_unstable();
            let found = self.changes[batch].take(&UInt32Array::from(rows));
            let keys = encoded_keys(found.rows(), key);
            let is_wanted = keys.iter().map(|k| wanted.contains(k.as_slice()));
            let mask = BooleanArray::from(is_wanted.collect::<Vec<_>>());
            match mask.true_count() == found.num_rows() {
                true => found,
                false => found.filter(&mask),
            }
        });
        found.collect()
    }
}

impl Deref for OwnWrites {
    type Target = [ChangeBatch];

    fn deref(&self) -> &[ChangeBatch] {
        &self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;
    use std::sync::Arc;
    use tidemark_changelog::key::encode_columns;
    use tidemark_common::random::Random;

    /// Rows (value, key in two columns) with weights.
    type Rows = Vec<(i64, (String, i64), i64)>;

    const KEY: [usize; 2] = [1, 2];

    fn key_columns(keys: &[(String, i64)]) -> Vec<ArrayRef> {
        let texts = StringArray::from_iter_values(keys.iter().map(|k| &k.0));
        let numbers = Int64Array::from_iter_values(keys.iter().map(|k| k.1));
        vec![Arc::new(texts), Arc::new(numbers)]
    }

    fn batch(rows: &Rows) -> ChangeBatch {
        let keys: Vec<_> = rows.iter().map(|r| r.1.clone()).collect();
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let mut columns = key_columns(&keys).into_iter();
        let mut next = || columns.next().unwrap();
        let columns = [("v", values), ("a", next()), ("b", next())];
        let rows_of = RecordBatch::try_from_iter(columns).unwrap();
        ChangeBatch::new(rows_of, rows.iter().map(|r| r.2).collect())
    }

    fn found(own: &OwnWrites, keys: &[(String, i64)]) -> Vec<(i64, i64)> {
        let columns = key_columns(keys);
        let mut encoded = vec![Vec::new(); keys.len()];
        encode_columns(&columns, &mut encoded);
        let of = |b: ChangeBatch| {
            let values = b.rows().column(0).as_primitive::<Int64Type>().clone();
            let rows = 0..b.num_rows();
            rows.map(move |row| (values.value(row), b.weight(row)))
        };
        let found = own.of_keys(&KEY, &columns, &encoded);
        found.into_iter().flat_map(of).collect()
    }

    /// Random writes, some of them taken back, against a plain list.
    #[test]
    fn the_rows_of_keys_are_found_in_the_order_of_their_writing() {
        let mut random = Random(1);
        let mut key = move || (format!("k{}", random.below(5)), random.below(5) as i64);
        let mut random = Random(2);
        for _ in 0..50 {
            let (mut own, mut all) = (OwnWrites::default(), Vec::<Rows>::new());
            for value in 0..40 {
                match random.below(8) {
                    0 => {
                        let length = random.below(all.len() + 1);
                        own.truncate(length);
                        all.truncate(length);
                    }
                    1 => {
                        let emptied = random.below(all.len());
                        if let Some(changes) = own.iter_mut().nth(emptied) {
                            *changes = batch(&Rows::new());
                            all[emptied].clear();
                        }
                    }
                    2 if random.one_in(4) => {
                        assert_eq!(own.take().len(), all.len());
                        all.clear();
                    }
                    _ => {
                        let rows = 0..random.below(5) as i64;
                        let row =
                            |n| (value * 10 + n, key(), if random.one_in(3) { -1 } else { 1 });
                        all.push(rows.map(row).collect());
                        own.push(batch(all.last().unwrap()));
                    }
                }
                let wanted: Vec<_> = (0..random.below(4)).map(|_| key()).collect();
                let rows = all.iter().flatten().filter(|r| wanted.contains(&r.1));
                let expected: Vec<(i64, i64)> = rows.map(|r| (r.0, r.2)).collect();
                assert_eq!(found(&own, &wanted), expected);
            }
        }
    }
}
