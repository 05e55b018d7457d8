//! The queue against a model of a topic: random histories of epochs, checkpoints that are committed
//! or not, deliveries that fail before or after their commit, and restarts that replay what no
//! checkpoint has in another order. At the end the topic has every change once, in the order of
//! epochs, and no small epoch was ever seen in part.

use super::log::{self, LogPart};
use super::queue::{Limits, Next, Queue, Weight};
use super::{State, pause};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{
    Delivered, Refusal, SinkContent, SinkDelivery, SinkMarker, SinkWriter,
};
use tidemark_changelog::{ChangeBatch, pieces};
use tidemark_common::Signal;
use tidemark_common::random::Random;
use tidemark_common::{Epoch, Error, RelationId, Result, TableId};
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::manifest::SinkProgress;

const LIMITS: Limits = Limits {
    delivery_rows_max: 10,
    file_rows_max: 16,
    file_bytes_max: 1 << 30,
    memory_rows_max: 30,
    memory_bytes_max: 1 << 30,
    full_bytes: 1 << 30,
};

fn batch(ids: &[i64]) -> ChangeBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    ChangeBatch::insert(RecordBatch::try_from_iter([("id", ids)]).unwrap())
}

fn ids(changes: &[ChangeBatch]) -> Vec<i64> {
    let of = |b: &ChangeBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec();
    changes.iter().flat_map(of).collect()
}

fn hash(ids: &[i64]) -> u64 {
    let mix = |id: &i64| (*id as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ids.iter().map(mix).fold(0, u64::wrapping_add)
}

/// Whether the model's broker takes no record of this change.
fn is_refused(id: i64) -> bool {
    id % 23 == 0
}

/// A topic with committed transactions: the changes of each, and the marker.
#[derive(Default)]
struct Topic {
    transactions: Vec<Vec<(Epoch, i64)>>,
    marker: Option<SinkMarker>,
}

impl Topic {
    fn ids(&self) -> Vec<i64> {
        self.transactions
            .iter()
            .flatten()
            .map(|(_, id)| *id)
            .collect()
    }
}

/// What goes wrong with a delivery.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    No,
    BeforeCommit,
    AfterCommit,
}

/// Writes into the model, as much at once as it likes.
struct Writer<'a> {
    topic: &'a mut Topic,
    fault: Fault,
    random: &'a mut Random,
}

impl SinkWriter for Writer<'_> {
    fn recover(&mut self) -> Result<Option<SinkMarker>> {
        Ok(self.topic.marker.clone())
    }

    fn deliver(&mut self, delivery: &SinkDelivery) -> Result<Delivered> {
        let unavailable = || Error::unavailable(tidemark_common::SqlState::IO_ERROR, "gone");
        let (mut sent, mut epochs, mut changes) = (Vec::new(), 0, 0);
        match &delivery.content {
            SinkContent::Epochs(all) => {
                epochs = 1 + self.random.below_u64(all.len() as u64) as usize;
                for epoch in &all[..epochs] {
                    sent.extend(ids(&epoch.changes).into_iter().map(|id| (epoch.epoch, id)));
                }
            }
            SinkContent::Part { part, .. } => {
                let all: Vec<_> = pieces(&part.changes, 3).collect();
                let taken = 1 + self.random.below_u64(all.len() as u64) as usize;
                for piece in &all[..taken] {
                    let ids = ids(piece);
                    changes += ids.len() as u64;
                    sent.extend(ids.into_iter().map(|id| (part.epoch, id)));
                }
            }
        }
        let left_out = sent.iter().filter(|(_, id)| is_refused(*id));
        let refused: Vec<Refusal> = left_out
            .map(|(epoch, id)| Refusal {
                epoch: *epoch,
                record: id.to_string().into_bytes(),
                reason: "refused".into(),
            })
            .collect();
        if self.fault == Fault::BeforeCommit {
            return Err(unavailable());
        }
        let marker = delivery.marker_after(epochs, changes);
        let marker = marker.refusing(&delivery.before.refused, &refused);
        self.topic.transactions.push(sent);
        self.topic.marker = Some(marker.clone());
        if self.fault == Fault::AfterCommit {
            return Err(unavailable());
        }
        Ok(Delivered { marker, refused })
    }
}

