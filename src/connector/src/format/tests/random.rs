//! The decoder against `serde_json` on random texts and on mutilated ones.
//!
//! The decoder is one and the same over all records of a run, so that the shape remembered from one
//! record meets every other. Shapes of trouble that this is meant to find: a member accepted by its
//! bytes that a parse reads differently, a value left behind by a failed record, a read past the
//! end.

use super::*;
use serde_json::{Map, Number, Value};
use tidemark_common::random as common;
use tidemark_values::jsonb;

/// Values of a seed.
pub(super) struct Random(common::Random);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(common::Random(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.below_u64(limit)
    }

    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        self.0.pick(list)
    }

    /// A text of up to 40 characters, some of which want escapes.
    pub fn text(&mut self) -> String {
        let length = self.below(40);
        (0..length)
            .map(|_| match self.below(40) {
                0 => '"',
                1 => '\\',
                2 => '\n',
                3 => '\u{1f}',
                4 => 'é',
                5 => '😀',
                6 => '\u{7f}',
                7 => '/',
                _ => char::from(b'a' + self.below(26) as u8),
            })
            .collect()
    }

    fn number(&mut self) -> Number {
        match self.below(4) {
            0 => Number::from(self.next() as i64 >> self.below(64)),
            1 => Number::from(self.next()),
            2 => Number::from_f64(self.below(1_000_000) as f64 / 64.0).unwrap(),
            _ => Number::from_f64(f64::from_bits(self.next())).unwrap_or_else(|| 0.into()),
        }
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => Value::Bool(self.below(2) == 0),
            2 => Value::Number(self.number()),
            3 | 4 => Value::String(self.text()),
            5 => Value::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => Value::Object(
                (0..self.below(4))
                    .map(|_| (self.text(), self.value(depth - 1)))
                    .collect(),
            ),
        }
    }

    fn blanks(&mut self, out: &mut String) {
        while self.below(12) == 0 {
            out.push([' ', '\n', '\t', '\r'][self.below(4) as usize]);
        }
    }

    /// Writes a string with escapes chosen at random.
    fn write_string(&mut self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                _ if self.below(20) == 0 => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .for_each(|unit| out.push_str(&format!("\\u{unit:04X}"))),
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\0'..'\u{20}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                '/' if self.below(2) == 0 => out.push_str("\\/"),
                _ => out.push(c),
            }
        }
        out.push('"');
    }

    fn write(&mut self, value: &Value, out: &mut String) {
        match value {
            Value::String(text) => self.write_string(text, out),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    self.blanks(out);
                    self.write(item, out);
                    self.blanks(out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                let members: Vec<(String, Value)> = members
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect();
                self.write_members(&members, out);
            }
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn write_members(&mut self, members: &[(String, Value)], out: &mut String) {
        out.push('{');
        for (i, (name, value)) in members.iter().enumerate() {
            out.push_str(if i > 0 { "," } else { "" });
            self.blanks(out);
            self.write_string(name, out);
            self.blanks(out);
            out.push(':');
            self.blanks(out);
            self.write(value, out);
            self.blanks(out);
        }
        out.push('}');
    }

    /// A record: mostly the known members in their order, sometimes fewer, more, repeated or
    /// shuffled.
    fn record(&mut self) -> String {
        let mut members = Vec::new();
        for name in NAMES {
            if self.below(10) > 0 {
                members.push((name.to_owned(), self.value(3)));
            }
        }
        if self.below(4) == 0 {
            members.push((self.text(), self.value(2)));
        }
        if self.below(6) == 0 {
            let (a, b) = (self.below(7) as usize, self.below(7) as usize);
            if a < members.len() && b < members.len() {
                members.swap(a, b);
                let again = (members[a].0.clone(), self.value(1));
                members.push(again);
            }
        }
        let mut out = String::new();
        self.blanks(&mut out);
        self.write_members(&members, &mut out);
        self.blanks(&mut out);
        out
    }
}

const NAMES: [&str; 6] = ["auction", "bidder", "price_of_the_bid", "a", "url", "extra"];

fn json_columns() -> Vec<Column> {
    NAMES.iter().map(|name| column(name, "jsonb")).collect()
}

fn shown_nul(record: &[u8]) -> bool {
    record.windows(6).any(|w| w == br"\u0000")
}

/// What `serde_json` makes of a record; `None` where the two may differ (a number beyond a double).
fn reference(record: &[u8]) -> Option<Result<Map<String, Value>, String>> {
    match serde_json::from_slice::<Value>(record) {
        // Neither text nor JSONB has this character.
        Ok(_) if shown_nul(record) => None,
        Ok(Value::Object(members)) => Some(Ok(members)),
        Ok(_) => Some(Err("no object".into())),
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Decodes one record with all and with two columns, and compares with the reference.
fn compare(whole: &mut RecordDecoder, part: &mut RecordDecoder, record: &[u8]) {
    let shown = String::from_utf8_lossy(record);
    for decoder in [&mut *whole, &mut *part] {
        decoder.push(&RawRecord {
            value: Some(record),
            ..RawRecord::default()
        });
    }
    let ((rows, errors), (part_rows, part_errors)) = (whole.finish(), part.finish());
    assert_eq!(rows.num_rows() + errors.len(), 1, "{shown}");
    if part_errors.len() != errors.len() {
        let of_value = |e: &RecordError| ["22003", "22P05"].contains(&e.state.0);
        assert!(
            errors.iter().all(of_value),
            "columns decide on the form of {shown}: {errors:?}"
        );
        return;
    }
    let Some(expected) = reference(record) else {
        return;
    };
    let Ok(expected) = expected else {
        assert_eq!(
            errors.len(),
            1,
            "serde_json refuses {shown}: {}",
            expected.unwrap_err()
        );
        return;
    };
    assert_eq!(
        errors.len(),
        0,
        "serde_json accepts {shown}, not we: {errors:?}"
    );
    let value = |rows: &ChangeBatch, i: usize| {
        let column = rows.column(i);
        column.is_valid(0).then(|| match column.data_type() {
            DataType::BinaryView => {
                let mut text = String::new();
                jsonb::Value::new(column.as_binary_view().value(0))
                    .print(&mut text)
                    .unwrap();
                text
            }
            _ => column.as_string::<i32>().value(0).to_owned(),
        })
    };
    for (i, name) in NAMES.iter().enumerate() {
        if !expected.contains_key(*name) && expected.keys().any(|key| key.to_lowercase() == *name) {
            continue;
        }
        let actual =
            value(&rows, i).map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        let wanted = expected.get(*name).unwrap_or(&Value::Null);
        assert!(
            same(&actual, wanted),
            "{name} of {shown}: {actual} for {wanted}"
        );
    }
    // The second decoder reads `url` as VARCHAR and `a` as BIGINT where that is possible.
    let parsed = |text: &String| serde_json::from_str::<Value>(text).unwrap();
    let agree = match (value(&part_rows, 0), value(&rows, 4)) {
        (None, None) => true,
        (Some(part), Some(whole)) => match parsed(&whole) {
            Value::String(text) => part == text,
            other => same(&parsed(&part), &other),
        },
        _ => false,
    };
    assert!(agree, "url of {shown}");
}

/// Whether two values are the same; numbers may differ in the last digit of a double, because
/// JSONB writes all digits of them.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= a.abs() * 1e-15
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let member = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(member)
        }
        (a, b) => a == b,
    }
}

