//! The motion: the engine, its workers and their actors, the exchange between them, sinks, written
//! tables.
//!
//! Threads of a node: one per worker ([`worker`]: all operators of its vnodes, synchronous), one
//! coordinator (crate `control`), one per sink; uploads and connections run on tokio.

mod answers;
mod beginning;
mod blame;
mod catch;
pub mod engine;
mod errors;
mod exchange;
mod locks;
mod metrics;
mod ownership;
mod pool;
mod scan;
mod shared;
mod sinks;
mod store;
mod worker;
mod writes;

pub use engine::{CatalogChange, CheckpointInfo, Engine, JobStatus, Pin};
pub use locks::{TableLock, Writer};
pub use tidemark_state::checkpoint::{StoreHealth, StoreTrouble};
pub use tidemark_state::errors::ErrorRow;
pub use writes::{WriteGuard, check_write_bytes};
