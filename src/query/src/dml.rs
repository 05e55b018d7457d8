//! INSERT, UPDATE, DELETE and COPY FROM.
//!
//! ```text
//! lock the tables -> rows that leave, rows that come -> write -> commit (outside of a block)
//! ```
//! The rows of a statement that commits alone are written batch by batch as they come
//! ([`streamed`]), as those of a large COPY are; within a block, or with RETURNING, they are kept.
//! An UPDATE is a query over the locked rows, `SELECT t.*, new values FROM t WHERE ..`: the old
//! half leaves, the new half comes. An INSERT of constants plans nothing: its literals are parsed
//! straight into columns. Nor does an UPDATE or DELETE of rows by their keys ([`by_key`]).

mod added;
mod alike;
pub mod by_key;
mod change;
mod conflict;
mod constants;
mod copy;
mod describe;
mod explained;
mod generated;
mod insert;
mod rows;
mod streamed;
mod syntax;

use crate::asker::Asker;
use crate::asker::transaction::{SharedGuard, Write};
use crate::copy::CopyOptions;
use crate::error::from_datafusion;
use crate::identifiers::{fold, name_of};
use crate::outcome::{CopyIn, CopyOut, Outcome, RowStream, Rows, Tag};
use crate::serving;
use crate::serving::collect::{collect_bounded, rows_bytes};
use crate::serving::query::plan_query;
use crate::snapshot::{Override, Snapshot};
use crate::values;
use crate::{parameters, types};
pub use added::Missing;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use constants::*;
pub use constants::{check_defaults, has_constant_default};
pub use copy::CopyRows;
use datafusion::catalog::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Cast, Expr as LogicalExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, ObjectName, SelectItem, SetExpr, Value};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use insert::{all_direct, default_expression, direct_parameters, insert_columns, values_of};
use postgres_types::Type;
pub use rows::computed_batch;
use rows::*;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use syntax::*;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::{NewKeys, check_write_bytes};
use tidemark_plan::{Catalog, Privilege, Relation, RelationKind};
use tidemark_planner::statement::Statement;

/// Prefix of the columns that hold an UPDATE's new values.
const NEW: &str = "__new_";

/// The rows of a write: what leaves and what comes, in all columns of the table.
#[derive(Default)]
struct Changes {
    deletes: Vec<RecordBatch>,
    inserts: Vec<RecordBatch>,
    /// Rows that RETURNING shows.
    affected: Vec<RecordBatch>,
    /// What is known of the keys that come. They must be free in an UPDATE that sets keys, and in
    /// an INSERT that has looked (ON CONFLICT).
    keys: NewKeys,
}

/// What is known of the keys of rows in which these columns are set anew.
fn keys_after(relation: &Relation, assigned: &[usize]) -> NewKeys {
    match relation.key.iter().any(|column| assigned.contains(column)) {
        true => NewKeys::Free,
        false => NewKeys::Known,
    }
}

/// The names of the functions that statements made.
fn names_of_functions(catalog: &Catalog) -> BTreeSet<String> {
    let all = catalog.relations.values();
    let all = all.filter(|r| r.kind == RelationKind::Function);
    all.map(|r| r.name.clone()).collect()
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn last_name(name: &ObjectName) -> Result<String> {
    name.0
        .last()
        .and_then(|p| p.as_ident())
        .map(fold)
        .ok_or_else(|| Error::user(SqlState::SYNTAX_ERROR, "a name is expected"))
}

fn position_of(relation: &Relation, name: &str) -> Result<usize> {
    let found = relation.visible().find(|(_, c)| c.name == name);
    found.map(|(at, _)| at).ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!(
                "column \"{name}\" of relation \"{}\" does not exist",
                relation.name
            ),
        )
    })
}

/// An empty SELECT to be filled in.
fn select() -> ast::Query {
    let statement = Parser::parse_sql(&PostgreSqlDialect {}, "SELECT 1")
        .ok()
        .and_then(|mut s| s.pop());
    match statement {
        Some(ast::Statement::Query(query)) => *query,
        _ => unreachable!("SELECT 1 is a query"),
    }
}

fn query_with(fill: impl FnOnce(&mut ast::Select)) -> ast::Statement {
    let mut query = select();
    if let SetExpr::Select(select) = query.body.as_mut() {
        fill(select);
    }
    ast::Statement::Query(Box::new(query))
}

impl Asker {
    /// INSERT, UPDATE, DELETE.
    pub(crate) async fn run_write(&mut self, sql: &ast::Statement) -> Result<Outcome> {
        match sql {
            ast::Statement::Insert(insert) => {
                self.check_may_write("INSERT")?;
                self.insert(insert).await
            }
            ast::Statement::Update(update) => {
                self.check_may_write("UPDATE")?;
                self.update(update).await
            }
            ast::Statement::Delete(delete) => {
                self.check_may_write("DELETE")?;
                self.delete(delete).await
            }
            other => {
                let text = other.to_string();
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                Err(Error::unsupported(format!(
                    "{} is not supported",
                    words.join(" ")
                )))
            }
        }
    }

