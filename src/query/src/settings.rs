//! Session settings: what SET, RESET and SHOW know. PostgreSQL's settings that clients send have
//! their defaults here and are kept as text; the ones that mean something to Tidemark are read by
//! name where they matter. RisingWave's settings are accepted with a NOTICE that says that they
//! mean nothing.

use crate::error::Notice;
use crate::parameters::parse_bool;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_common::memory::{bytes_text, parse_bytes};
use tidemark_common::{Error, Result, SqlState};
use tidemark_values::moment::Zone;

/// The PostgreSQL version that clients are told; `pg_catalog` is shaped like it.
pub const SERVER_VERSION: &str = "13.14.0";

/// A known setting: its name as it is reported, its default, and a sentence for `SHOW ALL`.
struct Known(&'static str, &'static str, &'static str);

/// Everything that SHOW ALL shows.
const KNOWN: &[Known] = &[
    Known(
        "application_name",
        "",
        "Sets the application name to be reported in statistics and logs.",
    ),
    Known(
        "background_ddl",
        "off",
        "CREATE returns at once and catches up in the background.",
    ),
    Known("bytea_output", "hex", "Sets the output format for bytea."),
    Known(
        "client_encoding",
        "UTF8",
        "Sets the client's character set encoding.",
    ),
    Known(
        "client_min_messages",
        "notice",
        "Sets the message levels that are sent to the client.",
    ),
    Known(
        "DateStyle",
        "ISO, MDY",
        "Sets the display format for date and time values.",
    ),
    Known(
        "default_table_access_method",
        "heap",
        "Sets the default table access method for new tables.",
    ),
    Known(
        "default_transaction_isolation",
        "read committed",
        "Sets the transaction isolation level of each new transaction.",
    ),
    Known(
        "default_transaction_read_only",
        "off",
        "Sets the default read-only status of new transactions.",
    ),
    Known(
        "dml_commit",
        "sync",
        "sync: a write returns when it is decided. async: it returns at once.",
    ),
    Known(
        "extra_float_digits",
        "1",
        "Sets the number of digits displayed for floating-point values.",
    ),
    Known(
        "idle_in_transaction_session_timeout",
        "0",
        "Sets the maximum allowed idle time between queries, when in a transaction.",
    ),
    Known(
        "idle_session_timeout",
        "0",
        "Sets the maximum allowed idle time between queries, when not in a transaction.",
    ),
    Known(
        "integer_datetimes",
        "on",
        "Shows whether datetimes are integer based.",
    ),
    Known(
        "IntervalStyle",
        "postgres",
        "Sets the display format for interval values.",
    ),
    Known(
        "is_superuser",
        "on",
        "Shows whether the current user is a superuser.",
    ),
    Known("jit", "off", "Allow JIT compilation."),
    Known("lc_collate", "C", "Shows the collation order locale."),
    Known(
        "lc_ctype",
        "C.UTF-8",
        "Shows the character classification and case conversion locale.",
    ),
    Known(
        "lc_messages",
        "C",
        "Sets the language in which messages are displayed.",
    ),
    Known(
        "lock_timeout",
        "0",
        "Sets the maximum allowed duration of any wait for a lock.",
    ),
    Known(
        "max_identifier_length",
        "63",
        "Shows the maximum identifier length.",
    ),
    Known(
        "max_index_keys",
        "32",
        "Shows the maximum number of index keys.",
    ),
    Known(
        "query_memory_max",
        "0",
        "Sets the memory that one query may use; 0: half of what all queries have together.",
    ),
    Known("row_security", "on", "Enable row security."),
    Known(
        "search_path",
        "\"$user\", public",
        "Sets the schema search order for names that are not schema-qualified.",
    ),
    Known(
        "server_encoding",
        "UTF8",
        "Sets the server (database) character set encoding.",
    ),
    Known(
        "server_version",
        crate::settings::SERVER_VERSION,
        "Shows the server version.",
    ),
    Known(
        "server_version_num",
        "130014",
        "Shows the server version as an integer.",
    ),
    Known(
        "session_authorization",
        "root",
        "Sets the session user name.",
    ),
    Known(
        "standard_conforming_strings",
        "on",
        "Causes '...' strings to treat backslashes literally.",
    ),
    Known(
        "statement_timeout",
        "0",
        "Sets the maximum allowed duration of any statement, in milliseconds.",
    ),
    Known(
        "synchronize_seqscans",
        "on",
        "Enable synchronized sequential scans.",
    ),
    Known(
        "TimeZone",
        "UTC",
        "Sets the time zone for displaying and interpreting time stamps.",
    ),
    Known(
        "transaction_isolation",
        "read committed",
        "Sets the current transaction's isolation level.",
    ),
    Known(
        "transaction_timeout",
        "0",
        "Sets the maximum allowed duration of any transaction, in milliseconds.",
    ),
    Known(
        "transaction_read_only",
        "off",
        "Sets the current transaction's read-only status.",
    ),
];

/// The setting that SET SESSION AUTHORIZATION sets.
pub const SESSION_AUTHORIZATION: &str = "session_authorization";
/// The setting that SET ROLE sets.
pub const ROLE: &str = "role";
/// What it is where no role is taken.
pub const NO_ROLE: &str = "none";
const IS_SUPERUSER: &str = "is_superuser";

/// Clients are told about changes of these.
const REPORTED: &[&str] = &[
    "server_version",
    "server_encoding",
    "client_encoding",
    "application_name",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
];

/// RisingWave's settings that mean nothing here: `rw_*`, `streaming_*`, `batch_*`, and these.
const RISINGWAVE: &[&str] = &[
    "query_mode",
    "query_epoch",
    "visibility_mode",
    "implicit_flush",
    "create_compaction_group_for_mv",
    "timezone_abbreviations",
    "source_rate_limit",
    "backfill_rate_limit",
    "dml_rate_limit",
    "sink_rate_limit",
    "enable_two_phase_agg",
    "force_two_phase_agg",
    "sink_decouple",
    "cdc_source_wait_streaming_start_timeout",
    "recover",
    "parallelism",
];

/// The settings of one session.
#[derive(Clone, Debug)]
pub struct Settings {
    defaults: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    before_transaction: Option<BTreeMap<String, String>>,
    /// What SET LOCAL changed, as it was before: COMMIT brings it back.
    local: BTreeMap<String, Option<String>>,
}

/// The values that a savepoint brings back.
#[derive(Clone, Debug)]
pub struct Savepoint {
    values: BTreeMap<String, String>,
    local: BTreeMap<String, Option<String>>,
}

impl Settings {
    /// The defaults, with what the startup message says on top.
    pub fn new(user: &str, superuser: bool, startup: &BTreeMap<String, String>) -> Settings {
        let mut defaults: BTreeMap<String, String> = KNOWN
            .iter()
            .map(|k| (k.0.to_ascii_lowercase(), k.1.to_string()))
            .collect();
        defaults.insert(SESSION_AUTHORIZATION.into(), user.into());
        defaults.insert(ROLE.into(), NO_ROLE.into());
        defaults.insert(IS_SUPERUSER.into(), switch(superuser).into());
        let mut settings = Settings {
            defaults,
            values: BTreeMap::new(),
            before_transaction: None,
            local: BTreeMap::new(),
        };
        for (name, value) in startup
            .iter()
            .filter(|(n, _)| !matches!(n.as_str(), "user" | "database" | "options" | "replication"))
        {
            // A client's wish that cannot be met does not refuse the connection.
            if let Ok((name, value)) = settings.check(name, value) {
                settings.defaults.insert(name, value);
            }
        }
        settings
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        let name = canonical(name);
        self.values
            .get(name.as_ref())
            .or_else(|| self.defaults.get(name.as_ref()))
            .map(String::as_str)
    }

    /// The role that the client logged in as.
    pub fn login(&self) -> &str {
        let login = self.defaults.get(SESSION_AUTHORIZATION);
        login.map(String::as_str).unwrap_or_default()
    }

    /// That one, or the one that it took by SET SESSION AUTHORIZATION.
    pub fn session_user(&self) -> &str {
        self.get(SESSION_AUTHORIZATION).unwrap_or_default()
    }

    /// The role whose privileges its statements have.
    pub fn user(&self) -> &str {
        match self.get(ROLE) {
            None | Some(NO_ROLE) => self.session_user(),
            Some(role) => role,
        }
    }

    /// SET ROLE or SET SESSION AUTHORIZATION, which the client may do; none is the default. Returns
    /// the reported settings that have another value now.
    pub fn act_as(
        &mut self,
        name: &str,
        value: Option<&str>,
        superuser: bool,
        local: bool,
    ) -> Vec<(String, String)> {
        let reported = self.reported();
        let name = name.to_ascii_lowercase();
        let default = self.defaults.get(&name).cloned().unwrap_or_default();
        let mut changes = vec![(IS_SUPERUSER, switch(superuser).to_string())];
        if name == SESSION_AUTHORIZATION {
            changes.push((ROLE, NO_ROLE.into()));
        }
        changes.push((&name, value.map_or(default, str::to_string)));
        for (name, value) in changes {
            let before = self.values.insert(name.into(), value);
            if local {
                self.local.entry(name.into()).or_insert(before);
            } else {
                self.local.remove(name);
            }
        }
        self.reported_since(&reported)
    }

    /// A timeout; `None` if there is none.
    pub fn timeout(&self, name: &str) -> Option<Duration> {
        let milliseconds = self.get(name).and_then(parse_milliseconds)?;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    /// An amount of memory in bytes; `None` for 0.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        let bytes = self.get(name).and_then(|text| parse_bytes(text, 0));
        bytes.filter(|bytes| *bytes > 0)
    }

    /// Whether a setting is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).and_then(parse_bool).unwrap_or(false)
    }

    /// SHOW: `42704` for a setting that nobody knows.
    pub fn show(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| unknown(name))
    }

    /// `42704` for a setting that neither has a value nor may get one.
    pub fn known(&self, name: &str) -> Result<()> {
        if is_foreign(&canonical(name)) {
            return Ok(());
        }
        self.would_be(name, None).map(|_| ())
    }

    /// What SHOW would show after SET.
    pub fn would_be(&self, name: &str, value: Option<&str>) -> Result<String> {
        let lower = canonical(name).into_owned();
        match value {
            None => {
                let default = self.defaults.get(&lower).cloned();
                default
                    .or_else(|| lower.contains('.').then(String::new))
                    .ok_or_else(|| unknown(name))
            }
            Some(value) if is_foreign(&lower) => Ok(value.into()),
            Some(value) => self.check(name, value).map(|(_, value)| value),
        }
    }

    /// SET, SET LOCAL. Returns the notice to give and, for a setting that clients follow, its
    /// reported name and new value.
    pub fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Result<(Option<Notice>, Option<(String, String)>)> {
        let lower = canonical(name).into_owned();
        let before = self.values.get(&lower).cloned();
        let done = self.set_value(name, value)?;
        if local {
            self.local.entry(lower).or_insert(before);
        } else {
            self.local.remove(&lower);
        }
        Ok(done)
    }

    fn set_value(
        &mut self,
        name: &str,
        value: Option<&str>,
    ) -> Result<(Option<Notice>, Option<(String, String)>)> {
        let Some(value) = value else {
            return Ok((None, self.reset(name)));
        };
        let lower = canonical(name).into_owned();
        if is_foreign(&lower) {
            self.values.insert(lower.clone(), value.into());
            return Ok((
                Some(Notice::new(format!(
                    "setting \"{lower}\" is accepted and means nothing here"
                ))),
                None,
            ));
        }
        let (name, value) = self.check(name, value)?;
        let report = reported_name(&name).map(|n| (n.to_string(), value.clone()));
        self.values.insert(name, value);
        Ok((None, report))
    }

    /// The session's time zone.
    pub fn zone(&self) -> Zone {
        let zone = self.get("timezone").map(Zone::of_session);
        zone.and_then(Result::ok).unwrap_or(Zone::UTC)
    }

    /// RESET of one setting.
    pub fn reset(&mut self, name: &str) -> Option<(String, String)> {
        let name = canonical(name).into_owned();
        if name.contains('.') {
            // Once named, it is known to the session.
            self.values.insert(name, String::new());
            return None;
        }
        self.values.remove(&name)?;
        reported_name(&name).and_then(|n| Some((n.to_string(), self.get(&name)?.to_string())))
    }

    /// RESET ALL, which leaves the client the role that it has.
    pub fn reset_all(&mut self) -> Vec<(String, String)> {
        let kept = [SESSION_AUTHORIZATION, ROLE, IS_SUPERUSER];
        let names = self.values.keys().filter(|n| !kept.contains(&n.as_str()));
        let names: Vec<String> = names.cloned().collect();
        names.iter().filter_map(|n| self.reset(n)).collect()
    }

    /// Whether everything has the same value in both.
    pub fn equals(&self, other: &Settings) -> bool {
        std::ptr::eq(self, other) || self.values == other.values && self.defaults == other.defaults
    }

    /// A transaction begins: what it sets is undone by ROLLBACK.
    pub fn begin(&mut self) {
        self.before_transaction = Some(self.values.clone());
    }

    /// A transaction ends. Returns the reported settings that have another value now.
    pub fn end(&mut self, committed: bool) -> Vec<(String, String)> {
        let reported = self.reported();
        let before = self.before_transaction.take();
        let local = std::mem::take(&mut self.local);
        let named: Vec<String> = self.values.keys().cloned().collect();
        match before {
            Some(before) if !committed => self.values = before,
            _ => {
                for (name, value) in local {
                    match value {
                        Some(value) => self.values.insert(name, value),
                        None => self.values.remove(&name),
                    };
                }
            }
        }
        self.remember(named);
        self.reported_since(&reported)
    }

    /// The values for a savepoint.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            values: self.values.clone(),
            local: self.local.clone(),
        }
    }

    /// Back to a savepoint. Returns the reported settings that have another value now.
    pub fn back_to(&mut self, savepoint: &Savepoint) -> Vec<(String, String)> {
        let reported = self.reported();
        let named: Vec<String> = self.values.keys().cloned().collect();
        self.values = savepoint.values.clone();
        self.local = savepoint.local.clone();
        self.remember(named);
        self.reported_since(&reported)
    }

    /// Settings of the client's own that were named are known, and empty, also when what set them
    /// is undone.
    fn remember(&mut self, named: Vec<String>) {
        for name in named.into_iter().filter(|n| n.contains('.')) {
            self.values.entry(name).or_default();
        }
    }

    fn reported_since(&self, before: &[(String, String)]) -> Vec<(String, String)> {
        let now = self.reported().into_iter();
        now.filter(|setting| !before.contains(setting)).collect()
    }

    /// Name, value and description of everything, by name.
    pub fn all(&self) -> Vec<(&str, &str, &str)> {
        KNOWN
            .iter()
            .map(|k| (k.0, self.get(k.0).unwrap_or(k.1), k.2))
            .collect()
    }

    /// What a new client is told.
    pub fn reported(&self) -> Vec<(String, String)> {
        REPORTED
            .iter()
            .filter_map(|n| Some((n.to_string(), self.get(n)?.to_string())))
            .collect()
    }

    /// The schemas that unqualified names are looked up in.
    pub fn search_path(&self) -> Vec<String> {
        let path = self.get("search_path").unwrap_or("public");
        path.split(',')
            .map(|s| s.trim().trim_matches(['"', '\'']).to_string())
            .filter(|s| !s.is_empty() && s != "$user")
            .collect()
    }

    fn check(&self, name: &str, value: &str) -> Result<(String, String)> {
        let lower = canonical(name).into_owned();
        let value_given = value;
        // A client's own setting is kept as it is.
        let value = match lower.contains('.') {
            true => value.to_string(),
            false => value.trim().trim_matches('\'').to_string(),
        };
        let invalid = || {
            Error::user(
                SqlState::INVALID_PARAMETER,
                format!("invalid value for parameter \"{name}\": \"{value}\""),
            )
        };
        let value = match lower.as_str() {
            "timezone" => Zone::session_name(value_given)?,
            "client_encoding" => {
                match value.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
                    "utf8" | "unicode" | "default" | "auto" | "sqlascii" => "UTF8".into(),
                    _ => return Err(invalid().with_hint("The only encoding is UTF8.")),
                }
            }
            "datestyle" => {
                if !value.to_ascii_lowercase().starts_with("iso")
                    && !value.eq_ignore_ascii_case("default")
                {
                    return Err(Error::unsupported(format!(
                        "date style \"{value}\" is not supported"
                    ))
                    .with_hint("Dates are shown in ISO style."));
                }
                let order = value.to_ascii_lowercase();
                if order.contains("dmy") || order.contains("ymd") || order.contains("euro") {
                    let message = format!("date style \"{value}\" is not supported");
                    return Err(Error::unsupported(message)
                        .with_hint("Of dates like 1/2/2024 the month comes first."));
                }
                "ISO, MDY".into()
            }
            "bytea_output" if value != "hex" => {
                return Err(Error::unsupported("bytea_output must be hex"));
            }
            "intervalstyle" if value != "postgres" => {
                return Err(Error::unsupported("IntervalStyle must be postgres"));
            }
            "standard_conforming_strings" if parse_bool(&value) != Some(true) => {
                return Err(Error::unsupported("standard_conforming_strings must be on"));
            }
            "dml_commit" if !matches!(value.to_ascii_lowercase().as_str(), "sync" | "async") => {
                return Err(invalid().with_hint("Use sync or async."));
            }
            "dml_commit" => value.to_ascii_lowercase(),
            name if name.ends_with("_timeout") && self.defaults.contains_key(name) => {
                let Some(most) = parse_milliseconds(&value) else {
                    return Err(invalid().with_hint(
                        "A number of milliseconds, or one with a unit: ms, s, min or h.",
                    ));
                };
                with_unit(most)
            }
            "query_memory_max" => {
                let amount = parse_bytes(&value, 0).filter(|_| !value.ends_with('%'));
                let amount = amount.ok_or_else(|| {
                    invalid().with_hint("A number of bytes, or one with a unit: kB, MB, GB or TB.")
                });
                bytes_text(amount?)
            }
            "background_ddl" => (if parse_bool(&value).ok_or_else(invalid)? {
                "on"
            } else {
                "off"
            })
            .into(),
            "server_version"
            | "server_encoding"
            | "integer_datetimes"
            | "is_superuser"
            | "session_authorization"
            | "role"
            | "server_version_num"
            | "lc_collate"
            | "lc_ctype"
            | "max_identifier_length"
            | "max_index_keys" => {
                return Err(Error::user(
                    SqlState("55P02"),
                    format!("parameter \"{name}\" cannot be changed"),
                ));
            }
            "extra_float_digits" => {
                let digits: i32 = value.parse().map_err(|_| invalid())?;
                if !(-15..=3).contains(&digits) {
                    return Err(Error::user(
                        SqlState::INVALID_PARAMETER,
                        format!(
                            "{digits} is outside the valid range for parameter \"{name}\" \
                             (-15 .. 3)"
                        ),
                    ));
                }
                digits.to_string()
            }
            _ => value,
        };
        // A setting with a dot belongs to an extension and is kept as it is, as PostgreSQL does.
        if !self.defaults.contains_key(&lower)
            && !lower.contains('.')
            && !ACCEPTED.contains(&lower.as_str())
        {
            return Err(unknown(name));
        }
        Ok((lower, value))
    }
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Milliseconds in the largest unit that says them.
fn with_unit(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1000, "s"),
    ];
    let mut units = UNITS.iter().filter(|(unit, _)| milliseconds % unit == 0);
    match units.next() {
        _ if milliseconds == 0 => "0".into(),
        Some((unit, name)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

/// PostgreSQL settings that clients send and that change nothing; they are not listed by SHOW ALL.
const ACCEPTED: &[&str] = &[
    "check_function_bodies",
    "default_tablespace",
    "default_table_access_method",
    "enable_seqscan",
    "enable_indexscan",
    "enable_bitmapscan",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_nestloop",
    "escape_string_warning",
    "force_parallel_mode",
    "from_collapse_limit",
    "geqo",
    "geqo_threshold",
    "gin_fuzzy_search_limit",
    "join_collapse_limit",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "quote_all_identifiers",
    "session_replication_role",
    "synchronous_commit",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "temp_buffers",
    "transaction_deferrable",
    "vacuum_cost_delay",
    "work_mem",
    "maintenance_work_mem",
    "xmloption",
    "xmlbinary",
    "track_activities",
    "log_statement",
    "log_min_duration_statement",
    "default_transaction_deferrable",
    "jit_above_cost",
    "seed",
    "names",
    "effective_cache_size",
    "random_page_cost",
    "array_nulls",
    "backslash_quote",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
];

/// RisingWave's.
fn is_foreign(lower: &str) -> bool {
    RISINGWAVE.contains(&lower)
        || ["rw_", "streaming_", "batch_"]
            .iter()
            .any(|p| lower.starts_with(p))
}

fn canonical(name: &str) -> Cow<'_, str> {
    let lower = match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    };
    let other = match lower.as_ref() {
        "time zone" | "time.zone" => "timezone",
        "transaction isolation level" => "transaction_isolation",
        "session authorization" => "session_authorization",
        "names" => "client_encoding",
        _ => return lower,
    };
    other.into()
}

