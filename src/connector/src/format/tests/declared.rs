//! Values without a schema: what the source declares, in Debezium's words.

use super::*;
use tidemark_common::SqlState;

/// The value or the error of a column `v` of type `sql`, from `json`, with options of ENCODE JSON.
fn read(format: Format, options: &[(&str, &str)], sql: &str, json: &str) -> String {
    let columns = columns(&[("id", "int"), ("v", sql)]);
    let mut spec = spec(format, Encode::Json, &[0]);
    for (name, value) in options {
        spec.encode_options.insert((*name).into(), (*value).into());
    }
    let mut decoder = RecordDecoder::new(&spec, &columns, &[1]).unwrap();
    let row = format!("{{\"id\":1,\"v\":{json}}}");
    let value = match format {
        Format::Debezium => {
            format!("{{\"before\":null,\"after\":{row},\"source\":{{}},\"op\":\"c\",\"ts_ms\":1}}")
        }
        _ => row,
    };
    push(&mut decoder, Some("1"), Some(&value));
    let (changes, errors) = decoder.finish();
    match (&errors[..], changes.num_rows()) {
        ([], 1) => line(changes.rows(), 0),
        ([error], 0) => format!("! {}", error.message),
        _ => panic!("one record gives one row or one error"),
    }
}

#[test]
fn decimals() {
    let precise = &[("decimal.handling.mode", "precise")][..];
    let string = &[("decimal.handling.mode", "string")][..];
    let double = &[("decimal.handling.mode", "double")][..];
    for (format, options, sql, json, expected) in [
        (
            Format::Debezium,
            precise,
            "numeric(10,2)",
            "\"BNI=\"",
            "12.34",
        ),
        (
            Format::Debezium,
            precise,
            "numeric(10,2)",
            "\"+y4=\"",
            "-12.34",
        ),
        (
            Format::Debezium,
            precise,
            "numeric(10,2)",
            "\"1234\"",
            "-26588.24",
        ),
        (
            Format::Debezium,
            precise,
            "numeric(10,2)",
            "12.345",
            "12.35",
        ),
        (
            Format::Debezium,
            precise,
            "numeric(10,2)",
            "\"12.5\"",
            "! invalid input syntax for type base64: \"12.5\"",
        ),
        (
            Format::Debezium,
            precise,
            "numeric(10,2)",
            "\"AOjUpRAA\"",
            "! value \"10000000000.00\" is out of range for type numeric(10, 2)",
        ),
        (
            Format::Debezium,
            precise,
            "numeric",
            r#"{"scale":3,"value":"AeJA"}"#,
            "123.456",
        ),
        (
            Format::Debezium,
            precise,
            "numeric",
            "\"BNI=\"",
            "! the scale of the decimal \"BNI=\" is not known: the column needs NUMERIC(p, s)",
        ),
        (
            Format::Debezium,
            string,
            "numeric(10,2)",
            "\"1234\"",
            "1234.00",
        ),
        (Format::Debezium, string, "numeric", "\"12.340\"", "12.340"),
        (Format::Debezium, double, "numeric(10,2)", "12.34", "12.34"),
        // Not said: what can be only one of both is that.
        (Format::Debezium, &[], "numeric(10,2)", "\"BNI=\"", "12.34"),
        (Format::Debezium, &[], "numeric(10,2)", "\"12.34\"", "12.34"),
        (Format::Debezium, &[], "numeric(10,2)", "\"-7\"", "-7.00"),
        (Format::Debezium, &[], "numeric(10,2)", "7.5", "7.50"),
        (
            Format::Debezium,
            &[],
            "numeric(10,2)",
            "\"1234\"",
            "! \"1234\" may be a number or the base64 of one: the source must say \
             decimal.handling.mode",
        ),
        (
            Format::Debezium,
            &[],
            "numeric",
            r#"{"scale":0,"value":"AQ=="}"#,
            "1",
        ),
        (
            Format::Debezium,
            &[],
            "numeric[]",
            r#"["1.5",{"scale":1,"value":"Dw=="}]"#,
            "{1.5,1.5}",
        ),
        (Format::Plain, &[], "numeric(10,2)", "\"1234\"", "1234.00"),
        (Format::Plain, precise, "numeric(10,2)", "\"BNI=\"", "12.34"),
    ] {
        assert_eq!(
            read(format, options, sql, json),
            expected,
            "{sql} from {json}, {options:?}"
        );
    }
}

