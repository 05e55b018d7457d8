//! Ad-hoc reading of an append-only source: its records from the start position to the pinned cut, through the source's own operators, with a reader of its own.

use crate::shared::Shared;
use crate::worker::{Actors, pick};
use arrow::array::RecordBatch;
use std::sync::Arc;
use std::time::Duration;
use tidemark_changelog::connector::Waker;
use tidemark_common::{Error, Result};
use tidemark_control::Pin;
use tidemark_plan::Relation;

/// How often a reader that has nothing is asked again; it also wakes by itself.
const POLL: Duration = Duration::from_millis(20);

/// Reads every worker's share of the splits in turn, so that late rows are decided as in the shared reading.
pub fn scan_source(shared: &Arc<Shared>, source: &Arc<Relation>, columns: &[usize], pin: &Pin, each: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let plan = source.job.as_ref().ok_or_else(|| Error::internal(format!("source \"{}\" has no job", source.name)))?;
    let spec = source.connector.as_ref().ok_or_else(|| Error::internal(format!("source \"{}\" has no connector", source.name)))?;
    let connector = tidemark_connector::open_source(spec, &source.columns)?;
    let start = connector.start()?;
    let end = match pin.positions().get(&source.id) {
        Some(positions) => positions.clone(),
        None => connector.end()?,
    };
    let schema = crate::worker::nullable(&source.arrow_schema());
    let picked = Arc::new(schema.project(columns).map_err(|e| Error::internal(e.to_string()))?);
    for worker in 0..shared.inbox_rows.len() {
        let (wake, woken) = std::sync::mpsc::channel();
        let waker: Waker = Arc::new(move || {
            let _ = wake.send(());
        });
        let mut actors: Actors = crate::worker::build_actors(source, plan, shared, worker, None)?;
        let mut reader = crate::worker::Source::open(shared, worker, source, &start, &[], waker)?;
        reader.set_uncounted();
        let actor = actors.fragments.first_mut().ok_or_else(|| Error::internal("a source without an actor"))?;
        if actor.slots.is_empty() {
            reader.produce(columns.to_vec());
        }
        reader.limit(worker, &end)?;
        let produced = if actor.slots.is_empty() { reader.produced.clone() } else { (0..source.columns.len()).collect() };
        while !reader.has_reached(&end) {
            let Some(batch) = reader.poll(pin.epoch())? else {
                let _ = woken.recv_timeout(POLL);
                continue;
            };
            for batch in actor.run(batch)? {
                each(pick(&batch, &produced, columns, &picked)?.rows().clone())?;
            }
        }
    }
    Ok(())
}
