//! The log as the coordinator of the leading member sees it: what it appends is proposed to the
//! group, and is there when the group has decided it.

use super::{MemberChange, MemberId, Message, not_leading};
use crate::entry::{ENTRY_BYTES_MAX, WRITE_BYTES_MAX};
use crate::wal::payload::Encoder;
use crate::{DecisionLog, Entry};
use tidemark_common::mailbox::Sender;
use tidemark_common::{Error, Result, SqlState, machine};
use tokio::sync::oneshot;

/// What whoever drives a member takes in.
pub enum Turn {
    /// Another member has sent this.
    Heard(Message),
    /// Another member is not reached.
    Unreachable(MemberId),
    /// A checkpoint's name was sent to a member, or was not.
    ToldCheckpoint(MemberId, bool),
    /// Somebody wants something of it.
    Call(Call),
}

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T>>;

/// What is wanted of a member.
pub enum Call {
    /// That these payloads are decided, one after the other; the answer is the index of the last.
    Propose(Vec<Vec<u8>>, Answer<u64>),
    /// That entries up to this index go.
    Truncate(u64, Answer<()>),
    /// The entries after this index.
    ReadAfter(u64, Answer<Vec<(u64, Entry)>>),
    /// That the log goes on behind this index, of a group of one.
    BeginBehind(u64, Answer<()>),
    /// That an accepted loss is told.
    LossIsTold(Answer<()>),
    /// That members change; the answer comes when that is decided.
    Change(Vec<MemberChange>, Answer<u64>),
    /// That another member leads, one of these if they are any, and this one takes part no more;
    /// the answer comes when it leads no more, or when there is nobody else.
    Leave(Vec<MemberId>, Answer<()>),
}

/// Rows of one cut in a group of several, in bytes: they are in the entry itself, which all members
/// get. Encoded they are nearly as large, and an entry may have twice as much.
const ROWS_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;

/// See the module.
pub struct ReplicatedLog {
    member: Sender<Turn>,
    encoder: Encoder,
    is_alone: Box<dyn Fn() -> bool + Send>,
}

impl ReplicatedLog {
    /// Of this member, which leads. `is_alone`: whether there is no other; then rows of large cuts
    /// are files beside the log, which others do not have.
    pub fn new(
        member: Sender<Turn>,
        encoder: Encoder,
        is_alone: impl Fn() -> bool + Send + 'static,
    ) -> ReplicatedLog {
        ReplicatedLog {
            member,
            encoder,
            is_alone: Box::new(is_alone),
        }
    }

    /// Has these decided, each of them whole or not at all.
    fn propose(&mut self, all: &[&[Entry]]) -> Result<u64> {
        if (self.is_alone)() {
            let payloads = all.iter().map(|entries| self.encoder.encode(entries));
            let payloads = payloads.collect::<Result<Vec<_>>>()?;
            let proposed = call(&self.member, |answer| Call::Propose(payloads, answer));
            // Somebody may have joined meanwhile, who does not have the files that it names.
            let is_refused = |e: &Error| e.state() == SqlState("54000");
            if !proposed.as_ref().is_err_and(is_refused) {
                return proposed;
            }
        }
        let payloads = all
            .iter()
            .map(|entries| self.encoder.encode_inline(entries));
        let payloads = payloads.collect::<Result<Vec<_>>>()?;
        call(&self.member, |answer| Call::Propose(payloads, answer))
    }
}

/// Has something done by a member, and waits, in a thread.
///
/// Errors: what it says; or it has ended.
pub fn call<T>(member: &Sender<Turn>, make: impl FnOnce(Answer<T>) -> Call) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    let sent = member.send(Turn::Call(make(answer)));
    sent.map_err(|_| not_leading())?;
    machine::block_on(answered).map_err(|_| not_leading())?
}

impl DecisionLog for ReplicatedLog {
    fn rows_bytes_max(&self) -> usize {
        match (self.is_alone)() {
            true => WRITE_BYTES_MAX,
            false => ROWS_BYTES_MAX,
        }
    }

    fn takes_files(&self) -> bool {
        (self.is_alone)()
    }

    fn append_each(&mut self, entries: &[Entry]) -> Result<u64> {
        self.propose(&entries.chunks(1).collect::<Vec<_>>())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<u64> {
        self.propose(&[entries])
    }

    fn begin_behind(&mut self, index: u64) -> Result<()> {
        call(&self.member, |answer| Call::BeginBehind(index, answer))
    }

    fn loss_is_told(&mut self) -> Result<()> {
        call(&self.member, Call::LossIsTold)
    }

    fn read_after(&self, index: u64) -> Result<Vec<(u64, Entry)>> {
        call(&self.member, |answer| Call::ReadAfter(index, answer))
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        call(&self.member, |answer| Call::Truncate(index, answer))
    }
}
