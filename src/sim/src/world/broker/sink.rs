//! A topic of the broker as sink, exactly once, by the product's own protocol: one transaction
//! holds whole epochs, or a part of a large one, and their marker; two producers take turns, each
//! with a transactional id of its own; to take over is to fence both ids and then to read the
//! marker. With `delivery = 'at_least_once'` records are sent without transaction, then the marker.
//!
//! What is refused for what it is does not occur.

use super::client::Client;
use super::line;
use super::marker;
use super::producer::Producer;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use tidemark_changelog::connector::{
    Delivered, SinkContent, SinkDelivery, SinkEpoch, SinkMarker, SinkWriter,
};
use tidemark_changelog::{ChangeBatch, pieces};
use tidemark_common::{Error, Result, SqlState, machine};
use tidemark_connector::SinkIdentity;
use tidemark_connector::options::{Delivery, KafkaSinkOptions};
use tidemark_plan::{ConnectorSpec, Format};

/// Records from which on a transaction is flushed before its marker is written.
const FLUSH_FIRST_RECORDS: u64 = 1000;
/// How long records are added to a transaction, at most.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(5);
/// The share of the broker's patience that adding records may take; the rest is for sending them.
const TRANSACTION_TIME_SHARE: u32 = 4;
/// Rows of a part between two looks at the clock.
const PIECE_ROWS: usize = 50;

/// The sink.
pub struct SimSink {
    client: Client,
    options: KafkaSinkOptions,
    identity: SinkIdentity,
    key: Vec<usize>,
    leaves_out: bool,
    /// The next one to deliver first.
    producers: VecDeque<Producer>,
}

/// What one transaction took.
#[derive(Default)]
struct Sent {
    records: u64,
    /// Whole epochs, or changes of a part.
    epochs: usize,
    changes: u64,
}

/// Writes the first marker of a sink that is about to be created.
pub fn prepare(mut client: Client, spec: &ConnectorSpec, identity: &SinkIdentity) -> Result<()> {
    let options = KafkaSinkOptions::read(spec)?;
    client.brokers = options.kafka.brokers.clone();
    marker::create_topic(&client)?;
    let timeout = options.kafka.transaction_timeout();
    let mut producer = Producer::new(&client, marker::TOPIC, None, timeout);
    send_marker(&mut producer, identity, &SinkMarker::default())?;
    producer.flush()
}

fn send_marker(producer: &mut Producer, sink: &SinkIdentity, marker: &SinkMarker) -> Result<()> {
    let text = serde_json::to_vec(marker)
        .map_err(|e| Error::internal(format!("a marker cannot be written: {e}")))?;
    let (place, key) = ((marker::TOPIC.to_string(), 0), marker_key(sink));
    producer.send(place, Some(key.into()), Some(text.into()))
}

fn marker_key(sink: &SinkIdentity) -> String {
    format!("{}/{}", sink.cluster, sink.sink)
}

