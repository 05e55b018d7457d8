//! Functions that know the statement's session and may change it, or end others: roles, settings,
//! advisory locks, notifications, the number of the transaction. What they do to the session goes
//! by way of [`Effects`](crate::effects::Effects).

use super::functions::{Arguments, constant, function, list, no_function, stable};
use crate::advisory::{Key, Mode, Scope};
use crate::clients::Clients;
use crate::commons::Commons;
use crate::error::Notice;
use crate::privileges::may_watch;
use crate::snapshot::Snapshot;
use arrow::datatypes::DataType;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{ScalarUDF, Volatility};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};

/// The function of that name, for one statement.
pub fn of_statement(snapshot: &Snapshot, name: &str) -> Option<Arc<ScalarUDF>> {
    use DataType::{Boolean, Int64, Utf8};
    let s = snapshot.clone();
    let volatile = Volatility::Volatile;
    Some(match name {
        "current_setting" => {
            // A constant, unless the same statement changes settings before.
            let volatility = if s.effects.sets_settings() {
                Volatility::Volatile
            } else {
                Volatility::Stable
            };
            function(name, Utf8, volatility, 1, move |a| current_setting(&s, a))
        }
        "set_config" => {
            s.effects.will_set_settings();
            function(name, Utf8, volatile, 3, move |a| {
                let Some(wanted) = a[0].as_deref() else {
                    let message = "SET requires parameter name";
                    return Err(Error::user(SqlState("22004"), message));
                };
                let local = a[2].as_deref() == Some("true");
                let set = s.effects.set(&s.settings, wanted, a[1].as_deref(), local);
                set.map(Some)
            })
        }
        "current_user" | "current_role" | "user" => constant(name, Utf8, Some(&s.user)),
        "session_user" => constant(name, Utf8, Some(s.settings.session_user())),
        "pg_cancel_backend" => signal(name, s, Clients::cancel),
        "pg_terminate_backend" => signal(name, s, Clients::end),
        "pg_notify" => function(name, Utf8, volatile, 2, move |a| {
            let text = |i: usize| a[i].as_deref().unwrap_or_default();
            s.effects.notify(text(0), text(1))?;
            Ok(Some(String::new()))
        }),
        "pg_sleep" => function(name, Utf8, volatile, 1, move |a| {
            let Some(seconds) = a[0].as_deref() else {
                return Ok(None);
            };
            let seconds: f64 = number(seconds, "double precision")?;
            s.effects.sleep(seconds)?;
            Ok(Some(String::new()))
        }),
        "pg_listening_channels" => stable(name, list(), 0, move |_| {
            Ok(Some(s.effects.channels().join("\n")))
        }),
        "txid_current" | "pg_current_xact_id" => function(name, Int64, volatile, 0, move |_| {
            let number = s.effects.transaction_number()?;
            Ok(Some(number.to_string()))
        }),
        "pg_advisory_unlock_all" => function(name, Utf8, volatile, 0, move |_| {
            s.effects.unlock_all()?;
            Ok(Some(String::new()))
        }),
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" => {
            let mode = mode_of(name);
            keyed(name, Boolean, move |key| {
                let held = s.effects.unlock(key, mode)?;
                if !held {
                    let text = format!("you don't own a lock of type {mode}");
                    // Who asks may be gone.
                    let _ = s.notices.send(Notice::warning(SqlState("01000"), text));
                }
                Ok(held.to_string())
            })
        }
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_advisory_xact_lock"
        | "pg_advisory_xact_lock_shared" => {
            let (mode, scope) = (mode_of(name), scope_of(name));
            keyed(name, Utf8, move |key| {
                s.effects.lock(&s.settings, key, mode, scope)?;
                Ok(String::new())
            })
        }
        "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared"
        | "pg_try_advisory_xact_lock"
        | "pg_try_advisory_xact_lock_shared" => {
            let (mode, scope) = (mode_of(name), scope_of(name));
            keyed(name, Boolean, move |key| {
                Ok(s.effects.try_lock(key, mode, scope)?.to_string())
            })
        }
        _ => return None,
    })
}

