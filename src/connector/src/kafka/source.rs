//! A Kafka topic as source: one split per partition, offsets as the broker counts them.

use crate::format::RecordDecoder;
use crate::kafka::admin::topic_id;
use crate::kafka::check::check_ids;
use crate::kafka::client::{
    Context, close_in_background, consumer_config, create_consumer, known_offsets, offsets,
    partitions, unavailable,
};
use crate::kafka::reader::KafkaReader;
use crate::metrics::SourceMetrics;
use crate::options::{KafkaSourceOptions, Startup};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use tidemark_changelog::connector::{SourceConnector, SourceReader, SplitPosition, Waker};
use tidemark_common::{Result, SplitId};
use tidemark_plan::{Column, ConnectorSpec};

/// The source.
pub struct KafkaSource {
    options: KafkaSourceOptions,
    spec: ConnectorSpec,
    columns: Vec<Column>,
    metrics: SourceMetrics,
    /// For questions; made when the first is asked.
    consumer: Mutex<Option<Arc<BaseConsumer<Context>>>>,
}

impl KafkaSource {
    /// The source of `spec`, whose options are checked here. Asks nothing of the broker yet.
    pub fn new(spec: &ConnectorSpec, columns: &[Column]) -> Result<KafkaSource> {
        let options = KafkaSourceOptions::read(spec)?;
        RecordDecoder::new(spec, columns, &(0..columns.len()).collect::<Vec<_>>())?;
        let metrics = SourceMetrics::new("kafka", &options.kafka.topic);
        Ok(KafkaSource {
            options,
            spec: spec.clone(),
            columns: columns.to_vec(),
            metrics,
            consumer: Mutex::new(None),
        })
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>> {
        let mut consumer = self.consumer.lock();
        if let Some(consumer) = consumer.as_ref() {
            return Ok(consumer.clone());
        }
        let made = Arc::new(create_consumer(&consumer_config(&self.options.kafka))?);
        *consumer = Some(made.clone());
        Ok(made)
    }

    fn positions(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: &[SplitId],
        offsets: Vec<i64>,
    ) -> Result<Vec<SplitPosition>> {
        let topic = &self.options.kafka.topic;
        let topic_id = topic_id(consumer.client(), topic)
            .map_err(|e| unavailable(format!("kafka topic \"{topic}\""), e))?
            .unwrap_or_else(|| topic.clone());
        let positions = partitions.iter().zip(offsets);
        Ok(positions
            .map(|(split, next_offset)| SplitPosition {
                split: *split,
                topic_id: topic_id.clone(),
                leader_epoch: -1,
                newest_epoch: -1,
                next_offset,
                records: 0,
                time_ms: -1,
                event_time_micros: None,
            })
            .collect())
    }
}

impl SourceConnector for KafkaSource {
    fn start(&self) -> Result<Vec<SplitPosition>> {
        let (consumer, kafka) = (self.consumer()?, &self.options.kafka);
        let partitions = partitions(&consumer, kafka)?;
        let start = match self.options.startup {
            Startup::Earliest => known_offsets(&consumer, kafka, &partitions, Offset::Beginning)?,
            Startup::Latest => known_offsets(&consumer, kafka, &partitions, Offset::End)?,
            Startup::Timestamp(millis) => {
                let ends = known_offsets(&consumer, kafka, &partitions, Offset::End)?;
                let found = offsets(&consumer, kafka, &partitions, Offset::Offset(millis))?;
                found
                    .into_iter()
                    .zip(ends)
                    .map(|(found, end)| found.unwrap_or(end))
                    .collect()
            }
        };
        self.positions(&consumer, &partitions, start)
    }

    fn end(&self) -> Result<Vec<SplitPosition>> {
        let (consumer, kafka) = (self.consumer()?, &self.options.kafka);
        let partitions = partitions(&consumer, kafka)?;
        let ends = known_offsets(&consumer, kafka, &partitions, Offset::End)?;
        self.positions(&consumer, &partitions, ends)
    }

    fn earliest(&self) -> Result<Vec<SplitPosition>> {
        let (consumer, kafka) = (self.consumer()?, &self.options.kafka);
        let partitions = partitions(&consumer, kafka)?;
        let first = known_offsets(&consumer, kafka, &partitions, Offset::Beginning)?;
        self.positions(&consumer, &partitions, first)
    }

    fn may_lose_records(&self) -> Result<bool> {
        let topic = &self.options.kafka.topic;
        let policy =
            crate::kafka::admin::cleanup_policy(&consumer_config(&self.options.kafka), topic)
                .map_err(|e| unavailable(format!("kafka topic \"{topic}\""), e))?;
        Ok(policy.contains("compact"))
    }

    fn check_same(&self, known: &[SplitPosition], now: &[SplitPosition]) -> Result<()> {
        check_ids(&self.options.kafka.topic, known, now)
    }

    fn open(&self, positions: &[SplitPosition], waker: Waker) -> Result<Box<dyn SourceReader>> {
        let config = consumer_config(&self.options.kafka);
        let reader = KafkaReader::open(
            config,
            self.options.kafka.clone(),
            self.spec.clone(),
            self.columns.clone(),
            positions,
            waker,
            self.metrics.clone(),
        )?;
        Ok(Box::new(reader))
    }

    fn commit(&self, positions: &[SplitPosition]) {
        let commit = || -> Result<(), Box<dyn std::error::Error>> {
            let mut list = TopicPartitionList::new();
            for position in positions {
                list.add_partition_offset(
                    &self.options.kafka.topic,
                    position.split as i32,
                    Offset::Offset(position.next_offset),
                )?;
            }
            Ok(self.consumer()?.commit(&list, CommitMode::Async)?)
        };
        if let Err(e) = commit() {
            tracing::debug!(target: "kafka", "offsets of topic \"{}\" were not committed for lag \
                tools: {e}", self.options.kafka.topic);
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.get_mut().take() {
            close_in_background(consumer);
        }
    }
}
