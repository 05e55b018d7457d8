//! The error that reaches a person: what to do (kind), the SQLSTATE set where the error is born, a
//! message in lower case without full stop, and detail and hint as sentences. Logged where it is
//! handled, not where it is passed on.

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A five-character PostgreSQL error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SqlState(pub &'static str);

/// Codes that were heard from other nodes. There are some hundred codes in the world.
static HEARD: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Codes that are heard beyond this are those of broken invariants: nobody makes up so many.
const HEARD_MAX: usize = 2000;

impl<'de> Deserialize<'de> for SqlState {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<SqlState, D::Error> {
        let code = String::deserialize(from)?;
        let mut heard = HEARD.lock();
        if let Some(known) = heard.get(code.as_str()) {
            return Ok(SqlState(known));
        }
        if code.len() != 5 || heard.len() >= HEARD_MAX {
            return Ok(SqlState::INTERNAL);
        }
        let code: &'static str = code.leak();
        heard.insert(code);
        Ok(SqlState(code))
    }
}

/// The codes in use, by PostgreSQL's names.
#[allow(missing_docs)]
impl SqlState {
    pub const SYNTAX_ERROR: SqlState = SqlState("42601");
    pub const UNDEFINED_TABLE: SqlState = SqlState("42P01");
    pub const UNDEFINED_COLUMN: SqlState = SqlState("42703");
    pub const UNDEFINED_FUNCTION: SqlState = SqlState("42883");
    pub const UNDEFINED_OBJECT: SqlState = SqlState("42704");
    pub const DUPLICATE_OBJECT: SqlState = SqlState("42710");
    pub const DUPLICATE_TABLE: SqlState = SqlState("42P07");
    pub const DUPLICATE_COLUMN: SqlState = SqlState("42701");
    pub const AMBIGUOUS_COLUMN: SqlState = SqlState("42702");
    pub const DATATYPE_MISMATCH: SqlState = SqlState("42804");
    pub const WRONG_OBJECT_TYPE: SqlState = SqlState("42809");
    pub const INVALID_SCHEMA_NAME: SqlState = SqlState("3F000");
    pub const DUPLICATE_SCHEMA: SqlState = SqlState("42P06");
    pub const GROUPING_ERROR: SqlState = SqlState("42803");
    pub const INVALID_PARAMETER: SqlState = SqlState("22023");
    pub const NUMERIC_OUT_OF_RANGE: SqlState = SqlState("22003");
    pub const DIVISION_BY_ZERO: SqlState = SqlState("22012");
    pub const INVALID_TEXT: SqlState = SqlState("22P02");
    pub const NOT_NULL_VIOLATION: SqlState = SqlState("23502");
    pub const UNIQUE_VIOLATION: SqlState = SqlState("23505");
    pub const DEPENDENT_OBJECTS: SqlState = SqlState("2BP01");
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState("0A000");
    pub const OBJECT_NOT_READY: SqlState = SqlState("55000");
    pub const QUERY_CANCELED: SqlState = SqlState("57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState("57P01");
    pub const STATEMENT_TOO_COMPLEX: SqlState = SqlState("54001");
    pub const DISK_FULL: SqlState = SqlState("53100");
    pub const OUT_OF_MEMORY: SqlState = SqlState("53200");
    pub const IO_ERROR: SqlState = SqlState("58030");
    pub const CONNECTION_FAILURE: SqlState = SqlState("08006");
    pub const INTERNAL: SqlState = SqlState("XX000");
    pub const DATA_CORRUPTED: SqlState = SqlState("XX001");
}

/// What the one who receives the error can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The statement or its options are wrong; change them.
    User,
    /// Something outside (broker, disk, object store) fails; the same step may be tried again.
    Unavailable,
    /// Stored data is damaged or missing.
    Corrupt,
    /// An invariant of our own is broken.
    Internal,
}

/// An error with everything that a PostgreSQL client can show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inner {
    kind: ErrorKind,
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<usize>,
}

/// A result with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with code `state`; `message` in lower case, without full stop.
    pub fn new(kind: ErrorKind, state: SqlState, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            state,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }))
    }

    /// The statement is wrong.
    pub fn user(state: SqlState, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::User, state, message)
    }

    /// `0A000`: valid SQL that Tidemark does not maintain yet.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::User, SqlState::FEATURE_NOT_SUPPORTED, message)
    }

    /// `XX000`: an invariant of our own is broken.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, SqlState::INTERNAL, message)
    }

    /// Something outside does not answer as it should.
    pub fn unavailable(state: SqlState, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unavailable, state, message)
    }

    /// `57P01`: whoever waits for something hears that the server ends.
    pub fn shutting_down() -> Error {
        Error::unavailable(SqlState::ADMIN_SHUTDOWN, "the server is shutting down")
    }

    /// `XX001`: stored data is damaged or missing.
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corrupt, SqlState::DATA_CORRUPTED, message)
    }

    /// Adds a sentence that explains.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a sentence that says what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the place in the statement's text, in characters counted from 1.
    pub fn at(mut self, position: usize) -> Error {
        self.0.position = Some(position);
        self
    }

    /// Puts `what: ` in front of the message.
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// The PostgreSQL code.
    pub fn state(&self) -> SqlState {
        self.0.state
    }
    /// The message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// The explaining sentence.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }
    /// The sentence that says what to do.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    /// The place in the statement's text, in characters counted from 1.
    pub fn position(&self) -> Option<usize> {
        self.0.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        let state = if e.kind() == std::io::ErrorKind::StorageFull {
            SqlState::DISK_FULL
        } else {
            SqlState::IO_ERROR
        };
        Error::unavailable(state, e.to_string())
    }
}
