//! What the characters are: letters, digits, spaces, and their small and capital forms, as
//! PostgreSQL finds them in a database of encoding UTF8 with the character type `C.UTF-8`.
//!
//! `letters.txt` holds the ranges of each class as PostgreSQL 15 answered for every code point.
//! Rust's own tables are of another Unicode version and ask other questions (an Arabic digit is a
//! letter here).

use std::collections::HashMap;
use std::sync::OnceLock;

/// A class of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Letters and digits.
    Alnum,
    /// Letters.
    Alpha,
    /// U+0000 to U+007F.
    Ascii,
    /// Space and tabulator.
    Blank,
    /// Control characters of ISO 8859-1.
    Cntrl,
    /// `0` to `9`.
    Digit,
    /// Printed with ink.
    Graph,
    /// Small letters.
    Lower,
    /// Printed.
    Print,
    /// Printed, and neither letter, digit nor space.
    Punct,
    /// Space and line breaks.
    Space,
    /// Capital letters.
    Upper,
    /// Digits of base 16.
    Xdigit,
    /// Letters, digits and the underscore.
    Word,
}

/// Inclusive ranges of code points, ascending, apart from each other.
pub type Ranges = Vec<(u32, u32)>;

impl Class {
    /// The class of a name (`alpha`).
    pub fn named(name: &str) -> Option<Class> {
        Some(match name {
            "alnum" => Class::Alnum,
            "alpha" => Class::Alpha,
            "ascii" => Class::Ascii,
            "blank" => Class::Blank,
            "cntrl" => Class::Cntrl,
            "digit" => Class::Digit,
            "graph" => Class::Graph,
            "lower" => Class::Lower,
            "print" => Class::Print,
            "punct" => Class::Punct,
            "space" => Class::Space,
            "upper" => Class::Upper,
            "xdigit" => Class::Xdigit,
            "word" => Class::Word,
            _ => return None,
        })
    }

    /// The characters of the class.
    pub fn ranges(self) -> Ranges {
        let table = |name: &str| tables()[name].clone();
        let mut ranges = match self {
            Class::Alpha => table("alpha"),
            Class::Lower => table("lower"),
            Class::Upper => table("upper"),
            Class::Punct => table("punct"),
            Class::Print => table("print"),
            Class::Space => table("space"),
            Class::Digit => vec![(0x30, 0x39)],
            Class::Ascii => vec![(0, 0x7f)],
            Class::Blank => vec![(0x09, 0x09), (0x20, 0x20)],
            Class::Cntrl => vec![(0, 0x1f), (0x7f, 0x9f)],
            Class::Xdigit => vec![(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
            Class::Alnum => [vec![(0x30, 0x39)], table("alpha")].concat(),
            Class::Word => [vec![(0x30, 0x39), (0x5f, 0x5f)], table("alpha")].concat(),
            Class::Graph => [vec![(0x30, 0x39)], table("alpha"), table("punct")].concat(),
        };
        tidy(&mut ranges);
        ranges
    }
}

/// Brings ranges into order and joins those that touch.
pub fn tidy(ranges: &mut Ranges) {
    ranges.sort_unstable();
    let mut kept = 0;
    for i in 0..ranges.len() {
        let (from, to) = ranges[i];
        if kept > 0 && from <= ranges[kept - 1].1.saturating_add(1) {
            ranges[kept - 1].1 = ranges[kept - 1].1.max(to);
        } else {
            ranges[kept] = (from, to);
            kept += 1;
        }
    }
    ranges.truncate(kept);
}

fn tables() -> &'static HashMap<&'static str, Ranges> {
    static TABLES: OnceLock<HashMap<&'static str, Ranges>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut tables: HashMap<&'static str, Ranges> = HashMap::new();
        let mut name = "";
        for word in include_str!("letters.txt").split_ascii_whitespace() {
            if let Some(class) = word.strip_suffix(':') {
                name = class;
                continue;
            }
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            let number = |t| u32::from_str_radix(t, 16).expect("letters.txt holds numbers");
            tables
                .entry(name)
                .or_default()
                .push((number(from), number(to)));
        }
        tables
    })
}

/// Whether a character is a letter or a digit.
pub fn is_alnum(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    static ALNUM: OnceLock<Ranges> = OnceLock::new();
    let ranges = ALNUM.get_or_init(|| Class::Alnum.ranges());
    let at = ranges.partition_point(|(_, to)| *to < u32::from(c));
    ranges
        .get(at)
        .is_some_and(|(from, _)| *from <= u32::from(c))
}

/// Letters that got their other form after the Unicode version that answers here.
fn is_newer(c: char) -> bool {
    matches!(u32::from(c),
        0x19b | 0x264 | 0x1c89 | 0x1c8a | 0xa7cb..=0xa7cf | 0xa7d2..=0xa7d5 | 0xa7da..=0xa7dc
        | 0x10d50..=0x10d85 | 0x16ea0..=0x16ed3)
}

/// The small letter of a character, or itself.
pub fn lower(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    if c == '\u{130}' {
        return 'i';
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(l), None) if !is_newer(c) => l,
        _ => c,
    }
}

/// The capital letter of a character, or itself: there is none of `ß`.
pub fn upper(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    match u32::from(c) {
        code @ (0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7) => {
            return char::from_u32(code + 8).unwrap_or(c);
        }
        code @ (0x1fb3 | 0x1fc3 | 0x1ff3) => return char::from_u32(code + 9).unwrap_or(c),
        _ => {}
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(u), None) if !is_newer(c) => u,
        _ => c,
    }
}
