//! What `regexp_replace` puts in the place of a match, with `\1` to `\9` for groups, `\&` for the
//! match and `\\` for a backslash. Another character after a backslash stays, with the backslash.

use super::{Extents, Regex};
use tidemark_common::Result;

/// A replacement as read.
pub struct Replacement {
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    /// A group; 0 is the match.
    Group(usize),
}

impl Replacement {
    /// Reads one.
    pub fn new(text: &str) -> Replacement {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            let group = match characters.peek() {
                Some(digit @ '1'..='9') if c == '\\' => digit.to_digit(10),
                Some('&') if c == '\\' => Some(0),
                Some('\\') if c == '\\' => None,
                _ => {
                    plain.push(c);
                    continue;
                }
            };
            characters.next();
            match group {
                None => plain.push('\\'),
                Some(group) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Group(group as usize));
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Replacement { parts }
    }

    /// Whether it asks for groups.
    pub fn has_groups(&self) -> bool {
        let group = |p: &Part| matches!(p, Part::Group(1..));
        self.parts.iter().any(group)
    }

    /// Appends what a match is replaced with, as long as `out` has no more than `end` bytes.
    fn put(&self, text: &str, extents: &Extents, end: usize, out: &mut String) {
        for part in &self.parts {
            if out.len() > end {
                return;
            }
            match part {
                Part::Text(plain) => out.push_str(plain),
                Part::Group(group) => {
                    if let Some((from, to)) = extents.get(*group) {
                        out.push_str(&text[from..to]);
                    }
                }
            }
        }
    }
}

impl Regex {
    /// Appends `text` to `out`, with match number `nth` of those from byte `start` replaced, or
    /// with all of them if it is 0. More than `bytes_max` are not made: then it gives `false`.
    ///
    /// Errors: `54001` if a match takes too long to find.
    pub fn replace(
        &self,
        text: &str,
        replacement: &Replacement,
        start: usize,
        nth: u64,
        bytes_max: usize,
        out: &mut String,
    ) -> Result<bool> {
        let before = out.len();
        let mut extents = Extents::new(replacement.has_groups());
        let (mut from, mut copied, mut matches) = (start, 0, 0u64);
        while self.find_at(text, from, &mut extents)? {
            matches += 1;
            from = extents.next(text);
            if nth > 0 && matches != nth {
                continue;
            }
            let (begin, end) = extents.whole();
            out.push_str(&text[copied..begin]);
            replacement.put(text, &extents, before.saturating_add(bytes_max), out);
            copied = end;
            if out.len() - before > bytes_max {
                return Ok(false);
            }
            if nth > 0 {
                break;
            }
        }
        out.push_str(&text[copied..]);
        Ok(true)
    }
}
