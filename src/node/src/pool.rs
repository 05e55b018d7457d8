//! The workers as the coordinator sees them, and who does what else it asks for.

use crate::checkpoints::Checkpoints;
use crate::crew::Crew;
use crate::sinks::SinkQueues;
use crate::writes::TableWriters;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::mailbox::Sender;
use tidemark_common::{Epoch, RelationId, WorkerId, machine};
use tidemark_control::inputs::{Answer, RequestId};
use tidemark_control::protocol::{Command, Event, Positions};
use tidemark_control::workers::Workers;
use tidemark_control::{Events, Pin, Stamped};
use tidemark_plan::{Catalog, Relation};
use tidemark_state::halted::KeptFile;
use tidemark_state::manifest::{Manifest, SinkProgress};
use tidemark_worker::{Figures, Inbound, KeptErrors, Published, Recovery, Storing, store_answer};

/// Channels to all workers, and who does what the coordinator asks for.
pub struct Pool {
    /// The other nodes, and who does what.
    pub crew: Arc<Crew>,
    /// One per worker of this node: commands.
    pub commands: Vec<Sender<Stamped<Command>>>,
    /// One per worker of this node: wakes it.
    pub inboxes: Vec<Sender<Inbound>>,
    /// Answers.
    pub events: Events,
    /// What sessions see.
    pub published: Arc<Published>,
    /// What they are told of jobs.
    pub figures: Arc<Figures>,
    /// `tidemark.errors`.
    pub errors: KeptErrors,
    /// What runs while the node restores and replays.
    pub recovery: Arc<Recovery>,
    /// Where answers are stored.
    pub storing: Storing,
    /// Who stores what makes a checkpoint.
    pub checkpoints: Arc<Checkpoints>,
    /// The sinks' queues.
    pub sinks: Arc<SinkQueues>,
    /// The tables' writers.
    pub writers: Arc<TableWriters>,
}

impl Workers for Pool {
    fn count(&self) -> usize {
        self.crew.placement().workers()
    }

    fn send(&self, worker: WorkerId, command: Command) {
        self.crew.order(Some(worker), &command);
        self.give(worker, command);
    }

    fn broadcast(&self, command: Command) {
        if let Command::Stop { relations, .. } = &command {
            self.writers.forget(relations);
        }
        self.crew.order(None, &command);
        for worker in 0..self.commands.len() {
            self.give(worker, command.clone());
        }
    }

    fn answer(&self, request: RequestId, answer: Answer) {
        self.events.answer(request, answer);
    }

    fn seal_sinks(&self, epoch: Epoch, sinks: Vec<RelationId>) {
        let (events, queues) = (self.events.clone(), self.sinks.of(&sinks));
        machine::spawn(async move {
            let mut sinks = BTreeMap::new();
            for (id, queue) in queues {
                match queue.seal(epoch).await {
                    Ok(progress) => drop(sinks.insert(id, progress)),
                    Err(error) => events.tell(Event::Failed {
                        relation: id,
                        error,
                    }),
                }
            }
            events.tell(Event::SinkPart { epoch, sinks });
        });
    }

    fn seal_errors(&self, epoch: Epoch, relations: Vec<RelationId>) {
        let sealed = self.errors.lock().seal(epoch, &relations);
        let (events, checkpoints) = (self.events.clone(), self.checkpoints.clone());
        machine::spawn(async move {
            let errors = checkpoints.store_errors(epoch, sealed).await;
            events.tell(Event::ErrorsPart { epoch, errors });
        });
    }

    fn release_sinks(&self, relations: &[RelationId]) {
        let queues = self.sinks.of(relations);
        queues.iter().for_each(|(_, queue)| queue.release());
    }

    fn close_sinks(&self, relations: &[RelationId]) {
        self.sinks.close(relations);
    }

    fn end_sinks(&self, sinks: &[(RelationId, Epoch)]) {
        self.sinks.end_all_at(sinks);
    }

    fn keep_sinks(&self, epoch: Epoch, sinks: Vec<(Arc<Relation>, SinkProgress)>) {
        for (relation, progress) in sinks {
            if let Err(error) = self.sinks.keep(&relation, &progress, epoch) {
                tracing::error!(sink = %relation.name, %error, "what a stopped sink has not \
                    delivered cannot be read");
            }
        }
    }

    fn store_answer(&self, relation: Arc<Relation>, pin: Pin, named: Epoch) {
        let (events, published) = (self.events.clone(), self.published.clone());
        let storing = self.storing.clone();
        machine::spawn_blocking(move || {
            let files = store_answer(&storing, &published, &relation, &pin, named);
            events.tell(Event::AnswerStored {
                relation: relation.id,
                epoch: pin.epoch(),
                files,
            });
        });
    }

    fn store_manifest(&self, manifest: Arc<Manifest>, kept: Vec<(KeptFile, Bytes)>) {
        let (events, checkpoints) = (self.events.clone(), self.checkpoints.clone());
        machine::spawn(async move {
            let stored = checkpoints.store_manifest(&manifest, kept).await;
            events.tell(Event::ManifestStored {
                epoch: manifest.epoch,
                manifest: stored,
            });
        });
    }

    fn catalog_changed(&self, catalog: Arc<Catalog>, starts: Positions) {
        let before = self.published.set_catalog(catalog.clone(), starts);
        // A job that had stopped kept its figures and errors until it was dropped.
        for gone in before
            .relations
            .keys()
            .filter(|id| !catalog.relations.contains_key(id))
        {
            self.figures.forget(*gone);
            self.errors.lock().forget(*gone);
        }
    }

    fn checkpoint_committed(&self, manifest: &Arc<Manifest>, duration: Duration) {
        self.checkpoints.remember(manifest, duration);
        let contained: Vec<RelationId> = manifest.sinks.keys().copied().collect();
        let queues = self.sinks.of(&contained);
        queues.iter().for_each(|(_, q)| q.committed(manifest.epoch));
        let (checkpoints, manifest) = (self.checkpoints.clone(), manifest.clone());
        machine::spawn(async move { checkpoints.clean_up(&manifest).await });
    }

    fn job_progress(&self, relation: RelationId, state: &'static str, progress: f64, epoch: Epoch) {
        if state == "running" {
            self.recovery.acquit(relation);
        }
        *self.figures.of(relation).state.lock() = (state, progress, epoch);
    }
}

impl Pool {
    /// To a worker of this node; others are told by the crew.
    fn give(&self, worker: WorkerId, told: Command) {
        let generation = self.storing.generation;
        let Some(commands) = self.commands.get(worker) else {
            return;
        };
        // A worker that is gone means shutdown.
        let _ = commands.send(Stamped { generation, told });
        let _ = self.inboxes[worker].send(Inbound::Wake);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.events.end();
    }
}
