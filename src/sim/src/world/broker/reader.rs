//! Reads the partitions of one worker, by the same rules as the product's reader of Kafka: what a
//! position is, when it passes a gap, what a limit means, and which errors say that the log is not
//! the one that was read.

use super::client::Client;
use super::cluster::Place;
use super::direct::SimBroker;
use super::fetch::{Failure, Fetched, Next};
use super::line::Translator;
use super::log::{Record, Stand};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{SourceBatch, SourceReader, SplitPosition, Waker};
use tidemark_common::{Error, Result, machine};
use tidemark_connector::format::{RawRecord, RecordDecoder};
use tidemark_plan::{Column, ConnectorSpec};

/// How long no broker can be reached until that is told.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a partition may end before an offset that was read from it earlier.
const SHORT_PARTITION_PATIENCE: Duration = Duration::from_secs(60);

struct Split {
    broker: SimBroker,
    place: Place,
    position: SplitPosition,
    limit: i64,
    /// The end last reported, and when.
    end: Option<(i64, Instant)>,
    /// Offset and leader epoch of the last record that was passed.
    last: Option<(i64, i32)>,
}

impl Split {
    fn is_at_limit(&self) -> bool {
        self.position.next_offset >= self.limit
    }

    /// Nothing is left below `offset`. Whose leader wrote what stands just below it is not known
    /// then.
    fn pass_gap(&mut self, offset: i64) {
        if offset > self.position.next_offset {
            self.go_on(offset, (offset, self.position.records));
            self.position.leader_epoch = -1;
        }
    }

    /// Goes on, and has met nothing below `until`.
    fn go_on(&mut self, until: i64, now: Stand) {
        let before = (self.position.next_offset, self.position.records);
        // The topic may be gone.
        if let Ok(log) = self.broker.lock().log(&self.place) {
            log.pass(before, until, now);
        }
        (self.position.next_offset, self.position.records) = now;
    }
}

/// The reader.
pub struct SimReader {
    broker: SimBroker,
    fetched: Fetched,
    splits: Vec<Split>,
    topic: String,
    brokers: String,
    topic_id: Option<String>,
    spec: ConnectorSpec,
    columns: Vec<Column>,
    translator: Translator,
    /// The decoder for the columns last asked for; an error is reported by the next poll.
    decoder: Result<RecordDecoder>,
    turn: usize,
    timed: bool,
    times_ms: Vec<i64>,
    /// What a partition has failed with, for good.
    failure: Option<Error>,
}

impl SimReader {
    /// Opens a reader at `positions`.
    pub fn open(
        client: Client,
        topic: &str,
        spec: &ConnectorSpec,
        columns: &[Column],
        positions: &[SplitPosition],
        waker: Waker,
    ) -> Result<SimReader> {
        let all: Vec<usize> = (0..columns.len()).collect();
        let decoder = RecordDecoder::new(spec, columns, &all)?.keep_faulty();
        let brokers = client.brokers.clone();
        let mut reader = SimReader {
            broker: client.broker.clone(),
            fetched: Fetched::begin(client, topic, waker),
            splits: Vec::new(),
            topic: topic.to_string(),
            brokers,
            topic_id: None,
            spec: spec.clone(),
            columns: columns.to_vec(),
            translator: Translator::new(spec, columns),
            decoder: Ok(decoder),
            turn: 0,
            timed: false,
            times_ms: Vec::new(),
            failure: None,
        };
        reader.add_splits(positions)?;
        Ok(reader)
    }

    /// Decodes up to `rows_max` records of split `i`; `None` if it has nothing now.
    fn poll_split(&mut self, i: usize, rows_max: usize) -> Result<Option<SourceBatch>> {
        let mut records = Vec::new();
        while records.len() < rows_max {
            let split = &mut self.splits[i];
            match self.fetched.peek(i) {
                None => break,
                Some(Next::Record(record)) if record.offset >= split.limit => {
                    split.pass_gap(split.limit);
                    break;
                }
                // what is below the position was delivered before a fetch was repeated
                Some(Next::Record(record)) if record.offset < split.position.next_offset => {
                    split.last = Some((record.offset, record.leader_epoch));
                }
                Some(Next::Record(record)) => {
                    self.push(i, &record)?;
                    records.push(record);
                }
                Some(Next::End(offset)) => {
                    split.pass_gap(offset.min(split.limit));
                    split.end = Some((offset, machine::now()));
                }
                Some(Next::Failed(_)) if !records.is_empty() => break,
                Some(Next::Failed(failure)) => {
                    let error = self.error_of(i, &failure);
                    self.failure = Some(error.clone());
                    return Err(error);
                }
            }
            self.fetched.pop(i);
        }
        if records.is_empty() {
            return Ok(None);
        }
        self.note_epoch(i)?;
        self.finish(i, &records).map(Some)
    }

