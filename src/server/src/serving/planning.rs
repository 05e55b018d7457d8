//! Where statements are parsed and planned: on threads of their own, with stacks for the deepest
//! statement that is allowed, so that planning, however long it takes, holds up no other client.
//!
//! Who waits may go away (cancel, timeout, a lost client): then a flag tells the planning thread,
//! which stops at the next rule or node. There is a thread for each planning, up to
//! [`THREADS_MAX`]; idle ones end after a while. A panic is the statement's error.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::{Error, Result, STACK_BYTES, SqlState};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Plannings at a time; more wait for one to end.
const THREADS_MAX: usize = 64;

/// The threads.
pub struct Planning(Option<Runtime>);

/// Somebody waits for a planning; when dropped, nobody does.
struct Waiting {
    stop: Arc<AtomicBool>,
    task: tokio::task::AbortHandle,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Ends it only if it has not begun.
        self.task.abort();
    }
}

impl Planning {
    /// Threads are started when they are needed.
    pub fn new() -> Result<Planning> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS_MAX)
            .thread_name("planning")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        Ok(Planning(Some(runtime)))
    }

    /// Runs `work` on one of the threads; it may wait for futures by [`wait`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ending = || Error::unavailable(SqlState("57P01"), "the server is shutting down");
        let runtime = self.0.as_ref().ok_or_else(ending)?;
        let stop = Arc::<AtomicBool>::default();
        let flag = stop.clone();
        let task = runtime.spawn_blocking(move || tidemark_planner::interruptible(flag, work));
        let _waiting = Waiting {
            stop,
            task: task.abort_handle(),
        };
        match task.await {
            Ok(outcome) => outcome,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => Err(Error::internal(format!(
                    "planning failed inside: {}",
                    text_of(&*panic)
                ))),
                Err(_) => Err(ending()),
            },
        }
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        // Not waited for: a runtime must not be waited for by a thread of another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for a future within [`Planning::run`].
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    Handle::current().block_on(future)
}

/// Plans on this thread, while others take over what else it would do.
pub fn here<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// What a panic says.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_statements_error() {
        let planning = Planning::new().unwrap();
        let outcome: Result<()> = planning.run(|| panic!("of {}", "all")).await;
        let e = outcome.unwrap_err();
        assert_eq!(e.state(), SqlState::INTERNAL);
        assert_eq!(e.message(), "planning failed inside: of all");
    }

    #[tokio::test]
    async fn planning_stops_when_nobody_waits() {
        let planning = Planning::new().unwrap();
        let (told, tell) = tokio::sync::oneshot::channel();
        let work = planning.run(move || {
            let outcome = loop {
                if let Err(e) = tidemark_planner::check_interrupt() {
                    break e;
                }
                std::thread::yield_now();
            };
            let _ = told.send(outcome.state());
            Ok(())
        });
        tokio::select! {
            biased;
            _ = work => unreachable!("it never ends by itself"),
            () = tokio::task::yield_now() => {}
        }
        // A task that had not begun is gone with its sender.
        if let Ok(state) = tell.await {
            assert_eq!(state, SqlState::QUERY_CANCELED);
        }
    }
}
