//! Each kind of view against a plain bag of rows per epoch: random epochs, merges, reads of any
//! pinned epoch, seals, and restores from what was sealed.

use super::*;
use crate::testing::{Random, column, row_texts, texts};
use crate::{StateTable, TableDelta, TableForm};
use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use std::collections::BTreeMap;
use tidemark_common::VNODES;

/// Rows of a relation as text, with how often each is there.
type Bag = BTreeMap<String, i64>;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Shape {
    Keyed,
    Multiset,
    AppendOnly,
}

fn schema() -> SchemaRef {
    let fields = [
        ("v", DataType::Float64),
        ("k", DataType::Utf8),
        ("v", DataType::Utf8),
        ("j", DataType::Int64),
    ];
    Arc::new(Schema::new(
        fields.map(|(name, t)| Field::new(name, t, true)).to_vec(),
    ))
}

fn view_table(shape: Shape) -> ViewTable {
    ViewTable::new(Arc::new(ViewPartition::new(ViewOptions {
        name: "r".into(),
        schema: schema(),
        key: (shape == Shape::Keyed).then(|| vec![3, 1]),
        append_only: shape == Shape::AppendOnly,
        table: 4,
        vnode_of_worker: 9,
        partitioned_by_key: shape != Shape::AppendOnly,
    })))
}

/// What a checkpoint holds: rows of the table by vnode and key.
#[derive(Default)]
struct Durable {
    rows: BTreeMap<(u16, String), RecordBatch>,
    /// Rows whose keys have changed since, which older files still have.
    older: Vec<((u16, String), RecordBatch)>,
}

impl Durable {
    fn add(&mut self, key_columns: usize, delta: &TableDelta) {
        let key = |rows: &RecordBatch| row_texts(&rows.columns()[..key_columns], rows.num_rows());
        assert_eq!(
            (delta.upserts.num_rows(), delta.deletes.num_rows()),
            (delta.upsert_vnodes.len(), delta.delete_vnodes.len())
        );
        let mut told = std::collections::BTreeSet::new();
        for (vnode, key) in delta.delete_vnodes.iter().zip(key(&delta.deletes)) {
            assert!(told.insert((*vnode, key.clone())), "{key} was told twice");
            self.rows.remove(&(*vnode, key));
        }
        for (row, (vnode, key)) in delta
            .upsert_vnodes
            .iter()
            .zip(key(&delta.upserts))
            .enumerate()
        {
            assert!(
                usize::from(*vnode) < VNODES && told.insert((*vnode, key.clone())),
                "{key} was told twice"
            );
            let key = (*vnode, key);
            let now = delta.upserts.slice(row, 1);
            let before = self.rows.insert(key.clone(), now);
            self.older.extend(before.map(|before| (key, before)));
        }
    }

    fn restore(&self, table: &mut ViewTable) {
        let rows: Vec<&RecordBatch> = self.rows.values().collect();
        for part in rows.chunks(7) {
            table.restore(
                &arrow::compute::concat_batches(&table.spec().schema, part.iter().copied())
                    .unwrap(),
            );
        }
        let hidden = self.older.iter().rev();
        let hidden = hidden.filter(|(key, _)| self.rows.contains_key(key));
        hidden.for_each(|(_, row)| table.restore(row));
    }
}

struct World {
    shape: Shape,
    table: ViewTable,
    durable: Durable,
    sealed: Epoch,
    /// The relation after each epoch that may still be read, and as rows for making retractions.
    epochs: BTreeMap<Epoch, Bag>,
    last: Epoch,
    /// The rows there now, one batch each.
    present: Vec<RecordBatch>,
    sealed_present: Vec<RecordBatch>,
}

impl World {
    fn new(shape: Shape) -> World {
        let epochs = BTreeMap::from([(Epoch(0), Bag::new())]);
        World {
            shape,
            table: view_table(shape),
            durable: Durable::default(),
            sealed: Epoch(0),
            epochs,
            last: Epoch(0),
            present: Vec::new(),
            sealed_present: Vec::new(),
        }
    }

