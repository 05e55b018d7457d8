//! Forgetting changes nothing: every view below is run twice over the same random history, once as
//! planned and once by operators that keep all they ever had. Both send the same at every barrier,
//! across restores of the first; and what that one keeps does not grow.
//!
//! A job runs on one worker here: exchanges move nothing, so its fragments are one tree.

use arrow::array::{ArrayRef, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::random::Random;
use tidemark_common::{Epoch, RelationId, Result};
use tidemark_operator::build::{BuildContext, build_operator};
use tidemark_operator::{Barrier, Operator, Out, RowError};
use tidemark_plan::{Catalog, JobPlan, Node, OnError, Op, Relation};
use tidemark_planner::{Functions, Planner};

const SECOND: i64 = 1_000_000;

/// Of views that forget, and of others, whose joins grow.
const EPOCHS: [u64; 2] = [300, 60];

/// Of some 9,000 that come from each source.
const ROWS_MAX: usize = 6_000;

const INPUTS: [&str; 3] = [
    "CREATE SOURCE a (k int, v int, at timestamp, WATERMARK FOR at AS at - INTERVAL '3 seconds') \
     WITH (connector = 'datagen')",
    "CREATE SOURCE b (k int, v int, at timestamp, WATERMARK FOR at AS at - INTERVAL '1 second') \
     WITH (connector = 'datagen')",
    "CREATE TABLE d (k int, v int, at timestamp)",
];

/// Views that forget.
const BOUNDED: [&str; 23] = [
    "SELECT k, window_start, count(*), sum(v), min(v) FROM TUMBLE(a, at, INTERVAL '5 s') \
     GROUP BY k, window_start",
    "SELECT window_end, count(DISTINCT v) AS n, count(DISTINCT v) FILTER (WHERE k = 1), max(v) \
     FROM HOP(a, at, INTERVAL '2 s', INTERVAL '6 s') GROUP BY window_start, window_end",
    "SELECT DISTINCT k, at FROM a",
    "SELECT DISTINCT k, v, at FROM a",
    "SELECT k, v, at FROM a EXCEPT SELECT k, v, at FROM b",
    "SELECT date_trunc('minute', at) AS minute, count(*) FROM a GROUP BY 1",
    "SELECT w, max(n), min(n), count(DISTINCT n) AS m FROM (SELECT window_start AS w, k, \
     count(*) AS n FROM TUMBLE(a, at, INTERVAL '5 s') GROUP BY window_start, k) q GROUP BY w",
    "SELECT * FROM (SELECT k, v, window_start, row_number() OVER (PARTITION BY window_start \
     ORDER BY v DESC, k) AS n FROM TUMBLE(a, at, INTERVAL '5 s')) q WHERE n <= 2",
    "SELECT k, v, window_start, sum(v) OVER (PARTITION BY window_start, k ORDER BY at) \
     FROM TUMBLE(a, at, INTERVAL '5 s')",
    "SELECT window_start, array_agg(v ORDER BY at), mode() WITHIN GROUP (ORDER BY v) \
     FROM TUMBLE(a, at, INTERVAL '5 s') GROUP BY window_start",
    "SELECT a.k, a.v, b.v AS w FROM a JOIN b ON a.k = b.k AND a.at = b.at",
    "SELECT x.k, x.window_start, x.n, y.n AS m FROM (SELECT k, window_start, count(*) AS n \
     FROM TUMBLE(a, at, INTERVAL '4 s') GROUP BY k, window_start) x \
     FULL JOIN (SELECT k, window_start, count(*) AS n FROM TUMBLE(b, at, INTERVAL '4 s') \
     GROUP BY k, window_start) y ON x.k = y.k AND x.window_start = y.window_start",
    "SELECT k, v, window_start, window_end, count(*) FROM SESSION(a, at, INTERVAL '2 s', k, v) \
     GROUP BY k, v, window_start, window_end",
    "SELECT k, v, at, window_start, window_end FROM SESSION(a, at, INTERVAL '1 s', k, v)",
    "SELECT a.k, a.v, b.v AS w FROM a LEFT JOIN b ON a.k = b.k AND a.at = b.at",
    "SELECT a.k, a.v, b.v AS w FROM a RIGHT JOIN b ON a.k = b.k AND a.at = b.at AND a.v <> b.v",
    "SELECT a.k, a.v, b.v AS w FROM a JOIN b ON a.k = b.k \
     AND b.at BETWEEN a.at - INTERVAL '2 s' AND a.at + INTERVAL '4 s'",
    "SELECT a.k, a.v, b.v AS w FROM a LEFT JOIN b ON a.k = b.k \
     AND b.at >= a.at AND b.at < a.at + INTERVAL '4 s'",
    "SELECT a.k, a.v, b.v AS w FROM a RIGHT JOIN b ON a.k = b.k \
     AND a.at >= b.at - INTERVAL '3 s' AND a.at + INTERVAL '1 s' <= b.at",
    "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.at = a.at)",
    "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.at > a.at \
     AND b.at < a.at + INTERVAL '5 s')",
    "SELECT at, count(*) FROM (SELECT at FROM a UNION ALL SELECT at FROM b) q GROUP BY at",
    "SELECT x.w, count(*) FROM (SELECT a.at AS w FROM a JOIN b ON a.k = b.k \
     AND b.at >= a.at - INTERVAL '1 s' AND b.at <= a.at + INTERVAL '1 s') x GROUP BY x.w",
];

/// Views that must not.
const UNBOUNDED: [&str; 9] = [
    "SELECT k, count(*), max(at) FROM a GROUP BY k",
    "SELECT a.k, a.v, b.v AS w FROM a JOIN b ON a.k = b.k",
    "SELECT a.k, a.v, b.v AS w FROM a FULL JOIN b ON a.k = b.k AND b.at >= a.at \
     AND b.at < a.at + INTERVAL '4 s'",
    "SELECT a.k, a.v, d.v AS w FROM a JOIN d ON a.k = d.k AND a.at = d.at",
    "SELECT at, count(*) FROM d GROUP BY at",
    "SELECT at, count(*) FROM (SELECT at FROM a UNION ALL SELECT at FROM d) q GROUP BY at",
    "SELECT k, at, count(*) FROM (SELECT k, max(at) AS at FROM a GROUP BY k) q GROUP BY k, at",
    "SELECT count(*), window_start FROM TUMBLE(a, at, INTERVAL '5 s') WHERE k IN \
     (SELECT 1 UNION ALL SELECT 2) GROUP BY window_start",
    "SELECT max(v), at + k * INTERVAL '1 s' FROM a GROUP BY 2",
];

#[test]
fn what_is_forgotten_changes_nothing() {
    let world = World::new();
    for (n, sql) in BOUNDED.iter().enumerate() {
        let job = world.plan(sql);
        assert!(closes(&job), "{sql}");
        for seed in 0..3 {
            world.check(sql, &job, 100 * n as u64 + seed, true);
        }
    }
}

#[test]
fn what_can_still_change_is_kept() {
    let world = World::new();
    for (n, sql) in UNBOUNDED.iter().enumerate() {
        let job = world.plan(sql);
        world.check(sql, &job, n as u64, false);
    }
}

/// Whether some operator of a job forgets.
fn closes(job: &JobPlan) -> bool {
    let mut job = job.clone();
    let mut found = false;
    job.fragments
        .iter_mut()
        .for_each(|f| each_closing(&mut f.root, &mut |closes| found |= closes.is_some()));
    found
}

fn each_closing(node: &mut Node, f: &mut dyn FnMut(&mut Option<tidemark_plan::ColumnWatermark>)) {
    match &mut node.op {
        Op::Aggregate { closes, .. } | Op::TopN { closes, .. } => f(closes),
        Op::Window { closes, .. } | Op::Collect { closes, .. } => f(closes),
        Op::Session { closes, .. } => f(closes),
        Op::Join {
            left_closes,
            right_closes,
            ..
        } => {
            f(left_closes);
            f(right_closes);
        }
        _ => {}
    }
    node.inputs.iter_mut().for_each(|n| each_closing(n, f));
}

struct World {
    catalog: Arc<Catalog>,
    functions: Functions,
}

impl World {
    fn new() -> World {
        let mut world = World {
            catalog: Arc::default(),
            functions: Functions {
                scalar: tidemark_operator::functions::all(),
            },
        };
        for sql in INPUTS {
            let relation = world.create(sql);
            Arc::make_mut(&mut world.catalog)
                .relations
                .insert(relation.id, Arc::new(relation));
        }
        world
    }

    fn create(&self, sql: &str) -> Relation {
        let statement = tidemark_planner::parse(sql).unwrap().remove(0);
        let planner = Planner::new(self.catalog.clone(), &self.functions, &["public".into()]);
        let id = RelationId(self.catalog.relations.len() as u32 + 1);
        let planned = planner.plan_create(id, &statement, "root");
        planned.unwrap_or_else(|e| panic!("{sql}: {e}")).relation
    }

    fn plan(&self, sql: &str) -> JobPlan {
        let view = self.create(&format!("CREATE MATERIALIZED VIEW v AS {sql}"));
        view.job.unwrap()
    }

    fn check(&self, sql: &str, job: &JobPlan, seed: u64, bounded: bool) {
        let mut keeps_all = job.clone();
        for fragment in &mut keeps_all.fragments {
            each_closing(&mut fragment.root, &mut |closes| *closes = None);
        }
        let mut random = Random(seed);
        let mut inputs = Inputs::default();
        let (mut planned, mut other) = (Run::new(job), Run::new(&keeps_all));
        let mut durable = Durable::default();
        let [forgetting, growing] = EPOCHS;
        let epochs = if bounded { forgetting } else { growing };
        for epoch in 1..=epochs {
            for (relation, batch) in inputs.next(&mut random) {
                planned.change(relation, &batch);
                other.change(relation, &batch);
            }
            let barrier = inputs.barrier(epoch);
            planned.barrier(&barrier);
            other.barrier(&barrier);
            assert_eq!(
                planned.sum.0, other.sum.0,
                "seed {seed}, epoch {epoch}: {sql}"
            );
            // Not every barrier is a checkpoint's.
            if !random.one_in(3) {
                continue;
            }
            durable.seal(&mut planned);
            if random.one_in(3) {
                let sum = std::mem::take(&mut planned.sum);
                planned = Run::new(job);
                planned.sum = sum;
                durable.restore(&mut planned);
            }
        }
        // Who forgets waits until what is kept has doubled.
        let rows = durable.rows();
        assert!(!bounded || rows < ROWS_MAX, "{rows} rows are kept: {sql}");
    }
}

/// What comes: two sources that keep their promises, and a table.
#[derive(Default)]
struct Inputs {
    now: i64,
    largest: [i64; 2],
    table: Vec<(i32, i32, i64)>,
}

impl Inputs {
    fn next(&mut self, random: &mut Random) -> Vec<(RelationId, ChangeBatch)> {
        self.now += random.below(3) as i64;
        let mut changes = Vec::new();
        for source in 0..2 {
            let least = self.promise(source);
            let rows: Vec<_> = (0..random.below(60))
                .map(|_| {
                    // None is late.
                    let at = least.max(self.now - 3 + random.below(6) as i64);
                    self.largest[source] = self.largest[source].max(at);
                    ((random.below(4) as i32, random.below(50) as i32, at), 1)
                })
                .collect();
            changes.push((source as u32, rows));
        }
        let mut rows = Vec::new();
        for _ in 0..random.below(3) {
            let at = random.below(self.now as usize + 1) as i64;
            let row = (random.below(4) as i32, random.below(9) as i32, at);
            self.table.push(row);
            rows.push((row, 1));
        }
        if self.table.len() > 40 {
            let at = random.below(self.table.len());
            rows.push((self.table.swap_remove(at), -1));
        }
        changes.push((2, rows));
        let changes = changes.into_iter().filter(|(_, rows)| !rows.is_empty());
        let changes = changes.map(|(input, rows)| (RelationId(input + 1), batch(&rows)));
        changes.collect()
    }

    fn promise(&self, source: usize) -> i64 {
        self.largest[source] - [3, 1][source]
    }

    fn barrier(&self, epoch: u64) -> Barrier {
        let promise = |source: usize| {
            let id = RelationId(source as u32 + 1);
            (id, self.promise(source) * SECOND)
        };
        let known = (0..2).filter(|source| self.largest[*source] > 0);
        Barrier {
            epoch: Epoch(epoch),
            clock: 0,
            checkpoint: true,
            horizon_ms: -1,
            watermarks: Arc::new(known.map(promise).collect()),
        }
    }
}

fn batch(rows: &[((i32, i32, i64), i64)]) -> ChangeBatch {
    let columns: [(&str, ArrayRef); 3] = [
        (
            "k",
            Arc::new(rows.iter().map(|r| Some(r.0.0)).collect::<Int32Array>()),
        ),
        (
            "v",
            Arc::new(rows.iter().map(|r| Some(r.0.1)).collect::<Int32Array>()),
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|r| r.0.2 * SECOND),
            )),
        ),
    ];
    let rows_of = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true)));
    ChangeBatch::new(rows_of.unwrap(), rows.iter().map(|r| r.1).collect())
}