impl SimSink {
    /// A sink that has sent nothing.
    pub fn new(
        mut client: Client,
        spec: &ConnectorSpec,
        identity: SinkIdentity,
        append_only: bool,
    ) -> Result<SimSink> {
        let options = KafkaSinkOptions::read(spec)?;
        let is_plain = spec.format == Format::Plain;
        if is_plain && !append_only && !options.force_append_only {
            let name = &identity.name;
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("sink \"{name}\" is plain, but its input retracts rows"),
            ));
        }
        client.brokers = options.kafka.brokers.clone();
        Ok(SimSink {
            client,
            leaves_out: is_plain && options.force_append_only,
            options,
            identity,
            key: spec.key.clone(),
            producers: VecDeque::new(),
        })
    }

    fn is_transactional(&self) -> bool {
        self.options.delivery == Delivery::ExactlyOnce
    }

    fn transactional_ids(&self) -> Vec<Option<String>> {
        if !self.is_transactional() {
            return vec![None];
        }
        let id = format!("tidemark-{}-{}", self.identity.cluster, self.identity.sink);
        vec![Some(format!("{id}-b")), Some(id)]
    }

    /// A new producer, after which no predecessor with its id sends anything.
    fn connect(&self, id: Option<&str>) -> Result<Producer> {
        let kafka = &self.options.kafka;
        let timeout = kafka.transaction_timeout();
        let mut producer = Producer::new(&self.client, &kafka.topic, id, timeout);
        marker::create_topic(&self.client)?;
        producer.init_transactions()?;
        Ok(producer)
    }

    /// One try to deliver.
    fn attempt(&self, producer: &mut Producer, delivery: &SinkDelivery) -> Result<SinkMarker> {
        let sent = self.send(producer, delivery)?;
        if sent.records >= FLUSH_FIRST_RECORDS || !self.is_transactional() {
            producer.flush()?;
        }
        let marker = delivery.marker_after(sent.epochs, sent.changes);
        let marker = marker.refusing(&delivery.before.refused, &[]);
        send_marker(producer, &self.identity, &marker)?;
        producer.flush()?;
        if self.is_transactional() {
            producer.commit()?;
        }
        Ok(marker)
    }

    /// Sends records until it is enough for one transaction.
    fn send(&self, producer: &mut Producer, delivery: &SinkDelivery) -> Result<Sent> {
        let patience = self.options.kafka.transaction_timeout() / TRANSACTION_TIME_SHARE;
        let (began, time_max) = (machine::now(), patience.min(TRANSACTION_TIME_MAX));
        let is_enough = || machine::elapsed(began) >= time_max || self.is_cut();
        let mut sent = Sent::default();
        match &delivery.content {
            SinkContent::Epochs(epochs) => {
                for epoch in epochs {
                    self.send_epoch(producer, epoch, &mut sent)?;
                    sent.epochs += 1;
                    if is_enough() {
                        break;
                    }
                }
            }
            SinkContent::Part { part, .. } => {
                for changes in pieces(&part.changes, PIECE_ROWS) {
                    let piece = SinkEpoch {
                        epoch: part.epoch,
                        changes,
                        hash: part.hash,
                    };
                    self.send_epoch(producer, &piece, &mut sent)?;
                    sent.changes += piece.num_rows() as u64;
                    if is_enough() {
                        break;
                    }
                }
            }
        }
        Ok(sent)
    }

    /// Whether the transaction ends here, as one does that has sent much.
    fn is_cut(&self) -> bool {
        let cluster = self.client.broker.lock();
        cluster.dice.chance(cluster.trouble.cut)
    }

    fn send_epoch(
        &self,
        producer: &mut Producer,
        epoch: &SinkEpoch,
        sent: &mut Sent,
    ) -> Result<()> {
        let topic = &self.options.kafka.topic;
        let mut emit = |key: Option<String>, value: String| -> Result<()> {
            if self.leaves_out && value.starts_with('-') {
                return Ok(());
            }
            let place = producer.place(topic, key.as_deref().map(str::as_bytes))?;
            sent.records += 1;
            producer.send(place, key.map(Bytes::from), Some(value.into()))
        };
        for changes in &epoch.changes {
            let changes: &ChangeBatch = changes;
            line::write_changes(changes, &self.key, &mut emit)?;
        }
        Ok(())
    }
}

impl SinkWriter for SimSink {
    fn recover(&mut self) -> Result<Option<SinkMarker>> {
        // The predecessors send nothing more: their successors fence them.
        self.producers.clear();
        let ids = self.transactional_ids();
        let producers = ids.iter().map(|id| self.connect(id.as_deref()));
        let producers: VecDeque<Producer> = producers.collect::<Result<_>>()?;
        let marker = marker::read(&self.client, &marker_key(&self.identity))?;
        self.producers = producers;
        Ok(marker)
    }

    fn deliver(&mut self, delivery: &SinkDelivery) -> Result<Delivered> {
        // An error leaves none behind: recovery comes next, or a successor.
        let mut producers = std::mem::take(&mut self.producers);
        let next = producers.pop_front();
        let mut next =
            next.ok_or_else(|| Error::internal("a sink delivers after recovery only"))?;
        match self.attempt(&mut next, delivery) {
            Ok(marker) => {
                producers.push_back(next);
                self.producers = producers;
                Ok(Delivered {
                    marker,
                    refused: Vec::new(),
                })
            }
            Err(error) => {
                if self.is_transactional() {
                    next.abort();
                }
                Err(error)
            }
        }
    }
}
