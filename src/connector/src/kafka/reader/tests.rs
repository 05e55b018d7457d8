//! The reader against the broker that the client brings along for tests, which answers what it is
//! told to.

use super::*;
use crate::kafka::client::consumer_config;
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use rdkafka::TopicPartitionList;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::BTreeMap;
use tidemark_plan::{Encode, Format};

const TOPIC: &str = "readings";

/// A broker with one topic of one partition, and a reader of it.
struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    reader: KafkaReader,
    ids: Vec<i64>,
}

/// The begin of the partition in the topic of this id; the broker tells none when it is asked.
fn start(topic_id: &str) -> SplitPosition {
    SplitPosition {
        split: 0,
        topic_id: topic_id.into(),
        leader_epoch: -1,
        newest_epoch: -1,
        next_offset: 0,
        records: 0,
        time_ms: -1,
        event_time_micros: None,
    }
}

fn reader_at(
    positions: &[SplitPosition],
    options: KafkaOptions,
    spec: ConnectorSpec,
    columns: Vec<Column>,
) -> KafkaReader {
    let (config, waker) = (consumer_config(&options), Arc::new(|| {}));
    let metrics = SourceMetrics::new("kafka", TOPIC);
    KafkaReader::open(config, options, spec, columns, positions, waker, metrics).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("linger.ms", "0")
            .create()
            .unwrap();
        let spec = ConnectorSpec {
            connector: "kafka".into(),
            options: BTreeMap::new(),
            format: Format::Plain,
            encode: Encode::Json,
            encode_options: BTreeMap::new(),
            includes: Vec::new(),
            hidden: Default::default(),
            key: Vec::new(),
        };
        let options = KafkaOptions {
            brokers,
            topic: TOPIC.into(),
            properties: BTreeMap::new(),
        };
        let spec = ConnectorSpec {
            options: [
                ("topic", TOPIC),
                ("properties.bootstrap.server", &options.brokers),
            ]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into(),
            ..spec
        };
        let columns = [Column {
            name: "id".into(),
            data_type: DataType::Int64,
            nullable: true,
            default: None,
            sql_type: String::new(),
        }];
        let reader = reader_at(&[start("")], options, spec, columns.to_vec());
        Bench {
            cluster,
            producer,
            reader,
            ids: Vec::new(),
        }
    }

    /// Puts another reader in the place of the one that there is.
    fn reopen(&mut self, positions: &[SplitPosition]) {
        let (options, spec) = (self.reader.options.clone(), self.reader.spec.clone());
        self.reader = reader_at(positions, options, spec, self.reader.columns.clone());
    }

    fn write(&self, ids: std::ops::Range<i64>) {
        for id in ids {
            let value = format!("{{\"id\":{id}}}");
            let record = BaseRecord::<str, str>::to(TOPIC).partition(0);
            self.producer.send(record.payload(&value)).unwrap();
        }
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }

    /// Polls once.
    fn poll(&mut self) -> Result<()> {
        match self.reader.poll(100)? {
            Some(batch) => {
                let ids = batch.changes.column(0).as_primitive::<Int64Type>();
                self.ids.extend(ids.values());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        Ok(())
    }

    /// Polls until `done`, at most for 20 seconds.
    fn poll_until(&mut self, done: impl Fn(&Bench) -> bool) {
        let began = Instant::now();
        while !done(self) {
            self.poll().unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "read {:?}, trouble {:?}",
                self.ids,
                self.reader.trouble()
            );
        }
    }

    fn poll_to(&mut self, end: i64) {
        self.poll_until(|bench| bench.ids.len() as i64 >= end);
        assert_eq!(self.ids, (0..end).collect::<Vec<_>>());
    }
}

#[test]
fn an_answer_that_is_no_record_is_trouble_and_reading_goes_on() {
    let mut bench = Bench::new();
    bench.write(0..3);
    bench.poll_to(3);
    assert_eq!(bench.reader.trouble(), None);
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG,
    ] {
        let end = bench.ids.len() as i64;
        bench
            .cluster
            .request_errors(RDKafkaApiKey::Fetch, &[error; 3]);
        bench.poll_until(|bench| bench.reader.trouble().is_some());
        let told = bench.reader.trouble().unwrap();
        let place = format!("kafka topic \"{TOPIC}\" partition 0 cannot be read: ");
        assert!(told.starts_with(&place), "{told}");
        bench.write(end..end + 3);
        bench.poll_to(end + 3);
        assert_eq!(bench.reader.trouble(), None);
    }
}

