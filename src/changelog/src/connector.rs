//! The seam to the outside: what a source connector and a sink connector must do. Implemented in
//! `connector`, driven by `worker` and `node`.
//!
//! A source is a set of splits, each an ordered sequence of records with offsets. The same offsets
//! always mean the same rows; what a reader has delivered is described exactly by its positions. A
//! worker opens one reader for its share of the splits and polls it from its own thread.

use crate::ChangeBatch;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidemark_common::{Epoch, Result, SplitId, SqlState};

/// Where one split stands: the next offset to read, and what identifies the log that the offset
/// counts in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPosition {
    /// The split.
    pub split: SplitId,
    /// The topic's id (Kafka: a UUID in text form where the client tells it, else the topic's name;
    /// generators: empty).
    pub topic_id: String,
    /// Leader epoch of the record just below `next_offset`; -1 where unknown, as after a gap (a
    /// transaction's marker). (Earlier builds stored that of another record under the field's own
    /// name.)
    #[serde(rename = "last_leader_epoch", default = "unknown_epoch")]
    pub leader_epoch: i32,
    /// The largest leader epoch of a record below `next_offset`; -1 where none is known. Records
    /// of earlier leaders do not follow it, of the same log.
    #[serde(default = "unknown_epoch")]
    pub newest_epoch: i32,
    /// The next offset, by the consumer's position: it passes transaction markers and compaction
    /// gaps.
    pub next_offset: i64,
    /// Records delivered so far since the source's start.
    pub records: u64,
    /// The largest time of a record below `next_offset`, in milliseconds since 1970 (Kafka: of the
    /// record's timestamp); -1 before the first. Never decreases; a split that appears later begins
    /// with what every other one has reached.
    pub time_ms: i64,
    /// Of a source with a watermark: the largest event time of a row below `next_offset`, in
    /// microseconds since 1970. Kept by whoever drives the reader. A split that appears later
    /// begins with the least of all others'.
    pub event_time_micros: Option<i64>,
}

fn unknown_epoch() -> i32 {
    -1
}

/// What was decided of a split that brought nothing for long: from this offset on it counts as if a
/// row of that event time stood just before, for whoever reads it, whenever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The split.
    pub split: SplitId,
    /// The first offset that it holds for.
    pub offset: i64,
    /// The event time, in microseconds since 1970; [`Floor::NONE`] where there was one that makes
    /// no difference any more.
    pub event_time_micros: i64,
}

impl Floor {
    /// The event time of a floor that raises nothing.
    pub const NONE: i64 = i64::MIN;

    /// Takes a floor up among those of a source: it takes the place of an earlier one at its
    /// offset. They are in order of split and offset.
    pub fn put(self, floors: &mut Vec<Floor>) {
        let place = floors.binary_search_by_key(&self.place(), Floor::place);
        match place {
            Ok(at) if self.event_time_micros == Floor::NONE => drop(floors.remove(at)),
            Ok(at) => floors[at] = self,
            Err(_) if self.event_time_micros == Floor::NONE => {}
            Err(at) => floors.insert(at, self),
        }
    }

    /// What they are in order of.
    pub fn place(&self) -> (SplitId, i64) {
        (self.split, self.offset)
    }
}

/// A record that could not be turned into a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordError {
    /// The split.
    pub split: SplitId,
    /// The record's offset.
    pub offset: i64,
    /// The column at fault, empty when the whole record cannot be read.
    pub column: String,
    /// The code of the reason, such as `22P02`.
    pub state: SqlState,
    /// Why, in lower case.
    pub message: String,
    /// The record's value, cut at 4 KiB.
    pub raw: Vec<u8>,
}

