//! Checkpoints: parts from every worker and the sinks, a manifest, and the log entry that makes it count. One at a time; a checkpoint that fails never existed, and the next one is
//! tried after the usual interval with everything that changed since. A worker tries to store its part until it succeeds, so nothing that was sealed is lost.

use super::Coordinator;
use super::epochs::{EpochInFlight, Snapshot};
use crate::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, TableId, WorkerId, failpoint};
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::manifest::{MANIFEST_VERSION, Manifest, SinkProgress};

/// A checkpoint between its barrier and its commit.
pub(super) struct CheckpointInProgress {
    epoch: Epoch,
    sent: Instant,
    parts: Vec<Option<Vec<FileMeta>>>,
    sinks: Option<BTreeMap<RelationId, SinkProgress>>,
    passed: Option<(i64, Snapshot)>,
    manifest: Option<Arc<Manifest>>,
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
    /// Files whose upload failed to be committed belong to the next manifest.
    pub orphaned: Vec<FileMeta>,
}

impl Retained {
    pub(super) fn epoch(&self) -> Epoch {
        self.manifest.as_ref().map_or(Epoch(0), |m| m.epoch)
    }

    /// Names no file of this job any more.
    pub(super) fn forget(&mut self, relation: RelationId) {
        self.tables.retain(|table, _| table.relation != relation);
        self.orphaned.retain(|file| file.table.relation != relation);
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
        self.checkpoint = Some(CheckpointInProgress { epoch: self.next_epoch_being_sent(), sent: now, parts: vec![None; workers], sinks: None, passed: None, manifest: None });
        true
    }

    fn next_epoch_being_sent(&self) -> Epoch {
        Epoch(self.next_epoch.0 - 1)
    }

