//! Random values against a model that compares and merges naively, damaged bytes, and limits.
//! PostgreSQL's own answers are replayed by `tests/jsonb_postgres.rs`.

use std::cmp::Ordering::{self, Equal};

use tidemark_common::error::Result;

use super::*;
use tidemark_common::random::Random;

/// A value as PostgreSQL sees it. Objects hold their pairs as they were written.
#[derive(Clone, Debug)]
enum Model {
    Null,
    String(String),
    /// `unscaled * 10^-scale`
    Number(i64, u32),
    Bool(bool),
    Array(Vec<Model>),
    Object(Vec<(String, Model)>),
}

fn string(random: &mut Random) -> String {
    let length = *random.pick(&[0, 1, 1, 2, 3, 7]);
    (0..length)
        .map(|_| *random.pick(&['a', 'b', '\u{1}', '"', '\\', 'é', '\u{10FFFF}']))
        .collect()
}

fn model(random: &mut Random, depth: usize) -> Model {
    let length = *random.pick(&[0, 1, 1, 2, 3]);
    match random.below(if depth > 0 { 8 } else { 5 }) {
        0 => Model::Null,
        1 => Model::Bool(random.below(2) == 1),
        2 => Model::String(string(random)),
        3 => Model::Number(random.below(41) as i64 - 20, random.below(4) as u32),
        4 => {
            let unscaled = random.below(usize::MAX) as i64 >> random.below(60);
            Model::Number(
                if random.below(2) == 0 {
                    unscaled
                } else {
                    -unscaled
                },
                0,
            )
        }
        5 | 6 => Model::Array((0..length).map(|_| model(random, depth - 1)).collect()),
        _ => {
            let pair = |_| (string(random), model(random, depth - 1));
            Model::Object((0..length).map(pair).collect())
        }
    }
}

