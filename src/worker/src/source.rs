//! A source connector's reader within a worker: its splits, its barriers, its limits and its
//! watermark.
//!
//! Late is decided here (rule 6): a row is late when its event time lies below what its split has
//! reached at earlier offsets minus the delay ([`late`]). Late rows are counted and are not part of
//! the input; the decision depends on the split's own records and what is logged of it only, so
//! every reading of them decides alike.
//!
//! Rows that are writes by key get their version here (rule 7), as the last column: the largest
//! time of their split up to them, and the split. That time goes with the split's position through
//! cuts and manifests.

mod late;
mod logged;

use crate::columns::leave_out;
use crate::errors::{ERRORS_KEPT_MAX, KeptErrors};
use crate::figures::{Figures, JobFigures};
use arrow::array::{AsArray, BooleanArray, Decimal128Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use late::Lateness;
use logged::Logging;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{Floor, RecordError, SourceReader, SplitPosition, Waker};
use tidemark_common::{Epoch, Error, Result, SplitId, WorkerId};
use tidemark_connector::Outside;
use tidemark_control::Placement;
use tidemark_control::protocol::{BarrierCommand, LoggedRows};
use tidemark_operator::expr::CompiledExpr;
use tidemark_plan::{Expr, Fragment, OnError, Op, Relation, VERSION_TYPE, Watermark, version};
use tidemark_state::errors::ErrorRow;

/// What the readers of a node have in common. Cloning is cheap.
#[derive(Clone)]
pub struct Reading {
    /// Who reads which split.
    pub placement: Arc<Placement>,
    /// Rows of a batch at most.
    pub batch_rows_max: usize,
    /// Where rows are counted.
    pub figures: Arc<Figures>,
    /// Where records that cannot be read are kept.
    pub errors: KeptErrors,
    /// Connectors.
    pub outside: Outside,
}

/// Reads one worker's splits of one source.
pub struct Source {
    relation: Arc<Relation>,
    reader: Box<dyn SourceReader>,
    /// Columns of the relation that `poll` returns, ascending.
    pub produced: Vec<usize>,
    watermark: Option<Watermark>,
    /// The event time, where it is computed of the columns that are read.
    event_time: Option<CompiledExpr>,
    /// Whether rows have a version.
    versioned: bool,
    late: Lateness,
    /// Floors that were put under its splits and not told yet.
    told: Vec<Floor>,
    /// Where splits begin that were not among the first positions.
    starts: Vec<SplitPosition>,
    /// Barriers whose limits are not reached yet (replay), in order.
    pub barriers: VecDeque<Arc<BarrierCommand>>,
    limited: bool,
    limits: Vec<SplitPosition>,
    /// Whether the log keeps what is read.
    logging: Logging,
    /// In a replay that has not come to them yet: rows that the log has.
    logged: Option<LoggedRows>,
    waker: Waker,
    /// Rows since the last barrier that the log has to keep.
    unlogged: Vec<ChangeBatch>,
    /// Errors since the last barrier that the log has to keep.
    unlogged_errors: VecDeque<Arc<ErrorRow>>,
    /// Whether rows are counted; those of a second reading of the same records are not.
    counted: bool,
    /// Whether the job is nothing but its reader, so that whoever reads from it gets the reader's
    /// own rows.
    is_bare: bool,
    worker: WorkerId,
    /// What was told last about the outside not answering.
    trouble: Option<String>,
    figures: Arc<JobFigures>,
    reading: Reading,
}

/// The event time of a relation over these columns of it, where it is a generated column.
fn computed_time(relation: &Relation, read: &[usize]) -> Result<Option<CompiledExpr>> {
    let generated = relation.watermark.as_ref();
    let Some(generated) = generated.and_then(|w| relation.generated(w.column)) else {
        return Ok(None);
    };
    let place = |c: usize| Expr::Column(read.iter().position(|r| *r == c).unwrap_or(c));
    let value = generated.value.clone().replace_columns(&place);
    let field = |c: &usize| {
        let column = &relation.columns[*c];
        Field::new(&column.name, column.data_type.clone(), true)
    };
    let input = Arc::new(Schema::new(read.iter().map(field).collect::<Vec<_>>()));
    let data_type = &relation.columns[generated.column].data_type;
    CompiledExpr::new(&value, &input, data_type).map(Some)
}

impl Source {
    /// Opens the reader of `worker`'s share of `positions`, which knows these floors.
    pub fn open(
        reading: &Reading,
        worker: WorkerId,
        relation: &Arc<Relation>,
        positions: &[SplitPosition],
        floors: &[Floor],
        waker: Waker,
    ) -> Result<Source> {
        let mine: Vec<SplitPosition> = positions
            .iter()
            .filter(|p| reading.placement.reader(p.split) == worker)
            .cloned()
            .collect();
        let reader = reading
            .outside
            .source(relation)?
            .open(&mine, waker.clone())?;
        let watermark = relation.watermark.clone();
        let mut source = Source {
            produced: Vec::new(),
            late: Lateness::default(),
            told: Vec::new(),
            watermark,
            event_time: None,
            versioned: false,
            starts: Vec::new(),
            reader,
            barriers: VecDeque::new(),
            limited: false,
            limits: Vec::new(),
            logging: Logging::of(relation),
            logged: None,
            waker,
            unlogged: Vec::new(),
            unlogged_errors: VecDeque::new(),
            counted: true,
            is_bare: relation.job.as_ref().is_some_and(|job| {
                matches!(job.fragments.as_slice(), [only]
                    if matches!(only.root.op, Op::SourceRead { .. }))
            }),
            worker,
            trouble: None,
            figures: reading.figures.of(relation.id),
            reading: reading.clone(),
            relation: relation.clone(),
        };
        // The job's operators expect the columns that its leaf names: those that are computed come
        // later.
        let nodes = relation
            .job
            .iter()
            .flat_map(|job| &job.fragments)
            .flat_map(Fragment::nodes);
        let read = nodes
            .filter_map(|node| {
                if let Op::SourceRead {
                    columns, versioned, ..
                } = &node.op
                {
                    Some((columns.clone(), *versioned))
                } else {
                    None
                }
            })
            .next();
        let (columns, versioned) = read.ok_or_else(|| {
            Error::internal(format!(
                "the job of \"{}\" reads no connector",
                relation.name
            ))
        })?;
        source.event_time = computed_time(relation, &columns)?;
        source.produce(columns);
        source.versioned = versioned;
        source.reader.set_times(versioned);
        source.late.begin(&mine);
        source.learn_floors(floors);
        Ok(source)
    }

    /// Tells where splits begin that a replay meets first.
    pub fn set_starts(&mut self, starts: &[SplitPosition]) {
        self.starts = starts.to_vec();
    }

    /// Where splits begin that came since the reader began.
    pub fn starts(&self) -> &[SplitPosition] {
        &self.starts
    }

    /// This reader reads what another one has counted already.
    pub fn set_uncounted(&mut self) {
        self.counted = false;
    }

    /// Reads only these columns of the relation (and that of the watermark).
    pub fn produce(&mut self, mut columns: Vec<usize>) {
        let time = self.watermark.as_ref().map(|w| w.column);
        columns.extend(time.filter(|_| self.event_time.is_none()));
        columns.sort_unstable();
        columns.dedup();
        if columns != self.produced {
            self.reader.set_columns(&columns);
            self.produced = columns;
        }
    }

    /// Of a source that is nothing but its reader, reads only these columns of the relation (and
    /// that of the watermark).
    pub fn prune(&mut self, columns: &[usize]) {
        if self.is_bare {
            self.produce(columns.to_vec());
        }
    }

    /// The next rows that are not late; `epoch` is the one that they belong to.
    pub fn poll(&mut self, epoch: Epoch) -> Result<Option<ChangeBatch>> {
        let mut polled = self.reader.poll(self.reading.batch_rows_max)?;
        while polled.is_none() && self.pass_floors() {
            polled = self.reader.poll(self.reading.batch_rows_max)?;
        }
        self.tell_trouble(self.reader.trouble());
        let Some(batch) = polled else { return Ok(None) };
        self.record(batch.errors, epoch)?;
        if self.counted {
            self.figures
                .rows
                .fetch_add(batch.changes.num_rows() as u64, Ordering::Relaxed);
        }
        let faulty = batch
            .faulty
            .into_iter()
            .map(|(row, column)| (row, self.produced[column]))
            .collect();
        let changes = if self.versioned {
            with_versions(&batch.changes, batch.split, &batch.times_ms)?
        } else {
            batch.changes
        };
        let (rows, faulty) = self.drop_late(batch.split, changes, faulty)?;
        self.pass_floors();
        let rows = self.settle(rows, faulty);
        if self.is_logged() && !rows.is_empty() {
            self.unlogged.push(rows.clone());
        }
        Ok(Some(rows))
    }

    /// Shows why nothing is read.
    pub fn be_held_up(&mut self, reason: String) {
        self.tell_trouble(Some(reason));
    }

    /// Shows, or takes back, why nothing is read.
    fn tell_trouble(&mut self, trouble: Option<String>) {
        if trouble == self.trouble || !self.counted {
            return;
        }
        let mut told = self.figures.trouble.lock();
        match &trouble {
            Some(trouble) => drop(told.insert(self.worker, trouble.clone())),
            None => drop(told.remove(&self.worker)),
        }
        drop(told);
        self.trouble = trouble;
    }

    /// Puts down what could not be read, or fails as the relation wants it; for every reader, since
    /// one may read columns that no other one has read.
    fn record(&mut self, errors: Vec<RecordError>, epoch: Epoch) -> Result<()> {
        for error in errors {
            let topic = self
                .relation
                .connector
                .as_ref()
                .and_then(|c| c.options.get("topic"))
                .cloned()
                .unwrap_or_default();
            if self.relation.on_error == OnError::Fail {
                let column = if error.column.is_empty() {
                    String::new()
                } else {
                    format!(" column \"{}\"", error.column)
                };
                let place = format!(
                    "topic \"{topic}\" partition {} offset {}{column}",
                    error.split, error.offset
                );
                return Err(Error::user(
                    error.state,
                    format!("{place}: {}", error.message),
                ));
            }
            let RecordError {
                split,
                offset,
                column,
                state,
                message,
                raw,
            } = error;
            let row = Arc::new(ErrorRow {
                relation: self.relation.name.clone(),
                epoch,
                topic,
                split,
                offset,
                column,
                state: state.0.into(),
                message,
                raw,
            });
            if self.is_logged() {
                if self.unlogged_errors.len() == ERRORS_KEPT_MAX {
                    self.unlogged_errors.pop_front();
                }
                self.unlogged_errors.push_back(row.clone());
            }
            let mut errors = self.reading.errors.lock();
            errors.record(self.relation.id, row, 1);
        }
        Ok(())
    }

    /// What becomes of rows with values that could not be read: with `on_error = 'null'` they stay,
    /// unless a column is NOT NULL; else who reads such a column leaves them out, which only those
    /// can do that read the reader's own rows.
    fn settle(&self, rows: ChangeBatch, faulty: Vec<(usize, usize)>) -> ChangeBatch {
        if faulty.is_empty() {
            return rows;
        }
        match self.relation.on_error {
            OnError::Null => leave_out(&rows, &faulty, |column| {
                !self.relation.columns[column].nullable
            }),
            _ if self.is_bare => rows.with_faulty(faulty),
            _ => leave_out(&rows, &faulty, |_| true),
        }
    }

    /// Leaves out late rows; `faulty` goes with the others.
    fn drop_late(
        &mut self,
        split: SplitId,
        batch: ChangeBatch,
        faulty: Vec<(usize, usize)>,
    ) -> Result<(ChangeBatch, Vec<(usize, usize)>)> {
        let Some(watermark) = &self.watermark else {
            return Ok((batch, faulty));
        };
        let times = match &self.event_time {
            // Of a row for which it fails there is none: it is late by nothing.
            Some(time) => time.evaluate(batch.rows())?.array,
            None => match self.produced.iter().position(|c| *c == watermark.column) {
                Some(column) => batch.column(column).clone(),
                None => return Ok((batch, faulty)),
            },
        };
        let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))
            .map_err(|e| Error::internal(e.to_string()))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let keep = self.late.take(split, times.iter(), watermark.delay_micros);
        let late = keep.iter().filter(|on_time| !**on_time).count() as u64;
        if late == 0 {
            return Ok((batch, faulty));
        }
        if self.counted {
            self.figures.late.fetch_add(late, Ordering::Relaxed);
        }
        let mut kept = 0..;
        let moved: Vec<Option<usize>> = keep
            .iter()
            .map(|k| if *k { kept.next() } else { None })
            .collect();
        let faulty = faulty
            .into_iter()
            .filter_map(|(row, column)| Some((moved[row]?, column)))
            .collect();
        Ok((batch.filter(&BooleanArray::from(keep)), faulty))
    }

    /// Takes the rows and the errors since the last barrier that the log has to keep, in the order
    /// of reading: another barrier has passed.
    pub fn take_unlogged(&mut self) -> (Vec<ChangeBatch>, VecDeque<Arc<ErrorRow>>) {
        self.begin_epoch();
        (
            std::mem::take(&mut self.unlogged),
            std::mem::take(&mut self.unlogged_errors),
        )
    }

    /// Where the splits stand.
    pub fn positions(&self) -> Vec<SplitPosition> {
        let with_event_time = |p: SplitPosition| SplitPosition {
            event_time_micros: self.late.reached(p.split),
            ..p
        };
        self.reader
            .positions()
            .into_iter()
            .map(with_event_time)
            .collect()
    }

    /// Reads no further than these positions; splits that the reader does not know yet are added.
    pub fn limit(&mut self, limits: &[SplitPosition]) -> Result<()> {
        let known = self.reader.positions();
        let mine = self.share_of(limits);
        let new: Vec<SplitPosition> = mine
            .iter()
            .filter(|p| !known.iter().any(|k| k.split == p.split))
            .map(|p| self.start_of(p))
            .collect();
        self.begin_splits(&new)?;
        self.limits = mine;
        self.limited = true;
        self.stop_at_floors();
        Ok(())
    }

    /// Limits the reader to what it was told, and to the next floor of each split.
    fn stop_at_floors(&mut self) {
        if !self.late.has_next() {
            return self.reader.set_limits(&self.limits);
        }
        let mut limits = self.limits.clone();
        for position in self.reader.positions() {
            let Some(next_offset) = self.late.next(position.split) else {
                continue;
            };
            match limits.iter_mut().find(|l| l.split == position.split) {
                Some(limit) => limit.next_offset = limit.next_offset.min(next_offset),
                None => limits.push(SplitPosition {
                    next_offset,
                    ..position
                }),
            }
        }
        self.reader.set_limits(&limits);
    }

    /// Raises splits that have come to a floor; whether there were any, so that there may be more
    /// to read.
    fn pass_floors(&mut self) -> bool {
        if !self.late.has_next() {
            return false;
        }
        let mut passed = false;
        for position in self.reader.positions() {
            passed |= self.late.stand(&position);
        }
        if passed {
            self.stop_at_floors();
        }
        passed
    }

    /// What was decided of splits that brought nothing; those before where they stand are known.
    pub fn learn_floors(&mut self, floors: &[Floor]) {
        let placement = &self.reading.placement;
        let mine = |f: &&Floor| placement.reader(f.split) == self.worker;
        let floors: Vec<Floor> = floors.iter().filter(mine).copied().collect();
        if !floors.is_empty() {
            self.late.learn(&floors, &self.reader.positions());
            self.stop_at_floors();
        }
    }

    /// All floors that it knows of.
    pub fn floors(&self) -> Vec<Floor> {
        self.late.floors()
    }

    /// Puts these floors under those splits that still stand there.
    pub fn put_floors(&mut self, floors: &[Floor]) {
        if floors.is_empty() {
            return;
        }
        for position in self.reader.positions() {
            let at = (position.split, position.next_offset);
            let here = floors.iter().filter(|f| f.place() == at);
            let raises = |f: &&Floor| Some(f.event_time_micros) > self.late.reached(f.split);
            let floor = here.filter(raises).max_by_key(|f| f.event_time_micros);
            if let Some(floor) = floor.copied() {
                self.late.put(floor, &position);
                self.told.push(floor);
            }
        }
    }

    /// The floors that were put since this was asked last, and those that make no difference any
    /// more.
    pub fn take_floors(&mut self) -> Vec<Floor> {
        let mut told = self.late.take_moot();
        told.append(&mut self.told);
        told
    }

    /// Where a split begins that stands at `position` later.
    fn start_of(&self, position: &SplitPosition) -> SplitPosition {
        let start = self
            .starts
            .iter()
            .find(|s| s.split == position.split)
            .cloned();
        start.unwrap_or_else(|| SplitPosition {
            next_offset: 0,
            records: 0,
            time_ms: -1,
            event_time_micros: None,
            ..position.clone()
        })
    }

    /// Reads those of `splits` that are this worker's and not known yet.
    pub fn add_splits(&mut self, splits: &[SplitPosition]) -> Result<()> {
        let known = self.reader.positions();
        let mut new = self.share_of(splits);
        new.retain(|p| !known.iter().any(|k| k.split == p.split));
        self.starts.extend(new.iter().cloned());
        self.begin_splits(&new)
    }

    fn begin_splits(&mut self, new: &[SplitPosition]) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        self.reader.add_splits(new)?;
        self.late.begin(new);
        if self.late.has_next() {
            self.stop_at_floors();
        }
        Ok(())
    }

    /// Reads on without limits.
    pub fn unlimit(&mut self) {
        if std::mem::take(&mut self.limited) {
            self.limits.clear();
            self.stop_at_floors();
        }
    }

    /// Whether all splits stand at these positions. Passing one is a broken invariant: the same cut
    /// must mean the same rows.
    pub fn has_reached(&self, limits: &[SplitPosition]) -> bool {
        self.reader.positions().iter().all(|p| {
            limits
                .iter()
                .find(|l| l.split == p.split)
                .is_none_or(|l| p.next_offset >= l.next_offset)
        })
    }
}

/// The rows with their versions behind them.
fn with_versions(changes: &ChangeBatch, split: SplitId, times_ms: &[i64]) -> Result<ChangeBatch> {
    assert_eq!(
        times_ms.len(),
        changes.num_rows(),
        "a reader that is asked for times gives one per row"
    );
    let versions =
        Decimal128Array::from_iter_values(times_ms.iter().map(|time| version(*time, split)))
            .with_data_type(VERSION_TYPE);
    let schema = changes.schema();
    let fields = schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .chain([Field::new("_version", VERSION_TYPE, false)]);
    let columns = changes
        .rows()
        .columns()
        .iter()
        .cloned()
        .chain([Arc::new(versions) as _])
        .collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
        .map_err(|e| Error::internal(format!("versions do not fit: {e}")))?;
    Ok(ChangeBatch::with_weights(rows, changes.weights().cloned()))
}
