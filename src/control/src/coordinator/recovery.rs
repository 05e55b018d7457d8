//! Opening: from the last committed manifest and the entries after it, to a coordinator whose
//! workers build what was there. What was decided since is then replayed (`replay`).
//!
//! Jobs that a create entry names but no committed checkpoint contains are forgotten: their
//! statement never returned; and so are those that were made beside others and have not taken their
//! places. Everything that was decided is replayed to its cut, also for a job
//! that stopped after the checkpoint: it runs once more up to the epoch where it stopped, and stops
//! there, so that what it answered last and what its sinks have not delivered is there again.

use super::checkpoints::Retained;
use super::epochs::Progress;
use super::halted::{Halt, rows_of};
use super::jobs::{needs_positions, runs_on_demand};
use super::replay::Replay;
use super::rhythm::Rhythm;
use super::{Coordinator, Pace};
use crate::protocol::{Command, LoggedRows, Positions, StartJob, StartMode};
use crate::workers::Workers;
use crate::{CatalogChange, Cut, DecisionLog, Decisions, Entry, Readers};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Epoch, Error, RelationId, Result, machine};
use tidemark_plan::{Relation, Stopped};
use tidemark_state::checkpoint::{CheckpointStore, FileMeta};
use tidemark_state::manifest::Manifest;

/// Epochs that are left out when a log is lost, so that none is used twice: nobody knows how many
/// were decided after the checkpoint, and sinks have told others of them.
const LOST_EPOCHS: u64 = 1 << 32;

/// What the log says.
pub struct Past {
    /// Its entries, with their indexes.
    pub entries: Vec<(u64, Entry)>,
    /// The index that the first of them follows: those before must be in a checkpoint.
    pub follows: u64,
    /// Some of it is lost.
    pub loss: bool,
    /// Whoever starts the node accepts that.
    pub accept_loss: bool,
}

impl From<Vec<(u64, Entry)>> for Past {
    /// A log that is whole, or whose loss was looked at before.
    fn from(entries: Vec<(u64, Entry)>) -> Past {
        Past {
            follows: entries.first().map_or(0, |(index, _)| index - 1),
            entries,
            loss: false,
            accept_loss: true,
        }
    }
}

/// What log and object store say about the past.
pub struct Recovered {
    /// The state after the last entry.
    pub decisions: Decisions,
    /// The last committed checkpoint.
    pub manifest: Option<Manifest>,
    /// The cuts of the epochs that were decided after it, in order.
    pub cuts: VecDeque<Cut>,
    /// There is a checkpoint, and nothing in the log follows it: the log begins anew.
    pub log_is_lost: bool,
    /// The incarnation that begins now: above every earlier one of log and store.
    pub generation: u64,
    /// What was decided after the entries that are there is lost, and that is accepted.
    pub loss: bool,
    /// What the log says of its last checkpoint is lost: it is told again.
    pub tells_checkpoint: bool,
    /// Jobs that stopped after that checkpoint.
    pub stops: BTreeMap<RelationId, LoggedStop>,
    /// Jobs that cannot run because what is stored of them cannot be read, and why.
    pub set_aside: BTreeMap<RelationId, String>,
    /// Jobs that are not started yet; set by who knows.
    pub suspects: Vec<Suspect>,
}

/// That a job stopped, as the log has it.
#[derive(Clone, Debug)]
pub struct LoggedStop {
    /// Where and why.
    pub stopped: Stopped,
    /// Where all sources stood when that was logged.
    pub positions: Positions,
    /// The checkpoint contains the job as it ran: it is replayed up to where it stopped.
    pub replayed: bool,
}

/// A job in which recovery ended the process several times without getting further.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// The job.
    pub relation: RelationId,
    /// How often.
    pub deaths: u32,
    /// It is tried again after this time, when all others run.
    pub pause: Duration,
}

