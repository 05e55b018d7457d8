//! The sink that counts and forgets. It has no marker: nothing is expected of it after a restart.

use crate::metrics::SinkMetrics;
use crate::options::Options;
use tidemark_changelog::connector::{Delivered, SinkContent, SinkDelivery, SinkMarker, SinkWriter};
use tidemark_common::Result;
use tidemark_plan::ConnectorSpec;

/// Refuses options that mean nothing here.
pub fn check(spec: &ConnectorSpec) -> Result<()> {
    Options::of(spec).refuse_unknown(
        &[
            "type",
            "primary_key",
            "snapshot",
            "force_append_only",
            "delivery",
        ],
        &[],
    )
}

/// Counts rows and epochs.
pub struct Blackhole {
    metrics: SinkMetrics,
}

impl Blackhole {
    /// The sink called `name`.
    pub fn new(name: &str) -> Blackhole {
        Blackhole {
            metrics: SinkMetrics::new("blackhole", name),
        }
    }
}

impl SinkWriter for Blackhole {
    fn recover(&mut self) -> Result<Option<SinkMarker>> {
        Ok(None)
    }

    fn deliver(&mut self, delivery: &SinkDelivery) -> Result<Delivered> {
        let (epochs, last) = match &delivery.content {
            SinkContent::Epochs(epochs) => (epochs.as_slice(), epochs.len()),
            SinkContent::Part { part, .. } => (std::slice::from_ref(part), 0),
        };
        let rows: usize = epochs.iter().map(|e| e.num_rows()).sum();
        self.metrics.records.inc_by(rows as u64);
        self.metrics.epochs.inc_by(last as u64);
        Ok(Delivered {
            marker: delivery.marker_after(last, rows as u64),
            refused: Vec::new(),
        })
    }
}
