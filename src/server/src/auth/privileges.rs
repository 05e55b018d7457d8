//! What a session's role may do, asked before it is done. Who reads a plain view needs to be
//! allowed that alone; what the view reads, its owner needs to be allowed, at each reading as in
//! PostgreSQL. A materialized view and a sink read for themselves, so they ask when they are
//! created, of who creates them.

use crate::session::Session;
use std::collections::BTreeSet;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Catalog, Object, Privilege, Relation};
use tidemark_planner::Read;

/// `42501`.
pub(crate) fn denied(what: &str, name: &str) -> Error {
    let message = format!("permission denied for {what} {name}");
    Error::user(SqlState("42501"), message)
}

/// Whether a role may do something with a relation, and name its schema.
///
/// Errors: `42501`.
pub fn check(
    catalog: &Catalog,
    role: &str,
    privilege: Privilege,
    relation: &Relation,
) -> Result<()> {
    if catalog.is_superuser(role) {
        return Ok(());
    }
    let schema = Object::Schema(relation.schema_name.clone());
    if !catalog.may(role, Privilege::Usage, &schema) {
        return Err(denied("schema", &relation.schema_name));
    }
    match catalog.may(role, privilege, &Object::Relation(relation.id)) {
        true => Ok(()),
        false => Err(denied(relation.kind.name(), &relation.name)),
    }
}

/// Whether a role may read what a query names, and the owners of the views among that what their
/// views name.
///
/// Errors: `42501`.
pub fn check_reads(catalog: &Catalog, role: &str, reads: &BTreeSet<Read>) -> Result<()> {
    for read in reads {
        let view = read.within.and_then(|id| catalog.relations.get(&id));
        let reader = view.map_or(role, |view| view.owner.as_str());
        if let Some(relation) = catalog.relations.get(&read.relation) {
            check(catalog, reader, Privilege::Select, relation)?;
        }
    }
    Ok(())
}

impl Session {
    /// `42501` unless this session may do something with a relation.
    pub(crate) fn require(&self, privilege: Privilege, relation: &Relation) -> Result<()> {
        check(&self.catalog(), self.user(), privilege, relation)
    }

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
