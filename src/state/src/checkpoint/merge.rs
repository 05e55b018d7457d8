//! From many files of a table to one: the newest-first read of a restore, and compaction.
//!
//! A restore streams the files newest first and remembers, as 128-bit words, the keys it has met in
//! files that an older one may contradict; the oldest files, which hold most rows, only look up.
//! Files of one epoch come from different workers and are disjoint.
//!
//! Compaction is size-tiered over the sequence of epochs: eight neighbouring epochs of one size
//! class become one file of (at most) the next class, so a row is rewritten once per class, a
//! logarithm of the table's size. Only neighbours may be merged: a file stands for an interval of
//! epochs. The merge itself runs over sorted cursors, one per epoch.

use super::FileMeta;
use super::file::{
    EncodedFile, FileReader, FileWriter, OrderedKeys, arrow_error, record_keys, table_rows,
};
use crate::{TableForm, TableSpec};
use arrow::array::*;
use arrow::compute;
use arrow::datatypes::UInt16Type;
use bytes::Bytes;
use hashbrown::HashSet;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use tidemark_common::{Epoch, Result, VNODES};
use xxhash_rust::xxh3::xxh3_128;

/// Epochs of one size class that are merged.
const FAN_IN: usize = 8;
/// Files smaller than this are of the lowest class.
const SMALLEST_BYTES: u64 = 64 * 1024;
/// Rows gathered at a time.
const MERGE_ROWS: usize = 16 * 1024;

/// What should be merged into one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// Files of one table, of neighbouring epochs; all files of each of these epochs.
    pub files: Vec<FileMeta>,
    /// No older file exists: deletes need not be kept.
    pub includes_oldest: bool,
}

/// Picks what to compact among all files of one table, if anything is worth it.
pub fn plan_compaction(files: &[FileMeta]) -> Option<Compaction> {
    let mut epochs: Vec<(Epoch, u64)> = Vec::new();
    let mut sorted: Vec<&FileMeta> = files.iter().collect();
    sorted.sort_by(|a, b| a.epoch.cmp(&b.epoch).then_with(|| a.path.cmp(&b.path)));
    for file in &sorted {
        match epochs.last_mut() {
            Some((epoch, bytes)) if *epoch == file.epoch => *bytes += file.bytes,
            _ => epochs.push((file.epoch, file.bytes)),
        }
    }
    let classes: Vec<u32> = epochs
        .iter()
        .map(|(_, bytes)| {
            (bytes / SMALLEST_BYTES)
                .checked_ilog2()
                .map_or(0, |log| log / 3 + 1)
        })
        .collect();
    let run = (0..=classes.iter().copied().max()?).find_map(|class| neighbours(&classes, class))?;
    let span = epochs[run.start].0..=epochs[run.end - 1].0;
    Some(Compaction {
        files: sorted
            .into_iter()
            .filter(|f| span.contains(&f.epoch))
            .cloned()
            .collect(),
        includes_oldest: run.start == 0,
    })
}

/// A run of epochs, none above `class` and at least [`FAN_IN`] of it; it begins and ends with one
/// of that class.
fn neighbours(classes: &[u32], class: u32) -> Option<Range<usize>> {
    let (mut start, mut last, mut count) = (0, 0, 0);
    for (i, c) in classes.iter().chain([&u32::MAX]).enumerate() {
        if *c > class {
            if count >= FAN_IN {
                return Some(start..last + 1);
            }
            count = 0;
        } else if *c == class {
            if count == 0 {
                start = i;
            }
            last = i;
            count += 1;
        }
    }
    None
}

/// The newest-first read of one table.
pub(super) struct NewestFirst<'a> {
    spec: &'a TableSpec,
    /// Keys met in newer epochs; `None` when no key can be in two files.
    seen: Option<HashSet<u128, BuildHasherDefault<Fold>>>,
    oldest: Epoch,
    /// Whether an older file may contradict the one being read. (Files of one epoch are disjoint,
    /// so keys may be entered at once.)
    insert: bool,
}

