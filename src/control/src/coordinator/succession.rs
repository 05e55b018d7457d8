//! OR REPLACE of a relation on which jobs rest: they go with it.
//!
//! ```text
//! v' is made -> what reads it is made -> the sinks are -> a manifest has -> Succeed -> the sinks
//!  (hidden)      (hidden, in order)       held back       what they told     (logged)   go on
//! ```
//!
//! **Law.** Until `Succeed` is logged the old relations are all there is: they are read and kept up
//! to date as before. It is one entry, and each of the new ones is in a committed checkpoint then:
//! from there on sessions see them all, and the old ones are gone. What is made beside is named so
//! in the catalog ([`tidemark_plan::Catalog::beside`]): a start that finds it has seen no `Succeed`
//! and forgets it, and so does a failure or a cancel.
//!
//! **Sinks** have told their receivers what the old relations had. They are halted as if they were
//! held back, when everything else is there; what they read is kept with that ([`super::answers`]),
//! under the numbers of the new relations as well. When a committed manifest has it, `Succeed`
//! makes their plans read the new ones, and they are resumed: they tell the difference, once
//! ([`super::halted`]). A crash before that finds them held back over the old ones, and after it
//! over the new ones; either way the next start resumes them.
//!
//! `Succeed` is logged when a checkpoint was committed and the next one has not begun, so that no
//! manifest has the catalog from before it without the old relations.

use super::Coordinator;
use super::altering::altered_meanwhile;
use super::ddl::Pending;
use super::halted::IN_USE;
use super::jobs::{Creation, Reading, stopped_error};
use crate::inputs::RequestId;
use crate::protocol::Dependant;
use crate::{CatalogChange, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState, failpoint, machine};
use tidemark_plan::succession::{Followers, Made, Maker, Pairs, Successor, follow};
use tidemark_plan::{Catalog, Relation, Stopped};
use tidemark_state::halted::{Answer, Formerly};

/// A relation that is replaced with all that rests on it.
pub(super) struct Succession {
    /// Who asked.
    request: RequestId,
    /// Old to new, all of them.
    pairs: Pairs,
    /// What is not begun, by its number.
    waiting: BTreeMap<RelationId, Waiting>,
    /// What goes on.
    sinks: BTreeSet<RelationId>,
    /// The sinks do not run any more.
    holds: bool,
}

/// A relation that is made when what it reads is there.
struct Waiting {
    relation: Relation,
    old: RelationId,
    reading: Reading,
}

impl Succession {
    fn numbers(&self) -> BTreeSet<RelationId> {
        self.pairs.values().copied().collect()
    }
}

impl Coordinator {
    /// `CREATE OR REPLACE` with what depends on it.
    pub(super) fn begin_succession(
        &mut self,
        mut relation: Relation,
        creation: Creation,
        dependants: BTreeMap<RelationId, Dependant>,
        request: RequestId,
    ) {
        relation.created_at = None;
        match self.succession(&relation, &creation, dependants, request) {
            Ok(succession) => {
                self.successions.insert(relation.id, succession);
                self.begin_creating(relation, creation, None);
            }
            Err(error) => self.answer(Some(request), Err(error)),
        }
    }

    fn succession(
        &self,
        relation: &Relation,
        creation: &Creation,
        mut dependants: BTreeMap<RelationId, Dependant>,
        request: RequestId,
    ) -> Result<Succession> {
        let mut catalog: Catalog = self.decisions.catalog.clone();
        catalog.relations.retain(|id, _| !self.is_new(*id));
        let old = creation.replaces.and_then(|id| catalog.relations.get(&id));
        let old = old.ok_or_else(|| {
            let message = "the relation was dropped meanwhile";
            Error::user(SqlState::UNDEFINED_TABLE, message)
        })?;
        let mut maker = Known(&dependants);
        let Followers { made, sinks, all } = follow(&catalog, old, relation, &mut maker)?;
        self.check_create(relation, Some(old.id), &all)?;
        self.check_free_to_follow(&all)?;
        for id in all.iter().chain([&old.id]) {
            if let Some(halt) = self.halted.get(id) {
                let relation = &catalog.relations[id];
                if halt.stopped.held && self.creating.contains_key(id) {
                    let (kind, name) = (relation.kind.name(), &relation.name);
                    let message = format!("{kind} \"{name}\" is about to go on");
                    let error = Error::user(SqlState("55006"), message);
                    return Err(error.with_hint("Run it again in a moment."));
                }
                return Err(stopped_error(relation, &halt.stopped));
            }
        }
        let mut pairs = Pairs::from([(old.id, relation.id)]);
        let mut waiting = BTreeMap::new();
        for Made { old, relation, .. } in made {
            pairs.insert(old, relation.id);
            let reading = dependants.remove(&old).map(|d| Reading {
                targets: d.targets,
                begins: d.begins,
            });
            let reading = reading.unwrap_or_else(|| Reading::from(BTreeMap::new()));
            let next = Waiting {
                relation,
                old,
                reading,
            };
            waiting.insert(next.relation.id, next);
        }
        Ok(Succession {
            request,
            pairs,
            waiting,
            sinks,
            holds: false,
        })
    }

