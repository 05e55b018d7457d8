//! Sums and averages of intervals: months, days and microseconds each by themselves, so that what
//! was added can be taken off again, and a sum is out of range only where the result is.

use super::Interval;
use super::failure::interval_out_of_range;
use tidemark_common::Result;

const BYTES: usize = size_of::<i128>();

/// What is kept of intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalSum {
    months: i128,
    days: i128,
    micros: i128,
}

impl IntervalSum {
    /// Adds `weight` times an interval.
    pub fn add(&mut self, value: Interval, weight: i64) {
        let weight = i128::from(weight);
        self.months += i128::from(value.months) * weight;
        self.days += i128::from(value.days) * weight;
        self.micros += i128::from(value.micros) * weight;
    }

    /// Adds what is kept of others.
    pub fn merge(&mut self, other: &IntervalSum) {
        self.months += other.months;
        self.days += other.days;
        self.micros += other.micros;
    }

    /// The sum.
    ///
    /// Errors: `22008` if a part overflows.
    pub fn sum(&self) -> Result<Interval> {
        let sum = || {
            Some(Interval::new(
                self.months.try_into().ok()?,
                self.days.try_into().ok()?,
                self.micros.try_into().ok()?,
            ))
        };
        sum().ok_or_else(interval_out_of_range)
    }

    /// The sum divided by so many.
    ///
    /// Errors: `22008` if a part of the sum overflows, as in PostgreSQL.
    pub fn average(&self, rows: i64) -> Result<Interval> {
        self.sum()?.divided(rows as f64)
    }

    /// Its bytes, to be stored.
    pub fn encode(&self) -> [u8; 3 * BYTES] {
        let mut bytes = [0; 3 * BYTES];
        let parts = [self.months, self.days, self.micros];
        for (to, part) in bytes.chunks_exact_mut(BYTES).zip(parts) {
            to.copy_from_slice(&part.to_le_bytes());
        }
        bytes
    }

    /// Reads stored bytes; `None` if they are others.
    pub fn decode(bytes: &[u8]) -> Option<IntervalSum> {
        let (parts, []) = bytes.as_chunks::<BYTES>() else {
            return None;
        };
        let [months, days, micros] = <[[u8; BYTES]; 3]>::try_from(parts)
            .ok()?
            .map(i128::from_le_bytes);
        Some(IntervalSum {
            months,
            days,
            micros,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_off_leaves_no_trace() {
        let (a, b) = (
            Interval::new(1, -2, 3),
            Interval::new(i32::MAX, 5, i64::MIN),
        );
        let mut sum = IntervalSum::default();
        sum.add(a, 2);
        sum.add(b, 3);
        assert!(sum.sum().is_err());
        sum.add(b, -3);
        assert_eq!(sum.sum().unwrap(), Interval::new(2, -4, 6));
        assert_eq!(sum.average(2).unwrap(), a);
        let stored = IntervalSum::decode(&sum.encode()).unwrap();
        assert_eq!(stored, sum);
        assert_eq!(IntervalSum::decode(&[0; 47]), None);
        let mut twice = stored;
        twice.merge(&sum);
        twice.add(a, -4);
        assert_eq!(twice, IntervalSum::default());
    }
}
