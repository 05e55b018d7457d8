//! One checkpoint file: from a [`TableDelta`] to Parquet, and from its records to rows of the
//! table. The schema is described in the parent module; reading is [`super::read`]'s.
//!
//! Encoding runs beside the dataflow, so it is thrifty: rows are counted into vnodes, sorted within
//! each by a 128-bit prefix of the ordered key (an integer key fits whole) and gathered once per
//! row group; no dictionaries, statistics of `_vnode` alone.
//!
//! A row group is what is read at a time, so it is bounded in rows and in bytes, and the file's
//! metadata have where each one ends and its checksum.

use super::read::{Footer, Groups};
use crate::{Appended, TableDelta, TableSpec};
use arrow::array::*;
use arrow::compute;
use arrow::datatypes::*;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::cmp::Ordering;
use std::sync::Arc;
use tidemark_changelog::key::{encode_columns, encode_differences};
use tidemark_common::{Error, Result, VNODES};

/// Rows of a row group at most.
const ROW_GROUP_ROWS: usize = 64 * 1024;
/// Bytes of a row group at most, before compression; those of one row at least.
const ROW_GROUP_BYTES: usize = 4 << 20;
/// Rows that are read from a table at a time while appended rows are written.
const PIECE_ROWS: usize = 16 * 1024;
/// Bytes after which appended and merged rows go on in a next file, so that what is encoded and not
/// stored yet stays small.
pub(super) const FILE_BYTES: usize = 32 << 20;
/// In the file's metadata: how many of the table's columns are its key, and its form.
const KEY_COLUMNS: &str = "tidemark.key_columns";
pub(super) const FORM: &str = "tidemark.form";
/// Columns in front of the table's own: `_vnode`, `_deleted`.
pub(super) const SYSTEM_COLUMNS: usize = 2;

/// A file ready to be written.
#[derive(Clone, Debug)]
pub struct EncodedFile {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Its end, where its row groups are told.
    pub footer: Footer,
    /// Records: upserts and deletes.
    pub rows: u64,
    /// How many of the records are deletes.
    pub deletes: u64,
    /// Smallest vnode; 0 without rows.
    pub vnode_min: u16,
    /// Largest vnode; 0 without rows.
    pub vnode_max: u16,
}

/// Sorts the delta by (vnode, key) and writes it as a Parquet file.
pub fn encode_delta(spec: &TableSpec, delta: TableDelta) -> Result<EncodedFile> {
    let TableDelta {
        upserts,
        upsert_vnodes,
        deletes,
        delete_vnodes,
    } = delta;
    let (present, gone) = (upserts.num_rows(), deletes.num_rows());
    if upsert_vnodes.len() != present || delete_vnodes.len() != gone {
        return Err(Error::internal(format!(
            "delta of table {}: one vnode per row is needed",
            spec.table
        )));
    }
    let keys: Vec<ArrayRef> = (0..spec.key_columns)
        .map(|c| {
            if gone == 0 {
                Ok(upserts.column(c).clone())
            } else {
                compute::concat(&[upserts.column(c), deletes.column(c)])
            }
        })
        .collect::<Result<_, _>>()
        .map_err(arrow_error)?;
    let mut vnodes = upsert_vnodes;
    vnodes.extend_from_slice(&delete_vnodes);
    let order = sorted_order(&vnodes, &OrderedKeys::encode(&keys, present + gone));
    let mut writer = FileWriter::new(spec)?;
    for rows in order.chunks(ROW_GROUP_ROWS) {
        let indices = UInt32Array::from(rows.to_vec());
        // A delete has no values: its index is NULL there.
        let values = if gone == 0 {
            indices.clone()
        } else {
            rows.iter()
                .map(|r| ((*r as usize) < present).then_some(*r))
                .collect()
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(
                rows.iter()
                    .map(|r| vnodes[*r as usize])
                    .collect::<UInt16Array>(),
            ),
            Arc::new(
                rows.iter()
                    .map(|r| Some(*r as usize >= present))
                    .collect::<BooleanArray>(),
            ),
        ];
        for (c, column) in upserts.columns().iter().enumerate() {
            let (source, at) = if c < spec.key_columns {
                (&keys[c], &indices)
            } else {
                (column, &values)
            };
            columns.push(to_stored(
                &compute::take(source, at, None).map_err(arrow_error)?,
            ));
        }
        writer.write(columns)?;
    }
    writer.finish()
}

