//! Which columns of a relation a batch holds, and how a reader gets those that it wants.

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};

/// Picks `columns` of a relation from a batch that holds its columns `produced`, under the names of
/// `schema`. Rows of which one of these columns could not be read are left out; what could not be
/// read of the others does not matter.
pub fn pick(
    batch: &ChangeBatch,
    produced: &[usize],
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<ChangeBatch> {
    let mut picked = Vec::with_capacity(columns.len());
    for column in columns {
        let at = produced
            .iter()
            .position(|p| p == column)
            .ok_or_else(|| Error::internal(format!("column {column} is not produced")))?;
        picked.push(batch.column(at).clone());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), picked, &options)
        .map_err(|e| Error::internal(format!("a tap's columns do not fit: {e}")))?;
    let picked = ChangeBatch::with_weights(rows, batch.weights().cloned());
    Ok(match batch.faulty() {
        None => picked,
        Some(faulty) => leave_out(&picked, faulty, |column| columns.contains(&column)),
    })
}

/// Leaves out the rows with a value of such a column that could not be read.
pub fn leave_out(
    batch: &ChangeBatch,
    faulty: &[(usize, usize)],
    column: impl Fn(usize) -> bool,
) -> ChangeBatch {
    let mut keep = vec![true; batch.num_rows()];
    faulty
        .iter()
        .filter(|(_, c)| column(*c))
        .for_each(|(row, _)| keep[*row] = false);
    if keep.iter().all(|k| *k) {
        batch.clone()
    } else {
        batch.filter(&BooleanArray::from(keep))
    }
}

/// The same columns, all nullable: what flows may always hold NULL.
pub fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect::<Vec<_>>(),
    ))
}
