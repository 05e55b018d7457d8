//! Cursors (`DECLARE .. CURSOR FOR`, `FETCH`, `MOVE`, `CLOSE`) and the small commands that clients
//! send when they pool connections: `DISCARD`, `SAVEPOINT`, `LISTEN`, and `KILL`.

use super::Session;
use super::subscriptions::SubscriptionCursor;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{FetchRows, Statement};
use tidemark_query::effects::Hearing;
use tidemark_query::error::from_datafusion;
use tidemark_query::outcome::{Outcome, RowResult, RowStream, Rows, Status, Tag};
use tidemark_query::settings::SESSION_AUTHORIZATION;
use tokio::sync::Mutex;

/// An open cursor.
struct Cursor {
    schema: SchemaRef,
    /// Locked by a FETCH until all its rows are sent.
    rows: Arc<Mutex<Remaining>>,
    hold: bool,
    /// Whether the transaction that declared it has ended.
    outlives: bool,
}

/// The rows of a cursor that were not fetched yet.
struct Remaining {
    /// None when it has ended.
    stream: Option<RowStream>,
    /// Of the last batch.
    rest: Option<RecordBatch>,
}

impl Remaining {
    /// The next batch, of at most `max` rows.
    async fn next(&mut self, max: usize) -> Option<RowResult> {
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => match self.stream.as_mut()?.next().await {
                Some(Ok(batch)) => batch,
                end => {
                    self.stream = None;
                    return end;
                }
            },
        };
        let take = batch.num_rows().min(max);
        if take < batch.num_rows() {
            self.rest = Some(batch.slice(take, batch.num_rows() - take));
        }
        Some(Ok(batch.slice(0, take)))
    }
}

/// A session's cursors, by name.
#[derive(Default)]
pub struct Cursors {
    open: HashMap<String, Cursor>,
    /// Those of subscriptions.
    pub(super) subscriptions: HashMap<String, SubscriptionCursor>,
}

impl Cursors {
    /// Whether there is one with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.open.contains_key(name) || self.subscriptions.contains_key(name)
    }

    /// Cursors without HOLD end with their transaction, and all of one that is undone.
    pub fn end_transaction(&mut self, undone: bool) {
        self.open.retain(|_, c| c.outlives || c.hold && !undone);
        self.open.values_mut().for_each(|c| c.outlives = true);
    }
}

impl Session {
    /// Everything that the dialect's parser leaves to sqlparser.
    pub(crate) async fn other(
        &mut self,
        other: &ast::Statement,
        statement: &Statement,
    ) -> Result<Outcome> {
        use ast::Statement as S;
        let done = |tag: &str| Ok(Outcome::Command(tag.into()));
        match other {
            S::Savepoint { name } => self.asker.savepoint(&name.value),
            S::ReleaseSavepoint { name } => self.asker.release_savepoint(&name.value),
            S::Rollback {
                savepoint: Some(name),
                ..
            } => self.asker.rollback_to_savepoint(&name.value).await,
            S::Declare { stmts } => self.declare(stmts, statement).await,
            S::Close { cursor } => {
                match cursor {
                    ast::CloseCursor::All => {
                        self.cursors.open.clear();
                        self.cursors.subscriptions.clear();
                    }
                    ast::CloseCursor::Specific { name } => {
                        let name = folded(name);
                        let closed = self.cursors.open.remove(&name).is_some();
                        if !closed && self.cursors.subscriptions.remove(&name).is_none() {
                            return Err(no_cursor(&name));
                        }
                    }
                }
                done("CLOSE CURSOR")
            }
            S::Prepare {
                name,
                data_types,
                statement: inner,
            } => self.prepare(name, data_types, inner, statement).await,
            S::Execute {
                name: Some(name),
                parameters,
                ..
            } => self.execute_prepared(name, parameters, statement).await,
            S::Deallocate { name, .. } => self.deallocate(name),
            S::Discard { object_type } => {
                if matches!(object_type, ast::DiscardObject::ALL) {
                    if self.status() != Status::Idle {
                        return Err(Error::user(
                            SqlState("25001"),
                            "DISCARD ALL cannot run inside a transaction block",
                        ));
                    }
                    self.cursors = Cursors::default();
                    self.prepared.lock().clear();
                    self.asker.hear(Hearing::Unlisten(None));
                    self.server.commons.advisory.unlock_all(self.pid());
                    self.asker.act_as(SESSION_AUTHORIZATION, None, false)?;
                    for (name, value) in Arc::make_mut(&mut self.asker.settings).reset_all() {
                        self.asker.report(name, value);
                    }
                }
                done(&format!("DISCARD {object_type}"))
            }
            S::LISTEN { channel } => {
                let channel = folded(channel);
                tidemark_query::notifications::check(&channel, "")?;
                self.asker.hear(Hearing::Listen(channel));
                done("LISTEN")
            }
            S::UNLISTEN { channel } => {
                let all = channel.quote_style.is_none() && channel.value == "*";
                self.asker
                    .hear(Hearing::Unlisten((!all).then(|| folded(channel))));
                done("UNLISTEN")
            }
            S::NOTIFY { channel, payload } => {
                self.asker
                    .say(&folded(channel), payload.as_deref().unwrap_or_default())?;
                done("NOTIFY")
            }
            S::Kill { modifier, id } => self.kill(modifier.as_ref(), *id),
            S::Analyze { .. } => done("ANALYZE"),
            S::Vacuum { .. } => done("VACUUM"),
            _ => {
                // What is created, changed or dropped belongs to the statement's name.
                let mut words = statement.text.split_whitespace().map(str::to_uppercase);
                let mut name = words.next().unwrap_or_default();
                if ["CREATE", "ALTER", "DROP"].contains(&name.as_str())
                    && let Some(object) = words.next()
                {
                    name = format!("{name} {object}");
                }
                let e = Error::unsupported(format!("{name} is not supported"));
                Err(e.at(statement.start + 1))
            }
        }
    }

