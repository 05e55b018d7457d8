//! What one sink has emitted and not delivered, as plain state: no thread, clock, broker or store.
//!
//! **Law.** What leaves is a prefix of what was emitted, in the order of epochs, each once. Small
//! epochs leave whole, several in one delivery. A *large* epoch (a snapshot, above all) leaves in
//! parts with a marker each; its order must then be the same whatever happens, so it begins to
//! leave only when a committed checkpoint has it in the sink's log, from which any successor reads
//! it back in that order. Everything else comes again by replay, in whatever order within its
//! epoch.
//!
//! **The log.** [`Queue::to_seal`] tells what a checkpoint has to store, [`Queue::sealed`] where it
//! is. Of a sink that is far behind it is kept only there and read back file by file. A file holds
//! whole epochs or a part of a large one, so nothing that is read back is larger than a file.
//!
//! **Markers.** The one that the writer reads back is the truth. Its hash must be the one of the
//! epochs that it covers ([`Queue::take_over`]): another one means that the same cut did not give
//! the same changes. A marker behind the known one, or none where one must be, was tampered with.
//!
//! **Ends.** A sink whose job stopped at epoch e delivers what it has up to e ([`Queue::end_at`]).
//! Resumed ([`Queue::resume`]), its job emits the difference to what the receiver was told. Once
//! that is complete ([`Queue::count_from`]) checkpoints have it; when one is committed it leaves
//! ([`Queue::release`]).

use super::log::LogPart;
use std::collections::BTreeMap;
use tidemark_changelog::connector::{
    Delivered, Refusal, SinkContent, SinkDelivery, SinkEpoch, SinkMarker,
};
use tidemark_changelog::{ChangeBatch, pieces, skip};
use tidemark_common::{Epoch, Error, Result};
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::manifest::SinkProgress;

/// How much a queue handles at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Changes of one delivery, beyond which further epochs wait for the next.
    pub delivery_rows_max: usize,
    /// Changes of a file of the log. An epoch that does not fit one is large.
    pub file_rows_max: usize,
    /// Bytes in memory of the changes in a file of the log.
    pub file_bytes_max: usize,
    /// Changes in memory, beyond which those that a checkpoint has stored are read back when their
    /// turn comes.
    pub memory_rows_max: usize,
    /// The same in bytes.
    pub memory_bytes_max: usize,
    /// Bytes in memory beyond which the sink takes no more: what feeds it waits.
    pub full_bytes: usize,
}

impl Limits {
    /// Of every sink.
    pub const DEFAULT: Limits = Limits {
        delivery_rows_max: 100_000,
        file_rows_max: 250_000,
        file_bytes_max: 128 << 20,
        memory_rows_max: 250_000,
        memory_bytes_max: 128 << 20,
        full_bytes: 512 << 20,
    };
}

/// Deliveries that fail one after the other before the limits shrink: an outage is no slowness.
const FAILURES_BEFORE_SHRINKING: u32 = 2;
/// Changes of a delivery that the limits do not shrink below.
const SHRUNK_ROWS_MIN: usize = 500;

/// The state of one sink.
pub struct Queue {
    limits: Limits,
    /// What was emitted and is not delivered.
    epochs: BTreeMap<Epoch, Emitted>,
    /// The last epoch that was delivered whole.
    taken: Epoch,
    /// Hash over everything up to there.
    taken_hash: u64,
    /// Changes delivered of the first of `epochs`.
    offset: u64,
    /// The marker as known; none before the first of a sink that had none from its creation on.
    delivered: Option<SinkMarker>,
    /// The refusals of `delivered`, and whether a checkpoint was committed since each was told.
    refused: Vec<(Refusal, bool)>,
    /// Hash over everything up to each epoch that was delivered since the last checkpoint, and over
    /// everything before those.
    history: Vec<(Epoch, u64)>,
    history_base: u64,
    /// Files of the log, oldest first.
    log: Vec<LogFile>,
    /// Epochs up to this one are in files.
    logged: Epoch,
    /// Those up to this one are in files that a committed checkpoint names.
    committed: Epoch,
    /// The job stopped at this epoch: nothing after it leaves before it is resumed and released.
    ends: Option<Epoch>,
    /// The job does not run.
    stopped: bool,
    /// Changes of epochs up to this one are not taken: the receiver knows them.
    covered: Epoch,
    /// The job was resumed, and is complete from this epoch on.
    counts_from: Option<Epoch>,
    failures: u32,
    /// Bytes of the changes in memory.
    bytes_held: usize,
}