    /// What is made beside others, and is not being created any more or not yet.
    pub(super) fn succeeding(&self) -> impl Iterator<Item = (RelationId, Pending)> + '_ {
        let catalog = &self.decisions.catalog;
        let made = catalog.beside.iter().filter_map(|(new, old)| {
            let relation = Relation::clone(catalog.relations.get(new)?);
            let replaces = Some(*old);
            Some((*new, Pending { relation, replaces }))
        });
        let waiting = self.successions.values().flat_map(|s| s.waiting.values());
        let waiting = waiting.map(|w| {
            let (relation, replaces) = (w.relation.clone(), Some(w.old));
            (relation.id, Pending { relation, replaces })
        });
        made.chain(waiting)
    }

    /// The succession that a relation is made for.
    pub(super) fn succession_of(&self, new: RelationId) -> Option<RelationId> {
        let mut all = self.successions.iter();
        let found = all.find(|(_, s)| s.pairs.values().any(|id| *id == new));
        found.map(|(first, _)| *first)
    }

    /// `55006` for a sink that is about to go over.
    pub(super) fn check_not_succeeding(&self, relation: &Relation) -> Result<()> {
        let mut all = self.successions.values();
        if !all.any(|s| s.sinks.contains(&relation.id)) {
            return Ok(());
        }
        let message = format!("what \"{}\" reads is being replaced", relation.name);
        Err(Error::user(IN_USE, message).with_hint("It goes on when that is done."))
    }

    /// A checkpoint was committed: what can be done by now for each of them.
    pub(super) fn advance_successions(&mut self) -> Result<()> {
        self.tell_gone_on();
        let all: Vec<RelationId> = self.successions.keys().copied().collect();
        for first in all {
            if let Err(error) = self.begin_followers(first) {
                self.abandon(first, &error);
                continue;
            }
            self.advance_succession(first)?;
        }
        Ok(())
    }

    /// Begins to make what reads nothing that is not there.
    fn begin_followers(&mut self, first: RelationId) -> Result<()> {
        let Some(succession) = self.successions.get(&first) else {
            return Ok(());
        };
        let is_there = |id: &RelationId| {
            !succession.waiting.contains_key(id) && !self.creating.contains_key(id)
        };
        let ready = succession.waiting.values().filter(|w| {
            let made = |id: &&RelationId| succession.pairs.values().any(|new| new == *id);
            w.relation.depends_on.iter().filter(made).all(is_there)
        });
        let ready: Vec<RelationId> = ready.map(|w| w.relation.id).collect();
        for id in ready {
            let succession = self.successions.get_mut(&first);
            let Some(next) = succession.and_then(|s| s.waiting.remove(&id)) else {
                continue;
            };
            self.check_inputs_run(&next.relation)?;
            let creation = Creation {
                start: Vec::new(),
                reading: next.reading,
                replaces: Some(next.old),
                rows: Vec::new(),
            };
            self.begin_creating(next.relation, creation, None);
        }
        Ok(())
    }

    fn advance_succession(&mut self, first: RelationId) -> Result<()> {
        let Some(succession) = self.successions.get_mut(&first) else {
            return Ok(());
        };
        let relations = &self.decisions.catalog.relations;
        succession.sinks.retain(|sink| relations.contains_key(sink));
        let made = |id: &RelationId| self.decisions.catalog.beside.contains_key(id);
        let (numbers, sinks) = (succession.numbers(), succession.sinks.clone());
        if !numbers
            .iter()
            .all(|id| made(id) && !self.creating.contains_key(id))
        {
            return Ok(());
        }
        if !succession.holds {
            succession.holds = true;
            match self.hold_sinks(&sinks)? {
                Some(error) => self.abandon(first, &error),
                None if sinks.is_empty() => self.succeed(first)?,
                None => {}
            }
            return Ok(());
        }
        match self.lacking(first, &sinks) {
            Lacking::Nothing => self.succeed(first)?,
            Lacking::Yet => self.retained.changed = true,
            Lacking::ForEver(error) => self.abandon(first, &error),
        }
        Ok(())
    }

    /// These sinks tell nothing any more for now. The error of one that does not run already.
    fn hold_sinks(&mut self, sinks: &BTreeSet<RelationId>) -> Result<Option<Error>> {
        let relations = &self.decisions.catalog.relations;
        for sink in sinks {
            if let (Some(halt), Some(sink)) = (self.halted.get(sink), relations.get(sink)) {
                return Ok(Some(stopped_error(sink, &halt.stopped)));
            }
        }
        if sinks.is_empty() {
            return Ok(None);
        }
        let stopped = |id: &RelationId| Stopped {
            epoch: self.stops_at(*id),
            reason: "what it reads is being replaced".into(),
            since: machine::micros(),
            held: true,
        };
        let jobs = sinks.iter().map(|id| (*id, stopped(id))).collect();
        self.hold(jobs, None, |_| {})?;
        failpoint::hit("succession.held");
        Ok(None)
    }

    /// What held sinks have told of is noted under the numbers of what they will read.
    pub(super) fn note_former_inputs(&mut self) {
        let relations = &self.decisions.catalog.relations;
        for succession in self.successions.values() {
            for (old, new) in &succession.pairs {
                let (Some(before), Some(after)) = (relations.get(old), relations.get(new)) else {
                    continue;
                };
                for sink in &succession.sinks {
                    if let Some(halt) = self.halted.get_mut(sink) {
                        note_former(&mut halt.saved.inputs, before, after);
                    }
                }
            }
        }
    }

    /// What a committed manifest lacks of what held sinks have told.
    fn lacking(&self, first: RelationId, sinks: &BTreeSet<RelationId>) -> Lacking {
        let Some(succession) = self.successions.get(&first) else {
            return Lacking::Yet;
        };
        let manifest = self.retained.manifest.as_ref();
        for sink in sinks {
            let Some(relation) = self.decisions.catalog.relations.get(sink) else {
                continue;
            };
            let on_demand = self.sources_on_demand(relation);
            let taps = relation.job.iter().flat_map(|job| job.taps());
            let kept = taps.map(|(id, _)| id).filter(|id| !on_demand.contains(id));
            let kept: BTreeSet<RelationId> = kept.collect();
            let reads = |id: &RelationId| succession.pairs.get(id).unwrap_or(id).to_owned();
            let known = manifest.and_then(|m| m.halted.get(sink));
            if known.is_some_and(|k| kept.iter().all(|id| k.inputs.contains_key(&reads(id)))) {
                continue;
            }
            let halt = self.halted.get(sink).filter(|halt| halt.stopped.held);
            let has = halt.is_some_and(|h| kept.iter().all(|id| h.saved.inputs.contains_key(id)));
            if halt.is_none() || !has && self.answers.is_empty() {
                let message = format!("what sink \"{}\" has told could not be kept", relation.name);
                return Lacking::ForEver(Error::unavailable(SqlState::IO_ERROR, message));
            }
            return Lacking::Yet;
        }
        Lacking::Nothing
    }

    /// Everything is there: the new ones take the places of the old ones.
    fn succeed(&mut self, first: RelationId) -> Result<()> {
        let Some(succession) = self.successions.remove(&first) else {
            return Ok(());
        };
        failpoint::hit("succession.log");
        let pairs = succession.pairs.clone();
        self.record(&[Entry::Changes(vec![CatalogChange::Succeed { pairs }])])?;
        failpoint::hit("succession.logged");
        let decided = self.decisions.decided;
        for new in succession.numbers() {
            self.workers.job_progress(new, "running", 100.0, decided);
        }
        self.show_catalog();
        let old: Vec<RelationId> = succession.pairs.into_keys().collect();
        self.drop_relations(&old)?;
        self.retained.changed = true;
        for sink in &succession.sinks {
            self.resume(*sink, None)?;
        }
        self.going_on.push((succession.request, succession.sinks));
        self.tell_gone_on();
        Ok(())
    }

    /// Answers replacements whose sinks are not about to go on any more: they do, or cannot.
    fn tell_gone_on(&mut self) {
        let (creating, mut gone) = (&self.creating, Vec::new());
        self.going_on.retain_mut(|(request, sinks)| {
            sinks.retain(|sink| creating.contains_key(sink));
            gone.extend(sinks.is_empty().then_some(*request));
            !sinks.is_empty()
        });
        gone.into_iter()
            .for_each(|request| self.done(Some(request)));
    }

    /// Nothing comes of it: the old ones stay.
    pub(super) fn abandon(&mut self, first: RelationId, error: &Error) {
        let Some(succession) = self.successions.remove(&first) else {
            return;
        };
        let begun: Vec<RelationId> = succession.pairs.values().copied().collect();
        let relations = &self.decisions.catalog.relations;
        let logged = begun.iter().filter(|id| relations.contains_key(id));
        let relations: Vec<RelationId> = logged.copied().collect();
        if !relations.is_empty()
            && let Err(log) = self.record(&[Entry::Drop { relations }])
        {
            tracing::error!(%first, error = %log, "an undone replacement could not be logged");
        }
        for id in &begun {
            self.creating.remove(id);
            self.halted.remove(id);
        }
        self.stop_jobs(&begun, false);
        begun.iter().for_each(|id| self.retained.forget(*id));
        self.show_catalog();
        if succession.holds {
            for sink in succession.sinks {
                if let Err(error) = self.resume(sink, None) {
                    tracing::error!(%sink, %error, "a sink that was held back stays so");
                }
            }
        }
        self.answer(Some(succession.request), Err(error.clone()));
    }

    /// A job does not run any more: neither do successions that are made of what reads it.
    pub(super) fn abandon_over(&mut self, job: RelationId, error: &Error) {
        if self.successions.is_empty() {
            return;
        }
        let readers = self.with_readers(job);
        let of = |id: &RelationId| Some((*id, self.succession_of(*id)?));
        let over: Vec<(RelationId, RelationId)> = readers.iter().filter_map(of).collect();
        for (id, first) in over {
            let relation = self.succeeding().find(|(new, _)| *new == id);
            let relation = relation.map(|(_, pending)| pending.relation);
            let creating = || self.creating.get(&id).map(|c| c.relation.clone());
            let error = match relation.or_else(creating).filter(|r| r.id != first) {
                Some(r) => error
                    .clone()
                    .context(format!("{} \"{}\"", r.kind.name(), r.name)),
                None => error.clone(),
            };
            self.abandon(first, &error);
        }
    }
}