    fn row(&self, rng: &mut Random) -> RecordBatch {
        let columns = schema()
            .fields()
            .iter()
            .map(|f| column(rng, f.data_type(), 1, 5, true))
            .collect();
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn key_of(row: &RecordBatch) -> String {
        texts(&[row.column(3).clone(), row.column(1).clone()], 1).remove(0)
    }

    /// One epoch of random changes, shuffled over a few batches.
    fn epoch(&mut self, rng: &mut Random) {
        self.last = self.last.next();
        let mut changes: Vec<(RecordBatch, i64)> = Vec::new();
        for _ in 0..rng.below(12) {
            if self.shape != Shape::AppendOnly && !self.present.is_empty() && rng.below(3) == 0 {
                let row = self.present.swap_remove(rng.below(self.present.len()));
                changes.push((row, -1));
                continue;
            }
            let row = self.row(rng);
            if self.shape == Shape::Keyed
                && let Some(at) = self
                    .present
                    .iter()
                    .position(|r| World::key_of(r) == World::key_of(&row))
            {
                changes.push((self.present.swap_remove(at), -1));
            }
            self.present.push(row.clone());
            changes.push((row, 1));
        }
        (1..changes.len()).for_each(|i| changes.swap(i, rng.below(i + 1)));
        let batches = changes.chunks(4).map(|part| {
            let rows =
                arrow::compute::concat_batches(&schema(), part.iter().map(|(r, _)| r)).unwrap();
            ChangeBatch::new(rows, part.iter().map(|(_, w)| *w).collect())
        });
        self.table.view().append(self.last, batches.collect());
        self.epochs.insert(self.last, bag(&self.present));
    }

    fn seal(&mut self) {
        if let Some(delta) = self.table.seal() {
            self.durable.add(self.table.spec().key_columns, &delta);
        }
        assert!(
            self.table
                .seal()
                .is_none_or(|d| d.upserts.num_rows() + d.deletes.num_rows() > 0)
        );
        (self.sealed, self.sealed_present) = (self.last, self.present.clone());
        assert_eq!(
            self.durable.rows.len(),
            if self.shape == Shape::Multiset {
                bag(&self.present).len()
            } else {
                self.present.len()
            }
        );
    }

    fn restart(&mut self) {
        self.table = view_table(self.shape);
        self.durable.restore(&mut self.table);
        (self.last, self.present) = (self.sealed, self.sealed_present.clone());
        self.epochs = BTreeMap::from([(self.last, bag(&self.present))]);
    }

    fn merge(&mut self, up_to: Epoch) {
        assert!(self.table.view().merge(up_to));
        self.epochs.retain(|e, _| *e >= up_to);
    }

    fn check(&mut self, rng: &mut Random) {
        let readable: Vec<Epoch> = self.epochs.keys().copied().collect();
        let epoch = readable[rng.below(readable.len())];
        let mergeable = readable[rng.below(readable.len())].min(epoch);
        let expected = &self.epochs[&epoch];
        let view = self.table.view().clone();
        let total: i64 = expected.values().sum();
        assert_eq!(view.row_count(epoch, mergeable).unwrap(), total as u64);
        let rows = view.read_at(epoch, mergeable, &[0, 1, 2, 3], 3).unwrap();
        assert!(rows.iter().all(|b| (1..=3).contains(&b.num_rows())));
        assert_eq!(bag(&rows), *expected);
        let pieces = view.reading(epoch, mergeable, &[0, 1, 2, 3], 3).unwrap();
        let pieces = all_pieces(pieces);
        assert!(pieces.iter().all(|b| (1..=3).contains(&b.num_rows())));
        assert_eq!(bag(&pieces), *expected);
        assert_eq!(
            view.read_at(epoch, mergeable, &[], 4)
                .unwrap()
                .iter()
                .map(RecordBatch::num_rows)
                .sum::<usize>(),
            total as usize
        );
        if self.shape == Shape::Keyed {
            let keys: Vec<ArrayRef> = vec![
                column(rng, &DataType::Int64, 4, 6, true),
                column(rng, &DataType::Utf8, 4, 6, true),
            ];
            let wanted = texts(&keys, 4);
            let found = view.lookup(epoch, mergeable, &keys, (&[0, 1, 2, 3], view.schema()));
            let all: Vec<RecordBatch> = rows
                .iter()
                .flat_map(|b| (0..b.num_rows()).map(|i| b.slice(i, 1)))
                .filter(|r| wanted.contains(&World::key_of(r)))
                .collect();
            assert_eq!(bag(&[found.unwrap()]), bag(&all));
        }
        self.check_lookups_by_index(rng, (epoch, mergeable), &rows);
        let (mut answer, mut read_back) = (Durable::default(), view_table(self.shape));
        let key_columns = self.table.spec().key_columns;
        let told = self.table.answer_at(epoch, mergeable, 3, |delta| {
            answer.add(key_columns, &delta);
            Ok(())
        });
        told.unwrap();
        answer.restore(&mut read_back);
        let rows = read_back
            .view()
            .read_at(Epoch(0), Epoch(0), &[0, 1, 2, 3], 3);
        assert_eq!(bag(&rows.unwrap()), *expected);
        self.epochs.retain(|e, _| *e >= mergeable);
    }
}

impl World {
    /// Lookups by some columns find what a scan finds, whatever indexes there are.
    fn check_lookups_by_index(
        &self,
        rng: &mut Random,
        (epoch, mergeable): (Epoch, Epoch),
        rows: &[RecordBatch],
    ) {
        let view = self.table.view();
        let by: &[usize] = [&[1][..], &[3], &[2], &[3, 1], &[0, 2]][rng.below(5)];
        if rng.below(10) == 0 {
            view.retain_indexes(|columns| columns != by);
        }
        let value =
            |rng: &mut Random, c: &usize| column(rng, schema().field(*c).data_type(), 1, 5, true);
        let values: Vec<ArrayRef> = by.iter().map(|c| value(rng, c)).collect();
        let wanted = texts(&values, 1).remove(0);
        let every = (&[0, 1, 2, 3][..], view.schema());
        let found = view.lookup_by(epoch, mergeable, (by, &values), every);
        let every = rows
            .iter()
            .flat_map(|b| (0..b.num_rows()).map(|i| b.slice(i, 1)));
        let matching = every.filter(|r| texts(r.project(by).unwrap().columns(), 1)[0] == wanted);
        let matching: Vec<RecordBatch> = matching.collect();
        assert_eq!(bag(&[found.unwrap()]), bag(&matching), "{by:?} {wanted}");
    }
}

/// In pieces of three rows, of which those at the end of the base may be smaller.
fn all_pieces(mut reading: Reading) -> Vec<RecordBatch> {
    std::iter::from_fn(|| reading.next_piece().unwrap()).collect()
}

fn bag(batches: &[RecordBatch]) -> Bag {
    let mut bag = Bag::new();
    for text in batches
        .iter()
        .flat_map(|b| row_texts(b.columns(), b.num_rows()))
    {
        *bag.entry(text).or_default() += 1;
    }
    bag
}

fn run(shape: Shape, seed: u64) {
    let mut rng = Random(seed);
    let mut world = World::new(shape);
    for _ in 0..60 {
        match rng.below(8) {
            0..4 => world.epoch(&mut rng),
            4 => {
                let readable: Vec<Epoch> = world.epochs.keys().copied().collect();
                world.merge(readable[rng.below(readable.len())]);
            }
            5 => world.seal(),
            6 if rng.below(3) == 0 => world.restart(),
            _ => {}
        }
        world.check(&mut rng);
    }
}

#[test]
fn keyed_views_agree_with_a_bag() {
    (0..150).for_each(|seed| run(Shape::Keyed, seed));
}

#[test]
fn multiset_views_agree_with_a_bag() {
    (0..150).for_each(|seed| run(Shape::Multiset, seed));
}

#[test]
fn append_only_views_agree_with_a_bag() {
    (0..150).for_each(|seed| run(Shape::AppendOnly, seed));
}

/// Readers come, stay and go; what they do not need is merged and summed, at times with a seal or a
/// merge in between, and everybody keeps reading the rows of his epoch.
fn run_pinned(shape: Shape, seed: u64) {
    let mut rng = Random(seed);
    let mut world = World::new(shape);
    let mut pins: Vec<Epoch> = Vec::new();
    let mut readings: Vec<(Epoch, Reading, Vec<RecordBatch>)> = Vec::new();
    let mut published = Epoch(0);
    for _ in 0..100 {
        match rng.below(10) {
            0..4 => world.epoch(&mut rng),
            4 => {
                pins.push(published);
                let first = *pins.iter().min().unwrap();
                let view = world.table.view();
                let reading = view.reading(published, first, &[0, 1, 2, 3], 2).unwrap();
                readings.push((published, reading, Vec::new()));
            }
            5 if !pins.is_empty() => {
                let pin = pins.swap_remove(rng.below(pins.len()));
                readings.retain(|(epoch, ..)| *epoch != pin);
            }
            6 => world.seal(),
            7 if rng.below(8) == 0 => {
                world.restart();
                pins.clear();
                readings.clear();
                published = world.last;
            }
            _ => {}
        }
        // The newest epochs may be on their way still.
        let ahead = Epoch(world.last.0 - rng.below(3).min(world.last.0 as usize) as u64);
        published = published.max(ahead);
        let mut needed = pins.clone();
        needed.push(published);
        needed.sort();
        needed.dedup();
        let view = world.table.view().clone();
        match rng.below(4) {
            0 => _ = view.settle(&needed),
            1 => _ = view.settle_some(&needed, 1 + rng.below(6)),
            _ => view.sum_pending(&needed),
        }
        let readable = |e: &Epoch| *e >= published || needed.contains(e);
        world.epochs.retain(|e, _| readable(e));
        for (epoch, expected) in &world.epochs {
            let rows = view.read_at(*epoch, needed[0], &[0, 1, 2, 3], 7).unwrap();
            assert_eq!(
                bag(&rows),
                *expected,
                "seed {seed}, epoch {epoch} of {needed:?}"
            );
            let total: i64 = expected.values().sum();
            assert_eq!(view.row_count(*epoch, needed[0]).unwrap(), total as u64);
            world.check_lookups_by_index(&mut rng, (*epoch, needed[0]), &rows);
        }
        readings.retain_mut(|(epoch, reading, read)| {
            let piece = reading.next_piece().unwrap();
            let goes_on = piece.is_some();
            read.extend(piece);
            if !goes_on {
                assert_eq!(bag(read), world.epochs[epoch], "seed {seed}, {epoch}");
            }
            goes_on
        });
        for given_up in (0..published.0).map(Epoch).filter(|e| !readable(e)) {
            match view.read_at(given_up, Epoch(0), &[0], 7) {
                Err(error) => assert_eq!(error.state(), SqlState("72000")),
                // Not merged and not summed yet: it reads what it read before, or is refused.
                Ok(_) => {}
            }
        }
    }
}

#[test]
fn pinned_epochs_stay_as_they_are() {
    for shape in [Shape::Keyed, Shape::Multiset, Shape::AppendOnly] {
        (0..100).for_each(|seed| run_pinned(shape, seed));
    }
}

/// `rows` rows of keys from `from` on, which leave and come back with `value`.
fn updates(from: i64, rows: i64, old: Option<i64>, new: i64) -> ChangeBatch {
    let null = |t: DataType, n: usize| arrow::array::new_null_array(&t, n);
    let batch = |value: i64| {
        let text = arrow::array::StringArray::from(vec![value.to_string(); rows as usize]);
        let columns: Vec<ArrayRef> = vec![
            null(DataType::Float64, rows as usize),
            null(DataType::Utf8, rows as usize),
            Arc::new(text),
            Arc::new(Int64Array::from_iter_values(from..from + rows)),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    };
    let mut parts = vec![ChangeBatch::insert(batch(new))];
    parts.extend(old.map(|old| ChangeBatch::new(batch(old), vec![-1; rows as usize])));
    ChangeBatch::concat(&schema(), &parts)
}

#[test]
fn many_updates_of_few_keys_under_a_pin_cost_the_keys() {
    const KEYS: i64 = 1000;
    let mut table = view_table(Shape::Keyed);
    let view = table.view().clone();
    view.append(Epoch(1), vec![updates(0, KEYS, None, 0)]);
    view.settle(&[Epoch(1)]);
    let mut written = 0;
    for epoch in 2..2002 {
        // A tenth of the keys each epoch, all of them every ten.
        let (round, part) = ((epoch - 2) / 10, (epoch as i64 - 2) % 10);
        let change = updates(part * 100, 100, Some(round), round + 1);
        written += change.num_rows();
        view.append(Epoch(epoch as u64), vec![change]);
        view.settle(&[Epoch(1), Epoch(epoch as u64)]);
        assert!(view.pending_rows() <= 8 * KEYS as usize, "{epoch}");
        if epoch % 20 == 0 {
            let delta = table.seal().unwrap();
            assert!(delta.upserts.num_rows() <= KEYS as usize);
        }
    }
    assert_eq!(written, 2000 * 200);
    let value = |epoch| {
        let rows = view.read_at(Epoch(epoch), Epoch(1), &[2], 10_000).unwrap();
        row_texts(rows[0].columns(), 1).remove(0)
    };
    assert!(!value(1).contains("200") && value(2001).contains("200"));
    // The reader goes: nothing is pending any more.
    view.settle(&[Epoch(2001)]);
    assert_eq!(view.pending_rows(), 0);
}

#[test]
fn an_epoch_that_was_given_up_is_refused() {
    let table = view_table(Shape::Keyed);
    let view = table.view().clone();
    for epoch in 1..=8 {
        view.append(Epoch(epoch), vec![one(epoch as i64, 1)]);
    }
    view.settle(&[Epoch(1), Epoch(4), Epoch(8)]);
    let state = |epoch| {
        view.row_count(Epoch(epoch), Epoch(0))
            .map_err(|e| e.state())
    };
    assert_eq!(state(4), Ok(4));
    // Within a group, and before the base.
    view.settle(&[Epoch(1), Epoch(8)]);
    assert_eq!(state(4), Err(SqlState("72000")));
    view.settle(&[Epoch(8)]);
    assert_eq!(state(1), Err(SqlState("72000")));
    assert_eq!(state(8), Ok(8));
}

#[test]
fn a_lookup_finds_rows_of_large_groups() {
    let table = view_table(Shape::Keyed);
    let view = table.view().clone();
    view.append(Epoch(1), vec![updates(0, 5000, None, 0)]);
    view.settle(&[Epoch(1)]);
    view.append(Epoch(2), vec![updates(0, 4000, Some(0), 1)]);
    view.append(Epoch(3), vec![updates(1000, 3000, Some(1), 2)]);
    let key = |j: i64| -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(vec![j])),
            arrow::array::new_null_array(&DataType::Utf8, 1),
        ]
    };
    let value = |epoch, j| {
        let schema = Arc::new(view.schema().project(&[2]).unwrap());
        let rows = view.lookup(Epoch(epoch), Epoch(1), &key(j), (&[2], &schema));
        let rows = rows.unwrap();
        row_texts(rows.columns(), rows.num_rows())
    };
    view.sum_pending(&[Epoch(1), Epoch(3)]);
    for j in [0, 999, 3999, 4999] {
        let all = view.read_at(Epoch(3), Epoch(1), &[2, 3], 10_000).unwrap();
        let wanted: Vec<String> = all
            .iter()
            .flat_map(|b| (0..b.num_rows()).map(|i| b.slice(i, 1)))
            .filter(|b| b.column(1).as_ref() == key(j)[0].as_ref())
            .flat_map(|b| row_texts(&b.columns()[..1], 1))
            .collect();
        assert_eq!(value(3, j), wanted, "{j}");
    }
    assert_ne!(value(1, 0), value(3, 0));
}

