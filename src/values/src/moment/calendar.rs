//! The proleptic Gregorian calendar in integers: days since 1970-01-01 to year, month, day and back
//! (Howard Hinnant's algorithms), ISO weeks, and microseconds to the fields of a clock. No
//! allocation, no table; valid far beyond every date of PostgreSQL.

use super::{DAY, HOUR, MINUTE, SECOND};

/// The Julian day of 1970-01-01.
pub const JULIAN_OF_1970: i64 = 2_440_588;

/// A date and a time of day taken apart; year 0 is 1 BC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Civil {
    /// Year; 0 is 1 BC.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23; 24 only in what was read.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 59; 60 only in what was read.
    pub second: i32,
    /// Microseconds of the second.
    pub micros: i32,
}

impl Civil {
    /// The fields of microseconds since 1970-01-01 00:00.
    pub fn of(micros: i64) -> Civil {
        Civil::at(micros.div_euclid(DAY), micros.rem_euclid(DAY))
    }

    /// The fields of a day and the microseconds since its midnight.
    pub fn at(days: i64, time: i64) -> Civil {
        let (year, month, day) = date_of(days);
        Civil {
            year: year as i32,
            month,
            day,
            hour: (time / HOUR) as i32,
            minute: (time / MINUTE % 60) as i32,
            second: (time / SECOND % 60) as i32,
            micros: (time % SECOND) as i32,
        }
    }

    /// Days since 1970-01-01; the day may lie outside the month.
    pub fn days(&self) -> i64 {
        days_of(i64::from(self.year), self.month, 1) + i64::from(self.day) - 1
    }

    /// Microseconds since midnight.
    pub fn time(&self) -> i64 {
        i64::from(self.hour) * HOUR
            + i64::from(self.minute) * MINUTE
            + i64::from(self.second) * SECOND
            + i64::from(self.micros)
    }

    /// Microseconds since 1970-01-01 00:00, if they fit.
    pub fn timestamp(&self) -> Option<i64> {
        self.days().checked_mul(DAY)?.checked_add(self.time())
    }

    /// Whether PostgreSQL's Julian day numbers reach the date.
    pub fn has_julian_day(&self) -> bool {
        (self.year > -4713 || self.year == -4713 && self.month >= 11)
            && (self.year < 5_874_898 || self.year == 5_874_898 && self.month < 6)
    }
}

/// Days since 1970-01-01 of a date.
#[inline]
pub fn days_of(year: i64, month: i32, day: i32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * i64::from((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
#[inline]
pub fn date_of(days: i64) -> (i64, i32, i32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (
        year + era * 400 + i64::from(month <= 2),
        month as i32,
        day as i32,
    )
}

/// Whether the year has a 29th of February.
pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month, 1 to 12.
#[inline]
pub fn days_in_month(year: i64, month: i32) -> i32 {
    match month {
        2 => 28 + i32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Day of the week, Sunday 0.
pub fn weekday(days: i64) -> i32 {
    (days + 4).rem_euclid(7) as i32
}

/// The Monday on or before a day.
pub fn monday_of(days: i64) -> i64 {
    days - (days + 3).rem_euclid(7)
}

/// Day of the year, from 1.
pub fn day_of_year(days: i64) -> i32 {
    (days - days_of(date_of(days).0, 1, 1) + 1) as i32
}

/// Year and week by ISO 8601: weeks begin on Monday, week 1 holds the year's first Thursday.
pub fn iso_week(days: i64) -> (i64, i32) {
    let thursday = monday_of(days) + 3;
    let (year, _, _) = date_of(thursday);
    (year, ((thursday - days_of(year, 1, 1)) / 7 + 1) as i32)
}

/// The Monday of a week by ISO 8601.
pub fn days_of_iso_week(year: i64, week: i32) -> i64 {
    monday_of(days_of(year, 1, 4)) + 7 * (i64::from(week) - 1)
}
