//! Equi-joins: inner, left, right, full, left semi and left anti, with an optional residual
//! condition.
//!
//! **Algebra.** With L and R the sums of the inputs so far, a change of L is joined with R as it
//! stands and then added to L, and the other way round: `d(L x R) = dL x R + L x dR + dL x dR`,
//! where the last term falls out because one of the two is always added first. Weights multiply.
//! For the other kinds a row of a preserved side has a *count*, the weighted number of its partners
//! that pass the residual; it is *matched* while that is positive. Left, right and full joins add
//! the row padded with NULLs while it is not matched, semi joins are the row while it is, anti
//! joins while it is not; when a change of the other side crosses zero, the row comes or goes.
//! Everything sent is a function of (L, R) before and after, so weights that are negative for a
//! moment do no harm.
//!
//! **State.** One index over the keys of both sides, chains of rows per key (`side`). Without
//! residual the count is one number per key, with residual one per row of a preserved side (a
//! cache, recomputed after a restore). Only keys and the columns that output and residual read are
//! kept. A row with a NULL key (unless `null_equals_null`) is never kept: nothing can match it.
//! When the right side of a semi or anti join only grows, a left row that has matched is settled
//! for good and forgotten (unless the residual can fail: which pairs fail must not depend on the
//! order of arrival).
//!
//! **Shared sides.** Of a side that a relation on the same worker keeps by the same key, the join
//! keeps nothing and looks it up ([`tidemark_plan::SharedRows`], `side/shared.rs`).
//!
//! **Watermarks.** Rows that find no partner any more, and that nothing takes back, are forgotten.
//!
//! **Cost.** Per row one lookup of its key; a retractable side hashes its whole rows too. A key
//! that the other side does not know costs nothing more. Output is gathered in pieces of at most
//! 4,096 rows, so a hot key makes many batches and never a large one.

mod residual;
mod side;
mod temporal;
#[cfg(test)]
mod tests;

pub use residual::Residual;
pub use temporal::{TemporalConfig, TemporalJoin};

use crate::closing::Closing;
use crate::{Barrier, Operator, Out, RowError};
use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use side::{Keys, Lookup, SharedKeys, Side, SideConfig};
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::{Epoch, Error, Result};
use tidemark_plan::{JoinKind, SharedRows};
use tidemark_state::{Neighbours, StateTable};

/// Rows of one output batch, and pairs of one evaluation of the residual, at most.
const CHUNK_ROWS: usize = 4096;

/// What a join joins; see `tidemark_plan::Op::Join`.
pub struct JoinConfig {
    /// The kind.
    pub kind: JoinKind,
    /// Columns of the left input.
    pub left_schema: SchemaRef,
    /// Columns of the right input.
    pub right_schema: SchemaRef,
    /// Key columns of the left input.
    pub left_keys: Vec<usize>,
    /// Key columns of the right input, of the same types in the same order.
    pub right_keys: Vec<usize>,
    /// NULL keys match each other.
    pub null_equals_null: bool,
    /// The condition beyond the equalities.
    pub residual: Option<Residual>,
    /// Output columns: of left ++ right; of left for semi and anti joins.
    pub output: Vec<usize>,
    /// The output's schema; columns of a side that may be padded are nullable.
    pub output_schema: SchemaRef,
    /// No left row is ever retracted.
    pub left_append_only: bool,
    /// No right row is ever retracted.
    pub right_append_only: bool,
    /// Number of the left state table.
    pub left_table: u32,
    /// Number of the right state table.
    pub right_table: u32,
    /// Rows of each side below these watermarks may be forgotten.
    pub closes: [Option<Closing>; 2],
    /// Left and right: who has the rows, if the join keeps none. With a residual, of inner joins.
    pub shared: [Option<SharedRows>; 2],
    /// Where these are.
    pub neighbours: Arc<Neighbours>,
    /// All rows are on the worker that owns vnode 0, and so is what is kept of them; otherwise they
    /// are on the owners of their keys' vnodes.
    pub gathered: bool,
}

/// An output column as seen from one port.
#[derive(Clone, Copy, Debug)]
enum Pick {
    /// Column of the input batch.
    Own(usize),
    /// Stored column of the other side.
    Other(usize),
}

