//! CREATE, DROP, ALTER, COMMENT, EXPLAIN of jobs, WAIT and CANCEL.
//!
//! CREATE plans against the catalog, checks the connector where it has one (on a blocking thread:
//! it asks the broker), and hands the relation to the engine, which returns when it has caught up;
//! its progress goes to the client as NOTICEs. With `background_ddl` that work goes on in a task of
//! its own.

mod columns;
mod functions;
mod grants;
mod index;
mod into;
mod roles;
mod secrets;
mod succession;

use crate::session::Session;
use arrow::array::RecordBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_connector::Vault;
use tidemark_node::engine::{CatalogChange, Creation};
use tidemark_plan::{Catalog, Column, INTO_TABLE, Relation, RelationKind};
use tidemark_planner::functions::signature;
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{
    AlterAction, ColumnDefinition, Drop, Name, Statement, StatementKind,
};
use tidemark_query::error::Notice;
use tidemark_query::outcome::Outcome;
use tidemark_query::privileges::check_reads;

/// A relation behind all that it stands on, each once.
fn upstream_first(catalog: &Catalog, relation: &Arc<Relation>, into: &mut Vec<Arc<Relation>>) {
    if into.iter().any(|r| r.id == relation.id) {
        return;
    }
    for upstream in &relation.depends_on {
        if let Some(upstream) = catalog.relations.get(upstream) {
            upstream_first(catalog, upstream, into);
        }
    }
    into.push(relation.clone());
}

/// What a CREATE says about its name.
struct Target<'a> {
    name: &'a Name,
    kind: RelationKind,
    if_not_exists: bool,
    or_replace: bool,
}

fn done(tag: &str) -> Result<Outcome> {
    Ok(Outcome::Command(tag.into()))
}

/// `materialized view` -> `MATERIALIZED VIEW`.
fn upper(kind: RelationKind) -> String {
    kind.name().to_uppercase()
}

fn exists(kind: RelationKind, name: &str) -> Error {
    let what = if matches!(kind, RelationKind::Index) {
        "index"
    } else {
        "relation"
    };
    Error::user(
        SqlState::DUPLICATE_TABLE,
        format!("{what} \"{name}\" already exists"),
    )
}

impl Session {
    /// The schema that what has no other comes into. `3F000` if there is none.
    fn creation_schema(&self) -> Result<String> {
        let first = self.asker.settings.search_path().into_iter().next();
        first.ok_or_else(|| {
            let message = "no schema has been selected to create in";
            Error::user(SqlState::INVALID_SCHEMA_NAME, message)
        })
    }

    /// CREATE SOURCE, TABLE, [MATERIALIZED] VIEW, SINK, INDEX.
    pub(crate) async fn create(&mut self, statement: &Statement) -> Result<Outcome> {
        self.create_filled(statement, Vec::new()).await
    }

