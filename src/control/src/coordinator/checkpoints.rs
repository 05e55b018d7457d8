//! Checkpoints: parts from every worker, the sinks and the kept errors, a manifest, and the log
//! entry that makes it count. One at a time; a checkpoint that fails never existed, and the next
//! one is tried after the usual interval with everything that changed since. A worker tries to
//! store its part until it succeeds, so nothing that was sealed is lost: only the manifest can
//! fail, and what it would have named is named by the next one.
//!
//! The files of a job that is halted stay as the last checkpoint before has them, until the job is
//! contained again or dropped ([`super::halted`]); its last complete answer is beside them
//! ([`super::answers`]).

use super::Coordinator;
use super::epochs::{EpochInFlight, Snapshot};
use super::jobs::Phase;
use crate::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::{
    Epoch, Error, RelationId, Result, SqlState, TableId, WorkerId, failpoint, machine,
};
use tidemark_plan::RelationKind;
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::errors::ErrorsFile;
use tidemark_state::manifest::{MANIFEST_VERSION, Manifest, SinkProgress};

/// A checkpoint between its barrier and its commit.
pub(super) struct CheckpointInProgress {
    epoch: Epoch,
    sent: Instant,
    parts: Vec<Option<Vec<FileMeta>>>,
    /// Of the sinks that it contains.
    sinks: Option<BTreeMap<RelationId, SinkProgress>>,
    /// The errors that are kept, once stored.
    errors: Option<Option<ErrorsFile>>,
    passed: Option<(i64, Snapshot)>,
    manifest: Option<Made>,
}

/// A manifest that is being stored, and what the retained files become with it.
struct Made {
    manifest: Arc<Manifest>,
    /// Files that it is the first to name.
    files: Vec<FileMeta>,
    /// Jobs whose older files it names no more.
    rebuilt: Vec<RelationId>,
}

/// What the last committed checkpoint left, and what the next one begins with.
pub(super) struct Retained {
    /// The last committed manifest.
    pub manifest: Option<Arc<Manifest>>,
    /// Files of every state table, with those of compactions since.
    pub tables: BTreeMap<TableId, Vec<FileMeta>>,
    /// Something was decided that it does not contain.
    pub changed: bool,
    /// Somebody waits for the next one.
    pub wanted: bool,
    /// When its barrier was sent.
    pub last: Instant,
}

impl Retained {
    pub(super) fn epoch(&self) -> Epoch {
        self.manifest.as_ref().map_or(Epoch(0), |m| m.epoch)
    }

    /// Names no file of this job any more.
    pub(super) fn forget(&mut self, relation: RelationId) {
        self.tables.retain(|table, _| table.relation != relation);
    }
}

impl Coordinator {
    /// When a checkpoint asks for a barrier of its own.
    pub(super) fn checkpoint_deadline(&self) -> Option<Instant> {
        let due = self.retained.changed && self.checkpoint.is_none();
        due.then(|| self.retained.last + self.pace.checkpoint)
    }

    /// Whether the barrier that is sent now seals state.
    pub(super) fn takes_checkpoint(&mut self, now: Instant) -> bool {
        if self.checkpoint.is_some() {
            return false;
        }
        let asked = self.retained.wanted || !self.flushes.is_empty() || self.shutdown.is_some();
        let due = now >= self.retained.last + self.pace.checkpoint;
        if !asked && !due {
            return false;
        }
        self.retained.wanted = false;
        self.retained.last = now;
        let workers = self.workers.count();
        self.checkpoint = Some(CheckpointInProgress {
            epoch: self.next_epoch_being_sent(),
            sent: now,
            parts: vec![None; workers],
            sinks: None,
            errors: None,
            passed: None,
            manifest: None,
        });
        true
    }

    fn next_epoch_being_sent(&self) -> Epoch {
        Epoch(self.next_epoch.0 - 1)
    }

