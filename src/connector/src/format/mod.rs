//! Formats: from records to change batches, and from rows back to records.
//!
//! [`RecordDecoder`] turns the records of a source into rows, one `push` each, straight from the
//! borrowed payload into column builders: nothing is allocated per record, and members that no job
//! reads are passed over without being parsed. A record that cannot be read leaves a
//! [`RecordError`] and no row. As a changelog:
//!
//! | format | record | changes |
//! | --- | --- | --- |
//! | PLAIN | a value | +1 of the row |
//! | UPSERT | key and value | +1 of the row; columns of the key come from the record key |
//! | UPSERT | key, no value (or `null`) | -1 of the key, other columns NULL |
//! | DEBEZIUM | op c, r, u | +1 of `after` |
//! | DEBEZIUM | op d | -1 of the key in `before`, else in the record key |
//! | DEBEZIUM | no value | none |
//!
//! Columns of INCLUDE PARTITION, OFFSET and TIMESTAMP are filled in every row, also in deletions,
//! so that writes of one key can be ordered.
//!
//! JSON values by column type (NULL for `null` and for members that are missing, an error if the
//! column is NOT NULL):
//!
//! | type | read from |
//! | --- | --- |
//! | boolean | `true`, `false`, 0, 1; a string with PostgreSQL's words |
//! | smallint, int, bigint | an integral number (`7`, `7.0`, `7e0`), also in a string |
//! | real, double precision | a number; a string with a number, `NaN`, `Infinity`, `-Infinity` |
//! | numeric(p, s) | a number or a string, exactly; rounded half away from zero to s digits |
//! | varchar | a string; of any other value its JSON text |
//! | bytea | a string, in PostgreSQL's `\x` form or else its UTF-8 bytes |
//! | date | `YYYY-MM-DD`; an integer as days since 1970-01-01 |
//! | time | `HH:MM[:SS[.ffffff]]`; an integer as microseconds since midnight |
//! | timestamp, timestamptz | `YYYY-MM-DD HH:MM:SS[.ffffff]`, also with `T` or a zone; an epoch |
//! | interval | a string; an integer as microseconds |
//! | jsonb | any value |
//! | uuid | a string |
//! | arrays, composite types | an array, an object, of these ([`nested`]) |
//!
//! Kafka Connect's envelope is taken off keys and values, and its schema decides units and
//! encodings ([`connect`]). Where there is none, the source's options and DEBEZIUM's defaults do
//! ([`form`]); [`typed`] has what a value in such a form becomes in each column.
//!
//! Integers are checked for their range; more than p digits of a numeric are an error. A number as
//! timestamp is epoch milliseconds below 10^14, microseconds from there on. Columns of an UPSERT
//! key come from the record key, whatever the value says.
//!
//! Well-formedness of the whole record is checked whatever columns are wanted; what a wanted column
//! cannot hold is an error of that column. It fails the record, since a keyed relation needs its
//! rows whole; of PLAIN JSON the row may be [kept](RecordDecoder::keep_faulty) with NULL there, so
//! that a job that does not read the column does not depend on what others read.

mod base64;
mod column;
mod connect;
pub(crate) mod connect_encode;
mod datetime;
mod debezium;
pub(crate) mod form;
mod json_decode;
pub(crate) mod json_encode;
pub(crate) mod key;
mod nested;
mod number;
mod scan;
#[cfg(test)]
mod tests;
mod typed;

pub use debezium::debezium_envelope;
pub use json_encode::{BoundRows, JsonEncoder};
pub use key::{BoundKeys, KeyEncoder};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use column::ColumnBuilder;
use connect::{Row, RowReader};
use debezium::EventReader;
use form::{Declarations, Form};
use json_decode::{ObjectReader, Rows, Wanted};
use key::KeyReader;
use scan::{Detail, Fault, Scanner};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::RecordError;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Column, ConnectorSpec, Encode, Format, Include};

