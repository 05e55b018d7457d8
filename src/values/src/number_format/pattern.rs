//! Patterns as read: what stands where, and what of it is to be known before anything is written.

use tidemark_common::{Error, Result, SqlState};

/// What stands at a position of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Nine,
    Zero,
    Point,
    Comma,
    /// `G`.
    Thousands,
    /// `L`.
    Currency,
    /// `RN`; `true` in capitals.
    Roman(bool),
    /// `TH`; `true` in capitals.
    Ordinal(bool),
    Minus,
    Plus,
    /// `SG`.
    Sign,
    /// What only says something of the whole.
    Silent,
    Text(char),
}

/// Where `S` puts the sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    None,
    Before,
    After,
}

/// What a pattern says of the whole number.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Digits before and after the point.
    pub before: usize,
    pub after: usize,
    /// Digits that `V` moves before the point.
    pub shift: usize,
    pub anchor: Anchor,
    /// Digits before `S`.
    pub before_sign: usize,
    /// The first `0`, from 1; 0 if there is none.
    pub zero_start: usize,
    pub zero_end: usize,
    pub decimal: bool,
    pub zero: bool,
    pub fill: bool,
    pub locale_sign: bool,
    pub bracket: bool,
    pub minus: bool,
    pub plus: bool,
    pub roman: bool,
    pub shifts: bool,
    pub scientific: bool,
    blank: bool,
}

/// A pattern of numbers.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub(super) nodes: Vec<Node>,
    pub(super) shape: Shape,
}

/// The words of patterns; of those that begin alike, the longer first.
const WORDS: [&str; 18] = [
    ",", ".", "0", "9", "B", "C", "D", "EEEE", "FM", "G", "L", "MI", "PL", "PR", "RN", "SG", "SP",
    "S",
];

fn wrong(message: &str) -> Error {
    Error::user(SqlState::SYNTAX_ERROR, message)
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// Errors: `42601` for words that do not go together.
    pub fn new(text: &str) -> Result<Pattern> {
        let mut pattern = Pattern {
            nodes: Vec::new(),
            shape: Shape {
                before: 0,
                after: 0,
                shift: 0,
                anchor: Anchor::None,
                before_sign: 0,
                zero_start: 0,
                zero_end: 0,
                decimal: false,
                zero: false,
                fill: false,
                locale_sign: false,
                bracket: false,
                minus: false,
                plus: false,
                roman: false,
                shifts: false,
                scientific: false,
                blank: false,
            },
        };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(word) = word_of(rest) {
                rest = &rest[word.len()..];
                let node = pattern.shape.word(word)?;
                pattern.nodes.push(node);
            } else if c == '"' {
                rest = pattern.quoted(&rest[1..]);
            } else {
                // A backslash is special only before a quote.
                let text = rest.strip_prefix('\\').filter(|r| r.starts_with('"'));
                let text = text.unwrap_or(rest);
                let c = text.chars().next().unwrap_or(c);
                pattern.nodes.push(Node::Text(c));
                rest = &text[c.len_utf8()..];
            }
        }
        Ok(pattern)
    }

    /// Reads up to the closing quote; gives what follows it.
    fn quoted<'a>(&mut self, text: &'a str) -> &'a str {
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            let c = match c {
                '"' => break,
                '\\' => characters.next().unwrap_or('\\'),
                c => c,
            };
            self.nodes.push(Node::Text(c));
        }
        characters.as_str()
    }
}

/// The word that a text begins with, in capitals or in small letters.
fn word_of(text: &str) -> Option<&str> {
    let starts = |word: &str, ordinal: &str| {
        let all = [word, ordinal];
        let found = all
            .into_iter()
            .find(|w| !w.is_empty() && text.starts_with(w));
        found.map(str::len)
    };
    let length = WORDS
        .iter()
        .chain(&["TH", "V"])
        .find_map(|word| starts(word, &word.to_ascii_lowercase()))?;
    Some(&text[..length])
}

