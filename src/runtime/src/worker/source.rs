//! A source connector's reader within a worker: its splits, its barriers, its limits and its watermark.
//!
//! Late is decided here (rule 6): a row is late when its event time lies below the largest event time at earlier offsets of its split minus the delay. Late rows are
//! counted and are not part of the input; the decision depends on the split's own records only, so every reading of them decides alike.

use crate::engine::ErrorRow;
use crate::shared::{JobFigures, Shared};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{SourceReader, SplitPosition, Waker};
use tidemark_common::{Epoch, Error, Result, SplitId, WorkerId};
use tidemark_control::protocol::BarrierCommand;
use tidemark_plan::{OnError, Relation, Watermark};

/// Reads one worker's splits of one source.
pub struct Source {
    relation: Arc<Relation>,
    reader: Box<dyn SourceReader>,
    /// Columns of the relation that `poll` returns, ascending.
    pub produced: Vec<usize>,
    watermark: Option<Watermark>,
    largest: HashMap<SplitId, i64>,
    /// Barriers whose limits are not reached yet (replay), in order.
    pub barriers: VecDeque<Arc<BarrierCommand>>,
    limited: bool,
    /// Rows since the last barrier that the log has to keep.
    unlogged: Vec<ChangeBatch>,
    /// Whether rows and errors are recorded; a second reading of the same records does not.
    counted: bool,
    figures: Arc<JobFigures>,
    shared: Arc<Shared>,
}

impl Source {
    /// Opens the reader of `worker`'s share of `positions`.
    pub fn open(shared: &Arc<Shared>, worker: WorkerId, relation: &Arc<Relation>, positions: &[SplitPosition], watermarks: &[(SplitId, i64)], waker: Waker) -> Result<Source> {
        let spec = relation.connector.as_ref().ok_or_else(|| Error::internal(format!("source \"{}\" has no connector", relation.name)))?;
        let workers = shared.inbox_rows.len();
        let mine: Vec<SplitPosition> = positions.iter().filter(|p| p.split as usize % workers == worker).cloned().collect();
        let reader = tidemark_connector::open_source(spec, &relation.columns)?.open(&mine, waker)?;
        let watermark = relation.watermark.clone();
        let mut source = Source {
            produced: Vec::new(),
            largest: watermarks.iter().filter(|(s, _)| *s as usize % workers == worker).copied().collect(),
            watermark,
            reader,
            barriers: VecDeque::new(),
            limited: false,
            unlogged: Vec::new(),
            counted: true,
            figures: shared.figures(relation.id),
            shared: shared.clone(),
            relation: relation.clone(),
        };
        source.produce((0..relation.columns.len()).collect());
        Ok(source)
    }

    /// This reader reads what another one has recorded already.
    pub fn set_uncounted(&mut self) {
        self.counted = false;
    }

    /// Reads only these columns of the relation (and that of the watermark).
    pub fn produce(&mut self, mut columns: Vec<usize>) {
        columns.extend(self.watermark.as_ref().map(|w| w.column));
        columns.sort_unstable();
        columns.dedup();
        if columns != self.produced {
            self.reader.set_columns(&columns);
            self.produced = columns;
        }
    }

    /// The next rows that are not late.
    pub fn poll(&mut self, epoch: Epoch) -> Result<Option<ChangeBatch>> {
        let Some(batch) = self.reader.poll(self.shared.config.batch_rows_max)? else { return Ok(None) };
        for error in batch.errors.into_iter().filter(|_| self.counted) {
            if self.relation.on_error == OnError::Fail {
                return Err(Error::user(tidemark_common::SqlState::INVALID_TEXT, format!("record at offset {} of split {}: {}", error.offset, error.split, error.message)));
            }
            let topic = self.relation.connector.as_ref().and_then(|c| c.options.get("topic")).cloned().unwrap_or_default();
            self.shared.record_error(self.relation.id, ErrorRow { relation: self.relation.name.clone(), epoch, topic, record: error, state: "22P02".into() }, 1);
        }
        if self.counted {
            self.figures.rows.fetch_add(batch.changes.num_rows() as u64, Ordering::Relaxed);
        }
        let rows = self.drop_late(batch.split, batch.changes)?;
        if self.relation.logs_rows && self.counted && !rows.is_empty() {
            self.unlogged.push(rows.clone());
        }
        Ok(Some(rows))
    }

