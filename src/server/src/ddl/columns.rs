//! ALTER TABLE .. ADD, DROP and RENAME COLUMN.
//!
//! A table that gets or loses columns is locked for writing meanwhile, as by any other writer, and
//! all that was written to it before can be read: whoever waits for the lock writes rows with the
//! columns that there are then, or is told to try again. What depends on a column is found by what
//! its job reads and by what its query's text names (`tidemark_planner`); the coordinator refuses
//! the change if something has come to depend on the table meanwhile.

use super::mark_varchar;
use crate::session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_node::engine::CatalogChange;
use tidemark_plan::{Catalog, Column, Generated, Relation, RelationKind};
use tidemark_planner::statement::{ColumnAction, ColumnDefinition};
use tidemark_query::dml::Missing;
use tidemark_query::error::Notice;
use tidemark_query::identifiers::quote_ident;

/// How often it is looked whether what was written can be read.
const SETTLING: Duration = Duration::from_millis(2);

/// What the actions of one statement come to.
#[derive(Default)]
struct Alteration {
    changes: Vec<CatalogChange>,
    /// What goes with the columns that go.
    dropped: BTreeSet<RelationId>,
    /// Those of them that are told.
    told: Vec<Arc<Relation>>,
    cascade: bool,
    /// Positions of columns that go, names of those that come.
    gone: BTreeSet<usize>,
    come: BTreeSet<String>,
}

impl Alteration {
    /// The position of a column that is there and does not go.
    fn find(&self, table: &Relation, name: &str) -> Option<usize> {
        let mut columns = table.visible().filter(|(at, _)| !self.gone.contains(at));
        columns.find(|(_, c)| c.name == name).map(|(at, _)| at)
    }
}