impl Shape {
    /// Takes a word into account; gives what it is at its position.
    fn word(&mut self, word: &str) -> Result<Node> {
        let upper = word.to_ascii_uppercase();
        if self.scientific && upper != "EEEE" {
            return Err(wrong("\"EEEE\" must be the last pattern used"));
        }
        Ok(match upper.as_str() {
            "9" => self.nine()?,
            "0" => self.zero()?,
            "." | "D" => self.point()?,
            "," => Node::Comma,
            "G" => Node::Thousands,
            "L" => Node::Currency,
            "RN" => {
                self.roman = true;
                Node::Roman(word == "RN")
            }
            "TH" => Node::Ordinal(word == "TH"),
            "MI" => self.own_sign("MI", true, false, Node::Minus)?,
            "PL" => self.own_sign("PL", false, true, Node::Plus)?,
            "SG" => self.own_sign("SG", true, true, Node::Sign)?,
            "S" => self.sign()?,
            "PR" => {
                if self.locale_sign || self.plus || self.minus {
                    return Err(wrong(
                        "cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together",
                    ));
                }
                self.bracket = true;
                Node::Silent
            }
            "V" => {
                if self.decimal {
                    return Err(wrong("cannot use \"V\" and decimal point together"));
                }
                self.shifts = true;
                Node::Silent
            }
            "EEEE" => self.exponent()?,
            "FM" => {
                self.fill = true;
                Node::Silent
            }
            "B" => {
                self.blank |= self.before == 0 && self.after == 0 && !self.zero;
                Node::Silent
            }
            _ => Node::Silent,
        })
    }

    fn nine(&mut self) -> Result<Node> {
        if self.bracket {
            return Err(wrong("\"9\" must be ahead of \"PR\""));
        }
        if self.shifts {
            self.shift += 1;
        } else if self.decimal {
            self.after += 1;
        } else {
            self.before += 1;
        }
        Ok(Node::Nine)
    }

    fn zero(&mut self) -> Result<Node> {
        if self.bracket {
            return Err(wrong("\"0\" must be ahead of \"PR\""));
        }
        if !self.zero && !self.decimal {
            self.zero = true;
            self.zero_start = self.before + 1;
        }
        if self.decimal {
            self.after += 1;
        } else {
            self.before += 1;
        }
        self.zero_end = self.before + self.after;
        Ok(Node::Zero)
    }

    fn point(&mut self) -> Result<Node> {
        if self.decimal {
            return Err(wrong("multiple decimal points"));
        }
        if self.shifts {
            return Err(wrong("cannot use \"V\" and decimal point together"));
        }
        self.decimal = true;
        Ok(Node::Point)
    }

    fn own_sign(&mut self, word: &str, minus: bool, plus: bool, node: Node) -> Result<Node> {
        if self.locale_sign {
            return Err(wrong(&format!("cannot use \"S\" and \"{word}\" together")));
        }
        self.minus |= minus;
        self.plus |= plus;
        Ok(node)
    }

    fn sign(&mut self) -> Result<Node> {
        if self.locale_sign {
            return Err(wrong("cannot use \"S\" twice"));
        }
        if self.plus || self.minus || self.bracket {
            return Err(wrong(
                "cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together",
            ));
        }
        self.locale_sign = true;
        if self.decimal {
            self.anchor = Anchor::After;
        } else {
            self.anchor = Anchor::Before;
            self.before_sign = self.before;
        }
        Ok(Node::Silent)
    }

    fn exponent(&mut self) -> Result<Node> {
        if self.scientific {
            return Err(wrong("cannot use \"EEEE\" twice"));
        }
        let signs = self.locale_sign || self.bracket || self.minus || self.plus;
        if self.blank || self.fill || signs || self.roman || self.shifts {
            return Err(
                wrong("\"EEEE\" is incompatible with other formats").with_detail(
                    "\"EEEE\" may only be used together with digit and decimal point patterns.",
                ),
            );
        }
        self.scientific = true;
        Ok(Node::Silent)
    }
}
