//! PostgreSQL's casts, where Arrow has none or casts otherwise: from and to numerics, and between
//! texts and moments, JSONB or arrays. The planner writes them as `cast_as(value, NULL::type)`, and
//! those that depend on a session's time zone as `cast_as(value, NULL::type, 'zone')`.

use super::definition::*;
use super::{bytea, chars, json, moment, numeric, text, uuids};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, StringBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::moment::Zone;

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
        // Planning knows the answer.
        Definition {
            name: "pg_typeof",
            aliases: &[],
            takes: |types| (types.len() == 1).then(|| types.to_vec()),
            returns: |_| DataType::Utf8,
            evaluate: |args| {
                let name = name_of(&args.args[0].data_type());
                Ok(ColumnarValue::Scalar(ScalarValue::from(name)))
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
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &array, 0,
            )?))
        }
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(cast_array_in(array, to, &zone)?)),
    }
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
            let list = array.as_list::<i32>();
            let values = cast_array_in(list.values(), element.data_type(), zone)?;
            return Ok(Arc::new(ListArray::new(
                element.clone(),
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            )));
        }
        (DataType::List(_), DataType::Utf8) => return lists_as_text(array.as_list(), zone),
        (DataType::Utf8, DataType::List(element)) => {
            return lists_of_text(array.as_string(), element, zone);
        }
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
        _ => {
            let options = CastOptions {
                safe: false,
                ..Default::default()
            };
            Ok(compute::cast_with_options(array, to, &options)?)
        }
    }
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

/// Numerics, JSONB and UUIDs.
fn is_ours(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    )
}

/// The SQL name of a type that is cast to or from ours.
fn name_of(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::LargeBinary => "numeric",
        DataType::BinaryView => "jsonb",
        DataType::FixedSizeBinary(_) => "uuid",
        DataType::Binary => "bytea",
        DataType::Boolean => "boolean",
        DataType::Utf8 => "text",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) => "interval",
        t if t.is_numeric() => "numeric",
        _ => "this type",
    }
}

/// Arrays as PostgreSQL writes them: `{1,NULL,"a b"}`.
fn lists_as_text(list: &ListArray, zone: &Zone) -> Result<ArrayRef> {
    let booleans = *list.values().data_type() == DataType::Boolean;
    let elements = cast_array_in(list.values(), &DataType::Utf8, zone)?;
    let elements = elements.as_string::<i32>();
    let mut texts = StringBuilder::with_capacity(list.len(), elements.values().len());
    for row in 0..list.len() {
        if list.is_null(row) {
            texts.append_null();
            continue;
        }
        let mut text = String::from("{");
        for i in list.value_offsets()[row]..list.value_offsets()[row + 1] {
            if text.len() > 1 {
                text.push(',');
            }
            let i = i as usize;
            match elements.is_valid(i).then(|| elements.value(i)) {
                None => text.push_str("NULL"),
                Some(element) if booleans => text.push_str(&element[..1]),
                Some(element) => put_element(element, &mut text),
            }
        }
        text.push('}');
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}

/// An element, in quotes where it could be read as something else.
fn put_element(element: &str, text: &mut String) {
    let special = |c: char| c.is_ascii_whitespace() || c == '\x0b' || "{}\",\\".contains(c);
    if !element.is_empty() && !element.contains(special) && !element.eq_ignore_ascii_case("null") {
        return text.push_str(element);
    }
    text.push('"');
    for c in element.chars() {
        if c == '"' || c == '\\' {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

fn lists_of_text(texts: &StringArray, element: &FieldRef, zone: &Zone) -> Result<ArrayRef> {
    let mut elements = StringBuilder::new();
    let mut lengths = Vec::with_capacity(texts.len());
    for text in texts {
        let read = match text {
            Some(text) => array_elements(text).map_err(external)?,
            None => Vec::new(),
        };
        lengths.push(read.len());
        read.into_iter().for_each(|e| elements.append_option(e));
    }
    let elements: ArrayRef = Arc::new(elements.finish());
    Ok(Arc::new(ListArray::new(
        element.clone(),
        OffsetBuffer::from_lengths(lengths),
        cast_array_in(&elements, element.data_type(), zone)?,
        texts.nulls().cloned(),
    )))
}

/// The elements of an array in its text form.
pub(super) fn array_elements(text: &str) -> tidemark_common::Result<Vec<Option<String>>> {
    let bad = || {
        Error::user(
            SqlState::INVALID_TEXT,
            format!("malformed array literal: \"{text}\""),
        )
    };
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .ok_or_else(bad)?;
    let mut elements = Vec::new();
    let mut rest = inner.chars().peekable();
    while rest.peek().is_some() {
        let (mut element, mut quoted) = (String::new(), false);
        loop {
            match rest.next() {
                None | Some(',') => break,
                Some('"') => {
                    quoted = true;
                    loop {
                        match rest.next().ok_or_else(bad)? {
                            '"' => break,
                            '\\' => element.push(rest.next().ok_or_else(bad)?),
                            c => element.push(c),
                        }
                    }
                }
                Some('\\') => element.push(rest.next().ok_or_else(bad)?),
                Some('{' | '}') => return Err(bad()),
                Some(c) => element.push(c),
            }
        }
        if quoted {
            elements.push(Some(element));
            continue;
        }
        let plain = element.trim();
        match plain {
            "" => return Err(bad()),
            p if p.eq_ignore_ascii_case("null") => elements.push(None),
            p => elements.push(Some(p.to_string())),
        }
    }
    Ok(elements)
}
