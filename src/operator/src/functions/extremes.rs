//! `greatest` and `least`, of values that are equal the first, and `nullif`, all by PostgreSQL's
//! order of every type.

use super::definition::*;
use super::quantified::comparable;
use arrow::array::{Array, ArrayRef, BooleanArray, Datum};
use arrow::compute::kernels::{cmp, zip::zip};
use arrow::compute::{is_null, nullif, or_kleene, prep_null_mask_filter};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};

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

/// The first of two arguments that have one type, or NULL where the second is equal to it.
pub(super) fn null_if(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (value, other) = (column(args, 0)?, column(args, 1)?);
    let as_type = value.data_type();
    let (key, other) = (comparable(&value, as_type)?, comparable(&other, as_type)?);
    let equal = cmp::eq(&key as &dyn Datum, &other as &dyn Datum)?;
    result(args, nullif(&value, &equal)?)
}
