//! From many files of a table to one: the newest-first read of a restore, and compaction.
//!
//! A restore streams the files newest first and remembers, as 128-bit words, the keys it has met in
//! files that an older one may contradict; the oldest files, which hold most rows, only look up. Of
//! a table that knows which keys it has, those are the keys of deletes alone.
//! Files of one epoch come from different workers and are disjoint. Where that is many keys, it
//! goes over the files several times, for some vnodes each.
//!
//! Compaction is size-tiered over the sequence of epochs: eight neighbouring epochs of one size
//! class become one file of (at most) the next class, so a row is rewritten once per class, a
//! logarithm of the table's size. Only neighbours may be merged: a file stands for an interval of
//! epochs. The merge itself runs over sorted cursors, one per epoch, of which each has one row
//! group in memory. What comes out goes on in a next file when one is full.

use super::file::{
    EncodedFile, FILE_BYTES, FileWriter, OrderedKeys, arrow_error, record_keys, table_rows,
};
use super::read::{Piece, Records, Sequence};
use super::{CheckpointStore, FileMeta};
use crate::{TableForm, TableSpec};
use arrow::array::*;
use arrow::compute;
use arrow::datatypes::UInt16Type;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashSet;
use std::cmp::Ordering;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::time::{Duration, Instant};
use tidemark_common::{Epoch, Error, Result, VNODES, machine};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_128;

/// Epochs of one size class that are merged.
const FAN_IN: usize = 8;
/// And at most: whoever is behind goes on in steps of which each ends soon.
const FAN_IN_MAX: usize = 3 * FAN_IN;
/// Files of a merge that are opened at a time: a store may take its time to answer.
const OPENED_AT_ONCE: usize = 8;
/// Files smaller than this are of the lowest class.
const SMALLEST_BYTES: u64 = 64 * 1024;
/// Small files that are sequences by themselves: each record is looked for among them all.
const CURSORS_MAX: usize = 96;
/// A merge of so many bytes ends soon.
const SOON_BYTES: u64 = 2 << 20;
/// Rows gathered at a time.
const MERGE_ROWS: usize = 16 * 1024;
/// Bytes of decoded rows that wait to be gathered.
const MERGE_BYTES: usize = 16 << 20;
/// Keys that a restore remembers at a time, about.
const SEEN_MAX: u64 = if cfg!(test) { 200 } else { 1 << 20 };

/// What should be merged into one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// Files of one table, of neighbouring epochs; all files of each of these epochs.
    pub files: Vec<FileMeta>,
    /// No older file exists: deletes need not be kept.
    pub includes_oldest: bool,
}

impl Compaction {
    /// Of what is merged: the same comes out of the same.
    pub(super) fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for file in &self.files {
            hasher.update(file.path.as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(&[u8::from(self.includes_oldest)]);
        hasher.finalize()
    }
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

/// A run of epochs, none above `class` and at least [`FAN_IN`] of it, the oldest [`FAN_IN_MAX`] if
/// they are more; it begins and ends with one of that class.
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
            if count == FAN_IN_MAX {
                return Some(start..last + 1);
            }
        }
    }
    None
}

/// Whether no key is in two of the files.
fn are_disjoint(spec: &TableSpec, files: &[FileMeta]) -> bool {
    spec.form == TableForm::Appended || files.iter().all(|f| f.epoch == files[0].epoch)
}

fn oldest_of(files: &[FileMeta]) -> Epoch {
    files.iter().map(|f| f.epoch).min().unwrap_or_default()
}

/// `vnodes` in parts, of which each asks to remember [`SEEN_MAX`] keys or so.
pub(super) fn spans(
    spec: &TableSpec,
    files: &[FileMeta],
    vnodes: Range<usize>,
    remembers: Remembers,
) -> Vec<Range<usize>> {
    let oldest = oldest_of(files);
    let keys = |f: &FileMeta| {
        let (start, end) = (f.vnode_min as usize, f.vnode_max as usize + 1);
        let wanted = end.min(vnodes.end).saturating_sub(start.max(vnodes.start));
        let keys = match remembers {
            Remembers::All => f.rows,
            Remembers::Deletes => f.deletes,
        };
        keys * wanted as u64 / (end - start) as u64
    };
    let newer = files.iter().filter(|f| f.epoch > oldest);
    let keys: u64 = match are_disjoint(spec, files) {
        true => 0,
        false => newer.map(keys).sum(),
    };
    let parts = (keys.div_ceil(SEEN_MAX) as usize).clamp(1, vnodes.len().max(1));
    let starts = vnodes.clone().step_by(vnodes.len().div_ceil(parts).max(1));
    let step = vnodes.len().div_ceil(parts);
    starts.map(|s| s..(s + step).min(vnodes.end)).collect()
}

/// Which keys of newer files a read has to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remembers {
    /// All.
    All,
    /// Those that were deleted: whoever gets the rows knows which it has.
    Deletes,
}

/// Keys of one vnode.
type Seen = HashSet<u128, BuildHasherDefault<Fold>>;

