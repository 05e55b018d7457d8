//! What a role may do with a relation, asked before it is done. Relations that a view reads are
//! asked for when the view is created, of who creates it; who reads the view needs to be allowed
//! that alone.

use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Catalog, Object, Privilege, Relation};

/// `42501`.
pub fn denied(what: &str, name: &str) -> Error {
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
