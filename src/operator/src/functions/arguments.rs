//! The arguments of a call by row, whether they are columns or constants, and the types that a
//! function takes, written as a table.

use super::bounded::check_bytes;
use super::casts::cast_array;
use super::definition::{is_int, is_text, result, rows};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, PrimitiveArray, StringArray,
    StringBuilder,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

/// What a parameter of a function takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Text,
    Int4,
    Int8,
    Float8,
    Bytea,
}

impl Takes {
    fn of(self, from: &DataType) -> Option<DataType> {
        let null = *from == DataType::Null;
        let (fits, to) = match self {
            Takes::Text => (is_text(from), DataType::Utf8),
            Takes::Int4 => (is_int(from), DataType::Int32),
            Takes::Int8 => (is_int(from), DataType::Int64),
            Takes::Float8 => (from.is_numeric() || null, DataType::Float64),
            // A quoted constant is a byte string in its text form.
            Takes::Bytea if *from == DataType::Utf8 => (true, DataType::Utf8),
            Takes::Bytea => (*from == DataType::Binary || null, DataType::Binary),
        };
        fits.then_some(to)
    }
}

/// The types that arguments become, if there are at least `least` of them and each fits.
pub(super) fn taken(types: &[DataType], least: usize, takes: &[Takes]) -> Option<Vec<DataType>> {
    if !(least..=takes.len()).contains(&types.len()) {
        return None;
    }
    types
        .iter()
        .zip(takes)
        .map(|(from, takes)| takes.of(from))
        .collect()
}

/// A column, or a constant that stands for one.
pub(super) struct Rows<A> {
    array: A,
    constant: bool,
}

impl<A: Array + 'static> Rows<A> {
    fn new(
        args: &ScalarFunctionArgs,
        i: usize,
        downcast: impl Fn(&ArrayRef) -> Result<A>,
    ) -> Result<Self> {
        Ok(match &args.args[i] {
            ColumnarValue::Scalar(value) => Rows {
                array: downcast(&value.to_array()?)?,
                constant: true,
            },
            ColumnarValue::Array(array) => Rows {
                array: downcast(array)?,
                constant: false,
            },
        })
    }

    /// Where a row's value is, if it is not NULL.
    fn at(&self, row: usize) -> Option<usize> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then_some(row)
    }
}

pub(super) type Texts = Rows<StringArray>;
pub(super) type Byteas = Rows<BinaryArray>;
pub(super) type Values<T> = Rows<PrimitiveArray<T>>;

impl Texts {
    /// An argument of any type by its text; a boolean is a letter with `letters`, as PostgreSQL
    /// prints it, else a word, as its cast gives.
    pub fn of_any(args: &ScalarFunctionArgs, i: usize, letters: bool) -> Result<Texts> {
        let constant = matches!(args.args[i], ColumnarValue::Scalar(_));
        let array = args.args[i].to_array(if constant { 1 } else { args.number_rows })?;
        let array = match array.data_type() {
            DataType::Null => StringArray::new_null(array.len()),
            DataType::Boolean if letters => {
                let letter = |b: Option<bool>| b.map(|b| if b { "t" } else { "f" });
                array.as_boolean().iter().map(letter).collect()
            }
            // A `char(n)` is printed with its blanks.
            DataType::LargeUtf8 if letters => arrow::compute::cast(&array, &DataType::Utf8)?
                .as_string()
                .clone(),
            _ => cast_array(&array, &DataType::Utf8)?.as_string().clone(),
        };
        Ok(Rows { array, constant })
    }

    pub fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Texts> {
        Rows::new(args, i, |a| Ok(a.as_string::<i32>().clone()))
    }

    /// The argument if there is one.
    pub fn optional(args: &ScalarFunctionArgs, i: usize) -> Result<Option<Texts>> {
        (i < args.args.len())
            .then(|| Texts::of(args, i))
            .transpose()
    }

    pub fn get(&self, row: usize) -> Option<&str> {
        self.at(row).map(|row| self.array.value(row))
    }

    /// Bytes of all its texts.
    pub fn bytes(&self) -> usize {
        let offsets = self.array.value_offsets();
        (offsets[offsets.len() - 1] - offsets[0]) as usize
    }
}

impl Byteas {
    pub fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Byteas> {
        Rows::new(args, i, |a| {
            Ok(cast_array(a, &DataType::Binary)?.as_binary().clone())
        })
    }

    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.at(row).map(|row| self.array.value(row))
    }
}

impl<T: ArrowPrimitiveType> Values<T> {
    pub fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Values<T>> {
        Rows::new(args, i, |a| Ok(a.as_primitive::<T>().clone()))
    }

    /// The argument if there is one.
    pub fn optional(args: &ScalarFunctionArgs, i: usize) -> Result<Option<Values<T>>> {
        (i < args.args.len())
            .then(|| Values::of(args, i))
            .transpose()
    }

    pub fn get(&self, row: usize) -> Option<T::Native> {
        self.at(row).map(|row| self.array.value(row))
    }
}

/// A call's texts: `write` appends a row's, or gives `false` for NULL.
///
/// Errors: `54000` if they are too large together.
pub(super) fn texts(
    args: &ScalarFunctionArgs,
    mut write: impl FnMut(usize, &mut String) -> Result<bool>,
) -> Result<ColumnarValue> {
    let rows = rows(args);
    let mut out = StringBuilder::with_capacity(rows, rows * 16);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        if write(row, &mut text)? {
            check_room(out.values_slice().len(), text.len())?;
            out.append_value(&text);
        } else {
            out.append_null();
        }
    }
    drop(text);
    result(args, Arc::new(out.finish()))
}

/// The same of byte strings.
pub(super) fn byteas(
    args: &ScalarFunctionArgs,
    mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<bool>,
) -> Result<ColumnarValue> {
    let rows = rows(args);
    let mut out = BinaryBuilder::with_capacity(rows, rows * 16);
    let mut bytes = Vec::new();
    for row in 0..rows {
        bytes.clear();
        if write(row, &mut bytes)? {
            check_room(out.values_slice().len(), bytes.len())?;
            out.append_value(&bytes);
        } else {
            out.append_null();
        }
    }
    result(args, Arc::new(out.finish()))
}

/// A call's values of a fixed size.
pub(super) fn values<T: ArrowPrimitiveType>(
    args: &ScalarFunctionArgs,
    mut value: impl FnMut(usize) -> Result<Option<T::Native>>,
) -> Result<ColumnarValue> {
    let values = (0..rows(args))
        .map(&mut value)
        .collect::<Result<Vec<_>>>()?;
    result(args, Arc::new(PrimitiveArray::<T>::from_iter(values)))
}

fn check_room(used: usize, wanted: usize) -> Result<()> {
    check_bytes(used as u64 + wanted as u64)
}
