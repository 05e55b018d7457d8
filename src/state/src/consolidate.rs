//! Sums the weights of equal rows.
//!
//! The result has each row once, rows whose weights cancel not at all, retractions before
//! insertions, and otherwise the order of first appearance. NULL equals NULL, -0 equals 0, NaN
//! equals NaN.

use crate::KeyIndex;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use tidemark_changelog::{ChangeBatch, hash_columns};

/// The sum of `batches`, which share `schema`. Insertions alone are not merged with each other:
/// batches without weights are just put together.
pub fn consolidate(schema: &SchemaRef, batches: &[ChangeBatch]) -> ChangeBatch {
    if batches.is_empty() {
        return ChangeBatch::insert(RecordBatch::new_empty(schema.clone()));
    }
    let all = ChangeBatch::concat(schema, batches);
    if all.weights().is_none() {
        all
    } else {
        sum_of_equal_rows(schema, all)
    }
}

/// Like [`consolidate`], and equal insertions are one row with their number as weight.
pub fn consolidate_fully(schema: &SchemaRef, batches: &[ChangeBatch]) -> ChangeBatch {
    if batches.is_empty() {
        return ChangeBatch::insert(RecordBatch::new_empty(schema.clone()));
    }
    sum_of_equal_rows(schema, ChangeBatch::concat(schema, batches))
}

/// The rows that [`consolidate`] leaves out, each once: those that come and go.
pub fn cancelled(schema: &SchemaRef, batches: &[ChangeBatch]) -> RecordBatch {
    let none = || RecordBatch::new_empty(schema.clone());
    if batches.is_empty() {
        return none();
    }
    let all = ChangeBatch::concat(schema, batches);
    if all.weights().is_none() {
        return none();
    }
    let sums = Sums::of(schema, &all);
    let rows = sums.rows_where(|sum| sum == 0);
    all.take(&UInt32Array::from(rows)).into_parts().0
}

/// The weight of each row of a batch.
struct Sums {
    /// Of each row, which of the sums is its own.
    ids: Vec<u32>,
    sums: Vec<i64>,
    /// Where each row is first.
    first_rows: Vec<u32>,
}

impl Sums {
    fn of(schema: &SchemaRef, all: &ChangeBatch) -> Sums {
        let types: Vec<DataType> = schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let mut index = KeyIndex::of_rows(&types);
        let mut ids = Vec::new();
        index.intern(
            all.rows().columns(),
            &hash_columns(all.rows().columns(), all.num_rows()),
            &mut ids,
        );
        let mut sums = vec![0i64; index.capacity()];
        let mut first_rows = Vec::with_capacity(index.capacity());
        let mut seen = vec![false; index.capacity()];
        for (row, id) in ids.iter().enumerate() {
            let sum = &mut sums[*id as usize];
            *sum = sum
                .checked_add(all.weight(row))
                .expect("the weight of a row is within 64 bits");
            if !std::mem::replace(&mut seen[*id as usize], true) {
                first_rows.push(row as u32);
            }
        }
        Sums {
            ids,
            sums,
            first_rows,
        }
    }

    fn of_row(&self, row: u32) -> i64 {
        self.sums[self.ids[row as usize] as usize]
    }

    fn rows_where(&self, wanted: impl Fn(i64) -> bool) -> Vec<u32> {
        let rows = self.first_rows.iter().copied();
        rows.filter(|row| wanted(self.of_row(*row))).collect()
    }
}

/// Rows of a batch that is looked at whether it is a sum already.
const FEW_ROWS: usize = 16;

/// Whether a batch of few rows is its own sum: no two rows are equal, as their hashes tell, and
/// retractions come first.
fn is_sum(all: &ChangeBatch) -> bool {
    let rows = all.num_rows();
    if rows > FEW_ROWS || (0..rows).any(|row| all.weight(row) == 0) {
        return false;
    }
    let is_in_order = (1..rows).all(|row| all.weight(row - 1) < 0 || all.weight(row) > 0);
    let mut hashes = hash_columns(all.rows().columns(), rows);
    hashes.sort_unstable();
    is_in_order && hashes.windows(2).all(|pair| pair[0] != pair[1])
}