/// Bytes of payload after which a decoder is full.
const PAYLOAD_MAX: usize = 1 << 30;
/// Bytes of one record; librdkafka's own limit.
const RECORD_MAX: usize = 1_000_000_000;
/// Bytes are no text in UTF-8.
const NOT_IN_ENCODING: SqlState = SqlState("22021");
/// A record, or a part of it, is larger than what can be held.
const LIMIT_EXCEEDED: SqlState = SqlState("54000");
/// Bytes of a record's value that an error keeps.
const ERROR_RAW_MAX: usize = 4096;

/// A record as the broker delivers it, borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRecord<'a> {
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The partition, which is the split.
    pub partition: i32,
    /// The offset in its partition.
    pub offset: i64,
    /// Epoch milliseconds.
    pub timestamp_ms: Option<i64>,
}

/// How a record becomes a row.
#[derive(Debug)]
enum Reading {
    PlainJson(RowReader),
    /// The column that takes the payload, if wanted.
    PlainBytes(Option<usize>),
    UpsertJson(Option<KeyReader>, RowReader),
    UpsertBytes(Option<KeyReader>, Option<usize>),
    Debezium(EventReader),
}

/// Turns records into change batches with the wanted columns.
#[derive(Debug)]
pub struct RecordDecoder {
    reading: Reading,
    rows: Rows,
    /// Weights of the rows; unused for PLAIN.
    weights: Vec<i64>,
    includes: Vec<(usize, Include)>,
    /// Whether an included key is (part of) the PRIMARY KEY.
    key_included: bool,
    errors: Vec<RecordError>,
    /// Rows and columns that hold NULL for a value that could not be read.
    faulty: Vec<(usize, usize)>,
    schema: SchemaRef,
    payload: usize,
}

