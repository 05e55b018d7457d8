//! INSERT .. ON CONFLICT: what is done with rows whose key is taken.

use super::change::plan_update;
use super::*;

impl Asker {
    /// ON CONFLICT: what an INSERT of `batch` changes, given the rows that have its keys. The table
    /// has this name in the statement.
    pub(super) async fn resolve_conflicts(
        &mut self,
        guard: &SharedGuard,
        relation: &Arc<Relation>,
        conflict: &ast::OnConflict,
        batch: RecordBatch,
        name: &str,
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
        let arrow = crate::error::from_arrow;
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
            .update_conflicting(guard, (relation, name), update, existing, excluded)
            .await?;
        changes.inserts.push(inserted);
        changes.affected = changes.inserts.clone();
        changes.unique = true;
        Ok(changes)
    }

    /// `DO UPDATE SET ..`: existing rows joined with the proposed ones (`excluded`) by key.
    pub(super) async fn update_conflicting(
        &mut self,
        guard: &SharedGuard,
        (relation, name): (&Arc<Relation>, &str),
        update: &ast::DoUpdate,
        existing: RecordBatch,
        excluded: RecordBatch,
    ) -> Result<Changes> {
        let mut snapshot = self.write_snapshot(guard, relation, update).await?;
        let schema = relation.sql_schema();
        for (table_name, batch) in [
            (name.to_string(), existing),
            ("excluded".to_string(), excluded),
        ] {
            let table = MemTable::try_new(schema.clone(), vec![vec![redress(batch, &schema)?]])
                .map_err(from_datafusion)?;
            snapshot.overrides.push(Override {
                name: table_name,
                relation: relation.clone(),
                table: Arc::new(table),
            });
        }
        let quoted = |table: &str, column: usize| {
            Expr::CompoundIdentifier(vec![
                Ident::with_quote('"', table),
                Ident::with_quote('"', &relation.columns[column].name),
            ])
        };
        let same_key = relation.key.iter().map(|k| {
            binary(
                quoted(name, *k),
                ast::BinaryOperator::Eq,
                quoted("excluded", *k),
            )
        });
        let condition = same_key
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
