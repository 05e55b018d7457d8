//! Operations on moments by name, with arguments and answer as text: for the cases that PostgreSQL
//! has answered, and for the example that computes more of them.

use tidemark_common::Result;
use tidemark_values::moment::{self as m, Interval, IntervalFields, Part, Session, Template, Zone};

/// The answer to an operation as PostgreSQL prints it, or `!SQLSTATE message / hint`.
pub fn answer_text(op: &str, arguments: &[&str], now: i64) -> String {
    answer(op, arguments, now).unwrap_or_else(|error| {
        let hint = error.hint().map(|h| format!(" / {h}")).unwrap_or_default();
        format!("!{} {}{hint}", error.state().0, error.message())
    })
}

fn fields(text: &str) -> IntervalFields {
    use IntervalFields::*;
    match text {
        "year" => Year,
        "month" => Month,
        "day" => Day,
        "hour" => Hour,
        "minute" => Minute,
        "second" => Second,
        "year to month" => YearToMonth,
        "day to hour" => DayToHour,
        "day to minute" => DayToMinute,
        "day to second" => DayToSecond,
        "hour to minute" => HourToMinute,
        "hour to second" => HourToSecond,
        "minute to second" => MinuteToSecond,
        _ => All,
    }
}

fn text(value: Result<Option<String>>) -> Result<String> {
    value.map(|text| text.unwrap_or("NULL".to_string()))
}

fn part(value: Option<Part>) -> String {
    value.map_or("NULL".to_string(), |part| part.to_string())
}

fn bits(value: Option<f64>) -> String {
    value.map_or("NULL".to_string(), |part| {
        format!("{:016x}", part.to_bits())
    })
}

