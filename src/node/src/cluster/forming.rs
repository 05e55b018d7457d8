//! How a group begins, and how a node comes to one.
//!
//! A node that is started with the addresses of others and belongs to no group asks all of them who
//! they are. If one of them belongs to a cluster, it joins that one. If all have answered and none
//! does, the one with the smallest number begins the cluster, alone, and the others join it: so two
//! halves that do not see each other cannot begin one each. Who joins keeps a copy of the log
//! first, and votes when it is nearly as far as the others.

use super::links::{NodeInfo, Reply, Wants, ask};
use super::status::{Shared, Told};
use crate::ownership::DataFolder;
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::network::Network;
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_control::raft::{Addresses, Call, MemberChange, MemberId, Members, Turn};
use tokio::sync::oneshot;

/// The pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is said who is waited for.
const TOLD: Duration = Duration::from_secs(10);
/// How long a change of the members may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(4);

/// Where a node stands when it starts.
pub(super) enum Place {
    /// There is nobody else.
    Alone,
    /// It belongs to a group.
    Member,
    /// It joins a group, whose log began with these members.
    Joins(Members),
}

/// Finds the others, and waits until there is a place.
pub(super) async fn find(config: &Config, data: &DataFolder, shared: &Shared) -> Result<Place> {
    let sending = shared.sending.lock().clone();
    let sending = sending.ok_or_else(|| Error::internal("nodes are looked for without network"))?;
    let network = sending.network().as_ref();
    let mut told = machine::now() - TOLD;
    loop {
        let mut waits = String::new();
        let mut nodes = Vec::new();
        for address in &config.join {
            match ask(network, address, Wants::Who).await {
                Ok(Reply::Node(node)) => nodes.push((address.clone(), node)),
                Ok(_) => waits = format!("{address} says something else"),
                Err(error) => waits = error.to_string(),
            }
        }
        nodes.retain(|(_, node)| node.nonce != shared.nonce);
        let found = place(config.node_id, &nodes, waits.is_empty())?;
        match found {
            Found::Begins => {
                tracing::info!(node = config.node_id, "this node begins the cluster");
                return Ok(Place::Alone);
            }
            Found::Joins(addresses) => {
                for address in addresses {
                    match join(network, address, shared).await? {
                        Joined::Admitted { cluster, members } => {
                            data.belongs_to(&cluster)?;
                            shared.set_cluster(&cluster);
                            let node = config.node_id;
                            tracing::info!(node, cluster, "this node joins the cluster");
                            return Ok(Place::Joins(members));
                        }
                        Joined::NotYet(why) => waits = why,
                    }
                }
            }
            Found::Waits(why) => waits = if waits.is_empty() { why } else { waits },
        }
        if machine::elapsed(told) >= TOLD {
            tracing::info!(node = config.node_id, waits, "waiting for the other nodes");
            told = machine::now();
        }
        machine::sleep(PAUSE).await;
    }
}

enum Found {
    Begins,
    Joins(Vec<String>),
    Waits(String),
}

/// What to do, by what the others say. `all`: every one has answered.
fn place(own: MemberId, nodes: &[(String, NodeInfo)], all: bool) -> Result<Found> {
    if let Some((address, _)) = nodes.iter().find(|(_, node)| node.member == own) {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("node {own} is there already, at {address}"),
        )
        .with_hint("Every node of a cluster needs a --node-id of its own."));
    }
    let of_cluster = nodes.iter().filter(|(_, node)| node.cluster.is_some());
    let of_cluster: Vec<String> = of_cluster.map(|(address, _)| address.clone()).collect();
    Ok(match () {
        () if !of_cluster.is_empty() => Found::Joins(of_cluster),
        () if !all => Found::Waits("not all have answered".into()),
        () => match nodes.iter().map(|(_, node)| node.member).min() {
            Some(first) if first < own => Found::Waits(format!("node {first} begins the cluster")),
            _ => Found::Begins,
        },
    })
}

enum Joined {
    Admitted { cluster: String, members: Members },
    NotYet(String),
}

