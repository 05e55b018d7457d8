//! The first messages of a connection: TLS is agreed on where there is a certificate, and refused
//! elsewhere (pgwire's codec answers `N`); a cancel request is carried out; a startup message leads
//! to who it is ([`crate::auth`]), and is answered with AuthenticationOk, the ParameterStatus that
//! clients need, the cancel key and ReadyForQuery.
//!
//! A client that says nothing is left after [`STARTUP_TIMEOUT`]. One that comes while the node
//! still opens, or when there are `max_connections`, is told so: it can come again.

use super::interrupts::{Interrupts, Limits};
use super::{Connection, FAREWELL, Line, error};
use crate::Server;
use crate::codec::{Codec, Wire};
use crate::session::Session;
use crate::tls::Tls;
use futures::{SinkExt, StreamExt};
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Error, SqlState};
use tidemark_query::asker::Voice;
use tidemark_query::notifications::mailbox;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// How long a client may take to say who it is.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Negotiates with a new connection and reads its first message; `None` if it has none within the
/// timeout, or is gone.
pub async fn arrive(
    socket: TcpStream,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Option<(Wire, PgWireFrontendMessage)> {
    let first = async {
        let framed = pgwire::tokio::server::negotiate_tls::<()>(socket, tls.map(Tls::sql)).await;
        let mut wire = framed.ok()??.map_codec(Codec);
        let first = wire.next().await?.ok()?;
        Some((wire, first))
    };
    tokio::time::timeout(timeout, first).await.ok()?
}

/// Tells a client why it cannot come in.
pub async fn refuse(mut wire: Wire, e: &Error) {
    let message = PgWireBackendMessage::ErrorResponse(error::info(e, "FATAL").into());
    let told = tokio::time::timeout(FAREWELL, async {
        wire.send(message).await?;
        SinkExt::<PgWireBackendMessage>::close(&mut wire).await
    });
    // A client that is gone or does not read finds its connection closed.
    let _ = told.await;
}

/// Brings a new connection, whose first message has come, to where it takes statements; `None` when
/// it was a cancel request, or refused.
pub async fn greet(
    server: Arc<Server>,
    mut wire: Wire,
    first: PgWireFrontendMessage,
) -> Option<Connection> {
    let startup = match first {
        PgWireFrontendMessage::CancelRequest(request) => {
            if let Some(key) = number_of(&request.secret_key) {
                server.commons.clients.cancel_by_key(request.pid, key);
            }
            let _ = wire.close().await;
            return None;
        }
        PgWireFrontendMessage::Startup(startup) => startup,
        _ => return None,
    };
    let place = match check(&startup).and_then(|()| place(&server)) {
        Ok(place) => place,
        Err(e) => {
            refuse(wire, &e).await;
            return None;
        }
    };
    let user = startup
        .parameters
        .get("user")
        .cloned()
        .unwrap_or_else(|| "root".into());
    let catalog = server.engine.catalog();
    let admitted = tokio::time::timeout(
        STARTUP_TIMEOUT,
        crate::auth::admit(&server.gate, &catalog, &mut wire, &user),
    );
    match admitted.await {
        Ok(Some(Ok(()))) => {}
        Ok(Some(Err(e))) => {
            refuse(wire, &e).await;
            return None;
        }
        Ok(None) | Err(_) => return None,
    }
    let registered = server.commons.clients.add(
        wire.codec().0.client_info.socket_addr().to_string(),
        user.clone(),
    );
    let (notice_sender, notices) = mpsc::unbounded_channel();
    let (setting_sender, settings) = mpsc::unbounded_channel();
    let (mailbox, notifications) = mailbox();
    let session = Session::new(
        server.clone(),
        registered.pid,
        user,
        &startup.parameters,
        Voice {
            notices: notice_sender,
            reports: setting_sender,
            mailbox,
        },
        registered.activity.clone(),
    );
    let pid = registered.pid;
    match welcome(&mut wire, &session, pid, registered.key).await {
        Ok(()) => {}
        Err(_) => {
            server.commons.clients.remove(pid);
            return None;
        }
    }
    wire.codec_mut()
        .0
        .client_info
        .set_state(PgWireConnectionState::ReadyForQuery);
    let interrupts = Interrupts {
        canceled: registered.canceled,
        ended: registered.ended,
        submitted: session.submitted(),
        limits: Limits::default(),
        running: false,
    };
    let line = Line {
        wire,
        notices,
        settings,
        notifications,
        interrupts,
        server,
        pid,
        activity: registered.activity,
        idle: true,
        listening: true,
        pending: Default::default(),
    };
    let mut connection = Connection {
        line,
        session,
        statements: Default::default(),
        portals: HashMap::new(),
        skip_to_sync: false,
        _place: place,
    };
    connection.session.rest();
    connection.limit_idle();
    Some(connection)
}

/// Room for one more client.
fn place(server: &Server) -> Result<OwnedSemaphorePermit, Error> {
    let free = server.connections.clone().try_acquire_owned();
    free.map_err(|_| {
        let e = Error::unavailable(SqlState("53300"), "sorry, too many clients already");
        let most = server.config.max_connections;
        e.with_hint(format!(
            "max_connections is {most}: raise it, or pool connections."
        ))
    })
}

fn check(startup: &Startup) -> Result<(), Error> {
    if startup.protocol_number_major != 3 {
        return Err(Error::user(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "unsupported frontend protocol {}",
                startup.protocol_number_major
            ),
        ));
    }
    let user = startup.parameters.get("user");
    let Some(user) = user else {
        return Err(Error::user(
            SqlState("28000"),
            "no PostgreSQL user name specified in startup packet",
        ));
    };
    let database = startup.parameters.get("database").unwrap_or(user);
    if database != "dev" {
        return Err(Error::user(
            SqlState("3D000"),
            format!("database \"{database}\" does not exist"),
        )
        .with_hint("The database is \"dev\": connect with `-d dev`."));
    }
    Ok(())
}

