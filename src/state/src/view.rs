//! One worker's share of a relation that people read, shared between the worker that writes it and
//! the threads that read it.
//!
//! The relation at epoch e is `base + pending[<= e]`: rows merged up to `base_epoch`, and the
//! consolidated changes since, in groups of consecutive epochs. The worker appends an epoch's
//! changes at its barrier as a group of its own, and [`ViewPartition::settle`] is told which epochs
//! somebody can still read: the pinned ones and the newest. What is not after the first of them
//! goes into the base. What lies between two of them is read together or not at all, so its groups
//! are summed into one, as a log-structured merge does it: a group takes in the next one when that
//! is at least half its size. So a reader that stays costs what it differs in from now, twice the
//! rows that changed at most, however many updates there were; and adding an epoch costs a few
//! times its own rows. A group never spans the last seal, which tells what changed since.
//!
//! What many changes take long for is done in steps, and whoever does it is free between two of
//! them: an epoch is consolidated in parts that have no key in common, a group is merged some parts
//! at a time (the rest of it stays pending, and base and pending are the relation all the same),
//! and a seal tells part by part, during which nothing is merged.
//!
//! Joins on the same worker look rows up where they would keep them themselves ([`Neighbours`]), as
//! of the epochs that they come to one after the other: from the first of these on all stay apart
//! ([`ViewPartition::keep_apart`]).
//!
//! A reader that has pinned epoch e is promised that nothing passes e. A pin that was given up for
//! its age gets an error, never the rows of another epoch: the base's
//! epoch and the first epoch of each group tell.
//!
//! Locks: the base has a readers-writer lock, held for reading as long as a read gathers its rows
//! (a [`Reading`]: those of one piece), and for writing only to merge, and only when it is free at
//! once. Pending changes have a lock of their own that is held for moments, so that a barrier never
//! waits for a reader. Order: base, then pending, then dirty. Changes move from pending to base
//! under the base's write lock, so a reader that holds the base sees each change once.
//!
//! Durable form (see [`ViewTable`]): keyed relations have their key columns first, then the others;
//! a multiset has all columns as key and `_weight`; an append-only relation without key has the key
//! `_seq`, a counter per vnode, then its columns. The vnode of a row is that of the hash of its key
//! (or of all its columns), which is how the planner's exchange in front has brought it here.
//! Append-only rows may be anywhere: they carry a vnode of the worker that keeps them.

mod base;
mod group;
mod lookup;
#[cfg(test)]
mod measure;
mod neighbours;
mod reading;
mod secondary;
mod table;
#[cfg(test)]
mod tests;
mod widen;

pub use neighbours::Neighbours;
pub use reading::Reading;
pub use table::ViewTable;

use crate::apart::{Apart, Parts};
use crate::consolidate::{consolidate, consolidate_fully};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use base::{Base, Dirty, by_sign, pick, take_rows};
use group::{Group, Pending};
use parking_lot::{Mutex, RwLock};
use secondary::Secondary;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, Result, SqlState};

/// How a relation's rows are kept; see the module's documentation.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// The relation's name, for messages.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Columns of a unique key.
    pub key: Option<Vec<usize>>,
    /// No row ever leaves.
    pub append_only: bool,
    /// Number of its state table within the job.
    pub table: u32,
    /// The first vnode of the worker's range.
    pub vnode_of_worker: u16,
    /// Whether rows came here by the hash of their key (of all columns without key). Must be true
    /// unless the relation is append-only.
    pub partitioned_by_key: bool,
}

/// One worker's share of a relation.
#[derive(Debug)]
pub struct ViewPartition {
    options: ViewOptions,
    base: RwLock<Merged>,
    pending: Mutex<Pending>,
    /// Somebody sums groups of pending changes.
    summing: AtomicBool,
    /// See [`ViewPartition::keep_apart`].
    apart_from: AtomicU64,
    /// See [`ViewPartition::begins_at`].
    began: AtomicU64,
    /// What the next seal has to tell; taken after `base`.
    unsealed: Mutex<Unsealed>,
}

