//! Fields of moments (`extract`, `date_part`), their beginnings (`date_trunc`, `date_bin`), and
//! what clocks show elsewhere (`AT TIME ZONE`).

use super::*;
use datafusion_common::exec_err;
use tidemark_values::moment::{self as m, Part, Unit};
use tidemark_values::numeric::Numeric;

type Span = IntervalMonthDayNanoType;

/// Digits of a field without a fraction, and of one in microseconds.
const WHOLE_DIGITS: u8 = 19;
const MICROS_DIGITS: u8 = 25;

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "extract",
            aliases: &[],
            takes: field_and_moment,
            returns: |_| DataType::LargeBinary,
            evaluate: extract,
        },
        Definition {
            name: "extract_whole",
            aliases: &[],
            takes: field_and_moment,
            returns: |_| DataType::Decimal128(WHOLE_DIGITS, 0),
            evaluate: extract_fixed,
        },
        Definition {
            name: "extract_micros",
            aliases: &[],
            takes: field_and_moment,
            returns: |types| match types[1] {
                DataType::Date32 => DataType::Decimal128(WHOLE_DIGITS, 0),
                _ => DataType::Decimal128(MICROS_DIGITS, 6),
            },
            evaluate: extract_fixed,
        },
        Definition {
            name: "date_part",
            aliases: &[],
            takes: field_and_moment,
            returns: |_| DataType::Float64,
            evaluate: date_part,
        },
        Definition {
            name: "date_trunc",
            aliases: &[],
            takes: |types| match types {
                [field, DataType::Interval(_)] if is_text(field) => {
                    Some(vec![DataType::Utf8, interval()])
                }
                [field, DataType::Timestamp(_, None)] if is_text(field) => {
                    Some(vec![DataType::Utf8, timestamp()])
                }
                [field, at] if is_text(field) && moment(at).is_some() => {
                    Some(vec![DataType::Utf8, timestamptz()])
                }
                [field, at, zone] if is_text(field) && is_text(zone) && moment(at).is_some() => {
                    Some(vec![DataType::Utf8, timestamptz(), DataType::Utf8])
                }
                _ => None,
            },
            returns: |types| types[1].clone(),
            evaluate: date_trunc,
        },
        Definition {
            name: "date_trunc_in_session",
            aliases: &[],
            takes: |types| match types {
                [field, DataType::Timestamp(_, Some(_)), zone]
                    if is_text(field) && is_text(zone) =>
                {
                    Some(vec![DataType::Utf8, timestamptz(), DataType::Utf8])
                }
                _ => None,
            },
            returns: |_| timestamptz(),
            evaluate: date_trunc_in_session,
        },
        Definition {
            name: "date_bin",
            aliases: &[],
            takes: |types| match types {
                [stride, at, origin]
                    if matches!(stride, DataType::Interval(_)) || is_text(stride) =>
                {
                    let zoned = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
                    moment(at)?;
                    moment(origin)?;
                    let at = if zoned(at) || zoned(origin) {
                        timestamptz()
                    } else {
                        timestamp()
                    };
                    Some(vec![interval(), at.clone(), at])
                }
                _ => None,
            },
            returns: |types| types[1].clone(),
            evaluate: date_bin,
        },
        Definition {
            name: "isfinite",
            aliases: &[],
            takes: |types| match types {
                [DataType::Date32 | DataType::Interval(_)] => Some(types.to_vec()),
                [t] => Some(vec![moment(t)?]),
                _ => None,
            },
            returns: |_| DataType::Boolean,
            evaluate: is_finite,
        },
        Definition {
            name: "timezone",
            aliases: &[],
            takes: zone_and_moment,
            returns: |types| match &types[1] {
                DataType::Timestamp(_, None) => timestamptz(),
                _ => timestamp(),
            },
            evaluate: timezone,
        },
    ]
}

fn field_and_moment(types: &[DataType]) -> Option<Vec<DataType>> {
    let (field, at) = match types {
        [field, at] => (field, at),
        [field, at @ DataType::Timestamp(_, Some(_)), zone] if is_text(zone) => {
            let mut taken = field_and_moment(&[field.clone(), at.clone()])?;
            taken.push(DataType::Utf8);
            return Some(taken);
        }
        _ => return None,
    };
    let at = match at {
        DataType::Date32 => DataType::Date32,
        DataType::Interval(_) => interval(),
        DataType::Time64(_) => time(),
        at => moment(at)?,
    };
    is_text(field).then(|| vec![DataType::Utf8, at])
}

/// The values of a field, through the function for the moment's type; `put` writes one.
fn each_field<T>(
    args: &ScalarFunctionArgs,
    of: impl Fn(&str, &ArrayRef, usize) -> tidemark_common::Result<Option<T>>,
) -> Result<Vec<Option<T>>> {
    let (fields, at) = (column(args, 0)?, column(args, 1)?);
    let fields = fields.as_string::<i32>();
    (0..at.len())
        .map(|row| {
            if fields.is_null(row) || at.is_null(row) {
                return Ok(None);
            }
            of(fields.value(row), &at, row).map_err(external)
        })
        .collect()
}

