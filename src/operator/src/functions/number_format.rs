//! `to_char` of numbers and `to_number`, on [`tidemark_values::number_format`]. A pattern is read
//! once for all rows that it stands in.

use super::arguments::{Texts, Values, texts};
use super::definition::*;
use super::numeric::{Numbers, write};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use tidemark_values::number_format::{Number, Pattern};

/// The function of this file that is no other's name.
pub(super) fn definitions() -> Vec<Definition> {
    vec![Definition {
        name: "to_number",
        aliases: &[],
        takes: |types| match types {
            [text, pattern] if is_text(text) && is_text(pattern) => Some(vec![DataType::Utf8; 2]),
            _ => None,
        },
        returns: |_| DataType::LargeBinary,
        evaluate: to_number,
    }]
}

/// The types of `to_char` of a number.
pub(super) fn takes_to_char(types: &[DataType]) -> Option<Vec<DataType>> {
    let [number, pattern] = types else {
        return None;
    };
    let number = match number {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int32,
        DataType::LargeBinary => DataType::LargeBinary,
        t if t.is_numeric() => t.clone(),
        _ => return None,
    };
    is_text(pattern).then(|| vec![number, DataType::Utf8])
}

/// The patterns of a call's rows; the last one stays at hand.
struct Patterns {
    texts: Texts,
    last: Option<(String, Pattern)>,
}

impl Patterns {
    fn of(args: &ScalarFunctionArgs) -> Result<Patterns> {
        Ok(Patterns {
            texts: Texts::of(args, 1)?,
            last: None,
        })
    }

    fn get(&mut self, row: usize) -> Result<Option<&Pattern>> {
        let Some(text) = self.texts.get(row) else {
            return Ok(None);
        };
        if self.last.as_ref().is_none_or(|(known, _)| known != text) {
            let pattern = Pattern::new(text).map_err(external)?;
            self.last = Some((text.to_string(), pattern));
        }
        Ok(self.last.as_ref().map(|(_, pattern)| pattern))
    }
}

/// `to_char(number, pattern)`.
pub(super) fn to_char(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let mut patterns = Patterns::of(args)?;
    let mut put = |row: usize, number: Option<Number<'_>>, out: &mut String| {
        let Some(number) = number else {
            return Ok(false);
        };
        let Some(pattern) = patterns.get(row)? else {
            return Ok(false);
        };
        pattern.to_char(&number, out).map_err(external)?;
        Ok(true)
    };
    match args.args[0].data_type() {
        DataType::Int32 => {
            let values = Values::<Int32Type>::of(args, 0)?;
            texts(args, |row, out| {
                put(row, values.get(row).map(Number::Int4), out)
            })
        }
        DataType::Int64 => {
            let values = Values::<Int64Type>::of(args, 0)?;
            texts(args, |row, out| {
                put(row, values.get(row).map(Number::Int8), out)
            })
        }
        DataType::Float32 => {
            let values = Values::<Float32Type>::of(args, 0)?;
            texts(args, |row, out| {
                put(row, values.get(row).map(Number::Float4), out)
            })
        }
        DataType::Float64 => {
            let values = Values::<Float64Type>::of(args, 0)?;
            texts(args, |row, out| {
                put(row, values.get(row).map(Number::Float8), out)
            })
        }
        _ => {
            let values = Numbers::of(&args.args[0])?;
            texts(args, |row, out| {
                let value = values.get(row)?;
                put(row, value.as_ref().map(Number::Numeric), out)
            })
        }
    }
}

/// `to_number(text, pattern)`; no pattern gives NULL.
fn to_number(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let given = Texts::of(args, 0)?;
    let mut patterns = Patterns::of(args)?;
    let rows = rows(args);
    let numbers = (0..rows).map(|row| {
        let (Some(text), false) = (given.get(row), patterns.texts.get(row) == Some("")) else {
            return Ok(None);
        };
        let pattern = patterns.get(row)?;
        pattern
            .map(|p| p.to_number(text))
            .transpose()
            .map_err(external)
    });
    result(args, write(numbers, rows, &DataType::LargeBinary)?)
}
