//! Options of sources and sinks: `WITH (key = 'value', ...)` as typed, checked values.
//!
//! An option that nobody reads is a mistake of the one who wrote it, so every connector names all
//! options that it knows and everything else is refused with the closest known name as hint. Checks
//! here need no network; [`crate::check_source_connection`] and [`crate::check_sink_connection`]
//! do.

use crate::format::form::{OPTIONS as FORM_OPTIONS, SINK_OPTIONS};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{ConnectorSpec, Encode, Format, Hidden, MASK, is_secret_option};

/// Options that every source or sink may have, read by the planner: they are of the relation, not
/// of its connector.
const COMMON: &[&str] = &["connector", "on_error"];

/// Kafka settings that the server itself needs.
const RESERVED: &[&str] = &[
    "group.id",
    "isolation.level",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "transactional.id",
    "auto.offset.reset",
    "enable.partition.eof",
    "enable.idempotence",
    "acks",
    "request.required.acks",
];

/// Kafka settings that name code to be loaded into the server's process: who may write SQL may not
/// do that.
const LOADS_CODE: &[&str] = &[
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.providers",
];

/// Kafka options that are shown: in errors, in the log of the client and in metrics.
const SHOWN: &[&str] = &[
    "properties.bootstrap.server",
    "properties.bootstrap.servers",
    "properties.client.id",
    "topic",
];

/// The options of ENCODE that sources and sinks know; the planner puts KEY ENCODE among them.
const ENCODE_OPTIONS: &[&str] = &["key.encode"];

/// An error about an option: `22023`.
pub fn invalid(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, message)
}

/// Reads options by name, with errors that name them.
pub struct Options<'a> {
    map: &'a BTreeMap<String, String>,
    hidden: &'a BTreeMap<String, Hidden>,
    connector: &'a str,
}

impl<'a> Options<'a> {
    /// The options of `spec`.
    pub fn of(spec: &'a ConnectorSpec) -> Options<'a> {
        Options {
            map: &spec.options,
            hidden: &spec.hidden,
            connector: &spec.connector,
        }
    }

    /// Refuses every option that is neither in `known` nor begins with one of `prefixes`.
    pub fn refuse_unknown(&self, known: &[&str], prefixes: &[&str]) -> Result<()> {
        for key in self.map.keys() {
            if known.contains(&key.as_str())
                || COMMON.contains(&key.as_str())
                || prefixes.iter().any(|p| key.starts_with(p))
            {
                continue;
            }
            let names: Vec<&str> = known.iter().chain(COMMON).copied().collect();
            return Err(invalid(format!(
                "unknown option \"{key}\" for connector '{}'",
                self.connector
            ))
            .with_hint(suggest(key, &names)));
        }
        Ok(())
    }

    /// Whether the value of an option must not be told.
    fn is_secret(&self, key: &str) -> bool {
        self.hidden.contains_key(key) || is_secret_option(key)
    }

    /// The value of an option as messages show it.
    fn shown<'v>(&self, key: &str, value: &'v str) -> &'v str {
        if self.is_secret(key) { MASK } else { value }
    }

    /// The text of an option.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.map.get(key).map(String::as_str)
    }

    /// The text of an option that must be there and not empty.
    pub fn required(&self, key: &str) -> Result<&'a str> {
        match self.get(key) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(invalid(format!(
                "option \"{key}\" is required for connector '{}'",
                self.connector
            ))),
        }
    }

    /// An option as a number within `range`, or `default`.
    pub fn number<T: FromStr + PartialOrd + Display + Copy>(
        &self,
        key: &str,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T> {
        let Some(text) = self.get(key) else {
            return Ok(default);
        };
        match text.trim().parse::<T>() {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => Err(invalid(format!(
                "option \"{key}\" must be a number from {} to {}, not '{}'",
                range.start(),
                range.end(),
                self.shown(key, text)
            ))),
        }
    }

    /// An option that is `true` or `false`.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "t" | "on" | "1") => Ok(true),
            Some("false" | "f" | "off" | "0") => Ok(false),
            Some(other) => {
                let other = self.shown(key, other);
                Err(invalid(format!(
                    "option \"{key}\" must be true or false, not '{other}'"
                )))
            }
        }
    }

    /// An option whose value is one of `choices` (any case), as position in `choices`; 0 if it is
    /// not given.
    pub fn choice(&self, key: &str, choices: &[&str]) -> Result<usize> {
        let Some(text) = self.get(key) else {
            return Ok(0);
        };
        choices
            .iter()
            .position(|c| c.eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                let text = self.shown(key, text);
                invalid(format!("option \"{key}\" cannot be '{text}'"))
                    .with_hint(format!("Use one of: {}.", choices.join(", ")))
            })
    }
}

