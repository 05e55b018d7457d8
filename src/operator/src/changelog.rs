//! The changelog of a relation as rows: what each epoch changed in it, in an order, numbered.
//!
//! **Algebra.** Of the changes of an epoch, after what cancels: one row for each row that comes or
//! goes, with what became of it ([`INSERT`] and the like). Where the input has a key, a row that
//! goes and one of the same key that comes are an update. The output only grows, and is the
//! same however the changes of an epoch were split into batches and spread over workers.
//!
//! **Numbers.** Each vnode counts for itself: the count goes on from the last one, and is at least
//! the epoch's first. A number is that count with the vnode in its midst, so that it is given once
//! in the whole relation, grows with each change of a row, and grows from epoch to epoch but where
//! one brings more rows of one vnode than an epoch has numbers for.
//!
//! **State.** The last count of each vnode.
//!
//! **Cost.** A sort of what changed, by vnode; nothing of the input is kept.

use crate::{Barrier, Operator, Out};
use arrow::array::{
    ArrayRef, AsArray, Int16Array, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::key::{encode_columns, encode_differences};
use tidemark_changelog::{ChangeBatch, hash_columns, vnode_of_hash};
use tidemark_common::{Epoch, Error, Result, VNODES};
use tidemark_state::{
    Apart, Parts, StateTable, TableDelta, TableForm, TableSpec, consolidate_fully,
};

/// A row has come.
pub const INSERT: i16 = 1;
/// A row has gone.
pub const DELETE: i16 = 2;
/// The row of a key as it is now.
pub const UPDATE_INSERT: i16 = 3;
/// The row of a key as it was.
pub const UPDATE_DELETE: i16 = 4;

/// Numbers that an epoch has for each vnode without going on into those of the next one.
const COUNT_BITS: u32 = 12;
const VNODE_BITS: u32 = VNODES.ilog2();

/// Rows of one batch.
const SENT_ROWS: usize = 4096;

/// `Op::Changelog`.
pub struct Changelog {
    output: SchemaRef,
    /// Columns of a unique key of the input.
    key: Option<Vec<usize>>,
    numbers: Numbers,
    epoch: Vec<ChangeBatch>,
}

/// The last count of each vnode.
struct Numbers {
    spec: TableSpec,
    last: Vec<i64>,
    /// Since the last seal.
    changed: Vec<bool>,
}

/// A change, where it stands in the order of its epoch.
struct Place {
    vnode: usize,
    /// Bytes of the key, and where the rest of the row begins behind them.
    key: (usize, usize),
    /// Where the bytes of the row end.
    end: usize,
    row: u32,
}

impl Changelog {
    /// Without changes. The output's columns are those of the input, then what became of the row,
    /// its number, the epoch and its time. Rows are here by the hash of the columns of `key`, of
    /// all columns without one. The state table is number `table`.
    pub fn new(output: SchemaRef, key: Option<Vec<usize>>, table: u32) -> Changelog {
        let columns = vec![
            Field::new("vnode", DataType::Int32, false),
            Field::new("last", DataType::Int64, false),
        ];
        let spec = TableSpec {
            table,
            form: TableForm::Keyed,
            schema: Arc::new(Schema::new(columns)),
            key_columns: 1,
        };
        Changelog {
            output,
            key,
            numbers: Numbers {
                spec,
                last: vec![0; VNODES],
                changed: vec![false; VNODES],
            },
            epoch: Vec::new(),
        }
    }

    /// The sum of an epoch's changes, each row once.
    fn net(&self, batches: Vec<ChangeBatch>, rest: &mut dyn FnMut()) -> ChangeBatch {
        let schema = batches[0].schema();
        if batches.iter().all(|batch| batch.weights().is_none()) {
            return ChangeBatch::concat(&schema, &batches);
        }
        let parts = Parts::of(batches.iter().map(ChangeBatch::num_rows).sum());
        let apart = Apart::new(batches, &[], parts, rest);
        let mut sums = Vec::with_capacity(apart.count());
        for part in 0..apart.count() {
            sums.push(consolidate_fully(&schema, &apart.part(part)));
            rest();
        }
        ChangeBatch::concat(&schema, &sums)
    }

    /// The changes in the order of their vnodes, keys and rows, what goes first; the second part is
    /// the bytes that they are ordered by.
    fn ordered(&self, net: &ChangeBatch, rest: &mut dyn FnMut()) -> (Vec<Place>, Vec<u8>) {
        let (mut places, mut bytes) = (Vec::with_capacity(net.num_rows()), Vec::new());
        let mut encoded: Vec<Vec<u8>> = Vec::new();
        for start in (0..net.num_rows()).step_by(SENT_ROWS) {
            let rows = SENT_ROWS.min(net.num_rows() - start);
            let some = net.slice(start, rows);
            let all = some.rows().columns();
            let key: Vec<ArrayRef> = match &self.key {
                Some(key) => key.iter().map(|c| some.column(*c).clone()).collect(),
                None => all.to_vec(),
            };
            let hashes = hash_columns(&key, rows);
            encoded.resize(rows, Vec::new());
            encoded.iter_mut().for_each(Vec::clear);
            encode_columns(&key, &mut encoded);
            let keys: Vec<usize> = encoded.iter().map(Vec::len).collect();
            for (at, row) in encoded.iter_mut().enumerate() {
                row.push(u8::from(some.weight(at) > 0));
            }
            encode_columns(all, &mut encoded);
            encode_differences(all, &mut encoded);
            for (at, row) in encoded.iter().enumerate() {
                let first = bytes.len();
                bytes.extend_from_slice(row);
                places.push(Place {
                    vnode: vnode_of_hash(hashes[at]),
                    key: (first, first + keys[at]),
                    end: bytes.len(),
                    row: (start + at) as u32,
                });
            }
            rest();
        }
        places.sort_by_key(|place| place.vnode);
        for vnode in places.chunk_by_mut(|a, b| a.vnode == b.vnode) {
            vnode.sort_unstable_by(|a, b| bytes[a.key.0..a.end].cmp(&bytes[b.key.0..b.end]));
            rest();
        }
        (places, bytes)
    }

    fn send(
        &self,
        net: &ChangeBatch,
        some: &Rows,
        barrier: &Barrier,
        out: &mut dyn Out,
    ) -> Result<()> {
        let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
        let rows = UInt32Array::from(some.rows.clone());
        let columns = net.rows().columns().iter();
        let taken: std::result::Result<Vec<ArrayRef>, _> =
            columns.map(|c| take(c, &rows, None)).collect();
        let mut columns = taken.map_err(internal)?;
        let epoch = Int64Array::from(vec![barrier.epoch.0 as i64; rows.len()]);
        let time = TimestampMicrosecondArray::from(vec![barrier.clock; rows.len()]);
        let time_type = self.output.field(columns.len() + 3).data_type();
        columns.push(Arc::new(Int16Array::from(some.ops.clone())));
        columns.push(Arc::new(Int64Array::from(some.numbers.clone())));
        columns.push(Arc::new(epoch));
        columns.push(Arc::new(time.with_data_type(time_type.clone())));
        let batch = RecordBatch::try_new(self.output.clone(), columns).map_err(internal)?;
        out.send(ChangeBatch::insert(batch))
    }
}

/// Rows of the output.
#[derive(Default)]
struct Rows {
    rows: Vec<u32>,
    ops: Vec<i16>,
    numbers: Vec<i64>,
}

impl Operator for Changelog {
    fn on_changes(&mut self, _port: usize, batch: ChangeBatch, _out: &mut dyn Out) -> Result<()> {
        self.epoch.push(batch);
        Ok(())
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        let batches = std::mem::take(&mut self.epoch);
        if batches.is_empty() {
            return Ok(());
        }
        let net = self.net(batches, &mut || out.look_up());
        let (places, bytes) = self.ordered(&net, &mut || out.look_up());
        let key = |place: &Place| &bytes[place.key.0..place.key.1];
        let mut some = Rows::default();
        for group in places.chunk_by(|a, b| a.vnode == b.vnode && key(a) == key(b)) {
            let is_update = self.key.is_some() && is_update(group, &net);
            for place in group {
                let weight = net.weight(place.row as usize);
                let op = match (is_update, weight > 0) {
                    (false, true) => INSERT,
                    (false, false) => DELETE,
                    (true, true) => UPDATE_INSERT,
                    (true, false) => UPDATE_DELETE,
                };
                for _ in 0..weight.unsigned_abs() {
                    some.rows.push(place.row);
                    some.ops.push(op);
                    some.numbers
                        .push(self.numbers.next(place.vnode, barrier.epoch));
                    if some.rows.len() == SENT_ROWS {
                        self.send(&net, &std::mem::take(&mut some), barrier, out)?;
                    }
                }
            }
        }
        match some.rows.is_empty() {
            true => Ok(()),
            false => self.send(&net, &some, barrier, out),
        }
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.numbers]
    }

    fn memory_bytes(&self) -> usize {
        self.epoch.iter().map(ChangeBatch::bytes).sum()
    }
}

