//! What one run of a plan sees. A plan that is kept says which rows are read, and not as of when:
//! it would hold an epoch back for as long as it is kept. Its runs bring that with them, to the
//! scans in it by the task.

use datafusion::execution::TaskContext;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result};
use tidemark_node::Engine;
use tidemark_node::engine::{Answer, Pin, ReadAs, Share};
use tidemark_plan::Relation;

/// The rows of some relations at one epoch.
pub struct Sight {
    pin: Arc<Pin>,
    answers: BTreeMap<RelationId, Answer>,
}

/// One share of a relation.
#[derive(Clone)]
pub struct Seen {
    /// Where its rows are.
    pub share: Share,
    /// Keeps the epoch.
    pub pin: Arc<Pin>,
    /// Of an older epoch than the pin where the relation's job does not run.
    pub at: ReadAs,
}

impl Sight {
    /// Of these relations.
    ///
    /// Errors: of a job that has no answer.
    pub fn new(engine: &Engine, pin: Arc<Pin>, relations: &[Arc<Relation>]) -> Result<Sight> {
        let answer = |r: &Arc<Relation>| engine.answer(r.id, pin.epoch()).map(|a| (r.id, a));
        let answers = relations.iter().map(answer).collect::<Result<_>>()?;
        Ok(Sight { pin, answers })
    }

    /// That of a run.
    pub fn of(task: &TaskContext) -> Result<Arc<Sight>> {
        let sight = task.session_config().get_extension::<Sight>();
        sight.ok_or_else(|| Error::internal("a plan runs without rows to see"))
    }

    /// A share of one of the relations.
    pub fn share(&self, relation: RelationId, place: usize) -> Result<Seen> {
        let answer = self.answers.get(&relation);
        let share = answer.and_then(|a| Some((a.shares.get(place)?, a.at)));
        let missing = || Error::internal("a plan reads what its run does not see");
        let (share, at) = share.ok_or_else(missing)?;
        Ok(Seen {
            share: share.clone(),
            pin: self.pin.clone(),
            at,
        })
    }

    /// In how many shares each of the relations is.
    pub fn shares(&self) -> Vec<usize> {
        self.answers.values().map(|a| a.shares.len()).collect()
    }
}
