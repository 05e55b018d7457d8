//! Random histories of an operator, against a recomputation from the rows that are there: changes
//! (some ahead of their rows, rows several times, NULLs), barriers, seals and restores.

use crate::testing::{barrier, table};
use crate::{Operator, Out, RowError};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_common::random::Random;

/// A row: partition, sort key, value.
pub(super) type Row = [Option<i64>; 3];

/// The columns of a [`Row`].
pub(super) fn schema(columns: usize) -> SchemaRef {
    let names = [
        "p", "o", "x", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8",
    ];
    let fields = names[..columns]
        .iter()
        .map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn changes(rows: &[(Row, i64)]) -> ChangeBatch {
    let columns = (0..3).map(|c| {
        let values: Int64Array = rows.iter().map(|(row, _)| row[c]).collect();
        Arc::new(values) as ArrayRef
    });
    let batch = RecordBatch::try_new(schema(3), columns.collect()).expect("columns fit");
    ChangeBatch::new(batch, rows.iter().map(|r| r.1).collect())
}

/// The sum of what an operator has sent, by rows as text.
#[derive(Clone, Default)]
struct Sum(BTreeMap<String, i64>);

impl Out for Sum {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        assert!(!batch.is_empty(), "an empty batch is never sent");
        for line in table(&batch) {
            let (weight, row) = line.split_once(' ').expect("a weight and a row");
            let sum = self.0.entry(row.to_string()).or_default();
            *sum += weight.parse::<i64>().expect("a weight");
            if *sum == 0 {
                self.0.remove(row);
            }
        }
        Ok(())
    }
    fn row_error(&mut self, error: RowError) -> Result<()> {
        panic!("{error:?}")
    }
}

/// A row as an operator's output has it, as text.
pub(super) fn text(columns: &[Option<i64>]) -> String {
    let texts = columns
        .iter()
        .map(|c| c.map_or("-".to_string(), |c| c.to_string()));
    texts.collect::<Vec<_>>().join(" ")
}

/// What is asked of a history.
pub(super) struct History<'a> {
    pub seed: u64,
    /// Rows only come.
    pub append_only: bool,
    /// A checkpoint brings everything back.
    pub durable: bool,
    /// The operator, empty.
    pub operator: &'a dyn Fn() -> Box<dyn Operator>,
    /// The output by definition: rows as text, one per copy, of rows that are there in the order
    /// of their columns.
    pub expected: &'a dyn Fn(&[Row]) -> Vec<String>,
}

/// Rows of a checkpoint by their texts.
type Durable = BTreeMap<String, RecordBatch>;

impl History<'_> {
    /// Runs it.
    pub fn check(&self) {
        let mut random = Random(self.seed);
        let (mut operator, mut out) = ((self.operator)(), Sum::default());
        let mut rows = BTreeMap::<Row, i64>::new();
        let mut durable = Durable::new();
        let mut sealed = (rows.clone(), out.clone());
        let epochs = 4 + random.below(16) as u64;
        for epoch in 1..=epochs {
            // At the end everything goes.
            let last = epoch == epochs && !self.append_only;
            let changed = match last {
                true => rows.iter().map(|(row, weight)| (*row, -weight)).collect(),
                false => self.random_changes(&mut random, &rows),
            };
            for (row, weight) in &changed {
                *rows.entry(*row).or_default() += weight;
            }
            rows.retain(|_, weight| *weight != 0);
            for some in changed.chunks(1 + random.below(9)) {
                operator
                    .on_changes(0, changes(some), &mut out)
                    .expect("no failure");
            }
            operator
                .on_barrier(&barrier(epoch), &mut out)
                .expect("no failure");
            let copies = rows.iter().flat_map(|(row, n)| (0..*n).map(|_| *row));
            let mut expected = BTreeMap::<String, i64>::new();
            for row in (self.expected)(&copies.collect::<Vec<_>>()) {
                *expected.entry(row).or_default() += 1;
            }
            assert_eq!(
                out.0, expected,
                "seed {}, epoch {epoch}: {rows:?}",
                self.seed
            );
            if !self.durable {
                continue;
            }
            match random.below(4) {
                0 | 1 => {
                    seal(operator.as_mut(), &mut durable);
                    sealed = (rows.clone(), out.clone());
                }
                2 if !last => {
                    operator = (self.operator)();
                    restore(operator.as_mut(), &durable, &mut random);
                    (rows, out) = sealed.clone();
                }
                _ => {}
            }
            if last {
                seal(operator.as_mut(), &mut durable);
                assert!(durable.is_empty(), "seed {}: {durable:?}", self.seed);
            }
        }
    }

    fn random_changes(&self, random: &mut Random, rows: &BTreeMap<Row, i64>) -> Vec<(Row, i64)> {
        let mut changed = Vec::new();
        let mut after = rows.clone();
        for _ in 0..random.below(20) {
            let here: Vec<Row> = after.keys().copied().collect();
            if !self.append_only && !here.is_empty() && random.one_in(2) {
                let row = *random.pick(&here);
                changed.push((row, -1));
                let weight = after.get_mut(&row).expect("it is here");
                *weight -= 1;
                if *weight == 0 {
                    after.remove(&row);
                }
                continue;
            }
            let mut value = |n: usize| match random.below(n + 1) {
                0 => None,
                v => Some(v as i64),
            };
            let row = [value(2), value(5), value(2)];
            *after.entry(row).or_default() += 1;
            changed.push((row, 1));
        }
        // In any order: a row may go before it comes.
        for i in (1..changed.len()).rev() {
            changed.swap(i, random.below(i + 1));
        }
        changed
    }
}

fn seal(operator: &mut dyn Operator, durable: &mut Durable) {
    for table in operator.tables() {
        let mut said = std::collections::BTreeSet::new();
        if let Some(delta) = table.seal() {
            let row = |rows: &RecordBatch, i: usize| {
                let key = rows.slice(i, 1);
                let columns: Vec<usize> = (0..delta.deletes.num_columns()).collect();
                format!(
                    "{:?}",
                    key.project(&columns).expect("key columns").columns()
                )
            };
            for i in 0..delta.deletes.num_rows() {
                let key = row(&delta.deletes, i);
                assert!(
                    durable.remove(&key).is_some(),
                    "what was never sealed: {key}"
                );
                assert!(said.insert(key), "a key is told of once");
            }
            for i in 0..delta.upserts.num_rows() {
                let key = row(&delta.upserts, i);
                durable.insert(key.clone(), delta.upserts.slice(i, 1));
                assert!(said.insert(key), "a key is told of once");
            }
            assert_eq!(delta.upsert_vnodes.len(), delta.upserts.num_rows());
            assert_eq!(delta.delete_vnodes.len(), delta.deletes.num_rows());
        }
        assert!(table.seal().is_none(), "nothing changed since");
    }
}

fn restore(operator: &mut dyn Operator, durable: &Durable, random: &mut Random) {
    let rows: Vec<&RecordBatch> = durable.values().collect();
    let half = random.below(rows.len() + 1);
    for table in operator.tables() {
        for rows in [&rows[..half], &rows[half..]] {
            if let Some(first) = rows.first() {
                let rows = concat_batches(&first.schema(), rows.iter().copied());
                table.restore(&rows.expect("rows of one table"));
            }
        }
    }
}
