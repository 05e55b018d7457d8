//! What becomes of what an actor has done: messages of the exchange, kept errors, closed epochs.

use crate::actor::Done;
use crate::edge::Edge;
use crate::errors::KeptErrors;
use crate::exchange::{Message, Route, Router};
use crate::fragment::Closed;
use crate::job::TapTarget;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_operator::RowError;
use tidemark_plan::{OnError, Relation};
use tidemark_state::errors::ErrorRow;

/// Where the output of an actor goes.
pub(super) struct ActorOutput<'a> {
    pub(super) id: RelationId,
    pub(super) relation: &'a Arc<Relation>,
    pub(super) routes: &'a [Route],
    /// By route.
    pub(super) edges: &'a [Vec<Arc<Edge>>],
    pub(super) taps: &'a [TapTarget],
    pub(super) produced: Vec<usize>,
    pub(super) router: &'a mut Router,
    pub(super) errors: &'a KeptErrors,
    /// The epoch that the actor is in.
    pub(super) epoch: Epoch,
    /// The last barrier that the last actor of the job has closed.
    pub(super) last_passed: Epoch,
    /// Epochs that the actor has closed.
    pub(super) closed: Vec<Closed>,
}

impl ActorOutput<'_> {
    /// Sends it there.
    pub(super) fn take(&mut self, done: Vec<Done>) -> Result<()> {
        for done in done {
            match done {
                Done::Changes(batch, bytes) => self.changes(batch, bytes)?,
                Done::RowError(error) => self.row_error(error)?,
                Done::Closed(closed) => self.barrier(closed),
            }
        }
        Ok(())
    }

    fn ends_the_job(&self) -> bool {
        matches!(self.routes, [Route::Taps])
    }

    fn changes(&mut self, batch: ChangeBatch, bytes: usize) -> Result<()> {
        if !self.ends_the_job() {
            for (route, edges) in self.routes.iter().zip(self.edges) {
                let batch = batch.clone();
                self.router.send(self.relation, route, edges, batch, bytes);
            }
            return Ok(());
        }
        for tap in self.taps {
            // Rows before the barrier of a join are part of what the tap catches up with.
            if self.last_passed < tap.after {
                continue;
            }
            let picked = tap.pick(&batch, &self.produced)?;
            if !picked.is_empty() {
                let is_whole = picked.rows().num_columns() == batch.rows().num_columns();
                let credit = tap.edge.send(if is_whole { bytes } else { picked.bytes() });
                self.router
                    .local
                    .push_back(tap.delivery(Message::Changes(picked, Some(credit))));
            }
        }
        Ok(())
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        if self.relation.on_error == OnError::Fail {
            return Err(Error::user(SqlState(error.state), error.message)
                .with_detail(format!("The row is {}.", error.row)));
        }
        let row = ErrorRow {
            relation: self.relation.name.clone(),
            epoch: self.epoch,
            offset: -1,
            state: error.state.into(),
            message: error.message,
            raw: error.row.into_bytes(),
            ..ErrorRow::default()
        };
        let mut errors = self.errors.lock();
        errors.record(self.relation.id, row, error.weight);
        Ok(())
    }

    fn barrier(&mut self, closed: Closed) {
        let barrier = &closed.barrier;
        if self.ends_the_job() {
            let told = self.taps.iter().filter(|t| barrier.epoch > t.after);
            let told = told.map(|tap| tap.delivery(Message::Barrier(barrier.clone())));
            self.router.local.extend(told);
        } else {
            for route in self.routes {
                self.router.send_barrier(self.id, route, barrier);
            }
        }
        self.last_passed = barrier.epoch;
        self.epoch = barrier.epoch.next();
        self.closed.push(closed);
    }
}
