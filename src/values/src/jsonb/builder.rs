//! Making a value piece by piece, the keys of an object in any order.
//!
//! The pieces are appended to one buffer as they come. Where an object closes and its keys came
//! neither sorted nor once each, its pairs are put in order: one more copy of the object. Where a
//! container closes with more elements than one byte counts, its contents move by the bytes of the
//! count.
//!
//! The encoding has no room for the character U+0000, and PostgreSQL's text has none either: a
//! string with one is refused (22021).

use std::mem;

use tidemark_common::error::{Error, Result, SqlState};

use super::format;
use super::number::{self, Literal};
use super::value::Value;

/// Makes values. Cleared by [`Builder::finish_to`], it makes the next one without allocating; after
/// an error it is to be cleared by [`Builder::clear`]. Calls out of order (a value without its key,
/// an end without its beginning) are bugs and panic.
///
/// ```
/// use tidemark_values::jsonb::{Builder, Value};
/// let mut builder = Builder::new();
/// builder.begin_object();
/// builder.key("n")?;
/// builder.number_text("1.50")?;
/// builder.end_object()?;
/// assert_eq!(Value::new(&builder.finish()).to_string(), r#"{"n": 1.50}"#);
/// # Ok::<(), tidemark_common::error::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    key: Vec<u8>,
    scales: Vec<(usize, u32)>,
    open: Vec<Open>,
    pairs: Vec<Pair>,
    scratch: Vec<u8>,
}

/// A container that is not closed yet.
#[derive(Debug)]
struct Open {
    at: usize,
    object: bool,
    count: usize,
    pairs: usize,
    scales: usize,
}

/// Where a pair's key begins, and its value.
#[derive(Clone, Copy, Debug)]
struct Pair {
    at: usize,
    value: usize,
}

impl Builder {
    /// An empty builder.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// How many containers are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Drops everything that was begun.
    pub fn clear(&mut self) {
        self.key.clear();
        self.scales.clear();
        self.open.clear();
        self.pairs.clear();
    }

    /// Counts a value that begins at the end of the buffer.
    fn place(&mut self) {
        let at = self.key.len();
        match self.open.last_mut() {
            None => assert!(at == 0, "a jsonb value has one root"),
            Some(open) if open.object => {
                let pair = self.pairs.last().filter(|p| p.value == at);
                assert!(pair.is_some(), "a value in an object follows its key");
            }
            Some(open) => open.count += 1,
        }
    }

    /// JSON `null`.
    pub fn null(&mut self) {
        self.place();
        self.key.push(format::NULL);
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.place();
        self.key
            .push(if value { format::TRUE } else { format::FALSE });
    }

    /// A string. Error 22021 where it has the character U+0000.
    pub fn string(&mut self, text: &str) -> Result<()> {
        refuse_zero(text)?;
        self.place();
        self.push_string(text);
        Ok(())
    }

    fn push_string(&mut self, text: &str) {
        self.key.push(format::STRING);
        self.key.extend_from_slice(text.as_bytes());
        self.key.push(0);
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.place();
        self.key.push(format::NUMBER);
        number::encode_integer(&mut self.key, value);
    }

    /// A number from its decimal text, with its scale: `1.50`, `-3`, `1e-7`; `NaN` and the
    /// infinities become strings, as `to_jsonb(numeric)` makes them. Error 22P02 of other text,
    /// 22003 beyond the limits of `numeric`.
    pub fn number_text(&mut self, text: &str) -> Result<()> {
        if matches!(text, "NaN" | "Infinity" | "-Infinity") {
            return self.string(text);
        }
        let Some(literal) = Literal::read(text) else {
            let message = format!("invalid input syntax for type numeric: \"{text}\"");
            return Err(Error::user(SqlState::INVALID_TEXT, message));
        };
        let at = self.key.len();
        self.place();
        self.key.push(format::NUMBER);
        let extra = literal.encode(&mut self.key)?;
        if extra > 0 {
            self.scales.push((at, extra));
        }
        Ok(())
    }

    /// The number `unscaled * 10^-scale`, shown with `scale` digits after the point (none where it
    /// is negative). Error 22003 beyond the limits of `numeric`.
    pub fn decimal(&mut self, unscaled: i128, scale: i32) -> Result<()> {
        self.number_text(&format!("{unscaled}e{}", -i64::from(scale)))
    }

    /// A double precision number as `float8out` shows it; `NaN` and the infinities become strings.
    pub fn double(&mut self, value: f64) -> Result<()> {
        match float_name(value) {
            Some(name) => self.string(name),
            None => self.number_text(&number::shortest(value)),
        }
    }

    /// A `real` as `float4out` shows it; `NaN` and the infinities become strings.
    pub fn real(&mut self, value: f32) -> Result<()> {
        match float_name(f64::from(value)) {
            Some(name) => self.string(name),
            None => self.number_text(&number::shortest(value)),
        }
    }

    /// An encoded value, or one from inside another.
    pub fn value(&mut self, value: Value<'_>) -> Result<()> {
        self.copy(value)?;
        Ok(())
    }

    /// [`Builder::value`]; returns where the value ends in its own key.
    pub(super) fn copy(&mut self, value: Value<'_>) -> Result<usize> {
        let span = value.span()?;
        self.place();
        let start = self.key.len();
        match span {
            [format::EMPTY_TOP] => self.key.extend_from_slice(&[format::ARRAY, 0]),
            _ => self.key.extend_from_slice(span),
        }
        let mut scales = value.scales;
        scales.advance(value.at);
        while let Some((at, extra)) = scales.next_before(value.at + span.len()) {
            self.scales.push((at - value.at + start, extra));
        }
        Ok(value.at + span.len())
    }

