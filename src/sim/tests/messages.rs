//! What users read when something is wrong: no message speaks of what is below (Arrow, the query
//! engine), and the codes are PostgreSQL's.
//!
//! `bad_statements.txt` has one statement a line, behind PostgreSQL 15's code for it (`00000` where
//! it takes the statement). Ours has the same code, or refuses with `0A000`; a `!` behind the code
//! says that it has another one still, and is wrong once it has not: there may only be fewer.
//! Queries are also made views, whose codes are not compared.

use crate::sql::root;
use tidemark_sim::client::{ClientError, Session};
use tidemark_sim::server::Server;

/// What those below say.
const FOREIGN: [&str; 41] = [
    "Utf8",
    "LargeUtf8",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt",
    "Decimal128",
    "Decimal256",
    "LargeBinary",
    "BinaryView",
    "Float32",
    "Float64",
    "Date32",
    "Time64",
    "Timestamp(",
    "Interval(",
    "Duration(",
    "List(",
    "Struct(",
    "Dictionary(",
    "ScalarValue",
    "DataFusion",
    "datafusion",
    "Arrow",
    "arrow",
    "Some(",
    "None",
    "Expr",
    "Column {",
    "Column(",
    "Literal(",
    "physical plan",
    "logical plan",
    "Schema error",
    "Internal error",
    "internal error",
    "int32",
    "int64",
    "utf8",
    "XX000",
];

const SETUP: &str = "
    CREATE TABLE t (a int PRIMARY KEY, b text, n numeric, d date, ts timestamp, tz timestamptz,
                    i interval, j jsonb, f float8, bl boolean, u uuid, y bytea, arr int[], tm time);
    INSERT INTO t VALUES (1, 'x', 1.5, '2024-01-01', '2024-01-01', '2024-01-01', '1 day',
                          '{\"a\": 1}', 1.5, true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
                          '\\x00ff', '{1,2}', '12:00')";

/// The first foreign word in what is not in quotes, where users' own words stand.
fn foreign(message: &str) -> Option<&'static str> {
    let ours: String = message.split('"').step_by(2).collect();
    FOREIGN.into_iter().find(|word| ours.contains(word))
}

struct Bad<'a> {
    code: &'a str,
    /// Whether it is known to differ; `None` where nobody asks.
    differs: Option<bool>,
    sql: &'a str,
}

fn bad_statements(text: &str) -> impl Iterator<Item = Bad<'_>> {
    let lines = text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.map(|line| {
        let (code, sql) = line.split_once(' ').expect("a code and a statement");
        Bad {
            code: code.trim_end_matches('!'),
            differs: Some(code.ends_with('!')),
            sql,
        }
    })
}

/// What is wrong with an answer.
fn complaint(bad: &Bad, answer: &Result<(), ClientError>) -> Option<String> {
    let (code, message) = match answer {
        Ok(()) => ("00000", String::new()),
        Err(e) => (e.state.as_str(), format!("{} {}", e.message, e.more)),
    };
    if let Some(word) = foreign(&message) {
        return Some(format!("says {word}: {message}"));
    }
    if code == "XX000" || code == "08006" {
        return Some(format!("{code}: {message}"));
    }
    let same = code == bad.code || code == "0A000";
    match bad.differs {
        Some(false) if !same => Some(format!("{code} instead of {}: {message}", bad.code)),
        Some(true) if same => Some("is no exception any more: its ! goes".to_string()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sqls() {
    let path = root().join("src/sim/tests/bad_statements.txt");
    let text = std::fs::read_to_string(&path).expect("the statements");
    let server = Server::start(1).expect("a server");
    let session = Session::connect(server.sql_port())
        .await
        .expect("a session");
    session.run(SETUP).await.expect("the tables");
    let mut complaints = Vec::new();
    for bad in bad_statements(&text) {
        session.run("BEGIN").await.expect("a block");
        let answer = session.run(bad.sql).await.map(|_| ());
        complaints.extend(complaint(&bad, &answer).map(|c| format!("{}\n    {c}", bad.sql)));
        session.run("ROLLBACK").await.expect("its end");
        if !bad.sql.starts_with("SELECT") && !bad.sql.starts_with("WITH") {
            continue;
        }
        let view = format!("CREATE MATERIALIZED VIEW bad_view AS {}", bad.sql);
        let answer = session.run(&view).await.map(|_| ());
        let uncompared = Bad {
            differs: None,
            ..bad
        };
        complaints.extend(complaint(&uncompared, &answer).map(|c| format!("{view}\n    {c}")));
        if answer.is_ok() {
            let dropped = session.run("DROP MATERIALIZED VIEW bad_view").await;
            dropped.expect("the view goes");
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The errors that the scripts expect.
#[test]
fn expected_errors_are_sqls() {
    let mut complaints = Vec::new();
    for entry in std::fs::read_dir(root().join("sql-tests")).expect("the scripts") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for line in text.lines() {
            let expected = line
                .strip_prefix("statement error")
                .or(line.strip_prefix("query error"));
            if let Some(word) = expected.and_then(foreign) {
                complaints.push(format!("{} says {word}: {line}", path.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