    fn push(&mut self, i: usize, record: &Record) -> Result<()> {
        let decoder = self.decoder.as_mut().map_err(|e| e.clone())?;
        let split = &mut self.splits[i];
        let key = self.translator.key(record.key.as_deref());
        let value = self.translator.value(record.value.as_deref());
        let before = decoder.len();
        decoder.push(&RawRecord {
            key: key.as_deref(),
            value: value.as_deref(),
            partition: split.position.split as i32,
            offset: record.offset,
            timestamp_ms: Some(record.timestamp_ms),
        });
        split.position.time_ms = record.timestamp_ms.max(split.position.time_ms);
        if self.timed && decoder.len() > before {
            self.times_ms.push(split.position.time_ms);
        }
        split.go_on(
            record.offset,
            (record.offset + 1, split.position.records + 1),
        );
        split.last = Some((record.offset, record.leader_epoch));
        Ok(())
    }

    /// Notes the leader epoch of the record below the position.
    fn note_epoch(&mut self, i: usize) -> Result<()> {
        let split = &mut self.splits[i];
        let below = split.position.next_offset - 1;
        let epoch = match split.last {
            Some((offset, epoch)) if offset == below => epoch,
            _ => -1,
        };
        if (0..split.position.newest_epoch).contains(&epoch) {
            let partition = split.position.split;
            return Err(Error::corrupt(format!(
                "kafka topic \"{}\" partition {partition} is not as it was read: the record at \
                 offset {below} is of leader epoch {epoch}, and one of epoch {} was read before it",
                self.topic, split.position.newest_epoch
            )));
        }
        split.position.leader_epoch = epoch;
        split.position.newest_epoch = split.position.newest_epoch.max(epoch);
        Ok(())
    }

    fn finish(&mut self, i: usize, records: &[Record]) -> Result<SourceBatch> {
        let decoder = self.decoder.as_mut().map_err(|e| e.clone())?;
        let faulty = decoder.take_faulty();
        let (changes, mut errors) = decoder.finish();
        for error in &mut errors {
            // As it was written, not as it was translated.
            let record = records.iter().find(|record| record.offset == error.offset);
            let value = record.and_then(|record| record.value.as_deref());
            error.raw = value.unwrap_or_default().to_vec();
        }
        Ok(SourceBatch {
            split: self.splits[i].position.split,
            changes,
            errors,
            faulty,
            times_ms: std::mem::take(&mut self.times_ms),
        })
    }

    fn error_of(&self, i: usize, failure: &Failure) -> Error {
        let position = &self.splits[i].position;
        let place = format!(
            "kafka topic \"{}\" partition {}",
            self.topic, position.split
        );
        let offset = position.next_offset;
        match failure {
            Failure::Truncated(text) => Error::corrupt(format!(
                "{place} is not as it was read: the record below offset {offset}, of leader epoch \
                 {}, is gone",
                position.leader_epoch
            ))
            .with_detail(format!("The broker says: {text}.")),
            Failure::OutOfRange(there) => Error::corrupt(format!(
                "{place} no longer has offset {offset}: it has the offsets from {} to {}",
                there.start, there.end
            ))
            .with_detail("The broker says: Broker: Offset out of range."),
            Failure::OtherTopic(now) => other_topic(
                &self.topic,
                self.topic_id.as_deref().unwrap_or_default(),
                now.as_deref(),
            ),
        }
    }

