//! Planning that nobody waits for any more: a flag of the thread that plans. Whoever started the
//! planning sets it; what may take long on the way looks at it and ends.

use crate::{Error, Result, SqlState};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `f`; [`check_interrupt`] fails in it on this thread once `stop` is set.
pub fn interruptible<T>(stop: Arc<AtomicBool>, f: impl FnOnce() -> T) -> T {
    struct Reset(Option<Arc<AtomicBool>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            STOP.set(self.0.take());
        }
    }
    let _reset = Reset(STOP.replace(Some(stop)));
    f()
}

/// `57014` when nobody waits any more for what this thread plans.
pub fn check_interrupt() -> Result<()> {
    let stop = STOP.with_borrow(|stop| stop.as_ref().is_some_and(|s| s.load(Ordering::Relaxed)));
    if stop {
        return Err(Error::user(
            SqlState::QUERY_CANCELED,
            "canceling statement due to user request",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_plans_learns_that_nobody_waits() {
        let stop = Arc::new(AtomicBool::new(false));
        interruptible(stop.clone(), || {
            assert!(check_interrupt().is_ok());
            stop.store(true, Ordering::Relaxed);
            assert_eq!(
                check_interrupt().unwrap_err().state(),
                SqlState::QUERY_CANCELED
            );
        });
        assert!(check_interrupt().is_ok());
    }
}
