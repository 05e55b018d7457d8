//! A Kafka topic as sink, exactly once.
//!
//! One transaction holds whole epochs, or a part of a large one, and their marker (`marker`), so
//! what was delivered and what is known to be delivered cannot differ. A Kafka transaction cannot
//! be resumed, so start, failure, fencing and unknown outcome all take the same steps: new
//! producers under the same transactional ids (which are made of cluster and sink, and so fence
//! whoever wrote before), then the marker is read, and the caller sends what it does not cover.
//!
//! Two producers take turns, each with a transactional id of its own. A broker writes the ends of a
//! transaction into its partitions after it has answered that it is committed, and until then the
//! same id may not begin another: the client asks again after 20 ms. A transaction begins when the
//! one before is committed, so a reader of committed records sees them in order; taking over fences
//! both ids before the marker is read.
//!
//! A transaction ends well before the broker would end it: when enough bytes are sent or enough
//! time has passed, the marker is written for what was sent until then.
//!
//! A record that the broker refuses for what it is spoils its transaction. That is given up and
//! sent once more without the record, as often as more of them turn up (`refusal`); the marker
//! tells which were left out. With `on_error = 'fail'` the sink stops instead.
//!
//! With `delivery = 'at_least_once'` records are sent without transaction, flushed, and then the
//! marker is written: after a crash in between, the last epochs are sent again.

use crate::SinkIdentity;
use crate::kafka::client::{check_sink_topic, close_in_background};
use crate::kafka::marker;
use crate::kafka::producer::{Producer, Queued, To};
use crate::kafka::records::RecordWriter;
use crate::kafka::refusal::Refused;
use crate::metrics::SinkMetrics;
use crate::options::{Delivery, KafkaSinkOptions};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{
    Delivered, REFUSAL_BYTES_MAX, Refusal, SinkContent, SinkDelivery, SinkEpoch, SinkMarker,
    SinkWriter,
};
use tidemark_changelog::pieces;
use tidemark_common::{Epoch, Error, Result, SqlState, failpoint, machine};
use tidemark_plan::{Column, ConnectorSpec, Format};

/// Records from which on a transaction is flushed before its marker is written: an open marker
/// holds up other sinks that recover.
const FLUSH_FIRST_RECORDS: u64 = 10_000;
/// Bytes of keys and values after which a transaction is ended as soon as possible.
const TRANSACTION_BYTES_MAX: u64 = 32 << 20;
/// How long records are added to a transaction, at most.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(5);
/// The share of the broker's patience that adding records may take; the rest is for sending them.
const TRANSACTION_TIME_SHARE: u32 = 4;
/// Rows of a part between two looks at the clock.
const PIECE_ROWS: usize = 1000;
/// How often a delivery is sent anew without what was refused.
const ATTEMPTS_MAX: usize = 200;
/// The number of a marker among the records of a delivery.
const MARKER: usize = usize::MAX;

/// The sink.
pub struct KafkaSink {
    options: KafkaSinkOptions,
    identity: SinkIdentity,
    records: RecordWriter,
    /// The next one to deliver first.
    producers: VecDeque<Producer>,
    metrics: SinkMetrics,
    /// How large a batch of several records may be, once the broker refused a larger one.
    batch_bytes: Option<usize>,
}

/// What one transaction took.
struct Sent {
    records: u64,
    bytes: u64,
    /// Whole epochs, or changes of a part.
    epochs: usize,
    changes: u64,
    refused: Vec<Refusal>,
}

/// Checks what can be checked without network.
///
/// Errors: `22023` for the topic of the markers, besides those of the options and the format.
pub fn check(spec: &ConnectorSpec, columns: &[Column]) -> Result<()> {
    let options = KafkaSinkOptions::read(spec)?;
    if options.kafka.topic == marker::TOPIC {
        let message = format!(
            "the topic \"{}\" is where sinks keep their markers",
            marker::TOPIC
        );
        return Err(Error::user(SqlState::INVALID_PARAMETER, message));
    }
    RecordWriter::new(spec, columns, options.force_append_only).map(drop)
}

/// Checks that the client takes the settings together, and that the broker answers and has the
/// topic.
pub fn check_connection(spec: &ConnectorSpec) -> Result<()> {
    let options = KafkaSinkOptions::read(spec)?;
    // Some settings exclude each other, which only a client finds out. It contacts no broker's
    // transactions before they are initialised.
    let transactional_id = (options.delivery == Delivery::ExactlyOnce).then_some("tidemark-check");
    close_in_background(Producer::new(
        &options.kafka,
        marker::TOPIC,
        transactional_id,
        None,
    )?);
    check_sink_topic(&options.kafka)
}

/// Writes the first marker of a sink that is about to be created: from now on a marker that is
/// missing was lost.
pub fn prepare(spec: &ConnectorSpec, identity: &SinkIdentity) -> Result<()> {
    let options = KafkaSinkOptions::read(spec)?;
    let producer = Producer::new(&options.kafka, marker::TOPIC, None, None)?;
    let written = marker::create_topic(producer.client())
        .and_then(|()| send_marker(&producer, identity, &SinkMarker::default()))
        .and_then(|()| producer.flush())
        .map_err(|e| e.context(format!("kafka at {}", options.kafka.brokers)));
    close_in_background(producer);
    written
}

