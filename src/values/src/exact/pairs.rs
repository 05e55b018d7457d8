//! Covariances, correlations and regressions over pairs of doubles: quotients of exact sums, each
//! of which is rounded once.

use super::{Exact, QUOTIENT_BITS, UNIT, UNIT_OF_PRODUCTS, Variable, off, take};
use crate::float::overflow;
use tidemark_common::Result;

/// Which one is told of pairs `(y, x)`.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Regression {
    Count,
    SquaresOfX,
    SquaresOfY,
    Products,
    AverageX,
    AverageY,
    CovarPop,
    CovarSamp,
    Correlation,
    Determination,
    Slope,
    Intercept,
}

impl Regression {
    /// All of them, by their names.
    pub const NAMED: [(&str, Regression); 12] = [
        ("regr_count", Regression::Count),
        ("regr_sxx", Regression::SquaresOfX),
        ("regr_syy", Regression::SquaresOfY),
        ("regr_sxy", Regression::Products),
        ("regr_avgx", Regression::AverageX),
        ("regr_avgy", Regression::AverageY),
        ("covar_pop", Regression::CovarPop),
        ("covar_samp", Regression::CovarSamp),
        ("corr", Regression::Correlation),
        ("regr_r2", Regression::Determination),
        ("regr_slope", Regression::Slope),
        ("regr_intercept", Regression::Intercept),
    ];

    /// Whether the squares of x, those of y and the products are read.
    fn reads(self) -> [bool; 3] {
        match self {
            Regression::Count | Regression::AverageX | Regression::AverageY => [false; 3],
            Regression::SquaresOfX => [true, false, false],
            Regression::SquaresOfY => [false, true, false],
            Regression::Products | Regression::CovarPop | Regression::CovarSamp => {
                [false, false, true]
            }
            Regression::Slope | Regression::Intercept => [true, false, true],
            Regression::Correlation | Regression::Determination => [true; 3],
        }
    }
}

/// What is kept of pairs for one statistic.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    rows: i64,
    x: Variable,
    y: Variable,
    products: Exact,
}

impl Pairs {
    /// Adds `weight` times a pair.
    pub fn add(&mut self, statistic: Regression, y: f64, x: f64, weight: i64) {
        self.rows += weight;
        if statistic == Regression::Count {
            return;
        }
        let [squares_of_x, squares_of_y, products] = statistic.reads();
        self.x.add(x, weight, squares_of_x);
        self.y.add(y, weight, squares_of_y);
        if products && x.is_finite() && y.is_finite() {
            self.products.add_product(x, y, weight);
        }
    }

    /// Adds what is kept of others for the same statistic.
    pub fn merge(&mut self, other: &Pairs) {
        self.rows += other.rows;
        self.x.merge(&other.x);
        self.y.merge(&other.y);
        self.products.merge(&other.products);
    }

    /// How many pairs there are.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    fn is_finite(&self) -> bool {
        self.x.is_finite() && self.y.is_finite()
    }

    /// `rows` times the sum of products of what the pairs are off their averages by.
    fn products(&self, rows: u64) -> Exact {
        off(&self.products, rows, &self.x.sum, &self.y.sum)
    }

    /// That sum divided by these.
    fn covariance(&self, rows: u64, divisors: &[u64]) -> f64 {
        match self.is_finite() {
            true => self.products(rows).rounded(UNIT_OF_PRODUCTS, divisors),
            false => f64::NAN,
        }
    }

    /// The statistic that it is kept for; none where it is not defined.
    ///
    /// Errors: `22003` if no double is so large.
    pub fn result(&self, statistic: Regression) -> Result<Option<f64>> {
        let rows = u64::try_from(self.rows).unwrap_or(0);
        if rows == 0 {
            return Ok(None);
        }
        let result = match statistic {
            Regression::Count => Some(rows as f64),
            Regression::AverageX => return Ok(Some(self.x.average(rows))),
            Regression::AverageY => return Ok(Some(self.y.average(rows))),
            Regression::SquaresOfX => Some(self.x.spread(rows, &[rows])),
            Regression::SquaresOfY => Some(self.y.spread(rows, &[rows])),
            Regression::Products => Some(self.covariance(rows, &[rows])),
            Regression::CovarPop => Some(self.covariance(rows, &[rows, rows])),
            Regression::CovarSamp => (rows >= 2).then(|| self.covariance(rows, &[rows, rows - 1])),
            _ => self.quotient(statistic, rows),
        };
        match result {
            Some(result) if result.is_infinite() => Err(overflow()),
            result => Ok(result),
        }
    }

    /// A statistic that is a quotient of sums of squares and products; none where it divides by
    /// zero.
    fn quotient(&self, statistic: Regression, rows: u64) -> Option<f64> {
        let (xx, yy) = (self.x.squares(rows), self.y.squares(rows));
        let is_zero = |sum: &Option<Exact>| sum.as_ref().is_some_and(Exact::is_zero);
        if is_zero(&xx) {
            return None;
        }
        if is_zero(&yy) {
            match statistic {
                Regression::Correlation => return None,
                Regression::Determination => return Some(1.0),
                _ => {}
            }
        }
        let (Some(xx), Some(yy)) = (xx, yy) else {
            return Some(f64::NAN);
        };
        let xy = self.products(rows);
        Some(match statistic {
            Regression::Correlation => {
                // The root to as many bits as a quotient has; an exact one where there is one.
                let square = xx.times(&yy).big();
                let more = QUOTIENT_BITS.saturating_sub(square.bits() / 2);
                xy.divided(&(square << (2 * more)).sqrt(), more as i32)
            }
            Regression::Determination => xy.times(&xy).divided(&xx.times(&yy).big(), 0),
            Regression::Slope => xy.divided(&xx.big(), 0),
            _ => {
                let numerator = self.y.sum.times(&xx).minus(&self.x.sum.times(&xy));
                numerator.divided(&xx.many(rows).big(), UNIT)
            }
        })
    }

    /// Bytes of memory outside of itself.
    pub fn heap_bytes(&self) -> usize {
        self.x.heap_bytes() + self.y.heap_bytes() + self.products.heap_bytes()
    }

    /// Appends the stored form, which is the same for the same pairs.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.rows.to_le_bytes());
        self.x.encode(to);
        self.y.encode(to);
        self.products.encode(to);
    }

    /// Reads a stored form; `None` if it is none.
    pub fn decode(mut from: &[u8]) -> Option<Pairs> {
        Some(Pairs {
            rows: i64::from_le_bytes(take(&mut from)?),
            x: Variable::decode(&mut from)?,
            y: Variable::decode(&mut from)?,
            products: Exact::decode(&mut from)?,
        })
    }
}