    /// `KILL pid` ends a session, `KILL QUERY pid` its statement.
    fn kill(&mut self, modifier: Option<&ast::KillType>, id: u64) -> Result<Outcome> {
        self.require_superuser("end other sessions")?;
        let clients = &self.server.commons.clients;
        let pid = i32::try_from(id).unwrap_or(0);
        let found = match modifier {
            Some(ast::KillType::Query) => clients.cancel(pid),
            Some(ast::KillType::Connection) | None => clients.end(pid),
            Some(ast::KillType::Mutation) => {
                return Err(Error::unsupported("KILL MUTATION is not supported"));
            }
        };
        if !found {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("session {id} does not exist"),
            )
            .with_hint("SHOW PROCESSLIST lists the sessions."));
        }
        Ok(Outcome::Command("KILL".into()))
    }

    async fn declare(
        &mut self,
        declarations: &[ast::Declare],
        statement: &Statement,
    ) -> Result<Outcome> {
        for declaration in declarations {
            let hold = declaration.hold == Some(true);
            if self.status() == Status::Idle && !hold {
                return Err(Error::user(
                    SqlState("25P01"),
                    "DECLARE CURSOR can only be used in transaction blocks",
                ));
            }
            let query = declaration
                .for_query
                .clone()
                .ok_or_else(|| Error::unsupported("this kind of DECLARE is not supported"))?;
            let sql = ast::Statement::Query(query);
            let Outcome::Rows(rows) = self.asker.run_sql(&sql, statement, &[]).await? else {
                return Err(Error::internal("a cursor's query gave no rows"));
            };
            let Some(name) = declaration.names.first().map(folded) else {
                continue;
            };
            if self.cursors.has(&name) {
                return Err(Error::user(
                    SqlState("42P03"),
                    format!("cursor \"{name}\" already exists"),
                ));
            }
            self.cursors.open.insert(
                name,
                Cursor {
                    schema: rows.schema,
                    rows: Arc::new(Mutex::new(Remaining {
                        stream: Some(rows.stream),
                        rest: None,
                    })),
                    hold,
                    outlives: self.status() == Status::Idle,
                },
            );
        }
        Ok(Outcome::Command("DECLARE CURSOR".into()))
    }

    /// FETCH: rows are taken from the cursor as the client takes them.
    pub(super) fn fetch(&self, name: &str, wanted: FetchRows) -> Result<Outcome> {
        let (schema, fetched) = self.take(name, wanted)?;
        let tag = Tag::Counted("FETCH");
        Ok(Outcome::Rows(Rows::streamed(schema, fetched, tag)))
    }

    /// MOVE: the same rows are passed over.
    pub(super) async fn pass(&self, name: &str, wanted: FetchRows) -> Result<Outcome> {
        let (_, fetched) = self.take(name, wanted)?;
        let mut fetched = std::pin::pin!(fetched);
        let mut passed = 0;
        while let Some(batch) = fetched.next().await {
            passed += batch.map_err(from_datafusion)?.num_rows();
        }
        Ok(Outcome::Command(Tag::Counted("MOVE").text(passed)))
    }

    /// The rows of a cursor that come next.
    fn take(
        &self,
        name: &str,
        wanted: FetchRows,
    ) -> Result<(SchemaRef, impl Stream<Item = RowResult> + Send + use<>)> {
        let wanted = match wanted {
            FetchRows::Next(rows) => rows,
            FetchRows::All => usize::MAX,
            FetchRows::Elsewhere => {
                return Err(
                    Error::user(SqlState("55000"), "cursor can only scan forward")
                        .with_hint("Only FETCH [FORWARD] n and FETCH ALL are supported."),
                );
            }
        };
        let open = &self.cursors.open;
        let cursor = open.get(name).ok_or_else(|| no_cursor(name))?;
        let rows = cursor.rows.clone().try_lock_owned().map_err(|_| {
            Error::user(
                SqlState("55006"),
                format!("cursor \"{name}\" is being fetched from by another portal"),
            )
        })?;
        let fetched = futures::stream::unfold((rows, wanted), |(mut rows, wanted)| async move {
            if wanted == 0 {
                return None;
            }
            let batch = rows.next(wanted).await?;
            let left = batch.as_ref().map_or(0, |b| wanted - b.num_rows());
            Some((batch, (rows, left)))
        });
        Ok((cursor.schema.clone(), fetched))
    }
}

/// Folded unless it is quoted.
pub(super) fn folded(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

pub(super) fn no_cursor(name: &str) -> Error {
    Error::user(
        SqlState("34000"),
        format!("cursor \"{name}\" does not exist"),
    )
}

impl Session {
    /// The columns of an open cursor.
    pub(crate) fn cursor_schema(&self, name: &str) -> Option<SchemaRef> {
        let open = self.cursors.open.get(name).map(|c| &c.schema);
        let subscription = || self.cursors.subscriptions.get(name).map(|c| &c.schema);
        open.or_else(subscription).cloned()
    }
}
