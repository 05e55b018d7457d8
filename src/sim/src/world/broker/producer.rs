//! A producer of a process: keeps records until there are enough for a request, and asks the broker
//! for the steps of a transaction. All waits, in a thread.

use super::client::{Client, Unanswered, unavailable};
use super::cluster::{Cluster, Place, Refusal, Session, Write};
use super::log::NewRecord;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_common::{Error, ErrorKind, Result, SplitId, SqlState, machine};

/// How long taking over a transactional id may take: the broker may first have to end the
/// predecessor's transaction.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the broker may take to end the transaction before.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before a client asks again whether that is so.
const CONCURRENT_INTERVAL: Duration = Duration::from_millis(20);
/// Records that are kept until they are sent.
const BATCH_RECORDS: usize = 100;

/// See the module.
pub struct Producer {
    client: Client,
    what: String,
    transactional_id: Option<String>,
    timeout: Duration,
    session: Option<Session>,
    kept: BTreeMap<Place, Vec<NewRecord>>,
    kept_records: usize,
    /// How many partitions topics have.
    partitions: BTreeMap<String, u64>,
}

impl Producer {
    /// One that has sent nothing. `timeout`: how long a transaction of it may be open.
    pub fn new(
        client: &Client,
        topic: &str,
        transactional_id: Option<&str>,
        timeout: Duration,
    ) -> Producer {
        Producer {
            client: client.clone(),
            what: format!("kafka topic \"{topic}\" at {}", client.brokers),
            transactional_id: transactional_id.map(str::to_string),
            timeout,
            session: None,
            kept: BTreeMap::new(),
            kept_records: 0,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes over the transactional id: predecessors are fenced, their open transaction is ended.
    pub fn init_transactions(&mut self) -> Result<()> {
        let Some(id) = self.transactional_id.clone() else {
            return Ok(());
        };
        let timeout = self.timeout;
        let began = machine::now();
        loop {
            let ask = self.client.ask(INIT_TIMEOUT, |c| c.take_over(&id, timeout));
            match machine::block_on(ask) {
                Ok(Ok(session)) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Ok(Err(Refusal::Concurrent)) if machine::elapsed(began) < INIT_TIMEOUT => {
                    machine::pause(CONCURRENT_INTERVAL);
                }
                failed => return Err(self.failed("cannot start transactions", failed.map(drop_ok))),
            }
        }
    }

    /// Takes a record; sends what it has when there is enough.
    pub fn send(&mut self, place: Place, key: Option<Bytes>, value: Option<Bytes>) -> Result<()> {
        let record = NewRecord {
            timestamp_ms: machine::micros() / 1000,
            key,
            value,
        };
        self.kept.entry(place).or_default().push(record);
        self.kept_records += 1;
        match self.kept_records >= BATCH_RECORDS {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Sends what it has. In a transaction that is the first thing of it, waits until the one
    /// before is over.
    pub fn flush(&mut self) -> Result<()> {
        self.kept_records = 0;
        while let Some((place, records)) = self.kept.pop_first() {
            let write = Write::Records {
                place,
                session: self.session.clone(),
                records,
            };
            self.write("a record was not delivered", &write)?;
        }
        Ok(())
    }

    /// Commits the transaction. An error leaves open whether it was.
    pub fn commit(&mut self) -> Result<()> {
        self.flush()?;
        self.end("a transaction was not committed", true)
    }

    /// Gives the transaction up, as far as that is possible; what cannot be done here is done by
    /// the next `init_transactions`.
    pub fn abort(&mut self) {
        self.kept.clear();
        if let Err(error) = self.end("a transaction could not be aborted", false) {
            tracing::debug!(target: "sim", "{error}");
        }
    }

    fn end(&mut self, what: &str, commits: bool) -> Result<()> {
        let Some(session) = self.session.clone() else {
            return Err(Error::internal("a producer without transactions ends none"));
        };
        self.write(what, &Write::End { session, commits })
    }

    fn write(&self, what: &str, write: &Write) -> Result<()> {
        let began = machine::now();
        loop {
            match machine::block_on(self.client.write(write.clone())) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Refusal::Concurrent)) if machine::elapsed(began) < DELIVERY_TIMEOUT => {
                    machine::pause(CONCURRENT_INTERVAL);
                }
                failed => return Err(self.failed(what, failed)),
            }
        }
    }

    /// The partition that a record with this key goes to.
    pub fn place(&mut self, topic: &str, key: Option<&[u8]>) -> Result<Place> {
        let count = match self.partitions.get(topic) {
            Some(count) => *count,
            None => self.count(topic)?,
        };
        let number = match key {
            Some(key) => hash(key),
            None => self.client.broker.lock().dice.below(count),
        };
        Ok((topic.to_string(), (number % count) as SplitId))
    }

    fn count(&mut self, topic: &str) -> Result<u64> {
        let count = |c: &mut Cluster| c.topic(topic).map(|t| t.partitions.len() as u64);
        let count = self.client.question(count);
        let count = count.map_err(|e| unavailable(&self.what, e))?;
        let count = count.filter(|count| *count > 0);
        let count = count.ok_or_else(|| unavailable(&self.what, "Local: Unknown topic"))?;
        self.partitions.insert(topic.to_string(), count);
        Ok(count)
    }

    fn failed(&self, what: &str, failure: Result<Result<(), Refusal>, Unanswered>) -> Error {
        let what = format!("{}: {what}", self.what);
        match failure {
            Ok(Err(Refusal::Fenced)) => Error::new(
                ErrorKind::Unavailable,
                SqlState::OBJECT_NOT_READY,
                format!("{}: another writer has taken over this sink", self.what),
            ),
            Ok(Err(refusal)) => unavailable(what, format!("{refusal:?}")),
            Ok(Ok(())) => Error::internal(format!("{what}: nothing has failed")),
            Err(unanswered) => unavailable(what, unanswered),
        }
    }
}

fn drop_ok<T>(answer: Result<T, Refusal>) -> Result<(), Refusal> {
    answer.map(drop)
}

/// FNV-1a.
fn hash(key: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
    key.iter().fold(0xCBF2_9CE4_8422_2325, step)
}
