//! `date_trunc` and `date_bin`.
//!
//! In a time zone, days and longer units begin at local midnight, whose offset is looked up anew;
//! hours and shorter ones keep the offset of the moment.

use super::add::{in_range, moment};
use super::calendar::{date_of, days_of, monday_of};
use super::extract::{INTERVAL, TIMESTAMP, TIMESTAMPTZ, not_recognized, not_supported};
use super::failure::{interval_out_of_range, overflow, timestamp_out_of_range};
use super::{DAY, HOUR, Interval, MINUTE, SECOND, Unit, Zone, timestamp_is_finite};
use tidemark_common::{Error, Result};

fn unit_named(field: &str, type_name: &str) -> Result<Unit> {
    Unit::of_interval(field).ok_or_else(|| not_recognized(field, type_name))
}

/// The length of a unit of the clock, in microseconds.
fn clock_unit(unit: Unit) -> Option<i64> {
    Some(match unit {
        Unit::Microsecond => 1,
        Unit::Millisecond => 1000,
        Unit::Second => SECOND,
        Unit::Minute => MINUTE,
        Unit::Hour => HOUR,
        _ => return None,
    })
}

/// The first day of a unit of the calendar.
fn first_day(unit: Unit, days: i64) -> Option<i64> {
    let (year, month, _) = date_of(days);
    let group = |size: i64| {
        if year > 0 {
            (year + size - 1) / size * size - (size - 1)
        } else {
            1 - (size - year) / size * size
        }
    };
    Some(match unit {
        Unit::Day => days,
        Unit::Week => monday_of(days),
        Unit::Month => days_of(year, month, 1),
        Unit::Quarter => days_of(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Year => days_of(year, 1, 1),
        Unit::Decade => days_of(year.div_euclid(10) * 10, 1, 1),
        Unit::Century => days_of(group(100), 1, 1),
        Unit::Millennium => days_of(group(1000), 1, 1),
        _ => return None,
    })
}

/// `date_trunc(field, timestamp)`; infinite timestamps stay.
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that cannot be cut to, `22008`
/// if the beginning is out of range.
pub fn truncate_timestamp(field: &str, micros: i64) -> Result<i64> {
    if !timestamp_is_finite(micros) {
        return Ok(micros);
    }
    let unit = unit_named(field, TIMESTAMP)?;
    truncate(unit, micros, &Zone::UTC)?.ok_or_else(|| not_supported(field, TIMESTAMP))
}

/// `date_trunc(field, timestamptz[, zone])`; infinite timestamps stay.
///
/// Errors: as [`truncate_timestamp`].
pub fn truncate_timestamptz(field: &str, micros: i64, zone: &Zone) -> Result<i64> {
    if !timestamp_is_finite(micros) {
        return Ok(micros);
    }
    let unit = unit_named(field, TIMESTAMPTZ)?;
    truncate(unit, micros, zone)?.ok_or_else(|| not_supported(field, TIMESTAMPTZ))
}

/// [`truncate_timestamptz`] of a known unit (of a `timestamp` with [`Zone::UTC`]); `None` if it
/// cannot be cut to.
///
/// Errors: `22008` if the beginning is out of range.
pub fn truncate(unit: Unit, micros: i64, zone: &Zone) -> Result<Option<i64>> {
    if let Some(length) = clock_unit(unit) {
        let shift = i64::from(zone.offset_at(micros)) * SECOND;
        let local = micros
            .checked_add(shift)
            .ok_or_else(timestamp_out_of_range)?;
        return in_range(Some(local - local.rem_euclid(length) - shift)).map(Some);
    }
    let local = zone.local_of(micros).ok_or_else(timestamp_out_of_range)?;
    match first_day(unit, local.div_euclid(DAY)) {
        Some(days) => moment(days, 0, zone).map(Some),
        None => Ok(None),
    }
}

/// `date_trunc(field, interval)`.
///
/// Errors: `22023` for a field that does not exist, `0A000` for one that cannot be cut to.
pub fn truncate_interval(field: &str, value: Interval) -> Result<Interval> {
    let unit = unit_named(field, INTERVAL)?;
    let months = |size: i32| Interval::new(value.months / size * size, 0, 0);
    Ok(match unit {
        Unit::Millennium => months(12_000),
        Unit::Century => months(1200),
        Unit::Decade => months(120),
        Unit::Year => months(12),
        Unit::Quarter => months(3),
        Unit::Month => months(1),
        Unit::Day => Interval { micros: 0, ..value },
        Unit::Week => {
            return Err(
                not_supported(field, INTERVAL).with_detail("Months usually have fractional weeks.")
            );
        }
        _ => {
            let length = clock_unit(unit).ok_or_else(|| not_supported(field, INTERVAL))?;
            Interval {
                micros: value.micros / length * length,
                ..value
            }
        }
    })
}

/// `date_bin(stride, timestamp, origin)`, of either kind of timestamp: the beginning of the stride
/// that holds it, counted from `origin`.
///
/// Errors: `0A000` for a stride with months, `22008` for one that is not positive or if
/// something is out of range.
pub fn date_bin(stride: Interval, micros: i64, origin: i64) -> Result<i64> {
    if !timestamp_is_finite(micros) {
        return Ok(micros);
    }
    if !timestamp_is_finite(origin) {
        return Err(overflow("origin out of range"));
    }
    if stride.months != 0 {
        return Err(Error::unsupported(
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let length = i64::from(stride.days)
        .checked_mul(DAY)
        .and_then(|days| days.checked_add(stride.micros))
        .ok_or_else(interval_out_of_range)?;
    if length <= 0 {
        return Err(overflow("stride must be greater than zero"));
    }
    let distance = micros
        .checked_sub(origin)
        .ok_or_else(interval_out_of_range)?;
    let rest = distance % length;
    let begin = origin.checked_add(distance - rest);
    in_range(match rest {
        ..0 => begin.and_then(|begin| begin.checked_sub(length)),
        _ => begin,
    })
}