impl Recovered {
    /// Reads the manifest that the log names and applies the entries after it. Where a loss is
    /// accepted, the newest manifest counts that the store has.
    pub async fn read(past: impl Into<Past>, store: &CheckpointStore) -> Result<Recovered> {
        let past: Past = past.into();
        let mut entries = past.entries;
        let committed = entries.iter().rev().find_map(|(_, e)| {
            if let Entry::Checkpoint { manifest, .. } = e {
                Some(manifest.clone())
            } else {
                None
            }
        });
        // Without a commit entry in a log that has others, no checkpoint was ever committed: a
        // manifest that lies there counts for nothing.
        let newest = if entries.is_empty() || past.loss {
            store.newest_manifest().await?
        } else {
            None
        };
        if let Some(manifest) = newest.as_ref().filter(|_| !past.accept_loss) {
            return Err(log_is_lost(manifest));
        }
        let tells_checkpoint = newest.is_some();
        let manifest = match newest.or(committed) {
            Some(path) => Some(store.read_manifest(&path).await?),
            None => None,
        };
        let contained = manifest.as_ref().map_or(0, |m| m.log_index);
        let last = entries.last().map_or(0, |(index, _)| *index);
        if past.follows > contained || last <= contained {
            if !tells_checkpoint && past.follows > contained {
                return Err(missing_entries(contained, past.follows, manifest.as_ref()));
            }
            entries.clear();
        }
        let log_is_lost = entries.is_empty() && tells_checkpoint;
        if tells_checkpoint {
            tracing::warn!(
                checkpoint = %manifest.as_ref().map_or(Epoch(0), |m| m.epoch),
                entries = entries.len(),
                "a part of the log is lost: going on from the newest checkpoint and the entries \
                 that follow it; what was decided after them is lost, rows written to tables \
                 among it"
            );
        }
        let mut decisions = Decisions::default();
        if let Some(m) = &manifest {
            decisions = Decisions {
                index: m.log_index,
                generation: m.generation,
                catalog: m.catalog.clone(),
                starts: m.starts.clone(),
                decided: m.epoch,
                clock: m.clock,
                positions: m.sources.clone(),
                floors: Arc::new(m.floors.clone()),
                markers: m.markers.clone(),
                checkpoint: Some((m.epoch, m.path())),
            };
        }
        let (mut cuts, mut forgotten) = (VecDeque::new(), Vec::new());
        let mut stops = BTreeMap::new();
        let contained = decisions.index;
        for (index, entry) in entries.into_iter().filter(|(index, _)| *index > contained) {
            match &entry {
                Entry::Create { relation, .. } => forgotten.extend(unfinished(relation)),
                Entry::Changes(changes) => {
                    forgotten.extend(changes.iter().filter_map(|c| match c {
                        CatalogChange::Create { relation, .. } => unfinished(relation),
                        _ => None,
                    }))
                }
                Entry::Cut(cut) => cuts.push_back(cut.clone()),
                Entry::Stop { relation, stopped } => {
                    let stop = LoggedStop {
                        stopped: stopped.clone(),
                        positions: decisions.positions.clone(),
                        replayed: false,
                    };
                    stops.insert(*relation, stop);
                }
                // No committed checkpoint contains the job: it is halted as before.
                Entry::Resume { .. } => {
                    decisions.index = index;
                    continue;
                }
                _ => {}
            }
            decisions.apply(index, &entry);
        }
        // What was made beside others and has not taken their places.
        forgotten.extend(decisions.catalog.beside.keys());
        for id in forgotten {
            tracing::warn!(relation = %id, "a creation that was not finished is undone");
            decisions.forget(id);
        }
        // The manifest counts; where the log that said so is lost, what it replaces is gone as
        // well.
        if let Some(m) = &manifest {
            decisions.replace_contained(m.epoch);
        }
        // What this build cannot read is held back; everything else goes on.
        let mut set_aside = decisions.catalog.unreadable();
        set_aside.retain(|id, reason| {
            let relation = &decisions.catalog.relations[id];
            let counts = relation.job.is_some() || relation.unreadable.is_some();
            if counts {
                tracing::error!(relation = %id, %reason, "a relation is set aside");
            }
            counts
        });
        let mut recovered = Recovered {
            generation: decisions.generation + 1,
            decisions,
            manifest,
            cuts,
            log_is_lost,
            loss: tells_checkpoint || past.loss,
            tells_checkpoint,
            stops,
            set_aside,
            suspects: Vec::new(),
        };
        recovered.replay_stops();
        // A source on demand that nobody reads any more begins anew with its next reader.
        let running = recovered.running();
        recovered
            .decisions
            .positions
            .retain(|id, _| running.contains(id));
        Ok(recovered)
    }

