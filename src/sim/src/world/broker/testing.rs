//! What the tests of the broker's parts have in common.

use super::super::alive::Alive;
use super::super::dice::Dice;
use super::super::scheduler::Scheduler;
use super::{SimBroker, SimConnectors};
use arrow::datatypes::DataType;
use tidemark_common::machine;
use tidemark_plan::{Column, ConnectorSpec, Encode, Format};

/// Turns after which a test is given up.
const TURNS_MAX: u64 = 10_000_000;

/// `CREATE SOURCE` on this topic.
pub fn spec(topic: &str) -> ConnectorSpec {
    let options = [
        ("topic", topic),
        ("properties.bootstrap.server", "sim:9092"),
        ("scan.startup.mode", "earliest"),
    ];
    let options = options.map(|(key, value)| (key.to_string(), value.to_string()));
    ConnectorSpec {
        connector: "kafka".into(),
        options: options.into(),
        hidden: Default::default(),
        format: Format::Plain,
        encode: Encode::Json,
        encode_options: Default::default(),
        includes: Vec::new(),
        key: Vec::new(),
    }
}

/// `id BIGINT, name VARCHAR`.
pub fn columns() -> Vec<Column> {
    let column = |name: &str, data_type| Column {
        name: name.into(),
        data_type,
        nullable: true,
        default: None,
        sql_type: String::new(),
    };
    vec![
        column("id", DataType::Int64),
        column("name", DataType::Utf8),
    ]
}

/// Runs it as a thread may, which waits, on virtual time.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let mut scheduler = Scheduler::new(Dice::new(1), 0);
    let ran = scheduler.run(machine::blocking(work), TURNS_MAX);
    ran.unwrap_or_else(|failure| panic!("{failure:?}")).unwrap()
}

/// A broker of this seed, and a process that talks to it.
pub fn process(seed: u64) -> (SimBroker, SimConnectors) {
    let broker = SimBroker::new(Dice::new(seed));
    let connectors = successor(&broker);
    (broker, connectors)
}

/// Another process.
pub fn successor(broker: &SimBroker) -> SimConnectors {
    SimConnectors {
        broker: broker.clone(),
        alive: Alive::default(),
    }
}
