//! A node as a member of its group: who leads, who belongs to it, and how nodes find each other.
//!
//! The members keep the log together ([`tidemark_control::raft`]). One of them leads, and runs the
//! engine over the checkpoint store that all of them reach; the others keep a copy of the log and
//! wait. When the leader is gone, another one opens the engine from its copy of the log and the
//! last checkpoint, as a node alone does when it starts again. A node alone is a group of one: it
//! leads as soon as it starts, and nothing is sent anywhere.
//!
//! **Law.** A member that leads no more ends its process at once, whatever it is doing, and starts
//! anew as one of those who wait ([`machine::RESTART`](tidemark_common::machine::RESTART)): what it
//! had begun and is not decided is void, and nobody has to find out where it stands.
//!
//! The parts: [`driver`] (the thread that drives the member), [`status`] (what is known of the
//! group), [`links`] (messages to and from the others), [`forming`] (how a group begins, and how a
//! node comes to one).

mod driver;
mod forming;
mod links;
mod status;

pub use links::{Doorway, NodeInfo, SqlLinks};
pub use status::{GroupStatus, NEAR, NodeStatus, Role};

use crate::network::SECRET_VARIABLE;
use crate::ownership::DataFolder;
use async_trait::async_trait;
use forming::Place;
use status::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use tidemark_common::config::Config;
use tidemark_common::mailbox::{Sender, mailbox};
use tidemark_common::network::{Link, Network};
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_control::raft::{
    Addresses, Answer, Begin, Call, MemberChange, MemberId, Replica, ReplicatedLog, Turn,
    not_leading,
};
use tidemark_control::{Encoder, Entry, OpenedLog, WriteAheadLog};
use tokio::sync::oneshot;

/// Takes the links that are about the work of the cluster, whatever that is.
#[async_trait]
pub trait Workplace: Send + Sync {
    /// Serves one; `wants` says what it is for.
    async fn serve(self: Arc<Self>, link: Link, wants: &str) -> Result<()>;
}

/// What the log of this node says, before the node takes part in its group or after.
pub struct Log {
    /// Its entries, with their indexes.
    pub entries: Vec<(u64, Entry)>,
    /// The index that the first of them follows.
    pub follows: u64,
    /// A part is lost, and that is accepted.
    pub loss: Option<Error>,
    /// Nothing is there.
    pub is_new: bool,
}

/// A node with its log, before it takes part.
pub struct Seat {
    folder: PathBuf,
    log: WriteAheadLog,
    encoder: Encoder,
    place: Place,
    member: MemberId,
    addresses: Addresses,
    shared: Arc<Shared>,
}

/// A node that takes part in its group. Cloning is cheap.
#[derive(Clone)]
pub struct Membership {
    turns: Sender<Turn>,
    shared: Arc<Shared>,
}

impl Seat {
    /// Opens the log in the data folder. A node that belongs to no group yet finds the others, if
    /// it is told of any, and waits for them.
    pub async fn take(
        config: &Config,
        data: &DataFolder,
        network: Option<Arc<dyn Network>>,
        doorway: &Doorway,
    ) -> Result<(Seat, Log)> {
        let folder = data.path().join("log");
        let (disk, recover) = (machine::disk(), config.recover_from_checkpoint);
        let known = Replica::known(disk.clone(), &folder)?;
        let member = config.node_id;
        let addresses = Addresses {
            rpc: config.rpc_address().into(),
            sql: config.sql.clone(),
            http: config.http.clone(),
        };
        let shared = Arc::new(Shared::new(member, addresses.clone(), data.cluster()?));
        doorway.is_of(&shared);
        let has_secret = std::env::var_os(SECRET_VARIABLE).is_some_and(|s| !s.is_empty());
        let has_secret = has_secret || !config.cluster_secret_file.is_empty();
        let listens = has_secret || !config.join.is_empty();
        if listens || known.as_ref().is_some_and(|k| !k.members.is_alone(member)) {
            let network = network.ok_or_else(|| {
                Error::unsupported("a cluster needs a network, and this node has none")
            })?;
            links::open(&config.rpc, network, &shared).await?;
        }
        let place = match &known {
            Some(known) if known.members.is_alone(member) => Place::Alone,
            Some(_) => Place::Member,
            None if config.join.is_empty() => Place::Alone,
            None => forming::find(config, data, &shared).await?,
        };
        let at = folder.clone();
        let behind = match (&place, known) {
            (Place::Alone, _) => None,
            (_, known) => Some(known.map_or(0, |known| known.begins_behind)),
        };
        let opened =
            machine::blocking(move || WriteAheadLog::open_member(disk, &at, recover, behind));
        let opened = opened.await??;
        if opened.loss.is_some() && !matches!(place, Place::Alone) {
            return Err(Error::corrupt(
                "the log of one member of a cluster cannot go on behind a loss",
            )
            .with_hint(
                "Let this node begin with an empty data folder and a new --node-id, and then \
                 ALTER CLUSTER REMOVE NODE for the old one.",
            ));
        }
        let OpenedLog {
            log,
            encoder,
            entries,
            follows,
            loss,
            is_new,
        } = opened;
        let log_says = Log {
            entries,
            follows,
            loss,
            is_new,
        };
        let seat = Seat {
            folder,
            log,
            encoder,
            place,
            member,
            addresses,
            shared,
        };
        Ok((seat, log_says))
    }

    /// Whether there is nobody else: such a node need not ask anybody before it looks at its store.
    pub fn is_alone(&self) -> bool {
        matches!(self.place, Place::Alone)
    }

