//! Temporal filters: rows whose moment is after a bound that follows the clock, or before it.
//!
//! **Algebra.** `{ r : moment(r) > bound(clock) }`, with the clock of the epoch that ends. The
//! bound never goes back, so each row changes sides once: one that is kept while it is after the
//! bound leaves when that has come, and is forgotten; one that is kept while it is before waits
//! until then, and passes after it. A row that comes when its time is over, or goes then, is the
//! same as one that was never there, or the same as any other.
//!
//! **State.** The rows that are after the bound. (One without a moment is not part of the input.)
//!
//! **Cost.** Per touched partition and barrier one search among those that wait.

use super::waiting::{Sent, Waiting};
use crate::closing::moments;
use crate::expr::CompiledExpr;
use crate::{Barrier, Operator, Out};
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::HashSet;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, Kept};
use tidemark_state::StateTable;

/// `Op::TemporalFilter`.
pub struct TemporalFilter {
    waiting: Waiting,
    kept: Kept,
    bound: Bound,
}

/// A function of the clock.
struct Bound {
    expr: CompiledExpr,
    clock: SchemaRef,
    /// What is equal to the bound counts as before it.
    equal_is_before: bool,
    /// The last; it never goes back.
    last: Option<i64>,
}

impl TemporalFilter {
    /// Without rows. `keys`: the columns by whose hash rows are here; `moment` is one of them.
    /// `bound` is an expression over the clock, which has the type `clock`, as column 0. The state
    /// table is number `table`.
    ///
    /// Errors: those of compiling the bound.
    pub fn new(
        input: &SchemaRef,
        keys: &[usize],
        moment: usize,
        (kept, inclusive): (Kept, bool),
        (clock, bound): (&DataType, &Expr),
        table: u32,
    ) -> Result<TemporalFilter> {
        let clock = Arc::new(Schema::new(vec![Field::new("now", clock.clone(), false)]));
        let expr = CompiledExpr::new(bound, &clock, input.field(moment).data_type())?;
        Ok(TemporalFilter {
            waiting: Waiting::new(input, keys, moment, table),
            kept,
            bound: Bound {
                expr,
                clock,
                // What is equal is kept by `>=` and by `<=`.
                equal_is_before: inclusive == (kept == Kept::Before),
                last: None,
            },
        })
    }
}

impl Bound {
    /// All moments that are less than this are before the bound.
    fn at(&mut self, clock_micros: i64) -> Result<Option<i64>> {
        let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
        let clock = TimestampMicrosecondArray::from(vec![clock_micros]).with_timezone("UTC");
        let batch = RecordBatch::try_new(self.clock.clone(), vec![Arc::new(clock) as ArrayRef]);
        let evaluated = self.expr.evaluate(&batch.map_err(internal)?)?;
        let bound = moments(&evaluated.array).next().flatten();
        let bound = bound.map(|bound| bound.saturating_add(i64::from(self.equal_is_before)));
        self.last = self.last.max(bound);
        Ok(self.last)
    }
}

impl Operator for TemporalFilter {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.waiting.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.waiting.take_pending()?;
        let bound = self.bound.at(barrier.clock)?.unwrap_or(i64::MIN);
        let (mut left, mut sent) = (Vec::new(), Sent::default());
        let due = self.waiting.take_before(bound)?;
        let is_over: HashSet<u32> = due.iter().copied().collect();
        for changes in pending.chunk_by(|a, b| a.partition == b.partition) {
            let over = is_over.contains(&changes[0].partition);
            // What comes when its time is over never was there.
            if self.kept == Kept::After && over {
                continue;
            }
            if self.kept == Kept::After {
                changes.iter().for_each(|c| sent.push(c.row, c.weight));
            }
            self.waiting.partitions.apply(changes, &mut left);
            if sent.is_large() {
                self.waiting.send(&mut sent, out)?;
            }
        }
        self.waiting.send(&mut sent, out)?;
        self.waiting.partitions.free(&mut left);
        for partition in due {
            let partitions = &mut self.waiting.partitions;
            for row in partitions.list(partition).iter() {
                let weight = partitions.weight(row);
                let becomes = if self.kept == Kept::After {
                    -weight
                } else {
                    weight
                };
                sent.push(row, becomes);
            }
            partitions.empty(partition, &mut left);
            if sent.is_large() {
                self.waiting.send(&mut sent, out)?;
                self.waiting.partitions.free(&mut left);
            }
        }
        self.waiting.send(&mut sent, out)?;
        self.waiting.partitions.free(&mut left);
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.waiting.partitions]
    }
}
