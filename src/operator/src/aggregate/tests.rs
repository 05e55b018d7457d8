//! Tables of changes for each shape, and random histories (retractions ahead of their rows, seals,
//! restores) against a naive recomputation.

use super::*;
use crate::testing::{Recorder, barrier, changes, epoch, schema, table};
use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::*;
use std::collections::{BTreeMap, HashMap};
use tidemark_changelog::{hash_columns, vnode_of_hash};
use tidemark_common::random::Random;
use tidemark_plan::{AggregateFunction, AggregateFunction::*, SortKey, aggregate_table_count};
use tidemark_state::TableDelta;
use tidemark_values::exact::{Moments, Pairs, Regression, Spread};
use tidemark_values::moment::{Interval, IntervalSum};
use tidemark_values::numeric::{Numeric, Sum as NumericTotal};

const HUGE: f64 = (1u64 << 62) as f64 * (1u64 << 62) as f64 * (1u64 << 62) as f64;
const NUMERIC: DataType = DataType::Decimal128(38, 0);

fn call(function: AggregateFunction, arg: Option<usize>, output: DataType) -> AggregateCall {
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

fn distinct(function: AggregateFunction, arg: usize, output: DataType) -> AggregateCall {
    AggregateCall {
        distinct: true,
        ..call(function, Some(arg), output)
    }
}

fn pair(function: AggregateFunction, y: usize, x: usize) -> AggregateCall {
    AggregateCall {
        second: Some(x),
        ..call(function, Some(y), DataType::Float64)
    }
}

fn filtered(call: AggregateCall, filter: usize) -> AggregateCall {
    AggregateCall {
        filter: Some(filter),
        ..call
    }
}

fn output_schema(input: &SchemaRef, group: &[usize], calls: &[AggregateCall]) -> SchemaRef {
    let groups = group.iter().map(|g| input.field(*g).clone());
    let calls = calls
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("a{i}"), c.output.clone(), true));
    Arc::new(Schema::new(groups.chain(calls).collect::<Vec<_>>()))
}

fn aggregate(
    columns: &str,
    group: &[usize],
    calls: &[AggregateCall],
    append_only: bool,
) -> Aggregate {
    let input = schema(columns);
    Aggregate::new(
        &input,
        &output_schema(&input, group, calls),
        group,
        calls,
        group.is_empty(),
        append_only,
        7,
    )
    .unwrap()
}

#[test]
fn counts_sums_and_means_follow_the_rows() {
    let columns = "k i64, v i32, w i64, d dec, f f64";
    let calls = [
        call(Count, None, DataType::Int64),
        call(Count, Some(1), DataType::Int64),
        call(Sum, Some(1), DataType::Int64),
        call(Sum, Some(2), NUMERIC),
        call(Avg, Some(1), DataType::LargeBinary),
        call(Sum, Some(3), DataType::Decimal128(38, 2)),
        call(Avg, Some(3), DataType::LargeBinary),
        call(Sum, Some(4), DataType::Float64),
        call(Avg, Some(4), DataType::Float64),
    ];
    let mut a = aggregate(columns, &[0], &calls, false);
    assert_eq!(
        epoch(
            &mut a,
            1,
            columns,
            &[
                "+1 1 10 9000000000 1.50 0.1\n+1 2 - - - -",
                "+1 1 - 9000000000 0.25 0.2"
            ]
        ),
        [
            "+1 1 2 1 10 18000000000 10.0000000000000000 1.75 0.87500000000000000000 \
             0.30000000000000004 0.15000000000000002",
            "+1 2 1 0 - - - - - - -",
        ]
    );
    assert_eq!(
        epoch(
            &mut a,
            2,
            columns,
            &[
                "-1 1 10 9000000000 1.50 0.1\n+1 1 7 1 -0.01 0.1",
                "-1 2 - - - -\n+1 3 1 1 1 1"
            ]
        ),
        [
            "-1 1 2 1 10 18000000000 10.0000000000000000 1.75 0.87500000000000000000 \
             0.30000000000000004 0.15000000000000002",
            "+1 1 2 1 7 9000000001 7.0000000000000000 0.24 0.12000000000000000000 \
             0.30000000000000004 0.15000000000000002",
            "-1 2 1 0 - - - - - - -",
            "+1 3 1 1 1 1 1.00000000000000000000 1.00 1.00000000000000000000 1.0 1.0",
        ]
    );
    assert_eq!(
        epoch(&mut a, 3, columns, &["+1 1 5 5 5 5\n-1 1 5 5 5 5"]),
        [""; 0],
        "nothing changed, nothing is sent"
    );
    assert_eq!(epoch(&mut a, 4, columns, &[]), [""; 0]);
}

