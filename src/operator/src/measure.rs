//! Rates of the operators, one thread, batches of 4,096 rows. Run with `--ignored --nocapture
//! measure`.

use crate::aggregate::Aggregate;
use crate::build::{BuildContext, build_fused, build_operator};
use crate::testing::barrier;
use crate::{Operator, Out, RowError};
use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;
use std::time::Instant;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_common::random::Random;
use tidemark_plan::{
    AggregateCall, AggregateFunction, BinaryOp, Expr, Literal, Node, OnError, Op, Properties,
};

const ROWS: usize = 4096;

#[derive(Default)]
struct Count {
    rows: usize,
    batches: usize,
}

impl Out for Count {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.batches += 1;
        Ok(())
    }
    fn row_error(&mut self, error: RowError) -> Result<()> {
        panic!("{}", error.message)
    }
}

/// (auction, bidder, price, channel, url, date_time, f) like Nexmark's bids.
fn bids(random: &mut Random, auctions: u64, bidders: u64, at: i64) -> ChangeBatch {
    let ints = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let channels = ["Google", "Facebook", "Baidu", "Apple", "channel-1234"];
    let texts: Vec<String> = (0..ROWS)
        .map(|_| {
            format!(
                "https://www.nexmark.com/{}/item.htm?query=1&channel_id={}",
                random.below_u64(1000),
                random.below_u64(10_000)
            )
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        ints(
            (0..ROWS)
                .map(|_| random.below_u64(auctions) as i64)
                .collect(),
        ),
        ints(
            (0..ROWS)
                .map(|_| random.below_u64(bidders) as i64)
                .collect(),
        ),
        ints(
            (0..ROWS)
                .map(|_| random.below_u64(10_000_000) as i64)
                .collect(),
        ),
        Arc::new(StringArray::from_iter_values(
            (0..ROWS).map(|_| channels[random.below_u64(5) as usize]),
        )),
        Arc::new(StringArray::from(texts)),
        Arc::new(TimestampMicrosecondArray::from(
            (0..ROWS as i64).map(|i| at + i * 100).collect::<Vec<_>>(),
        )),
        Arc::new(Float64Array::from(
            (0..ROWS)
                .map(|_| random.below_u64(1_000_000) as f64 / 100.0)
                .collect::<Vec<_>>(),
        )),
    ];
    ChangeBatch::insert(RecordBatch::try_new(schema(), columns).unwrap())
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let fields = [
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int64),
        ("channel", DataType::Utf8),
        ("url", DataType::Utf8),
        ("date_time", time),
        ("f", DataType::Float64),
    ];
    Arc::new(Schema::new(
        fields.map(|(name, t)| Field::new(name, t, true)).to_vec(),
    ))
}

fn batches(n: usize, auctions: u64, bidders: u64) -> Vec<ChangeBatch> {
    let mut random = Random(42);
    (0..n)
        .map(|i| {
            bids(
                &mut random,
                auctions,
                bidders,
                1_700_000_000_000_000 + i as i64 * ROWS as i64 * 100,
            )
        })
        .collect()
}

/// Feeds everything with a barrier every `per_epoch` batches, and prints the rate.
fn rate(
    name: &str,
    operator: &mut dyn Operator,
    input: &[ChangeBatch],
    times: usize,
    per_epoch: usize,
) {
    let (mut out, started, mut epoch) = (Count::default(), Instant::now(), 0);
    for _ in 0..times {
        for part in input.chunks(per_epoch) {
            part.iter()
                .for_each(|b| operator.on_changes(0, b.clone(), &mut out).unwrap());
            epoch += 1;
            operator.on_barrier(&barrier(epoch), &mut out).unwrap();
        }
    }
    let rows: usize = input.iter().map(ChangeBatch::num_rows).sum::<usize>() * times;
    let seconds = started.elapsed().as_secs_f64();
    let memory: usize = operator.tables().iter().map(|t| t.memory_bytes()).sum();
    println!(
        "{name:45} {:8.2} M rows/s   out {:>9} rows in {:>6} batches   state {:7.1} MB",
        rows as f64 / seconds / 1e6,
        out.rows,
        out.batches,
        memory as f64 / 1e6
    );
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn int(value: i64) -> Expr {
    Expr::Literal(Literal::Int64(value))
}

fn call(function: &str, args: Vec<Expr>) -> Expr {
    Expr::Call {
        function: function.into(),
        args,
    }
}

fn text(text: &str) -> Expr {
    Expr::Literal(Literal::Utf8(text.into()))
}

fn node(op: Op, inputs: Vec<Node>, schema: SchemaRef) -> Node {
    Node {
        op,
        inputs,
        schema,
        properties: Properties::default(),
    }
}

fn project(name: &str, exprs: Vec<Expr>, types: &[DataType]) {
    let output = Arc::new(Schema::new(
        types
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true))
            .collect::<Vec<_>>(),
    ));
    let node = node(
        Op::Project { exprs },
        vec![node(Op::TableRead, Vec::new(), schema())],
        output,
    );
    let mut context = context();
    rate(
        name,
        build_operator(&node, &mut context)
            .unwrap()
            .operator
            .as_mut(),
        &batches(64, 1000, 1000),
        16,
        16,
    );
}

