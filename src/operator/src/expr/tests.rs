//! Error isolation and PostgreSQL's semantics, one expression a line.

use super::*;
use crate::testing::{changes, schema};
use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use tidemark_common::random::Random;
use tidemark_plan::{BinaryOp, Literal};

fn column(i: usize) -> Expr {
    Expr::Column(i)
}

fn int(value: i64) -> Expr {
    Expr::Literal(Literal::Int64(value))
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast {
        expr: Box::new(expr),
        to,
        safe: false,
    }
}

/// Values as text and failures of an expression over rows.
fn evaluate(
    expr: &Expr,
    columns: &str,
    rows: &str,
    output: DataType,
) -> (Vec<String>, Vec<(usize, &'static str)>) {
    let input = changes(columns, rows);
    let evaluated = CompiledExpr::new(expr, &input.schema(), &output)
        .unwrap()
        .evaluate(input.rows())
        .unwrap();
    let options = FormatOptions::default().with_null("-");
    let formatter = ArrayFormatter::try_new(evaluated.array.as_ref(), &options).unwrap();
    let values = (0..evaluated.array.len())
        .map(|i| formatter.value(i).to_string())
        .collect();
    (
        values,
        evaluated
            .failures
            .iter()
            .map(|f| (f.row, f.state))
            .collect(),
    )
}

#[test]
fn only_failing_rows_fail() {
    let quotient = binary(BinaryOp::Divide, int(12), column(0));
    let rows = "+1 1\n+1 0\n+1 3\n+1 -\n+1 0\n+1 4";
    assert_eq!(
        evaluate(&quotient, "v i64", rows, DataType::Int64),
        (
            vec!["12", "-", "4", "-", "-", "3"]
                .into_iter()
                .map(String::from)
                .collect(),
            vec![(1, "22012"), (4, "22012")]
        )
    );
    let text = cast(column(0), DataType::Int32);
    assert_eq!(
        evaluate(
            &text,
            "v text",
            "+1 12\n+1 x\n+1 99999999999\n+1 -7",
            DataType::Int32
        )
        .1,
        [(1, "22P02"), (2, "22003")]
    );
}

#[test]
fn messages_are_postgresqls() {
    let message = |columns: &str, row: &str, to: DataType| {
        let input = changes(columns, row);
        let failure = CompiledExpr::new(&cast(column(0), to.clone()), &input.schema(), &to)
            .unwrap()
            .evaluate(input.rows())
            .unwrap()
            .failures
            .remove(0);
        format!("{} {}", failure.state, failure.message)
    };
    assert_eq!(
        message("v text", "+1 x", DataType::Int32),
        "22P02 invalid input syntax for type integer: \"x\""
    );
    assert_eq!(
        message("v text", "+1 70000", DataType::Int16),
        "22003 value \"70000\" is out of range for type smallint"
    );
    assert_eq!(
        message("v i64", "+1 70000", DataType::Int16),
        "22003 smallint out of range"
    );
    assert_eq!(
        message("v text", "+1 maybe", DataType::Boolean),
        "22P02 invalid input syntax for type boolean: \"maybe\""
    );
    assert_eq!(
        message("v text", "+1 soon", DataType::Date32),
        "22007 invalid input syntax for type date: \"soon\""
    );
    assert_eq!(
        message(
            "v text",
            "+1 soon",
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)
        ),
        "22007 invalid input syntax for type timestamp: \"soon\""
    );
    assert_eq!(
        message("v text", "+1 x", DataType::Decimal128(10, 2)),
        "22P02 invalid input syntax for type numeric: \"x\""
    );
    assert_eq!(
        message("v i64", "+1 12345", DataType::Decimal128(4, 2)),
        "22003 numeric field overflow"
    );
    assert_eq!(
        message("v f64", "+1 NaN", DataType::Int64),
        "22003 bigint out of range"
    );
}

