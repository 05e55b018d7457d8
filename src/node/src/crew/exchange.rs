//! Changes between workers of different nodes: one link for each pair of nodes and direction, which
//! carries messages one way and, the other way, the numbers of those that are processed.
//!
//! A frame is the number of commands that the sender had taken, and messages, little-endian:
//!
//! ```text
//! taken u64 | ( worker u32 | job u32 | kind u8 | .. ) ..
//!   changes: fragment u32 | leaf u32 | channel u32 | credit u64 | rows, see `batches`
//!   barrier: fragment u32 | leaf u32 | channel u32 | epoch u64 | clock i64 | checkpoint u8
//!            | horizon i64
//!            | of a promising one: promises u32 | (source u32, watermark i64) per promise
//!   fence:   nothing
//! ```
//!
//! What is on its way is bounded by the edges of its sender (`edge`): their credits are kept here
//! until the receiver says that it has processed what they are for.

use super::batches::{BatchReader, BatchWriter};
use super::{Numbers, SIGN_OF_LIFE, SILENCE_MAX, gone, late, unreadable};
use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::config::Compression;
use tidemark_common::mailbox::Sender;
use tidemark_common::network::{Link, LinkReceiver, LinkSender};
use tidemark_common::{Epoch, RelationId, Result, Watermarks, WorkerId, machine};
use tidemark_operator::Barrier;
use tidemark_worker::{Credit, Delivery, Inbound, Message, Outbound};
use tokio::sync::{mpsc, watch};

/// A frame is sent when it is this large, or nothing more is there.
const FRAME_BYTES: usize = 1 << 20;

const CHANGES: u8 = 0;
const BARRIER: u8 = 1;
const FENCE: u8 = 2;
/// A barrier with promises of sources.
const PROMISING_BARRIER: u8 = 3;
/// Changes that count on no edge.
const NO_CREDIT: u64 = 0;

/// Where changes for the workers of a node arrive.
pub(super) struct Incoming {
    pub generation: u64,
    /// Its first worker.
    pub first: WorkerId,
    pub inboxes: Vec<Sender<Inbound>>,
    pub numbers: Arc<Numbers>,
    /// Nobody takes anything any more.
    pub ended: watch::Sender<bool>,
}

/// What waits for the receiver, by number.
#[derive(Default)]
struct Credits {
    last: u64,
    waiting: HashMap<u64, Credit>,
}

/// Sends what comes to the node at the other end; returns when the link breaks, or nothing can come
/// any more.
pub(super) async fn deliver(
    link: Link,
    outbound: mpsc::UnboundedReceiver<Outbound>,
    numbers: Arc<Numbers>,
    compression: Compression,
) -> Result<()> {
    let credits = Mutex::new(Credits::default());
    let batches = BatchWriter::new(compression);
    tokio::select! {
        sent = send(link.sender, outbound, &numbers, &credits, batches) => sent,
        released = release(link.receiver, &credits) => released,
    }
}

async fn send(
    mut sender: Box<dyn LinkSender>,
    mut outbound: mpsc::UnboundedReceiver<Outbound>,
    numbers: &Numbers,
    credits: &Mutex<Credits>,
    mut batches: BatchWriter,
) -> Result<()> {
    while let Some(first) = outbound.recv().await {
        let mut frame = Vec::new();
        frame.put_u64_le(0);
        let mut next = Some(first);
        while let Some(outbound_now) = next {
            put(outbound_now, credits, &mut batches, &mut frame)?;
            next = match frame.len() < FRAME_BYTES {
                true => outbound.try_recv().ok(),
                false => None,
            };
        }
        // Whatever made these messages was taken before.
        let taken = numbers.taken().to_le_bytes();
        frame[..taken.len()].copy_from_slice(&taken);
        sender.send(frame.into()).await?;
    }
    Ok(())
}

async fn release(mut receiver: Box<dyn LinkReceiver>, credits: &Mutex<Credits>) -> Result<()> {
    loop {
        let frame = machine::timeout(SILENCE_MAX, receiver.receive()).await;
        let Some(frame) = frame.ok_or_else(late)?? else {
            return Err(gone("has gone"));
        };
        let mut numbers = &frame[..];
        while !numbers.is_empty() {
            let number = numbers.try_get_u64_le().map_err(unreadable)?;
            let processed = credits.lock().waiting.remove(&number);
            drop(processed);
        }
    }
}

fn put(
    outbound: Outbound,
    credits: &Mutex<Credits>,
    batches: &mut BatchWriter,
    frame: &mut Vec<u8>,
) -> Result<()> {
    let (worker, delivery) = match outbound {
        Outbound::Fence(worker, job) => {
            frame.put_u32_le(worker as u32);
            frame.put_u32_le(job.0);
            frame.put_u8(FENCE);
            return Ok(());
        }
        Outbound::Delivery(worker, delivery) => (worker, delivery),
    };
    frame.put_u32_le(worker as u32);
    frame.put_u32_le(delivery.job.0);
    frame.put_u8(match delivery.message {
        Message::Changes(..) => CHANGES,
        Message::Barrier(ref barrier) if barrier.watermarks.is_empty() => BARRIER,
        Message::Barrier(_) => PROMISING_BARRIER,
    });
    frame.put_u32_le(delivery.fragment as u32);
    frame.put_u32_le(delivery.leaf as u32);
    frame.put_u32_le(delivery.channel as u32);
    match delivery.message {
        Message::Changes(changes, credit) => {
            let number = credit.map_or(NO_CREDIT, |credit| {
                let mut credits = credits.lock();
                credits.last += 1;
                let number = credits.last;
                credits.waiting.insert(number, credit);
                number
            });
            frame.put_u64_le(number);
            batches.put(&changes, frame)?;
        }
        Message::Barrier(barrier) => {
            frame.put_u64_le(barrier.epoch.0);
            frame.put_i64_le(barrier.clock);
            frame.put_u8(barrier.checkpoint.into());
            frame.put_i64_le(barrier.horizon_ms);
            put_watermarks(&barrier.watermarks, frame);
        }
    }
    Ok(())
}