/// The sum of what a job has sent, by rows as text.
#[derive(Default)]
struct Sum(BTreeMap<String, i64>);

impl Sum {
    fn add(&mut self, batch: &ChangeBatch) {
        let options = FormatOptions::default().with_null("-");
        let columns: Vec<_> = batch.rows().columns().to_vec();
        let columns: Vec<_> = columns
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let texts: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            let text = texts.join(" ");
            let sum = self.0.entry(text.clone()).or_default();
            *sum += batch.weight(row);
            if *sum == 0 {
                self.0.remove(&text);
            }
        }
    }
}

/// An operator, and who reads its output: which one, at which port.
struct Slot {
    operator: Box<dyn Operator>,
    parent: Option<(usize, usize)>,
}

/// A job on one worker.
struct Run {
    /// Inputs before those who read them.
    slots: Vec<Slot>,
    leaves: Vec<(RelationId, Vec<usize>, SchemaRef, Option<(usize, usize)>)>,
    sum: Sum,
}

impl Run {
    fn new(job: &JobPlan) -> Run {
        let mut run = Run {
            slots: Vec::new(),
            leaves: Vec::new(),
            sum: Sum::default(),
        };
        let mut root = &job.fragments[job.fragments.len() - 1].root;
        while let Op::Materialize { .. } = root.op {
            root = &root.inputs[0];
        }
        run.build(job, root).expect("a view computes something");
        run
    }

