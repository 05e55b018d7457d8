//! Where links arrive: connections are taken in the background, each with a handshake of its own,
//! so that one that says nothing holds up nobody.

use crate::network::handshake::{Handshake, Role};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::network::{Link, Listener};
use tidemark_common::{Error, Result, machine};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Connections at most that are in their handshake, or links that nobody has taken yet.
const WAITING_MAX: usize = 64;
/// How often the log tells of strangers, at most.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// The pause after a connection that could not be taken: no more files may be open.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module. It ends when it is dropped.
pub struct RealListener {
    links: mpsc::Receiver<Link>,
    address: SocketAddr,
}

impl RealListener {
    /// Those that come to `socket`.
    pub fn new(socket: TcpListener, handshake: Arc<Handshake>) -> io::Result<RealListener> {
        let address = socket.local_addr()?;
        let (sender, links) = mpsc::channel(WAITING_MAX);
        machine::spawn(accept_all(socket, handshake, sender));
        Ok(RealListener { links, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl Listener for RealListener {
    async fn accept(&mut self) -> Result<Link> {
        let link = self.links.recv().await;
        link.ok_or_else(|| Error::internal("no more links are taken"))
    }
}

async fn accept_all(socket: TcpListener, handshake: Arc<Handshake>, links: mpsc::Sender<Link>) {
    let strangers = Arc::new(Strangers::default());
    // A place first: whoever has been let in finds one.
    while let Ok(place) = links.clone().reserve_owned().await {
        let accepted = tokio::select! {
            biased;
            () = links.closed() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "a connection of a node could not be accepted");
                machine::sleep(PAUSE).await;
                continue;
            }
        };
        let (handshake, strangers) = (handshake.clone(), strangers.clone());
        machine::spawn(async move {
            match handshake.agree(stream, Role::Listens).await {
                Ok(link) => drop(place.send(link)),
                Err(e) => strangers.turned_away(peer, &e),
            }
        });
    }
}

/// Tells of those who were turned away, now and then.
#[derive(Default)]
struct Strangers(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    told: Option<Instant>,
    since: u64,
}

impl Strangers {
    fn turned_away(&self, peer: SocketAddr, error: &Error) {
        let mut untold = self.0.lock();
        if untold
            .told
            .is_some_and(|t| machine::elapsed(t) < WARNING_INTERVAL)
        {
            untold.since += 1;
            return;
        }
        let others = std::mem::take(&mut untold.since);
        untold.told = Some(machine::now());
        drop(untold);
        let hint = error.hint().unwrap_or_default();
        tracing::warn!(%peer, %error, hint, others, "a connection to this node was turned away");
    }
}
