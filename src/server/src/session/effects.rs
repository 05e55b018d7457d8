//! What a statement's functions do to its session: `set_config`, `pg_notify`, advisory locks, the
//! number of the transaction. Functions run on other threads, while the rows go to the client; so
//! they leave what the session is to do here, and the session does it when the statement has
//! ended ([`Session::settle`]), or forgets it when the statement failed. From then on the
//! functions of that statement, which may still run for a moment, do nothing any more.

use super::{Session, Status, Transaction};
use crate::Server;
use crate::advisory::{Key, Mode, Request, Scope};
use crate::notifications::{Mailbox, Notification};
use crate::session::settings::Settings;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState};
use tokio::sync::watch;

/// What one statement leaves.
pub struct Effects {
    server: Weak<Server>,
    session: i32,
    /// The number of the session's transaction; 0 if it has none yet.
    transaction: Arc<AtomicI64>,
    left: Mutex<Left>,
    /// Whether the statement calls `set_config`.
    sets_settings: AtomicBool,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct Left {
    settings: Vec<Setting>,
    notifications: Vec<(String, String)>,
}

/// A `set_config`.
struct Setting {
    name: String,
    /// None is the default.
    value: Option<String>,
    /// What it is now, as it is shown.
    shown: String,
    local: bool,
}

impl Effects {
    /// `0A000` after the statement has ended.
    fn check(&self) -> Result<Arc<Server>> {
        let server = self.server.upgrade().filter(|_| !*self.ended.borrow());
        server.ok_or_else(|| {
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
        self.check()?;
        let shown = settings.would_be(name, value)?;
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
        let server = self.check()?;
        crate::notifications::check(channel, payload)?;
        server.channels.check_room(channel)?;
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
        let server = self.check()?;
        let request = self.request(key, mode, scope);
        if server.advisory.try_lock(request) {
            return Ok(());
        }
        let tables = |session| server.engine.blockers(session);
        let wait = server
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
        let server = self.check()?;
        let known = self.transaction.load(Ordering::SeqCst);
        if known != 0 {
            return Ok(known);
        }
        let next = server.transactions.fetch_add(1, Ordering::SeqCst);
        let set = self
            .transaction
            .compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst);
        Ok(set.err().unwrap_or(next))
    }

    /// The channels that the session listens to.
    pub fn channels(&self) -> Vec<String> {
        let server = self.server.upgrade();
        server.map_or_else(Vec::new, |s| s.channels.of_session(self.session))
    }
}

/// What a session will say and hear when its transaction commits.
#[derive(Default)]
pub struct Announcements {
    said: Vec<(String, String)>,
    heard: Vec<Hearing>,
}

/// A change of what a session listens to.
pub enum Hearing {
    /// LISTEN.
    Listen(String),
    /// UNLISTEN one, or all.
    Unlisten(Option<String>),
}

impl Announcements {
    /// How many there are, for a savepoint.
    pub fn mark(&self) -> (usize, usize) {
        (self.said.len(), self.heard.len())
    }

    /// The same words count once in a transaction.
    fn say(&mut self, said: (String, String)) {
        if !self.said.contains(&said) {
            self.said.push(said);
        }
    }

    /// Back to a savepoint.
    pub fn back_to(&mut self, (said, heard): (usize, usize)) {
        self.said.truncate(said);
        self.heard.truncate(heard);
    }
}

impl Session {
    /// The place for what the next statement leaves.
    pub(crate) fn effects(&mut self) -> Arc<Effects> {
        let effects = Arc::new(Effects {
            server: Arc::downgrade(&self.server),
            session: self.pid(),
            transaction: self.transaction_number.clone(),
            left: Mutex::default(),
            sets_settings: AtomicBool::default(),
            ended: watch::channel(false).0,
        });
        self.effects.push(effects.clone());
        effects
    }

    /// The statement has ended well: what its functions left is done.
    pub(crate) fn settle(&mut self) {
        for effects in std::mem::take(&mut self.effects) {
            effects.ended.send_replace(true);
            let left = std::mem::take(&mut *effects.left.lock());
            for setting in left.settings {
                self.apply(setting);
            }
            for said in left.notifications {
                self.announcements.say(said);
            }
        }
        if self.status() == Status::Idle {
            self.announce();
        }
    }

    fn apply(&mut self, setting: Setting) {
        // Alone, what is local was so for the statement.
        if setting.local && self.status() == Status::Idle {
            return;
        }
        let settings = Arc::make_mut(&mut self.settings);
        // It was checked when it was set.
        if let Ok((notice, report)) =
            settings.set(&setting.name, setting.value.as_deref(), setting.local)
        {
            notice.into_iter().for_each(|n| self.notice(n));
            report.into_iter().for_each(|(n, v)| self.report(n, v));
        }
    }

    /// The statement failed: nothing of what its functions left is done, and who waits for a lock
    /// in it does so no more.
    pub(crate) fn forget_effects(&mut self) {
        for effects in std::mem::take(&mut self.effects) {
            effects.ended.send_replace(true);
        }
        let lost = matches!(
            self.transaction,
            Transaction::Idle | Transaction::Failed(None)
        );
        if lost {
            self.announcements = Announcements::default();
            self.end_of_transaction();
        }
    }

    /// Its advisory locks and its number go with a transaction: with a block, or with all
    /// statements of a message.
    pub(crate) fn end_of_transaction(&mut self) {
        self.transaction_number.store(0, Ordering::SeqCst);
        self.server.advisory.end_transaction(self.pid(), 0);
    }

    /// NOTIFY.
    pub(crate) fn say(&mut self, channel: &str, payload: &str) -> Result<()> {
        crate::notifications::check(channel, payload)?;
        self.server.channels.check_room(channel)?;
        self.announcements.say((channel.into(), payload.into()));
        Ok(())
    }

    /// LISTEN, UNLISTEN.
    pub(crate) fn hear(&mut self, hearing: Hearing) {
        self.announcements.heard.push(hearing);
    }

    /// The transaction has committed: what it said is told, what it listens to counts.
    pub(crate) fn announce(&mut self) {
        let Announcements { said, heard } = std::mem::take(&mut self.announcements);
        let (server, pid) = (self.server.clone(), self.pid());
        for hearing in heard {
            match hearing {
                Hearing::Listen(channel) => server.channels.listen(&channel, pid, &self.mailbox),
                Hearing::Unlisten(channel) => server.channels.unlisten(channel.as_deref(), pid),
            }
        }
        for (channel, payload) in said {
            server.channels.notify(&Notification {
                sender: pid,
                channel,
                payload,
            });
        }
    }

    /// Nobody listens here any more, and nothing is locked.
    pub(crate) fn leave(&mut self) {
        self.forget_effects();
        self.server.channels.unlisten(None, self.pid());
        self.server.advisory.leave(self.pid());
    }
}

/// Where a session's notifications come in.
pub type Letters = tokio::sync::mpsc::Receiver<Notification>;

/// A mailbox and its letters.
pub fn mailbox() -> (Mailbox, Letters) {
    tokio::sync::mpsc::channel(crate::notifications::QUEUE_MAX)
}
