//! Expand: each row once for every alternative, whose columns are appended: `x(A + dA) = x(A) +
//! x(dA)`. A cross join with constants; with expressions over the row, the windows that HOP puts it
//! into.
//!
//! State: none. Cost: the row's own columns are shared between the alternatives; only small batches
//! are glued together, so that what follows is not called for a handful of rows at a time.

use crate::expr::{CompiledExpr, Evaluated};
use crate::project::batch_of;
use crate::report::{report, without};
use crate::{Operator, Out};
use arrow::datatypes::SchemaRef;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::Expr;

/// Alternatives are glued into one batch up to this many rows.
const GLUED_ROWS_MAX: usize = 4096;

/// Appends the columns of each alternative to each row.
pub struct Expand {
    alternatives: Vec<Vec<CompiledExpr>>,
    output: SchemaRef,
}

impl Expand {
    /// `rows` are the alternatives, expressions over the columns of `input`; `output` has the
    /// input's columns, then theirs.
    pub fn new(rows: &[Vec<Expr>], input: &SchemaRef, output: &SchemaRef) -> Result<Expand> {
        let appended = output.fields().get(input.fields().len()..).unwrap_or(&[]);
        if rows.iter().any(|r| r.len() != appended.len()) {
            return Err(Error::internal("an alternative of another width"));
        }
        let compile = |row: &Vec<Expr>| {
            row.iter()
                .zip(appended)
                .map(|(e, f)| CompiledExpr::new(e, input, f.data_type()))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Expand {
            alternatives: rows.iter().map(compile).collect::<Result<_>>()?,
            output: output.clone(),
        })
    }

    fn alternative(
        &self,
        exprs: &[CompiledExpr],
        batch: &ChangeBatch,
        out: &mut dyn Out,
    ) -> Result<ChangeBatch> {
        let mut columns = batch.rows().columns().to_vec();
        let mut failures = Vec::new();
        for expr in exprs {
            let Evaluated {
                array,
                failures: failing,
            } = expr.evaluate(batch.rows())?;
            columns.push(array);
            failures.extend(failing);
        }
        let mask = (!failures.is_empty()).then(|| without(batch.num_rows(), &failures));
        let rows = if mask.is_some() {
            crate::values::nullable(&self.output)
        } else {
            self.output.clone()
        };
        let expanded = ChangeBatch::with_weights(
            batch_of(&rows, columns, batch.num_rows())?,
            batch.weights().cloned(),
        );
        report(batch, failures, out)?;
        let Some(mask) = mask else {
            return Ok(expanded);
        };
        let (rows, weights) = expanded.filter(&mask).into_parts();
        let count = rows.num_rows();
        Ok(ChangeBatch::with_weights(
            batch_of(&self.output, rows.columns().to_vec(), count)?,
            weights,
        ))
    }
}

impl Operator for Expand {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let glue = self.alternatives.len() > 1
            && batch.num_rows() * self.alternatives.len() <= GLUED_ROWS_MAX;
        let mut glued = Vec::new();
        for exprs in &self.alternatives {
            let expanded = self.alternative(exprs, &batch, out)?;
            if expanded.is_empty() {
                continue;
            }
            if glue {
                glued.push(expanded)
            } else {
                out.send(expanded)?
            }
        }
        if glued.is_empty() {
            Ok(())
        } else {
            out.send(ChangeBatch::concat(&self.output, &glued))
        }
    }
}
