//! Ad-hoc queries and writes at one epoch, the functions that they call, and the catalog tables.
//!
//! ```text
//! asker: who asks -> snapshot: what a statement sees -> serving: plan and run, over DataFusion
//!                                                   -> dml: rows that leave, rows that come
//!                                                   -> kept: lookups and writes without a plan
//! ```
//! [`statement`] takes a tree to its [`outcome`], [`catalog_tables`] is what clients see of the
//! catalog, [`commons`] what the sessions of a node have in common, [`settings`] what a client may
//! set, [`types`] PostgreSQL's types. How statements come and rows go is nothing of this crate's.

// Not a part of what is simulated.
#![allow(clippy::disallowed_methods)]

pub mod advisory;
pub mod asker;
pub mod catalog_tables;
pub mod clients;
pub mod commons;
pub mod copy;
pub mod definition;
pub mod dml;
pub mod effects;
pub mod error;
pub mod explain;
pub mod identifiers;
pub mod identity;
pub mod kept;
pub mod notifications;
pub mod outcome;
pub mod parameters;
pub mod privileges;
pub mod serving;
pub mod settings;
pub mod snapshot;
pub mod sql;
pub mod statement;
pub mod types;
pub mod values;
