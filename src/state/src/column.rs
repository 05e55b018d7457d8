//! Typed columns under dense ids that somebody else hands out ([`SlotColumns`]): the storage
//! beneath [`crate::KeyIndex`] and [`crate::RowStore`], and of operators that keep values under the
//! ids of an index.
//!
//! Fixed-width values are kept as words of their width, whatever their Arrow type; strings as in
//! [`crate::bytes`]; a bitmap of NULLs appears with the first NULL. Every other type (lists,
//! structs) keeps the Arrow arrays that came in, copied, and a reference into them per slot. All
//! work is done a batch and a column at a time.
//!
//! Equality is that of keys: NULL equals NULL, -0 equals 0, every NaN equals every other.

mod order;

pub use order::SortBy;

use crate::ABSENT;
use crate::bytes::ByteColumn;
use crate::chunked::{Bitmap, Chunked};
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow::datatypes::*;

/// A plain value of a fixed width, compared by its bits.
pub(crate) trait Word: Copy + Default + PartialEq + Send + Sync + 'static {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
impl Word for [u64; 2] {}

/// The rows of a batch that an operation is about.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// All rows, in order.
    All,
    /// These rows.
    Selected(&'a [u32]),
}

impl Rows<'_> {
    #[inline(always)]
    fn each(self, ids: &[u32], mut f: impl FnMut(usize, u32)) {
        match self {
            Rows::All => ids.iter().enumerate().for_each(|(row, id)| f(row, *id)),
            Rows::Selected(rows) => {
                assert_eq!(rows.len(), ids.len(), "one id per selected row");
                rows.iter()
                    .zip(ids)
                    .for_each(|(row, id)| f(*row as usize, *id));
            }
        }
    }
}

/// Values of one width.
#[derive(Debug, Default)]
pub(crate) struct Fixed<T> {
    values: Chunked<T>,
    nulls: Option<Bitmap>,
}

/// Values of a type without storage of its own.
#[derive(Debug, Default)]
pub(crate) struct Nested {
    /// Copies of what came in; `None` where no living slot refers to it any more.
    arrays: Vec<Option<ArrayRef>>,
    /// Living references into each array.
    living: Vec<u32>,
    /// Array (plus one) and row; zero for an empty slot.
    places: Chunked<[u32; 2]>,
    rows_held: usize,
    rows_living: usize,
}

#[derive(Debug)]
enum Store {
    Bool(Fixed<u8>),
    W1(Fixed<u8>),
    W2(Fixed<u16>),
    W4(Fixed<u32>),
    W8(Fixed<u64>),
    W16(Fixed<[u64; 2]>),
    Bytes(ByteColumn),
    Nested(Nested),
}

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    data_type: DataType,
    len: usize,
    store: Store,
}

/// Runs `$body` with `$fixed` bound to the typed storage, for each fixed width.
macro_rules! with_fixed {
    ($store:expr, $fixed:ident => $body:expr, $other:pat => $otherwise:expr) => {
        match $store {
            Store::W1($fixed) => $body,
            Store::W2($fixed) => $body,
            Store::W4($fixed) => $body,
            Store::W8($fixed) => $body,
            Store::W16($fixed) => $body,
            $other => $otherwise,
        }
    };
}

/// The words of a fixed-width array.
fn words<T: Word>(array: &dyn Array) -> &[T] {
    let bytes = downcast_primitive_array!(
        array => array.values().inner().as_slice(),
        other => panic!("not a type of fixed width: {other}")
    );
    let len = array.len();
    assert!(
        bytes.len() >= len * size_of::<T>() && bytes.as_ptr().align_offset(align_of::<T>()) == 0,
        "a buffer of {len} values",
    );
    // SAFETY: the buffer is long enough and aligned (asserted), and T is plain data for which every
    // bit pattern is a value.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), len) }
}

