//! PostgreSQL's casts, where Arrow has none or casts otherwise: from and to numerics, and between
//! texts and moments, JSONB, bytes or arrays. The planner writes them as
//! `cast_as(value, NULL::type)`, and those that depend on a session's time zone as
//! `cast_as(value, NULL::type, 'zone')`.

use super::definition::*;
use super::{array, bytea, chars, json, maps, moment, numeric, records, text, uuids};
use arrow::array::*;
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_values::moment::Zone;
use tidemark_values::plain;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "cast_as",
            aliases: &[],
            takes: |types| matches!(types.len(), 2 | 3).then(|| types.to_vec()),
            returns: |types| types[1].clone(),
            evaluate: cast_as,
        },
        // A value; beside it the name of its type, by which plans tell two casts apart.
        Definition {
            name: "as_is",
            aliases: &[],
            takes: |types| (types.len() == 2).then(|| types.to_vec()),
            returns: |types| types[0].clone(),
            evaluate: |args| Ok(args.args[0].clone()),
        },
        // Planning knows the answer.
        Definition {
            name: "pg_typeof",
            aliases: &[],
            takes: |types| (types.len() == 1).then(|| types.to_vec()),
            returns: |_| DataType::Utf8,
            evaluate: |args| {
                let name = name_of(&args.args[0].data_type());
                Ok(ColumnarValue::Scalar(datafusion_common::ScalarValue::from(
                    name,
                )))
            },
        },
    ]
}

fn cast_as(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let to = args.return_field.data_type();
    let zone = moment::zone_of(args, 2)?;
    match &args.args[0] {
        ColumnarValue::Scalar(value) => {
            let array = cast_array_in(&value.to_array()?, to, &zone)?;
            Ok(ColumnarValue::Scalar(scalar(&array)?))
        }
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(cast_array_in(array, to, &zone)?)),
    }
}

/// Doubles as reals.
///
/// Errors: `22003` for one that is too large, or too near to zero.
fn reals(array: &ArrayRef) -> Result<ArrayRef> {
    let real = |value: f64| match value as f32 {
        real if real.is_infinite() && value.is_finite() => Err(failure(
            SqlState::NUMERIC_OUT_OF_RANGE,
            "value out of range: overflow",
        )),
        0.0 if value != 0.0 => Err(failure(
            SqlState::NUMERIC_OUT_OF_RANGE,
            "value out of range: underflow",
        )),
        real => Ok(real),
    };
    let values = array.as_primitive::<Float64Type>();
    Ok(Arc::new(values.try_unary::<_, Float32Type, _>(real)?))
}

/// A column as one of another type; moments are those of UTC.
///
/// Errors: `22P02` and `22007` for text that is no such value, `22003` and `22008` for what does
/// not fit.
pub fn cast_array(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast_array_in(array, to, &Zone::UTC)
}

/// The same in a time zone.
pub(super) fn cast_array_in(array: &ArrayRef, to: &DataType, zone: &Zone) -> Result<ArrayRef> {
    match (array.data_type(), to) {
        (from, to) if from == to => return Ok(array.clone()),
        (DataType::List(_), DataType::List(element)) => {
            let list = array::compact(array.as_list());
            let values = cast_elements(list.values(), element, zone)?;
            return Ok(Arc::new(ListArray::try_new(
                element.clone(),
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            )?));
        }
        (DataType::List(_), DataType::Utf8) => {
            return Ok(Arc::new(array::lists_as_text(array.as_list(), zone)?));
        }
        (DataType::Struct(_), DataType::Utf8) => {
            return array::records_as_text(array.as_struct(), zone);
        }
        (DataType::Map(..), DataType::Utf8) => return maps::maps_as_text(array.as_map(), zone),
        (DataType::Map(..), DataType::Map(..)) => {
            return maps::cast_maps(array.as_map(), to, zone);
        }
        (DataType::Utf8, DataType::Map(..)) => {
            return maps::maps_of_text(array.as_string(), to, zone);
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            return records::cast_records(array.as_struct(), fields, zone);
        }
        (DataType::Utf8, DataType::Struct(fields)) => {
            return records::records_of_text(array.as_string(), fields, zone);
        }
        (DataType::Utf8, DataType::List(element)) => {
            return array::lists_of_text(array.as_string(), element, zone);
        }
        (DataType::Utf8, to) if is_plain(to) => return read_plain(array.as_string(), to),
        (DataType::Float64, DataType::Float32) => return reals(array),
        (from, to) if from.is_floating() && to.is_integer() => {
            return Ok(compute::cast_with_options(&rounded(array), to, &checked())?);
        }
        (DataType::Null, to) => return Ok(new_null_array(to, array.len())),
        _ => {}
    }
    if let Some(cast) = chars::cast_array(array, to, zone)? {
        return Ok(cast);
    }
    if let Some(cast) = uuids::cast_array(array, to)? {
        return Ok(cast);
    }
    if let Some(cast) = moment::cast_array(array, to, zone)? {
        return Ok(cast);
    }
    if let Some(cast) = json::cast_json(array, to)? {
        return Ok(cast);
    }
    match (array.data_type(), to) {
        (from, to) if numeric::casts(from, to) => numeric::cast_array(array, to),
        (DataType::Boolean, DataType::Utf8) => Ok(compute::cast(array, to)?),
        (DataType::Binary, DataType::Utf8) => Ok(bytea::to_texts(array.as_binary())),
        (DataType::Utf8, DataType::Binary) => bytea::of_texts(array.as_string()),
        (from, DataType::Utf8) if from.is_floating() => Ok(text::to_text(array)?),
        // Arrow would take the bytes of one type for those of the other.
        (from, to) if is_ours(from) || is_ours(to) => Err(failure(
            SqlState("42846"),
            format!("cannot cast type {} to {}", name_of(from), name_of(to)),
        )),
        _ => Ok(compute::cast_with_options(array, to, &checked())?),
    }
}

