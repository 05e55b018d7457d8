//! Sizes of relations. A relation's size is what its job's state takes in memory, in bytes: that
//! is where its rows are. An index keeps no rows, and views and sources none either.

use super::functions::{Arguments, oid_of_name, stable};
use crate::snapshot::Snapshot;
use arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_values::numeric::Numeric;

/// The function of that name, for one statement.
pub fn of_statement(snapshot: &Snapshot, name: &str) -> Option<Arc<ScalarUDF>> {
    use DataType::{Int64, Utf8};
    let s = snapshot.clone();
    Some(match name {
        "pg_size_pretty" => stable(name, Utf8, 1, |a| a[0].as_deref().map(pretty).transpose()),
        "pg_relation_size" | "pg_table_size" | "pg_total_relation_size" => {
            let sizes = OnceLock::new();
            stable(name, Int64, 1, move |a| {
                let Some(id) = relation(&s, a)? else {
                    return Ok(None);
                };
                let of_id = |id| *sizes.get_or_init(|| all(&s)).get(&id).unwrap_or(&0);
                Ok(Some(id.map_or(0, of_id).to_string()))
            })
        }
        "pg_indexes_size" => stable(name, Int64, 1, move |a| {
            Ok(relation(&s, a)?.map(|_| "0".into()))
        }),
        "pg_database_size" => stable(name, Int64, 1, move |a| {
            let Some(database) = a[0].as_deref() else {
                return Ok(None);
            };
            if database != "dev" && database.parse::<u32>().is_err() {
                return Err(Error::user(
                    SqlState("3D000"),
                    format!("database \"{database}\" does not exist"),
                ));
            }
            Ok(Some(all(&s).values().sum::<u64>().to_string()))
        }),
        "pg_tablespace_size" => stable(name, Int64, 1, move |a| {
            Ok(a[0]
                .as_ref()
                .map(|_| all(&s).values().sum::<u64>().to_string()))
        }),
        "pg_column_size" => stable(name, DataType::Int32, 1, |_| {
            Err(
                Error::unsupported("pg_column_size is not supported").with_hint(
                    "octet_length and pg_relation_size tell the size of values and relations.",
                ),
            )
        }),
        _ => return None,
    })
}

fn all(s: &Snapshot) -> HashMap<RelationId, u64> {
    let jobs = s.engine().jobs().into_iter();
    jobs.map(|j| (j.relation, j.memory_bytes)).collect()
}

/// The relation of the first argument: no relation for an oid that nothing has, and no id for
/// what the catalog is made of.
fn relation(s: &Snapshot, a: Arguments) -> Result<Option<Option<RelationId>>> {
    let Some(wanted) = a[0].as_deref() else {
        return Ok(None);
    };
    let oid = match wanted.parse::<i32>() {
        Ok(oid) => oid,
        Err(_) => oid_of_name(s, wanted).ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{wanted}\" does not exist"),
            )
        })?,
    };
    use crate::catalog_tables::oids;
    let known = |id: &RelationId| s.catalog.relations.contains_key(id);
    if let Some(id) = oids::relation(oid).filter(known) {
        return Ok(Some(Some(id)));
    }
    let of_key = oids::relation_of_key_index(oid).is_some_and(|id| known(&id));
    Ok((of_key || !oids::is_users(oid)).then_some(None))
}

/// `pg_size_pretty`: units of 1024, each from 10 of it on, rounded to the nearest.
fn pretty(text: &str) -> Result<String> {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let whole = text.parse::<Numeric>()?.trunc(0)?;
    let Some(mut size) = whole.to_i128(0) else {
        return Ok(format!("{text} bytes"));
    };
    if size.abs() < 10 * 1024 {
        return Ok(format!("{text} bytes"));
    }
    // Halves of the unit from here on, to be rounded at the end.
    size /= 1 << 9;
    let mut unit = 1;
    while size.abs() >= 20 * 1024 - 1 && unit + 1 < UNITS.len() {
        size /= 1 << 10;
        unit += 1;
    }
    let rounded = (size + size.signum()) / 2;
    Ok(format!("{rounded} {}", UNITS[unit]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_in_postgresql() {
        for (bytes, shown) in [
            ("0", "0 bytes"),
            ("10239", "10239 bytes"),
            ("10240", "10 kB"),
            ("10752", "11 kB"),
            ("-10751", "-10 kB"),
            ("10484736", "10239 kB"),
            ("10484735", "10239 kB"),
            ("1.5", "1.5 bytes"),
            ("10485759", "10 MB"),
            ("9223372036854775807", "8192 PB"),
            ("1000000000000", "931 GB"),
        ] {
            assert_eq!(pretty(bytes).unwrap(), shown, "{bytes}");
        }
        assert!(pretty("x").is_err());
    }
}
