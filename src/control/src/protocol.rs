//! What the coordinator and the workers tell each other, and what sessions ask of the coordinator.
//! Commands to one worker arrive in order; with each command and each event goes the incarnation of
//! the cluster ([`Stamped`](crate::Stamped)).

use crate::entry::{CatalogChange, TableWrites};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_changelog::connector::{Floor, SinkMarker, SplitPosition};
use tidemark_common::{Epoch, Error, RelationId, Result, SplitId, Watermarks, WorkerId};
use tidemark_plan::Relation;
use tidemark_state::checkpoint::FileMeta;
use tidemark_state::errors::{ErrorsFile, KeptError};
use tidemark_state::halted::{Formerly, KeptFile};
use tidemark_state::manifest::SinkProgress;

/// Positions of the splits of several sources.
pub type Positions = BTreeMap<RelationId, Vec<SplitPosition>>;

/// Floors of several sources, of each in order of split and offset.
pub type Floors = BTreeMap<RelationId, Vec<Floor>>;

/// What a worker does next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Builds the job's actors on this worker.
    Start(Arc<StartJob>),
    /// The leaves of a job that is being created join the live input at the barrier of this epoch,
    /// which follows.
    Join {
        /// The job.
        relation: RelationId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Leaves of a job that is being created read these append-only sources' past first: others
    /// began to read them after the job's actors were built.
    CatchUp {
        /// The job.
        relation: RelationId,
        /// Where each of them starts.
        backfill: Arc<Positions>,
    },
    /// The job counts from the barrier of this epoch on, which follows: epochs wait for it and
    /// checkpoints contain it.
    Promote {
        /// The job.
        relation: RelationId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A running source has more splits.
    AddSplits {
        /// The source.
        relation: RelationId,
        /// Where they start.
        start: Arc<Vec<SplitPosition>>,
    },
    /// From the next barrier on, the log keeps the rows that this source reads.
    LogRows {
        /// The source.
        relation: RelationId,
    },
    /// Forgets these jobs at once, wherever they are. When a worker has got the last of what others
    /// sent to one of them, it answers `Event::Ended`.
    Stop {
        /// The jobs.
        relations: Vec<RelationId>,
        /// Their sinks deliver what was complete, and stay.
        keep_sinks: bool,
    },
    /// Closes an epoch at every source.
    Barrier(Arc<BarrierCommand>),
    /// Views need not keep apart what nobody can read apart.
    Publish {
        /// The epochs that can still be read, see `Readers::needed`.
        needed: Arc<[Epoch]>,
    },
    /// Answer `Event::Settled`: every job sent before is built.
    Settle,
    /// Replay is over: sources read on without limits.
    Resume,
    /// The worker ends.
    Shutdown,
    /// The table has more columns than before, with values for rows that are older; answered with
    /// `Event::Widened`.
    Widen(Arc<Relation>),
}

/// Closes an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarrierCommand {
    /// The epoch that it closes.
    pub epoch: Epoch,
    /// The epoch's clock.
    pub clock: i64,
    /// Whether state is sealed.
    pub checkpoint: bool,
    /// The rows that the epoch writes to tables; in replay also those of sources whose rows the log
    /// keeps. They stay on the node of the coordinator, where all writers are.
    #[serde(skip)]
    pub writes: Vec<TableWrites>,
    /// In replay: the errors of those sources' records; they stay there, too.
    #[serde(skip)]
    pub errors: Vec<KeptError>,
    /// In replay: where every source stands when the epoch closes. Sources read exactly to there
    /// first.
    pub limits: Option<Positions>,
    /// For sources of which all splits have read a record: no record that is read after this
    /// barrier makes the time of its split lower than this.
    pub horizons: BTreeMap<RelationId, i64>,
    /// What sources promise; in replay what they promised.
    #[serde(default)]
    pub watermarks: Watermarks,
    /// Of splits that bring nothing: what they are raised to if they still stand there.
    #[serde(default)]
    pub floors: Floors,
}

/// A job to build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartJob {
    /// Its relation, with the plan.
    pub relation: Arc<Relation>,
    /// How it begins.
    pub mode: StartMode,
    /// Where its own connector begins.
    pub positions: Vec<SplitPosition>,
    /// Where splits begin that `positions` does not have yet.
    pub starts: Vec<SplitPosition>,
    /// What was decided of those of its own connector that brought nothing.
    #[serde(default)]
    pub floors: Vec<Floor>,
    /// In replay: its rows are in the log from some epoch on, after which it goes on elsewhere.
    pub logged: Option<LoggedRows>,
    /// For each append-only source that it taps and that others read already: where the job's own
    /// catching-up begins.
    pub backfill: Positions,
    /// State to restore, by state table number.
    pub tables: BTreeMap<u32, Vec<FileMeta>>,
    /// Files of rows that are part of the job's input before anything else...
    pub kept: Vec<KeptFile>,
    /// ... and further ones, after them. They stay on the node of the coordinator, where all
    /// writers are.
    #[serde(skip)]
    pub rows: Vec<TableWrites>,
    /// A sink's progress to restore.
    pub sink: Option<SinkProgress>,
    /// Of a resumed sink: what the relations with rows that it reads held when it stopped. It tells
    /// its receiver the difference to that.
    pub told: BTreeMap<RelationId, Vec<FileMeta>>,
    /// Whose rows those are, where others have taken their places since.
    #[serde(default)]
    pub formerly: BTreeMap<RelationId, Formerly>,
}

