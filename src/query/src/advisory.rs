//! Advisory locks: locks on numbers that mean something to the clients alone. A session takes one
//! for itself or for its transaction, shared or exclusive, as often as it likes, and gives it back
//! as often; what it holds never keeps out itself. Whoever waits comes after those who asked before
//! for something that does not go together with it, unless it holds the lock in some mode already.
//!
//! A wait that closes a circle, with the waits for tables, ends at once as a deadlock.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::machine::micros as now_micros;
use tidemark_common::{Error, Result, SqlState};
use tokio::sync::{Notify, watch};

/// Sessions that wait at a time at most: each keeps a thread.
const WAITING_MAX: usize = 256;

/// What is locked. A number and a pair of numbers are never the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `bigint`.
    One(i64),
    /// `int, int`.
    Two(i32, i32),
}

impl Key {
    /// `classid`, `objid` and `objsubid` of `pg_locks`.
    pub fn columns(self) -> (u32, u32, i32) {
        match self {
            Key::One(key) => ((key >> 32) as u32, key as u32, 1),
            Key::Two(first, second) => (first as u32, second as u32, 2),
        }
    }
}

/// Who else may hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody.
    Exclusive,
    /// Who shares it as well.
    Shared,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Exclusive => "ExclusiveLock",
            Mode::Shared => "ShareLock",
        })
    }
}

/// Until when it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Until it is given back, or the session ends.
    Session,
    /// Until the transaction ends.
    Transaction,
}

/// What a session asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who asks.
    pub session: i32,
    /// For what.
    pub key: Key,
    /// How.
    pub mode: Mode,
    /// Until when.
    pub scope: Scope,
}

/// A lock that is held or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is locked.
    pub key: Key,
    /// How.
    pub mode: Mode,
    /// Who.
    pub session: i32,
    /// Held, or waited for since then (microseconds since 1970).
    pub waiting_since: Option<i64>,
}

struct Held {
    session: i32,
    mode: Mode,
    scope: Scope,
    count: usize,
}

struct Wait {
    ticket: u64,
    request: Request,
    since: i64,
}

#[derive(Default)]
struct Lock {
    held: Vec<Held>,
    queue: Vec<Wait>,
}

impl Lock {
    /// The sessions that come before a request: those that hold what does not go together with it,
    /// and those that asked earlier (before `ticket`).
    fn before(&self, request: &Request, ticket: u64) -> Vec<i32> {
        let apart = |session: i32, mode: Mode| {
            let shared = mode == Mode::Shared && request.mode == Mode::Shared;
            session != request.session && !shared
        };
        let held = self.held.iter().filter(|h| apart(h.session, h.mode));
        let mut all: Vec<i32> = held.map(|h| h.session).collect();
        if !self.held.iter().any(|h| h.session == request.session) {
            let earlier = self.queue.iter().filter(|w| w.ticket < ticket);
            let earlier = earlier.filter(|w| apart(w.request.session, w.request.mode));
            all.extend(earlier.map(|w| w.request.session));
        }
        all
    }

    fn grant(&mut self, request: &Request) {
        let same = |h: &&mut Held| {
            (h.session, h.mode, h.scope) == (request.session, request.mode, request.scope)
        };
        match self.held.iter_mut().find(same) {
            Some(held) => held.count += 1,
            None => self.held.push(Held {
                session: request.session,
                mode: request.mode,
                scope: request.scope,
                count: 1,
            }),
        }
    }
}

#[derive(Default)]
struct State {
    locks: BTreeMap<Key, Lock>,
    tickets: u64,
    waiting: usize,
    /// What each session's transaction took, in order.
    transactions: HashMap<i32, Vec<(Key, Mode)>>,
}

impl State {
    fn grant(&mut self, request: &Request) {
        self.locks.entry(request.key).or_default().grant(request);
        if request.scope == Scope::Transaction {
            let taken = self.transactions.entry(request.session).or_default();
            taken.push((request.key, request.mode));
        }
    }

