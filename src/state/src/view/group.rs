//! Pending changes of a view, in groups of consecutive epochs, and which of them may be summed.

use super::ViewOptions;
use super::base::pick;
use crate::added::widened;
use crate::comparable::comparables;
use crate::{ABSENT, KeyIndex};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::Epoch;

/// Rows that the worker sums itself; more are a task for another thread.
pub(super) const INLINE_ROWS_MAX: usize = 16 * 1024;

/// Rows of insertions that are put together at most: they do not cancel, larger groups would only
/// be copied.
const APPENDED_ROWS_MAX: usize = 64 * 1024;

/// A group with fewer rows is searched row by row.
const INDEXED_ROWS_MIN: usize = 1024;

/// The changes of the epochs from `first` to `last`, which nobody reads apart.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) first: Epoch,
    pub(super) last: Epoch,
    pub(super) changes: Vec<ChangeBatch>,
    /// How many rows there are more after it than before.
    pub(super) added: i64,
    rows: usize,
    /// Made by the first lookup.
    index: OnceLock<GroupIndex>,
}

/// The rows of a group by key.
#[derive(Debug)]
struct GroupIndex {
    all: ChangeBatch,
    keys: KeyIndex,
    /// By id of the key, and by row: the next row with this key.
    first: Vec<u32>,
    next: Vec<u32>,
}

/// All groups, by their last epoch.
#[derive(Debug, Default)]
pub(super) struct Pending {
    groups: BTreeMap<Epoch, Arc<Group>>,
    /// The last epoch that was appended.
    pub(super) last: Epoch,
}

impl Group {
    pub(super) fn new(first: Epoch, last: Epoch, changes: Vec<ChangeBatch>) -> Group {
        let weight = |c: &ChangeBatch| {
            c.weights()
                .map_or(c.num_rows() as i64, |w| w.iter().sum::<i64>())
        };
        Group {
            first,
            last,
            added: changes.iter().map(weight).sum(),
            rows: changes.iter().map(ChangeBatch::num_rows).sum(),
            changes,
            index: OnceLock::new(),
        }
    }

    /// What is left of it, `left`, after `taken` was merged.
    fn without(&self, taken: &[ChangeBatch], left: &[ChangeBatch]) -> Group {
        let taken = Group::new(self.first, self.last, taken.to_vec());
        Group {
            first: self.first,
            last: self.last,
            changes: left.to_vec(),
            added: self.added - taken.added,
            rows: self.rows - taken.rows,
            index: OnceLock::new(),
        }
    }

    fn memory_bytes(&self) -> usize {
        let bytes = |c: &ChangeBatch| {
            c.rows().get_array_memory_size() + c.weights().map_or(0, |w| w.len() * 8)
        };
        let index = self.index.get().map_or(0, |i| {
            i.keys.memory_bytes() + 4 * (i.first.len() + i.next.len())
        });
        self.changes.iter().map(bytes).sum::<usize>() + index
    }

    /// The changes to rows of which what `values_of` gives is in `wanted`, row by row.
    fn searched(
        &self,
        wanted: &KeyIndex,
        values_of: impl Fn(&RecordBatch) -> Vec<ArrayRef>,
        found: &mut Vec<ChangeBatch>,
    ) {
        for changes in &self.changes {
            let (values, mut ids) = (values_of(changes.rows()), Vec::new());
            wanted.find(
                &values,
                &hash_columns(&values, changes.num_rows()),
                &mut ids,
            );
            let rows = (0..changes.num_rows() as u32).filter(|r| ids[*r as usize] != ABSENT);
            let rows: Vec<u32> = rows.collect();
            if !rows.is_empty() {
                found.push(changes.take(&UInt32Array::from(rows)));
            }
        }
    }

    /// The changes to keys in `wanted`.
    fn matching(&self, wanted: &KeyIndex, key: &[usize], found: &mut Vec<ChangeBatch>) {
        if self.rows < INDEXED_ROWS_MIN || wanted.len() * 4 > self.rows {
            return self.searched(wanted, |rows| pick(rows, key), found);
        }
        let index = self
            .index
            .get_or_init(|| GroupIndex::new(&self.changes, key));
        let rows = index.rows_of(wanted);
        if !rows.is_empty() {
            found.push(index.all.take(&UInt32Array::from(rows)));
        }
    }
}

