//! Changes of the catalog: each is checked where it is logged.
//!
//! **Law.** The catalog that the log builds up is valid after every entry: no two relations have
//! one name, every relation's schema and everything that it reads exist, and a plain view, which
//! names what it reads in its text, finds it there. A statement looked at the catalog when it began
//! to plan; between that and this thread others may have logged something. So a request is applied
//! to a copy of the catalog first, together with what is being created, whose names are taken
//! already, and with what is about to be replaced, which nobody may come to depend on. Only if the
//! copy is valid does the request become an entry; and it becomes one entry, however many changes
//! it has: a crash finds all of them or none.
//!
//! **CASCADE** is resolved here as well: what a session saw when it listed the dependents may have
//! got more of them since.
//!
//! **OR REPLACE.** The new relation is created beside the old one, which is read and kept up to
//! date as before. When it counts, the log says which one it replaces; the checkpoint that contains
//! it makes it visible, and by that commit the old one is gone. Until then a failure, a cancel or a
//! crash leaves the old one, and afterwards there is the new one. What depends on the old one:
//! plain views and indexes name it by its columns, and go over to the new one if that begins with
//! the same columns, as PostgreSQL asks of a view; a job (a materialized view, a sink) holds it by
//! its rows, and goes with it where it can ([`super::succession`]), or is an error.

mod names;

use super::Coordinator;
use super::altering::{altered_meanwhile, check_free, check_seen, check_there, widened_by};
use super::jobs::{Creating, stopped_error};
use crate::inputs::RequestId;
use crate::{CatalogChange, Decisions, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState, failpoint};
use tidemark_plan::{Catalog, Grant, Object, Relation, RelationKind, SecretName};

/// What is asked for is in use.
const IN_USE: SqlState = SqlState("55006");
const INVALID_DEFINITION: SqlState = SqlState("42P17");

/// Changes that may be logged.
struct Accepted {
    changes: Vec<CatalogChange>,
    /// What is gone by them.
    dropped: Vec<RelationId>,
    /// Creations that end with that.
    canceled: Vec<RelationId>,
}

fn described(relation: &Relation) -> String {
    format!("{} {}", relation.kind.name(), relation.name)
}

fn dropped_meanwhile() -> Error {
    Error::user(
        SqlState::UNDEFINED_TABLE,
        "the relation was dropped meanwhile",
    )
}

fn in_use(relation: &Relation) -> Error {
    let message = format!(
        "{} \"{}\" is being replaced",
        relation.kind.name(),
        relation.name
    );
    Error::user(IN_USE, message).with_hint("Run the statement again when that is done.")
}

/// Whether `new` can be read by column like `old`.
fn keeps_columns(old: &Relation, new: &Relation) -> bool {
    // By what names others know its columns belongs to it.
    if old.altered.times > 0 {
        return false;
    }
    let same = old.columns.iter().zip(&new.columns);
    new.columns.len() >= old.columns.len()
        && same
            .into_iter()
            .all(|(a, b)| a.name == b.name && a.data_type == b.data_type)
}

impl Coordinator {
    /// Logs these changes as one entry, all or none.
    pub(super) fn on_changes(
        &mut self,
        changes: Vec<CatalogChange>,
        cascade: bool,
        request: RequestId,
    ) -> Result<()> {
        let accepted = self.accept(changes, cascade).and_then(|accepted| {
            failpoint::check("ddl.log")?;
            Ok(accepted)
        });
        match accepted {
            Ok(accepted) => {
                let relations = &self.decisions.catalog.relations;
                let widened = widened_by(&accepted.changes).and_then(|id| relations.get(&id));
                match widened.cloned() {
                    Some(before) => {
                        self.hold_back_columns(before.clone(), request);
                        self.log_changes(accepted)?;
                        self.widen(before.id);
                    }
                    None => {
                        self.log_changes(accepted)?;
                        self.done(Some(request));
                    }
                }
            }
            Err(error) => self.answer(Some(request), Err(error)),
        }
        Ok(())
    }

