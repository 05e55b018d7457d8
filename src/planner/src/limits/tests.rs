//! What is settled and refused before anything walks a statement by recursion.

use super::*;
use crate::parse;
use crate::parse::parse_query;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Every relation has so many columns.
fn check_of(columns: usize, query: &Query) -> Result<()> {
    check(query, &|_| columns)
}

/// Runs on a stack like those that the server plans on.
fn with_stack<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(tidemark_common::STACK_BYTES);
    thread.spawn(f).unwrap().join().unwrap()
}

fn state_of(sql: &str) -> SqlState {
    let sql = sql.to_string();
    with_stack(move || match parse(&sql) {
        Ok(_) => panic!("not refused: {}", sql.chars().take(80).collect::<String>()),
        Err(e) => e.state(),
    })
}

fn query(sql: &str) -> Box<Query> {
    parse_query(sql).unwrap()
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
            check_of(1, &query(&sql)).unwrap();
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
        format!("{text} SELECT * FROM c{n}")
    };
    check_of(1, &query(&doubling(10))).unwrap();
    assert_eq!(state_of(&doubling(25)), SqlState::STATEMENT_TOO_COMPLEX);
    let returning = format!("INSERT INTO t VALUES (1) RETURNING ({})", doubling(25));
    assert_eq!(state_of(&returning), SqlState::STATEMENT_TOO_COMPLEX);
    // Common table expressions within each other are passed once.
    let nested = "SELECT * FROM (WITH c AS (".repeat(100)
        + "SELECT 1"
        + &") SELECT * FROM c) AS t".repeat(100);
    with_stack(move || {
        let outcome = check_of(1, &query(&nested)).map_err(|e| e.state());
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
        format!("{text} SELECT * FROM c{n}")
    };
    check_of(1, &query(&chain(300))).unwrap();
    assert_eq!(state_of(&chain(2_000)), SqlState::STATEMENT_TOO_COMPLEX);
}

#[test]
fn what_the_parser_reads_twice_is_counted() {
    let n = 40;
    let around = |before: &str, inner: &str, after: &str| {
        format!("SELECT {}{inner}{}", before.repeat(n), after.repeat(n))
    };
    for sql in [
        around("floor(", "1 2", ")"),
        around("cast(", "1 2", ")"),
        around("position(", "1 2", " IN 1)"),
        around("* FROM ((SELECT ", "* FROM t", ") a CROSS JOIN b)"),
        around("* FROM ((SELECT ", "* FROM t", ") 'a' CROSS JOIN b)"),
        around("* FROM ((SELECT ", "* FROM t", "), b)"),
    ] {
        assert_eq!(state_of(&sql), SqlState::STATEMENT_TOO_COMPLEX, "{sql}");
    }
    for sql in [
        around("floor(", "1", ")"),
        around("cast(", "1", " AS INT)"),
        around("* FROM (SELECT ", "* FROM t", ") AS a"),
        "SELECT * FROM ((SELECT * FROM ((SELECT * FROM t) a CROSS JOIN b)) c CROSS JOIN d)".into(),
    ] {
        with_stack(move || {
            parse(&sql)
                .map(|_| ())
                .unwrap_or_else(|e| panic!("{sql}: {e}"))
        });
    }
}

#[test]
fn parsing_stops_when_nobody_waits() {
    let stop = Arc::new(AtomicBool::new(true));
    let outcome = tidemark_common::interruptible(stop, || parse("SELECT 1"));
    assert_eq!(outcome.unwrap_err().state(), SqlState::QUERY_CANCELED);
    assert!(parse("SELECT 1").is_ok());
}

#[test]
fn no_chain_is_longer_than_a_stack_bears() {
    let n = 600_000;
    let sums = " + 1".repeat(n);
    for sql in [
        format!("SELECT 1{sums}, 1{sums}"),
        format!("SELECT 1{sums} FROM FROM"),
        format!("SELECT 1{}", " !".repeat(n)),
        format!("SELECT 1{}", " !".repeat(490_000)),
        format!("SELECT 1{} FROM FROM", " !".repeat(490_000)),
        format!("SELECT 1{}", " ! IS NULL".repeat(100_000)),
        format!("SELECT a{}", " RLIKE b".repeat(200_000)),
        format!("SELECT 1, 2{}", " UNION ALL SELECT 1, 2".repeat(n / 3)),
        format!(
            "SELECT * FROM t{}",
            " JOIN t ON a IN (1, 2)".repeat(200_000)
        ),
        format!(
            "SELECT * FROM t{}",
            " PIVOT(sum(a) FOR b IN (1, 2))".repeat(200_000)
        ),
        format!("SELECT null::int{}", "[1]".repeat(n)),
        format!("SELECT [{}", "[".repeat(n)),
        format!("SELECT {}{}", "interval ".repeat(100_000), "'1'"),
        format!("CREATE TABLE t (a INT DEFAULT 1{})", " + 1".repeat(100_000)),
        format!("CREATE TABLE t (a INT CHECK (1{}))", " + 1".repeat(100_000)),
        format!("SELECT a{}", " AT TIME ZONE 'UTC'".repeat(100_000)),
        format!("SELECT a{}", " IS DISTINCT FROM b".repeat(100_000)),
        format!("SELECT a{}", " IS NULL AT TIME ZONE 'UTC'".repeat(50_000)),
    ] {
        let head: String = sql.chars().take(40).collect();
        let state = state_of(&sql);
        // An alias with what is no list of columns behind it.
        let expected = if head.contains("interval") || head.contains("PIVOT") {
            SqlState::SYNTAX_ERROR
        } else {
            SqlState::STATEMENT_TOO_COMPLEX
        };
        assert_eq!(state, expected, "{head}");
    }
    for (sql, refused) in [
        (format!("SELECT null::int{}", "[]".repeat(6)), false),
        (format!("SELECT null::int{}", "[]".repeat(7)), true),
        (
            format!("SELECT null::{}int{}", "ARRAY<".repeat(7), ">".repeat(7)),
            true,
        ),
        (format!("SELECT a{}", "[1]".repeat(100)), false),
        ("SELECT ARRAY[[[[[[[1]]]]]]]".into(), false),
    ] {
        let state = with_stack({
            let sql = sql.clone();
            move || parse(&sql).map(|_| ()).map_err(|e| e.state())
        });
        assert_eq!(state.err(), refused.then_some(SqlState("54000")), "{sql}");
    }
}

