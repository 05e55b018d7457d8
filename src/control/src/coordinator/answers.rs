//! The last complete answers of jobs that do not run.
//!
//! A job stops in the middle of an epoch. What it answered at the end of the last complete one is
//! newer than its files, and only in its workers' memory: it is stored whole, once, while
//! everything else goes on. Of a sink the answers of what it reads are stored: the query over those
//! is what its receiver was told, so that a resumed sink tells the difference to that, and nothing
//! twice.
//!
//! **Law.** No manifest is written before all answers that are on their way are stored. Until one
//! names them the log has everything since the checkpoint before, and a start replays the job up to
//! where it stopped ([`super::recovery`]). So a crash never makes an answer older.

use super::Coordinator;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_common::{Epoch, RelationId, Result, TableId};
use tidemark_plan::{Op, Relation, RelationKind};
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::halted::Answer;

/// The state table of the rows that people read of a relation.
fn kept_table(relation: &Relation) -> Option<TableId> {
    let plan = relation.job.iter().flat_map(|j| &j.fragments);
    let mut nodes = plan.flat_map(tidemark_plan::Fragment::nodes);
    let table = nodes.find_map(|n| match n.op {
        Op::Materialize { table, .. } => Some(table),
        _ => None,
    })?;
    Some(TableId {
        relation: relation.id,
        table,
    })
}

impl Coordinator {
    /// The relations with rows whose answers a halted job needs: its own, or those that a sink
    /// reads.
    fn answers_for(&self, relation: &Relation) -> Vec<Arc<Relation>> {
        let relations = &self.decisions.catalog.relations;
        let wanted: BTreeSet<RelationId> = if relation.kind == RelationKind::Sink {
            let taps = relation.job.iter().flat_map(|j| j.taps());
            taps.map(|(id, _)| id).collect()
        } else {
            [relation.id].into()
        };
        let wanted = wanted.iter().filter_map(|id| relations.get(id));
        wanted.filter(|r| r.is_materialized()).cloned().collect()
    }

    /// Sees to it that the answers which a job needs that was halted at `epoch` are in the next
    /// manifest.
    pub(super) fn keep_answers(&mut self, id: RelationId, epoch: Epoch) {
        let Some(relation) = self.decisions.catalog.relations.get(&id).cloned() else {
            return;
        };
        for wanted in self.answers_for(&relation) {
            match self.stored_answer(&wanted, epoch) {
                Some(answer) if relation.kind == RelationKind::Sink => {
                    if let Some(halt) = self.halted.get_mut(&id) {
                        halt.saved.inputs.insert(wanted.id, answer);
                    }
                }
                // The state tables of the job have it.
                Some(_) => {}
                None => self.store_answer(&wanted, epoch),
            }
        }
    }

    /// The answer as of `epoch`, if the last checkpoint has it.
    fn stored_answer(&self, relation: &Relation, epoch: Epoch) -> Option<Answer> {
        let manifest = self.retained.manifest.as_ref()?;
        if let Some(halted) = manifest.halted.get(&relation.id)
            && let Some(answer) = &halted.answer
        {
            return (answer.epoch == epoch).then(|| answer.clone());
        }
        let is_of_epoch = manifest.job_epochs.get(&relation.id) == Some(&epoch);
        let files = is_of_epoch.then(|| {
            let table = kept_table(relation).map(|table| table.to_string());
            table.and_then(|table| manifest.tables.get(&table).cloned())
        })?;
        Some(Answer {
            epoch,
            files: files.unwrap_or_default(),
            formerly: None,
        })
    }

    fn store_answer(&mut self, relation: &Arc<Relation>, epoch: Epoch) {
        // Of one that cannot be restored nobody has the rows of then.
        if !self.readers.is_complete(&[relation.id], epoch) {
            return;
        }
        if let Some(pin) = self.readers.pin_at(epoch)
            && self.answers.insert((relation.id, epoch))
        {
            self.workers
                .store_answer(relation.clone(), pin, self.next_epoch);
        }
    }

    pub(super) fn on_answer_stored(
        &mut self,
        relation: RelationId,
        epoch: Epoch,
        files: Result<Vec<FileMeta>>,
    ) {
        if !self.answers.remove(&(relation, epoch)) {
            return;
        }
        let answer = match files {
            Ok(files) => Answer {
                epoch,
                files,
                formerly: None,
            },
            Err(error) => {
                return tracing::error!(%relation, %epoch, %error, "the last complete answer \
                    cannot be stored: after a restart that of the last checkpoint is read");
            }
        };
        self.retained.changed = true;
        for (id, halt) in &mut self.halted {
            if halt.stopped.epoch != epoch {
                continue;
            }
            let halted = self.decisions.catalog.relations.get(id);
            let taps = halted.and_then(|r| r.job.as_ref()).map(|j| j.taps());
            if *id == relation {
                halt.saved.answer = Some(answer.clone());
            } else if halted.is_some_and(|r| r.kind == RelationKind::Sink)
                && taps.is_some_and(|taps| taps.iter().any(|(tap, _)| *tap == relation))
            {
                halt.saved.inputs.insert(relation, answer.clone());
            }
        }
    }
}
