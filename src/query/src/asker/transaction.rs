//! Transaction blocks over the engine's write guards.
//!
//! A block's reads see the epoch of its first one; its writes are kept in one guard until COMMIT,
//! which logs them as one, and are seen by its own reads of those tables. A guard locks a fixed set
//! of tables. When a block writes another table, the guard is given back, a guard over both is
//! taken and the block's journal is replayed into it; if a replayed write does not meet the rows
//! that it met before, somebody else changed them in between and the block fails with `40001`. A
//! savepoint is a length of the journal. The journal is kept as long as the block, also while there
//! is no guard: a block commits all that it wrote, or nothing.
//!
//! DDL takes effect at once, also in a block, and moves the block's epoch on, so that the block
//! sees what it created.

use super::Asker;
use crate::error::Notice;
use crate::identifiers::name_of;
use crate::outcome::{Outcome, Status};
use crate::parameters::parse_bool;
use crate::serving::collect::rows_bytes;
use crate::settings;
use arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState};
use tidemark_node::engine::Pin;
use tidemark_node::{Engine, NewKeys, WriteGuard, Writer, check_write_bytes};
use tidemark_plan::{Catalog, RelationKind};
use tidemark_planner::statement::{Statement, StatementKind};

/// One write of a block.
#[derive(Clone)]
pub struct Write {
    /// The table.
    pub table: RelationId,
    /// Rows that leave, all columns.
    pub deletes: Vec<RecordBatch>,
    /// Rows that come, all columns.
    pub inserts: Vec<RecordBatch>,
    /// What is known of their keys.
    pub keys: NewKeys,
}

impl Write {
    fn bytes(&self) -> usize {
        self.deletes
            .iter()
            .chain(&self.inserts)
            .map(rows_bytes)
            .sum()
    }
}

/// A guard that plans can read while the session, which alone keeps it, holds it.
pub type SharedGuard = Arc<Mutex<WriteGuard>>;

/// The writes of a block.
#[derive(Default)]
pub struct Writes {
    /// The tables that are locked, in order.
    tables: Vec<RelationId>,
    /// The lock with the rows; none when it could not be taken again.
    guard: Option<SharedGuard>,
    journal: Vec<(Write, (usize, usize))>,
    /// What is written so far, in bytes.
    bytes: usize,
    /// Tables whose rows were read FOR UPDATE, as they were then: nobody may write them until the
    /// block ends.
    read_for_update: BTreeMap<RelationId, Epoch>,
}

/// An open block.
pub struct Block {
    /// The epoch of its first read.
    pub pin: Option<Arc<Pin>>,
    /// What there was then.
    known: Option<Arc<Catalog>>,
    writes: Writes,
    read_only: bool,
    savepoints: Vec<Savepoint>,
}

/// A place in a block that ROLLBACK TO goes back to.
struct Savepoint {
    name: String,
    /// Length of the journal.
    journal: usize,
    settings: settings::Savepoint,
    announcements: (usize, usize),
    /// Advisory locks that the block had taken.
    advisory: usize,
}

/// Where a session stands.
#[derive(Default)]
pub enum Transaction {
    /// Every statement commits alone.
    #[default]
    Idle,
    /// In a block.
    Open(Box<Block>),
    /// In a block that failed; its savepoints are kept.
    Failed(Option<Box<Block>>),
}

impl Transaction {
    /// For ReadyForQuery.
    pub fn status(&self) -> Status {
        match self {
            Transaction::Idle => Status::Idle,
            Transaction::Open(_) => Status::Open,
            Transaction::Failed(_) => Status::Failed,
        }
    }

    /// A statement of the block failed.
    pub fn fail(&mut self) {
        *self = match std::mem::take(self) {
            // With a savepoint the block can be rescued: what it wrote up to there is replayed.
            Transaction::Open(block) => {
                Transaction::Failed((!block.savepoints.is_empty()).then_some(block))
            }
            other => other,
        };
    }

    /// The open block.
    pub fn block(&mut self) -> Option<&mut Block> {
        match self {
            Transaction::Open(block) => Some(block),
            _ => None,
        }
    }

    /// Guard and tables of the open block's writes, for its own reads.
    pub fn written(&self) -> Option<(Weak<Mutex<WriteGuard>>, Vec<RelationId>)> {
        match self {
            Transaction::Open(block) => block
                .writes
                .guard
                .as_ref()
                .map(|g| (Arc::downgrade(g), block.writes.tables.clone())),
            _ => None,
        }
    }
}

