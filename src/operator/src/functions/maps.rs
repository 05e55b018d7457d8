//! Maps, `MAP(k, v)`, by RisingWave's functions. What a map is, and that its entries are sorted, is
//! told by `tidemark_changelog::maps`; keys are texts and integers.
//!
//! Casts go by keys and values; texts are read by `tidemark_values::map`. Maps compare entry by
//! entry, each by its key and then by its value, then by how many there are.

use super::array::element_texts;
use super::casts::{cast_array_in, cast_elements};
use super::definition::*;
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_changelog::maps::{Again, assemble, entries_of};
use tidemark_plan::maps::{entry_type, is_map_key, map_parts, map_type};
use tidemark_values::map;
use tidemark_values::moment::Zone;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let of_map = |types: &[DataType]| match types {
        [map] => map_parts(map).map(|_| types.to_vec()),
        _ => None,
    };
    let with_key = |types: &[DataType]| match types {
        [map, key] => key_for(map, key).map(|key| vec![map.clone(), key]),
        _ => None,
    };
    let function = |name, takes, returns, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns,
        evaluate,
    };
    vec![
        function("map_from_key_values", of_lists, type_of_lists, from_lists),
        function(
            "map_from_entries",
            of_entries,
            type_of_entries,
            from_entries,
        ),
        function("make_map", of_pairs, type_of_pairs, from_pairs),
        function("map_access", with_key, value_type, access),
        function("map_contains", with_key, |_| DataType::Boolean, contains),
        function("map_length", of_map, |_| DataType::Int64, length),
        function(
            "map_keys",
            of_map,
            |t| list_of(part(&t[0], false)),
            |a| parts(a, false),
        ),
        function(
            "map_values",
            of_map,
            |t| list_of(part(&t[0], true)),
            |a| parts(a, true),
        ),
        function("map_entries", of_map, entries_type, entries),
        function("map_cat", of_two, |t| t[0].clone(), cat),
        function("map_insert", with_entry, |t| t[0].clone(), insert),
        function("map_delete", with_key, |t| t[0].clone(), delete),
    ]
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// The type of the keys, or of the values, of a map.
fn part(map: &DataType, value: bool) -> DataType {
    match map_parts(map) {
        Some((_, field)) if value => field.data_type().clone(),
        Some((field, _)) => field.data_type().clone(),
        None => DataType::Null,
    }
}

fn value_type(types: &[DataType]) -> DataType {
    part(&types[0], true)
}

fn entries_type(types: &[DataType]) -> DataType {
    list_of(entry_type(part(&types[0], false), part(&types[0], true)))
}

/// What a key that is looked for in a map becomes.
fn key_for(map: &DataType, key: &DataType) -> Option<DataType> {
    let (is, _) = map_parts(map)?;
    assigned(key, is.data_type())
}

/// What an argument becomes where a map has values of another type.
fn assigned(is: &DataType, wanted: &DataType) -> Option<DataType> {
    let number = is.is_integer() || is.is_floating() || is.is_decimal();
    let fits = is == wanted
        || *is == DataType::Null
        || is.is_integer() && wanted.is_integer()
        || number && wanted.is_floating();
    fits.then(|| wanted.clone())
}

fn of_two(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [map, DataType::Null] | [DataType::Null, map] if map_parts(map).is_some() => {
            Some(vec![map.clone(), map.clone()])
        }
        [a, b] if a == b && map_parts(a).is_some() => Some(types.to_vec()),
        _ => None,
    }
}

fn with_entry(types: &[DataType]) -> Option<Vec<DataType>> {
    let [map, key, value] = types else {
        return None;
    };
    let value = assigned(value, map_parts(map)?.1.data_type())?;
    Some(vec![map.clone(), key_for(map, key)?, value])
}

fn of_lists(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::List(keys), DataType::List(_)] if is_map_key(keys.data_type()) => {
            Some(types.to_vec())
        }
        _ => None,
    }
}

fn type_of_lists(types: &[DataType]) -> DataType {
    match types {
        [DataType::List(keys), DataType::List(values)] => {
            map_type(keys.data_type().clone(), values.data_type().clone())
        }
        _ => DataType::Null,
    }
}

