//! A sink into a table: its receiver is this database.
//!
//! **Law.** What it delivers is a write like any other: resolved under the table's lock against all
//! earlier writes, and logged in one entry together with the sink's marker. So the log is the
//! transaction: rows and marker are there, or neither, and whoever takes over reads the marker of
//! the log ([`Readers::marker`]).
//!
//! In a table with a key a change of the query is a change of the row of its key: rows that come
//! are written as an INSERT writes them (by the table's ON CONFLICT), and a row that goes, with no
//! other of its key coming in the same epoch, is deleted. In a table without a key rows are added.
//! Columns that the sink does not send have their defaults. A row that the table refuses (NULL
//! where none may be, a key or value that is taken) is left out and told, or stops the delivery, as
//! the sink's `on_error` says.

use crate::locks::Writer;
use crate::writes::{NewKeys, TableWriters, WriteGuard};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute;
use arrow::datatypes::{Field, Schema};
use std::collections::HashSet;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{
    Delivered, Refusal, SinkContent, SinkDelivery, SinkEpoch, SinkMarker, SinkWriter,
};
use tidemark_changelog::key::encode_columns;
use tidemark_common::{Error, ErrorKind, Result, SqlState, machine};
use tidemark_control::Readers;
use tidemark_plan::{Format, IntoTable, OnError, Relation};
use tidemark_state::added::{missing_at, repeated};

/// See the module.
pub(super) struct TableSink {
    writers: Arc<TableWriters>,
    readers: Arc<Readers>,
    sink: Arc<Relation>,
    into: IntoTable,
}

impl TableSink {
    /// Of a sink into a table; none of another one.
    pub(super) fn of(
        sink: &Arc<Relation>,
        writers: &Arc<TableWriters>,
        readers: &Arc<Readers>,
    ) -> Option<TableSink> {
        Some(TableSink {
            writers: writers.clone(),
            readers: readers.clone(),
            sink: sink.clone(),
            into: sink.into_table()?,
        })
    }

