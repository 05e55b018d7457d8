//! A session: one client ([`Asker`]) with its cursors and prepared state, and the dispatch of its
//! statements.
//!
//! ```text
//! statement -> catalog snapshot -> read:  wait for own writes, pin an epoch, stream (serving)
//!                               -> write: lock, compute, write, commit (or keep for COMMIT) (dml)
//!                               -> DDL:   plan, check, create; nothing waits behind data   (ddl)
//! ```
//! After an error inside a transaction block every statement but ROLLBACK fails with `25P02`.

mod audit;
pub mod cursors;
mod describe;
mod prepare;
mod subscribe;
mod subscriptions;
mod truncate;

use crate::Server;
use crate::codec;
use crate::prepared::SharedStatements;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tidemark_common::memory::{about, parse_bytes};
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Catalog, Relation};
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{Copied, Name, Statement, StatementKind};
use tidemark_query::asker::transaction::is_rollback_to;
use tidemark_query::asker::{Asker, Voice};
use tidemark_query::clients::Activity;
use tidemark_query::copy::Lines;
use tidemark_query::dml::CopyRows;
use tidemark_query::error::Notice;
use tidemark_query::identity;
use tidemark_query::kept::{Kept, Texts};
use tidemark_query::outcome::{CopyIn, Outcome, Status};
use tidemark_query::parameters::Parameter;
use tidemark_query::settings::{ROLE, Settings};
use tidemark_values::moment::Zone;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// Texts up to this length are parsed where they arrive: it takes less than a millisecond.
const SHORT_BYTES: usize = 4096;

/// Settings that are read once, not with every message.
struct ReadSettings {
    of: Arc<Settings>,
    statement_timeout: Option<Duration>,
    transaction_timeout: Option<Duration>,
    idle_session_timeout: Option<Duration>,
    idle_in_transaction_session_timeout: Option<Duration>,
    application_name: String,
}

impl ReadSettings {
    /// Holding them keeps those that a SET makes apart from these.
    fn of(settings: &Arc<Settings>) -> ReadSettings {
        ReadSettings {
            of: settings.clone(),
            application_name: settings.get("application_name").unwrap_or_default().into(),
            statement_timeout: settings.timeout("statement_timeout"),
            transaction_timeout: settings.timeout("transaction_timeout"),
            idle_session_timeout: settings.timeout("idle_session_timeout"),
            idle_in_transaction_session_timeout: settings
                .timeout("idle_in_transaction_session_timeout"),
        }
    }
}

/// One client's session.
pub struct Session {
    pub(crate) server: Arc<Server>,
    pub(crate) asker: Asker,
    read: ReadSettings,
    pub(crate) cursors: cursors::Cursors,
    /// The statements that it has prepared.
    pub(crate) prepared: Arc<SharedStatements>,
    texts: Texts,
    activity: Arc<Activity>,
    /// When the transaction began: the block, or the statement that runs alone.
    began: Option<Instant>,
    /// Whether the open block is that of a TRUNCATE.
    truncates: bool,
}

impl Session {
    /// A session for a client that has just arrived.
    pub fn new(
        server: Arc<Server>,
        pid: i32,
        user: String,
        startup: &BTreeMap<String, String>,
        voice: Voice,
        activity: Arc<Activity>,
    ) -> Session {
        let (commons, serving) = (server.commons.clone(), server.serving.clone());
        let prepared: Arc<SharedStatements> = Arc::default();
        let listed = prepared.clone();
        let asker = Asker::new(commons, serving, pid, user, startup, voice, listed);
        Session {
            read: ReadSettings::of(&asker.settings),
            asker,
            cursors: Default::default(),
            prepared,
            texts: Texts::default(),
            activity,
            began: None,
            truncates: false,
            server,
        }
    }

    /// Number of the connection.
    pub fn pid(&self) -> i32 {
        self.asker.pid()
    }

    /// For those who cancel statements.
    pub fn submitted(&self) -> Arc<AtomicBool> {
        self.asker.submitted()
    }

