//! The first messages of a connection: TLS is agreed on where there is a certificate, and refused
//! elsewhere (`N`); a cancel request is carried out; a startup message leads
//! to who it is ([`crate::auth`]), and is answered with AuthenticationOk, the ParameterStatus that
//! clients need, the cancel key and ReadyForQuery.
//!
//! A client that says nothing is left after [`STARTUP_TIMEOUT`]. One that comes while the node
//! still opens, or when there are `max_connections`, is told so: it can come again.

use super::interrupts::{Interrupts, Limits};
use super::{Connection, FAREWELL, Line, error};
use crate::Server;
use crate::codec::{self, Wire};
use crate::session::Session;
use crate::stream::{Arrival, ClientStream};
use crate::tls::{SQL_PROTOCOL, Tls};
use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Error, SqlState};
use tidemark_query::asker::Voice;
use tidemark_query::notifications::mailbox;
use tidemark_query::settings::ROLE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// How long a client may take to say who it is.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// What the first message begins with of a client that speaks TLS without asking for it.
const TLS_BEGINS: u8 = 0x16;
/// Requests for encryption by TLS and by GSS: a length and a code.
const WANTS_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const WANTS_GSS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// Answers requests for encryption: the client's stream, and what was read of its first message
/// without any. `None` if the client has left, or what it sends is no message.
async fn negotiate<S: Arrival>(
    mut stream: S,
    tls: Option<&Tls>,
) -> Option<(ClientStream, BytesMut)> {
    if stream.peek_first().await.ok()?? == TLS_BEGINS {
        let session = tls?.sql().accept(stream).await.ok()?;
        // Who has not asked is told by this that a client of SQL is meant.
        let agreed = session.get_ref().1.alpn_protocol() == Some(SQL_PROTOCOL);
        return agreed.then(|| (S::encrypted(session), BytesMut::new()));
    }
    loop {
        let mut begin = [0; 8];
        let (length, code) = begin.split_at_mut(4);
        stream.read_exact(length).await.ok()?;
        if !codec::is_startup_length([length[0], length[1], length[2], length[3]]) {
            return None;
        }
        stream.read_exact(code).await.ok()?;
        let answer = match (begin, tls) {
            (WANTS_TLS, Some(_)) => b"S",
            (WANTS_TLS | WANTS_GSS, _) => b"N",
            _ => return Some((stream.plain(), BytesMut::from(&begin[..]))),
        };
        stream.write_all(answer).await.ok()?;
        stream.flush().await.ok()?;
        if let (WANTS_TLS, Some(tls)) = (begin, tls) {
            let session = tls.sql().accept(stream).await.ok()?;
            return Some((S::encrypted(session), BytesMut::new()));
        }
    }
}

