//! The source connector: positions, limits, rows, and the errors of a log that is not the one that
//! was read.

use super::super::testing::{columns, process, run, spec};
use super::super::{BrokerTrouble, SimBroker, SimConnectors};
use super::{LONG, put};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_changelog::connector::{SourceBatch, SourceConnector, SourceReader, SplitPosition};
use tidemark_common::{ErrorKind, Result, machine};
use tidemark_connector::Connectors;
use tidemark_plan::{ConnectorSpec, Format};

const A_WHILE: Duration = Duration::from_millis(200);

fn open(connectors: &SimConnectors, spec: &ConnectorSpec) -> Arc<dyn SourceConnector> {
    connectors.source(spec, &columns()).unwrap()
}

/// A reader, and the flag that its waker sets.
struct Reader(Box<dyn SourceReader>, Arc<AtomicBool>);

impl Reader {
    fn at(source: &Arc<dyn SourceConnector>, positions: &[SplitPosition]) -> Reader {
        let woken = Arc::new(AtomicBool::new(false));
        let rung = woken.clone();
        let waker = Arc::new(move || rung.store(true, Ordering::Relaxed));
        Reader(source.open(positions, waker).unwrap(), woken)
    }

    fn at_start(source: &Arc<dyn SourceConnector>) -> Reader {
        Reader::at(source, &source.start().unwrap())
    }

    /// Polls when it is woken, until nothing has come for a while.
    fn batches(&mut self) -> Result<Vec<SourceBatch>> {
        let mut batches = Vec::new();
        let mut quiet_since = machine::now();
        while machine::elapsed(quiet_since) < A_WHILE {
            if self.1.swap(false, Ordering::Relaxed) {
                while let Some(batch) = self.0.poll(3)? {
                    batches.push(batch);
                }
                quiet_since = machine::now();
            }
            machine::pause(Duration::from_millis(1));
        }
        Ok(batches)
    }

    fn rows(&mut self) -> String {
        text(&self.batches().unwrap())
    }

    /// `next_offset`, `records` and `leader_epoch` of the first split.
    fn stands(&self) -> (i64, u64, i32) {
        let first = &self.0.positions()[0];
        (first.next_offset, first.records, first.leader_epoch)
    }

    fn limit(&mut self, offset: i64) {
        let mut limits = self.0.positions();
        limits[0].next_offset = offset;
        self.0.set_limits(&limits);
    }
}

/// Rows as `weight:fields`.
fn text(batches: &[SourceBatch]) -> String {
    let mut rows = Vec::new();
    for batch in batches {
        let mut emit = |_, value: String| {
            rows.push(value);
            Ok(())
        };
        super::super::line::write_changes(&batch.changes, &[], &mut emit).unwrap();
    }
    rows.join(" ")
}

fn produce(broker: &SimBroker, values: &[&str]) {
    for (i, value) in values.iter().enumerate() {
        broker.produce("t", 0, None, Some(value.as_bytes()), 100 + i as i64);
    }
}

fn one_topic() -> (SimBroker, SimConnectors) {
    let (broker, connectors) = process(1);
    broker.create_topic("t", 1, false);
    (broker, connectors)
}

#[test]
fn rows_come_when_they_are_written_and_positions_pass_markers_and_gaps() {
    run(|| {
        let (broker, connectors) = one_topic();
        let source = open(&connectors, &spec("t"));
        let mut reader = Reader::at_start(&source);
        produce(&broker, &["1|a", "2|\\N"]);
        assert_eq!(reader.rows(), "+|1|a +|2|\\N");
        assert_eq!(reader.stands(), (2, 2, 0));
        let session = broker.init_transactions("x", LONG);
        put(&broker, &session, "3|no").unwrap();
        produce(&broker, &["4|b"]);
        assert_eq!(reader.rows(), "");
        assert_eq!(source.end().unwrap()[0].next_offset, 2);
        broker.end_transaction(&session, false).unwrap();
        assert_eq!(reader.rows(), "+|4|b");
        assert_eq!(
            reader.stands(),
            (5, 3, -1),
            "a marker is passed at the end only"
        );
        assert_eq!(source.end().unwrap()[0].next_offset, 5);
    });
}

#[test]
fn nothing_is_read_at_a_limit_and_a_gap_before_it_is_passed() {
    run(|| {
        let (broker, connectors) = one_topic();
        let source = open(&connectors, &spec("t"));
        let session = broker.init_transactions("x", LONG);
        produce(&broker, &["1|a"]);
        put(&broker, &session, "2|no").unwrap();
        broker.end_transaction(&session, false).unwrap();
        produce(&broker, &["3|b", "4|c"]);
        let mut reader = Reader::at_start(&source);
        reader.limit(2);
        assert_eq!(reader.rows(), "+|1|a");
        assert_eq!(reader.stands(), (2, 1, -1));
        reader.limit(4);
        let mut batch = reader.0.poll(10).unwrap().unwrap();
        assert_eq!(text(&[batch]), "+|3|b");
        assert!(reader.0.poll(10).unwrap().is_none());
        assert_eq!(reader.stands(), (4, 2, 0));
        reader.0.set_limits(&[]);
        batch = reader.0.poll(10).unwrap().unwrap();
        assert_eq!(text(&[batch]), "+|4|c");
        // Opened again at a position, it reads the same.
        let mut position = reader.0.positions();
        (position[0].next_offset, position[0].records) = (1, 1);
        position[0].leader_epoch = 0;
        let mut again = Reader::at(&source, &position);
        assert_eq!(again.rows(), "+|3|b +|4|c");
        assert_eq!(again.0.positions()[0].records, 3);
    });
}