fn send_marker(producer: &Producer, sink: &SinkIdentity, marker: &SinkMarker) -> Result<()> {
    let text = serde_json::to_vec(marker)
        .map_err(|e| Error::internal(format!("a marker cannot be written: {e}")))?;
    let key = marker_key(sink);
    match producer.send(To::Markers, MARKER, Some(key.as_bytes()), Some(&text))? {
        Queued::Yes => Ok(()),
        Queued::Refused(code) => Err(Error::internal(format!("a marker is refused: {code}"))),
    }
}

fn marker_key(sink: &SinkIdentity) -> String {
    format!("{}/{}", sink.cluster, sink.sink)
}

impl KafkaSink {
    /// A sink that has sent nothing. Refuses a plain sink on an input that retracts, unless the
    /// user has said that retractions are to be left out.
    pub fn new(
        spec: &ConnectorSpec,
        columns: &[Column],
        identity: SinkIdentity,
        append_only: bool,
    ) -> Result<KafkaSink> {
        let options = KafkaSinkOptions::read(spec)?;
        if spec.format == Format::Plain && !append_only && !options.force_append_only {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!(
                    "sink \"{}\" is plain, but its input retracts rows",
                    identity.name
                ),
            )
            .with_hint(
                "Use FORMAT UPSERT or DEBEZIUM with a primary_key, or leave retractions \
                            out with force_append_only = 'true'.",
            ));
        }
        let records = RecordWriter::new(spec, columns, options.force_append_only)?;
        let metrics = SinkMetrics::new("kafka", &identity.name);
        Ok(KafkaSink {
            options,
            identity,
            records,
            producers: VecDeque::new(),
            metrics,
            batch_bytes: None,
        })
    }

    fn is_transactional(&self) -> bool {
        self.options.delivery == Delivery::ExactlyOnce
    }

    /// The transactional ids of the producers that take turns; one has none without transactions.
    fn transactional_ids(&self) -> Vec<Option<String>> {
        if !self.is_transactional() {
            return vec![None];
        }
        let id = format!("tidemark-{}-{}", self.identity.cluster, self.identity.sink);
        vec![Some(format!("{id}-b")), Some(id)]
    }

    /// A new producer, after which no predecessor with its id sends anything.
    fn connect(&self, id: Option<&str>) -> Result<Producer> {
        let producer = Producer::new(&self.options.kafka, marker::TOPIC, id, self.batch_bytes)?;
        marker::create_topic(producer.client())
            .map_err(|e| e.context(format!("kafka at {}", self.options.kafka.brokers)))?;
        if id.is_some() {
            producer.init_transactions()?;
        }
        Ok(producer)
    }

    /// One try to deliver.
    fn attempt(
        &mut self,
        producer: &Producer,
        delivery: &SinkDelivery,
        refused: &Refused,
    ) -> Result<(Sent, SinkMarker)> {
        failpoint::check("sink.begin")?;
        if self.is_transactional() {
            producer.begin()?;
        }
        let sent = self.send(producer, delivery, refused)?;
        failpoint::check("sink.send")?;
        if sent.records >= FLUSH_FIRST_RECORDS || !self.is_transactional() {
            producer.flush()?;
        }
        let marker = delivery
            .marker_after(sent.epochs, sent.changes)
            .refusing(&delivery.before.refused, &sent.refused);
        send_marker(producer, &self.identity, &marker)?;
        producer.flush()?;
        failpoint::check("sink.commit")?;
        if self.is_transactional() {
            producer.commit()?;
        }
        failpoint::check("sink.committed")?;
        Ok((sent, marker))
    }

    /// Sends records until it is enough for one transaction.
    fn send(
        &mut self,
        producer: &Producer,
        delivery: &SinkDelivery,
        refused: &Refused,
    ) -> Result<Sent> {
        let patience = self.options.kafka.transaction_timeout() / TRANSACTION_TIME_SHARE;
        let (began, time_max) = (Instant::now(), patience.min(TRANSACTION_TIME_MAX));
        let mut sent = Sent {
            records: 0,
            bytes: 0,
            epochs: 0,
            changes: 0,
            refused: Vec::new(),
        };
        let mut number = 0;
        match &delivery.content {
            SinkContent::Epochs(epochs) => {
                for epoch in epochs {
                    self.send_epoch(producer, epoch, refused, &mut number, &mut sent)?;
                    sent.epochs += 1;
                    if sent.bytes >= TRANSACTION_BYTES_MAX || began.elapsed() >= time_max {
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
                    self.send_epoch(producer, &piece, refused, &mut number, &mut sent)?;
                    sent.changes += piece.num_rows() as u64;
                    if sent.bytes >= TRANSACTION_BYTES_MAX || began.elapsed() >= time_max {
                        break;
                    }
                }
            }
        }
        Ok(sent)
    }

    fn send_epoch(
        &mut self,
        producer: &Producer,
        epoch: &SinkEpoch,
        refused: &Refused,
        number: &mut usize,
        sent: &mut Sent,
    ) -> Result<()> {
        let (now_ms, fails) = (machine::micros() / 1000, self.options.fails_on_refusal);
        let name = &self.identity.name;
        self.records.write(epoch, now_ms, &mut |key, value| {
            let (record, bytes) = (*number, bytes_of(key) + bytes_of(value));
            *number += 1;
            let reason = match refused.reason(record, bytes) {
                Some(reason) => reason,
                None => match producer.send(To::Records, record, key, value)? {
                    Queued::Yes => {
                        sent.records += 1;
                        sent.bytes += bytes as u64;
                        return Ok(());
                    }
                    Queued::Refused(code) => Refused::reason_of(code, bytes),
                },
            };
            let refusal = refusal(epoch.epoch, key, value, reason);
            if fails {
                return Err(stopped_by(name, &refusal));
            }
            sent.refused.push(refusal);
            Ok(())
        })
    }

    /// Delivers by this producer, or by one in its place, as often as records are refused; an error
    /// leaves no producer behind.
    fn deliver_by(
        &mut self,
        mut producer: Producer,
        delivery: &SinkDelivery,
    ) -> Result<(Producer, Delivered)> {
        let mut refused = Refused::new(!self.options.kafka.compresses());
        for _ in 0..ATTEMPTS_MAX {
            let error = match self.attempt(&producer, delivery, &refused) {
                Ok((sent, marker)) => {
                    self.metrics.records.inc_by(sent.records);
                    self.metrics.bytes.inc_by(sent.bytes);
                    self.metrics.epochs.inc_by(sent.epochs as u64);
                    let refused = sent.refused;
                    return Ok((producer, Delivered { marker, refused }));
                }
                Err(error) => error,
            };
            let failures = producer.refusals();
            if failures.is_empty() && self.is_transactional() {
                producer.abort();
            }
            let id = producer.transactional_id().map(str::to_string);
            close_in_background(producer);
            if failures.is_empty() {
                return Err(error);
            }
            let whole = self.batch_bytes.unwrap_or(self.options.kafka.batch_bytes());
            if let Some(smaller) = refused.learn(&failures, whole) {
                self.batch_bytes = Some(smaller);
            }
            producer = self.connect(id.as_deref())?;
        }
        close_in_background(producer);
        Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!(
                "sink \"{}\": the broker refuses more records of one epoch than can be left out",
                self.identity.name
            ),
        )
        .with_hint("Check that the topic takes records of this form, and resume the sink."))
    }
}