/// An aligned buffer with one word per id.
fn buffer_of<T: Word>(ids: &[u32], mut word: impl FnMut(u32) -> T) -> Buffer {
    let bytes = ids.len() * size_of::<T>();
    let mut buffer = MutableBuffer::with_capacity(bytes);
    let to = buffer.as_mut_ptr().cast::<T>();
    for (i, id) in ids.iter().enumerate() {
        // SAFETY: i < ids.len(), for which room was reserved; Arrow's buffers are aligned to at
        // least 32 bytes.
        unsafe { to.add(i).write(word(*id)) };
    }
    // SAFETY: exactly these bytes were written.
    unsafe { buffer.set_len(bytes) };
    buffer.into()
}

fn bits_of(ids: &[u32], mut bit: impl FnMut(u32) -> bool) -> BooleanBuffer {
    BooleanBuffer::collect_bool(ids.len(), |i| bit(ids[i]))
}

fn array_of(
    data_type: &DataType,
    len: usize,
    buffers: Vec<Buffer>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let builder = ArrayData::builder(data_type.clone())
        .len(len)
        .buffers(buffers)
        .nulls(nulls);
    // SAFETY: the callers give `len` values in the layout of the type; strings are copied from
    // valid strings.
    make_array(unsafe { builder.build_unchecked() })
}

/// The bytes of each row of a string or binary array.
macro_rules! with_bytes {
    ($array:expr, $values:ident, $value:ident => $body:expr) => {{
        macro_rules! over {
            ($typed:expr) => {{
                let $values = $typed;
                let $value = |row: usize| {
                    if $values.is_null(row) {
                        None
                    } else {
                        Some(AsRef::<[u8]>::as_ref($values.value(row)))
                    }
                };
                $body
            }};
        }
        match $array.data_type() {
            DataType::Utf8 => over!($array.as_string::<i32>()),
            DataType::LargeUtf8 => over!($array.as_string::<i64>()),
            DataType::Utf8View => over!($array.as_string_view()),
            DataType::Binary => over!($array.as_binary::<i32>()),
            DataType::LargeBinary => over!($array.as_binary::<i64>()),
            DataType::BinaryView => over!($array.as_binary_view()),
            DataType::FixedSizeBinary(_) => over!($array.as_fixed_size_binary()),
            other => panic!("not a string type: {other}"),
        }
    }};
}

/// -0 is not 0: a column gives back what it was given.
fn same_float32(a: u32, b: u32) -> bool {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    a == b || x.is_nan() && y.is_nan()
}

fn same_float64(a: u64, b: u64) -> bool {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    a == b || x.is_nan() && y.is_nan()
}

impl<T: Word> Fixed<T> {
    fn grow(&mut self, len: usize) {
        self.values.grow(len);
        if let Some(nulls) = &mut self.nulls {
            nulls.grow(self.values.len());
        }
    }

    #[inline(always)]
    fn is_null(&self, id: u32) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.get(id))
    }

    fn write(&mut self, values: &[T], nulls: Option<&NullBuffer>, rows: Rows, ids: &[u32]) {
        rows.each(ids, |row, id| self.values.set(id, values[row]));
        match (nulls.filter(|n| n.null_count() > 0), &mut self.nulls) {
            (None, None) => {}
            (None, Some(have)) => ids.iter().for_each(|id| have.set(*id, false)),
            (Some(nulls), have) => {
                let have = have.get_or_insert_default();
                have.grow(self.values.len());
                rows.each(ids, |row, id| have.set(id, nulls.is_null(row)));
            }
        }
    }

    fn compare(
        &self,
        values: &[T],
        nulls: Option<&NullBuffer>,
        rows: Rows,
        ids: &[u32],
        report: impl FnMut(usize, bool),
    ) {
        self.compare_by(values, nulls, rows, ids, report, |a, b| a == b);
    }

    #[inline(always)]
    fn compare_by(
        &self,
        values: &[T],
        nulls: Option<&NullBuffer>,
        rows: Rows,
        ids: &[u32],
        mut report: impl FnMut(usize, bool),
        same: impl Fn(T, T) -> bool,
    ) {
        let mut i = 0;
        match (nulls.filter(|n| n.null_count() > 0), &self.nulls) {
            (None, None) => rows.each(ids, |row, id| {
                report(i, same(self.values.get(id), values[row]));
                i += 1;
            }),
            (nulls, _) => rows.each(ids, |row, id| {
                let null = nulls.is_some_and(|n| n.is_null(row));
                report(
                    i,
                    null == self.is_null(id) && (null || same(self.values.get(id), values[row])),
                );
                i += 1;
            }),
        }
    }

    fn gather(&self, ids: &[u32], absent: bool) -> Buffer {
        if absent {
            buffer_of(ids, |id| {
                if id == ABSENT {
                    T::default()
                } else {
                    self.values.get(id)
                }
            })
        } else {
            buffer_of(ids, |id| self.values.get(id))
        }
    }

    fn gather_nulls(&self, ids: &[u32], absent: bool) -> Option<NullBuffer> {
        if !absent && self.nulls.is_none() {
            return None;
        }
        let nulls = NullBuffer::new(bits_of(ids, |id| id != ABSENT && !self.is_null(id)));
        (nulls.null_count() > 0).then_some(nulls)
    }

    fn memory_bytes(&self) -> usize {
        self.values.memory_bytes() + self.nulls.as_ref().map_or(0, Bitmap::memory_bytes)
    }
}

