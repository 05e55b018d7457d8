//! Temporal joins: each row of a stream that only grows, with what a relation holds when it comes.
//!
//! **Algebra.** With dL the left rows of an epoch and R the right side at its end, the output of
//! the epoch is `dL x R`: what changes on the right later is no reason to send anything. So the
//! output only grows, and is a function of the history of its inputs, not of their sums. "When it
//! comes" is the end of its epoch, since all that one epoch brings is there at once: the left rows
//! wait for the barrier, by which all changes of the right side have come, however the two
//! interleave.
//!
//! **State.** The right side, as in any join (`side`). Of the left side nothing: what waits is gone
//! with the barrier. Weights of the right side become copies, so that all that is sent is +1.
//!
//! **Cost.** Per left row one lookup of its key; per change of the right side, taking it in.

use super::residual::Residual;
use super::side::{Keys, SharedKeys, Side, SideConfig};
use super::{CHUNK_ROWS, Pairs, assemble, keep};
use crate::{Barrier, Operator, Out, RowError};
use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::Result;
use tidemark_state::{ABSENT, StateTable};

/// What is joined; see `tidemark_plan::Op::TemporalJoin`.
pub struct TemporalConfig {
    /// Left rows without partner are sent with NULLs.
    pub outer: bool,
    /// Columns of the left input.
    pub left: SchemaRef,
    /// Columns of the right input.
    pub right: SchemaRef,
    /// Key columns of the left input.
    pub left_keys: Vec<usize>,
    /// Key columns of the right input, of the same types in the same order.
    pub right_keys: Vec<usize>,
    /// The condition beyond the equalities.
    pub residual: Option<Residual>,
    /// Output columns, of left ++ right.
    pub columns: Vec<usize>,
    /// The output's schema; the right side's columns are nullable in an outer join.
    pub output: SchemaRef,
    /// No right row is ever retracted.
    pub right_append_only: bool,
    /// Number of the right side's state table.
    pub table: u32,
}

/// A column that is read, of a waiting batch or stored.
#[derive(Clone, Copy)]
enum Pick {
    Left(usize),
    Right(usize),
}

/// `Op::TemporalJoin`. Port 0 is left, port 1 right.
pub struct TemporalJoin {
    outer: bool,
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
    residual: Option<Residual>,
    residual_picks: Vec<Pick>,
    picks: Vec<Pick>,
    output: SchemaRef,
    keys: SharedKeys,
    right: Side,
    /// Left rows of this epoch.
    waiting: Vec<ChangeBatch>,
    waiting_bytes: usize,
}

