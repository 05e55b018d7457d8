//! What `pg_roles`, access lists and `information_schema` show of roles and privileges. The oid
//! of a role is fixed by its number, `root` has 10.

use super::build::{Cell, Row};
use super::oids;
use crate::snapshot::Snapshot;
use std::collections::BTreeMap;
use tidemark_plan::{Catalog, NewObject, Object, Privilege, ROOT, Relation, RelationKind, Role};

const FIRST: i32 = 10;

/// The oid of a role; that of `root` for one that is gone.
pub fn oid(catalog: &Catalog, name: &str) -> i32 {
    oid_of_number(catalog.role_id(name).unwrap_or(0))
}

/// The oid of the role that has, or had, this number.
pub fn oid_of_number(id: u32) -> i32 {
    FIRST.saturating_add_unsigned(id)
}

/// The role of an oid.
pub fn name(catalog: &Catalog, oid: &str) -> Option<String> {
    let id = u32::try_from(oid.parse::<i32>().ok()?.checked_sub(FIRST)?).ok()?;
    let mut all = catalog.all_roles().into_iter();
    all.find(|role| role.id == id).map(|role| role.name)
}

/// `pg_roles`, `pg_authid`.
pub fn all(s: &Snapshot) -> Vec<Row> {
    let row = |role: Role| {
        vec![
            ("oid", oid(&s.catalog, &role.name).into()),
            ("rolname", role.name.into()),
            ("rolsuper", role.superuser.into()),
            ("rolcreaterole", role.superuser.into()),
            ("rolcreatedb", role.superuser.into()),
            ("rolbypassrls", role.superuser.into()),
            ("rolcanlogin", role.login.into()),
            ("rolvaliduntil", role.valid_until.into()),
        ]
    };
    s.catalog.all_roles().into_iter().map(row).collect()
}

/// `pg_user`, `pg_shadow`.
pub fn users(s: &Snapshot) -> Vec<Row> {
    let users = s.catalog.all_roles().into_iter().filter(|role| role.login);
    let row = |role: Role| {
        vec![
            ("usesysid", oid(&s.catalog, &role.name).into()),
            ("usename", role.name.into()),
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

/// `pg_default_acl`: a row for each role, schema and kind of thing. As in PostgreSQL, the list of a
/// role for every schema begins with what the role itself has.
pub fn defaults(s: &Snapshot) -> Vec<Row> {
    type Key<'a> = (&'a str, Option<&'a str>, NewObject);
    let mut lists: BTreeMap<Key, BTreeMap<Option<&str>, String>> = BTreeMap::new();
    for grant in &s.catalog.default_grants {
        let key = (grant.role.as_str(), grant.schema.as_deref(), grant.of);
        let list = lists.entry(key).or_default();
        let letters = list.entry(grant.grantee.as_deref()).or_default();
        letters.push(grant.privilege.letter());
        if grant.with_option {
            letters.push('*');
        }
    }
    let row = |(number, ((role, schema, of), mut list)): (usize, (Key, BTreeMap<_, String>))| {
        let (kind, all) = match of {
            NewObject::Relations => ("r", Privilege::OF_RELATIONS),
            NewObject::Schemas => ("n", Privilege::OF_SCHEMAS),
        };
        if schema.is_none() {
            list.insert(Some(role), all.iter().map(|p| p.letter()).collect());
        }
        let item = |(grantee, letters): (Option<&str>, String)| {
            format!("{}={letters}/{role}", grantee.unwrap_or_default())
        };
        let schema = schema.map_or(0, |name| oids::of_schema(name, &s.catalog.schemas));
        vec![
            ("oid", (number as i32 + 1).into()),
            ("defaclrole", oid(&s.catalog, role).into()),
            ("defaclnamespace", schema.into()),
            ("defaclobjtype", kind.into()),
            (
                "defaclacl",
                Cell::Texts(list.into_iter().map(item).collect()),
            ),
        ]
    };
    lists.into_iter().enumerate().map(row).collect()
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
    let mut letters: BTreeMap<(Option<&str>, &str), String> = BTreeMap::new();
    for grant in catalog.grants.of(object) {
        let grantor = grant.grantor.as_deref().unwrap_or(owner);
        let to = letters
            .entry((grant.grantee.as_deref(), grantor))
            .or_default();
        to.push(grant.privilege.letter());
        if grant.with_option {
            to.push('*');
        }
    }
    if letters.is_empty() {
        return Cell::Null;
    }
    let own: String = all.iter().map(|p| p.letter()).collect();
    letters.insert((Some(owner), owner), own);
    let item = |((grantee, grantor), letters): ((Option<&str>, &str), String)| {
        format!("{}={letters}/{grantor}", grantee.unwrap_or_default())
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
        let mut row = |grantor: &str, grantee: &str, privilege: Privilege, owns: bool| {
            rows.push(vec![
                ("grantor", grantor.into()),
                ("grantee", grantee.into()),
                ("table_schema", (&relation.schema_name).into()),
                ("table_name", (&relation.name).into()),
                ("privilege_type", privilege.name().into()),
                ("is_grantable", if owns { "YES" } else { "NO" }.into()),
            ]);
        };
        for privilege in of_kind(relation.kind) {
            row(&relation.owner, &relation.owner, *privilege, true);
        }
        for grant in s.catalog.grants.of(&Object::Relation(relation.id)) {
            row(
                grant.grantor.as_deref().unwrap_or(&relation.owner),
                grant.grantee.as_deref().unwrap_or("PUBLIC"),
                grant.privilege,
                grant.with_option,
            );
        }
    }
    rows
}
