//! A session: one client's settings, transaction and prepared state, and the dispatch of its
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
pub mod effects;
pub mod settings;
pub mod transaction;

use crate::Server;
use crate::clients::Activity;
use crate::notifications::Mailbox;
use crate::protocol::copy::{CopyIn, CopyOut};
use crate::protocol::error::Notice;
use crate::serving::kept::Texts;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast;
use settings::Settings;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tidemark_common::{Epoch, Error, Result, SqlState};
use tidemark_plan::{Catalog, Relation};
use tidemark_planner::statement::{Name, Statement, StatementKind};
use tidemark_values::moment::Zone;
use tokio::sync::mpsc;
use tokio::time::Instant;
use transaction::Transaction;

/// Texts up to this length are parsed where they arrive: it takes less than a millisecond.
const SHORT_BYTES: usize = 4096;

/// How a command tag is completed.
#[derive(Clone, Debug)]
pub enum Tag {
    /// As it is: `SHOW`, `EXPLAIN`.
    Fixed(&'static str),
    /// Followed by the number of rows: `SELECT 3`, `INSERT 0 3`.
    Counted(&'static str),
}

impl Tag {
    /// The text for `rows` rows.
    pub fn text(&self, rows: usize) -> String {
        match self {
            Tag::Fixed(tag) => (*tag).into(),
            Tag::Counted(tag) => format!("{tag} {rows}"),
        }
    }
}

/// Rows on their way to the client.
pub struct Rows {
    /// Names as the client sees them, types with their SQL names.
    pub schema: SchemaRef,
    /// Batches with these columns, in this order.
    pub stream: SendableRecordBatchStream,
    /// How the statement ends.
    pub tag: Tag,
}

/// What a statement gives.
pub enum Outcome {
    /// A command tag.
    Command(String),
    /// Rows, then a tag.
    Rows(Rows),
    /// `COPY .. TO STDOUT`.
    CopyOut(CopyOut),
    /// `COPY .. FROM STDIN`: the client sends data next.
    CopyIn(CopyIn),
}

/// The transaction status that ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No transaction block.
    Idle,
    /// In a block.
    Open,
    /// In a block that failed.
    Failed,
}

/// Settings that are read once, not with every message.
struct ReadSettings {
    of: Arc<Settings>,
    statement_timeout: Option<Duration>,
    transaction_timeout: Option<Duration>,
    idle_session_timeout: Option<Duration>,
    idle_in_transaction_session_timeout: Option<Duration>,
    zone: Zone,
}

impl ReadSettings {
    /// Holding them keeps those that a SET makes apart from these.
    fn of(settings: &Arc<Settings>) -> ReadSettings {
        ReadSettings {
            of: settings.clone(),
            statement_timeout: settings.timeout("statement_timeout"),
            transaction_timeout: settings.timeout("transaction_timeout"),
            idle_session_timeout: settings.timeout("idle_session_timeout"),
            idle_in_transaction_session_timeout: settings
                .timeout("idle_in_transaction_session_timeout"),
            zone: settings.zone(),
        }
    }
}

/// One client's session.
pub struct Session {
    pub(crate) server: Arc<Server>,
    pub(crate) settings: Arc<Settings>,
    read: ReadSettings,
    pub(crate) transaction: Transaction,
    /// The last epoch that this session wrote into: its next read waits for it.
    pub(crate) written: Option<Epoch>,
    /// DataFusion's state with this session's functions.
    pub(crate) state: SessionState,
    pub(crate) cursors: cursors::Cursors,
    pub(crate) texts: Texts,
    pid: i32,
    user: String,
    notices: mpsc::UnboundedSender<Notice>,
    reports: mpsc::UnboundedSender<(String, String)>,
    activity: Arc<Activity>,
    /// What the running statement's functions leave to do.
    effects: Vec<Arc<effects::Effects>>,
    announcements: effects::Announcements,
    mailbox: Mailbox,
    /// The number of the transaction; 0 if it has none yet.
    transaction_number: Arc<AtomicI64>,
    /// When the transaction began: the block, or the statement that runs alone.
    began: Option<Instant>,
    /// Whether the running statement's writes are on their way to the log: from then on it cannot
    /// be undone.
    pub(crate) submitted: Arc<AtomicBool>,
}

impl Session {
    /// A session for a client that has just arrived.
    pub fn new(
        server: Arc<Server>,
        pid: i32,
        user: String,
        startup: &BTreeMap<String, String>,
        notices: mpsc::UnboundedSender<Notice>,
        reports: mpsc::UnboundedSender<(String, String)>,
        mailbox: Mailbox,
        activity: Arc<Activity>,
    ) -> Session {
        let state = server
            .serving
            .session_state(&user, pid, &server, notices.clone());
        let settings = Arc::new(Settings::new(&user, startup));
        Session {
            read: ReadSettings::of(&settings),
            settings,
            transaction: Transaction::default(),
            written: None,
            state,
            cursors: Default::default(),
            texts: Texts::default(),
            pid,
            user,
            notices,
            reports,
            activity,
            effects: Vec::new(),
            announcements: Default::default(),
            mailbox,
            transaction_number: Arc::default(),
            began: None,
            submitted: Arc::default(),
            server,
        }
    }

