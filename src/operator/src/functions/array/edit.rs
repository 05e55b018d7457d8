//! Arrays from arrays and elements: `ARRAY[..]`, `array_append`, `array_prepend`, `array_cat`,
//! `array_remove`, `array_replace`, `trim_array`, `array_fill`; and arrays compared: `array_eq` and
//! its like, the greatest and the least of arrays.

use super::super::bounded::check_bytes;
use super::super::definition::*;
use super::compare::comparator;
use super::{
    ELEMENTS_MAX, Ints, Lists, Made, Operand, check_elements, common, element_of, list_like,
    list_of,
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, DynComparator};
use arrow::datatypes::{DataType, Int32Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::array::{other_subscripts, several_dimensions};

pub(super) fn definitions() -> Vec<Definition> {
    let array = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |types: &[DataType]| types[0].clone(),
        evaluate,
    };
    let comparison = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| DataType::Boolean,
        evaluate,
    };
    let lists = |types: &[DataType]| {
        let elements = types.iter().map(element_of).collect::<Option<Vec<_>>>()?;
        let element = common(&elements)?;
        let all = types.iter().map(|list| list_like(list, &element)).collect();
        (!types.is_empty()).then_some(all)
    };
    vec![
        Definition {
            name: "make_array",
            aliases: &[],
            takes: |types| Some(vec![common(types)?; types.len()]),
            returns: |types| list_of(elements_of_constructor(types)),
            evaluate: make_array,
        },
        array(
            "array_append",
            |types| match types {
                [list, element] => with_elements(list, &[element]),
                _ => None,
            },
            |a| with_one(a, 0, 1),
        ),
        Definition {
            name: "array_prepend",
            aliases: &[],
            takes: |types| match types {
                [element, list] => {
                    let mut taken = with_elements(list, &[element])?;
                    taken.reverse();
                    Some(taken)
                }
                _ => None,
            },
            returns: |types| types[1].clone(),
            evaluate: |a| with_one(a, 1, 0),
        },
        array("array_cat", lists, array_cat),
        array(
            "array_remove",
            |types| match types {
                [list, element] => with_elements(list, &[element]),
                _ => None,
            },
            array_remove,
        ),
        array(
            "array_replace",
            |types| match types {
                [list, from, to] => with_elements(list, &[from, to]),
                _ => None,
            },
            array_replace,
        ),
        array(
            "trim_array",
            |types| match types {
                [list @ DataType::List(_), n] if is_int(n) => {
                    Some(vec![list.clone(), DataType::Int64])
                }
                _ => None,
            },
            trim_array,
        ),
        Definition {
            name: "array_fill",
            aliases: &[],
            takes: |types| {
                let (element, bounds) = types.split_first()?;
                let is_bounds = |t: &DataType| element_of(t).is_some_and(|e| is_int(&e));
                if !matches!(bounds.len(), 1 | 2) || !bounds.iter().all(is_bounds) {
                    return None;
                }
                let mut taken = vec![list_of(DataType::Int32); types.len()];
                taken[0] = common([element])?;
                Some(taken)
            },
            returns: |types| list_of(types[0].clone()),
            evaluate: array_fill,
        },
        comparison("array_eq", lists, |a| compared(a, Ordering::is_eq)),
        comparison("array_ne", lists, |a| compared(a, Ordering::is_ne)),
        comparison("array_lt", lists, |a| compared(a, Ordering::is_lt)),
        comparison("array_le", lists, |a| compared(a, Ordering::is_le)),
        comparison("array_gt", lists, |a| compared(a, Ordering::is_gt)),
        comparison("array_ge", lists, |a| compared(a, Ordering::is_ge)),
        array("array_greatest", lists, |a| extreme(a, Ordering::Greater)),
        array("array_least", lists, |a| extreme(a, Ordering::Less)),
    ]
}

/// A list and elements for it.
fn with_elements(list: &DataType, elements: &[&DataType]) -> Option<Vec<DataType>> {
    let inner = element_of(list)?;
    let element = common([&inner].into_iter().chain(elements.iter().copied()))?;
    let mut taken = vec![element; elements.len() + 1];
    taken[0] = list_like(list, &taken[0]);
    Some(taken)
}

/// The elements of `ARRAY[..]`: what has no type is text; what is empty has none, until it is cast.
fn elements_of_constructor(types: &[DataType]) -> DataType {
    match types.first() {
        Some(DataType::Null) => DataType::Utf8,
        Some(element) => element.clone(),
        None => DataType::Null,
    }
}

