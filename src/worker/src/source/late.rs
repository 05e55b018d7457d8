//! Which rows of a source are late, split by split.
//!
//! **Law.** A row is late when its event time lies below the *reached* one less the delay. Reached
//! is the largest event time of a row at earlier offsets of the split, and of the [`Floor`]s at its
//! own and earlier offsets. Both are the same for whoever reads the split: so every reading of it
//! leaves out the same rows, if none passes an offset before it knows the floors there. The reader
//! stops at each of them for that ([`Lateness::next`]).
//!
//! A floor makes no difference when the first row behind it that has a time lies at or above it:
//! the row is on time and is what is reached, with the floor or without. Whoever reads that row
//! first says so, and nobody has to know the floor any more.

use std::collections::HashMap;
use tidemark_changelog::connector::{Floor, SplitPosition};
use tidemark_common::SplitId;

/// What was reached in each split, and the floors that lie ahead.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    reached: HashMap<SplitId, i64>,
    /// By split, in order of offset.
    floors: HashMap<SplitId, Vec<Floor>>,
    /// How many of a split's are passed.
    passed: HashMap<SplitId, usize>,
    /// Floors behind which no row with a time has come yet.
    open: HashMap<SplitId, Floor>,
    /// Those that turned out to make no difference.
    moot: Vec<Floor>,
}

impl Lateness {
    /// Of splits that stand there.
    pub fn begin(&mut self, positions: &[SplitPosition]) {
        for position in positions {
            let split = position.split;
            match position.event_time_micros {
                Some(time) => self.reached.insert(split, time),
                None => self.reached.remove(&split),
            };
            self.open.remove(&split);
            self.passed.remove(&split);
            self.stand(position);
        }
    }

    /// Knows these floors, too. Those that the splits have passed made no difference to them, or
    /// are known.
    pub fn learn(&mut self, floors: &[Floor], positions: &[SplitPosition]) {
        for floor in floors {
            floor.put(self.floors.entry(floor.split).or_default());
        }
        self.passed.clear();
        for position in positions {
            self.stand(position);
        }
    }

    /// All floors that are known.
    pub fn floors(&self) -> Vec<Floor> {
        self.floors.values().flatten().copied().collect()
    }

    /// Whether some floor lies ahead.
    pub fn has_next(&self) -> bool {
        let passed = |split| self.passed.get(split).copied().unwrap_or_default();
        let mut splits = self.floors.iter();
        splits.any(|(split, floors)| passed(split) < floors.len())
    }

    /// The offset of the split's next floor.
    pub fn next(&self, split: SplitId) -> Option<i64> {
        let passed = self.passed.get(&split).copied().unwrap_or_default();
        self.floors.get(&split)?.get(passed).map(|f| f.offset)
    }

    /// The split stands there: it is raised to the floors up to that offset. Whether there were
    /// any.
    pub fn stand(&mut self, position: &SplitPosition) -> bool {
        let (split, offset) = (position.split, position.next_offset);
        let floors = self.floors.get(&split).map_or(&[][..], Vec::as_slice);
        let passed = self.passed.entry(split).or_default();
        let here = floors.partition_point(|f| f.offset <= offset);
        let Some(floor) = floors.get(*passed..here).and_then(<[Floor]>::last) else {
            return false;
        };
        *passed = here;
        let reached = self.reached.entry(split).or_insert(Floor::NONE);
        *reached = floor.event_time_micros.max(*reached);
        if floor.offset == offset {
            self.open.insert(split, *floor);
        }
        true
    }

    /// Puts a floor under a split that stands there.
    pub fn put(&mut self, floor: Floor, position: &SplitPosition) {
        let floors = self.floors.entry(floor.split).or_default();
        floor.put(floors);
        // One at the same offset counts again.
        let before = floors.partition_point(|f| f.offset < floor.offset);
        self.passed.insert(floor.split, before);
        self.stand(position);
    }

    /// What the split has reached.
    pub fn reached(&self, split: SplitId) -> Option<i64> {
        self.reached.get(&split).copied()
    }

    /// Which of the next rows of a split are on time, by their event times. One without has none to
    /// be late by, and infinity is no moment that others are late by.
    pub fn take(
        &mut self,
        split: SplitId,
        times: impl Iterator<Item = Option<i64>>,
        delay_micros: i64,
    ) -> Vec<bool> {
        let mut reached = self.reached(split);
        let mut first = None;
        let mut is_on_time = |time: Option<i64>| {
            let Some(time) = time.filter(|time| *time != i64::MAX) else {
                return true;
            };
            first = first.or(Some(time));
            let is_late = |reached: i64| time < reached.saturating_sub(delay_micros);
            let on_time = !reached.is_some_and(is_late);
            reached = reached.max(Some(time));
            on_time
        };
        let on_time = times.map(&mut is_on_time).collect();
        if let Some(reached) = reached {
            self.reached.insert(split, reached);
        }
        if let Some(first) = first
            && let Some(floor) = self.open.remove(&split)
            && first >= floor.event_time_micros
        {
            self.forget(floor);
        }
        on_time
    }

    fn forget(&mut self, floor: Floor) {
        let gone = Floor {
            event_time_micros: Floor::NONE,
            ..floor
        };
        if let Some(floors) = self.floors.get_mut(&floor.split) {
            gone.put(floors);
            let passed = self.passed.entry(floor.split).or_default();
            *passed = passed.saturating_sub(1);
        }
        self.moot.push(gone);
    }

    /// Floors that have turned out to make no difference, once.
    pub fn take_moot(&mut self) -> Vec<Floor> {
        std::mem::take(&mut self.moot)
    }
}

#[cfg(test)]
mod tests;
