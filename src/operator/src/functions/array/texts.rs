//! Arrays and texts: `array_to_string`, `string_to_array`, and the text form of arrays and of rows
//! (`tidemark_values::array`).

use super::super::bounded::{check_bytes, limit};
use super::super::casts::{cast_array_in, cast_elements};
use super::super::definition::*;
use super::{Lists, Operand, compact, list_of};
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_values::array;
use tidemark_values::moment::Zone;

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "array_to_string",
            aliases: &[],
            takes: |types| match types {
                [list @ DataType::List(_), rest @ ..]
                    if matches!(rest.len(), 1 | 2) && rest.iter().all(is_text) =>
                {
                    let mut taken = vec![DataType::Utf8; types.len()];
                    taken[0] = list.clone();
                    Some(taken)
                }
                _ => None,
            },
            returns: |_| DataType::Utf8,
            evaluate: array_to_string,
        },
        Definition {
            name: "string_to_array",
            aliases: &[],
            takes: |types| {
                let fits = matches!(types.len(), 2 | 3) && types.iter().all(is_text);
                fits.then(|| vec![DataType::Utf8; types.len()])
            },
            returns: |_| list_of(DataType::Utf8),
            evaluate: string_to_array,
        },
    ]
}

/// Elements as an array's text shows them: a boolean is `t` or `f`, a `char(n)` keeps its blanks.
pub(in super::super) fn element_texts(values: &ArrayRef, zone: &Zone) -> Result<StringArray> {
    if let Some(truths) = values.as_boolean_opt() {
        let letter = |t: Option<bool>| t.map(|t| if t { "t" } else { "f" });
        return Ok(truths.iter().map(letter).collect());
    }
    let texts = match values.data_type() {
        DataType::LargeUtf8 => arrow::compute::cast(values, &DataType::Utf8)?,
        _ => cast_array_in(values, &DataType::Utf8, zone)?,
    };
    Ok(texts.as_string().clone())
}

/// Arrays as PostgreSQL writes them: `{1,NULL,"a b"}`.
pub(in super::super) fn lists_as_text(lists: &ListArray, zone: &Zone) -> Result<StringArray> {
    let lists = &compact(lists);
    let elements = element_texts(lists.values(), zone)?;
    let offsets = lists.value_offsets();
    let mut texts = StringBuilder::with_capacity(lists.len(), elements.values().len());
    let (mut text, mut total) = (String::new(), 0);
    for row in 0..lists.len() {
        if lists.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        text.push('{');
        for i in offsets[row] as usize..offsets[row + 1] as usize {
            if text.len() > 1 {
                text.push(',');
            }
            if elements.is_null(i) {
                text.push_str("NULL");
            } else {
                array::write_element(elements.value(i), &mut text);
            }
        }
        text.push('}');
        total += text.len() as u64;
        check_bytes(total)?;
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// Rows as PostgreSQL writes them: `(1,,"a b")`.
pub(in super::super) fn records_as_text(records: &StructArray, zone: &Zone) -> Result<ArrayRef> {
    let parts = records.columns().iter();
    let parts = parts
        .map(|part| element_texts(part, zone))
        .collect::<Result<Vec<_>>>()?;
    let mut texts = StringBuilder::with_capacity(records.len(), 16 * records.len());
    let (mut text, mut total) = (String::new(), 0);
    for row in 0..records.len() {
        if records.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        text.push('(');
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            if part.is_valid(row) {
                array::write_part(part.value(row), &mut text);
            }
        }
        text.push(')');
        total += text.len() as u64;
        check_bytes(total)?;
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}

/// Arrays of their texts; the elements go through their own cast.
pub(in super::super) fn lists_of_text(
    texts: &StringArray,
    element: &FieldRef,
    zone: &Zone,
) -> Result<ArrayRef> {
    let mut elements = StringBuilder::with_capacity(texts.len(), texts.values().len());
    let mut lengths = Vec::with_capacity(texts.len());
    for text in texts {
        let mut length = 0;
        if let Some(text) = text {
            let put = |element: Option<&str>| {
                length += 1;
                elements.append_option(element);
            };
            array::read(text, put).map_err(external)?;
        }
        lengths.push(length);
    }
    let elements: ArrayRef = Arc::new(elements.finish());
    Ok(Arc::new(ListArray::try_new(
        element.clone(),
        OffsetBuffer::from_lengths(lengths),
        cast_elements(&elements, element, zone)?,
        texts.nulls().cloned(),
    )?))
}

/// A text argument, row by row.
struct Texts(Operand);

impl Texts {
    fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Option<Texts>> {
        if i < args.args.len() {
            Ok(Some(Texts(Operand::of(args, i)?)))
        } else {
            Ok(None)
        }
    }

    fn get(&self, row: usize) -> Option<&str> {
        let texts = self.0.array.as_string::<i32>();
        let at = self.0.at(row);
        texts.is_valid(at).then(|| texts.value(at))
    }
}

fn array_to_string(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let elements = element_texts(lists.values(), &Zone::UTC)?;
    let (delimiters, nulls) = (Texts::of(args, 1)?, Texts::of(args, 2)?);
    let rows = rows(args);
    let mut texts = StringBuilder::with_capacity(rows, elements.values().len());
    let (mut text, mut total) = (String::new(), 0);
    for row in 0..rows {
        let delimiter = delimiters.as_ref().and_then(|d| d.get(row));
        let (Some(range), Some(delimiter)) = (lists.get(row), delimiter) else {
            texts.append_null();
            continue;
        };
        let null = nulls.as_ref().and_then(|n| n.get(row));
        let shown = |i: usize| {
            let valid = elements.is_valid(i);
            valid.then(|| elements.value(i)).or(null)
        };
        text.clear();
        for (n, element) in range.filter_map(shown).enumerate() {
            if n > 0 {
                text.push_str(delimiter);
            }
            text.push_str(element);
            if text.len() as u64 > limit() {
                break;
            }
        }
        total += text.len() as u64;
        check_bytes(total)?;
        texts.append_value(&text);
    }
    result(args, Arc::new(texts.finish()))
}

/// Parts of a text after which they are held against the limit again.
const PARTS_UNCHECKED: usize = 1024;

fn string_to_array(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (texts, delimiters) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    let nulls = Texts::of(args, 2)?;
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..rows(args) {
        let Some(text) = texts.as_ref().and_then(|t| t.get(row)) else {
            lists.append_null();
            continue;
        };
        let delimiter = delimiters.as_ref().and_then(|d| d.get(row));
        let null = nulls.as_ref().and_then(|n| n.get(row));
        let values = lists.values();
        let mut put = |part: &str| {
            values.append_option((Some(part) != null).then_some(part));
            if values.len() % PARTS_UNCHECKED == 0 {
                check_bytes(
                    (values.values_slice().len() + values.offsets_slice().len() * 4) as u64,
                )?;
            }
            Ok::<_, DataFusionError>(())
        };
        match delimiter {
            _ if text.is_empty() => {}
            None => {
                let mut character = [0; 4];
                text.chars()
                    .try_for_each(|c| put(c.encode_utf8(&mut character)))?;
            }
            Some("") => put(text)?,
            Some(delimiter) => text.split(delimiter).try_for_each(put)?,
        }
        lists.append(true);
    }
    result(args, Arc::new(lists.finish()))
}
