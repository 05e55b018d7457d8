//! ASOF joins: each left row with the right row of its keys whose time is the nearest.
//!
//! **Algebra.** Both sides are kept by partition (their keys) in the order in which a search goes:
//! by time, descending where the nearest time below is wanted, so that the wanted row is always the
//! first one from some place on. A left row's match is found by one binary search. It depends on
//! the first right row from its place on, so a right row that comes or goes concerns the left rows
//! between the right row before it and itself, and no others.
//!
//! **Ties.** Of right rows at one time, the first by their other columns (see `ordered`).
//!
//! **State.** Both sides. The match of each left row is remembered beside it (a cache, found anew
//! after a restore), so what a row has been sent with needs no look at the past.
//!
//! **NULL.** A row with NULL among its keys, or as its time, is never kept: nothing can match it.
//! An outer join sends such a left row as it comes.
//!
//! **Cost.** A search per changed left row, and per left row that a right row's coming or going
//! concerns. Right rows that only change their weight cost nothing.

use super::difference::SENT_ROWS;
use super::partitions::{Partitions, Pending, record_batch};
use crate::{Barrier, Operator, Out};
use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::datatypes::SchemaRef;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::{Nearest, SortKey};
use tidemark_state::chunked::Chunked;
use tidemark_state::{ABSENT, Place, StateTable};

/// What is joined; see `tidemark_plan::Op::AsofJoin`.
pub struct AsofConfig<'a> {
    /// Columns of the left input.
    pub left: SchemaRef,
    /// Columns of the right input.
    pub right: SchemaRef,
    /// Left rows without match are sent with NULLs.
    pub outer: bool,
    /// Key columns of the left input, each once.
    pub left_keys: &'a [usize],
    /// Key columns of the right input, of the same types in the same order, each once.
    pub right_keys: &'a [usize],
    /// The time of the left input, which is no key.
    pub left_time: usize,
    /// The time of the right input, of the same type, which is no key.
    pub right_time: usize,
    /// Which time is the nearest.
    pub comparison: Nearest,
    /// Output columns, of left ++ right.
    pub columns: &'a [usize],
    /// The output's schema; the right side's columns are nullable in an outer join.
    pub output: SchemaRef,
    /// Number of the left state table.
    pub left_table: u32,
    /// Number of the right state table.
    pub right_table: u32,
}

/// A column of the output.
#[derive(Clone, Copy)]
enum Pick {
    Left(usize),
    Right(usize),
}

/// `Op::AsofJoin`. Port 0 is left, port 1 right.
pub struct AsofJoin {
    left: Partitions,
    right: Partitions,
    /// The times of both sides.
    times: [usize; 2],
    /// The columns of both sides that must not be NULL.
    needed: [Vec<usize>; 2],
    descending: bool,
    /// A row at the same time does not match.
    strict: bool,
    outer: bool,
    picks: Vec<Pick>,
    output: SchemaRef,
    /// By left row that is there: its match plus 1, or 0. A cache.
    matches: Chunked<u32>,
}

/// A key of which something has changed: its partitions (ABSENT for none) and their changes.
struct Touched {
    left: u32,
    right: u32,
    lefts: Range<usize>,
    rights: Range<usize>,
}

impl AsofJoin {
    /// Without rows.
    pub fn new(config: AsofConfig) -> AsofJoin {
        let descending = matches!(config.comparison, Nearest::AtOrBefore | Nearest::Before);
        let order = |column| SortKey {
            column,
            descending,
            nulls_first: false,
        };
        let width = config.left.fields().len();
        let side = |schema: &SchemaRef, keys: &[usize], time: usize, table: u32| {
            Partitions::new(schema, keys, &[order(time)], None, table)
        };
        let needed = |keys: &[usize], time: usize| keys.iter().copied().chain([time]).collect();
        let pick = |c: &usize| match c.checked_sub(width) {
            None => Pick::Left(*c),
            Some(c) => Pick::Right(c),
        };
        AsofJoin {
            left: side(
                &config.left,
                config.left_keys,
                config.left_time,
                config.left_table,
            ),
            right: side(
                &config.right,
                config.right_keys,
                config.right_time,
                config.right_table,
            ),
            times: [config.left_time, config.right_time],
            needed: [
                needed(config.left_keys, config.left_time),
                needed(config.right_keys, config.right_time),
            ],
            descending,
            strict: matches!(config.comparison, Nearest::Before | Nearest::After),
            outer: config.outer,
            picks: config.columns.iter().map(pick).collect(),
            output: config.output,
            matches: Chunked::new(),
        }
    }