    /// Its epoch is decided and complete.
    pub(super) fn checkpoint_barrier_passed(&mut self, flight: EpochInFlight) {
        let Some(snapshot) = flight.snapshot else { return };
        if let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == flight.epoch) {
            checkpoint.passed = Some((flight.clock, snapshot));
            checkpoint.sent = flight.sent;
            self.retained.changed = false;
            self.workers.seal_sinks(flight.epoch);
        }
    }

    pub(super) fn on_part(&mut self, worker: WorkerId, epoch: Epoch, files: Result<Vec<FileMeta>>) {
        let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == epoch) else { return };
        match files {
            Ok(files) => checkpoint.parts[worker] = Some(files),
            Err(error) => self.checkpoint_failed(&error),
        }
    }

    pub(super) fn on_sink_part(&mut self, epoch: Epoch, sinks: Result<BTreeMap<RelationId, SinkProgress>>) {
        let Some(checkpoint) = self.checkpoint.as_mut().filter(|c| c.epoch == epoch) else { return };
        match sinks {
            Ok(sinks) => checkpoint.sinks = Some(sinks),
            Err(error) => self.checkpoint_failed(&error),
        }
    }

    fn checkpoint_failed(&mut self, error: &Error) {
        tracing::warn!(error = %error, "checkpoint failed; the next one will contain its changes");
        let Some(checkpoint) = self.checkpoint.take() else { return };
        self.retained.orphaned.extend(checkpoint.parts.into_iter().flatten().flatten());
        self.retained.changed = true;
        self.retained.last = Instant::now();
        let failed = Error::unavailable(SqlState::IO_ERROR, format!("checkpoint failed: {error}"));
        self.flushes.drain(..).for_each(|flush| drop(flush.reply.send(Err(failed.clone()))));
        // What was promoted at this checkpoint waits for the next one.
        self.retained.wanted = !self.creating.is_empty();
    }

    /// Writes the manifest when all parts are there.
    pub(super) fn advance_checkpoint(&mut self) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        if checkpoint.manifest.is_some() || checkpoint.passed.is_none() || checkpoint.sinks.is_none() || checkpoint.parts.iter().any(Option::is_none) {
            return;
        }
        let (Some((clock, snapshot)), Some(sinks)) = (checkpoint.passed.take(), checkpoint.sinks.take()) else { return };
        let files: Vec<FileMeta> = checkpoint.parts.iter().flatten().flatten().cloned().chain(std::mem::take(&mut self.retained.orphaned)).collect();
        for file in files {
            if snapshot.catalog.relations.contains_key(&file.table.relation) && self.decisions.catalog.relations.contains_key(&file.table.relation) {
                self.retained.tables.entry(file.table).or_default().push(file);
            }
        }
        let mut catalog = snapshot.catalog;
        // A job that is gone by now is left out: its files may be gone too.
        catalog.relations.retain(|id, _| self.decisions.catalog.relations.contains_key(id));
        let manifest = Arc::new(Manifest {
            version: MANIFEST_VERSION,
            epoch: checkpoint.epoch,
            generation: self.decisions.generation,
            log_index: snapshot.log_index,
            clock,
            job_epochs: catalog.relations.keys().map(|id| (*id, checkpoint.epoch)).collect(),
            catalog,
            tables: self.retained.tables.iter().map(|(table, files)| (table.to_string(), files.clone())).collect(),
            sources: snapshot.positions,
            starts: snapshot.starts,
            watermarks: snapshot.watermarks,
            sinks,
        });
        checkpoint.manifest = Some(manifest.clone());
        self.workers.store_manifest(manifest);
    }

    pub(super) fn on_manifest_stored(&mut self, epoch: Epoch, manifest: Result<String>) -> Result<()> {
        if self.checkpoint.as_ref().is_none_or(|c| c.epoch != epoch) {
            return Ok(());
        }
        let path = match manifest {
            Ok(path) => path,
            Err(error) => {
                // Its files are in `retained.tables` already; nothing is lost.
                if let Some(checkpoint) = &mut self.checkpoint {
                    checkpoint.parts.iter_mut().for_each(|p| *p = None);
                }
                self.checkpoint_failed(&error);
                return Ok(());
            }
        };
        failpoint::hit("checkpoint.commit");
        self.record(&[Entry::Checkpoint { epoch, manifest: path }])?;
        let Some(checkpoint) = self.checkpoint.take() else { return Ok(()) };
        let Some(manifest) = checkpoint.manifest else { return Ok(()) };
        if let Err(error) = self.log.truncate(manifest.log_index) {
            tracing::warn!(%error, "the log could not be shortened");
        }
        self.workers.checkpoint_committed(&manifest, Instant::now().saturating_duration_since(checkpoint.sent));
        self.retained.manifest = Some(manifest);
        self.finish_created(epoch);
        let (reached, waiting) = std::mem::take(&mut self.flushes).into_iter().partition(|f| f.epoch.is_some_and(|e| e <= epoch));
        self.flushes = waiting;
        let reached: Vec<super::Flush> = reached;
        reached.into_iter().for_each(|flush| drop(flush.reply.send(Ok(()))));
        if !self.flushes.is_empty() || !self.creating.is_empty() || self.shutdown.is_some() {
            self.retained.wanted = true;
            self.active = true;
            self.urgent = true;
        }
        Ok(())
    }

    pub(super) fn on_compacted(&mut self, replaced: &[FileMeta], by: Result<FileMeta>) {
        let by = match by {
            Ok(by) => by,
            Err(error) => return tracing::warn!(%error, "a compaction failed"),
        };
        if let Some(files) = self.retained.tables.get_mut(&by.table)
            && replaced.iter().all(|r| files.iter().any(|f| f.path == r.path))
        {
            files.retain(|f| !replaced.iter().any(|r| r.path == f.path));
            files.push(by);
            self.retained.changed = true;
        }
    }
}

impl Default for Retained {
    fn default() -> Retained {
        Retained { manifest: None, tables: BTreeMap::new(), changed: false, wanted: false, last: Instant::now() - Duration::from_secs(3600), orphaned: Vec::new() }
    }
}
