//! The engine: everything below the SQL door. Sessions hold a cheap clone of [`Engine`]; it opens
//! the log, restores the last checkpoint, replays the decided epochs, runs the workers and the
//! coordinator, and answers what people ask: the catalog, pinned epochs and rows to read, writes,
//! jobs.

mod following;

use crate::beginning::{Beginning, compacted_notice};
use crate::blame::Recovery;
use crate::errors::ErrorTable;
use crate::exchange::Inbound;
use crate::ownership::{self, DataFolder, LogKnowledge};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::sinks::full::FullSinks;
use crate::store;
use crate::worker::{Worker, open_connector};
use arrow::array::RecordBatch;
use following::follow_sources;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{SourceConnector, SplitPosition};
use tidemark_common::config::Config;
use tidemark_common::disk::LocalDisk;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, WorkerId};
use tidemark_connector::SinkIdentity;
use tidemark_control::coordinator::recovery::{Past, Recovered};
use tidemark_control::coordinator::{Coordinator, Pace, shutting_down, stopped_error};
use tidemark_control::protocol::{Event, Positions, Request};
pub use tidemark_control::{CatalogChange, Pin};
use tidemark_control::{Readers, TableWrites, WriteAheadLog};
use tidemark_plan::{Catalog, Relation, RelationKind};
use tidemark_state::ViewPartition;
use tidemark_state::checkpoint::{CheckpointStore, StoreHealth, StoreTrouble};
use tidemark_state::consolidate::consolidate;
use tidemark_state::errors::ErrorRow;
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
    shared: Arc<Shared>,
    next_id: Arc<AtomicU32>,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
    /// The data folder's lock, held until shutdown.
    lock: Arc<Mutex<Option<File>>>,
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
    /// Bytes of state in memory.
    pub memory_bytes: u64,
    /// Late rows that were left out.
    pub late_rows: u64,
    /// Of a sink: epochs not delivered yet, and what its writer says when it cannot deliver.
    pub undelivered_epochs: u64,
    /// The last error.
    pub error: Option<String>,
}

/// What can be read of a relation.
pub struct Answer {
    /// One per worker.
    pub partitions: Vec<Arc<ViewPartition>>,
    /// The epoch to read them as of.
    pub epoch: Epoch,
}

/// What a creation begins with beside its relation.
#[derive(Default)]
pub struct Creation {
    /// The relation whose place it takes.
    pub replaces: Option<RelationId>,
    /// Rows that a table has from its first moment on, in its columns.
    pub rows: Vec<RecordBatch>,
}

impl Creation {
    fn rows(&self, table: RelationId) -> Vec<TableWrites> {
        let inserts = self.rows.iter().filter(|b| b.num_rows() > 0).cloned();
        let changes: Vec<ChangeBatch> = inserts.map(ChangeBatch::insert).collect();
        let Some(first) = changes.first() else {
            return Vec::new();
        };
        let changes = consolidate(&first.schema().clone(), &changes);
        vec![TableWrites { table, changes }]
    }
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

impl Engine {
    /// Opens the data folder (takes its lock), restores and replays. Returns when reads may open.
    /// Must be called within a tokio runtime.
    pub async fn open(config: &Config) -> Result<Engine> {
        Engine::open_noting(config, Arc::default()).await
    }