    fn log_changes(&mut self, accepted: Accepted) -> Result<()> {
        self.record(&[Entry::Changes(accepted.changes)])?;
        failpoint::hit("ddl.logged");
        let error = Error::user(
            SqlState::UNDEFINED_TABLE,
            "what the relation rests on was dropped meanwhile",
        );
        for id in accepted.canceled {
            self.cancel(id, &error);
        }
        if accepted.dropped.is_empty() {
            self.show_catalog();
            Ok(())
        } else {
            self.drop_relations(&accepted.dropped)
        }
    }

    fn proposed(&self) -> Proposed<'_> {
        let creating = self.creating.iter().filter(|(id, _)| self.is_new(**id));
        let pending = |c: &'_ Creating| Pending {
            relation: c.relation.clone(),
            replaces: c.replaces,
        };
        let creating = creating.map(|(id, c)| (*id, pending(c)));
        Proposed {
            catalog: &self.decisions.catalog,
            creating: self.succeeding().chain(creating).collect(),
            followers: BTreeSet::new(),
        }
    }

    fn accept(&self, changes: Vec<CatalogChange>, cascade: bool) -> Result<Accepted> {
        self.check_widened(&changes)?;
        for change in &changes {
            if let CatalogChange::Create { relation, .. } = change {
                self.check_inputs_run(relation)?;
            }
        }
        self.proposed().accept(changes, cascade)
    }

    /// Whether a relation may be created, in place of `replaces`, whose place `followers` leave
    /// with it, or beside all others.
    pub(super) fn check_create(
        &self,
        relation: &Relation,
        replaces: Option<RelationId>,
        followers: &BTreeSet<RelationId>,
    ) -> Result<()> {
        self.check_inputs_run(relation)?;
        let create = CatalogChange::Create {
            relation: Box::new(relation.clone()),
            start: Vec::new(),
            begins: BTreeMap::new(),
        };
        let new = relation.id;
        let replace = replaces.map(|old| CatalogChange::Replace { old, new });
        let changes: Vec<CatalogChange> = [create].into_iter().chain(replace).collect();
        let proposed = Proposed {
            followers: followers.clone(),
            ..self.proposed()
        };
        proposed.check(&changes, &BTreeSet::new())
    }

    /// None of these is about to be replaced.
    pub(super) fn check_free_to_follow(&self, followers: &BTreeSet<RelationId>) -> Result<()> {
        let proposed = self.proposed();
        let mut found = followers
            .iter()
            .filter_map(|id| proposed.catalog.relations.get(id));
        found.try_for_each(|relation| proposed.check_not_read_by_new(relation))
    }

    pub(super) fn check_inputs_run(&self, relation: &Relation) -> Result<()> {
        let catalog = &self.decisions.catalog;
        let halted = relation.depends_on.iter().find_map(|id| {
            let input = catalog.relations.get(id)?;
            Some((input, &self.halted.get(id)?.stopped))
        });
        match halted {
            Some((input, stopped)) => Err(stopped_error(input, stopped)),
            None => Ok(()),
        }
    }
}

/// The catalog that changes are held against.
struct Proposed<'a> {
    /// As of the log, with creations that no checkpoint contains yet.
    catalog: &'a Catalog,
    /// What nobody has seen yet.
    creating: BTreeMap<RelationId, Pending>,
    /// What goes with a relation that is replaced.
    followers: BTreeSet<RelationId>,
}

/// A relation that is being created.
pub(super) struct Pending {
    pub relation: Relation,
    pub replaces: Option<RelationId>,
}

