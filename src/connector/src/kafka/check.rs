//! Whether a topic is still the one that positions count in.
//!
//! Another topic may have been made under its name, and the same offsets would mean other records.
//! Topics are told apart by their ids (KIP-516). A broker of Kafka 3.1 or later is asked for
//! records by the id, so that the client must adopt the new one before it gets any of the new
//! topic's; it says so in its log ([`Context::topic_id`](crate::kafka::client::Context::topic_id)),
//! ahead of those records. Older brokers are asked for records by the name: there only a question
//! tells ([`TopicCheck`]), now and then and whenever something looks odd.

use crate::kafka::admin::topic_id;
use crate::kafka::client::Context;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{SplitPosition, Waker};
use tidemark_common::{Error, Result};

/// When a broker that does not know the topic is asked again.
const GONE_PATIENCE: Duration = Duration::from_secs(3);
/// How long after a failed question the next is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// Asks, beside the worker's thread, for the topic's id. Goes on asking until the broker answers or
/// the reader is gone.
pub struct TopicCheck {
    asked: Instant,
    answer: Arc<Answer>,
}

#[derive(Default)]
struct Answer {
    outcome: OnceLock<Result<()>>,
    /// Why there was none last.
    failure: Mutex<Option<String>>,
}

impl TopicCheck {
    /// Begins to ask; `known` is the id that the positions count in.
    pub fn begin(
        consumer: Arc<BaseConsumer<Context>>,
        topic: &str,
        known: &str,
        waker: Waker,
    ) -> Result<TopicCheck> {
        let (answer, asked) = (Arc::new(Answer::default()), Instant::now());
        let (told, topic, known) = (answer.clone(), topic.to_string(), known.to_string());
        std::thread::Builder::new()
            .name("kafka-check".into())
            .spawn(move || {
                let mut missed = false;
                while Arc::strong_count(&told) > 1 {
                    match topic_id(consumer.client(), &topic) {
                        // A broker that has just started may not know it yet.
                        Ok(None) if !missed => {
                            missed = true;
                            std::thread::sleep(GONE_PATIENCE);
                        }
                        Ok(now) => {
                            told.outcome
                                .get_or_init(|| same_topic(&topic, &known, now.as_deref()));
                            waker();
                            return;
                        }
                        Err(error) => {
                            *told.failure.lock() = Some(error);
                            std::thread::sleep(ASK_INTERVAL);
                        }
                    }
                }
            })?;
        Ok(TopicCheck { asked, answer })
    }

    /// The answer, once it is there: an error of kind `Corrupt` if it is not the same topic.
    pub fn outcome(&self) -> Option<Result<()>> {
        self.answer.outcome.get().cloned()
    }

    /// For how long it has been asked in vain, and why.
    pub fn failure(&self) -> Option<(Duration, String)> {
        let why = self.answer.failure.lock().clone()?;
        Some((self.asked.elapsed(), why))
    }
}

/// The topic's id in positions; `None` where its broker tells none, and they have the name instead.
pub fn known_id<'a>(positions: &'a [SplitPosition], topic: &str) -> Option<&'a str> {
    positions
        .iter()
        .map(|p| p.topic_id.as_str())
        .find(|id| !id.is_empty() && *id != topic)
}

/// An error of kind `Corrupt` unless the topic's id is `now` what it was.
pub fn same_topic(topic: &str, known: &str, now: Option<&str>) -> Result<()> {
    match now {
        Some(now) if now == known => Ok(()),
        Some(now) => Err(Error::corrupt(format!(
            "kafka topic \"{topic}\" is not the one that was read before: its id was {known} and \
             is {now}"
        ))
        .with_hint("It was deleted and made anew. Create the source again to read the new one.")),
        None => Err(no_topic_any_more(topic)
            .with_hint("It was deleted. Create the source again when there is such a topic.")),
    }
}

/// An error of kind `Corrupt` if both tell the topic's id, and not the same one.
pub fn check_ids(topic: &str, known: &[SplitPosition], now: &[SplitPosition]) -> Result<()> {
    match (known_id(known, topic), known_id(now, topic)) {
        (Some(known), Some(now)) => same_topic(topic, known, Some(now)),
        _ => Ok(()),
    }
}

/// The error of a topic that is gone.
pub fn no_topic_any_more(topic: &str) -> Error {
    Error::corrupt(format!("kafka topic \"{topic}\" does not exist any more"))
}