impl Nested {
    fn grow(&mut self, len: usize) {
        self.places.grow(len);
    }

    fn write(&mut self, array: &dyn Array, rows: Rows, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        let selection = UInt32Array::from_iter_values(match rows {
            Rows::All => (0..ids.len() as u32).collect::<Vec<_>>(),
            Rows::Selected(rows) => rows.to_vec(),
        });
        let copy =
            arrow::compute::take(array, &selection, None).expect("rows are within the batch");
        let at = self.arrays.len() as u32 + 1;
        for (row, id) in ids.iter().enumerate() {
            self.places.set(*id, [at, row as u32]);
        }
        self.arrays.push(Some(copy));
        self.living.push(ids.len() as u32);
        self.rows_held += ids.len();
        self.rows_living += ids.len();
    }

    fn clear(&mut self, id: u32) {
        let [at, _] = self.places.get(id);
        if at == 0 {
            return;
        }
        self.places.set(id, [0, 0]);
        let at = at as usize - 1;
        self.living[at] -= 1;
        self.rows_living -= 1;
        if self.living[at] == 0 {
            self.rows_held -= self.arrays[at].take().map_or(0, |a| a.len());
        }
        if self.arrays.len() > 64
            && (self.rows_held > 2 * self.rows_living || self.arrays.len() > 2 * self.rows_living)
        {
            self.compact();
        }
    }

    /// Brings everything that lives into one array.
    fn compact(&mut self) {
        let ids: Vec<u32> = (0..self.places.len() as u32)
            .filter(|id| self.places.get(*id)[0] != 0)
            .collect();
        if ids.is_empty() {
            (self.arrays, self.living, self.rows_held) = (Vec::new(), Vec::new(), 0);
            return;
        }
        let array = self.gather_living(&ids);
        for (row, id) in ids.iter().enumerate() {
            self.places.set(*id, [1, row as u32]);
        }
        self.rows_held = ids.len();
        self.living = vec![ids.len() as u32];
        self.arrays = vec![Some(array)];
    }

    fn gather_living(&self, ids: &[u32]) -> ArrayRef {
        // `interleave` looks at every array it is given: give it those that are needed.
        let mut position = vec![u32::MAX; self.arrays.len()];
        let mut used: Vec<&dyn Array> = Vec::new();
        let mut indices = Vec::with_capacity(ids.len());
        for id in ids {
            let [at, row] = self.places.get(*id);
            let at = at as usize - 1;
            if position[at] == u32::MAX {
                position[at] = used.len() as u32;
                used.push(
                    self.arrays[at]
                        .as_ref()
                        .expect("a living slot refers to a kept array")
                        .as_ref(),
                );
            }
            indices.push((position[at] as usize, row as usize));
        }
        arrow::compute::interleave(&used, &indices).expect("arrays share a type")
    }

