//! Changes in delivery order, cut into pieces.
//!
//! **Law.** The pieces one after the other are the changes. No cut separates a retraction from an
//! insertion right after it, which may be the new row of the same key: what a receiver is told of
//! an update does not depend on where the cuts are. A piece is as small as that allows above the
//! wanted size.

use crate::ChangeBatch;

/// Cuts `changes` into pieces of `rows_max` rows, or a few more.
pub fn pieces(
    changes: &[ChangeBatch],
    rows_max: usize,
) -> impl Iterator<Item = Vec<ChangeBatch>> + '_ {
    let rows_max = rows_max.max(1);
    let (mut batches, mut start) = (changes.iter().filter(|b| !b.is_empty()).peekable(), 0);
    std::iter::from_fn(move || {
        let (mut piece, mut rows, mut retracts_last) = (Vec::new(), 0, false);
        while let Some(batch) = batches.peek() {
            if rows >= rows_max && !(retracts_last && batch.weight(start) > 0) {
                break;
            }
            let wanted = rows_max.saturating_sub(rows).max(1);
            let end = (start + wanted).min(batch.num_rows());
            piece.push(batch.slice(start, end - start));
            rows += end - start;
            retracts_last = batch.weight(end - 1) < 0;
            start = end;
            if end == batch.num_rows() {
                batches.next();
                start = 0;
            }
        }
        (!piece.is_empty()).then_some(piece)
    })
}

/// The changes without the first `rows` rows.
pub fn skip(changes: &[ChangeBatch], rows: usize) -> Vec<ChangeBatch> {
    let mut left = rows;
    let mut rest = Vec::new();
    for batch in changes {
        let skipped = left.min(batch.num_rows());
        left -= skipped;
        if skipped < batch.num_rows() {
            rest.push(batch.slice(skipped, batch.num_rows() - skipped));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    fn batch(first: i64, weights: &[i64]) -> ChangeBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(
            first..first + weights.len() as i64,
        ));
        ChangeBatch::new(
            RecordBatch::try_from_iter([("id", ids)]).unwrap(),
            weights.to_vec(),
        )
    }

    fn sizes(pieces: impl Iterator<Item = Vec<ChangeBatch>>) -> Vec<usize> {
        let rows = |p: Vec<ChangeBatch>| p.iter().map(ChangeBatch::num_rows).sum();
        pieces.map(rows).collect()
    }

    #[test]
    fn no_cut_separates_a_retraction_from_what_may_replace_it() {
        // an update across batches, an update, deletions, insertions
        let changes = [
            batch(0, &[1, 1, -1]),
            batch(3, &[]),
            batch(3, &[1, -1, 1]),
            batch(6, &[-1, -1, -1, 1, 1]),
        ];
        assert_eq!(sizes(pieces(&changes, 1)), [1, 1, 2, 2, 1, 1, 2, 1]);
        assert_eq!(sizes(pieces(&changes, 3)), [4, 3, 3, 1]);
        assert_eq!(sizes(pieces(&changes, 100)), [11]);
        assert!(pieces(&[], 5).next().is_none());
        for rows_max in 1..12 {
            let ids: Vec<i64> = pieces(&changes, rows_max)
                .flatten()
                .flat_map(|b| {
                    let ids = b.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                    ids.values().to_vec()
                })
                .collect();
            assert_eq!(ids, (0..11).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_skipped_is_a_number_of_rows() {
        let changes = [batch(0, &[1, 1, 1]), batch(3, &[1, 1])];
        let rows = |n| sizes(std::iter::once(skip(&changes, n)))[0];
        assert_eq!((0..6).map(rows).collect::<Vec<_>>(), [5, 4, 3, 2, 1, 0]);
    }
}
