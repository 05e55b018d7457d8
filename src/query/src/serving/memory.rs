//! The memory of queries: all have `query_memory` together, and each of them what its session says
//! in `query_memory_max`, by default half of that, so that one query leaves room for others.
//!
//! Operators that keep rows reserve room before they do. Within a query, those that can go on on
//! disk (sorts, groups, sort-merge joins) share evenly what the others leave; so the query that
//! asks for too much is the one that goes to disk, or ends with `53200`, whatever others do. What
//! all have together is given to who comes first. Room goes back when a query ends.
//!
//! Not all that a query holds is reserved. When the node's memory runs short none the less, the
//! query that holds most ends with `53200` ([`tidemark_node::Others`]), before any job stops.

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tidemark_common::memory::about;
use tidemark_common::{Error, SqlState};
use tidemark_node::Others;
use tokio::task::AbortHandle;

/// What all queries have together.
#[derive(Debug)]
pub struct QueryMemory {
    limit: usize,
    used: AtomicUsize,
    /// Queries that run.
    running: AtomicUsize,
    /// Those, and some that have ended.
    queries: Mutex<Vec<Weak<OneQuery>>>,
}

/// A query that holds less is not ended for others.
const ENDED_BYTES_MIN: usize = 2 << 20;

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
            queries: Mutex::default(),
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

    /// What one query has by default, in bytes.
    pub fn share(&self) -> u64 {
        (self.limit / 2) as u64
    }

    /// The memory of one query: `limit` bytes, or by default half of all.
    pub fn of_one(self: &Arc<QueryMemory>, limit: Option<u64>) -> Arc<OneQuery> {
        let limit = usize::try_from(limit.unwrap_or(self.share())).unwrap_or(usize::MAX);
        let limit = limit.min(self.limit);
        self.running.fetch_add(1, Ordering::Relaxed);
        let query = Arc::new(OneQuery {
            all: self.clone(),
            own: FairSpillPool::new(limit),
            limit,
            on_disk_later: AtomicUsize::new(0),
            stop: Arc::default(),
            is_refused: AtomicBool::new(false),
            work: OnceLock::new(),
        });
        let mut queries = self.queries.lock();
        // So that each is looked at as often as one begins, at most.
        if queries.len() == queries.capacity() {
            queries.retain(|query| query.strong_count() > 0);
        }
        queries.push(Arc::downgrade(&query));
        query
    }

    fn take(&self, bytes: usize) -> Result<(), usize> {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ())
    }
}

impl Others for QueryMemory {
    fn end_largest(&self) -> Option<u64> {
        let queries: Vec<Arc<OneQuery>> = self
            .queries
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let held = |query: &Arc<OneQuery>| query.own.reserved();
        let largest = queries
            .iter()
            .filter(|query| !query.is_refused() && held(query) >= ENDED_BYTES_MIN)
            .max_by_key(|query| held(query))?;
        let bytes = held(largest) as u64;
        largest.refuse();
        Some(bytes)
    }
}

/// The memory of one query, and how it is told to end.
#[derive(Debug)]
pub struct OneQuery {
    all: Arc<QueryMemory>,
    own: FairSpillPool,
    limit: usize,
    /// What those have reserved that can go on on disk.
    on_disk_later: AtomicUsize,
    /// It ends when this is set.
    stop: Arc<AtomicBool>,
    /// It ends for the memory of others.
    is_refused: AtomicBool,
    work: OnceLock<AbortHandle>,
}

impl OneQuery {
    /// What tells the query to end.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// The task that computes it.
    pub fn begins(&self, work: AbortHandle) {
        // It begins once.
        let _ = self.work.set(work);
    }

    /// Ends it, for the memory of others.
    fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        if let Some(work) = self.work.get() {
            work.abort();
        }
    }

    fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// Why it has ended, if its end was not its own.
    pub fn refusal(&self) -> Option<Error> {
        self.is_refused().then(|| {
            Error::unavailable(SqlState::OUT_OF_MEMORY, "out of memory")
                .with_detail("The process runs short of memory, and this query held most.")
                .with_hint("Ask for fewer rows or columns at once, or try again later.")
        })
    }

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
        let one: Arc<dyn MemoryPool> = all.of_one(None);
        let other: Arc<dyn MemoryPool> = all.of_one(Some(8 << 20));
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
        let one: Arc<dyn MemoryPool> = QueryMemory::new(40 << 20).of_one(None);
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

    #[test]
    fn who_holds_most_ends_when_the_node_runs_short() {
        let all = QueryMemory::new(100 << 20);
        assert_eq!(all.end_largest(), None);
        let queries: Vec<Arc<OneQuery>> = (0..3).map(|_| all.of_one(None)).collect();
        let hold = |i: usize, bytes: usize| {
            let query: Arc<dyn MemoryPool> = queries[i].clone();
            let held = MemoryConsumer::new("values").register(&query);
            held.try_grow(bytes).unwrap();
            held
        };
        let held = [hold(0, 5 << 20), hold(1, 9 << 20), hold(2, 1 << 20)];
        assert_eq!(all.end_largest(), Some(9 << 20));
        assert!(queries[1].stop().load(Ordering::Relaxed));
        let refused = |i: usize| queries[i].refusal().map(|e| e.state());
        assert_eq!(refused(1), Some(SqlState::OUT_OF_MEMORY));
        assert_eq!((refused(0), refused(2)), (None, None));
        assert_eq!(all.end_largest(), Some(5 << 20));
        assert_eq!(all.end_largest(), None, "the last holds too little");
        drop(held);
    }
}
