//! The virtual tables: `tidemark.*` about the node, `pg_catalog` and `information_schema` for
//! PostgreSQL's clients. Built per statement from its snapshot.

pub mod build;
mod functions;
pub mod information;
pub mod node;
pub mod oids;
pub mod postgres;
pub mod roles;
mod sessions;
pub mod statics;
mod zones;

use crate::snapshot::Snapshot;
use datafusion::catalog::TableProvider;
use std::sync::Arc;
use tidemark_common::Result;

/// The table of a system schema, if there is one of that name.
pub fn table(
    snapshot: &Snapshot,
    schema: &str,
    name: &str,
) -> Result<Option<Arc<dyn TableProvider>>> {
    match schema {
        "tidemark" => node::table(snapshot, name),
        "pg_catalog" => postgres::system_table(snapshot, name),
        "information_schema" => information::system_table(snapshot, name),
        _ => Ok(None),
    }
}

/// Functions whose rows have several columns.
pub const TABLE_FUNCTIONS: [&str; 2] = ["pg_available_extensions", "pg_get_keywords"];

/// A table function of the system catalogs.
pub fn table_function(name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    match name {
        "pg_get_keywords" => statics::table(name),
        "pg_available_extensions" => {
            build::table("name name, default_version text, comment text", Vec::new()).map(Some)
        }
        _ => Ok(None),
    }
}
