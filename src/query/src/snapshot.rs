//! What a statement sees: the relations, their rows at one epoch, and who asks.

use crate::commons::Commons;
use crate::effects::Effects;
use crate::error::Notice;
use crate::privileges;
use crate::settings::Settings;
use datafusion::catalog::TableProvider;
use parking_lot::Mutex;
use postgres_types::Type;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use tidemark_common::{RelationId, Result, SqlState};
use tidemark_node::engine::Pin;
use tidemark_node::{Engine, WriteGuard};
use tidemark_plan::{Catalog, Privilege, Relation};
use tidemark_values::moment::{Zone, timestamptz_text};
use tokio::sync::mpsc::UnboundedSender;

/// A table of one statement alone.
#[derive(Clone)]
pub struct Override {
    /// Its name in the statement.
    pub name: String,
    /// The relation whose columns it has.
    pub relation: Arc<Relation>,
    /// Its rows.
    pub table: Arc<dyn TableProvider>,
}

/// What a statement sees.
#[derive(Clone)]
pub struct Snapshot {
    /// Where rows come from.
    pub commons: Arc<Commons>,
    /// The relations.
    pub catalog: Arc<Catalog>,
    /// The epoch.
    pub pin: Arc<Pin>,
    /// Tables whose rows are read through a guard: a block's own writes. The session alone keeps
    /// the guard: a planning that was given up locks nothing.
    pub written: Option<(Weak<Mutex<WriteGuard>>, Vec<RelationId>)>,
    /// Schemas for unqualified names.
    pub search_path: Vec<String>,
    /// Who asks.
    pub user: String,
    /// Tables that take the place of relations in this statement: RETURNING's rows, ON CONFLICT's
    /// `excluded`.
    pub overrides: Vec<Override>,
    /// Whether the plan may run again: then a run says which rows its scans see.
    pub again: bool,
    /// The session's settings.
    pub settings: Arc<Settings>,
    /// The statements that the client has prepared.
    pub prepared: Arc<dyn Lists>,
    /// What the statement's functions do to the session.
    pub effects: Arc<Effects>,
    /// To the client.
    pub notices: UnboundedSender<Notice>,
    /// Relations that it may read, by their names or through views.
    pub readable: Arc<Mutex<BTreeSet<RelationId>>>,
    /// Relations of which the client was told that their answer is old.
    pub told: Arc<Mutex<BTreeSet<RelationId>>>,
}

/// A prepared statement, as its client sees it in a list.
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The text that prepared it.
    pub text: String,
    /// When, in microseconds since 1970.
    pub since: i64,
    /// The types of its parameters, as far as they are known.
    pub types: Vec<Type>,
    /// Whether the text is a PREPARE.
    pub from_sql: bool,
}

/// Where a client's prepared statements are.
pub trait Lists: Send + Sync {
    /// Those that have a name, by their names.
    fn listed(&self) -> Vec<Listed>;
}

impl Snapshot {
    /// `42501` for a relation that who asks may not read.
    pub fn check_read(&self, relation: &Relation) -> Result<()> {
        let select = Privilege::Select;
        privileges::check(&self.catalog, &self.user, select, relation)
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.commons.engine
    }

    /// Tells the client, once a statement, that what it reads of a relation is the last complete
    /// answer of a job that does not run.
    pub fn warn_of_age(&self, relation: &Relation) {
        let catalog = self.engine().catalog();
        let Some(stopped) = catalog.stopped.get(&relation.id) else {
            return;
        };
        if !self.told.lock().insert(relation.id) {
            return;
        }
        let (name, kind) = (&relation.name, relation.kind.name().to_uppercase());
        let state = if stopped.held {
            "has been held back"
        } else {
            "has stood still"
        };
        let mut notice = Notice::warning(
            SqlState::OBJECT_NOT_READY,
            format!(
                "\"{name}\" {state} since {}: this is its answer as of epoch {} ({})",
                timestamptz_text(stopped.since, &Zone::UTC),
                stopped.epoch,
                stopped.reason
            ),
        );
        notice.hint = Some(format!(
            "When the cause is gone, ALTER {kind} {name} RESUME lets it go on where it was."
        ));
        // A client that is gone reads no notices.
        let _ = self.notices.send(notice);
    }

    /// Finds a relation by the search path.
    pub fn find(&self, schema: Option<&str>, name: &str) -> Option<&Arc<Relation>> {
        match schema {
            Some(schema) => self.catalog.find(schema, name),
            None => self
                .search_path
                .iter()
                .find_map(|schema| self.catalog.find(schema, name)),
        }
    }
}
