//! One partition: a log of records and of the markers that end transactions in it, both of which
//! take offsets.
//!
//! Readers of what is committed read up to the last stable offset, below which every transaction
//! has ended, and do not see what was aborted. Offsets stay when records go (compaction,
//! retention), and come again when an election cuts the log off. What compaction and retention took
//! away is kept aside, for those who check what others have read; so is which of it a reader came
//! too late for, which it has not read.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A record as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub offset: i64,
    /// The leader that wrote it.
    pub leader_epoch: i32,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
}

/// Who writes within a transaction: a producer id, and which of those that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The producer's id.
    pub producer: u64,
    /// Its epoch.
    pub epoch: i32,
}

/// A record to be written.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The records that are to be seen.
    pub records: Vec<Record>,
    /// Where reading goes on: behind markers, gaps and what is not to be seen, too.
    pub next: i64,
    /// The leader that wrote the last thing that was passed, if any was.
    pub leader_epoch: Option<i32>,
}

/// There is no such offset; there are those from `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The first offset.
    pub start: i64,
    /// The end.
    pub end: i64,
}

/// Where a reader stands: the next offset, and how many records it has read.
pub type Stand = (i64, u64);

enum Body {
    Record(Option<Writer>),
    Marker { writer: Writer, commits: bool },
}

struct Entry {
    record: Record,
    body: Body,
    /// A compaction has met it that would not have left it the next time.
    aged: bool,
}

struct Aborted {
    producer: u64,
    first: i64,
    marker: i64,
}

/// See the module.
#[derive(Default)]
pub struct Log {
    start: i64,
    end: i64,
    entries: BTreeMap<i64, Entry>,
    /// Records that were committed and are no longer there.
    gone: BTreeMap<i64, Record>,
    /// Those that were gone when a reader came to them, by where it stands behind them.
    unread: BTreeMap<Stand, Arc<BTreeSet<i64>>>,
    /// Where open transactions begin, by producer.
    open: BTreeMap<u64, (i64, Writer)>,
    aborted: Vec<Aborted>,
    /// Each leader epoch and where it begins.
    leaders: Vec<(i32, i64)>,
}

impl Log {
    /// An empty one, of leader epoch 0.
    pub fn new() -> Log {
        Log {
            leaders: vec![(0, 0)],
            ..Log::default()
        }
    }

    /// The first offset that can be read.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Behind all that was written.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: behind all that is decided.
    pub fn stable_end(&self) -> i64 {
        let first = self.open.values().map(|(first, _)| *first).min();
        first.unwrap_or(self.end)
    }

    /// The leader epoch now.
    pub fn leader_epoch(&self) -> i32 {
        self.leaders.last().map_or(0, |(epoch, _)| *epoch)
    }

    /// Writes a record, within the transaction of `writer` if there is one; returns its offset.
    pub fn append(&mut self, writer: Option<Writer>, record: NewRecord) -> i64 {
        if let Some(writer) = writer {
            let first = (self.end, writer);
            self.open.entry(writer.producer).or_insert(first);
        }
        let NewRecord {
            timestamp_ms,
            key,
            value,
        } = record;
        self.push(Body::Record(writer), timestamp_ms, key, value)
    }

    /// Ends the transaction of `writer` here.
    pub fn mark(&mut self, writer: Writer, commits: bool, timestamp_ms: i64) {
        let marker = self.push(Body::Marker { writer, commits }, timestamp_ms, None, None);
        if let Some((first, _)) = self.open.remove(&writer.producer)
            && !commits
        {
            self.aborted.push(Aborted {
                producer: writer.producer,
                first,
                marker,
            });
        }
    }

    fn push(
        &mut self,
        body: Body,
        timestamp_ms: i64,
        key: Option<Bytes>,
        value: Option<Bytes>,
    ) -> i64 {
        let offset = self.end;
        let record = Record {
            offset,
            leader_epoch: self.leader_epoch(),
            timestamp_ms,
            key,
            value,
        };
        let entry = Entry {
            record,
            body,
            aged: false,
        };
        self.entries.insert(offset, entry);
        self.end += 1;
        offset
    }