#[test]
fn the_global_group_is_there_without_rows() {
    let columns = "v i32, b bool";
    let calls = [
        call(Count, None, DataType::Int64),
        call(Sum, Some(0), DataType::Int64),
        call(BoolAnd, Some(1), DataType::Boolean),
        call(BoolOr, Some(1), DataType::Boolean),
        call(Max, Some(0), DataType::Int32),
    ];
    let mut a = aggregate(columns, &[], &calls, false);
    assert_eq!(epoch(&mut a, 1, columns, &[]), ["+1 0 - - - -"]);
    assert_eq!(
        epoch(&mut a, 2, columns, &["+1 3 true\n+1 4 false"]),
        ["-1 0 - - - -", "+1 2 7 false true 4"]
    );
    assert_eq!(
        epoch(&mut a, 3, columns, &["-1 3 true\n-1 4 false"]),
        ["-1 2 7 false true 4", "+1 0 - - - -"]
    );
    let mut a = aggregate(columns, &[], &calls, false);
    assert_eq!(epoch(&mut a, 1, columns, &["+1 3 -"]), ["+1 1 3 - - 3"]);
}

#[test]
fn extremes_come_back_when_the_extreme_leaves() {
    let columns = "k i64, s text, f f64, t ts";
    let calls = [
        call(Min, Some(1), DataType::Utf8),
        call(Max, Some(1), DataType::Utf8),
        call(Min, Some(2), DataType::Float64),
        call(Max, Some(2), DataType::Float64),
        call(
            Max,
            Some(3),
            DataType::Timestamp(TimeUnit::Microsecond, None),
        ),
    ];
    let first = ["+1 1 b 1.5 1970-01-01T00:00:01\n+1 1 a NaN 1970-01-01T00:00:02\n+1 1 c -2 -"];
    for append_only in [true, false] {
        let mut a = aggregate(columns, &[0], &calls, append_only);
        assert_eq!(
            epoch(&mut a, 1, columns, &first),
            ["+1 1 a c -2.0 NaN 1970-01-01T00:00:02"]
        );
    }
    let mut a = aggregate(columns, &[0], &calls, false);
    epoch(&mut a, 1, columns, &first);
    assert_eq!(
        epoch(
            &mut a,
            2,
            columns,
            &["-1 1 a NaN 1970-01-01T00:00:02\n-1 1 c -2 -"]
        ),
        [
            "-1 1 a c -2.0 NaN 1970-01-01T00:00:02",
            "+1 1 b b 1.5 1.5 1970-01-01T00:00:01"
        ]
    );
}

#[test]
fn distinct_calls_share_a_table_and_filters_are_variants() {
    let columns = "k i64, v i32, p bool, q bool";
    let calls = [
        distinct(Count, 1, DataType::Int64),
        filtered(distinct(Count, 1, DataType::Int64), 2),
        filtered(distinct(Sum, 1, DataType::Int64), 3),
        filtered(call(Count, None, DataType::Int64), 3),
        distinct(Avg, 1, DataType::LargeBinary),
    ];
    for append_only in [true, false] {
        let mut a = aggregate(columns, &[0], &calls, append_only);
        assert_eq!(a.tables().len(), 2);
        let rows = "+1 1 5 true false\n+1 1 5 false true\n+1 1 6 - true\n+1 1 - true true\n+1 1 6 \
                    false true";
        assert_eq!(
            epoch(&mut a, 1, columns, &[rows]),
            ["+1 1 2 1 11 4 5.5000000000000000"]
        );
        assert_eq!(
            epoch(&mut a, 2, columns, &["+1 1 5 true true"]),
            [
                "-1 1 2 1 11 4 5.5000000000000000",
                "+1 1 2 1 11 5 5.5000000000000000"
            ]
        );
    }
    let mut a = aggregate(columns, &[0], &calls, false);
    epoch(
        &mut a,
        1,
        columns,
        &["+1 1 5 true false\n+1 1 5 false true\n+1 1 6 - true"],
    );
    assert_eq!(
        epoch(&mut a, 2, columns, &["-1 1 5 true false\n-1 1 6 - true"]),
        [
            "-1 1 2 1 11 2 5.5000000000000000",
            "+1 1 1 0 5 1 5.0000000000000000"
        ]
    );
}