#[test]
fn moments() {
    let mode = |value| [("time.precision.mode", value)];
    for (options, sql, json, expected) in [
        (
            &[][..],
            "timestamp",
            "1709210096789",
            "2024-02-29T12:34:56.789",
        ),
        (
            &[],
            "timestamp",
            "1709210096789123",
            "2024-02-29T12:34:56.789123",
        ),
        (
            &[],
            "timestamp(3)",
            "1709210096789",
            "2024-02-29T12:34:56.789",
        ),
        (
            &[],
            "timestamp(6)",
            "1709210096789",
            "1970-01-20T18:46:50.096789",
        ),
        (
            &[],
            "timestamp(6)",
            "\"2024-02-29T12:34:56Z\"",
            "2024-02-29T12:34:56",
        ),
        (&[], "time", "45296789123", "12:34:56.789123"),
        (&[], "time(3)", "45296789", "12:34:56.789"),
        (&[], "date", "19782", "2024-02-29"),
        (
            &mode("adaptive"),
            "timestamp",
            "1709210096789",
            "1970-01-20T18:46:50.096789",
        ),
        (&mode("adaptive"), "time(3)", "45296789", "12:34:56.789"),
        (&mode("adaptive"), "time", "45296789", "00:00:45.296789"),
        (
            &mode("adaptive_time_microseconds"),
            "time(3)",
            "45296789123",
            "12:34:56.789",
        ),
        (
            &mode("adaptive_time_microseconds"),
            "timestamp(3)",
            "1000",
            "1970-01-01T00:00:01",
        ),
        (&mode("connect"), "timestamp", "1000", "1970-01-01T00:00:01"),
        (&mode("Connect"), "time", "45296789", "12:34:56.789"),
        (
            &mode("nanoseconds"),
            "timestamp",
            "1709210096789123499",
            "2024-02-29T12:34:56.789123",
        ),
        (
            &mode("microseconds"),
            "timestamp(3)",
            "1000",
            "1970-01-01T00:00:00.001",
        ),
        (
            &mode("isostring"),
            "timestamp",
            "\"2024-02-29T12:34:56.5Z\"",
            "2024-02-29T12:34:56.500",
        ),
        (&mode("isostring"), "date", "\"2024-02-29Z\"", "2024-02-29"),
        (
            &mode("connect"),
            "timestamp",
            "9223372036854775807",
            "! value \"9223372036854775807\" is out of range for type timestamp",
        ),
        (
            &mode("connect"),
            "time",
            "86400001",
            "! value \"86400001\" is out of range for type time",
        ),
    ] {
        assert_eq!(
            read(Format::Debezium, options, sql, json),
            expected,
            "{sql} from {json}, {options:?}"
        );
    }
    // Elsewhere a declared precision says nothing of numbers, unless a mode is declared.
    assert_eq!(
        read(Format::Upsert, &[], "timestamp(6)", "1000"),
        "1970-01-01T00:00:01"
    );
    let adaptive = &mode("adaptive");
    assert_eq!(
        read(Format::Upsert, adaptive, "timestamp(6)", "1000"),
        "1970-01-01T00:00:00.001"
    );
}

