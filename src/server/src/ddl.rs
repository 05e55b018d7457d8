//! CREATE, DROP, ALTER, COMMENT, EXPLAIN of jobs, WAIT and CANCEL.
//!
//! CREATE plans against the catalog, checks the connector where it has one (on a blocking thread:
//! it asks the broker), and hands the relation to the engine, which returns when it has caught up;
//! its progress goes to the client as NOTICEs. With `background_ddl` that work goes on in a task of
//! its own.

use crate::protocol::error::Notice;
use crate::session::{Outcome, Session};
use datafusion::sql::sqlparser::ast;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::{Catalog, Column, Conflict, OnError, Relation, RelationKind};
use tidemark_planner::statement::{
    AlterAction, ColumnDefinition, Drop, Name, Statement, StatementKind,
};
use tidemark_runtime::engine::CatalogChange;

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
    fn creation_schema(&self) -> String {
        self.settings
            .search_path()
            .into_iter()
            .next()
            .unwrap_or_else(|| "public".into())
    }

    /// CREATE SOURCE, TABLE, [MATERIALIZED] VIEW, SINK, INDEX.
    pub(crate) async fn create(&mut self, statement: &Statement) -> Result<Outcome> {
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
            K::CreateIndex(index) => return self.create_index(index, statement).await,
            _ => return Err(Error::internal("not a CREATE")),
        };
        let tag = format!("CREATE {}", upper(target.kind));
        let catalog = self.catalog();
        let schema = target
            .name
            .schema
            .clone()
            .unwrap_or_else(|| self.creation_schema());
        let existing = catalog.find(&schema, &target.name.name).cloned();
        if existing.is_some() && target.if_not_exists {
            let name = &target.name.name;
            self.notice(Notice::with_state(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists, skipping"),
            ));
            return done(&tag);
        }
        let replaced = match existing {
            Some(old) if target.or_replace => {
                Some(self.check_replaceable(&catalog, &old, target.kind)?)
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
            .sql
            .planner(catalog.clone(), &self.settings.search_path());
        let (id, owner) = (self.server.engine.allocate_id(), self.user().to_string());
        let create = statement.clone();
        let planned = move || planner.plan_create(id, &create, &owner);
        let planned = self.server.serving.planning.run(planned).await?;
        for notice in &planned.notices {
            self.notice(Notice::new(notice));
        }
        let mut planned = planned;
        if let K::CreateSource(c) | K::CreateTable(c) = &statement.kind {
            mark_varchar(&mut planned.relation, &c.columns);
        }
        check_connector(&planned.relation).await?;
        if let Some(old) = replaced {
            self.server.engine.drop(&[old]).await?;
        }
        self.create_relation(planned.relation).await?;
        done(&tag)
    }

    /// OR REPLACE: of the same kind, and nobody depends on it.
    fn check_replaceable(
        &self,
        catalog: &Catalog,
        old: &Relation,
        kind: RelationKind,
    ) -> Result<RelationId> {
        if old.kind != kind {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "\"{}\" is a {}, not a {}",
                    old.name,
                    old.kind.name(),
                    kind.name()
                ),
            ));
        }
        match catalog.dependents(old.id).first() {
            Some(other) => Err(Error::user(
                SqlState::DEPENDENT_OBJECTS,
                format!(
                    "cannot replace {} \"{}\" because other objects depend on it",
                    kind.name(),
                    old.name
                ),
            )
            .with_detail(format!(
                "{} {} depends on it.",
                other.kind.name(),
                other.name
            ))
            .with_hint("Create it under another name, or drop what depends on it first.")),
            None => Ok(old.id),
        }
    }

    async fn create_relation(&mut self, relation: Relation) -> Result<()> {
        let engine = self.server.engine.clone();
        let background = self.settings.is_on("background_ddl")
            && matches!(
                relation.kind,
                RelationKind::MaterializedView | RelationKind::Sink | RelationKind::Table
            );
        if !background {
            let notices = self.notice_sender();
            return engine
                .create(relation, move |text| drop(notices.send(Notice::new(text))))
                .await;
        }
        let (id, name) = (relation.id, relation.name.clone());
        self.server.background.start();
        let server = self.server.clone();
        tokio::spawn(async move {
            let result = server.engine.create(relation, |_| {}).await;
            if let Err(e) = result {
                tracing::error!(relation = %name, %id, error = %e, "background creation failed");
            }
            server.background.end();
        });
        // The job is listed before the statement returns, so that SHOW JOBS and CANCEL find it.
        for _ in 0..100 {
            if self.server.engine.jobs().iter().any(|j| j.relation == id)
                || self.catalog().relations.contains_key(&id)
            {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// An index is an entry of the catalog: it keeps no rows of its own.
    async fn create_index(
        &mut self,
        index: &ast::CreateIndex,
        statement: &Statement,
    ) -> Result<Outcome> {
        let catalog = self.catalog();
        let on = self.resolve(&catalog, &crate::dml::name_of(&index.table_name)?)?;
        if !matches!(
            on.kind,
            RelationKind::Table | RelationKind::MaterializedView
        ) {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "cannot create an index on {} \"{}\"",
                    on.kind.name(),
                    on.name
                ),
            ));
        }
        let mut columns: Vec<Column> = Vec::new();
        for column in &index.columns {
            let name = column.column.expr.to_string().trim_matches('"').to_string();
            let found = on
                .columns
                .iter()
                .find(|c| c.name == name || c.name == name.to_lowercase());
            columns.push(found.cloned().ok_or_else(|| {
                Error::user(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{name}\" does not exist"),
                )
            })?);
        }
        let joined = || {
            format!(
                "{}_{}_idx",
                on.name,
                columns
                    .iter()
                    .map(|c| c.name.as_str())
                    .collect::<Vec<_>>()
                    .join("_")
            )
        };
        let name = match &index.name {
            Some(name) => crate::dml::name_of(name)?.name,
            None => joined(),
        };
        if catalog.find(&on.schema_name, &name).is_some() {
            if index.if_not_exists {
                self.notice(Notice::with_state(
                    SqlState::DUPLICATE_TABLE,
                    format!("relation \"{name}\" already exists, skipping"),
                ));
                return done("CREATE INDEX");
            }
            return Err(exists(RelationKind::Index, &name));
        }
        let list = columns
            .iter()
            .map(|c| crate::serving::functions::quote_ident(&c.name))
            .collect::<Vec<_>>()
            .join(", ");
        let definition = format!(
            "CREATE INDEX {name} ON {}.{} USING btree ({list})",
            on.schema_name,
            crate::serving::functions::quote_ident(&on.name)
        );
        let relation = Relation {
            id: self.server.engine.allocate_id(),
            schema_name: on.schema_name.clone(),
            name,
            kind: RelationKind::Index,
            key: (0..columns.len()).collect(),
            columns,
            key_declared: false,
            append_only: false,
            watermark: None,
            connector: None,
            conflict: Conflict::Overwrite,
            on_error: OnError::Log,
            snapshot: true,
            definition,
            query: statement.text.clone(),
            depends_on: vec![on.id],
            owner: self.user().into(),
            comment: None,
            job: None,
            logs_rows: None,
            created_at: None,
            unreadable: None,
        };
        self.server.engine.create(relation, |_| {}).await?;
        done("CREATE INDEX")
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
        if name.starts_with("pg_") {
            return Err(Error::user(
                SqlState("42939"),
                format!("unacceptable schema name \"{name}\""),
            )
            .with_detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        self.server
            .engine
            .change_catalog(CatalogChange::CreateSchema { name: name.into() })
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
                    let first = &catalog.relations[&inside[0]];
                    return Err(Error::user(
                        SqlState::DEPENDENT_OBJECTS,
                        format!("cannot drop schema {name} because other objects depend on it"),
                    )
                    .with_detail(format!(
                        "{} {name}.{} depends on schema {name}.",
                        first.kind.name(),
                        first.name
                    ))
                    .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
                }
                let all = self.with_dependents(&catalog, &inside, true)?;
                self.server.engine.drop(&all).await?;
            }
            self.server
                .engine
                .change_catalog(CatalogChange::DropSchema { name: name.clone() })
                .await?;
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
                    let missing = Error::user(
                        e.state(),
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
        let all = self.with_dependents(&catalog, &wanted, drop.cascade)?;
        self.server.engine.drop(&all).await?;
        done(&tag)
    }

    /// DROP of a job that is still being created cancels it. Returns whether there was one.
    async fn cancel_creating(&self, name: &Name) -> Result<bool> {
        let full = name.to_string();
        let job = self.server.engine.jobs().into_iter().find(|j| {
            j.state == "creating" && (j.name == full || j.name.rsplit('.').next() == Some(&full))
        });
        match job {
            Some(job) => self
                .server
                .engine
                .cancel(&[job.relation])
                .await
                .map(|()| true),
            None => Ok(false),
        }
    }

    /// These relations and everything that depends on them. Without `cascade` dependents are an
    /// error; an index goes with its relation.
    fn with_dependents(
        &self,
        catalog: &Catalog,
        wanted: &[RelationId],
        cascade: bool,
    ) -> Result<Vec<RelationId>> {
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
            return Ok(all.into_iter().collect());
        }
        let describe = |r: &Relation| format!("{} {}", r.kind.name(), r.name);
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
        Ok(all.into_iter().collect())
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
        // PostgreSQL lets ALTER TABLE name any relation.
        if relation.kind != kind && kind != RelationKind::Table {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a {}", relation.name, kind.name()),
            ));
        }
        let taken = |schema: &str, name: &str| match catalog.find(schema, name) {
            Some(_) => Err(exists(relation.kind, name)),
            None => Ok(()),
        };
        match action {
            AlterAction::RenameTo(new) => {
                taken(&relation.schema_name, new)?;
                self.check_no_text_dependents(&catalog, &relation)?;
                self.server
                    .engine
                    .change_catalog(CatalogChange::Rename {
                        relation: relation.id,
                        name: new.clone(),
                    })
                    .await?;
            }
            AlterAction::SetSchema(schema) => {
                if !self.schema_exists(schema) {
                    return Err(Error::user(
                        SqlState::INVALID_SCHEMA_NAME,
                        format!("schema \"{schema}\" does not exist"),
                    ));
                }
                taken(schema, &relation.name)?;
                self.check_no_text_dependents(&catalog, &relation)?;
                self.server
                    .engine
                    .change_catalog(CatalogChange::SetSchema {
                        relation: relation.id,
                        schema_name: schema.clone(),
                    })
                    .await?;
            }
            AlterAction::OwnerTo(_) => {
                self.notice(Notice::new("owners are not kept apart: nothing changes"))
            }
            AlterAction::SetParallelism(_) => self.notice(Notice::new(
                "every job runs on all workers: nothing changes",
            )),
            AlterAction::Resume => self.resume(&catalog, &relation).await?,
            AlterAction::SwapWith(other) => {
                let other = self.resolve(&catalog, other)?;
                self.check_no_text_dependents(&catalog, &relation)?;
                self.check_no_text_dependents(&catalog, &other)?;
                if other.schema_name != relation.schema_name {
                    return Err(Error::unsupported(
                        "SWAP WITH needs relations of one schema",
                    ));
                }
                let parked = format!("__swap_{}", relation.id);
                for (id, name) in [
                    (relation.id, parked.as_str()),
                    (other.id, relation.name.as_str()),
                    (relation.id, other.name.as_str()),
                ] {
                    self.server
                        .engine
                        .change_catalog(CatalogChange::Rename {
                            relation: id,
                            name: name.into(),
                        })
                        .await?;
                }
            }
        }
        done(&tag)
    }

    /// Lets a job that does not run go on, and before it those that it reads: each needs the rows of
    /// the one before.
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

    /// A plain view names its relations in its text: they keep their names while it lives. Jobs
    /// hold relations by id.
    fn check_no_text_dependents(&self, catalog: &Catalog, relation: &Relation) -> Result<()> {
        match catalog
            .dependents(relation.id)
            .into_iter()
            .find(|r| r.kind == RelationKind::View)
        {
            Some(view) => Err(Error::user(
                SqlState::DEPENDENT_OBJECTS,
                format!(
                    "cannot rename {} \"{}\" because view \"{}\" names it",
                    relation.kind.name(),
                    relation.name,
                    view.name
                ),
            )
            .with_hint("Drop the view, rename, and create the view again.")),
            None => Ok(()),
        }
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
        if matches!(object.as_str(), "schema" | "database" | "function" | "role") {
            self.notice(Notice::new(format!(
                "comments on {object}s are accepted and not kept"
            )));
            return done("COMMENT");
        }
        let relation = self.commented(name)?;
        self.server
            .engine
            .change_catalog(CatalogChange::Comment {
                relation: relation.id,
                comment,
            })
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
        self.server.engine.cancel(&ids).await?;
        let rows: Vec<Vec<Option<String>>> =
            ids.iter().map(|id| vec![Some(id.to_string())]).collect();
        crate::show::text_rows(&["Id"], rows, "CANCEL JOBS")
    }
}

/// Strings are one type below; clients are shown VARCHAR where it was declared, and TEXT elsewhere.
fn mark_varchar(relation: &mut Relation, definitions: &[ColumnDefinition]) {
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
    for column in relation
        .columns
        .iter_mut()
        .filter(|c| c.sql_type.is_empty())
    {
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
async fn check_connector(relation: &Relation) -> Result<()> {
    let Some(spec) = relation.connector.clone() else {
        return Ok(());
    };
    let (kind, columns) = (relation.kind, relation.columns.clone());
    let check = tokio::task::spawn_blocking(move || match kind {
        RelationKind::Sink => {
            tidemark_connector::check_sink(&spec, &columns)?;
            tidemark_connector::check_sink_connection(&spec)
        }
        _ => {
            tidemark_connector::check_source(&spec, &columns)?;
            tidemark_connector::check_source_connection(&spec)
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
