//! Each function by examples, evaluated as a streaming expression.

use crate::expr::CompiledExpr;
use crate::testing::{changes, table};
use arrow::array::RecordBatch;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_plan::{Expr, Literal};

fn literal(text: &str) -> Expr {
    Expr::Literal(match text.parse::<i64>() {
        Ok(v) => Literal::Int64(v),
        Err(_) => Literal::Utf8(text.to_string()),
    })
}

/// `function(column 0, literals...)` over the rows of one column.
fn call(
    function: &str,
    column: &str,
    rows: &str,
    literals: &[&str],
    output: DataType,
) -> Vec<String> {
    let input = changes(&format!("c {column}"), rows);
    let args = std::iter::once(Expr::Column(0))
        .chain(literals.iter().map(|l| literal(l)))
        .collect();
    let expr = CompiledExpr::new(
        &Expr::Call {
            function: function.into(),
            args,
        },
        &input.schema(),
        &output,
    )
    .unwrap();
    let evaluated = expr.evaluate(input.rows()).unwrap();
    assert!(evaluated.failures.is_empty(), "{:?}", evaluated.failures);
    let schema = Arc::new(Schema::new(vec![Field::new("r", output, true)]));
    table(&ChangeBatch::insert(
        RecordBatch::try_new(schema, vec![evaluated.array]).unwrap(),
    ))
    .iter()
    .map(|l| l[3..].to_string())
    .collect()
}

#[test]
fn every_name_is_listed_once_and_found() {
    let all = super::all();
    let mut names: Vec<&str> = all.iter().map(|f| f.name()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|w| w[0] != w[1]));
    for name in [
        "abs",
        "round",
        "lower",
        "char_length",
        "date_trunc",
        "regexp_replace",
        "split_part",
        "concat",
        "to_char",
        "tumble_start",
        "mod",
    ] {
        assert!(super::lookup(name).is_some(), "{name}");
    }
    assert!(
        all.iter()
            .all(|f| super::lookup(f.name()).is_some_and(|found| found == *f))
    );
}

#[test]
fn windows_begin_at_multiples_of_their_size() {
    let rows = "+1 1970-01-01T00:00:09.999999\n+1 1970-01-01T00:00:10\n+1 -\n+1 \
                1969-12-31T23:59:59.999999\n+1 1970-01-01T00:00:19";
    for column in ["ts", "tstz"] {
        let output = crate::testing::schema(&format!("c {column}"))
            .field(0)
            .data_type()
            .clone();
        let zone = if column == "ts" { "" } else { "Z" };
        let want: Vec<String> = [
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:10",
            "-",
            "1969-12-31T23:59:50",
            "1970-01-01T00:00:10",
        ]
        .iter()
        .map(|t| {
            if *t == "-" {
                t.to_string()
            } else {
                format!("{t}{zone}")
            }
        })
        .collect();
        assert_eq!(
            call("tumble_start", column, rows, &["10000000"], output.clone()),
            want
        );
        assert_eq!(
            call(
                "add_micros",
                column,
                "+1 1970-01-01T00:00:01",
                &["-1000000"],
                output
            ),
            [format!("1970-01-01T00:00:00{zone}")]
        );
    }
}

#[test]
fn dates_to_text_and_back() {
    let rows = "+1 2024-03-05T14:07:09\n+1 -\n+1 2024-03-05T23:59:59\n+1 2024-03-06T00:00:00";
    assert_eq!(
        call(
            "to_char",
            "ts",
            rows,
            &["YYYY-MM-DD HH24:MI"],
            DataType::Utf8
        ),
        [
            "2024-03-05 14:07",
            "-",
            "2024-03-05 23:59",
            "2024-03-06 00:00"
        ]
    );
    assert_eq!(
        call("to_char", "ts", rows, &["DD.MM"], DataType::Utf8),
        ["05.03", "-", "05.03", "06.03"]
    );
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(
        call(
            "to_timestamp",
            "text",
            "+1 05/03/2024",
            &["DD/MM/YYYY"],
            zoned.clone()
        ),
        ["2024-03-05T00:00:00Z"]
    );
    assert_eq!(
        call("to_timestamp", "f64", "+1 1.5", &[], zoned),
        ["1970-01-01T00:00:01.500Z"]
    );
    assert_eq!(
        call(
            "to_date",
            "text",
            "+1 20240305",
            &["YYYYMMDD"],
            DataType::Date32
        ),
        ["2024-03-05"]
    );
    assert_eq!(
        call(
            "to_timestamp_millis",
            "i64",
            "+1 1500\n+1 -",
            &[],
            DataType::Timestamp(TimeUnit::Microsecond, None)
        ),
        ["1970-01-01T00:00:01.500", "-"]
    );
}

