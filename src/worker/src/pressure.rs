//! Whether memory runs short. Then nothing more is taken in: sources are not read, jobs that are
//! being created wait. What is on its way goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// See the module.
pub struct Pressure {
    is_high: AtomicBool,
    eased: Notify,
    /// In bytes.
    limit: AtomicU64,
    /// What may still be taken in, in bytes.
    room: AtomicU64,
}

impl Default for Pressure {
    fn default() -> Pressure {
        Pressure {
            is_high: AtomicBool::new(false),
            eased: Notify::new(),
            limit: AtomicU64::new(u64::MAX),
            room: AtomicU64::new(u64::MAX),
        }
    }
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

    /// What the process may hold, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// What it may still take in, in bytes, as it was last looked at.
    pub fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// Notes both.
    pub fn note(&self, limit: u64, room: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        self.room.store(room, Ordering::Relaxed);
    }

    /// Waits until it does not any more; what happens from this call on counts.
    pub fn eased(&self) -> Notified<'_> {
        self.eased.notified()
    }
}
