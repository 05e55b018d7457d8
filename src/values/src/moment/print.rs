//! Prints dates, times, timestamps and intervals as PostgreSQL does (ISO, `postgres`). The `push_`
//! functions append to bytes and allocate nothing else.

use super::calendar::date_of;
use super::{
    DATE_INFINITY, DATE_MINUS_INFINITY, DAY, HOUR, Interval, SECOND, TIMESTAMP_INFINITY,
    TIMESTAMP_MINUS_INFINITY, Zone,
};

#[inline]
fn push_two(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

/// Decimal digits, at least `width`.
fn push_number(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while value > 0 {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

/// `YYYY-MM-DD` without the era; says whether it is before Christ.
#[inline]
fn push_day(out: &mut Vec<u8>, days: i64) -> bool {
    let (year, month, day) = date_of(days);
    let shown = if year > 0 { year } else { 1 - year } as u64;
    if shown < 10_000 {
        push_two(out, shown as u32 / 100);
        push_two(out, shown as u32);
    } else {
        push_number(out, shown, 4);
    }
    out.push(b'-');
    push_two(out, month as u32);
    out.push(b'-');
    push_two(out, day as u32);
    year <= 0
}

#[inline]
fn push_fraction(out: &mut Vec<u8>, micros: u32) {
    if micros == 0 {
        return;
    }
    let mut digits = [b'.'; 7];
    let (mut rest, mut length) = (micros, 7);
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    while digits[length - 1] == b'0' {
        length -= 1;
    }
    out.extend_from_slice(&digits[..length]);
}

#[inline]
fn push_minutes(out: &mut Vec<u8>, of_hour: u64) {
    let seconds = (of_hour / SECOND as u64) as u32;
    out.push(b':');
    push_two(out, seconds / 60);
    out.push(b':');
    push_two(out, seconds % 60);
    push_fraction(out, (of_hour % SECOND as u64) as u32);
}

/// Appends a date: `2024-01-31`, `0044-03-15 BC`, `infinity`.
pub fn push_date(out: &mut Vec<u8>, days: i32) {
    match days {
        DATE_INFINITY => out.extend_from_slice(b"infinity"),
        DATE_MINUS_INFINITY => out.extend_from_slice(b"-infinity"),
        _ => {
            if push_day(out, i64::from(days)) {
                out.extend_from_slice(b" BC");
            }
        }
    }
}

/// Appends a time: `04:05:06.789`.
#[inline]
pub fn push_time(out: &mut Vec<u8>, micros: i64) {
    push_two(out, (micros / HOUR) as u32);
    push_minutes(out, (micros % HOUR) as u64);
}

/// Appends a timestamp without zone: `2024-01-31 04:05:06.789`.
#[inline]
pub fn push_timestamp(out: &mut Vec<u8>, micros: i64) {
    push_moment(out, micros, 0, None);
}

/// Appends a timestamp in a zone: `2024-01-31 04:05:06.789+05:30`.
#[inline]
pub fn push_timestamptz(out: &mut Vec<u8>, micros: i64, zone: &Zone) {
    let offset = zone.offset_at(micros);
    push_moment(out, micros, i64::from(offset) * SECOND, Some(offset));
}

fn push_moment(out: &mut Vec<u8>, micros: i64, shift: i64, offset: Option<i32>) {
    match micros {
        TIMESTAMP_INFINITY => return out.extend_from_slice(b"infinity"),
        TIMESTAMP_MINUS_INFINITY => return out.extend_from_slice(b"-infinity"),
        _ => {}
    }
    // The local time of the last hours does not fit 64 bits; day and time of day do.
    let time = micros.rem_euclid(DAY) + shift;
    let days = micros.div_euclid(DAY) + time.div_euclid(DAY);
    let before_christ = push_day(out, days);
    out.push(b' ');
    push_time(out, time.rem_euclid(DAY));
    if let Some(offset) = offset {
        push_offset(out, offset);
    }
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// Appends a distance from UTC: `+00`, `+05:30`, `-03:30:52`.
pub fn push_offset(out: &mut Vec<u8>, seconds_east: i32) {
    out.push(if seconds_east < 0 { b'-' } else { b'+' });
    let seconds = seconds_east.unsigned_abs();
    push_number(out, u64::from(seconds / 3600), 2);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if minutes != 0 || seconds != 0 {
        out.push(b':');
        push_two(out, minutes);
    }
    if seconds != 0 {
        out.push(b':');
        push_two(out, seconds);
    }
}

/// Appends an interval: `1 year 2 mons -3 days +04:05:06.7`.
pub fn push_interval(out: &mut Vec<u8>, interval: Interval) {
    let Interval {
        months,
        days,
        micros,
    } = interval;
    let start = out.len();
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        if out.len() > start {
            out.push(b' ');
        }
        if value < 0 {
            out.push(b'-');
        } else if after_negative {
            out.push(b'+');
        }
        push_number(out, u64::from(value.unsigned_abs()), 1);
        out.push(b' ');
        out.extend_from_slice(unit.as_bytes());
        if value != 1 {
            out.push(b's');
        }
        after_negative = value < 0;
    }
    if micros != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if after_negative {
            out.push(b'+');
        }
        let size = micros.unsigned_abs();
        push_number(out, size / HOUR as u64, 2);
        push_minutes(out, size % HOUR as u64);
    }
}

fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(32);
    push(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// A date as text; see [`push_date`].
pub fn date_text(days: i32) -> String {
    text(|out| push_date(out, days))
}

/// A time as text; see [`push_time`].
pub fn time_text(micros: i64) -> String {
    text(|out| push_time(out, micros))
}

/// A timestamp as text; see [`push_timestamp`].
pub fn timestamp_text(micros: i64) -> String {
    text(|out| push_timestamp(out, micros))
}

/// A timestamp in a zone as text; see [`push_timestamptz`].
pub fn timestamptz_text(micros: i64, zone: &Zone) -> String {
    text(|out| push_timestamptz(out, micros, zone))
}

/// An interval as text; see [`push_interval`].
pub fn interval_text_of(interval: Interval) -> String {
    text(|out| push_interval(out, interval))
}
