//! Statements that commit alone and write rows of a query: batch by batch as they come, however
//! many they are.

use super::*;
use futures::TryStreamExt;
use tidemark_plan::Conflict;

/// Fewer rows than this are written where they are met; more would hold up other sessions.
const SHORT_ROWS: usize = 1024;

/// What one batch of a query writes.
pub(super) enum Piece {
    /// Rows that come.
    Appended(RecordBatch),
    /// Rows that leave, and those of the same keys that come in their place.
    Exchanged(RecordBatch, Option<RecordBatch>),
}

impl Piece {
    fn rows(&self) -> usize {
        match self {
            Piece::Appended(rows) | Piece::Exchanged(rows, _) => rows.num_rows(),
        }
    }

    fn write(&self, guard: &SharedGuard, relation: &Relation) -> Result<()> {
        let mut guard = guard.lock();
        match self {
            Piece::Appended(rows) => guard.append(relation.id, rows),
            Piece::Exchanged(old, new) => guard.exchange(relation.id, old, new.as_ref()),
        }
    }
}

/// Writes a piece; a large one on a thread of its own.
pub(super) async fn write_piece(
    guard: &SharedGuard,
    relation: &Arc<Relation>,
    piece: Piece,
) -> Result<()> {
    if piece.rows() < SHORT_ROWS {
        return piece.write(guard, relation);
    }
    let room = guard.lock().await_room();
    room.await?;
    let (guard, relation) = (guard.clone(), relation.clone());
    let written = tokio::task::spawn_blocking(move || {
        let written = piece.write(&guard, &relation);
        drop(guard);
        written
    });
    written.await.map_err(|e| Error::internal(e.to_string()))?
}

impl Asker {
    /// Whether a statement's rows need not be kept: it commits alone, and shows none of them.
    pub(super) fn may_stream(&mut self, returning: Option<&[SelectItem]>) -> bool {
        returning.is_none() && self.transaction.block().is_none()
    }

    /// Whether a statement's new rows may be written batch by batch: a unique index is checked when
    /// all of them are there.
    pub(super) fn may_stream_into(
        &mut self,
        relation: &Relation,
        returning: Option<&[SelectItem]>,
    ) -> bool {
        let merges = relation.conflict == Conflict::Merge;
        self.may_stream(returning) && !merges && !self.catalog().has_unique_index(relation)
    }

    /// Writes what `piece_of` makes of a query's batches, and commits.
    pub(super) async fn write_streamed(
        &mut self,
        guard: SharedGuard,
        relation: &Arc<Relation>,
        (plan, physical): Runnable,
        tag: &'static str,
        mut piece_of: impl FnMut(RecordBatch) -> Result<Piece>,
    ) -> Result<Outcome> {
        let mut rows = self.stream(&plan, physical, None, Tag::Fixed(""))?.stream;
        let mut count = 0;
        while let Some(batch) = rows.try_next().await.map_err(from_datafusion)? {
            if batch.num_rows() == 0 {
                continue;
            }
            let piece = piece_of(batch)?;
            count += piece.rows();
            write_piece(&guard, relation, piece).await?;
        }
        drop(rows);
        match count {
            0 => drop(guard),
            _ => self.commit_guard(guard).await?,
        }
        Ok(Outcome::Command(Tag::Counted(tag).text(count)))
    }
}