#[test]
fn tables_have_their_key_first_and_unique_names() {
    let names = |shape| {
        view_table(shape)
            .spec()
            .schema
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(Shape::Keyed), ["j", "k", "v", "v_1"]);
    assert_eq!(names(Shape::Multiset), ["v", "k", "v_1", "j", "_weight"]);
    assert_eq!(names(Shape::AppendOnly), ["_seq", "v", "k", "v_1", "j"]);
    assert_eq!(
        [Shape::Keyed, Shape::Multiset, Shape::AppendOnly]
            .map(|s| view_table(s).spec().key_columns),
        [2, 4, 1]
    );
    assert_eq!(
        [Shape::Keyed, Shape::Multiset, Shape::AppendOnly].map(|s| view_table(s).spec().form),
        [TableForm::Keyed, TableForm::Multiset, TableForm::Appended]
    );
}

fn one(j: i64, weight: i64) -> ChangeBatch {
    let null = |t: DataType| arrow::array::new_null_array(&t, 1);
    let columns: Vec<ArrayRef> = vec![
        null(DataType::Float64),
        null(DataType::Utf8),
        null(DataType::Utf8),
        Arc::new(Int64Array::from(vec![j])),
    ];
    ChangeBatch::new(
        RecordBatch::try_new(schema(), columns).unwrap(),
        vec![weight],
    )
}

