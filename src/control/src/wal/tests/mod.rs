//! The log under damage ([`damage`]), power losses and full disks ([`power`]), and its usual life.

mod damage;
pub(crate) mod lossy;
mod power;

use super::*;
use crate::entry::INLINE_BYTES_MAX;
use crate::{Cut, TableWrites};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use lossy::LossyDisk;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, RelationId};

fn folder() -> &'static Path {
    Path::new("/data/log")
}

fn opened(generation: u64) -> Entry {
    Entry::Opened { generation }
}

/// A cut that writes so many rows of eight bytes.
fn cut(epoch: u64, rows: usize) -> Entry {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let values = Int64Array::from_iter_values((0..rows as i64).map(|i| i * epoch as i64));
    let rows = RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap();
    let writes = vec![TableWrites::held(RelationId(7), ChangeBatch::insert(rows))];
    Entry::Cut(Cut::new(Epoch(epoch), 5, BTreeMap::new(), writes))
}

fn checkpoint(epoch: u64) -> Entry {
    Entry::Checkpoint {
        epoch: Epoch(epoch),
        manifest: String::new(),
        contains: 0,
    }
}

/// A log, and what makes its payloads.
struct Log {
    log: WriteAheadLog,
    encoder: Encoder,
}

impl Deref for Log {
    type Target = WriteAheadLog;

    fn deref(&self) -> &WriteAheadLog {
        &self.log
    }
}

impl DerefMut for Log {
    fn deref_mut(&mut self) -> &mut WriteAheadLog {
        &mut self.log
    }
}

impl Log {
    /// Appends entries that count together.
    fn append(&mut self, entries: &[Entry]) -> Result<u64> {
        // Objects of an append that was taken back have the same names.
        self.log.settle()?;
        let payload = self.encoder.encode(entries)?;
        self.log.append(&[payload])
    }

    /// Appends entries that count each by itself, in one write.
    fn append_each(&mut self, entries: &[Entry]) -> Result<u64> {
        let encoded = entries
            .iter()
            .map(|e| self.encoder.encode(std::slice::from_ref(e)));
        let payloads = encoded.collect::<Result<Vec<_>>>()?;
        self.log.append(&payloads)
    }
}

/// What is there when a log is opened.
struct Opened {
    log: Log,
    entries: Vec<(u64, Entry)>,
    follows: u64,
    loss: Option<Error>,
}

/// A log that puts rows of more than 8 KiB into objects.
fn open(disk: &LossyDisk) -> Result<Opened> {
    open_with(disk, false)
}

fn open_with(disk: &LossyDisk, accept_loss: bool) -> Result<Opened> {
    let opened = WriteAheadLog::open(Arc::new(disk.clone()), folder(), accept_loss)?;
    let mut encoder = opened.encoder;
    encoder.inline_bytes_max = 8192;
    Ok(Opened {
        log: Log {
            log: opened.log,
            encoder,
        },
        entries: opened.entries,
        follows: opened.follows,
        loss: opened.loss,
    })
}

/// Rows of the cuts among these entries, by index.
fn rows(entries: &[(u64, Entry)]) -> Vec<(u64, usize)> {
    let of = |write: &TableWrites| -> usize {
        let pieces = (0..write.changes.pieces()).map(|at| write.changes.piece(at));
        pieces.map(|piece| piece.unwrap().num_rows()).sum()
    };
    let rows = |entry: &Entry| match entry {
        Entry::Cut(cut) => cut.writes.iter().map(of).sum(),
        _ => 0,
    };
    entries.iter().map(|(i, e)| (*i, rows(e))).collect()
}

fn objects(disk: &LossyDisk) -> Vec<String> {
    disk.list(&Objects::folder_of(folder())).unwrap()
}

#[test]
fn entries_survive_reopening_and_indexes_go_on() {
    let disk = LossyDisk::default();
    let Opened {
        mut log, entries, ..
    } = open(&disk).unwrap();
    assert!(entries.is_empty());
    assert_eq!(log.append(&[opened(1), opened(2)]).unwrap(), 1);
    assert_eq!(log.append(&[cut(3, 4)]).unwrap(), 2);
    drop(log);
    let Opened {
        mut log, entries, ..
    } = open(&disk).unwrap();
    assert_eq!(
        entries,
        vec![(1, opened(1)), (1, opened(2)), (2, cut(3, 4))]
    );
    assert_eq!(log.append(&[opened(9)]).unwrap(), 3);
}

