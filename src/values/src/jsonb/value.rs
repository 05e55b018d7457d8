//! Reading a value in place: what it is, what is in it, and what it is as another type.
//!
//! A [`Value`] is a place in encoded bytes and costs nothing to make or copy, so that a chain such
//! as `v -> 'a' -> 0 ->> 'b'` copies only what it answers. Finding a key or an element takes time
//! in proportion to the bytes in front of it.

use std::fmt;

use tidemark_common::error::{Error, Result, SqlState};

use super::TextArray;
use super::format::{self, Scales, damaged};
use super::number;

/// What a value is, as `jsonb_typeof` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON `null`.
    Null,
    /// A string.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Kind {
    /// The name that `jsonb_typeof` gives.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Array => "array",
            Kind::Object => "object",
        }
    }

    /// Whether it is neither an array nor an object.
    pub fn is_scalar(self) -> bool {
        !matches!(self, Kind::Array | Kind::Object)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value, or one inside another, where it stands in encoded bytes.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pub(super) key: &'a [u8],
    pub(super) at: usize,
    pub(super) scales: Scales<'a>,
    /// Where it ends; 0 where that is not known yet.
    end: usize,
}

impl<'a> Value<'a> {
    /// The value that `bytes` encode.
    pub fn new(bytes: &'a [u8]) -> Value<'a> {
        let (key, scales) = format::split(bytes);
        Value {
            key,
            at: 0,
            scales: Scales::new(scales),
            end: key.len(),
        }
    }

    /// Where it stands in the encoding that it is part of.
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    /// Where the encoding that it is part of begins in memory.
    pub(crate) fn base(&self) -> *const u8 {
        self.key.as_ptr()
    }

    fn beside(&self, at: usize) -> Value<'a> {
        Value {
            at,
            end: 0,
            ..*self
        }
    }

    pub(super) fn tag(&self) -> Result<u8> {
        format::tag(self.key, self.at)
    }

