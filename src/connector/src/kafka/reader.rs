//! Reads the partitions of one worker with one consumer.
//!
//! Partitions are assigned by hand, each with a queue of its own; `poll` takes a batch from the
//! next one that has something and decodes it from the borrowed messages. Positions follow the
//! consumer, not the records: transaction markers and compaction leave gaps, so a split advances to
//! the limit when a later record shows that nothing is left below it, and to the end of the
//! partition when the client reports that. Records at or past a limit stay where they are until the
//! limit is lifted.
//!
//! A position carries the leader epoch of the record below it, where that is known: the client then
//! asks the broker whether that leader's part of the log still reaches the position before it reads
//! on. A log that an unclean election cut off is noticed, also if it has grown past the position
//! again.
//!
//! Offsets count in one topic; in another one under its name (`check`) they soon look like a
//! continuation. Before rows are handed out, the client must not have adopted another topic's id.
//! What could be a sign of another topic, or would be misunderstood if it were one (an offset that
//! is gone, an outage), ends reading until the broker has told the topic's id.
//!
//! What the client cures by itself (a broker that restarts, a new leader) is logged. Whatever else
//! a broker may answer is told as trouble, and the reader goes on: the client asks again, and if a
//! partition stays silent, a new client takes over at the same positions. Only what would lose or
//! invent rows (an offset that is gone, a deleted topic) is an error.

use crate::format::RecordDecoder;
use crate::kafka::budget::{Part, Share};
use crate::kafka::check::{TopicCheck, check_ids, known_id, no_topic_any_more, same_topic};
use crate::kafka::client::{
    Context, close_in_background, create_consumer, invalid_settings, unavailable,
};
use crate::kafka::queue::{Next, PartitionQueue, has_events, positions_with_epochs, seek};
use crate::metrics::SourceMetrics;
use crate::options::KafkaOptions;
use rdkafka::bindings::rd_kafka_resp_err_t as code;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{RecordError, SourceBatch, SourceReader, SplitPosition, Waker};
use tidemark_common::{Error, Result};
use tidemark_plan::{Column, ConnectorSpec};

/// How long no broker can be reached until SHOW JOBS says so.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(2);
/// How often a reader asks whether its topic is still the same one.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);
/// How long a partition may end before an offset that was read from it earlier; a new leader may
/// need a moment to know its own end.
const SHORT_PARTITION_PATIENCE: Duration = Duration::from_secs(60);

/// How long a partition that an error was reported of, or whose broker was away, may be silent
/// until a new client takes over, and how long that one is given.
const REOPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that could fetch more ahead goes on as it is.
const GROW_PATIENCE: Duration = Duration::from_secs(60);

struct Split {
    position: SplitPosition,
    limit: i64,
    queue: PartitionQueue,
    /// The end last reported, and when.
    end: Option<(i64, Instant)>,
    /// What the broker answered instead of records, and since when, until it is read again.
    trouble: Option<(String, Instant)>,
    /// Since when nothing has come of it after its broker was away, or did not give it: mostly the
    /// client goes on by itself, and now and then it does not.
    doubted: Option<Instant>,
}

impl Split {
    fn be_doubted(&mut self) {
        self.doubted.get_or_insert_with(Instant::now);
    }