fn decoders() -> (RecordDecoder, RecordDecoder) {
    let columns = json_columns();
    let mut typed = columns.clone();
    typed[4] = column("url", "varchar");
    (
        plain(&columns),
        RecordDecoder::new(&spec(Format::Plain, Encode::Json, &[]), &typed, &[4, 3]).unwrap(),
    )
}

#[test]
fn random_records_agree_with_serde_json() {
    let (mut whole, mut part) = decoders();
    let mut random = Random::new(1);
    for _ in 0..30_000 {
        let record = random.record();
        compare(&mut whole, &mut part, record.as_bytes());
    }
}

#[test]
fn mutilated_records_agree_with_serde_json() {
    let (mut whole, mut part) = decoders();
    let mut random = Random::new(2);
    let mut records: Vec<Vec<u8>> = (0..200).map(|_| random.record().into_bytes()).collect();
    records.push(b"{}".to_vec());
    records.push(
        br#"{"a":-0.5e+10,"url":"\u00e9\ud83d\ude00","extra":[true,false,null,{}]}"#.to_vec(),
    );
    for _ in 0..120_000 {
        let mut record = records[random.below(records.len() as u64) as usize].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(record.len().max(1) as u64) as usize;
            match random.below(6) {
                0 => record.truncate(at),
                1 if at < record.len() => drop(record.remove(at)),
                2 if at < record.len() => record[at] = random.next() as u8,
                3 if at < record.len() => record[at] ^= 1 << random.below(8),
                _ => record.insert(
                    at.min(record.len()),
                    *random.of(b"{}[]\",:\\u0123456789.eE+-truefalsn \n\x00\x1f\xc3\xff"),
                ),
            }
        }
        // \u0000 is well-formed JSON that a text cannot hold.
        if !record.windows(6).any(|w| w == b"\\u0000") {
            compare(&mut whole, &mut part, &record);
        }
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let columns = columns(&[
        ("a", "bigint"),
        ("b", "timestamp"),
        ("c", "numeric(10,2)"),
        ("d", "double"),
        ("e", "uuid"),
        ("f", "bytea"),
        ("g", "date"),
        ("h", "time"),
        ("i", "varchar(5)"),
        ("j", "timestamptz"),
    ]);
    let samples = [
        r#"{"a":123456789,"b":"2025-01-01 00:00:00.123456+02:00","c":"123.455","d":-1.5e-7,"e":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}"#,
        r#"{"f":"\\x00ff","g":"2025-01-31","h":"01:02:03.5","i":"abc","j":"2025-01-01T12:34:56.5-0530"}"#,
        r#"{"a":"-9223372036854775808","b":-99999999999999999,"c":1e-99,"g":-5,"h":5,"j":"0001-01-01 00:00:00 BC"}"#,
        r#"{"schema":{},"payload":{"before":{"a":1},"after":{"a":2,"b":3},"op":"d"}}"#,
    ];
    let mut random = Random::new(5);
    let decoder = |format, key: &[usize]| {
        RecordDecoder::new(&spec(format, Encode::Json, key), &columns, &all(&columns)).unwrap()
    };
    let mut decoders = [
        decoder(Format::Plain, &[]),
        decoder(Format::Upsert, &[0]),
        decoder(Format::Debezium, &[0, 1]),
    ];
    let mut accepted = 0;
    for _ in 0..100_000 {
        let mut record = samples[random.below(4) as usize].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(record.len().max(1) as u64) as usize;
            match random.below(4) {
                0 => record.truncate(at),
                1 => record.insert(at.min(record.len()), *random.of(b"0123456789-+:. TZ\"\\")),
                _ if at < record.len() => record[at] = *random.of(b"0123456789-+:. TZ\"\\"),
                _ => {}
            }
        }
        for decoder in &mut decoders {
            decoder.push(&RawRecord {
                key: Some(&record),
                value: Some(&record),
                ..RawRecord::default()
            });
            let (rows, errors) = decoder.finish();
            assert!(rows.num_rows() + errors.len() <= 1);
            accepted += rows.num_rows();
        }
    }
    assert!(accepted > 10_000, "{accepted} accepted");
}
