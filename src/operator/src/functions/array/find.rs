//! What arrays hold: `array_position`, `array_positions`, subscripts and slices, `@>` and `&&`.

use super::super::definition::*;
use super::super::json::JSONB;
use super::compare::comparator;
use super::{Ints, Lists, Made, Operand, common, element_of, is_numeric, list_like, list_of};
use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int32Builder, ListBuilder, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, UInt32Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::ops::Range;
use std::sync::Arc;
use tidemark_common::SqlState;

pub(super) fn definitions() -> Vec<Definition> {
    let both = |types: &[DataType]| match types {
        [a, b] => {
            let element = common([&element_of(a)?, &element_of(b)?])?;
            Some(vec![list_like(a, &element), list_like(b, &element)])
        }
        _ => None,
    };
    vec![
        Definition {
            name: "array_position",
            aliases: &[],
            takes: |types| match types {
                [list, element] => with_element(list, element),
                [list, element, start] if is_int(start) => {
                    let mut taken = with_element(list, element)?;
                    taken.push(DataType::Int64);
                    Some(taken)
                }
                _ => None,
            },
            returns: |_| DataType::Int32,
            evaluate: position,
        },
        Definition {
            name: "array_positions",
            aliases: &[],
            takes: |types| match types {
                [list, element] => with_element(list, element),
                _ => None,
            },
            returns: |_| list_of(DataType::Int32),
            evaluate: positions,
        },
        Definition {
            name: "array_subscript",
            aliases: &[],
            takes: |types| match types {
                [DataType::List(_), indexes @ ..] if indexes.iter().all(is_index) => {
                    let mut taken = vec![DataType::Int64; types.len()];
                    taken[0] = types[0].clone();
                    Some(taken)
                }
                // The planner makes a path of these.
                [json, ..] if *json == JSONB => Some(types.to_vec()),
                _ => None,
            },
            returns: |types| element_of(&types[0]).unwrap_or(JSONB),
            evaluate: subscript,
        },
        Definition {
            name: "only_element",
            aliases: &[],
            takes: |types| match types {
                [list @ DataType::List(_)] => Some(vec![list.clone()]),
                _ => None,
            },
            returns: |types| element_of(&types[0]).unwrap_or(DataType::Null),
            evaluate: only_element,
        },
        Definition {
            name: "width_bucket_of",
            aliases: &[],
            takes: |types| match types {
                [value, list] => {
                    let mut taken = with_element(list, value)?;
                    taken.swap(0, 1);
                    Some(taken)
                }
                _ => None,
            },
            returns: |_| DataType::Int32,
            evaluate: width_bucket,
        },
        Definition {
            name: "array_subscripts",
            aliases: &[],
            takes: |types| match types {
                [list @ DataType::List(_), from, to] if is_index(from) && is_index(to) => {
                    Some(vec![list.clone(), DataType::Int64, DataType::Int64])
                }
                _ => None,
            },
            returns: |types| types[0].clone(),
            evaluate: subscripts,
        },
        Definition {
            name: "array_contains",
            aliases: &[],
            takes: both,
            returns: |_| DataType::Boolean,
            evaluate: contains,
        },
        Definition {
            name: "array_overlaps",
            aliases: &[],
            takes: both,
            returns: |_| DataType::Boolean,
            evaluate: overlaps,
        },
    ]
}

/// `width_bucket(value, thresholds)`: how many thresholds, which are sorted, the value has reached.
fn width_bucket(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (wanted, lists) = (Operand::of(args, 0)?, Lists::of(args, 1)?);
    let compare = comparator(lists.values(), &wanted.array)?;
    let reached = (0..rows(args)).map(|row| {
        let Some(range) = lists.get(row).filter(|_| !wanted.is_null(row)) else {
            return Ok(None);
        };
        if has_null(lists.values(), &range) {
            let message = "thresholds array must not contain NULLs";
            return Err(failure(SqlState("22004"), message));
        }
        let at = wanted.at(row);
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = (low + high) / 2;
            if compare(middle, at).is_gt() {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Some((low - range.start) as i32))
    });
    let reached = reached.collect::<Result<Int32Array>>()?;
    result(args, Arc::new(reached))
}

/// Whether one of these elements is NULL.
fn has_null(values: &ArrayRef, range: &Range<usize>) -> bool {
    let nulls = values.nulls();
    nulls.is_some_and(|nulls| nulls.slice(range.start, range.len()).null_count() > 0)
}

/// What becomes an integer between brackets.
fn is_index(data_type: &DataType) -> bool {
    is_int(data_type) || is_numeric(data_type) || data_type.is_floating()
}

fn with_element(list: &DataType, element: &DataType) -> Option<Vec<DataType>> {
    let element = common([&element_of(list)?, element])?;
    Some(vec![list_like(list, &element), element])
}