impl Session {
    /// ADD, DROP and RENAME COLUMN, all or none.
    pub(super) async fn alter_columns(
        &mut self,
        relation: &Arc<Relation>,
        actions: &[ColumnAction],
    ) -> Result<()> {
        if let [ColumnAction::Rename { name, to }] = actions {
            return self.rename_column(relation, name, to).await;
        }
        check_alterable(relation, actions)?;
        let id = relation.id;
        let guard = self.asker.lock_alone(id).await?;
        while !guard.lock().is_settled(id)? {
            tokio::time::sleep(SETTLING).await;
        }
        // The wait can have been long.
        let catalog = self.catalog();
        let relation = catalog.relations.get(&id).cloned();
        let relation = relation.ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_TABLE,
                "the table does not exist any more",
            )
        })?;
        let mut alteration = Alteration::default();
        // As in PostgreSQL, what goes goes first.
        for action in actions {
            if let ColumnAction::Drop {
                name,
                if_exists,
                cascade,
            } = action
            {
                self.drop_column(
                    &catalog,
                    &relation,
                    (name, *if_exists, *cascade),
                    &mut alteration,
                )
                .await?;
            }
        }
        for action in actions {
            if let ColumnAction::Add {
                column,
                if_not_exists,
            } = action
            {
                if self.has_already(&relation, column, *if_not_exists, &alteration)? {
                    continue;
                }
                let (column, missing) = self.added_column(&catalog, &relation, column).await?;
                check_sinks(&catalog, id, &column)?;
                if !column.nullable && missing.is_null && guard.lock().has_rows(id)? {
                    return Err(Error::user(
                        SqlState::NOT_NULL_VIOLATION,
                        format!(
                            "column \"{}\" of relation \"{}\" contains null values",
                            column.name, relation.name
                        ),
                    ));
                }
                alteration.come.insert(column.name.clone());
                alteration.changes.push(CatalogChange::AddColumn {
                    relation: id,
                    column: Box::new(column),
                    missing: missing.text,
                });
            }
        }
        let width = relation.visible().count() + alteration.come.len();
        if width == alteration.gone.len() {
            let message = format!("table \"{}\" would be left without columns", relation.name);
            return Err(Error::unsupported(message).with_hint("DROP TABLE removes the table."));
        }
        self.log_alteration(alteration, guard).await
    }

    /// Logs it, under the table's lock.
    async fn log_alteration(
        &mut self,
        alteration: Alteration,
        lock: impl Send + 'static,
    ) -> Result<()> {
        let Alteration {
            changes,
            dropped,
            told,
            cascade,
            ..
        } = alteration;
        if changes.is_empty() {
            return Ok(());
        }
        match told.as_slice() {
            [] => {}
            [one] => self.notice(Notice::new(format!("drop cascades to {}", described(one)))),
            many => self.notice(Notice::new(format!(
                "drop cascades to {} other objects",
                many.len()
            ))),
        }
        let relations: Vec<RelationId> = dropped.into_iter().collect();
        let drops = (!relations.is_empty()).then_some(CatalogChange::Drop { relations });
        let changes = drops.into_iter().chain(changes).collect();
        // Once it is logged nobody writes before all workers have it, whether or not somebody still
        // waits for that.
        let engine = self.server.engine.clone();
        let altered = tokio::spawn(async move {
            let altered = engine.change_catalog(changes, cascade).await;
            drop(lock);
            altered
        });
        let ended = |e| Error::internal(format!("the alteration ended: {e}"));
        altered.await.map_err(ended)?
    }

    /// Whether a column that is to be added is there.
    ///
    /// Errors: `42701` if that is not what was asked for.
    fn has_already(
        &self,
        relation: &Relation,
        column: &ColumnDefinition,
        if_not_exists: bool,
        alteration: &Alteration,
    ) -> Result<bool> {
        let (name, table) = (&column.name, &relation.name);
        let there = alteration.find(relation, name).is_some() || alteration.come.contains(name);
        let message = format!("column \"{name}\" of relation \"{table}\" already exists");
        match (there, if_not_exists) {
            (false, _) => Ok(false),
            (true, true) => {
                let state = SqlState::DUPLICATE_COLUMN;
                self.notice(Notice::with_state(state, format!("{message}, skipping")));
                Ok(true)
            }
            (true, false) => {
                Err(Error::user(SqlState::DUPLICATE_COLUMN, message).at(column.position))
            }
        }
    }

    /// The column, and what rows have in it that are there.
    async fn added_column(
        &mut self,
        catalog: &Arc<Catalog>,
        relation: &Relation,
        definition: &ColumnDefinition,
    ) -> Result<(Column, Missing)> {
        let settings = &self.asker.settings;
        let zone = settings.get("timezone").unwrap_or("UTC").to_string();
        let path = settings.search_path();
        let planner = self.server.commons.sql.planner(catalog.clone(), &path);
        let mut column = planner.in_zone(&zone).plan_column(definition)?;
        mark_varchar(
            std::slice::from_mut(&mut column),
            std::slice::from_ref(definition),
        );
        tidemark_query::dml::check_defaults(std::slice::from_ref(&column))?;
        let columns = relation.columns.len() + 1;
        tidemark_query::serving::check_columns(columns)?;
        let missing = self.asker.missing_value(&column).await?;
        Ok((column, missing))
    }

    /// Notes that a column goes, with what goes with it.
    ///
    /// Errors: `42703`, `2BP01`; `0A000` for a column of the key.
    async fn drop_column(
        &mut self,
        catalog: &Arc<Catalog>,
        relation: &Arc<Relation>,
        (name, if_exists, cascade): (&str, bool, bool),
        alteration: &mut Alteration,
    ) -> Result<()> {
        let Some(column) = alteration.find(relation, name) else {
            let missing = no_column(relation, name);
            if if_exists {
                self.notice(Notice::new(format!("{}, skipping", missing.message())));
                return Ok(());
            }
            return Err(missing);
        };
        if relation.key.contains(&column) {
            let message = format!(
                "column \"{name}\" cannot be dropped: it is part of the primary key of table \
                 \"{}\"",
                relation.name
            );
            return Err(Error::unsupported(message)
                .with_hint("Make the table anew without it, and copy its rows."));
        }
        if let Some(user) = computed_of(relation, column, alteration) {
            let table = &relation.name;
            let message = format!(
                "cannot drop column {name} of table {table} because other objects depend on it"
            );
            let detail =
                format!("column {user} of table {table} depends on column {name} of table {table}");
            return Err(Error::user(SqlState::DEPENDENT_OBJECTS, message)
                .with_detail(detail)
                .with_hint("Drop the generated column, too."));
        }
        let mut spared = BTreeSet::new();
        let mut found = Vec::new();
        for dependent in catalog.dependents(relation.id) {
            if alteration.dropped.contains(&dependent.id) {
                continue;
            }
            if !self
                .names_column(catalog, dependent, relation, column)
                .await?
            {
                spared.insert(dependent.id);
            } else if dependent.kind == RelationKind::Index {
                alteration.dropped.insert(dependent.id);
            } else {
                found.push(dependent.clone());
            }
        }
        if !found.is_empty() && !cascade {
            return Err(still_named(relation, name, &found));
        }
        alteration.cascade |= !found.is_empty();
        alteration.dropped.extend(found.iter().map(|r| r.id));
        alteration.told.extend(found);
        alteration.gone.insert(column);
        alteration.changes.push(CatalogChange::DropColumn {
            relation: relation.id,
            column,
            spared,
        });
        Ok(())
    }

    /// Whether something that depends on a relation depends on this column of it. What cannot be
    /// told counts as a yes.
    async fn names_column(
        &self,
        catalog: &Arc<Catalog>,
        dependent: &Arc<Relation>,
        relation: &Arc<Relation>,
        column: usize,
    ) -> Result<bool> {
        if dependent.kind == RelationKind::Index {
            let name = &relation.columns[column].name;
            return Ok(dependent.columns.iter().any(|c| c.name == *name));
        }
        let into = dependent
            .into_table()
            .filter(|into| into.table == relation.id);
        if let Some(into) = into {
            return Ok(into.columns.contains(&column));
        }
        let taps = dependent.job.iter().flat_map(|job| job.taps());
        let mut taps = taps.filter(|(id, _)| *id == relation.id);
        if taps.any(|(_, columns)| columns.contains(&column)) {
            return Ok(true);
        }
        // Its text is ours, and names what it taps.
        if dependent.kind == RelationKind::Subscription {
            return Ok(false);
        }
        let path = self.asker.settings.search_path();
        let planner = self.server.commons.sql.planner(catalog.clone(), &path);
        let (reader, of) = (dependent.clone(), relation.clone());
        let named = move || Ok(planner.columns_named(&reader, &of).ok());
        let named = self.server.serving.planning.run(named).await?;
        Ok(named.is_none_or(|columns| columns.contains(&column)))
    }

    /// RENAME COLUMN: whatever reads the relation holds the column by its position.
    async fn rename_column(
        &mut self,
        relation: &Arc<Relation>,
        name: &str,
        to: &str,
    ) -> Result<()> {
        if relation.connector.is_some() || matches!(relation.kind, RelationKind::Source) {
            let message = format!(
                "a column of {} \"{}\" cannot be renamed: its name is that of the field in the \
                 records",
                relation.kind.name(),
                relation.name
            );
            return Err(Error::unsupported(message).with_hint("Rename it in a view."));
        }
        if matches!(
            relation.kind,
            RelationKind::Index | RelationKind::Subscription
        ) {
            return Err(no_action("RENAME COLUMN", relation));
        }
        let column = Alteration::default().find(relation, name);
        let user = column.and_then(|c| computed_of(relation, c, &Alteration::default()));
        if let Some(user) = user {
            let message = format!(
                "column \"{name}\" cannot be renamed: generated column \"{user}\" names it"
            );
            return Err(Error::unsupported(message).with_hint("Rename it in a view."));
        }
        // PostgreSQL's words where a column is renamed.
        let column = column.ok_or_else(|| {
            let message = format!("column \"{name}\" does not exist");
            Error::user(SqlState::UNDEFINED_COLUMN, message)
        })?;
        if Alteration::default().find(relation, to).is_some() {
            let message = format!(
                "column \"{to}\" of relation \"{}\" already exists",
                relation.name
            );
            return Err(Error::user(SqlState::DUPLICATE_COLUMN, message));
        }
        let catalog = self.catalog();
        let indexes = catalog.dependents(relation.id).into_iter();
        let indexes = indexes.filter(|r| r.kind == RelationKind::Index);
        let definitions: BTreeMap<RelationId, String> = indexes
            .map(|index| (index.id, renamed_in(&index.definition, name, to)))
            .collect();
        let change = CatalogChange::RenameColumn {
            relation: relation.id,
            column,
            name: to.into(),
            definitions,
        };
        self.server.engine.change_catalog(vec![change], false).await
    }
}

