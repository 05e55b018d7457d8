//! Unique indexes of tables: what a statement adds may not make two rows share the columns of one.
//!
//! It is checked when the statement has written, so that an UPDATE may move values around among its
//! rows. Rows that have the added values are found through the index, as readers find them, and in
//! what is not published yet. A NULL equals nothing.

use super::{WriteGuard, encoded_keys, expand_weights};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute;
use std::collections::{HashMap, HashSet};
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::key::encode_columns;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::Relation;
use tidemark_state::consolidate::consolidate;

impl WriteGuard {
    /// The rows with these values in some columns (each combination once), with this guard's own
    /// writes.
    pub fn lookup_by(
        &self,
        table: RelationId,
        by: &[usize],
        values: &[ArrayRef],
    ) -> Result<RecordBatch> {
        let locked = self.locked(table)?;
        let schema = locked.relation.arrow_schema();
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let pin = self.writers.readers.pin_of(&[table]);
        let mut changes = Vec::new();
        for partition in self.writers.partitions(table)? {
            let (epoch, mergeable) = (pin.epoch(), pin.mergeable());
            let found = partition.lookup_by(epoch, mergeable, by, values, &columns)?;
            changes.push(ChangeBatch::insert(found));
        }
        let mut wanted = vec![Vec::new(); values.first().map_or(0, |v| v.len())];
        encode_columns(values, &mut wanted);
        let wanted: HashSet<Vec<u8>> = wanted.into_iter().collect();
        let unpublished = locked.head.after(pin.epoch());
        for batch in unpublished.iter().chain(&locked.changes) {
            let keys = encoded_keys(batch.rows(), by);
            let mask: BooleanArray = keys.iter().map(|k| Some(wanted.contains(k))).collect();
            changes.push(batch.filter(&mask));
        }
        let rows = expand_weights(consolidate(&schema, &changes))?;
        compute::concat_batches(&schema, &rows).map_err(|e| Error::internal(e.to_string()))
    }

    /// `23505` if the changes behind the first `before` have made two rows share the columns of a
    /// unique index.
    pub(super) fn check_indexes(&self, table: RelationId, before: usize) -> Result<()> {
        let locked = self.locked(table)?;
        let catalog = self.writers.published.catalog();
        for (index, columns) in catalog.indexes(&locked.relation) {
            let added = || locked.changes[before..].iter().filter(|c| !c.is_empty());
            if !index.key_declared || added().next().is_none() {
                continue;
            }
            let mut values = Vec::new();
            for changes in added() {
                let comes = (0..changes.num_rows()).map(|row| Some(changes.weight(row) > 0));
                let come = changes.filter(&comes.collect());
                values.push(without_nulls(come.rows(), &columns)?);
            }
            let schema = locked.relation.arrow_schema();
            let rows = compute::concat_batches(&schema, &values).map_err(internal)?;
            let (rows, _) = once_each(&rows, &columns)?;
            if rows.num_rows() == 0 {
                continue;
            }
            let values: Vec<ArrayRef> = columns.iter().map(|c| rows.column(*c).clone()).collect();
            let there = self.lookup_by(table, &columns, &values)?;
            if let (_, Some(twice)) = once_each(&there, &columns)? {
                let (names, values) = shown(&locked.relation, &there, &columns, twice);
                let message = format!(
                    "duplicate key value violates unique constraint \"{}\"",
                    index.name
                );
                return Err(Error::user(SqlState::UNIQUE_VIOLATION, message)
                    .with_detail(format!("Key ({names})=({values}) already exists.")));
            }
        }
        Ok(())
    }

    /// `23505` if two rows of the table share these columns, which an index is to keep unique.
    pub fn check_unique(&self, table: RelationId, name: &str, columns: &[usize]) -> Result<()> {
        let relation = &self.locked(table)?.relation;
        let rows = self.rows(table)?;
        let rows = rows.iter().map(|rows| without_nulls(rows, columns));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let rows = compute::concat_batches(&relation.arrow_schema(), &rows).map_err(internal)?;
        let (_, Some(twice)) = once_each(&rows, columns)? else {
            return Ok(());
        };
        let (names, values) = shown(relation, &rows, columns, twice);
        let message = format!("could not create unique index \"{name}\"");
        Err(Error::user(SqlState::UNIQUE_VIOLATION, message)
            .with_detail(format!("Key ({names})=({values}) is duplicated.")))
    }
}

fn internal(e: arrow::error::ArrowError) -> Error {
    Error::internal(e.to_string())
}

/// The rows that have a NULL in none of these columns.
fn without_nulls(rows: &RecordBatch, columns: &[usize]) -> Result<RecordBatch> {
    let whole = |row: usize| columns.iter().all(|c| rows.column(*c).is_valid(row));
    let mask: BooleanArray = (0..rows.num_rows()).map(|row| Some(whole(row))).collect();
    compute::filter_record_batch(rows, &mask).map_err(internal)
}

/// The first row of each combination of these columns, and a row that is not the first of its own.
fn once_each(rows: &RecordBatch, columns: &[usize]) -> Result<(RecordBatch, Option<usize>)> {
    let keys = encoded_keys(rows, columns);
    let mut firsts: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
    let (mut mask, mut twice) = (Vec::with_capacity(keys.len()), None);
    for (row, key) in keys.iter().enumerate() {
        let is_first = *firsts.entry(key).or_insert(row) == row;
        mask.push(is_first);
        twice = twice.or((!is_first).then_some(row));
    }
    let first = compute::filter_record_batch(rows, &BooleanArray::from(mask)).map_err(internal)?;
    Ok((first, twice))
}

/// Names and values of these columns, as a message has them.
fn shown(
    relation: &Relation,
    rows: &RecordBatch,
    columns: &[usize],
    row: usize,
) -> (String, String) {
    let names: Vec<&str> = columns
        .iter()
        .map(|c| &*relation.columns[*c].name)
        .collect();
    let text = |c: &usize| tidemark_operator::expr::value_text(rows.column(*c), row);
    let values: Vec<String> = columns.iter().map(text).collect();
    (names.join(", "), values.join(", "))
}