/// Writes appended rows sorted by (vnode, key) as Parquet files, each handed to `finished` before
/// the next begins. `read` gives the table's columns of some rows by their numbers; `None` when the
/// table is gone, which ends the writing.
pub fn encode_appended(
    spec: &TableSpec,
    appended: &Appended,
    mut read: impl FnMut(Vec<u32>) -> Option<Vec<ArrayRef>>,
    mut finished: impl FnMut(EncodedFile) -> Result<()>,
) -> Result<()> {
    let vnodes = &appended.vnodes;
    let order = order_by_vnode(vnodes);
    let mut writer = FileWriter::new(spec)?;
    let mut last = None;
    for rows in order.chunks(PIECE_ROWS) {
        let Some(columns) = read(rows.to_vec()) else {
            return Ok(());
        };
        let vnode = |row: &u32| vnodes[*row as usize];
        let mut records: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(vnode).collect::<UInt16Array>()),
            Arc::new(BooleanArray::from(vec![false; rows.len()])),
        ];
        records.extend(columns.iter().map(to_stored));
        // A file ends with a vnode, so that no vnode is in two files of one epoch.
        let split = if writer.bytes() < FILE_BYTES {
            None
        } else {
            rows.iter().position(|row| Some(vnode(row)) != last)
        };
        if let Some(split) = split {
            writer.write(records.iter().map(|r| r.slice(0, split)).collect())?;
            finished(std::mem::replace(&mut writer, FileWriter::new(spec)?).finish()?)?;
            records = records
                .iter()
                .map(|r| r.slice(split, rows.len() - split))
                .collect();
        }
        writer.write(records)?;
        last = rows.last().map(vnode);
    }
    if writer.rows > 0 {
        finished(writer.finish()?)
    } else {
        Ok(())
    }
}

/// The rows' numbers ordered by vnode, each vnode's in their order.
fn order_by_vnode(vnodes: &[u16]) -> Vec<u32> {
    let mut next = vec![0u32; VNODES + 1];
    vnodes.iter().for_each(|v| next[*v as usize + 1] += 1);
    (0..VNODES).for_each(|v| next[v + 1] += next[v]);
    let mut order = vec![0u32; vnodes.len()];
    for (row, vnode) in vnodes.iter().enumerate() {
        let at = &mut next[*vnode as usize];
        order[*at as usize] = row as u32;
        *at += 1;
    }
    order
}

/// The rows' numbers ordered by (vnode, key).
fn sorted_order(vnodes: &[u16], keys: &OrderedKeys) -> Vec<u32> {
    let mut order = order_by_vnode(vnodes);
    let mut scratch: Vec<(u128, u32)> = Vec::new();
    for bucket in order.chunk_by_mut(|a, b| vnodes[*a as usize] == vnodes[*b as usize]) {
        scratch.clear();
        scratch.extend(bucket.iter().map(|row| (keys.prefix[*row as usize], *row)));
        scratch.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| keys.rest(a.1 as usize).cmp(keys.rest(b.1 as usize)))
        });
        bucket
            .iter_mut()
            .zip(&scratch)
            .for_each(|(to, from)| *to = from.1);
    }
    order
}

/// The keys of some rows in a form that compares like the ordered key encoding, and behind it by
/// what that does not tell apart: the first 16 bytes as a number, then the rest.
pub(super) struct OrderedKeys {
    /// First 16 bytes, padded with zeros. The encoding is free of prefixes, so the padding decides
    /// nothing.
    pub prefix: Vec<u128>,
    /// Whole encodings, one after the other; empty when every key fits its prefix.
    flat: Vec<u8>,
    /// `flat[ends[i - 1]..ends[i]]` is key i; empty when every key fits its prefix.
    ends: Vec<usize>,
}

