//! What a simulated database computes, twice: as SQL, and by an evaluator of its own that knows
//! nothing of operators, epochs or retractions. All columns are BIGINT.

use std::collections::BTreeMap;

/// A row.
pub type Row = Vec<Option<i64>>;

/// Rows with how often each is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bag(pub BTreeMap<Row, i64>);

/// What relations hold, by name.
pub type Contents = BTreeMap<String, Bag>;

impl Bag {
    /// Adds a row so many times.
    pub fn add(&mut self, row: Row, times: i64) {
        let there = self.0.entry(row).or_default();
        *there += times;
        if *there == 0 {
            self.0.retain(|_, times| *times != 0);
        }
    }

    /// Of single rows.
    pub fn of(rows: impl IntoIterator<Item = Row>) -> Bag {
        let mut bag = Bag::default();
        rows.into_iter().for_each(|row| bag.add(row, 1));
        bag
    }

    /// Each row as often as it is there.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let all = self.0.iter();
        all.flat_map(|(row, times)| std::iter::repeat_n(row, (*times).max(0) as usize))
    }

    /// How many rows.
    pub fn count(&self) -> i64 {
        self.0.values().sum()
    }

    /// What this has and the other has not, and the other way round, for a message.
    pub fn difference(&self, other: &Bag) -> String {
        let mut difference = self.clone();
        for (row, times) in &other.0 {
            difference.add(row.clone(), -times);
        }
        let mut text = String::new();
        for (row, times) in difference.0.iter().take(20) {
            let values: Vec<String> = row
                .iter()
                .map(|value| value.map_or("NULL".into(), |value| value.to_string()))
                .collect();
            text.push_str(&format!("\n    {times:+} ({})", values.join(", ")));
        }
        match difference.0.len() {
            0..=20 => text,
            n => format!("{text}\n    and {} rows more", n - 20),
        }
    }

    fn map(&self, f: impl Fn(&Row) -> Option<Row>) -> Bag {
        Bag::of(self.rows().filter_map(f))
    }

    /// Rows by the values of some of their columns, of which none is NULL.
    fn by(&self, columns: &[usize]) -> BTreeMap<Row, Vec<&Row>> {
        let mut groups = BTreeMap::<Row, Vec<&Row>>::new();
        for row in self.rows() {
            let key: Row = columns.iter().map(|c| row[*c]).collect();
            groups.entry(key).or_default().push(row);
        }
        groups
    }

    /// One row per group.
    fn group(&self, columns: &[usize], aggregate: impl Fn(&[&Row]) -> Row) -> Bag {
        let rows = |(key, rows): (Row, Vec<&Row>)| [key, aggregate(&rows)].concat();
        Bag::of(self.by(columns).into_iter().map(rows))
    }
}

fn sum(rows: &[&Row], column: usize) -> Option<i64> {
    let values: Vec<i64> = rows.iter().filter_map(|row| row[column]).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn count(rows: &[&Row]) -> Option<i64> {
    Some(rows.len() as i64)
}

/// How a source or table comes to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// A topic whose records are rows.
    Plain,
    /// A topic whose records write rows by key.
    Upsert,
    /// A topic whose records are rows, unless they are late by their times.
    Timed,
    /// Clients write to it.
    Written,
}

/// A relation that is not computed from others.
pub struct Base {
    /// Its name; that of its topic, too.
    pub name: &'static str,
    /// How it comes to its rows.
    pub feed: Feed,
    /// How it is made.
    pub sql: &'static str,
}

/// The sources and tables.
pub const BASES: &[Base] = &[
    Base {
        name: "s",
        feed: Feed::Plain,
        sql: "CREATE SOURCE s (k BIGINT, v BIGINT) WITH (connector = 'kafka', topic = 's', \
              properties.bootstrap.server = 'sim:9092') FORMAT PLAIN ENCODE JSON",
    },
    Base {
        name: "u",
        feed: Feed::Upsert,
        sql: "CREATE SOURCE u (k BIGINT, v BIGINT, PRIMARY KEY (k)) WITH (connector = 'kafka', \
              topic = 'u', properties.bootstrap.server = 'sim:9092') FORMAT UPSERT ENCODE JSON",
    },
    Base {
        name: "w",
        feed: Feed::Timed,
        sql: "CREATE SOURCE w (k BIGINT, v BIGINT, WATERMARK FOR at AS at - INTERVAL '40 ms') \
              INCLUDE TIMESTAMP AS at WITH (connector = 'kafka', topic = 'w', \
              properties.bootstrap.server = 'sim:9092', idle_timeout = '100 ms') \
              FORMAT PLAIN ENCODE JSON",
    },
    Base {
        name: "t",
        feed: Feed::Written,
        sql: "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)",
    },
];

