//! Tables of changes in and out for each kind, and the slow twin: random changes on both sides
//! (retractions, some of them before their insertion, duplicates, NULL keys), random seals and
//! restores; after every batch the summed output equals a nested loop over the summed inputs.

mod shared;

use super::*;
use crate::expr::row_text;
use arrow::array::*;
use arrow::datatypes::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::vnode_of_hash;
use tidemark_common::random::Random;
use tidemark_plan::{BinaryOp, Expr, Literal};
use tidemark_state::TableForm;

const KINDS: [JoinKind; 6] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::LeftSemi,
    JoinKind::LeftAnti,
];

/// (k, s, v); the right input has them as (v, k, s).
type Row = (Option<i64>, Option<&'static str>, Option<i64>);

fn schema(port: usize) -> SchemaRef {
    let fields = [
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
    ];
    let order = if port == 0 { [0, 1, 2] } else { [2, 0, 1] };
    Arc::new(Schema::new(order.map(|i| fields[i].clone()).to_vec()))
}

fn changes(port: usize, rows: &[(Row, i64)]) -> ChangeBatch {
    let columns: [ArrayRef; 3] = [
        Arc::new(rows.iter().map(|r| r.0.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.0.1).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| r.0.2).collect::<Int64Array>()),
    ];
    let order = if port == 0 { [0, 1, 2] } else { [2, 0, 1] };
    let batch =
        RecordBatch::try_new(schema(port), order.map(|i| columns[i].clone()).to_vec()).unwrap();
    ChangeBatch::new(batch, rows.iter().map(|r| r.1).collect())
}

/// Sums what it receives.
#[derive(Default)]
struct Sum {
    rows: BTreeMap<String, i64>,
    errors: i64,
    largest: usize,
}

impl Out for Sum {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        assert!(!batch.is_empty());
        self.largest = self.largest.max(batch.num_rows());
        for row in 0..batch.num_rows() {
            let key = row_text(batch.rows(), row);
            let sum = self.rows.entry(key.clone()).or_default();
            *sum += batch.weight(row);
            if *sum == 0 {
                self.rows.remove(&key);
            }
        }
        Ok(())
    }
    fn row_error(&mut self, error: RowError) -> Result<()> {
        assert_eq!(error.state, "22012");
        self.errors += error.weight;
        Ok(())
    }
}

/// What is joined and how.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: JoinKind,
    /// How many of (k, s) are keys.
    keys: usize,
    null_equals_null: bool,
    residual: Option<Condition>,
    append_only: [bool; 2],
    /// Output columns of each side, as positions in (k, s, v) and (v, k, s).
    output: [&'static [usize]; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Condition {
    /// left.v < right.v
    Less,
    /// 6 / right.v > left.v, which fails for 0.
    Quotient,
}

impl Case {
    fn condition(&self) -> Option<Expr> {
        let (left, right) = (Box::new(Expr::Column(2)), Box::new(Expr::Column(3)));
        self.residual.map(|condition| match condition {
            Condition::Less => Expr::Binary {
                op: BinaryOp::Lt,
                left,
                right,
            },
            Condition::Quotient => {
                let six = Box::new(Expr::Literal(Literal::Int64(6)));
                Expr::Binary {
                    op: BinaryOp::Gt,
                    left: Box::new(Expr::Binary {
                        op: BinaryOp::Divide,
                        left: six,
                        right,
                    }),
                    right: left,
                }
            }
        })
    }

    /// Whether the residual holds for the values v of a pair; an error for one that fails.
    fn holds(&self, left: Option<i64>, right: Option<i64>) -> Result<bool, ()> {
        match self.residual {
            None => Ok(true),
            Some(Condition::Less) => Ok(left.zip(right).is_some_and(|(l, r)| l < r)),
            Some(Condition::Quotient) if right == Some(0) => Err(()),
            Some(Condition::Quotient) => Ok(left.zip(right).is_some_and(|(l, r)| 6 / r > l)),
        }
    }