/// The key and the value of rows of two fields.
fn pair(element: &DataType) -> Option<(&FieldRef, &FieldRef)> {
    match element {
        DataType::Struct(fields) => match fields.as_ref() {
            [key, value] if is_map_key(key.data_type()) => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}

fn of_entries(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::List(entry)] => pair(entry.data_type()).map(|_| types.to_vec()),
        _ => None,
    }
}

fn type_of_entries(types: &[DataType]) -> DataType {
    let pair = match types {
        [DataType::List(entry)] => pair(entry.data_type()),
        _ => None,
    };
    pair.map_or(DataType::Null, |(key, value)| {
        map_type(key.data_type().clone(), value.data_type().clone())
    })
}

/// Keys and values by turns, each of one type.
fn of_pairs(types: &[DataType]) -> Option<Vec<DataType>> {
    let uniform = |first: usize| {
        let mut all = types.iter().skip(first).step_by(2);
        let known = all.clone().find(|t| **t != DataType::Null)?;
        all.all(|t| t == known || *t == DataType::Null || t.is_integer() && known.is_integer())
            .then(|| {
                let integers = types.iter().skip(first).step_by(2);
                let widest = integers
                    .filter(|t| t.is_integer())
                    .max_by_key(|t| t.primitive_width());
                widest.unwrap_or(known).clone()
            })
    };
    let (key, value) = (uniform(0)?, uniform(1).unwrap_or(DataType::Utf8));
    let even = types.len().is_multiple_of(2);
    (even && is_map_key(&key)).then(|| [key, value].into_iter().cycle().take(types.len()).collect())
}

fn type_of_pairs(types: &[DataType]) -> DataType {
    match types {
        [key, value, ..] => map_type(key.clone(), value.clone()),
        _ => DataType::Null,
    }
}

fn made(
    to: &DataType,
    keys: &ArrayRef,
    values: &ArrayRef,
    rows: Vec<Option<Vec<u32>>>,
    again: Again,
) -> Result<ArrayRef> {
    assemble(to, keys, values, rows, again).map_err(external)
}

fn range(offsets: &OffsetBuffer<i32>, row: usize) -> std::ops::Range<u32> {
    offsets[row] as u32..offsets[row + 1] as u32
}

fn from_lists(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (keys, values) = (column(args, 0)?, column(args, 1)?);
    let (keys, values) = (keys.as_list::<i32>(), values.as_list::<i32>());
    let (mut pairs, mut rows) = (Vec::new(), Vec::with_capacity(keys.len()));
    for row in 0..keys.len() {
        if keys.is_null(row) || values.is_null(row) {
            rows.push(None);
            continue;
        }
        if keys.value_length(row) != values.value_length(row) {
            return Err(failure(
                tidemark_common::SqlState::INVALID_PARAMETER,
                "map_from_key_values: there are as many keys as values in a map",
            ));
        }
        let from = pairs.len() as u32;
        let (k, v) = (range(keys.offsets(), row), range(values.offsets(), row));
        pairs.extend(k.zip(v));
        rows.push(Some((from..pairs.len() as u32).collect()));
    }
    let places = |of: fn(&(u32, u32)) -> u32| UInt32Array::from_iter_values(pairs.iter().map(of));
    let keys = take(keys.values(), &places(|p| p.0), None)?;
    let values = take(values.values(), &places(|p| p.1), None)?;
    result(
        args,
        made(
            args.return_field.data_type(),
            &keys,
            &values,
            rows,
            Again::Refused,
        )?,
    )
}

fn from_entries(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = column(args, 0)?;
    let lists = lists.as_list::<i32>();
    let entries = lists.values().as_struct();
    let row = |row: usize| {
        let all: Vec<u32> = range(lists.offsets(), row).collect();
        // A map of an entry that is not there is none.
        let there = all.iter().all(|at| entries.is_valid(*at as usize));
        (lists.is_valid(row) && there).then_some(all)
    };
    let rows = (0..lists.len()).map(row).collect();
    let (keys, values) = (entries.column(0), entries.column(1));
    result(
        args,
        made(
            args.return_field.data_type(),
            keys,
            values,
            rows,
            Again::Refused,
        )?,
    )
}

