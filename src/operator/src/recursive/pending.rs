//! Changes that wait for the turn of their iteration.

use super::{ROWS_MAX, grows};
use arrow::array::{Array, AsArray, UInt32Array};
use arrow::datatypes::{Int64Type, SchemaRef};
use std::collections::BTreeMap;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};

/// See the module.
pub struct Pending {
    output: SchemaRef,
    name: String,
    iterations: BTreeMap<u32, Waiting>,
}

/// The changes of one iteration.
#[derive(Default)]
struct Waiting {
    batches: Vec<ChangeBatch>,
    rows: usize,
    bytes: usize,
}

impl Pending {
    /// None, of rows with these columns.
    pub fn new(output: &SchemaRef, name: &str) -> Pending {
        Pending {
            output: output.clone(),
            name: name.to_string(),
            iterations: BTreeMap::new(),
        }
    }

    /// The first iteration that has changes.
    pub fn next(&self) -> Option<u32> {
        self.iterations.keys().next().copied()
    }

    /// Takes out the changes of an iteration.
    pub fn take(&mut self, iteration: u32) -> Vec<ChangeBatch> {
        let waiting = self.iterations.remove(&iteration);
        waiting.map(|w| w.batches).unwrap_or_default()
    }

    /// Takes in changes of an iteration.
    pub fn add(&mut self, iteration: u32, batch: ChangeBatch) -> Result<()> {
        let (rows, weights) = batch.into_parts();
        let count = rows.num_rows();
        let rows = crate::project::batch_of(&self.output, rows.columns().to_vec(), count)?;
        let batch = ChangeBatch::with_weights(rows, weights);
        let waiting = self.iterations.entry(iteration).or_default();
        waiting.rows += count;
        waiting.bytes += batch.bytes();
        waiting.batches.push(batch);
        match iteration > 0 && waiting.rows > ROWS_MAX {
            true => Err(grows(&self.name, "changes")),
            false => Ok(()),
        }
    }

    /// Takes in what a step has made of rows of the iterations whose numbers are in front: each
    /// belongs to the next one.
    pub fn add_next(&mut self, batch: &ChangeBatch) -> Result<()> {
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        if numbers.null_count() > 0 {
            return Err(Error::internal("a row has lost its iteration"));
        }
        let numbers = numbers.values();
        let columns: Vec<usize> = (1..batch.rows().num_columns()).collect();
        let rows = batch.project(&columns);
        let next = |number: i64| {
            let next = u32::try_from(number).ok().and_then(|n| n.checked_add(1));
            next.ok_or_else(|| Error::internal("a row has the number of no iteration"))
        };
        let Some(first) = numbers.first() else {
            return Ok(());
        };
        if numbers.iter().all(|n| n == first) {
            return self.add(next(*first)?, rows);
        }
        let mut parts: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, number) in numbers.iter().enumerate() {
            parts.entry(*number).or_default().push(row as u32);
        }
        for (number, part) in parts {
            self.add(next(number)?, rows.take(&UInt32Array::from(part)))?;
        }
        Ok(())
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.iterations.values().map(|w| w.bytes).sum()
    }
}
