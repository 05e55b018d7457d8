//! What `regexp_replace` puts in the place of a match, with `\1` to `\9` for groups, `\&` for the
//! match and `\\` for a backslash. Another character after a backslash stays, with the backslash.

use super::{Extents, Regex};
use tidemark_common::{Result, check_interrupt};

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

    /// What a match is replaced with, part by part.
    fn parts<'a>(
        &'a self,
        text: &'a str,
        extents: &'a Extents,
    ) -> impl Iterator<Item = &'a str> + Clone {
        self.parts.iter().map(|part| match part {
            Part::Text(plain) => plain,
            Part::Group(group) => extents.get(*group).map_or("", |(from, to)| &text[from..to]),
        })
    }
}

impl Regex {
    /// Appends `text` to `out`, with match number `nth` of those from byte `start` replaced, or
    /// with all of them if it is 0. How many bytes that makes so far is told to `check` before they
    /// are made.
    ///
    /// Errors: `54001` if a match takes too long to find; those of `check`.
    pub fn replace(
        &self,
        text: &str,
        replacement: &Replacement,
        start: usize,
        nth: u64,
        check: impl Fn(usize) -> Result<()>,
        out: &mut String,
    ) -> Result<()> {
        let before = out.len();
        let mut extents = Extents::new(replacement.has_groups());
        let (mut from, mut copied, mut matches) = (start, 0, 0u64);
        while self.find_at(text, from, &mut extents)? {
            check_interrupt()?;
            matches += 1;
            from = extents.next(text);
            if nth > 0 && matches != nth {
                continue;
            }
            let (begin, end) = extents.whole();
            let parts = replacement.parts(text, &extents);
            let more = parts
                .clone()
                .fold(begin - copied, |n, part| n.saturating_add(part.len()));
            check((out.len() - before).saturating_add(more))?;
            out.push_str(&text[copied..begin]);
            parts.for_each(|part| out.push_str(part));
            copied = end;
            if nth > 0 {
                break;
            }
        }
        check(out.len() - before + text.len() - copied)?;
        out.push_str(&text[copied..]);
        Ok(())
    }
}
