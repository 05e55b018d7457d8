//! Sinks: one queue and one delivering thread each.
//!
//! Workers put each epoch's consolidated changes into the queue as they close it; the thread sends
//! what the sink's job has completed, in order, together with the marker. What is not delivered at
//! a checkpoint is stored with it (the sink's own log). After a restart the queue is filled from
//! that log and by replay, and the marker that the writer reads back tells what was delivered. What
//! leaves when, and in which pieces, is decided in `queue`; the form of the log is in `log`. A sink
//! that cannot deliver tries again and holds up nobody, as long as checkpoints can store what it
//! has not delivered; who waits when they cannot is told in [`crate::full`].
//!
//! A sink whose job stops stays: it delivers what was decided and complete when the job stopped, is
//! a part of every checkpoint, and keeps its identity. Only DROP SINK ends it at once. An error of
//! the delivery itself (a refused record that may not be left out, a marker that somebody changed)
//! does not touch the job: its changes go to the log, until delivery is resumed.

mod log;
mod queue;
mod queues;
mod table;
#[cfg(test)]
mod tests;

use log::LogPart;
use parking_lot::Mutex;
use queue::{Limits, Next, Queue, ToSeal, Weight};
pub use queues::{SinkQueues, Surroundings};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use table::TableSink;
pub(crate) use table::rows_that;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{Refusal, SinkWriter};
use tidemark_common::{Backoff, Epoch, Error, ErrorKind, Result, Signal, TableId, machine};
use tidemark_control::protocol::Request;
use tidemark_operator::build::SinkOutput;
use tidemark_plan::{Op, Relation};
use tidemark_state::checkpoint::{CheckpointStore, FileMeta, WrittenBy, encode_delta};
use tidemark_state::errors::ErrorRow;
use tidemark_state::manifest::SinkProgress;
use tidemark_worker::catch;

/// What is said of a sink of which too much waits in memory.
const FULL: &str = "too many changes wait for delivery, and no checkpoint has taken them: what \
                    feeds the sink waits";

fn is_full() -> String {
    FULL.to_string()
}

/// The code of a record that the receiver refuses.
const REFUSED: &str = "22000";

/// How the delivery of a sink goes.
#[derive(Default)]
pub struct SinkStatus {
    /// Epochs that wait.
    pub undelivered_epochs: u64,
    /// Why they cannot be delivered.
    pub error: Option<String>,
    /// It is not tried again before somebody asks for it.
    pub is_halted: bool,
}

/// What one sink has emitted and not delivered, and the thread that delivers it.
pub struct SinkQueue {
    relation: Arc<Relation>,
    around: Arc<Surroundings>,
    table: TableId,
    state: Mutex<State>,
    changed: Signal,
}

struct State {
    queue: Queue,
    released: bool,
    /// The first epoch that waits for the sink; what was emitted before is the snapshot.
    counts_from: Option<Epoch>,
    closed: bool,
    /// A thread delivers.
    delivers: bool,
    /// Somebody asked for delivery to go on since the thread last began to do something.
    resumed: bool,
    /// What feeds it waits.
    is_full: bool,
    /// A checkpoint is asked for.
    asked: bool,
    error: Option<String>,
}

/// How a step of the delivering thread went.
enum Step {
    /// The writer is ready; whether it can deliver is not known yet.
    TookOver,
    /// Well.
    Went,
    /// What is next cannot be read from the log now.
    Unread(Error),
    /// The sink is closed.
    Closed,
}

impl State {
    /// Delivery is to be tried now, whatever went before.
    fn go_on(&mut self) {
        self.resumed = true;
        if !self.delivers {
            self.error = None;
        }
    }

    /// Nothing that happens by itself mends the error: nothing is delivered until somebody says
    /// RESUME, or the next start. What comes meanwhile is kept in the log. False if somebody has
    /// said so while the error came about: whoever was told that delivery goes on is right.
    fn halt(&mut self, reason: &str) -> bool {
        self.error = Some(reason.to_string());
        self.delivers = std::mem::take(&mut self.resumed);
        !self.delivers
    }
}

