//! A bed to test the coordinator on: a log in memory, a checkpoint store in memory, and workers
//! that answer at once, without rows and without threads.
//!
//! The fake workers keep one number per table: how many rows it holds. It is restored from the
//! files of a checkpoint ([`FileMeta::rows`] less deletes), grows with the written rows of every
//! barrier, and is sealed into one made-up file per checkpoint. So a test can say what must be
//! there after a crash, a stop or a resume without a dataflow. What else they were told is kept in
//! [`Script::commands`].
//!
//! [`Bed::run`] drives the coordinator until nothing is due any more; [`Bed::restart`] is a
//! `kill -9` with a start behind it: log and store stay, everything else is new.

use super::recovery::Recovered;
use super::{Coordinator, Pace};
use crate::entry::decode_kept;
use crate::inputs::{Answer, Input, Inputs, RequestId};
use crate::protocol::{Command, Event, Fate, Floors, Positions, Request, StartJob, StartMode};
use crate::workers::Workers;
use crate::{DecisionLog, Entry, Events, Pin, Readers, TableWrites};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result, TableId, WorkerId};
use tidemark_plan::{
    Catalog, Column, Conflict, ConnectorSpec, Encode, Format, Fragment, JobPlan, Node, OnError, Op,
    Output, Properties, Relation, RelationKind,
};
use tidemark_state::checkpoint::{CheckpointStore, FileMeta};
use tidemark_state::halted::KeptFile;
use tidemark_state::manifest::{Manifest, SinkProgress};

/// Steps after which a bed that does not come to rest fails its test.
const STEPS_MAX: usize = 10_000;

/// A log in memory; clones share it, so that it outlives its coordinator.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Vec<(u64, Vec<u8>)>>>);

impl MemoryLog {
    /// All entries, as a start reads them.
    pub fn entries(&self) -> Vec<(u64, Entry)> {
        let entries = self.0.lock();
        entries
            .iter()
            .map(|(index, bytes)| (*index, Entry::decode(bytes).expect("it was encoded")))
            .collect()
    }
}

impl DecisionLog for MemoryLog {
    fn append(&mut self, entries: &[Entry]) -> Result<u64> {
        let mut log = self.0.lock();
        let next = log.last().map_or(1, |(index, _)| index + 1);
        for entry in entries {
            log.push((next, entry.encode()?));
        }
        Ok(next)
    }

    fn append_each(&mut self, entries: &[Entry]) -> Result<u64> {
        let each = entries.chunks(1).map(|entry| self.append(entry));
        each.last().unwrap_or(Ok(0))
    }

    fn read_after(&self, index: u64) -> Result<Vec<(u64, Entry)>> {
        let mut entries = self.entries();
        entries.retain(|(i, _)| *i > index);
        Ok(entries)
    }

    fn begin_behind(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn loss_is_told(&mut self) -> Result<()> {
        Ok(())
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        // The newest stays, so that indexes go on.
        let mut log = self.0.lock();
        let newest = log.last().map(|(index, _)| *index);
        log.retain(|(i, _)| *i > index || Some(*i) == newest);
        Ok(())
    }
}

/// What the fake workers do, and what they were told.
#[derive(Default)]
pub struct Script {
    /// Jobs whose actors cannot be built, and why.
    pub fails: BTreeMap<RelationId, Error>,
    /// Where sources stand at the next cut.
    pub positions: Positions,
    /// Jobs whose files cannot be read, and why.
    pub unreadable: BTreeMap<RelationId, Error>,
    /// Barriers are not answered: what would have been said waits here.
    pub holds: Option<Vec<Event>>,
    /// A job does not come to its end: epochs are cut and not done, which waits here.
    pub behind: Option<Vec<Event>>,
    /// Then these jobs pass their barriers all the same.
    pub fast: BTreeSet<RelationId>,
    /// Manifests cannot be stored.
    pub manifest_error: Option<Error>,
    /// Storing a manifest takes long: what would have been said waits here.
    pub stores: Option<Vec<Event>>,
    /// Answers cannot be stored.
    pub answer_error: Option<Error>,
    /// All that worker 0 was told.
    pub commands: Vec<Command>,
    /// What came of requests.
    pub answers: BTreeMap<RequestId, Answer>,
    /// The last catalog that sessions were shown.
    pub shown: Arc<Catalog>,
    /// State and progress of jobs, as told.
    pub states: BTreeMap<RelationId, &'static str>,
    /// Manifests that were stored.
    pub manifests: Vec<Arc<Manifest>>,
    jobs: BTreeMap<RelationId, FakeJob>,
}

struct FakeJob {
    counts: bool,
    joined: Option<Epoch>,
    rows: i64,
    unsealed: i64,
}

impl Script {
    /// Splits that stand where a floor is have reached it.
    fn raise(&mut self, floors: &Floors) {
        for (source, floors) in floors {
            let splits = self.positions.get_mut(source).into_iter().flatten();
            for split in splits {
                let here = floors.iter();
                let mut here = here.filter(|f| f.place() == (split.split, split.next_offset));
                let raised = here.next().map(|f| f.event_time_micros);
                split.event_time_micros = split.event_time_micros.max(raised);
            }
        }
    }

