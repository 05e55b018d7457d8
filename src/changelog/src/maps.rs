//! Maps as columns. Law: the entries of a map are sorted by key, and no two have one key; so maps
//! are equal where their entries are, one after the other.

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::DataType;
use tidemark_common::{Error, Result, SqlState};

/// What becomes of an entry whose key is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is an error.
    Refused,
    /// It takes the place of the other.
    Replaces,
}

/// The maps of type `to` with these entries, by their places among keys and values; `None` for
/// NULL.
///
/// Errors: `22004` for a key that is NULL, `22023` for one that is there twice and may not be.
pub fn assemble(
    to: &DataType,
    keys: &ArrayRef,
    values: &ArrayRef,
    rows: Vec<Option<Vec<u32>>>,
    again: Again,
) -> Result<ArrayRef> {
    let internal = |e: arrow::error::ArrowError| Error::internal(format!("a map: {e}"));
    let order = arrow::array::make_comparator(keys, keys, SortOptions::default());
    let order = order.map_err(internal)?;
    let compare = |a: &u32, b: &u32| order(*a as usize, *b as usize);
    let (mut places, mut lengths) = (Vec::new(), Vec::with_capacity(rows.len()));
    let valid: NullBuffer = rows.iter().map(Option::is_some).collect();
    for row in rows {
        let mut entries = row.unwrap_or_default();
        if keys.null_count() > 0 && entries.iter().any(|at| keys.is_null(*at as usize)) {
            let message = "map keys must not be NULL";
            return Err(Error::user(SqlState("22004"), message));
        }
        // Equal keys stay in their order, of which the last counts.
        entries.sort_by(compare);
        let before = places.len();
        for at in entries {
            let first = places.len() == before;
            match places.last_mut() {
                Some(last) if !first && compare(last, &at).is_eq() => {
                    if again == Again::Refused {
                        let message = "map keys must be unique";
                        return Err(Error::user(SqlState::INVALID_PARAMETER, message));
                    }
                    *last = at;
                }
                _ => places.push(at),
            }
        }
        lengths.push(places.len() - before);
    }
    let places = UInt32Array::from(places);
    let DataType::Map(entries, sorted) = to else {
        return Err(Error::internal(format!("a map as {to}")));
    };
    let DataType::Struct(parts) = entries.data_type() else {
        return Err(Error::internal(format!("a map as {to}")));
    };
    let columns = vec![
        take(keys, &places, None).map_err(internal)?,
        take(values, &places, None).map_err(internal)?,
    ];
    let rows = StructArray::try_new(parts.clone(), columns, None).map_err(internal)?;
    let nulls = Some(valid).filter(|valid| valid.null_count() > 0);
    let offsets = OffsetBuffer::from_lengths(lengths);
    let maps = MapArray::try_new(entries.clone(), offsets, rows, nulls, *sorted);
    Ok(std::sync::Arc::new(maps.map_err(internal)?))
}

/// A column of maps as one of arrays of their entries.
pub fn entries_of(maps: &MapArray) -> ListArray {
    let entries = std::sync::Arc::new(arrow::datatypes::Field::new_list_field(
        maps.entries().data_type().clone(),
        true,
    ));
    ListArray::new(
        entries,
        maps.offsets().clone(),
        std::sync::Arc::new(maps.entries().clone()),
        maps.nulls().cloned(),
    )
}
