//! Time zones: `timezone(zone, moment)`, which is what `moment AT TIME ZONE zone` means.
//!
//! A timestamptz becomes the time that clocks show there, a timestamp the moment at which they show
//! it. Where clocks go back, the later moment is meant (standard time); a time that clocks skip is
//! read with the offset before, both as in PostgreSQL.

use super::definition::*;
use arrow::array::timezone::Tz;
use arrow::array::{Array, AsArray, TimestampMicrosecondArray, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;

fn timestamp(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
}

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![Definition {
        name: "timezone",
        aliases: &[],
        takes: |types| match types {
            [zone, DataType::Timestamp(_, Some(_))] if is_text(zone) => {
                Some(vec![DataType::Utf8, timestamp(Some("UTC"))])
            }
            // A date or a text is a timestamptz first, as in PostgreSQL.
            [
                zone,
                DataType::Date32
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Null,
            ] if is_text(zone) => Some(vec![DataType::Utf8, timestamp(Some("UTC"))]),
            [zone, DataType::Timestamp(_, None)] if is_text(zone) => {
                Some(vec![DataType::Utf8, timestamp(None)])
            }
            _ => None,
        },
        returns: |types| match &types[1] {
            DataType::Timestamp(_, None) => timestamp(Some("UTC")),
            _ => timestamp(None),
        },
        evaluate: timezone,
    }]
}

fn timezone(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (zones, moments) = (array(args, 0)?, array(args, 1)?);
    let to_local = matches!(moments.data_type(), DataType::Timestamp(_, Some(_)));
    let (zones, moments) = (
        zones.as_string::<i32>(),
        moments.as_primitive::<TimestampMicrosecondType>(),
    );
    let mut known: Option<(&str, Tz)> = None;
    let mut shifted = TimestampMicrosecondBuilder::with_capacity(moments.len());
    for (zone, moment) in zones.iter().zip(moments) {
        let (Some(name), Some(moment)) = (zone, moment) else {
            shifted.append_null();
            continue;
        };
        let (_, zone) = match known {
            Some(same) if same.0 == name => same,
            _ => *known.insert((name, named(name)?)),
        };
        let offset = DateTime::from_timestamp_micros(moment)
            .map(|at| at.naive_utc())
            .map(|at| {
                if to_local {
                    zone.offset_from_utc_datetime(&at).fix()
                } else {
                    offset_of_local(zone, at)
                }
            });
        let micros = offset
            .map(|offset| i64::from(offset.local_minus_utc()) * 1_000_000)
            .and_then(|by| {
                if to_local {
                    moment.checked_add(by)
                } else {
                    moment.checked_sub(by)
                }
            });
        shifted.append_value(
            micros.ok_or_else(|| failure(SqlState("22008"), "timestamp out of range"))?,
        );
    }
    let shifted: TimestampMicrosecondArray = shifted.finish();
    result(
        args,
        Arc::new(if to_local {
            shifted
        } else {
            shifted.with_timezone("UTC")
        }),
    )
}

fn named(name: &str) -> Result<Tz> {
    let unknown = || {
        failure(
            SqlState("22023"),
            format!("time zone \"{name}\" not recognized"),
        )
    };
    // Offsets count westwards in PostgreSQL and eastwards here: names only.
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(unknown());
    }
    let plain = match name.to_ascii_uppercase().as_str() {
        "Z" | "ZULU" | "UTC" | "GMT" => "UTC",
        _ => name,
    };
    plain.parse().map_err(|_| unknown())
}

/// The offset that clocks have when they show `local`.
fn offset_of_local(zone: Tz, local: NaiveDateTime) -> chrono::FixedOffset {
    match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) => offset.fix(),
        LocalResult::Ambiguous(one, other) => {
            if one.fix().local_minus_utc() < other.fix().local_minus_utc() {
                one.fix()
            } else {
                other.fix()
            }
        }
        LocalResult::None => zone
            .offset_from_utc_datetime(
                &local
                    .checked_sub_signed(TimeDelta::days(1))
                    .unwrap_or(local),
            )
            .fix(),
    }
}
