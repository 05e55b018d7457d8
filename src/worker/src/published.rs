//! What sessions see of the jobs of a node: the catalog, where its sources start, and the rows of
//! relations that keep some. All of it changes at once, between two epochs.

use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_common::{RelationId, WorkerId};
use tidemark_control::protocol::Positions;
use tidemark_plan::Catalog;
use tidemark_state::ViewPartition;

/// One partition per worker, as far as they are built.
pub type Partitions = Vec<Option<Arc<ViewPartition>>>;

/// See the module.
pub struct Published {
    workers: usize,
    catalog: RwLock<Arc<Catalog>>,
    /// Where that catalog is in memory: whoever has one can tell whether it is that one, and every
    /// statement asks.
    newest: AtomicUsize,
    starts: RwLock<Positions>,
    views: RwLock<HashMap<RelationId, Partitions>>,
    /// Views of jobs that are being resumed: they take the place of the last complete answer when
    /// the job does not count as stopped any more.
    arriving: Mutex<HashMap<RelationId, Partitions>>,
}

impl Published {
    /// Nothing yet, of so many workers.
    pub fn new(workers: usize) -> Published {
        let catalog = Arc::<Catalog>::default();
        Published {
            workers,
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

    /// The catalog, and the partitions of a relation as they belong to it; none while a worker has
    /// not built its own.
    pub fn partitions(
        &self,
        relation: RelationId,
    ) -> (Arc<Catalog>, Option<Vec<Arc<ViewPartition>>>) {
        // In this order: what was resumed changes its place with the catalog.
        let views = self.views.read();
        let catalog = self.catalog();
        let whole = views
            .get(&relation)
            .and_then(|partitions| partitions.iter().cloned().collect());
        (catalog, whole)
    }

    /// What a worker has of a relation that people read.
    pub fn show(&self, relation: RelationId, worker: WorkerId, view: Arc<ViewPartition>) {
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
        let partitions = place.entry(relation);
        partitions.or_insert_with(|| vec![None; self.workers])[worker] = Some(view);
    }

    /// The rows of a relation are nobody's answer any more.
    pub fn withdraw(&self, relation: RelationId) {
        self.views.write().remove(&relation);
    }

    /// The job ended. What people read of one that only stopped stays.
    pub fn forget(&self, relation: RelationId) {
        self.arriving.lock().remove(&relation);
        if !self.catalog.read().stopped.contains_key(&relation) {
            self.withdraw(relation);
        }
    }

    /// Sessions see this from now on, and the rows of what was resumed with it. Returns the catalog
    /// of before.
    pub fn set_catalog(&self, catalog: Arc<Catalog>, starts: Positions) -> Arc<Catalog> {
        *self.starts.write() = starts;
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

fn address(catalog: &Arc<Catalog>) -> usize {
    Arc::as_ptr(catalog) as usize
}

/// Partitions lose indexes that no entry of the catalog is for any more; those for the beginning of
/// a key stay.
fn drop_indexes(catalog: &Catalog, views: Vec<(RelationId, Partitions)>) {
    for (id, partitions) in views {
        let Some(relation) = catalog.relations.get(&id) else {
            continue;
        };
        for view in partitions.iter().flatten() {
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
        let published = Published::new(1);
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
