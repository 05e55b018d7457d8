//! Each ranking, with and without numbers, of inputs that grow and that retract, against sorting.

use super::*;
use crate::ordered::history::{History, Row, schema, text};

#[derive(Clone, Copy, Debug)]
struct Case {
    partitioned: bool,
    descending: bool,
    nulls_first: bool,
    ranking: Ranking,
    skip: u64,
    take: Option<u64>,
    numbered: bool,
    append_only: bool,
}

impl Case {
    fn order(&self) -> [SortKey; 1] {
        [SortKey {
            column: 1,
            descending: self.descending,
            nulls_first: self.nulls_first,
        }]
    }

    fn partition(&self) -> &'static [usize] {
        if self.partitioned { &[0] } else { &[] }
    }

    fn operator(&self) -> TopN {
        TopN::new(TopNConfig {
            input: schema(3),
            output: schema(3 + usize::from(self.numbered)),
            partition: self.partition(),
            order: &self.order(),
            ranking: self.ranking,
            skip: self.skip,
            take: self.take,
            numbered: self.numbered,
            append_only: self.append_only,
            table: 3,
            closes: None,
        })
    }

    /// How a row is sorted: the key with its NULL, then the other columns with NULL behind.
    fn sorted(&self, row: &Row) -> (bool, i64, [(bool, Option<i64>); 2]) {
        let key = row[1].map_or(0, |k| if self.descending { -k } else { k });
        let others = [row[0], row[2]].map(|c| (c.is_none(), c));
        (row[1].is_none() != self.nulls_first, key, others)
    }

    fn expected(&self, rows: &[Row]) -> Vec<String> {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| self.sorted(row));
        let mut found = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let same = |other: &&Row| !self.partitioned || other[0] == row[0];
            let before: Vec<&Row> = rows[..i].iter().filter(same).collect();
            let ahead = before.iter().filter(|other| other[1] != row[1]);
            let mut keys: Vec<_> = ahead.clone().map(|other| other[1]).collect();
            keys.dedup();
            let number = 1 + match self.ranking {
                Ranking::RowNumber => before.len(),
                Ranking::Rank => ahead.count(),
                Ranking::DenseRank => keys.len(),
            } as u64;
            let end = self.take.map_or(u64::MAX, |take| self.skip + take);
            if number > self.skip && number <= end {
                let number = self.numbered.then_some(Some(number as i64));
                let columns: Vec<_> = row.iter().copied().chain(number).collect();
                found.push(text(&columns));
            }
        }
        found
    }
}

#[test]
fn the_first_rows_are_those_of_a_sort() {
    let mut seed = 0;
    for ranking in [Ranking::RowNumber, Ranking::Rank, Ranking::DenseRank] {
        for take in [Some(0), Some(1), Some(3), Some(40), None] {
            for skip in [0, 1, 4] {
                if skip > 0 && ranking != Ranking::RowNumber {
                    continue;
                }
                for _ in 0..12 {
                    seed += 1;
                    let case = Case {
                        partitioned: seed % 2 == 0,
                        descending: seed / 2 % 2 == 0,
                        nulls_first: seed / 4 % 3 == 0,
                        ranking,
                        skip,
                        take,
                        numbered: skip == 0 && seed % 3 != 0,
                        append_only: seed % 5 < 2,
                    };
                    History {
                        seed,
                        append_only: case.append_only,
                        durable: true,
                        operator: &|| Box::new(case.operator()),
                        expected: &|rows| case.expected(rows),
                    }
                    .check();
                }
            }
        }
    }
}

/// A partial operator, then the whole one, as several workers have them.
struct Both {
    partial: Vec<PartialTopN>,
    whole: TopN,
    next: usize,
}

impl Operator for Both {
    fn on_changes(&mut self, port: usize, batch: ChangeBatch, out: &mut dyn Out) -> Result<()> {
        self.next += 1;
        let worker = self.next % self.partial.len();
        self.partial[worker].on_changes(port, batch, out)
    }

    fn on_barrier(&mut self, barrier: &Barrier, out: &mut dyn Out) -> Result<()> {
        for partial in &mut self.partial {
            let mut sent = crate::testing::Recorder::default();
            partial.on_barrier(barrier, &mut sent)?;
            for batch in sent.batches {
                assert!((0..batch.num_rows()).all(|row| batch.weight(row) > 0));
                self.whole.on_changes(0, batch, out)?;
            }
        }
        self.whole.on_barrier(barrier, out)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.whole.tables()
    }
}

#[test]
fn what_workers_pass_on_is_enough() {
    for seed in 0..100 {
        let case = Case {
            partitioned: seed % 2 == 0,
            descending: seed % 3 == 0,
            nulls_first: false,
            ranking: Ranking::RowNumber,
            skip: seed % 3,
            take: Some(seed % 4),
            numbered: false,
            append_only: true,
        };
        let enough = case.skip + seed % 4;
        let partial = || PartialTopN::new(&schema(3), case.partition(), &case.order(), enough);
        History {
            seed,
            append_only: true,
            durable: true,
            operator: &|| {
                Box::new(Both {
                    partial: vec![partial(), partial()],
                    whole: case.operator(),
                    next: 0,
                })
            },
            expected: &|rows| case.expected(rows),
        }
        .check();
    }
}

#[test]
fn an_input_that_grows_leaves_nothing_behind_the_first_rows() {
    let case = Case {
        partitioned: true,
        descending: true,
        nulls_first: true,
        ranking: Ranking::RowNumber,
        skip: 0,
        take: Some(2),
        numbered: false,
        append_only: true,
    };
    let (mut top, mut out) = (case.operator(), crate::testing::Recorder::default());
    let lines = ["1 1 1 1\n1 1 2 1\n1 1 3 1", "1 1 0 5\n1 1 1 5", "1 1 9 9"];
    for (i, lines) in lines.iter().enumerate() {
        let batch = crate::testing::changes("p i64, o i64, x i64", lines);
        top.on_changes(0, batch, &mut out).unwrap();
        top.on_barrier(&crate::testing::barrier(i as u64 + 1), &mut out)
            .unwrap();
        assert_eq!(top.partitions.list(0).len(), 2);
    }
    assert_eq!(out.take(), ["+1 1 3 1", "+1 1 2 1", "+1 1 9 9", "-1 1 2 1"]);
}
