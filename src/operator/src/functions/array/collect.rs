//! What aggregates that collect values make of them: the planner writes `jsonb_agg(x)` as
//! `to_jsonb(array_agg(x))`, `jsonb_object_agg(k, v)` as `jsonb_of_lists(array_agg(k),
//! array_agg(to_jsonb(v)))`, `string_agg(x, y)` as `joined_list(array_agg(x), array_agg(y))`,
//! `array_agg` of arrays as `array_of_arrays(array_agg(x))`, and `array_agg(DISTINCT x)` and
//! `jsonb_agg(DISTINCT x)` as `distinct_list` and `distinct_jsonb` of what is sorted.

use super::super::bounded::check_bytes;
use super::super::definition::*;
use super::super::json::{JSONB, to_jsonb};
use super::compare::comparator;
use super::{Lists, Operand, element_of, list_of};
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_values::array::several_dimensions;
use tidemark_values::jsonb::{Builder, Value};

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "array_of_arrays",
            aliases: &[],
            takes: |types| match types {
                [list] if matches!(element_of(list)?, DataType::List(_)) => Some(types.to_vec()),
                _ => None,
            },
            returns: |types| element_of(&types[0]).unwrap_or(DataType::Null),
            evaluate: array_of_arrays,
        },
        Definition {
            name: "jsonb_of_lists",
            aliases: &[],
            takes: |types| match types {
                [DataType::List(_), DataType::List(_)] => {
                    Some(vec![list_of(DataType::Utf8), list_of(JSONB)])
                }
                _ => None,
            },
            returns: |_| JSONB,
            evaluate: jsonb_of_lists,
        },
        Definition {
            name: "joined_list",
            aliases: &[],
            takes: |types| match types {
                [DataType::List(l), DataType::List(r)] if l.data_type() == r.data_type() => {
                    Some(types.to_vec())
                }
                [DataType::List(l), _] => Some(vec![types[0].clone(), l.data_type().clone()]),
                _ => None,
            },
            returns: |types| element_of(&types[0]).unwrap_or(DataType::Utf8),
            evaluate: joined_list,
        },
        Definition {
            name: "distinct_list",
            aliases: &[],
            takes: |types| match types {
                [DataType::List(_)] => Some(types.to_vec()),
                _ => None,
            },
            returns: |types| types[0].clone(),
            evaluate: distinct_list,
        },
        Definition {
            name: "distinct_jsonb",
            aliases: &[],
            takes: |types| match types {
                [DataType::List(_)] => Some(types.to_vec()),
                _ => None,
            },
            returns: |_| JSONB,
            evaluate: |args| {
                let args = ScalarFunctionArgs {
                    args: vec![distinct_list(args)?],
                    ..args.clone()
                };
                to_jsonb(&args)
            },
        },
    ]
}

/// Of elements that stand side by side and are equal, the first.
fn distinct_list(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let values = lists.values();
    let compare = comparator(values, values)?;
    let (mut kept, mut lengths) = (Vec::new(), Vec::with_capacity(rows(args)));
    let mut valid = NullBufferBuilder::new(rows(args));
    for row in 0..rows(args) {
        let list = lists.get(row);
        valid.append(list.is_some());
        let list = list.unwrap_or(0..0);
        let before = kept.len();
        let first = list.start;
        let differs = |i: &usize| *i == first || compare(*i - 1, *i).is_ne();
        kept.extend(list.filter(differs).map(|i| i as u32));
        lengths.push(kept.len() - before);
    }
    let Some(element) = element_of(&list_type(args)) else {
        return exec_err!("what is collected is a list");
    };
    let kept = take(values, &UInt32Array::from(kept), None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    let element = Arc::new(Field::new_list_field(element, true));
    let lists = ListArray::try_new(element, offsets, kept, valid.finish())?;
    result(args, Arc::new(lists))
}

fn list_type(args: &ScalarFunctionArgs) -> DataType {
    args.arg_fields[0].data_type().clone()
}

/// Arrays of arrays, which there are none of: only of nothing at all there is an answer.
fn array_of_arrays(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let inner = lists.values().as_list::<i32>();
    for row in 0..rows(args) {
        let Some(range) = lists.get(row) else {
            continue;
        };
        let mut first = None;
        for i in range {
            if inner.is_null(i) {
                return Err(failure(SqlState("22004"), "cannot accumulate null arrays"));
            }
            let length = inner.value_length(i);
            let message = match first {
                _ if length == 0 => "cannot accumulate empty arrays",
                Some(first) if first != length => {
                    "cannot accumulate arrays of different dimensionality"
                }
                _ => {
                    first = Some(length);
                    continue;
                }
            };
            return Err(failure(SqlState("2202E"), message));
        }
        return Err(external(several_dimensions()));
    }
    null(args.return_field.data_type())
}

fn jsonb_of_lists(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (keys, values) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let (texts, forms) = (
        keys.values().as_string::<i32>(),
        values.values().as_binary_view(),
    );
    let mut builder = Builder::new();
    let mut objects = BinaryViewBuilder::with_capacity(rows(args));
    for row in 0..rows(args) {
        let (Some(keys), Some(values)) = (keys.get(row), values.get(row)) else {
            objects.append_null();
            continue;
        };
        builder.clear();
        builder.begin_object();
        for (key, value) in keys.zip(values) {
            if texts.is_null(key) {
                let message = "field name must not be null";
                return Err(failure(SqlState::INVALID_PARAMETER, message));
            }
            builder.key(texts.value(key)).map_err(external)?;
            if forms.is_null(value) {
                builder.null();
            } else {
                let value = Value::new(forms.value(value));
                builder.value(value).map_err(external)?;
            }
        }
        builder.end_object().map_err(external)?;
        objects.append_value(builder.finish());
    }
    result(args, Arc::new(objects.finish()))
}

/// The values that are there, one behind the other, each but the first behind its own delimiter, or
/// behind the one of all.
fn joined_list(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = Lists::of(args, 0)?;
    let is_text = *lists.values().data_type() == DataType::Utf8;
    let bytes = |values: &ArrayRef| arrow::compute::cast(values, &DataType::Binary);
    let each = match args.arg_fields[1].data_type() {
        DataType::List(_) => Some(Lists::of(args, 1)?),
        _ => None,
    };
    let one_of_all = Operand::of(args, 1)?;
    let between = bytes(each.as_ref().map_or(&one_of_all.array, Lists::values))?;
    let (values, between) = (bytes(lists.values())?, between.as_binary::<i32>());
    let values = values.as_binary::<i32>();
    let mut all = BinaryBuilder::new();
    let (mut one, mut total) = (Vec::new(), 0);
    for row in 0..rows(args) {
        let delimiters = match &each {
            Some(each) => each.get(row),
            None => Some(one_of_all.at(row)..one_of_all.at(row) + 1),
        };
        let (Some(list), Some(delimiters)) = (lists.get(row), delimiters) else {
            all.append_null();
            continue;
        };
        let delimiters = delimiters.cycle().take(list.len());
        one.clear();
        let mut any = false;
        for (value, delimiter) in list.zip(delimiters).filter(|(v, _)| values.is_valid(*v)) {
            if any && between.is_valid(delimiter) {
                one.extend_from_slice(between.value(delimiter));
            }
            one.extend_from_slice(values.value(value));
            any = true;
            check_bytes(total + one.len() as u64)?;
        }
        total += one.len() as u64;
        all.append_option(any.then_some(&one));
    }
    let all: ArrayRef = Arc::new(all.finish());
    let all = if is_text {
        arrow::compute::cast(&all, &DataType::Utf8)?
    } else {
        all
    };
    result(args, all)
}
