//! A calculator of `to_char` and `to_number` for comparisons with PostgreSQL: a question a line,
//! fields between tabs: the type of the number, or `to_number`, the value, the pattern and the
//! answer, in bars.

use tidemark_common::{Error, Result};
use tidemark_values::number_format::{Number, Pattern};
use tidemark_values::numeric::Numeric;

/// The answer to a question, or `!SQLSTATE message`.
pub fn shown(operation: &str, value: &str, pattern: &str) -> String {
    match answer(operation, value, pattern) {
        Ok(text) => format!("|{text}|"),
        Err(e) => format!("!{} {}", e.state().0, e.message()),
    }
}

fn answer(operation: &str, value: &str, pattern: &str) -> Result<String> {
    let is_empty = pattern.is_empty();
    let pattern = Pattern::new(pattern)?;
    if operation == "to_number" {
        if is_empty {
            return Ok("<null>".into());
        }
        return Ok(pattern.to_number(value)?.to_string());
    }
    let bad = |_| Error::internal("no number");
    let mut out = String::new();
    match operation {
        "int4" => pattern.to_char(&Number::Int4(value.parse().map_err(|_| bad(()))?), &mut out),
        "int8" => pattern.to_char(&Number::Int8(value.parse().map_err(|_| bad(()))?), &mut out),
        "float4" => pattern.to_char(
            &Number::Float4(value.parse().map_err(|_| bad(()))?),
            &mut out,
        ),
        "float8" => pattern.to_char(
            &Number::Float8(value.parse().map_err(|_| bad(()))?),
            &mut out,
        ),
        _ => pattern.to_char(&Number::Numeric(&Numeric::parse(value)?), &mut out),
    }?;
    Ok(out)
}

#[allow(dead_code)]
fn main() {
    for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
        let fields: Vec<&str> = line.split('\t').collect();
        let answer = shown(fields[0], fields[1], fields[2]);
        if answer != fields[3] {
            println!("{line}\n  ours {answer}");
        }
    }
}
