//! LISTEN and NOTIFY: who listens to which channel, and what was said to it.
//!
//! A notification reaches the sessions that listen when it is sent, its own sender among them. It
//! waits in a queue of the session's until its client may be told: between two transactions.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use tidemark_common::{Error, Result, SqlState};
use tokio::sync::mpsc;

/// Notifications that wait for one session at most.
pub const QUEUE_MAX: usize = 65_536;

/// Bytes of a payload are fewer than this, those of a channel's name fewer than [`NAME_BYTES`].
const PAYLOAD_BYTES: usize = 8000;
const NAME_BYTES: usize = 64;

/// One notification on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The session that said it.
    pub sender: i32,
    /// Where.
    pub channel: String,
    /// What, or nothing.
    pub payload: String,
}

/// Where a session's notifications wait.
pub type Mailbox = mpsc::Sender<Notification>;

/// Where a session's notifications come in.
pub type Letters = mpsc::Receiver<Notification>;

/// A mailbox and its letters.
pub fn mailbox() -> (Mailbox, Letters) {
    mpsc::channel(QUEUE_MAX)
}

/// Who listens.
#[derive(Default)]
pub struct Channels(Mutex<HashMap<String, BTreeMap<i32, Mailbox>>>);

impl Channels {
    /// A session listens to a channel.
    pub fn listen(&self, channel: &str, session: i32, mailbox: &Mailbox) {
        let mut channels = self.0.lock();
        let listeners = channels.entry(channel.into()).or_default();
        listeners.insert(session, mailbox.clone());
    }

    /// A session listens no more: to one channel, or to none.
    pub fn unlisten(&self, channel: Option<&str>, session: i32) {
        self.0.lock().retain(|name, listeners| {
            if channel.is_none_or(|c| c == name) {
                listeners.remove(&session);
            }
            !listeners.is_empty()
        });
    }

    /// The channels that a session listens to, by name.
    pub fn of_session(&self, session: i32) -> Vec<String> {
        let channels = self.0.lock();
        let of_session = channels.iter().filter(|(_, l)| l.contains_key(&session));
        let mut names: Vec<String> = of_session.map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// `54000` where a listener has no room for one more.
    pub fn check_room(&self, channel: &str) -> Result<()> {
        let channels = self.0.lock();
        let listeners = channels.get(channel);
        if listeners.is_some_and(|l| l.values().any(|mailbox| mailbox.capacity() == 0)) {
            return Err(Error::user(
                SqlState("54000"),
                "too many notifications in the NOTIFY queue",
            )
            .with_hint("A session that listens does not end its transaction."));
        }
        Ok(())
    }

    /// Tells those who listen.
    pub fn notify(&self, notification: &Notification) {
        let channels = self.0.lock();
        let listeners = channels.get(&notification.channel);
        for (session, mailbox) in listeners.into_iter().flatten() {
            if let Err(mpsc::error::TrySendError::Full(lost)) =
                mailbox.try_send(notification.clone())
            {
                tracing::warn!(session, channel = lost.channel, "a notification is lost");
            }
        }
    }
}

/// Names and payloads as NOTIFY takes them: `22023` otherwise.
pub fn check(channel: &str, payload: &str) -> Result<()> {
    let invalid = |message: &str| Err(Error::user(SqlState::INVALID_PARAMETER, message));
    if channel.is_empty() {
        return invalid("channel name cannot be empty");
    }
    if channel.len() >= NAME_BYTES {
        return invalid("channel name too long");
    }
    if payload.len() >= PAYLOAD_BYTES {
        return invalid("payload string too long");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_listen_are_told() {
        let channels = Channels::default();
        let (mailbox, mut received) = mpsc::channel(1);
        channels.listen("a", 1, &mailbox);
        channels.listen("b", 1, &mailbox);
        assert_eq!(channels.of_session(1), ["a", "b"]);
        channels.unlisten(Some("b"), 1);
        let said = |channel: &str| Notification {
            sender: 2,
            channel: channel.into(),
            payload: "x".into(),
        };
        channels.notify(&said("b"));
        assert!(channels.check_room("a").is_ok());
        channels.notify(&said("a"));
        assert!(channels.check_room("a").is_err());
        assert_eq!(received.try_recv().unwrap(), said("a"));
        channels.unlisten(None, 1);
        channels.notify(&said("a"));
        assert!(received.try_recv().is_err());
        assert!(check("a", &"x".repeat(7999)).is_ok());
        for (channel, payload) in [("", "".into()), (&*"c".repeat(64), "".into())] {
            assert!(check(channel, payload).is_err());
        }
        assert!(check("a", &"x".repeat(8000)).is_err());
    }
}
