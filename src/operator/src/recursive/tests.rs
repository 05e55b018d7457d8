//! Random graphs against the definition, iteration by iteration: with cycles, copies of edges,
//! NULLs, changes that come before what they take back, seals, and restores to other sets of
//! workers.
//!
//! What each shape is for: a plain join is transitive closure, whose rows are deleted through
//! cycles; an outer and an anti join change when nothing but the other side does; a semi join walks
//! in circles; with few iterations rows move across the last one, and become errors or cease to be.

use crate::build::{BuildContext, build_operator};
use crate::testing::{barrier, table};
use crate::two_sided::{Durable, restore, seal, shuffle};
use crate::{Operator, Out, RowError};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_common::random::Random;
use tidemark_plan::{BinaryOp, Expr, JoinKind, Node, OnError, Op, Properties};

type Row = [Option<i64>; 2];
type Rows = BTreeMap<Row, i64>;

/// What a history is about.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: JoinKind,
    /// Only edges that go up.
    residual: bool,
    distinct: bool,
    append_only: bool,
    iterations_max: u32,
}

fn columns(names: &[&str]) -> SchemaRef {
    let field = |name: &&str| Field::new(*name, DataType::Int64, true);
    Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
}

fn node(op: Op, inputs: Vec<Node>, schema: SchemaRef, append_only: bool) -> Node {
    let key = None;
    Node {
        op,
        inputs,
        schema,
        properties: Properties { append_only, key },
    }
}

/// Rows (a, b) that go on along edges (x, y) with x = b, to (a, y); where edges only matter by
/// their presence, to (b, a).
fn step(shape: Shape) -> Node {
    let grows = shape.append_only && !shape.distinct;
    let working = node(Op::Working, Vec::new(), columns(&["i", "a", "b"]), grows);
    let edges = columns(&["x", "y"]);
    let edges = node(Op::TableRead, Vec::new(), edges, shape.append_only);
    let one_sided = matches!(shape.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
    let output = if one_sided {
        vec![0, 1, 2]
    } else {
        vec![0, 1, 4]
    };
    let residual = Expr::Binary {
        op: BinaryOp::Lt,
        left: Box::new(Expr::Column(3)),
        right: Box::new(Expr::Column(4)),
    };
    let join = Op::Join {
        kind: shape.kind,
        left_keys: vec![2],
        right_keys: vec![0],
        null_equals_null: false,
        residual: shape.residual.then_some(residual),
        output,
        left_table: 1,
        right_table: 2,
        left_closes: None,
        right_closes: None,
        shared: [None, None],
    };
    let next = columns(&["i", "a", "b"]);
    let joined = node(join, vec![working, edges], next.clone(), grows);
    let exprs = match one_sided {
        true => [0, 2, 1].map(Expr::Column).to_vec(),
        false => [0, 1, 2].map(Expr::Column).to_vec(),
    };
    node(Op::Project { exprs }, vec![joined], next, grows)
}

fn operator(shape: Shape) -> Box<dyn Operator> {
    let pairs = columns(&["a", "b"]);
    let first = node(Op::TableRead, Vec::new(), pairs.clone(), shape.append_only);
    let query = Op::Recursive {
        name: "w".into(),
        distinct: shape.distinct,
        iterations_max: shape.iterations_max,
        table: 0,
    };
    let query = node(query, vec![first, step(shape)], pairs, shape.append_only);
    assert_eq!(query.read().len(), 2, "pairs and edges");
    let mut context = BuildContext {
        relation: "v".into(),
        vnode_of_worker: 0,
        owns_vnode_zero: true,
        on_error: OnError::Log,
        sink_output: None,
        neighbours: Default::default(),
    };
    build_operator(&query, &mut context)
        .expect("it is well-formed")
        .operator
}

/// The next iteration, row by row.
fn next(shape: Shape, rows: &Rows, edges: &Rows) -> Rows {
    let mut next = Rows::new();
    let mut add = |row: Row, weight: i64| *next.entry(row).or_default() += weight;
    for ([a, b], weight) in rows {
        let passes = |[x, y]: &Row| {
            x.is_some()
                && x == b
                && (!shape.residual || matches!((x, y), (Some(x), Some(y)) if x < y))
        };
        let partners: Vec<_> = edges.iter().filter(|(edge, _)| passes(edge)).collect();
        let matched = partners.iter().map(|(_, n)| **n).sum::<i64>() > 0;
        match shape.kind {
            JoinKind::LeftSemi if matched => add([*b, *a], *weight),
            JoinKind::LeftAnti if !matched => add([*b, *a], *weight),
            JoinKind::LeftSemi | JoinKind::LeftAnti => {}
            kind => {
                partners
                    .iter()
                    .for_each(|([_, y], n)| add([*a, *y], weight * **n));
                if kind == JoinKind::Left && !matched {
                    add([*a, None], *weight);
                }
            }
        }
    }
    next.retain(|_, weight| *weight != 0);
    next
}

/// The answer, and the rows beyond the last iteration.
fn definition(shape: Shape, first: &Rows, edges: &Rows) -> (Rows, Rows) {
    let (mut answer, mut seen, mut rows) = (Rows::new(), BTreeSet::new(), first.clone());
    for iteration in 0.. {
        if shape.distinct {
            rows.retain(|row, weight| *weight > 0 && seen.insert(*row));
            rows.values_mut().for_each(|weight| *weight = 1);
        }
        if rows.is_empty() || iteration > shape.iterations_max {
            break;
        }
        rows.iter()
            .for_each(|(row, n)| *answer.entry(*row).or_default() += n);
        rows = next(shape, &rows, edges);
    }
    answer.retain(|_, weight| *weight != 0);
    (answer, rows)
}

fn text(rows: &Rows, separator: &str) -> BTreeMap<String, i64> {
    let value = |v: &Option<i64>, null: &str| v.map_or(null.to_string(), |v| v.to_string());
    let null = if separator == " " { "-" } else { "NULL" };
    let line = |row: &Row| row.iter().map(|v| value(v, null)).collect::<Vec<_>>();
    let lines = rows.iter().map(|(row, n)| (line(row).join(separator), *n));
    lines.collect()
}

/// Sums of what is sent and of what fails.
#[derive(Clone, Default)]
struct Sums {
    answer: BTreeMap<String, i64>,
    errors: BTreeMap<String, i64>,
    append_only: bool,
}

fn add(sums: &mut BTreeMap<String, i64>, row: String, weight: i64) {
    let sum = sums.entry(row).or_default();
    *sum += weight;
    sums.retain(|_, sum| *sum != 0);
}

impl Out for Sums {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        assert!(!batch.is_empty(), "an empty batch is never sent");
        for line in table(&batch) {
            let (weight, row) = line.split_once(' ').expect("a weight and a row");
            assert!(!self.append_only || weight.starts_with('+'), "{line}");
            let weight = weight.parse().expect("a weight");
            add(&mut self.answer, row.to_string(), weight);
        }
        Ok(())
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        assert_eq!(error.state, "54000", "{error:?}");
        add(&mut self.errors, error.row, error.weight);
        Ok(())
    }
}