/// A stored file, and where it ends: its last epoch, and the position after the last change in it.
struct LogFile {
    file: FileMeta,
    end: (Epoch, u64),
}

/// The changes of one epoch.
#[derive(Default)]
struct Emitted {
    rows: u64,
    bytes: usize,
    hash: u64,
    /// It lies in several files.
    divided: bool,
    /// Those that are in memory, from position `held_from` on without a gap.
    held: Vec<ChangeBatch>,
    held_from: u64,
}

impl Emitted {
    fn held_to(&self) -> u64 {
        self.held_from + rows_of(&self.held) as u64
    }

    /// About: of an epoch of which a part is in memory, the same share of its bytes.
    fn bytes_held(&self) -> usize {
        let (held, rows) = (rows_of(&self.held) as u128, u128::from(self.rows.max(1)));
        usize::try_from(self.bytes as u128 * held / rows).unwrap_or(usize::MAX)
    }

    fn is_whole(&self) -> bool {
        self.held_from == 0 && self.held_to() == self.rows
    }

    /// Takes changes from position `from` on into memory, in the place of those that do not join.
    fn hold(&mut self, from: u64, changes: Vec<ChangeBatch>) {
        if self.held.is_empty() || self.held_to() != from {
            (self.held, self.held_from) = (changes, from);
        } else {
            self.held.extend(changes);
        }
    }

    fn shed(&mut self) {
        (self.held, self.held_from) = (Vec::new(), 0);
    }
}

/// What a delivering thread does next.
#[derive(Debug)]
pub enum Next {
    /// Nothing can be delivered now.
    Wait,
    /// Like `Wait`; what is next is a large epoch that no committed checkpoint has yet.
    WaitForCheckpoint,
    /// Read this file of the log and hand it to [`Queue::hold`].
    Read(FileMeta),
    /// Deliver this.
    Deliver(SinkDelivery),
}

/// How much of a sink is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing is to be done.
    Light,
    /// A checkpoint should take it.
    Heavy,
    /// It can take no more.
    Full,
}

/// What a checkpoint stores of a sink.
pub struct ToSeal {
    /// Epochs that are in no file yet: hash and changes.
    pub new: Vec<(Epoch, u64, Vec<ChangeBatch>)>,
    /// How large a file may be.
    pub limits: Limits,
    /// The progress, without the new files.
    pub progress: SinkProgress,
}

impl Queue {
    /// A sink that emitted nothing. `has_marker`: its writer wrote a first marker at its creation.
    pub fn new(limits: Limits, has_marker: bool) -> Queue {
        Queue {
            limits,
            epochs: BTreeMap::new(),
            taken: Epoch(0),
            taken_hash: 0,
            offset: 0,
            delivered: has_marker.then(SinkMarker::default),
            refused: Vec::new(),
            history: Vec::new(),
            history_base: 0,
            log: Vec::new(),
            logged: Epoch(0),
            committed: Epoch(0),
            ends: None,
            stopped: false,
            covered: Epoch(0),
            counts_from: None,
            failures: 0,
            bytes_held: 0,
        }
    }

