//! The life of a job that is being created, on one worker.
//!
//! ```text
//!            Start                    Ready                  Join(e)
//! (planned) ------> catching up ----------------> waiting ----------> joined(e)
//!                        ^                           |                    |
//!                        '------ CatchUp ------------'                    | its actors passed
//!                                                                         v the barrier of e
//!              running <------------------ complete up to e <------ working off
//!                       Promote(e')                      JobDone(e)
//! ```
//!
//! * **Catching up.** Each leaf on an append-only source that others read already ([`TapState`])
//!   reads the past with a reader of its own, up to where the shared one stood when it began.
//!   Leaves on relations that keep rows have nothing to read yet. When all have come so far, the
//!   worker tells `Ready`. Others may have begun to read a source in the meantime: `CatchUp` sends
//!   leaves back that would have been live.
//! * **Joined(e).** From the barrier of `e` on, live messages flow to the leaves, where they are
//!   held. When that barrier has passed what a leaf taps, it is known what lies before it: a reader
//!   gets its end, a relation that keeps rows gives them as of `e`.
//! * **Working off.** Each leaf is fed that, piece by piece, as the job keeps up, then the barrier
//!   of `e`, and is released.
//! * **Running.** When all workers have told `JobDone` of the newest epoch, the coordinator
//!   promotes the job: epochs wait for it, and checkpoints contain it.
//!
//! A job that fails or is canceled on the way is taken out like any other.

use super::Worker;
use crate::actor::Work;
use crate::answers::read_answer;
use crate::catch::catch;
use crate::columns::pick;
use crate::exchange::Message;
use crate::job::{CatchUp, Input, InputKind, Job, SnapshotRows, TapState, build_actors, reversed};
use crate::source::Source;
use arrow::array::RecordBatch;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result};
use tidemark_control::protocol::{Event, Positions};
use tidemark_operator::Barrier;