/// A key is a number here; by the newest version of the protocol it comes as bytes.
fn number_of(key: &SecretKey) -> Option<i32> {
    match key {
        SecretKey::I32(key) => Some(*key),
        SecretKey::Bytes(bytes) => <[u8; 4]>::try_from(&bytes[..]).ok().map(i32::from_be_bytes),
    }
}

async fn welcome(wire: &mut Wire, session: &Session, pid: i32, key: i32) -> std::io::Result<()> {
    wire.feed(PgWireBackendMessage::Authentication(Authentication::Ok))
        .await?;
    for (name, value) in session.reported_settings() {
        wire.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
            name, value,
        )))
        .await?;
    }
    wire.feed(PgWireBackendMessage::BackendKeyData(BackendKeyData::new(
        pid,
        SecretKey::I32(key),
    )))
    .await?;
    wire.send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(
        TransactionStatus::Idle,
    )))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A client and the socket that it arrives on.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn who_does_not_finish_negotiating_is_left() {
        let timeout = Duration::from_millis(100);
        let (_silent, socket) = pair().await;
        assert!(arrive(socket, None, timeout).await.is_none());
        let (mut client, socket) = pair().await;
        // An SSLRequest, and nothing after it.
        client
            .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
            .await
            .unwrap();
        assert!(arrive(socket, None, timeout).await.is_none());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"N");
    }

    #[tokio::test]
    async fn who_comes_too_early_is_told() {
        let (mut client, socket) = pair().await;
        tokio::spawn(crate::protocol::turn_away(socket, None));
        let mut hello = vec![0, 0, 0, 0, 0, 3, 0, 0];
        hello.extend(b"user\0root\0database\0dev\0\0");
        hello[3] = hello.len() as u8;
        client.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with('E'), "{answer}");
        for part in ["FATAL", "57P03", "the database system is starting up"] {
            assert!(answer.contains(part), "{answer}");
        }
    }
}