    /// As a checkpoint of `epoch` has it; its files are to be handed to [`Queue::load`] next.
    pub fn restored(limits: Limits, progress: &SinkProgress, epoch: Epoch) -> Queue {
        let mut queue = Queue::new(limits, false);
        (queue.taken_hash, queue.history_base) = (progress.emitted_hash, progress.emitted_hash);
        queue.delivered = progress.delivered.clone();
        queue.taken = progress
            .delivered
            .as_ref()
            .map_or(Epoch(0), |m| m.epoch.min(epoch));
        let through = progress.through.unwrap_or(epoch);
        (queue.logged, queue.committed, queue.covered) = (through, through, through);
        queue
    }

    /// What a file of the checkpoint's log holds.
    pub fn load(&mut self, file: FileMeta, parts: Vec<LogPart>) {
        let keep = !self.is_over();
        let mut end = (Epoch(0), 0);
        for part in parts {
            let part_end = part.position + part.changes.num_rows() as u64;
            let continues = part.position > 0 && end.0 != part.epoch;
            end = (part.epoch, part_end);
            if part.epoch <= self.taken {
                continue;
            }
            let emitted = self.epochs.entry(part.epoch).or_default();
            emitted.divided |= continues;
            emitted.rows = emitted.rows.max(part_end);
            emitted.bytes += part.changes.bytes();
            emitted.hash = part.hash;
            if keep && (emitted.held.is_empty() || emitted.held_to() == part.position) {
                emitted.hold(part.position, vec![part.changes]);
            }
        }
        self.log.push(LogFile { file, end });
        self.weigh();
    }

    /// What one worker emits of an epoch, with its size in memory.
    pub fn emit(&mut self, epoch: Epoch, changes: Vec<ChangeBatch>, bytes: usize, hash: u64) {
        if epoch <= self.covered || self.stopped {
            return;
        }
        let emitted = self.epochs.entry(epoch).or_default();
        emitted.rows += rows_of(&changes) as u64;
        emitted.bytes += bytes;
        emitted.hash = emitted.hash.wrapping_add(hash);
        emitted.held.extend(changes);
        self.bytes_held += bytes;
    }

    /// The job stopped, complete up to `epoch`: what it emitted up to there is delivered, and
    /// nothing after it.
    pub fn end_at(&mut self, epoch: Epoch) {
        (self.ends, self.stopped) = (Some(epoch), true);
        drop(self.epochs.split_off(&epoch.next()));
        self.weigh();
    }

    /// The job runs again, and emits what the receiver was not told. That leaves when the job is
    /// complete and in a committed checkpoint ([`Queue::release`]).
    pub fn resume(&mut self) {
        (self.stopped, self.counts_from) = (false, None);
        self.covered = self.covered.max(self.ends.unwrap_or_default());
    }

    /// What is emitted up to this epoch the receiver knows already.
    pub fn cover(&mut self, epoch: Epoch) {
        self.covered = self.covered.max(epoch);
        let later = self.epochs.split_off(&self.ends.unwrap_or_default().next());
        self.epochs
            .extend(later.into_iter().filter(|(e, _)| *e > epoch));
        self.weigh();
    }

    /// A resumed job is complete from this epoch on.
    pub fn count_from(&mut self, epoch: Epoch) {
        self.counts_from = Some(epoch);
    }

    /// What the job has completed may leave.
    pub fn release(&mut self) {
        if !self.stopped {
            self.ends = None;
        }
    }

    /// Up to where a checkpoint of `epoch` has all that was emitted.
    fn through(&self, epoch: Epoch) -> Epoch {
        let counts = !self.stopped && self.counts_from.is_some_and(|from| from <= epoch);
        if counts { epoch } else { self.leaves_to(epoch) }
    }

    /// Up to where changes may leave when the job has completed `epoch`.
    fn leaves_to(&self, epoch: Epoch) -> Epoch {
        self.ends.map_or(epoch, |end| end.min(epoch))
    }

