//! INSERT: constants straight into columns, everything else as a query.

use super::alike::{alike, in_order};
use super::generated::check_inserted;
use super::streamed::Piece;
use super::*;
use crate::privileges::denied;
use std::ops::ControlFlow;
use tidemark_plan::Conflict;

impl Asker {
    pub(super) async fn insert(&mut self, insert: &ast::Insert) -> Result<Outcome> {
        let ast::TableObject::TableName(object) = &insert.table else {
            return Err(Error::user(SqlState::SYNTAX_ERROR, "INSERT needs a table"));
        };
        let relation = self.target(object, "insert into")?;
        if let Some(ast::OnInsert::OnConflict(conflict)) = &insert.on {
            let catalog = self.catalog();
            let indexes = catalog
                .unique_indexes(&relation)
                .map(|(_, columns)| columns);
            self.arbiters(&relation, conflict, indexes.collect())?;
        }
        if relation.conflict == Conflict::Merge && insert.on.is_none() && insert.returning.is_some()
        {
            let message =
                "RETURNING is not supported for a table ON CONFLICT DO UPDATE IF NOT NULL";
            return Err(Error::unsupported(message).with_hint("Read the row when it is written."));
        }
        self.require_of_insert(insert, &relation)?;
        let columns = insert_columns(insert, &relation)?;
        // Constants are parsed before the lock is taken, and queries are planned under it.
        let constant = constant_rows(insert, &relation, &columns, &[], &self.settings.zone())?;
        let parts = match &constant {
            Some(_) => Vec::new(),
            None => alike(insert, &names_of_functions(&self.catalog())),
        };
        let guard = self.lock(&[relation.id]).await?;
        if !self.is_as_before(&relation) {
            drop(guard);
            return Box::pin(self.insert(insert)).await;
        }
        let batch = match constant {
            Some(batch) => batch,
            None => {
                let snapshot = self.write_snapshot(&guard, &relation, insert).await?;
                let table = relation.clone();
                let places: Vec<_> = parts.iter().map(|part| part.places.clone()).collect();
                let planned = self.planned(move |state| {
                    let plans = parts.iter().map(|part| {
                        let insert = &part.insert;
                        runnable(
                            state,
                            plan_insert(state, &snapshot, insert, &table, &columns)?,
                        )
                    });
                    plans.collect::<Result<Vec<_>>>()
                });
                let mut plans = planned.await?;
                let is_plain = insert.on.is_none() && values_of(insert).is_none();
                if is_plain
                    && self.may_replace(&relation)
                    && self.may_stream_into(&relation, insert.returning.as_deref())
                    && let (1, Some(plan)) = (plans.len(), plans.pop())
                {
                    let table = relation.clone();
                    let appended = move |batch: RecordBatch| {
                        let rows = computed_batch(&table, batch.columns().to_vec())?;
                        Ok(Piece::Appended(rows))
                    };
                    return self
                        .write_streamed(guard, &relation, plan, "INSERT 0", appended)
                        .await;
                }
                let mut batches = Vec::new();
                for plan in plans {
                    batches.extend(self.collect(plan).await?);
                }
                one_batch(in_order(batches, &places)?, &relation)?
            }
        };
        self.insert_rows(guard, &relation, insert, batch).await
    }

    /// Beside INSERT: UPDATE for DO UPDATE, and SELECT where it says something of rows that are
    /// there, or returns columns.
    ///
    /// Errors: `42501`.
    pub(super) fn require_of_insert(
        &self,
        insert: &ast::Insert,
        relation: &Relation,
    ) -> Result<()> {
        let mut reads = insert.returning.iter().flatten().any(names_a_column);
        if let Some(ast::OnInsert::OnConflict(on)) = &insert.on {
            reads |= on.conflict_target.is_some();
            if matches!(on.action, ast::OnConflictAction::DoUpdate(_)) {
                self.require(Privilege::Update, relation)?;
            }
        }
        match reads {
            true => self.require(Privilege::Select, relation),
            false => Ok(()),
        }
    }

    /// Whether new rows may take the place of those that have their keys: that changes them.
    pub(super) fn may_replace(&self, relation: &Relation) -> bool {
        let replaces = !relation.key.is_empty() && relation.conflict != Conflict::Ignore;
        !replaces || self.require(Privilege::Update, relation).is_ok()
    }

    /// `42501` where new rows would take the place of others, and the client may not change those.
    pub(super) fn check_replaced(
        &self,
        guard: &SharedGuard,
        relation: &Relation,
        new: &RecordBatch,
    ) -> Result<()> {
        if self.may_replace(relation) {
            return Ok(());
        }
        let keys = relation.key.iter().map(|k| new.column(*k).clone());
        let replaced = guard
            .lock()
            .lookup(relation.id, &keys.collect::<Vec<_>>())?;
        match replaced.num_rows() {
            0 => Ok(()),
            _ => Err(denied(relation.kind.name(), &relation.name)
                .with_detail("A row of this key is there: replacing it needs UPDATE.")),
        }
    }

