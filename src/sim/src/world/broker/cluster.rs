//! What the broker knows: topics, transactional producers, and what will happen later. Everything
//! here takes place at once; that requests take time, fail and get lost is in `client`.
//!
//! A transaction ends in two steps, as in Kafka: that it is committed (or aborted) is decided and
//! answered; the markers, one per partition, are written afterwards, each in its own time. Until
//! the last is written its transactional id begins no other one.
//!
//! There is no clockwork: whoever looks first [settles](Cluster::settle) what was due until now,
//! and whoever waits asks [what is due next](Cluster::next_due).

use super::super::alive::Alive;
use super::super::dice::Dice;
use super::log::{Log, NewRecord, Record, Writer};
use super::trouble::BrokerTrouble;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tidemark_common::{SplitId, machine};
use tokio::sync::Notify;

/// Why the broker does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another producer has taken over the transactional id, or the broker itself has, after a
    /// transaction was open for too long.
    Fenced,
    /// The transaction before is not over; ask again.
    Concurrent,
    /// There is no transaction that could end this way.
    NoTransaction,
    /// There is no such topic or partition.
    NoTopic,
    /// A compacted topic takes no record without key.
    NoKey,
}

/// A producer that has taken over a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The id that outlives producers.
    pub transactional_id: String,
    /// Under which its records stand.
    pub writer: Writer,
}

/// What changes the broker's state, and may come late.
#[derive(Clone, Debug)]
pub enum Write {
    /// Records for one partition; all of them are written, or none.
    Records {
        /// Where to.
        place: Place,
        /// In its transaction.
        session: Option<Session>,
        /// What.
        records: Vec<NewRecord>,
    },
    /// The end of a transaction.
    End {
        /// Whose.
        session: Session,
        /// Whether its records count.
        commits: bool,
    },
}

/// A partition of a topic.
pub type Place = (String, SplitId);

/// A topic.
pub struct Topic {
    /// Tells it from another one that is made later under its name.
    pub id: String,
    /// Its `cleanup.policy`.
    pub compacted: bool,
    /// Its partitions.
    pub partitions: Vec<Log>,
}

/// What takes place later: when, and its number.
pub type Sent = (Instant, u64);

enum Phase {
    Idle,
    Open {
        places: BTreeSet<Place>,
        number: u64,
    },
    Ending {
        markers: usize,
    },
}

struct Transactional {
    writer: Writer,
    timeout: Duration,
    phase: Phase,
    /// How the last one was ended by its producer.
    ended: Option<bool>,
}

enum Due {
    Marker {
        place: Place,
        transactional_id: String,
        writer: Writer,
        commits: bool,
    },
    /// The transaction with this number is open for too long.
    Timeout {
        transactional_id: String,
        number: u64,
    },
    Late(Write),
}

/// See the module.
pub struct Cluster {
    /// What goes wrong.
    pub trouble: BrokerTrouble,
    /// What is left to chance.
    pub dice: Dice,
    topics: BTreeMap<String, Topic>,
    transactional: BTreeMap<String, Transactional>,
    due: BTreeMap<(Instant, u64), Due>,
    last_number: u64,
    bells: Vec<(Weak<Notify>, Alive)>,
}

