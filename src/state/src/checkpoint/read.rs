//! Reading checkpoint files in pieces: the footer first, then the row groups that hold wanted
//! vnodes, some bytes at a time. So a restore reads what it needs and no more, and what it holds
//! beside the rows does not depend on how large files are.
//!
//! Every byte that is used is held against a checksum: the manifest has the footer's, the footer
//! has those of the row groups. A file that is small, or one of an earlier build that has no such
//! checksums, is read whole and held against that of the whole file.

use super::file::{FORM, file_schema, missing_of};
use super::{CheckpointStore, FileMeta};
use crate::TableSpec;
use crate::added::repeated;
use arrow::array::*;
use arrow::datatypes::*;
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tidemark_common::{Error, Result, VNODES};

/// Files and pieces read ahead while an earlier one is decoded.
const READ_AHEAD: usize = 4;
/// Bytes of neighbouring row groups that are read at once.
const PIECE_BYTES: u64 = 4 << 20;
/// A file of that size or less is read at once: asking for its footer first would take longer.
const SMALL_BYTES: u64 = 1 << 20;
/// Rows of a decoded batch at most.
const READ_ROWS: usize = 8192;
/// In the file's metadata: where each row group ends, and its checksum.
const GROUPS: &str = "tidemark.row_groups";
/// Parquet's mark at the beginning of a file.
const MARK_BYTES: u64 = 4;

/// The end of a file, behind its last row group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Size.
    pub bytes: u32,
    /// CRC-32 (IEEE).
    pub crc32: u32,
}

/// Where the row groups of a file end, each with its checksum. They follow each other.
#[derive(Debug, PartialEq)]
pub(super) struct Groups(Vec<(u64, u32)>);

impl Groups {
    /// Those of a file in the making, which are written.
    pub fn of(written: &[u8], groups: &[RowGroupMetaData]) -> Groups {
        let mut start = MARK_BYTES as usize;
        let ends = groups.iter().map(|group| {
            let columns = group.columns().iter();
            let end = columns.map(|c| c.byte_range()).map(|(at, len)| at + len);
            let end = end.max().unwrap_or(start as u64);
            let crc32 = crc32fast::hash(&written[start..end as usize]);
            start = end as usize;
            (end, crc32)
        });
        Groups(ends.collect())
    }

    /// What the file's metadata say of them.
    pub fn told(&self) -> KeyValue {
        let told = self.0.iter().map(|(end, crc32)| format!("{end}:{crc32:x}"));
        KeyValue::new(GROUPS.into(), told.collect::<Vec<_>>().join(","))
    }

    fn parse(told: &str) -> Option<Groups> {
        let mut groups = Vec::new();
        for group in told.split(',').filter(|g| !g.is_empty()) {
            let (end, crc32) = group.split_once(':')?;
            let start = groups.last().map_or(MARK_BYTES, |(end, _)| *end);
            let end = end.parse().ok().filter(|end| *end >= start)?;
            groups.push((end, u32::from_str_radix(crc32, 16).ok()?));
        }
        Some(Groups(groups))
    }

    /// The footer of the finished file.
    pub fn footer(&self, file: &[u8]) -> Footer {
        let footer = &file[self.end() as usize..];
        Footer {
            bytes: footer.len() as u32,
            crc32: crc32fast::hash(footer),
        }
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(MARK_BYTES, |(end, _)| *end)
    }

    /// Where the groups of a run are.
    fn range(&self, run: &Range<usize>) -> Range<u64> {
        let start = match run.start {
            0 => MARK_BYTES,
            next => self.0[next - 1].0,
        };
        start..self.0[run.end - 1].0
    }
}

/// A part of a file, which answers for it as far as it goes.
#[derive(Clone)]
struct Segment {
    start: u64,
    bytes: Bytes,
    file_bytes: u64,
}