    /// Epochs that are not delivered whole.
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    /// What to do next; the job has completed epochs up to `complete`.
    pub fn next(&self, complete: Epoch) -> Result<Next> {
        let limit = self.leaves_to(complete);
        let Some((epoch, first)) = self.epochs.range(..=limit).next() else {
            return Ok(Next::Wait);
        };
        if self.offset > 0 || self.is_large(first) {
            return self.next_part(*epoch, first);
        }
        let (rows_max, mut rows, mut hash) = (self.rows_max(), 0, self.taken_hash);
        let mut epochs = Vec::new();
        for (epoch, emitted) in self.epochs.range(..=limit) {
            let over = rows > 0 && rows + emitted.rows as usize > rows_max;
            if over || self.is_large(emitted) || !emitted.is_whole() {
                break;
            }
            rows += emitted.rows as usize;
            hash = hash.wrapping_add(emitted.hash);
            epochs.push(SinkEpoch {
                epoch: *epoch,
                changes: emitted.held.clone(),
                hash,
            });
        }
        if epochs.is_empty() {
            return self.read(*epoch, 0);
        }
        Ok(self.deliver(SinkContent::Epochs(epochs)))
    }

    fn next_part(&self, epoch: Epoch, emitted: &Emitted) -> Result<Next> {
        if epoch > self.committed {
            return Ok(Next::WaitForCheckpoint);
        }
        if self.offset < emitted.held_from || self.offset >= emitted.held_to() {
            return self.read(epoch, self.offset);
        }
        let held = skip(&emitted.held, (self.offset - emitted.held_from) as usize);
        let changes = pieces(&held, self.rows_max()).next().unwrap_or_default();
        let ends = self.offset + rows_of(&changes) as u64 == emitted.rows;
        Ok(self.deliver(SinkContent::Part {
            part: SinkEpoch {
                epoch,
                changes,
                hash: self.taken_hash.wrapping_add(emitted.hash),
            },
            ends,
        }))
    }

    fn read(&self, epoch: Epoch, position: u64) -> Result<Next> {
        let file = self.log.iter().find(|f| f.end > (epoch, position));
        let file = file.ok_or_else(|| {
            Error::internal(format!("epoch {epoch} is in no file of its sink's log"))
        })?;
        Ok(Next::Read(file.file.clone()))
    }

    fn deliver(&self, content: SinkContent) -> Next {
        let before = SinkMarker {
            epoch: self.taken,
            partial: self.offset,
            hash: self.taken_hash,
            refused: self.refused.iter().map(|(r, _)| r.clone()).collect(),
        };
        Next::Deliver(SinkDelivery { before, content })
    }

    fn is_large(&self, emitted: &Emitted) -> bool {
        let rows_max = self.limits.file_rows_max.min(self.shrunk());
        emitted.divided
            || emitted.rows > rows_max as u64
            || emitted.bytes > self.limits.file_bytes_max
    }

    fn rows_max(&self) -> usize {
        self.limits.delivery_rows_max.min(self.shrunk())
    }

    /// A delivery that fails again and again may be too large for what the receiver can take in
    /// time.
    fn shrunk(&self) -> usize {
        let halvings = self.failures.saturating_sub(FAILURES_BEFORE_SHRINKING);
        match halvings {
            0 => usize::MAX,
            n => (self.limits.delivery_rows_max >> n.min(20)).max(SHRUNK_ROWS_MIN),
        }
    }

    /// Takes what a file of the log holds into memory, where it is missing.
    pub fn hold(&mut self, parts: Vec<LogPart>) {
        for part in parts {
            let Some(emitted) = self.epochs.get_mut(&part.epoch) else {
                continue;
            };
            if !(emitted.held_from..emitted.held_to()).contains(&part.position) {
                emitted.hold(part.position, vec![part.changes]);
            }
        }
        self.weigh();
    }

