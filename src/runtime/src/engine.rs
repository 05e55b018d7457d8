//! The engine: everything below the SQL door. Sessions hold a cheap clone of [`Engine`]; it opens the log, restores the last checkpoint, replays the
//! decided epochs, runs the workers and the coordinator, and answers what people ask: the catalog, pinned epochs and rows to read, writes, jobs.

use std::sync::Arc;
use tidemark_changelog::connector::RecordError;
use tidemark_common::config::Config;
use tidemark_common::{Epoch, RelationId, Result};
use tidemark_plan::{Catalog, Relation};
use tidemark_state::ViewPartition;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

/// Handle of the running node. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {}

/// A pinned epoch: rows as of it stay readable until the pin is dropped.
pub struct Pin {}

impl Pin {
    /// The epoch: the newest that was decided and complete when the pin was taken.
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }
    /// Up to which epoch a reader may merge pending changes itself (the argument that `ViewPartition::read_at` asks for).
    pub fn mergeable(&self) -> Epoch {
        unimplemented!()
    }
}

/// Progress of a job that is being created, and the state of one that runs.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// The job's relation.
    pub relation: RelationId,
    /// Its schema and name.
    pub name: String,
    /// `source`, `materialized view`, ...
    pub kind: &'static str,
    /// `creating`, `running`, `stopped`.
    pub state: &'static str,
    /// Per cent of the backfill, 100 when running.
    pub progress: f64,
    /// Rows that entered the job since this process started.
    pub rows: u64,
    /// Rows per second over the last seconds.
    pub rows_per_second: f64,
    /// Last complete epoch.
    pub epoch: Epoch,
    /// Bytes of state in memory.
    pub memory_bytes: u64,
    /// Late rows that were left out.
    pub late_rows: u64,
    /// Of a sink: epochs not delivered yet, and what its writer says when it cannot deliver.
    pub undelivered_epochs: u64,
    /// The last error.
    pub error: Option<String>,
}

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

/// A row of `tidemark.errors`.
#[derive(Clone, Debug)]
pub struct ErrorRow {
    /// The relation's name.
    pub relation: String,
    /// The epoch in which it happened.
    pub epoch: Epoch,
    /// Topic of the record; empty for a failing expression.
    pub topic: String,
    /// The record, or for a failing expression: offset -1, the row as text in `raw`.
    pub record: RecordError,
    /// SQLSTATE.
    pub state: String,
}

/// Changes of the catalog that touch no job.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum CatalogChange {
    /// `ALTER ... RENAME TO`.
    Rename { relation: RelationId, name: String },
    /// `ALTER ... SET SCHEMA`.
    SetSchema { relation: RelationId, schema_name: String },
    /// `COMMENT ON`.
    Comment { relation: RelationId, comment: Option<String> },
    /// `CREATE SCHEMA`.
    CreateSchema { name: String },
    /// `DROP SCHEMA` of an empty schema.
    DropSchema { name: String },
}

impl Engine {
    /// Opens the data folder (takes its lock), restores and replays. Returns when reads may open.
    pub async fn open(config: &Config) -> Result<Engine> {
        let _ = config;
        unimplemented!()
    }

    /// The catalog now: running and stopped jobs and plain views; jobs that are being created are not in it.
    pub fn catalog(&self) -> Arc<Catalog> {
        unimplemented!()
    }

    /// A new relation id, to plan with.
    pub fn allocate_id(&self) -> RelationId {
        unimplemented!()
    }

    /// Creates a relation; returns when it is visible and caught up (see DIALECT). Dropping the future undoes it. `progress` is called every few seconds with a sentence for a NOTICE.
    pub async fn create(&self, relation: Relation, progress: impl Fn(String) + Send + Sync + 'static) -> Result<()> {
        let _ = (relation, progress);
        unimplemented!()
    }

