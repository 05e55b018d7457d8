//! Inline tables of writes and changes; and random writes of several splits, which arrive in a
//! random order, against a search for the greatest version among all that came, with random seals,
//! horizons, and restores after which the same writes come in another order.

use super::*;
use crate::RowError;
use arrow::array::{Array, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use std::collections::BTreeMap;
use tidemark_common::Epoch;

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
    Arc::new(Schema::new(vec![
        Field::new("v", DataType::Utf8, true),
        Field::new("k", DataType::Int64, true),
    ]))
}

fn operator(conflict: Conflict) -> Upsert {
    Upsert::new(schema(), vec![1], conflict, 0)
}

/// One `weight key value time@split` per line; `-` is NULL; all is of one version where none is
/// given.
fn writes(table: &str) -> ChangeBatch {
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .filter(|l| !l.is_empty())
        .collect();
    let keys = Int64Array::from_iter(lines.iter().map(|l| l[1].parse::<i64>().ok()));
    let values = StringArray::from_iter(lines.iter().map(|l| (l[2] != "-").then_some(l[2])));
    let versions = lines.iter().map(|l| {
        let (time, split) = l.get(3).map_or(("0", "0"), |v| v.split_once('@').unwrap());
        version(time.parse().unwrap(), split.parse().unwrap())
    });
    let versions = Decimal128Array::from_iter_values(versions).with_data_type(VERSION_TYPE);
    let fields = schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .chain([Field::new("_version", VERSION_TYPE, true)])
        .collect::<Vec<_>>();
    let rows = RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![Arc::new(values), Arc::new(keys), Arc::new(versions)],
    )
    .unwrap();
    ChangeBatch::new(
        rows,
        lines
            .iter()
            .map(|l| format!("{}1", l[0]).parse().unwrap())
            .collect(),
    )
}

fn table(changes: &ChangeBatch) -> Vec<String> {
    let (v, k) = (
        changes.column(0).as_string::<i32>(),
        changes.column(1).as_primitive::<Int64Type>(),
    );
    let key = |i: usize| {
        if k.is_null(i) {
            "-".into()
        } else {
            k.value(i).to_string()
        }
    };
    (0..changes.num_rows())
        .map(|i| {
            format!(
                "{:+} {} {}",
                changes.weight(i),
                key(i),
                if v.is_null(i) { "-" } else { v.value(i) }
            )
        })
        .collect()
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
    assert_eq!(
        step(&mut o, "+ 1 a\n+ 2 b\n+ - c"),
        ["+1 1 a", "+1 2 b", "+1 - c"]
    );
    assert_eq!(step(&mut o, "+ 1 a"), [""; 0]);
    assert_eq!(step(&mut o, "+ 1 x\n+ 1 y"), ["-1 1 a", "+1 1 y"]);
    assert_eq!(step(&mut o, "+ 1 x\n+ 1 y"), [""; 0]);
    assert_eq!(step(&mut o, "- 7 -"), [""; 0]);
    assert_eq!(
        step(&mut o, "- 2 -\n+ 3 n\n- 3 -\n- - -"),
        ["-1 2 b", "-1 - c"]
    );
    assert_eq!(
        step(&mut o, "- 1 -\n+ 1 -\n+ 2 z"),
        ["-1 1 y", "+1 2 z", "+1 1 -"]
    );
}

#[test]
fn the_greatest_version_wins_whatever_comes_later() {
    let mut o = operator(Conflict::Overwrite);
    assert_eq!(step(&mut o, "+ 1 new 20@1"), ["+1 1 new"]);
    assert_eq!(
        step(&mut o, "+ 1 old 10@0\n- 1 - 19@0\n- 1 - 20@0"),
        [""; 0]
    );
    assert_eq!(
        step(&mut o, "+ 1 next 20@1\n+ 1 old 20@0"),
        ["-1 1 new", "+1 1 next"]
    );
    assert_eq!(
        step(&mut o, "+ 1 ahead 21@0\n+ 1 behind 20@1"),
        ["-1 1 next", "+1 1 ahead"]
    );
    assert_eq!(step(&mut o, "+ 2 a 5@0\n+ 2 b 4@1\n+ 2 c -1@1"), ["+1 2 a"]);
    assert_eq!(
        step(
            &mut o,
            "+ 2 d 9223372036854775807@1\n+ 2 e 9223372036854775806@2"
        ),
        ["-1 2 a", "+1 2 d"]
    );
}

