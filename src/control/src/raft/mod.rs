//! The log in a group: raft-rs over the write-ahead log of each member. What one member proposes, a
//! majority keeps before it is decided; then every member has the same entries in the same order.
//!
//! [`Replica`] is a member as a step function: it is told of ticks, of messages and of what is to
//! be decided, and says what to send and what is decided by now. Who drives it has the threads, the
//! clock and the network (crate `node`). [`ReplicatedLog`] is what the coordinator of the member
//! that leads writes to.
//!
//! * **A group of one** decides what it has made durable itself: one write and one sync, as without
//!   raft.
//! * **Entries** are the payloads of the write-ahead log, one frame each. What elections need is a
//!   small file beside it ([`state`]), written when a term begins and when members change.
//! * **Far behind.** A checkpoint contains all entries up to some index. A member that needs older
//!   ones gets the checkpoint's name in place of them; the state itself lies in the store.
//! * **Who leads** is sure that nobody else does for as long as a majority has promised
//!   ([`Output::sure_since`]): members do not elect another before they have missed it for a while.
//! * Members that do not hear of a leader ask first whether an election had a chance (pre-vote),
//!   and a leader that does not hear of a majority gives up (check-quorum).

mod log;
mod state;
mod storage;
#[cfg(test)]
mod tests;

use crate::wal::payload;
use crate::{Entry, WriteAheadLog};
pub use log::{Answer, Call, ReplicatedLog, Turn, call};
use prost::Message as _;
pub use raft::eraftpb::Message;
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use raft::{RawNode, ReadOnlyOption, Ready, StateRole};
use serde::{Deserialize, Serialize};
use state::StateFile;
pub use state::{Addresses, MemberId, Members};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::{LogStorage, beginning, contained};
use tidemark_common::disk::Disk;
use tidemark_common::random::Random;
use tidemark_common::{Error, Result, SqlState};

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(50);
/// Ticks between two signs of life of a leader.
const HEARTBEAT_TICKS: usize = 3;
/// Ticks without any, at least, after which members elect another.
const ELECTION_TICKS: usize = 16;
/// How long a majority's promise lasts: members count ticks, which come late but never early.
pub const PROMISE: Duration = Duration::from_millis(50 * (ELECTION_TICKS as u64 - 2));
/// Bytes of entries in one message at most, unless one is larger.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages with entries on their way to a member.
const IN_FLIGHT_MAX: usize = 64;

/// One member of a group.
pub struct Replica {
    raw: RawNode<LogStorage>,
    member: MemberId,
    /// What is being made durable.
    pending: Option<Ready>,
    /// Messages that wait for that.
    unsent: Vec<Message>,
    /// Ticks since it was opened, as far as they matter.
    ticks: usize,
    /// All ticks, and the one at which each member said something last.
    clock: u64,
    heard: BTreeMap<MemberId, u64>,
    /// It leads, and has no vote any more.
    outvoted: bool,
    /// All up to here is decided.
    decided: u64,
    /// Of the first entry of its own term, if it leads.
    elected_at: Option<u64>,
    /// How long it waits for a leader is by chance, or members would ask for votes at the same
    /// time.
    random: Random,
}

/// What came of a turn.
#[derive(Default)]
pub struct Output {
    /// To be sent; they may get lost.
    pub messages: Vec<Message>,
    /// Signs that a majority has answered to: the argument of [`Replica::ask_majority`].
    pub sure_since: Option<u64>,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberChange {
    /// It keeps a copy, and does not vote yet.
    Add(MemberId, Addresses),
    /// It votes.
    Promote(MemberId),
    /// It votes no more.
    Demote(MemberId),
    /// It belongs to the group no more.
    Remove(MemberId),
    /// It is to have no part of the work any more, or again one.
    Drain(MemberId, bool),
}

/// What an entry that changes members says of one beside raft-rs's words. Builds that know of no
/// drained members read its addresses.
#[derive(Serialize, Deserialize)]
struct Placed {
    #[serde(flatten)]
    addresses: Addresses,
    /// It is drained from now on, or no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drained: Option<bool>,
}

/// What is known of a group before a member takes part.
pub struct Known {
    /// Who belongs to it.
    pub members: Members,
    /// The index that its log begins behind.
    pub begins_behind: u64,
}

/// How a member takes part.
pub struct Begin<'a> {
    /// Beside the log's folder lies what elections need.
    pub disk: Arc<dyn Disk>,
    /// The log's folder.
    pub folder: &'a Path,
    /// Its number.
    pub member: MemberId,
    /// Where it is reached.
    pub addresses: Addresses,
    /// The members of the group that it joins; none: it begins one, or it belongs to one.
    pub joins: Option<Members>,
    /// Where its chance comes from.
    pub seed: u64,
}