impl RecordDecoder {
    /// A decoder for records of `spec`, whose relation has `columns`, of which those at `wanted`
    /// are produced, in that order. `0A000` for types and combinations that cannot be read, `22023`
    /// where the format needs a key that is not declared, `42804` for BYTES without its one bytea
    /// column.
    pub fn new(
        spec: &ConnectorSpec,
        columns: &[Column],
        wanted: &[usize],
    ) -> Result<RecordDecoder> {
        let keyed = spec.format != Format::Plain;
        if keyed && spec.key.is_empty() {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                "the format needs a PRIMARY KEY",
            )
            .with_hint("Declare the columns of the record key as PRIMARY KEY."));
        }
        if let Some(bad) = wanted
            .iter()
            .enumerate()
            .find(|(i, w)| **w >= columns.len() || wanted[..*i].contains(w))
        {
            return Err(Error::internal(format!(
                "wanted column {} does not exist or is named twice",
                bad.1
            )));
        }
        let build = |position: &usize| {
            let column = &columns[*position];
            ColumnBuilder::new(
                column,
                column.nullable && !(keyed && spec.key.contains(position)),
            )
        };
        let rows = Rows {
            columns: wanted.iter().map(build).collect::<Result<_>>()?,
            ..Rows::default()
        };
        let field = |position: &usize| {
            let column = &columns[*position];
            Field::new(
                &column.name,
                column.data_type.clone(),
                column.nullable || keyed && !spec.key.contains(position),
            )
        };
        let includes: Vec<(usize, Include)> = spec
            .includes
            .iter()
            .filter_map(|(position, include)| {
                Some((wanted.iter().position(|w| w == position)?, *include))
            })
            .collect();
        Ok(RecordDecoder {
            reading: reading(spec, columns, wanted)?,
            rows,
            weights: Vec::new(),
            includes,
            key_included: spec
                .includes
                .iter()
                .any(|(position, include)| *include == Include::Key && spec.key.contains(position)),
            errors: Vec::new(),
            faulty: Vec::new(),
            schema: Arc::new(Schema::new(wanted.iter().map(field).collect::<Vec<_>>())),
            payload: 0,
        })
    }

    /// Of PLAIN JSON, keeps rows with values that their column cannot hold: NULL takes the place of
    /// such a value, also where the column is NOT NULL, and `take_faulty` names it. What is not
    /// well-formed still fails the record. Does nothing for other formats.
    pub fn keep_faulty(mut self) -> RecordDecoder {
        if matches!(self.reading, Reading::PlainJson(_)) {
            self.rows.lenient = true;
            self.schema = Arc::new(Schema::new(
                self.schema
                    .fields()
                    .iter()
                    .map(|f| f.as_ref().clone().with_nullable(true))
                    .collect::<Vec<_>>(),
            ));
        }
        self
    }

    /// Takes the places of values that could not be read since the last call: row of the next
    /// `finish` and position among the wanted columns. Their errors are among those that `finish`
    /// returns.
    pub fn take_faulty(&mut self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.faulty)
    }

    /// The columns that `finish` returns. Columns beside the key may be NULL for UPSERT and
    /// DEBEZIUM, since deletions hold the key only.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows decoded since the last `finish`.
    pub fn len(&self) -> usize {
        self.rows.rows
    }

    /// Whether there is neither a row nor an error.
    pub fn is_empty(&self) -> bool {
        self.rows.rows == 0 && self.errors.is_empty()
    }

    /// Whether `finish` must be called before the next `push`: a batch holds at most 1 GiB of
    /// payload.
    pub fn is_full(&self) -> bool {
        self.payload > PAYLOAD_MAX
    }

    /// Decodes one record: a row is added, or an error, or neither where the record changes
    /// nothing. Panics when the decoder [is full](Self::is_full).
    #[inline]
    pub fn push(&mut self, record: &RawRecord<'_>) {
        assert!(
            self.payload <= PAYLOAD_MAX,
            "a full decoder must be finished first"
        );
        self.payload +=
            record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, |key| 2 * key.len());
        match self.decode(record) {
            Ok(()) => {}
            Err(fault) => self.fail(record, fault),
        }
    }

    /// Takes the rows and the errors since the last call. The weights are absent where all rows are
    /// insertions.
    pub fn finish(&mut self) -> (ChangeBatch, Vec<RecordError>) {
        let count = std::mem::take(&mut self.rows.rows);
        let arrays = self
            .rows
            .columns
            .iter_mut()
            .map(|column| column.finish(count))
            .collect();
        let batch = RecordBatch::try_new_with_options(
            self.schema.clone(),
            arrays,
            &RecordBatchOptions::new().with_row_count(Some(count)),
        )
        .expect("builders follow the schema and hold one value per row");
        self.payload = 0;
        let weights = std::mem::take(&mut self.weights);
        let changes = if weights.is_empty() {
            ChangeBatch::insert(batch)
        } else {
            ChangeBatch::new(batch, weights)
        };
        (changes, std::mem::take(&mut self.errors))
    }

    fn decode(&mut self, record: &RawRecord<'_>) -> Result<(), Fault> {
        let rows = &mut self.rows;
        let weight = match &mut self.reading {
            Reading::PlainJson(object) => {
                let mut scanner = Scanner::new(text_of(record.value.ok_or_else(no_value)?)?);
                scanner.blanks();
                if object.read(&mut scanner, rows)? == Row::Null {
                    return Err(no_value());
                }
                scanner.end()?;
                if !self.includes.is_empty() {
                    include(&self.includes, false, record, rows)?;
                }
                rows.complete(true)?;
                if !self.rows.faults.is_empty() {
                    self.note_faults(record);
                }
                return Ok(());
            }
            Reading::PlainBytes(column) => {
                read_payload(*column, record.value, rows)?;
                include(&self.includes, false, record, rows)?;
                return rows.complete(true);
            }
            Reading::UpsertJson(key, object) => {
                read_key(key, record, rows)?;
                upsert(object, record.value, rows)?
            }
            Reading::UpsertBytes(key, column) => {
                read_key(key, record, rows)?;
                if record.value.is_some() {
                    read_payload(*column, record.value, rows)?;
                }
                if record.value.is_some() { 1 } else { -1 }
            }
            Reading::Debezium(event) => {
                let Some(value) = record.value else {
                    return Ok(());
                };
                match event.read(text_of(value)?, record.key, rows)? {
                    Some(weight) => weight,
                    None => return Ok(()),
                }
            }
        };
        include(&self.includes, self.key_included, record, rows)?;
        rows.complete(weight > 0)?;
        self.weights.push(weight);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn fail(&mut self, record: &RawRecord<'_>, fault: Fault) {
        self.rows.undo();
        let why = fault.into_detail();
        self.put_down(record, why.column, why);
    }

    /// The row that was completed last has values that could not be read.
    #[cold]
    #[inline(never)]
    fn note_faults(&mut self, record: &RawRecord<'_>) {
        let row = self.rows.rows - 1;
        for (column, why) in std::mem::take(&mut self.rows.faults) {
            self.faulty.push((row, column));
            self.put_down(record, Some(column), why);
        }
    }

    fn put_down(&mut self, record: &RawRecord<'_>, column: Option<usize>, why: Detail) {
        let value = record.value.unwrap_or_default();
        self.errors.push(RecordError {
            split: record.partition as u32,
            offset: record.offset,
            column: column
                .map_or_else(String::new, |column| self.rows.columns[column].name.clone()),
            state: why.state,
            message: why.message,
            raw: value[..value.len().min(ERROR_RAW_MAX)].to_vec(),
        });
    }
}