    fn join(&self) -> Join {
        self.join_of([None, None], &Arc::default())
    }

    fn join_of(&self, shared: [Option<SharedRows>; 2], neighbours: &Arc<Neighbours>) -> Join {
        let mut output: Vec<usize> = self.output[0].to_vec();
        if !semi_or_anti(self.kind) {
            output.extend(self.output[1].iter().map(|c| c + 3));
        }
        let both: Vec<Field> = schema(0)
            .fields()
            .iter()
            .chain(schema(1).fields())
            .map(|f| f.as_ref().clone())
            .collect();
        Join::new(JoinConfig {
            kind: self.kind,
            left_schema: schema(0),
            right_schema: schema(1),
            left_keys: (0..self.keys).collect(),
            right_keys: (1..self.keys + 1).collect(),
            null_equals_null: self.null_equals_null,
            residual: self
                .condition()
                .map(|c| Residual::new(&c, &schema(0), &schema(1)).unwrap()),
            output_schema: Arc::new(Schema::new(
                output.iter().map(|c| both[*c].clone()).collect::<Vec<_>>(),
            )),
            output,
            left_append_only: self.append_only[0],
            right_append_only: self.append_only[1],
            left_table: 4,
            right_table: 5,
            closes: [None, None],
            shared,
            neighbours: neighbours.clone(),
            gathered: false,
        })
    }

    fn keys_match(&self, left: &Row, right: &Row) -> bool {
        let equal =
            |l: Option<&str>, r: Option<&str>| l == r && (self.null_equals_null || l.is_some());
        let text = |k: Option<i64>| k.map(|k| k.to_string());
        (self.keys < 1 || equal(text(left.0).as_deref(), text(right.0).as_deref()))
            && (self.keys < 2 || equal(left.1, right.1))
    }

    fn show(&self, left: Option<&Row>, right: Option<&Row>) -> String {
        let mut parts: Vec<ArrayRef> = Vec::new();
        for (port, row) in [left, right].into_iter().enumerate() {
            if port == 1 && semi_or_anti(self.kind) {
                break;
            }
            let one = changes(port, &[(row.copied().unwrap_or((None, None, None)), 1)]);
            parts.extend(self.output[port].iter().map(|c| one.column(*c).clone()));
        }
        let fields: Vec<Field> = parts
            .iter()
            .enumerate()
            .map(|(i, p)| Field::new(format!("c{i}"), p.data_type().clone(), true))
            .collect();
        row_text(
            &RecordBatch::try_new(Arc::new(Schema::new(fields)), parts).unwrap(),
            0,
        )
    }

    /// The join by definition: rows and, beside, the weight of failing pairs.
    fn by_nested_loop(
        &self,
        left: &BTreeMap<Row, i64>,
        right: &BTreeMap<Row, i64>,
    ) -> (BTreeMap<String, i64>, i64) {
        let (mut rows, mut errors) = (BTreeMap::<String, i64>::new(), 0);
        let mut counts = [vec![0i64; left.len()], vec![0i64; right.len()]];
        for (i, (l, lw)) in left.iter().enumerate() {
            for (j, (r, rw)) in right
                .iter()
                .enumerate()
                .filter(|(_, (r, _))| self.keys_match(l, r))
            {
                match self.holds(l.2, r.2) {
                    Ok(true) => {
                        counts[0][i] += rw;
                        counts[1][j] += lw;
                        if !semi_or_anti(self.kind) {
                            *rows.entry(self.show(Some(l), Some(r))).or_default() += lw * rw;
                        }
                    }
                    Ok(false) => {}
                    Err(()) => errors += lw * rw,
                }
            }
        }
        for port in (0..2).filter(|port| preserves(self.kind, *port)) {
            for (i, (row, weight)) in [left, right][port].iter().enumerate() {
                if (counts[port][i] > 0) == shows_matched(self.kind) {
                    let shown = if port == 0 {
                        self.show(Some(row), None)
                    } else {
                        self.show(None, Some(row))
                    };
                    *rows.entry(shown).or_default() += weight;
                }
            }
        }
        rows.retain(|_, w| *w != 0);
        (rows, errors)
    }
}