    /// For how long it has given nothing, where that may not be as it should.
    fn silent(&self) -> Duration {
        let troubled = self.trouble.as_ref().map(|(_, since)| *since);
        let since = troubled.into_iter().chain(self.doubted).min();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn is_at_limit(&self) -> bool {
        self.position.next_offset >= self.limit
    }

    /// Nothing is left below `offset`. Whose leader wrote what stands just below it is not known
    /// then.
    fn pass_gap(&mut self, offset: i64) {
        if offset > self.position.next_offset {
            self.position.next_offset = offset;
            self.position.leader_epoch = -1;
        }
    }
}

/// The reader. Fields are dropped in order: queues before the consumer they belong to.
pub struct KafkaReader {
    splits: Vec<Split>,
    consumer: Option<Arc<BaseConsumer<Context>>>,
    config: ClientConfig,
    /// Its part of what all fetch ahead, and what its client was made for.
    share: Share,
    part: Part,
    /// When a client was made last.
    opened: Instant,
    /// Until it is empty, nothing is read.
    check: Option<TopicCheck>,
    /// What is wrong if `check` finds that the topic is the same.
    otherwise: Option<Error>,
    /// A question whether the topic is still the same, beside reading, now and then.
    watch: Option<TopicCheck>,
    /// When it was asked last.
    watched: Instant,
    /// The id that the positions count in; `None` where the broker tells none.
    topic_id: Option<String>,
    options: KafkaOptions,
    spec: ConnectorSpec,
    columns: Vec<Column>,
    /// The decoder for the columns last asked for; an error is reported by the next poll.
    decoder: Result<RecordDecoder>,
    waker: Waker,
    turn: usize,
    metrics: SourceMetrics,
    /// Whether the rows' times are asked for, and those of the batch in the making.
    timed: bool,
    times_ms: Vec<i64>,
}

/// Reading settings: much at once when there is much, memory bounded, no pause of a second when a
/// queue was full. The broker tells the end of a partition when a fetch has waited in vain, so that
/// wait bounds how long a position stands before a transaction marker. The client says in its log
/// which topic's id it goes by.
fn tune(config: &mut ClientConfig, options: &KafkaOptions, part: Part) {
    let bounds = part.settings().map(|(key, value)| (key, value.to_string()));
    let settings = [
        ("fetch.queue.backoff.ms", "2"),
        ("fetch.error.backoff.ms", "100"),
        ("fetch.wait.max.ms", "100"),
    ];
    let bounds = bounds.iter().map(|(key, value)| (*key, value.as_str()));
    for (key, value) in settings.into_iter().chain(bounds) {
        if !options.properties.contains_key(key) {
            config.set(key, value);
        }
    }
    config
        .set("debug", "topic")
        .set_log_level(RDKafkaLogLevel::Debug);
}

fn new_consumer(config: &ClientConfig, waker: &Waker) -> Result<Arc<BaseConsumer<Context>>> {
    let mut consumer = create_consumer(config)?;
    let on_event = waker.clone();
    consumer.set_nonempty_callback(move || on_event());
    Ok(Arc::new(consumer))
}

impl KafkaReader {
    /// Opens a reader at `positions`.
    pub fn open(
        mut config: ClientConfig,
        options: KafkaOptions,
        spec: ConnectorSpec,
        columns: Vec<Column>,
        positions: &[SplitPosition],
        waker: Waker,
        metrics: SourceMetrics,
    ) -> Result<KafkaReader> {
        let mut share = Share::default();
        share.set_partitions(positions.len());
        let part = share.part();
        tune(&mut config, &options, part);
        let consumer = new_consumer(&config, &waker)?;
        let all: Vec<usize> = (0..columns.len()).collect();
        let decoder = Ok(RecordDecoder::new(&spec, &columns, &all)?.keep_faulty());
        let mut reader = KafkaReader {
            splits: Vec::new(),
            consumer: Some(consumer),
            config,
            share,
            part,
            opened: Instant::now(),
            check: None,
            otherwise: None,
            watch: None,
            watched: Instant::now(),
            topic_id: None,
            options,
            spec,
            columns,
            decoder,
            waker,
            turn: 0,
            metrics,
            timed: false,
            times_ms: Vec::new(),
        };
        reader.add_splits(positions)?;
        Ok(reader)
    }

    /// Asks for the topic's id; `None` where there is none to compare with.
    fn topic_check(&self) -> Result<Option<TopicCheck>> {
        let begin = |known: &String| {
            TopicCheck::begin(
                self.shared_consumer(),
                &self.options.topic,
                known,
                self.waker.clone(),
            )
        };
        self.topic_id.as_ref().map(begin).transpose()
    }

    /// Follows up the news that the topic does not exist.
    fn on_no_topic(&mut self) -> Result<()> {
        if self.topic_id.is_none() {
            return Err(no_topic_any_more(&self.options.topic));
        }
        self.doubt(None)
    }

    /// Reads nothing before it is known whether this is still the same topic. If it is, `otherwise`
    /// is what is wrong.
    fn doubt(&mut self, otherwise: Option<Error>) -> Result<()> {
        if self.check.is_none() {
            self.check = self.topic_check()?;
        }
        match (&self.check, otherwise) {
            (None, Some(error)) => return Err(error),
            (Some(_), Some(error)) => drop(self.otherwise.get_or_insert(error)),
            (_, None) => {}
        }
        Ok(())
    }