/// Rows that are merged into the base in one step, about.
const MERGED_ROWS: usize = 64 * 1024;

/// How far a merge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    Done,
    /// There is more to be merged.
    More,
    /// It has to wait for somebody.
    Later,
}

/// What is left to do when a view was told which epochs are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// There is more to be merged: settle it again.
    pub merges: bool,
    /// There are groups to be summed by [`ViewPartition::sum_pending`], where that holds nobody up.
    pub sums: bool,
}

#[derive(Debug)]
struct Merged {
    base: Base,
    /// Changes up to here are merged; of those that nobody reads apart and that end here, some may
    /// be pending still.
    epoch: Epoch,
    /// How often something was merged.
    moves: u64,
    /// Over columns that lookups asked for; see [`ViewPartition::lookup_by`].
    secondaries: Vec<Secondary>,
}

#[derive(Debug, Default)]
struct Unsealed {
    /// There is a state table that will tell of changes; without one they are not marked.
    tracked: bool,
    dirty: Dirty,
    /// Everything up to this epoch is sealed.
    sealed: Epoch,
    /// A seal is under way: nothing is merged.
    is_being_sealed: bool,
    /// Append-only: rows sealed (of base, then pending, in order), and the next `_seq`.
    sealed_rows: u64,
    next_seq: i64,
}

impl Unsealed {
    /// Numbers for so many rows that are sealed: the first of them.
    fn numbers(&mut self, rows: usize) -> i64 {
        let first = self.next_seq;
        self.next_seq += rows as i64;
        self.sealed_rows += rows as u64;
        first
    }
}

/// Somebody sums, until this is dropped: also when changes turn out not to fit together.
struct Summing<'a>(&'a AtomicBool);

impl Drop for Summing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl ViewOptions {
    /// How many parts changes of so many rows are worth: parts have no key in common.
    fn parts(&self, rows: usize) -> Parts {
        match self.schema.fields().is_empty() {
            true => Parts::of(0),
            false => Parts::of(rows),
        }
    }

    /// The sums of changes, part by part.
    fn part_by_part(
        &self,
        changes: Vec<ChangeBatch>,
        sum: impl Fn(&[ChangeBatch]) -> ChangeBatch,
        rest: &mut dyn FnMut(),
    ) -> Vec<ChangeBatch> {
        let parts = self.parts(changes.iter().map(ChangeBatch::num_rows).sum());
        let apart = Apart::new(changes, self.key_columns(), parts, rest);
        let mut sums = Vec::with_capacity(apart.count());
        for part in 0..apart.count() {
            sums.push(sum(&apart.part(part)));
            rest();
        }
        sums
    }

    /// The columns by which rows are told apart; none for all.
    fn key_columns(&self) -> &[usize] {
        self.key.as_deref().unwrap_or_default()
    }

    /// The sum of changes, with each row of a multiset once.
    fn sum(&self, changes: &[ChangeBatch]) -> ChangeBatch {
        if self.key.is_none() && !self.append_only {
            consolidate_fully(&self.schema, changes)
        } else {
            consolidate(&self.schema, changes)
        }
    }
}