    /// The same, and `health` says from the beginning on whether the checkpoint store answers: what
    /// is opened waits for it.
    pub async fn open_noting(config: &Config, health: Arc<StoreHealth>) -> Result<Engine> {
        let mut config = config.clone();
        if config.workers == 0 {
            config.workers = std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(tidemark_common::VNODES);
        }
        let data = DataFolder::lock(Path::new(&config.data_dir))?;
        let folder = data.path().to_path_buf();
        if config.checkpoint_url.is_empty() {
            config.checkpoint_url = format!("file://{}", folder.join("checkpoints").display());
        }
        let store = CheckpointStore::open_noting(&config.checkpoint_url, health)?;
        let log_folder = folder.join("log");
        tokio::spawn(store::tell_trouble(&store, log_folder.clone()));
        let recover = config.recover_from_checkpoint;
        let opened = tokio::task::spawn_blocking(move || {
            WriteAheadLog::open(Arc::new(LocalDisk), &log_folder, recover)
        })
        .await
        .map_err(|e| Error::internal(e.to_string()))??;
        // A log of which a part is lost says nothing about who is ahead, folder or store.
        let is_lost = opened.loss.is_some();
        let entries = match &opened.loss {
            Some(loss) => {
                tracing::error!(%loss, "the log is not whole, and its loss is accepted");
                &[]
            }
            None => &opened.entries[..],
        };
        let known = LogKnowledge {
            entries,
            is_lost,
            is_new: opened.is_new,
        };
        let looked = ownership::look(&data, &store.waiting(), &known, recover).await?;
        let past = Past {
            entries: opened.entries,
            follows: opened.follows,
            loss: is_lost,
            accept_loss: recover || is_lost,
        };
        let mut recovered = Recovered::read(past, &store.patient()).await?;
        ownership::report_loss(&recovered, recover);
        let log = opened.log;
        let owned = looked.claim(&data, &store.patient(), &recovered).await?;
        recovered.generation = owned.lineage.own().generation;
        store::tidy_up(&store, &owned.lineage).await?;
        let (recovery, suspects) = Recovery::begin(&folder)?;
        recovered.suspects = suspects;
        let errors = restored_errors(&recovered, &store.patient()).await;
        let next_id = Arc::new(AtomicU32::new(recovered.decisions.catalog.next_id.max(1)));
        let (events, inbound) = mpsc::channel();
        let workers = config.workers;
        let pace = Pace {
            epoch: Duration::from_millis(config.epoch_ms),
            checkpoint: Duration::from_millis(config.checkpoint_ms),
            snapshot_age_max: (config.snapshot_age_max_ms > 0)
                .then(|| Duration::from_millis(config.snapshot_age_max_ms)),
        };
        let shared = Arc::new(Shared {
            config,
            cluster: owned.cluster,
            generation: recovered.generation,
            lineage: owned.lineage,
            recovery,
            tokio: tokio::runtime::Handle::current(),
            store,
            readers: Readers::new(),
            events,
            catalog: RwLock::default(),
            starts: RwLock::default(),
            views: RwLock::default(),
            arriving: Mutex::default(),
            sinks: Mutex::default(),
            specs: Mutex::default(),
            unnamed: Mutex::default(),
            full_sinks: FullSinks::default(),
            heads: Mutex::default(),
            locks: Arc::default(),
            jobs: Mutex::default(),
            errors: Mutex::new(errors),
            checkpoints: Mutex::default(),
            inbox_rows: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        });
        let (pool, mut threads) = start_workers(&shared, workers)?;
        let (ready, opened) = oneshot::channel();
        threads.push(start_coordinator(
            log, recovered, &shared, pool, pace, inbound, ready,
        )?);
        // Also when it is left: a start that fails with an error, or that a signal ends, has not
        // died.
        let ended = EndRecovery(shared.clone());
        opened
            .await
            .map_err(|_| Error::internal("the coordinator ended before it opened"))??;
        drop(ended);
        tokio::spawn(follow_sources(Arc::downgrade(&shared)));
        tokio::spawn(store::watch_claim(Arc::downgrade(&shared)));
        Ok(Engine {
            shared,
            next_id,
            threads: Arc::new(Mutex::new(threads)),
            lock: Arc::new(Mutex::new(Some(data.into_lock()))),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The catalog now: running and stopped jobs and plain views; jobs that are being created are
    /// not in it.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.read().clone()
    }

    /// A new relation id, to plan with.
    pub fn allocate_id(&self) -> RelationId {
        RelationId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// How many workers this node runs.
    pub fn workers(&self) -> usize {
        self.shared.config.workers
    }

    /// The node's configuration, as resolved.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    fn request(&self, request: Request) -> Result<()> {
        self.shared
            .events
            .send(Event::Request(request))
            .map_err(|_| shutting_down())
    }

    async fn ask(&self, make: impl FnOnce(oneshot::Sender<Result<()>>) -> Request) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.request(make(reply))?;
        answer.await.map_err(|_| shutting_down())?
    }

    /// Creates a relation; returns when it is visible and caught up (see DIALECT). Dropping the
    /// future undoes it. `progress` is called every few seconds with a sentence for a NOTICE.
    pub async fn create(
        &self,
        relation: Relation,
        progress: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<()> {
        self.create_as(relation, Creation::default(), progress)
            .await
    }

    /// As `create`, with more to begin with. What it replaces is there until it is visible itself.
    pub async fn create_as(
        &self,
        mut relation: Relation,
        creation: Creation,
        progress: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<()> {
        if let Some(error) = self.shared.readers.log_error() {
            return Err(error);
        }
        let id = relation.id;
        self.prepare_sink(&relation).await?;
        let resolved = self.resolve_positions(&relation).await?;
        if resolved.may_lose_records {
            relation.logs_rows.get_or_insert(Epoch(0));
        }
        for source in resolved.compacted {
            self.request(Request::LogRows { relation: source })?;
        }
        for notice in resolved.notices {
            tracing::info!(relation = %relation.name, notice);
            progress(notice);
        }
        *self.shared.figures(id).name.lock() = (
            format!("{}.{}", relation.schema_name, relation.name),
            relation.kind.name(),
        );
        let (reply, answer) = oneshot::channel();
        self.request(Request::Create {
            relation: Box::new(relation),
            start: resolved.start,
            targets: resolved.targets,
            begins: resolved.begins,
            replaces: creation.replaces,
            rows: creation.rows(id),
            reply,
        })?;
        let read = |job: &JobStatus| {
            format!(
                "{:.0} % of the input is read: {} rows, {:.0} rows/s",
                job.progress, job.rows, job.rows_per_second
            )
        };
        let result = self.begun(id, answer, |job| progress(read(job))).await;
        if result.is_err() {
            self.shared.jobs.lock().remove(&id);
        }
        result
    }

    /// Of a sink: its first marker.
    async fn prepare_sink(&self, relation: &Relation) -> Result<()> {
        let Some(spec) = relation.connector.clone() else {
            return Ok(());
        };
        if relation.kind != RelationKind::Sink {
            return Ok(());
        }
        let identity = SinkIdentity {
            cluster: self.shared.cluster.clone(),
            sink: relation.id,
            name: relation.name.clone(),
        };
        let prepared =
            tokio::task::spawn_blocking(move || tidemark_connector::prepare_sink(&spec, &identity));
        prepared.await.map_err(|e| Error::internal(e.to_string()))?
    }

    /// Where the relation's own connector starts, and what its sources hold now.
    async fn resolve_positions(&self, relation: &Relation) -> Result<Resolved> {
        let catalog = self.catalog();
        let taps = relation.job.as_ref().map(|j| j.taps()).unwrap_or_default();
        let starts = self.shared.starts.read().clone();
        let running = self.pin().positions().clone();
        let sources: Vec<(Arc<Relation>, Vec<SplitPosition>)> = taps
            .iter()
            .filter_map(|(id, _)| catalog.relations.get(id))
            .filter(|r| r.connector.is_some() && !r.is_materialized())
            .map(|r| (r.clone(), starts.get(&r.id).cloned().unwrap_or_default()))
            .collect();
        let own = (relation.connector.is_some() && relation.kind != RelationKind::Sink)
            .then(|| Arc::new(relation.clone()));
        let resolved = tokio::task::spawn_blocking(move || {
            let mut resolved = Resolved::default();
            for (source, start) in sources {
                resolved.add_source(&source, start, running.contains_key(&source.id))?;
            }
            if let Some(own) = own {
                resolved.add_own(&own)?;
            }
            Ok::<_, Error>(resolved)
        });
        resolved.await.map_err(|e| Error::internal(e.to_string()))?
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
        self.ask(|reply| Request::Changes {
            changes,
            cascade,
            reply,
        })
        .await
    }

    /// Pins the newest readable epoch.
    pub fn pin(&self) -> Pin {
        self.shared.readers.pin()
    }

    /// Waits until `epoch` is decided and complete, so that the next pin includes it.
    pub async fn wait_visible(&self, epoch: Epoch) -> Result<()> {
        self.shared.readers.wait_published(epoch).await
    }

    /// Lets a job that stopped or is held back go on; returns when it runs and is visible, or why
    /// it does not. Dropping the future leaves it as it was. `progress` is called every few seconds
    /// with a sentence for a NOTICE.
    pub async fn resume(
        &self,
        relation: RelationId,
        progress: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Resume { relation, reply })?;
        let read = |job: &JobStatus| format!("{}: {:.0} % is read", job.name, job.progress);
        self.begun(relation, answer, |job| progress(read(job)))
            .await
    }

    /// Waits for the answer to a creation or a resume; tells every few seconds how far it is.
    /// Dropping the future undoes what has begun.
    async fn begun(
        &self,
        relation: RelationId,
        mut answer: oneshot::Receiver<Result<()>>,
        tell: impl Fn(&JobStatus),
    ) -> Result<()> {
        let mut undo = Undo {
            engine: self.clone(),
            relation: Some(relation),
        };
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.tick().await;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut answer => break result.map_err(|_| shutting_down()).and_then(|r| r),
                _ = ticks.tick() => {
                    self.jobs().iter().filter(|job| job.relation == relation).for_each(&tell);
                }
            }
        };
        undo.relation = None;
        result
    }

