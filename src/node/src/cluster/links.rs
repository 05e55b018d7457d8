//! What nodes say to each other: the messages of the group, who they are, that one wants to join,
//! and the clients of SQL that one hands on.
//!
//! The first frame of a link says what it is for ([`Hello`]), as JSON. Messages of the group go one
//! way, over a link of their own for each pair of nodes and direction; the other end says every
//! half second that it is there, so that a link on which nothing arrives any more is given up and
//! taken anew, whatever the network below still tries. They are served apart from links that have
//! much to do: however much data is on its way, the group hears of each other in time.

use super::forming;
use super::status::{NodeStatus, Shared};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemark_common::mailbox::Sender;
use tidemark_common::network::{Link, Network};
use tidemark_common::{Backoff, Error, Result, SqlState, machine};
use tidemark_control::raft::{self, Addresses, MemberId, Members, Message, Turn, not_leading};
use tokio::sync::mpsc;

/// Of what nodes say to each other; others are not heard.
const PROTOCOL: u32 = 2;
/// How long the other end may take to say what it wants, or to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a node may take to say who it is, for somebody who looks.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);
/// How often who hears messages says so.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// Without such a sign for so long, a link is given up.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Messages that wait for one member; those behind get lost, as messages may.
const WAITING_MAX: usize = 4096;
/// The pause before a member that is not reached is tried again, at most.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The first frame of a link.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub protocol: u32,
    pub wants: Wants,
}

/// What a link is for.
#[derive(Serialize, Deserialize)]
pub(super) enum Wants {
    /// Messages of the group follow.
    Messages {
        cluster: String,
        from: MemberId,
        addresses: Addresses,
    },
    /// To know who is there.
    Who,
    /// To become a member.
    Join {
        member: MemberId,
        addresses: Addresses,
    },
    /// That a client of SQL is served: its bytes follow.
    Sql,
    /// Something of the work, as the workplace knows it.
    Work(String),
}

/// What comes back.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Node(NodeInfo),
    Admitted {
        cluster: String,
        members: Members,
    },
    /// Ask there.
    Elsewhere(Addresses),
    /// It may be another time.
    NotYet(String),
    Refused {
        message: String,
        hint: String,
    },
}

/// Who is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub member: MemberId,
    /// Of its process.
    pub nonce: u64,
    /// The cluster that it belongs to, if it does.
    pub cluster: Option<String>,
    /// Of its program.
    pub version: String,
    /// Since it started, in seconds.
    pub uptime: u64,
}

fn hello(wants: Wants) -> Result<Bytes> {
    let hello = Hello {
        protocol: PROTOCOL,
        wants,
    };
    frame(&hello)
}

fn frame(told: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(told)
        .map_err(|e| Error::internal(format!("what is told cannot be encoded: {e}")))?;
    Ok(bytes.into())
}

fn unreachable(address: &str, what: &str) -> Error {
    let message = format!("node at {address}: {what}");
    Error::unavailable(SqlState::IO_ERROR, message)
}

/// A link to the node at this address, for that purpose.
pub(super) async fn connect(network: &dyn Network, address: &str, wants: Wants) -> Result<Link> {
    let connected = machine::timeout(PATIENCE, async {
        let mut link = network.connect(address).await?;
        link.sender.send(hello(wants)?).await?;
        Ok(link)
    });
    let late = || Err(unreachable(address, "it does not answer"));
    connected.await.unwrap_or_else(late)
}

/// Asks the node at this address.
pub(super) async fn ask(network: &dyn Network, address: &str, wants: Wants) -> Result<Reply> {
    let mut link = connect(network, address, wants).await?;
    let reply = machine::timeout(PATIENCE, link.receiver.receive()).await;
    let reply = reply.ok_or_else(|| unreachable(address, "it does not answer"))??;
    let reply = reply.ok_or_else(|| unreachable(address, "it says nothing"))?;
    serde_json::from_slice(&reply).map_err(|e| unreachable(address, &format!("it says: {e}")))
}

