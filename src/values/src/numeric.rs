//! PostgreSQL's `numeric` as a value: computed and printed exactly as PostgreSQL 15 does.
//!
//! A [`Numeric`] is a finite number, `NaN`, `Infinity` or `-Infinity`. A finite number is an
//! *unscaled* integer together with a *display scale*: `12.50` is 1250 at scale 2. Numbers that
//! differ in scale only are equal (`12.5 = 12.50`) and print differently. The limits are
//! PostgreSQL's: [`DIGITS_MAX`] digits before the point and [`SCALE_MAX`] after it.
//!
//! The unscaled integer is an `i128` while it fits, so the usual arithmetic allocates nothing; it
//! goes on as a `BigInt` where it does not. Which of the two holds a number is never visible.
//!
//! | file | what |
//! | --- | --- |
//! | `int` | the integer underneath: `i128`, continued by `BigInt` |
//! | `text` | `numeric_in` and `numeric_out` |
//! | `bytes` | the order-preserving bytes: the key, then the scale |
//! | `arithmetic` | `+ - * / %`, rounding, signs, and the scales of their results |
//! | `functions` | square root, gcd, lcm, factorial, width_bucket |
//! | `power` | exp, ln, log, power: PostgreSQL's choice of scale |
//! | `series` | ln and e^x to any number of digits, correctly rounded |
//! | `convert` | integers, floats, Arrow's decimals, the cast to `numeric(p, s)` |
//! | `wire` | PostgreSQL's binary format |
//! | `sum` | sum, avg, variance and stddev from which rows can be taken away again |
//!
//! Operations are methods that take references. Those that can fail (overflow, division by zero,
//! a logarithm of zero) return PostgreSQL's error: its code, message and detail.

mod arithmetic;
mod bytes;
mod convert;
mod functions;
mod int;
mod power;
mod series;
mod sum;
mod text;
mod wire;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use num_bigint::BigInt;
use tidemark_common::{Error, Result, SqlState};

pub use bytes::{compare, key_of};
pub use sum::Sum;

use int::Int;

/// The largest display scale, in decimal digits after the point.
pub const SCALE_MAX: u16 = 16383;
/// The largest number of decimal digits before the point.
pub const DIGITS_MAX: u32 = 131_072;

/// PostgreSQL's least number of significant digits of an inexact result.
const SIGNIFICANT_DIGITS_MIN: i32 = 16;
/// PostgreSQL's largest scale of an inexact result (its `NUMERIC_MAX_DISPLAY_SCALE`).
const INEXACT_SCALE_MAX: i32 = 1000;

const INVALID_ARGUMENT_FOR_LOG: SqlState = SqlState("2201E");
const INVALID_ARGUMENT_FOR_POWER: SqlState = SqlState("2201F");
const INVALID_ARGUMENT_FOR_WIDTH_BUCKET: SqlState = SqlState("2201G");
const INVALID_BINARY: SqlState = SqlState("22P03");
const PROTOCOL_VIOLATION: SqlState = SqlState("08P01");

/// A value of PostgreSQL's type `numeric`; see the [module](self).
///
/// `Eq`, `Ord` and `Hash` follow PostgreSQL: the scale does not count, `NaN` equals itself and
/// sorts after `Infinity`.
#[derive(Clone, Debug)]
pub struct Numeric(Repr);

/// `Big` holds only what does not fit an `i128`.
#[derive(Clone, Debug)]
enum Repr {
    Small(i128, u16),
    Big(Box<BigInt>, u16),
    NegInfinity,
    Infinity,
    NaN,
}

// A value is moved about by the million; the forms share the space of the `i128`.
const _: () = assert!(size_of::<Numeric>() == 32);

impl Numeric {
    /// 0, at scale 0.
    pub const ZERO: Numeric = Numeric(Repr::Small(0, 0));
    /// 1, at scale 0.
    pub const ONE: Numeric = Numeric(Repr::Small(1, 0));
    /// Not a number.
    pub const NAN: Numeric = Numeric(Repr::NaN);
    /// Positive infinity.
    pub const INFINITY: Numeric = Numeric(Repr::Infinity);
    /// Negative infinity.
    pub const NEG_INFINITY: Numeric = Numeric(Repr::NegInfinity);

    /// `unscaled / 10^scale`, for scales that columns are declared with (far below 16383).
    pub fn from_unscaled(unscaled: i128, scale: u16) -> Numeric {
        Numeric::finite(Int::Small(unscaled), scale)
    }