    /// Rows of a job that runs or is being created.
    pub fn rows(&self, relation: RelationId) -> Option<i64> {
        self.jobs.get(&relation).map(|job| job.rows)
    }

    /// The command by which the job was started last.
    pub fn started(&self, relation: RelationId) -> Option<Arc<StartJob>> {
        self.commands.iter().rev().find_map(|c| match c {
            Command::Start(start) if start.relation.id == relation => Some(start.clone()),
            _ => None,
        })
    }
}

/// Workers that answer at once.
#[derive(Clone)]
pub struct FakeWorkers {
    count: usize,
    events: Events,
    script: Arc<Mutex<Script>>,
    store: CheckpointStore,
    runtime: Arc<tokio::runtime::Runtime>,
}

impl FakeWorkers {
    fn tell(&self, event: Event) {
        self.events.tell(event);
    }

    fn start(&self, script: &mut Script, worker: WorkerId, start: &StartJob) {
        let id = start.relation.id;
        if let Some(error) = script.fails.get(&id) {
            return self.tell(Event::Failed {
                relation: id,
                error: error.clone(),
            });
        }
        if let Some(error) = script.unreadable.get(&id) {
            return self.tell(Event::Unreadable {
                relation: id,
                error: error.clone(),
            });
        }
        let joined = match start.mode {
            StartMode::Restored(epoch) | StartMode::After(epoch) => Some(epoch),
            StartMode::Creating | StartMode::Resuming => None,
            StartMode::Shown(_) => return,
        };
        if worker == 0 {
            let files = start.tables.values().flatten();
            let kept = start.kept.iter().map(|file| {
                let bytes = self.runtime.block_on(self.store.read_kept(file));
                decode_kept(&bytes.expect("it is there")).expect("it is whole")
            });
            let kept: i64 = kept.flatten().map(|rows| rows.num_rows() as i64).sum();
            let first = |w: &TableWrites| w.changes.piece(0).expect("it is held").num_rows() as i64;
            let rows = start.rows.iter().map(first);
            let first = kept + rows.sum::<i64>();
            let job = FakeJob {
                counts: joined.is_some(),
                joined,
                rows: files
                    .map(|f| f.rows as i64 - 2 * f.deletes as i64)
                    .sum::<i64>()
                    + first,
                unsealed: first,
            };
            script.jobs.insert(id, job);
        }
        if joined.is_none() {
            self.tell(Event::Ready {
                worker,
                relation: id,
            });
        }
    }

