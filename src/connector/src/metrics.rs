//! What the connectors count. Label values are made when a reader or writer opens, never per batch.

use prometheus::{IntCounter, IntCounterVec};
use std::sync::LazyLock;
use tidemark_common::metrics::counter;

static SOURCE_RECORDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "tidemark_source_records_total",
        "Records read from a source's splits",
        &["connector", "from"],
    )
});
static SOURCE_BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "tidemark_source_bytes",
        "Bytes of keys and values read from a source",
        &["connector", "from"],
    )
});
static SOURCE_ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "tidemark_source_errors_total",
        "Records that could not be decoded",
        &["connector", "from"],
    )
});
static SINK_RECORDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "tidemark_sink_records_total",
        "Records delivered by a sink",
        &["connector", "sink"],
    )
});
static SINK_BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "tidemark_sink_bytes",
        "Bytes of keys and values delivered by a sink",
        &["connector", "sink"],
    )
});
static SINK_EPOCHS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "tidemark_sink_epochs_total",
        "Epochs delivered by a sink",
        &["connector", "sink"],
    )
});

/// Counters of a source.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// Records read.
    pub records: IntCounter,
    /// Bytes of keys and values.
    pub bytes: IntCounter,
    /// Records that could not be decoded.
    pub errors: IntCounter,
}

impl SourceMetrics {
    /// Counters of the source that reads `from` (a topic, a kind of event).
    pub fn new(connector: &str, from: &str) -> SourceMetrics {
        let labels = &[connector, from];
        SourceMetrics {
            records: SOURCE_RECORDS.with_label_values(labels),
            bytes: SOURCE_BYTES.with_label_values(labels),
            errors: SOURCE_ERRORS.with_label_values(labels),
        }
    }
}

/// Counters of a sink.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// Records delivered.
    pub records: IntCounter,
    /// Bytes of keys and values.
    pub bytes: IntCounter,
    /// Epochs delivered.
    pub epochs: IntCounter,
}

impl SinkMetrics {
    /// Counters of the sink called `sink`.
    pub fn new(connector: &str, sink: &str) -> SinkMetrics {
        let labels = &[connector, sink];
        SinkMetrics {
            records: SINK_RECORDS.with_label_values(labels),
            bytes: SINK_BYTES.with_label_values(labels),
            epochs: SINK_EPOCHS.with_label_values(labels),
        }
    }
}
