//! What the coordinator does: the workers, as it sees them, and who does what else it asks for.

use crate::Pin;
use crate::inputs::{Answer, RequestId};
use crate::protocol::{Command, Positions};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Epoch, RelationId, WorkerId};
use tidemark_plan::{Catalog, Relation};
use tidemark_state::halted::KeptFile;
use tidemark_state::manifest::{Manifest, SinkProgress};

/// The workers, as the coordinator sees them.
pub trait Workers: Send {
    /// How many there are.
    fn count(&self) -> usize;
    /// Sends a command to one worker.
    fn send(&self, worker: WorkerId, command: Command);
    /// Sends a command to all.
    fn broadcast(&self, command: Command) {
        for worker in 0..self.count() {
            self.send(worker, command.clone());
        }
    }
    /// Tells who asked what came of it.
    fn answer(&self, request: RequestId, answer: Answer);
    /// Begins storing what these sinks, which have all passed the barrier of `epoch` or stopped
    /// before, have not delivered up to there; answers with `Event::SinkPart`.
    fn seal_sinks(&self, epoch: Epoch, sinks: Vec<RelationId>);
    /// Begins storing the errors of these relations as of `epoch`, which all of them have passed;
    /// answers with `Event::ErrorsPart`.
    fn seal_errors(&self, epoch: Epoch, relations: Vec<RelationId>);
    /// Sinks among these relations may deliver: their creation is committed.
    fn release_sinks(&self, relations: &[RelationId]);
    /// These jobs end: their sinks send nothing any more. Takes effect before this returns.
    fn close_sinks(&self, relations: &[RelationId]);
    /// The jobs of these sinks stopped, complete up to that epoch: the sinks deliver up to there,
    /// and are kept. Takes effect before this returns.
    fn end_sinks(&self, sinks: &[(RelationId, Epoch)]);
    /// These sinks, whose jobs do not run, deliver what the checkpoint of `epoch` has of them.
    fn keep_sinks(&self, epoch: Epoch, sinks: Vec<(Arc<Relation>, SinkProgress)>);
    /// Begins storing all rows that a relation has at the pinned epoch, in files that no checkpoint
    /// before that of `named` cleans away; answers with `Event::AnswerStored`.
    fn store_answer(&self, relation: Arc<Relation>, pin: Pin, named: Epoch);
    /// Begins writing a manifest, after the files of kept rows that it is the first to name;
    /// answers with `Event::ManifestStored`.
    fn store_manifest(&self, manifest: Arc<Manifest>, kept: Vec<(KeptFile, Bytes)>);
    /// The visible catalog changed, or where its sources start.
    fn catalog_changed(&self, catalog: Arc<Catalog>, starts: Positions);
    /// A checkpoint is committed: note it for `SHOW CHECKPOINTS`, delete what no retained manifest
    /// names, and begin a compaction if a table needs one.
    fn checkpoint_committed(&self, manifest: &Arc<Manifest>, duration: Duration);
    /// A job's state changed: `creating`, `resuming`, `running`, `held back`, `stopped`; progress
    /// in per cent.
    fn job_progress(&self, relation: RelationId, state: &'static str, progress: f64, epoch: Epoch);
}
