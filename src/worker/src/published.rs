//! What sessions see of the jobs of a node: the catalog, where its sources start, and the rows of
//! relations that keep some. All of it changes at once, between two epochs.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, RelationId, Result, WorkerId};
use tidemark_control::Placement;
use tidemark_control::protocol::Positions;
use tidemark_plan::{Catalog, Expr, Relation};
use tidemark_state::ViewPartition;
use tidemark_state::checkpoint::FileMeta;

/// As of when rows are read: an epoch that is pinned, and up to which one a reader may merge
/// pending changes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAs {
    /// The epoch.
    pub epoch: Epoch,
    /// See [`Readers::mergeable`](tidemark_control::Readers::mergeable).
    pub mergeable: Epoch,
}

/// The rows that one worker has of a relation.
#[derive(Clone)]
pub enum Share {
    /// A worker of this node.
    Here(Arc<ViewPartition>),
    /// A worker of another node.
    There(Arc<dyn FarRows>),
}

/// Rows that a worker of another node has. What they cost is a way there and back; an error of kind
/// `Unavailable` says that it is not reached.
#[async_trait]
pub trait FarRows: Send + Sync {
    /// These columns of all of them, piece by piece; with a `filter`, which is over these columns,
    /// of those for which it is true or fails.
    async fn scan(
        &self,
        at: ReadAs,
        columns: &[usize],
        filter: Option<&Expr>,
    ) -> Result<Box<dyn Pieces>>;
    /// These columns, which the schema names, of those with the values in `by` (one array for each
    /// of its columns); without `by` of those with these keys.
    async fn look_up(
        &self,
        at: ReadAs,
        by: Option<&[usize]>,
        values: &[ArrayRef],
        columns: (&[usize], &SchemaRef),
    ) -> Result<RecordBatch>;
    /// What changed in all their columns after an epoch that is pinned.
    async fn changes(&self, since: Epoch, at: ReadAs) -> Result<Vec<ChangeBatch>>;
    /// Stores them as what the relation answers at that epoch, in files that are named after the
    /// epoch `named`.
    async fn store(&self, relation: &Relation, at: ReadAs, named: Epoch) -> Result<Vec<FileMeta>>;
}

/// Pieces of rows that come one after the other.
#[async_trait]
pub trait Pieces: Send {
    /// The next one; none after the last.
    async fn next(&mut self) -> Result<Option<RecordBatch>>;
}

impl Share {
    /// The rows, if they are on this node.
    pub fn here(&self) -> Option<&Arc<ViewPartition>> {
        match self {
            Share::Here(view) => Some(view),
            Share::There(_) => None,
        }
    }
}

/// One share per worker, as far as they are built.
pub type Shares = Vec<Option<Share>>;

/// Where workers show the rows that people read.
pub trait Shows: Send + Sync {
    /// What a worker has of a relation.
    fn show(&self, relation: RelationId, worker: WorkerId, view: Arc<ViewPartition>);
    /// The rows of a relation are nobody's answer any more.
    fn withdraw(&self, relation: RelationId);
    /// The job ended. What people read of one that only stopped stays.
    fn forget(&self, relation: RelationId);
    /// Whether the relation is there and its job does not run.
    fn is_stopped(&self, relation: RelationId) -> bool;
}

/// See the module.
pub struct Published {
    placement: Arc<Placement>,
    catalog: RwLock<Arc<Catalog>>,
    /// Where that catalog is in memory: whoever has one can tell whether it is that one, and every
    /// statement asks.
    newest: AtomicUsize,
    starts: RwLock<Positions>,
    views: RwLock<HashMap<RelationId, Shares>>,
    /// Views of jobs that are being resumed: they take the place of the last complete answer when
    /// the job does not count as stopped any more.
    arriving: Mutex<HashMap<RelationId, Shares>>,
}

impl Published {
    /// Nothing yet.
    pub fn new(placement: Arc<Placement>) -> Published {
        let catalog = Arc::<Catalog>::default();
        Published {
            placement,
            newest: address(&catalog).into(),
            catalog: RwLock::new(catalog),
            starts: RwLock::default(),
            views: RwLock::default(),
            arriving: Mutex::default(),
        }
    }

    /// Running and stopped jobs and plain views.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Whether a catalog, which its owner keeps from being freed, is the newest.
    pub fn is_newest(&self, catalog: *const Catalog) -> bool {
        self.newest.load(Ordering::SeqCst) == catalog as usize
    }