impl Proposed<'_> {
    fn is_new(&self, id: RelationId) -> bool {
        self.creating.contains_key(&id)
    }

    /// The changes with all that CASCADE adds to them, if they may be logged.
    fn accept(&self, changes: Vec<CatalogChange>, cascade: bool) -> Result<Accepted> {
        let mut all = Vec::with_capacity(changes.len());
        let (mut dropped, mut canceled) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            let gone = match &change {
                CatalogChange::Drop { relations } => self.with_dependents(relations, cascade),
                CatalogChange::DropSchema { name } if cascade => {
                    let inside = |r: &&Relation| r.schema_name == *name;
                    let creating = self.creating.values().map(|c| &c.relation);
                    canceled.extend(creating.filter(inside).map(|r| r.id));
                    let visible: Vec<RelationId> =
                        self.visible().filter(|r| inside(r)).map(|r| r.id).collect();
                    self.with_dependents(&visible, true)
                }
                _ => BTreeSet::new(),
            };
            if !gone.is_empty() {
                let relations = gone.iter().copied().collect();
                all.push(CatalogChange::Drop { relations });
            }
            dropped.extend(gone);
            match change {
                CatalogChange::Drop { .. } => {}
                CatalogChange::Replace { old, .. } => {
                    dropped.insert(old);
                    all.push(change);
                }
                other => all.push(other),
            }
        }
        // A creation that reads what is dropped, or takes its place, ends with it.
        for (id, creating) in &self.creating {
            let rests = creating
                .relation
                .depends_on
                .iter()
                .chain(&creating.replaces);
            if rests.into_iter().any(|on| dropped.contains(on)) {
                canceled.insert(*id);
            }
        }
        let promoted = |id: &&RelationId| self.catalog.relations.contains_key(id);
        let relations: Vec<RelationId> = canceled.iter().filter(promoted).copied().collect();
        if !relations.is_empty() {
            all.insert(0, CatalogChange::Drop { relations });
        }
        self.check(&all, &canceled)?;
        Ok(Accepted {
            changes: all,
            dropped: dropped.into_iter().collect(),
            canceled: canceled.into_iter().collect(),
        })
    }

    /// The relations that sessions see.
    fn visible(&self) -> impl Iterator<Item = &Relation> {
        let relations = self.catalog.relations.values();
        relations.map(AsRef::as_ref).filter(|r| !self.is_new(r.id))
    }

    /// These and their indexes, with `cascade` all that depends on them.
    fn with_dependents(&self, relations: &[RelationId], cascade: bool) -> BTreeSet<RelationId> {
        let mut all: BTreeSet<RelationId> = relations.iter().copied().collect();
        loop {
            let reads = |r: &&Relation| r.depends_on.iter().any(|d| all.contains(d));
            let goes = |r: &&Relation| cascade || r.kind == RelationKind::Index;
            let more: Vec<RelationId> = self
                .visible()
                .filter(|r| !all.contains(&r.id))
                .filter(reads)
                .filter(goes)
                .map(|r| r.id)
                .collect();
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    /// Whether the changes lead to a valid catalog, and can be read back from the log.
    fn check(&self, changes: &[CatalogChange], canceled: &BTreeSet<RelationId>) -> Result<()> {
        let mut touched = BTreeSet::new();
        for change in changes {
            self.check_change(change, changes)?;
            match change {
                CatalogChange::Create { relation, .. } => drop(touched.insert(relation.id)),
                CatalogChange::Rename { relation, .. }
                | CatalogChange::SetSchema { relation, .. } => drop(touched.insert(*relation)),
                _ => {}
            }
        }
        let mut after = Decisions {
            catalog: self.catalog.clone(),
            ..Decisions::default()
        };
        let entry = Entry::Changes(changes.to_vec());
        after.apply(0, &entry);
        let after = after.catalog;
        self.check_names(&after, &touched, canceled)?;
        self.check_schemas(&after, changes, &touched, canceled)?;
        self.check_dependencies(&after, &touched)?;
        // What was created can be restarted.
        entry.check()
    }

    /// What a change says by itself, against the catalog before it.
    fn check_change(&self, change: &CatalogChange, all: &[CatalogChange]) -> Result<()> {
        let visible = |id: &RelationId| {
            let relation = self.catalog.relations.get(id);
            let relation = relation.filter(|r| !self.is_new(r.id));
            relation.ok_or_else(dropped_meanwhile)
        };
        match change {
            CatalogChange::Create { relation, .. } => {
                for input in &relation.depends_on {
                    self.check_not_replaced(visible(input)?)?;
                    check_seen(relation, visible(input)?)?;
                }
                self.check_secrets(relation)?;
                self.check_cycle(relation)?;
            }
            CatalogChange::Rename { relation, .. } | CatalogChange::SetSchema { relation, .. } => {
                self.check_not_replaced(visible(relation)?)?
            }
            CatalogChange::Comment { relation, .. } => drop(visible(relation)?),
            CatalogChange::Redefine { function } => {
                if visible(&function.id)?.kind != RelationKind::Function {
                    return Err(dropped_meanwhile());
                }
            }
            CatalogChange::Replace { old, new } => {
                let old = visible(old)?;
                self.check_not_replaced(old)?;
                let new = all.iter().find_map(|c| match c {
                    CatalogChange::Create { relation, .. } if relation.id == *new => Some(relation),
                    _ => None,
                });
                self.check_replace(old, new.ok_or_else(dropped_meanwhile)?)?;
            }
            CatalogChange::CreateSchema { name, .. } => {
                if name == "public" || self.catalog.schemas.contains(name) {
                    return Err(Error::user(
                        SqlState::DUPLICATE_SCHEMA,
                        format!("schema \"{name}\" already exists"),
                    ));
                }
            }
            CatalogChange::DropSchema { name } => {
                if !self.catalog.schemas.contains(name) {
                    return Err(no_schema(name));
                }
            }
            CatalogChange::CreateRole { role } if self.catalog.role(&role.name).is_some() => {
                let message = format!("role \"{}\" already exists", role.name);
                return Err(Error::user(SqlState::DUPLICATE_OBJECT, message));
            }
            CatalogChange::AlterRole { role } if self.catalog.role(&role.name).is_none() => {
                return Err(no_role(&role.name));
            }
            CatalogChange::DropRole { name } => self.check_drop_role(name)?,
            CatalogChange::Membership { role, member, is } => {
                for name in [role, member] {
                    self.check_role(name)?;
                }
                if *is && self.catalog.memberships(role).contains(member) {
                    let message = format!("role \"{role}\" is a member of role \"{member}\"");
                    return Err(Error::user(SqlState("0LP01"), message));
                }
            }
            CatalogChange::Grant { grants } => {
                for grant in grants {
                    if let Object::Relation(id) = &grant.object {
                        visible(id)?;
                    }
                    let grantee = grant.grantee.as_deref();
                    grantee.map_or(Ok(()), |name| self.check_role(name))?;
                    self.check_option(grant)?;
                }
            }
            CatalogChange::Revoke {
                grants,
                option_only,
                cascade: false,
            } => {
                let mut after = self.catalog.grants.clone();
                grants
                    .iter()
                    .for_each(|grant| after.take(grant, *option_only));
                if !after.without_grantor().is_empty() {
                    let message = "dependent privileges exist";
                    return Err(Error::user(SqlState::DEPENDENT_OBJECTS, message)
                        .with_hint("Use CASCADE to revoke them too."));
                }
            }
            CatalogChange::CreateSecret { secret } => {
                if self.catalog.secret(&secret.name).is_some() {
                    let message = format!("secret \"{}\" already exists", secret.name.name);
                    return Err(Error::user(SqlState::DUPLICATE_OBJECT, message));
                }
                self.check_schema(&secret.name.schema_name)?;
            }
            CatalogChange::AlterSecret { name, .. } => self.check_alter_secret(name)?,
            CatalogChange::DropSecret { name } => self.check_drop_secret(name)?,
            CatalogChange::DefaultPrivileges {
                grants, revokes, ..
            } => {
                for grant in grants {
                    self.check_role(&grant.role)?;
                    let grantee = grant.grantee.as_deref();
                    grantee.map_or(Ok(()), |name| self.check_role(name))?;
                    let schema = grant.schema.as_deref();
                    schema.map_or(Ok(()), |name| self.check_schema(name))?;
                    if grant.with_option && grantee.is_none() && !revokes {
                        let message = "grant options can only be granted to roles";
                        return Err(Error::user(SqlState("0LP01"), message));
                    }
                }
            }
            CatalogChange::SetOwner { relation, owner } => {
                self.check_not_replaced(visible(relation)?)?;
                self.check_role(owner)?;
            }
            CatalogChange::AddColumn {
                relation, column, ..
            } => {
                let relation = visible(relation)?;
                self.check_not_read_by_new(relation)?;
                check_free(relation, &column.name, all)?;
            }
            CatalogChange::RenameColumn {
                relation,
                column,
                name,
                ..
            } => {
                let relation = visible(relation)?;
                self.check_not_read_by_new(relation)?;
                check_there(relation, *column)?;
                check_free(relation, name, all)?;
            }
            CatalogChange::DropColumn {
                relation,
                column,
                spared,
            } => {
                let relation = visible(relation)?;
                self.check_not_read_by_new(relation)?;
                check_there(relation, *column)?;
                self.check_spared(relation, spared, all)?;
            }
            CatalogChange::Drop { .. }
            | CatalogChange::Revoke { .. }
            | CatalogChange::CreateRole { .. }
            | CatalogChange::AlterRole { .. } => {}
            // They are logged when everything is there.
            CatalogChange::Beside { .. } | CatalogChange::Succeed { .. } => {}
        }
        Ok(())
    }

    fn check_schema(&self, name: &str) -> Result<()> {
        let known = name == "public" || self.catalog.schemas.iter().any(|s| s == name);
        known.then_some(()).ok_or_else(|| no_schema(name))
    }

    /// The secrets that a relation uses are as they were when it was planned.
    fn check_secrets(&self, relation: &Relation) -> Result<()> {
        let hidden = relation.connector.iter().flat_map(|c| c.hidden.values());
        for hidden in hidden {
            if let Some(name) = &hidden.secret {
                let secret = self.catalog.secret(name);
                let secret = secret.ok_or_else(|| no_secret(name))?;
                if secret.sealed != hidden.sealed {
                    return Err(dropped_meanwhile());
                }
            }
        }
        Ok(())
    }

    /// Errors: `42704` for a secret that is not there, `55006` for one that a creation is using.
    fn check_alter_secret(&self, name: &SecretName) -> Result<()> {
        self.catalog.secret(name).ok_or_else(|| no_secret(name))?;
        let mut creating = self.creating.values().map(|c| &c.relation);
        match creating.find(|r| r.uses_secret(name)) {
            Some(relation) => {
                let message = format!(
                    "secret \"{}\" is used by {}",
                    name.name,
                    described(relation)
                );
                Err(Error::user(IN_USE, message)
                    .with_detail("That is being created.")
                    .with_hint("Run the statement again when that is done."))
            }
            None => Ok(()),
        }
    }

    /// Errors: `42704` for a secret that is not there, `2BP01` for one that is used.
    fn check_drop_secret(&self, name: &SecretName) -> Result<()> {
        self.catalog.secret(name).ok_or_else(|| no_secret(name))?;
        let creating = self.creating.values().map(|c| &c.relation);
        let all = self.catalog.relations.values().map(AsRef::as_ref);
        let Some(relation) = all.chain(creating).find(|r| r.uses_secret(name)) else {
            return Ok(());
        };
        let message = format!(
            "cannot drop secret {} because other objects depend on it",
            name.name
        );
        let detail = format!("{} depends on secret {}.", described(relation), name.name);
        Err(Error::user(SqlState::DEPENDENT_OBJECTS, message)
            .with_detail(detail)
            .with_hint("Drop what uses it first."))
    }

    /// Errors: `0LP01` for a grant option of everybody, or one that comes back to its grantor.
    fn check_option(&self, grant: &Grant) -> Result<()> {
        let refused = |message| Err(Error::user(SqlState("0LP01"), message));
        let Some(grantee) = &grant.grantee else {
            return match grant.with_option {
                true => refused("grant options can only be granted to roles"),
                false => Ok(()),
            };
        };
        let mut next = grant.grantor.clone().filter(|_| grant.with_option);
        let mut above = BTreeSet::new();
        while let Some(role) = next.filter(|role| above.insert(role.clone())) {
            if role == *grantee {
                return refused("grant options cannot be granted back to your own grantor");
            }
            let mut grants = self.catalog.grants.of(&grant.object);
            let held = grants.find(|g| {
                g.privilege == grant.privilege && g.with_option && g.grantee.as_ref() == Some(&role)
            });
            next = held.and_then(|g| g.grantor.clone());
        }
        Ok(())
    }

    fn check_role(&self, name: &str) -> Result<()> {
        let known = self.catalog.role(name);
        known.map(|_| ()).ok_or_else(|| no_role(name))
    }

    /// Errors: `42704` for a role that is not there, `2BP01` for one that owns something, or may do
    /// something.
    fn check_drop_role(&self, name: &str) -> Result<()> {
        self.check_role(name)?;
        let catalog = &self.catalog;
        let owned = catalog.relations.values().find(|r| r.owner == name);
        let mut schemas = catalog.schema_owners.iter();
        let schema = schemas.find(|(_, owner)| *owner == name);
        let mut grants = catalog.grants.0.iter();
        let granted = grants.find(|g| {
            let both = [&g.grantee, &g.grantor];
            both.into_iter().any(|role| role.as_deref() == Some(name))
        });
        if let Some(secret) = catalog.secrets.iter().find(|s| s.owner == name) {
            let detail = format!("It is the owner of secret {}.", secret.name.name);
            return Err(has_dependents(name, detail));
        }
        let mut defaults = catalog.default_grants.iter();
        if defaults.any(|g| g.role == name || g.grantee.as_deref() == Some(name)) {
            return Err(has_dependents(name, "It has default privileges.".into()));
        }
        let detail = match (owned, schema, granted) {
            (Some(owned), _, _) => {
                format!("It is the owner of {} {}.", owned.kind.name(), owned.name)
            }
            (_, Some((schema, _)), _) => format!("It is the owner of schema {schema}."),
            (_, _, Some(grant)) => match &grant.object {
                Object::Relation(id) => {
                    let relation = catalog.relations.get(id);
                    let name = relation.map_or("a relation", |r| r.name.as_str());
                    format!("It has privileges for {name}.")
                }
                Object::Schema(schema) => format!("It has privileges for schema {schema}."),
                Object::Database => "It has privileges for the database.".into(),
            },
            (None, None, None) => return Ok(()),
        };
        Err(has_dependents(name, detail))
    }

    /// The catalog with what is being created at the same time; what is replaced rests on what
    /// takes its place, as will all that rests on it.
    fn with_all_new(&self) -> Catalog {
        let mut catalog = Catalog::clone(self.catalog);
        for new in self.creating.values() {
            let relations = catalog.relations.entry(new.relation.id);
            relations.or_insert_with(|| Arc::new(new.relation.clone()));
        }
        for (id, new) in &self.creating {
            if let Some(old) = new.replaces.and_then(|id| catalog.relations.get_mut(&id)) {
                Arc::make_mut(old).depends_on.push(*id);
            }
        }
        catalog
    }

    /// A sink into a table does not read, by whatever way, what it writes.
    fn check_cycle(&self, sink: &Relation) -> Result<()> {
        let Some(into) = sink.into_table() else {
            return Ok(());
        };
        let reads = sink.depends_on.iter().copied();
        let reads: Vec<RelationId> = reads.filter(|id| *id != into.table).collect();
        match self.with_all_new().rests_on(&reads, into.table) {
            false => Ok(()),
            true => {
                let message = format!("sink \"{}\" would read what it writes", sink.name);
                Err(Error::user(INVALID_DEFINITION, message))
            }
        }
    }

    /// What is being created reads the relation as it was when its statement began.
    fn check_not_read_by_new(&self, relation: &Relation) -> Result<()> {
        self.check_not_replaced(relation)?;
        let mut creating = self.creating.values().map(|c| &c.relation);
        match creating.find(|r| r.depends_on.contains(&relation.id)) {
            Some(reader) => {
                let message = format!(
                    "{} \"{}\" is read by {}",
                    relation.kind.name(),
                    relation.name,
                    described(reader)
                );
                Err(Error::user(IN_USE, message)
                    .with_detail("That is being created.")
                    .with_hint("Run the statement again when that is done."))
            }
            None => Ok(()),
        }
    }

    /// Nothing depends on the relation that nobody has looked at before its column goes.
    fn check_spared(
        &self,
        relation: &Relation,
        spared: &BTreeSet<RelationId>,
        all: &[CatalogChange],
    ) -> Result<()> {
        let goes = |id: &RelationId| {
            let mut drops = all.iter();
            drops.any(|c| matches!(c, CatalogChange::Drop { relations } if relations.contains(id)))
        };
        let dependents = self.catalog.dependents(relation.id);
        let mut others = dependents.iter().map(|r| r.id);
        match others.find(|id| !spared.contains(id) && !goes(id)) {
            Some(_) => Err(altered_meanwhile(relation)),
            None => Ok(()),
        }
    }

    fn check_not_replaced(&self, relation: &Relation) -> Result<()> {
        let replaced = self
            .creating
            .values()
            .any(|c| c.replaces == Some(relation.id));
        if replaced {
            Err(in_use(relation))
        } else {
            Ok(())
        }
    }

    fn check_replace(&self, old: &Relation, new: &Relation) -> Result<()> {
        let (kind, name) = (old.kind.name(), &old.name);
        if old.name != new.name || old.schema_name != new.schema_name {
            return Err(dropped_meanwhile());
        }
        if old.kind != new.kind {
            let message = format!("\"{name}\" is a {kind}, not a {}", new.kind.name());
            return Err(Error::user(SqlState::WRONG_OBJECT_TYPE, message));
        }
        let reads = &new.depends_on;
        if reads.contains(&old.id) || self.with_all_new().rests_on(reads, old.id) {
            let message = format!("{kind} \"{name}\" would read itself");
            return Err(Error::user(INVALID_DEFINITION, message)
                .with_hint("Rename the one that there is, and read it by its new name."));
        }
        let readers = self.with_dependents(&[old.id], true);
        let creating = self.creating.values().map(|c| &c.relation);
        let being = creating.filter(|r| r.depends_on.contains(&old.id));
        let mut others = self
            .visible()
            .filter(|r| r.id != old.id && readers.contains(&r.id));
        let by_name = |r: &Relation| matches!(r.kind, RelationKind::View | RelationKind::Index);
        let keeps = keeps_columns(old, new);
        let Some(other) = others
            .find(|r| !self.followers.contains(&r.id) && !(keeps && by_name(r)))
            .or(being.into_iter().next())
        else {
            return Ok(());
        };
        let why = if by_name(other) {
            "It names columns that the new one does not begin with."
        } else {
            "It keeps what it has computed from the old one's rows."
        };
        Err(Error::user(
            SqlState::DEPENDENT_OBJECTS,
            format!("cannot replace {kind} \"{name}\" because other objects depend on it"),
        )
        .with_detail(format!("{} depends on it. {why}", described(other)))
        .with_hint("Create it under another name, or drop what depends on it first."))
    }

    /// All relations that there will be, also those that are being created.
    fn all_after<'a>(
        &'a self,
        after: &'a Catalog,
        canceled: &'a BTreeSet<RelationId>,
    ) -> impl Iterator<Item = &'a Relation> {
        let creating = self.creating.values().map(|c| &c.relation);
        let creating =
            creating.filter(|r| !after.relations.contains_key(&r.id) && !canceled.contains(&r.id));
        after.relations.values().map(AsRef::as_ref).chain(creating)
    }

    /// Every relation's schema exists.
    fn check_schemas(
        &self,
        after: &Catalog,
        changes: &[CatalogChange],
        touched: &BTreeSet<RelationId>,
        canceled: &BTreeSet<RelationId>,
    ) -> Result<()> {
        let gone = |schema: &str| {
            changes
                .iter()
                .any(|c| matches!(c, CatalogChange::DropSchema { name } if name == schema))
        };
        if let Some(secret) = after.secrets.iter().find(|s| gone(&s.name.schema_name)) {
            let SecretName { schema_name, name } = &secret.name;
            let message =
                format!("cannot drop schema {schema_name} because other objects depend on it");
            let detail = format!("secret {schema_name}.{name} depends on schema {schema_name}.");
            return Err(Error::user(SqlState::DEPENDENT_OBJECTS, message)
                .with_detail(detail)
                .with_hint("Drop the secret first."));
        }
        for relation in self.all_after(after, canceled) {
            let schema = &relation.schema_name;
            let exists = schema == "public" || after.schemas.contains(schema);
            if !exists && gone(schema) {
                return Err(Error::user(
                    SqlState::DEPENDENT_OBJECTS,
                    format!("cannot drop schema {schema} because other objects depend on it"),
                )
                .with_detail(format!(
                    "{} {schema}.{} depends on schema {schema}.",
                    relation.kind.name(),
                    relation.name
                ))
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
            }
            if !exists && touched.contains(&relation.id) {
                return Err(no_schema(schema));
            }
        }
        Ok(())
    }

    /// What a relation reads exists, under the name by which it reads it.
    fn check_dependencies(&self, after: &Catalog, touched: &BTreeSet<RelationId>) -> Result<()> {
        let before = &self.catalog.relations;
        for relation in after.relations.values() {
            for id in &relation.depends_on {
                let read = before.get(id);
                if let (Some(read), false) = (read, after.relations.contains_key(id)) {
                    return Err(still_read(read, relation));
                }
                let renamed = |r: &Arc<Relation>| {
                    after
                        .relations
                        .get(id)
                        .is_some_and(|now| now.name != r.name || now.schema_name != r.schema_name)
                };
                // The texts of earlier builds do not know what their names mean.
                if relation.kind == RelationKind::View
                    && touched.contains(id)
                    && relation.named.is_empty()
                    && let Some(read) = read.filter(|r| renamed(r))
                {
                    return Err(named_by_view(read, relation));
                }
            }
        }
        Ok(())
    }
}