async fn join(network: &dyn Network, mut address: String, shared: &Shared) -> Result<Joined> {
    // Who is asked may know who leads; that one may have changed meanwhile.
    for _ in 0..3 {
        let wants = Wants::Join {
            member: shared.member,
            addresses: shared.addresses.clone(),
        };
        match ask(network, &address, wants).await {
            Ok(Reply::Admitted { cluster, members }) => {
                return Ok(Joined::Admitted { cluster, members });
            }
            Ok(Reply::Elsewhere(addresses)) => address = addresses.rpc,
            Ok(Reply::Refused { message, hint }) => {
                return Err(Error::user(SqlState::OBJECT_NOT_READY, message).with_hint(hint));
            }
            Ok(Reply::NotYet(why)) => return Ok(Joined::NotYet(why)),
            Ok(Reply::Node(_)) => return Ok(Joined::NotYet("it says something else".into())),
            Err(error) => return Ok(Joined::NotYet(error.to_string())),
        }
    }
    Ok(Joined::NotYet("it is not clear who leads".into()))
}

/// A node wants to become a member.
pub(super) async fn admit(shared: &Shared, member: MemberId, addresses: Addresses) -> Reply {
    let told = shared.told();
    if !told.leads {
        let status = shared.status();
        return match status.leader_elsewhere() {
            Some(leader) => Reply::Elsewhere(leader.addresses.clone()),
            None => Reply::NotYet("no node leads the cluster".into()),
        };
    }
    let Some(cluster) = shared.cluster() else {
        return Reply::NotYet("the cluster is only beginning".into());
    };
    let members = &told.members;
    if members.voters.contains(&member) || members.voters_outgoing.contains(&member) {
        return Reply::Refused {
            message: format!("node {member} belongs to cluster {cluster} already"),
            hint: "Start it with its own data folder. If that is lost, let it begin with an empty \
                   one and a new --node-id, and forget the old one by ALTER CLUSTER REMOVE NODE."
                .into(),
        };
    }
    match change_for(shared, &told, member, addresses).await {
        Ok(()) => Reply::Admitted {
            cluster,
            members: told.began_with.as_ref().clone(),
        },
        Err(error) => Reply::NotYet(error.to_string()),
    }
}

async fn change_for(
    shared: &Shared,
    told: &Told,
    member: MemberId,
    addresses: Addresses,
) -> Result<()> {
    if told.members.all().contains(&member) {
        // It came before, and its copy is gone or was never begun: it has no vote that counts.
        change(shared, vec![MemberChange::Remove(member)]).await?;
    }
    change(shared, vec![MemberChange::Add(member, addresses)]).await
}

/// Has the members changed.
pub(super) async fn change(shared: &Shared, changes: Vec<MemberChange>) -> Result<()> {
    let (answer, answered) = oneshot::channel();
    let turns = shared.turns();
    let turns = turns.ok_or_else(tidemark_control::raft::not_leading)?;
    let sent = turns.send(Turn::Call(Call::Change(changes, answer)));
    sent.map_err(|_| tidemark_control::raft::not_leading())?;
    let late = || Error::unavailable(SqlState::IO_ERROR, "too few nodes answer at the moment");
    let answered = machine::timeout(CHANGE_PATIENCE, answered).await;
    let decided = answered.ok_or_else(late)?;
    decided.map_err(|_| tidemark_control::raft::not_leading())??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(member: MemberId, cluster: Option<&str>) -> (String, NodeInfo) {
        let info = NodeInfo {
            member,
            nonce: member,
            cluster: cluster.map(String::from),
            version: String::new(),
            uptime: 0,
        };
        (format!("n{member}:1"), info)
    }

    #[test]
    fn one_begins_and_the_others_join() {
        let fresh = [node(2, None), node(3, None)];
        assert!(matches!(place(1, &fresh, true), Ok(Found::Begins)));
        assert!(matches!(place(1, &fresh[..1], false), Ok(Found::Waits(_))));
        let fresh = [node(1, None), node(3, None)];
        assert!(matches!(place(2, &fresh, true), Ok(Found::Waits(_))));
        let begun = [node(1, Some("c")), node(3, None)];
        assert!(matches!(place(2, &begun, false), Ok(Found::Joins(a)) if a == ["n1:1"]));
        assert!(place(1, &begun, true).is_err());
        assert!(matches!(place(1, &[], true), Ok(Found::Begins)));
    }
}
