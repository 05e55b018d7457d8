//! Lanes: the ways in which rows of a batch come to an accumulator. Calls with the same filter, the
//! same NULLs to skip and the same DISTINCT share a lane, its selection of rows is computed once,
//! and so is the lane's count of rows per group: `count(x)` is that count, and the others need it
//! to know when their result is NULL.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use tidemark_state::chunked::Chunked;

/// Rows of a batch for an accumulator: the group of each row, and which rows count how much.
pub(super) struct Input<'a> {
    /// Group of each row of the batch.
    pub ids: &'a [u32],
    /// Weight of each row of the batch; `None` when all are 1.
    pub weights: Option<&'a [i64]>,
    /// The rows that count.
    pub rows: Selected<'a>,
}

/// A selection of rows.
pub(super) enum Selected<'a> {
    /// All of them.
    All,
    /// Those with a set bit.
    Mask(&'a BooleanBuffer),
    /// These, with weights of their own.
    Picked { rows: &'a [u32], weights: &'a [i64] },
}

impl Input<'_> {
    /// Calls `f(row, group, weight)` for every selected row.
    #[inline(always)]
    pub fn each(&self, mut f: impl FnMut(usize, u32, i64)) {
        match (&self.rows, self.weights) {
            (Selected::All, None) => self
                .ids
                .iter()
                .enumerate()
                .for_each(|(row, id)| f(row, *id, 1)),
            (Selected::All, Some(weights)) => self
                .ids
                .iter()
                .zip(weights)
                .enumerate()
                .for_each(|(row, (id, w))| f(row, *id, *w)),
            (Selected::Mask(mask), None) => {
                mask.set_indices().for_each(|row| f(row, self.ids[row], 1))
            }
            (Selected::Mask(mask), Some(weights)) => mask
                .set_indices()
                .for_each(|row| f(row, self.ids[row], weights[row])),
            (Selected::Picked { rows, weights }, _) => rows
                .iter()
                .zip(*weights)
                .for_each(|(row, w)| f(*row as usize, self.ids[*row as usize], *w)),
        }
    }
}

/// What a lane selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// A boolean column that must be true.
    pub filter: Option<usize>,
    /// Columns that must not be NULL.
    pub not_null: [Option<usize>; 2],
    /// Which variant of which distinct table passes the rows on.
    pub distinct: Option<(usize, usize)>,
}

/// A selection with its count of rows per group. A lane that only leaves NULLs out keeps no counts
/// of its own until the first NULL appears: so far it has selected all rows, whose count the first
/// lane has.
pub(super) struct Lane {
    pub selection: Selection,
    pub counts: Chunked<i64>,
    all_rows: bool,
}

impl Lane {
    pub fn new(selection: Selection) -> Lane {
        let all_rows = selection.filter.is_none()
            && selection.distinct.is_none()
            && selection.not_null[0].is_some();
        Lane {
            selection,
            counts: Chunked::new(),
            all_rows,
        }
    }

    /// Whether its counts are those of the first lane.
    pub fn is_all_rows(&self) -> bool {
        self.all_rows
    }

    /// Keeps counts of its own from now on; so far they are `counts`.
    pub fn diverge(&mut self, counts: Chunked<i64>) {
        self.counts = counts;
        self.all_rows = false;
    }

    /// Adds the selected rows to the counts.
    pub fn count(&mut self, input: &Input) {
        if !self.all_rows {
            input.each(|_, id, weight| *self.counts.get_mut(id) += weight);
        }
    }
}

/// The rows for which `filter` is true and `not_null` are there; `None` for all rows.
pub(super) fn mask(
    batch: &RecordBatch,
    filter: Option<usize>,
    not_null: [Option<usize>; 2],
) -> Option<BooleanBuffer> {
    let filter = filter.map(|c| {
        let column = batch.column(c).as_boolean();
        match column.nulls() {
            Some(nulls) => column.values() & nulls.inner(),
            None => column.values().clone(),
        }
    });
    let valid = |column: usize| {
        let nulls = batch.column(column).logical_nulls();
        nulls
            .filter(|n| n.null_count() > 0)
            .map(|n| n.inner().clone())
    };
    let valid = not_null.into_iter().flatten().filter_map(valid);
    filter.into_iter().chain(valid).reduce(|a, b| &a & &b)
}