/// By how much a row of a timed topic may be behind, in microseconds: as its source says.
pub const DELAY_MICROS: i64 = 40_000;

/// A materialized view.
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// Its query.
    pub sql: &'static str,
    /// What it reads.
    pub reads: &'static [&'static str],
    /// The columns of its key, as sinks name them; none: it never retracts.
    pub key: Option<&'static str>,
    /// What the query answers.
    pub answer: fn(&Contents) -> Bag,
}

/// The views, each after those that it reads.
pub const VIEWS: &[View] = &[
    View {
        name: "copied",
        sql: "SELECT k, v FROM s WHERE v % 3 <> 0",
        reads: &["s"],
        key: None,
        answer: |of| of["s"].map(|r| (r[1]? % 3 != 0).then(|| r.clone())),
    },
    View {
        name: "counted",
        sql: "SELECT k, count(*) AS n, sum(v)::BIGINT AS total FROM s GROUP BY k",
        reads: &["s"],
        key: Some("k"),
        answer: |of| of["s"].group(&[0], |rows| vec![count(rows), sum(rows, 1)]),
    },
    View {
        name: "histogram",
        sql: "SELECT n, count(*) AS c FROM counted GROUP BY n",
        reads: &["counted"],
        key: Some("n"),
        answer: |of| of["counted"].group(&[1], |rows| vec![count(rows)]),
    },
    View {
        name: "enriched",
        sql: "SELECT s.k, s.v, t.v AS tv FROM s JOIN t ON s.k = t.id",
        reads: &["s", "t"],
        key: None,
        answer: |of| {
            let tables = of["t"].by(&[0]);
            let joined = of["s"].rows().flat_map(|s| {
                let partners = tables.get(&vec![s[0]]).into_iter().flatten();
                partners.map(|t| vec![s[0], s[1], t[1]])
            });
            Bag::of(joined)
        },
    },
    View {
        name: "grouped",
        sql: "SELECT v % 5 AS g, count(*) AS n, min(id) AS lo, max(id) AS hi FROM t GROUP BY v % 5",
        reads: &["t"],
        key: Some("g"),
        answer: |of| {
            let keyed = of["t"].map(|t| Some(vec![Some(t[1]? % 5), t[0]]));
            keyed.group(&[0], |rows| {
                let ids = || rows.iter().filter_map(|row| row[1]);
                vec![count(rows), ids().min(), ids().max()]
            })
        },
    },
    View {
        name: "total",
        sql: "SELECT sum(v)::BIGINT AS total, count(*) AS n FROM t",
        reads: &["t"],
        key: None,
        answer: |of| {
            let rows: Vec<&Row> = of["t"].rows().collect();
            Bag::of([vec![sum(&rows, 1), count(&rows)]])
        },
    },
    View {
        name: "outer_joined",
        sql: "SELECT t.id, t.v, c.n FROM t LEFT JOIN counted c ON t.id = c.k",
        reads: &["t", "counted"],
        key: None,
        answer: |of| {
            let counted = of["counted"].by(&[0]);
            let joined = of["t"].rows().flat_map(|t| {
                let partners = counted.get(&vec![t[0]]);
                let n = partners.map_or(vec![None], |p| p.iter().map(|c| c[1]).collect());
                n.into_iter().map(|n| vec![t[0], t[1], n])
            });
            Bag::of(joined)
        },
    },
    View {
        name: "distinct_values",
        sql: "SELECT DISTINCT v % 7 AS w FROM s",
        reads: &["s"],
        key: None,
        answer: |of| {
            let values = of["s"].map(|s| Some(vec![Some(s[1]? % 7)]));
            values.group(&[0], |_| Vec::new())
        },
    },
    View {
        name: "either",
        sql: "SELECT k, v FROM u UNION ALL SELECT id, v FROM t",
        reads: &["u", "t"],
        key: None,
        answer: |of| {
            let both = of["u"].rows().chain(of["t"].rows());
            Bag::of(both.cloned())
        },
    },
    View {
        name: "unseen",
        sql: "SELECT id, v FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.id)",
        reads: &["t", "u"],
        key: None,
        answer: |of| {
            let seen = of["u"].by(&[0]);
            of["t"].map(|t| (!seen.contains_key(&vec![t[0]])).then(|| t.clone()))
        },
    },
    View {
        name: "paired",
        sql: "SELECT s.k, s.v, u.v AS uv FROM s JOIN u ON s.k = u.k",
        reads: &["s", "u"],
        key: None,
        answer: |of| {
            let partners = of["u"].by(&[0]);
            let joined = of["s"].rows().flat_map(|s| {
                let partners = partners.get(&vec![s[0]]).into_iter().flatten();
                partners.map(|u| vec![s[0], s[1], u[1]])
            });
            Bag::of(joined)
        },
    },
    View {
        name: "met",
        sql: "SELECT a.k, count(*) AS n FROM s a JOIN s b ON a.k = b.v GROUP BY a.k",
        reads: &["s"],
        key: Some("k"),
        answer: |of| {
            let partners = of["s"].by(&[1]);
            let joined = of["s"].rows().flat_map(|a| {
                let met = partners.get(&vec![a[0]]).map_or(0, Vec::len);
                std::iter::repeat_n(vec![a[0]], met)
            });
            Bag::of(joined).group(&[0], |rows| vec![count(rows)])
        },
    },
    View {
        name: "timely",
        sql: "SELECT k, v FROM w",
        reads: &["w"],
        key: None,
        answer: |of| of["w"].clone(),
    },
    View {
        name: "timely_counted",
        sql: "SELECT k, count(*) AS n, sum(v)::BIGINT AS total FROM w GROUP BY k",
        reads: &["w"],
        key: Some("k"),
        answer: |of| of["w"].group(&[0], |rows| vec![count(rows), sum(rows, 1)]),
    },
    View {
        name: "timely_joined",
        sql: "SELECT w.k, w.v, t.v AS tv FROM w JOIN t ON w.k = t.id",
        reads: &["w", "t"],
        key: None,
        answer: |of| {
            let tables = of["t"].by(&[0]);
            let joined = of["w"].rows().flat_map(|w| {
                let partners = tables.get(&vec![w[0]]).into_iter().flatten();
                partners.map(|t| vec![w[0], w[1], t[1]])
            });
            Bag::of(joined)
        },
    },
    View {
        name: "by_value",
        sql: "SELECT u.v % 4 AS g, sum(t.v)::BIGINT AS total FROM u JOIN t ON u.k = t.id GROUP BY \
              u.v % 4",
        reads: &["u", "t"],
        key: Some("g"),
        answer: |of| {
            let tables = of["t"].by(&[0]);
            let joined = of["u"].rows().flat_map(|u| {
                let partners = tables.get(&vec![u[0]]).into_iter().flatten();
                partners.map(|t| vec![u[1].map(|v| v % 4), t[1]])
            });
            Bag::of(joined).group(&[0], |rows| vec![sum(rows, 1)])
        },
    },
];