/// One sink with all around it.
struct World {
    random: Random,
    queue: Queue,
    /// What was decided: the changes of each epoch.
    epochs: BTreeMap<Epoch, Vec<i64>>,
    published: Epoch,
    topic: Topic,
    files: BTreeMap<String, Vec<LogPart>>,
    /// The last committed checkpoint.
    committed: (SinkProgress, Epoch),
    /// The epoch of the last checkpoint, committed or not.
    sealed: Epoch,
    recovers: bool,
    refused: Vec<Vec<u8>>,
    generation: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let marker = Some(SinkMarker::default());
        World {
            random: Random(seed),
            queue: Queue::new(LIMITS, true),
            epochs: BTreeMap::new(),
            published: Epoch(0),
            topic: Topic {
                marker: marker.clone(),
                ..Topic::default()
            },
            files: BTreeMap::new(),
            committed: (
                SinkProgress {
                    delivered: marker,
                    ..SinkProgress::default()
                },
                Epoch(0),
            ),
            sealed: Epoch(0),
            recovers: true,
            refused: Vec::new(),
            generation: 1,
        }
    }

    /// Hands an epoch's changes to the queue, by two workers and in any order.
    fn emit(&mut self, epoch: Epoch) {
        let mut ids = self.epochs[&epoch].clone();
        for i in (1..ids.len()).rev() {
            ids.swap(i, self.random.below_u64(i as u64 + 1) as usize);
        }
        let (one, other) = ids.split_at(ids.len() / 2);
        for part in [one, other].into_iter().filter(|p| !p.is_empty()) {
            let changes: Vec<ChangeBatch> = part.chunks(5).map(batch).collect();
            self.queue.emit(epoch, changes, part.len() * 8, hash(part));
        }
    }

    /// Decides and completes one more epoch.
    fn publish(&mut self, rows: u64) {
        let epoch = self.published.next();
        let next = self.epochs.values().map(Vec::len).sum::<usize>() as i64;
        self.epochs
            .insert(epoch, (next..next + rows as i64).collect());
        self.emit(epoch);
        self.published = epoch;
    }

    /// One step of the delivering thread; `false` when there is nothing to do.
    fn step(&mut self, fault: Fault) -> bool {
        let next = self.queue.next(self.published).unwrap();
        let mut writer = Writer {
            topic: &mut self.topic,
            fault,
            random: &mut self.random,
        };
        if std::mem::take(&mut self.recovers) {
            let marker = writer.recover().unwrap();
            let refused = self.queue.take_over("k", marker).unwrap();
            self.refused.extend(refused.into_iter().map(|r| r.record));
            return true;
        }
        match next {
            Next::Wait | Next::WaitForCheckpoint => return false,
            Next::Read(file) => self.queue.hold(read(&self.files, &file)),
            Next::Deliver(delivery) => match writer.deliver(&delivery) {
                Ok(delivered) => {
                    self.queue.delivered(&delivered);
                    let refused = delivered.refused.into_iter();
                    self.refused.extend(refused.map(|r| r.record));
                }
                Err(_) => {
                    self.queue.failed();
                    self.recovers = true;
                }
            },
        }
        true
    }

    /// A checkpoint of the published epoch; its manifest may fail to be stored.
    fn checkpoint(&mut self, commits: bool) {
        self.checkpoint_of(self.published, commits);
    }

    /// A checkpoint of an epoch that may have been delivered, with later ones, before it is sealed.
    fn checkpoint_of(&mut self, epoch: Epoch, commits: bool) {
        if epoch <= self.sealed {
            return;
        }
        self.sealed = epoch;
        let sealing = self.queue.to_seal(epoch);
        let mut progress = sealing.progress;
        let mut stored = Vec::new();
        for (part, parts) in log::files(&sealing.limits, sealing.new)
            .into_iter()
            .enumerate()
        {
            let file = file(format!("{}-{epoch}-{part}", self.generation), epoch);
            stored.push((file.clone(), log::end_of(&parts)));
            self.files.insert(file.path.clone(), parts);
            progress.log.push(file);
        }
        self.queue.sealed(epoch, stored);
        if commits {
            self.committed = (progress, epoch);
            self.queue.committed(epoch);
        }
    }

    /// The published epoch, or one of those before.
    fn recent(&mut self) -> Epoch {
        Epoch(self.published.0.saturating_sub(self.random.below_u64(4)))
    }

    /// The process dies and comes back: from the last checkpoint and the log of decisions.
    fn restart(&mut self) {
        let (progress, epoch) = self.committed.clone();
        self.generation += 1;
        self.sealed = epoch;
        self.queue = Queue::restored(LIMITS, &progress, epoch);
        for file in &progress.log {
            self.queue.load(file.clone(), read(&self.files, file));
        }
        let replayed: Vec<Epoch> = self.epochs.keys().copied().filter(|e| *e > epoch).collect();
        replayed.into_iter().for_each(|e| self.emit(e));
        self.recovers = true;
    }

    fn deliver_all(&mut self) {
        while self.step(Fault::No) || self.recovers {}
    }

    /// Every change up to `last` left once, in the order of epochs, small epochs whole.
    fn check(&self, last: Epoch) {
        let mut left: Vec<i64> = self.topic.ids();
        let order: Vec<Epoch> = self
            .topic
            .transactions
            .iter()
            .flatten()
            .map(|(e, _)| *e)
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        left.sort();
        let expected = self.epochs.range(..=last).flat_map(|(_, ids)| ids.clone());
        assert_eq!(left, expected.collect::<Vec<_>>());
        for (epoch, ids) in self.epochs.range(..=last) {
            let parts = self.topic.transactions.iter();
            let parts = parts.filter(|t| t.iter().any(|(e, _)| e == epoch)).count();
            let is_small = ids.len() <= LIMITS.file_rows_max;
            assert!(!is_small || parts <= 1, "epoch {epoch} in {parts} parts");
        }
        let is_told =
            |id: &&i64| is_refused(**id) && !self.refused.contains(&id.to_string().into());
        assert_eq!(left.iter().find(is_told), None, "refused in silence");
    }
}

