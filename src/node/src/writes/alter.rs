//! What ALTER of columns asks of a table that it has locked for writing, and what a sink into it
//! says of what it has delivered.

use super::{Locked, WriteGuard};
use arrow::array::RecordBatch;
use std::sync::Arc;
use tidemark_changelog::connector::SinkMarker;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_plan::Relation;

impl WriteGuard {
    /// Whether all that was written to the table can be read: then nothing is on its way to it that
    /// was made when it had other columns.
    pub fn is_settled(&self, table: RelationId) -> Result<bool> {
        let pin = self.writers.readers.pin_of(&[table]);
        self.is_published(table, pin.epoch())
    }

    /// The table as it was when it was locked.
    pub fn relation(&self, table: RelationId) -> Result<Arc<Relation>> {
        Ok(self.locked(table)?.relation.clone())
    }

    /// Logs the writes as one, together with the marker of the sink that has delivered them.
    pub async fn commit_delivered(self, marker: (RelationId, SinkMarker)) -> Result<Epoch> {
        match self.submit(Some(marker))? {
            Some(decision) => decision.await,
            None => Err(Error::internal("a marker is always logged")),
        }
    }

    /// Whether there are rows in the table, of which all can be read.
    pub fn has_rows(&self, table: RelationId) -> Result<bool> {
        let partitions = self.writers.partitions(table)?;
        let pin = self.writers.readers.pin_of(&[table]);
        for partition in partitions {
            if partition.row_count(pin.epoch(), pin.mergeable())? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Locked {
    /// `40001` for rows of a table that has got columns since the statement was planned.
    pub(super) fn check_width(&self, rows: &RecordBatch) -> Result<()> {
        if rows.num_columns() == self.relation.columns.len() {
            return Ok(());
        }
        Err(altered(&self.relation))
    }
}

fn altered(relation: &Relation) -> Error {
    let message = format!(
        "table \"{}\" was altered while the statement waited for it",
        relation.name
    );
    Error::user(SqlState("40001"), message).with_hint("Run the statement again.")
}