#[test]
fn no_calls_is_distinct() {
    let mut a = aggregate("k i64, s text", &[0, 1], &[], true);
    assert_eq!(
        epoch(
            &mut a,
            1,
            "k i64, s text",
            &["+1 1 a\n+1 1 a\n+1 - -", "+1 1 b\n+1 - -"]
        ),
        ["+1 1 a", "+1 - -", "+1 1 b"]
    );
    assert_eq!(epoch(&mut a, 2, "k i64, s text", &["+1 1 a"]), [""; 0]);
}

#[test]
fn a_sum_beyond_its_type_is_an_error_and_one_that_comes_back_is_not() {
    let columns = "k i64, v i64";
    let mut a = aggregate(columns, &[0], &[call(Sum, Some(1), DataType::Int64)], false);
    let mut out = Recorder::default();
    a.on_changes(
        0,
        changes(
            columns,
            "+1 1 9223372036854775807\n+1 1 9223372036854775807\n-1 1 9223372036854775807",
        ),
        &mut out,
    )
    .unwrap();
    a.on_barrier(&barrier(1), &mut out).unwrap();
    assert_eq!(out.take(), ["+1 1 9223372036854775807"]);
    a.on_changes(0, changes(columns, "+1 1 1"), &mut out)
        .unwrap();
    let error = a.on_barrier(&barrier(2), &mut out).unwrap_err();
    assert_eq!(
        (error.state().0, error.message()),
        ("22003", "bigint out of range")
    );
}

#[test]
fn partial_rows_merge_to_the_whole() {
    let columns = "k i64, v i32";
    let calls = [
        call(Count, None, DataType::Int64),
        call(Sum, Some(1), DataType::Int64),
        call(Max, Some(1), DataType::Int32),
    ];
    let (input, partial) = (
        schema(columns),
        output_schema(&schema(columns), &[0], &calls),
    );
    let mut first = PartialAggregate::new(&input, &partial, &[0], &calls, true).unwrap();
    let merge = [
        call(Sum, Some(1), DataType::Int64),
        call(Sum, Some(2), DataType::Int64),
        call(Max, Some(3), DataType::Int32),
    ];
    let mut second = Aggregate::new(
        &partial,
        &output_schema(&partial, &[0], &merge),
        &[0],
        &merge,
        false,
        true,
        0,
    )
    .unwrap();
    let mut seen = Vec::new();
    for (number, lines) in ["+1 1 3\n+1 1 4\n+1 2 -", "+1 1 1\n+1 2 8"]
        .iter()
        .enumerate()
    {
        let (mut middle, mut out) = (Recorder::default(), Recorder::default());
        first
            .on_changes(0, changes(columns, lines), &mut middle)
            .unwrap();
        first
            .on_barrier(&barrier(number as u64), &mut middle)
            .unwrap();
        middle
            .batches
            .into_iter()
            .for_each(|b| second.on_changes(0, b, &mut out).unwrap());
        second
            .on_barrier(&barrier(number as u64), &mut out)
            .unwrap();
        seen.extend(out.take());
    }
    assert_eq!(
        seen,
        [
            "+1 1 2 7 4",
            "+1 2 1 - -",
            "-1 1 2 7 4",
            "+1 1 3 8 4",
            "-1 2 1 - -",
            "+1 2 2 8 8"
        ]
    );
}

// ---- random histories
// ---------------------------------------------------------------------------------------------

