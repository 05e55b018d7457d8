//! PostgreSQL's date patterns, `YYYY-MM-DD HH24:MI:SS.US`: for `to_char`, `to_timestamp` and
//! `to_date`.
//!
//! A pattern is compiled once into items and its granularity: the coarsest unit within which its
//! output does not change. Formatting remembers the last text and repeats it within that unit,
//! because times of a stream repeat.

use super::calendar::{Civil, DAY_MICROS, civil};
use super::time::moment_of;
use std::fmt::Write;

const MONTHS: [&str; 12] = [
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
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A compiled pattern.
pub(super) struct Pattern {
    items: Vec<Item>,
    /// Microseconds within which the output is the same.
    granularity: i64,
}

enum Item {
    Literal(String),
    Field {
        field: Field,
        fill: bool,
        ordinal: Option<bool>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Upper,
    Capital,
    Lower,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    YearComma,
    /// The last n digits.
    Year(u32),
    IsoYear(u32),
    Era {
        dots: bool,
        upper: bool,
    },
    MonthName(Case),
    MonthShort(Case),
    Month,
    RomanMonth {
        upper: bool,
    },
    DayName(Case),
    DayShort(Case),
    DayOfYear,
    Day,
    Weekday,
    IsoWeekday,
    IsoWeek,
    WeekOfYear,
    WeekOfMonth,
    Century,
    Julian,
    Quarter,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    Millisecond,
    Microsecond,
    /// The first n digits of the second's fraction.
    Fraction(u32),
    Meridian {
        dots: bool,
        upper: bool,
    },
    Zone {
        upper: bool,
    },
    Offset,
}

/// Keywords, longest first where one begins another. The flag says that upper and lower case mean
/// the same.
const KEYWORDS: &[(&str, Field, bool)] = &[
    ("Y,YYY", Field::YearComma, true),
    ("YYYY", Field::Year(4), true),
    ("YYY", Field::Year(3), true),
    ("YY", Field::Year(2), true),
    ("Y", Field::Year(1), true),
    ("IYYY", Field::IsoYear(4), true),
    ("IYY", Field::IsoYear(3), true),
    ("IY", Field::IsoYear(2), true),
    ("IDDD", Field::DayOfYear, true),
    ("ID", Field::IsoWeekday, true),
    ("IW", Field::IsoWeek, true),
    ("I", Field::IsoYear(1), true),
    (
        "B.C.",
        Field::Era {
            dots: true,
            upper: true,
        },
        false,
    ),
    (
        "A.D.",
        Field::Era {
            dots: true,
            upper: true,
        },
        false,
    ),
    (
        "b.c.",
        Field::Era {
            dots: true,
            upper: false,
        },
        false,
    ),
    (
        "a.d.",
        Field::Era {
            dots: true,
            upper: false,
        },
        false,
    ),
    (
        "BC",
        Field::Era {
            dots: false,
            upper: true,
        },
        false,
    ),
    (
        "AD",
        Field::Era {
            dots: false,
            upper: true,
        },
        false,
    ),
    (
        "bc",
        Field::Era {
            dots: false,
            upper: false,
        },
        false,
    ),
    (
        "ad",
        Field::Era {
            dots: false,
            upper: false,
        },
        false,
    ),
    (
        "A.M.",
        Field::Meridian {
            dots: true,
            upper: true,
        },
        false,
    ),
    (
        "P.M.",
        Field::Meridian {
            dots: true,
            upper: true,
        },
        false,
    ),
    (
        "a.m.",
        Field::Meridian {
            dots: true,
            upper: false,
        },
        false,
    ),
    (
        "p.m.",
        Field::Meridian {
            dots: true,
            upper: false,
        },
        false,
    ),
    (
        "AM",
        Field::Meridian {
            dots: false,
            upper: true,
        },
        false,
    ),
    (
        "PM",
        Field::Meridian {
            dots: false,
            upper: true,
        },
        false,
    ),
    (
        "am",
        Field::Meridian {
            dots: false,
            upper: false,
        },
        false,
    ),
    (
        "pm",
        Field::Meridian {
            dots: false,
            upper: false,
        },
        false,
    ),
    ("MONTH", Field::MonthName(Case::Upper), false),
    ("Month", Field::MonthName(Case::Capital), false),
    ("month", Field::MonthName(Case::Lower), false),
    ("MON", Field::MonthShort(Case::Upper), false),
    ("Mon", Field::MonthShort(Case::Capital), false),
    ("mon", Field::MonthShort(Case::Lower), false),
    ("MM", Field::Month, true),
    ("MI", Field::Minute, true),
    ("MS", Field::Millisecond, true),
    ("RM", Field::RomanMonth { upper: true }, false),
    ("rm", Field::RomanMonth { upper: false }, false),
    ("DAY", Field::DayName(Case::Upper), false),
    ("Day", Field::DayName(Case::Capital), false),
    ("day", Field::DayName(Case::Lower), false),
    ("DY", Field::DayShort(Case::Upper), false),
    ("Dy", Field::DayShort(Case::Capital), false),
    ("dy", Field::DayShort(Case::Lower), false),
    ("DDD", Field::DayOfYear, true),
    ("DD", Field::Day, true),
    ("D", Field::Weekday, true),
    ("WW", Field::WeekOfYear, true),
    ("W", Field::WeekOfMonth, true),
    ("CC", Field::Century, true),
    ("J", Field::Julian, true),
    ("Q", Field::Quarter, true),
    ("HH24", Field::Hour24, true),
    ("HH12", Field::Hour12, true),
    ("HH", Field::Hour12, true),
    ("SSSSS", Field::SecondOfDay, true),
    ("SSSS", Field::SecondOfDay, true),
    ("SS", Field::Second, true),
    ("US", Field::Microsecond, true),
    ("FF1", Field::Fraction(1), true),
    ("FF2", Field::Fraction(2), true),
    ("FF3", Field::Fraction(3), true),
    ("FF4", Field::Fraction(4), true),
    ("FF5", Field::Fraction(5), true),
    ("FF6", Field::Fraction(6), true),
    ("TZ", Field::Zone { upper: true }, false),
    ("tz", Field::Zone { upper: false }, false),
    ("OF", Field::Offset, true),
];

impl Pattern {
    /// Compiles a pattern; whatever is no keyword stands for itself.
    pub fn new(pattern: &str) -> Pattern {
        let mut items: Vec<Item> = Vec::new();
        let mut rest = pattern;
        let mut fill = true;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                let quoted: String = rest[1..].chars().take_while(|c| *c != '"').collect();
                rest = rest[1 + quoted.len()..].strip_prefix('"').unwrap_or("");
                literal(&mut items, &quoted);
            } else if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm"))
            {
                fill = false;
                rest = after;
            } else if let Some((length, field)) = keyword(rest) {
                rest = &rest[length..];
                let ordinal = ["TH", "th"]
                    .iter()
                    .position(|suffix| rest.starts_with(suffix))
                    .map(|i| i == 0);
                if ordinal.is_some() {
                    rest = &rest[2..];
                }
                items.push(Item::Field {
                    field,
                    fill: std::mem::replace(&mut fill, true),
                    ordinal,
                });
            } else {
                literal(&mut items, &rest[..first.len_utf8()]);
                rest = &rest[first.len_utf8()..];
            }
        }
        let granularity = items
            .iter()
            .map(|i| {
                if let Item::Field { field, .. } = i {
                    field.granularity()
                } else {
                    DAY_MICROS
                }
            })
            .min()
            .unwrap_or(DAY_MICROS);
        Pattern { items, granularity }
    }

    /// Microseconds within which [`Pattern::format`] gives the same text.
    pub fn granularity(&self) -> i64 {
        self.granularity
    }

    /// Appends a moment's text.
    pub fn format(&self, micros: i64, text: &mut String) {
        let moment = civil(micros);
        for item in &self.items {
            match item {
                Item::Literal(literal) => text.push_str(literal),
                Item::Field {
                    field,
                    fill,
                    ordinal,
                } => {
                    let start = text.len();
                    field.format(&moment, *fill, text);
                    if let Some(upper) = ordinal {
                        let suffix = ordinal_suffix(&text[start..]);
                        if *upper {
                            text.push_str(&suffix.to_uppercase())
                        } else {
                            text.push_str(suffix)
                        }
                    }
                }
            }
        }
    }

    /// The moment that a text means; fields that the pattern lacks are those of 0001-01-01 00:00.
    pub fn parse(&self, text: &str) -> Result<i64, String> {
        let mut parsed = Parsed {
            year: 1,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            micros: 0,
            afternoon: None,
        };
        let mut rest = text;
        for (i, item) in self.items.iter().enumerate() {
            match item {
                Item::Literal(literal) => {
                    for c in literal.chars() {
                        let Some(next) = rest.chars().next() else {
                            break;
                        };
                        // A separator stands for any separator.
                        if next == c || !next.is_alphanumeric() && !c.is_alphanumeric() {
                            rest = &rest[next.len_utf8()..];
                        }
                    }
                }
                Item::Field { field, .. } => {
                    rest = rest.trim_start();
                    let followed = matches!(self.items.get(i + 1), Some(Item::Field { .. }));
                    rest = parsed.take(*field, rest, followed).ok_or_else(|| {
                        format!(
                            "invalid value \"{}\" for \"{field:?}\"",
                            rest.chars().take(10).collect::<String>()
                        )
                    })?;
                }
            }
        }
        parsed
            .moment()
            .ok_or_else(|| format!("date/time field value out of range: \"{text}\""))
    }
}