impl OrderedKeys {
    /// Encodes `rows` keys made of `columns`.
    pub fn encode(columns: &[ArrayRef], rows: usize) -> OrderedKeys {
        if let [column] = columns
            && let Some(prefix) = integer_prefixes(column)
        {
            return OrderedKeys {
                prefix,
                flat: Vec::new(),
                ends: Vec::new(),
            };
        }
        const CHUNK: usize = 1024;
        let mut keys = OrderedKeys {
            prefix: Vec::with_capacity(rows),
            flat: Vec::new(),
            ends: Vec::with_capacity(rows),
        };
        let mut buffers: Vec<Vec<u8>> = vec![Vec::new(); CHUNK.min(rows)];
        for start in (0..rows).step_by(CHUNK) {
            let chunk = &mut buffers[..CHUNK.min(rows - start)];
            chunk.iter_mut().for_each(Vec::clear);
            let slices: Vec<ArrayRef> = columns
                .iter()
                .map(|c| c.slice(start, chunk.len()))
                .collect();
            encode_columns(&slices, chunk);
            encode_differences(&slices, chunk);
            for key in chunk.iter() {
                let mut first = [0u8; 16];
                let len = key.len().min(16);
                first[..len].copy_from_slice(&key[..len]);
                keys.prefix.push(u128::from_be_bytes(first));
                keys.flat.extend_from_slice(key);
                keys.ends.push(keys.flat.len());
            }
        }
        keys
    }

    /// The whole encoding of key `i`, or nothing when the prefix says it all.
    pub fn rest(&self, i: usize) -> &[u8] {
        if self.ends.is_empty() {
            return &[];
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.flat[start..self.ends[i]]
    }

    /// Compares key `i` with key `j` of `other`, which has the same column types.
    pub fn compare(&self, i: usize, other: &OrderedKeys, j: usize) -> Ordering {
        self.prefix[i]
            .cmp(&other.prefix[j])
            .then_with(|| self.rest(i).cmp(other.rest(j)))
    }
}

/// The ordered encoding of a 64-bit (or narrower) integer column, 9 bytes, as left-aligned numbers;
/// `None` for other types.
fn integer_prefixes(column: &ArrayRef) -> Option<Vec<u128>> {
    fn words<T: ArrowPrimitiveType>(
        column: &ArrayRef,
        word: impl Fn(T::Native) -> i64,
    ) -> Option<Vec<u128>> {
        let encode = |v: T::Native| (1u128 << 120) | (u128::from(word(v) as u64 ^ (1 << 63)) << 56);
        let values = column.as_primitive::<T>();
        Some(if values.null_count() == 0 {
            values.values().iter().map(|v| encode(*v)).collect()
        } else {
            values
                .iter()
                .map(|v| v.map_or(2u128 << 120, encode))
                .collect()
        })
    }
    match column.data_type() {
        DataType::Int16 => words::<Int16Type>(column, i64::from),
        DataType::Int32 => words::<Int32Type>(column, i64::from),
        DataType::Int64 => words::<Int64Type>(column, |v| v),
        DataType::Date32 => words::<Date32Type>(column, i64::from),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            words::<TimestampMicrosecondType>(column, |v| v)
        }
        _ => None,
    }
}

/// Writes records that arrive in order and counts them.
pub(super) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    rows: u64,
    deletes: u64,
    vnodes: Option<(u16, u16)>,
}

