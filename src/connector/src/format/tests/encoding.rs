//! Rows to JSON, and back again.

use super::random::Random;
use super::*;
use crate::format::{JsonEncoder, KeyEncoder, debezium_envelope};
use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
};
use arrow::array::{Date32Array, Time64MicrosecondArray, TimestampMicrosecondArray};
use std::sync::Arc;

pub(super) const TYPES: [(&str, &str); 14] = [
    ("b", "boolean"),
    ("s", "smallint"),
    ("i", "int"),
    ("l", "bigint"),
    ("f", "real"),
    ("d", "double"),
    ("n", "numeric(38,10)"),
    ("t\"ext", "varchar"),
    ("x", "bytea"),
    ("day", "date"),
    ("time", "time"),
    ("ts", "timestamp"),
    ("tz", "timestamptz"),
    ("j", "jsonb"),
];

fn texts(batch: &RecordBatch, columns: &[Column]) -> Vec<String> {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    JsonEncoder::new(columns, &all(columns))
        .unwrap()
        .encode_rows(batch, 0..batch.num_rows(), &mut out, &mut ends)
        .unwrap();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts
        .zip(&ends)
        .map(|(start, end)| String::from_utf8(out[start..*end].to_vec()).unwrap())
        .collect()
}

#[test]
fn every_type_has_its_form() {
    let columns = columns(&TYPES);
    let record = r#"{"b":true,"s":-1,"i":2,"l":3,"f":0.1,"d":1e300,"n":-0.05,"t\"ext":"a\"\\\n\u0001é","x":"\\x00ff","day":"2025-01-31","time":"01:02:03","ts":"2025-01-31 01:02:03.5","tz":"2025-01-31 01:02:03.000001+01","j":{"a" : 1}}"#;
    let mut decoder = plain(&columns);
    push(&mut decoder, None, Some(record));
    push(
        &mut decoder,
        None,
        Some("{\"d\":\"-Infinity\",\"f\":\"NaN\"}"),
    );
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(
        texts(changes.rows(), &columns),
        [
            r#"{"b":true,"s":-1,"i":2,"l":3,"f":0.1,"d":1e300,"n":-0.0500000000,"t\"ext":"a\"\\\n\u0001é","x":"\\x00ff","day":"2025-01-31","time":"01:02:03","ts":"2025-01-31 01:02:03.500","tz":"2025-01-31 00:02:03.000001+00:00","j":{"a": 1}}"#,
            r#"{"b":null,"s":null,"i":null,"l":null,"f":"NaN","d":"-Infinity","n":null,"t\"ext":null,"x":null,"day":null,"time":null,"ts":null,"tz":null,"j":null}"#,
        ]
    );
}

#[test]
fn infinities_come_back() {
    let columns = columns(&[("d", "date"), ("t", "timestamp"), ("z", "timestamptz")]);
    let record = r#"{"d":"infinity","t":"-infinity","z":"infinity"}"#;
    let mut decoder = plain(&columns);
    push(&mut decoder, None, Some(record));
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(texts(changes.rows(), &columns), [record]);
}

