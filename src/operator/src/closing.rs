//! What closes at a barrier: the watermark of a column of an operator's input, computed of what the
//! barrier promises ([`tidemark_plan::watermark`]).
//!
//! Forgetting what is below it changes no answer, so operators need not do it at every barrier:
//! [`Closing::due`] lets what is kept double first, so that looking for it costs each row a
//! constant.

use crate::Barrier;
use crate::expr::CompiledExpr;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result};
use tidemark_plan::{ColumnWatermark, Term};

/// Entries that an operator keeps before it looks for those that are below its watermark.
const ENTRIES_MIN: usize = 1024;

/// The watermark of a column.
pub struct Closing {
    column: usize,
    terms: Vec<Source>,
    /// The last that was computed.
    watermark: Option<i64>,
    /// What was forgotten last, and how many entries were left.
    forgotten: (Option<i64>, usize),
}

/// A term, and what it was computed of.
struct Source {
    source: RelationId,
    promise: Option<i64>,
    value: Option<i64>,
    schema: SchemaRef,
    expr: CompiledExpr,
}

impl Closing {
    /// Of a column of `input`.
    ///
    /// Errors: those of compiling its expressions.
    pub fn new(watermark: &ColumnWatermark, input: &SchemaRef) -> Result<Closing> {
        let output = input.field(watermark.column).data_type();
        let source = |term: &Term| {
            let field = Field::new("promise", term.event_time.clone(), false);
            let schema = Arc::new(Schema::new(vec![field]));
            Ok(Source {
                source: term.source,
                promise: None,
                value: None,
                expr: CompiledExpr::new(&term.value, &schema, output)?,
                schema,
            })
        };
        let terms: Result<Vec<Source>> = watermark.terms.iter().map(source).collect();
        Ok(Closing {
            column: watermark.column,
            terms: terms?,
            watermark: None,
            forgotten: (None, 0),
        })
    }

    /// The column.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The watermark from this barrier on, in the column's own unit; `None` as long as a source has
    /// promised nothing.
    pub fn watermark(&mut self, barrier: &Barrier) -> Result<Option<i64>> {
        let mut least = Some(i64::MAX);
        for term in &mut self.terms {
            if let Some(promise) = barrier.watermarks.get(&term.source)
                && term.promise.is_none_or(|before| before < *promise)
            {
                term.promise = Some(*promise);
                term.value = term.evaluate(*promise)?.max(term.value);
            }
            least = least.min(term.value);
        }
        self.watermark = least;
        Ok(self.watermark)
    }

    /// What is to be forgotten at this barrier, by one who keeps so many entries: all below this.
    pub fn due(&mut self, barrier: &Barrier, entries: usize) -> Result<Option<i64>> {
        let (forgotten, left) = self.forgotten;
        let watermark = self.watermark(barrier)?;
        Ok(watermark.filter(|_| watermark > forgotten && entries >= 2 * left + ENTRIES_MIN))
    }

    /// All below the watermark is forgotten, and so many entries are left.
    pub fn forgot(&mut self, left: usize) {
        self.forgotten = (self.watermark, left);
    }
}

impl Source {
    fn evaluate(&self, promise: i64) -> Result<Option<i64>> {
        let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
        let promise: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![promise]));
        let promise = cast(&promise, self.schema.field(0).data_type()).map_err(internal)?;
        let batch = RecordBatch::try_new(self.schema.clone(), vec![promise]).map_err(internal)?;
        let evaluated = self.expr.evaluate(&batch)?;
        Ok(moments(&evaluated.array).next().flatten())
    }
}

/// The values of a column that may have a watermark, in its own unit.
pub fn moments(values: &ArrayRef) -> Box<dyn Iterator<Item = Option<i64>> + '_> {
    match values.data_type() {
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            Box::new(days.iter().map(|day| day.map(i64::from)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Box::new(values.as_primitive::<TimestampMicrosecondType>().iter())
        }
        _ => Box::new(std::iter::repeat_n(None, values.len())),
    }
}

/// Which of some ids have values below a watermark.
pub fn below(ids: &[u32], values: &ArrayRef, watermark: i64) -> Vec<u32> {
    let ids = ids.iter().zip(moments(values));
    let is_below = |moment: Option<i64>| moment.is_some_and(|moment| moment < watermark);
    ids.filter(|(_, moment)| is_below(*moment))
        .map(|(id, _)| *id)
        .collect()
}
