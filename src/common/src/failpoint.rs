//! Named places in front of each durable step where a test makes the process die, fail or wait.
//!
//! ```text
//! TIDEMARK_FAILPOINT = point { ";" point }
//! point              = name                      abort at the first hit (as "name=abort")
//!                    | name ":" n                abort at the n-th hit  (as "name=abort@n")
//!                    | name "=" action { "|" action }
//! action             = kind [ "(" argument ")" ] [ "@" n ]
//! kind               = "abort"                   end like `kill -9`: nothing is flushed
//!                    | "error" [ times ]         return an error (58030), so many times, or always
//!                    | "full" [ times ]          return the error of a full disk (53100)
//!                    | "delay" milliseconds      hold the thread up at every hit
//! ```
//! `@n` lets an action begin at the n-th hit (1 by default):
//! `log.append=error(2)|delay(50)|abort@3` fails twice, waits 50 ms at every hit, and dies at the
//! third. All actions of a point that are due take place, in the order of waiting, dying, failing.
//!
//! [`check`] stands where a failure can be reported, [`hit`] where only death and delay make sense:
//! an `error` configured there is a mistake of the test and aborts with a sentence, so that no test
//! passes because its fault never happened; so does a text that cannot be read. Without the
//! variable a place costs two loads. A unit test sets points for its own thread by [`scoped`].
//!
//! Names: `log.append`, `log.sync`, `checkpoint.upload`, `checkpoint.errors`,
//! `checkpoint.manifest`, `checkpoint.commit`, `sink.begin`, `sink.send`, `sink.commit`,
//! `sink.committed`; `recovery.run`, in front of each run of a job while a node restores and
//! replays; `backup.valid`, in front of the object that makes a backup count, and `backup.clean`,
//! after it; and of statements that change the catalog `ddl.log` (nothing is logged yet),
//! `ddl.logged` (logged, but nobody was told), `ddl.promote` (a job that has caught up is not
//! logged yet) and `ddl.visible` (a checkpoint with a new job counts, its statement has no answer).

use crate::{Error, Result, SqlState};
use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The environment variable that names the points of a process.
pub const VARIABLE: &str = "TIDEMARK_FAILPOINT";

static CONFIGURED: OnceLock<Vec<Point>> = OnceLock::new();

/// How many threads have points of their own.
static SCOPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SCOPED: RefCell<Vec<Point>> = const { RefCell::new(Vec::new()) };
}

struct Point {
    name: String,
    hits: AtomicU64,
    actions: Vec<Action>,
}

struct Action {
    kind: Kind,
    /// The hit from which on it is due, from 1.
    first: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Abort,
    Fail { state: SqlState, times: u64 },
    Delay(Duration),
}

/// Dies or waits here when a test asks for it.
pub fn hit(name: &str) {
    if let Err(error) = check(name) {
        give_up(&format!("{error}, at a place that cannot return it"));
    }
}

/// Dies, waits or fails here when a test asks for it.
pub fn check(name: &str) -> Result<()> {
    let configured = CONFIGURED.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(text) => parse(&text).unwrap_or_else(|problem| give_up(&problem)),
        Err(_) => Vec::new(),
    });
    if !configured.is_empty() {
        reach(configured, name)?;
    }
    if SCOPES.load(Ordering::Relaxed) > 0 {
        SCOPED.with(|points| reach(&points.borrow(), name))?;
    }
    Ok(())
}

/// Points of the calling thread alone, until the guard is dropped.
///
/// # Panics
/// When the text cannot be read.
#[must_use]
pub fn scoped(text: &str) -> Scope {
    let points = parse(text).unwrap_or_else(|problem| panic!("{problem}"));
    SCOPED.with(|scoped| *scoped.borrow_mut() = points);
    SCOPES.fetch_add(1, Ordering::Relaxed);
    Scope(std::marker::PhantomData)
}

/// Ends the points of [`scoped`]. It stays on its thread.
pub struct Scope(std::marker::PhantomData<*const ()>);