/// A sentence with the names closest to `key`, or all of them.
fn suggest(key: &str, known: &[&str]) -> String {
    // What stands behind a prefix is close to the whole name, too: `bootstrap.servers`.
    let tail = |k: &str| {
        k.split_once('.')
            .map_or(usize::MAX, |(_, tail)| distance(key, tail))
    };
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|k| (distance(key, k).min(tail(k)), *k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4 || tail(k) <= 1)
        .collect();
    near.sort();
    match near.as_slice() {
        [] => format!("Options are: {}.", known.join(", ")),
        [(_, one)] => format!("Perhaps you meant \"{one}\"."),
        some => format!(
            "Perhaps you meant one of: {}.",
            some.iter()
                .take(3)
                .map(|(_, k)| *k)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Where a Kafka source starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// At the oldest record.
    Earliest,
    /// After the newest record at CREATE.
    Latest,
    /// At the first record whose timestamp is not older, in milliseconds since 1970.
    Timestamp(i64),
}

/// How a Kafka sink delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One transaction holds whole epochs and the marker.
    ExactlyOnce,
    /// Without transactions: after a crash some epochs are sent again.
    AtLeastOnce,
}

/// What Kafka sources and sinks have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port,...`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Further settings of librdkafka, without the prefix `properties.`.
    pub properties: BTreeMap<String, String>,
}

/// Options of a Kafka source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSourceOptions {
    /// Where and with which settings.
    pub kafka: KafkaOptions,
    /// `scan.startup.mode`.
    pub startup: Startup,
}

/// Options of a Kafka sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSinkOptions {
    /// Where and with which settings.
    pub kafka: KafkaOptions,
    /// `delivery`.
    pub delivery: Delivery,
    /// `force_append_only`: a plain sink leaves out retractions.
    pub force_append_only: bool,
    /// `on_error`: whether a record that the broker refuses stops the sink.
    pub fails_on_refusal: bool,
}

impl KafkaOptions {
    fn read(options: &Options<'_>) -> Result<KafkaOptions> {
        if let Some(key) = SHOWN.iter().find(|key| options.hidden.contains_key(**key)) {
            return Err(invalid(format!("option \"{key}\" cannot be a secret"))
                .with_hint("Messages, the log and metrics show it: write it as text."));
        }
        let (server, servers) = (
            options.get("properties.bootstrap.server"),
            options.get("properties.bootstrap.servers"),
        );
        if server.is_some() && servers.is_some() {
            return Err(invalid(
                "options \"properties.bootstrap.server\" and \"properties.bootstrap.servers\" mean \
                 the same: give one of them",
            ));
        }
        let brokers = match server.or(servers) {
            Some(brokers) if !brokers.trim().is_empty() => brokers.trim().to_string(),
            _ => {
                return Err(invalid(
                    "option \"properties.bootstrap.server\" is required for \
                                    connector 'kafka'",
                )
                .with_hint(
                    "Say where the broker listens, as in properties.bootstrap.server = \
                                'localhost:9092'.",
                ));
            }
        };
        let topic = options.required("topic")?.to_string();
        let mut properties = BTreeMap::new();
        for (key, value) in options.map {
            let Some(name) = key.strip_prefix("properties.") else {
                continue;
            };
            if name == "bootstrap.server" || name == "bootstrap.servers" {
                continue;
            }
            if RESERVED.contains(&name) {
                return Err(invalid(format!(
                    "option \"{key}\" cannot be set: the server needs it for its guarantees"
                )));
            }
            if LOADS_CODE.contains(&name) {
                return Err(invalid(format!(
                    "option \"{key}\" cannot be set: it would load code into the server"
                )));
            }
            if name == "metadata.broker.list" {
                return Err(invalid(format!("option \"{key}\" cannot be set"))
                    .with_hint("Name the brokers in properties.bootstrap.server."));
            }
            let mut probe = rdkafka::ClientConfig::new();
            probe.set(name, value);
            if let Err(rdkafka::error::KafkaError::ClientConfig(_, text, _, _)) =
                probe.create_native_config()
            {
                let why = if options.is_secret(key) {
                    String::new()
                } else {
                    format!(": {text}")
                };
                return Err(invalid(format!("option \"{key}\" is not valid{why}"))
                    .with_hint("What follows \"properties.\" is a setting of librdkafka."));
            }
            properties.insert(name.to_string(), value.clone());
        }
        Ok(KafkaOptions {
            brokers,
            topic,
            properties,
        })
    }
}

