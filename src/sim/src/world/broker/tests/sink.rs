//! The sink: whatever happens, each change arrives once, in order.

use super::super::super::dice::Dice;
use super::super::testing::{columns, process, run, spec, successor};
use super::super::{BrokerTrouble, Record, SimBroker, SimConnectors, line};
use arrow::array::{Int64Array, RecordBatch, StringArray};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_changelog::connector::{SinkContent, SinkDelivery, SinkEpoch, SinkMarker, SinkWriter};
use tidemark_changelog::{ChangeBatch, skip};
use tidemark_common::{Epoch, ErrorKind, RelationId, machine};
use tidemark_connector::{Connectors, SinkIdentity};
use tidemark_plan::{ConnectorSpec, Format};

fn sink_spec(more: &[(&str, &str)]) -> ConnectorSpec {
    let mut spec = spec("out");
    spec.options.remove("scan.startup.mode");
    let more = more.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    spec.options.extend(more);
    (spec.format, spec.key) = (Format::Upsert, vec![0]);
    spec
}

fn identity() -> SinkIdentity {
    SinkIdentity {
        cluster: "c".into(),
        sink: RelationId(7),
        name: "s".into(),
    }
}

fn open(connectors: &SimConnectors) -> Box<dyn SinkWriter> {
    open_as(connectors, &sink_spec(&[]))
}

fn open_as(connectors: &SimConnectors, spec: &ConnectorSpec) -> Box<dyn SinkWriter> {
    connectors
        .sink(spec, &columns(), identity(), false)
        .unwrap()
}

