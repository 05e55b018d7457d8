//! The index against a map from the rows' texts to ids, over every type, with good hashes and with
//! ones so weak that most keys share a tag.

use super::*;
use crate::testing::{Random, column, row_texts, texts, types};
use std::collections::HashMap;
use tidemark_changelog::hash_columns;

struct Model {
    index: KeyIndex,
    ids: HashMap<String, u32>,
    types: Vec<DataType>,
    mask: u64,
    nulls: bool,
    /// What tells one from another.
    texts: fn(&[ArrayRef], usize) -> Vec<String>,
}

impl Model {
    fn batch(&self, rng: &mut Random) -> (Vec<ArrayRef>, Vec<u64>, Vec<String>) {
        let rows = rng.below(40);
        let keys: Vec<ArrayRef> = self
            .types
            .iter()
            .map(|t| column(rng, t, rows, 30, self.nulls))
            .collect();
        // Slices have offsets.
        let from = rng.below(rows + 1);
        let keys: Vec<ArrayRef> = keys.iter().map(|k| k.slice(from, rows - from)).collect();
        let rows = rows - from;
        let hashes = hash_columns(&keys, rows)
            .into_iter()
            .map(|h| h & self.mask)
            .collect();
        let texts = (self.texts)(&keys, rows);
        (keys, hashes, texts)
    }

    fn step(&mut self, rng: &mut Random) {
        let (keys, hashes, texts) = self.batch(rng);
        let mut ids = vec![7; 3];
        match rng.below(3) {
            0 => {
                self.index.find(&keys, &hashes, &mut ids);
                let expected: Vec<u32> = texts
                    .iter()
                    .map(|t| self.ids.get(t).copied().unwrap_or(ABSENT))
                    .collect();
                assert_eq!(ids, expected);
            }
            1 => {
                self.index.intern(&keys, &hashes, &mut ids);
                assert_eq!(ids.len(), texts.len());
                for ((text, id), hash) in texts.into_iter().zip(&ids).zip(hashes) {
                    assert_eq!(*self.ids.entry(text).or_insert(*id), *id);
                    assert_eq!(self.index.hash(*id), hash);
                }
            }
            _ => {
                let victims: Vec<String> = self
                    .ids
                    .keys()
                    .filter(|_| rng.below(3) == 0)
                    .cloned()
                    .collect();
                victims
                    .iter()
                    .for_each(|v| self.index.remove(self.ids.remove(v).unwrap()));
            }
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.index.len(), self.ids.len());
        let live: Vec<u32> = self.index.live_ids().collect();
        let gathered = (self.texts)(&self.index.gather(&live), live.len());
        let found: HashMap<String, u32> = gathered.into_iter().zip(live.iter().copied()).collect();
        assert_eq!(found, self.ids);
        assert!(
            live.iter()
                .all(|id| (*id as usize) < self.index.capacity() && self.index.is_live(*id))
        );
        let mut absent = live;
        absent.push(ABSENT);
        assert!(
            self.index
                .gather(&absent)
                .iter()
                .all(|c| c.is_null(c.len() - 1))
        );
    }
}

#[test]
fn agrees_with_a_map_over_all_types_and_hashes() {
    let mut rng = Random(11);
    let mut shapes: Vec<Vec<DataType>> = types().into_iter().map(|t| vec![t]).collect();
    shapes.extend([
        vec![],
        vec![DataType::Int64, DataType::Int32],
        vec![DataType::Utf8, DataType::Int64, DataType::Float64],
        types(),
    ]);
    for types in shapes {
        for mask in [u64::MAX, 0x3, 0x3_0000_0007, 0] {
            for nulls in [false, true] {
                for of_rows in [false, true] {
                    let (index, texts): (_, fn(&[ArrayRef], usize) -> Vec<String>) = match of_rows {
                        false => (KeyIndex::new(&types), texts),
                        true => (KeyIndex::of_rows(&types), row_texts),
                    };
                    let mut model = Model {
                        index,
                        ids: HashMap::new(),
                        types: types.clone(),
                        mask,
                        nulls,
                        texts,
                    };
                    (0..40).for_each(|_| model.step(&mut rng));
                }
            }
        }
    }
}

#[test]
fn many_keys_come_and_go() {
    let mut index = KeyIndex::new(&[DataType::Int64]);
    let keys = |range: std::ops::Range<i64>| -> Vec<ArrayRef> {
        vec![std::sync::Arc::new(
            arrow::array::Int64Array::from_iter_values(range),
        )]
    };
    let mut ids = Vec::new();
    for round in 0..3 {
        let batch = keys(0..200_000);
        index.intern(&batch, &hash_columns(&batch, 200_000), &mut ids);
        assert_eq!(
            (index.len(), index.capacity()),
            (200_000, 200_000),
            "round {round}: ids are used again"
        );
        let mut again = Vec::new();
        index.find(&batch, &hash_columns(&batch, 200_000), &mut again);
        assert_eq!(ids, again);
        ids.iter().for_each(|id| index.remove(*id));
        assert!(index.is_empty() && index.live_ids().next().is_none());
    }
}