/// What sinks into a table cannot fill: `0A000` for a default that is computed, `23502` for a
/// column that must have a value and has no default.
fn check_sinks(catalog: &Catalog, table: RelationId, column: &Column) -> Result<()> {
    let writes = |r: &&Arc<Relation>| r.into_table().is_some_and(|into| into.table == table);
    let dependents = catalog.dependents(table).into_iter();
    let Some(sink) = dependents.into_iter().find(writes) else {
        return Ok(());
    };
    let (name, sink) = (&column.name, &sink.name);
    if !tidemark_query::dml::has_constant_default(column)? {
        return Err(Error::unsupported(format!(
            "the default of column \"{name}\" is not a constant, and sink \"{sink}\" writes the \
             table"
        ))
        .with_hint("Add the column with a constant or without a default."));
    }
    if !column.nullable && column.default.is_none() {
        return Err(Error::user(
            SqlState::NOT_NULL_VIOLATION,
            format!(
                "column \"{name}\" must have a value, and sink \"{sink}\", which writes the table, \
                 has none for it"
            ),
        )
        .with_hint("Add the column with a default."));
    }
    Ok(())
}

/// `0A000` or `42809` for a relation that cannot get or lose columns.
fn check_alterable(relation: &Relation, actions: &[ColumnAction]) -> Result<()> {
    let action = match actions.first() {
        Some(ColumnAction::Drop { .. }) => "DROP COLUMN",
        _ => "ADD COLUMN",
    };
    match relation.kind {
        RelationKind::Table if relation.connector.is_none() => Ok(()),
        RelationKind::Table | RelationKind::Source => {
            let message = format!(
                "{action} is not supported for {} \"{}\": what its records have was read, and \
                 decided, without regard to other columns",
                relation.kind.name(),
                relation.name
            );
            Err(Error::unsupported(message)
                .with_hint("Create another one over the same records with the columns it needs."))
        }
        _ => Err(no_action(action, relation)),
    }
}