    /// Number of the connection.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// For those who cancel statements.
    pub fn submitted(&self) -> Arc<AtomicBool> {
        self.submitted.clone()
    }

    /// The client's user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What a new client is told.
    pub fn reported_settings(&self) -> Vec<(String, String)> {
        self.settings.reported()
    }

    /// The time zone in which the client reads and writes moments.
    pub fn zone(&mut self) -> Zone {
        self.read_settings().zone.clone()
    }

    /// Where the transaction stands.
    pub fn status(&self) -> Status {
        self.transaction.status()
    }

    /// A statement failed: a transaction block is spoiled.
    pub fn failed(&mut self) {
        self.transaction.fail();
        self.forget_effects();
    }

    /// The client may send the next statement.
    pub fn rest(&mut self) {
        self.settle();
        let status = self.status();
        if status == Status::Idle {
            self.began = None;
            self.end_of_transaction();
        }
        self.activity.rest(status, self.application_name());
    }

    /// The client is sent away: nothing is held any more.
    pub fn abandon(&mut self) {
        self.transaction = Transaction::default();
        self.cursors = Default::default();
        self.leave();
    }

    /// Until when a statement that begins now, and its transaction, may run.
    pub fn limits(&mut self) -> (Option<Instant>, Option<Instant>) {
        let now = Instant::now();
        let began = self.began.unwrap_or(now);
        let read = self.read_settings();
        let (statement, transaction) = (read.statement_timeout, read.transaction_timeout);
        (statement.map(|t| now + t), transaction.map(|t| began + t))
    }

    /// How long the client may send nothing, out of a transaction block and in one.
    pub fn idle_timeouts(&mut self) -> (Option<Duration>, Option<Duration>) {
        let read = self.read_settings();
        let in_block = read.idle_in_transaction_session_timeout;
        (read.idle_session_timeout, in_block)
    }

    /// The settings that every message asks for, read when they last changed.
    fn read_settings(&mut self) -> &ReadSettings {
        if !Arc::ptr_eq(&self.read.of, &self.settings) {
            self.read = ReadSettings::of(&self.settings);
        }
        &self.read
    }

    fn application_name(&self) -> &str {
        self.settings.get("application_name").unwrap_or_default()
    }

    /// Sends a notice; it reaches the client while the statement still runs.
    pub fn notice(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }

    /// A sender for notices that outlives the borrow of the session.
    pub(crate) fn notice_sender(&self) -> mpsc::UnboundedSender<Notice> {
        self.notices.clone()
    }

    pub(crate) fn report(&self, name: String, value: String) {
        let _ = self.reports.send((name, value));
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.server.engine.catalog()
    }

