//! The extended protocol: Parse keeps a statement, Bind turns the client's parameters into literals
//! and opens a portal, Describe plans without running, Execute runs (once) and sends up to the
//! asked number of rows, Close forgets.
//!
//! A statement's parameter types come from the client where it names them, else from the planner;
//! they are found once per statement and catalog version.

use super::encode::Formats;
use super::{Connection, Cursor, Failure, encode, parameters};
use crate::prepared::Prepared;
use pgwire::api::Type;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete,
    PortalSuspended, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::EmptyQueryResponse;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::sqlparser::ast;
use tidemark_query::outcome::{Outcome, Tag};
use tidemark_query::statement::Description;

/// A statement with its parameters.
pub struct Portal {
    prepared: Arc<Prepared>,
    values: Vec<ast::Expr>,
    formats: Formats,
    state: PortalState,
}

enum PortalState {
    Ready,
    Rows(Cursor, Tag),
    /// Ran to its end; a second Execute gives nothing more.
    Done,
}

fn no_portal(name: &str) -> Error {
    Error::user(
        SqlState("34000"),
        format!("portal \"{name}\" does not exist"),
    )
}

impl Connection {
    /// Handles a message of the extended protocol, except Sync.
    pub(super) async fn extended(&mut self, message: PgWireFrontendMessage) -> Result<(), Failure> {
        match message {
            // Boxed where it is rare: the future of a message is moved before it runs.
            PgWireFrontendMessage::Parse(parse) => Box::pin(self.parse(parse)).await,
            PgWireFrontendMessage::Bind(bind) => self.bind(bind).await,
            PgWireFrontendMessage::Describe(describe) => self.describe(describe).await,
            PgWireFrontendMessage::Execute(execute) => self.execute(execute).await,
            PgWireFrontendMessage::Close(close) => self.close(close).await,
            PgWireFrontendMessage::Flush(_) => self.line.flush().await,
            _ => Ok(()),
        }
    }

    async fn parse(&mut self, message: Parse) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        self.session.prepared.lock().check_free(&name)?;
        let mut statements = self.line.drive(self.session.parse(&message.query)).await?;
        if statements.len() > 1 {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let statement = statements.pop();
        let prepared = Prepared::new(message.query, statement, message.type_oids);
        self.session.prepared.lock().insert(name, prepared)?;
        self.line
            .feed(PgWireBackendMessage::ParseComplete(ParseComplete::new()))
            .await
    }

    async fn bind(&mut self, message: Bind) -> Result<(), Failure> {
        let name = message.statement_name.unwrap_or_default();
        let prepared = self.session.prepared.lock().get(&name)?;
        if message.parameters.len() != prepared.count {
            let text = format!(
                "bind message supplies {} parameters, but prepared statement \"{name}\" requires \
                 {}",
                message.parameters.len(),
                prepared.count
            );
            return Err(Error::user(SqlState("08P01"), text).into());
        }
        let types = self.parameter_types(&prepared).await?;
        let formats = Formats(message.parameter_format_codes);
        let literal = |(i, bytes): (usize, &Option<bytes::Bytes>)| {
            let t = types.get(i).cloned().unwrap_or(Type::UNKNOWN);
            parameters::literal(bytes.as_deref(), &t, formats.is_binary(i))
        };
        let values = message
            .parameters
            .iter()
            .enumerate()
            .map(literal)
            .collect::<Result<Vec<_>>>()?;
        let portal = Portal {
            prepared,
            values,
            formats: Formats(message.result_column_format_codes),
            state: PortalState::Ready,
        };
        self.portals
            .insert(message.portal_name.unwrap_or_default(), portal);
        self.line
            .feed(PgWireBackendMessage::BindComplete(BindComplete::new()))
            .await
    }

    /// The types of a statement's parameters, planned only when the client has not named them all.
    async fn parameter_types(&mut self, prepared: &Arc<Prepared>) -> Result<Vec<Type>, Failure> {
        let named: Option<Vec<Type>> = prepared.named_types().collect();
        match named {
            Some(types) => Ok(types),
            None => Ok(self.description(prepared).await?.parameters.clone()),
        }
    }

