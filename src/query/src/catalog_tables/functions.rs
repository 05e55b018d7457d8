//! What the catalogs say of functions that statements made.

use super::build::{Cell, Row};
use super::postgres::{column_type, data_type_name};
use super::{oids, roles};
use crate::snapshot::Snapshot;
use std::sync::Arc;
use tidemark_plan::{Column, Relation, RelationKind};
use tidemark_planner::functions::{declared, results};
use tidemark_planner::statement::{CreateFunction, Returns};

/// `record`, the type of rows of several columns.
const RECORD: i32 = 2249;

/// The languages `c`, and what is written in `sql`.
const SQL: i32 = 14;

/// The functions, with what made them.
fn functions(s: &Snapshot) -> impl Iterator<Item = (&Arc<Relation>, CreateFunction)> {
    let all = s.catalog.relations.values();
    let all = all.filter(|r| r.kind == RelationKind::Function);
    all.filter_map(|r| Some((r, declared(r).ok()?)))
}

fn type_oid(column: &Column) -> i32 {
    column_type(column).oid() as i32
}

/// Rows of `pg_proc`.
pub fn procedures(s: &Snapshot) -> Vec<Row> {
    functions(s)
        .map(|(r, made)| procedure(s, r, &made))
        .collect()
}

fn procedure(s: &Snapshot, r: &Relation, made: &CreateFunction) -> Row {
    let schema = oids::of_schema(&r.schema_name, &s.catalog.schemas);
    let given = results(made).unwrap_or_default();
    let sets = !matches!(made.returns, Some(Returns::Value(_)));
    let returned = match (&made.returns, given.as_slice()) {
        (Some(Returns::Rows(_)), [_, _, ..]) | (_, []) => RECORD,
        (_, [one, ..]) => type_oid(one),
    };
    let named = r.columns.iter().any(|c| !c.name.is_empty());
    let names: Vec<&str> = r.columns.iter().map(|c| c.name.as_str()).collect();
    let defaults = r.columns.iter().filter(|c| c.default.is_some()).count();
    let types = r.columns.iter().map(|c| type_oid(c).into()).collect();
    let volatility = made.volatility.to_lowercase();
    let flags = [
        ("prosecdef", false),
        ("proleakproof", false),
        ("proisstrict", made.strict),
        ("proretset", sets),
        ("proisagg", false),
        ("proiswindow", false),
    ];
    let mut row: Row = vec![
        ("oid", oids::of_relation(r.id).into()),
        ("proname", (&r.name).into()),
        ("pronamespace", schema.into()),
        ("proowner", roles::oid(&s.catalog, &r.owner).into()),
        ("prolang", SQL.into()),
        ("procost", 100.into()),
        ("prorows", if sets { 1000 } else { 0 }.into()),
        ("provariadic", 0.into()),
        ("prosupport", "-".into()),
        ("prokind", "f".into()),
        ("provolatile", volatility[..1].into()),
        ("proparallel", "u".into()),
        ("pronargs", r.columns.len().into()),
        ("pronargdefaults", defaults.into()),
        ("prorettype", returned.into()),
        ("proargtypes", Cell::Ints(types)),
        ("prosrc", (&r.query).into()),
    ];
    row.extend(flags.map(|(name, is)| (name, Cell::Bool(is))));
    if named {
        row.push(("proargnames", format!("{{{}}}", names.join(",")).into()));
    }
    row
}

fn specific(r: &Relation) -> String {
    format!("{}_{}", r.name, oids::of_relation(r.id))
}

/// Rows of `information_schema.routines`.
pub fn routines(s: &Snapshot) -> Vec<Row> {
    let row = |(r, made): (&Arc<Relation>, CreateFunction)| {
        let given = results(&made).unwrap_or_default();
        let (data_type, udt) = match (&made.returns, given.as_slice()) {
            (Some(Returns::Rows(_)), [_, _, ..]) | (_, []) => ("record".into(), "record".into()),
            (_, [one, ..]) => (data_type_name(one), column_type(one).name().to_string()),
        };
        let immutable = made.volatility == "IMMUTABLE";
        vec![
            ("specific_schema", (&r.schema_name).into()),
            ("specific_name", specific(r).into()),
            ("routine_schema", (&r.schema_name).into()),
            ("routine_name", (&r.name).into()),
            ("data_type", data_type.into()),
            ("type_udt_name", udt.into()),
            ("routine_definition", (&r.query).into()),
            (
                "is_deterministic",
                if immutable { "YES" } else { "NO" }.into(),
            ),
            (
                "is_null_call",
                if made.strict { "YES" } else { "NO" }.into(),
            ),
        ]
    };
    functions(s).map(row).collect()
}

/// Rows of `information_schema.parameters`.
pub fn parameters(s: &Snapshot) -> Vec<Row> {
    let rows = functions(s).flat_map(|(r, _)| {
        let one = |(at, c): (usize, &Column)| -> Row {
            let name = Some(&c.name).filter(|name| !name.is_empty());
            vec![
                ("specific_schema", (&r.schema_name).into()),
                ("specific_name", specific(r).into()),
                ("ordinal_position", (at + 1).into()),
                ("parameter_name", name.into()),
                ("data_type", data_type_name(c).into()),
                ("udt_name", column_type(c).name().into()),
                ("parameter_default", c.default.as_ref().into()),
            ]
        };
        r.columns.iter().enumerate().map(one).collect::<Vec<_>>()
    });
    rows.collect()
}