impl ViewOptions {
    /// The sum of an epoch's changes, as [`Base::apply`] wants it. Where each key goes and comes at
    /// most once, that is the changes as they are.
    fn sum_of_epoch(&self, changes: &[ChangeBatch]) -> ChangeBatch {
        let Some(key) = self.key.as_deref().filter(|_| !changes.is_empty()) else {
            return self.sum(changes);
        };
        let all = ChangeBatch::concat(&self.schema, changes);
        let Some(weights) = all.weights() else {
            return all;
        };
        let keys = pick(all.rows(), key);
        let mut index = crate::KeyIndex::new(
            &keys
                .iter()
                .map(|k| k.data_type().clone())
                .collect::<Vec<_>>(),
        );
        let mut ids = Vec::new();
        index.intern(
            &keys,
            &tidemark_changelog::hash_columns(&keys, all.num_rows()),
            &mut ids,
        );
        let mut seen = vec![0u8; index.capacity()];
        for (id, weight) in ids.iter().zip(weights.iter()) {
            let bit = if *weight == 1 { 1 } else { 2 };
            if seen[*id as usize] & bit != 0 || weight.abs() != 1 {
                return self.sum(&[all]);
            }
            seen[*id as usize] |= bit;
        }
        all
    }
}

impl ViewPartition {
    /// Without rows, at epoch 0.
    pub fn new(options: ViewOptions) -> ViewPartition {
        assert!(
            options.partitioned_by_key || options.append_only,
            "{}: rows that can be retracted are partitioned by their key",
            options.name
        );
        let base = Base::new(&options.schema, options.key.as_deref(), options.append_only);
        ViewPartition {
            options,
            base: RwLock::new(Merged {
                base,
                epoch: Epoch(0),
                moves: 0,
                secondaries: Vec::new(),
            }),
            pending: Mutex::default(),
            summing: AtomicBool::new(false),
            apart_from: AtomicU64::new(u64::MAX),
            began: AtomicU64::new(0),
            unsealed: Mutex::default(),
        }
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.options.schema
    }

    /// The columns by whose hash its rows are where they are.
    pub fn placed_by(&self) -> Vec<usize> {
        let first = || (0..crate::added::first_columns(&self.options.schema)).collect();
        self.options.key.clone().unwrap_or_else(first)
    }

    /// Columns of its unique key, if it is kept by one.
    pub fn key(&self) -> Option<&[usize]> {
        self.options.key.as_deref()
    }

    /// Whether no row ever leaves, so that a row may be in any partition.
    pub fn is_append_only(&self) -> bool {
        self.options.append_only
    }

    /// The epoch up to which changes are merged.
    pub fn base_epoch(&self) -> Epoch {
        self.base.read().epoch
    }

    /// The changes of a closing epoch, later than all before; in any order.
    pub fn append(&self, epoch: Epoch, changes: Vec<ChangeBatch>) {
        self.append_in_parts(epoch, changes, &mut || ());
    }

    /// [`ViewPartition::append`], which calls `rest` every few thousand rows.
    pub fn append_in_parts(&self, epoch: Epoch, changes: Vec<ChangeBatch>, rest: &mut dyn FnMut()) {
        let summed = match self.options.key.is_none() && self.options.append_only {
            true => changes,
            false => {
                let sum = |part: &[ChangeBatch]| self.options.sum_of_epoch(part);
                self.options.part_by_part(changes, sum, rest)
            }
        };
        let changes: Vec<_> = summed.into_iter().filter(|c| !c.is_empty()).collect();
        let mut pending = self.pending.lock();
        assert!(
            epoch > pending.last,
            "{}: epoch {epoch} after epoch {}",
            self.options.name,
            pending.last
        );
        pending.last = epoch;
        if !changes.is_empty() {
            pending.insert(Group::new(epoch, epoch, changes));
        }
    }

    /// Epochs from this one on stay apart, whatever `settle` is told: whoever looks rows up comes
    /// to them one after the other. `None`: nobody does any more.
    pub fn keep_apart(&self, from: Option<Epoch>) {
        let from = from.map_or(u64::MAX, |epoch| epoch.0);
        self.apart_from.store(from, Ordering::Release);
    }

    /// What of these epochs, and of those that stay apart, there is to be told apart.
    fn apart(&self, needed: &[Epoch]) -> Vec<Epoch> {
        let from = Epoch(self.apart_from.load(Ordering::Acquire));
        let mut apart = needed.to_vec();
        if apart.last().is_some_and(|newest| *newest > from) {
            apart.retain(|epoch| *epoch < from);
            apart.push(from);
        }
        apart
    }

