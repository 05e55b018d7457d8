//! The two ends of a dataflow: sources that turn records into rows, and sinks that turn changes
//! into records.
//!
//! A connector is chosen by the `connector` option of `CREATE SOURCE|TABLE|SINK`. Its options are
//! checked without network by [`check_source`] and [`check_sink`], against the outside by
//! [`check_source_connection`] and [`check_sink_connection`]; [`open_source`] and [`open_sink`]
//! then give what the runtime drives (traits in `tidemark_changelog::connector`). The lines of COPY
//! are split here, too ([`copy`]), beside the other formats.

// Not a part of what is simulated.
#![allow(clippy::disallowed_methods)]

pub mod blackhole;
pub mod copy;
pub mod datagen;
pub mod format;
pub mod generator;
pub mod kafka;
mod metrics;
pub mod nexmark;
pub mod options;
mod outside;
mod random;
pub mod vault;

pub use outside::{Connectors, Outside, RealConnectors};
pub use vault::Vault;

use std::sync::Arc;
use tidemark_changelog::connector::{SinkWriter, SourceConnector};
use tidemark_common::{RelationId, Result};
use tidemark_plan::{Column, ConnectorSpec};

/// The connectors that can be read.
pub const SOURCES: &[&str] = &["kafka", "nexmark", "datagen"];
/// The connectors that can be written.
pub const SINKS: &[&str] = &["kafka", "blackhole"];

/// What makes a sink one and the same over restarts: its transactions and its marker carry this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkIdentity {
    /// The cluster's id, chosen once.
    pub cluster: String,
    /// The sink.
    pub sink: RelationId,
    /// Its name, for messages and metrics.
    pub name: String,
}

/// Checks the options of a source, without network. Errors name the option (`22023`) or the column.
pub fn check_source(spec: &ConnectorSpec, columns: &[Column]) -> Result<()> {
    match spec.connector.as_str() {
        "kafka" => kafka::KafkaSource::new(spec, columns).map(drop),
        "nexmark" => nexmark::open(spec, columns).map(drop),
        "datagen" => datagen::open(spec, columns).map(drop),
        other => Err(unknown(other, "source", SOURCES)),
    }
}

/// The columns of a source whose statement names none, where the connector knows them.
pub fn default_columns(spec: &ConnectorSpec) -> Result<Option<Vec<Column>>> {
    match spec.connector.as_str() {
        "nexmark" => nexmark::default_columns(spec).map(Some),
        _ => Ok(None),
    }
}

/// Checks the options of a sink that sends `columns`, without network.
pub fn check_sink(spec: &ConnectorSpec, columns: &[Column]) -> Result<()> {
    match spec.connector.as_str() {
        "kafka" => kafka::check_sink(spec, columns),
        "blackhole" => blackhole::check(spec),
        other => Err(unknown(other, "sink", SINKS)),
    }
}

/// Asks the outside whether a source can be read: the broker answers within ten seconds (`08006`)
/// and has the topic (`42704`).
pub fn check_source_connection(spec: &ConnectorSpec) -> Result<()> {
    match spec.connector.as_str() {
        "kafka" => kafka::check_source_topic(&options::KafkaSourceOptions::read(spec)?.kafka),
        _ => Ok(()),
    }
}

/// Asks the outside whether a sink can be written, like [`check_source_connection`].
pub fn check_sink_connection(spec: &ConnectorSpec) -> Result<()> {
    match spec.connector.as_str() {
        "kafka" => kafka::check_sink_connection(spec),
        _ => Ok(()),
    }
}

/// Opens a source. Does not wait for the outside: reading retries until it answers.
pub fn open_source(spec: &ConnectorSpec, columns: &[Column]) -> Result<Arc<dyn SourceConnector>> {
    match spec.connector.as_str() {
        "kafka" => Ok(Arc::new(kafka::KafkaSource::new(spec, columns)?)),
        "nexmark" => Ok(Arc::new(nexmark::open(spec, columns)?)),
        "datagen" => Ok(Arc::new(datagen::open(spec, columns)?)),
        other => Err(unknown(other, "source", SOURCES)),
    }
}

/// Opens a sink that sends `columns`; nothing is sent before `recover`. `append_only`: its input
/// never retracts.
pub fn open_sink(
    spec: &ConnectorSpec,
    columns: &[Column],
    identity: SinkIdentity,
    append_only: bool,
) -> Result<Box<dyn SinkWriter>> {
    match spec.connector.as_str() {
        "kafka" => Ok(Box::new(kafka::KafkaSink::new(
            spec,
            columns,
            identity,
            append_only,
        )?)),
        "blackhole" => blackhole::check(spec)
            .map(|()| Box::new(blackhole::Blackhole::new(&identity.name)) as Box<dyn SinkWriter>),
        other => Err(unknown(other, "sink", SINKS)),
    }
}

/// Whether a sink has a marker from its creation on, by which it is seen when markers get lost.
pub fn sink_has_marker(spec: &ConnectorSpec) -> bool {
    spec.connector == "kafka"
}

/// Writes the first marker of a sink that is about to be created, if it has one. Blocking.
pub fn prepare_sink(spec: &ConnectorSpec, identity: &SinkIdentity) -> Result<()> {
    if sink_has_marker(spec) {
        kafka::prepare_sink(spec, identity)?;
    }
    Ok(())
}

fn unknown(connector: &str, what: &str, known: &[&str]) -> tidemark_common::Error {
    options::invalid(format!("connector '{connector}' is not known for a {what}"))
        .with_hint(format!("Use one of: {}.", known.join(", ")))
}