/// The columns that are gathered from the other side, in order.
fn gathered_of(picks: &[Pick]) -> Vec<usize> {
    let gathered = picks.iter().filter_map(|pick| match pick {
        Pick::Own(_) => None,
        Pick::Other(column) => Some(*column),
    });
    gathered.collect()
}

/// The join operator. Port 0 is left, port 1 right.
pub struct Join {
    kind: JoinKind,
    key_columns: [Vec<usize>; 2],
    null_equals_null: bool,
    residual: Option<Residual>,
    /// Output columns by the port that a batch arrives at.
    picks: [Vec<Pick>; 2],
    /// Columns of the residual by port.
    residual_picks: [Vec<Pick>; 2],
    output_schema: SchemaRef,
    /// Left rows that have matched never change again.
    settles: bool,
    keys: SharedKeys,
    sides: [Side; 2],
    closes: [Option<Closing>; 2],
    shared: [Option<Lookup>; 2],
    /// Up to which epoch shared sides are looked up; the rows since then have come.
    as_of: Option<Epoch>,
}

/// A batch on its way through the join.
struct Delta {
    port: usize,
    batch: ChangeBatch,
    key_ids: Vec<u32>,
    /// Weighted partners of each row, where they are counted.
    counts: Vec<i64>,
}

/// Pairs of a batch's rows with stored rows of the other side.
#[derive(Default)]
struct Pairs {
    own: Vec<u32>,
    other: Vec<u32>,
}

impl Join {
    /// A join without rows. The state tables may be restored before the first batch.
    pub fn new(config: JoinConfig) -> Join {
        let kind = config.kind;
        let left_columns = config.left_schema.fields().len();
        let read = config
            .output
            .iter()
            .chain(config.residual.iter().flat_map(|r| &r.columns));
        let (left_read, right_read): (Vec<usize>, Vec<usize>) =
            read.partition(|c| **c < left_columns);
        let is_shared = [0, 1].map(|port: usize| config.shared[port].is_some());
        let settles = semi_or_anti(kind)
            && config.right_append_only
            && is_shared == [false; 2]
            && config.residual.as_ref().is_none_or(|r| r.infallible);
        let by_key = config.residual.is_none();
        let types: Vec<_> = config
            .left_keys
            .iter()
            .map(|k| config.left_schema.field(*k).data_type().clone())
            .collect();
        let keys = SharedKeys::new(&types);
        let left = SideConfig {
            port: 0,
            schema: config.left_schema.clone(),
            keys: config.left_keys.clone(),
            needed: left_read,
            append_only: config.left_append_only
                && !settles
                && !is_shared[0]
                && config.closes[0].is_none(),
            totals: by_key && preserves(kind, 1),
            presence_only: false,
            counts: !by_key && preserves(kind, 0),
            gathered: config.gathered,
            table: config.left_table,
        };
        let right = SideConfig {
            port: 1,
            schema: config.right_schema.clone(),
            keys: config.right_keys.clone(),
            needed: right_read.into_iter().map(|c| c - left_columns).collect(),
            append_only: config.right_append_only && !is_shared[1] && config.closes[1].is_none(),
            totals: by_key && preserves(kind, 0),
            presence_only: settles && by_key,
            counts: !by_key && preserves(kind, 1),
            gathered: config.gathered,
            table: config.right_table,
        };
        let sides = [
            Side::new(left, keys.clone()),
            Side::new(right, keys.clone()),
        ];
        let picks_of = |columns: &[usize], port: usize| -> Vec<Pick> {
            let pick = |c: &usize| {
                let (side, column) = if *c < left_columns {
                    (0, *c)
                } else {
                    (1, *c - left_columns)
                };
                if side == port {
                    Pick::Own(column)
                } else {
                    Pick::Other(sides[side].stored_at(column))
                }
            };
            columns.iter().map(pick).collect()
        };
        let widths = [config.left_schema, config.right_schema].map(|s| s.fields().len());
        let mut widths = widths.into_iter();
        let shared = config.shared.map(|shared| shared.zip(widths.next()));
        let lookup = |(rows, width)| Lookup::new(rows, width, config.neighbours.clone());
        let residual_columns = config.residual.as_ref().map_or(&[][..], |r| &r.columns);
        Join {
            kind,
            key_columns: [config.left_keys, config.right_keys],
            null_equals_null: config.null_equals_null,
            picks: [picks_of(&config.output, 0), picks_of(&config.output, 1)],
            residual_picks: [picks_of(residual_columns, 0), picks_of(residual_columns, 1)],
            residual: config.residual,
            output_schema: config.output_schema,
            settles,
            keys,
            sides,
            closes: config.closes,
            shared: shared.map(|s| s.map(lookup)),
            as_of: None,
        }
    }

