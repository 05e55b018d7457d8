//! Arrays, composite values, intervals and JSONB.

use super::*;
use crate::format::JsonEncoder;
use tidemark_common::SqlState;
use tidemark_plan::maps::map_type;

fn check(sql: &str, cases: &[(&str, &str)]) {
    for (json, expected) in cases {
        assert_eq!(one(sql, json), *expected, "{sql} from {json}");
    }
}

#[test]
fn arrays() {
    check(
        "int[]",
        &[
            ("[]", "{}"),
            ("[ 1 , 2 ,3]", "{1,2,3}"),
            ("[null,1,null]", "{-,1,-}"),
            ("null", "-"),
            ("[\"7\",8.0]", "{7,8}"),
            (
                "[1,\"x\"]",
                "! invalid input syntax for type integer: \"x\"",
            ),
            (
                "[1,3000000000]",
                "! value \"3000000000\" is out of range for type integer",
            ),
            ("5", "! invalid input syntax for type integer[]: \"5\""),
            (
                "{\"a\":1}",
                "! invalid input syntax for type integer[]: \"{\"a\":1}\"",
            ),
            (
                "\"{1,2}\"",
                "! invalid input syntax for type integer[]: \"\"{1,2}\"\"",
            ),
            (
                "[[1,2],[3,4]]",
                "! an array of type integer[] cannot have more than one dimension",
            ),
            (
                "[1,2",
                "! malformed JSON at byte 9: comma or closing bracket expected",
            ),
        ],
    );
    check(
        "varchar[]",
        &[
            (
                r#"["a","","b\"c",null,1.50,{"a": 1}]"#,
                "{a,,b\"c,-,1.50,{\"a\": 1}}",
            ),
            (
                "[[\"a\"]]",
                "! an array of type character varying[] cannot have more than one dimension",
            ),
        ],
    );
    check(
        "varchar(2)[]",
        &[
            (r#"["ab"]"#, "{ab}"),
            (
                r#"["abc"]"#,
                "! value too long for type character varying(2)",
            ),
        ],
    );
    check(
        "numeric(10,2)[]",
        &[("[1.005,\"2\",null]", "{1.01,2.00,-}")],
    );
    check("numeric[]", &[("[1.50,1e3]", "{1.50,1000}")]);
    check("boolean[]", &[("[true,0,\"t\"]", "{true,false,true}")]);
    check(
        "timestamp[]",
        &[(
            "[\"2024-02-29 12:00:00\",0]",
            "{2024-02-29T12:00:00,1970-01-01T00:00:00}",
        )],
    );
    check(
        "jsonb[]",
        &[(
            r#"[{"b":1,"a":[]},[1],null]"#,
            r#"{{"a": [], "b": 1},[1],-}"#,
        )],
    );
    check(
        "uuid[]",
        &[(
            r#"["A0EEBC999C0B4EF8BB6D6BB9BD380A11"]"#,
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        )],
    );
}

/// A record that fails in the middle of an array leaves nothing of it.
#[test]
fn a_failed_array_leaves_no_trace() {
    let columns = columns(&[("a", "int[]"), ("t", "varchar[]"), ("n", "int")]);
    let records = [
        r#"{"a":[1,2],"t":["x"],"n":1}"#,
        r#"{"a":[3,4,"x"],"t":["y"],"n":2}"#,
        r#"{"t":["z","zz"],"n":3,"a":[5]}"#,
        r#"{"t":["w"],"n":"no"}"#,
        r#"{"a":[6,7],"a":[8],"n":4}"#,
        r#"{"n":5}"#,
    ];
    let mut strict = plain(&columns);
    records
        .iter()
        .for_each(|r| push(&mut strict, None, Some(r)));
    let (changes, errors) = strict.finish();
    let expected = [
        "+ {1,2} | {x} | 1",
        "+ {5} | {z,zz} | 3",
        "+ {8} | - | 4",
        "+ - | - | 5",
    ];
    assert_eq!(table(&changes), expected);
    assert_eq!(
        problems(&errors),
        [
            "a: invalid input syntax for type integer: \"x\"",
            "n: invalid input syntax for type integer: \"no\"",
        ]
    );
    let mut lenient = plain(&columns).keep_faulty();
    records
        .iter()
        .for_each(|r| push(&mut lenient, None, Some(r)));
    assert_eq!(lenient.take_faulty(), [(1, 0), (3, 2)]);
    assert_eq!(table(&lenient.finish().0)[1], "+ - | {y} | 2");
}

#[test]
fn composite_values() {
    let mut columns = columns(&[("v", "int")]);
    let field = |name: &str, sql: &str| Field::new(name, column(name, sql).data_type, true);
    columns[0].data_type = DataType::Struct(
        vec![
            field("id", "int"),
            field("Name", "varchar"),
            field("at", "timestamp[]"),
        ]
        .into(),
    );
    let mut decoder = plain(&columns);
    for record in [
        r#"{"v":{"id":1,"Name":"a","at":[0]}}"#,
        r#"{"v":{"ID":2,"name":"b","id":3,"more":{}}}"#,
        r#"{"v":{}}"#,
        r#"{"v":null}"#,
        r#"{"v":{"id":"x"}}"#,
        r#"{"v":[1]}"#,
    ] {
        push(&mut decoder, None, Some(record));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(
        table(&changes),
        [
            "+ (1,a,{1970-01-01T00:00:00})",
            "+ (3,b,-)",
            "+ (-,-,-)",
            "+ -"
        ]
    );
    assert_eq!(
        problems(&errors),
        [
            "v: field \"id\": invalid input syntax for type integer: \"x\"",
            "v: invalid input syntax for type record: \"[1]\"",
        ]
    );
}

#[test]
fn maps() {
    let mut columns = columns(&[("t", "int"), ("n", "int")]);
    let of = |sql: &str| column("v", sql).data_type;
    columns[0].data_type = map_type(of("varchar"), of("int[]"));
    columns[1].data_type = map_type(of("bigint"), of("varchar"));
    let mut decoder = plain(&columns);
    let records = [
        r#"{"t":{"b":[1],"a":null},"n":{"2":"x","-1":"y"}}"#,
        r#"{"t":{},"n":null}"#,
        r#"{"t":{"a":[1],"a":[2]},"n":{"7":null}}"#,
        r#"{"t":[1]}"#,
        r#"{"n":{"x":"y"}}"#,
        r#"{"t":{"a":["no"]}}"#,
    ];
    for record in records {
        push(&mut decoder, None, Some(record));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(
        table(&changes),
        [
            "+ {a:-,b:{1}} | {-1:y,2:x}",
            "+ {} | -",
            "+ {a:{2}} | {7:-}"
        ]
    );
    assert_eq!(
        problems(&errors),
        [
            "t: invalid input syntax for type map: \"[1]\"",
            "n: invalid input syntax for type bigint: \"x\"",
            "t: invalid input syntax for type integer: \"no\"",
        ]
    );
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    JsonEncoder::new(&columns, &all(&columns))
        .unwrap()
        .encode_rows(changes.rows(), 0..3, &mut out, &mut ends)
        .unwrap();
    let written = [
        r#"{"t":{"a":null,"b":[1]},"n":{"-1":"y","2":"x"}}"#,
        r#"{"t":{},"n":null}"#,
        r#"{"t":{"a":[2]},"n":{"7":null}}"#,
    ];
    assert_eq!(std::str::from_utf8(&out).unwrap(), written.concat());
}

#[test]
fn intervals() {
    check(
        "interval",
        &[
            (
                "\"P1Y2M3DT4H5M6.78S\"",
                "14 mons 3 days 4 hours 5 mins 6.780000000 secs",
            ),
            ("\"1 day 02:00\"", "1 days 2 hours"),
            ("90000000", "1 mins 30.000000000 secs"),
            ("\"x\"", "! invalid input syntax for type interval: \"x\""),
            ("9e18", "! value \"9e18\" is out of range for type interval"),
        ],
    );
}

#[test]
fn jsonb_keeps_numbers_exactly() {
    check(
        "jsonb",
        &[
            (
                r#"{"n":123456789012345678901234567890.50,"a":[1,{"b":null}]}"#,
                r#"{"a": [1, {"b": null}], "n": 123456789012345678901234567890.50}"#,
            ),
            ("1.50", "1.50"),
            ("true", "true"),
            ("\"text\"", "\"text\""),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
        ],
    );
}

/// What is written is read back.
#[test]
fn nested_values_are_written() {
    let mut list = columns(&[
        ("a", "int[]"),
        ("t", "varchar[]"),
        ("n", "numeric[]"),
        ("ts", "timestamptz[]"),
        ("j", "jsonb[]"),
        ("i", "interval"),
    ]);
    let field = |name: &str, sql: &str| Field::new(name, column(name, sql).data_type, true);
    let mut composite = column("s", "int");
    composite.data_type = DataType::Struct(vec![field("x", "int"), field("y\"", "date[]")].into());
    list.push(composite);
    let texts = [
        r#"{"a":[1,null],"t":["x\"",""],"n":[1.50,null],"ts":["2024-02-29 12:00:00+00:00"],"j":[{"k": [1]}],"i":"1 year 2 mons 04:05:06.78","s":{"x":1,"y\"":["2024-02-29"]}}"#,
        r#"{"a":[],"t":null,"n":[],"ts":null,"j":null,"i":null,"s":{"x":null,"y\"":null}}"#,
        r#"{"a":null,"t":[null],"n":null,"ts":[],"j":[],"i":"00:00:00","s":null}"#,
    ];
    let mut decoder = plain(&list);
    texts
        .iter()
        .for_each(|text| push(&mut decoder, None, Some(text)));
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    JsonEncoder::new(&list, &all(&list))
        .unwrap()
        .encode_rows(changes.rows(), 0..3, &mut out, &mut ends)
        .unwrap();
    let mut start = 0;
    for (text, end) in texts.iter().zip(ends) {
        assert_eq!(std::str::from_utf8(&out[start..end]).unwrap(), *text);
        start = end;
    }
}

#[test]
fn arrays_of_arrays_are_refused() {
    let error = |columns: &[Column]| {
        RecordDecoder::new(&spec(Format::Plain, Encode::Json, &[]), columns, &[0]).unwrap_err()
    };
    let refused = error(&[column("v", "int[][]")]);
    assert_eq!(
        (refused.state(), refused.message()),
        (
            SqlState::FEATURE_NOT_SUPPORTED,
            "column \"v\": arrays of more than one dimension cannot be read from records"
        )
    );
}
