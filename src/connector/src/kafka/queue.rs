//! Whole fetches instead of single messages: the queue of one partition, cut off from the
//! consumer's common one, handed out in batches of raw messages.
//!
//! A message is borrowed from librdkafka's fetch buffer until it is dropped; nothing is copied or
//! allocated per record. All `unsafe` of reading is here.

use crate::format::RawRecord;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemark_changelog::connector::{SplitPosition, Waker};

/// What a message is taken to have before one was read.
const MEAN_BYTES: u64 = 256;

/// What stands next in a partition's queue.
pub enum Next<'a> {
    /// A record.
    Record(RawRecord<'a>),
    /// The end of the partition is at this offset for now.
    End(i64),
    /// The client reports an error of this partition.
    Failed(sys::rd_kafka_resp_err_t, String),
}

/// How much is in a partition's queue, for whoever wants to know while another reads it.
pub struct QueueLength {
    /// Null when the queue is gone.
    queue: Mutex<*mut sys::rd_kafka_queue_t>,
    /// Bytes of key and value of the messages that were taken last, on average.
    mean_bytes: AtomicU64,
}

// SAFETY: as for the queue; the lock keeps it from going meanwhile.
unsafe impl Send for QueueLength {}
// SAFETY: as above.
unsafe impl Sync for QueueLength {}

impl QueueLength {
    /// Messages in the queue.
    pub fn messages(&self) -> u64 {
        let queue = self.queue.lock();
        if queue.is_null() {
            return 0;
        }
        // SAFETY: it is there as long as the lock is held.
        unsafe { sys::rd_kafka_queue_length(*queue) as u64 }
    }

    /// Bytes of key and value of one, about.
    pub fn mean_bytes(&self) -> u64 {
        self.mean_bytes.load(Ordering::Relaxed)
    }
}

/// The queue of one partition and the messages taken from it that are not done with.
pub struct PartitionQueue {
    queue: *mut sys::rd_kafka_queue_t,
    length: Arc<QueueLength>,
    partition: i32,
    _waker: Box<Waker>,
    taken: VecDeque<*mut sys::rd_kafka_message_t>,
    buffer: Vec<*mut sys::rd_kafka_message_t>,
    /// The last record that was passed, kept for what is asked of it; null before the first.
    last: *mut sys::rd_kafka_message_t,
}

// SAFETY: librdkafka's queues and messages may be used from any thread, by one at a time.
unsafe impl Send for PartitionQueue {}

unsafe extern "C" fn wake(_: *mut sys::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: the box lives until the event is switched off, which waits for a running call (both
    // hold the queue's lock).
    let waker = unsafe { &*waker.cast::<Waker>() };
    waker();
}

impl PartitionQueue {
    /// Cuts the partition's queue off. To be called before the partition is assigned; the client
    /// must outlive the result. `None` if the name has a zero byte.
    pub fn new<C: ClientContext>(
        client: &Client<C>,
        topic: &str,
        partition: i32,
        waker: Waker,
    ) -> Option<PartitionQueue> {
        let topic = CString::new(topic).ok()?;
        let waker = Box::new(waker);
        // SAFETY: the client is alive; `waker` does not move, being boxed, and outlives the event
        // (see `Drop`).
        let queue = unsafe {
            let queue =
                sys::rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition);
            if queue.is_null() {
                return None;
            }
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(
                queue,
                Some(wake),
                ptr::from_ref::<Waker>(&waker).cast_mut().cast(),
            );
            queue
        };
        let length = Arc::new(QueueLength {
            queue: Mutex::new(queue),
            mean_bytes: AtomicU64::new(MEAN_BYTES),
        });
        Some(PartitionQueue {
            queue,
            length,
            partition,
            _waker: waker,
            taken: VecDeque::new(),
            buffer: Vec::new(),
            last: ptr::null_mut(),
        })
    }

    /// Takes up to `count` messages without waiting if none are left of those taken earlier.
    /// Whether there are any.
    pub fn fill(&mut self, count: usize) -> bool {
        if self.taken.is_empty() {
            self.buffer.resize(count.max(1), ptr::null_mut());
            // SAFETY: the buffer has room for as many pointers as it says; each one that is
            // returned is ours to destroy.
            let taken = unsafe {
                sys::rd_kafka_consume_batch_queue(
                    self.queue,
                    0,
                    self.buffer.as_mut_ptr(),
                    self.buffer.len(),
                )
            };
            self.taken
                .extend(&self.buffer[..usize::try_from(taken).unwrap_or(0)]);
            self.weigh();
        }
        !self.taken.is_empty()
    }

    /// Notes how large the messages are that were taken.
    fn weigh(&self) {
        let bytes = self.taken.iter().map(|message| {
            // SAFETY: messages in `taken` are alive.
            unsafe { (**message).len + (**message).key_len }
        });
        let bytes = bytes.sum::<usize>().checked_div(self.taken.len());
        if let Some(bytes) = bytes {
            let mean_bytes = &self.length.mean_bytes;
            mean_bytes.store(bytes as u64, Ordering::Relaxed);
        }
    }

    /// How much is in it.
    pub fn length(&self) -> &Arc<QueueLength> {
        &self.length
    }

    /// What stands next among the messages taken.
    pub fn peek(&self) -> Option<Next<'_>> {
        let pointer = *self.taken.front()?;
        // SAFETY: messages in `taken` are alive until `pop`, which the borrow of the result
        // excludes.
        let message = unsafe { &*pointer };
        Some(match message.err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Next::Record(RawRecord {
                key: bytes(message.key, message.key_len),
                value: bytes(message.payload, message.len),
                partition: self.partition,
                offset: message.offset,
                timestamp_ms: timestamp(pointer),
            }),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Next::End(message.offset),
            // SAFETY: as above; the text belongs to the message and is copied.
            error => Next::Failed(error, unsafe {
                CStr::from_ptr(sys::rd_kafka_message_errstr(pointer))
                    .to_string_lossy()
                    .into_owned()
            }),
        })
    }

    /// Leader epoch of the record at this offset, if it is the last one that was passed; else, and
    /// where the broker tells none, -1.
    pub fn leader_epoch_of(&self, offset: i64) -> i32 {
        if self.last.is_null() {
            return -1;
        }
        // SAFETY: it is ours until another record takes its place.
        unsafe {
            if (*self.last).offset == offset {
                sys::rd_kafka_message_leader_epoch(self.last)
            } else {
                -1
            }
        }
    }

    /// Is done with the message that stands next.
    pub fn pop(&mut self) {
        let Some(mut message) = self.taken.pop_front() else {
            return;
        };
        // SAFETY: it is ours and alive.
        let is_record =
            unsafe { (*message).err } == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if is_record {
            std::mem::swap(&mut message, &mut self.last);
        }
        if !message.is_null() {
            // SAFETY: it was ours and nobody points to it any more.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

/// Whether the client has something to say in the queue that all but the records come through. That
/// `poll` gave nothing does not tell: what the client's context takes is nothing, too.
pub fn has_events<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client is alive; the queue is ours to give back.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client.native_ptr());
        if queue.is_null() {
            return false;
        }
        let events = sys::rd_kafka_queue_length(queue);
        sys::rd_kafka_queue_destroy(queue);
        events > 0
    }
}