impl Drop for Scope {
    fn drop(&mut self) {
        SCOPES.fetch_sub(1, Ordering::Relaxed);
        SCOPED.with(|scoped| scoped.borrow_mut().clear());
    }
}

fn give_up(problem: &str) -> ! {
    eprintln!("{problem}: aborting");
    std::process::abort();
}

fn reach(points: &[Point], name: &str) -> Result<()> {
    let Some(point) = points.iter().find(|p| p.name == name) else {
        return Ok(());
    };
    let number = point.hits.fetch_add(1, Ordering::SeqCst) + 1;
    let due = || point.actions.iter().filter(|a| number >= a.first);
    for action in due() {
        if let Kind::Delay(time) = action.kind {
            // In tasks as well as in threads: it is what is to be seen.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(time);
        }
    }
    if due().any(|a| a.kind == Kind::Abort) {
        give_up(&format!("fail-point {name} reached for time {number}"));
    }
    for action in due() {
        if let Kind::Fail { state, times } = action.kind
            && number - action.first < times
        {
            let message = format!("fail-point {name}");
            return Err(Error::unavailable(state, message));
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Point>, String> {
    let points = text.split(';').filter(|t| !t.trim().is_empty());
    points.map(|t| parse_point(t.trim())).collect()
}

fn parse_point(text: &str) -> Result<Point, String> {
    let bad = || format!("{VARIABLE}: \"{text}\" is no fail-point");
    let (name, actions) = if let Some((name, actions)) = text.split_once('=') {
        let actions = actions.split('|').map(|a| parse_action(a.trim()));
        (name, actions.collect::<Option<Vec<_>>>().ok_or_else(bad)?)
    } else {
        let (name, first) = text.split_once(':').unwrap_or((text, "1"));
        let first = first.parse().map_err(|_| bad())?;
        let kind = Kind::Abort;
        (name, vec![Action { kind, first }])
    };
    Ok(Point {
        name: name.trim().to_string(),
        hits: AtomicU64::new(0),
        actions,
    })
}

fn parse_action(text: &str) -> Option<Action> {
    let (call, first) = match text.split_once('@') {
        Some((call, first)) => (call, first.parse().ok()?),
        None => (text, 1),
    };
    let (kind, argument) = match call.split_once('(') {
        Some((kind, rest)) => (kind, Some(rest.strip_suffix(')')?.parse::<u64>().ok()?)),
        None => (call, None),
    };
    let fail = |state| Kind::Fail {
        state,
        times: argument.unwrap_or(u64::MAX),
    };
    let kind = match (kind, argument) {
        ("abort", None) => Kind::Abort,
        ("error", _) => fail(SqlState::IO_ERROR),
        ("full", _) => fail(SqlState::DISK_FULL),
        ("delay", Some(milliseconds)) => Kind::Delay(Duration::from_millis(milliseconds)),
        _ => return None,
    };
    (first > 0).then_some(Action { kind, first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// The states of the errors of so many hits.
    fn errors(text: &str, hits: usize) -> Vec<Option<&'static str>> {
        let _scope = scoped(text);
        let state = |_| check("x").err().map(|e| e.state().0);
        (0..hits).map(state).collect()
    }

    #[test]
    fn errors_come_as_often_and_as_late_as_asked() {
        assert_eq!(errors("", 2), [None, None]);
        assert_eq!(errors("y=error", 2), [None, None]);
        assert_eq!(errors("x=error", 2), [Some("58030"), Some("58030")]);
        assert_eq!(errors("x=error(1)", 3), [Some("58030"), None, None]);
        assert_eq!(
            errors("y=error; x=error(1)@2|full(1)@3", 4),
            [None, Some("58030"), Some("53100"), None]
        );
        assert_eq!(errors("", 1), [None], "a scope ends");
    }

    #[test]
    fn a_delay_holds_up_and_lets_pass() {
        let (_scope, start) = (scoped("x=delay(30)"), Instant::now());
        hit("x");
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["x=", "x=die", "x=error(two)", "x=delay", "x:n", "x=abort@0"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["x", "x:3", "x=abort@3", "a=delay(5)|error(2);b"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
