//! `to_char`: a timestamp or an interval by a pattern.

use super::calendar::{Civil, JULIAN_OF_1970, day_of_year, days_of_iso_week, iso_week, weekday};
use super::template::{Case, DAYS, Field, MONTHS, Node, Ordinal, ROMAN, Template};
use super::{DAY, HOUR, Interval, MINUTE, SECOND, Zone, timestamp_is_finite};
use std::fmt::Write;
use tidemark_common::{Error, Result, SqlState};

/// What a pattern prints from.
struct Value {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// Days since 1970, also of the date that an interval would be.
    days: i64,
    /// Of an interval its approximate length.
    day_of_year: i64,
    is_interval: bool,
    /// Seconds east of UTC.
    offset: i32,
    abbreviation: Option<String>,
}

/// `to_char(timestamp, pattern)`; `None` is NULL, for infinite timestamps and the empty pattern.
///
/// Errors: `22P02` for `TH` after a field that is no number.
pub fn to_char_timestamp(template: &Template, micros: i64) -> Result<Option<String>> {
    of_moment(template, micros, 0, None)
}

/// `to_char(timestamptz, pattern)` in a session's zone; `None` is NULL.
///
/// Errors: as [`to_char_timestamp`].
pub fn to_char_timestamptz(
    template: &Template,
    micros: i64,
    zone: &Zone,
) -> Result<Option<String>> {
    if !timestamp_is_finite(micros) {
        return Ok(None);
    }
    let abbreviation = zone.abbreviation_at(micros);
    of_moment(template, micros, zone.offset_at(micros), Some(abbreviation))
}

fn of_moment(
    template: &Template,
    micros: i64,
    offset: i32,
    abbreviation: Option<String>,
) -> Result<Option<String>> {
    if template.is_empty || !timestamp_is_finite(micros) {
        return Ok(None);
    }
    let time = micros.rem_euclid(DAY) + i64::from(offset) * SECOND;
    let days = micros.div_euclid(DAY) + time.div_euclid(DAY);
    let civil = Civil::at(days, time.rem_euclid(DAY));
    let value = Value {
        year: i64::from(civil.year),
        month: i64::from(civil.month),
        day: i64::from(civil.day),
        hour: i64::from(civil.hour),
        minute: i64::from(civil.minute),
        second: i64::from(civil.second),
        micros: i64::from(civil.micros),
        days,
        day_of_year: i64::from(day_of_year(days)),
        is_interval: false,
        offset,
        abbreviation,
    };
    value.print(template).map(Some)
}

/// `to_char(interval, pattern)`; `None` is NULL, for the empty pattern.
///
/// Errors: `22007` for a field that needs a date, `22P02` for `TH` after one that is no number.
pub fn to_char_interval(template: &Template, interval: Interval) -> Result<Option<String>> {
    if template.is_empty {
        return Ok(None);
    }
    let micros = interval.micros;
    let (year, month) = (interval.months / 12, interval.months % 12);
    let value = Value {
        year: i64::from(year),
        month: i64::from(month),
        day: i64::from(interval.days),
        hour: micros / HOUR,
        minute: micros / MINUTE % 60,
        second: micros / SECOND % 60,
        micros: micros % SECOND,
        days: julian(year, month, interval.days) - JULIAN_OF_1970,
        day_of_year: i64::from(interval.months.wrapping_mul(30).wrapping_add(interval.days)),
        is_interval: true,
        offset: 0,
        abbreviation: None,
    };
    value.print(template).map(Some)
}

/// The Julian day of a date whose month and day may be anything: PostgreSQL's formula, whose
/// divisions cut towards zero.
fn julian(year: i32, month: i32, day: i32) -> i64 {
    let (year, month) = match month {
        3.. => (i64::from(year) + 4800, i64::from(month) + 1),
        _ => (i64::from(year) + 4799, i64::from(month) + 13),
    };
    let century = year / 100;
    let days = year * 365 - 32_167 + year / 4 - century + century / 4 + 7834 * month / 256;
    i64::from((days + i64::from(day)) as i32)
}

