//! PostgreSQL's wire protocol, version 3: one [`Connection`] per client, one message at a time.
//!
//! ```text
//! startup -> ready -+- Query ------------------ results .. ReadyForQuery      (simple)
//!                   +- Parse Bind Describe Execute Close Flush .. Sync          (extended)
//!                   +- CopyData .. CopyDone                           (within COPY FROM STDIN)
//! ```
//! While a statement runs, the connection keeps listening: notices go out at once, a cancel request
//! or a lost client drops the statement's future, and messages that arrive early are queued. The
//! codec is pgwire's, the loop is ours: statements stream, and nothing is collected.

pub mod codec;
pub mod copy;
pub mod encode;
pub mod error;
pub mod extended;
pub mod parameters;
pub mod simple;
pub mod startup;
pub mod types;

use crate::Server;
use crate::session::{Outcome, Rows, Session, Status};
use codec::Wire;
use datafusion::physical_plan::SendableRecordBatchStream;
use encode::Formats;
use error::Notice;
use futures::{SinkExt, StreamExt};
use pgwire::messages::response::{CommandComplete, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::{Error, Result, SqlState};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Messages that are read ahead at most while a statement runs.
const PENDING_MAX: usize = 256;

/// Why a message could not be handled.
pub enum Failure {
    /// The client is told.
    Statement(Error),
    /// There is no client any more.
    Gone,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Statement(e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Failure {
        Failure::Gone
    }
}

/// `57014`; of a statement whose writes are on their way already it says so.
pub fn canceled_error(reason: &str, submitted: &AtomicBool) -> Error {
    let e = Error::user(
        SqlState::QUERY_CANCELED,
        format!("canceling statement due to {reason}"),
    );
    if submitted.load(Ordering::SeqCst) {
        e.with_detail("Its writes were submitted before, and take effect all the same.")
    } else {
        e
    }
}

/// The socket with what is listened to while a statement runs.
pub struct Line {
    wire: Wire,
    notices: mpsc::UnboundedReceiver<Notice>,
    settings: mpsc::UnboundedReceiver<(String, String)>,
    /// Changes with every cancel request; seen once when the next statement begins, so that a late
    /// request hits nothing.
    canceled: watch::Receiver<()>,
    /// Whether the running statement's writes are on their way to the log.
    submitted: Arc<AtomicBool>,
    /// Whether the client was told that it may send: nothing runs.
    idle: bool,
    pending: VecDeque<PgWireFrontendMessage>,
}

impl Line {
    /// The next message; `None` when the client is gone.
    async fn next(&mut self) -> Option<PgWireFrontendMessage> {
        let message = match self.pending.pop_front() {
            Some(message) => message,
            None => self.wire.next().await?.ok()?,
        };
        if std::mem::take(&mut self.idle) {
            self.canceled.mark_unchanged();
        }
        Some(message)
    }

    /// Runs `work`, listening meanwhile.
    async fn drive<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T, Failure> {
        let mut canceled = self.canceled.clone();
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                // First, since a result that is always ready must not outrun it. A sender that is
                // gone cancels nothing.
                Ok(()) = canceled.changed() => {
                    self.canceled.mark_unchanged();
                    return Err(canceled_error("user request", &self.submitted).into());
                }
                result = &mut work => {
                    self.flush_notices().await?;
                    return Ok(result?);
                }
                Some(notice) = self.notices.recv() => {
                    let response = notice.info().into();
                    self.wire.send(PgWireBackendMessage::NoticeResponse(response)).await?
                }
                message = self.wire.next(), if self.pending.len() < PENDING_MAX => match message {
                    Some(Ok(message)) => self.pending.push_back(message),
                    _ => return Err(Failure::Gone),
                },
            }
        }
    }

    async fn flush_notices(&mut self) -> Result<(), Failure> {
        while let Ok(notice) = self.notices.try_recv() {
            self.wire
                .feed(PgWireBackendMessage::NoticeResponse(notice.info().into()))
                .await?;
        }
        while let Ok((name, value)) = self.settings.try_recv() {
            self.wire
                .feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
                    name, value,
                )))
                .await?;
        }
        Ok(())
    }

    async fn feed(&mut self, message: PgWireBackendMessage) -> Result<(), Failure> {
        Ok(self.wire.feed(message).await?)
    }

    async fn complete(&mut self, tag: String) -> Result<(), Failure> {
        self.feed(PgWireBackendMessage::CommandComplete(CommandComplete::new(
            tag,
        )))
        .await
    }
}

/// A result that is being sent; it waits in its portal between two Executes.
pub struct Cursor {
    rows: Rows,
    current: Option<(arrow::array::RecordBatch, usize)>,
}

impl Cursor {
    /// Nothing sent yet.
    pub fn new(rows: Rows) -> Cursor {
        Cursor {
            rows,
            current: None,
        }
    }