impl<'a> NewestFirst<'a> {
    /// For `files`, which will be added newest first.
    pub fn new(spec: &'a TableSpec, files: &[FileMeta]) -> NewestFirst<'a> {
        let oldest = files.iter().map(|f| f.epoch).min().unwrap_or_default();
        let one_epoch = files.iter().all(|f| f.epoch == oldest);
        let disjoint = one_epoch || spec.form == TableForm::Appended;
        let seen = (!disjoint).then(HashSet::default);
        NewestFirst {
            spec,
            seen,
            oldest,
            insert: true,
        }
    }

    /// Hands the rows of `file` that nothing newer hides to `each`.
    pub fn add(
        &mut self,
        file: &FileMeta,
        bytes: Bytes,
        vnodes: Range<usize>,
        each: &mut impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        self.insert = file.epoch > self.oldest;
        let mut reader = FileReader::open(self.spec, file, bytes, vnodes)?;
        while let Some(records) = reader.next()? {
            let visible = self.visible(&records);
            let rows = match visible {
                Some(mask) => compute::filter_record_batch(&records, &mask).map_err(arrow_error)?,
                None => records,
            };
            if rows.num_rows() > 0 {
                each(table_rows(self.spec, &rows)?)?;
            }
        }
        Ok(())
    }

    /// Which records are rows of the table; `None` means all.
    fn visible(&mut self, records: &RecordBatch) -> Option<BooleanArray> {
        let deleted = records.column(1).as_boolean();
        let Some(seen) = &mut self.seen else {
            return (deleted.true_count() > 0)
                .then(|| compute::not(deleted).expect("not of booleans"));
        };
        if seen.is_empty() && !self.insert {
            return (deleted.true_count() > 0)
                .then(|| compute::not(deleted).expect("not of booleans"));
        }
        let vnodes = records.column(0).as_primitive::<UInt16Type>().values();
        let keys = OrderedKeys::encode(&record_keys(self.spec, records), records.num_rows());
        let mask = (0..records.num_rows()).map(|i| {
            let rest = keys.rest(i);
            // A key that fits its prefix leaves the low 56 bits free: the vnode makes it whole.
            let word = if rest.is_empty() {
                keys.prefix[i] | u128::from(vnodes[i])
            } else {
                word_of(rest, vnodes[i])
            };
            let new = if self.insert {
                seen.insert(word)
            } else {
                !seen.contains(&word)
            };
            Some(new && !deleted.value(i))
        });
        Some(mask.collect())
    }
}

/// The 128 bits of hash that stand for a key in a vnode. The vnode is no seed: XXH3 adds a seed to
/// words of the key that it has not mixed yet, so that for short keys a small seed and a small
/// difference of two keys make up for each other.
fn word_of(key: &[u8], vnode: u16) -> u128 {
    const SPREAD: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    xxh3_128(key) ^ u128::from(vnode).wrapping_mul(SPREAD)
}

/// Hashes the one 128-bit word that a key is.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only 128-bit words are hashed");
    }
    fn write_u128(&mut self, v: u128) {
        let wide =
            u128::from((v as u64) ^ ((v >> 64) as u64).rotate_left(32) ^ 0x9E37_79B9_7F4A_7C15)
                * 0xD6E8_FEB8_6659_FD93;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

/// Merges whole files of one table into one, newest record of each key; with `drop_deletes`,
/// deletes are left out.
pub(super) fn merge_files(
    spec: &TableSpec,
    files: Vec<(FileMeta, Bytes)>,
    drop_deletes: bool,
) -> Result<EncodedFile> {
    let mut merge = Merge {
        cursors: Vec::new(),
        slots: Vec::new(),
        picked: Vec::new(),
        writer: FileWriter::new(spec)?,
        drop_deletes,
    };
    for sequence in sequences(files) {
        let mut cursor = Cursor {
            spec,
            files: sequence.into(),
            reader: None,
            keys: OrderedKeys::encode(&[], 0),
            vnodes: UInt16Array::from(Vec::<u16>::new()),
            at: 0,
            slot: 0,
        };
        if cursor.load(&mut merge.slots)? {
            merge.cursors.push(cursor);
        }
    }
    merge.run()?;
    merge.writer.finish()
}

/// The files as sequences that are each sorted by (vnode, key), newest epoch first: files of one
/// epoch follow each other when their vnodes do.
fn sequences(mut files: Vec<(FileMeta, Bytes)>) -> Vec<Vec<(FileMeta, Bytes)>> {
    files.sort_by(|(a, _), (b, _)| b.epoch.cmp(&a.epoch).then(a.vnode_min.cmp(&b.vnode_min)));
    let mut all: Vec<Vec<(FileMeta, Bytes)>> = Vec::new();
    for (file, bytes) in files {
        match all
            .last_mut()
            .and_then(|s| s.last().map(|(l, _)| (l.epoch, l.vnode_max)))
        {
            Some((epoch, vnode_max)) if epoch == file.epoch && vnode_max < file.vnode_min => all
                .last_mut()
                .expect("it has a last file")
                .push((file, bytes)),
            _ => all.push(vec![(file, bytes)]),
        }
    }
    all
}

/// A position in a sorted sequence of files.
struct Cursor<'a> {
    spec: &'a TableSpec,
    files: VecDeque<(FileMeta, Bytes)>,
    reader: Option<FileReader>,
    keys: OrderedKeys,
    vnodes: UInt16Array,
    at: usize,
    /// Where its current batch is among the slots.
    slot: usize,
}

impl Cursor<'_> {
    /// Reads the next batch into a new slot; false at the end.
    fn load(&mut self, slots: &mut Vec<RecordBatch>) -> Result<bool> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some(records) = reader.next()?
            {
                self.keys =
                    OrderedKeys::encode(&record_keys(self.spec, &records), records.num_rows());
                self.vnodes = records.column(0).as_primitive::<UInt16Type>().clone();
                (self.at, self.slot) = (0, slots.len());
                slots.push(records);
                return Ok(true);
            }
            let Some((file, bytes)) = self.files.pop_front() else {
                return Ok(false);
            };
            self.reader = Some(FileReader::open(self.spec, &file, bytes, 0..VNODES)?);
        }
    }

    fn compare(&self, other: &Cursor) -> Ordering {
        self.vnodes
            .value(self.at)
            .cmp(&other.vnodes.value(other.at))
            .then_with(|| self.keys.compare(self.at, &other.keys, other.at))
    }
}

