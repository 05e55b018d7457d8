//! Dates and times between text and microseconds, in the proleptic Gregorian calendar without leap
//! seconds.
//!
//! Read: `YYYY-MM-DD`, `HH:MM[:SS[.ffffff]]`, and both joined by a blank or `T`, with an optional
//! `Z`, `UTC`, `+HH[[:]MM[[:]SS]]` and ` BC`. As in PostgreSQL a zone moves a TIMESTAMPTZ to UTC,
//! and is ignored for TIMESTAMP and TIME. Written: PostgreSQL's ISO style, the fraction with 3 or 6
//! digits or none. Integers are epoch milliseconds below 10^14 and microseconds from there on (of
//! either sign).
//!
//! Cost: the layout `YYYY-MM-DD HH:MM:SS` is read from whole machine words, and the day is taken
//! from a [`DayCache`] since records that follow each other mostly share it.

use super::number::{invalid, out_of_range};
use super::scan::Fault;
use arrow::datatypes::IntervalMonthDayNano;
use tidemark_common::SqlState;
use tidemark_values::moment;
use tidemark_values::moment::calendar::{date_of, days_in_month, days_of};

/// Microseconds of a day.
pub(super) const DAY_US: i64 = 86_400_000_000;
const YEAR_MAX: i64 = 294_276;
/// Days of 4714-11-24 BC, PostgreSQL's first, from 1970-01-01.
const DAY_MIN: i64 = -2_440_588;

/// The text of the last date read and its day.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct DayCache {
    head: u64,
    tail: u16,
    day: i64,
}

impl DayCache {
    /// Days since 1970-01-01 of a `YYYY-MM-DD`.
    #[inline]
    fn day(&mut self, text: &[u8; 10]) -> Option<i64> {
        let [a, b, c, d, e, f, g, h, y, z] = *text;
        let (head, tail) = (
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u16::from_le_bytes([y, z]),
        );
        if (head, tail) != (self.head, self.tail) {
            let (day, rest) = date(text)?;
            if !rest.is_empty() {
                return None;
            }
            *self = DayCache { head, tail, day };
        }
        Some(self.day)
    }
}

/// Reads up to `most` digits.
fn take(text: &[u8], most: usize) -> Option<(i64, &[u8])> {
    let count = text
        .iter()
        .take(most)
        .take_while(|b| b.is_ascii_digit())
        .count();
    let value = text[..count]
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    (count > 0).then_some((value, &text[count..]))
}

fn passed(text: &[u8], byte: u8) -> Option<&[u8]> {
    text.strip_prefix(&[byte])
}

/// Reads `Y-M-D`; the year has 3 to 6 digits. Returns days and the rest.
fn date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = take(text, 6)?;
    if text.len() - rest.len() < 3 {
        return None;
    }
    let (month, rest) = take(passed(rest, b'-')?, 2)?;
    let (day, rest) = take(passed(rest, b'-')?, 2)?;
    let year = if ends_with_bc(text) { 1 - year } else { year };
    let (month, day) = (month as i32, day as i32);
    let written_zero = !ends_with_bc(text) && year == 0 || year > YEAR_MAX;
    if written_zero
        || !(1..=12).contains(&month)
        || !(1..=days_in_month(year, month)).contains(&day)
    {
        return None;
    }
    Some((days_of(year, month, day), rest))
}

fn ends_with_bc(text: &[u8]) -> bool {
    text.len() >= 3 && text[text.len() - 3..].eq_ignore_ascii_case(b" bc")
}

fn without_bc(text: &[u8]) -> &[u8] {
    if ends_with_bc(text) {
        &text[..text.len() - 3]
    } else {
        text
    }
}