    fn gather(&self, data_type: &DataType, ids: &[u32]) -> ArrayRef {
        let present: Vec<u32> = ids
            .iter()
            .copied()
            .filter(|id| *id != ABSENT && self.places.get(*id)[0] != 0)
            .collect();
        if present.is_empty() {
            return new_null_array(data_type, ids.len());
        }
        let array = self.gather_living(&present);
        if present.len() == ids.len() {
            return array;
        }
        let mut next = 0;
        let spread: UInt32Array = ids
            .iter()
            .map(|id| {
                let here = *id != ABSENT && self.places.get(*id)[0] != 0;
                next += u32::from(here);
                here.then(|| next - 1)
            })
            .collect();
        arrow::compute::take(&array, &spread, None).expect("indices are within the array")
    }

    fn equals(&self, id: u32, array: &dyn Array, row: usize) -> bool {
        let [at, mine] = self.places.get(id);
        let Some(kept) = (at as usize)
            .checked_sub(1)
            .and_then(|at| self.arrays[at].as_ref())
        else {
            return array.is_null(row);
        };
        kept.slice(mine as usize, 1).to_data() == array.slice(row, 1).to_data()
    }

    fn memory_bytes(&self) -> usize {
        self.places.memory_bytes()
            + self
                .arrays
                .iter()
                .flatten()
                .map(|a| a.get_buffer_memory_size())
                .sum::<usize>()
    }
}

impl Column {
    pub(crate) fn new(data_type: &DataType) -> Column {
        use DataType as D;
        let store = match data_type {
            D::Boolean => Store::Bool(Fixed::default()),
            D::Utf8
            | D::LargeUtf8
            | D::Utf8View
            | D::Binary
            | D::LargeBinary
            | D::BinaryView
            | D::FixedSizeBinary(_) => Store::Bytes(ByteColumn::default()),
            other => match other.primitive_width() {
                Some(1) => Store::W1(Fixed::default()),
                Some(2) => Store::W2(Fixed::default()),
                Some(4) => Store::W4(Fixed::default()),
                Some(8) => Store::W8(Fixed::default()),
                Some(16) => Store::W16(Fixed::default()),
                _ => Store::Nested(Nested::default()),
            },
        };
        Column {
            data_type: data_type.clone(),
            len: 0,
            store,
        }
    }

    pub(crate) fn grow(&mut self, len: usize) {
        self.len = self.len.max(len);
        with_fixed!(&mut self.store, f => f.grow(len), other => match other {
            Store::Bool(f) => f.grow(len),
            Store::Bytes(b) => b.grow(len),
            Store::Nested(n) => n.grow(len),
            _ => unreachable!(),
        });
    }

    /// Writes rows of `array` into slots that hold nothing.
    pub(crate) fn write(&mut self, array: &dyn Array, rows: Rows, ids: &[u32]) {
        assert_eq!(
            array.data_type(),
            &self.data_type,
            "a column keeps its type"
        );
        with_fixed!(&mut self.store,
            f => f.write(words(array), array.nulls(), rows, ids),
            other => match other {
            Store::Bool(f) => {
                let values: Vec<u8> = array.as_boolean().values().iter().map(u8::from).collect();
                f.write(&values, array.nulls(), rows, ids);
            }
            Store::Bytes(b) => with_bytes!(array, values, value => {
                rows.each(ids, |row, id| b.set(id, value(row)))
            }),
            Store::Nested(n) => n.write(array, rows, ids),
            _ => unreachable!(),
        });
    }

    /// Takes out what the slot holds.
    pub(crate) fn clear(&mut self, id: u32) {
        match &mut self.store {
            Store::Bytes(b) => b.clear(id),
            Store::Nested(n) => n.clear(id),
            _ => {}
        }
    }