    /// Writes the rows of an INSERT, those whose keys are taken as it says.
    pub(super) async fn insert_rows(
        &mut self,
        guard: SharedGuard,
        relation: &Arc<Relation>,
        insert: &ast::Insert,
        batch: RecordBatch,
    ) -> Result<Outcome> {
        let name = insert
            .table_alias
            .as_ref()
            .map_or_else(|| relation.name.clone(), |a| fold(&a.alias));
        let changes = match &insert.on {
            None => {
                self.check_replaced(&guard, relation, &batch)?;
                Changes {
                    affected: vec![batch.clone()],
                    inserts: vec![batch],
                    ..Changes::default()
                }
            }
            Some(ast::OnInsert::OnConflict(conflict)) => {
                self.resolve_conflicts(&guard, relation, conflict, batch, &name)
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
        self.finish(
            guard,
            relation,
            changes,
            "INSERT 0",
            insert.returning.as_deref().map(|r| (r, name)),
        )
        .await
    }
}

/// Whether something that is returned is, or is computed of, columns.
fn names_a_column(item: &SelectItem) -> bool {
    let is_column = |e: &Expr| match e {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => {
            ast::visit_expressions(e, is_column).is_break()
        }
        _ => true,
    }
}

/// The plan of an INSERT's rows, in all columns of the table and their types.
pub(super) fn plan_insert(
    state: &SessionState,
    snapshot: &Snapshot,
    insert: &ast::Insert,
    relation: &Relation,
    columns: &[usize],
) -> Result<LogicalPlan> {
    let given = match &insert.source {
        Some(source) => {
            let query = ast::Statement::Query(Box::new(with_defaults(source, relation, columns)?));
            let plan = plan_query(state, snapshot, &query)?;
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
    if values_of(insert).is_none() {
        let targets = columns.iter().take(given_columns.len());
        let mut targets = targets.filter(|_| insert.source.is_some());
        targets.try_for_each(|column| check_inserted(relation, *column, None))?;
    }
    let mut exprs = Vec::new();
    for (i, column) in relation.columns.iter().enumerate() {
        let expr = match columns
            .iter()
            .position(|c| *c == i)
            .and_then(|at| given_columns.get(at))
        {
            Some(c) => LogicalExpr::Column(c.clone()),
            None => default_expression(state, snapshot, column)?,
        };
        exprs.push(assign(expr, &given, column)?.alias(format!("{NEW}{i}")));
    }
    LogicalPlanBuilder::from(given)
        .project(exprs)
        .and_then(|b| b.build())
        .map_err(from_datafusion)
}

/// A column's default as an expression; NULL without one.
pub(super) fn default_expression(
    state: &SessionState,
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
    match plan_query(state, snapshot, &statement)? {
        LogicalPlan::Projection(p) if p.expr.len() == 1 => Ok(p.expr[0].clone().unalias()),
        _ => Err(Error::unsupported(format!(
            "the default of column \"{}\" is not an expression",
            column.name
        ))),
    }
}

/// The target columns of an INSERT, by position.
pub(super) fn insert_columns(insert: &ast::Insert, relation: &Relation) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok(relation.visible_positions());
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

pub(super) fn values_of(insert: &ast::Insert) -> Option<&[ast::Parens<Vec<Expr>>]> {
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
pub(super) fn direct_parameters(
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

pub(super) fn all_direct(insert: &ast::Insert) -> bool {
    values_of(insert).is_some_and(|rows| {
        rows.iter().flat_map(|r| r.content.iter()).all(|e| {
            parameters::placeholder(e).is_some()
                || constant(e).is_some()
                || matches!(e, Expr::Cast { expr, .. } if constant(expr).is_some())
        })
    })
}

/// The source with DEFAULT in its VALUES replaced, and with the types that quoted constants take.
pub(super) fn with_defaults(
    source: &ast::Query,
    relation: &Relation,
    columns: &[usize],
) -> Result<ast::Query> {
    let mut source = source.clone();
    match source.body.as_mut() {
        SetExpr::Values(values) => {
            for row in &mut values.rows {
                for (cell, column) in row.content.iter_mut().zip(columns) {
                    *cell = value_for(cell.clone(), &relation.columns[*column])?;
                }
            }
        }
        SetExpr::Select(select) => {
            let items = select.projection.iter_mut().zip(columns);
            let plain = |item: &SelectItem| {
                matches!(
                    item,
                    SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
                )
            };
            for (item, column) in items.take_while(|(item, _)| plain(item)) {
                if let SelectItem::UnnamedExpr(value)
                | SelectItem::ExprWithAlias { expr: value, .. } = item
                    && (constant(value).is_some() || is_default(value))
                {
                    *value = value_for(value.clone(), &relation.columns[*column])?;
                }
            }
        }
        _ => {}
    }
    Ok(source)
}