impl KafkaOptions {
    /// How long the broker lets a transaction take.
    pub fn transaction_timeout(&self) -> Duration {
        let given = self.properties.get("transaction.timeout.ms");
        let millis = given.and_then(|text| text.trim().parse().ok());
        Duration::from_millis(millis.unwrap_or(60_000))
    }

    /// Bytes of a batch of several records, by the user's settings or the client's default.
    pub fn batch_bytes(&self) -> usize {
        let given = self.properties.get("batch.size");
        given
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1_000_000)
    }

    /// Whether batches are compressed.
    pub fn compresses(&self) -> bool {
        let codec = |name| self.properties.get(name).is_some_and(|c| c != "none");
        codec("compression.codec") || codec("compression.type")
    }
}

/// Refuses what stands in the parentheses after ENCODE and nobody reads; `more` is read for JSON.
fn check_encode_options(spec: &ConnectorSpec, more: &[&str]) -> Result<()> {
    let (encode, more) = match spec.encode {
        Encode::Bytes => ("BYTES", &[][..]),
        _ => ("JSON", more),
    };
    let known: Vec<&str> = ENCODE_OPTIONS.iter().chain(more).copied().collect();
    match spec
        .encode_options
        .keys()
        .find(|key| !known.contains(&key.as_str()))
    {
        None => Ok(()),
        Some(key) => {
            let near = more.iter().filter(|name| distance(key, name) <= 3).min();
            let hint = match near {
                Some(name) => format!("Perhaps you meant \"{name}\"."),
                None => "Options of the connector stand in WITH (...).".to_string(),
            };
            Err(invalid(format!("unknown option \"{key}\" of ENCODE {encode}")).with_hint(hint))
        }
    }
}

impl KafkaSourceOptions {
    /// Reads and checks the options of a source.
    pub fn read(spec: &ConnectorSpec) -> Result<KafkaSourceOptions> {
        let options = Options::of(spec);
        let known = [
            "topic",
            "properties.bootstrap.server",
            "properties.*",
            "scan.startup.mode",
            "scan.startup.timestamp.millis",
            "idle_timeout",
            "key.encode",
        ];
        options.refuse_unknown(&known, &["properties."])?;
        check_encode_options(spec, &FORM_OPTIONS)?;
        let kafka = KafkaOptions::read(&options)?;
        let millis = options.get("scan.startup.timestamp.millis");
        let startup =
            match options.choice("scan.startup.mode", &["earliest", "latest", "timestamp"])? {
                1 => Startup::Latest,
                2 => {
                    Startup::Timestamp(options.required("scan.startup.timestamp.millis").and_then(
                        |_| options.number("scan.startup.timestamp.millis", 0, 0..=i64::MAX),
                    )?)
                }
                _ => Startup::Earliest,
            };
        if millis.is_some() && !matches!(startup, Startup::Timestamp(_)) {
            return Err(invalid(
                "option \"scan.startup.timestamp.millis\" needs scan.startup.mode = 'timestamp'",
            ));
        }
        Ok(KafkaSourceOptions { kafka, startup })
    }
}

