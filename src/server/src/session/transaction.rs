//! Transaction blocks over the engine's write guards.
//!
//! A block's reads see the epoch of its BEGIN; its writes are kept in one guard until COMMIT, which logs them as one, and are seen by its own reads of those
//! tables. A guard locks a fixed set of tables. When a block writes another table, the guard is given back, a guard over both is taken and the block's journal
//! is replayed into it; if a replayed write does not meet the rows that it met before, somebody else changed them in between and the block fails with `40001`.
//! A savepoint is a length of the journal.

use super::{Outcome, Session, Status};
use crate::protocol::error::Notice;
use arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_runtime::WriteGuard;
use tidemark_runtime::engine::Pin;

/// One write of a block.
#[derive(Clone)]
pub struct Write {
    /// The table.
    pub table: RelationId,
    /// Rows that leave, all columns.
    pub deletes: Vec<RecordBatch>,
    /// Rows that come, all columns.
    pub inserts: Vec<RecordBatch>,
    /// Whether an existing key is an error.
    pub unique: bool,
}

/// A guard that plans can read while the session holds it.
pub type SharedGuard = Arc<Mutex<WriteGuard>>;

/// The writes of a block.
pub struct Writes {
    /// The tables that are locked, in order.
    pub tables: Vec<RelationId>,
    /// The lock with the rows.
    pub guard: SharedGuard,
    journal: Vec<(Write, (usize, usize))>,
}

/// An open block.
pub struct Block {
    /// The epoch of BEGIN.
    pub pin: Arc<Pin>,
    /// Nothing written yet: none.
    pub writes: Option<Writes>,
    read_only: bool,
    savepoints: Vec<(String, usize)>,
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
            Transaction::Open(block) => Transaction::Failed((!block.savepoints.is_empty()).then_some(block)),
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
    pub fn written(&self) -> Option<(SharedGuard, Vec<RelationId>)> {
        match self {
            Transaction::Open(block) => block.writes.as_ref().map(|w| (w.guard.clone(), w.tables.clone())),
            _ => None,
        }
    }
}

/// Whether a statement is `ROLLBACK TO SAVEPOINT`, which a failed block takes.
pub fn is_rollback_to(statement: &Statement) -> bool {
    matches!(&statement.kind, StatementKind::Other(other) if matches!(other.as_ref(), ast::Statement::Rollback { savepoint: Some(_), .. }))
}

impl Session {
    /// The epoch that a read sees: the block's, or the newest that includes this session's writes.
    pub(crate) async fn read_pin(&mut self) -> Result<Arc<Pin>> {
        if let Some(block) = self.transaction.block() {
            return Ok(block.pin.clone());
        }
        self.wait_for_own_writes().await?;
        Ok(Arc::new(self.server.engine.pin()))
    }

    async fn wait_for_own_writes(&mut self) -> Result<()> {
        if let Some(epoch) = self.written {
            self.server.engine.wait_visible(epoch).await?;
            self.written = None;
        }
        Ok(())
    }

    pub(crate) async fn begin(&mut self, read_only: bool) -> Result<Outcome> {
        if self.transaction.status() != Status::Idle {
            self.notice(Notice::warning(SqlState("25001"), "there is already a transaction in progress"));
            return Ok(Outcome::Command("BEGIN".into()));
        }
        self.wait_for_own_writes().await?;
        let pin = Arc::new(self.server.engine.pin());
        self.settings.begin();
        self.transaction = Transaction::Open(Box::new(Block { pin, writes: None, read_only, savepoints: Vec::new() }));
        Ok(Outcome::Command("BEGIN".into()))
    }

    pub(crate) async fn commit(&mut self) -> Result<Outcome> {
        match std::mem::take(&mut self.transaction) {
            Transaction::Idle => {
                self.notice(Notice::warning(SqlState("25P01"), "there is no transaction in progress"));
                Ok(Outcome::Command("COMMIT".into()))
            }
            Transaction::Failed(_) => {
                self.end_block(false);
                Ok(Outcome::Command("ROLLBACK".into()))
            }
            Transaction::Open(block) => {
                self.end_block(true);
                if let Some(writes) = block.writes {
                    drop(block.pin);
                    self.commit_guard(writes.guard).await?;
                }
                Ok(Outcome::Command("COMMIT".into()))
            }
        }
    }

    pub(crate) fn rollback(&mut self) -> Result<Outcome> {
        if self.transaction.status() == Status::Idle {
            self.notice(Notice::warning(SqlState("25P01"), "there is no transaction in progress"));
        }
        self.transaction = Transaction::Idle;
        self.end_block(false);
        Ok(Outcome::Command("ROLLBACK".into()))
    }

    fn end_block(&mut self, committed: bool) {
        self.settings.end(committed);
        self.cursors.end_transaction();
    }