fn make_array(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let element = match args.return_field.data_type() {
        DataType::List(field) => field.data_type().clone(),
        other => other.clone(),
    };
    let operands = (0..args.args.len())
        .map(|i| Operand::of(args, i))
        .collect::<Result<Vec<_>>>()?;
    let sources = operands.iter().map(|o| match o.array.data_type() {
        DataType::Null => Ok(arrow::array::new_null_array(&element, o.array.len())),
        _ => Ok(o.array.clone()),
    });
    let sources = sources.collect::<Result<Vec<_>>>()?;
    let rows = rows(args);
    check_elements(rows.saturating_mul(sources.len()))?;
    let mut made = Made::new(rows);
    for row in 0..rows {
        for (source, operand) in operands.iter().enumerate() {
            made.pick(source, operand.at(row));
        }
        made.end()?;
    }
    made.finish(args, &sources)
}

/// The array of argument `list` with the element of the other argument behind it, or before it if
/// that argument comes first. NULL has no elements.
fn with_one(args: &ScalarFunctionArgs, list: usize, element: usize) -> Result<ColumnarValue> {
    let (lists, added) = (Lists::of(args, list)?, Operand::of(args, element)?);
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let range = lists.get(row).unwrap_or(0..0);
        if element < list {
            made.pick(1, added.at(row));
            made.pick_all(0, range);
        } else {
            made.pick_all(0, range);
            made.pick(1, added.at(row));
        }
        made.end()?;
    }
    made.finish(args, &[lists.values().clone(), added.array])
}

/// One array behind the other; NULL only if both are.
fn array_cat(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        match (left.get(row), right.get(row)) {
            (None, None) => made.null(),
            (l, r) => {
                made.pick_all(0, l.unwrap_or(0..0));
                made.pick_all(1, r.unwrap_or(0..0));
                made.end()?;
            }
        }
    }
    made.finish(args, &[left.values().clone(), right.values().clone()])
}

fn array_remove(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (lists, removed) = (Lists::of(args, 0)?, Operand::of(args, 1)?);
    let compare = comparator(lists.values(), &removed.array)?;
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let Some(range) = lists.get(row) else {
            made.null();
            continue;
        };
        let at = removed.at(row);
        for i in range.filter(|i| compare(*i, at).is_ne()) {
            made.pick(0, i);
        }
        made.end()?;
    }
    made.finish(args, &[lists.values().clone()])
}

fn array_replace(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let (from, to) = (Operand::of(args, 1)?, Operand::of(args, 2)?);
    let compare = comparator(lists.values(), &from.array)?;
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let Some(range) = lists.get(row) else {
            made.null();
            continue;
        };
        let at = from.at(row);
        for i in range {
            if compare(i, at).is_eq() {
                made.pick(1, to.at(row));
            } else {
                made.pick(0, i);
            }
        }
        made.end()?;
    }
    made.finish(args, &[lists.values().clone(), to.array])
}

fn trim_array(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (lists, counts) = (Lists::of(args, 0)?, Ints::of(args, 1)?);
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let (Some(range), Some(count)) = (lists.get(row), counts.get(row)) else {
            made.null();
            continue;
        };
        let count = usize::try_from(count).ok().filter(|n| *n <= range.len());
        let count = count.ok_or_else(|| {
            let length = range.len();
            failure(
                SqlState("2202E"),
                format!("number of elements to trim must be between 0 and {length}"),
            )
        })?;
        made.pick_all(0, range.start..range.end - count);
        made.end()?;
    }
    made.finish(args, &[lists.values().clone()])
}

fn array_fill(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (filler, lengths) = (Operand::of(args, 0)?, Lists::of(args, 1)?);
    let bounds = match args.args.len() {
        3.. => Some(Lists::of(args, 2)?),
        _ => None,
    };
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let bounds = bounds.as_ref().map(|b| (b, b.get(row)));
        let length = filled_length((&lengths, lengths.get(row)), bounds)?;
        check_elements(made.picks.len().saturating_add(length))?;
        let at = filler.at(row);
        let bytes = match filler.array.as_string_opt::<i32>() {
            Some(texts) => texts.value_length(at) as u64,
            None => 0,
        };
        let elements = (made.picks.len() + length) as u64;
        check_bytes(elements.saturating_mul(bytes + size_of::<(usize, usize)>() as u64))?;
        made.picks.extend(std::iter::repeat_n((0, at), length));
        made.end()?;
    }
    made.finish(args, &[filler.array])
}

