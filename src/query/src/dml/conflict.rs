//! INSERT .. ON CONFLICT: what is done with rows of which the key is taken, or the columns of a
//! unique index.
//!
//! The proposed rows are taken one after the other, as PostgreSQL takes them: each is held against
//! the rows that are there and those that came before it in the statement. What its target (the
//! *arbiter*) does not name is checked when the statement has written, as of any INSERT.

use super::change::plan_update;
use super::*;
use std::collections::BTreeSet;
use tidemark_node::unique_keys;

/// Columns that proposed rows may not share with others, and the rows that have theirs.
struct Arbiter {
    columns: Vec<usize>,
    /// They are those of the key.
    is_key: bool,
    /// Of each proposed row its values; `None` where one is NULL, which equals nothing.
    values: Vec<Option<Vec<u8>>>,
    existing: RecordBatch,
    taken: HashSet<Vec<u8>>,
}

/// What becomes of the proposed rows.
struct Fates {
    /// Those that come.
    fresh: Vec<bool>,
    /// Those that meet a row that is there.
    met: Vec<bool>,
}

impl Asker {
    /// The columns of the key and of each unique index, whose columns are given, that ON CONFLICT
    /// asks about: those of its target, or without one all.
    ///
    /// Errors: `42601` for DO UPDATE without a target, `42703`, `42704` or `42P10` for one that
    /// nothing keeps unique, `42501` where it may not be read.
    pub(super) fn arbiters(
        &self,
        relation: &Relation,
        conflict: &ast::OnConflict,
        indexes: Vec<Vec<usize>>,
    ) -> Result<Vec<Vec<usize>>> {
        let is_update = matches!(conflict.action, ast::OnConflictAction::DoUpdate(_));
        let key = Some(relation.key.clone()).filter(|key| !key.is_empty());
        let mut all = key.into_iter().chain(indexes);
        let found = match &conflict.conflict_target {
            None if is_update => {
                let message = "ON CONFLICT DO UPDATE requires inference specification or \
                               constraint name";
                return Err(Error::user(SqlState::SYNTAX_ERROR, message)
                    .with_hint("For example, ON CONFLICT (column_name)."));
            }
            None => return Ok(all.collect()),
            Some(ast::ConflictTarget::Columns(names)) => {
                let columns = names.iter().map(|name| named_column(relation, &fold(name)));
                let columns = columns.collect::<Result<BTreeSet<usize>>>()?;
                all.find(|of| of.iter().copied().collect::<BTreeSet<_>>() == columns)
                    .ok_or_else(|| {
                        let message = "there is no unique or exclusion constraint matching the \
                                       ON CONFLICT specification";
                        Error::user(SqlState("42P10"), message)
                    })?
            }
            // An index that CREATE INDEX made is not a constraint.
            Some(ast::ConflictTarget::OnConstraint(name)) => {
                let (name, table) = (last_name(name)?, &relation.name);
                let is_key = !relation.key.is_empty() && name == format!("{table}_pkey");
                all.next().filter(|_| is_key).ok_or_else(|| {
                    let message =
                        format!("constraint \"{name}\" for table \"{table}\" does not exist");
                    Error::user(SqlState("42704"), message)
                })?
            }
        };
        self.require(Privilege::Select, relation)?;
        Ok(vec![found])
    }