    /// Rows of the sink as rows of the table.
    fn shaped(&self, table: &Relation, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let column = |(at, column): (usize, &tidemark_plan::Column)| -> Result<ArrayRef> {
            if let Some(sent) = self.into.columns.iter().position(|c| *c == at) {
                return Ok(rows.column(sent).clone());
            }
            let default = self.into.defaults.iter().find(|(c, _)| *c == at);
            let value = match default {
                Some((_, text)) => tidemark_state::added::decode(text, &column.data_type),
                // One that came after the sink.
                None if column.default.is_some() => missing_at(table, at),
                None => None,
            };
            Ok(match value {
                Some(value) => repeated(&value, count),
                None => new_null_array(&column.data_type, count),
            })
        };
        let columns = table.columns.iter().enumerate().map(column);
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let fields = table.columns.iter().zip(&columns);
        let fields = fields.map(|(c, array)| Field::new(&c.name, array.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, columns).map_err(|e| Error::internal(e.to_string()))
    }

    /// Writes an epoch's changes; the rows that the table refuses.
    fn write(
        &self,
        guard: &mut WriteGuard,
        table: &Relation,
        epoch: &SinkEpoch,
    ) -> Result<Vec<Refusal>> {
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for changes in &epoch.changes {
            come.push(self.shaped(table, &rows_that(changes, 1))?);
            gone.push(self.shaped(table, &rows_that(changes, -1))?);
        }
        let mut refused = Vec::new();
        for rows in &mut come {
            let (fit, others) = apart(table, rows)?;
            for (row, error) in others {
                refused.push(self.refusal(epoch, rows, row, &error)?);
            }
            *rows = fit;
        }
        let deleted = self.deleted(guard, table, &come, &gone)?;
        let keys = match table.append_only {
            true => NewKeys::Free,
            false => NewKeys::Any,
        };
        let id = self.into.table;
        match guard.write(id, &deleted, &come, keys) {
            Ok(_) => return Ok(refused),
            Err(error) if !is_refused(&error) => return Err(error),
            Err(_) => {}
        }
        // One of them is refused for what is in the table: each for itself.
        guard.write(id, &deleted, &[], NewKeys::Any)?;
        for rows in &come {
            for row in 0..rows.num_rows() {
                match guard.write(id, &[], &[rows.slice(row, 1)], keys) {
                    Ok(_) => {}
                    Err(error) if is_refused(&error) => {
                        refused.push(self.refusal(epoch, rows, row, &error)?);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(refused)
    }

    /// The rows of keys that go and do not come.
    fn deleted(
        &self,
        guard: &WriteGuard,
        table: &Relation,
        come: &[RecordBatch],
        gone: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>> {
        let adds = self.sink.connector.as_ref().map(|c| c.format) == Some(Format::Plain);
        if table.key.is_empty() || adds {
            return Ok(Vec::new());
        }
        let mut seen: HashSet<Vec<u8>> = come.iter().flat_map(|r| keys_of(table, r)).collect();
        let mut deleted = Vec::new();
        for rows in gone {
            let keys = keys_of(table, rows).into_iter().zip(0..);
            let only: Vec<u32> = keys
                .filter_map(|(key, row)| seen.insert(key).then_some(row))
                .collect();
            if only.is_empty() {
                continue;
            }
            let only = UInt32Array::from(only);
            let key = |k: &usize| compute::take(rows.column(*k), &only, None);
            let key = table.key.iter().map(key).collect::<Result<Vec<_>, _>>();
            let key = key.map_err(|e| Error::internal(e.to_string()))?;
            deleted.push(guard.lookup(self.into.table, &key)?);
        }
        Ok(deleted)
    }

    /// That a row is left out; the error itself where it may not be.
    fn refusal(
        &self,
        epoch: &SinkEpoch,
        rows: &RecordBatch,
        row: usize,
        error: &Error,
    ) -> Result<Refusal> {
        if self.sink.on_error == OnError::Fail {
            return Err(error.clone());
        }
        let text = |column: &ArrayRef| {
            let text = arrow::util::display::array_value_to_string(column, row);
            text.unwrap_or_default()
        };
        let record = rows.columns().iter().map(text).collect::<Vec<_>>();
        let mut record = record.join(", ");
        record
            .truncate(record.floor_char_boundary(tidemark_changelog::connector::REFUSAL_BYTES_MAX));
        Ok(Refusal {
            epoch: epoch.epoch,
            record: record.into_bytes(),
            reason: error.message().to_string(),
        })
    }

    async fn deliver_in_one(&self, delivery: &SinkDelivery) -> Result<Delivered> {
        let (epochs, after) = match &delivery.content {
            SinkContent::Epochs(all) => (all.as_slice(), delivery.marker_after(all.len(), 0)),
            SinkContent::Part { part, .. } => {
                let after = delivery.marker_after(0, part.num_rows() as u64);
                (std::slice::from_ref(part), after)
            }
        };
        let writer = Writer {
            session: 0,
            lock_timeout: None,
        };
        let table = self.into.table;
        let guard = self.writers.begin_write(&[table], writer).await;
        let mut guard = guard.map_err(not_now)?;
        let relation = guard.relation(table)?;
        let mut refused = Vec::new();
        for epoch in epochs {
            refused.extend(self.write(&mut guard, &relation, epoch)?);
        }
        let marker = after.refusing(&delivery.before.refused, &refused);
        let told = (self.sink.id, marker.clone());
        guard.commit_delivered(told).await.map_err(not_now)?;
        Ok(Delivered { marker, refused })
    }
}

impl SinkWriter for TableSink {
    fn recover(&mut self) -> Result<Option<SinkMarker>> {
        Ok(self.readers.marker(self.sink.id))
    }

    fn deliver(&mut self, delivery: &SinkDelivery) -> Result<Delivered> {
        machine::block_on(self.deliver_in_one(delivery))
    }
}

/// A table that cannot be written now is tried again: it is held by others, its job does not run,
/// or there is no room.
fn not_now(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Corrupt => error,
        _ => Error::unavailable(error.state(), error.message().to_string()),
    }
}

/// Whether a table refuses rows for what they are.
fn is_refused(error: &Error) -> bool {
    error.kind() == ErrorKind::User && error.state().0.starts_with("23")
}

/// The rows that come, or those that go, each as often as it does.
pub(crate) fn rows_that(changes: &ChangeBatch, sign: i64) -> RecordBatch {
    let times = |row: &u32| (changes.weight(*row as usize) * sign).max(0) as usize;
    let rows = 0..changes.num_rows() as u32;
    let rows = rows.flat_map(|row| std::iter::repeat_n(row, times(&row)));
    changes
        .take(&UInt32Array::from(rows.collect::<Vec<_>>()))
        .rows()
        .clone()
}

/// Rows of which no column is NULL that may not be, and the others with why not.
fn apart(table: &Relation, rows: &RecordBatch) -> Result<(RecordBatch, Vec<(usize, Error)>)> {
    let mut columns = table.columns.iter().zip(rows.columns());
    if columns.all(|(c, array)| c.nullable || array.null_count() == 0) {
        return Ok((rows.clone(), Vec::new()));
    }
    let (mut fit, mut others) = (Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        let mut columns = table.columns.iter().zip(rows.columns());
        match columns.find(|(c, array)| !c.nullable && array.is_null(row)) {
            None => fit.push(row as u32),
            Some((column, _)) => {
                let message = format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, table.name
                );
                let error = Error::user(SqlState::NOT_NULL_VIOLATION, message);
                others.push((row, error));
            }
        }
    }
    let fit = compute::take_record_batch(rows, &UInt32Array::from(fit));
    Ok((fit.map_err(|e| Error::internal(e.to_string()))?, others))
}

fn keys_of(table: &Relation, rows: &RecordBatch) -> Vec<Vec<u8>> {
    let columns: Vec<ArrayRef> = table.key.iter().map(|k| rows.column(*k).clone()).collect();
    let mut keys = vec![Vec::new(); rows.num_rows()];
    encode_columns(&columns, &mut keys);
    keys
}
