//! The memory of queries: all have `query_memory` together, and each of them what its session says
//! in `query_memory_max`, by default half of that, so that one query leaves room for others.
//!
//! Operators that keep rows reserve room before they do. Within a query, those that can go on on
//! disk (sorts, groups, sort-merge joins) share evenly what the others leave; so the query that
//! asks for too much is the one that goes to disk, or ends with `53200`, whatever others do. What
//! all have together is given to who comes first. Room goes back when a query ends.

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_common::memory::about;

/// What all queries have together.
#[derive(Debug)]
pub struct QueryMemory {
    limit: usize,
    used: AtomicUsize,
    /// Queries that run.
    running: AtomicUsize,
}

/// Steps that a query may hold at once, about: computed, on its way to the client, and what the
/// allocator adds.
const STEPS: usize = 32;

/// A smaller step costs more than the memory is worth.
const STEP_BYTES_MIN: usize = 16 << 10;

impl QueryMemory {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Arc<QueryMemory> {
        Arc::new(QueryMemory {
            limit: usize::try_from(bytes).unwrap_or(usize::MAX),
            used: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        })
    }

    /// What they have reserved, in bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed) as u64
    }

    /// Bytes that another query should compute in one step, so that all who run have room: a
    /// thousand clients that do not read hold a thousand times what is on its way to one.
    pub fn step(&self) -> usize {
        let running = self.running.load(Ordering::Relaxed) + 1;
        (self.limit / STEPS / running).max(STEP_BYTES_MIN)
    }

    /// The memory of one query: `limit` bytes, or by default half of all.
    pub fn of_one(self: &Arc<QueryMemory>, limit: Option<u64>) -> Arc<dyn MemoryPool> {
        let limit = limit.map(|l| usize::try_from(l).unwrap_or(usize::MAX));
        let limit = limit.unwrap_or(self.limit / 2).min(self.limit);
        self.running.fetch_add(1, Ordering::Relaxed);
        Arc::new(OneQuery {
            all: self.clone(),
            own: FairSpillPool::new(limit),
            limit,
            on_disk_later: AtomicUsize::new(0),
        })
    }

    fn take(&self, bytes: usize) -> Result<(), usize> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ())
    }
}

/// The memory of one query.
#[derive(Debug)]
struct OneQuery {
    all: Arc<QueryMemory>,
    own: FairSpillPool,
    limit: usize,
    /// What those have reserved that can go on on disk.
    on_disk_later: AtomicUsize,
}

impl OneQuery {
    /// Takes room of what those have that can go on on disk: a quarter is left for merging what
    /// they wrote, which cannot.
    fn take_for_disk(&self, bytes: usize) -> bool {
        let most = self.limit / 4 * 3;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= most);
        let taken = self
            .on_disk_later
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok()
    }

    /// Gives back what did not come to be.
    fn give_back(&self, reservation: &MemoryReservation, bytes: usize) {
        if reservation.consumer().can_spill() {
            self.on_disk_later.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for OneQuery {
    fn drop(&mut self) {
        self.all.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for OneQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query memory of {}", about(self.limit as u64))
    }
}

/// DataFusion goes to disk at this error; else the client is told the text as a detail.
fn refused(wanted: usize, why: String) -> DataFusionError {
    let wanted = about(wanted as u64);
    DataFusionError::ResourcesExhausted(format!("The query asked for another {wanted}; {why}."))
}

impl MemoryPool for OneQuery {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, bytes: usize) {
        self.own.grow(reservation, bytes);
        if reservation.consumer().can_spill() {
            self.on_disk_later.fetch_add(bytes, Ordering::Relaxed);
        }
        self.all.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, bytes: usize) {
        self.own.shrink(reservation, bytes);
        self.give_back(reservation, bytes);
        self.all.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, bytes: usize) -> Result<()> {
        let held = || about(self.own.reserved() as u64);
        let of_its = || {
            let limit = about(self.limit as u64);
            refused(bytes, format!("it holds {} of its {limit}", held()))
        };
        if reservation.consumer().can_spill() && !self.take_for_disk(bytes) {
            return Err(of_its());
        }
        self.own.try_grow(reservation, bytes).map_err(|_| {
            self.give_back(reservation, bytes);
            of_its()
        })?;
        self.all.take(bytes).map_err(|used| {
            self.own.shrink(reservation, bytes);
            self.give_back(reservation, bytes);
            let (used, limit) = (about(used as u64), about(self.all.limit as u64));
            let text = format!(
                "it holds {}, and all queries together {used} of their {limit}",
                held()
            );
            refused(bytes, text)
        })
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::from_datafusion;

    #[test]
    fn a_query_has_its_own_limit_and_all_have_one_together() {
        let all = QueryMemory::new(4 << 20);
        let (one, other) = (all.of_one(None), all.of_one(Some(8 << 20)));
        let first = MemoryConsumer::new("first").register(&one);
        let second = MemoryConsumer::new("second").register(&other);
        first.try_grow(2 << 20).unwrap();
        let told = |e| {
            let e = from_datafusion(e);
            assert_eq!(e.state(), tidemark_common::SqlState::OUT_OF_MEMORY);
            assert_eq!(e.message(), "out of memory");
            e.detail().unwrap_or_default().to_string()
        };
        assert_eq!(
            told(first.try_grow(1).unwrap_err()),
            "The query asked for another 1 B; it holds 2.0 MB of its 2.0 MB."
        );
        second.try_grow(1 << 20).unwrap();
        assert_eq!(
            told(second.try_grow(3 << 19).unwrap_err()),
            "The query asked for another 1.5 MB; it holds 1.0 MB, and all queries together 3.0 MB \
             of their 4.0 MB."
        );
        assert_eq!((one.reserved(), other.reserved()), (2 << 20, 1 << 20));
        drop(first);
        second.try_grow(3 << 20).unwrap();
        drop(second);
        assert_eq!(all.step(), (4 << 20) / STEPS / 3);
        drop((one, other));
        assert_eq!(all.step(), (4 << 20) / STEPS);
        assert_eq!(all.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_can_go_to_disk_shares_what_the_others_leave() {
        let one = QueryMemory::new(40 << 20).of_one(None);
        let kept = MemoryConsumer::new("kept").register(&one);
        let sorts: Vec<_> = (0..2)
            .map(|_| {
                MemoryConsumer::new("sort")
                    .with_can_spill(true)
                    .register(&one)
            })
            .collect();
        kept.try_grow(4 << 20).unwrap();
        sorts[0].try_grow(8 << 20).unwrap();
        assert!(sorts[0].try_grow(1).is_err());
        // The last quarter is for what cannot.
        sorts[1].try_grow(7 << 20).unwrap();
        assert!(sorts[1].try_grow(1).is_err());
        kept.try_grow(1 << 20).unwrap();
    }
}
