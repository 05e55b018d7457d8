//! The engine: everything below the SQL door. Sessions hold a cheap clone of [`Engine`]; it opens
//! the log, restores the last checkpoint, replays the decided epochs, runs the workers and the
//! coordinator (`opening`), and answers what people ask: the catalog, pinned epochs and rows to
//! read, writes, jobs, new relations (`creation`).

mod creation;
mod following;
mod idle;
mod opening;

use crate::checkpoints::{CheckpointInfo, Checkpoints};
use crate::cluster::Membership;
use crate::crew::Crew;
use crate::locks::{TableLock, Writer};
use crate::memory::{Memory, MemoryUse, allocated_bytes, program_bytes, resident_bytes};
use crate::scan::scan_source;
use crate::sinks::SinkQueues;
use crate::watermark::JobWatermark;
use crate::writes::{TableWriters, WriteGuard, no_rows};
use arrow::array::RecordBatch;
pub use creation::Creation;
pub use opening::Services;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::disk::Lock;
use tidemark_common::machine::Thread;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, WorkerId, machine};
use tidemark_connector::{Outside, Vault};
use tidemark_control::coordinator::stopped_error;
use tidemark_control::inputs;
pub use tidemark_control::placement::is_written;
use tidemark_control::protocol::{Positions, Request};
use tidemark_control::raft::MemberId;
pub use tidemark_control::{CatalogChange, Pin};
use tidemark_control::{Events, Placement, Readable, Readers};
use tidemark_plan::Catalog;
use tidemark_state::ViewPartition;
use tidemark_state::checkpoint::StoreTrouble;
use tidemark_state::errors::ErrorRow;
pub use tidemark_worker::{FarRows, Pieces, ReadAs, Share};
use tidemark_worker::{
    Figures, JobFigures, KeptErrors, Load, Pressure, Published, Reading, Storing,
};
use tokio::sync::oneshot;

/// How often a creation that takes long says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// How long an orderly end waits for its checkpoint.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);

/// A relation's schema, unless it is gone, and its name.
pub type RelationName = (Option<String>, String);

/// Handle of the running node. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {
    node: Arc<Node>,
}

/// What the handle reaches.
struct Node {
    /// With the number of workers and the place of checkpoints resolved.
    config: Config,
    /// Identifies the database to the outside; made once.
    cluster: String,
    /// This node in its group.
    membership: Membership,
    crew: Arc<Crew>,
    events: Events,
    readers: Arc<Readers>,
    published: Arc<Published>,
    figures: Arc<Figures>,
    errors: KeptErrors,
    load: Arc<Load>,
    pressure: Arc<Pressure>,
    memory: Arc<Memory>,
    reading: Reading,
    storing: Storing,
    checkpoints: Arc<Checkpoints>,
    sinks: Arc<SinkQueues>,
    writers: Arc<TableWriters>,
    next_id: AtomicU32,
    threads: Mutex<Vec<Thread>>,
    /// The data folder's lock, held until shutdown.
    lock: Mutex<Option<Lock>>,
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
    /// `creating`, `running`, `held back`, `stopped`, `resuming`.
    pub state: &'static str,
    /// Per cent of the backfill, 100 when running.
    pub progress: f64,
    /// Rows that entered the job, of a sink rows that it was given to send, since this process
    /// started.
    pub rows: u64,
    /// Rows per second over the last seconds.
    pub rows_per_second: f64,
    /// Last complete epoch.
    pub epoch: Epoch,
    /// Decided epochs after that one, which it has still to complete.
    pub epochs_behind: u64,
    /// Bytes of state in memory.
    pub memory_bytes: u64,
    /// Late rows that were left out.
    pub late_rows: u64,
    /// Its watermark, if a source of it has one.
    pub watermark: Option<JobWatermark>,
    /// Relations whose rows its joins look up instead of keeping them once more, by name.
    pub shares_rows_of: Option<String>,
    /// Of a sink: epochs not delivered yet, and what its writer says when it cannot deliver.
    pub undelivered_epochs: u64,
    /// The last error.
    pub error: Option<String>,
}

