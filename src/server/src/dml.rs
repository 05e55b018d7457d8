//! INSERT, UPDATE, DELETE and COPY FROM.
//!
//! ```text
//! lock the tables -> rows that leave, rows that come -> write -> commit (outside of a block)
//! ```
//! An UPDATE is a query over the locked rows, `SELECT t.*, new values FROM t WHERE ..`: the old
//! half leaves, the new half comes. A single-row INSERT of constants plans nothing: its literals
//! are parsed straight into columns.

mod syntax;

use crate::protocol::copy::{self, CopyIn, CopyOptions, CopyOut};
use crate::protocol::error::from_datafusion;
use crate::protocol::{parameters, types};
use crate::serving::table_provider::schema_of;
use crate::serving::{self, Snapshot};
use crate::session::transaction::{SharedGuard, Write};
use crate::session::{Outcome, Rows, Session, Tag};
use crate::values;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::logical_expr::{
    Cast, Expr as LogicalExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, ObjectName, SelectItem, SetExpr, Value};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::TryStreamExt;
use pgwire::api::Type;
use std::collections::HashSet;
use std::sync::Arc;
use syntax::*;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Relation, RelationKind};
use tidemark_planner::statement::{Name, Statement};

/// Prefix of the columns that hold an UPDATE's new values.
const NEW: &str = "__new_";

/// The rows of a write: what leaves and what comes, in all columns of the table.
#[derive(Default)]
struct Changes {
    deletes: Vec<RecordBatch>,
    inserts: Vec<RecordBatch>,
    /// Rows that RETURNING shows.
    affected: Vec<RecordBatch>,
    /// Whether the keys that come must be free: of an UPDATE that sets keys, and of an INSERT that
    /// has looked (ON CONFLICT).
    unique: bool,
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Folds an identifier as PostgreSQL does.
fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

fn last_name(name: &ObjectName) -> Result<String> {
    name.0
        .last()
        .and_then(|p| p.as_ident())
        .map(fold)
        .ok_or_else(|| Error::user(SqlState::SYNTAX_ERROR, "a name is expected"))
}

/// `[dev.][schema.]name`.
pub fn name_of(object: &ObjectName) -> Result<Name> {
    let parts: Vec<String> = object
        .0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(fold)
        .collect();
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.clone()),
        [schema, name] | [_, schema, name] => (Some(schema.clone()), name.clone()),
        _ => {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("improper relation name: {object}"),
            ));
        }
    };
    Ok(Name {
        schema,
        name,
        position: 0,
    })
}