/// Reads `H:M[:S[.f]]`; returns microseconds and the rest. 24:00:00 and second 60 are read as
/// PostgreSQL does.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, rest) = take(text, 2)?;
    let (minute, mut rest) = take(passed(rest, b':')?, 2)?;
    let (mut second, mut fraction) = (0, 0);
    if let Some(after) = passed(rest, b':') {
        (second, rest) = take(after, 2)?;
        (fraction, rest) = fraction_us(rest)?;
    }
    let micros = (hour * 3600 + minute * 60 + second) * 1_000_000 + fraction;
    (hour <= 24 && minute < 60 && second <= 60 && micros <= DAY_US).then_some((micros, rest))
}

/// Reads an optional `.ffffff`, rounding what is below a microsecond, halves to the even one.
#[inline]
fn fraction_us(text: &[u8]) -> Option<(i64, &[u8])> {
    if !matches!(text.first(), Some(b'.')) {
        return Some((0, text));
    }
    let (mut value, mut unit, mut at, mut below) = (0i64, 1_000_000i64, 1, 0i64);
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        let digit = i64::from(digit - b'0');
        match at {
            1..=6 => {
                unit /= 10;
                value += digit * unit;
            }
            _ => below = below.saturating_mul(10).saturating_add(digit),
        }
        at += 1;
    }
    let half = 5 * 10i64.saturating_pow(at.saturating_sub(8) as u32);
    let up = below > half || below == half && value % 2 == 1;
    Some((value + i64::from(at > 7 && up), &text[at..]))
}

/// Reads a zone; returns its distance from UTC in microseconds, 0 for no text.
fn zone(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    if text.is_empty()
        || [&b"z"[..], b"utc", b"gmt"]
            .iter()
            .any(|name| text.eq_ignore_ascii_case(name))
    {
        return Some(0);
    }
    let negative = match text[0] {
        b'+' => false,
        b'-' => true,
        _ => return None,
    };
    let (hours, mut rest) = take(&text[1..], 2)?;
    let (mut minutes, mut seconds) = (0, 0);
    if !rest.is_empty() {
        (minutes, rest) = take(passed(rest, b':').unwrap_or(rest), 2)?;
    }
    if !rest.is_empty() {
        (seconds, rest) = take(passed(rest, b':').unwrap_or(rest), 2)?;
    }
    let distance = (hours * 3600 + minutes * 60 + seconds) * 1_000_000;
    (rest.is_empty() && hours <= 15 && minutes < 60 && seconds < 60).then_some(if negative {
        -distance
    } else {
        distance
    })
}

/// Microseconds since 1970-01-01 of a timestamp's text, in UTC if `zoned`; `None` if it is none.
#[inline]
pub(super) fn timestamp(text: &str, zoned: bool, cache: &mut DayCache) -> Option<i64> {
    fixed_timestamp(text.as_bytes(), zoned, cache)
        .or_else(|| any_timestamp(text.as_bytes(), zoned))
        .or_else(|| match infinity(text)? {
            true => Some(moment::TIMESTAMP_INFINITY),
            false => Some(moment::TIMESTAMP_MINUS_INFINITY),
        })
        .or_else(|| {
            let utc = other_spelling(text)?;
            match zoned {
                true => moment::read_timestamptz(text, 6, &utc).ok(),
                false => moment::read_timestamp(text, 6, &utc).ok(),
            }
        })
}

/// What reads the other spellings that PostgreSQL knows, in UTC; `None` for those that depend on
/// when they are read.
fn other_spelling(text: &str) -> Option<moment::Session> {
    let lower = text.to_ascii_lowercase();
    let relative = ["now", "today", "tomorrow", "yesterday"];
    let known = !relative.iter().any(|word| lower.contains(word));
    known.then_some(moment::Session {
        now: 0,
        zone: moment::Zone::UTC,
    })
}

/// Whether a text is the positive of the infinities; `None` for any other.
fn infinity(text: &str) -> Option<bool> {
    match text.trim_ascii() {
        t if t.eq_ignore_ascii_case("infinity") => Some(true),
        t if t.eq_ignore_ascii_case("-infinity") => Some(false),
        _ => None,
    }
}

