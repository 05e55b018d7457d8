//! Whether a simulated process still lives. What a process holds of the world asks before it has an
//! effect: of one that was killed, nothing happens any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One process. Cloning shares; a new one lives.
#[derive(Clone, Debug, Default)]
pub struct Alive {
    dead: Arc<AtomicBool>,
}

impl Alive {
    /// Whether it was not killed.
    pub fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    /// Ends it, for ever.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
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
        Arc::ptr_eq(&self.dead, &other.dead)
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
}