fn position(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (lists, wanted) = (Lists::of(args, 0)?, Operand::of(args, 1)?);
    let starts = match args.args.len() {
        3.. => Some(Ints::of(args, 2)?),
        _ => None,
    };
    let compare = comparator(lists.values(), &wanted.array)?;
    let places = (0..rows(args)).map(|row| {
        let Some(mut range) = lists.get(row) else {
            return Ok(None);
        };
        // Nothing is looked for in an array of nothing, from wherever.
        if range.is_empty() {
            return Ok(None);
        }
        // A NULL that is in none of the elements is not looked for.
        if wanted.is_null(row) && !has_null(lists.values(), &range) {
            return Ok(None);
        }
        let skipped = match &starts {
            None => 0,
            Some(starts) => {
                starts.get(row).ok_or_else(|| {
                    failure(SqlState("22004"), "initial position must not be null")
                })? - 1
            }
        };
        let from = range.start;
        range.start += usize::try_from(skipped).unwrap_or(0).min(range.len());
        let at = wanted.at(row);
        let found = range.into_iter().find(|i| compare(*i, at).is_eq());
        Ok(found.map(|i| (i - from + 1) as i32))
    });
    result(args, Arc::new(places.collect::<Result<Int32Array>>()?))
}

fn positions(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (lists, wanted) = (Lists::of(args, 0)?, Operand::of(args, 1)?);
    let compare = comparator(lists.values(), &wanted.array)?;
    let mut places = ListBuilder::new(Int32Builder::new());
    for row in 0..rows(args) {
        let range = lists.get(row);
        let at = wanted.at(row);
        for (n, i) in range.clone().into_iter().flatten().enumerate() {
            if compare(i, at).is_eq() {
                places.values().append_value(n as i32 + 1);
            }
        }
        places.append(range.is_some());
    }
    result(args, Arc::new(places.finish()))
}

/// The element of an array of one, which a scalar subquery has found; NULL of none.
///
/// Errors: `21000` for several.
fn only_element(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let places = (0..rows(args)).map(|row| match lists.get(row) {
        Some(range) if range.len() > 1 => {
            let message = "more than one row returned by a subquery used as an expression";
            Err(failure(SqlState("21000"), message))
        }
        Some(range) if range.len() == 1 => Ok(Some(range.start as u32)),
        _ => Ok(None),
    });
    let places = places.collect::<Result<arrow::array::PrimitiveArray<UInt32Type>>>()?;
    result(args, take(lists.values(), &places, None)?)
}

/// `a[i]`; an array has one dimension, so there is nothing at `a[i][j]`.
fn subscript(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    if args.args.len() > 2 {
        let none: ArrayRef = new_null_array(args.return_field.data_type(), rows(args));
        return result(args, none);
    }
    let indexes = Ints::of(args, 1)?;
    let places = (0..rows(args)).map(|row| {
        let range = lists.get(row)?;
        let index = usize::try_from(indexes.get(row)?).ok()?.checked_sub(1)?;
        (index < range.len()).then(|| (range.start + index) as u32)
    });
    let places: arrow::array::PrimitiveArray<UInt32Type> = places.collect();
    result(args, take(lists.values(), &places, None)?)
}

/// `a[i:j]`: as much of it as there is.
fn subscripts(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let (lower, upper) = (Ints::of(args, 1)?, Ints::of(args, 2)?);
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let (Some(range), Some(lower), Some(upper)) =
            (lists.get(row), lower.get(row), upper.get(row))
        else {
            made.null();
            continue;
        };
        let place = |n: i64| range.start + (n.clamp(0, range.len() as i64) as usize);
        made.pick_all(0, place(lower.saturating_sub(1))..place(upper));
        made.end()?;
    }
    made.finish(args, &[lists.values().clone()])
}

/// `a @> b`: every element of b is one of a. A NULL equals none.
fn contains(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (outer, inner) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let compare = comparator(outer.values(), inner.values())?;
    let held =
        (0..rows(args)).map(|row| {
            let (outer, mut wanted) = (outer.get(row)?, inner.get(row)?);
            Some(wanted.all(|w| {
                inner.values().is_valid(w) && outer.clone().any(|o| compare(o, w).is_eq())
            }))
        });
    result(args, Arc::new(held.collect::<BooleanArray>()))
}

/// `a && b`: an element of b is one of a.
fn overlaps(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let compare = comparator(left.values(), right.values())?;
    let common =
        (0..rows(args)).map(|row| {
            let (outer, mut wanted) = (left.get(row)?, right.get(row)?);
            Some(wanted.any(|w| {
                right.values().is_valid(w) && outer.clone().any(|o| compare(o, w).is_eq())
            }))
        });
    result(args, Arc::new(common.collect::<BooleanArray>()))
}
