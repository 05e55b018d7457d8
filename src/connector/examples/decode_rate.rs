//! How fast records are decoded and encoded, on one core: Nexmark's bids as flat JSON of 250 bytes.
//!
//! `cargo run --release -p tidemark-connector --example decode_rate [-- seconds]` prints one line a
//! case: records a second, and MB of JSON a second.

#![allow(clippy::disallowed_methods)]

use arrow::datatypes::{DataType, TimeUnit};
use std::time::Instant;
use tidemark_connector::format::{JsonEncoder, RawRecord, RecordDecoder};
use tidemark_plan::{Column, ConnectorSpec, Encode, Format};

const BATCH: usize = 4096;

fn columns() -> Vec<Column> {
    let column = |name: &str, data_type| Column {
        name: name.into(),
        data_type,
        nullable: true,
        default: None,
        sql_type: String::new(),
    };
    vec![
        column("auction", DataType::Int64),
        column("bidder", DataType::Int64),
        column("price", DataType::Int64),
        column("channel", DataType::Utf8),
        column("url", DataType::Utf8),
        column(
            "date_time",
            DataType::Timestamp(TimeUnit::Microsecond, None),
        ),
        column("extra", DataType::Utf8),
    ]
}

fn records(count: usize, blank: &str) -> Vec<String> {
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    let letters = |random: &mut dyn FnMut(u64) -> u64, count: u64| {
        (0..count)
            .map(|_| char::from(b'a' + random(26) as u8))
            .collect::<String>()
    };
    (0..count)
        .map(|i| {
            let channels = ["apple", "google", "facebook", "baidu", "channel-1234"];
            let channel = channels[random(5) as usize];
            let auction = 1000 + i as u64 / 10 + random(100);
            let (bidder, price) = (1000 + random(1_000_000), 100 + random(50_000_000));
            let path = letters(&mut random, 15);
            let extra_len = 40 + random(60);
            let extra = letters(&mut random, extra_len);
            let (minute, second, millis) = (i / 60_000 % 60, i / 1000 % 60, i % 1000);
            format!(
                "{{\"auction\":{blank}{auction},{blank}\"bidder\":{blank}{bidder},{blank}\
                 \"price\":{blank}{price},{blank}\
                 \"channel\":{blank}\"{channel}\",{blank}\
                 \"url\":{blank}\"https://www.nexmark.com/{path}/item.htm?query=1\",{blank}\
                 \"date_time\":{blank}\"2025-01-01 \
                 00:{minute:02}:{second:02}.{millis:03}\",{blank}\"extra\":{blank}\"{extra}\"}}"
            )
        })
        .collect()
}

/// A change event with its schema, as Kafka Connect's converter writes it.
fn described(event: &str) -> String {
    let field = |name: &str, kind: &str| {
        format!("{{\"type\":\"{kind}\",\"optional\":true,\"field\":\"{name}\"}}")
    };
    let row = [
        field("auction", "int64"),
        field("bidder", "int64"),
        field("price", "int64"),
        field("channel", "string"),
        field("url", "string"),
        field("date_time", "string"),
        field("extra", "string"),
    ]
    .join(",");
    let image = |name: &str| {
        format!(
            "{{\"type\":\"struct\",\"fields\":[{row}],\"optional\":true,\"name\":\"Value\",\
             \"field\":\"{name}\"}}"
        )
    };
    format!(
        "{{\"schema\":{{\"type\":\"struct\",\"fields\":[{},{}],\"name\":\"Envelope\"}},\
         \"payload\":{event}}}",
        image("before"),
        image("after")
    )
}

/// Runs `step`, which handles `count` records of `bytes` in all, for `seconds`; prints the best of
/// its rates.
fn measure(name: &str, seconds: f64, count: usize, bytes: usize, mut step: impl FnMut()) {
    let (begin, mut best) = (Instant::now(), f64::MAX);
    while begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        step();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!(
        "{name:<34} {:>7.3} M records/s {:>8.0} MB/s",
        count as f64 / best / 1e6,
        bytes as f64 / best / 1e6
    );
}

