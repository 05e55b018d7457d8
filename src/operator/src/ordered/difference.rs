//! Results of rows as they were and as they are, and what is sent where they differ.

use super::partitions::{Partitions, internal, record_batch};
use crate::Out;
use arrow::array::{Array, ArrayRef, DynComparator, make_comparator};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::SchemaRef;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;

/// Rows that are sent at a time, about.
pub(super) const SENT_ROWS: usize = 4096;

/// Rows with results, of which some are sent.
pub(super) struct Difference {
    olds: Vec<ArrayRef>,
    news: Vec<ArrayRef>,
    /// None for a type whose values cannot be compared: all of them differ.
    compare: Vec<Option<DynComparator>>,
    rows: Vec<u32>,
    /// 0 for an old result, 1 for a new one, and which.
    places: Vec<(usize, usize)>,
    weights: Vec<i64>,
}

impl Difference {
    /// Between these results, a column per call.
    pub fn new(olds: Vec<ArrayRef>, news: Vec<ArrayRef>) -> Difference {
        let both = olds.iter().zip(&news);
        let compare = both.map(|(old, new)| make_comparator(old, new, SortOptions::default()).ok());
        Difference {
            compare: compare.collect(),
            olds,
            news,
            rows: Vec::new(),
            places: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Whether the results at these places are the same.
    pub fn is_same(&self, old: usize, new: usize) -> bool {
        let same = |c: &Option<DynComparator>| c.as_ref().is_some_and(|c| c(old, new).is_eq());
        self.compare.iter().all(same)
    }

    /// The row with this old result is no more.
    pub fn was(&mut self, row: u32, old: usize) {
        self.rows.push(row);
        self.places.push((0, old));
        self.weights.push(-1);
    }

    /// The row with this new result is there.
    pub fn is(&mut self, row: u32, new: usize) {
        self.rows.push(row);
        self.places.push((1, new));
        self.weights.push(1);
    }

    /// Sends them: these columns of the input, then the results.
    pub fn send(
        self,
        partitions: &Partitions,
        columns: &[usize],
        output: &SchemaRef,
        out: &mut dyn Out,
    ) -> Result<()> {
        out.look_up();
        for start in (0..self.rows.len()).step_by(SENT_ROWS) {
            let range = start..self.rows.len().min(start + SENT_ROWS);
            let mut all = partitions.gather(columns, &self.rows[range.clone()]);
            for (old, new) in self.olds.iter().zip(&self.news) {
                let both: [&dyn Array; 2] = [old, new];
                let results = interleave(&both, &self.places[range.clone()]);
                all.push(results.map_err(internal)?);
            }
            let batch = record_batch(output, all, range.len());
            out.send(ChangeBatch::new(batch, self.weights[range].to_vec()))?;
        }
        Ok(())
    }
}
