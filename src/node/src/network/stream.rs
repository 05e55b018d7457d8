//! A link as a stream of bytes: [`LinkStream`]. What is written at a time is a frame, and where
//! frames end means nothing to who reads.
//!
//! A frame is on its way while the next one is being written; a flush waits until it has been sent.
//! The stream ends for the other side when it is shut down, or dropped.

use bytes::{Buf, Bytes, BytesMut};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tidemark_common::network::{Link, LinkReceiver, LinkSender};
use tidemark_common::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a frame at most.
const FRAME_BYTES: usize = 256 << 10;

type Sender = Box<dyn LinkSender>;
type Receiver = Box<dyn LinkReceiver>;
type Receiving = dyn Future<Output = (Receiver, Result<Option<Bytes>>)> + Send;
type Sending = dyn Future<Output = (Sender, Result<()>)> + Send;

/// See the module.
pub struct LinkStream {
    reads: Reads,
    /// Arrived, and not read.
    heard: Bytes,
    writes: Writes,
}

enum Reads {
    Idle(Receiver),
    Waits(Pin<Box<Receiving>>),
    /// The other side sends no more, or the link is broken.
    Ended,
}

enum Writes {
    Idle(Sender),
    Sends(Pin<Box<Sending>>),
    /// Shut down, or the link is broken.
    Ended,
}

impl LinkStream {
    /// Over a link on which nothing else is said from now on.
    pub fn new(link: Link) -> LinkStream {
        LinkStream {
            reads: Reads::Idle(link.receiver),
            heard: Bytes::new(),
            writes: Writes::Idle(link.sender),
        }
    }

    /// Waits for the next byte, which is still to be read; none at the end.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        std::future::poll_fn(|cx| self.poll_heard(cx)).await?;
        Ok(self.heard.first().copied())
    }

    /// Waits until something has been heard, or nothing more will be.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.heard.is_empty() {
            match std::mem::replace(&mut self.reads, Reads::Ended) {
                Reads::Ended => break,
                Reads::Idle(mut receiver) => {
                    self.reads = Reads::Waits(Box::pin(async move {
                        let received = receiver.receive().await;
                        (receiver, received)
                    }));
                }
                Reads::Waits(mut waits) => match waits.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.reads = Reads::Waits(waits);
                        return Poll::Pending;
                    }
                    Poll::Ready((receiver, received)) => {
                        if let Some(frame) = received.map_err(broken)? {
                            self.heard = frame;
                            self.reads = Reads::Idle(receiver);
                        }
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the frame on its way has been sent.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Writes::Sends(sends) = &mut self.writes {
            let (sender, sent) = ready!(sends.as_mut().poll(cx));
            self.writes = Writes::Ended;
            sent.map_err(broken)?;
            self.writes = Writes::Idle(sender);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts a frame on its way, when the one before has been sent.
    fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
        frame: impl FnOnce() -> Bytes,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let Writes::Idle(mut sender) = std::mem::replace(&mut self.writes, Writes::Ended) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let frame = frame();
        let length = frame.len();
        self.writes = Writes::Sends(Box::pin(async move {
            let sent = sender.send(frame).await;
            (sender, sent)
        }));
        // It sets out now; when it has arrived, or why it has not, is for whoever comes next.
        match self.poll_sent(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(length)),
        }
    }
}

fn broken(e: Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, e)
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_heard(cx))?;
        let length = buffer.remaining().min(self.heard.len());
        buffer.put_slice(&self.heard[..length]);
        self.heard.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(FRAME_BYTES);
        self.poll_begin(cx, || Bytes::copy_from_slice(&bytes[..length]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_begin(cx, || {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            let mut frame = BytesMut::with_capacity(length.min(FRAME_BYTES));
            for part in parts {
                let room = FRAME_BYTES - frame.len();
                frame.extend_from_slice(&part[..part.len().min(room)]);
            }
            frame.freeze()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        self.writes = Writes::Ended;
        Poll::Ready(Ok(()))
    }
}