fn literal(items: &mut Vec<Item>, text: &str) {
    match items.last_mut() {
        Some(Item::Literal(last)) => last.push_str(text),
        _ => items.push(Item::Literal(text.to_string())),
    }
}

/// The longest keyword that `text` begins with.
fn keyword(text: &str) -> Option<(usize, Field)> {
    let matches = |keyword: &str, any_case: bool| {
        let begin = text.get(..keyword.len());
        begin.is_some_and(|b| {
            if any_case {
                b.eq_ignore_ascii_case(keyword)
            } else {
                b == keyword
            }
        })
    };
    KEYWORDS
        .iter()
        .filter(|(k, _, any_case)| matches(k, *any_case))
        .max_by_key(|(k, _, _)| k.len())
        .map(|(k, field, _)| (k.len(), *field))
}

fn ordinal_suffix(number: &str) -> &'static str {
    let digits = number.as_bytes();
    match digits {
        [.., b'1', _] => "th",
        [.., b'1'] => "st",
        [.., b'2'] => "nd",
        [.., b'3'] => "rd",
        _ => "th",
    }
}

fn cased(name: &str, case: Case) -> String {
    match case {
        Case::Upper => name.to_uppercase(),
        Case::Capital => name.to_string(),
        Case::Lower => name.to_lowercase(),
    }
}

