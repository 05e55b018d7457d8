//! How long an epoch is while sources read: as short as it can be without costing much.
//!
//! A barrier costs a sync of the log and a step of every operator, so epochs of five milliseconds
//! would keep a busy node with views by the hundred from its rows; epochs of fifty show everybody
//! what was new fifty milliseconds ago. What a barrier costs is seen in how long it takes to pass
//! through the workers. An epoch lasts [`SHARE`] times that: barriers have a quarter of the time at
//! most, and no more where rows queue, since a barrier that waits behind rows makes the next epoch
//! longer. The quickest job counts: a slow one does not stretch the epochs of the others. A node
//! that has little to do is left with [`EPOCH_MS_MIN`], one that catches up with what `epoch_ms`
//! allows.

use super::EPOCH_MS_MIN;
use std::time::Duration;

/// The length of an epoch in transits of its barrier.
const SHARE: u32 = 4;

/// One part in so many is forgotten with each barrier. One that took much longer than those before
/// counts as if it had taken twice as long: the disk was slow once, or a checkpoint began.
const MEMORY: u32 = 8;

/// How long barriers take.
#[derive(Default)]
pub(super) struct Rhythm {
    transit: Option<Duration>,
}

impl Rhythm {
    /// A barrier took so long until the quickest job had passed it.
    pub fn passed(&mut self, took: Duration) {
        self.transit = Some(match self.transit {
            Some(before) => before * (MEMORY - 1) / MEMORY + took.min(before * 2) / MEMORY,
            None => took,
        });
    }

    /// The interval to the next barrier, `longest` at most; `oldest`: how long the oldest barrier
    /// has been on its way.
    pub fn interval(&self, longest: Duration, oldest: Option<Duration>) -> Duration {
        let Some(transit) = self.transit else {
            return longest;
        };
        let shortest = Duration::from_millis(EPOCH_MS_MIN).min(longest);
        let interval = (transit * SHARE).max(oldest.unwrap_or_default());
        interval.clamp(shortest, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_short_while_barriers_pass_quickly() {
        let ms = Duration::from_millis;
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.interval(ms(50), None), ms(50), "nothing is known");
        rhythm.passed(ms(1));
        assert_eq!(rhythm.interval(ms(50), None), ms(EPOCH_MS_MIN));
        assert_eq!(rhythm.interval(ms(50), Some(ms(20))), ms(20));
        assert_eq!(rhythm.interval(ms(50), Some(ms(500))), ms(50));
        (0..100).for_each(|_| rhythm.passed(ms(4)));
        let settled = rhythm.interval(ms(50), None);
        assert!(ms(15) < settled && settled <= ms(16), "{settled:?}");
        assert_eq!(rhythm.interval(ms(2), None), ms(2), "it was asked for");
        rhythm.passed(Duration::from_secs(3600));
        assert!(rhythm.interval(ms(50), None) <= ms(20), "once is no rule");
        (0..20).for_each(|_| rhythm.passed(Duration::from_secs(3600)));
        assert_eq!(rhythm.interval(ms(50), None), ms(50));
    }
}
