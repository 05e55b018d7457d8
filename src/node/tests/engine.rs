//! The engine without its SQL door: create, write, read, crash (a copy of the folder, as after
//! `kill -9` the files are all that is left), restart. Checkpoints are taken by statements only, so
//! that what was written after the last one comes back by replay, and a copy is never taken in the
//! middle of one.

#![allow(clippy::disallowed_methods)]

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use std::sync::Arc;
use tidemark_common::config::Config;
use tidemark_common::{Epoch, RelationId, Result};
use tidemark_node::{Engine, NewKeys, Writer};
use tidemark_plan::Relation;
use tidemark_planner::{Functions, Planner};

struct Database {
    engine: Engine,
    functions: Functions,
}

impl Database {
    async fn open(folder: &std::path::Path, workers: usize) -> Database {
        let config = Config {
            data_dir: folder.display().to_string(),
            workers,
            epoch_ms: 10,
            checkpoint_ms: 3_600_000,
            ..Config::default()
        };
        Database {
            engine: Engine::open(&config).await.unwrap(),
            functions: Functions {
                scalar: tidemark_operator::functions::all(),
            },
        }
    }

    async fn create(&self, sql: &str) -> Result<()> {
        for statement in tidemark_planner::parse(sql)? {
            let planner = Planner::new(self.engine.catalog(), &self.functions, &["public".into()]);
            let planned = planner.plan_create(self.engine.allocate_id(), &statement, "root")?;
            self.engine.create(planned.relation, |_| {}).await?;
        }
        Ok(())
    }

    fn plan(&self, sql: &str) -> Relation {
        let statement = tidemark_planner::parse(sql).unwrap().remove(0);
        let planner = Planner::new(self.engine.catalog(), &self.functions, &["public".into()]);
        let planned = planner.plan_create(self.engine.allocate_id(), &statement, "root");
        planned.unwrap().relation
    }

    fn relation(&self, name: &str) -> Arc<Relation> {
        self.engine
            .catalog()
            .find("public", name)
            .unwrap_or_else(|| panic!("{name} exists"))
            .clone()
    }

    /// Sorted rows as text.
    fn rows(&self, name: &str) -> Vec<String> {
        let pin = self.engine.pin();
        let relation = self.relation(name);
        let columns: Vec<usize> = (0..relation.columns.len()).collect();
        let mut rows = Vec::new();
        for partition in self.engine.partitions(relation.id).unwrap() {
            for batch in partition
                .read_at(pin.epoch(), pin.mergeable(), &columns, 1000)
                .unwrap()
            {
                for row in 0..batch.num_rows() {
                    let values: Vec<String> = batch
                        .columns()
                        .iter()
                        .map(|c| arrow::util::display::array_value_to_string(c, row).unwrap())
                        .collect();
                    rows.push(values.join(" "));
                }
            }
        }
        rows.sort();
        rows
    }

