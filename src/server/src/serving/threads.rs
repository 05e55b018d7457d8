//! Where queries run: on threads of their own, so that no query, however long one of its steps
//! computes, holds up another client, a cancel request or DDL.
//!
//! The batches come back through a channel of [`AHEAD`]. When the reader goes away (cancel,
//! timeout, a lost client) the work is aborted where it next yields. A join without equality
//! computes for minutes without yielding when its condition rejects everything; its condition
//! therefore looks at a flag.

use super::planning::panicked;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ExecutionPlan, PhysicalExpr, SendableRecordBatchStream, execute_stream,
};
use futures::{FutureExt, StreamExt};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::{Error, SqlState};
use tokio::sync::mpsc;

/// Batches that a query computes ahead of its reader.
const AHEAD: usize = 2;

/// The threads.
pub struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    /// Starts them: more than there are cores, since a query that computes without yielding keeps
    /// its own.
    pub fn new() -> tidemark_common::Result<Threads> {
        let threads = (2 * num_cpus::get()).max(4);
        Ok(Threads(Some(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("query")
                .thread_stack_size(tidemark_common::STACK_BYTES)
                .enable_all()
                .build()?,
        )))
    }

    /// Runs a plan and gives its rows. A panic is an error of the query.
    pub fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let stop = Arc::new(AtomicBool::new(false));
        let plan = interruptible(plan, &stop)?;
        let schema = plan.schema();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let work = async move {
            let mut stream = match execute_stream(plan, task) {
                Ok(stream) => stream,
                Err(e) => return drop(sender.send(Err(e)).await),
            };
            while let Some(batch) = stream.next().await {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        };
        let runtime = self.0.as_ref().ok_or_else(|| {
            DataFusionError::External(Box::new(Error::unavailable(
                SqlState("57P01"),
                "the server is shutting down",
            )))
        })?;
        let work = Work {
            handle: runtime.spawn(AssertUnwindSafe(work).catch_unwind()),
            stop,
        };
        let rows = futures::stream::unfold(Some((receiver, work)), |state| async move {
            let (mut receiver, mut work) = state?;
            match receiver.recv().await {
                Some(batch) => Some((batch, Some((receiver, work)))),
                // The end, or a panic on the way there.
                None => match (&mut work.handle).await {
                    Ok(Ok(())) => None,
                    Ok(Err(panic)) => {
                        let e = panicked("the query failed inside", &*panic);
                        Some((Err(DataFusionError::External(Box::new(e))), None))
                    }
                    Err(e) => Some((Err(DataFusionError::ExecutionJoin(Box::new(e))), None)),
                },
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not waited for: a runtime must not be waited for by a thread of another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A running plan; dropped, it stops.
struct Work {
    handle: tokio::task::JoinHandle<std::thread::Result<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handle.abort();
    }
}

/// The plan with conditions of joins that look at the flag.
fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    stop: &Arc<AtomicBool>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let done = plan.transform_up(|plan| {
        let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() else {
            return Ok(Transformed::no(plan));
        };
        let Some(filter) = join.filter() else {
            return Ok(Transformed::no(plan));
        };
        let condition = Arc::new(Interruptible {
            inner: filter.expression().clone(),
            stop: stop.clone(),
        });
        let filter = JoinFilter::new(
            condition,
            filter.column_indices().to_vec(),
            filter.schema().clone(),
        );
        Ok(Transformed::yes(Arc::new(
            NestedLoopJoinExecBuilder::from(join)
                .with_filter(Some(filter))
                .build()?,
        )))
    })?;
    Ok(done.data)
}

/// An expression that fails when nobody waits for it any more.
#[derive(Clone, Debug)]
struct Interruptible {
    inner: Arc<dyn PhysicalExpr>,
    stop: Arc<AtomicBool>,
}

impl PartialEq for Interruptible {
    fn eq(&self, other: &Interruptible) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Interruptible {}

impl Hash for Interruptible {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Interruptible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl PhysicalExpr for Interruptible {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.inner.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.inner.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(DataFusionError::External(Box::new(Error::user(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ))));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children
            .pop()
            .ok_or_else(|| DataFusionError::Internal("an expression is expected".into()))?;
        Ok(Arc::new(Interruptible {
            inner,
            stop: self.stop.clone(),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
