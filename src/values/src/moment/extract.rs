//! `extract` and `date_part`: a field of a value as an exact number, with the scale that
//! PostgreSQL's numeric has.

use super::calendar::{JULIAN_OF_1970, date_of, day_of_year, iso_week, weekday};
use super::failure::invalid;
use super::{
    DATE_INFINITY, DAY, HOUR, Interval, MINUTE, SECOND, TIMESTAMP_INFINITY, Unit, Zone,
    date_is_finite, timestamp_is_finite,
};
use tidemark_common::{Error, Result};

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `unscaled / 10^scale`.
    Number {
        /// The digits.
        unscaled: i128,
        /// How many of them follow the point.
        scale: u32,
    },
    /// `Infinity`, of an infinite date or timestamp.
    Infinity,
    /// `-Infinity`, of an infinite date or timestamp.
    MinusInfinity,
}

impl Part {
    fn whole(value: i64) -> Part {
        Part::scaled(i128::from(value), 0)
    }

    fn scaled(unscaled: i128, scale: u32) -> Part {
        Part::Number { unscaled, scale }
    }

    /// The nearest float. (`date_part` rounds in other places: [`date_part_timestamp`].)
    pub fn as_f64(self) -> f64 {
        match self {
            Part::Number { unscaled, scale: 0 } => unscaled as f64,
            Part::Number { unscaled, scale } => {
                format!("{unscaled}e-{scale}").parse().unwrap_or(f64::NAN)
            }
            Part::Infinity => f64::INFINITY,
            Part::MinusInfinity => f64::NEG_INFINITY,
        }
    }
}

impl std::fmt::Display for Part {
    /// As PostgreSQL prints the numeric.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Part::Number { unscaled, scale: 0 } => write!(f, "{unscaled}"),
            Part::Number { unscaled, scale } => {
                let sign = if unscaled < 0 { "-" } else { "" };
                let unit = 10u128.pow(scale);
                let size = unscaled.unsigned_abs();
                let width = scale as usize;
                write!(f, "{sign}{}.{:0width$}", size / unit, size % unit)
            }
            Part::Infinity => f.write_str("Infinity"),
            Part::MinusInfinity => f.write_str("-Infinity"),
        }
    }
}

pub(super) const TIMESTAMP: &str = "timestamp without time zone";
pub(super) const TIMESTAMPTZ: &str = "timestamp with time zone";
pub(super) const INTERVAL: &str = "interval";
const DATE: &str = "date";
const TIME: &str = "time without time zone";

/// PostgreSQL folds a unit's name and cuts it to 63 bytes before it complains.
fn folded(field: &str) -> String {
    let mut end = field.len().min(63);
    while !field.is_char_boundary(end) {
        end -= 1;
    }
    field[..end].to_ascii_lowercase()
}

#[cold]
pub(super) fn not_recognized(field: &str, type_name: &str) -> Error {
    invalid(format!(
        "unit \"{}\" not recognized for type {type_name}",
        folded(field)
    ))
}

#[cold]
pub(super) fn not_supported(field: &str, type_name: &str) -> Error {
    Error::unsupported(format!(
        "unit \"{}\" not supported for type {type_name}",
        folded(field)
    ))
}

/// The refusal of a unit that is not known, or not for the type.
#[cold]
fn refusal(field: &str, type_name: &str) -> Error {
    const DAYS: [&str; 7] = [
        "now",
        "today",
        "tomorrow",
        "yesterday",
        "allballs",
        "infinity",
        "-infinity",
    ];
    let is_special = !matches!(type_name, TIME | INTERVAL)
        && DAYS.iter().any(|word| field.eq_ignore_ascii_case(word));
    if Unit::named(field).is_some() || is_special {
        not_supported(field, type_name)
    } else {
        not_recognized(field, type_name)
    }
}

/// Years counted in groups, without a group 0: centuries and millennia.
fn era(year: i64, size: i64) -> i64 {
    if year > 0 {
        (year + size - 1) / size
    } else {
        -((size - year) / size)
    }
}

/// The fields of a day.
fn date_field(unit: Unit, days: i64) -> Option<i64> {
    let (year, month, day) = date_of(days);
    let without_zero = |year: i64| if year > 0 { year } else { year - 1 };
    Some(match unit {
        Unit::Day => i64::from(day),
        Unit::Month => i64::from(month),
        Unit::Quarter => i64::from((month - 1) / 3 + 1),
        Unit::Week => i64::from(iso_week(days).1),
        Unit::Year => without_zero(year),
        Unit::Decade => year.div_euclid(10),
        Unit::Century => era(year, 100),
        Unit::Millennium => era(year, 1000),
        Unit::IsoYear => without_zero(iso_week(days).0),
        Unit::DayOfWeek => i64::from(weekday(days)),
        Unit::IsoDayOfWeek => i64::from((weekday(days) + 6) % 7 + 1),
        Unit::DayOfYear => i64::from(day_of_year(days)),
        Unit::Julian => days + JULIAN_OF_1970,
        _ => return None,
    })
}

