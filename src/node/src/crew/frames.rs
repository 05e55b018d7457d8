//! What the node that leads and a host of its crew say to each other, over one link.
//!
//! A frame is a byte for its kind and what belongs to it, little-endian. An empty frame says that
//! somebody is there.

use super::batches::{BatchReader, BatchWriter};
use super::unreadable;
use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, RelationId, Result, WorkerId};
use tidemark_control::protocol::{Command, Event};
use tidemark_control::raft::MemberId;
use tidemark_control::wire;
use tidemark_state::errors::KeptError;

/// To a host.
#[derive(Debug)]
pub(super) enum Order {
    /// A command, for one worker or all; without one a number that is for others.
    Command {
        number: u64,
        to: Option<WorkerId>,
        command: Option<Command>,
    },
    /// What holds up the sources.
    Limits(Limits),
    /// Nobody reads this share any more.
    Forget(u64),
    /// This member hands the lead over, starts anew, and can work again soon.
    Expect(MemberId),
    /// This member is lost.
    Lost(MemberId),
}

/// Why sources are not read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// The log takes no entries.
    pub stalled: bool,
    /// What full sinks read, each with the name of one.
    pub full: Vec<(RelationId, String)>,
}

/// From a host.
#[derive(Debug)]
pub(super) enum Report {
    /// It is ready for orders.
    Ready,
    /// Something happened.
    Event(Event),
    /// Errors came or, with a weight below zero, went.
    Errors(Vec<KeptError>),
    /// What a sink has to send.
    Sink {
        relation: RelationId,
        epoch: Epoch,
        hash: u64,
        changes: Vec<ChangeBatch>,
    },
    /// See `Sinks::count_from`.
    SinkCounts { relation: RelationId, epoch: Epoch },
    /// See `Sinks::cover`.
    SinkCovers { relation: RelationId, epoch: Epoch },
    /// A worker shows rows of a relation, under this number.
    Shown {
        relation: RelationId,
        worker: WorkerId,
        share: u64,
    },
    /// The rows of a relation are nobody's answer any more.
    Withdrawn { relation: RelationId },
    /// How the jobs are.
    Figures(Vec<JobReport>),
    /// It has lost another node of the crew, and waits for what the one that leads makes of it.
    Lost { member: MemberId, error: String },
}

/// How a job is on a host.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobReport {
    pub relation: RelationId,
    pub rows: u64,
    pub late: u64,
    /// Bytes of state, by worker of the host.
    pub memory: Vec<u64>,
    pub trouble: Vec<(WorkerId, String)>,
}

/// The parts of a report that are JSON.
#[derive(Serialize, Deserialize)]
enum Told {
    Ready,
    Errors(Vec<KeptError>),
    SinkCounts(RelationId, Epoch),
    SinkCovers(RelationId, Epoch),
    Shown(RelationId, WorkerId, u64),
    Withdrawn(RelationId),
    Figures(Vec<JobReport>),
    Lost(MemberId, String),
}

const ALL: u32 = u32::MAX;

/// A command, or only its number.
pub(super) fn encode_command(
    number: u64,
    to: Option<WorkerId>,
    command: Option<&Command>,
) -> Result<Bytes> {
    let mut bytes = vec![0];
    bytes.put_u64_le(number);
    bytes.put_u32_le(to.map_or(ALL, |worker| worker as u32));
    if let Some(command) = command {
        bytes.extend(wire::encode_command(command)?);
    }
    Ok(bytes.into())
}

pub(super) fn encode_limits(limits: &Limits) -> Result<Bytes> {
    let mut bytes = vec![1];
    bytes.extend(super::json(limits)?);
    Ok(bytes.into())
}

pub(super) fn encode_forget(share: u64) -> Bytes {
    let mut bytes = vec![2];
    bytes.put_u64_le(share);
    bytes.into()
}

pub(super) fn encode_expect(member: MemberId) -> Bytes {
    let mut bytes = vec![3];
    bytes.put_u64_le(member);
    bytes.into()
}

pub(super) fn encode_lost(member: MemberId) -> Bytes {
    let mut bytes = vec![4];
    bytes.put_u64_le(member);
    bytes.into()
}