    /// Sends the rows whose key is NULL where they are output as they are, and returns the others.
    fn without_null_keys(
        &self,
        port: usize,
        batch: ChangeBatch,
        out: &mut dyn Out,
    ) -> Result<ChangeBatch> {
        let keys = || self.key_columns[port].iter().map(|k| batch.column(*k));
        if self.null_equals_null || keys().all(|k| k.null_count() == 0) {
            return Ok(batch);
        }
        let valid = |row: usize| keys().all(|k| k.is_valid(row));
        let (whole, null): (Vec<u32>, Vec<u32>) =
            (0..batch.num_rows() as u32).partition(|row| valid(*row as usize));
        if preserves(self.kind, port) && !shows_matched(self.kind) {
            self.send_own(port, &batch, &null, out)?;
        }
        Ok(batch.take(&UInt32Array::from(whole)))
    }

    /// Joins the batch with the other side as it stands: sends the pairs, counts the partners of
    /// its rows, and (with a residual) changes the other side's counts. Returns the rows of the
    /// other side whose counts crossed zero, once per crossing.
    fn join_pairs(
        &mut self,
        keys: &Keys,
        delta: &mut Delta,
        out: &mut dyn Out,
    ) -> Result<Vec<u32>> {
        let other = 1 - delta.port;
        let heads = &keys.sides[other].heads;
        let heads: Vec<u32> = delta.key_ids.iter().map(|key| heads.get(*key)).collect();
        let mut crossed = Vec::new();
        let (mut found, mut passed) = (Pairs::default(), Pairs::default());
        for (row, head) in heads.iter().enumerate() {
            let mut at = *head;
            while at != 0 {
                found.own.push(row as u32);
                found.other.push(at - 1);
                at = self.sides[other].next(at - 1);
                if found.own.len() == CHUNK_ROWS {
                    self.pass(keys, delta, &mut found, &mut passed, &mut crossed, out)?;
                }
            }
        }
        if !found.own.is_empty() {
            self.pass(keys, delta, &mut found, &mut passed, &mut crossed, out)?;
        }
        self.send_pairs(keys, delta, &mut passed, out)?;
        Ok(crossed)
    }

    /// Moves the pairs that pass the residual from `found` to `passed`, which is sent when it is
    /// full.
    fn pass(
        &mut self,
        keys: &Keys,
        delta: &mut Delta,
        found: &mut Pairs,
        passed: &mut Pairs,
        crossed: &mut Vec<u32>,
        out: &mut dyn Out,
    ) -> Result<()> {
        out.look_up();
        if let Some(residual) = &self.residual {
            let other = &self.sides[1 - delta.port];
            let pairs = assemble(
                &residual.schema,
                self.pair_columns(keys, delta, &self.residual_picks[delta.port], found),
                found.own.len(),
            )?;
            let (mask, failures) = residual.evaluate(&pairs)?;
            let weight_of = other.weights(keys);
            for failure in failures {
                let weight = delta.batch.weight(found.own[failure.row] as usize)
                    * weight_of(found.other[failure.row]);
                let row = crate::expr::row_text(&pairs, failure.row);
                out.row_error(RowError {
                    message: failure.message,
                    state: failure.state,
                    row,
                    weight,
                })?;
            }
            keep(found, &mask);
            if !delta.counts.is_empty() {
                found
                    .own
                    .iter()
                    .zip(&found.other)
                    .for_each(|(own, other)| delta.counts[*own as usize] += weight_of(*other));
            }
            drop(weight_of);
            if let Some(counts) = &mut self.sides[1 - delta.port].counts {
                for (own, other) in found.own.iter().zip(&found.other) {
                    let count = counts.get_mut(*other);
                    let before = *count;
                    *count += delta.batch.weight(*own as usize);
                    if (before > 0) != (*count > 0) {
                        crossed.push(*other);
                    }
                }
            }
        }
        if semi_or_anti(self.kind) {
            found.clear();
            return Ok(());
        }
        if passed.own.is_empty() {
            std::mem::swap(found, passed);
        } else {
            // Both hold at most a chunk.
            if passed.own.len() + found.own.len() > CHUNK_ROWS {
                self.send_pairs(keys, delta, passed, out)?;
            }
            passed.own.append(&mut found.own);
            passed.other.append(&mut found.other);
        }
        if passed.own.len() == CHUNK_ROWS {
            self.send_pairs(keys, delta, passed, out)?;
        }
        Ok(())
    }

