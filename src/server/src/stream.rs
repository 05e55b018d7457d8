//! The streams of bytes that clients come in on: a socket of this node, or a link to the node that
//! their socket is at; each with or without TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tidemark_node::network::LinkStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// See the module.
pub enum ClientStream {
    /// A socket of this node.
    Near(TcpStream),
    /// The same, with TLS.
    NearTls(Box<TlsStream<TcpStream>>),
    /// A link.
    Far(Box<LinkStream>),
    /// The same, with TLS between the client and this node.
    FarTls(Box<TlsStream<LinkStream>>),
}

impl ClientStream {
    /// Whether nobody on the way can read along.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, ClientStream::NearTls(_) | ClientStream::FarTls(_))
    }
}

/// What a client arrives on, before it is known whether it wants TLS.
pub trait Arrival: AsyncRead + AsyncWrite + Send + Unpin + Sized {
    /// Waits for the first byte, which is still to be read; none if the client has left.
    fn peek_first(&mut self) -> impl Future<Output = io::Result<Option<u8>>> + Send;
    /// It goes on as it is.
    fn plain(self) -> ClientStream;
    /// It goes on in this session.
    fn encrypted(session: TlsStream<Self>) -> ClientStream;
}

impl Arrival for TcpStream {
    async fn peek_first(&mut self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let seen = self.peek(&mut first).await?;
        Ok((seen > 0).then_some(first[0]))
    }

    fn plain(self) -> ClientStream {
        ClientStream::Near(self)
    }

    fn encrypted(session: TlsStream<TcpStream>) -> ClientStream {
        ClientStream::NearTls(Box::new(session))
    }
}

impl Arrival for LinkStream {
    async fn peek_first(&mut self) -> io::Result<Option<u8>> {
        self.peek().await
    }

    fn plain(self) -> ClientStream {
        ClientStream::Far(Box::new(self))
    }

    fn encrypted(session: TlsStream<LinkStream>) -> ClientStream {
        ClientStream::FarTls(Box::new(session))
    }
}

macro_rules! pass_on {
    ($stream:expr, $poll:ident($($given:expr),*)) => {
        match $stream.get_mut() {
            ClientStream::Near(stream) => Pin::new(stream).$poll($($given),*),
            ClientStream::NearTls(stream) => Pin::new(stream).$poll($($given),*),
            ClientStream::Far(stream) => Pin::new(stream).$poll($($given),*),
            ClientStream::FarTls(stream) => Pin::new(stream).$poll($($given),*),
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pass_on!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        pass_on!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pass_on!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pass_on!(self, poll_shutdown(cx))
    }
}
