//! Evaluates `jsonb` operations for comparison with PostgreSQL: lines `op<TAB>arg<TAB>arg..` from
//! standard input, one answer a line. Arguments are JSON text, but for keys and integers, which are
//! text, and `text[]`, which is a JSON array of strings and nulls. In arguments and answers a
//! backslash, a tabulator and a new line are written `\\`, `\t` and `\n`.
//!
//! An answer is a value as it prints, `NULL`, or `error <code> <message> [| <detail>]`.

mod calculate;

use std::io::{self, BufRead, BufWriter, Write};

fn main() -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let args: Vec<String> = line.split('\t').map(calculate::unescape).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        writeln!(out, "{}", calculate::escape(&calculate::answer(&args)))?;
    }
    out.flush()
}
