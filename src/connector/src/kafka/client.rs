//! Kafka clients: settings, logging, and the questions asked of a cluster (partitions, offsets).
//! Everything here blocks, at most for [`TIMEOUT`].

use crate::options::KafkaOptions;
use parking_lot::Mutex;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Statistics};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidemark_common::{Error, Result, SplitId, SqlState};

/// How long a question to the cluster may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Consumers need a group to be assigned partitions, though none ever joins it; offsets are
/// committed under it for lag tools only.
const GROUP: &str = "tidemark";

/// Passes librdkafka's log on, and remembers its last error for messages.
#[derive(Default)]
pub struct Context {
    /// Since when no broker can be reached, and what was said last.
    last_error: Mutex<Option<(Option<Instant>, String)>>,
    /// By topic, the id that the client goes by, if it says so.
    topic_ids: Mutex<HashMap<String, String>>,
}

impl Context {
    /// The last error that the client reported.
    pub fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .as_ref()
            .map(|(_, text)| text.clone())
    }

    /// Since when no broker can be reached, and why, while that is so. A client may say so of a
    /// connection that it is just making anew.
    pub fn unreachable(&self) -> Option<(Duration, String)> {
        self.last_error
            .lock()
            .as_ref()
            .and_then(|(since, text)| Some((since.as_ref()?.elapsed(), text.clone())))
    }

    /// A broker has answered.
    pub fn reached(&self) {
        if let Some((since, _)) = self.last_error.lock().as_mut() {
            *since = None;
        }
    }

    /// The id that the client asks for this topic's records by, of a client that logs what concerns
    /// topics (`debug=topic`).
    pub fn topic_id(&self, topic: &str) -> Option<String> {
        self.topic_ids.lock().get(topic).cloned()
    }

    fn all_brokers_are_down(&self) -> bool {
        self.last_error
            .lock()
            .as_ref()
            .is_some_and(|(since, _)| since.is_some())
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "kafka", "{facility}: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "kafka", "{facility}: {message}");
            }
        }
        if let Some((topic, id)) = adopted_id(message) {
            let mut ids = self.topic_ids.lock();
            ids.insert(topic.to_string(), id.to_string());
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let all = matches!(error, KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        let mut last = self.last_error.lock();
        let since = last.as_ref().and_then(|(since, _)| *since);
        let again = all && since.is_some();
        let since = since.or_else(|| all.then(Instant::now));
        // "all brokers down" says less than the error that led to it; they are until one answers,
        // whatever is said of each in between
        *last = Some(match last.take() {
            Some((_, earlier)) if all => (since, earlier),
            _ => (since, reason.to_string()),
        });
        // It is also repeated at every attempt to connect, many times a second.
        if again {
            tracing::debug!(target: "kafka", "{error}: {reason}");
        } else {
            tracing::warn!(target: "kafka", "{error}: {reason}");
        }
    }
}

impl ConsumerContext for Context {}

/// The topic, and the id that the client goes by from now on, if a line of its log says so. A
/// broker without ids tells one of zeros, which is none.
fn adopted_id(line: &str) -> Option<(&str, &str)> {
    let (topic, ids) = line.split_once(" changed id from ")?;
    let (_, topic) = topic.rsplit_once(' ')?;
    let (_, id) = ids.split_once(" to ")?;
    let is_none = id.bytes().all(|b| matches!(b, b'A' | b'='));
    (!is_none).then_some((topic, id))
}

/// What is common to every client; the user's own settings go last, ours that must hold are refused
/// among them.
pub fn base_config(options: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "tidemark")
        .set("statistics.interval.ms", "0")
        .set("log.connection.close", "false");
    config
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true");
    // librdkafka 2.12 would go back to its bootstrap servers while no broker answers, again and
    // again without a pause: two cores, for as long as the outage lasts.
    config.set("metadata.recovery.strategy", "none");
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Settings of a consumer: assigned by hand, committed transactions only, never a reset, told of
/// the end of a partition.
pub fn consumer_config(options: &KafkaOptions) -> ClientConfig {
    let mut config = base_config(options);
    config
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error");
    config
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    for (key, value) in &options.properties {
        config.set(key, value);
    }
    config
}

/// A consumer with these settings.
pub fn create_consumer(config: &ClientConfig) -> Result<BaseConsumer<Context>> {
    config
        .create_with_context(Context::default())
        .map_err(|e| invalid_settings(&e))
}

/// The client could not be made of its settings.
pub fn invalid_settings(error: &KafkaError) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER,
        format!("kafka client settings: {error}"),
    )
}

