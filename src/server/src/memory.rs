//! Who holds how much memory, for `SHOW MEMORY` and `/metrics`: parts that add up to what the
//! kernel counts for the process, but for what nobody counts.

use crate::Server;
use std::sync::LazyLock;
use tidemark_common::metrics::{IntGaugeVec, gauge};

static HELD: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_memory_bytes",
        "memory of the process by who holds it; limit is what it may hold, process all of it",
        &["of"],
    )
});

/// A part of the memory.
pub struct Part {
    /// Its label in metrics.
    pub label: &'static str,
    /// What it is, for people.
    pub name: &'static str,
    /// Its size.
    pub bytes: u64,
}

/// What the process holds.
pub struct Held {
    /// By who holds it; last what nobody counts.
    pub parts: Vec<Part>,
    /// All of it.
    pub process: u64,
    /// What it may hold.
    pub limit: u64,
    /// Nothing more is taken in.
    pub is_short: bool,
}

/// Looks.
pub fn held(server: &Server) -> Held {
    let held = server.engine.memory();
    let part = |label, name, bytes| Part { label, name, bytes };
    let mut parts = vec![
        part("state", "state of jobs", held.state),
        part("changes", "changes between jobs", held.on_the_way),
        part(
            "undelivered",
            "changes that sinks have not delivered",
            held.undelivered,
        ),
        part("fetched", "records fetched ahead", held.fetched),
        part("storing", "checkpoints being stored", held.storing),
        part("queries", "queries", server.serving.memory_used()),
        part("sessions", "sessions", server.sessions.bytes()),
        part("program", "program and mapped files", held.program),
        part("free", "free memory that the allocator keeps", held.free),
    ];
    let known: u64 = parts.iter().map(|part| part.bytes).sum();
    let other = held.resident.saturating_sub(known);
    parts.push(part("other", "everything else", other));
    Held {
        parts,
        process: held.resident,
        limit: held.limit,
        is_short: held.is_short,
    }
}

/// Sets the gauges to what is true now.
pub fn observe(server: &Server) {
    let held = held(server);
    let whole = [("process", held.process), ("limit", held.limit)];
    let parts = held.parts.iter().map(|part| (part.label, part.bytes));
    for (label, bytes) in parts.chain(whole) {
        HELD.with_label_values(&[label]).set(bytes as i64);
    }
}
