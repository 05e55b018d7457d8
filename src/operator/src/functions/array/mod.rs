//! PostgreSQL's arrays: functions, operators and subscripts over Arrow's lists.
//!
//! An array has one dimension, begins at 1, and its elements are equal by PostgreSQL's `=` of their
//! type: `1.0` equals `1.00`, NaN equals NaN; where functions say so, NULL equals NULL
//! ([`compare`]). Kernels never build an element: they tell by position which elements of the
//! arguments make up the result ([`Made`]), which is then gathered at once.
//!
//! The planner writes the operators as calls: `a || b` is `array_cat`, `array_append` or
//! `array_prepend`, `a @> b` is `array_contains`, `a && b` is `array_overlaps`, `a[i]` is
//! `array_subscript`, `a[i:j]` is `array_subscripts`, `ARRAY[..]` is `make_array`.

mod collect;
mod compare;
mod edit;
mod find;
mod measure;
mod series;
#[cfg(test)]
mod tests;
mod texts;

use super::bounded::check_bytes;
use super::definition::*;
use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, NullBufferBuilder, UInt32Array, new_empty_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::ops::Range;
use std::sync::Arc;
use tidemark_common::SqlState;

pub(super) use compare::{bytes_of, has_key, of_bytes, row_keys, sort_keys};
pub(super) use texts::{element_texts, lists_as_text, lists_of_text, records_as_text};

/// Elements of the arrays that are computed together; PostgreSQL's limit of one array.
const ELEMENTS_MAX: usize = 134_217_727;

/// The functions of this folder.
pub(super) fn definitions() -> Vec<Definition> {
    [
        collect::definitions(),
        edit::definitions(),
        find::definitions(),
        measure::definitions(),
        series::definitions(),
        texts::definitions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The type of arrays of these elements.
fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// The type of an array's elements; that of NULL for NULL and for quoted constants.
fn element_of(list: &DataType) -> Option<DataType> {
    match list {
        DataType::List(field) => Some(field.data_type().clone()),
        unknown if is_text(unknown) => Some(DataType::Null),
        _ => None,
    }
}

/// The array's type with other elements; the same type where they are the same.
fn list_like(list: &DataType, element: &DataType) -> DataType {
    match list {
        DataType::List(field) if field.data_type() == element => list.clone(),
        _ => list_of(element.clone()),
    }
}

/// Numerics, of one scale or each with its own.
fn is_numeric(data_type: &DataType) -> bool {
    *data_type == DataType::LargeBinary || data_type.is_decimal()
}

/// What Arrow's type does not say of the SQL type of a function's result, as its arguments have it:
/// an array of `varchar`s is one of texts to Arrow.
pub(super) fn sql_type(function: &str, arguments: &[FieldRef]) -> Option<String> {
    let list = match function {
        "make_array" | "array_append" | "array_prepend" | "array_cat" | "array_remove"
        | "array_replace" | "array_fill" | "array_subscripts" | "trim_array" | "array_greatest"
        | "array_least" => true,
        "array_subscript" | "only_element" => false,
        "as_is" => return arguments.first()?.metadata().get(SQL_TYPE).cloned(),
        _ => return None,
    };
    let inner = |field: &FieldRef| match field.data_type() {
        DataType::List(element) => element.metadata().get(SQL_TYPE).cloned(),
        _ => None,
    };
    let element = |field: &FieldRef| {
        let own = field.metadata().get(SQL_TYPE).cloned();
        let name = own.or_else(|| inner(field))?;
        let name = name.trim_end_matches("[]");
        name.split('(').next().map(str::to_string)
    };
    let mut names = arguments.iter().filter_map(element);
    let first = names.next()?;
    let alike = first == "varchar" && names.all(|name| name == first);
    alike.then(|| if list { first + "[]" } else { first })
}

/// The type that PostgreSQL finds for values that become one: of numbers the one that holds more.
/// A text beside another type is a quoted constant here, which has no type yet; texts that have one
/// are for the planner to refuse.
fn common<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    types
        .into_iter()
        .try_fold(DataType::Null, |a, b| common_of_two(&a, b))
}

fn common_of_two(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Date32, Int16, Int32, Int64, LargeBinary, List, Null, Timestamp};
    let rank = |t: &DataType| match t {
        Int16 => Some(1),
        Int32 => Some(2),
        Int64 => Some(3),
        t if is_numeric(t) => Some(4),
        DataType::Float32 => Some(5),
        DataType::Float64 => Some(6),
        _ => None,
    };
    Some(match (a, b) {
        (List(_), _) | (_, List(_)) => return None,
        (a, b) if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (a, b) if is_text(a) && is_text(b) => DataType::Utf8,
        (text, other) | (other, text) if is_text(text) => other.clone(),
        (Date32, at @ Timestamp(..)) | (at @ Timestamp(..), Date32) => at.clone(),
        (Timestamp(..), zoned @ Timestamp(_, Some(_)))
        | (zoned @ Timestamp(_, Some(_)), Timestamp(..)) => zoned.clone(),
        (a, b) => match (rank(a)?, rank(b)?) {
            (4, ..=4) | (..=4, 4) => LargeBinary,
            (x, y) if x >= y => a.clone(),
            _ => b.clone(),
        },
    })
}

