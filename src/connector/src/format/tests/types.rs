//! What each type reads, and what it refuses.

use super::*;
use crate::format::scan::DEPTH_MAX;
use tidemark_common::SqlState;
use tidemark_plan::Include;

fn check(sql: &str, cases: &[(&str, &str)]) {
    for (json, expected) in cases {
        let actual = one(sql, json);
        assert!(
            actual == *expected
                || (expected.ends_with('*') && actual.starts_with(expected.trim_end_matches('*'))),
            "{sql} from {json}: {actual}, not {expected}"
        );
    }
}

#[test]
fn integers() {
    check(
        "bigint",
        &[
            ("0", "0"),
            ("-0", "0"),
            ("7", "7"),
            ("-12345678", "-12345678"),
            ("123456789", "123456789"),
            ("1234567890123456", "1234567890123456"),
            ("12345678901234567", "12345678901234567"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            (
                "9223372036854775808",
                "! value \"9223372036854775808\" is out of range for type bigint",
            ),
            ("-9223372036854775809", "! value*"),
            ("99999999999999999999999999999999999999999999", "! value*"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("12.50e1", "125"),
            ("1.5", "! invalid input syntax for type bigint: \"1.5\""),
            ("\"42\"", "42"),
            ("\" +42 \"", "42"),
            ("\"x\"", "! invalid input syntax for type bigint: \"x\""),
            ("true", "! invalid input syntax for type bigint: \"true\""),
            ("null", "-"),
            ("01", "! malformed*"),
            ("012345678", "! malformed*"),
            ("-", "! malformed*"),
            ("1.", "! malformed*"),
            ("1e", "! malformed*"),
            ("+1", "! malformed*"),
            (".5", "! malformed*"),
        ],
    );
    check(
        "int",
        &[
            ("2147483647", "2147483647"),
            (
                "2147483648",
                "! value \"2147483648\" is out of range for type integer",
            ),
            ("-2147483648", "-2147483648"),
        ],
    );
    check(
        "smallint",
        &[
            ("-32768", "-32768"),
            (
                "32768",
                "! value \"32768\" is out of range for type smallint",
            ),
            ("\"12\"", "12"),
        ],
    );
}

#[test]
fn floats_and_booleans() {
    check(
        "double",
        &[
            ("1.5", "1.5"),
            ("1", "1.0"),
            ("-2e-3", "-0.002"),
            ("\"NaN\"", "NaN"),
            ("\"-Infinity\"", "-inf"),
            ("1e400", "! value*"),
            ("\"1e\"", "! invalid*"),
        ],
    );
    check(
        "real",
        &[("0.1", "0.1"), ("1e39", "! value*"), ("\"inf\"", "inf")],
    );
    check(
        "boolean",
        &[
            ("true", "true"),
            ("false", "false"),
            ("1", "true"),
            ("0", "false"),
            ("\"T\"", "true"),
            ("\"off\"", "false"),
            ("2", "! invalid*"),
            ("\"x\"", "! invalid*"),
        ],
    );
}

#[test]
fn numerics_are_exact() {
    check(
        "numeric(10,2)",
        &[
            ("1", "1.00"),
            ("1.005", "1.01"),
            ("-1.005", "-1.01"),
            (
                "1.00499999999999999999999999999999999999999999999999999999",
                "1.00",
            ),
            ("\"12345678.90\"", "12345678.90"),
            ("99999999.99", "99999999.99"),
            (
                "99999999.995",
                "! value \"99999999.995\" is out of range for type numeric(10, 2)",
            ),
            ("1e8", "! value*"),
            ("1.5e-2", "0.02"),
            ("1e-400", "0.00"),
            ("0e999999999999999999999", "0.00"),
            ("1e999999999999999999999", "! value*"),
            (
                "\"NaN\"",
                "! invalid input syntax for type numeric: \"NaN\"",
            ),
        ],
    );
    check(
        "numeric(38,10)",
        &[
            (
                "9999999999999999999999999999.9999999999",
                "9999999999999999999999999999.9999999999",
            ),
            ("9999999999999999999999999999.99999999995", "! value*"),
            ("0.00000000005", "0.0000000001"),
            (
                "1234567890123456789012345678.12345678901",
                "1234567890123456789012345678.1234567890",
            ),
            (
                "1234567890123456789012345678.12345678905",
                "1234567890123456789012345678.1234567891",
            ),
            (
                "0.000000000000000000000000000000000000000000000000000000001e50",
                "0.0000001000",
            ),
        ],
    );
}

#[test]
fn texts() {
    check(
        "varchar",
        &[
            (r#""""#, ""),
            (r#""plain""#, "plain"),
            (
                r#""a long text with \"quotes\" \\ and \/ \b\f\n\r\t end""#,
                "a long text with \"quotes\" \\ and / \u{8}\u{c}\n\r\t end",
            ),
            (r#""\u00e9\ud83d\ude00é😀""#, "é😀é😀"),
            (r#""\ud83d""#, "! malformed*"),
            (r#""\ude00""#, "! malformed*"),
            (r#""\ud83d\u0041""#, "! malformed*"),
            (r#""\u12g4""#, "! malformed*"),
            (r#""\x""#, "! malformed*"),
            ("\"a\u{1}\"", "! malformed*"),
            (r#""\u0000""#, "! \\u0000 cannot be part of a text"),
            ("12.50", "12.50"),
            ("true", "true"),
            ("{\"a\": [1, 2]}", "{\"a\": [1, 2]}"),
            ("[]", "[]"),
        ],
    );
    check(
        "varchar(3)",
        &[
            ("\"abc\"", "abc"),
            ("\"äöü\"", "äöü"),
            ("\"abcd\"", "! value too long for type character varying(3)"),
        ],
    );
    check(
        "bytea",
        &[
            (r#""\\x00ff""#, "\\x00\\xff"),
            (r#""abc""#, "abc"),
            (r#""\\x0""#, "! invalid*"),
            (r#""\\x+1""#, "! invalid*"),
        ],
    );
    check(
        "jsonb",
        &[
            ("{\"a\" : 1}", "{\"a\": 1}"),
            ("\"s\"", "\"s\""),
            ("null", "-"),
            ("[1,", "! malformed*"),
            ("[1 2]", "! malformed*"),
        ],
    );
    check(
        "char(3)",
        &[
            ("\"ab\"", "ab "),
            ("\"abc  \"", "abc"),
            ("\"abcd\"", "! value too long*"),
        ],
    );
    check(
        "uuid",
        &[
            (
                "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
            (
                "\"{a0eebc999c0b4ef8bb6d6bb9bd380a11}\"",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
            ("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1\"", "! invalid*"),
            ("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-\"", "! invalid*"),
            ("5", "! invalid*"),
        ],
    );
}

#[test]
fn dates_and_times() {
    check(
        "timestamp",
        &[
            ("\"2025-01-01 00:00:00.000\"", "2025-01-01T00:00:00"),
            ("\"2025-01-01 12:34:56.789\"", "2025-01-01T12:34:56.789"),
            (
                "\"2025-01-01T12:34:56.123456Z\"",
                "2025-01-01T12:34:56.123456",
            ),
            ("\"2025-01-01 12:34:56+02\"", "2025-01-01T12:34:56"),
            ("\"2025-01-01 12:34:56.9999996\"", "2025-01-01T12:34:57"),
            ("\"2025-1-2 3:04\"", "2025-01-02T03:04:00"),
            ("\"2024-02-29\"", "2024-02-29T00:00:00"),
            ("\"2025-01-01 24:00:00\"", "2025-01-02T00:00:00"),
            ("\"2025-01-01 23:59:60\"", "2025-01-02T00:00:00"),
            (
                "\"2025-02-29 00:00:00\"",
                "! invalid input syntax for type timestamp: \"2025-02-29 00:00:00\"",
            ),
            ("\"2025-01-01 25:00:00\"", "! invalid*"),
            ("\"2025-01-01 12:60:00\"", "! invalid*"),
            ("\"2025-01-01 12-00:00\"", "! invalid*"),
            ("\"0000-01-01 00:00:00\"", "! invalid*"),
            ("\"\"", "! invalid*"),
            ("\"endless\"", "! invalid*"),
            ("1735689600000", "2025-01-01T00:00:00"),
            ("1735689600000000", "2025-01-01T00:00:00"),
            ("-1000", "1969-12-31T23:59:59"),
            ("1735689600000.0", "2025-01-01T00:00:00"),
            ("\"2025\\u002d01-01 00:00:00\"", "2025-01-01T00:00:00"),
        ],
    );
    check(
        "timestamptz",
        &[
            ("\"2025-01-01 12:34:56+02\"", "2025-01-01T10:34:56Z"),
            ("\"2025-01-01T12:34:56.5-0530\"", "2025-01-01T18:04:56.500Z"),
            ("\"2025-01-01 12:34:56 UTC\"", "2025-01-01T12:34:56Z"),
            ("\"2025-01-01T00:30:00+01:00\"", "2024-12-31T23:30:00Z"),
            (
                "\"2025-01-01 12:34:56+99\"",
                "! invalid input syntax for type timestamp with time zone: \"2025-01-01 \
                 12:34:56+99\"",
            ),
        ],
    );
    check(
        "date",
        &[
            ("\"2025-01-31\"", "2025-01-31"),
            ("\"2025-01-31 23:00:00\"", "2025-01-31"),
            ("20089", "2025-01-01"),
            ("\"x\"", "! invalid*"),
            ("1e18", "! value*"),
        ],
    );
    check(
        "time",
        &[
            ("\"01:02:03.5\"", "01:02:03.500"),
            ("\"01:02\"", "01:02:00"),
            ("\"01:02:03Z\"", "01:02:03"),
            ("3723000000", "01:02:03"),
            ("\"25:00\"", "! invalid*"),
        ],
    );
}

#[test]
fn members_are_matched_by_name() {
    let columns = columns(&[("id", "bigint"), ("Name", "varchar"), ("extra", "bigint")]);
    let mut decoder = plain(&columns);
    for value in [
        r#"{"id":1,"Name":"a","extra":1}"#,
        r#"{"id":2,"Name":"b","extra":2}"#,
        r#"{"id":3,"extra":3}"#,
        r#"{"extra":4,"id":4}"#,
        r#" { "id" : 5 , "name" : "c" , "extra" : 5 } "#,
        r#" { "id" : 6 , "name" : "d" , "extra" : 6 } "#,
        r#"{"ID":7,"id":70,"Id":71}"#,
        r#"{"id":8,"id":80,"Name":"x","Name":"y"}"#,
        r#"{"n\u0061me":"e","id":9,"unknown":{"id":10,"a":[{}]}}"#,
        r#"{}"#,
        r#"{"a member whose name is much too long to be remembered in a shape":1,"id":11}"#,
        r#"{"a member whose name is much too long to be remembered in a shape":1,"id":12}"#,
    ] {
        push(&mut decoder, None, Some(value));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(
        table(&changes),
        [
            "+ 1 | a | 1",
            "+ 2 | b | 2",
            "+ 3 | - | 3",
            "+ 4 | - | 4",
            "+ 5 | c | 5",
            "+ 6 | d | 6",
            "+ 70 | - | -",
            "+ 80 | y | -",
            "+ 9 | e | -",
            "+ - | - | -",
            "+ 11 | - | -",
            "+ 12 | - | -"
        ]
    );
}

#[test]
fn a_failed_record_leaves_no_trace() {
    let columns = columns(&[("s", "varchar"), ("n", "bigint not null")]);
    let mut decoder = plain(&columns);
    for value in [
        r#"{"s":"one","n":1}"#,
        r#"{"s":"lost","n":"x"}"#,
        r#"{"s":null,"n":null}"#,
        r#"{"s":null}"#,
        r#"{"s":"cut"#,
        r#"{"n":5} x"#,
        "[1]",
        "",
        r#"{"s":null,"n":2}"#,
    ] {
        push(&mut decoder, None, Some(value));
    }
    push(&mut decoder, None, None);
    decoder.push(&RawRecord {
        value: Some(b"{\"s\":\"\xFF\"}"),
        partition: 3,
        offset: 77,
        ..RawRecord::default()
    });
    let (changes, errors) = decoder.finish();
    assert_eq!(table(&changes), ["+ one | 1", "+ - | 2"]);
    assert!(changes.weights().is_none());
    assert_eq!(
        problems(&errors),
        [
            "n: invalid input syntax for type bigint: \"x\"",
            "n: null value in column \"n\", which is NOT NULL",
            "n: no value for column \"n\", which is NOT NULL",
            ": malformed JSON at byte 9: closing quote expected, but the text ends",
            ": malformed JSON at byte 8: end of the record expected",
            ": malformed JSON at byte 0: object expected",
            ": malformed JSON at byte 0: object expected, but the text ends",
            ": the record has no value",
            ": the record is not valid UTF-8 at byte 6",
        ]
    );
    assert_eq!(
        (errors[0].split, errors[0].offset, errors[0].raw.as_slice()),
        (3, 1, &br#"{"s":"lost","n":"x"}"#[..])
    );
    assert!(decoder.is_empty());
}

#[test]
fn unwanted_columns_are_checked_for_form_only() {
    let columns = columns(&[("a", "bigint"), ("b", "bigint"), ("c", "varchar")]);
    let mut decoder =
        RecordDecoder::new(&spec(Format::Plain, Encode::Json, &[]), &columns, &[2]).unwrap();
    push(
        &mut decoder,
        None,
        Some(r#"{"a":"no number","b":[[]],"c":"x"}"#),
    );
    push(&mut decoder, None, Some(r#"{"a":01,"c":"x"}"#));
    let (changes, errors) = decoder.finish();
    assert_eq!((table(&changes), errors.len()), (vec!["+ x".to_owned()], 1));
    let mut nothing =
        RecordDecoder::new(&spec(Format::Plain, Encode::Json, &[]), &columns, &[]).unwrap();
    push(&mut nothing, None, Some(r#"{"a":1}"#));
    assert_eq!(nothing.finish().0.num_rows(), 1);
}

/// A row is the same for a reader of `c` whoever else reads `a`: what cannot be read is NULL and
/// named, and only a broken text fails the record.
#[test]
fn rows_with_faulty_values_are_kept_where_that_is_asked_for() {
    let columns = columns(&[
        ("a", "bigint"),
        ("b", "bigint not null"),
        ("c", "varchar"),
        ("k", "varchar"),
    ]);
    let mut spec = spec(Format::Plain, Encode::Json, &[]);
    spec.includes = vec![(3, Include::Key)];
    let mut decoder = RecordDecoder::new(&spec, &columns, &[2, 0, 1, 3])
        .unwrap()
        .keep_faulty();
    for (key, value) in [
        (None, r#"{"a":1,"b":2,"c":"fine"}"#),
        (None, r#"{"a":{"x":[1,"}"]},"b":2,"c":"object"}"#),
        (None, r#"{"a":"x","a":7,"b":2,"c":"last counts"}"#),
        (None, r#"{"a":7,"a":1.5,"b":null,"c":"two faults"}"#),
        (None, r#"{"c":"missing"}"#),
        (None, r#"{"a":"x","b":2,"c":"broken"#),
        (Some(&b"a\0b"[..]), r#"{"a":3,"b":4,"c":"key"}"#),
    ] {
        let offset = decoder.len() as i64;
        decoder.push(&RawRecord {
            key,
            value: Some(value.as_bytes()),
            partition: 3,
            offset,
            timestamp_ms: None,
        });
    }
    assert_eq!(
        decoder.take_faulty(),
        [(1, 1), (3, 1), (3, 2), (4, 2), (5, 3)]
    );
    let (changes, errors) = decoder.finish();
    assert_eq!(
        table(&changes),
        [
            "+ fine | 1 | 2 | -",
            "+ object | - | 2 | -",
            "+ last counts | 7 | 2 | -",
            "+ two faults | - | - | -",
            "+ missing | - | - | -",
            "+ key | 3 | 4 | -"
        ]
    );
    assert_eq!(
        errors.iter().map(|e| e.column.as_str()).collect::<Vec<_>>(),
        ["a", "a", "b", "b", "", "k"]
    );
    assert_eq!(
        errors[1].message,
        "invalid input syntax for type bigint: \"1.5\""
    );
    assert!(decoder.take_faulty().is_empty());
}

#[test]
fn depth_is_limited() {
    let nest = |levels: usize| format!("{{\"v\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    for sql in ["jsonb", "bigint"] {
        let columns = columns(&[("v", "jsonb"), ("w", sql)]);
        let mut decoder = RecordDecoder::new(
            &spec(Format::Plain, Encode::Json, &[]),
            &columns,
            &[usize::from(sql == "bigint")],
        )
        .unwrap();
        push(&mut decoder, None, Some(&nest(126)));
        push(&mut decoder, None, Some(&nest(DEPTH_MAX as usize - 1)));
        push(&mut decoder, None, Some(&nest(DEPTH_MAX as usize)));
        push(&mut decoder, None, Some(&nest(100_000)));
        let (changes, errors) = decoder.finish();
        assert_eq!((changes.num_rows(), errors.len()), (2, 2));
        for error in errors {
            assert_eq!(error.state, SqlState("54001"));
            let message = format!(
                "JSON nests more than {DEPTH_MAX} levels deep at byte {}",
                DEPTH_MAX + 4
            );
            assert_eq!(error.message, message);
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let nested = column("v", "int[][]");
    let state = |spec: &ConnectorSpec, columns: &[Column]| {
        RecordDecoder::new(spec, columns, &all(columns))
            .unwrap_err()
            .state()
            .0
    };
    assert_eq!(
        state(&spec(Format::Plain, Encode::Json, &[]), &[nested]),
        "0A000"
    );
    let text = columns(&[("v", "varchar")]);
    assert_eq!(
        state(&spec(Format::Upsert, Encode::Json, &[]), &text),
        "22023"
    );
    assert_eq!(
        state(&spec(Format::Plain, Encode::Bytes, &[]), &text),
        "42804"
    );
    assert_eq!(
        state(&spec(Format::Debezium, Encode::Bytes, &[0]), &text),
        "0A000"
    );
    assert_eq!(
        state(&spec(Format::Plain, Encode::Native, &[]), &text),
        "0A000"
    );
}

#[test]
fn codes() {
    let code = |sql: &str, json: &str| {
        let mut decoder = plain(&columns(&[("v", sql)])).keep_faulty();
        push(&mut decoder, None, Some(json));
        decoder.finish().1[0].state.0
    };
    for (sql, json, expected) in [
        ("int", r#"{"v":2147483648}"#, "22003"),
        ("int", r#"{"v":"x"}"#, "22P02"),
        ("int", r#"{"v":1"#, "22P02"),
        ("real", r#"{"v":1e60}"#, "22003"),
        ("numeric(10,2)", r#"{"v":99999999999}"#, "22003"),
        ("date", r#"{"v":99999999999}"#, "22008"),
        ("timestamp", r#"{"v":-9223372036854775808}"#, "22008"),
        ("varchar", "{\"v\":\"\\u0000\"}", "22P05"),
        ("int not null", r#"{"v":null}"#, "23502"),
        ("int not null", "{}", "23502"),
    ] {
        assert_eq!(code(sql, json), expected, "{sql} from {json}");
    }
    let mut decoder = plain(&columns(&[("v", "int")]));
    decoder.push(&RawRecord {
        value: Some(b"\xff"),
        ..RawRecord::default()
    });
    assert_eq!(decoder.finish().1[0].state.0, "22021");
}