/// The newest-first read of one table.
pub(super) struct NewestFirst<'a> {
    spec: &'a TableSpec,
    /// Keys met in newer epochs, by vnode; `None` when no key can be in two files. Records come
    /// vnode by vnode, so that what is worked with stays in the cache.
    seen: Option<Vec<Seen>>,
    oldest: Epoch,
    /// Whether an older file may contradict the one being read. (Files of one epoch are disjoint,
    /// so keys may be entered at once.)
    insert: bool,
    remembers: Remembers,
}

impl<'a> NewestFirst<'a> {
    /// For `files`, whose pieces will be added newest first.
    pub fn new(spec: &'a TableSpec, files: &[FileMeta], remembers: Remembers) -> NewestFirst<'a> {
        NewestFirst {
            spec,
            seen: (!are_disjoint(spec, files)).then(|| vec![Seen::default(); VNODES]),
            oldest: oldest_of(files),
            insert: true,
            remembers,
        }
    }

    /// Hands the rows of `vnodes` that nothing newer hides to `each`.
    pub fn add(
        &mut self,
        piece: Piece,
        vnodes: Range<usize>,
        each: &mut impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        self.insert = piece.file().epoch > self.oldest;
        let mut reader = piece.records(vnodes)?;
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
        let vnodes = records.column(0).as_primitive::<UInt16Type>().values();
        let all = self.remembers == Remembers::All;
        let insert = self.insert && (all || deleted.true_count() > 0);
        let here = usize::from(vnodes[0])..=usize::from(vnodes[vnodes.len() - 1]);
        let is_known = |seen: &&mut Vec<Seen>| insert || !seen[here].iter().all(Seen::is_empty);
        let Some(seen) = self.seen.as_mut().filter(is_known) else {
            return (deleted.true_count() > 0)
                .then(|| compute::not(deleted).expect("not of booleans"));
        };
        let keys = OrderedKeys::encode(&record_keys(self.spec, records), records.num_rows());
        let mut mask = BooleanBufferBuilder::new(records.num_rows());
        for run in vnodes.chunk_by(|a, b| a == b) {
            let (seen, vnode, first) = (&mut seen[usize::from(run[0])], run[0], mask.len());
            for i in first..first + run.len() {
                let rest = keys.rest(i);
                // A key that fits its prefix leaves the low 56 bits free: the vnode makes it whole.
                let word = if rest.is_empty() {
                    keys.prefix[i] | u128::from(vnode)
                } else {
                    word_of(rest, vnode)
                };
                let is_deleted = deleted.value(i);
                let new = if insert && (all || is_deleted) {
                    seen.insert(word)
                } else {
                    !seen.contains(&word)
                };
                mask.append(new && !is_deleted);
            }
        }
        Some(BooleanArray::new(mask.finish(), None))
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

/// How a merge goes on beside everything else: it works half of the time, unless it ends soon, and
/// no longer than somebody waits for it.
pub(super) struct Pace {
    /// Whoever waits holds the other end.
    wanted: oneshot::Receiver<()>,
    ends_soon: bool,
    worked_since: Instant,
}

impl Pace {
    /// That of a merge of these files, and what it lives by.
    pub fn of(files: &[FileMeta]) -> (Pace, oneshot::Sender<()>) {
        let (waits, wanted) = oneshot::channel();
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let pace = Pace {
            wanted,
            ends_soon: bytes <= SOON_BYTES,
            worked_since: machine::now(),
        };
        (pace, waits)
    }

    /// So long it only waited for the store.
    fn waited(&mut self, time: Duration) {
        self.worked_since += time;
    }

    /// Rests after a piece of work. Ends at once when nobody waits any more.
    fn rest(&mut self) -> Result<()> {
        let pause = match self.ends_soon {
            true => Duration::ZERO,
            false => machine::elapsed(self.worked_since),
        };
        let wanted = &mut self.wanted;
        if machine::block_on(machine::timeout(pause, wanted)).is_some() {
            return Err(Error::internal("a compaction that nobody waits for ends"));
        }
        self.worked_since = machine::now();
        Ok(())
    }
}

/// Where a merge reads.
struct Reading<'a> {
    store: &'a CheckpointStore,
    spec: &'a TableSpec,
    pace: Pace,
}

/// Merges files of one table, newest record of each key, and hands what comes out to `finished`,
/// one file at least. Without older files deletes are left out.
pub(super) fn merge_files(
    store: &CheckpointStore,
    spec: &TableSpec,
    compaction: Compaction,
    pace: Pace,
    finished: impl FnMut(EncodedFile) -> Result<()>,
) -> Result<()> {
    let mut merge = Merge {
        reading: Reading { store, spec, pace },
        cursors: Vec::new(),
        slots: Vec::new(),
        held: 0,
        picked: Vec::new(),
        writer: FileWriter::new(spec)?,
        drop_deletes: compaction.includes_oldest,
        has_written: false,
        finished,
    };
    for mut cursor in opened(store, spec, sequences(compaction.files))? {
        if let Some(records) = cursor.load(&mut merge.reading, merge.slots.len())? {
            merge.hold(records);
            merge.cursors.push(cursor);
        }
    }
    merge.run()
}

/// Cursors over these sequences, the first records of which are there.
fn opened(
    store: &CheckpointStore,
    spec: &TableSpec,
    sequences: Vec<Vec<FileMeta>>,
) -> Result<Vec<Cursor>> {
    let opened = sequences.into_iter().map(async |files| {
        let mut files = Sequence::new(files);
        let records = files.next(store, spec).await?;
        Ok(Cursor {
            files,
            records,
            keys: OrderedKeys::encode(&[], 0),
            vnodes: UInt16Array::from(Vec::<u16>::new()),
            at: 0,
            slot: 0,
        })
    });
    let opened = stream::iter(opened).buffered(OPENED_AT_ONCE);
    machine::block_on(opened.try_collect())
}

/// The files as sequences that are each sorted by (vnode, key), newest epoch first. A small file is
/// one by itself, unless they are many: it is opened beside others, and not after them.
fn sequences(mut files: Vec<FileMeta>) -> Vec<Vec<FileMeta>> {
    let place = |f: &FileMeta| (std::cmp::Reverse(f.epoch), f.vnode_min, f.vnode_max);
    files.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.path.cmp(&b.path)));
    let are_many = files.len() > CURSORS_MAX;
    let mut all: Vec<Vec<FileMeta>> = Vec::new();
    for file in files {
        match all.last_mut() {
            Some(last)
                if (file.bytes >= SMALLEST_BYTES || are_many)
                    && last.last().is_some_and(|l| follows(l, &file)) =>
            {
                last.push(file)
            }
            _ => all.push(vec![file]),
        }
    }
    all
}