    /// Answers where a node is: among the slots, or (an error) among the leaves.
    fn build(&mut self, job: &JobPlan, node: &Node) -> Result<usize, usize> {
        match &node.op {
            Op::Receive { from } => return self.build(job, &job.fragments[*from as usize].root),
            Op::Tap { relation, columns } => {
                let leaf = (*relation, columns.clone(), node.schema.clone(), None);
                self.leaves.push(leaf);
                return Err(self.leaves.len() - 1);
            }
            Op::Values { rows } => {
                let values = tidemark_operator::values::values(rows, &node.schema).unwrap();
                self.leaves
                    .push((RelationId(0), Vec::new(), node.schema.clone(), None));
                assert!(values.is_none_or(|v| v.num_rows() < 3), "a few constants");
                return Err(self.leaves.len() - 1);
            }
            _ => {}
        }
        let inputs: Vec<_> = node
            .read()
            .into_iter()
            .map(|n| self.build(job, n))
            .collect();
        let mut context = BuildContext {
            relation: "v".into(),
            vnode_of_worker: 0,
            owns_vnode_zero: true,
            on_error: OnError::Log,
            sink_output: None,
            neighbours: Default::default(),
        };
        let operator = build_operator(node, &mut context).unwrap().operator;
        self.slots.push(Slot {
            operator,
            parent: None,
        });
        let parent = self.slots.len() - 1;
        for (port, input) in inputs.into_iter().enumerate() {
            match input {
                Ok(slot) => self.slots[slot].parent = Some((parent, port)),
                Err(leaf) => self.leaves[leaf].3 = Some((parent, port)),
            }
        }
        Ok(parent)
    }

