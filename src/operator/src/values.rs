//! Values: constant rows. They are no operator of their own but the first input of a job: the actor
//! on the worker that owns vnode 0 sends them once, in the job's first epoch.

use crate::expr::{CompiledExpr, Evaluated};
use arrow::array::{Int32Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Expr;

/// The rows of a `Values` leaf as insertions; `None` if there are none. A failing expression is an
/// error of the statement.
pub fn values(rows: &[Vec<Expr>], schema: &SchemaRef) -> Result<Option<ChangeBatch>> {
    let unit = Arc::new(Schema::new(vec![Field::new(
        "unit",
        DataType::Int32,
        false,
    )]));
    let one = RecordBatch::try_new(unit.clone(), vec![Arc::new(Int32Array::from(vec![0]))])
        .map_err(|e| Error::internal(e.to_string()))?;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let mut parts = Vec::with_capacity(rows.len());
        for row in rows {
            let expr = row
                .get(i)
                .ok_or_else(|| Error::internal("a row of another width"))?;
            let Evaluated { array, failures } =
                CompiledExpr::new(expr, &unit, field.data_type())?.evaluate(&one)?;
            if let Some(failure) = failures.into_iter().next() {
                return Err(Error::user(SqlState(failure.state), failure.message));
            }
            parts.push(array);
        }
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        columns.push(if parts.is_empty() {
            arrow::array::new_empty_array(field.data_type())
        } else {
            compute::concat(&parts).map_err(|e| Error::internal(e.to_string()))?
        });
    }
    let batch = crate::project::batch_of(schema, columns, rows.len())?;
    Ok((!rows.is_empty()).then(|| ChangeBatch::insert(batch)))
}

/// `schema` with every column nullable.
pub(crate) fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect::<Vec<_>>(),
    ))
}
