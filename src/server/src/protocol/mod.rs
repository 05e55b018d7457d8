//! PostgreSQL's wire protocol, version 3: one [`Connection`] per client, one message at a time.
//!
//! ```text
//! startup -> ready -+- Query ------------------ results .. ReadyForQuery      (simple)
//!                   +- Parse Bind Describe Execute Close Flush .. Sync          (extended)
//!                   +- CopyData .. CopyDone                           (within COPY FROM STDIN)
//! ```
//! While a statement runs, the connection keeps listening: notices go out at once, what can end it
//! ([`interrupts`]) or a lost client drops the statement's future, and messages that arrive early
//! are queued. The codec is pgwire's, the loop is ours: statements stream, and nothing is
//! collected. What is sent waits for room in the client's socket, so a client that reads slowly
//! holds up its own statement and nothing else; that wait ends by the same interrupts.

pub mod answer;
pub mod copy;
pub mod encode;
pub mod error;
pub mod extended;
pub mod interrupts;
pub mod parameters;
pub mod portals;
pub mod simple;
pub mod startup;

use crate::Server;
use crate::codec::Wire;
use crate::formats::Formats;
use crate::session::Session;
use crate::stream::Arrival;
use crate::tls::Tls;
use arrow::array::RecordBatch;
use bytes::BytesMut;
use encode::Columns;
use futures::{FutureExt, Sink, SinkExt, StreamExt};
use interrupts::{Interrupt, Interrupts, Limits};
use pgwire::error::PgWireError;
use pgwire::messages::response::NotificationResponse;
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use portals::Portals;
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState};
use tidemark_query::clients::Activity;
use tidemark_query::error::Notice;
use tidemark_query::notifications::{Letters, Notification};
use tidemark_query::outcome::{Outcome, RowStream, Rows, Status};
use tidemark_query::serving::collect::rows_bytes;
use tidemark_query::serving::planning::panicked;
use tidemark_values::moment::Zone;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

/// Messages that are read ahead at most while a statement runs.
const PENDING_MAX: usize = 256;

/// Bytes of rows, about, that are made ready to be encoded at a time.
const ENCODED_BYTES: usize = 64 << 10;

/// What a session has on the heap while its client says nothing, about: the codec's buffers, and a
/// table of all functions.
pub const BESIDE_BYTES: usize = 72 << 10;

/// How long a client that is sent away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a message could not be handled.
pub enum Failure {
    /// The client is told.
    Statement(Error),
    /// The client is told, and sent away.
    Ended(Error),
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

/// The socket with what is listened to while a statement runs.
pub struct Line {
    wire: Wire,
    notices: mpsc::UnboundedReceiver<Notice>,
    settings: mpsc::UnboundedReceiver<(String, String)>,
    notifications: Letters,
    interrupts: Interrupts,
    server: Arc<Server>,
    pid: i32,
    activity: Arc<Activity>,
    /// Whether the client was told that it may send: nothing runs.
    idle: bool,
    /// Whether it is told of notifications then: no transaction is open.
    listening: bool,
    pending: VecDeque<PgWireFrontendMessage>,
}

fn poll_room(wire: &mut Wire, flush: bool, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    let wire = Pin::new(wire);
    match flush {
        true => Sink::<PgWireBackendMessage>::poll_flush(wire, cx),
        false => Sink::<PgWireBackendMessage>::poll_ready(wire, cx),
    }
}

/// Why there are no more messages: the client has left, or speaks another language.
fn lost_by(last: Option<Result<PgWireFrontendMessage, PgWireError>>) -> Failure {
    match last {
        Some(Err(error)) => crate::codec::violation(&error).map_or(Failure::Gone, Failure::Ended),
        _ => Failure::Gone,
    }
}

impl Line {
    /// The next message.
    async fn next(&mut self) -> Result<PgWireFrontendMessage, Failure> {
        let message = loop {
            if let Some(message) = self.pending.pop_front() {
                break message;
            }
            if let Some(what) = self.interrupts.pending() {
                return Err(self.interrupted(what));
            }
            // Most messages come with others, and need not be waited for.
            match self.wire.next().now_or_never() {
                Some(Some(Ok(message))) => break message,
                Some(lost) => return Err(lost_by(lost)),
                None => {}
            }
            let notification = tokio::select! {
                biased;
                what = self.interrupts.next() => return Err(self.interrupted(what)),
                message = self.wire.next() => match message {
                    Some(Ok(message)) => break message,
                    lost => return Err(lost_by(lost)),
                },
                Some(one) = self.notifications.recv(), if self.idle && self.listening => one,
            };
            self.send(notification_response(notification)).await?;
        };
        if std::mem::take(&mut self.idle) {
            self.interrupts.canceled.mark_unchanged();
        }
        Ok(message)
    }