/// Tells the error and waits so long. The epochs that get complete meanwhile, many a second, are
/// no reason to try again earlier; RESUME is.
fn pause(state: &Mutex<State>, changed: &Signal, error: &Error, time: Duration) {
    let until = machine::now() + time;
    let mut state = state.lock();
    state.error = Some(error.to_string());
    while !state.closed && !state.resumed && machine::now() < until {
        changed.wait_until(&mut state, Some(until));
    }
}

impl SinkQueue {
    fn new(
        around: &Arc<Surroundings>,
        relation: &Arc<Relation>,
        progress: Option<(&SinkProgress, Epoch)>,
    ) -> Result<SinkQueue> {
        let nodes = relation.job.iter().flat_map(|j| &j.fragments);
        let mut nodes = nodes.flat_map(tidemark_plan::Fragment::nodes);
        let table = nodes.find_map(|n| match n.op {
            Op::Sink { table, .. } => Some(table),
            _ => None,
        });
        let table = TableId {
            relation: relation.id,
            table: table.ok_or_else(|| Error::internal("a sink without sink operator"))?,
        };
        let queue = match progress {
            Some((progress, epoch)) => Queue::restored(Limits::DEFAULT, progress, epoch),
            None => {
                let connector = relation.connector.as_ref();
                let has_marker = connector.is_some_and(tidemark_connector::sink_has_marker);
                Queue::new(Limits::DEFAULT, has_marker)
            }
        };
        let made = SinkQueue {
            relation: relation.clone(),
            around: around.clone(),
            table,
            state: Mutex::new(State {
                queue,
                released: false,
                // One that existed before has sent its snapshot, if it was to.
                counts_from: progress.map(|(_, epoch)| epoch),
                closed: false,
                delivers: false,
                resumed: false,
                is_full: false,
                asked: false,
                error: None,
            }),
            changed: Signal::default(),
        };
        for file in progress.iter().flat_map(|(progress, _)| &progress.log) {
            // A store that is away at the start is waited for.
            let parts = made.read_log(&around.storing.store.patient(), file)?;
            made.state.lock().queue.load(file.clone(), parts);
        }
        Ok(made)
    }

    /// What the sink operator of one worker calls at each barrier.
    pub fn output(self: &Arc<Self>) -> SinkOutput {
        let queue = self.clone();
        let figures = self.around.figures.of(self.relation.id);
        // Nothing reads a blackhole: what it would be sent is counted, not kept.
        let discards = self
            .relation
            .connector
            .as_ref()
            .is_some_and(|c| c.connector == "blackhole");
        let wants_snapshot = self.relation.snapshot;
        Box::new(move |epoch, changes, hash| {
            let counts = |from: Option<Epoch>| from.is_some_and(|from| epoch >= from);
            if !wants_snapshot && !counts(queue.state.lock().counts_from) {
                return;
            }
            let rows: usize = changes.iter().map(ChangeBatch::num_rows).sum();
            figures.rows.fetch_add(rows as u64, Ordering::Relaxed);
            if rows == 0 || discards {
                return;
            }
            let bytes = changes.iter().map(ChangeBatch::bytes).sum();
            let mut state = queue.state.lock();
            state.queue.emit(epoch, changes, bytes, hash);
            queue.weigh(&mut state);
        })
    }

    /// The sink exists from this epoch on: with `snapshot = 'false'`, what it emitted to catch up
    /// with its inputs is not sent.
    pub fn count_from(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.counts_from = state.counts_from.or(Some(epoch));
        state.queue.count_from(epoch);
    }

    /// What its resumed job emits up to this epoch its receiver knows.
    pub fn cover(&self, epoch: Epoch) {
        self.state.lock().queue.cover(epoch);
    }