/// What checkpoints hold of one table: by key text, the row.
#[derive(Default)]
struct Durable(BTreeMap<String, RecordBatch>);

impl Durable {
    fn seal(&mut self, table: &mut dyn StateTable, key_hash: &dyn Fn(&RecordBatch) -> u64) {
        let spec = table.spec();
        let Some(delta) = table.seal() else { return };
        assert_eq!(delta.upserts.schema(), spec.schema);
        let key = |batch: &RecordBatch, row: usize| {
            row_text(
                &batch
                    .project(&(0..spec.key_columns).collect::<Vec<_>>())
                    .unwrap(),
                row,
            )
        };
        let mut met = std::collections::BTreeSet::new();
        for row in 0..delta.deletes.num_rows() {
            assert!(met.insert(key(&delta.deletes, row)), "a key once");
            assert!(
                self.0.remove(&key(&delta.deletes, row)).is_some(),
                "what was never sealed need not be deleted"
            );
        }
        for row in 0..delta.upserts.num_rows() {
            assert!(met.insert(key(&delta.upserts, row)), "a key once");
            let one = delta.upserts.slice(row, 1);
            assert_eq!(
                delta.upsert_vnodes[row] as usize,
                vnode_of_hash(key_hash(&one)),
                "placed by the join key"
            );
            self.0.insert(key(&delta.upserts, row), one);
        }
        assert!(table.seal().is_none(), "nothing changed since");
    }
}

fn random_row(random: &mut Random) -> Row {
    let k = Some(random.below(5) as i64).filter(|k| *k > 0);
    let long = "a long text that is no inline string";
    let s = *random.pick(&[None, Some("a"), Some("bb"), Some(long)]);
    (k, s, Some(random.below(5) as i64 - 1).filter(|v| *v >= 0))
}

fn random_batch(
    random: &mut Random,
    state: &mut BTreeMap<Row, i64>,
    append_only: bool,
) -> Vec<(Row, i64)> {
    let mut rows = Vec::new();
    for _ in 0..random.below_u64(12) {
        let present = state.len() as u64;
        let change = match random.below_u64(if append_only { 4 } else { 10 }) {
            0..=2 => (random_row(random), 1),
            3 if append_only => (random_row(random), 2),
            3..=8 if present > 0 => {
                let (row, weight) = state
                    .iter()
                    .nth(random.below_u64(present) as usize)
                    .unwrap();
                (
                    *row,
                    -weight.signum() * (1 + random.below_u64(weight.unsigned_abs()) as i64),
                )
            }
            // Ahead of its insertion, or of nothing.
            9 => (random_row(random), -1),
            _ => (random_row(random), 2),
        };
        *state.entry(change.0).or_default() += change.1;
        state.retain(|_, w| *w != 0);
        rows.push(change);
    }
    rows
}

