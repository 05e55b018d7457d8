//! How nodes reach each other: links of whole frames, behind traits, so that a simulation can be
//! the network between them.
//!
//! A link is a connection of two nodes. Frames arrive whole, in order, and once each, as long as it
//! lives. A link that breaks (either end is dropped, a node dies, the network fails) stays broken:
//! of the frames that were sent last nobody knows which arrived, and whoever needs more takes a new
//! link. A receiver that takes nothing makes the sender wait.

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;

/// A frame is not larger than this, in bytes; a larger one is refused by its sender.
pub const FRAME_BYTES_MAX: usize = 80 << 20;

/// The way to other nodes.
#[async_trait]
pub trait Network: Send + Sync {
    /// Takes links at this address (`host:port`) from now on.
    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>>;
    /// A link to the node that listens at this address.
    ///
    /// Errors: of kind `Unavailable` if nobody is there who may be; it may help to try again.
    async fn connect(&self, address: &str) -> Result<Link>;
}

/// Where links arrive.
#[async_trait]
pub trait Listener: Send {
    /// The next link. Whoever may not be here is sent away, and not told of.
    async fn accept(&mut self) -> Result<Link>;
}

/// The two directions of a link; it breaks when both are dropped.
pub struct Link {
    /// To the other end.
    pub sender: Box<dyn LinkSender>,
    /// From the other end.
    pub receiver: Box<dyn LinkReceiver>,
    /// The address of the other end, to be told to people.
    pub peer: String,
}

/// Sends frames.
#[async_trait]
pub trait LinkSender: Send {
    /// Sends one; waits while the other end takes none. Dropping the future before it is ready
    /// breaks the link.
    ///
    /// Errors: the link is broken.
    async fn send(&mut self, frame: Bytes) -> Result<()>;
}

/// Receives frames.
#[async_trait]
pub trait LinkReceiver: Send {
    /// The next one; none when the other end has dropped its sender. Dropping the future loses
    /// nothing.
    ///
    /// Errors: the link is broken.
    async fn receive(&mut self) -> Result<Option<Bytes>>;
}
