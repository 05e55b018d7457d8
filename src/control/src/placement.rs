//! Who does what: which worker owns a vnode, reads a split, hands a table's written rows to its
//! operators. Nobody computes an owner; everybody asks this.
//!
//! A placement is a value with a version. There is one for the life of an incarnation, which
//! spreads everything evenly over the workers of all nodes, except tables: who writes to them looks
//! their rows up, so they are where that is done, on the first workers, which are those of the node
//! that leads.

use std::ops::Range;
use tidemark_common::{RelationId, SplitId, VNODES, WorkerId, vnode_owner, vnodes_of};
use tidemark_plan::{Fragment, Op, Relation, RelationKind};

/// The owners of all parts of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    version: u64,
    /// By node, the first one leads; none has 0 workers.
    nodes: Vec<usize>,
    all: Spread,
    first: Spread,
}

/// The owners of the vnodes of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    workers: usize,
    owners: [u8; VNODES],
}

impl Spread {
    fn even(workers: usize) -> Spread {
        assert!((1..=VNODES).contains(&workers), "{workers} workers");
        Spread {
            workers,
            owners: std::array::from_fn(|vnode| vnode_owner(vnode, workers) as u8),
        }
    }

    /// How many workers have vnodes: the first ones.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The worker that owns a vnode.
    pub fn owner(&self, vnode: usize) -> WorkerId {
        usize::from(self.owners[vnode])
    }

    /// The vnodes of a worker.
    pub fn vnodes(&self, worker: WorkerId) -> Range<usize> {
        if worker >= self.workers {
            return VNODES..VNODES;
        }
        vnodes_of(worker, self.workers)
    }
}

impl Placement {
    /// Evenly over so many workers of one node, of which there are at most [`VNODES`].
    pub fn even(workers: usize) -> Placement {
        Placement::over(1, &[workers])
    }

    /// Evenly over the workers of some nodes, the first of which leads; together at most
    /// [`VNODES`].
    pub fn over(version: u64, nodes: &[usize]) -> Placement {
        Placement {
            version,
            nodes: nodes.to_vec(),
            all: Spread::even(nodes.iter().sum()),
            first: Spread::even(nodes[0]),
        }
    }

    /// Counts the placements of a cluster.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.all.workers
    }

    /// The workers of a node, in the order of the nodes.
    pub fn workers_of(&self, node: usize) -> Range<WorkerId> {
        let first: usize = self.nodes[..node].iter().sum();
        first..first + self.nodes[node]
    }

    /// The node of a worker.
    pub fn node_of(&self, worker: WorkerId) -> usize {
        let mut nodes = 0..self.nodes.len();
        let found = nodes.find(|node| self.workers_of(*node).contains(&worker));
        found.expect("every worker is on a node")
    }

    /// The owners of the vnodes of all relations but those that statements write to.
    pub fn all(&self) -> &Spread {
        &self.all
    }

    /// The owners of the vnodes of a relation.
    pub fn spread(&self, relation: &Relation) -> &Spread {
        match is_written(relation) {
            true => &self.first,
            false => &self.all,
        }
    }

    /// The worker that reads a split.
    pub fn reader(&self, split: SplitId) -> WorkerId {
        split as usize % self.workers()
    }

    /// The worker that hands the rows that are written to a relation to its operators; a worker of
    /// the node that leads.
    pub fn writer(&self, relation: RelationId) -> WorkerId {
        relation.0 as usize % self.first.workers
    }
}

/// Whether statements write to it. A table that only its connector writes is like a view.
pub fn is_written(relation: &Relation) -> bool {
    let fragments = relation.job.iter().flat_map(|job| &job.fragments);
    let mut nodes = fragments.flat_map(Fragment::nodes);
    relation.kind == RelationKind::Table && nodes.any(|node| matches!(node.op, Op::TableRead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::testing;

    #[test]
    fn every_part_has_one_owner_who_exists() {
        let all = [
            vec![1],
            vec![2],
            vec![3],
            vec![7],
            vec![VNODES],
            vec![2, 1, 4],
        ];
        for nodes in all {
            let placement = Placement::over(1, &nodes);
            let workers = placement.workers();
            assert_eq!(workers, nodes.iter().sum::<usize>());
            let table = testing::table(1, "t");
            let fed = testing::connector_table(2, "fed");
            for relation in [&table, &fed, &testing::view(3, "v", &table)] {
                let spread = placement.spread(relation);
                for worker in 0..workers {
                    let mut vnodes = spread.vnodes(worker);
                    assert!(vnodes.all(|vnode| spread.owner(vnode) == worker));
                }
                let owned: usize = (0..workers).map(|w| spread.vnodes(w).len()).sum();
                assert_eq!(owned, VNODES);
            }
            assert_eq!(placement.spread(&table).workers(), nodes[0]);
            assert_eq!(placement.spread(&fed).workers(), workers);
            assert!((0..40).all(|split| placement.reader(split) < workers));
            assert!((0..40).all(|id| placement.writer(RelationId(id)) < nodes[0]));
            for (node, count) in nodes.iter().enumerate() {
                let mut own = placement.workers_of(node);
                assert_eq!(own.len(), *count);
                assert!(own.all(|worker| placement.node_of(worker) == node));
            }
        }
    }
}