#[test]
fn random_rows_come_back() {
    let columns = columns(&TYPES);
    let mut random = Random::new(7);
    let rows = 2_000;
    let batch = random_batch(&mut random, rows, &columns);
    let mut decoder = plain(&columns);
    for text in texts(&batch, &columns) {
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        push(&mut decoder, None, Some(&text));
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    for (i, column) in batch.columns().iter().enumerate() {
        assert_eq!(changes.column(i), column, "column {}", columns[i].name);
    }
}

pub(super) fn random_batch(random: &mut Random, rows: usize, columns: &[Column]) -> RecordBatch {
    fn some<T>(
        random: &mut Random,
        rows: usize,
        make: impl Fn(&mut Random) -> T,
    ) -> Vec<Option<T>> {
        (0..rows)
            .map(|_| (random.below(8) > 0).then(|| make(random)))
            .collect()
    }
    let first = -210_866_803_200_000_000i64;
    let micros = move |r: &mut Random| match r.below(3) {
        0 => r.next() as i64 % 10_000_000_000_000_000,
        1 => (r.next() as i64 % 253_402_300_800 * 1_000_000).max(first),
        _ => (r.next() as i64).max(first),
    };
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(some(random, rows, |r| r.below(2) == 0))),
        Arc::new(Int16Array::from(some(random, rows, |r| r.next() as i16))),
        Arc::new(Int32Array::from(some(random, rows, |r| r.next() as i32))),
        Arc::new(Int64Array::from(some(random, rows, |r| {
            r.next() as i64 >> r.below(64)
        }))),
        Arc::new(Float32Array::from(some(random, rows, |r| {
            Some(f32::from_bits(r.next() as u32))
                .filter(|f| f.is_finite())
                .unwrap_or(f32::INFINITY)
        }))),
        Arc::new(Float64Array::from(some(random, rows, |r| {
            Some(f64::from_bits(r.next()))
                .filter(|f| f.is_finite())
                .unwrap_or(f64::NEG_INFINITY)
        }))),
        Arc::new(
            Decimal128Array::from(some(random, rows, |r| {
                i128::from(r.next() as i64) * i128::from(r.next() >> r.below(64)) % 10i128.pow(38)
            }))
            .with_precision_and_scale(38, 10)
            .unwrap(),
        ),
        Arc::new(StringArray::from(some(random, rows, Random::text))),
        Arc::new(BinaryArray::from_iter(some(random, rows, |r| {
            (0..r.below(20)).map(|_| r.next() as u8).collect::<Vec<_>>()
        }))),
        Arc::new(Date32Array::from(some(random, rows, |r| {
            r.below(109_000_000) as i32 - 2_440_588
        }))),
        Arc::new(Time64MicrosecondArray::from(some(random, rows, |r| {
            r.below(86_400_000_000) as i64
        }))),
        Arc::new(TimestampMicrosecondArray::from(some(random, rows, micros))),
        Arc::new(TimestampMicrosecondArray::from(some(random, rows, micros)).with_timezone("UTC")),
        Arc::new(BinaryViewArray::from_iter(some(random, rows, |r| {
            jsonb::parse(&format!("[{}]", r.below(9))).unwrap()
        }))),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns
            .iter()
            .zip(arrays)
            .map(|(column, array)| (column.name.clone(), array, true)),
    )
    .unwrap()
}

#[test]
fn timestamps_agree_with_chrono() {
    let mut random = Random::new(3);
    let columns = columns(&[("v", "timestamp")]);
    let mut decoder = plain(&columns);
    let mut expected = Vec::new();
    for _ in 0..20_000 {
        let micros = random.next() as i64 % 253_402_300_800_000_000
            / [1, 1_000, 1_000_000][random.below(3) as usize];
        let Some(time) = chrono::DateTime::from_timestamp_micros(micros)
            .filter(|_| micros >= -62_135_596_800_000_000)
        else {
            continue;
        };
        let form = [
            "%Y-%m-%d %H:%M:%S%.f",
            "%Y-%m-%dT%H:%M:%S%.6fZ",
            "%Y-%m-%d %H:%M:%S%.6f",
        ][random.below(3) as usize];
        push(
            &mut decoder,
            None,
            Some(&format!("{{\"v\":\"{}\"}}", time.format(form))),
        );
        expected.push(micros);
    }
    let (changes, errors) = decoder.finish();
    assert_eq!(problems(&errors), Vec::<String>::new());
    assert_eq!(
        changes
            .column(0)
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .to_vec(),
        expected
    );
}

#[test]
fn keys_and_envelopes() {
    let columns = columns(&[("a", "int"), ("b", "varchar"), ("c", "timestamp")]);
    let mut decoder = plain(&columns);
    push(&mut decoder, None, Some(r#"{"a":1,"b":"x\"y","c":0}"#));
    let (changes, _) = decoder.finish();
    let key = |positions: &[usize], form: &str| {
        let mut spec = spec(Format::Upsert, Encode::Json, positions);
        spec.encode_options.insert("key.encode".into(), form.into());
        let mut out = Vec::new();
        let encoder = KeyEncoder::new(&spec, &columns).map_err(|e| e.state().0)?;
        encoder.bind(changes.rows()).unwrap().write(0, &mut out);
        Ok::<_, &str>(String::from_utf8(out).unwrap())
    };
    assert_eq!(key(&[1, 0], "json").unwrap(), r#"{"b":"x\"y","a":1}"#);
    assert_eq!(
        (
            key(&[1], "text").unwrap(),
            key(&[0], "text").unwrap(),
            key(&[2], "bytes").unwrap()
        ),
        ("x\"y".into(), "1".into(), "1970-01-01 00:00:00".into())
    );
    assert_eq!(
        (key(&[0, 1], "text"), key(&[0], "avro")),
        (Err("22023"), Err("22023"))
    );
    let mut out = Vec::new();
    debezium_envelope(None, Some(b"{\"a\":1}"), 'c', 5, 6, &mut out);
    let expected = r#"{"before":null,"after":{"a":1},"source":{"connector":"tidemark","ts_ms":5},"op":"c","ts_ms":6}"#;
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut nested = column("v", "varchar");
    nested.data_type = DataType::Interval(IntervalUnit::DayTime);
    assert_eq!(
        JsonEncoder::new(&[nested], &[0]).unwrap_err().state().0,
        "0A000"
    );
}