/// Sets partitions that are assigned to these positions: the client fetches from them when the
/// broker has confirmed that its log reaches that far in that epoch. What is wrong with one comes
/// through its queue.
pub fn seek<C: ClientContext>(
    client: &Client<C>,
    positions: &TopicPartitionList,
) -> Result<(), String> {
    if positions.count() == 0 {
        return Ok(());
    }
    // SAFETY: the client is alive; the list is copied. Without a time to wait, the call returns at
    // once.
    unsafe {
        let error = sys::rd_kafka_seek_partitions(client.native_ptr(), positions.ptr(), 0);
        if error.is_null() {
            return Ok(());
        }
        let text = CStr::from_ptr(sys::rd_kafka_error_string(error))
            .to_string_lossy()
            .into_owned();
        sys::rd_kafka_error_destroy(error);
        Err(text)
    }
}

/// The positions as the client takes them, with their leader epochs.
pub fn positions_with_epochs(
    topic: &str,
    positions: &[SplitPosition],
) -> Result<TopicPartitionList, String> {
    let mut list = TopicPartitionList::new();
    for position in positions {
        let (partition, offset) = (position.split as i32, Offset::Offset(position.next_offset));
        list.add_partition_offset(topic, partition, offset)
            .map_err(|e| e.to_string())?;
    }
    // SAFETY: the list has as many elements as it says.
    let elements = unsafe {
        let list = &*list.ptr();
        std::slice::from_raw_parts_mut(list.elems, usize::try_from(list.cnt).unwrap_or(0))
    };
    for (element, position) in elements.iter_mut().zip(positions) {
        // SAFETY: the element is alive, and nobody else has it.
        unsafe { sys::rd_kafka_topic_partition_set_leader_epoch(element, position.leader_epoch) };
    }
    Ok(list)
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        while !self.taken.is_empty() {
            self.pop();
        }
        if !self.last.is_null() {
            // SAFETY: it was ours and nobody points to it any more.
            unsafe { sys::rd_kafka_message_destroy(self.last) };
        }
        *self.length.queue.lock() = ptr::null_mut();
        // SAFETY: the queue is ours; switching the event off waits for a call that runs, so the box
        // may go after it.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

fn bytes<'a>(start: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: librdkafka gives a null pointer for a null key or value, else `length` readable bytes
    // that live as long as the message; callers bind the result to it.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

fn timestamp(message: *mut sys::rd_kafka_message_t) -> Option<i64> {
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive.
    let millis = unsafe { sys::rd_kafka_message_timestamp(message, &mut kind) };
    (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0)
        .then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_told_with_their_leader_epochs() {
        let at = |split, next_offset, leader_epoch| SplitPosition {
            split,
            topic_id: String::new(),
            leader_epoch,
            newest_epoch: leader_epoch,
            next_offset,
            records: 0,
            time_ms: -1,
            event_time_micros: None,
        };
        let list = positions_with_epochs("t", &[at(3, 42, 7), at(0, 5, -1)]).unwrap();
        let told: Vec<(i32, Offset, i32)> = list
            .elements()
            .iter()
            .enumerate()
            .map(|(i, e)| {
                // SAFETY: the list has this element.
                let epoch = unsafe {
                    sys::rd_kafka_topic_partition_get_leader_epoch((*list.ptr()).elems.add(i))
                };
                (e.partition(), e.offset(), epoch)
            })
            .collect();
        assert_eq!(
            told,
            [(3, Offset::Offset(42), 7), (0, Offset::Offset(5), -1)]
        );
    }
}
