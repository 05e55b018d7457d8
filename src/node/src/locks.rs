//! Who holds and who awaits the write locks of tables, for those who ask whom they wait for.
//!
//! The locks themselves are the mutexes over the tables' heads, which are fair: they are granted in
//! the order in which they were asked for. Here is a note for each, in that order; it goes when its
//! owner's guard goes, or its wait.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{RelationId, machine};

/// Who wants to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writer {
    /// Number of the session, as clients know it.
    pub session: i32,
    /// How long it waits for a lock; `None`: as long as it takes.
    pub lock_timeout: Option<Duration>,
}

/// A lock that is held or awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLock {
    /// The table.
    pub table: RelationId,
    /// The session.
    pub session: i32,
    /// Held; otherwise awaited.
    pub granted: bool,
    /// Since when it is awaited or held, microseconds since 1970.
    pub since: i64,
}

/// The notes, in the order in which the locks were asked for.
#[derive(Debug, Default)]
pub struct TableLocks(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    next: u64,
    all: Vec<(u64, TableLock)>,
}

/// A note, until it is dropped.
#[derive(Debug)]
pub struct LockNote {
    locks: Arc<TableLocks>,
    number: u64,
}

impl TableLocks {
    /// Notes that `session` asks for the lock of `table`.
    pub fn ask(self: &Arc<TableLocks>, table: RelationId, session: i32) -> LockNote {
        let mut notes = self.0.lock();
        let number = notes.next;
        notes.next += 1;
        let lock = TableLock {
            table,
            session,
            granted: false,
            since: machine::micros(),
        };
        notes.all.push((number, lock));
        LockNote {
            locks: self.clone(),
            number,
        }
    }

    /// All that are held or awaited.
    pub fn list(&self) -> Vec<TableLock> {
        self.0.lock().all.iter().map(|(_, l)| l.clone()).collect()
    }

    /// The locks that a session waits for, each with the sessions that come before it: the one that
    /// holds it, and those that asked earlier.
    pub fn blockers(&self, session: i32) -> Vec<(RelationId, Vec<i32>)> {
        let notes = self.0.lock();
        let waits = notes
            .all
            .iter()
            .filter(|(_, l)| l.session == session && !l.granted);
        let before = |(number, lock): &(u64, TableLock)| {
            let others = notes
                .all
                .iter()
                .filter(|(n, l)| l.table == lock.table && n < number)
                .map(|(_, l)| l.session);
            (lock.table, others.collect())
        };
        waits.map(before).collect()
    }
}

impl LockNote {
    /// The lock is held now.
    pub fn granted(&self) {
        let mut notes = self.locks.0.lock();
        if let Some((_, lock)) = notes.all.iter_mut().find(|(n, _)| *n == self.number) {
            lock.granted = true;
            lock.since = machine::micros();
        }
    }
}

impl Drop for LockNote {
    fn drop(&mut self) {
        self.locks.0.lock().all.retain(|(n, _)| *n != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_knows_for_whom() {
        let locks = Arc::new(TableLocks::default());
        let (table, other) = (RelationId(1), RelationId(2));
        let first = locks.ask(table, 10);
        first.granted();
        let second = locks.ask(table, 11);
        let third = locks.ask(table, 12);
        locks.ask(other, 13).granted();
        assert_eq!(locks.blockers(10), []);
        assert_eq!(locks.blockers(11), [(table, vec![10])]);
        assert_eq!(locks.blockers(12), [(table, vec![10, 11])]);
        let granted: Vec<bool> = locks.list().iter().map(|l| l.granted).collect();
        assert_eq!(granted, [true, false, false]);
        drop(first);
        second.granted();
        assert_eq!(locks.blockers(12), [(table, vec![11])]);
        drop((second, third));
        assert_eq!(locks.list(), []);
    }
}