fn position_of(relation: &Relation, name: &str) -> Result<usize> {
    relation
        .columns
        .iter()
        .position(|c| c.name == name)
        .ok_or_else(|| {
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

impl Session {
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

    /// A snapshot that reads the target through the guard, with more tables by name.
    async fn write_snapshot(
        &mut self,
        guard: &SharedGuard,
        relation: &Relation,
    ) -> Result<Snapshot> {
        let mut snapshot = self.snapshot().await?;
        let mut tables = snapshot
            .written
            .take()
            .map_or(Vec::new(), |(_, tables)| tables);
        tables.push(relation.id);
        snapshot.written = Some((guard.clone(), tables));
        Ok(snapshot)
    }

    async fn collect(&mut self, plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
        let rows = self.run_plan(&plan, None, Tag::Fixed("")).await?;
        rows.stream.try_collect().await.map_err(from_datafusion)
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
            Some((items, name)) => Some(
                self.returning(relation, changes.affected, items, name, tag)
                    .await?,
            ),
            None => None,
        };
        let write = Write {
            table: relation.id,
            deletes: changes.deletes,
            inserts: changes.inserts,
            unique: changes.unique,
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
        relation: &Relation,
        affected: Vec<RecordBatch>,
        items: &[SelectItem],
        name: String,
        tag: &'static str,
    ) -> Result<Rows> {
        let mut snapshot = self.snapshot().await?;
        let (plan, columns) =
            self.plan_returning(&mut snapshot, relation, affected, items, name)?;
        let rows = self
            .run_plan(&plan, Some(columns), Tag::Counted(tag))
            .await?;
        let inner = rows.stream.schema();
        let batches: Vec<RecordBatch> = rows.stream.try_collect().await.map_err(from_datafusion)?;
        let stream = MemoryStream::try_new(batches, inner, None).map_err(from_datafusion)?;
        Ok(Rows {
            stream: Box::pin(stream),
            ..rows
        })
    }

    fn plan_returning(
        &self,
        snapshot: &mut Snapshot,
        relation: &Relation,
        affected: Vec<RecordBatch>,
        items: &[SelectItem],
        name: String,
    ) -> Result<(LogicalPlan, Vec<String>)> {
        let schema = schema_of(relation);
        let affected = affected
            .into_iter()
            .map(|b| redress(b, &schema))
            .collect::<Result<Vec<_>>>()?;
        let table = MemTable::try_new(schema, vec![affected]).map_err(from_datafusion)?;
        snapshot.overrides.push((name.clone(), Arc::new(table)));
        let statement = query_with(|s| {
            s.projection = items.to_vec();
            s.from = vec![table_named(&name)];
        });
        let plan = self.plan_query(snapshot, &statement)?;
        let planned: Vec<String> = plan
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        Ok((plan, serving::names::output_names(&statement, &planned)))
    }

    async fn insert(&mut self, insert: &ast::Insert) -> Result<Outcome> {
        let ast::TableObject::TableName(object) = &insert.table else {
            return Err(Error::user(SqlState::SYNTAX_ERROR, "INSERT needs a table"));
        };
        let relation = self.target(object, "insert into")?;
        let columns = insert_columns(insert, &relation)?;
        // Constants are parsed before the lock is taken, and queries are planned under it.
        let constant = constant_rows(insert, &relation, &columns)?;
        let guard = self.lock(&[relation.id]).await?;
        let batch = match constant {
            Some(batch) => batch,
            None => {
                let snapshot = self.write_snapshot(&guard, &relation).await?;
                let plan = self.plan_insert(&snapshot, insert, &relation, &columns)?;
                let batches = self.collect(plan).await?;
                one_batch(batches, &relation)?
            }
        };
        let changes = match &insert.on {
            None => Changes {
                affected: vec![batch.clone()],
                inserts: vec![batch],
                ..Changes::default()
            },
            Some(ast::OnInsert::OnConflict(conflict)) => {
                self.resolve_conflicts(&guard, &relation, conflict, batch)
                    .await?
            }
            Some(_) => {
                return Err(
                    Error::unsupported("ON DUPLICATE KEY UPDATE is not supported")
                        .with_hint("Use ON CONFLICT ... DO UPDATE."),
                );
            }
        };
        let changes = if count(&changes.inserts) == 0 {
            Changes {
                inserts: Vec::new(),
                ..changes
            }
        } else {
            changes
        };
        let name = insert
            .table_alias
            .as_ref()
            .map_or_else(|| relation.name.clone(), |a| fold(&a.alias));
        self.finish(
            guard,
            &relation,
            changes,
            "INSERT 0",
            insert.returning.as_deref().map(|r| (r, name)),
        )
        .await
    }

    /// The plan of an INSERT's rows, in all columns of the table and their types.
    fn plan_insert(
        &self,
        snapshot: &Snapshot,
        insert: &ast::Insert,
        relation: &Relation,
        columns: &[usize],
    ) -> Result<LogicalPlan> {
        let given = match &insert.source {
            Some(source) => {
                let query =
                    ast::Statement::Query(Box::new(with_defaults(source, relation, columns)?));
                let plan = self.plan_query(snapshot, &query)?;
                let width = plan.schema().fields().len();
                if width > columns.len() || (width < columns.len() && !insert.columns.is_empty()) {
                    let more = if width > columns.len() {
                        "more expressions than target columns"
                    } else {
                        "more target columns than expressions"
                    };
                    return Err(Error::user(
                        SqlState::SYNTAX_ERROR,
                        format!("INSERT has {more}"),
                    ));
                }
                plan
            }
            None => LogicalPlanBuilder::empty(true)
                .build()
                .map_err(from_datafusion)?,
        };
        let given_columns: Vec<_> = given.schema().columns();
        let mut exprs = Vec::new();
        for (i, column) in relation.columns.iter().enumerate() {
            let expr = match columns
                .iter()
                .position(|c| *c == i)
                .and_then(|at| given_columns.get(at))
            {
                Some(c) => LogicalExpr::Column(c.clone()),
                None => self.default_expression(snapshot, column)?,
            };
            exprs.push(assign(expr, &given, column)?.alias(format!("{NEW}{i}")));
        }
        LogicalPlanBuilder::from(given)
            .project(exprs)
            .and_then(|b| b.build())
            .map_err(from_datafusion)
    }

    /// A column's default as an expression; NULL without one.
    fn default_expression(
        &self,
        snapshot: &Snapshot,
        column: &tidemark_plan::Column,
    ) -> Result<LogicalExpr> {
        let Some(text) = &column.default else {
            return Ok(LogicalExpr::Literal(
                datafusion::common::ScalarValue::Null,
                None,
            ));
        };
        let expr = parse_expression(text)?;
        let statement = query_with(|s| s.projection = vec![SelectItem::UnnamedExpr(expr)]);
        match self.plan_query(snapshot, &statement)? {
            LogicalPlan::Projection(p) if p.expr.len() == 1 => Ok(p.expr[0].clone().unalias()),
            _ => Err(Error::unsupported(format!(
                "the default of column \"{}\" is not an expression",
                column.name
            ))),
        }
    }

    async fn update(&mut self, update: &ast::Update) -> Result<Outcome> {
        let (object, alias) = table_and_alias(&update.table)?;
        let relation = self.target(object, "update")?;
        let name = alias.unwrap_or_else(|| relation.name.clone());
        let guard = self.lock(&[relation.id]).await?;
        let snapshot = self.write_snapshot(&guard, &relation).await?;
        let (plan, assigned) = self.plan_update(&snapshot, update, &relation, &name)?;
        drop(snapshot);
        let joined = update.from.is_some();
        let batches = self.collect(plan).await?;
        let width = relation.columns.len();
        let mut changes = Changes {
            unique: assigned.iter().any(|a| relation.key.contains(a)),
            ..Changes::default()
        };
        let mut seen = HashSet::new();
        for batch in batches.into_iter().filter(|b| b.num_rows() > 0) {
            let batch = if joined {
                first_of_each_key(&batch, &relation, &mut seen)?
            } else {
                batch
            };
            let old = batch
                .project(&(0..width).collect::<Vec<_>>())
                .map_err(crate::protocol::error::from_arrow)?;
            let mut arrays = old.columns().to_vec();
            for (i, target) in assigned.iter().enumerate() {
                arrays[*target] = batch.column(width + i).clone();
            }
            let schema = relation.arrow_schema();
            changes.deletes.push(redress(old, &schema)?);
            changes.inserts.push(computed_batch(&relation, arrays)?);
        }
        changes.affected = changes.inserts.clone();
        self.finish(
            guard,
            &relation,
            changes,
            "UPDATE",
            update.returning.as_deref().map(|r| (r, name)),
        )
        .await
    }

    /// The old row, then the new values; and which columns those are for.
    fn plan_update(
        &self,
        snapshot: &Snapshot,
        update: &ast::Update,
        relation: &Relation,
        name: &str,
    ) -> Result<(LogicalPlan, Vec<usize>)> {
        let mut assigned = Vec::new();
        let mut new = Vec::new();
        for assignment in &update.assignments {
            for (column, value) in pairs(assignment)? {
                let at = position_of(relation, &column)?;
                if assigned.contains(&at) {
                    return Err(Error::user(
                        SqlState::SYNTAX_ERROR,
                        format!("multiple assignments to same column \"{column}\""),
                    ));
                }
                assigned.push(at);
                new.push(or_default(value, &relation.columns[at])?);
            }
        }
        let mut from = vec![update.table.clone()];
        match &update.from {
            Some(
                ast::UpdateTableFromKind::BeforeSet(tables)
                | ast::UpdateTableFromKind::AfterSet(tables),
            ) => from.extend(tables.clone()),
            None => {}
        }
        if from.len() > 1 && relation.key.is_empty() {
            return Err(Error::unsupported(
                "UPDATE .. FROM needs a table with a primary key",
            ));
        }
        let statement = query_with(|s| {
            s.projection = old_columns(relation, name);
            s.projection
                .extend(new.into_iter().zip(&assigned).map(|(value, at)| {
                    SelectItem::ExprWithAlias {
                        expr: value,
                        alias: Ident::with_quote('"', format!("{NEW}{at}")),
                    }
                }));
            s.from = from;
            s.selection = update.selection.clone();
        });
        let plan = self.plan_query(snapshot, &statement)?;
        let columns = plan.schema().columns();
        let width = relation.columns.len();
        let exprs = columns
            .into_iter()
            .enumerate()
            .map(|(i, c)| match i.checked_sub(width) {
                None => Ok(LogicalExpr::Column(c)),
                Some(n) => {
                    let name = c.name.clone();
                    Ok(assign(
                        LogicalExpr::Column(c),
                        &plan,
                        &relation.columns[assigned[n]],
                    )?
                    .alias(name))
                }
            });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::from(plan.clone())
            .project(exprs)
            .and_then(|b| b.build())
            .map_err(from_datafusion)?;
        Ok((plan, assigned))
    }

    async fn delete(&mut self, delete: &ast::Delete) -> Result<Outcome> {
        let table = delete_target(delete)?;
        let (object, alias) = table_and_alias(table)?;
        let relation = self.target(object, "delete from")?;
        let name = alias.unwrap_or_else(|| relation.name.clone());
        let guard = self.lock(&[relation.id]).await?;
        let snapshot = self.write_snapshot(&guard, &relation).await?;
        let plan = self.plan_delete(&snapshot, delete, table, &relation, &name)?;
        drop(snapshot);
        let batches = self.collect(plan).await?;
        let schema = relation.arrow_schema();
        let mut seen = HashSet::new();
        let mut changes = Changes::default();
        for batch in batches.into_iter().filter(|b| b.num_rows() > 0) {
            let batch = if delete.using.is_some() {
                first_of_each_key(&batch, &relation, &mut seen)?
            } else {
                batch
            };
            changes.deletes.push(redress(batch, &schema)?);
        }
        changes.affected = changes.deletes.clone();
        self.finish(
            guard,
            &relation,
            changes,
            "DELETE",
            delete.returning.as_deref().map(|r| (r, name)),
        )
        .await
    }

    fn plan_delete(
        &self,
        snapshot: &Snapshot,
        delete: &ast::Delete,
        table: &ast::TableWithJoins,
        relation: &Relation,
        name: &str,
    ) -> Result<LogicalPlan> {
        if delete.using.is_some() && relation.key.is_empty() {
            return Err(Error::unsupported(
                "DELETE .. USING needs a table with a primary key",
            ));
        }
        let statement = query_with(|s| {
            s.projection = old_columns(relation, name);
            s.from = std::iter::once(table.clone())
                .chain(delete.using.iter().flatten().cloned())
                .collect();
            s.selection = delete.selection.clone();
        });
        self.plan_query(snapshot, &statement)
    }

    /// ON CONFLICT: what an INSERT of `batch` changes, given the rows that have its keys.
    async fn resolve_conflicts(
        &mut self,
        guard: &SharedGuard,
        relation: &Arc<Relation>,
        conflict: &ast::OnConflict,
        batch: RecordBatch,
    ) -> Result<Changes> {
        if let Some(ast::ConflictTarget::Columns(columns)) = &conflict.conflict_target {
            let mut wanted = columns
                .iter()
                .map(|c| position_of(relation, &fold(c)))
                .collect::<Result<Vec<_>>>()?;
            wanted.sort_unstable();
            let mut key = relation.key.clone();
            key.sort_unstable();
            if wanted != key {
                return Err(Error::user(
                    SqlState("42P10"),
                    "there is no unique or exclusion constraint matching the ON CONFLICT \
                     specification",
                ));
            }
        }
        if relation.key.is_empty() {
            return match conflict.action {
                ast::OnConflictAction::DoNothing => Ok(Changes {
                    affected: vec![batch.clone()],
                    inserts: vec![batch],
                    ..Changes::default()
                }),
                _ => Err(Error::user(
                    SqlState("42P10"),
                    "there is no unique or exclusion constraint matching the ON CONFLICT \
                     specification",
                )),
            };
        }
        let keys: Vec<ArrayRef> = relation
            .key
            .iter()
            .map(|k| batch.column(*k).clone())
            .collect();
        let existing = guard.lock().lookup(relation.id, &keys)?;
        let existing_keys = key_set(&existing, relation)?;
        let texts = key_texts(&batch, relation)?;
        let mut seen = HashSet::new();
        let (mut fresh, mut met) = (Vec::new(), Vec::new());
        for text in &texts {
            let first = seen.insert(text.clone());
            let exists = existing_keys.contains(text);
            if !first && matches!(conflict.action, ast::OnConflictAction::DoUpdate(_)) {
                return Err(Error::user(
                    SqlState("21000"),
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .with_hint(
                    "Ensure that no rows proposed for insertion within the same command \
                                have duplicate constrained values.",
                ));
            }
            fresh.push(first && !exists);
            met.push(exists);
        }
        let arrow = crate::protocol::error::from_arrow;
        let inserted = filter_record_batch(&batch, &BooleanArray::from(fresh)).map_err(arrow)?;
        let ast::OnConflictAction::DoUpdate(update) = &conflict.action else {
            return Ok(Changes {
                affected: vec![inserted.clone()],
                inserts: vec![inserted],
                unique: true,
                ..Changes::default()
            });
        };
        let excluded = filter_record_batch(&batch, &BooleanArray::from(met)).map_err(arrow)?;
        let mut changes = self
            .update_conflicting(guard, relation, update, existing, excluded)
            .await?;
        changes.inserts.push(inserted);
        changes.affected = changes.inserts.clone();
        changes.unique = true;
        Ok(changes)
    }

    /// `DO UPDATE SET ..`: existing rows joined with the proposed ones (`excluded`) by key.
    async fn update_conflicting(
        &mut self,
        guard: &SharedGuard,
        relation: &Arc<Relation>,
        update: &ast::DoUpdate,
        existing: RecordBatch,
        excluded: RecordBatch,
    ) -> Result<Changes> {
        let mut snapshot = self.write_snapshot(guard, relation).await?;
        let schema = schema_of(relation);
        for (name, batch) in [
            (relation.name.clone(), existing),
            ("excluded".to_string(), excluded),
        ] {
            let table = MemTable::try_new(schema.clone(), vec![vec![redress(batch, &schema)?]])
                .map_err(from_datafusion)?;
            snapshot.overrides.push((name, Arc::new(table)));
        }
        let quoted = |table: &str, column: usize| {
            Expr::CompoundIdentifier(vec![
                Ident::with_quote('"', table),
                Ident::with_quote('"', &relation.columns[column].name),
            ])
        };
        let same_key = relation.key.iter().map(|k| {
            binary(
                quoted(&relation.name, *k),
                ast::BinaryOperator::Eq,
                quoted("excluded", *k),
            )
        });
        let condition = same_key
            .chain(update.selection.clone().map(|e| qualify(e, relation)))
            .reduce(|a, b| binary(a, ast::BinaryOperator::And, b));
        let as_update = ast::Update {
            assignments: update
                .assignments
                .iter()
                .map(|a| ast::Assignment {
                    target: a.target.clone(),
                    value: qualify(a.value.clone(), relation),
                })
                .collect(),
            table: table_named(&relation.name),
            from: Some(ast::UpdateTableFromKind::AfterSet(vec![table_named(
                "excluded",
            )])),
            selection: condition,
            ..empty_update()
        };
        let (plan, assigned) = self.plan_update(&snapshot, &as_update, relation, &relation.name)?;
        drop(snapshot);
        let width = relation.columns.len();
        let mut changes = Changes {
            unique: assigned.iter().any(|a| relation.key.contains(a)),
            ..Changes::default()
        };
        for batch in self
            .collect(plan)
            .await?
            .into_iter()
            .filter(|b| b.num_rows() > 0)
        {
            let old = batch
                .project(&(0..width).collect::<Vec<_>>())
                .map_err(crate::protocol::error::from_arrow)?;
            let mut arrays = old.columns().to_vec();
            for (i, target) in assigned.iter().enumerate() {
                arrays[*target] = batch.column(width + i).clone();
            }
            changes
                .deletes
                .push(redress(old, &relation.arrow_schema())?);
            changes.inserts.push(computed_batch(relation, arrays)?);
        }
        Ok(changes)
    }

    /// For Describe: a plan that shows a write's parameters and RETURNING columns; parameter types
    /// that are known without a plan; whether there are columns.
    pub(crate) fn plan_write_for_description(
        &self,
        snapshot: &Snapshot,
        sql: &ast::Statement,
    ) -> Result<(Option<LogicalPlan>, Vec<(usize, Type)>, bool)> {
        let mut found = Vec::new();
        let mut note = |plan: &LogicalPlan| -> Result<()> {
            for (name, field) in plan.get_parameter_fields().map_err(from_datafusion)? {
                if let (Some(n), Some(field)) =
                    (name.strip_prefix('$').and_then(|n| n.parse().ok()), field)
                {
                    found.push((n, types::pg_type(&field)));
                }
            }
            Ok(())
        };
        let (relation, name, returning) = match sql {
            ast::Statement::Insert(insert) => {
                let ast::TableObject::TableName(object) = &insert.table else {
                    return Ok((None, found, false));
                };
                let relation = self.target(object, "insert into")?;
                let columns = insert_columns(insert, &relation)?;
                let direct = direct_parameters(insert, &relation, &columns);
                if !all_direct(insert) {
                    note(&self.plan_insert(snapshot, insert, &relation, &columns)?)?;
                }
                found.retain(|(n, _)| !direct.iter().any(|(d, _)| d == n));
                found.extend(direct);
                (
                    relation.clone(),
                    relation.name.clone(),
                    insert.returning.clone(),
                )
            }
            ast::Statement::Update(update) => {
                let (object, alias) = table_and_alias(&update.table)?;
                let relation = self.target(object, "update")?;
                let name = alias.unwrap_or_else(|| relation.name.clone());
                note(&self.plan_update(snapshot, update, &relation, &name)?.0)?;
                for assignment in &update.assignments {
                    for (column, value) in pairs(assignment)? {
                        if let Some(n) = parameters::placeholder(&value) {
                            found.retain(|(m, _)| *m != n);
                            found.push((
                                n,
                                column_type(&relation.columns[position_of(&relation, &column)?]),
                            ));
                        }
                    }
                }
                (relation, name, update.returning.clone())
            }
            ast::Statement::Delete(delete) => {
                let table = delete_target(delete)?;
                let (object, alias) = table_and_alias(table)?;
                let relation = self.target(object, "delete from")?;
                let name = alias.unwrap_or_else(|| relation.name.clone());
                note(&self.plan_delete(snapshot, delete, table, &relation, &name)?)?;
                (relation, name, delete.returning.clone())
            }
            _ => return Ok((None, found, false)),
        };
        match returning {
            Some(items) => {
                let mut snapshot = snapshot.clone();
                let (plan, _) =
                    self.plan_returning(&mut snapshot, &relation, Vec::new(), &items, name)?;
                Ok((Some(plan), found, true))
            }
            None => Ok((None, found, false)),
        }
    }

    /// COPY.
    pub(crate) async fn copy(
        &mut self,
        copy: &ast::Statement,
        statement: &Statement,
    ) -> Result<Outcome> {
        let ast::Statement::Copy {
            source,
            to,
            target,
            options,
            legacy_options,
            ..
        } = copy
        else {
            return Err(Error::internal("not a COPY statement"));
        };
        let options = copy_options(options, legacy_options)?;
        let stdio = matches!(target, ast::CopyTarget::Stdin | ast::CopyTarget::Stdout);
        if !stdio {
            return Err(
                Error::unsupported("COPY with files on the server is not supported")
                    .with_hint("Use COPY .. FROM STDIN or TO STDOUT (psql: \\copy)."),
            );
        }
        if *to {
            let query = match source {
                ast::CopySource::Query(query) => ast::Statement::Query(query.clone()),
                ast::CopySource::Table {
                    table_name,
                    columns,
                } => query_with(|s| {
                    s.projection = if columns.is_empty() {
                        vec![SelectItem::Wildcard(Default::default())]
                    } else {
                        columns
                            .iter()
                            .map(|c| SelectItem::UnnamedExpr(Expr::Identifier(c.clone())))
                            .collect()
                    };
                    s.from = vec![table_factor(table_name.clone())];
                }),
            };
            let rows = self
                .select(&query)
                .await
                .map_err(|e| serving::position::locate(e, statement))?;
            return Ok(Outcome::CopyOut(CopyOut { rows, options }));
        }
        let ast::CopySource::Table {
            table_name,
            columns,
        } = source
        else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "COPY FROM needs a table",
            ));
        };
        let relation = self.target(table_name, "copy to")?;
        let columns: Vec<usize> = match columns.as_slice() {
            [] => (0..relation.columns.len()).collect(),
            named => named
                .iter()
                .map(|c| position_of(&relation, &fold(c)))
                .collect::<Result<_>>()?,
        };
        Ok(Outcome::CopyIn(CopyIn {
            columns: columns.len(),
            options,
            target: (relation.id, columns),
        }))
    }

    /// Writes what the client sent. Returns the number of rows.
    pub async fn copy_from(&mut self, target: &CopyIn, data: &[u8]) -> Result<usize> {
        let rows = copy::split(data, &target.options)?;
        let relation = self
            .catalog()
            .relations
            .get(&target.target.0)
            .cloned()
            .ok_or_else(|| Error::user(SqlState::UNDEFINED_TABLE, "the table was dropped"))?;
        let columns = &target.target.1;
        for (i, row) in rows.iter().enumerate() {
            if row.len() != columns.len() {
                let what = if row.len() < columns.len() {
                    format!(
                        "missing data for column \"{}\"",
                        relation.columns[columns[row.len()]].name
                    )
                } else {
                    "extra data after last expected column".into()
                };
                return Err(Error::user(SqlState("22P04"), what).with_detail(format!(
                    "COPY {}, line {}.",
                    relation.name,
                    i + 1
                )));
            }
        }
        if rows.is_empty() {
            return Ok(0);
        }
        let mut arrays = Vec::new();
        for (i, column) in relation.columns.iter().enumerate() {
            let texts: Vec<Option<&str>> = match columns.iter().position(|c| *c == i) {
                Some(at) => rows.iter().map(|r| r[at].as_deref()).collect(),
                None => {
                    let default = constant_default(column)?.ok_or_else(|| {
                        Error::unsupported(format!(
                            "COPY needs a value for column \"{}\", whose default is computed",
                            column.name
                        ))
                    })?;
                    arrays.push(repeat(default, column, rows.len())?);
                    continue;
                }
            };
            arrays.push(values::parse_column(&texts, column)?);
        }
        let guard = self.lock(&[relation.id]).await?;
        let write = Write {
            table: relation.id,
            deletes: Vec::new(),
            inserts: vec![nullable_batch(&relation, arrays)?],
            unique: false,
        };
        self.write(guard, write).await?;
        Ok(rows.len())
    }
}

/// The target columns of an INSERT, by position.
fn insert_columns(insert: &ast::Insert, relation: &Relation) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok((0..relation.columns.len()).collect());
    }
    let mut columns = Vec::new();
    for column in &insert.columns {
        let at = position_of(relation, &last_name(column)?)?;
        if columns.contains(&at) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!(
                    "column \"{}\" specified more than once",
                    relation.columns[at].name
                ),
            ));
        }
        columns.push(at);
    }
    Ok(columns)
}

