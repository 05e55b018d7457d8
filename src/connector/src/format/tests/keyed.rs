//! UPSERT, DEBEZIUM, INCLUDE and BYTES.

use super::*;
use tidemark_plan::Include;

fn run(
    mut decoder: RecordDecoder,
    records: &[(Option<&str>, Option<&str>)],
) -> (Vec<String>, Vec<String>) {
    for (key, value) in records {
        push(&mut decoder, *key, *value);
    }
    let (changes, errors) = decoder.finish();
    (table(&changes), problems(&errors))
}

#[test]
fn upsert_reads_the_key_from_the_record_key() {
    let columns = columns(&[("id", "bigint not null"), ("name", "varchar not null")]);
    let decoder =
        RecordDecoder::new(&spec(Format::Upsert, Encode::Json, &[0]), &columns, &[0, 1]).unwrap();
    let (rows, errors) = run(
        decoder,
        &[
            (Some("1"), Some(r#"{"id":99,"name":"a"}"#)),
            (Some(r#"{"id":2}"#), Some(r#"{"name":"b"}"#)),
            (
                Some(r#"{"schema":{"type":"struct"},"payload":{"id":3}}"#),
                Some(r#"{"name":"c"}"#),
            ),
            (Some(r#""4""#), Some(r#"{"name":"d"}"#)),
            (Some("1"), None),
            (Some("2"), Some(" null ")),
            (Some(r#"{"schema":null,"payload":5}"#), None),
            (None, Some(r#"{"name":"e"}"#)),
            (Some("x"), None),
            (Some("null"), None),
            (Some(r#"{"no":1}"#), None),
            (Some("7"), Some(r#"{"name":null}"#)),
            (Some("8"), Some(r#"{"name":"#)),
        ],
    );
    assert_eq!(
        rows,
        [
            "+ 1 | a", "+ 2 | b", "+ 3 | c", "+ 4 | d", "- 1 | -", "- 2 | -", "- 5 | -"
        ]
    );
    assert_eq!(
        errors,
        [
            ": the record has no key",
            "id: invalid input syntax for type bigint: \"x\"",
            "id: null value in column \"id\", which is NOT NULL",
            "id: the record key has no value for column \"id\"",
            "name: null value in column \"name\", which is NOT NULL",
            ": malformed JSON at byte 8: value expected, but the text ends",
        ]
    );
}

#[test]
fn text_keys_and_keys_of_several_columns() {
    let text = columns(&[("id", "varchar"), ("n", "int")]);
    let decoder =
        RecordDecoder::new(&spec(Format::Upsert, Encode::Json, &[0]), &text, &[1, 0]).unwrap();
    let (rows, errors) = run(
        decoder,
        &[
            (Some("plain text"), Some("{\"n\":1}")),
            (Some("42"), None),
            (Some("\"q\""), None),
            (Some("{\"id\":\"o\"}"), None),
            (Some(""), None),
        ],
    );
    assert_eq!(
        (rows, errors.len()),
        (
            [
                "+ 1 | plain text",
                "- - | 42",
                "- - | q",
                "- - | o",
                "- - | "
            ]
            .map(String::from)
            .to_vec(),
            0
        )
    );
    let mut forced = spec(Format::Upsert, Encode::Json, &[0]);
    forced
        .encode_options
        .insert("key.encode".into(), "TEXT".into());
    let (rows, _) = run(
        RecordDecoder::new(&forced, &text, &[0]).unwrap(),
        &[(Some("\"q\""), None)],
    );
    assert_eq!(rows, ["- \"q\""]);
    let pair = columns(&[("a", "int"), ("b", "date"), ("c", "int")]);
    let decoder = RecordDecoder::new(
        &spec(Format::Upsert, Encode::Json, &[0, 1]),
        &pair,
        &[0, 1, 2],
    )
    .unwrap();
    let (rows, errors) = run(
        decoder,
        &[
            (
                Some(r#"{"b":"2025-01-01","a":1}"#),
                Some("{\"c\":3,\"a\":\"ignored\"}"),
            ),
            (Some("1"), None),
            (Some(r#"{"a":1}"#), None),
        ],
    );
    assert_eq!(rows, ["+ 1 | 2025-01-01 | 3"]);
    assert_eq!(
        errors,
        [
            ": the record key is not a JSON object with the columns of the key",
            "b: the record key has no value for column \"b\""
        ]
    );
}

#[test]
fn includes() {
    let columns = columns(&[
        ("k", "varchar"),
        ("p", "int"),
        ("v", "bigint"),
        ("o", "bigint"),
        ("t", "timestamptz"),
    ]);
    let mut upsert = spec(Format::Upsert, Encode::Json, &[0]);
    upsert.includes = vec![
        (0, Include::Key),
        (1, Include::Partition),
        (3, Include::Offset),
        (4, Include::Timestamp),
    ];
    let mut decoder = RecordDecoder::new(&upsert, &columns, &[0, 1, 2, 3, 4]).unwrap();
    push(
        &mut decoder,
        Some("\"a\""),
        Some(r#"{"k":"other","p":9,"v":1,"o":9,"t":9}"#),
    );
    push(&mut decoder, Some("b"), None);
    push(&mut decoder, None, None);
    decoder.push(&RawRecord {
        key: Some(b"\xFF\x01"),
        value: Some(b"{}"),
        ..RawRecord::default()
    });
    let (changes, errors) = decoder.finish();
    let expected = [
        "+ \"a\" | 3 | 1 | 0 | 2023-11-14T22:13:20.123Z",
        "- b | 3 | - | 1 | 2023-11-14T22:13:20.123Z",
        "+ \\xff01 | 0 | - | 0 | -",
    ];
    assert_eq!(table(&changes), expected);
    assert_eq!(problems(&errors), [": the record has no key"]);
}

#[test]
fn bytes() {
    let columns = columns(&[("v", "bytea"), ("k", "bytea")]);
    let mut bytes = spec(Format::Plain, Encode::Bytes, &[]);
    bytes.includes = vec![(1, Include::Key)];
    let (rows, errors) = run(
        RecordDecoder::new(&bytes, &columns, &[0, 1]).unwrap(),
        &[(Some("k"), Some("not json")), (None, None)],
    );
    assert_eq!(
        (rows, errors.len()),
        (vec!["+ not json | k".to_owned(), "+ - | -".to_owned()], 0)
    );
    let mut upsert = spec(Format::Upsert, Encode::Bytes, &[1]);
    upsert.includes = vec![(1, Include::Key)];
    let (rows, _) = run(
        RecordDecoder::new(&upsert, &columns, &[0, 1]).unwrap(),
        &[(Some("k"), Some("x")), (Some("k"), None)],
    );
    assert_eq!(rows, ["+ x | k", "- - | k"]);
}

#[test]
fn debezium_events() {
    let columns = columns(&[("id", "bigint not null"), ("doc", "jsonb"), ("day", "date")]);
    let decoder = RecordDecoder::new(
        &spec(Format::Debezium, Encode::Json, &[0]),
        &columns,
        &[0, 1, 2],
    )
    .unwrap();
    let (rows, errors) = run(
        decoder,
        &[
            (
                None,
                Some(
                    r#"{"before":null,"after":{"id":1,"doc":"{\"a\": 1}","day":20089},"source":{"ts_ms":1},"op":"c","ts_ms":2}"#,
                ),
            ),
            (
                None,
                Some(
                    r#"{"schema":{"fields":[]},"payload":{"before":null,"after":{"id":2,"doc":null,"day":"2025-01-02"},"op":"r"}}"#,
                ),
            ),
            (
                None,
                Some(r#"{"op":"u","before":{"id":1},"after":{"id":1,"doc":[1]}}"#),
            ),
            (
                None,
                Some(r#"{"before":{"id":1,"doc":"{}","day":1},"after":null,"op":"d"}"#),
            ),
            (
                Some(r#"{"schema":{},"payload":{"id":2}}"#),
                Some(r#"{"payload":{"before":null,"after":null,"op":"d"},"schema":{}}"#),
            ),
            (
                Some("3"),
                Some(r#"{"before":{"doc":null},"after":null,"op":"d"}"#),
            ),
            (Some("3"), None),
            (Some("3"), Some("null")),
            (Some("3"), Some(r#"{"schema":null,"payload":null}"#)),
            (None, Some(r#"{"op":"m","message":{}}"#)),
            (None, Some(r#"{"before":null,"after":null,"op":"d"}"#)),
            (None, Some(r#"{"after":null,"op":"c"}"#)),
            (None, Some(r#"{"id":1}"#)),
            (None, Some(r#"{"after":{"id":1,"doc":"{"},"op":"c"}"#)),
            (None, Some(r#"{"op":"t"}"#)),
            (None, Some(r#"{"op":"c","after":{"id":1}"#)),
            (None, Some(r#"{"op":"c","after":{"doc":null}}"#)),
        ],
    );
    assert_eq!(
        rows,
        [
            "+ 1 | {\"a\": 1} | 2025-01-01",
            "+ 2 | - | 2025-01-02",
            "+ 1 | [1] | -",
            "- 1 | - | -",
            "- 2 | - | -",
            "- 3 | - | -"
        ]
    );
    assert_eq!(
        errors,
        [
            ": a deletion holds the key neither in \"before\" nor as the record key",
            ": a change event with op \"c\" has no row in \"after\"",
            ": the record is no change event: it has no \"op\"",
            "doc: invalid input syntax for type jsonb: \"{\"",
            ": a truncation cannot be followed",
            ": malformed JSON at byte 26: comma or closing brace expected, but the text ends",
            "id: no value for column \"id\", which is NOT NULL",
        ]
    );
}
