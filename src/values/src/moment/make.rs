//! `make_date`, `make_time`, `make_timestamp`, `make_timestamptz`, `make_interval`, and the
//! conversion of seconds since 1970.

use super::calendar::{Civil, days_in_month};
use super::failure::{interval_out_of_range, overflow};
use super::{
    DATE_MAX, DATE_MIN, DAY, HOUR, Interval, MINUTE, SECOND, TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY, Zone, add::in_range,
};
use tidemark_common::Result;

/// `make_date(year, month, day)`; a negative year is before Christ.
///
/// Errors: `22008`.
pub fn make_date(year: i32, month: i32, day: i32) -> Result<i32> {
    // PostgreSQL shows a year before Christ as it counts, with a year 0.
    let shown = year + i32::from(year < 0);
    let written = || format!("{shown}-{month:02}-{day:02}");
    let civil = civil(year, month, day)
        .ok_or_else(|| overflow(format!("date field value out of range: {}", written())))?;
    let days = civil.days();
    if !civil.has_julian_day() || !(i64::from(DATE_MIN)..=i64::from(DATE_MAX)).contains(&days) {
        return Err(overflow(format!("date out of range: {}", written())));
    }
    Ok(days as i32)
}

/// `make_time(hour, minute, second)`.
///
/// Errors: `22008`.
pub fn make_time(hour: i32, minute: i32, second: f64) -> Result<i64> {
    time_of(hour, minute, second).ok_or_else(|| {
        overflow(format!(
            "time field value out of range: {hour}:{minute:02}:{}",
            general(second)
        ))
    })
}

/// `make_timestamp(year, month, day, hour, minute, second)`.
///
/// Errors: `22008`.
pub fn make_timestamp(
    year: i32,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: f64,
) -> Result<i64> {
    let written = || format!("{year}-{month:02}-{day:02}");
    let civil = civil(year, month, day)
        .ok_or_else(|| overflow(format!("date field value out of range: {}", written())))?;
    if !civil.has_julian_day() {
        return Err(overflow(format!("date out of range: {}", written())));
    }
    let time = make_time(hour, minute, second)?;
    let days = civil.days().checked_mul(DAY);
    let micros = days.and_then(|days| days.checked_add(time));
    in_range(micros).map_err(|_| {
        overflow(format!(
            "timestamp out of range: {} {hour}:{minute:02}:{}",
            written(),
            general(second)
        ))
    })
}

/// `make_timestamptz(..)` in a session's zone, or in one of [`Zone::of_argument`].
///
/// Errors: `22008`.
pub fn make_timestamptz(
    year: i32,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: f64,
    zone: &Zone,
) -> Result<i64> {
    let local = make_timestamp(year, month, day, hour, minute, second)?;
    in_range(zone.moment_of(local))
}

/// `make_interval(years, months, weeks, days, hours, mins, secs)`.
///
/// What is too large wraps around, as in PostgreSQL 15.
///
/// Errors: `22008` for seconds that are no number.
pub fn make_interval(
    years: i32,
    months: i32,
    weeks: i32,
    days: i32,
    hours: i32,
    minutes: i32,
    seconds: f64,
) -> Result<Interval> {
    if !seconds.is_finite() {
        return Err(interval_out_of_range());
    }
    let seconds = (seconds * SECOND as f64).round_ties_even();
    // What a processor makes of a float that no integer is.
    let seconds = if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&seconds)
    {
        seconds as i64
    } else {
        i64::MIN
    };
    let clock = i64::from(hours) * HOUR + i64::from(minutes) * MINUTE;
    Ok(Interval {
        months: years.wrapping_mul(12).wrapping_add(months),
        days: weeks.wrapping_mul(7).wrapping_add(days),
        micros: clock.wrapping_add(seconds),
    })
}

/// `to_timestamp(seconds)`: a moment so many seconds after 1970.
///
/// Errors: `22008` if it is out of range or NaN.
pub fn timestamp_of_epoch(seconds: f64) -> Result<i64> {
    if seconds.is_nan() {
        return Err(overflow("timestamp cannot be NaN"));
    }
    if seconds.is_infinite() {
        return Ok(if seconds > 0.0 {
            TIMESTAMP_INFINITY
        } else {
            TIMESTAMP_MINUS_INFINITY
        });
    }
    let out = || overflow(format!("timestamp out of range: \"{}\"", general(seconds)));
    if seconds.abs() >= 1e13 {
        return Err(out());
    }
    // PostgreSQL rounds the seconds since 2000, which has fewer digits for present times.
    const FROM_2000: i64 = 946_684_800;
    let since = ((seconds - FROM_2000 as f64) * SECOND as f64).round_ties_even();
    in_range((since as i64).checked_add(FROM_2000 * SECOND)).map_err(|_| out())
}

fn civil(year: i32, month: i32, day: i32) -> Option<Civil> {
    let year = match year {
        0 => return None,
        // 1 BC is the year 0.
        ..0 => year + 1,
        _ => year,
    };
    let exists =
        (1..=12).contains(&month) && (1..=days_in_month(i64::from(year), month)).contains(&day);
    exists.then(|| Civil {
        year,
        month,
        day,
        ..Civil::default()
    })
}

fn time_of(hour: i32, minute: i32, second: f64) -> Option<i64> {
    let second = (second * SECOND as f64).round_ties_even();
    let is_time = (0..=24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..=60.0 * SECOND as f64).contains(&second);
    let time = i64::from(hour) * HOUR
        + i64::from(minute) * MINUTE
        + if is_time { second as i64 } else { 0 };
    (is_time && time <= DAY).then_some(time)
}

/// As C's `%02g`: six significant digits, at least two characters.
fn general(value: f64) -> String {
    let text = if value.is_nan() {
        "NaN".to_string()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string()
    } else {
        let scientific = format!("{value:.5e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let trimmed = |text: &str| match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
            false => text.to_string(),
        };
        if (-4..6).contains(&exponent) {
            trimmed(&format!("{value:.*}", (5 - exponent) as usize))
        } else {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
        }
    };
    if text.len() < 2 {
        format!("0{text}")
    } else {
        text
    }
}