    fn barrier(
        &self,
        script: &mut Script,
        worker: WorkerId,
        barrier: &crate::protocol::BarrierCommand,
    ) {
        let epoch = barrier.epoch;
        let mut answers = Vec::new();
        let (mut positions, mut files) = (Positions::new(), Vec::new());
        let mut floors = Floors::new();
        if worker == 0 {
            for write in &barrier.writes {
                if let Some(job) = script.jobs.get_mut(&write.table) {
                    let changes = write.changes.piece(0).expect("it is held");
                    let rows: i64 = changes.weight_column().values().iter().sum();
                    job.rows += rows;
                    job.unsealed += rows;
                }
            }
            script.raise(&barrier.floors);
            let read = script.positions.clone();
            positions = barrier.limits.clone().unwrap_or(read);
            positions.retain(|id, _| script.jobs.contains_key(id));
            floors = barrier.floors.clone();
            let sealing = script.jobs.iter_mut().filter(|(_, j)| j.counts);
            for (id, job) in sealing.filter(|(_, j)| barrier.checkpoint && j.unsealed != 0) {
                files.push(file(*id, epoch, std::mem::take(&mut job.unsealed)));
            }
        }
        answers.push(Event::Cut {
            worker,
            epoch,
            positions,
            floors,
            reads: Vec::new(),
            errors: Vec::new(),
        });
        for (id, _) in script
            .jobs
            .iter()
            .filter(|(_, j)| !j.counts && j.joined.is_some_and(|e| e <= epoch))
        {
            answers.push(Event::JobDone {
                worker,
                relation: *id,
                epoch,
            });
        }
        match &mut script.behind {
            Some(held) => {
                held.push(Event::Done { worker, epoch });
                let jobs = script.fast.iter().map(|id| (*id, epoch)).collect();
                answers.push(Event::Passed { worker, jobs });
            }
            None => answers.push(Event::Done { worker, epoch }),
        }
        if barrier.checkpoint {
            answers.push(Event::Part {
                worker,
                epoch,
                files,
            });
        }
        match &mut script.holds {
            Some(held) => held.extend(answers),
            None => answers.into_iter().for_each(|event| self.tell(event)),
        }
    }
}

/// A made-up file that brings a table by `rows` rows (less than none: deletes).
fn file(relation: RelationId, epoch: Epoch, rows: i64) -> FileMeta {
    let table = TableId { relation, table: 0 };
    FileMeta {
        path: format!("tables/{table}/1-{epoch}-0.parquet"),
        table,
        epoch,
        rows: rows.unsigned_abs(),
        deletes: if rows < 0 { rows.unsigned_abs() } else { 0 },
        bytes: 0,
        crc32: 0,
        vnode_min: 0,
        vnode_max: 0,
        footer: None,
    }
}

impl Workers for FakeWorkers {
    fn count(&self) -> usize {
        self.count
    }

    fn send(&self, worker: WorkerId, command: Command) {
        let script = &mut *self.script.lock();
        if worker == 0 {
            script.commands.push(command.clone());
        }
        match command {
            Command::Start(start) => self.start(script, worker, &start),
            Command::Barrier(barrier) => self.barrier(script, worker, &barrier),
            Command::Join { relation, epoch } => {
                if let Some(job) = script.jobs.get_mut(&relation) {
                    job.joined = Some(epoch);
                }
            }
            Command::CatchUp { relation, .. } => self.tell(Event::Ready { worker, relation }),
            Command::Promote { relation, .. } => {
                if let Some(job) = script.jobs.get_mut(&relation) {
                    job.counts = true;
                }
            }
            Command::Stop { relations, .. } => {
                for relation in relations {
                    script.jobs.remove(&relation);
                    self.tell(Event::Ended { worker, relation });
                }
            }
            Command::Settle => self.tell(Event::Settled { worker }),
            _ => {}
        }
    }

    fn answer(&self, request: RequestId, answer: Answer) {
        self.script.lock().answers.insert(request, answer);
    }

    fn seal_sinks(&self, epoch: Epoch, sinks: Vec<RelationId>) {
        let sinks = sinks
            .into_iter()
            .map(|id| (id, SinkProgress::default()))
            .collect();
        self.tell(Event::SinkPart { epoch, sinks });
    }

    fn seal_errors(&self, epoch: Epoch, _: Vec<RelationId>) {
        self.tell(Event::ErrorsPart {
            epoch,
            errors: None,
        });
    }

    fn release_sinks(&self, _: &[RelationId]) {}

