//! The storage that raft-rs asks: the write-ahead log for entries, the state file for what
//! elections and members are. The newest entries are also held in memory, since nearly all that is
//! asked for is among them; a member that is far behind gets older ones read from the disk.

use super::state::{Addresses, MemberId, Members, State, StateFile};
use crate::wal::payload::{self, Kind};
use crate::{Entry, WriteAheadLog};
use raft::eraftpb::{self, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidemark_common::{Epoch, Error, Result};

/// Entries that are held in memory, in bytes.
const RECENT_BYTES_MAX: usize = 8 << 20;

/// A checkpoint in place of the entries that it contains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Contained {
    /// All entries up to this index are in it.
    pub index: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its manifest's path.
    pub manifest: String,
    /// The members then.
    #[serde(default)]
    pub members: Members,
}

/// See the module.
pub(super) struct LogStorage {
    wal: WriteAheadLog,
    file: StateFile,
    pub state: State,
    recent: VecDeque<eraftpb::Entry>,
    recent_bytes: usize,
    /// The last committed checkpoint.
    pub checkpoint: Option<Contained>,
}

impl LogStorage {
    /// Over a log that was opened. One that no group has kept so far is that of a group of one; an
    /// empty one too, unless it is told which group it joins.
    pub fn open(
        wal: WriteAheadLog,
        file: StateFile,
        entries: &[(u64, Entry)],
        begins: State,
    ) -> Result<LogStorage> {
        let state = match file.read()? {
            Some(state) => state,
            None if wal.is_replicated() => {
                let path = file.path().display();
                return Err(Error::corrupt(format!("log: {path} is missing")).with_hint(
                    "Put the file back. If it is gone for good and the node is one of several, \
                     let it begin with an empty data folder and a new node id.",
                ));
            }
            None => {
                file.write(&begins)?;
                begins
            }
        };
        let checkpoint = entries.iter().rev().find_map(|(_, e)| contained(e));
        let mut storage = LogStorage {
            wal,
            file,
            state,
            recent: VecDeque::new(),
            recent_bytes: 0,
            checkpoint,
        };
        let behind = storage.state.begins_behind;
        if behind > 0 && storage.wal.first_index() <= behind {
            // Whoever took the checkpoint died before the log began behind it.
            if storage.wal.next_index() > behind + 1 {
                storage.wal.give_up(behind + 1)?;
            }
            storage.wal.begin_behind(behind)?;
        }
        let next = storage.wal.next_index();
        storage
            .state
            .terms
            .retain(|(first, _)| *first < next || *first <= behind);
        storage.state.forget_before(storage.wal.first_index() - 1);
        Ok(storage)
    }

    /// The members now.
    pub fn members(&self) -> &Members {
        self.state.newest().1
    }

    /// Entries up to here need not be told by raft again: what matters of them is in the state.
    pub fn applied(&self) -> u64 {
        self.state.newest().0.max(self.wal.first_index() - 1)
    }

    /// Whether entries name files of rows.
    pub fn names_files(&self) -> bool {
        self.wal.names_files()
    }

    pub fn wal(&mut self) -> &mut WriteAheadLog {
        &mut self.wal
    }

    /// Makes term and vote durable. How much is decided need not be: who leads tells it again.
    pub fn set_hard_state(&mut self, hard: &HardState) -> Result<()> {
        if (self.state.term, self.state.vote) == (hard.term, hard.vote) {
            return Ok(());
        }
        let mut state = self.state.clone();
        (state.term, state.vote) = (hard.term, hard.vote);
        self.remember(state)
    }

    /// So much is decided, of what is durable.
    pub fn set_commit(&mut self, commit: u64) {
        self.state.commit = commit.min(self.wal.next_index() - 1);
    }

    /// Makes a state durable; what is held stays as it was where that fails.
    fn remember(&mut self, state: State) -> Result<()> {
        self.file.write(&state)?;
        self.state = state;
        Ok(())
    }

    /// The members from this entry on.
    pub fn set_members(&mut self, since: u64, members: Members) -> Result<()> {
        let mut state = self.state.clone();
        state.members.push((since, members));
        state.commit = state.commit.max(since);
        self.remember(state)
    }

    /// Entries up to and including `index` are in a checkpoint.
    pub fn truncate(&mut self, index: u64) -> Result<()> {
        self.wal.truncate(index)?;
        let first = self.wal.first_index();
        self.state.forget_before(first - 1);
        while let Some(entry) = self.recent.pop_front_if(|entry| entry.index < first) {
            self.recent_bytes -= entry.data.len();
        }
        Ok(())
    }

