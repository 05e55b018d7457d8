//! The door: PostgreSQL's protocol, sessions, users, DDL, HTTP, and the start of the node.
//!
//! [`protocol`] turns messages into statements and results into messages, [`session`] runs
//! statements, [`lanes`] are their threads, [`stream`] and [`forward`] the ways they come,
//! [`auth`] and [`tls`] know who comes in, [`ddl`], [`create_as`] and [`show`] are what statements
//! do beside queries and writes, which are the query crate's. [`cli`] reads the command line, and
//! [`backup`] does what it says of backups. Everything below is the engine's.

// Not a part of what is simulated.
#![allow(clippy::disallowed_methods)]

pub mod auth;
pub mod backup;
pub mod cli;
mod cluster;
pub mod codec;
pub mod create_as;
pub mod ddl;
pub mod formats;
pub mod forward;
pub mod http;
pub mod lanes;
pub mod memory;
pub mod prepared;
pub mod protocol;
pub mod session;
pub mod show;
pub mod stream;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_common::Result;
use tidemark_common::config::Config;
use tidemark_common::memory::Account;
use tidemark_node::Engine;
use tidemark_query::commons::Commons;
use tidemark_query::serving::Serving;
use tokio::sync::Semaphore;

/// What all connections share.
pub struct Server {
    /// The node below.
    pub engine: Engine,
    /// What sessions have in common.
    pub commons: Arc<Commons>,
    /// The query engine.
    pub serving: Arc<Serving>,
    /// Room for more connections.
    pub connections: Arc<Semaphore>,
    /// CREATE statements that go on in the background.
    pub background: Background,
    /// Who comes in.
    pub gate: auth::Gate,
    /// Memory of the sessions themselves.
    pub sessions: Account,
    /// TLS, if a certificate is configured.
    pub tls: Option<Arc<tls::Tls>>,
    /// The node's configuration.
    pub config: Config,
}

impl Server {
    /// Over an engine that has opened.
    pub fn new(engine: Engine, config: Config, tls: Option<Arc<tls::Tls>>) -> Result<Arc<Server>> {
        let commons = Commons::new(engine.clone(), config.sql.clone());
        let serving = Serving::new(config.query_memory_bytes()?)?;
        engine.eased_by(serving.memory());
        Ok(Arc::new(Server {
            engine,
            commons: Arc::new(commons),
            serving: Arc::new(serving),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            background: Background::default(),
            gate: auth::Gate::new(&config)?,
            sessions: Account::default(),
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