/// Decodes `records` with a key that is their number, in batches.
fn decode(name: &str, seconds: f64, decoder: &mut RecordDecoder, records: &[String]) {
    let keys: Vec<String> = (0..records.len())
        .map(|i| format!("{{\"auction\":{i}}}"))
        .collect();
    let bytes = records.iter().map(String::len).sum();
    measure(name, seconds, records.len(), bytes, || {
        let mut rows = 0;
        for (i, (record, key)) in records.iter().zip(&keys).enumerate() {
            decoder.push(&RawRecord {
                key: Some(key.as_bytes()),
                value: Some(record.as_bytes()),
                offset: i as i64,
                ..RawRecord::default()
            });
            if decoder.len() == BATCH {
                rows += decoder.finish().0.num_rows();
            }
        }
        rows += decoder.finish().0.num_rows();
        assert_eq!(rows, records.len());
    });
}

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(2.0);
    let only = std::env::args().nth(2);
    let columns = columns();
    let spec = ConnectorSpec {
        connector: "kafka".into(),
        options: Default::default(),
        format: Format::Plain,
        encode: Encode::Json,
        encode_options: Default::default(),
        includes: Vec::new(),
        hidden: Default::default(),
        key: Vec::new(),
    };
    for (shape, blank) in [("compact", ""), ("blanks", " ")] {
        let records = records(20_000, blank);
        let bytes: usize = records.iter().map(String::len).sum();
        println!(
            "{shape}: {} records of {} bytes",
            records.len(),
            bytes / records.len()
        );
        for (name, wanted) in [
            ("7 of 7", &[0, 1, 2, 3, 4, 5, 6][..]),
            ("2 of 7 (auction, price)", &[0, 2]),
            ("3 of 7 (auction, price, date_time)", &[0, 2, 5]),
            ("0 of 7", &[]),
        ] {
            if only
                .as_ref()
                .is_some_and(|only| !name.starts_with(only.as_str()))
            {
                continue;
            }
            let mut decoder = RecordDecoder::new(&spec, &columns, wanted).expect("flat columns");
            decode(name, seconds, &mut decoder, &records);
        }
        // Every other record lacks two members and has another one.
        let mixed: Vec<String> = records
            .iter()
            .enumerate()
            .map(|(i, r)| {
                if i % 2 == 0 {
                    r.clone()
                } else {
                    r.replace("\"bidder\"", "\"seller\"")
                        .replace("\"url\"", "\"uri\"")
                }
            })
            .collect();
        let events: Vec<String> = records
            .iter()
            .map(|r| {
                format!(
                    "{{\"before\":null,\"after\":{r},\"source\":{{\"db\":\"d\",\"table\":\"t\",\
                         \"ts_ms\":1}},\"op\":\"c\",\"ts_ms\":2}}"
                )
            })
            .collect();
        let described: Vec<String> = events.iter().map(|e| described(e)).collect();
        for (name, format, records) in [
            ("7 of 7, two shapes in turn", Format::Plain, &mixed),
            ("7 of 7, upsert", Format::Upsert, &records),
            ("7 of 7, debezium", Format::Debezium, &events),
            ("7 of 7, debezium with schema", Format::Debezium, &described),
        ] {
            let spec = ConnectorSpec {
                format,
                key: vec![0],
                ..spec.clone()
            };
            let mut decoder =
                RecordDecoder::new(&spec, &columns, &[0, 1, 2, 3, 4, 5, 6]).expect("flat columns");
            decode(name, seconds, &mut decoder, records);
        }
        let mut decoder =
            RecordDecoder::new(&spec, &columns, &[0, 1, 2, 3, 4, 5, 6]).expect("flat columns");
        records.iter().for_each(|record| {
            decoder.push(&RawRecord {
                value: Some(record.as_bytes()),
                ..RawRecord::default()
            })
        });
        let rows = decoder.finish().0;
        let encoder = JsonEncoder::new(&columns, &[0, 1, 2, 3, 4, 5, 6]).expect("flat columns");
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        measure("encode 7", seconds, records.len(), bytes, || {
            out.clear();
            ends.clear();
            encoder
                .encode_rows(rows.rows(), 0..rows.num_rows(), &mut out, &mut ends)
                .expect("same columns");
        });
    }
}
