//! Covariances, correlations and regressions over pairs of doubles: PostgreSQL's formulas over the
//! sums of squares and products, each of which is rounded once.

use super::{Exact, Variable, off, take};
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

    /// The sum of products of what the pairs are off their averages by.
    fn spread(&self, rows: u64, divisors: &[u64]) -> f64 {
        match self.x.is_finite() && self.y.is_finite() {
            true => off(&self.products, rows, &self.x.sum, &self.y.sum, divisors),
            false => f64::NAN,
        }
    }

    /// The statistic that it is kept for; none where it is not defined.
    ///
    /// Errors: `22003` if no double is so large as it, or as a sum that it is computed of.
    pub fn result(&self, statistic: Regression) -> Result<Option<f64>> {
        let rows = u64::try_from(self.rows).unwrap_or(0);
        if rows == 0 {
            return Ok(None);
        }
        let [squares_of_x, squares_of_y, products] = statistic.reads();
        let sum = |of: &Variable, reads: bool| if reads { of.spread(rows, &[rows]) } else { 0.0 };
        let (xx, yy) = (sum(&self.x, squares_of_x), sum(&self.y, squares_of_y));
        let xy = if products {
            self.spread(rows, &[rows])
        } else {
            0.0
        };
        if [xx, yy, xy].iter().any(|sum| sum.is_infinite()) {
            return Err(overflow());
        }
        Ok(match statistic {
            Regression::Count => Some(rows as f64),
            Regression::SquaresOfX => Some(xx),
            Regression::SquaresOfY => Some(yy),
            Regression::Products => Some(xy),
            Regression::AverageX => Some(self.x.average(rows)),
            Regression::AverageY => Some(self.y.average(rows)),
            Regression::CovarPop => Some(self.spread(rows, &[rows, rows])),
            Regression::CovarSamp => (rows >= 2).then(|| self.spread(rows, &[rows, rows - 1])),
            Regression::Correlation => (xx != 0.0 && yy != 0.0).then(|| xy / (xx * yy).sqrt()),
            Regression::Determination if xx == 0.0 => None,
            Regression::Determination if yy == 0.0 => Some(1.0),
            Regression::Determination => Some((xy * xy) / (xx * yy)),
            Regression::Slope => (xx != 0.0).then(|| xy / xx),
            Regression::Intercept if xx == 0.0 => None,
            Regression::Intercept => Some(self.intercept(rows, xy, xx)?),
        })
    }

    fn intercept(&self, rows: u64, xy: f64, xx: f64) -> Result<f64> {
        let (x, y) = (self.x.average(1), self.y.average(1));
        let unknown = !(self.x.is_finite() && self.y.is_finite());
        let intercept = (y - x * xy / xx) / rows as f64;
        match unknown || intercept.is_finite() {
            true => Ok(intercept),
            false => Err(overflow()),
        }
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
