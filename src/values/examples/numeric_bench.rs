//! Measures numerics: nanoseconds for one addition of two encoded values (decode both, add,
//! encode), one parse, one print, and one row into a sum.

#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use tidemark_values::numeric::{Numeric, Sum, compare};

const ROUNDS: u32 = 3000;

fn main() {
    for (name, texts) in [
        ("prices", prices()),
        ("30 digits", wide()),
        ("60 digits", huge()),
    ] {
        measure(name, &texts);
    }
}

/// Such as 12345.67.
fn prices() -> Vec<String> {
    (0..1000u64)
        .map(|i| format!("{}.{:02}", i * 7919 % 99_991, i * 31 % 100))
        .collect()
}

fn wide() -> Vec<String> {
    (0..1000u64)
        .map(|i| format!("{}{:018}.{:06}", 1 + i * 37, i * 7919, i * 31))
        .collect()
}

fn huge() -> Vec<String> {
    (0..1000u64)
        .map(|i| format!("{}{:048}.{:06}", 1 + i * 37, i * 7919, i * 31))
        .collect()
}

/// The time of one call, in nanoseconds: of the fastest round, since others may have been
/// interrupted.
fn time(what: &str, mut run: impl FnMut(usize)) {
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for at in 0..1000 {
            run(at);
        }
        best = best.min(start.elapsed().as_nanos());
    }
    println!("  {what:<28} {:8.1} ns", best as f64 / 1000.0);
}

fn measure(name: &str, texts: &[String]) {
    let values: Vec<Numeric> = texts
        .iter()
        .filter_map(|t| Numeric::parse(t).ok())
        .collect();
    let forms: Vec<Vec<u8>> = values
        .iter()
        .map(|v| {
            let mut form = Vec::new();
            v.encode(&mut form);
            form
        })
        .collect();
    let length = forms.iter().map(Vec::len).sum::<usize>() as f64 / forms.len() as f64;
    println!("{name}: {length:.1} bytes each");
    let mut out = Vec::new();
    time("add (decode both, encode)", |at| {
        let (a, b) = (
            Numeric::decode(&forms[at]),
            Numeric::decode(&forms[999 - at]),
        );
        if let (Ok(a), Ok(b)) = (a, b)
            && let Ok(sum) = a.add(&b)
        {
            out.clear();
            sum.encode(&mut out);
            black_box(&out);
        }
    });
    time("decode", |at| {
        black_box(Numeric::decode(&forms[at]).is_ok());
    });
    time("encode", |at| {
        out.clear();
        values[at].encode(&mut out);
        black_box(&out);
    });
    time("compare encoded", |at| {
        black_box(compare(&forms[at], &forms[999 - at]));
    });
    time("multiply", |at| {
        black_box(values[at].mul(&values[999 - at]).is_ok());
    });
    time("divide", |at| {
        black_box(values[at].div(&values[999 - at]).is_ok());
    });
    time("parse", |at| {
        black_box(Numeric::parse(&texts[at]).is_ok());
    });
    let mut text = String::new();
    time("print", |at| {
        text.clear();
        black_box(values[at].write_to(&mut text).is_ok());
        black_box(&text);
    });
    let mut sum = Sum::new();
    time("into a sum", |at| sum.add(&values[at]));
    black_box(&sum);
}