fn values_of(insert: &ast::Insert) -> Option<&[ast::Parens<Vec<Expr>>]> {
    let source = insert.source.as_ref()?;
    match source.body.as_ref() {
        SetExpr::Values(values)
            if source.with.is_none()
                && source.order_by.is_none()
                && source.limit_clause.is_none() =>
        {
            Some(&values.rows)
        }
        _ => None,
    }
}

/// `$n` that stand alone as values: their type is the column's.
fn direct_parameters(
    insert: &ast::Insert,
    relation: &Relation,
    columns: &[usize],
) -> Vec<(usize, Type)> {
    let rows = values_of(insert).unwrap_or_default();
    let cells = rows.iter().flat_map(|row| row.content.iter().zip(columns));
    cells
        .filter_map(|(e, c)| {
            Some((
                parameters::placeholder(e)?,
                column_type(&relation.columns[*c]),
            ))
        })
        .collect()
}

fn all_direct(insert: &ast::Insert) -> bool {
    values_of(insert).is_some_and(|rows| {
        rows.iter().flat_map(|r| r.content.iter()).all(|e| {
            parameters::placeholder(e).is_some()
                || constant(e).is_some()
                || matches!(e, Expr::Cast { expr, .. } if constant(expr).is_some())
        })
    })
}

fn column_type(column: &tidemark_plan::Column) -> Type {
    types::by_name(&column.sql_type).unwrap_or_else(|| types::of_arrow(&column.data_type))
}

