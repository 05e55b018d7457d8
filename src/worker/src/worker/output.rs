//! What an actor's output becomes: messages of the exchange, kept errors, sealed state.

use super::*;

/// The output of an actor while it runs.
pub(super) struct ActorOutput<'a> {
    pub(super) id: RelationId,
    pub(super) relation: &'a Arc<Relation>,
    pub(super) route: &'a Route,
    pub(super) taps: &'a [TapTarget],
    pub(super) produced: Vec<usize>,
    pub(super) counts_from: Option<Epoch>,
    pub(super) router: &'a mut Router,
    pub(super) errors: &'a KeptErrors,
    /// The epoch that the actor is in.
    pub(super) epoch: Epoch,
    /// The last barrier that the actor has closed.
    pub(super) last_passed: Epoch,
    pub(super) passed: Vec<(Barrier, Vec<Sealed>)>,
}

impl FragmentSink for ActorOutput<'_> {
    fn changes(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if !matches!(self.route, Route::Taps) {
            self.router.send(self.id, self.route, batch);
            return Ok(());
        }
        for tap in self.taps {
            // Rows before the barrier of a join are part of what the tap catches up with.
            if self.last_passed < tap.after {
                continue;
            }
            let picked = tap.pick(&batch, &self.produced)?;
            if !picked.is_empty() {
                self.router.local.push_back(Delivery {
                    job: tap.job,
                    fragment: tap.fragment,
                    leaf: tap.leaf,
                    channel: 0,
                    message: Message::Changes(picked),
                });
            }
        }
        Ok(())
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        if self.relation.on_error == OnError::Fail {
            return Err(
                Error::user(tidemark_common::SqlState(error.state), error.message)
                    .with_detail(format!("The row is {}.", error.row)),
            );
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

    fn barrier(&mut self, barrier: Barrier, sealed: Vec<Sealed>) -> Result<()> {
        if matches!(self.route, Route::Taps) {
            for tap in self.taps.iter().filter(|t| barrier.epoch > t.after) {
                self.router.local.push_back(Delivery {
                    job: tap.job,
                    fragment: tap.fragment,
                    leaf: tap.leaf,
                    channel: 0,
                    message: Message::Barrier(barrier),
                });
            }
        } else {
            self.router.send_barrier(self.id, self.route, barrier);
        }
        self.last_passed = barrier.epoch;
        self.epoch = barrier.epoch.next();
        self.passed.push((barrier, sealed));
        Ok(())
    }

    fn seals(&self, barrier: &Barrier) -> bool {
        barrier.checkpoint && self.counts_from.is_some_and(|from| barrier.epoch >= from)
    }
}
