//! Texts to numbers.

use super::pattern::{Node, Pattern, Shape};
use crate::numeric::Numeric;
use tidemark_common::{Error, Result, SqlState};

impl Pattern {
    /// The number that a text says.
    ///
    /// Errors: `22P02` for a text without a number, `0A000` for `RN` and `EEEE`.
    pub fn to_number(&self, text: &str) -> Result<Numeric> {
        let shape = &self.shape;
        if shape.scientific {
            return Err(Error::unsupported("\"EEEE\" not supported for input"));
        }
        if shape.roman {
            return Err(Error::unsupported("\"RN\" not supported for input"));
        }
        let mut reader = Reader {
            shape,
            text,
            at: 0,
            sign: ' ',
            number: String::new(),
            before: 0,
            after: 0,
            point: false,
        };
        reader.read(&self.nodes);
        let after = reader.after;
        let digits = reader.number.strip_suffix('.').unwrap_or(&reader.number);
        let number = Numeric::parse(&format!("{}{digits}", reader.sign))?;
        let precision = shape.before + shape.shift + after;
        let number = if precision > 0 {
            number.fit(precision as i32, after as i32)?
        } else if number.round(0)? == Numeric::ZERO {
            Numeric::ZERO
        } else {
            return Err(Error::user(
                SqlState::NUMERIC_OUT_OF_RANGE,
                "numeric field overflow",
            ));
        };
        if !shape.shifts {
            return Ok(number);
        }
        let ten = Numeric::from(10i64);
        let power = ten.power(&Numeric::from(-(shape.shift as i64)))?;
        number.mul(&power)
    }
}

struct Reader<'a> {
    shape: &'a Shape,
    text: &'a str,
    at: usize,
    sign: char,
    number: String,
    /// Digits read before and after the point.
    before: usize,
    after: usize,
    point: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    /// Skips what is no part of a number.
    fn skip_other(&mut self, characters: usize) {
        for _ in 0..characters {
            match self.peek() {
                Some(c) if !"0123456789.,+-".contains(c) => self.skip(),
                _ => return,
            }
        }
    }

    fn read(&mut self, nodes: &[Node]) {
        for node in nodes {
            if self.at >= self.text.len() {
                return;
            }
            let signs: &[char] = match node {
                Node::Nine | Node::Zero => {
                    self.digit(true);
                    continue;
                }
                Node::Point => {
                    self.digit(false);
                    continue;
                }
                Node::Comma | Node::Thousands => {
                    // Nothing counts as a number that was written before.
                    if !self.shape.fill && self.peek() == Some(',') {
                        self.skip();
                    }
                    continue;
                }
                Node::Currency => {
                    self.skip_other(1);
                    continue;
                }
                Node::Ordinal(_) => {
                    if self.sign != '-' && !self.shape.decimal {
                        self.skip_other(2);
                    }
                    continue;
                }
                Node::Text(_) => {
                    self.skip();
                    continue;
                }
                Node::Roman(_) | Node::Silent => continue,
                Node::Minus => &['-'],
                Node::Plus => &['+'],
                Node::Sign => &['-', '+'],
            };
            match self.peek().filter(|c| signs.contains(c)) {
                Some(sign) => {
                    self.sign = sign;
                    self.skip();
                }
                None => self.skip_other(1),
            }
        }
    }

    /// A position of the number.
    fn digit(&mut self, is_digit: bool) {
        if self.peek() == Some(' ') {
            self.skip();
        }
        if self.sign == ' ' && is_digit && self.before + self.after == 0 {
            self.leading_sign();
        }
        let mut read = false;
        // What was looked at is passed, whatever it was.
        let looked = self.at;
        match self.peek() {
            None => return,
            Some(c @ '0'..='9') => {
                if self.point && self.after == self.shape.after {
                    self.skip();
                    return;
                }
                self.number.push(c);
                if self.point {
                    self.after += 1;
                } else {
                    self.before += 1;
                }
                read = true;
            }
            Some('.') if self.shape.decimal && !self.point => {
                self.number.push('.');
                self.point = true;
                read = true;
            }
            Some(_) => {}
        }
        if self.sign == ' ' && self.before + self.after > 0 {
            self.trailing_sign(read);
        }
        if self.at == looked {
            self.skip();
        }
    }

    fn leading_sign(&mut self) {
        let brackets = self.shape.bracket && !self.shape.locale_sign;
        match self.peek() {
            Some(sign @ ('-' | '+')) => {
                self.sign = sign;
                self.skip();
            }
            Some('<') if brackets => {
                self.sign = '-';
                self.skip();
            }
            _ => {}
        }
    }

    /// A sign behind the last digit.
    fn trailing_sign(&mut self, read: bool) {
        let next = self.text[self.at..].chars().nth(1);
        if self.shape.locale_sign {
            if let Some(sign @ ('-' | '+')) = next.filter(|_| read) {
                self.sign = sign;
                self.skip();
                self.skip();
            }
        } else if !read
            && (self.shape.plus || self.shape.minus)
            && let Some(sign @ ('-' | '+')) = self.peek()
        {
            self.sign = sign;
        }
    }
}