    /// Tells of each row (counted from 0 in the order of `ids`) whether it equals the value of its
    /// slot. Every id must exist.
    pub(crate) fn compare(
        &self,
        array: &dyn Array,
        rows: Rows,
        ids: &[u32],
        mut report: impl FnMut(usize, bool),
    ) {
        assert_eq!(
            array.data_type(),
            &self.data_type,
            "a column keeps its type"
        );
        let mut i = 0;
        match &self.store {
            Store::Bool(f) => {
                let values: Vec<u8> = array.as_boolean().values().iter().map(u8::from).collect();
                f.compare(&values, array.nulls(), rows, ids, report);
            }
            Store::W4(f) if self.data_type == DataType::Float32 => {
                f.compare_by(words(array), array.nulls(), rows, ids, report, same_float32)
            }
            Store::W8(f) if self.data_type == DataType::Float64 => {
                f.compare_by(words(array), array.nulls(), rows, ids, report, same_float64)
            }
            Store::W1(f) => f.compare(words(array), array.nulls(), rows, ids, report),
            Store::W2(f) => f.compare(words(array), array.nulls(), rows, ids, report),
            Store::W4(f) => f.compare(words(array), array.nulls(), rows, ids, report),
            Store::W8(f) => f.compare(words(array), array.nulls(), rows, ids, report),
            Store::W16(f) => f.compare(words(array), array.nulls(), rows, ids, report),
            Store::Bytes(b) => with_bytes!(array, values, value => rows.each(ids, |row, id| {
                report(i, b.equals(id, value(row)));
                i += 1;
            })),
            Store::Nested(n) => rows.each(ids, |row, id| {
                report(i, n.equals(id, array, row));
                i += 1;
            }),
        }
    }

    /// Whether the slot's value equals row `row` of `array`.
    pub(crate) fn equals(&self, id: u32, array: &dyn Array, row: usize) -> bool {
        let mut equal = false;
        self.compare(array, Rows::Selected(&[row as u32]), &[id], |_, e| {
            equal = e
        });
        equal
    }

    /// The values of these slots; ABSENT gives NULL.
    pub(crate) fn gather(&self, ids: &[u32], absent: bool) -> ArrayRef {
        let fixed = |buffer, nulls| array_of(&self.data_type, ids.len(), vec![buffer], nulls);
        with_fixed!(&self.store,
            f => fixed(f.gather(ids, absent), f.gather_nulls(ids, absent)),
            other => match other {
            Store::Bool(f) => {
                let bits = bits_of(ids, |id| id != ABSENT && f.values.get(id) == 1);
                fixed(bits.into_inner(), f.gather_nulls(ids, absent))
            }
            Store::Bytes(b) => gather_bytes(&self.data_type, b, ids),
            Store::Nested(n) => n.gather(&self.data_type, ids),
            _ => unreachable!(),
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        with_fixed!(&self.store, f => f.memory_bytes(), other => match other {
            Store::Bool(f) => f.memory_bytes(),
            Store::Bytes(b) => b.memory_bytes(),
            Store::Nested(n) => n.memory_bytes(),
            _ => unreachable!(),
        })
    }
}

fn gather_bytes(data_type: &DataType, column: &ByteColumn, ids: &[u32]) -> ArrayRef {
    if let DataType::FixedSizeBinary(width) = data_type {
        let each = ids.iter().map(|id| {
            let mut value = Vec::new();
            (*id != ABSENT && column.append_to(*id, &mut value)).then_some(value)
        });
        return std::sync::Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(each, *width)
                .expect("values have the width of their type"),
        );
    }
    let (offsets, values, nulls) = column.gather(ids);
    let nulls =
        nulls.then(|| NullBuffer::new(bits_of(ids, |id| id != ABSENT && !column.is_null(id))));
    let text = matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    let plain = if text {
        DataType::Utf8
    } else {
        DataType::Binary
    };
    let array = array_of(
        &plain,
        ids.len(),
        vec![Buffer::from_vec(offsets), Buffer::from_vec(values)],
        nulls,
    );
    if plain == *data_type {
        array
    } else {
        arrow::compute::cast(&array, data_type).expect("one kind of string becomes another")
    }
}

/// Columns of given types under ids that the caller hands out.
#[derive(Debug)]
pub struct SlotColumns {
    columns: Vec<Column>,
}

impl SlotColumns {
    /// Without slots.
    pub fn new(types: &[DataType]) -> SlotColumns {
        SlotColumns {
            columns: types.iter().map(Column::new).collect(),
        }
    }