#[test]
fn columns_times_and_what_cannot_be_read() {
    run(|| {
        let (broker, connectors) = one_topic();
        produce(&broker, &["1|a", "x|b", "1|2|3", "4|d"]);
        let source = open(&connectors, &spec("t"));
        let mut reader = Reader::at_start(&source);
        reader.0.set_columns(&[1, 0]);
        reader.0.set_times(true);
        let batches = reader.batches().unwrap();
        assert_eq!(text(&batches), "+|a|1 +|b|\\N +|d|4");
        let errors = batches.iter().flat_map(|b| &b.errors);
        let errors = errors.map(|e| (e.offset, e.column.as_str(), e.raw.as_slice()));
        let errors: Vec<_> = errors.collect();
        assert_eq!(errors, [(1, "id", &b"x|b"[..]), (2, "", &b"1|2|3"[..])]);
        let times: Vec<i64> = batches.iter().flat_map(|b| b.times_ms.clone()).collect();
        assert_eq!(times, [100, 101, 103]);
        assert_eq!(reader.0.positions()[0].time_ms, 103);
        assert_eq!(batches[0].faulty, [(1, 1)]);
    });
}

#[test]
fn an_upsert_source_takes_its_key_from_the_key_and_deletes_by_an_empty_value() {
    run(|| {
        let (broker, connectors) = process(1);
        broker.create_topic("t", 1, true);
        let put = |key: &str, value: Option<&str>| {
            broker.produce("t", 0, Some(key.as_bytes()), value.map(str::as_bytes), 1)
        };
        put("1", Some("1|a"));
        put("1", Some("0|b"));
        put("1", None);
        put("2", Some(""));
        let mut spec = spec("t");
        (spec.format, spec.key) = (Format::Upsert, vec![0]);
        let source = open(&connectors, &spec);
        assert!(source.may_lose_records().unwrap());
        let mut reader = Reader::at_start(&source);
        assert_eq!(reader.rows(), "+|1|a +|1|b -|1|\\N -|2|\\N");
        put("3", Some("3|c"));
        broker.compact("t");
        let mut late = Reader::at_start(&source);
        assert_eq!(late.rows(), "-|1|\\N -|2|\\N +|3|c");
        assert_eq!(late.stands(), (5, 3, 0));
        assert_eq!(reader.rows(), "+|3|c");
        let read = |reader: &Reader| broker.records_below("t", &reader.0.positions())[&0].len();
        assert_eq!(read(&reader), 5, "what was compacted is not forgotten");
        assert_eq!(read(&late), 3, "what was gone already was not read");
    });
}

/// Of a topic that is compacted, a reader may come too late for records, and for deletions: what it
/// has is what it has read, and so it is for all who go on where it stood.
#[test]
fn what_was_gone_before_it_was_read_is_no_input() {
    run(|| {
        let (broker, connectors) = process(1);
        broker.create_topic("t", 1, true);
        let put = |key: &str, value: Option<&str>| {
            broker.produce("t", 0, Some(key.as_bytes()), value.map(str::as_bytes), 1);
        };
        let mut spec = spec("t");
        (spec.format, spec.key) = (Format::Upsert, vec![0]);
        let source = open(&connectors, &spec);
        let mut reader = Reader::at_start(&source);
        let read = |positions: &[SplitPosition]| {
            let records = broker.records_below("t", positions).remove(&0).unwrap();
            let offsets = records.iter().map(|r| r.offset.to_string());
            offsets.collect::<Vec<_>>().join(" ")
        };
        put("1", Some("1|a"));
        put("2", Some("2|b"));
        assert_eq!(reader.rows(), "+|1|a +|2|b");
        let early = reader.0.positions();
        // Nobody reads for a while.
        drop(reader);
        put("1", None);
        put("2", Some("2|c"));
        put("3", Some("3|d"));
        put("2", Some("2|e"));
        broker.compact("t");
        broker.compact("t");
        put("3", Some("3|f"));
        let mut reader = Reader::at(&source, &early);
        reader.limit(4);
        assert_eq!(
            (reader.rows(), reader.stands()),
            (String::new(), (4, 2, -1))
        );
        assert_eq!(read(&reader.0.positions()), "0 1");
        reader.limit(5);
        let batch = reader.0.poll(10).unwrap().unwrap();
        assert_eq!(text(&[batch]), "+|3|d");
        assert_eq!(read(&early), "0 1");
        assert_eq!(read(&reader.0.positions()), "0 1 4");
        let mut next = Reader::at(&source, &reader.0.positions());
        broker.compact("t");
        assert_eq!(next.rows(), "+|2|e +|3|f");
        assert_eq!(next.stands(), (7, 5, 0));
        assert_eq!(read(&next.0.positions()), "0 1 4 5 6");
        assert_eq!(read(&early), "0 1");
        // Who begins now does not read what others have read.
        let mut late = Reader::at_start(&source);
        assert_eq!(late.rows(), "+|2|e +|3|f");
        assert_eq!(read(&late.0.positions()), "5 6");
    });
}