    fn change(&mut self, relation: RelationId, batch: &ChangeBatch) {
        for (of, columns, schema, parent) in &self.leaves {
            if *of != relation {
                continue;
            }
            let rows = batch.rows().project(columns).unwrap();
            let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec()).unwrap();
            let changes = ChangeBatch::with_weights(rows, batch.weights().cloned());
            let mut chain = Chain {
                slots: &mut self.slots,
                base: 0,
                target: *parent,
                sum: &mut self.sum,
            };
            chain.send(changes).unwrap();
        }
    }

    fn barrier(&mut self, barrier: &Barrier) {
        for i in 0..self.slots.len() {
            let (head, rest) = self.slots[i..].split_first_mut().unwrap();
            let mut chain = Chain {
                slots: rest,
                base: i + 1,
                target: head.parent,
                sum: &mut self.sum,
            };
            head.operator.on_barrier(barrier, &mut chain).unwrap();
        }
    }
}

struct Chain<'a> {
    slots: &'a mut [Slot],
    base: usize,
    target: Option<(usize, usize)>,
    sum: &'a mut Sum,
}

impl Out for Chain<'_> {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some((slot, port)) = self.target else {
            self.sum.add(&batch);
            return Ok(());
        };
        let (head, rest) = self.slots[slot - self.base..].split_first_mut().unwrap();
        let mut chain = Chain {
            slots: rest,
            base: slot + 1,
            target: head.parent,
            sum: self.sum,
        };
        head.operator.on_changes(port, batch, &mut chain)
    }
    fn row_error(&mut self, error: RowError) -> Result<()> {
        panic!("{error:?}")
    }
}

