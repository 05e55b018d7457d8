//! A worker's share of a checkpoint: what its state tables sealed, encoded and stored in the background while rows go on.
//!
//! Storing is tried until it succeeds (a full disk or an object store that is away only delays the checkpoint): what was sealed exists nowhere else.

use crate::shared::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Epoch, Error, RelationId, Result, TableId, WorkerId};
use tidemark_control::protocol::Event;
use tidemark_state::checkpoint::{FileMeta, encode_delta};
use tidemark_state::{TableDelta, TableSpec};

/// The pause between two tries to store a file, at most.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Collects what is sealed until all jobs have passed the barrier.
pub struct Sealing {
    worker: WorkerId,
    shared: Arc<Shared>,
    epochs: BTreeMap<Epoch, Vec<(TableId, TableSpec, TableDelta)>>,
}

impl Sealing {
    /// Nothing sealed.
    pub fn new(worker: WorkerId, shared: Arc<Shared>) -> Sealing {
        Sealing { worker, shared, epochs: BTreeMap::new() }
    }

    /// The barrier of `epoch` begins; only those of checkpoints matter.
    pub fn begin(&mut self, epoch: Epoch, checkpoint: bool) {
        if checkpoint {
            self.epochs.insert(epoch, Vec::new());
        }
    }

    /// What an actor of `job` sealed.
    pub fn add(&mut self, job: RelationId, epoch: Epoch, sealed: Vec<(TableSpec, TableDelta)>) {
        if let Some(tables) = self.epochs.get_mut(&epoch) {
            tables.extend(sealed.into_iter().map(|(spec, delta)| (TableId { relation: job, table: spec.table }, spec, delta)));
        }
    }

    /// The job is gone.
    pub fn forget(&mut self, job: RelationId) {
        self.epochs.values_mut().for_each(|tables| tables.retain(|(id, _, _)| id.relation != job));
    }

    /// All jobs have passed the barrier: store everything and tell the coordinator.
    pub fn finish(&mut self, epoch: Epoch) {
        let Some(tables) = self.epochs.remove(&epoch) else { return };
        let (worker, shared) = (self.worker, self.shared.clone());
        self.shared.tokio.spawn(async move {
            let files = store_all(&shared, worker, epoch, tables).await;
            let _ = shared.events.send(Event::Part { worker, epoch, files });
        });
    }
}

async fn store_all(shared: &Arc<Shared>, worker: WorkerId, epoch: Epoch, tables: Vec<(TableId, TableSpec, TableDelta)>) -> Result<Vec<FileMeta>> {
    let mut files = Vec::new();
    for (table, spec, delta) in tables {
        shared.specs.lock().insert(table, spec.clone());
        files.push(store(shared, table, worker, epoch, spec, delta).await?);
    }
    Ok(files)
}

/// Encodes and stores one delta; tries until the store takes it.
pub async fn store(shared: &Arc<Shared>, table: TableId, worker: WorkerId, epoch: Epoch, spec: TableSpec, delta: TableDelta) -> Result<FileMeta> {
    let encoded = tokio::task::spawn_blocking(move || encode_delta(&spec, delta)).await.map_err(|e| Error::internal(format!("encoding a checkpoint file: {e}")))??;
    let mut pause = Duration::from_millis(100);
    loop {
        match shared.store.write_file(table, worker, epoch, shared.generation, encoded.clone()).await {
            Ok(file) => return Ok(file),
            Err(error) => {
                tracing::warn!(%table, %epoch, %error, "a checkpoint file could not be stored; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}
