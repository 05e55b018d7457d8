//! Moments and texts: casts, `to_char`, `to_date`, `to_timestamp`, and rounding to digits of the
//! second.

use super::*;
use crate::functions::number_format;
use arrow::compute;
use datafusion_common::plan_err;
use tidemark_values::moment::{self as m, IntervalFields, Session, Template};

type Span = IntervalMonthDayNanoType;

/// Digits of the second that are kept.
const ALL_DIGITS: u8 = 6;

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "to_char",
            aliases: &[],
            takes: |types| match types {
                [DataType::Interval(_), p] if is_text(p) => Some(vec![interval(), DataType::Utf8]),
                [at, p] if is_text(p) => match moment(at) {
                    Some(at) => Some(vec![at, DataType::Utf8]),
                    None => number_format::takes_to_char(types),
                },
                [DataType::Timestamp(_, Some(_)), p, zone] if is_text(p) && is_text(zone) => {
                    Some(vec![timestamptz(), DataType::Utf8, DataType::Utf8])
                }
                _ => None,
            },
            returns: |_| DataType::Utf8,
            evaluate: to_char,
        },
        Definition {
            name: "to_timestamp",
            aliases: &[],
            takes: |types| match types {
                [t] if is_text(t) => Some(vec![timestamptz()]),
                [DataType::Timestamp(_, _) | DataType::Date32] => Some(vec![timestamptz()]),
                [t] if t.is_numeric() => Some(vec![DataType::Float64]),
                [_, _] | [_, _, _] if types.iter().all(is_text) => {
                    Some(vec![DataType::Utf8; types.len()])
                }
                _ => None,
            },
            returns: |_| timestamptz(),
            evaluate: to_timestamp,
        },
        Definition {
            name: "to_date",
            aliases: &[],
            takes: |types| match types {
                [t] if is_text(t) || moment(t).is_some() => Some(vec![DataType::Date32]),
                [t, p] if is_text(t) && is_text(p) => Some(vec![DataType::Utf8; 2]),
                _ => None,
            },
            returns: |_| DataType::Date32,
            evaluate: to_date,
        },
        Definition {
            name: "moment_round",
            aliases: &[],
            takes: |types| match types {
                [DataType::Time64(_), digits] if is_int(digits) => {
                    Some(vec![time(), DataType::Int64])
                }
                [DataType::Interval(_), digits] if is_int(digits) => {
                    Some(vec![interval(), DataType::Int64])
                }
                [at, digits] if is_int(digits) => Some(vec![moment(at)?, DataType::Int64]),
                _ => None,
            },
            returns: |types| types[0].clone(),
            evaluate: rounded,
        },
        Definition {
            name: "interval_restricted",
            aliases: &[],
            takes: |types| match types {
                [DataType::Interval(_) | DataType::Null, fields, digits]
                    if is_text(fields) && is_int(digits) =>
                {
                    Some(vec![interval(), DataType::Utf8, DataType::Int64])
                }
                _ => None,
            },
            returns: |_| interval(),
            evaluate: restricted,
        },
    ]
}

/// The cast to an interval of the fields that a constant names, with so many digits of the second.
fn restricted(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let fields = constant_text(args, 1).flatten().and_then(fields_named);
    let digits = constant_int(args, 2).flatten();
    let (Some(fields), Some(digits)) = (fields, digits) else {
        return plan_err!("an interval of no fields");
    };
    let digits = digits.clamp(0, ALL_DIGITS.into()) as u8;
    let values = column(args, 0)?;
    result(args, rounded_to(&values, fields, digits)?)
}

/// Fields as SQL writes them.
fn fields_named(name: &str) -> Option<IntervalFields> {
    use IntervalFields as F;
    Some(match name {
        "YEAR" => F::Year,
        "MONTH" => F::Month,
        "DAY" => F::Day,
        "HOUR" => F::Hour,
        "MINUTE" => F::Minute,
        "SECOND" => F::Second,
        "YEAR TO MONTH" => F::YearToMonth,
        "DAY TO HOUR" => F::DayToHour,
        "DAY TO MINUTE" => F::DayToMinute,
        "DAY TO SECOND" => F::DayToSecond,
        "HOUR TO MINUTE" => F::HourToMinute,
        "HOUR TO SECOND" => F::HourToSecond,
        "MINUTE TO SECOND" => F::MinuteToSecond,
        _ => return None,
    })
}