/// Whether a statement is `ROLLBACK TO SAVEPOINT`, which a failed block takes.
pub fn is_rollback_to(statement: &Statement) -> bool {
    let StatementKind::Other(other) = &statement.kind else {
        return false;
    };
    matches!(
        other.as_ref(),
        ast::Statement::Rollback {
            savepoint: Some(_),
            ..
        }
    )
}

/// `40001` if one of these relations took the place of another since a block began to read: rows of
/// both would be seen side by side.
fn check_same(known: &Catalog, now: &Catalog, reads: &[RelationId]) -> Result<()> {
    let new = reads.iter().filter(|id| !known.relations.contains_key(id));
    for relation in new.filter_map(|id| now.relations.get(id)) {
        let mut before = known.relations.values();
        if before.any(|r| r.schema_name == relation.schema_name && r.name == relation.name) {
            let message = format!("relation \"{}\" was replaced meanwhile", relation.name);
            let error = Error::user(SqlState("40001"), message);
            return Err(error.with_hint("Run the transaction again."));
        }
    }
    Ok(())
}

impl Asker {
    /// The epoch that a read of these relations sees: the block's, or the newest that includes this
    /// session's writes. A block's is that of its first read of any; what is named later and is not
    /// so far is waited for.
    pub(crate) async fn read_pin(&mut self, reads: &[RelationId]) -> Result<Arc<Pin>> {
        let catalog = self.catalog();
        if let Some(block) = self.transaction.block()
            && let Some(pin) = &block.pin
        {
            if let Some(known) = &block.known {
                check_same(known, &catalog, reads)?;
            }
            let complete = self.commons.engine.wait_complete(reads, pin.epoch());
            complete.await?;
            return Ok(pin.clone());
        }
        let at_least = self.written_for(reads);
        let pin = Arc::new(self.commons.engine.pin_when(reads, at_least).await?);
        if let Some(block) = self.transaction.block().filter(|_| !reads.is_empty()) {
            block.pin = Some(pin.clone());
            block.known = Some(catalog);
        }
        Ok(pin)
    }

    /// The last epoch in which this session wrote to a table that these relations are made of.
    pub(crate) fn written_for(&mut self, reads: &[RelationId]) -> Epoch {
        if self.written.is_empty() {
            return Epoch(0);
        }
        let published = self.commons.engine.published();
        self.written.retain(|_, epoch| *epoch > published);
        if self.written.is_empty() {
            return Epoch(0);
        }
        let catalog = self.catalog();
        let (mut inputs, mut next) = (BTreeSet::new(), reads.to_vec());
        while let Some(id) = next.pop() {
            if inputs.insert(id)
                && let Some(relation) = catalog.relations.get(&id)
            {
                next.extend_from_slice(&relation.depends_on);
            }
        }
        let written = self.written.iter().filter(|(id, _)| inputs.contains(id));
        written.map(|(_, epoch)| *epoch).max().unwrap_or_default()
    }

    pub async fn begin(&mut self, read_only: bool) -> Result<Outcome> {
        if self.transaction.status() != Status::Idle {
            self.notice(Notice::warning(
                SqlState("25001"),
                "there is already a transaction in progress",
            ));
            return Ok(Outcome::Command("BEGIN".into()));
        }
        Arc::make_mut(&mut self.settings).begin();
        let read_only = read_only || self.settings.is_on("default_transaction_read_only");
        self.transaction = Transaction::Open(Box::new(Block {
            pin: None,
            known: None,
            writes: Writes::default(),
            read_only,
            savepoints: Vec::new(),
        }));
        Ok(Outcome::Command("BEGIN".into()))
    }

    /// SET TRANSACTION READ ONLY, READ WRITE: of the open block.
    pub fn set_read_only(&mut self, value: Option<&str>) -> Result<Outcome> {
        let default = self.settings.is_on("default_transaction_read_only");
        let read_only = match value {
            None => default,
            Some(text) => {
                let text = text.trim_matches('\'');
                parse_bool(text).ok_or_else(|| {
                    Error::user(
                        SqlState::INVALID_PARAMETER,
                        format!(
                            "parameter \"transaction_read_only\" requires a Boolean value: \
                             \"{text}\""
                        ),
                    )
                })?
            }
        };
        match self.transaction.block() {
            Some(block) => block.read_only = read_only,
            None => self.notice(Notice::warning(
                SqlState("25P01"),
                "SET TRANSACTION can only be used in transaction blocks",
            )),
        }
        Ok(Outcome::Command("SET".into()))
    }