/// Negotiates with a new connection and reads its first message; `None` if it has none within the
/// timeout, is gone, or was sent away because that is no message.
pub async fn arrive<S: Arrival>(
    stream: S,
    client: SocketAddr,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Option<(Wire, PgWireFrontendMessage)> {
    let first = async {
        let (stream, begin) = negotiate(stream, tls).await?;
        let mut wire = codec::wire(stream, client, begin);
        match wire.next().await? {
            Ok(first) => Some((wire, first)),
            Err(error) => {
                if let Some(error) = codec::violation(&error) {
                    refuse(wire, &error).await;
                }
                None
            }
        }
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
    let named = |key: &str| startup.parameters.get(key).filter(|name| !name.is_empty());
    let user = named("user").cloned().unwrap_or_default();
    let database = named("database").unwrap_or(&user);
    let catalog = server.engine.catalog();
    let admitted = tokio::time::timeout(
        STARTUP_TIMEOUT,
        crate::auth::admit(&server.gate, &catalog, &mut wire, &user, database),
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
    let given = settings_of(&startup);
    let mut session = Session::new(
        server.clone(),
        registered.pid,
        user,
        &given,
        Voice {
            notices: notice_sender,
            reports: setting_sender,
            mailbox,
        },
        registered.activity.clone(),
    );
    let pid = registered.pid;
    let role = given.get(ROLE).map(|role| session.take_role(role));
    if let Some(Err(e)) = role {
        server.commons.clients.remove(pid);
        refuse(wire, &e).await;
        return None;
    }
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
        portals: Default::default(),
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
    match startup.parameters.get("user").map(String::as_str) {
        Some("") | None => Err(Error::user(
            SqlState("28000"),
            "no PostgreSQL user name specified in startup packet",
        )),
        Some(_) => Ok(()),
    }
}

/// The settings that a startup message has, those of `options` (`-c name=value --name=value`, with
/// a backslash before a blank that belongs to a value) first.
fn settings_of(startup: &Startup) -> BTreeMap<String, String> {
    let given = startup.parameters.get("options").map(String::as_str);
    let mut words = vec![String::new()];
    let mut letters = given.unwrap_or_default().chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => words
                .last_mut()
                .into_iter()
                .for_each(|w| w.extend(letters.next())),
            blank if blank.is_whitespace() => words.push(String::new()),
            other => words.last_mut().into_iter().for_each(|w| w.push(other)),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = BTreeMap::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => setting.to_string(),
            (None, Some("")) => words.next().unwrap_or_default(),
            (None, Some(setting)) => setting.to_string(),
            (None, None) => continue,
        };
        if let Some((name, value)) = setting.split_once('=') {
            settings.insert(name.replace('-', "_").to_lowercase(), value.to_string());
        }
    }
    settings.extend(startup.parameters.clone());
    settings
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
    use std::net::{Ipv4Addr, SocketAddrV4};
    use tokio::net::{TcpListener, TcpStream};

    const CLIENT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

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
        assert!(arrive(socket, CLIENT, None, timeout).await.is_none());
        let (mut client, socket) = pair().await;
        // An SSLRequest, and nothing after it.
        client
            .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
            .await
            .unwrap();
        assert!(arrive(socket, CLIENT, None, timeout).await.is_none());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"N");
    }

    fn hello(version: [u8; 4], parameters: &[u8]) -> Vec<u8> {
        let length = (parameters.len() + 8) as u32;
        [&length.to_be_bytes()[..], &version, parameters].concat()
    }

    /// What a client is answered that sends this and waits.
    async fn answer_to(sent: &[u8]) -> String {
        let (mut client, socket) = pair().await;
        client.write_all(sent).await.unwrap();
        assert!(
            arrive(socket, CLIENT, None, STARTUP_TIMEOUT)
                .await
                .is_none()
        );
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn what_is_no_startup_message_is_refused_at_once() {
        let v3 = [0, 3, 0, 0];
        let layout = "invalid startup packet layout: expected terminator as last byte";
        for parameters in [
            &b"user\0root"[..],
            b"user\0root\0",
            b"user\0root\0\0x\0",
            b"user\0",
        ] {
            let answer = answer_to(&hello(v3, parameters)).await;
            assert!(
                answer.contains("FATAL") && answer.contains("08P01"),
                "{answer}"
            );
            assert!(answer.contains(layout), "{answer}");
        }
        let answer = answer_to(&hello(v3, b"user\0r\xffot\0\0")).await;
        assert!(answer.contains("22021"), "{answer}");
        let answer = answer_to(&hello([0, 9, 0, 1], b"user\0root\0\0")).await;
        assert!(
            answer.contains("unsupported frontend protocol 9.1"),
            "{answer}"
        );
        for length in [0_u32, 4, 7, 10_001, u32::MAX] {
            assert_eq!(answer_to(&length.to_be_bytes()).await, "");
        }
        // Behind a request for TLS, too.
        let sent = [&WANTS_GSS[..], &WANTS_TLS, &[0, 0, 0, 4]].concat();
        assert_eq!(answer_to(&sent).await, "NN");
    }

    #[test]
    fn options_are_settings() {
        let mut startup = Startup::new();
        let options = "-c role=ann --statement-timeout=5s  -csearch_path=a,\\ b -x -c";
        let parameters = [("options", options), ("TimeZone", "UTC")];
        let parameters = parameters.map(|(name, value)| (name.to_string(), value.to_string()));
        startup.parameters.extend(parameters);
        let mut settings = settings_of(&startup);
        settings.remove("options");
        let settings: Vec<_> = settings.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected = [
            ("TimeZone", "UTC"),
            ("role", "ann"),
            ("search_path", "a, b"),
            ("statement_timeout", "5s"),
        ];
        assert_eq!(settings, expected);
    }

    #[tokio::test]
    async fn who_comes_too_early_is_told() {
        let (mut client, socket) = pair().await;
        tokio::spawn(crate::protocol::turn_away(socket, CLIENT, None));
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
