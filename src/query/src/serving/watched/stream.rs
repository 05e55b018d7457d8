//! The batches of one watched node.

use super::piecewise::{Pace, is_repeatable, limit};
use super::{BATCH_BYTES, Bounds, PASSED_FOR_ONE, Pairs};
use crate::error::from_datafusion;
use crate::serving::collect::rows_bytes;
use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::BaselineMetrics;
use futures::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tidemark_common::memory::about;
use tidemark_common::{Error, SqlState, interruptible};
use tidemark_operator::functions::{
    Room, check_bytes, column_bytes, is_too_large, with_room, within,
};

/// Batches after which the thread goes on with another query. They are counted where they are
/// given, not with every question for one, as tokio's budget does: of a plan that is deeper than
/// that budget no step would ever get to the rows.
const BATCHES_OF_A_TURN: usize = 32;

/// What is done with each batch.
pub(super) enum Work {
    /// Goes on.
    Pass,
    /// Goes to the client, a step at a time.
    Leave,
    /// Is what these are computed from.
    Compute {
        values: Arc<[Arc<dyn PhysicalExpr>]>,
        metrics: BaselineMetrics,
    },
    /// Is counted as long as the stream lives.
    Keep,
    /// Its widest row is told.
    Measure(Arc<AtomicUsize>),
    /// Goes on in pieces, whose rows may each stand beside such a row, or will.
    Beside(Arc<AtomicUsize>, Pairs),
}

/// What values take while they are made in one step.
struct Making(MemoryReservation);

impl Room for Making {
    fn take(&self, bytes: u64) -> tidemark_common::Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.0.try_grow(bytes).map_err(from_datafusion)
    }
}

/// The batches, in pieces.
pub(super) struct Pieces {
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    work: Work,
    bounds: Bounds,
    memory: MemoryReservation,
    making: Arc<Making>,
    /// What is left of a batch.
    rest: Option<RecordBatch>,
    /// Rows of a piece at most.
    pace: Pace,
    /// Batches given since others had a turn.
    given: usize,
    /// Bytes given, of those who have steps.
    passed: usize,
}

