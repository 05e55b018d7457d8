//! Written rows that jobs have still to read, and the writes that wait for that.
//!
//! A table takes its rows at once, whatever those do that read it, and what is on its way to a job
//! that is behind is held in memory. Of each table that may be so many bytes; beyond that, writes
//! to it wait until the job has come on or is gone. Others do not wait for those, unless they wrote
//! to one of their tables after them.

use super::{Coordinator, PendingWrite};
use crate::TableWrites;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidemark_common::{Epoch, RelationId};

/// Bytes of one table's writes that some job has not read before others wait.
pub(super) const UNREAD_BYTES_MAX: usize = 64 << 20;

/// What a write takes on its way beside its rows, in bytes, about.
const WRITE_BYTES: usize = 512;

/// Epochs of a table that are noted before it is looked who has read them.
const NOTED_MAX: usize = 1024;

/// What was written to each table, as far as it is not known that all have read it.
#[derive(Default)]
pub(super) struct Unread {
    tables: BTreeMap<RelationId, Written>,
}

#[derive(Default)]
struct Written {
    epochs: VecDeque<(Epoch, usize)>,
    bytes: usize,
}

impl Unread {
    /// What an epoch writes.
    pub(super) fn note(&mut self, epoch: Epoch, writes: &[TableWrites]) {
        for write in writes {
            let written = self.tables.entry(write.table).or_default();
            let bytes = write.bytes() + WRITE_BYTES;
            written.epochs.push_back((epoch, bytes));
            written.bytes += bytes;
        }
    }
}

impl Written {
    fn read_to(&mut self, epoch: Epoch) {
        while let Some((_, bytes)) = self.epochs.pop_front_if(|(e, _)| *e <= epoch) {
            self.bytes -= bytes;
        }
    }
}

impl Coordinator {
    /// Looks how far all that read a table are, where much was written to it.
    pub(super) fn look_at_unread(&mut self) {
        let is_much = |w: &Written| w.bytes >= UNREAD_BYTES_MAX || w.epochs.len() >= NOTED_MAX;
        let tables = self.unread.tables.iter();
        let much: Vec<RelationId> = tables
            .filter(|(_, written)| is_much(written))
            .map(|(table, _)| *table)
            .collect();
        for table in much {
            let jobs = self.with_readers(table);
            let epoch = jobs.iter().filter_map(|id| self.progress.get(id));
            let epoch = epoch.map(super::Progress::everywhere).min();
            if let Some(written) = self.unread.tables.get_mut(&table) {
                written.read_to(epoch.unwrap_or(Epoch(u64::MAX)));
            }
        }
    }

    fn is_unread(&self, table: RelationId) -> bool {
        let written = self.unread.tables.get(&table);
        written.is_some_and(|written| written.bytes >= UNREAD_BYTES_MAX)
    }

    /// Which of the pending writes wait for a job.
    fn waiting(&self) -> impl FnMut(&PendingWrite) -> bool + '_ {
        let mut tables = BTreeSet::new();
        move |pending| {
            let mut written = pending.writes.iter().map(|write| write.table);
            let waits = written.any(|id| tables.contains(&id) || self.is_unread(id));
            if waits {
                tables.extend(pending.writes.iter().map(|write| write.table));
            }
            waits
        }
    }

    /// Whether some pending write waits for no job.
    pub(super) fn some_write_is_takeable(&self) -> bool {
        let mut waits = self.waiting();
        self.pending_writes.iter().any(|pending| !waits(pending))
    }
}

/// Takes out the pending writes: those that wait for no job, and the others, in order.
pub(super) fn takeable(coordinator: &mut Coordinator) -> (Vec<PendingWrite>, Vec<PendingWrite>) {
    let pending = std::mem::take(&mut coordinator.pending_writes);
    let mut waits = coordinator.waiting();
    pending.into_iter().partition(|pending| !waits(pending))
}
