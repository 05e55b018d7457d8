//! Aggregation: one row per group of equal group columns, kept up to date.
//!
//! **Algebra.** Counts, sums, averages, variances and conjunctions (of truth values and of bits)
//! are linear maps of the input, `a(A + dA) = a(A) + a(dA)`, kept as exact numbers; DISTINCT goes
//! through the support of a multiset, `s(A) = [A > 0]`; extremes, and first rows in an order, are
//! kept as such where rows never leave, and extremes as ordered multisets where they may. The
//! output is a function of those states, so its change is -old +new for each group whose row
//! differs, and nothing else. Sums of floats, of their squares and of their products are exact and
//! rounded once: order plays no part.
//!
//! **State.** `groups` holds dense ids of the groups and typed vectors under them; `tables` tells
//! what is stored where. Without group columns and with `global` there is one row even for no
//! input: it is sent at the first barrier.
//!
//! **Time.** Rows are folded in as they come; changes are sent at the barrier, one pair per touched
//! group. Groups below the watermark of a group column are forgotten (`closing`).
//!
//! **Cost.** Per row one lookup of its group and one pass per call over typed columns, no dispatch
//! per row; per call with DISTINCT one lookup more (shared by the calls on a column). Per barrier
//! two gathers for each touched group.

mod accumulator;
mod bits;
mod closing;
mod distinct;
mod firsts;
mod float_sum;
mod groups;
mod intervals;
mod lane;
mod minmax;
mod numeric_sum;
mod over_frames;
mod partial;
mod statistics;
mod tables;
#[cfg(test)]
mod tests;

pub use float_sum::ExactSum;
pub(crate) use groups::pairs;
pub(crate) use intervals::{arrow_interval, interval};
pub(crate) use over_frames::over_frames;
pub use partial::PartialAggregate;

use crate::closing::Closing;
use crate::{Barrier, Operator, Out};
use arrow::datatypes::SchemaRef;
use groups::Groups;
use std::sync::{Arc, Mutex};
use tables::{Table, lock};
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::AggregateCall;
use tidemark_state::StateTable;

/// `Op::Aggregate`.
pub struct Aggregate {
    groups: Arc<Mutex<Groups>>,
    tables: Vec<Table>,
    closing: Option<GroupClosing>,
}

/// A watermark of a group column, and that one's place among those.
struct GroupClosing {
    closing: Closing,
    place: usize,
}

impl Aggregate {
    /// Groups rows of `input` by the columns `group`; `output` has those, then one column per call.
    /// `global`: the row without group columns exists even for no input (only on the worker that
    /// owns vnode 0). `append_only`: the input never retracts. State tables are numbered from
    /// `table`.
    ///
    /// Errors: `0A000` for an aggregate of a type that is not maintained.
    pub fn new(
        input: &SchemaRef,
        output: &SchemaRef,
        group: &[usize],
        calls: &[AggregateCall],
        global: bool,
        append_only: bool,
        table: u32,
    ) -> Result<Aggregate> {
        let groups = Arc::new(Mutex::new(Groups::new(
            input,
            output,
            group,
            calls,
            global,
            append_only,
        )?));
        let tables = tables::tables(&groups, table);
        Ok(Aggregate {
            groups,
            tables,
            closing: None,
        })
    }

    /// Groups below this watermark of a group column never change again.
    pub fn closing(mut self, closing: Option<Closing>, group: &[usize]) -> Aggregate {
        let place = |closing: &Closing| group.iter().position(|g| *g == closing.column());
        self.closing = closing.and_then(|closing| {
            let place = place(&closing)?;
            Some(GroupClosing { closing, place })
        });
        self
    }
}

impl Operator for Aggregate {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        lock(&self.groups).update(&batch)
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let mut groups = lock(&self.groups);
        groups.emit(out)?;
        if let Some(GroupClosing { closing, place }) = &mut self.closing
            && let Some(watermark) = closing.due(barrier, groups.entries())?
        {
            groups.close(*place, watermark);
            closing.forgot(groups.entries());
        }
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.tables
            .iter_mut()
            .map(|t| t as &mut dyn StateTable)
            .collect()
    }
}
