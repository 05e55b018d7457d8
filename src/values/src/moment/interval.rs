//! Intervals: the type, its comparison, and arithmetic on it alone.
//!
//! Months, days and microseconds are kept apart because a month has no fixed length and a day has
//! 23 hours once a year. Where a factor leaves a fraction of a month or a day, it goes on to the
//! next smaller part with 30 days a month and 24 hours a day, as in PostgreSQL.

use super::failure::interval_out_of_range;
use super::{DAY, HOUR, MINUTE, SECOND};
use tidemark_common::{Error, Result, SqlState};

/// A PostgreSQL interval. `==` compares the parts; SQL's comparison is [`interval_key`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interval {
    /// Months, 12 of them a year.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

const MONTH_DAYS: i32 = 30;

/// The length that SQL compares and groups intervals by, in microseconds: months of 30 days, days
/// of 24 hours.
pub fn interval_key(value: Interval) -> i128 {
    let days = i128::from(value.months) * i128::from(MONTH_DAYS) + i128::from(value.days);
    days * i128::from(DAY) + i128::from(value.micros)
}

impl Interval {
    /// An interval of its parts.
    pub const fn new(months: i32, days: i32, micros: i64) -> Interval {
        Interval {
            months,
            days,
            micros,
        }
    }

    /// `self + other`.
    ///
    /// Errors: `22008` if a part overflows.
    pub fn plus(self, other: Interval) -> Result<Interval> {
        let sum = || {
            Some(Interval {
                months: self.months.checked_add(other.months)?,
                days: self.days.checked_add(other.days)?,
                micros: self.micros.checked_add(other.micros)?,
            })
        };
        sum().ok_or_else(interval_out_of_range)
    }

    /// `self - other`.
    ///
    /// Errors: `22008` if a part overflows.
    pub fn minus(self, other: Interval) -> Result<Interval> {
        let difference = || {
            Some(Interval {
                months: self.months.checked_sub(other.months)?,
                days: self.days.checked_sub(other.days)?,
                micros: self.micros.checked_sub(other.micros)?,
            })
        };
        difference().ok_or_else(interval_out_of_range)
    }

    /// `-self`.
    ///
    /// Errors: `22008` if a part overflows.
    pub fn negated(self) -> Result<Interval> {
        Interval::default().minus(self)
    }

    /// `self * factor`.
    ///
    /// Errors: `22008` if a part overflows or the factor is NaN.
    pub fn times(self, factor: f64) -> Result<Interval> {
        self.scaled(|part| part * factor)
    }