    /// The partitions of a materialized relation (tables, views, upsert sources), one per worker.
    /// `55000` with the reason when its job does not run.
    pub fn partitions(&self, relation: RelationId) -> Result<Vec<Arc<ViewPartition>>> {
        let catalog = self.catalog();
        if let (Some(stopped), Some(relation)) = (
            catalog.stopped.get(&relation),
            catalog.relations.get(&relation),
        ) {
            return Err(stopped_error(relation, stopped));
        }
        Ok(self.answer(relation, Epoch(u64::MAX))?.partitions)
    }

    /// What can be read of a materialized relation under a pin of `epoch`: of one whose job does
    /// not run its last complete answer, or `55000` with the reason if that cannot be read.
    pub fn answer(&self, relation: RelationId, epoch: Epoch) -> Result<Answer> {
        // In this order: what was resumed changes its place with the catalog.
        let views = self.shared.views.read();
        let catalog = self.catalog();
        let stopped = catalog.stopped.get(&relation);
        let partitions: Option<Vec<_>> = views
            .get(&relation)
            .and_then(|p| p.iter().cloned().collect());
        match (partitions, catalog.relations.get(&relation), stopped) {
            (Some(partitions), _, stopped) => Ok(Answer {
                partitions,
                epoch: stopped.map_or(epoch, |s| s.epoch.min(epoch)),
            }),
            (None, Some(relation), Some(stopped)) => Err(stopped_error(relation, stopped)),
            (None, relation, _) => Err(Error::user(
                SqlState::UNDEFINED_TABLE,
                format!(
                    "relation \"{}\" does not exist any more or keeps no rows",
                    relation.map(|r| r.name.as_str()).unwrap_or_default()
                ),
            )),
        }
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
        crate::scan::scan_source(&self.shared, source, columns, pin, notice, each)
    }

