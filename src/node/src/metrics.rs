//! The figures of `/metrics`: gauges that are set when somebody looks, from what the engine keeps
//! anyway. Nothing here is touched by a worker.

use crate::engine::Engine;
use prometheus::IntGaugeVec;
use std::sync::LazyLock;
use tidemark_common::metrics::gauge;

static EPOCH: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_epoch",
        "newest epoch, by what it has reached",
        &["state"],
    )
});
static JOB_ROWS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_job_rows_total",
        "rows that entered a job, of a sink rows that left it, since the process started",
        &["job", "kind"],
    )
});
static JOB_LATE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_job_late_rows_total",
        "late rows that were left out",
        &["job", "kind"],
    )
});
static JOB_STATE_BYTES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_job_state_bytes",
        "bytes of state in memory, as of the last checkpoint",
        &["job", "kind"],
    )
});
static JOB_RUNNING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_job_running",
        "1 when the job runs, 0 when it is being created or stopped",
        &["job", "kind"],
    )
});
static JOB_HALTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_job_halted",
        "1 when the job stopped or is held back and waits to be resumed, else 0",
        &["job", "kind"],
    )
});
static SINK_UNDELIVERED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_sink_undelivered_epochs",
        "epochs that a sink has not delivered",
        &["job"],
    )
});
static CHECKPOINT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_checkpoint",
        "the last committed checkpoint: epoch, duration_ms, bytes, files",
        &["figure"],
    )
});
static EDGE_BYTES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_edge_waiting_bytes",
        "bytes on their way to the actors of a worker",
        &["worker"],
    )
});
static ERRORS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "tidemark_errors_kept",
        "rows of tidemark.errors",
        &["relation"],
    )
});

impl Engine {
    /// Sets all gauges to what is true now; called before they are printed.
    pub fn observe(&self) {
        // Published first: it never runs ahead of what is decided, and neither may the figures.
        EPOCH
            .with_label_values(&["published"])
            .set(self.readers().published().0 as i64);
        EPOCH
            .with_label_values(&["decided"])
            .set(self.readers().decided().0 as i64);
        for family in [
            &JOB_ROWS,
            &JOB_LATE,
            &JOB_STATE_BYTES,
            &JOB_RUNNING,
            &JOB_HALTED,
            &SINK_UNDELIVERED,
            &ERRORS,
        ] {
            family.reset();
        }
        for job in self.jobs() {
            let labels = [job.name.as_str(), job.kind];
            JOB_ROWS.with_label_values(&labels).set(job.rows as i64);
            JOB_LATE
                .with_label_values(&labels)
                .set(job.late_rows as i64);
            JOB_STATE_BYTES
                .with_label_values(&labels)
                .set(job.memory_bytes as i64);
            JOB_RUNNING
                .with_label_values(&labels)
                .set(i64::from(job.state == "running"));
            JOB_HALTED
                .with_label_values(&labels)
                .set(i64::from(matches!(job.state, "stopped" | "held back")));
            if job.kind == "sink" {
                SINK_UNDELIVERED
                    .with_label_values(&[job.name.as_str()])
                    .set(job.undelivered_epochs as i64);
            }
        }
        if let Some(last) = self.checkpoints().last() {
            for (figure, value) in [
                ("epoch", last.epoch.0),
                ("duration_ms", last.duration_ms),
                ("bytes", last.bytes),
                ("files", last.files),
            ] {
                CHECKPOINT.with_label_values(&[figure]).set(value as i64);
            }
        }
        for (worker, bytes) in self.load().bytes().enumerate() {
            EDGE_BYTES
                .with_label_values(&[&worker.to_string()])
                .set(bytes as i64);
        }
        let catalog = self.catalog();
        ERRORS.reset();
        for (relation, kept) in self.kept_errors().lock().counts() {
            let name = catalog
                .relations
                .get(&relation)
                .map_or("", |r| r.name.as_str());
            ERRORS
                .with_label_values(&[&format!("{name} ({relation})")])
                .set(kept as i64);
        }
    }
}