/// Rows of one split that follow each other.
#[derive(Debug)]
pub struct SourceBatch {
    /// The split.
    pub split: SplitId,
    /// The rows, with the columns last asked for. Of an upsert or Debezium source a negative weight
    /// deletes the row of that key (other columns are NULL), a positive one writes it.
    pub changes: ChangeBatch,
    /// Records that were skipped, and values that could not be read.
    pub errors: Vec<RecordError>,
    /// Where such values stand among `changes`, as NULL: row, and position among the columns last
    /// asked for.
    pub faulty: Vec<(usize, usize)>,
    /// If asked for: for each row the largest time of a record of the split up to its own
    /// ([`SplitPosition::time_ms`]).
    pub times_ms: Vec<i64>,
}

/// Called by a connector (from any thread) when an idle reader may have something again.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Reads the splits of one worker. All calls come from that worker's thread; none blocks.
pub trait SourceReader: Send {
    /// The next rows, at most `rows_max`, all of one split; `None` when nothing is there now or
    /// every split is at its limit.
    fn poll(&mut self, rows_max: usize) -> Result<Option<SourceBatch>>;
    /// Where each split stands after what `poll` has returned.
    fn positions(&self) -> Vec<SplitPosition>;
    /// Do not read at or past these offsets (`next_offset` of each position); splits that are not
    /// named are not limited. Replaces earlier limits.
    fn set_limits(&mut self, limits: &[SplitPosition]);
    /// Produce these columns of the source's row, in this order, from the next poll on.
    fn set_columns(&mut self, columns: &[usize]);
    /// Tell the times of the rows, from the next poll on.
    fn set_times(&mut self, wanted: bool);
    /// Adds splits that appeared, from these positions.
    fn add_splits(&mut self, splits: &[SplitPosition]) -> Result<()>;
    /// Why nothing comes, if the outside does not answer at the moment; the reader goes on trying.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// A source as configured by its options. Cheap to clone behind its `Arc`; methods here may block,
/// and are called from a blocking thread.
pub trait SourceConnector: Send + Sync {
    /// Where reading starts by the source's options (`scan.startup.mode`), for every split that
    /// exists now. Resolved once, then logged.
    fn start(&self) -> Result<Vec<SplitPosition>>;
    /// The end offsets now (exclusive), for every split that exists now: what a backfill has to
    /// reach. A bounded or endless generator answers its start.
    fn end(&self) -> Result<Vec<SplitPosition>>;
    /// The first offsets that can be read now, for every split that exists now; empty where records
    /// never go.
    fn earliest(&self) -> Result<Vec<SplitPosition>> {
        Ok(Vec::new())
    }
    /// Up to where a query reads a source that no job reads. A bounded generator that runs as fast
    /// as it can has all its rows at once; others have as many as they were read.
    fn readable(&self) -> Result<Vec<SplitPosition>> {
        self.end()
    }
    /// Whether records between two offsets may be gone when they are read again (a compacted
    /// topic). Asked when the source is made, and now and then while it runs, for that may change:
    /// the log then keeps its rows.
    fn may_lose_records(&self) -> Result<bool> {
        Ok(false)
    }
    /// Whether positions that were told `now` count in the same log as those that are `known`: an
    /// error of kind `Corrupt` if not. Splits of another log are no new splits.
    fn check_same(&self, _known: &[SplitPosition], _now: &[SplitPosition]) -> Result<()> {
        Ok(())
    }
    /// Opens a reader at `positions`.
    fn open(&self, positions: &[SplitPosition], waker: Waker) -> Result<Box<dyn SourceReader>>;
    /// Tells lag tools where we are; failures are logged only.
    fn commit(&self, _positions: &[SplitPosition]) {}
}

/// What a sink has durably delivered, read back from its marker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkMarker {
    /// The last epoch delivered entirely.
    pub epoch: Epoch,
    /// Changes delivered of the next epoch that has any, when that is too large for one
    /// transaction; 0 otherwise.
    pub partial: u64,
    /// Order-free hash over all changes emitted up to `epoch`.
    pub hash: u64,
    /// The newest records that were left out because the receiver refuses them, oldest first, until
    /// a checkpoint is sure to hold their errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusal>,
}