/// What the other members say of themselves.
pub(super) async fn others(shared: &Shared) -> Vec<NodeInfo> {
    let sending = shared.sending.lock().clone();
    let Some(sending) = sending else {
        return Vec::new();
    };
    let status = shared.status();
    let others = status.nodes.iter().filter(|n| n.member != shared.member);
    let asked = others.map(async |node| {
        let network = sending.network.as_ref();
        let asked = ask(network, &node.addresses.rpc, Wants::Who);
        match machine::timeout(QUESTION_PATIENCE, asked).await {
            Some(Ok(Reply::Node(info))) => Some(info),
            _ => None,
        }
    });
    let told = futures::future::join_all(asked).await;
    told.into_iter().flatten().collect()
}

/// Opens the door for other nodes.
pub(super) async fn open(
    address: &str,
    network: Arc<dyn Network>,
    shared: &Arc<Shared>,
) -> Result<()> {
    let (at, listens) = (address.to_string(), network.clone());
    let mut listener = machine::apart(async move { listens.listen(&at).await }).await??;
    *shared.sending.lock() = Some(Arc::new(Sending {
        network,
        shared: shared.clone(),
        peers: Mutex::default(),
    }));
    let (busy, links) = mpsc::unbounded_channel();
    machine::spawn(serve_busy(links, shared.clone()));
    let shared = shared.clone();
    machine::spawn_apart(async move {
        loop {
            let ended = shared.ended();
            let link = tokio::select! {
                biased;
                link = listener.accept() => link,
                () = ended => return,
            };
            match link {
                Ok(link) => machine::spawn(greet(link, shared.clone(), busy.clone())),
                Err(error) => {
                    tracing::warn!(%error, "a node cannot come in");
                    machine::sleep(PAUSE_MAX).await;
                }
            }
        }
    });
    Ok(())
}

/// A link that has much to do, and what for.
type Busy = (Link, Wants);

/// Serves links that have much to do, where nothing of the group waits for them.
async fn serve_busy(mut links: mpsc::UnboundedReceiver<Busy>, shared: Arc<Shared>) {
    while let Some((link, wants)) = links.recv().await {
        let shared = shared.clone();
        machine::spawn(async move {
            let peer = link.peer.clone();
            if let Err(error) = serve(link, wants, &shared).await {
                tracing::debug!(peer, %error, "a link of another node ends");
            }
        });
    }
}

/// Hears what a link is for, and does it.
async fn greet(mut link: Link, shared: Arc<Shared>, busy: mpsc::UnboundedSender<Busy>) {
    let peer = link.peer.clone();
    let Some(Ok(Some(first))) = machine::timeout(PATIENCE, link.receiver.receive()).await else {
        return;
    };
    let done = match serde_json::from_slice::<Hello>(&first) {
        Ok(hello) if hello.protocol == PROTOCOL => match hello.wants {
            wants @ (Wants::Sql | Wants::Work(_)) => {
                busy.send((link, wants)).map_err(|_| not_leading())
            }
            wants => serve(link, wants, &shared).await,
        },
        Ok(hello) => Err(Error::unsupported(format!(
            "it speaks version {} of the protocol of nodes, this one speaks {PROTOCOL}",
            hello.protocol
        ))),
        Err(error) => Err(Error::corrupt(error.to_string())),
    };
    if let Err(error) = done {
        tracing::debug!(peer, %error, "a link of another node ends");
    }
}