    /// A partition that keeps ending before its limit, which was read from it earlier, has lost
    /// records.
    fn check_ends(&self) -> Result<()> {
        for split in &self.splits {
            if let Some((end, since)) = split.end
                && split.limit != i64::MAX
                && end < split.limit
                && split.position.next_offset <= end
                && machine::elapsed(since) > SHORT_PARTITION_PATIENCE
            {
                return Err(Error::corrupt(format!(
                    "kafka topic \"{}\" partition {} ends at offset {end}, but was read up to \
                     offset {} before",
                    self.topic, split.position.split, split.limit
                )));
            }
        }
        Ok(())
    }
}

/// The error of a topic that is not the one that was read; `now` is the id of the one there is.
fn other_topic(topic: &str, known: &str, now: Option<&str>) -> Error {
    match now {
        Some(now) => Error::corrupt(format!(
            "kafka topic \"{topic}\" is not the one that was read before: its id was {known} and \
             is {now}"
        )),
        None => Error::corrupt(format!("kafka topic \"{topic}\" does not exist any more")),
    }
}

/// The topic's id in positions.
fn known_id<'a>(positions: &'a [SplitPosition], topic: &str) -> Option<&'a str> {
    let mut ids = positions.iter().map(|p| p.topic_id.as_str());
    ids.find(|id| !id.is_empty() && *id != topic)
}

/// An error of kind `Corrupt` if both tell the topic's id, and not the same one.
pub fn check_ids(topic: &str, known: &[SplitPosition], now: &[SplitPosition]) -> Result<()> {
    match (known_id(known, topic), known_id(now, topic)) {
        (Some(known), Some(now)) if known != now => Err(other_topic(topic, known, Some(now))),
        _ => Ok(()),
    }
}

impl SourceReader for SimReader {
    fn poll(&mut self, rows_max: usize) -> Result<Option<SourceBatch>> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        self.decoder.as_ref().map_err(Error::clone)?;
        for _ in 0..self.splits.len() {
            let i = self.turn % self.splits.len();
            self.turn = i + 1;
            // a split may have had only records without rows (or the news of its end): look again
            // until it is empty
            while !self.splits[i].is_at_limit() {
                let before = self.splits[i].position.next_offset;
                match self.poll_split(i, rows_max.max(1))? {
                    Some(batch) if batch.changes.is_empty() && batch.errors.is_empty() => {}
                    Some(batch) => return Ok(Some(batch)),
                    None if self.splits[i].position.next_offset == before => break,
                    None => {}
                }
            }
        }
        self.check_ends()?;
        Ok(None)
    }

    fn positions(&self) -> Vec<SplitPosition> {
        self.splits.iter().map(|s| s.position.clone()).collect()
    }

    fn set_limits(&mut self, limits: &[SplitPosition]) {
        for split in &mut self.splits {
            let limit = limits.iter().find(|l| l.split == split.position.split);
            split.limit = limit.map_or(i64::MAX, |l| l.next_offset);
            split.end = split.end.map(|(end, _)| (end, machine::now()));
            if let Some((end, _)) = split.end {
                split.pass_gap(end.min(split.limit));
            }
        }
    }

    fn set_columns(&mut self, columns: &[usize]) {
        self.decoder =
            RecordDecoder::new(&self.spec, &self.columns, columns).map(RecordDecoder::keep_faulty);
    }

    fn set_times(&mut self, wanted: bool) {
        self.timed = wanted;
    }

    fn add_splits(&mut self, splits: &[SplitPosition]) -> Result<()> {
        check_ids(&self.topic, &self.positions(), splits)?;
        if self.topic_id.is_none() {
            self.topic_id = known_id(splits, &self.topic).map(str::to_string);
            if let Some(id) = &self.topic_id {
                self.fetched.set_topic_id(id);
            }
        }
        for position in splits {
            let mut position = position.clone();
            position.newest_epoch = position.newest_epoch.max(position.leader_epoch);
            self.fetched.add(&position);
            self.splits.push(Split {
                broker: self.broker.clone(),
                place: (self.topic.clone(), position.split),
                position,
                limit: i64::MAX,
                end: None,
                last: None,
            });
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        let (since, why) = self.fetched.unreachable()?;
        let brokers = &self.brokers;
        (since > TROUBLE_PATIENCE && !self.splits.is_empty())
            .then(|| format!("kafka at {brokers} cannot be reached: {why}; trying again"))
    }
}
