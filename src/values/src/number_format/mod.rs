//! `to_char` and `to_number` of numbers, by PostgreSQL's patterns (`FM999,990.00S`), in the locale
//! `C`: the point is `.`, thousands are parted by `,`, the currency is a blank.
//!
//! A pattern is read once ([`Pattern`]) and then applied to numbers of all types ([`Number`]). What
//! is written follows the pattern position by position; a number with more digits before the point
//! than the pattern has is written as `#`.

mod from_text;
mod pattern;
mod to_text;

pub use pattern::Pattern;

use crate::numeric::Numeric;

/// A number to be written, by its type: types differ in how many digits they have.
pub enum Number<'a> {
    /// `integer`.
    Int4(i32),
    /// `bigint`.
    Int8(i64),
    /// `real`.
    Float4(f32),
    /// `double precision`.
    Float8(f64),
    /// `numeric`.
    Numeric(&'a Numeric),
}