/// Whether all records of `b` are behind those of `a`: files of one epoch when their vnodes are,
/// and the parts of one merge, which may end within a vnode.
fn follows(a: &FileMeta, b: &FileMeta) -> bool {
    let parts_of_one = || merge_of(&a.path).is_some_and(|merge| merge_of(&b.path) == Some(merge));
    a.epoch == b.epoch
        && (a.vnode_max < b.vnode_min || a.vnode_max == b.vnode_min && parts_of_one())
}

/// What the names of a merge's files have in common.
fn merge_of(path: &str) -> Option<&str> {
    let (merge, _part) = path.rsplit_once('-')?;
    let (_, name) = merge.rsplit_once('-')?;
    name.starts_with('c').then_some(merge)
}

/// A position in a sorted sequence of files.
struct Cursor {
    files: Sequence,
    records: Option<Records>,
    keys: OrderedKeys,
    vnodes: UInt16Array,
    at: usize,
    /// Where its current batch is among the slots.
    slot: usize,
}

impl Cursor {
    /// Reads the next batch, which is to be in `slot`; `None` at the end.
    fn load(&mut self, reading: &mut Reading, slot: usize) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(reader) = &mut self.records
                && let Some(records) = reader.next()?
            {
                let keys = record_keys(reading.spec, &records);
                self.keys = OrderedKeys::encode(&keys, records.num_rows());
                self.vnodes = records.column(0).as_primitive::<UInt16Type>().clone();
                (self.at, self.slot) = (0, slot);
                return Ok(Some(records));
            }
            reading.pace.rest()?;
            // The piece that was read goes before the next one comes.
            self.records = None;
            let asked = machine::now();
            let next = self.files.next(reading.store, reading.spec);
            self.records = machine::block_on(next)?;
            reading.pace.waited(machine::elapsed(asked));
            if self.records.is_none() {
                return Ok(None);
            }
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
struct Merge<'a, F> {
    reading: Reading<'a>,
    cursors: Vec<Cursor>,
    slots: Vec<RecordBatch>,
    /// Bytes of the slots.
    held: usize,
    picked: Vec<(usize, usize)>,
    writer: FileWriter,
    drop_deletes: bool,
    has_written: bool,
    finished: F,
}

impl<F: FnMut(EncodedFile) -> Result<()>> Merge<'_, F> {
    fn hold(&mut self, records: RecordBatch) {
        self.held += records.get_array_memory_size();
        self.slots.push(records);
    }

    /// Merges all records, and empties itself into files.
    fn run(mut self) -> Result<()> {
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
        self.flush()?;
        if self.writer.rows() > 0 || !self.has_written {
            (self.finished)(self.writer.finish()?)?;
        }
        Ok(())
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
        if self.picked.len() >= MERGE_ROWS || self.held > MERGE_BYTES {
            self.flush()?;
        }
        Ok(more)
    }

    fn advance(&mut self, i: usize) -> Result<bool> {
        let cursor = &mut self.cursors[i];
        cursor.at += 1;
        if cursor.at < cursor.vnodes.len() {
            return Ok(true);
        }
        let records = cursor.load(&mut self.reading, self.slots.len())?;
        let more = records.is_some();
        records.into_iter().for_each(|records| self.hold(records));
        Ok(more)
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
        if self.writer.bytes() >= FILE_BYTES {
            let next = FileWriter::new(self.reading.spec)?;
            (self.finished)(std::mem::replace(&mut self.writer, next).finish()?)?;
            self.has_written = true;
        }
        // What cursors stand in does not count: there is no less of it.
        self.held = 0;
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
