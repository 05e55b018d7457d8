//! DISTINCT: each value of a group counts once, however often it occurs. All distinct calls on one
//! column share one table `(group, value)`; calls with different filters are variants of it.
//!
//! Law: a variant passes on +1 when the count of (group, value) among the rows of its filter
//! becomes positive, and -1 when it ceases to be. For an append-only input one bit per variant says
//! all, and a row whose bits are known costs one lookup and one comparison.

use super::lane::mask;
use arrow::array::*;
use arrow::compute;
use arrow::datatypes::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::{Error, Result};
use tidemark_state::KeyIndex;
use tidemark_state::chunked::Chunked;

const DIRTY: u8 = 1;
const SEALED: u8 = 2;

/// Entries that are looked at together when groups are forgotten.
const FORGOTTEN_AT_ONCE: usize = 4096;

/// Values of one column by group, with a bit or a count per variant.
pub(super) struct DistinctTable {
    /// The column.
    pub argument: usize,
    pub data_type: DataType,
    /// The variants' filters.
    pub variants: Vec<Option<usize>>,
    index: KeyIndex,
    presence: Presence,
    flags: Chunked<u8>,
    dirty: Vec<u32>,
    /// What each variant passes on of the current batch.
    pub passed: Vec<Passed>,
    entries: Vec<u32>,
}

/// Rows of the current batch that a variant passes on.
#[derive(Default)]
pub(super) struct Passed {
    pub rows: Vec<u32>,
    pub weights: Vec<i64>,
}

/// By entry, and by variant within an entry.
enum Presence {
    /// Up to eight variants of an append-only input.
    Narrow(Chunked<u8>),
    /// Up to 64 of them.
    Wide(Chunked<u64>),
    Counts(Chunked<i64>),
}

/// What changed since the last seal: groups, values and presence columns of entries that are there;
/// groups and values of those that are gone.
pub(super) struct DistinctChanges {
    pub ids: Vec<u32>,
    pub values: ArrayRef,
    pub presence: Vec<ArrayRef>,
    pub gone_ids: Vec<u32>,
    pub gone_values: ArrayRef,
}

impl DistinctTable {
    pub fn new(
        argument: usize,
        data_type: DataType,
        variants: Vec<Option<usize>>,
        append_only: bool,
    ) -> Result<DistinctTable> {
        if variants.len() > 64 {
            return Err(Error::unsupported(
                "more than 64 different filters of distinct aggregates on one column",
            ));
        }
        let presence = match (append_only, variants.len()) {
            (true, 0..=8) => Presence::Narrow(Chunked::new()),
            (true, _) => Presence::Wide(Chunked::new()),
            (false, _) => Presence::Counts(Chunked::new()),
        };
        let index = KeyIndex::new(&[DataType::UInt32, data_type.clone()]);
        let passed = variants.iter().map(|_| Passed::default()).collect();
        Ok(DistinctTable {
            argument,
            data_type,
            variants,
            index,
            presence,
            flags: Chunked::new(),
            dirty: Vec::new(),
            passed,
            entries: Vec::new(),
        })
    }

    /// Takes a batch whose rows belong to groups `ids`, and leaves in `passed` what each variant
    /// makes of it.
    pub fn update(&mut self, batch: &ChangeBatch, ids: &[u32]) {
        for passed in &mut self.passed {
            passed.rows.clear();
            passed.weights.clear();
        }
        let (rows, masks) = self.selected(batch);
        if masks.is_empty() {
            return;
        }
        let values = batch.column(self.argument);
        match &rows {
            None => self.intern(ids.to_vec(), values),
            Some(rows) => {
                let indices = UInt32Array::from(rows.clone());
                let values =
                    compute::take(values, &indices, None).expect("rows are within the batch");
                self.intern(rows.iter().map(|r| ids[*r as usize]).collect(), &values);
            }
        }
        let row_of = |i: usize| rows.as_ref().map_or(i as u32, |rows| rows[i]);
        match &mut self.presence {
            Presence::Narrow(bits) => {
                for (i, (entry, wanted)) in self.entries.iter().zip(&masks).enumerate() {
                    let known = bits.get_mut(*entry);
                    let new = *wanted as u8 & !*known;
                    if new != 0 {
                        *known |= new;
                        mark(&mut self.flags, &mut self.dirty, *entry);
                        pass(&mut self.passed, u64::from(new), row_of(i));
                    }
                }
            }
            Presence::Wide(bits) => {
                for (i, (entry, wanted)) in self.entries.iter().zip(&masks).enumerate() {
                    let known = bits.get_mut(*entry);
                    let new = *wanted & !*known;
                    if new != 0 {
                        *known |= new;
                        mark(&mut self.flags, &mut self.dirty, *entry);
                        pass(&mut self.passed, new, row_of(i));
                    }
                }
            }
            Presence::Counts(counts) => {
                let width = self.variants.len() as u32;
                for (i, (entry, wanted)) in self.entries.iter().zip(&masks).enumerate() {
                    let (row, mut wanted) = (row_of(i), *wanted);
                    let weight = batch.weight(row as usize);
                    mark(&mut self.flags, &mut self.dirty, *entry);
                    while wanted != 0 {
                        let variant = wanted.trailing_zeros();
                        wanted &= wanted - 1;
                        let count = counts.get_mut(entry * width + variant);
                        let was = *count > 0;
                        *count += weight;
                        if was != (*count > 0) {
                            let passed = &mut self.passed[variant as usize];
                            passed.rows.push(row);
                            passed.weights.push(if was { -1 } else { 1 });
                        }
                    }
                }
            }
        }
    }

