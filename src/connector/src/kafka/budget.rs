//! What Kafka clients fetch ahead of being read, of all sources together.
//!
//! librdkafka fetches into a queue for each partition until that holds so many bytes or so many
//! messages, which is settled when a client is made. All readers of the process share one budget,
//! each partition alike. When others come a reader's part gets smaller: one whose client is allowed
//! more than twice its part lets a new client take over. When others go it grows, and is made use
//! of in the same way, later.

use super::queue::QueueLength;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Bytes that a message in a queue takes beside its key and value, about.
const MESSAGE_BYTES: u64 = 320;
/// More is of no use to a partition.
const PARTITION_BYTES_MAX: u64 = 80 << 20;
/// Nor to a reader.
const READER_BYTES_MAX: u64 = 320 << 20;
/// Less is of no use to a partition, whatever is allowed.
const PARTITION_BYTES_MIN: u64 = 128 << 10;
/// What one fetch brings of a partition at most, if its messages are not larger.
const FETCH_BYTES_MAX: u64 = 1 << 20;

/// The budget of this process. Like the memory that it is a part of, there is one.
static BUDGET: Mutex<Budget> = Mutex::new(Budget::of(1 << 30));

/// See the module.
struct Budget {
    bytes: u64,
    partitions: u64,
    queues: Vec<Weak<QueueLength>>,
}

impl Budget {
    const fn of(bytes: u64) -> Budget {
        Budget {
            bytes,
            partitions: 0,
            queues: Vec::new(),
        }
    }

    /// What each partition may take, of a reader that has so many.
    fn part(&self, partitions: u64) -> u64 {
        let fair = self.bytes / self.partitions.max(1);
        let useful = PARTITION_BYTES_MAX.min(READER_BYTES_MAX / partitions.max(1));
        fair.min(useful).max(PARTITION_BYTES_MIN)
    }

    fn used(&mut self) -> u64 {
        self.queues.retain(|queue| queue.strong_count() > 0);
        let queues = self.queues.iter().filter_map(Weak::upgrade);
        queues
            .map(|queue| queue.messages() * (MESSAGE_BYTES + queue.mean_bytes()))
            .sum()
    }
}

/// Sets how much all readers may fetch ahead together.
pub fn set_fetch_budget(bytes: u64) {
    BUDGET.lock().bytes = bytes;
}

/// How much is fetched and not read yet, about.
pub fn fetched_bytes() -> u64 {
    BUDGET.lock().used()
}

/// A reader's part of the budget, until it is dropped.
#[derive(Default)]
pub struct Share {
    partitions: u64,
}

impl Share {
    /// It reads so many partitions from now on.
    pub fn set_partitions(&mut self, partitions: usize) {
        let mut budget = BUDGET.lock();
        budget.partitions -= self.partitions;
        self.partitions = partitions as u64;
        budget.partitions += self.partitions;
    }

    /// What each of its partitions may take.
    pub fn part(&self) -> Part {
        Part(BUDGET.lock().part(self.partitions))
    }

    /// Counts what is in a queue.
    pub fn count(&self, queue: &Arc<QueueLength>) {
        BUDGET.lock().queues.push(Arc::downgrade(queue));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set_partitions(0);
    }
}

/// Bytes that a partition may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part(u64);

impl Part {
    /// Whether a client that was made for `self` takes far more than `now`.
    pub fn is_too_large(self, now: Part) -> bool {
        self.0 > 2 * now.0
    }

    /// Whether it could take far more.
    pub fn is_too_small(self, now: Part) -> bool {
        4 * self.0 < now.0
    }

    /// The settings of a client that keeps to it. A queue is filled up to a limit, and a fetch
    /// beyond.
    pub fn settings(self) -> [(&'static str, u64); 3] {
        // Of small messages most is what the client itself needs for each.
        let content = self.0 / 5;
        let fetch = FETCH_BYTES_MAX.min(content / 2);
        [
            ("queued.min.messages", (self.0 - content) / MESSAGE_BYTES),
            (
                "queued.max.messages.kbytes",
                (content - fetch).div_ceil(1024),
            ),
            ("max.partition.fetch.bytes", fetch),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn partitions_share_alike_and_take_no_more_than_is_of_use() {
        let mut budget = Budget::of(100 * MB);
        let mut part = |all: u64, own: u64| {
            budget.partitions = all;
            budget.part(own)
        };
        assert_eq!(part(1, 1), 80 * MB);
        assert_eq!(part(4, 2), 25 * MB);
        assert_eq!(part(10, 10), 10 * MB);
        assert_eq!(part(1_000_000, 8), PARTITION_BYTES_MIN);
        budget.bytes = 1 << 40;
        budget.partitions = 1000;
        assert_eq!(budget.part(1000), READER_BYTES_MAX / 1000);
    }

    #[test]
    fn a_client_keeps_to_its_part() {
        for bytes in [PARTITION_BYTES_MIN, MB, 10 * MB, PARTITION_BYTES_MAX] {
            let settings = Part(bytes).settings();
            let [(_, messages), (_, kbytes), (_, fetch)] = settings;
            assert!(messages > 0 && kbytes > 0 && fetch >= 1024, "{settings:?}");
            let all = messages * MESSAGE_BYTES + kbytes * 1024 + fetch;
            assert!(all <= bytes + 1024 && all >= bytes / 10 * 9, "{settings:?}");
        }
        let [messages, kbytes, _] = Part(PARTITION_BYTES_MAX).settings();
        assert!(messages.1 >= 200_000 && kbytes.1 >= 15 << 10);
        assert!(Part(5).is_too_large(Part(2)) && !Part(4).is_too_large(Part(2)));
        assert!(Part(1).is_too_small(Part(5)) && !Part(1).is_too_small(Part(4)));
    }
}
