//! A relation's rows and then their changes, as they happen: what SUBSCRIBE sends.
//!
//! **Law.** The rows as of the first epoch and the changes of all later ones, summed, are at the
//! end of each epoch the relation as of that epoch. Epochs may come several at a time, as one.
//!
//! Who follows has pinned the epoch that was read last, so that what changed since is kept apart.
//! One that does not come back in time loses that, and is told so, as any reader.

use crate::engine::{Engine, Pin};
use crate::sinks::rows_that;
use arrow::array::RecordBatch;
use std::collections::VecDeque;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, machine};
use tidemark_control::coordinator::stopped_error;
use tidemark_state::{Reading, ViewPartition};
use tidemark_worker::{Pieces, ReadAs, Share};

/// Rows of a piece of what there is at the beginning.
const PIECE_ROWS: usize = 4096;

/// See the module.
pub struct Following {
    engine: Engine,
    relation: RelationId,
    name: String,
    /// What came last belongs to it.
    epoch: Epoch,
    /// Keeps apart what changed since.
    pin: Pin,
    /// What is still to be read of the first epoch.
    stock: Vec<Stock>,
    /// What changed up to that epoch.
    changes: VecDeque<ChangeBatch>,
    /// Why nothing comes behind that.
    end: Option<Error>,
}

/// Rows with all columns of the relation, hidden ones too, each as often as it goes or comes.
pub struct Happened {
    /// They are not there any more.
    pub gone: RecordBatch,
    /// They are there.
    pub come: RecordBatch,
}

enum Stock {
    Here(Box<Reading>),
    There(Box<dyn Pieces>),
}

impl Stock {
    async fn of(share: Share, at: ReadAs, columns: &[usize]) -> Result<Stock> {
        match share {
            Share::Here(view) => {
                let reading = view.reading(at.epoch, at.mergeable, columns, PIECE_ROWS)?;
                Ok(Stock::Here(Box::new(reading)))
            }
            Share::There(far) => Ok(Stock::There(far.scan(at, columns, None).await?)),
        }
    }

    async fn next(&mut self) -> Result<Option<ChangeBatch>> {
        let piece = match self {
            Stock::Here(reading) => reading.next_piece()?,
            Stock::There(pieces) => pieces.next().await?,
        };
        Ok(piece.map(ChangeBatch::insert))
    }
}

impl Engine {
    /// Follows a relation that keeps rows, from the newest epoch on at which it can be read; with
    /// `stock` what it has then comes first.
    pub async fn follow(&self, relation: RelationId, stock: bool) -> Result<Following> {
        let pin = self.pin_when(&[relation], Epoch(0)).await?;
        let catalog = self.catalog();
        let known = catalog.relations.get(&relation);
        let mut following = Following {
            engine: self.clone(),
            relation,
            name: known.map_or_else(String::new, |relation| relation.name.clone()),
            epoch: pin.epoch(),
            pin,
            stock: Vec::new(),
            changes: VecDeque::new(),
            end: None,
        };
        if stock {
            let columns = known.map_or(0, |relation| relation.columns.len());
            let columns: Vec<usize> = (0..columns).collect();
            let answer = self.answer(relation, following.epoch)?;
            following.epoch = answer.at.epoch;
            for share in answer.shares {
                let stock = Stock::of(share, answer.at, &columns).await?;
                following.stock.push(stock);
            }
        }
        Ok(following)
    }
}

impl Following {
    /// The epoch that what came last belongs to.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What comes next; waits for it.
    ///
    /// Errors: `42P01` when the relation is not there any more, `55000` when its job has stopped,
    /// `72000` when what changed is not kept any more.
    pub async fn next(&mut self) -> Result<Happened> {
        let changes = self.next_changes().await?;
        Ok(Happened {
            gone: rows_that(&changes, -1),
            come: rows_that(&changes, 1),
        })
    }

    async fn next_changes(&mut self) -> Result<ChangeBatch> {
        loop {
            while let Some(stock) = self.stock.last_mut() {
                match stock.next().await? {
                    Some(rows) if !rows.is_empty() => return Ok(rows),
                    Some(_) => {}
                    None => drop(self.stock.pop()),
                }
            }
            match self.changes.pop_front() {
                Some(changes) if !changes.is_empty() => return Ok(changes),
                Some(_) => {}
                None => self.go_on().await.map_err(|e| self.explained(e))?,
            }
        }
    }

    /// Waits for the next epoch, and reads what changed.
    async fn go_on(&mut self) -> Result<()> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let (since, id) = (self.epoch, self.relation);
        let next = self.engine.pin_when(&[id], since.next()).await?;
        let catalog = self.engine.catalog();
        let relation = catalog.relations.get(&id).ok_or_else(|| self.is_gone())?;
        let answer = self.engine.answer(id, next.epoch())?;
        if answer.at.epoch > since {
            self.epoch = answer.at.epoch;
            for share in answer.shares {
                let changes = &mut self.changes;
                match share {
                    Share::Here(view) => changes.push_back(here(view, since, answer.at).await?),
                    Share::There(far) => changes.extend(far.changes(since, answer.at).await?),
                }
            }
        }
        if answer.at.epoch < next.epoch() {
            // Its job does not run.
            let stopped = catalog.stopped.get(&id);
            let why = stopped.map(|stopped| stopped_error(relation, stopped));
            self.end = Some(why.unwrap_or_else(|| self.is_not_kept()));
        }
        self.pin = next;
        Ok(())
    }

    fn is_gone(&self) -> Error {
        let message = format!("relation \"{}\" was dropped or replaced", self.name);
        Error::user(SqlState::UNDEFINED_TABLE, message)
    }

    fn is_not_kept(&self) -> Error {
        let message = format!("changes of \"{}\" are not kept any more", self.name);
        Error::user(SqlState("72000"), message)
            .with_detail(format!(
                "What changed after epoch {} was not taken in time, or its job began anew.",
                self.epoch
            ))
            .with_hint("Subscribe again. A subscription keeps changes for as long as it says.")
    }

    fn explained(&self, error: Error) -> Error {
        match error.state() == SqlState("72000") {
            true => self.is_not_kept(),
            false => error,
        }
    }
}

async fn here(view: Arc<ViewPartition>, since: Epoch, at: ReadAs) -> Result<ChangeBatch> {
    machine::blocking(move || view.changes_since(since, at.epoch)).await?
}