fn part(
    field: &str,
    at: &ArrayRef,
    row: usize,
    zone: &Zone,
) -> tidemark_common::Result<Option<Part>> {
    match at.data_type() {
        DataType::Date32 => m::extract_date(field, at.as_primitive::<Date32Type>().value(row)),
        DataType::Time64(_) => {
            let value = at.as_primitive::<Time64MicrosecondType>().value(row);
            m::extract_time(field, value).map(Some)
        }
        DataType::Interval(_) => {
            let value = span(at.as_primitive::<Span>().value(row));
            m::extract_interval(field, value).map(Some)
        }
        DataType::Timestamp(_, zoned) => {
            let value = at.as_primitive::<TimestampMicrosecondType>().value(row);
            if zoned.is_some() {
                m::extract_timestamptz(field, value, zone)
            } else {
                m::extract_timestamp(field, value)
            }
        }
        _ => Ok(None),
    }
}

/// The parts of all rows. The name of a constant field is looked up once.
fn parts_of(args: &ScalarFunctionArgs) -> Result<Vec<Option<Part>>> {
    let zone = zone_of(args, 2)?;
    let by_name = |field: &str, at: &ArrayRef, row| part(field, at, row, &zone);
    let unit = match constant_text(args, 0).flatten().map(Unit::named) {
        Some(Some(unit)) => unit,
        _ => return each_field(args, by_name),
    };
    let at = column(args, 1)?;
    let DataType::Timestamp(_, zoned) = at.data_type() else {
        return each_field(args, by_name);
    };
    let zoned = zoned.is_some();
    let of = |micros| {
        if zoned {
            m::extract_timestamptz_unit(unit, micros, &zone)
        } else {
            m::extract_timestamp_unit(unit, micros)
        }
    };
    let parts: Result<Vec<_>> = at
        .as_primitive::<TimestampMicrosecondType>()
        .iter()
        .map(|t| t.map_or(Ok(None), of).map_err(external))
        .collect();
    // The other way has the field's name for its error.
    parts.or_else(|_| each_field(args, by_name))
}

fn extract(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let parts = parts_of(args)?;
    let mut builder = LargeBinaryBuilder::with_capacity(parts.len(), parts.len() * 6);
    let mut form = Vec::new();
    for part in parts {
        let Some(part) = part else {
            builder.append_null();
            continue;
        };
        let value = match part {
            Part::Number { unscaled, scale } => {
                Numeric::from_unscaled(unscaled, u16::try_from(scale).unwrap_or(0))
            }
            Part::Infinity => Numeric::INFINITY,
            Part::MinusInfinity => Numeric::NEG_INFINITY,
        };
        form.clear();
        value.encode(&mut form);
        builder.append_value(&form);
    }
    result(args, Arc::new(builder.finish()))
}

/// A field whose scale is known, as a `Decimal128` of it; infinities are none.
fn extract_fixed(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let DataType::Decimal128(precision, wanted) = *args.return_field.data_type() else {
        return exec_err!("a field as {}", args.return_field.data_type());
    };
    let values = parts_of(args)?
        .into_iter()
        .map(|part| match part {
            None => Ok(None),
            Some(Part::Number { unscaled, scale }) if i64::from(scale) == i64::from(wanted) => {
                Ok(Some(unscaled))
            }
            Some(Part::Number { unscaled: 0, .. }) => Ok(Some(0)),
            Some(_) => Err(failure(
                SqlState::NUMERIC_OUT_OF_RANGE,
                "cannot extract this field of infinity",
            )),
        })
        .collect::<Result<Decimal128Array>>()?;
    result(
        args,
        Arc::new(values.with_precision_and_scale(precision, wanted)?),
    )
}

fn date_part(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = zone_of(args, 2)?;
    let parts = each_field(args, |field, at, row| match at.data_type() {
        DataType::Time64(_) => {
            let value = at.as_primitive::<Time64MicrosecondType>().value(row);
            m::date_part_time(field, value).map(Some)
        }
        DataType::Interval(_) => {
            let value = span(at.as_primitive::<Span>().value(row));
            m::date_part_interval(field, value).map(Some)
        }
        DataType::Timestamp(_, zoned) => {
            let value = at.as_primitive::<TimestampMicrosecondType>().value(row);
            if zoned.is_some() {
                m::date_part_timestamptz(field, value, &zone)
            } else {
                m::date_part_timestamp(field, value)
            }
        }
        _ => Ok(part(field, at, row, &zone)?.map(Part::as_f64)),
    })?;
    result(args, Arc::new(Float64Array::from(parts)))
}