    /// The sink's creation is committed, or its job, which runs again, has caught up: deliver. Also
    /// when delivery had ended by an error.
    pub fn release(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            state.released = true;
            state.queue.release();
            self.weigh(&mut state);
            state.go_on();
            self.changed.notify_all();
        }
        if let Err(error) = self.deliver_in_thread() {
            tracing::error!(sink = %self.relation.name, %error, "delivery does not begin");
            self.state.lock().error = Some(error.to_string());
        }
    }

    /// Its job stopped, complete up to `epoch`: deliver up to there, and wait.
    pub fn end_at(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.released = true;
        state.queue.end_at(epoch);
        self.weigh(&mut state);
        self.changed.notify_all();
    }

    fn resume(self: &Arc<Self>) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.queue.resume();
            self.weigh(&mut state);
            state.go_on();
            self.changed.notify_all();
        }
        self.deliver_in_thread()
    }

    /// Deliver nothing any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.weigh(&mut state);
        self.changed.notify_all();
    }

    /// A checkpoint of `epoch`, which contains this sink, is committed.
    pub fn committed(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.queue.committed(epoch);
        state.asked = false;
        self.weigh(&mut state);
        self.changed.notify_all();
    }

    /// Bytes of changes that wait in memory.
    pub fn bytes(&self) -> usize {
        self.state.lock().queue.bytes()
    }

    /// How delivery goes.
    pub fn status(&self) -> SinkStatus {
        let state = self.state.lock();
        SinkStatus {
            undelivered_epochs: state.queue.len() as u64,
            error: state.error.clone().or_else(|| state.is_full.then(is_full)),
            is_halted: !state.delivers,
        }
    }

    /// Wakes the delivering thread when its job may have completed more.
    fn follow_job(self: Arc<Self>) {
        let mut moved = self.around.readers.watch_moved();
        machine::spawn(async move {
            while moved.changed().await.is_ok() && !self.state.lock().closed {
                self.changed.notify_all();
            }
            self.close();
        });
    }

    fn deliver_in_thread(self: &Arc<Self>) -> Result<()> {
        if std::mem::replace(&mut self.state.lock().delivers, true) {
            return Ok(());
        }
        let queue = self.clone();
        let thread = machine::thread(format!("sink-{}", self.relation.id), move || queue.run());
        thread
            .map(drop)
            .inspect_err(|_| self.state.lock().delivers = false)
    }

    fn run(&self) {
        let mut backoff = Backoff::default();
        let mut writer: Option<Box<dyn SinkWriter>> = None;
        loop {
            match self.step(&mut writer) {
                Ok(Step::TookOver) => {}
                Ok(Step::Went) => {
                    backoff.reset();
                    self.state.lock().error = None;
                }
                Ok(Step::Unread(error)) => {
                    tracing::warn!(sink = %self.relation.name, %error, "the sink's log cannot be \
                        read; trying again");
                    pause(&self.state, &self.changed, &error, backoff.pause());
                }
                Ok(Step::Closed) => return,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(sink = %self.relation.name, %error, "delivery failed; taking \
                        over again");
                    writer = None;
                    pause(&self.state, &self.changed, &error, backoff.pause());
                }
                Err(error) => {
                    tracing::error!(sink = %self.relation.name, %error, "delivery stopped");
                    writer = None;
                    let hint = error.hint().map(|hint| format!(" ({hint})"));
                    let reason = format!("{}{}", error.message(), hint.unwrap_or_default());
                    if self.state.lock().halt(&reason) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until something can be delivered and does a step towards that.
    fn step(&self, writer: &mut Option<Box<dyn SinkWriter>>) -> Result<Step> {
        let Some(next) = self.wait()? else {
            return Ok(Step::Closed);
        };
        let Some(open) = writer else {
            let mut opened = catch(|| self.open())?;
            let marker = catch(|| opened.recover())?;
            let name = &self.relation.name;
            let mut state = self.state.lock();
            let refused = state.queue.take_over(name, marker)?;
            self.weigh(&mut state);
            drop(state);
            self.report(&refused);
            *writer = Some(opened);
            return Ok(Step::TookOver);
        };
        match next {
            Next::Wait | Next::WaitForCheckpoint => {}
            Next::Read(file) => match self.read_log(&self.around.storing.store, &file) {
                Ok(parts) => {
                    let mut state = self.state.lock();
                    state.queue.hold(parts);
                    self.weigh(&mut state);
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => return Err(error),
                // Whatever else the store says, it worked when it took the file. The receiver has
                // done nothing wrong.
                Err(error) => return Ok(Step::Unread(error)),
            },
            Next::Deliver(delivery) => {
                let delivered = catch(|| open.deliver(&delivery));
                let mut state = self.state.lock();
                let delivered = delivered.inspect_err(|_| state.queue.failed())?;
                state.queue.delivered(&delivered);
                self.weigh(&mut state);
                drop(state);
                self.report(&delivered.refused);
            }
        }
        Ok(Step::Went)
    }

    fn open(&self) -> Result<Box<dyn SinkWriter>> {
        let around = &self.around;
        if let Some(into) = TableSink::of(&self.relation, &around.writers, &around.readers) {
            return Ok(Box::new(into));
        }
        around.outside.sink(&self.relation, &around.cluster)
    }

    /// Waits for something to do; none when the sink is closed.
    fn wait(&self) -> Result<Option<Next>> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Ok(None);
            }
            let complete = self.around.readers.readable(self.relation.id);
            if state.released {
                match state.queue.next(complete)? {
                    Next::Wait => {}
                    Next::WaitForCheckpoint => self.ask_for_checkpoint(&mut state),
                    next => {
                        state.resumed = false;
                        return Ok(Some(next));
                    }
                }
            }
            self.changed.wait(&mut state);
        }
    }

    /// Sees whether what is in memory is too much. One that is not visible yet does not hold up
    /// what it has to catch up with.
    fn weigh(&self, state: &mut State) {
        let weight = match state.queue.weight() {
            _ if state.closed || !state.released => Weight::Light,
            weight => weight,
        };
        if weight != Weight::Light {
            self.ask_for_checkpoint(state);
        }
        // Full until it is light again: sources that begin to be read for a moment read little.
        let is_full = match weight {
            Weight::Light => false,
            Weight::Heavy => state.is_full,
            Weight::Full => true,
        };
        if std::mem::replace(&mut state.is_full, is_full) == is_full {
            return;
        }
        let (name, full) = (&self.relation.name, &self.around.full);
        if is_full {
            tracing::warn!(sink = %name, "{FULL}");
            full.add(&self.relation, &self.around.published.catalog());
        } else {
            tracing::info!(sink = %name, "the sink takes more changes again");
            full.remove(self.relation.id);
        }
    }

    fn ask_for_checkpoint(&self, state: &mut State) {
        if !std::mem::replace(&mut state.asked, true) {
            // Whether it comes is seen when it is committed.
            let _ = self.around.events.request(Request::Flush);
        }
    }

    /// Puts records that were left out into the errors of the sink.
    fn report(&self, refused: &[Refusal]) {
        if refused.is_empty() {
            return;
        }
        let connector = self.relation.connector.as_ref();
        let topic = connector.and_then(|c| c.options.get("topic").cloned());
        let mut errors = self.around.errors.lock();
        for refusal in refused {
            let row = ErrorRow {
                relation: self.relation.name.clone(),
                epoch: refusal.epoch,
                topic: topic.clone().unwrap_or_default(),
                offset: -1,
                state: REFUSED.into(),
                message: refusal.reason.clone(),
                raw: refusal.record.clone(),
                ..ErrorRow::default()
            };
            errors.record_once(self.relation.id, row);
        }
    }

    fn read_log(&self, store: &CheckpointStore, file: &FileMeta) -> Result<Vec<LogPart>> {
        let spec = log::spec(&self.relation, self.table.table);
        let (mut parts, files) = (Vec::new(), std::slice::from_ref(file));
        let read = store.read_table(files, &spec, 0..tidemark_common::VNODES, |rows| {
            parts.extend(log::decode(&rows)?);
            Ok(())
        });
        machine::block_on(read)?;
        Ok(parts)
    }

    /// Stores what is not delivered of epochs up to `epoch` and not stored yet; the answer goes
    /// into the manifest.
    pub async fn seal(&self, epoch: Epoch) -> Result<SinkProgress> {
        let sealing = self.state.lock().queue.to_seal(epoch);
        let ToSeal {
            new,
            limits,
            mut progress,
        } = sealing;
        let mut stored = Vec::new();
        for (part, parts) in log::files(&limits, new).into_iter().enumerate() {
            let end = log::end_of(&parts);
            let spec = log::spec(&self.relation, self.table.table);
            let encoded = machine::blocking(move || {
                let delta = log::encode(&spec, &parts)?;
                encode_delta(&spec, delta)
            });
            let encoded = encoded.await??;
            let by = WrittenBy::Sink;
            let storing = &self.around.storing;
            let file = storing.put(self.table, by, part, epoch, encoded).await?;
            progress.log.push(file.clone());
            stored.push((file, end));
        }
        let mut state = self.state.lock();
        state.queue.sealed(epoch, stored);
        self.weigh(&mut state);
        drop(state);
        Ok(progress)
    }
}