fn changes(rows: &[(Row, i64)]) -> ChangeBatch {
    let column = |c: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|(row, _)| row[c]).collect::<Int64Array>())
    };
    let batch = RecordBatch::try_new(columns(&["a", "b"]), vec![column(0), column(1)]);
    let weights = rows.iter().map(|r| r.1).collect();
    ChangeBatch::new(batch.expect("columns fit"), weights)
}

fn random_changes(random: &mut Random, rows: &Rows, nodes: usize, grows: bool) -> Vec<(Row, i64)> {
    let mut after = rows.clone();
    let mut changed = Vec::new();
    for _ in 0..random.below(5) {
        let here: Vec<Row> = after.keys().copied().collect();
        let value = |random: &mut Random| match random.one_in(12) {
            true => None,
            false => Some(random.below(nodes) as i64),
        };
        let (row, weight) = match !grows && !here.is_empty() && random.one_in(2) {
            true => (*random.pick(&here), -1),
            false => ([value(random), value(random)], 1),
        };
        *after.entry(row).or_default() += weight;
        after.retain(|_, weight| *weight != 0);
        changed.push((row, weight));
    }
    // In any order: a row may go before it comes.
    shuffle(random, &mut changed);
    changed
}

fn check(seed: u64, shape: Shape) {
    let mut random = Random(seed);
    let nodes = 2 + random.below(6);
    let mut workers = vec![operator(shape)];
    let mut sides = [Rows::new(), Rows::new()];
    let mut sums = Sums {
        append_only: shape.append_only,
        ..Sums::default()
    };
    let (mut durable, mut sealed) = (Durable::new(), (sides.clone(), sums.clone()));
    let epochs = 4 + random.below(10) as u64;
    for epoch in 1..=epochs {
        let last = epoch == epochs && !shape.append_only;
        let mut batches = Vec::new();
        for (port, rows) in sides.iter_mut().enumerate() {
            let mut changed = random_changes(&mut random, rows, nodes, shape.append_only);
            if last {
                changed = rows.iter().map(|(row, weight)| (*row, -weight)).collect();
            }
            for (row, weight) in &changed {
                *rows.entry(*row).or_default() += weight;
            }
            rows.retain(|_, weight| *weight != 0);
            let some = changed.chunks(1 + random.below(4));
            batches.extend(some.map(|some| (port, changes(some))));
        }
        shuffle(&mut random, &mut batches);
        for (port, batch) in batches {
            workers[0]
                .on_changes(port, batch, &mut sums)
                .expect("no failure");
        }
        for worker in &mut workers {
            worker
                .on_barrier(&barrier(epoch), &mut sums)
                .expect("no failure");
        }
        let (answer, beyond) = definition(shape, &sides[0], &sides[1]);
        let context = format!("seed {seed}, epoch {epoch}, {shape:?}: {sides:?}");
        assert_eq!(sums.answer, text(&answer, " "), "{context}");
        assert_eq!(sums.errors, text(&beyond, ", "), "errors of {context}");
        if last || random.below(3) == 0 {
            workers
                .iter_mut()
                .for_each(|w| seal(w.as_mut(), &mut durable));
            sealed = (sides.clone(), sums.clone());
        } else if random.below(3) == 0 {
            workers = (0..1 + random.below(3)).map(|_| operator(shape)).collect();
            restore(&mut workers, &durable);
            (sides, sums) = sealed.clone();
        }
    }
    assert!(
        durable.is_empty() || shape.append_only,
        "seed {seed}: {durable:?}"
    );
}

