//! The door: PostgreSQL's protocol, sessions, ad-hoc queries, DDL, the system catalogs, HTTP, and
//! the start of the node.
//!
//! [`protocol`] turns messages into statements and results into messages, [`session`] runs
//! statements, [`auth`] and [`tls`] know who comes in, [`asker`] is who asks, [`serving`] answers
//! queries through DataFusion, [`ddl`], [`dml`] and [`show`] are what statements do,
//! [`catalog_tables`] is what clients see of the catalog. Everything below is the engine's.

pub mod advisory;
pub mod asker;
pub mod auth;
pub mod catalog_tables;
pub mod cli;
pub mod clients;
pub mod codec;
pub mod commons;
pub mod copy;
pub mod create_as;
pub mod ddl;
pub mod dml;
pub mod effects;
pub mod error;
pub mod explain;
pub mod http;
pub mod identifiers;
pub mod kept;
pub mod notifications;
pub mod outcome;
pub mod parameters;
pub mod prepared;
pub mod privileges;
pub mod protocol;
pub mod serving;
pub mod session;
pub mod settings;
pub mod show;
pub mod snapshot;
pub mod sql;
pub mod statement;
pub mod tls;
pub mod types;
pub mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_common::Result;
use tidemark_common::config::Config;
use tidemark_node::Engine;
use tokio::sync::Semaphore;

/// What all connections share.
pub struct Server {
    /// The node below.
    pub engine: Engine,
    /// What sessions have in common.
    pub commons: Arc<commons::Commons>,
    /// The query engine.
    pub serving: Arc<serving::Serving>,
    /// Room for more connections.
    pub connections: Arc<Semaphore>,
    /// CREATE statements that go on in the background.
    pub background: Background,
    /// Who comes in.
    pub gate: auth::Gate,
    /// TLS, if a certificate is configured.
    pub tls: Option<Arc<tls::Tls>>,
    /// The node's configuration.
    pub config: Config,
}

impl Server {
    /// Over an engine that has opened.
    pub fn new(engine: Engine, config: Config, tls: Option<Arc<tls::Tls>>) -> Result<Arc<Server>> {
        let commons = commons::Commons::new(engine.clone(), config.sql.clone());
        let serving = serving::Serving::new(config.query_memory_bytes()?)?;
        Ok(Arc::new(Server {
            engine,
            commons: Arc::new(commons),
            serving: Arc::new(serving),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            background: Background::default(),
            gate: auth::Gate::new(&config)?,
            tls,
            config,
        }))
    }
}

/// Counts the CREATE statements that go on in the background.
#[derive(Default)]
pub struct Background(AtomicUsize);

impl Background {
    /// One more.
    pub fn start(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    /// One has ended.
    pub fn end(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
    /// How many there are.
    pub fn running(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
