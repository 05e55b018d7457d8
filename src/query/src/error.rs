//! Errors and notices. DataFusion's errors become ours by the planner's translation. Our own errors
//! travel through DataFusion as `External` and come out unchanged.

use arrow::error::ArrowError;
use tidemark_common::{Error, SqlState};

pub use tidemark_planner::{from_datafusion, from_planning};

/// Arrow's error as ours.
pub fn from_arrow(error: ArrowError) -> Error {
    tidemark_plan::messages::arrow_error(&error)
}

/// A message that is not an error: severity `NOTICE`, `WARNING` or `INFO`.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Severity in upper case.
    pub severity: &'static str,
    /// SQLSTATE, `00000` for plain information.
    pub state: SqlState,
    /// The text.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Notice {
    /// A plain NOTICE.
    pub fn new(message: impl Into<String>) -> Notice {
        Notice {
            severity: "NOTICE",
            state: SqlState("00000"),
            message: message.into(),
            hint: None,
        }
    }

    /// A NOTICE with a code.
    pub fn with_state(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            state,
            ..Notice::new(message)
        }
    }

    /// A WARNING.
    pub fn warning(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            severity: "WARNING",
            state,
            ..Notice::new(message)
        }
    }
}
