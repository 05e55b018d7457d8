//! Rewriting of queries over the system catalogs, with the rules of datafusion-pg-catalog.

use super::Snapshot;
use datafusion::sql::sqlparser::ast;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use std::sync::OnceLock;
use tidemark_common::Result;

/// Rewrites a system query.
pub fn rewrite(_: &Snapshot, statement: ast::Statement) -> Result<ast::Statement> {
    static RULES: OnceLock<PostgresCompatibilityParser> = OnceLock::new();
    Ok(RULES.get_or_init(PostgresCompatibilityParser::new).rewrite(statement))
}
