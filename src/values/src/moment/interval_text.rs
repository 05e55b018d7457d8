//! Reads intervals: `1 year 2 mons 3 days 04:05:06.7`, `@ 1 minute ago`, `1-2`, `3 4:05:06`, and
//! ISO 8601 ([`super::interval_iso`]).
//!
//! The fields are read from the last to the first, since a unit follows its number. A fraction of a
//! unit goes on to the smaller ones: of a year to months, of a month to days (30) and microseconds,
//! of a day to microseconds.

use super::failure::{Failure, interval_out_of_range};
use super::field::clock;
use super::number::{fraction, leading_i32, leading_i64};
use super::token::{INTERVAL, Shape, Tokens};
use super::word::{IntervalWord, Unit, interval_word};
use super::{DAY, HOUR, Interval, MINUTE, SECOND};
use tidemark_common::Result;

/// The fields that an interval is restricted to: `INTERVAL '1:30' HOUR TO MINUTE`.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IntervalFields {
    #[default]
    All,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    YearToMonth,
    DayToHour,
    DayToMinute,
    DayToSecond,
    HourToMinute,
    HourToSecond,
    MinuteToSecond,
}

impl IntervalFields {
    /// The unit of a last number without one.
    fn last(self) -> Unit {
        use IntervalFields::*;
        match self {
            Year => Unit::Year,
            Month | YearToMonth => Unit::Month,
            Day => Unit::Day,
            Hour | DayToHour => Unit::Hour,
            Minute | DayToMinute | HourToMinute => Unit::Minute,
            _ => Unit::Second,
        }
    }
}

/// Reads an interval, restricted to `fields` and rounded to `precision` digits of the second (6
/// keeps them).
///
/// Errors: `22007`, `22008` and `22015`, as PostgreSQL.
pub fn read_interval(text: &str, fields: IntervalFields, precision: u8) -> Result<Interval> {
    let sum = match verbose(text, fields) {
        Err(Failure::Format) => super::interval_iso::read(text),
        other => other,
    };
    let interval = sum
        .map_err(|failure| failure.error(text, "interval"))?
        .interval()
        .ok_or_else(interval_out_of_range)?;
    Ok(interval.restricted(fields, precision))
}

/// An interval while it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    years: i32,
    months: i32,
    days: i32,
    micros: i64,
}

impl Sum {
    /// Adds `value` and the fraction `rest` of a unit; `None` if that overflows or cannot be.
    pub(super) fn add(&mut self, unit: Unit, value: i64, rest: f64) -> Option<()> {
        match unit {
            Unit::Microsecond => self.add_micros(value, rest, 1),
            Unit::Millisecond => self.add_micros(value, rest, 1000),
            Unit::Second => self.add_micros(value, rest, SECOND),
            Unit::Minute => self.add_micros(value, rest, MINUTE),
            Unit::Hour => self.add_micros(value, rest, HOUR),
            Unit::Day => {
                self.add_days(value, 1)?;
                self.add_fraction(rest, DAY)
            }
            Unit::Week => {
                self.add_days(value, 7)?;
                self.add_fraction_of_days(rest, 7.0)
            }
            Unit::Month => {
                self.months = self.months.checked_add(i32::try_from(value).ok()?)?;
                self.add_fraction_of_days(rest, 30.0)
            }
            Unit::Year => self.add_years(value, rest, 1),
            Unit::Decade => self.add_years(value, rest, 10),
            Unit::Century => self.add_years(value, rest, 100),
            Unit::Millennium => self.add_years(value, rest, 1000),
            _ => None,
        }
    }

    fn add_micros(&mut self, value: i64, rest: f64, scale: i64) -> Option<()> {
        self.micros = self.micros.checked_add(value.checked_mul(scale)?)?;
        self.add_fraction(rest, scale)
    }

    /// Adds a fraction of so many microseconds, rounded.
    pub(super) fn add_fraction(&mut self, rest: f64, scale: i64) -> Option<()> {
        if rest == 0.0 {
            return Some(());
        }
        let rest = rest * scale as f64;
        let mut micros = rest as i64;
        let below = rest - micros as f64;
        if below > 0.5 {
            micros += 1;
        } else if below < -0.5 {
            micros -= 1;
        }
        self.micros = self.micros.checked_add(micros)?;
        Some(())
    }

    fn add_days(&mut self, value: i64, scale: i32) -> Option<()> {
        let days = i32::try_from(value).ok()?.checked_mul(scale)?;
        self.days = self.days.checked_add(days)?;
        Some(())
    }

    fn add_fraction_of_days(&mut self, rest: f64, scale: f64) -> Option<()> {
        if rest == 0.0 {
            return Some(());
        }
        let rest = rest * scale;
        self.days = self.days.checked_add(rest as i32)?;
        self.add_fraction(rest - f64::from(rest as i32), DAY)
    }

    fn add_years(&mut self, value: i64, rest: f64, scale: i32) -> Option<()> {
        let years = i32::try_from(value).ok()?.checked_mul(scale)?;
        self.years = self.years.checked_add(years)?;
        let months = (rest * f64::from(scale) * 12.0).round_ties_even() as i32;
        self.months = self.months.checked_add(months)?;
        Some(())
    }

