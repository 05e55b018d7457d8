//! What a relation answers at an epoch, whole, to and from files: for jobs that do not run, and for
//! sinks that go on behind what they have told.

use crate::job::build_actors;
use crate::published::{Published, ReadAs, Share};
use crate::storing::Storing;
use std::sync::Arc;
use tidemark_common::{Epoch, Error, Result, TableId, WorkerId, failpoint, machine};
use tidemark_control::{Pin, Placement};
use tidemark_plan::Relation;
use tidemark_state::checkpoint::{FileMeta, WrittenBy, encode_delta};
use tidemark_state::{StateTable, ViewPartition, ViewTable};

/// Rows of one file.
const FILE_ROWS_MAX: usize = 250_000;

/// Stores all rows of the relation at the pinned epoch, a file's worth at a time; waits until the
/// store takes them. The files are named after the epoch `named`.
pub fn store_answer(
    storing: &Storing,
    published: &Published,
    relation: &Relation,
    pin: &Pin,
    named: Epoch,
) -> Result<Vec<FileMeta>> {
    failpoint::check("answer.store")?;
    let (_, shares) = published.shares(relation.id);
    let shares = shares.ok_or_else(|| Error::internal("its rows are gone"))?;
    let (epoch, mergeable) = (pin.epoch(), pin.mergeable());
    let at = ReadAs { epoch, mergeable };
    let mut files = Vec::new();
    for (worker, share) in shares.into_iter().enumerate() {
        files.extend(match share {
            Share::Here(view) => store_share(storing, relation, worker, view, at, named)?,
            Share::There(far) => machine::block_on(far.store(relation, at, named))?,
        });
    }
    Ok(files)
}

/// Stores what one worker of this node has of it.
pub fn store_share(
    storing: &Storing,
    relation: &Relation,
    worker: WorkerId,
    view: Arc<ViewPartition>,
    at: ReadAs,
    named: Epoch,
) -> Result<Vec<FileMeta>> {
    let (table, mut part, mut files) = (ViewTable::of(view), 0, Vec::new());
    let (spec, by) = (table.spec(), WrittenBy::Answer(worker, at.epoch));
    let id = TableId {
        relation: relation.id,
        table: spec.table,
    };
    table.answer_at(at.epoch, at.mergeable, FILE_ROWS_MAX, |delta| {
        let encoded = encode_delta(&spec, delta)?;
        let stored = storing.put(id, by, part, named, encoded);
        files.push(machine::block_on(stored)?);
        part += 1;
        Ok(())
    })?;
    Ok(files)
}

/// A worker's share of what a relation answered once, from its files. An error of a store that is
/// away is `Unavailable`.
pub fn read_answer(
    storing: &Storing,
    placement: &Placement,
    relation: &Relation,
    worker: WorkerId,
    files: &[FileMeta],
) -> Result<Arc<ViewPartition>> {
    let plan = relation.job.as_ref();
    let plan = plan.ok_or_else(|| Error::internal("a relation without a job has no rows"))?;
    let actors = build_actors(relation, plan, placement, worker, &Default::default(), None)?;
    let view = actors.view;
    let view = view.ok_or_else(|| Error::internal("a relation whose rows nobody keeps"))?;
    let mut table = ViewTable::of(view.clone());
    let spec = table.spec();
    let vnodes = placement.spread(relation).vnodes(worker);
    // A worker does not wait for a store that is away: the resume fails, and may be tried again.
    let read = storing.store.read_table(files, &spec, vnodes, |rows| {
        table.restore(&rows);
        Ok(())
    });
    machine::block_on(read)?;
    Ok(view)
}