async fn serve(mut link: Link, wants: Wants, shared: &Arc<Shared>) -> Result<()> {
    let reply = match wants {
        Wants::Messages {
            cluster,
            from,
            addresses,
        } => return hear(link, &cluster, (from, addresses), shared).await,
        Wants::Sql => {
            let sql = shared.sql.lock().clone();
            let sql = sql.ok_or_else(not_leading)?;
            return sql.0.send(link).await.map_err(|_| not_leading());
        }
        Wants::Work(wants) => {
            let workplace = shared.workplace.lock().clone();
            let workplace = workplace.ok_or_else(not_leading)?;
            return workplace.serve(link, &wants).await;
        }
        Wants::Who => Reply::Node(NodeInfo {
            member: shared.member,
            nonce: shared.nonce,
            cluster: shared.cluster().filter(|_| shared.is_member()),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: machine::elapsed(shared.started).as_secs(),
        }),
        Wants::Join { member, addresses } => forming::admit(shared, member, addresses).await,
    };
    link.sender.send(frame(&reply)?).await?;
    // The other end has it when it ends the link.
    let _ = machine::timeout(PATIENCE, link.receiver.receive()).await;
    Ok(())
}

/// Takes in messages of the group.
async fn hear(
    link: Link,
    cluster: &str,
    (from, addresses): (MemberId, Addresses),
    shared: &Shared,
) -> Result<()> {
    let Link {
        mut sender,
        mut receiver,
        peer,
    } = link;
    let Some(turns) = shared.turns() else {
        return Ok(());
    };
    if shared.cluster().is_some_and(|own| own != cluster) {
        tracing::warn!(
            peer,
            from,
            cluster,
            "a node of another cluster is not heard"
        );
        return Ok(());
    }
    if let Some(sending) = &*shared.sending.lock() {
        sending.meet(from, &addresses, &turns);
    }
    let hears = async {
        while let Some(frame) = receiver.receive().await? {
            let message = raft::decode(&frame)?;
            if message.to != shared.member || message.from != from {
                return Err(Error::corrupt("a message that is not for this node"));
            }
            if turns.send(Turn::Heard(message)).is_err() {
                break;
            }
        }
        Ok(())
    };
    let lives = async {
        loop {
            machine::sleep(SIGN_OF_LIFE).await;
            if let Err(error) = sender.send(Bytes::new()).await {
                return Err(error);
            }
        }
    };
    tokio::select! {
        biased;
        heard = hears => heard,
        died = lives => died,
        () = shared.ended() => Ok(()),
    }
}

/// The way to the other members.
pub(super) struct Sending {
    network: Arc<dyn Network>,
    shared: Arc<Shared>,
    peers: Mutex<BTreeMap<MemberId, Peer>>,
}

struct Peer {
    addresses: Addresses,
    queue: mpsc::Sender<Message>,
    /// It has sent something, and this node, whose log may be far behind, knows of no such member
    /// yet.
    is_only_met: bool,
}

impl Sending {
    pub fn network(&self) -> &Arc<dyn Network> {
        &self.network
    }

    /// Sends messages; they may get lost.
    pub fn send(&self, messages: Vec<Message>) {
        let peers = self.peers.lock();
        for message in messages {
            if let Some(peer) = peers.get(&message.to) {
                let _ = peer.queue.try_send(message);
            }
        }
    }

    /// These are the members from now on.
    pub fn reach(&self, members: &Members, turns: &Sender<Turn>) {
        let mut peers = self.peers.lock();
        peers.retain(|id, peer| match members.addresses.get(id) {
            Some(addresses) => *addresses == peer.addresses,
            None => peer.is_only_met,
        });
        for (id, addresses) in &members.addresses {
            if *id == self.shared.member {
                continue;
            }
            let peer = peers.entry(*id);
            peer.or_insert_with(|| self.peer(*id, addresses, turns))
                .is_only_met = false;
        }
    }

    /// This one sends messages: it can be answered, also by a node whose log does not know of it.
    fn meet(&self, member: MemberId, addresses: &Addresses, turns: &Sender<Turn>) {
        let mut peers = self.peers.lock();
        let is_old = |peer: &mut Peer| peer.is_only_met && peer.addresses != *addresses;
        if peers.get_mut(&member).is_some_and(is_old) {
            peers.remove(&member);
        }
        let met = |peer: Peer| Peer {
            is_only_met: true,
            ..peer
        };
        let peer = peers.entry(member);
        peer.or_insert_with(|| met(self.peer(member, addresses, turns)));
    }

