//! Numerics against PostgreSQL: `numeric_postgres.txt` holds operations with the answers that
//! PostgreSQL 15 gave, one a line: `operation argument... => answer`, separated by tabs. An error
//! is `!SQLSTATE message|detail`. The calculator is the example `numeric_calc`.

#[allow(dead_code)]
#[path = "../examples/numeric_calc.rs"]
mod numeric_calc;

#[test]
fn answers_are_postgresqls() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("numeric_postgres.txt").lines() {
        let Some((question, expected)) = line.split_once("\t=> ") else {
            panic!("no answer in {line:?}");
        };
        let words: Vec<&str> = question.split('\t').collect();
        let answer = numeric_calc::shown(words[0], &words[1..]);
        if answer != expected {
            wrong.push(format!(
                "{question}\n  ours       {answer}\n  PostgreSQL {expected}"
            ));
        }
        count += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} answers differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 300, "only {count} cases");
}
