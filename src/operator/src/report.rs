//! From failing rows to `tidemark.errors`: every failure carries its row as text and the row's
//! weight, so that a retracted row takes its error back.

use crate::expr::{RowFailure, row_text};
use crate::{Out, RowError};
use arrow::array::{BooleanArray, BooleanBufferBuilder};
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;

/// Reports `failures` of rows of `batch`.
pub fn report(batch: &ChangeBatch, failures: Vec<RowFailure>, out: &mut dyn Out) -> Result<()> {
    for failure in failures {
        out.row_error(RowError {
            message: failure.message,
            state: failure.state,
            row: row_text(batch.rows(), failure.row),
            weight: batch.weight(failure.row),
        })?;
    }
    Ok(())
}

/// All `rows` but the failing ones.
pub fn without<'a>(
    rows: usize,
    failures: impl IntoIterator<Item = &'a RowFailure>,
) -> BooleanArray {
    let mut keep = BooleanBufferBuilder::new(rows);
    keep.append_n(rows, true);
    for failure in failures {
        keep.set_bit(failure.row, false);
    }
    BooleanArray::new(keep.finish(), None)
}