#[test]
fn start_end_and_new_partitions() {
    run(|| {
        let (broker, connectors) = one_topic();
        produce(&broker, &["1|a", "2|b", "3|c"]);
        broker.expire("t", 0, 1);
        let offsets = |mode: &[(&str, &str)]| {
            let mut spec = spec("t");
            let mode = mode.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            spec.options.extend(mode);
            let source = open(&connectors, &spec);
            let start = source.start().unwrap();
            (
                start[0].next_offset,
                source.earliest().unwrap()[0].next_offset,
            )
        };
        let mode = "scan.startup.mode";
        assert_eq!(offsets(&[]), (1, 1));
        assert_eq!(offsets(&[(mode, "latest")]), (3, 1));
        let time = |time| [(mode, "timestamp"), ("scan.startup.timestamp.millis", time)];
        assert_eq!(offsets(&time("102")), (2, 1));
        assert_eq!(offsets(&time("103")), (3, 1));
        let source = open(&connectors, &spec("t"));
        let mut reader = Reader::at_start(&source);
        assert_eq!(reader.rows(), "+|2|b +|3|c");
        broker.add_partitions("t", 1);
        broker.produce("t", 1, None, Some(b"4|d"), 1);
        let now = source.end().unwrap();
        let start = SplitPosition {
            next_offset: 0,
            ..now[1].clone()
        };
        reader.0.add_splits(&[start]).unwrap();
        assert_eq!(reader.rows(), "+|4|d");
        let no = connectors
            .source(&spec("none"), &columns())
            .unwrap()
            .start();
        assert_eq!(no.unwrap_err().state().0, "42704");
    });
}

fn corrupt(reader: &mut Reader) -> String {
    let error = reader.batches().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    error.message().to_string()
}

#[test]
fn a_log_that_is_not_the_one_that_was_read_is_an_error() {
    run(|| {
        let (broker, connectors) = one_topic();
        let source = open(&connectors, &spec("t"));
        produce(&broker, &["1|a", "2|b", "3|c"]);
        let mut reader = Reader::at_start(&source);
        assert_eq!(reader.rows(), "+|1|a +|2|b +|3|c");
        let stood = reader.0.positions();
        broker.elect("t", 0);
        assert_eq!(reader.rows(), "", "a leader that has everything");
        broker.elect_unclean("t", 0, 2);
        produce(&broker, &["4|other", "5|other"]);
        let expected = "kafka topic \"t\" partition 0 is not as it was read: the record below \
                        offset 3, of leader epoch 0, is gone";
        assert_eq!(corrupt(&mut reader), expected);
        assert_eq!(corrupt(&mut Reader::at(&source, &stood)), expected);
        let gone = SplitPosition {
            next_offset: 9,
            leader_epoch: -1,
            ..stood[0].clone()
        };
        let error = corrupt(&mut Reader::at(&source, &[gone]));
        let expected = "kafka topic \"t\" partition 0 no longer has offset 9: it has the offsets \
                        from 0 to 4";
        assert_eq!(error, expected);
        broker.delete_topic("t");
        broker.create_topic("t", 1, false);
        let now = source.end().unwrap();
        assert_eq!(
            source.check_same(&stood, &now).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let error = corrupt(&mut Reader::at(&source, &stood));
        assert!(
            error.contains("is not the one that was read before"),
            "{error}"
        );
    });
}

#[test]
fn requests_that_fail_and_a_broker_that_is_away_lose_nothing() {
    run(|| {
        let (broker, connectors) = one_topic();
        let source = open(&connectors, &spec("t"));
        let mut reader = Reader::at_start(&source);
        broker.set_trouble(BrokerTrouble {
            latency: (Duration::from_micros(10), Duration::from_millis(2)),
            refused: 300,
            unacknowledged: 300,
            ..BrokerTrouble::default()
        });
        let expected: Vec<String> = (0..50).map(|i| format!("+|{i}|a")).collect();
        for i in 0..50 {
            produce(&broker, &[&format!("{i}|a")]);
            machine::pause(Duration::from_millis(1));
        }
        broker.set_trouble(BrokerTrouble {
            away: true,
            ..BrokerTrouble::default()
        });
        machine::pause(Duration::from_millis(150));
        broker.calm();
        assert_eq!(reader.rows(), expected.join(" "));
        assert_eq!(reader.0.trouble(), None);
        // Of a process that was killed nothing comes any more.
        connectors.alive.kill();
        produce(&broker, &["51|a"]);
        assert_eq!(reader.rows(), "");
        assert!(source.end().is_err());
    });
}
