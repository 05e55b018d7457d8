//! The sinks of a node: their queues by relation, and what all of them need.

use super::SinkQueue;
use crate::full::FullSinks;
use crate::writes::TableWriters;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_common::{Epoch, RelationId, Result, Signal};
use tidemark_connector::Outside;
use tidemark_control::{Events, Readers};
use tidemark_operator::build::SinkOutput;
use tidemark_plan::Relation;
use tidemark_state::manifest::SinkProgress;
use tidemark_worker::{Figures, KeptErrors, Published, Sinks, Storing, catch};

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
    /// Where sinks into tables write.
    pub writers: Arc<TableWriters>,
    /// Sinks of which too much waits in memory.
    pub full: Arc<FullSinks>,
    /// Connectors.
    pub outside: Outside,
}

/// See the module.
pub struct SinkQueues {
    around: Arc<Surroundings>,
    queues: Mutex<BTreeMap<RelationId, Slot>>,
    /// A sink is not being opened any more.
    opened: Signal,
}

/// A sink among the others. Nobody holds their lock while one is opened.
enum Slot {
    /// A worker opens it; whether it was closed meanwhile, or where its job stopped.
    Opening {
        closed: bool,
        ends: Option<Epoch>,
    },
    Open(Arc<SinkQueue>),
}

impl Slot {
    fn open(&self) -> Option<&Arc<SinkQueue>> {
        match self {
            Slot::Open(queue) => Some(queue),
            Slot::Opening { .. } => None,
        }
    }

    fn close(&mut self) {
        match self {
            Slot::Open(queue) => queue.close(),
            Slot::Opening { closed, .. } => *closed = true,
        }
    }

    fn end_at(&mut self, epoch: Epoch) {
        match self {
            Slot::Open(queue) => queue.end_at(epoch),
            Slot::Opening { ends, .. } => *ends = Some(epoch),
        }
    }
}

impl SinkQueues {
    /// No sinks yet.
    pub fn new(around: Surroundings) -> SinkQueues {
        SinkQueues {
            around: Arc::new(around),
            queues: Mutex::default(),
            opened: Signal::default(),
        }
    }

    /// The queue of a sink that is open.
    pub fn get(&self, sink: RelationId) -> Option<Arc<SinkQueue>> {
        self.queues.lock().get(&sink).and_then(Slot::open).cloned()
    }

    /// The queues of those relations that are sinks, and open.
    pub fn of(&self, relations: &[RelationId]) -> Vec<(RelationId, Arc<SinkQueue>)> {
        let queues = self.queues.lock();
        let found = relations
            .iter()
            .filter_map(|id| Some((*id, queues.get(id)?.open()?.clone())));
        found.collect()
    }

    /// Bytes of changes that wait in memory for delivery.
    pub fn bytes(&self) -> usize {
        let queues = self.queues.lock();
        let open = queues.values().filter_map(Slot::open);
        open.map(|queue| queue.bytes()).sum()
    }

    /// Nothing is delivered any more.
    pub fn close_all(&self) {
        self.queues.lock().values_mut().for_each(Slot::close);
    }

    /// The jobs of these sinks stopped, complete up to that epoch.
    pub fn end_all_at(&self, sinks: &[(RelationId, Epoch)]) {
        let mut queues = self.queues.lock();
        for (sink, epoch) in sinks {
            let slot = queues.get_mut(sink);
            slot.into_iter().for_each(|slot| slot.end_at(*epoch));
        }
    }

    /// Of these relations nothing is delivered any more.
    pub fn close(&self, relations: &[RelationId]) {
        let mut queues = self.queues.lock();
        for sink in relations {
            queues.get_mut(sink).into_iter().for_each(Slot::close);
        }
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
        if let Some(queue) = self.open_or_begin(relation.id) {
            queue.resume()?;
            return Ok(queue);
        }
        // It may have to read its log, and the store may be away.
        let made = catch(|| SinkQueue::new(&self.around, relation, progress).map(Arc::new));
        let mut queues = self.queues.lock();
        let begun = queues.remove(&relation.id);
        let result = made.and_then(|queue| {
            if let Some(Slot::Opening { closed, ends }) = begun {
                ends.into_iter().for_each(|epoch| queue.end_at(epoch));
                if closed {
                    queue.close();
                    return Ok(queue);
                }
            }
            queues.insert(relation.id, Slot::Open(queue.clone()));
            queue.deliver_in_thread()?;
            queue.clone().follow_job();
            Ok(queue)
        });
        drop(queues);
        self.opened.notify_all();
        result
    }

    /// The queue, once nobody is opening it any more; none if that is now up to who asks.
    fn open_or_begin(&self, sink: RelationId) -> Option<Arc<SinkQueue>> {
        let mut queues = self.queues.lock();
        loop {
            match queues.get(&sink) {
                Some(Slot::Open(queue)) => return Some(queue.clone()),
                Some(Slot::Opening { .. }) => self.opened.wait(&mut queues),
                None => break,
            }
        }
        let begun = Slot::Opening {
            closed: false,
            ends: None,
        };
        queues.insert(sink, begun);
        None
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
        let mut queues = self.queues.lock();
        match queues.get_mut(&sink) {
            Some(Slot::Opening { closed, .. }) => *closed = true,
            Some(Slot::Open(queue)) => {
                queue.close();
                queues.remove(&sink);
            }
            None => {}
        }
    }

    fn full_one_behind(&self, source: RelationId) -> Option<String> {
        self.around.full.fed_by(source)
    }
}