    /// `25006` where the block, or without one the session, may only read.
    pub fn check_may_write(&mut self, what: &str) -> Result<()> {
        let read_only = match self.transaction.block() {
            Some(block) => block.read_only,
            None => self.settings.is_on("default_transaction_read_only"),
        };
        if read_only {
            Err(Error::user(
                SqlState("25006"),
                format!("cannot execute {what} in a read-only transaction"),
            ))
        } else {
            Ok(())
        }
    }

    /// After DDL: the block reads a newer epoch from here on, in which the change counts.
    pub fn move_on(&mut self) {
        if let Some(block) = self.transaction.block() {
            block.pin = None;
        }
    }

    pub async fn commit(&mut self) -> Result<Outcome> {
        self.settle();
        match std::mem::take(&mut self.transaction) {
            Transaction::Idle => {
                self.notice(Notice::warning(
                    SqlState("25P01"),
                    "there is no transaction in progress",
                ));
                Ok(Outcome::Command("COMMIT".into()))
            }
            Transaction::Failed(_) => {
                self.end_block(false);
                Ok(Outcome::Command("ROLLBACK".into()))
            }
            Transaction::Open(block) => {
                let Block { pin, writes, .. } = *block;
                drop(pin);
                if writes.guard.is_none() && !writes.journal.is_empty() {
                    self.end_block(false);
                    return Err(conflict());
                }
                self.end_block(true);
                if let Some(guard) = writes.guard {
                    self.commit_guard(guard).await?;
                }
                self.announce();
                self.end_of_transaction();
                Ok(Outcome::Command("COMMIT".into()))
            }
        }
    }

    pub fn rollback(&mut self) -> Result<Outcome> {
        if self.transaction.status() == Status::Idle {
            self.notice(Notice::warning(
                SqlState("25P01"),
                "there is no transaction in progress",
            ));
        }
        self.transaction = Transaction::Idle;
        self.end_block(false);
        Ok(Outcome::Command("ROLLBACK".into()))
    }

    fn end_block(&mut self, committed: bool) {
        for (name, value) in Arc::make_mut(&mut self.settings).end(committed) {
            self.report(name, value);
        }
        if !committed {
            self.forget_effects();
        }
    }

    /// Commits a guard by the session's `dml_commit`.
    pub(crate) async fn commit_guard(&mut self, guard: SharedGuard) -> Result<()> {
        let guard = Arc::try_unwrap(guard)
            .map_err(|_| {
                Error::internal("a write is committed while a plan still reads its tables")
            })?
            .into_inner();
        self.submitted.store(true, Ordering::SeqCst);
        if self.settings.get("dml_commit") == Some("async") {
            guard.commit_async().await
        } else {
            let tables = guard.tables();
            let epoch = guard.commit().await?;
            self.written.extend(tables.map(|table| (table, epoch)));
            Ok(())
        }
    }

    /// Locks tables for writing: for this statement alone, or as part of the block.
    pub async fn lock(&mut self, tables: &[RelationId]) -> Result<SharedGuard> {
        let (engine, writer) = (self.commons.engine.clone(), self.writer());
        let Some(block) = self.transaction.block() else {
            return Ok(Arc::new(Mutex::new(
                engine.begin_write(tables, writer).await?,
            )));
        };
        let writes = &mut block.writes;
        if let Some(guard) = &writes.guard
            && tables.iter().all(|t| writes.tables.contains(t))
        {
            return Ok(guard.clone());
        }
        writes.tables.extend(tables);
        writes.lock_again(&engine, writer).await
    }

    /// Locks a table for a statement that commits by itself, also in a block.
    ///
    /// Errors: `25001` in a block that has locked tables.
    pub async fn lock_alone(&mut self, table: RelationId) -> Result<SharedGuard> {
        let (engine, writer) = (self.commons.engine.clone(), self.writer());
        let block = self.transaction.block();
        if block.is_some_and(|block| !block.writes.tables.is_empty()) {
            let message = "columns cannot be altered in a transaction block that has written";
            return Err(Error::user(SqlState("25001"), message)
                .with_hint("End the transaction first, or alter the table at its beginning."));
        }
        let guard = engine.begin_write(&[table], writer).await?;
        Ok(Arc::new(Mutex::new(guard)))
    }

    fn writer(&self) -> Writer {
        Writer {
            session: self.pid(),
            lock_timeout: self.settings.timeout("lock_timeout"),
        }
    }

