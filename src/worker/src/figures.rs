//! Figures of jobs, for `SHOW JOBS` and `/metrics`. Nothing in here is touched per row.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tidemark_common::{Epoch, RelationId, WorkerId, machine};
use tidemark_plan::Relation;
use tidemark_state::ViewPartition;

/// The figures of all jobs of a node.
pub struct Figures {
    workers: usize,
    jobs: Mutex<BTreeMap<RelationId, Arc<JobFigures>>>,
}

/// Figures of one job.
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
    /// Bytes of state that nobody reads, by worker, when it was weighed last.
    pub memory: Vec<AtomicU64>,
    /// What people read of it, for as long as somebody has it.
    views: Mutex<Vec<Weak<ViewPartition>>>,
    /// Why a source's readers get nothing at the moment, by worker.
    pub trouble: Mutex<BTreeMap<WorkerId, String>>,
    /// For the rate: when `rows` was last looked at, and what it was.
    rate: Mutex<Option<(Instant, u64, f64)>>,
}

impl Figures {
    /// Of no job yet, on so many workers.
    pub fn new(workers: usize) -> Figures {
        Figures {
            workers,
            jobs: Mutex::default(),
        }
    }

    /// The figures of a job, made at first use.
    pub fn of(&self, relation: RelationId) -> Arc<JobFigures> {
        let mut jobs = self.jobs.lock();
        let figures = jobs.entry(relation).or_insert_with(|| {
            Arc::new(JobFigures {
                memory: (0..self.workers).map(|_| AtomicU64::new(0)).collect(),
                ..JobFigures::default()
            })
        });
        figures.clone()
    }

    /// Those of every job.
    pub fn all(&self) -> Vec<(RelationId, Arc<JobFigures>)> {
        let jobs = self.jobs.lock();
        jobs.iter().map(|(id, f)| (*id, f.clone())).collect()
    }

    /// The job is gone.
    pub fn forget(&self, relation: RelationId) {
        self.jobs.lock().remove(&relation);
    }
}

impl JobFigures {
    /// Counts the rows of a partition to the job's from now on.
    pub fn count(&self, view: &Arc<ViewPartition>) {
        let mut views = self.views.lock();
        views.retain(|view| view.strong_count() > 0);
        views.push(Arc::downgrade(view));
    }

    /// Bytes of state.
    pub fn memory_bytes(&self) -> u64 {
        let views: Vec<_> = self.views.lock().iter().filter_map(Weak::upgrade).collect();
        let views = views.iter().map(|view| view.memory_bytes() as u64);
        let others = self.memory.iter().map(|m| m.load(Ordering::Relaxed));
        views.chain(others).sum()
    }

    /// The job is called as its relation is.
    pub fn set_name(&self, relation: &Relation) {
        let name = format!("{}.{}", relation.schema_name, relation.name);
        *self.name.lock() = (name, relation.kind.name());
    }

    /// Rows per second since the last look (looks within a second share one figure).
    pub fn rate(&self, rows: u64) -> f64 {
        let now = machine::now();
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
