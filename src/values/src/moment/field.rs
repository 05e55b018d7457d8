//! What the fields of a date or a time mean: PostgreSQL's rules for numbers that stand alone
//! (`20240131`, `101112`, `1/8/1999`, `1999.008`), for dates with delimiters, for times with
//! colons.
//!
//! A number takes its meaning from what has been read before it; [`Seen`] is the set of that.

use super::calendar::{Civil, date_of, days_in_month, days_of};
use super::failure::Failure;
use super::number::{digits, fraction_micros, leading_i32};
use super::word::{Word, word};
use super::{DAY, SECOND};

/// Which parts of a moment have been read, as bits.
pub(super) type Seen = u32;

pub(super) const MONTH: Seen = 1 << 1;
pub(super) const YEAR: Seen = 1 << 2;
pub(super) const DAY_OF_MONTH: Seen = 1 << 3;
pub(super) const ZONE: Seen = 1 << 5;
pub(super) const SUMMER_ZONE: Seen = 1 << 6;
pub(super) const CHANGING_ZONE: Seen = 1 << 7;
pub(super) const HALF: Seen = 1 << 9;
pub(super) const HOURS: Seen = 1 << 10;
pub(super) const MINUTES: Seen = 1 << 11;
pub(super) const SECONDS: Seen = 1 << 12;
pub(super) const FRACTION: Seen = 1 << 13;
pub(super) const DAY_OF_YEAR: Seen = 1 << 15;
pub(super) const WEEKDAY: Seen = 1 << 16;
pub(super) const ERA: Seen = 1 << 18;
pub(super) const SPECIAL: Seen = 1 << 0;
pub(super) const SUMMER: Seen = 1 << 28;
pub(super) const DATE: Seen = YEAR | MONTH | DAY_OF_MONTH;
pub(super) const TIME: Seen = HOURS | MINUTES | SECONDS | FRACTION;

/// What a field was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compact {
    Date,
    Time,
}

/// A moment while it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Draft {
    pub(super) at: Civil,
    pub(super) day_of_year: i32,
    pub(super) seen: Seen,
    /// The year has one or two digits.
    pub(super) short_year: bool,
    pub(super) text_month: bool,
    pub(super) julian: bool,
    pub(super) before_christ: bool,
    pub(super) half: Option<bool>,
}

impl Draft {
    /// Notes that a field gave `parts`, which nothing may have given before.
    pub(super) fn note(&mut self, parts: Seen) -> Result<(), Failure> {
        if self.seen & parts != 0 {
            return Err(Failure::Format);
        }
        self.seen |= parts;
        Ok(())
    }

    pub(super) fn set_days(&mut self, days: i64) {
        let (year, month, day) = date_of(days);
        (self.at.year, self.at.month, self.at.day) = (year as i32, month, day);
    }

    pub(super) fn set_time(&mut self, micros: i64) {
        let time = Civil::at(0, micros.rem_euclid(DAY));
        self.at = Civil {
            year: self.at.year,
            month: self.at.month,
            day: self.at.day,
            ..time
        };
    }

    /// A date with delimiters, `2024-01-31`, `1/8/1999`, `Jan-8-99`; returns the parts it gives.
    pub(super) fn date(&mut self, text: &[u8], mut seen: Seen) -> Result<Seen, Failure> {
        let mut parts = [&text[..0]; 25];
        let mut count = 0;
        let mut rest = text;
        while !rest.is_empty() && count < parts.len() {
            let start = rest.iter().position(u8::is_ascii_alphanumeric);
            rest = &rest[start.ok_or(Failure::Format)?..];
            let is_digit = rest[0].is_ascii_digit();
            let length = rest
                .iter()
                .position(|b| {
                    if is_digit {
                        !b.is_ascii_digit()
                    } else {
                        !b.is_ascii_alphabetic()
                    }
                })
                .unwrap_or(rest.len());
            parts[count] = &rest[..length];
            count += 1;
            // The one byte that ends a part is its delimiter, whatever it is.
            rest = rest.get(length + 1..).unwrap_or_default();
        }
        let mut given = 0;
        let mut text_month = false;
        for part in parts[..count]
            .iter_mut()
            .filter(|p| p[0].is_ascii_alphabetic())
        {
            match word(part) {
                Some(Word::Ignored) => continue,
                Some(Word::Month(month)) => {
                    self.at.month = month;
                    text_month = true;
                }
                _ => return Err(Failure::Format),
            }
            if seen & MONTH != 0 {
                return Err(Failure::Format);
            }
            seen |= MONTH;
            given |= MONTH;
            *part = &[];
        }
        for part in parts[..count].iter().filter(|p| !p.is_empty()) {
            let part_given = self.number(part, text_month, seen)?;
            if seen & part_given != 0 {
                return Err(Failure::Format);
            }
            seen |= part_given;
            given |= part_given;
        }
        if seen & !(DAY_OF_YEAR | ZONE) != DATE {
            return Err(Failure::Format);
        }
        Ok(given)
    }