fn current_setting(s: &Snapshot, a: Arguments) -> Result<Option<String>> {
    let Some(wanted) = a[0].as_deref() else {
        return Ok(None);
    };
    if let Some(value) = s.effects.setting(wanted) {
        return Ok(Some(value));
    }
    let missing_ok = a.get(1).is_some_and(|m| m.as_deref() == Some("true"));
    match s.settings.show(wanted) {
        Ok(value) => Ok(Some(value.to_string())),
        Err(_) if missing_ok => Ok(None),
        Err(e) => Err(e),
    }
}

/// A function that does something to another session: true if there is such a one, else a WARNING.
fn signal(name: &str, s: Snapshot, act: fn(&Clients, i32) -> bool) -> Arc<ScalarUDF> {
    function(name, DataType::Boolean, Volatility::Volatile, 1, move |a| {
        let Some(text) = a.first().and_then(Option::as_deref) else {
            return Ok(None);
        };
        let found = match text.parse().ok() {
            Some(pid) => {
                check_signal(&s.commons, &s.user, pid)?;
                act(&s.commons.clients, pid)
            }
            None => false,
        };
        if !found {
            let text = format!("PID {text} is not a PostgreSQL server process");
            // Who asks may be gone.
            let _ = s.notices.send(Notice::warning(SqlState("01000"), text));
        }
        Ok(Some(found.to_string()))
    })
}

/// `42501` for a session of a role that is not the asking one's.
fn check_signal(commons: &Commons, user: &str, pid: i32) -> Result<(), Error> {
    let catalog = commons.engine.catalog();
    let clients = commons.clients.list();
    let other = clients
        .iter()
        .find(|(p, _)| *p == pid)
        .map(|(_, c)| c.user.as_str());
    if other.is_none_or(|other| may_watch(&catalog, user, other)) {
        return Ok(());
    }
    let message = "must be a member of the role whose query is being canceled";
    Err(Error::user(SqlState("42501"), message))
}

fn mode_of(name: &str) -> Mode {
    if name.ends_with("_shared") {
        Mode::Shared
    } else {
        Mode::Exclusive
    }
}

fn scope_of(name: &str) -> Scope {
    if name.contains("_xact_") {
        Scope::Transaction
    } else {
        Scope::Session
    }
}

/// A function of an advisory lock's key; NULL of NULL.
fn keyed(
    name: &str,
    output: DataType,
    body: impl Fn(Key) -> Result<String> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let own = name.to_string();
    function(name, output, Volatility::Volatile, 1, move |a| {
        let Some(values) = a.iter().cloned().collect::<Option<Vec<String>>>() else {
            return Ok(None);
        };
        let key = match values.as_slice() {
            [key] => Key::One(number(key, "bigint")?),
            [first, second] => match (first.parse(), second.parse()) {
                (Ok(first), Ok(second)) => Key::Two(first, second),
                _ => {
                    // Numbers that are no integers are another function's.
                    number::<i64>(first, "integer")?;
                    number::<i64>(second, "integer")?;
                    return Err(ours(no_function(&own, &[DataType::Int64, DataType::Int64])));
                }
            },
            more => {
                let types = vec![DataType::Int32; more.len()];
                return Err(ours(no_function(&own, &types)));
            }
        };
        body(key).map(Some)
    })
}

fn number<T: std::str::FromStr>(text: &str, data_type: &str) -> Result<T> {
    text.trim().parse().map_err(|_| {
        Error::user(
            SqlState::INVALID_TEXT,
            format!("invalid input syntax for type {data_type}: \"{text}\""),
        )
    })
}

fn ours(e: DataFusionError) -> Error {
    crate::error::from_datafusion(e)
}