/// A constant as INSERT writes it.
#[derive(Clone, Debug, PartialEq)]
enum Constant {
    Null,
    Text(String),
    Number(String),
    Bool(bool),
}

fn constant(expr: &Expr) -> Option<Constant> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::Null => Some(Constant::Null),
            Value::Number(n, _) => Some(Constant::Number(n.clone())),
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => {
                Some(Constant::Text(s.clone()))
            }
            Value::DollarQuotedString(s) => Some(Constant::Text(s.value.clone())),
            Value::Boolean(b) => Some(Constant::Bool(*b)),
            Value::HexStringLiteral(h) => Some(Constant::Text(format!("\\x{h}"))),
            _ => None,
        },
        Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr,
        } => match constant(expr)? {
            Constant::Number(n) if !n.starts_with('-') => Some(Constant::Number(format!("-{n}"))),
            _ => None,
        },
        Expr::UnaryOp {
            op: ast::UnaryOperator::Plus,
            expr,
        }
        | Expr::Nested(expr) => constant(expr),
        // A typed parameter: its text is read by the column's own type when both are of one family.
        Expr::Cast { expr, .. } if matches!(constant(expr), Some(Constant::Null)) => {
            Some(Constant::Null)
        }
        _ => None,
    }
}

/// The text of an expression for a column: a constant, or a text that is cast to the column's own
/// type (a typed parameter).
fn constant_for(expr: &Expr, data_type: &DataType) -> Option<Option<String>> {
    if let Expr::Cast {
        expr: inner,
        data_type: to,
        ..
    } = expr
        && let Some(text @ Constant::Text(_)) = constant(inner)
        && tidemark_planner::sql_type_to_arrow(to).is_ok_and(|(t, _)| t == *data_type)
    {
        return constant_text(text, data_type);
    }
    constant(expr).and_then(|c| constant_text(c, data_type))
}

