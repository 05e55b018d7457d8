//! What every other crate leans on: identifiers, epochs, vnodes, errors with SQLSTATE,
//! configuration, the machine that a node runs on (clock, threads, disk), the
//! network between nodes, pauses between tries, fail-points and the metrics registry.
//! Nothing in here knows about rows or plans.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod backoff;
pub mod config;
pub mod disk;
pub mod error;
pub mod failpoint;
pub mod ids;
mod interrupt;
pub mod machine;
pub mod mailbox;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod random;
mod stack;

pub use backoff::Backoff;
pub use error::{Error, ErrorKind, Result, SqlState};
pub use ids::{
    Epoch, RelationId, SplitId, TableId, VNODES, Watermarks, WorkerId, vnode_owner, vnodes_of,
};
pub use interrupt::{check_interrupt, interruptible};
pub use mailbox::Signal;
pub use stack::STACK_BYTES;