impl StartJob {
    /// A job without a past.
    pub fn of(relation: Arc<Relation>) -> StartJob {
        StartJob {
            relation,
            mode: StartMode::Creating,
            positions: Vec::new(),
            starts: Vec::new(),
            floors: Vec::new(),
            logged: None,
            backfill: Positions::new(),
            tables: BTreeMap::new(),
            kept: Vec::new(),
            rows: Vec::new(),
            sink: None,
            told: BTreeMap::new(),
            formerly: BTreeMap::new(),
        }
    }
}

/// Rows that a replay does not read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedRows {
    /// The log has those of epochs after this one.
    pub after: Epoch,
    /// Where the source stands behind them.
    pub end: Vec<SplitPosition>,
}

/// How a job begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartMode {
    /// With the state of a checkpoint of this epoch; it counts at once.
    Restored(Epoch),
    /// An append-only source that gets its first reader: it begins after the barrier of this epoch
    /// and counts at once.
    After(Epoch),
    /// Its leaves catch up first, each in its own way, and it does not count until it is promoted.
    Creating,
    /// As `Creating`, but it has run before: with its state of then, from where that was.
    Resuming,
    /// It does not run: only what people read of it is restored, as of this epoch.
    Shown(Epoch),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// All sources of a worker passed a barrier.
    Cut {
        /// The worker.
        worker: WorkerId,
        /// The epoch.
        epoch: Epoch,
        /// Where its splits stand.
        positions: Positions,
        /// The floors that it put under them, and those that make no difference any more.
        #[serde(default)]
        floors: Floors,
        /// Rows read in this epoch whose records may be taken away.
        #[serde(skip)]
        reads: Vec<TableWrites>,
        /// Errors of such records.
        #[serde(skip)]
        errors: Vec<KeptError>,
    },
    /// The worker has built every job that it was sent before it was asked.
    Settled {
        /// The worker.
        worker: WorkerId,
    },
    /// Jobs that count have passed barriers on a worker that others have still to pass.
    Passed {
        /// The worker.
        worker: WorkerId,
        /// Each with its last epoch.
        jobs: Vec<(RelationId, Epoch)>,
    },
    /// All jobs that count have passed the barrier on a worker.
    Done {
        /// The worker.
        worker: WorkerId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A source read something: the next epoch will not be empty.
    Active,
    /// The leaves of a job that is being created have caught up far enough on a worker to join.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// The job.
        relation: RelationId,
    },
    /// A job that is being created passed a barrier on a worker.
    JobDone {
        /// The worker.
        worker: WorkerId,
        /// The job.
        relation: RelationId,
        /// The epoch.
        epoch: Epoch,
    },
    /// All that was sent to a job that was stopped has arrived at the worker, and was dropped: the
    /// job may be started again.
    Ended {
        /// The worker.
        worker: WorkerId,
        /// The job.
        relation: RelationId,
    },
    /// The state of a job cannot be read now: a file is missing or damaged. It may be whole at the
    /// next start.
    Unreadable {
        /// The job.
        relation: RelationId,
        /// Why.
        error: Error,
    },
    /// A job cannot go on.
    Failed {
        /// The job.
        relation: RelationId,
        /// Why.
        error: Error,
    },
    /// The checkpoint cannot be reached now. It may be at the next start: no job stops for it.
    NotRestored {
        /// Why.
        error: Error,
    },
    /// A worker's share of a checkpoint is stored.
    Part {
        /// The worker.
        worker: WorkerId,
        /// The epoch.
        epoch: Epoch,
        /// Its files. A table that cannot be encoded stops its job instead.
        files: Vec<FileMeta>,
    },
    /// The sinks' share of a checkpoint is stored.
    SinkPart {
        /// The epoch.
        epoch: Epoch,
        /// Progress of each sink. One whose log cannot be encoded stops instead.
        sinks: BTreeMap<RelationId, SinkProgress>,
    },
    /// The errors' share of a checkpoint is stored.
    ErrorsPart {
        /// The epoch.
        epoch: Epoch,
        /// The object that holds what is kept; none where nothing is.
        errors: Option<ErrorsFile>,
    },
    /// What a relation answered at an epoch is stored
    /// ([`Workers::store_answer`](crate::workers::Workers::store_answer)).
    AnswerStored {
        /// The relation.
        relation: RelationId,
        /// The epoch.
        epoch: Epoch,
        /// The files, or why it failed.
        files: Result<Vec<FileMeta>>,
    },
    /// Files of one table were merged; the next manifest names what came out instead.
    Compacted {
        /// The files that were read.
        replaced: Vec<FileMeta>,
        /// The files that hold the same, or why it failed.
        by: Result<Vec<FileMeta>>,
    },
    /// A manifest is stored.
    ManifestStored {
        /// The epoch.
        epoch: Epoch,
        /// Its path, or why it failed.
        manifest: Result<String>,
    },
    /// What a worker keeps of a table has the columns that the table has now.
    Widened {
        /// The worker.
        worker: WorkerId,
        /// The table.
        relation: RelationId,
    },
}

