//! The serialised form of changes in the log: an Arrow IPC stream of one batch, with their weights
//! as its last column.

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};

const WEIGHT: &str = "_weight";
/// In the rows' metadata: where a value stands that could not be read.
const FAULTY: &str = "tidemark.faulty";

/// Appends the serialised form.
pub(crate) fn encode_changes(changes: &ChangeBatch, into: &mut Vec<u8>) -> Result<()> {
    let failed = |e: arrow::error::ArrowError| {
        Error::internal(format!("written rows cannot be encoded: {e}"))
    };
    let mut fields: Vec<_> = changes.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
    let mut columns = changes.rows().columns().to_vec();
    columns.push(Arc::new(changes.weight_column()));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)?;
    let schema = match changes.faulty() {
        None => batch.schema(),
        Some(faulty) => {
            let text = serde_json::to_string(&faulty[..])
                .map_err(|e| Error::internal(format!("written rows cannot be encoded: {e}")))?;
            let fields = batch.schema().fields().clone();
            Arc::new(Schema::new_with_metadata(
                fields,
                [(FAULTY.into(), text)].into(),
            ))
        }
    };
    let batch = batch.with_schema(schema).map_err(failed)?;
    let mut writer = StreamWriter::try_new(into, &batch.schema()).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.finish().map_err(failed)
}

/// The inverse of [`encode_changes`].
pub(crate) fn decode_changes(bytes: &[u8]) -> Result<ChangeBatch> {
    let damaged =
        |e: arrow::error::ArrowError| Error::corrupt(format!("log entry: written rows: {e}"));
    let batch = StreamReader::try_new(bytes, None)
        .map_err(damaged)?
        .next()
        .ok_or_else(|| Error::corrupt("log entry: written rows are missing"))?
        .map_err(damaged)?;
    let columns = batch.num_columns() - 1;
    let weights = batch
        .column(columns)
        .as_any()
        .downcast_ref::<Int64Array>()
        .ok_or_else(|| Error::corrupt("log entry: written rows have no weights"))?
        .values()
        .to_vec();
    let faulty = match batch.schema().metadata().get(FAULTY) {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::corrupt(format!("log entry: written rows: {e}")))?,
    };
    // The rows' own schema has no metadata.
    let fields = batch.schema().fields()[..columns].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        batch.columns()[..columns].to_vec(),
        &options,
    )
    .map_err(damaged)?;
    Ok(ChangeBatch::new(rows, weights).with_faulty(faulty))
}
