//! Whether a simulated process still lives. What a process holds of the world asks before it has an
//! effect: of one that was killed, nothing happens any more.

use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One process. Cloning shares; a new one lives.
#[derive(Clone, Default)]
pub struct Alive(Arc<Shared>);

#[derive(Default)]
struct Shared {
    dead: AtomicBool,
    then: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Alive {
    /// Whether it was not killed.
    pub fn is_alive(&self) -> bool {
        !self.0.dead.load(Ordering::Relaxed)
    }

    /// Ends it, for ever.
    pub fn kill(&self) {
        self.0.dead.store(true, Ordering::Relaxed);
        let then = std::mem::take(&mut *self.0.then.lock());
        then.into_iter().for_each(|happens| happens());
    }

    /// This happens as soon as it is killed.
    pub fn when_killed(&self, happens: impl FnOnce() + Send + 'static) {
        self.0.then.lock().push(Box::new(happens));
        if !self.is_alive() {
            self.kill();
        }
    }

    /// An error if it was killed.
    pub fn check(&self) -> io::Result<()> {
        match self.is_alive() {
            true => Ok(()),
            false => Err(io::Error::other("the process was killed")),
        }
    }

    /// Whether both are the same process.
    pub fn is(&self, other: &Alive) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alive").field(&self.is_alive()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_stays_dead_for_all_who_ask() {
        let (alive, other) = (Alive::default(), Alive::default());
        let same = alive.clone();
        assert!(alive.is_alive() && alive.check().is_ok());
        assert!(alive.is(&same) && !alive.is(&other));
        alive.kill();
        assert!(!same.is_alive() && same.check().is_err());
        assert!(other.is_alive());
    }

    #[test]
    fn what_is_to_happen_at_the_end_happens_once() {
        let (alive, happened) = (Alive::default(), Arc::new(Mutex::new(0)));
        let count = || {
            let happened = happened.clone();
            move || *happened.lock() += 1
        };
        alive.when_killed(count());
        assert_eq!(*happened.lock(), 0);
        alive.kill();
        alive.kill();
        assert_eq!(*happened.lock(), 1);
        alive.when_killed(count());
        assert_eq!(*happened.lock(), 2, "it is dead already");
    }
}