    /// The rows that concern a variant (`None` for all) with the variants that each concerns, as
    /// bits.
    fn selected(&self, batch: &ChangeBatch) -> (Option<Vec<u32>>, Vec<u64>) {
        let rows = batch.num_rows();
        let mut masks = vec![0u64; rows];
        for (variant, filter) in self.variants.iter().enumerate() {
            match mask(batch.rows(), *filter, [Some(self.argument), None]) {
                None => masks.iter_mut().for_each(|m| *m |= 1 << variant),
                Some(mask) => mask
                    .set_indices()
                    .for_each(|row| masks[row] |= 1 << variant),
            }
        }
        if masks.iter().all(|m| *m != 0) {
            return (None, masks);
        }
        let kept: Vec<u32> = (0..rows as u32)
            .filter(|r| masks[*r as usize] != 0)
            .collect();
        masks.retain(|m| *m != 0);
        (Some(kept), masks)
    }

    /// Sets `entries` to the entries of these groups and values.
    fn intern(&mut self, ids: Vec<u32>, values: &ArrayRef) {
        let mut hashes = hash_columns(std::slice::from_ref(values), values.len());
        hashes
            .iter_mut()
            .zip(&ids)
            .for_each(|(hash, id)| *hash = with_group(*hash, *id));
        let keys: [ArrayRef; 2] = [Arc::new(UInt32Array::from(ids)), values.clone()];
        self.index.intern(&keys, &hashes, &mut self.entries);
        let capacity = self.index.capacity();
        self.flags.grow(capacity);
        match &mut self.presence {
            Presence::Narrow(bits) => bits.grow(capacity),
            Presence::Wide(bits) => bits.grow(capacity),
            Presence::Counts(counts) => counts.grow(capacity * self.variants.len()),
        }
    }

    fn is_present(&self, entry: u32) -> bool {
        match &self.presence {
            Presence::Narrow(bits) => bits.get(entry) != 0,
            Presence::Wide(bits) => bits.get(entry) != 0,
            Presence::Counts(counts) => self.places(entry).any(|at| counts.get(at) != 0),
        }
    }

    fn places(&self, entry: u32) -> std::ops::Range<u32> {
        let width = self.variants.len() as u32;
        entry * width..(entry + 1) * width
    }

    /// The stored columns after group columns and value.
    pub fn presence_fields(&self) -> Vec<Field> {
        match &self.presence {
            Presence::Counts(_) => (0..self.variants.len())
                .map(|v| Field::new(format!("count_{v}"), DataType::Int64, false))
                .collect(),
            _ => vec![Field::new("variants", DataType::Int64, false)],
        }
    }

    fn presence_columns(&self, entries: &[u32]) -> Vec<ArrayRef> {
        let bits = |of: &dyn Fn(u32) -> i64| {
            vec![Arc::new(Int64Array::from_iter_values(entries.iter().map(|e| of(*e)))) as ArrayRef]
        };
        match &self.presence {
            Presence::Narrow(narrow) => bits(&|e| i64::from(narrow.get(e))),
            Presence::Wide(wide) => bits(&|e| wide.get(e) as i64),
            Presence::Counts(counts) => {
                let width = self.variants.len() as u32;
                let column = |v: u32| {
                    Arc::new(Int64Array::from_iter_values(
                        entries.iter().map(|e| counts.get(e * width + v)),
                    )) as ArrayRef
                };
                (0..width).map(column).collect()
            }
        }
    }