    /// Parses a text of any number of statements, a long one on a planning thread.
    pub fn parse(&self, text: &str) -> impl Future<Output = Result<Vec<Statement>>> + Send + use<> {
        let (server, text) = (self.server.clone(), text.to_string());
        async move {
            crate::protocol::codec::check(&text)?;
            if text.len() <= SHORT_BYTES {
                return tidemark_planner::parse(&text);
            }
            let parsed = move || tidemark_planner::parse(&text);
            server.serving.planning.run(parsed).await
        }
    }

    /// Finds a relation by the search path.
    pub(crate) fn resolve(&self, catalog: &Catalog, name: &Name) -> Result<Arc<Relation>> {
        let found = match &name.schema {
            Some(schema) => catalog.find(schema, &name.name),
            None => self
                .settings
                .search_path()
                .iter()
                .find_map(|schema| catalog.find(schema, &name.name)),
        };
        found.cloned().ok_or_else(|| {
            let e = Error::user(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{name}\" does not exist"),
            );
            if name.position > 0 {
                e.at(name.position)
            } else {
                e
            }
        })
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
        ) || transaction::is_rollback_to(statement);
        if self.transaction.status() == Status::Failed && !ends {
            return Err(Error::user(
                SqlState("25P02"),
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        // Its future has the states of all kinds of statements: whoever calls this moves it.
        Box::pin(self.dispatch(statement, parameters)).await
    }

    /// A statement begins.
    pub(crate) fn arrive(&mut self, text: &str) {
        self.settle();
        self.activity.begin(text, self.application_name());
        self.began.get_or_insert_with(Instant::now);
        self.submitted.store(false, Ordering::SeqCst);
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
        self.check_may_write(&words.join(" ").to_uppercase())?;
        let outcome = self.run(statement, parameters).await?;
        self.audit_change(statement);
        self.move_on();
        Ok(outcome)
    }

    async fn run(&mut self, statement: &Statement, parameters: &[ast::Expr]) -> Result<Outcome> {
        use StatementKind as K;
        match &statement.kind {
            K::Sql(sql) => self.run_sql(sql, statement, parameters).await,
            K::CreateSource(_)
            | K::CreateTable(_)
            | K::CreateMaterializedView(_)
            | K::CreateView(_)
            | K::CreateSink(_)
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
            K::Copy(copy) => self.copy(copy, statement).await,
            K::Subscribe { .. } => Err(Error::unsupported("SUBSCRIBE is not supported yet")
                .with_hint("Create a sink to follow a relation's changes.")),
            K::Other(other) => self.other(other, statement).await,
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Outcome> {
        if local && self.transaction.status() == Status::Idle {
            self.notice(Notice::warning(
                SqlState("25P01"),
                "SET LOCAL can only be used in transaction blocks",
            ));
            return Ok(Outcome::Command("SET".into()));
        }
        if name.eq_ignore_ascii_case("transaction_read_only") {
            return self.set_read_only(value);
        }
        let (notice, report) = Arc::make_mut(&mut self.settings).set(name, value, local)?;
        if let Some(notice) = notice {
            self.notice(notice);
        }
        if let Some((name, value)) = report {
            self.report(name, value);
        }
        Ok(Outcome::Command("SET".into()))
    }

    /// RESET: `42704` for a setting that nobody knows.
    fn reset(&mut self, name: Option<&str>) -> Result<Outcome> {
        let settings = Arc::make_mut(&mut self.settings);
        let reports = match name {
            Some(name) if !name.eq_ignore_ascii_case("all") => {
                settings.known(name)?;
                settings.reset(name).into_iter().collect()
            }
            _ => settings.reset_all(),
        };
        for (name, value) in reports {
            self.report(name, value);
        }
        Ok(Outcome::Command("RESET".into()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave();
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
            | K::Alter { .. }
            | K::CommentOn { .. }
    )
}

/// `5000`, `5s`, `2min`: milliseconds.
fn parse_milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}