fn maybe<T>(random: &mut Random, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
    (!random.one_in(8)).then(|| value(random))
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    group: Option<i64>,
    narrow: Option<i32>,
    wide: Option<i64>,
    numeric: Option<i128>,
    float: Option<f64>,
    text: Option<String>,
    truth: Option<bool>,
    odd: Option<f64>,
    span: Option<(i32, i32, i64)>,
}

const COLUMNS: &str = "g i64, narrow i32, wide i64, numeric dec, float f64, string text, \
                       truth bool, odd f64, span span";

fn row(random: &mut Random, groups: u64) -> Row {
    Row {
        group: maybe(random, |r| r.below_u64(groups) as i64),
        narrow: maybe(random, |r| r.below_u64(9) as i32 - 4),
        wide: maybe(random, |r| {
            if r.below_u64(20) == 0 {
                i64::MAX
            } else {
                r.below_u64(5) as i64
            }
        }),
        numeric: maybe(random, |r| i128::from(r.below_u64(1000)) - 500),
        float: maybe(random, |r| {
            if r.below_u64(30) == 0 {
                HUGE
            } else {
                r.below_u64(1000) as f64 / 8.0 - 60.0
            }
        }),
        text: maybe(random, |r| {
            "x".repeat(r.below_u64(4) as usize)
                + if r.below_u64(2) == 0 {
                    ""
                } else {
                    "a string that is not kept inline"
                }
        }),
        truth: maybe(random, |r| r.below_u64(3) == 0),
        odd: maybe(random, |r| match r.below(40) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => 1e100,
            _ => (r.below(7) as f64 - 3.0) * 0.1,
        }),
        span: maybe(random, |r| {
            let small = |r: &mut Random| r.below(9) as i32 - 4;
            (small(r), small(r), i64::from(small(r)) * 3_600_000_000_000)
        }),
    }
}

fn batch(rows: &[(Row, i64)]) -> ChangeBatch {
    let of = |i: usize| schema(COLUMNS).field(i).data_type().clone();
    let numeric: Decimal128Array = rows.iter().map(|r| r.0.numeric).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.0.group).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.0.narrow).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|r| r.0.wide).collect::<Int64Array>()),
        Arc::new(numeric.with_data_type(of(3))),
        Arc::new(rows.iter().map(|r| r.0.float).collect::<Float64Array>()),
        Arc::new(
            rows.iter()
                .map(|r| r.0.text.as_deref())
                .collect::<StringArray>(),
        ),
        Arc::new(rows.iter().map(|r| r.0.truth).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|r| r.0.odd).collect::<Float64Array>()),
        spans(rows.iter().map(|r| r.0.span)),
    ];
    ChangeBatch::new(
        RecordBatch::try_new(schema(COLUMNS), columns).unwrap(),
        rows.iter().map(|r| r.1).collect(),
    )
}

fn spans(values: impl Iterator<Item = Option<(i32, i32, i64)>>) -> ArrayRef {
    let span = |(months, days, nanos)| IntervalMonthDayNano::new(months, days, nanos);
    Arc::new(
        values
            .map(|v| v.map(span))
            .collect::<IntervalMonthDayNanoArray>(),
    )
}

const SPAN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The first or last text in the order of a column.
fn in_order(function: AggregateFunction, column: usize, descending: bool) -> AggregateCall {
    AggregateCall {
        order: vec![SortKey {
            column,
            descending,
            nulls_first: descending,
        }],
        ..call(function, Some(5), DataType::Utf8)
    }
}

