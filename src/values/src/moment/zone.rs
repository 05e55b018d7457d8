//! Time zones: by name, by abbreviation, by POSIX rule, or a fixed distance from UTC.
//!
//! A local time that a change of offset skips is read with the offset before it; one that occurs
//! twice is the second, as in PostgreSQL. The compiled database has transitions up to 2099; later
//! years take those of a year in 2072..=2099 that has the same calendar, which is what the rules
//! that continue for ever say (except where they follow the moon: Morocco, Palestine).

use super::abbreviation::{Meaning, meaning};
use super::calendar::{date_of, days_of, is_leap, weekday};
use super::failure::{invalid, zone_unknown};
use super::number::leading_i32;
use super::zone_posix::Posix;
use super::{Interval, SECOND};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{OffsetComponents, OffsetName, TZ_VARIANTS, Tz};
use std::sync::{Arc, OnceLock};
use tidemark_common::{Error, Result};

/// A time zone.
#[derive(Clone, Debug)]
pub struct Zone(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// Seconds east of UTC.
    Fixed(i32),
    Named(Tz),
    /// An abbreviation whose meaning changed over the years.
    Abbreviation(&'static str, Tz),
    Posix(Arc<Posix>),
}

/// The database's first year, and the first year after its last.
const YEARS: std::ops::Range<i64> = 1800..2100;
const DAY_SECONDS: i64 = 86_400;

impl Zone {
    /// UTC.
    pub const UTC: Zone = Zone(Kind::Fixed(0));

    /// A fixed distance, in seconds east of UTC.
    pub const fn fixed(seconds_east: i32) -> Zone {
        Zone(Kind::Fixed(seconds_east))
    }

    /// The zone of `AT TIME ZONE 'text'` and of function arguments: an abbreviation, a name of the
    /// database in any case, or a POSIX rule (whose signs are the other way round).
    ///
    /// Errors: `22023` if there is none.
    pub fn find(text: &str) -> Result<Zone> {
        Zone::of_abbreviation(text.as_bytes())
            .or_else(|| Zone::of_name(text))
            .ok_or_else(|| zone_unknown(text))
    }

    /// The zone of a session's `TimeZone`: a name, a POSIX rule, hours east of UTC, or
    /// `INTERVAL 'hours'`.
    ///
    /// Errors: `22023` if there is none.
    pub fn of_session(text: &str) -> Result<Zone> {
        let refused = || {
            invalid(format!(
                "invalid value for parameter \"TimeZone\": \"{text}\""
            ))
        };
        if let Some(seconds) = session_seconds(text, refused)? {
            return if seconds.abs() <= OFFSET_MAX {
                Ok(Zone::fixed(seconds as i32))
            } else {
                Err(refused().with_detail("UTC timezone offset is out of range."))
            };
        }
        Zone::of_name(text).ok_or_else(refused)
    }

    /// What `SHOW TimeZone` answers after this value was set: the name as the database spells it,
    /// or a POSIX rule.
    ///
    /// Errors: as [`Zone::of_session`].
    pub fn session_name(text: &str) -> Result<String> {
        let zone = Zone::of_session(text)?;
        if let Some(tz) = named(text) {
            return Ok(tz.name().to_string());
        }
        let Kind::Fixed(seconds) = zone.0 else {
            return Ok(text.to_ascii_uppercase());
        };
        let (east, west) = if seconds < 0 { ('-', '+') } else { ('+', '-') };
        let seconds = seconds.unsigned_abs();
        let mut clock = format!("{:02}", seconds / 3600);
        if seconds % 3600 != 0 {
            clock += &format!(":{:02}", seconds / 60 % 60);
        }
        if seconds % 60 != 0 {
            clock += &format!(":{:02}", seconds % 60);
        }
        Ok(format!("<{east}{clock}>{west}{clock}"))
    }

    /// The zone of `AT TIME ZONE interval`.
    ///
    /// Errors: `22023` if the interval has months or days.
    pub fn of_interval(interval: Interval) -> Result<Zone> {
        if interval.months != 0 || interval.days != 0 {
            return Err(invalid(format!(
                "interval time zone \"{}\" must not include months or days",
                super::interval_text_of(interval)
            )));
        }
        let seconds = interval.micros / SECOND;
        i32::try_from(seconds)
            .map(Zone::fixed)
            .map_err(|_| super::failure::timestamp_out_of_range())
    }

    /// The zone of `make_timestamptz`: a signed number with PostgreSQL's (not POSIX's) sign, an
    /// abbreviation or a name.
    ///
    /// Errors: `22023`.
    pub fn of_argument(text: &str) -> Result<Zone> {
        use super::failure::Failure;
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(invalid(format!(
                "invalid input syntax for type numeric time zone: \"{text}\""
            ))
            .with_hint("Numeric time zones must have \"-\" or \"+\" as first character."));
        }
        match displacement(text.as_bytes()) {
            Ok(seconds) => Ok(Zone::fixed(seconds)),
            Err(Failure::Displacement) => Err(invalid(format!(
                "numeric time zone \"{text}\" out of range"
            ))),
            Err(_) => Zone::find(text),
        }
    }

    /// The zone of an abbreviation in any case.
    pub(super) fn of_abbreviation(text: &[u8]) -> Option<Zone> {
        let mut lower = [0; 10];
        // Abbreviations are compared by their first ten letters.
        let length = text.len().min(10);
        let lower = &mut lower[..length];
        lower.copy_from_slice(&text[..length]);
        lower.make_ascii_lowercase();
        let (name, meaning) = meaning(lower)?;
        Some(Zone(match meaning {
            Meaning::Fixed(seconds) | Meaning::Summer(seconds) => Kind::Fixed(seconds),
            Meaning::Zone(zone) => Kind::Abbreviation(name, named(zone)?),
        }))
    }

    /// Whether an abbreviation in lower case names a daylight-saving time.
    pub(super) fn is_summer_abbreviation(text: &[u8]) -> bool {
        matches!(
            meaning(&text[..text.len().min(10)]),
            Some((_, Meaning::Summer(_)))
        )
    }

    /// Whether a named zone has had one offset always.
    pub(super) fn never_changes(&self) -> bool {
        match &self.0 {
            Kind::Named(tz) => {
                let first = tz_offset(*tz, i64::MIN).fix();
                (-8..=9).all(|decade| {
                    let at = days_from(1970) + decade * 3653 * DAY_SECONDS;
                    [0, 91, 182, 273]
                        .iter()
                        .all(|day| tz_offset(*tz, at + day * DAY_SECONDS).fix() == first)
                })
            }
            _ => self.constant().is_some(),
        }
    }

    /// The zone of a name of the database or of a POSIX rule.
    pub(super) fn of_name(text: &str) -> Option<Zone> {
        if text.len() > 255 {
            return None;
        }
        let kind = match named(text) {
            Some(tz) => Kind::Named(tz),
            None => Kind::Posix(Arc::new(Posix::parse(text)?)),
        };
        // What never changes needs no table.
        Some(Zone(match kind {
            Kind::Named(Tz::UTC | Tz::Etc__UTC) => Kind::Fixed(0),
            kind => kind,
        }))
    }

    /// Seconds east of UTC at a moment, microseconds since 1970-01-01 UTC.
    #[inline]
    pub fn offset_at(&self, micros: i64) -> i32 {
        match &self.0 {
            Kind::Fixed(seconds) => *seconds,
            kind => kind.offset(micros.div_euclid(SECOND)),
        }
    }

    /// Seconds east of UTC at a local time, microseconds since 1970-01-01 00:00 there.
    #[inline]
    pub fn offset_at_local(&self, micros: i64) -> i32 {
        match &self.0 {
            Kind::Fixed(seconds) => *seconds,
            kind => kind.offset_at_local(micros.div_euclid(SECOND)),
        }
    }

    /// The distance if it never changes, in seconds east of UTC.
    pub fn constant(&self) -> Option<i32> {
        match &self.0 {
            Kind::Fixed(seconds) => Some(*seconds),
            Kind::Posix(rule) => rule.constant(),
            _ => None,
        }
    }

    /// The local time of a moment, as microseconds since 1970-01-01 00:00 there.
    #[inline]
    pub fn local_of(&self, micros: i64) -> Option<i64> {
        micros.checked_add(i64::from(self.offset_at(micros)) * SECOND)
    }

    /// The moment of a local time.
    #[inline]
    pub fn moment_of(&self, local: i64) -> Option<i64> {
        local.checked_sub(i64::from(self.offset_at_local(local)) * SECOND)
    }

    /// The abbreviation in use at a moment, `EST`; numeric zones have `+05`.
    pub fn abbreviation_at(&self, micros: i64) -> String {
        match &self.0 {
            Kind::Named(tz) => {
                let offset = tz_offset(*tz, micros.div_euclid(SECOND));
                match offset.abbreviation() {
                    Some(name) => name.to_string(),
                    None => numeric_abbreviation(offset.fix().local_minus_utc()),
                }
            }
            Kind::Abbreviation(name, _) => name.to_ascii_uppercase(),
            Kind::Posix(rule) => rule.abbreviation_at(micros.div_euclid(SECOND)).to_string(),
            Kind::Fixed(0) => "UTC".to_string(),
            Kind::Fixed(seconds) => numeric_abbreviation(*seconds),
        }
    }
}

