//! What sources promise of the event times of rows to come. A promise goes with every barrier and
//! is logged with the cut of its epoch, so that a replay closes the same windows at the same epoch.
//!
//! The promise of a source is the least event time that its splits have reached, as decided when
//! the barrier is sent, less its delay: what comes behind the barrier is later than that, or it is
//! late and no part of the input. A split that has no row yet holds the promise back: which rows of
//! it are late must follow from its own rows alone, for all who ever read them.

use super::Coordinator;
use std::sync::Arc;
use tidemark_common::{RelationId, Watermarks};

impl Coordinator {
    /// What sources promise with the next barrier.
    pub(super) fn promise(&mut self) -> Watermarks {
        self.promised = self.promises();
        self.promised.clone()
    }

    /// Whether more can be promised than was with the last barrier.
    pub(super) fn may_promise_more(&self) -> bool {
        self.promises() != self.promised
    }

    fn promises(&self) -> Watermarks {
        let promise = |source: &RelationId| Some((*source, self.decisions.watermark(*source)?));
        Arc::new(self.running.iter().filter_map(promise).collect())
    }
}
