//! One worker's share of a relation that people read.

/// Under construction.
pub struct ViewPartition;
