//! How changes travel over one link: in Arrow IPC streams, one for each schema. So a schema is sent
//! once, and a batch is little more than its columns.
//!
//! ```text
//! stream u32 | weights u8 | length of faulty u32 | faulty, JSON | length u32 | of the stream
//! ```
//!
//! Little-endian. Streams are numbered in the order in which they begin. Weights are the last
//! column of streams that have them. A batch without a byte of columns stands apart from all
//! streams, in the form that changes have in the log.

use super::unreadable;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::{IpcWriteOptions, StreamEncoder};
use bytes::{Buf, BufMut};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::config::Compression;
use tidemark_common::{Error, Result};
use tidemark_control::wire;

/// The column of weights.
const WEIGHT: &str = "_weight";
/// In place of a stream's number: the batch stands apart.
const APART: u32 = u32::MAX;

/// The end of a link that sends changes.
pub(super) struct BatchWriter {
    options: IpcWriteOptions,
    /// By schema, and whether there are weights.
    streams: HashMap<(SchemaRef, bool), Stream>,
}

struct Stream {
    number: u32,
    /// With the weights.
    schema: SchemaRef,
    encoder: StreamEncoder,
}

/// The end of a link at which changes arrive.
#[derive(Default)]
pub(super) struct BatchReader {
    streams: Vec<Incoming>,
}

#[derive(Default)]
struct Incoming {
    decoder: StreamDecoder,
    /// Without the weights; known from the first batch on.
    rows: Option<SchemaRef>,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!(
        "changes for another node cannot be encoded: {error}"
    ))
}

fn put_length(length: usize, into: &mut Vec<u8>) -> Result<()> {
    into.put_u32_le(u32::try_from(length).map_err(failed)?);
    Ok(())
}

impl BatchWriter {
    pub(super) fn new(compression: Compression) -> BatchWriter {
        let codec = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
        };
        let options = IpcWriteOptions::default().try_with_compression(codec);
        BatchWriter {
            options: options.expect("this build has the codec"),
            streams: HashMap::new(),
        }
    }

    /// Appends changes to a frame.
    pub(super) fn put(&mut self, changes: &ChangeBatch, into: &mut Vec<u8>) -> Result<()> {
        let faulty = match changes.faulty() {
            None => Vec::new(),
            Some(faulty) => serde_json::to_vec(&faulty[..]).map_err(failed)?,
        };
        // A view of bytes that is a part of another one holds all that the whole one has.
        let changes = &changes.compacted();
        if changes.is_empty() || changes.rows().num_columns() == 0 {
            into.put_u32_le(APART);
            into.put_u8(0);
            put_length(faulty.len(), into)?;
            into.extend_from_slice(&faulty);
            let mut bytes = Vec::new();
            wire::encode_changes(changes, &mut bytes)?;
            put_length(bytes.len(), into)?;
            into.extend_from_slice(&bytes);
            return Ok(());
        }
        let stream = self.stream(changes)?;
        into.put_u32_le(stream.number);
        into.put_u8(changes.weights().is_some().into());
        put_length(faulty.len(), into)?;
        into.extend_from_slice(&faulty);
        let mut columns = changes.rows().columns().to_vec();
        if changes.weights().is_some() {
            columns.push(Arc::new(changes.weight_column()));
        }
        let batch = RecordBatch::try_new(stream.schema.clone(), columns).map_err(failed)?;
        let buffers = stream.encoder.encode(&batch).map_err(failed)?;
        put_length(buffers.iter().map(Buffer::len).sum(), into)?;
        for buffer in buffers {
            into.extend_from_slice(&buffer);
        }
        Ok(())
    }

    /// The stream for changes like these.
    fn stream(&mut self, changes: &ChangeBatch) -> Result<&mut Stream> {
        let number = self.streams.len() as u32;
        let key = (changes.schema(), changes.weights().is_some());
        let options = self.options.clone();
        let begin = |(rows, has_weights): &(SchemaRef, bool)| {
            let mut fields: Vec<_> = rows.fields().iter().cloned().collect();
            if *has_weights {
                fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
            }
            let schema = Arc::new(Schema::new(fields));
            let encoder = StreamEncoder::try_new_with_options(&schema, options);
            Ok::<_, Error>(Stream {
                number,
                schema,
                encoder: encoder.map_err(failed)?,
            })
        };
        use std::collections::hash_map::Entry;
        Ok(match self.streams.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let stream = begin(new.key())?;
                new.insert(stream)
            }
        })
    }
}

impl BatchReader {
    /// Takes changes from the front of what is left of a frame.
    pub(super) fn take(&mut self, from: &mut &[u8]) -> Result<ChangeBatch> {
        let number = from.try_get_u32_le().map_err(unreadable)?;
        let has_weights = from.try_get_u8().map_err(unreadable)? != 0;
        let faulty = match take_bytes(from)? {
            [] => Vec::new(),
            faulty => serde_json::from_slice(faulty).map_err(unreadable)?,
        };
        let bytes = take_bytes(from)?;
        let changes = match number {
            APART => wire::decode_changes(bytes)?,
            number => self.decode(number as usize, has_weights, bytes)?,
        };
        Ok(changes.with_faulty(faulty))
    }

