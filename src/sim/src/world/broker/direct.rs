//! The broker itself, as the simulation sees it from outside of all processes: nothing here takes
//! time or fails. What names a topic or a partition that there is not is a mistake of the caller
//! and panics.

use super::super::dice::Dice;
use super::cluster::{Cluster, Place, Refusal, Session, Topic};
use super::log::{Log, NewRecord, Record};
use super::marker;
use super::trouble::BrokerTrouble;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_changelog::connector::{SinkMarker, SplitPosition};
use tidemark_common::{Epoch, SplitId, machine};

/// What a sink has sent in one transaction.
pub struct Delivery {
    /// Its records.
    pub records: Vec<Record>,
    /// How far they go.
    pub marker: SinkMarker,
}

/// A broker that outlives all processes. Cloning shares.
#[derive(Clone)]
pub struct SimBroker(Arc<Mutex<Cluster>>);

impl SimBroker {
    /// One without topics, that works as it should.
    pub fn new(dice: Dice) -> SimBroker {
        SimBroker(Arc::new(Mutex::new(Cluster::new(dice))))
    }

    /// What the broker knows. Not to be held while anything waits.
    pub(super) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock()
    }

    /// The same, when what was due until now is done.
    pub(super) fn settled(&self) -> MutexGuard<'_, Cluster> {
        let mut cluster = self.lock();
        cluster.settle();
        cluster
    }

    /// What goes wrong from now on.
    pub fn set_trouble(&self, trouble: BrokerTrouble) {
        let mut cluster = self.settled();
        cluster.trouble = trouble;
        cluster.ring();
    }

    /// What goes wrong.
    pub fn trouble(&self) -> BrokerTrouble {
        self.lock().trouble.clone()
    }

    /// Nothing goes wrong any more, and the markers that transactions still wait for are written.
    pub fn calm(&self) {
        self.set_trouble(BrokerTrouble::default());
        self.lock().hurry(None);
    }

    /// Makes a topic, unless it is there.
    pub fn create_topic(&self, name: &str, partitions: usize, compacted: bool) {
        self.settled().create_topic(name, partitions, compacted);
    }

    /// Deletes a topic; one that is made later under its name is another one.
    pub fn delete_topic(&self, name: &str) {
        self.settled().delete_topic(name);
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, name: &str) -> bool {
        self.lock().topic(name).is_some()
    }

    fn change<T>(&self, topic: &str, change: impl FnOnce(&mut Topic) -> T) -> T {
        let mut cluster = self.settled();
        let found = cluster.topic_mut(topic);
        change(found.unwrap_or_else(|| panic!("there is no topic {topic}")))
    }

    fn ask<T>(&self, topic: &str, question: impl FnOnce(&Topic) -> T) -> T {
        let cluster = self.settled();
        let found = cluster.topic(topic);
        question(found.unwrap_or_else(|| panic!("there is no topic {topic}")))
    }

    fn change_log<T>(
        &self,
        topic: &str,
        partition: SplitId,
        change: impl FnOnce(&mut Log) -> T,
    ) -> T {
        self.change(topic, |found| {
            let log = found.partitions.get_mut(partition as usize);
            change(log.unwrap_or_else(|| panic!("{topic} has no partition {partition}")))
        })
    }

    /// So many more partitions, all empty.
    pub fn add_partitions(&self, topic: &str, more: usize) {
        self.change(topic, |topic| {
            topic.partitions.extend((0..more).map(|_| Log::new()));
        });
    }

    /// Sets the topic's `cleanup.policy`.
    pub fn set_compacted(&self, topic: &str, compacted: bool) {
        self.change(topic, |topic| topic.compacted = compacted);
    }

    /// How many partitions the topic has.
    pub fn partitions(&self, topic: &str) -> usize {
        self.ask(topic, |topic| topic.partitions.len())
    }

    /// Writes a record; returns its offset.
    pub fn produce(
        &self,
        topic: &str,
        partition: SplitId,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
    ) -> i64 {
        let place = (topic.to_string(), partition);
        let offset = self.append(&place, None, key, value, timestamp_ms);
        offset.unwrap_or_else(|refusal| panic!("{topic} {partition} takes no record: {refusal:?}"))
    }

    fn append(
        &self,
        place: &Place,
        session: Option<&Session>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
    ) -> Result<i64, Refusal> {
        let record = NewRecord {
            timestamp_ms,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::copy_from_slice),
        };
        self.settled().append(place, session, &[record])
    }

    /// Takes over a transactional id: its producer before is fenced, and what that has open is
    /// aborted.
    pub fn init_transactions(&self, transactional_id: &str, timeout: Duration) -> Session {
        loop {
            let mut cluster = self.settled();
            match cluster.take_over(transactional_id, timeout) {
                Ok(session) => return session,
                Err(_) => cluster.hurry(Some(transactional_id)),
            }
        }
    }

    /// Writes a record in the session's transaction, which begins with the first; returns its
    /// offset.
    pub fn produce_in(
        &self,
        session: &Session,
        topic: &str,
        partition: SplitId,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<i64, Refusal> {
        let place = (topic.to_string(), partition);
        self.lock().hurry(Some(&session.transactional_id));
        self.append(&place, Some(session), key, value, machine::micros() / 1000)
    }

    /// Commits, or aborts, the session's transaction.
    pub fn end_transaction(&self, session: &Session, commits: bool) -> Result<(), Refusal> {
        self.settled().end(session, commits)
    }

    /// All committed records that are there, by partition, in the order of their offsets.
    pub fn committed(&self, topic: &str) -> Vec<Vec<Record>> {
        self.settled().committed(topic)
    }

    /// How many transactions a sink has committed in its topic of one partition.
    pub fn sent(&self, topic: &str) -> usize {
        let cluster = self.settled();
        let log = cluster.topic(topic).and_then(|t| t.partitions.first());
        log.map_or(0, |log| log.transactions().len())
    }

    /// What a sink has sent to its topic of one partition, exactly once: its transactions in order,
    /// each with the marker that was committed with it. To be asked when the broker is calm: a
    /// transaction is committed in one partition after the other.
    pub fn deliveries(&self, topic: &str) -> Vec<Delivery> {
        let cluster = self.settled();
        let log = |topic: &str| cluster.topic(topic).and_then(|t| t.partitions.first());
        let (Some(sent), Some(markers)) = (log(topic), log(marker::TOPIC)) else {
            return Vec::new();
        };
        let mut markers = markers.transactions();
        let mut deliveries = Vec::new();
        for (producer, records) in sent.transactions() {
            // Each transaction has a marker: the next of this producer.
            let at = markers.iter().position(|(other, _)| *other == producer);
            let (_, marker) = markers.remove(at.expect("a transaction without a marker"));
            let last = marker.last().expect("a transaction without records");
            let value = last.value.as_deref().unwrap_or_default();
            let told = serde_json::from_slice(value).expect("a marker that cannot be read");
            deliveries.push((
                last.offset,
                Delivery {
                    records,
                    marker: told,
                },
            ));
        }
        deliveries.sort_by_key(|(offset, _)| *offset);
        deliveries
            .into_iter()
            .map(|(_, delivery)| delivery)
            .collect()
    }

    /// The last epoch of which some marker tells.
    pub fn delivered(&self) -> Epoch {
        let committed = self.committed(marker::TOPIC).into_iter().flatten();
        let markers = committed.filter_map(|record| {
            let marker: SinkMarker = serde_json::from_slice(&record.value?).ok()?;
            Some(marker.epoch)
        });
        markers.max().unwrap_or_default()
    }

    /// What readers have seen that stand at these positions and began at the start, by partition:
    /// all that was ever committed below them, also what compaction and retention have taken since;
    /// what these had taken before somebody came to it was read by nobody.
    pub fn records_below(
        &self,
        topic: &str,
        positions: &[SplitPosition],
    ) -> BTreeMap<SplitId, Vec<Record>> {
        self.ask(topic, |topic| {
            let below = positions.iter().filter_map(|position| {
                let log = topic.partitions.get(position.split as usize)?;
                let stand = (position.next_offset, position.records);
                Some((position.split, log.read_up_to(stand)))
            });
            below.collect()
        })
    }

    /// The last stable offset of each partition: how far what is committed can be read.
    pub fn end_offsets(&self, topic: &str) -> Vec<i64> {
        self.ask(topic, |t| {
            t.partitions.iter().map(Log::stable_end).collect()
        })
    }

    /// Behind all that was written to each partition, decided or not.
    pub fn written_offsets(&self, topic: &str) -> Vec<i64> {
        self.ask(topic, |t| t.partitions.iter().map(Log::end).collect())
    }

    /// The first offset of each partition that can be read.
    pub fn start_offsets(&self, topic: &str) -> Vec<i64> {
        self.ask(topic, |t| t.partitions.iter().map(Log::start).collect())
    }

    /// Compacts all partitions, as far as they are decided: see [`Log::compact`].
    pub fn compact(&self, topic: &str) {
        self.change(topic, |t| t.partitions.iter_mut().for_each(Log::compact));
    }

    /// Retention: what is below this offset is deleted, as far as it is decided.
    pub fn expire(&self, topic: &str, partition: SplitId, offset: i64) {
        self.change_log(topic, partition, |log| log.delete_before(offset));
    }

    /// A new leader that has copied everything.
    pub fn elect(&self, topic: &str, partition: SplitId) {
        self.change_log(topic, partition, |log| log.elect(None));
    }

    /// A new leader that has copied only what is below this offset: the rest is lost.
    pub fn elect_unclean(&self, topic: &str, partition: SplitId, kept: i64) {
        self.change_log(topic, partition, |log| log.elect(Some(kept)));
    }
}