    /// SELECT .. FOR UPDATE or SHARE: in a block, its tables are locked until the end and read as
    /// they are now. Alone it locks nothing that would last.
    pub(crate) async fn lock_rows(&mut self, query: &ast::Query) -> Result<()> {
        check_locks(query)?;
        if query.locks.is_empty() || self.transaction.block().is_none() {
            return Ok(());
        }
        self.check_may_write("SELECT FOR UPDATE")?;
        let of = locked_names(query);
        let catalog = self.catalog();
        let (mut tables, mut found) = (Vec::new(), 0);
        let ast::SetExpr::Select(select) = query.body.as_ref() else {
            return Err(Error::unsupported(
                "FOR UPDATE is supported with a plain SELECT only",
            ));
        };
        for factor in select
            .from
            .iter()
            .flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)))
        {
            let ast::TableFactor::Table {
                name,
                args: None,
                alias,
                ..
            } = factor
            else {
                continue;
            };
            let named = name_of(name)?;
            let known_as = alias
                .as_ref()
                .map_or(named.name.as_str(), |a| a.name.value.as_str());
            if !of.is_empty() && !of.iter().any(|n| n.eq_ignore_ascii_case(known_as)) {
                continue;
            }
            found += 1;
            let relation = self.resolve(&catalog, &named)?;
            if relation.kind != RelationKind::Table || relation.connector.is_some() {
                return Err(Error::unsupported(format!(
                    "FOR UPDATE cannot be applied to {} \"{}\"",
                    relation.kind.name(),
                    relation.name
                ))
                .with_hint("Only tables that are written by SQL can be locked."));
            }
            tables.push(relation.id);
        }
        if let Some(name) = of.first().filter(|_| found < of.len()) {
            return Err(Error::user(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{name}\" in FOR UPDATE clause not found in FROM clause"),
            ));
        }
        let guard = self.lock(&tables).await?;
        if let Some(block) = self.transaction.block() {
            for table in tables {
                let version = guard.lock().version(table)?;
                block.writes.read_for_update.entry(table).or_insert(version);
            }
        }
        Ok(())
    }

    /// Writes through a guard of [`Asker::lock`]; outside of a block also commits.
    pub async fn write(&mut self, guard: SharedGuard, write: Write) -> Result<(usize, usize)> {
        // A block that writes too much fails here, before it is kept in memory until its COMMIT.
        let before = self.transaction.block().map_or(0, |b| b.writes.bytes);
        let bytes = before + write.bytes();
        check_write_bytes(bytes)?;
        let counts = guard
            .lock()
            .write(write.table, &write.deletes, &write.inserts, write.keys)?;
        match self.transaction.block() {
            Some(block) => {
                block.writes.bytes = bytes;
                block.writes.journal.push((write, counts));
            }
            None => self.commit_guard(guard).await?,
        }
        Ok(counts)
    }

    pub fn savepoint(&mut self, name: &str) -> Result<Outcome> {
        let (settings, announcements) = (self.settings.savepoint(), self.announcements.mark());
        let advisory = self.commons.advisory.taken(self.pid());
        let Some(block) = self.transaction.block() else {
            return Err(Error::user(
                SqlState("25P01"),
                "SAVEPOINT can only be used in transaction blocks",
            ));
        };
        block.savepoints.push(Savepoint {
            name: name.into(),
            journal: block.writes.journal.len(),
            settings,
            announcements,
            advisory,
        });
        Ok(Outcome::Command("SAVEPOINT".into()))
    }

    pub fn release_savepoint(&mut self, name: &str) -> Result<Outcome> {
        let block = self.transaction.block().ok_or_else(|| {
            Error::user(
                SqlState("25P01"),
                "RELEASE SAVEPOINT can only be used in transaction blocks",
            )
        })?;
        let at = block
            .savepoints
            .iter()
            .rposition(|s| s.name == name)
            .ok_or_else(|| no_savepoint(name))?;
        block.savepoints.truncate(at);
        Ok(Outcome::Command("RELEASE".into()))
    }

    pub async fn rollback_to_savepoint(&mut self, name: &str) -> Result<Outcome> {
        let mut block = match std::mem::take(&mut self.transaction) {
            Transaction::Open(block) | Transaction::Failed(Some(block)) => block,
            Transaction::Failed(None) => {
                self.transaction = Transaction::Failed(None);
                return Err(no_savepoint(name));
            }
            Transaction::Idle => {
                return Err(Error::user(
                    SqlState("25P01"),
                    "ROLLBACK TO SAVEPOINT can only be used in transaction blocks",
                ));
            }
        };
        let Some(at) = block.savepoints.iter().rposition(|s| s.name == name) else {
            self.transaction = Transaction::Failed(Some(block));
            return Err(no_savepoint(name));
        };
        block.savepoints.truncate(at + 1);
        let savepoint = &block.savepoints[at];
        let length = savepoint.journal;
        self.announcements.back_to(savepoint.announcements);
        self.commons
            .advisory
            .end_transaction(self.pid(), savepoint.advisory);
        for (name, value) in Arc::make_mut(&mut self.settings).back_to(&savepoint.settings) {
            self.report(name, value);
        }
        // What was written up to the savepoint is written again into a fresh guard.
        block.writes.journal.truncate(length);
        block.writes.bytes = block.writes.journal.iter().map(|(w, _)| w.bytes()).sum();
        block.writes.guard = None;
        block.writes.tables = block
            .writes
            .journal
            .iter()
            .map(|(write, _)| write.table)
            .chain(block.writes.read_for_update.keys().copied())
            .collect();
        self.transaction = Transaction::Open(block);
        let (engine, writer) = (self.commons.engine.clone(), self.writer());
        if let Some(block) = self.transaction.block()
            && !block.writes.tables.is_empty()
        {
            block.writes.lock_again(&engine, writer).await?;
        }
        Ok(Outcome::Command("ROLLBACK".into()))
    }
}