fn twin(case: Case, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (mut join, mut out) = (case.join(), Sum::default());
    let mut state = [BTreeMap::new(), BTreeMap::new()];
    let mut durable = [Durable::default(), Durable::default()];
    let mut sealed = (state.clone(), BTreeMap::new(), 0);
    for step in 0..60 {
        let port = random.below_u64(2) as usize;
        let rows = random_batch(&mut random, &mut state[port], case.append_only[port]);
        join.on_changes(port, changes(port, &rows), &mut out)
            .unwrap();
        let (expected, errors) = case.by_nested_loop(&state[0], &state[1]);
        assert_eq!(out.rows, expected, "{case:?}, seed {seed}, step {step}");
        assert_eq!(out.errors, errors, "{case:?}, seed {seed}, step {step}");
        match random.below_u64(8) {
            0 | 1 => {
                for (table, durable) in join.tables().into_iter().zip(&mut durable) {
                    let spec = table.spec();
                    let first = usize::from(spec.form == TableForm::Appended);
                    let key_hash = |row: &RecordBatch| {
                        hash_columns(&row.columns()[first..first + case.keys], 1)[0]
                    };
                    durable.seal(table, &key_hash);
                }
                sealed = (state.clone(), out.rows.clone(), out.errors);
            }
            2 => {
                join = case.join();
                for (table, durable) in join.tables().into_iter().zip(&durable) {
                    let rows: Vec<&RecordBatch> = durable.0.values().collect();
                    let half = random.below_u64(rows.len() as u64 + 1) as usize;
                    for rows in [&rows[..half], &rows[half..]]
                        .into_iter()
                        .filter(|r| !r.is_empty())
                    {
                        table.restore(
                            &compute::concat_batches(&rows[0].schema(), rows.iter().copied())
                                .unwrap(),
                        );
                    }
                }
                (state, out.rows, out.errors) = sealed.clone();
            }
            _ => {}
        }
    }
    // Everything goes again: nothing may stay behind.
    if case.append_only == [false, false] {
        for port in 0..2 {
            let all: Vec<(Row, i64)> = std::mem::take(&mut state[port])
                .into_iter()
                .map(|(row, weight)| (row, -weight))
                .collect();
            join.on_changes(port, changes(port, &all), &mut out)
                .unwrap();
        }
        assert!(
            out.rows.is_empty() && out.errors == 0,
            "{case:?}, seed {seed}"
        );
        for (table, durable) in join.tables().into_iter().zip(&mut durable) {
            durable.seal(table, &|_| 0);
            assert!(
                durable.0.is_empty(),
                "{case:?}, seed {seed}: {:?}",
                durable.0
            );
        }
        assert!(join.keys.lock().index.is_empty(), "{case:?}, seed {seed}");
    }
}