impl Replica {
    /// Who belongs to the group of this log, as far as it knows; none where it belongs to none yet.
    /// With it comes the index that its log begins behind.
    pub fn known(disk: Arc<dyn Disk>, folder: &Path) -> Result<Option<Known>> {
        let state = StateFile::beside(disk, folder).read()?;
        Ok(state.map(|state| Known {
            members: state.newest().1.clone(),
            begins_behind: state.begins_behind,
        }))
    }

    /// Takes part from now on.
    pub fn open(log: WriteAheadLog, entries: &[(u64, Entry)], begin: Begin) -> Result<Replica> {
        let file = StateFile::beside(begin.disk, begin.folder);
        let is_new = log.next_index() == 1;
        let state = beginning(begin.member, begin.addresses, begin.joins, is_new);
        let storage = LogStorage::open(log, file, entries, state)?;
        if storage.state.member != begin.member {
            return Err(Error::user(
                SqlState::OBJECT_NOT_READY,
                format!(
                    "the data folder is that of node {}, not of node {}",
                    storage.state.member, begin.member
                ),
            )
            .with_hint("Start it with its own --node-id, or another one with an empty folder."));
        }
        Replica::over(storage, begin.member, Random(begin.seed))
    }

    fn over(storage: LogStorage, member: MemberId, random: Random) -> Result<Replica> {
        let config = raft::Config {
            id: member,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: storage.applied(),
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            ..raft::Config::default()
        };
        let decided = storage.applied();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, storage, &logger).map_err(broken)?;
        let mut replica = Replica {
            raw,
            member,
            pending: None,
            unsent: Vec::new(),
            ticks: 0,
            clock: 0,
            heard: BTreeMap::new(),
            outvoted: false,
            decided,
            elected_at: None,
            random,
        };
        if replica.members().is_alone(member) {
            // There is nobody to wait for.
            replica.raw.campaign().map_err(broken)?;
        }
        Ok(replica)
    }

    /// Its number.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// The members now.
    pub fn members(&self) -> &Members {
        self.raw.store().members()
    }

    /// Those with whom its log begins.
    pub fn began_with(&self) -> &Members {
        let members = &self.raw.store().state.members;
        members
            .first()
            .map_or(self.members(), |(_, members)| members)
    }

    /// Who leads, as far as it knows.
    pub fn leader(&self) -> Option<MemberId> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    /// Whether another member leads: who handed the lead over is needed until then, by its vote.
    pub fn is_led_by_another(&self) -> bool {
        self.leader().is_some_and(|leader| leader != self.member)
    }

    /// The term of the elections.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Whether it leads, and knows all that was decided before.
    pub fn leads(&self) -> bool {
        self.is_leader() && self.elected_at.is_some_and(|at| at <= self.decided)
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// All up to this index is decided.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// Whether entries name files of rows, which only this node has. A checkpoint that contains
    /// them ends that.
    pub fn names_files(&self) -> bool {
        self.raw.store().names_files()
    }

    /// How far each member has got, and whether it answers: of the leader's view.
    pub fn progress(&self) -> Vec<(MemberId, u64, bool)> {
        let all = self.raw.raft.prs().iter();
        all.map(|(id, p)| (*id, p.matched, self.is_heard(*id)))
            .collect()
    }

    /// Whether a member has said something of late, or is this one. (What raft-rs knows of that
    /// begins anew with each look at the quorum.)
    fn is_heard(&self, member: MemberId) -> bool {
        let since = |at: &u64| self.clock - at <= ELECTION_TICKS as u64;
        member == self.member || self.heard.get(&member).is_some_and(since)
    }

    /// Time goes by.
    pub fn tick(&mut self) {
        self.ticks = (self.ticks + 1).min(ELECTION_TICKS);
        self.clock += 1;
        let raft = &mut self.raw.raft;
        if raft.election_elapsed == 0 {
            let by_chance = self.random.below_u64(ELECTION_TICKS as u64) as usize;
            raft.set_randomized_election_timeout(ELECTION_TICKS + by_chance);
        }
        self.raw.tick();
    }

    /// A message has come. One that makes no sense, or is from no member, is not heard.
    pub fn receive(&mut self, message: Message) {
        use eraftpb::MessageType::{MsgRequestPreVote, MsgRequestVote};
        // A promise to a leader, given before it was opened, may still hold.
        let asks = matches!(message.get_msg_type(), MsgRequestPreVote | MsgRequestVote);
        if asks && self.ticks < ELECTION_TICKS {
            return;
        }
        let from = message.from;
        match self.raw.step(message) {
            Ok(()) => drop(self.heard.insert(from, self.clock)),
            Err(error) => tracing::debug!(%error, "a message of the group is not heard"),
        }
    }

    /// A member is not reached at the moment.
    pub fn is_unreachable(&mut self, member: MemberId) {
        self.raw.report_unreachable(member);
    }

    /// A checkpoint's name was sent to it, or was not.
    pub fn told_checkpoint(&mut self, member: MemberId, sent: bool) {
        let status = match sent {
            true => raft::SnapshotStatus::Finish,
            false => raft::SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(member, status);
    }

    /// Asks the majority whether this member still leads; `now` comes back with their answer.
    pub fn ask_majority(&mut self, now: u64) {
        if self.is_leader() {
            self.raw.read_index(now.to_le_bytes().to_vec());
        }
    }

    /// Has payloads decided, one after the other; returns the index of the last one. It is decided
    /// when [`Replica::decided`] reaches that while this member leads.
    ///
    /// Errors: it does not lead, or a payload names files that other members do not have. Nothing
    /// is proposed then.
    pub fn propose(&mut self, payloads: Vec<Vec<u8>>) -> Result<u64> {
        if !self.leads() || self.raw.raft.lead_transferee.is_some() {
            return Err(not_leading());
        }
        let alone = self.members().is_alone(self.member) && !self.raw.raft.has_pending_conf();
        for payload in payloads.iter().filter(|_| !alone) {
            if !payload::names(payload)?.is_empty() {
                return Err(names_files());
            }
        }
        for payload in payloads {
            self.raw.propose(Vec::new(), payload).map_err(broken)?;
        }
        Ok(self.raw.raft.raft_log.last_index())
    }

    /// Has a change of members decided: all of it at once, by a joint vote of the members before
    /// and after where several are concerned.
    ///
    /// Errors: it does not lead, or another change is on its way.
    pub fn propose_members(&mut self, changes: &[MemberChange]) -> Result<u64> {
        if !self.leads() {
            return Err(not_leading());
        }
        if self.raw.raft.has_pending_conf() || !self.members().voters_outgoing.is_empty() {
            return Err(Error::unavailable(
                SqlState("55006"),
                "the members are being changed already",
            ));
        }
        let members = self.members();
        let drains = |change: &MemberChange| match change {
            MemberChange::Drain(member, _) => !members.all().contains(member),
            _ => false,
        };
        if changes.iter().any(drains) {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                "that node does not belong to the cluster any more",
            ));
        }
        let mut placed = BTreeMap::new();
        let mut place = |member: MemberId, addresses: &Addresses, drained| {
            let addresses = addresses.clone();
            placed.insert(member, Placed { addresses, drained });
        };
        let single = |change: &MemberChange| {
            let (kind, member) = match change {
                MemberChange::Add(member, addresses) => {
                    place(*member, addresses, None);
                    (ConfChangeType::AddLearnerNode, member)
                }
                MemberChange::Demote(member) => (ConfChangeType::AddLearnerNode, member),
                MemberChange::Promote(member) => (ConfChangeType::AddNode, member),
                MemberChange::Remove(member) => (ConfChangeType::RemoveNode, member),
                // For raft it stays what it is.
                MemberChange::Drain(member, is_drained) => {
                    let addresses = members.addresses.get(member);
                    place(
                        *member,
                        addresses.unwrap_or(&Addresses::default()),
                        Some(*is_drained),
                    );
                    match members.voters.contains(member) {
                        true => (ConfChangeType::AddNode, member),
                        false => (ConfChangeType::AddLearnerNode, member),
                    }
                }
            };
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = *member;
            single
        };
        let mut change = ConfChangeV2 {
            changes: changes.iter().map(single).collect(),
            ..Default::default()
        };
        change.context = serde_json::to_vec(&placed)
            .map_err(|e| Error::internal(format!("members cannot be encoded: {e}")))?;
        change.set_transition(ConfChangeTransition::Auto);
        self.raw
            .propose_conf_change(Vec::new(), change)
            .map_err(broken)?;
        Ok(self.raw.raft.raft_log.last_index())
    }

    /// Hands the lead to another member, which is nearly as far: to one of these, if they are any.
    /// One that is drained leads only if there is nobody else.
    pub fn hand_over(&mut self, among: &[MemberId]) -> bool {
        let members = self.members();
        let others = self.raw.raft.prs().iter();
        let others = others.filter(|(id, _)| {
            let may_lead = members.voters.contains(id) && (among.is_empty() || among.contains(id));
            **id != self.member && self.is_heard(**id) && may_lead
        });
        let fit = |id: &MemberId| !members.drained.contains(id);
        let next = others.max_by_key(|(id, p)| (fit(id), p.matched));
        let next = next.map(|(id, _)| *id);
        if let Some(next) = next.filter(|_| self.is_leader()) {
            self.raw.transfer_leader(next);
        }
        next.is_some()
    }

    /// Entries up to `index` are in a checkpoint.
    pub fn truncate(&mut self, index: u64) -> Result<()> {
        self.raw.mut_store().truncate(index)
    }

    /// The entries after `index` that the log still has, up to what is decided.
    pub fn read_after(&mut self, index: u64) -> Result<Vec<(u64, Entry)>> {
        let decided = self.decided;
        let mut entries = self.raw.mut_store().wal().read_after(index)?;
        entries.retain(|(index, _)| *index <= decided);
        Ok(entries)
    }

    /// The index that the first entry of the log follows.
    pub fn follows(&self) -> u64 {
        self.raw.raft.raft_log.first_index() - 1
    }

    /// The log has told of an accepted loss.
    pub fn loss_is_told(&mut self) -> Result<()> {
        self.raw.mut_store().wal().loss_is_told()
    }

    /// The log of a group of one goes on behind this index, after a loss that was accepted.
    pub fn begin_behind(self, index: u64) -> Result<Replica> {
        let (member, random) = (self.member, self.random);
        let mut storage = self.raw.raft.r.raft_log.store;
        storage.begin_behind(index)?;
        Replica::over(storage, member, random)
    }

    /// Does what is due: makes durable what must be, and says what to send. What could not be
    /// written is tried again by the next call.
    pub fn turn(&mut self) -> Result<Output> {
        let mut output = Output {
            messages: std::mem::take(&mut self.unsent),
            ..Output::default()
        };
        loop {
            let mut ready = match self.pending.take() {
                Some(ready) => ready,
                None if self.raw.has_ready() => self.raw.ready(),
                None => return Ok(output),
            };
            output.messages.extend(ready.take_messages());
            if let Err(error) = self.persist(&ready) {
                self.pending = Some(ready);
                self.unsent = output.messages;
                return Err(error);
            }
            if let Some(state) = ready.take_read_states().pop()
                && let Ok(since) = <[u8; 8]>::try_from(&state.request_ctx[..])
            {
                output.sure_since = Some(u64::from_le_bytes(since));
            }
            if self.is_leader() && self.elected_at.is_none() {
                self.elected_at = Some(self.raw.raft.raft_log.last_index());
            }
            if !self.is_leader() {
                self.elected_at = None;
            }
            let contained = ready.snapshot().get_metadata().index;
            self.decided = self.decided.max(contained);
            let decided = ready.take_committed_entries();
            output.messages.extend(ready.take_persisted_messages());
            self.decide(decided).map_err(undecided)?;
            let mut light = self.raw.advance(ready);
            output.messages.extend(light.take_messages());
            let decided = light.take_committed_entries();
            self.decide(decided).map_err(undecided)?;
            self.raw.advance_apply();
            if std::mem::take(&mut self.outvoted) && self.is_leader() {
                let term = self.term();
                self.raw.raft.become_follower(term, raft::INVALID_ID);
            }
        }
    }

    fn persist(&mut self, ready: &Ready) -> Result<()> {
        let store = self.raw.mut_store();
        if !ready.snapshot().is_empty() {
            store.begin_with(ready.snapshot())?;
        }
        if let Some(hard) = ready.hs() {
            store.set_hard_state(hard)?;
        }
        store.append(ready.entries().clone())?;
        if let Some(hard) = ready.hs() {
            store.set_commit(hard.commit);
        }
        Ok(())
    }

    /// These are decided.
    fn decide(&mut self, entries: Vec<eraftpb::Entry>) -> Result<()> {
        for entry in entries {
            self.decided = self.decided.max(entry.index);
            match entry.get_entry_type() {
                eraftpb::EntryType::EntryNormal if entry.data.is_empty() => {}
                eraftpb::EntryType::EntryNormal => self.note_checkpoint(&entry)?,
                _ => self.change_members(&entry)?,
            }
        }
        Ok(())
    }

    /// Members who do not lead shorten their logs by this.
    fn note_checkpoint(&mut self, entry: &eraftpb::Entry) -> Result<()> {
        if !payload::may_be_checkpoint(&entry.data) {
            return Ok(());
        }
        let entries = payload::decode(&entry.data)?;
        let Some(checkpoint) = entries.iter().rev().find_map(contained) else {
            return Ok(());
        };
        let (index, leads) = (checkpoint.index, self.is_leader());
        let store = self.raw.mut_store();
        store.checkpoint = Some(checkpoint);
        if !leads {
            store.truncate(index)?;
        }
        Ok(())
    }

    fn change_members(&mut self, entry: &eraftpb::Entry) -> Result<()> {
        let change = ConfChangeV2::decode(&entry.data[..])
            .map_err(|e| Error::corrupt(format!("log entry {}: members: {e}", entry.index)))?;
        let conf = self.raw.apply_conf_change(&change).map_err(broken)?;
        let mut members = self.members().with(conf);
        if !change.context.is_empty() {
            let placed: BTreeMap<MemberId, Placed> = serde_json::from_slice(&change.context)
                .map_err(|e| Error::corrupt(format!("log entry {}: {e}", entry.index)))?;
            for (member, Placed { addresses, drained }) in placed {
                members.addresses.insert(member, addresses);
                if let Some(is_drained) = drained {
                    members.drain(member, is_drained);
                }
            }
        }
        let votes = [&members.voters, &members.voters_outgoing];
        let votes = votes.iter().any(|all| all.contains(&self.member));
        self.raw.mut_store().set_members(entry.index, members)?;
        // It may have been elected before it knew that it does not belong to them any more.
        self.outvoted = !votes;
        Ok(())
    }
}

/// This member does not lead: it can decide nothing.
pub fn not_leading() -> Error {
    Error::unavailable(
        SqlState("57P01"),
        "this node does not lead its cluster any more",
    )
    .with_hint("Connect again: another node goes on.")
}

/// A payload names files of rows, which other members do not have.
fn names_files() -> Error {
    Error::user(
        SqlState("54000"),
        "the rows of an entry are too many for a cluster of several nodes",
    )
}

/// Entries that are decided could not be taken in: whoever starts anew does so again.
fn undecided(error: Error) -> Error {
    Error::unavailable(SqlState::IO_ERROR, error.to_string())
}

fn broken(error: raft::Error) -> Error {
    Error::internal(format!("raft: {error}"))
}

/// Whether it names a checkpoint in place of entries: then whoever sends it tells what came of it.
pub fn names_checkpoint(message: &Message) -> bool {
    message.get_msg_type() == eraftpb::MessageType::MsgSnapshot
}

/// A message as bytes.
pub fn encode(message: &Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// The inverse of [`encode`].
pub fn decode(bytes: &[u8]) -> Result<Message> {
    Message::decode(bytes).map_err(|e| Error::corrupt(format!("a message of the group: {e}")))
}