impl FileWriter {
    pub fn new(spec: &TableSpec) -> Result<FileWriter> {
        let vnode = || ColumnPath::from("_vnode");
        let properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_column_statistics_enabled(vnode(), EnabledStatistics::Chunk)
            .set_column_dictionary_enabled(vnode(), true)
            .set_offset_index_disabled(true)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_key_value_metadata(Some(vec![
                KeyValue::new(KEY_COLUMNS.to_string(), spec.key_columns.to_string()),
                KeyValue::new(FORM.to_string(), spec.form.name().to_string()),
            ]))
            .set_created_by("tidemark".to_string())
            .build();
        let schema = file_schema(spec);
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))
            .map_err(|e| Error::internal(format!("state table {}: {e}", spec.table)))?;
        Ok(FileWriter {
            writer,
            schema,
            rows: 0,
            deletes: 0,
            vnodes: None,
        })
    }

    /// Adds records; `columns` as in the file.
    pub fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(arrow_error)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (vnodes, deleted) = (
            batch.column(0).as_primitive::<UInt16Type>(),
            batch.column(1).as_boolean(),
        );
        let last = vnodes.value(batch.num_rows() - 1);
        self.vnodes = Some((self.vnodes.map_or(vnodes.value(0), |(min, _)| min), last));
        self.rows += batch.num_rows() as u64;
        self.deletes += deleted.true_count() as u64;
        // The first rows of a row group are taken whole, however large they are.
        let row_bytes = batch.get_array_memory_size() / batch.num_rows();
        let step = (ROW_GROUP_BYTES / row_bytes.max(1)).clamp(1, ROW_GROUP_ROWS);
        for start in (0..batch.num_rows()).step_by(step) {
            let rows = batch.slice(start, step.min(batch.num_rows() - start));
            self.writer.write(&rows).map_err(parquet_error)?;
        }
        Ok(())
    }

    /// How many records were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How large the file is so far.
    pub fn bytes(&self) -> usize {
        self.writer.bytes_written()
    }

    pub fn finish(mut self) -> Result<EncodedFile> {
        self.writer.flush().map_err(parquet_error)?;
        self.writer
            .sync()
            .map_err(|e| parquet_error(ParquetError::from(e)))?;
        let groups = Groups::of(self.writer.inner(), self.writer.flushed_row_groups());
        self.writer.append_key_value_metadata(groups.told());
        let bytes = self.writer.into_inner().map_err(parquet_error)?;
        let footer = groups.footer(&bytes);
        let (vnode_min, vnode_max) = self.vnodes.unwrap_or((0, 0));
        Ok(EncodedFile {
            bytes: bytes.into(),
            footer,
            rows: self.rows,
            deletes: self.deletes,
            vnode_min,
            vnode_max,
        })
    }
}

/// The columns of a file of this table. Where the table has a name twice (or one of the system
/// columns'), the later one gets its position appended.
pub(super) fn file_schema(spec: &TableSpec) -> SchemaRef {
    let mut fields = vec![
        Field::new("_vnode", DataType::UInt16, false),
        Field::new("_deleted", DataType::Boolean, false),
    ];
    for (i, f) in spec.schema.fields().iter().enumerate() {
        let data_type = stored_type(f.data_type());
        let mut name = f.name().clone();
        while fields.iter().any(|other| other.name() == &name) {
            name = format!("{name}_{i}");
        }
        fields.push(Field::new(
            name,
            data_type,
            f.is_nullable() || i >= spec.key_columns,
        ));
    }
    Arc::new(Schema::new(fields))
}

/// What rows of files that are older than a column have in it, which is the one at that place in
/// [`file_schema`].
pub(super) fn missing_of(spec: &TableSpec, place: usize) -> Option<ArrayRef> {
    let column = place.checked_sub(SYSTEM_COLUMNS)?;
    let value = crate::added::missing(spec.schema.field(column))?;
    Some(to_stored(&value))
}

/// The table's rows among records of a file, none of them a delete.
pub(super) fn table_rows(spec: &TableSpec, records: &RecordBatch) -> Result<RecordBatch> {
    RecordBatch::try_new(
        spec.schema.clone(),
        from_stored(spec, records, spec.schema.fields().len()),
    )
    .map_err(arrow_error)
}

/// The key columns among records of a file, in the table's types: their order is that of the rows
/// in the file.
pub(super) fn record_keys(spec: &TableSpec, records: &RecordBatch) -> Vec<ArrayRef> {
    from_stored(spec, records, spec.key_columns)
}

/// The first columns of the table among records of a file.
fn from_stored(spec: &TableSpec, records: &RecordBatch, columns: usize) -> Vec<ArrayRef> {
    let stored = spec
        .schema
        .fields()
        .iter()
        .zip(&records.columns()[SYSTEM_COLUMNS..])
        .take(columns);
    stored
        .map(|(f, column)| from_stored_column(column, f.data_type()))
        .collect()
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(IntervalUnit::MonthDayNano))
}

