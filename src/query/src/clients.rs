//! Who is connected, what each client does, and how others stop it.
//!
//! A session tells what it does here, once per statement, for `pg_stat_activity`, `SHOW
//! PROCESSLIST` and those who ask whom they wait for. Two signals go the other way: *cancel* ends
//! the statement that runs, *end* ends the session wherever it is: idle, in a statement, waiting
//! for a lock, for rows of a COPY, or for a client that does not read.

use crate::outcome::Status;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use tidemark_common::machine::micros as now_micros;
use tokio::sync::watch;

/// All connected clients.
#[derive(Default)]
pub struct Clients {
    next: AtomicI32,
    connected: Mutex<HashMap<i32, Client>>,
}

/// One connected client.
#[derive(Clone)]
pub struct Client {
    key: i32,
    cancel: watch::Sender<()>,
    end: watch::Sender<bool>,
    /// Address of the client.
    pub address: String,
    /// Its user.
    pub user: String,
    /// When it came, microseconds since 1970.
    pub since: i64,
    /// What it does.
    pub activity: Arc<Activity>,
}

/// A client's own end of its entry.
pub struct Registered {
    /// Number of the session.
    pub pid: i32,
    /// Allows cancel requests.
    pub key: i32,
    /// Changes with every cancel request.
    pub canceled: watch::Receiver<()>,
    /// Whether the session is to end.
    pub ended: watch::Receiver<bool>,
    /// Where it tells what it does.
    pub activity: Arc<Activity>,
}

/// What a client does.
pub struct Activity(Mutex<Doing>);

/// A look at it. Times are microseconds since 1970.
#[derive(Clone, Debug)]
pub struct Doing {
    /// `active`, `idle`, `idle in transaction`, `idle in transaction (aborted)`.
    pub state: &'static str,
    /// The statement that runs, or that ran last.
    pub query: String,
    /// What the client calls itself.
    pub application_name: String,
    /// When its transaction began.
    pub transaction_start: Option<i64>,
    /// When that statement began.
    pub query_start: Option<i64>,
    /// Since when it is in this state.
    pub state_change: i64,
    /// It waits for the client to read.
    pub writing: bool,
}

impl Doing {
    /// The statement that runs.
    pub fn running(&self) -> Option<&str> {
        (self.state == "active").then_some(self.query.as_str())
    }
}

impl Activity {
    fn new() -> Activity {
        Activity(Mutex::new(Doing {
            state: "idle",
            query: String::new(),
            application_name: String::new(),
            transaction_start: None,
            query_start: None,
            state_change: now_micros(),
            writing: false,
        }))
    }

    /// A statement begins.
    pub fn begin(&self, text: &str, application_name: &str) {
        let now = now_micros();
        let mut doing = self.0.lock();
        doing.state = "active";
        doing.query.clear();
        doing.query.push_str(text);
        doing.query_start = Some(now);
        doing.state_change = now;
        doing.transaction_start = doing.transaction_start.or(Some(now));
        doing.rename(application_name);
    }

    /// The client may send the next one.
    pub fn rest(&self, status: Status, application_name: &str) {
        let mut doing = self.0.lock();
        doing.state = match status {
            Status::Idle => "idle",
            Status::Open => "idle in transaction",
            Status::Failed => "idle in transaction (aborted)",
        };
        doing.state_change = now_micros();
        if status == Status::Idle {
            doing.transaction_start = None;
        }
        doing.rename(application_name);
    }

    /// Whether it waits for the client to read.
    pub fn writing(&self, writing: bool) {
        self.0.lock().writing = writing;
    }

    /// What the client does now.
    pub fn look(&self) -> Doing {
        self.0.lock().clone()
    }
}

impl Doing {
    fn rename(&mut self, application_name: &str) {
        if self.application_name != application_name {
            self.application_name = application_name.into();
        }
    }
}

impl Clients {
    /// A client came.
    pub fn add(&self, address: String, user: String) -> Registered {
        let pid = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let key = RandomState::new().hash_one((pid, now_micros())) as i32;
        let (cancel, canceled) = watch::channel(());
        let (end, ended) = watch::channel(false);
        let activity = Arc::new(Activity::new());
        let client = Client {
            key,
            cancel,
            end,
            address,
            user,
            since: now_micros(),
            activity: activity.clone(),
        };
        self.connected.lock().insert(pid, client);
        Registered {
            pid,
            key,
            canceled,
            ended,
            activity,
        }
    }

    /// A client left.
    pub fn remove(&self, pid: i32) {
        self.connected.lock().remove(&pid);
    }

    /// All clients by number.
    pub fn list(&self) -> Vec<(i32, Client)> {
        let mut all: Vec<_> = self
            .connected
            .lock()
            .iter()
            .map(|(pid, c)| (*pid, c.clone()))
            .collect();
        all.sort_by_key(|(pid, _)| *pid);
        all
    }

    /// Cancels what client `pid` runs. Returns whether there is such a client.
    pub fn cancel(&self, pid: i32) -> bool {
        let connected = self.connected.lock();
        connected
            .get(&pid)
            .inspect(|c| c.cancel.send_replace(()))
            .is_some()
    }

    /// Ends the session of client `pid`. Returns whether there is such a client.
    pub fn end(&self, pid: i32) -> bool {
        let connected = self.connected.lock();
        let client = connected.get(&pid);
        client
            .inspect(|c| {
                c.end.send_replace(true);
            })
            .is_some()
    }

    /// Carries out a cancel request if it knows the key.
    pub fn cancel_by_key(&self, pid: i32, key: i32) {
        if let Some(client) = self.connected.lock().get(&pid)
            && client.key == key
        {
            client.cancel.send_replace(());
        }
    }
}