#[test]
fn a_deletion_has_a_version_until_all_splits_are_past_it() {
    let mut o = operator(Conflict::Overwrite);
    assert_eq!(step(&mut o, "+ 1 a 10@1\n- 1 - 11@1\n- 2 - 12@0"), [""; 0]);
    assert_eq!(step(&mut o, "+ 1 b 10@0\n+ 2 b 11@1\n- 1 - 9@0"), [""; 0]);
    barrier(&mut o, 12);
    assert_eq!(o.table.gone.len(), 1);
    assert_eq!(
        step(&mut o, "+ 2 b 12@0\n+ 1 c 12@0\n- 1 - 12@1"),
        ["+1 2 b"]
    );
    assert_eq!(step(&mut o, "- 2 - 12@0"), ["-1 2 b"]);
    barrier(&mut o, 13);
    let delta = o.tables()[0].seal().unwrap();
    assert_eq!(
        (
            delta.upserts.num_rows(),
            delta.deletes.num_rows(),
            o.table.index.len()
        ),
        (0, 2, 0)
    );
    assert_eq!(step(&mut o, "+ 1 d 13@0"), ["+1 1 d"]);
}

#[test]
fn deletions_that_are_no_longer_true_are_not_piled_up() {
    let mut o = operator(Conflict::Overwrite);
    for time in 0..3 * GONE_STALE_MAX {
        step(&mut o, &format!("- 1 - {time}@0"));
        step(&mut o, &format!("+ 1 a {time}@0"));
        step(&mut o, &format!("- 2 - {}@0", time / 2));
        barrier(&mut o, -1);
        assert!(o.table.gone.len() <= GONE_STALE_MAX + 2);
    }
    barrier(&mut o, i64::MAX);
    assert_eq!((o.table.gone.len(), o.table.gone_count), (0, 0));
    assert_eq!(step(&mut o, "+ 2 b 0@0"), ["+1 2 b"]);
}

#[test]
fn an_identical_row_takes_the_later_version() {
    let mut o = operator(Conflict::Overwrite);
    let mut durable = BTreeMap::new();
    assert_eq!(step(&mut o, "+ 1 a 10@0"), ["+1 1 a"]);
    seal(&mut o, &mut durable);
    let older = durable.clone();
    assert_eq!(step(&mut o, "+ 1 a 20@1"), [""; 0]);
    seal(&mut o, &mut durable);
    o = operator(Conflict::Overwrite);
    // An older file still has what the key was before.
    let newest_first = durable.values().chain(older.values());
    newest_first.for_each(|row| o.table.restore(row));
    assert_eq!(step(&mut o, "+ 1 b 15@0"), [""; 0]);
}

#[test]
fn ignore() {
    let mut o = operator(Conflict::Ignore);
    assert_eq!(step(&mut o, "+ 1 a\n+ 1 b"), ["+1 1 a"]);
    assert_eq!(step(&mut o, "+ 1 c\n+ 2 a 10@1"), ["+1 2 a"]);
    assert_eq!(
        step(&mut o, "+ 2 b 10@1\n+ 2 c 11@0\n+ 2 d 10@0"),
        ["-1 2 a", "+1 2 d"]
    );
}

