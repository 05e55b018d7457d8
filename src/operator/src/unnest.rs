//! Unnest: each row once for every element of its lists: `u(A + dA) = u(A) + u(dA)`.
//!
//! State: none. Cost: what comes out, a few thousand rows at a time, however long a list is.

use crate::project::batch_of;
use crate::{Operator, Out};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::Unnested;

/// Rows that are sent at a time.
const SENT_ROWS: usize = 4096;

/// Repeats rows for the elements of their lists.
pub struct Unnest {
    lists: Vec<usize>,
    columns: Vec<Unnested>,
    keep_empty: bool,
    output: SchemaRef,
}

impl Unnest {
    /// As `Op::Unnest` has it; `output` are the fields of `columns`.
    pub fn new(
        lists: &[usize],
        columns: &[Unnested],
        keep_empty: bool,
        output: &SchemaRef,
    ) -> Unnest {
        Unnest {
            lists: lists.to_vec(),
            columns: columns.to_vec(),
            keep_empty,
            output: output.clone(),
        }
    }

    /// How many rows each row becomes.
    fn lengths(&self, batch: &ChangeBatch) -> Result<Vec<usize>> {
        let mut lengths = vec![usize::from(self.keep_empty); batch.num_rows()];
        for list in &self.lists {
            let list = list_of(batch.column(*list))?;
            for (row, length) in lengths.iter_mut().enumerate() {
                *length = (*length).max(length_of(list, row));
            }
        }
        Ok(lengths)
    }

    /// Sends rows with elements: which of the batch, and which place of its lists.
    fn send(
        &self,
        batch: &ChangeBatch,
        rows: &[u32],
        places: &[usize],
        out: &mut dyn Out,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
        let rows = UInt32Array::from(rows.to_vec());
        let column = |column: &Unnested| -> Result<ArrayRef> {
            let from = batch.column(column.column());
            match column {
                Unnested::Column(_) => take(from, &rows, None).map_err(internal),
                Unnested::Element(_) => {
                    let list = list_of(from)?;
                    let element = |(row, place): (&u32, &usize)| {
                        let there = *place < length_of(list, *row as usize);
                        there.then(|| list.value_offsets()[*row as usize] as u64 + *place as u64)
                    };
                    let elements = rows.values().iter().zip(places).map(element);
                    take(list.values(), &UInt64Array::from_iter(elements), None).map_err(internal)
                }
            }
        };
        let columns = self
            .columns
            .iter()
            .map(column)
            .collect::<Result<Vec<_>>>()?;
        let weights = batch.weights().map(|_| {
            let weights = rows.values().iter().map(|row| batch.weight(*row as usize));
            weights.collect()
        });
        let unnested = batch_of(&self.output, columns, rows.len())?;
        out.send(ChangeBatch::with_weights(unnested, weights))
    }
}

fn list_of(array: &ArrayRef) -> Result<&ListArray> {
    let list = array.as_list_opt::<i32>();
    list.ok_or_else(|| Error::internal(format!("{} is no list", array.data_type())))
}

fn length_of(list: &ListArray, row: usize) -> usize {
    match list.is_null(row) {
        true => 0,
        false => list.value_length(row) as usize,
    }
}

impl Operator for Unnest {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for (row, length) in self.lengths(&batch)?.into_iter().enumerate() {
            for place in 0..length {
                rows.push(row as u32);
                places.push(place);
                if rows.len() == SENT_ROWS {
                    self.send(&batch, &rows, &places, out)?;
                    rows.clear();
                    places.clear();
                }
            }
        }
        self.send(&batch, &rows, &places, out)
    }
}