    /// Takes part from now on: the thread of the member starts. `entries`: of the log.
    pub fn sit(self, entries: &[(u64, Entry)]) -> Result<(Membership, Encoder)> {
        let joins = match self.place {
            Place::Joins(members) => Some(members),
            Place::Alone | Place::Member => None,
        };
        let begin = Begin {
            disk: machine::disk(),
            folder: &self.folder,
            member: self.member,
            addresses: self.addresses,
            joins,
            seed: machine::random(),
        };
        let replica = Replica::open(self.log, entries, begin)?;
        let (turns, inbox) = mailbox();
        self.shared.begin(turns.clone());
        driver::start(replica, inbox, turns.clone(), self.shared.clone())?;
        let membership = Membership {
            turns,
            shared: self.shared,
        };
        Ok((membership, self.encoder))
    }
}

fn unknown(node: MemberId) -> Error {
    let message = format!("node {node} does not belong to the cluster");
    Error::user(SqlState::UNDEFINED_OBJECT, message).with_hint("SHOW CLUSTER lists its nodes.")
}

impl Membership {
    /// Waits until this node leads and knows all that was decided.
    pub async fn leads(&self) -> Result<()> {
        self.shared.leads().await
    }

    /// What its log has, of all that is decided; it leads.
    pub async fn log(&self) -> Result<Log> {
        let entries = self.ask(|answer| Call::ReadAfter(0, answer)).await?;
        Ok(Log {
            follows: self.shared.follows(),
            entries,
            loss: None,
            is_new: false,
        })
    }

    /// What the coordinator writes to.
    pub fn replicated(&self, encoder: Encoder) -> ReplicatedLog {
        let shared = self.shared.clone();
        ReplicatedLog::new(self.turns.clone(), encoder, move || shared.is_alone())
    }

    /// The others hear that this is the cluster's name.
    pub fn is_named(&self, cluster: &str) {
        self.shared.set_cluster(cluster);
    }

    /// Links about the work go there from now on.
    pub fn set_workplace(&self, workplace: Arc<dyn Workplace>) {
        *self.shared.workplace.lock() = Some(workplace);
    }

    /// A link to the workplace of the node at this address.
    pub async fn connect(&self, rpc: &str, wants: String) -> Result<Link> {
        let sending = self.shared.sending.lock().clone();
        let sending = sending.ok_or_else(|| Error::internal("a node without a network"))?;
        links::connect(sending.network().as_ref(), rpc, links::Wants::Work(wants)).await
    }

    /// Told what is wrong while the log cannot grow, and that it does again.
    pub fn tell_trouble(&self, told: impl Fn(Option<Error>) + Send + Sync + 'static) {
        self.shared.tell_trouble(Box::new(told));
    }

    /// Whether its group has other nodes.
    pub fn has_others(&self) -> bool {
        self.shared.has_others()
    }

    /// Whether nobody else leads: a read now sees all that was acknowledged.
    pub fn is_sure(&self) -> bool {
        self.shared.is_sure()
    }

    /// Waits until that is so.
    ///
    /// Errors: `57P03` if it does not come true.
    pub async fn sure(&self) -> Result<()> {
        self.shared.sure().await
    }

    /// Hands the lead to another member, if there is one, and takes part no more.
    /// `to`: to one of these, if they are any.
    pub async fn leave(&self, to: Vec<MemberId>) -> Result<()> {
        self.ask(|answer| Call::Leave(to, answer)).await
    }

    /// What is known of the group.
    pub fn status(&self) -> GroupStatus {
        self.shared.status()
    }

    /// What the other nodes say of themselves; those that do not answer are missing.
    pub async fn others(&self) -> Vec<NodeInfo> {
        links::others(&self.shared).await
    }

    /// Forgets a node, which must not lead.
    ///
    /// Errors: `42704` if it is unknown, `55006` if it leads or others are being changed, of kind
    /// `Unavailable` if too few nodes answer.
    pub async fn remove(&self, node: MemberId) -> Result<()> {
        let status = self.status();
        status.node(node).ok_or_else(|| unknown(node))?;
        if status.leader == Some(node) {
            let message = format!("node {node} leads the cluster");
            return Err(Error::user(SqlState("55006"), message).with_hint(format!(
                "Stop it first, or ALTER CLUSTER DRAIN NODE {node}: another node leads then."
            )));
        }
        forming::change(&self.shared, vec![MemberChange::Remove(node)]).await
    }

    /// A node is to have no part of the work any more, or again one. Returns when that is decided.
    ///
    /// Errors: as [`Membership::remove`]; `55000` if no node would be left.
    pub async fn drain(&self, node: MemberId, is_drained: bool) -> Result<()> {
        let status = self.status();
        let known = status.node(node).ok_or_else(|| unknown(node))?;
        if known.is_drained == is_drained {
            return Ok(());
        }
        let works = |other: &&NodeStatus| !other.is_drained && other.answers == Some(true);
        let mut others = status.nodes.iter().filter(|other| other.member != node);
        if is_drained && others.find(works).is_none() {
            let message = format!("no other node could do the work of node {node}");
            return Err(Error::user(SqlState::OBJECT_NOT_READY, message)
                .with_hint("SHOW CLUSTER lists the nodes, and which of them are reached."));
        }
        forming::change(&self.shared, vec![MemberChange::Drain(node, is_drained)]).await
    }

    async fn ask<T>(&self, make: impl FnOnce(Answer<T>) -> Call) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let sent = self.turns.send(Turn::Call(make(answer)));
        sent.map_err(|_| not_leading())?;
        answered.await.map_err(|_| not_leading())?
    }
}