impl Worker {
    pub(super) fn tell_ready(&mut self, id: RelationId) {
        if let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|j| j.joined.is_none() && !j.told_ready)
            && job.may_join()
        {
            job.told_ready = true;
            self.tell(Event::Ready {
                worker: self.id,
                relation: id,
            });
        }
    }

    /// A reader of its own for the past of an append-only source that others read already. It reads
    /// the leaf's columns only: no other one can fail the job.
    pub(super) fn catch_up(
        &self,
        upstream: RelationId,
        positions: &[SplitPosition],
        columns: &[usize],
    ) -> Result<CatchUp> {
        let shared = self
            .jobs
            .get(&upstream)
            .ok_or_else(|| Error::internal("a source that is read has no job"))?;
        let plan = shared
            .relation
            .job
            .as_ref()
            .ok_or_else(|| Error::internal("a source without a job"))?;
        let actors = build_actors(
            &shared.relation,
            plan,
            &self.around.placement,
            self.id,
            &self.neighbours,
            None,
        )?;
        let fragment = actors
            .fragments
            .into_iter()
            .next()
            .ok_or_else(|| Error::internal("a source without an actor"))?;
        let reader = shared.reader();
        let ready_at = reader.map(Source::positions).unwrap_or_default();
        let floors = reader.map(Source::floors).unwrap_or_default();
        let mut source = Source::open(
            &self.reading,
            self.id,
            &shared.relation,
            positions,
            &floors,
            self.waker.clone(),
        )?;
        source.set_uncounted();
        source.prune(columns);
        // It must not overtake the shared reader, from whose position at the join the live rows go
        // on.
        source.limit(&ready_at)?;
        Ok(CatchUp {
            source,
            fragment,
            ready_at,
            end: None,
        })
    }

    /// Leaves that would have been live from the job's join on read the past of sources that others
    /// began to read meanwhile.
    pub(super) fn begin_catch_up(&mut self, id: RelationId, backfill: &Positions) -> Result<()> {
        for (upstream, positions) in backfill {
            let taps = self
                .jobs
                .get(&id)
                .map(|j| j.inputs.as_slice())
                .unwrap_or_default()
                .iter()
                .enumerate();
            let behind: Vec<(usize, Vec<usize>)> = taps
                .filter_map(|(index, i)| match &i.kind {
                    InputKind::Tap {
                        upstream: u,
                        columns,
                        state: TapState::Live,
                        ..
                    } if u == upstream => Some((index, columns.clone())),
                    _ => None,
                })
                .collect();
            for (index, columns) in behind {
                let catch_up = Box::new(self.catch_up(*upstream, positions, &columns)?);
                let Some(job) = self.jobs.get_mut(&id) else {
                    return Ok(());
                };
                job.told_ready = false;
                if let InputKind::Tap { state, .. } = &mut job.inputs[index].kind {
                    *state = TapState::CatchUp(catch_up);
                }
            }
        }
        // A worker without such a leaf is asked, too.
        if let Some(job) = self.jobs.get_mut(&id) {
            job.told_ready = false;
        }
        Ok(())
    }

    pub(super) fn poll_catch_up(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let epoch = self.epoch;
        let Some(job) = self.jobs.get_mut(&id) else {
            return Ok(false);
        };
        let Input {
            fragment,
            leaf,
            kind:
                InputKind::Tap {
                    columns,
                    schema,
                    state,
                    ..
                },
        } = &mut job.inputs[index]
        else {
            return Ok(false);
        };
        let TapState::CatchUp(catch_up) = state else {
            return Ok(false);
        };
        let (fragment, leaf) = (*fragment, *leaf);
        if let Some((end, barrier)) = &catch_up.end
            && catch_up.source.has_reached(end)
        {
            let barrier = barrier.clone();
            *state = TapState::Live;
            self.feed(id, fragment, leaf, Message::Barrier(barrier));
            self.release(id, fragment, leaf);
            return Ok(true);
        }
        let Some(batch) = catch_up.source.poll(epoch)? else {
            return Ok(false);
        };
        if batch.is_empty() {
            return Ok(true);
        }
        let bare = catch_up.fragment.slots.is_empty();
        let output = catch_up.fragment.run(batch)?;
        let produced = if bare {
            catch_up.source.produced.clone()
        } else {
            (0..output.first().map_or(0, |b| b.rows().num_columns())).collect()
        };
        let batches = output
            .iter()
            .map(|b| pick(b, &produced, columns, schema))
            .collect::<Result<Vec<_>>>()?;
        for batch in batches.into_iter().filter(|b| !b.is_empty()) {
            self.feed(id, fragment, leaf, Message::Changes(batch, None));
        }
        Ok(true)
    }

    pub(super) fn poll_snapshot(&mut self, id: RelationId, index: usize) -> Result<bool> {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Ok(false);
        };
        let Input {
            fragment,
            leaf,
            kind: InputKind::Tap { state, schema, .. },
        } = &mut job.inputs[index]
        else {
            return Ok(false);
        };
        let TapState::Snapshot {
            rows,
            barrier,
            later,
        } = state
        else {
            return Ok(false);
        };
        let (fragment, leaf, barrier) = (*fragment, *leaf, barrier.clone());
        let whole = |batch: ChangeBatch| {
            let columns: Vec<usize> = (0..batch.rows().num_columns()).collect();
            pick(&batch, &columns, &columns, schema)
        };
        if let Some(batch) = rows.next()? {
            let batch = whole(batch)?;
            self.feed(id, fragment, leaf, Message::Changes(batch, None));
            return Ok(true);
        }
        let later = std::mem::take(later).into_iter().rev();
        let later = later.map(whole).collect::<Result<Vec<_>>>()?;
        *state = TapState::Live;
        self.feed(id, fragment, leaf, Message::Barrier(barrier));
        for batch in later {
            self.feed(id, fragment, leaf, Message::Changes(batch, None));
        }
        self.release(id, fragment, leaf);
        Ok(true)
    }

    pub(super) fn join(&mut self, id: RelationId, epoch: Epoch) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.joined = Some(epoch);
        if let Some(view) = &job.view {
            view.begins_at(epoch);
        }
        let linear = job.relation.job.as_ref().is_some_and(|j| j.is_linear());
        if !job.told.is_empty() && !linear {
            // It is built from what its receiver was told.
            self.around.sinks.cover(id, epoch);
        }
        for input in &job.inputs {
            // Live messages wait until the leaf has caught up to the barrier of the join.
            if matches!(input.kind, InputKind::Tap { .. }) {
                job.actors[input.fragment].push(Work::Hold(input.leaf));
                job.held.insert((input.fragment, input.leaf));
            }
        }
        for upstream in self.upstreams(id) {
            self.connect(id, upstream, epoch, true);
        }
    }

    /// The rows that `upstream` held when a resumed sink had stopped, as one of its leaves reads
    /// them; none for other jobs.
    fn told(
        &self,
        upstream: RelationId,
        tapping: RelationId,
        input: usize,
    ) -> Result<Option<Vec<RecordBatch>>> {
        let (Some(relation), Some(job)) = (self.jobs.get(&upstream), self.jobs.get(&tapping))
        else {
            return Ok(None);
        };
        let (Some(files), InputKind::Tap { columns, .. }) =
            (job.told.get(&upstream), &job.inputs[input].kind)
        else {
            return Ok(None);
        };
        let former = job.formerly.get(&upstream);
        let read = former.map_or(&relation.relation, |former| &former.relation);
        let place = |c: &usize| former.map_or(Some(*c), |f| f.places.get(c).copied());
        let columns = columns.iter().map(place).collect::<Option<Vec<usize>>>();
        let columns = columns.ok_or_else(|| Error::internal("a column that was not there"))?;
        let (storing, placement) = (&self.around.storing, &self.around.placement);
        let view = read_answer(storing, placement, read, self.id, files)?;
        let (epoch, batch_rows) = (view.base_epoch(), self.reading.batch_rows_max);
        let rows = view.read_at(epoch, epoch, &columns, batch_rows)?;
        Ok(Some(rows))
    }

    /// The barrier of a join has passed the relation that a leaf taps: now it is known what the
    /// leaf has to catch up with.
    pub(super) fn begin_at_join(
        &mut self,
        upstream: RelationId,
        tapping: RelationId,
        input: usize,
        barrier: Barrier,
    ) {
        let barrier = Barrier {
            checkpoint: false,
            ..barrier
        };
        let view = self.jobs.get(&upstream).and_then(|j| j.view.clone());
        let told = catch(|| self.told(upstream, tapping, input));
        let end = self.join_positions.get(&(upstream, barrier.epoch)).cloned();
        let reader = self.jobs.get(&upstream).and_then(Job::reader);
        let floors = reader.map(Source::floors).unwrap_or_default();
        let starts = reader.map(|reader| reader.starts().to_vec());
        let (readers, mergeable) = (self.around.readers.clone(), self.around.readers.mergeable());
        let batch_rows = self.reading.batch_rows_max;
        let Some(job) = self.jobs.get_mut(&tapping).filter(|j| {
            j.joined == Some(barrier.epoch)
                && !matches!(
                    j.inputs[input].kind,
                    InputKind::Tap {
                        state: TapState::Snapshot { .. },
                        ..
                    }
                )
        }) else {
            return;
        };
        let Input {
            kind: InputKind::Tap { columns, state, .. },
            ..
        } = &mut job.inputs[input]
        else {
            return;
        };
        if let Some(view) = view {
            let told = match told {
                Ok(told) => told,
                Err(error) => return self.fail(tapping, error),
            };
            let begun = catch(|| match told {
                Some(told) => {
                    let rows = view.read_at(barrier.epoch, mergeable, columns, batch_rows)?;
                    let linear = job.relation.job.as_ref().is_some_and(|j| j.is_linear());
                    Ok(difference(rows, told, linear))
                }
                None => {
                    // Before this worker has told that it passed the barrier: nobody has merged
                    // past it.
                    let _pin = readers.pin_ahead(barrier.epoch);
                    let rows = view.reading(barrier.epoch, mergeable, columns, batch_rows)?;
                    let reading = Box::new(rows);
                    Ok((SnapshotRows::Read { reading, _pin }, Vec::new()))
                }
            });
            match begun {
                Ok((rows, later)) => {
                    *state = TapState::Snapshot {
                        rows,
                        barrier,
                        later,
                    }
                }
                // What is wrong with the rows of a view is not for its readers to bear.
                Err(error) => self.fail(upstream, error),
            }
        } else if let TapState::CatchUp(catch_up) = state {
            let end = end.unwrap_or_default();
            catch_up.source.set_starts(&starts.unwrap_or_default());
            catch_up.source.learn_floors(&floors);
            match catch_up.source.limit(&end) {
                Ok(()) => catch_up.end = Some((end, barrier)),
                Err(error) => self.fail(tapping, error),
            }
        }
    }

    /// Hands a message of a leaf's own catching up to its actor.
    pub(super) fn feed(&mut self, id: RelationId, fragment: usize, leaf: usize, message: Message) {
        self.count(id, fragment, leaf, &message);
        self.push(id, fragment, Work::Backfill { leaf, message });
    }

    /// Lets a leaf's live messages flow. When all leaves of the job have caught up, who feeds them
    /// waits for it from now on: until then one leaf may wait for another at its first barrier.
    pub(super) fn release(&mut self, id: RelationId, fragment: usize, leaf: usize) {
        self.push(id, fragment, Work::Release(leaf));
        let has_caught_up = self.jobs.get_mut(&id).is_some_and(|job| {
            job.held.remove(&(fragment, leaf));
            job.held.is_empty()
        });
        let feeding = self.jobs.values().filter(|job| !job.is_table());
        for tap in feeding.flat_map(|job| &job.taps) {
            if has_caught_up && tap.job == id {
                tap.edge.set_open(false);
            }
        }
    }
}

/// What a tap sends at its join where a receiver was told what the rows were when a sink stopped:
/// the difference; before that the rows of then, if the sink's query has to know them.
fn difference(
    rows: Vec<RecordBatch>,
    told: Vec<RecordBatch>,
    linear: bool,
) -> (SnapshotRows, Vec<ChangeBatch>) {
    let known = reversed(told.clone(), 1);
    let difference = [reversed(told, -1), reversed(rows, 1)].concat();
    let (batches, later) = if linear {
        (difference, Vec::new())
    } else {
        (known, difference)
    };
    (SnapshotRows::Told(batches), later)
}
