//! The state that the log's entries build up: the catalog, the decided epoch with its positions,
//! the last checkpoint. Applying an entry is determined and cannot fail: it is what every replica
//! will do.

use crate::protocol::Floors;
use crate::{CatalogChange, Entry};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::connector::{Floor, SinkMarker, SplitPosition};
use tidemark_common::{Epoch, RelationId};
use tidemark_plan::succession::Pairs;
use tidemark_plan::{Catalog, Object, Relation, RelationKind, SecretName};

/// The result of all entries so far.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// Index of the last entry applied.
    pub index: u64,
    /// Number of this incarnation.
    pub generation: u64,
    /// All relations, also those whose job no checkpoint contains yet.
    pub catalog: Catalog,
    /// Where each source starts.
    pub starts: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// The last decided epoch.
    pub decided: Epoch,
    /// Its clock.
    pub clock: i64,
    /// Where each running source stands at the end of `decided`.
    pub positions: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// What was decided of splits of each source that brought nothing, in order of split and
    /// offset.
    pub floors: Arc<Floors>,
    /// What sinks into tables have delivered.
    pub markers: BTreeMap<RelationId, SinkMarker>,
    /// The last committed checkpoint: its epoch and its manifest's path.
    pub checkpoint: Option<(Epoch, String)>,
}