fn bytes_of(part: Option<&[u8]>) -> usize {
    part.map_or(0, <[u8]>::len)
}

fn refusal(epoch: Epoch, key: Option<&[u8]>, value: Option<&[u8]>, reason: String) -> Refusal {
    let record = key.or(value).unwrap_or_default();
    Refusal {
        epoch,
        record: record[..record.len().min(REFUSAL_BYTES_MAX)].to_vec(),
        reason,
    }
}

/// The error of a sink that may not leave records out.
fn stopped_by(sink: &str, refusal: &Refusal) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER,
        format!("sink \"{sink}\": {}", refusal.reason),
    )
    .with_detail(format!(
        "The record is {}.",
        String::from_utf8_lossy(&refusal.record)
    ))
    .with_hint(
        "Let the topic take it, or make its row smaller, and resume the sink. With on_error = \
         'log' such records are left out.",
    )
}

impl SinkWriter for KafkaSink {
    fn recover(&mut self) -> Result<Option<SinkMarker>> {
        // The predecessors send nothing more: what they had is purged, and their successors fence
        // them.
        self.producers.drain(..).for_each(close_in_background);
        let ids = self.transactional_ids();
        let producers = ids.iter().map(|id| self.connect(id.as_deref()));
        let producers: VecDeque<Producer> = producers.collect::<Result<_>>()?;
        let any = producers.front();
        let any = any.ok_or_else(|| Error::internal("a sink has a producer at least"))?;
        let key = marker_key(&self.identity);
        let marker = marker::read(any.client(), &self.options.kafka, &key)?;
        self.producers = producers;
        Ok(marker)
    }

    fn deliver(&mut self, delivery: &SinkDelivery) -> Result<Delivered> {
        // An error leaves none behind: recovery comes next, or a successor.
        let mut producers = std::mem::take(&mut self.producers);
        let next = producers.pop_front();
        let next = next.ok_or_else(|| Error::internal("a sink delivers after recovery only"))?;
        match self.deliver_by(next, delivery) {
            Ok((producer, delivered)) => {
                producers.push_back(producer);
                self.producers = producers;
                Ok(delivered)
            }
            Err(error) => {
                producers.into_iter().for_each(close_in_background);
                Err(error)
            }
        }
    }
}
