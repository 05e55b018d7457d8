//! How a process fetches ahead of its reader, as a Kafka client does: a task that asks for what
//! stands next in each partition and puts it into the partition's queue, until the reader is gone.
//!
//! Markers, gaps and what was aborted are passed silently; that the partition ends is told, once
//! for each end, by an answer that has nothing. Records are asked for by the topic's id, so another
//! topic of that name gives none. When a partition has a leader that the client has not met, it
//! first asks whether that leader's log still reaches its position.

use super::super::alive::Alive;
use super::client::{Client, Unanswered};
use super::cluster::Cluster;
use super::direct::SimBroker;
use super::log::{OutOfRange, Record};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{SplitPosition, Waker};
use tidemark_common::{SplitId, machine};
use tokio::sync::Notify;

/// Records that are fetched ahead of a partition, and markers of one answer.
const AHEAD_MAX: usize = 500;
/// How long after a failure the next request is sent.
const BACKOFF: Duration = Duration::from_millis(100);

/// What stands next in a partition's queue.
#[derive(Clone, Debug)]
pub enum Next {
    /// A record.
    Record(Record),
    /// The end of the partition is at this offset for now.
    End(i64),
    /// Nothing comes any more.
    Failed(Failure),
}

/// Why a partition cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The log was cut off below the position.
    Truncated(String),
    /// The offset is not there.
    OutOfRange(OutOfRange),
    /// The topic's id is this one, if there is one.
    OtherTopic(Option<String>),
}

struct Split {
    partition: SplitId,
    offset: i64,
    /// The leader that wrote what stands below `offset`; -1 where that is not known.
    epoch: i32,
    /// The leader that was asked whether its log reaches `offset`.
    leader: Option<i32>,
    end_told: Option<i64>,
    failed: bool,
    queue: VecDeque<Next>,
}

/// What reader and task share.
struct Shared {
    splits: Mutex<Vec<Split>>,
    bell: Arc<Notify>,
    over: AtomicBool,
    unreachable: Mutex<Option<(Instant, Unanswered)>>,
    topic: String,
    /// None where positions do not tell it.
    topic_id: Mutex<Option<String>>,
}

/// The reader's side. The task ends when this is dropped.
pub struct Fetched(Arc<Shared>);

impl Fetched {
    /// Begins to fetch nothing yet.
    pub fn begin(client: Client, topic: &str, waker: Waker) -> Fetched {
        let shared = Arc::new(Shared {
            splits: Mutex::default(),
            bell: Arc::default(),
            over: AtomicBool::new(false),
            unreachable: Mutex::default(),
            topic: topic.to_string(),
            topic_id: Mutex::default(),
        });
        client.broker.lock().add_bell(&shared.bell, &client.alive);
        machine::spawn(fetch(client, shared.clone(), waker));
        Fetched(shared)
    }

    /// Fetches this split, too, from that position.
    pub fn add(&self, position: &SplitPosition) {
        self.0.splits.lock().push(Split {
            partition: position.split,
            offset: position.next_offset,
            epoch: position.leader_epoch,
            leader: None,
            end_told: None,
            failed: false,
            queue: VecDeque::new(),
        });
        self.0.bell.notify_one();
    }

    /// The id of the topic that positions count in.
    pub fn set_topic_id(&self, id: &str) {
        *self.0.topic_id.lock() = Some(id.to_string());
    }

    /// What stands next in the queue of the split that was added as number `i`.
    pub fn peek(&self, i: usize) -> Option<Next> {
        self.0.splits.lock()[i].queue.front().cloned()
    }

    /// Is done with that.
    pub fn pop(&self, i: usize) {
        let mut splits = self.0.splits.lock();
        let split = &mut splits[i];
        let was_full = split.is_full();
        split.queue.pop_front();
        if was_full && !split.is_full() {
            self.0.bell.notify_one();
        }
    }

    /// For how long the broker cannot be reached, and why.
    pub fn unreachable(&self) -> Option<(Duration, Unanswered)> {
        let unreachable = *self.0.unreachable.lock();
        unreachable.map(|(since, why)| (machine::elapsed(since), why))
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.bell.notify_one();
    }
}

impl Split {
    fn is_full(&self) -> bool {
        self.queue.len() >= AHEAD_MAX
    }
}