/// The fields of a time of day.
fn time_field(unit: Unit, time: i64) -> Option<Part> {
    let of_minute = time % MINUTE;
    Some(match unit {
        Unit::Microsecond => Part::whole(of_minute),
        Unit::Millisecond => Part::scaled(i128::from(of_minute), 3),
        Unit::Second => Part::scaled(i128::from(of_minute), 6),
        Unit::Minute => Part::whole(time / MINUTE % 60),
        Unit::Hour => Part::whole(time / HOUR),
        _ => return None,
    })
}

/// The Julian day with its fraction, which PostgreSQL divides to at least 16 significant digits.
fn julian(days: i64, time: i64) -> Part {
    // The quotient's scale depends on the base-10000 digits of both numbers.
    const DIVISOR_WEIGHT: i32 = 2;
    const DIVISOR_FIRST: i64 = 864;
    let (mut weight, mut first) = (0, time);
    while first >= 10_000 {
        first /= 10_000;
        weight += 1;
    }
    let mut quotient_weight = weight - DIVISOR_WEIGHT;
    if first <= DIVISOR_FIRST {
        quotient_weight -= 1;
    }
    let scale = (16 - quotient_weight * 4) as u32;
    let unit = 10i128.pow(scale);
    let day = i128::from(DAY);
    let fraction = (i128::from(time) * unit + day / 2) / day;
    Part::scaled(i128::from(days + JULIAN_OF_1970) * unit + fraction, scale)
}

/// The field of an infinite value: infinite if it grows for ever, else NULL.
fn of_infinity(unit: Unit, positive: bool) -> Option<Part> {
    match unit {
        Unit::Year
        | Unit::Decade
        | Unit::Century
        | Unit::Millennium
        | Unit::Julian
        | Unit::IsoYear
        | Unit::Epoch => Some(if positive {
            Part::Infinity
        } else {
            Part::MinusInfinity
        }),
        _ => None,
    }
}

/// `extract(field from date)`; `None` is NULL. (`date_part` of a date is that of its timestamp.)
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that dates lack.
pub fn extract_date(field: &str, date: i32) -> Result<Option<Part>> {
    let unit = Unit::named(field).ok_or_else(|| refusal(field, DATE))?;
    let days = i64::from(date);
    let value = match unit {
        Unit::Epoch => Some(days * (DAY / SECOND)),
        _ => date_field(unit, days),
    }
    .ok_or_else(|| refusal(field, DATE))?;
    if date_is_finite(date) {
        Ok(Some(Part::whole(value)))
    } else {
        Ok(of_infinity(unit, date == DATE_INFINITY))
    }
}

/// `extract(field from time)`.
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that times lack.
pub fn extract_time(field: &str, time: i64) -> Result<Part> {
    let unit = Unit::named(field).ok_or_else(|| refusal(field, TIME))?;
    match unit {
        Unit::Epoch => Ok(Part::scaled(i128::from(time), 6)),
        _ => time_field(unit, time).ok_or_else(|| refusal(field, TIME)),
    }
}

/// `extract(field from timestamp)`; `None` is NULL.
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that timestamps lack.
pub fn extract_timestamp(field: &str, micros: i64) -> Result<Option<Part>> {
    let unit = Unit::named(field).ok_or_else(|| refusal(field, TIMESTAMP))?;
    timestamp_unit(unit, micros, micros).map_err(|_| refusal(field, TIMESTAMP))
}

/// `extract(field from timestamptz)` in a session's zone; `None` is NULL.
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that timestamps lack.
pub fn extract_timestamptz(field: &str, micros: i64, zone: &Zone) -> Result<Option<Part>> {
    let unit = Unit::named(field).ok_or_else(|| refusal(field, TIMESTAMPTZ))?;
    extract_timestamptz_unit(unit, micros, zone).map_err(|_| refusal(field, TIMESTAMPTZ))
}

/// [`extract_timestamp`] of a known unit.
///
/// Errors: `0A000` for one that timestamps lack.
pub fn extract_timestamp_unit(unit: Unit, micros: i64) -> Result<Option<Part>> {
    timestamp_unit(unit, micros, micros).map_err(|_| not_supported(&format!("{unit:?}"), TIMESTAMP))
}

/// [`extract_timestamptz`] of a known unit.
///
/// Errors: `0A000` for one that timestamps lack.
pub fn extract_timestamptz_unit(unit: Unit, micros: i64, zone: &Zone) -> Result<Option<Part>> {
    let lacks = |_| not_supported(&format!("{unit:?}"), TIMESTAMPTZ);
    if !timestamp_is_finite(micros) {
        return timestamp_unit(unit, micros, micros).map_err(lacks);
    }
    let offset = i64::from(zone.offset_at(micros));
    match unit {
        Unit::Timezone => Ok(Some(Part::whole(offset))),
        Unit::TimezoneHour => Ok(Some(Part::whole(offset / 3600))),
        Unit::TimezoneMinute => Ok(Some(Part::whole(offset / 60 % 60))),
        _ => {
            let local = super::in_range(zone.local_of(micros))?;
            timestamp_unit(unit, local, micros).map_err(lacks)
        }
    }
}

/// A type lacks a unit.
struct Lacks;

