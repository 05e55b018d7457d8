//! What a statement's functions left to do is done when it has ended well; what a transaction said
//! is told when it commits.

use super::{Asker, Transaction};
use crate::effects::{Announcements, Effects, Hearing, Setting};
use crate::identity;
use crate::notifications::Notification;
use crate::outcome::Status;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_common::Result;

impl Asker {
    /// The place for what the next statement leaves.
    pub(super) fn effects(&mut self) -> Arc<Effects> {
        let number = self.transaction_number.clone();
        let effects = Arc::new(Effects::new(&self.commons, self.pid(), number));
        self.effects.push(effects.clone());
        effects
    }

    /// The statement has ended well: what its functions left is done.
    pub fn settle(&mut self) {
        for effects in std::mem::take(&mut self.effects) {
            let left = effects.end();
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
        let (name, value) = (&setting.name, setting.value.as_deref());
        if identity::is_of_identity(name) {
            // Who may not any more was told so when it was set, and stays who it is.
            let _ = self.act_as(name, value, setting.local);
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
    pub(super) fn forget_effects(&mut self) {
        for effects in std::mem::take(&mut self.effects) {
            effects.end();
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
    pub fn end_of_transaction(&mut self) {
        self.transaction_number.store(0, Ordering::SeqCst);
        self.commons.advisory.end_transaction(self.pid(), 0);
    }

    /// NOTIFY.
    pub fn say(&mut self, channel: &str, payload: &str) -> Result<()> {
        crate::notifications::check(channel, payload)?;
        self.commons.channels.check_room(channel)?;
        self.announcements.say((channel.into(), payload.into()));
        Ok(())
    }

    /// LISTEN, UNLISTEN.
    pub fn hear(&mut self, hearing: Hearing) {
        self.announcements.hear(hearing);
    }

    /// The transaction has committed: what it said is told, what it listens to counts.
    pub(super) fn announce(&mut self) {
        if self.announcements.is_empty() {
            return;
        }
        let Announcements { said, heard } = std::mem::take(&mut self.announcements);
        let (commons, pid) = (self.commons.clone(), self.pid());
        for hearing in heard {
            match hearing {
                Hearing::Listen(channel) => {
                    commons.channels.listen(&channel, pid, &self.voice.mailbox)
                }
                Hearing::Unlisten(channel) => commons.channels.unlisten(channel.as_deref(), pid),
            }
        }
        for (channel, payload) in said {
            commons.channels.notify(&Notification {
                sender: pid,
                channel,
                payload,
            });
        }
    }

    /// Nobody listens here any more, and nothing is locked.
    pub(super) fn leave(&mut self) {
        self.forget_effects();
        self.commons.channels.unlisten(None, self.pid());
        self.commons.advisory.leave(self.pid());
    }
}
