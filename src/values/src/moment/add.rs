//! Moments and intervals together: sums, differences, `age`, casts between the types, `OVERLAPS`.
//!
//! An interval is added in three steps, months (clipped to the month's end), days, microseconds. In
//! a time zone the first two are steps of the local calendar and the third is elapsed time.

use super::calendar::{Civil, date_of, days_in_month, days_of};
use super::failure::{date_out_of_range, overflow, timestamp_out_of_range};
use super::{
    DATE_INFINITY, DATE_MAX, DATE_MIN, DATE_MINUS_INFINITY, DAY, Interval, TIMESTAMP_INFINITY,
    TIMESTAMP_MAX, TIMESTAMP_MIN, TIMESTAMP_MINUS_INFINITY, Zone, date_is_finite,
    timestamp_is_finite,
};
use std::cmp::Ordering;
use tidemark_common::Result;

/// A finite timestamp within PostgreSQL's limits.
pub(super) fn in_range(micros: Option<i64>) -> Result<i64> {
    micros
        .filter(|micros| (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(micros))
        .ok_or_else(timestamp_out_of_range)
}

/// `date - date`, in days.
///
/// Errors: `22008` if one is infinite.
pub fn date_minus_date(a: i32, b: i32) -> Result<i32> {
    if !date_is_finite(a) || !date_is_finite(b) {
        return Err(overflow("cannot subtract infinite dates"));
    }
    Ok(a.wrapping_sub(b))
}

/// `date + days`; infinite dates stay.
///
/// Errors: `22008` if it is out of range.
pub fn date_plus_days(date: i32, days: i32) -> Result<i32> {
    if !date_is_finite(date) {
        return Ok(date);
    }
    date.checked_add(days)
        .filter(|sum| (DATE_MIN..=DATE_MAX).contains(sum))
        .ok_or_else(date_out_of_range)
}

/// `date - days`; infinite dates stay.
///
/// Errors: `22008` if it is out of range.
pub fn date_minus_days(date: i32, days: i32) -> Result<i32> {
    if !date_is_finite(date) {
        return Ok(date);
    }
    date.checked_sub(days)
        .filter(|sum| (DATE_MIN..=DATE_MAX).contains(sum))
        .ok_or_else(date_out_of_range)
}

/// The cast of a date to a timestamp: its midnight.
///
/// Errors: `22008` if timestamps do not reach it.
pub fn date_to_timestamp(date: i32) -> Result<i64> {
    match date {
        DATE_INFINITY => Ok(TIMESTAMP_INFINITY),
        DATE_MINUS_INFINITY => Ok(TIMESTAMP_MINUS_INFINITY),
        _ => i64::from(date)
            .checked_mul(DAY)
            .ok_or_else(|| overflow("date out of range for timestamp")),
    }
}

/// The cast of a date to a timestamp with time zone: midnight there.
///
/// Errors: `22008` if timestamps do not reach it.
pub fn date_to_timestamptz(date: i32, zone: &Zone) -> Result<i64> {
    let local = date_to_timestamp(date)?;
    if !timestamp_is_finite(local) {
        return Ok(local);
    }
    zone.moment_of(local)
        .filter(|micros| (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(micros))
        .ok_or_else(|| overflow("date out of range for timestamp"))
}

/// The cast of a timestamp to its date; of one with time zone, after [`super::local_at_zone`].
pub fn timestamp_to_date(micros: i64) -> i32 {
    match micros {
        TIMESTAMP_INFINITY => DATE_INFINITY,
        TIMESTAMP_MINUS_INFINITY => DATE_MINUS_INFINITY,
        _ => micros.div_euclid(DAY) as i32,
    }
}

/// The cast of a timestamp to its time of day; `None` for infinite ones.
pub fn timestamp_to_time(micros: i64) -> Option<i64> {
    timestamp_is_finite(micros).then(|| micros.rem_euclid(DAY))
}

/// `date + time`.
///
/// Errors: `22008` if it is out of range.
pub fn date_plus_time(date: i32, time: i64) -> Result<i64> {
    let midnight = date_to_timestamp(date)?;
    if !timestamp_is_finite(midnight) {
        return Ok(midnight);
    }
    in_range(midnight.checked_add(time))
}

/// `time + interval`, around midnight.
pub fn time_plus_interval(time: i64, span: Interval) -> i64 {
    (time + span.micros % DAY).rem_euclid(DAY)
}

/// `time - interval`, around midnight.
pub fn time_minus_interval(time: i64, span: Interval) -> i64 {
    (time - span.micros % DAY).rem_euclid(DAY)
}

/// `time - time`.
pub fn time_minus_time(a: i64, b: i64) -> Interval {
    Interval::new(0, 0, a - b)
}

/// `timestamp - timestamp`, of either kind: days and microseconds of one sign.
///
/// Errors: `22008` if one is infinite or the difference does not fit.
pub fn timestamp_minus(a: i64, b: i64) -> Result<Interval> {
    if !timestamp_is_finite(a) || !timestamp_is_finite(b) {
        return Err(overflow("cannot subtract infinite timestamps"));
    }
    let micros = a
        .checked_sub(b)
        .ok_or_else(super::failure::interval_out_of_range)?;
    Interval::new(0, 0, micros).justify_hours()
}

/// `timestamp + interval`; infinite timestamps stay.
///
/// Errors: `22008` if it is out of range.
pub fn timestamp_plus(micros: i64, span: Interval) -> Result<i64> {
    plus(micros, span, &Zone::UTC)
}

/// `timestamp - interval`; infinite timestamps stay.
///
/// Errors: `22008` if it is out of range.
pub fn timestamp_minus_interval(micros: i64, span: Interval) -> Result<i64> {
    plus(micros, flipped(span), &Zone::UTC)
}

/// `timestamptz + interval` in a session's zone; infinite timestamps stay.
///
/// Errors: `22008` if it is out of range.
pub fn timestamptz_plus(micros: i64, span: Interval, zone: &Zone) -> Result<i64> {
    plus(micros, span, zone)
}

/// `timestamptz - interval` in a session's zone; infinite timestamps stay.
///
/// Errors: `22008` if it is out of range.
pub fn timestamptz_minus_interval(micros: i64, span: Interval, zone: &Zone) -> Result<i64> {
    plus(micros, flipped(span), zone)
}

fn flipped(span: Interval) -> Interval {
    Interval {
        months: span.months.wrapping_neg(),
        days: span.days.wrapping_neg(),
        micros: span.micros.wrapping_neg(),
    }
}

fn plus(micros: i64, span: Interval, zone: &Zone) -> Result<i64> {
    if !timestamp_is_finite(micros) {
        return Ok(micros);
    }
    let mut at = micros;
    if span.months != 0 {
        let local = zone.local_of(at).ok_or_else(timestamp_out_of_range)?;
        let days = plus_months(local.div_euclid(DAY), i64::from(span.months));
        at = moment(days, local.rem_euclid(DAY), zone)?;
    }
    if span.days != 0 {
        let local = zone.local_of(at).ok_or_else(timestamp_out_of_range)?;
        let days = local.div_euclid(DAY) + i64::from(span.days);
        at = moment(days, local.rem_euclid(DAY), zone)?;
    }
    in_range(at.checked_add(span.micros))
}

/// The first timestamp from which on `timestamp - span`, in UTC and as far as it has ever come, is
/// not before this one; infinite timestamps stay.
///
/// Errors: `22008` if it is out of range.
pub fn timestamp_reached(micros: i64, span: Interval) -> Result<i64> {
    let fixed = Interval { months: 0, ..span };
    let at = plus(micros, fixed, &Zone::UTC)?;
    if span.months == 0 || !timestamp_is_finite(micros) {
        return Ok(at);
    }
    let (year, month, day) = date_of(at.div_euclid(DAY));
    let total = year * 12 + i64::from(month) - 1 + i64::from(span.months);
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as i32 + 1);
    let last = days_in_month(year, month);
    if day <= last {
        return moment(days_of(year, month, day), at.rem_euclid(DAY), &Zone::UTC);
    }
    // No day of the month has that one so many months before it.
    moment(days_of(year, month, last) + 1, 0, &Zone::UTC)
}

/// The moment of a local day and time of day.
pub(super) fn moment(days: i64, time: i64, zone: &Zone) -> Result<i64> {
    let local = days
        .checked_mul(DAY)
        .and_then(|micros| micros.checked_add(time));
    in_range(local.and_then(|local| zone.moment_of(local)))
}

/// A day so many months later, clipped to the end of its month.
pub(super) fn plus_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = date_of(days);
    let total = year * 12 + i64::from(month) - 1 + months;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as i32 + 1);
    days_of(year, month, day.min(days_in_month(year, month)))
}