    /// Sends the pairs, if any, and forgets them.
    fn send_pairs(
        &self,
        keys: &Keys,
        delta: &Delta,
        pairs: &mut Pairs,
        out: &mut dyn Out,
    ) -> Result<()> {
        let rows = pairs.own.len();
        if rows == 0 {
            return Ok(());
        }
        let batch = assemble(
            &self.output_schema,
            self.pair_columns(keys, delta, &self.picks[delta.port], pairs),
            rows,
        )?;
        let other = &self.sides[1 - delta.port];
        if delta.batch.weights().is_none() && other.unweighted() {
            out.send(ChangeBatch::insert(batch))?;
        } else {
            let weight_of = other.weights(keys);
            let weights = pairs
                .own
                .iter()
                .zip(&pairs.other)
                .map(|(own, other)| delta.batch.weight(*own as usize) * weight_of(*other));
            out.send(ChangeBatch::new(batch, weights.collect()))?;
        }
        pairs.clear();
        Ok(())
    }

    /// The picked columns of pairs: taken from the batch, gathered from the other side.
    fn pair_columns(
        &self,
        keys: &Keys,
        delta: &Delta,
        picks: &[Pick],
        pairs: &Pairs,
    ) -> Vec<ArrayRef> {
        let gathered = gathered_of(picks);
        let mut gathered = self.sides[1 - delta.port]
            .gather(keys, &gathered, &pairs.other)
            .into_iter();
        let own = Selection::of(&pairs.own);
        let column = |p: &Pick| match p {
            Pick::Own(c) => own.take(delta.batch.column(*c)),
            Pick::Other(_) => gathered.next().expect("one array per gathered column"),
        };
        picks.iter().map(column).collect()
    }

    /// Sends these rows of the batch, padded where the other side's columns are wanted.
    fn send_own(
        &self,
        port: usize,
        batch: &ChangeBatch,
        rows: &[u32],
        out: &mut dyn Out,
    ) -> Result<()> {
        for rows in rows.chunks(CHUNK_ROWS) {
            let own = Selection::of(rows);
            let columns = self.picks[port].iter().enumerate().map(|(i, p)| match p {
                Pick::Own(c) => own.take(batch.column(*c)),
                Pick::Other(_) => {
                    new_null_array(self.output_schema.field(i).data_type(), rows.len())
                }
            });
            let sent = assemble(&self.output_schema, columns.collect(), rows.len())?;
            out.send(match batch.weights() {
                None => ChangeBatch::insert(sent),
                Some(w) => ChangeBatch::new(sent, rows.iter().map(|r| w[*r as usize]).collect()),
            })?;
        }
        Ok(())
    }

    /// Sends stored rows of `side` that became matched (true) or ceased to be.
    fn send_flips(
        &self,
        keys: &Keys,
        side: usize,
        flips: &[(u32, bool)],
        out: &mut dyn Out,
    ) -> Result<()> {
        let picks = &self.picks[1 - side];
        let gathered = gathered_of(picks);
        let weight_of = self.sides[side].weights(keys);
        for flips in flips.chunks(CHUNK_ROWS) {
            let rows: Vec<u32> = flips.iter().map(|(row, _)| *row).collect();
            let mut stored = self.sides[side].gather(keys, &gathered, &rows).into_iter();
            let columns = picks.iter().enumerate().map(|(i, p)| match p {
                Pick::Own(_) => new_null_array(self.output_schema.field(i).data_type(), rows.len()),
                Pick::Other(_) => stored.next().expect("one array per gathered column"),
            });
            let batch = assemble(&self.output_schema, columns.collect(), rows.len())?;
            let weights = flips.iter().map(|(row, matched)| {
                if *matched == shows_matched(self.kind) {
                    weight_of(*row)
                } else {
                    -weight_of(*row)
                }
            });
            out.send(ChangeBatch::new(batch, weights.collect()))?;
        }
        Ok(())
    }

