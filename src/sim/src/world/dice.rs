//! The numbers of a seed, out of which everything comes that a simulation leaves to chance.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::random::Random;

/// The seed's numbers, shared by all parts. Cloning shares.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<Random>>);

impl Dice {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(Arc::new(Mutex::new(Random(seed))))
    }

    /// A number from 0 to `n - 1`; 0 if there is none.
    pub fn below(&self, n: u64) -> u64 {
        self.0.lock().below_u64(n)
    }

    /// True so many times in a thousand. What never or always happens draws no number: a part that
    /// has no trouble leaves those of the others as they are.
    pub fn chance(&self, in_thousand: u64) -> bool {
        match in_thousand {
            0 => false,
            1000.. => true,
            _ => self.below(1000) < in_thousand,
        }
    }

    /// A time between these, both included, in whole nanoseconds; `from` if there is none.
    pub fn between(&self, from: Duration, to: Duration) -> Duration {
        let nanos = to.saturating_sub(from).as_nanos();
        match u64::try_from(nanos).unwrap_or(u64::MAX) {
            0 => from,
            nanos => from + Duration::from_nanos(self.below(nanos.saturating_add(1))),
        }
    }

    /// Numbers of its own for a part: what the part draws does not change what others draw.
    pub fn fork(&self) -> Dice {
        Dice::new(self.0.lock().next_u64())
    }

    /// One of these, of which there is one at least.
    pub fn pick<T: Clone>(&self, from: &[T]) -> T {
        self.0.lock().pick(from).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten(dice: &Dice) -> Vec<u64> {
        (0..10).map(|_| dice.below(1_000_000)).collect()
    }

    #[test]
    fn a_seed_has_its_numbers_and_a_part_numbers_of_its_own() {
        assert_eq!(ten(&Dice::new(7)), ten(&Dice::new(7)));
        assert_ne!(ten(&Dice::new(7)), ten(&Dice::new(8)));
        let (idle, busy) = (Dice::new(7), Dice::new(7));
        idle.fork();
        ten(&busy.fork());
        assert_eq!(ten(&idle), ten(&busy));
        let shared = busy.clone();
        shared.below(2);
        idle.below(2);
        assert_eq!(ten(&busy), ten(&idle));
    }

    #[test]
    fn chances_and_times_stay_within_their_bounds() {
        let dice = Dice::new(1);
        let before = ten(&dice.clone());
        assert!(!dice.chance(0) && dice.chance(1000));
        let often = (0..10_000).filter(|_| dice.chance(100)).count();
        assert!((800..1200).contains(&often), "{often}");
        let (from, to) = (Duration::from_nanos(3), Duration::from_nanos(5));
        let times: Vec<u128> = (0..100)
            .map(|_| dice.between(from, to).as_nanos())
            .collect();
        assert_eq!(
            (3..=5).filter(|n| times.contains(n)).count(),
            3,
            "{times:?}"
        );
        assert!(times.iter().all(|n| (3..=5).contains(n)));
        assert_eq!(dice.between(to, from), to);
        assert!((0..100).all(|_| [1, 2].contains(&dice.pick(&[1, 2]))));
        assert_eq!(before, ten(&Dice::new(1)));
    }

    #[test]
    fn what_never_or_always_happens_draws_no_number() {
        let (calm, other) = (Dice::new(3), Dice::new(3));
        assert!(!calm.chance(0) && calm.chance(1000));
        assert_eq!(calm.between(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        assert_eq!(ten(&calm), ten(&other));
    }
}