    fn peer(&self, member: MemberId, addresses: &Addresses, turns: &Sender<Turn>) -> Peer {
        let (queue, messages) = mpsc::channel(WAITING_MAX);
        let to = To {
            member,
            address: addresses.rpc.clone(),
            network: self.network.clone(),
            shared: self.shared.clone(),
            turns: turns.clone(),
        };
        machine::spawn_apart(to.deliver(messages));
        Peer {
            addresses: addresses.clone(),
            queue,
            is_only_met: false,
        }
    }
}

/// The way to one of them.
struct To {
    member: MemberId,
    address: String,
    network: Arc<dyn Network>,
    shared: Arc<Shared>,
    turns: Sender<Turn>,
}

impl To {
    /// Sends what comes, as long as it belongs to the group.
    async fn deliver(self, mut messages: mpsc::Receiver<Message>) {
        let mut backoff = Backoff::default();
        let mut is_told = false;
        while let Some(first) = messages.recv().await {
            let began = machine::now();
            let Err(error) = self.deliver_over_one_link(first, &mut messages).await else {
                return;
            };
            if !std::mem::replace(&mut is_told, true) {
                tracing::info!(node = self.member, address = self.address, %error,
                    "another node is not reached");
            }
            if machine::elapsed(began) > PAUSE_MAX {
                (backoff, is_told) = (Backoff::default(), false);
            }
            // What waited so long is old: the group tells it anew.
            while messages.try_recv().is_ok() {}
            if self.turns.send(Turn::Unreachable(self.member)).is_err() {
                return;
            }
            machine::sleep(backoff.pause().min(PAUSE_MAX)).await;
        }
    }

    async fn deliver_over_one_link(
        &self,
        first: Message,
        messages: &mut mpsc::Receiver<Message>,
    ) -> Result<()> {
        let wants = Wants::Messages {
            cluster: self.shared.cluster().unwrap_or_default(),
            from: self.shared.member,
            addresses: self.shared.addresses.clone(),
        };
        let connected = connect(self.network.as_ref(), &self.address, wants).await;
        let Link {
            mut sender,
            mut receiver,
            ..
        } = connected.inspect_err(|_| self.is_lost(&first))?;
        let sends = async {
            let mut next = Some(first);
            while let Some(message) = next {
                let sent = sender.send(raft::encode(&message).into()).await;
                if sent.is_err() {
                    self.is_lost(&message);
                }
                sent?;
                if raft::names_checkpoint(&message) {
                    let _ = self.turns.send(Turn::ToldCheckpoint(self.member, true));
                }
                next = messages.recv().await;
            }
            Ok(())
        };
        let silence = async {
            loop {
                match machine::timeout(SILENCE_MAX, receiver.receive()).await {
                    Some(Ok(Some(_))) => {}
                    Some(Ok(None)) => return unreachable(&self.address, "it has gone"),
                    Some(Err(error)) => return error,
                    None => return unreachable(&self.address, "it is silent"),
                }
            }
        };
        tokio::select! {
            sent = sends => sent,
            error = silence => Err(error),
        }
    }

    fn is_lost(&self, message: &Message) {
        if raft::names_checkpoint(message) {
            let _ = self.turns.send(Turn::ToldCheckpoint(self.member, false));
        }
    }
}

/// Where clients of SQL arrive whom other nodes hand on.
#[derive(Clone)]
pub struct SqlLinks(mpsc::Sender<Link>);

/// The way in and out for clients of SQL, before and after the engine is open. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Doorway(Arc<OnceLock<Arc<Shared>>>);