/// A text that means the time at which it is read is no value of a query: the planner has written
/// constants out as calls of `now()`.
fn not_now(text: &str) -> tidemark_common::Result<()> {
    const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
    let mut words = text.split_ascii_whitespace();
    if words.any(|w| WORDS.iter().any(|word| w.eq_ignore_ascii_case(word))) {
        return Err(
            Error::unsupported(format!("the text \"{text}\" depends on when it is read"))
                .with_hint("Use now() or current_date."),
        );
    }
    Ok(())
}

/// Whether casts between these types are PostgreSQL's, and not Arrow's.
pub(in crate::functions) fn is_moment(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Date32
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Interval(IntervalUnit::MonthDayNano)
    )
}

/// A column of texts or moments as a column of moments or texts; `None` where that is nothing of
/// ours.
///
/// Errors: `22007` and `22008`, as PostgreSQL.
pub(in crate::functions) fn cast_array(
    array: &ArrayRef,
    to: &DataType,
    zone: &Zone,
) -> Result<Option<ArrayRef>> {
    Ok(Some(match (array.data_type(), to) {
        (DataType::Utf8, to) if is_moment(to) => read_at(array.as_string(), to, None, zone)?,
        (DataType::LargeUtf8 | DataType::Utf8View, to) if is_moment(to) => {
            let plain = compute::cast(array, &DataType::Utf8)?;
            read_at(plain.as_string(), to, None, zone)?
        }
        (from, DataType::Utf8) if is_moment(from) => Arc::new(printed(array, zone)?),
        (DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, zoned)) => {
            let start = |date| match zoned {
                Some(_) => m::date_to_timestamptz(date, zone),
                None => m::date_to_timestamp(date),
            };
            let dates = array.as_primitive::<Date32Type>().iter();
            let moments = dates
                .map(|d| d.map(start).transpose().map_err(external))
                .collect::<Result<TimestampMicrosecondArray>>()?;
            Arc::new(moments.with_data_type(to.clone()))
        }
        (
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)),
        ) => moved(array, to, |local| m::moment_at_zone(local, zone))?,
        (
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)),
            DataType::Timestamp(TimeUnit::Microsecond, None),
        ) => moved(array, to, |moment| m::local_at_zone(moment, zone))?,
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Date32) => Arc::new(
            local(array, zone)?
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, Date32Type>(m::timestamp_to_date),
        ),
        (
            DataType::Timestamp(TimeUnit::Microsecond, _),
            DataType::Time64(TimeUnit::Microsecond),
        ) => {
            let array = local(array, zone)?;
            let moments = array.as_primitive::<TimestampMicrosecondType>().iter();
            let times: Time64MicrosecondArray =
                moments.map(|t| t.and_then(m::timestamp_to_time)).collect();
            Arc::new(times)
        }
        (DataType::Interval(IntervalUnit::MonthDayNano), DataType::Time64(_)) => {
            let spans = array.as_primitive::<Span>().iter();
            let times: Time64MicrosecondArray =
                spans.map(|i| i.map(|i| span(i).time_of_day())).collect();
            Arc::new(times)
        }
        (
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(IntervalUnit::MonthDayNano),
        ) => {
            let times = array.as_primitive::<Time64MicrosecondType>().iter();
            let spans: IntervalMonthDayNanoArray = times
                .map(|t| t.map(|t| IntervalMonthDayNano::new(0, 0, t * 1000)))
                .collect();
            Arc::new(spans)
        }
        _ => return Ok(None),
    }))
}

/// Timestamps through `f`, as ones of type `to`.
fn moved(
    array: &ArrayRef,
    to: &DataType,
    f: impl Fn(i64) -> tidemark_common::Result<i64>,
) -> Result<ArrayRef> {
    let moved = array
        .as_primitive::<TimestampMicrosecondType>()
        .try_unary::<_, TimestampMicrosecondType, _>(|at| f(at).map_err(external))?;
    Ok(Arc::new(moved.with_data_type(to.clone())))
}

/// Timestamps as clocks show them.
fn local(array: &ArrayRef, zone: &Zone) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Timestamp(_, Some(_)) if zone.constant() != Some(0) => {
            moved(array, &timestamp(), |at| m::local_at_zone(at, zone))
        }
        _ => Ok(array.clone()),
    }
}

