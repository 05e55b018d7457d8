//! The connectors of a process that is simulated: those of the product, with the broker of the
//! simulation in the place of Kafka.

use super::super::alive::Alive;
use super::client::Client;
use super::direct::SimBroker;
use super::sink::{self, SimSink};
use super::source::SimSource;
use std::sync::Arc;
use tidemark_changelog::connector::{SinkWriter, SourceConnector};
use tidemark_common::Result;
use tidemark_connector::{Connectors, RealConnectors, SinkIdentity};
use tidemark_plan::{Column, ConnectorSpec};

/// See the module.
#[derive(Clone)]
pub struct SimConnectors {
    /// Whom they ask.
    pub broker: SimBroker,
    /// Whether the process lives.
    pub alive: Alive,
}

impl SimConnectors {
    fn client(&self) -> Client {
        Client {
            broker: self.broker.clone(),
            alive: self.alive.clone(),
            brokers: String::new(),
        }
    }
}

fn is_kafka(spec: &ConnectorSpec) -> bool {
    spec.connector == "kafka"
}

impl Connectors for SimConnectors {
    fn source(&self, spec: &ConnectorSpec, columns: &[Column]) -> Result<Arc<dyn SourceConnector>> {
        match is_kafka(spec) {
            true => Ok(Arc::new(SimSource::new(self.client(), spec, columns)?)),
            false => RealConnectors.source(spec, columns),
        }
    }

    fn sink(
        &self,
        spec: &ConnectorSpec,
        columns: &[Column],
        identity: SinkIdentity,
        append_only: bool,
    ) -> Result<Box<dyn SinkWriter>> {
        match is_kafka(spec) {
            true => {
                let sink = SimSink::new(self.client(), spec, identity, append_only)?;
                Ok(Box::new(sink))
            }
            false => RealConnectors.sink(spec, columns, identity, append_only),
        }
    }

    fn prepare_sink(&self, spec: &ConnectorSpec, identity: &SinkIdentity) -> Result<()> {
        match is_kafka(spec) {
            true => sink::prepare(self.client(), spec, identity),
            false => RealConnectors.prepare_sink(spec, identity),
        }
    }
}