    fn close_sinks(&self, _: &[RelationId]) {}

    fn end_sinks(&self, _: &[(RelationId, Epoch)]) {}

    fn keep_sinks(&self, _: Epoch, _: Vec<(Arc<Relation>, SinkProgress)>) {}

    fn store_answer(&self, relation: Arc<Relation>, pin: Pin, named: Epoch) {
        let script = self.script.lock();
        let rows = script.rows(relation.id).unwrap_or_default();
        let files = match &script.answer_error {
            Some(error) => Err(error.clone()),
            None => Ok(vec![file(relation.id, named, rows)]),
        };
        self.tell(Event::AnswerStored {
            relation: relation.id,
            epoch: pin.epoch(),
            files,
        });
    }

    fn store_manifest(&self, manifest: Arc<Manifest>, kept: Vec<(KeptFile, Bytes)>) {
        let write = async {
            for (file, bytes) in kept {
                self.store.write_kept(&file, bytes).await?;
            }
            self.store.write_manifest(&manifest).await
        };
        let stored = match self.script.lock().manifest_error.clone() {
            Some(error) => Err(error),
            None => self.runtime.block_on(write),
        };
        let script = &mut *self.script.lock();
        script.manifests.push(manifest.clone());
        let event = Event::ManifestStored {
            epoch: manifest.epoch,
            manifest: stored,
        };
        match &mut script.stores {
            Some(waiting) => waiting.push(event),
            None => self.tell(event),
        }
    }

    fn catalog_changed(&self, catalog: Arc<Catalog>, _: Positions) {
        self.script.lock().shown = catalog;
    }

    fn checkpoint_committed(&self, _: &Arc<Manifest>, _: Duration) {}

    fn job_progress(&self, relation: RelationId, state: &'static str, _: f64, _: Epoch) {
        self.script.lock().states.insert(relation, state);
    }
}

/// A coordinator on a bed.
pub struct Bed {
    /// It.
    pub coordinator: Coordinator,
    /// Its log.
    pub log: MemoryLog,
    /// Pins and epochs.
    pub readers: Arc<Readers>,
    /// Its workers' behaviour.
    pub script: Arc<Mutex<Script>>,
    inputs: Inputs,
    workers: FakeWorkers,
    /// Requests so far.
    asked: u64,
}

impl Bed {
    /// A new database.
    pub fn new(workers: usize) -> Bed {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let (events, _) = Events::new(0);
        let workers = FakeWorkers {
            count: workers,
            events,
            script: Arc::default(),
            store: CheckpointStore::open("memory:").expect("a store in memory"),
            runtime: Arc::new(runtime),
        };
        Bed::open(MemoryLog::default(), workers, |_, _| {}).expect("an empty log opens")
    }

    fn open(
        log: MemoryLog,
        before: FakeWorkers,
        prepare: impl FnOnce(&mut Recovered, &mut Script),
    ) -> Result<Bed> {
        let (events, inputs) = Events::new(0);
        let workers = FakeWorkers {
            events,
            script: Arc::default(),
            ..before
        };
        let mut recovered = workers
            .runtime
            .block_on(Recovered::read(log.entries(), &workers.store))?;
        prepare(&mut recovered, &mut workers.script.lock());
        let readers = Readers::new();
        let pace = Pace {
            epoch: Duration::ZERO,
            checkpoint: Duration::from_secs(86_400),
            snapshot_age_max: None,
        };
        let mut coordinator = Coordinator::recover(
            Box::new(log.clone()),
            recovered,
            readers.clone(),
            Box::new(workers.clone()),
            pace,
        )?;
        while !coordinator.is_open() {
            coordinator.step(std::iter::from_fn(|| inputs.try_recv().ok()))?;
        }
        let mut bed = Bed {
            coordinator,
            log,
            readers,
            script: workers.script.clone(),
            inputs,
            workers,
            asked: 0,
        };
        bed.run();
        Ok(bed)
    }

    /// Dies and starts again.
    pub fn restart(self) -> Bed {
        self.restart_with(|_, _| {}).expect("it starts again")
    }