    /// The table that a write is about.
    fn target(&self, object: &ObjectName, verb: &str) -> Result<Arc<Relation>> {
        let relation = self.resolve(&self.catalog(), &name_of(object)?)?;
        let privilege = match verb {
            "update" => Privilege::Update,
            "delete from" => Privilege::Delete,
            _ => Privilege::Insert,
        };
        self.require(privilege, &relation)?;
        if relation.kind != RelationKind::Table {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "cannot {verb} {} \"{}\"",
                    relation.kind.name(),
                    relation.name
                ),
            )
            .with_hint("Only tables can be written."));
        }
        if relation.connector.is_some() {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "cannot {verb} table \"{}\": it is written by its connector",
                    relation.name
                ),
            ));
        }
        if verb != "insert into" && relation.append_only {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "cannot {verb} table \"{}\": it is append only",
                    relation.name
                ),
            ));
        }
        Ok(relation)
    }

    /// Whether a table that was waited for has the columns that it had before.
    fn is_as_before(&self, table: &Relation) -> bool {
        let catalog = self.catalog();
        let now = catalog.relations.get(&table.id);
        now.is_none_or(|now| now.altered.times == table.altered.times)
    }

    /// A snapshot that reads the target through the guard, with more tables by name.
    async fn write_snapshot<V: ast::Visit + Sync>(
        &mut self,
        guard: &SharedGuard,
        relation: &Relation,
        node: &V,
    ) -> Result<Snapshot> {
        let mut snapshot = self.snapshot(node).await?;
        self.state.mark_start_execution();
        let mut tables = snapshot
            .written
            .take()
            .map_or(Vec::new(), |(_, tables)| tables);
        tables.push(relation.id);
        snapshot.written = Some((Arc::downgrade(guard), tables));
        Ok(snapshot)
    }

    async fn collect(&self, (plan, physical): Runnable) -> Result<Vec<RecordBatch>> {
        let rows = self.stream(&plan, physical, None, Tag::Fixed(""))?;
        collect_bounded(rows.stream).await
    }

    /// Writes, commits outside of a block, and answers with the tag or the RETURNING rows.
    async fn finish(
        &mut self,
        guard: SharedGuard,
        relation: &Arc<Relation>,
        changes: Changes,
        tag: &'static str,
        returning: Option<(&[SelectItem], String)>,
    ) -> Result<Outcome> {
        let rows = count(&changes.affected);
        // RETURNING is computed before anything is written: when it fails, the statement has no
        // effect.
        let returned = match returning {
            Some((items, name)) => {
                let returned = self.returning(relation, changes.affected, items, name, tag);
                Some(Box::pin(returned).await?)
            }
            None => None,
        };
        let write = Write {
            table: relation.id,
            deletes: changes.deletes,
            inserts: changes.inserts,
            keys: changes.keys,
        };
        if write.deletes.is_empty()
            && write.inserts.is_empty()
            && self.transaction.block().is_none()
        {
            drop(guard);
        } else {
            self.write(guard, write).await?;
        }
        Ok(returned.map_or_else(
            || Outcome::Command(Tag::Counted(tag).text(rows)),
            Outcome::Rows,
        ))
    }

    async fn returning(
        &mut self,
        relation: &Arc<Relation>,
        affected: Vec<RecordBatch>,
        items: &[SelectItem],
        name: String,
        tag: &'static str,
    ) -> Result<Rows> {
        let items = items.to_vec();
        let snapshot = self.snapshot(&items).await?;
        self.state.mark_start_execution();
        let table = relation.clone();
        let planned = self.planned(move |state| {
            let (plan, columns) = plan_returning(state, snapshot, &table, affected, items, name)?;
            Ok((runnable(state, plan)?, columns))
        });
        let ((plan, physical), columns) = planned.await?;
        let inner = physical.schema();
        let mut rows = self.stream(&plan, physical, Some(columns), Tag::Counted(tag))?;
        let batches = collect_bounded(rows.stream).await?;
        let stream = MemoryStream::try_new(batches, inner, None).map_err(from_datafusion)?;
        rows.stream = RowStream::Made(Box::pin(stream));
        Ok(rows)
    }
}

/// A plan, and how it is run.
type Runnable = (LogicalPlan, Arc<dyn ExecutionPlan>);

fn runnable(state: &SessionState, plan: LogicalPlan) -> Result<Runnable> {
    let physical = serving::physical_plan(state, &plan)?;
    Ok((plan, physical))
}

/// The plan of RETURNING over the affected rows, and the names of its columns.
fn plan_returning(
    state: &SessionState,
    mut snapshot: Snapshot,
    relation: &Relation,
    affected: Vec<RecordBatch>,
    items: Vec<SelectItem>,
    name: String,
) -> Result<(LogicalPlan, Vec<String>)> {
    let schema = relation.visible_schema();
    let positions = relation.visible_positions();
    let shown = |batch: RecordBatch| {
        let batch = batch.project(&positions);
        redress(batch.map_err(crate::error::from_arrow)?, &schema)
    };
    let affected = affected
        .into_iter()
        .map(shown)
        .collect::<Result<Vec<_>>>()?;
    let table = MemTable::try_new(schema, vec![affected]).map_err(from_datafusion)?;
    snapshot.overrides.push(Override {
        name: name.clone(),
        relation: Arc::new(relation.shown()),
        table: Arc::new(table),
    });
    let statement = query_with(|s| {
        s.projection = items;
        s.from = vec![table_named(&name)];
    });
    let plan = plan_query(state, &snapshot, &statement)?;
    let planned: Vec<String> = plan
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    Ok((plan, serving::names::output_names(&statement, &planned)))
}