    /// The rows that may have a match; the others, if they are sent at all, are sent as they come.
    fn with_keys(&self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<ChangeBatch> {
        let needed = || self.needed[port].iter().map(|c| batch.column(*c));
        if needed().all(|c| c.null_count() == 0) {
            return Ok(batch);
        }
        let is_whole = |row: &u32| needed().all(|c| c.is_valid(*row as usize));
        let (whole, null): (Vec<u32>, Vec<u32>) =
            (0..batch.num_rows() as u32).partition(|row| is_whole(row));
        if port == 0 && self.outer {
            let null = batch.take(&UInt32Array::from(null));
            let column = |(pick, field): (&Pick, &arrow::datatypes::FieldRef)| match pick {
                Pick::Left(column) => null.column(*column).clone(),
                Pick::Right(_) => new_null_array(field.data_type(), null.num_rows()),
            };
            let columns = self.picks.iter().zip(self.output.fields()).map(column);
            let rows = record_batch(&self.output, columns.collect(), null.num_rows());
            let weights = (0..null.num_rows()).map(|row| null.weight(row));
            out.send(ChangeBatch::new(rows, weights.collect()))?;
        }
        Ok(batch.take(&UInt32Array::from(whole)))
    }

    /// Whether a right row is not before a left one in the order of the search.
    #[inline]
    fn reaches(&self, left: u32, right: u32) -> bool {
        let [time, other] = self.times;
        let compared = self
            .left
            .compare_across(time, left, &self.right, other, right);
        match compared {
            Ordering::Equal => !self.strict,
            Ordering::Less => !self.descending,
            Ordering::Greater => self.descending,
        }
    }

    /// The match of a left row among the right rows of a partition as of the last barrier, plus 1;
    /// 0 for none.
    fn found(&self, left: u32, partition: u32) -> u32 {
        if partition == ABSENT {
            return 0;
        }
        let list = self.right.list(partition);
        let before = |right| match self.reaches(left, right) {
            false => Ordering::Less,
            true => Ordering::Greater,
        };
        let place = list.find(before).unwrap_or_else(|place| place);
        let mut rows = list.iter_from(place);
        rows.find(|row| self.right.weight(*row) > 0)
            .map_or(0, |row| row + 1)
    }

    /// After a restore: finds the match of every left row. No changes may wait.
    fn rematch(&mut self) {
        let restored = [self.left.take_restored(), self.right.take_restored()];
        if restored == [false, false] {
            return;
        }
        self.matches.grow(self.left.capacity());
        let lefts = self.left.all();
        let rights = self.right.find(&self.left.keys_of(&lefts), lefts.len());
        for (left, right) in lefts.into_iter().zip(rights) {
            let rows: Vec<u32> = self.left.list(left).iter_from(Place::FIRST).collect();
            for row in rows {
                let found = self.found(row, right);
                self.matches.set(row, found);
            }
        }
    }

    /// The keys of which something has changed.
    fn touched(&self, lefts: &[Pending], rights: &[Pending]) -> Vec<Touched> {
        let (left_chunks, right_chunks) = (chunks(lefts), chunks(rights));
        let partitions = |chunks: &[(u32, Range<usize>)]| -> Vec<u32> {
            chunks.iter().map(|(partition, _)| *partition).collect()
        };
        let (left_of, right_of) = (partitions(&left_chunks), partitions(&right_chunks));
        let others = |own: &Partitions, other: &Partitions, of: &[u32]| {
            other.find(&own.keys_of(of), of.len())
        };
        let rights_of_left = others(&self.left, &self.right, &left_of);
        let lefts_of_right = others(&self.right, &self.left, &right_of);
        let mut touched = Vec::with_capacity(left_chunks.len() + right_chunks.len());
        let mut changed: BTreeMap<u32, Range<usize>> = right_chunks.iter().cloned().collect();
        for ((left, lefts), right) in left_chunks.into_iter().zip(rights_of_left) {
            let rights = changed.remove(&right).unwrap_or(0..0);
            touched.push(Touched {
                left,
                right,
                lefts,
                rights,
            });
        }
        for ((right, rights), left) in right_chunks.into_iter().zip(lefts_of_right) {
            if changed.contains_key(&right) {
                touched.push(Touched {
                    left,
                    right,
                    lefts: 0..0,
                    rights,
                });
            }
        }
        touched
    }

    /// Adds the left rows whose match may be one of the changed right rows, before or after: those
    /// between it and the right row before it. The changes are not applied yet.
    fn add_concerned(&self, touched: &Touched, rights: &[Pending], concerned: &mut Vec<Changed>) {
        let nobody = touched.left == ABSENT || self.left.list(touched.left).is_empty();
        if rights.is_empty() || nobody {
            return;
        }
        let (lefts, list) = (self.left.list(touched.left), self.right.list(touched.right));
        for change in rights {
            let was = self.right.weight(change.row);
            if was > 0 && was + change.weight > 0 {
                continue;
            }
            let place = self.right.place(touched.right, change.row);
            // What has no weight has come since the last barrier, and is looked at itself.
            let mut before = list.iter_before(place);
            let before = before.find(|row| self.right.weight(*row) >= 0);
            let reaches = |left| match self.reaches(left, change.row) {
                true => Ordering::Less,
                false => Ordering::Greater,
            };
            let end = lefts.find(reaches).unwrap_or_else(|place| place);
            let up_to_it = lefts.iter_before(end);
            let between = |row: &u32| !before.is_some_and(|before| self.reaches(*row, before));
            concerned.extend(up_to_it.take_while(between).map(|row| (row, 0)));
        }
    }

    /// Applies the changes of one key.
    fn advance(&mut self, touched: &Touched, changes: [&[Pending]; 2], epoch: &mut Epoch) {
        let [lefts, rights] = changes;
        let mut concerned: Vec<Changed> = lefts.iter().map(|c| (c.row, c.weight)).collect();
        self.add_concerned(touched, rights, &mut concerned);
        concerned.sort_unstable();
        concerned.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                first.1 += next.1;
            }
            same
        });
        self.right.apply(rights, &mut epoch.right_gone);
        for (row, change) in concerned {
            let was = self.left.weight(row);
            let old = if was == 0 { 0 } else { self.matches.get(row) };
            let is = was + change;
            let new = match is {
                0 => old,
                _ => self.found(row, touched.right),
            };
            if old == new || was == 0 {
                epoch.push(row, new, change, self.outer);
            } else {
                epoch.push(row, old, -was, self.outer);
                epoch.push(row, new, is, self.outer);
            }
            self.matches.set(row, new);
        }
        self.left.apply(lefts, &mut epoch.left_gone);
    }

    /// Sends what was found, and forgets rows that are there no more.
    fn send(&mut self, epoch: &mut Epoch, out: &mut dyn Out) -> Result<()> {
        let sent = std::mem::take(&mut epoch.sent);
        let of = |side: fn(&Pick) -> Option<usize>| -> Vec<usize> {
            self.picks.iter().filter_map(side).collect()
        };
        let left_columns = of(|p| match p {
            Pick::Left(column) => Some(*column),
            Pick::Right(_) => None,
        });
        let right_columns = of(|p| match p {
            Pick::Left(_) => None,
            Pick::Right(column) => Some(*column),
        });
        for sent in sent.chunks(SENT_ROWS) {
            let lefts: Vec<u32> = sent.iter().map(|s| s.left).collect();
            let rights: Vec<u32> = sent.iter().map(|s| s.right).collect();
            let mut left = self.left.gather(&left_columns, &lefts).into_iter();
            let mut right = self.right.gather(&right_columns, &rights).into_iter();
            let next = |pick: &Pick| match pick {
                Pick::Left(_) => left.next(),
                Pick::Right(_) => right.next(),
            };
            let columns: Vec<ArrayRef> = self.picks.iter().filter_map(next).collect();
            let rows = record_batch(&self.output, columns, sent.len());
            let weights = sent.iter().map(|s| s.weight).collect();
            out.send(ChangeBatch::new(rows, weights))?;
        }
        self.left.free(&mut epoch.left_gone);
        self.right.free(&mut epoch.right_gone);
        Ok(())
    }
}

