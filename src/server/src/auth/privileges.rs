//! What a session's role may do to schemas, relations and roles, asked before it is done.

use crate::session::Session;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Object, Privilege, Relation};
use tidemark_query::privileges::denied;

impl Session {
    /// `42501` unless it may create relations in a schema.
    pub(crate) fn require_creation_in(&self, schema: &str) -> Result<()> {
        let object = Object::Schema(schema.into());
        match self.catalog().may(self.user(), Privilege::Create, &object) {
            true => Ok(()),
            false => Err(denied("schema", schema)),
        }
    }

    /// `42501` unless it may create schemas.
    pub(crate) fn require_schema_creation(&self) -> Result<()> {
        let database = Object::Database;
        match self
            .catalog()
            .may(self.user(), Privilege::Create, &database)
        {
            true => Ok(()),
            false => Err(denied("database", "dev")),
        }
    }

    /// `42501` unless the relation is this session's.
    pub(crate) fn require_ownership(&self, relation: &Relation) -> Result<()> {
        match self.catalog().owns(self.user(), relation) {
            true => Ok(()),
            false => Err(not_owner(relation.kind.name(), &relation.name)),
        }
    }

    /// `42501` unless the schema is this session's.
    pub(crate) fn require_schema_ownership(&self, schema: &str) -> Result<()> {
        let (catalog, role) = (self.catalog(), self.user());
        let object = Object::Schema(schema.into());
        let own = catalog.owner_of(&object);
        let own = own.is_some_and(|owner| catalog.memberships(role).contains(owner));
        match own || catalog.is_superuser(role) {
            true => Ok(()),
            false => Err(not_owner("schema", schema)),
        }
    }

    /// `42501` unless it may do everything.
    pub(crate) fn require_superuser(&self, what: &str) -> Result<()> {
        if self.catalog().is_superuser(self.user()) {
            return Ok(());
        }
        let message = format!("must be superuser to {what}");
        Err(Error::user(SqlState("42501"), message))
    }
}

fn not_owner(what: &str, name: &str) -> Error {
    let message = format!("must be owner of {what} {name}");
    Error::user(SqlState("42501"), message)
}
