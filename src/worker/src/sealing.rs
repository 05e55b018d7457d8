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
use crate::storing::Storing;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_common::mailbox::Sender;
use tidemark_common::memory::Held;
use tidemark_common::{Epoch, Error, RelationId, Result, TableId, WorkerId, machine};
use tidemark_control::Events;
use tidemark_control::protocol::Event;
use tidemark_state::checkpoint::{FileMeta, encode_appended, encode_delta};
use tidemark_state::{Appended, StateTable, TableDelta, TableSpec};
use tokio::sync::oneshot;

/// What changed in one state table.
pub struct Sealed {
    spec: TableSpec,
    content: Content,
}

enum Content {
    /// In pieces.
    Whole(Vec<TableDelta>),
    Appended(Appended),
}

impl Sealed {
    /// Seals a table; `None` if nothing changed. Calls `rest` every few thousand rows.
    pub fn of(table: &mut dyn StateTable, rest: &mut dyn FnMut()) -> Option<Sealed> {
        let content = match table.seal_appended(rest) {
            Some(appended) => Content::Appended(appended),
            None => {
                let mut pieces = Vec::new();
                table.seal_pieces(&mut |piece| {
                    pieces.extend(piece);
                    rest();
                });
                if pieces.is_empty() {
                    return None;
                }
                Content::Whole(pieces)
            }
        };
        Some(Sealed {
            spec: table.spec(),
            content,
        })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        match &self.content {
            Content::Whole(pieces) => pieces.iter().map(TableDelta::memory_bytes).sum(),
            Content::Appended(appended) => 2 * appended.vnodes.capacity(),
        }
    }
}

/// Collects what is sealed until all jobs have passed the barrier.
pub struct Sealing {
    worker: WorkerId,
    inbox: Sender<Inbound>,
    events: Events,
    storing: Storing,
    epochs: BTreeMap<Epoch, Vec<Waiting>>,
}

/// What a table sealed, until it is stored.
struct Waiting {
    table: TableId,
    sealed: Sealed,
    _held: Held,
}

impl Sealing {
    /// Nothing sealed. `inbox` is the worker's own, for reading appended rows.
    pub fn new(
        worker: WorkerId,
        inbox: Sender<Inbound>,
        events: Events,
        storing: Storing,
    ) -> Sealing {
        Sealing {
            worker,
            inbox,
            events,
            storing,
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
            tables.extend(sealed.into_iter().map(|sealed| Waiting {
                table: TableId {
                    relation: job,
                    table: sealed.spec.table,
                },
                _held: self.storing.waiting.hold(sealed.memory_bytes() as u64),
                sealed,
            }));
        }
    }

    /// The job is gone.
    pub fn forget(&mut self, job: RelationId) {
        self.epochs
            .values_mut()
            .for_each(|tables| tables.retain(|w| w.table.relation != job));
    }

    /// All jobs have passed the barrier: store everything and tell the coordinator.
    pub fn finish(&mut self, epoch: Epoch) {
        let Some(tables) = self.epochs.remove(&epoch) else {
            return;
        };
        let part = Part {
            worker: self.worker,
            epoch,
            inbox: self.inbox.clone(),
            storing: self.storing.clone(),
        };
        let events = self.events.clone();
        machine::spawn(async move {
            let files = part.store_all(tables, &events).await;
            events.tell(Event::Part {
                worker: part.worker,
                epoch,
                files,
            });
        });
    }
}

/// A worker's share of a checkpoint that is being stored.
struct Part {
    worker: WorkerId,
    epoch: Epoch,
    inbox: Sender<Inbound>,
    storing: Storing,
}

impl Part {
    async fn store_all(&self, tables: Vec<Waiting>, events: &Events) -> Vec<FileMeta> {
        let mut files = Vec::new();
        for Waiting {
            table,
            sealed: Sealed { spec, content },
            _held,
        } in tables
        {
            self.storing.know(table, spec.clone());
            let stored = match content {
                Content::Whole(pieces) => self.store(table, spec, pieces).await,
                Content::Appended(appended) => self.store_appended(table, spec, appended).await,
            };
            match stored {
                Ok(stored) => files.extend(stored),
                // Told before the part, so that the job has stopped when the manifest is made.
                Err(error) => events.tell(Event::Failed {
                    relation: table.relation,
                    error,
                }),
            }
        }
        files
    }

    /// Encodes and stores one delta; waits until the store takes it.
    async fn store(
        &self,
        table: TableId,
        spec: TableSpec,
        pieces: Vec<TableDelta>,
    ) -> Result<Vec<FileMeta>> {
        let encode = move || match TableDelta::concat(pieces) {
            Some(delta) => encode_delta(&spec, delta),
            None => Err(Error::internal("nothing was sealed")),
        };
        let encoded = machine::blocking(encode).await??;
        let (by, epoch) = (self.worker.into(), self.epoch);
        let file = self.storing.put(table, by, 0, epoch, encoded).await?;
        Ok(vec![file])
    }

    /// Reads, encodes and stores appended rows. Their table may go meanwhile, with its job: then
    /// there is nothing to be named.
    async fn store_appended(
        &self,
        table: TableId,
        spec: TableSpec,
        appended: Appended,
    ) -> Result<Vec<FileMeta>> {
        let (worker, epoch) = (self.worker, self.epoch);
        let (inbox, storing) = (self.inbox.clone(), self.storing.clone());
        let written = machine::blocking(move || {
            let (mut files, mut gone, appended) = (Vec::new(), false, Arc::new(appended));
            let read = |rows| {
                let (reply, answer) = oneshot::channel();
                let asked = inbox.send(Inbound::Read(AppendedRead {
                    table,
                    appended: appended.clone(),
                    rows,
                    reply,
                }));
                let columns = asked.ok().and_then(|()| machine::block_on(answer).ok());
                gone |= columns.is_none();
                columns
            };
            encode_appended(&spec, &appended, read, |file| {
                let stored = storing.put(table, worker.into(), files.len(), epoch, file);
                files.push(machine::block_on(stored)?);
                Ok(())
            })?;
            Ok(if gone { Vec::new() } else { files })
        });
        written.await?
    }
}