    /// The role whose privileges its statements have.
    pub fn user(&self) -> &str {
        self.asker.user()
    }

    /// SET ROLE, of a client that comes.
    pub fn take_role(&mut self, role: &str) -> Result<()> {
        self.asker.act_as(ROLE, Some(role), false)
    }

    /// What a new client is told.
    pub fn reported_settings(&self) -> Vec<(String, String)> {
        self.asker.settings.reported()
    }

    /// The time zone in which the client reads and writes moments.
    pub fn zone(&mut self) -> Zone {
        self.asker.zone()
    }

    /// Where the transaction stands.
    pub fn status(&self) -> Status {
        self.asker.status()
    }

    /// A statement failed: a transaction block is spoiled.
    pub fn failed(&mut self) {
        if std::mem::take(&mut self.truncates) && self.rollback().is_ok() {
            return;
        }
        self.asker.failed();
    }

    /// A statement has ended well, and its rows are sent.
    pub fn settle(&mut self) {
        self.asker.settle();
    }

    /// The client may send the next statement.
    pub fn rest(&mut self) {
        self.asker.settle();
        let status = self.status();
        if status == Status::Idle {
            self.began = None;
            self.asker.end_of_transaction();
        }
        self.read_settings();
        self.activity.rest(status, &self.read.application_name);
    }

    /// The client is sent away: nothing is held any more.
    pub fn abandon(&mut self) {
        self.cursors = Default::default();
        *self.prepared.lock() = Default::default();
        self.asker.abandon();
    }

    /// Until when a statement that begins now, and its transaction, may run.
    pub fn limits(&mut self) -> (Option<Instant>, Option<Instant>) {
        let began = self.began;
        let read = self.read_settings();
        // Most have no limit, and need not know what time it is.
        let statement = read.statement_timeout.map(|t| Instant::now() + t);
        let began = || began.unwrap_or_else(Instant::now);
        let transaction = read.transaction_timeout.map(|t| began() + t);
        (statement, transaction)
    }

    /// How long the client may send nothing, out of a transaction block and in one.
    pub fn idle_timeouts(&mut self) -> (Option<Duration>, Option<Duration>) {
        let read = self.read_settings();
        let in_block = read.idle_in_transaction_session_timeout;
        (read.idle_session_timeout, in_block)
    }

    /// The settings that every message asks for, read when they last changed.
    fn read_settings(&mut self) -> &ReadSettings {
        if !Arc::ptr_eq(&self.read.of, &self.asker.settings) {
            self.read = ReadSettings::of(&self.asker.settings);
        }
        &self.read
    }

    /// Sends a notice; it reaches the client while the statement still runs.
    pub fn notice(&self, notice: Notice) {
        self.asker.notice(notice);
    }

    /// A sender for notices that outlives the borrow of the session.
    pub(crate) fn notice_sender(&self) -> UnboundedSender<Notice> {
        self.asker.notice_sender()
    }

