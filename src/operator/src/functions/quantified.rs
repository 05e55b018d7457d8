//! `x op ANY (array)` and `x op ALL (array)`, as `any_eq(x, array)`, `all_lt(x, array)`,
//! `any_like(x, array)` and so on.
//!
//! For each row, over the elements y of its array:
//!
//! ```text
//! ANY   true where some x op y is true, else NULL where some is NULL, else false
//! ALL   false where some x op y is false, else NULL where some is NULL, else true
//! ```
//!
//! An array that is NULL gives NULL; one without elements gives false (ANY) and true (ALL), also
//! for an x that is NULL. All comparisons of a batch are one call of Arrow's kernel, over the
//! elements of all arrays and each row's x as often as its array has elements. Numerics, JSONB and
//! intervals are compared by their keys; of numbers and moments of two types, both become what is
//! common to them.

use super::bytea::check_escape;
use super::casts::cast_array;
use super::definition::*;
use super::{chars, json, keyed, numeric, regex};
use arrow::array::*;
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::{cmp, comparison};
use arrow::compute::take;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

pub(super) type Compare =
    fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, ArrowError>;

macro_rules! functions {
    ($($any:literal $all:literal $compare:expr, $meeting:expr;)*) => {
        vec![$(
            definition($any, |args| quantified(args, $compare, $meeting, true)),
            definition($all, |args| quantified(args, $compare, $meeting, false)),
        )*]
    };
}

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    functions! {
        "any_eq" "all_eq" cmp::eq, Meeting::Values;
        "any_ne" "all_ne" cmp::neq, Meeting::Values;
        "any_lt" "all_lt" cmp::lt, Meeting::Values;
        "any_le" "all_le" cmp::lt_eq, Meeting::Values;
        "any_gt" "all_gt" cmp::gt, Meeting::Values;
        "any_ge" "all_ge" cmp::gt_eq, Meeting::Values;
        "any_like" "all_like" comparison::like, Meeting::Patterns { any_case: false };
        "any_nlike" "all_nlike" comparison::nlike, Meeting::Patterns { any_case: false };
        "any_ilike" "all_ilike" comparison::ilike, Meeting::Patterns { any_case: true };
        "any_nilike" "all_nilike" comparison::nilike, Meeting::Patterns { any_case: true };
        "any_regex" "all_regex" |x, y| regex::are_matched(x, y, false, true), Meeting::Regex;
        "any_nregex" "all_nregex" |x, y| regex::are_matched(x, y, false, false), Meeting::Regex;
        "any_iregex" "all_iregex" |x, y| regex::are_matched(x, y, true, true), Meeting::Regex;
        "any_niregex" "all_niregex" |x, y| regex::are_matched(x, y, true, false), Meeting::Regex;
    }
}

