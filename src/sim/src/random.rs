//! Random views and random writes, from a seed: what nobody thought of writing into a script.
//!
//! All columns are integers that stay small, so that no expression fails and every operator meets
//! equal values, NULLs and rows that come back. A query is a tree of the operators that views
//! maintain; each node is a subquery with columns `c0, c1, ...`. Writes are inserts (also of rows
//! that exist), updates of keys, groups and values, and deletes, alone and in transactions.

use std::fmt::Write;

pub use tidemark_common::random::Random;

/// What the queries read: two tables with keys, one bag.
pub const TABLES: [&str; 3] = [
    "CREATE TABLE t (id INT PRIMARY KEY, g INT, v INT)",
    "CREATE TABLE u (id INT PRIMARY KEY, g INT, w INT)",
    "CREATE TABLE b (k INT, x INT)",
];

/// A subquery and how many columns it has.
struct Node {
    sql: String,
    columns: u64,
}

/// A query whose view is to be maintained.
pub fn query(random: &mut Random) -> String {
    let depth = 1 + random.below_u64(3);
    node(random, depth).sql
}

fn node(random: &mut Random, depth: u64) -> Node {
    if depth == 0 {
        return leaf(random);
    }
    let depth = depth - 1;
    match random.below_u64(12) {
        0 => filter(random, depth),
        1 | 2 => project(random, depth),
        3..=5 => join(random, depth),
        6 | 7 => aggregate(random, depth),
        8 => distinct(random, depth),
        9 => union(random, depth),
        10 => exists(random, depth),
        _ => within(random, depth),
    }
}

fn leaf(random: &mut Random) -> Node {
    let (sql, columns) = match random.below_u64(3) {
        0 => ("SELECT id AS c0, g AS c1, v AS c2 FROM t", 3),
        1 => ("SELECT id AS c0, g AS c1, w AS c2 FROM u", 3),
        _ => ("SELECT k AS c0, x AS c1 FROM b", 2),
    };
    Node {
        sql: sql.into(),
        columns,
    }
}

fn column(random: &mut Random, of: &str, columns: u64) -> String {
    format!("{of}.c{}", random.below_u64(columns))
}

fn predicate(random: &mut Random, of: &str, columns: u64) -> String {
    let c = column(random, of, columns);
    let n = random.below_u64(8);
    match random.below_u64(6) {
        0 => format!("{c} > {n}"),
        1 => format!("{c} <> {n}"),
        2 => format!("{c} IS NULL"),
        3 => format!("({c} < {n} OR {} IS NOT NULL)", column(random, of, columns)),
        4 => format!("{c} BETWEEN {} AND {}", n / 2, n + 2),
        _ => format!("{c} <= {}", column(random, of, columns)),
    }
}

fn filter(random: &mut Random, depth: u64) -> Node {
    let input = node(random, depth);
    Node {
        sql: format!(
            "SELECT * FROM ({}) r WHERE {}",
            input.sql,
            predicate(random, "r", input.columns)
        ),
        columns: input.columns,
    }
}

fn project(random: &mut Random, depth: u64) -> Node {
    let input = node(random, depth);
    let columns = 1 + random.below_u64(3);
    let mut sql = String::from("SELECT ");
    for i in 0..columns {
        let (a, b) = (
            column(random, "r", input.columns),
            column(random, "r", input.columns),
        );
        let expression = match random.below_u64(5) {
            0 => format!("({a} + {b}) % 10"),
            1 => format!(
                "CASE WHEN {} THEN {a} ELSE {b} END",
                predicate(random, "r", input.columns)
            ),
            2 => format!("coalesce({a}, {b}, 3)"),
            3 => format!("abs({a} - 4)"),
            _ => a,
        };
        let _ = write!(sql, "{}{expression} AS c{i}", if i > 0 { ", " } else { "" });
    }
    let _ = write!(sql, " FROM ({}) r", input.sql);
    Node { sql, columns }
}

fn join(random: &mut Random, depth: u64) -> Node {
    let (left, right) = (node(random, depth), node(random, depth.min(1)));
    let kind = random.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "JOIN"]);
    let (lc, rc) = (
        column(random, "l", left.columns),
        column(random, "r", right.columns),
    );
    let equality = random.pick(&["=", "=", "=", "=", "IS NOT DISTINCT FROM"]);
    let mut on = format!("{lc} {equality} {rc}");
    match random.below_u64(4) {
        0 => {
            let _ = write!(
                on,
                " AND {} < {}",
                column(random, "l", left.columns),
                column(random, "r", right.columns)
            );
        }
        1 => {
            let _ = write!(on, " AND {}", predicate(random, "r", right.columns));
        }
        _ => {}
    }
    let columns = (left.columns + right.columns).min(4);
    // The last columns come from the right, so that both sides are seen.
    let from_right = if left.columns + right.columns == columns {
        right.columns
    } else {
        right.columns.min(2)
    };
    let from_left = (columns - from_right).min(left.columns);
    let columns = from_left + from_right;
    let outputs: Vec<String> = (0..from_left)
        .map(|i| format!("l.c{i}"))
        .chain((0..from_right).map(|i| format!("r.c{i}")))
        .collect();
    let list: Vec<String> = outputs
        .iter()
        .enumerate()
        .map(|(i, o)| format!("{o} AS c{i}"))
        .collect();
    Node {
        sql: format!(
            "SELECT {} FROM ({}) l {kind} ({}) r ON {on}",
            list.join(", "),
            left.sql,
            right.sql
        ),
        columns,
    }
}

