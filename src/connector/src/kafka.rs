//! Kafka at both ends: `source` and `reader` turn partitions into splits, `sink` writes epochs as
//! transactions. `client` holds what both share: settings, error texts, metadata; `admin` the rarer
//! requests, `budget` how much all readers fetch ahead, `check` whether a topic is still the same.
//! `queue` is the only place that handles raw messages.

mod admin;
mod budget;
mod check;
mod client;
mod marker;
mod producer;
mod queue;
mod reader;
mod records;
mod refusal;
mod sink;
mod source;

pub use budget::{fetched_bytes, set_fetch_budget};
pub use client::check_source_topic;
pub use marker::TOPIC as MARKER_TOPIC;
pub use sink::{
    KafkaSink, check as check_sink, check_connection as check_sink_connection,
    prepare as prepare_sink,
};
pub use source::KafkaSource;