    /// Jobs that ran at the checkpoint and stopped after it do not count as stopped before the
    /// replay comes to where they did.
    fn replay_stops(&mut self) {
        let Some(manifest) = &self.manifest else {
            return;
        };
        let catalog = &mut self.decisions.catalog;
        for (id, stop) in &mut self.stops {
            let ran = manifest.catalog.relations.contains_key(id)
                && !manifest.catalog.stopped.contains_key(id)
                && !manifest.halted.contains_key(id);
            if ran && catalog.relations.contains_key(id) && !self.set_aside.contains_key(id) {
                stop.replayed = catalog.stopped.remove(id).is_some();
            }
        }
    }

    /// The jobs that run: all that are not halted, and the sources on demand that one of them taps.
    pub fn running(&self) -> Vec<RelationId> {
        let catalog = &self.decisions.catalog;
        let halted = |id: &RelationId| {
            let manifest = self.manifest.as_ref();
            catalog.stopped.contains_key(id)
                || manifest.is_some_and(|m| m.halted.contains_key(id))
                || self.set_aside.contains_key(id)
        };
        let always: BTreeSet<RelationId> = catalog
            .relations
            .values()
            .filter(|r| r.job.is_some() && !runs_on_demand(r) && !halted(&r.id))
            .map(|r| r.id)
            .collect();
        let taps = always
            .iter()
            .flat_map(|id| catalog.relations[id].job.iter().flat_map(|j| j.taps()))
            .map(|(id, _)| id);
        let tapped: BTreeSet<RelationId> = taps
            .filter(|id| catalog.relations.get(id).is_some_and(|r| runs_on_demand(r)))
            .filter(|id| !self.set_aside.contains_key(id))
            .collect();
        always.union(&tapped).copied().collect()
    }
}

fn log_is_lost(manifest: &str) -> Error {
    Error::corrupt(format!(
        "the log is empty, but there is a checkpoint {manifest}: what was decided after it is lost"
    ))
    .with_hint(
        "Put the log back, both the folder log and the file log.synced. If it is gone for good, \
         start once with --recover-from-checkpoint to go on from the checkpoint.",
    )
}

fn missing_entries(contained: u64, follows: u64, manifest: Option<&Manifest>) -> Error {
    let checkpoint = manifest.map_or_else(
        || "from its beginning on".to_string(),
        |m| format!("after checkpoint {}", m.epoch),
    );
    Error::corrupt(format!(
        "log: entries {} to {follows} are missing {checkpoint}: they stood in files before \
         {follows:020}.log",
        contained + 1
    ))
    .with_hint(
        "Put the files back. If they are gone for good, start once with \
         --recover-from-checkpoint to go on from the newest checkpoint.",
    )
}

/// The relation, if it counts only once a checkpoint contains it.
fn unfinished(relation: &Relation) -> Option<RelationId> {
    relation.created_at.map(|_| relation.id)
}