/// A record that the receiver refuses for what it is, whenever it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The epoch of its change.
    pub epoch: Epoch,
    /// Its key, of a record without key its value; cut at [`REFUSAL_BYTES_MAX`].
    pub record: Vec<u8>,
    /// Why, in lower case.
    pub reason: String,
}

/// Refusals that a marker holds.
pub const REFUSALS_MAX: usize = 100;
/// Bytes of a refused record that are kept.
pub const REFUSAL_BYTES_MAX: usize = 256;

impl SinkMarker {
    /// How far it is: the order in which one sink writes its markers.
    pub fn progress(&self) -> (Epoch, u64) {
        (self.epoch, self.partial)
    }

    /// The same with these refusals after those that it has; the oldest go when there are too many.
    pub fn refusing(mut self, before: &[Refusal], new: &[Refusal]) -> SinkMarker {
        self.refused = before.iter().chain(new).cloned().collect();
        let over = self.refused.len().saturating_sub(REFUSALS_MAX);
        self.refused.drain(..over);
        self
    }
}

/// One epoch's consolidated changes for a sink, in delivery order: of one key the retraction comes
/// before the insertion.
#[derive(Clone, Debug)]
pub struct SinkEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The changes; updates are adjacent (-1 old, +1 new).
    pub changes: Vec<ChangeBatch>,
    /// Running hash after this epoch.
    pub hash: u64,
}

impl SinkEpoch {
    /// Number of its changes.
    pub fn num_rows(&self) -> usize {
        self.changes.iter().map(ChangeBatch::num_rows).sum()
    }
}

/// What a sink's writer is to deliver next, together with a marker.
#[derive(Clone, Debug)]
pub struct SinkDelivery {
    /// The marker as it stands.
    pub before: SinkMarker,
    /// What to deliver.
    pub content: SinkContent,
}

/// The content of a delivery.
#[derive(Clone, Debug)]
pub enum SinkContent {
    /// Whole epochs, in order, at least one; each leaves whole.
    Epochs(Vec<SinkEpoch>),
    /// Changes of one epoch that is too large for one transaction, from `before.partial` on. They
    /// may be cut further wherever [`pieces`](crate::pieces) cuts, and come in this order again
    /// whatever happens meanwhile.
    Part {
        /// The changes, with the epoch and the running hash after it.
        part: SinkEpoch,
        /// They are the epoch's last.
        ends: bool,
    },
}

impl SinkDelivery {
    /// The marker after the first `epochs` whole epochs or, of a part, after its first `changes`.
    pub fn marker_after(&self, epochs: usize, changes: u64) -> SinkMarker {
        let whole = |e: &SinkEpoch| SinkMarker {
            epoch: e.epoch,
            hash: e.hash,
            ..SinkMarker::default()
        };
        match &self.content {
            SinkContent::Epochs(all) => whole(&all[epochs - 1]),
            SinkContent::Part { part, ends } if *ends && changes == part.num_rows() as u64 => {
                whole(part)
            }
            SinkContent::Part { .. } => SinkMarker {
                partial: self.before.partial + changes,
                refused: Vec::new(),
                ..self.before.clone()
            },
        }
    }
}

/// What was delivered.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The marker that went with it.
    pub marker: SinkMarker,
    /// The records that were left out.
    pub refused: Vec<Refusal>,
}

/// Delivers decided epochs. All calls come from one thread of the sink's own and may block.
pub trait SinkWriter: Send {
    /// Takes over from any predecessor (fences it), then tells what was delivered. `None`: there is
    /// no marker.
    fn recover(&mut self) -> Result<Option<SinkMarker>>;
    /// Delivers a first part of what it is handed, all of that or none, together with its marker:
    /// everything if it can be done soon, otherwise less, but at least one epoch, or of a part one
    /// change. An error leaves the outcome unknown: call `recover` before anything else. An error
    /// of kind `User` says that a record is refused and may not be left out.
    fn deliver(&mut self, delivery: &SinkDelivery) -> Result<Delivered>;
}
