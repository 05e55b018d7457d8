//! Evaluation of scalar expressions: a [`tidemark_plan::Expr`] becomes a DataFusion physical
//! expression, the same evaluator that ad-hoc queries use, so that one expression cannot have two
//! answers.
//!
//! Law: `evaluate(rows)[i] = e(rows[i])`, row by row, and a row whose evaluation fails takes nobody
//! along. A kernel answers for a whole batch or fails for all of it, so a failing batch is
//! evaluated again by halves until the failing rows stand alone: no cost when nothing fails, `k log
//! n` extra kernel calls for k failing rows. The row alone is the reference: if a batch succeeds,
//! each of its rows would have succeeded alone.

mod coalesce;
mod compile;
mod floats;
mod guarded;
mod message;
mod postgres;
mod selected;
#[cfg(test)]
mod tests;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_empty_array, new_null_array,
};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::Expr;

pub use coalesce::with_lazy_calls;
pub use compile::{compile, literal};
pub use postgres::with_postgres_semantics;

/// An expression bound to an input schema.
#[derive(Clone, Debug)]
pub struct CompiledExpr {
    kind: Kind,
    output: DataType,
}

#[derive(Clone, Debug)]
enum Kind {
    Column(usize),
    Physical(Arc<dyn PhysicalExpr>),
}

/// A row that an expression has no value for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFailure {
    /// Position in the batch.
    pub row: usize,
    /// Why, in lower case.
    pub message: String,
    /// SQLSTATE.
    pub state: &'static str,
}

/// The values of an expression over a batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One value per row; NULL where the row failed.
    pub array: ArrayRef,
    /// The failing rows, ascending.
    pub failures: Vec<RowFailure>,
}

impl CompiledExpr {
    /// Binds `expr` to the columns of `input`; the result is cast to `output` where the evaluator's
    /// own type differs.
    ///
    /// Errors: unknown functions (`42883`), operand types that do not fit (`42804`).
    pub fn new(expr: &Expr, input: &SchemaRef, output: &DataType) -> Result<CompiledExpr> {
        if let Expr::Column(i) = expr {
            let field = input.fields().get(*i).ok_or_else(|| {
                Error::internal(format!("column {i} of {}", input.fields().len()))
            })?;
            if field.data_type() == output {
                return Ok(CompiledExpr {
                    kind: Kind::Column(*i),
                    output: output.clone(),
                });
            }
        }
        Ok(CompiledExpr {
            kind: Kind::Physical(compile::compile_to(expr, input, output)?),
            output: output.clone(),
        })
    }

    /// The position of the column, where the expression is nothing but a column: its evaluation
    /// copies nothing.
    pub fn as_column(&self) -> Option<usize> {
        if let Kind::Column(i) = self.kind {
            Some(i)
        } else {
            None
        }
    }

    /// One value per row of `batch`. An error means that the expression cannot be evaluated at all;
    /// rows that fail are in the result.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated> {
        let physical = match &self.kind {
            Kind::Column(i) => {
                return Ok(Evaluated {
                    array: batch.column(*i).clone(),
                    failures: Vec::new(),
                });
            }
            Kind::Physical(physical) => physical,
        };
        if batch.num_rows() == 0 {
            return Ok(Evaluated {
                array: new_empty_array(&self.output),
                failures: Vec::new(),
            });
        }
        match self.attempt(physical, batch) {
            Ok(array) => Ok(Evaluated {
                array,
                failures: Vec::new(),
            }),
            Err(error) => {
                let mut isolation = Isolation {
                    parts: Vec::new(),
                    failures: Vec::new(),
                };
                self.isolate(physical, batch, 0, error, &mut isolation)?;
                let parts: Vec<&dyn Array> = isolation.parts.iter().map(AsRef::as_ref).collect();
                let array = compute::concat(&parts).map_err(|e| Error::internal(e.to_string()))?;
                Ok(Evaluated {
                    array,
                    failures: isolation.failures,
                })
            }
        }
    }

    fn attempt(
        &self,
        physical: &Arc<dyn PhysicalExpr>,
        batch: &RecordBatch,
    ) -> Result<ArrayRef, DataFusionError> {
        let array = physical.evaluate(batch)?.into_array(batch.num_rows())?;
        if array.data_type() == &self.output {
            Ok(array)
        } else {
            Ok(compute::cast(&array, &self.output)?)
        }
    }

    fn isolate(
        &self,
        physical: &Arc<dyn PhysicalExpr>,
        batch: &RecordBatch,
        offset: usize,
        error: DataFusionError,
        into: &mut Isolation,
    ) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 1 {
            let (state, message) = message::row_message(&error)?;
            into.failures.push(RowFailure {
                row: offset,
                message,
                state,
            });
            into.parts.push(new_null_array(&self.output, 1));
            return Ok(());
        }
        let half = rows / 2;
        for (start, len) in [(0, half), (half, rows - half)] {
            let part = batch.slice(start, len);
            match self.attempt(physical, &part) {
                Ok(array) => into.parts.push(array),
                Err(e) => self.isolate(physical, &part, offset + start, e, into)?,
            }
        }
        Ok(())
    }
}

struct Isolation {
    parts: Vec<ArrayRef>,
    failures: Vec<RowFailure>,
}

/// A boolean expression that selects rows: filters, and the residual conditions of joins.
#[derive(Clone, Debug)]
pub struct Predicate(CompiledExpr);

impl Predicate {
    /// Binds `expr` to the columns of `input`.
    pub fn new(expr: &Expr, input: &SchemaRef) -> Result<Predicate> {
        Ok(Predicate(CompiledExpr::new(
            expr,
            input,
            &DataType::Boolean,
        )?))
    }

    /// One value per row, never null: unknown and failing rows are false. The failing rows come
    /// beside.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<(BooleanArray, Vec<RowFailure>)> {
        let Evaluated { array, failures } = self.0.evaluate(batch)?;
        let mask = array.as_boolean();
        let mask = if mask.null_count() == 0 {
            mask.clone()
        } else {
            compute::prep_null_mask_filter(mask)
        };
        Ok((mask, failures))
    }
}

/// One value as text; `NULL` where there is none.
pub fn value_text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let slice = column.slice(row, 1);
    let ours = matches!(
        slice.data_type(),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    );
    let printed = if ours {
        crate::functions::cast_array(&slice, &DataType::Utf8).ok()
    } else {
        Some(slice)
    };
    let text = printed.and_then(|array| {
        let formatter = ArrayFormatter::try_new(array.as_ref(), &options).ok()?;
        formatter.value(0).try_to_string().ok()
    });
    text.unwrap_or_else(|| "?".into())
}

/// The values of one row as text, separated by commas, cut at 1 KiB.
pub fn row_text(batch: &RecordBatch, row: usize) -> String {
    const BYTES_MAX: usize = 1024;
    let mut text = String::new();
    for (i, column) in batch.columns().iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&value_text(column, row));
        if text.len() > BYTES_MAX {
            break;
        }
    }
    if text.len() > BYTES_MAX {
        let end = (0..=BYTES_MAX)
            .rev()
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}
