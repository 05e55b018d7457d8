//! A relation's rows and then their changes, as they happen: what SUBSCRIBE sends.
//!
//! **Law.** The rows as of the first epoch and the changes of all later ones, summed, are at the end
//! of each epoch the relation as of that epoch. Epochs may come several at a time, as one.
//!
//! Who follows has pinned the epoch that was read last, so that what changed since is kept apart.
//! One that does not come back in time loses that, and is told so, as any reader.

use crate::engine::{Engine, Pin};
use std::collections::VecDeque;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, machine};
use tidemark_state::{Reading, ViewPartition};
use tidemark_worker::{Pieces, ReadAs, Share};

/// Rows of a piece of what there is at the beginning.
const PIECE_ROWS: usize = 4096;

/// See the module.
pub struct Following {
    engine: Engine,
    relation: RelationId,
    name: String,
    /// What was read last.
    pin: Pin,
    /// What is still to be read of the first epoch.
    stock: Vec<Stock>,
    /// What changed up to the pinned epoch.
    changes: VecDeque<ChangeBatch>,
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
    /// Follows a relation that keeps rows, from the newest epoch on, which is `at_least`; with
    /// `stock` what it has then comes first.
    pub async fn follow(
        &self,
        relation: RelationId,
        at_least: Epoch,
        stock: bool,
    ) -> Result<Following> {
        let pin = self.pin_when(&[relation], at_least).await?;
        let catalog = self.catalog();
        let known = catalog.relations.get(&relation);
        let mut following = Following {
            engine: self.clone(),
            relation,
            name: known.map_or_else(String::new, |relation| relation.name.clone()),
            pin,
            stock: Vec::new(),
            changes: VecDeque::new(),
        };
        if stock {
            let columns = known.map_or(0, |relation| relation.columns.len());
            let columns: Vec<usize> = (0..columns).collect();
            let answer = self.answer(relation, following.epoch())?;
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
        self.pin.epoch()
    }

    /// What comes next, with all columns of the relation, hidden ones too; waits for it.
    ///
    /// Errors: `42P01` when the relation is not there any more, `72000` when what changed is not
    /// kept any more.
    pub async fn next(&mut self) -> Result<ChangeBatch> {
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
        let since = self.epoch();
        let relation = [self.relation];
        let next = self.engine.pin_when(&relation, since.next()).await?;
        if !self.engine.catalog().relations.contains_key(&self.relation) {
            return Err(self.is_gone());
        }
        let answer = self.engine.answer(self.relation, next.epoch())?;
        for share in answer.shares {
            match share {
                Share::Here(view) => self.changes.push_back(here(view, since, answer.at).await?),
                Share::There(far) => self.changes.extend(far.changes(since, answer.at).await?),
            }
        }
        self.pin = next;
        Ok(())
    }

    fn is_gone(&self) -> Error {
        let message = format!("relation \"{}\" was dropped or replaced", self.name);
        Error::user(SqlState::UNDEFINED_TABLE, message)
    }

    fn explained(&self, error: Error) -> Error {
        match error.state() == SqlState("72000") {
            true => Error::user(
                SqlState("72000"),
                format!("changes of \"{}\" are not kept any more", self.name),
            )
            .with_detail(format!(
                "What changed after epoch {} was not taken in time, or its job began anew.",
                self.epoch()
            ))
            .with_hint("Subscribe again. A subscription keeps changes for as long as it says."),
            false => error,
        }
    }
}

async fn here(view: Arc<ViewPartition>, since: Epoch, at: ReadAs) -> Result<ChangeBatch> {
    machine::blocking(move || view.changes_since(since, at.epoch)).await?
}