/// A zone of the database as it is at a moment.
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// The abbreviation in use.
    pub abbreviation: String,
    /// Seconds east of UTC.
    pub offset: i32,
    /// Whether that is a daylight-saving time.
    pub is_summer: bool,
}

/// Every zone of the database at a moment, microseconds since 1970-01-01 UTC.
pub fn zones_at(micros: i64) -> impl Iterator<Item = Named> {
    TZ_VARIANTS.iter().map(move |tz| {
        let offset = tz_offset(*tz, micros.div_euclid(SECOND));
        Named {
            name: tz.name(),
            abbreviation: Zone(Kind::Named(*tz)).abbreviation_at(micros),
            offset: offset.fix().local_minus_utc(),
            is_summer: !offset.dst_offset().is_zero(),
        }
    })
}

/// Every abbreviation as it is at a moment: its letters, seconds east of UTC, and whether it is of
/// a daylight-saving time.
pub fn abbreviations_at(micros: i64) -> impl Iterator<Item = (String, i32, bool)> {
    super::abbreviation::all().filter_map(move |(name, meaning)| {
        let letters = name.to_ascii_uppercase();
        Some(match meaning {
            Meaning::Fixed(seconds) => (letters, seconds, false),
            Meaning::Summer(seconds) => (letters, seconds, true),
            Meaning::Zone(zone) => {
                let zone = Zone(Kind::Abbreviation(name, named(zone)?));
                (letters, zone.offset_at(micros), false)
            }
        })
    })
}

