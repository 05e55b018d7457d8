//! Transactions as the simulation itself makes them; what the two connectors do is in the files
//! below.

mod sink;
mod source;

use super::testing::{process, run};
use super::*;
use std::time::Duration;
use tidemark_common::machine;

const LONG: Duration = Duration::from_secs(3600);

/// The committed records of the topic's first partition as `offset:value`.
fn seen(broker: &SimBroker, topic: &str) -> String {
    let records = &broker.committed(topic)[0];
    let text = |r: &Record| {
        let value = r.value.as_deref().map(String::from_utf8_lossy);
        format!("{}:{}", r.offset, value.as_deref().unwrap_or("-"))
    };
    records.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn put(broker: &SimBroker, session: &Session, value: &str) -> Result<i64, Refusal> {
    broker.produce_in(session, "t", 0, None, Some(value.as_bytes()))
}

#[test]
fn what_a_transaction_writes_counts_when_it_is_committed() {
    run(|| {
        let (broker, _) = process(1);
        broker.create_topic("t", 1, false);
        let session = broker.init_transactions("x", LONG);
        put(&broker, &session, "a").unwrap();
        broker.produce("t", 0, None, Some(b"b"), 5);
        assert_eq!(
            (seen(&broker, "t").as_str(), broker.end_offsets("t")),
            ("", vec![0])
        );
        broker.end_transaction(&session, true).unwrap();
        assert_eq!(seen(&broker, "t"), "0:a 1:b");
        assert_eq!(broker.end_offsets("t"), [3]);
        put(&broker, &session, "c").unwrap();
        broker.end_transaction(&session, false).unwrap();
        broker.end_transaction(&session, false).unwrap();
        let no = broker.end_transaction(&session, true);
        assert_eq!(no, Err(Refusal::NoTransaction));
        assert_eq!(seen(&broker, "t"), "0:a 1:b");
        assert_eq!(broker.end_offsets("t"), [5]);
    });
}

#[test]
fn who_takes_over_fences_its_predecessor_and_aborts_what_that_has_open() {
    run(|| {
        let (broker, _) = process(1);
        broker.create_topic("t", 2, false);
        let first = broker.init_transactions("x", LONG);
        let other = broker.init_transactions("y", LONG);
        put(&broker, &first, "a").unwrap();
        let second = broker.init_transactions("x", LONG);
        assert_eq!(put(&broker, &first, "b"), Err(Refusal::Fenced));
        let committed = broker.end_transaction(&first, true);
        assert_eq!(committed, Err(Refusal::Fenced));
        put(&broker, &second, "c").unwrap();
        broker.end_transaction(&second, true).unwrap();
        assert_eq!(seen(&broker, "t"), "2:c");
        put(&broker, &other, "d").unwrap();
        broker.end_transaction(&other, true).unwrap();
        assert_eq!(seen(&broker, "t"), "2:c 4:d");
    });
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_and_its_producer_fenced() {
    run(|| {
        let (broker, _) = process(1);
        broker.create_topic("t", 1, false);
        let session = broker.init_transactions("x", Duration::from_millis(300));
        put(&broker, &session, "a").unwrap();
        broker.end_transaction(&session, true).unwrap();
        put(&broker, &session, "b").unwrap();
        machine::pause(Duration::from_millis(400));
        assert_eq!(broker.end_offsets("t"), [4]);
        let late = broker.end_transaction(&session, true);
        assert_eq!(late, Err(Refusal::Fenced));
        assert_eq!(seen(&broker, "t"), "0:a");
    });
}

#[test]
fn the_markers_of_a_transaction_come_in_their_own_time() {
    run(|| {
        let (broker, _) = process(1);
        broker.create_topic("t", 1, false);
        let slow = Duration::from_millis(20);
        broker.set_trouble(BrokerTrouble {
            marker_delay: (slow, slow),
            ..BrokerTrouble::default()
        });
        let session = broker.init_transactions("x", LONG);
        put(&broker, &session, "a").unwrap();
        broker.end_transaction(&session, true).unwrap();
        assert_eq!(seen(&broker, "t"), "");
        machine::pause(slow * 2);
        assert_eq!(seen(&broker, "t"), "0:a");
        assert_eq!(broker.written_offsets("t"), [2]);
    });
}
