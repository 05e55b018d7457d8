//! Session windows as window functions: `SESSION(r, t, gap, k)` in FROM becomes a subquery of `r`
//! in which these two, over the rows of each `k` in the order of `t`, give the beginning and the
//! end of a row's session (`bind::expand`). Rows that follow each other within the gap are one
//! session.
//!
//! In a view they are an operator of their own (`lower::session`). A query that is only read has
//! them as window functions of DataFusion's, which are here.

use crate::error::external;
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use datafusion_common::arrow::compute::cast;
use datafusion_common::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion_common::{Result, exec_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

/// The first row's time.
pub(crate) const START: &str = "session start";
/// The last row's time, and the gap.
pub(crate) const END: &str = "session end";

/// One of the two, by its name.
pub fn function(name: &str) -> Option<Arc<WindowUDF>> {
    let name = [START, END].into_iter().find(|known| *known == name)?;
    Some(Arc::new(WindowUDF::from(Bound {
        name,
        signature: Signature::any(2, Volatility::Immutable),
    })))
}

/// A bound of a session, as a function of a time and of the gap in microseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bound {
    name: &'static str,
    signature: Signature,
}

impl WindowUDFImpl for Bound {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let time = args.input_fields().first().map(|f| f.data_type());
        match time {
            Some(time @ DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                Ok(Arc::new(Field::new(args.name(), time.clone(), true)))
            }
            _ => {
                let message = "the time of SESSION is a timestamp or a timestamptz";
                Err(external(Error::user(SqlState::DATATYPE_MISMATCH, message)))
            }
        }
    }
    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator {
            is_end: self.name == END,
        }))
    }
}

#[derive(Debug)]
struct Evaluator {
    is_end: bool,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let [times, gaps] = values else {
            return exec_err!("a session is of a time and a gap");
        };
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = times.data_type() else {
            return exec_err!("a session is of timestamps");
        };
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let gaps = cast(gaps, &DataType::Int64)?;
        let gap = gaps.as_primitive::<Int64Type>().values().first().copied();
        let gap = gap.unwrap_or(0);
        let rows: Vec<Option<i64>> = times.iter().collect();
        let goes_on = |a: &Option<i64>, b: &Option<i64>| match (a, b) {
            (Some(a), Some(b)) => b.saturating_sub(*a) <= gap,
            _ => false,
        };
        let mut bounds = Vec::with_capacity(rows.len());
        for session in rows.chunk_by(goes_on) {
            let bound = match self.is_end {
                true => session[session.len() - 1].map(|last| last.saturating_add(gap)),
                false => session[0],
            };
            bounds.extend(session.iter().map(|_| bound));
        }
        let bounds = TimestampMicrosecondArray::from(bounds);
        Ok(Arc::new(bounds.with_timezone_opt(zone.clone())))
    }
}
