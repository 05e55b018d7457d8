//! What a sink writes with schemas, read back by a source.

use super::encoding::{TYPES, random_batch};
use super::random::Random;
use super::*;
use crate::format::connect_encode::{event_opening, opening};
use crate::format::form::{Unit, sink_schemas};
use crate::format::json_encode::{JsonEncoder, Style};
use crate::format::{KeyEncoder, debezium_envelope};

/// The rows as they are written, with the schema around each.
fn texts(batch: &RecordBatch, columns: &[Column], unit: Unit) -> Vec<String> {
    let encoder = JsonEncoder::with_style(columns, &all(columns), Style::Connect(unit)).unwrap();
    let bound = encoder.bind(batch).unwrap();
    let opening = opening(columns, &all(columns), unit, "t.Value");
    (0..batch.num_rows())
        .map(|row| {
            let mut out = opening.clone();
            bound.write(row, &mut out);
            out.push(b'}');
            String::from_utf8(out).unwrap()
        })
        .collect()
}

#[test]
fn random_rows_come_back() {
    let columns = columns(&TYPES);
    let batch = random_batch(&mut Random::new(11), 1_000, &columns);
    let mut decoder = plain(&columns);
    for text in texts(&batch, &columns, Unit::Micros) {
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        push(&mut decoder, None, Some(&text));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    for (i, column) in batch.columns().iter().enumerate() {
        assert_eq!(changes.column(i), column, "column {}", columns[i].name);
    }
}

#[test]
fn forms_of_values() {
    let mut list = columns(&[
        ("n", "numeric(10,2)"),
        ("free", "numeric"),
        ("raw", "bytea"),
        ("doc", "jsonb"),
        ("day", "date"),
        ("time", "time"),
        ("ts", "timestamp"),
        ("tz", "timestamptz"),
        ("u", "uuid"),
        ("days", "date[]"),
        ("i", "interval"),
    ]);
    list[0].nullable = false;
    let plain_text = r#"{"n":-12.34,"free":"NaN","raw":"\\x00ff","doc":{"a":[1.50]},"day":"2024-02-29","time":"12:34:56.789123","ts":"1969-12-31 23:59:59.999999","tz":"2024-02-29 12:00:00+00","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","days":["1970-01-01",null],"i":"1 day"}"#;
    let mut decoder = plain(&list);
    push(&mut decoder, None, Some(plain_text));
    let (changes, _) = decoder.finish();
    let payload = |unit| {
        let text = texts(changes.rows(), &list, unit).remove(0);
        text.split_once("\"payload\":").unwrap().1.to_owned()
    };
    assert_eq!(
        payload(Unit::Micros),
        r#"{"n":"+y4=","free":"NaN","raw":"AP8=","doc":"{\"a\": [1.50]}","day":19782,"time":45296789123,"ts":-1,"tz":"2024-02-29T12:00:00Z","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","days":[0,null],"i":"1 day"}}"#
    );
    assert_eq!(
        payload(Unit::Millis),
        r#"{"n":"+y4=","free":"NaN","raw":"AP8=","doc":"{\"a\": [1.50]}","day":19782,"time":45296789,"ts":-1,"tz":1709208000000,"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","days":[0,null],"i":"1 day"}}"#
    );
    let text = texts(changes.rows(), &list, Unit::Micros).remove(0);
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    let field = |i: usize| schema["schema"]["fields"][i].to_string();
    assert_eq!(
        [field(0), field(6), field(9)],
        [
            r#"{"field":"n","name":"org.apache.kafka.connect.data.Decimal","optional":false,"parameters":{"connect.decimal.precision":"10","scale":"2"},"type":"bytes","version":1}"#,
            r#"{"field":"ts","name":"io.debezium.time.MicroTimestamp","optional":true,"type":"int64","version":1}"#,
            r#"{"field":"days","items":{"name":"org.apache.kafka.connect.data.Date","optional":true,"type":"int32","version":1},"optional":true,"type":"array"}"#,
        ]
    );
    let mut again = plain(&list);
    push(&mut again, None, Some(&text));
    let (back, errors) = again.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(back.rows(), changes.rows());
}

#[test]
fn infinities_come_back() {
    let columns = columns(&[("t", "timestamp"), ("z", "timestamptz")]);
    let mut decoder = plain(&columns);
    for record in [
        r#"{"t":"infinity","z":"infinity"}"#,
        r#"{"t":"-infinity","z":"-infinity"}"#,
    ] {
        push(&mut decoder, None, Some(record));
    }
    let (changes, _) = decoder.finish();
    let mut again = plain(&columns);
    for text in texts(changes.rows(), &columns, Unit::Micros) {
        push(&mut again, None, Some(&text));
    }
    let (back, errors) = again.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(back.rows(), changes.rows());
}

/// A change event and its key, written with schemas, read by FORMAT DEBEZIUM.
#[test]
fn events_come_back() {
    let columns = columns(&[("price", "numeric(10,2)"), ("at", "timestamp")]);
    let mut spec = spec(Format::Debezium, Encode::Json, &[0]);
    spec.encode_options
        .insert("schemas.enable".into(), "true".into());
    spec.options.insert("topic".into(), "shop".into());
    let mut decoder = plain(&columns);
    push(
        &mut decoder,
        None,
        Some(r#"{"price":12.34,"at":"2024-02-29 12:00:00"}"#),
    );
    let (changes, _) = decoder.finish();
    let keys = KeyEncoder::new(&spec, &columns).unwrap();
    let mut key = Vec::new();
    keys.bind(changes.rows()).unwrap().write(0, &mut key);
    let key = String::from_utf8(key).unwrap();
    assert_eq!(
        key,
        r#"{"schema":{"fields":[{"field":"price","name":"org.apache.kafka.connect.data.Decimal","optional":true,"parameters":{"connect.decimal.precision":"10","scale":"2"},"type":"bytes","version":1}],"name":"shop.Key","optional":false,"type":"struct"},"payload":{"price":"BNI="}}"#
    );
    let encoder = JsonEncoder::with_style(&columns, &[0, 1], Style::Connect(Unit::Micros)).unwrap();
    let mut row = Vec::new();
    encoder.bind(changes.rows()).unwrap().write(0, &mut row);
    let event = |before, after, op| {
        let mut out = event_opening(&columns, Unit::Micros, "shop");
        debezium_envelope(before, after, op, 1, 2, &mut out);
        out.push(b'}');
        String::from_utf8(out).unwrap()
    };
    spec.encode_options.clear();
    let mut decoder = RecordDecoder::new(&spec, &columns, &[0, 1]).unwrap();
    push(
        &mut decoder,
        Some(&key),
        Some(&event(None, Some(&row), 'c')),
    );
    push(
        &mut decoder,
        Some(&key),
        Some(&event(Some(&row), None, 'd')),
    );
    push(&mut decoder, Some(&key), Some(&event(None, None, 'd')));
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(
        table(&changes),
        [
            "+ 12.34 | 2024-02-29T12:00:00",
            "- 12.34 | -",
            "- 12.34 | -"
        ]
    );
}

#[test]
fn options() {
    let of = |options: &[(&str, &str)]| {
        let mut spec = spec(Format::Plain, Encode::Json, &[]);
        for (name, value) in options {
            spec.encode_options.insert((*name).into(), (*value).into());
        }
        sink_schemas(&spec).map_err(|error| error.message().to_owned())
    };
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&[("schemas.enable", "FALSE")]), Ok(None));
    assert_eq!(of(&[("schemas.enable", "true")]), Ok(Some(Unit::Micros)));
    assert_eq!(
        of(&[
            ("schemas.enable", "true"),
            ("time.precision.mode", "connect")
        ]),
        Ok(Some(Unit::Millis))
    );
    assert_eq!(
        of(&[("schemas.enable", "maybe")]),
        Err("option \"schemas.enable\" cannot be 'maybe'".into())
    );
    assert_eq!(
        of(&[("time.precision.mode", "connect")]),
        Err("option \"time.precision.mode\" of a sink needs schemas.enable = 'true'".into())
    );
}
