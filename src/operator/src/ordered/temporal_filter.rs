//! Temporal filters: rows whose moment is after a bound that follows the clock, or before it.
//!
//! **Algebra.** `{ r : moment(r) > bound(clock) }`, with the clock of the epoch that ends. The
//! bound never goes back ([`Bound::at`]), so each row changes sides once: one that is kept while
//! it is after the bound leaves when that has come, and is forgotten; one that is kept while it is
//! before waits until then, and passes after it. A row that comes when its time is over, or goes
//! then, is the same as one that was never there, or the same as any other.
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
            },
        })
    }
}

/// Where a function of the clock may go back: at full hours of some zone, all of which begin where
/// half an hour does.
const STEP_MICROS: i64 = 30 * 60 * 1_000_000;

/// How far it may have been further, and is back: a month less than the 31st is the 28th, as is one
/// less than the 28th, and clocks are set back by an hour.
const BACK_STEPS: i64 = 4 * 48;

impl Bound {
    /// All moments that are less than this are before the bound, which is the furthest that the
    /// function has come to up to this time: so it follows from the clock alone, and never goes
    /// back.
    fn at(&self, clock_micros: i64) -> Result<i64> {
        let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
        let step = clock_micros.div_euclid(STEP_MICROS);
        let before = (0..BACK_STEPS).map(|back| (step - back) * STEP_MICROS - 1);
        let times: Vec<i64> = before.chain([clock_micros]).collect();
        let clock = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let batch = RecordBatch::try_new(self.clock.clone(), vec![Arc::new(clock) as ArrayRef]);
        let evaluated = self.expr.evaluate(&batch.map_err(internal)?)?;
        let furthest = moments(&evaluated.array).flatten().max();
        let furthest = furthest.unwrap_or(i64::MIN);
        Ok(furthest.saturating_add(i64::from(self.equal_is_before)))
    }
}

impl Operator for TemporalFilter {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.waiting.partitions.add(&batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let pending = self.waiting.take_pending()?;
        let bound = self.bound.at(barrier.clock)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Recorder, barrier, changes, schema};
    use tidemark_plan::{BinaryOp, Literal};

    const DAY: i64 = 86_400_000_000;

    fn filter(kept: Kept, months: i32) -> TemporalFilter {
        let clock =
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        let bound = Expr::Binary {
            op: BinaryOp::Minus,
            left: Box::new(Expr::Column(0)),
            right: Box::new(Expr::Literal(Literal::IntervalMonthDayNano(months, 0, 0))),
        };
        let input = schema("at tstz, k i64");
        TemporalFilter::new(&input, &[0], 0, (kept, false), (&clock, &bound), 3).unwrap()
    }

    #[test]
    fn a_month_ago_never_goes_back() {
        let bound = filter(Kept::After, 1).bound;
        // From 2026-01-25 on, in steps of seven hours over the ends of some months.
        let start = 20_478 * DAY;
        let bounds: Vec<i64> = (0..400)
            .map(|n| bound.at(start + n * DAY * 7 / 24).unwrap())
            .collect();
        assert!(bounds.windows(2).all(|w| w[0] <= w[1]));
        // The 28th of March and the days behind it have the same month before them.
        let at = |days: i64| bound.at((20_478 + days) * DAY + DAY / 2).unwrap();
        assert!(at(62) <= at(63) && at(63) == at(64) && at(64) == at(65) && at(65) < at(68));
    }

    #[test]
    fn rows_come_and_go_with_the_clock() {
        let at = |epoch: u64, micros: i64| Barrier {
            clock: micros,
            ..barrier(epoch)
        };
        let rows = |lines: &str| changes("at tstz, k i64", lines);
        let (mut out, day) = (Recorder::default(), |n: i64| 20_454 * DAY + n * DAY);
        for (kept, expected) in [
            (
                Kept::After,
                [
                    vec!["+1 2 2", "+1 9 9"],
                    vec!["-1 2 2"],
                    vec![],
                    vec!["-1 9 9"],
                ],
            ),
            (
                Kept::Before,
                [vec!["+1 1 1"], vec!["+1 2 2"], vec!["-1 1 1"], vec![]],
            ),
        ] {
            let mut filter = filter(kept, 0);
            let first =
                "1 2026-01-01T00:00:00Z 1\n1 2026-01-03T00:00:00Z 2\n1 2026-02-01T00:00:00Z 9";
            filter.on_changes(0, rows(first), &mut out).unwrap();
            let mut seen = Vec::new();
            filter.on_barrier(&at(1, day(1)), &mut out).unwrap();
            seen.push(named(out.take()));
            filter.on_barrier(&at(2, day(4)), &mut out).unwrap();
            seen.push(named(out.take()));
            // One that has been forgotten, or sent, is taken back.
            filter
                .on_changes(0, rows("-1 2026-01-01T00:00:00Z 1"), &mut out)
                .unwrap();
            filter.on_barrier(&at(3, day(5)), &mut out).unwrap();
            seen.push(named(out.take()));
            filter
                .on_changes(0, rows("-1 2026-02-01T00:00:00Z 9"), &mut out)
                .unwrap();
            filter.on_barrier(&at(4, day(6)), &mut out).unwrap();
            seen.push(named(out.take()));
            assert_eq!(seen, expected, "{kept:?}");
        }
    }

    /// Each change by its weight and its number.
    fn named(lines: Vec<String>) -> Vec<String> {
        let mut named: Vec<String> = lines
            .iter()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let last = words[words.len() - 1];
                format!("{} {last} {last}", words[0])
            })
            .collect();
        named.sort();
        named
    }
}
