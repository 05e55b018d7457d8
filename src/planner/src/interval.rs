//! Intervals in PostgreSQL's spellings, and the fixed lengths that windows and watermarks need.

use datafusion_common::arrow::datatypes::IntervalMonthDayNano;
use datafusion_sql::sqlparser::ast;
use tidemark_common::{Error, Result, SqlState};

const DAY_MICROS: i64 = 86_400_000_000;

/// The length of an interval literal in microseconds. Months have no fixed length and are refused.
pub(crate) fn interval_micros(interval: &ast::Interval) -> Result<i64> {
    let invalid = || {
        Error::user(
            SqlState("22007"),
            format!("invalid input syntax for type interval: {interval}"),
        )
    };
    let value = match interval.value.as_ref() {
        ast::Expr::Value(v) => match &v.value {
            ast::Value::SingleQuotedString(s) => s.clone(),
            ast::Value::Number(n, _) => n.to_string(),
            _ => return Err(invalid()),
        },
        _ => return Err(invalid()),
    };
    let text = match &interval.leading_field {
        Some(unit) => format!("{value} {unit}"),
        None => value,
    };
    let parsed = parse_interval(&text).ok_or_else(invalid)?;
    if parsed.months != 0 {
        return Err(Error::unsupported(format!(
            "the length of {interval} varies: a window or watermark needs a fixed length"
        ))
        .with_hint("Use days, hours, minutes or seconds."));
    }
    i64::from(parsed.days)
        .checked_mul(DAY_MICROS)
        .and_then(|d| d.checked_add(parsed.nanoseconds / 1000))
        .ok_or_else(invalid)
}

/// A text in one of the spellings that DataFusion's parser does not know, in one that it does;
/// `None` for all others.
pub(crate) fn plain_spelling(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    if !lower.contains([':', '@']) && !lower.starts_with('p') && !lower.ends_with("ago") {
        return None;
    }
    let interval = parse_interval(text)?;
    Some(format!(
        "{} months {} days {:.6} seconds",
        interval.months,
        interval.days,
        interval.nanoseconds as f64 / 1e9
    ))
}

/// `1 year 2 mons -3 days 04:05:06.7`, `P1Y2M3DT4H5M6S`, `2 hours ago`.
pub fn parse_interval(text: &str) -> Option<IntervalMonthDayNano> {
    let lower = text.trim().to_lowercase();
    let (body, sign) = match lower.strip_suffix("ago") {
        Some(body) => (body.trim(), -1.0),
        None => (lower.as_str(), 1.0),
    };
    let (mut months, mut days, mut seconds) = (0.0f64, 0.0f64, 0.0f64);
    let mut add = |amount: f64, unit: &str| {
        match unit {
            "y" | "yr" | "yrs" | "year" | "years" => months += amount * 12.0,
            "decade" | "decades" => months += amount * 120.0,
            "century" | "centuries" => months += amount * 1200.0,
            "mon" | "mons" | "month" | "months" => months += amount,
            "w" | "week" | "weeks" => days += amount * 7.0,
            "d" | "day" | "days" => days += amount,
            "h" | "hr" | "hrs" | "hour" | "hours" => seconds += amount * 3600.0,
            "m" | "min" | "mins" | "minute" | "minutes" => seconds += amount * 60.0,
            "s" | "sec" | "secs" | "second" | "seconds" => seconds += amount,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => seconds += amount / 1e3,
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => seconds += amount / 1e6,
            _ => return None,
        }
        Some(())
    };
    if let Some(iso) = body.strip_prefix('p') {
        parse_iso_interval(iso, &mut add)?;
    } else {
        let spaced = body.trim_start_matches('@').trim();
        let mut words = spaced.split_whitespace().peekable();
        words.peek()?;
        while let Some(word) = words.next() {
            if word.contains(':') {
                let (clock, negative) = word
                    .strip_prefix('-')
                    .map_or((word.trim_start_matches('+'), 1.0), |w| (w, -1.0));
                let mut total = 0.0;
                for (part, scale) in clock.split(':').zip([3600.0, 60.0, 1.0]) {
                    total += part.parse::<f64>().ok()? * scale;
                }
                add(total * negative, "s")?;
                continue;
            }
            let end = word.find(|c: char| c.is_alphabetic()).unwrap_or(word.len());
            let amount: f64 = word[..end].parse().ok()?;
            let unit = if end < word.len() {
                &word[end..]
            } else {
                words.next().unwrap_or("s")
            };
            add(amount, unit)?;
        }
    }
    // Fractions run down: of a month into days (30 each), of a day into time.
    let whole_months = months.trunc();
    days += (months - whole_months) * 30.0;
    let whole_days = days.trunc();
    let micros = ((seconds + (days - whole_days) * 86_400.0) * sign * 1e6).round();
    Some(IntervalMonthDayNano::new(
        (whole_months * sign) as i32,
        (whole_days * sign) as i32,
        (micros as i64).checked_mul(1000)?,
    ))
}

fn parse_iso_interval(text: &str, add: &mut impl FnMut(f64, &str) -> Option<()>) -> Option<()> {
    let (date, time) = text.split_once('t').unwrap_or((text, ""));
    for (part, units) in [
        (
            date,
            [("y", "year"), ("m", "month"), ("w", "week"), ("d", "day")],
        ),
        (
            time,
            [("h", "hour"), ("m", "minute"), ("s", "second"), ("", "")],
        ),
    ] {
        let mut rest = part;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_alphabetic())?;
            let amount: f64 = rest[..end].parse().ok()?;
            let letter = &rest[end..end + 1];
            let unit = units.iter().find(|(l, _)| *l == letter)?.1;
            add(amount, unit)?;
            rest = &rest[end + 1..];
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_parse_in_postgresqls_forms() {
        let v = |m, d, micros: i64| Some(IntervalMonthDayNano::new(m, d, micros * 1000));
        assert_eq!(parse_interval("1 day 02:00:00"), v(0, 1, 7_200_000_000));
        assert_eq!(
            parse_interval("1 year 2 mons -3 days +04:05:06.7"),
            v(14, -3, 14_706_700_000)
        );
        assert_eq!(parse_interval("P1Y2M3DT4H5M6S"), v(14, 3, 14_706_000_000));
        assert_eq!(parse_interval("1.5 hours ago"), v(0, 0, -5_400_000_000));
        assert_eq!(parse_interval("-00:00:01.5"), v(0, 0, -1_500_000));
        assert_eq!(parse_interval("5"), v(0, 0, 5_000_000));
        assert_eq!(parse_interval("two days"), None);
    }
}