fn context() -> BuildContext {
    BuildContext {
        relation: "v".into(),
        vnode_of_worker: 0,
        owns_vnode_zero: true,
        on_error: OnError::Log,
        sink_output: None,
        neighbours: Default::default(),
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_filter_and_project() {
    let input = batches(64, 1000, 1000);
    let predicate = |per: i64| Op::Filter {
        predicate: binary(
            BinaryOp::Eq,
            binary(BinaryOp::Modulo, Expr::Column(0), int(per)),
            int(0),
        ),
    };
    let output = Arc::new(schema().project(&[0, 2]).unwrap());
    for per in [2, 123] {
        let filter = node(
            predicate(per),
            vec![node(Op::TableRead, Vec::new(), schema())],
            schema(),
        );
        rate(
            &format!("filter 1 of {per}, 7 columns"),
            build_operator(&filter, &mut context())
                .unwrap()
                .operator
                .as_mut(),
            &input,
            16,
            16,
        );
        let fused = node(
            Op::Project {
                exprs: vec![Expr::Column(0), Expr::Column(2)],
            },
            vec![filter],
            output.clone(),
        );
        rate(
            &format!("filter 1 of {per} and project 2, fused"),
            build_fused(&fused, &mut context())
                .unwrap()
                .0
                .operator
                .as_mut(),
            &input,
            16,
            16,
        );
    }
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    project(
        "columns only",
        vec![Expr::Column(0), Expr::Column(4)],
        &[DataType::Int64, DataType::Utf8],
    );
    project(
        "price * 908 / 1000",
        vec![binary(
            BinaryOp::Divide,
            binary(BinaryOp::Multiply, Expr::Column(2), int(908)),
            int(1000),
        )],
        &[DataType::Int64],
    );
    project(
        "tumble_start, add_micros",
        vec![
            call("tumble_start", vec![Expr::Column(5), int(10_000_000)]),
            call("add_micros", vec![Expr::Column(5), int(5)]),
        ],
        &[time.clone(), time],
    );
    project(
        "to_char day and minute",
        vec![
            call("to_char", vec![Expr::Column(5), text("YYYY-MM-DD")]),
            call("to_char", vec![Expr::Column(5), text("HH24:MI")]),
        ],
        &[DataType::Utf8, DataType::Utf8],
    );
    project(
        "split_part(url, '/', 4)",
        vec![call("split_part", vec![Expr::Column(4), text("/"), int(4)])],
        &[DataType::Utf8],
    );
    project(
        "regexp_extract channel_id",
        vec![call(
            "regexp_extract",
            vec![Expr::Column(4), text("(&|^)channel_id=([^&]*)"), int(2)],
        )],
        &[DataType::Utf8],
    );
    project(
        "lower(channel)",
        vec![call("lower", vec![Expr::Column(3)])],
        &[DataType::Utf8],
    );
}

fn aggregate_call(
    function: AggregateFunction,
    arg: Option<usize>,
    output: DataType,
) -> AggregateCall {
    AggregateCall {
        function,
        arg,
        second: None,
        distinct: false,
        filter: None,
        order: Vec::new(),
        output,
    }
}

fn aggregate(
    input: &SchemaRef,
    group: &[usize],
    calls: &[AggregateCall],
    append_only: bool,
) -> Aggregate {
    let groups = group.iter().map(|g| input.field(*g).clone());
    let called = calls
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("a{i}"), c.output.clone(), true));
    let output = Arc::new(Schema::new(groups.chain(called).collect::<Vec<_>>()));
    Aggregate::new(
        input,
        &output,
        group,
        calls,
        group.is_empty(),
        append_only,
        0,
    )
    .unwrap()
}

