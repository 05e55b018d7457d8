//! The crew: the nodes whose workers work for the one that leads.
//!
//! When the node that leads opens the engine it asks the others for their workers ([`leading`]),
//! and tells each of those that answer who belongs to the crew ([`Muster`]). Then it passes the
//! coordinator's commands on to them, and they report what happens ([`frames`]). A host
//! ([`hosting`]) has workers, the rows that those keep, and nothing that is decided. Workers send
//! changes to each other over links between their nodes ([`exchange`]); rows of a host's workers
//! are read through [`rows`].
//!
//! **Law.** A crew is of one incarnation, and never changes. When one of its nodes is lost, or
//! another one can be had, the node that leads hands the lead over and starts anew; a host whose
//! leader is gone drops all it had of it.
//!
//! **Order.** What a worker sends to another one arrives behind every command that the coordinator
//! gave, to whomever, before one that the sender had taken, as within one process. So commands are
//! numbered throughout, every node hears of every number, and what is exchanged carries the number
//! that its sender had ([`Numbers`]).

mod batches;
mod exchange;
mod frames;
mod hosting;
mod leading;
mod rows;
mod terms;
#[cfg(test)]
mod tests;

pub use leading::{Crew, Ears};

use crate::cluster::{Membership, Workplace};
use async_trait::async_trait;
use bytes::Bytes;
use exchange::Incoming;
use parking_lot::Mutex;
use rows::Shown;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use terms::Terms;
use tidemark_common::config::{Compression, Config};
use tidemark_common::machine::Thread;
use tidemark_common::network::Link;
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_connector::Outside;
use tidemark_control::Placement;
use tidemark_control::raft::MemberId;
use tidemark_state::checkpoint::CheckpointStore;
use tokio::sync::watch;

/// How long a node may take to answer that is asked for its workers.
const OFFER_PATIENCE: Duration = Duration::from_secs(1);
/// How long one may take to be reached that was just lost: if it comes back, it can join a little
/// later.
const LOST_PATIENCE: Duration = Duration::from_millis(150);
/// How long a node may take that led, handed the lead over and starts anew.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take until all nodes of a crew have found each other.
const MUSTER_PATIENCE: Duration = Duration::from_secs(5);
/// How often a node says that it is there, and how its jobs are.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// Without such a sign for so long, a node is lost.
const SILENCE_MAX: Duration = Duration::from_millis(1000);

/// What a link of the crew is for.
#[derive(Serialize, Deserialize)]
enum Wants {
    /// To know how many workers can be had.
    Offer(Terms),
    /// To have them: a [`Muster`] and orders follow.
    Work(Terms),
    /// Changes from that node of the crew follow.
    Exchange { generation: u64, from: usize },
    /// Rows are asked for.
    Rows { generation: u64 },
    /// To know that the other end is reached.
    Reach,
}

/// Who belongs to a crew, and what all of it have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Muster {
    generation: u64,
    /// The first one leads.
    nodes: Vec<Mate>,
    /// Who is told.
    you: usize,
    batch_rows_max: usize,
    edge_bytes_max: usize,
    compression: Compression,
}

/// A node of a crew.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mate {
    member: MemberId,
    rpc: String,
    workers: usize,
}

impl Muster {
    fn placement(&self) -> Placement {
        let workers: Vec<usize> = self.nodes.iter().map(|node| node.workers).collect();
        Placement::over(self.generation, &workers)
    }
}

/// How far a node is with the commands of the coordinator.
#[derive(Default)]
struct Numbers {
    /// Its workers may have taken commands up to this one.
    taken: AtomicU64,
    /// Its workers have been given all up to this one.
    given: watch::Sender<u64>,
}

impl Numbers {
    /// The command of this number is about to be given.
    fn take(&self, number: u64) {
        self.taken.store(number, Ordering::Release);
    }

    /// It is.
    fn gave(&self, number: u64) {
        self.given.send_replace(number);
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Waits until the workers have been given the command of that number.
    async fn reach(&self, number: u64) {
        if *self.given.borrow() < number {
            let mut given = self.given.subscribe();
            let _ = given.wait_for(|given| *given >= number).await;
        }
    }
}

/// What a node knows of another one that it asks for its workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It starts anew, and is waited for.
    Expected,
    /// It was just lost, and is not waited for.
    Lost,
    /// Nothing.
    Unknown,
}

/// What a node has for crews, its own or that of another one.
pub struct Site {
    membership: Membership,
    config: Config,
    outside: Outside,
    store: CheckpointStore,
    /// The newest incarnation that it has worked for; none any more when it leads itself.
    newest: Mutex<Option<u64>>,
    /// Where changes arrive.
    incoming: watch::Sender<Option<Arc<Incoming>>>,
    /// What is known of whom it could work for.
    standing: Mutex<terms::Standing>,
    /// What can be read of its workers.
    shown: Mutex<Option<Arc<Shown>>>,
    /// Workers that it had for an incarnation that has ended.
    ending: Mutex<Vec<Thread>>,
    /// Who led before, and starts anew; until when that may take.
    expected: Mutex<Option<(MemberId, Instant)>>,
    /// Who was lost before, and until when that counts.
    lost: Mutex<Option<(MemberId, Instant)>>,
}