/// Chooses the reader and tells it its columns.
fn reading(spec: &ConnectorSpec, columns: &[Column], wanted: &[usize]) -> Result<Reading> {
    let included = |position: usize| spec.includes.iter().any(|(column, _)| *column == position);
    let in_key = |position: usize| spec.key.contains(&position);
    let declarations = Declarations::of(spec)?;
    let select = |choose: &dyn Fn(usize) -> bool| -> Arc<[Wanted]> {
        wanted
            .iter()
            .enumerate()
            .filter(|(_, position)| !included(**position) && choose(**position))
            .map(|(at, position)| Wanted {
                at,
                column: columns[*position].clone(),
                declarations,
            })
            .collect()
    };
    // A relation of these columns alone has the envelope itself as its rows.
    let enveloped = (0..columns.len())
        .filter(|position| !included(*position))
        .any(|position| {
            let name = &columns[position].name;
            !name.eq_ignore_ascii_case("schema") && !name.eq_ignore_ascii_case("payload")
        });
    let row_reader =
        |targets| RowReader::new(ObjectReader::new(targets, &Form::Declared), enveloped);
    let key_width = spec
        .key
        .iter()
        .filter(|position| !included(**position))
        .count();
    let key_reader = || KeyReader::new(spec, select(&in_key), key_width);
    let upsert_key = || {
        if key_width == 0 {
            Ok(None)
        } else {
            key_reader().map(Some)
        }
    };
    let upsert_values = || select(&|position| !in_key(position));
    match (spec.format, spec.encode) {
        (Format::Plain, Encode::Json) => Ok(Reading::PlainJson(row_reader(select(&|_| true)))),
        (Format::Plain, Encode::Bytes) => Ok(Reading::PlainBytes(payload_column(
            columns,
            wanted,
            &|position| !included(position),
        )?)),
        (Format::Upsert, Encode::Json) => Ok(Reading::UpsertJson(
            upsert_key()?,
            row_reader(upsert_values()),
        )),
        (Format::Upsert, Encode::Bytes) => Ok(Reading::UpsertBytes(
            upsert_key()?,
            payload_column(columns, wanted, &|position| {
                !included(position) && !in_key(position)
            })?,
        )),
        (Format::Debezium, Encode::Json) => {
            let (after, before) = (select(&|_| true), select(&in_key));
            Ok(Reading::Debezium(EventReader::new(
                after,
                before,
                key_reader()?,
            )))
        }
        (format, encode) => Err(Error::unsupported(format!(
            "records cannot be read as FORMAT {format:?} ENCODE {encode:?}"
        ))),
    }
}