    /// Drops what an earlier writer delivered, after comparing hashes.
    pub fn take_over(&mut self, sink: &str, marker: Option<SinkMarker>) -> Result<Vec<Refusal>> {
        let known = self.delivered.as_ref().map(SinkMarker::progress);
        let found = marker.as_ref().map(SinkMarker::progress);
        if found < known {
            let found = found.map_or("none".to_string(), |(epoch, _)| format!("epoch {epoch}"));
            return Err(Error::corrupt(format!(
                "sink \"{sink}\": its marker is behind what it delivered (epoch {}, found {found})",
                known.map_or(Epoch(0), |(epoch, _)| epoch)
            ))
            .with_hint(
                "Somebody changed the marker topic; create the sink anew under another name.",
            ));
        }
        let Some(marker) = marker else {
            return Ok(Vec::new());
        };
        if self.stopped && self.ends.is_some_and(|end| marker.epoch > end) {
            // What came after the last checkpoint was not replayed: nothing is left to deliver.
            let refused = marker.refused.clone();
            self.advance(marker);
            return Ok(refused);
        }
        let (mut hash, mut history) = (self.taken_hash, Vec::new());
        for (epoch, emitted) in self.epochs.range(..=marker.epoch) {
            hash = hash.wrapping_add(emitted.hash);
            history.push((*epoch, hash));
        }
        let next = self.epochs.range(marker.epoch.next()..).next();
        let is_there =
            next.is_some_and(|(e, next)| next.rows > marker.partial && *e <= self.committed);
        if hash != marker.hash || (marker.partial > 0 && !is_there) {
            return Err(Error::corrupt(format!(
                "sink \"{sink}\": replay up to epoch {} gave other changes than were delivered",
                marker.epoch
            ))
            .with_detail(
                "The rows of a decided epoch are not what they were: the topic was changed, or an \
                 operator is not determined.",
            ));
        }
        self.history.append(&mut history);
        let refused = marker.refused.clone();
        self.advance(marker);
        Ok(refused)
    }

    /// What a delivery achieved.
    pub fn delivered(&mut self, delivered: &Delivered) {
        self.failures = 0;
        let mut hash = self.taken_hash;
        for (epoch, emitted) in self.epochs.range(..=delivered.marker.epoch) {
            hash = hash.wrapping_add(emitted.hash);
            self.history.push((*epoch, hash));
        }
        self.advance(delivered.marker.clone());
    }

    /// A delivery failed.
    pub fn failed(&mut self) {
        self.failures += 1;
    }

    /// Forgets what `marker` covers.
    fn advance(&mut self, marker: SinkMarker) {
        self.epochs = self.epochs.split_off(&marker.epoch.next());
        self.taken = self.taken.max(marker.epoch);
        (self.taken_hash, self.offset) = (marker.hash, marker.partial);
        let mut reached = (marker.epoch, u64::MAX);
        if self.offset > 0
            && let Some(mut first) = self.epochs.first_entry()
        {
            reached = (*first.key(), self.offset);
            let (offset, emitted) = (self.offset, first.get_mut());
            if emitted.held_from < offset {
                let passed = (offset - emitted.held_from) as usize;
                emitted.held = skip(&emitted.held, passed);
                emitted.held_from = offset;
            }
        }
        self.log.retain(|f| f.end > reached);
        let known = |r: &Refusal| self.refused.iter().any(|(k, aged)| *aged && k == r);
        self.refused = marker
            .refused
            .iter()
            .map(|r| (r.clone(), known(r)))
            .collect();
        self.delivered = Some(marker);
        self.weigh();
    }

    /// What the checkpoint of `epoch`, which all workers have passed, stores of this sink.
    pub fn to_seal(&mut self, epoch: Epoch) -> ToSeal {
        let emitted_hash = self.delivered_hash(epoch);
        let from = self.logged.max(self.taken);
        let through = self.through(epoch);
        let new = self.epochs.range(..=through).filter(|(e, _)| **e > from);
        let new = new.map(|(epoch, e)| (*epoch, e.hash, e.held.clone()));
        let progress = SinkProgress {
            delivered: self.delivered.clone(),
            emitted_hash,
            through: Some(through),
            log: self.log.iter().map(|f| f.file.clone()).collect(),
        };
        ToSeal {
            new: new.collect(),
            limits: self.limits,
            progress,
        }
    }

