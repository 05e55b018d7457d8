//! Recursive queries: `WITH RECURSIVE w AS (first UNION [ALL] step)`, where the step reads w once.
//!
//! **Algebra.** W(0) is the first input, W(i + 1) is the step of W(i), the answer is the sum of all
//! W(i). With `UNION` a row is in the first W(i) alone that has it, and once. The step treats each
//! row by itself, whatever else is in W(i): so the number of the iteration travels through one
//! instance of its operators as one more column, and what they keep serves all iterations. A change
//! of W(i) or of what the step reads beside it is a change of W(i + 1), and of no iteration before:
//! so at the barrier the iterations are gone through once, in ascending order, each with the sum of
//! its changes.
//!
//! Since W(i) depends on smaller iterations only, what is taken back is taken back through cycles
//! of the data too: a row that only had itself to thank for being there has a number that is larger
//! than its own, and goes with it.
//!
//! **UNION.** Of each row is kept how often each iteration has it ([`Seen`]). It belongs to the
//! smallest that has it at all; when that changes, it leaves one iteration and enters another, and
//! so do the rows that follow from it, but the answer has it all the time.
//!
//! **Bound.** What does not end is cut: rows that would be beyond iteration `iterations_max` are
//! errors of the relation, which go as they came. More than [`ROWS_MAX`] changes of one iteration,
//! or more than [`COPIES_MAX`] copies of a row, stop the job: that is growth without end.
//!
//! **State.** The counts of `UNION`, and what the operators of the step keep; all of it belongs to
//! vnode 0, since an iteration has to be complete before the next one begins: one worker does it.
//!
//! **Watermarks.** None: a row may be made of rows of any time.
//!
//! **Cost.** A change costs what follows from it. `UNION` may move rows between iterations though
//! the answer stays the same: a shortcut through a graph moves all that is behind it.

mod pending;
mod seen;
mod step;
#[cfg(test)]
mod tests;

pub use step::Step;

use crate::expr::row_text;
use crate::{Barrier, Operator, Out, RowError};
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use pending::Pending;
use seen::Seen;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result, SqlState};
use tidemark_state::{StateTable, consolidate, consolidate_fully};

/// Rows of one batch, at most.
const CHUNK_ROWS: usize = 4096;

/// Changes of one iteration behind the first, at most, before equal ones are added up.
const ROWS_MAX: usize = if cfg!(test) { 1 << 17 } else { 1 << 24 };

/// Copies of a row, at most: of a graph with a cycle, copies may double with each iteration.
const COPIES_MAX: i64 = 1 << 31;

/// What is to be computed; see `tidemark_plan::Op::Recursive`.
pub struct RecursiveConfig {
    /// The query's name, for messages.
    pub name: String,
    /// `UNION` without ALL.
    pub distinct: bool,
    /// No row of the output ever goes.
    pub append_only: bool,
    /// The number of the last iteration.
    pub iterations_max: u32,
    /// The columns of an iteration, which are those of the output.
    pub output: SchemaRef,
    /// What makes the next iteration.
    pub step: Step,
    /// Number of the state table, used with `distinct` only.
    pub table: u32,
}

/// The operator. Port 0 is the first iteration, the others are what the step reads beside them.
pub struct Recursive {
    name: String,
    iterations_max: u32,
    append_only: bool,
    output: SchemaRef,
    /// An iteration with its number in front.
    numbered: SchemaRef,
    step: Step,
    pending: Pending,
    seen: Option<Seen>,
}

impl Recursive {
    /// A query over nothing. The state tables may be restored before the first batch.
    pub fn new(config: RecursiveConfig) -> Recursive {
        let seen = |c: &RecursiveConfig| Seen::new(&c.output, c.iterations_max, c.table);
        Recursive {
            seen: config.distinct.then(|| seen(&config)),
            numbered: step::numbered(&config.output),
            pending: Pending::new(&config.output, &config.name),
            name: config.name,
            iterations_max: config.iterations_max,
            append_only: config.append_only,
            output: config.output,
            step: config.step,
        }
    }

    /// The next iteration that something has changed of.
    fn next(&self) -> Option<u32> {
        let due = self.seen.as_ref().and_then(Seen::next);
        self.pending.next().into_iter().chain(due).min()
    }

