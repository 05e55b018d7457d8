//! The virtual tables: `tidemark.*` about the node, `pg_catalog` and `information_schema` for PostgreSQL's clients. Built per statement from its snapshot.

pub mod node;
pub mod oids;

use crate::serving::Snapshot;
use datafusion::catalog::TableProvider;
use std::sync::Arc;
use tidemark_common::Result;

/// The table of a system schema, if there is one of that name.
pub fn table(snapshot: &Snapshot, schema: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    match schema {
        "tidemark" => node::table(snapshot, name),
        _ => Ok(None),
    }
}

/// A table function of the system catalogs.
pub fn table_function(_name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    Ok(None)
}