/// Texts as moments in a zone, with the time that `now` means, in microseconds since 1970.
pub(in crate::functions) fn read_at(
    texts: &StringArray,
    to: &DataType,
    now: Option<i64>,
    zone: &Zone,
) -> Result<ArrayRef> {
    fn each<T, A: FromIterator<Option<T>>>(
        texts: &StringArray,
        f: impl Fn(&str) -> tidemark_common::Result<T>,
    ) -> Result<A> {
        texts
            .iter()
            .map(|t| t.map(&f).transpose().map_err(external))
            .collect()
    }
    if now.is_none() {
        texts
            .iter()
            .flatten()
            .filter(|t| t.contains(['o', 'O']))
            .try_for_each(|t| not_now(t).map_err(external))?;
    }
    let session = Session {
        now: now.unwrap_or(0),
        zone: zone.clone(),
    };
    Ok(match to {
        DataType::Date32 => Arc::new(each::<_, Date32Array>(texts, |t| {
            m::read_date(t, &session)
        })?),
        DataType::Time64(_) => Arc::new(each::<_, Time64MicrosecondArray>(texts, |t| {
            m::read_time(t, ALL_DIGITS, &session)
        })?),
        DataType::Interval(_) => {
            let spans: Vec<Option<Interval>> = each(texts, |t| {
                m::read_interval(t, IntervalFields::All, ALL_DIGITS)
            })?;
            Arc::new(
                spans
                    .into_iter()
                    .map(|v| v.map(stored).transpose())
                    .collect::<Result<IntervalMonthDayNanoArray>>()?,
            )
        }
        DataType::Timestamp(_, zone) => {
            let zoned = zone.is_some();
            let moments: TimestampMicrosecondArray = each(texts, |t| {
                if zoned {
                    m::read_timestamptz(t, ALL_DIGITS, &session)
                } else {
                    m::read_timestamp(t, ALL_DIGITS, &session)
                }
            })?;
            Arc::new(moments.with_data_type(to.clone()))
        }
        other => return plan_err!("{other} is no moment"),
    })
}

fn printed(array: &ArrayRef, zone: &Zone) -> Result<StringArray> {
    fn each<T: ArrowPrimitiveType>(
        array: &ArrayRef,
        push: impl Fn(&mut Vec<u8>, T::Native),
    ) -> StringArray {
        let values = array.as_primitive::<T>();
        let mut texts = StringBuilder::with_capacity(values.len(), values.len() * 20);
        let mut text = Vec::new();
        for value in values {
            match value {
                Some(value) => {
                    text.clear();
                    push(&mut text, value);
                    texts.append_value(String::from_utf8_lossy(&text));
                }
                None => texts.append_null(),
            }
        }
        texts.finish()
    }
    Ok(match array.data_type() {
        DataType::Date32 => each::<Date32Type>(array, m::push_date),
        DataType::Time64(_) => each::<Time64MicrosecondType>(array, m::push_time),
        DataType::Interval(_) => each::<Span>(array, |t, v| m::push_interval(t, span(v))),
        DataType::Timestamp(_, None) => each::<TimestampMicrosecondType>(array, m::push_timestamp),
        DataType::Timestamp(_, Some(_)) => {
            each::<TimestampMicrosecondType>(array, |t, v| m::push_timestamptz(t, v, zone))
        }
        other => return plan_err!("{other} is no moment"),
    })
}

/// The compiled pattern of each row; rows that follow each other with one pattern share it.
struct Patterns {
    texts: ArrayRef,
    known: Option<(String, Template)>,
}

impl Patterns {
    fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Patterns> {
        Ok(Patterns {
            texts: column(args, i)?,
            known: None,
        })
    }

    fn get(&mut self, row: usize) -> Option<&Template> {
        let texts = self.texts.as_string::<i32>();
        if texts.is_null(row) {
            return None;
        }
        let text = texts.value(row);
        if self.known.as_ref().is_none_or(|(known, _)| known != text) {
            self.known = Some((text.to_string(), Template::new(text)));
        }
        self.known.as_ref().map(|(_, template)| template)
    }
}

/// Whether a pattern writes nothing smaller than a day: moments of one day have one text.
fn is_of_days(pattern: &str) -> bool {
    const SMALLER: [&str; 12] = [
        "HH", "MI", "SS", "MS", "US", "AM", "PM", "A.M", "P.M", "FF", "TZ", "OF",
    ];
    let pattern = pattern.to_ascii_uppercase();
    !SMALLER.iter().any(|part| pattern.contains(part))
}

/// `to_char` of timestamps by a constant pattern of days: the text of the last day is repeated.
fn days_as_text(at: &TimestampMicrosecondArray, pattern: &str) -> Result<StringArray> {
    let template = Template::new(pattern);
    let mut texts = StringBuilder::with_capacity(at.len(), at.len() * 12);
    let mut known: Option<(i64, Option<String>)> = None;
    for micros in at {
        let Some(micros) = micros else {
            texts.append_null();
            continue;
        };
        let day = micros.div_euclid(m::DAY);
        let same = known.as_ref().is_some_and(|(known, _)| *known == day);
        if !same || !m::timestamp_is_finite(micros) {
            let text = m::to_char_timestamp(&template, micros).map_err(external)?;
            known = Some((day, text));
        }
        texts.append_option(known.as_ref().and_then(|(_, text)| text.as_deref()));
    }
    Ok(texts.finish())
}