fn all_calls(append_only: bool) -> Vec<AggregateCall> {
    let big = |scale| DataType::Decimal128(38, scale);
    let mut calls = vec![
        call(Count, None, DataType::Int64),
        call(Count, Some(1), DataType::Int64),
        filtered(call(Count, None, DataType::Int64), 6),
        call(Sum, Some(1), DataType::Int64),
        call(Sum, Some(2), big(0)),
        filtered(call(Sum, Some(3), big(2)), 6),
        call(Avg, Some(2), DataType::LargeBinary),
        call(Sum, Some(4), DataType::Float64),
        call(Avg, Some(4), DataType::Float64),
        call(Min, Some(1), DataType::Int32),
        call(Max, Some(3), DataType::Decimal128(20, 2)),
        filtered(call(Min, Some(4), DataType::Float64), 6),
        call(Max, Some(5), DataType::Utf8),
        call(BoolAnd, Some(6), DataType::Boolean),
        call(BoolOr, Some(6), DataType::Boolean),
        distinct(Count, 1, DataType::Int64),
        filtered(distinct(Count, 1, DataType::Int64), 6),
        distinct(Count, 5, DataType::Int64),
        distinct(Sum, 2, big(0)),
        call(BitAnd, Some(1), DataType::Int32),
        call(BitOr, Some(2), DataType::Int64),
        filtered(call(BitXor, Some(1), DataType::Int32), 6),
        call(VarSamp, Some(1), DataType::LargeBinary),
        call(StddevPop, Some(3), DataType::LargeBinary),
        call(VarSamp, Some(4), DataType::Float64),
        filtered(call(StddevPop, Some(7), DataType::Float64), 6),
        distinct(VarPop, 4, DataType::Float64),
        distinct(VarSamp, 1, DataType::LargeBinary),
        distinct(BitXor, 1, DataType::Int32),
        pair(Corr, 7, 1),
        pair(CovarSamp, 4, 7),
        pair(RegrSlope, 7, 4),
        pair(RegrAvgX, 1, 7),
        filtered(pair(RegrIntercept, 1, 4), 6),
        AggregateCall {
            output: DataType::Int64,
            ..pair(RegrCount, 2, 7)
        },
        call(Sum, Some(8), SPAN),
        call(Avg, Some(8), SPAN),
    ];
    if append_only {
        calls.extend([
            in_order(First, 1, false),
            filtered(in_order(First, 1, true), 6),
            in_order(Last, 2, false),
        ]);
    }
    calls
}

