//! A node: what drives its workers and keeps its part of the database. It opens the data folder and
//! the checkpoint store, runs the coordinator (crate `control`) and the workers (crate `worker`),
//! delivers what sinks emit, resolves what is written to tables and answers what people ask.
//!
//! Threads of a node: one per worker (all operators of its vnodes, synchronous), one coordinator,
//! one per sink; uploads and connections run on tokio.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod beginning;
mod checkpoints;
pub mod cluster;
mod crew;
pub mod engine;
mod following;
mod full;
mod locks;
mod memory;
mod metrics;
pub mod network;
mod ownership;
mod pool;
mod scan;
mod sinks;
mod store;
mod threads;
mod watermark;
mod writes;

pub use checkpoints::CheckpointInfo;
pub use engine::{CatalogChange, Engine, JobStatus, Pin, Services};
pub use following::{Following, Happened};
pub use locks::{TableLock, Writer};
pub use memory::{MemoryUse, Others};
pub use tidemark_state::backup;
pub use tidemark_state::checkpoint::{CheckpointStore, StoreHealth, StoreTrouble};
pub use tidemark_state::errors::ErrorRow;
pub use watermark::JobWatermark;
pub use writes::{NewKeys, WriteGuard, check_write_bytes, unique_keys};