fn to_char(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if !args.args[0].data_type().is_temporal() {
        return number_format::to_char(args);
    }
    let at = column(args, 0)?;
    if *at.data_type() == timestamp()
        && let Some(Some(pattern)) = constant_text(args, 1)
        && is_of_days(pattern)
    {
        let texts = days_as_text(at.as_primitive(), pattern)?;
        return result(args, Arc::new(texts));
    }
    let zone = zone_of(args, 2)?;
    let mut patterns = Patterns::of(args, 1)?;
    let mut texts = StringBuilder::with_capacity(at.len(), at.len() * 16);
    for row in 0..at.len() {
        let template = patterns.get(row);
        let Some(template) = template.filter(|_| at.is_valid(row)) else {
            texts.append_null();
            continue;
        };
        let text = match at.data_type() {
            DataType::Interval(_) => {
                m::to_char_interval(template, span(at.as_primitive::<Span>().value(row)))
            }
            DataType::Timestamp(_, None) => {
                let value = at.as_primitive::<TimestampMicrosecondType>().value(row);
                m::to_char_timestamp(template, value)
            }
            _ => {
                let value = at.as_primitive::<TimestampMicrosecondType>().value(row);
                m::to_char_timestamptz(template, value, &zone)
            }
        };
        texts.append_option(text.map_err(external)?);
    }
    result(args, Arc::new(texts.finish()))
}

/// What `f` makes of text and pattern of each row.
fn parsed<T>(
    args: &ScalarFunctionArgs,
    f: impl Fn(&str, &Template) -> tidemark_common::Result<T>,
) -> Result<Vec<Option<T>>> {
    let texts = column(args, 0)?;
    let texts = texts.as_string::<i32>();
    let mut patterns = Patterns::of(args, 1)?;
    (0..texts.len())
        .map(|row| match patterns.get(row) {
            Some(template) if texts.is_valid(row) => {
                f(texts.value(row), template).map(Some).map_err(external)
            }
            _ => Ok(None),
        })
        .collect()
}

fn to_timestamp(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args.len() > 1 {
        let zone = zone_of(args, 2)?;
        let values = parsed(args, |text, template| {
            m::to_timestamp(text, template, &zone)
        })?;
        return moments(args, values);
    }
    let values = column(args, 0)?;
    if *values.data_type() != DataType::Float64 {
        return result(args, values);
    }
    let seconds = values.as_primitive::<Float64Type>().iter();
    let values = seconds
        .map(|s| s.map(m::timestamp_of_epoch).transpose().map_err(external))
        .collect::<Result<Vec<_>>>()?;
    moments(args, values)
}

fn to_date(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args.len() == 1 {
        let dates = column(args, 0)?;
        return result(args, dates);
    }
    let days = parsed(args, m::to_date)?;
    result(args, Arc::new(Date32Array::from(days)))
}

/// A moment rounded to digits of the second: `timestamp(0)`.
fn rounded(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let Some(digits) = constant_int(args, 1).flatten() else {
        return plan_err!("a moment of no digits");
    };
    let digits = digits.clamp(0, ALL_DIGITS.into()) as u8;
    let values = column(args, 0)?;
    result(args, rounded_to(&values, IntervalFields::All, digits)?)
}

/// Times, timestamps and intervals with so many digits of the second; intervals have no more than
/// these fields. As a column of such a type keeps them.
///
/// Errors: `22008` for an interval that is out of range then.
pub fn rounded_to(values: &ArrayRef, fields: IntervalFields, digits: u8) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Interval(_) => {
            let cut = |v| stored(span(v).restricted(fields, digits));
            Arc::new(values.as_primitive::<Span>().try_unary::<_, Span, _>(cut)?)
        }
        DataType::Time64(_) => {
            let times = values.as_primitive::<Time64MicrosecondType>();
            let round = |v| m::round_micros(v, digits);
            Arc::new(times.unary::<_, Time64MicrosecondType>(round))
        }
        _ => {
            let moments = values.as_primitive::<TimestampMicrosecondType>();
            let round = |v| m::round_timestamp(v, digits);
            let rounded = moments.unary::<_, TimestampMicrosecondType>(round);
            Arc::new(rounded.with_data_type(values.data_type().clone()))
        }
    })
}