    /// A CREATE; a table has these rows from its first moment on.
    pub(crate) async fn create_filled(
        &mut self,
        statement: &Statement,
        rows: Vec<RecordBatch>,
    ) -> Result<Outcome> {
        use StatementKind as K;
        let target = match &statement.kind {
            K::CreateSource(c) => Target {
                name: &c.name,
                kind: RelationKind::Source,
                if_not_exists: c.if_not_exists,
                or_replace: c.or_replace,
            },
            K::CreateTable(c) => Target {
                name: &c.name,
                kind: RelationKind::Table,
                if_not_exists: c.if_not_exists,
                or_replace: c.or_replace,
            },
            K::CreateMaterializedView(c) => Target {
                name: &c.name,
                kind: RelationKind::MaterializedView,
                if_not_exists: c.if_not_exists,
                or_replace: c.or_replace,
            },
            K::CreateView(c) => Target {
                name: &c.name,
                kind: RelationKind::View,
                if_not_exists: c.if_not_exists,
                or_replace: c.or_replace,
            },
            K::CreateSink(c) => Target {
                name: &c.name,
                kind: RelationKind::Sink,
                if_not_exists: c.if_not_exists,
                or_replace: false,
            },
            K::CreateSubscription(c) => Target {
                name: &c.name,
                kind: RelationKind::Subscription,
                if_not_exists: c.if_not_exists,
                or_replace: false,
            },
            K::CreateIndex(index) => return self.create_index(index, statement).await,
            _ => return Err(Error::internal("not a CREATE")),
        };
        let tag = format!("CREATE {}", upper(target.kind));
        let catalog = self.catalog();
        let schema = match &target.name.schema {
            Some(schema) => schema.clone(),
            None => self.creation_schema()?,
        };
        self.require_creation_in(&schema)?;
        let existing = catalog.find(&schema, &target.name.name).cloned();
        if existing.is_some() && target.if_not_exists {
            self.skip_existing(&target.name.name);
            return done(&tag);
        }
        let replaced = match existing {
            // Of another kind, or read by others: the engine refuses it when it logs it.
            Some(old) if target.or_replace => {
                self.require_ownership(&old)?;
                Some(old.id)
            }
            Some(_) => {
                let e = exists(target.kind, &target.name.name);
                return Err(if target.name.position > 0 {
                    e.at(target.name.position)
                } else {
                    e
                });
            }
            None => None,
        };
        let planner = self
            .server
            .commons
            .sql
            .planner(catalog.clone(), &self.asker.settings.search_path())
            .in_zone(self.asker.settings.get("timezone").unwrap_or("UTC"));
        let (id, owner) = (self.server.engine.allocate_id(), self.user().to_string());
        let create = statement.clone();
        let planned = move || planner.plan_create(id, &create, &owner);
        let planned = self.server.serving.planning.run(planned).await?;
        for notice in &planned.notices {
            self.notice(Notice::new(notice));
        }
        check_reads(&catalog, self.user(), &planned.reads)?;
        let mut planned = planned;
        if let Some(old) = replaced.and_then(|id| catalog.relations.get(&id)) {
            planned.relation.owner.clone_from(&old.owner);
        }
        if let K::CreateSource(c) | K::CreateTable(c) = &statement.kind {
            mark_varchar(&mut planned.relation.columns, &c.columns);
            tidemark_query::dml::check_defaults(&planned.relation.columns)?;
        }
        self.fill_sink(&catalog, &mut planned.relation).await?;
        self.hide_secrets(&mut planned.relation).await?;
        check_connector(&planned.relation, self.server.engine.vault().clone()).await?;
        let creation = Creation {
            replaces: replaced,
            followers: self
                .followers(&catalog, replaced, &planned.relation)
                .await?,
            rows: crate::create_as::table_rows(&planned.relation, rows)?,
        };
        let created = self.create_relation(planned.relation, creation).await;
        match created {
            // Somebody else was faster.
            Err(e) if e.state() == SqlState::DUPLICATE_TABLE && target.if_not_exists => {
                let name = &target.name.name;
                if self.catalog().find(&schema, name).is_none() {
                    return Err(e);
                }
                self.skip_existing(name);
            }
            created => created?,
        }
        done(&tag)
    }

    fn skip_existing(&self, name: &str) {
        self.notice(Notice::with_state(
            SqlState::DUPLICATE_TABLE,
            format!("relation \"{name}\" already exists, skipping"),
        ));
    }

    async fn create_relation(&mut self, relation: Relation, creation: Creation) -> Result<()> {
        let engine = self.server.engine.clone();
        let background = self.asker.settings.is_on("background_ddl")
            && creation.rows.is_empty()
            && matches!(
                relation.kind,
                RelationKind::MaterializedView
                    | RelationKind::Sink
                    | RelationKind::Table
                    | RelationKind::Subscription
            );
        if !background {
            let notices = self.notice_sender();
            return engine
                .create_as(relation, creation, move |text| {
                    drop(notices.send(Notice::new(text)))
                })
                .await;
        }
        let (id, name) = (relation.id, relation.name.clone());
        self.server.background.start();
        let server = self.server.clone();
        let task = tokio::spawn(async move {
            let result = server.engine.create_as(relation, creation, |_| {}).await;
            if let Err(e) = &result {
                tracing::error!(relation = %name, %id, error = %e, "background creation failed");
            }
            server.background.end();
            result
        });
        // When the statement returns the job is being created, so that SHOW JOBS and CANCEL find
        // it; one that was refused says so.
        let engine = &self.server.engine;
        let begun = || {
            let jobs = engine.jobs();
            jobs.iter()
                .any(|j| j.relation == id && j.state == "creating")
                || engine.catalog().relations.contains_key(&id)
        };
        while !task.is_finished() && !begun() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        if !task.is_finished() {
            return Ok(());
        }
        task.await
            .map_err(|e| Error::internal(format!("the creation ended: {e}")))?
    }

