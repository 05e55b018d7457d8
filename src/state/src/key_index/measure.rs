//! Rates of the kernels, printed: `cargo test --release -p tidemark-state --lib measure_kernels --
//! --ignored --nocapture`.

use crate::testing::Random;
use crate::{KeyIndex, RowStore};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;
use std::time::Instant;
use tidemark_changelog::hash_columns;

const ROWS: usize = 4096;

fn report(what: &str, rows: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what:<50} {:>8.1} M rows/s  {:>6.1} ns/row",
        rows as f64 / seconds / 1e6,
        seconds * 1e9 / rows as f64
    );
}

fn rss() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|p| p.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}

fn keys(rng: &mut Random, kind: &str, distinct: usize) -> Vec<ArrayRef> {
    let values: Vec<i64> = (0..ROWS)
        .map(|_| rng.below(distinct) as i64 * 7919)
        .collect();
    match kind {
        "i64" => vec![Arc::new(Int64Array::from(values))],
        "2 x i64" => vec![
            Arc::new(Int64Array::from(values.clone())),
            Arc::new(Int64Array::from_iter_values(values.iter().map(|v| v % 3))),
        ],
        "short text" => vec![Arc::new(StringArray::from_iter_values(
            values.iter().map(|v| format!("u{v}")),
        ))],
        _ => vec![Arc::new(StringArray::from_iter_values(
            values.iter().map(|v| format!("https://tidemark/item/{v}")),
        ))],
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_kernels() {
    for distinct in [1000, 1_000_000, 10_000_000] {
        for kind in ["i64", "2 x i64", "short text", "long text"] {
            let mut rng = Random(1);
            let total = if distinct > 1_000_000 {
                16_000_000
            } else {
                4_000_000
            };
            let batches: Vec<Vec<ArrayRef>> = (0..total / ROWS / 4)
                .map(|_| keys(&mut rng, kind, distinct))
                .collect();
            let hashes: Vec<Vec<u64>> = batches.iter().map(|b| hash_columns(b, ROWS)).collect();
            let before = rss();
            let mut index = KeyIndex::new(
                &batches[0]
                    .iter()
                    .map(|k| k.data_type().clone())
                    .collect::<Vec<_>>(),
            );
            let mut ids = Vec::new();
            let start = Instant::now();
            let mut longest = 0.0f64;
            for (batch, hashes) in batches.iter().zip(&hashes) {
                let start = Instant::now();
                index.intern(batch, hashes, &mut ids);
                longest = longest.max(start.elapsed().as_secs_f64());
            }
            println!("longest batch {:.2} ms", longest * 1e3);
            report(
                &format!("intern {kind}, {} new of {distinct}", index.len()),
                batches.len() * ROWS,
                start,
            );
            let held = rss() - before;
            let start = Instant::now();
            for (batch, hashes) in batches.iter().zip(&hashes) {
                index.intern(batch, hashes, &mut ids);
            }
            report("  again", batches.len() * ROWS, start);
            let start = Instant::now();
            for (batch, hashes) in batches.iter().zip(&hashes) {
                index.find(batch, hashes, &mut ids);
            }
            report("  find", batches.len() * ROWS, start);
            let start = Instant::now();
            let live: Vec<u32> = index.live_ids().collect();
            for ids in live.chunks(ROWS) {
                index.gather(ids);
            }
            report("  gather in order", live.len(), start);
            println!(
                "  {:.1} bytes per key, {:.1} by the process",
                index.memory_bytes() as f64 / index.len() as f64,
                held as f64 / index.len() as f64
            );
        }
    }
    measure_store();
}

fn measure_store() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, false),
        Field::new("s", DataType::Utf8, false),
        Field::new("l", DataType::Utf8, false),
    ]));
    let mut rng = Random(1);
    let batches: Vec<RecordBatch> = (0..488)
        .map(|_| {
            let columns: Vec<ArrayRef> = vec![
                keys(&mut rng, "i64", 1 << 30).remove(0),
                keys(&mut rng, "short text", 1000).remove(0),
                keys(&mut rng, "long text", 1 << 20).remove(0),
            ];
            RecordBatch::try_new(schema.clone(), columns).unwrap()
        })
        .collect();
    let before = rss();
    let mut store = RowStore::new(schema);
    let (mut ids, start) = (Vec::new(), Instant::now());
    batches.iter().for_each(|b| store.insert(b, &mut ids));
    report("store: insert i64, short, long text", 488 * ROWS, start);
    println!(
        "  {:.1} bytes per row, {:.1} by the process",
        store.memory_bytes() as f64 / store.len() as f64,
        (rss() - before) as f64 / store.len() as f64
    );
    let random: Vec<Vec<u32>> = (0..488)
        .map(|_| (0..ROWS).map(|_| rng.below(store.len()) as u32).collect())
        .collect();
    let ordered: Vec<Vec<u32>> = (0..488)
        .map(|b| (b * ROWS as u32..(b + 1) * ROWS as u32).collect())
        .collect();
    for (order, all) in [("in order", &ordered), ("at random", &random)] {
        for (column, name) in ["i64", "short text", "long text"].iter().enumerate() {
            let start = Instant::now();
            all.iter()
                .for_each(|ids| drop(store.gather(&[column], ids)));
            report(&format!("  gather {name} {order}"), 488 * ROWS, start);
        }
    }
    let start = Instant::now();
    random.iter().flatten().for_each(|id| {
        if store.is_live(*id) {
            store.remove(*id);
        }
    });
    report("  remove at random", 488 * ROWS, start);
}
