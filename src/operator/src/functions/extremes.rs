//! `greatest` and `least`, of values that are equal the first, and `nullif`, all by PostgreSQL's
//! order of every type.

use super::array;
use super::definition::*;
use super::quantified::{common, comparable};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum};
use arrow::compute::kernels::{cmp, zip::zip};
use arrow::compute::{is_null, nullif, or_kleene, prep_null_mask_filter};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

/// The greatest of arguments that have one type, or the least; NULL is none of them.
pub(super) fn extreme(args: &ScalarFunctionArgs, greatest: bool) -> Result<ColumnarValue> {
    let better = if greatest { cmp::gt } else { cmp::lt };
    let mut best: Option<(ArrayRef, ArrayRef)> = None;
    for i in 0..args.args.len() {
        let values = column(args, i)?;
        if values.data_type().is_null() {
            continue;
        }
        let keys = comparable(&values, values.data_type())?;
        best = Some(match best {
            None => (values, keys),
            Some((found, found_keys)) => {
                let better: BooleanArray = better(&keys as &dyn Datum, &found_keys as &dyn Datum)?;
                let taken = or_kleene(&better, &is_null(&found)?)?;
                let taken = match taken.null_count() {
                    0 => taken,
                    _ => prep_null_mask_filter(&taken),
                };
                (
                    zip(&taken, &values, &found)?,
                    zip(&taken, &keys, &found_keys)?,
                )
            }
        });
    }
    match best {
        Some((found, _)) => result(args, found),
        None => null(args.return_field.data_type()),
    }
}

/// The first of two arguments, or NULL where the second is equal to it. Numbers and moments of two
/// types are compared in what is common to them.
pub(super) fn null_if(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (value, other) = (column(args, 0)?, column(args, 1)?);
    let keys = |values: &ArrayRef| -> Result<Option<ArrayRef>> {
        if let Some(lists) = values.as_list_opt::<i32>() {
            return Ok(Some(Arc::new(array::sort_keys(lists)?)));
        }
        match common(value.data_type(), other.data_type()) {
            Some(as_type) if !as_type.is_null() => comparable(values, &as_type).map(Some),
            _ => Ok(None),
        }
    };
    let (Some(key), Some(other)) = (keys(&value)?, keys(&other)?) else {
        return result(args, value);
    };
    let equal = cmp::eq(&key as &dyn Datum, &other as &dyn Datum)?;
    result(args, nullif(&value, &equal)?)
}