/// The calls' results over some rows, by the letter of their definitions.
fn naive(rows: &[&Row], append_only: bool) -> Vec<ArrayRef> {
    fn least<T: PartialOrd>(values: Vec<T>, greatest: bool) -> Option<T> {
        values
            .into_iter()
            .reduce(|a, b| if (b > a) == greatest { b } else { a })
    }
    fn unique<T: PartialEq + Clone>(values: &[T]) -> Vec<T> {
        values
            .iter()
            .enumerate()
            .filter(|(i, v)| !values[..*i].contains(v))
            .map(|(_, v)| (*v).clone())
            .collect()
    }
    fn some<T>(values: &[T], f: impl FnOnce(&[T]) -> T) -> Option<T> {
        (!values.is_empty()).then(|| f(values))
    }
    let number = |n: usize| -> ArrayRef { Arc::new(Int64Array::from(vec![n as i64])) };
    let numeric = |v: Option<i128>, precision, scale| -> ArrayRef {
        Arc::new(
            Decimal128Array::from(vec![v]).with_data_type(DataType::Decimal128(precision, scale)),
        )
    };
    let double = |v: Option<f64>| -> ArrayRef { Arc::new(Float64Array::from(vec![v])) };
    let truth = |v: Option<bool>| -> ArrayRef { Arc::new(BooleanArray::from(vec![v])) };
    let passing: Vec<&Row> = rows
        .iter()
        .filter(|r| r.truth == Some(true))
        .copied()
        .collect();
    let narrow: Vec<i32> = rows.iter().filter_map(|r| r.narrow).collect();
    let wide: Vec<i128> = rows.iter().filter_map(|r| r.wide.map(i128::from)).collect();
    let floats: Vec<f64> = rows.iter().filter_map(|r| r.float).collect();
    let truths: Vec<bool> = rows.iter().filter_map(|r| r.truth).collect();
    // Eighths are exact in doubles, and so are multiples of the huge value, beside which eighths
    // vanish.
    let huge = floats.iter().filter(|f| **f == HUGE).count();
    let small: f64 = floats.iter().filter(|f| **f != HUGE).sum();
    let total = if huge > 0 { HUGE * huge as f64 } else { small };
    let form = |value: Option<Numeric>| -> ArrayRef {
        let form = value.map(|value| {
            let mut form = Vec::new();
            value.encode(&mut form);
            form
        });
        Arc::new(LargeBinaryArray::from(vec![form.as_deref()]))
    };
    let mean = |values: &[i128]| -> ArrayRef {
        form((!values.is_empty()).then(|| {
            let sum = Numeric::from(values.iter().sum::<i128>());
            sum.div(&Numeric::from(values.len() as i64)).unwrap()
        }))
    };
    let squares = |values: Vec<Numeric>| {
        let mut total = NumericTotal::with_squares();
        values.iter().for_each(|v| total.add(v));
        total
    };
    let moments = |values: Vec<f64>, spread| {
        let mut moments = Moments::default();
        values.iter().for_each(|v| moments.add(*v, 1));
        double(moments.result(spread).unwrap())
    };
    let narrow_of = |r: &Row| r.narrow.map(f64::from);
    let pairs = |rows: &[&Row], of: &dyn Fn(&Row) -> (Option<f64>, Option<f64>), statistic| {
        let mut pairs = Pairs::default();
        for row in rows {
            if let (Some(y), Some(x)) = of(row) {
                pairs.add(statistic, y, x, 1);
            }
        }
        pairs.result(statistic).unwrap()
    };
    let all_spans: Vec<_> = rows.iter().filter_map(|r| r.span).collect();
    let mut span = IntervalSum::default();
    for (months, days, nanos) in &all_spans {
        span.add(Interval::new(*months, *days, nanos / 1000), 1);
    }
    let told = |span: Interval| (span.months, span.days, span.micros * 1000);
    let spanned = |value: Interval| {
        spans(std::iter::once(
            (!all_spans.is_empty()).then(|| told(value)),
        ))
    };
    let mean_span = span.average(all_spans.len().max(1) as i64).unwrap();
    let some_bits: Vec<i32> = passing.iter().filter_map(|r| r.narrow).collect();
    let cents = |r: &&Row| r.numeric.map(|n| Numeric::from_unscaled(n, 2));
    let mut results = vec![
        number(rows.len()),
        number(narrow.len()),
        number(passing.len()),
        Arc::new(Int64Array::from(vec![
            (!narrow.is_empty()).then(|| narrow.iter().map(|v| i64::from(*v)).sum::<i64>()),
        ])),
        numeric(some(&wide, |w| w.iter().sum()), 38, 0),
        numeric(
            some(
                &passing.iter().filter_map(|r| r.numeric).collect::<Vec<_>>(),
                |n| n.iter().sum(),
            ),
            38,
            2,
        ),
        mean(&wide),
        double((!floats.is_empty()).then_some(total)),
        double((!floats.is_empty()).then(|| total / floats.len() as f64)),
        Arc::new(Int32Array::from(vec![least(narrow.clone(), false)])),
        numeric(
            least(rows.iter().filter_map(|r| r.numeric).collect(), true),
            20,
            2,
        ),
        double(least(
            passing.iter().filter_map(|r| r.float).collect(),
            false,
        )),
        Arc::new(StringArray::from(vec![least(
            rows.iter().filter_map(|r| r.text.clone()).collect(),
            true,
        )])),
        truth((!truths.is_empty()).then(|| truths.iter().all(|t| *t))),
        truth((!truths.is_empty()).then(|| truths.iter().any(|t| *t))),
        number(unique(&narrow).len()),
        number(unique(&passing.iter().filter_map(|r| r.narrow).collect::<Vec<_>>()).len()),
        number(
            unique(
                &rows
                    .iter()
                    .filter_map(|r| r.text.clone())
                    .collect::<Vec<_>>(),
            )
            .len(),
        ),
        numeric(some(&unique(&wide), |w| w.iter().sum()), 38, 0),
        Arc::new(Int32Array::from(vec![
            narrow.iter().copied().reduce(|a, b| a & b),
        ])),
        Arc::new(Int64Array::from(vec![
            rows.iter().filter_map(|r| r.wide).reduce(|a, b| a | b),
        ])),
        Arc::new(Int32Array::from(vec![
            some_bits.iter().copied().reduce(|a, b| a ^ b),
        ])),
        form(
            squares(narrow.iter().map(|v| Numeric::from(*v)).collect())
                .var_samp()
                .unwrap(),
        ),
        form(
            squares(rows.iter().filter_map(cents).collect())
                .stddev_pop()
                .unwrap(),
        ),
        moments(floats.clone(), Spread::VarSamp),
        moments(
            passing.iter().filter_map(|r| r.odd).collect(),
            Spread::StddevPop,
        ),
        moments(unique(&floats), Spread::VarPop),
        form(
            squares(unique(&narrow).into_iter().map(Numeric::from).collect())
                .var_samp()
                .unwrap(),
        ),
        Arc::new(Int32Array::from(vec![
            unique(&narrow).into_iter().reduce(|a, b| a ^ b),
        ])),
        double(pairs(
            rows,
            &|r| (r.odd, narrow_of(r)),
            Regression::Correlation,
        )),
        double(pairs(rows, &|r| (r.float, r.odd), Regression::CovarSamp)),
        double(pairs(rows, &|r| (r.odd, r.float), Regression::Slope)),
        double(pairs(
            rows,
            &|r| (narrow_of(r), r.odd),
            Regression::AverageX,
        )),
        double(pairs(
            &passing,
            &|r| (narrow_of(r), r.float),
            Regression::Intercept,
        )),
        number(
            rows.iter()
                .filter(|r| r.wide.is_some() && r.odd.is_some())
                .count(),
        ),
        spanned(span.sum().unwrap()),
        spanned(mean_span),
    ];
    let text = |row: Option<&&Row>| -> ArrayRef {
        Arc::new(StringArray::from(vec![row.and_then(|r| r.text.as_deref())]))
    };
    let by_text = |r: &Row| (r.text.is_none(), r.text.clone());
    if append_only {
        let narrow = |r: &Row| (r.narrow.is_none(), r.narrow);
        let up = |r: &&&Row| (narrow(r), by_text(r));
        let down = |r: &&&Row| (std::cmp::Reverse(narrow(r)), by_text(r));
        let wide = |r: &&&Row| ((r.wide.is_none(), r.wide), by_text(r));
        results.extend([
            text(rows.iter().min_by_key(up)),
            text(passing.iter().min_by_key(down)),
            text(rows.iter().max_by_key(wide)),
        ]);
    }
    results
}

