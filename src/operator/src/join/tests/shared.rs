//! Joins with shared sides: relations that are kept elsewhere, run ahead of the join, merge and sum
//! what nobody asked them to keep apart; before the join counts, they keep nothing apart. At every
//! barrier the summed output equals the nested loop, also of a join that was restored there.

use super::*;
use std::collections::VecDeque;
use tidemark_common::{Epoch, RelationId};
use tidemark_state::{ViewOptions, ViewPartition};

/// A row of a relation: what the side has, and what only a filter reads.
type Kept = (Row, i64);

/// A relation (k, s, v, w) with the key (k) or (k, s), and a side of a join over it.
struct Relation {
    port: usize,
    keys: usize,
    /// The side has the rows with w < 3 only.
    filtered: bool,
    view: Arc<ViewPartition>,
    rows: BTreeMap<(Option<i64>, Option<&'static str>), Kept>,
}

fn relation_schema() -> SchemaRef {
    let mut fields: Vec<Field> = schema(0)
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.push(Field::new("w", DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

fn relation_changes(rows: &[(Kept, i64)]) -> ChangeBatch {
    let plain: Vec<(Row, i64)> = rows
        .iter()
        .map(|((row, _), weight)| (*row, *weight))
        .collect();
    let batch = changes(0, &plain);
    let mut columns = batch.rows().columns().to_vec();
    let w = rows.iter().map(|((_, w), _)| Some(*w));
    columns.push(Arc::new(w.collect::<Int64Array>()));
    let rows = RecordBatch::try_new(relation_schema(), columns).unwrap();
    let weights = (0..rows.num_rows()).map(|row| batch.weight(row));
    ChangeBatch::new(rows, weights.collect())
}

impl Relation {
    fn new(port: usize, keys: usize, filtered: bool) -> Relation {
        let view = ViewPartition::new(ViewOptions {
            name: "r".into(),
            schema: relation_schema(),
            key: Some((0..keys).collect()),
            append_only: false,
            table: 9,
            vnode_of_worker: 0,
            partitioned_by_key: true,
        });
        Relation {
            port,
            keys,
            filtered,
            view: Arc::new(view),
            rows: BTreeMap::new(),
        }
    }

    fn id(&self) -> RelationId {
        RelationId(self.port as u32 + 7)
    }

    fn shared(&self) -> SharedRows {
        let less = Expr::Binary {
            op: BinaryOp::Lt,
            left: Box::new(Expr::Column(3)),
            right: Box::new(Expr::Literal(Literal::Int64(3))),
        };
        let mut columns = if self.port == 0 {
            vec![0, 1, 2]
        } else {
            vec![2, 0, 1]
        };
        columns.extend(self.filtered.then_some(3));
        SharedRows {
            relation: self.id(),
            columns,
            filter: self.filtered.then_some(less),
        }
    }

    /// Random changes that keep the key unique, in any order.
    fn change(&mut self, random: &mut Random) -> Vec<(Kept, i64)> {
        let mut changes = Vec::new();
        for _ in 0..random.below(6) {
            let row = (random_row(random), random.below(5) as i64);
            let key = (row.0.0, row.0.1.filter(|_| self.keys == 2));
            let before = match random.below(3) {
                0 => self.rows.remove(&key),
                _ => {
                    changes.push((row, 1));
                    self.rows.insert(key, row)
                }
            };
            changes.extend(before.map(|row| (row, -1)));
        }
        for i in (1..changes.len()).rev() {
            changes.swap(i, random.below(i + 1));
        }
        changes
    }

    /// What of them the side has.
    fn of_side(&self, changes: &[(Kept, i64)]) -> Vec<(Row, i64)> {
        let kept = changes
            .iter()
            .filter(|((_, w), _)| !self.filtered || *w < 3);
        kept.map(|((row, _), weight)| (*row, *weight)).collect()
    }

    fn side(&self) -> BTreeMap<Row, i64> {
        let rows: Vec<(Kept, i64)> = self.rows.values().map(|row| (*row, 1)).collect();
        let mut side = BTreeMap::new();
        for (row, weight) in self.of_side(&rows) {
            *side.entry(row).or_default() += weight;
        }
        side
    }
}

/// What the join gets in an epoch, and what both sides are at its end.
struct Closing {
    epoch: Epoch,
    batches: Vec<(usize, Vec<(Row, i64)>)>,
    sides: [BTreeMap<Row, i64>; 2],
}

struct History {
    random: Random,
    case: Case,
    relations: Vec<Relation>,
    /// Of sides that are not shared.
    sides: [BTreeMap<Row, i64>; 2],
    newest: Epoch,
    waiting: VecDeque<Closing>,
}

impl History {
    /// All relations go on by an epoch.
    fn go_on(&mut self) {
        self.newest = self.newest.next();
        let (mut batches, random) = (Vec::new(), &mut self.random);
        for relation in &mut self.relations {
            let changes = relation.change(random);
            let side = relation.of_side(&changes);
            let cut = random.below(side.len() + 1);
            batches.push((relation.port, side[..cut].to_vec()));
            batches.push((relation.port, side[cut..].to_vec()));
            relation
                .view
                .append(self.newest, vec![relation_changes(&changes)]);
        }
        for port in 0..2 {
            if self.relations.iter().all(|r| r.port != port) {
                for _ in 0..2 {
                    let side = &mut self.sides[port];
                    let rows = random_batch(random, side, self.case.append_only[port]);
                    batches.push((port, rows));
                }
            }
        }
        for i in (1..batches.len()).rev() {
            batches.swap(i, random.below(i + 1));
        }
        let mut sides = self.sides.clone();
        for relation in &self.relations {
            sides[relation.port] = relation.side();
        }
        let (epoch, sides) = (self.newest, sides);
        self.waiting.push_back(Closing {
            epoch,
            batches,
            sides,
        });
    }

    /// Somebody says that no old epoch is needed any more.
    fn settle(&mut self) {
        for relation in &self.relations {
            relation.view.settle(&[self.newest]);
        }
    }
}

fn barrier(epoch: Epoch) -> Barrier {
    Barrier {
        epoch,
        clock: 0,
        checkpoint: false,
        horizon_ms: -1,
        watermarks: Default::default(),
    }
}

fn restored(mut join: Join, durable: &[Durable]) -> Join {
    for (table, durable) in join.tables().into_iter().zip(durable) {
        let rows: Vec<&RecordBatch> = durable.0.values().collect();
        if let Some(first) = rows.first() {
            let all = compute::concat_batches(&first.schema(), rows.iter().copied()).unwrap();
            table.restore(&all);
        }
    }
    join
}

fn run(case: Case, shared: [bool; 2], seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let relations: Vec<Relation> = (0..2)
        .filter(|port| shared[*port])
        .map(|port| Relation::new(port, case.keys, random.below(2) == 0))
        .collect();
    let neighbours = Arc::new(Neighbours::default());
    let mut sides = [None, None];
    for relation in &relations {
        neighbours.set(relation.id(), Some(relation.view.clone()));
        sides[relation.port] = Some(relation.shared());
    }
    // It is promoted when it has passed this epoch, and counts from one that has not begun then.
    let promoted_at = Epoch(random.below_u64(5));
    let mut counts_from = None;
    let mut join = case.join_of(sides.clone(), &neighbours);
    let (mut out, mut durable) = (Sum::default(), [Durable::default()]);
    let mut history = History {
        random,
        case,
        relations,
        sides: Default::default(),
        newest: Epoch(0),
        waiting: VecDeque::new(),
    };
    let mut passed = Epoch(0);
    while passed < Epoch(40) {
        if passed >= promoted_at && counts_from.is_none() {
            counts_from = Some(history.newest.next());
        }
        for relation in &history.relations {
            relation.view.keep_apart(counts_from.and(Some(passed)));
        }
        match history.random.below(3) {
            0 if history.waiting.len() < 4 => {
                history.go_on();
                continue;
            }
            1 => history.settle(),
            _ => {}
        }
        let Some(closing) = history.waiting.pop_front() else {
            continue;
        };
        for (port, rows) in closing.batches.iter().filter(|(_, rows)| !rows.is_empty()) {
            join.on_changes(*port, changes(*port, rows), &mut out)
                .unwrap();
        }
        passed = closing.epoch;
        join.on_barrier(&barrier(passed), &mut out).unwrap();
        let (expected, _) = case.by_nested_loop(&closing.sides[0], &closing.sides[1]);
        assert_eq!(
            out.rows, expected,
            "{case:?} {shared:?}, seed {seed}, epoch {passed}"
        );
        if counts_from.is_none_or(|from| passed < from) {
            continue;
        }
        join.passed(passed);
        if history.random.below(4) == 0 {
            for (table, durable) in join.tables().into_iter().zip(&mut durable) {
                let first = usize::from(table.spec().form == TableForm::Appended);
                let key_hash = |row: &RecordBatch| {
                    hash_columns(&row.columns()[first..first + case.keys], 1)[0]
                };
                durable.seal(table, &key_hash);
            }
            join = restored(case.join_of(sides.clone(), &neighbours), &durable);
            join.passed(passed);
        }
        if shared == [true, true] {
            assert!(join.keys.lock().index.is_empty(), "{case:?}, seed {seed}");
        }
    }
}

#[test]
fn shared_sides_are_as_if_they_were_kept() {
    let mut seed = 0;
    for kind in KINDS {
        for keys in 1..=2 {
            for shared in [[false, true], [true, false], [true, true]] {
                for output in [[&[0, 1, 2], &[0, 1, 2]], [&[0, 1, 2], &[1, 1, 2]]] {
                    for append_only in [[false; 2], [true; 2]] {
                        seed += 1;
                        let residual =
                            (kind == JoinKind::Inner && seed % 2 == 0).then_some(Condition::Less);
                        let case = Case {
                            kind,
                            keys,
                            null_equals_null: seed % 3 == 0,
                            residual,
                            append_only,
                            output: output.map(|columns: &'static [usize; 3]| &columns[..]),
                        };
                        for round in 0..3 {
                            run(case, shared, seed * 10 + round);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn of_a_side_of_which_only_the_key_is_read_the_key_alone_is_looked_up() {
    for kind in [
        JoinKind::LeftSemi,
        JoinKind::LeftAnti,
        JoinKind::Inner,
        JoinKind::Left,
    ] {
        for seed in 0..20 {
            let case = Case {
                kind,
                keys: 1,
                null_equals_null: false,
                residual: None,
                append_only: [false; 2],
                output: [&[0, 2], &[1]],
            };
            run(case, [false, true], seed);
        }
    }
}