fn no_secret(name: &SecretName) -> Error {
    let message = format!("secret \"{}\" does not exist", name.name);
    Error::user(SqlState::UNDEFINED_OBJECT, message)
}

fn has_dependents(role: &str, detail: String) -> Error {
    let message = format!("role \"{role}\" cannot be dropped because some objects depend on it");
    Error::user(SqlState::DEPENDENT_OBJECTS, message).with_detail(detail)
}

fn no_role(name: &str) -> Error {
    let message = format!("role \"{name}\" does not exist");
    Error::user(SqlState::UNDEFINED_OBJECT, message)
}

fn no_schema(name: &str) -> Error {
    let message = format!("schema \"{name}\" does not exist");
    Error::user(SqlState::INVALID_SCHEMA_NAME, message)
}

fn still_read(read: &Relation, by: &Relation) -> Error {
    let (read, by) = (described(read), described(by));
    Error::user(
        SqlState::DEPENDENT_OBJECTS,
        format!("cannot drop {read} because other objects depend on it"),
    )
    .with_detail(format!("{by} depends on {read}"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// A plain view names what it reads in its text; jobs hold it by id.
fn named_by_view(read: &Relation, view: &Relation) -> Error {
    let (kind, name) = (read.kind.name(), &read.name);
    Error::user(
        SqlState::DEPENDENT_OBJECTS,
        format!(
            "cannot rename {kind} \"{name}\" because view \"{}\" names it",
            view.name
        ),
    )
    .with_hint("Drop the view, rename, and create the view again.")
}

#[cfg(test)]
mod tests;