/// The layout `YYYY-MM-DD HH:MM:SS`, whatever follows.
#[inline]
fn fixed_timestamp(text: &[u8], zoned: bool, cache: &mut DayCache) -> Option<i64> {
    let (head, rest) = text.split_first_chunk::<10>()?;
    let (&[joint, ref time @ ..], rest) = rest.split_first_chunk::<9>()?;
    if !matches!(joint, b' ' | b'T') {
        return None;
    }
    // `HH:MM:SS`: digits become their value, colons zero; a byte that is too large sets its top
    // bit.
    let word = u64::from_le_bytes(*time) ^ 0x3030_3A30_303A_3030;
    if (word.wrapping_add(0x7676_7F76_767F_7676) | word) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let two = |at: u32| (word >> (8 * at) & 0xF) as i64 * 10 + (word >> (8 * at + 8) & 0xF) as i64;
    let (hour, minute, second) = (two(0), two(3), two(6));
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, rest) = fraction_us(rest)?;
    let day = cache.day(head)?;
    let local = day * DAY_US + (hour * 3600 + minute * 60 + second) * 1_000_000 + fraction;
    if rest.is_empty() {
        return Some(local);
    }
    let distance = zone(rest)?;
    Some(if zoned { local - distance } else { local })
}

/// Any layout that the module's documentation lists.
#[cold]
#[inline(never)]
fn any_timestamp(text: &[u8], zoned: bool) -> Option<i64> {
    let text = text.trim_ascii();
    let (day, rest) = date(text)?;
    let rest = without_bc(rest);
    let (time, distance) = match rest.first() {
        None => (0, 0),
        Some(b' ' | b'T' | b't') => {
            let (time, rest) = clock(rest[1..].trim_ascii_start())?;
            (time, zone(rest)?)
        }
        // A date alone may have a zone, too; it means nothing but for TIMESTAMPTZ.
        Some(_) => (0, zone(rest)?),
    };
    if day < DAY_MIN {
        return None;
    }
    let local = day.checked_mul(DAY_US)?.checked_add(time)?;
    if zoned {
        local.checked_sub(distance)
    } else {
        Some(local)
    }
}

/// Days since 1970-01-01 of a date's text; a time of day that follows is cut off.
pub(super) fn day(text: &str, cache: &mut DayCache) -> Option<i32> {
    let bytes = text.as_bytes();
    if let Some(day) = <&[u8; 10]>::try_from(bytes)
        .ok()
        .and_then(|text| cache.day(text))
    {
        return i32::try_from(day).ok();
    }
    match infinity(text) {
        Some(true) => Some(moment::DATE_INFINITY),
        Some(false) => Some(moment::DATE_MINUS_INFINITY),
        None => any_timestamp(bytes, false)
            .and_then(|micros| i32::try_from(micros.div_euclid(DAY_US)).ok())
            .or_else(|| moment::read_date(text, &other_spelling(text)?).ok()),
    }
}

/// Microseconds since midnight of a time's text.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let plain = || {
        let (micros, rest) = clock(text.as_bytes().trim_ascii())?;
        zone(rest).map(|_| micros)
    };
    plain().or_else(|| moment::read_time(text, 6, &other_spelling(text)?).ok())
}

/// Microseconds since 1970-01-01 of an integer timestamp: milliseconds below 10^14, else
/// microseconds; `None` if PostgreSQL has no such time.
#[inline]
pub(super) fn timestamp_of_number(value: i64) -> Option<i64> {
    let micros = if value.unsigned_abs() < 100_000_000_000_000 {
        value * 1_000
    } else {
        value
    };
    (micros >= DAY_MIN * DAY_US).then_some(micros)
}

/// Microseconds since 1970-01-01 that PostgreSQL has a timestamp for.
#[inline]
pub(super) fn timestamp_of_micros(micros: i64) -> Option<i64> {
    (DAY_MIN * DAY_US..moment::TIMESTAMP_INFINITY)
        .contains(&micros)
        .then_some(micros)
}

