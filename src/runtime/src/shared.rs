//! What the threads of one node share: handles, views, sinks, errors and figures. Nothing in here
//! is touched per row.

use crate::blame::Recovery;
use crate::engine::CheckpointInfo;
use crate::errors::ErrorTable;
use crate::locks::TableLocks;
use crate::sinks::SinkQueue;
use crate::sinks::full::FullSinks;
use crate::writes::TableHead;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::Sender;
use tidemark_common::config::Config;
use tidemark_common::{Epoch, RelationId, TableId};
use tidemark_control::Readers;
use tidemark_control::protocol::{Event, Positions};
use tidemark_plan::Catalog;
use tidemark_state::checkpoint::owner::Lineage;
use tidemark_state::checkpoint::{CheckpointStore, FileMeta};
use tidemark_state::{TableSpec, ViewPartition};
use tokio::runtime::Handle;

/// Shared by workers, sinks, the coordinator's side effects and sessions.
pub struct Shared {
    /// The node's configuration, with the number of workers resolved.
    pub config: Config,
    /// Identifies the database to the outside (sinks' transactions); made once.
    pub cluster: String,
    /// This incarnation; files carry it.
    pub generation: u64,
    /// Its claim of the checkpoint store, and whose the files there are.
    pub lineage: Lineage,
    /// For uploads and connections; never for operators.
    pub tokio: Handle,
    /// What runs while the node restores and replays.
    pub recovery: Recovery,
    /// Where checkpoints go.
    pub store: CheckpointStore,
    /// Pins and epochs.
    pub readers: Arc<Readers>,
    /// To the coordinator.
    pub events: Sender<Event>,
    /// What sessions see.
    pub catalog: RwLock<Arc<Catalog>>,
    /// Where each source starts, as logged.
    pub starts: RwLock<Positions>,
    /// Views by relation, one partition per worker.
    pub views: RwLock<HashMap<RelationId, Vec<Option<Arc<ViewPartition>>>>>,
    /// The same of jobs that are being resumed: they take the place of the last complete answer
    /// when the job does not count as stopped any more.
    pub arriving: Mutex<HashMap<RelationId, Vec<Option<Arc<ViewPartition>>>>>,
    /// Sinks by relation.
    pub sinks: Mutex<BTreeMap<RelationId, Arc<SinkQueue>>>,
    /// Those of which too much waits in memory.
    pub full_sinks: FullSinks,
    /// Durable shapes of the tables that were sealed, for compaction.
    pub specs: Mutex<HashMap<TableId, TableSpec>>,
    /// Merged files that no committed manifest names yet.
    pub unnamed: Mutex<Vec<FileMeta>>,
    /// Writes of tables that are not published yet, for resolving the next one.
    pub heads: Mutex<HashMap<RelationId, Arc<tokio::sync::Mutex<TableHead>>>>,
    /// Who holds and who awaits those tables' locks.
    pub locks: Arc<TableLocks>,
    /// Figures by job.
    pub jobs: Mutex<BTreeMap<RelationId, Arc<JobFigures>>>,
    /// `tidemark.errors`.
    pub errors: Mutex<ErrorTable>,
    /// `SHOW CHECKPOINTS`.
    pub checkpoints: Mutex<VecDeque<CheckpointInfo>>,
    /// Rows on their way to each worker.
    pub inbox_rows: Vec<AtomicUsize>,
}

/// Figures of one job, for `SHOW JOBS` and `/metrics`.
#[derive(Default)]
pub struct JobFigures {
    /// `creating`, `running` or `stopped`, progress in per cent, epoch.
    pub state: Mutex<(&'static str, f64, Epoch)>,
    /// Schema-qualified name and kind, also while the job is not in the catalog yet.
    pub name: Mutex<(String, &'static str)>,
    /// Rows that entered.
    pub rows: AtomicU64,
    /// Late rows.
    pub late: AtomicU64,
    /// Bytes of state, by worker, as of the last checkpoint.
    pub memory: Vec<AtomicU64>,
    /// Why a source's readers get nothing at the moment, by worker.
    pub trouble: Mutex<BTreeMap<usize, String>>,
    /// For the rate: when `rows` was last looked at, and what it was.
    pub rate: Mutex<Option<(std::time::Instant, u64, f64)>>,
}

impl Shared {
    /// The figures of a job, made at first use.
    pub fn figures(&self, relation: RelationId) -> Arc<JobFigures> {
        let mut jobs = self.jobs.lock();
        jobs.entry(relation)
            .or_insert_with(|| {
                Arc::new(JobFigures {
                    memory: (0..self.inbox_rows.len())
                        .map(|_| AtomicU64::new(0))
                        .collect(),
                    ..JobFigures::default()
                })
            })
            .clone()
    }

    /// What a worker has of a relation that people read.
    pub fn show(&self, relation: RelationId, worker: usize, view: Arc<ViewPartition>) {
        let workers = self.inbox_rows.len();
        let resumes = self.catalog.read().stopped.contains_key(&relation);
        if resumes {
            let mut arriving = self.arriving.lock();
            let partitions = arriving.entry(relation);
            partitions.or_insert_with(|| vec![None; workers])[worker] = Some(view);
        } else {
            let mut views = self.views.write();
            let partitions = views.entry(relation);
            partitions.or_insert_with(|| vec![None; workers])[worker] = Some(view);
        }
    }

    /// Sessions see this catalog from now on, and the rows of what was resumed with it.
    pub fn set_catalog(&self, catalog: Arc<Catalog>) -> Arc<Catalog> {
        let mut views = self.views.write();
        let mut arriving = self.arriving.lock();
        arriving.retain(|id, partitions| {
            let stays = catalog.stopped.contains_key(id);
            if !stays && catalog.relations.contains_key(id) {
                views.insert(*id, std::mem::take(partitions));
            }
            stays
        });
        views.retain(|id, _| {
            let before = self.catalog.read().relations.contains_key(id);
            !before || catalog.relations.contains_key(id)
        });
        std::mem::replace(&mut *self.catalog.write(), catalog)
    }

    /// Removes what is known of a job that ended. Of one that stopped, what people read of it, its
    /// figures and its errors stay. The queue of its sink is not touched.
    pub fn forget(&self, relation: RelationId, stopped: bool) {
        self.arriving.lock().remove(&relation);
        if !stopped {
            self.views.write().remove(&relation);
        }
        self.heads.lock().remove(&relation);
        self.specs
            .lock()
            .retain(|table, _| table.relation != relation);
        if !stopped {
            self.jobs.lock().remove(&relation);
            self.errors.lock().forget(relation);
        }
    }
}

impl JobFigures {
    /// Rows per second since the last look (looks within a second share one figure).
    pub fn rate(&self, rows: u64) -> f64 {
        let now = std::time::Instant::now();
        let mut rate = self.rate.lock();
        let Some((then, before, last)) = *rate else {
            *rate = Some((now, rows, 0.0));
            return 0.0;
        };
        let seconds = now.duration_since(then).as_secs_f64();
        if seconds < 1.0 {
            return last;
        }
        let current = rows.saturating_sub(before) as f64 / seconds;
        *rate = Some((now, rows, current));
        current
    }
}