impl Cluster {
    /// One without topics.
    pub fn new(dice: Dice) -> Cluster {
        Cluster {
            trouble: BrokerTrouble::default(),
            dice,
            topics: BTreeMap::new(),
            transactional: BTreeMap::new(),
            due: BTreeMap::new(),
            last_number: 0,
            bells: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Makes a topic, unless it is there.
    pub fn create_topic(&mut self, name: &str, partitions: usize, compacted: bool) {
        if self.topics.contains_key(name) {
            return;
        }
        let topic = Topic {
            id: format!("id-{}", self.number()),
            compacted,
            partitions: (0..partitions).map(|_| Log::new()).collect(),
        };
        self.topics.insert(name.to_string(), topic);
        self.ring();
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, name: &str) {
        self.topics.remove(name);
        self.ring();
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// The same, to be changed; those who wait for news look again.
    pub fn topic_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.ring();
        self.topics.get_mut(name)
    }

    /// A partition.
    pub fn log(&mut self, place: &Place) -> Result<&mut Log, Refusal> {
        let topic = self.topics.get_mut(&place.0).ok_or(Refusal::NoTopic)?;
        let log = topic.partitions.get_mut(place.1 as usize);
        log.ok_or(Refusal::NoTopic)
    }

    /// All committed records of a topic, by partition.
    pub fn committed(&self, topic: &str) -> Vec<Vec<Record>> {
        let partitions = self.topics.get(topic).map(|t| t.partitions.iter());
        partitions
            .into_iter()
            .flatten()
            .map(Log::committed)
            .collect()
    }

    /// Rings this bell whenever something may be new, as long as its owner lives.
    pub fn add_bell(&mut self, bell: &Arc<Notify>, alive: &Alive) {
        let owned =
            |(bell, alive): &(Weak<Notify>, Alive)| alive.is_alive() && bell.strong_count() > 0;
        self.bells.retain(owned);
        self.bells.push((Arc::downgrade(bell), alive.clone()));
    }

    /// Something may be new.
    pub fn ring(&self) {
        for (bell, alive) in &self.bells {
            if let Some(bell) = bell.upgrade().filter(|_| alive.is_alive()) {
                bell.notify_one();
            }
        }
    }

    /// Does what was due until now.
    pub fn settle(&mut self) {
        let now = machine::now();
        while let Some(next) = self.due.first_entry()
            && next.key().0 <= now
        {
            match next.remove() {
                Due::Marker {
                    place,
                    transactional_id,
                    writer,
                    commits,
                } => self.mark(&place, &transactional_id, writer, commits),
                Due::Timeout {
                    transactional_id,
                    number,
                } => self.time_out(&transactional_id, number),
                Due::Late(write) => {
                    let outcome = self.write(&write);
                    tracing::debug!(target: "sim", "broker: a request comes late: {outcome:?}");
                }
            }
        }
    }

    /// When something happens by itself next.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    fn later(&mut self, after: Duration, due: Due) -> Sent {
        let sent = (machine::now() + after, self.number());
        self.due.insert(sent, due);
        // Who waits may have to look earlier than it thought.
        self.ring();
        sent
    }

    /// What was to take place later does not, if it has not yet.
    pub fn take_back(&mut self, sent: Option<Sent>) {
        sent.and_then(|sent| self.due.remove(&sent));
    }

    /// A write that takes place after so long, whoever has given up on it.
    pub fn write_later(&mut self, after: Duration, write: Write) -> Sent {
        self.later(after, Due::Late(write))
    }

    /// Does a write.
    pub fn write(&mut self, write: &Write) -> Result<(), Refusal> {
        match write {
            Write::Records {
                place,
                session,
                records,
            } => self.append(place, session.as_ref(), records).map(drop),
            Write::End { session, commits } => self.end(session, *commits),
        }
    }

    /// Writes records; returns the offset of the first.
    pub fn append(
        &mut self,
        place: &Place,
        session: Option<&Session>,
        records: &[NewRecord],
    ) -> Result<i64, Refusal> {
        let compacted = self.topics.get(&place.0).is_some_and(|t| t.compacted);
        if compacted && records.iter().any(|r| r.key.is_none()) {
            return Err(Refusal::NoKey);
        }
        let first = self.log(place)?.end();
        if let Some(session) = session {
            self.join(session, place)?;
        }
        let log = self.log(place)?;
        for record in records {
            log.append(session.map(|s| s.writer), record.clone());
        }
        self.ring();
        Ok(first)
    }

    /// Makes the partition a part of the session's transaction, which begins if there is none.
    fn join(&mut self, session: &Session, place: &Place) -> Result<(), Refusal> {
        let number = self.number();
        let transactional = self.of_session(session)?;
        match &mut transactional.phase {
            Phase::Ending { .. } => return Err(Refusal::Concurrent),
            Phase::Open { places, .. } => drop(places.insert(place.clone())),
            Phase::Idle => {
                let places = [place.clone()].into();
                transactional.phase = Phase::Open { places, number };
                transactional.ended = None;
                let (timeout, transactional_id) =
                    (transactional.timeout, session.transactional_id.clone());
                let due = Due::Timeout {
                    transactional_id,
                    number,
                };
                self.later(timeout, due);
            }
        }
        Ok(())
    }

    fn of_session(&mut self, session: &Session) -> Result<&mut Transactional, Refusal> {
        let transactional = self.transactional.get_mut(&session.transactional_id);
        let known = transactional.filter(|t| t.writer == session.writer);
        known.ok_or(Refusal::Fenced)
    }

    /// Takes over a transactional id: its producer before is fenced, and what that has open is
    /// aborted, which the caller waits for by asking again.
    pub fn take_over(&mut self, id: &str, timeout: Duration) -> Result<Session, Refusal> {
        let number = self.number();
        let transactional = self.transactional.entry(id.to_string());
        let transactional = transactional.or_insert_with(|| Transactional {
            writer: Writer {
                producer: number,
                epoch: -1,
            },
            timeout,
            phase: Phase::Idle,
            ended: None,
        });
        match transactional.phase {
            Phase::Idle => {
                transactional.writer.epoch += 1;
                transactional.timeout = timeout;
                transactional.ended = None;
                let writer = transactional.writer;
                tracing::debug!(target: "sim", "broker: {id} is epoch {} now", writer.epoch);
                Ok(Session {
                    transactional_id: id.to_string(),
                    writer,
                })
            }
            Phase::Open { .. } => {
                self.fence(id);
                Err(Refusal::Concurrent)
            }
            Phase::Ending { .. } => Err(Refusal::Concurrent),
        }
    }

    /// Ends the session's transaction. May be said again until another one begins.
    pub fn end(&mut self, session: &Session, commits: bool) -> Result<(), Refusal> {
        let transactional = self.of_session(session)?;
        if transactional.ended == Some(commits) {
            return Ok(());
        }
        if !matches!(transactional.phase, Phase::Open { .. }) {
            return Err(Refusal::NoTransaction);
        }
        transactional.ended = Some(commits);
        self.decide(&session.transactional_id, commits);
        Ok(())
    }

    fn time_out(&mut self, id: &str, number: u64) {
        let transactional = self.transactional.get(id);
        let is_open = |t: &Transactional| match &t.phase {
            Phase::Open { number: open, .. } => *open == number,
            _ => false,
        };
        if transactional.is_some_and(is_open) {
            tracing::debug!(target: "sim", "broker: a transaction of {id} timed out");
            self.fence(id);
        }
    }

    /// Aborts what is open under this id; its producer does nothing any more.
    fn fence(&mut self, id: &str) {
        if let Some(transactional) = self.transactional.get_mut(id) {
            transactional.writer.epoch += 1;
            self.decide(id, false);
        }
    }

    fn decide(&mut self, id: &str, commits: bool) {
        let Some(transactional) = self.transactional.get_mut(id) else {
            return;
        };
        let writer = transactional.writer;
        let Phase::Open { places, .. } = std::mem::replace(&mut transactional.phase, Phase::Idle)
        else {
            return;
        };
        transactional.phase = Phase::Ending {
            markers: places.len(),
        };
        tracing::debug!(target: "sim", "broker: a transaction of {id}: commits is {commits}");
        let (from, to) = self.trouble.marker_delay;
        for place in places {
            let due = Due::Marker {
                place,
                transactional_id: id.to_string(),
                writer,
                commits,
            };
            let after = self.dice.between(from, to);
            self.later(after, due);
        }
        self.settle();
    }

    fn mark(&mut self, place: &Place, id: &str, writer: Writer, commits: bool) {
        // The topic may be gone.
        if let Ok(log) = self.log(place) {
            log.mark(writer, commits, machine::micros() / 1000);
        }
        if let Some(transactional) = self.transactional.get_mut(id)
            && let Phase::Ending { markers } = &mut transactional.phase
        {
            *markers -= 1;
            if *markers == 0 {
                transactional.phase = Phase::Idle;
            }
        }
        self.ring();
    }

    /// Writes the markers that are yet to come, of all or of this id.
    pub fn hurry(&mut self, id: Option<&str>) {
        let now = machine::now();
        let is_its = |due: &Due| match due {
            Due::Marker {
                transactional_id, ..
            } => id.is_none_or(|id| transactional_id == id),
            _ => false,
        };
        let its = self.due.iter().filter(|(_, due)| is_its(due));
        let keys: Vec<(Instant, u64)> = its.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(due) = self.due.remove(&key) {
                self.due.insert((now, key.1), due);
            }
        }
        self.settle();
    }
}
