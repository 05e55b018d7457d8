//! The generator against its own definition: any way of cutting a split into polls gives the same
//! rows, and the kinds share the events as they should.

use super::*;
use crate::options::tests::spec;
use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use tidemark_changelog::connector::{SourceConnector, SourceReader, SplitPosition};

fn source(kind: &str, events: u64, splits: u32) -> GeneratorSource {
    let spec = spec(
        "nexmark",
        &[
            ("nexmark.table.type", kind),
            ("nexmark.event.num", &events.to_string()),
            ("nexmark.split.num", &splits.to_string()),
        ],
    );
    open(&spec, &default_columns(&spec).unwrap()).unwrap()
}

fn drain(reader: &mut dyn SourceReader, rows_max: usize) -> Vec<(SplitId, RecordBatch)> {
    let mut batches = Vec::new();
    while let Some(batch) = reader.poll(rows_max).unwrap() {
        assert!(batch.changes.num_rows() <= rows_max);
        batches.push((batch.split, batch.changes.into_parts().0));
    }
    batches
}

fn of_split(batches: &[(SplitId, RecordBatch)], split: SplitId) -> RecordBatch {
    concat_batches(
        &batches[0].1.schema(),
        batches.iter().filter(|(s, _)| *s == split).map(|(_, b)| b),
    )
    .unwrap()
}

#[test]
fn kinds_share_the_events_one_three_fortysix() {
    for (events, splits) in [
        (50_000u64, 4u32),
        (49_999, 4),
        (1, 1),
        (7, 3),
        (53, 2),
        (12_345, 5),
    ] {
        let count = |kind| {
            let source = source(kind, events, splits);
            let mut reader = source
                .open(&source.start().unwrap(), Arc::new(|| {}))
                .unwrap();
            drain(reader.as_mut(), 1000)
                .iter()
                .map(|(_, b)| b.num_rows() as u64)
                .sum::<u64>()
        };
        let of = |range: std::ops::Range<u64>| {
            (0..events).filter(|n| range.contains(&(n % 50))).count() as u64
        };
        assert_eq!(
            (count("Person"), count("Auction"), count("Bid")),
            (of(0..1), of(1..4), of(4..50)),
            "{events} events in {splits} splits"
        );
    }
}

#[test]
fn an_offset_means_the_same_row_however_it_is_reached() {
    for kind in ["person", "AUCTION", "Bid"] {
        let source = source(kind, 10_007, 3);
        let whole = {
            let mut reader = source
                .open(&source.start().unwrap(), Arc::new(|| {}))
                .unwrap();
            drain(reader.as_mut(), 4096)
        };
        // in small polls, stopped by a limit, reopened from the positions
        let mut pieces = Vec::new();
        let mut positions = source.start().unwrap();
        for step in 1..200i64 {
            let mut reader = source.open(&positions, Arc::new(|| {})).unwrap();
            let limits: Vec<SplitPosition> = positions
                .iter()
                .map(|p| SplitPosition {
                    next_offset: p.next_offset + step * 7 % 97,
                    ..p.clone()
                })
                .collect();
            reader.set_limits(&limits);
            pieces.extend(drain(reader.as_mut(), 1 + step as usize % 13));
            positions = reader.positions();
            for (position, limit) in positions.iter().zip(&limits) {
                let end = Nexmark::new(
                    NexmarkOptions::read(&spec(
                        "nexmark",
                        &[
                            ("nexmark.table.type", kind),
                            ("nexmark.event.num", "10007"),
                            ("nexmark.split.num", "3"),
                        ],
                    ))
                    .unwrap(),
                    &[],
                )
                .unwrap()
                .end(position.split);
                assert_eq!(position.next_offset, limit.next_offset.min(end));
            }
        }
        for split in 0..3 {
            assert_eq!(
                of_split(&whole, split),
                of_split(&pieces, split),
                "{kind}, split {split}"
            );
        }
        let rows: u64 = positions.iter().map(|p| p.records).sum();
        assert_eq!(
            rows,
            whole.iter().map(|(_, b)| b.num_rows() as u64).sum::<u64>()
        );
    }
}