impl Coordinator {
    /// Starts all jobs with the state of the last checkpoint. What was decided after it is replayed
    /// step by step ([`Coordinator::is_open`]).
    pub fn recover(
        log: Box<dyn DecisionLog>,
        recovered: Recovered,
        readers: Arc<Readers>,
        workers: Box<dyn Workers>,
        pace: Pace,
    ) -> Result<Coordinator> {
        let running = recovered.running();
        let manifest = recovered.manifest.map(Arc::new);
        let mut retained = Retained {
            manifest: manifest.clone(),
            ..Retained::default()
        };
        for file in manifest
            .iter()
            .flat_map(|m| m.tables.values().flatten())
            .filter(|f| {
                recovered
                    .decisions
                    .catalog
                    .relations
                    .contains_key(&f.table.relation)
            })
        {
            retained
                .tables
                .entry(file.table)
                .or_default()
                .push(file.clone());
        }
        let restored_epoch = manifest.as_ref().map_or(Epoch(0), |m| m.epoch);
        let decided = recovered.decisions.decided;
        let workers_count = workers.count();
        let skipped = if recovered.loss { LOST_EPOCHS } else { 0 };
        let relations = recovered.decisions.catalog.relations.clone();
        let progress = |id: &RelationId| {
            let progress = Progress::after(restored_epoch, workers_count, relations.get(id));
            (*id, progress)
        };
        let progress = running.iter().map(progress).collect();
        let mut coordinator = Coordinator {
            log,
            next_epoch: Epoch(decided.0 + skipped).next(),
            decisions: recovered.decisions,
            readers,
            workers,
            pace,
            last_barrier: machine::now(),
            rhythm: Rhythm::default(),
            timed: Epoch(0),
            in_flight: VecDeque::new(),
            active: true,
            urgent: false,
            reading: false,
            shared: false,
            pending_writes: Vec::new(),
            creating: BTreeMap::new(),
            progress,
            moved: false,
            unread: Default::default(),
            promised: Default::default(),
            idle: BTreeMap::new(),
            running,
            halted: BTreeMap::new(),
            ending: BTreeMap::new(),
            altering: BTreeMap::new(),
            successions: BTreeMap::new(),
            going_on: Vec::new(),
            answers: BTreeSet::new(),
            waiting: Vec::new(),
            checkpoint: None,
            retained,
            flushes: Vec::new(),
            shutdown: None,
            shutdown_epoch: None,
            opening: None,
        };
        let mut opening = vec![Entry::Opened {
            generation: recovered.generation,
        }];
        if recovered.log_is_lost {
            coordinator.log.begin_behind(coordinator.decisions.index)?;
        }
        if recovered.tells_checkpoint {
            let checkpoint = coordinator.decisions.checkpoint.clone();
            let contains = manifest.as_ref().map_or(0, |m| m.log_index);
            opening.extend(checkpoint.map(|(epoch, manifest)| Entry::Checkpoint {
                epoch,
                manifest,
                contains,
            }));
        }
        coordinator.record(&opening)?;
        coordinator.log.loss_is_told()?;
        coordinator.restore_halted(
            manifest.as_deref(),
            &recovered.cuts,
            &recovered.stops,
            &recovered.set_aside,
        );
        let mut stops = recovered.stops;
        stops.retain(|_, stop| stop.replayed);
        for Suspect {
            relation,
            deaths,
            pause,
        } in recovered.suspects
        {
            let error = Error::internal(format!(
                "the process ended {deaths} times while it restored or replayed this job, each \
                 time at the same place"
            ))
            .with_hint(format!(
                "It is tried again in {} s. It may need more memory than there is.",
                pause.as_secs()
            ));
            coordinator.hold_back(relation, &error, Some(machine::now() + pause))?;
        }
        coordinator
            .readers
            .note_markers(&coordinator.decisions.markers);
        coordinator
            .readers
            .set_floors(coordinator.decisions.floors.clone());
        coordinator.keep_stopped_sinks(manifest.as_deref());
        coordinator.start_restored(manifest.as_deref(), restored_epoch, &stops);
        coordinator.workers.broadcast(Command::Settle);
        let replay = Replay::new(&coordinator, recovered.cuts, stops, manifest.as_deref());
        coordinator.opening = Some(replay);
        Ok(coordinator)
    }

    /// Sinks whose jobs did not run at the last checkpoint go on delivering what it has of them.
    fn keep_stopped_sinks(&self, manifest: Option<&Manifest>) {
        let Some(manifest) = manifest else { return };
        let kept = manifest.sinks.iter().filter_map(|(id, progress)| {
            let relation = self.decisions.catalog.relations.get(id)?;
            (self.halted.contains_key(id) && !self.running.contains(id))
                .then(|| (relation.clone(), progress.clone()))
        });
        self.workers.keep_sinks(manifest.epoch, kept.collect());
    }

