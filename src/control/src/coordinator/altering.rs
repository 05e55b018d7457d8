//! Tables that get columns while they are written and read.
//!
//! **Law.** Whoever is shown a column finds it in every row. The change counts from its entry in
//! the log on: a start after that finds it, whatever the workers had done. But the workers keep
//! rows in memory that are too narrow for it; they are told, make them wider, each when it is in
//! the middle of nothing that is about them, and say so. Sessions see the table as it was before
//! until all have: what they write meanwhile is too narrow, and is widened where it arrives.
//!
//! A worker that has no part in the table says so at once. A job that stops, or is dropped,
//! meanwhile has nothing left that is to be widened: it is as its entry says when it runs again.

use super::Coordinator;
use super::jobs::stopped_error;
use crate::CatalogChange;
use crate::inputs::RequestId;
use crate::protocol::Command;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState, WorkerId};
use tidemark_plan::{Catalog, Relation};

/// A table that gets columns.
pub(super) struct Altering {
    /// As sessions see it until then.
    before: Arc<Relation>,
    /// Who has not said that it is done.
    waits_for: BTreeSet<WorkerId>,
    /// Who asked.
    request: Option<RequestId>,
}

impl Altering {
    /// Sessions do not see the columns yet.
    pub(super) fn hide(&self, id: RelationId, catalog: &mut Catalog) {
        if let Some(relation) = catalog.relations.get_mut(&id) {
            *relation = self.before.clone();
        }
    }
}

/// The table that gets columns by these changes: one statement is about one table.
pub(super) fn widened_by(changes: &[CatalogChange]) -> Option<RelationId> {
    changes.iter().find_map(|change| match change {
        CatalogChange::AddColumn { relation, .. } => Some(*relation),
        _ => None,
    })
}

/// `40001`.
pub(super) fn altered_meanwhile(relation: &Relation) -> Error {
    let (kind, name) = (relation.kind.name(), &relation.name);
    let message = format!("{kind} \"{name}\" was altered meanwhile");
    Error::user(SqlState("40001"), message).with_hint("Run the statement again.")
}

/// Whether what is created was planned over the relation as it is.
pub(super) fn check_seen(new: &Relation, input: &Relation) -> Result<()> {
    let seen = new.altered.seen.get(&input.id).copied();
    match seen.unwrap_or_default() == input.altered.times {
        true => Ok(()),
        false => Err(altered_meanwhile(input)),
    }
}

/// `42701` for a name that a column has which does not go by these changes.
pub(super) fn check_free(relation: &Relation, name: &str, changes: &[CatalogChange]) -> Result<()> {
    let goes = |at: usize| {
        let mut changes = changes.iter();
        changes.any(|c| matches!(c, CatalogChange::DropColumn { column, .. } if *column == at))
    };
    let mut columns = relation.visible();
    if !columns.any(|(at, column)| column.name == name && !goes(at)) {
        return Ok(());
    }
    let message = format!(
        "column \"{name}\" of relation \"{}\" already exists",
        relation.name
    );
    Err(Error::user(SqlState::DUPLICATE_COLUMN, message))
}

/// `40001` for a column that is gone.
pub(super) fn check_there(relation: &Relation, column: usize) -> Result<()> {
    match relation.visible_place(column) {
        Some(_) => Ok(()),
        None => Err(altered_meanwhile(relation)),
    }
}

impl Coordinator {
    /// A table that sessions see like this is about to get columns: they see them, and who asked is
    /// answered, when all workers have them.
    pub(super) fn hold_back_columns(&mut self, before: Arc<Relation>, request: RequestId) {
        let altering = Altering {
            before: before.clone(),
            waits_for: (0..self.workers.count()).collect(),
            request: Some(request),
        };
        self.altering.insert(before.id, altering);
    }

    /// They are in the log.
    pub(super) fn widen(&mut self, id: RelationId) {
        if let Some(relation) = self.decisions.catalog.relations.get(&id) {
            self.workers.broadcast(Command::Widen(relation.clone()));
        }
    }

    /// Errors: `55006` for a table that is getting columns, `55000` for one whose job does not run.
    pub(super) fn check_widened(&self, changes: &[CatalogChange]) -> Result<()> {
        let Some(id) = widened_by(changes) else {
            return Ok(());
        };
        let Some(relation) = self.decisions.catalog.relations.get(&id) else {
            return Ok(());
        };
        if let Some(halt) = self.halted.get(&id) {
            return Err(stopped_error(relation, &halt.stopped));
        }
        if self.altering.contains_key(&id) {
            let message = format!("table \"{}\" is being altered", relation.name);
            return Err(Error::user(SqlState("55006"), message)
                .with_hint("Run the statement again when that is done."));
        }
        Ok(())
    }