    /// Which rows of a batch on a preserved side are matched.
    fn matched(&self, keys: &Keys, delta: &Delta) -> Vec<bool> {
        if self.residual.is_some() {
            return delta.counts.iter().map(|c| *c > 0).collect();
        }
        let totals = &keys.sides[1 - delta.port].totals;
        delta
            .key_ids
            .iter()
            .map(|key| totals.get(*key) > 0)
            .collect()
    }

    /// The rows of side `side` whose keys' totals on the other side crossed zero an odd number of
    /// times.
    fn rows_of_keys(&self, keys: &Keys, side: usize, crossed: Vec<u32>) -> Vec<(u32, bool)> {
        let mut flips = Vec::new();
        for key in odd_ones(crossed) {
            let matched = keys.sides[1 - side].totals.get(key) > 0;
            let mut at = keys.sides[side].heads.get(key);
            while at != 0 {
                flips.push((at - 1, matched));
                at = self.sides[side].next(at - 1);
            }
        }
        flips
    }

    /// After a restore: counts the partners of every row of the sides that count them per row.
    fn recount(&mut self) -> Result<()> {
        if self.sides.iter().all(|s| !s.restored) {
            return Ok(());
        }
        let shared = self.keys.clone();
        let keys = &*shared.lock();
        for port in 0..2 {
            let Some(mut counts) = self.sides[port].counts.take() else {
                continue;
            };
            counts.grow(self.sides[port].capacity());
            counts.iter_mut().for_each(|c| *c = 0);
            self.sides[port].for_each_row(keys, |rows, key_ids| {
                self.count_partners(keys, port, rows, key_ids, |row, weight| {
                    *counts.get_mut(row) += weight
                })
            })?;
            self.sides[port].counts = Some(counts);
        }
        self.sides.iter_mut().for_each(|s| s.restored = false);
        Ok(())
    }

    /// Calls `count` for each partner of stored rows of side `port` that passes the residual.
    fn count_partners(
        &self,
        keys: &Keys,
        port: usize,
        rows: &[u32],
        key_ids: &[u32],
        mut count: impl FnMut(u32, i64),
    ) -> Result<()> {
        let other = &self.sides[1 - port];
        let residual = self
            .residual
            .as_ref()
            .expect("partners are counted per row because of the residual");
        let weight_of = other.weights(keys);
        let mut pairs = Pairs::default();
        let mut flush = |pairs: &mut Pairs| -> Result<()> {
            let columns = self.residual_picks[port].iter().map(|p| match p {
                Pick::Own(c) => self.sides[port]
                    .gather(keys, &[self.sides[port].stored_at(*c)], &pairs.own)
                    .remove(0),
                Pick::Other(c) => other.gather(keys, &[*c], &pairs.other).remove(0),
            });
            let batch = assemble(&residual.schema, columns.collect(), pairs.own.len())?;
            let (mask, _) = residual.evaluate(&batch)?;
            keep(pairs, &mask);
            pairs
                .own
                .iter()
                .zip(&pairs.other)
                .for_each(|(own, other)| count(*own, weight_of(*other)));
            pairs.clear();
            Ok(())
        };
        for (row, key) in rows.iter().zip(key_ids) {
            let mut at = keys.sides[1 - port].heads.get(*key);
            while at != 0 {
                pairs.own.push(*row);
                pairs.other.push(at - 1);
                at = other.next(at - 1);
                if pairs.own.len() == CHUNK_ROWS {
                    flush(&mut pairs)?;
                }
            }
        }
        if pairs.own.is_empty() {
            Ok(())
        } else {
            flush(&mut pairs)
        }
    }

