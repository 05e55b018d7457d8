//! Texts that differ in their constants only, as one text: a client that writes its constants into
//! the text of a statement sends another text each time, and parsing it costs more than a lookup.

use crate::parameters::Parameter;
use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator, Value};

/// Longer texts are parsed.
const BYTES_MAX: usize = 1024;

/// A text with `$1`, `$2`, .. in place of its constants.
pub struct Normalised {
    /// The text.
    pub text: String,
    /// The constants.
    pub constants: Vec<Parameter>,
}

/// A single SELECT, INSERT, UPDATE or DELETE of plain words, signs and constants; `None` for
/// whatever else there may be in a text, comments and strings with escapes for example, and for a
/// SELECT with fractions or subtracted constants.
pub fn normalised(text: &str) -> Option<Normalised> {
    let bytes = text.as_bytes();
    let first = |word: &[u8]| bytes[..6].eq_ignore_ascii_case(word);
    if !(6..=BYTES_MAX).contains(&bytes.len()) {
        return None;
    }
    let writes = [b"insert", b"update", b"delete"].iter().any(|w| first(*w));
    if !writes && !first(b"select") {
        return None;
    }
    let mut taken = Normalised {
        text: String::with_capacity(bytes.len()),
        constants: Vec::new(),
    };
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = &text[at..];
        at += match byte {
            b' ' | b'\t' | b'\n' | b'\r' => taken.blank(rest),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => taken.word(rest)?,
            b'0'..=b'9' => taken.number(rest, writes)?,
            b'-' => taken.minus(rest, writes)?,
            b'\'' => taken.string(rest)?,
            b'"' => taken.quoted_name(rest)?,
            b'=' | b',' | b'(' | b')' | b'*' | b'.' => taken.sign(*byte),
            b'[' | b']' | b':' | b'<' | b'>' | b'!' if !writes => taken.sign(*byte),
            b'+' | b'/' | b'%' | b'|' if !rest.starts_with("/*") => taken.sign(*byte),
            b';' if rest[1..].trim().is_empty() => break,
            _ => return None,
        };
    }
    Some(taken)
}

/// Each puts what a text begins with at the end and tells its length.
impl Normalised {
    fn blank(&mut self, rest: &str) -> usize {
        self.text.push(' ');
        let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        rest.bytes().take_while(|b| space(b)).count()
    }

    fn word(&mut self, rest: &str) -> Option<usize> {
        let length = word_length(rest);
        // `E'..'` and its like; letters beyond ASCII.
        let ends = match rest.as_bytes().get(length) {
            Some(next) => next.is_ascii() && !matches!(next, b'\'' | b'"' | b'&'),
            None => true,
        };
        self.text.push_str(&rest[..length]);
        ends.then_some(length)
    }

    fn number(&mut self, rest: &str, fractions: bool) -> Option<usize> {
        let length = number_length(rest, fractions)?;
        self.constant(Expr::Value(
            Value::Number(rest[..length].into(), false).into(),
        ));
        Some(length)
    }

    /// A minus is one of the number behind it where no operand stands before it.
    fn minus(&mut self, rest: &str, writes: bool) -> Option<usize> {
        let before = self.text.trim_end().as_bytes().last();
        if !matches!(before, Some(b'=' | b',' | b'(' | b'<' | b'>')) {
            let of_constant = rest[1..]
                .trim_start()
                .starts_with(|c: char| c.is_ascii_digit());
            let is_sign = !rest.starts_with("--") && (writes || !of_constant);
            return is_sign.then(|| self.sign(b'-'));
        }
        let length = number_length(&rest[1..], writes)?;
        let value = Value::Number(rest[1..=length].into(), false);
        self.constant(Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: Box::new(Expr::Value(value.into())),
        });
        Some(1 + length)
    }

    fn string(&mut self, rest: &str) -> Option<usize> {
        let (text, length) = within(rest, '\'')?;
        let value = Value::SingleQuotedString(text.replace("''", "'"));
        self.constant(Expr::Value(value.into()));
        Some(length)
    }

    fn quoted_name(&mut self, rest: &str) -> Option<usize> {
        let (_, length) = within(rest, '"')?;
        self.text.push_str(&rest[..length]);
        Some(length)
    }

    fn sign(&mut self, byte: u8) -> usize {
        self.text.push(char::from(byte));
        1
    }

    fn constant(&mut self, value: Expr) {
        self.constants.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.constants.len().to_string());
    }
}