#[test]
fn a_new_client_reads_on_where_the_old_one_got_nothing_any_more() {
    let mut bench = Bench::new();
    bench.write(0..3);
    bench.poll_to(3);
    let mut partition = TopicPartitionList::new();
    partition.add_partition(TOPIC, 0);
    bench.reader.consumer().pause(&partition).unwrap();
    bench.reader.be_troubled(0, "no");
    bench.write(3..6);
    bench.poll_to(6);
    assert_eq!(bench.reader.trouble(), None);
}

#[test]
fn a_new_client_is_not_made_for_a_split_that_is_not_to_be_read() {
    let mut bench = Bench::new();
    bench.write(0..3);
    let mut limit = bench.reader.positions();
    limit[0].next_offset = 2;
    bench.reader.set_limits(&limit);
    bench.poll_to(2);
    let long_ago = Instant::now() - 2 * REOPEN_PATIENCE;
    bench.reader.splits[0].trouble = Some(("no".into(), long_ago));
    bench.reader.opened = long_ago;
    bench.poll().unwrap();
    assert_eq!(
        (bench.reader.opened, bench.reader.trouble()),
        (long_ago, None)
    );
    // Where it is to be read, the limit and the position go over to the new client.
    limit[0].next_offset = 3;
    bench.reader.set_limits(&limit);
    bench.write(3..5);
    bench.poll().unwrap();
    assert_ne!(bench.reader.opened, long_ago);
    bench.poll_to(3);
    (0..20).for_each(|_| bench.poll().unwrap());
    bench.poll_to(3);
    bench.reader.set_limits(&[]);
    bench.poll_to(5);
}

#[test]
fn a_record_of_an_older_leader_than_one_before_it_is_not_handed_out() {
    let mut bench = Bench::new();
    bench.write(0..3);
    bench.poll_to(3);
    assert_eq!(bench.reader.positions()[0].newest_epoch, 0);
    bench.reader.splits[0].position.newest_epoch = 7;
    bench.write(3..4);
    let error = (0..5000).find_map(|_| bench.poll().err()).unwrap();
    assert_eq!(error.kind(), tidemark_common::ErrorKind::Corrupt);
    let message = error.message();
    assert!(
        message.ends_with("offset 3 is of leader epoch 0, and one of epoch 7 was read before it")
    );
    assert_eq!(bench.ids, [0, 1, 2]);
}

#[test]
fn nothing_is_read_while_it_is_asked_whether_the_topic_is_the_same() {
    let mut bench = Bench::new();
    bench.write(0..3);
    bench.poll_to(3);
    bench.reader.topic_id = bench.reader.consumer().context().topic_id(TOPIC);
    assert!(bench.reader.topic_id.is_some(), "the client tells it");
    let error = Error::corrupt("records are gone");
    bench.reader.doubt(Some(error)).unwrap();
    bench.write(3..6);
    (0..300).for_each(|_| bench.poll().unwrap());
    assert_eq!(bench.ids, [0, 1, 2]);
    bench.reader.check = None;
    bench.poll_to(6);
}

#[test]
fn splits_of_another_topic_are_refused() {
    let mut bench = Bench::new();
    bench.reader.splits[0].position.topic_id = "one".into();
    let more = |split, topic_id: &str| SplitPosition {
        split,
        ..start(topic_id)
    };
    let error = bench.reader.add_splits(&[more(1, "another")]).unwrap_err();
    assert_eq!(error.kind(), tidemark_common::ErrorKind::Corrupt);
    assert_eq!(bench.reader.positions().len(), 1);
    // Where the broker told no id, there is nothing to compare.
    bench.reader.add_splits(&[more(1, TOPIC)]).unwrap();
    bench.reader.add_splits(&[more(2, "one")]).unwrap();
}

#[test]
fn a_reader_that_was_opened_without_splits_checks_those_that_come() {
    let mut bench = Bench::new();
    bench.write(0..3);
    bench.reopen(&[]);
    assert!(bench.reader.check.is_none());
    bench.reader.add_splits(&[start("another")]).unwrap();
    assert!(bench.reader.check.is_some());
    // The client goes by another id.
    let error = (0..5000).find_map(|_| bench.poll().err()).unwrap();
    let told = "is not the one that was read before";
    assert!(error.message().contains(told), "{error}");
    assert!(bench.ids.is_empty());
}