impl KafkaSinkOptions {
    /// Reads and checks the options of a sink.
    pub fn read(spec: &ConnectorSpec) -> Result<KafkaSinkOptions> {
        let options = Options::of(spec);
        let known = [
            "topic",
            "properties.bootstrap.server",
            "properties.*",
            "delivery",
            "type",
            "primary_key",
            "snapshot",
            "force_append_only",
            "key.encode",
        ];
        options.refuse_unknown(&known, &["properties."])?;
        check_encode_options(spec, &SINK_OPTIONS)?;
        let kafka = KafkaOptions::read(&options)?;
        let delivery = if options.choice("delivery", &["exactly_once", "at_least_once"])? == 0 {
            Delivery::ExactlyOnce
        } else {
            Delivery::AtLeastOnce
        };
        options.flag("snapshot", true)?;
        let fails_on_refusal = options.choice("on_error", &["log", "fail", "null"])? == 1;
        let force_append_only = options.flag("force_append_only", false)?;
        if force_append_only && spec.format != Format::Plain {
            return Err(invalid(
                "option \"force_append_only\" is for FORMAT PLAIN: the other \
                                formats send retractions",
            )
            .with_hint("Leave the option out, or use FORMAT PLAIN."));
        }
        Ok(KafkaSinkOptions {
            kafka,
            delivery,
            force_append_only,
            fails_on_refusal,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(connector: &str, options: &[(&str, &str)]) -> ConnectorSpec {
        ConnectorSpec {
            connector: connector.into(),
            options: options
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            format: Format::Plain,
            encode: if connector == "kafka" {
                Encode::Json
            } else {
                Encode::Native
            },
            encode_options: BTreeMap::new(),
            includes: Vec::new(),
            hidden: Default::default(),
            key: Vec::new(),
        }
    }

    fn kafka(more: &[(&str, &str)]) -> Result<KafkaSourceOptions> {
        let mut options = vec![
            ("connector", "kafka"),
            ("topic", "t"),
            ("properties.bootstrap.server", "h:9092"),
        ];
        options.extend_from_slice(more);
        KafkaSourceOptions::read(&spec("kafka", &options))
    }

    #[test]
    fn a_source_reads_its_options() {
        let read = kafka(&[
            ("scan.startup.mode", "Timestamp"),
            ("scan.startup.timestamp.millis", "17"),
            ("properties.fetch.wait.max.ms", "20"),
        ])
        .unwrap();
        assert_eq!(read.startup, Startup::Timestamp(17));
        assert_eq!(
            read.kafka.properties,
            BTreeMap::from([("fetch.wait.max.ms".to_string(), "20".to_string())])
        );
        assert_eq!(kafka(&[]).unwrap().startup, Startup::Earliest);
    }

    #[test]
    fn mistakes_are_named() {
        let cases: &[(&[(&str, &str)], &str, &str)] = &[
            (
                &[("topik", "x")],
                "unknown option \"topik\" for connector 'kafka'",
                "Perhaps you meant \"topic\".",
            ),
            (
                &[("scan.startup.mod", "x")],
                "unknown option \"scan.startup.mod\" for connector 'kafka'",
                "Perhaps you meant \"scan.startup.mode\".",
            ),
            (
                &[("scan.startup.mode", "middle")],
                "option \"scan.startup.mode\" cannot be 'middle'",
                "Use one of: earliest, latest, timestamp.",
            ),
            (
                &[("scan.startup.mode", "timestamp")],
                "option \"scan.startup.timestamp.millis\" is required for connector 'kafka'",
                "",
            ),
            (
                &[("scan.startup.timestamp.millis", "5")],
                "option \"scan.startup.timestamp.millis\" needs scan.startup.mode = 'timestamp'",
                "",
            ),
            (
                &[("bootstrap.servers", "h:1")],
                "unknown option \"bootstrap.servers\" for connector 'kafka'",
                "Perhaps you meant \"properties.bootstrap.server\".",
            ),
            (
                &[("properties.bootstrap.servers", "h:1")],
                "options \"properties.bootstrap.server\" and \"properties.bootstrap.servers\" mean \
                 the same: give one of them",
                "",
            ),
            (
                &[("properties.metadata.broker.list", "h:1")],
                "option \"properties.metadata.broker.list\" cannot be set",
                "Name the brokers in properties.bootstrap.server.",
            ),
            (
                &[("properties.plugin.library.paths", "x.so")],
                "option \"properties.plugin.library.paths\" cannot be set: it would load code into \
                 the server",
                "",
            ),
            (
                &[("properties.acks", "1")],
                "option \"properties.acks\" cannot be set: the server needs it for its guarantees",
                "",
            ),
            (
                &[("properties.group.id", "g")],
                "option \"properties.group.id\" cannot be set: the server needs it for its \
                 guarantees",
                "",
            ),
            (
                &[("properties.no.such.thing", "g")],
                "option \"properties.no.such.thing\" is not valid: No such configuration property: \
                 \"no.such.thing\"",
                "What follows \"properties.\" is a setting of librdkafka.",
            ),
        ];
        for (options, message, hint) in cases {
            let error = kafka(options).unwrap_err();
            assert_eq!(
                (error.state(), error.message(), error.hint().unwrap_or("")),
                (SqlState::INVALID_PARAMETER, *message, *hint)
            );
        }
        let error =
            KafkaSourceOptions::read(&spec("kafka", &[("properties.bootstrap.servers", "h:1")]))
                .unwrap_err();
        assert_eq!(
            error.message(),
            "option \"topic\" is required for connector 'kafka'"
        );
        let error = KafkaSourceOptions::read(&spec("kafka", &[("topic", "t")])).unwrap_err();
        assert_eq!(
            error.message(),
            "option \"properties.bootstrap.server\" is required for connector 'kafka'"
        );
    }

    #[test]
    fn what_is_shown_is_no_secret() {
        for key in [
            "topic",
            "properties.bootstrap.server",
            "properties.client.id",
        ] {
            let mut spec = spec(
                "kafka",
                &[("topic", "t"), ("properties.bootstrap.server", "h:9092")],
            );
            spec.hidden.insert(key.into(), Hidden::default());
            let error = KafkaSourceOptions::read(&spec).unwrap_err();
            let expected = format!("option \"{key}\" cannot be a secret");
            assert_eq!(error.message(), expected);
        }
    }

    #[test]
    fn options_of_the_encoding_are_checked() {
        let mut spec = spec(
            "kafka",
            &[("topic", "t"), ("properties.bootstrap.server", "h:9092")],
        );
        spec.encode_options
            .insert("key.encode".into(), "text".into());
        assert!(KafkaSourceOptions::read(&spec).is_ok() && KafkaSinkOptions::read(&spec).is_ok());
        spec.encode_options
            .insert("schema.registry".into(), "h".into());
        assert_eq!(
            KafkaSourceOptions::read(&spec).unwrap_err().message(),
            "unknown option \"schema.registry\" of ENCODE JSON"
        );
        assert_eq!(
            KafkaSinkOptions::read(&spec).unwrap_err().message(),
            "unknown option \"schema.registry\" of ENCODE JSON"
        );
    }

    #[test]
    fn a_sink_reads_its_options() {
        let base = [("topic", "t"), ("properties.bootstrap.server", "h:9092")];
        let read = KafkaSinkOptions::read(&spec("kafka", &base)).unwrap();
        assert_eq!(
            (read.delivery, read.force_append_only),
            (Delivery::ExactlyOnce, false)
        );
        let more = [
            base[0],
            base[1],
            ("delivery", "at_least_once"),
            ("force_append_only", "true"),
            ("primary_key", "a,b"),
            ("snapshot", "false"),
        ];
        let read = KafkaSinkOptions::read(&spec("kafka", &more)).unwrap();
        assert_eq!(
            (read.delivery, read.force_append_only),
            (Delivery::AtLeastOnce, true)
        );
        let mut upsert = spec("kafka", &[base[0], base[1], ("force_append_only", "true")]);
        upsert.format = Format::Upsert;
        assert_eq!(
            KafkaSinkOptions::read(&upsert).unwrap_err().message(),
            "option \"force_append_only\" is for FORMAT PLAIN: the other formats send retractions"
        );
        let error = KafkaSinkOptions::read(&spec(
            "kafka",
            &[base[0], base[1], ("force_append_only", "maybe")],
        ))
        .unwrap_err();
        assert_eq!(
            error.message(),
            "option \"force_append_only\" must be true or false, not 'maybe'"
        );
    }
}
