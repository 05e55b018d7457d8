//! Changes cut into parts that have no key in common, so that what is to be done with all of them
//! together can be done part by part, with rests in between.
//!
//! Law: the parts together are the changes, rows of one key are in one part, and in the order that
//! they had. A part has some thousand rows, more where one key has more. Changes that are few
//! are one part, as they are. Cost: 8 bytes a row beside the changes, and a part at a time.

use arrow::array::ArrayRef;
use arrow::compute::interleave_record_batch;
use tidemark_changelog::{ChangeBatch, hash_columns};

/// Rows of a part, about; few in this crate's own tests, where changes are few.
const PART_ROWS: usize = if cfg!(test) { 4 } else { 4096 };

/// Which part a key belongs to, by its hash: as many parts as a number of rows is worth.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    bits: u32,
}

impl Parts {
    /// For so many rows.
    pub fn of(rows: usize) -> Parts {
        Parts::sized(rows, PART_ROWS)
    }

    /// Few more rows than one part has are not worth a cut.
    fn sized(rows: usize, part_rows: usize) -> Parts {
        let bits = (rows / part_rows).next_power_of_two().ilog2();
        Parts {
            bits: if rows < 2 * part_rows {
                0
            } else {
                bits.min(16)
            },
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        1 << self.bits
    }

    /// The part of a hash. Rows that meet on one worker have bits of their hashes in common: those
    /// that decide here are others.
    pub fn of_hash(self, hash: u64) -> usize {
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed.checked_shr(64 - self.bits).unwrap_or(0) as usize
    }
}

/// See the module.
#[derive(Debug)]
pub struct Apart {
    batches: Vec<ChangeBatch>,
    /// Batch and row, part by part; empty if there is one part.
    order: Vec<(u32, u32)>,
    /// Where each part ends in `order`.
    ends: Vec<usize>,
}

impl Apart {
    /// Cuts `batches` into `parts` by the columns at `key`, or all where that is empty. Calls
    /// `rest` after each batch.
    pub fn new(
        batches: Vec<ChangeBatch>,
        key: &[usize],
        parts: Parts,
        rest: &mut dyn FnMut(),
    ) -> Apart {
        let mut apart = Apart {
            batches,
            order: Vec::new(),
            ends: vec![0; parts.count()],
        };
        if parts.count() == 1 {
            return apart;
        }
        let mut places: Vec<u16> = Vec::new();
        for batch in &apart.batches {
            let columns: Vec<ArrayRef> = match key {
                [] => batch.rows().columns().to_vec(),
                key => key.iter().map(|k| batch.column(*k).clone()).collect(),
            };
            for hash in hash_columns(&columns, batch.num_rows()) {
                let part = parts.of_hash(hash);
                apart.ends[part] += 1;
                places.push(part as u16);
            }
            rest();
        }
        let mut next = Vec::with_capacity(parts.count());
        let mut end = 0;
        for count in &mut apart.ends {
            next.push(end);
            end += *count;
            *count = end;
        }
        apart.order = vec![(0, 0); places.len()];
        let mut places = places.into_iter();
        for (at, batch) in apart.batches.iter().enumerate() {
            for (row, part) in (0..batch.num_rows()).zip(&mut places) {
                let place = &mut next[part as usize];
                apart.order[*place] = (at as u32, row as u32);
                *place += 1;
            }
            rest();
        }
        apart
    }

    /// How many parts there are; some may have no rows.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The changes of a part.
    pub fn part(&self, part: usize) -> Vec<ChangeBatch> {
        if self.ends.len() == 1 {
            return self.batches.clone();
        }
        let start = part.checked_sub(1).map_or(0, |before| self.ends[before]);
        let order = &self.order[start..self.ends[part]];
        if order.is_empty() {
            return Vec::new();
        }
        let rows: Vec<_> = self.batches.iter().map(ChangeBatch::rows).collect();
        let places = order.iter().map(|(at, row)| (*at as usize, *row as usize));
        let rows = interleave_record_batch(&rows, &places.collect::<Vec<_>>())
            .expect("batches share a schema");
        let weight = |(at, row): &(u32, u32)| self.batches[*at as usize].weight(*row as usize);
        vec![ChangeBatch::new(rows, order.iter().map(weight).collect())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    const ROWS: usize = 4096;

    /// Key, number, weight.
    fn rows(batches: &[ChangeBatch]) -> Vec<(i64, i64, i64)> {
        let of = |b: &ChangeBatch| {
            let (k, n) = (b.column(0).clone(), b.column(1).clone());
            let (k, n) = (k.as_primitive::<Int64Type>(), n.as_primitive::<Int64Type>());
            let row = |i| (k.value(i), n.value(i), b.weight(i));
            (0..b.num_rows()).map(row).collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect()
    }

    fn random(rng: &mut Random, rows: usize) -> Vec<ChangeBatch> {
        let (mut batches, mut number) = (Vec::new(), 0);
        while number < rows {
            let count = 1 + rng.below(3000).min(rows - number - 1);
            let keys = Int64Array::from_iter_values((0..count).map(|_| rng.below(5000) as i64));
            let numbers = (number..number + count).map(|n| n as i64);
            let columns: [(&str, ArrayRef); 2] = [
                ("k", Arc::new(keys)),
                ("n", Arc::new(Int64Array::from_iter_values(numbers))),
            ];
            let weights = (0..count).map(|_| 1 - 2 * rng.below(2) as i64).collect();
            number += count;
            let columns = RecordBatch::try_from_iter(columns).unwrap();
            batches.push(ChangeBatch::new(columns, weights));
        }
        batches
    }

    #[test]
    fn parts_have_no_key_in_common_and_are_the_changes_in_their_order() {
        let mut rng = Random(7);
        for count in [0, 1, ROWS, 3 * ROWS, 20 * ROWS + 1] {
            let changes = random(&mut rng, count);
            let (all, mut rests) = (rows(&changes), 0);
            let apart = Apart::new(
                changes.clone(),
                &[0],
                Parts::sized(count, ROWS),
                &mut || rests += 1,
            );
            let parts: Vec<_> = (0..apart.count()).map(|p| rows(&apart.part(p))).collect();
            if count < 2 * ROWS {
                assert_eq!((parts.len(), rests), (1, 0));
            } else {
                assert!(parts.len() >= count / ROWS && rests == 2 * changes.len());
                assert!(parts.iter().all(|p| p.len() < 2 * ROWS));
            }
            let mut seen = BTreeSet::new();
            for part in &parts {
                let keys: BTreeSet<i64> = part.iter().map(|row| row.0).collect();
                assert!(
                    keys.iter().all(|k| seen.insert(*k)),
                    "a key is in two parts"
                );
            }
            let by_key = |rows: &mut dyn Iterator<Item = (i64, i64, i64)>| {
                let mut by_key: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
                rows.for_each(|(k, n, weight)| by_key.entry(k).or_default().push((n, weight)));
                by_key
            };
            assert_eq!(
                by_key(&mut all.into_iter()),
                by_key(&mut parts.into_iter().flatten())
            );
        }
    }
}