impl Writes {
    /// Takes a guard over all tables and writes the journal into it. The old guard is given back
    /// first: two blocks that want each other's tables would wait for ever.
    async fn lock_again(&mut self, engine: &Engine, writer: Writer) -> Result<SharedGuard> {
        self.guard = None;
        self.tables.sort_unstable();
        self.tables.dedup();
        let guard = engine.begin_write(&self.tables, writer).await?;
        for (table, version) in &self.read_for_update {
            if guard.version(*table)? != *version {
                return Err(conflict());
            }
        }
        let guard: SharedGuard = Arc::new(Mutex::new(replay(guard, &self.journal)?));
        self.guard = Some(guard.clone());
        Ok(guard)
    }
}

/// `0A000` for locks of rows that would not be those of PostgreSQL.
fn check_locks(query: &ast::Query) -> Result<()> {
    struct Nested(usize);
    impl ast::Visitor for Nested {
        type Break = ();
        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
            self.0 += usize::from(!query.locks.is_empty());
            ControlFlow::Continue(())
        }
    }
    let mut nested = Nested(0);
    let _ = ast::Visit::visit(query, &mut nested);
    if nested.0 > usize::from(!query.locks.is_empty()) {
        return Err(Error::unsupported(
            "FOR UPDATE in a subquery is not supported",
        ));
    }
    if query.locks.iter().any(|l| l.nonblock.is_some()) {
        return Err(
            Error::unsupported("NOWAIT and SKIP LOCKED are not supported")
                .with_hint("SET lock_timeout bounds the wait."),
        );
    }
    Ok(())
}

/// The names in FOR UPDATE OF.
fn locked_names(query: &ast::Query) -> Vec<String> {
    let of = query.locks.iter().filter_map(|l| l.of.as_ref());
    let last = of.filter_map(|name| name.0.last().and_then(|part| part.as_ident()));
    last.map(|ident| ident.value.clone()).collect()
}

fn no_savepoint(name: &str) -> Error {
    Error::user(
        SqlState("3B001"),
        format!("savepoint \"{name}\" does not exist"),
    )
}

fn conflict() -> Error {
    Error::user(
        SqlState("40001"),
        "could not serialize access due to concurrent update",
    )
    .with_hint("Run the transaction again.")
}

/// Writes a journal into a fresh guard; each write must meet what it met before: the rows that it
/// deletes, the keys that it found free.
fn replay(mut guard: WriteGuard, journal: &[(Write, (usize, usize))]) -> Result<WriteGuard> {
    for (write, before) in journal {
        if !guard.holds(write.table, &write.deletes)? {
            return Err(conflict());
        }
        match guard.write(write.table, &write.deletes, &write.inserts, write.keys) {
            Ok(counts) if counts == *before => {}
            Err(e) if e.state() != SqlState::UNIQUE_VIOLATION => return Err(e),
            _ => return Err(conflict()),
        }
    }
    Ok(guard)
}
