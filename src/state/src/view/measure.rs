//! Rates of views, printed: `cargo test --release -p tidemark-state --lib measure_views --
//! --ignored --nocapture`.

use super::*;
use crate::StateTable;
use crate::testing::Random;
use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::time::{Duration, Instant};

fn schema() -> SchemaRef {
    let fields = [
        ("k", DataType::Int64),
        ("s", DataType::Utf8),
        ("n", DataType::Int64),
    ];
    Arc::new(Schema::new(
        fields.map(|(name, t)| Field::new(name, t, true)).to_vec(),
    ))
}

fn rows(keys: &[i64], version: i64) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys.to_vec())),
        Arc::new(StringArray::from_iter_values(
            keys.iter().map(|k| format!("name {k}")),
        )),
        Arc::new(Int64Array::from_iter_values(
            keys.iter().map(|k| k + version),
        )),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn report(what: &str, rows: usize, spent: Duration) {
    println!(
        "{what:<40} {:>8.2} M rows/s  {:>7.1} ns/row",
        rows as f64 / spent.as_secs_f64() / 1e6,
        spent.as_secs_f64() * 1e9 / rows as f64
    );
}

fn measure(key: Option<Vec<usize>>, append_only: bool, what: &str) {
    const KEYS: i64 = 1_000_000;
    let options = ViewOptions {
        name: "r".into(),
        schema: schema(),
        key,
        append_only,
        table: 0,
        vnode_of_worker: 0,
        partitioned_by_key: !append_only,
    };
    let mut table = ViewTable::new(Arc::new(ViewPartition::new(options)));
    let view = table.view().clone();
    println!("{what}");
    let mut epoch = Epoch(0);
    let load: Vec<ChangeBatch> = (0..KEYS / 4000)
        .map(|b| ChangeBatch::insert(rows(&(b * 4000..(b + 1) * 4000).collect::<Vec<_>>(), 0)))
        .collect();
    let (mut append, mut merge, mut seal) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut step = |changes: Vec<ChangeBatch>, with_seal: bool, spent: [&mut Duration; 3]| {
        epoch = epoch.next();
        let start = Instant::now();
        view.append(epoch, changes);
        *spent[0] += start.elapsed();
        let start = Instant::now();
        if with_seal {
            table.seal();
            *spent[2] += start.elapsed();
        }
        let start = Instant::now();
        assert!(view.merge(epoch));
        *spent[1] += start.elapsed();
    };
    for (i, changes) in load.chunks(10).enumerate() {
        step(
            changes.to_vec(),
            i % 10 == 9,
            [&mut append, &mut merge, &mut seal],
        );
    }
    report("  load: append", KEYS as usize, append);
    report("        merge", KEYS as usize, merge);
    report("        seal", KEYS as usize, seal);
    println!(
        "  {:.1} bytes per row",
        view.memory_bytes() as f64 / KEYS as f64
    );
    if !append_only {
        let mut rng = Random(1);
        let mut versions = vec![0; KEYS as usize];
        let (mut append, mut merge, mut seal, mut count) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
        for i in 0..100 {
            let changes: Vec<ChangeBatch> = (0..5)
                .map(|_| {
                    let version = versions[0];
                    let keys: Vec<i64> = (0..2000)
                        .map(|_| rng.below(KEYS as usize) as i64)
                        .collect::<std::collections::BTreeSet<_>>()
                        .into_iter()
                        .filter(|k| versions[*k as usize] == version)
                        .collect();
                    let old = rows(&keys, version);
                    keys.iter().for_each(|k| versions[*k as usize] += 1);
                    let both = arrow::compute::concat_batches(
                        &schema(),
                        [&old, &rows(&keys, version + 1)],
                    )
                    .unwrap();
                    count += both.num_rows();
                    ChangeBatch::new(
                        both,
                        (0..keys.len() * 2)
                            .map(|i| if i < keys.len() { -1 } else { 1 })
                            .collect(),
                    )
                })
                .collect();
            step(changes, i % 20 == 19, [&mut append, &mut merge, &mut seal]);
        }
        report("  update: append", count, append);
        report("          merge", count, merge);
        report("          seal", count, seal);
    }
    let start = Instant::now();
    let read = view.read_at(epoch, epoch, &[0, 1, 2], 8192).unwrap();
    report(
        "  read all",
        read.iter().map(RecordBatch::num_rows).sum(),
        start.elapsed(),
    );
}

#[test]
#[ignore = "a measurement"]
fn measure_views() {
    measure(Some(vec![0]), false, "keyed");
    measure(None, false, "multiset");
    measure(None, true, "append-only");
}