/// The text that a constant has for a column; `None` where only the evaluator knows.
fn constant_text(value: Constant, data_type: &DataType) -> Option<Option<String>> {
    match value {
        Constant::Null => Some(None),
        Constant::Text(text) => Some(Some(text)),
        Constant::Number(n) if data_type.is_integer() => {
            (!n.contains(['.', 'e', 'E'])).then_some(Some(n))
        }
        Constant::Number(n) if data_type.is_numeric() || *data_type == DataType::Utf8 => {
            Some(Some(n))
        }
        Constant::Bool(b) if matches!(data_type, DataType::Boolean | DataType::Utf8) => {
            Some(Some(b.to_string()))
        }
        _ => None,
    }
}

/// A column's default as a constant: `None` where it is computed.
fn constant_default(column: &tidemark_plan::Column) -> Result<Option<Option<String>>> {
    match &column.default {
        None => Ok(Some(None)),
        Some(text) => Ok(constant_for(&parse_expression(text)?, &column.data_type)),
    }
}

fn parse_expression(text: &str) -> Result<Expr> {
    let parsed = Parser::new(&tidemark_planner::parse::DIALECT)
        .try_with_sql(text)
        .and_then(|mut p| p.parse_expr());
    parsed.map_err(|e| Error::internal(format!("a default cannot be read: {e}")))
}

