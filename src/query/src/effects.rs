//! What a statement's functions do to its session: `set_config`, `pg_notify`, advisory locks, the
//! number of the transaction. Functions run on other threads, while the rows go to the client; so
//! they leave what the session is to do here, and the session does it when the statement has
//! ended, or forgets it when the statement failed. From then on the
//! functions of that statement, which may still run for a moment, do nothing any more.

use crate::advisory::{Key, Mode, Request, Scope};
use crate::commons::Commons;
use crate::identity;
use crate::settings::Settings;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState};
use tokio::sync::watch;

/// What one statement leaves.
pub struct Effects {
    commons: Weak<Commons>,
    session: i32,
    /// The number of the session's transaction; 0 if it has none yet.
    transaction: Arc<AtomicI64>,
    left: Mutex<Left>,
    /// Whether the statement calls `set_config`.
    sets_settings: AtomicBool,
    ended: watch::Sender<bool>,
}

/// What a session has to do when a statement has ended.
#[derive(Default)]
pub struct Left {
    /// By `set_config`.
    pub settings: Vec<Setting>,
    /// By `pg_notify`: channels and payloads.
    pub notifications: Vec<(String, String)>,
}

/// A `set_config`.
pub struct Setting {
    /// Which setting.
    pub name: String,
    /// None is the default.
    pub value: Option<String>,
    /// What it is now, as it is shown.
    shown: String,
    /// For the transaction alone.
    pub local: bool,
}

impl Effects {
    /// Of a statement in a session's transaction, whose number is in `transaction` (0 if it has
    /// none yet).
    pub fn new(commons: &Arc<Commons>, session: i32, transaction: Arc<AtomicI64>) -> Effects {
        Effects {
            commons: Arc::downgrade(commons),
            session,
            transaction,
            left: Mutex::default(),
            sets_settings: AtomicBool::default(),
            ended: watch::channel(false).0,
        }
    }

    /// The statement has ended; what it leaves is to be done, or forgotten.
    pub fn end(&self) -> Left {
        self.ended.send_replace(true);
        std::mem::take(&mut *self.left.lock())
    }

    /// `0A000` after the statement has ended.
    fn check(&self) -> Result<Arc<Commons>> {
        let commons = self.commons.upgrade().filter(|_| !*self.ended.borrow());
        commons.ok_or_else(|| {
            Error::unsupported("a cursor's rows cannot change the session after its statement")
        })
    }

    /// The statement calls `set_config`.
    pub fn will_set_settings(&self) {
        self.sets_settings.store(true, Ordering::Relaxed);
    }

    /// Whether it does, as far as it has been read.
    pub fn sets_settings(&self) -> bool {
        self.sets_settings.load(Ordering::Relaxed)
    }

    /// The value that the statement has given a setting.
    pub fn setting(&self, name: &str) -> Option<String> {
        let left = self.left.lock();
        let last = left.settings.iter().rev();
        let mut last = last.filter(|s| s.name.eq_ignore_ascii_case(name));
        last.next().map(|s| s.shown.clone())
    }

