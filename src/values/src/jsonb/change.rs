//! Values made from others: `||`, `-`, `#-`, `jsonb_set`, `jsonb_insert`, `jsonb_strip_nulls`.
//!
//! Each answers a new encoded value. Where PostgreSQL answers the value as it came, so do these.

use tidemark_common::error::{Error, Result, SqlState};

use super::TextArray;
use super::builder::Builder;
use super::format;
use super::value::{Elements, Kind, Pairs, Value, invalid, parse_index};

/// `a || b`: two objects make one, in which pairs of `b` replace those of `a`; all else makes an
/// array, in which anything but an array counts as an array of itself.
pub fn concat(a: Value<'_>, b: Value<'_>) -> Result<Vec<u8>> {
    let mut builder = Builder::new();
    if a.kind()? == Kind::Object && b.kind()? == Kind::Object {
        builder.begin_object();
        copy_pairs(&mut builder, a.pairs()?)?;
        copy_pairs(&mut builder, b.pairs()?)?;
        builder.end_object()?;
        return Ok(builder.finish());
    }
    builder.begin_array();
    for side in [a, b] {
        if side.kind()? == Kind::Array {
            copy_elements(&mut builder, side.elements()?)?;
        } else {
            builder.value(side)?;
        }
    }
    builder.end_array()?;
    Ok(builder.finish())
}

/// `value - text`: without the pair of this key, or without the elements that are this string.
/// Error 22023 of a scalar.
pub fn delete_key(value: Value<'_>, key: &str) -> Result<Vec<u8>> {
    delete_keys(value, &[Some(key)])
}

/// `value - text[]`: [`delete_key`] for each element that is not NULL.
pub fn delete_keys(value: Value<'_>, keys: &TextArray<'_>) -> Result<Vec<u8>> {
    let mut builder = Builder::new();
    match value.kind()? {
        Kind::Object => {
            builder.begin_object();
            for pair in value.pairs()? {
                let (key, value) = pair?;
                if !keys.contains(&Some(key)) {
                    builder.key(key)?;
                    builder.value(value)?;
                }
            }
            builder.end_object()?;
        }
        Kind::Array => {
            builder.begin_array();
            for element in value.elements()? {
                let element = element?;
                let text = element.as_str()?;
                if text.is_none() || !keys.contains(&text) {
                    builder.value(element)?;
                }
            }
            builder.end_array()?;
        }
        _ => return Err(invalid("cannot delete from scalar")),
    }
    Ok(builder.finish())
}

/// `value - integer`: without the element at the index, which counts from the end where negative.
/// Error 22023 of anything but an array.
pub fn delete_index(value: Value<'_>, index: i64) -> Result<Vec<u8>> {
    match value.kind()? {
        Kind::Array => {}
        Kind::Object => return Err(invalid("cannot delete from object using integer index")),
        _ => return Err(invalid("cannot delete from scalar")),
    }
    let count = value.array_length()? as u64;
    let index = if index < 0 {
        index.saturating_add_unsigned(count)
    } else {
        index
    };
    let mut builder = Builder::new();
    builder.begin_array();
    for (i, element) in value.elements()?.enumerate() {
        let element = element?;
        if i as i64 != index {
            builder.value(element)?;
        }
    }
    builder.end_array()?;
    Ok(builder.finish())
}