fn repeat(value: Option<String>, column: &tidemark_plan::Column, rows: usize) -> Result<ArrayRef> {
    match value {
        None => Ok(new_null_array(&column.data_type, rows)),
        Some(text) => values::parse_column(&vec![Some(text.as_str()); rows], column),
    }
}

/// The rows of `INSERT .. VALUES` when every value is a constant; `None` when something has to be
/// computed.
fn constant_rows(
    insert: &ast::Insert,
    relation: &Relation,
    columns: &[usize],
) -> Result<Option<RecordBatch>> {
    let Some(rows) = values_of(insert) else {
        return Ok(None);
    };
    let width = rows.first().map_or(0, |r| r.content.len());
    if width > columns.len() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    if width < columns.len() && !insert.columns.is_empty() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    if rows.iter().any(|r| r.content.len() != width) {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "VALUES lists must all be the same length",
        ));
    }
    let mut arrays = Vec::with_capacity(relation.columns.len());
    for (i, column) in relation.columns.iter().enumerate() {
        let Some(at) = columns
            .iter()
            .position(|c| *c == i)
            .filter(|at| *at < width)
        else {
            match constant_default(column)? {
                Some(default) => arrays.push(repeat(default, column, rows.len())?),
                None => return Ok(None),
            }
            continue;
        };
        let mut texts = Vec::with_capacity(rows.len());
        for row in rows {
            let text = if is_default(&row.content[at]) {
                constant_default(column)?
            } else {
                constant_for(&row.content[at], &column.data_type)
            };
            match text {
                Some(text) => texts.push(text),
                None => return Ok(None),
            }
        }
        arrays.push(values::parse_column(
            &texts.iter().map(Option::as_deref).collect::<Vec<_>>(),
            column,
        )?);
    }
    nullable_batch(relation, arrays).map(Some)
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(i)
        if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