    /// The files of [`Queue::to_seal`] are stored, with where each ends; all of `epoch`.
    pub fn sealed(&mut self, epoch: Epoch, files: Vec<(FileMeta, (Epoch, u64))>) {
        let from = self.logged;
        let through = self.through(epoch);
        self.logged = self.logged.max(through);
        let reached = match self.epochs.keys().next() {
            Some(first) if self.offset > 0 => (*first, self.offset),
            _ => (self.taken, u64::MAX),
        };
        for (file, end) in files {
            if let Some(emitted) = self.epochs.get_mut(&end.0) {
                emitted.divided |= end.1 < emitted.rows;
            }
            if end > reached {
                self.log.push(LogFile { file, end });
            }
        }
        if self.is_over() {
            let stored = self.epochs.range_mut(..=through);
            let stored = stored.filter(|(e, _)| **e > from);
            stored.for_each(|(_, emitted)| emitted.shed());
            self.weigh();
        }
    }

    /// A checkpoint of `epoch` is committed, and names all files that were stored for it.
    pub fn committed(&mut self, epoch: Epoch) {
        self.committed = self.committed.max(epoch.min(self.logged));
        // The errors of a checkpoint are collected after the commit of the one before.
        self.refused.retain(|(r, aged)| !*aged || r.epoch > epoch);
        self.refused.iter_mut().for_each(|(_, aged)| *aged = true);
    }

    /// Whether more is in memory than what a checkpoint has stored may keep there.
    fn is_over(&self) -> bool {
        let rows: usize = self.epochs.values().map(|e| rows_of(&e.held)).sum();
        rows > self.limits.memory_rows_max || self.bytes_held > self.limits.memory_bytes_max
    }

    fn weigh(&mut self) {
        self.bytes_held = self.epochs.values().map(Emitted::bytes_held).sum();
    }

    /// How much waits in memory for its receiver. What a job emits that is not complete, or does
    /// not run, does not count: it must come to its end before anything can leave.
    pub fn weight(&self) -> Weight {
        let full = self.limits.full_bytes;
        match self.bytes_held {
            _ if self.stopped || self.ends.is_some() => Weight::Light,
            bytes if bytes > full => Weight::Full,
            bytes if bytes > full / 2 => Weight::Heavy,
            _ => Weight::Light,
        }
    }

    /// Bytes of changes that are in memory.
    pub fn bytes(&self) -> usize {
        self.bytes_held
    }

    /// The hash over everything up to `epoch` that the known marker covers. After a start that may
    /// be ahead of what has left the queue, until the writer's own marker is read back.
    fn delivered_hash(&mut self, epoch: Epoch) -> u64 {
        let hash = self.hash_at(epoch);
        let Some(marker) = self.delivered.as_ref().filter(|m| m.epoch > self.taken) else {
            return hash;
        };
        let known = self.epochs.range(..=marker.epoch.min(epoch));
        known.fold(hash, |hash, (_, emitted)| hash.wrapping_add(emitted.hash))
    }

    /// The hash over everything up to `epoch` that has left the queue; forgets older ones. Replay
    /// after a checkpoint of `epoch` goes on from it.
    fn hash_at(&mut self, epoch: Epoch) -> u64 {
        let older = self.history.partition_point(|(e, _)| *e <= epoch);
        if let Some((_, hash)) = self.history[..older].last() {
            self.history_base = *hash;
        }
        self.history.drain(..older);
        self.history_base
    }
}

fn rows_of(changes: &[ChangeBatch]) -> usize {
    changes.iter().map(ChangeBatch::num_rows).sum()
}
