//! Stacks of threads.
//!
//! What a person writes nests, and what walks it recurses: parsing, planning, evaluating, dropping.
//! The planner limits how deep a statement may be; every thread that such a tree can meet has a
//! stack for that depth. It is address space, not memory: a page of it costs something once a deep
//! statement has touched it.

/// Size of a stack on which trees of any allowed depth can be walked, in bytes. An optimised build
/// needs less than a quarter of it for the deepest statement, a debug build most of it.
pub const STACK_BYTES: usize = 512 << 20;
