//! Differences, `age`, `justify_*`, intervals by numbers, and moments made of their fields.

use super::*;
use arrow::compute;
use tidemark_values::moment as m;

type Micros = TimestampMicrosecondType;
type Span = IntervalMonthDayNanoType;

pub(super) fn definitions() -> Vec<Definition> {
    let of_interval = |types: &[DataType]| match types {
        [DataType::Interval(_) | DataType::Null] => Some(vec![interval()]),
        _ => None,
    };
    let by_number = |types: &[DataType]| match types {
        [DataType::Interval(_), n] if n.is_numeric() || *n == DataType::LargeBinary => {
            Some(vec![interval(), DataType::Float64])
        }
        _ => None,
    };
    let interval_function = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| interval(),
        evaluate,
    };
    let mut all = vec![
        interval_function("timestamp_minus", two_alike, |a| {
            intervals(a, both::<Micros, Micros, _>(a, m::timestamp_minus)?)
        }),
        interval_function("age", |types| with_zone(types, 2, two_alike), age),
        interval_function("justify_hours", of_interval, |a| {
            spans(a, m::Interval::justify_hours)
        }),
        interval_function("justify_days", of_interval, |a| {
            spans(a, m::Interval::justify_days)
        }),
        interval_function("justify_interval", of_interval, |a| {
            spans(a, m::Interval::justify)
        }),
        interval_function("interval_times", by_number, |a| {
            let product = |i, n| span(i).times(n);
            intervals(a, both::<Span, Float64Type, _>(a, product)?)
        }),
        interval_function("interval_divide", by_number, |a| {
            let quotient = |i, n| span(i).divided(n);
            intervals(a, both::<Span, Float64Type, _>(a, quotient)?)
        }),
        interval_function("time_minus", two_times, |a| {
            let minus = |l, r| Ok(m::time_minus_time(l, r));
            let times = both::<Time64MicrosecondType, Time64MicrosecondType, _>(a, minus)?;
            intervals(a, times)
        }),
        interval_function("make_interval", takes_fields, make_interval),
    ];
    all.extend([
        Definition {
            name: "date_minus",
            aliases: &[],
            takes: |types| {
                let dates = [DataType::Date32, DataType::Null];
                (types.len() == 2 && types.iter().all(|t| dates.contains(t)))
                    .then(|| vec![DataType::Date32; 2])
            },
            returns: |_| DataType::Int32,
            evaluate: |a| {
                let days = both::<Date32Type, Date32Type, _>(a, m::date_minus_date)?;
                result(a, Arc::new(Int32Array::from(days)))
            },
        },
        Definition {
            name: "date_plus_days",
            aliases: &[],
            takes: date_and_days,
            returns: |_| DataType::Date32,
            evaluate: |a| {
                let sums = both::<Date32Type, Int32Type, _>(a, m::date_plus_days)?;
                result(a, Arc::new(Date32Array::from(sums)))
            },
        },
        Definition {
            name: "date_minus_days",
            aliases: &[],
            takes: date_and_days,
            returns: |_| DataType::Date32,
            evaluate: |a| {
                let rests = both::<Date32Type, Int32Type, _>(a, m::date_minus_days)?;
                result(a, Arc::new(Date32Array::from(rests)))
            },
        },
        Definition {
            name: "overlaps",
            aliases: &[],
            takes: |types| {
                let first = types.iter().find(|t| **t != DataType::Null)?;
                let fits = |t: &DataType| t == first || *t == DataType::Null;
                let moments = matches!(first, DataType::Timestamp(_, _) | DataType::Time64(_));
                (types.len() == 4 && moments && types.iter().all(fits))
                    .then(|| vec![first.clone(); 4])
            },
            returns: |_| DataType::Boolean,
            evaluate: overlaps,
        },
        Definition {
            name: "date_plus_time",
            aliases: &[],
            takes: |types| match types {
                [DataType::Date32, DataType::Time64(_)] => Some(vec![DataType::Date32, time()]),
                _ => None,
            },
            returns: |_| timestamp(),
            evaluate: |a| {
                let sums = both::<Date32Type, Time64MicrosecondType, _>(a, m::date_plus_time)?;
                moments(a, sums)
            },
        },
        Definition {
            name: "time_plus_interval",
            aliases: &[],
            takes: time_and_interval,
            returns: |_| time(),
            evaluate: |a| times(a, |t, i| Ok(m::time_plus_interval(t, span(i)))),
        },
        Definition {
            name: "time_minus_interval",
            aliases: &[],
            takes: time_and_interval,
            returns: |_| time(),
            evaluate: |a| times(a, |t, i| Ok(m::time_minus_interval(t, span(i)))),
        },
        Definition {
            name: "timestamptz_plus",
            aliases: &[],
            takes: timestamptz_and_interval,
            returns: |_| timestamptz(),
            evaluate: |a| shifted(a, m::timestamptz_plus),
        },
        Definition {
            name: "timestamptz_minus",
            aliases: &[],
            takes: timestamptz_and_interval,
            returns: |_| timestamptz(),
            evaluate: |a| shifted(a, m::timestamptz_minus_interval),
        },
        Definition {
            // The first moment from which on another one less the interval (or more, of a sign of
            // 1) is not before the first argument, or (of a last argument of 1) is behind it.
            name: "moment_reached",
            aliases: &[],
            takes: |types| match types {
                [
                    DataType::Timestamp(TimeUnit::Microsecond, _),
                    DataType::Interval(_),
                    DataType::Int64,
                    DataType::Int64,
                ] => Some(types.to_vec()),
                _ => None,
            },
            returns: |types| types[0].clone(),
            evaluate: moment_reached,
        },
        Definition {
            name: "make_date",
            aliases: &[],
            takes: |types| numbers(types, 3, false),
            returns: |_| DataType::Date32,
            evaluate: |a| {
                let days = made(a, |f| m::make_date(f.int(0)?, f.int(1)?, f.int(2)?))?;
                result(a, Arc::new(Date32Array::from(days)))
            },
        },
        Definition {
            name: "make_time",
            aliases: &[],
            takes: |types| numbers(types, 3, true),
            returns: |_| time(),
            evaluate: |a| {
                let times = made(a, |f| m::make_time(f.int(0)?, f.int(1)?, f.last))?;
                result(a, Arc::new(Time64MicrosecondArray::from(times)))
            },
        },
        Definition {
            name: "make_timestamp",
            aliases: &[],
            takes: |types| numbers(types, 6, true),
            returns: |_| timestamp(),
            evaluate: |a| moments(a, made(a, timestamp_of)?),
        },
        Definition {
            name: "make_timestamptz",
            aliases: &[],
            takes: |types| with_zone(types, 6, |fields| numbers(fields, 6, true)),
            returns: |_| timestamptz(),
            evaluate: make_timestamptz,
        },
    ]);
    all
}