impl Decisions {
    /// Applies the entry with this index.
    pub fn apply(&mut self, index: u64, entry: &Entry) {
        self.index = index;
        match entry {
            Entry::Opened { generation } => self.generation = self.generation.max(*generation),
            Entry::Cut(cut) => {
                assert!(
                    cut.epoch > self.decided,
                    "epoch {} is decided after {}",
                    cut.epoch,
                    self.decided
                );
                assert!(
                    cut.clock >= self.clock,
                    "the clock of epoch {} goes back",
                    cut.epoch
                );
                self.decided = cut.epoch;
                self.clock = cut.clock;
                let delivered = cut.markers.iter().filter(|(sink, _)| {
                    // One that was dropped meanwhile needs none.
                    self.catalog.relations.contains_key(sink)
                });
                let delivered = delivered.map(|(sink, marker)| (*sink, marker.clone()));
                self.markers.extend(delivered);
                for (source, positions) in &cut.positions {
                    self.positions.insert(*source, positions.clone());
                }
                self.put_floors(&cut.floors);
            }
            Entry::Create {
                relation, start, ..
            } => self.create(relation, start),
            Entry::AddSplits { relation, start } => {
                let known = self.starts.entry(*relation).or_default();
                known.extend(
                    start
                        .iter()
                        .filter(|s| !known.iter().any(|k| k.split == s.split))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
            Entry::LogRows { relation, after } => {
                if let Some(relation) = self.catalog.relations.get_mut(relation) {
                    Arc::make_mut(relation).logs_rows = Some(*after);
                }
            }
            Entry::Drop { relations } => relations.iter().for_each(|id| self.forget(*id)),
            Entry::Change(change) => self.change(change),
            Entry::Resume { relation } => drop(self.catalog.stopped.remove(relation)),
            Entry::Changes(changes) => changes.iter().for_each(|change| self.change(change)),
            Entry::Stop { relation, stopped } => {
                self.catalog.stopped.insert(*relation, stopped.clone());
                self.positions.remove(relation);
            }
            Entry::Checkpoint {
                epoch, manifest, ..
            } => {
                self.checkpoint = Some((*epoch, manifest.clone()));
                self.replace_contained(*epoch);
            }
        }
    }

    /// The least time that all splits of a source have reached ([`SplitPosition::time_ms`]); it
    /// never decreases, because new splits begin with it.
    pub fn horizon(&self, source: RelationId) -> i64 {
        self.splits(source).map(|p| p.time_ms).min().unwrap_or(-1)
    }

    /// The least of the largest event times of all splits of a source, once all have one: what its
    /// watermark rests on.
    pub fn event_time(&self, source: RelationId) -> Option<i64> {
        self.splits(source)
            .map(|p| p.event_time_micros)
            .min()
            .flatten()
    }

    /// What a source promises of the event times of rows to come; none as long as some split has no
    /// row.
    pub fn watermark(&self, source: RelationId) -> Option<i64> {
        let watermark = self.catalog.relations.get(&source)?.watermark.as_ref()?;
        Some(
            self.event_time(source)?
                .saturating_sub(watermark.delay_micros),
        )
    }

    pub(crate) fn put_floors(&mut self, floors: &Floors) {
        let known = |id: &RelationId| self.catalog.relations.contains_key(id);
        let floors = floors.iter().filter(|(source, _)| known(source));
        for (source, put) in floors {
            let floors = Arc::make_mut(&mut self.floors).entry(*source).or_default();
            put.iter().for_each(|floor| floor.put(floors));
        }
    }

    /// What was decided of the splits of a source that brought nothing.
    pub fn floors_of(&self, source: RelationId) -> Vec<Floor> {
        self.floors.get(&source).cloned().unwrap_or_default()
    }

    /// Where all splits of a source stand, also those that no cut has yet.
    pub fn splits(&self, source: RelationId) -> impl Iterator<Item = &SplitPosition> {
        let positions = self.positions.get(&source).map_or(&[][..], Vec::as_slice);
        self.starts.get(&source).into_iter().flatten().map(|start| {
            positions
                .iter()
                .find(|p| p.split == start.split)
                .unwrap_or(start)
        })
    }

    fn create(&mut self, relation: &Relation, start: &[SplitPosition]) {
        self.catalog.next_id = self.catalog.next_id.max(relation.id.0 + 1);
        if !start.is_empty() {
            self.starts.insert(relation.id, start.to_vec());
        }
        self.catalog
            .relations
            .insert(relation.id, Arc::new(relation.clone()));
        if !matches!(
            relation.kind,
            RelationKind::Index | RelationKind::Sink | RelationKind::Function
        ) {
            let (object, schema) = (Object::Relation(relation.id), &relation.schema_name);
            self.catalog
                .grant_defaults(&object, &relation.owner, Some(schema));
        }
    }

    /// The relations that are gone when a checkpoint of `epoch` is committed, because it contains
    /// those that take their place: new and old.
    pub fn replaced_at(&self, epoch: Epoch) -> Vec<(RelationId, RelationId)> {
        let relations = &self.catalog.relations;
        let contained = |new: &RelationId| {
            relations
                .get(new)
                .is_some_and(|r| r.created_at <= Some(epoch))
        };
        let pairs = self.catalog.replacing.iter();
        pairs
            .filter(|(new, _)| contained(new))
            .map(|(new, old)| (*new, *old))
            .collect()
    }

    /// A checkpoint of `epoch` counts: what it contains takes the place of what it replaces, with
    /// that one's comment, and with the plain views and indexes that name it.
    pub fn replace_contained(&mut self, epoch: Epoch) {
        for (new, old) in self.replaced_at(epoch) {
            self.catalog.read_successors(&[(old, new)].into());
            self.take_place(old, new);
            self.catalog.replacing.remove(&new);
        }
    }

    /// What is said of the old one is said of the new one, and the old one is gone.
    fn take_place(&mut self, old: RelationId, new: RelationId) {
        let relations = &mut self.catalog.relations;
        let comment = relations.get(&old).and_then(|r| r.comment.clone());
        if let Some(relation) = relations.get_mut(&new).filter(|r| r.comment.is_none()) {
            Arc::make_mut(relation).comment = comment;
        }
        self.catalog.grants.pass_on(old, new);
        self.forget(old);
    }

    /// All of these take the places of others, or none.
    fn succeed(&mut self, pairs: &Pairs) {
        if !self.catalog.read_successors(pairs) {
            return;
        }
        for (old, new) in pairs {
            self.catalog.beside.remove(new);
            self.take_place(*old, *new);
        }
    }

    /// Removes everything known of a relation.
    pub fn forget(&mut self, id: RelationId) {
        self.catalog
            .replacing
            .retain(|new, old| *new != id && *old != id);
        self.catalog.beside.remove(&id);
        self.catalog.relations.remove(&id);
        self.catalog.grants.forget(&Object::Relation(id));
        self.catalog.stopped.remove(&id);
        self.starts.remove(&id);
        self.positions.remove(&id);
        self.markers.remove(&id);
        if self.floors.contains_key(&id) {
            Arc::make_mut(&mut self.floors).remove(&id);
        }
    }

    fn update(&mut self, id: &RelationId, change: impl FnOnce(&mut Relation)) {
        if let Some(relation) = self.catalog.relations.get_mut(id) {
            change(Arc::make_mut(relation));
        }
    }

    fn change(&mut self, change: &CatalogChange) {
        match change {
            CatalogChange::Create {
                relation, start, ..
            } => self.create(relation, start),
            CatalogChange::Drop { relations } => relations.iter().for_each(|id| self.forget(*id)),
            CatalogChange::Replace { old, new } => {
                self.catalog.replacing.insert(*new, *old);
                self.replace_contained(Epoch(0));
            }
            CatalogChange::Rename { relation, name } => {
                self.update(relation, |r| r.name.clone_from(name))
            }
            CatalogChange::SetSchema {
                relation,
                schema_name,
            } => self.update(relation, |r| r.schema_name.clone_from(schema_name)),
            CatalogChange::Comment { relation, comment } => {
                self.update(relation, |r| r.comment.clone_from(comment))
            }
            CatalogChange::CreateSchema { name, owner } => {
                if !self.catalog.schemas.contains(name) {
                    self.catalog.schemas.push(name.clone());
                }
                if let Some(owner) = owner {
                    let owners = &mut self.catalog.schema_owners;
                    owners.insert(name.clone(), owner.clone());
                    let object = Object::Schema(name.clone());
                    self.catalog.grant_defaults(&object, owner, None);
                }
            }
            CatalogChange::DropSchema { name } => {
                self.catalog.schemas.retain(|s| s != name);
                self.catalog.schema_owners.remove(name);
                let defaults = &mut self.catalog.default_grants;
                defaults.retain(|g| g.schema.as_ref() != Some(name));
                self.catalog.grants.forget(&Object::Schema(name.clone()));
            }
            CatalogChange::CreateRole { role } | CatalogChange::AlterRole { role } => {
                self.catalog.put_role(role.as_ref().clone());
            }
            CatalogChange::DropRole { name } => {
                self.catalog.roles.remove(name);
                for role in self.catalog.roles.values_mut() {
                    role.member_of.remove(name);
                }
            }
            CatalogChange::Membership { role, member, is } => {
                if let Some(mut known) = self.catalog.role(member) {
                    match is {
                        true => known.member_of.insert(role.clone()),
                        false => known.member_of.remove(role),
                    };
                    self.catalog.put_role(known);
                }
            }
            CatalogChange::Grant { grants } => {
                let each = grants.iter().cloned();
                each.for_each(|grant| self.catalog.grants.give(grant));
            }
            CatalogChange::Revoke {
                grants,
                option_only,
                ..
            } => {
                let known = &mut self.catalog.grants;
                grants
                    .iter()
                    .for_each(|grant| known.take(grant, *option_only));
                known.cascade();
            }
            CatalogChange::CreateSecret { secret } => self.catalog.secrets.push(secret.clone()),
            CatalogChange::AlterSecret { name, sealed } => self.alter_secret(name, sealed),
            CatalogChange::DropSecret { name } => self.catalog.secrets.retain(|s| s.name != *name),
            CatalogChange::DefaultPrivileges {
                grants,
                revokes,
                option_only,
            } => {
                let set = |g| self.catalog.set_default(g, *revokes, *option_only);
                grants.iter().for_each(set);
            }
            CatalogChange::SetOwner { relation, owner } => {
                self.update(relation, |r| r.owner.clone_from(owner))
            }
            CatalogChange::AddColumn {
                relation,
                column,
                missing,
            } => self.catalog.add_column(*relation, column, missing),
            CatalogChange::DropColumn {
                relation, column, ..
            } => self.catalog.drop_column(*relation, *column),
            CatalogChange::RenameColumn {
                relation,
                column,
                name,
                definitions,
            } => self
                .catalog
                .rename_column(*relation, *column, name, definitions),
            CatalogChange::Redefine { function } => {
                self.update(&function.id, |r| r.clone_from(function))
            }
            CatalogChange::Beside { old, new } => drop(self.catalog.beside.insert(*new, *old)),
            CatalogChange::Succeed { pairs } => self.succeed(pairs),
        }
    }

    fn alter_secret(&mut self, name: &SecretName, sealed: &str) {
        for secret in self.catalog.secrets.iter_mut().filter(|s| s.name == *name) {
            secret.sealed = sealed.into();
        }
        let relations = self.catalog.relations.values_mut();
        for relation in relations.filter(|r| r.uses_secret(name)) {
            let connector = Arc::make_mut(relation).connector.iter_mut();
            let hidden = connector.flat_map(|c| c.hidden.values_mut());
            for hidden in hidden.filter(|h| h.secret.as_ref() == Some(name)) {
                hidden.sealed = sealed.into();
            }
        }
    }

    /// The catalog that a checkpoint of `epoch` contains.
    pub fn catalog_at(&self, epoch: Epoch) -> Catalog {
        let mut catalog = self.catalog.clone();
        catalog.relations.retain(|_, r| r.created_at <= Some(epoch));
        let contained = &catalog.relations;
        catalog
            .replacing
            .retain(|new, _| contained.contains_key(new));
        catalog.beside.retain(|new, _| contained.contains_key(new));
        catalog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_what_all_splits_have_reached() {
        let at = |split, time_ms| SplitPosition {
            split,
            topic_id: String::new(),
            leader_epoch: -1,
            newest_epoch: -1,
            next_offset: 0,
            records: 0,
            time_ms,
            event_time_micros: (time_ms > 0).then_some(-time_ms),
        };
        let (source, mut decisions) = (RelationId(1), Decisions::default());
        assert_eq!(decisions.horizon(source), -1);
        decisions.starts.insert(source, vec![at(0, -1), at(1, -1)]);
        decisions
            .positions
            .insert(source, vec![at(0, 50), at(1, -1)]);
        assert_eq!(
            (decisions.horizon(source), decisions.event_time(source)),
            (-1, None)
        );
        decisions
            .positions
            .insert(source, vec![at(0, 50), at(1, 40)]);
        assert_eq!(
            (decisions.horizon(source), decisions.event_time(source)),
            (40, Some(-50))
        );
        // Not in a cut yet.
        decisions.apply(
            1,
            &Entry::AddSplits {
                relation: source,
                start: vec![at(2, 40)],
            },
        );
        decisions
            .positions
            .insert(source, vec![at(0, 60), at(1, 60)]);
        assert_eq!(decisions.horizon(source), 40);
        decisions
            .positions
            .insert(source, vec![at(0, 60), at(1, 60), at(2, 70)]);
        assert_eq!(decisions.horizon(source), 60);
    }
}
