//! Back-pressure: credits per edge, in bytes.
//!
//! An edge leads from an actor to one leaf of another one, on the same worker or on another, of
//! this node or another one. What is on its way there is counted until it has been processed, also
//! while it waits behind an alignment. An actor takes its next slice only while all its edges have
//! room ([`Edge::has_room`]), so an edge holds at most its limit and a slice; and a source is read
//! only while nothing that it feeds has anything left to do. So one congested job stops its own
//! sources, and nobody else's.
//!
//! **Nothing waits in a circle.** Barriers need no room, and go to all edges of an actor at once.
//! An edge is full without moving only while its receiver has the barrier of an epoch e from it and
//! waits for that of others; then its sender has passed e, and has sent the barrier of e on all its
//! edges. So of the actors that have not passed the oldest epoch under way none is held by such an
//! edge; plans have no cycles, what is at their end takes everything, and so that epoch ends.
//!
//! Two kinds of edges always have room: those from a table, whose rows come with barriers and
//! cannot wait for a reader (the coordinator bounds what is written and not complete), and those to
//! a leaf that is catching up, behind which nobody else shall wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tidemark_changelog::connector::Waker;
use tidemark_common::WorkerId;

/// Bytes on their way to each worker of a node.
pub struct Load(Vec<AtomicUsize>);

impl Load {
    /// None yet, to so many workers.
    pub fn new(workers: usize) -> Load {
        Load((0..workers).map(|_| AtomicUsize::new(0)).collect())
    }

    /// By worker.
    pub fn bytes(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|bytes| bytes.load(Ordering::Relaxed))
    }
}

/// See the module.
pub struct Edge {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// It has room, however full it is.
    is_open: AtomicBool,
    to: WorkerId,
    load: Arc<Load>,
    /// Wakes the sender's worker when there is room again.
    waker: Waker,
}

/// Bytes on an edge, until they are processed.
pub struct Credit(Owner);

enum Owner {
    /// On this node.
    Here { edge: Arc<Edge>, bytes: usize },
    /// On another one, which is told.
    There(Box<dyn FnOnce() + Send>),
    /// It is told already.
    Nobody,
}

impl Credit {
    /// Of an edge that begins on another node; `processed` tells it.
    pub fn of_other_node(processed: impl FnOnce() + Send + 'static) -> Credit {
        Credit(Owner::There(Box::new(processed)))
    }
}

impl Edge {
    /// To an actor on this worker; it is full with `bytes_max`.
    pub fn new(to: WorkerId, bytes_max: usize, load: Arc<Load>, waker: Waker) -> Edge {
        Edge {
            bytes: AtomicUsize::new(0),
            bytes_max,
            is_open: AtomicBool::new(false),
            to,
            load,
            waker,
        }
    }

    /// Whether more may be sent on it.
    pub fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.bytes_max || self.is_open.load(Ordering::Relaxed)
    }

    /// It always has room from now on, or no longer.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// So many bytes are on their way.
    pub fn send(self: &Arc<Edge>, bytes: usize) -> Credit {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.load.0[self.to].fetch_add(bytes, Ordering::Relaxed);
        let edge = self.clone();
        Credit(Owner::Here { edge, bytes })
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.0, Owner::Nobody) {
            Owner::Here { edge, bytes } => {
                let before = edge.bytes.fetch_sub(bytes, Ordering::Relaxed);
                edge.load.0[edge.to].fetch_sub(bytes, Ordering::Relaxed);
                if before >= edge.bytes_max && before - bytes < edge.bytes_max {
                    (edge.waker)();
                }
            }
            Owner::There(processed) => processed(),
            Owner::Nobody => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_full_until_what_it_holds_is_processed_and_wakes_its_sender_then() {
        let woken = Arc::new(AtomicUsize::new(0));
        let (load, count) = (Arc::new(Load::new(2)), woken.clone());
        let waker: Waker = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let edge = Arc::new(Edge::new(1, 100, load.clone(), waker));
        let first = edge.send(99);
        assert!(edge.has_room());
        let second = edge.send(50);
        assert!(!edge.has_room());
        assert_eq!(load.bytes().collect::<Vec<_>>(), [0, 149]);
        edge.set_open(true);
        assert!(edge.has_room());
        edge.set_open(false);
        drop(second);
        assert!(edge.has_room());
        drop(first);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(load.bytes().sum::<usize>(), 0);
    }
}
