//! The shape of arrays: `array_length`, `array_lower`, `array_upper`, `array_ndims`, `array_dims`,
//! `cardinality`. An empty array has no dimension, and so no length.

use super::super::definition::*;
use super::{Ints, Lists, element_of, list_like};
use arrow::array::{Int32Array, StringArray};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

pub(super) fn definitions() -> Vec<Definition> {
    let of_array = |types: &[DataType]| match types {
        [DataType::List(_)] => Some(types.to_vec()),
        _ => None,
    };
    let of_dimension = |types: &[DataType]| match types {
        [list, n] if is_int(n) => {
            let list = list_like(list, &element_of(list)?);
            Some(vec![list, DataType::Int64])
        }
        _ => None,
    };
    let integer = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_| DataType::Int32,
        evaluate,
    };
    vec![
        integer("array_length", of_dimension, |a| in_dimension(a, |n| n)),
        integer("array_upper", of_dimension, |a| in_dimension(a, |n| n)),
        integer("array_lower", of_dimension, |a| in_dimension(a, |_| 1)),
        integer("array_ndims", of_array, |a| {
            measured(a, |n| (n > 0).then_some(1))
        }),
        integer("cardinality", of_array, |a| measured(a, Some)),
        Definition {
            name: "array_dims",
            aliases: &[],
            takes: of_array,
            returns: |_| DataType::Utf8,
            evaluate: dimensions,
        },
    ]
}

/// What an array's length comes to.
fn measured(args: &ScalarFunctionArgs, f: impl Fn(i32) -> Option<i32>) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let lengths = (0..rows(args)).map(|row| f(lists.get(row)?.len() as i32));
    result(args, Arc::new(lengths.collect::<Int32Array>()))
}

/// The same in the first dimension; NULL in others.
fn in_dimension(args: &ScalarFunctionArgs, f: impl Fn(i32) -> i32) -> Result<ColumnarValue> {
    let (lists, dimensions) = (Lists::of(args, 0)?, Ints::of(args, 1)?);
    let lengths = (0..rows(args)).map(|row| {
        let length = lists.get(row)?.len() as i32;
        (dimensions.get(row)? == 1 && length > 0).then(|| f(length))
    });
    result(args, Arc::new(lengths.collect::<Int32Array>()))
}

fn dimensions(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let texts = (0..rows(args)).map(|row| {
        let length = lists.get(row)?.len();
        (length > 0).then(|| format!("[1:{length}]"))
    });
    result(args, Arc::new(texts.collect::<StringArray>()))
}