    /// Runs `work`, listening meanwhile.
    async fn drive<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T, Failure> {
        tokio::pin!(work);
        // What is short needs nothing that listens.
        if let Some(what) = self.interrupts.pending() {
            return Err(self.interrupted(what));
        }
        match futures::poll!(work.as_mut()) {
            Poll::Ready(result) => {
                self.flush_notices().await?;
                Ok(result?)
            }
            Poll::Pending => Box::pin(self.listen(work)).await,
        }
    }

    async fn listen<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = Result<T>>>,
    ) -> Result<T, Failure> {
        loop {
            tokio::select! {
                biased;
                // First, since a result that is always ready must not outrun it.
                what = self.interrupts.next() => return Err(self.interrupted(what)),
                result = &mut work => {
                    self.flush_notices().await?;
                    return Ok(result?);
                }
                Some(notice) = self.notices.recv() => {
                    let notice = error::notice_info(notice).into();
                    self.send(PgWireBackendMessage::NoticeResponse(notice)).await?;
                }
                message = self.wire.next(), if self.pending.len() < PENDING_MAX => match message {
                    Some(Ok(message)) => self.pending.push_back(message),
                    lost => return Err(lost_by(lost)),
                },
            }
        }
    }

    fn interrupted(&self, what: Interrupt) -> Failure {
        let error = self.interrupts.error(what);
        if what.is_fatal() {
            Failure::Ended(error)
        } else {
            let engine = &self.server.engine;
            Failure::Statement(engine.explain_wait(error, self.pid))
        }
    }

    /// Waits until a message may be fed, or with `flush` until all that were fed are sent.
    async fn room(&mut self, flush: bool) -> Result<(), Failure> {
        let wire = &mut self.wire;
        let at_once = std::future::poll_fn(|cx| Poll::Ready(poll_room(wire, flush, cx))).await;
        match at_once {
            Poll::Ready(done) => Ok(done?),
            Poll::Pending => Box::pin(self.wait_for_room(flush)).await,
        }
    }

    async fn wait_for_room(&mut self, flush: bool) -> Result<(), Failure> {
        self.activity.writing(true);
        let wire = &mut self.wire;
        let outcome = tokio::select! {
            biased;
            what = self.interrupts.next() => Err(what),
            done = std::future::poll_fn(|cx| poll_room(wire, flush, cx)) => Ok(done),
        };
        self.activity.writing(false);
        match outcome {
            Ok(done) => Ok(done?),
            Err(what) => Err(self.interrupted(what)),
        }
    }

    async fn flush_notices(&mut self) -> Result<(), Failure> {
        while let Ok(notice) = self.notices.try_recv() {
            self.feed(PgWireBackendMessage::NoticeResponse(
                error::notice_info(notice).into(),
            ))
            .await?;
        }
        while let Ok((name, value)) = self.settings.try_recv() {
            let status = ParameterStatus::new(name, value);
            self.feed(PgWireBackendMessage::ParameterStatus(status))
                .await?;
        }
        Ok(())
    }

    /// Tells what the session has heard so far.
    async fn tell_notifications(&mut self) -> Result<(), Failure> {
        while let Ok(notification) = self.notifications.try_recv() {
            self.feed(notification_response(notification)).await?;
        }
        Ok(())
    }

    /// What goes to the client, when there is room for more in it.
    async fn buffer(&mut self) -> Result<&mut BytesMut, Failure> {
        if self.wire.write_buffer().len() >= self.wire.backpressure_boundary() {
            self.room(false).await?;
        }
        Ok(self.wire.write_buffer_mut())
    }

    /// An answer as it goes to the client.
    async fn put(&mut self, answer: &[u8]) -> Result<(), Failure> {
        self.buffer().await?.extend_from_slice(answer);
        Ok(())
    }

    async fn feed(&mut self, message: PgWireBackendMessage) -> Result<(), Failure> {
        self.room(false).await?;
        Ok(Pin::new(&mut self.wire).start_send(message)?)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.room(true).await
    }

    async fn send(&mut self, message: PgWireBackendMessage) -> Result<(), Failure> {
        self.feed(message).await?;
        self.flush().await
    }

    async fn complete(&mut self, tag: &str) -> Result<(), Failure> {
        Ok(answer::command_complete(tag, self.buffer().await?)?)
    }
}