    /// The bytes of the key that are this value, as it stands inside another.
    pub(super) fn span(&self) -> Result<&'a [u8]> {
        let end = if self.end > 0 {
            self.end
        } else {
            format::skip(self.key, self.at)?
        };
        self.key.get(self.at..end).ok_or_else(damaged)
    }

    /// Appends the value's own encoding to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) -> Result<()> {
        let span = self.span()?;
        match span {
            [format::ARRAY, 0] => out.push(format::EMPTY_TOP),
            _ => out.extend_from_slice(span),
        }
        let mut scales = self.scales;
        scales.advance(self.at);
        let end = self.at + span.len();
        let entries = std::iter::from_fn(|| scales.next_before(end));
        format::write_tail(out, entries.map(|(at, extra)| (at - self.at, extra)));
        Ok(())
    }

    /// The value's own encoding.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.write_to(&mut out)?;
        Ok(out)
    }

    /// What it is.
    pub fn kind(&self) -> Result<Kind> {
        Ok(match self.tag()? {
            format::NULL => Kind::Null,
            format::STRING => Kind::String,
            format::NUMBER => Kind::Number,
            format::FALSE | format::TRUE => Kind::Boolean,
            format::ARRAY | format::EMPTY_TOP => Kind::Array,
            format::OBJECT => Kind::Object,
            _ => return Err(damaged()),
        })
    }

    /// How many elements or pairs it has; `None` of a scalar.
    pub(super) fn count(&self) -> Result<Option<(usize, usize)>> {
        match self.tag()? {
            format::EMPTY_TOP => Ok(Some((0, self.at + 1))),
            format::ARRAY | format::OBJECT => format::count(self.key, self.at + 1).map(Some),
            _ => Ok(None),
        }
    }

    /// `jsonb -> text`: the value of a key; `None` (SQL NULL) where there is none, and of anything
    /// that is not an object.
    pub fn get(&self, key: &str) -> Result<Option<Value<'a>>> {
        if self.tag()? != format::OBJECT {
            return Ok(None);
        }
        let (count, mut at) = format::count(self.key, self.at + 1)?;
        let sought = (key.len(), key.as_bytes());
        for _ in 0..count {
            let (name, value) = format::string_bytes(self.key, at)?;
            let name = (name.len(), name);
            if name == sought {
                return Ok(Some(self.beside(value)));
            }
            if name > sought {
                break;
            }
            at = format::skip(self.key, value)?;
        }
        Ok(None)
    }

    /// `jsonb -> integer`: an element, counted from 0, or from the end where negative; `None` (SQL
    /// NULL) beyond the array and of an object. As in PostgreSQL, a scalar at the top is an array
    /// of itself.
    pub fn index(&self, index: i64) -> Result<Option<Value<'a>>> {
        if self.kind()?.is_scalar() {
            return Ok(matches!(index, 0 | -1).then_some(*self));
        }
        self.element(index)
    }

    /// The element of an array; `None` of anything else.
    fn element(&self, index: i64) -> Result<Option<Value<'a>>> {
        if self.kind()? != Kind::Array {
            return Ok(None);
        }
        let Some((count, mut at)) = self.count()? else {
            return Ok(None);
        };
        let index = if index < 0 {
            index.saturating_add_unsigned(count as u64)
        } else {
            index
        };
        if !(0..count as i64).contains(&index) {
            return Ok(None);
        }
        for _ in 0..index {
            at = format::skip(self.key, at)?;
        }
        Ok(Some(self.beside(at)))
    }

    /// `jsonb #> text[]`: follows keys and indexes; `None` (SQL NULL) where the path leads nowhere
    /// or has a NULL in it.
    pub fn path(&self, path: &TextArray<'_>) -> Result<Option<Value<'a>>> {
        let mut value = *self;
        if path.contains(&None) {
            return Ok(None);
        }
        for step in path.iter().flatten() {
            let next = match value.kind()? {
                Kind::Object => value.get(step)?,
                Kind::Array => match parse_index(step) {
                    Some(index) => value.element(i64::from(index))?,
                    None => None,
                },
                _ => None,
            };
            match next {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    /// What `->>` and `#>>` make of an extracted value: a string without quotes, anything else as
    /// it prints; `None` (SQL NULL) of JSON `null`.
    pub fn to_text(&self) -> Result<Option<String>> {
        let mut out = String::new();
        Ok(self.text_to(&mut out)?.then_some(out))
    }

    /// [`Value::to_text`] appended to `out`; false (SQL NULL) of JSON `null`.
    pub fn text_to(&self, out: &mut String) -> Result<bool> {
        match self.tag()? {
            format::NULL => return Ok(false),
            format::STRING => out.push_str(format::string(self.key, self.at)?.0),
            _ => self.print(out)?,
        }
        Ok(true)
    }

    /// The string, of a string.
    pub fn as_str(&self) -> Result<Option<&'a str>> {
        match self.tag()? {
            format::STRING => Ok(Some(format::string(self.key, self.at)?.0)),
            _ => Ok(None),
        }
    }

    /// The elements of an array in order; none of anything else.
    pub fn elements(&self) -> Result<Elements<'a>> {
        let of = self
            .count()?
            .filter(|_| self.tag().is_ok_and(|t| t != format::OBJECT));
        let (remaining, at) = of.unwrap_or((0, self.at));
        Ok(Elements(Walk::new(self.beside(at), remaining)))
    }

    /// The pairs of an object in storage order; none of anything else.
    pub fn pairs(&self) -> Result<Pairs<'a>> {
        let of = self
            .count()?
            .filter(|_| self.tag().is_ok_and(|t| t == format::OBJECT));
        let (remaining, at) = of.unwrap_or((0, self.at));
        Ok(Pairs(Walk::new(self.beside(at), remaining)))
    }

    /// `jsonb_array_length`. Error 22023 of anything but an array.
    pub fn array_length(&self) -> Result<usize> {
        let refuse = |what| Err(invalid(format!("cannot get array length of a {what}")));
        match self.kind()? {
            Kind::Array => Ok(self.count()?.map_or(0, |(n, _)| n)),
            Kind::Object => refuse("non-array"),
            _ => refuse("scalar"),
        }
    }

    /// `jsonb_array_elements`. Error 22023 of anything but an array.
    pub fn array_elements(&self) -> Result<Elements<'a>> {
        match self.kind()? {
            Kind::Array => self.elements(),
            Kind::Object => Err(invalid("cannot extract elements from an object")),
            _ => Err(invalid("cannot extract elements from a scalar")),
        }
    }

    /// `jsonb_each` and `jsonb_each_text`, whichever `function` says. Error 22023 of anything but
    /// an object.
    pub fn each(&self, function: &str) -> Result<Pairs<'a>> {
        match self.kind()? {
            Kind::Object => self.pairs(),
            _ => Err(invalid(format!("cannot call {function} on a non-object"))),
        }
    }

    /// `jsonb_object_keys`. Error 22023 of anything but an object.
    pub fn object_keys(&self) -> Result<impl Iterator<Item = Result<&'a str>> + use<'a>> {
        match self.kind()? {
            Kind::Object => Ok(self.pairs()?.map(|pair| pair.map(|(key, _)| key))),
            Kind::Array => Err(invalid("cannot call jsonb_object_keys on an array")),
            _ => Err(invalid("cannot call jsonb_object_keys on a scalar")),
        }
    }

    /// `jsonb::boolean`. Error 22023 of any other kind.
    pub fn to_bool(&self) -> Result<bool> {
        match self.tag()? {
            format::FALSE => Ok(false),
            format::TRUE => Ok(true),
            _ => Err(cannot_cast(self.kind()?, "boolean")),
        }
    }

    /// The number as `numeric_out` prints it, with its scale, for a cast to the type that
    /// PostgreSQL calls `type_name` (`numeric`, `integer`, `double precision`, ..). Error 22023 of
    /// any other kind.
    pub fn to_number_text(&self, type_name: &str) -> Result<String> {
        if self.tag()? != format::NUMBER {
            return Err(cannot_cast(self.kind()?, type_name));
        }
        let mut out = String::new();
        let extra = self.scales.clone().extra_at(self.at);
        number::print(&mut out, self.key, self.at + 1, extra)?;
        Ok(out)
    }
}

