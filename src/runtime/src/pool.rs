//! The workers as the coordinator sees them, and the side effects that it asks for: manifests, sink
//! logs, compaction, garbage collection.

use crate::answers::store_answer;
use crate::engine::CheckpointInfo;
use crate::errors::SealedErrors;
use crate::exchange::Inbound;
use crate::shared::Shared;
use crate::sinks::SinkQueue;
use crate::store::{give_way, overtaken};
use bytes::Bytes;
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Epoch, Error, RelationId, Result, WorkerId, clock};
use tidemark_control::Pin;
use tidemark_control::protocol::{Command, Event, Positions, Workers};
use tidemark_plan::{Catalog, Relation};
use tidemark_state::checkpoint::{FileMeta, plan_compaction};
use tidemark_state::errors::{ErrorsFile, KeptError, encode_errors};
use tidemark_state::halted::KeptFile;
use tidemark_state::manifest::{Manifest, SinkProgress};

/// Committed checkpoints that `SHOW CHECKPOINTS` remembers.
const CHECKPOINTS_SHOWN_MAX: usize = 100;

/// Channels to all workers.
pub struct Pool {
    /// What every side effect needs.
    pub shared: Arc<Shared>,
    /// One per worker: commands.
    pub commands: Vec<Sender<Command>>,
    /// One per worker: wakes it.
    pub inboxes: Vec<Sender<Inbound>>,
    /// Lets one compaction run at a time.
    pub compacting: Arc<tokio::sync::Mutex<()>>,
}

impl Workers for Pool {
    fn count(&self) -> usize {
        self.commands.len()
    }

    fn send(&self, worker: WorkerId, command: Command) {
        // A worker that is gone means shutdown.
        let _ = self.commands[worker].send(command);
        let _ = self.inboxes[worker].send(Inbound::Wake);
    }

    fn seal_sinks(&self, epoch: Epoch, sinks: Vec<RelationId>) {
        let shared = self.shared.clone();
        let queues: Vec<_> = shared
            .sinks
            .lock()
            .iter()
            .filter(|(id, _)| sinks.contains(id))
            .map(|(id, q)| (*id, q.clone()))
            .collect();
        self.shared.tokio.spawn(async move {
            let mut sinks = BTreeMap::new();
            for (id, queue) in queues {
                match queue.seal(epoch).await {
                    Ok(progress) => drop(sinks.insert(id, progress)),
                    Err(error) => drop(shared.events.send(Event::Failed {
                        relation: id,
                        error,
                    })),
                }
            }
            let _ = shared.events.send(Event::SinkPart { epoch, sinks });
        });
    }

    fn seal_errors(&self, epoch: Epoch, relations: Vec<RelationId>) {
        let shared = self.shared.clone();
        let sealed = shared.errors.lock().seal(epoch, &relations);
        self.shared.tokio.spawn(async move {
            let errors = store_errors(&shared, epoch, sealed).await;
            let _ = shared.events.send(Event::ErrorsPart { epoch, errors });
        });
    }

    fn release_sinks(&self, relations: &[RelationId]) {
        let sinks = self.shared.sinks.lock();
        relations
            .iter()
            .filter_map(|id| sinks.get(id))
            .for_each(|queue| queue.release());
    }

    fn close_sinks(&self, relations: &[RelationId]) {
        let sinks = self.shared.sinks.lock();
        relations
            .iter()
            .filter_map(|id| sinks.get(id))
            .for_each(|queue| queue.close());
    }

    fn end_sinks(&self, sinks: &[(RelationId, Epoch)]) {
        let queues = self.shared.sinks.lock();
        for (id, epoch) in sinks {
            if let Some(queue) = queues.get(id) {
                queue.end_at(*epoch);
            }
        }
    }

    fn keep_sinks(&self, epoch: Epoch, sinks: Vec<(Arc<Relation>, SinkProgress)>) {
        for (relation, progress) in sinks {
            if let Err(error) = SinkQueue::keep(&self.shared, &relation, &progress, epoch) {
                tracing::error!(sink = %relation.name, %error, "what a stopped sink has not \
                    delivered cannot be read");
            }
        }
    }

    fn store_answer(&self, relation: Arc<Relation>, pin: Pin, named: Epoch) {
        let shared = self.shared.clone();
        self.shared.tokio.spawn_blocking(move || {
            let files = store_answer(&shared, &relation, &pin, named);
            let _ = shared.events.send(Event::AnswerStored {
                relation: relation.id,
                epoch: pin.epoch(),
                files,
            });
        });
    }

    fn store_manifest(&self, manifest: Arc<Manifest>, kept: Vec<(KeptFile, Bytes)>) {
        let shared = self.shared.clone();
        self.shared.tokio.spawn(async move {
            let stored = store_manifest(&shared, &manifest, kept).await;
            let _ = shared.events.send(Event::ManifestStored {
                epoch: manifest.epoch,
                manifest: stored,
            });
        });
    }

    fn catalog_changed(&self, catalog: Arc<Catalog>, starts: Positions) {
        *self.shared.starts.write() = starts;
        let before = self.shared.set_catalog(catalog.clone());
        // A job that had stopped kept its figures and errors until it was dropped.
        for gone in before
            .relations
            .keys()
            .filter(|id| !catalog.relations.contains_key(id))
        {
            self.shared.jobs.lock().remove(gone);
            self.shared.errors.lock().forget(*gone);
        }
    }

