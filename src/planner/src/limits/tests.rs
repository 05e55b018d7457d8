//! What is settled and refused before anything walks a statement by recursion.

use super::*;
use crate::parse;
use crate::statement::StatementKind;
use datafusion_sql::sqlparser::ast::Statement;

/// Runs on a stack like those that the server plans on.
fn with_stack<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(tidemark_common::STACK_BYTES);
    thread.spawn(f).unwrap().join().unwrap()
}

fn state_of(sql: &str) -> SqlState {
    let sql = sql.to_string();
    with_stack(move || parse(&sql).map(|_| ()).unwrap_err().state())
}

fn query(sql: &str) -> Box<Query> {
    match parse(sql).unwrap().remove(0).kind {
        StatementKind::Sql(statement) => match *statement {
            Statement::Query(query) => query,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

fn depth(expr: &Expr) -> usize {
    match expr {
        Expr::BinaryOp { left, right, .. } => 1 + depth(left).max(depth(right)),
        _ => 0,
    }
}

#[test]
fn chains_of_and_and_or_are_balanced_and_keep_their_order() {
    with_stack(|| {
        for operator in [" OR ", " AND "] {
            let terms: Vec<String> = (0..100_000).map(|i| format!("a{i}")).collect();
            let query = query(&format!("SELECT {}", terms.join(operator)));
            let SetExpr::Select(select) = &*query.body else {
                panic!("{query}");
            };
            let ast::SelectItem::UnnamedExpr(expr) = &select.projection[0] else {
                panic!("{query}");
            };
            assert!(depth(expr) <= 17, "{}", depth(expr));
            assert_eq!(expr.to_string(), terms.join(operator));
        }
    });
}

#[test]
fn what_is_too_deep_is_refused_whatever_it_is_made_of() {
    let n = 5_000;
    let around =
        |before: &str, after: &str| format!("SELECT {}1{}", before.repeat(n), after.repeat(n));
    for sql in [
        around("(", ")"),
        around("- ", ""),
        around("NOT ", ""),
        around("CASE WHEN true THEN ", " END"),
        around("upper(", ")"),
        around("(SELECT ", ")"),
        around("EXISTS (SELECT ", ")"),
        around("", " + 1"),
        around("", " || 'a'"),
        around("", "::int"),
        around("", " UNION ALL SELECT 1"),
        format!(
            "{}SELECT 1{}",
            "SELECT * FROM (".repeat(n),
            ") AS t".repeat(n)
        ),
        format!("SELECT * FROM t{}", " JOIN t ON true".repeat(n)),
        format!("SELECT * FROM t{}", ", t".repeat(n)),
        format!("{}SELECT 1{}", "(".repeat(n), ")".repeat(n)),
        format!(
            "CREATE VIEW v AS SELECT {}1{}",
            "(".repeat(n),
            ")".repeat(n)
        ),
        format!("EXPLAIN SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("INSERT INTO t VALUES ({}1{})", "(".repeat(n), ")".repeat(n)),
        format!("UPDATE t SET a = 1{}", " + 1".repeat(n)),
        format!("{}SELECT 1", "EXPLAIN ".repeat(n)),
    ] {
        let head: String = sql.chars().take(40).collect();
        assert_eq!(state_of(&sql), SqlState::STATEMENT_TOO_COMPLEX, "{head}");
    }
}

#[test]
fn what_postgresql_takes_is_not_refused() {
    with_stack(|| {
        let around = |n: usize, before: &str, after: &str| {
            format!("SELECT {}1{}", before.repeat(n), after.repeat(n))
        };
        for sql in [
            around(900, "(", ")"),
            around(900, "upper(", ")"),
            around(900, "", " + 1"),
            around(300, "(SELECT ", ")"),
            around(2_000, "", " UNION ALL SELECT 1"),
            around(100_000, "", ", 1"),
            format!("SELECT * FROM t{}", " JOIN t ON true".repeat(2_000)),
            format!("SELECT a IN (1{})", ", 1".repeat(100_000)),
            format!("VALUES (1){}", ", (1)".repeat(100_000)),
        ] {
            check(&query(&sql)).unwrap();
        }
    });
}

#[test]
fn parameters_have_numbers_that_a_client_can_send() {
    for (sql, refused) in [
        ("SELECT $1", false),
        ("SELECT $65535", false),
        ("SELECT $0", true),
        ("SELECT $65536", true),
        ("SELECT $2147483647", true),
        ("SELECT $99999999999999999999", true),
    ] {
        let outcome = parse(sql).map(|_| ()).map_err(|e| e.state());
        let expected = if refused {
            Err(SqlState("42P02"))
        } else {
            Ok(())
        };
        assert_eq!(outcome, expected, "{sql}");
    }
}

#[test]
fn what_common_table_expressions_multiply_is_bounded() {
    let doubling = |n: usize| {
        let mut text = "WITH c0 AS (SELECT 1 AS a)".to_string();
        for i in 1..=n {
            let below = i - 1;
            text += &format!(", c{i} AS (SELECT * FROM c{below} UNION ALL SELECT * FROM c{below})");
        }
        query(&format!("{text} SELECT * FROM c{n}"))
    };
    check(&doubling(10)).unwrap();
    let e = check(&doubling(25)).unwrap_err();
    assert_eq!(e.state(), SqlState::STATEMENT_TOO_COMPLEX);
    // Common table expressions within each other are passed once.
    let nested = "SELECT * FROM (WITH c AS (".repeat(100)
        + "SELECT 1"
        + &") SELECT * FROM c) AS t".repeat(100);
    with_stack(move || {
        let outcome = check(&query(&nested)).map_err(|e| e.state());
        assert!(matches!(
            outcome,
            Ok(()) | Err(SqlState::STATEMENT_TOO_COMPLEX)
        ));
    });
}

#[test]
fn a_chain_of_tables_has_a_limit_of_levels() {
    let chain = |n: usize| {
        let mut text = "WITH c0 AS (SELECT 1 AS a)".to_string();
        for i in 1..=n {
            text += &format!(", c{i} AS (SELECT * FROM c{})", i - 1);
        }
        query(&format!("{text} SELECT * FROM c{n}"))
    };
    check(&chain(300)).unwrap();
    let e = check(&chain(2_000)).unwrap_err();
    assert_eq!(e.state(), SqlState::STATEMENT_TOO_COMPLEX);
}

#[test]
fn who_plans_learns_that_nobody_waits() {
    let stop = Arc::new(AtomicBool::new(false));
    interruptible(stop.clone(), || {
        assert!(check_interrupt().is_ok());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(
            check_interrupt().unwrap_err().state(),
            SqlState::QUERY_CANCELED
        );
    });
    assert!(check_interrupt().is_ok());
}