/// The rows of checkpoints, by table and key.
#[derive(Default)]
struct Durable(BTreeMap<(u32, String), RecordBatch>);

impl Durable {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn seal(&mut self, run: &mut Run) {
        for table in run.slots.iter_mut().flat_map(|s| s.operator.tables()) {
            let spec = table.spec();
            let key = |rows: &RecordBatch, row: usize| {
                let key: Vec<usize> = (0..spec.key_columns).collect();
                let key = rows.slice(row, 1).project(&key).unwrap();
                (spec.table, format!("{:?}", key.columns()))
            };
            let Some(delta) = table.seal() else { continue };
            let mut told = BTreeSet::new();
            for row in 0..delta.deletes.num_rows() {
                let key = key(&delta.deletes, row);
                assert!(self.0.remove(&key).is_some(), "never sealed: {key:?}");
                assert!(told.insert(key), "a key is told of once");
            }
            for row in 0..delta.upserts.num_rows() {
                let key = key(&delta.upserts, row);
                self.0.insert(key.clone(), delta.upserts.slice(row, 1));
                assert!(told.insert(key), "a key is told of once");
            }
        }
    }

    fn restore(&self, run: &mut Run) {
        for table in run.slots.iter_mut().flat_map(|s| s.operator.tables()) {
            let number = table.spec().table;
            let rows = self
                .0
                .range((number, String::new())..(number + 1, String::new()));
            let rows: Vec<&RecordBatch> = rows.map(|(_, rows)| rows).collect();
            if let Some(first) = rows.first() {
                let rows = concat_batches(&first.schema(), rows.iter().copied());
                table.restore(&rows.unwrap());
            }
        }
    }
}
