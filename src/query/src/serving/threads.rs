//! Where queries run: on threads of their own, so that no query, however long one of its steps
//! computes, holds up another client, a cancel request or DDL.
//!
//! The batches come back through a channel of [`AHEAD`]. When the reader goes away (cancel,
//! timeout, a lost client) the work is aborted where it next yields, and a flag tells it to come
//! there soon: every node of the plan is [`watched`](super::watched).

use super::memory::OneQuery;
use super::planning::panicked;
use super::watched::{Bounds, FIRST_STEP_BYTES, watched};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use futures::{FutureExt, StreamExt};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::Error;
use tokio::sync::mpsc;

/// Batches that a query computes ahead of its reader; while that reader is busy, one more waits.
const AHEAD: usize = 1;

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

    /// Runs a plan with this memory in steps of so many bytes and gives its rows, and the plan as
    /// it runs, which measures itself. A panic is an error of the query.
    pub fn run(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        task: Arc<TaskContext>,
        memory: Arc<OneQuery>,
        taker: Taker,
        step: usize,
    ) -> Result<Running> {
        let stop = memory.stop();
        let bounds = Bounds {
            stop: stop.clone(),
            first_step: match taker {
                Taker::Client => FIRST_STEP_BYTES.min(step),
                Taker::Statement => step,
            },
            step,
        };
        let plan = watched(plan, &bounds)?;
        let (schema, running) = (plan.schema(), plan.clone());
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
        let runtime = self
            .0
            .as_ref()
            .ok_or_else(|| DataFusionError::External(Box::new(Error::shutting_down())))?;
        let handle = runtime.spawn(AssertUnwindSafe(work).catch_unwind());
        memory.begins(handle.abort_handle());
        let work = Work {
            handle,
            stop,
            memory,
        };
        let rows = futures::stream::unfold(Some((receiver, work)), |state| async move {
            let (mut receiver, mut work) = state?;
            match receiver.recv().await {
                Some(Ok(batch)) => Some((Ok(batch), Some((receiver, work)))),
                Some(Err(e)) => Some((Err(work.told(e)), Some((receiver, work)))),
                // The end, or a panic on the way there.
                None => match (&mut work.handle).await {
                    Ok(Ok(())) => None,
                    Ok(Err(panic)) => {
                        let e = panicked("the query failed inside", &*panic);
                        Some((Err(DataFusionError::External(Box::new(e))), None))
                    }
                    Err(e) => {
                        let e = work.told(DataFusionError::ExecutionJoin(Box::new(e)));
                        Some((Err(e), None))
                    }
                },
            }
        });
        Ok(Running {
            plan: running,
            rows: Box::pin(RecordBatchStreamAdapter::new(schema, rows)),
        })
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

/// Who takes the rows of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// A client, which may take its time.
    Client,
    /// A statement that does something with them.
    Statement,
}

/// A plan that runs.
pub struct Running {
    /// As it runs.
    pub plan: Arc<dyn ExecutionPlan>,
    /// What it gives.
    pub rows: SendableRecordBatchStream,
}

/// The work on a plan; dropped, it stops.
struct Work {
    handle: tokio::task::JoinHandle<std::thread::Result<()>>,
    stop: Arc<AtomicBool>,
    memory: Arc<OneQuery>,
}

impl Work {
    /// An error as the client is told: why the query was ended, if it was.
    fn told(&self, error: DataFusionError) -> DataFusionError {
        let refusal = self.memory.refusal();
        refusal.map_or(error, |e| DataFusionError::External(Box::new(e)))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handle.abort();
    }
}
