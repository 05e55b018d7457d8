//! Sinks: one queue and one delivering thread each.
//!
//! Workers put each epoch's consolidated changes into the queue as they close it; the thread sends
//! what is published, whole epochs in order, together with the marker. What is not delivered at a
//! checkpoint is stored with it (the sink's own log); of a sink that is far behind it is kept only
//! there, and read back file by file. After a restart the queue is filled from that log and by
//! replay; the marker that the writer reads back tells what was delivered, and its hash must be the
//! one of the replayed epochs: another one means that the same cut did not give the same changes,
//! and stops the sink. A sink that cannot deliver tries again and holds up nobody.

use crate::shared::Shared;
use crate::worker::store;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{SinkEpoch, SinkMarker, SinkWriter};
use tidemark_common::{Backoff, Epoch, Error, Result, SqlState, TableId, WorkerId};
use tidemark_control::protocol::Event;
use tidemark_operator::build::SinkOutput;
use tidemark_plan::{Op, Relation};
use tidemark_state::checkpoint::{CheckpointStore, FileMeta};
use tidemark_state::manifest::SinkProgress;
use tidemark_state::{TableDelta, TableForm, TableSpec};

/// Changes of one delivery, beyond which further epochs wait for the next.
const DELIVERY_ROWS_MAX: usize = 100_000;
/// Changes in memory, beyond which those that a checkpoint has stored are read back when their turn
/// comes.
const MEMORY_ROWS_MAX: usize = 250_000;

/// What one sink has emitted and not delivered.
pub struct SinkQueue {
    relation: Arc<Relation>,
    shared: Arc<Shared>,
    table: TableId,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Changes by epoch and their hashes.
    epochs: BTreeMap<Epoch, Emitted>,
    /// Hash over everything up to the epochs that left the queue.
    taken_hash: u64,
    /// The last epoch that left the queue.
    taken: Epoch,
    delivered: Option<SinkMarker>,
    /// Hash over everything up to each epoch that was delivered since the last checkpoint, and over
    /// everything before those.
    history: Vec<(Epoch, u64)>,
    history_base: u64,
    /// Stored log files with the last epoch that each holds.
    log: Vec<(FileMeta, Epoch)>,
    /// Epochs up to this one are in `log`.
    logged: Epoch,
    released: bool,
    /// The first epoch that waits for the sink; what was emitted before is the snapshot.
    counts_from: Option<Epoch>,
    closed: bool,
    error: Option<String>,
}

#[derive(Default)]
struct Emitted {
    changes: Vec<ChangeBatch>,
    rows: usize,
    hash: u64,
    /// The changes are in the log only.
    stored: bool,
}

impl State {
    fn rows_in_memory(&self) -> usize {
        self.epochs
            .values()
            .filter(|e| !e.stored)
            .map(|e| e.rows)
            .sum()
    }

    /// The epochs after `from` up to `to` are in a file of the log: when there is much else, they
    /// are kept there only.
    fn shed(&mut self, from: Epoch, to: Epoch) {
        if self.rows_in_memory() > MEMORY_ROWS_MAX {
            for (_, emitted) in self.epochs.range_mut(from.next()..=to) {
                emitted.changes = Vec::new();
                emitted.stored = true;
            }
        }
    }

    /// The hash over everything up to `epoch` that has left the queue; forgets older ones. Replay
    /// after a checkpoint of `epoch` goes on from it.
    fn hash_at(&mut self, epoch: Epoch) -> u64 {
        let older = self.history.partition_point(|(e, _)| *e <= epoch);
        if let Some((_, hash)) = self.history[..older].last() {
            self.history_base = *hash;
        }
        self.history.drain(..older);
        self.history_base
    }
}

