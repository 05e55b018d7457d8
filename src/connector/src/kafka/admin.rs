//! Questions and orders to the cluster that go through librdkafka's admin interface, on the client
//! that a source or sink has anyway. All wait, at most for [`TIMEOUT`]. `unsafe` here rests on one
//! rule: an answer lives as long as its [`Event`], and whatever leaves a function is copied.

use crate::kafka::client::{TIMEOUT, unavailable};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::bindings as sys;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use tidemark_common::{Error, Result, SqlState};

/// An answer.
struct Event(*mut sys::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

/// Sends a request by `send` and waits for its answer. The error is why there is none.
///
/// A broker must have answered something simple before: librdkafka 2.12 waits for one by asking
/// itself again without a pause, which costs a core.
fn ask<C: ClientContext>(
    client: &Client<C>,
    send: impl FnOnce(*mut sys::rd_kafka_t, *mut sys::rd_kafka_queue_t),
) -> Result<Event, String> {
    if !answers(client) {
        return Err("the broker does not answer".into());
    }
    // SAFETY: the client outlives the call; the queue is ours, and librdkafka drops a late answer
    // to a queue that is gone.
    let event = unsafe {
        let rk = client.native_ptr();
        let queue = sys::rd_kafka_queue_new(rk);
        send(rk, queue);
        let event = sys::rd_kafka_queue_poll(queue, TIMEOUT.as_millis() as i32);
        sys::rd_kafka_queue_destroy(queue);
        event
    };
    if event.is_null() {
        return Err("the broker does not answer".into());
    }
    let event = Event(event);
    // SAFETY: the event is alive; the text belongs to it and is copied.
    unsafe {
        match sys::rd_kafka_event_error(event.0) {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(event),
            _ => Err(text(sys::rd_kafka_event_error_string(event.0))),
        }
    }
}

/// Whether a broker answers.
fn answers<C: ClientContext>(client: &Client<C>) -> bool {
    let mut metadata: *const sys::rd_kafka_metadata = ptr::null();
    // SAFETY: the client outlives the call, which asks for no topic in particular; what it made is
    // ours.
    unsafe {
        let error = sys::rd_kafka_metadata(
            client.native_ptr(),
            0,
            ptr::null_mut(),
            &mut metadata,
            TIMEOUT.as_millis() as i32,
        );
        if !metadata.is_null() {
            sys::rd_kafka_metadata_destroy(metadata);
        }
        error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }
}

/// # Safety
/// `start` is null or a zero-ended text.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        "no reason given".to_string()
    } else {
        unsafe { CStr::from_ptr(start) }
            .to_string_lossy()
            .into_owned()
    }
}

fn c_name(topic: &str) -> Result<CString> {
    CString::new(topic).map_err(|_| {
        Error::user(
            SqlState::INVALID_PARAMETER,
            "a topic's name has no zero byte",
        )
    })
}

/// The topic's `cleanup.policy`: `delete`, `compact` or both. The error is why there is no answer.
pub fn cleanup_policy(config: &rdkafka::ClientConfig, topic: &str) -> Result<String, String> {
    let admin: AdminClient<DefaultClientContext> = config
        .create()
        .map_err(|e: rdkafka::error::KafkaError| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| e.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let answers = runtime
        .block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options))
        .map_err(|e| e.to_string())?;
    let answer = answers
        .into_iter()
        .next()
        .ok_or_else(|| "no answer about its configuration".to_string())?
        .map_err(|e| e.to_string())?;
    Ok(answer
        .get("cleanup.policy")
        .and_then(|entry| entry.value.clone())
        .unwrap_or_default())
}