#[test]
fn every_kind_equals_the_nested_loop() {
    let outputs: [[&'static [usize]; 2]; 4] = [
        [&[0, 1, 2], &[0, 1, 2]],
        [&[0], &[1]],
        [&[0], &[0, 2]],
        [&[1, 2, 2], &[]],
    ];
    let mut seed = 0;
    for kind in KINDS {
        for keys in 0..=2 {
            for residual in [None, Some(Condition::Less), Some(Condition::Quotient)] {
                for append_only in [[false, false], [true, false], [false, true], [true, true]] {
                    for _ in 0..2 {
                        seed += 1;
                        let output = outputs[seed as usize % 7 % 4];
                        twin(
                            Case {
                                kind,
                                keys,
                                null_equals_null: seed % 3 == 0,
                                residual,
                                append_only,
                                output,
                            },
                            seed,
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_hot_key_makes_many_batches() {
    for kind in KINDS {
        let case = Case {
            kind,
            keys: 1,
            null_equals_null: false,
            residual: None,
            append_only: [false, false],
            output: [&[0, 2], &[0]],
        };
        let (mut join, mut out) = (case.join(), Sum::default());
        let rows: Vec<(Row, i64)> = (0..30_000).map(|v| ((Some(1), None, Some(v)), 1)).collect();
        rows.chunks(4096)
            .for_each(|rows| join.on_changes(0, changes(0, rows), &mut out).unwrap());
        join.on_changes(
            1,
            changes(
                1,
                &[((Some(1), None, Some(7)), 1), ((Some(1), None, Some(8)), 1)],
            ),
            &mut out,
        )
        .unwrap();
        let expected = match kind {
            JoinKind::LeftSemi => 30_000,
            JoinKind::LeftAnti => 0,
            _ => 60_000,
        };
        assert_eq!(
            (out.rows.len(), out.largest <= CHUNK_ROWS),
            (expected, true),
            "{kind:?}"
        );
    }
}

/// Runs `L + k v` / `R - k v` lines and returns the changes that come out of each, in order.
fn script(kind: JoinKind, lines: &str) -> Vec<String> {
    #[derive(Default)]
    struct Log(Vec<String>);
    impl Out for Log {
        fn send(&mut self, batch: ChangeBatch) -> Result<()> {
            self.0.extend(
                (0..batch.num_rows())
                    .map(|r| format!("{:+} {}", batch.weight(r), row_text(batch.rows(), r))),
            );
            Ok(())
        }
        fn row_error(&mut self, _: RowError) -> Result<()> {
            unreachable!("there is no residual")
        }
    }
    let case = Case {
        kind,
        keys: 1,
        null_equals_null: false,
        residual: None,
        append_only: [false, false],
        output: [&[0, 2], &[0]],
    };
    let mut join = case.join();
    let mut all = Vec::new();
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let row = (words[2].parse().ok(), None, words[3].parse().ok());
        let port = usize::from(words[0] == "R");
        let mut log = Log::default();
        join.on_changes(
            port,
            changes(port, &[(row, if words[1] == "+" { 1 } else { -1 })]),
            &mut log,
        )
        .unwrap();
        all.push(format!("{line} | {}", log.0.join(" / ")));
    }
    all
}

const SCRIPT: &str = "
    L + 1 10
    R + 1 70
    R + 1 71
    L + 1 11
    L + - 12
    R + - 72
    R - 1 70
    R - 1 71
    L - 1 10
    R + 2 73
";

fn assert_script(kind: JoinKind, expected: &str) {
    let expected: Vec<String> = expected
        .lines()
        .map(|l| l.trim().to_string())
        .filter(|l| !l.is_empty())
        .collect();
    let found: Vec<String> = script(kind, SCRIPT)
        .into_iter()
        .map(|l| l.trim().to_string())
        .collect();
    assert_eq!(found, expected, "{kind:?}:\n{}", found.join("\n"));
}

#[test]
fn scripts() {
    assert_script(
        JoinKind::Inner,
        "
        L + 1 10 |
        R + 1 70 | +1 1, 10, 70
        R + 1 71 | +1 1, 10, 71
        L + 1 11 | +1 1, 11, 71 / +1 1, 11, 70
        L + - 12 |
        R + - 72 |
        R - 1 70 | -1 1, 11, 70 / -1 1, 10, 70
        R - 1 71 | -1 1, 11, 71 / -1 1, 10, 71
        L - 1 10 |
        R + 2 73 |
",
    );
    assert_script(
        JoinKind::Left,
        "
        L + 1 10 | +1 1, 10, NULL
        R + 1 70 | +1 1, 10, 70 / -1 1, 10, NULL
        R + 1 71 | +1 1, 10, 71
        L + 1 11 | +1 1, 11, 71 / +1 1, 11, 70
        L + - 12 | +1 NULL, 12, NULL
        R + - 72 |
        R - 1 70 | -1 1, 11, 70 / -1 1, 10, 70
        R - 1 71 | -1 1, 11, 71 / -1 1, 10, 71 / +1 1, 11, NULL / +1 1, 10, NULL
        L - 1 10 | -1 1, 10, NULL
        R + 2 73 |
",
    );
    assert_script(
        JoinKind::Right,
        "
        L + 1 10 |
        R + 1 70 | +1 1, 10, 70
        R + 1 71 | +1 1, 10, 71
        L + 1 11 | +1 1, 11, 71 / +1 1, 11, 70
        L + - 12 |
        R + - 72 | +1 NULL, NULL, 72
        R - 1 70 | -1 1, 11, 70 / -1 1, 10, 70
        R - 1 71 | -1 1, 11, 71 / -1 1, 10, 71
        L - 1 10 |
        R + 2 73 | +1 NULL, NULL, 73
",
    );
    assert_script(
        JoinKind::Full,
        "
        L + 1 10 | +1 1, 10, NULL
        R + 1 70 | +1 1, 10, 70 / -1 1, 10, NULL
        R + 1 71 | +1 1, 10, 71
        L + 1 11 | +1 1, 11, 71 / +1 1, 11, 70
        L + - 12 | +1 NULL, 12, NULL
        R + - 72 | +1 NULL, NULL, 72
        R - 1 70 | -1 1, 11, 70 / -1 1, 10, 70
        R - 1 71 | -1 1, 11, 71 / -1 1, 10, 71 / +1 1, 11, NULL / +1 1, 10, NULL
        L - 1 10 | -1 1, 10, NULL
        R + 2 73 | +1 NULL, NULL, 73
",
    );
    assert_script(
        JoinKind::LeftSemi,
        "
        L + 1 10 |
        R + 1 70 | +1 1, 10
        R + 1 71 |
        L + 1 11 | +1 1, 11
        L + - 12 |
        R + - 72 |
        R - 1 70 |
        R - 1 71 | -1 1, 11 / -1 1, 10
        L - 1 10 |
        R + 2 73 |
",
    );
    assert_script(
        JoinKind::LeftAnti,
        "
        L + 1 10 | +1 1, 10
        R + 1 70 | -1 1, 10
        R + 1 71 |
        L + 1 11 |
        L + - 12 | +1 NULL, 12
        R + - 72 |
        R - 1 70 |
        R - 1 71 | +1 1, 11 / +1 1, 10
        L - 1 10 | -1 1, 10
        R + 2 73 |
",
    );
}

/// The rate of an inner join: 250 k build rows, 4 M probe rows in batches of 4,096, five columns of
/// which two are strings. Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("key", DataType::Int64, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("city", DataType::Utf8, false),
        Field::new("price", DataType::Int64, false),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(fields.clone()));
    let rows = |from: i64, count: i64, key: &dyn Fn(i64) -> i64| -> ChangeBatch {
        let range = || from..from + count;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(range())),
            Arc::new(Int64Array::from_iter_values(range().map(key))),
            Arc::new(StringArray::from_iter_values(
                range().map(|i| format!("name number {i}")),
            )),
            Arc::new(StringArray::from_iter_values(
                range().map(|i| format!("city {}", i % 100)),
            )),
            Arc::new(Int64Array::from_iter_values(range().map(|i| i * 3))),
        ];
        ChangeBatch::insert(RecordBatch::try_new(schema.clone(), columns).unwrap())
    };
    struct Count(usize);
    impl Out for Count {
        fn send(&mut self, batch: ChangeBatch) -> Result<()> {
            self.0 += batch.num_rows();
            Ok(())
        }
        fn row_error(&mut self, _: RowError) -> Result<()> {
            Ok(())
        }
    }
    for (name, left_append_only, right_append_only, matching) in [
        ("append-only, all match", true, true, 1),
        ("append-only, one in ten matches", true, true, 10),
        ("append-only probe, retractable build", true, false, 1),
        ("retractable, all match", false, false, 1),
    ] {
        // The build side is the right one; probe rows come from the left.
        let mut join = Join::new(JoinConfig {
            kind: JoinKind::Inner,
            left_schema: schema.clone(),
            right_schema: schema.clone(),
            left_keys: vec![1],
            right_keys: vec![0],
            null_equals_null: false,
            residual: None,
            output: vec![0, 2, 4, 7, 8],
            output_schema: Arc::new(Schema::new(
                [0, 2, 4, 2, 3].map(|c: usize| fields[c].clone()).to_vec(),
            )),
            left_append_only,
            right_append_only,
            left_table: 0,
            right_table: 1,
            closes: [None, None],
            shared: [None, None],
            neighbours: Default::default(),
            gathered: false,
        });
        let (build, probe) = (250_000i64, 4_000_000i64);
        let mut out = Count(0);
        let started = std::time::Instant::now();
        let (mut build_time, mut probe_time) =
            (std::time::Duration::ZERO, std::time::Duration::ZERO);
        for from in (0..build).step_by(4096) {
            let batch = rows(from, 4096.min(build - from), &|i| i);
            let at = std::time::Instant::now();
            join.on_changes(1, batch, &mut out).unwrap();
            build_time += at.elapsed();
        }
        for from in (0..probe).step_by(4096) {
            let batch = rows(from, 4096.min(probe - from), &|i| {
                (i * 7919 % (build * matching)).abs()
            });
            let at = std::time::Instant::now();
            join.on_changes(0, batch, &mut out).unwrap();
            probe_time += at.elapsed();
        }
        let rate = |rows: i64, time: std::time::Duration| rows as f64 / time.as_secs_f64() / 1e6;
        let memory: usize = join.tables().iter().map(|t| t.memory_bytes()).sum();
        println!(
            "{name}: build {:.2} M rows/s, probe {:.2} M rows/s, {} rows out, {} bytes a stored \
             row ({:?} in all)",
            rate(build, build_time),
            rate(probe, probe_time),
            out.0,
            memory / (build + probe) as usize,
            started.elapsed()
        );
        let at = std::time::Instant::now();
        let sealed: usize = join
            .tables()
            .into_iter()
            .filter_map(|t| t.seal())
            .map(|d| d.upserts.num_rows())
            .sum();
        println!("{name}: sealed {sealed} rows in {:?}", at.elapsed());
    }
}

#[test]
fn appended_rows_are_read_later_as_they_would_have_been_sealed() {
    let case = Case {
        kind: JoinKind::Inner,
        keys: 2,
        null_equals_null: true,
        residual: None,
        append_only: [true, true],
        output: [&[0, 1, 2], &[0, 1, 2]],
    };
    let (mut whole, mut later, mut out, mut random) =
        (case.join(), case.join(), Sum::default(), Random(77));
    for (round, rows) in [50_000, 40_000, 5].into_iter().enumerate() {
        let rows: Vec<(Row, i64)> = (0..rows)
            .map(|i| {
                (
                    (
                        (i % 977 > 0).then_some(i),
                        random_row(&mut random).1,
                        Some(i),
                    ),
                    1,
                )
            })
            .collect();
        for join in [&mut whole, &mut later] {
            join.on_changes(0, changes(0, &rows), &mut out).unwrap();
        }
        let delta = whole.tables()[0].seal().unwrap();
        let tables = later.tables();
        let Some(appended) = tables
            .into_iter()
            .next()
            .and_then(|t| t.seal_appended(&mut || ()))
        else {
            assert_eq!(round, 2, "few rows are sealed whole");
            assert_eq!(later.tables()[0].seal().unwrap().upserts, delta.upserts);
            continue;
        };
        // What comes meanwhile changes nothing.
        join_more(&mut later, &mut out, rows.len());
        join_more(&mut whole, &mut out, rows.len());
        assert_eq!(appended.vnodes, delta.upsert_vnodes);
        let picked: Vec<u32> = (0..rows.len() as u32).rev().step_by(3).collect();
        let columns = later.tables()[0].read_appended(&appended, &picked);
        let expected =
            compute::take_record_batch(&delta.upserts, &UInt32Array::from(picked)).unwrap();
        assert_eq!(
            RecordBatch::try_new(delta.upserts.schema(), columns).unwrap(),
            expected
        );
    }
}

fn join_more(join: &mut Join, out: &mut Sum, at: usize) {
    let rows: Vec<(Row, i64)> = (0..100)
        .map(|i| ((Some((at + i) as i64), Some("more"), Some(7)), 1))
        .collect();
    join.on_changes(0, changes(0, &rows), out).unwrap();
}
