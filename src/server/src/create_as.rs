//! `CREATE TABLE t [(names)] AS query`: the query's rows at one epoch, in a new table with the
//! query's columns, under other names if these are given. They are written by the epoch from which
//! on the table counts: a crash finds both or neither, and nobody sees the table without them.

use crate::session::Session;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use tidemark_common::{Error, Result, SqlState};
use tidemark_operator::functions::cast_array;
use tidemark_plan::{Column, Relation, declared_numeric};
use tidemark_planner::NUMERIC;
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{Name, Statement, StatementKind};
use tidemark_query::dml;
use tidemark_query::error::{Notice, from_datafusion};
use tidemark_query::identifiers::quote_ident;
use tidemark_query::outcome::Outcome;
use tidemark_query::serving::collect::collect_bounded;
use tidemark_query::types;

/// A column as CREATE TABLE declares it.
fn definition(field: &Field) -> String {
    let data_type = match field.data_type() {
        // A bare NULL has no type; PostgreSQL makes it text.
        DataType::Null => DataType::Utf8,
        // What is computed has any digits.
        DataType::Decimal128(..) if declared_numeric(field).is_none() => NUMERIC,
        other => other.clone(),
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
        tidemark_query::types::column_type_name(&column)
    )
}

impl Session {
    pub(crate) async fn create_table_as(
        &mut self,
        name: &Name,
        if_not_exists: bool,
        columns: &[String],
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
            .asker
            .select(sql)
            .await
            .map_err(|e| tidemark_query::serving::position::locate(e, query))?;
        let fields = rows.schema.fields();
        if columns.len() > fields.len() {
            let message = "too many column names were specified";
            return Err(Error::user(SqlState::SYNTAX_ERROR, message));
        }
        let names = columns
            .iter()
            .chain(fields.iter().skip(columns.len()).map(|f| f.name()));
        let columns: Vec<String> = fields
            .iter()
            .zip(names)
            .map(|(field, name)| definition(&field.as_ref().clone().with_name(name)))
            .collect();
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
            .map(|(a, c)| cast_array(a, &c.data_type))
            .collect::<Result<Vec<_>, _>>();
        dml::computed_batch(relation, arrays.map_err(from_datafusion)?)
    });
    rows.collect()
}
