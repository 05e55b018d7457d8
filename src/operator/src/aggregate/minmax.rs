//! `min` and `max`. Of an append-only input only the extreme so far is kept. Where rows may leave,
//! all values are: an ordered multiset `(group, value) -> count` over all groups in one B-tree, so
//! that the extreme of a group is one descent, and the loss of an extreme costs no scan.
//!
//! Values are ordered as SQL does: NaN above everything, -0 equal to 0, strings by their bytes (the
//! C collation).

use super::accumulator::{Accumulator, Multiset, MultisetChanges};
use super::lane::Input;
use arrow::array::*;
use arrow::datatypes::*;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_state::chunked::Chunked;

/// How values of an Arrow type are kept and ordered.
trait Domain: 'static {
    type Key: Ord + Clone + Lowest + Send;
    type Reader<'a>;
    fn reader(values: &ArrayRef) -> Self::Reader<'_>;
    fn key(reader: &Self::Reader<'_>, row: usize) -> Self::Key;
    fn compare(reader: &Self::Reader<'_>, row: usize, key: &Self::Key) -> Ordering;
    fn array<'a>(
        keys: impl Iterator<Item = Option<&'a Self::Key>>,
        data_type: &DataType,
    ) -> ArrayRef;
    /// Bytes of a key outside itself.
    fn heap_bytes(key: &Self::Key) -> usize;
}

/// Integers, dates, times, timestamps and numerics: ordered as they are.
struct Plain<T>(PhantomData<T>);

impl<T: ArrowPrimitiveType<Native: Ord + Lowest>> Domain for Plain<T> {
    type Key = T::Native;
    type Reader<'a> = &'a [T::Native];
    fn reader(values: &ArrayRef) -> &[T::Native] {
        values.as_primitive::<T>().values()
    }
    #[inline(always)]
    fn key(reader: &&[T::Native], row: usize) -> T::Native {
        reader[row]
    }
    #[inline(always)]
    fn compare(reader: &&[T::Native], row: usize, key: &T::Native) -> Ordering {
        reader[row].cmp(key)
    }
    fn array<'a>(
        keys: impl Iterator<Item = Option<&'a T::Native>>,
        data_type: &DataType,
    ) -> ArrayRef {
        Arc::new(
            keys.map(|k| k.copied())
                .collect::<PrimitiveArray<T>>()
                .with_data_type(data_type.clone()),
        )
    }
    fn heap_bytes(_: &T::Native) -> usize {
        0
    }
}

/// Floats, as integers that order alike.
struct Floats<T>(PhantomData<T>);

trait FloatType: ArrowPrimitiveType {
    fn widen(value: Self::Native) -> f64;
    fn narrow(value: f64) -> Self::Native;
}
impl FloatType for Float64Type {
    fn widen(value: f64) -> f64 {
        value
    }
    fn narrow(value: f64) -> f64 {
        value
    }
}
impl FloatType for Float32Type {
    fn widen(value: f32) -> f64 {
        f64::from(value)
    }
    fn narrow(value: f64) -> f32 {
        value as f32
    }
}

#[inline(always)]
fn ordered(value: f64) -> i64 {
    let canonical = if value.is_nan() {
        f64::NAN.abs()
    } else {
        value + 0.0
    };
    let bits = canonical.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn unordered(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

impl<T: FloatType> Domain for Floats<T> {
    type Key = i64;
    type Reader<'a> = &'a [T::Native];
    fn reader(values: &ArrayRef) -> &[T::Native] {
        values.as_primitive::<T>().values()
    }
    #[inline(always)]
    fn key(reader: &&[T::Native], row: usize) -> i64 {
        ordered(T::widen(reader[row]))
    }
    #[inline(always)]
    fn compare(reader: &&[T::Native], row: usize, key: &i64) -> Ordering {
        ordered(T::widen(reader[row])).cmp(key)
    }
    fn array<'a>(keys: impl Iterator<Item = Option<&'a i64>>, _: &DataType) -> ArrayRef {
        Arc::new(
            keys.map(|k| k.map(|k| T::narrow(unordered(*k))))
                .collect::<PrimitiveArray<T>>(),
        )
    }
    fn heap_bytes(_: &i64) -> usize {
        0
    }
}

/// Booleans.
struct Booleans;

impl Domain for Booleans {
    type Key = bool;
    type Reader<'a> = &'a BooleanArray;
    fn reader(values: &ArrayRef) -> &BooleanArray {
        values.as_boolean()
    }
    fn key(reader: &&BooleanArray, row: usize) -> bool {
        reader.value(row)
    }
    fn compare(reader: &&BooleanArray, row: usize, key: &bool) -> Ordering {
        reader.value(row).cmp(key)
    }
    fn array<'a>(keys: impl Iterator<Item = Option<&'a bool>>, _: &DataType) -> ArrayRef {
        Arc::new(keys.map(|k| k.copied()).collect::<BooleanArray>())
    }
    fn heap_bytes(_: &bool) -> usize {
        0
    }
}

