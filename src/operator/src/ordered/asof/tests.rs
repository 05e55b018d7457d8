//! Every comparison, inner and outer, with keys and without, against a search through all rows.

use super::*;
use crate::testing::{Recorder, barrier, changes, schema as columns, table};
use crate::two_sided::{Epoch as Past, History, Row, Rows, Sum, schema, text};

const ALL: [Nearest; 4] = [
    Nearest::AtOrBefore,
    Nearest::Before,
    Nearest::AtOrAfter,
    Nearest::After,
];

#[derive(Clone, Copy, Debug)]
struct Case {
    comparison: Nearest,
    outer: bool,
    keyed: bool,
    /// The right key is not among the columns of the output.
    few: bool,
}

impl Case {
    fn of(n: u64) -> Case {
        Case {
            comparison: ALL[(n % 4) as usize],
            outer: n / 4 % 2 == 0,
            keyed: n / 8 % 3 != 0,
            few: n / 24 % 2 == 0,
        }
    }

    fn keys(&self) -> &'static [usize] {
        if self.keyed { &[0] } else { &[] }
    }

    fn operator(&self) -> AsofJoin {
        let all: &[usize] = &[0, 1, 2, 3, 4, 5];
        let columns = if self.few { &[5, 1, 4, 0, 2] } else { all };
        AsofJoin::new(AsofConfig {
            left: schema(3),
            right: schema(3),
            outer: self.outer,
            left_keys: self.keys(),
            right_keys: self.keys(),
            left_time: 1,
            right_time: 1,
            comparison: self.comparison,
            columns,
            output: schema(columns.len()),
            left_table: 7,
            right_table: 8,
        })
    }

    /// The match of a left row, by looking at all.
    fn found<'a>(&self, left: &Row, rights: &'a Rows) -> Option<&'a Row> {
        let time = left[1]?;
        let fits = |right: &&Row| {
            let Some(other) = right[1] else {
                return false;
            };
            let key = !self.keyed || left[0].is_some() && left[0] == right[0];
            key && match self.comparison {
                Nearest::AtOrBefore => time >= other,
                Nearest::Before => time > other,
                Nearest::AtOrAfter => time <= other,
                Nearest::After => time < other,
            }
        };
        let nulls_last = |v: Option<i64>| (v.is_none(), v);
        let distance = |right: &&Row| {
            let away = right[1].map_or(0, |other| (other - time).abs());
            (away, nulls_last(right[0]), nulls_last(right[2]))
        };
        rights.keys().filter(fits).min_by_key(distance)
    }

    fn expected(&self, past: &Past) -> Sum {
        let mut sum = Sum::new();
        for (left, weight) in past.lefts {
            let right = match self.found(left, past.rights) {
                Some(right) => *right,
                None if self.outer => [None; 3],
                None => continue,
            };
            let all = [left[0], left[1], left[2], right[0], right[1], right[2]];
            let row = match self.few {
                true => text([5, 1, 4, 0, 2].map(|c| all[c])),
                false => text(all),
            };
            *sum.entry(row).or_default() += weight;
        }
        sum
    }
}

#[test]
fn the_nearest_row_is_that_of_a_search() {
    for seed in 0..2_400 {
        let case = Case::of(seed);
        let history = History {
            seed,
            append_only: false,
            keyed: case.keyed,
            operator: &|| Box::new(case.operator()),
            expected: &|past| case.expected(past),
        };
        history.check();
    }
}

/// Feeds both sides and a barrier; what was sent.
fn step(operator: &mut AsofJoin, number: u64, lefts: &str, rights: &str) -> Vec<String> {
    let mut out = Recorder::default();
    let sides = [
        (0, "k text, t ts, p i64", lefts),
        (1, "k text, t ts, b f64", rights),
    ];
    for (port, schema, lines) in sides {
        let batch = changes(schema, lines);
        if !batch.is_empty() {
            operator
                .on_changes(port, batch, &mut out)
                .expect("no failure");
        }
    }
    operator
        .on_barrier(&barrier(number), &mut out)
        .expect("no failure");
    let mut lines: Vec<String> = out.batches.iter().flat_map(table).collect();
    lines.sort();
    lines
}

#[test]
fn a_quote_that_comes_late_moves_the_trades_after_it() {
    let mut operator = AsofJoin::new(AsofConfig {
        left: columns("k text, t ts, p i64"),
        right: columns("k text, t ts, b f64"),
        outer: true,
        left_keys: &[0],
        right_keys: &[0],
        left_time: 1,
        right_time: 1,
        comparison: Nearest::AtOrBefore,
        columns: &[0, 2, 5],
        output: columns("k text, p i64, b f64"),
        left_table: 0,
        right_table: 1,
    });
    let trades =
        "1 a 2026-01-01T10:00:00 10\n1 a 2026-01-01T11:00:00 11\n1 b 2026-01-01T11:00:00 12";
    let first = step(&mut operator, 1, trades, "1 a 2026-01-01T09:00:00 0.5");
    assert_eq!(first, ["+1 a 10 0.5", "+1 a 11 0.5", "+1 b 12 -"]);
    let late = step(&mut operator, 2, "", "1 a 2026-01-01T10:30:00 0.7");
    assert_eq!(late, ["+1 a 11 0.7", "-1 a 11 0.5"]);
    // Behind all trades: nothing is sent.
    assert!(step(&mut operator, 3, "", "1 a 2026-01-01T12:00:00 0.9").is_empty());
    // An update of the quote that two trades have.
    let update = "-1 a 2026-01-01T09:00:00 0.5\n1 a 2026-01-01T09:00:00 0.4";
    let update = step(&mut operator, 4, "", update);
    assert_eq!(update, ["+1 a 10 0.4", "-1 a 10 0.5"]);
    let gone = "-1 a 2026-01-01T09:00:00 0.4\n-1 a 2026-01-01T10:30:00 0.7";
    let gone = step(&mut operator, 5, "", gone);
    assert_eq!(
        gone,
        ["+1 a 10 -", "+1 a 11 -", "-1 a 10 0.4", "-1 a 11 0.7"]
    );
    let trade = step(&mut operator, 6, "-1 a 2026-01-01T10:00:00 10", "");
    assert_eq!(trade, ["-1 a 10 -"]);
}

/// Many rows of one key: each left row is found by a search, and what an epoch brings is walked
/// once.
#[test]
fn histories_of_one_key_take_no_time() {
    let rows = 40_000_i64;
    let mut operator = Case::of(8).operator();
    let batch = |step: i64| {
        let lines = (0..rows).map(|i| format!("1 1 {} {i}", i * 2 + step));
        let lines: Vec<String> = lines.collect();
        changes("k i64, t i64, x i64", &lines.join("\n"))
    };
    let mut out = Recorder::default();
    operator
        .on_changes(0, batch(1), &mut out)
        .expect("no failure");
    operator
        .on_changes(1, batch(0), &mut out)
        .expect("no failure");
    operator
        .on_barrier(&barrier(1), &mut out)
        .expect("no failure");
    let sent: usize = out.batches.iter().map(|b| b.num_rows()).sum();
    assert_eq!(sent as i64, rows);
}
