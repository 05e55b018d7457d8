//! What the relations of one worker hold, for joins on the same worker that would otherwise keep
//! the same rows by the same key once more.

use super::ViewPartition;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result};

/// The partitions of a worker, by relation. One that takes the place of another is seen from the
/// next lookup on.
#[derive(Debug, Default)]
pub struct Neighbours(RwLock<HashMap<RelationId, Arc<ViewPartition>>>);

impl Neighbours {
    /// What the worker has of a relation.
    ///
    /// Errors: internal, if its job is not there: then nobody's rows could be right.
    pub fn of(&self, relation: RelationId) -> Result<Arc<ViewPartition>> {
        let known = self.0.read().get(&relation).cloned();
        known.ok_or_else(|| Error::internal(format!("nothing is kept here of {relation}")))
    }

    /// From now on this is what the worker has of it; `None`: nothing.
    pub fn set(&self, relation: RelationId, view: Option<Arc<ViewPartition>>) {
        let mut known = self.0.write();
        match view {
            Some(view) => known.insert(relation, view),
            None => known.remove(&relation),
        };
    }
}
