//! The tables of `pg_catalog` that say what PostgreSQL itself is made of: types, functions,
//! operators, keywords. They never change, so they are exports of a PostgreSQL's own catalog
//! (`exports/`, with the script that makes them anew), read when a client first asks.
//!
//! A file is one table: its first line describes the columns in the words of
//! [`build`](super::build), the others are rows as COPY writes them. Columns beyond the end of a
//! row have their default.

use super::build::{self, Cell, Row};
use datafusion::catalog::TableProvider;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tidemark_common::{Error, Result};

struct Export {
    name: &'static str,
    text: &'static str,
    table: OnceLock<Result<Arc<dyn TableProvider>>>,
}

macro_rules! exports {
    ($($name:literal),+ $(,)?) => {
        [$(Export {
            name: $name,
            text: include_str!(concat!("exports/", $name, ".tsv")),
            table: OnceLock::new(),
        }),+]
    };
}

static EXPORTS: [Export; 20] = exports![
    "pg_aggregate",
    "pg_am",
    "pg_amop",
    "pg_amproc",
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_get_keywords",
    "pg_language",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_proc",
    "pg_range",
    "pg_tablespace",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
];

/// The exported table of that name.
pub fn table(name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let Some(export) = EXPORTS.iter().find(|e| e.name == name) else {
        return Ok(None);
    };
    let table = export.table.get_or_init(|| read(export, Vec::new()));
    table.clone().map(Some)
}

/// The same with more rows.
pub fn with_rows(name: &str, more: Vec<Row>) -> Result<Option<Arc<dyn TableProvider>>> {
    match EXPORTS.iter().find(|e| e.name == name) {
        Some(export) if !more.is_empty() => read(export, more).map(Some),
        _ => table(name),
    }
}

/// The oid of a built-in function by its name, with or without a schema. Of several functions of
/// one name it is the last.
pub fn function_oid(name: &str) -> Option<i32> {
    static BY_NAME: OnceLock<HashMap<&'static str, i32>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| {
        let functions = EXPORTS.iter().find(|e| e.name == "pg_proc");
        let rows = functions.map_or("", |e| e.text).lines().skip(1);
        let oid_and_name = |row: &'static str| {
            let (oid, rest) = row.split_once('\t')?;
            let (name, _) = rest.split_once('\t')?;
            Some((name, oid.parse().ok()?))
        };
        rows.filter_map(oid_and_name).collect()
    });
    let base = name.rsplit('.').next().unwrap_or(name);
    by_name.get(base).copied()
}

fn read(export: &Export, more: Vec<Row>) -> Result<Arc<dyn TableProvider>> {
    let (description, rows) = export.text.split_once('\n').unwrap_or((export.text, ""));
    let columns = build::names_and_kinds(description);
    let damaged = |row: &str| {
        let start: String = row.chars().take(40).collect();
        Error::internal(format!("a row of {} cannot be read: {start}", export.name))
    };
    let row = |row: &'static str| -> Result<Row> {
        let cells = row.split('\t').zip(&columns);
        cells
            .map(|(text, (name, kind))| {
                let cell = cell(text, kind).ok_or_else(|| damaged(row))?;
                Ok((*name, cell))
            })
            .collect()
    };
    let mut rows = rows.lines().map(row).collect::<Result<Vec<Row>>>()?;
    rows.extend(more);
    build::table(description, rows)
}

/// A value as COPY writes it; nothing if it is not of its kind.
fn cell(text: &str, kind: &str) -> Option<Cell> {
    if text == "\\N" {
        return Some(Cell::Null);
    }
    Some(match kind {
        "oid" | "int2" | "int4" | "int8" => Cell::Int(text.parse().ok()?),
        "float4" => Cell::Int(text.parse::<f64>().ok()?.round() as i64),
        "bool" => Cell::Bool(text == "t"),
        "int2vector" | "oidvector" => {
            let numbers = text.split_whitespace().map(str::parse);
            Cell::Ints(numbers.collect::<Result<_, _>>().ok()?)
        }
        "text" | "name" | "char" => Cell::Text(unescaped(text)),
        _ => return None,
    })
}

/// Text without the escapes of COPY.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_string();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_export_is_read() {
        for export in &EXPORTS {
            let table = table(export.name).unwrap().unwrap();
            let (description, _) = export.text.split_once('\n').unwrap();
            let columns = build::names_and_kinds(description).len();
            assert_eq!(table.schema().fields().len(), columns, "{}", export.name);
        }
        assert!(table("pg_class").unwrap().is_none());
    }

    #[test]
    fn functions_are_found_by_name() {
        assert_eq!(function_oid("pg_catalog.array_in"), Some(750));
        assert_eq!(function_oid("array_in"), Some(750));
        assert_eq!(function_oid("no_such_function"), None);
    }

    #[test]
    fn copys_escapes_are_undone() {
        assert_eq!(unescaped("a\\tb\\\\c\\nd"), "a\tb\\c\nd");
        assert_eq!(cell("\\N", "oid"), Some(Cell::Null));
        assert_eq!(cell("20 25", "oidvector"), Some(Cell::Ints(vec![20, 25])));
        assert_eq!(cell("x", "int4"), None);
    }
}
