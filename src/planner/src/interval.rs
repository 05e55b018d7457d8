//! Intervals in PostgreSQL's spellings, and the fixed lengths that windows and watermarks need.

use datafusion_sql::sqlparser::ast;
use tidemark_common::{Error, Result, SqlState};
use tidemark_values::moment::{Interval, IntervalFields, read_interval};

const DAY_MICROS: i64 = 86_400_000_000;

/// The length of an interval literal in microseconds. Months have no fixed length and are refused.
pub(crate) fn interval_micros(interval: &ast::Interval) -> Result<i64> {
    let invalid = || {
        Error::user(
            SqlState("22007"),
            format!("invalid input syntax for type interval: {interval}"),
        )
    };
    let text = match interval.value.as_ref() {
        ast::Expr::Value(v) => match &v.value {
            ast::Value::SingleQuotedString(s) => s.clone(),
            ast::Value::Number(n, _) => n.to_string(),
            _ => return Err(invalid()),
        },
        _ => return Err(invalid()),
    };
    let text = match &interval.leading_field {
        Some(unit) if text.trim().parse::<f64>().is_ok() => format!("{text} {unit}"),
        _ => text,
    };
    let parsed = read_interval(&text, IntervalFields::All, 6)?;
    if parsed.months != 0 {
        return Err(Error::unsupported(format!(
            "the length of {interval} varies: a window or watermark needs a fixed length"
        ))
        .with_hint("Use days, hours, minutes or seconds."));
    }
    fixed_micros(&parsed).ok_or_else(invalid)
}

/// The length of an interval in microseconds; `None` if it has months, or is too long.
pub(crate) fn fixed_micros(interval: &Interval) -> Option<i64> {
    let days = i64::from(interval.days).checked_mul(DAY_MICROS)?;
    let micros = days.checked_add(interval.micros)?;
    (interval.months == 0).then_some(micros)
}

/// An interval literal of constant text, with its fields (`INTERVAL '1:30' HOUR TO MINUTE`), in a
/// spelling that DataFusion knows; `None` where the text is not constant.
///
/// Errors: `22007` and `22008` for text that is no interval.
pub(crate) fn plain_spelling(interval: &ast::Interval) -> Result<Option<String>> {
    let text = match interval.value.as_ref() {
        ast::Expr::Value(v) => match &v.value {
            ast::Value::SingleQuotedString(s) => s.clone(),
            ast::Value::Number(n, _) => n.to_string(),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let fields = fields(interval)?;
    // `SECOND (p)` has no fields before its fraction.
    let digits = match (&interval.leading_field, &interval.last_field) {
        (Some(ast::DateTimeField::Second), None) => interval.leading_precision,
        _ => None,
    };
    let digits = interval.fractional_seconds_precision.or(digits);
    let precision = digits.unwrap_or(6).min(6) as u8;
    let value = read_interval(&text, fields, precision)?;
    Ok(Some(format!(
        "{} months {} days {} microseconds",
        value.months, value.days, value.micros
    )))
}

/// The fields of a type as those of a literal.
pub(crate) fn first_and_last(
    fields: &ast::IntervalFields,
) -> (Option<ast::DateTimeField>, Option<ast::DateTimeField>) {
    use ast::DateTimeField as D;
    use ast::IntervalFields as F;
    let (first, last) = match fields {
        F::Year => (D::Year, None),
        F::Month => (D::Month, None),
        F::Day => (D::Day, None),
        F::Hour => (D::Hour, None),
        F::Minute => (D::Minute, None),
        F::Second => (D::Second, None),
        F::YearToMonth => (D::Year, Some(D::Month)),
        F::DayToHour => (D::Day, Some(D::Hour)),
        F::DayToMinute => (D::Day, Some(D::Minute)),
        F::DayToSecond => (D::Day, Some(D::Second)),
        F::HourToMinute => (D::Hour, Some(D::Minute)),
        F::HourToSecond => (D::Hour, Some(D::Second)),
        F::MinuteToSecond => (D::Minute, Some(D::Second)),
    };
    (Some(first), last)
}

/// The fields that a literal is restricted to.
fn fields(interval: &ast::Interval) -> Result<IntervalFields> {
    use IntervalFields as F;
    use ast::DateTimeField as D;
    let (first, last) = (&interval.leading_field, &interval.last_field);
    Ok(match (first, last) {
        (None, _) => F::All,
        (Some(D::Year | D::Years), None) => F::Year,
        (Some(D::Month | D::Months), None) => F::Month,
        (Some(D::Day | D::Days), None) => F::Day,
        (Some(D::Hour | D::Hours), None) => F::Hour,
        (Some(D::Minute | D::Minutes), None) => F::Minute,
        (Some(D::Second | D::Seconds), None) => F::Second,
        (Some(D::Year), Some(D::Month)) => F::YearToMonth,
        (Some(D::Day), Some(D::Hour)) => F::DayToHour,
        (Some(D::Day), Some(D::Minute)) => F::DayToMinute,
        (Some(D::Day), Some(D::Second)) => F::DayToSecond,
        (Some(D::Hour), Some(D::Minute)) => F::HourToMinute,
        (Some(D::Hour), Some(D::Second)) => F::HourToSecond,
        (Some(D::Minute), Some(D::Second)) => F::MinuteToSecond,
        _ => {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("{interval} has fields that an interval cannot be restricted to"),
            ));
        }
    })
}