    /// Where each source starts, as logged.
    pub fn starts(&self) -> Positions {
        self.starts.read().clone()
    }

    /// The catalog, and the shares of a relation as they belong to it, by worker, of those that can
    /// have some; none while one of them has not built its own.
    pub fn shares(&self, relation: RelationId) -> (Arc<Catalog>, Option<Vec<Share>>) {
        // In this order: what was resumed changes its place with the catalog.
        let views = self.views.read();
        let catalog = self.catalog();
        let known = catalog.relations.get(&relation);
        let workers = known.map(|relation| self.placement.spread(relation).workers());
        let whole = views.get(&relation).and_then(|shares| {
            let shares = &shares[..workers.unwrap_or(shares.len())];
            shares.iter().cloned().collect()
        });
        (catalog, whole)
    }

    /// What a worker, wherever it is, has of a relation that people read.
    pub fn show_share(&self, relation: RelationId, worker: WorkerId, share: Share) {
        let resumes = self.catalog.read().stopped.contains_key(&relation);
        let mut arriving;
        let mut views;
        let place = if resumes {
            arriving = self.arriving.lock();
            &mut *arriving
        } else {
            views = self.views.write();
            &mut *views
        };
        let shares = place.entry(relation);
        shares.or_insert_with(|| vec![None; self.placement.workers()])[worker] = Some(share);
    }

    /// Sessions see this from now on, and the rows of what was resumed with it. Returns the catalog
    /// of before.
    pub fn set_catalog(&self, catalog: Arc<Catalog>, starts: Positions) -> Arc<Catalog> {
        *self.starts.write() = starts;
        let mut views = self.views.write();
        let mut arriving = self.arriving.lock();
        arriving.retain(|id, shares| {
            let stays = catalog.stopped.contains_key(id);
            if !stays && catalog.relations.contains_key(id) {
                views.insert(*id, std::mem::take(shares));
            }
            stays
        });
        views.retain(|id, _| {
            let before = self.catalog.read().relations.contains_key(id);
            !before || catalog.relations.contains_key(id)
        });
        let shown: Vec<_> = views.iter().map(|(id, v)| (*id, v.clone())).collect();
        let mut newest = self.catalog.write();
        self.newest.store(address(&catalog), Ordering::SeqCst);
        let before = std::mem::replace(&mut *newest, catalog.clone());
        drop(newest);
        drop((views, arriving));
        drop_indexes(&catalog, shown);
        before
    }
}

impl Shows for Published {
    fn show(&self, relation: RelationId, worker: WorkerId, view: Arc<ViewPartition>) {
        self.show_share(relation, worker, Share::Here(view));
    }

    fn withdraw(&self, relation: RelationId) {
        self.views.write().remove(&relation);
    }

    fn forget(&self, relation: RelationId) {
        self.arriving.lock().remove(&relation);
        if !self.is_stopped(relation) {
            self.withdraw(relation);
        }
    }

    fn is_stopped(&self, relation: RelationId) -> bool {
        self.catalog.read().stopped.contains_key(&relation)
    }
}

fn address(catalog: &Arc<Catalog>) -> usize {
    Arc::as_ptr(catalog) as usize
}

/// Partitions lose indexes that no entry of the catalog is for any more; those for the beginning of
/// a key stay.
fn drop_indexes(catalog: &Catalog, views: Vec<(RelationId, Shares)>) {
    for (id, shares) in views {
        let Some(relation) = catalog.relations.get(&id) else {
            continue;
        };
        for view in shares.iter().flatten().filter_map(Share::here) {
            let key = view.key().unwrap_or_default();
            view.retain_indexes(|columns| {
                key.starts_with(columns)
                    || catalog
                        .indexes(relation)
                        .any(|(_, of)| of.starts_with(columns))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_catalog_can_tell_whether_it_is_the_newest() {
        let published = Published::new(Arc::new(Placement::even(1)));
        let first = published.catalog();
        assert!(published.is_newest(Arc::as_ptr(&first)));
        let second = Arc::<Catalog>::default();
        published.set_catalog(second.clone(), Positions::default());
        assert!(published.is_newest(Arc::as_ptr(&second)));
        let kept = Arc::downgrade(&first);
        drop(first);
        assert!(!published.is_newest(kept.as_ptr()));
    }
}
