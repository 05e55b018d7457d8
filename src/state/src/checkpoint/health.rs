//! Whether the store answers: what its last failure was, and since when nothing has succeeded.
//!
//! Every access notes its outcome here; who shows it (`/ready`, `SHOW CHECKPOINTS`, the server's
//! log) only reads. So a store that is away is told of once, however many files wait for it.

use parking_lot::Mutex;
use std::time::Instant;
use tidemark_common::{Error, machine};

/// Shared by all handles of one store.
#[derive(Debug, Default)]
pub struct StoreHealth {
    trouble: Mutex<Option<StoreTrouble>>,
}

/// A store that fails.
#[derive(Clone, Debug)]
pub struct StoreTrouble {
    /// The last failure.
    pub error: Error,
    /// When the first one came after the last success, microseconds since 1970.
    pub since_micros: i64,
    /// The same instant, for durations.
    pub since: Instant,
}

impl StoreHealth {
    /// The store did what it was asked.
    pub fn succeeded(&self) {
        *self.trouble.lock() = None;
    }

    /// It did not.
    pub fn failed(&self, error: &Error) {
        let mut trouble = self.trouble.lock();
        match trouble.as_mut() {
            Some(known) => known.error = error.clone(),
            None => {
                *trouble = Some(StoreTrouble {
                    error: error.clone(),
                    since_micros: machine::micros(),
                    since: machine::now(),
                })
            }
        }
    }

    /// What is wrong now.
    pub fn trouble(&self) -> Option<StoreTrouble> {
        self.trouble.lock().clone()
    }
}