    /// Reads from `from`, `most` records or markers at most: what is committed, or all records.
    pub fn read(&self, from: i64, most: usize, committed: bool) -> Result<Slice, OutOfRange> {
        if from < self.start || from > self.end {
            return Err(OutOfRange {
                start: self.start,
                end: self.end,
            });
        }
        let bound = match committed {
            true => self.stable_end(),
            false => self.end,
        };
        let mut slice = Slice {
            next: from,
            ..Slice::default()
        };
        if from >= bound {
            return Ok(slice);
        }
        let mut entries = self.entries.range(from..bound);
        for (_, entry) in entries.by_ref().take(most) {
            slice.next = entry.record.offset + 1;
            slice.leader_epoch = Some(entry.record.leader_epoch);
            if entry.is_record() && !(committed && self.is_aborted(entry)) {
                slice.records.push(entry.record.clone());
            }
        }
        if entries.next().is_none() {
            slice.next = bound;
        }
        Ok(slice)
    }

    /// All committed records that are there.
    pub fn committed(&self) -> Vec<Record> {
        let slice = self.read(self.start, usize::MAX, true);
        slice.map(|slice| slice.records).unwrap_or_default()
    }

    /// The committed transactions that are there, in the order of their ends: each producer's id,
    /// and the records.
    pub fn transactions(&self) -> Vec<(u64, Vec<Record>)> {
        let mut open = BTreeMap::<u64, Vec<Record>>::new();
        let mut ended = Vec::new();
        for entry in self.entries.values() {
            match entry.body {
                Body::Record(Some(writer)) => {
                    let records = open.entry(writer.producer).or_default();
                    records.push(entry.record.clone());
                }
                Body::Record(None) => {}
                Body::Marker { writer, commits } => {
                    let records = open.remove(&writer.producer).unwrap_or_default();
                    if commits && !records.is_empty() {
                        ended.push((writer.producer, records));
                    }
                }
            }
        }
        ended
    }

    /// All records below `next` that were ever committed, also those that are gone since.
    pub fn ever_committed_below(&self, next: i64) -> Vec<Record> {
        let there = self.committed().into_iter().map(|r| (r.offset, r));
        let mut all = self.gone.clone();
        all.extend(there);
        all.into_values().filter(|r| r.offset < next).collect()
    }

    /// A reader that stood at `before` stands at `now`, and has met nothing below `until`: what was
    /// there and is gone it has not read.
    pub fn pass(&mut self, before: Stand, until: i64, now: Stand) {
        let mut unread = self.unread.get(&before).cloned().unwrap_or_default();
        let mut gone = self.gone.range(before.0..until).peekable();
        if gone.peek().is_some() {
            Arc::make_mut(&mut unread).extend(gone.map(|(offset, _)| *offset));
        }
        if !unread.is_empty() {
            self.unread.entry(now).or_insert(unread);
        }
    }

    /// What a reader has read that began at the start and stands there: all that was ever committed
    /// below, also what is gone since, and not what was gone before.
    pub fn read_up_to(&self, stand: Stand) -> Vec<Record> {
        let mut records = self.ever_committed_below(stand.0);
        if let Some(unread) = self.unread.get(&stand) {
            records.retain(|record| !unread.contains(&record.offset));
        }
        records
    }

    /// The first offset of a committed record that is not older than this.
    pub fn offset_of_time(&self, timestamp_ms: i64) -> Option<i64> {
        let is_later = |record: &&Record| record.timestamp_ms >= timestamp_ms;
        self.committed().iter().find(is_later).map(|r| r.offset)
    }

    /// Where the records end of that leader, or of the last one before it of which there are any;
    /// none if there is none.
    pub fn end_of_leader(&self, epoch: i32) -> Option<i64> {
        let at = self.leaders.iter().rposition(|(e, _)| *e <= epoch)?;
        let next = self.leaders.get(at + 1);
        Some(next.map_or(self.end, |(_, start)| *start))
    }

    /// A new leader. One that has not copied everything cuts the log off at `kept`; ends of
    /// transactions that begin before it are written again.
    pub fn elect(&mut self, kept: Option<i64>) {
        let epoch = self.leader_epoch() + 1;
        let kept = kept.unwrap_or(self.end).clamp(self.start, self.end);
        let cut = self.entries.split_off(&kept);
        drop(self.gone.split_off(&kept));
        self.unread.retain(|(next, _), _| *next <= kept);
        self.end = kept;
        self.leaders
            .retain(|(_, start)| *start < kept || kept == 0 && *start == 0);
        self.leaders.push((epoch, kept));
        self.open.retain(|_, (first, _)| *first < kept);
        self.aborted.retain(|a| a.first < kept);
        for entry in cut.into_values() {
            let Body::Marker { writer, commits } = entry.body else {
                continue;
            };
            let was_aborted =
                |a: &Aborted| a.producer == writer.producer && a.marker == entry.record.offset;
            if self.last_of(writer.producer).is_some_and(|last| last) {
                self.aborted.retain(|a| !was_aborted(a));
                self.reopen(writer);
                self.mark(writer, commits, entry.record.timestamp_ms);
            }
        }
    }

