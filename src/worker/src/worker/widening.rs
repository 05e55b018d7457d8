//! Tables that get columns on a worker: what it keeps of one is made wider as soon as the actor
//! that keeps it is in the middle of nothing, and takes the place of what people have read of it.

use super::Worker;
use crate::actor::Work;
use std::sync::Arc;
use tidemark_common::{RelationId, TableId};
use tidemark_control::protocol::Event;
use tidemark_plan::Relation;
use tidemark_state::{TableSpec, ViewPartition};

impl Worker {
    /// The table has more columns than before.
    pub(super) fn widen(&mut self, relation: &Arc<Relation>) {
        let id = relation.id;
        let last = relation.job.as_ref().and_then(|job| job.fragments.last());
        let (Some(job), Some(last)) = (self.jobs.get_mut(&id), last) else {
            return self.tell_widened(id);
        };
        job.relation = relation.clone();
        let schema = last.root.schema.clone();
        self.push(id, last.id as usize, Work::Widen(schema));
    }

    /// An actor of the job has done so.
    pub(super) fn is_widened(&mut self, id: RelationId, widened: (Arc<ViewPartition>, TableSpec)) {
        let (view, spec) = widened;
        let table = TableId {
            relation: id,
            table: spec.table,
        };
        // Whoever merges files from now on knows of the columns before a file has them.
        self.around.storing.know(table, spec);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.figures.count(&view);
            job.view = Some(view.clone());
            self.neighbours.set(id, Some(view.clone()));
        }
        self.around.published.show(id, self.id, view);
        self.tell_widened(id);
    }

    fn tell_widened(&self, relation: RelationId) {
        self.tell(Event::Widened {
            worker: self.id,
            relation,
        });
    }
}