/// The one column of ENCODE BYTES, as its position among the wanted ones.
fn payload_column(
    columns: &[Column],
    wanted: &[usize],
    takes: &dyn Fn(usize) -> bool,
) -> Result<Option<usize>> {
    let candidates: Vec<usize> = (0..columns.len())
        .filter(|position| takes(*position))
        .collect();
    match candidates[..] {
        [position] if columns[position].data_type == DataType::Binary => {
            Ok(wanted.iter().position(|w| *w == position))
        }
        _ => Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            "ENCODE BYTES needs exactly one column of type bytea for the value",
        )),
    }
}

#[inline]
fn text_of(value: &[u8]) -> Result<&str, Fault> {
    if value.len() > RECORD_MAX {
        return Err(Fault::value("the record is too large").with_state(LIMIT_EXCEEDED));
    }
    std::str::from_utf8(value).map_err(|error| {
        Fault::value(format!(
            "the record is not valid UTF-8 at byte {}",
            error.valid_up_to()
        ))
        .with_state(NOT_IN_ENCODING)
    })
}

#[cold]
fn no_value() -> Fault {
    Fault::value("the record has no value")
}

fn read_payload(column: Option<usize>, value: Option<&[u8]>, rows: &mut Rows) -> Result<(), Fault> {
    let Some(column) = column else { return Ok(()) };
    let row = rows.rows;
    match value {
        Some(value) if value.len() > RECORD_MAX => {
            return Err(Fault::value("the record is too large").with_state(LIMIT_EXCEEDED));
        }
        Some(value) => rows.columns[column].push_bytes(row, value),
        None => rows.columns[column].push_given_null(row),
    }
    .map_err(|fault| fault.of_column(column))?;
    rows.count();
    Ok(())
}

fn read_key(
    key: &mut Option<KeyReader>,
    record: &RawRecord<'_>,
    rows: &mut Rows,
) -> Result<(), Fault> {
    match key {
        Some(reader) => reader.read(record.key, rows),
        None => Ok(()),
    }
}

/// Reads the value beside the key; returns the weight.
fn upsert(object: &mut RowReader, value: Option<&[u8]>, rows: &mut Rows) -> Result<i64, Fault> {
    let Some(value) = value else { return Ok(-1) };
    let mut scanner = Scanner::new(text_of(value)?);
    scanner.blanks();
    let weight = if scanner.peek() == b'n' {
        scanner.literal("null")?;
        -1
    } else {
        match object.read(&mut scanner, rows)? {
            Row::Read => 1,
            Row::Null => -1,
        }
    };
    scanner.end()?;
    Ok(weight)
}

/// Fills the columns of INCLUDE.
fn include(
    includes: &[(usize, Include)],
    key_required: bool,
    record: &RawRecord<'_>,
    rows: &mut Rows,
) -> Result<(), Fault> {
    if key_required && record.key.is_none() {
        return Err(Fault::value("the record has no key"));
    }
    let row = rows.rows;
    for &(column, include) in includes {
        let builder = &mut rows.columns[column];
        match (include, record.key, record.timestamp_ms) {
            (Include::Key, Some(key), _) => match builder.push_bytes(row, key) {
                Ok(()) => {}
                Err(fault) if rows.lenient => {
                    rows.null_for(column, fault.into_detail());
                    continue;
                }
                Err(fault) => return Err(fault.of_column(column)),
            },
            (Include::Partition, ..) => builder.push_integer(row, i64::from(record.partition)),
            (Include::Offset, ..) => builder.push_integer(row, record.offset),
            (Include::Timestamp, _, Some(millis)) => {
                builder.push_integer(row, millis.saturating_mul(1_000))
            }
            (Include::Key | Include::Timestamp, ..) => continue,
        }
        rows.count();
    }
    Ok(())
}
