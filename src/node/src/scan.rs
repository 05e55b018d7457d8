//! Ad-hoc reading of an append-only source: its records from the start position to the pinned cut,
//! through the source's own operators, with a reader of its own. What is gone meanwhile, at the
//! start or in between, is said.

use crate::beginning::{Beginning, missing_notice};
use arrow::array::RecordBatch;
use std::sync::Arc;
use std::time::Duration;
use tidemark_changelog::connector::Waker;
use tidemark_common::{Error, Result};
use tidemark_control::Pin;
use tidemark_plan::Relation;
use tidemark_worker::{Actors, Published, Reading, Source, build_actors, nullable, pick};

/// How often a reader that has nothing is asked again; it also wakes by itself.
const POLL: Duration = Duration::from_millis(20);

/// Reads every worker's share of the splits in turn, so that late rows are decided as in the shared
/// reading.
pub fn scan_source(
    reading: &Reading,
    published: &Published,
    source: &Arc<Relation>,
    columns: &[usize],
    pin: &Pin,
    notice: &mut dyn FnMut(String),
    each: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let plan = source
        .job
        .as_ref()
        .ok_or_else(|| Error::internal(format!("source \"{}\" has no job", source.name)))?;
    let connector = reading.outside.source(source)?;
    let start = pin.start_of(source.id, || {
        let known = published.starts().remove(&source.id);
        let start = known.map_or_else(|| connector.start(), Ok)?;
        let beginning = Beginning::now(start, connector.as_ref())?;
        beginning.notice(source).into_iter().for_each(&mut *notice);
        Ok(beginning.positions)
    })?;
    let end = pin.end_of(source.id, || connector.readable())?;
    let floors = pin.floors();
    let floors = floors.get(&source.id).map_or(&[][..], Vec::as_slice);
    let schema = nullable(&source.arrow_schema());
    // Where only the number of rows matters, a view reads this column, and leaves out rows of which
    // it could not be read.
    let read = if columns.is_empty() {
        vec![tidemark_plan::narrowest(&schema)]
    } else {
        columns.to_vec()
    };
    let read_schema = Arc::new(
        schema
            .project(&read)
            .map_err(|e| Error::internal(e.to_string()))?,
    );
    let picked = Arc::new(
        schema
            .project(columns)
            .map_err(|e| Error::internal(e.to_string()))?,
    );
    let mut missing = 0;
    for worker in 0..reading.placement.workers() {
        let (wake, woken) = std::sync::mpsc::channel();
        let waker: Waker = Arc::new(move || {
            let _ = wake.send(());
        });
        let mut actors: Actors = build_actors(
            source,
            plan,
            &reading.placement,
            worker,
            &Default::default(),
            None,
        )?;
        let mut reader = Source::open(reading, worker, source, &start, floors, waker)?;
        reader.set_uncounted();
        let actor = actors
            .fragments
            .first_mut()
            .ok_or_else(|| Error::internal("a source without an actor"))?;
        if actor.slots.is_empty() {
            reader.produce(read.clone());
        }
        reader.limit(&end)?;
        let produced = if actor.slots.is_empty() {
            reader.produced.clone()
        } else {
            (0..source.columns.len()).collect()
        };
        while !reader.has_reached(&end) {
            let Some(batch) = reader.poll(pin.epoch())? else {
                let _ = woken.recv_timeout(POLL);
                // Who does not wait any more says so here, also when the broker is away.
                each(RecordBatch::new_empty(picked.clone()))?;
                continue;
            };
            for batch in actor.run(batch)? {
                let rows = pick(&batch, &produced, &read, &read_schema)?;
                each(
                    rows.rows()
                        .project(&(0..columns.len()).collect::<Vec<_>>())
                        .map_err(|e| Error::internal(e.to_string()))?,
                )?;
            }
        }
        missing += reader.fewer_than(&end);
    }
    if missing > 0 {
        notice(missing_notice(source, missing));
    }
    Ok(())
}