impl Model {
    /// The pairs of an object in storage order.
    fn stored(pairs: &[(String, Model)]) -> Vec<&(String, Model)> {
        let mut stored: Vec<&(String, Model)> = Vec::new();
        for pair in pairs {
            stored.retain(|other| other.0 != pair.0);
            stored.push(pair);
        }
        stored.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then(a.cmp(b)));
        stored
    }

    fn rank(&self) -> usize {
        match self {
            Model::Null => 0,
            Model::String(_) => 1,
            Model::Number(..) => 2,
            Model::Bool(_) => 3,
            Model::Array(_) => 4,
            Model::Object(_) => 5,
        }
    }

    /// PostgreSQL's order inside a container.
    fn cmp(&self, other: &Model) -> Ordering {
        match (self, other) {
            (Model::String(a), Model::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Model::Bool(a), Model::Bool(b)) => a.cmp(b),
            (Model::Number(a, s), Model::Number(b, t)) => {
                let scaled = |n: i64, scale: u32| i128::from(n) * 10i128.pow(4 - scale);
                scaled(*a, *s).cmp(&scaled(*b, *t))
            }
            (Model::Array(a), Model::Array(b)) => {
                let elements = || a.iter().zip(b).map(|(a, b)| a.cmp(b));
                a.len()
                    .cmp(&b.len())
                    .then_with(|| elements().find(|o| o.is_ne()).unwrap_or(Equal))
            }
            (Model::Object(a), Model::Object(b)) => {
                let (a, b) = (Model::stored(a), Model::stored(b));
                let pair = |((ka, va), (kb, vb)): (&(String, Model), &(String, Model))| {
                    ka.as_bytes().cmp(kb.as_bytes()).then_with(|| va.cmp(vb))
                };
                let pairs = || a.iter().copied().zip(b.iter().copied()).map(pair);
                a.len()
                    .cmp(&b.len())
                    .then_with(|| pairs().find(|o| o.is_ne()).unwrap_or(Equal))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// PostgreSQL's order of whole values: a scalar is an array of one, smaller than real ones.
    fn cmp_top(&self, other: &Model) -> Ordering {
        let shape = |model: &Model| match model {
            Model::Object(_) => (1, 0, false),
            Model::Array(elements) => (0, elements.len(), true),
            _ => (0, 1, false),
        };
        shape(self).cmp(&shape(other)).then_with(|| self.cmp(other))
    }

    fn print(&self, out: &mut String) {
        match self {
            Model::Null => out.push_str("null"),
            Model::Bool(value) => out.push_str(&value.to_string()),
            Model::String(text) => print::escape(out, text),
            Model::Number(unscaled, scale) => out.push_str(&format!("{unscaled}e-{scale}")),
            Model::Array(elements) => {
                out.push('[');
                for (i, element) in elements.iter().enumerate() {
                    out.push_str(if i > 0 { " , " } else { " " });
                    element.print(out);
                }
                out.push(']');
            }
            Model::Object(pairs) => {
                out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    print::escape(out, key);
                    out.push(':');
                    value.print(out);
                }
                out.push('}');
            }
        }
    }

    fn build(&self, builder: &mut Builder) -> Result<()> {
        match self {
            Model::Null => builder.null(),
            Model::Bool(value) => builder.bool(*value),
            Model::String(text) => builder.string(text)?,
            Model::Number(unscaled, 0) => builder.integer(*unscaled),
            Model::Number(unscaled, scale) => {
                builder.decimal(i128::from(*unscaled), *scale as i32)?;
            }
            Model::Array(elements) => {
                builder.begin_array();
                elements
                    .iter()
                    .try_for_each(|element| element.build(builder))?;
                builder.end_array()?;
            }
            Model::Object(pairs) => {
                builder.begin_object();
                for (key, value) in pairs {
                    builder.key(key)?;
                    // By way of its own encoding.
                    let mut inner = Builder::new();
                    value.build(&mut inner)?;
                    builder.value(Value::new(&inner.finish()))?;
                }
                builder.end_object()?;
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.print(&mut out);
        out
    }
}

fn printed(bytes: &[u8]) -> Result<String> {
    let mut out = String::new();
    Value::new(bytes).print(&mut out)?;
    Ok(out)
}

#[test]
fn the_key_orders_as_the_model() -> Result<()> {
    let mut random = Random(7);
    let mut models: Vec<Model> = (0..500).map(|i| model(&mut random, i % 4)).collect();
    models.extend([Model::Array(vec![]), Model::Object(vec![]), Model::Null]);
    let values = models
        .iter()
        .map(|m| parse(&m.text()))
        .collect::<Result<Vec<_>>>()?;
    for (a, a_bytes) in models.iter().zip(&values) {
        for (b, b_bytes) in models.iter().zip(&values) {
            let order = a.cmp_top(b);
            assert_eq!(
                compare(a_bytes, b_bytes),
                order,
                "{} and {}",
                a.text(),
                b.text()
            );
            if order.is_ne() {
                assert_eq!(a_bytes.cmp(b_bytes), order, "whole values");
                assert!(
                    !key_of(a_bytes).starts_with(key_of(b_bytes)),
                    "no key begins another"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn printing_parsing_and_building_agree() -> Result<()> {
    let mut random = Random(11);
    for i in 0..5_000 {
        let model = model(&mut random, i % 5);
        let value = parse(&model.text())?;
        let text = printed(&value)?;
        assert_eq!(parse(&text)?, value, "{text}");
        let mut pretty = String::new();
        Value::new(&value).pretty(&mut pretty)?;
        assert_eq!(parse(&pretty)?, value, "{pretty}");
        validate(&pretty)?;
        let mut builder = Builder::new();
        model.build(&mut builder)?;
        assert_eq!(builder.finish(), value, "{text}");
        assert_eq!(
            format::skip(key_of(&value), 0)?,
            key_of(&value).len(),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn taking_out_and_putting_in_are_inverse() -> Result<()> {
    let mut random = Random(13);
    for _ in 0..2_000 {
        let value = parse(&model(&mut random, 4).text())?;
        let value = Value::new(&value);
        let mut builder = Builder::new();
        match value.kind()? {
            Kind::Array => {
                builder.begin_array();
                for i in 0..value.array_length()? {
                    let element = value.index(i as i64)?.map(|v| v.to_vec()).transpose()?;
                    builder.value(Value::new(&element.unwrap_or_default()))?;
                }
                builder.end_array()?;
            }
            Kind::Object => {
                builder.begin_object();
                let mut pairs = value.pairs()?.collect::<Result<Vec<_>>>()?;
                pairs.reverse();
                for (key, inner) in pairs {
                    let found = value.get(key)?.map(|v| v.to_vec()).transpose()?;
                    assert_eq!(found, Some(inner.to_vec()?));
                    builder.key(key)?;
                    builder.value(Value::new(&inner.to_vec()?))?;
                }
                builder.end_object()?;
            }
            _ => continue,
        }
        assert_eq!(builder.finish(), value.to_vec()?, "{value}");
        assert!(contains(value, value)?);
    }
    Ok(())
}

/// Calls everything that reads; what comes of it does not matter.
fn read_all(bytes: &[u8], other: &[u8]) {
    let (value, other) = (Value::new(bytes), Value::new(other));
    let mut out = String::new();
    let _ = value.print(&mut out);
    let _ = value.pretty(&mut out);
    let _ = value.to_text();
    let _ = value.to_vec();
    let _ = value.get("a");
    for i in [0, 1, -1] {
        let _ = value.index(i).map(|v| v.map(|v| v.to_vec()));
    }
    let path = [Some("a"), Some("0")];
    let _ = value.path(&path).map(|v| v.map(|v| v.to_text()));
    let _ = value
        .elements()
        .map(|e| e.map(|e| e?.to_vec()).collect::<Result<Vec<_>>>());
    let _ = value
        .pairs()
        .map(|p| p.map(|p| p?.1.to_vec()).collect::<Result<Vec<_>>>());
    let _ = value.to_number_text("numeric");
    let _ = (
        exists(value, "a"),
        contains(value, other),
        contains(other, value),
    );
    let _ = (
        concat(value, other),
        concat(other, value),
        strip_nulls(value),
    );
    let _ = (
        delete_key(value, "a"),
        delete_index(value, 1),
        delete_path(value, &path),
    );
    let _ = (
        set(value, &path, other, true),
        insert(other, &path, value, true),
    );
    let mut builder = Builder::new();
    builder.begin_object();
    for key in ["b", "a"] {
        let _ = builder.key(key);
        if builder.value(value).is_err() {
            return;
        }
    }
    let _ = builder.end_object();
    let _ = printed(&builder.finish());
}

#[test]
fn damaged_bytes_do_not_panic() -> Result<()> {
    let mut random = Random(17);
    for i in 0..3_000 {
        let mut bytes = parse(&model(&mut random, i % 5).text())?;
        let other = parse(&model(&mut random, 2).text())?;
        match random.below(3) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            _ => {
                for _ in 0..=random.below(3) {
                    let at = random.below(bytes.len());
                    bytes[at] =
                        *random.pick(&[0, 1, 3, 4, 7, 8, 0x0A, 0x80, 0x90, 0xE0, 0xFA, 0xFF]);
                }
            }
        }
        read_all(&bytes, &other);
        let noise: Vec<u8> = (0..random.below(30))
            .map(|_| random.below(256) as u8)
            .collect();
        read_all(&noise, &other);
    }
    Ok(())
}

#[test]
fn counts_and_tails_of_every_length() -> Result<()> {
    for n in [0usize, 1, 247, 248, 249, 255, 256, 257, 65_536] {
        let numbers: Vec<String> = (0..n).map(|i| format!("{i}.50")).collect();
        let array = format!("[{}]", numbers.join(", "));
        let value = parse(&array)?;
        assert_eq!(printed(&value)?, array);
        let last = Value::new(&value)
            .index(-1)?
            .map(|v| v.to_vec())
            .transpose()?;
        assert_eq!(
            last.map(|v| printed(&v)).transpose()?.as_ref(),
            numbers.last()
        );
        // Unsorted, with a nested array behind each, and one key that comes twice.
        let pairs = (0..n)
            .rev()
            .chain(n.checked_sub(1))
            .map(|i| format!("\"{i:06}\":[{i}.0]"));
        let object = format!("{{{}}}", pairs.collect::<Vec<_>>().join(","));
        let sorted: Vec<String> = (0..n).map(|i| format!("\"{i:06}\": [{i}.0]")).collect();
        assert_eq!(
            printed(&parse(&object)?)?,
            format!("{{{}}}", sorted.join(", "))
        );
    }
    Ok(())
}

#[test]
fn nesting_has_a_limit_in_text_and_none_in_values() -> Result<()> {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert_eq!(printed(&parse(&nested(DEPTH_MAX))?)?, nested(DEPTH_MAX));
    for text in [
        nested(DEPTH_MAX + 1),
        nested(100_000),
        "{\"a\":".repeat(100_000),
    ] {
        for error in [parse(&text).err(), validate(&text).err()] {
            let error = error.map(|e| (e.state().0, e.message().to_owned()));
            assert_eq!(
                error,
                Some(("54001", "stack depth limit exceeded".to_owned()))
            );
        }
    }

    let mut builder = Builder::new();
    (0..100_000).for_each(|_| builder.begin_array());
    builder.null();
    (0..100_000).try_for_each(|_| builder.end_array())?;
    let deep = builder.finish();
    let value = Value::new(&deep);
    assert_eq!(printed(&deep)?.len(), 200_004);
    assert!(contains(value, value)?);
    assert_eq!(strip_nulls(value)?, deep);
    let path: Vec<Option<&str>> = vec![Some("0"); 100_000];
    assert_eq!(
        value.path(&path[..1_000])?.map(|v| v.kind()).transpose()?,
        Some(Kind::Array)
    );
    assert_eq!(delete_path(value, &path[..1_000])?.len(), 2 * 1_000 + 1);
    assert_eq!(concat(value, value)?.len(), 2 * (deep.len() - 1) - 1);
    Ok(())
}

#[test]
fn text_with_a_zero_is_refused() {
    let mut builder = Builder::new();
    let error = builder.string("a\0b").err().map(|e| e.state().0);
    assert_eq!(error, Some("22021"));
    builder.clear();
    builder.begin_object();
    assert!(builder.key("\0").is_err());
}
