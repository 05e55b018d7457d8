//! What `pg_roles`, access lists and `information_schema` show of roles and privileges. Oids of
//! roles go by their order, `root` is 10.

use super::build::{Cell, Row};
use crate::snapshot::Snapshot;
use std::collections::BTreeMap;
use tidemark_plan::{Catalog, Object, Privilege, ROOT, Relation, RelationKind, Role};

const FIRST: i32 = 10;

/// The oid of a role; that of `root` for one that is gone.
pub fn oid(catalog: &Catalog, name: &str) -> i32 {
    let mut others = catalog.roles.keys().filter(|other| *other != ROOT);
    match others.position(|other| other == name) {
        Some(place) => FIRST + 1 + place as i32,
        None => FIRST,
    }
}

/// The role of an oid.
pub fn name(catalog: &Catalog, oid: &str) -> Option<String> {
    let place = oid.parse::<i32>().ok()?.checked_sub(FIRST)?;
    let all = catalog.all_roles();
    Some(all.get(usize::try_from(place).ok()?)?.name.clone())
}

/// `pg_roles`, `pg_authid`.
pub fn all(s: &Snapshot) -> Vec<Row> {
    let row = |(i, role): (usize, Role)| {
        vec![
            ("rolname", role.name.into()),
            ("oid", (FIRST + i as i32).into()),
            ("rolsuper", role.superuser.into()),
            ("rolcreaterole", role.superuser.into()),
            ("rolcreatedb", role.superuser.into()),
            ("rolbypassrls", role.superuser.into()),
            ("rolcanlogin", role.login.into()),
            ("rolvaliduntil", role.valid_until.into()),
        ]
    };
    s.catalog
        .all_roles()
        .into_iter()
        .enumerate()
        .map(row)
        .collect()
}

/// `pg_user`, `pg_shadow`.
pub fn users(s: &Snapshot) -> Vec<Row> {
    let all = s.catalog.all_roles().into_iter().enumerate();
    let users = all.filter(|(_, role)| role.login);
    let row = |(i, role): (usize, Role)| {
        vec![
            ("usename", role.name.into()),
            ("usesysid", (FIRST + i as i32).into()),
            ("usecreatedb", role.superuser.into()),
            ("usesuper", role.superuser.into()),
            ("usebypassrls", role.superuser.into()),
            ("valuntil", role.valid_until.into()),
        ]
    };
    users.map(row).collect()
}

/// `pg_auth_members`.
pub fn members(s: &Snapshot) -> Vec<Row> {
    let roles = s.catalog.roles.values();
    let pairs = roles.flat_map(|member| member.member_of.iter().map(move |role| (role, member)));
    let row = |(role, member): (&String, &Role)| {
        vec![
            ("roleid", oid(&s.catalog, role).into()),
            ("member", oid(&s.catalog, &member.name).into()),
        ]
    };
    pairs.map(row).collect()
}

/// The privileges that a relation of this kind has.
fn of_kind(kind: RelationKind) -> &'static [Privilege] {
    match kind {
        RelationKind::Table => Privilege::OF_RELATIONS,
        _ => &[Privilege::Select],
    }
}

/// The access list of a relation, `{root=arwd/root,app=r/root}`; NULL if nothing was granted.
pub fn list_of_relation(s: &Snapshot, relation: &Relation) -> Cell {
    let object = Object::Relation(relation.id);
    list(&s.catalog, &object, &relation.owner, of_kind(relation.kind))
}

/// The same of a schema.
pub fn list_of_schema(s: &Snapshot, schema: &str) -> Cell {
    let object = Object::Schema(schema.into());
    let owner = s.catalog.owner_of(&object).unwrap_or(ROOT);
    list(&s.catalog, &object, owner, Privilege::OF_SCHEMAS)
}

fn list(catalog: &Catalog, object: &Object, owner: &str, all: &[Privilege]) -> Cell {
    let mut letters: BTreeMap<Option<&str>, String> = BTreeMap::new();
    for grant in catalog.grants.of(object) {
        let to = letters.entry(grant.grantee.as_deref()).or_default();
        to.push(grant.privilege.letter());
    }
    if letters.is_empty() {
        return Cell::Null;
    }
    let own: String = all.iter().map(|p| p.letter()).collect();
    letters.insert(Some(owner), own);
    let item = |(grantee, letters): (Option<&str>, String)| {
        format!("{}={letters}/{owner}", grantee.unwrap_or_default())
    };
    Cell::Texts(letters.into_iter().map(item).collect())
}

/// `information_schema.table_privileges`: the owner's, and what was granted.
pub fn of_relations<'a>(
    s: &Snapshot,
    relations: impl Iterator<Item = &'a std::sync::Arc<Relation>>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in relations {
        let mut row = |grantee: &str, privilege: Privilege, owns: bool| {
            rows.push(vec![
                ("grantor", (&relation.owner).into()),
                ("grantee", grantee.into()),
                ("table_schema", (&relation.schema_name).into()),
                ("table_name", (&relation.name).into()),
                ("privilege_type", privilege.name().into()),
                ("is_grantable", if owns { "YES" } else { "NO" }.into()),
            ]);
        };
        for privilege in of_kind(relation.kind) {
            row(&relation.owner, *privilege, true);
        }
        for grant in s.catalog.grants.of(&Object::Relation(relation.id)) {
            row(
                grant.grantee.as_deref().unwrap_or("PUBLIC"),
                grant.privilege,
                false,
            );
        }
    }
    rows
}