    fn drop_late(&mut self, split: SplitId, batch: ChangeBatch) -> Result<ChangeBatch> {
        let Some(watermark) = &self.watermark else { return Ok(batch) };
        let Some(column) = self.produced.iter().position(|c| *c == watermark.column) else { return Ok(batch) };
        let times = cast(batch.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(|e| Error::internal(e.to_string()))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let largest = self.largest.entry(split).or_insert(i64::MIN);
        let mut late = 0;
        let keep: Vec<bool> = (0..times.len())
            .map(|i| {
                if times.is_null(i) {
                    return true;
                }
                let time = times.value(i);
                let on_time = *largest == i64::MIN || time >= largest.saturating_sub(watermark.delay_micros);
                *largest = time.max(*largest);
                late += u64::from(!on_time);
                on_time
            })
            .collect();
        if late == 0 {
            return Ok(batch);
        }
        if self.counted {
            self.figures.late.fetch_add(late, Ordering::Relaxed);
        }
        Ok(batch.filter(&BooleanArray::from(keep)))
    }

    /// Takes the rows since the last barrier that the log has to keep, in the order of reading.
    pub fn take_unlogged(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.unlogged)
    }

    /// Where the splits stand.
    pub fn positions(&self) -> Vec<SplitPosition> {
        self.reader.positions()
    }

    /// Largest event time of each split.
    pub fn watermarks(&self) -> Vec<(SplitId, i64)> {
        self.largest.iter().filter(|(_, t)| **t != i64::MIN).map(|(s, t)| (*s, *t)).collect()
    }

    /// Reads no further than these positions; splits that the reader does not know yet are added.
    pub fn limit(&mut self, worker: WorkerId, limits: &[SplitPosition]) -> Result<()> {
        let workers = self.shared.inbox_rows.len();
        let known = self.reader.positions();
        let mine: Vec<SplitPosition> = limits.iter().filter(|p| p.split as usize % workers == worker).cloned().collect();
        let new: Vec<SplitPosition> =
            mine.iter().filter(|p| !known.iter().any(|k| k.split == p.split)).map(|p| SplitPosition { next_offset: 0, records: 0, ..p.clone() }).collect();
        if !new.is_empty() {
            self.reader.add_splits(&new)?;
        }
        self.reader.set_limits(&mine);
        self.limited = true;
        Ok(())
    }

    /// Reads those of `splits` that are this worker's and not known yet.
    pub fn add_splits(&mut self, worker: WorkerId, splits: &[SplitPosition]) -> Result<()> {
        let workers = self.shared.inbox_rows.len();
        let known = self.reader.positions();
        let new: Vec<SplitPosition> = splits.iter().filter(|p| p.split as usize % workers == worker && !known.iter().any(|k| k.split == p.split)).cloned().collect();
        if new.is_empty() { Ok(()) } else { self.reader.add_splits(&new) }
    }

    /// Reads on without limits.
    pub fn unlimit(&mut self) {
        if std::mem::take(&mut self.limited) {
            self.reader.set_limits(&[]);
        }
    }

    /// Whether all splits stand at these positions. Passing one is a broken invariant: the same cut must mean the same rows.
    pub fn has_reached(&self, limits: &[SplitPosition]) -> bool {
        self.reader.positions().iter().all(|p| limits.iter().find(|l| l.split == p.split).is_none_or(|l| p.next_offset >= l.next_offset))
    }
}
