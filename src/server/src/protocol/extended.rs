//! The extended protocol: Parse keeps a statement, Bind turns the client's parameters into literals
//! and opens a portal, Describe plans without running, Execute runs (once) and sends up to the
//! asked number of rows, Close forgets.
//!
//! A statement's parameter types come from the client where it names them, else from the planner;
//! they are found once per statement and catalog version.

use super::portals::{Portal, PortalState, missing};
use super::{Connection, Cursor, Failure, answer, parameters};
use crate::formats::Formats;
use crate::prepared::{Described, Prepared};
use bytes::BytesMut;
use pgwire::api::Type;
use pgwire::messages::data::ParameterDescription;
use pgwire::messages::extendedquery::{
    Bind, Close, Describe, Execute, Parse, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::pin::pin;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_query::outcome::Outcome;
use tidemark_query::parameters::Parameter;

impl Connection {
    /// Handles a message of the extended protocol, except Sync.
    pub(super) async fn extended(&mut self, message: PgWireFrontendMessage) -> Result<(), Failure> {
        match message {
            // Boxed where it is rare, since the future of a message has room for each of them.
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
        self.line.put(answer::PARSE_COMPLETE).await
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
        let described = match prepared.named_types().all(|named| named.is_some()) {
            true => None,
            false => Some(self.described(&prepared).await?),
        };
        let formats = Formats::new(message.parameter_format_codes);
        let value = |(i, bytes): (usize, &Option<bytes::Bytes>)| {
            let t = match &described {
                Some(described) => described.description.parameters.get(i).cloned(),
                None => prepared.named_type(i),
            };
            let t = t.unwrap_or(Type::UNKNOWN);
            parameters::value(bytes.as_deref(), &t, formats.is_binary(i))
        };
        let values = message.parameters.iter().enumerate().map(value);
        let portal = Portal {
            values: values.collect::<Result<_>>()?,
            prepared,
            formats: Formats::new(message.result_column_format_codes),
            state: PortalState::Ready,
        };
        self.portals
            .put(message.portal_name.unwrap_or_default(), portal);
        self.line.put(answer::BIND_COMPLETE).await
    }

    /// What Describe tells about a statement, planned only the first time.
    async fn described(&mut self, prepared: &Arc<Prepared>) -> Result<Arc<Described>, Failure> {
        if let Some(known) = prepared.described(&self.line.server.engine) {
            return Ok(known);
        }
        let anew = Box::pin(self.session.describe_prepared(prepared));
        self.line.drive(anew).await
    }

    async fn describe(&mut self, message: Describe) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                let prepared = self.session.prepared.lock().get(&name)?;
                let described = self.described(&prepared).await?;
                let types = described.description.parameters.iter().map(Type::oid);
                let types = ParameterDescription::new(types.collect());
                self.line
                    .feed(PgWireBackendMessage::ParameterDescription(types))
                    .await?;
                prepared.is_told(&described);
                self.tell(&described, &Formats::Text).await
            }
            TARGET_TYPE_BYTE_PORTAL => {
                let Some(portal) = self.portals.get(&name) else {
                    // A cursor that SQL declared is a portal, too.
                    let schema = self.session.cursor_schema(&name);
                    let schema = schema.ok_or_else(|| missing(&name))?;
                    let out = self.line.buffer().await?;
                    return Ok(answer::row_description(&schema, &Formats::Text, out)?);
                };
                let (prepared, formats) = (portal.prepared.clone(), portal.formats.clone());
                let described = self.described(&prepared).await?;
                prepared.is_told(&described);
                self.tell(&described, &formats).await
            }
            _ => {
                let text = "invalid DESCRIBE message subtype";
                Err(Error::user(SqlState("08P01"), text).into())
            }
        }
    }

    /// Tells the columns of a statement.
    async fn tell(&mut self, described: &Described, formats: &Formats) -> Result<(), Failure> {
        let Some(schema) = &described.description.columns else {
            return self.line.put(answer::NO_DATA).await;
        };
        let tell = |out: &mut BytesMut| answer::row_description(schema, formats, out);
        Ok(described.tell(formats, self.line.buffer().await?, tell)?)
    }

    async fn execute(&mut self, message: Execute) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        let max = usize::try_from(message.max_rows).unwrap_or(0);
        // The portal is taken out while it runs; an error leaves it closed, as in PostgreSQL.
        let mut portal = self.portals.take(&name)?;
        let prepared = portal.prepared.clone();
        if prepared.is_empty {
            self.portals.put(name, portal);
            return self.line.put(answer::EMPTY_QUERY_RESPONSE).await;
        };
        if matches!(portal.state, PortalState::Ready) {
            let told = self.checked(&prepared).await?;
            match self.outcome(&prepared, &portal.values).await? {
                Outcome::Rows(rows) => {
                    if let Some(told) = &told {
                        told.check_width(rows.schema.fields().len())?;
                    }
                    let tag = rows.tag.clone();
                    portal.state = PortalState::Rows(Cursor::new(rows), tag);
                }
                outcome => {
                    portal.state = PortalState::Done;
                    let formats = portal.formats.clone();
                    self.portals.put(name, portal);
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
                    self.line.complete(&tag).await?;
                } else {
                    self.line.put(answer::PORTAL_SUSPENDED).await?;
                }
            }
            _ => self.line.complete("SELECT 0").await?,
        }
        self.portals.put(name, portal);
        Ok(())
    }

    /// What the client was told of a statement's columns, and finds in its rows.
    async fn checked(
        &mut self,
        prepared: &Arc<Prepared>,
    ) -> Result<Option<Arc<Described>>, Failure> {
        let Some(told) = prepared.told() else {
            return Ok(None);
        };
        let now = self.described(prepared).await?;
        if !Arc::ptr_eq(&told, &now) {
            now.check_same(&told)?;
            prepared.is_told(&now);
        }
        Ok(Some(now))
    }

    /// What a statement gives, by its kept form if there is one.
    async fn outcome(
        &mut self,
        prepared: &Arc<Prepared>,
        values: &[Parameter],
    ) -> Result<Outcome, Failure> {
        if let Some(kept) = &prepared.kept {
            let session = &mut self.session;
            let run = pin!(session.run_kept(kept, &prepared.text, values));
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
        self.line.put(answer::CLOSE_COMPLETE).await
    }
}
