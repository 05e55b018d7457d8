//! The decisions: the log, the state that its entries build up, and the coordinator that cuts time
//! into epochs, commits checkpoints and creates jobs. Nothing in here touches a row of a dataflow;
//! workers are reached through [`protocol`].

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod codec;
pub mod coordinator;
pub mod decisions;
pub mod entry;
pub mod inputs;
pub mod log;
pub mod placement;
pub mod protocol;
pub mod raft;
pub mod readers;
pub mod stored;
pub mod wal;
pub mod wire;
pub mod workers;

pub use decisions::Decisions;
pub use entry::{CatalogChange, Cut, Entry, TableWrites, Written};
pub use inputs::{Events, Stamped};
pub use log::DecisionLog;
pub use placement::Placement;
pub use readers::{Pin, Readable, Readers};
pub use stored::{RowFiles, RowsWriter, StoredRows};
pub use wal::payload::Encoder;
pub use wal::{OpenedLog, WriteAheadLog};