    /// `self / divisor`.
    ///
    /// Errors: `22012` for zero, `22008` if a part overflows or the divisor is NaN.
    pub fn divided(self, divisor: f64) -> Result<Interval> {
        if divisor == 0.0 {
            return Err(Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        self.scaled(|part| part / divisor)
    }

    /// Its microseconds in nanoseconds.
    ///
    /// Errors: `22008` if there are too many.
    pub fn nanoseconds(self) -> Result<i64> {
        self.micros
            .checked_mul(1000)
            .ok_or_else(interval_out_of_range)
    }

    /// What lies this part of the way from `self` to `other`.
    ///
    /// Errors: `22008` if a part overflows.
    pub fn towards(self, other: Interval, part: f64) -> Result<Interval> {
        self.plus(other.minus(self)?.times(part)?)
    }

    fn scaled(self, scale: impl Fn(f64) -> f64) -> Result<Interval> {
        let months = scale(f64::from(self.months));
        let days = scale(f64::from(self.days));
        let whole_months = whole(months)?;
        let whole_days = whole(days)?;
        let month_rest = to_micros((months - f64::from(whole_months)) * f64::from(MONTH_DAYS));
        let rest = days - f64::from(whole_days) + month_rest - month_rest.trunc();
        let mut seconds = to_micros(rest * 86_400.0);
        let mut result_days = whole_days;
        if seconds.abs() >= 86_400.0 {
            let more = (seconds / 86_400.0).trunc();
            result_days = result_days
                .checked_add(more as i32)
                .ok_or_else(interval_out_of_range)?;
            seconds -= more * 86_400.0;
        }
        let micros = (scale(self.micros as f64) + seconds * SECOND as f64).round_ties_even();
        if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&micros) {
            return Err(interval_out_of_range());
        }
        Ok(Interval {
            months: whole_months,
            days: result_days
                .checked_add(month_rest as i32)
                .ok_or_else(interval_out_of_range)?,
            micros: micros as i64,
        })
    }

    /// `justify_hours`: whole days out of the microseconds, of the days' sign.
    ///
    /// Errors: `22008` if the days overflow.
    pub fn justify_hours(self) -> Result<Interval> {
        let mut days = self
            .days
            .checked_add((self.micros / DAY) as i32)
            .ok_or_else(interval_out_of_range)?;
        let mut micros = self.micros % DAY;
        if days > 0 && micros < 0 {
            (days, micros) = (days - 1, micros + DAY);
        } else if days < 0 && micros > 0 {
            (days, micros) = (days + 1, micros - DAY);
        }
        Ok(Interval {
            days,
            micros,
            ..self
        })
    }

    /// `justify_days`: whole months of 30 days out of the days, of the months' sign.
    ///
    /// Errors: `22008` if the months overflow.
    pub fn justify_days(self) -> Result<Interval> {
        let mut months = self
            .months
            .checked_add(self.days / MONTH_DAYS)
            .ok_or_else(interval_out_of_range)?;
        let mut days = self.days % MONTH_DAYS;
        if months > 0 && days < 0 {
            (months, days) = (months - 1, days + MONTH_DAYS);
        } else if months < 0 && days > 0 {
            (months, days) = (months + 1, days - MONTH_DAYS);
        }
        Ok(Interval {
            months,
            days,
            ..self
        })
    }

    /// `justify_interval`: both, all parts with one sign.
    ///
    /// Errors: `22008` if the months overflow.
    pub fn justify(self) -> Result<Interval> {
        // Days and months may each overflow before the other takes from it: wider, then back.
        let days = i64::from(self.days) + self.micros / DAY;
        let mut micros = self.micros % DAY;
        let mut months = i64::from(self.months) + days / i64::from(MONTH_DAYS);
        let mut days = days % i64::from(MONTH_DAYS);
        if i32::try_from(months).is_err() {
            return Err(interval_out_of_range());
        }
        if months > 0 && (days < 0 || days == 0 && micros < 0) {
            (months, days) = (months - 1, days + i64::from(MONTH_DAYS));
        } else if months < 0 && (days > 0 || days == 0 && micros > 0) {
            (months, days) = (months + 1, days - i64::from(MONTH_DAYS));
        }
        if days > 0 && micros < 0 {
            (days, micros) = (days - 1, micros + DAY);
        } else if days < 0 && micros > 0 {
            (days, micros) = (days + 1, micros - DAY);
        }
        Ok(Interval::new(months as i32, days as i32, micros))
    }

    /// The cast to `time`: the microseconds within a day.
    pub fn time_of_day(self) -> i64 {
        self.micros.rem_euclid(DAY)
    }

    /// The cast to `interval(precision)` with fields, as for what [`super::read_interval`] read.
    pub fn restricted(self, fields: super::IntervalFields, precision: u8) -> Interval {
        use super::IntervalFields::*;
        let Interval {
            months,
            days,
            micros,
        } = self;
        let cut = match fields {
            Year => Interval::new(months / 12 * 12, 0, 0),
            Month | YearToMonth => Interval::new(months, 0, 0),
            Day => Interval::new(months, days, 0),
            Hour | DayToHour => Interval::new(months, days, micros / HOUR * HOUR),
            Minute | DayToMinute | HourToMinute => {
                Interval::new(months, days, micros / MINUTE * MINUTE)
            }
            _ => self,
        };
        Interval {
            micros: super::round_micros(cut.micros, precision),
            ..cut
        }
    }
}

/// The whole part, if it fits.
fn whole(value: f64) -> Result<i32> {
    if (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value) {
        Ok(value as i32)
    } else {
        Err(interval_out_of_range())
    }
}

/// Rounds to six digits after the point.
fn to_micros(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}