impl TemporalJoin {
    /// A join without rows.
    pub fn new(config: TemporalConfig) -> TemporalJoin {
        let width = config.left.fields().len();
        let residual_columns = config.residual.as_ref().map_or(&[][..], |r| &r.columns);
        let read = config.columns.iter().chain(residual_columns);
        let needed = read.filter_map(|c| c.checked_sub(width)).collect();
        let types: Vec<_> = config
            .right_keys
            .iter()
            .map(|k| config.right.field(*k).data_type().clone())
            .collect();
        let keys = SharedKeys::new(&types);
        let side = SideConfig {
            // The only side that there is.
            port: 0,
            schema: config.right.clone(),
            keys: config.right_keys.clone(),
            needed,
            append_only: config.right_append_only,
            totals: false,
            presence_only: false,
            counts: false,
            gathered: false,
            table: config.table,
        };
        let right = Side::new(side, keys.clone());
        let picks = |columns: &[usize]| -> Vec<Pick> {
            let pick = |c: &usize| match c.checked_sub(width) {
                None => Pick::Left(*c),
                Some(c) => Pick::Right(right.stored_at(c)),
            };
            columns.iter().map(pick).collect()
        };
        TemporalJoin {
            outer: config.outer,
            residual_picks: picks(residual_columns),
            picks: picks(&config.columns),
            left_keys: config.left_keys,
            right_keys: config.right_keys,
            residual: config.residual,
            output: config.output,
            keys,
            right,
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes changes of the right side in; rows whose key is NULL match nothing.
    fn take_in(&mut self, batch: ChangeBatch) {
        let keys = || self.right_keys.iter().map(|k| batch.column(*k));
        let batch = if keys().all(|k| k.null_count() == 0) {
            batch
        } else {
            let whole = |row: &u32| keys().all(|k| k.is_valid(*row as usize));
            let whole: Vec<u32> = (0..batch.num_rows() as u32).filter(whole).collect();
            batch.take(&UInt32Array::from(whole))
        };
        if batch.is_empty() {
            return;
        }
        let columns = columns_of(&batch, &self.right_keys);
        let shared = self.keys.clone();
        let keys = &mut *shared.lock();
        let ids = keys.intern(&columns, &hash_columns(&columns, batch.num_rows()));
        let mut emptied = Vec::new();
        self.right.add_totals(keys, &ids, &batch, |_| {});
        self.right.store(keys, &batch, &ids, None, &mut emptied);
        keys.remove_unused(&emptied);
    }

    /// Joins a batch that has waited with the right side as it stands.
    fn join(&self, keys: &Keys, batch: &ChangeBatch, out: &mut dyn Out) -> Result<()> {
        let columns = columns_of(batch, &self.left_keys);
        let mut ids = Vec::new();
        keys.index.find(
            &columns,
            &hash_columns(&columns, batch.num_rows()),
            &mut ids,
        );
        let mut matched = vec![false; batch.num_rows()];
        let (mut found, mut passed) = (Pairs::default(), Pairs::default());
        for (row, id) in ids.iter().enumerate() {
            let mut at = match *id {
                ABSENT => 0,
                id => keys.sides[0].heads.get(id),
            };
            while at != 0 {
                found.own.push(row as u32);
                found.other.push(at - 1);
                at = self.right.next(at - 1);
                if found.own.len() == CHUNK_ROWS {
                    self.pass(keys, batch, &mut found, &mut matched, &mut passed, out)?;
                }
            }
        }
        self.pass(keys, batch, &mut found, &mut matched, &mut passed, out)?;
        self.send(keys, batch, &mut passed, out)?;
        if self.outer {
            let alone = (0..batch.num_rows() as u32).filter(|row| !matched[*row as usize]);
            self.send_alone(batch, alone.collect(), out)?;
        }
        Ok(())
    }

    /// Moves the pairs that pass the residual from `found` to `passed`, each as often as its rows
    /// are there, and sends these when they are many.
    fn pass(
        &self,
        keys: &Keys,
        batch: &ChangeBatch,
        found: &mut Pairs,
        matched: &mut [bool],
        passed: &mut Pairs,
        out: &mut dyn Out,
    ) -> Result<()> {
        out.look_up();
        let weight_of = self.right.weights(keys);
        let copies = |own: u32, other: u32| batch.weight(own as usize) * weight_of(other).max(0);
        if let Some(residual) = self.residual.as_ref().filter(|_| !found.own.is_empty()) {
            let columns = self.pair_columns(keys, batch, &self.residual_picks, found);
            let pairs = assemble(&residual.schema, columns, found.own.len())?;
            let (mask, failures) = residual.evaluate(&pairs)?;
            for failure in failures {
                out.row_error(RowError {
                    message: failure.message,
                    state: failure.state,
                    row: crate::expr::row_text(&pairs, failure.row),
                    weight: copies(found.own[failure.row], found.other[failure.row]),
                })?;
            }
            keep(found, &mask);
        }
        for (own, other) in found.own.iter().zip(&found.other) {
            for _ in 0..copies(*own, *other) {
                matched[*own as usize] = true;
                passed.own.push(*own);
                passed.other.push(*other);
                if passed.own.len() == CHUNK_ROWS {
                    self.send(keys, batch, passed, out)?;
                }
            }
        }
        found.clear();
        Ok(())
    }

    /// Sends the pairs, if any, and forgets them.
    fn send(
        &self,
        keys: &Keys,
        batch: &ChangeBatch,
        pairs: &mut Pairs,
        out: &mut dyn Out,
    ) -> Result<()> {
        let rows = pairs.own.len();
        if rows == 0 {
            return Ok(());
        }
        let columns = self.pair_columns(keys, batch, &self.picks, pairs);
        out.send(ChangeBatch::insert(assemble(&self.output, columns, rows)?))?;
        pairs.clear();
        Ok(())
    }

    fn pair_columns(
        &self,
        keys: &Keys,
        batch: &ChangeBatch,
        picks: &[Pick],
        pairs: &Pairs,
    ) -> Vec<ArrayRef> {
        let stored = picks.iter().filter_map(|pick| match pick {
            Pick::Left(_) => None,
            Pick::Right(column) => Some(*column),
        });
        let stored: Vec<usize> = stored.collect();
        let mut stored = self.right.gather(keys, &stored, &pairs.other).into_iter();
        let own = UInt32Array::from(pairs.own.clone());
        let column = |pick: &Pick| match pick {
            Pick::Left(column) => taken(batch.column(*column), &own),
            Pick::Right(_) => stored.next().expect("one array per stored column"),
        };
        picks.iter().map(column).collect()
    }

    /// Sends left rows that have no partner.
    fn send_alone(&self, batch: &ChangeBatch, rows: Vec<u32>, out: &mut dyn Out) -> Result<()> {
        let copies = rows.into_iter().flat_map(|row| {
            let copies = batch.weight(row as usize).max(0) as usize;
            std::iter::repeat_n(row, copies)
        });
        let rows: Vec<u32> = copies.collect();
        for rows in rows.chunks(CHUNK_ROWS) {
            let own = UInt32Array::from(rows.to_vec());
            let column = |(pick, field): (&Pick, &arrow::datatypes::FieldRef)| match pick {
                Pick::Left(column) => taken(batch.column(*column), &own),
                Pick::Right(_) => new_null_array(field.data_type(), rows.len()),
            };
            let columns = self.picks.iter().zip(self.output.fields()).map(column);
            let sent = assemble(&self.output, columns.collect(), rows.len())?;
            out.send(ChangeBatch::insert(sent))?;
        }
        Ok(())
    }
}

fn columns_of(batch: &ChangeBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|c| batch.column(*c).clone()).collect()
}

fn taken(column: &ArrayRef, rows: &UInt32Array) -> ArrayRef {
    compute::take(column, rows, None).expect("indices are within the batch")
}

impl Operator for TemporalJoin {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        if port == 0 {
            self.waiting_bytes += batch.rows().get_array_memory_size();
            self.waiting.push(batch);
        } else {
            self.take_in(batch);
        }
        Ok(())
    }

    fn on_barrier(&mut self, _barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let shared = self.keys.clone();
        let keys = &*shared.lock();
        for batch in std::mem::take(&mut self.waiting) {
            self.join(keys, &batch, out)?;
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.right]
    }

    fn memory_bytes(&self) -> usize {
        self.waiting_bytes
    }
}

#[cfg(test)]
mod tests;