/// The interval that `text` writes, in any of PostgreSQL's forms or ISO 8601's.
pub(super) fn interval(text: &str) -> Result<IntervalMonthDayNano, Fault> {
    let fields = moment::IntervalFields::All;
    let span = moment::read_interval(text, fields, 6).map_err(|error| match error.state() {
        SqlState("22007") => invalid("interval", text),
        state => Fault::value(error.message().to_string()).with_state(state),
    })?;
    let time = interval_of_micros(span.micros, text)?;
    Ok(IntervalMonthDayNano::new(
        span.months,
        span.days,
        time.nanoseconds,
    ))
}

/// An interval of microseconds alone.
pub(super) fn interval_of_micros(micros: i64, text: &str) -> Result<IntervalMonthDayNano, Fault> {
    let nanos = micros
        .checked_mul(1_000)
        .ok_or_else(|| out_of_range("interval", text))?;
    Ok(IntervalMonthDayNano::new(0, 0, nanos))
}

/// Appends an interval as PostgreSQL prints it.
pub(super) fn write_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let micros = value.nanoseconds / 1_000;
    moment::push_interval(out, moment::Interval::new(value.months, value.days, micros));
}

/// Days since 1970-01-01 as a date, the infinities of PostgreSQL's connector among them; `None` if
/// PostgreSQL has no such date.
pub(super) fn date_of_number(value: i64) -> Option<i32> {
    let date = i32::try_from(value).ok()?;
    let known = (moment::DATE_MIN..=moment::DATE_MAX).contains(&date);
    (known || !moment::date_is_finite(date)).then_some(date)
}

/// An integer date: days since 1970-01-01; `None` if PostgreSQL's timestamps do not reach it.
pub(super) fn day_of_number(value: i64) -> Option<i32> {
    (DAY_MIN..=days_of(YEAR_MAX, 12, 31))
        .contains(&value)
        .then(|| value as i32)
}

/// Appends `YYYY-MM-DD`, without the BC.
fn push_date(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = date_of(days);
    let bc = year <= 0;
    let year = if bc { 1 - year } else { year } as u64;
    if year > 9999 {
        out.extend_from_slice(itoa::Buffer::new().format(year).as_bytes());
    } else {
        push_two(year as u32 / 100, out);
        push_two(year as u32 % 100, out);
    }
    out.push(b'-');
    push_two(month as u32, out);
    out.push(b'-');
    push_two(day as u32, out);
    bc
}

#[inline]
fn push_two(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// Appends `YYYY-MM-DD[ BC]`.
pub(super) fn write_date(days: i32, out: &mut Vec<u8>) {
    if !moment::date_is_finite(days) {
        return moment::push_date(out, days);
    }
    if push_date(i64::from(days), out) {
        out.extend_from_slice(b" BC");
    }
}

/// Appends `HH:MM:SS[.ffffff]`: no fraction for whole seconds, 3 digits for milliseconds, else 6.
pub(super) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (micros / 1_000_000, (micros % 1_000_000) as u32);
    push_two((seconds / 3600) as u32, out);
    out.push(b':');
    push_two((seconds / 60 % 60) as u32, out);
    out.push(b':');
    push_two((seconds % 60) as u32, out);
    if fraction != 0 {
        let (millis, rest) = (fraction / 1_000, fraction % 1_000);
        out.push(b'.');
        out.push(b'0' + (millis / 100) as u8);
        push_two(millis % 100, out);
        if rest != 0 {
            out.push(b'0' + (rest / 100) as u8);
            push_two(rest % 100, out);
        }
    }
}

/// Appends `YYYY-MM-DD HH:MM:SS[.ffffff][+00:00][ BC]`.
pub(super) fn write_timestamp(micros: i64, zoned: bool, out: &mut Vec<u8>) {
    if !moment::timestamp_is_finite(micros) {
        return moment::push_timestamp(out, micros);
    }
    let bc = push_date(micros.div_euclid(DAY_US), out);
    out.push(b' ');
    write_time(micros.rem_euclid(DAY_US), out);
    if zoned {
        out.extend_from_slice(b"+00:00");
    }
    if bc {
        out.extend_from_slice(b" BC");
    }
}