    /// A number alone; returns the parts it gives.
    pub(super) fn number(
        &mut self,
        text: &[u8],
        text_month: bool,
        seen: Seen,
    ) -> Result<Seen, Failure> {
        let (value, rest) = leading_i32(text).ok_or(Failure::Field)?;
        if rest.len() == text.len() {
            return Err(Failure::Format);
        }
        if rest.first() == Some(&b'.') {
            if text.len() - rest.len() > 2 {
                return Ok(self.compact(text, seen | DATE)?.0);
            }
            self.at.micros = fraction_micros(rest)?;
        } else if !rest.is_empty() {
            return Err(Failure::Format);
        }
        let length = text.len();
        if length == 3 && seen & DATE == YEAR && (1..=366).contains(&value) {
            self.day_of_year = value;
            return Ok(DAY_OF_YEAR | MONTH | DAY_OF_MONTH);
        }
        let given = match seen & DATE {
            0 if length >= 3 => YEAR,
            0 => MONTH,
            YEAR => MONTH,
            MONTH if text_month && length >= 3 => YEAR,
            MONTH => DAY_OF_MONTH,
            parts if parts == YEAR | MONTH => {
                if text_month && length >= 3 && self.short_year {
                    // What was taken for the year was the day.
                    self.at.day = self.at.year;
                    self.at.year = value;
                    self.short_year = false;
                    return Ok(DAY_OF_MONTH);
                }
                DAY_OF_MONTH
            }
            DAY_OF_MONTH => MONTH,
            parts if parts == MONTH | DAY_OF_MONTH => YEAR,
            DATE => return Ok(self.compact(text, seen)?.0),
            _ => return Err(Failure::Format),
        };
        match given {
            YEAR => {
                self.at.year = value;
                self.short_year = length <= 2;
            }
            MONTH => self.at.month = value,
            _ => self.at.day = value,
        }
        Ok(given)
    }

    /// Digits run together: `20240131` as long as there is no date, else `101112` or `1011`.
    pub(super) fn compact(&mut self, text: &[u8], seen: Seen) -> Result<(Seen, Compact), Failure> {
        let mut text = text;
        if let Some(point) = text.iter().position(|b| *b == b'.') {
            self.at.micros = fraction_micros(&text[point..])?;
            text = &text[..point];
        } else if seen & DATE != DATE && text.len() >= 6 {
            let (year, rest) = text.split_at(text.len() - 4);
            self.at.year = digits(year);
            self.at.month = digits(&rest[..2]);
            self.at.day = digits(&rest[2..]);
            // A longer year keeps what an earlier part said.
            self.short_year |= year.len() == 2;
            return Ok((DATE, Compact::Date));
        }
        if seen & TIME != TIME && matches!(text.len(), 4 | 6) {
            self.at.hour = digits(&text[..2]);
            self.at.minute = digits(&text[2..4]);
            self.at.second = digits(&text[4..]);
            return Ok((TIME, Compact::Time));
        }
        Err(Failure::Format)
    }