/// An error 22023 about a value of the wrong kind.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, message)
}

fn cannot_cast(kind: Kind, type_name: &str) -> Error {
    let kind = if kind == Kind::Number {
        "numeric"
    } else {
        kind.name()
    };
    invalid(format!("cannot cast jsonb {kind} to type {type_name}"))
}

/// A path's element as an index into an array: what `strtoint` takes.
pub(super) fn parse_index(text: &str) -> Option<i32> {
    let is_space = |c: char| matches!(c, ' ' | '\t'..='\r');
    let text = text.trim_start_matches(is_space);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A place between the values of a container. Going past a nested container is put off until what
/// follows it is asked for, so that who descends and does not come back never pays for it.
#[derive(Clone, Copy, Debug)]
struct Walk<'a> {
    next: Value<'a>,
    /// How many values (pairs of an object) are left.
    remaining: usize,
    /// Whether `next` stands at a value that was given out already.
    behind: bool,
}

impl<'a> Walk<'a> {
    fn new(next: Value<'a>, remaining: usize) -> Walk<'a> {
        Walk {
            next,
            remaining,
            behind: false,
        }
    }

    /// Goes past the value that was given out last; where the next one begins, or the container
    /// ends.
    fn settle(&mut self) -> Result<usize> {
        if self.behind {
            self.next.at = format::skip(self.next.key, self.next.at)?;
            self.behind = false;
        }
        Ok(self.next.at)
    }

    /// The value at the place.
    fn take(&mut self) -> Result<Value<'a>> {
        self.next.scales.advance(self.next.at);
        let mut value = self.next;
        if value.kind()?.is_scalar() {
            value.end = format::skip(value.key, value.at)?;
            self.next.at = value.end;
        } else {
            self.behind = true;
        }
        Ok(value)
    }

    /// Passes over the value that was given out last, which ends at `end`.
    fn resume(&mut self, end: usize) {
        self.next.at = end;
        self.behind = false;
    }

    /// Counts a value that was read; none comes after an error.
    fn counted<T>(&mut self, read: Result<T>) -> Result<T> {
        self.remaining = if read.is_ok() { self.remaining - 1 } else { 0 };
        read
    }
}

/// Iterates over the elements of an array. Ends after an error.
#[derive(Clone, Debug)]
pub struct Elements<'a>(Walk<'a>);

impl<'a> Elements<'a> {
    /// Says where the element that was given out last ends.
    pub(super) fn resume(&mut self, end: usize) {
        self.0.resume(end);
    }

    /// Where the next element begins, or the array ends.
    pub(super) fn place(&mut self) -> Result<usize> {
        self.0.settle()
    }

    fn read(&mut self) -> Result<Value<'a>> {
        self.0.settle()?;
        self.0.take()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Value<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.remaining == 0 {
            return None;
        }
        let read = self.read();
        Some(self.0.counted(read))
    }
}

/// Iterates over the pairs of an object in storage order. Ends after an error.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(Walk<'a>);

impl<'a> Pairs<'a> {
    /// How many pairs are left.
    pub(super) fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Says where the value that was given out last ends.
    pub(super) fn resume(&mut self, end: usize) {
        self.0.resume(end);
    }

    /// Where the next pair begins, or the object ends.
    pub(super) fn place(&mut self) -> Result<usize> {
        self.0.settle()
    }

    fn read(&mut self) -> Result<(&'a str, Value<'a>)> {
        let at = self.0.settle()?;
        if format::tag(self.0.next.key, at)? != format::STRING {
            return Err(damaged());
        }
        let (key, at) = format::string(self.0.next.key, at)?;
        self.0.next.at = at;
        Ok((key, self.0.take()?))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.remaining == 0 {
            return None;
        }
        let read = self.read();
        Some(self.0.counted(read))
    }
}
