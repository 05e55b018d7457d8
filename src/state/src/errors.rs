//! The rows of `tidemark.errors` as a part of a checkpoint: one object that holds all that are
//! kept.
//!
//! **Law.** The object of epoch e holds the errors as of the barrier that closed e: those of
//! records and rows of epochs up to e, without those that were taken back by then. Replay begins
//! behind it, so that no error is met twice. The manifest names it with its size and checksum; a
//! checkpoint before which no error came or went names the object of an earlier one. Errors are
//! diagnostics: whoever restores reports an object that is missing or damaged, and goes on without.
//!
//! **Form.** `errors/{generation}-{epoch}.parquet`, plain Parquet, LZ4_RAW, oldest error first:
//! `relation_id` UINT32, `relation` UTF8, `epoch` UINT64, `topic` UTF8, `partition` UINT32,
//! `offset` INT64, `column` UTF8, `sqlstate` UTF8, `message` UTF8, `raw` BINARY, `weight` INT64
//! (how many equal rows failed).

use crate::checkpoint::CheckpointStore;
use arrow::array::*;
use arrow::datatypes::*;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::sync::Arc;
use tidemark_common::{Epoch, Error, RelationId, Result, SplitId, failpoint};

/// Errors that are encoded at a time: raw records of 4 KiB each stay far below what one Arrow array
/// holds.
const BATCH_ROWS: usize = 4096;

/// A row of `tidemark.errors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRow {
    /// The relation's name.
    pub relation: String,
    /// The epoch in which it happened.
    pub epoch: Epoch,
    /// Topic of the record; empty for a failing expression.
    pub topic: String,
    /// The record's split.
    pub split: SplitId,
    /// The record's offset; -1 for a failing expression.
    pub offset: i64,
    /// The column at fault; empty where it is the whole record, or an expression.
    pub column: String,
    /// SQLSTATE.
    pub state: String,
    /// Why, in lower case.
    pub message: String,
    /// The record's value, cut at 4 KiB; of a failing expression the row as text.
    pub raw: Vec<u8>,
}

/// An error and how often its row is there; of a record once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptError {
    /// The relation.
    pub relation: RelationId,
    /// The error.
    pub row: Arc<ErrorRow>,
    /// Above 0.
    pub weight: i64,
}

/// An object of kept errors, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorsFile {
    /// Name within the store.
    pub path: String,
    /// The epoch that it was written for.
    pub epoch: Epoch,
    /// Errors.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the whole object.
    pub crc32: u32,
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("relation_id", DataType::UInt32),
        field("relation", DataType::Utf8),
        field("epoch", DataType::UInt64),
        field("topic", DataType::Utf8),
        field("partition", DataType::UInt32),
        field("offset", DataType::Int64),
        field("column", DataType::Utf8),
        field("sqlstate", DataType::Utf8),
        field("message", DataType::Utf8),
        field("raw", DataType::Binary),
        field("weight", DataType::Int64),
    ]))
}

/// The bytes of an object.
pub fn encode_errors(errors: &[KeptError]) -> Result<Bytes> {
    let failed = |e: &dyn Display| Error::internal(format!("encoding the kept errors: {e}"));
    let properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), schema(), Some(properties)).map_err(|e| failed(&e))?;
    for part in errors.chunks(BATCH_ROWS) {
        let text = |of: &dyn Fn(&ErrorRow) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(
                part.iter().map(|e| of(&e.row)),
            ))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(
                part.iter().map(|e| e.relation.0),
            )),
            text(&|row| &row.relation),
            Arc::new(UInt64Array::from_iter_values(
                part.iter().map(|e| e.row.epoch.0),
            )),
            text(&|row| &row.topic),
            Arc::new(UInt32Array::from_iter_values(
                part.iter().map(|e| e.row.split),
            )),
            Arc::new(Int64Array::from_iter_values(
                part.iter().map(|e| e.row.offset),
            )),
            text(&|row| &row.column),
            text(&|row| &row.state),
            text(&|row| &row.message),
            Arc::new(BinaryArray::from_iter_values(
                part.iter().map(|e| e.row.raw.as_slice()),
            )),
            Arc::new(Int64Array::from_iter_values(part.iter().map(|e| e.weight))),
        ];
        let batch = RecordBatch::try_new(schema(), columns).map_err(|e| failed(&e))?;
        writer.write(&batch).map_err(|e| failed(&e))?;
    }
    writer.into_inner().map(Bytes::from).map_err(|e| failed(&e))
}

/// Reads what [`encode_errors`] made.
pub fn decode_errors(bytes: impl Into<Bytes>) -> Result<Vec<KeptError>> {
    let damaged = |e: &dyn Display| Error::corrupt(format!("errors cannot be read: {e}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.into())
        .and_then(|b| b.build())
        .map_err(|e| damaged(&e))?;
    let mut errors = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| damaged(&e))?;
        let types = |schema: &Schema| {
            schema
                .fields()
                .iter()
                .map(|f| (f.name().clone(), f.data_type().clone()))
                .collect::<Vec<_>>()
        };
        if types(&batch.schema()) != types(&schema()) {
            return Err(damaged(&"they have other columns"));
        }
        let text = |column: usize, row: usize| {
            batch
                .column(column)
                .as_string::<i32>()
                .value(row)
                .to_string()
        };
        let (relation, split) = (
            batch.column(0).as_primitive::<UInt32Type>(),
            batch.column(4).as_primitive::<UInt32Type>(),
        );
        let (offset, weight) = (
            batch.column(5).as_primitive::<Int64Type>(),
            batch.column(10).as_primitive::<Int64Type>(),
        );
        let (epoch, raw) = (
            batch.column(2).as_primitive::<UInt64Type>(),
            batch.column(9).as_binary::<i32>(),
        );
        errors.extend((0..batch.num_rows()).map(|i| KeptError {
            relation: RelationId(relation.value(i)),
            row: Arc::new(ErrorRow {
                relation: text(1, i),
                epoch: Epoch(epoch.value(i)),
                topic: text(3, i),
                split: split.value(i),
                offset: offset.value(i),
                column: text(6, i),
                state: text(7, i),
                message: text(8, i),
                raw: raw.value(i).to_vec(),
            }),
            weight: weight.value(i),
        }));
    }
    Ok(errors)
}