/// The view of this name.
pub fn view(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}

/// What all views answer over these sources and tables, with them.
pub fn answers(bases: &Contents) -> Contents {
    let mut all = bases.clone();
    for view in VIEWS {
        if view.reads.iter().all(|read| all.contains_key(*read)) {
            let answer = (view.answer)(&all);
            all.insert(view.name.to_string(), answer);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bag(rows: &[&[i64]]) -> Bag {
        Bag::of(rows.iter().map(|r| r.iter().map(|v| Some(*v)).collect()))
    }

    #[test]
    fn answers_are_what_the_queries_say() {
        let bases = Contents::from([
            ("s".into(), bag(&[&[1, 10], &[1, 11], &[2, 12]])),
            ("u".into(), bag(&[&[1, 6]])),
            ("w".into(), bag(&[&[3, 7], &[3, 8], &[4, 9]])),
            ("t".into(), bag(&[&[1, 100], &[3, 101]])),
        ]);
        let all = answers(&bases);
        assert_eq!(all.len(), BASES.len() + VIEWS.len());
        assert_eq!(all["copied"], bag(&[&[1, 10], &[1, 11]]));
        assert_eq!(all["counted"], bag(&[&[1, 2, 21], &[2, 1, 12]]));
        assert_eq!(all["histogram"], bag(&[&[2, 1], &[1, 1]]));
        assert_eq!(all["enriched"], bag(&[&[1, 10, 100], &[1, 11, 100]]));
        assert_eq!(all["grouped"], bag(&[&[0, 1, 1, 1], &[1, 1, 3, 3]]));
        assert_eq!(all["total"], bag(&[&[201, 2]]));
        let outer = Bag::of([
            vec![Some(1), Some(100), Some(2)],
            vec![Some(3), Some(101), None],
        ]);
        assert_eq!(all["outer_joined"], outer);
        assert_eq!(all["distinct_values"], bag(&[&[3], &[4], &[5]]));
        assert_eq!(all["either"], bag(&[&[1, 6], &[1, 100], &[3, 101]]));
        assert_eq!(all["unseen"], bag(&[&[3, 101]]));
        assert_eq!(all["timely"], all["w"]);
        assert_eq!(all["timely_counted"], bag(&[&[3, 2, 15], &[4, 1, 9]]));
        assert_eq!(all["timely_joined"], bag(&[&[3, 7, 101], &[3, 8, 101]]));
        assert_eq!(all["by_value"], bag(&[&[2, 100]]));
        assert_eq!(all["paired"], bag(&[&[1, 10, 6], &[1, 11, 6]]));
        assert_eq!(all["met"], Bag::default());
    }
}
