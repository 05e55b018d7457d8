//! How much work the parsing of one statement may be.
//!
//! Where a text may mean two things, the parser reads it as one and, if that fails, from the same
//! place as the other: `floor(` as a special form and then as a call, `((SELECT` after FROM as a
//! query and then as a join. Nested in each other, each level doubles the work, so it is counted in
//! steps: an expression begun, a SELECT begun. A statement that is read once has fewer steps than
//! tokens.
//!
//! The parser's methods that count cannot all fail, and where they can, the failure of one reading
//! is what starts the other. So the end of the steps unwinds the parser, up to [`within`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tidemark_common::{Error, Result, SqlState, check_interrupt};

/// Steps of a statement, whatever its length.
const STEPS_MIN: usize = 10_000;
/// More steps for each token.
const STEPS_PER_TOKEN: usize = 50;

thread_local! {
    /// Steps that are left to the parsing on this thread; none are counted outside of [`within`].
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What unwinds: the steps are used up, or nobody waits for the statement.
struct Ended(Error);

/// Runs the parsing of a statement of so many tokens. Errors, besides its own: `54001` when it
/// takes too many steps, `57014` when nobody waits for it any more.
pub(crate) fn within<T>(tokens: usize, parse: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Reset(Option<usize>);
    impl Drop for Reset {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let steps = STEPS_MIN.saturating_add(tokens.saturating_mul(STEPS_PER_TOKEN));
    let _reset = Reset(LEFT.replace(Some(steps)));
    // The parser is not used again after it has been unwound.
    match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(outcome) => outcome,
        Err(panic) => match panic.downcast::<Ended>() {
            Ok(ended) => Err(ended.0),
            Err(panic) => resume_unwind(panic),
        },
    }
}

/// Counts a step of the parser.
pub(crate) fn step() {
    let Some(left) = LEFT.get() else {
        return;
    };
    let outcome = match left.checked_sub(1) {
        Some(left) => {
            LEFT.set(Some(left));
            check_interrupt()
        }
        None => Err(Error::user(
            SqlState::STATEMENT_TOO_COMPLEX,
            "statement too complex: its parts can be read in too many ways",
        )
        .with_hint("Nest less of it in each other, or use views for its parts.")),
    };
    if let Err(e) = outcome {
        // Unlike a panic, this is not reported as one.
        resume_unwind(Box::new(Ended(e)));
    }
}
