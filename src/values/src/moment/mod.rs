//! PostgreSQL's dates, times, timestamps and intervals over plain integers.
//!
//! | type | value |
//! | --- | --- |
//! | `date` | `i32` days since 1970-01-01 |
//! | `time` | `i64` microseconds since midnight, 0 to 86,400,000,000 |
//! | `timestamp` | `i64` microseconds since 1970-01-01 00:00 |
//! | `timestamptz` | `i64` microseconds since 1970-01-01 00:00 UTC |
//! | `interval` | [`Interval`]: months, days and microseconds |
//!
//! The greatest and the least integer stand for `infinity` and `-infinity`. Everything else is as
//! in PostgreSQL 15 with DateStyle `ISO, MDY` and IntervalStyle `postgres`: what is read, what is
//! printed, what is computed and how a refusal is worded. Two limits are our own: a timestamp ends
//! where 64 bits from 1970 end, in January 294247 (PostgreSQL counts from 2000 and reaches 294276),
//! and time zones are those of the compiled database, before 1970 as that has them.
//!
//! What depends on a session (its time zone, the transaction's time) is an argument: [`Session`].

mod abbreviation;
mod add;
pub mod calendar;
mod extract;
mod failure;
mod field;
mod from_char;
mod interval;
mod interval_iso;
mod interval_sum;
mod interval_text;
mod make;
mod number;
mod print;
mod read;
mod template;
mod timeread;
mod to_char;
mod token;
mod truncate;
mod word;
mod zone;
mod zone_posix;

#[cfg(test)]
mod tests;

pub use add::*;
pub use extract::*;
pub use from_char::{to_date, to_timestamp};
pub use interval::*;
pub use interval_sum::IntervalSum;
pub use interval_text::{IntervalFields, read_interval};
pub use make::*;
pub use print::*;
pub use read::{
    Session, read_date, read_timestamp, read_timestamptz, round_micros, round_timestamp,
};
pub use template::Template;
pub use timeread::read_time;
pub use to_char::{to_char_interval, to_char_timestamp, to_char_timestamptz};
pub use truncate::*;
pub use word::Unit;
pub use zone::{Named, Zone, abbreviations_at, local_at_zone, moment_at_zone, zones_at};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds of an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds of a day.
pub const DAY: i64 = 24 * HOUR;

/// `infinity` of dates.
pub const DATE_INFINITY: i32 = i32::MAX;
/// `-infinity` of dates.
pub const DATE_MINUS_INFINITY: i32 = i32::MIN;
/// `infinity` of timestamps, with and without zone.
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;
/// `-infinity` of timestamps, with and without zone.
pub const TIMESTAMP_MINUS_INFINITY: i64 = i64::MIN;

/// The first day, 4714-11-24 BC.
pub const DATE_MIN: i32 = -2_440_588;
/// The last day, 5874897-12-31.
pub const DATE_MAX: i32 = 2_147_483_493 - 2_440_588;
/// The first moment, 4714-11-24 00:00:00 BC.
pub const TIMESTAMP_MIN: i64 = DATE_MIN as i64 * DAY;
/// The last moment, 294247-01-10 04:00:54.775806.
pub const TIMESTAMP_MAX: i64 = i64::MAX - 1;

/// Whether a date is a day, not infinite.
pub fn date_is_finite(days: i32) -> bool {
    days != DATE_INFINITY && days != DATE_MINUS_INFINITY
}

/// Whether a timestamp is a moment, not infinite.
pub fn timestamp_is_finite(micros: i64) -> bool {
    micros != TIMESTAMP_INFINITY && micros != TIMESTAMP_MINUS_INFINITY
}
