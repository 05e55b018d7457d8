//! What a node knows of its group, for whoever asks: set by the thread that drives the member.

use super::links::Sending;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemark_common::mailbox::Sender;
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_control::raft::{Addresses, MemberId, Members, PROMISE, Turn, not_leading};
use tokio::sync::{Notify, watch};

/// Decided entries that a member may lack and is nearly as far as the one that leads.
pub const NEAR: u64 = 1000;

/// What a node is in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It decides.
    Leader,
    /// It votes, and keeps a copy of the log.
    Voter,
    /// It keeps a copy of the log.
    Learner,
    /// It does not belong to it.
    #[default]
    Stranger,
}

impl Role {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Voter => "voter",
            Role::Learner => "learner",
            Role::Stranger => "stranger",
        }
    }
}

/// A node of the group.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// Its number.
    pub member: MemberId,
    /// Where it is reached.
    pub addresses: Addresses,
    /// What it is.
    pub role: Role,
    /// Decided entries that it does not have yet, as the leader knows.
    pub lag: Option<u64>,
    /// Whether it answers the leader.
    pub answers: Option<bool>,
    /// It is to have no part of the work.
    pub is_drained: bool,
}

/// The group, as this node knows it.
#[derive(Clone, Debug, Default)]
pub struct GroupStatus {
    /// This node.
    pub member: MemberId,
    /// Who leads.
    pub leader: Option<MemberId>,
    /// Of the elections.
    pub term: u64,
    /// The last decided entry that it knows of.
    pub decided: u64,
    /// All nodes.
    pub nodes: Vec<NodeStatus>,
}

impl GroupStatus {
    /// A node of the group.
    pub fn node(&self, member: MemberId) -> Option<&NodeStatus> {
        self.nodes.iter().find(|node| node.member == member)
    }

    /// Whether a node is to have no part of the work.
    pub fn is_drained(&self, member: MemberId) -> bool {
        self.node(member).is_some_and(|node| node.is_drained)
    }

    /// Where the leader is, if that is another node.
    pub fn leader_elsewhere(&self) -> Option<&NodeStatus> {
        self.node(self.leader.filter(|id| *id != self.member)?)
    }
}

/// What the driver tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub leads: bool,
    pub leader: Option<MemberId>,
    pub term: u64,
    pub decided: u64,
    pub follows: u64,
    pub members: Arc<Members>,
    /// Those with whom the log began.
    pub began_with: Arc<Members>,
    /// How far each has got, and whether it answers; told by a leader.
    pub progress: BTreeMap<MemberId, (u64, bool)>,
}

/// How long a read waits for a majority.
const SURE_PATIENCE: Duration = Duration::from_secs(5);

fn not_sure() -> Error {
    Error::unavailable(
        SqlState("57P03"),
        "this node does not reach the majority of its cluster: what it knows may be old",
    )
    .with_hint("Connect to another node.")
}

/// Is told what is wrong while the log cannot grow.
pub(super) type Trouble = Box<dyn Fn(Option<Error>) + Send + Sync>;

/// What the parts of a node share about its group.
pub(super) struct Shared {
    pub member: MemberId,
    pub addresses: Addresses,
    /// Unlike that of any other process.
    pub nonce: u64,
    pub started: Instant,
    cluster: Mutex<Option<String>>,
    told: watch::Sender<Told>,
    /// Nobody else leads before this time.
    sure_until: Mutex<Option<Instant>>,
    /// It has.
    assured: Notify,
    /// It promises nothing any more: another one is to lead.
    leaves: AtomicBool,
    /// There is nobody else.
    alone: AtomicBool,
    turns: Mutex<Option<Sender<Turn>>>,
    pub sending: Mutex<Option<Arc<Sending>>>,
    pub sql: Mutex<Option<super::SqlLinks>>,
    pub workplace: Mutex<Option<Arc<dyn super::Workplace>>>,
    trouble: Mutex<Option<Trouble>>,
    /// The driver has ended.
    pub ended: watch::Sender<bool>,
}