    /// `set_config`: returns the new value as it is shown.
    pub fn set(
        &self,
        settings: &Settings,
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Result<String> {
        let commons = self.check()?;
        let shown = match identity::is_of_identity(name) {
            true => {
                let catalog = commons.engine.catalog();
                identity::wanted(&catalog, settings, name, value)?;
                match value {
                    Some(role) => role.to_string(),
                    None => settings.would_be(name, None)?,
                }
            }
            false => settings.would_be(name, value)?,
        };
        self.left.lock().settings.push(Setting {
            name: name.into(),
            value: value.map(str::to_string),
            shown: shown.clone(),
            local,
        });
        Ok(shown)
    }

    /// `pg_notify`.
    pub fn notify(&self, channel: &str, payload: &str) -> Result<()> {
        let commons = self.check()?;
        crate::notifications::check(channel, payload)?;
        commons.channels.check_room(channel)?;
        let mut left = self.left.lock();
        left.notifications.push((channel.into(), payload.into()));
        Ok(())
    }

    /// An advisory lock if it is free. Returns whether it was.
    pub fn try_lock(&self, key: Key, mode: Mode, scope: Scope) -> Result<bool> {
        Ok(self
            .check()?
            .advisory
            .try_lock(self.request(key, mode, scope)))
    }

    /// An advisory lock, waited for on this thread: `55P03` after the session's `lock_timeout`,
    /// `57014` when the statement ends.
    pub fn lock(&self, settings: &Settings, key: Key, mode: Mode, scope: Scope) -> Result<()> {
        let commons = self.check()?;
        let request = self.request(key, mode, scope);
        if commons.advisory.try_lock(request) {
            return Ok(());
        }
        let tables = |session| commons.engine.blockers(session);
        let wait = commons
            .advisory
            .lock(request, self.ended.subscribe(), tables);
        let wait = async {
            match settings.timeout("lock_timeout") {
                None => wait.await,
                Some(most) => tokio::time::timeout(most, wait).await.map_err(|_| {
                    Error::user(SqlState("55P03"), "canceling statement due to lock timeout")
                })?,
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait))
    }

    /// Waits on this thread: `57014` when the statement ends before.
    pub fn sleep(&self, seconds: f64) -> Result<()> {
        self.check()?;
        // A year, and no time at all for what is no number of seconds.
        let most = seconds.clamp(0.0, 31_536_000.0);
        let time = Duration::try_from_secs_f64(most).unwrap_or_default();
        let mut ended = self.ended.subscribe();
        let wait = async {
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => Err(Error::user(
                    SqlState::QUERY_CANCELED,
                    "canceling statement due to user request",
                )),
                () = tokio::time::sleep(time) => Ok(()),
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait))
    }

    /// Gives a session's advisory lock back. Returns whether it was held.
    pub fn unlock(&self, key: Key, mode: Mode) -> Result<bool> {
        Ok(self.check()?.advisory.unlock(self.session, key, mode))
    }

    /// Gives all of them back.
    pub fn unlock_all(&self) -> Result<()> {
        self.check()?.advisory.unlock_all(self.session);
        Ok(())
    }

    fn request(&self, key: Key, mode: Mode, scope: Scope) -> Request {
        Request {
            session: self.session,
            key,
            mode,
            scope,
        }
    }

    /// The number of the session's transaction: it gets one when it is first asked for.
    pub fn transaction_number(&self) -> Result<i64> {
        let commons = self.check()?;
        let known = self.transaction.load(Ordering::SeqCst);
        if known != 0 {
            return Ok(known);
        }
        let next = commons.transactions.fetch_add(1, Ordering::SeqCst);
        let set = self
            .transaction
            .compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst);
        Ok(set.err().unwrap_or(next))
    }

    /// The channels that the session listens to.
    pub fn channels(&self) -> Vec<String> {
        let commons = self.commons.upgrade();
        commons.map_or_else(Vec::new, |s| s.channels.of_session(self.session))
    }
}

/// What a session will say and hear when its transaction commits.
#[derive(Default)]
pub struct Announcements {
    /// Channels and payloads.
    pub said: Vec<(String, String)>,
    /// What it listens to.
    pub heard: Vec<Hearing>,
}

/// A change of what a session listens to.
pub enum Hearing {
    /// LISTEN.
    Listen(String),
    /// UNLISTEN one, or all.
    Unlisten(Option<String>),
}

impl Announcements {
    /// Whether there is nothing to tell and nothing to listen to.
    pub fn is_empty(&self) -> bool {
        self.said.is_empty() && self.heard.is_empty()
    }

    /// How many there are, for a savepoint.
    pub fn mark(&self) -> (usize, usize) {
        (self.said.len(), self.heard.len())
    }

    /// The same words count once in a transaction.
    pub fn say(&mut self, said: (String, String)) {
        if !self.said.contains(&said) {
            self.said.push(said);
        }
    }

    /// One change more of what it listens to.
    pub fn hear(&mut self, hearing: Hearing) {
        self.heard.push(hearing);
    }

    /// Back to a savepoint.
    pub fn back_to(&mut self, (said, heard): (usize, usize)) {
        self.said.truncate(said);
        self.heard.truncate(heard);
    }
}