/// Hands what arrives from node `from` to the workers of this one.
pub(super) async fn arrive(link: Link, from: usize, incoming: &Incoming) -> Result<()> {
    let Link {
        sender, receiver, ..
    } = link;
    let (processed, acknowledged) = mpsc::unbounded_channel();
    let mut ended = incoming.ended.subscribe();
    let arrived = tokio::select! {
        taken = take_all(receiver, incoming, &processed) => taken,
        told = acknowledge(sender, acknowledged) => told,
        _ = ended.wait_for(|ended| *ended) => Ok(()),
    };
    tracing::debug!(from, "the exchange of another node has ended");
    arrived
}

async fn take_all(
    mut receiver: Box<dyn LinkReceiver>,
    incoming: &Incoming,
    processed: &mpsc::UnboundedSender<u64>,
) -> Result<()> {
    let mut batches = BatchReader::default();
    while let Some(frame) = receiver.receive().await? {
        let mut rest = &frame[..];
        let taken = rest.try_get_u64_le().map_err(unreadable)?;
        incoming.numbers.reach(taken).await;
        while !rest.is_empty() {
            let (worker, inbound) = take(&mut rest, &mut batches, processed)?;
            let inbox = worker.checked_sub(incoming.first);
            let inbox = inbox.and_then(|at| incoming.inboxes.get(at));
            let inbox = inbox.ok_or_else(|| unreadable(format!("it is for worker {worker}")))?;
            // A worker that is gone means shutdown.
            let _ = inbox.send(inbound);
        }
    }
    Ok(())
}

/// Nothing where there are none: the kind of the message says so.
fn put_watermarks(watermarks: &Watermarks, frame: &mut Vec<u8>) {
    if watermarks.is_empty() {
        return;
    }
    frame.put_u32_le(watermarks.len() as u32);
    for (source, watermark) in watermarks.iter() {
        frame.put_u32_le(source.0);
        frame.put_i64_le(*watermark);
    }
}

fn take_watermarks(from: &mut &[u8]) -> Result<Watermarks> {
    let count = from.try_get_u32_le().map_err(unreadable)?;
    let watermarks = (0..count).map(|_| {
        let source = RelationId(from.try_get_u32_le().map_err(unreadable)?);
        Ok((source, from.try_get_i64_le().map_err(unreadable)?))
    });
    Ok(Arc::new(watermarks.collect::<Result<_>>()?))
}

fn take(
    from: &mut &[u8],
    batches: &mut BatchReader,
    processed: &mpsc::UnboundedSender<u64>,
) -> Result<(WorkerId, Inbound)> {
    let worker = from.try_get_u32_le().map_err(unreadable)? as WorkerId;
    let job = RelationId(from.try_get_u32_le().map_err(unreadable)?);
    let kind = from.try_get_u8().map_err(unreadable)?;
    if kind == FENCE {
        return Ok((worker, Inbound::Fence(job)));
    }
    let mut place = || from.try_get_u32_le().map_err(unreadable);
    let (fragment, leaf, channel) = (place()?, place()?, place()?);
    let message = match kind {
        CHANGES => {
            let number = from.try_get_u64_le().map_err(unreadable)?;
            let changes = batches.take(from)?;
            let credit = (number != NO_CREDIT).then(|| {
                let processed = processed.clone();
                Credit::of_other_node(move || {
                    // The sender is gone, and its credits with it.
                    let _ = processed.send(number);
                })
            });
            Message::Changes(changes, credit)
        }
        BARRIER | PROMISING_BARRIER => Message::Barrier(Barrier {
            epoch: Epoch(from.try_get_u64_le().map_err(unreadable)?),
            clock: from.try_get_i64_le().map_err(unreadable)?,
            checkpoint: from.try_get_u8().map_err(unreadable)? != 0,
            horizon_ms: from.try_get_i64_le().map_err(unreadable)?,
            watermarks: match kind {
                PROMISING_BARRIER => take_watermarks(from)?,
                _ => Watermarks::default(),
            },
        }),
        kind => return Err(unreadable(format!("a message of kind {kind}"))),
    };
    let delivery = Delivery {
        job,
        fragment: fragment as usize,
        leaf: leaf as usize,
        channel: channel as usize,
        message,
    };
    Ok((worker, Inbound::Delivery(delivery)))
}

/// Tells the sender what is processed, and that somebody is there.
async fn acknowledge(
    mut sender: Box<dyn LinkSender>,
    mut processed: mpsc::UnboundedReceiver<u64>,
) -> Result<()> {
    let mut numbers = Vec::new();
    loop {
        let received = processed.recv_many(&mut numbers, FRAME_BYTES / size_of::<u64>());
        if machine::timeout(SIGN_OF_LIFE, received).await == Some(0) {
            return Ok(());
        }
        let frame: Vec<u8> = numbers.drain(..).flat_map(u64::to_le_bytes).collect();
        sender.send(Bytes::from(frame)).await?;
    }
}