fn or_default(value: Expr, column: &tidemark_plan::Column) -> Result<Expr> {
    if !is_default(&value) {
        return Ok(value);
    }
    column
        .default
        .as_deref()
        .map_or_else(|| Ok(Expr::Value(Value::Null.into())), parse_expression)
}

/// The source with DEFAULT in its VALUES replaced.
fn with_defaults(
    source: &ast::Query,
    relation: &Relation,
    columns: &[usize],
) -> Result<ast::Query> {
    let mut source = source.clone();
    if let SetExpr::Values(values) = source.body.as_mut() {
        for row in &mut values.rows {
            for (cell, column) in row.content.iter_mut().zip(columns) {
                *cell = or_default(cell.clone(), &relation.columns[*column])?;
            }
        }
    }
    Ok(source)
}

/// An assignment cast to a column's type, even where the types agree: the plan is not analysed yet,
/// and literals, quotients and sums may still get other types.
fn assign(
    expr: LogicalExpr,
    plan: &LogicalPlan,
    column: &tidemark_plan::Column,
) -> Result<LogicalExpr> {
    let from = expr.get_type(plan.schema()).map_err(from_datafusion)?;
    if from == column.data_type {
        return Ok(if from.is_numeric() {
            LogicalExpr::Cast(Cast::new(Box::new(expr), from))
        } else {
            expr
        });
    }
    let strings = |t: &DataType| {
        matches!(
            t,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null
        )
    };
    let numbers = |t: &DataType| t.is_numeric() || *t == DataType::Null;
    let fits = strings(&from)
        || numbers(&from) && (numbers(&column.data_type) || strings(&column.data_type))
        || from.is_temporal() && column.data_type.is_temporal();
    if !fits
        && !matches!(
            (&from, &column.data_type),
            (DataType::Boolean, DataType::Utf8)
                | (DataType::List(_), DataType::List(_))
                | (DataType::Struct(_), DataType::Struct(_))
        )
        && !strings(&column.data_type)
    {
        let name = |t: &DataType| types::display_name(&types::of_arrow(t));
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but expression is of type {}",
                column.name,
                name(&column.data_type),
                name(&from)
            ),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    expr.cast_to(&column.data_type, plan.schema())
        .map_err(from_datafusion)
}