fn definition(
    name: &'static str,
    evaluate: fn(&ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Definition {
    Definition {
        name,
        aliases: &[],
        takes: |types| match types {
            [_, DataType::Null] | [DataType::Null, DataType::List(_)] => Some(types.to_vec()),
            // Before the types of quoted constants are known.
            [_, DataType::Utf8] | [DataType::Utf8, DataType::List(_)] => Some(types.to_vec()),
            [x, DataType::List(y)] => common(x, y.data_type()).map(|_| types.to_vec()),
            _ => None,
        },
        returns: |_| DataType::Boolean,
        evaluate,
    }
}

/// The type in which values of two types are compared; `None` where there is none.
pub(super) fn common(x: &DataType, y: &DataType) -> Option<DataType> {
    use DataType as D;
    let numeric = |t: &D| matches!(t, D::LargeBinary | D::Decimal128(_, _));
    let text = |t: &D| matches!(t, D::Utf8 | D::LargeUtf8 | D::Utf8View);
    let number = |t: &D| t.is_integer() || t.is_floating() || numeric(t);
    Some(match (x, y) {
        (D::Null, t) | (t, D::Null) => t.clone(),
        (x, y) if number(x) && number(y) => {
            if x.is_floating() || y.is_floating() {
                D::Float64
            } else if numeric(x) || numeric(y) {
                D::LargeBinary
            } else {
                D::Int64
            }
        }
        (x, y) if x.is_nested() || y.is_nested() => return None,
        (x, y) if x == y => x.clone(),
        (x, y) if text(x) && text(y) => D::Utf8,
        (D::Date32, t @ D::Timestamp(_, _)) | (t @ D::Timestamp(_, _), D::Date32) => t.clone(),
        (D::Timestamp(_, None), t @ D::Timestamp(_, Some(_)))
        | (t @ D::Timestamp(_, Some(_)), D::Timestamp(_, _)) => t.clone(),
        _ => return None,
    })
}

/// What elements are to the value.
#[derive(Clone, Copy)]
enum Meeting {
    /// Values to compare it with.
    Values,
    /// Patterns of LIKE.
    Patterns {
        /// ILIKE.
        any_case: bool,
    },
    /// Regular expressions.
    Regex,
}

impl Meeting {
    /// The value and the elements as they are compared, in one type.
    fn meet(self, x: &ArrayRef, elements: &ArrayRef) -> Result<Option<(ArrayRef, ArrayRef)>> {
        match self {
            Meeting::Values => compared(x, elements),
            Meeting::Patterns { .. } | Meeting::Regex => matched(x, elements),
        }
    }
}

fn compared(x: &ArrayRef, elements: &ArrayRef) -> Result<Option<(ArrayRef, ArrayRef)>> {
    let Some(as_type) = common(x.data_type(), elements.data_type()) else {
        return Ok(None);
    };
    let pair = (comparable(x, &as_type)?, comparable(elements, &as_type)?);
    Ok(Some(pair).filter(|_| !as_type.is_null()))
}

/// What a pattern matches keeps its blanks.
fn matched(x: &ArrayRef, elements: &ArrayRef) -> Result<Option<(ArrayRef, ArrayRef)>> {
    match x.data_type() {
        DataType::LargeUtf8 => compared(&arrow::compute::cast(x, &DataType::Utf8)?, elements),
        _ => compared(x, elements),
    }
}

/// Values as Arrow compares them: in the common type, by key where the type has keys.
pub(super) fn comparable(values: &ArrayRef, as_type: &DataType) -> Result<ArrayRef> {
    let values = if values.data_type() == as_type {
        values.clone()
    } else if values.data_type().is_null() {
        new_null_array(as_type, values.len())
    } else {
        cast_array(values, as_type)?
    };
    Ok(match as_type {
        DataType::LargeBinary => numeric::keys(values.as_binary::<i64>()),
        DataType::BinaryView => json::sort_keys(values.as_binary_view()),
        DataType::LargeUtf8 => chars::keys(values.as_string::<i64>()),
        DataType::Interval(_) => keyed::interval_keys(values.as_primitive()),
        // Arrow tells zeros and NaNs of different signs apart.
        DataType::Float32 => {
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(
                values
                    .as_primitive::<Float32Type>()
                    .unary::<_, Float32Type>(one),
            )
        }
        DataType::Float64 => {
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(
                values
                    .as_primitive::<Float64Type>()
                    .unary::<_, Float64Type>(one),
            )
        }
        _ => values,
    })
}

fn quantified(
    args: &ScalarFunctionArgs,
    compare: Compare,
    meeting: Meeting,
    any: bool,
) -> Result<ColumnarValue> {
    let (x, lists) = (column(args, 0)?, column(args, 1)?);
    let Some(lists) = lists.as_list_opt::<i32>() else {
        return null(&DataType::Boolean);
    };
    let (offsets, rows) = (lists.value_offsets(), lists.len());
    let (first, last) = (offsets[0], offsets[rows]);
    let elements = lists
        .values()
        .slice(first as usize, (last - first) as usize);
    let matches = match meeting.meet(&x, &elements)? {
        None => BooleanArray::new_null(elements.len()),
        Some((x, elements)) => {
            let places = (0..rows).flat_map(|row| {
                let length = (offsets[row + 1] - offsets[row]) as usize;
                std::iter::repeat_n(row as u32, length)
            });
            let repeated = take(&x, &UInt32Array::from_iter_values(places), None)?;
            let matches = compare(&repeated, &elements).map_err(|error| match error {
                ArrowError::ExternalError(ours) => DataFusionError::External(ours),
                other => DataFusionError::from(other),
            })?;
            if let Meeting::Patterns { any_case } = meeting {
                // Those behind the one that decides are not looked at.
                let decided = decisive(&matches, any);
                for row in 0..rows {
                    let places =
                        (offsets[row] - first) as usize..(offsets[row + 1] - first) as usize;
                    for place in places.filter(|place| matches.is_valid(*place)) {
                        check_escape(&repeated, &elements, place, any_case)?;
                        if decided.value(place) {
                            break;
                        }
                    }
                }
            }
            matches
        }
    };
    let decided = decisive(&matches, any);
    let mut builder = BooleanBuilder::with_capacity(rows);
    for row in 0..rows {
        let from = (offsets[row] - first) as usize;
        let length = (offsets[row + 1] - offsets[row]) as usize;
        let unknown = || {
            let nulls = matches.nulls();
            nulls.is_some_and(|nulls| nulls.slice(from, length).null_count() > 0)
        };
        if lists.is_null(row) {
            builder.append_null();
        } else if decided.slice(from, length).count_set_bits() > 0 {
            builder.append_value(any);
        } else if unknown() {
            builder.append_null();
        } else {
            builder.append_value(!any);
        }
    }
    result(args, Arc::new(builder.finish()))
}

/// The comparisons that decide a row alone: those that are true for ANY, false for ALL.
fn decisive(matches: &BooleanArray, any: bool) -> BooleanBuffer {
    let wanted = if any {
        matches.values().clone()
    } else {
        !matches.values()
    };
    match matches.nulls() {
        Some(nulls) => &wanted & nulls.inner(),
        None => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::lookup;
    use datafusion_common::config::ConfigOptions;

    fn call(name: &str, x: ArrayRef, lists: ArrayRef) -> Vec<Option<bool>> {
        let field = |a: &ArrayRef| Arc::new(Field::new("x", a.data_type().clone(), true));
        let args = ScalarFunctionArgs {
            arg_fields: vec![field(&x), field(&lists)],
            number_rows: x.len(),
            args: vec![ColumnarValue::Array(x), ColumnarValue::Array(lists)],
            return_field: Arc::new(Field::new("y", DataType::Boolean, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        let answer = lookup(name).unwrap().invoke_with_args(args).unwrap();
        let answer = answer.into_array(1).unwrap();
        answer.as_boolean().iter().collect()
    }

    fn lists() -> ArrayRef {
        let lists = vec![
            Some(vec![Some(1), None]),
            Some(vec![Some(2), None]),
            Some(vec![Some(2)]),
            Some(vec![]),
            None,
            Some(vec![]),
            Some(vec![Some(1)]),
        ];
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))
    }

    #[test]
    fn null_decides_nothing() {
        let ints = [Some(1), Some(1), Some(1), Some(1), Some(1), None, None];
        let x = || Arc::new(Int64Array::from(ints.to_vec())) as ArrayRef;
        let (t, f) = (Some(true), Some(false));
        assert_eq!(call("any_eq", x(), lists()), [t, None, f, f, None, f, None]);
        assert_eq!(call("all_eq", x(), lists()), [None, f, f, t, None, t, None]);
        assert_eq!(call("any_lt", x(), lists()), [None, t, t, f, None, f, None]);
        assert_eq!(call("all_ne", x(), lists()), [f, None, t, t, None, t, None]);
        // A part of a larger column.
        let part = call("any_eq", x().slice(1, 3), lists().slice(1, 3));
        assert_eq!(part, [None, f, f]);
    }

    #[test]
    fn types_meet() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
        let lists = vec![Some(vec![Some(1)]), Some(vec![Some(7)])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>(lists));
        let greater = call("any_gt", floats, lists);
        assert_eq!(greater, [Some(false), Some(true)]);
    }
}
