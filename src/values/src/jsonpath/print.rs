//! A path's normal form: what PostgreSQL's type `jsonpath` prints. It reads as the same path, so
//! what has accessors behind it is in parentheses; PostgreSQL leaves some of them out (`-$.type()`
//! for `(-$).type()`, `exists ($).type()`).

use super::{Arithmetic, Chain, Comparison, Method, Op, Path, PatternFlags, Sign};
use std::fmt::{self, Display, Formatter, Write};

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.lax {
            f.write_str("strict ")?;
        }
        chain(f, &self.chain, true)
    }
}

/// The parts that an operation computes with.
pub(super) fn operands(op: &Op) -> Vec<&Chain> {
    match op {
        Op::Unary(_, a) | Op::Not(a) | Op::IsUnknown(a) | Op::Exists(a) | Op::LikeRegex(a, _) => {
            vec![a]
        }
        Op::Binary(_, a, b)
        | Op::Compare(_, a, b)
        | Op::And(a, b)
        | Op::Or(a, b)
        | Op::StartsWith(a, b) => vec![a, b],
        _ => Vec::new(),
    }
}

/// How close an operation holds together what it stands between.
fn priority(op: &Op) -> u8 {
    match op {
        Op::Or(..) => 0,
        Op::And(..) => 1,
        Op::Compare(..) | Op::StartsWith(..) => 2,
        Op::Binary(Arithmetic::Add | Arithmetic::Subtract, ..) => 3,
        Op::Binary(..) => 4,
        Op::Unary(..) => 5,
        _ => 6,
    }
}

/// A part of an operation; in parentheses where it holds together no closer.
fn operand(f: &mut Formatter<'_>, part: &[Op], outer: &Op) -> fmt::Result {
    let brackets = part.first().is_some_and(|p| priority(p) <= priority(outer));
    chain(f, part, brackets)
}

/// Operations are in parentheses where there are `brackets` or accessors behind them.
fn chain(f: &mut Formatter<'_>, chain: &[Op], brackets: bool) -> fmt::Result {
    let Some((head, accessors)) = chain.split_first() else {
        return Ok(());
    };
    value(
        f,
        head,
        brackets || !accessors.is_empty(),
        !accessors.is_empty(),
    )?;
    accessors.iter().try_for_each(|a| accessor(f, a))
}

fn value(f: &mut Formatter<'_>, op: &Op, brackets: bool, accessed: bool) -> fmt::Result {
    match op {
        Op::Null => f.write_str("null"),
        Op::Bool(truth) => write!(f, "{truth}"),
        Op::Number(number) if accessed => write!(f, "({number})"),
        Op::Number(number) => write!(f, "{number}"),
        Op::Text(text) => quoted(f, text),
        Op::Variable(name) => {
            f.write_char('$')?;
            quoted(f, name)
        }
        Op::Root => f.write_char('$'),
        Op::Current => f.write_char('@'),
        Op::Last => f.write_str("last"),
        Op::Exists(_) | Op::Not(_) | Op::IsUnknown(_) if accessed => {
            f.write_char('(')?;
            value(f, op, false, false)?;
            f.write_char(')')
        }
        Op::Exists(part) => {
            f.write_str("exists (")?;
            chain(f, part, false)?;
            f.write_char(')')
        }
        Op::Not(part) => {
            f.write_str("!(")?;
            chain(f, part, false)?;
            f.write_char(')')
        }
        Op::IsUnknown(part) => {
            f.write_char('(')?;
            chain(f, part, false)?;
            f.write_str(") is unknown")
        }
        op if brackets => {
            f.write_char('(')?;
            operation(f, op)?;
            f.write_char(')')
        }
        op => operation(f, op),
    }
}

fn operation(f: &mut Formatter<'_>, op: &Op) -> fmt::Result {
    let infix = match op {
        Op::Binary(arithmetic, ..) => arithmetic.symbol(),
        Op::Compare(comparison, ..) => comparison.symbol(),
        Op::And(..) => "&&",
        Op::Or(..) => "||",
        Op::StartsWith(..) => "starts with",
        Op::Unary(sign, part) => {
            f.write_char(match sign {
                Sign::Plus => '+',
                Sign::Minus => '-',
            })?;
            return operand(f, part, op);
        }
        Op::LikeRegex(part, pattern) => {
            operand(f, part, op)?;
            f.write_str(" like_regex ")?;
            quoted(f, &pattern.text)?;
            return pattern.flags.print(f);
        }
        _ => return Ok(()),
    };
    if let [left, right] = operands(op)[..] {
        operand(f, left, op)?;
        write!(f, " {infix} ")?;
        operand(f, right, op)?;
    }
    Ok(())
}

fn accessor(f: &mut Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::Key(key) => {
            f.write_char('.')?;
            quoted(f, key)
        }
        Op::AnyKey => f.write_str(".*"),
        Op::AnyElement => f.write_str("[*]"),
        Op::Subscripts(subscripts) => {
            for (i, (from, to)) in subscripts.iter().enumerate() {
                f.write_char(if i == 0 { '[' } else { ',' })?;
                chain(f, from, false)?;
                if let Some(to) = to {
                    f.write_str(" to ")?;
                    chain(f, to, false)?;
                }
            }
            f.write_char(']')
        }
        Op::AnyLevel(first, last) => levels(f, *first, *last),
        Op::Filter(condition) => {
            f.write_str("?(")?;
            chain(f, condition, false)?;
            f.write_char(')')
        }
        Op::Method(method) => write!(f, ".{}()", Method::name(*method)),
        Op::Datetime(template) => {
            f.write_str(".datetime(")?;
            template.iter().try_for_each(|text| quoted(f, text))?;
            f.write_char(')')
        }
        _ => Ok(()),
    }
}

fn levels(f: &mut Formatter<'_>, first: u32, last: u32) -> fmt::Result {
    let level = |level: u32| match level {
        u32::MAX => "last".to_string(),
        level => level.to_string(),
    };
    match (first, last) {
        (0, u32::MAX) => f.write_str(".**"),
        (first, last) if first == last => write!(f, ".**{{{}}}", level(first)),
        (first, last) => write!(f, ".**{{{} to {}}}", level(first), level(last)),
    }
}

impl Comparison {
    fn symbol(self) -> &'static str {
        match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::Greater => ">",
            Comparison::LessOrEqual => "<=",
            Comparison::GreaterOrEqual => ">=",
        }
    }
}

impl PatternFlags {
    fn print(self, f: &mut Formatter<'_>) -> fmt::Result {
        let letters = [
            (self.ignore_case, 'i'),
            (self.dot_all, 's'),
            (self.lines, 'm'),
            (self.expanded, 'x'),
            (self.quote, 'q'),
        ];
        let letters: String = letters
            .iter()
            .filter(|(set, _)| *set)
            .map(|l| l.1)
            .collect();
        match letters.as_str() {
            "" => Ok(()),
            letters => write!(f, " flag \"{letters}\""),
        }
    }
}

/// A text as JSON has it.
fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '\x08' => f.write_str("\\b")?,
            '\x0c' => f.write_str("\\f")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}
