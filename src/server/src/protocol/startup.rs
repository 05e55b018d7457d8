//! The first messages of a connection: TLS is refused (pgwire's codec has answered `N`), a cancel
//! request is carried out, a startup message is answered with AuthenticationOk, the ParameterStatus
//! that clients need, the cancel key and ReadyForQuery. There is no password on loopback.

use super::codec::Wire;
use super::interrupts::{Interrupts, Limits};
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
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tokio::sync::mpsc;

/// The PostgreSQL version that clients are told; `pg_catalog` is shaped like it.
pub const SERVER_VERSION: &str = "13.14.0";

/// How long a client may take to say who it is.
const STARTUP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

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
    let registered = server.clients.add(
        wire.codec().0.client_info.socket_addr().to_string(),
        user.clone(),
    );
    let (notice_sender, notices) = mpsc::unbounded_channel();
    let (setting_sender, settings) = mpsc::unbounded_channel();
    let session = Session::new(
        server.clone(),
        registered.pid,
        user,
        &startup.parameters,
        notice_sender,
        setting_sender,
        registered.activity.clone(),
    );
    let pid = registered.pid;
    match welcome(&mut wire, &session, pid, registered.key).await {
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
        interrupts,
        server,
        pid,
        activity: registered.activity,
        idle: true,
        pending: Default::default(),
    };
    let mut connection = Connection {
        line,
        session,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skip_to_sync: false,
    };
    connection.session.rest();
    connection.limit_idle();
    Some(connection)
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