impl SinkQueue {
    /// The sink's queue, made by the first worker that asks, with what a checkpoint kept.
    pub fn of(
        shared: &Arc<Shared>,
        relation: &Arc<Relation>,
        progress: Option<&SinkProgress>,
    ) -> Result<Arc<SinkQueue>> {
        let mut sinks = shared.sinks.lock();
        if let Some(queue) = sinks.get(&relation.id) {
            return Ok(queue.clone());
        }
        let table = relation
            .job
            .iter()
            .flat_map(|j| &j.fragments)
            .flat_map(tidemark_plan::Fragment::nodes)
            .find_map(|n| {
                if let Op::Sink { table, .. } = n.op {
                    Some(table)
                } else {
                    None
                }
            });
        let table = TableId {
            relation: relation.id,
            table: table.ok_or_else(|| Error::internal("a sink without sink operator"))?,
        };
        let mut state = State::default();
        if let Some(progress) = progress {
            state.taken_hash = progress.emitted_hash;
            state.history_base = progress.emitted_hash;
            state.delivered = progress.delivered.clone();
        }
        let queue = Arc::new(SinkQueue {
            relation: relation.clone(),
            shared: shared.clone(),
            table,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        if let Some(progress) = progress.filter(|p| !p.log.is_empty()) {
            queue.load(progress)?;
        }
        sinks.insert(relation.id, queue.clone());
        let delivering = queue.clone();
        let name = format!("sink-{}", relation.id);
        std::thread::Builder::new()
            .name(name)
            .stack_size(tidemark_common::STACK_BYTES)
            .spawn(move || delivering.run())
            .map_err(Error::from)?;
        let waking = queue.clone();
        let mut published = shared.readers.watch_published();
        shared.tokio.spawn(async move {
            while published.changed().await.is_ok() && !waking.state.lock().closed {
                waking.changed.notify_all();
            }
            waking.close();
        });
        Ok(queue)
    }

    /// What the sink operator of one worker calls at each barrier.
    pub fn output(self: &Arc<Self>, _worker: WorkerId) -> SinkOutput {
        let queue = self.clone();
        let figures = self.shared.figures(self.relation.id);
        // Nothing reads a blackhole: what it would be sent is counted, not kept.
        let discards = self
            .relation
            .connector
            .as_ref()
            .is_some_and(|c| c.connector == "blackhole");
        let wants_snapshot = self.relation.snapshot;
        Box::new(move |epoch, changes, hash| {
            if !wants_snapshot
                && queue
                    .state
                    .lock()
                    .counts_from
                    .is_none_or(|from| epoch < from)
            {
                return;
            }
            let rows: usize = changes.iter().map(ChangeBatch::num_rows).sum();
            figures
                .rows
                .fetch_add(rows as u64, std::sync::atomic::Ordering::Relaxed);
            if rows == 0 || discards {
                return;
            }
            let mut state = queue.state.lock();
            let emitted = state.epochs.entry(epoch).or_default();
            emitted.changes.extend(changes);
            emitted.rows += rows;
            emitted.hash = emitted.hash.wrapping_add(hash);
        })
    }

    /// The sink exists from this epoch on: with `snapshot = 'false'`, what it emitted to catch up
    /// with its inputs is not sent.
    pub fn count_from(&self, epoch: Epoch) {
        self.state.lock().counts_from = Some(epoch);
    }

    /// The sink's creation is committed: deliver.
    pub fn release(&self) {
        self.state.lock().released = true;
        self.changed.notify_all();
    }

    /// Deliver nothing any more.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Epochs that wait, and why they cannot be delivered.
    pub fn status(&self) -> (u64, Option<String>) {
        let state = self.state.lock();
        (state.epochs.len() as u64, state.error.clone())
    }

    fn run(&self) {
        let connector = self.relation.connector.as_ref();
        let identity = tidemark_connector::SinkIdentity {
            cluster: self.shared.cluster.clone(),
            sink: self.relation.id,
            name: self.relation.name.clone(),
        };
        let open = || {
            let spec = connector.ok_or_else(|| Error::internal("a sink without connector"))?;
            tidemark_connector::open_sink(
                spec,
                &self.relation.columns,
                identity.clone(),
                self.relation.append_only,
            )
        };
        let mut backoff = Backoff::default();
        let mut writer: Option<Box<dyn SinkWriter>> = None;
        while self.wait() {
            let result: Result<()> = (|| {
                if writer.is_none() {
                    if !self.wait_released() {
                        return Ok(());
                    }
                    let mut opened = open()?;
                    self.take_over(opened.recover()?)?;
                    writer = Some(opened);
                    return Ok(());
                }
                let Some(writer) = &mut writer else {
                    return Ok(());
                };
                let epochs = self.next()?;
                writer.deliver(&epochs)?;
                self.delivered(&epochs);
                Ok(())
            })();
            match result {
                Ok(()) => {
                    backoff.reset();
                    self.state.lock().error = None;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        tidemark_common::ErrorKind::Corrupt
                            | tidemark_common::ErrorKind::User
                            | tidemark_common::ErrorKind::Internal
                    ) =>
                {
                    let _ = self.shared.events.send(Event::Failed {
                        relation: self.relation.id,
                        error,
                    });
                    return;
                }
                Err(error) => {
                    tracing::warn!(sink = %self.relation.name, %error, "delivery failed; taking \
                        over again");
                    let mut state = self.state.lock();
                    state.error = Some(error.to_string());
                    writer = None;
                    if !state.closed {
                        self.changed.wait_for(&mut state, backoff.pause());
                    }
                }
            }
        }
    }

    fn wait_released(&self) -> bool {
        let mut state = self.state.lock();
        while !state.released && !state.closed {
            self.changed.wait(&mut state);
        }
        !state.closed
    }

    /// Waits for published epochs with changes; `false` when the sink is closed.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return false;
            }
            let published = self.shared.readers.published();
            if state.released && state.epochs.keys().next().is_some_and(|e| *e <= published) {
                return true;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Copies (cheaply) the published epochs of one delivery; none when a successor found
    /// everything delivered.
    fn next(&self) -> Result<Vec<SinkEpoch>> {
        let published = self.shared.readers.published();
        let first_file = {
            let state = self.state.lock();
            let first = state
                .epochs
                .range(..=published)
                .next()
                .filter(|(_, e)| e.stored)
                .map(|(epoch, _)| *epoch);
            first.map(|epoch| {
                state
                    .log
                    .iter()
                    .find(|(_, end)| *end >= epoch)
                    .map(|(file, _)| file.clone())
                    .ok_or_else(|| Error::internal("an epoch is in no file of its sink's log"))
            })
        };
        if let Some(file) = first_file {
            self.read_back(&file?)?;
        }
        let state = self.state.lock();
        let (mut hash, mut rows) = (state.taken_hash, 0);
        let mut epochs = Vec::new();
        for (epoch, emitted) in state.epochs.range(..=published) {
            if emitted.stored || (rows > 0 && rows + emitted.rows > DELIVERY_ROWS_MAX) {
                break;
            }
            rows += emitted.rows;
            hash = hash.wrapping_add(emitted.hash);
            epochs.push(SinkEpoch {
                epoch: *epoch,
                changes: emitted.changes.clone(),
                hash,
            });
        }
        Ok(epochs)
    }

    /// Takes the epochs of one file of the log into memory again.
    fn read_back(&self, file: &FileMeta) -> Result<()> {
        let mut epochs: BTreeMap<Epoch, Vec<ChangeBatch>> = BTreeMap::new();
        self.read_log(&self.shared.store, file, |epoch, _, changes| {
            epochs.entry(epoch).or_default().push(changes)
        })?;
        let mut state = self.state.lock();
        for (epoch, changes) in epochs {
            if let Some(emitted) = state.epochs.get_mut(&epoch).filter(|e| e.stored) {
                emitted.changes = changes;
                emitted.stored = false;
            }
        }
        Ok(())
    }

    /// Hands the parts of a file of the log to `each`: epoch, the epoch's hash, changes.
    fn read_log(
        &self,
        store: &CheckpointStore,
        file: &FileMeta,
        mut each: impl FnMut(Epoch, u64, ChangeBatch),
    ) -> Result<()> {
        let spec = log_spec(&self.relation, self.table.table);
        self.shared.tokio.block_on(store.read_table(
            std::slice::from_ref(file),
            &spec,
            0..tidemark_common::VNODES,
            |rows| {
                decode(&rows)?
                    .into_iter()
                    .for_each(|(epoch, hash, changes)| each(epoch, hash, changes));
                Ok(())
            },
        ))
    }

    /// Drops what was delivered by an earlier writer, after comparing hashes.
    fn take_over(&self, marker: Option<SinkMarker>) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(known) = &state.delivered
            && marker.as_ref().is_none_or(|m| m.epoch < known.epoch)
        {
            let found = marker.map_or("none".to_string(), |m| format!("epoch {}", m.epoch));
            return Err(Error::corrupt(format!(
                "sink \"{}\": its marker is behind what it delivered (epoch {}, found {found})",
                self.relation.name, known.epoch
            ))
            .with_hint(
                "Somebody changed the marker topic; create the sink anew under another name.",
            ));
        }
        let Some(marker) = marker else { return Ok(()) };
        let mut hash = state.taken_hash;
        let covered: Vec<Epoch> = state
            .epochs
            .range(..=marker.epoch)
            .map(|(e, _)| *e)
            .collect();
        for epoch in &covered {
            hash = hash.wrapping_add(state.epochs.remove(epoch).map_or(0, |e| e.hash));
            state.history.push((*epoch, hash));
        }
        if hash != marker.hash {
            return Err(Error::corrupt(format!(
                "sink \"{}\": replay up to epoch {} gave other changes than were delivered",
                self.relation.name, marker.epoch
            ))
            .with_detail(
                "The rows of a decided epoch are not what they were: the topic was \
                              changed, or an operator is not determined.",
            ));
        }
        state.taken_hash = hash;
        state.taken = marker.epoch;
        state.delivered = Some(marker);
        Ok(())
    }

    fn delivered(&self, epochs: &[SinkEpoch]) {
        let mut state = self.state.lock();
        let Some(last) = epochs.last() else { return };
        for epoch in epochs {
            state.epochs.remove(&epoch.epoch);
        }
        state
            .history
            .extend(epochs.iter().map(|e| (e.epoch, e.hash)));
        state.taken_hash = last.hash;
        state.taken = last.epoch;
        state.delivered = Some(SinkMarker {
            epoch: last.epoch,
            partial: 0,
            hash: last.hash,
        });
        let taken = state.taken;
        state.log.retain(|(_, end)| *end > taken);
    }

    /// Stores what is not delivered of epochs up to `epoch` and not stored yet; the answer goes
    /// into the manifest.
    pub async fn seal(&self, epoch: Epoch) -> Result<SinkProgress> {
        let (delta, emitted_hash, delivered, mut log, from, end) = {
            let mut state = self.state.lock();
            let base = state.hash_at(epoch);
            let from = state.logged.max(state.taken);
            let new: Vec<(Epoch, &Emitted)> = state
                .epochs
                .range(..=epoch)
                .filter(|(e, _)| **e > from)
                .map(|(e, emitted)| (*e, emitted))
                .collect();
            let end = new.last().map_or(from, |(e, _)| *e);
            (
                encode(&self.relation, &new)?,
                base,
                state.delivered.clone(),
                state.log.clone(),
                from,
                end,
            )
        };
        if let Some(rows) = delta {
            let spec = log_spec(&self.relation, self.table.table);
            let vnodes = vec![0; rows.num_rows()];
            let deletes =
                RecordBatch::new_empty(Arc::new(Schema::new(spec.schema.fields()[..2].to_vec())));
            let delta = TableDelta {
                upserts: rows,
                upsert_vnodes: vnodes,
                deletes,
                delete_vnodes: Vec::new(),
            };
            let file = store(
                &self.shared,
                self.table,
                usize::MAX >> 32,
                epoch,
                spec,
                delta,
            )
            .await?;
            log.push((file.clone(), end));
            let mut state = self.state.lock();
            state.logged = end;
            if state.taken < end {
                state.log.push((file, end));
                state.shed(from, end);
            }
        }
        Ok(SinkProgress {
            delivered,
            emitted_hash,
            log: log.into_iter().map(|(file, _)| file).collect(),
        })
    }

    /// Fills the queue from the log of a checkpoint.
    fn load(&self, progress: &SinkProgress) -> Result<()> {
        let mut state = self.state.lock();
        let delivered = progress.delivered.as_ref().map_or(Epoch(0), |m| m.epoch);
        for file in &progress.log {
            let (from, mut end) = (state.logged, Epoch(0));
            // A store that is away at the start is waited for.
            self.read_log(
                &self.shared.store.patient(),
                file,
                |epoch, hash, changes| {
                    end = end.max(epoch);
                    if epoch > delivered {
                        let emitted = state.epochs.entry(epoch).or_default();
                        emitted.rows += changes.num_rows();
                        emitted.hash = hash;
                        emitted.changes.push(changes);
                    }
                },
            )?;
            state.logged = state.logged.max(end);
            state.log.push((file.clone(), end));
            state.shed(from, end);
        }
        Ok(())
    }
}

/// Columns of a sink's log: epoch and position are its key, the epoch's hash stands in each of its
/// rows.
fn log_spec(relation: &Relation, table: u32) -> TableSpec {
    let mut fields: Vec<Field> = ["_epoch", "_position", "_hash", "_weight"]
        .iter()
        .map(|name| Field::new(*name, DataType::Int64, false))
        .collect();
    fields.extend(
        relation
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| Field::new(format!("{i}_{}", c.name), c.data_type.clone(), true)),
    );
    TableSpec {
        table,
        form: TableForm::Keyed,
        schema: Arc::new(Schema::new(fields)),
        key_columns: 2,
    }
}