/// A failure that another try may mend: `08006`.
pub fn unavailable(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Error {
    Error::unavailable(SqlState::CONNECTION_FAILURE, format!("{what}: {error}"))
}

/// Serves what the client wants to say (logs and errors).
fn serve(consumer: &BaseConsumer<Context>) {
    for _ in 0..64 {
        if consumer.poll(Duration::ZERO).is_none() {
            return;
        }
    }
}

/// The number of partitions of the topic. `08006` if no broker answers, `42704` if there is no such
/// topic.
pub fn partitions(
    consumer: &BaseConsumer<Context>,
    options: &KafkaOptions,
) -> Result<Vec<SplitId>> {
    let began = Instant::now();
    loop {
        match consumer.fetch_metadata(Some(&options.topic), Duration::from_millis(1000)) {
            Ok(metadata) => {
                consumer.context().reached();
                let topic = metadata.topics().iter().find(|t| t.name() == options.topic);
                match topic.and_then(|t| t.error()).map(RDKafkaErrorCode::from) {
                    None => {
                        let mut ids: Vec<SplitId> = topic
                            .map(|t| t.partitions().iter().map(|p| p.id() as SplitId).collect())
                            .unwrap_or_default();
                        ids.sort_unstable();
                        if !ids.is_empty() {
                            return Ok(ids);
                        }
                    }
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                    ) => return Err(no_topic(options)),
                    Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
                    Some(error) => {
                        return Err(unavailable(
                            format!("kafka topic \"{}\" at {}", options.topic, options.brokers),
                            error,
                        ));
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => {
                serve(consumer);
                let refused = consumer.context().all_brokers_are_down()
                    && began.elapsed() > Duration::from_secs(2);
                if refused || began.elapsed() >= TIMEOUT {
                    let text = consumer
                        .context()
                        .last_error()
                        .unwrap_or_else(|| error.to_string());
                    return Err(unavailable(
                        format!("cannot reach kafka at {}", options.brokers),
                        text,
                    )
                    .with_hint(
                        "Check that the broker runs and that properties.bootstrap.server names \
                         it.",
                    ));
                }
            }
        }
        if began.elapsed() >= TIMEOUT {
            return Err(unavailable(
                format!("kafka topic \"{}\" at {}", options.topic, options.brokers),
                "its partitions have no leader",
            ));
        }
    }
}

fn no_topic(options: &KafkaOptions) -> Error {
    Error::user(
        SqlState::UNDEFINED_OBJECT,
        format!(
            "kafka topic \"{}\" does not exist at {}",
            options.topic, options.brokers
        ),
    )
    .with_hint("Create the topic first, or correct the option \"topic\".")
}

/// Offsets of partitions: of the oldest record (`Beginning`), after the newest committed record
/// (`End`: the last stable offset), or of the first record not older than a time in milliseconds
/// (`Offset`), where `None` means that there is none.
pub fn offsets(
    consumer: &BaseConsumer<Context>,
    options: &KafkaOptions,
    partitions: &[SplitId],
    wanted: Offset,
) -> Result<Vec<Option<i64>>> {
    let what = || {
        format!(
            "offsets of kafka topic \"{}\" at {}",
            options.topic, options.brokers
        )
    };
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(&options.topic, *partition as i32, wanted)
            .map_err(|e| unavailable(what(), e))?;
    }
    let answer = consumer
        .offsets_for_times(list, TIMEOUT)
        .map_err(|e| unavailable(what(), e))?;
    partitions
        .iter()
        .map(|partition| {
            let element = answer
                .find_partition(&options.topic, *partition as i32)
                .ok_or_else(|| {
                    unavailable(what(), format!("no answer for partition {partition}"))
                })?;
            element
                .error()
                .map_err(|e| unavailable(what(), format!("partition {partition}: {e}")))?;
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            })
        })
        .collect()
}

/// Like [`offsets`] where every partition has an answer.
pub fn known_offsets(
    consumer: &BaseConsumer<Context>,
    options: &KafkaOptions,
    partitions: &[SplitId],
    wanted: Offset,
) -> Result<Vec<i64>> {
    let missing = || {
        unavailable(
            format!(
                "offsets of kafka topic \"{}\" at {}",
                options.topic, options.brokers
            ),
            "a partition has no answer",
        )
    };
    offsets(consumer, options, partitions, wanted)?
        .into_iter()
        .map(|o| o.ok_or_else(missing))
        .collect()
}

/// Closes a client without waiting for it: that may take as long as a broker takes to answer.
pub fn close_in_background<T: Send + 'static>(client: T) {
    if let Err(e) = std::thread::Builder::new()
        .name("kafka-close".into())
        .spawn(move || drop(client))
    {
        tracing::warn!(target: "kafka", "a client was closed in the foreground: {e}");
    }
}

/// Checks that the broker answers and has the topic of a source.
pub fn check_source_topic(options: &KafkaOptions) -> Result<()> {
    let consumer = create_consumer(&consumer_config(options))?;
    partitions(&consumer, options).map(drop)
}

/// Checks that the broker answers and has the topic of a sink, or makes it by itself when it is
/// asked.
pub fn check_sink_topic(options: &KafkaOptions) -> Result<()> {
    let mut config = base_config(options);
    config
        .set("group.id", GROUP)
        .set("allow.auto.create.topics", "true");
    let consumer = create_consumer(&config)?;
    let began = Instant::now();
    loop {
        match partitions(&consumer, options) {
            // a broker that makes topics by itself first says that there is none
            Err(e)
                if e.state() == SqlState::UNDEFINED_OBJECT
                    && began.elapsed() < Duration::from_secs(1) =>
            {
                std::thread::sleep(Duration::from_millis(100))
            }
            other => return other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_new_id_is_told_by_the_clients_log() {
        let context = Context::default();
        let log = |line: &str| context.log(RDKafkaLogLevel::Debug, "METADATA", line);
        log("[thrd:main]: Topic a.b changed id from AAAAAAAAAAAAAAAAAAAAAA to x-1");
        log("[thrd:main]: Topic other changed id from AAAAAAAAAAAAAAAAAAAAAA to y-1");
        log("[thrd:main]: Topic a.b [0] Leader 1 Epoch 0");
        assert_eq!(context.topic_id("a.b").as_deref(), Some("x-1"));
        log("[thrd:main]: Topic a.b changed id from x-1 to x-2");
        log("[thrd:main]: Topic a.b changed id from x-2 to AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(context.topic_id("a.b").as_deref(), Some("x-2"));
        assert_eq!(context.topic_id("b"), None);
    }
}