    /// The newest relations.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.asker.catalog()
    }

    /// Finds a relation by the search path.
    pub(crate) fn resolve(&self, catalog: &Catalog, name: &Name) -> Result<Arc<Relation>> {
        self.asker.resolve(catalog, name)
    }

    /// Parses a text of any number of statements, a long one on a planning thread.
    pub fn parse(&self, text: &str) -> impl Future<Output = Result<Vec<Statement>>> + Send + use<> {
        let (server, text) = (self.server.clone(), text.to_string());
        async move {
            codec::check(&text)?;
            if text.len() <= SHORT_BYTES {
                return tidemark_planner::parse(&text);
            }
            let parsed = move || tidemark_planner::parse(&text);
            server.serving.planning.run(parsed).await
        }
    }

    /// Runs a statement with its parameters' literals.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        parameters: &[ast::Expr],
    ) -> Result<Outcome> {
        self.arrive(&statement.text);
        let ends = matches!(
            statement.kind,
            StatementKind::Commit | StatementKind::Rollback
        ) || is_rollback_to(statement);
        if self.status() == Status::Failed && !ends {
            return Err(Error::user(
                SqlState("25P02"),
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        self.check_roles(&statement.kind)?;
        // Its future has the states of all kinds of statements: whoever calls this moves it.
        Box::pin(self.dispatch(statement, parameters)).await
    }

    /// `42704` when a role that this session acts as was dropped. It may still go back to the role
    /// before, and end its transaction.
    fn check_roles(&mut self, kind: &StatementKind) -> Result<()> {
        use StatementKind as K;
        match kind {
            K::Commit | K::Rollback => Ok(()),
            K::Set { name, .. } | K::Reset(Some(name)) if identity::is_of_identity(name) => {
                self.asker.check_session_role(&self.catalog())
            }
            _ => self.asker.check_roles(),
        }
    }

    /// A statement begins.
    fn arrive(&mut self, text: &str) {
        self.asker.arrive();
        self.read_settings();
        self.activity.begin(text, &self.read.application_name);
        self.began.get_or_insert_with(Instant::now);
    }

    /// Runs a text that is one statement of a kept form or a query whose plan is kept; `None` for
    /// all others, which are to be parsed.
    pub async fn run_text(&mut self, text: &str) -> Result<Option<Outcome>> {
        let query = text.trim_matches(|c: char| c == ';' || c.is_ascii_whitespace());
        let found = self.texts.find(text);
        // A plan with its values is known to be as good as any.
        let better = |k: &Kept| !matches!(k, Kept::Query { .. }) || !self.asker.knows_plan(query);
        if let Some((kept, constants)) = found.filter(|(kept, _)| better(kept))
            && let Some(outcome) = self.run_kept(&kept, text, &constants).await?
        {
            return Ok(Some(outcome));
        }
        if self.status() == Status::Failed || !self.asker.knows_plan(query) {
            return Ok(None);
        }
        self.arrive(query);
        let rows = self.asker.run_again(query, &[]).await?;
        Ok(rows.map(Outcome::Rows))
    }

    /// Runs a statement of a kept form; `None` for one that is to be planned.
    pub async fn run_kept(
        &mut self,
        kept: &Kept,
        text: &str,
        parameters: &[Parameter],
    ) -> Result<Option<Outcome>> {
        if self.status() == Status::Failed {
            return Ok(None);
        }
        self.arrive(text);
        self.asker.check_roles()?;
        self.asker.run_kept(kept, parameters).await
    }

    /// More lines of a COPY came.
    pub async fn copy_lines(
        &mut self,
        target: &CopyIn,
        rows: &mut CopyRows,
        lines: Lines,
    ) -> Result<()> {
        self.asker.copy_lines(target, rows, lines).await
    }

    /// The client has sent all. Returns the number of rows.
    pub async fn copy_end(&mut self, target: &CopyIn, rows: CopyRows) -> Result<usize> {
        self.asker.copy_end(target, rows).await
    }

    /// BEGIN.
    pub async fn begin(&mut self, read_only: bool) -> Result<Outcome> {
        self.asker.begin(read_only).await
    }

    /// COMMIT; cursors without HOLD end with their transaction.
    pub async fn commit(&mut self) -> Result<Outcome> {
        self.cursors
            .end_transaction(self.status() == Status::Failed);
        self.asker.commit().await
    }

    /// ROLLBACK.
    pub fn rollback(&mut self) -> Result<Outcome> {
        self.cursors.end_transaction(true);
        self.asker.rollback()
    }

    async fn dispatch(
        &mut self,
        statement: &Statement,
        parameters: &[ast::Expr],
    ) -> Result<Outcome> {
        if !changes_catalog(&statement.kind) {
            return self.run(statement, parameters).await;
        }
        let words: Vec<&str> = statement.text.split_whitespace().take(2).collect();
        self.asker
            .check_may_write(&words.join(" ").to_uppercase())?;
        let outcome = self.run(statement, parameters).await?;
        self.audit_change(statement);
        self.asker.move_on();
        Ok(outcome)
    }

    async fn run(&mut self, statement: &Statement, parameters: &[ast::Expr]) -> Result<Outcome> {
        use StatementKind as K;
        match &statement.kind {
            K::Sql(sql) => {
                let run = self.asker.run_sql_again(sql, statement, parameters);
                run.await
            }
            K::CreateSource(_)
            | K::CreateTable(_)
            | K::CreateMaterializedView(_)
            | K::CreateView(_)
            | K::CreateSink(_)
            | K::CreateSubscription(_)
            | K::CreateIndex(_) => self.create(statement).await,
            K::CreateTableAs {
                name,
                if_not_exists,
                columns,
                query,
            } => {
                self.create_table_as(name, *if_not_exists, columns, query)
                    .await
            }
            K::CreateSchema {
                name,
                if_not_exists,
            } => self.create_schema(name, *if_not_exists).await,
            K::DropSchema {
                names,
                if_exists,
                cascade,
            } => self.drop_schema(names, *if_exists, *cascade).await,
            K::CreateRole {
                name,
                user,
                options,
            } => self.create_role(name, *user, options).await,
            K::CreateSecret {
                name,
                if_not_exists,
                value,
            } => self.create_secret(name, *if_not_exists, value).await,
            K::AlterSecret { name, value } => self.alter_secret(name, value).await,
            K::DropSecret { names, if_exists } => self.drop_secrets(names, *if_exists).await,
            K::Grant { .. } => self.grant(&statement.kind).await,
            K::DefaultPrivileges { .. } => self.default_privileges(&statement.kind).await,
            K::GrantRoles {
                revokes,
                roles,
                members,
            } => self.grant_roles(*revokes, roles, members).await,
            K::AlterRole { name, options } => self.alter_role(name, options).await,
            K::DropRole { names, if_exists } => self.drop_role(names, *if_exists).await,
            K::Drop(drop) => self.drop_relations(drop).await,
            K::CreateFunction(_) => self.create_function(statement).await,
            K::DropFunction {
                names,
                if_exists,
                cascade,
            } => self.drop_functions(names, *if_exists, *cascade).await,
            K::AlterFunction { name, action } => self.alter_function(name, action).await,
            K::CommentOnFunction { name, comment } => {
                self.comment_on_function(name, comment.clone()).await
            }
            K::Alter {
                kind,
                name,
                if_exists,
                action,
            } => self.alter(*kind, name, *if_exists, action).await,
            K::CommentOn {
                object,
                name,
                comment,
            } => self.comment(object, name, comment.clone()).await,
            K::Explain {
                analyze,
                verbose,
                format,
                statement,
            } => {
                self.explain(*analyze, *verbose, format.as_deref(), statement, parameters)
                    .await
            }
            K::ExplainJob { kind, name } => self.explain_job(*kind, name),
            K::Show {
                what: tidemark_planner::statement::ShowKind::Cluster,
                ..
            } => self.show_cluster().await,
            K::RemoveNode(node) => self.remove_node(*node).await,
            K::DrainNode { node, is_drained } => self.drain_node(*node, *is_drained).await,
            K::Show { what, schema, like } => self.show(what, schema.as_deref(), like.as_deref()),
            K::Describe(name) => self.describe_relation(name),
            K::Flush => {
                self.server.engine.flush().await?;
                Ok(Outcome::Command("FLUSH".into()))
            }
            K::Wait => self.wait_for_background().await,
            K::Refresh(name) => self.refresh(name),
            K::CancelJobs(ids) => self.cancel_jobs(ids).await,
            K::Set { name, value, local } => self.set(name, value.as_deref(), *local),
            K::Reset(name) => self.reset(name.as_deref()),
            K::Begin { read_only } => self.begin(*read_only).await,
            K::Commit => self.commit().await,
            K::Rollback => self.rollback(),
            K::Copy(copy) => match &copy.what {
                Copied::Changes(changes) => self.copy_changes(copy, changes).await,
                _ => self.asker.copy(copy, statement).await,
            },
            K::Subscribe(subscribe) => Ok(Outcome::Rows(self.subscribe(subscribe).await?)),
            K::DeclareSubscription {
                cursor,
                subscription,
                since,
            } => {
                self.declare_subscription(cursor, subscription, *since)
                    .await
            }
            K::Fetch {
                cursor,
                rows,
                moves: false,
                timeout,
            } if self.cursors.subscriptions.contains_key(cursor) => {
                self.fetch_changes(cursor, *rows, *timeout).await
            }
            K::Fetch {
                cursor,
                rows,
                moves: false,
                ..
            } => self.fetch(cursor, *rows),
            K::Fetch { cursor, rows, .. } => self.pass(cursor, *rows).await,
            K::Truncate(deletes) => self.truncate(deletes, statement).await,
            K::Other(other) => self.other(other, statement).await,
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Outcome> {
        if local && self.status() == Status::Idle {
            self.notice(Notice::warning(
                SqlState("25P01"),
                "SET LOCAL can only be used in transaction blocks",
            ));
            return Ok(Outcome::Command("SET".into()));
        }
        if name.eq_ignore_ascii_case("transaction_read_only") {
            return self.asker.set_read_only(value);
        }
        if identity::is_of_identity(name) {
            self.asker.act_as(name, value, local)?;
            return Ok(Outcome::Command("SET".into()));
        }
        self.check_memory(name, value)?;
        let (notice, report) = Arc::make_mut(&mut self.asker.settings).set(name, value, local)?;
        if let Some(notice) = notice {
            self.notice(notice);
        }
        if let Some((name, value)) = report {
            self.asker.report(name, value);
        }
        Ok(Outcome::Command("SET".into()))
    }

    /// `42501` for more memory of a query than one may have, unless a superuser says so.
    fn check_memory(&self, name: &str, value: Option<&str>) -> Result<()> {
        const NAME: &str = "query_memory_max";
        let wanted = value.filter(|_| name.eq_ignore_ascii_case(NAME));
        let wanted = wanted.and_then(|value| parse_bytes(value, 0)).unwrap_or(0);
        let most = self.server.serving.memory_of_one();
        if wanted <= most || self.catalog().is_superuser(self.user()) {
            return Ok(());
        }
        let message = format!("permission denied to set parameter \"{NAME}\"");
        let error = Error::user(SqlState("42501"), message);
        Err(error.with_detail(format!(
            "A query may have {} here; more is for a superuser to give.",
            about(most)
        )))
    }

    /// RESET: `42704` for a setting that nobody knows.
    fn reset(&mut self, name: Option<&str>) -> Result<Outcome> {
        if let Some(name) = name.filter(|name| identity::is_of_identity(name)) {
            self.asker.act_as(name, None, false)?;
            return Ok(Outcome::Command("RESET".into()));
        }
        let settings = Arc::make_mut(&mut self.asker.settings);
        let reports = match name {
            Some(name) if !name.eq_ignore_ascii_case("all") => {
                settings.known(name)?;
                settings.reset(name).into_iter().collect()
            }
            _ => settings.reset_all(),
        };
        for (name, value) in reports {
            self.asker.report(name, value);
        }
        Ok(Outcome::Command("RESET".into()))
    }
}

/// DDL.
fn changes_catalog(kind: &StatementKind) -> bool {
    use StatementKind as K;
    matches!(
        kind,
        K::CreateSource(_)
            | K::CreateTable(_)
            | K::CreateTableAs { .. }
            | K::CreateMaterializedView(_)
            | K::CreateView(_)
            | K::CreateSink(_)
            | K::CreateSubscription(_)
            | K::CreateIndex(_)
            | K::CreateSchema { .. }
            | K::DropSchema { .. }
            | K::CreateSecret { .. }
            | K::AlterSecret { .. }
            | K::DropSecret { .. }
            | K::CreateRole { .. }
            | K::Grant { .. }
            | K::DefaultPrivileges { .. }
            | K::GrantRoles { .. }
            | K::AlterRole { .. }
            | K::DropRole { .. }
            | K::Drop(_)
            | K::CreateFunction(_)
            | K::DropFunction { .. }
            | K::AlterFunction { .. }
            | K::CommentOnFunction { .. }
            | K::Alter { .. }
            | K::CommentOn { .. }
    )
}