    /// Drops these relations (the caller has resolved CASCADE; dependents first is not needed). Never waits behind data.
    pub async fn drop(&self, relations: &[RelationId]) -> Result<()> {
        let _ = relations;
        unimplemented!()
    }

    /// Stops and undoes jobs that are being created.
    pub async fn cancel(&self, relations: &[RelationId]) -> Result<()> {
        let _ = relations;
        unimplemented!()
    }

    /// Applies a change of the catalog.
    pub async fn change_catalog(&self, change: CatalogChange) -> Result<()> {
        let _ = change;
        unimplemented!()
    }

    /// Pins the newest readable epoch.
    pub fn pin(&self) -> Pin {
        unimplemented!()
    }

    /// Waits until `epoch` is decided and complete, so that the next pin includes it.
    pub async fn wait_visible(&self, epoch: Epoch) -> Result<()> {
        let _ = epoch;
        unimplemented!()
    }

    /// The partitions of a materialized relation (tables, views, upsert sources), one per worker. `55000` with the reason when its job stopped before the pinned epoch cannot be served.
    pub fn partitions(&self, relation: RelationId) -> Result<Vec<Arc<ViewPartition>>> {
        let _ = relation;
        unimplemented!()
    }

    /// Ad-hoc reading of an append-only source: the rows that its input held at `pin` (from its start position to the cut), in batches handed to `each`. Blocking; call from a blocking thread.
    pub fn scan_source(&self, relation: RelationId, columns: &[usize], pin: &Pin, each: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let _ = (relation, columns, pin, each);
        unimplemented!()
    }

    /// Locks these tables for writing, in id order. Writes see all earlier writes; nothing is visible to others before `commit`. Dropping the guard rolls back.
    pub async fn begin_write(&self, tables: &[RelationId]) -> Result<WriteGuard> {
        let _ = tables;
        unimplemented!()
    }

    /// Waits until everything received so far is visible and durable (in a committed checkpoint).
    pub async fn flush(&self) -> Result<()> {
        unimplemented!()
    }

    /// All jobs, also those that are being created.
    pub fn jobs(&self) -> Vec<JobStatus> {
        unimplemented!()
    }

    /// The retained checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        unimplemented!()
    }

    /// Records and rows that failed, newest last; the newest 10,000 of each relation are kept.
    pub fn errors(&self) -> Vec<ErrorRow> {
        unimplemented!()
    }

    /// Takes a last checkpoint and stops.
    pub async fn shutdown(&self) -> Result<()> {
        unimplemented!()
    }
}

/// Exclusive write access to some tables.
pub struct WriteGuard {}

impl WriteGuard {
    /// The table's rows now, with this guard's own writes, in all its columns (what UPDATE and DELETE evaluate over).
    pub fn rows(&self, table: RelationId) -> Result<Vec<RecordBatch>> {
        let _ = table;
        unimplemented!()
    }

    /// The rows with these keys (arrays of the table's key columns), without scanning.
    pub fn lookup(&self, table: RelationId, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let _ = (table, keys);
        unimplemented!()
    }

    /// Deletes exactly these rows (all columns, as `rows` returned them), then writes `inserts`. Returns how many rows were (deleted, inserted). A key that exists: by the table's conflict rule, or
    /// `23505` with `unique = true`. NOT NULL is checked here (`23502`).
    pub fn write(&mut self, table: RelationId, deletes: &[RecordBatch], inserts: &[RecordBatch], unique: bool) -> Result<(usize, usize)> {
        let _ = (table, deletes, inserts, unique);
        unimplemented!()
    }

    /// Logs the writes as one; returns their epoch when it is decided.
    pub async fn commit(self) -> Result<Epoch> {
        unimplemented!()
    }

    /// Submits the writes and returns at once (`dml_commit = 'async'`).
    pub fn commit_async(self) -> Result<()> {
        unimplemented!()
    }
}

/// The schema of a table, for building its batches.
pub fn table_schema(relation: &Relation) -> SchemaRef {
    relation.arrow_schema()
}
