//! The options in WITH that the planner reads itself, and those that are secrets.

use crate::interval::fixed_micros;
use crate::statement::Name;
use std::collections::BTreeMap;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Hidden, OnError, SecretName};
use tidemark_values::moment::{IntervalFields, read_interval};

/// A partition that is quiet for less is not idle, in microseconds.
const IDLE_MICROS_MIN: u64 = 100_000;

/// What `idle_timeout` is called elsewhere.
const IDLE_ELSEWHERE: &[&str] = &[
    "scan.watermark.idle-timeout",
    "scan.watermark.idle_timeout",
    "table.exec.source.idle-timeout",
    "source.idle.timeout",
    "source_idle_timeout",
    "idle.timeout",
    "idle_time",
    "watermark_idle_timeout",
];

/// `22023` for an option that is not among `known`.
pub(crate) fn only_options(options: &BTreeMap<String, String>, known: &[&str]) -> Result<()> {
    let unknown: Vec<&str> = options
        .keys()
        .map(String::as_str)
        .filter(|option| !known.contains(option))
        .collect();
    let [first, more @ ..] = unknown.as_slice() else {
        return Ok(());
    };
    let error = Error::user(
        SqlState::INVALID_PARAMETER,
        format!("unknown option \"{first}\""),
    );
    let error = match more {
        [] => error,
        _ => error.with_detail(format!("Unknown are also: {}.", more.join(", "))),
    };
    Err(error.with_hint(match known {
        [] => "A view has no options.".to_string(),
        _ => format!("Options are: {}.", known.join(", ")),
    }))
}

/// `on_error` among the options.
pub(crate) fn on_error(options: &BTreeMap<String, String>) -> Result<OnError> {
    match options.get("on_error").map(|v| v.to_lowercase()).as_deref() {
        None | Some("log") => Ok(OnError::Log),
        Some("fail") => Ok(OnError::Fail),
        Some("null") => Ok(OnError::Null),
        Some(other) => Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"on_error\" cannot be \"{other}\""),
        )
        .with_hint("It is one of log, fail and null.")),
    }
}

/// `idle_timeout` among the options of a source that reads this connector, in microseconds.
pub(crate) fn idle_timeout(
    options: &BTreeMap<String, String>,
    connector: Option<&str>,
) -> Result<Option<u64>> {
    let elsewhere = IDLE_ELSEWHERE.iter().find(|o| options.contains_key(**o));
    if let Some(option) = elsewhere {
        let message = format!("unknown option \"{option}\"");
        return Err(Error::user(SqlState::INVALID_PARAMETER, message).with_hint(
            "After how long a partition without rows holds nobody back is told by idle_timeout.",
        ));
    }
    let Some(text) = options.get("idle_timeout") else {
        return Ok(None);
    };
    if connector != Some("kafka") {
        return Err(Error::unsupported(
            "option \"idle_timeout\" is supported for connector kafka only",
        )
        .with_hint("Leave it away: elsewhere no partition is known to have come to its end."));
    }
    let invalid = || {
        Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"idle_timeout\" cannot be \"{text}\""),
        )
        .with_hint("It is a time from 100 milliseconds on, without months, such as '30 seconds'.")
    };
    let interval = read_interval(text, IntervalFields::All, 6).map_err(|_| invalid())?;
    let micros = fixed_micros(&interval).and_then(|micros| u64::try_from(micros).ok());
    let micros = micros.filter(|micros| *micros >= IDLE_MICROS_MIN);
    micros.map(Some).ok_or_else(invalid)
}

/// `max_iterations` among the options: after how many a recursive query is cut.
pub(crate) fn max_iterations(options: &BTreeMap<String, String>) -> Result<Option<u32>> {
    const MOST: u32 = 1_000_000;
    let Some(text) = options.get("max_iterations") else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(Some(number)),
        _ => Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"max_iterations\" cannot be \"{text}\""),
        )
        .with_hint(format!("It is a number from 1 to {MOST}."))),
    }
}

/// A boolean option.
pub(crate) fn flag(options: &BTreeMap<String, String>, name: &str, default: bool) -> Result<bool> {
    match options.get(name).map(|v| v.to_lowercase()).as_deref() {
        None => Ok(default),
        Some("true" | "on" | "1" | "t") => Ok(true),
        Some("false" | "off" | "0" | "f") => Ok(false),
        Some(other) => Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"{name}\" cannot be \"{other}\""),
        )
        .with_hint("It is true or false.")),
    }
}

/// Options that say what the relation is, and so are no secrets.
const READ_BY_PLANNER: &[&str] = &[
    "connector",
    "on_error",
    "max_iterations",
    "type",
    "primary_key",
    "snapshot",
    "idle_timeout",
    "force_append_only",
    "appendonly",
    "retention_seconds",
    "nexmark.table.type",
];

/// The options that are secrets, by their names; what they hold is not known here.
pub(crate) fn references(
    secrets: &BTreeMap<String, Name>,
    position: usize,
) -> Result<BTreeMap<String, Hidden>> {
    if let Some(option) = secrets
        .keys()
        .find(|k| READ_BY_PLANNER.contains(&k.as_str()))
    {
        let message = format!("option \"{option}\" cannot be a SECRET");
        return Err(Error::user(SqlState::INVALID_PARAMETER, message).at(position));
    }
    let reference = |(option, name): (&String, &Name)| {
        let secret = SecretName {
            schema_name: name.schema.clone().unwrap_or_default(),
            name: name.name.clone(),
        };
        let hidden = Hidden {
            sealed: String::new(),
            secret: Some(secret),
        };
        (option.clone(), hidden)
    };
    Ok(secrets.iter().map(reference).collect())
}
