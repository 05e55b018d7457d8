//! The first half of a two-phase aggregation: rows of a group are combined where they are, so that
//! a skewed or global aggregate sends one row per group and epoch through the exchange instead of
//! all of them.
//!
//! Algebra: `a(A) = merge(a(A1), a(A2), ...)` for any partition of A, with count merged by sum, sum
//! by sum, and extremes by themselves. The second half is an `Aggregate` over the partial columns.
//! It sees one insertion per partial row and never a retraction of one, so:
//! * extremes ask for append-only input;
//! * groups that may lose all their rows, and sums that may become NULL again, must not be split
//!   (the planner's business);
//! * the sum over no partial count is NULL where a count is 0: the plan has `coalesce(sum, 0)`
//!   above.
//!
//! State: none across barriers.

use super::groups::Groups;
use crate::{Barrier, Operator, Out};
use arrow::datatypes::SchemaRef;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::AggregateCall;

/// Groups held at most before they are sent ahead of the barrier.
const GROUPS_MAX: usize = 65_536;

/// `Op::PartialAggregate`.
pub struct PartialAggregate {
    input: SchemaRef,
    output: SchemaRef,
    group: Vec<usize>,
    calls: Vec<AggregateCall>,
    append_only: bool,
    groups: Groups,
}

impl PartialAggregate {
    /// Like [`super::Aggregate::new`]; `output` has the group columns, then one partial column per
    /// call.
    pub fn new(
        input: &SchemaRef,
        output: &SchemaRef,
        group: &[usize],
        calls: &[AggregateCall],
        append_only: bool,
    ) -> Result<PartialAggregate> {
        let groups = Groups::partial(input, output, group, calls, append_only)?;
        Ok(PartialAggregate {
            input: input.clone(),
            output: output.clone(),
            group: group.to_vec(),
            calls: calls.to_vec(),
            append_only,
            groups,
        })
    }

    fn flush(&mut self, out: &mut dyn Out) -> Result<()> {
        if self.groups.index.is_empty() {
            return Ok(());
        }
        let empty = Groups::partial(
            &self.input,
            &self.output,
            &self.group,
            &self.calls,
            self.append_only,
        )?;
        std::mem::replace(&mut self.groups, empty).emit(out)
    }
}

impl Operator for PartialAggregate {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        self.groups.update(&batch)?;
        if self.groups.index.len() >= GROUPS_MAX {
            self.flush(out)
        } else {
            Ok(())
        }
    }

    fn on_barrier(&mut self, _barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        self.flush(out)
    }
}