fn reported_name(lower: &str) -> Option<&'static str> {
    REPORTED
        .iter()
        .copied()
        .find(|n| n.eq_ignore_ascii_case(lower))
}

fn unknown(name: &str) -> Error {
    Error::user(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

/// `5000`, `5s`, `2min`: milliseconds.
fn parse_milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_reported_and_rolled_back() {
        let mut s = Settings::new("root", true, &BTreeMap::new());
        assert_eq!(s.show("TimeZone").unwrap(), "UTC");
        assert_eq!(
            s.set("application_name", Some("psql"), false).unwrap().1,
            Some(("application_name".into(), "psql".into()))
        );
        assert!(
            s.set("rw_implicit_flush", Some("true"), false)
                .unwrap()
                .0
                .is_some()
        );
        assert_eq!(
            s.set("no_such", Some("1"), false).unwrap_err().state(),
            SqlState::UNDEFINED_OBJECT
        );
        assert_eq!(
            s.set("statement_timeout", Some("soon"), false)
                .unwrap_err()
                .state(),
            SqlState::INVALID_PARAMETER
        );
        s.set("statement_timeout", Some("'5 s'"), false).unwrap();
        let timeout = |s: &Settings, name| s.timeout(name);
        let seconds = Duration::from_secs(5);
        assert_eq!(timeout(&s, "statement_timeout"), Some(seconds));
        assert_eq!(timeout(&s, "lock_timeout"), None);
        assert!(s.set("lock_timeout", Some("-1"), false).is_err());
        s.begin();
        s.set("dml_commit", Some("async"), false).unwrap();
        s.end(false);
        assert_eq!(s.get("dml_commit"), Some("sync"));
        s.set("search_path", Some("s2, \"$user\", public"), false)
            .unwrap();
        s.begin();
        s.set("time zone", Some("europe/berlin"), true).unwrap();
        assert_eq!(s.show("timezone").unwrap(), "Europe/Berlin");
        let utc = [("TimeZone".to_string(), "UTC".to_string())];
        assert_eq!(s.end(true), utc);
        s.set("timezone", Some("-5.5"), false).unwrap();
        assert_eq!(s.show("timezone").unwrap(), "<-05:30>+05:30");
        let unknown = s.set("timezone", Some("Mars"), false).unwrap_err();
        assert_eq!(unknown.state(), SqlState::INVALID_PARAMETER);
        assert_eq!(s.search_path(), ["s2", "public"]);
    }
    #[test]
    fn local_settings_end_with_their_transaction() {
        let mut s = Settings::new("root", true, &BTreeMap::new());
        s.set("app.user", Some("a"), false).unwrap();
        s.begin();
        s.set("app.user", Some("b"), true).unwrap();
        s.set("application_name", Some("x"), true).unwrap();
        assert_eq!(s.get("app.user"), Some("b"));
        let back = [("application_name".to_string(), String::new())];
        assert_eq!(s.end(true), back);
        assert_eq!(s.get("app.user"), Some("a"));
        s.begin();
        let savepoint = s.savepoint();
        s.set("app.user", Some("b"), true).unwrap();
        s.set("app.user", Some("c"), false).unwrap();
        s.back_to(&savepoint);
        assert_eq!(s.get("app.user"), Some("a"));
        s.set("app.user", Some("b"), true).unwrap();
        s.set("app.user", Some("c"), false).unwrap();
        s.end(true);
        assert_eq!(s.get("app.user"), Some("c"), "not local any more");
        assert_eq!(s.would_be("app.user", None).unwrap(), "");
        assert_eq!(s.would_be("statement_timeout", Some("5s")).unwrap(), "5s");
        assert!(s.would_be("nonsense", Some("1")).is_err());
    }
}