    /// Loads the rows of shared sides with these keys.
    fn load(&mut self, keys: &mut Keys, key_ids: &[u32]) -> Result<()> {
        let Some(as_of) = self.as_of else {
            return Ok(());
        };
        let fresh = keys.load(key_ids);
        if fresh.is_empty() {
            return Ok(());
        }
        let wanted = keys.index.gather(&fresh);
        for port in 0..2 {
            let Some(lookup) = &mut self.shared[port] else {
                continue;
            };
            let batch = ChangeBatch::insert(lookup.rows(as_of, &wanted)?);
            let rows = batch.num_rows();
            if rows == 0 {
                continue;
            }
            let columns = self.key_columns[port].iter();
            let columns: Vec<ArrayRef> = columns.map(|k| batch.column(*k).clone()).collect();
            let ids = keys.intern(&columns, &hash_columns(&columns, rows));
            let side = &mut self.sides[port];
            side.add_totals(keys, &ids, &batch, |_| ());
            side.store(keys, &batch, &ids, None, &mut Vec::new());
        }
        Ok(())
    }

    /// Adds the batch to its side; of settled rows nothing is kept. Returns the keys whose totals
    /// crossed zero.
    fn add(
        &mut self,
        keys: &mut Keys,
        mut delta: Delta,
        matched: &[bool],
        emptied: &mut Vec<u32>,
    ) -> Vec<u32> {
        let port = delta.port;
        if self.settles && port == 0 && matched.contains(&true) {
            let open: Vec<u32> = (0..matched.len() as u32)
                .filter(|row| !matched[*row as usize])
                .collect();
            delta.key_ids = open
                .iter()
                .map(|row| delta.key_ids[*row as usize])
                .collect();
            if !delta.counts.is_empty() {
                delta.counts = open.iter().map(|row| delta.counts[*row as usize]).collect();
            }
            delta.batch = delta.batch.take(&UInt32Array::from(open));
        }
        let mut crossed = Vec::new();
        if delta.batch.is_empty() {
            return crossed;
        }
        self.sides[port].add_totals(keys, &delta.key_ids, &delta.batch, |key| crossed.push(key));
        let counts = (!delta.counts.is_empty()).then_some(&delta.counts[..]);
        self.sides[port].store(keys, &delta.batch, &delta.key_ids, counts, emptied);
        crossed
    }
}

impl Operator for Join {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        self.recount()?;
        let batch = self.without_null_keys(port, batch, out)?;
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let other = 1 - port;
        let (own_preserved, other_preserved) =
            (preserves(self.kind, port), preserves(self.kind, other));
        let key_columns: Vec<ArrayRef> = self.key_columns[port]
            .iter()
            .map(|k| batch.column(*k).clone())
            .collect();
        let shared = self.keys.clone();
        let keys = &mut *shared.lock();
        let key_ids = keys.intern(&key_columns, &hash_columns(&key_columns, rows));
        self.load(keys, &key_ids)?;
        let counts = if own_preserved && self.residual.is_some() {
            vec![0; rows]
        } else {
            Vec::new()
        };
        let mut delta = Delta {
            port,
            batch,
            key_ids,
            counts,
        };
        let mut emptied = Vec::new();