/// Epoch `n`: key `n % 3` gets the value `n`, in the place of the one before.
fn epoch(n: u64) -> SinkEpoch {
    let mut rows = vec![(1, n % 3, n)];
    if n > 3 {
        rows.insert(0, (-1, n % 3, n - 3));
    }
    let ids: Int64Array = rows.iter().map(|r| Some(r.1 as i64)).collect();
    let names: StringArray = rows.iter().map(|r| Some(r.2.to_string())).collect();
    let columns = [("id", Arc::new(ids) as _), ("name", Arc::new(names) as _)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    SinkEpoch {
        epoch: Epoch(n),
        changes: vec![ChangeBatch::new(batch, rows.iter().map(|r| r.0).collect())],
        hash: n * 31,
    }
}

/// A large epoch, which is delivered in parts: `rows` insertions.
fn large(n: u64, rows: i64) -> SinkEpoch {
    let ids: Int64Array = (0..rows).map(|i| Some(1000 + i)).collect();
    let names: StringArray = (0..rows).map(|_| Some("large")).collect();
    let columns = [("id", Arc::new(ids) as _), ("name", Arc::new(names) as _)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    SinkEpoch {
        epoch: Epoch(n),
        changes: vec![ChangeBatch::insert(batch)],
        hash: n * 31,
    }
}

/// What is to be delivered after this marker, of these epochs.
fn after(marker: &SinkMarker, epochs: &[SinkEpoch]) -> Option<SinkDelivery> {
    let left: Vec<&SinkEpoch> = epochs.iter().filter(|e| e.epoch > marker.epoch).collect();
    let first = *left.first()?;
    let is_part = first.num_rows() > 10;
    let content = match is_part {
        true => SinkContent::Part {
            part: SinkEpoch {
                changes: skip(&first.changes, marker.partial as usize),
                ..first.clone()
            },
            ends: true,
        },
        false => {
            let whole = left.into_iter().take_while(|e| e.num_rows() <= 10);
            SinkContent::Epochs(whole.take(4).cloned().collect())
        }
    };
    Some(SinkDelivery {
        before: marker.clone(),
        content,
    })
}

/// All that was committed, by key, in order.
fn received(broker: &SimBroker) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in broker.committed("out").into_iter().flatten() {
        let Record { key, value, .. } = record;
        let text = |b: Option<bytes::Bytes>| String::from_utf8(b.unwrap().to_vec()).unwrap();
        all.entry(text(key)).or_default().push(text(value));
    }
    all
}

fn expected(epochs: &[SinkEpoch]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for changes in epochs.iter().flat_map(|e| &e.changes) {
        let mut emit = |key: Option<String>, value| {
            all.entry(key.unwrap()).or_default().push(value);
            Ok(())
        };
        line::write_changes(changes, &[0], &mut emit).unwrap();
    }
    all
}

fn prepared(seed: u64) -> (SimBroker, SimConnectors) {
    let (broker, connectors) = process(seed);
    broker.create_topic("out", 2, false);
    let spec = sink_spec(&[]);
    connectors.prepare_sink(&spec, &identity()).unwrap();
    (broker, connectors)
}

/// Delivers until everything is, as a sink's thread does; returns how often it took over.
fn deliver_all(writer: &mut dyn SinkWriter, epochs: &[SinkEpoch]) -> usize {
    let (mut known, mut taken_over) = (None, 0);
    for _ in 0..10_000 {
        let marker = match known.take() {
            Some(marker) => marker,
            None => {
                taken_over += 1;
                match writer.recover() {
                    Ok(marker) => marker.expect("the first marker is there"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                        continue;
                    }
                }
            }
        };
        let Some(delivery) = after(&marker, epochs) else {
            assert_eq!(marker.hash, epochs.last().unwrap().hash);
            return taken_over;
        };
        match writer.deliver(&delivery) {
            Ok(delivered) => {
                assert!(delivered.marker.progress() > marker.progress());
                known = Some(delivered.marker);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    panic!("delivery makes no progress");
}

#[test]
fn epochs_are_delivered_with_their_marker() {
    run(|| {
        let (broker, connectors) = prepared(1);
        let mut writer = open(&connectors);
        assert_eq!(writer.recover().unwrap(), Some(SinkMarker::default()));
        let epochs: Vec<SinkEpoch> = (1..=9).map(epoch).collect();
        assert_eq!(deliver_all(writer.as_mut(), &epochs), 1);
        assert_eq!(received(&broker), expected(&epochs));
        assert_eq!(
            received(&broker)["1"],
            ["+|1|1", "-|1|1", "+|1|4", "-|1|4", "+|1|7"]
        );
        let marker = open(&connectors).recover().unwrap().unwrap();
        assert_eq!(marker.progress(), (Epoch(9), 0));
    });
}

#[test]
fn a_successor_fences_a_writer_that_still_delivers() {
    run(|| {
        let (broker, connectors) = prepared(1);
        let epochs: Vec<SinkEpoch> = (1..=3).map(epoch).collect();
        let mut old = open(&connectors);
        let marker = old.recover().unwrap().unwrap();
        let mut new = open(&successor(&broker));
        assert_eq!(new.recover().unwrap(), Some(marker.clone()));
        let delivery = after(&marker, &epochs).unwrap();
        let error = old.deliver(&delivery).unwrap_err();
        assert!(
            error.message().contains("another writer has taken over"),
            "{error}"
        );
        new.deliver(&delivery).unwrap();
        assert_eq!(received(&broker), expected(&epochs));
    });
}

#[test]
fn a_successor_sees_all_that_a_writer_delivers_which_does_not_know_of_it() {
    let dice = Dice::new(8);
    for _ in 0..200 {
        let dice = dice.fork();
        run(move || {
            let (broker, connectors) = prepared(dice.below(1000));
            let quick = (Duration::ZERO, Duration::from_micros(500));
            broker.set_trouble(BrokerTrouble {
                latency: quick,
                marker_delay: quick,
                ..BrokerTrouble::default()
            });
            let epochs: Vec<SinkEpoch> = (1..=30).map(epoch).collect();
            let (mut old, to_do) = (open(&connectors), epochs.clone());
            let (ends, mut ended) = tokio::sync::oneshot::channel();
            machine::spawn_blocking(move || {
                let mut marker = old.recover().unwrap().unwrap();
                while let Some(delivery) = after(&marker, &to_do) {
                    let Ok(delivered) = old.deliver(&delivery) else {
                        break;
                    };
                    marker = delivered.marker;
                }
                let _ = ends.send(());
            });
            machine::pause(dice.between(Duration::ZERO, Duration::from_millis(12)));
            deliver_all(open(&successor(&broker)).as_mut(), &epochs);
            machine::block_on(&mut ended).unwrap();
            broker.calm();
            assert_eq!(received(&broker), expected(&epochs));
        });
    }
}

#[test]
fn each_change_arrives_once_whatever_gets_lost() {
    let ms = Duration::from_millis;
    let quick = (Duration::ZERO, Duration::from_micros(50));
    let none = BrokerTrouble {
        latency: quick,
        marker_delay: quick,
        cut: 200,
        ..BrokerTrouble::default()
    };
    let troubles = [
        BrokerTrouble {
            refused: 100,
            ..none.clone()
        },
        BrokerTrouble {
            unacknowledged: 100,
            ..none.clone()
        },
        BrokerTrouble {
            late: 150,
            late_by: (Duration::ZERO, ms(5)),
            ..none.clone()
        },
        BrokerTrouble {
            refused: 50,
            unacknowledged: 50,
            late: 50,
            late_by: (Duration::ZERO, ms(5)),
            marker_delay: (Duration::ZERO, ms(3)),
            ..none
        },
    ];
    for (seed, trouble) in troubles.into_iter().enumerate() {
        run(move || {
            let (broker, connectors) = prepared(seed as u64);
            let mut epochs: Vec<SinkEpoch> = (1..=40).map(epoch).collect();
            epochs.insert(20, large(1000, 300));
            for (at, epoch) in epochs.iter_mut().enumerate() {
                (epoch.epoch, epoch.hash) = (Epoch(at as u64 + 1), at as u64 * 7);
            }
            broker.set_trouble(trouble.clone());
            let taken_over = deliver_all(open(&connectors).as_mut(), &epochs);
            assert!(taken_over > 3, "{trouble:?} happened");
            broker.calm();
            let is_right = received(&broker) == expected(&epochs);
            assert!(is_right, "{trouble:?}: {:?}", received(&broker));
        });
    }
}

#[test]
fn a_lost_answer_to_a_commit_leaves_the_outcome_to_the_marker() {
    run(|| {
        let (broker, connectors) = prepared(1);
        let epochs: Vec<SinkEpoch> = (1..=2).map(epoch).collect();
        for late in [false, true] {
            let mut writer = open(&connectors);
            let marker = writer.recover().unwrap().unwrap();
            let delivery = SinkDelivery {
                content: SinkContent::Epochs(vec![epochs[usize::from(late)].clone()]),
                before: marker,
            };
            // A transaction that is open, then all answers are lost.
            broker.set_trouble(BrokerTrouble {
                unacknowledged: if late { 0 } else { 1000 },
                late: if late { 1000 } else { 0 },
                ..BrokerTrouble::default()
            });
            writer.deliver(&delivery).unwrap_err();
            broker.calm();
            let marker = writer.recover().unwrap().unwrap();
            if let Some(delivery) = after(&marker, &epochs[..=usize::from(late)]) {
                writer.deliver(&delivery).unwrap();
            }
            assert_eq!(received(&broker), expected(&epochs[..=usize::from(late)]));
        }
    });
}

#[test]
fn markers_are_found_behind_those_of_others_and_after_compaction() {
    run(|| {
        let (broker, connectors) = prepared(1);
        let topic = tidemark_connector::kafka::MARKER_TOPIC;
        let epochs: Vec<SinkEpoch> = (1..=5).map(epoch).collect();
        deliver_all(open(&connectors).as_mut(), &epochs);
        for i in 0..50 {
            let key = format!("c/{}", 100 + i % 3);
            broker.produce(topic, 0, Some(key.as_bytes()), Some(b"{}"), 1);
        }
        let marker = open(&connectors).recover().unwrap().unwrap();
        assert_eq!(marker.epoch, Epoch(5));
        broker.compact(topic);
        broker.compact(topic);
        let marker = open(&connectors).recover().unwrap().unwrap();
        assert_eq!(marker.epoch, Epoch(5));
        // Another sink's transaction is open behind the marker: nobody waits for it.
        let session = broker.init_transactions("other", super::LONG);
        broker
            .produce_in(&session, topic, 0, Some(b"c/9"), Some(b"{}"))
            .unwrap();
        let marker = open(&connectors).recover().unwrap().unwrap();
        assert_eq!(marker.epoch, Epoch(5));
    });
}

#[test]
fn at_least_once_delivers_again_what_its_marker_does_not_cover() {
    run(|| {
        let (broker, connectors) = prepared(3);
        let spec = sink_spec(&[("delivery", "at_least_once")]);
        let epochs: Vec<SinkEpoch> = (1..=12).map(epoch).collect();
        broker.set_trouble(BrokerTrouble {
            unacknowledged: 150,
            refused: 100,
            ..BrokerTrouble::default()
        });
        deliver_all(open_as(&connectors, &spec).as_mut(), &epochs);
        let all: usize = expected(&epochs).values().map(Vec::len).sum();
        let (received, expected) = (received(&broker), expected(&epochs));
        for (key, values) in expected {
            let missing = values.iter().find(|v| !received[&key].contains(v));
            assert_eq!(missing, None);
            assert_eq!(received[&key].last(), values.last());
        }
        assert!(received.values().map(Vec::len).sum::<usize>() >= all);
    });
}

#[test]
fn a_process_that_is_killed_leaves_a_transaction_that_its_successor_ends() {
    let dice = Dice::new(5);
    for _ in 0..200 {
        let dice = dice.fork();
        run(move || {
            let (broker, connectors) = prepared(dice.below(1000));
            let epochs: Vec<SinkEpoch> = (1..=6).map(epoch).collect();
            broker.set_trouble(BrokerTrouble {
                latency: (Duration::ZERO, Duration::from_millis(2)),
                ..BrokerTrouble::default()
            });
            let mut old = open(&connectors);
            let marker = old.recover().unwrap().unwrap();
            let delivery = after(&marker, &epochs).unwrap();
            let alive = connectors.alive.clone();
            let moment = dice.between(Duration::ZERO, Duration::from_millis(8));
            machine::spawn(async move {
                machine::sleep(moment).await;
                alive.kill();
            });
            let _ = old.deliver(&delivery);
            connectors.alive.kill();
            assert!(old.deliver(&delivery).is_err());
            deliver_all(open(&successor(&broker)).as_mut(), &epochs);
            assert_eq!(received(&broker), expected(&epochs));
        });
    }
}