#[test]
fn bytes_and_json() {
    let mode = |value| [("binary.handling.mode", value)];
    for (format, options, sql, json, expected) in [
        (Format::Debezium, &[][..], "bytea", "\"AP8=\"", "\\x00\\xff"),
        (Format::Debezium, &[], "bytea", r#""\\x00ff""#, "\\x00\\xff"),
        (
            Format::Debezium,
            &[],
            "bytea",
            "\"abc\"",
            "! invalid input syntax for type base64: \"abc\"",
        ),
        (
            Format::Debezium,
            &mode("hex"),
            "bytea",
            "\"00ff\"",
            "\\x00\\xff",
        ),
        (
            Format::Debezium,
            &mode("base64-url-safe"),
            "bytea",
            "\"-_8=\"",
            "\\xfb\\xff",
        ),
        (Format::Plain, &[], "bytea", "\"abcd\"", "abcd"),
        (
            Format::Plain,
            &mode("base64"),
            "bytea",
            "\"YWJjZA==\"",
            "abcd",
        ),
        (
            Format::Debezium,
            &[],
            "jsonb",
            r#""{\"b\": 1, \"a\": [1.50]}""#,
            r#"{"a": [1.50], "b": 1}"#,
        ),
        (Format::Debezium, &[], "jsonb", r#"{"a":1}"#, r#"{"a": 1}"#),
        (Format::Debezium, &[], "jsonb", "\"null\"", "null"),
        (Format::Debezium, &[], "int[]", r#""[1,2]""#, "{1,2}"),
        (Format::Debezium, &[], "int[]", "[1,2]", "{1,2}"),
        (
            Format::Debezium,
            &[],
            "varchar",
            r#""{\"a\":1}""#,
            r#"{"a":1}"#,
        ),
        (
            Format::Plain,
            &[],
            "jsonb",
            r#""{\"a\":1}""#,
            r#""{\"a\":1}""#,
        ),
        (
            Format::Debezium,
            &[],
            "jsonb",
            "\"{\"",
            "! invalid input syntax for type jsonb: \"{\"",
        ),
    ] {
        assert_eq!(
            read(format, options, sql, json),
            expected,
            "{sql} from {json}, {options:?}"
        );
    }
}

/// What SQL would make of the same text.
#[test]
fn texts_are_what_postgresql_casts_them_to() {
    let [debezium, plain] = [Format::Debezium, Format::Plain];
    for (format, sql, json, expected) in [
        (
            plain,
            "timestamp(3)",
            "\"2024-02-29T12:34:56.7895Z\"",
            "2024-02-29T12:34:56.790",
        ),
        (plain, "time(3)", "\"12:34:56.7894\"", "12:34:56.789"),
        (
            plain,
            "timestamp(3)[]",
            "[\"2024-02-29 12:34:56.0005\"]",
            "{2024-02-29T12:34:56.001}",
        ),
        (
            plain,
            "timestamp",
            "\"2024-02-29 12:34:56.0000005\"",
            "2024-02-29T12:34:56",
        ),
        (
            plain,
            "timestamp",
            "\"2024-02-29 12:34:56.00000051\"",
            "2024-02-29T12:34:56.000001",
        ),
        (
            plain,
            "timestamp",
            "\"2024-02-29 12:34:56.0000015\"",
            "2024-02-29T12:34:56.000002",
        ),
        (
            plain,
            "date",
            "\"99-01-01\"",
            "! invalid input syntax for type date: \"99-01-01\"",
        ),
        (plain, "date", "\"20240229\"", "2024-02-29"),
        (
            plain,
            "date",
            "\"today\"",
            "! invalid input syntax for type date: \"today\"",
        ),
        (plain, "time", "\"12:34 PM\"", "12:34:00"),
        (
            plain,
            "double",
            "1e-400",
            "! value \"1e-400\" is out of range for type double precision",
        ),
        (plain, "double", "0e-400", "0.0"),
        (
            plain,
            "real",
            "1e-46",
            "! value \"1e-46\" is out of range for type real",
        ),
        (
            plain,
            "bytea",
            "{\"a\":1}",
            "! invalid input syntax for type bytea: \"{\"a\":1}\"",
        ),
        (debezium, "numeric", "\"Infinity\"", "Infinity"),
        (debezium, "jsonb", "\"\\\"[1,2]\\\"\"", "\"[1,2]\""),
    ] {
        assert_eq!(read(format, &[], sql, json), expected, "{sql} from {json}");
    }
}

/// An update that leaves out a large value must not write the placeholder into the row.
#[test]
fn values_that_postgresql_left_out_are_no_values() {
    let columns = columns(&[("id", "int"), ("t", "varchar"), ("b", "bytea")]);
    let spec = spec(Format::Debezium, Encode::Json, &[0]);
    let mut decoder = RecordDecoder::new(&spec, &columns, &[0, 1, 2]).unwrap();
    for (text, bytes) in [
        ("__debezium_unavailable_value", ""),
        ("x", "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
        ("x", "AA=="),
    ] {
        let event =
            format!(r#"{{"before":null,"after":{{"id":1,"t":"{text}","b":"{bytes}"}},"op":"u"}}"#);
        push(&mut decoder, None, Some(&event));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(table(&changes), ["+ 1 | x | \\x00"]);
    assert_eq!(
        problems(&errors),
        [
            "t: the value of column \"t\" did not change, and the event leaves it out",
            "b: the value of column \"b\" did not change, and the event leaves it out",
        ]
    );
}

/// So do arrays and maps, whose elements are the placeholder.
#[test]
fn arrays_that_postgresql_left_out_are_no_values() {
    let columns = columns(&[
        ("id", "int"),
        ("t", "varchar[]"),
        ("n", "int[]"),
        ("j", "jsonb"),
    ]);
    let spec = spec(Format::Debezium, Encode::Json, &[0]);
    let mut decoder = RecordDecoder::new(&spec, &columns, &[0, 1, 2, 3]).unwrap();
    let bytes: Vec<u8> = b"__debezium_unavailable_value".to_vec();
    for (texts, numbers, json) in [
        (r#"["__debezium_unavailable_value"]"#, "[]", "{}"),
        ("[]", &*format!("{bytes:?}"), "{}"),
        (
            "[]",
            "[]",
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
        ),
        ("[]", "[95, 95]", "{}"),
    ] {
        let after = format!(r#"{{"id":1,"t":{texts},"n":{numbers},"j":{json}}}"#);
        let event = format!(r#"{{"before":null,"after":{after},"op":"u"}}"#);
        push(&mut decoder, None, Some(&event));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(table(&changes), ["+ 1 | {} | {95,95} | {}"]);
    let left_out =
        |c| format!("{c}: the value of column \"{c}\" did not change, and the event leaves it out");
    assert_eq!(problems(&errors), ["t", "n", "j"].map(left_out));
}

#[test]
fn modes_that_debezium_does_not_have_are_refused() {
    let mut spec = spec(Format::Plain, Encode::Json, &[]);
    spec.encode_options
        .insert("time.precision.mode".into(), "millis".into());
    let error = RecordDecoder::new(&spec, &columns(&[("v", "int")]), &[0]).unwrap_err();
    assert_eq!(
        (error.state(), error.message()),
        (
            SqlState::INVALID_PARAMETER,
            "option \"time.precision.mode\" cannot be 'millis'"
        )
    );
}