    fn decode(&mut self, number: usize, has_weights: bool, bytes: &[u8]) -> Result<ChangeBatch> {
        if number == self.streams.len() {
            self.streams.push(Incoming::default());
        }
        let stream = self.streams.get_mut(number);
        let stream = stream.ok_or_else(|| unreadable(format!("stream {number} has not begun")))?;
        // Memory of its own, in which columns are aligned: they stay there.
        let mut buffer = Buffer::from_slice_ref(bytes);
        let batch = stream.decoder.decode(&mut buffer).map_err(unreadable)?;
        let batch = batch.filter(|_| buffer.is_empty());
        let batch = batch.ok_or_else(|| unreadable("a batch is cut off"))?;
        if !has_weights {
            return Ok(ChangeBatch::insert(batch));
        }
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        let weights = columns.pop();
        let weights = weights.as_ref().and_then(|w| w.as_any().downcast_ref());
        let weights: &Int64Array = weights.ok_or_else(|| unreadable("weights are missing"))?;
        if weights.null_count() > 0 {
            return Err(unreadable("a weight is missing"));
        }
        let rows = stream.rows.get_or_insert_with(|| {
            Arc::new(Schema::new(
                batch.schema_ref().fields()[..columns.len()].to_vec(),
            ))
        });
        let count = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(rows.clone(), columns, &count);
        let weights = weights.values().to_vec();
        Ok(ChangeBatch::new(rows.map_err(unreadable)?, weights))
    }
}

/// What follows its length.
fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = from.try_get_u32_le().map_err(unreadable)? as usize;
    let cut_off = || unreadable("changes are cut off");
    let (bytes, rest) = from.split_at_checked(length).ok_or_else(cut_off)?;
    *from = rest;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, StringArray, StringViewArray};
    use arrow::compute::concat_batches;

    fn rows(names: &[Option<&str>]) -> RecordBatch {
        let numbers = 0..names.len() as i128;
        let decimals = Decimal128Array::from_iter_values(numbers);
        let decimals = decimals.with_precision_and_scale(38, 2).unwrap();
        let columns: [(&str, ArrayRef); 3] = [
            ("name", Arc::new(StringArray::from(names.to_vec()))),
            ("view", Arc::new(StringViewArray::from(names.to_vec()))),
            ("d", Arc::new(decimals)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn is_same(sent: &ChangeBatch, arrived: &ChangeBatch) {
        assert_eq!(sent.rows().columns(), arrived.rows().columns());
        let fields = |changes: &ChangeBatch| changes.schema().fields().clone();
        assert_eq!(fields(sent), fields(arrived));
        assert_eq!(sent.weights(), arrived.weights());
        assert_eq!(sent.faulty(), arrived.faulty());
    }

    #[test]
    fn batches_of_many_schemas_arrive_as_they_were() {
        let all = rows(&[
            Some("a"),
            None,
            Some("a name that is longer than a view holds"),
            Some(""),
        ]);
        let plain = ChangeBatch::insert(all.clone());
        let weighted = ChangeBatch::new(all.clone(), vec![1, -1, 3, 1]);
        // A column of a user's may have the name of the weights.
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        let named_so = RecordBatch::try_from_iter([(WEIGHT, column)]).unwrap();
        let bare = RecordBatchOptions::new().with_row_count(Some(3));
        let bare =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &bare).unwrap();
        let sent = [
            plain.clone(),
            weighted.clone(),
            plain.slice(1, 2),
            weighted.slice(2, 2),
            plain.project(&[1]),
            plain.clone().with_faulty(vec![(0, 1), (3, 2)]),
            plain.slice(0, 0),
            ChangeBatch::insert(named_so.clone()),
            ChangeBatch::new(named_so.clone(), vec![2, -1]),
            ChangeBatch::insert(bare.clone()),
            ChangeBatch::new(bare, vec![1, 2, -3]),
            plain,
        ];
        for compression in [Compression::None, Compression::Lz4] {
            let (mut writer, mut reader) = (BatchWriter::new(compression), BatchReader::default());
            for _ in 0..3 {
                let mut frame = Vec::new();
                for changes in &sent {
                    writer.put(changes, &mut frame).unwrap();
                }
                let mut rest = &frame[..];
                for changes in &sent {
                    is_same(changes, &reader.take(&mut rest).unwrap());
                }
                assert!(rest.is_empty());
            }
            assert_eq!(writer.streams.len(), 5);
        }
    }

    #[test]
    fn a_schema_is_sent_once_and_a_part_is_not_sent_as_the_whole() {
        let many = concat_batches(
            &rows(&[]).schema(),
            &vec![rows(&[Some(&"x".repeat(100))]); 500],
        );
        let many = ChangeBatch::insert(many.unwrap());
        let mut writer = BatchWriter::new(Compression::None);
        let mut size = |changes: &ChangeBatch| {
            let mut frame = Vec::new();
            writer.put(changes, &mut frame).unwrap();
            frame.len()
        };
        let (first, second) = (size(&many), size(&many));
        assert!(second < first, "{second} of {first} bytes");
        assert!(size(&many.slice(7, 1)) < 2000);
        let mut frame = Vec::new();
        BatchWriter::new(Compression::Lz4)
            .put(&many, &mut frame)
            .unwrap();
        assert!(
            frame.len() < second / 10,
            "{} of {second} bytes",
            frame.len()
        );
    }

    #[test]
    fn what_is_cut_off_or_of_no_stream_is_refused() {
        let (mut writer, mut frame) = (BatchWriter::new(Compression::None), Vec::new());
        let changes = ChangeBatch::new(rows(&[Some("a"), None]), vec![1, -1]);
        writer.put(&changes, &mut frame).unwrap();
        for end in 0..frame.len() {
            assert!(BatchReader::default().take(&mut &frame[..end]).is_err());
        }
        frame[..4].copy_from_slice(&7_u32.to_le_bytes());
        assert!(BatchReader::default().take(&mut &frame[..]).is_err());
    }
}