fn date_trunc(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let at = column(args, 1)?;
    if matches!(at.data_type(), DataType::Interval(_)) {
        let spans = each_field(args, |field, at, row| {
            let value = span(at.as_primitive::<Span>().value(row));
            m::truncate_interval(field, value).map(Some)
        })?;
        return intervals(args, spans);
    }
    let zones = if args.args.len() == 3 {
        Some(column(args, 2)?)
    } else {
        None
    };
    let zoned = matches!(at.data_type(), DataType::Timestamp(_, Some(_)));
    let mut known: Option<(String, Zone)> = None;
    let fields = column(args, 0)?;
    let (fields, at) = (
        fields.as_string::<i32>(),
        at.as_primitive::<TimestampMicrosecondType>(),
    );
    let mut starts = Vec::with_capacity(at.len());
    for row in 0..at.len() {
        if fields.is_null(row) || at.is_null(row) || zones.as_ref().is_some_and(|z| z.is_null(row))
        {
            starts.push(None);
            continue;
        }
        let (field, value) = (fields.value(row), at.value(row));
        let start = match &zones {
            Some(zones) => {
                let zone = zone_named(&mut known, zones.as_string::<i32>().value(row))?;
                m::truncate_timestamptz(field, value, zone)
            }
            None if zoned => m::truncate_timestamptz(field, value, &Zone::UTC),
            None => m::truncate_timestamp(field, value),
        };
        starts.push(Some(start.map_err(external)?));
    }
    moments(args, starts)
}

/// `date_trunc(field, timestamptz)` where the session's zone is not UTC.
fn date_trunc_in_session(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = zone_of(args, 2)?;
    let starts = each_field(args, |field, at, row| {
        let value = at.as_primitive::<TimestampMicrosecondType>().value(row);
        m::truncate_timestamptz(field, value, &zone).map(Some)
    })?;
    moments(args, starts)
}

/// The zone of a name, looked up once for rows that follow each other with one name.
fn zone_named<'a>(known: &'a mut Option<(String, Zone)>, name: &str) -> Result<&'a Zone> {
    let same = known.as_ref().is_some_and(|(n, _)| n == name);
    if !same {
        *known = None;
    }
    match known {
        Some((_, zone)) => Ok(zone),
        None => {
            let zone = Zone::find(name).map_err(external)?;
            Ok(&known.insert((name.to_string(), zone)).1)
        }
    }
}

fn date_bin(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (strides, at, origins) = (column(args, 0)?, column(args, 1)?, column(args, 2)?);
    let (at, origins) = (
        at.as_primitive::<TimestampMicrosecondType>(),
        origins.as_primitive::<TimestampMicrosecondType>(),
    );
    let strides = strides.as_primitive::<Span>();
    let starts = (0..at.len())
        .map(|row| {
            if strides.is_null(row) || at.is_null(row) || origins.is_null(row) {
                return Ok(None);
            }
            m::date_bin(span(strides.value(row)), at.value(row), origins.value(row))
                .map(Some)
                .map_err(external)
        })
        .collect::<Result<Vec<_>>>()?;
    moments(args, starts)
}

fn is_finite(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let finite: BooleanArray = match values.data_type() {
        DataType::Date32 => {
            let dates = values.as_primitive::<Date32Type>().iter();
            dates.map(|d| d.map(m::date_is_finite)).collect()
        }
        DataType::Timestamp(_, _) => {
            let moments = values.as_primitive::<TimestampMicrosecondType>().iter();
            moments.map(|t| t.map(m::timestamp_is_finite)).collect()
        }
        _ => (0..values.len())
            .map(|row| values.is_valid(row).then_some(true))
            .collect(),
    };
    result(args, Arc::new(finite))
}

fn zone_and_moment(types: &[DataType]) -> Option<Vec<DataType>> {
    let [zone, at] = types else { return None };
    let zone = match zone {
        DataType::Interval(_) => interval(),
        z if is_text(z) => DataType::Utf8,
        _ => return None,
    };
    // A date or a text is a timestamptz first, as in PostgreSQL.
    let at = match at {
        DataType::Timestamp(_, None) => timestamp(),
        DataType::Timestamp(_, Some(_)) | DataType::Date32 => timestamptz(),
        t if is_text(t) => timestamptz(),
        _ => return None,
    };
    Some(vec![zone, at])
}

fn timezone(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (zones, at) = (column(args, 0)?, column(args, 1)?);
    let to_local = matches!(at.data_type(), DataType::Timestamp(_, Some(_)));
    let at = at.as_primitive::<TimestampMicrosecondType>();
    let mut known: Option<(String, Zone)> = None;
    let mut shifted = Vec::with_capacity(at.len());
    for row in 0..at.len() {
        if zones.is_null(row) || at.is_null(row) {
            shifted.push(None);
            continue;
        }
        if !m::timestamp_is_finite(at.value(row)) {
            shifted.push(Some(at.value(row)));
            continue;
        }
        let of_interval;
        let zone = if let DataType::Interval(_) = zones.data_type() {
            let offset = span(zones.as_primitive::<Span>().value(row));
            of_interval = Zone::of_interval(offset).map_err(external)?;
            &of_interval
        } else {
            zone_named(&mut known, zones.as_string::<i32>().value(row))?
        };
        let moved = if to_local {
            m::local_at_zone(at.value(row), zone)
        } else {
            m::moment_at_zone(at.value(row), zone)
        };
        shifted.push(Some(moved.map_err(external)?));
    }
    moments(args, shifted)
}
