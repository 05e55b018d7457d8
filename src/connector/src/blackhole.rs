//! The sink that counts and forgets. It has no marker: nothing is expected of it after a restart.

use crate::metrics::SinkMetrics;
use crate::options::Options;
use tidemark_changelog::connector::{SinkEpoch, SinkMarker, SinkWriter};
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

    fn deliver(&mut self, epochs: &[SinkEpoch]) -> Result<()> {
        let rows: usize = epochs
            .iter()
            .flat_map(|e| &e.changes)
            .map(|c| c.num_rows())
            .sum();
        self.metrics.records.inc_by(rows as u64);
        self.metrics.epochs.inc_by(epochs.len() as u64);
        Ok(())
    }
}
