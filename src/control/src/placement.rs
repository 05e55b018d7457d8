//! Who does what: which worker owns a vnode, reads a split, hands a table's written rows to its
//! operators. Nobody computes an owner; everybody asks this.
//!
//! A placement is a value with a version. Today there is one for the life of a node, which spreads
//! everything evenly over its workers.

use std::ops::Range;
use tidemark_common::{RelationId, SplitId, VNODES, WorkerId, vnode_owner, vnodes_of};

/// The owners of all parts of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    version: u64,
    workers: usize,
    owners: [u8; VNODES],
}

impl Placement {
    /// Evenly over so many workers, of which there are at most [`VNODES`].
    pub fn even(workers: usize) -> Placement {
        assert!((1..=VNODES).contains(&workers), "{workers} workers");
        Placement {
            version: 1,
            workers,
            owners: std::array::from_fn(|vnode| vnode_owner(vnode, workers) as u8),
        }
    }

    /// Counts the placements of a cluster.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The worker that owns a vnode.
    pub fn owner(&self, vnode: usize) -> WorkerId {
        usize::from(self.owners[vnode])
    }

    /// The vnodes of a worker.
    pub fn vnodes(&self, worker: WorkerId) -> Range<usize> {
        vnodes_of(worker, self.workers)
    }

    /// The worker that reads a split.
    pub fn reader(&self, split: SplitId) -> WorkerId {
        split as usize % self.workers
    }

    /// The worker that hands the rows that are written to a relation to its operators.
    pub fn writer(&self, relation: RelationId) -> WorkerId {
        relation.0 as usize % self.workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_one_owner_who_exists() {
        for workers in [1, 2, 3, 7, VNODES] {
            let placement = Placement::even(workers);
            for worker in 0..workers {
                let mut vnodes = placement.vnodes(worker);
                assert!(vnodes.all(|vnode| placement.owner(vnode) == worker));
            }
            let owned: usize = (0..workers).map(|w| placement.vnodes(w).len()).sum();
            assert_eq!(owned, VNODES);
            assert!((0..40).all(|split| placement.reader(split) < workers));
            assert!((0..40).all(|id| placement.writer(RelationId(id)) < workers));
        }
    }
}
