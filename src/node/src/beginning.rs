//! Where a new reading of an append-only source begins.
//!
//! A source's start is resolved once and logged, and a *replay* reads again exactly what was read:
//! an offset that vanished stops the job. A new job, or a query that reads the source by itself,
//! has read nothing yet. Where retention has taken the records at the start away, it begins with
//! the first ones that are left, and says what it does not have; the job's beginning is logged with
//! it.

use std::fmt::Write;
use tidemark_changelog::connector::{SourceConnector, SplitPosition};
use tidemark_common::{Result, SplitId};
use tidemark_plan::Relation;

/// Partitions that a notice names at most.
const NAMED_MAX: usize = 10;

/// A beginning of a reading, and what lies before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Beginning {
    /// Where it begins.
    pub positions: Vec<SplitPosition>,
    /// Splits that have lost records: from this offset up to before that one.
    gone: Vec<(SplitId, i64, i64)>,
}

impl Beginning {
    /// That of a reading which would begin at `start`, as of now.
    pub fn now(start: Vec<SplitPosition>, connector: &dyn SourceConnector) -> Result<Beginning> {
        Ok(Beginning::of(start, &connector.earliest()?))
    }

    /// `earliest`: the first positions that can still be read.
    fn of(mut start: Vec<SplitPosition>, earliest: &[SplitPosition]) -> Beginning {
        let mut gone = Vec::new();
        for position in &mut start {
            // Another topic under the same name is for the reader to find out.
            let first = earliest.iter().find(|e| {
                e.split == position.split
                    && e.topic_id == position.topic_id
                    && e.next_offset > position.next_offset
            });
            if let Some(first) = first {
                gone.push((position.split, position.next_offset, first.next_offset));
                position.next_offset = first.next_offset;
            }
        }
        Beginning {
            positions: start,
            gone,
        }
    }

    /// Whether it is later than the start.
    pub fn is_moved(&self) -> bool {
        !self.gone.is_empty()
    }

    /// A sentence for a NOTICE to whoever reads, if something is gone.
    pub fn notice(&self, source: &Relation) -> Option<String> {
        if self.gone.is_empty() {
            return None;
        }
        let mut text = format!(
            "source \"{}\" has lost its first records: {} no longer has",
            source.name,
            place(source)
        );
        for (i, (split, from, to)) in self.gone.iter().take(NAMED_MAX).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{comma} partition {split} offsets {from} to {}",
                to - 1
            );
        }
        if self.gone.len() > NAMED_MAX {
            let _ = write!(text, " and so in {} more", self.gone.len() - NAMED_MAX);
        }
        text.push_str("; reading begins with what is left");
        Some(text)
    }
}

/// What a source's connector reads, for messages.
pub fn place(source: &Relation) -> String {
    let topic = source
        .connector
        .as_ref()
        .and_then(|c| c.options.get("topic"));
    topic.map_or_else(
        || "it".to_string(),
        |topic| format!("kafka topic \"{topic}\""),
    )
}

/// To whoever makes a job over a source whose topic is compacted.
pub fn compacted_notice(source: &Relation) -> String {
    format!(
        "{} is compacted: of source \"{}\" the new job reads the records that are left, and what \
         was made from it earlier may have read more",
        place(source),
        source.name
    )
}

/// To whoever reads again what a running job has read, and gets less.
pub fn missing_notice(source: &Relation, missing: u64) -> String {
    format!(
        "{missing} records that were read from source \"{}\" before are gone from {}: this reading \
         is of those that are left",
        source.name,
        place(source)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(split: SplitId, topic_id: &str, next_offset: i64) -> SplitPosition {
        SplitPosition {
            split,
            topic_id: topic_id.into(),
            leader_epoch: -1,
            newest_epoch: -1,
            next_offset,
            records: 0,
            time_ms: -1,
            event_time_micros: None,
        }
    }

    #[test]
    fn a_reading_begins_with_what_is_left() {
        let start = vec![at(0, "t", 5), at(1, "t", 5), at(2, "t", 5), at(3, "t", 5)];
        let earliest = [
            at(0, "t", 9),
            at(1, "t", 5),
            at(2, "other", 9),
            at(4, "t", 1),
        ];
        let beginning = Beginning::of(start.clone(), &earliest);
        assert_eq!(beginning.gone, [(0, 5, 9)]);
        let begins: Vec<i64> = beginning.positions.iter().map(|p| p.next_offset).collect();
        assert_eq!(begins, [9, 5, 5, 5]);
        assert!(beginning.is_moved());
        // A connector that never loses anything names no splits.
        let beginning = Beginning::of(start.clone(), &[]);
        assert_eq!((beginning.is_moved(), beginning.positions), (false, start));
    }
}
