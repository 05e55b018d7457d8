//! The first messages of a connection: TLS is refused (pgwire's codec has answered `N`), a cancel
//! request is carried out, a startup message is answered with AuthenticationOk, the ParameterStatus
//! that clients need, the cancel key and ReadyForQuery. There is no password on loopback.

use super::codec::Wire;
use super::{Connection, Line, error};
use crate::Server;
use crate::session::Session;
use futures::{SinkExt, StreamExt};
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use tidemark_common::{Error, SqlState};
use tokio::sync::{mpsc, watch};

/// The PostgreSQL version that clients are told; `pg_catalog` is shaped like it.
pub const SERVER_VERSION: &str = "13.14.0";

/// How long a client may take to say who it is.
const STARTUP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Who is connected, for cancel requests and `SHOW PROCESSLIST`.
#[derive(Default)]
pub struct Clients {
    next: AtomicI32,
    connected: parking_lot::Mutex<HashMap<i32, Client>>,
}

/// One connected client.
#[derive(Clone)]
pub struct Client {
    key: SecretKey,
    cancel: watch::Sender<()>,
    /// Address of the client.
    pub address: String,
    /// Its user.
    pub user: String,
    /// When it came, microseconds since 1970.
    pub since: i64,
    /// What it runs now, empty when idle.
    pub running: Arc<parking_lot::Mutex<String>>,
}

impl Clients {
    fn add(
        &self,
        address: String,
        user: String,
    ) -> (
        i32,
        SecretKey,
        watch::Receiver<()>,
        Arc<parking_lot::Mutex<String>>,
    ) {
        let pid = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let key = SecretKey::I32(
            RandomState::new().hash_one((pid, tidemark_common::clock::now_micros())) as i32,
        );
        let (cancel, canceled) = watch::channel(());
        let running = Arc::<parking_lot::Mutex<String>>::default();
        let client = Client {
            key: key.clone(),
            cancel,
            address,
            user,
            since: tidemark_common::clock::now_micros(),
            running: running.clone(),
        };
        self.connected.lock().insert(pid, client);
        (pid, key, canceled, running)
    }

    /// A client left.
    pub fn remove(&self, pid: i32) {
        self.connected.lock().remove(&pid);
    }

    /// All clients by number.
    pub fn list(&self) -> Vec<(i32, Client)> {
        let mut all: Vec<_> = self
            .connected
            .lock()
            .iter()
            .map(|(pid, c)| (*pid, c.clone()))
            .collect();
        all.sort_by_key(|(pid, _)| *pid);
        all
    }

    /// Cancels what client `pid` runs. Returns whether there is such a client.
    pub fn cancel(&self, pid: i32) -> bool {
        self.connected
            .lock()
            .get(&pid)
            .inspect(|c| c.cancel.send_replace(()))
            .is_some()
    }

    fn cancel_by_key(&self, pid: i32, key: &SecretKey) {
        if let Some(client) = self.connected.lock().get(&pid)
            && client.key.eq_value(key)
        {
            client.cancel.send_replace(());
        }
    }
}

/// Brings a new connection to where it takes statements; `None` when it was a cancel request, or
/// refused.
pub async fn greet(server: Arc<Server>, mut wire: Wire) -> Option<Connection> {
    let first = tokio::time::timeout(STARTUP_TIMEOUT, wire.next())
        .await
        .ok()??
        .ok()?;
    let startup = match first {
        PgWireFrontendMessage::CancelRequest(request) => {
            server
                .clients
                .cancel_by_key(request.pid, &request.secret_key);
            let _ = wire.close().await;
            return None;
        }
        PgWireFrontendMessage::Startup(startup) => startup,
        _ => return None,
    };
    if let Err(e) = check(&startup) {
        let _ = wire
            .send(PgWireBackendMessage::ErrorResponse(
                error::info(&e, "FATAL").into(),
            ))
            .await;
        let _ = wire.close().await;
        return None;
    }
    let user = startup
        .parameters
        .get("user")
        .cloned()
        .unwrap_or_else(|| "root".into());
    let (pid, key, canceled, running) = server.clients.add(
        wire.codec().0.client_info.socket_addr().to_string(),
        user.clone(),
    );
    let (notice_sender, notices) = mpsc::unbounded_channel();
    let (setting_sender, settings) = mpsc::unbounded_channel();
    let session = Session::new(
        server.clone(),
        pid,
        user,
        &startup.parameters,
        notice_sender,
        setting_sender,
        running,
    );
    match welcome(&mut wire, &session, pid, key).await {
        Ok(()) => {}
        Err(_) => {
            server.clients.remove(pid);
            return None;
        }
    }
    wire.codec_mut()
        .0
        .client_info
        .set_state(PgWireConnectionState::ReadyForQuery);
    let submitted = session.submitted();
    let line = Line {
        wire,
        notices,
        settings,
        canceled,
        submitted,
        idle: true,
        pending: Default::default(),
    };
    Some(Connection {
        line,
        session,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skip_to_sync: false,
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

async fn welcome(
    wire: &mut Wire,
    session: &Session,
    pid: i32,
    key: SecretKey,
) -> std::io::Result<()> {
    wire.feed(PgWireBackendMessage::Authentication(Authentication::Ok))
        .await?;
    for (name, value) in session.reported_settings() {
        wire.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
            name, value,
        )))
        .await?;
    }
    wire.feed(PgWireBackendMessage::BackendKeyData(BackendKeyData::new(
        pid, key,
    )))
    .await?;
    wire.send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(
        TransactionStatus::Idle,
    )))
    .await
}
