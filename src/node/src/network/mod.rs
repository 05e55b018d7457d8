//! The real network: links between nodes over TCP.
//!
//! ```text
//! connects                      listens
//!     <---- TLS 1.3 handshake --->          with a cluster secret only
//!     ----- magic, version ------>
//!     <---- magic, version -------          another version: both ends say so
//!     ----- proof --------------->          with a cluster secret only
//!     <---- yes and proof, or no -          no: the end
//!     <---- frames -------------->
//! ```
//! The nodes of a cluster know each other by a **cluster secret** ([`Secret`]). No authority signs
//! their certificates; each makes its own when it starts, and none is checked. Whom a TLS session
//! leads to is found out within it: both ends prove that they know the secret, by a code over what
//! this session exports. Whoever stands between two nodes has another session with each of them,
//! and can pass on no proof. Who connects proves first, so that a stranger who calls gets nothing
//! that depends on the secret; one who is called gets a code to which a good secret cannot be
//! guessed. Before all this nothing is said but which version of the protocol is spoken.
//!
//! Without a secret there is neither TLS nor proof, which is for nodes on one machine: only
//! addresses of the machine itself are listened at and connected to.

mod frames;
mod handshake;
mod listener;
mod secret;
mod stream;
mod tls;

pub use listener::RealListener;
pub use secret::{SECRET_VARIABLE, Secret};
pub use stream::LinkStream;

use async_trait::async_trait;
use handshake::{Handshake, Role, TIME_LIMIT};
use std::net::SocketAddr;
use std::sync::Arc;
use tidemark_common::network::{Link, Listener, Network};
use tidemark_common::{Error, ErrorKind, Result, SqlState, machine};
use tokio::net::{TcpListener, TcpStream};

/// See the module.
pub struct RealNetwork {
    handshake: Arc<Handshake>,
}

impl RealNetwork {
    /// Of a cluster with this secret; none: of nodes on one machine.
    pub fn new(secret: Option<Secret>) -> Result<RealNetwork> {
        let handshake = Arc::new(Handshake::new(secret)?);
        Ok(RealNetwork { handshake })
    }

    /// Takes links at this address from now on; a port of 0 is one that is free.
    ///
    /// Errors: `22023` for an address that others reach, if there is no secret; of kind
    /// `Unavailable` if it cannot be listened at.
    pub async fn listen_at(&self, address: &str) -> Result<RealListener> {
        let failed = |e: std::io::Error| {
            let reason = match e.kind() {
                std::io::ErrorKind::AddrInUse => "the address is in use".into(),
                _ => e.to_string(),
            };
            let message = format!("cannot listen for nodes on {address}: {reason}");
            Error::unavailable(SqlState::IO_ERROR, message)
                .with_hint("Choose another address with --rpc.")
        };
        let found = self.find(address).await?;
        let socket = TcpListener::bind(&found[..]).await.map_err(failed)?;
        RealListener::new(socket, self.handshake.clone()).map_err(failed)
    }

    async fn connect_to(&self, address: &str) -> Result<Link> {
        let found = self.find(address).await?;
        let socket = machine::timeout(TIME_LIMIT, TcpStream::connect(&found[..])).await;
        let socket = socket.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()));
        let socket =
            socket.map_err(|e| Error::unavailable(SqlState::CONNECTION_FAILURE, e.to_string()))?;
        self.handshake.agree(socket, Role::Connects).await
    }

    /// What an address means.
    async fn find(&self, address: &str) -> Result<Vec<SocketAddr>> {
        let found = machine::timeout(TIME_LIMIT, tokio::net::lookup_host(address)).await;
        let found = found.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()));
        let found: Vec<SocketAddr> = found
            .map_err(|e| {
                let message = format!("the address is not known: {e}");
                Error::unavailable(SqlState::CONNECTION_FAILURE, message)
            })?
            .collect();
        let is_near = |at: &SocketAddr| at.ip().to_canonical().is_loopback();
        if !self.handshake.is_guarded() && !found.iter().all(is_near) {
            let message = format!("others reach {address}, but there is no cluster secret");
            return Err(Error::user(SqlState::INVALID_PARAMETER, message).with_hint(
                "Set cluster_secret_file to a file with the secret that all nodes of the cluster \
                 have.",
            ));
        }
        Ok(found)
    }
}

#[async_trait]
impl Network for RealNetwork {
    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        Ok(Box::new(self.listen_at(address).await?))
    }

    async fn connect(&self, address: &str) -> Result<Link> {
        let link = self.connect_to(address).await;
        link.map_err(|e| match e.kind() {
            ErrorKind::Unavailable => e.context(format!("no link to the node at {address}")),
            _ => e,
        })
    }
}

#[cfg(test)]
mod tests;