async fn fetch(client: Client, shared: Arc<Shared>, waker: Waker) {
    let goes_on = |alive: &Alive| alive.is_alive() && !shared.over.load(Ordering::Relaxed);
    while goes_on(&client.alive) {
        let fetched = round(&client, &shared).await;
        if !goes_on(&client.alive) {
            return;
        }
        match fetched {
            Ok(true) => {
                *shared.unreachable.lock() = None;
                waker();
            }
            Ok(false) => {
                *shared.unreachable.lock() = None;
                wait(&client.broker, &shared.bell).await;
            }
            Err(why) => {
                shared
                    .unreachable
                    .lock()
                    .get_or_insert((machine::now(), why));
                waker();
                machine::sleep(BACKOFF).await;
            }
        }
    }
}

/// Waits until something may be new.
async fn wait(broker: &SimBroker, bell: &Notify) {
    let next = broker.settled().next_due();
    match next {
        None => bell.notified().await,
        Some(at) => {
            let time = at.saturating_duration_since(machine::now());
            machine::timeout(time, bell.notified()).await;
        }
    }
}

/// One request. Whether anything came.
async fn round(client: &Client, shared: &Arc<Shared>) -> Result<bool, Unanswered> {
    let wants = |split: &Split| !split.failed && !split.is_full();
    let asked = shared.splits.lock().iter().any(wants);
    if !asked {
        return Ok(false);
    }
    let (topic, id) = (&shared.topic, shared.topic_id.lock().clone());
    let splits = || {
        let splits = shared.splits.lock();
        let wanted = splits.iter().enumerate().filter(|(_, split)| wants(split));
        wanted.map(|(i, s)| (i, s.place())).collect::<Vec<_>>()
    };
    let answers = client.ask(Duration::ZERO, |cluster| {
        let answer = |(i, place)| (i, answer(cluster, topic, id.as_deref(), place));
        splits().into_iter().map(answer).collect::<Vec<_>>()
    });
    let mut any = false;
    for (i, answer) in answers.await? {
        any |= shared.splits.lock()[i].take_in(answer);
    }
    Ok(any)
}

/// What of a split a request tells.
#[derive(Clone, Copy)]
struct Place {
    partition: SplitId,
    offset: i64,
    epoch: i32,
    leader: Option<i32>,
}

enum Answer {
    Records {
        leader: i32,
        records: Vec<Record>,
        next: i64,
        epoch: Option<i32>,
    },
    End {
        leader: i32,
        offset: i64,
    },
    Failed(Failure),
    /// Such a partition is not known; ask again.
    Unknown,
}

fn answer(cluster: &Cluster, topic: &str, id: Option<&str>, place: Place) -> Answer {
    let Some(topic) = cluster.topic(topic) else {
        return Answer::Failed(Failure::OtherTopic(None));
    };
    if id.is_some_and(|id| topic.id != id) {
        return Answer::Failed(Failure::OtherTopic(Some(topic.id.clone())));
    }
    let Some(log) = topic.partitions.get(place.partition as usize) else {
        return Answer::Unknown;
    };
    let leader = log.leader_epoch();
    if place.epoch >= 0 && place.leader != Some(leader) {
        let end = log.end_of_leader(place.epoch);
        if end.is_none_or(|end| end < place.offset) {
            let end = end.map_or("none".to_string(), |end| end.to_string());
            return Answer::Failed(Failure::Truncated(format!(
                "Partition log truncation detected at offset {} (leader epoch {}): broker end \
                 offset is {end}",
                place.offset, place.epoch
            )));
        }
    }
    match log.read(place.offset, AHEAD_MAX, true) {
        Err(range) => Answer::Failed(Failure::OutOfRange(range)),
        Ok(slice) if slice.next > place.offset => Answer::Records {
            leader,
            records: slice.records,
            next: slice.next,
            epoch: slice.leader_epoch,
        },
        Ok(_) => Answer::End {
            leader,
            offset: log.stable_end(),
        },
    }
}

impl Split {
    fn place(&self) -> Place {
        Place {
            partition: self.partition,
            offset: self.offset,
            epoch: self.epoch,
            leader: self.leader,
        }
    }

    /// Whether the reader has something to do, or there may be more.
    fn take_in(&mut self, answer: Answer) -> bool {
        match answer {
            Answer::Records {
                leader,
                records,
                next,
                epoch,
            } => {
                self.leader = Some(leader);
                self.offset = next;
                self.epoch = epoch.unwrap_or(self.epoch);
                self.queue.extend(records.into_iter().map(Next::Record));
                true
            }
            Answer::End { leader, offset } => {
                self.leader = Some(leader);
                if offset != self.offset || self.end_told == Some(offset) {
                    return false;
                }
                self.end_told = Some(offset);
                self.queue.push_back(Next::End(offset));
                true
            }
            Answer::Failed(failure) => {
                self.failed = true;
                self.queue.push_back(Next::Failed(failure));
                true
            }
            Answer::Unknown => false,
        }
    }
}
