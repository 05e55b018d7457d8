//! Interval literals, and the fixed lengths that windows and watermarks need.

use datafusion_common::arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion_sql::sqlparser::ast;
use tidemark_common::{Error, Result, SqlState};

const DAY_MICROS: i64 = 86_400_000_000;

/// The length of an interval literal in microseconds. Months have no fixed length and are refused.
pub(crate) fn interval_micros(interval: &ast::Interval) -> Result<i64> {
    let invalid = || Error::user(SqlState("22007"), format!("invalid input syntax for type interval: {interval}"));
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
    let parsed = parse_interval_month_day_nano(&text).map_err(|_| invalid())?;
    if parsed.months != 0 {
        return Err(Error::unsupported(format!("the length of {interval} varies: a window or watermark needs a fixed length")).with_hint("Use days, hours, minutes or seconds."));
    }
    i64::from(parsed.days).checked_mul(DAY_MICROS).and_then(|d| d.checked_add(parsed.nanoseconds / 1000)).ok_or_else(invalid)
}