        let by_row = self.residual.is_some();
        let crossed_rows = if by_row || !semi_or_anti(self.kind) {
            self.join_pairs(keys, &mut delta, out)?
        } else {
            Vec::new()
        };
        let mut matched = Vec::new();
        if own_preserved {
            matched = self.matched(keys, &delta);
            let shown: Vec<u32> = (0..rows as u32)
                .filter(|row| matched[*row as usize] == shows_matched(self.kind))
                .collect();
            self.send_own(port, &delta.batch, &shown, out)?;
        }
        let crossed_keys = self.add(keys, delta, &matched, &mut emptied);
        if other_preserved {
            let flips = match &self.sides[other].counts {
                Some(counts) => odd_ones(crossed_rows)
                    .into_iter()
                    .map(|row| (row, counts.get(row) > 0))
                    .collect(),
                None => self.rows_of_keys(keys, other, crossed_keys),
            };
            self.send_flips(keys, other, &flips, out)?;
            if self.settles {
                self.sides[other].forget(keys, flips.iter().map(|(row, _)| *row), &mut emptied);
            }
        }
        keys.remove_unused(&emptied);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, _out: &mut dyn Out) -> Result<()> {
        let shared = self.keys.clone();
        let keys = &mut *shared.lock();
        // What is looked through is both sides, so what has come of both pays for it.
        let rows = |sides: &[Side; 2]| sides.iter().map(Side::len).sum();
        let kept = rows(&self.sides);
        let mut due = false;
        for closing in self.closes.iter_mut().flatten() {
            due |= closing.due(barrier, kept)?.is_some();
        }
        if !due {
            return Ok(());
        }
        // Both sides together: what one forgets goes by what the other one has forgotten.
        for (closing, side) in self.closes.iter_mut().zip(&mut self.sides) {
            if let Some(closing) = closing
                && let Some(watermark) = closing.watermark(barrier)?
            {
                side.close(keys, closing.column(), watermark);
            }
        }
        let left = rows(&self.sides);
        self.closes
            .iter_mut()
            .flatten()
            .for_each(|c| c.forgot(left));
        Ok(())
    }

    fn passed(&mut self, epoch: Epoch) {
        if self.shared.iter().all(Option::is_none) {
            return;
        }
        let shared = self.keys.clone();
        let keys = &mut *shared.lock();
        let mut emptied = Vec::new();
        for (side, _) in self.sides.iter_mut().zip(&self.shared).filter(is_shared) {
            emptied.append(&mut side.clear(keys));
        }
        emptied.append(&mut keys.unload());
        keys.remove_unused(&emptied);
        self.as_of = Some(epoch);
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        let sides = self.sides.iter_mut().zip(&self.shared);
        let own = sides.filter(|side| !is_shared(side));
        own.map(|(side, _)| side as &mut dyn StateTable).collect()
    }

    fn memory_bytes(&self) -> usize {
        let sides = self.sides.iter().zip(&self.shared);
        let shared = sides.filter(|(_, shared)| shared.is_some());
        shared.map(|(side, _)| side.memory_bytes()).sum()
    }
}

fn is_shared(side: &(&mut Side, &Option<Lookup>)) -> bool {
    side.1.is_some()
}

/// The rows of a batch that are wanted: a run can be sliced, which copies nothing.
enum Selection {
    Run(usize, usize),
    Rows(UInt32Array),
}

impl Selection {
    fn of(rows: &[u32]) -> Selection {
        let run = rows.windows(2).all(|w| w[0] + 1 == w[1]);
        if run {
            Selection::Run(rows.first().map_or(0, |r| *r as usize), rows.len())
        } else {
            Selection::Rows(UInt32Array::from(rows.to_vec()))
        }
    }

    fn take(&self, column: &ArrayRef) -> ArrayRef {
        match self {
            Selection::Run(0, rows) if *rows == column.len() => column.clone(),
            Selection::Run(first, rows) => column.slice(*first, *rows),
            Selection::Rows(rows) => {
                compute::take(column, rows, None).expect("indices are within the batch")
            }
        }
    }
}

impl Pairs {
    fn clear(&mut self) {
        self.own.clear();
        self.other.clear();
    }
}

/// Keeps the pairs for which the mask is true.
fn keep(pairs: &mut Pairs, mask: &BooleanArray) {
    if mask.true_count() == mask.len() {
        return;
    }
    let mut kept = 0;
    for i in (0..mask.len()).filter(|i| mask.value(*i) && mask.is_valid(*i)) {
        pairs.own[kept] = pairs.own[i];
        pairs.other[kept] = pairs.other[i];
        kept += 1;
    }
    pairs.own.truncate(kept);
    pairs.other.truncate(kept);
}

/// The values that occur an odd number of times, ascending.
fn odd_ones(mut values: Vec<u32>) -> Vec<u32> {
    values.sort_unstable();
    values
        .chunk_by(|a, b| a == b)
        .filter(|run| run.len() % 2 == 1)
        .map(|run| run[0])
        .collect()
}

fn assemble(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| Error::internal(format!("join output: {e}")))
}

fn semi_or_anti(kind: JoinKind) -> bool {
    matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti)
}

/// Whether rows of that port matter by themselves, matched or not.
fn preserves(kind: JoinKind, port: usize) -> bool {
    match kind {
        JoinKind::Inner => false,
        JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti => port == 0,
        JoinKind::Right => port == 1,
        JoinKind::Full => true,
    }
}

/// Whether a preserved row shows while it is matched, rather than while it is not.
fn shows_matched(kind: JoinKind) -> bool {
    kind == JoinKind::LeftSemi
}
