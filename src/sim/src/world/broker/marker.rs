//! Progress markers of sinks, where and as the product keeps them: in the compacted topic
//! [`TOPIC`], key `cluster/sink`, value a [`SinkMarker`] in JSON. They are read as there, too: all
//! that was written first, then, up to the newest one of the sink, what is committed.

use super::client::{Client, unavailable};
use super::log::{OutOfRange, Slice};
use std::time::Duration;
use tidemark_changelog::connector::SinkMarker;
use tidemark_common::{Error, Result, machine};
pub use tidemark_connector::kafka::MARKER_TOPIC as TOPIC;

/// Offsets at the end of the topic that are looked at first. The product looks at more of them;
/// these are few enough for a simulation to look beyond.
const TAIL: i64 = 20;
/// Records and markers that one request gives.
const FETCH: usize = 10;
/// How long another sink's open transaction is waited for: longer than any may last.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a fetch waits for more before it gives nothing.
const FETCH_WAIT: Duration = Duration::from_millis(5);

/// Makes the topic unless it exists.
pub fn create_topic(client: &Client) -> Result<()> {
    let made = client.question(|cluster| cluster.create_topic(TOPIC, 1, true));
    made.map_err(|e| unavailable(format!("kafka at {}", client.brokers), e))
}

/// The newest committed marker under `key`. To be called after the sink's own predecessors are
/// fenced.
pub fn read(client: &Client, key: &str) -> Result<Option<SinkMarker>> {
    let range = client.question(|cluster| {
        let log = cluster.topic(TOPIC)?.partitions.first()?;
        Some((log.start(), log.end()))
    });
    let range = range.map_err(|e| failed(client, e))?;
    let (low, high) = range.ok_or_else(|| failed(client, "Unknown topic"))?;
    let tail = (high - TAIL).max(low);
    for (from, to) in [(tail, high), (low, tail)] {
        let Some((newest, marker)) = scan(client, false, key, from, to)? else {
            continue;
        };
        if marker == SinkMarker::default() {
            return Ok(Some(marker));
        }
        if let Some((_, marker)) = scan(client, true, key, from, newest + 1)? {
            return Ok(Some(marker));
        }
    }
    Ok(None)
}

fn failed(client: &Client, text: impl std::fmt::Display) -> Error {
    unavailable(format!("topic \"{TOPIC}\" at {}", client.brokers), text)
}

/// The last marker under `key` among the offsets `from..to`, and its offset. Where it is asked for
/// what is committed, it waits until all of them are decided.
fn scan(
    client: &Client,
    committed: bool,
    key: &str,
    from: i64,
    to: i64,
) -> Result<Option<(i64, SinkMarker)>> {
    let (mut found, mut next, began) = (None, from, machine::now());
    while next < to {
        let slice = fetch(client, committed, next)?;
        for record in &slice.records {
            if record.offset < to && record.key.as_deref() == Some(key.as_bytes()) {
                let value = record.value.as_deref().unwrap_or_default();
                let marker = serde_json::from_slice(value).map_err(|e| {
                    Error::corrupt(format!(
                        "the marker at offset {} of topic \"{TOPIC}\" cannot be read: {e}",
                        record.offset
                    ))
                })?;
                found = Some((record.offset, marker));
            }
        }
        if slice.next == next {
            if machine::elapsed(began) > PATIENCE {
                let text = format!("it cannot be read beyond offset {next}");
                return Err(failed(client, text));
            }
            machine::pause(FETCH_WAIT);
        }
        next = slice.next;
    }
    Ok(found)
}

fn fetch(client: &Client, committed: bool, from: i64) -> Result<Slice> {
    let slice = client.question(|cluster| {
        let log = cluster.topic(TOPIC)?.partitions.first()?;
        Some(log.read(from, FETCH, committed))
    });
    match slice.map_err(|e| failed(client, e))? {
        None => Err(failed(client, "Unknown topic")),
        Some(Ok(slice)) => Ok(slice),
        // What was below has gone meanwhile.
        Some(Err(OutOfRange { start, .. })) if from < start => Ok(Slice {
            next: start,
            ..Slice::default()
        }),
        Some(Err(OutOfRange { .. })) => Err(failed(client, "Broker: Offset out of range")),
    }
}