    /// Whether reading may go on: no question about the topic is open.
    fn may_read(&mut self) -> Result<bool> {
        if let Some(check) = &self.check {
            let Some(outcome) = check.outcome() else {
                return Ok(false);
            };
            outcome?;
            (self.check, self.watch, self.watched) = (None, None, Instant::now());
            self.consumer().context().reached();
            self.splits.iter_mut().for_each(Split::be_doubted);
            if let Some(error) = self.otherwise.take() {
                return Err(error);
            }
        }
        if self.consumer().context().unreachable().is_some() && !self.splits.is_empty() {
            // Whatever it is that answers next.
            self.doubt(None)?;
        }
        Ok(self.check.is_none())
    }

    /// Asks now and then whether the topic is still the same, beside reading.
    fn watch_topic(&mut self) -> Result<()> {
        if let Some(outcome) = self.watch.as_ref().and_then(TopicCheck::outcome) {
            (self.watch, self.watched) = (None, Instant::now());
            self.consumer().context().reached();
            outcome?;
        }
        let is_due = self.watched.elapsed() > WATCH_INTERVAL;
        if is_due && self.watch.is_none() && !self.splits.is_empty() {
            self.watched = Instant::now();
            self.watch = self.topic_check()?;
        }
        Ok(())
    }

    fn consumer(&self) -> &BaseConsumer<Context> {
        self.consumer
            .as_deref()
            .expect("the consumer is there until the reader is dropped")
    }

    fn shared_consumer(&self) -> Arc<BaseConsumer<Context>> {
        self.consumer
            .clone()
            .expect("the consumer is there until the reader is dropped")
    }

