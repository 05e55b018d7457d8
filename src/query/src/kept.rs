//! Statements that cost no plan: lookups by key ([`point`]), writes by key
//! ([`crate::dml::by_key`]), and queries whose plans are kept ([`plans`]), some of them for
//! whatever values a query has.
//!
//! A prepared statement keeps its own form. A client that writes its constants into the text sends
//! another text each time, so a session keeps forms by the texts without constants
//! ([`mod@normalised`]). A form is found once for a catalog and a session's settings. What has
//! none is parsed and planned, and so is a statement whose form has no answer for the values that
//! came: it gets the same answer by either way, or the same error, which the planner gives.

mod normalised;
mod plans;

use crate::asker::Asker;
use crate::dml::by_key;
use crate::outcome::{Outcome, Rows, Status};
use crate::parameters::{self, Parameter};
use crate::serving::point;
use crate::serving::slots::may_have_slots;
use datafusion::sql::sqlparser::ast::Statement;
use normalised::{Normalised, normalised};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_planner::statement::StatementKind;

/// A statement of such a form.
pub enum Kept {
    /// A SELECT.
    Lookup(point::Kept),
    /// An INSERT, UPDATE or DELETE.
    Write(by_key::Kept),
    /// A SELECT whose plan may take other values, and what it looks up if it is of that form.
    Query {
        /// Its text.
        text: String,
        /// What it looks up.
        lookup: Option<point::Kept>,
    },
}

impl Kept {
    /// A statement to be kept; `None` for one that is of no such form.
    pub fn of(statement: &Statement) -> Option<Kept> {
        let lookup = point::Kept::of(statement).map(Kept::Lookup);
        lookup.or_else(|| by_key::Kept::of(statement).map(Kept::Write))
    }
}

/// Texts that are kept at most.
const TEXTS_MAX: usize = 100;

/// The statements of a session by their texts without constants; none where a text is none.
#[derive(Default)]
pub struct Texts(HashMap<String, Option<Arc<Kept>>>);

impl Texts {
    /// The kept statement that a text is, and the constants in the text; `None` for all others,
    /// which are to be parsed.
    pub fn find(&mut self, text: &str) -> Option<(Arc<Kept>, Vec<Parameter>)> {
        let Normalised { text, constants } = normalised(text)?;
        Some((self.get(text)?, constants))
    }

    fn get(&mut self, text: String) -> Option<Arc<Kept>> {
        if let Some(known) = self.0.get(&text) {
            return known.clone();
        }
        let known = parsed(&text).and_then(|sql| {
            let query = |lookup| Kept::Query {
                text: text.clone(),
                lookup,
            };
            match (Kept::of(&sql), may_have_slots(&sql)) {
                (Some(Kept::Lookup(lookup)), true) => Some(query(Some(lookup))),
                (None, true) => Some(query(None)),
                (kept, _) => kept,
            }
        });
        let known = known.map(Arc::new);
        if self.0.len() >= TEXTS_MAX {
            self.0.clear();
        }
        self.0.insert(text, known.clone());
        known
    }
}

/// The tree of a text that is one statement.
fn parsed(text: &str) -> Option<Statement> {
    let parsed = tidemark_planner::parse(text).ok()?;
    match <[_; 1]>::try_from(parsed).map(|[one]| one.kind) {
        Ok(StatementKind::Sql(sql)) => Some(*sql),
        _ => None,
    }
}

impl Asker {
    /// Runs a statement of a kept form; `None` for one that is to be planned.
    pub async fn run_kept(
        &mut self,
        kept: &Kept,
        parameters: &[Parameter],
    ) -> Result<Option<Outcome>> {
        match kept {
            Kept::Lookup(kept) => {
                let rows = self.look_up(kept, parameters).await?;
                Ok(rows.map(Outcome::Rows))
            }
            // Its future is larger than a lookup's, which is not to carry it.
            Kept::Write(kept) => Box::pin(self.write_by_key(kept, parameters)).await,
            Kept::Query { text, lookup } => {
                if let Some(lookup) = lookup
                    && let Some(rows) = self.look_up(lookup, parameters).await?
                {
                    return Ok(Some(Outcome::Rows(rows)));
                }
                let written = parameters::written(parameters);
                let run = self.run_with_values(text, &written, || parsed(text));
                Ok(Box::pin(run).await?.map(Outcome::Rows))
            }
        }
    }

    /// Rows of a lookup; `None` for one that is to be planned.
    async fn look_up(
        &mut self,
        kept: &point::Kept,
        parameters: &[Parameter],
    ) -> Result<Option<Rows>> {
        // The catalog before the epoch, as of a snapshot, which costs more than the lookup.
        let lookup = match kept.known(&self.commons.engine, &self.settings) {
            Some(lookup) => lookup,
            None => kept.find(&self.snapshot(kept.statement()).await?),
        };
        let Some(lookup) = lookup else {
            return Ok(None);
        };
        let Some(keys) = lookup.keys(parameters) else {
            return Ok(None);
        };
        let relation = lookup.relation().id;
        // Outside of a block nothing is read at this epoch again: it need not be pinned.
        if self.status() == Status::Idle {
            let at_least = self.written_for(&[relation]);
            let answer = self.commons.engine.answer_now(relation, at_least);
            if let Some(answer) = answer
                && let Some(rows) = lookup.rows(&answer, &keys).await
            {
                return Ok(Some(rows));
            }
        }
        let written = self.transaction.written();
        if written.is_some_and(|(_, tables)| tables.contains(&relation)) {
            return Ok(None);
        }
        let pin = self.read_pin(&[relation]).await?;
        match self.commons.engine.answer(relation, pin.epoch()) {
            Ok(answer) => Ok(lookup.rows(&answer, &keys).await),
            Err(_) => Ok(None),
        }
    }
}