impl Kind {
    fn offset(&self, seconds: i64) -> i32 {
        match self {
            Kind::Fixed(seconds) => *seconds,
            Kind::Named(tz) => tz_offset(*tz, seconds).fix().local_minus_utc(),
            Kind::Abbreviation(name, tz) => abbreviation_offset(name, *tz, seconds),
            Kind::Posix(rule) => rule.offset_at(seconds),
        }
    }

    fn offset_at_local(&self, local: i64) -> i32 {
        if let Kind::Abbreviation(name, tz) = self {
            let there = Kind::Named(*tz);
            let moment = local - i64::from(there.offset_at_local(local));
            return abbreviation_offset(name, *tz, moment);
        }
        let before = self.offset(local - DAY_SECONDS);
        let after = self.offset(local + DAY_SECONDS);
        if before == after {
            return before;
        }
        let is_after = self.offset(local - i64::from(after)) == after;
        if is_after { after } else { before }
    }
}

/// Seconds east of UTC at most, in a session.
const OFFSET_MAX: f64 = 167.0 * 3600.0;

/// Seconds east of UTC, where a session's zone is a number of hours or an interval.
fn session_seconds(text: &str, refused: impl Fn() -> Error) -> Result<Option<f64>> {
    if let Ok(hours) = text.parse::<f64>() {
        let seconds = (hours * 3600.0).trunc();
        return Ok(Some(if seconds.is_nan() {
            f64::INFINITY
        } else {
            seconds
        }));
    }
    let Some((word, rest)) = text.split_at_checked(8) else {
        return Ok(None);
    };
    if !word.eq_ignore_ascii_case("interval") {
        return Ok(None);
    }
    let quoted = rest.trim_start().strip_prefix('\'');
    let quoted = quoted.and_then(|q| q.strip_suffix('\''));
    let span = super::read_interval(quoted.ok_or_else(&refused)?, super::IntervalFields::All, 6)?;
    let unit = match span {
        span if span.months != 0 => "months",
        span if span.days != 0 => "days",
        span => return Ok(Some((span.micros / SECOND) as f64)),
    };
    Err(refused().with_detail(format!("Cannot specify {unit} in time zone interval.")))
}

/// `+13`, `+0330`.
fn numeric_abbreviation(seconds_east: i32) -> String {
    let mut text = Vec::new();
    super::print::push_offset(&mut text, seconds_east);
    text.retain(|byte| *byte != b':');
    String::from_utf8(text).unwrap_or_default()
}

/// A name of the database, in any case.
fn named(text: &str) -> Option<Tz> {
    static NAMES: OnceLock<Vec<(String, Tz)>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let mut names: Vec<_> = TZ_VARIANTS
            .iter()
            .map(|tz| (tz.name().to_ascii_lowercase(), *tz))
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names
    });
    let mut lower = text.to_ascii_lowercase();
    if lower == "posixrules" {
        lower = "america/new_york".to_string();
    } else if lower == "factory" {
        lower = "utc".to_string();
    }
    let at = names
        .binary_search_by(|(name, _)| name.as_str().cmp(&lower))
        .ok()?;
    Some(names[at].1)
}

