//! A producer that hands records to librdkafka without an allocation each: key and value are copied
//! once, into the client's own message.
//!
//! Success is not reported record by record, only failure; a flush that ends without one has
//! delivered everything. Transactions fail as a whole, but the reports tell whether a record was
//! refused for what it is ([`Producer::refusals`]): then sending it again is in vain. The broker
//! judges whole batches; a record that was alone in its batch was refused for itself.

use crate::kafka::client::{TIMEOUT, base_config, invalid_settings, unavailable};
use crate::options::KafkaOptions;
use parking_lot::Mutex;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Statistics};
use std::ffi::{CString, c_void};
use std::ptr;
use std::time::{Duration, Instant};
use tidemark_common::{Error, ErrorKind, Result, SqlState};

/// How long a flush, a commit or a full queue may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a flush may make no progress while brokers cannot be reached: then the sink says so,
/// and takes over again when one is back.
const DOWN_PATIENCE: Duration = Duration::from_secs(3);
/// How long taking over a transactional id may take: the broker may first have to end the
/// predecessor's transaction.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Failures that are remembered.
const FAILURES_MAX: usize = 10_000;
/// How long reports of records that were on their way with a refused one are waited for.
const REPORTS_PATIENCE: Duration = Duration::from_millis(20);

/// A record that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number under which it was sent.
    pub record: usize,
    /// Why.
    pub code: RDKafkaErrorCode,
    /// Bytes of its key and value.
    pub bytes: usize,
}

/// Whether it may be the record itself that the broker does not take.
pub fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
    )
}

/// Remembers the records that could not be delivered.
#[derive(Default)]
struct Reports {
    failed: Mutex<Vec<Failure>>,
    last_error: Mutex<Option<String>>,
    /// When it was last said that a broker, or all of them, cannot be reached; `None` once a record
    /// has been delivered since.
    down: Mutex<Option<Instant>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            tracing::warn!(target: "kafka", "{facility}: {message}");
        } else {
            tracing::debug!(target: "kafka", "{facility}: {message}");
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let mut last = self.last_error.lock();
        // "all brokers are down" says less than the error that led to it, and is repeated at every
        // attempt to connect, many times a second
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)) {
            let before = self.down.lock().replace(Instant::now());
            last.get_or_insert_with(|| reason.to_string());
            if before.is_some_and(|said| said.elapsed() < DOWN_PATIENCE) {
                return tracing::debug!(target: "kafka", "{error}: {reason}");
            }
        } else {
            if matches!(
                error,
                KafkaError::Global(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve
                )
            ) {
                *self.down.lock() = Some(Instant::now());
            }
            *last = Some(reason.to_string());
        }
        tracing::warn!(target: "kafka", "{error}: {reason}");
    }
}

impl ProducerContext for Reports {
    /// The record's number.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, record: usize) {
        let Err((error, message)) = result else {
            *self.down.lock() = None;
            return;
        };
        let mut failed = self.failed.lock();
        if failed.len() < FAILURES_MAX {
            failed.push(Failure {
                record,
                code: error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
                bytes: message.key_len() + message.payload_len(),
            });
        }
    }
}

/// A topic as the producer's handle for it.
struct Topic(*mut sys::rd_kafka_topic_t);

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and its client is still alive: `Producer` drops its topics
        // first.
        unsafe { sys::rd_kafka_topic_destroy(self.0) };
    }
}

/// What became of a record that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is on its way.
    Yes,
    /// The client takes no such record; nothing else is harmed.
    Refused(RDKafkaErrorCode),
}

/// Which of the producer's topics a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The sink's own.
    Records,
    /// The progress markers'.
    Markers,
}

/// A producer for one topic and the markers' one. Fields are dropped in order: topics before their
/// client.
pub struct Producer {
    records: Topic,
    markers: Topic,
    client: BaseProducer<Reports>,
    transactional_id: Option<String>,
    what: String,
}