    /// Lets the client report all that concerns no single partition, and compares the topic's id:
    /// what was in a partition's queue before belongs to the topic that the positions count in.
    fn serve_events(&mut self) -> Result<()> {
        while has_events(self.consumer().client()) {
            let event = self
                .consumer()
                .poll(Duration::ZERO)
                .map(|event| event.map(drop));
            match event {
                Some(Err(KafkaError::MessageConsumptionFatal(e))) => {
                    (0..self.splits.len()).for_each(|i| self.be_troubled(i, &e.to_string()));
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                ))) => self.on_no_topic()?,
                // errors are logged by the client's context; records come through the partitions'
                // own queues
                _ => {}
            }
        }
        let topic = &self.options.topic;
        let now = self.consumer().context().topic_id(topic);
        match (&self.topic_id, now) {
            (Some(known), Some(now)) => same_topic(topic, known, Some(&now)),
            _ => Ok(()),
        }
    }

    fn failed(&self, what: &str, error: impl std::fmt::Display) -> Error {
        unavailable(
            format!("kafka topic \"{}\": {what}", self.options.topic),
            error,
        )
    }

    /// Decodes up to `rows_max` records of split `i`; `None` if it has nothing now.
    fn poll_split(&mut self, i: usize, rows_max: usize) -> Result<Option<SourceBatch>> {
        self.decoder.as_ref().map_err(Error::clone)?;
        if self.splits[i].is_at_limit() || !self.splits[i].queue.fill(rows_max) {
            return Ok(None);
        }
        // After it was filled: the news of another topic comes before that topic's records.
        self.serve_events()?;
        if self.check.is_some() {
            return Ok(None);
        }
        let decoder = self.decoder.as_mut().map_err(|e| e.clone())?;
        let split = &mut self.splits[i];
        let (mut records, mut bytes) = (0, 0);
        let mut failure = None;
        while records < rows_max && !decoder.is_full() {
            match split.queue.peek() {
                None => break,
                Some(Next::Record(record)) if record.offset >= split.limit => {
                    split.pass_gap(split.limit);
                    break;
                }
                // what is below the position was delivered before a fetch was repeated
                Some(Next::Record(record)) if record.offset < split.position.next_offset => {}
                Some(Next::Record(record)) => {
                    let before = decoder.len();
                    decoder.push(&record);
                    split.position.time_ms = record
                        .timestamp_ms
                        .unwrap_or(-1)
                        .max(split.position.time_ms);
                    if self.timed && decoder.len() > before {
                        self.times_ms.push(split.position.time_ms);
                    }
                    records += 1;
                    bytes +=
                        record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                    split.position.next_offset = record.offset + 1;
                }
                Some(Next::End(offset)) => {
                    split.pass_gap(offset.min(split.limit));
                    split.end = Some((offset, Instant::now()));
                    (split.trouble, split.doubted) = (None, None);
                }
                Some(Next::Failed(..)) if records > 0 => break,
                Some(Next::Failed(error, text)) => failure = Some((error, text)),
            }
            split.queue.pop();
            if failure.is_some() {
                break;
            }
        }
        split.position.records += records as u64;
        if records > 0 {
            (split.trouble, split.doubted) = (None, None);
            let last = split.position.next_offset - 1;
            let epoch = split.queue.leader_epoch_of(last);
            if (0..split.position.newest_epoch).contains(&epoch) {
                return Err(older_epoch(&self.options.topic, split, epoch));
            }
            split.position.leader_epoch = epoch;
            split.position.newest_epoch = split.position.newest_epoch.max(epoch);
        }
        if let Some((error, text)) = failure {
            self.on_failure(i, error, &text)?;
        }
        Ok(self.finish(i, records, bytes))
    }

    fn finish(&mut self, i: usize, records: usize, bytes: usize) -> Option<SourceBatch> {
        if records == 0 {
            return None;
        }
        self.consumer().context().reached();
        let decoder = self.decoder.as_mut().ok()?;
        let faulty = decoder.take_faulty();
        let (changes, errors): (_, Vec<RecordError>) = decoder.finish();
        self.metrics.records.inc_by(records as u64);
        self.metrics.bytes.inc_by(bytes as u64);
        self.metrics.errors.inc_by(errors.len() as u64);
        Some(SourceBatch {
            split: self.splits[i].position.split,
            changes,
            errors,
            faulty,
            times_ms: std::mem::take(&mut self.times_ms),
        })
    }

    /// Notes that split `i` gives no records for this reason.
    fn be_troubled(&mut self, i: usize, reason: &str) {
        let split = &mut self.splits[i];
        if split
            .trouble
            .as_ref()
            .is_none_or(|(told, _)| told != reason)
        {
            let (topic, partition) = (&self.options.topic, split.position.split);
            tracing::warn!(
                target: "kafka",
                "kafka topic \"{topic}\" partition {partition}: {reason}; trying again"
            );
        }
        let since = split.trouble.take().map(|(_, since)| since);
        let since = since.unwrap_or_else(Instant::now);
        split.trouble = Some((reason.to_string(), since));
    }

    /// The first split that is to be read and gives no records for a reason that the broker told.
    fn troubled(&self) -> Option<(&Split, &str, Duration)> {
        self.splits
            .iter()
            .filter(|split| !split.is_at_limit())
            .find_map(|split| {
                let (reason, since) = split.trouble.as_ref()?;
                Some((split, reason.as_str(), since.elapsed()))
            })
    }

    /// Lets a new client take over where the old one gets nothing from a broker that answers:
    /// after some answers a client asks no more, or not for minutes.
    fn reopen_if_stuck(&mut self) -> Result<()> {
        let mut read = self.splits.iter().filter(|split| !split.is_at_limit());
        let is_silent = read.any(|split| split.silent() > REOPEN_PATIENCE);
        let is_stuck = is_silent
            && self.opened.elapsed() > REOPEN_PATIENCE
            && self.consumer().context().unreachable().is_none();
        match is_stuck {
            true => self.reopen(),
            false => Ok(()),
        }
    }

    /// Lets a new client take over where what others leave has become far less, or far more, than
    /// what the old one was made for.
    fn reopen_if_unfair(&mut self) -> Result<()> {
        let now = self.share.part();
        let is_unfair = self.part.is_too_large(now)
            || self.part.is_too_small(now) && self.opened.elapsed() > GROW_PATIENCE;
        match is_unfair && !self.splits.is_empty() {
            true => self.reopen(),
            false => Ok(()),
        }
    }

    fn reopen(&mut self) -> Result<()> {
        self.opened = Instant::now();
        self.part = self.share.part();
        tune(&mut self.config, &self.options, self.part);
        let consumer = match new_consumer(&self.config, &self.waker) {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::warn!(target: "kafka", %error, "no new client can be made");
                return Ok(());
            }
        };
        let topic = &self.options.topic;
        tracing::info!(target: "kafka", "a new client reads kafka topic \"{topic}\" on");
        let positions = self.positions();
        let kept: Vec<_> = self
            .splits
            .drain(..)
            .map(|split| (split.limit, split.trouble))
            .collect();
        close_in_background(self.consumer.replace(consumer));
        self.add_splits(&positions)?;
        for (split, kept) in self.splits.iter_mut().zip(kept) {
            (split.limit, split.trouble) = kept;
        }
        Ok(())
    }

    /// An error that the client reports of a partition: logged where the client goes on by itself,
    /// returned where rows would be lost or invented, and trouble otherwise.
    fn on_failure(&mut self, i: usize, error: code, text: &str) -> Result<()> {
        use code::*;
        let position = self.splits[i].position.clone();
        let place = format!(
            "kafka topic \"{}\" partition {}",
            self.options.topic, position.split
        );
        match error {
            RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET | RD_KAFKA_RESP_ERR__LOG_TRUNCATION
                if is_truncation(error, text) =>
            {
                self.doubt(Some(truncated(&place, &position, text)))
            }
            RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET | RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
                if is_out_of_range(error, text) =>
            {
                let available = self.consumer().fetch_watermarks(
                    &self.options.topic,
                    position.split as i32,
                    Duration::from_secs(5),
                );
                let available = available.map_or_else(
                    |e| format!("its offsets are not known ({e})"),
                    |(low, high)| format!("it has the offsets from {low} to {high}"),
                );
                let offset = position.next_offset;
                let error = Error::corrupt(format!(
                    "{place} no longer has offset {offset}: {available}"
                ))
                .with_detail(format!("The broker says: {text}."))
                .with_hint(
                    "Records were deleted before they were read, by retention or by \
                             making the topic anew. Create the source again to start from what \
                             is left.",
                );
                self.doubt(Some(error))
            }
            RD_KAFKA_RESP_ERR__TRANSPORT
            | RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
            | RD_KAFKA_RESP_ERR__TIMED_OUT
            | RD_KAFKA_RESP_ERR__RESOLVE
            | RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
            | RD_KAFKA_RESP_ERR__WAIT_CACHE
            | RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
            | RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
            | RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION
            | RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR
            | RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH
            | RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH
            | RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE => {
                tracing::warn!(target: "kafka", "{place}: {text}; the client tries again");
                self.splits[i].be_doubted();
                Ok(())
            }
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => {
                // If it is there after all, the client may not have noticed.
                self.be_troubled(i, text);
                self.on_no_topic()
            }
            _ => {
                self.be_troubled(i, text);
                Ok(())
            }
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
                && since.elapsed() > SHORT_PARTITION_PATIENCE
            {
                let place = format!(
                    "kafka topic \"{}\" partition {}",
                    self.options.topic, split.position.split
                );
                return Err(Error::corrupt(format!(
                    "{place} ends at offset {end}, but was read up to offset {} before",
                    split.limit
                ))
                .with_hint(
                    "The broker lost records, or the topic was made anew. Create the \
                                source again to start from what is left.",
                ));
            }
        }
        Ok(())
    }
}