fn json(told: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(told)
        .map_err(|e| Error::internal(format!("what is told cannot be encoded: {e}")))?;
    Ok(bytes.into())
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("what another node says cannot be read: {error}"))
}

fn gone(what: &str) -> Error {
    let message = format!("another node of the cluster {what}");
    Error::unavailable(SqlState::CONNECTION_FAILURE, message)
}

fn late() -> Error {
    gone("does not answer")
}

/// Receives what must come, as JSON.
async fn receive<T: for<'a> Deserialize<'a>>(link: &mut Link, patience: Duration) -> Result<T> {
    let frame = machine::timeout(patience, link.receiver.receive()).await;
    let frame = frame.ok_or_else(late)??;
    let frame = frame.ok_or_else(|| gone("has gone"))?;
    serde_json::from_slice(&frame).map_err(unreadable)
}

impl Site {
    /// Lends the workers of this node from now on, until it leads.
    pub fn open(
        membership: &Membership,
        config: &Config,
        outside: &Outside,
        store: &CheckpointStore,
    ) -> Arc<Site> {
        let site = Arc::new(Site {
            membership: membership.clone(),
            config: config.clone(),
            outside: outside.clone(),
            store: store.clone(),
            newest: Mutex::new(Some(0)),
            incoming: watch::Sender::new(None),
            standing: Mutex::default(),
            shown: Mutex::default(),
            ending: Mutex::default(),
            expected: Mutex::default(),
            lost: Mutex::default(),
        });
        membership.set_workplace(site.clone());
        site
    }

    /// Lends no workers any more.
    pub fn close(&self) {
        *self.newest.lock() = None;
        self.incoming.send_replace(None);
        *self.shown.lock() = None;
    }

    fn expect(&self, member: MemberId) {
        *self.expected.lock() = Some((member, machine::now() + RESTART_PATIENCE));
    }

    fn lost(&self, member: MemberId) {
        *self.lost.lock() = Some((member, machine::now() + RESTART_PATIENCE));
    }

    /// What is known of a member that is to be asked for its workers.
    fn presence(&self, member: MemberId) -> Presence {
        let until = |told: &Mutex<Option<(MemberId, Instant)>>| {
            let told = told.lock().filter(|(who, _)| *who == member);
            told.map(|(_, until)| until)
                .filter(|until| *until > machine::now())
        };
        match (until(&self.expected), until(&self.lost)) {
            (Some(_), _) => Presence::Expected,
            (None, Some(_)) => Presence::Lost,
            (None, None) => Presence::Unknown,
        }
    }

    /// Whether what it does is of this incarnation, and it lends its workers.
    fn works_for(&self, generation: u64) -> bool {
        *self.newest.lock() == Some(generation)
    }

    /// Where changes of this incarnation arrive, once it has begun here.
    async fn incoming(&self, generation: u64) -> Result<Arc<Incoming>> {
        let mut incoming = self.incoming.subscribe();
        loop {
            let begun = incoming.borrow_and_update().clone();
            if let Some(begun) = begun.filter(|i| i.generation == generation) {
                return Ok(begun);
            }
            incoming.changed().await.map_err(|_| gone("has ended"))?;
        }
    }

    async fn connect(&self, rpc: &str, wants: &Wants) -> Result<Link> {
        let wants = serde_json::to_string(wants).map_err(unreadable)?;
        self.membership.connect(rpc, wants).await
    }
}

#[async_trait]
impl Workplace for Site {
    async fn serve(self: Arc<Self>, mut link: Link, wants: &str) -> Result<()> {
        match serde_json::from_str(wants).map_err(unreadable)? {
            Wants::Offer(terms) => {
                if self.newest.lock().is_some() {
                    link.sender.send(json(&self.offer(&terms).await)?).await?;
                    let _ = machine::timeout(OFFER_PATIENCE, link.receiver.receive()).await;
                }
                Ok(())
            }
            Wants::Work(terms) => hosting::work(&self, link, terms).await,
            Wants::Exchange { generation, from } => {
                let incoming = self.incoming(generation);
                let incoming = machine::timeout(MUSTER_PATIENCE, incoming).await;
                exchange::arrive(link, from, &*incoming.ok_or_else(late)??).await
            }
            Wants::Rows { generation } => {
                let shown = self.shown.lock().clone();
                match shown.filter(|shown| shown.generation == generation) {
                    Some(shown) => rows::serve(link, &shown).await,
                    None => Ok(()),
                }
            }
            Wants::Reach => Ok(()),
        }
    }
}
