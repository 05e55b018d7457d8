//! Cursors (`DECLARE .. CURSOR FOR`, `FETCH`, `CLOSE`) and statements prepared by SQL (`PREPARE`,
//! `EXECUTE`, `DEALLOCATE`), and the small commands that clients send when they pool connections:
//! `DISCARD`, `SAVEPOINT`, `LISTEN`, `GRANT`, and `KILL`.

use super::{Outcome, Rows, Session, Status, Tag};
use crate::protocol::error::{Notice, from_datafusion};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use std::collections::HashMap;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::statement::{Statement, StatementKind};

/// An open cursor.
struct Cursor {
    schema: SchemaRef,
    /// Behind a lock that nobody contends for: a stream alone cannot be shared between threads, a
    /// session has to be.
    stream: parking_lot::Mutex<SendableRecordBatchStream>,
    rest: Option<RecordBatch>,
    hold: bool,
}

/// A session's cursors and prepared statements, by name.
#[derive(Default)]
pub struct Cursors {
    open: HashMap<String, Cursor>,
    prepared: HashMap<String, Statement>,
}

impl Cursors {
    /// Cursors without HOLD end with their transaction.
    pub fn end_transaction(&mut self) {
        self.open.retain(|_, c| c.hold);
    }
}

/// Rows from memory.
pub fn memory_rows(batch: RecordBatch, tag: Tag) -> Result<Outcome> {
    let schema = batch.schema();
    let stream =
        MemoryStream::try_new(vec![batch], schema.clone(), None).map_err(from_datafusion)?;
    Ok(Outcome::Rows(Rows {
        schema,
        stream: Box::pin(stream),
        tag,
    }))
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
            S::Savepoint { name } => self.savepoint(&name.value),
            S::ReleaseSavepoint { name } => self.release_savepoint(&name.value),
            S::Rollback {
                savepoint: Some(name),
                ..
            } => self.rollback_to_savepoint(&name.value).await,
            S::Declare { stmts } => self.declare(stmts, statement).await,
            S::Fetch {
                name, direction, ..
            } => self.fetch(&name.value, direction).await,
            S::Close { cursor } => {
                match cursor {
                    ast::CloseCursor::All => self.cursors.open.clear(),
                    ast::CloseCursor::Specific { name } => {
                        self.cursors
                            .open
                            .remove(&name.value)
                            .ok_or_else(|| no_cursor(&name.value))?;
                    }
                }
                done("CLOSE CURSOR")
            }
            S::Prepare {
                name,
                statement: inner,
                ..
            } => {
                let kind = StatementKind::Sql(inner.clone());
                self.cursors.prepared.insert(
                    name.value.clone(),
                    Statement {
                        text: inner.to_string(),
                        start: 0,
                        positions: Default::default(),
                        kind,
                    },
                );
                done("PREPARE")
            }
            S::Execute {
                name: Some(name),
                parameters,
                ..
            } => {
                let name = name.to_string().trim_matches('"').to_string();
                let prepared = self
                    .cursors
                    .prepared
                    .get(&name)
                    .cloned()
                    .ok_or_else(|| no_prepared(&name))?;
                let wanted = crate::protocol::extended::sql_of(&prepared)
                    .map_or(0, crate::protocol::parameters::count);
                if wanted != parameters.len() {
                    return Err(Error::user(
                        SqlState::SYNTAX_ERROR,
                        format!("wrong number of parameters for prepared statement \"{name}\""),
                    )
                    .with_detail(format!(
                        "Expected {wanted} parameters but got {}.",
                        parameters.len()
                    )));
                }
                Box::pin(self.execute(&prepared, parameters)).await
            }
            S::Deallocate { name, .. } => {
                if name.value.eq_ignore_ascii_case("all") {
                    self.cursors.prepared.clear();
                    return done("DEALLOCATE ALL");
                }
                self.cursors
                    .prepared
                    .remove(&name.value)
                    .ok_or_else(|| no_prepared(&name.value))?;
                done("DEALLOCATE")
            }
            S::Discard { object_type } => {
                if matches!(object_type, ast::DiscardObject::ALL) {
                    self.cursors = Cursors::default();
                    for (name, value) in self.settings.reset_all() {
                        self.report(name, value);
                    }
                }
                done(&format!("DISCARD {object_type}"))
            }
            S::LISTEN { .. } => done("LISTEN"),
            S::UNLISTEN { .. } => done("UNLISTEN"),
            S::NOTIFY { .. } => done("NOTIFY"),
            S::Kill { modifier, id } => self.kill(modifier.as_ref(), *id),
            S::Grant { .. } | S::Revoke { .. } => {
                self.notice(Notice::new("privileges are accepted and not enforced"));
                done(if matches!(other, S::Grant { .. }) {
                    "GRANT"
                } else {
                    "REVOKE"
                })
            }
            S::Analyze { .. } => done("ANALYZE"),
            S::Vacuum { .. } => done("VACUUM"),
            _ => {
                let words: Vec<&str> = statement.text.split_whitespace().take(2).collect();
                Err(Error::unsupported(format!(
                    "{} is not supported",
                    words.join(" ").to_uppercase()
                )))
            }
        }
    }

    /// `KILL pid` ends a session, `KILL QUERY pid` its statement.
    fn kill(&mut self, modifier: Option<&ast::KillType>, id: u64) -> Result<Outcome> {
        let clients = &self.server.clients;
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
            let Outcome::Rows(rows) = self.run_sql(&sql, statement, &[]).await? else {
                return Err(Error::internal("a cursor's query gave no rows"));
            };
            for name in &declaration.names {
                if self.cursors.open.contains_key(&name.value) {
                    return Err(Error::user(
                        SqlState("42P03"),
                        format!("cursor \"{}\" already exists", name.value),
                    ));
                }
            }
            let Some(name) = declaration.names.first() else {
                continue;
            };
            self.cursors.open.insert(
                name.value.clone(),
                Cursor {
                    schema: rows.schema,
                    stream: parking_lot::Mutex::new(rows.stream),
                    rest: None,
                    hold,
                },
            );
        }
        Ok(Outcome::Command("DECLARE CURSOR".into()))
    }

    async fn fetch(&mut self, name: &str, direction: &ast::FetchDirection) -> Result<Outcome> {
        use ast::FetchDirection as D;
        let number = |limit: &ast::ValueWithSpan| {
            limit
                .to_string()
                .parse::<usize>()
                .map_err(|_| Error::user(SqlState::SYNTAX_ERROR, "FETCH needs a number of rows"))
        };
        let wanted = match direction {
            D::Count { limit } => number(limit)?,
            D::Next => 1,
            D::Forward { limit: Some(limit) } => number(limit)?,
            D::Forward { limit: None } => 1,
            D::All | D::ForwardAll => usize::MAX,
            _ => {
                return Err(
                    Error::user(SqlState("55000"), "cursor can only scan forward")
                        .with_hint("Only FETCH [FORWARD] n and FETCH ALL are supported."),
                );
            }
        };
        let cursor = self
            .cursors
            .open
            .get_mut(name)
            .ok_or_else(|| no_cursor(name))?;
        let (mut batches, mut found) = (Vec::new(), 0);
        while found < wanted {
            let batch = match cursor.rest.take() {
                Some(batch) => batch,
                None => match cursor
                    .stream
                    .get_mut()
                    .next()
                    .await
                    .transpose()
                    .map_err(from_datafusion)?
                {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let take = batch.num_rows().min(wanted - found);
            found += take;
            if take < batch.num_rows() {
                cursor.rest = Some(batch.slice(take, batch.num_rows() - take));
            }
            batches.push(batch.slice(0, take));
        }
        let inner = batches
            .first()
            .map_or_else(|| cursor.schema.clone(), RecordBatch::schema);
        let stream = MemoryStream::try_new(batches, inner, None).map_err(from_datafusion)?;
        Ok(Outcome::Rows(Rows {
            schema: cursor.schema.clone(),
            stream: Box::pin(stream),
            tag: Tag::Counted("FETCH"),
        }))
    }
}

fn no_cursor(name: &str) -> Error {
    Error::user(
        SqlState("34000"),
        format!("cursor \"{name}\" does not exist"),
    )
}

fn no_prepared(name: &str) -> Error {
    Error::user(
        SqlState("26000"),
        format!("prepared statement \"{name}\" does not exist"),
    )
}

impl Session {
    /// The columns of an open cursor.
    pub(crate) fn cursor_schema(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.open.get(name).map(|c| c.schema.clone())
    }
}
