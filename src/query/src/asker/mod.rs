//! Who asks: what one client's statements share, and nothing of how they come or how rows go. That
//! is its role ([`identity`]), its settings, its transaction ([`transaction`]), what it said to
//! others and they to it ([`effects`]), and how it reads ([`reads`]).

mod effects;
mod identity;
mod reads;
pub mod transaction;

use crate::commons::Commons;
use crate::effects::{Announcements, Effects};
use crate::error::Notice;
use crate::notifications::Mailbox;
use crate::outcome::Status;
use crate::privileges;
use crate::serving::Serving;
use crate::serving::plans::Plans;
use crate::serving::slots::KnownSlots;
use crate::settings::Settings;
use crate::snapshot::Lists;
use datafusion::execution::SessionState;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_plan::{Catalog, Privilege, Relation};
use tidemark_planner::statement::Name;
use tidemark_values::moment::Zone;
use tokio::sync::mpsc::UnboundedSender;
use transaction::Transaction;

/// One client, as its statements know it.
pub struct Asker {
    pub(crate) commons: Arc<Commons>,
    pub(crate) serving: Arc<Serving>,
    /// What it has set.
    pub settings: Arc<Settings>,
    /// The time zone of these settings.
    zone: (Arc<Settings>, Zone),
    pub(crate) transaction: Transaction,
    /// The last epoch in which it wrote to each table, until all can read it: its next read of
    /// what is made of the table waits for it.
    written: BTreeMap<RelationId, Epoch>,
    /// DataFusion's state with its functions.
    pub(crate) state: SessionState,
    pid: i32,
    taken: identity::Taken,
    /// The catalog and the settings by which its roles were checked last.
    checked: (Weak<Catalog>, Arc<Settings>),
    voice: Voice,
    /// The statements that it has prepared.
    prepared: Arc<dyn Lists>,
    /// Plans of its last queries.
    pub(crate) plans: Plans,
    /// What their texts leave open.
    pub(crate) known_slots: KnownSlots,
    /// What the running statement's functions leave to do.
    effects: Vec<Arc<Effects>>,
    announcements: Announcements,
    /// The number of the transaction; 0 if it has none yet.
    transaction_number: Arc<AtomicI64>,
    /// Whether the running statement's writes are on their way to the log: from then on it cannot
    /// be undone.
    submitted: Arc<AtomicBool>,
}

/// Ways to a client beside its results.
pub struct Voice {
    /// For notices.
    pub notices: UnboundedSender<Notice>,
    /// For settings that it is told when they change.
    pub reports: UnboundedSender<(String, String)>,
    /// For what others say on the channels that it listens to.
    pub mailbox: Mailbox,
}

impl Asker {
    /// A client that has just arrived.
    pub fn new(
        commons: Arc<Commons>,
        serving: Arc<Serving>,
        pid: i32,
        user: String,
        startup: &BTreeMap<String, String>,
        voice: Voice,
        prepared: Arc<dyn Lists>,
    ) -> Asker {
        let state = serving.session_state(pid, &commons);
        let catalog = commons.engine.catalog();
        let superuser = catalog.is_superuser(&user);
        let settings = Arc::new(Settings::new(&user, superuser, startup));
        let mut taken = identity::Taken::default();
        taken.take(&catalog, &user);
        Asker {
            zone: (settings.clone(), settings.zone()),
            checked: (Weak::new(), settings.clone()),
            settings,
            transaction: Transaction::default(),
            written: BTreeMap::new(),
            state,
            pid,
            taken,
            voice,
            prepared,
            plans: Plans::default(),
            known_slots: KnownSlots::default(),
            effects: Vec::new(),
            announcements: Announcements::default(),
            transaction_number: Arc::default(),
            submitted: Arc::default(),
            commons,
            serving,
        }
    }

    /// Number of the connection.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The role whose privileges the client's statements have.
    pub fn user(&self) -> &str {
        self.settings.user()
    }

    /// For those who cancel statements.
    pub fn submitted(&self) -> Arc<AtomicBool> {
        self.submitted.clone()
    }

    /// The time zone in which the client reads and writes moments.
    pub fn zone(&mut self) -> Zone {
        if !Arc::ptr_eq(&self.zone.0, &self.settings) {
            self.zone = (self.settings.clone(), self.settings.zone());
        }
        self.zone.1.clone()
    }

    /// Where the transaction stands.
    pub fn status(&self) -> Status {
        self.transaction.status()
    }

    /// A statement begins.
    pub fn arrive(&mut self) {
        self.settle();
        self.submitted.store(false, Ordering::SeqCst);
    }

    /// A statement failed: a transaction block is spoiled.
    pub fn failed(&mut self) {
        self.transaction.fail();
        self.forget_effects();
    }

    /// The client is sent away: nothing is held any more.
    pub fn abandon(&mut self) {
        self.transaction = Transaction::default();
        self.leave();
    }

    /// Sends a notice; it reaches the client while the statement still runs.
    pub fn notice(&self, notice: Notice) {
        // A client that is gone reads none.
        let _ = self.voice.notices.send(notice);
    }

    /// A sender for notices that outlives the borrow of the asker.
    pub fn notice_sender(&self) -> UnboundedSender<Notice> {
        self.voice.notices.clone()
    }

    /// Tells a setting that has changed.
    pub fn report(&self, name: String, value: String) {
        let _ = self.voice.reports.send((name, value));
    }

    /// The newest relations.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.commons.engine.catalog()
    }

    /// Finds a relation by the search path.
    pub fn resolve(&self, catalog: &Catalog, name: &Name) -> Result<Arc<Relation>> {
        let found = match &name.schema {
            Some(schema) => catalog.find(schema, &name.name),
            None => self
                .settings
                .search_path()
                .iter()
                .find_map(|schema| catalog.find(schema, &name.name)),
        };
        found.cloned().ok_or_else(|| {
            let e = Error::user(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{name}\" does not exist"),
            );
            if name.position > 0 {
                e.at(name.position)
            } else {
                e
            }
        })
    }

    /// `42501` unless the client may do something with a relation.
    pub fn require(&self, privilege: Privilege, relation: &Relation) -> Result<()> {
        privileges::check(&self.catalog(), self.user(), privilege, relation)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.leave();
    }
}