#[test]
fn isolation_agrees_with_row_by_row_evaluation() {
    let mut random = Random(17);
    // a <> 0 AND 100 / a > b: the condition in front protects the division.
    let guarded = binary(
        BinaryOp::And,
        binary(BinaryOp::NotEq, column(0), int(0)),
        binary(
            BinaryOp::Gt,
            binary(BinaryOp::Divide, int(100), column(0)),
            column(1),
        ),
    );
    let unguarded = binary(
        BinaryOp::Gt,
        binary(BinaryOp::Divide, int(100), column(0)),
        column(1),
    );
    let schema = schema("a i64, b i64");
    for expr in [&guarded, &unguarded] {
        let compiled = CompiledExpr::new(expr, &schema, &DataType::Boolean).unwrap();
        for rows in [1, 2, 7, 100, 1000] {
            let a: Int64Array = (0..rows)
                .map(|_| (!random.one_in(9)).then(|| random.below(5) as i64 - 1))
                .collect();
            let b: Int64Array = (0..rows)
                .map(|_| Some(random.below(200) as i64 - 100))
                .collect();
            let batch =
                RecordBatch::try_new(schema.clone(), vec![Arc::new(a), Arc::new(b)]).unwrap();
            let whole = compiled.evaluate(&batch).unwrap();
            let mut failing = Vec::new();
            for row in 0..rows {
                let one = compiled.evaluate(&batch.slice(row, 1)).unwrap();
                assert_eq!(&one.array, &whole.array.slice(row, 1));
                failing.extend(one.failures.iter().map(|_| row));
            }
            assert_eq!(
                whole.failures.iter().map(|f| f.row).collect::<Vec<_>>(),
                failing
            );
            assert!(std::ptr::eq(expr, &unguarded) || failing.is_empty());
        }
    }
}

#[test]
fn arithmetic_is_checked() {
    let max = "+1 9223372036854775807 1\n+1 1 1";
    for (op, rows) in [
        (BinaryOp::Plus, max),
        (BinaryOp::Multiply, "+1 9223372036854775807 2\n+1 1 1"),
        (BinaryOp::Minus, "+1 -9223372036854775808 1\n+1 1 1"),
    ] {
        assert_eq!(
            evaluate(
                &binary(op, column(0), column(1)),
                "a i64, b i64",
                rows,
                DataType::Int64
            )
            .1,
            [(0, "22003")],
            "{op:?}"
        );
    }
    let negative = Expr::Negative(Box::new(column(0)));
    assert_eq!(
        evaluate(
            &negative,
            "a i64",
            "+1 -9223372036854775808\n+1 5",
            DataType::Int64
        ),
        (vec!["-".into(), "-5".into()], vec![(0, "22003")])
    );
    let floats = binary(BinaryOp::Divide, column(0), column(1));
    assert_eq!(
        evaluate(
            &floats,
            "a f64, b f64",
            "+1 1 0\n+1 1 4\n+1 - 0",
            DataType::Float64
        )
        .1,
        [(0, "22012")],
        "NULL by zero is NULL"
    );
    assert_eq!(
        evaluate(
            &binary(BinaryOp::Modulo, column(0), int(0)),
            "a i64",
            "+1 1",
            DataType::Int64
        )
        .1,
        [(0, "22012")]
    );
}

#[test]
fn casts_round_and_print_as_postgresql_does() {
    let values =
        |expr: &Expr, columns: &str, rows: &str, output| evaluate(expr, columns, rows, output).0;
    assert_eq!(
        values(
            &cast(column(0), DataType::Int32),
            "v f64",
            "+1 0.5\n+1 1.5\n+1 -2.5\n+1 2.6",
            DataType::Int32
        ),
        ["0", "2", "-2", "3"]
    );
    assert_eq!(
        values(
            &cast(column(0), DataType::Int64),
            "v dec",
            "+1 0.50\n+1 1.49\n+1 -2.50",
            DataType::Int64
        ),
        ["1", "1", "-3"]
    );
    assert_eq!(
        values(
            &cast(column(0), DataType::Utf8),
            "v f64",
            "+1 1\n+1 0.1",
            DataType::Utf8
        ),
        ["1", "0.1"]
    );
    assert_eq!(
        values(
            &cast(column(0), DataType::Utf8),
            "v ts",
            "+1 2024-03-05T14:07:09.5",
            DataType::Utf8
        ),
        ["2024-03-05 14:07:09.5"]
    );
    assert_eq!(
        evaluate(
            &cast(column(0), DataType::Int16),
            "v i64",
            "+1 70000\n+1 7",
            DataType::Int16
        )
        .1,
        [(0, "22003")]
    );
    assert_eq!(
        values(
            &Expr::Cast {
                expr: Box::new(column(0)),
                to: DataType::Int32,
                safe: true
            },
            "v text",
            "+1 x\n+1 7",
            DataType::Int32
        ),
        ["-", "7"]
    );
}

#[test]
fn a_predicate_that_fails_selects_nothing() {
    let input = changes("a i64", "+1 0\n+1 1\n+1 -\n+1 5");
    let predicate = Predicate::new(
        &binary(
            BinaryOp::Gt,
            binary(BinaryOp::Divide, int(10), column(0)),
            int(3),
        ),
        &input.schema(),
    )
    .unwrap();
    let (mask, failures) = predicate.evaluate(input.rows()).unwrap();
    assert_eq!(
        mask.iter().collect::<Vec<_>>(),
        [Some(false), Some(true), Some(false), Some(false)]
    );
    assert_eq!(
        failures
            .iter()
            .map(|f| (f.row, f.message.as_str()))
            .collect::<Vec<_>>(),
        [(0, "division by zero")]
    );
}