/// What a statement does, with a panic on the way as the statement's error: the session goes on.
async fn caught<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|panic| {
        let e = panicked("the statement failed inside", &*panic);
        Err(Failure::Statement(e))
    })
}

fn notification_response(notification: Notification) -> PgWireBackendMessage {
    PgWireBackendMessage::NotificationResponse(NotificationResponse::new(
        notification.sender,
        notification.channel,
        notification.payload,
    ))
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

    /// Sends up to `max` rows (0: all), texts of moments in a time zone. Returns how many, and
    /// whether the result ended.
    async fn send(
        &mut self,
        line: &mut Line,
        formats: &Formats,
        zone: &Zone,
        max: usize,
    ) -> Result<(usize, bool), Failure> {
        let mut sent = 0;
        loop {
            let (batch, offset) = match self.current.take() {
                Some(part) => part,
                None => {
                    let stream = &mut self.rows.stream;
                    let next = match stream.at_once() {
                        Some(next) => next,
                        None => {
                            if stream.is_live() {
                                line.flush().await?;
                            }
                            line.drive(next_batch(stream)).await?
                        }
                    };
                    match next {
                        Some(batch) => (batch, 0),
                        None => return Ok((sent, true)),
                    }
                }
            };
            let row_bytes = rows_bytes(&batch) / batch.num_rows().max(1);
            let fitting = (ENCODED_BYTES / row_bytes.max(1)).max(1);
            let left = (batch.num_rows() - offset).min(fitting);
            let take = if max == 0 { left } else { left.min(max - sent) };
            {
                // What is of no type of the wire is cast, a part at a time.
                let part = (take < batch.num_rows()).then(|| batch.slice(offset, take));
                let part = part.as_ref().unwrap_or(&batch);
                let columns = Columns::new(part, &self.rows.schema, formats, zone)?;
                for row in 0..take {
                    columns.put(row, line.buffer().await?)?;
                }
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

/// The next rows of a result; none at its end.
async fn next_batch(stream: &mut RowStream) -> Result<Option<RecordBatch>> {
    let batch = stream.next().await.transpose();
    batch.map_err(tidemark_query::error::from_datafusion)
}

/// One client.
pub struct Connection {
    line: Line,
    session: Session,
    portals: Portals,
    skip_to_sync: bool,
    /// One of `max_connections`.
    _place: OwnedSemaphorePermit,
}

/// Takes a client off the list.
struct Left<'a> {
    server: &'a Server,
    pid: i32,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.server.commons.clients.remove(self.pid);
    }
}

/// Serves a client until it leaves.
pub async fn serve(server: Arc<Server>, stream: impl Arrival, client: SocketAddr) {
    let (tls, timeout) = (server.tls.as_deref(), startup::STARTUP_TIMEOUT);
    let Some((wire, first)) = startup::arrive(stream, client, tls, timeout).await else {
        return;
    };
    if let Some(mut connection) = startup::greet(server.clone(), wire, first).await {
        let pid = connection.session.pid();
        tracing::debug!(pid, %client, "client connected");
        // Also a panic ends in the list of clients being right.
        let _left = Left {
            server: &server,
            pid,
        };
        connection.run().await;
        tracing::debug!(pid, "client left");
    }
}

/// A session, whose memory counts until it ends.
pub fn counted<F: Future<Output = ()>>(
    server: &Server,
    session: F,
) -> impl Future<Output = ()> + use<F> {
    let bytes = std::mem::size_of_val(&session) + BESIDE_BYTES;
    let held = server.sessions.hold(bytes as u64);
    session.map(move |()| drop(held))
}

/// Tells a client that comes before the node is open to come again.
pub async fn turn_away(socket: TcpStream, client: SocketAddr, tls: Option<Arc<Tls>>) {
    if let Some((wire, PgWireFrontendMessage::Startup(_))) =
        startup::arrive(socket, client, tls.as_deref(), startup::STARTUP_TIMEOUT).await
    {
        let starting = "the database system is starting up";
        startup::refuse(wire, &Error::unavailable(SqlState("57P03"), starting)).await;
    }
}

impl Connection {
    async fn run(&mut self) {
        let failure = loop {
            let message = match self.line.next().await {
                Ok(PgWireFrontendMessage::Terminate(_)) => return,
                // What a client still sends of a COPY that failed.
                Ok(
                    PgWireFrontendMessage::CopyData(_)
                    | PgWireFrontendMessage::CopyDone(_)
                    | PgWireFrontendMessage::CopyFail(_),
                ) => {
                    self.line.idle = !self.line.interrupts.running;
                    continue;
                }
                Ok(message) => message,
                // Between two messages of the extended protocol.
                Err(Failure::Statement(e)) => {
                    self.skip_to_sync = true;
                    match self.report(&e).await {
                        Ok(()) => continue,
                        Err(failure) => break failure,
                    }
                }
                Err(failure) => break failure,
            };
            self.limit_statement();
            if let Err(failure) = self.handle(message).await {
                break failure;
            }
        };
        match failure {
            Failure::Gone => {}
            Failure::Ended(e) => self.farewell(&e).await,
            Failure::Statement(_) => unreachable!("statement errors are reported by handle"),
        }
    }

    /// The session ends: what it holds is given back before the client is told, who may not read.
    async fn farewell(&mut self, e: &Error) {
        tracing::info!(pid = self.session.pid(), reason = %e, "session ended");
        self.portals.clear();
        self.session.abandon();
        let message = PgWireBackendMessage::ErrorResponse(error::info(e, "FATAL").into());
        let wire = &mut self.line.wire;
        let told = tokio::time::timeout(FAREWELL, async {
            wire.send(message).await?;
            SinkExt::<PgWireBackendMessage>::close(wire).await
        });
        // A client that is gone or does not read finds its connection closed.
        let _ = told.await;
    }

    /// A message arrived: what it asks for may take as long as the session's settings say.
    fn limit_statement(&mut self) {
        let (statement, transaction) = self.session.limits();
        self.line.interrupts.limits = Limits {
            statement,
            transaction,
            ..Limits::default()
        };
        self.line.interrupts.running = true;
    }

    /// The client may send: how long it may take for it.
    fn limit_idle(&mut self) {
        let after = |timeout: Option<Duration>| timeout.map(|t| Instant::now() + t);
        let (_, transaction) = self.session.limits();
        let (idle, idle_in_transaction) = self.session.idle_timeouts();
        self.line.interrupts.limits = match self.session.status() {
            Status::Idle => Limits {
                idle: after(idle),
                ..Limits::default()
            },
            Status::Open | Status::Failed => Limits {
                transaction,
                idle_in_transaction: after(idle_in_transaction),
                ..Limits::default()
            },
        };
        self.line.interrupts.running = false;
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
            return self.ready().await;
        }
        if self.skip_to_sync {
            return Ok(());
        }
        // Pinned here, since a future that is handed on is copied.
        let outcome = caught(pin!(self.extended(message))).await;
        match outcome {
            Err(Failure::Statement(e)) => {
                self.skip_to_sync = true;
                self.report(&e).await
            }
            other => other,
        }
    }

    /// Sends an error and lets the session know.
    async fn report(&mut self, e: &Error) -> Result<(), Failure> {
        self.session.audit_refusal(e);
        self.session.failed();
        // The error itself is not canceled.
        self.line.interrupts.running = false;
        self.line.flush_notices().await?;
        if e.kind() == tidemark_common::ErrorKind::Internal {
            tracing::error!(error = %e, "statement failed by an internal error");
        }
        self.line
            .send(PgWireBackendMessage::ErrorResponse(
                error::info(e, "ERROR").into(),
            ))
            .await
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let status = self.session.status();
        self.session.rest();
        self.limit_idle();
        self.line.flush_notices().await?;
        self.line.listening = status == Status::Idle;
        if self.line.listening {
            self.line.tell_notifications().await?;
        }
        answer::ready_for_query(status, self.line.buffer().await?);
        self.line.flush().await?;
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
            Outcome::Command(tag) => self.line.complete(&tag).await,
            Outcome::Rows(rows) => {
                if describe {
                    let out = self.line.buffer().await?;
                    answer::row_description(&rows.schema, formats, out)?;
                }
                let tag = rows.tag.clone();
                let zone = self.session.zone();
                let mut cursor = Cursor::new(rows);
                let (sent, _) = cursor.send(&mut self.line, formats, &zone, 0).await?;
                self.session.settle();
                self.line.flush_notices().await?;
                self.line.complete(&tag.text(sent)).await
            }
            Outcome::CopyOut(out) => Box::pin(self.copy_out(out)).await,
            Outcome::CopyIn(target) => Box::pin(self.copy_in(target)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_statement() {
        let outcome = caught(async {
            tokio::task::yield_now().await;
            if std::hint::black_box(true) {
                panic!("of an {}", "encoder");
            }
            Ok(())
        });
        let Err(Failure::Statement(e)) = outcome.await else {
            panic!("it is an error");
        };
        assert_eq!(e.state(), SqlState::INTERNAL);
        assert_eq!(e.message(), "the statement failed inside: of an encoder");
    }
}
