//! What a node does for checkpoints beside its workers: it stores errors and manifests, remembers
//! what was committed, merges files and deletes those that no checkpoint needs.

use crate::store::Claim;
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Epoch, Result, machine};
use tidemark_control::Events;
use tidemark_control::protocol::Event;
use tidemark_state::checkpoint::{FileMeta, StoreTrouble, plan_compaction};
use tidemark_state::errors::{ErrorsFile, KeptError, encode_errors};
use tidemark_state::halted::KeptFile;
use tidemark_state::manifest::Manifest;
use tidemark_worker::{KeptErrors, SealedErrors, Storing};

/// Tables whose files are merged at a time.
const MERGED_AT_ONCE: usize = 3;

/// Committed checkpoints that `SHOW CHECKPOINTS` remembers.
const SHOWN_MAX: usize = 100;

/// A committed checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointInfo {
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was committed, microseconds since 1970.
    pub committed_at: i64,
    /// Duration from barrier to commit in milliseconds.
    pub duration_ms: u64,
    /// Bytes written by it.
    pub bytes: u64,
    /// Files named by its manifest.
    pub files: u64,
}

/// See the module.
pub struct Checkpoints {
    storing: Storing,
    claim: Arc<Claim>,
    events: Events,
    errors: KeptErrors,
    /// The last ones, oldest first.
    shown: Mutex<VecDeque<CheckpointInfo>>,
    /// Merged files that no committed manifest names yet.
    unnamed: Mutex<Vec<FileMeta>>,
    /// Lets one compaction run at a time.
    compacting: tokio::sync::Mutex<()>,
}

impl Checkpoints {
    /// None committed yet.
    pub fn new(
        storing: Storing,
        claim: Arc<Claim>,
        events: Events,
        errors: KeptErrors,
    ) -> Checkpoints {
        Checkpoints {
            storing,
            claim,
            events,
            errors,
            shown: Mutex::default(),
            unnamed: Mutex::default(),
            compacting: tokio::sync::Mutex::default(),
        }
    }

    /// Those that this process committed, oldest first.
    pub fn shown(&self) -> Vec<CheckpointInfo> {
        self.shown.lock().iter().cloned().collect()
    }

    /// What is wrong with the store at the moment.
    pub fn trouble(&self) -> Option<StoreTrouble> {
        self.storing.store.health().trouble()
    }

    /// Bytes that are to be stored and wait in memory.
    pub fn waiting_bytes(&self) -> u64 {
        self.storing.waiting.bytes()
    }

    /// Stores the errors if they are others than the last checkpoint has; tries until the store
    /// takes them. Returns the object that holds them.
    pub async fn store_errors(&self, epoch: Epoch, sealed: SealedErrors) -> Option<ErrorsFile> {
        let errors = match sealed {
            SealedErrors::Unchanged(file) => return file,
            SealedErrors::Changed(errors) => errors,
        };
        let stored = if errors.is_empty() {
            Ok(None)
        } else {
            self.put_errors(epoch, errors).await.map(Some)
        };
        match stored {
            Ok(file) => {
                self.errors.lock().set_stored(file.clone());
                file
            }
            Err(error) => {
                tracing::error!(%epoch, %error, "the errors cannot be stored: the checkpoint \
                    keeps those of an earlier one");
                self.errors.lock().not_stored()
            }
        }
    }

    async fn put_errors(&self, epoch: Epoch, errors: Vec<KeptError>) -> Result<ErrorsFile> {
        let rows = errors.len() as u64;
        let encoded = machine::blocking(move || encode_errors(&errors)).await??;
        let Storing {
            store, generation, ..
        } = &self.storing;
        let store = store.patient();
        store.write_errors(epoch, *generation, rows, encoded).await
    }

    /// Writes the manifest; waits for a store that is away. It counts only if nobody claimed the
    /// store before it was there: who was overtaken commits nothing.
    pub async fn store_manifest(
        &self,
        manifest: &Manifest,
        kept: Vec<(KeptFile, Bytes)>,
    ) -> Result<String> {
        let store = self.storing.store.patient();
        for (file, bytes) in kept {
            store.write_kept(&file, bytes).await?;
        }
        let path = store.write_manifest(manifest).await?;
        match self.claim.overtaken(&store).await? {
            Some(error) => self.claim.give_way(&error),
            None => Ok(path),
        }
    }

    /// Remembers a checkpoint that was committed.
    pub fn remember(&self, manifest: &Manifest, duration: Duration) {
        let named = manifest
            .files()
            .map(|f| (f.epoch, f.bytes))
            .chain(manifest.errors.iter().map(|e| (e.epoch, e.bytes)));
        let written = named.filter(|(epoch, _)| *epoch == manifest.epoch);
        let info = CheckpointInfo {
            epoch: manifest.epoch,
            committed_at: machine::micros(),
            duration_ms: duration.as_millis() as u64,
            bytes: written.map(|(_, bytes)| bytes).sum(),
            files: manifest.paths().count() as u64,
        };
        let mut shown = self.shown.lock();
        if shown.len() == SHOWN_MAX {
            shown.pop_front();
        }
        shown.push_back(info);
    }

    /// Merges files of a committed manifest, and deletes those that nobody needs any more. One at a
    /// time: a commit that comes while an earlier one is being cleaned up leaves the work to the
    /// next.
    pub async fn clean_up(&self, manifest: &Manifest) {
        if let Ok(_guard) = self.compacting.try_lock() {
            self.compact(manifest).await;
            self.collect(manifest).await;
        }
    }

    async fn compact(&self, manifest: &Manifest) {
        // The files of a halted job may be what it waits for.
        let tables = manifest.tables.values().filter(|files| {
            let first = files.first();
            first.is_some_and(|f| !manifest.halted.contains_key(&f.table.relation))
        });
        let planned = tables.filter_map(|files| {
            let (compaction, spec) = (plan_compaction(files), self.storing.spec(files[0].table));
            Some((compaction?, spec?))
        });
        let planned: Vec<_> = planned.collect();
        let merged = stream::iter(planned).map(async |(compaction, spec)| {
            let Storing {
                store, generation, ..
            } = &self.storing;
            let by = store
                .compact(&compaction, &spec, *generation, manifest.epoch)
                .await;
            if let Ok(files) = &by {
                self.unnamed.lock().extend(files.iter().cloned());
            }
            let replaced = compaction.files;
            self.events.tell(Event::Compacted { replaced, by });
        });
        let mut merged = merged.buffer_unordered(MERGED_AT_ONCE);
        while merged.next().await.is_some() {}
    }

    async fn collect(&self, manifest: &Manifest) {
        // What is of this epoch or newer may be in the making; merged files that no manifest names
        // yet are kept by a list of their own.
        let mut unnamed = Manifest::default();
        {
            let mut waiting = self.unnamed.lock();
            waiting.retain(|file| !manifest.files().any(|f| f.path == file.path));
            unnamed.tables.insert(String::new(), waiting.clone());
        }
        let (kept, lineage) = ([manifest.clone(), unnamed], &self.claim.lineage);
        let store = &self.storing.store;
        if let Err(error) = store.collect(&kept, manifest.epoch, lineage).await {
            tracing::warn!(%error, "files that no checkpoint needs could not be deleted");
        }
    }
}