/// The batch under another schema of the same types (names, metadata, nullability differ). A NULL
/// where none is allowed is for the engine to report.
fn redress(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let relaxed = Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(f, c)| {
                f.as_ref()
                    .clone()
                    .with_nullable(f.is_nullable() || c.null_count() > 0)
            })
            .collect::<Vec<Field>>(),
    ));
    RecordBatch::try_new(relaxed, batch.columns().to_vec())
        .map_err(crate::protocol::error::from_arrow)
}

/// A batch of the table's columns; a NULL in a NOT NULL column is an error that names it.
fn nullable_batch(relation: &Relation, arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
    for (array, column) in arrays.iter().zip(&relation.columns) {
        if !column.nullable && array.null_count() > 0 {
            return Err(Error::user(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, relation.name
                ),
            ));
        }
    }
    RecordBatch::try_new(relation.arrow_schema(), arrays)
        .map_err(crate::protocol::error::from_arrow)
}

fn one_batch(batches: Vec<RecordBatch>, relation: &Relation) -> Result<RecordBatch> {
    let Some(first) = batches.first() else {
        return Ok(RecordBatch::new_empty(relation.arrow_schema()));
    };
    let batch =
        concat_batches(&first.schema(), &batches).map_err(crate::protocol::error::from_arrow)?;
    computed_batch(relation, batch.columns().to_vec())
}

/// A batch of computed values, checked as inputs are.
pub(crate) fn computed_batch(relation: &Relation, arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
    let arrays = arrays
        .into_iter()
        .zip(&relation.columns)
        .map(|(array, column)| values::conform(array, column))
        .collect::<Result<_>>()?;
    nullable_batch(relation, arrays)
}

/// One text per row that stands for its key.
fn key_texts(batch: &RecordBatch, relation: &Relation) -> Result<Vec<Vec<u8>>> {
    let columns: Vec<ArrayRef> = relation
        .key
        .iter()
        .map(|k| batch.column(*k).clone())
        .collect();
    let mut rows = vec![Vec::new(); batch.num_rows()];
    tidemark_changelog::key::encode_columns(&columns, &mut rows);
    Ok(rows)
}

fn key_set(batch: &RecordBatch, relation: &Relation) -> Result<HashSet<Vec<u8>>> {
    Ok(key_texts(batch, relation)?.into_iter().collect())
}

/// Of rows that a join repeats, the first of each key.
fn first_of_each_key(
    batch: &RecordBatch,
    relation: &Relation,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<RecordBatch> {
    let keep: BooleanArray = key_texts(batch, relation)?
        .into_iter()
        .map(|key| Some(seen.insert(key)))
        .collect();
    filter_record_batch(batch, &keep).map_err(crate::protocol::error::from_arrow)
}

fn copy_options(
    options: &[ast::CopyOption],
    legacy: &[ast::CopyLegacyOption],
) -> Result<CopyOptions> {
    use ast::{CopyLegacyOption as L, CopyOption as O};
    let mut out = CopyOptions::default();
    let (mut delimiter, mut null) = (None, None);
    for option in options {
        match option {
            O::Format(f) if f.value.eq_ignore_ascii_case("csv") => out.csv = true,
            O::Format(f) if f.value.eq_ignore_ascii_case("text") => {}
            O::Format(f) => {
                return Err(Error::unsupported(format!(
                    "COPY format \"{}\" is not supported",
                    f.value
                ))
                .with_hint("Use text or csv."));
            }
            O::Delimiter(c) => delimiter = Some(*c),
            O::Null(text) => null = Some(text.clone()),
            O::Header(on) => out.header = *on,
            O::Quote(c) => out.quote = *c as u8,
            O::Encoding(_) | O::Freeze(_) => {}
            other => {
                return Err(Error::unsupported(format!(
                    "COPY option {other} is not supported"
                )));
            }
        }
    }
    for option in legacy {
        match option {
            L::Csv(inner) => {
                out.csv = true;
                out.header |= inner
                    .iter()
                    .any(|o| matches!(o, ast::CopyLegacyCsvOption::Header));
            }
            L::Delimiter(c) => delimiter = Some(*c),
            L::Null(text) => null = Some(text.clone()),
            L::Header => out.header = true,
            other => {
                return Err(Error::unsupported(format!(
                    "COPY option {other} is not supported"
                )));
            }
        }
    }
    let delimiter = delimiter.unwrap_or(if out.csv { ',' } else { '\t' });
    if !delimiter.is_ascii() {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            "COPY delimiter must be a single one-byte character",
        ));
    }
    out.delimiter = delimiter as u8;
    out.null = null.unwrap_or(if out.csv { String::new() } else { "\\N".into() });
    Ok(out)
}
