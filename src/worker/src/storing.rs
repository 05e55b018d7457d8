//! The checkpoint store as a node uses it: its files carry the node's generation, and work on it
//! goes on beside the workers.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::memory::Account;
use tidemark_common::{Epoch, RelationId, Result, TableId};
use tidemark_state::TableSpec;
use tidemark_state::checkpoint::{CheckpointStore, EncodedFile, FileMeta, WrittenBy};

/// See the module. Cloning is cheap.
#[derive(Clone)]
pub struct Storing {
    /// Where files go.
    pub store: CheckpointStore,
    /// The node's incarnation.
    pub generation: u64,
    /// Durable shapes of the tables that were sealed or restored, for compaction.
    specs: Arc<Mutex<HashMap<TableId, TableSpec>>>,
    /// What is to be stored and waits in memory.
    pub waiting: Account,
}

impl Storing {
    /// Nothing stored yet.
    pub fn new(store: CheckpointStore, generation: u64) -> Storing {
        Storing {
            store,
            generation,
            specs: Arc::default(),
            waiting: Account::default(),
        }
    }

    /// Stores a file; waits until the store takes it.
    pub async fn put(
        &self,
        table: TableId,
        by: WrittenBy,
        part: usize,
        epoch: Epoch,
        file: EncodedFile,
    ) -> Result<FileMeta> {
        let store = self.store.patient();
        let _held = self.waiting.hold(file.bytes.len() as u64);
        store
            .write_file(table, by, part, epoch, self.generation, file)
            .await
    }

    /// The table has this shape.
    pub fn know(&self, table: TableId, spec: TableSpec) {
        self.specs.lock().insert(table, spec);
    }

    /// The shape of a table of a job that this process has started.
    pub fn spec(&self, table: TableId) -> Option<TableSpec> {
        self.specs.lock().get(&table).cloned()
    }

    /// The tables of a job are gone.
    pub fn forget(&self, job: RelationId) {
        self.specs.lock().retain(|table, _| table.relation != job);
    }
}
