//! `SHOW CLUSTER`, and what changes the nodes of a cluster.

use crate::session::Session;
use tidemark_common::{Result, VNODES, machine};
use tidemark_node::cluster::{NodeInfo, NodeStatus, Role};
use tidemark_query::outcome::{Outcome, text_rows};

/// The columns of `SHOW CLUSTER`.
const COLUMNS: [&str; 13] = [
    "Id",
    "Role",
    "State",
    "Rpc",
    "Sql",
    "Http",
    "Term",
    "Lag",
    "Vnodes",
    "Workers",
    "State Bytes",
    "Version",
    "Uptime S",
];

fn some(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

impl Session {
    /// SHOW CLUSTER: the nodes, as the one that leads knows them.
    pub(crate) async fn show_cluster(&self) -> Result<Outcome> {
        let engine = &self.server.engine;
        let status = engine.membership().status();
        let others = engine.membership().others().await;
        let row = |node: &NodeStatus| {
            let leads = node.role == Role::Leader;
            let info = others.iter().find(|info| info.member == node.member);
            let own = node.member == status.member;
            let state = match own || info.is_some() {
                true => "running",
                false => "not reached",
            };
            let version = |info: &NodeInfo| info.version.clone();
            let uptime = match own {
                true => {
                    u64::try_from((machine::micros() - self.server.commons.started) / 1_000_000)
                        .ok()
                }
                false => info.map(|info| info.uptime),
            };
            vec![
                some(node.member.to_string()),
                some(node.role.name()),
                some(state),
                some(&node.addresses.rpc),
                some(&node.addresses.sql),
                some(&node.addresses.http),
                leads.then(|| status.term.to_string()),
                node.lag.map(|lag| lag.to_string()),
                some(if leads { VNODES } else { 0 }.to_string()),
                some(if leads { engine.workers() } else { 0 }.to_string()),
                some(if leads { engine.memory().state } else { 0 }.to_string()),
                match own {
                    true => some(env!("CARGO_PKG_VERSION")),
                    false => info.map(version),
                },
                uptime.map(|seconds| seconds.to_string()),
            ]
        };
        let rows = status.nodes.iter().map(row).collect();
        text_rows(&COLUMNS, rows, "SHOW")
    }

    /// ALTER CLUSTER REMOVE NODE.
    pub(crate) async fn remove_node(&mut self, node: u64) -> Result<Outcome> {
        self.require_superuser("remove a node")?;
        self.server.engine.membership().remove(node).await?;
        Ok(Outcome::Command("ALTER CLUSTER".into()))
    }
}
