//! Whether memory runs short. Then nothing more is taken in: sources are not read, jobs that are
//! being created wait. What is on its way goes on.

use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Default)]
pub struct Pressure(AtomicBool);

impl Pressure {
    /// Whether it does.
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// It does, or does not any more. Returns what was before.
    pub fn set(&self, is_high: bool) -> bool {
        self.0.swap(is_high, Ordering::Relaxed)
    }
}
