//! The operators without state: filter, project, union, expand, values, by tables of changes.

use crate::build::{BuildContext, build_fused, build_operator};
use crate::project::Project;
use crate::testing::{Recorder, changes, schema, table};
use crate::values::values;
use crate::{Operator, Out};
use arrow::array::AsArray;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::Result;
use tidemark_plan::{BinaryOp, Expr, Literal, Node, OnError, Op, Properties};

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

fn node(op: Op, inputs: Vec<Node>, columns: &str) -> Node {
    Node {
        op,
        inputs,
        schema: schema(columns),
        properties: Properties::default(),
    }
}

fn leaf(columns: &str) -> Node {
    node(Op::TableRead, Vec::new(), columns)
}

fn context(on_error: OnError) -> BuildContext {
    BuildContext {
        relation: "v".into(),
        vnode_of_worker: 0,
        owns_vnode_zero: true,
        on_error,
        sink_output: None,
        neighbours: Default::default(),
    }
}

/// What an operator makes of one batch: changes, and errors as `weight state row`.
fn run(operator: &mut dyn Operator, batch: ChangeBatch) -> (Vec<String>, Vec<String>) {
    let mut out = Recorder::default();
    operator.on_changes(0, batch, &mut out).unwrap();
    let errors = out
        .errors
        .iter()
        .map(|e| format!("{:+} {} ({})", e.weight, e.state, e.row))
        .collect();
    (out.take(), errors)
}

const COLUMNS: &str = "a i64, b i64, s text";
const ROWS: &str = "+1 6 2 x\n-1 1 0 y\n+2 9 3 z\n+1 - 1 w";

fn quotient() -> Expr {
    binary(BinaryOp::Divide, Expr::Column(0), Expr::Column(1))
}

#[test]
fn a_filter_keeps_weights_and_takes_errors_back_with_their_rows() {
    let predicate = binary(BinaryOp::Gt, quotient(), int(2));
    let filter = node(Op::Filter { predicate }, vec![leaf(COLUMNS)], COLUMNS);
    let mut filter = build_operator(&filter, &mut context(OnError::Log))
        .unwrap()
        .operator;
    let (rows, errors) = run(filter.as_mut(), changes(COLUMNS, ROWS));
    assert_eq!(rows, ["+1 6 2 x", "+2 9 3 z"]);
    assert_eq!(errors, ["-1 22012 (1, 0, y)"]);
    assert_eq!(
        run(filter.as_mut(), changes(COLUMNS, "+1 1 1 x")).0,
        [""; 0]
    );
}

#[test]
fn a_projection_leaves_failing_rows_out_or_puts_null() {
    let project = node(
        Op::Project {
            exprs: vec![
                Expr::Column(2),
                quotient(),
                binary(BinaryOp::Modulo, int(7), Expr::Column(1)),
            ],
        },
        vec![leaf(COLUMNS)],
        "s text, q i64, m i64",
    );
    for (on_error, want) in [
        (OnError::Log, vec!["+1 x 3 1", "+2 z 3 1", "+1 w - 0"]),
        (
            OnError::Null,
            vec!["+1 x 3 1", "-1 y - -", "+2 z 3 1", "+1 w - 0"],
        ),
    ] {
        let mut project = build_operator(&project, &mut context(on_error))
            .unwrap()
            .operator;
        let (rows, errors) = run(project.as_mut(), changes(COLUMNS, ROWS));
        assert_eq!(rows, want);
        assert_eq!(
            errors,
            ["-1 22012 (1, 0, y)", "-1 22012 (1, 0, y)"],
            "one error per expression"
        );
    }
}

#[test]
fn a_projection_of_columns_shares_them() {
    let exprs = [Expr::Column(2), Expr::Column(0)];
    let mut project = Project::new(
        None,
        &exprs,
        &schema(COLUMNS),
        &schema("s text, a i64"),
        OnError::Log,
    )
    .unwrap();
    let (input, mut out) = (changes(COLUMNS, ROWS), Recorder::default());
    project.on_changes(0, input.clone(), &mut out).unwrap();
    assert_eq!(
        out.batches[0]
            .column(0)
            .as_string::<i32>()
            .values()
            .as_ptr(),
        input.column(2).as_string::<i32>().values().as_ptr()
    );
    assert_eq!(
        out.batches[0].weights().unwrap().as_ptr(),
        input.weights().unwrap().as_ptr()
    );
    let mut none = Project::new(None, &[], &schema(COLUMNS), &schema(""), OnError::Log).unwrap();
    assert_eq!(run(&mut none, input).0, ["+1", "-1", "+2", "+1"]);
}

#[test]
fn a_filter_below_a_projection_is_done_in_one_step() {
    let predicate = binary(BinaryOp::GtEq, Expr::Column(0), int(6));
    let filter = node(Op::Filter { predicate }, vec![leaf(COLUMNS)], COLUMNS);
    let project = node(
        Op::Project {
            exprs: vec![quotient(), Expr::Column(1)],
        },
        vec![filter],
        "q i64, b i64",
    );
    let (mut fused, inputs) = build_fused(&project, &mut context(OnError::Log)).unwrap();
    assert_eq!(inputs[0].op, Op::TableRead);
    assert_eq!(
        run(fused.operator.as_mut(), changes(COLUMNS, ROWS)).0,
        ["+1 3 2", "+2 3 3"]
    );
    assert_eq!(
        run(
            fused.operator.as_mut(),
            changes(COLUMNS, "+1 6 2 x\n+1 7 0 y")
        ),
        (vec!["+1 3 2".into()], vec!["+1 22012 (7, 0, y)".into()])
    );
    assert_eq!(
        run(fused.operator.as_mut(), changes(COLUMNS, "+1 1 2 x")).0,
        [""; 0]
    );
}

