//! `SHOW CLUSTER`, and what changes the nodes of a cluster.

use crate::Server;
use crate::session::Session;
use tidemark_common::{Result, machine};
use tidemark_node::cluster::{NodeInfo, NodeStatus, Role};
use tidemark_node::engine::is_written;
use tidemark_plan::RelationKind;
use tidemark_query::outcome::{Outcome, text_rows};

/// The columns of `SHOW CLUSTER`.
pub(crate) const COLUMNS: [&str; 13] = [
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

/// Numbers as ranges, like `0-3, 7`; none if there are none.
fn ranges(numbers: impl Iterator<Item = usize>) -> Option<String> {
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let texts = runs.map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    Some(texts.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

/// The nodes, as this one knows them, which leads: a row of [`COLUMNS`] each.
pub(crate) async fn nodes(server: &Server) -> Vec<Vec<Option<String>>> {
    let engine = &server.engine;
    let status = engine.membership().status();
    let others = engine.membership().others().await;
    let workers_of = engine.workers_of_nodes();
    let spread = engine.placement().all();
    let bytes_of = engine.state_bytes_of_workers();
    let row = |node: &NodeStatus| {
        let leads = node.role == Role::Leader;
        let workers = workers_of.iter().find(|(member, _)| *member == node.member);
        let workers = workers
            .map(|(_, workers)| workers.clone())
            .unwrap_or_default();
        let vnodes: usize = workers
            .clone()
            .map(|worker| spread.vnodes(worker).len())
            .sum();
        let bytes: u64 = workers.clone().map(|worker| bytes_of[worker]).sum();
        let info = others.iter().find(|info| info.member == node.member);
        let own = node.member == status.member;
        let state = match (own || info.is_some(), node.is_drained) {
            (false, _) => "not reached",
            (true, false) => "running",
            (true, true) if workers.is_empty() => "drained",
            (true, true) => "draining",
        };
        let version = |info: &NodeInfo| info.version.clone();
        let uptime = match own {
            true => u64::try_from((machine::micros() - server.commons.started) / 1_000_000).ok(),
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
            some(vnodes.to_string()),
            some(workers.len().to_string()),
            some(bytes.to_string()),
            match own {
                true => some(env!("CARGO_PKG_VERSION")),
                false => info.map(version),
            },
            uptime.map(|seconds| seconds.to_string()),
        ]
    };
    status.nodes.iter().map(row).collect()
}

impl Session {
    /// SHOW CLUSTER.
    pub(crate) async fn show_cluster(&self) -> Result<Outcome> {
        text_rows(&COLUMNS, nodes(&self.server).await, "SHOW")
    }

    /// SHOW PLACEMENT: which node does what part of each job.
    pub(crate) fn show_placement(&self) -> Result<Outcome> {
        let engine = &self.server.engine;
        let (catalog, placement) = (self.catalog(), engine.placement());
        let positions = engine.positions();
        let nodes = engine.workers_of_nodes();
        let mut relations: Vec<_> = catalog.relations.values().collect();
        relations.retain(|r| r.job.is_some());
        relations.sort_by(|a, b| (&a.schema_name, &a.name).cmp(&(&b.schema_name, &b.name)));
        let mut rows = Vec::new();
        for relation in relations {
            let spread = placement.spread(relation);
            let splits = positions.get(&relation.id);
            for (at, (member, workers)) in nodes.iter().enumerate() {
                let vnodes = workers.clone().flat_map(|worker| spread.vnodes(worker));
                let splits = splits.into_iter().flatten().map(|position| position.split);
                let splits = splits.filter(|split| workers.contains(&placement.reader(*split)));
                let does = match relation.kind {
                    RelationKind::Table if at == 0 && is_written(relation) => some("writes"),
                    RelationKind::Sink if at == 0 => some("delivers"),
                    _ => None,
                };
                rows.push(vec![
                    some(format!("{}.{}", relation.schema_name, relation.name)),
                    some(relation.kind.name()),
                    some(member.to_string()),
                    ranges(vnodes),
                    ranges(splits.map(|split| split as usize)),
                    does,
                ]);
            }
        }
        let columns = ["Name", "Kind", "Node", "Vnodes", "Splits", "Does"];
        text_rows(&columns, rows, "SHOW")
    }

    /// ALTER CLUSTER DRAIN NODE, and RESUME NODE.
    pub(crate) async fn drain_node(&mut self, node: u64, is_drained: bool) -> Result<Outcome> {
        self.require_superuser("drain or resume a node")?;
        let membership = self.server.engine.membership();
        membership.drain(node, is_drained).await?;
        Ok(Outcome::Command("ALTER CLUSTER".into()))
    }

    /// ALTER CLUSTER REMOVE NODE.
    pub(crate) async fn remove_node(&mut self, node: u64) -> Result<Outcome> {
        self.require_superuser("remove a node")?;
        self.server.engine.membership().remove(node).await?;
        Ok(Outcome::Command("ALTER CLUSTER".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_ranges() {
        let told = |numbers: &[usize]| ranges(numbers.iter().copied());
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[5]).unwrap(), "5");
        assert_eq!(told(&[3, 0, 1, 2, 7, 9, 8]).unwrap(), "0-3, 7-9");
    }
}