impl Pieces {
    /// Of a node's input or output, with the schema of its output.
    pub(super) fn new(
        input: SendableRecordBatchStream,
        schema: SchemaRef,
        work: Work,
        bounds: Bounds,
        task: &TaskContext,
    ) -> Pieces {
        Pieces {
            input,
            schema,
            work,
            bounds,
            memory: MemoryConsumer::new("values").register(task.memory_pool()),
            making: Arc::new(Making(
                MemoryConsumer::new("values being made").register(task.memory_pool()),
            )),
            rest: None,
            pace: Pace::of(usize::MAX),
            given: 0,
            passed: 0,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        if self.rest.is_none() {
            match ready!(self.input.poll_next_unpin(cx)) {
                Some(Ok(batch)) => {
                    if let Err(e) = self.begin(&batch) {
                        return Poll::Ready(Some(Err(e)));
                    }
                    self.rest = Some(batch);
                }
                end => return Poll::Ready(end),
            }
        }
        Poll::Ready(self.piece().transpose())
    }

    /// Bytes of the next step.
    fn step(&self) -> usize {
        let grown = (self.passed / PASSED_FOR_ONE).max(self.bounds.first_step);
        grown.min(self.bounds.step)
    }

    /// Looks at a batch that has come.
    fn begin(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let fitting = |room: usize| match batch.get_array_memory_size() > room {
            true => rows.saturating_mul(room) / rows_bytes(batch).max(1),
            false => rows,
        };
        match &self.work {
            Work::Compute { .. } => {}
            Work::Keep => self.memory.try_grow(rows_bytes(batch))?,
            Work::Measure(widest) => {
                widest.fetch_max(widest_row(batch), Ordering::Relaxed);
                self.pace = Pace::of(fitting(BATCH_BYTES));
            }
            Work::Beside(widest, pairs) => {
                let widest = widest.load(Ordering::Relaxed);
                if *pairs == Pairs::All {
                    check_product(widest, rows)?;
                }
                let beside = BATCH_BYTES / widest.max(1);
                self.pace = Pace::of(fitting(BATCH_BYTES).min(beside));
            }
            Work::Leave => self.pace = Pace::of(fitting(self.step())),
            Work::Pass => self.pace = Pace::of(fitting(BATCH_BYTES)),
        }
        Ok(())
    }

    /// The next piece of what has come.
    fn piece(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(batch) = self.rest.take() {
            let all = batch.num_rows();
            let rows = self.pace.rows().min(all);
            match self.made(&batch, rows) {
                Err(e) if rows > 1 && is_too_large(&e) && self.may_repeat() => {
                    self.pace.does_not_fit(rows);
                    self.rest = Some(batch);
                }
                Err(e) => return Err(e),
                Ok(piece) => {
                    if matches!(self.work, Work::Compute { .. } | Work::Leave) {
                        self.passed = self.passed.saturating_add(rows_bytes(&piece));
                    }
                    self.rest = (rows < all).then(|| batch.slice(rows, all - rows));
                    // How large the others may be was told with the batch.
                    if let Work::Compute { .. } = self.work {
                        self.pace.fits();
                    }
                    return Ok(Some(piece));
                }
            }
        }
        Ok(None)
    }

    fn may_repeat(&self) -> bool {
        match &self.work {
            Work::Compute { values, .. } => values.iter().all(is_repeatable),
            _ => false,
        }
    }

    /// What becomes of the first rows of a batch. Pieces share no buffers: who keeps one of them
    /// would count, and hold, all.
    fn made(&self, batch: &RecordBatch, rows: usize) -> Result<RecordBatch> {
        let Work::Compute { values, metrics } = &self.work else {
            if rows == batch.num_rows() || batch.num_columns() == 0 {
                return Ok(batch.slice(0, rows));
            }
            let first = UInt32Array::from_iter_values(0..rows as u32);
            return Ok(take_record_batch(batch, &first)?);
        };
        let _timer = metrics.elapsed_compute().timer();
        let batch = batch.slice(0, rows);
        let computed = within(limit(rows, self.step()), || {
            computed(&batch, values, &self.schema)
        })?;
        self.making.0.free();
        self.memory.try_resize(rows_bytes(&computed))?;
        metrics.record_output(rows);
        Ok(computed)
    }
}

/// Bytes that one batch of a cross join may become, however few rows of it at a time.
const PRODUCT_BYTES_MAX: usize = 64 << 30;

/// `54000` where a batch's rows, with a row of this size beside each, would become more than that:
/// it would be copied for minutes.
fn check_product(widest: usize, rows: usize) -> Result<()> {
    if widest.saturating_mul(rows) <= PRODUCT_BYTES_MAX {
        return Ok(());
    }
    let message = "values of a join are larger than 64 GiB together";
    let error = Error::user(SqlState("54000"), message).with_detail(format!(
        "A row of {} is to stand beside {rows} others.",
        about(widest as u64)
    ));
    Err(DataFusionError::External(Box::new(error)))
}

/// The values of a batch's rows.
fn computed(
    batch: &RecordBatch,
    values: &[Arc<dyn PhysicalExpr>],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let column = |value: &Arc<dyn PhysicalExpr>| {
        let value = value.evaluate(batch)?;
        // It is copied into every row.
        if let ColumnarValue::Scalar(_) = &value {
            check_bytes(column_bytes(&value, rows))?;
        }
        value.into_array(rows)
    };
    let columns = values.iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &options,
    )?)
}

/// The size of a batch's widest row, in bytes; that of each column counts.
fn widest_row(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|c| widest_value(c.as_ref())).sum()
}

fn widest_value(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().offsets().lengths().max(),
        DataType::Binary => array.as_binary::<i32>().offsets().lengths().max(),
        DataType::LargeBinary => array.as_binary::<i64>().offsets().lengths().max(),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let most = lists.offsets().lengths().max();
            most.map(|most| most * widest_value(lists.values().as_ref()))
        }
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter();
            Some(fields.map(|f| widest_value(f.as_ref())).sum())
        }
        _ => Some(size_of::<u64>()),
    }
    .unwrap_or(0)
}

impl Stream for Pieces {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stop = self.bounds.stop.clone();
        if stop.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(canceled())));
        }
        if self.given == BATCHES_OF_A_TURN {
            self.given = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let making = self.making.clone();
        let advanced = interruptible(stop, || with_room(making.clone(), || self.advance(cx)));
        making.0.free();
        let given = ready!(advanced);
        self.given += 1;
        Poll::Ready(given)
    }
}

impl RecordBatchStream for Pieces {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// Nobody is there to be told.
fn canceled() -> DataFusionError {
    DataFusionError::External(Box::new(Error::user(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )))
}

#[cfg(test)]
mod tests;