/// `age(a, b)` of timestamps: years, months, days and time between them by the calendar.
///
/// Errors: `22008` if one is infinite.
pub fn timestamp_age(a: i64, b: i64) -> Result<Interval> {
    age(a, b, a.cmp(&b))
}

/// `age(a, b)` of timestamps with time zone, by the session's local times.
///
/// Errors: `22008` if one is infinite.
pub fn timestamptz_age(a: i64, b: i64, zone: &Zone) -> Result<Interval> {
    age(
        super::local_at_zone(a, zone)?,
        super::local_at_zone(b, zone)?,
        a.cmp(&b),
    )
}

fn age(a: i64, b: i64, order: Ordering) -> Result<Interval> {
    if !timestamp_is_finite(a) || !timestamp_is_finite(b) {
        return Err(timestamp_out_of_range());
    }
    let (first, second) = (Civil::of(a), Civil::of(b));
    let (late, early, sign) = match order {
        Ordering::Less => (second, first, -1),
        _ => (first, second, 1),
    };
    let mut micros = late.time() - early.time();
    let mut days = late.day - early.day;
    let mut months = (late.year - early.year) * 12 + late.month - early.month;
    while micros < 0 {
        micros += DAY;
        days -= 1;
    }
    while days < 0 {
        // The month that is borrowed from is the earlier moment's.
        days += days_in_month(i64::from(early.year), early.month);
        months -= 1;
    }
    Ok(Interval::new(
        sign * months,
        sign * days,
        i64::from(sign) * micros,
    ))
}