    /// ON CONFLICT: what an INSERT of `batch` changes, given the rows that have what is to be
    /// unique of it. The table has this name in the statement.
    pub(super) async fn resolve_conflicts(
        &mut self,
        guard: &SharedGuard,
        relation: &Arc<Relation>,
        conflict: &ast::OnConflict,
        batch: RecordBatch,
        name: &str,
    ) -> Result<Changes> {
        let indexes = guard.lock().unique_columns(relation.id)?;
        let arbiters = self.arbiters(relation, conflict, indexes)?.into_iter();
        let arbiters = arbiters.map(|columns| Arbiter::of(guard, relation, columns, &batch));
        let mut arbiters = arbiters.collect::<Result<Vec<_>>>()?;
        let ast::OnConflictAction::DoUpdate(update) = &conflict.action else {
            let fates = Fates::of(&arbiters, batch.num_rows(), false)?;
            let inserted = chosen(&batch, &fates.fresh)?;
            // What a block writes is looked up anew if it has to be written again.
            let is_known = arbiters.iter().any(|a| a.is_key) && self.transaction.block().is_none();
            return Ok(Changes {
                affected: vec![inserted.clone()],
                inserts: vec![inserted],
                keys: if is_known {
                    NewKeys::Known
                } else {
                    NewKeys::Free
                },
                ..Changes::default()
            });
        };
        if relation.append_only {
            let message = format!(
                "cannot update table \"{}\": it is append only",
                relation.name
            );
            return Err(Error::user(SqlState::WRONG_OBJECT_TYPE, message)
                .with_hint("Write ON CONFLICT DO NOTHING."));
        }
        let fates = Fates::of(&arbiters, batch.num_rows(), true)?;
        let inserted = chosen(&batch, &fates.fresh)?;
        let excluded = chosen(&batch, &fates.met)?;
        let Some(arbiter) = arbiters.pop() else {
            return Err(Error::internal("ON CONFLICT DO UPDATE without a target"));
        };
        let updated = self.update_conflicting(guard, (relation, name), update, arbiter, excluded);
        let mut changes = Box::pin(updated).await?;
        changes.inserts.push(inserted);
        changes.affected = changes.inserts.clone();
        changes.keys = NewKeys::Free;
        Ok(changes)
    }

