//! The outside as a node reaches it: connectors, opened with the secrets among their options.

use crate::{SinkIdentity, Vault};
use std::sync::Arc;
use tidemark_changelog::connector::{SinkWriter, SourceConnector};
use tidemark_common::{Error, Result};
use tidemark_plan::{Column, ConnectorSpec, Relation};

/// Who opens connectors. The options have no secrets hidden any more.
pub trait Connectors: Send + Sync {
    /// See [`open_source`](crate::open_source).
    fn source(&self, spec: &ConnectorSpec, columns: &[Column]) -> Result<Arc<dyn SourceConnector>>;
    /// See [`open_sink`](crate::open_sink).
    fn sink(
        &self,
        spec: &ConnectorSpec,
        columns: &[Column],
        identity: SinkIdentity,
        append_only: bool,
    ) -> Result<Box<dyn SinkWriter>>;
    /// See [`prepare_sink`](crate::prepare_sink).
    fn prepare_sink(&self, spec: &ConnectorSpec, identity: &SinkIdentity) -> Result<()>;
}

/// Those of this crate.
pub struct RealConnectors;

impl Connectors for RealConnectors {
    fn source(&self, spec: &ConnectorSpec, columns: &[Column]) -> Result<Arc<dyn SourceConnector>> {
        crate::open_source(spec, columns)
    }

    fn sink(
        &self,
        spec: &ConnectorSpec,
        columns: &[Column],
        identity: SinkIdentity,
        append_only: bool,
    ) -> Result<Box<dyn SinkWriter>> {
        crate::open_sink(spec, columns, identity, append_only)
    }

    fn prepare_sink(&self, spec: &ConnectorSpec, identity: &SinkIdentity) -> Result<()> {
        crate::prepare_sink(spec, identity)
    }
}

/// See the module. Cloning is cheap.
#[derive(Clone)]
pub struct Outside {
    /// What opens secrets.
    pub vault: Arc<Vault>,
    /// Who opens connectors.
    pub connectors: Arc<dyn Connectors>,
}

impl Outside {
    /// The connector of a source.
    pub fn source(&self, relation: &Relation) -> Result<Arc<dyn SourceConnector>> {
        let spec = self.spec(relation)?;
        self.connectors
            .source(&spec, &relation.columns_of_records())
    }

    /// The writer of a sink of this cluster.
    pub fn sink(&self, relation: &Relation, cluster: &str) -> Result<Box<dyn SinkWriter>> {
        let (spec, columns) = (self.spec(relation)?, &relation.columns);
        let identity = SinkIdentity::of(relation, cluster);
        self.connectors
            .sink(&spec, columns, identity, relation.append_only)
    }

    /// Writes the first marker of a sink that is about to be created. Blocking.
    pub fn prepare_sink(&self, relation: &Relation, cluster: &str) -> Result<()> {
        let identity = SinkIdentity::of(relation, cluster);
        self.connectors
            .prepare_sink(&self.spec(relation)?, &identity)
    }

    fn spec(&self, relation: &Relation) -> Result<ConnectorSpec> {
        let spec = relation.connector.as_ref().ok_or_else(|| {
            let (kind, name) = (relation.kind.name(), &relation.name);
            Error::internal(format!("{kind} \"{name}\" has no connector"))
        })?;
        self.vault.revealed(spec)
    }
}

impl SinkIdentity {
    fn of(relation: &Relation, cluster: &str) -> SinkIdentity {
        SinkIdentity {
            cluster: cluster.to_string(),
            sink: relation.id,
            name: relation.name.clone(),
        }
    }
}