/// The arrays with no other elements than theirs: a slice has those of all rows, and a NULL may
/// hide some, one of which may fail a cast.
pub(super) fn compact(lists: &ListArray) -> ListArray {
    let offsets = lists.value_offsets();
    let (from, to) = (offsets[0], offsets[lists.len()]);
    let DataType::List(field) = lists.data_type() else {
        return lists.clone();
    };
    if hides_elements(lists) {
        return without_hidden(lists, field);
    }
    if from == 0 && to as usize == lists.values().len() {
        return lists.clone();
    }
    let values = lists.values().slice(from as usize, (to - from) as usize);
    let offsets: Vec<i32> = offsets.iter().map(|o| o - from).collect();
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    ListArray::new(field.clone(), offsets, values, lists.nulls().cloned())
}

/// Whether elements stand below a NULL.
fn hides_elements(lists: &ListArray) -> bool {
    let below = |row: usize| lists.is_null(row) && lists.value_length(row) > 0;
    lists.null_count() > 0 && (0..lists.len()).any(below)
}

fn without_hidden(lists: &ListArray, field: &FieldRef) -> ListArray {
    let shown = |row: &usize| lists.is_valid(*row);
    let rows = (0..lists.len()).filter(shown);
    let offsets = lists.value_offsets();
    let kept = rows.flat_map(|row| offsets[row] as u32..offsets[row + 1] as u32);
    let values = take(lists.values(), &UInt32Array::from_iter_values(kept), None)
        .expect("places of elements");
    let length = |row| match lists.is_valid(row) {
        true => lists.value_length(row) as usize,
        false => 0,
    };
    let offsets = OffsetBuffer::from_lengths((0..lists.len()).map(length));
    ListArray::new(field.clone(), offsets, values, lists.nulls().cloned())
}

/// An argument whose rows are looked at one by one; a constant stands for all of them.
struct Operand {
    array: ArrayRef,
    one: bool,
}

impl Operand {
    fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Operand> {
        Ok(match &args.args[i] {
            ColumnarValue::Scalar(value) => Operand {
                array: value.to_array()?,
                one: true,
            },
            ColumnarValue::Array(array) => Operand {
                array: array.clone(),
                one: false,
            },
        })
    }

    fn at(&self, row: usize) -> usize {
        if self.one { 0 } else { row }
    }

    fn is_null(&self, row: usize) -> bool {
        self.array.is_null(self.at(row))
    }
}

/// Integers, one per row.
struct Ints(Operand);