fn file(path: String, epoch: Epoch) -> FileMeta {
    FileMeta {
        path,
        table: TableId {
            relation: RelationId(1),
            table: 0,
        },
        epoch,
        rows: 1,
        deletes: 0,
        bytes: 1,
        crc32: 0,
        vnode_min: 0,
        vnode_max: 0,
        footer: None,
    }
}

/// What a file holds, in other batches than it was written.
fn read(files: &BTreeMap<String, Vec<LogPart>>, file: &FileMeta) -> Vec<LogPart> {
    let mut parts = Vec::new();
    for part in &files[&file.path] {
        for start in (0..part.changes.num_rows()).step_by(3) {
            let rows = 3.min(part.changes.num_rows() - start);
            parts.push(LogPart {
                position: part.position + start as u64,
                changes: part.changes.slice(start, rows),
                ..part.clone()
            });
        }
    }
    parts
}

#[test]
fn every_change_leaves_once_whatever_fails_and_when() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            match world.random.below_u64(20) {
                0..6 => {
                    let rows = match world.random.below_u64(8) {
                        0 => 0,
                        1 => 17 + world.random.below_u64(60),
                        _ => 1 + world.random.below_u64(12),
                    };
                    world.publish(rows);
                }
                6..13 => {
                    world.step(Fault::No);
                }
                13 => {
                    world.step(Fault::BeforeCommit);
                }
                14 => {
                    world.step(Fault::AfterCommit);
                }
                kind @ 15..19 => {
                    let epoch = world.recent();
                    world.checkpoint_of(epoch, kind < 18);
                }
                _ => world.restart(),
            }
        }
        world.publish(1);
        world.checkpoint(true);
        world.deliver_all();
        world.check(world.published);
        assert_eq!(world.queue.len(), 0);
    }
}

#[test]
fn a_sink_whose_job_stops_delivers_what_was_complete_and_goes_on_from_there() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        for rows in [3, 40, 5, 7] {
            world.publish(rows);
        }
        world.checkpoint(true);
        (0..world.random.below_u64(6)).for_each(|_| {
            world.step(Fault::No);
        });
        world.publish(9);
        let stopped = world.published;
        // worked ahead, not complete
        world.epochs.insert(stopped.next(), vec![1000, 1001]);
        world.emit(stopped.next());
        world.queue.end_at(stopped);
        world.emit(stopped.next());
        world.published = Epoch(stopped.0 + 3);
        world.checkpoint(true);
        (0..world.random.below_u64(6)).for_each(|_| {
            world.step(Fault::No);
        });
        if seed % 2 == 0 {
            let decided = std::mem::take(&mut world.epochs);
            world.restart();
            world.epochs = decided;
            world.queue.end_at(stopped);
        }
        world.deliver_all();
        world.check(stopped);
        // Emits once more what came since the first checkpoint, and goes on.
        world.queue.resume();
        world.emit(stopped);
        world.emit(stopped.next());
        world.deliver_all();
        world.check(stopped);
        // A checkpoint has what it emits from where it counts.
        world.queue.count_from(stopped.next());
        world.published = Epoch(stopped.0 + 5);
        world.checkpoint(true);
        if seed % 3 == 0 {
            world.restart();
        }
        world.queue.release();
        world.deliver_all();
        world.check(stopped.next());
    }
}

