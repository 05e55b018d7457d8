//! What the sessions of a node have in common.

use crate::advisory::Advisory;
use crate::clients::Clients;
use crate::notifications::Channels;
use crate::sql::Sql;
use std::sync::atomic::AtomicI64;
use tidemark_node::Engine;

/// See the module.
pub struct Commons {
    /// The node below.
    pub engine: Engine,
    /// The planner.
    pub sql: Sql,
    /// Who is connected.
    pub clients: Clients,
    /// What they lock among themselves.
    pub advisory: Advisory,
    /// What they say to one another.
    pub channels: Channels,
    /// The number of the next transaction that asks for one: they go up, also over restarts.
    pub transactions: AtomicI64,
    /// Where clients come to.
    pub address: String,
    /// When it all began, microseconds since 1970.
    pub started: i64,
}

impl Commons {
    /// Over an engine that has opened; nobody is there yet.
    pub fn new(engine: Engine, address: String) -> Commons {
        let started = tidemark_common::machine::micros();
        Commons {
            engine,
            sql: Sql::new(),
            clients: Clients::default(),
            advisory: Advisory::default(),
            channels: Channels::default(),
            transactions: AtomicI64::new(started),
            address,
            started,
        }
    }
}
