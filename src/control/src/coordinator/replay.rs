//! Replay: the epochs that were decided after the last checkpoint pass the workers once more, each
//! up to its cut. A coordinator that has been started with what is stored is not open before that
//! is done: nothing is read, nothing new is decided.

use super::Coordinator;
use super::recovery::LoggedStop;
use crate::Cut;
use crate::protocol::{BarrierCommand, Command, Floors, Positions};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tidemark_common::{Epoch, RelationId, Result, machine};
use tidemark_state::manifest::Manifest;

/// What is left of an opening.
pub(super) struct Replay {
    /// Workers that have not told yet that they have built every job.
    building: usize,
    cuts: VecDeque<Cut>,
    /// Jobs that stopped in them, where they did.
    stops: BTreeMap<RelationId, LoggedStop>,
    /// Where every source stands at the end of the epoch that was sent last.
    limits: Positions,
    epochs: usize,
    began: Instant,
    decided: Epoch,
}

impl Replay {
    /// Of these epochs, in order.
    pub fn new(
        coordinator: &Coordinator,
        cuts: VecDeque<Cut>,
        stops: BTreeMap<RelationId, LoggedStop>,
        manifest: Option<&Manifest>,
    ) -> Replay {
        let mut limits: Positions = manifest.map(|m| m.sources.clone()).unwrap_or_default();
        // A source on demand that none of the cuts mentions stays where it starts.
        for id in &coordinator.running {
            if let Some(start) = coordinator.decisions.starts.get(id) {
                limits.entry(*id).or_insert_with(|| start.clone());
            }
        }
        Replay {
            building: coordinator.workers.count(),
            epochs: cuts.len(),
            cuts,
            stops,
            limits,
            began: machine::now(),
            decided: coordinator.decisions.decided,
        }
    }

    /// A worker has built every job.
    pub fn settled(&mut self) {
        self.building = self.building.saturating_sub(1);
    }
}

impl Coordinator {
    /// Whether the last decided epoch is complete again: reads may open.
    pub fn is_open(&self) -> bool {
        self.opening.is_none()
    }

    /// Goes on with the opening as far as is told.
    pub(super) fn go_on_opening(&mut self) -> Result<()> {
        let Some(mut replay) = self.opening.take() else {
            return Ok(());
        };
        if replay.building == 0 {
            self.complete_replayed();
            self.send_replayed(&mut replay)?;
            if replay.cuts.is_empty() && self.in_flight.is_empty() {
                return self.open(replay);
            }
        }
        self.opening = Some(replay);
        Ok(())
    }

    /// Sends the barriers of decided epochs with their limits, some at a time. A job that stopped
    /// in them stops where it did.
    fn send_replayed(&mut self, replay: &mut Replay) -> Result<()> {
        while self.in_flight.len() < super::EPOCHS_IN_FLIGHT_MAX {
            let Some(next) = replay.cuts.front().map(|cut| cut.epoch) else {
                break;
            };
            let due = |stop: &LoggedStop| stop.stopped.epoch < next;
            if replay.stops.values().any(due) {
                if !self.in_flight.is_empty() {
                    break;
                }
                let stops = replay.stops.extract_if(.., |_, stop| due(stop));
                self.stop_as_logged(stops.collect())?;
            }
            let Some(cut) = replay.cuts.pop_front() else {
                break;
            };
            replay.limits.extend(cut.positions.clone());
            self.replay_cut(cut, &replay.limits);
        }
        Ok(())
    }

    fn replay_cut(&mut self, cut: Cut, limits: &Positions) {
        self.push_in_flight(cut.epoch, cut.clock, false, cut.writes.clone(), Vec::new());
        if let Some(flight) = self.in_flight.back_mut() {
            flight.decided = true;
            flight.stands = Arc::new(limits.clone());
        }
        let writes = cut.writes.into_iter();
        let writes = writes.filter(|w| self.running.contains(&w.table)).collect();
        let barrier = BarrierCommand {
            epoch: cut.epoch,
            clock: cut.clock,
            checkpoint: false,
            writes,
            errors: cut.errors,
            limits: Some(limits.clone()),
            horizons: BTreeMap::new(),
            watermarks: cut.watermarks,
            floors: Floors::new(),
        };
        self.workers.broadcast(Command::Barrier(Arc::new(barrier)));
    }

    /// Epochs that all workers have completed can be read apart from later ones no more.
    fn complete_replayed(&mut self) {
        let is_over = |done: &[bool], cuts: &[bool]| done.iter().chain(cuts).all(|told| *told);
        while let Some(flight) = self
            .in_flight
            .pop_front_if(|flight| is_over(&flight.done, &flight.cuts))
        {
            self.retained.changed = true;
            self.readers
                .begin_at(flight.epoch, flight.stands, &self.running);
            self.workers.broadcast(Command::Publish {
                needed: self.readers.needed().into(),
            });
        }
    }

    /// All is complete: sessions see it, sinks deliver, sources read on.
    fn open(&mut self, replay: Replay) -> Result<()> {
        self.stop_as_logged(replay.stops)?;
        if replay.epochs > 0 {
            tracing::info!(
                epochs = replay.epochs,
                seconds = machine::elapsed(replay.began).as_secs_f64(),
                "decided epochs replayed"
            );
        }
        self.log_rows_from_now_on()?;
        self.show_catalog();
        let positions = Arc::new(self.decisions.positions.clone());
        self.readers
            .begin_at(replay.decided, positions, &self.running);
        self.workers.release_sinks(&self.running);
        self.workers.broadcast(Command::Publish {
            needed: [replay.decided].into(),
        });
        self.read_all_splits();
        self.workers.broadcast(Command::Resume);
        Ok(())
    }
}
