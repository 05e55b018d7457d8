//! How commands and events travel to another node and back: JSON, and behind an event the rows that
//! it tells of, in the form that they have in the log.
//!
//! ```text
//! length of the event u32 | event | an entry of the log with its rows and errors, if it has any
//! ```
//!
//! Little-endian. Rows that are written to tables never leave the node of the coordinator.

use crate::codec;
use crate::entry::{Cut, Entry};
use crate::protocol::{Command, Event, Positions};
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, Result};

const LENGTH_BYTES: usize = 4;

fn unreadable(what: &str, error: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("{what} of another node cannot be read: {error}"))
}

fn json(told: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(told)
        .map_err(|e| Error::internal(format!("what is told cannot be encoded: {e}")))
}

/// The form in which a command travels: without the rows that are written to tables.
pub fn encode_command(command: &Command) -> Result<Vec<u8>> {
    json(command)
}

/// The inverse of [`encode_command`].
///
/// Errors: of kind `Corrupt`.
pub fn decode_command(bytes: &[u8]) -> Result<Command> {
    serde_json::from_slice(bytes).map_err(|e| unreadable("a command", e))
}

/// The form in which an event travels.
pub fn encode_event(event: &Event) -> Result<Vec<u8>> {
    let header = json(event)?;
    let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    if let Event::Cut { reads, errors, .. } = event
        && !(reads.is_empty() && errors.is_empty())
    {
        let mut rows = Cut::new(Epoch(0), 0, Positions::new(), reads.clone());
        rows.errors = errors.clone();
        bytes.extend_from_slice(&Entry::Cut(rows).encode()?);
    }
    Ok(bytes)
}

/// The inverse of [`encode_event`].
///
/// Errors: of kind `Corrupt`.
pub fn decode_event(bytes: &[u8]) -> Result<Event> {
    let short = || unreadable("an event", "it is cut off");
    let (length, rest) = bytes
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, rows) = rest.split_at_checked(length).ok_or_else(short)?;
    let mut event = serde_json::from_slice(header).map_err(|e| unreadable("an event", e))?;
    if let Event::Cut { reads, errors, .. } = &mut event
        && !rows.is_empty()
    {
        match Entry::decode(rows)? {
            Entry::Cut(cut) => (*reads, *errors) = (cut.writes, cut.errors),
            _ => return Err(unreadable("an event", "its rows are something else")),
        }
    }
    Ok(event)
}

/// Appends the form in which changes travel.
///
/// A view of bytes that is a part of another one holds all that the whole one has: it is copied
/// first.
pub fn encode_changes(changes: &ChangeBatch, into: &mut Vec<u8>) -> Result<()> {
    codec::encode_changes(&changes.compacted(), into)
}

/// The inverse of [`encode_changes`].
///
/// Errors: of kind `Corrupt`.
pub fn decode_changes(bytes: &[u8]) -> Result<ChangeBatch> {
    codec::decode_changes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::testing;
    use crate::entry::TableWrites;
    use crate::protocol::{BarrierCommand, Floors, StartJob, StartMode};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tidemark_changelog::connector::Floor;
    use tidemark_common::{RelationId, SqlState};
    use tidemark_state::errors::{ErrorRow, KeptError};

    fn floors(relation: RelationId) -> Floors {
        let floor = Floor {
            split: 3,
            offset: 7,
            event_time_micros: Floor::NONE,
        };
        BTreeMap::from([(relation, vec![floor])])
    }

    fn rows() -> ChangeBatch {
        let column = arrow::array::Int64Array::from(vec![Some(7), None]);
        let batch = arrow::array::RecordBatch::try_from_iter([("v", Arc::new(column) as _)]);
        ChangeBatch::new(batch.unwrap(), vec![1, -2])
    }

    #[test]
    fn commands_arrive_as_they_were_without_rows_of_tables() {
        let relation = RelationId(7);
        let barrier = |writes| BarrierCommand {
            epoch: Epoch(9),
            clock: -5,
            checkpoint: true,
            writes,
            errors: Vec::new(),
            limits: Some(BTreeMap::from([(relation, vec![testing::at(4)])])),
            horizons: BTreeMap::from([(relation, -1)]),
            watermarks: Arc::new(BTreeMap::from([(relation, -5)])),
            floors: floors(relation),
        };
        let sent = Command::Barrier(Arc::new(barrier(vec![TableWrites::held(relation, rows())])));
        let arrived = decode_command(&encode_command(&sent).unwrap()).unwrap();
        assert_eq!(arrived, Command::Barrier(Arc::new(barrier(Vec::new()))));
        let start = StartJob {
            mode: StartMode::Restored(Epoch(3)),
            tables: BTreeMap::from([(1, Vec::new())]),
            ..StartJob::of(Arc::new(testing::table(7, "t")))
        };
        for sent in [
            Command::Start(Arc::new(start)),
            Command::Settle,
            Command::Publish {
                needed: [Epoch(1), Epoch(4)].into(),
            },
            Command::Stop {
                relations: vec![relation],
                keep_sinks: true,
            },
        ] {
            assert_eq!(
                decode_command(&encode_command(&sent).unwrap()).unwrap(),
                sent
            );
        }
        assert!(decode_command(b"{").is_err());
    }

    #[test]
    fn events_arrive_as_they_were_with_all_rows() {
        let relation = RelationId(7);
        let cut = |reads, errors| Event::Cut {
            worker: 2,
            epoch: Epoch(5),
            positions: BTreeMap::from([(relation, vec![testing::at(4)])]),
            floors: floors(relation),
            reads,
            errors,
        };
        let kept = KeptError {
            relation,
            row: Arc::new(ErrorRow {
                raw: vec![0, 255],
                offset: 4,
                ..ErrorRow::default()
            }),
            weight: 1,
        };
        let error = Error::user(SqlState::DIVISION_BY_ZERO, "division by zero")
            .with_detail("A detail.")
            .with_hint("A hint.");
        for sent in [
            cut(Vec::new(), Vec::new()),
            cut(vec![TableWrites::held(relation, rows())], vec![kept]),
            Event::Active,
            Event::Failed { relation, error },
            Event::Passed {
                worker: 1,
                jobs: vec![(relation, Epoch(8))],
            },
        ] {
            let bytes = encode_event(&sent).unwrap();
            assert_eq!(decode_event(&bytes).unwrap(), sent);
            for end in 0..bytes.len().min(40) {
                assert!(decode_event(&bytes[..end]).is_err());
            }
        }
    }
}
