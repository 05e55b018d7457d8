//! Frames on a stream of bytes: the length, four bytes little-endian, and as many bytes.
//!
//! What the other end claims costs nothing: memory grows with what has arrived, and a length above
//! [`FRAME_BYTES_MAX`] ends the link. Dropping the sender ends the stream in good order, in the
//! background; a frame that was not sent to its end, because its future was dropped, is the last
//! one, and the other end finds it cut.

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::network::{FRAME_BYTES_MAX, Link, LinkReceiver, LinkSender};
use tidemark_common::{Error, Result, SqlState, machine};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

const HEADER_BYTES: usize = 4;
/// Bytes that are read at a time, at least.
const READ_BYTES: usize = 64 << 10;
/// Frames below this size, in bytes, are copied out of what was read: they may be kept for long,
/// and would keep what came with them.
const COPIED_BYTES: usize = 16 << 10;
/// How long the end of a stream may take to be sent.
const FAREWELL: Duration = Duration::from_secs(5);

/// A link over two directions of bytes; `heard` has arrived before.
pub fn link(
    read: impl AsyncRead + Send + Unpin + 'static,
    write: impl AsyncWrite + Send + Unpin + 'static,
    heard: BytesMut,
    peer: String,
) -> Link {
    let name: Arc<str> = peer.as_str().into();
    Link {
        sender: Box::new(FrameSender {
            open: Some((write, end_in_background())),
            whole: true,
            peer: name.clone(),
        }),
        receiver: Box::new(FrameReceiver {
            read,
            heard,
            broken: false,
            peer: name,
        }),
        peer,
    }
}

/// Where a stream is given that is to be ended; by a task that waits, since who drops a sender may
/// have nowhere to start one.
fn end_in_background<W: AsyncWrite + Send + Unpin + 'static>() -> oneshot::Sender<W> {
    let (end, given) = oneshot::channel::<W>();
    machine::spawn(async move {
        if let Ok(mut write) = given.await {
            // If it cannot be sent, the other end has found out or will.
            let _ = machine::timeout(FAREWELL, write.shutdown()).await;
        }
    });
    end
}

fn broken(peer: &str, why: impl std::fmt::Display) -> Error {
    let message = format!("the link to {peer} broke: {why}");
    Error::unavailable(SqlState::CONNECTION_FAILURE, message)
}

struct FrameSender<W: AsyncWrite + Send + Unpin + 'static> {
    /// The stream, and where it is given in the end; none when it has been.
    open: Option<(W, oneshot::Sender<W>)>,
    /// All frames so far have been sent to their ends.
    whole: bool,
    peer: Arc<str>,
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin + 'static> LinkSender for FrameSender<W> {
    async fn send(&mut self, frame: Bytes) -> Result<()> {
        if frame.len() > FRAME_BYTES_MAX {
            let message = format!("a frame of {} bytes, above {FRAME_BYTES_MAX}", frame.len());
            return Err(Error::internal(message));
        }
        let Some((write, _)) = self.open.as_mut().filter(|_| self.whole) else {
            return Err(broken(&self.peer, "a frame was not sent to its end"));
        };
        self.whole = false;
        let header = (frame.len() as u32).to_le_bytes();
        let sent = async {
            write
                .write_all_buf(&mut Buf::chain(&header[..], frame))
                .await?;
            write.flush().await
        };
        sent.await.map_err(|e| broken(&self.peer, e))?;
        self.whole = true;
        Ok(())
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Drop for FrameSender<W> {
    fn drop(&mut self) {
        if let Some((write, end)) = self.open.take() {
            let _ = end.send(write);
        }
    }
}

struct FrameReceiver<R> {
    read: R,
    /// Arrived, and not taken.
    heard: BytesMut,
    broken: bool,
    peer: Arc<str>,
}

impl<R: AsyncRead + Send + Unpin> FrameReceiver<R> {
    /// The length of the frame that is arriving, if that much is known.
    fn length(&self) -> Result<Option<usize>, String> {
        let Some(header) = self.heard.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        match u32::from_le_bytes(*header) as usize {
            length if length <= FRAME_BYTES_MAX => Ok(Some(length)),
            length => Err(format!(
                "it sends a frame of {length} bytes, above {FRAME_BYTES_MAX}"
            )),
        }
    }

    /// Takes the first frame, whose length that is, out of what has arrived.
    fn take(&mut self, length: usize) -> Bytes {
        self.heard.advance(HEADER_BYTES);
        if length >= COPIED_BYTES {
            return self.heard.split_to(length).freeze();
        }
        let frame = Bytes::copy_from_slice(&self.heard[..length]);
        self.heard.advance(length);
        frame
    }

    /// Dropped where it waits, it leaves everything in `heard`.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let (arrived, length) = (self.heard.len(), self.length()?);
            let whole = HEADER_BYTES + length.unwrap_or(0);
            if length.is_some() && arrived >= whole {
                return Ok(Some(self.take(whole - HEADER_BYTES)));
            }
            // At most as much again as has arrived.
            let missing = whole.saturating_sub(arrived).min(arrived);
            self.heard.reserve(missing.max(READ_BYTES));
            match self.read.read_buf(&mut self.heard).await {
                Ok(0) if arrived == 0 => return Ok(None),
                Ok(0) => return Err("it ended within a frame".into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err("its process has gone".into());
                }
                Err(e) => return Err(e.to_string()),
            }
        }
    }
}

#[async_trait]
impl<R: AsyncRead + Send + Unpin> LinkReceiver for FrameReceiver<R> {
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        if self.broken {
            return Err(broken(&self.peer, "it could not be read from before"));
        }
        let next = self.next().await;
        self.broken = next.is_err();
        next.map_err(|why| broken(&self.peer, why))
    }
}
