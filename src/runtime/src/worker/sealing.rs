//! A worker's share of a checkpoint: what its state tables sealed, encoded and stored in the
//! background while rows go on.
//!
//! Many rows that were only appended are not copied at the barrier: the encoder asks the worker for
//! a piece of them at a time, between its batches, so that neither the barrier's time nor the
//! memory grows with what came in.
//!
//! A table that cannot be encoded stops its job, not the checkpoint. Storing waits for the store (a
//! full disk or an object store that is away only delays the checkpoint): what was sealed exists
//! nowhere else.

use crate::exchange::{AppendedRead, Inbound};
use crate::shared::Shared;
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_common::{Epoch, Error, RelationId, Result, TableId, WorkerId};
use tidemark_control::protocol::Event;
use tidemark_state::checkpoint::{EncodedFile, FileMeta, WrittenBy, encode_appended, encode_delta};
use tidemark_state::{Appended, StateTable, TableDelta, TableSpec};

/// What changed in one state table.
pub struct Sealed {
    spec: TableSpec,
    content: Content,
}

enum Content {
    Whole(TableDelta),
    Appended(Appended),
}

impl Sealed {
    /// Seals a table; `None` if nothing changed.
    pub fn of(table: &mut dyn StateTable) -> Option<Sealed> {
        let content = match table.seal_appended() {
            Some(appended) => Content::Appended(appended),
            None => Content::Whole(table.seal()?),
        };
        Some(Sealed {
            spec: table.spec(),
            content,
        })
    }
}

/// Collects what is sealed until all jobs have passed the barrier.
pub struct Sealing {
    worker: WorkerId,
    inbox: Sender<Inbound>,
    shared: Arc<Shared>,
    epochs: BTreeMap<Epoch, Vec<(TableId, Sealed)>>,
}

impl Sealing {
    /// Nothing sealed. `inbox` is the worker's own, for reading appended rows.
    pub fn new(worker: WorkerId, inbox: Sender<Inbound>, shared: Arc<Shared>) -> Sealing {
        Sealing {
            worker,
            inbox,
            shared,
            epochs: BTreeMap::new(),
        }
    }

    /// The barrier of `epoch` begins; only those of checkpoints matter.
    pub fn begin(&mut self, epoch: Epoch, checkpoint: bool) {
        if checkpoint {
            self.epochs.insert(epoch, Vec::new());
        }
    }

    /// What an actor of `job` sealed.
    pub fn add(&mut self, job: RelationId, epoch: Epoch, sealed: Vec<Sealed>) {
        if let Some(tables) = self.epochs.get_mut(&epoch) {
            tables.extend(sealed.into_iter().map(|sealed| {
                (
                    TableId {
                        relation: job,
                        table: sealed.spec.table,
                    },
                    sealed,
                )
            }));
        }
    }

    /// The job is gone.
    pub fn forget(&mut self, job: RelationId) {
        self.epochs
            .values_mut()
            .for_each(|tables| tables.retain(|(id, _)| id.relation != job));
    }

    /// All jobs have passed the barrier: store everything and tell the coordinator.
    pub fn finish(&mut self, epoch: Epoch) {
        let Some(tables) = self.epochs.remove(&epoch) else {
            return;
        };
        let (worker, inbox, shared) = (self.worker, self.inbox.clone(), self.shared.clone());
        self.shared.tokio.spawn(async move {
            let files = store_all(&shared, worker, &inbox, epoch, tables).await;
            let _ = shared.events.send(Event::Part {
                worker,
                epoch,
                files,
            });
        });
    }
}

async fn store_all(
    shared: &Arc<Shared>,
    worker: WorkerId,
    inbox: &Sender<Inbound>,
    epoch: Epoch,
    tables: Vec<(TableId, Sealed)>,
) -> Vec<FileMeta> {
    let mut files = Vec::new();
    for (table, Sealed { spec, content }) in tables {
        shared.specs.lock().insert(table, spec.clone());
        let stored = match content {
            Content::Whole(delta) => store(shared, table, worker, epoch, spec, delta)
                .await
                .map(|file| vec![file]),
            Content::Appended(appended) => {
                store_appended(shared, table, worker, inbox.clone(), epoch, spec, appended).await
            }
        };
        match stored {
            Ok(stored) => files.extend(stored),
            // Told before the part, so that the job has stopped when the manifest is made.
            Err(error) => drop(shared.events.send(Event::Failed {
                relation: table.relation,
                error,
            })),
        }
    }
    files
}

/// Encodes and stores one delta; waits until the store takes it.
async fn store(
    shared: &Arc<Shared>,
    table: TableId,
    worker: WorkerId,
    epoch: Epoch,
    spec: TableSpec,
    delta: TableDelta,
) -> Result<FileMeta> {
    let encoded = tokio::task::spawn_blocking(move || encode_delta(&spec, delta))
        .await
        .map_err(encoding)??;
    put(shared, table, worker.into(), 0, epoch, encoded).await
}

/// Reads, encodes and stores appended rows. Their table may go meanwhile, with its job: then there
/// is nothing to be named.
async fn store_appended(
    shared: &Arc<Shared>,
    table: TableId,
    worker: WorkerId,
    inbox: Sender<Inbound>,
    epoch: Epoch,
    spec: TableSpec,
    appended: Appended,
) -> Result<Vec<FileMeta>> {
    let shared = shared.clone();
    let written = tokio::task::spawn_blocking(move || {
        let (mut files, mut gone, appended) = (Vec::new(), false, Arc::new(appended));
        let read = |rows| {
            let (reply, answer) = crossbeam_channel::bounded(1);
            let asked = inbox.send(Inbound::Read(AppendedRead {
                table,
                appended: appended.clone(),
                rows,
                reply,
            }));
            let columns = asked.ok().and_then(|()| answer.recv().ok());
            gone |= columns.is_none();
            columns
        };
        encode_appended(&spec, &appended, read, |file| {
            files.push(shared.tokio.block_on(put(
                &shared,
                table,
                worker.into(),
                files.len(),
                epoch,
                file,
            ))?);
            Ok(())
        })?;
        Ok(if gone { Vec::new() } else { files })
    });
    written.await.map_err(encoding)?
}

fn encoding(error: tokio::task::JoinError) -> Error {
    Error::internal(format!("encoding a checkpoint file: {error}"))
}

/// Stores a file; waits until the store takes it.
pub async fn put(
    shared: &Arc<Shared>,
    table: TableId,
    by: WrittenBy,
    part: usize,
    epoch: Epoch,
    file: EncodedFile,
) -> Result<FileMeta> {
    let store = shared.store.patient();
    store
        .write_file(table, by, part, epoch, shared.generation, file)
        .await
}