#[test]
fn bids_are_distributed_like_the_benchmark_says() {
    let source = source("bid", 500_000, 2);
    let mut reader = source
        .open(&source.start().unwrap(), Arc::new(|| {}))
        .unwrap();
    let (mut hot, mut google, mut rows, mut last, mut bytes, mut price_sum) = (0, 0, 0, 0, 0, 0.0);
    for (_, batch) in drain(reader.as_mut(), 4096) {
        let (auction, price, channel) = (
            batch.column(0).as_primitive::<Int64Type>(),
            batch.column(2).as_primitive::<Int64Type>(),
            batch.column(3).as_string::<i32>(),
        );
        hot += auction
            .values()
            .iter()
            .filter(|a| (**a - 1000) % 100 == 0)
            .count();
        google += channel.iter().filter(|c| *c == Some("Google")).count();
        rows += batch.num_rows();
        price_sum += price
            .values()
            .iter()
            .map(|p| (*p as f64).log10())
            .sum::<f64>();
        assert!(
            price
                .values()
                .iter()
                .all(|p| (100..=100_000_000).contains(p))
        );
        bytes += batch.column(6).as_string::<i32>().value_data().len();
        last = last.max(
            *batch
                .column(5)
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .last()
                .unwrap(),
        );
    }
    let share = |n: usize| n as f64 / rows as f64;
    assert!(
        (0.49..0.53).contains(&share(hot)),
        "hot auctions {}",
        share(hot)
    );
    assert!(
        (0.115..0.135).contains(&share(google)),
        "Google {}",
        share(google)
    );
    assert!(
        (67.0..69.0).contains(&share(bytes)),
        "extra {}",
        share(bytes)
    );
    assert!(
        (4.9..5.1).contains(&(price_sum / rows as f64)),
        "price {}",
        price_sum / rows as f64
    );
    assert_eq!(last, BASE_MICROS + 499_999 * 100);
}

#[test]
fn only_the_columns_asked_for_are_made_and_in_that_order() {
    let source = source("bid", 1000, 1);
    let mut reader = source
        .open(&source.start().unwrap(), Arc::new(|| {}))
        .unwrap();
    reader.set_columns(&[5, 0]);
    let batch = reader.poll(10).unwrap().unwrap().changes;
    assert_eq!(
        batch
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect::<Vec<_>>(),
        ["date_time", "auction"]
    );
    reader.set_columns(&[]);
    assert_eq!(reader.poll(10).unwrap().unwrap().changes.num_rows(), 10);
}

#[test]
fn columns_are_matched_by_name_and_checked_by_type() {
    let spec = spec("nexmark", &[("nexmark.table.type", "Bid")]);
    let mut columns = default_columns(&spec).unwrap();
    columns[0].name = "auctoin".into();
    assert_eq!(
        open(&spec, &columns).err().unwrap().message(),
        "a Nexmark bid has no field \"auctoin\""
    );
    columns[0].name = "Auction".into();
    columns[0].data_type = DataType::Int32;
    assert_eq!(
        open(&spec, &columns).err().unwrap().message(),
        "column \"Auction\" of a Nexmark bid must be of type bigint"
    );
}

#[test]
fn what_was_read_before_is_not_paced() {
    let spec = spec(
        "nexmark",
        &[
            ("nexmark.table.type", "Bid"),
            ("nexmark.rate", "1"),
            ("nexmark.split.num", "1"),
        ],
    );
    let source = open(&spec, &default_columns(&spec).unwrap()).unwrap();
    let start = source.start().unwrap();
    let mut reader = source.open(&start, Arc::new(|| {})).unwrap();
    reader.set_limits(&[SplitPosition {
        next_offset: 100_000,
        ..start[0].clone()
    }]);
    drain(reader.as_mut(), 4096);
    assert_eq!(reader.positions()[0].next_offset, 100_000);
    // what comes next is new
    reader.set_limits(&[]);
    assert!(drain(reader.as_mut(), 4096).len() < 60);
}

#[test]
fn a_paced_source_keeps_its_rate_and_wakes_the_reader() {
    let spec = spec(
        "nexmark",
        &[
            ("nexmark.table.type", "Bid"),
            ("nexmark.rate", "2000"),
            ("nexmark.split.num", "1"),
        ],
    );
    let source = open(&spec, &default_columns(&spec).unwrap()).unwrap();
    let (sender, woken) = std::sync::mpsc::channel();
    let mut reader = source
        .open(
            &source.start().unwrap(),
            Arc::new(move || sender.send(()).unwrap_or(())),
        )
        .unwrap();
    let began = std::time::Instant::now();
    let mut rows = 0;
    while rows < 400 {
        match reader.poll(100).unwrap() {
            Some(batch) => rows += batch.changes.num_rows(),
            None => woken
                .recv_timeout(std::time::Duration::from_secs(5))
                .expect("the pacer wakes the reader"),
        }
    }
    assert!(
        began.elapsed().as_secs_f64() >= 0.19,
        "{rows} rows in {:?}",
        began.elapsed()
    );
}

/// `cargo test --release -p tidemark-connector -- --ignored --nocapture nexmark_speed`
#[test]
#[ignore = "a measurement"]
fn nexmark_speed() {
    let source = source("bid", 0, 1);
    for columns in [vec![0, 1, 2, 3, 4, 5, 6], vec![0, 2, 5], vec![6], vec![4]] {
        let mut reader = source
            .open(&source.start().unwrap(), Arc::new(|| {}))
            .unwrap();
        reader.set_columns(&columns);
        let began = std::time::Instant::now();
        let mut rows = 0;
        while rows < 10_000_000 {
            rows += reader.poll(4096).unwrap().unwrap().changes.num_rows();
        }
        println!(
            "bid columns {columns:?}: {:.1} M rows/s",
            rows as f64 / began.elapsed().as_secs_f64() / 1e6
        );
    }
}