    /// Whether the last thing that this producer has written in a transaction is a record; none if
    /// there is nothing.
    fn last_of(&self, producer: u64) -> Option<bool> {
        let mut entries = self.entries.values().rev();
        entries.find_map(|entry| match entry.body {
            Body::Record(Some(writer)) if writer.producer == producer => Some(true),
            Body::Marker { writer, .. } if writer.producer == producer => Some(false),
            _ => None,
        })
    }

    /// Takes the transaction up again whose end was cut off.
    fn reopen(&mut self, writer: Writer) {
        let mut first = None;
        for entry in self.entries.values().rev() {
            match entry.body {
                Body::Record(Some(w)) if w.producer == writer.producer => {
                    first = Some(entry.record.offset);
                }
                Body::Marker { writer: w, .. } if w.producer == writer.producer => break,
                _ => {}
            }
        }
        if let Some(first) = first {
            self.open.insert(writer.producer, (first, writer));
        }
    }

    /// Retention: what is below `offset` goes, as far as it is decided.
    pub fn delete_before(&mut self, offset: i64) {
        let start = offset.clamp(self.start, self.stable_end());
        let below: Vec<i64> = self.entries.range(..start).map(|(at, _)| *at).collect();
        below.into_iter().for_each(|at| self.remove(at));
        self.start = start;
    }

    /// Compaction: below the last stable offset the newest record of each key stays. What was
    /// aborted goes, and so do records without key; tombstones, and markers of transactions of
    /// which nothing is left, stay until the next compaction. The log's last entry always stays, so
    /// that the log ends where it did.
    pub fn compact(&mut self) {
        let stable_end = self.stable_end();
        let mut newest = BTreeMap::new();
        for (offset, entry) in self.entries.range(..stable_end) {
            if entry.is_record() && !self.is_aborted(entry) {
                newest.insert(entry.record.key.clone(), *offset);
            }
        }
        let stays = |entry: &Entry| {
            let record = &entry.record;
            record.key.is_some() && newest.get(&record.key) == Some(&record.offset)
        };
        let last = self.end - 1;
        let mut filled: BTreeSet<u64> = BTreeSet::new();
        let (mut gone, mut aging) = (Vec::new(), Vec::new());
        for (offset, entry) in self.entries.range(..stable_end) {
            let (goes, ages) = match entry.body {
                Body::Record(writer) => {
                    let stays = stays(entry) || *offset == last;
                    if stays && let Some(writer) = writer {
                        filled.insert(writer.producer);
                    }
                    let tombstone = entry.record.value.is_none();
                    (!stays || tombstone && entry.aged, tombstone)
                }
                Body::Marker { writer, .. } => {
                    let empty = !filled.remove(&writer.producer);
                    (empty && entry.aged, empty)
                }
            };
            match goes && *offset != last {
                true => gone.push(*offset),
                false if ages => aging.push(*offset),
                false => {}
            }
        }
        for offset in aging {
            if let Some(entry) = self.entries.get_mut(&offset) {
                entry.aged = true;
            }
        }
        gone.into_iter().for_each(|offset| self.remove(offset));
    }

    fn remove(&mut self, offset: i64) {
        let Some(entry) = self.entries.get(&offset) else {
            return;
        };
        if entry.is_record() && !self.is_aborted(entry) {
            self.gone.insert(offset, entry.record.clone());
        }
        self.entries.remove(&offset);
    }

    fn is_aborted(&self, entry: &Entry) -> bool {
        let Body::Record(Some(writer)) = entry.body else {
            return false;
        };
        let offset = entry.record.offset;
        let covers =
            |a: &Aborted| a.producer == writer.producer && (a.first..a.marker).contains(&offset);
        self.aborted.iter().any(covers)
    }
}

