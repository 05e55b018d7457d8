//! The evaluator's errors in PostgreSQL's words and codes.

use datafusion_common::DataFusionError;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::messages::{arrow_error, plain};

/// SQLSTATE and message of an error that is the row's own; an error of ours when no row could ever
/// be evaluated.
pub(super) fn row_message(error: &DataFusionError) -> Result<(&'static str, String)> {
    let of_row = |e: &Error| (e.state().0, e.message().to_string());
    match error.find_root() {
        DataFusionError::ArrowError(arrow, _) => Ok(of_row(&arrow_error(arrow))),
        DataFusionError::External(inner) => Ok(match inner.downcast_ref::<Error>() {
            Some(own) => of_row(own),
            None => (SqlState::INVALID_PARAMETER.0, plain(&inner.to_string())),
        }),
        DataFusionError::Internal(message) => Err(Error::internal(format!(
            "an expression cannot be evaluated: {}",
            plain(message)
        ))),
        other => Ok((
            SqlState::INVALID_PARAMETER.0,
            plain(&other.strip_backtrace()),
        )),
    }
}