    /// Takes out what changed, of `entries_max` at most; entries that are gone are forgotten.
    pub fn take_changes(&mut self, entries_max: usize) -> Option<DistinctChanges> {
        let mut changes = None;
        while changes.is_none() && !self.dirty.is_empty() {
            let rest = self.dirty.len().saturating_sub(entries_max);
            let dirty = self.dirty.split_off(rest);
            changes = self.changes_of(dirty);
        }
        changes
    }

    fn changes_of(&mut self, dirty: Vec<u32>) -> Option<DistinctChanges> {
        let (here, gone): (Vec<u32>, Vec<u32>) =
            dirty.into_iter().partition(|e| self.is_present(*e));
        let stored_before: Vec<u32> = gone
            .iter()
            .copied()
            .filter(|e| self.flags.get(*e) & SEALED != 0)
            .collect();
        let (ids, values) = self.keys(&here);
        let (gone_ids, gone_values) = self.keys(&stored_before);
        let presence = self.presence_columns(&here);
        here.iter().for_each(|e| self.flags.set(*e, SEALED));
        for entry in gone {
            self.flags.set(entry, 0);
            self.index.remove(entry);
        }
        (ids.len() + gone_ids.len() > 0).then_some(DistinctChanges {
            ids,
            values,
            presence,
            gone_ids,
            gone_values,
        })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Forgets the values of these groups, and answers how many there were.
    pub fn forget(&mut self, groups: &BTreeSet<u32>) -> usize {
        let mut forgotten = 0;
        let entries: Vec<u32> = self.index.live_ids().collect();
        for entries in entries.chunks(FORGOTTEN_AT_ONCE) {
            let of_groups = self.index.gather_one(0, entries);
            let of_groups = of_groups.as_primitive::<UInt32Type>().values();
            for (entry, group) in entries.iter().zip(of_groups) {
                if groups.contains(group) && self.is_present(*entry) {
                    self.clear(*entry);
                    mark(&mut self.flags, &mut self.dirty, *entry);
                    forgotten += 1;
                }
            }
        }
        forgotten
    }

    fn clear(&mut self, entry: u32) {
        let places = self.places(entry);
        match &mut self.presence {
            Presence::Narrow(bits) => bits.set(entry, 0),
            Presence::Wide(bits) => bits.set(entry, 0),
            Presence::Counts(counts) => places.for_each(|at| counts.set(at, 0)),
        }
    }

    /// Groups and values of entries.
    fn keys(&self, entries: &[u32]) -> (Vec<u32>, ArrayRef) {
        let columns = self.index.gather(entries);
        (
            columns[0].as_primitive::<UInt32Type>().values().to_vec(),
            columns[1].clone(),
        )
    }

    /// Takes stored entries back.
    pub fn load(&mut self, ids: Vec<u32>, values: &ArrayRef, presence: &[ArrayRef]) {
        self.intern(ids, values);
        let width = self.variants.len() as u32;
        for (v, column) in presence.iter().enumerate() {
            for (entry, stored) in self
                .entries
                .iter()
                .zip(column.as_primitive::<Int64Type>().values())
            {
                match &mut self.presence {
                    Presence::Narrow(bits) => bits.set(*entry, *stored as u8),
                    Presence::Wide(bits) => bits.set(*entry, *stored as u64),
                    Presence::Counts(counts) => counts.set(entry * width + v as u32, *stored),
                }
            }
        }
        self.entries.iter().for_each(|e| self.flags.set(*e, SEALED));
    }

    pub fn memory_bytes(&self) -> usize {
        let presence = match &self.presence {
            Presence::Narrow(bits) => bits.memory_bytes(),
            Presence::Wide(bits) => bits.memory_bytes(),
            Presence::Counts(counts) => counts.memory_bytes(),
        };
        self.index.memory_bytes() + presence + self.flags.memory_bytes() + self.dirty.capacity() * 4
    }
}

#[inline(always)]
fn mark(flags: &mut Chunked<u8>, dirty: &mut Vec<u32>, entry: u32) {
    let flag = flags.get_mut(entry);
    if *flag & DIRTY == 0 {
        *flag |= DIRTY;
        dirty.push(entry);
    }
}

#[inline(always)]
fn pass(passed: &mut [Passed], mut variants: u64, row: u32) {
    while variants != 0 {
        let to = &mut passed[variants.trailing_zeros() as usize];
        to.rows.push(row);
        to.weights.push(1);
        variants &= variants - 1;
    }
}

/// The hash of a value within a group. It never leaves the process.
#[inline(always)]
fn with_group(hash: u64, id: u32) -> u64 {
    let mut h = hash ^ u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    h = (h ^ h >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    h ^ h >> 29
}
