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
use tidemark_common::STACK_BYTES;
use tidemark_common::memory::Account;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Lanes for each core.
const PER_CORE: usize = 2;

/// The lanes. They end, and their connections with them, when this is dropped.
pub struct Lanes(Vec<Lane>);

struct Lane {
    handle: Handle,
    /// One held for each.
    connections: Account,
    /// The thread ends with it.
    _open: oneshot::Sender<()>,
}

impl Lanes {
    /// Starts them.
    pub fn start() -> io::Result<Lanes> {
        let lanes = (0..PER_CORE * num_cpus::get()).map(|_| Lane::start());
        lanes.collect::<io::Result<_>>().map(Lanes)
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
        self.run(async move {
            match TcpStream::from_std(socket) {
                Ok(socket) => serve(socket).await,
                Err(e) => tracing::warn!(error = %e, "a connection could not be accepted"),
            }
        })
    }

    /// Runs a session on the lane with the fewest others.
    pub fn run(&self, session: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let lane = self.0.iter().min_by_key(|lane| lane.connections.bytes());
        let lane = lane.ok_or_else(|| io::Error::other("there is no lane"))?;
        let counted = lane.connections.hold(1);
        lane.handle.spawn(async move {
            let _counted = counted;
            session.await;
        });
        Ok(())
    }
}

impl Lane {
    fn start() -> io::Result<Lane> {
        let (_open, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("tidemark-sql".into());
        thread.stack_size(STACK_BYTES).spawn(move || {
            // Nothing is ever sent; that there is no sender any more is what is waited for.
            let _ended = runtime.block_on(ended);
        })?;
        Ok(Lane {
            handle,
            connections: Account::default(),
            _open,
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
        let count = 2 * lanes.0.len();
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
        assert_eq!(seen.len(), lanes.0.len());
        assert!(lanes.0.iter().all(|lane| lane.connections.bytes() == 2));
        // Their tasks are dropped with the lanes, and the last sender with them.
        drop((lanes, sender));
        assert_eq!(threads.recv().await, None);
    }
}