#[test]
fn a_union_takes_the_names_of_its_output() {
    let union = node(Op::Union, vec![leaf("a i64"), leaf("b i64")], "c i64");
    let mut union = build_operator(&union, &mut context(OnError::Log))
        .unwrap()
        .operator;
    let mut out = Recorder::default();
    union
        .on_changes(0, changes("a i64", "+1 1"), &mut out)
        .unwrap();
    union
        .on_changes(1, changes("b i64", "-1 1"), &mut out)
        .unwrap();
    assert!(
        out.batches
            .iter()
            .all(|b| b.schema().field(0).name() == "c")
    );
    assert_eq!(out.take(), ["+1 1", "-1 1"]);
}

#[test]
fn each_row_comes_once_per_alternative() {
    let rows = vec![
        vec![int(10)],
        vec![binary(BinaryOp::Divide, int(8), Expr::Column(0))],
    ];
    let expand = node(Op::Expand { rows }, vec![leaf("a i64")], "a i64, x i64");
    let mut expand = build_operator(&expand, &mut context(OnError::Log))
        .unwrap()
        .operator;
    let (rows, errors) = run(expand.as_mut(), changes("a i64", "+1 2\n-1 0"));
    assert_eq!(rows, ["+1 2 10", "-1 0 10", "+1 2 4"]);
    assert_eq!(errors, ["-1 22012 (0)"]);
}

#[test]
fn constant_rows() {
    let rows = vec![
        vec![int(1), Expr::Literal(Literal::Utf8("a".into()))],
        vec![
            binary(BinaryOp::Plus, int(1), int(1)),
            Expr::Literal(Literal::Null(DataType::Utf8)),
        ],
    ];
    assert_eq!(
        table(&values(&rows, &schema("a i64, b text")).unwrap().unwrap()),
        ["+1 1 a", "+1 2 -"]
    );
    assert!(values(&[], &schema("a i64")).unwrap().is_none());
    assert_eq!(
        values(
            &[vec![binary(BinaryOp::Divide, int(1), int(0))]],
            &schema("a i64")
        )
        .unwrap_err()
        .state()
        .0,
        "22012"
    );
    assert_eq!(
        values(&[vec![], vec![]], &Arc::new(Schema::empty()))
            .unwrap()
            .unwrap()
            .num_rows(),
        2
    );
}

/// An output that stops the job at the first error.
struct Strict;

impl Out for Strict {
    fn send(&mut self, _: ChangeBatch) -> Result<()> {
        Ok(())
    }
    fn row_error(&mut self, error: crate::RowError) -> Result<()> {
        Err(tidemark_common::Error::internal(error.message))
    }
}

#[test]
fn an_error_that_nobody_takes_stops_the_operator() {
    let mut project = Project::new(
        None,
        &[quotient()],
        &schema(COLUMNS),
        &schema("q i64"),
        OnError::Fail,
    )
    .unwrap();
    assert!(
        project
            .on_changes(0, changes(COLUMNS, ROWS), &mut Strict)
            .is_err()
    );
}

#[test]
fn unnest_repeats_a_row_for_each_element_of_its_lists() {
    use tidemark_plan::Unnested::{Column, Element};
    let lists = |rows: &[Option<&[i64]>]| -> arrow::array::ArrayRef {
        let rows = rows
            .iter()
            .map(|row| row.map(|r| r.iter().copied().map(Some)));
        Arc::new(arrow::array::ListArray::from_iter_primitive::<
            Int64Type,
            _,
            _,
        >(rows))
    };
    let a = Arc::new(arrow::array::Int64Array::from(vec![1, 2, 3, 4])) as _;
    let x = lists(&[Some(&[10, 11]), Some(&[]), None, Some(&[40])]);
    let y = lists(&[Some(&[7]), None, None, Some(&[8, 9])]);
    let field = |name: &str, array: &arrow::array::ArrayRef| {
        Field::new(name, array.data_type().clone(), true)
    };
    let fields = vec![field("a", &a), field("x", &x), field("y", &y)];
    let rows = arrow::array::RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![a, x, y]);
    let batch = ChangeBatch::new(rows.unwrap(), vec![1, 1, -1, 2]);
    let unnested = |keep_empty: bool| {
        let columns = [Column(0), Element(1), Element(2)];
        let output = schema("a i64, x i64, y i64");
        let mut unnest = crate::unnest::Unnest::new(&[1, 2], &columns, keep_empty, &output);
        run(&mut unnest, batch.clone()).0
    };
    let whole = ["+1 1 10 7", "+1 1 11 -", "+2 4 40 8", "+2 4 - 9"];
    assert_eq!(unnested(false), whole);
    let kept = [
        whole[0], whole[1], "+1 2 - -", "-1 3 - -", whole[2], whole[3],
    ];
    assert_eq!(unnested(true), kept);
}
