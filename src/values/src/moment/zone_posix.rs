//! Time zones by POSIX rule: `EST5EDT,M3.2.0,M11.1.0`. The offset counts westwards: `UTC+3` is
//! three hours behind UTC. A summer time without dates has those of the United States.

use super::calendar::{date_of, days_in_month, days_of, is_leap, weekday};
use super::number::leading_i32;

/// A rule.
#[derive(Debug)]
pub(super) struct Posix {
    standard: (String, i32),
    summer: Option<Summer>,
}

#[derive(Debug)]
struct Summer {
    name: String,
    /// Seconds east of UTC.
    offset: i32,
    start: Change,
    end: Change,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    day: DayRule,
    /// Seconds after local midnight.
    time: i32,
}

#[derive(Clone, Copy, Debug)]
enum DayRule {
    /// 1 to 365; the 29th of February is never counted.
    Julian(i32),
    /// 0 to 365.
    Counted(i32),
    /// Month, week (5 is the last) and weekday.
    Month(i32, i32, i32),
}

const DEFAULT_RULE: &str = ",M3.2.0,M11.1.0";
const DAY_SECONDS: i64 = 86_400;

impl Posix {
    /// Reads a rule.
    pub(super) fn parse(text: &str) -> Option<Posix> {
        let (name, rest) = zone_name(text)?;
        if rest.is_empty() {
            return None;
        }
        let (west, rest) = seconds(rest, true)?;
        let standard = (name.to_string(), -west);
        if rest.is_empty() {
            return Some(Posix {
                standard,
                summer: None,
            });
        }
        let (name, rest) = zone_name(rest)?;
        if name.is_empty() {
            return None;
        }
        let (offset, rest) = match rest.as_bytes().first() {
            None | Some(b',' | b';') => (standard.1 + 3600, rest),
            Some(_) => {
                let (west, rest) = seconds(rest, true)?;
                (-west, rest)
            }
        };
        let rule = if rest.is_empty() { DEFAULT_RULE } else { rest };
        let rule = rule.strip_prefix([',', ';'])?;
        let (start, rest) = change(rule)?;
        let (end, rest) = change(rest.strip_prefix(',')?)?;
        rest.is_empty().then(|| Posix {
            standard,
            summer: Some(Summer {
                name: name.to_string(),
                offset,
                start,
                end,
            }),
        })
    }

    /// The offset if it never changes.
    pub(super) fn constant(&self) -> Option<i32> {
        self.summer.is_none().then_some(self.standard.1)
    }

    /// Seconds east of UTC at seconds since 1970 UTC.
    pub(super) fn offset_at(&self, at: i64) -> i32 {
        self.summer_at(at)
            .map_or(self.standard.1, |summer| summer.offset)
    }

    /// The abbreviation at seconds since 1970 UTC.
    pub(super) fn abbreviation_at(&self, at: i64) -> &str {
        self.summer_at(at)
            .map_or(&self.standard.0, |summer| &summer.name)
    }

    fn summer_at(&self, at: i64) -> Option<&Summer> {
        let summer = self.summer.as_ref()?;
        let local = at + i64::from(self.standard.1);
        let (year, _, _) = date_of(local.div_euclid(DAY_SECONDS));
        let start = summer.start.seconds(year) - i64::from(self.standard.1);
        let end = summer.end.seconds(year) - i64::from(summer.offset);
        let is_summer = if start < end {
            (start..end).contains(&at)
        } else {
            !(end..start).contains(&at)
        };
        is_summer.then_some(summer)
    }
}

impl Change {
    /// Seconds since 1970 of the local time.
    fn seconds(&self, year: i64) -> i64 {
        let first = days_of(year, 1, 1);
        let day = match self.day {
            DayRule::Julian(n) => first + i64::from(n - 1) + i64::from(is_leap(year) && n >= 60),
            DayRule::Counted(n) => first + i64::from(n),
            DayRule::Month(month, week, day) => {
                let begin = days_of(year, month, 1);
                let mut of_month = (day - weekday(begin)).rem_euclid(7) + 7 * (week - 1);
                if of_month >= days_in_month(year, month) {
                    of_month -= 7;
                }
                begin + i64::from(of_month)
            }
        };
        day * DAY_SECONDS + i64::from(self.time)
    }
}

/// The name, maybe empty, and what follows.
fn zone_name(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('<') {
        return quoted.split_once('>');
    }
    let end = text
        .find(|c: char| c.is_ascii_digit() || matches!(c, ',' | '-' | '+'))
        .unwrap_or(text.len());
    Some(text.split_at(end))
}

/// Reads digits up to a limit.
fn number(text: &str, range: std::ops::RangeInclusive<i32>) -> Option<(i32, &str)> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (value, rest) = leading_i32(text.as_bytes())?;
    range
        .contains(&value)
        .then(|| (value, &text[text.len() - rest.len()..]))
}

/// Reads `h[:m[:s]]`, with a sign if `signed`.
fn seconds(text: &str, signed: bool) -> Option<(i32, &str)> {
    let (sign, text) = match text.as_bytes().first() {
        Some(b'-') if signed => (-1, &text[1..]),
        Some(b'+') if signed => (1, &text[1..]),
        _ => (1, text),
    };
    let (hours, mut rest) = number(text, 0..=167)?;
    let mut value = hours * 3600;
    if let Some(after) = rest.strip_prefix(':') {
        let (minutes, after) = number(after, 0..=59)?;
        (value, rest) = (value + minutes * 60, after);
        if let Some(after) = rest.strip_prefix(':') {
            let (seconds, after) = number(after, 0..=60)?;
            (value, rest) = (value + seconds, after);
        }
    }
    Some((sign * value, rest))
}

fn change(text: &str) -> Option<(Change, &str)> {
    let (day, rest) = match text.as_bytes().first()? {
        b'J' => {
            let (n, rest) = number(&text[1..], 1..=365)?;
            (DayRule::Julian(n), rest)
        }
        b'M' => {
            let (month, rest) = number(&text[1..], 1..=12)?;
            let (week, rest) = number(rest.strip_prefix('.')?, 1..=5)?;
            let (day, rest) = number(rest.strip_prefix('.')?, 0..=6)?;
            (DayRule::Month(month, week, day), rest)
        }
        _ => {
            let (n, rest) = number(text, 0..=365)?;
            (DayRule::Counted(n), rest)
        }
    };
    let (time, rest) = match rest.strip_prefix('/') {
        Some(after) => seconds(after, true)?,
        None => (7200, rest),
    };
    Some((Change { day, time }, rest))
}