    /// Commits a guard by the session's `dml_commit`.
    pub(crate) async fn commit_guard(&mut self, guard: SharedGuard) -> Result<()> {
        let guard = Arc::try_unwrap(guard).map_err(|_| Error::internal("a write is committed while a plan still reads its tables"))?.into_inner();
        if self.settings.get("dml_commit") == Some("async") {
            guard.commit_async()
        } else {
            let epoch = guard.commit().await?;
            self.written = self.written.max(Some(epoch));
            Ok(())
        }
    }

    /// Locks tables for writing: for this statement alone, or as part of the block.
    pub(crate) async fn lock(&mut self, tables: &[RelationId]) -> Result<SharedGuard> {
        let engine = self.server.engine.clone();
        let Some(block) = self.transaction.block() else {
            return Ok(Arc::new(Mutex::new(engine.begin_write(tables).await?)));
        };
        if block.read_only {
            return Err(Error::user(SqlState("25006"), "cannot execute a write in a read-only transaction"));
        }
        let mut wanted: Vec<RelationId> = tables.to_vec();
        let mut journal = Vec::new();
        if let Some(writes) = block.writes.take() {
            if tables.iter().all(|t| writes.tables.contains(t)) {
                let guard = writes.guard.clone();
                block.writes = Some(writes);
                return Ok(guard);
            }
            wanted.extend(&writes.tables);
            journal = writes.journal;
        }
        wanted.sort_unstable();
        wanted.dedup();
        let guard = replay(engine.begin_write(&wanted).await?, &journal)?;
        let guard: SharedGuard = Arc::new(Mutex::new(guard));
        block.writes = Some(Writes { tables: wanted, guard: guard.clone(), journal });
        Ok(guard)
    }

    /// Writes through a guard of [`Session::lock`]; outside of a block also commits.
    pub(crate) async fn write(&mut self, guard: SharedGuard, write: Write) -> Result<(usize, usize)> {
        let counts = guard.lock().write(write.table, &write.deletes, &write.inserts, write.unique)?;
        match self.transaction.block().and_then(|b| b.writes.as_mut()) {
            Some(writes) => writes.journal.push((write, counts)),
            None => self.commit_guard(guard).await?,
        }
        Ok(counts)
    }

    pub(crate) fn savepoint(&mut self, name: &str) -> Result<Outcome> {
        let Some(block) = self.transaction.block() else {
            return Err(Error::user(SqlState("25P01"), "SAVEPOINT can only be used in transaction blocks"));
        };
        let length = block.writes.as_ref().map_or(0, |w| w.journal.len());
        block.savepoints.push((name.into(), length));
        Ok(Outcome::Command("SAVEPOINT".into()))
    }

    pub(crate) fn release_savepoint(&mut self, name: &str) -> Result<Outcome> {
        let block = self.transaction.block().ok_or_else(|| Error::user(SqlState("25P01"), "RELEASE SAVEPOINT can only be used in transaction blocks"))?;
        let at = block.savepoints.iter().rposition(|(n, _)| n == name).ok_or_else(|| no_savepoint(name))?;
        block.savepoints.truncate(at);
        Ok(Outcome::Command("RELEASE".into()))
    }

    pub(crate) async fn rollback_to_savepoint(&mut self, name: &str) -> Result<Outcome> {
        let mut block = match std::mem::take(&mut self.transaction) {
            Transaction::Open(block) | Transaction::Failed(Some(block)) => block,
            Transaction::Failed(None) => {
                self.transaction = Transaction::Failed(None);
                return Err(no_savepoint(name));
            }
            Transaction::Idle => return Err(Error::user(SqlState("25P01"), "ROLLBACK TO SAVEPOINT can only be used in transaction blocks")),
        };
        let Some(at) = block.savepoints.iter().rposition(|(n, _)| n == name) else {
            self.transaction = Transaction::Failed(Some(block));
            return Err(no_savepoint(name));
        };
        block.savepoints.truncate(at + 1);
        let length = block.savepoints[at].1;
        let writes = block.writes.take();
        self.transaction = Transaction::Open(block);
        if let Some(Writes { tables, guard, mut journal }) = writes {
            drop(guard);
            journal.truncate(length);
            if length > 0 {
                let guard = replay(self.server.engine.begin_write(&tables).await?, &journal)?;
                if let Some(block) = self.transaction.block() {
                    block.writes = Some(Writes { tables, guard: Arc::new(Mutex::new(guard)), journal });
                }
            }
        }
        Ok(Outcome::Command("ROLLBACK".into()))
    }
}

fn no_savepoint(name: &str) -> Error {
    Error::user(SqlState("3B001"), format!("savepoint \"{name}\" does not exist"))
}

/// Writes a journal into a fresh guard; each write must meet what it met before.
fn replay(mut guard: WriteGuard, journal: &[(Write, (usize, usize))]) -> Result<WriteGuard> {
    let conflict = || Error::user(SqlState("40001"), "could not serialize access due to concurrent update").with_hint("Run the transaction again.");
    for (write, before) in journal {
        let counts = guard.write(write.table, &write.deletes, &write.inserts, write.unique)?;
        if counts != *before {
            return Err(conflict());
        }
    }
    Ok(guard)
}