    /// Gives one back. Returns whether it was held.
    fn release(&mut self, key: Key, session: i32, mode: Mode, scope: Scope) -> bool {
        let Some(lock) = self.locks.get_mut(&key) else {
            return false;
        };
        let same = |h: &Held| (h.session, h.mode, h.scope) == (session, mode, scope);
        let Some(at) = lock.held.iter().position(same) else {
            return false;
        };
        lock.held[at].count -= 1;
        if lock.held[at].count == 0 {
            lock.held.swap_remove(at);
        }
        self.tidy(key);
        true
    }

    fn tidy(&mut self, key: Key) {
        let unused = |l: &Lock| l.held.is_empty() && l.queue.is_empty();
        if self.locks.get(&key).is_some_and(unused) {
            self.locks.remove(&key);
        }
    }

    /// The sessions that a session waits for.
    fn blockers(&self, session: i32) -> Vec<i32> {
        let waits = self.locks.values().flat_map(|lock| {
            let own = lock.queue.iter().filter(|w| w.request.session == session);
            own.flat_map(|w| lock.before(&w.request, w.ticket))
        });
        waits.collect()
    }
}

/// All of a node's.
#[derive(Default)]
pub struct Advisory {
    state: Mutex<State>,
    /// Whether a transaction has ever taken one: most clients never do, and every transaction ends.
    used: AtomicBool,
    changed: Notify,
}

/// A place in a queue; dropped, it is free.
struct Place<'a> {
    advisory: &'a Advisory,
    key: Key,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.advisory.state.lock();
        if let Some(lock) = state.locks.get_mut(&self.key) {
            lock.queue.retain(|w| w.ticket != self.ticket);
        }
        state.waiting -= 1;
        state.tidy(self.key);
        drop(state);
        self.advisory.changed.notify_waiters();
    }
}

impl Advisory {
    fn grant(&self, state: &mut State, request: &Request) {
        if request.scope == Scope::Transaction {
            self.used.store(true, Ordering::SeqCst);
        }
        state.grant(request);
    }

    /// Takes it if it is free. Returns whether it was.
    pub fn try_lock(&self, request: Request) -> bool {
        let mut state = self.state.lock();
        let lock = state.locks.get(&request.key);
        let free = lock.is_none_or(|l| l.before(&request, u64::MAX).is_empty());
        if free {
            self.grant(&mut state, &request);
        }
        free
    }