fn timestamp_unit(unit: Unit, local: i64, micros: i64) -> Result<Option<Part>, Lacks> {
    let (days, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let value = match unit {
        Unit::Timezone | Unit::TimezoneHour | Unit::TimezoneMinute
            if !timestamp_is_finite(micros) =>
        {
            return Ok(None);
        }
        Unit::Epoch => Part::scaled(i128::from(micros), 6),
        Unit::Julian => julian(days, time),
        _ => match time_field(unit, time) {
            Some(part) => part,
            None => Part::whole(date_field(unit, days).ok_or(Lacks)?),
        },
    };
    Ok(if timestamp_is_finite(micros) {
        Some(value)
    } else {
        of_infinity(unit, micros == TIMESTAMP_INFINITY)
    })
}

/// `extract(field from interval)`.
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that intervals lack.
pub fn extract_interval(field: &str, value: Interval) -> Result<Part> {
    let unit = Unit::named(field).ok_or_else(|| refusal(field, INTERVAL))?;
    let (years, months) = (i64::from(value.months / 12), i64::from(value.months % 12));
    let whole = match unit {
        Unit::Epoch => return Ok(interval_epoch(value)),
        Unit::Day => i64::from(value.days),
        Unit::Month => months,
        Unit::Quarter => months / 3 + 1,
        Unit::Year => years,
        Unit::Decade => years / 10,
        Unit::Century => years / 100,
        Unit::Millennium => years / 1000,
        _ => return time_field(unit, value.micros).ok_or_else(|| refusal(field, INTERVAL)),
    };
    Ok(Part::whole(whole))
}

/// Seconds, with years of 365.25 days and months of 30.
fn interval_epoch(value: Interval) -> Part {
    let quarter_days = 1461 * i128::from(value.months / 12)
        + 120 * i128::from(value.months % 12)
        + 4 * i128::from(value.days);
    let micros = quarter_days * i128::from(DAY / 4) + i128::from(value.micros);
    Part::scaled(micros, 6)
}

/// Seconds or milliseconds of a minute as `date_part` adds them up.
fn float_of_clock(unit: Unit, time: i64) -> Option<f64> {
    let (seconds, micros) = ((time / SECOND % 60) as f64, (time % SECOND) as f64);
    match unit {
        Unit::Second => Some(seconds + micros / 1e6),
        Unit::Millisecond => Some(seconds * 1000.0 + micros / 1000.0),
        _ => None,
    }
}

fn float_of_timestamp(field: &str, part: Option<Part>, local: i64, micros: i64) -> Option<f64> {
    let part = part?;
    let unit = Unit::named(field)?;
    if !matches!(part, Part::Number { .. }) {
        return Some(part.as_f64());
    }
    let time = local.rem_euclid(DAY);
    Some(match unit {
        Unit::Epoch => micros as f64 / 1e6,
        Unit::Julian => {
            let day = (local.div_euclid(DAY) + JULIAN_OF_1970) as f64;
            day + ((time / SECOND) as f64 + (time % SECOND) as f64 / 1e6) / 86_400.0
        }
        _ => float_of_clock(unit, time).unwrap_or_else(|| part.as_f64()),
    })
}

/// `date_part(field, timestamp)`, and of a date by its timestamp; `None` is NULL.
///
/// Errors: as [`extract_timestamp`].
pub fn date_part_timestamp(field: &str, micros: i64) -> Result<Option<f64>> {
    let part = extract_timestamp(field, micros)?;
    Ok(float_of_timestamp(field, part, micros, micros))
}

/// `date_part(field, timestamptz)` in a session's zone; `None` is NULL.
///
/// Errors: as [`extract_timestamptz`].
pub fn date_part_timestamptz(field: &str, micros: i64, zone: &Zone) -> Result<Option<f64>> {
    let part = extract_timestamptz(field, micros, zone)?;
    let local = zone.local_of(micros).unwrap_or(micros);
    Ok(float_of_timestamp(field, part, local, micros))
}

/// `date_part(field, time)`.
///
/// Errors: as [`extract_time`].
pub fn date_part_time(field: &str, time: i64) -> Result<f64> {
    let part = extract_time(field, time)?;
    Ok(match Unit::named(field) {
        Some(Unit::Epoch) => time as f64 / 1e6,
        unit => unit
            .and_then(|unit| float_of_clock(unit, time))
            .unwrap_or_else(|| part.as_f64()),
    })
}

/// `date_part(field, interval)`.
///
/// Errors: as [`extract_interval`].
pub fn date_part_interval(field: &str, value: Interval) -> Result<f64> {
    let part = extract_interval(field, value)?;
    Ok(match Unit::named(field) {
        Some(Unit::Epoch) => {
            value.micros as f64 / 1e6
                + 365.25 * 86_400.0 * f64::from(value.months / 12)
                + 30.0 * 86_400.0 * f64::from(value.months % 12)
                + 86_400.0 * f64::from(value.days)
        }
        unit => unit
            .and_then(|unit| float_of_clock(unit, value.micros))
            .unwrap_or_else(|| part.as_f64()),
    })
}