/// Whether the client says that the broker's log is not the one that was read: the leader that
/// wrote the record below the position is not known to it, or its part of the log ends before.
fn is_truncation(error: code, text: &str) -> bool {
    // A client that is not allowed to go on by itself reports every reason under one code.
    error == code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION || text.contains("log truncation detected")
}

/// Whether the client says that the broker has no such offset: it reports that, too, under the code
/// of every reason for which it would begin elsewhere.
fn is_out_of_range(error: code, text: &str) -> bool {
    error == code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE || text.contains("Offset out of range")
}

fn older_epoch(topic: &str, split: &Split, epoch: i32) -> Error {
    let SplitPosition {
        split: partition,
        next_offset,
        ..
    } = split.position;
    Error::corrupt(format!(
        "kafka topic \"{topic}\" partition {partition} is not as it was read: the record at offset \
         {} is of leader epoch {epoch}, and one of epoch {} was read before it",
        next_offset - 1,
        split.position.newest_epoch
    ))
    .with_hint(
        "The topic was made anew, or an older copy of it restored. Create the source again to \
         start from what is there.",
    )
}

fn truncated(place: &str, position: &SplitPosition, text: &str) -> Error {
    Error::corrupt(format!(
        "{place} is not as it was read: the record below offset {}, of leader epoch {}, is gone",
        position.next_offset, position.leader_epoch
    ))
    .with_detail(format!("The broker says: {text}."))
    .with_hint(
        "Its log was cut off, by an election of a leader that had not copied all of it or by \
         restoring an older copy, and other records may stand there now. Create the source again \
         to start from what is there.",
    )
}

