//! A barrier's way through a worker: to the inputs of every job, through the cut of each source,
//! and back to the coordinator when all jobs have passed it.

use super::*;
use crate::table_feed::Fed;

impl Worker {
    pub(super) fn barrier(&mut self, command: &Arc<BarrierCommand>) {
        self.epoch = command.epoch.next();
        self.announced = false;
        let counting: BTreeSet<RelationId> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.counts(command.epoch) && j.joined.is_some_and(|e| e < command.epoch))
            .map(|(id, _)| *id)
            .collect();
        self.sealing.begin(command.epoch, command.checkpoint);
        self.outstanding.insert(command.epoch, counting);
        let taking_part: Vec<RelationId> = self
            .jobs
            .iter()
            .filter(|(_, j)| {
                j.joined.is_some_and(|e| {
                    e < command.epoch || (e == command.epoch && j.counts_from.is_none())
                })
            })
            .map(|(id, _)| *id)
            .collect();
        let reading: BTreeSet<RelationId> = taking_part
            .iter()
            .copied()
            .filter(|id| {
                self.jobs
                    .get_mut(id)
                    .is_some_and(|j| sources(j).next().is_some())
            })
            .collect();
        self.cutting.insert(command.epoch, reading);
        for id in &taking_part {
            self.barrier_at_inputs(*id, command);
        }
        // A worker that nothing reads or counts on is done with the epoch at once.
        self.tell_cut(command.epoch);
        self.tell_done(command.epoch);
    }

    /// The barrier reaches the leaves of a job that the worker feeds.
    pub(super) fn barrier_at_inputs(&mut self, id: RelationId, command: &Arc<BarrierCommand>) {
        let barrier = barrier_of(command, id);
        let count = self.jobs.get(&id).map_or(0, |j| j.inputs.len());
        for index in 0..count {
            let Some(job) = self.jobs.get_mut(&id) else {
                return;
            };
            let joins = job.joined == Some(command.epoch);
            let Input {
                fragment,
                leaf,
                kind,
            } = &mut job.inputs[index];
            let (fragment, leaf) = (*fragment, *leaf);
            match kind {
                InputKind::Source(source) => {
                    source.barriers.push_back(command.clone());
                    self.emit_source_barriers(id, index);
                }
                InputKind::Table(feed) => {
                    let is_writer = self.around.placement.writer(id) == self.id;
                    feed.close(id, is_writer, command);
                    if let Err(error) = self.feed_held(id, index) {
                        return self.fail(id, error);
                    }
                }
                InputKind::Values(rows) => {
                    if let Some(rows) = rows.take() {
                        self.deliver(id, fragment, leaf, Message::Changes(rows, None));
                    }
                    self.deliver(id, fragment, leaf, Message::Barrier(barrier.clone()));
                }
                InputKind::Tap { upstream, .. } if joins => {
                    // The source begins after this barrier: the leaf has nothing to catch up with.
                    let upstream = *upstream;
                    if !self.jobs.contains_key(&upstream) {
                        self.feed(id, fragment, leaf, Message::Barrier(barrier.clone()));
                        self.release(id, fragment, leaf);
                    }
                }
                InputKind::Tap { .. } => {}
            }
            self.hand_out();
        }
    }

    /// Hands a table's leaf what is in memory, up to what has to be read.
    fn feed_held(&mut self, id: RelationId, index: usize) -> Result<()> {
        while let Some(Input {
            kind: InputKind::Table(feed),
            ..
        }) = self.jobs.get_mut(&id).and_then(|j| j.inputs.get_mut(index))
        {
            if feed.is_stored() {
                self.feeding.insert((id, index));
                return Ok(());
            }
            if !self.feed_next(id, index)? {
                break;
            }
        }
        self.feeding.remove(&(id, index));
        Ok(())
    }

    /// Hands a table's leaf the next of what it still gets, if there is anything.
    fn feed_next(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let input = self.jobs.get_mut(&id).and_then(|j| j.inputs.get_mut(index));
        let Some(Input {
            fragment,
            leaf,
            kind: InputKind::Table(feed),
        }) = input
        else {
            return Ok(false);
        };
        let message = match feed.take()? {
            Some(Fed::Changes(changes)) => Message::Changes(changes, None),
            Some(Fed::Barrier(command)) => Message::Barrier(barrier_of(&command, id)),
            None => return Ok(false),
        };
        let (fragment, leaf) = (*fragment, *leaf);
        self.deliver(id, fragment, leaf, message);
        Ok(true)
    }

    /// Reads a piece of stored rows for every table that has nothing else to do. Returns whether
    /// there was any.
    pub(super) fn feed_tables(&mut self) -> bool {
        if self.feeding.is_empty() {
            return false;
        }
        let waiting = self.upstream_of_work();
        let idle = self.feeding.iter().filter(|(id, _)| !waiting.contains(id));
        let idle: Vec<(RelationId, usize)> = idle.copied().collect();
        for (id, index) in &idle {
            let (id, index) = (*id, *index);
            if !self.jobs.contains_key(&id) {
                self.feeding.remove(&(id, index));
                continue;
            }
            let fed = catch(|| {
                self.feed_next(id, index)?;
                self.hand_out();
                self.feed_held(id, index)
            });
            if let Err(error) = fed {
                self.feeding.remove(&(id, index));
                self.fail(id, error);
            }
            self.hand_out();
        }
        !idle.is_empty()
    }

    /// Sends the barriers of a source whose limits are reached.
    pub(super) fn emit_source_barriers(&mut self, id: RelationId, index: usize) {
        loop {
            let Some(job) = self.jobs.get_mut(&id) else {
                return;
            };
            let Input {
                fragment,
                leaf,
                kind: InputKind::Source(source),
            } = &mut job.inputs[index]
            else {
                return;
            };
            let Some(command) = source.barriers.front().cloned() else {
                return;
            };
            match source.replay_to(&command) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.fail(id, error),
            }
            source.barriers.pop_front();
            if command.limits.is_none() {
                let floors = command.floors.get(&id).map_or(&[][..], Vec::as_slice);
                source.put_floors(floors);
            }
            let told = source.take_floors();
            if command.limits.is_none() && !told.is_empty() {
                self.floors.entry(id).or_default().extend(told);
            }
            let positions = source.positions();
            let (fragment, leaf) = (*fragment, *leaf);
            let (unlogged, errors) = source.take_unlogged();
            if command.limits.is_none() {
                self.reads.extend(
                    unlogged
                        .into_iter()
                        .map(|changes| TableWrites::held(id, changes)),
                );
                self.read_errors
                    .extend(errors.into_iter().map(|row| KeptError {
                        relation: id,
                        row,
                        weight: 1,
                    }));
            } else if self.around.placement.writer(id) == self.id {
                let logged = command.writes.iter().filter(|w| w.table == id);
                let pieces = logged.flat_map(|w| (0..w.changes.pieces()).map(move |p| (w, p)));
                let rows: Result<Vec<ChangeBatch>> = pieces
                    .map(|(write, piece)| source.of_log(&write.changes.piece(piece)?))
                    .collect();
                match rows {
                    Ok(rows) => rows.into_iter().for_each(|rows| {
                        self.deliver(id, fragment, leaf, Message::Changes(rows, None));
                    }),
                    Err(error) => return self.fail(id, error),
                }
                for error in command.errors.iter().filter(|e| e.relation == id) {
                    let mut errors = self.around.errors.lock();
                    errors.record(id, error.row.clone(), error.weight);
                }
            }
            let barrier = barrier_of(&command, id);
            if self
                .jobs
                .values()
                .any(|j| j.joined == Some(command.epoch) && j.counts_from.is_none())
            {
                self.join_positions.insert((id, command.epoch), positions);
            }
            self.deliver(id, fragment, leaf, Message::Barrier(barrier));
            self.source_cut(id, command.epoch);
            self.hand_out();
        }
    }

    /// A source has passed the barrier; when all have, the worker's cut is told.
    pub(super) fn source_cut(&mut self, id: RelationId, epoch: Epoch) {
        if let Some(reading) = self.cutting.get_mut(&epoch) {
            reading.remove(&id);
            self.tell_cut(epoch);
        }
    }

    /// Tells the worker's cut of an epoch that no source has to come to any more.
    pub(super) fn tell_cut(&mut self, epoch: Epoch) {
        if self.cutting.get(&epoch).is_none_or(|r| !r.is_empty()) {
            return;
        }
        self.cutting.remove(&epoch);
        let mut positions = Positions::new();
        for (id, job) in &mut self.jobs {
            if job.joined.is_none_or(|e| e > epoch) {
                continue;
            }
            for source in sources(job) {
                positions.insert(*id, source.positions());
            }
        }
        let floors = std::mem::take(&mut self.floors);
        let (reads, errors) = (
            std::mem::take(&mut self.reads),
            std::mem::take(&mut self.read_errors),
        );
        self.tell(Event::Cut {
            worker: self.id,
            epoch,
            positions,
            floors,
            reads,
            errors,
        });
    }

    /// A job has passed the barrier of an epoch on this worker; when all that count have, the epoch
    /// is done here.
    pub(super) fn passed(&mut self, id: RelationId, epoch: Epoch) {
        if let Some(outstanding) = self.outstanding.get_mut(&epoch) {
            outstanding.remove(&id);
            self.tell_done(epoch);
        }
    }

    /// Tells that an epoch which no job has to pass any more is done here.
    pub(super) fn tell_done(&mut self, epoch: Epoch) {
        if self.outstanding.get(&epoch).is_none_or(|o| !o.is_empty()) {
            return;
        }
        self.outstanding.remove(&epoch);
        self.has_passed.retain(|_, passed| *passed > epoch);
        self.tell(Event::Done {
            worker: self.id,
            epoch,
        });
        self.sealing.finish(epoch);
    }

    /// Tells of jobs that have passed barriers which others have still to pass.
    pub(super) fn tell_passed(&mut self) {
        if !self.has_passed.is_empty() {
            let jobs = std::mem::take(&mut self.has_passed).into_iter().collect();
            let worker = self.id;
            self.tell(Event::Passed { worker, jobs });
        }
    }

    /// The last actor of a job has closed an epoch.
    pub(super) fn job_passed(&mut self, id: RelationId, barrier: Barrier) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if barrier.checkpoint {
            job.tell_memory(self.id);
        }
        let counts = job.counts(barrier.epoch);
        let joining: Vec<(RelationId, usize)> = job
            .taps
            .iter()
            .filter(|t| t.after == barrier.epoch)
            .map(|t| (t.job, t.input))
            .collect();
        if !counts {
            self.tell(Event::JobDone {
                worker: self.id,
                relation: id,
                epoch: barrier.epoch,
            });
        }
        for (tapping, input) in joining {
            self.begin_at_join(id, tapping, input, barrier.clone());
        }
        if counts {
            self.has_passed.insert(id, barrier.epoch);
        }
        self.join_positions
            .retain(|(source, epoch), _| *source != id || *epoch > barrier.epoch);
        self.passed(id, barrier.epoch);
    }
}

/// The barrier as it flows through a job.
pub(super) fn barrier_of(command: &BarrierCommand, job: RelationId) -> Barrier {
    let horizon_ms = command.horizons.get(&job).copied().unwrap_or(-1);
    Barrier {
        epoch: command.epoch,
        clock: command.clock,
        checkpoint: command.checkpoint,
        horizon_ms,
        watermarks: command.watermarks.clone(),
    }
}
