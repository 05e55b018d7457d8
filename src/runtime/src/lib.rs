//! The motion: the engine, workers, actors, barrier alignment, exchange.

pub mod engine;

pub use engine::{CatalogChange, CheckpointInfo, Engine, ErrorRow, JobStatus, Pin, WriteGuard};