/// A merge under way: cursors newest first; batches they refer to; records picked for the output.
struct Merge<'a> {
    cursors: Vec<Cursor<'a>>,
    slots: Vec<RecordBatch>,
    picked: Vec<(usize, usize)>,
    writer: FileWriter,
    drop_deletes: bool,
}

impl Merge<'_> {
    fn run(&mut self) -> Result<()> {
        while !self.cursors.is_empty() {
            // The least cursor (the newest among equals), and the least of the others: up to that
            // one, records follow without another look.
            let mut least = 0;
            for i in 1..self.cursors.len() {
                if self.cursors[i].compare(&self.cursors[least]) == Ordering::Less {
                    least = i;
                }
            }
            let others = (0..self.cursors.len()).filter(|i| *i != least);
            let second = others.reduce(|a, b| {
                if self.cursors[b].compare(&self.cursors[a]) == Ordering::Less {
                    b
                } else {
                    a
                }
            });
            match second {
                Some(second)
                    if self.cursors[second].compare(&self.cursors[least]) == Ordering::Equal =>
                {
                    self.take_newest(least)?
                }
                Some(second) => {
                    while self.pick(least)?
                        && self.cursors[least].compare(&self.cursors[second]) == Ordering::Less
                    {
                    }
                    self.cursors.retain(|c| c.at < c.vnodes.len());
                }
                None => {
                    while self.pick(least)? {}
                    self.cursors.clear();
                }
            }
        }
        self.flush()
    }

    /// Picks the record of cursor `least` and passes the same key in all older ones.
    fn take_newest(&mut self, least: usize) -> Result<()> {
        for i in (least + 1..self.cursors.len())
            .filter(|i| self.cursors[*i].compare(&self.cursors[least]) == Ordering::Equal)
            .collect::<Vec<_>>()
        {
            self.advance(i)?;
        }
        self.pick(least)?;
        self.cursors.retain(|c| c.at < c.vnodes.len());
        Ok(())
    }

    /// Picks the record of cursor `i` and advances it; false at its end.
    fn pick(&mut self, i: usize) -> Result<bool> {
        let (slot, row) = (self.cursors[i].slot, self.cursors[i].at);
        if !(self.drop_deletes && self.slots[slot].column(1).as_boolean().value(row)) {
            self.picked.push((slot, row));
        }
        let more = self.advance(i)?;
        if self.picked.len() >= MERGE_ROWS || self.slots.len() > 4 * self.cursors.len() + 16 {
            self.flush()?;
        }
        Ok(more)
    }

    fn advance(&mut self, i: usize) -> Result<bool> {
        let cursor = &mut self.cursors[i];
        cursor.at += 1;
        Ok(cursor.at < cursor.vnodes.len() || cursor.load(&mut self.slots)?)
    }

    /// Writes what was picked and lets go of batches that no cursor stands in.
    fn flush(&mut self) -> Result<()> {
        if !self.picked.is_empty() {
            let batches: Vec<&RecordBatch> = self.slots.iter().collect();
            let records =
                compute::interleave_record_batch(&batches, &self.picked).map_err(arrow_error)?;
            self.writer.write(records.columns().to_vec())?;
            self.picked.clear();
        }
        let slots = std::mem::take(&mut self.slots);
        for cursor in &mut self.cursors {
            self.slots.push(slots[cursor.slot].clone());
            cursor.slot = self.slots.len() - 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tidemark_changelog::{hash_columns, vnode_of_hash};

    /// A number and a text of each short length, a date and a text, two numbers.
    #[test]
    fn keys_that_are_alike_have_words_of_their_own() {
        const KEYS: i32 = 10_000;
        let numbers = || Arc::new(Int32Array::from_iter_values(0..KEYS)) as ArrayRef;
        let texts = (0..12).map(|length| {
            let text = "gold, paid, open"[..length].to_string();
            Arc::new(StringArray::from_iter_values(vec![text; KEYS as usize])) as ArrayRef
        });
        let mut seconds: Vec<ArrayRef> = texts.collect();
        seconds.push(Arc::new(Int64Array::from(vec![7; KEYS as usize])));
        for second in seconds {
            for columns in [[numbers(), second.clone()], [second.clone(), numbers()]] {
                let hashes = hash_columns(&columns, KEYS as usize);
                let keys = OrderedKeys::encode(&columns, KEYS as usize);
                let mut met = BTreeMap::new();
                for (i, hash) in hashes.into_iter().enumerate() {
                    let word = word_of(keys.rest(i), vnode_of_hash(hash) as u16);
                    let before = met.insert(word, i);
                    assert_eq!(before, None, "{:?} is key {i}'s word, too", keys.rest(i));
                }
            }
        }
    }
}
