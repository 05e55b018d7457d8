//! Random histories of an operator with two inputs on several workers, against a recomputation:
//! changes (some ahead of their rows, rows several times, NULLs), barriers, seals, and restores to
//! another number of workers. What is restored begins with the epoch after that of the seal.

use crate::testing::{barrier, table};
use crate::{Operator, Out, RowError};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::Result;
use tidemark_common::random::Random;

/// A row of either side: key, time, value.
pub type Row = [Option<i64>; 3];

/// Rows with their weights.
pub type Rows = BTreeMap<Row, i64>;

/// The sum of an output, by rows as text.
pub type Sum = BTreeMap<String, i64>;

/// The columns of one side (3), or of an output.
pub fn schema(columns: usize) -> SchemaRef {
    let names = ["k", "t", "x", "k2", "t2", "x2"];
    let field = |name: &&str| Field::new(*name, DataType::Int64, true);
    let fields: Vec<Field> = names[..columns].iter().map(field).collect();
    Arc::new(Schema::new(fields))
}

/// Values as an operator's output has them.
pub fn text(columns: impl IntoIterator<Item = Option<i64>>) -> String {
    let text = |c: Option<i64>| c.map_or("-".to_string(), |c| c.to_string());
    columns.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

fn changes(rows: &[(Row, i64)]) -> ChangeBatch {
    let column = |c: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|(row, _)| row[c]).collect::<Int64Array>())
    };
    let batch = RecordBatch::try_new(schema(3), (0..3).map(column).collect());
    let weights = rows.iter().map(|r| r.1).collect();
    ChangeBatch::new(batch.expect("columns fit"), weights)
}

/// Adds up what is sent.
struct Adding<'a> {
    sum: &'a mut Sum,
    append_only: bool,
}

impl Out for Adding<'_> {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        assert!(!batch.is_empty(), "an empty batch is never sent");
        for line in table(&batch) {
            let (weight, row) = line.split_once(' ').expect("a weight and a row");
            let weight = weight.parse::<i64>().expect("a weight");
            assert!(!self.append_only || weight == 1, "{line}");
            let sum = self.sum.entry(row.to_string()).or_default();
            *sum += weight;
            if *sum == 0 {
                self.sum.remove(row);
            }
        }
        Ok(())
    }
    fn row_error(&mut self, error: RowError) -> Result<()> {
        panic!("{error:?}")
    }
}

/// What the output of an epoch is told from.
pub struct Epoch<'a> {
    /// The output before it.
    pub before: &'a Sum,
    /// The left rows that are there.
    pub lefts: &'a Rows,
    /// The changes of left rows.
    pub changed: &'a [(Row, i64)],
    /// The right rows that are there.
    pub rights: &'a Rows,
}

/// What is asked of a history.
pub struct History<'a> {
    pub seed: u64,
    /// Left rows only come, and so does the output.
    pub append_only: bool,
    /// Rows of one key are on one worker; otherwise there is one worker.
    pub keyed: bool,
    /// The operator, empty.
    pub operator: &'a dyn Fn() -> Box<dyn Operator>,
    /// The output after an epoch, by definition.
    pub expected: &'a dyn Fn(&Epoch) -> Sum,
}

/// Rows of a checkpoint, by table, vnode and key.
pub type Durable = BTreeMap<(u32, u16, String), RecordBatch>;

/// What is there after an epoch.
#[derive(Clone, Default)]
struct Told {
    sides: [Rows; 2],
    sum: Sum,
}

