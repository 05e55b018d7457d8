//! `to_char` and `to_number` of numbers against PostgreSQL: `number_format_postgres.tsv` holds
//! questions with the answers that PostgreSQL 15 gave, one a line, fields between tabs: type of the
//! number or `to_number`, value, pattern, answer. An error is `!SQLSTATE message`. The calculator
//! is the example `number_format_calc`.

#[allow(dead_code)]
#[path = "../examples/number_format_calc.rs"]
mod number_format_calc;

#[test]
fn answers_are_postgresqls() {
    let mut wrong = Vec::new();
    let lines = include_str!("number_format_postgres.tsv").lines();
    for line in lines.clone() {
        let fields: Vec<&str> = line.split('\t').collect();
        let answer = number_format_calc::shown(fields[0], fields[1], fields[2]);
        if answer != fields[3] {
            wrong.push(format!("{line}\n  ours {answer}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(lines.count() > 250);
}