type Row<'a> = (&'a Lists, Option<Range<usize>>);

/// How many elements the array of these dimensions has.
fn filled_length(lengths: Row, bounds: Option<Row>) -> Result<usize> {
    let null = || {
        failure(
            SqlState("22004"),
            "dimension array or low bound array cannot be null",
        )
    };
    let dimensions = lengths.1.ok_or_else(null)?;
    let lower = match bounds {
        Some((lists, range)) => Some((lists, range.ok_or_else(null)?)),
        None => None,
    };
    let value = |lists: &Lists, i: usize| {
        let values = lists.values().as_primitive::<Int32Type>();
        let value = values.is_valid(i).then(|| values.value(i));
        value.ok_or_else(|| failure(SqlState("22004"), "dimension values cannot be null"))
    };
    for (lists, range) in [Some((lengths.0, dimensions.clone())), lower.clone()]
        .into_iter()
        .flatten()
    {
        for i in range {
            value(lists, i)?;
        }
    }
    if let Some((_, lower)) = &lower
        && lower.len() != dimensions.len()
    {
        let error = Error::user(SqlState("2202E"), "wrong number of array subscripts");
        let detail = "Low bound array has different size than dimensions array.";
        return Err(external(error.with_detail(detail)));
    }
    let mut count = 1usize;
    for i in dimensions.clone() {
        let length = usize::try_from(value(lengths.0, i)?).unwrap_or(ELEMENTS_MAX + 1);
        count = count.saturating_mul(length);
        check_elements(count)?;
    }
    let mut elsewhere = false;
    if let Some((lists, range)) = lower {
        for i in range {
            elsewhere |= value(lists, i)? != 1;
        }
    }
    match dimensions.len() {
        0 => Ok(0),
        1 if !elsewhere || count == 0 => Ok(count),
        _ if count == 0 => Ok(0),
        1 => Err(external(other_subscripts())),
        _ => Err(external(several_dimensions())),
    }
}

/// `greatest` or `least` of arrays; NULL is none of them.
fn extreme(args: &ScalarFunctionArgs, wanted: Ordering) -> Result<ColumnarValue> {
    let lists = (0..args.args.len())
        .map(|i| Lists::of(args, i))
        .collect::<Result<Vec<_>>>()?;
    let compare = lists
        .iter()
        .map(|l| {
            lists
                .iter()
                .map(|r| comparator(l.values(), r.values()))
                .collect()
        })
        .collect::<Result<Vec<Vec<DynComparator>>>>()?;
    let rows = rows(args);
    let mut made = Made::new(rows);
    for row in 0..rows {
        let mut best: Option<(usize, Range<usize>)> = None;
        for (i, list) in lists.iter().enumerate() {
            let Some(range) = list.get(row) else {
                continue;
            };
            let better = best.as_ref().is_none_or(|(b, other)| {
                order(range.clone(), other.clone(), &compare[i][*b]) == wanted
            });
            if better {
                best = Some((i, range));
            }
        }
        match best {
            Some((source, range)) => {
                made.pick_all(source, range);
                made.end()?;
            }
            None => made.null(),
        }
    }
    let sources: Vec<ArrayRef> = lists.iter().map(|l| l.values().clone()).collect();
    made.finish(args, &sources)
}

/// What the order of two arrays comes to.
fn compared(args: &ScalarFunctionArgs, f: impl Fn(Ordering) -> bool) -> Result<ColumnarValue> {
    let (left, right) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let compare = comparator(left.values(), right.values())?;
    let truths = (0..rows(args)).map(|row| {
        let (left, right) = (left.get(row)?, right.get(row)?);
        Some(f(order(left, right, &compare)))
    });
    result(args, Arc::new(truths.collect::<BooleanArray>()))
}

/// Two arrays: element by element, then by length.
fn order(left: Range<usize>, right: Range<usize>, compare: &DynComparator) -> Ordering {
    let lengths = left.len().cmp(&right.len());
    let elements = left.zip(right).map(|(l, r)| compare(l, r));
    elements.fold(Ordering::Equal, Ordering::then).then(lengths)
}