/// Whether of one key one row goes and one comes.
fn is_update(group: &[Place], net: &ChangeBatch) -> bool {
    let weights = group.iter().map(|place| net.weight(place.row as usize));
    weights.eq([-1, 1])
}

impl Numbers {
    fn next(&mut self, vnode: usize, epoch: Epoch) -> i64 {
        let first = (epoch.0 as i64) << COUNT_BITS;
        let count = first.max(self.last[vnode] + 1);
        self.last[vnode] = count;
        self.changed[vnode] = true;
        let (high, low) = (count >> COUNT_BITS, count & ((1 << COUNT_BITS) - 1));
        (high << (VNODE_BITS + COUNT_BITS)) | ((vnode as i64) << COUNT_BITS) | low
    }
}

impl StateTable for Numbers {
    fn spec(&self) -> TableSpec {
        self.spec.clone()
    }

    fn seal_pieces(&mut self, each: &mut dyn FnMut(Option<TableDelta>)) {
        let changed = std::mem::replace(&mut self.changed, vec![false; VNODES]);
        let vnodes: Vec<u16> = (0..VNODES as u16)
            .filter(|v| changed[usize::from(*v)])
            .collect();
        if vnodes.is_empty() {
            return;
        }
        let keys: Int32Array = vnodes.iter().map(|v| Some(i32::from(*v))).collect();
        let last: Int64Array = vnodes
            .iter()
            .map(|v| Some(self.last[usize::from(*v)]))
            .collect();
        let schema = self.spec.schema.clone();
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(last)];
        let keys = Arc::new(Schema::new(vec![schema.field(0).clone()]));
        each(Some(TableDelta {
            upserts: RecordBatch::try_new(schema, columns).expect("columns fit"),
            upsert_vnodes: vnodes,
            deletes: RecordBatch::new_empty(keys),
            delete_vnodes: Vec::new(),
        }));
    }

    fn restore(&mut self, rows: &RecordBatch) {
        let vnodes = rows.column(0).as_primitive::<Int32Type>();
        let last = rows.column(1).as_primitive::<Int64Type>();
        for (vnode, last) in vnodes.values().iter().zip(last.values()) {
            self.last[*vnode as usize] = *last;
        }
    }

    fn memory_bytes(&self) -> usize {
        VNODES * 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Recorder, barrier, changes, schema, table};
    use std::collections::{BTreeMap, BTreeSet};
    use tidemark_common::random::Random;

    const INPUT: &str = "k i64, v text";
    const OUTPUT: &str = "k i64, v text, op i16, number i64, epoch i64, at tstz";

    fn operator(key: Option<Vec<usize>>) -> Changelog {
        Changelog::new(schema(OUTPUT), key, 0)
    }

    /// What was sent: the row, what became of it, its number.
    fn lines(out: &mut Recorder) -> Vec<(String, i16, i64)> {
        let mut lines = Vec::new();
        for batch in std::mem::take(&mut out.batches) {
            assert!(batch.weights().is_none());
            for (row, line) in table(&batch.project(&[0, 1])).into_iter().enumerate() {
                let op = batch.column(2).as_any().downcast_ref::<Int16Array>();
                let number = batch.column(3).as_primitive::<Int64Type>().value(row);
                lines.push((line[3..].to_string(), op.unwrap().value(row), number));
            }
        }
        lines
    }

    #[test]
    fn a_row_of_a_key_that_goes_and_one_that_comes_are_an_update() {
        let mut out = Recorder::default();
        let run = |key: Option<Vec<usize>>, text: &str, out: &mut Recorder| {
            let mut operator = operator(key);
            operator.on_changes(0, changes(INPUT, text), out).unwrap();
            operator.on_barrier(&barrier(7), out).unwrap();
            let mut lines = lines(out);
            lines.sort_by(|a, b| (&a.0[..1], a.2).cmp(&(&b.0[..1], b.2)));
            let shown = lines.into_iter().map(|(row, op, _)| format!("{row} {op}"));
            shown.collect::<Vec<_>>()
        };
        let text = "1 1 b\n-1 1 a\n1 2 c\n-1 3 d\n1 4 e\n-1 4 e";
        let keyed = ["1 a 4", "1 b 3", "2 c 1", "3 d 2"];
        assert_eq!(run(Some(vec![0]), text, &mut out), keyed);
        let mut unkeyed = run(None, text, &mut out);
        unkeyed.sort();
        assert_eq!(unkeyed, ["1 a 2", "1 b 1", "2 c 1", "3 d 2"]);
        assert_eq!(
            run(None, "2 1 a\n1 1 a", &mut out),
            ["1 a 1", "1 a 1", "1 a 1"]
        );
    }

    #[test]
    fn an_epoch_with_more_rows_than_it_has_numbers_takes_those_of_the_next() {
        let (mut out, mut operator) = (Recorder::default(), operator(Some(Vec::new())));
        let mut seen = BTreeSet::new();
        for epoch in 1..4 {
            let rows = (0..6000).map(|v| format!("1 {v} x\n")).collect::<String>();
            operator
                .on_changes(0, changes(INPUT, &rows), &mut out)
                .unwrap();
            operator.on_barrier(&barrier(epoch), &mut out).unwrap();
            for (_, _, number) in lines(&mut out) {
                assert!(seen.last().is_none_or(|last| *last < number));
                seen.insert(number);
            }
        }
        assert_eq!(seen.len(), 18_000);
    }

    /// A random history: by epoch, the rows of each key before and after, in changes that come in
    /// any order.
    fn history(random: &mut Random) -> Vec<Vec<String>> {
        let mut rows = BTreeMap::<usize, usize>::new();
        let mut epochs = Vec::new();
        for _ in 0..12 {
            let mut epoch = Vec::new();
            for _ in 0..random.below(40) {
                let (key, value) = (random.below(25), random.below(4));
                if let Some(old) = rows.remove(&key) {
                    epoch.push(format!("-1 {key} v{old}"));
                }
                if random.below(3) > 0 {
                    epoch.push(format!("1 {key} v{value}"));
                    rows.insert(key, value);
                }
            }
            epochs.push(epoch);
        }
        epochs
    }

    /// The sum of an epoch by row.
    fn sums(epoch: &[String]) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for line in epoch {
            let (weight, row) = line.split_once(' ').unwrap();
            *sums.entry(row.to_string()).or_default() += weight.parse::<i64>().unwrap();
        }
        sums.retain(|_, sum| *sum != 0);
        sums
    }

    /// Runs a history on some workers, with a restart after each epoch that `restarts` says.
    fn run(
        key: Option<Vec<usize>>,
        history: &[Vec<String>],
        random: &mut Random,
    ) -> Vec<Vec<(String, i16, i64)>> {
        let mut durable = BTreeMap::<i32, RecordBatch>::new();
        let mut workers = vec![operator(key.clone())];
        let mut sent = Vec::new();
        for (number, epoch) in history.iter().enumerate() {
            let (mut epoch, mut out) = (epoch.clone(), Recorder::default());
            for at in (1..epoch.len()).rev() {
                epoch.swap(at, random.below(at + 1));
            }
            for some in epoch.chunks(1 + random.below(7)) {
                let all = changes(INPUT, &some.join("\n"));
                let columns = match &key {
                    Some(_) => vec![all.column(0).clone()],
                    None => all.rows().columns().to_vec(),
                };
                let hashes = hash_columns(&columns, all.num_rows());
                for (row, hash) in hashes.iter().enumerate() {
                    let worker = vnode_of_hash(*hash) * workers.len() / VNODES;
                    let one = all.slice(row, 1);
                    workers[worker].on_changes(0, one, &mut out).unwrap();
                }
            }
            for worker in &mut workers {
                worker
                    .on_barrier(&barrier(number as u64 + 1), &mut out)
                    .unwrap();
            }
            let mut lines = lines(&mut out);
            lines.sort_by_key(|line| line.2);
            sent.push(lines);
            if random.below(3) == 0 {
                for worker in &mut workers {
                    worker.numbers.seal_pieces(&mut |piece| {
                        let rows = piece.unwrap().upserts;
                        for row in 0..rows.num_rows() {
                            let vnode = rows.column(0).as_primitive::<Int32Type>().value(row);
                            durable.insert(vnode, rows.slice(row, 1));
                        }
                    });
                }
                let count = 1 + random.below(4);
                workers = (0..count).map(|_| operator(key.clone())).collect();
                for (vnode, row) in &durable {
                    let worker = *vnode as usize * count / VNODES;
                    workers[worker].numbers.restore(row);
                }
            }
        }
        sent
    }

    #[test]
    fn changes_are_the_same_however_they_come() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let key = (seed % 2 == 0).then(|| vec![0]);
            let history = history(&mut random);
            let sent = run(key.clone(), &history, &mut random);
            let again = run(key.clone(), &history, &mut random);
            assert_eq!(sent, again, "seed {seed}");
            let mut numbers = BTreeSet::new();
            for (epoch, lines) in history.iter().zip(&sent) {
                let mut told = BTreeMap::<String, i64>::new();
                let mut of_key = BTreeMap::<&str, Vec<i16>>::new();
                for (row, op, number) in lines {
                    let comes = matches!(*op, INSERT | UPDATE_INSERT);
                    *told.entry(row.clone()).or_default() += if comes { 1 } else { -1 };
                    let key = row.split(' ').next().unwrap();
                    of_key.entry(key).or_default().push(*op);
                    assert!(numbers.last().is_none_or(|last| last < number));
                    numbers.insert(*number);
                }
                assert_eq!(told, sums(epoch), "seed {seed}");
                let expected: [&[i16]; 3] = [&[INSERT], &[DELETE], &[UPDATE_DELETE, UPDATE_INSERT]];
                let keyed = of_key.values().all(|ops| expected.contains(&&ops[..]));
                assert!(key.is_none() || keyed, "seed {seed}: {of_key:?}");
            }
        }
    }
}