fn from_pairs(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let columns = (0..args.args.len()).map(|i| column(args, i));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let of = |first: usize| {
        let parts = columns.iter().skip(first).step_by(2);
        concat(&parts.map(AsRef::as_ref).collect::<Vec<&dyn Array>>())
    };
    let (pairs, count) = (columns.len() / 2, rows(args) as u32);
    let row = |row: u32| Some((0..pairs as u32).map(|pair| pair * count + row).collect());
    let all = (0..count).map(row).collect();
    result(
        args,
        made(
            args.return_field.data_type(),
            &of(0)?,
            &of(1)?,
            all,
            Again::Refused,
        )?,
    )
}

/// The place of a key among the entries of each map.
fn places(args: &ScalarFunctionArgs) -> Result<(ArrayRef, Vec<Option<u32>>)> {
    let (maps, keys) = (column(args, 0)?, column(args, 1)?);
    let map = maps.as_map();
    let order = make_comparator(map.keys(), &keys, Default::default())?;
    let place = |row: usize| {
        if map.is_null(row) || keys.is_null(row) {
            return None;
        }
        let entries: Vec<u32> = range(map.offsets(), row).collect();
        let found = entries.binary_search_by(|at| order(*at as usize, row));
        found.ok().map(|at| entries[at])
    };
    let all = (0..map.len()).map(place).collect();
    Ok((maps, all))
}

fn access(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (maps, places) = places(args)?;
    let places = UInt32Array::from(places);
    result(args, take(maps.as_map().values(), &places, None)?)
}

fn contains(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (maps, places) = places(args)?;
    let keys = column(args, 1)?;
    let known = |row: usize| maps.is_valid(row) && keys.is_valid(row);
    let found = places.iter().enumerate();
    let found = found.map(|(row, place)| known(row).then_some(place.is_some()));
    result(args, Arc::new(found.collect::<BooleanArray>()))
}

fn length(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let maps = column(args, 0)?;
    let maps = maps.as_map();
    let length = |row| {
        maps.is_valid(row)
            .then(|| i64::from(maps.value_length(row)))
    };
    result(
        args,
        Arc::new((0..maps.len()).map(length).collect::<Int64Array>()),
    )
}

/// The keys, or the values, of maps as arrays.
fn parts(args: &ScalarFunctionArgs, value: bool) -> Result<ColumnarValue> {
    let maps = column(args, 0)?;
    let maps = maps.as_map();
    let DataType::List(element) = args.return_field.data_type() else {
        return exec_err!("the keys of {}", maps.data_type());
    };
    let parts = if value { maps.values() } else { maps.keys() };
    let (offsets, nulls) = (maps.offsets().clone(), maps.nulls().cloned());
    result(
        args,
        Arc::new(ListArray::try_new(
            element.clone(),
            offsets,
            parts.clone(),
            nulls,
        )?),
    )
}

fn entries(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let maps = column(args, 0)?;
    result(args, Arc::new(entries_of(maps.as_map())))
}

fn cat(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (left, right) = (column(args, 0)?, column(args, 1)?);
    let (left, right) = (left.as_map(), right.as_map());
    let keys = concat(&[left.keys().as_ref(), right.keys().as_ref()])?;
    let values = concat(&[left.values().as_ref(), right.values().as_ref()])?;
    let behind = left.keys().len() as u32;
    // One that is NULL adds nothing.
    let row = |row: usize| {
        let of_left = left.is_valid(row).then(|| range(left.offsets(), row));
        let of_right = right.is_valid(row).then(|| range(right.offsets(), row));
        let there = of_left.is_some() || of_right.is_some();
        let of_right = of_right.into_iter().flatten().map(|at| at + behind);
        there.then(|| of_left.into_iter().flatten().chain(of_right).collect())
    };
    let rows = (0..left.len()).map(row).collect();
    result(
        args,
        made(
            args.return_field.data_type(),
            &keys,
            &values,
            rows,
            Again::Replaces,
        )?,
    )
}

fn insert(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (maps, key, value) = (column(args, 0)?, column(args, 1)?, column(args, 2)?);
    let map = maps.as_map();
    let keys = concat(&[map.keys().as_ref(), key.as_ref()])?;
    let values = concat(&[map.values().as_ref(), value.as_ref()])?;
    let behind = map.keys().len() as u32;
    let row = |row: usize| {
        // A map without a key for it stays as it is.
        let new = key.is_valid(row).then_some(behind + row as u32);
        map.is_valid(row)
            .then(|| range(map.offsets(), row).chain(new).collect())
    };
    let rows = (0..map.len()).map(row).collect();
    result(
        args,
        made(
            args.return_field.data_type(),
            &keys,
            &values,
            rows,
            Again::Replaces,
        )?,
    )
}

