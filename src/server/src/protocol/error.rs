//! Errors and notices on their way to the client: the fields of their messages.

use pgwire::error::ErrorInfo;
use tidemark_common::Error;
use tidemark_query::error::Notice;

/// The fields of the NoticeResponse.
pub fn notice_info(notice: Notice) -> ErrorInfo {
    let severity = notice.severity;
    let mut info = ErrorInfo::new(severity.into(), notice.state.0.into(), notice.message);
    info.severity_nonlocalized = Some(severity.into());
    info.hint = notice.hint;
    info
}

/// The fields of the ErrorResponse; `severity` is `ERROR` or `FATAL`.
pub fn info(error: &Error, severity: &str) -> ErrorInfo {
    let mut info = ErrorInfo::new(
        severity.into(),
        error.state().0.into(),
        error.message().into(),
    );
    info.severity_nonlocalized = Some(severity.into());
    info.detail = error.detail().map(Into::into);
    info.hint = error.hint().map(Into::into);
    info.position = error.position().map(|p| p.to_string());
    info
}
