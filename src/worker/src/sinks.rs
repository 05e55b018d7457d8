//! The door through which what a job emits leaves the worker. What is behind it (queues, logs,
//! producers) is the node's.

use std::sync::Arc;
use tidemark_common::{Epoch, RelationId, Result};
use tidemark_operator::build::SinkOutput;
use tidemark_plan::Relation;
use tidemark_state::manifest::SinkProgress;

/// The sinks of a node, as its workers see them.
pub trait Sinks: Send + Sync {
    /// Where a sink's operator puts what it emits. The first worker that asks opens the sink, with
    /// what a checkpoint of an epoch kept; one that was kept while its job did not run is resumed.
    fn open(
        &self,
        relation: &Arc<Relation>,
        progress: Option<(&SinkProgress, Epoch)>,
    ) -> Result<SinkOutput>;

    /// The sink exists from this epoch on: with `snapshot = 'false'`, what it emitted to catch up
    /// with its inputs is not sent.
    fn count_from(&self, sink: RelationId, epoch: Epoch);

    /// What its resumed job emits up to this epoch its receiver knows.
    fn cover(&self, sink: RelationId, epoch: Epoch);

    /// The sink ends: it delivers nothing any more.
    fn end(&self, sink: RelationId);

    /// The name of a sink that reads this source, and of which too much waits for delivery.
    fn full_one_behind(&self, source: RelationId) -> Option<String>;
}