/// What follows as the session planned it that asks.
struct Known<'a>(&'a BTreeMap<RelationId, Dependant>);

impl Maker for Known<'_> {
    fn number(&mut self, of: &Relation) -> Result<RelationId> {
        let number = self.0.get(&of.id).map(|d| d.number);
        number.ok_or_else(|| altered_meanwhile(of))
    }

    fn plan(
        &mut self,
        of: &Relation,
        _: &Relation,
        _: &[(RelationId, Relation)],
    ) -> Result<Option<Relation>> {
        let planned = self.0.get(&of.id).and_then(|d| d.planned.clone());
        Ok(planned.map(|planned| *planned))
    }
}

/// What a sink lacks before it can go over.
enum Lacking {
    Nothing,
    /// It comes with a checkpoint.
    Yet,
    ForEver(Error),
}

fn note_former(
    inputs: &mut BTreeMap<RelationId, Answer>,
    before: &Arc<Relation>,
    after: &Arc<Relation>,
) {
    if inputs.contains_key(&after.id) {
        return;
    }
    if let Some(answer) = inputs.get(&before.id) {
        let formerly = Formerly {
            relation: before.clone(),
            places: Successor::of(before, after).former_places(),
        };
        let answer = Answer {
            formerly: Some(formerly),
            ..answer.clone()
        };
        inputs.insert(after.id, answer);
    }
}

#[cfg(test)]
mod tests;