    /// Its epoch is decided and complete.
    pub(super) fn checkpoint_barrier_passed(&mut self, flight: EpochInFlight) {
        let Some(snapshot) = flight.snapshot else {
            return;
        };
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == flight.epoch) {
            // A sink that is being created may still be on its way to this epoch: it has no part in
            // the checkpoint. One whose job is halted has: what it delivers still, and where it is.
            let takes_part =
                |id: &RelationId| self.running.contains(id) || self.halted.contains_key(id);
            let sinks = snapshot
                .catalog
                .relations
                .values()
                .filter(|r| r.kind == RelationKind::Sink && takes_part(&r.id))
                .map(|r| r.id)
                .collect();
            let relations = snapshot.catalog.relations.keys().copied().collect();
            checkpoint.passed = Some((flight.clock, snapshot));
            checkpoint.sent = flight.sent;
            self.retained.changed = false;
            self.workers.seal_sinks(flight.epoch, sinks);
            self.workers.seal_errors(flight.epoch, relations);
        }
    }

    pub(super) fn on_part(&mut self, worker: WorkerId, epoch: Epoch, files: Vec<FileMeta>) {
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == epoch) {
            checkpoint.parts[worker] = Some(files);
        }
    }

    pub(super) fn on_sink_part(&mut self, epoch: Epoch, sinks: BTreeMap<RelationId, SinkProgress>) {
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == epoch) {
            checkpoint.sinks = Some(sinks);
        }
    }

    pub(super) fn on_errors_part(&mut self, epoch: Epoch, errors: Option<ErrorsFile>) {
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == epoch) {
            checkpoint.errors = Some(errors);
        }
    }

    /// The manifest could not be stored. Nothing is lost: the next one names its files, but for
    /// those of jobs that have been halted meanwhile, which stay as the one before has them.
    fn checkpoint_failed(&mut self, epoch: Epoch, error: &Error) {
        tracing::warn!(error = %error, "checkpoint failed; the next one will contain its changes");
        if let Some(mut made) = self.checkpoint.take().and_then(|c| c.manifest) {
            made.files
                .retain(|file| !self.is_out(file.table.relation, epoch));
            made.rebuilt.retain(|id| !self.is_out(*id, epoch));
            self.retain(made.files, &made.rebuilt);
        }
        self.retained.changed = true;
        self.retained.last = machine::now();
        let failed = Error::unavailable(SqlState::IO_ERROR, format!("checkpoint failed: {error}"));
        for flush in std::mem::take(&mut self.flushes) {
            self.answer(Some(flush.request), Err(failed.clone()));
        }
        // What was promoted at this checkpoint waits for the next one, and so does an orderly end.
        self.retained.wanted = !self.creating.is_empty();
        self.active |= self.shutdown_epoch.take().is_some();
    }

    /// Writes the manifest when all parts are there.
    pub(super) fn advance_checkpoint(&mut self) -> Result<()> {
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(());
        };
        if checkpoint.manifest.is_some()
            || !self.answers.is_empty()
            || checkpoint.passed.is_none()
            || checkpoint.sinks.is_none()
            || checkpoint.errors.is_none()
            || checkpoint.parts.iter().any(Option::is_none)
        {
            return Ok(());
        }
        let (Some((clock, snapshot)), Some(mut sinks), Some(errors)) = (
            checkpoint.passed.take(),
            checkpoint.sinks.take(),
            checkpoint.errors.take(),
        ) else {
            return Ok(());
        };
        let (epoch, parts) = (checkpoint.epoch, std::mem::take(&mut checkpoint.parts));
        let mut catalog = snapshot.catalog;
        let now = &self.decisions.catalog;
        // A job that is gone by now is left out: its files may be gone too. Of one that stopped,
        // some workers may not have sealed their share.
        catalog
            .relations
            .retain(|id, _| now.relations.contains_key(id));
        catalog
            .replacing
            .retain(|new, _| now.relations.contains_key(new));
        catalog
            .beside
            .retain(|new, _| now.relations.contains_key(new));
        let mut files: Vec<FileMeta> = parts.into_iter().flatten().flatten().collect();
        files.retain(|file| {
            let relation = file.table.relation;
            catalog.relations.contains_key(&relation) && !self.is_out(relation, epoch)
        });
        let rebuilt = self.rebuilt_at(epoch);
        let mut tables: BTreeMap<String, Vec<FileMeta>> = BTreeMap::new();
        let older = self.retained.tables.values().flatten();
        let older = older.filter(|file| !rebuilt.contains(&file.table.relation));
        for file in older.chain(&files) {
            let table = tables.entry(file.table.to_string()).or_default();
            table.push(file.clone());
        }
        let before = self.retained.manifest.as_deref();
        let epoch_of = |id: &RelationId| {
            if self.is_out(*id, epoch) {
                let known = before.and_then(|m| m.job_epochs.get(id).copied());
                known.unwrap_or_default()
            } else {
                epoch
            }
        };
        let job_epochs = catalog
            .relations
            .keys()
            .map(|id| (*id, epoch_of(id)))
            .collect();
        for (id, halt) in self
            .halted
            .iter()
            .filter(|(id, _)| self.is_out(**id, epoch))
        {
            if !halt.stopped.held {
                catalog.stopped.insert(*id, halt.stopped.clone());
            }
            if let Some(sink) = before.and_then(|m| m.sinks.get(id)) {
                sinks.entry(*id).or_insert_with(|| sink.clone());
            }
        }
        self.note_former_inputs();
        let (halted, kept) = self.halted_at(epoch)?;
        let manifest = Arc::new(Manifest {
            version: MANIFEST_VERSION,
            epoch,
            generation: self.decisions.generation,
            log_index: snapshot.log_index,
            clock,
            job_epochs,
            halted,
            catalog,
            tables,
            sources: snapshot.positions,
            starts: snapshot.starts,
            floors: Arc::unwrap_or_clone(snapshot.floors),
            sinks,
            markers: snapshot.markers,
            errors,
        });
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.manifest = Some(Made {
                manifest: manifest.clone(),
                files,
                rebuilt,
            });
        }
        self.workers.store_manifest(manifest, kept);
        Ok(())
    }

    /// The jobs of whose state a checkpoint of `epoch` is the first to have the new one: the files
    /// of the old one count no more.
    fn rebuilt_at(&self, epoch: Epoch) -> Vec<RelationId> {
        let rebuilt = self.creating.iter().filter(|(_, creating)| {
            matches!(creating.phase, Phase::Promoted { epoch: from } if from <= epoch)
                && creating.resumes.as_ref().is_some_and(|r| r.rebuilt)
        });
        rebuilt.map(|(id, _)| *id).collect()
    }

    /// The next manifest names these files, too, and no older ones of these jobs.
    fn retain(&mut self, files: Vec<FileMeta>, rebuilt: &[RelationId]) {
        for id in rebuilt {
            self.retained.forget(*id);
            if let Some(resumes) = self.creating.get_mut(id).and_then(|c| c.resumes.as_mut()) {
                resumes.rebuilt = false;
            }
        }
        let relations = &self.decisions.catalog.relations;
        for file in files {
            if relations.contains_key(&file.table.relation) {
                let files = self.retained.tables.entry(file.table).or_default();
                files.push(file);
            }
        }
    }

    pub(super) fn on_manifest_stored(
        &mut self,
        epoch: Epoch,
        manifest: Result<String>,
    ) -> Result<()> {
        if self.checkpoint.as_ref().is_none_or(|c| c.epoch != epoch) {
            return Ok(());
        }
        let path = match manifest {
            Ok(path) => path,
            Err(error) => {
                self.checkpoint_failed(epoch, &error);
                return Ok(());
            }
        };
        failpoint::hit("checkpoint.commit");
        let replaced = self.decisions.replaced_at(epoch);
        let made = self.checkpoint.as_ref().and_then(|c| c.manifest.as_ref());
        self.record(&[Entry::Checkpoint {
            epoch,
            manifest: path,
            contains: made.map_or(0, |made| made.manifest.log_index),
        }])?;
        let Some(checkpoint) = self.checkpoint.take() else {
            return Ok(());
        };
        let Some(made) = checkpoint.manifest else {
            return Ok(());
        };
        let manifest = made.manifest;
        self.retain(made.files, &made.rebuilt);
        if let Err(error) = self.log.truncate(manifest.log_index) {
            tracing::warn!(%error, "the log could not be shortened");
        }
        self.workers.checkpoint_committed(
            &manifest,
            machine::now().saturating_duration_since(checkpoint.sent),
        );
        self.retained.manifest = Some(manifest.clone());
        self.halted_saved(&manifest);
        self.finish_created(epoch);
        if !replaced.is_empty() {
            let old: Vec<RelationId> = replaced.into_iter().map(|(_, old)| old).collect();
            self.drop_relations(&old)?;
        }
        self.advance_successions()?;
        let (reached, waiting) = std::mem::take(&mut self.flushes)
            .into_iter()
            .partition(|f| f.epoch.is_some_and(|e| e <= epoch));
        self.flushes = waiting;
        let reached: Vec<super::Flush> = reached;
        for flush in reached {
            self.done(Some(flush.request));
        }
        if !self.flushes.is_empty()
            || !self.creating.is_empty()
            || !self.successions.is_empty()
            || !self.going_on.is_empty()
            || self.shutdown.is_some()
        {
            self.retained.wanted = true;
            self.active = true;
            self.urgent = true;
        }
        Ok(())
    }

    pub(super) fn on_compacted(&mut self, replaced: &[FileMeta], by: Result<Vec<FileMeta>>) {
        let by = match by {
            Ok(by) => by,
            Err(error) => return tracing::warn!(%error, "a compaction failed"),
        };
        if let Some(first) = replaced.first()
            && let Some(files) = self.retained.tables.get_mut(&first.table)
            && replaced
                .iter()
                .all(|r| files.iter().any(|f| f.path == r.path))
        {
            files.retain(|f| !replaced.iter().any(|r| r.path == f.path));
            files.extend(by);
            self.retained.changed = true;
        }
    }
}

impl Default for Retained {
    fn default() -> Retained {
        Retained {
            manifest: None,
            tables: BTreeMap::new(),
            changed: false,
            wanted: false,
            last: machine::now() - Duration::from_secs(3600),
        }
    }
}
