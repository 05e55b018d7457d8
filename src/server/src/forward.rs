//! Clients who come to a node that does not lead: it passes on what they and the leader say to each
//! other, byte for byte over a link ([`to_leader`]), and the leader serves them as those who came
//! to itself ([`serve`]).
//!
//! The first frame tells the client's address, so that who may come in without a password, and
//! whose wrong passwords are counted together, is settled by where the client is, never by which
//! node it came to. All other frames are the client's and the leader's bytes. A TLS session is one
//! of client and leader; the node between them cannot read along.

use crate::Server;
use crate::protocol;
use crate::protocol::startup::STARTUP_TIMEOUT;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tidemark_common::network::{Link, LinkReceiver, LinkSender};
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::network::LinkStream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Bytes that are passed on at a time, at most.
const PART_BYTES: usize = 64 << 10;

/// Passes on what the client at `client` and the leader at the other end of `link` say, until one
/// of them has left. Dropping the future ends the connection of both.
pub async fn to_leader(mut socket: TcpStream, client: SocketAddr, link: Link) {
    let (mut sender, receiver) = (link.sender, link.receiver);
    let (read, write) = socket.split();
    let asks = async {
        let said = async {
            sender.send(client.to_string().into()).await?;
            pass_to_link(read, sender).await
        };
        if let Err(error) = said.await {
            tracing::debug!(%client, %error, "a client or its leader is gone");
        }
        // The leader finds that nothing more comes, and says goodbye.
        std::future::pending().await
    };
    let hears = async {
        if let Err(error) = pass_to_client(receiver, write).await {
            tracing::debug!(%client, %error, "a client or its leader is gone");
        }
    };
    tokio::select! {
        biased;
        () = hears => {}
        () = asks => {}
    }
}

/// Until the client says no more; the sender is dropped then.
async fn pass_to_link(read: ReadHalf<'_>, mut sender: Box<dyn LinkSender>) -> Result<()> {
    loop {
        // A client that says nothing needs no memory.
        read.readable().await?;
        let mut part = BytesMut::with_capacity(PART_BYTES);
        match read.try_read_buf(&mut part) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e.into()),
        }
        let part = match part.len() < PART_BYTES / 2 {
            true => Bytes::copy_from_slice(&part),
            false => part.freeze(),
        };
        sender.send(part).await?;
    }
}

/// Until the leader says no more; the client is told.
async fn pass_to_client(
    mut receiver: Box<dyn LinkReceiver>,
    mut write: WriteHalf<'_>,
) -> Result<()> {
    while let Some(part) = receiver.receive().await? {
        write.write_all(&part).await?;
    }
    Ok(write.shutdown().await?)
}

/// Serves a client whom the node at the other end of a link passes on, until it leaves.
pub async fn serve(server: Arc<Server>, link: Link) {
    let (peer, arrived) = (link.peer.clone(), arrive(link));
    match arrived.await {
        Ok((stream, client)) => {
            let session = protocol::serve(server.clone(), stream, client);
            protocol::counted(&server, session).await;
        }
        Err(error) => {
            tracing::warn!(peer, %error, "a node passed on a client in a way that is not known");
        }
    }
}

/// The client's stream, and its address.
async fn arrive(mut link: Link) -> Result<(LinkStream, SocketAddr)> {
    let first = tokio::time::timeout(STARTUP_TIMEOUT, link.receiver.receive()).await;
    let first = first.map_or(Ok(None), |received| received)?;
    let address = first
        .as_deref()
        .and_then(|text| std::str::from_utf8(text).ok());
    let address = address.and_then(|text| text.parse().ok());
    let address = address.ok_or_else(|| {
        let message = "the first frame has no address of a client";
        Error::unavailable(SqlState("08P01"), message)
    })?;
    Ok((LinkStream::new(link), address))
}

#[cfg(test)]
mod tests;