impl Ints {
    fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Ints> {
        let Operand { array, one } = Operand::of(args, i)?;
        let array = arrow::compute::cast(&array, &DataType::Int64)?;
        Ok(Ints(Operand { array, one }))
    }

    fn get(&self, row: usize) -> Option<i64> {
        let at = self.0.at(row);
        let values = self.0.array.as_primitive::<arrow::datatypes::Int64Type>();
        values.is_valid(at).then(|| values.value(at))
    }
}

/// An argument that is an array.
struct Lists {
    list: ListArray,
    one: bool,
}

impl Lists {
    fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Lists> {
        let Operand { array, one } = Operand::of(args, i)?;
        let Some(list) = array.as_list_opt::<i32>() else {
            return exec_err!("an array is expected, not {}", array.data_type());
        };
        let list = list.clone();
        Ok(Lists { list, one })
    }

    /// Where the elements of a row's array stand among all elements; nothing for NULL.
    fn get(&self, row: usize) -> Option<Range<usize>> {
        let row = if self.one { 0 } else { row };
        let offsets = self.list.value_offsets();
        self.list
            .is_valid(row)
            .then(|| offsets[row] as usize..offsets[row + 1] as usize)
    }

    fn values(&self) -> &ArrayRef {
        self.list.values()
    }
}

/// Arrays in the making: for each element the source that it is taken from, and its place there.
struct Made {
    picks: Vec<(usize, usize)>,
    offsets: Vec<i32>,
    valid: NullBufferBuilder,
}

impl Made {
    fn new(rows: usize) -> Made {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Made {
            picks: Vec::new(),
            offsets,
            valid: NullBufferBuilder::new(rows),
        }
    }

    fn pick(&mut self, source: usize, place: usize) {
        self.picks.push((source, place));
    }

    fn pick_all(&mut self, source: usize, places: Range<usize>) {
        self.picks.extend(places.map(|place| (source, place)));
    }

    /// Ends a row's array.
    fn end(&mut self) -> Result<()> {
        check_elements(self.picks.len())?;
        check_bytes(size_of_val(self.picks.as_slice()) as u64)?;
        self.offsets.push(self.picks.len() as i32);
        self.valid.append_non_null();
        Ok(())
    }

    /// The row has no array.
    fn null(&mut self) {
        self.offsets.push(self.picks.len() as i32);
        self.valid.append_null();
    }

    /// Bytes of the elements, about, and of what picks them.
    fn bytes(&self, sources: &[ArrayRef]) -> u64 {
        let texts: Vec<_> = sources.iter().map(|s| s.as_string_opt::<i32>()).collect();
        let bytes = |(source, place): &(usize, usize)| match texts[*source] {
            Some(texts) => texts.value_length(*place) as u64,
            None => 0,
        };
        let picked = size_of_val(self.picks.as_slice()) as u64;
        picked + self.picks.iter().map(bytes).sum::<u64>()
    }

    fn finish(mut self, args: &ScalarFunctionArgs, sources: &[ArrayRef]) -> Result<ColumnarValue> {
        let DataType::List(field) = args.return_field.data_type() else {
            return exec_err!("the result is no array");
        };
        let borrowed: Vec<&dyn Array> = sources.iter().map(AsRef::as_ref).collect();
        let values = if borrowed.is_empty() {
            new_empty_array(field.data_type())
        } else {
            check_bytes(self.bytes(sources))?;
            interleave(&borrowed, &self.picks)?
        };
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let list = ListArray::try_new(field.clone(), offsets, values, self.valid.finish())?;
        result(args, Arc::new(list))
    }
}

/// `54000` for more elements than arrays may have.
fn check_elements(count: usize) -> Result<()> {
    if count > ELEMENTS_MAX {
        return Err(failure(
            SqlState("54000"),
            format!("array size exceeds the maximum allowed ({ELEMENTS_MAX})"),
        ));
    }
    Ok(())
}