    /// Makes room for the ids below `capacity`.
    pub fn grow(&mut self, capacity: usize) {
        self.columns.iter_mut().for_each(|c| c.grow(capacity));
    }

    /// Writes row i of `arrays` into slot `ids[i]`, which exists and holds nothing (is new, or was
    /// cleared).
    pub fn write(&mut self, arrays: &[ArrayRef], ids: &[u32]) {
        self.write_rows(arrays, Rows::All, ids);
    }

    /// Writes row `rows[i]` of `arrays` into slot `ids[i]`, which exists and holds nothing.
    pub fn write_selected(&mut self, arrays: &[ArrayRef], rows: &[u32], ids: &[u32]) {
        self.write_rows(arrays, Rows::Selected(rows), ids);
    }

    fn write_rows(&mut self, arrays: &[ArrayRef], rows: Rows, ids: &[u32]) {
        assert_eq!(arrays.len(), self.columns.len(), "one array per column");
        if ids.is_empty() {
            return;
        }
        for (column, array) in self.columns.iter_mut().zip(arrays) {
            column.write(array.as_ref(), rows, ids);
        }
    }

    /// Writes row `rows[i]` of each of some columns into slot `ids[i]`, which exists and holds
    /// nothing there; `arrays` are in the order of `columns`.
    pub fn write_columns(
        &mut self,
        columns: &[usize],
        arrays: &[ArrayRef],
        rows: &[u32],
        ids: &[u32],
    ) {
        for (column, array) in columns.iter().zip(arrays) {
            self.columns[*column].write(array.as_ref(), Rows::Selected(rows), ids);
        }
    }

    /// Takes out what the slot holds.
    pub fn clear(&mut self, id: u32) {
        self.columns.iter_mut().for_each(|c| c.clear(id));
    }

    /// Sets `unequal[i]` where slot `ids[i]` differs from row `rows[i]` of `arrays`; every id
    /// exists.
    pub fn mark_unequal(
        &self,
        arrays: &[ArrayRef],
        rows: &[u32],
        ids: &[u32],
        unequal: &mut [bool],
    ) {
        for (column, array) in self.columns.iter().zip(arrays) {
            column.compare(array.as_ref(), Rows::Selected(rows), ids, |i, equal| {
                unequal[i] |= !equal
            });
        }
    }

    /// Whether slot `id` equals row `row` of `arrays`.
    pub fn equals(&self, id: u32, arrays: &[ArrayRef], row: usize) -> bool {
        self.columns
            .iter()
            .zip(arrays)
            .all(|(c, a)| c.equals(id, a.as_ref(), row))
    }

    /// A column of these slots; ABSENT gives NULL.
    pub fn gather_one(&self, column: usize, ids: &[u32]) -> ArrayRef {
        self.columns[column].gather(ids, ids.contains(&ABSENT))
    }

    /// These columns of these slots; ABSENT gives NULL.
    pub fn gather(&self, columns: &[usize], ids: &[u32]) -> Vec<ArrayRef> {
        let absent = ids.contains(&ABSENT);
        columns
            .iter()
            .map(|c| self.columns[*c].gather(ids, absent))
            .collect()
    }

    /// All columns of these slots; ABSENT gives NULL.
    pub fn gather_all(&self, ids: &[u32]) -> Vec<ArrayRef> {
        let absent = ids.contains(&ABSENT);
        self.columns.iter().map(|c| c.gather(ids, absent)).collect()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().map(Column::memory_bytes).sum()
    }
}

/// The array with floats in their canonical form (0 for -0, one NaN), so that equal values have
/// equal bits; the same array where nothing changes.
pub(crate) fn canonical(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            if !values
                .values()
                .iter()
                .any(|v| v.is_nan() || v.to_bits() == 1 << 31)
            {
                return array.clone();
            }
            std::sync::Arc::new(
                values.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
            )
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            if !values
                .values()
                .iter()
                .any(|v| v.is_nan() || v.to_bits() == 1 << 63)
            {
                return array.clone();
            }
            std::sync::Arc::new(
                values.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
            )
        }
        _ => array.clone(),
    }
}
