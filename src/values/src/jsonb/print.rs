//! Printing a value as PostgreSQL does: `{"a": 1, "bb": [1, null]}`, or over several lines as
//! `jsonb_pretty`. The text is appended to a `String`; nesting is a stack on the heap.

use std::fmt;

use tidemark_common::error::Result;

use super::format::{self, damaged};
use super::number;
use super::value::Value;

/// A container that is being printed: how many keys and values are left, and which bracket closes.
struct Open {
    remaining: usize,
    object: bool,
}

impl Value<'_> {
    /// Appends the value as PostgreSQL prints a `jsonb`.
    pub fn print(&self, out: &mut String) -> Result<()> {
        self.print_all(out, false)
    }

    /// Appends the value as `jsonb_pretty` prints it: four spaces a level.
    pub fn pretty(&self, out: &mut String) -> Result<()> {
        self.print_all(out, true)
    }

    fn print_all(&self, out: &mut String, lines: bool) -> Result<()> {
        let key = self.key;
        let mut at = self.at;
        let mut scales = self.scales;
        let mut open: Vec<Open> = Vec::new();
        loop {
            let tag = format::tag(key, at)?;
            match tag {
                format::NULL | format::FALSE | format::TRUE => {
                    at += 1;
                    out.push_str(match tag {
                        format::NULL => "null",
                        format::FALSE => "false",
                        _ => "true",
                    });
                }
                format::STRING => {
                    let (text, end) = format::string(key, at)?;
                    escape(out, text);
                    at = end;
                }
                format::NUMBER => at = number::print(out, key, at + 1, scales.extra_at(at))?,
                format::EMPTY_TOP | format::ARRAY | format::OBJECT => {
                    let object = tag == format::OBJECT;
                    let (count, end) = match tag {
                        format::EMPTY_TOP => (0, at + 1),
                        _ => format::count(key, at + 1)?,
                    };
                    at = end;
                    out.push(if object { '{' } else { '[' });
                    let remaining = if object { 2 * count } else { count };
                    open.push(Open { remaining, object });
                    if count > 0 {
                        if lines {
                            indent(out, open.len());
                        }
                        continue;
                    }
                    // Nothing is in it; what closes it below counts it as a value of its parent.
                    open.pop();
                    if lines {
                        indent(out, open.len());
                    }
                    out.push(if object { '}' } else { ']' });
                }
                _ => return Err(damaged()),
            }
            if after_value(out, &mut open, lines) {
                return Ok(());
            }
        }
    }
}

/// Prints what stands between a value and the next one; true where there is no next one.
fn after_value(out: &mut String, open: &mut Vec<Open>, lines: bool) -> bool {
    loop {
        let depth = open.len();
        let Some(top) = open.last_mut() else {
            return true;
        };
        top.remaining -= 1;
        if top.object && top.remaining % 2 == 1 {
            out.push_str(": ");
            return false;
        }
        if top.remaining > 0 {
            out.push(',');
            if lines {
                indent(out, depth);
            } else {
                out.push(' ');
            }
            return false;
        }
        let close = if top.object { '}' } else { ']' };
        open.pop();
        if lines {
            indent(out, open.len());
        }
        out.push(close);
    }
}

fn indent(out: &mut String, level: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", level));
}

/// Appends `text` as a JSON string, with PostgreSQL's escapes.
pub(super) fn escape(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(i) = rest
        .bytes()
        .position(|b| b < b' ' || b == b'"' || b == b'\\')
    {
        out.push_str(&rest[..i]);
        match rest.as_bytes()[i] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x0C => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(b >> 4)]));
                out.push(char::from(HEX[usize::from(b & 15)]));
            }
        }
        rest = &rest[i + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.print(&mut out).map_err(|_| fmt::Error)?;
        f.write_str(&out)
    }
}
