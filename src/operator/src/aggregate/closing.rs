//! Groups that a watermark has passed: they never change again, and are forgotten as if their rows
//! had been taken back, but that nothing is sent of it.

use super::groups::{Groups, UNSEALED};
use crate::closing::below;
use std::collections::BTreeSet;

/// Groups looked at together.
const LOOKED_AT: usize = 4096;

impl Groups {
    /// Forgets the groups whose value in a group column, by its place among those, is below
    /// `watermark`, between barriers only. They go with the next seal.
    pub fn close(&mut self, place: usize, watermark: i64) {
        let live: Vec<u32> = self.index.live_ids().collect();
        let mut closed = Vec::new();
        for ids in live.chunks(LOOKED_AT) {
            let values = self.index.gather_one(place, ids);
            closed.extend(below(ids, &values, watermark));
        }
        closed.retain(|id| self.is_alive(*id));
        for id in &closed {
            self.forget(*id);
        }
        let closed: BTreeSet<u32> = closed.into_iter().collect();
        if closed.is_empty() {
            return;
        }
        let distinct = self.distinct.iter_mut().map(|table| table.forget(&closed));
        self.closed += distinct.sum::<usize>() + closed.len();
    }

    fn forget(&mut self, id: u32) {
        for lane in self.lanes.iter_mut().filter(|l| !l.is_all_rows()) {
            lane.counts.set(id, 0);
        }
        for call in &mut self.calls {
            if let Some(multiset) = call.accumulator.multiset() {
                multiset.forget(id);
            }
            call.accumulator.reset(id);
        }
        let flags = self.flags.get_mut(id);
        if *flags & UNSEALED == 0 {
            *flags |= UNSEALED;
            self.unsealed.push(id);
        }
    }
}