    /// Keeps apart what can still be read apart: `needed`, ascending, are the epochs that are
    /// pinned, and last the newest that can be pinned. Merges into the base, some at a time, and
    /// sums pending groups if they are small.
    pub fn settle(&self, needed: &[Epoch]) -> Unsettled {
        self.settle_some(needed, MERGED_ROWS)
    }

    fn settle_some(&self, needed: &[Epoch], rows_max: usize) -> Unsettled {
        let needed = &*self.apart(needed);
        let Some(first) = needed.first() else {
            return Unsettled::default();
        };
        let merges = self.merge_some(*first, rows_max) == Merge::More;
        if needed.len() == 1 || merges {
            return Unsettled {
                merges,
                sums: false,
            };
        }
        let sealed = self.unsealed.lock().sealed;
        let rows = self
            .pending
            .lock()
            .rows_to_sum(&self.options, needed, sealed);
        if rows > 0 && rows <= group::INLINE_ROWS_MAX {
            self.sum_pending(needed);
        }
        Unsettled {
            merges,
            sums: rows > group::INLINE_ROWS_MAX,
        }
    }

    /// Sums groups of pending changes that nobody can read apart. The work is done without a lock;
    /// who comes while another thread does it has nothing to do.
    pub fn sum_pending(&self, needed: &[Epoch]) {
        if self.summing.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ends = Summing(&self.summing);
        let sealed = self.unsealed.lock().sealed;
        let needed = &*self.apart(needed);
        let runs = self.pending.lock().runs(&self.options, needed, sealed);
        for run in runs {
            let changes: Vec<ChangeBatch> = run
                .iter()
                .flat_map(|group| group.changes.iter().cloned())
                .collect();
            let (Some(from), Some(to)) = (run.first(), run.last()) else {
                continue;
            };
            let sum = match self.options.key.is_none() && self.options.append_only {
                true => vec![self.options.sum(&changes)],
                false => {
                    let sum = |part: &[ChangeBatch]| self.options.sum(part);
                    self.options.part_by_part(changes, sum, &mut || ())
                }
            };
            let sum = Group::new(from.first, to.last, sum);
            self.pending.lock().replace(&run, sum);
        }
    }

    /// Merges the changes up to and including `up_to` into the base. Returns false when a reader
    /// holds it, or while it is sealed: try again at the next barrier.
    pub fn merge(&self, up_to: Epoch) -> bool {
        let mut merge = self.merge_some(up_to, MERGED_ROWS);
        while merge == Merge::More {
            merge = self.merge_some(up_to, MERGED_ROWS);
        }
        merge == Merge::Done
    }

    /// Merges some of these changes: so many rows, or a batch more.
    fn merge_some(&self, up_to: Epoch, rows_max: usize) -> Merge {
        let up_to = up_to.min(Epoch(self.apart_from.load(Ordering::Acquire)));
        let Some(mut merged) = self.base.try_write() else {
            return Merge::Later;
        };
        if self.unsealed.lock().is_being_sealed {
            return Merge::Later;
        }
        let (taken, more) = self.pending.lock().take(up_to, rows_max);
        let mut unsealed = self.unsealed.lock();
        let Merged {
            base, secondaries, ..
        } = &mut *merged;
        let mut last = Epoch(0);
        for (epoch, batch) in &taken {
            let mark = unsealed.tracked && *epoch > unsealed.sealed;
            let (name, dirty) = (&self.options.name, &mut unsealed.dirty);
            base.apply(name, batch, dirty, mark, secondaries);
            last = *epoch;
        }
        merged.moves += 1;
        let reached = if more { last } else { up_to };
        merged.epoch = merged.epoch.max(reached);
        if more { Merge::More } else { Merge::Done }
    }