    /// A time with colons.
    pub(super) fn time(&mut self, text: &[u8]) -> Result<Seen, Failure> {
        let (hour, minute, second, micros) = clock(text, false)?;
        self.at.hour = i32::try_from(hour).map_err(|_| Failure::Field)?;
        (self.at.minute, self.at.second, self.at.micros) = (minute, second, micros);
        Ok(TIME)
    }

    /// Whether the time is later than 24:00:00 or has a field too large.
    pub(super) fn time_overflows(&self) -> bool {
        let Civil {
            hour,
            minute,
            second,
            micros,
            ..
        } = self.at;
        !(0..=24).contains(&hour)
            || !(0..60).contains(&minute)
            || !(0..=60).contains(&second)
            || !(0..=SECOND as i32).contains(&micros)
            || self.at.time() > DAY
    }

    /// Era, century and the limits of month and day, when everything has been read.
    pub(super) fn finish_date(&mut self) -> Result<(), Failure> {
        let seen = self.seen;
        let at = &mut self.at;
        if seen & YEAR != 0 && !self.julian {
            if self.before_christ {
                if at.year <= 0 {
                    return Err(Failure::Field);
                }
                at.year = 1 - at.year;
            } else if self.short_year {
                match at.year {
                    ..0 => return Err(Failure::Field),
                    0..70 => at.year += 2000,
                    70..100 => at.year += 1900,
                    _ => {}
                }
            } else if at.year <= 0 {
                return Err(Failure::Field);
            }
        }
        if seen & DAY_OF_YEAR != 0 {
            let days = days_of(i64::from(at.year), 1, 1) + i64::from(self.day_of_year) - 1;
            self.set_days(days);
        }
        let at = &self.at;
        if seen & MONTH != 0 && !(1..=12).contains(&at.month)
            || seen & DAY_OF_MONTH != 0 && !(1..=31).contains(&at.day)
        {
            return Err(Failure::MonthOrDay);
        }
        if seen & DATE == DATE && at.day > days_in_month(i64::from(at.year), at.month) {
            return Err(Failure::Field);
        }
        Ok(())
    }

    /// Applies `am` and `pm`.
    pub(super) fn finish_half(&mut self) -> Result<(), Failure> {
        let Some(is_after_noon) = self.half else {
            return Ok(());
        };
        match (is_after_noon, self.at.hour) {
            (_, 13..) => return Err(Failure::Field),
            (false, 12) => self.at.hour = 0,
            (true, 12) => {}
            (true, _) => self.at.hour += 12,
            _ => {}
        }
        Ok(())
    }
}

/// Hour, minute, second and microseconds of `h:m[:s[.f]]`. Two fields are minute and second if the
/// second has a fraction, or always if `ends_in_seconds`.
pub(super) fn clock(text: &[u8], ends_in_seconds: bool) -> Result<(i64, i32, i32, i32), Failure> {
    let (mut hour, rest) = super::number::leading_i64(text).ok_or(Failure::Field)?;
    let rest = rest.strip_prefix(b":").ok_or(Failure::Format)?;
    let (mut minute, rest) = leading_i32(rest).ok_or(Failure::Field)?;
    let (mut second, mut micros) = (0, 0);
    let mut shift = ends_in_seconds;
    match rest.first() {
        None => {}
        Some(b'.') => {
            micros = fraction_micros(rest)?;
            shift = true;
        }
        Some(b':') => {
            shift = false;
            let (value, rest) = leading_i32(&rest[1..]).ok_or(Failure::Field)?;
            second = value;
            match rest.first() {
                None => {}
                Some(b'.') => micros = fraction_micros(rest)?,
                Some(_) => return Err(Failure::Format),
            }
        }
        Some(_) => return Err(Failure::Format),
    }
    if shift {
        let whole = i32::try_from(hour).map_err(|_| Failure::Field)?;
        (hour, minute, second) = (0, whole, minute);
    }
    if hour < 0
        || !(0..60).contains(&minute)
        || !(0..=60).contains(&second)
        || !(0..=SECOND as i32).contains(&micros)
    {
        return Err(Failure::Field);
    }
    Ok((hour, minute, second, micros))
}