fn barrier(o: &mut Upsert, horizon_ms: i64) {
    o.on_barrier(
        &Barrier {
            epoch: Epoch(1),
            clock: 0,
            checkpoint: true,
            horizon_ms,
            watermarks: Default::default(),
        },
        &mut Collected::default(),
    )
    .unwrap();
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
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

/// A record of a split.
struct Record {
    key: String,
    /// None deletes.
    value: Option<String>,
    /// The largest so far.
    time: i64,
}

fn random_split(rng: &mut Rng, conflict: Conflict) -> Vec<Record> {
    let mut time = rng.below(5) as i64 - 1;
    let record = |_| {
        time += [0, 0, 1, 7][rng.below(4) as usize];
        let key = if rng.below(9) == 0 {
            "-".into()
        } else {
            rng.below(8).to_string()
        };
        let value = (conflict == Conflict::Ignore || rng.below(3) > 0)
            .then(|| "v".repeat(rng.below(20) as usize + 1));
        Record { key, value, time }
    };
    (0..60).map(record).collect()
}

/// The relation that the records below `at` make, by a search through all of them.
fn expected(conflict: Conflict, splits: &[Vec<Record>], at: &[usize]) -> BTreeMap<String, String> {
    let mut best: BTreeMap<&str, ((i64, usize, usize), &Option<String>)> = BTreeMap::new();
    for (split, records) in splits.iter().enumerate() {
        for (offset, record) in records[..at[split]].iter().enumerate() {
            let version = (record.time, split, offset);
            let found = best.entry(&record.key).or_insert((version, &record.value));
            if if conflict == Conflict::Ignore {
                version < found.0
            } else {
                version > found.0
            } {
                *found = (version, &record.value);
            }
        }
    }
    best.into_iter()
        .filter_map(|(key, (_, value))| Some((key.to_string(), value.clone()?)))
        .collect()
}

fn random(conflict: Conflict, seed: u64) {
    let mut rng = Rng(seed);
    let splits: Vec<Vec<Record>> = (0..rng.below(3) + 1)
        .map(|_| random_split(&mut rng, conflict))
        .collect();
    let mut o = operator(conflict);
    let (mut at, mut output) = (vec![0; splits.len()], BTreeMap::new());
    let mut sealed = (at.clone(), output.clone());
    let mut durable: BTreeMap<String, RecordBatch> = BTreeMap::new();
    while splits.iter().zip(&at).any(|(s, at)| *at < s.len()) {
        let mut lines = Vec::new();
        for _ in 0..rng.below(9) + 1 {
            let split = rng.below(splits.len() as u64) as usize;
            let Some(Record { key, value, time }) = splits[split].get(at[split]) else {
                continue;
            };
            at[split] += 1;
            lines.push(
                value
                    .as_ref()
                    .map_or(format!("- {key} - {time}@{split}"), |value| {
                        format!("+ {key} {value} {time}@{split}")
                    }),
            );
        }
        add(&mut output, &step(&mut o, &lines.join("\n")));
        assert_eq!(output, expected(conflict, &splits, &at));
        if rng.below(4) == 0 {
            let reached = splits
                .iter()
                .zip(&at)
                .map(|(s, at)| at.checked_sub(1).map_or(-1, |last| s[last].time));
            barrier(&mut o, reached.min().unwrap());
            seal(&mut o, &mut durable);
            sealed = (at.clone(), output.clone());
            assert_eq!(
                durable
                    .values()
                    .filter(|row| !row.column(3).as_boolean().value(0))
                    .count(),
                output.len()
            );
        }
        if rng.below(9) == 0 {
            o = operator(conflict);
            durable.values().for_each(|row| o.table.restore(row));
            (at, output) = sealed.clone();
        }
    }
    barrier(&mut o, i64::MAX);
    seal(&mut o, &mut durable);
    assert_eq!(
        (
            durable.len(),
            o.table.index.len(),
            o.table.gone.len(),
            o.table.gone_count
        ),
        (output.len(), output.len(), 0, 0)
    );
}

fn seal(o: &mut Upsert, durable: &mut BTreeMap<String, RecordBatch>) {
    let Some(delta) = o.tables()[0].seal() else {
        return;
    };
    assert_eq!(delta.upsert_vnodes.len(), delta.upserts.num_rows());
    assert_eq!(delta.delete_vnodes.len(), delta.deletes.num_rows());
    let keys = |rows: &RecordBatch| {
        rows.column(0)
            .as_primitive::<Int64Type>()
            .iter()
            .map(|k| format!("{k:?}"))
            .collect::<Vec<_>>()
    };
    for key in keys(&delta.deletes) {
        durable.remove(&key);
    }
    for (row, key) in keys(&delta.upserts).into_iter().enumerate() {
        durable.insert(key, delta.upserts.slice(row, 1));
    }
    assert!(o.tables()[0].seal().is_none());
}

#[test]
fn the_order_of_arrival_makes_no_difference_over_seals_and_restores() {
    for seed in 0..200 {
        random(Conflict::Overwrite, seed);
        random(Conflict::Ignore, seed);
    }
}

#[test]
fn parts_of_rows_are_put_together() {
    let mut o = operator(Conflict::Merge);
    assert_eq!(
        step(&mut o, "+ 1 a 5@0\n+ 2 - 5@0\n+ 1 - 6@0"),
        ["+1 1 a", "+1 2 -"]
    );
    assert_eq!(step(&mut o, "+ 1 - 9@0\n+ 2 - 9@1"), [""; 0]);
    // Later than what is there, though not than the row; and earlier.
    assert_eq!(
        step(&mut o, "+ 1 b 7@1\n+ 2 c 1@0"),
        ["-1 1 a", "-1 2 -", "+1 1 b", "+1 2 c"]
    );
    assert_eq!(
        step(&mut o, "+ 1 old 6@1\n+ 2 older 0@0\n+ 1 b 8@0"),
        [""; 0]
    );
    assert_eq!(step(&mut o, "+ 1 e 7@2"), [""; 0]);
    assert_eq!(step(&mut o, "+ 1 f 8@0"), ["-1 1 b", "+1 1 f"]);
}

/// Whatever the order of arrival between splits, and with a restore in between, the sum of the
/// changes is what the newest value of the column says.
#[test]
fn parts_come_in_any_order() {
    for seed in 0..200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut splits: [Vec<String>; 3] = Default::default();
        let mut newest: BTreeMap<u64, Option<(i128, String)>> = BTreeMap::new();
        for (split, lines) in splits.iter_mut().enumerate() {
            let mut time = 0;
            for n in 0..12 {
                time += next(3);
                let (key, value) = (next(4), format!("{split}{n}"));
                let value = (next(3) > 0).then_some(value);
                let known = newest.entry(key).or_default();
                let stamp = version(time as i64, split as u32);
                if let Some(value) = &value
                    && known.as_ref().is_none_or(|(before, _)| stamp >= *before)
                {
                    *known = Some((stamp, value.clone()));
                }
                let value = value.unwrap_or_else(|| "-".into());
                lines.push(format!("+ {key} {value} {time}@{split}"));
            }
            lines.reverse();
        }
        let mut o = operator(Conflict::Merge);
        let mut sum: BTreeMap<String, i64> = BTreeMap::new();
        while splits.iter().any(|lines| !lines.is_empty()) {
            let mut batch = Vec::new();
            for _ in 0..=next(6) {
                batch.extend(splits[next(3) as usize].pop());
            }
            for change in step(&mut o, &batch.join("\n")) {
                let (weight, row) = change.split_once(' ').unwrap();
                *sum.entry(row.into()).or_default() += weight.parse::<i64>().unwrap();
            }
            if next(4) == 0 {
                o = restored(&mut o, Conflict::Merge);
            }
        }
        sum.retain(|_, weight| *weight != 0);
        let wanted = newest.into_iter().map(|(key, value)| {
            let value = value.map_or("-".into(), |(_, value)| value);
            (format!("{key} {value}"), 1)
        });
        assert_eq!(sum, wanted.collect(), "seed {seed}");
    }
}

/// Another one that has what this one has sealed.
fn restored(o: &mut Upsert, conflict: Conflict) -> Upsert {
    let mut all = Vec::new();
    for id in 0..o.table.state.len() as u32 {
        if o.table.state[id as usize] == STORED && !o.table.is_dirty[id as usize] {
            o.table.mark(id);
        }
    }
    o.table.seal_pieces(&mut |piece| all.extend(piece));
    let mut other = operator(conflict);
    for delta in all {
        other.table.restore(&delta.upserts);
    }
    other
}