#[test]
fn copies_of_copies_are_bounded() {
    let nested = |n: usize, before: &str, after: &str| {
        let sql = format!("SELECT {}a{} FROM t", before.repeat(n), after.repeat(n));
        with_stack(move || parse(&sql).map(|_| ()).map_err(|e| e.state()))
    };
    for (before, after) in [
        ("(", " BETWEEN 1 AND 2)"),
        ("(", " NOT BETWEEN 1 AND 2)"),
        ("(", " IN (true, b))"),
        ("abs(CASE WHEN b THEN ", " END)"),
        ("(1 + CASE WHEN b THEN ", " ELSE 1 END)"),
        ("CASE WHEN b THEN '1' ELSE ", "::text END"),
        ("abs(CASE WHEN b THEN 1 ELSE ", " END)"),
        ("CASE WHEN ", " THEN b ELSE c END"),
    ] {
        assert_eq!(nested(12, before, after), Ok(()), "{before}");
        let refused = Err(SqlState::STATEMENT_TOO_COMPLEX);
        assert_eq!(nested(30, before, after), refused, "{before}");
    }
    // What does not multiply.
    for (before, after) in [
        ("coalesce(", ", b)"),
        ("upper(coalesce(", ", 'b'))"),
        ("nvl(b, ", ")"),
        ("CASE WHEN b THEN 1 ELSE ", " END"),
        ("abs(1 + ", ")"),
        ("(", " IN (true, false))"),
    ] {
        assert_eq!(nested(400, before, after), Ok(()), "{before}");
    }
    let many = format!(
        "SELECT 1{}",
        ", coalesce(a BETWEEN 1 AND 2, b)".repeat(50_000)
    );
    with_stack(move || parse(&many).map(|_| ()).unwrap());
}

#[test]
fn relations_are_counted_wherever_they_stand() {
    let many = format!("t{}", ", t".repeat(5_000));
    for sql in [
        format!("SELECT 1 UNION ALL SELECT * FROM {many}"),
        format!("SELECT (SELECT 1 FROM {many})"),
        format!("INSERT INTO t SELECT 1 UNION ALL SELECT 1 FROM {many}"),
    ] {
        assert_eq!(state_of(&sql), SqlState::STATEMENT_TOO_COMPLEX);
    }
}

#[test]
fn what_joins_carry_is_bounded() {
    let joined = |n: usize| format!("t{}", " CROSS JOIN t".repeat(n - 1));
    let with = |inner: &str, n: usize| {
        let outer = joined(n).replace('t', "c");
        format!(
            "WITH c AS ({inner}) SELECT * FROM {}",
            outer.replace("CROSS JOIN", ", ")
        )
    };
    for (columns, sql, refused) in [
        (1, format!("SELECT * FROM {}", joined(3_000)), false),
        (100, format!("SELECT * FROM {}", joined(300)), false),
        (100, format!("SELECT * FROM {}", joined(3_000)), true),
        (
            100,
            format!("SELECT 1 UNION ALL SELECT 1 FROM {}", joined(3_000)),
            true,
        ),
        (100, format!("SELECT * FROM ({})", joined(3_000)), true),
        (
            100,
            format!("SELECT (SELECT 1 FROM {})", joined(3_000)),
            true,
        ),
        (
            100,
            format!("SELECT 1{}", " UNION ALL SELECT * FROM t".repeat(2_000)),
            false,
        ),
        (100, with("SELECT * FROM t", 3_000), true),
        (100, with("SELECT t.* FROM t", 3_000), true),
        (100, with("SELECT 1 FROM t", 3_000), false),
        (
            100,
            with(&format!("SELECT 1 FROM {}", joined(100)), 300),
            true,
        ),
    ] {
        let head: String = sql.chars().take(60).collect();
        let state = with_stack(move || check_of(columns, &query(&sql)).map_err(|e| e.state()));
        let expected = refused.then_some(SqlState::STATEMENT_TOO_COMPLEX);
        assert_eq!(state.err(), expected, "{columns} {head}");
    }
}