fn sum_of_equal_rows(schema: &SchemaRef, all: ChangeBatch) -> ChangeBatch {
    if is_sum(&all) {
        return all;
    }
    let sums = Sums::of(schema, &all);
    if sums.first_rows.len() == all.num_rows() && all.weights().is_none() {
        return all;
    }
    let mut kept = sums.rows_where(|sum| sum < 0);
    kept.extend(sums.rows_where(|sum| sum > 0));
    let weights = kept.iter().map(|row| sums.of_row(*row)).collect();
    let rows = UInt32Array::from(kept);
    ChangeBatch::new(all.take(&rows).into_parts().0, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use std::sync::Arc;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("v", DataType::Utf8, true),
        ]))
    }

    /// A table of changes: one `weight key value` per line, `-` for NULL.
    fn changes(table: &str) -> ChangeBatch {
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .filter(|l| !l.is_empty())
            .collect();
        let keys = Int64Array::from_iter(lines.iter().map(|l| l[1].parse::<i64>().ok()));
        let values = StringArray::from_iter(lines.iter().map(|l| (l[2] != "-").then_some(l[2])));
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]).unwrap();
        ChangeBatch::new(rows, lines.iter().map(|l| l[0].parse().unwrap()).collect())
    }

    fn table(changes: &ChangeBatch) -> Vec<String> {
        let (k, v) = (
            changes.column(0).as_primitive::<Int64Type>(),
            changes.column(1).as_string::<i32>(),
        );
        let key = |i: usize| {
            if k.is_null(i) {
                "-".into()
            } else {
                k.value(i).to_string()
            }
        };
        (0..changes.num_rows())
            .map(|i| {
                format!(
                    "{:+} {} {}",
                    changes.weight(i),
                    key(i),
                    if v.is_null(i) { "-" } else { v.value(i) }
                )
            })
            .collect()
    }

    #[test]
    fn sums_equal_rows_and_puts_retractions_first() {
        let parts = [
            changes("+1 1 a\n+1 2 b\n-1 3 -"),
            changes("-1 1 a\n+1 2 b\n+1 - -\n-1 4 d"),
            changes("+1 - -\n-1 4 d"),
        ];
        assert_eq!(
            table(&consolidate(&schema(), &parts)),
            ["-1 3 -", "-2 4 d", "+2 2 b", "+2 - -"]
        );
    }

    #[test]
    fn few_rows_that_differ_are_their_own_sum() {
        let sum = |text: &str| table(&consolidate(&schema(), &[changes(text)]));
        assert!(is_sum(&changes("-1 1 a\n+1 1 b\n+2 - -")));
        assert_eq!(sum("-1 1 a\n+1 1 b"), ["-1 1 a", "+1 1 b"]);
        for other in [
            "+1 1 b\n-1 1 a",
            "-1 - -\n+1 - -",
            "-1 1 a\n-1 1 a",
            "0 1 a",
        ] {
            assert!(!is_sum(&changes(other)), "{other}");
        }
        assert_eq!(sum("+1 1 b\n-1 1 a"), ["-1 1 a", "+1 1 b"]);
        assert!(sum("-1 - -\n+1 - -").is_empty());
        assert_eq!(sum("-1 1 a\n-1 1 a"), ["-2 1 a"]);
    }

    #[test]
    fn what_cancels_is_gone() {
        assert!(consolidate(&schema(), &[changes("+1 1 a"), changes("-1 1 a")]).is_empty());
        assert!(consolidate(&schema(), &[]).is_empty());
    }

    #[test]
    fn insertions_are_put_together_or_counted() {
        let parts = [changes("+1 1 a\n+1 1 a"), changes("+1 1 a\n+1 2 b")];
        let plain = consolidate(&schema(), &parts);
        assert!(plain.weights().is_none());
        assert_eq!(plain.num_rows(), 4);
        assert_eq!(
            table(&consolidate_fully(&schema(), &parts)),
            ["+3 1 a", "+1 2 b"]
        );
    }
}