/// The name of a generated column that stays and is computed of this one.
fn computed_of(relation: &Relation, column: usize, alteration: &Alteration) -> Option<String> {
    let stays = |g: &&Generated| g.column != column && !alteration.gone.contains(&g.column);
    let reads = |g: &&Generated| {
        let mut found = false;
        g.value.visit_columns(&mut |c| found |= c == column);
        found
    };
    let found = relation.generated.iter().filter(stays).find(reads)?;
    Some(relation.columns[found.column].name.clone())
}

fn no_action(action: &str, relation: &Relation) -> Error {
    let message = format!(
        "ALTER action {action} cannot be performed on relation \"{}\"",
        relation.name
    );
    let kind = match relation.kind {
        RelationKind::MaterializedView => "materialized views",
        RelationKind::Sink => "sinks",
        RelationKind::Index => "indexes",
        RelationKind::Subscription => "subscriptions",
        _ => "views",
    };
    Error::user(SqlState::WRONG_OBJECT_TYPE, message)
        .with_detail(format!("This operation is not supported for {kind}."))
}

fn no_column(relation: &Relation, name: &str) -> Error {
    Error::user(
        SqlState::UNDEFINED_COLUMN,
        format!(
            "column \"{name}\" of relation \"{}\" does not exist",
            relation.name
        ),
    )
}

fn described(relation: &Relation) -> String {
    format!("{} {}", relation.kind.name(), relation.name)
}

/// `2BP01`.
fn still_named(relation: &Relation, name: &str, by: &[Arc<Relation>]) -> Error {
    let column = format!("column {name} of table {}", relation.name);
    let line = |r: &Arc<Relation>| format!("{} depends on {column}", described(r));
    let lines: Vec<String> = by.iter().map(line).collect();
    Error::user(
        SqlState::DEPENDENT_OBJECTS,
        format!("cannot drop {column} because other objects depend on it"),
    )
    .with_detail(lines.join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// The text of an index, which names columns in parentheses, with another name for one of them.
fn renamed_in(definition: &str, name: &str, to: &str) -> String {
    let (before, columns) = match definition.find(" USING ") {
        Some(at) => definition.split_at(at),
        None => return definition.to_string(),
    };
    let (name, to) = (quote_ident(name), quote_ident(to));
    let mut text = before.to_string();
    let mut rest = columns;
    while !rest.is_empty() {
        let length = token_length(rest);
        let (token, behind) = rest.split_at(length);
        text.push_str(if token == name { &to } else { token });
        rest = behind;
    }
    text
}

/// The length of a name, quoted or not, or of one character that is none.
fn token_length(text: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let first = text.chars().next().map_or(0, char::len_utf8);
    if let Some(quoted) = text.strip_prefix('"') {
        let mut at = 0;
        while let Some(end) = quoted[at..].find('"') {
            at += end + 1;
            if !quoted[at..].starts_with('"') {
                return at + 1;
            }
            at += 1;
        }
        return text.len();
    }
    match text.starts_with(is_part) {
        true => text.find(|c| !is_part(c)).unwrap_or(text.len()),
        false => first,
    }
}

#[cfg(test)]
mod tests {
    use super::renamed_in;

    #[test]
    fn an_index_names_its_columns_anew() {
        for (text, name, to, renamed) in [
            (
                "CREATE INDEX a ON public.a USING btree (a DESC, b)",
                "a",
                "c",
                "CREATE INDEX a ON public.a USING btree (c DESC, b)",
            ),
            (
                "CREATE INDEX i ON s.t USING btree (ab, b) INCLUDE (b)",
                "b",
                "Two words",
                "CREATE INDEX i ON s.t USING btree (ab, \"Two words\") INCLUDE (\"Two words\")",
            ),
            (
                "CREATE INDEX i ON s.t USING btree (\"a \"\"b\", a)",
                "a \"b",
                "b",
                "CREATE INDEX i ON s.t USING btree (b, a)",
            ),
        ] {
            assert_eq!(renamed_in(text, name, to), renamed);
        }
    }
}
