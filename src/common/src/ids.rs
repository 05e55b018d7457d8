//! Names for things: small copyable identifiers used in catalogs, logs, file names and messages.
//!
//! A vnode is the unit of partitioning: `hash(key) mod VNODES`. Workers own contiguous ranges of
//! vnodes, so that a file sorted by vnode can be read by any number of workers without rehashing.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Number of vnodes of a relation.
pub const VNODES: usize = 256;

/// The interval between two barriers, a monotonic number. Epoch 0 is "before anything".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that follows this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A source, table, view, materialized view, sink or index. A relation that computes something is
/// also a job, and its job has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelationId(pub u32);

impl fmt::Display for RelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What sources promise: no row that is read later has a lower event time, in microseconds since
/// 1970.
pub type Watermarks = Arc<BTreeMap<RelationId, i64>>;

/// One state table: the relation whose job keeps it, and its number within that job's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId {
    /// The job.
    pub relation: RelationId,
    /// Position within the job's plan, assigned by the planner and stored with it.
    pub table: u32,
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.relation, self.table)
    }
}

/// A split of a source: a Kafka partition, or a stripe of a generator.
pub type SplitId = u32;

/// A worker thread of this node, counted from 0.
pub type WorkerId = usize;

/// The vnodes that worker `worker` of `workers` owns: a contiguous range, the ranges together cover
/// `0..VNODES`.
pub fn vnodes_of(worker: WorkerId, workers: usize) -> Range<usize> {
    assert!(worker < workers, "worker {worker} of {workers}");
    worker * VNODES / workers..(worker + 1) * VNODES / workers
}

/// The worker that owns `vnode`; the inverse of [`vnodes_of`].
#[inline]
pub fn vnode_owner(vnode: usize, workers: usize) -> WorkerId {
    ((vnode + 1) * workers - 1) / VNODES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_vnodes_and_owner_is_their_inverse() {
        for workers in 1..=VNODES {
            let mut next = 0;
            for worker in 0..workers {
                let range = vnodes_of(worker, workers);
                assert_eq!(range.start, next);
                next = range.end;
                assert!(range.into_iter().all(|v| vnode_owner(v, workers) == worker));
            }
            assert_eq!(next, VNODES);
        }
    }
}