impl Doorway {
    pub(super) fn is_of(&self, shared: &Arc<Shared>) {
        let _ = self.0.set(shared.clone());
    }

    /// Whether this node belongs to a group with others, and is not sure that it leads.
    pub(crate) fn lost_the_lead(&self) -> bool {
        let shared = self.0.get();
        shared.is_some_and(|s| s.turns().is_some() && s.has_others() && !s.is_sure())
    }

    /// The node that clients are passed on to, if that is another one.
    pub fn leader(&self) -> Option<NodeStatus> {
        let status = self.0.get()?.status();
        status.leader_elsewhere().cloned()
    }

    /// A link to the node that leads, for one client of SQL; none if this node leads, or belongs to
    /// no group yet.
    ///
    /// Errors: nobody leads at the moment, or it is not reached.
    pub async fn to_leader(&self) -> Option<Result<Link>> {
        let shared = self.0.get()?;
        let sending = shared.sending.lock().clone()?;
        let status = shared.status();
        if status.leader == Some(shared.member) {
            return None;
        }
        let Some(leader) = status.leader_elsewhere() else {
            let nobody = "no node leads the cluster at the moment";
            return Some(Err(Error::unavailable(SqlState("57P03"), nobody)));
        };
        let address = leader.addresses.rpc.clone();
        Some(connect(sending.network.as_ref(), &address, Wants::Sql).await)
    }

    /// The clients whom other nodes hand on from now on.
    pub fn handed_on(&self) -> mpsc::Receiver<Link> {
        let (sender, links) = mpsc::channel(64);
        if let Some(shared) = self.0.get() {
            *shared.sql.lock() = Some(SqlLinks(sender));
        }
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nodes of the first release say, as it stands on the wire. It is never changed: nodes of
    /// two releases keep one log while a cluster is changed to the next, one node after the other.
    #[test]
    fn what_the_first_release_says_is_understood() {
        let hellos = [
            concat!(
                r#"{"protocol":2,"wants":{"Messages":{"cluster":"9e1f","from":3,"#,
                r#""addresses":{"rpc":"a:1","sql":"a:2","http":"a:3"}}}}"#
            ),
            r#"{"protocol":2,"wants":"Who"}"#,
            r#"{"protocol":2,"wants":{"Join":{"member":4,"addresses":{"rpc":"d:1"}}}}"#,
            r#"{"protocol":2,"wants":"Sql"}"#,
            r#"{"protocol":2,"wants":{"Work":"{}"}}"#,
        ];
        for said in hellos {
            let hello: Hello = serde_json::from_str(said).unwrap();
            assert_eq!(hello.protocol, PROTOCOL);
        }
        let replies = [
            r#"{"Node":{"member":1,"nonce":7,"cluster":null,"version":"0.1.0","uptime":9}}"#,
            concat!(
                r#"{"Admitted":{"cluster":"9e1f","members":{"voters":[1,2],"learners":[3],"#,
                r#""addresses":{"1":{"rpc":"a:1"}},"drained":[2]}}}"#
            ),
            r#"{"Elsewhere":{"rpc":"a:1","sql":"","http":""}}"#,
            r#"{"NotYet":"it begins"}"#,
            r#"{"Refused":{"message":"no","hint":""}}"#,
        ];
        for said in replies {
            serde_json::from_str::<Reply>(said).unwrap();
        }
        // A proposal to append an entry, in the encoding of the group.
        let appends = [
            8, 3, 16, 2, 24, 1, 32, 5, 40, 4, 48, 9, 58, 9, 16, 5, 24, 10, 34, 3, b'a', b'b', b'c',
            64, 8,
        ];
        let message = raft::decode(&appends).unwrap();
        assert_eq!((message.to, message.from, message.term), (2, 1, 5));
        assert_eq!((message.index, message.commit), (9, 8));
        assert_eq!(message.entries[0].data, b"abc".to_vec());
        assert_eq!(raft::encode(&message), appends);
    }
}