impl Producer {
    /// A producer; with `transactional_id` its predecessors are fenced by `init_transactions`.
    /// `batch_bytes`: how large a batch of several records may be, where that is not left to the
    /// client.
    pub fn new(
        options: &KafkaOptions,
        marker_topic: &str,
        transactional_id: Option<&str>,
        batch_bytes: Option<usize>,
    ) -> Result<Producer> {
        let mut config = base_config(options);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("delivery.report.only.error", "true");
        config
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "131072");
        for (key, value) in &options.properties {
            config.set(key, value);
        }
        if let Some(bytes) = batch_bytes {
            config.set("batch.size", bytes.to_string());
        }
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        let client: BaseProducer<Reports> = config
            .create_with_context(Reports::default())
            .map_err(|e| invalid_settings(&e))?;
        let (records, markers) = (
            topic(client.client(), &options.topic)?,
            topic(client.client(), marker_topic)?,
        );
        Ok(Producer {
            records,
            markers,
            client,
            transactional_id: transactional_id.map(str::to_string),
            what: format!("kafka topic \"{}\" at {}", options.topic, options.brokers),
        })
    }

    /// The client, for administration.
    pub fn client(&self) -> &Client<impl ClientContext + use<>> {
        self.client.client()
    }

    /// Under which it has transactions.
    pub fn transactional_id(&self) -> Option<&str> {
        self.transactional_id.as_deref()
    }

    /// Takes over the transactional id: predecessors are fenced, their open transaction is ended.
    pub fn init_transactions(&self) -> Result<()> {
        self.client
            .init_transactions(INIT_TIMEOUT)
            .map_err(|e| self.failed("cannot start transactions", &e))
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<()> {
        self.client
            .begin_transaction()
            .map_err(|e| self.failed("cannot begin a transaction", &e))
    }

    /// Queues a record; waits while the queue is full. A failure is reported under `number`.
    pub fn send(
        &self,
        to: To,
        number: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Queued> {
        let topic = if to == To::Records {
            &self.records
        } else {
            &self.markers
        };
        let (key, key_length) = key.map_or((ptr::null(), 0), |k| (k.as_ptr(), k.len()));
        let (value, value_length) = value.map_or((ptr::null(), 0), |v| (v.as_ptr(), v.len()));
        let mut since = None;
        loop {
            // SAFETY: the handle is alive; key and value are copied before the call returns.
            let refused = unsafe {
                let (key, value) = (key.cast::<c_void>(), value.cast_mut().cast::<c_void>());
                sys::rd_kafka_produce(
                    topic.0,
                    -1,
                    sys::RD_KAFKA_MSG_F_COPY,
                    value,
                    value_length,
                    key,
                    key_length,
                    ptr::without_provenance_mut(number),
                ) != 0
            };
            if !refused {
                return Ok(Queued::Yes);
            }
            // SAFETY: reads the calling thread's last error.
            let code = RDKafkaErrorCode::from(unsafe { sys::rd_kafka_last_error() });
            if is_refusal(code) {
                return Ok(Queued::Refused(code));
            }
            if code != RDKafkaErrorCode::QueueFull
                || since.get_or_insert_with(Instant::now).elapsed() > DELIVERY_TIMEOUT
            {
                return Err(unavailable(
                    format!("{}: cannot queue a record", self.what),
                    code,
                ));
            }
            self.client.poll(Duration::from_millis(2));
            self.check_reports()?;
        }
    }

    /// Waits until everything queued is delivered.
    pub fn flush(&self) -> Result<()> {
        let began = Instant::now();
        let (mut left, mut progress) = (usize::MAX, began);
        loop {
            // SAFETY: the client is alive. The call returns as soon as nothing is left.
            let result = unsafe { sys::rd_kafka_flush(self.client.client().native_ptr(), 100) };
            self.client.poll(Duration::ZERO);
            self.check_reports()?;
            if result == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Ok(());
            }
            let now_left = self.client.in_flight_count().max(0) as usize;
            if now_left < left {
                (left, progress) = (now_left, Instant::now());
            }
            let down =
                self.client.context().down.lock().is_some() && progress.elapsed() > DOWN_PATIENCE;
            if down || began.elapsed() > DELIVERY_TIMEOUT {
                let last = self.client.context().last_error.lock().clone();
                return Err(unavailable(
                    format!("{}: records are not accepted", self.what),
                    last.unwrap_or_else(|| "timed out".into()),
                ));
            }
        }
    }

    /// Commits the transaction. An error leaves open whether it was.
    pub fn commit(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.client.commit_transaction(TIMEOUT) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(e))
                    if e.is_retriable() && began.elapsed() < DELIVERY_TIMEOUT => {}
                Err(e) => return Err(self.failed("a transaction was not committed", &e)),
            }
        }
    }

    /// Gives the transaction up, as far as that is possible; what cannot be done here is done by
    /// the next `init_transactions`.
    pub fn abort(&self) {
        if let Err(e) = self.client.abort_transaction(TIMEOUT) {
            let what = &self.what;
            tracing::warn!(target: "kafka", "{what}: a transaction could not be aborted: {e}");
        }
    }

    fn check_reports(&self) -> Result<()> {
        let Some(failure) = self.client.context().failed.lock().first().copied() else {
            return Ok(());
        };
        Err(self.fatal().unwrap_or_else(|| {
            self.explain(unavailable(
                format!("{}: a record was not delivered", self.what),
                failure.code,
            ))
        }))
    }

    /// After a failure: the records that may have been refused for what they are.
    pub fn refusals(&self) -> Vec<Failure> {
        self.client.poll(REPORTS_PATIENCE);
        let failed = self.client.context().failed.lock();
        failed
            .iter()
            .filter(|f| is_refusal(f.code))
            .copied()
            .collect()
    }

    /// The error after which this producer can do nothing more.
    fn fatal(&self) -> Option<Error> {
        let (code, text) = self.client.client().fatal_error()?;
        Some(if is_fencing(code) {
            self.fenced()
        } else {
            unavailable(&self.what, text)
        })
    }

    fn fenced(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            SqlState::OBJECT_NOT_READY,
            format!("{}: another writer has taken over this sink", self.what),
        )
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        if matches!(error, KafkaError::Transaction(e) if is_fencing(e.code())) {
            return self.fenced();
        }
        self.fatal()
            .unwrap_or_else(|| self.explain(unavailable(format!("{}: {what}", self.what), error)))
    }

    /// Adds what the client said last.
    fn explain(&self, error: Error) -> Error {
        self.client.poll(Duration::ZERO);
        match self.client.context().last_error.lock().as_ref() {
            Some(last) => error.with_detail(format!("The client's last error: {last}.")),
            None => error,
        }
    }
}

fn is_fencing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

fn topic<C: ClientContext>(client: &Client<C>, name: &str) -> Result<Topic> {
    let c_name = CString::new(name).map_err(|_| {
        Error::user(
            SqlState::INVALID_PARAMETER,
            "a topic's name has no zero byte",
        )
    })?;
    // SAFETY: the client is alive and outlives the handle (see `Producer`); the name is copied.
    let handle =
        unsafe { sys::rd_kafka_topic_new(client.native_ptr(), c_name.as_ptr(), ptr::null_mut()) };
    if handle.is_null() {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("\"{name}\" cannot be the name of a topic"),
        ));
    }
    Ok(Topic(handle))
}
