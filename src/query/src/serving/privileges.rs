//! `has_table_privilege` and its relatives. What has no privileges here, a function or a type, may
//! be used by everybody. What does not exist, and words that are no privileges, are errors as in
//! PostgreSQL. An oid that nothing has gives NULL.

use super::functions::{Arguments, no_function, oid_of_name, relation_of, stable};
use crate::catalog_tables::{oids, roles, statics};
use crate::snapshot::Snapshot;
use crate::types;
use arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Object, Privilege};

/// The kinds of things, each with its privileges.
const KINDS: [(&str, &[&str]); 12] = [
    ("table", TABLE),
    ("any_column", COLUMN),
    ("column", COLUMN),
    ("schema", &["CREATE", "USAGE"]),
    ("database", &["CREATE", "CONNECT", "TEMPORARY", "TEMP"]),
    ("function", &["EXECUTE"]),
    ("sequence", &["USAGE", "SELECT", "UPDATE"]),
    ("type", &["USAGE"]),
    ("language", &["USAGE"]),
    ("foreign_data_wrapper", &["USAGE"]),
    ("server", &["USAGE"]),
    ("tablespace", &["CREATE"]),
];

const TABLE: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REFERENCES",
    "TRIGGER",
];
const COLUMN: &[&str] = &["SELECT", "INSERT", "UPDATE", "REFERENCES"];
const ROLE: &[&str] = &["MEMBER", "USAGE"];

/// The function of that name, for one statement.
pub fn of_statement(snapshot: &Snapshot, name: &str) -> Option<Arc<ScalarUDF>> {
    let (kind, words) = if name == "pg_has_role" {
        ("role", ROLE)
    } else {
        let kind = name.strip_prefix("has_")?.strip_suffix("_privilege")?;
        *KINDS.iter().find(|(k, _)| *k == kind)?
    };
    let (s, own) = (snapshot.clone(), name.to_string());
    Some(stable(name, DataType::Boolean, 2, move |a| {
        answer(&s, &own, kind, words, a)
    }))
}

fn answer(
    s: &Snapshot,
    name: &str,
    kind: &str,
    words: &[&str],
    a: Arguments,
) -> Result<Option<String>> {
    let things = if kind == "column" { 2 } else { 1 };
    if a.len() > things + 2 || a.len() < things + 1 {
        let types = vec![DataType::Utf8; a.len()];
        let e = no_function(name, &types);
        return Err(crate::error::from_datafusion(e));
    }
    let Some(texts) = a
        .iter()
        .map(Option::as_deref)
        .collect::<Option<Vec<&str>>>()
    else {
        return Ok(None);
    };
    let role = match texts.len() == things + 2 {
        true => role_named(s, texts[0])?,
        false => s.user.clone(),
    };
    let (asked, privileges) = (
        &texts[texts.len() - 1 - things..texts.len() - 1],
        texts[texts.len() - 1],
    );
    check_words(privileges, words)?;
    if !exists(s, kind, asked)? {
        return Ok(None);
    }
    let mut each = privileges.split(',').map(|p| p.trim().to_uppercase());
    Ok(Some(
        each.any(|p| holds(s, &role, kind, asked[0], &p))
            .to_string(),
    ))
}

/// Whether a role has a privilege of a thing that exists.
fn holds(s: &Snapshot, role: &str, kind: &str, thing: &str, privilege: &str) -> bool {
    let catalog = &s.catalog;
    let word = privilege.split(' ').next().unwrap_or_default();
    let grants = privilege.contains(" WITH ");
    let object = match kind {
        "table" | "any_column" | "column" => {
            let oid = thing.parse::<i32>().ok().or_else(|| oid_of_name(s, thing));
            let relation = oid.and_then(|oid| relation_of(s, &oid.to_string()));
            // Everybody reads the catalogs.
            let Some(relation) = relation else {
                return word == "SELECT" || catalog.is_superuser(role);
            };
            Object::Relation(relation.id)
        }
        "schema" => {
            let own = |n: &&String| oids::of_schema(n, &catalog.schemas).to_string() == thing;
            let by_oid = catalog.schemas.iter().find(own);
            match by_oid.map_or(thing, String::as_str) {
                "pg_catalog" | "information_schema" | "tidemark" => return word == "USAGE",
                name => Object::Schema(name.into()),
            }
        }
        "database" => Object::Database,
        "role" => {
            let of = role_named(s, thing).unwrap_or_default();
            return catalog.is_superuser(role) || catalog.memberships(role).contains(&of);
        }
        _ => return true,
    };
    let all = [
        Privilege::OF_RELATIONS,
        Privilege::OF_SCHEMAS,
        Privilege::OF_DATABASES,
    ];
    let privilege = all.into_iter().flatten().find(|p| p.name() == word);
    match privilege {
        Some(privilege) if grants => catalog.grantor(role, *privilege, &object).is_some(),
        Some(privilege) => catalog.may(role, *privilege, &object),
        // There are no such things to be granted, but nothing is kept from who owns all.
        _ => catalog.is_superuser(role),
    }
}