    fn negate(&mut self) -> Option<()> {
        self.years = self.years.checked_neg()?;
        self.months = self.months.checked_neg()?;
        self.days = self.days.checked_neg()?;
        self.micros = self.micros.checked_neg()?;
        Some(())
    }

    fn interval(self) -> Option<Interval> {
        let months = i64::from(self.years) * 12 + i64::from(self.months);
        Some(Interval {
            months: i32::try_from(months).ok()?,
            days: self.days,
            micros: self.micros,
        })
    }
}

/// The bits of units that have been given.
fn bit(unit: Unit) -> u32 {
    1 << unit as u32
}

const SECOND_UNITS: [Unit; 3] = [Unit::Second, Unit::Millisecond, Unit::Microsecond];

fn bits(units: &[Unit]) -> u32 {
    units.iter().fold(0, |all, unit| all | bit(*unit))
}

fn verbose(text: &str, fields: IntervalFields) -> Result<Sum, Failure> {
    let tokens = Tokens::cut(text, INTERVAL)?;
    let mut reader = Reader {
        fields,
        sum: Sum::default(),
        seen: 0,
        unit: None,
        ago: false,
    };
    for index in (0..tokens.count).rev() {
        let text = tokens.field(index);
        let given = match tokens.shape(index) {
            Shape::Time => reader.clock(text, false)?,
            Shape::Zone if text.contains(&b':') => {
                match reader.clock(&text[1..], text[0] == b'-') {
                    Ok(given) => given,
                    Err(_) => reader.number(text)?,
                }
            }
            Shape::Zone | Shape::Date | Shape::Number => reader.number(text)?,
            Shape::Word | Shape::Special => match interval_word(text) {
                Some(IntervalWord::Ignored) => continue,
                Some(IntervalWord::Unit(unit)) => {
                    reader.unit = Some(Some(unit));
                    0
                }
                Some(IntervalWord::Ago) => {
                    reader.ago = true;
                    reader.unit = Some(None);
                    0
                }
                None => return Err(Failure::Format),
            },
        };
        if reader.seen & given != 0 {
            return Err(Failure::Format);
        }
        reader.seen |= given;
    }
    if reader.seen == 0 {
        return Err(Failure::Format);
    }
    if reader.ago {
        reader.sum.negate().ok_or(Failure::Field)?;
    }
    Ok(reader.sum)
}

struct Reader {
    fields: IntervalFields,
    sum: Sum,
    seen: u32,
    /// The unit of the next number to the left; `Some(None)` if a word stands there that is none.
    unit: Option<Option<Unit>>,
    ago: bool,
}

impl Reader {
    fn clock(&mut self, text: &[u8], negative: bool) -> Result<u32, Failure> {
        let ends_in_seconds = self.fields == IntervalFields::MinuteToSecond;
        let (hour, minute, second, fraction) = clock(text, ends_in_seconds)?;
        let micros = hour
            .checked_mul(HOUR)
            .and_then(|micros| {
                micros.checked_add(
                    i64::from(minute) * MINUTE + i64::from(second) * SECOND + i64::from(fraction),
                )
            })
            .ok_or(Failure::Field)?;
        self.sum.micros = if negative { -micros } else { micros };
        self.unit = Some(Some(Unit::Day));
        Ok(bit(Unit::Hour) | bit(Unit::Minute) | bits(&SECOND_UNITS))
    }

    fn number(&mut self, text: &[u8]) -> Result<u32, Failure> {
        let unit = self.unit.unwrap_or(Some(self.fields.last()));
        let (mut value, rest) = leading_i64(text).ok_or(Failure::Field)?;
        let mut part = 0.0;
        let mut unit = unit;
        let negative = text[0] == b'-';
        match rest.first() {
            None => {}
            Some(b'-') => {
                let (months, rest) = leading_i32(&rest[1..]).ok_or(Failure::Field)?;
                if !(0..12).contains(&months) {
                    return Err(Failure::Field);
                }
                if !rest.is_empty() {
                    return Err(Failure::Format);
                }
                unit = Some(Unit::Month);
                let months = i64::from(if negative { -months } else { months });
                value = value
                    .checked_mul(12)
                    .and_then(|value| value.checked_add(months))
                    .ok_or(Failure::Field)?;
            }
            Some(b'.') => {
                part = fraction(rest)?;
                if negative {
                    part = -part;
                }
            }
            Some(_) => return Err(Failure::Format),
        }
        self.unit = Some(match unit {
            // What stands before hours is days.
            Some(Unit::Hour) => Some(Unit::Day),
            unit => unit,
        });
        let unit = unit.ok_or(Failure::Format)?;
        if unit == Unit::Quarter || unit as u32 > Unit::Millennium as u32 {
            return Err(Failure::Format);
        }
        self.sum.add(unit, value, part).ok_or(Failure::Field)?;
        Ok(match unit {
            Unit::Second if part != 0.0 => bits(&SECOND_UNITS),
            unit => bit(unit),
        })
    }
}