fn expected(
    rows: &[Row],
    grouped: bool,
    append_only: bool,
    output: &SchemaRef,
) -> HashMap<String, i64> {
    let mut groups: HashMap<Option<i64>, Vec<&Row>> = HashMap::new();
    if !grouped {
        groups.insert(None, Vec::new());
    }
    rows.iter().for_each(|r| {
        groups
            .entry(if grouped { r.group } else { None })
            .or_default()
            .push(r)
    });
    let mut lines = HashMap::new();
    for (key, rows) in groups {
        let key = grouped.then(|| Arc::new(Int64Array::from(vec![key])) as ArrayRef);
        let columns = key.into_iter().chain(naive(&rows, append_only)).collect();
        let batch = ChangeBatch::insert(RecordBatch::try_new(output.clone(), columns).unwrap());
        lines.insert(table(&batch)[0][3..].to_string(), 1);
    }
    lines
}

/// What a checkpoint store keeps of one table.
#[derive(Default)]
struct Stored(BTreeMap<String, RecordBatch>);

impl Stored {
    fn apply(&mut self, delta: &TableDelta, group_columns: usize) {
        let key = |batch: &RecordBatch, row: usize| {
            table(&ChangeBatch::insert(batch.slice(row, 1)))[0].clone()
        };
        let deleted: Vec<String> = (0..delta.deletes.num_rows())
            .map(|row| key(&delta.deletes, row))
            .collect();
        let width = delta.deletes.num_columns();
        let keys = delta
            .upserts
            .project(&(0..width).collect::<Vec<_>>())
            .unwrap();
        for (row, vnode) in delta.upsert_vnodes.iter().enumerate() {
            let hash = hash_columns(&keys.columns()[..group_columns], keys.num_rows())[row];
            assert_eq!(
                usize::from(*vnode),
                if group_columns == 0 {
                    0
                } else {
                    vnode_of_hash(hash)
                }
            );
            assert!(
                !deleted.contains(&key(&keys, row)),
                "a key is upserted or deleted"
            );
        }
        for key in deleted {
            assert!(self.0.remove(&key).is_some(), "a delete is of a stored key");
        }
        let before = self.0.len();
        let fresh = (0..keys.num_rows())
            .filter(|row| {
                self.0
                    .insert(key(&keys, *row), delta.upserts.slice(*row, 1))
                    .is_none()
            })
            .count();
        assert_eq!(self.0.len(), before + fresh);
    }

