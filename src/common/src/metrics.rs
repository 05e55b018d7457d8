//! The metrics registry. Metrics are declared beside what they describe with [`counter`] and
//! [`gauge`] and kept in a static there; `/metrics` prints them all. Label values are created once
//! (at job start), never on a hot path.

use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};
use std::sync::OnceLock;

pub use prometheus::{IntCounter, IntGauge, IntGaugeVec};

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::new)
}

/// A family of counters; `name` ends in its unit, `_total` for counts.
pub fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family =
        IntCounterVec::new(Opts::new(name, help), labels).expect("a static metric name is valid");
    registry()
        .register(Box::new(family.clone()))
        .expect("a metric is declared once");
    family
}

/// A family of gauges; `name` ends in its unit.
pub fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let family =
        IntGaugeVec::new(Opts::new(name, help), labels).expect("a static metric name is valid");
    registry()
        .register(Box::new(family.clone()))
        .expect("a metric is declared once");
    family
}

/// All metrics in Prometheus' text format.
pub fn render() -> String {
    TextEncoder::new()
        .encode_to_string(&registry().gather())
        .unwrap_or_default()
}