fn encode(relation: &Relation, epochs: &[(Epoch, &Emitted)]) -> Result<Option<RecordBatch>> {
    let spec = log_spec(relation, 0);
    let mut batches = Vec::new();
    for (epoch, emitted) in epochs {
        let mut position = 0;
        for changes in &emitted.changes {
            let n = changes.num_rows();
            let constant = |v: i64| Arc::new(Int64Array::from(vec![v; n])) as ArrayRef;
            let positions = Arc::new(Int64Array::from_iter_values(position..position + n as i64));
            position += n as i64;
            let mut columns: Vec<ArrayRef> = vec![
                constant(epoch.0 as i64),
                positions,
                constant(emitted.hash as i64),
                Arc::new(changes.weight_column()),
            ];
            columns.extend(changes.rows().columns().iter().cloned());
            batches.push(
                RecordBatch::try_new(spec.schema.clone(), columns)
                    .map_err(|e| Error::internal(format!("a sink's log: {e}")))?,
            );
        }
    }
    if batches.is_empty() {
        return Ok(None);
    }
    arrow::compute::concat_batches(&spec.schema, &batches)
        .map(Some)
        .map_err(|e| Error::internal(format!("a sink's log: {e}")))
}

/// Splits log rows, which are sorted by epoch and position, into epochs: (epoch, its hash,
/// changes).
fn decode(rows: &RecordBatch) -> Result<Vec<(Epoch, u64, ChangeBatch)>> {
    let damaged = || {
        Error::new(
            tidemark_common::ErrorKind::Corrupt,
            SqlState::DATA_CORRUPTED,
            "a sink's log has other columns than it should",
        )
    };
    let int = |i: usize| {
        rows.columns()
            .get(i)
            .and_then(|c| c.as_primitive_opt::<Int64Type>())
            .ok_or_else(damaged)
    };
    let (epochs, hashes, weights) = (int(0)?, int(2)?, int(3)?);
    let values: Vec<usize> = (4..rows.num_columns()).collect();
    let mut result = Vec::new();
    let mut start = 0;
    for end in 1..=epochs.len() {
        if end == epochs.len() || epochs.value(end) != epochs.value(start) {
            let part = rows
                .slice(start, end - start)
                .project(&values)
                .map_err(|_| damaged())?;
            result.push((
                Epoch(epochs.value(start) as u64),
                hashes.value(start) as u64,
                ChangeBatch::new(part, weights.values()[start..end].to_vec()),
            ));
            start = end;
        }
    }
    Ok(result)
}
