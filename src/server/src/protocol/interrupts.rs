//! What can end a statement or a session from outside: a cancel request, an administrator, and the
//! session's own limits in time. Whatever a connection waits for (a result, a lock, the client's
//! next message, room in its socket), it waits for these as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::{Error, SqlState};
use tokio::sync::watch;
use tokio::time::Instant;

/// Until when what the session does may last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The statement.
    pub statement: Option<Instant>,
    /// The transaction.
    pub transaction: Option<Instant>,
    /// Being idle in a transaction.
    pub idle_in_transaction: Option<Instant>,
    /// Being idle outside of one.
    pub idle: Option<Instant>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Somebody canceled the statement.
    Canceled,
    /// The statement took too long.
    StatementTimeout,
    /// Somebody ends the session.
    Ended,
    /// The transaction took too long.
    TransactionTimeout,
    /// It was idle in a transaction for too long.
    IdleInTransaction,
    /// It was idle for too long.
    IdleSession,
}

/// Listens.
pub struct Interrupts {
    /// Changes with every cancel request; seen once when the next statement begins, so that a late
    /// request hits nothing.
    pub canceled: watch::Receiver<()>,
    /// Whether the session is to end.
    pub ended: watch::Receiver<bool>,
    /// Whether the running statement's writes are on their way to the log.
    pub submitted: Arc<AtomicBool>,
    /// See there.
    pub limits: Limits,
    /// A statement runs, which can be canceled.
    pub running: bool,
}

impl Limits {
    fn first(&self, running: bool) -> Option<(Instant, Interrupt)> {
        let all = [
            (
                self.statement.filter(|_| running),
                Interrupt::StatementTimeout,
            ),
            (self.transaction, Interrupt::TransactionTimeout),
            (self.idle_in_transaction, Interrupt::IdleInTransaction),
            (self.idle, Interrupt::IdleSession),
        ];
        all.into_iter()
            .filter_map(|(at, what)| Some((at?, what)))
            .min_by_key(|(at, _)| *at)
    }
}

impl Interrupts {
    /// One that is there already; taken as [`Interrupts::next`] takes it, without what it takes to
    /// wait.
    pub fn pending(&mut self) -> Option<Interrupt> {
        if *self.ended.borrow() {
            return Some(Interrupt::Ended);
        }
        if self.running && self.canceled.has_changed().is_ok_and(|changed| changed) {
            self.canceled.mark_unchanged();
            return Some(Interrupt::Canceled);
        }
        let (at, what) = self.limits.first(self.running)?;
        (at <= Instant::now()).then_some(what)
    }

    /// The next one.
    pub async fn next(&mut self) -> Interrupt {
        let limit = self.limits.first(self.running);
        let limit = async {
            match limit {
                Some((at, what)) => {
                    tokio::time::sleep_until(at).await;
                    what
                }
                None => std::future::pending().await,
            }
        };
        // A sender that is gone interrupts nothing.
        tokio::select! {
            biased;
            Ok(_) = self.ended.wait_for(|ended| *ended) => Interrupt::Ended,
            Ok(()) = self.canceled.changed(), if self.running => Interrupt::Canceled,
            what = limit => what,
        }
    }

    /// The error that the client is told.
    pub fn error(&self, what: Interrupt) -> Error {
        let fatal = |state, text: &str| Error::user(SqlState(state), text);
        match what {
            Interrupt::Canceled => self.canceled_error("user request"),
            Interrupt::StatementTimeout => self.canceled_error("statement timeout"),
            Interrupt::Ended => fatal(
                "57P01",
                "terminating connection due to administrator command",
            ),
            Interrupt::TransactionTimeout => {
                fatal("25P04", "terminating connection due to transaction timeout")
            }
            Interrupt::IdleInTransaction => fatal(
                "25P03",
                "terminating connection due to idle-in-transaction timeout",
            ),
            Interrupt::IdleSession => fatal(
                "57P05",
                "terminating connection due to idle-session timeout",
            ),
        }
    }

    /// `57014`; of a statement whose writes are on their way already it says so.
    fn canceled_error(&self, reason: &str) -> Error {
        let e = Error::user(
            SqlState::QUERY_CANCELED,
            format!("canceling statement due to {reason}"),
        );
        if self.submitted.load(Ordering::SeqCst) {
            e.with_detail("Its writes were submitted before, and take effect all the same.")
        } else {
            e
        }
    }
}

impl Interrupt {
    /// Whether it ends the session, not only the statement.
    pub fn is_fatal(self) -> bool {
        !matches!(self, Interrupt::Canceled | Interrupt::StatementTimeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_first_limit_counts_and_those_of_statements_only_while_one_runs() {
        let (cancel, canceled) = watch::channel(());
        let (end, ended) = watch::channel(false);
        let after = |twentieths: u64| Some(Instant::now() + Duration::from_millis(50 * twentieths));
        let mut interrupts = Interrupts {
            canceled,
            ended,
            submitted: Arc::default(),
            limits: Limits {
                statement: after(1),
                transaction: after(5),
                idle_in_transaction: after(3),
                idle: None,
            },
            running: true,
        };
        assert_eq!(interrupts.pending(), None);
        assert_eq!(interrupts.next().await, Interrupt::StatementTimeout);
        assert_eq!(interrupts.pending(), Some(Interrupt::StatementTimeout));
        interrupts.running = false;
        assert_eq!(interrupts.next().await, Interrupt::IdleInTransaction);
        interrupts.limits.idle_in_transaction = None;
        cancel.send_replace(());
        assert_eq!(interrupts.next().await, Interrupt::TransactionTimeout);
        interrupts.limits = Limits::default();
        assert_eq!(interrupts.pending(), None);
        interrupts.running = true;
        assert_eq!(interrupts.next().await, Interrupt::Canceled);
        assert_eq!(interrupts.pending(), None);
        cancel.send_replace(());
        assert_eq!(interrupts.pending(), Some(Interrupt::Canceled));
        assert_eq!(interrupts.pending(), None);
        end.send_replace(true);
        assert_eq!(interrupts.pending(), Some(Interrupt::Ended));
        assert_eq!(interrupts.next().await, Interrupt::Ended);
        assert_eq!(interrupts.next().await, Interrupt::Ended, "it stays so");
    }
}
