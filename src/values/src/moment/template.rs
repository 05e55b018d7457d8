//! The patterns of `to_char`, `to_date` and `to_timestamp`: `YYYY-MM-DD HH24:MI:SS.US`.
//!
//! A pattern is compiled once into nodes: fields with their modifiers (`FM` before, `TH` after),
//! and the characters between. Quoted text is characters that are neither space nor separator.

/// A field, whatever the case of its letters says of the output's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `AM`; with dots or not.
    Half(bool),
    /// `AD`; with dots or not.
    Era(bool),
    Hour12,
    Hour24,
    Minute,
    Second,
    /// `FF1` to `FF6`, `MS`, `US`: digits, and whether the field is `MS`.
    Fraction(u8, bool),
    SecondOfDay,
    Zone,
    ZoneHour,
    ZoneMinute,
    Offset,
    MonthName,
    MonthShort,
    MonthRoman,
    Month,
    DayName,
    DayShort,
    DayOfYear,
    IsoDayOfYear,
    Day,
    DayOfWeek,
    IsoDayOfWeek,
    Week,
    IsoWeek,
    WeekOfMonth,
    Quarter,
    Century,
    YearComma,
    /// Digits of the year.
    Year(u8),
    /// Digits of the ISO year.
    IsoYear(u8),
    Julian,
    /// `FX`: from here on the text must have the fields' widths.
    Exact,
}

/// The case of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Capital,
    Lower,
}

/// `TH` or `th` after a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ordinal {
    None,
    Upper,
    Lower,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Field {
        field: Field,
        /// As PostgreSQL's messages name it.
        name: &'static str,
        case: Case,
        /// `FM`: no padding.
        fill: bool,
        ordinal: Ordinal,
    },
    Space(char),
    Separator(char),
    Character(char),
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Template {
    pub(super) nodes: Vec<Node>,
    pub(super) is_empty: bool,
}

/// The fields by name, in upper (or mixed) and in lower case; a longer name before one that it
/// begins with.
const FIELDS: &[(&str, &str, Field)] = &[
    ("A.D.", "a.d.", Field::Era(true)),
    ("A.M.", "a.m.", Field::Half(true)),
    ("AD", "ad", Field::Era(false)),
    ("AM", "am", Field::Half(false)),
    ("B.C.", "b.c.", Field::Era(true)),
    ("BC", "bc", Field::Era(false)),
    ("CC", "cc", Field::Century),
    ("DAY", "day", Field::DayName),
    ("DDD", "ddd", Field::DayOfYear),
    ("DD", "dd", Field::Day),
    ("DY", "dy", Field::DayShort),
    ("Day", "", Field::DayName),
    ("Dy", "", Field::DayShort),
    ("D", "d", Field::DayOfWeek),
    ("FF1", "ff1", Field::Fraction(1, false)),
    ("FF2", "ff2", Field::Fraction(2, false)),
    ("FF3", "ff3", Field::Fraction(3, false)),
    ("FF4", "ff4", Field::Fraction(4, false)),
    ("FF5", "ff5", Field::Fraction(5, false)),
    ("FF6", "ff6", Field::Fraction(6, false)),
    ("FX", "fx", Field::Exact),
    ("HH24", "hh24", Field::Hour24),
    ("HH12", "hh12", Field::Hour12),
    ("HH", "hh", Field::Hour12),
    ("IDDD", "iddd", Field::IsoDayOfYear),
    ("ID", "id", Field::IsoDayOfWeek),
    ("IW", "iw", Field::IsoWeek),
    ("IYYY", "iyyy", Field::IsoYear(4)),
    ("IYY", "iyy", Field::IsoYear(3)),
    ("IY", "iy", Field::IsoYear(2)),
    ("I", "i", Field::IsoYear(1)),
    ("J", "j", Field::Julian),
    ("MI", "mi", Field::Minute),
    ("MM", "mm", Field::Month),
    ("MONTH", "month", Field::MonthName),
    ("MON", "mon", Field::MonthShort),
    ("MS", "ms", Field::Fraction(3, true)),
    ("Month", "", Field::MonthName),
    ("Mon", "", Field::MonthShort),
    ("OF", "of", Field::Offset),
    ("P.M.", "p.m.", Field::Half(true)),
    ("PM", "pm", Field::Half(false)),
    ("Q", "q", Field::Quarter),
    ("RM", "rm", Field::MonthRoman),
    ("SSSSS", "sssss", Field::SecondOfDay),
    ("SSSS", "ssss", Field::SecondOfDay),
    ("SS", "ss", Field::Second),
    ("TZH", "tzh", Field::ZoneHour),
    ("TZM", "tzm", Field::ZoneMinute),
    ("TZ", "tz", Field::Zone),
    ("US", "us", Field::Fraction(6, true)),
    ("WW", "ww", Field::Week),
    ("W", "w", Field::WeekOfMonth),
    ("Y,YYY", "y,yyy", Field::YearComma),
    ("YYYY", "yyyy", Field::Year(4)),
    ("YYY", "yyy", Field::Year(3)),
    ("YY", "yy", Field::Year(2)),
    ("Y", "y", Field::Year(1)),
];

