//! Computes with moments from a script: lines `op<TAB>arg<TAB>arg..` in, one answer a line out, a
//! refusal as `!SQLSTATE message`. `MOMENT_NOW` is the transaction's time in microseconds.

use std::io::{BufRead, Write};

#[path = "../tests/moment/answer.rs"]
mod answer;
use answer::answer_text;

fn main() -> std::io::Result<()> {
    let now = std::env::var("MOMENT_NOW")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        writeln!(out, "{}", answer_text(fields[0], &fields[1..], now))?;
    }
    out.flush()
}
