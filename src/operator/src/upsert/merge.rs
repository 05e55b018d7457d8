//! `ON CONFLICT DO UPDATE IF NOT NULL`: rows that come in parts.
//!
//! **Law.** Of all rows of a key that came, a column has the value of the one with the greatest
//! version among those that are not NULL in it. That is a function of the rows alone, whatever the
//! order in which partitions are read: within a split versions never go down and the later row wins
//! among equal ones, and between splits they are never equal. So each column keeps the version of
//! its value, its *stamp*, beside it (16 bytes). There are no deletions.

use super::{NOTHING, STORED, UpsertTable, pick};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{Decimal128Type, Field, Schema};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_plan::VERSION_TYPE;
use tidemark_state::ABSENT;

/// Where a value is: in which of two batches (what is kept, what comes), and in which row; and its
/// version.
type Place = (usize, usize, Option<i128>);

/// The fields of the stamps of these columns.
pub(super) fn stamps(schema: &Schema, others: &[usize]) -> Vec<Field> {
    let stamp = |c: &usize| {
        Field::new(
            format!("_version_{}", schema.field(*c).name()),
            VERSION_TYPE,
            true,
        )
    };
    others.iter().map(stamp).collect()
}

impl UpsertTable {
    /// Puts the rows of a batch to those that there are, and returns the changes that this makes.
    pub(super) fn merge(&mut self, batch: &ChangeBatch) -> Option<ChangeBatch> {
        let ids = self.intern(batch.rows());
        let mut at: HashMap<u32, usize> = HashMap::new();
        let mut touched: Vec<u32> = Vec::new();
        for id in &ids {
            at.entry(*id).or_insert_with(|| {
                touched.push(*id);
                touched.len() - 1
            });
        }
        let places: Vec<usize> = ids.iter().map(|id| at[id]).collect();
        let is_kept = |id: &u32| self.state[*id as usize] == STORED;
        let kept: Vec<bool> = touched.iter().map(is_kept).collect();
        let (values, first_rows) = self.merged(batch, (&touched, &kept), &places);
        self.store_merged(batch, (&touched, &kept), &first_rows, values)
    }

    /// The values and stamps of the touched keys, and of each key the first row in the batch.
    fn merged(
        &mut self,
        batch: &ChangeBatch,
        (touched, is_kept): (&[u32], &[bool]),
        places: &[usize],
    ) -> (Vec<ArrayRef>, Vec<u32>) {
        let kept = touched.iter().zip(is_kept);
        let kept = kept.map(|(id, is_kept)| if *is_kept { *id } else { ABSENT });
        let kept = self.values.gather_all(&kept.collect::<Vec<_>>());
        let width = self.schema.fields().len();
        let versions = batch.column(width).as_primitive::<Decimal128Type>().clone();
        let mut first_rows = vec![u32::MAX; touched.len()];
        for (row, at) in places.iter().enumerate() {
            assert!(
                batch.weight(row) > 0,
                "a deletion has no place among parts of rows"
            );
            first_rows[*at] = first_rows[*at].min(row as u32);
            let (id, version) = (touched[*at], versions.value(row));
            let is_first = std::mem::replace(&mut self.state[id as usize], STORED) == NOTHING;
            if is_first || version > self.versions.get(id) {
                self.versions.set(id, version);
            }
            self.mark(id);
        }
        let (mut values, mut stamps) = (Vec::new(), Vec::new());
        for (i, column) in self.others.iter().enumerate() {
            let stamp = kept[self.others.len() + i].as_primitive::<Decimal128Type>();
            let before = |at: usize| (0, at, stamp.is_valid(at).then(|| stamp.value(at)));
            let mut chosen: Vec<Place> = (0..touched.len()).map(before).collect();
            let coming = batch.column(*column);
            for (row, at) in places.iter().enumerate() {
                let version = versions.value(row);
                if coming.is_valid(row) && chosen[*at].2.is_none_or(|known| version >= known) {
                    chosen[*at] = (1, row, Some(version));
                }
            }
            let from: Vec<(usize, usize)> = chosen.iter().map(|(b, row, _)| (*b, *row)).collect();
            let both: [&dyn Array; 2] = [&kept[i], coming];
            values.push(compute::interleave(&both, &from).expect("both are of the column's type"));
            let stamp = Decimal128Array::from_iter(chosen.into_iter().map(|(_, _, stamp)| stamp));
            stamps.push(Arc::new(stamp.with_data_type(VERSION_TYPE)) as ArrayRef);
        }
        values.append(&mut stamps);
        (values, first_rows)
    }

    /// Keeps them; answers what that changes in the relation, where stamps do not count.
    fn store_merged(
        &mut self,
        batch: &ChangeBatch,
        (touched, is_kept): (&[u32], &[bool]),
        first_rows: &[u32],
        values: Vec<ArrayRef>,
    ) -> Option<ChangeBatch> {
        let others = &values[..self.others.len()];
        let differs = |at: &usize| !is_kept[*at] || !self.values.equals(touched[*at], others, *at);
        let changed: Vec<usize> = (0..touched.len()).filter(differs).collect();
        let gone = changed.iter().filter(|at| is_kept[**at]);
        let gone: Vec<u32> = gone.map(|at| touched[*at]).collect();
        let old = (!gone.is_empty()).then(|| self.rows_of(&gone));
        let new =
            (!changed.is_empty()).then(|| self.rows_merged(batch, first_rows, &changed, others));
        for (id, _) in touched.iter().zip(is_kept).filter(|(_, is_kept)| **is_kept) {
            self.values.clear(*id);
        }
        let all: Vec<u32> = (0..touched.len() as u32).collect();
        self.values.write_selected(&values, &all, touched);
        let new = new?;
        let Some(old) = old else {
            return Some(ChangeBatch::insert(new));
        };
        let both = compute::concat_batches(&self.schema, [&old, &new])
            .expect("old and new rows share a schema");
        let weights = std::iter::repeat_n(-1, old.num_rows());
        let weights = weights.chain(std::iter::repeat_n(1, new.num_rows()));
        Some(ChangeBatch::new(both, weights.collect()))
    }

    /// The rows of some of the touched keys: the keys are those of their first rows in the batch.
    fn rows_merged(
        &self,
        batch: &ChangeBatch,
        first_rows: &[u32],
        changed: &[usize],
        others: &[ArrayRef],
    ) -> RecordBatch {
        let rows = UInt32Array::from_iter_values(changed.iter().map(|at| first_rows[*at]));
        let places = UInt32Array::from_iter_values(changed.iter().map(|at| *at as u32));
        let take = |array: &ArrayRef, which| {
            compute::take(array, which, None).expect("rows are within the batch")
        };
        let mut columns: Vec<ArrayRef> = vec![rows_placeholder(); self.schema.fields().len()];
        for (column, array) in self.key.iter().zip(pick(batch.rows().columns(), &self.key)) {
            columns[*column] = take(&array, &rows);
        }
        for (column, array) in self.others.iter().zip(others) {
            columns[*column] = take(array, &places);
        }
        RecordBatch::try_new(self.schema.clone(), columns)
            .expect("merged rows have the relation's types")
    }
}

fn rows_placeholder() -> ArrayRef {
    Arc::new(UInt32Array::from(Vec::<u32>::new()))
}
