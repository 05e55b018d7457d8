//! Lines of the server's log with the target `audit`, one for each statement that changed what
//! there is or who may do what, and for each that was refused because its role may not do it.
//! Logins have theirs in [`crate::auth`]. Texts of statements come without the secrets in them.

use super::Session;
use tidemark_common::{Error, SqlState};
use tidemark_planner::statement::Statement;

/// Characters of a statement that are told.
const TEXT_MAX: usize = 2000;

impl Session {
    /// A statement of DDL, or one about roles and privileges, was done.
    pub(super) fn audit_change(&self, statement: &Statement) {
        let (user, pid, address) = (self.login(), self.pid(), self.address());
        let role = self.taken_role();
        let statement = told(&statement.text);
        tracing::info!(target: "audit", user, role, pid, address, ?statement, "changed");
    }

    /// A statement ended with an error: it is told where a privilege was missing.
    pub(crate) fn audit_refusal(&self, error: &Error) {
        if error.state() != SqlState("42501") {
            return;
        }
        let (user, pid, address) = (self.login(), self.pid(), self.address());
        let role = self.taken_role();
        let (state, reason) = (error.state().0, error.message());
        let doing = self.activity.look();
        let statement = doing.running().map(told);
        tracing::warn!(
            target: "audit", user, role, pid, address, state, reason, ?statement, "refused"
        );
    }

    fn login(&self) -> &str {
        self.asker.settings.login()
    }

    /// The role that it acts as, if that is another one.
    fn taken_role(&self) -> Option<&str> {
        Some(self.user()).filter(|role| *role != self.login())
    }

    fn address(&self) -> String {
        let clients = self.server.commons.clients.list().into_iter();
        let own = clients.filter(|(pid, _)| *pid == self.pid());
        own.map(|(_, client)| client.address)
            .next()
            .unwrap_or_default()
    }
}

/// The beginning of a text; written as a literal, it is one line.
fn told(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