#[test]
fn columns_are_not_copied_and_unknown_functions_are_refused() {
    let input = changes("a i64, b text", "+1 1 x");
    let expr = CompiledExpr::new(&column(1), &input.schema(), &DataType::Utf8).unwrap();
    let array = expr.evaluate(input.rows()).unwrap().array;
    assert!(std::ptr::eq(
        array
            .as_any()
            .downcast_ref::<StringArray>()
            .unwrap()
            .value(0)
            .as_ptr(),
        input.column(1).as_string::<i32>().value(0).as_ptr()
    ));
    let error = CompiledExpr::new(
        &Expr::Call {
            function: "no_such".into(),
            args: Vec::new(),
        },
        &input.schema(),
        &DataType::Int64,
    )
    .unwrap_err();
    assert_eq!(error.state().0, "42883");
}

#[test]
fn conditions_choose_rows_before_they_evaluate() {
    // CASE WHEN a = 0 THEN -1 ELSE 10 / a END fails for no row.
    let case = Expr::Case {
        operand: None,
        when_then: vec![(binary(BinaryOp::Eq, column(0), int(0)), int(-1))],
        otherwise: Some(Box::new(binary(BinaryOp::Divide, int(10), column(0)))),
    };
    assert_eq!(
        evaluate(&case, "a i64", "+1 0\n+1 2\n+1 -", DataType::Int64),
        (vec!["-1".into(), "5".into(), "-".into()], Vec::new())
    );
    let input = changes("a i64", "+1 3");
    let list = Expr::InList {
        negated: true,
        expr: Box::new(column(0)),
        list: vec![int(1), int(2)],
    };
    let array = CompiledExpr::new(&list, &input.schema(), &DataType::Boolean)
        .unwrap()
        .evaluate(input.rows())
        .unwrap()
        .array;
    assert!(array.as_boolean().value(0));
    assert_eq!(input.column(0).as_primitive::<Int64Type>().value(0), 3);
}

#[test]
fn zero_is_in_a_list_with_minus_zero() {
    let float = |v: f64| Expr::Literal(tidemark_plan::Literal::Float64(v));
    for negated in [false, true] {
        let list = Expr::InList {
            negated,
            expr: Box::new(column(0)),
            list: vec![float(-0.0), float(2.0), float(3.0)],
        };
        let expected = if negated {
            ["false", "false", "true", "-"]
        } else {
            ["true", "true", "false", "-"]
        };
        assert_eq!(
            evaluate(&list, "a f64", "+1 0\n+1 3\n+1 1\n+1 -", DataType::Boolean).0,
            expected
        );
    }
}

#[test]
fn a_rows_text_is_cut() {
    let long = "x".repeat(3000);
    let batch = changes("a i64, b text, c i64", &format!("+1 1 {long} 2\n+1 - y 3"));
    assert_eq!(row_text(batch.rows(), 0).len(), 1024);
    assert_eq!(row_text(batch.rows(), 1), "NULL, y, 3");
}

#[test]
fn coalesce_evaluates_what_is_needed() {
    let call = |args: Vec<Expr>| Expr::Call {
        function: "coalesce".into(),
        args,
    };
    let divided = binary(BinaryOp::Divide, int(12), column(2));
    let expr = call(vec![
        column(0),
        call(vec![column(1), divided.clone()]),
        binary(BinaryOp::Plus, divided, int(1)),
        int(9),
    ]);
    let rows = "+1 1 - 0 7\n+1 - 2 0 7\n+1 - - 3 7\n+1 - - - 7\n+1 - - 0 7\n+1 5 6 0 7";
    let (values, failures) = evaluate(&expr, "a i64, b i64, c i64, d i64", rows, DataType::Int64);
    assert_eq!(values, ["1", "2", "4", "9", "-", "5"]);
    assert_eq!(failures, [(4, "22012")]);
    // Of NULLs alone, and of one argument.
    let nulls = call(vec![column(0), column(0)]);
    let (values, _) = evaluate(&nulls, "a i64", "+1 -\n+1 -", DataType::Int64);
    assert_eq!(values, ["-", "-"]);
    let (values, _) = evaluate(
        &call(vec![column(0)]),
        "a i64",
        "+1 -\n+1 3",
        DataType::Int64,
    );
    assert_eq!(values, ["-", "3"]);
}
