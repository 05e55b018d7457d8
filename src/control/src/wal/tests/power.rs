//! Random histories of appends, new segments, checkpoints, full disks, failing syncs, deaths and
//! power losses. What an append returned for is there afterwards, and the log opens without help.

use super::lossy::LossyDisk;
use super::*;
use tidemark_common::random::Random;

/// What must be there, and what may be there.
#[derive(Default)]
struct Expected {
    /// By index from `follows + 1` on.
    acknowledged: Vec<(u64, Entry)>,
    /// The append that was under way.
    doubtful: Vec<Entry>,
    /// Up to here everything may be gone.
    contained: u64,
}

impl Expected {
    fn acknowledge(&mut self, index: u64, entries: Vec<Entry>) {
        let entries = entries.into_iter().map(|entry| (index, entry));
        self.acknowledged.extend(entries);
    }

    /// Compares, and takes what is there for acknowledged: whoever reads it may tell it.
    fn check(&mut self, entries: &[(u64, Entry)], what: &str) {
        let first = entries.first().map_or(u64::MAX, |(i, _)| *i);
        let last = self.acknowledged.last().map_or(0, |(i, _)| *i);
        let must: Vec<&(u64, Entry)> = self
            .acknowledged
            .iter()
            .filter(|(i, _)| *i > self.contained || *i >= first)
            .collect();
        assert!(
            entries.len() >= must.len(),
            "{what}: entries are lost: {:?} must be there, {:?} are",
            must.iter().map(|(i, _)| *i).collect::<Vec<u64>>(),
            entries.iter().map(|(i, _)| *i).collect::<Vec<u64>>()
        );
        for (there, must) in entries.iter().zip(&must) {
            assert_eq!(there.0, must.0, "{what}");
            assert!(
                same(&there.1, &must.1, self.contained),
                "{what}: entry {}",
                must.0
            );
        }
        let more = &entries[must.len()..];
        let all = more.is_empty() || more.len() == self.doubtful.len();
        assert!(all, "{what}: a part of an append is there: {more:?}");
        for ((index, there), may) in more.iter().zip(&self.doubtful) {
            assert_eq!(*index, last + 1, "{what}");
            assert!(same(there, may, 0), "{what}: entry {index}");
        }
        self.acknowledged.extend(more.iter().cloned());
        self.doubtful.clear();
    }
}

/// Rows of a cut that a checkpoint contains may be gone.
fn same(there: &Entry, must: &Entry, contained: u64) -> bool {
    match (there, must) {
        (Entry::Cut(a), Entry::Cut(b)) => {
            a.epoch == b.epoch && (a.writes == b.writes || a.epoch.0 / 4 <= contained)
        }
        (a, b) => a == b,
    }
}

/// One life of a process, from opening to its end.
fn live(disk: &LossyDisk, random: &mut Random, expected: &mut Expected, what: &str) {
    let opened = open(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    expected.check(&opened.entries, what);
    let mut log = opened.log;
    let will_end = random.below_u64(40);
    let end = random.below_u64(3);
    match end {
        0 => disk.die_in(will_end),
        1 => disk.fail_in(will_end),
        _ => {}
    }
    for _ in 0..1 + random.below_u64(12) {
        let next = log.next_index;
        let entries: Vec<Entry> = (0..1 + random.below_u64(3))
            .map(|i| match random.below_u64(30) {
                0 => cut(4 * next + i, 1_000),
                1..=15 => cut(4 * next + i, random.below_u64(50) as usize),
                _ => super::opened(next + i),
            })
            .collect();
        match log.append(&entries) {
            Ok(last) => {
                assert_eq!(last, next, "{what}");
                expected.acknowledge(last, entries);
            }
            Err(_) => {
                expected.doubtful = entries;
                // A full disk has room again, and the append is tried once more.
                if end == 1 && !log.broken && random.one_in(2) {
                    disk.heal();
                    // The try before must not come back in front of a new segment.
                    if random.one_in(2) && log.roll(next, next - 1).is_err() {
                        return;
                    }
                    let again = log.append(&expected.doubtful).unwrap();
                    let entries = std::mem::take(&mut expected.doubtful);
                    expected.acknowledge(again, entries);
                    continue;
                }
                return;
            }
        }
        let next = log.next_index;
        if random.one_in(6) && log.roll(next, next - 1).is_err() {
            return;
        }
        if random.one_in(6) && !checkpoint_at(&mut log, expected) {
            return;
        }
    }
}

/// A checkpoint of everything so far; says whether the log goes on.
fn checkpoint_at(log: &mut Log, expected: &mut Expected) -> bool {
    let index = log.next_index - 1;
    let entry = checkpoint(4 * index + 3);
    match log.append(std::slice::from_ref(&entry)) {
        Ok(last) => expected.acknowledged.push((last, entry)),
        Err(_) => {
            expected.doubtful = vec![entry];
            // It may be there at the next start, and then counts.
            expected.contained = index;
            return false;
        }
    }
    expected.contained = index;
    log.truncate(index).is_ok()
}

fn histories(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let random = &mut Random(seed);
        let disk = LossyDisk::default();
        let mut expected = Expected::default();
        for life in 0..1 + random.below_u64(6) {
            let what = format!("seed {seed}, life {life}");
            live(&disk, random, &mut expected, &what);
            if random.one_in(2) {
                disk.lose_power(random);
            } else {
                disk.kill();
            }
        }
        let opened = open(&disk).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        expected.check(&opened.entries, &format!("seed {seed}, at the end"));
    }
}