/// A number of at least `width` digits, one more place if it is negative.
fn padded(out: &mut String, value: i64, width: usize, fill: bool) {
    let width = match (fill, value < 0) {
        (true, _) => 0,
        (false, false) => width,
        (false, true) => width + 1,
    };
    let _ = write!(out, "{value:0width$}");
}

fn name(out: &mut String, text: &str, case: Case, width: usize) {
    let start = out.len();
    match case {
        Case::Upper => out.push_str(&text.to_ascii_uppercase()),
        Case::Capital => out.push_str(text),
        Case::Lower => out.push_str(&text.to_ascii_lowercase()),
    }
    while out.len() < start + width {
        out.push(' ');
    }
}

impl Value {
    fn print(&self, template: &Template) -> Result<String> {
        let mut out = String::new();
        for node in &template.nodes {
            match node {
                Node::Space(c) | Node::Separator(c) | Node::Character(c) => out.push(*c),
                Node::Field {
                    field,
                    case,
                    fill,
                    ordinal,
                    ..
                } => {
                    if self.is_interval && needs_date(*field) {
                        return Err(Error::user(
                            SqlState("22007"),
                            "invalid format specification for an interval value",
                        )
                        .with_hint("Intervals are not tied to specific calendar dates."));
                    }
                    let start = out.len();
                    if self.number(&mut out, *field, *fill) {
                        push_ordinal(&mut out, start, *ordinal);
                    } else {
                        self.word(&mut out, *field, *case, *fill);
                    }
                }
            }
        }
        Ok(out)
    }

    /// The year as it is written: before Christ it is counted from 1.
    fn shown(&self, year: i64) -> i64 {
        if self.is_interval || year > 0 {
            year
        } else {
            1 - year
        }
    }

    fn iso(&self) -> (i64, i64) {
        let (year, week) = iso_week(self.days);
        (year, i64::from(week))
    }

    /// Prints a field that `TH` may follow; false if it is none.
    fn number(&self, out: &mut String, field: Field, fill: bool) -> bool {
        // The place for a sign is that of the year, also for the ISO year.
        let sign = usize::from(self.shown(self.year) < 0);
        let year_digits = |out: &mut String, year: i64, digits: u8| {
            let year = match digits {
                4 => self.shown(year),
                _ => self.shown(year) % 10i64.pow(u32::from(digits)),
            };
            plain(out, year, usize::from(digits) + sign, fill || digits == 1);
        };
        match field {
            Field::Hour12 => {
                let hour = self.hour % 12;
                let width = if self.hour >= 0 { 2 } else { 3 };
                let hour = if hour == 0 { 12 } else { hour };
                padded(out, hour, width - usize::from(hour < 0), fill);
            }
            Field::Hour24 => padded(out, self.hour, 2, fill),
            Field::Minute => padded(out, self.minute, 2, fill),
            Field::Second => padded(out, self.second, 2, fill),
            Field::Fraction(digits, _) => {
                let width = usize::from(digits);
                let value = self.micros / 10i64.pow(6 - u32::from(digits));
                let _ = write!(out, "{value:0width$}");
            }
            Field::SecondOfDay => {
                let seconds = self.hour * 3600 + self.minute * 60 + self.second;
                let _ = write!(out, "{seconds}");
            }
            Field::Month => padded(out, self.month, 2, fill),
            Field::DayOfYear => plain(out, self.day_of_year, 3, fill),
            Field::IsoDayOfYear => {
                let first = days_of_iso_week(self.iso().0, 1);
                plain(out, self.days - first + 1, 3, fill);
            }
            Field::Day => plain(out, self.day, 2, fill),
            Field::DayOfWeek => plain(out, i64::from(weekday(self.days)) + 1, 1, fill),
            Field::IsoDayOfWeek => {
                plain(out, i64::from((weekday(self.days) + 6) % 7) + 1, 1, fill);
            }
            Field::Week => plain(out, (self.day_of_year - 1) / 7 + 1, 2, fill),
            Field::IsoWeek => plain(out, self.iso().1, 2, fill),
            Field::WeekOfMonth => plain(out, (self.day - 1) / 7 + 1, 1, fill),
            Field::Quarter if self.month != 0 => plain(out, (self.month - 1) / 3 + 1, 1, true),
            Field::Quarter => return false,
            Field::Century => {
                let century = match (self.is_interval, self.year > 0) {
                    (true, _) => self.year / 100,
                    (false, true) => (self.year - 1) / 100 + 1,
                    (false, false) => self.year / 100 - 1,
                };
                padded(out, century, 2, fill || century.abs() > 99);
            }
            Field::YearComma => {
                let year = self.shown(self.year);
                let _ = write!(out, "{},{:03}", year / 1000, year % 1000);
            }
            Field::Year(digits) => year_digits(out, self.year, digits),
            Field::IsoYear(digits) => year_digits(out, self.iso().0, digits),
            Field::Julian => {
                let _ = write!(out, "{}", self.days + JULIAN_OF_1970);
            }
            _ => return false,
        }
        true
    }