    pub(crate) async fn create_schema(
        &mut self,
        name: &str,
        if_not_exists: bool,
    ) -> Result<Outcome> {
        if self.schema_exists(name) {
            if if_not_exists {
                self.notice(Notice::with_state(
                    SqlState::DUPLICATE_SCHEMA,
                    format!("schema \"{name}\" already exists, skipping"),
                ));
                return done("CREATE SCHEMA");
            }
            return Err(Error::user(
                SqlState::DUPLICATE_SCHEMA,
                format!("schema \"{name}\" already exists"),
            ));
        }
        self.require_schema_creation()?;
        if name.starts_with("pg_") {
            return Err(Error::user(
                SqlState("42939"),
                format!("unacceptable schema name \"{name}\""),
            )
            .with_detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        self.server
            .engine
            .change_catalog(
                vec![CatalogChange::CreateSchema {
                    name: name.into(),
                    owner: Some(self.user().into()),
                }],
                false,
            )
            .await?;
        done("CREATE SCHEMA")
    }

    fn schema_exists(&self, name: &str) -> bool {
        matches!(
            name,
            "public" | "pg_catalog" | "information_schema" | "tidemark"
        ) || self.catalog().schemas.iter().any(|s| s == name)
    }

    pub(crate) async fn drop_schema(
        &mut self,
        names: &[String],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome> {
        let mut changes = Vec::new();
        for name in names {
            if matches!(
                name.as_str(),
                "public" | "pg_catalog" | "information_schema" | "tidemark"
            ) {
                return Err(Error::user(
                    SqlState::DEPENDENT_OBJECTS,
                    format!(
                        "cannot drop schema \"{name}\" because it is required by the database \
                         system"
                    ),
                ));
            }
            if !self.schema_exists(name) {
                if if_exists {
                    self.notice(Notice::new(format!(
                        "schema \"{name}\" does not exist, skipping"
                    )));
                    continue;
                }
                return Err(Error::user(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{name}\" does not exist"),
                ));
            }
            let catalog = self.catalog();
            let inside: Vec<RelationId> = catalog
                .relations
                .values()
                .filter(|r| r.schema_name == *name)
                .map(|r| r.id)
                .collect();
            if !inside.is_empty() {
                if !cascade {
                    let inside = inside.iter().filter_map(|id| catalog.relations.get(id));
                    let line = |r: &Arc<Relation>| {
                        format!(
                            "{} {name}.{} depends on schema {name}",
                            r.kind.name(),
                            r.name
                        )
                    };
                    let lines: Vec<String> = inside.map(line).collect();
                    return Err(Error::user(
                        SqlState::DEPENDENT_OBJECTS,
                        format!("cannot drop schema {name} because other objects depend on it"),
                    )
                    .with_detail(lines.join("\n"))
                    .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
                }
                self.check_dependents(&catalog, &inside, true)?;
            }
            self.require_schema_ownership(name)?;
            changes.push(CatalogChange::DropSchema { name: name.clone() });
        }
        if !changes.is_empty() {
            self.server.engine.change_catalog(changes, cascade).await?;
        }
        done("DROP SCHEMA")
    }

    /// DROP of relations: `2BP01` with the dependents unless CASCADE.
    pub(crate) async fn drop_relations(&mut self, drop: &Drop) -> Result<Outcome> {
        let tag = format!("DROP {}", upper(drop.kind));
        let catalog = self.catalog();
        let mut wanted = Vec::new();
        for name in &drop.names {
            match self.resolve(&catalog, name) {
                Ok(relation) if relation.kind == drop.kind => wanted.push(relation.id),
                Ok(relation) => {
                    return Err(Error::user(
                        SqlState::WRONG_OBJECT_TYPE,
                        format!("\"{}\" is not a {}", relation.name, drop.kind.name()),
                    )
                    .with_hint(format!("Use DROP {} to remove it.", upper(relation.kind))));
                }
                Err(_) if self.cancel_creating(name).await? => {}
                Err(_) if drop.if_exists => self.notice(Notice::new(format!(
                    "{} \"{name}\" does not exist, skipping",
                    drop.kind.name()
                ))),
                Err(e) => {
                    let state = match (drop.kind, e.state()) {
                        (RelationKind::Index, SqlState::UNDEFINED_TABLE) => {
                            SqlState::UNDEFINED_OBJECT
                        }
                        (_, state) => state,
                    };
                    let missing = Error::user(
                        state,
                        format!("{} \"{name}\" does not exist", drop.kind.name()),
                    );
                    return Err(if name.position > 0 {
                        missing.at(name.position)
                    } else {
                        missing
                    });
                }
            }
        }
        if wanted.is_empty() {
            return done(&tag);
        }
        for relation in wanted.iter().filter_map(|id| catalog.relations.get(id)) {
            self.require_ownership(relation)?;
        }
        self.check_dependents(&catalog, &wanted, drop.cascade)?;
        self.server.engine.drop(&wanted, drop.cascade).await?;
        done(&tag)
    }

    /// DROP of a job that is still being created cancels it. Returns whether there was one.
    async fn cancel_creating(&self, name: &Name) -> Result<bool> {
        let full = name.to_string();
        let job = self.server.engine.jobs().into_iter().find(|j| {
            j.state == "creating" && (j.name == full || j.name.rsplit('.').next() == Some(&full))
        });
        let Some(job) = job else {
            return Ok(false);
        };
        self.require_superuser("cancel jobs")?;
        self.server.engine.cancel(&[job.relation]).await?;
        Ok(true)
    }

    /// Says what goes with these relations. Without `cascade` dependents are an error; an index
    /// goes with its relation.
    fn check_dependents(
        &self,
        catalog: &Catalog,
        wanted: &[RelationId],
        cascade: bool,
    ) -> Result<()> {
        let mut all: BTreeSet<RelationId> = wanted.iter().copied().collect();
        let mut queue: Vec<RelationId> = wanted.to_vec();
        let mut found: Vec<(Arc<Relation>, RelationId)> = Vec::new();
        while let Some(id) = queue.pop() {
            for dependent in catalog.dependents(id) {
                if all.insert(dependent.id) {
                    queue.push(dependent.id);
                    if dependent.kind != RelationKind::Index {
                        found.push((dependent.clone(), id));
                    }
                }
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let describe = |r: &Relation| match r.kind {
            RelationKind::Function => format!("function {}", signature(r)),
            kind => format!("{} {}", kind.name(), r.name),
        };
        let label = |id: &RelationId| {
            catalog
                .relations
                .get(id)
                .map_or_else(String::new, |r| describe(r))
        };
        if !cascade {
            let detail: Vec<String> = found
                .iter()
                .map(|(r, on)| format!("{} depends on {}", describe(r), label(on)))
                .collect();
            return Err(Error::user(
                SqlState::DEPENDENT_OBJECTS,
                format!(
                    "cannot drop {} because other objects depend on it",
                    label(&wanted[0])
                ),
            )
            .with_detail(detail.join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        match found.as_slice() {
            [(one, _)] => self.notice(Notice::new(format!("drop cascades to {}", describe(one)))),
            many => self.notice(Notice::new(format!(
                "drop cascades to {} other objects",
                many.len()
            ))),
        }
        Ok(())
    }

    pub(crate) async fn alter(
        &mut self,
        kind: RelationKind,
        name: &Name,
        if_exists: bool,
        action: &AlterAction,
    ) -> Result<Outcome> {
        let tag = format!("ALTER {}", upper(kind));
        let catalog = self.catalog();
        let relation = match self.resolve(&catalog, name) {
            Ok(relation) => relation,
            Err(_) if if_exists => {
                self.notice(Notice::new(format!(
                    "relation \"{name}\" does not exist, skipping"
                )));
                return done(&tag);
            }
            Err(e) => return Err(e),
        };
        self.require_ownership(&relation)?;
        // PostgreSQL lets ALTER TABLE name any relation.
        if relation.kind != kind && kind != RelationKind::Table {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a {}", relation.name, kind.name()),
            ));
        }
        let changes = match action {
            AlterAction::RenameTo(new) => vec![CatalogChange::Rename {
                relation: relation.id,
                name: new.clone(),
            }],
            AlterAction::SetSchema(schema) => {
                self.require_creation_in(schema)?;
                // Its indexes go with it.
                let is_index = |r: &&Arc<Relation>| {
                    r.kind == RelationKind::Index && r.depends_on.first() == Some(&relation.id)
                };
                let indexes = catalog.relations.values().filter(is_index);
                let moved = indexes.map(|index| index.id).chain([relation.id]);
                let moved = moved.map(|relation| CatalogChange::SetSchema {
                    relation,
                    schema_name: schema.clone(),
                });
                moved.collect()
            }
            AlterAction::OwnerTo(owner) => {
                let owner = self.new_owner(&catalog, owner)?;
                vec![CatalogChange::SetOwner {
                    relation: relation.id,
                    owner,
                }]
            }
            AlterAction::SetParallelism(_) => {
                self.notice(Notice::new(
                    "every job runs on all workers: nothing changes",
                ));
                Vec::new()
            }
            AlterAction::Resume => {
                self.resume(&catalog, &relation).await?;
                Vec::new()
            }
            AlterAction::Columns(actions) => {
                self.alter_columns(&relation, actions).await?;
                Vec::new()
            }
            AlterAction::SwapWith(other) => {
                let other = self.resolve(&catalog, other)?;
                self.require_ownership(&other)?;
                swap(&relation, &other)?
            }
        };
        if !changes.is_empty() {
            self.server.engine.change_catalog(changes, false).await?;
        }
        done(&tag)
    }

    /// The role that is to own something. Errors: `42501` for one that the user is no member of.
    fn new_owner(&self, catalog: &Catalog, owner: &str) -> Result<String> {
        let owner = self.named_role(owner);
        let own = catalog.memberships(self.user()).contains(&owner);
        if !own && !catalog.is_superuser(self.user()) {
            let message = format!("must be member of role \"{owner}\"");
            return Err(Error::user(SqlState("42501"), message));
        }
        Ok(owner)
    }

    /// Lets a job that does not run go on, and before it those that it reads: each needs the rows
    /// of the one before.
    async fn resume(&mut self, catalog: &Catalog, relation: &Arc<Relation>) -> Result<()> {
        let mut all = Vec::new();
        upstream_first(catalog, relation, &mut all);
        let halted = |r: &&Arc<Relation>| catalog.stopped.contains_key(&r.id);
        if !halted(&relation) {
            self.notice(Notice::new(format!(
                "{} \"{}\" runs already",
                relation.kind.name(),
                relation.name
            )));
        }
        for resumed in all.iter().filter(halted) {
            let notices = self.notice_sender();
            let progress = move |text| drop(notices.send(Notice::new(text)));
            self.server
                .engine
                .resume(resumed.id, progress)
                .await
                .map_err(|e| {
                    if resumed.id == relation.id {
                        e
                    } else {
                        let name = format!("\"{}\", which it reads, is not resumed", resumed.name);
                        e.context(name)
                    }
                })?;
        }
        let now = self.server.engine.catalog();
        let waiting: Vec<String> = now
            .relations
            .values()
            .filter(|r| now.stopped.contains_key(&r.id) && r.depends_on.contains(&relation.id))
            .map(|r| {
                let kind = r.kind.name().to_uppercase();
                format!("ALTER {kind} {} RESUME", r.name)
            })
            .collect();
        if !waiting.is_empty() {
            let mut notice =
                Notice::new(format!("what reads \"{}\" does not run yet", relation.name));
            notice.hint = Some(format!("Go on with {}.", waiting.join("; ")));
            self.notice(notice);
        }
        Ok(())
    }

    pub(crate) async fn comment(
        &mut self,
        object: &str,
        name: &[String],
        comment: Option<String>,
    ) -> Result<Outcome> {
        let object = object.to_lowercase();
        if object == "column" {
            let [path @ .., _] = name else {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "column name must be qualified",
                ));
            };
            self.commented(path)?;
            self.notice(Notice::new("comments on columns are accepted and not kept"));
            return done("COMMENT");
        }
        if matches!(object.as_str(), "schema" | "database" | "role") {
            self.notice(Notice::new(format!(
                "comments on {object}s are accepted and not kept"
            )));
            return done("COMMENT");
        }
        let relation = self.commented(name)?;
        self.require_ownership(&relation)?;
        self.server
            .engine
            .change_catalog(
                vec![CatalogChange::Comment {
                    relation: relation.id,
                    comment,
                }],
                false,
            )
            .await?;
        done("COMMENT")
    }

    fn commented(&self, path: &[String]) -> Result<Arc<Relation>> {
        let (schema, name) = match path {
            [name] => (None, name.clone()),
            [.., schema, name] => (Some(schema.clone()), name.clone()),
            [] => return Err(Error::user(SqlState::SYNTAX_ERROR, "a name is expected")),
        };
        self.resolve(
            &self.catalog(),
            &Name {
                schema,
                name,
                position: 0,
            },
        )
    }

    /// WAIT: until nothing is created in the background.
    pub(crate) async fn wait_for_background(&mut self) -> Result<Outcome> {
        while self.server.background.running() > 0
            || self
                .server
                .engine
                .jobs()
                .iter()
                .any(|j| j.state == "creating")
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        done("WAIT")
    }

    /// REFRESH MATERIALIZED VIEW: there is nothing to do.
    pub(crate) fn refresh(&mut self, name: &Name) -> Result<Outcome> {
        let relation = self.resolve(&self.catalog(), name)?;
        if relation.kind != RelationKind::MaterializedView {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a materialized view", relation.name),
            ));
        }
        self.notice(Notice::new(
            "materialized views are always up to date: nothing to refresh",
        ));
        done("REFRESH MATERIALIZED VIEW")
    }

    pub(crate) async fn cancel_jobs(&mut self, ids: &[u32]) -> Result<Outcome> {
        let jobs = self.server.engine.jobs();
        let ids: Vec<RelationId> = ids.iter().map(|i| RelationId(*i)).collect();
        if let Some(id) = ids.iter().find(|id| {
            !jobs
                .iter()
                .any(|j| j.relation == **id && j.state == "creating")
        }) {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("no job {id} is being created"),
            )
            .with_hint("SHOW JOBS lists them."));
        }
        self.require_superuser("cancel jobs")?;
        self.server.engine.cancel(&ids).await?;
        let rows: Vec<Vec<Option<String>>> =
            ids.iter().map(|id| vec![Some(id.to_string())]).collect();
        tidemark_query::outcome::text_rows(&["Id"], rows, "CANCEL JOBS")
    }
}