/// What is done at the end of a path.
#[derive(Clone, Copy, Debug)]
enum Edit<'v> {
    Delete,
    Replace(Value<'v>),
    /// Replace, or add what is not there.
    Create(Value<'v>),
    InsertBefore(Value<'v>),
    InsertAfter(Value<'v>),
}

impl<'v> Edit<'v> {
    /// The value that is added where the path's last step is not there.
    fn created(self) -> Option<Value<'v>> {
        match self {
            Edit::Delete | Edit::Replace(_) => None,
            Edit::Create(new) | Edit::InsertBefore(new) | Edit::InsertAfter(new) => Some(new),
        }
    }
}

/// `value #- text[]`: without what the path leads to. Errors 22023 of a scalar, 22P02 where a step
/// into an array is not an integer, 22004 of a NULL step.
pub fn delete_path(value: Value<'_>, path: &TextArray<'_>) -> Result<Vec<u8>> {
    if value.kind()?.is_scalar() {
        return Err(invalid("cannot delete path in scalar"));
    }
    edit(value, path, Edit::Delete)
}

/// `jsonb_set(value, path, new, create_if_missing)`. Errors as [`delete_path`].
pub fn set(
    value: Value<'_>,
    path: &TextArray<'_>,
    new: Value<'_>,
    create_if_missing: bool,
) -> Result<Vec<u8>> {
    if value.kind()?.is_scalar() {
        return Err(invalid("cannot set path in scalar"));
    }
    edit(
        value,
        path,
        if create_if_missing {
            Edit::Create(new)
        } else {
            Edit::Replace(new)
        },
    )
}

/// `jsonb_insert(value, path, new, insert_after)`. Errors as [`delete_path`], and 22023 where the
/// path leads to a key that is there.
pub fn insert(
    value: Value<'_>,
    path: &TextArray<'_>,
    new: Value<'_>,
    insert_after: bool,
) -> Result<Vec<u8>> {
    if value.kind()?.is_scalar() {
        return Err(invalid("cannot set path in scalar"));
    }
    edit(
        value,
        path,
        if insert_after {
            Edit::InsertAfter(new)
        } else {
            Edit::InsertBefore(new)
        },
    )
}

/// What is left of a container whose middle the path leads into.
enum Rest<'a> {
    Elements(Elements<'a>),
    Pairs(Pairs<'a>),
}

fn edit(value: Value<'_>, path: &TextArray<'_>, edit: Edit<'_>) -> Result<Vec<u8>> {
    let count = value.count()?.map_or(0, |(n, _)| n);
    if path.is_empty() || (count == 0 && edit.created().is_none()) {
        return value.to_vec();
    }
    let mut builder = Builder::new();
    let mut open: Vec<Rest<'_>> = Vec::new();
    let mut value = value;
    // Down the path, copying what stands before it..
    for (level, step) in path.iter().enumerate() {
        let Some(step) = step else {
            let message = format!("path element at position {} is null", level + 1);
            return Err(Error::user(SqlState("22004"), message));
        };
        let is_last = level + 1 == path.len();
        let inner = match value.kind()? {
            Kind::Object if is_last => {
                edit_object(&mut builder, value, step, edit)?;
                None
            }
            Kind::Object => enter_object(&mut builder, &mut open, value, step)?,
            Kind::Array => {
                let count = value.array_length()?;
                let index = step_index(step, level, count)?;
                if is_last {
                    edit_array(&mut builder, value, index, edit)?;
                    None
                } else {
                    enter_array(&mut builder, &mut open, value, index)?
                }
            }
            _ => {
                builder.value(value)?;
                None
            }
        };
        match inner {
            Some(inner) => value = inner,
            None => break,
        }
    }
    // .. and up again, copying what stands behind it.
    while let Some(rest) = open.pop() {
        match rest {
            Rest::Elements(elements) => {
                copy_elements(&mut builder, elements)?;
                builder.end_array()?;
            }
            Rest::Pairs(pairs) => {
                copy_pairs(&mut builder, pairs)?;
                builder.end_object()?;
            }
        }
    }
    Ok(builder.finish())
}

/// Where a step into an array of `count` elements leads: `None` before its beginning.
fn step_index(step: &str, level: usize, count: usize) -> Result<Option<usize>> {
    let Some(index) = parse_index(step) else {
        let place = level + 1;
        let message = format!("path element at position {place} is not an integer: \"{step}\"");
        return Err(Error::user(SqlState::INVALID_TEXT, message));
    };
    let distance = index.unsigned_abs() as usize;
    Ok(if index < 0 {
        count.checked_sub(distance)
    } else {
        Some(distance.min(count))
    })
}

/// Copies the object up to the value of the key; where it has none, all of it.
fn enter_object<'a>(
    builder: &mut Builder,
    open: &mut Vec<Rest<'a>>,
    object: Value<'a>,
    step: &str,
) -> Result<Option<Value<'a>>> {
    let mut pairs = object.pairs()?;
    builder.begin_object();
    while let Some(pair) = pairs.next() {
        let (key, value) = pair?;
        builder.key(key)?;
        if key == step {
            open.push(Rest::Pairs(pairs));
            return Ok(Some(value));
        }
        builder.value(value)?;
    }
    builder.end_object()?;
    Ok(None)
}

/// Copies the array up to the element at the index; where it has none, all of it.
fn enter_array<'a>(
    builder: &mut Builder,
    open: &mut Vec<Rest<'a>>,
    array: Value<'a>,
    index: Option<usize>,
) -> Result<Option<Value<'a>>> {
    let mut elements = array.elements()?;
    builder.begin_array();
    let mut place = 0;
    while let Some(element) = elements.next() {
        let element = element?;
        if Some(place) == index {
            open.push(Rest::Elements(elements));
            return Ok(Some(element));
        }
        builder.value(element)?;
        place += 1;
    }
    builder.end_array()?;
    Ok(None)
}