fn answer(op: &str, a: &[&str], now: i64) -> Result<String> {
    // The first argument of operations in a zone is the session's.
    let zoned = op.starts_with("z_");
    let (zone, a) = if zoned {
        (Zone::of_session(a[0])?, &a[1..])
    } else {
        (Zone::UTC, a)
    };
    let session = Session { now, zone };
    let zone = &session.zone;
    let number = |i: usize| a[i].parse::<i32>().unwrap_or(0);
    let float = |i: usize| a[i].parse::<f64>().unwrap_or(0.0);
    let date = |i: usize| m::read_date(a[i], &session);
    let time = |i: usize| m::read_time(a[i], 6, &session);
    let ts = |i: usize| m::read_timestamp(a[i], 6, &session);
    let tz = |i: usize| m::read_timestamptz(a[i], 6, &session);
    let span = |i: usize| m::read_interval(a[i], IntervalFields::All, 6);
    let show = |value: Result<Interval>| value.map(m::interval_text_of);
    let show_ts = |value: Result<i64>| value.map(m::timestamp_text);
    let show_tz = |value: Result<i64>| value.map(|v| m::timestamptz_text(v, zone));
    let show_date = |value: Result<i32>| value.map(m::date_text);
    match op {
        "date" | "z_date" => show_date(date(0)),
        "time" => m::read_time(a[1], number(0) as u8, &session).map(m::time_text),
        "timestamp" | "z_timestamp" => show_ts(m::read_timestamp(a[1], number(0) as u8, &session)),
        "z_timestamptz" => show_tz(m::read_timestamptz(a[1], number(0) as u8, &session)),
        "interval" => show(m::read_interval(a[2], fields(a[0]), number(1) as u8)),
        "ts_minus" => show(m::timestamp_minus(ts(0)?, ts(1)?)),
        "ts_plus" => show_ts(m::timestamp_plus(ts(0)?, span(1)?)),
        "ts_less" => show_ts(m::timestamp_minus_interval(ts(0)?, span(1)?)),
        "z_plus" => show_tz(m::timestamptz_plus(tz(0)?, span(1)?, zone)),
        "z_less" => show_tz(m::timestamptz_minus_interval(tz(0)?, span(1)?, zone)),
        "age" => show(m::timestamp_age(ts(0)?, ts(1)?)),
        "z_age" => show(m::timestamptz_age(tz(0)?, tz(1)?, zone)),
        "justify_hours" => show(span(0)?.justify_hours()),
        "justify_days" => show(span(0)?.justify_days()),
        "justify_interval" => show(span(0)?.justify()),
        "i_plus" => show(span(0)?.plus(span(1)?)),
        "i_minus" => show(span(0)?.minus(span(1)?)),
        "i_neg" => show(span(0)?.negated()),
        "i_times" => show(span(0)?.times(float(1))),
        "i_div" => show(span(0)?.divided(float(1))),
        "i_cmp" => {
            Ok((m::interval_key(span(0)?).cmp(&m::interval_key(span(1)?)) as i32).to_string())
        }
        "i_time" => Ok(m::time_text(span(0)?.time_of_day())),
        "make_date" => show_date(m::make_date(number(0), number(1), number(2))),
        "make_time" => m::make_time(number(0), number(1), float(2)).map(m::time_text),
        "make_timestamp" => show_ts(m::make_timestamp(
            number(0),
            number(1),
            number(2),
            number(3),
            number(4),
            float(5),
        )),
        "z_make_timestamptz" => {
            let local = m::make_timestamp(
                number(0),
                number(1),
                number(2),
                number(3),
                number(4),
                float(5),
            )?;
            show_tz(m::moment_at_zone(local, &Zone::of_argument(a[6])?))
        }
        "make_interval" => show(m::make_interval(
            number(0),
            number(1),
            number(2),
            number(3),
            number(4),
            number(5),
            float(6),
        )),
        "extract_date" => m::extract_date(a[0], date(1)?).map(part),
        "extract_time" => m::extract_time(a[0], time(1)?).map(|p| part(Some(p))),
        "extract_ts" => m::extract_timestamp(a[0], ts(1)?).map(part),
        "z_extract" => m::extract_timestamptz(a[0], tz(1)?, zone).map(part),
        "extract_i" => m::extract_interval(a[0], span(1)?).map(|p| part(Some(p))),
        "part_time" => m::date_part_time(a[0], time(1)?).map(|p| bits(Some(p))),
        "part_ts" => m::date_part_timestamp(a[0], ts(1)?).map(bits),
        "z_part" => m::date_part_timestamptz(a[0], tz(1)?, zone).map(bits),
        "part_i" => m::date_part_interval(a[0], span(1)?).map(|p| bits(Some(p))),
        "trunc_ts" => show_ts(m::truncate_timestamp(a[0], ts(1)?)),
        "z_trunc" => show_tz(m::truncate_timestamptz(a[0], tz(1)?, zone)),
        "trunc_i" => show(m::truncate_interval(a[0], span(1)?)),
        "bin" => show_ts(m::date_bin(span(0)?, ts(1)?, ts(2)?)),
        "to_zone" => m::moment_at_zone(ts(1)?, &Zone::find(a[0])?)
            .map(|v| m::timestamptz_text(v, &Zone::UTC)),
        "from_zone" => show_ts(m::local_at_zone(tz(1)?, &Zone::find(a[0])?)),
        "to_izone" => m::moment_at_zone(ts(1)?, &Zone::of_interval(span(0)?)?)
            .map(|v| m::timestamptz_text(v, &Zone::UTC)),
        "from_izone" => show_ts(m::local_at_zone(tz(1)?, &Zone::of_interval(span(0)?)?)),
        "overlaps" => {
            let at = |i: usize| {
                (a[i] != "NULL")
                    .then(|| m::read_timestamp(a[i], 6, &session))
                    .transpose()
            };
            Ok(match m::overlaps((at(0)?, at(1)?), (at(2)?, at(3)?)) {
                None => "NULL".to_string(),
                Some(answer) => answer.to_string(),
            })
        }
        "date_plus" => show_date(m::date_plus_days(date(0)?, number(1))),
        "date_less" => show_date(m::date_minus_days(date(0)?, number(1))),
        "date_minus" => m::date_minus_date(date(0)?, date(1)?).map(|d| d.to_string()),
        "date_ts" => show_ts(m::date_to_timestamp(date(0)?)),
        "z_date_tz" => show_tz(m::date_to_timestamptz(date(0)?, zone)),
        "date_time" => show_ts(m::date_plus_time(date(0)?, time(1)?)),
        "ts_date" => Ok(m::date_text(m::timestamp_to_date(ts(0)?))),
        "ts_time" => Ok(match m::timestamp_to_time(ts(0)?) {
            None => "NULL".to_string(),
            Some(time) => m::time_text(time),
        }),
        "time_plus" => Ok(m::time_text(m::time_plus_interval(time(0)?, span(1)?))),
        "time_less" => Ok(m::time_text(m::time_minus_interval(time(0)?, span(1)?))),
        "time_minus" => Ok(m::interval_text_of(m::time_minus_time(time(0)?, time(1)?))),
        "z_epoch" => show_tz(m::timestamp_of_epoch(float(0))),
        "char_ts" => text(m::to_char_timestamp(&Template::new(a[0]), ts(1)?)),
        "z_char" => text(m::to_char_timestamptz(&Template::new(a[0]), tz(1)?, zone)),
        "char_i" => text(m::to_char_interval(&Template::new(a[0]), span(1)?)),
        "to_date" => show_date(m::to_date(a[1], &Template::new(a[0]))),
        "z_to_timestamp" => show_tz(m::to_timestamp(a[1], &Template::new(a[0]), zone)),
        _ => Ok(format!("unknown operation {op}")),
    }
}
