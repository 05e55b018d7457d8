//! How a thread takes in what others send it: a [`mailbox`] it reads, and a [`Signal`] that it
//! waits for beside a lock. Within one process they are a channel and a condition; in a simulation,
//! where no thread may really wait, the one who sends rings a bell.

use crate::machine;
use crossbeam_channel as channel;
use parking_lot::{Condvar, MutexGuard};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// There is nothing now.
    Yet,
    /// All who could send are gone.
    ForEver,
}

/// All receivers are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Sends to a mailbox. Cloning is cheap.
pub struct Sender<T> {
    channel: channel::Sender<T>,
    bell: Option<Arc<Notify>>,
}

/// Reads a mailbox; for one thread.
pub struct Receiver<T> {
    channel: channel::Receiver<T>,
    bell: Option<Arc<Notify>>,
}

/// A mailbox without limit.
pub fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::unbounded();
    let bell = machine::is_simulated().then(|| Arc::new(Notify::new()));
    let sender = Sender {
        channel: sender,
        bell: bell.clone(),
    };
    let receiver = Receiver {
        channel: receiver,
        bell,
    };
    (sender, receiver)
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            channel: self.channel.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<T> Sender<T> {
    /// Sends; what comes from one sender comes in order.
    pub fn send(&self, message: T) -> Result<(), Gone> {
        self.channel.send(message).map_err(|_| Gone)?;
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // It may be the last one.
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// The next message, if it is there.
    pub fn try_recv(&self) -> Result<T, Empty> {
        self.channel.try_recv().map_err(|e| match e {
            channel::TryRecvError::Empty => Empty::Yet,
            channel::TryRecvError::Disconnected => Empty::ForEver,
        })
    }

    /// Whether there is none now.
    pub fn is_empty(&self) -> bool {
        self.channel.is_empty()
    }

    /// Waits for the next message, until then at most.
    pub fn recv_until(&self, deadline: Option<Instant>) -> Result<T, Empty> {
        let Some(bell) = &self.bell else {
            return match deadline {
                Some(deadline) => self.channel.recv_deadline(deadline).map_err(|e| match e {
                    channel::RecvTimeoutError::Timeout => Empty::Yet,
                    channel::RecvTimeoutError::Disconnected => Empty::ForEver,
                }),
                None => self.channel.recv().map_err(|_| Empty::ForEver),
            };
        };
        loop {
            match self.try_recv() {
                Err(Empty::Yet) if deadline.is_some_and(|at| at <= machine::now()) => {
                    return Err(Empty::Yet);
                }
                Err(Empty::Yet) => ring_until(bell.notified(), deadline),
                received => return received,
            }
        }
    }
}

/// Something that a thread waits for changed. Those who wait hold the lock of what they look at,
/// as with a condition variable.
#[derive(Default)]
pub struct Signal {
    condition: Condvar,
    bell: Notify,
}

impl Signal {
    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.condition.notify_all();
        self.bell.notify_waiters();
    }

    /// Gives the lock away, waits, and has it again.
    pub fn wait<T>(&self, lock: &mut MutexGuard<'_, T>) {
        self.wait_until(lock, None);
    }

    /// The same, until then at most. Whoever is woken looks again, and at the time.
    pub fn wait_until<T>(&self, lock: &mut MutexGuard<'_, T>, deadline: Option<Instant>) {
        if machine::is_simulated() {
            let mut rung = pin!(self.bell.notified());
            rung.as_mut().enable();
            MutexGuard::unlocked(lock, || ring_until(rung, deadline));
            return;
        }
        match deadline {
            Some(deadline) => drop(self.condition.wait_until(lock, deadline)),
            None => self.condition.wait(lock),
        }
    }
}

fn ring_until(rung: impl Future<Output = ()>, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => {
            let left = deadline.saturating_duration_since(machine::now());
            machine::block_on(machine::timeout(left, rung));
        }
        None => machine::block_on(rung),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::time::Duration;

    #[test]
    fn messages_of_one_sender_come_in_order_and_an_end_is_told() {
        let (sender, receiver) = mailbox();
        assert_eq!(receiver.try_recv(), Err(Empty::Yet));
        assert_eq!(
            receiver.recv_until(Some(machine::now())),
            Err::<u32, _>(Empty::Yet)
        );
        let other = sender.clone();
        let sends = std::thread::spawn(move || (0..100).try_for_each(|i| other.send(i)));
        let received: Vec<u32> = (0..100)
            .map(|_| receiver.recv_until(None).unwrap())
            .collect();
        assert_eq!(received, (0..100).collect::<Vec<u32>>());
        assert_eq!(sends.join().unwrap(), Ok(()));
        drop(sender);
        assert_eq!(receiver.recv_until(None), Err(Empty::ForEver));
        assert_eq!(receiver.try_recv(), Err(Empty::ForEver));
    }

    #[test]
    fn a_signal_wakes_who_waits() {
        let shared = Arc::new((Mutex::new(false), Signal::default()));
        let other = shared.clone();
        let waits = std::thread::spawn(move || {
            let mut lock = other.0.lock();
            while !*lock {
                other.1.wait(&mut lock);
            }
        });
        *shared.0.lock() = true;
        shared.1.notify_all();
        waits.join().unwrap();
        let late = machine::now() + Duration::from_millis(1);
        shared.1.wait_until(&mut shared.0.lock(), Some(late));
        assert!(machine::now() >= late);
    }
}
