//! Functions of floats against PostgreSQL: `float_postgres.tsv` holds questions with the answers
//! that PostgreSQL 15 gave, one a line, fields between tabs: operation, arguments, answer. An error
//! is `!SQLSTATE message`. The calculator is the example `float_calc`.

#[allow(dead_code)]
#[path = "../examples/float_calc.rs"]
mod float_calc;

#[test]
fn answers_are_postgresqls() {
    let mut wrong = Vec::new();
    let lines = include_str!("float_postgres.tsv").lines();
    for line in lines.clone() {
        let (operation, arguments, expected) = float_calc::read(line);
        let answer = float_calc::shown(&operation, &arguments);
        if answer != float_calc::comparable(&expected) {
            wrong.push(format!("{line}\n  ours {answer}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(lines.count() > 400);
}