#[test]
fn it_works_on_the_machines_own_disk() {
    let root = std::env::temp_dir().join(format!("tidemark-wal-{}", std::process::id()));
    let folder = root.join("data/log");
    let disk = Arc::new(tidemark_common::disk::LocalDisk);
    let OpenedLog { log, encoder, .. } = WriteAheadLog::open(disk.clone(), &folder, false).unwrap();
    let mut log = Log { log, encoder };
    log.append(&[opened(1), cut(2, 700_000)]).unwrap();
    drop(log);
    let again = WriteAheadLog::open(disk.clone(), &folder, false).unwrap();
    assert_eq!(rows(&again.entries), [(1, 0), (1, 700_000)]);
    let path = segment_path(&folder, 1);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = WriteAheadLog::open(disk, &folder, false).err().unwrap();
    assert!(
        error.message().contains("in the middle of entry 1"),
        "{error}"
    );
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn truncation_removes_whole_segments_only() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[opened(1)]).unwrap();
    log.roll(2, 1).unwrap();
    log.append(&[opened(2), opened(3)]).unwrap();
    log.truncate(2).unwrap();
    drop(log);
    let again = open(&disk).unwrap();
    assert_eq!(again.entries, vec![(2, opened(2)), (2, opened(3))]);
    assert_eq!(again.follows, 1);
}

#[test]
fn segments_are_closed_when_they_are_large() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.encoder.inline_bytes_max = INLINE_BYTES_MAX;
    for epoch in 1..=8 {
        log.append(&[cut(epoch, 200_000)]).unwrap();
    }
    assert_eq!(log.segments.len(), 2);
    drop(log);
    let again = open(&disk).unwrap();
    assert_eq!(again.entries.len(), 8);
    assert!(again.entries.iter().all(|(i, e)| *e == cut(*i, 200_000)));
}

#[test]
fn rows_of_large_cuts_are_objects_until_a_checkpoint_contains_them() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[opened(3)]).unwrap();
    log.append(&[cut(10, 1_000), cut(11, 5)]).unwrap();
    log.append(&[cut(12, 1_100)]).unwrap();
    assert_eq!(
        objects(&disk),
        [
            "0000000003-00000000000000000010.rows",
            "0000000003-00000000000000000012.rows"
        ]
    );
    drop(log);
    let Opened {
        mut log, entries, ..
    } = open(&disk).unwrap();
    let all = [(1, 0), (2, 1_000), (2, 5), (3, 1_100)];
    assert_eq!(rows(&entries), all);
    log.append(&[checkpoint(11)]).unwrap();
    log.truncate(2).unwrap();
    assert_eq!(objects(&disk).len(), 1);
    // One that no entry names is left from an append that never returned.
    let left = Objects::folder_of(folder()).join("0000000003-00000000000000000013.rows");
    disk.put(&left, Some(b"torn"));
    drop(log);
    // The rows that the checkpoint contains are not asked for.
    let again = open(&disk).unwrap();
    assert_eq!(
        rows(&again.entries),
        [(1, 0), (2, 0), (2, 5), (3, 1_100), (4, 0)]
    );
    assert_eq!(objects(&disk), ["0000000003-00000000000000000012.rows"]);
}

#[test]
fn what_is_refused_leaves_nothing_and_the_log_goes_on() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    let large = Entry::Drop {
        relations: vec![RelationId(u32::MAX); crate::entry::ENTRY_BYTES_MAX / 8],
    };
    let error = log.append(&[cut(1, 1_000), large]).unwrap_err();
    assert_eq!(error.state(), SqlState("54000"));
    assert!(objects(&disk).is_empty());
    assert_eq!(log.append(&[opened(1)]).unwrap(), 1);
    drop(log);
    assert_eq!(open(&disk).unwrap().entries, vec![(1, opened(1))]);
}

#[test]
fn an_accepted_loss_keeps_what_can_be_read_and_uses_no_index_twice() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    for epoch in 1..=9 {
        log.append(&[cut(epoch, 3)]).unwrap();
    }
    let path = segment_path(folder(), 1);
    let mut bytes = disk.read(&path).unwrap();
    let damaged = bytes.len() / 2;
    bytes[damaged] ^= 1;
    disk.put(&path, Some(&bytes));
    let error = open(&disk).err().unwrap();
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("--recover-from-checkpoint"), "{hint}");
    let accept = |disk: &LossyDisk| open_with(disk, true).unwrap();
    let Opened {
        mut log,
        entries,
        loss,
        ..
    } = accept(&disk);
    assert!(loss.is_some());
    assert_eq!(rows(&entries), [(1, 3), (2, 3), (3, 3), (4, 3)]);
    let aside = Path::new("/data/log.aside-1/00000000000000000001.log");
    assert_eq!(disk.read(aside).unwrap(), bytes);
    assert_eq!(log.append(&[opened(7)]).unwrap(), 10);
    drop(log);
    // Whoever accepted it died before the log told of it.
    let mut again = open(&disk).unwrap();
    let indexes: Vec<u64> = again.entries.iter().map(|(i, _)| *i).collect();
    assert_eq!(indexes, [1, 2, 3, 4, 10]);
    assert!(again.loss.is_some());
    again.log.loss_is_told().unwrap();
    drop(again);
    assert!(open(&disk).unwrap().loss.is_none());
    // And nothing is accepted where nothing is lost.
    assert!(accept(&disk).loss.is_none());
}