fn delete(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (maps, places) = places(args)?;
    let map = maps.as_map();
    let row = |row: usize| {
        let kept = range(map.offsets(), row).filter(|at| places[row] != Some(*at));
        map.is_valid(row).then(|| kept.collect())
    };
    let rows = (0..map.len()).map(row).collect();
    let to = args.return_field.data_type();
    result(
        args,
        made(to, map.keys(), map.values(), rows, Again::Refused)?,
    )
}

/// Maps as maps of other keys and values.
///
/// Errors: those of the casts; `22023` for keys that become one.
pub(super) fn cast_maps(maps: &MapArray, to: &DataType, zone: &Zone) -> Result<ArrayRef> {
    let Some((key, value)) = map_parts(to) else {
        return exec_err!("a map as {to}");
    };
    let keys = cast_array_in(maps.keys(), key.data_type(), zone)?;
    let values = cast_elements(maps.values(), value, zone)?;
    let row = |row: usize| {
        maps.is_valid(row)
            .then(|| range(maps.offsets(), row).collect())
    };
    let rows = (0..maps.len()).map(row).collect();
    made(to, &keys, &values, rows, Again::Refused)
}

/// Maps as texts.
pub(super) fn maps_as_text(maps: &MapArray, zone: &Zone) -> Result<ArrayRef> {
    let keys = element_texts(maps.keys(), zone)?;
    let values = element_texts(maps.values(), zone)?;
    let mut texts = StringBuilder::with_capacity(maps.len(), 16 * maps.len());
    let (mut text, mut total) = (String::new(), 0);
    for row in 0..maps.len() {
        if maps.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        text.push('{');
        for at in range(maps.offsets(), row) {
            if text.len() > 1 {
                text.push(',');
            }
            map::write_part(keys.value(at as usize), &mut text);
            text.push(':');
            match values.is_valid(at as usize) {
                true => map::write_part(values.value(at as usize), &mut text),
                false => text.push_str("NULL"),
            }
        }
        text.push('}');
        total += text.len() as u64;
        super::bounded::check_bytes(total)?;
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}

/// The texts of the keys and the values of maps that are texts, and which entries each has.
type TextParts = (ArrayRef, ArrayRef, Vec<Option<Vec<u32>>>);

fn parts_of_text(texts: &StringArray) -> tidemark_common::Result<TextParts> {
    let (mut keys, mut values) = (StringBuilder::new(), StringBuilder::new());
    let (mut rows, mut count) = (Vec::with_capacity(texts.len()), 0);
    for text in texts {
        let Some(text) = text else {
            rows.push(None);
            continue;
        };
        let from = count;
        map::read(text, |key, value| {
            keys.append_option(key);
            values.append_option(value);
            count += 1;
        })?;
        rows.push(Some((from..count).collect()));
    }
    Ok((Arc::new(keys.finish()), Arc::new(values.finish()), rows))
}

/// Maps of their texts.
///
/// Errors: as [`read_maps`].
pub(super) fn maps_of_text(texts: &StringArray, to: &DataType, zone: &Zone) -> Result<ArrayRef> {
    let (keys, values, rows) = parts_of_text(texts).map_err(external)?;
    let Some((key, value)) = map_parts(to) else {
        return exec_err!("a map as {to}");
    };
    let keys = cast_elements(&keys, key, zone)?;
    let values = cast_elements(&values, value, zone)?;
    made(to, &keys, &values, rows, Again::Refused)
}

/// Maps of their texts, whose keys and values `read` reads as the type that it is given.
///
/// Errors: `22P02` for a text that is no map, those of reading keys and values, `22004` and `22023`
/// for keys that are NULL or there twice.
pub fn read_maps(
    texts: &StringArray,
    to: &DataType,
    read: impl Fn(&ArrayRef, &FieldRef) -> tidemark_common::Result<ArrayRef>,
) -> tidemark_common::Result<ArrayRef> {
    let (keys, values, rows) = parts_of_text(texts)?;
    let parts = map_parts(to);
    let (key, value) =
        parts.ok_or_else(|| tidemark_common::Error::internal(format!("a map as {to}")))?;
    let (keys, values) = (read(&keys, key)?, read(&values, value)?);
    assemble(to, &keys, &values, rows, Again::Refused)
}
