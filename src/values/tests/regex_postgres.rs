//! Regular expressions against PostgreSQL: `regex_postgres.tsv` holds questions with the answers
//! that PostgreSQL 15 gave, one a line, fields between tabs: operation, arguments, answer. An error
//! is `!SQLSTATE message`. The calculator is the example `regex_calc`.

#[allow(dead_code)]
#[path = "../examples/regex_calc.rs"]
mod regex_calc;

#[test]
fn answers_are_postgresqls() {
    let mut wrong = Vec::new();
    let lines = include_str!("regex_postgres.tsv").lines();
    for line in lines.clone() {
        let mut fields = regex_calc::fields(line);
        let expected = fields.pop().expect("a line has an answer");
        let answer = regex_calc::shown(&fields[0], &fields[1..]);
        if answer != expected {
            wrong.push(format!("{line}\n  ours {answer:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(lines.count() > 350);
}
