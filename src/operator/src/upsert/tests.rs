//! Inline tables of writes and changes, and random writes against a map with random seals and restores.

use super::*;
use crate::RowError;
use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::{Field, Int64Type};
use std::collections::BTreeMap;

#[derive(Default)]
struct Collected(Vec<ChangeBatch>);

impl Out for Collected {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        self.0.push(batch);
        Ok(())
    }
    fn row_error(&mut self, error: RowError) -> Result<()> {
        panic!("{error:?}");
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8, true), Field::new("k", DataType::Int64, true)]))
}

fn operator(conflict: Conflict) -> Upsert {
    Upsert::new(schema(), vec![1], conflict, 0)
}

/// One `weight key value` per line; `-` is NULL.
fn writes(table: &str) -> ChangeBatch {
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).filter(|l| !l.is_empty()).collect();
    let keys = Int64Array::from_iter(lines.iter().map(|l| l[1].parse::<i64>().ok()));
    let values = StringArray::from_iter(lines.iter().map(|l| (l[2] != "-").then_some(l[2])));
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(values), Arc::new(keys)]).unwrap();
    ChangeBatch::new(rows, lines.iter().map(|l| format!("{}1", l[0]).parse().unwrap()).collect())
}

fn table(changes: &ChangeBatch) -> Vec<String> {
    let (v, k) = (changes.column(0).as_string::<i32>(), changes.column(1).as_primitive::<Int64Type>());
    let key = |i: usize| if k.is_null(i) { "-".into() } else { k.value(i).to_string() };
    (0..changes.num_rows()).map(|i| format!("{:+} {} {}", changes.weight(i), key(i), if v.is_null(i) { "-" } else { v.value(i) })).collect()
}

fn step(operator: &mut Upsert, input: &str) -> Vec<String> {
    let mut out = Collected::default();
    operator.on_changes(0, writes(input), &mut out).unwrap();
    assert!(out.0.len() <= 1 && out.0.iter().all(|b| !b.is_empty()));
    out.0.iter().flat_map(table).collect()
}

#[test]
fn overwrite() {
    let mut o = operator(Conflict::Overwrite);
    assert_eq!(step(&mut o, "+ 1 a\n+ 2 b\n+ - c"), ["+1 1 a", "+1 2 b", "+1 - c"]);
    assert_eq!(step(&mut o, "+ 1 a"), [""; 0]);
    assert_eq!(step(&mut o, "+ 1 x\n+ 1 y"), ["-1 1 a", "+1 1 y"]);
    assert_eq!(step(&mut o, "+ 1 x\n+ 1 y"), [""; 0]);
    assert_eq!(step(&mut o, "- 7 -"), [""; 0]);
    assert_eq!(step(&mut o, "- 2 -\n+ 3 n\n- 3 -\n- - -"), ["-1 2 b", "-1 - c"]);
    assert_eq!(step(&mut o, "- 1 -\n+ 1 -\n+ 2 z"), ["-1 1 y", "+1 2 z", "+1 1 -"]);
}

#[test]
fn ignore() {
    let mut o = operator(Conflict::Ignore);
    assert_eq!(step(&mut o, "+ 1 a\n+ 1 b"), ["+1 1 a"]);
    assert_eq!(step(&mut o, "+ 1 c"), [""; 0]);
    assert_eq!(step(&mut o, "- 1 -\n+ 1 d\n+ 1 e"), ["-1 1 a", "+1 1 d"]);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Applies changes to a relation, and checks that what goes was there.
fn add(relation: &mut BTreeMap<String, String>, changes: &[String]) {
    for (sign, change) in changes.iter().map(|c| c.split_once(' ').unwrap()) {
        let (key, value) = change.split_once(' ').unwrap();
        if sign == "-1" {
            assert_eq!(relation.remove(key).as_deref(), Some(value));
        } else {
            assert!(relation.insert(key.into(), value.into()).is_none());
        }
    }
}

fn random(conflict: Conflict, seed: u64) {
    let mut rng = Rng(seed);
    let mut o = operator(conflict);
    let (mut model, mut output, mut sealed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut durable: BTreeMap<String, RecordBatch> = BTreeMap::new();
    for _ in 0..80 {
        let lines: Vec<(bool, String, String)> = (0..rng.below(9) + 1)
            .map(|_| (rng.below(3) > 0, if rng.below(9) == 0 { "-".into() } else { rng.below(8).to_string() }, "v".repeat(rng.below(20) as usize + 1)))
            .collect();
        for (write, key, value) in &lines {
            if !write {
                model.remove(key);
            } else if conflict == Conflict::Overwrite || !model.contains_key(key) {
                model.insert(key.clone(), value.clone());
            }
        }
        let input: Vec<String> = lines.iter().map(|(write, k, v)| if *write { format!("+ {k} {v}") } else { format!("- {k} -") }).collect();
        add(&mut output, &step(&mut o, &input.join("\n")));
        assert_eq!(output, model);
        if rng.below(4) == 0 {
            seal(&mut o, &mut durable);
            sealed = model.clone();
            assert_eq!(durable.len(), sealed.len());
        }
        if rng.below(9) == 0 {
            o = operator(conflict);
            durable.values().for_each(|row| o.table.restore(row));
            (model, output) = (sealed.clone(), sealed.clone());
        }
    }
}

fn seal(o: &mut Upsert, durable: &mut BTreeMap<String, RecordBatch>) {
    let Some(delta) = o.tables()[0].seal() else { return };
    assert_eq!(delta.upsert_vnodes.len(), delta.upserts.num_rows());
    assert_eq!(delta.delete_vnodes.len(), delta.deletes.num_rows());
    let keys = |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().iter().map(|k| format!("{k:?}")).collect::<Vec<_>>();
    for key in keys(&delta.deletes) {
        durable.remove(&key);
    }
    for (row, key) in keys(&delta.upserts).into_iter().enumerate() {
        durable.insert(key, delta.upserts.slice(row, 1));
    }
    assert!(o.tables()[0].seal().is_none());
}

#[test]
fn agrees_with_a_map_over_seals_and_restores() {
    for seed in 0..100 {
        random(Conflict::Overwrite, seed);
        random(Conflict::Ignore, seed);
    }
}