/// The last step of a path, into an object.
fn edit_object(builder: &mut Builder, object: Value<'_>, step: &str, edit: Edit<'_>) -> Result<()> {
    builder.begin_object();
    let mut created = edit.created();
    for pair in object.pairs()? {
        let (key, value) = pair?;
        let new = if key == step {
            created = None;
            match edit {
                Edit::Delete => continue,
                Edit::Replace(new) | Edit::Create(new) => new,
                Edit::InsertBefore(_) | Edit::InsertAfter(_) => {
                    let hint = "Try using the function jsonb_set to replace key value.";
                    return Err(invalid("cannot replace existing key").with_hint(hint));
                }
            }
        } else {
            value
        };
        builder.key(key)?;
        builder.value(new)?;
    }
    if let Some(new) = created {
        builder.key(step)?;
        builder.value(new)?;
    }
    builder.end_object()
}

/// The last step of a path, into an array: what is created is put in front where the index lies
/// before the beginning, and behind where it lies beyond the end.
fn edit_array(
    builder: &mut Builder,
    array: Value<'_>,
    index: Option<usize>,
    edit: Edit<'_>,
) -> Result<()> {
    builder.begin_array();
    let mut created = edit.created();
    if index.is_none()
        && let Some(new) = created.take()
    {
        builder.value(new)?;
    }
    for (place, element) in array.elements()?.enumerate() {
        let element = element?;
        if Some(place) != index {
            builder.value(element)?;
            continue;
        }
        created = None;
        match edit {
            Edit::Delete => {}
            Edit::Replace(new) | Edit::Create(new) => builder.value(new)?,
            Edit::InsertBefore(new) => {
                builder.value(new)?;
                builder.value(element)?;
            }
            Edit::InsertAfter(new) => {
                builder.value(element)?;
                builder.value(new)?;
            }
        }
    }
    if let Some(new) = created {
        builder.value(new)?;
    }
    builder.end_array()
}

fn copy_elements(builder: &mut Builder, mut elements: Elements<'_>) -> Result<()> {
    while let Some(element) = elements.next() {
        elements.resume(builder.copy(element?)?);
    }
    Ok(())
}

fn copy_pairs(builder: &mut Builder, mut pairs: Pairs<'_>) -> Result<()> {
    while let Some(pair) = pairs.next() {
        let (key, value) = pair?;
        builder.key(key)?;
        pairs.resume(builder.copy(value)?);
    }
    Ok(())
}

/// `jsonb_strip_nulls`: without the pairs whose value is `null`, at every level; the elements of
/// arrays stay.
pub fn strip_nulls(value: Value<'_>) -> Result<Vec<u8>> {
    let mut builder = Builder::new();
    let mut open: Vec<Rest<'_>> = Vec::new();
    let mut next = Some(value);
    loop {
        if let Some(value) = next.take() {
            match value.kind()? {
                Kind::Array => {
                    builder.begin_array();
                    open.push(Rest::Elements(value.elements()?));
                }
                Kind::Object => {
                    builder.begin_object();
                    open.push(Rest::Pairs(value.pairs()?));
                }
                _ => builder.value(value)?,
            }
        }
        let end = match open.last_mut() {
            None => return Ok(builder.finish()),
            Some(Rest::Elements(elements)) => match elements.next() {
                Some(element) => {
                    next = Some(element?);
                    continue;
                }
                None => {
                    builder.end_array()?;
                    elements.place()?
                }
            },
            Some(Rest::Pairs(pairs)) => match pairs.next() {
                Some(pair) => {
                    let (key, value) = pair?;
                    if value.tag()? != format::NULL {
                        builder.key(key)?;
                        next = Some(value);
                    }
                    continue;
                }
                None => {
                    builder.end_object()?;
                    pairs.place()?
                }
            },
        };
        // What was just closed need not be walked again to find what stands behind it.
        open.pop();
        match open.last_mut() {
            Some(Rest::Elements(elements)) => elements.resume(end),
            Some(Rest::Pairs(pairs)) => pairs.resume(end),
            None => {}
        }
    }
}
