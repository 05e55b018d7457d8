//! What both ends of a new connection agree on before it is a link: see the module above for who
//! says what, and why. It ends within [`TIME_LIMIT`]. Errors speak of the other end as "it".

use crate::network::frames;
use crate::network::secret::{PROOF_BYTES, Secret};
use crate::network::tls::{Occasions, Socket, Tls};
use bytes::BytesMut;
use std::io;
use std::time::Duration;
use tidemark_common::network::Link;
use tidemark_common::{Error, Result, SqlState, machine};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How long each step to a link may take: finding an address, connecting, and this handshake.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What every node begins with.
const MAGIC: &[u8; 8] = b"TIDEMARK";
/// Of the protocol between nodes: handshake, frames, and what is in them.
const VERSION: u32 = 1;
/// Bytes of both.
const GREETING_BYTES: usize = MAGIC.len() + 4;

/// Answers to a proof.
const YES: u8 = 1;
const NO: u8 = 0;

/// What a record of TLS begins with, if it is the first one: an alert, or a handshake.
const TLS_BEGINS: [u8; 2] = [0x15, 0x16];

/// Which end of a connection a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It called.
    Connects,
    /// It was called.
    Listens,
}

/// See the module.
pub struct Handshake {
    guard: Option<Guard>,
}

struct Guard {
    tls: Tls,
    secret: Secret,
}

impl Handshake {
    /// With TLS and proofs, if there is a secret.
    pub fn new(secret: Option<Secret>) -> Result<Handshake> {
        let guard = |secret| {
            let tls = Tls::new()?;
            Ok::<_, Error>(Guard { tls, secret })
        };
        let guard = secret.map(guard).transpose()?;
        Ok(Handshake { guard })
    }

    /// Whether only those get through who know a secret.
    pub fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// Makes a link of a connection.
    ///
    /// Errors: of kind `Unavailable`, with why the other end may not be there.
    pub async fn agree(&self, socket: TcpStream, role: Role) -> Result<Link> {
        let agreed = machine::timeout(TIME_LIMIT, self.talk(socket, role)).await;
        let silent = || {
            lost(format!(
                "it did not answer within {} s",
                TIME_LIMIT.as_secs()
            ))
        };
        agreed.unwrap_or_else(|| Err(silent()))
    }

    async fn talk(&self, socket: TcpStream, role: Role) -> Result<Link> {
        let peer = socket.peer_addr().map_err(broke)?.to_string();
        socket.set_nodelay(true).map_err(broke)?;
        let Some(guard) = &self.guard else {
            let mut talk = Talk::new(socket);
            talk.greet().await?;
            let (read, write) = talk.stream.into_split();
            return Ok(frames::link(read, write, talk.heard, peer));
        };
        let (stream, occasions) = guard.session(socket, role).await?;
        let mut talk = Talk::new(stream);
        talk.greet().await?;
        match role {
            Role::Connects => talk.prove_first(&guard.secret, &occasions).await?,
            Role::Listens => talk.prove_second(&guard.secret, &occasions).await?,
        }
        let (read, write) = tokio::io::split(talk.stream);
        Ok(frames::link(read, write, talk.heard, peer))
    }
}

impl Guard {
    async fn session(
        &self,
        socket: TcpStream,
        role: Role,
    ) -> Result<(TlsStream<Socket>, Occasions)> {
        let session = match role {
            Role::Connects => self.tls.connect(socket).await,
            Role::Listens => self.tls.accept(socket).await,
        };
        session.map_err(|e| {
            let inner = e.get_ref().and_then(|e| e.downcast_ref());
            match inner {
                Some(rustls::Error::InvalidMessage(_)) => {
                    lost("it speaks no TLS: it has no cluster secret, or is no node")
                        .with_hint(SAME_SECRET)
                }
                _ => broke(e),
            }
        })
    }
}

const SAME_SECRET: &str = "cluster_secret_file names the same secret on all nodes of a cluster.";

fn lost(message: impl Into<String>) -> Error {
    Error::unavailable(SqlState::CONNECTION_FAILURE, message)
}

fn broke(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => lost("it closed the connection"),
        _ => lost(e.to_string()),
    }
}

fn another_secret() -> Error {
    Error::unavailable(SqlState("28000"), "its cluster secret is another one")
        .with_hint(SAME_SECRET)
}

/// A connection on which both ends take turns.
struct Talk<S> {
    stream: S,
    /// What has come, and was not looked at.
    heard: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S) -> Talk<S> {
        Talk {
            stream,
            heard: BytesMut::with_capacity(4096),
        }
    }

    async fn say(&mut self, words: &[u8]) -> Result<()> {
        self.stream.write_all(words).await.map_err(broke)?;
        self.stream.flush().await.map_err(broke)
    }

    /// The next bytes, so many.
    async fn hear(&mut self, count: usize) -> io::Result<BytesMut> {
        while self.heard.len() < count {
            if self.stream.read_buf(&mut self.heard).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.heard.split_to(count))
    }

    /// Both at once: who speaks what.
    async fn greet(&mut self) -> Result<()> {
        self.say(&[&MAGIC[..], &VERSION.to_le_bytes()].concat())
            .await?;
        let greeting = self.hear(GREETING_BYTES).await;
        let begin = greeting.as_ref().map_or(&self.heard, |whole| whole).first();
        if begin.is_some_and(|byte| TLS_BEGINS.contains(byte)) {
            let message = "it speaks TLS: it has a cluster secret, and this node has none";
            return Err(lost(message).with_hint(SAME_SECRET));
        }
        let greeting = greeting.map_err(broke)?;
        let (magic, version) = greeting.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(lost("it is no node of Tidemark"));
        }
        if version != VERSION.to_le_bytes() {
            let theirs = version.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
            let message = format!(
                "it speaks version {theirs} of the protocol between nodes, and this node version \
                 {VERSION}"
            );
            return Err(lost(message).with_hint("Run the same release on all nodes of a cluster."));
        }
        Ok(())
    }

    /// Of the end that connects.
    async fn prove_first(&mut self, secret: &Secret, occasions: &Occasions) -> Result<()> {
        self.say(&secret.proof(&occasions.connects)).await?;
        let answer = self.hear(1).await.map_err(broke)?;
        if answer[0] != YES {
            return Err(another_secret());
        }
        let proof = self.hear(PROOF_BYTES).await.map_err(broke)?;
        match secret.is_proven(&occasions.listens, &proof) {
            true => Ok(()),
            false => Err(another_secret()),
        }
    }

    /// Of the end that listens, which says nothing before it knows who asks.
    async fn prove_second(&mut self, secret: &Secret, occasions: &Occasions) -> Result<()> {
        let proof = self.hear(PROOF_BYTES).await.map_err(broke)?;
        if !secret.is_proven(&occasions.connects, &proof) {
            self.say(&[NO]).await?;
            return Err(another_secret());
        }
        let proof = secret.proof(&occasions.listens);
        self.say(&[&[YES][..], &proof].concat()).await
    }
}
