//! A Kafka topic as source: one split per partition, offsets as the broker counts them.

use crate::format::RecordDecoder;
use crate::kafka::admin::topic_id;
use crate::kafka::client::{Context, consumer_config, create_consumer, known_offsets, offsets, partitions};
use crate::kafka::reader::KafkaReader;
use crate::metrics::SourceMetrics;
use crate::options::{KafkaSourceOptions, Startup};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use tidemark_changelog::connector::{SourceConnector, SourceReader, SplitPosition, Waker};
use tidemark_common::{Error, ErrorKind, Result, SplitId, SqlState};
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
        Ok(KafkaSource { options, spec: spec.clone(), columns: columns.to_vec(), metrics, consumer: Mutex::new(None) })
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

    fn positions(&self, consumer: &BaseConsumer<Context>, partitions: &[SplitId], offsets: Vec<i64>) -> Result<Vec<SplitPosition>> {
        let topic_id = topic_id(consumer.client(), &self.options.kafka.topic)?;
        let positions = partitions.iter().zip(offsets);
        Ok(positions.map(|(split, next_offset)| SplitPosition { split: *split, topic_id: topic_id.clone(), leader_epoch: -1, next_offset, records: 0 }).collect())
    }

    /// Positions in a topic that was deleted since mean other records now, or none.
    fn check_topic_id(&self, positions: &[SplitPosition]) -> Result<()> {
        let topic = &self.options.kafka.topic;
        let Some(known) = positions.iter().map(|p| &p.topic_id).find(|id| !id.is_empty() && *id != topic) else { return Ok(()) };
        let now = topic_id(self.consumer()?.client(), topic)?;
        // Without an answer, reading finds out: the broker may just be down.
        if now == *topic || now == *known {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, SqlState::DATA_CORRUPTED, format!("kafka topic \"{topic}\" is not the one that was read before: its id was {known} and is {now}"))
            .with_hint("It was deleted and made anew. Create the source again to read the new one."))
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
                found.into_iter().zip(ends).map(|(found, end)| found.unwrap_or(end)).collect()
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

    fn open(&self, positions: &[SplitPosition], waker: Waker) -> Result<Box<dyn SourceReader>> {
        self.check_topic_id(positions)?;
        let config = consumer_config(&self.options.kafka);
        let reader = KafkaReader::open(config, self.options.kafka.clone(), self.spec.clone(), self.columns.clone(), positions, waker, self.metrics.clone())?;
        Ok(Box::new(reader))
    }

    fn commit(&self, positions: &[SplitPosition]) {
        let commit = || -> Result<(), Box<dyn std::error::Error>> {
            let mut list = TopicPartitionList::new();
            for position in positions {
                list.add_partition_offset(&self.options.kafka.topic, position.split as i32, Offset::Offset(position.next_offset))?;
            }
            Ok(self.consumer()?.commit(&list, CommitMode::Async)?)
        };
        if let Err(e) = commit() {
            tracing::debug!(target: "kafka", "offsets of topic \"{}\" were not committed for lag tools: {e}", self.options.kafka.topic);
        }
    }
}