#[test]
#[ignore = "a measurement"]
fn measure_aggregates() {
    use AggregateFunction::{Avg, Count, Max, Sum};
    let wide = DataType::Decimal128(38, 0);
    let count_sum = [
        aggregate_call(Count, None, DataType::Int64),
        aggregate_call(Sum, Some(2), wide),
    ];
    for (name, auctions) in [
        ("count, sum: 1 k groups", 1000),
        ("count, sum: 1 M groups, growing", 1_000_000),
    ] {
        let input = batches(512, auctions, 1000);
        let mut a = aggregate(&schema(), &[0], &count_sum, true);
        rate(name, &mut a, &input, 1, 32);
        rate(&format!("{name}, again"), &mut a, &input, 2, 32);
    }
    let input = batches(256, 10_000, 1000);
    rate(
        "count, sum: global",
        &mut aggregate(&schema(), &[], &count_sum, true),
        &input,
        4,
        32,
    );
    rate(
        "count, sum: by channel",
        &mut aggregate(&schema(), &[3], &count_sum, true),
        &input,
        4,
        32,
    );
    let float = [
        aggregate_call(Sum, Some(6), DataType::Float64),
        aggregate_call(Avg, Some(6), DataType::Float64),
    ];
    rate(
        "sum, avg of floats: 10 k groups",
        &mut aggregate(&schema(), &[0], &float, true),
        &input,
        2,
        32,
    );
    let max = [aggregate_call(Max, Some(2), DataType::Int64)];
    rate(
        "max, append-only: 10 k groups",
        &mut aggregate(&schema(), &[0], &max, true),
        &input,
        2,
        32,
    );
    rate(
        "max, retractable: 10 k groups",
        &mut aggregate(&schema(), &[0], &max, false),
        &input,
        1,
        32,
    );
    let retracting: Vec<ChangeBatch> = input
        .iter()
        .flat_map(|b| {
            [
                b.clone(),
                ChangeBatch::with_weights(b.rows().clone(), Some(vec![-1; ROWS].into())),
            ]
        })
        .collect();
    rate(
        "max, insert and delete: 10 k groups",
        &mut aggregate(&schema(), &[0], &max, false),
        &retracting,
        1,
        33,
    );
}

#[test]
#[ignore = "a measurement"]
fn measure_distinct() {
    use AggregateFunction::Count;
    let mut fields: Vec<Field> = schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.extend(["rank1", "rank2", "rank3"].map(|n| Field::new(n, DataType::Boolean, true)));
    fields.push(Field::new("day", DataType::Utf8, true));
    let extended = Arc::new(Schema::new(fields));
    let with_ranks = |batch: &ChangeBatch| {
        let price = batch.column(2).as_primitive::<Int64Type>();
        let rank = |low: i64, high: i64| {
            Arc::new(
                price
                    .iter()
                    .map(|p| p.map(|p| (low..high).contains(&p)))
                    .collect::<BooleanArray>(),
            ) as ArrayRef
        };
        let day = Arc::new(StringArray::from(vec!["2024-03-05"; batch.num_rows()])) as ArrayRef;
        let columns = batch.rows().columns().iter().cloned().chain([
            rank(0, 10_000),
            rank(10_000, 1_000_000),
            rank(1_000_000, i64::MAX),
            day,
        ]);
        ChangeBatch::insert(RecordBatch::try_new(extended.clone(), columns.collect()).unwrap())
    };
    let input: Vec<ChangeBatch> = batches(512, 100_000, 100_000)
        .iter()
        .map(with_ranks)
        .collect();
    let mut calls = Vec::new();
    for (arg, distinct) in [(None, false), (Some(1), true), (Some(0), true)] {
        for filter in [None, Some(7), Some(8), Some(9)] {
            calls.push(AggregateCall {
                function: Count,
                arg,
                second: None,
                distinct,
                filter,
                order: Vec::new(),
                output: DataType::Int64,
            });
        }
    }
    let (mut a, mut b) = (
        aggregate(&extended, &[10], &calls, true),
        aggregate(&extended, &[3, 10], &calls, true),
    );
    rate("q15: 12 counts, 8 of them distinct", &mut a, &input, 1, 32);
    rate("q15, again", &mut a, &input, 1, 32);
    rate("q16: the same by channel and day", &mut b, &input, 1, 32);
    rate(
        "q15, retractable",
        &mut aggregate(&extended, &[10], &calls, false),
        &input,
        1,
        32,
    );
    rate(
        "distinct rows of (auction, bidder)",
        &mut aggregate(&extended, &[0, 1], &[], true),
        &input,
        1,
        32,
    );
}