const ROMAN: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];

impl Field {
    fn granularity(self) -> i64 {
        match self {
            Field::Hour24 | Field::Hour12 | Field::Meridian { .. } => 3_600_000_000,
            Field::Minute => 60_000_000,
            Field::Second | Field::SecondOfDay => 1_000_000,
            Field::Millisecond => 1000,
            Field::Microsecond | Field::Fraction(_) => 1,
            _ => DAY_MICROS,
        }
    }

    fn format(self, at: &Civil, fill: bool, text: &mut String) {
        let number = |text: &mut String, value: i64, width: usize| {
            let _ = if fill {
                write!(text, "{value:0width$}")
            } else {
                write!(text, "{value}")
            };
        };
        let padded = |text: &mut String, name: String, width: usize| {
            let _ = if fill {
                write!(text, "{name:width$}")
            } else {
                write!(text, "{name}")
            };
        };
        let year = if at.year > 0 { at.year } else { 1 - at.year };
        let last_digits = |year: i64, n: u32| {
            if n >= 4 {
                year
            } else {
                year.rem_euclid(10i64.pow(n))
            }
        };
        match self {
            Field::YearComma => {
                let _ = write!(text, "{},{:03}", year / 1000, year % 1000);
            }
            Field::Year(n) => number(text, last_digits(year, n), n as usize),
            Field::IsoYear(n) => number(text, last_digits(at.iso_week().0, n), n as usize),
            Field::Era { dots, upper } => text.push_str(match (at.year > 0, dots, upper) {
                (true, true, true) => "A.D.",
                (true, true, false) => "a.d.",
                (true, false, true) => "AD",
                (true, false, false) => "ad",
                (false, true, true) => "B.C.",
                (false, true, false) => "b.c.",
                (false, false, true) => "BC",
                (false, false, false) => "bc",
            }),
            Field::MonthName(case) => padded(text, cased(MONTHS[at.month as usize - 1], case), 9),
            Field::MonthShort(case) => {
                text.push_str(&cased(&MONTHS[at.month as usize - 1][..3], case))
            }
            Field::Month => number(text, at.month.into(), 2),
            Field::RomanMonth { upper } => {
                let roman = ROMAN[at.month as usize - 1];
                padded(
                    text,
                    if upper {
                        roman.to_string()
                    } else {
                        roman.to_lowercase()
                    },
                    4,
                );
            }
            Field::DayName(case) => padded(text, cased(DAYS[at.weekday() as usize], case), 9),
            Field::DayShort(case) => text.push_str(&cased(&DAYS[at.weekday() as usize][..3], case)),
            Field::DayOfYear => number(text, at.day_of_year().into(), 3),
            Field::Day => number(text, at.day.into(), 2),
            Field::Weekday => number(text, i64::from(at.weekday()) + 1, 1),
            Field::IsoWeekday => number(text, (i64::from(at.weekday()) + 6) % 7 + 1, 1),
            Field::IsoWeek => number(text, at.iso_week().1.into(), 2),
            Field::WeekOfYear => number(text, (i64::from(at.day_of_year()) - 1) / 7 + 1, 2),
            Field::WeekOfMonth => number(text, (i64::from(at.day) - 1) / 7 + 1, 1),
            Field::Century => number(text, (at.year + 99).div_euclid(100), 2),
            Field::Julian => number(text, at.days + 2_440_588, 1),
            Field::Quarter => number(text, (i64::from(at.month) - 1) / 3 + 1, 1),
            Field::Hour24 => number(text, at.hour.into(), 2),
            Field::Hour12 => number(text, (i64::from(at.hour) + 11) % 12 + 1, 2),
            Field::Minute => number(text, at.minute.into(), 2),
            Field::Second => number(text, at.second.into(), 2),
            Field::SecondOfDay => number(
                text,
                i64::from(at.hour * 3600 + at.minute * 60 + at.second),
                1,
            ),
            Field::Millisecond => number(text, i64::from(at.micros) / 1000, 3),
            Field::Microsecond => number(text, at.micros.into(), 6),
            Field::Fraction(n) => {
                let _ = write!(
                    text,
                    "{:0width$}",
                    at.micros / 10u32.pow(6 - n),
                    width = n as usize
                );
            }
            Field::Meridian { dots, upper } => text.push_str(match (at.hour < 12, dots, upper) {
                (true, true, true) => "A.M.",
                (true, true, false) => "a.m.",
                (true, false, true) => "AM",
                (true, false, false) => "am",
                (false, true, true) => "P.M.",
                (false, true, false) => "p.m.",
                (false, false, true) => "PM",
                (false, false, false) => "pm",
            }),
            Field::Zone { upper } => text.push_str(if upper { "UTC" } else { "utc" }),
            Field::Offset => text.push_str("+00"),
        }
    }
}

