//! `to_date` and `to_timestamp`: a text read by a pattern.
//!
//! Without `FX` blanks are skipped before and after fields, and a separator of the pattern takes
//! one of the text or none. A number takes its field's width in characters, or all digits if a
//! non-digit must follow.

use super::calendar::{Civil, JULIAN_OF_1970, days_in_month, days_of, days_of_iso_week, is_leap};
use super::failure::{Failure, overflow};
use super::template::{
    DAYS, Field, MONTHS, Node, Ordinal, ROMAN, Template, is_separator, is_space,
};
use super::{DATE_MAX, DATE_MIN, SECOND, Zone, add::in_range};
use tidemark_common::{Error, Result, SqlState};

const BAD: SqlState = SqlState("22007");

/// What the fields have said; 0 is nothing.
#[derive(Default)]
struct Found {
    hour: i32,
    is_12_hours: bool,
    after_noon: i32,
    minute: i32,
    second: i32,
    second_of_day: i32,
    millis: i32,
    micros: i32,
    /// Digits of the second that the result is rounded to.
    precision: Option<u8>,
    weekday: i32,
    day: i32,
    day_of_year: i32,
    month: i32,
    year: i32,
    year_digits: u8,
    before_christ: i32,
    century: i32,
    week: i32,
    week_of_month: i32,
    julian: i32,
    zone_sign: i32,
    zone_hour: i32,
    zone_minute: i32,
    /// Whether weeks are ISO 8601's, once a field has said so.
    is_iso: Option<bool>,
}

/// `to_timestamp(text, pattern)`, local to a session's zone if the text has none.
///
/// Errors: `22007`, `22008` and `22009`, as PostgreSQL.
pub fn to_timestamp(text: &str, template: &Template, zone: &Zone) -> Result<i64> {
    let (civil, offset, precision) = read(text, template)?;
    if !civil.has_julian_day() {
        return in_range(None);
    }
    let local = civil.timestamp();
    let moment = in_range(local.and_then(|local| match offset {
        Some(offset) => local.checked_sub(i64::from(offset) * SECOND),
        None => zone.moment_of(local),
    }))?;
    Ok(super::round_timestamp(moment, precision))
}

/// `to_date(text, pattern)`.
///
/// Errors: `22007`, `22008` and `22009`, as PostgreSQL.
pub fn to_date(text: &str, template: &Template) -> Result<i32> {
    let (civil, ..) = read(text, template)?;
    let days = civil.days();
    if !civil.has_julian_day() || !(i64::from(DATE_MIN)..=i64::from(DATE_MAX)).contains(&days) {
        return Err(overflow(format!("date out of range: \"{text}\"")));
    }
    Ok(days as i32)
}

fn read(text: &str, template: &Template) -> Result<(Civil, Option<i32>, u8)> {
    let mut reader = Reader {
        text,
        rest: text,
        found: Found::default(),
        exact: false,
        skipped: 0,
    };
    for index in 0..template.nodes.len() {
        if reader.rest.is_empty() {
            break;
        }
        reader.node(template, index)?;
    }
    reader.found.moment(text)
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    found: Found,
    exact: bool,
    /// Characters skipped beyond those of the pattern.
    skipped: i32,
}