#[test]
#[should_panic(expected = "r: a row was retracted that is not there")]
fn a_keyed_row_that_is_not_there_cannot_go() {
    let table = view_table(Shape::Keyed);
    table.view().append(Epoch(1), vec![one(1, -1)]);
    table.view().merge(Epoch(1));
}

#[test]
#[should_panic(expected = "r: two rows have one key")]
fn a_key_is_there_once() {
    let table = view_table(Shape::Keyed);
    table.view().append(Epoch(1), vec![one(1, 1)]);
    table.view().append(Epoch(2), vec![one(1, 1)]);
    table.view().merge(Epoch(2));
}

#[test]
#[should_panic(expected = "r: a row was retracted that is not there")]
fn a_multiset_row_that_is_not_there_cannot_go() {
    let table = view_table(Shape::Multiset);
    table.view().append(Epoch(1), vec![one(1, -1)]);
    table.view().merge(Epoch(1));
}

/// It is found out again and again, not passed over in silence from then on.
#[test]
fn changes_that_do_not_sum_end_no_later_sum() {
    let table = view_table(Shape::Multiset);
    let view = table.view();
    view.append(Epoch(1), vec![one(1, i64::MAX)]);
    view.append(Epoch(2), vec![one(1, i64::MAX)]);
    for _ in 0..2 {
        let sum = || view.sum_pending(&[Epoch(0), Epoch(2)]);
        let summed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(sum));
        assert!(summed.is_err());
    }
}

#[test]
#[should_panic(expected = "r: a row was retracted from an append-only relation")]
fn an_append_only_row_stays() {
    let table = view_table(Shape::AppendOnly);
    table.view().append(Epoch(1), vec![one(1, -1)]);
    table.view().merge(Epoch(1));
}

#[test]
fn a_merge_does_not_wait_for_a_reader() {
    let table = view_table(Shape::Keyed);
    table.view().append(Epoch(1), vec![one(1, 1)]);
    let reader = table.view().base.read();
    assert!(!table.view().merge(Epoch(1)));
    table.view().append(Epoch(2), vec![one(2, 1)]);
    drop(reader);
    assert!(table.view().merge(Epoch(1)));
    assert_eq!(table.view().row_count(Epoch(1), Epoch(1)).unwrap(), 1);
    assert_eq!(table.view().row_count(Epoch(2), Epoch(1)).unwrap(), 2);
}