    async fn write(&self, table: &str, deletes: &[(i64, &str)], inserts: &[(i64, &str)]) -> Epoch {
        let relation = self.relation(table);
        let batch = |rows: &[(i64, &str)]| {
            let keys = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
            let names = StringArray::from_iter_values(rows.iter().map(|r| r.1));
            RecordBatch::try_new(
                relation.arrow_schema(),
                vec![Arc::new(keys), Arc::new(names)],
            )
            .unwrap()
        };
        let mut guard = self
            .engine
            .begin_write(&[relation.id], Writer::default())
            .await
            .unwrap();
        guard
            .write(
                relation.id,
                &[batch(deletes)],
                &[batch(inserts)],
                NewKeys::Any,
            )
            .unwrap();
        let epoch = guard.commit().await.unwrap();
        let all: Vec<RelationId> = self.engine.catalog().relations.keys().copied().collect();
        drop(self.engine.pin_when(&all, epoch).await.unwrap());
        epoch
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder =
        std::env::temp_dir().join(format!("tidemark-engine-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What a crash would leave.
fn crashed_copy(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let copy = self::folder(name);
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", folder.display()))
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn written_rows_reach_views_and_survive_a_crash() {
    let first = folder("first");
    let database = Database::open(&first, 2).await;
    database
        .create("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)")
        .await
        .unwrap();
    database
        .write("t", &[], &[(1, "a"), (2, "b"), (3, "b")])
        .await;
    database
        .create(
            "CREATE MATERIALIZED VIEW v AS SELECT id * 10 AS ten, name FROM t WHERE name <> 'a'",
        )
        .await
        .unwrap();
    database
        .create(
            "CREATE MATERIALIZED VIEW w AS SELECT x.ten, t.id FROM v x JOIN t ON x.name = t.name",
        )
        .await
        .unwrap();
    database
        .create(
            "CREATE MATERIALIZED VIEW x AS SELECT n, name FROM (SELECT count(*) AS n FROM \
                     t) a CROSS JOIN v",
        )
        .await
        .unwrap();
    assert_eq!(database.rows("x"), ["3 b", "3 b"]);
    assert_eq!(database.rows("v"), ["20 b", "30 b"]);
    assert_eq!(database.rows("w"), ["20 2", "20 3", "30 2", "30 3"]);
    database
        .write("t", &[(3, "b")], &[(1, "b"), (4, "c")])
        .await;
    assert_eq!(database.rows("t"), ["1 b", "2 b", "4 c"]);
    assert_eq!(database.rows("v"), ["10 b", "20 b", "40 c"]);
    let expected = (database.rows("t"), database.rows("v"), database.rows("w"));
    assert_eq!(expected.2, ["10 1", "10 2", "20 1", "20 2", "40 4"]);
    for (round, workers) in [(0, 2), (1, 1), (2, 3)] {
        let copy = crashed_copy(&first, &format!("copy{round}"));
        let restarted = Database::open(&copy, workers).await;
        assert_eq!(
            (
                restarted.rows("t"),
                restarted.rows("v"),
                restarted.rows("w")
            ),
            expected,
            "round {round}"
        );
        restarted.write("t", &[], &[(5, "c")]).await;
        assert_eq!(restarted.rows("v"), ["10 b", "20 b", "40 c", "50 c"]);
        assert_eq!(restarted.rows("x"), ["4 b", "4 b", "4 c", "4 c"]);
        restarted.engine.shutdown().await.unwrap();
        std::fs::remove_dir_all(&copy).unwrap();
    }
    database.engine.shutdown().await.unwrap();
    let again = Database::open(&first, 2).await;
    assert_eq!(
        (again.rows("t"), again.rows("v"), again.rows("w")),
        expected
    );
    again.engine.shutdown().await.unwrap();
    std::fs::remove_dir_all(&first).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_one_source_agree_and_late_ones_catch_up() {
    let folder = folder("source");
    let database = Database::open(&folder, 2).await;
    database
        .create(
            "CREATE SOURCE bid WITH (connector = 'nexmark', nexmark.table.type = 'Bid', \
                     nexmark.event.num = '50000') FORMAT PLAIN ENCODE NATIVE",
        )
        .await
        .unwrap();
    database
        .create("CREATE MATERIALIZED VIEW a AS SELECT auction, price FROM bid")
        .await
        .unwrap();
    let total = 50_000 / 50 * 46;
    let counted = |name: &str| database.rows(name).len();
    while counted("a") < total {
        database.engine.flush().await.unwrap();
    }
    database
        .create("CREATE MATERIALIZED VIEW b AS SELECT auction, price FROM bid WHERE price >= 0")
        .await
        .unwrap();
    while counted("b") < total {
        database.engine.flush().await.unwrap();
    }
    assert_eq!(database.rows("a"), database.rows("b"));
    let mut scanned = 0;
    let engine = database.engine.clone();
    let source = database.relation("bid").id;
    let sum = tokio::task::spawn_blocking(move || {
        let mut sum = 0;
        engine.scan_source(source, &[2], &engine.pin(), &mut drop, &mut |batch| {
            scanned += batch.num_rows();
            sum += batch
                .column(0)
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .sum::<i64>();
            Ok(())
        })?;
        Ok::<_, tidemark_common::Error>((scanned, sum))
    });
    let (scanned, sum) = sum.await.unwrap().unwrap();
    assert_eq!(scanned, total);
    let seen: i64 = database
        .rows("a")
        .iter()
        .map(|r| r.rsplit(' ').next().unwrap().parse::<i64>().unwrap())
        .sum();
    assert_eq!(sum, seen);
    database.engine.shutdown().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_broker_may_take_away_come_back_from_the_log() {
    let first = folder("logged");
    let database = Database::open(&first, 2).await;
    let sql = "CREATE TABLE bid WITH (connector = 'nexmark', nexmark.table.type = 'Bid', \
               nexmark.rate = '20000') FORMAT PLAIN ENCODE NATIVE";
    let mut relation = database.plan(sql);
    relation.logs_rows = Some(Epoch(0));
    database.engine.create(relation, |_| {}).await.unwrap();
    let visible = database.rows("bid").len();
    while database.rows("bid").len() < visible + 2000 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let seen = database.rows("bid");
    let copy = crashed_copy(&first, "logged-copy");
    let restarted = Database::open(&copy, 3).await;
    let again = restarted.rows("bid");
    assert!(
        again.len() >= seen.len(),
        "{} rows after {}",
        again.len(),
        seen.len()
    );
    let again: std::collections::HashSet<&String> = again.iter().collect();
    assert!(
        seen.iter().all(|row| again.contains(row)),
        "a row that was seen is gone"
    );
    restarted.engine.shutdown().await.unwrap();
    database.engine.shutdown().await.unwrap();
    std::fs::remove_dir_all(&first).unwrap();
    std::fs::remove_dir_all(&copy).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_may_lose_records_is_replayed_from_the_log() {
    let first = folder("logged-source");
    let database = Database::open(&first, 2).await;
    let sql = "CREATE SOURCE bid WITH (connector = 'nexmark', nexmark.table.type = 'Bid', \
               nexmark.rate = '20000') FORMAT PLAIN ENCODE NATIVE";
    let mut relation = database.plan(sql);
    relation.logs_rows = Some(Epoch(0));
    database.engine.create(relation, |_| {}).await.unwrap();
    // Two views that want other columns of the source; a third one was there when rows were read.
    for view in [
        "CREATE MATERIALIZED VIEW a AS SELECT price, auction FROM bid",
        "CREATE MATERIALIZED VIEW b AS SELECT bidder FROM bid",
        "CREATE MATERIALIZED VIEW gone AS SELECT channel FROM bid",
    ] {
        database.create(view).await.unwrap();
    }
    let visible = database.rows("a").len();
    while database.rows("a").len() < visible + 2000 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let gone = database.relation("gone").id;
    database.engine.drop(&[gone], false).await.unwrap();
    let seen = [database.rows("a"), database.rows("b")];
    let copy = crashed_copy(&first, "logged-source-copy");
    let restarted = Database::open(&copy, 3).await;
    for (view, seen) in ["a", "b"].iter().zip(seen) {
        // Both are sorted.
        let mut again = restarted.rows(view).into_iter();
        for row in seen {
            assert!(
                again.any(|r| r == row),
                "{row} was seen in {view} and is gone"
            );
        }
    }
    restarted.engine.shutdown().await.unwrap();
    database.engine.shutdown().await.unwrap();
    std::fs::remove_dir_all(&first).unwrap();
    std::fs::remove_dir_all(&copy).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_folder_has_one_server() {
    let folder = folder("lock");
    let database = Database::open(&folder, 1).await;
    let config = Config {
        data_dir: folder.display().to_string(),
        ..Config::default()
    };
    let error = Engine::open(&config).await.err().unwrap();
    assert!(
        error.message().contains("in use by another server"),
        "{error}"
    );
    database.engine.shutdown().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