impl CheckpointStore {
    /// Writes what [`encode_errors`] made of `rows` errors as of `epoch`. The same call again is
    /// harmless; another content under that name is an error.
    pub async fn write_errors(
        &self,
        epoch: Epoch,
        generation: u64,
        rows: u64,
        bytes: Bytes,
    ) -> Result<ErrorsFile> {
        let file = ErrorsFile {
            path: format!("errors/{generation}-{epoch}.parquet"),
            epoch,
            rows,
            bytes: bytes.len() as u64,
            crc32: crc32fast::hash(&bytes),
        };
        failpoint::check("checkpoint.errors")?;
        self.put_new(&file.path, bytes).await?;
        Ok(file)
    }

    /// Reads an object of kept errors, oldest first; a missing or damaged one is an error that
    /// names it.
    pub async fn read_errors(&self, file: &ErrorsFile) -> Result<Vec<KeptError>> {
        let bytes = self.get_whole(&file.path, file.bytes, file.crc32).await?;
        decode_errors(bytes).map_err(|e| e.context(&file.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::owner::{Claim, Lineage};
    use crate::manifest::Manifest;

    fn error(n: usize) -> KeptError {
        let row = ErrorRow {
            relation: "s".into(),
            epoch: Epoch(7),
            topic: "t".into(),
            split: 3,
            offset: n as i64 - 1,
            column: if n == 0 { "".into() } else { "x".into() },
            state: "22P02".into(),
            message: format!("no. {n}"),
            raw: vec![0xff; n % 5],
        };
        KeptError {
            relation: RelationId(4),
            row: Arc::new(row),
            weight: 1 + n as i64 % 3,
        }
    }

    async fn write(store: &CheckpointStore, epoch: u64, errors: &[KeptError]) -> ErrorsFile {
        store
            .write_errors(
                Epoch(epoch),
                2,
                errors.len() as u64,
                encode_errors(errors).unwrap(),
            )
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_damage_is_named() {
        let folder = std::env::temp_dir().join(format!("tidemark-errors-{}", std::process::id()));
        let store = CheckpointStore::open(&format!("file://{}", folder.display())).unwrap();
        let errors: Vec<KeptError> = (0..BATCH_ROWS + 10).map(error).collect();
        let file = write(&store, 9, &errors).await;
        assert_eq!(
            (file.path.as_str(), file.rows),
            ("errors/2-9.parquet", errors.len() as u64)
        );
        assert_eq!(
            write(&store, 9, &errors).await,
            file,
            "the same again is harmless"
        );
        assert_eq!(store.read_errors(&file).await.unwrap(), errors);
        let other = store
            .write_errors(Epoch(9), 2, 0, encode_errors(&[]).unwrap())
            .await
            .unwrap_err();
        assert_eq!(
            other.message(),
            "checkpoint file errors/2-9.parquet exists with other content"
        );
        let mut bytes = std::fs::read(folder.join(&file.path)).unwrap();
        bytes[100] ^= 1;
        std::fs::write(folder.join(&file.path), bytes).unwrap();
        assert_eq!(
            store.read_errors(&file).await.unwrap_err().message(),
            "checkpoint file errors/2-9.parquet is damaged"
        );
        std::fs::remove_file(folder.join(&file.path)).unwrap();
        assert_eq!(
            store.read_errors(&file).await.unwrap_err().message(),
            "checkpoint file errors/2-9.parquet is missing"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn what_no_retained_manifest_names_is_deleted() {
        let store = CheckpointStore::open("memory:").unwrap();
        let (old, kept, made) = (
            write(&store, 3, &[error(1)]).await,
            write(&store, 5, &[error(2)]).await,
            write(&store, 8, &[error(3)]).await,
        );
        // The checkpoint of epoch 7 names the object of an earlier one; that of epoch 8 is in the
        // making.
        let manifest = Manifest {
            epoch: Epoch(7),
            errors: Some(kept.clone()),
            ..Manifest::default()
        };
        let lineage = Lineage::new(
            Claim {
                generation: 3,
                ..Claim::default()
            },
            [],
        );
        assert_eq!(
            store
                .collect(std::slice::from_ref(&manifest), Epoch(7), &lineage)
                .await
                .unwrap(),
            1
        );
        assert_eq!(
            store.read_errors(&old).await.unwrap_err().message(),
            "checkpoint file errors/2-3.parquet is missing"
        );
        assert_eq!(store.read_errors(&kept).await.unwrap(), [error(2)]);
        assert_eq!(store.read_errors(&made).await.unwrap(), [error(3)]);
        let manifest = Manifest {
            epoch: Epoch(9),
            ..manifest
        };
        assert_eq!(
            store
                .collect(&[manifest], Epoch(9), &lineage)
                .await
                .unwrap(),
            1
        );
        assert_eq!(store.read_errors(&kept).await.unwrap(), [error(2)]);
    }
}
