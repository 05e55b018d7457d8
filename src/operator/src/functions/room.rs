//! Room for values while they are made. Who evaluates for a query lends its memory with
//! [`with_room`]; a function that is about to make something large takes room there before it
//! does, and ends with the query's `53200` where there is none. What it took is given back by who
//! lent it, when the values have been looked at: what is made of a value on the way is held for as
//! long.
//!
//! What is small is not counted: of many rows a step is computed at a time, which is held against a
//! limit of its own ([`super::within`]).

use super::definition::external;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tidemark_common::Result;

/// Memory that values may take.
pub trait Room: Send + Sync {
    /// Takes so many bytes more; an error if they are not there.
    fn take(&self, bytes: u64) -> Result<()>;
}

/// Bytes of one call's values that are not counted.
const UNCOUNTED: u64 = 2 << 20;

/// A value is there more than once while it is made: in a buffer that grows, and as what becomes
/// of it.
const COPIES: u64 = 2;

thread_local! {
    static ROOM: RefCell<Option<Arc<dyn Room>>> = const { RefCell::new(None) };
    /// What the call that is evaluated has taken.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// Runs `f`, in which values take what they need from `room`.
pub fn with_room<T>(room: Arc<dyn Room>, f: impl FnOnce() -> T) -> T {
    struct Reset(Option<Arc<dyn Room>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            ROOM.set(self.0.take());
        }
    }
    let _reset = Reset(ROOM.replace(Some(room)));
    begin();
    f()
}

/// Another call begins.
pub(super) fn begin() {
    TAKEN.set(0);
}

/// The call makes so many bytes in all, or will.
pub(super) fn hold(bytes: u64) -> Result<()> {
    let taken = TAKEN.get();
    if bytes <= UNCOUNTED || bytes <= taken {
        return Ok(());
    }
    let room = ROOM.with_borrow(Clone::clone);
    if let Some(room) = room {
        // Of what grows piece by piece, a little ahead.
        let ahead = bytes.saturating_add(bytes / 8);
        let more = |bytes: u64| room.take(COPIES.saturating_mul(bytes - taken));
        if taken > 0 && more(ahead).is_ok() {
            TAKEN.set(ahead);
            return Ok(());
        }
        more(bytes)?;
    }
    TAKEN.set(bytes);
    Ok(())
}

/// Takes room for what a caller puts together of several calls' values.
pub fn take_room(bytes: u64) -> datafusion_common::Result<()> {
    let room = ROOM.with_borrow(Clone::clone);
    room.map_or(Ok(()), |room| room.take(COPIES.saturating_mul(bytes)))
        .map_err(external)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::{check_bytes, is_too_large};
    use std::sync::atomic::{AtomicU64, Ordering};
    use tidemark_common::{Error, SqlState};

    struct Some(AtomicU64);

    impl Room for Some {
        fn take(&self, bytes: u64) -> Result<()> {
            let taken = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(bytes)
                });
            let refused = |_| Error::user(SqlState::OUT_OF_MEMORY, "out of memory");
            taken.map(|_| ()).map_err(refused)
        }
    }

    #[test]
    fn what_is_large_takes_room_before_it_is_made() {
        const MB: u64 = 1 << 20;
        let room = Arc::new(Some(AtomicU64::new(100 * MB)));
        with_room(room.clone(), || {
            check_bytes(2 * MB).unwrap();
            assert_eq!(room.0.load(Ordering::Relaxed), 100 * MB);
            check_bytes(20 * MB).unwrap();
            assert_eq!(room.0.load(Ordering::Relaxed), 60 * MB);
            check_bytes(10 * MB).unwrap();
            check_bytes(24 * MB).unwrap();
            assert_eq!(room.0.load(Ordering::Relaxed), 46 * MB, "27 MB, twice");
            check_bytes(50 * MB).unwrap();
            assert_eq!(room.0.load(Ordering::Relaxed), 0);
            let refused = check_bytes(51 * MB).unwrap_err();
            assert!(!is_too_large(&refused), "fewer rows would not help");
            begin();
            assert!(check_bytes(3 * MB).is_err());
        });
        check_bytes(500 * MB).unwrap();
    }
}