fn aggregate(random: &mut Random, depth: u64) -> Node {
    let input = node(random, depth);
    let grouped = random.below_u64(5) > 0;
    let mut list = Vec::new();
    let key = column(random, "r", input.columns);
    if grouped {
        list.push(format!("{key} AS c0"));
    }
    for _ in 0..1 + random.below_u64(3) {
        let c = column(random, "r", input.columns);
        let call = match random.below_u64(8) {
            0 => "count(*)".to_string(),
            1 => format!("count({c})"),
            2 => format!("sum({c})::bigint"),
            3 => format!("min({c})"),
            4 => format!("max({c})"),
            5 => format!("count(DISTINCT {c})"),
            6 => format!("sum(DISTINCT {c})::bigint"),
            _ => format!("(avg({c}) * 4)::bigint"),
        };
        let wanted =
            !call.starts_with('(') && !call.ends_with("bigint") && random.below_u64(4) == 0;
        let filter = if wanted {
            format!(" FILTER (WHERE {})", predicate(random, "r", input.columns))
        } else {
            String::new()
        };
        list.push(format!("{call}{filter} AS c{}", list.len()));
    }
    let columns = list.len() as u64;
    let group = if grouped {
        format!(" GROUP BY {key}")
    } else {
        String::new()
    };
    let having = if grouped && random.below_u64(4) == 0 {
        " HAVING count(*) > 1"
    } else {
        ""
    };
    Node {
        sql: format!(
            "SELECT {} FROM ({}) r{group}{having}",
            list.join(", "),
            input.sql
        ),
        columns,
    }
}

fn distinct(random: &mut Random, depth: u64) -> Node {
    let input = node(random, depth);
    let columns = 1 + random.below_u64(input.columns.min(2));
    let list: Vec<String> = (0..columns)
        .map(|i| format!("{} AS c{i}", column(random, "r", input.columns)))
        .collect();
    Node {
        sql: format!("SELECT DISTINCT {} FROM ({}) r", list.join(", "), input.sql),
        columns,
    }
}

fn union(random: &mut Random, depth: u64) -> Node {
    let (left, right) = (node(random, depth), node(random, depth.min(1)));
    let columns = left.columns.min(right.columns);
    let list: Vec<String> = (0..columns).map(|i| format!("c{i}")).collect();
    let (list, all) = (list.join(", "), random.pick(&["UNION ALL", "UNION"]));
    Node {
        sql: format!(
            "SELECT {list} FROM ({}) l {all} SELECT {list} FROM ({}) r",
            left.sql, right.sql
        ),
        columns,
    }
}

fn exists(random: &mut Random, depth: u64) -> Node {
    let (left, right) = (node(random, depth), leaf(random));
    let (lc, rc) = (
        column(random, "l", left.columns),
        column(random, "r", right.columns),
    );
    let not = random.pick(&["", "NOT "]);
    let more = if random.below_u64(3) == 0 {
        format!(
            " AND {} >= {}",
            column(random, "r", right.columns),
            column(random, "l", left.columns)
        )
    } else {
        String::new()
    };
    Node {
        sql: format!(
            "SELECT * FROM ({}) l WHERE {not}EXISTS (SELECT 1 FROM ({}) r WHERE {rc} = \
             {lc}{more})",
            left.sql, right.sql
        ),
        columns: left.columns,
    }
}

fn within(random: &mut Random, depth: u64) -> Node {
    let (left, right) = (node(random, depth), leaf(random));
    let (lc, rc) = (
        column(random, "l", left.columns),
        column(random, "r", right.columns),
    );
    let not = random.pick(&["", "NOT "]);
    Node {
        sql: format!(
            "SELECT * FROM ({}) l WHERE {lc} {not}IN (SELECT {rc} FROM ({}) r)",
            left.sql, right.sql
        ),
        columns: left.columns,
    }
}

fn value(random: &mut Random) -> String {
    if random.below_u64(8) == 0 {
        "NULL".into()
    } else {
        random.below_u64(8).to_string()
    }
}

/// Statements that are to run together: one, or a transaction.
pub fn writes(random: &mut Random) -> Vec<String> {
    if random.below_u64(4) > 0 {
        return vec![write(random)];
    }
    let mut all = vec!["BEGIN".to_string()];
    all.extend((0..2 + random.below_u64(4)).map(|_| write(random)));
    let ends = random.pick(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]);
    all.push(ends.to_string());
    all
}

fn write(random: &mut Random) -> String {
    let (table, key, columns) = [
        ("t", "id", ["g", "v"]),
        ("u", "id", ["g", "w"]),
        ("b", "k", ["k", "x"]),
    ][random.below_u64(3) as usize];
    let keyed = table != "b";
    let (a, b) = (random.below_u64(40), random.below_u64(40));
    let some = match random.below_u64(3) {
        0 => format!("{key} = {}", if keyed { a } else { a % 8 }),
        1 => format!("{} % 3 = {}", columns[1], a % 3),
        _ => format!("{key} BETWEEN {} AND {}", a.min(b), a.max(b)),
    };
    match random.below_u64(7) {
        0..=2 => {
            let rows: Vec<String> = (0..1 + random.below_u64(6))
                .map(|_| match keyed {
                    true => format!(
                        "({}, {}, {})",
                        random.below_u64(40),
                        value(random),
                        value(random)
                    ),
                    false => format!("({}, {})", value(random), value(random)),
                })
                .collect();
            format!("INSERT INTO {table} VALUES {}", rows.join(", "))
        }
        3 | 4 => format!(
            "UPDATE {table} SET {} = {} WHERE {some}",
            random.pick(&columns),
            value(random)
        ),
        5 if keyed => format!(
            "UPDATE {table} SET {} = ({} + 1) % 8 WHERE {some}",
            columns[1], columns[1]
        ),
        _ => format!("DELETE FROM {table} WHERE {some}"),
    }
}