impl Length for Segment {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for Segment {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let end = self.start + self.bytes.len() as u64;
        let length = end.saturating_sub(start) as usize;
        Ok(self.get_bytes(start, length)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let at = start.checked_sub(self.start).map(|at| at as usize);
        let found = at.and_then(|at| Some((at, at.checked_add(length)?)));
        match found {
            Some((at, end)) if end <= self.bytes.len() => Ok(self.bytes.slice(at..end)),
            _ => Err(ParquetError::EOF(format!(
                "bytes {start} to {} are outside of where they should be",
                start.saturating_add(length as u64)
            ))),
        }
    }
}

/// A file whose footer was read.
pub(super) struct OpenFile {
    meta: FileMeta,
    footer: ArrowReaderMetadata,
    /// Absent: all is in `whole`.
    groups: Option<Groups>,
    whole: Option<Segment>,
    schema: SchemaRef,
    /// Where each column of `schema` comes from.
    places: Vec<Place>,
}

/// Where a column of a file comes from.
enum Place {
    /// The column at this position.
    At(usize),
    /// The file is older than the column, of which all its rows have this value.
    Missing(ArrayRef),
}

impl Place {
    fn of(&self, records: &RecordBatch) -> ArrayRef {
        match self {
            Place::At(position) => records.column(*position).clone(),
            Place::Missing(value) => repeated(value, records.num_rows()),
        }
    }
}

impl OpenFile {
    fn new(spec: &TableSpec, meta: &FileMeta, end: Segment, is_whole: bool) -> Result<OpenFile> {
        let damaged = |what: String| damaged(meta, what);
        let footer = ArrowReaderMetadata::load(&end, ArrowReaderOptions::new())
            .map_err(|e| damaged(e.to_string()))?;
        check_form(spec, &footer).map_err(damaged)?;
        let schema = file_schema(spec);
        let mut places = Vec::new();
        for (i, wanted) in schema.fields().iter().enumerate() {
            let found = footer.schema().column_with_name(wanted.name());
            if found.is_none()
                && let Some(value) = missing_of(spec, i)
            {
                places.push(Place::Missing(value));
                continue;
            }
            let (at, field) =
                found.ok_or_else(|| damaged(format!("column \"{}\" is missing", wanted.name())))?;
            if field.data_type() != wanted.data_type() {
                return Err(damaged(format!(
                    "column \"{}\" is {}, the table has {}",
                    wanted.name(),
                    field.data_type(),
                    wanted.data_type()
                )));
            }
            places.push(Place::At(at));
        }
        let groups = match is_whole {
            true => None,
            false => {
                let told = told(&footer, GROUPS).and_then(Groups::parse);
                let told = told.filter(|told| told.0.len() == footer.metadata().num_row_groups());
                Some(told.ok_or_else(|| damaged("its row groups are not told".into()))?)
            }
        };
        Ok(OpenFile {
            meta: meta.clone(),
            footer,
            groups,
            whole: is_whole.then_some(end),
            schema,
            places,
        })
    }

    /// The file.
    pub fn meta(&self) -> &FileMeta {
        &self.meta
    }

    /// The row groups that may have rows of `vnodes`, as runs of neighbours to be read at once.
    fn runs(&self, vnodes: &Range<usize>) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (i, group) in self.footer.metadata().row_groups().iter().enumerate() {
            if !overlaps(group, vnodes) {
                continue;
            }
            let fits = |run: &Range<usize>| match &self.groups {
                Some(groups) => {
                    let range = groups.range(&(run.start..i + 1));
                    range.end - range.start <= PIECE_BYTES
                }
                None => true,
            };
            match runs.last_mut() {
                Some(run) if run.end == i && fits(run) => run.end = i + 1,
                _ => runs.push(i..i + 1),
            }
        }
        runs
    }
}

/// Some row groups of a file, in memory.
pub(super) struct Piece {
    file: Arc<OpenFile>,
    groups: Range<usize>,
    content: Segment,
}

impl Piece {
    /// The file.
    pub fn file(&self) -> &FileMeta {
        self.file.meta()
    }

    /// Its records that fall into `vnodes`.
    pub fn records(self, vnodes: Range<usize>) -> Result<Records> {
        let (file, footer) = (self.file.clone(), self.file.footer.clone());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.content, footer);
        let reader = builder
            .with_row_groups(self.groups.collect())
            .with_batch_size(READ_ROWS)
            .build()
            .map_err(|e| damaged(&file.meta, e.to_string()))?;
        Ok(Records {
            reader,
            file,
            vnodes,
        })
    }
}

/// Records of a file in order, with the columns of [`file_schema`].
pub(super) struct Records {
    reader: ParquetRecordBatchReader,
    file: Arc<OpenFile>,
    vnodes: Range<usize>,
}

impl Records {
    /// The next records, at least one; `None` at the end.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        let OpenFile {
            meta,
            schema,
            places,
            ..
        } = &*self.file;
        let damaged = |e: arrow::error::ArrowError| damaged(meta, e.to_string());
        for batch in self.reader.by_ref() {
            let batch = batch.map_err(damaged)?;
            let columns = places.iter().map(|place| place.of(&batch)).collect();
            let batch = RecordBatch::try_new(schema.clone(), columns).map_err(damaged)?;
            let vnodes = batch.column(0).as_primitive::<UInt16Type>().values();
            let start = vnodes.partition_point(|v| (*v as usize) < self.vnodes.start);
            let end = vnodes.partition_point(|v| (*v as usize) < self.vnodes.end);
            if start < end {
                return Ok(Some(batch.slice(start, end - start)));
            }
        }
        Ok(None)
    }
}