/// The topic's id as text, which tells a topic from another one that was made later under its name;
/// `None` where there is no such topic or the broker has no ids. The error is why there is no
/// answer.
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> Result<Option<String>, String> {
    let name = c_name(topic).map_err(|e| e.to_string())?;
    let mut names = [name.as_ptr()];
    let event = ask(client, |rk, queue| {
        // SAFETY: the names live until the call is over, which copies them.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            sys::rd_kafka_DescribeTopics(rk, topics, ptr::null(), queue);
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
    })?;
    // SAFETY: the answer lives as long as the event.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let topics = if result.is_null() {
            ptr::null_mut()
        } else {
            sys::rd_kafka_DescribeTopics_result_topics(result, &mut count)
        };
        if topics.is_null() || count != 1 {
            return Err("the broker's answer is empty".into());
        }
        let error = sys::rd_kafka_TopicDescription_error(*topics);
        match if error.is_null() {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        } else {
            sys::rd_kafka_error_code(error)
        } {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(None),
            _ => return Err(text(sys::rd_kafka_error_string(error))),
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                && sys::rd_kafka_Uuid_least_significant_bits(id) == 0)
        {
            return Ok(None);
        }
        Ok(Some(text(sys::rd_kafka_Uuid_base64str(id))))
    }
}

/// Makes a topic of one partition with the broker's own replication, unless it exists.
pub fn create_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    settings: &[(&CStr, &CStr)],
) -> Result<()> {
    use sys::rd_kafka_resp_err_t::{
        RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS,
    };
    let name = c_name(topic)?;
    let failed = |reason: String| unavailable(format!("topic \"{topic}\" cannot be made"), reason);
    // SAFETY: name and settings are copied; the description is destroyed after the request that
    // copies it.
    let description =
        unsafe { sys::rd_kafka_NewTopic_new(name.as_ptr(), 1, -1, ptr::null_mut(), 0) };
    if description.is_null() {
        return Err(failed("its name is not valid".into()));
    }
    let event = ask(client, |rk, queue| unsafe {
        for (key, value) in settings {
            sys::rd_kafka_NewTopic_set_config(description, key.as_ptr(), value.as_ptr());
        }
        let mut one = [description];
        sys::rd_kafka_CreateTopics(rk, one.as_mut_ptr(), 1, ptr::null(), queue);
        sys::rd_kafka_NewTopic_destroy(description);
    });
    let event = event.map_err(failed)?;
    // SAFETY: the answer lives as long as the event.
    unsafe {
        let result = sys::rd_kafka_event_CreateTopics_result(event.0);
        let mut count = 0;
        let topics = if result.is_null() {
            ptr::null_mut()
        } else {
            sys::rd_kafka_CreateTopics_result_topics(result, &mut count)
        };
        if topics.is_null() || count != 1 {
            return Err(failed("the broker's answer is empty".into()));
        }
        match sys::rd_kafka_topic_result_error(*topics) {
            RD_KAFKA_RESP_ERR_NO_ERROR | RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS => Ok(()),
            _ => Err(failed(text(sys::rd_kafka_topic_result_error_string(
                *topics,
            )))),
        }
    }
}

/// The first (`Beginning`) or the end offset (`End`) of partition 0, whether records are committed
/// or not.
pub fn written_offset<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    wanted: Offset,
) -> Result<i64, String> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, wanted)
        .map_err(|e| e.to_string())?;
    // SAFETY: the list lives until the call is over, which copies it. Without options records are
    // counted that are not committed, too.
    let event = ask(client, |rk, queue| unsafe {
        sys::rd_kafka_ListOffsets(rk, list.ptr(), ptr::null(), queue)
    })?;
    // SAFETY: the answer lives as long as the event.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event.0);
        let mut count = 0;
        let infos = if result.is_null() {
            ptr::null_mut()
        } else {
            sys::rd_kafka_ListOffsets_result_infos(result, &mut count)
        };
        if infos.is_null() || count != 1 {
            return Err("the broker's answer is empty".into());
        }
        let partition = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos);
        match partition.err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(partition.offset),
            error => Err(text(sys::rd_kafka_err2str(error))),
        }
    }
}