impl GroupIndex {
    fn new(changes: &[ChangeBatch], key: &[usize]) -> GroupIndex {
        let all = ChangeBatch::concat(&changes[0].schema(), changes);
        let columns = pick(all.rows(), key);
        let types: Vec<_> = columns.iter().map(|k| k.data_type().clone()).collect();
        let mut keys = match key.len() == all.rows().num_columns() {
            true => KeyIndex::of_rows(&types),
            false => KeyIndex::new(&types),
        };
        let mut ids = Vec::new();
        let hashes = hash_columns(&columns, all.num_rows());
        keys.intern(&columns, &hashes, &mut ids);
        let mut first = vec![ABSENT; keys.capacity()];
        let mut next = vec![ABSENT; ids.len()];
        for (row, id) in ids.iter().enumerate().rev() {
            next[row] = first[*id as usize];
            first[*id as usize] = row as u32;
        }
        GroupIndex {
            all,
            keys,
            first,
            next,
        }
    }

    fn rows_of(&self, wanted: &KeyIndex) -> Vec<u32> {
        let every: Vec<u32> = wanted.live_ids().collect();
        let hashes: Vec<u64> = every.iter().map(|id| wanted.hash(*id)).collect();
        let mut ids = Vec::new();
        self.keys.find(&wanted.gather(&every), &hashes, &mut ids);
        let mut rows = Vec::new();
        for id in ids.into_iter().filter(|id| *id != ABSENT) {
            let mut row = self.first[id as usize];
            while row != ABSENT {
                rows.push(row);
                row = self.next[row as usize];
            }
        }
        rows
    }
}

/// All changes of these groups.
pub(super) fn changes<'a>(groups: impl IntoIterator<Item = &'a Arc<Group>>) -> Vec<ChangeBatch> {
    let each = groups.into_iter().flat_map(|g| g.changes.iter().cloned());
    each.filter(|c| !c.is_empty()).collect()
}

/// Their changes to keys in `wanted`.
pub(super) fn matching(
    groups: &[Arc<Group>],
    wanted: &KeyIndex,
    key: &[usize],
) -> Vec<ChangeBatch> {
    let mut found = Vec::new();
    for group in groups.iter().filter(|g| g.rows > 0) {
        group.matching(wanted, key, &mut found);
    }
    found
}

/// Their changes to rows whose values of `columns`, which are not the key, are in `wanted`, in
/// their comparable form.
pub(super) fn changes_to(
    groups: &[Arc<Group>],
    wanted: &KeyIndex,
    columns: &[usize],
) -> Vec<ChangeBatch> {
    let mut found = Vec::new();
    for group in groups {
        let values_of = |rows: &RecordBatch| comparables(&pick(rows, columns));
        group.searched(wanted, values_of, &mut found);
    }
    found
}

impl Pending {
    pub(super) fn insert(&mut self, group: Group) {
        self.groups.insert(group.last, Arc::new(group));
    }

    /// The same changes with all columns of `schema`.
    pub(super) fn widened(&self, schema: &SchemaRef) -> Pending {
        let wide = |group: &Arc<Group>| {
            let changes = group.changes.iter().cloned();
            let wide = changes.map(|c| widened(c, schema)).collect();
            Arc::new(Group::new(group.first, group.last, wide))
        };
        let groups = self.groups.iter().map(|(last, g)| (*last, wide(g)));
        Pending {
            groups: groups.collect(),
            last: self.last,
        }
    }

    /// Whether there are groups up to `epoch`.
    pub(super) fn reaches(&self, epoch: Epoch) -> bool {
        self.groups.range(..=epoch).next().is_some()
    }

    /// The groups up to `epoch`; `None` if that epoch is within one.
    pub(super) fn up_to(&self, epoch: Epoch) -> Option<Vec<Arc<Group>>> {
        let mut later = self.groups.range(epoch.next()..);
        if later.next().is_some_and(|(_, group)| group.first <= epoch) {
            return None;
        }
        Some(
            self.groups
                .range(..=epoch)
                .map(|(_, g)| g.clone())
                .collect(),
        )
    }

