//! Object identifiers. A relation's oid is fixed by its id, so that clients may keep it: 16384 + 8
//! * id, and next to it the oids of what belongs to the relation: its key's index, its key's
//! constraint, its row type and the array of that.

use tidemark_common::RelationId;

const FIRST: i32 = 16_384;
const STEP: i32 = 8;

/// The oid of a relation.
pub fn of_relation(id: RelationId) -> i32 {
    FIRST.saturating_add((id.0 as i32).saturating_mul(STEP))
}

/// The oid of the index of a relation's primary key.
pub fn of_key_index(id: RelationId) -> i32 {
    of_relation(id) + 1
}

/// The oid of a relation's primary key constraint.
pub fn of_constraint(id: RelationId) -> i32 {
    of_relation(id) + 2
}

/// The oid of a relation's row type.
pub fn of_row_type(id: RelationId) -> i32 {
    of_relation(id) + 3
}

/// Whether an oid is in the range of users' relations.
pub fn is_users(oid: i32) -> bool {
    oid >= FIRST
}

fn part(oid: i32, which: i32) -> Option<RelationId> {
    let offset = oid.checked_sub(FIRST).filter(|o| *o >= 0)?;
    (offset % STEP == which).then_some(RelationId((offset / STEP) as u32))
}

/// The relation of an oid.
pub fn relation(oid: i32) -> Option<RelationId> {
    part(oid, 0)
}

/// The relation whose primary key index an oid is.
pub fn relation_of_key_index(oid: i32) -> Option<RelationId> {
    part(oid, 1)
}

/// The relation whose primary key constraint an oid is.
pub fn relation_of_constraint(oid: i32) -> Option<RelationId> {
    part(oid, 2)
}

/// The oids of the system tables that clients name by `'pg_class'::regclass`.
pub fn of_system_table(name: &str) -> Option<i32> {
    Some(match name {
        "pg_type" => 1247,
        "pg_attribute" => 1249,
        "pg_proc" => 1255,
        "pg_class" => 1259,
        "pg_attrdef" => 2604,
        "pg_constraint" => 2606,
        "pg_index" => 2610,
        "pg_namespace" => 2615,
        "pg_rewrite" => 2618,
        "pg_trigger" => 2620,
        "pg_description" => 2609,
        "pg_database" => 1262,
        "pg_authid" => 1260,
        "pg_roles" => 12_000,
        "pg_tablespace" => 1213,
        "pg_language" => 2612,
        "pg_extension" => 3079,
        "pg_collation" => 3456,
        "pg_am" => 2601,
        "pg_operator" => 2617,
        "pg_enum" => 3501,
        "pg_foreign_server" => 1417,
        "pg_ts_config" => 3602,
        "pg_ts_dict" => 3600,
        _ => return None,
    })
}

/// The oid of a schema: PostgreSQL's for its own, then by position.
pub fn of_schema(name: &str, schemas: &[String]) -> i32 {
    match name {
        "pg_catalog" => 11,
        "public" => 2200,
        "information_schema" => 13_000,
        "tidemark" => 13_001,
        other => {
            14_000
                + schemas
                    .iter()
                    .position(|s| s == other)
                    .unwrap_or(schemas.len()) as i32
        }
    }
}

/// The oid of the wrapper that all foreign servers belong to.
pub const CONNECTORS: i32 = 15_000;

/// The oid of the foreign server that stands for the connector at this position.
pub fn of_connector(position: usize) -> i32 {
    CONNECTORS + 1 + position as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_read_back() {
        let id = RelationId(7);
        assert_eq!(relation(of_relation(id)), Some(id));
        assert_eq!(relation_of_key_index(of_key_index(id)), Some(id));
        assert_eq!(relation(of_key_index(id)), None);
        assert_eq!(relation(25), None);
    }
}