/// Two timestamps of one kind; dates are timestamps.
fn two_alike(types: &[DataType]) -> Option<Vec<DataType>> {
    let zoned = types
        .iter()
        .any(|t| matches!(t, DataType::Timestamp(_, Some(_))));
    let fits = |t: &DataType| {
        matches!(
            t,
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Null
        )
    };
    let common = if zoned { timestamptz() } else { timestamp() };
    (types.len() == 2 && types.iter().all(fits)).then(|| vec![common; 2])
}

/// A moment, an interval and the zone whose days are counted.
fn timestamptz_and_interval(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Timestamp(_, Some(_)), DataType::Interval(_), zone] if is_text(zone) => {
            Some(vec![timestamptz(), interval(), DataType::Utf8])
        }
        _ => None,
    }
}

/// Moments moved by intervals, as the clocks of a zone count days.
fn shifted(
    args: &ScalarFunctionArgs,
    f: impl Fn(i64, Interval, &Zone) -> tidemark_common::Result<i64>,
) -> Result<ColumnarValue> {
    let zone = zone_of(args, 2)?;
    let sums = both::<Micros, Span, _>(args, |at, by| f(at, span(by), &zone))?;
    moments(args, sums)
}

fn moment_reached(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let adds = constant_int(args, 2).flatten() == Some(1);
    let later = constant_int(args, 3).flatten().unwrap_or(0);
    let reached = |at: i64, by| {
        let span = span(by);
        let span = if adds { span.negated()? } else { span };
        let later = if at == m::TIMESTAMP_MINUS_INFINITY {
            0
        } else {
            later
        };
        m::timestamp_reached(at.saturating_add(later), span)
    };
    moments(args, both::<Micros, Span, _>(args, reached)?)
}

fn age(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let ages = if args.args.len() == 3 {
        let zone = zone_of(args, 2)?;
        both::<Micros, Micros, _>(args, |a, b| m::timestamptz_age(a, b, &zone))?
    } else {
        both::<Micros, Micros, _>(args, m::timestamp_age)?
    };
    intervals(args, ages)
}

/// Whether two periods, each given by its ends, have a moment in common.
fn overlaps(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let ends = (0..4)
        .map(|i| Ok(compute::cast(&column(args, i)?, &DataType::Int64)?))
        .collect::<Result<Vec<_>>>()?;
    let end = |i: usize, row: usize| {
        let ends = ends[i].as_primitive::<Int64Type>();
        ends.is_valid(row).then(|| ends.value(row))
    };
    let found = (0..rows(args))
        .map(|row| m::overlaps((end(0, row), end(1, row)), (end(2, row), end(3, row))));
    result(args, Arc::new(found.collect::<BooleanArray>()))
}

