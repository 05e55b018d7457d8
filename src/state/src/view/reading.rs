//! A partition's rows as of one epoch, piece by piece, whatever happens to it meanwhile.
//!
//! The rows are those of the base without the ones that the pending changes touch, then the rows
//! that these changes leave. The changes, up to the epoch that is read, are summed once, when the
//! reading begins, and kept. Between two pieces no lock is held, and changes move to the base. None
//! later than the epoch that is read do while it is pinned; so whatever the base has in another way
//! than at the beginning is a row or key that the changes are about, and is left out. That counts
//! also where they cancel: a row that goes in one epoch and comes back in the next may come to
//! another place. What the base has of those is copied at the beginning. Which ids are left out is
//! found again when the base has moved on: removed keys give their ids to new ones. An append-only
//! base only grows, behind where it ended at the beginning.
//!
//! Law: the pieces together are the rows of [`ViewPartition::read_at`], in any order. Cost: what a
//! piece gathers; and the pending changes, once and whenever some of them are merged.

use super::base::{Base, take_rows};
use super::{ViewPartition, batch_of, group, snapshot_too_old};
use crate::chunked::Bitmap;
use crate::consolidate::cancelled;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Result};

/// Bytes of a piece, about: rows that are wide come fewer at a time. Whoever reads slowly holds
/// one, so the first are small, and pieces grow by a byte for each [`GIVEN_FOR_ONE`] given.
const PIECE_BYTES: usize = 4 << 20;
const FIRST_PIECE_BYTES: usize = 256 << 10;
const GIVEN_FOR_ONE: usize = 16;

/// A reading that goes on.
#[derive(Debug)]
pub struct Reading {
    partition: Arc<ViewPartition>,
    epoch: Epoch,
    columns: Vec<usize>,
    schema: SchemaRef,
    rows_max: usize,
    /// Rows of the next piece: what fits, as far as is known by the last one.
    rows_fitting: usize,
    /// Bytes given.
    given_bytes: usize,
    /// The sum of the changes that were pending at the beginning.
    changes: ChangeBatch,
    /// Rows that come and go in these changes.
    cancelled: ChangeBatch,
    /// What the base had of them at the beginning, and how many of these were given.
    copied: RecordBatch,
    copied_given: usize,
    /// Ids of the base that the changes touch, after so many merges.
    touched: Bitmap,
    moves: u64,
    /// Where the base ended at the beginning.
    end: u32,
    /// The next id of the base, and how often it was given already.
    next: u32,
    given: u64,
    /// Rows of the changes that are to come at the end, and how many came.
    left: Vec<u32>,
    left_given: usize,
}

impl ViewPartition {
    /// Begins to read the rows as of `epoch`: these columns, in pieces of at most `rows_max`. The
    /// caller has pinned `epoch` until it ends, and knows that no epoch up to `mergeable` is needed
    /// apart.
    pub fn reading(
        self: &Arc<Self>,
        epoch: Epoch,
        mergeable: Epoch,
        columns: &[usize],
        rows_max: usize,
    ) -> Result<Reading> {
        let schema = self.options.schema.project(columns);
        let schema = Arc::new(schema.expect("the columns exist"));
        self.with(epoch, mergeable, |merged, pending| {
            let pending = group::changes(pending);
            let changes = self.options.sum(&pending);
            let cancelled = ChangeBatch::insert(cancelled(&self.options.schema, &pending));
            let base = &merged.base;
            let touched = base.touched(&changes);
            let copied = copied_ids(base, &cancelled, &touched);
            let copied = batch_of(&schema, base.gather(columns, &copied), copied.len());
            let width = base.memory_bytes() / usize::try_from(base.rows()).unwrap_or(1).max(1);
            let rows_fitting = FIRST_PIECE_BYTES / width.max(1);
            let rows_max = rows_max.max(1);
            Reading {
                touched: touched.union(base.touched(&cancelled)),
                left: base.left_by(&self.options.name, &changes),
                end: base.end(),
                moves: merged.moves,
                rows_fitting: rows_fitting.clamp(1, rows_max),
                given_bytes: 0,
                rows_max,
                partition: self.clone(),
                epoch,
                columns: columns.to_vec(),
                schema,
                changes,
                cancelled,
                copied,
                copied_given: 0,
                next: 0,
                given: 0,
                left_given: 0,
            }
        })
    }
}

