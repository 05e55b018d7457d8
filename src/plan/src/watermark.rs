//! Watermarks of columns, as they follow from what sources promise.
//!
//! A barrier carries the promise of each source: no row that is read later has a lower event time.
//! What is computed of event times by functions that keep their order has a watermark, too: the
//! same function of the promise. So a watermark of a column is an expression, known when the query
//! is planned; nothing else travels with the rows.

use crate::Expr;
use arrow_schema::DataType;
use serde::{Deserialize, Serialize};
use tidemark_common::RelationId;

/// `WATERMARK FOR column AS column - delay`: what a source promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The column, by position in the relation.
    pub column: usize,
    /// The delay in microseconds.
    pub delay_micros: i64,
    /// A split that brings nothing for so long, in microseconds, holds nobody back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_micros: Option<u64>,
}

/// The watermark of a column: after a barrier, no change comes any more of a row whose value in it
/// is below the least of `terms`. (A row whose value is NULL has no such promise.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnWatermark {
    /// The column.
    pub column: usize,
    /// What it follows from; at least one.
    pub terms: Vec<Term>,
}

/// An expression over a source's promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// The source.
    pub source: RelationId,
    /// The type of its event time, a timestamp.
    pub event_time: DataType,
    /// Of its column 0, which is the promise.
    pub value: Expr,
}