    fn checkpoint_committed(&self, manifest: &Arc<Manifest>, duration: Duration) {
        let named = manifest
            .files()
            .map(|f| (f.epoch, f.bytes))
            .chain(manifest.errors.iter().map(|e| (e.epoch, e.bytes)));
        let written = named.filter(|(epoch, _)| *epoch == manifest.epoch);
        let info = CheckpointInfo {
            epoch: manifest.epoch,
            committed_at: clock::now_micros(),
            duration_ms: duration.as_millis() as u64,
            bytes: written.map(|(_, bytes)| bytes).sum(),
            files: manifest.paths().count() as u64,
        };
        {
            let mut shown = self.shared.checkpoints.lock();
            if shown.len() == CHECKPOINTS_SHOWN_MAX {
                shown.pop_front();
            }
            shown.push_back(info);
        }
        {
            let queues = self.shared.sinks.lock();
            let contained = manifest.sinks.keys().filter_map(|id| queues.get(id));
            contained.for_each(|queue| queue.committed(manifest.epoch));
        }
        let (shared, manifest, compacting) = (
            self.shared.clone(),
            manifest.clone(),
            self.compacting.clone(),
        );
        self.shared.tokio.spawn(async move {
            // One at a time: a commit that comes while an earlier one is being cleaned up leaves
            // the work to the next.
            let Ok(_guard) = compacting.try_lock() else {
                return;
            };
            compact(&shared, &manifest).await;
            collect(&shared, &manifest).await;
        });
    }

    fn job_progress(&self, relation: RelationId, state: &'static str, progress: f64, epoch: Epoch) {
        if state == "running" {
            self.shared.recovery.acquit(relation);
        }
        *self.shared.figures(relation).state.lock() = (state, progress, epoch);
    }
}

/// Stores the errors if they are others than the last checkpoint has; tries until the store takes
/// them. Returns the object that holds them.
async fn store_errors(
    shared: &Arc<Shared>,
    epoch: Epoch,
    sealed: SealedErrors,
) -> Option<ErrorsFile> {
    let errors = match sealed {
        SealedErrors::Unchanged(file) => return file,
        SealedErrors::Changed(errors) => errors,
    };
    let stored = if errors.is_empty() {
        Ok(None)
    } else {
        put_errors(shared, epoch, errors).await.map(Some)
    };
    match stored {
        Ok(file) => {
            shared.errors.lock().set_stored(file.clone());
            file
        }
        Err(error) => {
            tracing::error!(%epoch, %error, "the errors cannot be stored: the checkpoint keeps \
                those of an earlier one");
            shared.errors.lock().not_stored()
        }
    }
}

async fn put_errors(
    shared: &Arc<Shared>,
    epoch: Epoch,
    errors: Vec<KeptError>,
) -> Result<ErrorsFile> {
    let rows = errors.len() as u64;
    let encoded = tokio::task::spawn_blocking(move || encode_errors(&errors))
        .await
        .map_err(|e| Error::internal(format!("encoding the kept errors: {e}")))??;
    let store = shared.store.patient();
    store
        .write_errors(epoch, shared.generation, rows, encoded)
        .await
}

/// Writes the manifest; waits for a store that is away. It counts only if nobody claimed the store
/// before it was there: who was overtaken commits nothing.
async fn store_manifest(
    shared: &Arc<Shared>,
    manifest: &Manifest,
    kept: Vec<(KeptFile, Bytes)>,
) -> Result<String> {
    let store = shared.store.patient();
    for (file, bytes) in kept {
        store.write_kept(&file, bytes).await?;
    }
    let path = store.write_manifest(manifest).await?;
    match overtaken(shared, &store).await? {
        Some(error) => give_way(&error),
        None => Ok(path),
    }
}

async fn compact(shared: &Arc<Shared>, manifest: &Manifest) {
    for files in manifest.tables.values() {
        // The files of a halted job may be what it waits for.
        if files
            .first()
            .is_some_and(|f| manifest.halted.contains_key(&f.table.relation))
        {
            continue;
        }
        let Some(compaction) = plan_compaction(files) else {
            continue;
        };
        let Some(spec) = files
            .first()
            .and_then(|f| shared.specs.lock().get(&f.table).cloned())
        else {
            continue;
        };
        let replaced: Vec<FileMeta> = compaction.files.clone();
        let by = shared
            .store
            .compact(&compaction, &spec, shared.generation, manifest.epoch)
            .await;
        if let Ok(file) = &by {
            shared.unnamed.lock().push(file.clone());
        }
        let _ = shared.events.send(Event::Compacted { replaced, by });
    }
}

async fn collect(shared: &Arc<Shared>, manifest: &Manifest) {
    // What is of this epoch or newer may be in the making; merged files that no manifest names yet
    // are kept by a list of their own.
    let mut unnamed = Manifest::default();
    {
        let mut waiting = shared.unnamed.lock();
        waiting.retain(|file| !manifest.files().any(|f| f.path == file.path));
        unnamed.tables.insert(String::new(), waiting.clone());
    }
    if let Err(error) = shared
        .store
        .collect(
            &[manifest.clone(), unnamed],
            manifest.epoch,
            &shared.lineage,
        )
        .await
    {
        tracing::warn!(%error, "files that no checkpoint needs could not be deleted");
    }
}