    /// The groups after `since` up to `epoch`, none if that is before it; `None` if one of the two
    /// is within one.
    pub(super) fn between(&self, since: Epoch, epoch: Epoch) -> Option<Vec<Arc<Group>>> {
        if epoch <= since {
            return Some(Vec::new());
        }
        let (groups, before) = (self.up_to(epoch)?, self.up_to(since)?.len());
        Some(groups[before..].to_vec())
    }

    /// The groups up to `epoch`, and those after it.
    pub(super) fn split_at(&self, epoch: Epoch) -> (Vec<Arc<Group>>, Vec<Arc<Group>>) {
        self.groups.values().cloned().partition(|g| g.last <= epoch)
    }

    /// Takes changes up to `epoch` out, `rows_max` rows or a batch more, each with the last epoch
    /// of its group; and tells whether there are more.
    pub(super) fn take(
        &mut self,
        epoch: Epoch,
        rows_max: usize,
    ) -> (Vec<(Epoch, ChangeBatch)>, bool) {
        let (mut taken, mut rows) = (Vec::new(), 0);
        while rows < rows_max
            && let Some(first) = self.groups.first_entry().filter(|g| *g.key() <= epoch)
        {
            let group = first.remove();
            let mut fitting = 0;
            while fitting < group.changes.len() && rows < rows_max {
                rows += group.changes[fitting].num_rows();
                fitting += 1;
            }
            let (now, later) = group.changes.split_at(fitting);
            taken.extend(now.iter().map(|batch| (group.last, batch.clone())));
            if !later.is_empty() {
                let later = group.without(now, later);
                self.groups.insert(later.last, Arc::new(later));
            }
        }
        (taken, self.reaches(epoch))
    }

    /// Runs of groups that are to be summed: neighbours that no needed epoch and no seal tells
    /// apart, where the later ones together have at least half the rows of the one before.
    pub(super) fn runs(
        &self,
        options: &ViewOptions,
        needed: &[Epoch],
        sealed: Epoch,
    ) -> Vec<Vec<Arc<Group>>> {
        let Some(newest) = needed.last() else {
            return Vec::new();
        };
        let shrinks = options.key.is_some() || !options.append_only;
        let segment = |e: Epoch| (needed.partition_point(|n| *n < e), e <= sealed);
        let mut runs: Vec<(usize, Vec<Arc<Group>>)> = Vec::new();
        for (last, group) in self.groups.range(..=*newest) {
            let (mut rows, mut run) = (group.rows, vec![group.clone()]);
            while let Some((before, earlier)) = runs.last()
                && segment(earlier[0].last) == segment(*last)
                && rows * 2 >= *before
                && (shrinks || rows + before <= APPENDED_ROWS_MAX)
            {
                rows += before;
                let (_, mut all) = runs.pop().expect("there is a last one");
                all.append(&mut run);
                run = all;
            }
            runs.push((rows, run));
        }
        runs.into_iter()
            .map(|(_, run)| run)
            .filter(|run| run.len() > 1)
            .collect()
    }

    /// How many rows [`Pending::runs`] has.
    pub(super) fn rows_to_sum(
        &self,
        options: &ViewOptions,
        needed: &[Epoch],
        sealed: Epoch,
    ) -> usize {
        let runs = self.runs(options, needed, sealed);
        runs.iter().flatten().map(|g| g.rows.max(1)).sum()
    }

    /// Puts the sum of a run in its place, unless a part of it was merged into the base meanwhile.
    pub(super) fn replace(&mut self, run: &[Arc<Group>], sum: Group) {
        let same = |g: &Arc<Group>| self.groups.get(&g.last).is_some_and(|h| Arc::ptr_eq(g, h));
        if run.iter().all(same) {
            run.iter().for_each(|g| drop(self.groups.remove(&g.last)));
            self.insert(sum);
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.groups.values().map(|g| g.rows).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.groups.values().map(|g| g.memory_bytes()).sum()
    }
}