    /// Waits until everything received so far is visible and durable (in a committed checkpoint).
    pub async fn flush(&self) -> Result<()> {
        self.ask(|reply| Request::Flush { reply }).await
    }

    /// All jobs, also those that are being created.
    pub fn jobs(&self) -> Vec<JobStatus> {
        let catalog = self.catalog();
        let figures: Vec<_> = self
            .shared
            .jobs
            .lock()
            .iter()
            .map(|(id, f)| (*id, f.clone()))
            .collect();
        let published = self.shared.readers.published();
        figures
            .into_iter()
            .filter_map(|(relation, f)| self.job_status(&catalog, relation, &f, published))
            .collect()
    }

    fn job_status(
        &self,
        catalog: &Catalog,
        relation: RelationId,
        f: &crate::shared::JobFigures,
        published: Epoch,
    ) -> Option<JobStatus> {
        let (state, progress, epoch) = *f.state.lock();
        let stopped = catalog.stopped.get(&relation);
        let sink = self.shared.sinks.lock().get(&relation).map(|s| s.status());
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
        Some(JobStatus {
            relation,
            name,
            kind,
            state,
            progress: if state == "running" { 100.0 } else { progress },
            rows,
            rows_per_second: f.rate(rows),
            epoch: if state == "running" { published } else { epoch },
            memory_bytes: f.memory.iter().map(|m| m.load(Ordering::Relaxed)).sum(),
            late_rows: f.late.load(Ordering::Relaxed),
            undelivered_epochs: sink.undelivered_epochs,
            error: stopped
                .map(|s| s.reason.clone())
                .or(sink.error)
                .or_else(|| f.trouble.lock().values().next().cloned()),
        })
    }