/// Ids of rows that changes are about which cancel, and no others, each as often as it is there.
fn copied_ids(base: &Base, cancelled: &ChangeBatch, touched: &Bitmap) -> Vec<u32> {
    let cancelled = base.touched(cancelled);
    let alone = cancelled.ids().filter(|id| !touched.contains(*id));
    let times = |id: u32| {
        let found = base.live_from(id).filter(|(found, _)| *found == id);
        found.map_or(0, |(_, weight)| weight as usize)
    };
    alone
        .flat_map(|id| std::iter::repeat_n(id, times(id)))
        .collect()
}

impl Reading {
    /// The next piece; none after the last. `72000` if the epoch was given up.
    pub fn next_piece(&mut self) -> Result<Option<RecordBatch>> {
        let piece = self.next_fitting()?;
        if let Some(piece) = piece.as_ref().filter(|piece| piece.num_rows() > 0) {
            let bytes = ChangeBatch::insert(piece.clone()).bytes();
            self.given_bytes = self.given_bytes.saturating_add(bytes);
            let next = self.given_bytes / GIVEN_FOR_ONE;
            let next = next.clamp(FIRST_PIECE_BYTES, PIECE_BYTES);
            // Few rows say little of the others.
            let known = self.rows_fitting.saturating_mul(4);
            let fitting = (next / (bytes / piece.num_rows()).max(1)).min(known);
            self.rows_fitting = fitting.clamp(1, self.rows_max);
        }
        Ok(piece)
    }

    fn next_fitting(&mut self) -> Result<Option<RecordBatch>> {
        if self.next < self.end {
            let partition = self.partition.clone();
            let merged = partition.base.read();
            if merged.epoch > self.epoch {
                return Err(snapshot_too_old());
            }
            if merged.moves != self.moves {
                let cancelled = merged.base.touched(&self.cancelled);
                self.touched = merged.base.touched(&self.changes).union(cancelled);
                self.moves = merged.moves;
            }
            let ids = self.ids(&merged.base);
            if !ids.is_empty() {
                let columns = merged.base.gather(&self.columns, &ids);
                return Ok(Some(batch_of(&self.schema, columns, ids.len())));
            }
        }
        if self.copied_given < self.copied.num_rows() {
            let rows = (self.copied.num_rows() - self.copied_given).min(self.rows_fitting);
            let piece = self.copied.slice(self.copied_given, rows);
            self.copied_given += rows;
            return Ok(Some(piece));
        }
        let from = self.left_given;
        let to = self.left.len().min(from + self.rows_fitting);
        self.left_given = to;
        let rows = self.changes.rows().project(&self.columns);
        let rows = rows.expect("the columns exist");
        let rows = (from < to).then(|| take_rows(&rows, self.left[from..to].to_vec()));
        Ok(rows.map(|rows| {
            let count = rows.num_rows();
            batch_of(&self.schema, rows.columns().to_vec(), count)
        }))
    }

    /// Ids of the base for the next piece, each as often as its weight says.
    fn ids(&mut self, base: &Base) -> Vec<u32> {
        let mut ids = Vec::new();
        while let Some((id, weight)) = base.live_from(self.next).filter(|(id, _)| *id < self.end) {
            if id > self.next {
                (self.next, self.given) = (id, 0);
            }
            let weight = if self.touched.contains(id) { 0 } else { weight };
            let room = (self.rows_fitting - ids.len()) as u64;
            let take = weight.saturating_sub(self.given).min(room);
            ids.extend(std::iter::repeat_n(id, take as usize));
            self.given += take;
            if self.given < weight {
                return ids;
            }
            (self.next, self.given) = (id + 1, 0);
        }
        self.next = self.end;
        ids
    }
}
