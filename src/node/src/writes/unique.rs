//! Unique indexes of tables: what a statement adds may not make two rows share the columns of one.
//!
//! It is checked when the statement has written, so that an UPDATE may move values around among its
//! rows. Rows that have the added values are found through the index, as readers find them, and in
//! what is not published yet. A NULL equals nothing; 1.0 equals 1.00.

use super::{Locked, WriteGuard, expand_weights};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::DataType;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::key::encode_columns;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_operator::expr::value_text;
use tidemark_operator::functions::cast_array;
use tidemark_plan::{Catalog, Relation};
use tidemark_state::comparable::comparables;
use tidemark_state::consolidate::consolidate;

/// The unique indexes of a table, kept from one write to the next: they are looked for among all
/// relations when the catalog has changed.
#[derive(Default)]
pub(super) struct UniqueIndexes {
    catalog: Weak<Catalog>,
    found: Arc<[UniqueIndex]>,
}

/// One of them.
pub(super) struct UniqueIndex {
    name: String,
    columns: Vec<usize>,
}

impl UniqueIndexes {
    /// Those that a catalog has of this table.
    fn of(&mut self, catalog: &Arc<Catalog>, table: &Relation) -> Arc<[UniqueIndex]> {
        if !std::ptr::eq(self.catalog.as_ptr(), Arc::as_ptr(catalog)) {
            let found = catalog.unique_indexes(table);
            let found = found.map(|(index, columns)| UniqueIndex {
                name: index.name.clone(),
                columns,
            });
            (self.catalog, self.found) = (Arc::downgrade(catalog), found.collect());
        }
        self.found.clone()
    }
}

impl WriteGuard {
    /// The columns of each unique index of a table now.
    pub fn unique_columns(&mut self, table: RelationId) -> Result<Vec<Vec<usize>>> {
        let indexes = self.unique_indexes(table)?;
        Ok(indexes.iter().map(|index| index.columns.clone()).collect())
    }

    /// The unique indexes of a table now.
    pub(super) fn unique_indexes(&mut self, table: RelationId) -> Result<Arc<[UniqueIndex]>> {
        let catalog = self.writers.published.catalog();
        let Locked { head, relation, .. } = self.locked_mut(table)?;
        Ok(head.unique.of(&catalog, relation))
    }

    /// The rows with these values in some columns, with this guard's own writes.
    pub fn lookup_by(
        &self,
        table: RelationId,
        by: &[usize],
        values: &[ArrayRef],
    ) -> Result<RecordBatch> {
        let locked = self.locked(table)?;
        let schema = &locked.schema;
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let pin = self.writers.readers.pin_of(&[table]);
        let mut changes = Vec::new();
        for partition in self.writers.partitions(table)? {
            let (epoch, mergeable) = (pin.epoch(), pin.mergeable());
            let columns = (columns.as_slice(), partition.schema());
            let found = partition.lookup_by(epoch, mergeable, (by, values), columns)?;
            changes.push(ChangeBatch::insert(found));
        }
        let wanted: HashSet<Vec<u8>> = unique_keys(values).into_iter().collect();
        let unpublished = locked.head.after(pin.epoch());
        for batch in unpublished.iter().chain(locked.changes.iter()) {
            let keys = unique_keys(&columns_of(batch.rows(), by));
            let mask: BooleanArray = keys.iter().map(|k| Some(wanted.contains(k))).collect();
            changes.push(batch.filter(&mask));
        }
        let rows = expand_weights(consolidate(schema, &changes))?;
        compute::concat_batches(schema, &rows).map_err(|e| Error::internal(e.to_string()))
    }

    /// `23505` if the changes behind the first `before` have made two rows share the columns of a
    /// unique index.
    pub(super) fn check_indexes(&mut self, table: RelationId, before: usize) -> Result<()> {
        let indexes = self.unique_indexes(table)?;
        let locked = self.locked(table)?;
        let added = || locked.changes[before..].iter().filter(|c| !c.is_empty());
        if added().next().is_none() {
            return Ok(());
        }
        for UniqueIndex { name, columns } in indexes.iter() {
            let mut values = Vec::new();
            for changes in added() {
                let comes = (0..changes.num_rows()).map(|row| Some(changes.weight(row) > 0));
                let come = changes.filter(&comes.collect());
                values.push(without_nulls(come.rows(), columns)?);
            }
            let rows = compute::concat_batches(&locked.schema, &values).map_err(internal)?;
            let (rows, _) = once_each(&rows, columns)?;
            if rows.num_rows() == 0 {
                continue;
            }
            let there = self.lookup_by(table, columns, &columns_of(&rows, columns))?;
            if let (_, Some(twice)) = once_each(&there, columns)? {
                let (names, values) = shown(&locked.relation, &there, columns, twice);
                let message = format!("duplicate key value violates unique constraint \"{name}\"");
                return Err(Error::user(SqlState::UNIQUE_VIOLATION, message)
                    .with_detail(format!("Key ({names})=({values}) already exists.")));
            }
        }
        Ok(())
    }

    /// `23505` if two rows of the table share these columns, which an index is to keep unique.
    pub fn check_unique(&self, table: RelationId, name: &str, columns: &[usize]) -> Result<()> {
        let Locked {
            relation, schema, ..
        } = self.locked(table)?;
        let rows = self.rows(table)?;
        let rows = rows.iter().map(|rows| without_nulls(rows, columns));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let rows = compute::concat_batches(schema, &rows).map_err(internal)?;
        let (_, Some(twice)) = once_each(&rows, columns)? else {
            return Ok(());
        };
        let (names, values) = shown(relation, &rows, columns, twice);
        let message = format!("could not create unique index \"{name}\"");
        Err(Error::user(SqlState::UNIQUE_VIOLATION, message)
            .with_detail(format!("Key ({names})=({values}) is duplicated.")))
    }
}

/// Of each row the bytes of these columns by which an index tells values apart: those that are
/// equal have the same, however they look.
pub fn unique_keys(columns: &[ArrayRef]) -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new(); columns.first().map_or(0, |c| c.len())];
    encode_columns(&comparables(columns), &mut keys);
    keys
}

fn columns_of(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|c| rows.column(*c).clone()).collect()
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
    let keys = unique_keys(&columns_of(rows, columns));
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
pub(super) fn shown(
    relation: &Relation,
    rows: &RecordBatch,
    columns: &[usize],
    row: usize,
) -> (String, String) {
    let names: Vec<&str> = columns
        .iter()
        .map(|c| &*relation.columns[*c].name)
        .collect();
    let values: Vec<String> = columns.iter().map(|c| text(rows.column(*c), row)).collect();
    (names.join(", "), values.join(", "))
}

/// A value as PostgreSQL prints it, moments in UTC.
fn text(column: &ArrayRef, row: usize) -> String {
    if *column.data_type() == DataType::Boolean && column.is_valid(row) {
        let value = column.as_boolean().value(row);
        return String::from(if value { "t" } else { "f" });
    }
    // As a text, a `char` would lose its blanks.
    if *column.data_type() == DataType::LargeUtf8 {
        return value_text(column, row);
    }
    let printed = cast_array(&column.slice(row, 1), &DataType::Utf8);
    printed.map_or_else(
        |_| value_text(column, row),
        |printed| value_text(&printed, 0),
    )
}
