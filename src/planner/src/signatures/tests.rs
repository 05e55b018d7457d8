//! Calls against what PostgreSQL 15 says of them.

use super::choose::choose;
use super::types::{Arg, Scalar, Type};
use super::*;
use arrow_schema::DataType;
use datafusion_common::ScalarValue;

/// An argument by the short name of its type; `?` is a quoted constant.
fn arg(name: &str) -> Arg {
    if name == "?" {
        let quoted = ScalarValue::from("x");
        return Arg::new(&DataType::Utf8, Some(&quoted));
    }
    let line = format!("f({name}) -> bool");
    let (_, signature) = table::read(&line).unwrap();
    Arg::new(&signature.params[0].arrow().unwrap(), None)
}

fn chosen(name: &str, args: &[&str]) -> Result<String, Mismatch> {
    let args: Vec<Arg> = args.iter().map(|a| arg(a)).collect();
    let call = choose(signatures(name), &args)?;
    let texts: Vec<String> = call.args.iter().map(|t| Type::of(t).to_string()).collect();
    Ok(format!("({}) {}", texts.join(", "), Type::of(&call.result)))
}

#[test]
fn every_line_of_the_table_is_read() {
    let functions = include_str!("functions.txt").lines();
    let lines = functions
        .chain(include_str!("operators.txt").lines())
        .filter(|l| !l.starts_with("# "));
    for line in lines {
        assert!(table::read(line).is_some(), "{line}");
    }
}

#[test]
fn calls_mean_what_they_mean_to_postgresql() {
    let ok = |name, args: &[&str], means: &str| {
        assert_eq!(chosen(name, args).as_deref(), Ok(means), "{name}({args:?})");
    };
    ok("abs", &["?"], "(double precision) double precision");
    ok("abs", &["int2"], "(smallint) smallint");
    ok("length", &["?"], "(text) integer");
    ok("length", &["bytea"], "(bytea) integer");
    ok("round", &["int4"], "(double precision) double precision");
    ok("round", &["int4", "int4"], "(numeric, integer) numeric");
    ok("substring", &["?", "?"], "(text, text) text");
    ok("substr", &["text", "int2"], "(text, integer) text");
    ok(
        "overlay",
        &["?", "bytea", "int4"],
        "(bytea, bytea, integer) bytea",
    );
    ok("mod", &["int2", "?"], "(smallint, smallint) smallint");
    ok(
        "width_bucket",
        &["float8", "numeric", "float8", "int4"],
        "(double precision, double precision, double precision, integer) integer",
    );
    ok(
        "array_append",
        &["int4[]", "int8"],
        "(bigint[], bigint) bigint[]",
    );
    ok(
        "array_append",
        &["int4[]", "?"],
        "(integer[], integer) integer[]",
    );
    ok(
        "array_length",
        &["int4[]", "int4"],
        "(integer[], integer) integer",
    );
    ok(
        "to_char",
        &["date", "?"],
        "(timestamp with time zone, text) text",
    );
    ok(
        "timezone",
        &["?", "timestamp"],
        "(text, timestamp without time zone) timestamp with time zone",
    );
    ok("jsonb_typeof", &["?"], "(jsonb) text");
    ok(
        "concat",
        &["int4", "?", "bool"],
        "(integer, text, boolean) text",
    );
    ok(
        "jsonb_set",
        &["jsonb", "?", "?"],
        "(jsonb, text[], jsonb) jsonb",
    );
    ok(
        "date_trunc",
        &["?", "date"],
        "(text, timestamp with time zone) timestamp with time zone",
    );
    ok(
        "age",
        &["timestamp", "date"],
        "(timestamp without time zone, timestamp without time zone) interval",
    );
}

#[test]
fn operands_take_the_types_of_an_operator() {
    let of = |symbol, left, right| {
        let call = choose_operator(signatures(symbol), &[arg(left), arg(right)])?;
        let texts: Vec<String> = call.args.iter().map(|t| Type::of(t).to_string()).collect();
        Ok::<_, Mismatch>(texts.join(", "))
    };
    let ok = |symbol, left, right, means: &str| {
        assert_eq!(
            of(symbol, left, right).as_deref(),
            Ok(means),
            "{left} {symbol} {right}"
        );
    };
    ok("=", "int4", "?", "integer, integer");
    ok("=", "?", "?", "text, text");
    ok("=", "text", "bpchar", "text, text");
    ok("=", "bpchar", "?", "character, character");
    ok("=", "uuid", "?", "uuid, uuid");
    ok("=", "int4[]", "?", "integer[], integer[]");
    ok(
        "-",
        "?",
        "timestamp",
        "timestamp without time zone, timestamp without time zone",
    );
    ok("*", "interval", "?", "interval, double precision");
    ok("||", "int4[]", "?", "integer[], integer[]");
    ok("||", "int4", "?", "integer, text");
    ok("||", "?", "?", "text, text");
    ok("<<", "?", "int4", "integer, integer");
    assert_eq!(of("=", "int4", "text"), Err(Mismatch::None));
    assert_eq!(of("+", "?", "?"), Err(Mismatch::Several));
    assert_eq!(of("+", "date", "?"), Err(Mismatch::Several));
    assert_eq!(of("=", "jsonb", "text"), Err(Mismatch::None));
}

#[test]
fn what_postgresql_refuses_is_refused() {
    assert_eq!(chosen("upper", &["int4"]), Err(Mismatch::None));
    assert_eq!(chosen("left", &["text", "int8"]), Err(Mismatch::None));
    assert_eq!(
        chosen("array_append", &["int4[]", "text"]),
        Err(Mismatch::None)
    );
    assert_eq!(chosen("to_jsonb", &["?"]), Err(Mismatch::Untyped));
    assert_eq!(chosen("quote_ident", &["numeric"]), Err(Mismatch::None));
    assert_eq!(chosen("gcd", &["int2", "int2"]), Err(Mismatch::Several));
    assert_eq!(Type::scalar(Scalar::Int4).to_string(), "integer");
}
