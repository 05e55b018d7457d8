//! What flows: change batches, the vnode hash, the ordered key encoding, and the connector traits
//! at the two ends of a dataflow.

pub mod batch;
pub mod connector;
pub mod hash;
pub mod key;
pub mod maps;
mod pieces;

pub use batch::{ChangeBatch, Weights};
pub use hash::{hash_columns, vnode_of_hash};
pub use pieces::{pieces, skip};