/// What can be read of a relation.
pub struct Answer {
    /// One per worker that may have some of its rows.
    pub shares: Vec<Share>,
    /// As of when to read them.
    pub at: ReadAs,
}

impl Engine {
    /// The catalog now: running and stopped jobs and plain views; jobs that are being created are
    /// not in it.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.node.published.catalog()
    }

    /// Whether a catalog, which its owner keeps from being freed, is still the one of now.
    pub fn is_newest(&self, catalog: *const Catalog) -> bool {
        self.node.published.is_newest(catalog)
    }

    /// A new relation id, to plan with.
    pub fn allocate_id(&self) -> RelationId {
        RelationId(self.node.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// How many workers all nodes run together.
    pub fn workers(&self) -> usize {
        self.node.crew.placement().workers()
    }

    /// The workers of each node that works.
    pub fn workers_of_nodes(&self) -> Vec<(MemberId, Range<WorkerId>)> {
        self.node.crew.workers().collect()
    }

    /// Bytes of state of each worker; what people read of this node's counts to the first one.
    pub fn state_bytes_of_workers(&self) -> Vec<u64> {
        let mut bytes = vec![0; self.workers()];
        for (_, figures) in self.node.figures.all() {
            let of_workers = figures.memory.iter().map(|m| m.load(Ordering::Relaxed));
            let of_workers: Vec<u64> = of_workers.collect();
            bytes[0] += figures
                .memory_bytes()
                .saturating_sub(of_workers.iter().sum());
            bytes
                .iter_mut()
                .zip(of_workers)
                .for_each(|(sum, one)| *sum += one);
        }
        bytes
    }

    /// Where all sources that run stand at the newest decided epoch.
    pub fn positions(&self) -> Arc<Positions> {
        self.node.readers.positions()
    }

    /// Who does what.
    pub fn placement(&self) -> &Placement {
        self.node.crew.placement()
    }

    /// The node's configuration, as resolved.
    pub fn config(&self) -> &Config {
        &self.node.config
    }

    /// Pins and epochs.
    pub(crate) fn readers(&self) -> &Readers {
        &self.node.readers
    }

    /// Rows on their way to each worker.
    pub(crate) fn load(&self) -> &Load {
        &self.node.load
    }

    /// `tidemark.errors`.
    pub(crate) fn kept_errors(&self) -> &KeptErrors {
        &self.node.errors
    }

    /// Asks for something of which there is no answer.
    fn request(&self, request: Request) -> Result<()> {
        self.node.events.request(request)
    }

    async fn ask(&self, request: Request) -> Result<()> {
        let answer = self.node.events.ask(request)?;
        answer.await.map_err(|_| Error::shutting_down())?.map(drop)
    }

    /// Drops these relations, all or none, with `cascade` also what depends on them. Never waits
    /// behind data.
    pub async fn drop(&self, relations: &[RelationId], cascade: bool) -> Result<()> {
        let relations = relations.to_vec();
        self.change_catalog(vec![CatalogChange::Drop { relations }], cascade)
            .await
    }

    /// Stops and undoes jobs that are being created.
    pub async fn cancel(&self, relations: &[RelationId]) -> Result<()> {
        for relation in relations {
            self.request(Request::Cancel {
                relation: *relation,
                error: Error::user(
                    SqlState::QUERY_CANCELED,
                    "canceling the creation on user request",
                ),
            })?;
        }
        Ok(())
    }

    /// Applies changes of the catalog, all or none. With `cascade`, drops take along what depends
    /// on them when they are logged.
    pub async fn change_catalog(&self, changes: Vec<CatalogChange>, cascade: bool) -> Result<()> {
        self.ask(Request::Changes { changes, cascade }).await
    }

    /// Connectors.
    fn outside(&self) -> &Outside {
        &self.node.reading.outside
    }

    /// What seals and opens secrets.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.node.reading.outside.vault
    }

    /// Pins the newest epoch at which all relations can be read.
    pub fn pin(&self) -> Pin {
        self.node.readers.pin()
    }

    /// The newest epoch at which all relations can be read.
    pub fn published(&self) -> Epoch {
        self.node.readers.published()
    }

    /// The newest epoch that is decided, whether or not it can be read yet.
    pub fn decided(&self) -> Epoch {
        self.node.readers.decided()
    }

    /// Pins the newest epoch at which these relations can be read together; waits until that is
    /// `at_least`.
    pub async fn pin_when(&self, relations: &[RelationId], at_least: Epoch) -> Result<Pin> {
        if !self.node.membership.is_sure() {
            self.node.membership.sure().await?;
        }
        self.node.readers.pin_when(relations, at_least).await
    }

    /// Waits until these relations can be read as of `epoch`, which is pinned.
    pub async fn wait_complete(&self, relations: &[RelationId], epoch: Epoch) -> Result<()> {
        self.node.readers.wait_complete(relations, epoch).await
    }

    /// Lets a job that stopped or is held back go on; returns when it runs and is visible, or why
    /// it does not. Dropping the future leaves it as it was. `progress` is called every few seconds
    /// with a sentence for a NOTICE.
    pub async fn resume(
        &self,
        relation: RelationId,
        progress: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<()> {
        let answer = self.node.events.ask(Request::Resume { relation })?;
        let read = |job: &JobStatus| format!("{}: {:.0} % is read", job.name, job.progress);
        self.begun(relation, answer, |job| progress(read(job)))
            .await
    }

    /// Waits for the answer to a creation or a resume; tells every few seconds how far it is.
    /// Dropping the future undoes what has begun.
    async fn begun(
        &self,
        relation: RelationId,
        mut answer: oneshot::Receiver<inputs::Answer>,
        tell: impl Fn(&JobStatus),
    ) -> Result<()> {
        let mut undo = Undo {
            engine: self.clone(),
            relation: Some(relation),
        };
        let mut tick = machine::sleep(PROGRESS_INTERVAL);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut answer => {
                    break result.unwrap_or_else(|_| Err(Error::shutting_down()));
                }
                () = &mut tick => {
                    tick = machine::sleep(PROGRESS_INTERVAL);
                    self.jobs().iter().filter(|job| job.relation == relation).for_each(&tell);
                }
            }
        };
        undo.relation = None;
        result.map(drop)
    }

    /// The partitions of a table, one per worker of this node. `55000` with the reason when its job
    /// does not run.
    pub fn partitions(&self, relation: RelationId) -> Result<Vec<Arc<ViewPartition>>> {
        self.node.writers.partitions(relation)
    }

    /// Whether a part of the rows may be on other nodes: what they need not send is worth asking
    /// for.
    pub fn is_spread(&self) -> bool {
        self.node.crew.has_hosts()
    }

    /// What can be read of a materialized relation under a pin of `epoch`: of one whose job does
    /// not run its last complete answer, or `55000` with the reason if that cannot be read.
    pub fn answer(&self, relation: RelationId, epoch: Epoch) -> Result<Answer> {
        let readers = &self.node.readers;
        let is_complete = readers.is_complete(&[relation], epoch);
        let mergeable = readers.mergeable();
        self.answer_as_of(relation, Readable { epoch, mergeable }, is_complete)
    }

    /// The same of the newest epoch that can be read of it, if that is `at_least` or later and
    /// nothing has to be waited for. It is not pinned: whoever reads it at once gets its rows, or
    /// `72000`.
    pub fn answer_now(&self, relation: RelationId, at_least: Epoch) -> Option<Answer> {
        if !self.node.membership.is_sure() {
            return None;
        }
        let now = self.node.readers.readable_now(relation, at_least)?;
        self.answer_as_of(relation, now, true).ok()
    }

    fn answer_as_of(
        &self,
        relation: RelationId,
        Readable { epoch, mergeable }: Readable,
        is_complete: bool,
    ) -> Result<Answer> {
        let (catalog, shares) = self.node.published.shares(relation);
        let stopped = catalog.stopped.get(&relation);
        if !is_complete && stopped.is_none() {
            return Err(Error::internal(format!(
                "relation {relation} is read as of epoch {epoch}, which its job has not completed"
            )));
        }
        match (shares, catalog.relations.get(&relation), stopped) {
            (Some(shares), _, stopped) => {
                let epoch = stopped.map_or(epoch, |s| s.epoch.min(epoch));
                let at = ReadAs { epoch, mergeable };
                Ok(Answer { shares, at })
            }
            (None, Some(relation), Some(stopped)) => Err(stopped_error(relation, stopped)),
            (None, relation, _) => Err(no_rows(relation)),
        }
    }

    /// Locks these tables for writing; see [`TableWriters::begin_write`].
    pub async fn begin_write(&self, tables: &[RelationId], writer: Writer) -> Result<WriteGuard> {
        self.node.writers.begin_write(tables, writer).await
    }

    /// The write locks that are held or awaited.
    pub fn locks(&self) -> Vec<TableLock> {
        self.node.writers.locks()
    }

    /// The sessions that a session waits for.
    pub fn blockers(&self, session: i32) -> Vec<i32> {
        self.node.writers.blockers(session)
    }

    /// Adds to the error of a statement that did not get what it waited for who has it.
    pub fn explain_wait(&self, error: Error, session: i32) -> Error {
        self.node.writers.explain_wait(error, session)
    }

    /// Ad-hoc reading of an append-only source: the rows that its input held at `pin` (from its
    /// start position to the cut; to its end now if no job reads it), in batches handed to `each`.
    /// `notice` is told what the broker has taken away meanwhile.
    /// Blocking; call from a blocking thread.
    pub fn scan_source(
        &self,
        relation: RelationId,
        columns: &[usize],
        pin: &Pin,
        notice: &mut dyn FnMut(String),
        each: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let catalog = self.catalog();
        let source = catalog.relations.get(&relation).ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_TABLE,
                "the source does not exist any more",
            )
        })?;
        let (reading, published) = (&self.node.reading, &self.node.published);
        scan_source(reading, published, source, columns, pin, notice, each)
    }

    /// Waits until everything received so far is visible and durable (in a committed checkpoint).
    pub async fn flush(&self) -> Result<()> {
        self.ask(Request::Flush).await
    }

    /// All jobs, also those that are being created.
    pub fn jobs(&self) -> Vec<JobStatus> {
        let catalog = self.catalog();
        let figures = self.node.figures.all();
        figures
            .into_iter()
            .filter_map(|(relation, f)| self.job_status(&catalog, relation, &f))
            .collect()
    }

    fn job_status(
        &self,
        catalog: &Catalog,
        relation: RelationId,
        f: &JobFigures,
    ) -> Option<JobStatus> {
        let (state, progress, epoch) = *f.state.lock();
        let stopped = catalog.stopped.get(&relation);
        let sink = self.node.sinks.get(relation).map(|s| s.status());
        let sink = sink.unwrap_or_default();
        let state = if let Some(stopped) = stopped.filter(|_| state != "resuming") {
            if stopped.held { "held back" } else { "stopped" }
        } else if sink.is_halted {
            "stopped"
        } else if state.is_empty() {
            "running"
        } else {
            state
        };
        let (name, kind) = match catalog.relations.get(&relation) {
            Some(r) => (format!("{}.{}", r.schema_name, r.name), r.kind.name()),
            None => f.name.lock().clone(),
        };
        if name.is_empty() {
            return None;
        }
        let rows = f.rows.load(Ordering::Relaxed);
        let readers = &self.node.readers;
        let epoch = match (state, stopped) {
            ("running", _) => readers.completed(relation),
            ("stopped" | "held back", Some(stopped)) => stopped.epoch,
            _ => epoch,
        };
        let epochs_behind = match state {
            "running" | "creating" | "resuming" => readers.decided().0.saturating_sub(epoch.0),
            _ => 0,
        };
        Some(JobStatus {
            relation,
            name,
            kind,
            state,
            progress: if state == "running" { 100.0 } else { progress },
            rows,
            rows_per_second: f.rate(rows),
            epoch,
            epochs_behind,
            memory_bytes: f.memory_bytes(),
            late_rows: f.late.load(Ordering::Relaxed),
            watermark: crate::watermark::of(catalog, &readers.positions(), relation),
            shares_rows_of: shares_rows_of(catalog, relation),
            undelivered_epochs: sink.undelivered_epochs,
            error: stopped
                .map(|s| s.reason.clone())
                .or(sink.error)
                .or_else(|| f.trouble.lock().values().next().cloned()),
        })
    }

    /// These give memory back before a job stops for it.
    pub fn eased_by(&self, others: Arc<dyn crate::Others>) {
        self.node.memory.eased_by(others);
    }

    /// Who holds how much memory.
    pub fn memory(&self) -> MemoryUse {
        let (resident, program) = (resident_bytes().unwrap_or_default(), program_bytes());
        let rest = resident.saturating_sub(program);
        let free = allocated_bytes().map(|allocated| rest.saturating_sub(allocated));
        MemoryUse {
            limit: self.node.memory.limit(),
            resident,
            state: self.jobs().iter().map(|job| job.memory_bytes).sum(),
            on_the_way: self.node.load.bytes().sum::<usize>() as u64,
            undelivered: self.node.sinks.bytes() as u64,
            fetched: tidemark_connector::kafka::fetched_bytes(),
            storing: self.node.checkpoints.waiting_bytes(),
            program,
            free: free.unwrap_or_default(),
            is_short: self.node.memory.is_short(),
        }
    }

    /// This node in its group.
    pub fn membership(&self) -> &Membership {
        &self.node.membership
    }

    /// What is wrong with the checkpoint store at the moment.
    pub fn store_trouble(&self) -> Option<StoreTrouble> {
        self.node.checkpoints.trouble()
    }

    /// The checkpoints that this process committed, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.node.checkpoints.shown()
    }

    /// Records and rows that failed up to the newest epoch that each job has completed, by
    /// relation, newest last, with the schema and name that the relation has now; the newest 10,000
    /// of each relation are kept.
    pub fn errors(&self) -> Vec<(RelationName, Arc<ErrorRow>)> {
        let catalog = self.catalog();
        let name = |id: RelationId, row: &ErrorRow| match catalog.relations.get(&id) {
            Some(relation) => (Some(relation.schema_name.clone()), relation.name.clone()),
            None => (None, row.relation.clone()),
        };
        let complete = |id| self.node.readers.completed(id);
        self.node
            .errors
            .lock()
            .rows(complete)
            .map(|(id, row)| (name(id, &row), row))
            .collect()
    }

    /// Takes a last checkpoint and stops. While it cannot be stored this waits for
    /// [`SHUTDOWN_PATIENCE`] only: what was decided since the last one is in the log.
    pub async fn shutdown(&self) -> Result<()> {
        let stopped = machine::timeout(SHUTDOWN_PATIENCE, self.ask(Request::Shutdown)).await;
        let Some(stopped) = stopped else {
            tracing::warn!(
                "stopped without a last checkpoint, which could not be stored in time; the next \
                 start replays the log instead"
            );
            return Ok(());
        };
        stopped?;
        self.node.sinks.close_all();
        let threads = std::mem::take(&mut *self.node.threads.lock());
        for thread in threads {
            thread.ended().await;
        }
        // Another node goes on.
        if let Err(error) = self.node.membership.leave(Vec::new()).await {
            tracing::debug!(%error, "the group has ended before");
        }
        self.node.lock.lock().take();
        Ok(())
    }
}

/// Undoes a creation whose statement went away.
struct Undo {
    engine: Engine,
    relation: Option<RelationId>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(relation) = self.relation {
            let error = Error::user(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            );
            let _ = self.engine.request(Request::Cancel { relation, error });
            if !self.engine.catalog().relations.contains_key(&relation) {
                self.engine.node.figures.forget(relation);
            }
        }
    }
}

/// The names of the relations whose rows a job's joins look up; `None` if there are none.
fn shares_rows_of(catalog: &Catalog, job: RelationId) -> Option<String> {
    let plan = catalog.relations.get(&job)?.job.as_ref()?;
    let shared = plan.shared_rows().into_iter().map(|(_, relation)| relation);
    let known = shared.filter_map(|relation| catalog.relations.get(&relation));
    let names: BTreeSet<String> = known
        .map(|relation| format!("{}.{}", relation.schema_name, relation.name))
        .collect();
    let names: Vec<String> = names.into_iter().collect();
    (!names.is_empty()).then(|| names.join(", "))
}