/// Whether a value is an interval, or holds one.
fn holds_interval(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|f| holds_interval(f.data_type())),
        DataType::List(element) => holds_interval(element.data_type()),
        other => is_interval(other),
    }
}

/// Parquet has no interval with nanoseconds: it is stored as 16 bytes, also within rows and arrays.
fn stored_type(data_type: &DataType) -> DataType {
    let stored = |f: &FieldRef| {
        let data_type = stored_type(f.data_type());
        Arc::new(f.as_ref().clone().with_data_type(data_type))
    };
    match data_type {
        other if !holds_interval(other) => other.clone(),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(stored).collect()),
        DataType::List(element) => DataType::List(stored(element)),
        _ => DataType::FixedSizeBinary(16),
    }
}

fn to_stored(column: &ArrayRef) -> ArrayRef {
    if !holds_interval(column.data_type()) {
        return column.clone();
    }
    match stored_type(column.data_type()) {
        DataType::FixedSizeBinary(_) => to_stored_interval(column),
        stored => with_parts(column, &stored, |part, _| to_stored(part)),
    }
}

/// A column of rows or arrays with other parts.
fn with_parts(
    column: &ArrayRef,
    data_type: &DataType,
    part: impl Fn(&ArrayRef, &DataType) -> ArrayRef,
) -> ArrayRef {
    match data_type {
        DataType::Struct(fields) => {
            let rows = column.as_struct();
            let columns = rows.columns().iter().zip(fields);
            let columns = columns.map(|(c, f)| part(c, f.data_type())).collect();
            let nulls = rows.nulls().cloned();
            let made = StructArray::try_new_with_length(fields.clone(), columns, nulls, rows.len());
            Arc::new(made.expect("parts of as many rows"))
        }
        DataType::List(element) => {
            let lists = column.as_list::<i32>();
            Arc::new(ListArray::new(
                element.clone(),
                lists.offsets().clone(),
                part(lists.values(), element.data_type()),
                lists.nulls().cloned(),
            ))
        }
        _ => column.clone(),
    }
}

/// A column of a file in the table's type.
fn from_stored_column(column: &ArrayRef, data_type: &DataType) -> ArrayRef {
    match data_type {
        other if !holds_interval(other) => column.clone(),
        other if is_interval(other) => from_stored_interval(column),
        other => with_parts(column, other, from_stored_column),
    }
}

fn to_stored_interval(column: &ArrayRef) -> ArrayRef {
    let mut stored = FixedSizeBinaryBuilder::with_capacity(column.len(), 16);
    for value in column.as_primitive::<IntervalMonthDayNanoType>() {
        match value {
            Some(v) => {
                let mut b = [0; 16];
                b[..4].copy_from_slice(&v.months.to_le_bytes());
                b[4..8].copy_from_slice(&v.days.to_le_bytes());
                b[8..].copy_from_slice(&v.nanoseconds.to_le_bytes());
                stored.append_value(b).expect("16 bytes were declared");
            }
            None => stored.append_null(),
        }
    }
    Arc::new(stored.finish())
}

fn from_stored_interval(column: &ArrayRef) -> ArrayRef {
    let word = |b: &[u8]| i32::from_le_bytes(b.try_into().expect("4 of 16 bytes"));
    let values = column.as_fixed_size_binary().iter().map(|v| {
        v.map(|b| {
            IntervalMonthDayNanoType::make_value(
                word(&b[..4]),
                word(&b[4..8]),
                i64::from_le_bytes(b[8..].try_into().expect("8 of 16 bytes")),
            )
        })
    });
    Arc::new(values.collect::<IntervalMonthDayNanoArray>())
}

pub(super) fn arrow_error(e: arrow::error::ArrowError) -> Error {
    Error::internal(format!("checkpoint: {e}"))
}

fn parquet_error(e: ParquetError) -> Error {
    Error::internal(format!("parquet: {e}"))
}
