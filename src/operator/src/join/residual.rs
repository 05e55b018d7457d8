//! The condition of a join beyond its equalities, evaluated over gathered pairs. It reads the
//! columns that it mentions and no others.

use crate::expr::{Predicate, RowFailure};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::Expr;

/// A condition over `left columns ++ right columns`.
pub struct Residual {
    /// The columns that it reads, as positions in left ++ right, ascending.
    pub(super) columns: Vec<usize>,
    /// Those columns.
    pub(super) schema: SchemaRef,
    /// No pair can fail.
    pub(super) infallible: bool,
    predicate: Predicate,
}

impl Residual {
    /// Binds `condition`, whose columns are positions in left ++ right.
    pub fn new(condition: &Expr, left: &SchemaRef, right: &SchemaRef) -> Result<Residual> {
        let mut columns = Vec::new();
        condition.visit_columns(&mut |c| columns.push(c));
        columns.sort_unstable();
        columns.dedup();
        let fields: Vec<_> = left.fields().iter().chain(right.fields()).collect();
        let schema: SchemaRef = Arc::new(Schema::new(
            columns
                .iter()
                .map(|c| fields[*c].as_ref().clone().with_nullable(true))
                .collect::<Vec<_>>(),
        ));
        let place = |c: usize| columns.binary_search(&c).expect("it was visited");
        let local = condition.clone();
        let local = local.replace_columns(&|c| Expr::Column(place(c)));
        let predicate = Predicate::new(&local, &schema)?;
        Ok(Residual {
            columns,
            schema,
            infallible: condition.is_infallible(),
            predicate,
        })
    }

    /// Which pairs pass; a pair for which the condition fails does not, and is named beside.
    pub(super) fn evaluate(&self, pairs: &RecordBatch) -> Result<(BooleanArray, Vec<RowFailure>)> {
        self.predicate.evaluate(pairs)
    }
}