impl CheckpointStore {
    /// The pieces of `files` that may have rows of `vnodes`, in the order of the files, some read
    /// ahead.
    pub(super) fn pieces<'a>(
        &'a self,
        spec: &'a TableSpec,
        files: &'a [FileMeta],
        vnodes: Range<usize>,
    ) -> impl Stream<Item = Result<Piece>> + 'a {
        let wanted = vnodes.clone();
        let files = files.iter().filter(move |f| f.has_any_of(&wanted));
        let opened = stream::iter(files).map(move |file| self.open_file(spec, file));
        let pieces = opened.buffered(READ_AHEAD).map_ok(move |file| {
            let runs = file.runs(&vnodes).into_iter();
            stream::iter(runs.map(move |run| Ok(self.read_groups(file.clone(), run))))
        });
        pieces.try_flatten().try_buffered(READ_AHEAD)
    }

    async fn open_file(&self, spec: &TableSpec, file: &FileMeta) -> Result<Arc<OpenFile>> {
        let segment = |start, bytes| Segment {
            start,
            bytes,
            file_bytes: file.bytes,
        };
        let open = match &file.footer {
            Some(footer) if file.bytes > SMALL_BYTES => {
                let range = file.bytes.saturating_sub(footer.bytes.into())..file.bytes;
                let bytes = self.get_range(file, range.clone()).await?;
                check(file, &range, &bytes, footer.crc32)?;
                OpenFile::new(spec, file, segment(range.start, bytes), false)
            }
            _ => {
                let bytes = self.read_file(file).await?;
                OpenFile::new(spec, file, segment(0, bytes), true)
            }
        };
        open.map(Arc::new)
    }

    async fn read_groups(&self, file: Arc<OpenFile>, groups: Range<usize>) -> Result<Piece> {
        let content = match (&file.groups, &file.whole) {
            (Some(told), _) => {
                let range = told.range(&groups);
                let bytes = self.get_range(&file.meta, range.clone()).await?;
                for group in groups.clone() {
                    let own = told.range(&(group..group + 1));
                    let at = (own.start - range.start) as usize..(own.end - range.start) as usize;
                    let bytes = bytes.get(at).unwrap_or_default();
                    check(&file.meta, &own, bytes, told.0[group].1)?;
                }
                Segment {
                    start: range.start,
                    bytes,
                    file_bytes: file.meta.bytes,
                }
            }
            (None, Some(whole)) => whole.clone(),
            (None, None) => return Err(Error::internal("a file without content is open")),
        };
        Ok(Piece {
            file,
            groups,
            content,
        })
    }
}

/// Files that follow each other, read one row group at a time.
pub(super) struct Sequence {
    files: VecDeque<FileMeta>,
    open: Option<(Arc<OpenFile>, VecDeque<Range<usize>>)>,
}

impl Sequence {
    /// Of these files, in this order.
    pub fn new(files: Vec<FileMeta>) -> Sequence {
        Sequence {
            files: files.into(),
            open: None,
        }
    }

    /// The records of the next row groups; `None` at the end.
    pub async fn next(
        &mut self,
        store: &CheckpointStore,
        spec: &TableSpec,
    ) -> Result<Option<Records>> {
        loop {
            if let Some((file, runs)) = &mut self.open
                && let Some(run) = runs.pop_front()
            {
                let piece = store.read_groups(file.clone(), run).await?;
                return piece.records(0..VNODES).map(Some);
            }
            let Some(file) = self.files.pop_front() else {
                return Ok(None);
            };
            let file = store.open_file(spec, &file).await?;
            let groups = 0..file.footer.metadata().num_row_groups();
            let runs = groups.map(|group| group..group + 1).collect();
            self.open = Some((file, runs));
        }
    }
}

/// Refuses bytes of a file that are not what they should be.
fn check(file: &FileMeta, range: &Range<u64>, bytes: &[u8], crc32: u32) -> Result<()> {
    let found = crc32fast::hash(bytes);
    if found == crc32 && bytes.len() as u64 == range.end - range.start {
        return Ok(());
    }
    Err(super::is_damaged(&file.path).with_detail(format!(
        "Its bytes {} to {} have checksum {found:08x} instead of {crc32:08x}.",
        range.start, range.end
    )))
}

fn damaged(file: &FileMeta, what: String) -> Error {
    Error::corrupt(format!("checkpoint file {}: {what}", file.path))
}

/// What the file's metadata say of `key`.
fn told<'a>(footer: &'a ArrowReaderMetadata, key: &str) -> Option<&'a str> {
    let metadata = footer.metadata().file_metadata();
    let items = metadata.key_value_metadata().into_iter().flatten();
    items
        .filter(|item| item.key == key)
        .find_map(|item| item.value.as_deref())
}

/// Refuses a file whose table was of another form; files of earlier builds do not say theirs.
fn check_form(spec: &TableSpec, footer: &ArrowReaderMetadata) -> Result<(), String> {
    match told(footer, FORM) {
        Some(form) if form != spec.form.name() => Err(format!(
            "it is of a table that is {form}, and this one is {}",
            spec.form.name()
        )),
        _ => Ok(()),
    }
}

/// Whether a row group may have rows of `vnodes`; without statistics it may.
fn overlaps(group: &RowGroupMetaData, vnodes: &Range<usize>) -> bool {
    match group.column(0).statistics() {
        Some(Statistics::Int32(s)) => match (s.min_opt(), s.max_opt()) {
            (Some(min), Some(max)) => (*min as usize) < vnodes.end && *max as usize >= vnodes.start,
            _ => true,
        },
        _ => true,
    }
}