    pub(super) fn on_widened(&mut self, worker: WorkerId, relation: RelationId) {
        let Some(altering) = self.altering.get_mut(&relation) else {
            return;
        };
        altering.waits_for.remove(&worker);
        if altering.waits_for.is_empty() {
            self.end_altering(&[relation]);
        }
    }

    /// Nothing is left of these that would have to be widened.
    pub(super) fn end_altering(&mut self, relations: &[RelationId]) {
        let ids = relations.iter();
        let ended: Vec<Altering> = ids.filter_map(|id| self.altering.remove(id)).collect();
        if ended.is_empty() {
            return;
        }
        self.show_catalog();
        for altering in ended {
            self.done(altering.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::testing::{Bed, table, view};
    use crate::protocol::{Event, Request};
    use tidemark_plan::Column;

    const T: RelationId = RelationId(1);

    fn bed() -> Bed {
        let mut bed = Bed::new(2);
        let table = table(1, "t");
        bed.create(&table);
        bed.create(&view(2, "v", &table));
        bed
    }

    fn add(name: &str) -> Request {
        let column = Column {
            name: name.into(),
            ..table(1, "t").columns[0].clone()
        };
        let change = CatalogChange::AddColumn {
            relation: T,
            column: Box::new(column),
            missing: String::new(),
        };
        Request::Changes {
            changes: vec![change],
            cascade: false,
        }
    }

    fn columns(bed: &Bed) -> Vec<String> {
        let shown = bed.script.lock().shown.clone();
        let columns = shown.relations[&T].visible();
        columns.map(|(_, c)| c.name.clone()).collect()
    }

    fn state(bed: &mut Bed, request: Request) -> SqlState {
        let answer = bed.ask(request).expect("it is answered at once");
        answer.unwrap_err().state()
    }

    #[test]
    fn sessions_see_a_column_when_all_workers_have_it() {
        let mut bed = bed();
        let asked = bed.request(add("w"));
        assert_eq!(state(&mut bed, add("x")), SqlState("55006"));
        let widened = |worker| Event::Widened {
            worker,
            relation: T,
        };
        bed.event(widened(1));
        bed.event(widened(1));
        assert!(bed.answer(asked).is_none());
        assert_eq!(columns(&bed), ["v"]);
        bed.event(widened(0));
        assert!(bed.answer(asked).unwrap().is_ok());
        assert_eq!(columns(&bed), ["v", "w"]);
        assert_eq!(state(&mut bed, add("w")), SqlState::DUPLICATE_COLUMN);
        let known = bed.script.lock().shown.relations[&RelationId(2)].clone();
        assert_eq!(known.altered.known_as[&T], [("v".to_string(), 0)]);
    }

    #[test]
    fn a_column_in_the_log_is_there_whatever_the_workers_had_done() {
        let mut bed = bed();
        bed.flush().unwrap().unwrap();
        let asked = bed.request(add("w"));
        assert!(bed.answer(asked).is_none());
        let bed = bed.restart();
        assert_eq!(columns(&bed), ["v", "w"]);
        let plan = bed.script.lock().started(T).unwrap();
        let schema = &plan.relation.job.as_ref().unwrap().fragments[0].root.schema;
        assert_eq!(schema.fields().len(), 2);
    }

    #[test]
    fn a_table_that_goes_meanwhile_has_nothing_to_wait_for() {
        let mut bed = bed();
        let asked = bed.request(add("w"));
        let drop = CatalogChange::Drop { relations: vec![T] };
        let dropped = bed.ask(Request::Changes {
            changes: vec![drop],
            cascade: true,
        });
        assert!(dropped.unwrap().is_ok());
        assert!(bed.answer(asked).is_some());
    }

    #[test]
    fn a_column_goes_with_those_that_were_looked_at() {
        let mut bed = bed();
        let drop = |spared: &[u32]| Request::Changes {
            changes: vec![CatalogChange::DropColumn {
                relation: T,
                column: 0,
                spared: spared.iter().map(|id| RelationId(*id)).collect(),
            }],
            cascade: false,
        };
        assert_eq!(state(&mut bed, drop(&[])), SqlState("40001"));
        assert!(bed.ask(drop(&[2])).unwrap().is_ok());
        assert_eq!(columns(&bed), [""; 0]);
        assert_eq!(state(&mut bed, drop(&[2])), SqlState("40001"), "it is gone");
    }
}