/// The offset of a zone at seconds since 1970-01-01 UTC.
fn tz_offset(tz: Tz, seconds: i64) -> <Tz as TimeZone>::Offset {
    /// Seconds of 1800-01-01 and 2100-01-01.
    const FIRST: i64 = days_from(YEARS.start);
    const END: i64 = days_from(YEARS.end);
    let seconds = if seconds < FIRST {
        FIRST
    } else if seconds < END {
        seconds
    } else {
        let days = seconds.div_euclid(DAY_SECONDS);
        let (year, _, _) = date_of(days);
        let (first, leap) = (weekday(days_of(year, 1, 1)), is_leap(year));
        let same = |y: &i64| weekday(days_of(*y, 1, 1)) == first && is_leap(*y) == leap;
        let twin = match tz {
            // Their rule follows the moon and ends in 2087.
            Tz::Africa__Casablanca | Tz::Africa__El_Aaiun => 2099,
            _ => (2072..YEARS.end).find(same).unwrap_or(2099),
        };
        seconds - (days_of(year, 1, 1) - days_of(twin, 1, 1)) * DAY_SECONDS
    };
    let moment = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    tz.offset_from_utc_datetime(&moment.naive_utc())
}

/// Seconds since 1970 of a year's beginning that follows a whole 100 years.
const fn days_from(year: i64) -> i64 {
    let before = year - 1;
    (before * 365 + before / 4 - before / 100 + before / 400 - 719_162) * DAY_SECONDS
}

/// What an abbreviation meant in a zone at a time: its last use up to then, else its next.
fn abbreviation_offset(name: &str, tz: Tz, seconds: i64) -> i32 {
    const STEP: i64 = 30 * DAY_SECONDS;
    const PAST: i64 = days_from(1901);
    const FUTURE: i64 = days_from(2101);
    let used = |at: i64| {
        let offset = tz_offset(tz, at);
        offset
            .abbreviation()
            .is_some_and(|known| known.eq_ignore_ascii_case(name))
            .then(|| offset.fix().local_minus_utc())
    };
    let mut past = seconds.min(FUTURE);
    while past > PAST {
        if let Some(found) = used(past) {
            return found;
        }
        past -= STEP;
    }
    let mut next = seconds.max(PAST);
    while next < FUTURE {
        if let Some(found) = used(next) {
            return found;
        }
        next += STEP;
    }
    tz_offset(tz, seconds).fix().local_minus_utc()
}

/// Reads `+HH`, `+HHMM`, `+HH:MM[:SS]` as seconds east of UTC.
pub(super) fn displacement(text: &[u8]) -> Result<i32, super::failure::Failure> {
    use super::failure::Failure;
    let negative = match text.first() {
        Some(b'+') => false,
        Some(b'-') => true,
        _ => return Err(Failure::Format),
    };
    let part = |text| leading_i32(text).ok_or(Failure::Displacement);
    let (mut hours, mut rest) = part(&text[1..])?;
    let (mut minutes, mut seconds) = (0, 0);
    if let Some((b':', after)) = rest.split_first() {
        (minutes, rest) = part(after)?;
        if let Some((b':', after)) = rest.split_first() {
            (seconds, rest) = part(after)?;
        }
    } else if rest.is_empty() && text.len() > 3 {
        (hours, minutes) = (hours / 100, hours % 100);
    }
    if !(0..=15).contains(&hours) || !(0..60).contains(&minutes) || !(0..60).contains(&seconds) {
        return Err(Failure::Displacement);
    }
    if !rest.is_empty() {
        return Err(Failure::Format);
    }
    let distance = (hours * 60 + minutes) * 60 + seconds;
    Ok(if negative { -distance } else { distance })
}

/// `timestamp AT TIME ZONE zone` and the cast to `timestamptz`: the moment of a local time.
///
/// Errors: `22008` if it is out of range.
pub fn moment_at_zone(local: i64, zone: &Zone) -> Result<i64> {
    shifted(local, zone.moment_of(local))
}

/// `timestamptz AT TIME ZONE zone` and the cast to `timestamp`: the local time of a moment.
///
/// Errors: `22008` if it is out of range.
pub fn local_at_zone(moment: i64, zone: &Zone) -> Result<i64> {
    shifted(moment, zone.local_of(moment))
}

fn shifted(from: i64, to: Option<i64>) -> Result<i64, Error> {
    if !super::timestamp_is_finite(from) {
        return Ok(from);
    }
    super::in_range(to)
}