    /// Waits for it. `tables` tells whom a session waits for elsewhere; when `ended` becomes true,
    /// nobody waits any more.
    ///
    /// Errors: `40P01` for a circle, `57014` when ended, `53000` where too many wait.
    pub async fn lock(
        &self,
        request: Request,
        mut ended: watch::Receiver<bool>,
        tables: impl Fn(i32) -> Vec<i32>,
    ) -> Result<()> {
        let place = {
            let mut state = self.state.lock();
            let lock = state.locks.entry(request.key).or_default();
            if lock.before(&request, u64::MAX).is_empty() {
                self.grant(&mut state, &request);
                return Ok(());
            }
            if state.waiting >= WAITING_MAX {
                return Err(Error::unavailable(
                    SqlState("53000"),
                    format!("{WAITING_MAX} sessions wait for advisory locks already"),
                ));
            }
            state.tickets += 1;
            state.waiting += 1;
            let ticket = state.tickets;
            let wait = Wait {
                ticket,
                request,
                since: now_micros(),
            };
            let lock = state.locks.entry(request.key).or_default();
            lock.queue.push(wait);
            Place {
                advisory: self,
                key: request.key,
                ticket,
            }
        };
        self.check_circle(&request, tables)?;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.take_place(&request, place.ticket, &ended)? {
                return Ok(());
            }
            tokio::select! {
                biased;
                // A sender that is gone has ended, too.
                _ = ended.wait_for(|ended| *ended) => return Err(canceled()),
                () = changed => {}
            }
        }
    }

    fn take_place(
        &self,
        request: &Request,
        ticket: u64,
        ended: &watch::Receiver<bool>,
    ) -> Result<bool> {
        let mut state = self.state.lock();
        // Under the lock: who ends gives back what it holds afterwards.
        if *ended.borrow() {
            return Err(canceled());
        }
        let lock = state.locks.get(&request.key);
        let free = lock.is_none_or(|l| l.before(request, ticket).is_empty());
        if free {
            self.grant(&mut state, request);
        }
        Ok(free)
    }

    fn check_circle(&self, request: &Request, tables: impl Fn(i32) -> Vec<i32>) -> Result<()> {
        let mut seen = HashSet::new();
        let mut queue = self.state.lock().blockers(request.session);
        let first = queue.first().copied();
        while let Some(session) = queue.pop() {
            if session == request.session {
                let (class, object, kind) = request.key.columns();
                return Err(
                    Error::user(SqlState("40P01"), "deadlock detected").with_detail(format!(
                        "Process {} waits for {} on advisory lock [1,{class},{object},{kind}]; \
                         blocked by process {}.",
                        request.session,
                        request.mode,
                        first.unwrap_or_default()
                    )),
                );
            }
            if seen.insert(session) {
                queue.extend(self.state.lock().blockers(session));
                queue.extend(tables(session));
            }
        }
        Ok(())
    }

    /// Gives one of the session's own back. Returns whether it was held.
    pub fn unlock(&self, session: i32, key: Key, mode: Mode) -> bool {
        let released = {
            let mut state = self.state.lock();
            state.release(key, session, mode, Scope::Session)
        };
        if released {
            self.changed.notify_waiters();
        }
        released
    }

    /// Gives all of the session's own back; those of its transaction stay.
    pub fn unlock_all(&self, session: i32) {
        self.retain(|h| h.session != session || h.scope == Scope::Transaction);
    }

    /// The session ends.
    pub fn leave(&self, session: i32) {
        self.state.lock().transactions.remove(&session);
        self.retain(|h| h.session != session);
    }

    fn retain(&self, keep: impl Fn(&Held) -> bool) {
        let mut state = self.state.lock();
        for lock in state.locks.values_mut() {
            lock.held.retain(&keep);
        }
        state
            .locks
            .retain(|_, l| !l.held.is_empty() || !l.queue.is_empty());
        drop(state);
        self.changed.notify_waiters();
    }

    /// How many the session's transaction has taken so far.
    pub fn taken(&self, session: i32) -> usize {
        let state = self.state.lock();
        state.transactions.get(&session).map_or(0, Vec::len)
    }

    /// The session's transaction, or what of it came after the first `keep` locks, has ended.
    pub fn end_transaction(&self, session: i32, keep: usize) {
        if !self.used.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.state.lock();
        let Some(taken) = state.transactions.get_mut(&session) else {
            return;
        };
        let ended = taken.split_off(keep.min(taken.len()));
        if taken.is_empty() {
            state.transactions.remove(&session);
        }
        for (key, mode) in ended {
            state.release(key, session, mode, Scope::Transaction);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The sessions that a session waits for.
    pub fn blockers(&self, session: i32) -> Vec<i32> {
        self.state.lock().blockers(session)
    }

    /// All that are held or waited for, by key.
    pub fn list(&self) -> Vec<Entry> {
        let state = self.state.lock();
        let mut all: Vec<Entry> = Vec::new();
        for (key, lock) in &state.locks {
            for held in &lock.held {
                let entry = Entry {
                    key: *key,
                    mode: held.mode,
                    session: held.session,
                    waiting_since: None,
                };
                if !all.contains(&entry) {
                    all.push(entry);
                }
            }
            all.extend(lock.queue.iter().map(|wait| Entry {
                key: *key,
                mode: wait.request.mode,
                session: wait.request.session,
                waiting_since: Some(wait.since),
            }));
        }
        all
    }
}

fn canceled() -> Error {
    Error::user(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn request(session: i32, mode: Mode, scope: Scope) -> Request {
        Request {
            session,
            key: Key::One(7),
            mode,
            scope,
        }
    }

    #[test]
    fn locks_are_counted_and_kept_apart_by_scope() {
        let all = Advisory::default();
        let (mine, yours) = (
            request(1, Mode::Exclusive, Scope::Session),
            request(2, Mode::Shared, Scope::Transaction),
        );
        assert!(all.try_lock(mine) && all.try_lock(mine));
        assert!(!all.try_lock(yours));
        assert!(all.try_lock(Request {
            key: Key::Two(0, 7),
            ..yours
        }));
        assert!(all.unlock(1, mine.key, Mode::Exclusive));
        assert!(!all.try_lock(yours), "it is held once more");
        assert!(!all.unlock(1, mine.key, Mode::Shared), "in another mode");
        assert!(all.unlock(1, mine.key, Mode::Exclusive));
        assert!(!all.unlock(1, mine.key, Mode::Exclusive));
        assert!(all.try_lock(yours));
        assert!(all.try_lock(request(1, Mode::Shared, Scope::Session)));
        all.unlock_all(2);
        assert_eq!(all.list().len(), 3, "those of a transaction stay");
        assert_eq!(all.taken(2), 2);
        all.end_transaction(2, 1);
        assert!(!all.try_lock(request(3, Mode::Exclusive, Scope::Session)));
        all.leave(1);
        assert!(all.try_lock(request(3, Mode::Exclusive, Scope::Session)));
        all.end_transaction(2, 0);
        all.leave(3);
        assert_eq!(all.list(), []);
    }

    #[tokio::test]
    async fn who_waits_is_served_in_order_and_may_give_up() {
        let all = Arc::new(Advisory::default());
        let (end, ended) = watch::channel(false);
        assert!(all.try_lock(request(1, Mode::Shared, Scope::Session)));
        let wait = |session, ended: watch::Receiver<bool>| {
            let all = all.clone();
            tokio::spawn(async move {
                let request = request(session, Mode::Exclusive, Scope::Session);
                all.lock(request, ended, |_| Vec::new()).await
            })
        };
        let second = wait(2, ended.clone());
        while all.blockers(2).is_empty() {
            tokio::task::yield_now().await;
        }
        // It goes together with the one that is held, but somebody came first.
        assert!(!all.try_lock(request(3, Mode::Shared, Scope::Session)));
        assert!(
            all.try_lock(request(1, Mode::Exclusive, Scope::Session)),
            "who holds it goes before those who wait"
        );
        end.send_replace(true);
        let state = second.await.unwrap().unwrap_err().state();
        assert_eq!(state, SqlState::QUERY_CANCELED);
        let (_end, ended) = watch::channel(false);
        let third = wait(3, ended.clone());
        while all.blockers(3).is_empty() {
            tokio::task::yield_now().await;
        }
        let circle = all.lock(
            Request {
                key: Key::One(8),
                ..request(1, Mode::Shared, Scope::Session)
            },
            ended.clone(),
            |_| Vec::new(),
        );
        assert!(circle.await.is_ok(), "it is free");
        assert!(all.try_lock(Request {
            key: Key::One(9),
            ..request(4, Mode::Shared, Scope::Session)
        }));
        let deadlock = all.lock(
            Request {
                key: Key::One(9),
                ..request(1, Mode::Exclusive, Scope::Session)
            },
            ended,
            // Session 4 waits for a table of session 3's, which waits for session 1.
            |session| if session == 4 { vec![3] } else { Vec::new() },
        );
        assert_eq!(deadlock.await.unwrap_err().state(), SqlState("40P01"));
        all.leave(1);
        third.await.unwrap().unwrap();
    }
}
