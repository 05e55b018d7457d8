//! What a table's leaf still gets: rows of writes and the barriers behind them. Rows in memory are
//! handed over with their barrier; those that are stored ([`tidemark_control::stored`]) are read
//! piece by piece, the next one when the table's job has done with what it got.

use std::collections::VecDeque;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{RelationId, Result};
use tidemark_control::Written;
use tidemark_control::protocol::BarrierCommand;

/// See the module.
#[derive(Default)]
pub struct TableFeed {
    epochs: VecDeque<Epoch>,
}

/// An epoch that is not handed over yet.
struct Epoch {
    command: Arc<BarrierCommand>,
    /// In order.
    writes: VecDeque<Written>,
    /// The next piece of the first of them.
    piece: usize,
}

/// What a leaf gets.
pub enum Fed {
    /// Rows.
    Changes(ChangeBatch),
    /// The epoch's end.
    Barrier(Arc<BarrierCommand>),
}

impl TableFeed {
    /// An epoch is closed; `is_writer` where the table's rows are handed over.
    pub fn close(&mut self, table: RelationId, is_writer: bool, command: &Arc<BarrierCommand>) {
        let writes = command.writes.iter();
        let writes = writes.filter(|w| is_writer && w.table == table);
        self.epochs.push_back(Epoch {
            command: command.clone(),
            writes: writes.map(|w| w.changes.clone()).collect(),
            piece: 0,
        });
    }

    /// Whether what comes next has to be read.
    pub fn is_stored(&self) -> bool {
        let first = self.epochs.front().and_then(|epoch| epoch.writes.front());
        matches!(first, Some(Written::Stored(_)))
    }

    /// The next of what is left.
    pub fn take(&mut self) -> Result<Option<Fed>> {
        let Some(epoch) = self.epochs.front_mut() else {
            return Ok(None);
        };
        let Some(write) = epoch.writes.front() else {
            let closed = self.epochs.pop_front();
            return Ok(closed.map(|epoch| Fed::Barrier(epoch.command)));
        };
        let changes = write.piece(epoch.piece)?;
        epoch.piece += 1;
        if epoch.piece >= write.pieces() {
            epoch.writes.pop_front();
            epoch.piece = 0;
        }
        Ok(Some(Fed::Changes(changes)))
    }
}