    /// Makes entries durable, in place of those that are there from the first one on. One that
    /// fails for lack of room may be tried again.
    pub fn append(&mut self, entries: Vec<eraftpb::Entry>) -> Result<()> {
        let Some(first) = entries.first().map(|e| e.index) else {
            return Ok(());
        };
        if first < self.wal.next_index() {
            self.give_up(first)?;
        }
        let mut terms = self.state.terms.clone();
        terms.retain(|(at, _)| *at < first);
        for entry in &entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        if terms != self.state.terms {
            let mut state = self.state.clone();
            state.terms = terms;
            self.remember(state)?;
        }
        let payloads: Vec<Vec<u8>> = entries.iter().map(payload_of).collect();
        self.wal.append(&payloads)?;
        for entry in entries {
            self.recent_bytes += entry.data.len();
            self.recent.push_back(entry);
        }
        while self.recent_bytes > RECENT_BYTES_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.data.len();
        }
        Ok(())
    }

    fn give_up(&mut self, from: u64) -> Result<()> {
        while let Some(entry) = self.recent.pop_back_if(|entry| entry.index >= from) {
            self.recent_bytes -= entry.data.len();
        }
        self.wal.give_up(from)?;
        self.state.terms.retain(|(first, _)| *first < from);
        Ok(())
    }

    /// Begins anew behind a checkpoint that somebody else has.
    pub fn begin_with(&mut self, snapshot: &Snapshot) -> Result<()> {
        let at = snapshot.get_metadata();
        let contained: Contained = serde_json::from_slice(&snapshot.data)
            .map_err(|e| Error::corrupt(format!("a checkpoint that was told: {e}")))?;
        tracing::info!(
            entry = at.index, checkpoint = %contained.epoch,
            "this node was far behind: its log goes on behind a checkpoint"
        );
        let next = self.wal.next_index();
        if next > at.index + 1 {
            self.give_up(at.index + 1)?;
        }
        self.recent.clear();
        self.recent_bytes = 0;
        let mut state = self.state.clone();
        state.terms = vec![(at.index, at.term)];
        state.members = vec![(at.index, contained.members.clone())];
        (state.begins_behind, state.commit) = (at.index, at.index);
        self.remember(state)?;
        self.wal.begin_behind(at.index)?;
        self.checkpoint = Some(contained);
        Ok(())
    }

    /// A log of a group of one whose loss was accepted goes on behind this index.
    pub fn begin_behind(&mut self, index: u64) -> Result<()> {
        self.recent.clear();
        self.recent_bytes = 0;
        self.wal.begin_behind(index)?;
        let behind = self.wal.first_index() - 1;
        let members = self.members().clone();
        self.state.terms = vec![(behind, self.state.term)];
        self.state.members = vec![(behind, members)];
        (self.state.begins_behind, self.state.commit) = (behind, behind);
        self.file.write(&self.state)
    }

    fn entry(&self, index: u64) -> Result<eraftpb::Entry> {
        let recent = self.recent.front().map_or(u64::MAX, |e| e.index);
        if let Some(entry) = index
            .checked_sub(recent)
            .and_then(|at| self.recent.get(at as usize))
        {
            return Ok(entry.clone());
        }
        let payload = self.wal.payload(index)?;
        let (kind, data) = match payload::kind(&payload) {
            Kind::Elected => (EntryType::EntryNormal, Vec::new()),
            Kind::Members(change) => (EntryType::EntryConfChangeV2, change.to_vec()),
            Kind::Entries => (EntryType::EntryNormal, payload),
        };
        Ok(eraftpb::Entry {
            entry_type: kind.into(),
            term: self.state.term_of(index),
            index,
            data,
            ..Default::default()
        })
    }
}

/// The checkpoint that an entry commits.
pub(super) fn contained(entry: &Entry) -> Option<Contained> {
    match entry {
        Entry::Checkpoint {
            epoch,
            manifest,
            contains,
        } => Some(Contained {
            index: *contains,
            epoch: *epoch,
            manifest: manifest.clone(),
            members: Members::default(),
        }),
        _ => None,
    }
}

fn payload_of(entry: &eraftpb::Entry) -> Vec<u8> {
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => payload::elected(),
        EntryType::EntryNormal => entry.data.clone(),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => payload::members(&entry.data),
    }
}

fn failed(error: Error) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard = self.state.hard_state();
        // What members are rests on what was decided.
        hard.commit = hard
            .commit
            .max(self.applied())
            .min(self.wal.next_index() - 1);
        Ok(RaftState::new(hard, self.members().conf_state()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.wal.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.wal.next_index() {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let most = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in low..high {
            bytes += self.wal.payload_bytes(index) as u64;
            if bytes > most && !entries.is_empty() {
                break;
            }
            entries.push(self.entry(index).map_err(failed)?);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 < self.wal.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index >= self.wal.next_index() && index > 0 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        Ok(self.state.term_of(index))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.wal.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.wal.next_index() - 1)
    }

    fn snapshot(&self, request_index: u64, to: MemberId) -> raft::Result<Snapshot> {
        let later = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        let Some(checkpoint) = &self.checkpoint else {
            return Err(later);
        };
        if checkpoint.index < request_index || checkpoint.index + 1 < self.wal.first_index() {
            return Err(later);
        }
        let mut members = self.state.members_at(checkpoint.index).clone();
        if !members.all().contains(&to) {
            // It came later, and takes a checkpoint only from those it belongs to.
            members.learners.push(to);
            let address = self.members().addresses.get(&to).cloned();
            members
                .addresses
                .extend(address.map(|address| (to, address)));
        }
        let told = Contained {
            members: members.clone(),
            ..checkpoint.clone()
        };
        let mut snapshot = Snapshot {
            data: serde_json::to_vec(&told).map_err(|e| failed(Error::internal(e.to_string())))?,
            ..Default::default()
        };
        let at = snapshot.mut_metadata();
        at.index = checkpoint.index;
        at.term = self.state.term_of(checkpoint.index);
        at.set_conf_state(members.conf_state());
        Ok(snapshot)
    }
}

/// Where a group begins: with this member alone, or with those whom it joins.
pub(super) fn beginning(
    member: MemberId,
    addresses: Addresses,
    joins: Option<Members>,
    is_new: bool,
) -> State {
    match joins {
        Some(members) => State {
            member,
            members: vec![(0, members)],
            ..State::default()
        },
        None if is_new => State {
            member,
            members: vec![(0, Members::alone(member, addresses))],
            ..State::default()
        },
        None => State::of_one(member, addresses),
    }
}