    async fn description(&mut self, prepared: &Arc<Prepared>) -> Result<Arc<Description>, Failure> {
        if let Some(known) = prepared.description(&self.session.catalog()) {
            return Ok(known);
        }
        let anew = Box::pin(self.session.describe_prepared(prepared));
        self.line.drive(anew).await
    }

    async fn describe(&mut self, message: Describe) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        let (description, formats) = match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                let prepared = self.session.prepared.lock().get(&name)?;
                let description = self.description(&prepared).await?;
                let types = description.parameters.iter().map(Type::oid).collect();
                self.line
                    .feed(PgWireBackendMessage::ParameterDescription(
                        ParameterDescription::new(types),
                    ))
                    .await?;
                (description, Formats::default())
            }
            // A cursor that SQL declared is a portal, too.
            TARGET_TYPE_BYTE_PORTAL
                if !self.portals.contains_key(&name)
                    && self.session.cursor_schema(&name).is_some() =>
            {
                let description = Description {
                    parameters: Vec::new(),
                    columns: self.session.cursor_schema(&name),
                };
                (Arc::new(description), Formats::default())
            }
            TARGET_TYPE_BYTE_PORTAL => {
                let portal = self.portals.get(&name).ok_or_else(|| no_portal(&name))?;
                let (prepared, formats) = (portal.prepared.clone(), portal.formats.clone());
                (self.description(&prepared).await?, formats)
            }
            _ => {
                return Err(
                    Error::user(SqlState("08P01"), "invalid DESCRIBE message subtype").into(),
                );
            }
        };
        let answer = match &description.columns {
            Some(schema) => {
                PgWireBackendMessage::RowDescription(encode::describe(schema, &formats))
            }
            None => PgWireBackendMessage::NoData(NoData::new()),
        };
        self.line.feed(answer).await
    }

    async fn execute(&mut self, message: Execute) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        let max = usize::try_from(message.max_rows).unwrap_or(0);
        // The portal is taken out while it runs; an error leaves it closed, as in PostgreSQL.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let prepared = portal.prepared.clone();
        if prepared.is_empty {
            self.portals.insert(name, portal);
            return self
                .line
                .feed(PgWireBackendMessage::EmptyQueryResponse(
                    EmptyQueryResponse::new(),
                ))
                .await;
        };
        if matches!(portal.state, PortalState::Ready) {
            match self.outcome(&prepared, &portal.values).await? {
                Outcome::Rows(rows) => {
                    let tag = rows.tag.clone();
                    portal.state = PortalState::Rows(Cursor::new(rows), tag);
                }
                outcome => {
                    portal.state = PortalState::Done;
                    let formats = portal.formats.clone();
                    self.portals.insert(name, portal);
                    return Box::pin(self.send_outcome(outcome, &formats, false)).await;
                }
            }
        }
        match &mut portal.state {
            PortalState::Rows(cursor, tag) => {
                let zone = self.session.zone();
                let sending = cursor.send(&mut self.line, &portal.formats, &zone, max);
                let (sent, ended) = sending.await?;
                if ended {
                    let tag = tag.text(sent);
                    portal.state = PortalState::Done;
                    self.session.settle();
                    self.line.complete(tag).await?;
                } else {
                    self.line
                        .feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new()))
                        .await?;
                }
            }
            _ => self.line.complete("SELECT 0".into()).await?,
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    /// What a statement gives, by its kept form if there is one.
    async fn outcome(
        &mut self,
        prepared: &Arc<Prepared>,
        values: &[ast::Expr],
    ) -> Result<Outcome, Failure> {
        if let Some(kept) = &prepared.kept {
            let run = self.session.run_kept(kept, &prepared.text, values);
            if let Some(outcome) = self.line.drive(run).await? {
                return Ok(outcome);
            }
        }
        let run = Box::pin(self.session.run_prepared(prepared, values));
        self.line.drive(run).await
    }

    async fn close(&mut self, message: Close) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                self.session.prepared.lock().remove(&name);
            }
            _ => drop(self.portals.remove(&name)),
        }
        self.line
            .feed(PgWireBackendMessage::CloseComplete(CloseComplete::new()))
            .await
    }
}
