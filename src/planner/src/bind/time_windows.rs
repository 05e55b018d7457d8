//! The windows of time as subqueries: the columns of a relation, and `window_start` and
//! `window_end` (see `expand`). All names are written as SQL has them.

use crate::sessions;
use tidemark_common::{Error, Result, SqlState};

/// Windows that one moment may lie in.
const WINDOWS_MAX: i64 = 10_000;

/// Where the window begins that a moment lies in.
fn start(column: &str, length: i64, offset: i64) -> String {
    if offset == 0 {
        format!("tumble_start({column}, {length})")
    } else {
        format!(
            "add_micros(tumble_start(add_micros({column}, {}), {length}), {offset})",
            -offset
        )
    }
}

/// `TUMBLE`.
pub(super) fn tumble(
    relation: &str,
    qualifier: &str,
    column: &str,
    size: i64,
    offset: i64,
) -> String {
    let start = start(column, size, offset);
    format!(
        "(SELECT {qualifier}.*, {start} AS window_start, add_micros({start}, {size}) AS window_end \
         FROM {relation})"
    )
}

/// `SESSION`.
pub(super) fn session(
    relation: &str,
    qualifier: &str,
    column: &str,
    gap: i64,
    keys: &[String],
) -> String {
    let partition = match keys {
        [] => String::new(),
        keys => format!("PARTITION BY {} ", keys.join(", ")),
    };
    let bound = |name| format!("\"{name}\"({column}, {gap}) OVER ({partition}ORDER BY {column})");
    let (start, end) = (bound(sessions::START), bound(sessions::END));
    format!("(SELECT {qualifier}.*, {start} AS window_start, {end} AS window_end FROM {relation})")
}

/// `HOP`. Errors: `22023` for a row that would lie in too many windows.
pub(super) fn hop(
    relation: &str,
    qualifier: &str,
    column: &str,
    slide: i64,
    size: i64,
    offset: i64,
) -> Result<String> {
    let count = (size + slide - 1) / slide;
    if count > WINDOWS_MAX {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("each row would lie in {count} windows, the limit is {WINDOWS_MAX}"),
        ));
    }
    let start = start(column, slide, offset);
    let rows = (0..count)
        .map(|k| format!("(CAST({} AS BIGINT))", -k * slide))
        .collect::<Vec<_>>()
        .join(", ");
    let condition = if size % slide == 0 {
        format!("{column} IS NOT NULL")
    } else {
        format!("{column} < add_micros(add_micros({start}, hop_window.ago), {size})")
    };
    Ok(format!(
        "(SELECT {qualifier}.*, add_micros({start}, hop_window.ago) AS window_start, \
         add_micros(add_micros({start}, hop_window.ago), {size}) AS window_end \
         FROM {relation} CROSS JOIN (VALUES {rows}) AS hop_window(ago) WHERE {condition})"
    ))
}