fn check_words(privileges: &str, words: &[&str]) -> Result<()> {
    for privilege in privileges.split(',') {
        let upper = privilege.trim().to_uppercase();
        let word = upper.trim_end_matches(" WITH GRANT OPTION");
        let word = word.trim_end_matches(" WITH ADMIN OPTION");
        if !words.contains(&word) {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("unrecognized privilege type: \"{}\"", privilege.trim()),
            ));
        }
    }
    Ok(())
}

fn is_oid(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

/// A role by its name or oid.
fn role_named(s: &Snapshot, role: &str) -> Result<String> {
    if is_oid(role) {
        return Ok(roles::name(&s.catalog, role).unwrap_or_default());
    }
    match role == "public" || s.catalog.role(role).is_some() {
        true => Ok(role.to_string()),
        false => Err(missing("role", role)),
    }
}

fn missing(what: &str, name: &str) -> Error {
    let state = match what {
        "relation" => SqlState::UNDEFINED_TABLE,
        "schema" => SqlState::INVALID_SCHEMA_NAME,
        "database" => SqlState("3D000"),
        "function" => SqlState::UNDEFINED_FUNCTION,
        _ => SqlState::UNDEFINED_OBJECT,
    };
    Error::user(state, format!("{what} \"{name}\" does not exist"))
}

/// Whether there is such a thing: false for an oid that nothing has, an error for a name.
fn exists(s: &Snapshot, kind: &str, names: &[&str]) -> Result<bool> {
    let [name, rest @ ..] = names else {
        return Ok(false);
    };
    if *name == "0" {
        return Ok(false);
    }
    let named = |known: bool, what: &str| {
        if known || is_oid(name) {
            Ok(true)
        } else {
            Err(missing(what, name))
        }
    };
    match kind {
        "table" | "any_column" | "column" | "sequence" => {
            let oid = match name.parse::<i32>() {
                Ok(oid) => Some(oid),
                Err(_) => oid_of_name(s, name),
            };
            let Some(oid) = oid else {
                return Err(missing("relation", name));
            };
            let relation = relation_of(s, &oid.to_string());
            if is_oid(name) && relation.is_none() && oids::is_users(oid) {
                return Ok(false);
            }
            if let (Some(relation), [column]) = (relation, rest)
                && !is_oid(column)
                && !relation.columns.iter().any(|c| c.name == *column)
            {
                return Err(Error::user(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{column}\" of relation \"{}\" does not exist",
                        relation.name
                    ),
                ));
            }
            Ok(true)
        }
        "schema" => {
            let own = ["public", "pg_catalog", "information_schema", "tidemark"];
            let known = own.contains(name) || s.catalog.schemas.iter().any(|n| n == name);
            named(known, "schema")
        }
        "database" => named(*name == "dev", "database"),
        "function" => {
            let known = statics::function_oid(name.split('(').next().unwrap_or(name));
            named(known.is_some(), "function")
        }
        "type" => named(types::by_name(name).is_some(), "type"),
        "language" => named(["internal", "c", "sql"].contains(name), "language"),
        "tablespace" => named(["pg_default", "pg_global"].contains(name), "tablespace"),
        "foreign_data_wrapper" => {
            let connectors = s.catalog.relations.values();
            let mut connectors = connectors.filter_map(|r| r.connector.as_ref());
            let known = connectors.any(|c| c.connector == *name);
            named(known, "foreign-data wrapper")
        }
        "server" => named(false, "server"),
        _ => role_named(s, name).map(|_| true),
    }
}