/// Casts that fail where a value does not fit.
fn checked() -> CastOptions<'static> {
    CastOptions {
        safe: false,
        ..Default::default()
    }
}

/// Floats without fraction, halves to the even side.
fn rounded(array: &ArrayRef) -> ArrayRef {
    match array.as_primitive_opt::<Float32Type>() {
        Some(values) => Arc::new(values.unary::<_, Float32Type>(f32::round_ties_even)),
        None => {
            let values = array.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(f64::round_ties_even))
        }
    }
}

/// Types whose text PostgreSQL reads otherwise than Arrow.
fn is_plain(data_type: &DataType) -> bool {
    use DataType::{Boolean, Float32, Float64, Int16, Int32, Int64};
    matches!(
        data_type,
        Boolean | Int16 | Int32 | Int64 | Float32 | Float64
    )
}

fn read_plain(texts: &StringArray, to: &DataType) -> Result<ArrayRef> {
    fn each<T, A: FromIterator<Option<T>> + Array + 'static>(
        texts: &StringArray,
        read: impl Fn(&str) -> tidemark_common::Result<T>,
    ) -> Result<ArrayRef> {
        let values = texts
            .iter()
            .map(|t| t.map(&read).transpose().map_err(external));
        Ok(Arc::new(values.collect::<Result<A>>()?))
    }
    match to {
        DataType::Int16 => each::<_, Int16Array>(texts, |t| plain::read_integer(t, "smallint")),
        DataType::Int32 => each::<_, Int32Array>(texts, |t| plain::read_integer(t, "integer")),
        DataType::Int64 => each::<_, Int64Array>(texts, |t| plain::read_integer(t, "bigint")),
        DataType::Float32 => each::<_, Float32Array>(texts, |t| {
            plain::read_float(t, |v: f32| v == 0.0 || v.is_infinite(), "real")
        }),
        DataType::Float64 => each::<_, Float64Array>(texts, |t| {
            plain::read_float(t, |v: f64| v == 0.0 || v.is_infinite(), "double precision")
        }),
        _ => each::<_, BooleanArray>(texts, plain::read_boolean),
    }
}

/// Elements of an array as its element's field says: of its type, and where that is text, of the
/// SQL type that stands beside it.
pub(super) fn cast_elements(values: &ArrayRef, to: &Field, zone: &Zone) -> Result<ArrayRef> {
    let cast = cast_array_in(values, to.data_type(), zone)?;
    let Some(length) = to.metadata().get(SQL_TYPE).and_then(|t| characters(t)) else {
        return Ok(cast);
    };
    Ok(match (cast.as_string_opt::<i32>(), cast.as_string_opt()) {
        (Some(texts), _) => cut_off(texts, length),
        (_, Some(texts)) => chars::fitted(texts, length),
        _ => cast,
    })
}

/// The length of `varchar(n)` and `char(n)`.
fn characters(name: &str) -> Option<usize> {
    let (_, length) = name.split_once("char(")?;
    length.strip_suffix(')')?.trim().parse().ok()
}

/// Texts of at most so many characters.
fn cut_off(texts: &StringArray, length: usize) -> ArrayRef {
    let cut = |text: &'_ str| match text.char_indices().nth(length) {
        Some((end, _)) => end,
        None => text.len(),
    };
    let mut all = StringBuilder::with_capacity(texts.len(), texts.values().len());
    for text in texts {
        all.append_option(text.map(|t| &t[..cut(t)]));
    }
    Arc::new(all.finish())
}

/// Texts as a column of another type, as a client or a statement gives them at `now`, in
/// microseconds since 1970, in a time zone.
///
/// Errors: as [`cast_array`].
pub fn read_texts(texts: &ArrayRef, to: &DataType, now: i64, zone: &Zone) -> Result<ArrayRef> {
    if moment::is_moment(to) {
        moment::read_at(texts.as_string(), to, Some(now), zone)
    } else {
        cast_array(texts, to)
    }
}

/// Numerics, JSONB, UUIDs, arrays and rows.
fn is_ours(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
            | DataType::List(_)
            | DataType::Struct(_)
            | DataType::Map(..)
    )
}

/// The SQL name of a type that is cast to or from ours.
fn name_of(data_type: &DataType) -> String {
    if let DataType::List(element) = data_type {
        return format!("{}[]", name_of(element.data_type()));
    }
    let name = match data_type {
        DataType::LargeBinary => "numeric",
        DataType::BinaryView => "jsonb",
        DataType::FixedSizeBinary(_) => "uuid",
        DataType::Binary => "bytea",
        DataType::Struct(_) => "record",
        DataType::Map(..) => "map",
        DataType::Boolean => "boolean",
        DataType::Utf8 => "text",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) => "interval",
        t if t.is_numeric() => "numeric",
        _ => "this type",
    };
    name.to_string()
}
