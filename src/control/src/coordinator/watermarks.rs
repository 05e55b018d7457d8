//! What sources promise of the event times of rows to come. A promise goes with every barrier and
//! is logged with the cut of its epoch, so that a replay closes the same windows at the same epoch.
//!
//! The promise of a source is the least event time that its splits have reached, as decided when
//! the barrier is sent, less its delay: what comes behind the barrier is later than that, or it is
//! late and no part of the input ([`crate::Decisions::watermark`]). A source with an idle timeout
//! does not wait for splits that have read nothing for so long; their reader takes the promise over
//! at the barrier, and what is older than it there is late.

use super::Coordinator;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{RelationId, SplitId, Watermarks, machine};

/// What was promised, and who moved when.
#[derive(Default)]
pub(super) struct Promises {
    last: Watermarks,
    /// Of sources with an idle timeout: where each split stood when it moved last, and when.
    moves: BTreeMap<RelationId, BTreeMap<SplitId, (i64, Instant)>>,
}

impl Coordinator {
    /// What sources promise with the next barrier.
    pub(super) fn promise(&mut self) -> Watermarks {
        self.note_moves();
        self.promises.last = Arc::new(self.promised());
        self.promises.last.clone()
    }

    /// Whether more can be promised than was with the last barrier.
    pub(super) fn may_promise_more(&mut self) -> bool {
        self.note_moves();
        self.promised() != *self.promises.last
    }

    /// When a split counts as idle on which a promise waits.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let sources = self.promises.moves.iter();
        let deadlines = sources.flat_map(|(source, splits)| {
            let timeout = self.idle_timeout(*source);
            let held_up = self.is_held_up(*source);
            let due = splits.values().map(|(_, moved)| *moved);
            let due = due.filter_map(move |moved| Some(moved + timeout?));
            due.filter(move |due| held_up && *due > self.last_barrier)
        });
        deadlines.min()
    }

    /// Whether some split of a source has reached more than it promises.
    fn is_held_up(&self, source: RelationId) -> bool {
        let most = self.decisions.splits(source);
        let most = most.filter_map(|p| p.event_time_micros).max();
        let promised = self.promises.last.get(&source).copied();
        most.map(|most| self.decisions.less_delay(source, most)) > promised.map(Some)
    }

    fn idle_timeout(&self, source: RelationId) -> Option<Duration> {
        let relation = self.decisions.catalog.relations.get(&source)?;
        let micros = relation.watermark.as_ref()?.idle_micros?;
        Some(Duration::from_micros(micros))
    }

    fn note_moves(&mut self) {
        let now = machine::now();
        let running = self.running.iter().copied();
        let timed: Vec<RelationId> = running
            .filter(|source| self.idle_timeout(*source).is_some())
            .collect();
        self.promises.moves.retain(|id, _| timed.contains(id));
        for source in timed {
            let moves = self.promises.moves.entry(source).or_default();
            for position in self.decisions.splits(source) {
                let at = (position.next_offset, now);
                let known = moves.entry(position.split).or_insert(at);
                if known.0 != at.0 {
                    *known = at;
                }
            }
        }
    }

    fn promised(&self) -> BTreeMap<RelationId, i64> {
        let promise = |source: &RelationId| {
            let idle = self.idle_timeout(*source);
            let reached = match idle {
                None => self.decisions.event_time(*source),
                Some(timeout) => self.reached_by_busy(*source, timeout),
            };
            let reached = reached.and_then(|time| self.decisions.less_delay(*source, time));
            // What is promised is promised.
            let before = self.promises.last.get(source).copied();
            Some((*source, reached.max(before)?))
        };
        self.running.iter().filter_map(promise).collect()
    }

    /// The least event time that the splits have reached which are not idle.
    fn reached_by_busy(&self, source: RelationId, timeout: Duration) -> Option<i64> {
        let (now, moves) = (machine::now(), self.promises.moves.get(&source));
        let is_busy = |position: &&SplitPosition| {
            let moved = moves.and_then(|m| m.get(&position.split));
            moved.is_none_or(|(_, moved)| *moved + timeout > now)
        };
        let busy = self.decisions.splits(source).filter(is_busy);
        busy.map(|p| p.event_time_micros).min().flatten()
    }
}