/// Whether a write was refused, as those that are resolved against it see it: they are written on
/// rows that are not there then, and are refused, too.
#[derive(Clone, Debug, Default)]
pub struct Fate(Arc<AtomicBool>);

impl Fate {
    /// It is refused.
    pub fn refuse(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is refused.
    pub fn is_refused(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How what depends on a relation goes with it when that is replaced.
#[derive(Clone, Debug)]
pub struct Dependant {
    /// The number under which it is made anew; of a sink, which goes on, its own.
    pub number: RelationId,
    /// It as its text is planned over what is new, if its plan is not what it was.
    pub planned: Option<Box<Relation>>,
    /// What its sources held when the statement began.
    pub targets: Positions,
    /// Where it begins to read sources that have lost records from their start on.
    pub begins: Positions,
}

/// What sessions ask of the coordinator; answered where it is said.
pub enum Request {
    /// Create a relation; answered when it is visible. `targets`: what its sources held when the
    /// statement began; `start`: where its own connector begins.
    Create {
        /// The relation; `created_at` is set by the coordinator.
        relation: Box<Relation>,
        /// Where its own connector begins.
        start: Vec<SplitPosition>,
        /// End positions to reach.
        targets: Positions,
        /// Where it begins to read sources that have lost records from their start on.
        begins: Positions,
        /// The relation whose place it takes (`OR REPLACE`).
        replaces: Option<RelationId>,
        /// What depends on that and goes with it, if anything does.
        dependants: BTreeMap<RelationId, Dependant>,
        /// Rows that it has from its first moment on (`CREATE TABLE AS`).
        rows: Vec<TableWrites>,
    },
    /// Undo a creation; unknown ones are ignored.
    Cancel {
        /// The relation.
        relation: RelationId,
        /// Why: the error that the creator gets.
        error: Error,
    },
    /// Let a job that stopped or is held back go on; one that runs does already. Answered when it
    /// runs and is visible, or with the reason why it does not.
    Resume {
        /// The relation.
        relation: RelationId,
    },
    /// Drop relations that nothing else depends on; answered when that is logged.
    Drop {
        /// Their ids.
        relations: Vec<RelationId>,
    },
    /// A source has these splits now; those that are known are ignored.
    Splits {
        /// The source.
        relation: RelationId,
        /// Where each would start if it is new.
        start: Vec<SplitPosition>,
    },
    /// Splits of a source that bring nothing.
    Idle {
        /// The source.
        relation: RelationId,
        /// The splits, and where each of them ends for so long.
        splits: Vec<(SplitId, i64)>,
        /// The first offsets that can still be read, where somebody has asked.
        earliest: Vec<SplitPosition>,
    },
    /// Records of this source may be taken away from now on: the log has to keep its rows.
    LogRows {
        /// The source.
        relation: RelationId,
    },
    /// Change the catalog: all of this, or nothing; answered when it is logged.
    Changes {
        /// What.
        changes: Vec<CatalogChange>,
        /// Drops take along what depends on them, as of the log.
        cascade: bool,
    },
    /// Log written rows, all or none; answered with the epoch when it is decided.
    Write {
        /// The rows.
        writes: Vec<TableWrites>,
        /// The writes that they were resolved against and that were not decided then: the last one
        /// of each table.
        after: Vec<Fate>,
        /// Their own.
        fate: Fate,
        /// Of a sink into a table: what it has delivered with them.
        marker: Option<(RelationId, SinkMarker)>,
    },
    /// Wait for a checkpoint that contains everything so far; answered when it is committed and
    /// visible.
    Flush,
    /// Take a last checkpoint and stop everything; answered when that is done.
    Shutdown,
}