    fn rows(&self, schema: &SchemaRef) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(0));
        let empty = RecordBatch::try_new_with_options(
            schema.clone(),
            schema
                .fields()
                .iter()
                .map(|f| new_empty_array(f.data_type()))
                .collect(),
            &options,
        )
        .unwrap();
        concat_batches(schema, std::iter::once(&empty).chain(self.0.values())).unwrap()
    }
}

fn history(seed: u64, grouped: bool, append_only: bool) {
    let mut random = Random(seed);
    let (group, calls): (&[usize], _) = (if grouped { &[0] } else { &[] }, all_calls(append_only));
    let output = output_schema(&schema(COLUMNS), group, &calls);
    let make = || aggregate(COLUMNS, group, &calls, append_only);
    let mut operator = make();
    assert_eq!(
        operator.tables().len() as u32,
        aggregate_table_count(&calls, append_only)
    );
    let mut stored: Vec<Stored> = operator
        .tables()
        .iter()
        .map(|_| Stored::default())
        .collect();
    let (mut rows, mut sum): (Vec<Row>, HashMap<String, i64>) = (Vec::new(), HashMap::new());
    for number in 1..40 {
        let mut epoch: Vec<(Row, i64)> = Vec::new();
        for _ in 0..random.below_u64(40) {
            if !append_only && !rows.is_empty() && random.below_u64(2) == 0 {
                let gone = random.below_u64(rows.len() as u64) as usize;
                epoch.push((rows.swap_remove(gone), -1));
            } else {
                let row = row(&mut random, 6);
                rows.push(row.clone());
                epoch.push((row, 1));
            }
        }
        if !append_only && random.below_u64(6) == 0 {
            epoch.extend(rows.drain(..).map(|r| (r, -1)));
        }
        // Any order within the epoch, retractions ahead of their rows too.
        for i in (1..epoch.len()).rev() {
            epoch.swap(i, random.below_u64(i as u64 + 1) as usize);
        }
        let mut out = Recorder::default();
        for part in epoch.chunks(random.below_u64(20) as usize + 1) {
            operator.on_changes(0, batch(part), &mut out).unwrap();
        }
        operator.on_barrier(&barrier(number), &mut out).unwrap();
        for line in out.take() {
            let (weight, row) = line.split_once(' ').unwrap();
            let entry = sum.entry(row.to_string()).or_default();
            *entry += weight.parse::<i64>().unwrap();
        }
        sum.retain(|_, weight| *weight != 0);
        assert_eq!(
            sum,
            expected(&rows, grouped, append_only, &output),
            "seed {seed}, epoch {number}"
        );
        if random.below_u64(3) == 0 {
            let older: Vec<_> = stored.iter().map(|stored| stored.0.clone()).collect();
            for (table, stored) in operator.tables().into_iter().zip(&mut stored) {
                if let Some(delta) = table.seal() {
                    stored.apply(&delta, group.len());
                }
                assert!(table.seal().is_none());
            }
            if random.below_u64(2) == 0 {
                operator = make();
                for (table, stored) in operator.tables().into_iter().zip(&stored).rev() {
                    let all = stored.rows(&table.spec().schema);
                    let half = random.below_u64(all.num_rows() as u64 + 1) as usize;
                    table.restore(&all.slice(half, all.num_rows() - half));
                    table.restore(&all.slice(0, half));
                }
                // An older file still has what the keys were before.
                for (i, table) in operator.tables().into_iter().enumerate() {
                    let there = older[i]
                        .iter()
                        .filter(|(key, _)| stored[i].0.contains_key(*key));
                    if table.keeps_newest() {
                        there.for_each(|(_, row)| table.restore(row));
                    }
                }
            }
        }
    }
}

#[test]
fn random_histories_equal_a_naive_recomputation() {
    for seed in 1..=60 {
        history(seed * 7919, seed % 4 != 0, seed % 3 == 0);
    }
}