/// Strings, byte strings, numerics and JSONB, by their bytes.
struct Bytes;

/// A string or binary column.
enum BytesReader<'a> {
    Text(&'a StringArray),
    Padded(&'a LargeStringArray),
    Binary(&'a BinaryArray),
    Numeric(&'a LargeBinaryArray),
    Json(&'a BinaryViewArray),
}

impl BytesReader<'_> {
    #[inline]
    fn value(&self, row: usize) -> &[u8] {
        match self {
            BytesReader::Text(values) => values.value(row).as_bytes(),
            BytesReader::Padded(values) => values.value(row).as_bytes(),
            BytesReader::Binary(values) => values.value(row),
            BytesReader::Numeric(values) => values.value(row),
            BytesReader::Json(values) => values.value(row),
        }
    }
}

impl Domain for Bytes {
    type Key = Box<[u8]>;
    type Reader<'a> = BytesReader<'a>;
    fn reader(values: &ArrayRef) -> BytesReader<'_> {
        match values.data_type() {
            DataType::Utf8 => BytesReader::Text(values.as_string()),
            DataType::LargeUtf8 => BytesReader::Padded(values.as_string()),
            DataType::LargeBinary => BytesReader::Numeric(values.as_binary()),
            DataType::BinaryView => BytesReader::Json(values.as_binary_view()),
            _ => BytesReader::Binary(values.as_binary()),
        }
    }
    fn key(reader: &BytesReader<'_>, row: usize) -> Box<[u8]> {
        reader.value(row).into()
    }
    #[inline]
    fn compare(reader: &BytesReader<'_>, row: usize, key: &Box<[u8]>) -> Ordering {
        reader.value(row).cmp(key)
    }
    fn array<'a>(
        keys: impl Iterator<Item = Option<&'a Box<[u8]>>>,
        data_type: &DataType,
    ) -> ArrayRef {
        let bytes = |k: Option<&'a Box<[u8]>>| k.map(|k| k.as_ref());
        match data_type {
            DataType::Utf8 => Arc::new(
                keys.map(|k| k.map(|k| std::str::from_utf8(k).expect("it was a string")))
                    .collect::<StringArray>(),
            ),
            DataType::LargeUtf8 => Arc::new(
                keys.map(|k| k.map(|k| std::str::from_utf8(k).expect("it was a string")))
                    .collect::<LargeStringArray>(),
            ),
            DataType::LargeBinary => Arc::new(keys.map(bytes).collect::<LargeBinaryArray>()),
            DataType::BinaryView => Arc::new(keys.map(bytes).collect::<BinaryViewArray>()),
            _ => Arc::new(keys.map(bytes).collect::<BinaryArray>()),
        }
    }
    fn heap_bytes(key: &Box<[u8]>) -> usize {
        key.len() + 16
    }
}

/// The accumulator of an extreme of `argument`; `None` for types without order.
pub(super) fn extreme(
    argument: &DataType,
    greatest: bool,
    append_only: bool,
) -> Option<Box<dyn Accumulator>> {
    fn of<D: Domain>(
        argument: &DataType,
        greatest: bool,
        append_only: bool,
    ) -> Box<dyn Accumulator> {
        let data_type = argument.clone();
        if append_only {
            Box::new(Extreme::<D> {
                data_type,
                wanted: if greatest {
                    Ordering::Greater
                } else {
                    Ordering::Less
                },
                values: Vec::new(),
                heap: 0,
            })
        } else {
            Box::new(Retractable::<D> {
                data_type,
                greatest,
                counts: BTreeMap::new(),
                dirty: Vec::new(),
                gone: Vec::new(),
                heap: 0,
                batch: Vec::new(),
            })
        }
    }
    use DataType as T;
    macro_rules! plain {
        ($t:ty) => {
            of::<Plain<$t>>(argument, greatest, append_only)
        };
    }
    Some(match argument {
        T::Int8 => plain!(Int8Type),
        T::Int16 => plain!(Int16Type),
        T::Int32 => plain!(Int32Type),
        T::Int64 => plain!(Int64Type),
        T::UInt8 => plain!(UInt8Type),
        T::UInt16 => plain!(UInt16Type),
        T::UInt32 => plain!(UInt32Type),
        T::UInt64 => plain!(UInt64Type),
        T::Date32 => plain!(Date32Type),
        T::Time64(TimeUnit::Microsecond) => plain!(Time64MicrosecondType),
        T::Timestamp(TimeUnit::Microsecond, _) => plain!(TimestampMicrosecondType),
        T::Decimal128(_, _) => plain!(Decimal128Type),
        T::Float32 => of::<Floats<Float32Type>>(argument, greatest, append_only),
        T::Float64 => of::<Floats<Float64Type>>(argument, greatest, append_only),
        T::Boolean => of::<Booleans>(argument, greatest, append_only),
        T::Utf8 | T::LargeUtf8 | T::Binary | T::LargeBinary | T::BinaryView => {
            of::<Bytes>(argument, greatest, append_only)
        }
        _ => return None,
    })
}

/// The extreme of an append-only input.
struct Extreme<D: Domain> {
    data_type: DataType,
    /// How a value must compare with the extreme to take its place.
    wanted: Ordering,
    values: Vec<Option<D::Key>>,
    heap: usize,
}

impl<D: Domain> Accumulator for Extreme<D> {
    fn grow(&mut self, capacity: usize) {
        if capacity > self.values.len() {
            self.values.resize(capacity, None);
        }
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        let reader = D::reader(values);
        input.each(|row, id, _| {
            let extreme = &mut self.values[id as usize];
            if extreme
                .as_ref()
                .is_none_or(|e| D::compare(&reader, row, e) == self.wanted)
            {
                let key = D::key(&reader, row);
                self.heap =
                    self.heap + D::heap_bytes(&key) - extreme.as_ref().map_or(0, D::heap_bytes);
                *extreme = Some(key);
            }
        });
        Ok(())
    }

    fn output(&self, ids: &[u32], _: &Chunked<i64>) -> Result<ArrayRef> {
        Ok(self.save(ids))
    }
    fn reset(&mut self, id: u32) {
        self.values[id as usize] = None;
    }
    fn stored_type(&self) -> Option<DataType> {
        Some(self.data_type.clone())
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        D::array(
            ids.iter().map(|id| self.values[*id as usize].as_ref()),
            &self.data_type,
        )
    }
    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let reader = D::reader(stored);
        for (row, id) in ids.iter().enumerate() {
            let key = stored.is_valid(row).then(|| D::key(&reader, row));
            self.heap += key.as_ref().map_or(0, D::heap_bytes);
            self.values[*id as usize] = key;
        }
    }
    fn memory_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<D::Key>>() + self.heap
    }
}

