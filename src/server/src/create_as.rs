//! `CREATE TABLE t AS query`: the query's rows at one epoch, in a new table with the query's
//! columns. They are written by the epoch from which on the table counts: a crash finds both or
//! neither, and nobody sees the table without them.

use crate::dml;
use crate::protocol::error::{Notice, from_arrow};
use crate::protocol::types;
use crate::serving::collect::collect_bounded;
use crate::serving::functions::quote_ident;
use crate::session::{Outcome, Session};
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Column, Relation};
use tidemark_planner::statement::{Name, Statement, StatementKind};

/// A column as CREATE TABLE declares it.
fn definition(field: &Field) -> String {
    // A bare NULL has no type; PostgreSQL makes it text.
    let data_type = if field.data_type().is_null() {
        DataType::Utf8
    } else {
        field.data_type().clone()
    };
    let sql_type = types::declared(field).to_string();
    let column = Column {
        name: field.name().clone(),
        data_type,
        nullable: true,
        default: None,
        sql_type,
    };
    format!(
        "{} {}",
        quote_ident(field.name()),
        crate::show::column_type_name(&column)
    )
}

impl Session {
    pub(crate) async fn create_table_as(
        &mut self,
        name: &Name,
        if_not_exists: bool,
        query: &Statement,
    ) -> Result<Outcome> {
        if let Ok(found) = self.resolve(&self.catalog(), name) {
            if if_not_exists {
                self.notice(Notice::with_state(
                    SqlState::DUPLICATE_TABLE,
                    format!("relation \"{}\" already exists, skipping", found.name),
                ));
                return Ok(Outcome::Command("CREATE TABLE AS".into()));
            }
            return Err(Error::user(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists"),
            )
            .at(name.position));
        }
        let sql = match &query.kind {
            StatementKind::Sql(sql) if matches!(**sql, ast::Statement::Query(_)) => sql,
            _ => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "CREATE TABLE AS needs a query",
                ));
            }
        };
        let rows = self
            .select(sql)
            .await
            .map_err(|e| crate::serving::position::locate(e, query))?;
        let columns: Vec<String> = rows.schema.fields().iter().map(|f| definition(f)).collect();
        let batches = collect_bounded(rows.stream).await?;
        let full = name
            .schema
            .iter()
            .chain([&name.name])
            .map(|part| quote_ident(part))
            .collect::<Vec<_>>()
            .join(".");
        let create = format!("CREATE TABLE {full} ({})", columns.join(", "));
        let create = self.parse(&create).await?;
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        for statement in &create {
            self.create_filled(statement, batches.clone()).await?;
        }
        Ok(Outcome::Command(format!("SELECT {count}")))
    }
}

/// Rows of the query as rows of the table.
pub(crate) fn table_rows(
    relation: &Relation,
    batches: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let filled = batches.into_iter().filter(|b| b.num_rows() > 0);
    let rows = filled.map(|batch| {
        let arrays = batch
            .columns()
            .iter()
            .zip(&relation.columns)
            .map(|(a, c)| cast(a, &c.data_type))
            .collect::<std::result::Result<Vec<_>, _>>();
        dml::computed_batch(relation, arrays.map_err(from_arrow)?)
    });
    rows.collect()
}
