//! PostgreSQL's refusals, with its codes and its words.

use tidemark_common::{Error, SqlState};

const BAD_FORMAT: SqlState = SqlState("22007");
const OVERFLOW: SqlState = SqlState("22008");
const INTERVAL_OVERFLOW: SqlState = SqlState("22015");
const ZONE_OVERFLOW: SqlState = SqlState("22009");

/// Why a text is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not written as one.
    Format,
    /// A field is too large.
    Field,
    /// A month or a day is too large; the order of the fields may be another.
    MonthOrDay,
    /// A time zone too far from UTC.
    Displacement,
    /// No such time zone.
    Zone(String),
}

impl Failure {
    /// The error for `text` read as a `type_name`.
    #[cold]
    pub(super) fn error(self, text: &str, type_name: &str) -> Error {
        let field = format!("date/time field value out of range: \"{text}\"");
        match self {
            Failure::Format => syntax(text, type_name),
            Failure::Field if type_name == "interval" => Error::user(
                INTERVAL_OVERFLOW,
                format!("interval field value out of range: \"{text}\""),
            ),
            Failure::Field => Error::user(OVERFLOW, field),
            Failure::MonthOrDay => Error::user(OVERFLOW, field)
                .with_hint("Perhaps you need a different \"datestyle\" setting."),
            Failure::Displacement => Error::user(
                ZONE_OVERFLOW,
                format!("time zone displacement out of range: \"{text}\""),
            ),
            Failure::Zone(name) => zone_unknown(&name),
        }
    }
}

#[cold]
pub(super) fn syntax(text: &str, type_name: &str) -> Error {
    Error::user(
        BAD_FORMAT,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

#[cold]
pub(super) fn zone_unknown(name: &str) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER,
        format!("time zone \"{name}\" not recognized"),
    )
}

/// `22008` with any message.
#[cold]
pub(super) fn overflow(message: impl Into<String>) -> Error {
    Error::user(OVERFLOW, message)
}

#[cold]
pub(super) fn timestamp_out_of_range() -> Error {
    overflow("timestamp out of range")
}

#[cold]
pub(super) fn date_out_of_range() -> Error {
    overflow("date out of range")
}

#[cold]
pub(super) fn interval_out_of_range() -> Error {
    overflow("interval out of range")
}

/// `22023` with any message.
#[cold]
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, message)
}
