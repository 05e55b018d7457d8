//! Progress markers: what a sink has delivered, written in the same transaction as the records, in
//! the compacted topic [`TOPIC`] of the sink's own cluster. Key `cluster/sink`, value a
//! [`SinkMarker`] in JSON.
//!
//! The topic is shared, and the end of what is committed (the last stable offset) stands still
//! while any sink's transaction is open, even if a later marker of ours is committed; a writer that
//! died for good leaves its own open until the broker ends it, after a minute. So what is there is
//! read twice: first all that was written, to see where the newest marker of ours stands, then,
//! up to there only, what is committed. A sink waits for others only if it has written behind
//! them, and not even then if that was its first marker, which needs no transaction.

use crate::kafka::admin;
use crate::kafka::client::{
    TIMEOUT, close_in_background, consumer_config, create_consumer, unavailable,
};
use crate::kafka::queue::{Next, PartitionQueue};
use crate::options::KafkaOptions;
use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_changelog::connector::SinkMarker;
use tidemark_common::{Error, Result};

/// The topic of all markers.
pub const TOPIC: &str = "__tidemark_sinks";
/// Markers at the end of the topic that are looked at first: ours is mostly there, and the last one
/// is the newest.
const TAIL: i64 = 2000;
/// How long another sink's open transaction is waited for: longer than any may last.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is waited for before that is told.
const SILENCE: Duration = Duration::from_secs(2);

/// Makes the topic unless it exists.
pub fn create_topic<C: ClientContext>(client: &Client<C>) -> Result<()> {
    let settings = &[
        (c"cleanup.policy", c"compact"),
        (c"segment.bytes", c"8388608"),
        (c"min.cleanable.dirty.ratio", c"0.1"),
        (c"retention.ms", c"-1"),
    ];
    admin::create_topic(client, TOPIC, settings)
}

/// The newest committed marker under `key`, asked by `client`. To be called after the sink's own
/// predecessors are fenced.
pub fn read<C: ClientContext>(
    client: &Client<C>,
    options: &KafkaOptions,
    key: &str,
) -> Result<Option<SinkMarker>> {
    let options = KafkaOptions {
        topic: TOPIC.into(),
        ..options.clone()
    };
    let (low, high) = (
        written(client, &options, Offset::Beginning)?,
        written(client, &options, Offset::End)?,
    );
    let tail = (high - TAIL).max(low);
    for (from, to) in [(tail, high), (low, tail)] {
        let Some((newest, marker)) = scan(&options, "read_uncommitted", key, from, to)? else {
            continue;
        };
        if marker == SinkMarker::default() {
            return Ok(Some(marker));
        }
        if let Some((_, marker)) = scan(&options, "read_committed", key, from, newest + 1)? {
            return Ok(Some(marker));
        }
    }
    Ok(None)
}

/// Offset of the first record or after the last one, committed or not.
fn written<C: ClientContext>(
    client: &Client<C>,
    options: &KafkaOptions,
    wanted: Offset,
) -> Result<i64> {
    let began = Instant::now();
    loop {
        // a topic that was just made may not have its leader yet
        match admin::written_offset(client, TOPIC, wanted) {
            Ok(offset) => return Ok(offset),
            Err(e) if began.elapsed() > TIMEOUT => {
                return Err(unavailable(
                    format!("topic \"{TOPIC}\" at {}", options.brokers),
                    e,
                ));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The last marker under `key` among the offsets `from..to`, and its offset. Where `isolation` asks
/// for what is committed, it waits until all of them are decided.
fn scan(
    options: &KafkaOptions,
    isolation: &str,
    key: &str,
    from: i64,
    to: i64,
) -> Result<Option<(i64, SinkMarker)>> {
    if from >= to {
        return Ok(None);
    }
    let failed =
        |text: String| unavailable(format!("topic \"{TOPIC}\" at {}", options.brokers), text);
    // The end of what is committed is told when a fetch has waited in vain.
    let mut config = consumer_config(options);
    config.set("fetch.wait.max.ms", "5");
    config.set("isolation.level", isolation);
    let consumer = create_consumer(&config)?;
    let mut queue = PartitionQueue::new(consumer.client(), TOPIC, 0, Arc::new(|| {}))
        .ok_or_else(|| failed("it cannot be read".into()))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, Offset::Offset(from))
        .map_err(|e| failed(e.to_string()))?;
    consumer
        .incremental_assign(&list)
        .map_err(|e| failed(e.to_string()))?;
    let (mut found, mut next, began) = (None, from, Instant::now());
    let mut is_told = false;
    while next < to {
        if !queue.fill(1000) {
            if !is_told && began.elapsed() > SILENCE {
                is_told = true;
                tracing::warn!(
                    target: "kafka",
                    "topic \"{TOPIC}\": still waiting for offset {next}; a transaction of another \
                     sink may be open there"
                );
            }
            if began.elapsed() > PATIENCE {
                return Err(
                    failed(format!("it cannot be read beyond offset {next}")).with_hint(
                        "A transaction of another sink is open there. Its writer ends it when it \
                         starts again.",
                    ),
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match queue.peek() {
            None => {}
            Some(Next::Record(record)) => {
                next = record.offset + 1;
                if record.offset < to && record.key == Some(key.as_bytes()) {
                    let value = record.value.unwrap_or_default();
                    let marker = serde_json::from_slice(value).map_err(|e| {
                        Error::corrupt(format!(
                            "the marker at offset {} of topic \"{TOPIC}\" cannot be read: {e}",
                            record.offset
                        ))
                    })?;
                    found = Some((record.offset, marker));
                }
            }
            Some(Next::End(offset)) => next = next.max(offset),
            Some(Next::Failed(_, text)) => {
                tracing::warn!(target: "kafka", "topic \"{TOPIC}\": {text}")
            }
        }
        queue.pop();
    }
    // the queue goes before its client
    drop(queue);
    close_in_background(consumer);
    Ok(found)
}