fn date_and_days(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Date32, days] if is_int(days) => Some(vec![DataType::Date32, DataType::Int32]),
        _ => None,
    }
}

fn two_times(types: &[DataType]) -> Option<Vec<DataType>> {
    let fits = |t: &DataType| matches!(t, DataType::Time64(_) | DataType::Null);
    (types.len() == 2 && types.iter().all(fits)).then(|| vec![time(); 2])
}

fn time_and_interval(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Time64(_), DataType::Interval(_)] => Some(vec![time(), interval()]),
        _ => None,
    }
}

fn times(
    args: &ScalarFunctionArgs,
    f: impl Fn(i64, IntervalMonthDayNano) -> tidemark_common::Result<i64>,
) -> Result<ColumnarValue> {
    let times = both::<Time64MicrosecondType, Span, _>(args, f)?;
    result(args, Arc::new(Time64MicrosecondArray::from(times)))
}

fn spans(
    args: &ScalarFunctionArgs,
    f: impl Fn(Interval) -> tidemark_common::Result<Interval>,
) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let values = values.as_primitive::<Span>().iter();
    let spans = values
        .map(|v| v.map(|v| f(span(v)).map_err(external)).transpose())
        .collect::<Result<Vec<_>>>()?;
    intervals(args, spans)
}

/// `count` integers, of which the last may be the seconds with a fraction.
fn numbers(types: &[DataType], count: usize, seconds: bool) -> Option<Vec<DataType>> {
    let number = |t: &DataType| t.is_numeric() || *t == DataType::Null;
    if types.len() != count || !types.iter().all(number) {
        return None;
    }
    let mut taken = vec![DataType::Int64; count];
    if seconds && let Some(last) = taken.last_mut() {
        *last = DataType::Float64;
    }
    Some(taken)
}

fn takes_fields(types: &[DataType]) -> Option<Vec<DataType>> {
    numbers(types, 7, true)
}

/// The fields of one row.
struct Fields {
    whole: Vec<i64>,
    last: f64,
}

impl Fields {
    fn int(&self, i: usize) -> tidemark_common::Result<i32> {
        i32::try_from(self.whole[i])
            .map_err(|_| Error::user(SqlState::NUMERIC_OUT_OF_RANGE, "integer out of range"))
    }
}

/// What `f` makes of the fields of each row that has them all.
fn made<T>(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Fields) -> tidemark_common::Result<T>,
) -> Result<Vec<Option<T>>> {
    made_of(args, args.args.len(), |fields, _| f(fields))
}

/// The same of the first `count` arguments; `f` has the row too.
fn made_of<T>(
    args: &ScalarFunctionArgs,
    count: usize,
    mut f: impl FnMut(&Fields, usize) -> tidemark_common::Result<T>,
) -> Result<Vec<Option<T>>> {
    let columns = (0..count)
        .map(|i| column(args, i))
        .collect::<Result<Vec<_>>>()?;
    let row_of = |row: usize| {
        let mut fields = Fields {
            whole: Vec::with_capacity(columns.len()),
            last: 0.0,
        };
        for column in &columns {
            if column.is_null(row) {
                return Ok(None);
            }
            match column.data_type() {
                DataType::Float64 => fields.last = column.as_primitive::<Float64Type>().value(row),
                _ => fields
                    .whole
                    .push(column.as_primitive::<Int64Type>().value(row)),
            }
        }
        f(&fields, row).map(Some).map_err(external)
    };
    (0..rows(args)).map(row_of).collect()
}

/// `make_timestamptz`: what clocks show, in UTC or in the zone that the last argument names.
fn make_timestamptz(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args.len() == 6 {
        return moments(args, made(args, timestamp_of)?);
    }
    let names = column(args, 6)?;
    let names = names.as_string::<i32>();
    let mut known: Option<(&str, Zone)> = None;
    let values = made_of(args, 6, |fields, row| {
        if names.is_null(row) {
            return Ok(None);
        }
        let name = names.value(row);
        if known.as_ref().is_none_or(|(n, _)| *n != name) {
            known = Some((name, Zone::of_argument(name)?));
        }
        let zone = known.as_ref().map_or(&Zone::UTC, |(_, zone)| zone);
        m::moment_at_zone(timestamp_of(fields)?, zone).map(Some)
    })?;
    moments(args, values.into_iter().map(Option::flatten))
}

fn timestamp_of(f: &Fields) -> tidemark_common::Result<i64> {
    m::make_timestamp(
        f.int(0)?,
        f.int(1)?,
        f.int(2)?,
        f.int(3)?,
        f.int(4)?,
        f.last,
    )
}

fn make_interval(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let spans = made(args, |f| {
        m::make_interval(
            f.int(0)?,
            f.int(1)?,
            f.int(2)?,
            f.int(3)?,
            f.int(4)?,
            f.int(5)?,
            f.last,
        )
    })?;
    intervals(args, spans)
}
