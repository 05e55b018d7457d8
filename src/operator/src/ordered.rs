//! Rows in order: the first of each partition ([`TopN`]), window functions ([`Window`]), session
//! windows ([`Session`]), aggregates
//! of rows in an order ([`Collect`]), and the nearest of other rows ([`AsofJoin`]).
//!
//! **Algebra.** None of them is linear: the output is a function of each partition's rows in their
//! order. What is kept is the partition itself, and what has come of an epoch is kept apart from it
//! until the barrier: so there, the partition as it was and as it is now are walked side by side,
//! and the rows in which they differ are the change. Nothing of the output is kept.
//!
//! **Order.** By the sort keys, then by all other columns: so which of equal rows comes first does
//! not depend on when they came, and is the same after a restart.
//!
//! **State.** One table per input: the rows with their weights, by the vnode of their partition.
//!
//! **Time.** Changes are sent at the barrier. Partitions below the watermark of a column of theirs
//! are forgotten. [`EmitOnClose`] keeps rows until that has passed them, [`TemporalFilter`] until
//! the clock has.

mod asof;
mod calls;
mod collect;
mod difference;
mod emit_on_close;
#[cfg(test)]
mod history;
mod partitions;
mod session;
mod temporal_filter;
mod top_n;
mod waiting;
mod window;

pub use asof::{AsofConfig, AsofJoin};
pub use collect::Collect;
pub use emit_on_close::EmitOnClose;
pub use session::Session;
pub use temporal_filter::TemporalFilter;
pub use top_n::{PartialTopN, TopN, TopNConfig};
pub use window::Window;
