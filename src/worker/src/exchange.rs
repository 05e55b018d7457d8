//! Moving changes between actors: by vnode to the worker that owns them, or on the same worker
//! without copying. Workers of other nodes are reached through whoever sends things there
//! ([`Peer`]).
//! What may be on its way is bounded where it is sent, see `edge`.

use crate::edge::{Credit, Edge};
use arrow::array::{ArrayRef, UInt32Array};
use std::collections::VecDeque;
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::mailbox::Sender;
use tidemark_common::{RelationId, TableId, WorkerId};
use tidemark_control::Placement;
use tidemark_operator::Barrier;
use tidemark_plan::Relation;
use tidemark_state::Appended;
use tokio::sync::{mpsc, oneshot};

/// What flows into a leaf.
pub enum Message {
    /// Rows, and what they take of their edge.
    Changes(ChangeBatch, Option<Credit>),
    /// The end of an epoch.
    Barrier(Barrier),
}

/// A message and where it goes.
pub struct Delivery {
    /// The job.
    pub job: RelationId,
    /// The fragment within its plan.
    pub fragment: usize,
    /// The leaf within the fragment.
    pub leaf: usize,
    /// The sender among the leaf's channels.
    pub channel: usize,
    /// What.
    pub message: Message,
}

/// What arrives at a worker from outside its thread.
pub enum Inbound {
    /// From a peer.
    Delivery(Delivery),
    /// From a peer: it has nothing more for this job, which was stopped.
    Fence(RelationId),
    /// From the writer of a checkpoint file.
    Read(AppendedRead),
    /// Something may have happened: look again.
    Wake,
}

/// A question for the columns of rows that a state table has sealed as appended. Without an answer
/// the reply is dropped: the table is gone.
pub struct AppendedRead {
    /// The table.
    pub table: TableId,
    /// What it sealed.
    pub appended: Arc<Appended>,
    /// Numbers within that.
    pub rows: Vec<u32>,
    /// For the answer.
    pub reply: oneshot::Sender<Vec<ArrayRef>>,
}

/// The way to a worker.
#[derive(Clone)]
pub enum Peer {
    /// Of this node.
    Here(Sender<Inbound>),
    /// Of another node: to whoever sends it there.
    There(mpsc::UnboundedSender<Outbound>),
}

/// Something for a worker of another node.
pub enum Outbound {
    /// A message.
    Delivery(WorkerId, Delivery),
    /// Nothing more for this job, which was stopped.
    Fence(WorkerId, RelationId),
}

/// One worker's way to all workers.
pub struct Router {
    worker: WorkerId,
    peers: Vec<Peer>,
    placement: Arc<Placement>,
    /// Messages to actors of this worker, in order.
    pub local: VecDeque<Delivery>,
}

/// Where the output of a fragment goes.
#[derive(Clone, Debug)]
pub enum Route {
    /// To a leaf of another fragment, by vnode of these columns; without columns to the owner of
    /// vnode 0.
    Hash {
        fragment: usize,
        leaf: usize,
        keys: Vec<usize>,
    },
    /// To a leaf of another fragment on all workers.
    Broadcast { fragment: usize, leaf: usize },
    /// To the taps of other jobs on this worker.
    Taps,
}

impl Router {
    /// A router of `worker`.
    pub fn new(worker: WorkerId, peers: Vec<Peer>, placement: Arc<Placement>) -> Router {
        Router {
            worker,
            peers,
            placement,
            local: VecDeque::new(),
        }
    }

    /// Tells all workers, this one too, that nothing follows for a job that was stopped.
    pub fn fence(&self, job: RelationId) {
        for (worker, peer) in self.peers.iter().enumerate() {
            // A worker that is gone means shutdown.
            match peer {
                Peer::Here(inbox) => drop(inbox.send(Inbound::Fence(job))),
                Peer::There(way) => drop(way.send(Outbound::Fence(worker, job))),
            }
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.peers.len()
    }

    /// Hands a message to a worker.
    pub fn deliver(&mut self, worker: WorkerId, delivery: Delivery) {
        if worker == self.worker {
            self.local.push_back(delivery);
            return;
        }
        // A peer that is gone means shutdown: the message does not matter any more.
        match &self.peers[worker] {
            Peer::Here(inbox) => drop(inbox.send(Inbound::Delivery(delivery))),
            Peer::There(way) => drop(way.send(Outbound::Delivery(worker, delivery))),
        }
    }

    /// Sends a batch of so many bytes along a route of a job (not `Taps`), by the edge to each
    /// worker.
    pub fn send(
        &mut self,
        relation: &Relation,
        route: &Route,
        edges: &[Arc<Edge>],
        batch: ChangeBatch,
        bytes: usize,
    ) {
        let job = relation.id;
        let rows = batch.num_rows().max(1);
        let (fragment, leaf, parts) = match route {
            Route::Hash {
                fragment,
                leaf,
                keys,
            } if keys.is_empty() || self.peers.len() == 1 => (*fragment, *leaf, vec![(0, batch)]),
            Route::Hash {
                fragment,
                leaf,
                keys,
            } => (*fragment, *leaf, self.partition(relation, keys, batch)),
            Route::Broadcast { fragment, leaf } => {
                let workers = 0..self.peers.len();
                let parts = workers.map(|worker| (worker, batch.clone())).collect();
                (*fragment, *leaf, parts)
            }
            Route::Taps => unreachable!("taps are served by the job"),
        };
        for (worker, part) in parts {
            let credit = edges[worker].send(bytes * part.num_rows() / rows);
            let message = Message::Changes(part, Some(credit));
            self.deliver(worker, self.delivery(job, fragment, leaf, message));
        }
    }

    /// Sends a barrier to all workers of a route (not `Taps`).
    pub fn send_barrier(&mut self, job: RelationId, route: &Route, barrier: &Barrier) {
        let (Route::Hash { fragment, leaf, .. } | Route::Broadcast { fragment, leaf }) = route
        else {
            return;
        };
        for worker in 0..self.peers.len() {
            self.deliver(
                worker,
                self.delivery(job, *fragment, *leaf, Message::Barrier(barrier.clone())),
            );
        }
    }

    fn delivery(
        &self,
        job: RelationId,
        fragment: usize,
        leaf: usize,
        message: Message,
    ) -> Delivery {
        Delivery {
            job,
            fragment,
            leaf,
            channel: self.worker,
            message,
        }
    }

    fn partition(
        &self,
        relation: &Relation,
        keys: &[usize],
        batch: ChangeBatch,
    ) -> Vec<(WorkerId, ChangeBatch)> {
        let spread = self.placement.spread(relation);
        let columns: Vec<_> = keys.iter().map(|k| batch.column(*k).clone()).collect();
        let hashes = hash_columns(&columns, batch.num_rows());
        let mut indices: Vec<Vec<u32>> =
            vec![Vec::with_capacity(batch.num_rows() / self.peers.len() + 16); self.peers.len()];
        for (i, hash) in hashes.iter().enumerate() {
            indices[spread.owner(vnode_of_hash(*hash))].push(i as u32);
        }
        if let Some(worker) = indices.iter().position(|i| i.len() == batch.num_rows()) {
            return vec![(worker, batch)];
        }
        indices
            .into_iter()
            .enumerate()
            .filter(|(_, i)| !i.is_empty())
            .map(|(worker, i)| (worker, batch.take(&UInt32Array::from(i))))
            .collect()
    }
}