    /// Sends up to `max` rows (0: all). Returns how many, and whether the result ended.
    async fn send(
        &mut self,
        line: &mut Line,
        formats: &Formats,
        max: usize,
    ) -> Result<(usize, bool), Failure> {
        let mut sent = 0;
        loop {
            let (batch, offset) = match self.current.take() {
                Some(part) => part,
                None => {
                    let stream: &mut SendableRecordBatchStream = &mut self.rows.stream;
                    match line
                        .drive(async {
                            stream
                                .next()
                                .await
                                .transpose()
                                .map_err(error::from_datafusion)
                        })
                        .await?
                    {
                        Some(batch) => (batch, 0),
                        None => return Ok((sent, true)),
                    }
                }
            };
            let take = if max == 0 {
                batch.num_rows() - offset
            } else {
                (batch.num_rows() - offset).min(max - sent)
            };
            let mut encoded = Vec::with_capacity(take);
            encode::rows(
                &batch.slice(offset, take),
                &self.rows.schema,
                formats,
                |row| encoded.push(row),
            )?;
            for row in encoded {
                line.wire.feed(PgWireBackendMessage::DataRow(row)).await?;
            }
            sent += take;
            if offset + take < batch.num_rows() {
                self.current = Some((batch, offset + take));
            }
            if max > 0 && sent == max {
                return Ok((sent, false));
            }
        }
    }
}

/// One client.
pub struct Connection {
    line: Line,
    session: Session,
    statements: HashMap<String, Arc<extended::Prepared>>,
    portals: HashMap<String, extended::Portal>,
    skip_to_sync: bool,
}

/// Takes a client off the list.
struct Left<'a> {
    server: &'a Server,
    pid: i32,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.server.clients.remove(self.pid);
    }
}

/// Serves a client until it leaves.
pub async fn serve(server: Arc<Server>, socket: TcpStream) {
    let peer = socket.peer_addr().ok();
    let wire = match pgwire::tokio::server::negotiate_tls::<()>(socket, None).await {
        Ok(Some(framed)) => framed.map_codec(codec::Codec),
        Ok(None) | Err(_) => return,
    };
    if let Some(mut connection) = startup::greet(server.clone(), wire).await {
        let pid = connection.session.pid();
        tracing::debug!(pid, ?peer, "client connected");
        // Also a panic ends in the list of clients being right.
        let _left = Left {
            server: &server,
            pid,
        };
        connection.run().await;
        tracing::debug!(pid, "client left");
    }
}

impl Connection {
    async fn run(&mut self) {
        while let Some(message) = self.line.next().await {
            if matches!(message, PgWireFrontendMessage::Terminate(_)) {
                break;
            }
            match self.handle(message).await {
                Ok(()) => {}
                Err(Failure::Gone) => break,
                Err(Failure::Statement(_)) => {
                    unreachable!("statement errors are reported by handle")
                }
            }
        }
    }

    /// Handles a message; an error is reported to the client here.
    async fn handle(&mut self, message: PgWireFrontendMessage) -> Result<(), Failure> {
        if let PgWireFrontendMessage::Query(query) = message {
            self.skip_to_sync = false;
            self.simple(&query.query).await?;
            return self.ready().await;
        }
        if matches!(message, PgWireFrontendMessage::Sync(_)) {
            self.skip_to_sync = false;
            self.portals.remove("");
            self.session.sync();
            return self.ready().await;
        }
        if self.skip_to_sync {
            return Ok(());
        }
        match self.extended(message).await {
            Err(Failure::Statement(e)) => {
                self.skip_to_sync = true;
                self.report(&e).await
            }
            other => other,
        }
    }

    /// Sends an error and lets the session know.
    async fn report(&mut self, e: &Error) -> Result<(), Failure> {
        self.session.failed();
        self.line.flush_notices().await?;
        if e.kind() == tidemark_common::ErrorKind::Internal {
            tracing::error!(error = %e, "statement failed by an internal error");
        }
        self.line
            .wire
            .send(PgWireBackendMessage::ErrorResponse(
                error::info(e, "ERROR").into(),
            ))
            .await?;
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let status = match self.session.status() {
            Status::Idle => TransactionStatus::Idle,
            Status::Open => TransactionStatus::Transaction,
            Status::Failed => TransactionStatus::Error,
        };
        self.line.flush_notices().await?;
        self.line
            .wire
            .send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(
                status,
            )))
            .await?;
        self.line.idle = true;
        Ok(())
    }

    /// Sends what a statement gave, entirely.
    async fn send_outcome(
        &mut self,
        outcome: Outcome,
        formats: &Formats,
        describe: bool,
    ) -> Result<(), Failure> {
        match outcome {
            Outcome::Command(tag) => self.line.complete(tag).await,
            Outcome::Rows(rows) => {
                if describe {
                    self.line
                        .feed(PgWireBackendMessage::RowDescription(encode::describe(
                            &rows.schema,
                            formats,
                        )))
                        .await?;
                }
                let tag = rows.tag.clone();
                let (sent, _) = Cursor::new(rows).send(&mut self.line, formats, 0).await?;
                self.line.complete(tag.text(sent)).await
            }
            Outcome::CopyOut(out) => self.copy_out(out).await,
            Outcome::CopyIn(target) => self.copy_in(target).await,
        }
    }
}