impl Entry {
    fn is_record(&self) -> bool {
        matches!(self.body, Body::Record(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Writer = Writer {
        producer: 1,
        epoch: 0,
    };
    const B: Writer = Writer {
        producer: 2,
        epoch: 0,
    };

    fn record(key: &str, value: Option<&str>) -> NewRecord {
        NewRecord {
            timestamp_ms: 7,
            key: Some(Bytes::from(key.to_string())),
            value: value.map(|v| Bytes::from(v.to_string())),
        }
    }

    fn put(log: &mut Log, writer: Option<Writer>, key: &str, value: &str) -> i64 {
        log.append(writer, record(key, Some(value)))
    }

    /// The committed records as `offset:value`.
    fn seen(records: &[Record]) -> String {
        let texts = records.iter().map(|r| {
            let value = r.value.as_deref().map(String::from_utf8_lossy);
            format!("{}:{}", r.offset, value.as_deref().unwrap_or("-"))
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_committed_is_read_below_the_last_stable_offset() {
        let mut log = Log::new();
        put(&mut log, Some(A), "k", "a0");
        put(&mut log, Some(B), "k", "b1");
        put(&mut log, None, "k", "c2");
        assert_eq!((log.stable_end(), log.end()), (0, 3));
        log.mark(A, true, 0);
        assert_eq!(seen(&log.committed()), "0:a0");
        log.mark(B, false, 0);
        assert_eq!((log.stable_end(), log.end()), (5, 5));
        assert_eq!(seen(&log.committed()), "0:a0 2:c2");
        put(&mut log, Some(B), "k", "b5");
        log.mark(B, true, 0);
        assert_eq!(seen(&log.committed()), "0:a0 2:c2 5:b5");
        let all = log.read(0, usize::MAX, false).unwrap();
        assert_eq!(seen(&all.records), "0:a0 1:b1 2:c2 5:b5");
    }

    #[test]
    fn reading_passes_markers_and_gaps() {
        let mut log = Log::new();
        put(&mut log, Some(A), "k", "0");
        log.mark(A, true, 0);
        put(&mut log, Some(B), "l", "2");
        let slice = log.read(0, 1, true).unwrap();
        assert_eq!((seen(&slice.records).as_str(), slice.next), ("0:0", 1));
        let slice = log.read(1, 10, true).unwrap();
        assert_eq!((slice.records.len(), slice.next), (0, 2));
        assert_eq!(
            log.read(2, 10, true).unwrap().next,
            2,
            "an open one is not passed"
        );
        log.mark(B, false, 0);
        assert_eq!(log.read(0, 10, true).unwrap().next, 4);
        let range = OutOfRange { start: 0, end: 4 };
        assert_eq!(log.read(5, 1, true).unwrap_err(), range);
        log.delete_before(2);
        assert_eq!(log.read(1, 1, true).unwrap_err().start, 2);
    }

    #[test]
    fn compaction_keeps_the_newest_record_of_each_key_and_every_offset() {
        let mut log = Log::new();
        put(&mut log, None, "k", "0");
        put(&mut log, None, "l", "1");
        put(&mut log, Some(A), "k", "2");
        log.mark(A, false, 0);
        put(&mut log, None, "k", "4");
        log.append(None, record("l", None));
        put(&mut log, None, "m", "6");
        put(&mut log, Some(B), "k", "7");
        log.compact();
        assert_eq!(seen(&log.committed()), "4:4 5:- 6:6");
        assert_eq!(log.stable_end(), 7);
        let below = seen(&log.ever_committed_below(6));
        assert_eq!(below, "0:0 1:1 4:4 5:-", "what went is not forgotten");
        log.mark(B, true, 0);
        log.compact();
        assert_eq!(seen(&log.committed()), "6:6 7:7");
        assert_eq!((log.start(), log.end()), (0, 9));
        log.compact();
        assert_eq!(log.read(0, 100, true).unwrap().next, 9);
    }

    #[test]
    fn an_unclean_election_cuts_the_log_off() {
        let mut log = Log::new();
        for value in ["0", "1", "2"] {
            put(&mut log, None, "k", value);
        }
        log.elect(None);
        put(&mut log, None, "k", "3");
        assert_eq!(
            (log.end_of_leader(0), log.end_of_leader(1)),
            (Some(3), Some(4))
        );
        log.elect(Some(2));
        assert_eq!((log.end(), log.leader_epoch()), (2, 2));
        put(&mut log, None, "k", "other");
        assert_eq!(
            (log.end_of_leader(0), log.end_of_leader(1)),
            (Some(2), Some(2))
        );
        assert_eq!(log.end_of_leader(2), Some(3));
        assert_eq!(seen(&log.ever_committed_below(9)), "0:0 1:1 2:other");
    }

    #[test]
    fn a_transaction_whose_end_is_cut_off_ends_all_the_same() {
        for commits in [true, false] {
            let mut log = Log::new();
            put(&mut log, Some(A), "k", "0");
            put(&mut log, None, "k", "1");
            log.mark(A, commits, 0);
            put(&mut log, Some(B), "k", "3");
            log.elect(Some(2));
            assert_eq!((log.stable_end(), log.end()), (3, 3));
            let expected = if commits { "0:0 1:1" } else { "1:1" };
            assert_eq!(seen(&log.committed()), expected);
        }
    }
}