#[test]
fn a_recursive_query_is_its_definition() {
    use JoinKind::{Inner, Left, LeftAnti, LeftSemi};
    for seed in 0..1200 {
        let mut random = Random(seed + 7_000);
        let kind = *random.pick(&[Inner, Inner, Left, LeftSemi, LeftAnti]);
        let append_only = matches!(kind, Inner | LeftSemi) && random.one_in(3);
        let distinct = random.one_in(2);
        let shape = Shape {
            kind,
            residual: random.one_in(3),
            distinct,
            append_only,
            iterations_max: match (distinct, random.one_in(3)) {
                (true, false) => 100,
                // Copies are rows of their own.
                (false, _) if append_only => random.below(3) as u32,
                _ => random.below(6) as u32,
            },
        };
        check(seed, shape);
    }
}

fn shape(distinct: bool, iterations_max: u32) -> Shape {
    Shape {
        kind: JoinKind::Inner,
        residual: false,
        distinct,
        append_only: false,
        iterations_max,
    }
}

fn epoch(operator: &mut dyn Operator, pairs: &[(Row, i64)], edges: &[(Row, i64)]) -> Result<Sums> {
    let mut sums = Sums::default();
    for (port, rows) in [(0, pairs), (1, edges)] {
        if !rows.is_empty() {
            operator.on_changes(port, changes(rows), &mut sums)?;
        }
    }
    operator.on_barrier(&barrier(1), &mut sums)?;
    Ok(sums)
}

#[test]
fn a_cycle_that_is_cut_off_from_the_first_iteration_goes() {
    let mut closure = operator(shape(true, 1000));
    let edge = |x, y, weight| ([Some(x), Some(y)], weight);
    let edges = [edge(1, 2, 1), edge(2, 3, 1), edge(3, 2, 1)];
    let came = epoch(closure.as_mut(), &[edge(0, 1, 1)], &edges).unwrap();
    let rows: Vec<&str> = came.answer.keys().map(String::as_str).collect();
    assert_eq!(rows, ["0 1", "0 2", "0 3"]);
    let went = epoch(closure.as_mut(), &[], &[edge(1, 2, -1)]).unwrap();
    let rows: Vec<_> = went.answer.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    assert_eq!(rows, [("0 2", -1), ("0 3", -1)]);
}

#[test]
fn a_shortcut_changes_nothing_but_the_iterations() {
    let mut closure = operator(shape(true, 1000));
    let edges: Vec<_> = (0..500).map(|n| ([Some(n), Some(n + 1)], 1)).collect();
    let came = epoch(closure.as_mut(), &[([Some(0), Some(0)], 1)], &edges).unwrap();
    assert_eq!(came.answer.len(), 501);
    let shortcut = epoch(closure.as_mut(), &[], &[([Some(1), Some(400)], 1)]).unwrap();
    assert!(shortcut.answer.is_empty() && shortcut.errors.is_empty());
    let back = epoch(closure.as_mut(), &[], &[([Some(1), Some(400)], -1)]).unwrap();
    assert!(back.answer.is_empty() && back.errors.is_empty());
}

#[test]
fn rows_that_multiply_without_end_stop_the_job() {
    let edges = [([Some(1), Some(1)], 2)];
    let mut copies = operator(shape(false, 1000));
    let failed = epoch(copies.as_mut(), &[([Some(1), Some(1)], 1)], &edges);
    assert_eq!(failed.err().expect("it fails").state().0, "54000");
    let pairs: Vec<(Row, i64)> = (0..400).map(|n| ([Some(n), Some(1)], 1)).collect();
    let edges: Vec<(Row, i64)> = (0..400).map(|n| ([Some(1), Some(n)], 1)).collect();
    let mut changes = operator(shape(false, 1000));
    let failed = epoch(changes.as_mut(), &pairs, &edges);
    assert_eq!(failed.err().expect("it fails").state().0, "54000");
}