    /// Takes up the jobs that were halted at the last checkpoint, or stopped after it. What was
    /// held back is tried again as soon as the others run.
    fn restore_halted(
        &mut self,
        manifest: Option<&Manifest>,
        cuts: &VecDeque<Cut>,
        stops: &BTreeMap<RelationId, LoggedStop>,
        set_aside: &BTreeMap<RelationId, String>,
    ) {
        let held = manifest.iter().flat_map(|m| m.halted.keys()).copied();
        let stopped = self.decisions.catalog.stopped.keys().copied();
        let all: BTreeSet<RelationId> = held
            .chain(stopped)
            .chain(set_aside.keys().copied())
            .filter(|id| self.decisions.catalog.relations.contains_key(id))
            .collect();
        for id in all {
            let epoch = manifest.and_then(|m| m.job_epochs.get(&id).copied());
            let epoch = epoch.unwrap_or_default();
            let logged = self.decisions.catalog.stopped.get(&id).cloned();
            let is_logged = logged.is_some();
            let mut stopped = logged.unwrap_or_else(|| Stopped {
                epoch,
                reason: set_aside.get(&id).cloned().unwrap_or_else(|| {
                    "it was held back when the process ended, and is being tried again".into()
                }),
                since: machine::micros(),
                held: true,
            });
            let saved = manifest.and_then(|m| m.halted.get(&id)).cloned();
            let known = saved.is_some();
            // What can be read of it now. A sink has told what it has up to where it stopped.
            let answer = saved.as_ref().and_then(|s| s.answer.as_ref());
            let tells = manifest.and_then(|m| m.sinks.get(&id)?.through);
            stopped.epoch = answer.map(|a| a.epoch).or(tells).unwrap_or(epoch);
            let halt = Halt {
                saved: saved.unwrap_or_default(),
                rows: cuts.iter().flat_map(|cut| rows_of(cut, id)).collect(),
                retry: (!is_logged && !set_aside.contains_key(&id)).then(machine::now),
                stopped,
            };
            self.halted.insert(id, halt);
            if !known {
                let reached = stops.get(&id).map(|stop| stop.positions.clone());
                self.stands_at_checkpoint(id, &reached.unwrap_or_default());
                self.keep_answers(id, epoch);
            }
        }
    }

    fn start_restored(
        &mut self,
        manifest: Option<&Manifest>,
        epoch: Epoch,
        stops: &BTreeMap<RelationId, LoggedStop>,
    ) {
        let relations: Vec<Arc<Relation>> = self
            .running
            .iter()
            .map(|id| self.decisions.catalog.relations[id].clone())
            .collect();
        self.show_halted();
        for relation in relations {
            let id = relation.id;
            let started = |m: &Manifest| m.sources.get(&id).cloned();
            // A source on demand that was first read after the checkpoint begins at its start.
            let positions = if needs_positions(&relation) {
                manifest
                    .and_then(started)
                    .or_else(|| self.decisions.starts.get(&id).cloned())
                    .unwrap_or_default()
            } else {
                Vec::new()
            };
            // The rows since the checkpoint that the log keeps are not read again: the connector
            // goes on after them.
            let stops = stops.get(&id).and_then(|stop| stop.positions.get(&id));
            let stands = stops.or(self.decisions.positions.get(&id)).cloned();
            let logged = relation
                .logs_rows
                .zip(stands)
                .filter(|(after, _)| *after < self.decisions.decided)
                .map(|(after, end)| LoggedRows { after, end });
            let (positions, logged) = match logged {
                Some(logged) if logged.after <= epoch => (logged.end, None),
                logged => (positions, logged),
            };
            let job = StartJob {
                mode: StartMode::Restored(epoch),
                positions,
                starts: self.decisions.starts.get(&id).cloned().unwrap_or_default(),
                floors: self.decisions.floors_of(id),
                logged,
                tables: self.files_of(id),
                sink: manifest.and_then(|m| m.sinks.get(&id).cloned()),
                ..StartJob::of(relation)
            };
            self.workers.job_progress(id, "running", 100.0, epoch);
            self.workers.broadcast(Command::Start(Arc::new(job)));
        }
    }

