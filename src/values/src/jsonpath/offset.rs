//! Where PostgreSQL's encoding of a document has one of its objects: `.keyvalue()` tells objects
//! apart by that.
//!
//! A container there is a header of four bytes, four bytes for every element (or key, and value),
//! and the contents, an object's keys first. Numbers and containers begin at multiples of four; a
//! number has its length, its header (short for the usual scales) and two bytes for every four
//! digits, which are aligned to the point.

use crate::jsonb::{Kind, Value};
use tidemark_common::Result;

/// Where the containers of a document are.
pub(super) struct Offsets {
    /// Where the document begins in memory: tells it from others.
    of: *const u8,
    /// Where a container stands in our encoding, and where in PostgreSQL's; in order.
    places: Vec<(usize, i64)>,
}

impl Offsets {
    /// Goes through all of a document once.
    pub fn new(document: Value<'_>) -> Result<Offsets> {
        let mut offsets = Offsets {
            of: document.base(),
            places: Vec::new(),
        };
        // Containers within each other, each with the values that are left of it.
        let mut open = Vec::new();
        let (mut next, mut at) = (Some(document), 0);
        while let Some(value) = next {
            match value.kind()? {
                Kind::Null | Kind::Boolean => {}
                Kind::String => at += value.as_str()?.unwrap_or_default().len() as i64,
                Kind::Number => {
                    let number = value.to_number_text("numeric")?;
                    at = aligned(at) + numeric_size(&number);
                }
                Kind::Array | Kind::Object => {
                    at = aligned(at);
                    offsets.places.push((value.place(), at));
                    at += head_size(value)?;
                    open.push(children(value)?);
                }
            }
            next = loop {
                let Some(children) = open.last_mut() else {
                    break None;
                };
                match children.next() {
                    Some(child) => break Some(child?),
                    None => open.pop(),
                };
            };
        }
        Ok(offsets)
    }

    /// Whether these are of the document in which a value is.
    pub fn are_of(&self, value: Value<'_>) -> bool {
        self.of == value.base()
    }

    /// How many bytes a container is behind the beginning; 0 of what is none of the document.
    pub fn of(&self, container: Value<'_>) -> i64 {
        let place = container.place();
        let found = self
            .places
            .binary_search_by_key(&place, |(place, _)| *place);
        found.map_or(0, |i| self.places[i].1)
    }
}

fn aligned(size: i64) -> i64 {
    (size + 3) & !3
}

fn children<'a>(of: Value<'a>) -> Result<impl Iterator<Item = Result<Value<'a>>>> {
    let pairs = of.pairs()?.map(|pair| pair.map(|(_, value)| value));
    Ok(of.elements()?.chain(pairs))
}

/// The bytes of a container without its values.
fn head_size(container: Value<'_>) -> Result<i64> {
    let mut size = 4;
    for element in container.elements()? {
        element?;
        size += 4;
    }
    for pair in container.pairs()? {
        size += 8 + pair?.0.len() as i64;
    }
    Ok(size)
}

/// The bytes of a number, with their length, from its text.
fn numeric_size(text: &str) -> i64 {
    let text = text.trim_start_matches('-');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole_groups = whole.len().div_ceil(4) as i64;
    let pad = whole_groups as usize * 4 - whole.len();
    let mut all = "0".repeat(pad) + whole + fraction;
    all += &"0".repeat(fraction.len().next_multiple_of(4) - fraction.len());
    let is_zero = |group: &[u8]| group.iter().all(|d| *d == b'0');
    let groups: Vec<&[u8]> = all.as_bytes().chunks(4).collect();
    let Some(first) = groups.iter().position(|g| !is_zero(g)) else {
        return if fraction.len() <= 63 { 6 } else { 8 };
    };
    let last = groups.iter().rposition(|g| !is_zero(g)).unwrap_or(first);
    let weight = whole_groups - 1 - first as i64;
    let short = fraction.len() <= 63 && (-64..=63).contains(&weight);
    (if short { 6 } else { 8 }) + 2 * (last - first + 1) as i64
}