    /// Dies and starts again, with something changed before jobs are started.
    pub fn restart_with(self, prepare: impl FnOnce(&mut Recovered, &mut Script)) -> Result<Bed> {
        let (log, workers) = (self.log.clone(), self.workers.clone());
        drop(self);
        Bed::open(log, workers, prepare)
    }

    /// Takes in so many inputs, one by one, and does what is due after each; true if nothing is
    /// left to do.
    pub fn step(&mut self, inputs: usize) -> bool {
        for _ in 0..inputs {
            let input = self.inputs.try_recv().ok();
            let quiet = input.is_none();
            if let Some(input) = input {
                self.coordinator.take(input).expect("the log takes it");
            }
            self.coordinator.advance().expect("the log takes it");
            let wanted = self.coordinator.active || self.coordinator.urgent;
            if quiet && wanted && self.coordinator.next_deadline().is_some() {
                self.coordinator.send_barrier().expect("the log takes it");
            } else if quiet {
                return true;
            }
        }
        false
    }

    /// Runs until nothing is due.
    pub fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            let mut quiet = true;
            while let Ok(input) = self.inputs.try_recv() {
                self.coordinator.take(input).expect("the log takes it");
                quiet = false;
            }
            self.coordinator.advance().expect("the log takes it");
            let wanted = self.coordinator.active || self.coordinator.urgent;
            if wanted && self.coordinator.next_deadline().is_some() {
                self.coordinator.send_barrier().expect("the log takes it");
            } else if quiet {
                return;
            }
        }
        panic!("the coordinator does not come to rest");
    }

    /// Something happened on a worker.
    pub fn event(&mut self, event: Event) {
        self.coordinator.handle(event).expect("the log takes it");
        self.run();
    }

    /// A session asks; what came of it is found under the number.
    pub fn request(&mut self, request: Request) -> RequestId {
        self.asked += 1;
        let number = RequestId(self.asked);
        let input = Input::Request(number, request);
        self.coordinator.take(input).expect("the log takes it");
        number
    }

    /// What came of a request so far; told once.
    pub fn answer(&self, request: RequestId) -> Option<Answer> {
        self.script.lock().answers.remove(&request)
    }

    /// A session asks; its answer, if there is one when everything is at rest.
    pub fn ask(&mut self, request: Request) -> Option<Answer> {
        let number = self.request(request);
        self.run();
        self.answer(number)
    }

    /// Creates a relation that begins at `start`.
    pub fn create_at(&mut self, relation: &Relation, start: Vec<SplitPosition>) -> Option<Answer> {
        self.ask(Request::Create {
            relation: Box::new(relation.clone()),
            start,
            targets: Positions::new(),
            begins: Positions::new(),
            replaces: None,
            dependants: BTreeMap::new(),
            rows: Vec::new(),
        })
    }

    /// Creates a relation.
    pub fn create(&mut self, relation: &Relation) {
        let answer = self.create_at(relation, Vec::new());
        answer.expect("an answer").expect("it is created");
    }

    /// Writes so many rows.
    pub fn write(&mut self, table: RelationId, rows: usize) -> Option<Result<Epoch>> {
        self.write_after(&[table], rows, &[]).1
    }

    /// Writes so many rows to each of these tables, after others that were not decided yet.
    pub fn write_after(
        &mut self,
        tables: &[RelationId],
        rows: usize,
        after: &[&Fate],
    ) -> (Fate, Option<Result<Epoch>>) {
        let fate = Fate::default();
        let answer = self.ask(Request::Write {
            writes: tables.iter().map(|table| rows_of(*table, rows)).collect(),
            after: after.iter().map(|fate| (*fate).clone()).collect(),
            fate: fate.clone(),
            marker: None,
        });
        (fate, answer)
    }

    /// Takes a checkpoint.
    pub fn flush(&mut self) -> Option<Answer> {
        self.ask(Request::Flush)
    }

    /// The jobs that run.
    pub fn running(&self) -> BTreeSet<RelationId> {
        self.coordinator.running.iter().copied().collect()
    }
}

