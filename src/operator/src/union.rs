//! Union: `u(A, B) = A + B`, the sum of its inputs: every change passes on. What SQL calls UNION is
//! this with a grouping behind it.
//!
//! State: none. The inputs' types are the same; names and nullability are the output's.

use crate::project::batch_of;
use crate::{Operator, Out};
use arrow::datatypes::SchemaRef;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;

/// Passes the changes of all ports on.
pub struct Union {
    schema: SchemaRef,
}

impl Union {
    /// A union whose output has the columns of `schema`.
    pub fn new(schema: SchemaRef) -> Union {
        Union { schema }
    }
}

impl Operator for Union {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        if batch.schema() == self.schema {
            return out.send(batch);
        }
        let (rows, weights) = batch.into_parts();
        let count = rows.num_rows();
        out.send(ChangeBatch::with_weights(
            batch_of(&self.schema, rows.columns().to_vec(), count)?,
            weights,
        ))
    }
}
