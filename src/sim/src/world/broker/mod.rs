//! A broker like Kafka, and the two ends of a simulated node that talk to it.
//!
//! * `log` is a partition, `cluster` all that the broker knows and does by itself (transactions,
//!   fencing), `direct` ([`SimBroker`]) what the simulation asks of it from outside;
//! * `client` is how a process asks: requests take time, fail, get lost and come late as `trouble`
//!   says;
//! * `fetch`, `reader` and `source` are the source connector, `producer`, `marker` and `sink` the
//!   sink, `line` the form of their records, `connectors` what a node is given.

mod client;
mod cluster;
mod connectors;
mod direct;
mod fetch;
pub mod line;
mod log;
mod marker;
mod producer;
mod reader;
mod sink;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trouble;

pub use cluster::{Refusal, Session};
pub use connectors::SimConnectors;
pub use direct::{Delivery, SimBroker};
pub use log::{Record, Writer};
pub use marker::TOPIC as MARKER_TOPIC;
pub use trouble::{BrokerTrouble, Range};