/// So many rows for a table.
pub fn rows_of(table: RelationId, rows: usize) -> TableWrites {
    let column = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let batch = RecordBatch::try_from_iter([("v", column as _)]).expect("one column");
    TableWrites::held(table, ChangeBatch::insert(batch))
}

/// A position of split 0.
pub fn at(next_offset: i64) -> SplitPosition {
    SplitPosition {
        split: 0,
        topic_id: "t".into(),
        leader_epoch: -1,
        newest_epoch: -1,
        next_offset,
        records: next_offset.unsigned_abs(),
        time_ms: -1,
        event_time_micros: None,
    }
}

fn relation(id: u32, name: &str, kind: RelationKind, ops: Vec<Op>) -> Relation {
    let column = Column {
        name: "v".into(),
        data_type: DataType::Int64,
        nullable: true,
        default: None,
        sql_type: String::new(),
    };
    let mut relation = Relation {
        id: RelationId(id),
        schema_name: "public".into(),
        name: name.into(),
        kind,
        columns: vec![column],
        key: Vec::new(),
        key_declared: false,
        append_only: false,
        watermark: None,
        connector: None,
        logs_rows: None,
        generated: Vec::new(),
        conflict: Conflict::Overwrite,
        on_error: OnError::Log,
        snapshot: true,
        definition: String::new(),
        query: String::new(),
        named: Vec::new(),
        depends_on: Vec::new(),
        owner: "root".into(),
        comment: None,
        job: None,
        created_at: None,
        altered: Default::default(),
        unreadable: None,
    };
    let mut root: Option<Node> = None;
    for op in ops {
        root = Some(Node {
            op,
            inputs: root.into_iter().collect(),
            schema: relation.arrow_schema(),
            properties: Properties::default(),
        });
    }
    relation.job = root.map(|root| JobPlan {
        relation: relation.id,
        fragments: vec![Fragment {
            id: 0,
            root,
            output: Output::Relation,
        }],
        tables: 1,
        watermarks: Vec::new(),
    });
    relation
}

fn kept() -> Op {
    Op::Materialize {
        key: None,
        append_only: false,
        table: 0,
    }
}

fn read() -> Op {
    Op::SourceRead {
        columns: vec![0],
        watermark: None,
        versioned: false,
    }
}

fn connector() -> ConnectorSpec {
    ConnectorSpec {
        connector: "kafka".into(),
        options: BTreeMap::new(),
        format: Format::Plain,
        encode: Encode::Json,
        encode_options: BTreeMap::new(),
        includes: Vec::new(),
        hidden: Default::default(),
        key: Vec::new(),
    }
}

/// A table that is written by DML.
pub fn table(id: u32, name: &str) -> Relation {
    relation(id, name, RelationKind::Table, vec![Op::TableRead, kept()])
}

/// A source of which no rows are kept.
pub fn source(id: u32, name: &str) -> Relation {
    Relation {
        connector: Some(connector()),
        append_only: true,
        ..relation(id, name, RelationKind::Source, vec![read()])
    }
}

/// A table that its connector writes.
pub fn connector_table(id: u32, name: &str) -> Relation {
    Relation {
        connector: Some(connector()),
        ..relation(id, name, RelationKind::Table, vec![read(), kept()])
    }
}

/// A view over a relation.
pub fn view(id: u32, name: &str, over: &Relation) -> Relation {
    let tap = Op::Tap {
        relation: over.id,
        columns: vec![0],
    };
    Relation {
        depends_on: vec![over.id],
        ..relation(id, name, RelationKind::MaterializedView, vec![tap, kept()])
    }
}

/// A sink of a relation.
pub fn sink(id: u32, name: &str, of: &Relation) -> Relation {
    let tap = Op::Tap {
        relation: of.id,
        columns: vec![0],
    };
    let send = Op::Sink {
        key: Vec::new(),
        table: 0,
    };
    Relation {
        connector: Some(connector()),
        depends_on: vec![of.id],
        ..relation(id, name, RelationKind::Sink, vec![tap, send])
    }
}
