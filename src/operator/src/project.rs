//! Project: `p(A + dA) = p(A) + p(dA)`: linear, one row out for each row in, with its weight. An
//! optional predicate in front saves the copies that a filter of its own would make: only the
//! columns that the expressions read are filtered.
//!
//! State: none. Cost: columns that are only passed on are not copied. A row for which an expression
//! fails is reported and left out; with `on_error = 'null'` the failing value becomes NULL instead,
//! unless its column does not allow that.

use crate::expr::{CompiledExpr, Predicate, RowFailure};
use crate::report::{report, without};
use crate::{Operator, Out};
use arrow::array::{ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{FilterBuilder, FilterPredicate};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, OnError};

/// Computes one column per expression, of the rows for which the predicate is true.
pub struct Project {
    predicate: Option<Predicate>,
    exprs: Vec<CompiledExpr>,
    /// The columns that the expressions read, by position in the input.
    reads: Vec<bool>,
    /// The input with columns that nobody reads as typeless nulls; set where there is a predicate.
    pruned: SchemaRef,
    output: SchemaRef,
    on_error: OnError,
}

impl Project {
    /// `exprs` over the columns of `input`, one for each field of `output`; rows that `predicate`
    /// does not select are left out.
    pub fn new(
        predicate: Option<&Expr>,
        exprs: &[Expr],
        input: &SchemaRef,
        output: &SchemaRef,
        on_error: OnError,
    ) -> Result<Project> {
        if exprs.len() != output.fields().len() {
            return Err(Error::internal(format!(
                "{} expressions for {} columns",
                exprs.len(),
                output.fields().len()
            )));
        }
        let mut reads = vec![predicate.is_none(); input.fields().len()];
        exprs
            .iter()
            .for_each(|e| e.visit_columns(&mut |i| reads[i] = true));
        let pruned = input.fields().iter().zip(&reads).map(|(f, read)| {
            if *read {
                f.clone()
            } else {
                Arc::new(Field::new(f.name(), DataType::Null, true))
            }
        });
        let pruned = Arc::new(Schema::new(pruned.collect::<Vec<_>>()));
        Ok(Project {
            predicate: predicate.map(|p| Predicate::new(p, input)).transpose()?,
            exprs: exprs
                .iter()
                .zip(output.fields())
                .map(|(e, f)| CompiledExpr::new(e, &pruned, f.data_type()))
                .collect::<Result<_>>()?,
            reads,
            pruned,
            output: output.clone(),
            on_error,
        })
    }

    /// Applies the predicate, if any: the rows that are left with the columns that are read, and
    /// which rows they were. `None` when none is left.
    fn select(
        &self,
        batch: &ChangeBatch,
        out: &mut dyn Out,
    ) -> Result<Option<(ChangeBatch, Option<BooleanArray>)>> {
        let Some(predicate) = &self.predicate else {
            return Ok(Some((batch.clone(), None)));
        };
        let (mask, failures) = predicate.evaluate(batch.rows())?;
        report(batch, failures, out)?;
        let rows = mask.true_count();
        if rows == 0 {
            return Ok(None);
        }
        let keep = (rows < batch.num_rows()).then(|| FilterBuilder::new(&mask).optimize().build());
        let weights = batch.weights().map(|w| match keep {
            Some(_) => mask.values().set_indices().map(|i| w[i]).collect(),
            None => w.clone(),
        });
        let columns = batch
            .rows()
            .columns()
            .iter()
            .zip(&self.reads)
            .map(|(column, read)| {
                if *read {
                    kept(keep.as_ref(), column)
                } else {
                    Ok(Arc::new(NullArray::new(rows)) as ArrayRef)
                }
            });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Some((
            ChangeBatch::with_weights(batch_of(&self.pruned, columns, rows)?, weights),
            Some(mask),
        )))
    }

    /// Rows that fail are left out: those of failing expressions, or under `on_error = 'null'`
    /// those whose column does not take NULL.
    fn drops(&self, column: usize) -> bool {
        self.on_error != OnError::Null || !self.output.field(column).is_nullable()
    }
}

fn kept(keep: Option<&FilterPredicate>, column: &ArrayRef) -> Result<ArrayRef> {
    match keep {
        Some(keep) => keep
            .filter(column)
            .map_err(|e| Error::internal(e.to_string())),
        None => Ok(column.clone()),
    }
}

/// The failures of selected rows as failures of the input's rows.
fn at_input(mut failures: Vec<RowFailure>, selected: Option<&BooleanArray>) -> Vec<RowFailure> {
    if let (Some(selected), false) = (selected, failures.is_empty()) {
        let rows: Vec<usize> = selected.values().set_indices().collect();
        failures.iter_mut().for_each(|f| f.row = rows[f.row]);
    }
    failures
}

/// A record batch of `rows` rows, also when there is no column.
pub(crate) fn batch_of(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::internal(e.to_string()))
}

impl Operator for Project {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let input = batch;
        let Some((batch, selected)) = self.select(&input, out)? else {
            return Ok(());
        };
        let report = |failures: Vec<RowFailure>, out: &mut dyn Out| {
            report(&input, at_input(failures, selected.as_ref()), out)
        };
        let mut columns = Vec::with_capacity(self.exprs.len());
        let mut failures: Vec<RowFailure> = Vec::new();
        let mut dropped: Vec<RowFailure> = Vec::new();
        for (i, expr) in self.exprs.iter().enumerate() {
            let evaluated = expr.evaluate(batch.rows())?;
            columns.push(evaluated.array);
            let into = if self.drops(i) {
                &mut dropped
            } else {
                &mut failures
            };
            into.extend(evaluated.failures);
        }
        if dropped.is_empty() {
            let rows = batch_of(&self.output, columns, batch.num_rows())?;
            report(failures, out)?;
            return out.send(ChangeBatch::with_weights(rows, batch.weights().cloned()));
        }
        let mask = without(batch.num_rows(), &dropped);
        let keep = FilterBuilder::new(&mask).build();
        let columns = columns
            .iter()
            .map(|c| kept(Some(&keep), c))
            .collect::<Result<Vec<_>>>()?;
        let weights = batch
            .weights()
            .map(|w| mask.values().set_indices().map(|i| w[i]).collect());
        failures.extend(dropped);
        report(failures, out)?;
        let rows = mask.true_count();
        if rows == 0 {
            return Ok(());
        }
        out.send(ChangeBatch::with_weights(
            batch_of(&self.output, columns, rows)?,
            weights,
        ))
    }
}

#[cfg(test)]
mod tests;
