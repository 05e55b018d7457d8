//! The proleptic Gregorian calendar in integers: days since 1970-01-01 to year, month, day and back
//! (Howard Hinnant's algorithms), and microseconds since 1970 to the fields of a clock. No
//! allocation, no table, valid for every timestamp that fits 64 bits.

/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// A moment taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year; 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// Microseconds of the second.
    pub micros: u32,
    /// Days since 1970-01-01.
    pub days: i64,
}

/// Year, month and day of a day counted from 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 of a date; the inverse of [`civil_from_days`].
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = i64::from((month + 9) % 12);
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// The fields of a moment in microseconds since 1970-01-01 00:00.
pub fn civil(micros: i64) -> Civil {
    let days = micros.div_euclid(DAY_MICROS);
    let of_day = micros.rem_euclid(DAY_MICROS);
    let (year, month, day) = civil_from_days(days);
    let seconds = of_day / 1_000_000;
    Civil {
        year,
        month,
        day,
        hour: (seconds / 3600) as u32,
        minute: (seconds / 60 % 60) as u32,
        second: (seconds % 60) as u32,
        micros: (of_day % 1_000_000) as u32,
        days,
    }
}

impl Civil {
    /// Day of the week, Sunday 0.
    pub fn weekday(&self) -> u32 {
        (self.days + 4).rem_euclid(7) as u32
    }

    /// Day of the year, from 1.
    pub fn day_of_year(&self) -> u32 {
        (self.days - days_from_civil(self.year, 1, 1) + 1) as u32
    }

    /// Year and week by ISO 8601: weeks begin on Monday, week 1 holds the year's first Thursday.
    pub fn iso_week(&self) -> (i64, u32) {
        let thursday = self.days - i64::from((self.weekday() + 6) % 7) + 3;
        let (year, _, _) = civil_from_days(thursday);
        (
            year,
            ((thursday - days_from_civil(year, 1, 1)) / 7 + 1) as u32,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_inverse() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
        for days in (-800_000..800_000).step_by(37) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

    #[test]
    fn fields_of_a_moment() {
        let c = civil(-1);
        assert_eq!(
            (
                c.year,
                c.month,
                c.day,
                c.hour,
                c.second,
                c.micros,
                c.weekday()
            ),
            (1969, 12, 31, 23, 59, 999_999, 3)
        );
        let c = civil(days_from_civil(2021, 1, 3) * DAY_MICROS);
        assert_eq!((c.iso_week(), c.day_of_year()), ((2020, 53), 3));
    }
}
