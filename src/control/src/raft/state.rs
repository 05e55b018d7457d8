//! What a member of a group remembers beside its log, in the file `log.raft`: the term and the vote
//! of its elections, where the terms of the log begin, who the members are since when. It is
//! replaced whole, and synced, before anybody is told: that happens in elections and when members
//! change, never for an entry.
//!
//! ```text
//! TDMKRAFT | version | checksum of what follows, in hexadecimal | line feed | JSON
//! ```

use raft::eraftpb::{ConfState, HardState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_common::disk::Disk;
use tidemark_common::{Error, Result};

const MAGIC: &str = "TDMKRAFT";
const VERSION: u32 = 1;

/// Number of a member of a group, 1 and above.
pub type MemberId = u64;

/// Where a member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// By the other members.
    pub rpc: String,
    /// By clients of SQL.
    #[serde(default)]
    pub sql: String,
    /// By a browser.
    #[serde(default)]
    pub http: String,
}

/// Who belongs to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Those who vote.
    pub voters: Vec<MemberId>,
    /// Those who keep a copy only.
    #[serde(default)]
    pub learners: Vec<MemberId>,
    /// Those who vote as well until a change has come true.
    #[serde(default)]
    pub voters_outgoing: Vec<MemberId>,
    /// Those who vote until then, and no more after it.
    #[serde(default)]
    pub learners_next: Vec<MemberId>,
    /// That comes true by itself.
    #[serde(default)]
    pub auto_leave: bool,
    /// Where they are.
    #[serde(default)]
    pub addresses: BTreeMap<MemberId, Addresses>,
    /// Those who are to have no part of the work, and not to lead.
    #[serde(default)]
    pub drained: BTreeSet<MemberId>,
}

impl Members {
    /// A group of one.
    pub fn alone(member: MemberId, addresses: Addresses) -> Members {
        Members {
            voters: vec![member],
            addresses: [(member, addresses)].into(),
            ..Members::default()
        }
    }

    /// Whether this member is all there is.
    pub fn is_alone(&self, member: MemberId) -> bool {
        self.voters == [member] && self.learners.is_empty() && self.voters_outgoing.is_empty()
    }

    /// As raft-rs says it.
    pub(super) fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: self.auto_leave,
        }
    }

    /// The same places, and these members.
    pub(super) fn with(&self, conf: ConfState) -> Members {
        let mut members = Members {
            voters: conf.voters,
            learners: conf.learners,
            voters_outgoing: conf.voters_outgoing,
            learners_next: conf.learners_next,
            auto_leave: conf.auto_leave,
            addresses: self.addresses.clone(),
            drained: self.drained.clone(),
        };
        let all = members.all();
        members.addresses.retain(|id, _| all.contains(id));
        members.drained.retain(|id| all.contains(id));
        members
    }

    /// It is drained from now on, or no more.
    pub(super) fn drain(&mut self, member: MemberId, is_drained: bool) {
        match is_drained {
            true => self.drained.insert(member),
            false => self.drained.remove(&member),
        };
    }

    /// All of them.
    pub fn all(&self) -> Vec<MemberId> {
        let lists = [
            &self.voters,
            &self.learners,
            &self.voters_outgoing,
            &self.learners_next,
        ];
        let mut all: Vec<MemberId> = lists.into_iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Whose it is.
    pub member: MemberId,
    pub term: u64,
    pub vote: MemberId,
    /// All up to here is decided; it may be more.
    pub commit: u64,
    /// The first index of each term.
    pub terms: Vec<(u64, u64)>,
    /// The members, each since the entry with this index.
    pub members: Vec<(u64, Members)>,
    /// The log begins behind this index: what was before came as a checkpoint.
    pub begins_behind: u64,
}

impl State {
    /// Of a log that no group has kept so far.
    pub fn of_one(member: MemberId, addresses: Addresses) -> State {
        State {
            member,
            term: 1,
            terms: vec![(1, 1)],
            members: vec![(0, Members::alone(member, addresses))],
            ..State::default()
        }
    }

    pub fn term_of(&self, index: u64) -> u64 {
        let known = self.terms.partition_point(|(first, _)| *first <= index);
        known.checked_sub(1).map_or(0, |at| self.terms[at].1)
    }

    /// The members now, and since when.
    pub fn newest(&self) -> (u64, &Members) {
        match self.members.last() {
            Some((since, members)) => (*since, members),
            None => (0, NOBODY),
        }
    }

    /// The members when the entry with this index was the last.
    pub fn members_at(&self, index: u64) -> &Members {
        let known = self.members.partition_point(|(since, _)| *since <= index);
        known
            .checked_sub(1)
            .map_or(NOBODY, |at| &self.members[at].1)
    }

    /// Entries up to this index are gone from the log.
    pub fn forget_before(&mut self, index: u64) {
        let terms = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms.drain(..terms.saturating_sub(1));
        let members = self.members.partition_point(|(since, _)| *since <= index);
        self.members.drain(..members.saturating_sub(1));
    }

    pub fn hard_state(&self) -> HardState {
        HardState {
            term: self.term,
            vote: self.vote,
            commit: self.commit,
        }
    }
}

const NOBODY: &Members = &Members {
    voters: Vec::new(),
    learners: Vec::new(),
    voters_outgoing: Vec::new(),
    learners_next: Vec::new(),
    auto_leave: false,
    addresses: BTreeMap::new(),
    drained: BTreeSet::new(),
};

/// The file.
#[derive(Clone)]
pub(super) struct StateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl StateFile {
    /// Beside the log's folder.
    pub fn beside(disk: Arc<dyn Disk>, log: &Path) -> StateFile {
        StateFile {
            disk,
            path: log.with_extension("raft"),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, if it is there.
    pub fn read(&self) -> Result<Option<State>> {
        let bytes = match self.disk.read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::from(e).context(self.path.display())),
        };
        let damaged = |what: &str| {
            Error::corrupt(format!("log: {} is damaged: {what}", self.path.display())).with_hint(
                "Put the file back. If it is gone for good and the node is one of several, let it \
                 begin with an empty data folder and a new node id.",
            )
        };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        let (head, json) = text
            .split_once('\n')
            .ok_or_else(|| damaged("it has no head"))?;
        let head: Vec<&str> = head.split(' ').collect();
        let &[MAGIC, version, crc] = &head[..] else {
            return Err(damaged("its head is another"));
        };
        if version != VERSION.to_string() {
            return Err(Error::corrupt(format!(
                "log: {} is of version {version}, this build knows version {VERSION}",
                self.path.display()
            ))
            .with_hint("Start the build that wrote it."));
        }
        if crc != checksum(json) {
            return Err(damaged("its checksum is another"));
        }
        let state = serde_json::from_str(json).map_err(|e| damaged(&e.to_string()))?;
        Ok(Some(state))
    }

    /// Replaces it, durably.
    pub fn write(&self, state: &State) -> Result<()> {
        let json = serde_json::to_string(state)
            .map_err(|e| Error::internal(format!("the state of raft cannot be encoded: {e}")))?;
        let text = format!("{MAGIC} {VERSION} {}\n{json}", checksum(&json));
        let made = self.path.with_extension("raft.new");
        let replaced = self.disk.open(&made).and_then(|mut file| {
            file.truncate(0)?;
            file.write_at(0, text.as_bytes())?;
            file.sync()?;
            self.disk.rename(&made, &self.path)?;
            let parent = self.path.parent().unwrap_or(Path::new("."));
            self.disk.sync_folder(parent)
        });
        replaced.map_err(|e| Error::from(e).context(self.path.display()))
    }
}

fn checksum(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}
