//! A topic of the broker as source, configured as the product's own.

use super::client::{Client, unavailable};
use super::cluster::Topic;
use super::log::Log;
use super::reader::{SimReader, check_ids};
use tidemark_changelog::connector::{SourceConnector, SourceReader, SplitPosition, Waker};
use tidemark_common::{Error, Result, SplitId, SqlState};
use tidemark_connector::format::RecordDecoder;
use tidemark_connector::options::{KafkaSourceOptions, Startup};
use tidemark_plan::{Column, ConnectorSpec};

/// The source.
pub struct SimSource {
    client: Client,
    topic: String,
    startup: Startup,
    spec: ConnectorSpec,
    columns: Vec<Column>,
}

impl SimSource {
    /// The source of `spec`, asked for by this client.
    pub fn new(mut client: Client, spec: &ConnectorSpec, columns: &[Column]) -> Result<SimSource> {
        let options = KafkaSourceOptions::read(spec)?;
        RecordDecoder::new(spec, columns, &(0..columns.len()).collect::<Vec<_>>())?;
        client.brokers = options.kafka.brokers;
        Ok(SimSource {
            client,
            topic: options.kafka.topic,
            startup: options.startup,
            spec: spec.clone(),
            columns: columns.to_vec(),
        })
    }

    fn ask<T>(&self, question: impl Fn(&Topic) -> T) -> Result<T> {
        let answer = self
            .client
            .question(|cluster| cluster.topic(&self.topic).map(&question));
        let brokers = &self.client.brokers;
        let answer = answer.map_err(|e| {
            unavailable(format!("cannot reach kafka at {brokers}"), e).with_hint(
                "Check that the broker runs and that properties.bootstrap.server names it.",
            )
        })?;
        answer.ok_or_else(|| {
            let topic = &self.topic;
            let message = format!("kafka topic \"{topic}\" does not exist at {brokers}");
            Error::user(SqlState::UNDEFINED_OBJECT, message)
                .with_hint("Create the topic first, or correct the option \"topic\".")
        })
    }

    fn positions(&self, offset: impl Fn(&Log) -> i64) -> Result<Vec<SplitPosition>> {
        self.ask(|topic| {
            let logs = topic.partitions.iter().enumerate();
            logs.map(|(split, log)| SplitPosition {
                split: split as SplitId,
                topic_id: topic.id.clone(),
                leader_epoch: -1,
                newest_epoch: -1,
                next_offset: offset(log),
                records: 0,
                time_ms: -1,
                event_time_micros: None,
            })
            .collect()
        })
    }
}

impl SourceConnector for SimSource {
    fn start(&self) -> Result<Vec<SplitPosition>> {
        let startup = self.startup;
        self.positions(|log| match startup {
            Startup::Earliest => log.start(),
            Startup::Latest => log.stable_end(),
            Startup::Timestamp(millis) => {
                let found = log.offset_of_time(millis);
                found.unwrap_or_else(|| log.stable_end())
            }
        })
    }

    fn end(&self) -> Result<Vec<SplitPosition>> {
        self.positions(Log::stable_end)
    }

    fn earliest(&self) -> Result<Vec<SplitPosition>> {
        self.positions(Log::start)
    }

    fn may_lose_records(&self) -> Result<bool> {
        self.ask(|topic| topic.compacted)
    }

    fn check_same(&self, known: &[SplitPosition], now: &[SplitPosition]) -> Result<()> {
        check_ids(&self.topic, known, now)
    }

    fn open(&self, positions: &[SplitPosition], waker: Waker) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(SimReader::open(
            self.client.clone(),
            &self.topic,
            &self.spec,
            &self.columns,
            positions,
            waker,
        )?))
    }
}