/// `(a1, a2) OVERLAPS (b1, b2)`: half-open periods, whose ends may be in either order; a period
/// without length is its moment. NULLs as in PostgreSQL.
pub fn overlaps<T: Ord + Copy>(
    a: (Option<T>, Option<T>),
    b: (Option<T>, Option<T>),
) -> Option<bool> {
    // The earlier end first; one that is unknown second.
    let ordered = |(start, end): (Option<T>, Option<T>)| match (start, end) {
        (None, None) => None,
        (None, Some(end)) => Some((end, None)),
        (Some(start), Some(end)) if start > end => Some((end, Some(start))),
        (Some(start), end) => Some((start, end)),
    };
    let ((a_start, a_end), (b_start, b_end)) = (ordered(a)?, ordered(b)?);
    let within = |end: Option<T>, other: T, other_end: Option<T>| match end {
        None => None,
        Some(end) if other < end => Some(true),
        // A second unknown end makes even "no" unknown.
        Some(_) => other_end.map(|_| false),
    };
    match a_start.cmp(&b_start) {
        Ordering::Greater => within(b_end, a_start, a_end),
        Ordering::Less => within(a_end, b_start, b_end),
        Ordering::Equal => {
            a_end?;
            b_end?;
            Some(true)
        }
    }
}
