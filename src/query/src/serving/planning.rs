//! Where statements are parsed and planned: on threads of their own, with stacks for the deepest
//! statement that is allowed, so that planning, however long it takes, holds up no other client.
//!
//! Who waits may go away (cancel, timeout, a lost client): then a flag tells the planning thread,
//! which stops at the next rule or node. Its place is free at once, though: [`PLACES`] plannings
//! are waited for at a time, and a thread that nobody waits for takes none of them. There are
//! [`THREADS_MAX`] threads; when every one of them still computes, a statement is refused rather
//! than left waiting. Idle threads end after a while. A panic is the statement's error.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use tidemark_common::metrics::{self, IntCounter, IntGauge};
use tidemark_common::{Error, Result, STACK_BYTES, SqlState};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Plannings that are waited for at a time; more wait for one to end.
const PLACES: usize = 64;

/// Plannings at a time, with those that nobody waits for any more.
const THREADS_MAX: usize = 512;

/// Plannings that go on, those that nobody waits for any more among them.
static GOING_ON: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Statements that are being planned, those that were given up among them";
    metrics::gauge("tidemark_plannings", help, &[]).with_label_values(&[] as &[&str])
});

/// Plannings so far.
static BEGUN: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Statements that went to be planned: those by key and with kept plans do not";
    metrics::counter("tidemark_plannings_total", help, &[]).with_label_values(&[] as &[&str])
});

/// Counts a planning while it goes on.
struct GoingOn;

impl GoingOn {
    fn begin() -> GoingOn {
        GOING_ON.inc();
        BEGUN.inc();
        GoingOn
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        GOING_ON.dec();
    }
}

/// The threads.
pub struct Planning {
    runtime: Option<Runtime>,
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

/// Somebody waits for a planning; when dropped, nobody does.
struct Waiting {
    stop: Arc<AtomicBool>,
    task: tokio::task::AbortHandle,
    _place: OwnedSemaphorePermit,
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
        Planning::with(PLACES, THREADS_MAX)
    }

    fn with(places: usize, threads: usize) -> Result<Planning> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(threads)
            .thread_name("planning")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        Ok(Planning {
            runtime: Some(runtime),
            places: Arc::new(Semaphore::new(places)),
            threads: Arc::new(Semaphore::new(threads)),
        })
    }

    /// Runs `work` on one of the threads; it may wait for futures by [`wait`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().ok_or_else(Error::shutting_down)?;
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|_| Error::shutting_down())?;
        let thread = self.threads.clone().try_acquire_owned().map_err(|_| {
            let e = Error::unavailable(SqlState("53000"), "too many statements are being planned");
            e.with_hint("Statements that were given up still end their last step: try again soon.")
        })?;
        let stop = Arc::<AtomicBool>::default();
        let flag = stop.clone();
        let task = runtime.spawn_blocking(move || {
            let (_thread, _going_on) = (thread, GoingOn::begin());
            tidemark_common::interruptible(flag, work)
        });
        let _waiting = Waiting {
            stop,
            task: task.abort_handle(),
            _place: place,
        };
        match task.await {
            Ok(outcome) => outcome,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => Err(panicked("planning failed inside", &*panic)),
                Err(_) => Err(Error::shutting_down()),
            },
        }
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        // Not waited for: a runtime must not be waited for by a thread of another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for a future within [`Planning::run`].
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    Handle::current().block_on(future)
}

/// A panic as the error of a statement. Arrow has no other answer to a column whose values are
/// larger together than 32 bits count.
pub fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given");
    if text.contains("offset overflow") {
        return Error::user(
            SqlState("54000"),
            "values that are computed together are larger than 2 GiB",
        );
    }
    Error::internal(format!("{what}: {text}"))
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
        let huge = || {
            arrow::array::StringArray::new_repeated("x".repeat(1 << 20), 1 << 20);
            Ok(())
        };
        let outcome: Result<()> = planning.run(huge).await;
        assert_eq!(outcome.unwrap_err().state(), SqlState("54000"));
    }

    #[tokio::test]
    async fn planning_stops_when_nobody_waits() {
        let planning = Planning::new().unwrap();
        let (told, tell) = tokio::sync::oneshot::channel();
        let work = planning.run(move || {
            let outcome = loop {
                if let Err(e) = tidemark_common::check_interrupt() {
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

    /// Plannings that nobody waits for and that do not stop; they end with the flag.
    async fn given_up(planning: &Planning, count: usize, end: &Arc<AtomicBool>) {
        for _ in 0..count {
            let (begun, begins) = tokio::sync::oneshot::channel();
            let end = end.clone();
            let work = planning.run(move || {
                let _ = begun.send(());
                while !end.load(Ordering::Relaxed) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Ok(())
            });
            tokio::select! {
                biased;
                _ = work => unreachable!("it does not end"),
                begun = begins => begun.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn a_planning_that_was_given_up_takes_nobodys_place() {
        let planning = Planning::with(2, 6).unwrap();
        let end = Arc::<AtomicBool>::default();
        given_up(&planning, 5, &end).await;
        assert_eq!(planning.run(|| Ok(7)).await.unwrap(), 7);
        // The thread gives its place back when it has answered.
        while planning.threads.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        given_up(&planning, 1, &end).await;
        let refused = planning.run(|| Ok(7)).await.unwrap_err();
        assert_eq!(refused.state(), SqlState("53000"));
        end.store(true, Ordering::Relaxed);
        while planning.threads.available_permits() < 6 {
            tokio::task::yield_now().await;
        }
        assert_eq!(planning.run(|| Ok(7)).await.unwrap(), 7);
    }
}
