//! `char(n)`: texts with blanks up to a length, a `LargeUtf8` to Arrow. Blanks at the end do not
//! count when values are compared, and are gone when a value becomes text; they are kept where it
//! is printed, or cast to `bytea`. `bpchar(text, n)` cuts and pads.

use super::definition::*;
use arrow::array::LargeStringBuilder;
use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, LargeStringArray, StringBuilder};
use arrow::datatypes::{DataType, Int32Type};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_values::moment::Zone;

/// `char(n)` to Arrow.
pub(super) const BPCHAR: DataType = DataType::LargeUtf8;

/// The function of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![Definition {
        name: "bpchar",
        aliases: &[],
        takes: |types| match types {
            [_, length] if is_int(length) => Some(vec![DataType::Utf8, DataType::Int32]),
            _ => None,
        },
        returns: |_| BPCHAR,
        evaluate: bpchar,
    }]
}

/// The text, cut off or padded to so many characters.
fn bpchar(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, lengths) = (column(args, 0)?, column(args, 1)?);
    let (texts, lengths) = (
        texts.as_string::<i32>(),
        lengths.as_primitive::<Int32Type>(),
    );
    let mut padded = LargeStringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for (text, length) in texts.iter().zip(lengths) {
        match (text, length) {
            (Some(text), Some(length)) => {
                put_fitted(&mut padded, text, usize::try_from(length).unwrap_or(0));
            }
            _ => padded.append_null(),
        }
    }
    result(args, Arc::new(padded.finish()))
}

/// Texts cut off or padded to `length` characters.
pub(super) fn fitted(texts: &LargeStringArray, length: usize) -> ArrayRef {
    let mut fitted = LargeStringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for text in texts {
        match text {
            Some(text) => put_fitted(&mut fitted, text, length),
            None => fitted.append_null(),
        }
    }
    Arc::new(fitted.finish())
}

fn put_fitted(padded: &mut LargeStringBuilder, text: &str, length: usize) {
    let cut = text.char_indices().nth(length);
    let cut = cut.map_or(text.len(), |(i, _)| i);
    put_padded(padded, &text[..cut], length);
}

fn put_padded(padded: &mut LargeStringBuilder, text: &str, length: usize) {
    use std::fmt::Write;
    let blanks = length.saturating_sub(text.chars().count());
    // Writing to a builder does not fail.
    let _ = padded.write_str(text);
    for _ in 0..blanks {
        let _ = padded.write_char(' ');
    }
    padded.append_value("");
}

/// Texts as values of a `char(length)`, for a column that they are written to.
///
/// Errors: `22001` for one that is longer, blanks at its end aside.
pub fn padded(texts: &ArrayRef, length: usize) -> Result<ArrayRef> {
    let texts = arrow::compute::cast(texts, &BPCHAR)?;
    let texts = texts.as_string::<i64>();
    let mut padded = LargeStringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for text in texts {
        let Some(text) = text else {
            padded.append_null();
            continue;
        };
        let kept = within(text, length).ok_or_else(|| too_long("", length))?;
        put_padded(&mut padded, kept, length);
    }
    Ok(Arc::new(padded.finish()))
}

/// Texts as values of a `varchar(length)`, for a column that they are written to: blanks beyond
/// its length are cut off.
///
/// Errors: `22001` for one that is longer than that.
pub fn limited(texts: &ArrayRef, length: usize) -> Result<ArrayRef> {
    let values = texts.as_string::<i32>();
    let is_longer = |text: &str| text.len() > length && text.char_indices().nth(length).is_some();
    if !values.iter().flatten().any(is_longer) {
        return Ok(texts.clone());
    }
    let mut kept = StringBuilder::with_capacity(values.len(), values.value_data().len());
    for text in values {
        kept.append_option(match text {
            Some(text) => Some(within(text, length).ok_or_else(|| too_long("varying", length))?),
            None => None,
        });
    }
    Ok(Arc::new(kept.finish()))
}

/// At most so many characters of a text; `None` if more than blanks would be lost.
fn within(text: &str, length: usize) -> Option<&str> {
    match text.char_indices().nth(length) {
        None => Some(text),
        Some((end, _)) => text[end..]
            .bytes()
            .all(|b| b == b' ')
            .then_some(&text[..end]),
    }
}

fn too_long(varying: &str, length: usize) -> DataFusionError {
    let blank = if varying.is_empty() { "" } else { " " };
    failure(
        SqlState("22001"),
        format!("value too long for type character{blank}{varying}({length})"),
    )
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches(' ')
}

/// A column as, or from, `char`s of no declared length; `None` if neither type is one.
pub(super) fn cast_array(array: &ArrayRef, to: &DataType, zone: &Zone) -> Result<Option<ArrayRef>> {
    if *array.data_type() == BPCHAR && *to == DataType::Binary {
        let padded = arrow::compute::cast(array, &DataType::Utf8)?;
        return super::casts::cast_array_in(&padded, to, zone).map(Some);
    }
    if *array.data_type() == BPCHAR {
        let values = array.as_string::<i64>();
        let mut texts = StringBuilder::with_capacity(values.len(), values.value_data().len());
        for value in values {
            texts.append_option(value.map(trimmed));
        }
        let texts: ArrayRef = Arc::new(texts.finish());
        return super::casts::cast_array_in(&texts, to, zone).map(Some);
    }
    if *to != BPCHAR {
        return Ok(None);
    }
    let texts = match array.data_type() {
        DataType::Utf8 => array.clone(),
        _ => super::casts::cast_array_in(array, &DataType::Utf8, zone)?,
    };
    Ok(Some(arrow::compute::cast(&texts, &BPCHAR)?))
}

/// What equal values have in common: their bytes without the blanks at the end.
pub(super) fn keys(values: &LargeStringArray) -> ArrayRef {
    let mut keys = BinaryBuilder::with_capacity(values.len(), values.value_data().len());
    for value in values {
        keys.append_option(value.map(trimmed));
    }
    Arc::new(keys.finish())
}
