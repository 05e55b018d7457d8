//! What a role may do with a relation, asked before it is done. Who reads a plain view needs to be
//! allowed that alone; what the view reads, its owner needs to be allowed, at each reading as in
//! PostgreSQL. A materialized view and a sink read for themselves, so they ask when they are
//! created, of who creates them.

use std::collections::BTreeSet;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Catalog, Object, Privilege, Relation};
use tidemark_planner::Read;

/// `42501`.
pub fn denied(what: &str, name: &str) -> Error {
    let message = format!("permission denied for {what} {name}");
    Error::user(SqlState("42501"), message)
}

/// What others are shown of a statement, in PostgreSQL's words.
pub const UNSEEN: &str = "<insufficient privilege>";

/// Whether a role may see and end what a session of another one does.
pub fn may_watch(catalog: &Catalog, role: &str, other: &str) -> bool {
    catalog.is_superuser(role) || catalog.memberships(role).contains(other)
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
