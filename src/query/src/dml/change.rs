//! UPDATE and DELETE: queries over the locked rows. The old half leaves, the new half comes.

use super::streamed::Piece;
use super::*;
use crate::serving::table_provider::RelationTable;
use std::borrow::Cow;

impl Asker {
    pub(super) async fn update(&mut self, update: &ast::Update) -> Result<Outcome> {
        if update.from.is_some() {
            check_returning(update.returning.as_deref())?;
        }
        let (object, alias) = table_and_alias(&update.table)?;
        let relation = self.target(object, "update")?;
        if update.from.is_some() && relation.key.is_empty() {
            return Err(Error::unsupported(
                "UPDATE .. FROM needs a table with a primary key",
            ));
        }
        let name = alias.unwrap_or_else(|| relation.name.clone());
        let guard = self.lock(&[relation.id]).await?;
        if !self.is_as_before(&relation) {
            drop(guard);
            return Box::pin(self.update(update)).await;
        }
        let snapshot = self.write_snapshot(&guard, &relation, update).await?;
        let (table, tree, alias) = (relation.clone(), update.clone(), name.clone());
        let planned = self.planned(move |state| {
            let (plan, assigned) = plan_update(state, &snapshot, &tree, &table, &alias)?;
            Ok((runnable(state, plan)?, assigned))
        });
        let (plan, assigned) = planned.await?;
        let joined = update.from.is_some();
        let mut changes = Changes {
            keys: keys_after(&relation, &assigned),
            ..Changes::default()
        };
        let table = relation.clone();
        let mut seen = HashSet::new();
        let mut halves = move |batch: RecordBatch| {
            let batch = match joined {
                true => first_of_each_key(&batch, &table, &mut seen)?,
                false => batch,
            };
            halves_of(&table, &batch, &assigned)
        };
        if changes.keys == NewKeys::Known
            && self.may_stream_into(&relation, update.returning.as_deref())
        {
            let exchanged = move |batch| {
                let (old, new) = halves(batch)?;
                Ok(Piece::Exchanged(old, Some(new)))
            };
            return self
                .write_streamed(guard, &relation, plan, "UPDATE", exchanged)
                .await;
        }
        for batch in self.collect(plan).await? {
            if batch.num_rows() > 0 {
                let (old, new) = halves(batch)?;
                changes.deletes.push(old);
                changes.inserts.push(new);
            }
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

    pub(super) async fn delete(&mut self, delete: &ast::Delete) -> Result<Outcome> {
        if delete.using.is_some() {
            check_returning(delete.returning.as_deref())?;
        }
        let table = delete_target(delete)?;
        let (object, alias) = table_and_alias(table)?;
        let relation = self.target(object, "delete from")?;
        let name = alias.unwrap_or_else(|| relation.name.clone());
        let guard = self.lock(&[relation.id]).await?;
        if !self.is_as_before(&relation) {
            drop(guard);
            return Box::pin(self.delete(delete)).await;
        }
        let snapshot = self.write_snapshot(&guard, &relation, delete).await?;
        let (target, tree, alias) = (relation.clone(), delete.clone(), name.clone());
        let planned = self.planned(move |state| {
            let plan = plan_delete(state, &snapshot, &tree, &target, &alias)?;
            runnable(state, plan)
        });
        let plan = planned.await?;
        let (table, joined) = (relation.clone(), delete.using.is_some());
        let mut seen = HashSet::new();
        let mut leaving = move |batch: RecordBatch| {
            let batch = match joined {
                true => first_of_each_key(&batch, &table, &mut seen)?,
                false => batch,
            };
            redress(batch, &table.arrow_schema())
        };
        if self.may_stream(delete.returning.as_deref()) {
            let exchanged = move |batch| Ok(Piece::Exchanged(leaving(batch)?, None));
            return self
                .write_streamed(guard, &relation, plan, "DELETE", exchanged)
                .await;
        }
        let mut changes = Changes::default();
        for batch in self.collect(plan).await? {
            if batch.num_rows() > 0 {
                changes.deletes.push(leaving(batch)?);
            }
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
}

/// The rows that leave and those that come, of a batch of the old row and its new values.
fn halves_of(
    relation: &Relation,
    batch: &RecordBatch,
    assigned: &[usize],
) -> Result<(RecordBatch, RecordBatch)> {
    let width = relation.columns.len();
    let old = batch
        .project(&(0..width).collect::<Vec<_>>())
        .map_err(crate::error::from_arrow)?;
    let mut arrays = old.columns().to_vec();
    for (i, target) in assigned.iter().enumerate() {
        arrays[*target] = batch.column(width + i).clone();
    }
    let old = redress(old, &relation.arrow_schema())?;
    Ok((old, computed_batch(relation, arrays)?))
}

/// `0A000` for `RETURNING *` where there are other tables than the target, of which the columns are
/// not there.
fn check_returning(items: Option<&[SelectItem]>) -> Result<()> {
    let all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_));
    match items.is_some_and(|items| items.iter().any(all)) {
        true => Err(
            Error::unsupported("RETURNING * is not supported with FROM or USING").with_hint(
                "Columns of the target alone can be returned, as with RETURNING target.*.",
            ),
        ),
        false => Ok(()),
    }
}

/// The name of a target that has all columns that the table has ever had.
const WHOLE: &str = "........written........";

/// The target of an UPDATE or DELETE with all columns that the table has ever had, under the name
/// that the statement has for it: rows leave as they are kept, with what nobody can name any more.
///
/// Errors: `42501` for a table that may not be read.
fn whole_target<'a>(
    snapshot: &'a Snapshot,
    relation: &Relation,
    target: &ast::TableWithJoins,
    name: &str,
) -> Result<(Cow<'a, Snapshot>, ast::TableWithJoins)> {
    let is_given = snapshot.overrides.iter().any(|own| own.name == name);
    if is_given || !relation.has_dropped() {
        return Ok((Cow::Borrowed(snapshot), target.clone()));
    }
    if !snapshot.readable.lock().contains(&relation.id) {
        snapshot.check_read(relation)?;
    }
    let revealed = Arc::new(relation.revealed());
    let table = RelationTable::new(snapshot.clone(), revealed.clone());
    let mut snapshot = snapshot.clone();
    snapshot.overrides.push(Override {
        name: WHOLE.into(),
        relation: revealed,
        table: Arc::new(table),
    });
    let mut target = table_named(WHOLE);
    if let ast::TableFactor::Table { alias, .. } = &mut target.relation {
        *alias = Some(ast::TableAlias {
            explicit: true,
            name: Ident::with_quote('"', name),
            columns: Vec::new(),
            at: None,
        });
    }
    Ok((Cow::Owned(snapshot), target))
}

/// The old row, then the new values; and which columns those are for.
pub(super) fn plan_update(
    state: &SessionState,
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
            super::generated::check_updated(relation, at, &value)?;
            assigned.push(at);
            new.push(value_for(value, &relation.columns[at])?);
        }
    }
    let (snapshot, target) = whole_target(snapshot, relation, &update.table, name)?;
    let mut from = vec![target];
    match &update.from {
        Some(
            ast::UpdateTableFromKind::BeforeSet(tables)
            | ast::UpdateTableFromKind::AfterSet(tables),
        ) => from.extend(tables.clone()),
        None => {}
    }
    let statement =
        query_with(|s| {
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
    let plan = plan_query(state, &snapshot, &statement)?;
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

/// The rows that leave.
pub(super) fn plan_delete(
    state: &SessionState,
    snapshot: &Snapshot,
    delete: &ast::Delete,
    relation: &Relation,
    name: &str,
) -> Result<LogicalPlan> {
    if delete.using.is_some() && relation.key.is_empty() {
        return Err(Error::unsupported(
            "DELETE .. USING needs a table with a primary key",
        ));
    }
    let target = delete_target(delete)?;
    let (snapshot, table) = whole_target(snapshot, relation, target, name)?;
    let statement = query_with(|s| {
        s.projection = old_columns(relation, name);
        s.from = std::iter::once(table)
            .chain(delete.using.iter().flatten().cloned())
            .collect();
        s.selection = delete.selection.clone();
    });
    plan_query(state, &snapshot, &statement)
}