    /// `DO UPDATE SET ..`: existing rows joined with the proposed ones (`excluded`) that met them.
    async fn update_conflicting(
        &mut self,
        guard: &SharedGuard,
        (relation, name): (&Arc<Relation>, &str),
        update: &ast::DoUpdate,
        arbiter: Arbiter,
        excluded: RecordBatch,
    ) -> Result<Changes> {
        let mut snapshot = self.write_snapshot(guard, relation, update).await?;
        let schema = relation.sql_schema();
        for (table_name, batch) in [
            (name.to_string(), arbiter.existing),
            ("excluded".to_string(), excluded),
        ] {
            let table = MemTable::try_new(schema.clone(), vec![vec![redress(batch, &schema)?]])
                .map_err(from_datafusion)?;
            snapshot.overrides.push(Override {
                name: table_name,
                relation: Arc::new(relation.revealed()),
                table: Arc::new(table),
            });
        }
        let quoted = |table: &str, column: usize| {
            Expr::CompoundIdentifier(vec![
                Ident::with_quote('"', table),
                Ident::with_quote('"', &relation.columns[column].name),
            ])
        };
        let same = arbiter.columns.iter().map(|k| {
            binary(
                quoted(name, *k),
                ast::BinaryOperator::Eq,
                quoted("excluded", *k),
            )
        });
        let condition = same
            .chain(update.selection.clone().map(|e| qualify(e, relation, name)))
            .reduce(|a, b| binary(a, ast::BinaryOperator::And, b));
        let as_update = ast::Update {
            assignments: update
                .assignments
                .iter()
                .map(|a| ast::Assignment {
                    target: a.target.clone(),
                    value: qualify(a.value.clone(), relation, name),
                })
                .collect(),
            table: table_named(name),
            from: Some(ast::UpdateTableFromKind::AfterSet(vec![table_named(
                "excluded",
            )])),
            selection: condition,
            ..empty_update()
        };
        let (table, name) = (relation.clone(), name.to_string());
        let planned = self.planned(move |state| {
            let (plan, assigned) = plan_update(state, &snapshot, &as_update, &table, &name)?;
            Ok((runnable(state, plan)?, assigned))
        });
        let (plan, assigned) = planned.await?;
        let width = relation.columns.len();
        let mut changes = Changes::default();
        for batch in self
            .collect(plan)
            .await?
            .into_iter()
            .filter(|b| b.num_rows() > 0)
        {
            let old = batch
                .project(&(0..width).collect::<Vec<_>>())
                .map_err(crate::error::from_arrow)?;
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
}

impl Arbiter {
    /// The rows that have what the proposed ones have in these columns.
    fn of(
        guard: &SharedGuard,
        relation: &Relation,
        columns: Vec<usize>,
        batch: &RecordBatch,
    ) -> Result<Arbiter> {
        let is_whole = |row: usize| columns.iter().all(|c| batch.column(*c).is_valid(row));
        let is_key = columns == relation.key;
        let keys_of = |rows: &RecordBatch| match is_key {
            true => texts_of(rows, &columns),
            false => {
                let columns: Vec<_> = columns.iter().map(|c| rows.column(*c).clone()).collect();
                unique_keys(&columns)
            }
        };
        let texts = keys_of(batch).into_iter().enumerate();
        let values: Vec<Option<Vec<u8>>> = texts
            .map(|(row, text)| is_whole(row).then_some(text))
            .collect();
        let mut seen = HashSet::new();
        let first = values
            .iter()
            .map(|v| v.as_ref().is_some_and(|v| seen.insert(v)));
        let wanted = chosen(batch, &first.collect::<Vec<bool>>())?;
        let wanted: Vec<ArrayRef> = columns.iter().map(|c| wanted.column(*c).clone()).collect();
        let existing = match is_key {
            true => guard.lock().lookup(relation.id, &wanted)?,
            false => guard.lock().lookup_by(relation.id, &columns, &wanted)?,
        };
        Ok(Arbiter {
            taken: keys_of(&existing).into_iter().collect(),
            columns,
            is_key,
            values,
            existing,
        })
    }
}

impl Fates {
    /// `21000` for DO UPDATE of a row that the statement has inserted or updated already.
    fn of(arbiters: &[Arbiter], rows: usize, updates: bool) -> Result<Fates> {
        let mut before: Vec<HashSet<&[u8]>> = vec![HashSet::new(); arbiters.len()];
        let (mut fresh, mut met) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for row in 0..rows {
            let values = || arbiters.iter().map(|a| a.values[row].as_deref());
            let mut taken = arbiters.iter().zip(values());
            let is_met = taken.any(|(a, value)| value.is_some_and(|v| a.taken.contains(v)));
            let mut taken = before.iter().zip(values());
            let repeats = taken.any(|(before, value)| value.is_some_and(|v| before.contains(v)));
            if repeats && updates {
                let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
                return Err(Error::user(SqlState("21000"), message).with_hint(
                    "Ensure that no rows proposed for insertion within the same command have \
                     duplicate constrained values.",
                ));
            }
            let is_fresh = !is_met && !repeats;
            if is_fresh || updates {
                for (before, value) in before.iter_mut().zip(values()) {
                    before.extend(value);
                }
            }
            fresh.push(is_fresh);
            met.push(is_met);
        }
        Ok(Fates { fresh, met })
    }
}

/// Those rows of a batch.
fn chosen(batch: &RecordBatch, rows: &[bool]) -> Result<RecordBatch> {
    match rows.iter().all(|is_chosen| *is_chosen) {
        true => Ok(batch.clone()),
        false => filter_record_batch(batch, &BooleanArray::from(rows.to_vec()))
            .map_err(crate::error::from_arrow),
    }
}

/// The column that a target names.
fn named_column(relation: &Relation, name: &str) -> Result<usize> {
    let found = relation.visible().find(|(_, c)| c.name == name);
    found.map(|(at, _)| at).ok_or_else(|| {
        let message = format!("column \"{name}\" does not exist");
        Error::user(SqlState::UNDEFINED_COLUMN, message)
    })
}
