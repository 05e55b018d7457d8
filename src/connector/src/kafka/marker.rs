//! Progress markers: what a sink has delivered, written in the same transaction as the records, in the compacted topic [`TOPIC`] of the sink's own
//! cluster. Key `cluster/sink`, value a [`SinkMarker`] in JSON.
//!
//! The topic is shared, and the end of what is committed (the last stable offset) stands still while any sink's transaction is open, even if a later
//! marker of ours is committed. So reading goes on until everything that was in the topic when it began is decided, whoever wrote it.

use crate::kafka::client::{TIMEOUT, consumer_config, create_consumer, unavailable};
use crate::kafka::queue::{Next, PartitionQueue};
use crate::options::KafkaOptions;
use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_changelog::connector::SinkMarker;
use tidemark_common::{Error, Result};

/// The topic of all markers.
pub const TOPIC: &str = "__tidemark_sinks";
/// Markers at the end of the topic that are looked at first: ours is mostly there, and the last one is the newest.
const TAIL: i64 = 2000;
/// How long another sink's open transaction is waited for: longer than any may last.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes the topic unless it exists.
pub fn create_topic<C: ClientContext>(client: &Client<C>, options: &KafkaOptions) -> Result<()> {
    const NAME: &CStr = c"__tidemark_sinks";
    const SETTINGS: &[(&CStr, &CStr)] = &[(c"cleanup.policy", c"compact"), (c"segment.bytes", c"8388608"), (c"min.cleanable.dirty.ratio", c"0.1"), (c"retention.ms", c"-1")];
    let failed = |text: String| unavailable(format!("topic \"{TOPIC}\" at {}", options.brokers), text);
    // SAFETY: the client outlives the call; every object made here is destroyed below, and texts are copied before that.
    unsafe {
        let rk = client.native_ptr();
        let mut topic = sys::rd_kafka_NewTopic_new(NAME.as_ptr(), 1, -1, std::ptr::null_mut(), 0);
        if topic.is_null() {
            return Err(failed("cannot be described to the broker".into()));
        }
        for (key, value) in SETTINGS {
            sys::rd_kafka_NewTopic_set_config(topic, key.as_ptr(), value.as_ptr());
        }
        let queue = sys::rd_kafka_queue_new(rk);
        sys::rd_kafka_CreateTopics(rk, &mut topic, 1, std::ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, TIMEOUT.as_millis() as i32);
        let outcome = if event.is_null() { Err("the broker does not answer".to_string()) } else { creation_outcome(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_NewTopic_destroy(topic);
        outcome.map_err(failed)
    }
}

/// Whether the topic is there after `rd_kafka_CreateTopics`.
///
/// # Safety
/// `event` is a live answer to it.
unsafe fn creation_outcome(event: *mut sys::rd_kafka_event_t) -> Result<(), String> {
    use sys::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS};
    unsafe {
        let text = |t: *const std::ffi::c_char| if t.is_null() { "no reason given".to_string() } else { CStr::from_ptr(t).to_string_lossy().into_owned() };
        if sys::rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let result = sys::rd_kafka_event_CreateTopics_result(event);
        let mut count = 0;
        let topics = if result.is_null() { std::ptr::null_mut() } else { sys::rd_kafka_CreateTopics_result_topics(result, &mut count) };
        if count != 1 || topics.is_null() {
            return Err("the broker's answer is empty".into());
        }
        match sys::rd_kafka_topic_result_error(*topics) {
            RD_KAFKA_RESP_ERR_NO_ERROR | RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS => Ok(()),
            _ => Err(text(sys::rd_kafka_topic_result_error_string(*topics))),
        }
    }
}

/// The newest committed marker under `key`. To be called after the sink's own predecessors are fenced.
pub fn read(options: &KafkaOptions, key: &str) -> Result<Option<SinkMarker>> {
    let options = KafkaOptions { topic: TOPIC.into(), ..options.clone() };
    let (low, high) = written(&options)?;
    let tail = (high - TAIL).max(low);
    match scan(&options, key, tail, high)? {
        None if tail > low => scan(&options, key, low, tail),
        found => Ok(found),
    }
}

/// Offsets of the first record and after the last one, committed or not.
fn written(options: &KafkaOptions) -> Result<(i64, i64)> {
    let mut config = consumer_config(options);
    config.set("isolation.level", "read_uncommitted");
    let consumer = create_consumer(&config)?;
    let began = Instant::now();
    loop {
        // a topic that was just made may not have its leader yet
        match consumer.fetch_watermarks(TOPIC, 0, TIMEOUT) {
            Ok(offsets) => return Ok(offsets),
            Err(e) if began.elapsed() > TIMEOUT => return Err(unavailable(format!("topic \"{TOPIC}\" at {}", options.brokers), e)),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The last committed marker under `key` among the offsets `from..to`; waits until all of them are decided.
fn scan(options: &KafkaOptions, key: &str, from: i64, to: i64) -> Result<Option<SinkMarker>> {
    if from >= to {
        return Ok(None);
    }
    let failed = |text: String| unavailable(format!("topic \"{TOPIC}\" at {}", options.brokers), text);
    let consumer = create_consumer(&consumer_config(options))?;
    let mut queue = PartitionQueue::new(consumer.client(), TOPIC, 0, Arc::new(|| {})).ok_or_else(|| failed("it cannot be read".into()))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, Offset::Offset(from)).map_err(|e| failed(e.to_string()))?;
    consumer.incremental_assign(&list).map_err(|e| failed(e.to_string()))?;
    let (mut found, mut next, began) = (None, from, Instant::now());
    while next < to {
        if !queue.fill(1000) {
            if began.elapsed() > PATIENCE {
                return Err(
                    failed(format!("it cannot be read beyond offset {next}")).with_hint("A transaction of another sink is open there. Its writer ends it when it starts again.")
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
                    found = Some(
                        serde_json::from_slice(value).map_err(|e| Error::corrupt(format!("the marker at offset {} of topic \"{TOPIC}\" cannot be read: {e}", record.offset)))?,
                    );
                }
            }
            Some(Next::End(offset)) => next = next.max(offset),
            Some(Next::Failed(_, text)) => tracing::warn!(target: "kafka", "topic \"{TOPIC}\": {text}"),
        }
        queue.pop();
    }
    Ok(found)
}