impl SourceReader for KafkaReader {
    fn poll(&mut self, rows_max: usize) -> Result<Option<SourceBatch>> {
        if !self.may_read()? {
            return self.serve_events().map(|()| None);
        }
        self.watch_topic()?;
        self.reopen_if_stuck()?;
        self.reopen_if_unfair()?;
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
        self.serve_events()?;
        self.check_ends()?;
        Ok(None)
    }

    fn positions(&self) -> Vec<SplitPosition> {
        self.splits.iter().map(|s| s.position.clone()).collect()
    }

    fn set_limits(&mut self, limits: &[SplitPosition]) {
        for split in &mut self.splits {
            split.limit = limits
                .iter()
                .find(|l| l.split == split.position.split)
                .map_or(i64::MAX, |l| l.next_offset);
            split.end = split.end.map(|(end, _)| (end, Instant::now()));
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
        if splits.is_empty() {
            return Ok(());
        }
        let topic = &self.options.topic;
        check_ids(topic, &self.positions(), splits)?;
        if self.topic_id.is_none() {
            self.topic_id = known_id(splits, topic).map(str::to_string);
            self.check = self.topic_check()?;
        }
        let list = positions_with_epochs(topic, splits)
            .map_err(|e| self.failed("cannot be assigned", e))?;
        for position in splits {
            let queue = PartitionQueue::new(
                self.consumer().client(),
                topic,
                position.split as i32,
                self.waker.clone(),
            )
            .ok_or_else(|| {
                self.failed(
                    "cannot be assigned",
                    format!("partition {} has no queue", position.split),
                )
            })?;
            let mut position = position.clone();
            position.newest_epoch = position.newest_epoch.max(position.leader_epoch);
            self.share.count(queue.length());
            self.splits.push(Split {
                position,
                limit: i64::MAX,
                queue,
                end: None,
                trouble: None,
                doubted: None,
            });
        }
        self.share.set_partitions(self.splits.len());
        self.consumer()
            .incremental_assign(&list)
            .map_err(|e| invalid_settings(&e))?;
        // Of a topic whose leaders it has yet to learn, the client checks the epochs then; of one
        // that it knows, it is asked to.
        let known = splits.iter().filter(|p| p.leader_epoch >= 0);
        let known: Vec<SplitPosition> = known.cloned().collect();
        positions_with_epochs(topic, &known)
            .and_then(|list| seek(self.consumer().client(), &list))
            .map_err(|e| self.failed("positions cannot be set", e))
    }

    fn trouble(&self) -> Option<String> {
        let why = if self.splits.is_empty() {
            None
        } else {
            self.consumer().context().unreachable()
        };
        if let Some((_, why)) = why.filter(|(since, _)| *since > TROUBLE_PATIENCE) {
            let brokers = &self.options.brokers;
            return Some(format!(
                "kafka at {brokers} cannot be reached: {why}; trying again"
            ));
        }
        let unanswered = self.check.as_ref().and_then(TopicCheck::failure);
        if let Some((_, why)) = unanswered.filter(|(asked, _)| *asked > TROUBLE_PATIENCE) {
            let topic = &self.options.topic;
            return Some(format!(
                "kafka topic \"{topic}\" is not read before its id is known: {why}; trying again"
            ));
        }
        let (split, reason, _) = self.troubled()?;
        let (topic, partition) = (&self.options.topic, split.position.split);
        Some(format!(
            "kafka topic \"{topic}\" partition {partition} cannot be read: {reason}; trying again"
        ))
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.splits.clear();
        close_in_background(self.consumer.take());
    }
}

#[cfg(test)]
mod tests;