    /// Runs `read` with the base and the groups on top of it up to `epoch`, having merged what
    /// `mergeable` allows. `72000` if the epoch was given up.
    fn with<T>(
        &self,
        epoch: Epoch,
        mergeable: Epoch,
        read: impl FnOnce(&Merged, &[Arc<Group>]) -> T,
    ) -> Result<T> {
        let apart_from = Epoch(self.apart_from.load(Ordering::Acquire));
        let mergeable = mergeable.min(epoch).min(apart_from);
        let mut merged = self.base.read();
        let mut pending = self.pending.lock();
        if pending.reaches(mergeable) {
            drop((pending, merged));
            self.merge_some(mergeable, MERGED_ROWS);
            merged = self.base.read();
            pending = self.pending.lock();
        }
        let groups = pending.up_to(epoch);
        drop(pending);
        match groups.filter(|_| merged.epoch <= epoch) {
            Some(groups) => Ok(read(&merged, &groups)),
            None => Err(snapshot_too_old()),
        }
    }

    /// The rows as of `epoch`: these columns, in batches of at most `batch_rows`. The caller has
    /// pinned `epoch`, and knows that no epoch up to `mergeable` is needed apart.
    pub fn read_at(
        &self,
        epoch: Epoch,
        mergeable: Epoch,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<Vec<RecordBatch>> {
        let nothing = ChangeBatch::insert(RecordBatch::new_empty(self.options.schema.clone()));
        self.read_with(epoch, mergeable, nothing, columns, batch_rows)
    }

    /// [`ViewPartition::read_at`] with further changes on top, of rows that belong here.
    pub fn read_with(
        &self,
        epoch: Epoch,
        mergeable: Epoch,
        on_top: ChangeBatch,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<Vec<RecordBatch>> {
        let schema: SchemaRef = Arc::new(
            self.options
                .schema
                .project(columns)
                .expect("the columns exist"),
        );
        self.with(epoch, mergeable, |Merged { base, .. }, pending| {
            let mut changes = group::changes(pending);
            changes.extend(Some(on_top).filter(|c| !c.is_empty()));
            let delta = self.options.sum(&changes);
            let (ids, extra) = base.rows_with(&self.options.name, &delta);
            let mut batches: Vec<RecordBatch> = ids
                .chunks(batch_rows)
                .map(|ids| batch_of(&schema, base.gather(columns, ids), ids.len()))
                .collect();
            if !extra.is_empty() {
                let count = extra.len();
                let rows = take_rows(
                    &delta.rows().project(columns).expect("the columns exist"),
                    extra,
                );
                let rows = batch_of(&schema, rows.columns().to_vec(), count);
                batches.extend(
                    (0..rows.num_rows())
                        .step_by(batch_rows)
                        .map(|at| rows.slice(at, batch_rows.min(rows.num_rows() - at))),
                );
            }
            batches
        })
    }

    /// The rows with these keys (one value per key column and wanted key) as of `epoch`, in no
    /// order: these columns, which `schema` names. Only for a relation that is kept by a key.
    pub fn lookup(
        &self,
        epoch: Epoch,
        mergeable: Epoch,
        key: &[ArrayRef],
        (columns, schema): (&[usize], &SchemaRef),
    ) -> Result<RecordBatch> {
        let rows = key.first().map_or(0, |k| k.len());
        self.with(epoch, mergeable, |Merged { base, .. }, pending| {
            let Base::Indexed(indexed) = base else {
                panic!("{}: no key to look up", self.options.name)
            };
            assert!(
                self.options.key.is_some(),
                "{}: no key to look up",
                self.options.name
            );
            if pending.is_empty() {
                let mut ids = indexed.find_keys(key, rows);
                ids.retain(|id| indexed.weight(*id) == 1);
                ids.sort_unstable();
                ids.dedup();
                return batch_of(schema, base.gather(columns, &ids), ids.len());
            }
            let mut wanted = crate::KeyIndex::new(
                &key.iter()
                    .map(|k| k.data_type().clone())
                    .collect::<Vec<_>>(),
            );
            wanted.intern(
                key,
                &tidemark_changelog::hash_columns(key, rows),
                &mut Vec::new(),
            );
            let every: Vec<u32> = wanted.live_ids().collect();
            let base_ids = indexed.find_keys(&wanted.gather(&every), every.len());
            let delta = self
                .options
                .sum(&group::matching(pending, &wanted, &indexed.key));
            let (gone, come) = by_sign(&delta);
            let gone = wanted_ids(&wanted, &pick(delta.rows(), &indexed.key), &gone);
            let base_ids: Vec<u32> = every
                .iter()
                .zip(base_ids)
                .filter(|(id, base)| indexed.weight(*base) == 1 && !gone.contains(id))
                .map(|(_, base)| base)
                .collect();
            let found = batch_of(schema, base.gather(columns, &base_ids), base_ids.len());
            if come.is_empty() {
                return found;
            }
            let added = take_rows(
                &delta.rows().project(columns).expect("the columns exist"),
                come,
            );
            arrow::compute::concat_batches(schema, [&found, &added])
                .expect("the parts share a schema")
        })
    }

    /// Its rows come all at once in this epoch, or are those of a checkpoint of it: what changed
    /// before is not known.
    pub fn begins_at(&self, epoch: Epoch) {
        self.began.store(epoch.0, Ordering::Release);
    }

    /// What changed after the epoch `since`, which the caller has pinned, up to `epoch`: the sum.
    /// `72000` if that is not kept any more.
    pub fn changes_since(&self, since: Epoch, epoch: Epoch) -> Result<ChangeBatch> {
        let merged = self.base.read();
        let groups = self.pending.lock().between(since, epoch);
        let known_from = merged.epoch.0.max(self.began.load(Ordering::Acquire));
        match groups.filter(|_| known_from <= since.0) {
            Some(groups) => Ok(self.options.sum(&group::changes(&groups))),
            None => Err(snapshot_too_old()),
        }
    }

    /// Number of rows as of `epoch`.
    pub fn row_count(&self, epoch: Epoch, mergeable: Epoch) -> Result<u64> {
        self.with(epoch, mergeable, |Merged { base, .. }, pending| {
            let added: i64 = pending.iter().map(|group| group.added).sum();
            base.rows()
                .checked_add_signed(added)
                .expect("the number of rows is not negative")
        })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let merged = self.base.read();
        let secondaries = merged.secondaries.iter().map(Secondary::memory_bytes);
        merged.base.memory_bytes() + secondaries.sum::<usize>() + self.pending.lock().memory_bytes()
    }

    /// Rows of pending changes: what readers of older epochs and epochs under way cost.
    pub fn pending_rows(&self) -> usize {
        self.pending.lock().rows()
    }
}

/// The answer to who reads an epoch whose pin was given up.
pub fn snapshot_too_old() -> Error {
    Error::user(SqlState("72000"), "snapshot too old")
        .with_detail("The epoch that the transaction or cursor reads is not kept any more.")
        .with_hint(
            "Run it again. The setting snapshot_age_max_ms bounds how long an epoch is kept for \
             a reader.",
        )
}

/// The id in `wanted` of the keys at `rows`.
fn wanted_ids(wanted: &crate::KeyIndex, keys: &[ArrayRef], rows: &[u32]) -> Vec<u32> {
    let selection = arrow::array::UInt32Array::from(rows.to_vec());
    let keys: Vec<ArrayRef> = keys
        .iter()
        .map(|k| arrow::compute::take(k, &selection, None).expect("rows are within the batch"))
        .collect();
    let mut ids = Vec::new();
    wanted.find(
        &keys,
        &tidemark_changelog::hash_columns(&keys, rows.len()),
        &mut ids,
    );
    ids
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .expect("stored values have the relation's types")
}
