//! Named places in front of each durable step where a crash test can kill the process.
//!
//! `TIDEMARK_FAILPOINT=name` or `name:n` aborts the process at the n-th time that `hit("name")` is
//! reached (n = 1 by default). Without the variable a hit costs one load. Names: `log.append`,
//! `log.sync`, `checkpoint.upload`, `checkpoint.errors`, `checkpoint.manifest`,
//! `checkpoint.commit`, `sink.begin`, `sink.send`, `sink.commit`, `sink.committed`; and
//! `recovery.run`, in front of each run of a job while a node restores and replays.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static CONFIGURED: OnceLock<Option<(String, u64)>> = OnceLock::new();
static HITS: AtomicU64 = AtomicU64::new(0);

/// Aborts the process here when the environment asks for it. Like `kill -9`: nothing is flushed, no
/// destructor runs.
pub fn hit(name: &str) {
    let configured = CONFIGURED.get_or_init(|| {
        let value = std::env::var("TIDEMARK_FAILPOINT").ok()?;
        let (name, count) = value.split_once(':').unwrap_or((&value, "1"));
        Some((name.to_string(), count.parse().unwrap_or(1)))
    });
    if let Some((wanted, count)) = configured
        && wanted == name
        && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        eprintln!("fail-point {name} reached for the {count}th time: aborting");
        std::process::abort();
    }
}
