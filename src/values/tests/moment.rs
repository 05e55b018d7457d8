//! Cases that PostgreSQL 15 has answered: `operation`, arguments and answer, separated by tabs.

#[path = "moment/answer.rs"]
mod answer;

#[test]
fn answers_are_postgresqls() {
    let mut wrong = Vec::new();
    let cases = include_str!("moment/cases.tsv");
    for line in cases.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [operation, arguments @ .., expected] = &fields[..] else {
            panic!("no case: {line}");
        };
        let answer = answer::answer_text(operation, arguments, 0);
        if answer != *expected {
            wrong.push(format!("{line}\n    but: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.lines().count() > 200);
}