fn word_length(rest: &str) -> usize {
    let part = |b: &u8| *b == b'_' || b.is_ascii_alphanumeric();
    rest.bytes().take_while(part).count()
}

/// The length of a number of digits, with a fraction where that may be; `None` for one of another
/// form.
fn number_length(rest: &str, fractions: bool) -> Option<usize> {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let fraction = match fractions && rest[whole..].starts_with('.') {
        true => digits(whole + 1),
        false => 0,
    };
    let length = whole + fraction + usize::from(fraction > 0);
    let part = |b: &u8| *b == b'.' || *b == b'_' || b.is_ascii_alphabetic() || !b.is_ascii();
    let goes_on = rest.as_bytes().get(length).is_some_and(part);
    (whole > 0 && !goes_on).then_some(length)
}

/// What stands within quotes, where two of them are one, and the length with the quotes.
fn within(rest: &str, quote: char) -> Option<(&str, usize)> {
    let mut at = 1;
    loop {
        at += rest.get(at..)?.find(quote)?;
        match rest[at + 1..].starts_with(quote) {
            true => at += 2,
            false => return Some((&rest[1..at], at + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Option<(String, Vec<String>)> {
        let taken = normalised(text)?;
        let constants = taken.constants.iter().map(|c| c.written().to_string());
        let constants = constants.collect();
        Some((taken.text, constants))
    }

    #[test]
    fn constants_are_taken_out() {
        let cases = [
            (
                "select a,\"B 1\" from t1  where k =  17;\n",
                "select a,\"B 1\" from t1 where k = $1",
                vec!["17"],
            ),
            (
                "SELECT * FROM s.t WHERE t.k IN (1,-2, 'it''s')",
                "SELECT * FROM s.t WHERE t.k IN ($1,$2, $3)",
                vec!["1", "-2", "'it''s'"],
            ),
            ("SELECT 1", "SELECT $1", vec!["1"]),
            (
                "SELECT a FROM t WHERE k = ANY ('{1,2}'::int[])",
                "SELECT a FROM t WHERE k = ANY ($1::int[])",
                vec!["'{1,2}'"],
            ),
            (
                "SELECT g, sum(a) - sum(b) FROM t WHERE a <> 5 AND b>=-3 OR 'x' <= c||'y' LIMIT 7",
                "SELECT g, sum(a) - sum(b) FROM t WHERE a <> $1 AND b>=$2 OR $3 <= c||$4 LIMIT $5",
                vec!["5", "-3", "'x'", "'y'", "7"],
            ),
            (
                "INSERT INTO t VALUES (1, -2.5, 'x')",
                "INSERT INTO t VALUES ($1, $2, $3)",
                vec!["1", "-2.5", "'x'"],
            ),
            (
                "update t set a=a-1, b = b * -2 + 3 where k = -7",
                "update t set a=a-$1, b = b * -$2 + $3 where k = $4",
                vec!["1", "2", "3", "-7"],
            ),
        ];
        for (text, wanted, constants) in cases {
            let (text, found) = taken(text).unwrap();
            assert_eq!(
                (text.as_str(), found),
                (wanted, constants.iter().map(ToString::to_string).collect())
            );
        }
    }

    #[test]
    fn what_may_mean_something_else_is_left_alone() {
        let texts = [
            "SELECT a FROM t WHERE k = 1 -- no",
            "SELECT a FROM t WHERE k = 1 /* no */",
            "SELECT a FROM t WHERE k = E'\\n'",
            "SELECT a FROM t WHERE k = U&\"x\"",
            "SELECT a FROM t WHERE k = $1",
            "SELECT a FROM t WHERE k = 1.5",
            "SELECT a FROM t WHERE k = 1e5",
            "SELECT a FROM t WHERE k = 1 - 2 = 3",
            "SELECT a FROM t WHERE k-1 = 3",
            "SELECT a FROM t WHERE k = 'open",
            "SELECT a FROM t WHERE k = 1; DROP TABLE t",
            "SELECT a FROM t WHERE ö = 1",
            "INSERT INTO t VALUES (1e5)",
            "INSERT INTO t VALUES (1.)",
            "UPDATE t SET a = 1 --no",
            "UPDATE t SET a = 1 /* no */",
            "UPDATE t SET a = a - -- no",
            "EXPLAIN SELECT 1",
            "SEL",
        ];
        for text in texts {
            assert!(taken(text).is_none(), "{text}");
        }
    }
}
