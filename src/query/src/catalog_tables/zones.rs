//! `pg_timezone_names` and `pg_timezone_abbrevs`: the time zones that a session may set, as they
//! are now.

use super::build::Row;
use tidemark_values::moment::{Interval, SECOND, abbreviations_at, interval_text_of, zones_at};

/// The columns of `pg_timezone_names`.
pub(super) const NAMES: &str = "name text, abbrev text, utc_offset text, is_dst bool";
/// The columns of `pg_timezone_abbrevs`.
pub(super) const ABBREVIATIONS: &str = "abbrev text, utc_offset text, is_dst bool";

/// A row for each zone.
pub(super) fn names() -> Vec<Row> {
    zones_at(now())
        .map(|zone| {
            vec![
                ("name", zone.name.into()),
                ("abbrev", zone.abbreviation.into()),
                ("utc_offset", offset(zone.offset).into()),
                ("is_dst", zone.is_summer.into()),
            ]
        })
        .collect()
}

/// A row for each abbreviation.
pub(super) fn abbreviations() -> Vec<Row> {
    abbreviations_at(now())
        .map(|(letters, seconds, is_summer)| {
            vec![
                ("abbrev", letters.into()),
                ("utc_offset", offset(seconds).into()),
                ("is_dst", is_summer.into()),
            ]
        })
        .collect()
}

/// `01:00:00`.
fn offset(seconds_east: i32) -> String {
    interval_text_of(Interval::new(0, 0, i64::from(seconds_east) * SECOND))
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