/// All values of an input that may retract.
struct Retractable<D: Domain> {
    data_type: DataType,
    greatest: bool,
    counts: BTreeMap<(u32, D::Key), Entry>,
    /// Values that changed since the last seal, some twice; those that have left since are among
    /// them.
    dirty: Vec<(u32, D::Key)>,
    /// Values that were there at the last seal and have left, once each; some are back.
    gone: Vec<(u32, D::Key)>,
    heap: usize,
    /// The current batch, to be sorted.
    batch: Vec<(u32, D::Key, i64)>,
}

/// How often a value occurs.
#[derive(Clone, Copy, Default)]
struct Entry {
    count: i64,
    /// Is in `dirty`.
    dirty: bool,
    /// Has been there since the last seal.
    sealed: bool,
}

impl<D: Domain> Retractable<D> {
    fn add(&mut self, id: u32, key: D::Key, weight: i64) {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.counts.entry((id, key)) {
            Vacant(vacant) => {
                self.heap += D::heap_bytes(&vacant.key().1);
                self.dirty.push(vacant.key().clone());
                vacant.insert(Entry {
                    count: weight,
                    dirty: true,
                    sealed: false,
                });
            }
            Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                entry.count += weight;
                if entry.count == 0 {
                    let (key, entry) = occupied.remove_entry();
                    self.heap -= D::heap_bytes(&key.1);
                    if entry.sealed {
                        self.gone.push(key);
                    }
                } else if !std::mem::replace(&mut entry.dirty, true) {
                    self.dirty.push(occupied.key().clone());
                }
            }
        }
    }

    /// The extreme of a group among its values with positive count.
    fn extreme(&self, id: u32, lowest: &D::Key) -> Option<&D::Key> {
        let is_here = |entry: &(&(u32, D::Key), &Entry)| entry.0.0 == id;
        let found = if self.greatest {
            let below_next = match id.checked_add(1) {
                Some(next) => self.counts.range(..(next, lowest.clone())),
                None => self.counts.range(..),
            };
            below_next
                .rev()
                .take_while(is_here)
                .find(|(_, entry)| entry.count > 0)
        } else {
            self.counts
                .range((id, lowest.clone())..)
                .take_while(is_here)
                .find(|(_, entry)| entry.count > 0)
        };
        found.map(|((_, key), _)| key)
    }
}