    fn word(&self, out: &mut String, field: Field, case: Case, fill: bool) {
        let wide = if fill { 0 } else { 9 };
        let month = || MONTHS[(self.month - 1).rem_euclid(12) as usize];
        let day = || DAYS[weekday(self.days) as usize];
        let offset = self.offset.unsigned_abs();
        let sign = if self.offset < 0 { '-' } else { '+' };
        match field {
            Field::Half(dots) => {
                let text = match (self.hour % 24 >= 12, dots) {
                    (true, true) => "P.M.",
                    (true, false) => "PM",
                    (false, true) => "A.M.",
                    (false, false) => "AM",
                };
                name(out, text, case, 0);
            }
            Field::Era(dots) => {
                let text = match (self.year <= 0, dots) {
                    (true, true) => "B.C.",
                    (true, false) => "BC",
                    (false, true) => "A.D.",
                    (false, false) => "AD",
                };
                name(out, text, case, 0);
            }
            Field::Zone => {
                let text = self.abbreviation.as_deref().unwrap_or("");
                match case {
                    Case::Lower => name(out, text, case, 0),
                    _ => out.push_str(text),
                }
            }
            Field::ZoneHour => {
                let _ = write!(out, "{sign}{:02}", offset / 3600);
            }
            Field::ZoneMinute => {
                let _ = write!(out, "{:02}", offset % 3600 / 60);
            }
            Field::Offset => {
                let width = if fill { 0 } else { 2 };
                let _ = write!(out, "{sign}{:0width$}", offset / 3600);
                if !offset.is_multiple_of(3600) {
                    let _ = write!(out, ":{:02}", offset % 3600 / 60);
                }
            }
            Field::MonthName => name(out, month(), case, wide),
            Field::MonthShort => name(out, &month()[..3], case, 0),
            Field::DayName => name(out, day(), case, wide),
            Field::DayShort => name(out, &day()[..3], case, 0),
            Field::MonthRoman if self.month != 0 || self.year != 0 => {
                // The list begins with December.
                let at = match self.month {
                    0 if self.year >= 0 => 0,
                    0 => 11,
                    ..0 => -(self.month + 1),
                    _ => 12 - self.month,
                };
                let width = if fill { 0 } else { 4 };
                name(out, ROMAN[at.rem_euclid(12) as usize], case, width);
            }
            _ => {}
        }
    }
}

/// A number in so many places, its sign among them.
fn plain(out: &mut String, value: i64, width: usize, fill: bool) {
    let width = if fill { 0 } else { width };
    let _ = write!(out, "{value:0width$}");
}

fn needs_date(field: Field) -> bool {
    matches!(
        field,
        Field::Zone
            | Field::ZoneHour
            | Field::ZoneMinute
            | Field::Offset
            | Field::Era(_)
            | Field::MonthName
            | Field::MonthShort
            | Field::DayName
            | Field::DayShort
            | Field::DayOfWeek
            | Field::IsoDayOfWeek
    )
}

fn push_ordinal(out: &mut String, start: usize, ordinal: Ordinal) {
    if ordinal == Ordinal::None {
        return;
    }
    let digits = &out.as_bytes()[start..];
    let teens = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    let ending = match digits.last() {
        Some(b'1') if !teens => "st",
        Some(b'2') if !teens => "nd",
        Some(b'3') if !teens => "rd",
        _ => "th",
    };
    match ordinal {
        Ordinal::Upper => out.push_str(&ending.to_ascii_uppercase()),
        _ => out.push_str(ending),
    }
}
