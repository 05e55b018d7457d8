//! A sink's log: what it has emitted and not delivered, as files of a checkpoint.
//!
//! A file is one of a state table with the key (epoch, position): it comes back in that order. The
//! position counts the epoch's changes from 0 in delivery order; the epoch's hash stands in each of
//! its rows. A file holds whole epochs, or a part of an epoch that is larger than a file, cut where
//! [`pieces`] cuts.

use super::queue::Limits;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, pieces};
use tidemark_common::{Epoch, Error, Result};
use tidemark_plan::Relation;
use tidemark_state::{TableDelta, TableForm, TableSpec};

/// Changes of one epoch that follow each other.
#[derive(Clone, Debug)]
pub struct LogPart {
    /// The epoch.
    pub epoch: Epoch,
    /// Where they begin among the epoch's changes.
    pub position: u64,
    /// The hash of the whole epoch.
    pub hash: u64,
    /// The changes.
    pub changes: ChangeBatch,
}

/// Where a file that holds these parts ends: its last epoch, and the position after its last
/// change.
pub fn end_of(parts: &[LogPart]) -> (Epoch, u64) {
    parts.last().map_or((Epoch(0), 0), |part| {
        let end = part.position + part.changes.num_rows() as u64;
        (part.epoch, end)
    })
}

/// Distributes epochs (with hash and changes, in order) over files.
pub fn files(limits: &Limits, epochs: Vec<(Epoch, u64, Vec<ChangeBatch>)>) -> Vec<Vec<LogPart>> {
    let mut files: Vec<Vec<LogPart>> = Vec::new();
    let (mut file, mut rows, mut bytes) = (Vec::new(), 0, 0);
    for (epoch, hash, changes) in epochs {
        let epoch_rows: usize = changes.iter().map(ChangeBatch::num_rows).sum();
        let epoch_bytes: usize = changes.iter().map(ChangeBatch::bytes).sum();
        let fits = rows + epoch_rows <= limits.file_rows_max
            && bytes + epoch_bytes <= limits.file_bytes_max;
        if !fits && !file.is_empty() {
            files.push(std::mem::take(&mut file));
            (rows, bytes) = (0, 0);
        }
        // As many rows as fit, if all of them are of one size.
        let by_bytes =
            (epoch_rows as u128 * limits.file_bytes_max as u128) / epoch_bytes.max(1) as u128;
        let rows_max = limits
            .file_rows_max
            .min(usize::try_from(by_bytes).unwrap_or(usize::MAX));
        let mut position = 0;
        for (i, piece) in pieces(&changes, rows_max).enumerate() {
            if i > 0 {
                files.push(std::mem::take(&mut file));
                (rows, bytes) = (0, 0);
            }
            for changes in piece {
                let begin = position;
                position += changes.num_rows() as u64;
                rows += changes.num_rows();
                bytes += changes.bytes();
                file.push(LogPart {
                    epoch,
                    position: begin,
                    hash,
                    changes,
                });
            }
        }
        // A part of a large epoch shares its file with nothing.
        if position as usize > rows_max {
            files.push(std::mem::take(&mut file));
            (rows, bytes) = (0, 0);
        }
    }
    if !file.is_empty() {
        files.push(file);
    }
    files
}

/// Columns of a sink's log.
pub fn spec(relation: &Relation, table: u32) -> TableSpec {
    let mut fields: Vec<Field> = ["_epoch", "_position", "_hash", "_weight"]
        .iter()
        .map(|name| Field::new(*name, DataType::Int64, false))
        .collect();
    fields.extend(
        relation
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| Field::new(format!("{i}_{}", c.name), c.data_type.clone(), true)),
    );
    TableSpec {
        table,
        form: TableForm::Keyed,
        schema: Arc::new(Schema::new(fields)),
        key_columns: 2,
    }
}

/// The content of one file.
pub fn encode(spec: &TableSpec, parts: &[LogPart]) -> Result<TableDelta> {
    let failed = |e| Error::internal(format!("a sink's log: {e}"));
    let mut batches = Vec::with_capacity(parts.len());
    for part in parts {
        let n = part.changes.num_rows();
        let constant = |v: i64| Arc::new(Int64Array::from(vec![v; n])) as ArrayRef;
        let from = part.position as i64;
        let mut columns: Vec<ArrayRef> = vec![
            constant(part.epoch.0 as i64),
            Arc::new(Int64Array::from_iter_values(from..from + n as i64)),
            constant(part.hash as i64),
            Arc::new(part.changes.weight_column()),
        ];
        columns.extend(part.changes.rows().columns().iter().cloned());
        batches.push(RecordBatch::try_new(spec.schema.clone(), columns).map_err(failed)?);
    }
    let rows = arrow::compute::concat_batches(&spec.schema, &batches).map_err(failed)?;
    let key = Arc::new(Schema::new(spec.schema.fields()[..2].to_vec()));
    Ok(TableDelta {
        upsert_vnodes: vec![0; rows.num_rows()],
        upserts: rows,
        deletes: RecordBatch::new_empty(key),
        delete_vnodes: Vec::new(),
    })
}

/// Splits log rows, which are sorted by epoch and position, into epochs.
pub fn decode(rows: &RecordBatch) -> Result<Vec<LogPart>> {
    let damaged = || Error::corrupt("a sink's log has other columns than it should");
    let int = |i: usize| {
        rows.columns()
            .get(i)
            .and_then(|c| c.as_primitive_opt::<Int64Type>())
            .ok_or_else(damaged)
    };
    let (epochs, positions, hashes, weights) = (int(0)?, int(1)?, int(2)?, int(3)?);
    let values: Vec<usize> = (4..rows.num_columns()).collect();
    let mut parts = Vec::new();
    let mut start = 0;
    for end in 1..=epochs.len() {
        if end == epochs.len() || epochs.value(end) != epochs.value(start) {
            let part = rows
                .slice(start, end - start)
                .project(&values)
                .map_err(|_| damaged())?;
            parts.push(LogPart {
                epoch: Epoch(epochs.value(start) as u64),
                position: positions.value(start) as u64,
                hash: hashes.value(start) as u64,
                changes: ChangeBatch::new(part, weights.values()[start..end].to_vec()),
            });
            start = end;
        }
    }
    Ok(parts)
}
