//! Calculates with numerics as PostgreSQL does: reads lines `operation argument...`, separated by
//! tabs, from standard input and prints one answer a line; an error as `!SQLSTATE message|detail`.
//!
//! Made for comparing many answers with PostgreSQL's. Aggregates take any number of arguments.

use std::io::{BufRead, Write};

use tidemark_common::{Error, Result};
use tidemark_values::numeric::{Numeric, Sum};

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split('\t').collect();
        writeln!(out, "{}", shown(words[0], &words[1..]))?;
    }
    Ok(())
}

/// The answer as a line of text, also if it is an error.
pub fn shown(operation: &str, arguments: &[&str]) -> String {
    answer(operation, arguments).unwrap_or_else(|e| {
        format!(
            "!{} {}|{}",
            e.state().0,
            e.message(),
            e.detail().unwrap_or_default()
        )
    })
}

fn answer(operation: &str, arguments: &[&str]) -> Result<String> {
    if let Some(name) = operation.strip_prefix("agg_") {
        return aggregate(name, arguments);
    }
    let text = |at: usize| arguments.get(at).copied().unwrap_or_default();
    let number = |at: usize| Numeric::parse(text(at));
    let integer = |at: usize| {
        text(at)
            .parse::<i32>()
            .map_err(|e| Error::internal(e.to_string()))
    };
    let show = |v: Numeric| Ok(v.to_string());
    let show_scale =
        |scale: Option<u16>| Ok(scale.map_or_else(|| "null".to_owned(), |v| v.to_string()));
    match operation {
        "in" => show(number(0)?),
        "add" => show(number(0)?.add(&number(1)?)?),
        "sub" => show(number(0)?.sub(&number(1)?)?),
        "mul" => show(number(0)?.mul(&number(1)?)?),
        "div" => show(number(0)?.div(&number(1)?)?),
        "mod" => show(number(0)?.modulo(&number(1)?)?),
        "div_trunc" => show(number(0)?.div_trunc(&number(1)?)?),
        "power" => show(number(0)?.power(&number(1)?)?),
        "log" => show(number(1)?.log(&number(0)?)?),
        "gcd" => show(number(0)?.gcd(&number(1)?)),
        "lcm" => show(number(0)?.lcm(&number(1)?)?),
        "cmp" => Ok((number(0)?.cmp(&number(1)?) as i32).to_string()),
        "neg" => show(number(0)?.negated()),
        "abs" => show(number(0)?.abs()),
        "sign" => show(number(0)?.sign()),
        "ceil" => show(number(0)?.ceil()?),
        "floor" => show(number(0)?.floor()?),
        "sqrt" => show(number(0)?.sqrt()?),
        "exp" => show(number(0)?.exp()?),
        "ln" => show(number(0)?.ln()?),
        "log10" => show(number(0)?.log10()?),
        "trim_scale" => show(number(0)?.trim_scale()),
        "scale" => show_scale(number(0)?.scale()),
        "min_scale" => show_scale(number(0)?.min_scale()),
        "round" => show(number(0)?.round(integer(1)?)?),
        "trunc" => show(number(0)?.trunc(integer(1)?)?),
        "fit" => show(number(0)?.fit(integer(1)?, integer(2)?)?),
        "int8" => Ok(number(0)?.to_i64()?.to_string()),
        "int4" => Ok(number(0)?.to_i32()?.to_string()),
        "int2" => Ok(number(0)?.to_i16()?.to_string()),
        "float8" => Ok(format!("{:016x}", number(0)?.to_f64()?.to_bits())),
        "float4" => Ok(format!("{:08x}", number(0)?.to_f32()?.to_bits())),
        "from_float8" => show(Numeric::from(text(0).parse::<f64>().unwrap_or(f64::NAN))),
        "from_float4" => show(Numeric::from(text(0).parse::<f32>().unwrap_or(f32::NAN))),
        "factorial" => show(Numeric::factorial(text(0).parse().unwrap_or(i64::MIN))?),
        "width_bucket" => Ok(number(0)?
            .width_bucket(&number(1)?, &number(2)?, integer(3)?)?
            .to_string()),
        "send" => {
            let mut bytes = Vec::new();
            number(0)?.write_wire(&mut bytes);
            if Numeric::read_wire(&bytes)?.to_string() != number(0)?.to_string() {
                return Err(Error::internal("read differs from what was written"));
            }
            Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
        }
        "recv" => show(Numeric::read_wire(&unhex(text(0)))?),
        _ => Err(Error::internal(format!("unknown operation {operation}"))),
    }
}

/// The bytes that hexadecimal digits stand for.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks_exact(2)
        .map(|p| digit(&p[0]) << 4 | digit(&p[1]))
        .collect()
}

fn aggregate(name: &str, arguments: &[&str]) -> Result<String> {
    let mut sum = Sum::with_squares();
    for text in arguments {
        sum.add(&Numeric::parse(text)?);
    }
    let result = match name {
        "sum" => sum.sum()?,
        "avg" => sum.avg()?,
        "var_pop" => sum.var_pop()?,
        "var_samp" => sum.var_samp()?,
        "stddev_pop" => sum.stddev_pop()?,
        "stddev_samp" => sum.stddev_samp()?,
        _ => return Err(Error::internal(format!("unknown aggregate {name}"))),
    };
    Ok(result.map_or_else(|| "null".to_owned(), |v| v.to_string()))
}
