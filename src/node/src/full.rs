//! Sinks of which too much waits in memory, and who waits for them.
//!
//! What a sink has not delivered is stored by the next checkpoint and read back later, so a
//! receiver that is away holds up nobody. With the checkpoint store away as well, it stays in
//! memory: beyond a limit, the sources that a sink reads, directly or not, are not read, and writes
//! to the tables that it reads wait, until a checkpoint or the receiver has taken some of it.
//! Others go on.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_common::{Error, RelationId, SqlState};
use tidemark_plan::{Catalog, Relation};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// How long a write waits for a full sink.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// The full sinks of a node.
#[derive(Default)]
pub struct FullSinks {
    any: AtomicBool,
    sinks: Mutex<BTreeMap<RelationId, Full>>,
    taken: Notify,
}

struct Full {
    name: String,
    /// All that it reads, directly or not.
    reads: BTreeSet<RelationId>,
}

impl FullSinks {
    /// The sink is full from now on.
    pub fn add(&self, sink: &Relation, catalog: &Catalog) {
        let direct = |id: RelationId| catalog.relations.get(&id).map(|r| r.depends_on.as_slice());
        // What it writes into does not wait for it: it waits for that.
        let into = sink.into_table().map(|into| into.table);
        let own = sink.depends_on.iter().copied();
        let own: Vec<RelationId> = own.filter(|id| Some(*id) != into).collect();
        self.insert(sink.id, &sink.name, reads(&own, direct));
    }

    fn insert(&self, sink: RelationId, name: &str, reads: BTreeSet<RelationId>) {
        let name = name.to_string();
        let mut sinks = self.sinks.lock();
        sinks.insert(sink, Full { name, reads });
        self.any.store(true, Ordering::Release);
    }

    /// The sink can take more, or is gone.
    pub fn remove(&self, sink: RelationId) {
        let mut sinks = self.sinks.lock();
        sinks.remove(&sink);
        self.any.store(!sinks.is_empty(), Ordering::Release);
        self.taken.notify_waiters();
    }

    /// Waits until one of them can take more, or is gone; what happens from this call on counts.
    pub fn taken(&self) -> Notified<'_> {
        self.taken.notified()
    }

    /// What full sinks read, each with the name of one of them.
    pub fn fed(&self) -> Vec<(RelationId, String)> {
        let sinks = self.sinks.lock();
        let fed = sinks.values().flat_map(|full| {
            let reads = full.reads.iter();
            reads.map(|id| (*id, full.name.clone()))
        });
        fed.collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// The name of a full sink that reads this relation.
    pub fn fed_by(&self, relation: RelationId) -> Option<String> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let sinks = self.sinks.lock();
        let full = sinks.values().find(|full| full.reads.contains(&relation))?;
        Some(full.name.clone())
    }
}

/// These relations and all that they read, by what each reads directly.
fn reads<'a>(
    first: &[RelationId],
    direct: impl Fn(RelationId) -> Option<&'a [RelationId]>,
) -> BTreeSet<RelationId> {
    let (mut all, mut next) = (BTreeSet::new(), first.to_vec());
    while let Some(id) = next.pop() {
        if all.insert(id) {
            next.extend_from_slice(direct(id).unwrap_or_default());
        }
    }
    all
}

/// The error of a write that has waited for a sink in vain.
pub fn too_full(sink: &str) -> Error {
    Error::user(
        SqlState("53400"),
        format!("sink \"{sink}\" has too many changes that wait for delivery"),
    )
    .with_detail("Neither its receiver nor the checkpoint store has taken any of them.")
    .with_hint(format!(
        "SHOW JOBS and SHOW CHECKPOINTS tell what is away. DROP SINK {sink} gives the changes up."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_sink_holds_up_what_it_reads_and_nothing_else() {
        let ids = |ids: &[u32]| ids.iter().map(|id| RelationId(*id)).collect::<Vec<_>>();
        let catalog = BTreeMap::from([(1, vec![]), (2, vec![]), (3, ids(&[1])), (4, ids(&[3, 1]))]);
        let direct = |id: RelationId| catalog.get(&id.0).map(Vec::as_slice);
        let full = FullSinks::default();
        let fed = |id| full.fed_by(RelationId(id));
        assert_eq!(fed(1), None);
        full.insert(RelationId(9), "out", reads(&ids(&[4]), direct));
        let out = || Some("out".to_string());
        assert_eq!([1, 2, 3, 4].map(fed), [out(), None, out(), out()]);
        full.insert(RelationId(8), "other", reads(&ids(&[2]), direct));
        assert_eq!(full.fed().len(), 4);
        full.remove(RelationId(9));
        assert_eq!([1, 2].map(fed), [None, Some("other".into())]);
        full.remove(RelationId(8));
        assert!([1, 2, 3, 4].map(fed).iter().all(Option::is_none));
    }
}