#[test]
fn text_functions() {
    let urls = "+1 https://a.b/item?channel_id=12&x=1\n+1 https://a.b/\n+1 -";
    assert_eq!(
        call(
            "regexp_extract",
            "text",
            urls,
            &["(&|\\?)channel_id=([^&]*)", "2"],
            DataType::Utf8
        ),
        ["12", "-", "-"]
    );
    assert_eq!(
        call(
            "split_part",
            "text",
            "+1 a/b/c\n+1 x",
            &["/", "2"],
            DataType::Utf8
        ),
        ["b", ""]
    );
    assert_eq!(
        call("md5", "text", "+1 a", &[], DataType::Utf8),
        ["0cc175b9c0f1b6a831c399e269772661"]
    );
    assert_eq!(
        call("concat", "text", "+1 a\n+1 -", &["b"], DataType::Utf8),
        ["ab", "b"]
    );
    assert_eq!(
        call("lower", "text", "+1 ÄB\n+1 -", &[], DataType::Utf8),
        ["äb", "-"]
    );
    assert_eq!(
        call("char_length", "text", "+1 äb", &[], DataType::Int32),
        ["2"]
    );
    assert_eq!(
        call("coalesce", "text", "+1 -\n+1 a", &["z"], DataType::Utf8),
        ["z", "a"]
    );
    assert_eq!(
        call(
            "regexp_replace",
            "text",
            "+1 aXbXc",
            &["X", "-", "g"],
            DataType::Utf8
        ),
        ["a-b-c"]
    );
}

#[test]
fn numbers() {
    assert_eq!(
        call("mod", "i32", "+1 7\n+1 -7\n+1 -", &["3"], DataType::Int64),
        ["1", "-1", "-"]
    );
    assert_eq!(
        call(
            "div",
            "dec",
            "+1 7.50\n+1 -7.50",
            &["2"],
            DataType::LargeBinary
        ),
        ["3", "-3"]
    );
    assert_eq!(
        call(
            "round",
            "dec",
            "+1 2.45\n+1 -2.45\n+1 2.44",
            &["1"],
            DataType::Decimal128(20, 1)
        ),
        ["2.5", "-2.5", "2.4"]
    );
    assert_eq!(
        call(
            "round",
            "f64",
            "+1 0.5\n+1 1.5\n+1 -2.5",
            &[],
            DataType::Float64
        ),
        ["0.0", "2.0", "-2.0"]
    );
    assert_eq!(
        call(
            "round",
            "i64",
            "+1 15\n+1 -15\n+1 14",
            &["-1"],
            DataType::Int64
        ),
        ["20", "-20", "10"]
    );
    assert_eq!(call("abs", "i64", "+1 -3", &[], DataType::Int64), ["3"]);
    assert_eq!(
        call("sign", "i64", "+1 -3\n+1 0\n+1 -", &[], DataType::Float64),
        ["-1.0", "0.0", "-"]
    );
    assert_eq!(
        call(
            "sign",
            "dec",
            "+1 -2.45\n+1 0.01",
            &[],
            DataType::LargeBinary
        ),
        ["-1", "1"]
    );
    assert_eq!(
        call("power", "f64", "+1 3", &["2"], DataType::Float64),
        ["9.0"]
    );
}
