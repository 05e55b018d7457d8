//! Sums the weights of equal rows.
//!
//! The result has each row once, rows whose weights cancel not at all, retractions before insertions, and otherwise the order of first appearance. NULL
//! equals NULL, -0 equals 0, NaN equals NaN.

use crate::KeyIndex;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use tidemark_changelog::{ChangeBatch, hash_columns};

/// The sum of `batches`, which share `schema`. Insertions alone are not merged with each other: batches without weights are just put together.
pub fn consolidate(schema: &SchemaRef, batches: &[ChangeBatch]) -> ChangeBatch {
    if batches.is_empty() {
        return ChangeBatch::insert(RecordBatch::new_empty(schema.clone()));
    }
    let all = ChangeBatch::concat(schema, batches);
    if all.weights().is_none() { all } else { sum_of_equal_rows(schema, all) }
}

/// Like [`consolidate`], and equal insertions are one row with their number as weight.
pub fn consolidate_fully(schema: &SchemaRef, batches: &[ChangeBatch]) -> ChangeBatch {
    if batches.is_empty() {
        return ChangeBatch::insert(RecordBatch::new_empty(schema.clone()));
    }
    sum_of_equal_rows(schema, ChangeBatch::concat(schema, batches))
}

fn sum_of_equal_rows(schema: &SchemaRef, all: ChangeBatch) -> ChangeBatch {
    let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
    let mut index = KeyIndex::new(&types);
    let mut ids = Vec::new();
    index.intern(all.rows().columns(), &hash_columns(all.rows().columns(), all.num_rows()), &mut ids);
    let mut sums = vec![0i64; index.capacity()];
    let mut first_rows = Vec::with_capacity(index.capacity());
    let mut seen = vec![false; index.capacity()];
    for (row, id) in ids.iter().enumerate() {
        let sum = &mut sums[*id as usize];
        *sum = sum.checked_add(all.weight(row)).expect("the weight of a row is within 64 bits");
        if !std::mem::replace(&mut seen[*id as usize], true) {
            first_rows.push(row as u32);
        }
    }
    if first_rows.len() == all.num_rows() && all.weights().is_none() {
        return all;
    }
    let sum_of = |row: &u32| sums[ids[*row as usize] as usize];
    let mut kept: Vec<u32> = first_rows.iter().copied().filter(|r| sum_of(r) < 0).collect();
    kept.extend(first_rows.iter().copied().filter(|r| sum_of(r) > 0));
    let weights = kept.iter().map(sum_of).collect();
    let rows = UInt32Array::from(kept);
    ChangeBatch::new(all.take(&rows).into_parts().0, weights)
}