/// An order; none if the frame only says that somebody is there.
pub(super) fn decode_order(mut frame: &[u8]) -> Result<Option<Order>> {
    if frame.is_empty() {
        return Ok(None);
    }
    Ok(Some(match frame.get_u8() {
        0 => {
            let number = frame.try_get_u64_le().map_err(unreadable)?;
            let to = frame.try_get_u32_le().map_err(unreadable)?;
            let command = match frame.is_empty() {
                true => None,
                false => Some(wire::decode_command(frame)?),
            };
            let to = (to != ALL).then_some(to as WorkerId);
            Order::Command {
                number,
                to,
                command,
            }
        }
        1 => Order::Limits(serde_json::from_slice(frame).map_err(unreadable)?),
        2 => Order::Forget(frame.try_get_u64_le().map_err(unreadable)?),
        3 => Order::Expect(frame.try_get_u64_le().map_err(unreadable)?),
        4 => Order::Lost(frame.try_get_u64_le().map_err(unreadable)?),
        kind => return Err(unreadable(format!("an order of kind {kind}"))),
    }))
}

impl Report {
    /// The frame.
    pub(super) fn encode(self, batches: &mut BatchWriter) -> Result<Bytes> {
        let told = match self {
            Report::Event(event) => {
                let mut bytes = vec![1];
                bytes.extend(wire::encode_event(&event)?);
                return Ok(bytes.into());
            }
            Report::Sink {
                relation,
                epoch,
                hash,
                changes,
            } => {
                let mut bytes = vec![2];
                bytes.put_u32_le(relation.0);
                bytes.put_u64_le(epoch.0);
                bytes.put_u64_le(hash);
                for changes in &changes {
                    batches.put(changes, &mut bytes)?;
                }
                return Ok(bytes.into());
            }
            Report::Ready => Told::Ready,
            Report::Errors(errors) => Told::Errors(errors),
            Report::SinkCounts { relation, epoch } => Told::SinkCounts(relation, epoch),
            Report::SinkCovers { relation, epoch } => Told::SinkCovers(relation, epoch),
            Report::Shown {
                relation,
                worker,
                share,
            } => Told::Shown(relation, worker, share),
            Report::Withdrawn { relation } => Told::Withdrawn(relation),
            Report::Figures(jobs) => Told::Figures(jobs),
            Report::Lost { member, error } => Told::Lost(member, error),
        };
        let mut bytes = vec![0];
        bytes.extend(super::json(&told)?);
        Ok(bytes.into())
    }

    /// The inverse of [`Report::encode`]; none if the frame only says that somebody is there.
    pub(super) fn decode(mut frame: &[u8], batches: &mut BatchReader) -> Result<Option<Report>> {
        if frame.is_empty() {
            return Ok(None);
        }
        Ok(Some(match frame.get_u8() {
            0 => match serde_json::from_slice(frame).map_err(unreadable)? {
                Told::Ready => Report::Ready,
                Told::Errors(errors) => Report::Errors(errors),
                Told::SinkCounts(relation, epoch) => Report::SinkCounts { relation, epoch },
                Told::SinkCovers(relation, epoch) => Report::SinkCovers { relation, epoch },
                Told::Shown(relation, worker, share) => Report::Shown {
                    relation,
                    worker,
                    share,
                },
                Told::Withdrawn(relation) => Report::Withdrawn { relation },
                Told::Figures(jobs) => Report::Figures(jobs),
                Told::Lost(member, error) => Report::Lost { member, error },
            },
            1 => Report::Event(wire::decode_event(frame)?),
            2 => {
                let relation = RelationId(frame.try_get_u32_le().map_err(unreadable)?);
                let epoch = Epoch(frame.try_get_u64_le().map_err(unreadable)?);
                let hash = frame.try_get_u64_le().map_err(unreadable)?;
                let mut changes = Vec::new();
                while !frame.is_empty() {
                    changes.push(batches.take(&mut frame)?);
                }
                Report::Sink {
                    relation,
                    epoch,
                    hash,
                    changes,
                }
            }
            kind => return Err(unreadable(format!("a report of kind {kind}"))),
        }))
    }
}
