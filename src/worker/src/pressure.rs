//! Whether memory runs short. Then nothing more is taken in: sources are not read, jobs that are
//! being created wait. What is on its way goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// See the module.
#[derive(Default)]
pub struct Pressure {
    is_high: AtomicBool,
    eased: Notify,
}

impl Pressure {
    /// Whether it does.
    pub fn is_high(&self) -> bool {
        self.is_high.load(Ordering::Relaxed)
    }

    /// It does, or does not any more. Returns what was before.
    pub fn set(&self, is_high: bool) -> bool {
        let was_high = self.is_high.swap(is_high, Ordering::Relaxed);
        if was_high && !is_high {
            self.eased.notify_waiters();
        }
        was_high
    }

    /// Waits until it does not any more; what happens from this call on counts.
    pub fn eased(&self) -> Notified<'_> {
        self.eased.notified()
    }
}