impl Shared {
    pub fn new(member: MemberId, addresses: Addresses, cluster: Option<String>) -> Shared {
        Shared {
            member,
            addresses,
            nonce: machine::random(),
            started: machine::now(),
            cluster: Mutex::new(cluster),
            told: watch::Sender::default(),
            sure_until: Mutex::default(),
            assured: Notify::new(),
            leaves: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            turns: Mutex::default(),
            sending: Mutex::default(),
            sql: Mutex::default(),
            workplace: Mutex::default(),
            trouble: Mutex::default(),
            ended: watch::Sender::default(),
        }
    }

    /// The member can be told something from now on.
    pub fn begin(&self, turns: Sender<Turn>) {
        *self.turns.lock() = Some(turns);
    }

    /// Where the member is told something.
    pub fn turns(&self) -> Option<Sender<Turn>> {
        self.turns.lock().clone()
    }

    pub fn cluster(&self) -> Option<String> {
        self.cluster.lock().clone()
    }

    pub fn set_cluster(&self, cluster: &str) {
        *self.cluster.lock() = Some(cluster.into());
    }

    pub fn tell(&self, told: Told) {
        let alone = told.leads && told.members.is_alone(self.member);
        self.alone.store(alone, Ordering::Release);
        self.told.send_replace(told);
    }

    pub fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    pub fn follows(&self) -> u64 {
        self.told.borrow().follows
    }

    pub async fn leads(&self) -> Result<()> {
        let mut told = self.told.subscribe();
        let leads = told.wait_for(|told| told.leads).await;
        leads.map(drop).map_err(|_| not_leading())
    }

    /// From now on nobody is sure that this node leads.
    pub fn leave(&self) {
        self.leaves.store(true, Ordering::Release);
    }

    /// A majority has promised at that time not to elect another for a while.
    pub fn promised(&self, at: Instant) {
        *self.sure_until.lock() = Some(at + PROMISE);
        self.assured.notify_waiters();
    }

    /// Waits until it is sure that nobody else leads.
    pub async fn sure(&self) -> Result<()> {
        let late = machine::sleep(SURE_PATIENCE);
        let mut late = pin!(late);
        loop {
            let mut assured = pin!(self.assured.notified());
            assured.as_mut().enable();
            if self.is_sure() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = assured => {}
                () = &mut late => return Err(not_sure()),
            }
        }
    }

    /// Whether it belongs to its group.
    pub fn is_member(&self) -> bool {
        self.told.borrow().members.all().contains(&self.member)
    }

    pub fn has_others(&self) -> bool {
        !self.told.borrow().members.is_alone(self.member)
    }

    /// Whether there is no other member.
    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    pub fn is_sure(&self) -> bool {
        if self.is_alone() {
            return true;
        }
        let until = *self.sure_until.lock();
        !self.leaves.load(Ordering::Acquire) && until.is_some_and(|until| machine::now() < until)
    }

    pub fn tell_trouble(&self, told: Trouble) {
        *self.trouble.lock() = Some(told);
    }

    pub fn trouble(&self, error: Option<Error>) {
        if let Some(told) = &*self.trouble.lock() {
            told(error);
        }
    }

    pub fn status(&self) -> GroupStatus {
        let told = self.told();
        // While a change of the votes is on its way, those count that were there before.
        let votes = match told.members.voters_outgoing.is_empty() {
            true => &told.members.voters,
            false => &told.members.voters_outgoing,
        };
        let role = |id: MemberId| match () {
            () if told.leader == Some(id) => Role::Leader,
            () if votes.contains(&id) => Role::Voter,
            () if told.members.all().contains(&id) => Role::Learner,
            () => Role::Stranger,
        };
        let node = |member: MemberId| {
            let progress = told.progress.get(&member);
            NodeStatus {
                member,
                addresses: told
                    .members
                    .addresses
                    .get(&member)
                    .cloned()
                    .unwrap_or_default(),
                role: role(member),
                lag: progress.map(|(reached, _)| told.decided.saturating_sub(*reached)),
                answers: progress.map(|(_, answers)| *answers),
                is_drained: told.members.drained.contains(&member),
            }
        };
        GroupStatus {
            member: self.member,
            leader: told.leader,
            term: told.term,
            decided: told.decided,
            nodes: told.members.all().into_iter().map(node).collect(),
        }
    }

    /// Waits for the end of the driver.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