/// The field that a text begins with, its name in the text, and its case.
fn field_of(text: &str) -> Option<(Field, &'static str, Case)> {
    if let Some((name, _, field)) = FIELDS.iter().find(|(name, ..)| text.starts_with(name)) {
        let capital = name.len() > 1 && name.as_bytes()[1].is_ascii_lowercase();
        let case = if capital { Case::Capital } else { Case::Upper };
        return Some((*field, name, case));
    }
    let (_, name, field) = FIELDS
        .iter()
        .find(|(_, lower, _)| !lower.is_empty() && text.starts_with(lower))?;
    Some((*field, name, Case::Lower))
}

/// Printing ASCII that is neither letter nor digit.
pub(super) fn is_separator(c: char) -> bool {
    c.is_ascii_punctuation()
}

/// White space of C.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

impl Template {
    /// Compiles a pattern. Every text is one: what is no field stands for itself.
    pub fn new(pattern: &str) -> Template {
        let mut nodes = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            let (mut fill, mut translated) = (false, false);
            if let Some(after) = rest.strip_prefix("FM").or(rest.strip_prefix("fm")) {
                (fill, rest) = (true, after);
            } else if let Some(after) = rest.strip_prefix("TM").or(rest.strip_prefix("tm")) {
                (translated, rest) = (true, after);
            }
            if let Some((field, name, case)) = field_of(rest) {
                rest = &rest[name.len()..];
                let (ordinal, after) = ordinal_of(rest);
                rest = after;
                // Translated names are not padded.
                fill |= translated && matches!(field, Field::MonthName | Field::DayName);
                nodes.push(Node::Field {
                    field,
                    name,
                    case,
                    fill,
                    ordinal,
                });
            } else if let Some(quoted) = rest.strip_prefix('"') {
                rest = quote(quoted, &mut nodes);
            } else {
                if rest.starts_with("\\\"") {
                    rest = &rest[1..];
                }
                let Some(c) = rest.chars().next() else { break };
                rest = &rest[c.len_utf8()..];
                nodes.push(if is_separator(c) {
                    Node::Separator(c)
                } else if is_space(c) {
                    Node::Space(c)
                } else {
                    Node::Character(c)
                });
            }
        }
        Template {
            nodes,
            is_empty: pattern.is_empty(),
        }
    }

    /// Whether the text for the field at `index` ends where digits end.
    pub(super) fn ends_with_digits(&self, index: usize) -> bool {
        if matches!(&self.nodes[index], Node::Field { ordinal, .. } if *ordinal != Ordinal::None) {
            return true;
        }
        match self.nodes.get(index + 1) {
            None => true,
            Some(Node::Field { field, .. }) => !field.is_numeric(),
            Some(Node::Character(c) | Node::Space(c) | Node::Separator(c)) => !c.is_ascii_digit(),
        }
    }
}

fn ordinal_of(text: &str) -> (Ordinal, &str) {
    for (suffix, ordinal) in [
        ("TH", Ordinal::Upper),
        ("th", Ordinal::Lower),
        ("SP", Ordinal::None),
    ] {
        if let Some(rest) = text.strip_prefix(suffix) {
            return (ordinal, rest);
        }
    }
    (Ordinal::None, text)
}

/// Takes the characters of quoted text; returns what follows.
fn quote<'a>(text: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut chars = text.char_indices();
    while let Some((at, mut c)) = chars.next() {
        if c == '"' {
            return &text[at + 1..];
        }
        if c == '\\'
            && let Some((_, next)) = chars.next()
        {
            c = next;
        }
        nodes.push(Node::Character(c));
    }
    ""
}

impl Field {
    /// Whether it is read as digits.
    fn is_numeric(self) -> bool {
        !matches!(
            self,
            Field::Half(_)
                | Field::Era(_)
                | Field::Zone
                | Field::ZoneHour
                | Field::Offset
                | Field::MonthName
                | Field::MonthShort
                | Field::MonthRoman
                | Field::DayName
                | Field::DayShort
                | Field::Exact
        )
    }
}

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// December first, so that `VII` is found before `VI` and `V`.
pub(super) const ROMAN: [&str; 12] = [
    "XII", "XI", "X", "IX", "VIII", "VII", "VI", "V", "IV", "III", "II", "I",
];
