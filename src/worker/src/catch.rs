//! A broken invariant is the failure of what ran into it, of a job or of a sink's delivery, and of
//! nothing beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tidemark_common::{Error, Result};

/// Runs `run`, not within an operator: the work of an actor that is dropped ends by unwinding,
/// which nobody may stop. Returns `run`'s outcome; `XX000` with the panic's text if it panics. What
/// it was changing is given up by whoever called.
pub fn catch<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        Err(Error::internal(format!("internal error: {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_text() {
        assert_eq!(catch(|| Ok(1)).unwrap(), 1);
        let number = 7;
        let error = catch::<()>(|| panic!("not {number}")).unwrap_err();
        assert_eq!(error.message(), "internal error: not 7");
        let error = catch::<()>(|| panic!("never")).unwrap_err();
        assert_eq!(
            (error.state().0, error.message()),
            ("XX000", "internal error: never")
        );
    }
}
