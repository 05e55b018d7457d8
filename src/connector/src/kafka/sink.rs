//! A Kafka topic as sink, exactly once.
//!
//! One transaction holds whole epochs and their marker (`marker`), so what was delivered and what
//! is known to be delivered cannot differ. A Kafka transaction cannot be resumed, so start,
//! failure, fencing and unknown outcome all take the same steps: a new producer under the same
//! transactional id (which is made of cluster and sink, and so fences whoever wrote before), then
//! the marker is read, and the caller sends what it does not cover.
//!
//! With `delivery = 'at_least_once'` records are sent without transaction, flushed, and then the
//! marker is written: after a crash in between, the last epochs are sent again.

use crate::SinkIdentity;
use crate::kafka::client::{check_sink_topic, close_in_background};
use crate::kafka::marker;
use crate::kafka::producer::{Producer, To};
use crate::kafka::records::RecordWriter;
use crate::metrics::SinkMetrics;
use crate::options::{Delivery, KafkaSinkOptions};
use tidemark_changelog::connector::{SinkEpoch, SinkMarker, SinkWriter};
use tidemark_common::{Error, Result, SqlState, clock, failpoint};
use tidemark_plan::{Column, ConnectorSpec, Format};

/// Records from which on a transaction is flushed before its marker is written: an open marker
/// holds up other sinks that recover.
const FLUSH_FIRST_RECORDS: u64 = 10_000;

/// The sink.
pub struct KafkaSink {
    options: KafkaSinkOptions,
    identity: SinkIdentity,
    records: RecordWriter,
    producer: Option<Producer>,
    metrics: SinkMetrics,
}

/// Checks what can be checked without network.
pub fn check(spec: &ConnectorSpec, columns: &[Column]) -> Result<()> {
    let options = KafkaSinkOptions::read(spec)?;
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
    )?);
    check_sink_topic(&options.kafka)
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
            producer: None,
            metrics,
        })
    }

    fn marker_key(&self) -> String {
        format!("{}/{}", self.identity.cluster, self.identity.sink)
    }

    /// Sends the records and the marker; returns records and bytes.
    fn send(&mut self, producer: &Producer, epochs: &[SinkEpoch]) -> Result<(u64, u64)> {
        let Some(last) = epochs.last() else {
            return Ok((0, 0));
        };
        let (mut count, mut bytes) = (0, 0);
        for epoch in epochs {
            self.records
                .write(epoch, clock::now_micros() / 1000, &mut |key, value| {
                    count += 1;
                    bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64;
                    producer.send(To::Records, key, value)
                })?;
        }
        failpoint::hit("sink.send");
        if count >= FLUSH_FIRST_RECORDS || self.options.delivery == Delivery::AtLeastOnce {
            producer.flush()?;
        }
        let marker = SinkMarker {
            epoch: last.epoch,
            partial: 0,
            hash: last.hash,
        };
        let marker = serde_json::to_vec(&marker)
            .map_err(|e| Error::internal(format!("a marker cannot be written: {e}")))?;
        producer.send(
            To::Markers,
            Some(self.marker_key().as_bytes()),
            Some(&marker),
        )?;
        producer.flush()?;
        Ok((count, bytes))
    }

    fn deliver_all(&mut self, producer: &Producer, epochs: &[SinkEpoch]) -> Result<(u64, u64)> {
        failpoint::check("sink.begin")?;
        if self.options.delivery == Delivery::AtLeastOnce {
            let sent = self.send(producer, epochs)?;
            failpoint::hit("sink.committed");
            return Ok(sent);
        }
        producer.begin()?;
        let sent = self
            .send(producer, epochs)
            .inspect_err(|_| producer.abort())?;
        failpoint::hit("sink.commit");
        producer.commit()?;
        failpoint::hit("sink.committed");
        Ok(sent)
    }
}

impl SinkWriter for KafkaSink {
    fn recover(&mut self) -> Result<Option<SinkMarker>> {
        // The predecessor sends nothing more: what it had is purged, and its successor fences it.
        if let Some(producer) = self.producer.take() {
            close_in_background(producer);
        }
        let transactional_id = format!("tidemark-{}-{}", self.identity.cluster, self.identity.sink);
        let transactions = self.options.delivery == Delivery::ExactlyOnce;
        let producer = Producer::new(
            &self.options.kafka,
            marker::TOPIC,
            transactions.then_some(transactional_id.as_str()),
        )?;
        marker::create_topic(producer.client())
            .map_err(|e| e.context(format!("kafka at {}", self.options.kafka.brokers)))?;
        if transactions {
            producer.init_transactions()?;
        }
        let marker = marker::read(producer.client(), &self.options.kafka, &self.marker_key())?;
        self.producer = Some(producer);
        Ok(marker)
    }

    fn deliver(&mut self, epochs: &[SinkEpoch]) -> Result<()> {
        if epochs.is_empty() {
            return Ok(());
        }
        let producer = self
            .producer
            .take()
            .ok_or_else(|| Error::internal("a sink delivers after recovery only"))?;
        let (records, bytes) = match self.deliver_all(&producer, epochs) {
            Ok(sent) => sent,
            Err(e) => {
                // No producer is left behind: recovery comes next.
                close_in_background(producer);
                return Err(e);
            }
        };
        self.producer = Some(producer);
        self.metrics.records.inc_by(records);
        self.metrics.bytes.inc_by(bytes);
        self.metrics.epochs.inc_by(epochs.len() as u64);
        Ok(())
    }
}
