//! Variances and deviations of doubles.

use super::{Variable, take};
use crate::float::overflow;
use tidemark_common::Result;

/// Which one is told.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
}

/// What is kept of values.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    rows: i64,
    values: Variable,
}

impl Moments {
    /// Adds `weight` times a value.
    pub fn add(&mut self, value: f64, weight: i64) {
        self.rows += weight;
        self.values.add(value, weight, true);
    }

    /// Adds what is kept of others.
    pub fn merge(&mut self, other: &Moments) {
        self.rows += other.rows;
        self.values.merge(&other.values);
    }

    /// A variance or deviation; none of too few values.
    ///
    /// Errors: `22003` if no double is so large.
    pub fn result(&self, spread: Spread) -> Result<Option<f64>> {
        let rows = u64::try_from(self.rows).unwrap_or(0);
        let divisor = match spread {
            Spread::VarPop | Spread::StddevPop => rows,
            Spread::VarSamp | Spread::StddevSamp => rows.saturating_sub(1),
        };
        if divisor == 0 {
            return Ok(None);
        }
        let variance = self.values.spread(rows, &[rows, divisor]);
        if variance.is_infinite() {
            return Err(overflow());
        }
        Ok(Some(match spread {
            Spread::VarPop | Spread::VarSamp => variance,
            Spread::StddevPop | Spread::StddevSamp => variance.sqrt(),
        }))
    }

    /// Bytes of memory outside of itself.
    pub fn heap_bytes(&self) -> usize {
        self.values.heap_bytes()
    }

    /// Appends the stored form, which is the same for the same values.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.rows.to_le_bytes());
        self.values.encode(to);
    }

    /// Reads a stored form; `None` if it is none.
    pub fn decode(mut from: &[u8]) -> Option<Moments> {
        Some(Moments {
            rows: i64::from_le_bytes(take(&mut from)?),
            values: Variable::decode(&mut from)?,
        })
    }
}
