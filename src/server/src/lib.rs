//! The door: PostgreSQL's protocol, sessions, ad-hoc queries, DDL, the system catalogs, HTTP, and
//! the start of the node.
//!
//! [`protocol`] turns messages into statements and results into messages, [`session`] runs
//! statements, [`auth`] and [`tls`] know who comes in, [`serving`] answers queries through
//! DataFusion, [`ddl`], [`dml`] and [`show`] are what statements do, [`catalog_tables`] is what
//! clients see of the catalog. Everything below is the engine's.

pub mod advisory;
pub mod auth;
pub mod catalog_tables;
pub mod cli;
pub mod clients;
pub mod create_as;
pub mod ddl;
pub mod dml;
pub mod http;
pub mod notifications;
pub mod protocol;
pub mod serving;
pub mod session;
pub mod show;
pub mod sql;
pub mod tls;
pub mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use tidemark_common::Result;
use tidemark_common::config::Config;
use tidemark_node::Engine;
use tokio::sync::Semaphore;

/// What all connections share.
pub struct Server {
    /// The node below.
    pub engine: Engine,
    /// The planner.
    pub sql: sql::Sql,
    /// The query engine.
    pub serving: serving::Serving,
    /// Who is connected.
    pub clients: clients::Clients,
    /// What they lock among themselves.
    pub advisory: advisory::Advisory,
    /// What they say to one another.
    pub channels: notifications::Channels,
    /// The number of the next transaction that asks for one: they go up, also over restarts.
    pub transactions: AtomicI64,
    /// Room for more of them.
    pub connections: Arc<Semaphore>,
    /// CREATE statements that go on in the background.
    pub background: Background,
    /// Wrong passwords.
    pub guesses: auth::Guesses,
    /// Of this process alone: what it tells those whom it does not know.
    pub secret: String,
    /// TLS, if a certificate is configured.
    pub tls: Option<Arc<tls::Tls>>,
    /// The node's configuration.
    pub config: Config,
    /// When it started, microseconds since 1970.
    pub started: i64,
}

impl Server {
    /// Over an engine that has opened.
    pub fn new(engine: Engine, config: Config, tls: Option<Arc<tls::Tls>>) -> Result<Arc<Server>> {
        let started = tidemark_common::clock::now_micros();
        Ok(Arc::new(Server {
            engine,
            sql: sql::Sql::new(),
            serving: serving::Serving::new(config.query_memory_bytes()?)?,
            clients: Default::default(),
            advisory: Default::default(),
            channels: Default::default(),
            transactions: AtomicI64::new(started),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            background: Background::default(),
            guesses: Default::default(),
            secret: auth::random_password()?,
            tls,
            config,
            started,
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