impl History<'_> {
    /// Runs it.
    pub fn check(&self) {
        let mut random = Random(self.seed);
        let mut workers = vec![(self.operator)()];
        let (mut told, mut durable) = (Told::default(), Durable::new());
        let mut sealed = told.clone();
        let epochs = 4 + random.below(12) as u64;
        for epoch in 1..=epochs {
            let mut changed = [0, 1].map(|side| self.random_changes(&mut random, side, &told));
            let last = epoch == epochs;
            if last {
                // At the end everything goes that may.
                let all = told
                    .sides
                    .iter()
                    .map(|rows| rows.iter().map(|(r, w)| (*r, -w)));
                changed = Vec::from_iter(all.map(Iterator::collect))
                    .try_into()
                    .expect("two sides");
                if self.append_only {
                    changed[0].clear();
                }
            }
            self.feed(&mut random, &mut workers, &changed, epoch, &mut told);
            if last || random.below(3) == 0 {
                workers
                    .iter_mut()
                    .for_each(|w| seal(w.as_mut(), &mut durable));
                sealed = told.clone();
            } else if random.below(3) == 0 {
                let count = if self.keyed { 1 + random.below(3) } else { 1 };
                workers = (0..count).map(|_| (self.operator)()).collect();
                restore(&mut workers, &durable);
                told = sealed.clone();
            }
        }
        assert!(
            durable.is_empty() || self.append_only,
            "seed {}: {durable:?}",
            self.seed
        );
    }

    /// Feeds the changes of an epoch and compares the output.
    fn feed(
        &self,
        random: &mut Random,
        workers: &mut [Box<dyn Operator>],
        changed: &[Vec<(Row, i64)>; 2],
        epoch: u64,
        told: &mut Told,
    ) {
        let before = told.sum.clone();
        let mut out = Adding {
            sum: &mut told.sum,
            append_only: self.append_only,
        };
        let mut batches: Vec<(usize, &[(Row, i64)])> = Vec::new();
        for (port, changed) in changed.iter().enumerate() {
            batches.extend(changed.chunks(1 + random.below(9)).map(|some| (port, some)));
            for (row, weight) in changed {
                *told.sides[port].entry(*row).or_default() += weight;
            }
            told.sides[port].retain(|_, weight| *weight != 0);
        }
        shuffle(random, &mut batches);
        for (port, some) in batches {
            for (i, part) in routed(some, workers.len()).into_iter().enumerate() {
                if !part.is_empty() {
                    let fed = workers[i].on_changes(port, changes(&part), &mut out);
                    fed.expect("no failure");
                }
            }
        }
        for worker in workers {
            worker
                .on_barrier(&barrier(epoch), &mut out)
                .expect("no failure");
        }
        let expected = (self.expected)(&Epoch {
            before: &before,
            lefts: &told.sides[0],
            changed: &changed[0],
            rights: &told.sides[1],
        });
        assert_eq!(
            told.sum, expected,
            "seed {}, epoch {epoch}: {:?}",
            self.seed, told.sides
        );
    }

    fn random_changes(&self, random: &mut Random, side: usize, told: &Told) -> Vec<(Row, i64)> {
        let mut changed = Vec::new();
        let mut after = told.sides[side].clone();
        let only_grows = self.append_only && side == 0;
        for _ in 0..random.below(12) {
            let here: Vec<Row> = after.keys().copied().collect();
            let row = match !only_grows && !here.is_empty() && random.one_in(2) {
                true => *random.pick(&here),
                false => {
                    let mut value = |n: usize| match random.below(n + 1) {
                        0 => None,
                        v => Some(v as i64),
                    };
                    [value(3), value(6), value(3)]
                }
            };
            let goes = after.contains_key(&row) && !only_grows && random.one_in(2);
            let weight = if goes { -1 } else { 1 };
            changed.push((row, weight));
            *after.entry(row).or_default() += weight;
            after.retain(|_, weight| *weight != 0);
        }
        // In any order: a row may go before it comes.
        shuffle(random, &mut changed);
        changed
    }
}

/// Puts all into a random order.
pub fn shuffle<T>(random: &mut Random, all: &mut [T]) {
    for i in (1..all.len()).rev() {
        all.swap(i, random.below(i + 1));
    }
}

/// The worker of each vnode.
fn owner(vnode: u64, workers: usize) -> usize {
    vnode as usize % workers
}

fn routed(rows: &[(Row, i64)], workers: usize) -> Vec<Vec<(Row, i64)>> {
    let mut parts = vec![Vec::new(); workers];
    for (row, weight) in rows {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![row[0]]));
        let vnode = vnode_of_hash(hash_columns(&[key], 1)[0]);
        parts[owner(vnode as u64, workers)].push((*row, *weight));
    }
    parts
}

/// Seals an operator's tables.
pub fn seal(operator: &mut dyn Operator, durable: &mut Durable) {
    for table in operator.tables() {
        let spec = table.spec();
        let Some(delta) = table.seal() else {
            continue;
        };
        let key = |rows: &RecordBatch, vnodes: &[u16], i: usize| {
            let columns: Vec<usize> = (0..spec.key_columns).collect();
            let key = rows.slice(i, 1).project(&columns).expect("key columns");
            (spec.table, vnodes[i], format!("{:?}", key.columns()))
        };
        for i in 0..delta.deletes.num_rows() {
            let gone = durable.remove(&key(&delta.deletes, &delta.delete_vnodes, i));
            assert!(gone.is_some(), "what was never sealed");
        }
        for i in 0..delta.upserts.num_rows() {
            let key = key(&delta.upserts, &delta.upsert_vnodes, i);
            durable.insert(key, delta.upserts.slice(i, 1));
        }
        assert!(table.seal().is_none(), "nothing changed since");
    }
}

/// Gives each of new workers what is its own.
pub fn restore(workers: &mut [Box<dyn Operator>], durable: &Durable) {
    let count = workers.len();
    for (i, worker) in workers.iter_mut().enumerate() {
        for table in worker.tables() {
            let number = table.spec().table;
            let own = durable.iter().filter(|((table, vnode, _), _)| {
                *table == number && owner(u64::from(*vnode), count) == i
            });
            let rows: Vec<&RecordBatch> = own.map(|(_, row)| row).collect();
            for rows in rows.chunks(5) {
                let rows = concat_batches(&rows[0].schema(), rows.iter().copied());
                table.restore(&rows.expect("rows of one table"));
            }
        }
    }
}