impl Reader<'_> {
    fn skip_spaces(&mut self) {
        while self.rest.starts_with(is_space) {
            self.rest = &self.rest[1..];
            self.skipped += 1;
        }
    }

    fn skip_character(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
    }

    fn node(&mut self, template: &Template, index: usize) -> Result<()> {
        let node = &template.nodes[index];
        let is_field = matches!(node, Node::Field { .. });
        let is_exact = matches!(
            node,
            Node::Field {
                field: Field::Exact,
                ..
            }
        );
        if !self.exact && !is_exact && (is_field || index == 0) {
            self.skip_spaces();
        }
        match node {
            Node::Space(_) | Node::Separator(_) if self.exact => self.skip_character(),
            Node::Space(_) | Node::Separator(_) => {
                self.skipped -= 1;
                if self.rest.starts_with(|c| is_space(c) || is_separator(c)) {
                    self.rest = &self.rest[1..];
                    self.skipped += 1;
                }
            }
            Node::Character(_) if !self.exact && self.skipped > 0 => self.skipped -= 1,
            Node::Character(_) => self.skip_character(),
            Node::Field {
                field,
                name,
                fill,
                ordinal,
                ..
            } => {
                let take_all = *fill || template.ends_with_digits(index);
                self.field(*field, name, take_all)?;
                if *ordinal != Ordinal::None && takes_ordinal(*field) {
                    self.skip_character();
                    self.skip_character();
                }
                if !self.exact {
                    self.skipped = 0;
                    self.skip_spaces();
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, field: Field, name: &'static str, take_all: bool) -> Result<()> {
        self.convention(field)?;
        let width = name.len();
        macro_rules! number {
            ($to:ident, $width:expr) => {{
                let (value, length) = self.number(name, $width, take_all)?;
                set(&mut self.found.$to, value, name)?;
                length
            }};
        }
        match field {
            Field::Exact => self.exact = true,
            Field::Half(dots) => {
                let words = if dots { ["a.m.", "p.m."] } else { ["am", "pm"] };
                let value = self.word(&words, name)?;
                set(&mut self.found.after_noon, value, name)?;
                self.found.is_12_hours = true;
            }
            Field::Era(dots) => {
                let words = if dots { ["a.d.", "b.c."] } else { ["ad", "bc"] };
                let value = self.word(&words, name)?;
                set(&mut self.found.before_christ, value, name)?;
            }
            Field::Hour12 => {
                number!(hour, 2);
                self.found.is_12_hours = true;
            }
            Field::Hour24 => {
                number!(hour, 2);
            }
            Field::Minute => {
                number!(minute, width);
            }
            Field::Second => {
                number!(second, width);
            }
            Field::Fraction(3, true) => {
                let length = number!(millis, 3);
                self.found.millis *= scale(length, 3);
            }
            Field::Fraction(digits, _) => {
                if name.starts_with(['F', 'f']) {
                    self.found.precision = Some(digits);
                }
                let length = number!(micros, usize::from(digits));
                self.found.micros = self.found.micros.wrapping_mul(scale(length, 6));
            }
            Field::SecondOfDay => {
                number!(second_of_day, width);
            }
            Field::Zone | Field::Offset => {
                return Err(Error::unsupported(format!(
                    "formatting field \"{name}\" is only supported in to_char"
                )));
            }
            Field::ZoneHour => {
                self.zone_sign();
                number!(zone_hour, 2);
            }
            Field::ZoneMinute => {
                if self.found.zone_sign == 0 {
                    self.found.zone_sign = 1;
                }
                number!(zone_minute, 2);
            }
            Field::MonthName => {
                let value = self.word(&MONTHS, name)?;
                set(&mut self.found.month, value + 1, name)?;
            }
            Field::MonthShort => {
                let value = self.word(&MONTHS.map(|month| &month[..3]), name)?;
                set(&mut self.found.month, value + 1, name)?;
            }
            Field::MonthRoman => {
                let value = self.word(&ROMAN, name)?;
                set(&mut self.found.month, 12 - value, name)?;
            }
            Field::DayName => {
                let value = self.word(&DAYS, name)?;
                set(&mut self.found.weekday, value, name)?;
                self.found.weekday = self.found.weekday.wrapping_add(1);
            }
            Field::DayShort => {
                let value = self.word(&DAYS.map(|day| &day[..3]), name)?;
                set(&mut self.found.weekday, value, name)?;
                self.found.weekday = self.found.weekday.wrapping_add(1);
            }
            Field::Month => {
                number!(month, width);
            }
            Field::DayOfYear => {
                number!(day_of_year, width);
            }
            Field::IsoDayOfYear => {
                number!(day_of_year, 3);
            }
            Field::Day => {
                number!(day, width);
            }
            Field::DayOfWeek => {
                number!(weekday, width);
            }
            Field::IsoDayOfWeek => {
                number!(weekday, 1);
                self.found.weekday = self.found.weekday.wrapping_add(1);
                if self.found.weekday > 7 {
                    self.found.weekday = 1;
                }
            }
            Field::Week | Field::IsoWeek => {
                number!(week, width);
            }
            Field::WeekOfMonth => {
                number!(week_of_month, width);
            }
            Field::Quarter => {
                self.number(name, width, take_all)?;
            }
            Field::Century => {
                number!(century, width);
            }
            Field::YearComma => {
                let year = self.year_with_comma()?;
                set(&mut self.found.year, year, name)?;
                self.found.year_digits = 4;
            }
            Field::Year(4) | Field::IsoYear(4) => {
                number!(year, width);
                self.found.year_digits = 4;
            }
            Field::Year(digits) | Field::IsoYear(digits) => {
                if number!(year, width) < 4 {
                    self.found.year = nearest_2020(self.found.year);
                }
                self.found.year_digits = digits;
            }
            Field::Julian => {
                number!(julian, width);
            }
        }
        Ok(())
    }

    /// Days and weeks are either Gregorian or ISO 8601's.
    fn convention(&mut self, field: Field) -> Result<()> {
        let is_iso = match field {
            Field::IsoDayOfYear | Field::IsoDayOfWeek | Field::IsoWeek | Field::IsoYear(_) => true,
            Field::DayOfYear
            | Field::Day
            | Field::DayOfWeek
            | Field::Month
            | Field::MonthName
            | Field::MonthShort
            | Field::MonthRoman
            | Field::Week
            | Field::WeekOfMonth
            | Field::YearComma
            | Field::Year(_) => false,
            _ => return Ok(()),
        };
        if *self.found.is_iso.get_or_insert(is_iso) != is_iso {
            return Err(
                Error::user(BAD, "invalid combination of date conventions").with_hint(
                    "Do not mix Gregorian and ISO week date conventions in a formatting template.",
                ),
            );
        }
        Ok(())
    }

    fn zone_sign(&mut self) {
        if let Some(rest) = self.rest.strip_prefix(['+', '-', ' ']) {
            self.found.zone_sign = if self.rest.starts_with('-') { -1 } else { 1 };
            self.rest = rest;
        } else {
            // The sign may have been taken for a separator.
            let before = &self.text[..self.text.len() - self.rest.len()];
            let is_negative = self.skipped > 0 && before.ends_with('-');
            self.found.zone_sign = if is_negative { -1 } else { 1 };
        }
    }

    /// A number, and how many characters it took.
    fn number(&mut self, name: &str, width: usize, take_all: bool) -> Result<(i32, usize)> {
        let start = self.rest;
        let trimmed = start.trim_start_matches(is_space);
        let mut end = trimmed.len().min(width);
        while !trimmed.is_char_boundary(end) {
            end -= 1;
        }
        let copy = &trimmed[..end];
        let source = if take_all { trimmed } else { copy };
        let length = digits_of(source);
        if !take_all {
            if trimmed.len() < width {
                return Err(Error::user(
                    BAD,
                    format!("source string too short for \"{name}\" formatting field"),
                )
                .with_detail(format!(
                    "Field requires {width} characters, but only {} remain.",
                    trimmed.len()
                ))
                .with_hint(FIXED));
            }
            if length > 0 && length < width {
                return Err(
                    Error::user(BAD, format!("invalid value \"{copy}\" for \"{name}\""))
                        .with_detail(format!(
                            "Field requires {width} characters, but only {length} could be parsed."
                        ))
                        .with_hint(FIXED),
                );
            }
        }
        // Blanks alone are progress only where the text has a fixed width.
        let taken = match (length, take_all) {
            (0, true) => 0,
            _ => start.len() - trimmed.len() + length,
        };
        if taken == 0 {
            return Err(
                Error::user(BAD, format!("invalid value \"{copy}\" for \"{name}\""))
                    .with_detail("Value must be an integer."),
            );
        }
        self.rest = &start[taken..];
        let value = match length {
            0 => Some(0),
            _ => source[..length].parse::<i32>().ok(),
        };
        let value = value.ok_or_else(|| {
            overflow(format!(
                "value for \"{name}\" in source string is out of range"
            ))
            .with_detail("Value must be in the range -2147483648 to 2147483647.")
        })?;
        Ok((value, taken))
    }

    /// One of the words, in any case.
    fn word(&mut self, words: &[&str], name: &str) -> Result<i32> {
        let found = words.iter().position(|word| {
            self.rest
                .get(..word.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        });
        let Some(index) = found else {
            let end = self.rest.find(is_space).unwrap_or(self.rest.len());
            return Err(Error::user(
                BAD,
                format!("invalid value \"{}\" for \"{name}\"", &self.rest[..end]),
            )
            .with_detail(
                "The given value did not match any of the allowed values for this field.",
            ));
        };
        self.rest = &self.rest[words[index].len()..];
        Ok(index as i32)
    }

    fn year_with_comma(&mut self) -> Result<i32> {
        let bad = || Error::user(BAD, "invalid input string for \"Y,YYY\"");
        let text = self.rest.trim_start_matches(is_space);
        let length = digits_of(text);
        let thousands: i32 = text[..length].parse().map_err(|_| bad())?;
        let after = text[length..].strip_prefix(',').ok_or_else(bad)?;
        let after = after.trim_start_matches(is_space);
        let length = digits_of(after).min(3);
        let years: i32 = after[..length].parse().map_err(|_| bad())?;
        self.rest = &after[length..];
        Ok(thousands.wrapping_mul(1000).wrapping_add(years))
    }
}

const FIXED: &str = "If your source string is not fixed-width, try using the \"FM\" modifier.";

/// The length of the digits with their sign; 0 if there are none.
fn digits_of(text: &str) -> usize {
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text.as_bytes()[sign..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    if digits == 0 { 0 } else { sign + digits }
}

fn takes_ordinal(field: Field) -> bool {
    !matches!(
        field,
        Field::Exact
            | Field::Half(_)
            | Field::Era(_)
            | Field::MonthName
            | Field::MonthShort
            | Field::MonthRoman
            | Field::DayName
            | Field::DayShort
            | Field::ZoneHour
            | Field::ZoneMinute
    )
}

/// What a fraction of `length` digits is multiplied by to have `digits`.
fn scale(length: usize, digits: usize) -> i32 {
    10i32.pow(digits.saturating_sub(length) as u32)
}

fn set(to: &mut i32, value: i32, name: &str) -> Result<()> {
    if *to != 0 && *to != value {
        return Err(Error::user(
            BAD,
            format!("conflicting values for \"{name}\" field in formatting string"),
        )
        .with_detail("This value contradicts a previous setting for the same field type."));
    }
    *to = value;
    Ok(())
}

/// Up to three digits of a year are the year nearest to 2020.
fn nearest_2020(year: i32) -> i32 {
    match year {
        ..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

impl Found {
    /// The local time that the fields say, the zone's seconds east of UTC, and the digits of the
    /// second that count.
    fn moment(mut self, text: &str) -> Result<(Civil, Option<i32>, u8)> {
        let refuse = |failure: Failure| failure.error(text, "timestamp");
        let mut at = self.clock()?;
        let has_date = self.date(&mut at)?;
        if let Some((year, month, day)) = has_date {
            let wrong = month && !(1..=12).contains(&at.month)
                || day && !(1..=31).contains(&at.day)
                || year && month && day && at.day > days_in_month(i64::from(at.year), at.month);
            if wrong {
                return Err(refuse(Failure::Field));
            }
        }
        let micros = i64::from(self.millis) * 1000 + i64::from(self.micros);
        if !(0..24).contains(&at.hour)
            || !(0..60).contains(&at.minute)
            || !(0..60).contains(&at.second)
            || !(0..SECOND).contains(&micros)
        {
            return Err(refuse(Failure::Field));
        }
        at.micros = micros as i32;
        let precision = self.precision.unwrap_or(6);
        if self.zone_sign == 0 {
            return Ok((at, None, precision));
        }
        if !(0..=15).contains(&self.zone_hour) || !(0..60).contains(&self.zone_minute) {
            return Err(refuse(Failure::Displacement));
        }
        let offset = self.zone_sign * (self.zone_hour * 3600 + self.zone_minute * 60);
        Ok((at, Some(offset), precision))
    }

    fn clock(&self) -> Result<Civil> {
        let mut at = Civil {
            month: 1,
            day: 1,
            hour: self.second_of_day / 3600,
            minute: self.second_of_day % 3600 / 60,
            second: self.second_of_day % 60,
            ..Civil::default()
        };
        for (to, value) in [
            (&mut at.second, self.second),
            (&mut at.minute, self.minute),
            (&mut at.hour, self.hour),
        ] {
            if value != 0 {
                *to = value;
            }
        }
        if self.is_12_hours {
            if !(1..=12).contains(&at.hour) {
                return Err(Error::user(
                    BAD,
                    format!("hour \"{}\" is invalid for the 12-hour clock", at.hour),
                )
                .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            at.hour = at.hour % 12 + if self.after_noon != 0 { 12 } else { 0 };
        }
        Ok(at)
    }

    /// Sets the date; says which of year, month and day the fields gave, `None` for nothing.
    fn date(&mut self, at: &mut Civil) -> Result<Option<(bool, bool, bool)>> {
        let (mut year, mut month, mut day) = (self.year(at), false, false);
        let to_date = |at: &mut Civil, days: i64| {
            let (y, m, d) = super::calendar::date_of(days);
            (at.year, at.month, at.day) = (y as i32, m, d);
        };
        if self.julian != 0 {
            to_date(at, i64::from(self.julian) - JULIAN_OF_1970);
            (year, month, day) = (true, true, true);
        }
        let is_iso = self.is_iso == Some(true);
        if self.week != 0 && is_iso {
            let monday = days_of_iso_week(i64::from(at.year), 1) + 7 * (i64::from(self.week) - 1);
            // The week's days count from Sunday; its Sunday is the last.
            let of_week = match self.weekday {
                0 => 0,
                ..=1 => 6,
                weekday => i64::from(weekday) - 2,
            };
            to_date(at, monday + of_week);
            (year, month, day) = (true, true, true);
        } else if self.week != 0 {
            self.day_of_year = self.week.wrapping_sub(1).wrapping_mul(7).wrapping_add(1);
        }
        if self.week_of_month != 0 {
            self.day = (self.week_of_month.wrapping_sub(1))
                .wrapping_mul(7)
                .wrapping_add(1);
        }
        if self.day != 0 {
            (at.day, day) = (self.day, true);
        }
        if self.month != 0 {
            (at.month, month) = (self.month, true);
        }
        if self.day_of_year != 0 && (at.month <= 1 || at.day <= 1) {
            if at.year == 0 && self.before_christ == 0 {
                return Err(Error::user(
                    BAD,
                    "cannot calculate day of year without year information",
                ));
            }
            if is_iso {
                let first = days_of_iso_week(i64::from(at.year), 1);
                to_date(at, first - 1 + i64::from(self.day_of_year));
                year = true;
            } else {
                self.set_day_of_year(at);
            }
            (month, day) = (true, true);
        }
        Ok((year || month || day).then_some((year, month, day)))
    }

    /// Month and day from the day of the year, where they are not set.
    fn set_day_of_year(&self, at: &mut Civil) {
        let year = i64::from(at.year);
        let before = |month: i32| match month {
            13 => 365 + i32::from(is_leap(year)),
            _ => (days_of(year, month, 1) - days_of(year, 1, 1)) as i32,
        };
        let month = (1..=12)
            .find(|month| self.day_of_year <= before(month + 1))
            .unwrap_or(13);
        if at.month <= 1 {
            at.month = month;
        }
        if at.day <= 1 {
            at.day = self.day_of_year - before(month);
        }
    }

    /// Sets the year from year, century and era; says whether there is one.
    fn year(&mut self, at: &mut Civil) -> bool {
        let century = if self.before_christ != 0 {
            self.century.wrapping_neg()
        } else {
            self.century
        };
        if self.year != 0 {
            if self.century != 0 && self.year_digits <= 2 {
                let short = self.year % 100;
                at.year = match (short, century >= 0) {
                    (0, true) => century.wrapping_mul(100),
                    (0, false) => century.wrapping_mul(100).wrapping_add(1),
                    (_, true) => (century - 1).wrapping_mul(100).wrapping_add(short),
                    (_, false) => (century + 1).wrapping_mul(100).wrapping_add(1 - short),
                };
            } else {
                at.year = if self.before_christ != 0 {
                    self.year.wrapping_neg()
                } else {
                    self.year
                };
                if at.year < 0 {
                    at.year += 1;
                }
            }
            true
        } else if self.century != 0 {
            at.year = if century >= 0 {
                (century - 1).wrapping_mul(100).wrapping_add(1)
            } else {
                century.wrapping_mul(100).wrapping_add(1)
            };
            true
        } else {
            false
        }
    }
}
