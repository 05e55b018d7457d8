//! Time, behind a door: everything that asks what time it is asks here, so that a simulation can
//! answer instead.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01 00:00 UTC on this machine's clock. Only the coordinator asks this;
/// what a job may see is the clock of its epoch.
pub fn now_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64)
}
