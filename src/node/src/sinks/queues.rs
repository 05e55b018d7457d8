//! The sinks of a node: their queues by relation, and what all of them need.

use super::SinkQueue;
use super::full::FullSinks;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_common::{Epoch, RelationId, Result};
use tidemark_connector::Outside;
use tidemark_control::{Events, Readers};
use tidemark_operator::build::SinkOutput;
use tidemark_plan::Relation;
use tidemark_state::manifest::SinkProgress;
use tidemark_worker::{Figures, KeptErrors, Published, Sinks, Storing};

/// What a sink has of its node.
pub struct Surroundings {
    /// Identifies the database to the outside (sinks' transactions); made once.
    pub cluster: String,
    /// Where its log is kept.
    pub storing: Storing,
    /// Epochs.
    pub readers: Arc<Readers>,
    /// Who reads from whom.
    pub published: Arc<Published>,
    /// Where rows are counted.
    pub figures: Arc<Figures>,
    /// Where refused records are kept.
    pub errors: KeptErrors,
    /// To the coordinator.
    pub events: Events,
    /// Sinks of which too much waits in memory.
    pub full: Arc<FullSinks>,
    /// Connectors.
    pub outside: Outside,
}

/// See the module.
pub struct SinkQueues {
    around: Arc<Surroundings>,
    queues: Mutex<BTreeMap<RelationId, Arc<SinkQueue>>>,
}

impl SinkQueues {
    /// No sinks yet.
    pub fn new(around: Surroundings) -> SinkQueues {
        SinkQueues {
            around: Arc::new(around),
            queues: Mutex::default(),
        }
    }

    /// The queue of a sink.
    pub fn get(&self, sink: RelationId) -> Option<Arc<SinkQueue>> {
        self.queues.lock().get(&sink).cloned()
    }

    /// The queues of those relations that are sinks.
    pub fn of(&self, relations: &[RelationId]) -> Vec<(RelationId, Arc<SinkQueue>)> {
        let queues = self.queues.lock();
        let found = relations
            .iter()
            .filter_map(|id| Some((*id, queues.get(id)?.clone())));
        found.collect()
    }

    /// Bytes of changes that wait in memory for delivery.
    pub fn bytes(&self) -> usize {
        let queues = self.queues.lock();
        queues.values().map(|queue| queue.bytes()).sum()
    }

    /// Nothing is delivered any more.
    pub fn close_all(&self) {
        let queues: Vec<_> = self.queues.lock().values().cloned().collect();
        queues.iter().for_each(|queue| queue.close());
    }

    /// The queue of a sink whose job has stopped, and which runs on no worker, delivers what a
    /// checkpoint of `epoch` kept.
    pub fn keep(
        &self,
        relation: &Arc<Relation>,
        progress: &SinkProgress,
        epoch: Epoch,
    ) -> Result<()> {
        let queue = self.queue(relation, Some((progress, epoch)))?;
        queue.end_at(progress.through.unwrap_or(epoch));
        Ok(())
    }

    /// The sink's queue, made at first use, with what a checkpoint of an epoch kept. One that was
    /// kept while its job did not run is resumed.
    fn queue(
        &self,
        relation: &Arc<Relation>,
        progress: Option<(&SinkProgress, Epoch)>,
    ) -> Result<Arc<SinkQueue>> {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(&relation.id) {
            queue.resume()?;
            return Ok(queue.clone());
        }
        let queue = Arc::new(SinkQueue::new(&self.around, relation, progress)?);
        queues.insert(relation.id, queue.clone());
        queue.deliver_in_thread()?;
        queue.clone().follow_job();
        Ok(queue)
    }
}

impl Sinks for SinkQueues {
    fn open(
        &self,
        relation: &Arc<Relation>,
        progress: Option<(&SinkProgress, Epoch)>,
    ) -> Result<SinkOutput> {
        Ok(self.queue(relation, progress)?.output())
    }

    fn count_from(&self, sink: RelationId, epoch: Epoch) {
        if let Some(queue) = self.get(sink) {
            queue.count_from(epoch);
        }
    }

    fn cover(&self, sink: RelationId, epoch: Epoch) {
        if let Some(queue) = self.get(sink) {
            queue.cover(epoch);
        }
    }

    fn end(&self, sink: RelationId) {
        let ended = self.queues.lock().remove(&sink);
        if let Some(queue) = ended {
            queue.close();
        }
    }

    fn full_one_behind(&self, source: RelationId) -> Option<String> {
        self.around.full.fed_by(source)
    }
}
