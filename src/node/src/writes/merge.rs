//! `ON CONFLICT DO UPDATE IF NOT NULL`: of a row that comes only what is not NULL replaces what the
//! row of its key has, be that in the table or one that came before it in the statement.

use super::{WriteGuard, encoded_keys};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute;
use std::collections::HashMap;
use tidemark_common::{Error, RelationId, Result};
use tidemark_plan::Relation;

/// Of each column, in which of the two batches (there, coming) and where its value is.
type Places = Vec<(usize, usize)>;

impl WriteGuard {
    /// One row for each key of `rows`, in the order in which the keys come.
    pub(super) fn merged(
        &self,
        table: RelationId,
        relation: &Relation,
        rows: &RecordBatch,
    ) -> Result<RecordBatch> {
        let keys = relation.key.iter().map(|k| rows.column(*k).clone());
        let existing = self.lookup(table, &keys.collect::<Vec<_>>())?;
        let there = encoded_keys(&existing, &relation.key);
        let there: HashMap<&[u8], usize> = there
            .iter()
            .enumerate()
            .map(|(row, key)| (key.as_slice(), row))
            .collect();
        let coming = encoded_keys(rows, &relation.key);
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut merged: Vec<Places> = Vec::new();
        for (row, key) in coming.iter().enumerate() {
            let at = *known.entry(key).or_insert(merged.len());
            if at == merged.len() {
                let before = there.get(key.as_slice()).map_or((1, row), |old| (0, *old));
                merged.push(vec![before; rows.num_columns()]);
            }
            for (column, place) in merged[at].iter_mut().enumerate() {
                if rows.column(column).is_valid(row) {
                    *place = (1, row);
                }
            }
        }
        let column = |c: usize| {
            let places: Places = merged.iter().map(|row| row[c]).collect();
            let both: [&dyn Array; 2] = [existing.column(c), rows.column(c)];
            compute::interleave(&both, &places).map_err(|e| Error::internal(e.to_string()))
        };
        let columns: Result<Vec<ArrayRef>> = (0..rows.num_columns()).map(column).collect();
        RecordBatch::try_new(rows.schema(), columns?).map_err(|e| Error::internal(e.to_string()))
    }
}
