//! PostgreSQL 15's answers, replayed: `jsonb_postgres.tsv` holds lines
//! `answer<TAB>op<TAB>arg<TAB>arg..` in the form that `examples/jsonb_calc` reads and writes. They
//! were chosen from random cases so that each operation has every kind of answer and error.

#[path = "../examples/jsonb_calc/calculate.rs"]
mod calculate;

use calculate::{answer, escape, unescape};

#[test]
fn answers_are_postgresqls() {
    let mut wrong = Vec::new();
    for line in include_str!("jsonb_postgres.tsv").lines() {
        let (expected, case) = line.split_once('\t').unwrap_or((line, ""));
        let args: Vec<String> = case.split('\t').map(unescape).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let found = escape(&answer(&args));
        if found != expected {
            wrong.push(format!(
                "{case}\n  PostgreSQL: {expected}\n  here:       {found}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