    /// Opens an array.
    pub fn begin_array(&mut self) {
        self.begin(format::ARRAY);
    }

    /// Opens an object.
    pub fn begin_object(&mut self) {
        self.begin(format::OBJECT);
    }

    fn begin(&mut self, tag: u8) {
        self.place();
        let at = self.key.len();
        self.key.extend_from_slice(&[tag, 0]);
        self.open.push(Open {
            at,
            object: tag == format::OBJECT,
            count: 0,
            pairs: self.pairs.len(),
            scales: self.scales.len(),
        });
    }

    /// The key of the next pair. Error 22021 where it has the character U+0000.
    pub fn key(&mut self, key: &str) -> Result<()> {
        refuse_zero(key)?;
        let in_object = self.open.last().is_some_and(|open| open.object);
        assert!(in_object, "a key stands in an object");
        let at = self.key.len();
        self.push_string(key);
        self.pairs.push(Pair {
            at,
            value: self.key.len(),
        });
        Ok(())
    }

    /// Closes the array. Error 54000 where it has more than 2^32 - 1 elements.
    pub fn end_array(&mut self) -> Result<()> {
        let open = self.open.pop().filter(|open| !open.object);
        let Some(open) = open else {
            panic!("an array is open where one closes");
        };
        self.write_count(&open, open.count)
    }

    /// Closes the object; of pairs with the same key the last one stays. Error 54000 where it has
    /// more than 2^32 - 1 pairs.
    pub fn end_object(&mut self) -> Result<()> {
        let open = self.open.pop().filter(|open| open.object);
        let Some(open) = open else {
            panic!("an object is open where one closes");
        };
        let mut pairs = self.pairs.split_off(open.pairs);
        assert!(
            pairs.last().is_none_or(|pair| pair.value < self.key.len()),
            "a key is followed by its value"
        );
        if !pairs.is_sorted_by(|a, b| self.sort_key(a) < self.sort_key(b)) {
            self.sort_pairs(&open, &mut pairs);
        }
        self.write_count(&open, pairs.len())
    }

    fn sort_key(&self, pair: &Pair) -> (usize, &[u8]) {
        let name = &self.key[pair.at..pair.value];
        (name.len(), name)
    }

    /// Puts the pairs of the last container in storage order, each key once.
    fn sort_pairs(&mut self, open: &Open, pairs: &mut Vec<Pair>) {
        let base = open.at + 2;
        let mut ends: Vec<usize> = pairs.iter().skip(1).map(|pair| pair.at).collect();
        ends.push(self.key.len());
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by(|&a, &b| {
            self.sort_key(&pairs[a])
                .cmp(&self.sort_key(&pairs[b]))
                .then(b.cmp(&a))
        });
        order.dedup_by(|a, b| self.sort_key(&pairs[*a]) == self.sort_key(&pairs[*b]));

        let old_scales = self.scales.split_off(open.scales);
        let mut scratch = mem::take(&mut self.scratch);
        scratch.clear();
        for &i in &order {
            let (from, to) = (pairs[i].at, ends[i]);
            let moved = base + scratch.len();
            let first = old_scales.partition_point(|&(at, _)| at < from);
            let in_pair = old_scales[first..].iter().take_while(|&&(at, _)| at < to);
            self.scales
                .extend(in_pair.map(|&(at, extra)| (at - from + moved, extra)));
            scratch.extend_from_slice(&self.key[from..to]);
        }
        self.key.truncate(base);
        self.key.extend_from_slice(&scratch);
        self.scratch = scratch;
        pairs.truncate(order.len());
    }

    /// Writes the count of the last container, moving its contents where it takes more room.
    fn write_count(&mut self, open: &Open, count: usize) -> Result<()> {
        let (length, bytes) = format::count_bytes(count)?;
        let at = open.at + 1;
        if length == 1 {
            self.key[at] = bytes[0];
            return Ok(());
        }
        self.key.splice(at..at + 1, bytes[..length].iter().copied());
        self.scales[open.scales..]
            .iter_mut()
            .for_each(|(at, _)| *at += length - 1);
        Ok(())
    }

    /// Appends the finished value to `out` and begins anew.
    pub fn finish_to(&mut self, out: &mut Vec<u8>) {
        assert!(
            self.open.is_empty() && !self.key.is_empty(),
            "a jsonb value is complete"
        );
        match self.key[..] {
            [format::ARRAY, 0] => out.push(format::EMPTY_TOP),
            _ => out.extend_from_slice(&self.key),
        }
        format::write_tail(out, self.scales.iter().copied());
        self.clear();
    }

    /// The finished value; the builder begins anew.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + 2 * self.scales.len() + 1);
        self.finish_to(&mut out);
        out
    }
}

/// The name of a float that is not a number of JSON.
fn float_name(value: f64) -> Option<&'static str> {
    match value {
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => value.is_nan().then_some("NaN"),
    }
}

fn refuse_zero(text: &str) -> Result<()> {
    if text.as_bytes().contains(&0) {
        let message = "invalid byte sequence for encoding \"UTF8\": 0x00";
        return Err(Error::user(SqlState("22021"), message));
    }
    Ok(())
}