/// A left row and the change of its weight.
type Changed = (u32, i64);

/// What a barrier has found so far.
#[derive(Default)]
struct Epoch {
    sent: Vec<Sent>,
    left_gone: Vec<u32>,
    right_gone: Vec<u32>,
}

/// A row of the output.
struct Sent {
    left: u32,
    /// ABSENT for NULLs.
    right: u32,
    weight: i64,
}

impl Epoch {
    /// A left row with its match (plus 1, 0 for none).
    fn push(&mut self, left: u32, matched: u32, weight: i64, outer: bool) {
        if weight != 0 && (matched != 0 || outer) {
            self.sent.push(Sent {
                left,
                right: matched.checked_sub(1).unwrap_or(ABSENT),
                weight,
            });
        }
    }
}

/// Partitions that have changes, and where these are.
fn chunks(changes: &[Pending]) -> Vec<(u32, Range<usize>)> {
    let mut start = 0;
    let chunk = |chunk: &[Pending]| {
        let range = start..start + chunk.len();
        start = range.end;
        (chunk[0].partition, range)
    };
    changes
        .chunk_by(|a, b| a.partition == b.partition)
        .map(chunk)
        .collect()
}

impl Operator for AsofJoin {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        self.rematch();
        let batch = self.with_keys(port, batch, out)?;
        match port {
            _ if batch.is_empty() => {}
            0 => self.left.add(&batch),
            _ => self.right.add(&batch),
        }
        Ok(())
    }

    fn on_barrier(&mut self, _barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        self.rematch();
        let (lefts, rights) = (self.left.take_pending(), self.right.take_pending());
        self.matches.grow(self.left.capacity());
        let (mut epoch, mut seen) = (Epoch::default(), 0);
        for touched in self.touched(&lefts, &rights) {
            let changes = [
                &lefts[touched.lefts.clone()],
                &rights[touched.rights.clone()],
            ];
            self.advance(&touched, changes, &mut epoch);
            seen += changes[0].len() + changes[1].len();
            if seen >= SENT_ROWS {
                seen = 0;
                out.look_up();
            }
            if epoch.sent.len() >= SENT_ROWS {
                self.send(&mut epoch, out)?;
            }
        }
        self.send(&mut epoch, out)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.left, &mut self.right]
    }

    fn memory_bytes(&self) -> usize {
        self.matches.memory_bytes()
    }
}

#[cfg(test)]
mod tests;