#[test]
fn a_lost_log_begins_behind_the_checkpoint() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[opened(1), opened(2)]).unwrap();
    for index in [500, 1] {
        log.begin_behind(index).unwrap();
        let first = log.append(&[opened(7)]).unwrap();
        assert!(first > 500);
        assert_eq!(
            open(&disk.copy()).unwrap().entries,
            vec![(first, opened(7))]
        );
        assert_eq!(open(&disk.copy()).unwrap().follows, index);
    }
}

#[test]
fn a_new_log_of_another_version_is_named() {
    let disk = LossyDisk::default();
    drop(open(&disk).unwrap());
    let path = segment_path(folder(), 1);
    let mut bytes = disk.read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..40]);
    bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    disk.put(&path, Some(&bytes));
    let error = open(&disk).err().unwrap();
    assert!(error.message().contains("is of version 2"), "{error}");
    // Before version 1 a segment began with its first frame.
    let mut old = vec![20, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0];
    old.resize(60, b'x');
    disk.put(&path, Some(&old));
    let error = open(&disk).err().unwrap();
    assert!(error.message().contains("older than version 1"), "{error}");
}

#[test]
fn frames_that_were_never_decided_are_given_up_for_others() {
    for (from, roll_at) in [(2, 0), (3, 0), (5, 0), (4, 4), (3, 4), (6, 4), (1, 0)] {
        let disk = LossyDisk::default();
        let mut log = open(&disk).unwrap().log;
        log.append(&[opened(1)]).unwrap();
        log.append_each(&[opened(2), opened(3)]).unwrap();
        if roll_at > 0 {
            log.roll(roll_at, roll_at - 1).unwrap();
        }
        log.append_each(&[opened(4), cut(5, 10), opened(6)])
            .unwrap();
        log.give_up(from).unwrap();
        assert_eq!(log.next_index(), from);
        let kept: Vec<(u64, Entry)> = (1..from)
            .map(|i| (i, if i == 5 { cut(5, 10) } else { opened(i) }))
            .collect();
        assert_eq!(open(&disk.copy()).unwrap().entries, kept, "from {from}");
        let lost = disk.copy();
        lost.lose_power(&mut tidemark_common::random::Random(1));
        assert_eq!(open(&lost).unwrap().entries, kept, "from {from}");
        log.append_each(&[opened(70), opened(80)]).unwrap();
        assert_eq!(log.payload(from).unwrap(), opened(70).encode().unwrap());
        drop(log);
        let again = open(&disk).unwrap();
        let more = [(from, opened(70)), (from + 1, opened(80))];
        assert_eq!(again.entries, [&kept[..], &more].concat(), "from {from}");
        assert!(again.log.payload(from + 1).is_ok());
        assert_eq!(again.log.first_index(), 1);
    }
}

#[test]
fn of_frames_appended_together_any_first_part_may_be_there() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[opened(1)]).unwrap();
    let (before, mark) = (log.file_bytes as usize, mark::path(folder()));
    let marked = disk.read(&mark).unwrap();
    log.append_each(&[opened(2), opened(3), opened(4)]).unwrap();
    drop(log);
    let path = segment_path(folder(), 1);
    let bytes = disk.read(&path).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for at in before..=bytes.len() {
        let copy = disk.copy();
        copy.put(&path, Some(&bytes[..at]));
        copy.put(&mark, Some(&marked));
        let opened_again = open(&copy).unwrap();
        let count = opened_again.entries.len() as u64;
        assert!(opened_again.entries.iter().all(|(i, e)| *e == opened(*i)));
        seen.insert(count);
        // What was told is missed.
        let copy = disk.copy();
        copy.put(&path, Some(&bytes[..at]));
        assert_eq!(open(&copy).is_ok(), at == bytes.len(), "cut to {at}");
    }
    assert_eq!(seen, [1, 2, 3, 4].into());
}

/// Logs of earlier builds have several frames that count together.
#[test]
fn frames_of_earlier_builds_count_together() {
    let disk = LossyDisk::default();
    drop(open(&disk).unwrap());
    let path = segment_path(folder(), 1);
    let log = open(&disk).unwrap().log.log.log;
    let mut bytes = disk.read(&path).unwrap();
    bytes.truncate(SEGMENT_HEADER_BYTES);
    let mut whole = Vec::new();
    for (index, append) in [(1, (1, 1)), (2, (2, 3)), (3, (2, 3)), (4, (4, 4))] {
        let payload = opened(index).encode().unwrap();
        let header = FrameHeader::new(&payload, payload.len() as u32, index, append);
        bytes.extend_from_slice(&header.encode(log));
        bytes.extend_from_slice(&payload);
        whole.push(bytes.len());
    }
    let count = |bytes: &[u8]| {
        let copy = disk.copy();
        copy.put(&path, Some(bytes));
        open(&copy).unwrap().entries.len()
    };
    assert_eq!(count(&bytes), 4);
    assert_eq!(count(&bytes[..whole[2]]), 3);
    assert_eq!(count(&bytes[..whole[1]]), 1);
    assert_eq!(count(&bytes[..whole[2] - 1]), 1);
}