    /// All changes of an iteration, after those of all before it.
    fn turn(&mut self, iteration: u32, out: &mut dyn Out) -> Result<()> {
        let batches = self.pending.take(iteration);
        let Some(seen) = &mut self.seen else {
            for changes in self.sum(iteration, batches) {
                self.check_copies(&changes)?;
                for start in (0..changes.num_rows()).step_by(CHUNK_ROWS) {
                    let length = CHUNK_ROWS.min(changes.num_rows() - start);
                    self.go_on(iteration, &changes.slice(start, length), out)?;
                }
            }
            return Ok(());
        };
        let moves = seen.turn(iteration, &batches, &mut || out.look_up());
        drop(batches);
        for moves in moves.chunks(CHUNK_ROWS) {
            let changes = self.seen.as_ref().map(|seen| seen.changes(moves));
            changes.map_or(Ok(()), |changes| self.go_on(iteration, &changes, out))?;
        }
        Ok(())
    }

    /// The changes of an iteration with equal rows added up; insertions alone are what they are
    /// where that is the sum already, or cannot multiply.
    fn sum(&self, iteration: u32, batches: Vec<ChangeBatch>) -> Vec<ChangeBatch> {
        let rows: usize = batches.iter().map(ChangeBatch::num_rows).sum();
        let come = batches.iter().all(|b| b.weights().is_none());
        match self.append_only || iteration == 0 && come {
            true if rows > CHUNK_ROWS => batches,
            true => vec![consolidate(&self.output, &batches)],
            false => vec![consolidate_fully(&self.output, &batches)],
        }
    }

    /// Some changes of an iteration: they are output, and the step makes the next one of them.
    fn go_on(&mut self, iteration: u32, changes: &ChangeBatch, out: &mut dyn Out) -> Result<()> {
        if iteration > self.iterations_max {
            return self.report(changes, out);
        }
        if self.seen.is_none() {
            out.send(changes.clone())?;
        }
        let working = self.numbered(iteration, changes)?;
        self.step.changes(0, working, &mut self.pending, out)?;
        out.look_up();
        Ok(())
    }

    /// Changes with the number of their iteration in front.
    fn numbered(&self, iteration: u32, changes: &ChangeBatch) -> Result<ChangeBatch> {
        let number = Int64Array::from(vec![i64::from(iteration); changes.num_rows()]);
        let columns = changes.rows().columns().iter().cloned();
        let columns = std::iter::once(Arc::new(number) as ArrayRef).chain(columns);
        let rows = crate::project::batch_of(&self.numbered, columns.collect(), changes.num_rows())?;
        Ok(ChangeBatch::with_weights(rows, changes.weights().cloned()))
    }

    fn check_copies(&self, changes: &ChangeBatch) -> Result<()> {
        let weights = changes.weights().into_iter().flat_map(|w| w.iter());
        match weights.map(|w| w.unsigned_abs()).max() {
            Some(most) if most > COPIES_MAX.unsigned_abs() => Err(grows(&self.name, "copies")),
            _ => Ok(()),
        }
    }

    /// Rows behind the last iteration are errors.
    fn report(&self, changes: &ChangeBatch, out: &mut dyn Out) -> Result<()> {
        for row in 0..changes.num_rows() {
            out.row_error(RowError {
                message: format!(
                    "recursive query \"{}\" does not end within {} iterations",
                    self.name, self.iterations_max
                ),
                state: "54000",
                row: row_text(changes.rows(), row),
                weight: changes.weight(row),
            })?;
        }
        Ok(())
    }
}

/// The error of a query whose rows multiply.
fn grows(name: &str, what: &str) -> Error {
    let message = format!("recursive query \"{name}\" makes too many {what} of its rows");
    Error::user(SqlState("54000"), message).with_hint(
        "Its rows multiply with each iteration. Write UNION in place of UNION ALL, or end the \
         recursion with a condition in its second part.",
    )
}

impl Operator for Recursive {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        match port {
            0 => self.pending.add(0, batch),
            port => self.step.changes(port, batch, &mut self.pending, out),
        }
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        while let Some(iteration) = self.next() {
            self.turn(iteration, out)?;
        }
        if let Some(seen) = &mut self.seen {
            seen.send_changed(out)?;
        }
        self.step.close(barrier, &mut self.pending, out)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        let seen = self.seen.iter_mut().map(|seen| seen as &mut dyn StateTable);
        seen.chain(self.step.tables()).collect()
    }

    fn memory_bytes(&self) -> usize {
        self.pending.memory_bytes()
    }
}