    /// What is wrong with the checkpoint store at the moment.
    pub fn store_trouble(&self) -> Option<StoreTrouble> {
        self.shared.store.health().trouble()
    }

    /// The checkpoints that this process committed, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.shared.checkpoints.lock().iter().cloned().collect()
    }

    /// Records and rows that failed up to the newest readable epoch, by relation, newest last, with
    /// the schema and name that the relation has now; the newest 10,000 of each relation are kept.
    pub fn errors(&self) -> Vec<(RelationName, Arc<ErrorRow>)> {
        let catalog = self.catalog();
        let name = |id: RelationId, row: &ErrorRow| match catalog.relations.get(&id) {
            Some(relation) => (Some(relation.schema_name.clone()), relation.name.clone()),
            None => (None, row.relation.clone()),
        };
        let published = self.shared.readers.published();
        self.shared
            .errors
            .lock()
            .rows(published)
            .map(|(id, row)| (name(id, &row), row))
            .collect()
    }

    /// Takes a last checkpoint and stops. While it cannot be stored this waits for
    /// [`SHUTDOWN_PATIENCE`] only: what was decided since the last one is in the log.
    pub async fn shutdown(&self) -> Result<()> {
        let stopped = tokio::time::timeout(
            SHUTDOWN_PATIENCE,
            self.ask(|reply| Request::Shutdown { reply }),
        )
        .await;
        let Ok(stopped) = stopped else {
            tracing::warn!(
                "stopped without a last checkpoint, which could not be stored in time; the next \
                 start replays the log instead"
            );
            return Ok(());
        };
        stopped?;
        let sinks: Vec<_> = self.shared.sinks.lock().values().cloned().collect();
        sinks.iter().for_each(|s| s.close());
        let threads = std::mem::take(&mut *self.threads.lock());
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())))
            .await
            .map_err(|e| Error::internal(e.to_string()))?;
        self.lock.lock().take();
        Ok(())
    }
}

/// What a creation asks of the outside before it begins.
#[derive(Default)]
struct Resolved {
    /// Where the relation's own connector starts.
    start: Vec<SplitPosition>,
    /// Whether its records may be taken away.
    may_lose_records: bool,
    /// What the sources hold now.
    targets: Positions,
    /// Where reading begins of sources that have lost records at their start.
    begins: Positions,
    /// Sources that may lose records by now, which nobody has noticed yet.
    compacted: Vec<RelationId>,
    /// What the creator should know of them.
    notices: Vec<String>,
}

