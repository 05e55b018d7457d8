//! Where sessions run: [`Lanes`], threads that have an event loop each.
//!
//! A connection stays on the lane that it was given to, the one with the fewest. A runtime that
//! moves tasks between its threads wakes another thread for nearly every message, which was an
//! eighth of the processor time of a lookup by key; here a message is read, answered and sent by
//! one thread that nobody has to wake but its own socket.
//!
//! What takes long is not done here: statements are planned and queries run on threads of their
//! own. What is done at a stretch (a short text parsed, 64 KiB of rows encoded) holds up the other
//! connections of its lane only, and there are more lanes than cores, among which the kernel
//! shares.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_common::STACK_BYTES;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Lanes for each core.
const PER_CORE: usize = 2;

/// The lanes. They end, and their connections with them, when this is dropped.
pub struct Lanes {
    lanes: Vec<Lane>,
    _open: watch::Sender<()>,
}

struct Lane {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection until it ends.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// Starts them.
    pub fn start() -> io::Result<Lanes> {
        let (_open, ended) = watch::channel(());
        let lanes = (0..PER_CORE * num_cpus::get()).map(|_| Lane::start(ended.clone()));
        Ok(Lanes {
            lanes: lanes.collect::<io::Result<_>>()?,
            _open,
        })
    }

    /// Has `serve` speak with a client who has just come, on the lane with the fewest others.
    pub fn give<F>(
        &self,
        socket: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // From one event loop to another.
        let socket = socket.into_std()?;
        let connections = |lane: &&Lane| lane.connections.load(Ordering::Relaxed);
        let Some(lane) = self.lanes.iter().min_by_key(connections) else {
            return Ok(());
        };
        lane.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(lane.connections.clone());
        lane.handle.spawn(async move {
            let _counted = counted;
            match TcpStream::from_std(socket) {
                Ok(socket) => serve(socket).await,
                Err(e) => tracing::warn!(error = %e, "a connection could not be accepted"),
            }
        });
        Ok(())
    }
}

impl Lane {
    /// A thread that runs until the sender of `ended` is gone.
    fn start(mut ended: watch::Receiver<()>) -> io::Result<Lane> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("tidemark-sql".into());
        thread.stack_size(STACK_BYTES).spawn(move || {
            // An error says that there is no sender any more; nothing is ever sent.
            while runtime.block_on(ended.changed()).is_ok() {}
        })?;
        Ok(Lane {
            handle,
            connections: Arc::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread::ThreadId;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn connections_are_spread_over_lanes_and_end_with_them() {
        let lanes = Lanes::start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, mut threads) = mpsc::unbounded_channel::<ThreadId>();
        let mut clients = Vec::new();
        let count = 2 * lanes.lanes.len();
        for _ in 0..count {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await);
            let (socket, sender) = (listener.accept().await.unwrap().0, sender.clone());
            let serve = move |socket: TcpStream| async move {
                sender.send(std::thread::current().id()).unwrap();
                // For as long as the client stays.
                let _ = socket.readable().await;
            };
            lanes.give(socket, serve).unwrap();
        }
        let mut seen = HashSet::new();
        for _ in 0..count {
            seen.insert(threads.recv().await.unwrap());
        }
        assert_eq!(seen.len(), lanes.lanes.len());
        let each = |lane: &Lane| lane.connections.load(Ordering::Relaxed) == 2;
        assert!(lanes.lanes.iter().all(each));
        // Their tasks are dropped with the lanes, and the last sender with them.
        drop((lanes, sender));
        assert_eq!(threads.recv().await, None);
    }
}