/// Two relations of one kind and schema exchange their names.
fn swap(one: &Relation, other: &Relation) -> Result<Vec<CatalogChange>> {
    if other.kind != one.kind {
        return Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            format!("\"{}\" is not a {}", other.name, one.kind.name()),
        ));
    }
    if other.schema_name != one.schema_name {
        return Err(Error::unsupported(
            "SWAP WITH needs relations of one schema",
        ));
    }
    let rename = |relation: &Relation, name: &str| CatalogChange::Rename {
        relation: relation.id,
        name: name.into(),
    };
    Ok(vec![rename(one, &other.name), rename(other, &one.name)])
}

/// Strings are one type below; clients are shown VARCHAR where it was declared, and TEXT elsewhere.
fn mark_varchar(columns: &mut [Column], definitions: &[ColumnDefinition]) {
    fn varchar(t: &ast::DataType) -> Option<String> {
        match t {
            ast::DataType::Varchar(None) | ast::DataType::CharacterVarying(None) => {
                Some("varchar".into())
            }
            ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) => {
                varchar(inner).map(|t| format!("{t}[]"))
            }
            _ => None,
        }
    }
    for column in columns.iter_mut().filter(|c| c.sql_type.is_empty()) {
        if let Some(t) = definitions
            .iter()
            .find(|d| d.name == column.name)
            .and_then(|d| varchar(&d.data_type))
        {
            column.sql_type = t;
        }
    }
}

/// Options and reachability of a connector, before anything is created.
async fn check_connector(relation: &Relation, vault: Arc<Vault>) -> Result<()> {
    let spec = relation.connector.clone();
    let Some(spec) = spec.filter(|spec| spec.connector != INTO_TABLE) else {
        return Ok(());
    };
    let (kind, columns) = (relation.kind, relation.columns_of_records());
    let check = tokio::task::spawn_blocking(move || {
        let spec = vault.revealed(&spec)?;
        match kind {
            RelationKind::Sink => {
                tidemark_connector::check_sink(&spec, &columns)?;
                tidemark_connector::check_sink_connection(&spec)
            }
            _ => {
                tidemark_connector::check_source(&spec, &columns)?;
                tidemark_connector::check_source_connection(&spec)
            }
        }
    });
    check
        .await
        .map_err(|e| Error::internal(format!("the check of a connector ended: {e}")))?
}

/// Options in the order of their names, as `SHOW CREATE` could need them.
pub fn options_text(options: &BTreeMap<String, String>) -> String {
    options
        .iter()
        .map(|(k, v)| format!("{k} = '{}'", v.replace('\'', "''")))
        .collect::<Vec<_>>()
        .join(", ")
}