struct Parsed {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    afternoon: Option<bool>,
}

impl Parsed {
    /// Reads a field from the beginning of `text`, and returns what follows it. `followed`: another
    /// field comes right after, so that digits are limited.
    fn take<'a>(&mut self, field: Field, text: &'a str, followed: bool) -> Option<&'a str> {
        let digits = |width: usize, limited: bool| -> Option<(i64, &'a str, usize)> {
            let n = text
                .bytes()
                .take_while(u8::is_ascii_digit)
                .count()
                .min(if limited { width } else { 18 });
            text[..n].parse().ok().map(|v| (v, &text[n..], n))
        };
        let name = |names: &[&str], length: Option<usize>| -> Option<(i64, &'a str)> {
            names.iter().zip(1..).find_map(|(name, i)| {
                let name = &name[..length.unwrap_or(name.len())];
                text.get(..name.len())
                    .filter(|begin| begin.eq_ignore_ascii_case(name))
                    .map(|_| (i, &text[name.len()..]))
            })
        };
        let (rest, to, value) = match field {
            Field::Year(n) => {
                let (value, rest, read) = digits(n as usize, followed || n < 4)?;
                let value = if read <= 2 && n < 4 {
                    value + if value < 70 { 2000 } else { 1900 }
                } else {
                    value
                };
                (rest, &mut self.year, value)
            }
            Field::Month => digits(2, true).map(|(v, rest, _)| (rest, &mut self.month, v))?,
            Field::MonthName(_) => {
                name(&MONTHS, None).map(|(v, rest)| (rest, &mut self.month, v))?
            }
            Field::MonthShort(_) => {
                name(&MONTHS, Some(3)).map(|(v, rest)| (rest, &mut self.month, v))?
            }
            Field::Day => digits(2, true).map(|(v, rest, _)| (rest, &mut self.day, v))?,
            Field::Hour24 | Field::Hour12 => {
                digits(2, true).map(|(v, rest, _)| (rest, &mut self.hour, v))?
            }
            Field::Minute => digits(2, true).map(|(v, rest, _)| (rest, &mut self.minute, v))?,
            Field::Second => digits(2, true).map(|(v, rest, _)| (rest, &mut self.second, v))?,
            Field::Millisecond | Field::Microsecond | Field::Fraction(_) => {
                let width = match field {
                    Field::Millisecond => 3,
                    Field::Fraction(n) => n as usize,
                    _ => 6,
                };
                let (value, rest, read) = digits(width, true)?;
                (
                    rest,
                    &mut self.micros,
                    value * 10i64.pow(6 - read.min(6) as u32),
                )
            }
            Field::Meridian { .. } => {
                let letters = text
                    .get(..2)
                    .filter(|t| ["am", "pm"].iter().any(|m| t.eq_ignore_ascii_case(m)))?;
                self.afternoon = Some(letters.starts_with(['p', 'P']));
                return Some(&text[2..]);
            }
            Field::DayName(_) => return name(&DAYS, None).map(|(_, rest)| rest),
            Field::DayShort(_) => return name(&DAYS, Some(3)).map(|(_, rest)| rest),
            _ => return None,
        };
        *to = value;
        Some(rest)
    }

    fn moment(&self) -> Option<i64> {
        let hour = match self.afternoon {
            None => self.hour,
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
        };
        moment_of(
            self.year,
            self.month,
            self.day,
            hour,
            self.minute,
            self.second as f64,
        )
        .map(|m| m + self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str, micros: i64) -> String {
        let mut text = String::new();
        Pattern::new(pattern).format(micros, &mut text);
        text
    }

    #[test]
    fn moments_print_as_postgresql_prints_them() {
        // 2024-03-05 14:07:09.012345, a Tuesday.
        let at = 1_709_647_629_012_345;
        for (pattern, want) in [
            ("YYYY-MM-DD HH24:MI:SS", "2024-03-05 14:07:09"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.US", "2024-03-05T14:07:09.012345"),
            ("yyyy/mm/dd hh12:mi AM", "2024/03/05 02:07 PM"),
            ("Dy, DD Mon YY", "Tue, 05 Mar 24"),
            ("Day|Month|DAY", "Tuesday  |March    |TUESDAY  "),
            ("FMDay FMMonth FMDDth", "Tuesday March 5th"),
            (
                "DDD D ID IW IYYY WW W Q J CC",
                "065 3 2 10 2024 10 1 1 2460375 21",
            ),
            ("MS US FF3 SSSS", "012 012345 012 50829"),
            ("RM TZ OF", "III  UTC +00"),
            ("HH:MI", "02:07"),
            ("MMth", "03rd"),
            ("", ""),
        ] {
            assert_eq!(text(pattern, at), want, "{pattern}");
        }
        assert_eq!(text("YYYY-MM-DD HH12", 0), "1970-01-01 12");
    }

    #[test]
    fn granularity_is_the_finest_field() {
        for (pattern, micros) in [
            ("YYYY-MM-DD", DAY_MICROS),
            ("HH24", 3_600_000_000),
            ("HH:MI", 60_000_000),
            ("MS", 1000),
            ("YYYY US", 1),
            ("x", DAY_MICROS),
        ] {
            assert_eq!(Pattern::new(pattern).granularity(), micros, "{pattern}");
        }
    }

    #[test]
    fn texts_parse_back() {
        for (pattern, input, want) in [
            (
                "YYYY-MM-DD HH24:MI:SS",
                "2024-03-05 14:07:09",
                "2024-03-05 14:07:09.000000",
            ),
            ("DD Mon YYYY", "5 mar 2024", "2024-03-05 00:00:00.000000"),
            (
                "YYYYMMDDHH24MISS",
                "20240305140709",
                "2024-03-05 14:07:09.000000",
            ),
            (
                "HH12:MI AM, DD/MM/YY",
                "02:07 pm, 05/03/24",
                "2024-03-05 14:07:00.000000",
            ),
            (
                "YYYY-MM-DD HH24:MI:SS.MS",
                "2024-03-05 14:07:09.5",
                "2024-03-05 14:07:09.500000",
            ),
        ] {
            assert_eq!(
                text(
                    "YYYY-MM-DD HH24:MI:SS.US",
                    Pattern::new(pattern).parse(input).unwrap()
                ),
                want,
                "{pattern}"
            );
        }
        assert!(Pattern::new("YYYY-MM-DD").parse("2024-02-30").is_err());
        assert!(Pattern::new("YYYY-MM-DD").parse("hello").is_err());
    }
}
