//! Sources whose records may be gone when they are read again, and what a replay makes of them.
//!
//! **Law.** The same cut means the same rows. A cut names offsets; where the broker takes records
//! away below them (a compacted topic, whatever the format of its records), the cut also holds the
//! rows that were read, until a checkpoint contains what they became. Then a replay takes them from
//! the log, and the reader goes on behind the last cut. So what was answered before a crash is
//! answered after it.
//!
//! **When a topic becomes compacted later**, which is asked now and then, its rows are logged from
//! the next barrier on: the open epoch has rows that nothing kept, so it is read again as before.
//! The switch is an entry that names that epoch, and a checkpoint is asked for at once, so that
//! such epochs are soon behind one. Until then a replay reads up to the switch, takes the rows of
//! the later cuts from the log, and opens its reader anew behind them. That is right because a
//! broker never compacts the segment that it writes to, where the newest records are; and it is
//! checked, for every source: a cut says how many records were read, and a replay that comes to its
//! offsets with another number stops the source instead of answering less than before.
//!
//! **Columns.** A source reads the columns that somebody wants. What the log has was read for the
//! jobs of its time; the jobs of a replay are among them, for each is contained in the checkpoint
//! that the replay begins with. So the columns that are wanted now are found in it by name.

use super::Source;
use crate::columns::nullable;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{SplitPosition, Waker};
use tidemark_common::{Error, Result};
use tidemark_control::protocol::{BarrierCommand, LoggedRows};
use tidemark_plan::Relation;

/// Whether the log keeps the rows that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logging {
    /// Offsets bring them back.
    No,
    /// From the next barrier on.
    Soon,
    /// Yes.
    Yes,
}

impl Logging {
    /// That of a source which begins.
    pub fn of(relation: &Relation) -> Logging {
        if relation.logs_rows.is_some() {
            Logging::Yes
        } else {
            Logging::No
        }
    }
}

impl Source {
    /// Whether what is read now goes to the log.
    pub(super) fn is_logged(&self) -> bool {
        self.logging == Logging::Yes && self.counted
    }

    /// From the next barrier on, the log keeps the rows.
    pub fn log_rows(&mut self) {
        if self.logging == Logging::No {
            self.logging = Logging::Soon;
        }
    }

    /// A barrier has passed that closes an epoch of new rows.
    pub(super) fn begin_epoch(&mut self) {
        if self.logging == Logging::Soon {
            self.logging = Logging::Yes;
        }
    }

    /// Tells from which epoch on a replay has the rows from the log.
    pub fn set_logged(&mut self, logged: Option<LoggedRows>) {
        self.logged = logged;
    }

    /// Reads no further than the barrier's cut, if it is one of a replay. Whether it has been
    /// reached, so that the barrier may pass.
    pub fn replay_to(&mut self, barrier: &BarrierCommand) -> Result<bool> {
        let Some(limits) = &barrier.limits else {
            return Ok(true);
        };
        if let Some(logged) = self.logged.take_if(|l| barrier.epoch > l.after) {
            self.go_on_at(&logged.end)?;
        }
        let limits = limits.get(&self.relation.id).map(Vec::as_slice);
        let limits = limits.unwrap_or_default();
        self.limit(limits)?;
        if !self.has_reached(limits) {
            return Ok(false);
        }
        self.check_records(limits)?;
        Ok(true)
    }

    /// Opens the reader anew at these positions.
    fn go_on_at(&mut self, positions: &[SplitPosition]) -> Result<()> {
        let mine = self.share_of(positions);
        let waker: Waker = self.waker.clone();
        self.reader = self
            .reading
            .outside
            .source(&self.relation)?
            .open(&mine, waker)?;
        self.reader.set_columns(&self.produced);
        self.reader.set_times(self.versioned);
        self.late.begin(&mine);
        Ok(())
    }

    /// Those of `positions` that are this worker's.
    pub(super) fn share_of(&self, positions: &[SplitPosition]) -> Vec<SplitPosition> {
        let placement = &self.reading.placement;
        let mine = |p: &&SplitPosition| placement.reader(p.split) == self.worker;
        positions.iter().filter(mine).cloned().collect()
    }

    /// The cut knows how many records were read up to its offsets.
    fn check_records(&self, cut: &[SplitPosition]) -> Result<()> {
        for now in self.reader.positions() {
            let same =
                |p: &&SplitPosition| p.split == now.split && p.next_offset == now.next_offset;
            let Some(then) = cut.iter().find(same) else {
                continue;
            };
            if then.records != now.records {
                return Err(Error::corrupt(format!(
                    "source \"{}\" partition {} has not the records any more that were read from \
                     it: up to offset {} they were {}, and are {} now",
                    self.relation.name, now.split, now.next_offset, then.records, now.records
                ))
                .with_hint(
                    "The broker took records away between two offsets, as compaction does. Create \
                     the source again to start from what is left.",
                ));
            }
        }
        Ok(())
    }

    /// How many records fewer it has read than a cut at the same offsets says.
    pub fn fewer_than(&self, cut: &[SplitPosition]) -> u64 {
        let read = self.reader.positions();
        let fewer = |then: &SplitPosition| {
            let now = read.iter().find(|p| p.split == then.split)?;
            Some(then.records.saturating_sub(now.records))
        };
        cut.iter().filter_map(fewer).sum()
    }

    /// Rows that the log has kept, as this source would give them now.
    pub fn of_log(&self, changes: &ChangeBatch) -> Result<ChangeBatch> {
        if !self.is_bare {
            return Ok(changes.clone());
        }
        let schema = nullable(&self.relation.arrow_schema());
        let wanted = schema
            .project(&self.produced)
            .map_err(|e| Error::internal(e.to_string()))?;
        let column = |name: &str| -> Result<ArrayRef> {
            let (at, _) = changes
                .rows()
                .schema_ref()
                .column_with_name(name)
                .ok_or_else(|| {
                    Error::internal(format!(
                        "the log has not kept column \"{name}\" of source \"{}\"",
                        self.relation.name
                    ))
                })?;
            Ok(changes.column(at).clone())
        };
        let columns = wanted.fields().iter().map(|f| column(f.name()));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(changes.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::new(wanted), columns, &options)
            .map_err(|e| Error::internal(format!("logged rows do not fit: {e}")))?;
        let faulty = changes.faulty().map(|f| f.to_vec()).unwrap_or_default();
        Ok(ChangeBatch::with_weights(rows, changes.weights().cloned()).with_faulty(faulty))
    }
}