    /// A finite number; the caller has made sure of the limits.
    fn finite(unscaled: Int, scale: u16) -> Numeric {
        debug_assert!(scale <= SCALE_MAX);
        match unscaled {
            Int::Small(v) => Numeric(Repr::Small(v, scale)),
            Int::Big(v) => Numeric(Repr::Big(Box::new(v), scale)),
        }
    }

    /// A finite number, or `value overflows numeric format` beyond [`DIGITS_MAX`].
    fn checked(unscaled: Int, scale: u16) -> Result<Numeric> {
        if let Int::Big(v) = &unscaled
            && v.bits() > 430_000
            && unscaled.digits() > DIGITS_MAX + u32::from(scale)
        {
            return Err(overflow());
        }
        Ok(Numeric::finite(unscaled, scale))
    }

    /// The unscaled integer and the scale of a finite number.
    fn parts(&self) -> Option<(Int, u16)> {
        match &self.0 {
            Repr::Small(v, scale) => Some((Int::Small(*v), *scale)),
            Repr::Big(v, scale) => Some((Int::Big(v.as_ref().clone()), *scale)),
            _ => None,
        }
    }

    /// The infinity of this sign.
    fn infinity(sign: i32) -> Numeric {
        if sign < 0 {
            Numeric::NEG_INFINITY
        } else {
            Numeric::INFINITY
        }
    }

    /// Whether it is `NaN`.
    pub fn is_nan(&self) -> bool {
        matches!(self.0, Repr::NaN)
    }

    /// Whether it is `Infinity` or `-Infinity`.
    pub fn is_infinite(&self) -> bool {
        matches!(self.0, Repr::Infinity | Repr::NegInfinity)
    }

    /// Whether it is neither `NaN` nor infinite.
    pub fn is_finite(&self) -> bool {
        matches!(self.0, Repr::Small(..) | Repr::Big(..))
    }

    /// Whether it is zero, of whatever scale.
    pub fn is_zero(&self) -> bool {
        matches!(self.0, Repr::Small(0, _))
    }

    /// -1, 0 or 1; 0 for `NaN`.
    pub fn signum(&self) -> i32 {
        match &self.0 {
            Repr::Small(v, _) => v.signum() as i32,
            Repr::Big(v, _) => int::sign_of(v),
            Repr::NegInfinity => -1,
            Repr::Infinity => 1,
            Repr::NaN => 0,
        }
    }

    /// SQL's `scale`: digits after the point; `None` (SQL's null) for `NaN` and the infinities.
    pub fn scale(&self) -> Option<u16> {
        match &self.0 {
            Repr::Small(_, scale) | Repr::Big(_, scale) => Some(*scale),
            _ => None,
        }
    }
}

fn overflow() -> Error {
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        "value overflows numeric format",
    )
}

fn division_by_zero() -> Error {
    Error::user(SqlState::DIVISION_BY_ZERO, "division by zero")
}

impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        if let (Repr::Small(a, s), Repr::Small(b, t)) = (&self.0, &other.0) {
            if s == t {
                return a.cmp(b);
            }
            if let Some((a, b)) = int::align(*a, *s, *b, *t) {
                return a.cmp(&b);
            }
        }
        match (self.parts(), other.parts()) {
            (Some((a, s)), Some((b, t))) => compare_finite(&a, s, &b, t),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Numeric {
    /// Where the kinds of numbers stand in the order.
    fn rank(&self) -> u8 {
        match self.0 {
            Repr::NegInfinity => 0,
            Repr::Small(..) | Repr::Big(..) => 1,
            Repr::Infinity => 2,
            Repr::NaN => 3,
        }
    }
}

/// Compares two finite numbers; only those of one sign and magnitude are brought to one scale.
fn compare_finite(a: &Int, s: u16, b: &Int, t: u16) -> Ordering {
    let by_sign = a.sign().cmp(&b.sign());
    if by_sign != Ordering::Equal || a.sign() == 0 {
        return by_sign;
    }
    let magnitude = |v: &Int, scale: u16| i64::from(v.digits()) - i64::from(scale);
    let by_magnitude = magnitude(a, s).cmp(&magnitude(b, t));
    if by_magnitude != Ordering::Equal {
        return if a.sign() < 0 {
            by_magnitude.reverse()
        } else {
            by_magnitude
        };
    }
    let scale = s.max(t);
    let (a, b) = (
        a.times_pow10(u32::from(scale - s)),
        b.times_pow10(u32::from(scale - t)),
    );
    a.cmp(&b)
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Numeric) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric {}

impl Hash for Numeric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.trim_scale().parts() {
            Some((Int::Small(v), scale)) => (1u8, v, scale).hash(state),
            Some((Int::Big(v), scale)) => (1u8, v, scale).hash(state),
            None => (self.rank() * 2).hash(state),
        }
    }
}