    /// The files of a job's state tables, by table.
    fn files_of(&self, id: RelationId) -> BTreeMap<u32, Vec<FileMeta>> {
        let tables = self.retained.tables.iter();
        tables
            .filter(|(t, _)| t.relation == id)
            .map(|(t, files)| (t.table, files.clone()))
            .collect()
    }

    /// The epoch whose rows were the last that the log does not keep may not have been decided: its
    /// number is given again, and from there on rows are kept.
    pub(super) fn log_rows_from_now_on(&mut self) -> Result<()> {
        let decided = self.decisions.decided;
        let relations = self.decisions.catalog.relations.values();
        let early = relations.filter(|r| r.logs_rows.is_some_and(|after| after > decided));
        let entries: Vec<Entry> = early
            .map(|r| Entry::LogRows {
                relation: r.id,
                after: decided,
            })
            .collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.record(&entries)
    }

    /// Has what people read of halted jobs restored, as far as that is possible.
    fn show_halted(&self) {
        for (id, halt) in &self.halted {
            let state = if halt.stopped.held {
                "held back"
            } else {
                "stopped"
            };
            self.workers
                .job_progress(*id, state, 100.0, halt.stopped.epoch);
            let relation = &self.decisions.catalog.relations[id];
            if !relation.is_materialized() || halt.stopped.epoch == Epoch(0) {
                continue;
            }
            let tables = match &halt.saved.answer {
                Some(answer) => {
                    let mut tables = BTreeMap::<u32, Vec<FileMeta>>::new();
                    for file in &answer.files {
                        let files = tables.entry(file.table.table).or_default();
                        files.push(file.clone());
                    }
                    tables
                }
                None => self.files_of(*id),
            };
            let job = StartJob {
                mode: StartMode::Shown(halt.stopped.epoch),
                tables,
                ..StartJob::of(relation.clone())
            };
            self.workers.broadcast(Command::Start(Arc::new(job)));
        }
    }

    /// These jobs have run up to where they stopped.
    pub(super) fn stop_as_logged(&mut self, stops: BTreeMap<RelationId, LoggedStop>) -> Result<()> {
        let mut sinks = Vec::new();
        let mut stopping = Vec::new();
        for (
            id,
            LoggedStop {
                stopped, positions, ..
            },
        ) in stops
        {
            let catalog = &mut self.decisions.catalog;
            if !catalog.relations.contains_key(&id) || catalog.stopped.contains_key(&id) {
                // It failed before, this time.
                continue;
            }
            catalog.stopped.insert(id, stopped.clone());
            if let Some(halt) = self.halted.get_mut(&id) {
                // It could not be restored: it answers as of the checkpoint.
                let epoch = halt.stopped.epoch;
                halt.stopped = Stopped { epoch, ..stopped };
                halt.retry = None;
                continue;
            }
            self.workers
                .job_progress(id, "stopped", 100.0, stopped.epoch);
            if self.is_sink(id) {
                sinks.push((id, stopped.epoch));
            }
            self.halt(vec![(id, stopped)], &positions, None)?;
            stopping.push(id);
        }
        if stopping.is_empty() {
            return Ok(());
        }
        self.show_catalog();
        self.workers.end_sinks(&sinks);
        self.stop_jobs(&stopping, true);
        Ok(())
    }

    /// Splits that were added after the last cut are in no position yet; readers ignore those that
    /// they have.
    pub(super) fn read_all_splits(&self) {
        for (relation, start) in self
            .decisions
            .starts
            .iter()
            .filter(|(id, _)| self.running.contains(id))
        {
            self.workers.broadcast(Command::AddSplits {
                relation: *relation,
                start: Arc::new(start.clone()),
            });
        }
    }
}