impl<D: Domain> Accumulator for Retractable<D> {
    fn grow(&mut self, _: usize) {}

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        // Equal values of a batch are summed first, and the tree is walked in its own order.
        let reader = D::reader(values);
        let mut batch = std::mem::take(&mut self.batch);
        input.each(|row, id, weight| batch.push((id, D::key(&reader, row), weight)));
        batch.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut sum: Option<(u32, D::Key, i64)> = None;
        for (id, key, weight) in batch.drain(..) {
            match &mut sum {
                Some((last_id, last_key, total)) if *last_id == id && *last_key == key => {
                    *total += weight
                }
                _ => {
                    if let Some((id, key, total)) =
                        sum.replace((id, key, weight)).filter(|s| s.2 != 0)
                    {
                        self.add(id, key, total);
                    }
                }
            }
        }
        if let Some((id, key, total)) = sum.filter(|s| s.2 != 0) {
            self.add(id, key, total);
        }
        self.batch = batch;
        Ok(())
    }

    fn output(&self, ids: &[u32], _: &Chunked<i64>) -> Result<ArrayRef> {
        let lowest = D::Key::lowest();
        Ok(D::array(
            ids.iter().map(|id| self.extreme(*id, &lowest)),
            &self.data_type,
        ))
    }

    fn reset(&mut self, id: u32) {
        // A group that is gone has no values left unless its input took back what it never gave.
        while let Some(key) = self
            .counts
            .range((id, D::Key::lowest())..)
            .next()
            .map(|(key, _)| key.clone())
            .filter(|key| key.0 == id)
        {
            self.counts.remove(&key);
        }
    }

    fn stored_type(&self) -> Option<DataType> {
        None
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        new_null_array(&DataType::Null, ids.len())
    }
    fn load(&mut self, _: &[u32], _: &ArrayRef) {}
    fn multiset(&mut self) -> Option<&mut dyn Multiset> {
        Some(self)
    }
    fn memory_bytes(&self) -> usize {
        // A B-tree's nodes are two thirds full on average.
        let entry = size_of::<((u32, D::Key), Entry)>();
        self.counts.len() * entry * 3 / 2
            + self.heap
            + (self.dirty.capacity() + self.gone.capacity()) * size_of::<(u32, D::Key)>()
    }
}

impl<D: Domain> Multiset for Retractable<D> {
    fn value_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn take_changes(&mut self, entries_max: usize) -> Option<MultisetChanges> {
        let (mut present, mut gone) = (Vec::new(), Vec::new());
        while present.is_empty() && gone.is_empty() {
            if self.dirty.is_empty() && self.gone.is_empty() {
                return None;
            }
            let rest = self.dirty.len().saturating_sub(entries_max);
            for key in self.dirty.split_off(rest) {
                if let Some(entry) = self.counts.get_mut(&key).filter(|e| e.dirty) {
                    *entry = Entry {
                        dirty: false,
                        sealed: true,
                        ..*entry
                    };
                    present.push((key, entry.count));
                }
            }
            let rest = self.gone.len().saturating_sub(entries_max);
            gone = self.gone.split_off(rest);
            gone.retain(|key| !self.counts.contains_key(key));
        }
        Some(MultisetChanges {
            ids: present.iter().map(|((id, _), _)| *id).collect(),
            values: D::array(
                present.iter().map(|((_, key), _)| Some(key)),
                &self.data_type,
            ),
            counts: present.iter().map(|(_, count)| *count).collect(),
            gone_ids: gone.iter().map(|(id, _)| *id).collect(),
            gone_values: D::array(gone.iter().map(|(_, key)| Some(key)), &self.data_type),
        })
    }

    fn len(&self) -> usize {
        self.counts.len()
    }

    fn forget(&mut self, id: u32) {
        let of_group = |(key, _): (&(u32, D::Key), &Entry)| key.clone();
        let values = self.counts.range((id, D::Key::lowest())..).map(of_group);
        let values: Vec<(u32, D::Key)> = values.take_while(|key| key.0 == id).collect();
        for key in values {
            self.heap -= D::heap_bytes(&key.1);
            if self.counts.remove(&key).is_some_and(|entry| entry.sealed) {
                self.gone.push(key);
            }
        }
    }

    fn load_entries(&mut self, ids: &[u32], values: &ArrayRef, counts: &Int64Array) {
        let reader = D::reader(values);
        for (row, id) in ids.iter().enumerate() {
            let key = D::key(&reader, row);
            self.heap += D::heap_bytes(&key);
            self.counts.insert(
                (*id, key),
                Entry {
                    count: counts.value(row),
                    dirty: false,
                    sealed: true,
                },
            );
        }
    }
}

/// A key that no other is below.
trait Lowest {
    fn lowest() -> Self;
}
macro_rules! lowest {
    ($($t:ty),*) => { $(impl Lowest for $t { fn lowest() -> $t { <$t>::MIN } })* };
}
lowest!(i8, i16, i32, i64, i128, u8, u16, u32, u64);
impl Lowest for bool {
    fn lowest() -> bool {
        false
    }
}
impl Lowest for Box<[u8]> {
    fn lowest() -> Box<[u8]> {
        Box::default()
    }
}
