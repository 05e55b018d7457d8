//! The threads of a node that it cannot do without.

use tidemark_common::Result;
use tidemark_common::machine::{self, Thread};

/// A thread whose panic ends the process.
pub fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let thread = name.clone();
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            // Without this thread nothing would ever complete; what was decided comes back by
            // replay.
            tracing::error!(
                thread,
                "a thread of the engine ended by a broken invariant: the server exits"
            );
            machine::exit(70);
        }
    };
    machine::thread(name, guarded)
}
