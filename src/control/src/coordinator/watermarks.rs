//! What sources promise of the event times of rows to come. A promise goes with every barrier and
//! is logged with the cut of its epoch, so that a replay closes the same windows at the same epoch.
//!
//! The promise of a source is the least event time that its splits have reached, as decided when
//! the barrier is sent, less its delay: what comes behind the barrier is later than that, or it is
//! late and no part of the input. A split that has no row yet holds the promise back: which rows of
//! it are late must follow from what is decided of it alone, for all who ever read it.
//!
//! **Idle splits** (`idle_timeout`) hold nobody back, and the law stays: what is late for one
//! reader is late for all, whenever they read.
//! 1. Whoever looks after sources asks the broker where splits end. One whose end has not moved for
//!    the timeout is idle. The time counts while the broker answers only; how far or how fast
//!    anybody reads has no part in it, and a new incarnation begins at zero.
//! 2. That is told to the coordinator ([`Request::Idle`](crate::protocol::Request)) and holds for
//!    the next barrier only. It carries *floors*: the least event time of the splits that are not
//!    idle, for each idle one that stands at its end and is below. With none but idle splits there
//!    are none: without rows no promise moves.
//! 3. A reader that the barrier finds at that very offset puts the floor under the split, as if a
//!    row of that event time had been read there, and tells so with its cut; one that has read on
//!    does not. What it tells is logged with the cut: *from this offset on, at least this time*.
//! 4. Every reader of the split, of a replay, a later view or a query, knows the floors and does
//!    the same when it comes to their offsets. None reads past where the shared one has been.
//! 5. So a position's event time contains them, and the promise moves as it does by rows.
//!
//! Floors of one split and offset are one, the last. One makes no difference when the next row lies
//! above it, as of a split that goes on with newer rows, and is forgotten with that row's epoch. Of
//! those at offsets that the broker has no more, the last is enough. Who has [`FLOORS_MAX`] all the
//! same gets no more, and holds the others back.

use super::Coordinator;
use crate::protocol::Floors;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::connector::{Floor, SplitPosition};
use tidemark_common::{Epoch, RelationId, SplitId, Watermarks};

/// Floors that a split has at most.
pub const FLOORS_MAX: usize = 1000;

/// What was told of the idle splits of a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    /// Where each ends.
    splits: BTreeMap<SplitId, i64>,
    /// The first offsets that the broker has, if somebody has asked.
    earliest: Vec<SplitPosition>,
}

impl Coordinator {
    /// What sources promise with the next barrier.
    pub(super) fn promise(&mut self) -> Watermarks {
        self.promised = self.promises();
        self.promised.clone()
    }

    /// Whether more can be promised than was with the last barrier.
    pub(super) fn may_promise_more(&self) -> bool {
        self.promises() != self.promised
    }

    fn promises(&self) -> Watermarks {
        let promise = |source: &RelationId| Some((*source, self.decisions.watermark(*source)?));
        Arc::new(self.running.iter().filter_map(promise).collect())
    }

    /// These splits of a source bring nothing. If that raises what is promised, it asks for a
    /// barrier.
    pub(super) fn note_idle(
        &mut self,
        source: RelationId,
        splits: Vec<(SplitId, i64)>,
        earliest: Vec<SplitPosition>,
    ) {
        if !self.running.contains(&source) {
            return;
        }
        let idle = Idle {
            splits: splits.into_iter().collect(),
            earliest,
        };
        self.active |= !self.floors_under(source, &idle).is_empty();
        self.idle.insert(source, idle);
    }

    /// What readers told with their cut of an epoch.
    pub(super) fn put_floors(&mut self, epoch: Epoch, floors: Floors) {
        let at = self.in_flight.binary_search_by_key(&epoch, |e| e.epoch);
        let flight = at.ok().and_then(|at| self.in_flight.get_mut(at));
        if let Some(flight) = flight.filter(|flight| !flight.decided) {
            for (source, put) in floors {
                flight.floors.entry(source).or_default().extend(put);
            }
        }
    }

    /// The floors that the next barrier carries, and those that are forgotten with its epoch.
    pub(super) fn floors_of_idle(&mut self) -> (Floors, Floors) {
        let idle = std::mem::take(&mut self.idle);
        let under =
            |(source, idle): (&RelationId, &Idle)| (*source, self.floors_under(*source, idle));
        let floors = idle.iter().map(under).filter(|(_, f)| !f.is_empty());
        let passed = |(source, idle): (&RelationId, &Idle)| {
            let floors = self.decisions.floors.get(source)?;
            Some((*source, below(floors, &idle.earliest)))
        };
        let forgotten = idle.iter().filter_map(passed);
        let forgotten = forgotten.filter(|(_, f)| !f.is_empty());
        (floors.collect(), forgotten.collect())
    }

    /// What the idle splits of a source are raised to.
    fn floors_under(&self, source: RelationId, idle: &Idle) -> Vec<Floor> {
        let stands = |p: &&SplitPosition| idle.splits.get(&p.split) == Some(&p.next_offset);
        let (idle, others): (Vec<_>, Vec<_>) = self.decisions.splits(source).partition(stands);
        let Some(Some(least)) = others.iter().map(|p| p.event_time_micros).min() else {
            return Vec::new();
        };
        let known = self.decisions.floors.get(&source);
        let known = known.map_or(&[][..], Vec::as_slice);
        // They are in the order of splits.
        let has_room = |p: &&&SplitPosition| {
            let from = known.partition_point(|f| f.split < p.split);
            let to = known.partition_point(|f| f.split <= p.split);
            let of_split = &known[from..to];
            of_split.len() < FLOORS_MAX || of_split.iter().any(|f| f.offset == p.next_offset)
        };
        let below = idle.iter().filter(|p| p.event_time_micros < Some(least));
        let floor = |p: &&SplitPosition| Floor {
            split: p.split,
            offset: p.next_offset,
            event_time_micros: least,
        };
        below.filter(has_room).map(floor).collect()
    }
}

/// Takes those of `floors` away that others follow which all who can still read begin above.
fn below(floors: &[Floor], earliest: &[SplitPosition]) -> Vec<Floor> {
    let pairs = floors.iter().zip(floors.iter().skip(1));
    let is_passed = |(floor, next): &(&Floor, &Floor)| {
        let first = earliest.iter().find(|p| p.split == floor.split);
        floor.split == next.split && first.is_some_and(|p| next.offset <= p.next_offset)
    };
    let taken = |(floor, _): (&Floor, &Floor)| Floor {
        event_time_micros: Floor::NONE,
        ..*floor
    };
    pairs.filter(is_passed).map(taken).collect()
}

#[cfg(test)]
mod tests;