#[test]
fn no_history_loses_what_was_acknowledged_or_needs_help() {
    histories(0..3000);
}

/// Dies at each single step of the first life, and loses power there.
#[test]
fn a_power_loss_at_every_step_of_the_beginning() {
    for step in 0..60 {
        for seed in 0..30 {
            let random = &mut Random(seed);
            let disk = LossyDisk::default();
            let mut expected = Expected::default();
            disk.die_in(step);
            if let Ok(opened) = open(&disk) {
                let mut log = opened.log;
                for epoch in 1..6 {
                    let entries = vec![cut(epoch, 3), super::opened(epoch)];
                    let next = log.next_index;
                    if log.append(&entries).is_err() {
                        expected.doubtful = entries;
                        break;
                    }
                    expected.acknowledge(next, entries);
                    let next = log.next_index;
                    if epoch == 3 && log.roll(next, next - 1).is_err() {
                        break;
                    }
                }
            }
            disk.lose_power(random);
            let what = format!("step {step}, seed {seed}");
            let opened = open(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            expected.check(&opened.entries, &what);
        }
    }
}

#[test]
fn an_append_on_a_full_disk_is_taken_back_and_can_be_tried_again() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[super::opened(1)]).unwrap();
    for entry in [cut(2, 10), cut(3, 1_000)] {
        disk.fail_in(0);
        let error = log.append(std::slice::from_ref(&entry)).unwrap_err();
        assert_eq!(error.state(), SqlState::DISK_FULL);
        assert!(!log.broken && objects(&disk).len() <= 1);
        disk.heal();
        log.append(&[entry]).unwrap();
    }
    // The mark cannot be written: nobody was told, so the append is taken back.
    disk.fail_in(2);
    let error = log.append(&[super::opened(4)]).unwrap_err();
    assert_eq!(error.state(), SqlState::DISK_FULL);
    disk.heal();
    assert_eq!(log.append(&[super::opened(5)]).unwrap(), 4);
    drop(log);
    let entries = open(&disk).unwrap().entries;
    assert_eq!(rows(&entries), [(1, 0), (2, 10), (3, 1_000), (4, 0)]);
    assert_eq!(entries[3].1, super::opened(5));
}

#[test]
fn after_a_failed_sync_the_log_takes_nothing_more_and_the_next_start_makes_it_durable() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[super::opened(1)]).unwrap();
    disk.fail_in(1);
    log.append(&[super::opened(2)]).unwrap_err();
    disk.heal();
    let error = log.append(&[super::opened(3)]).unwrap_err();
    assert_eq!(error.state(), SqlState::IO_ERROR);
    drop(log);
    // The system shows the entry, although it never reached the disk: whoever reads it now must
    // find it again.
    let entries = open(&disk).unwrap().entries;
    assert_eq!(entries.len(), 2);
    disk.lose_power(&mut Random(1));
    assert_eq!(open(&disk).unwrap().entries, entries);
}