impl Resolved {
    /// A source that the job reads, which starts at `start`. One that runs is looked after.
    fn add_source(
        &mut self,
        source: &Relation,
        start: Vec<SplitPosition>,
        is_running: bool,
    ) -> Result<()> {
        let connector = open_connector(source)?;
        self.targets.insert(source.id, connector.end()?);
        let beginning = Beginning::now(start, connector.as_ref())?;
        self.notices.extend(beginning.notice(source));
        if beginning.is_moved() {
            self.begins.insert(source.id, beginning.positions);
        }
        let unnoticed =
            !is_running && source.logs_rows.is_none() && connector.may_lose_records()?;
        if unnoticed {
            self.compacted.push(source.id);
        }
        if unnoticed || source.logs_rows.is_some() {
            self.notices.push(compacted_notice(source));
        }
        Ok(())
    }

    /// The relation's own connector.
    fn add_own(&mut self, own: &Relation) -> Result<()> {
        let connector = open_connector(own)?;
        self.start = connector.start()?;
        self.may_lose_records = connector.may_lose_records()?;
        if own.is_materialized() {
            self.targets.insert(own.id, connector.end()?);
        }
        Ok(())
    }
}

/// The errors that the last checkpoint holds. They are diagnostics: what cannot be read is
/// reported, and the database opens without.
async fn restored_errors(recovered: &Recovered, store: &CheckpointStore) -> ErrorTable {
    let mut errors = ErrorTable::default();
    let Some(file) = recovered.manifest.as_ref().and_then(|m| m.errors.clone()) else {
        return errors;
    };
    let running = recovered.running();
    match store.read_errors(&file).await {
        Ok(kept) => errors.restore(file, kept, |id| {
            running.contains(&id) || recovered.decisions.catalog.relations.contains_key(&id)
        }),
        Err(error) => {
            tracing::error!(file = %file.path, %error, "the errors of before the last checkpoint \
                cannot be read: tidemark.errors goes on without them")
        }
    }
    errors
}

/// Ends the notes of recovery when it is dropped.
struct EndRecovery(Arc<Shared>);

impl Drop for EndRecovery {
    fn drop(&mut self) {
        self.0.recovery.end();
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
                self.engine.shared.jobs.lock().remove(&relation);
            }
        }
    }
}

fn start_workers(
    shared: &Arc<Shared>,
    workers: usize,
) -> Result<(Pool, Vec<std::thread::JoinHandle<()>>)> {
    let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| crossbeam_channel::unbounded::<Inbound>())
        .unzip();
    let mut commands = Vec::new();
    let mut threads = Vec::new();
    for (id, inbox) in receivers.into_iter().enumerate() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        commands.push(sender);
        let (shared, peers) = (shared.clone(), inboxes.clone());
        threads.push(spawn(format!("worker-{id}"), move || {
            Worker::new(id as WorkerId, shared, receiver, inbox, peers).run()
        })?);
    }
    Ok((
        Pool {
            shared: shared.clone(),
            commands,
            inboxes,
            compacting: Arc::default(),
        },
        threads,
    ))
}

fn start_coordinator(
    log: WriteAheadLog,
    recovered: Recovered,
    shared: &Arc<Shared>,
    pool: Pool,
    pace: Pace,
    events: mpsc::Receiver<Event>,
    ready: oneshot::Sender<Result<()>>,
) -> Result<std::thread::JoinHandle<()>> {
    let readers = shared.readers.clone();
    spawn("coordinator".into(), move || {
        match Coordinator::recover(
            Box::new(log),
            recovered,
            readers,
            Box::new(pool),
            pace,
            &events,
        ) {
            Ok(coordinator) => {
                let _ = ready.send(Ok(()));
                if let Err(error) = coordinator.run(&events) {
                    tracing::error!(%error, "the log cannot be written: nothing can be decided any \
                        more");
                    // Whoever waits must not wait for ever, and nothing may be answered that was
                    // not decided.
                    std::process::exit(1);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    let thread = name.clone();
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            // Without this thread nothing would ever complete; what was decided comes back by
            // replay.
            tracing::error!(
                thread,
                "a thread of the engine ended by a broken invariant: the server exits"
            );
            std::process::exit(70);
        }
    };
    std::thread::Builder::new()
        .name(name)
        .stack_size(tidemark_common::STACK_BYTES)
        .spawn(guarded)
        .map_err(Error::from)
}