#[test]
fn a_marker_that_is_lost_or_goes_back_is_noticed_from_the_first_epoch_on() {
    let found = |marker: Option<SinkMarker>, deliver: bool| {
        let mut world = World::new(5);
        world.publish(3);
        world.publish(30);
        world.checkpoint(true);
        if deliver {
            (0..3).for_each(|_| assert!(world.step(Fault::No)));
        }
        let refused = world.queue.take_over("k", marker);
        refused.unwrap_err().message().to_string()
    };
    let behind = "sink \"k\": its marker is behind what it delivered";
    assert_eq!(
        found(None, false),
        format!("{behind} (epoch 0, found none)")
    );
    let first = Some(SinkMarker::default());
    assert_eq!(
        found(first, true),
        format!("{behind} (epoch 1, found epoch 0)")
    );
    let other = SinkMarker {
        epoch: Epoch(1),
        hash: 7,
        ..SinkMarker::default()
    };
    let gave = "replay up to epoch 1 gave other changes than were delivered";
    assert_eq!(found(Some(other), false), format!("sink \"k\": {gave}"));
    let beyond = SinkMarker {
        epoch: Epoch(1),
        partial: 30,
        hash: hash(&[0, 1, 2]),
        ..SinkMarker::default()
    };
    assert_eq!(found(Some(beyond), false), format!("sink \"k\": {gave}"));
}

#[test]
fn a_large_epoch_waits_for_its_checkpoint_and_is_read_back_file_by_file() {
    let mut world = World::new(3);
    world.publish(100);
    world.step(Fault::No);
    assert!(matches!(
        world.queue.next(Epoch(1)).unwrap(),
        Next::WaitForCheckpoint
    ));
    world.checkpoint(false);
    assert!(matches!(
        world.queue.next(Epoch(1)).unwrap(),
        Next::WaitForCheckpoint
    ));
    world.published = Epoch(2);
    world.checkpoint(true);
    let mut read = 0;
    while world.queue.len() > 0 {
        read += usize::from(matches!(world.queue.next(Epoch(2)).unwrap(), Next::Read(_)));
        world.step(Fault::No);
    }
    assert_eq!(read, 7, "100 rows in files of 16");
    world.check(Epoch(2));
}

fn idle_state() -> State {
    State {
        queue: Queue::new(LIMITS, false),
        released: true,
        counts_from: None,
        closed: false,
        delivers: true,
        resumed: false,
        is_full: false,
        asked: false,
        error: None,
    }
}

#[test]
fn published_epochs_do_not_shorten_a_pause_and_a_resume_does() {
    let (state, changed) = (Mutex::new(idle_state()), Signal::default());
    let error = Error::internal("no");
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                changed.notify_all();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let began = Instant::now();
        pause(&state, &changed, &error, Duration::from_millis(200));
        assert!(began.elapsed() >= Duration::from_millis(200));
        state.lock().go_on();
        pause(&state, &changed, &error, Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
        ends.store(true, Ordering::Relaxed);
    });
    assert_eq!(state.lock().error.as_deref(), Some(&*error.to_string()));
}

#[test]
fn a_resume_that_comes_with_the_error_is_not_lost() {
    let mut state = idle_state();
    state.go_on();
    assert!(!state.halt("no"), "it is tried once more");
    assert!(state.delivers);
    assert!(state.halt("no"));
    assert!(!state.delivers);
    state.go_on();
    assert_eq!(state.error, None);
}

/// Few changes of many bytes, which no checkpoint takes.
#[test]
fn what_waits_in_memory_is_weighed() {
    let limits = Limits {
        memory_bytes_max: 100,
        full_bytes: 1000,
        ..LIMITS
    };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let changes = || {
        let rows = RecordBatch::try_from_iter([("id", ids.clone())]).unwrap();
        vec![ChangeBatch::insert(rows)]
    };
    let mut queue = Queue::new(limits, true);
    let mut weights = Vec::new();
    for epoch in 1..=6 {
        queue.emit(Epoch(epoch), changes(), 201, 0);
        weights.push(queue.weight());
    }
    let [light, heavy, full] = [Weight::Light, Weight::Heavy, Weight::Full];
    assert_eq!(weights, [light, light, heavy, heavy, full, full]);
    // A delivery takes some of it, a checkpoint all.
    let Next::Deliver(delivery) = queue.next(Epoch(2)).unwrap() else {
        panic!("nothing to deliver");
    };
    let delivered = Delivered {
        marker: delivery.marker_after(2, 0),
        refused: Vec::new(),
    };
    queue.delivered(&delivered);
    assert_eq!(queue.weight(), heavy);
    queue.to_seal(Epoch(6));
    queue.sealed(Epoch(6), Vec::new());
    assert_eq!((queue.weight(), queue.len()), (light, 4));
    // A job that is not complete has to go on.
    queue.emit(Epoch(7), changes(), 2000, 0);
    assert_eq!(queue.weight(), full);
    queue.end_at(Epoch(7));
    assert_eq!(queue.weight(), light);
}
